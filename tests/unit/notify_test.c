/* SPDX-License-Identifier: BSD-2-Clause */
/* Write notification against a subscriber: who is told, who waits, and what a verdict changes. */
#include "notify.h"

#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "fork.h"
#include "host.h"
#include "pin.h"
#include "test.h"

#define BLOCK (UINT64_C(1) << (PAGE_SHIFT + LEVEL_BITS))
#define BASE (4 * BLOCK) /* of the memory under test: BLOCKS blocks */
#define BLOCKS 4u
#define LOOSE (BASE + BLOCK) /* a block of 4 KiB leaves; the others are 2 MiB leaves */
#define VCPUS 20u

static struct mm_ctx *ctx;
static struct pool *pool;
static struct space *space;
static struct channel *channel;
static struct vcpu_wait waits[VCPUS];

static const struct region private_memory = {
    .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};

static void set_up_policy(enum region_policy policy, const struct channel_options *options)
{
    struct region region = private_memory;

    region.policy = policy;
    host_start(NULL);
    ctx = host_ctx(0);
    pool = host_pool(64 * BLOCK);
    REQUIRE_OK(space_create(ctx, pool, UINT64_MAX, &space));
    for (unsigned i = 0; i < BLOCKS; i++) {
        region.order = BASE + i * BLOCK == LOOSE ? 0 : 1;
        REQUIRE_OK(space_set_region(ctx, space, gpa(BASE + i * BLOCK), BLOCK, &region));
        REQUIRE_OK(space_populate(ctx, space, gpa(BASE + i * BLOCK), BLOCK));
    }
    REQUIRE_OK(channel_create(ctx, pool, options, &channel));
    memset(waits, 0, sizeof(waits));
    for (unsigned i = 0; i < VCPUS; i++) {
        waits[i].vcpu = i;
    }
    host_cpu_set_wait(1, &waits[1]);
    REQUIRE_OK(host_cpu_run(1, space));
}

static void set_up(const struct channel_options *options)
{
    set_up_policy(REGION_PRIVATE, options);
}

static void arm(uint64_t at, uint64_t size)
{
    REQUIRE_OK(channel_arm(ctx, channel, space, gpa(at), size));
    host_tlb_check();
}

static void check_audit(void)
{
    struct audit_report report;
    uint64_t size = audit_scratch_bytes(pool);
    void *scratch = calloc(1, size);

    host_check_locks();
    CHECK_OK(pool_audit(ctx, pool, scratch, size, &report));
    CHECK_EQ(report.invariant, 0);
    if (report.invariant != 0) {
        test_case("audit: %s", report.what);
        CHECK(false);
    }
    free(scratch);
}

/* A guest's store by vcpu 1. */
static enum cleave_status store(uint64_t at, uint64_t value)
{
    return host_cpu_write(1, gpa(at), &value, sizeof(value));
}

/* What the space holds, without a CPU's translations. */
static uint64_t load(struct space *from, uint64_t at)
{
    uint64_t value = ~UINT64_C(0);
    CHECK_OK(space_read(ctx, from, gpa(at), &value, sizeof(value), NULL));
    return value;
}

/* A write fault of another vcpu of `s`. */
static enum cleave_status fault(struct space *s, uint64_t at, unsigned vcpu)
{
    return space_fault(ctx, s, gpa(at), ACCESS_WRITE, &waits[vcpu]);
}

static struct event next(void)
{
    struct event event = {0};
    CHECK(channel_next(ctx, channel, &event));
    return event;
}

static void nothing_next(void)
{
    struct event event;
    CHECK(!channel_next(ctx, channel, &event));
}

/* The writer waits, nothing is written, and the verdict on the one event is `verdict`. */
static struct event store_decided(uint64_t at, enum verdict verdict)
{
    uint64_t before = load(space, at);
    CHECK_STATUS(store(at, before + 1), CLEAVE_WAIT);
    CHECK_EQ(waits[1].kind, WAIT_VERDICT);
    CHECK_EQ(load(space, at), before);
    struct event event = next();
    nothing_next();
    CHECK_EQ(event.space, space->id);
    CHECK_EQ(event.vcpu, 1);
    CHECK_LE(event.range.start.v, at >> PAGE_SHIFT);
    CHECK_LE((at >> PAGE_SHIFT) + 1, event.range.end.v);
    uint64_t wakes = host_counters().wakes;
    CHECK_OK(channel_verdict(ctx, channel, event.id, verdict));
    CHECK_EQ(host_counters().wakes, wakes + 1);
    CHECK_EQ(waits[1].kind, WAIT_NONE);
    CHECK_STATUS(channel_verdict(ctx, channel, event.id, verdict), CLEAVE_INVALID);
    return event;
}

static const uint64_t page = PAGE_SIZE;

/* --- Verdicts --------------------------------------------------------------------------------- */

static const struct shape {
    const char *label;
    enum region_policy policy;
    uint8_t grain;
    uint64_t at;
} shapes[] = {
    {"private 4K leaf 4K grain", REGION_PRIVATE, 0, LOOSE},
    {"private 4K leaf 2M grain", REGION_PRIVATE, 1, LOOSE},
    {"private 2M leaf 4K grain", REGION_PRIVATE, 0, BASE},
    {"private 2M leaf 2M grain", REGION_PRIVATE, 1, BASE},
    {"shared 4K leaf 4K grain", REGION_SHARED, 0, LOOSE},
    {"shared 2M leaf 2M grain", REGION_SHARED, 1, BASE},
};

TEST_TABLE(allow, shapes)
{
    set_up_policy(row->policy, &(struct channel_options){.grain = row->grain});
    uint64_t at = row->at + 2 * page;
    CHECK_OK(store(at, 5)); /* the CPU has a writable translation */
    arm(BASE, BLOCKS * BLOCK);
    struct event event = store_decided(at, VERDICT_ALLOW);
    CHECK_EQ(event.range.end.v - event.range.start.v, level_pages(row->grain));
    CHECK_EQ(channel_dirty(ctx, channel), 1);
    CHECK_OK(store(at, 7));
    CHECK_EQ(load(space, at), 7);
    CHECK_OK(store(at, 8)); /* until rearmed */
    nothing_next();

    /* Its neighbour is in the same grain or another; the next block always in another. */
    CHECK_STATUS(store(at + page, 9), row->grain == 0 ? CLEAVE_WAIT : CLEAVE_OK);
    if (row->grain == 0) {
        CHECK_OK(channel_verdict(ctx, channel, next().id, VERDICT_ALLOW));
        CHECK_OK(store(at + page, 9));
        CHECK_EQ(channel_dirty(ctx, channel), 2);
    }
    CHECK_EQ(load(space, at + page), 9);
    CHECK_STATUS(store(at + BLOCK, 9), CLEAVE_WAIT);
    CHECK_OK(channel_verdict(ctx, channel, next().id, VERDICT_DENY));
    check_audit();
}

TEST_TABLE(deny, shapes)
{
    set_up_policy(row->policy, &(struct channel_options){.grain = row->grain});
    uint64_t at = row->at + 3 * page;
    CHECK_OK(store(at, 5));
    arm(row->at, BLOCK);
    struct event first = store_decided(at, VERDICT_DENY);
    CHECK_STATUS(store(at, 7), CLEAVE_DENIED);
    CHECK_EQ(load(space, at), 5);
    CHECK_EQ(channel_dirty(ctx, channel), 0);
    /* The next write is a new question. */
    struct event second = store_decided(at, VERDICT_ALLOW);
    CHECK_LE(first.id + 1, second.id);
    CHECK_OK(store(at, 8));
    CHECK_EQ(load(space, at), 8);
    check_audit();
}

TEST_TABLE(asynchronous, shapes)
{
    set_up_policy(row->policy,
                  &(struct channel_options){.grain = row->grain, .asynchronous = true});
    arm(BASE, BLOCKS * BLOCK);
    CHECK_OK(store(row->at, 7));
    CHECK_OK(store(row->at, 8));
    CHECK_EQ(load(space, row->at), 8);
    CHECK_OK(store(row->at + 2 * BLOCK, 9));
    CHECK_EQ(channel_dirty(ctx, channel), 2);
    struct event first = next();
    struct event second = next();
    nothing_next();
    CHECK_EQ(first.range.start.v, row->at >> PAGE_SHIFT);
    CHECK_EQ(second.range.start.v, (row->at + 2 * BLOCK) >> PAGE_SHIFT);
    CHECK_LE(first.id + 1, second.id);
    CHECK_STATUS(channel_verdict(ctx, channel, first.id, VERDICT_ALLOW), CLEAVE_INVALID);
    check_audit();
}

TEST_TABLE(rearm, shapes)
{
    set_up_policy(row->policy, &(struct channel_options){.grain = row->grain});
    arm(BASE, BLOCKS * BLOCK);
    struct event first = store_decided(row->at, VERDICT_ALLOW);
    CHECK_OK(store(row->at, 7)); /* the CPU has a writable translation again */
    CHECK_OK(channel_rearm(ctx, channel, space, gpa(row->at), page));
    host_tlb_check();
    CHECK_EQ(channel_dirty(ctx, channel), 0);
    struct event second = store_decided(row->at, VERDICT_ALLOW);
    CHECK_EQ(second.generation, first.generation + 1);
    CHECK_OK(store(row->at, 8));
    CHECK_EQ(load(space, row->at), 8);
    /* Rearming what is not dirty changes nothing. */
    CHECK_OK(channel_rearm(ctx, channel, space, gpa(row->at + 2 * BLOCK), BLOCK));
    CHECK_EQ(channel_dirty(ctx, channel), 1);
    CHECK_OK(store(row->at, 9));
    check_audit();
}

TEST_TABLE(disarm, shapes)
{
    set_up_policy(row->policy, &(struct channel_options){.grain = row->grain});
    arm(BASE, BLOCKS * BLOCK);
    (void)store_decided(row->at, VERDICT_ALLOW);
    CHECK_STATUS(store(row->at + 2 * BLOCK, 7), CLEAVE_WAIT);
    CHECK_OK(channel_disarm(ctx, channel, space, gpa(BASE), BLOCKS * BLOCK));
    CHECK_EQ(waits[1].kind, WAIT_NONE);
    CHECK_EQ(waits[1].outcome, WAIT_RETRY);
    CHECK_EQ(channel_dirty(ctx, channel), 0);
    CHECK_OK(store(row->at + 2 * BLOCK, 7));
    CHECK_OK(store(row->at + page, 7));
    nothing_next();
    CHECK_STATUS(channel_disarm(ctx, channel, space, gpa(BASE), BLOCK), CLEAVE_NOT_MAPPED);
    CHECK_STATUS(channel_rearm(ctx, channel, space, gpa(BASE), BLOCK), CLEAVE_NOT_MAPPED);
    check_audit();
}

/* A page that was never touched is told of before it has a frame. */
TEST(first_touch_is_told)
{
    uint64_t at = BASE + BLOCKS * BLOCK;

    set_up(&(struct channel_options){.grain = 0});
    CHECK_OK(space_set_region(ctx, space, gpa(at), BLOCK, &private_memory));
    arm(at, BLOCK);
    (void)store_decided(at + page, VERDICT_ALLOW);
    CHECK_OK(store(at + page, 3));
    CHECK_STATUS(store(at, 3), CLEAVE_WAIT);
    check_audit();
}

/* What the hypervisor writes for a guest is told of like the guest's own store. */
TEST(writes_by_others_are_told)
{
    uint64_t value = 3;
    uint64_t done;

    set_up(&(struct channel_options){.grain = 0});
    arm(LOOSE, BLOCK);
    CHECK_STATUS(space_write(ctx, space, gpa(LOOSE), &value, 8, &waits[2], &done), CLEAVE_WAIT);
    CHECK_EQ(done, 0);
    CHECK_EQ(next().vcpu, 2);
    CHECK_STATUS(space_write(ctx, space, gpa(LOOSE + page), &value, 8, NULL, &done), CLEAVE_WAIT);
    struct event event = next();
    CHECK_EQ(event.vcpu, UINT32_MAX);
    CHECK_OK(channel_verdict(ctx, channel, event.id, VERDICT_ALLOW));
    CHECK_OK(space_write(ctx, space, gpa(LOOSE + page), &value, 8, NULL, &done));
    CHECK_EQ(load(space, LOOSE + page), 3);
    CHECK_EQ(load(space, LOOSE), 0);
}

/* A foreign map that was written through loses its write bit with the arming. */
TEST(foreign_maps_are_protected)
{
    struct space *mapper;
    uint64_t value = 5;

    set_up(&(struct channel_options){.grain = 0});
    REQUIRE_OK(space_create(ctx, pool, UINT64_MAX, &mapper));
    CHECK_OK(foreign_map(ctx, space, gpa(LOOSE), mapper, gpa(BASE)));
    host_cpu_stop(1);
    REQUIRE_OK(host_cpu_run(1, mapper));
    CHECK_OK(host_cpu_write(1, gpa(BASE), &value, sizeof(value)));
    CHECK_EQ(load(space, LOOSE), 5);
    arm(LOOSE, BLOCK);
    value = 6;
    CHECK_STATUS(host_cpu_write(1, gpa(BASE), &value, sizeof(value)), CLEAVE_WAIT);
    struct event event = next();
    CHECK_EQ(event.space, space->id);
    CHECK_EQ(load(space, LOOSE), 5);
    CHECK_OK(channel_verdict(ctx, channel, event.id, VERDICT_ALLOW));
    CHECK_OK(host_cpu_write(1, gpa(BASE), &value, sizeof(value)));
    CHECK_EQ(load(space, LOOSE), 6);
    CHECK_OK(channel_rearm(ctx, channel, space, gpa(LOOSE), page));
    value = 7;
    CHECK_STATUS(host_cpu_write(1, gpa(BASE), &value, sizeof(value)), CLEAVE_WAIT);
    CHECK_OK(channel_verdict(ctx, channel, next().id, VERDICT_DENY));
    CHECK_STATUS(host_cpu_write(1, gpa(BASE), &value, sizeof(value)), CLEAVE_DENIED);
    CHECK_EQ(load(space, LOOSE), 6);
}

/* --- Bounds ----------------------------------------------------------------------------------- */

/* One event for a grain, however many write to it; all of them go on. */
TEST(events_coalesce)
{
    set_up(&(struct channel_options){.grain = 1});
    arm(LOOSE, BLOCK);
    for (unsigned v = 1; v < 6; v++) {
        CHECK_STATUS(fault(space, LOOSE + v * page, v), CLEAVE_WAIT);
    }
    struct event event = next();
    CHECK_EQ(event.vcpu, 1);
    nothing_next();
    CHECK_STATUS(fault(space, LOOSE, 6), CLEAVE_WAIT); /* taken, not yet decided */
    nothing_next();
    CHECK_OK(channel_verdict(ctx, channel, event.id, VERDICT_ALLOW));
    for (unsigned v = 1; v < 7; v++) {
        CHECK_EQ(waits[v].kind, WAIT_NONE);
        CHECK_OK(fault(space, LOOSE + v * page, v));
    }
    CHECK_EQ(space->stats.events, 1);
    check_audit();
}

TEST(readers_wait_for_an_event)
{
    struct vcpu_wait reader[3] = {{0}};
    struct event event;
    set_up(&(struct channel_options){.grain = 0});
    arm(LOOSE, BLOCK);
    for (unsigned i = 0; i < 3; i++) {
        CHECK(!channel_await(ctx, channel, &reader[i], &event));
        CHECK_EQ(reader[i].kind, WAIT_EVENT);
    }
    channel_cancel_wait(ctx, pool, &reader[1]);
    CHECK_EQ(reader[1].kind, WAIT_NONE);
    CHECK_STATUS(fault(space, LOOSE, 4), CLEAVE_WAIT); /* all look, and one of them gets it */
    CHECK_EQ(reader[0].kind, WAIT_NONE);
    CHECK_EQ(reader[2].kind, WAIT_NONE);
    CHECK_EQ(waits[4].kind, WAIT_VERDICT);
    CHECK(channel_await(ctx, channel, &reader[2], &event));
    CHECK_EQ(event.vcpu, 4);
    CHECK(!channel_await(ctx, channel, &reader[0], &event));
    CHECK_OK(channel_verdict(ctx, channel, event.id, VERDICT_ALLOW)); /* makes room, no event */
    CHECK_EQ(reader[0].kind, WAIT_EVENT);
    channel_destroy(ctx, channel);
    CHECK_EQ(reader[0].kind, WAIT_NONE);
    channel = NULL;
}

TEST(full_ring_waits_for_a_verdict)
{
    set_up(&(struct channel_options){.grain = 0});
    arm(LOOSE, BLOCK);
    for (unsigned v = 0; v < CHANNEL_EVENTS; v++) {
        CHECK_STATUS(fault(space, LOOSE + v * page, v), CLEAVE_WAIT);
        CHECK_EQ(waits[v].kind, WAIT_VERDICT);
    }
    unsigned last = CHANNEL_EVENTS;
    CHECK_STATUS(fault(space, LOOSE + last * page, last), CLEAVE_WAIT);
    CHECK_EQ(waits[last].kind, WAIT_RING);
    struct event event = next(); /* taking it makes no room: the verdict does */
    CHECK_EQ(waits[last].kind, WAIT_RING);
    CHECK_OK(channel_verdict(ctx, channel, event.id, VERDICT_DENY));
    CHECK_EQ(waits[last].kind, WAIT_NONE);
    CHECK_EQ(waits[last].outcome, WAIT_RETRY);
    CHECK_STATUS(fault(space, LOOSE + last * page, last), CLEAVE_WAIT);
    CHECK_EQ(waits[last].kind, WAIT_VERDICT);
    for (unsigned v = 1; v <= last; v++) { /* nothing was dropped, the order is kept */
        event = next();
        CHECK_EQ(event.vcpu, v);
        CHECK_EQ(event.range.start.v, (LOOSE >> PAGE_SHIFT) + v);
        CHECK_OK(channel_verdict(ctx, channel, event.id, VERDICT_ALLOW));
        CHECK_OK(fault(space, LOOSE + v * page, v));
    }
    nothing_next();
    CHECK_EQ(channel_dirty(ctx, channel), CHANNEL_EVENTS);
    check_audit();
}

TEST(full_ring_asynchronous)
{
    set_up(&(struct channel_options){.grain = 0, .asynchronous = true});
    arm(LOOSE, BLOCK);
    for (unsigned v = 0; v < CHANNEL_EVENTS; v++) {
        CHECK_OK(fault(space, LOOSE + v * page, 1));
    }
    uint64_t at = LOOSE + CHANNEL_EVENTS * page;
    CHECK_STATUS(store(at, 4), CLEAVE_WAIT);
    CHECK_EQ(waits[1].kind, WAIT_RING);
    CHECK_EQ(load(space, at), 0);
    CHECK_EQ(next().range.start.v, LOOSE >> PAGE_SHIFT);
    CHECK_EQ(waits[1].kind, WAIT_NONE);
    CHECK_OK(store(at, 4));
    for (unsigned v = 1; v <= CHANNEL_EVENTS; v++) {
        CHECK_EQ(next().range.start.v, (LOOSE >> PAGE_SHIFT) + v);
    }
    nothing_next();
    check_audit();
}

/* An event not yet taken stands for the same grain's next round, too. */
TEST(asynchronous_rearm_before_the_event_is_taken)
{
    set_up(&(struct channel_options){.asynchronous = true, .max_dirty = 1});
    arm(LOOSE, BLOCK);
    CHECK_OK(store(LOOSE, 1));
    CHECK_OK(channel_rearm(ctx, channel, space, gpa(LOOSE), page));
    CHECK_OK(store(LOOSE, 2));
    CHECK_EQ(channel_dirty(ctx, channel), 1);
    (void)next();
    nothing_next();
    CHECK_STATUS(store(LOOSE + page, 2), CLEAVE_WAIT);
}

TEST(max_dirty_waits_for_rearm)
{
    set_up(&(struct channel_options){.grain = 0, .asynchronous = true, .max_dirty = 2});
    arm(LOOSE, BLOCK);
    CHECK_OK(store(LOOSE, 1));
    CHECK_OK(store(LOOSE + page, 1));
    CHECK_STATUS(store(LOOSE + 2 * page, 1), CLEAVE_WAIT);
    CHECK_EQ(waits[1].kind, WAIT_RING);
    (void)next();
    (void)next();
    nothing_next();
    CHECK_STATUS(store(LOOSE + 2 * page, 1), CLEAVE_WAIT); /* room in the ring is not enough */
    CHECK_OK(channel_rearm(ctx, channel, space, gpa(LOOSE + page), page));
    CHECK_EQ(waits[1].kind, WAIT_NONE);
    CHECK_OK(store(LOOSE + 2 * page, 1));
    CHECK_EQ(channel_dirty(ctx, channel), 2);
    CHECK_STATUS(store(LOOSE + page, 2), CLEAVE_WAIT);
    check_audit();
}

/* What awaits a verdict may become dirty: it counts towards the limit. */
TEST(max_dirty_counts_what_is_being_decided)
{
    set_up(&(struct channel_options){.grain = 0, .max_dirty = 2});
    arm(LOOSE, BLOCK);
    for (unsigned v = 0; v < 3; v++) {
        CHECK_STATUS(fault(space, LOOSE + v * page, v), CLEAVE_WAIT);
    }
    CHECK_EQ(waits[2].kind, WAIT_RING);
    CHECK_OK(channel_verdict(ctx, channel, next().id, VERDICT_DENY));
    CHECK_STATUS(fault(space, LOOSE + 2 * page, 2), CLEAVE_WAIT);
    CHECK_EQ(waits[2].kind, WAIT_VERDICT);
    CHECK_OK(channel_verdict(ctx, channel, next().id, VERDICT_ALLOW));
    CHECK_OK(channel_verdict(ctx, channel, next().id, VERDICT_ALLOW));
    CHECK_EQ(channel_dirty(ctx, channel), 2);
    CHECK_STATUS(fault(space, LOOSE + 5 * page, 5), CLEAVE_WAIT);
    CHECK_EQ(waits[5].kind, WAIT_RING);
    CHECK_OK(channel_rearm(ctx, channel, space, gpa(LOOSE), BLOCK));
    CHECK_EQ(waits[5].kind, WAIT_NONE);
    CHECK_EQ(channel_dirty(ctx, channel), 0);
}

/* --- Forks ------------------------------------------------------------------------------------ */

static struct space *fork_space(void)
{
    struct space *child = NULL;
    const struct fork_options options = {.limit = UINT64_MAX};
    REQUIRE_OK(space_fork(ctx, space, 1, &options, &child));
    host_tlb_check();
    return child;
}

static void destroy(struct space *s)
{
    enum cleave_status status;
    do {
        ctx->budget = 100000;
        status = space_destroy(ctx, s);
    } while (status == CLEAVE_AGAIN);
    CHECK_OK(status);
    ctx->budget = UINT64_MAX;
}

TEST_TABLE(fork_stays_armed_in_both, shapes)
{
    set_up_policy(row->policy, &(struct channel_options){.grain = row->grain});
    CHECK_OK(store(row->at, 5));
    arm(BASE, BLOCKS * BLOCK);
    struct space *child = fork_space();
    CHECK_STATUS(fault(child, row->at, 2), CLEAVE_WAIT);
    CHECK_STATUS(store(row->at, 6), CLEAVE_WAIT);
    struct event of_child = next();
    struct event of_parent = next();
    nothing_next();
    CHECK_EQ(of_child.space, child->id);
    CHECK_EQ(of_parent.space, space->id);
    CHECK_OK(channel_verdict(ctx, channel, of_child.id, VERDICT_ALLOW));
    CHECK_EQ(waits[2].kind, WAIT_NONE);
    CHECK_EQ(waits[1].kind, WAIT_VERDICT); /* each space is asked for on its own */
    CHECK_OK(fault(child, row->at, 2));
    CHECK_OK(channel_verdict(ctx, channel, of_parent.id, VERDICT_DENY));
    CHECK_STATUS(store(row->at, 6), CLEAVE_DENIED);
    CHECK_EQ(load(space, row->at), 5);
    check_audit();
}

/* The child is armed after the fork; the parent is not, and the other way round. */
TEST_TABLE(armed_in_one_of_two, shapes)
{
    set_up_policy(row->policy, &(struct channel_options){.grain = row->grain});
    struct space *child = fork_space();
    CHECK_OK(channel_arm(ctx, channel, child, gpa(row->at), BLOCK));
    CHECK_OK(store(row->at, 6));
    CHECK_STATUS(fault(child, row->at, 2), CLEAVE_WAIT);
    CHECK_EQ(next().space, child->id);
    nothing_next();
    check_audit();
}

/* Fork, arm in one, destroy the other, write the neighbouring page, then the armed one: it is told.
 * The whole table gets its write bits back with the neighbour, but for what is armed. */
TEST_TABLE(told_after_the_other_is_gone, shapes)
{
    set_up_policy(row->policy, &(struct channel_options){.grain = 0});
    uint64_t at = row->at + 5 * page;
    CHECK_OK(store(at, 5));
    struct space *child = fork_space();
    arm(at, page);
    destroy(child);
    CHECK_OK(store(at + page, 6));
    CHECK_OK(store(at - page, 6));
    CHECK_STATUS(store(at, 6), CLEAVE_WAIT);
    CHECK_EQ(load(space, at), 5);
    CHECK_OK(channel_verdict(ctx, channel, next().id, VERDICT_ALLOW));
    CHECK_OK(store(at, 6));
    check_audit();
}

/* The same with the arming before the fork, and in the child. */
TEST_TABLE(told_in_the_child_after_the_parent_is_gone, shapes)
{
    set_up_policy(row->policy, &(struct channel_options){.grain = 0});
    uint64_t at = row->at + 5 * page;
    arm(at, page);
    struct space *child = fork_space();
    host_cpu_stop(1);
    destroy(space);
    CHECK_OK(fault(child, at + page, 1));
    CHECK_OK(fault(child, at - page, 1));
    CHECK_STATUS(fault(child, at, 1), CLEAVE_WAIT);
    CHECK_EQ(next().space, child->id);
    check_audit();
}

/* A grain that was allowed before the fork is allowed in the child; the count is the parent's. */
TEST(fork_inherits_what_is_dirty)
{
    set_up(&(struct channel_options){.grain = 0, .max_dirty = 2});
    arm(LOOSE, BLOCK);
    (void)store_decided(LOOSE, VERDICT_ALLOW);
    struct space *child = fork_space();
    CHECK_OK(fault(child, LOOSE, 2));
    nothing_next();
    CHECK_EQ(channel_dirty(ctx, channel), 1);
    CHECK_OK(channel_rearm(ctx, channel, child, gpa(LOOSE), BLOCK));
    CHECK_EQ(channel_dirty(ctx, channel), 1);
    CHECK_STATUS(fault(child, LOOSE, 2), CLEAVE_WAIT);
    CHECK_OK(channel_verdict(ctx, channel, next().id, VERDICT_ALLOW));
    CHECK_EQ(channel_dirty(ctx, channel), 2);
    CHECK_OK(channel_rearm(ctx, channel, space, gpa(LOOSE), BLOCK));
    CHECK_EQ(channel_dirty(ctx, channel), 1);
    CHECK_OK(channel_rearm(ctx, channel, child, gpa(LOOSE), BLOCK));
    CHECK_EQ(channel_dirty(ctx, channel), 0);
    check_audit();
}

/* --- What changes meanwhile ------------------------------------------------------------------- */

TEST_TABLE(permission_change_stays_armed, shapes)
{
    set_up_policy(row->policy, &(struct channel_options){.grain = row->grain});
    CHECK_OK(store(row->at, 5));
    arm(BASE, BLOCKS * BLOCK);
    CHECK_OK(space_protect(ctx, space, gpa(BASE), BLOCKS * BLOCK, RIGHT_READ));
    CHECK_STATUS(store(row->at, 6), CLEAVE_FAULT);
    nothing_next();
    CHECK_OK(space_protect(ctx, space, gpa(BASE), BLOCKS * BLOCK, RIGHT_ALL));
    (void)store_decided(row->at, VERDICT_ALLOW);
    CHECK_OK(store(row->at, 6));
    /* What was allowed stays allowed over a change of rights, what was not, not. */
    CHECK_OK(space_protect(ctx, space, gpa(BASE), BLOCKS * BLOCK, RIGHT_READ));
    CHECK_OK(space_protect(ctx, space, gpa(BASE), BLOCKS * BLOCK, RIGHT_READ | RIGHT_WRITE));
    CHECK_OK(store(row->at, 7));
    CHECK_STATUS(store(row->at + 2 * BLOCK, 7), CLEAVE_WAIT);
    check_audit();
}

/* Arming a page of a huge leaf leaves the rest of it to itself. */
TEST(arming_a_page_splits_nothing_else_off)
{
    set_up(&(struct channel_options){.grain = 0});
    CHECK_OK(store(BASE + 4 * page, 5));
    arm(BASE + 4 * page, page);
    CHECK_OK(store(BASE + 3 * page, 6));
    CHECK_OK(store(BASE + 5 * page, 6));
    nothing_next();
    CHECK_STATUS(store(BASE + 4 * page, 6), CLEAVE_WAIT);
    CHECK_EQ(load(space, BASE + 4 * page), 5);
    check_audit();
}

/* An armed huge leaf that is split for another reason stays armed in its parts. */
TEST(split_stays_armed)
{
    set_up(&(struct channel_options){.grain = 0});
    CHECK_OK(store(BASE + page, 5));
    arm(BASE, BLOCK);
    CHECK_OK(space_unmap(ctx, space, gpa(BASE + 8 * page), page));
    host_tlb_check();
    (void)store_decided(BASE + 7 * page, VERDICT_ALLOW);
    CHECK_OK(store(BASE + 7 * page, 6));
    CHECK_STATUS(store(BASE + page, 6), CLEAVE_WAIT);
    CHECK_STATUS(store(BASE + 8 * page, 6), CLEAVE_FAULT);
    check_audit();
}

/* After the wait the entry is looked at again: the page went, or lost the right, meanwhile. */
TEST(validated_after_the_wait)
{
    set_up(&(struct channel_options){.grain = 0});
    arm(LOOSE, BLOCK);
    CHECK_STATUS(store(LOOSE, 1), CLEAVE_WAIT);
    CHECK_OK(space_unmap(ctx, space, gpa(LOOSE), page));
    CHECK_OK(channel_verdict(ctx, channel, next().id, VERDICT_ALLOW));
    CHECK_STATUS(store(LOOSE, 1), CLEAVE_FAULT);
    CHECK_EQ(channel_dirty(ctx, channel), 0);

    CHECK_STATUS(store(LOOSE + page, 1), CLEAVE_WAIT);
    CHECK_OK(space_protect(ctx, space, gpa(LOOSE + page), page, RIGHT_READ));
    CHECK_OK(channel_verdict(ctx, channel, next().id, VERDICT_ALLOW));
    CHECK_STATUS(store(LOOSE + page, 1), CLEAVE_FAULT);

    CHECK_STATUS(store(LOOSE + 2 * page, 1), CLEAVE_WAIT);
    CHECK_OK(channel_verdict(ctx, channel, next().id, VERDICT_ALLOW));
    CHECK_OK(channel_rearm(ctx, channel, space, gpa(LOOSE + 2 * page), page));
    CHECK_STATUS(store(LOOSE + 2 * page, 1), CLEAVE_WAIT); /* rearmed before it went on */
    CHECK_EQ(load(space, LOOSE + 2 * page), 0);
    check_audit();
}

/* What the writer found in the tree may have changed before it asks: then it looks again. */
TEST_TABLE(stale_question_is_not_asked, shapes)
{
    gfn_t at = gfn(row->at >> PAGE_SHIFT);

    for (unsigned asynchronous = 0; asynchronous < 2; asynchronous++) {
        set_up_policy(row->policy, &(struct channel_options){.grain = row->grain,
                                                             .asynchronous = asynchronous != 0});
        arm(row->at, BLOCK);
        struct region region = region_get(space->regions, at);
        CHECK(region.armed);
        CHECK_OK(channel_disarm(ctx, channel, space, gpa(row->at), BLOCK));
        CHECK_OK(channel_notify(ctx, space, at, &region, &waits[3]));
        CHECK_EQ(waits[3].kind, WAIT_NONE);
        nothing_next();
        CHECK_EQ(channel_dirty(ctx, channel), 0);
    }
}

/* What is unmapped while it is dirty no longer counts. */
TEST(unmap_forgets_what_is_dirty)
{
    set_up(&(struct channel_options){.grain = 1, .max_dirty = 1});
    arm(LOOSE, 2 * BLOCK);
    (void)store_decided(LOOSE, VERDICT_ALLOW);
    CHECK_OK(space_unmap(ctx, space, gpa(LOOSE), page));
    CHECK_EQ(channel_dirty(ctx, channel), 1); /* the rest of the grain is */
    CHECK_OK(space_unmap(ctx, space, gpa(LOOSE), BLOCK));
    CHECK_EQ(channel_dirty(ctx, channel), 0);
    CHECK_STATUS(store(LOOSE + BLOCK, 1), CLEAVE_WAIT);
    CHECK_EQ(waits[1].kind, WAIT_VERDICT);
}

/* --- Ends ------------------------------------------------------------------------------------- */

TEST_TABLE(channel_destroy_lets_writers_go, shapes)
{
    set_up_policy(row->policy, &(struct channel_options){.grain = row->grain, .max_dirty = 1});
    arm(BASE, BLOCKS * BLOCK);
    uint64_t objects = pool->kind[FRAME_OBJECT];
    CHECK_STATUS(store(row->at, 4), CLEAVE_WAIT);
    CHECK_STATUS(fault(space, row->at + 2 * BLOCK, 2), CLEAVE_WAIT);
    CHECK_EQ(waits[2].kind, WAIT_RING);
    channel_destroy(ctx, channel);
    CHECK_EQ(pool->kind[FRAME_OBJECT], objects - 1);
    CHECK_EQ(waits[1].kind, WAIT_NONE);
    CHECK_EQ(waits[2].kind, WAIT_NONE);
    CHECK_OK(store(row->at, 4));
    CHECK_OK(fault(space, row->at + 2 * BLOCK, 2));
    CHECK_EQ(load(space, row->at), 4);
    /* A new channel has another number, and may arm what the old one had. */
    REQUIRE_OK(channel_create(ctx, pool, &(struct channel_options){.grain = 0}, &channel));
    CHECK_OK(store(LOOSE + 3 * page, 4));
    nothing_next();
    arm(BASE, BLOCKS * BLOCK);
    (void)store_decided(row->at, VERDICT_ALLOW);
    check_audit();
}

TEST(cancelled_writer_is_left_alone)
{
    set_up(&(struct channel_options){.grain = 0, .max_dirty = 1});
    arm(LOOSE, BLOCK);
    for (unsigned v = 1; v < 5; v++) {
        CHECK_STATUS(fault(space, LOOSE + (v > 2) * page, v), CLEAVE_WAIT);
    }
    channel_cancel_wait(ctx, pool, &waits[2]); /* last for its page, in the middle of the queue */
    channel_cancel_wait(ctx, pool, &waits[4]); /* for the ring, last of all */
    channel_cancel_wait(ctx, pool, &waits[4]); /* does not wait any more */
    memset(&waits[2], 0xa5, sizeof(waits[2]));
    memset(&waits[4], 0xa5, sizeof(waits[4]));
    struct vcpu_wait before = waits[2];
    CHECK_STATUS(fault(space, LOOSE, 5), CLEAVE_WAIT);
    CHECK_OK(channel_verdict(ctx, channel, next().id, VERDICT_DENY));
    CHECK_BYTES(&waits[2], &before, sizeof(before));
    CHECK_BYTES(&waits[4], &before, sizeof(before));
    CHECK_EQ(waits[1].outcome, WAIT_DENIED);
    CHECK_EQ(waits[5].outcome, WAIT_DENIED);
    CHECK_EQ(waits[3].outcome, WAIT_RETRY);
    CHECK_EQ(waits[3].kind, WAIT_NONE);
}

/* A space goes while its vcpus wait and grains of it are dirty: the others are not held up. */
TEST(space_destroy_ends_its_events)
{
    set_up(&(struct channel_options){.grain = 0, .max_dirty = 3});
    arm(LOOSE, BLOCK);
    struct space *child = fork_space();
    CHECK_STATUS(fault(child, LOOSE, 2), CLEAVE_WAIT);
    CHECK_OK(channel_verdict(ctx, channel, next().id, VERDICT_ALLOW));
    CHECK_STATUS(fault(child, LOOSE + page, 2), CLEAVE_WAIT);
    CHECK_STATUS(fault(child, LOOSE + 2 * page, 3), CLEAVE_WAIT);
    struct event taken = next();
    CHECK_STATUS(store(LOOSE, 1), CLEAVE_WAIT);
    CHECK_EQ(waits[1].kind, WAIT_RING);
    destroy(child);
    CHECK_EQ(waits[1].kind, WAIT_NONE);
    CHECK_EQ(waits[2].kind, WAIT_NONE);
    CHECK_EQ(waits[3].kind, WAIT_NONE);
    CHECK_EQ(channel_dirty(ctx, channel), 0);
    CHECK_STATUS(channel_verdict(ctx, channel, taken.id, VERDICT_ALLOW), CLEAVE_INVALID);
    nothing_next();
    (void)store_decided(LOOSE, VERDICT_ALLOW);
    check_audit();
}

enum stopped { STOPPED_STAGE, STOPPED_BUILD, STOPPED_CONVERT, STOPPED_UNMAP, STOPPED };

#define OTHER (BASE + BLOCKS * BLOCK) /* memory that the stopped call is for */

static enum cleave_status change_other(enum stopped kind)
{
    const struct region shared = {.policy = REGION_SHARED, .rights = RIGHT_ALL};
    switch (kind) {
    case STOPPED_STAGE:
        return space_set_region(ctx, space, gpa(OTHER), 4 * BLOCK, &shared);
    case STOPPED_BUILD:
        return space_protect(ctx, space, gpa(OTHER), 4 * BLOCK, RIGHT_READ);
    case STOPPED_CONVERT:
        return space_set_region(ctx, space, gpa(OTHER), 4 * BLOCK, &private_memory);
    case STOPPED_UNMAP:
        return space_unmap(ctx, space, gpa(OTHER), 4 * BLOCK);
    case STOPPED:
        break;
    }
    return CLEAVE_INVALID;
}

/* A vcpu that was stopped in a change of its memory takes an interrupt, writes an armed page and
 * waits: it cannot go on with the change before the verdict. */
TEST(verdict_on_who_is_stopped)
{
    static const enum space_phase phase[] = {PHASE_STAGE, PHASE_BUILD, PHASE_CONVERT, PHASE_BUILD};
    const uint64_t budget = 1;
    for (enum stopped kind = 0; kind < STOPPED; kind++) {
        test_case("stopped %u", kind);
        set_up(&(struct channel_options){.grain = 0});
        arm(LOOSE, BLOCK);
        if (kind != STOPPED_STAGE) {
            REQUIRE_OK(change_other(STOPPED_STAGE));
            for (uint64_t i = 0; i < 4 * BLOCK && kind != STOPPED_CONVERT; i += 2 * page) {
                REQUIRE_OK(
                    space_protect(ctx, space, gpa(OTHER + i), page, RIGHT_READ | RIGHT_WRITE));
            }
        }
        if (kind == STOPPED_CONVERT) {
            (void)fork_space();
        }
        do {
            ctx->budget = budget;
            REQUIRE_EQ(change_other(kind), CLEAVE_AGAIN);
        } while (space->op_phase != phase[kind]);
        ctx->budget = UINT64_MAX;
        CHECK_STATUS(fault(space, LOOSE, 2), CLEAVE_WAIT);
        CHECK_OK(channel_verdict(ctx, channel, next().id, VERDICT_ALLOW));
        CHECK_EQ(waits[2].kind, WAIT_NONE);
        CHECK_EQ(space->op, OP_NONE);
        check_audit();
        CHECK_OK(fault(space, LOOSE, 2));
        CHECK_OK(change_other(kind)); /* begins again, or finds it done */
        check_audit();
    }
}

/* A reader of events waits for no page: where its vcpu waited before, in a space that is gone, is
 * another's memory. */
TEST(readers_touch_no_space)
{
    static unsigned char before[PAGE_SIZE];
    struct event event;
    set_up(&(struct channel_options){.grain = 0});
    arm(LOOSE, BLOCK);
    struct space *child = fork_space();
    pfn_t gone = pfn((uint32_t)(((unsigned char *)child - machine.direct_map) >> PAGE_SHIFT));
    CHECK_STATUS(fault(child, LOOSE, 2), CLEAVE_WAIT); /* as a copy to the child does */
    CHECK_OK(channel_verdict(ctx, channel, next().id, VERDICT_ALLOW));
    destroy(child);
    pfn_t f = PFN_NONE;
    while (f.v != gone.v) {
        REQUIRE_OK(pool_alloc(ctx, &space->payer, 0, FRAME_DATA, &f));
    }
    memcpy(before, frame_address(gone), PAGE_SIZE);
    CHECK(!channel_await(ctx, channel, &waits[2], &event));
    CHECK_EQ(waits[2].kind, WAIT_EVENT);
    CHECK_BYTES(frame_address(gone), before, PAGE_SIZE);
    channel_cancel_wait(ctx, pool, &waits[2]);
}

/* --- Errors ----------------------------------------------------------------------------------- */

TEST(bad_input)
{
    struct channel *other;
    struct event event;
    uint64_t hole = BASE + BLOCKS * BLOCK;

    set_up(&(struct channel_options){.grain = 0});
    uint64_t free = pool->free;
    region_word_t regions = space->regions;
    CHECK_STATUS(channel_create(ctx, pool, &(struct channel_options){.grain = 2}, &other),
                 CLEAVE_ORDER);
    CHECK_STATUS(channel_arm(ctx, channel, space, gpa(BASE + 1), page), CLEAVE_ALIGN);
    CHECK_STATUS(channel_arm(ctx, channel, space, gpa(BASE), 0), CLEAVE_COUNT);
    CHECK_STATUS(channel_arm(ctx, channel, space, gpa(BASE), UINT64_MAX & ~(page - 1)),
                 CLEAVE_WRAP);
    CHECK_STATUS(channel_arm(ctx, channel, space, gpa(UINT64_C(1) << GUEST_BITS), page),
                 CLEAVE_RANGE);
    CHECK_STATUS(channel_arm(ctx, channel, space, gpa(hole), page), CLEAVE_NOT_MAPPED);
    CHECK_STATUS(channel_arm(ctx, channel, space, gpa(BASE), (BLOCKS + 1) * BLOCK),
                 CLEAVE_NOT_MAPPED);
    CHECK_STATUS(channel_rearm(ctx, channel, space, gpa(BASE), page), CLEAVE_NOT_MAPPED);
    CHECK_STATUS(channel_verdict(ctx, channel, 1, VERDICT_ALLOW), CLEAVE_INVALID);
    CHECK_STATUS(channel_verdict(ctx, channel, UINT64_MAX, VERDICT_DENY), CLEAVE_INVALID);
    CHECK(!channel_next(ctx, channel, &event));
    CHECK_EQ(space->regions, regions);
    CHECK_EQ(pool->free, free);

    struct region read_only = {.policy = REGION_READ_ONLY, .rights = RIGHT_READ};
    CHECK_OK(space_set_region(ctx, space, gpa(hole), BLOCK, &read_only));
    CHECK_STATUS(channel_arm(ctx, channel, space, gpa(BASE), (BLOCKS + 1) * BLOCK), CLEAVE_POLICY);
    CHECK_OK(channel_create(ctx, pool, &(struct channel_options){.grain = 0}, &other));
    arm(BASE, page);
    CHECK_STATUS(channel_arm(ctx, other, space, gpa(BASE), page), CLEAVE_EXISTS);
    CHECK_STATUS(channel_rearm(ctx, other, space, gpa(BASE), page), CLEAVE_NOT_MAPPED);
    CHECK_STATUS(channel_disarm(ctx, other, space, gpa(BASE), page), CLEAVE_NOT_MAPPED);
    CHECK_STATUS(store(BASE, 1), CLEAVE_WAIT);
    CHECK(!channel_next(ctx, other, &event));
    CHECK_EQ(next().space, space->id);

    struct pool *foreign = host_pool(8 * BLOCK);
    struct space *stranger;
    CHECK_OK(space_create(ctx, foreign, UINT64_MAX, &stranger));
    CHECK_STATUS(channel_arm(ctx, channel, stranger, gpa(BASE), page), CLEAVE_FAMILY);
    struct space *frozen;
    CHECK_OK(space_snapshot(ctx, space, UINT64_MAX, &frozen));
    CHECK_STATUS(channel_arm(ctx, channel, frozen, gpa(BASE), page), CLEAVE_FROZEN);
}

TEST(channels_are_bounded)
{
    struct channel *made[CHANNELS_MAX];
    struct channel *more;

    set_up(&(struct channel_options){.grain = 0});
    made[0] = channel;
    for (unsigned i = 1; i < CHANNELS_MAX; i++) {
        REQUIRE_OK(channel_create(ctx, pool, &(struct channel_options){.grain = 0}, &made[i]));
    }
    uint64_t free = pool->free;
    CHECK_STATUS(channel_create(ctx, pool, &(struct channel_options){.grain = 0}, &more),
                 CLEAVE_COUNT);
    CHECK_EQ(pool->free, free);
    channel_destroy(ctx, made[7]);
    CHECK_OK(channel_create(ctx, pool, &(struct channel_options){.grain = 0}, &made[7]));
    arm(LOOSE, page);
    CHECK_OK(channel_arm(ctx, made[7], space, gpa(LOOSE + page), page));
    CHECK_OK(channel_arm(ctx, made[30], space, gpa(LOOSE + 2 * page), page));
    CHECK_STATUS(store(LOOSE + page, 1), CLEAVE_WAIT);
    CHECK_STATUS(fault(space, LOOSE + 2 * page, 2), CLEAVE_WAIT);
    nothing_next();
    struct event event;
    CHECK(channel_next(ctx, made[7], &event));
    CHECK_EQ(event.range.start.v, (LOOSE >> PAGE_SHIFT) + 1);
    CHECK(channel_next(ctx, made[30], &event));
    channel_cancel_wait(ctx, pool, &waits[2]); /* not the first channel that is looked at */
    CHECK_EQ(waits[2].kind, WAIT_NONE);
    for (unsigned i = 0; i < CHANNELS_MAX; i++) {
        channel_destroy(ctx, made[i]);
    }
    CHECK_OK(store(LOOSE + page, 1));
    check_audit();
}

/* Each call fails at each allocation in turn, and nothing has changed. */
enum call { CALL_CREATE, CALL_ARM, CALL_ALLOW, CALL_REARM, CALL_DISARM, CALL_ASYNCHRONOUS, CALLS };

static enum cleave_status do_call(enum call call, uint64_t id)
{
    switch (call) {
    case CALL_CREATE:
        return channel_create(ctx, pool, &(struct channel_options){.grain = 0}, &channel);
    case CALL_ARM:
        return channel_arm(ctx, channel, space, gpa(LOOSE + page), 2 * page);
    case CALL_ALLOW:
        return channel_verdict(ctx, channel, id, VERDICT_ALLOW);
    case CALL_REARM:
        return channel_rearm(ctx, channel, space, gpa(LOOSE + page), page);
    case CALL_DISARM:
        return channel_disarm(ctx, channel, space, gpa(LOOSE + page), page);
    case CALL_ASYNCHRONOUS:
        return channel_notify(ctx, space, gfn((LOOSE >> PAGE_SHIFT) + 4),
                              &(struct region){.channel = (uint16_t)pool->last_channel}, NULL);
    case CALLS:
        break;
    }
    return CLEAVE_INVALID;
}

TEST(every_allocation_fails)
{
    uint64_t failures = 0;

    set_up(&(struct channel_options){.grain = 0});
    channel_destroy(ctx, channel);
    for (enum call call = CALL_CREATE; call < CALLS; call++) {
        uint64_t id = 0;
        if (call == CALL_ALLOW) {
            CHECK_STATUS(fault(space, LOOSE + page, 1), CLEAVE_WAIT);
            id = next().id;
        } else if (call == CALL_ASYNCHRONOUS) {
            const struct channel_options options = {.asynchronous = true};
            CHECK_OK(channel_create(ctx, pool, &options, &channel));
            CHECK_OK(channel_arm(ctx, channel, space, gpa(LOOSE + 3 * page), BLOCK - 3 * page));
        }
        struct space *fork = fork_space(); /* so that every change copies the region tree */
        for (unsigned k = 1;; k++) {
            uint64_t free = pool->free;
            uint64_t dirty = call == CALL_CREATE ? 0 : channel_dirty(ctx, channel);
            region_word_t regions = space->regions;
            test_case("call %d, allocation %u", (int)call, k);
            host_fail_allocation(k);
            enum cleave_status status = do_call(call, id);
            bool failed = host_allocation_failed();
            host_fail_allocation(0);
            if (!failed) {
                CHECK_OK(status);
                break;
            }
            failures++;
            CHECK_STATUS(status, CLEAVE_NO_MEMORY);
            CHECK_EQ(space->regions, regions);
            CHECK_EQ(pool->free, free);
            CHECK_EQ(call == CALL_CREATE ? 0 : channel_dirty(ctx, channel), dirty);
        }
        destroy(fork);
        check_audit();
    }
    CHECK_LE(TABLE_LEVELS * (CALLS - 2), failures);
}

/* --- Schedules -------------------------------------------------------------------------------- */

static uint64_t seen;              /* what the subscriber read after it had rearmed */
static enum cleave_status written; /* what became of the writer's store */
static enum cleave_status destroyed;

/* The page is dirty, told of and taken; the writer's CPU may write it without a fault. */
static void setup_dirty(void *arg)
{
    struct event event;

    (void)arg;
    set_up(&(struct channel_options){.asynchronous = true});
    REQUIRE_OK(channel_arm(ctx, channel, space, gpa(LOOSE), BLOCK));
    REQUIRE_OK(store(LOOSE, 1));
    REQUIRE(channel_next(ctx, channel, &event));
}

static void body_rearm(struct mm_ctx *own, void *arg)
{
    (void)arg;
    REQUIRE_OK(channel_rearm(own, channel, space, gpa(LOOSE), page));
    REQUIRE_OK(space_read(own, space, gpa(LOOSE), &seen, sizeof(seen), NULL));
}

static void body_store(struct mm_ctx *own, void *arg)
{
    uint64_t value = 2;

    (void)arg;
    while ((written = host_cpu_write(1, gpa(LOOSE), &value, sizeof(value))) == CLEAVE_WAIT) {
        while (__atomic_load_n(&waits[1].kind, __ATOMIC_ACQUIRE) != WAIT_NONE) {
            port_relax(own);
        }
    }
}

/* What the subscriber did not see is told of. */
static bool check_no_byte_missed(void *arg)
{
    struct event event;

    (void)arg;
    return written == CLEAVE_OK && load(space, LOOSE) == 2 &&
           (seen == 2 || channel_next(ctx, channel, &event));
}

TEST(no_write_is_missed_by_rearm)
{
    TEST_NEEDS_HOOKS();
    struct host_sched sched = {.setup = setup_dirty,
                               .cpus = 2,
                               .body = {body_rearm, body_store},
                               .check = check_no_byte_missed,
                               .max_preemptions = 2};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.complete);
    CHECK_LE(10, sched.schedules);
}

static void setup_armed(void *arg)
{
    (void)arg;
    set_up(&(struct channel_options){.grain = 0});
    REQUIRE_OK(channel_arm(ctx, channel, space, gpa(LOOSE), BLOCK));
}

/* Decides the writer's question: allows it, or denies it when `arg` is set. */
static void body_decide(struct mm_ctx *own, void *arg)
{
    enum verdict verdict = arg ? VERDICT_DENY : VERDICT_ALLOW;
    struct event event;

    while (!channel_next(own, channel, &event)) {
        port_relax(own);
    }
    REQUIRE_OK(channel_verdict(own, channel, event.id, verdict));
}

static bool check_decided(void *arg)
{
    return written == (arg ? CLEAVE_DENIED : CLEAVE_OK) && load(space, LOOSE) == (arg ? 0 : 2);
}

TEST(no_wake_is_lost)
{
    TEST_NEEDS_HOOKS();
    for (unsigned deny = 0; deny < 2; deny++) {
        struct host_sched sched = {.setup = setup_armed,
                                   .cpus = 2,
                                   .body = {body_decide, body_store},
                                   .check = check_decided,
                                   .arg = deny ? &sched : NULL,
                                   .max_preemptions = 2};
        CHECK(host_sched_explore(&sched));
        CHECK(sched.complete);
    }
}

static struct space *victim;

/* A child has an event taken, which is about to be allowed. */
static void setup_victim(void *arg)
{
    setup_armed(arg);
    victim = fork_space();
    REQUIRE(fault(victim, LOOSE, 2) == CLEAVE_WAIT);
    REQUIRE(next().space == victim->id);
}

static void body_allow(struct mm_ctx *own, void *arg)
{
    (void)arg;
    written = channel_verdict(own, channel, 1, VERDICT_ALLOW);
}

static void body_destroy(struct mm_ctx *own, void *arg)
{
    (void)arg;
    do {
        destroyed = space_destroy(own, victim);
    } while (destroyed == CLEAVE_AGAIN);
}

static bool check_victim(void *arg)
{
    (void)arg;
    return destroyed == CLEAVE_OK && (written == CLEAVE_OK || written == CLEAVE_INVALID) &&
           waits[2].kind == WAIT_NONE && channel_dirty(ctx, channel) == 0;
}

TEST(verdict_races_with_destroy)
{
    TEST_NEEDS_HOOKS();
    struct host_sched sched = {.setup = setup_victim,
                               .cpus = 2,
                               .body = {body_allow, body_destroy},
                               .check = check_victim,
                               .max_preemptions = 2};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.complete);
}

/* --- A writer's vcpu goes away while it is woken ---------------------------------------------- */

enum waker { WAKE_VERDICT, WAKE_NEXT, WAKE_DISARM, WAKE_CHANNEL, WAKE_SPACE, WAKERS };

static bool gone; /* the vcpu is: nobody may touch waits[2] */

/* The scheduler's part of a wake: it may take its time before it touches the vcpu. */
static void on_wake(struct vcpu_wait *wait, void *arg)
{
    (void)arg;
    host_sched_yield();
    if (wait == &waits[2] && gone) {
        host_fail("a vcpu that is gone is woken");
    }
}

/* A writer waits, with the event of its page taken, or (asynchronous) for room. */
static void setup_waiter(void *arg)
{
    const enum waker *waker = arg;
    struct event event;
    struct channel *other;

    if (*waker == WAKE_NEXT) {
        set_up(&(struct channel_options){.asynchronous = true});
        REQUIRE_OK(channel_arm(ctx, channel, space, gpa(LOOSE), BLOCK));
        for (unsigned i = 0; i < CHANNEL_EVENTS; i++) {
            REQUIRE_OK(fault(space, LOOSE + (1 + i) * page, 1));
        }
        REQUIRE(fault(space, LOOSE, 2) == CLEAVE_WAIT);
    } else {
        setup_armed(NULL);
        REQUIRE(fault(space, LOOSE, 2) == CLEAVE_WAIT);
        REQUIRE(channel_next(ctx, channel, &event));
    }
    REQUIRE_OK(channel_create(ctx, pool, &(struct channel_options){.grain = 0}, &other));
    gone = false;
    host_on_wake(on_wake, NULL);
}

static void body_wake(struct mm_ctx *own, void *arg)
{
    const enum waker *waker = arg;
    struct event event;

    switch (*waker) {
    case WAKE_VERDICT:
        REQUIRE_OK(channel_verdict(own, channel, 1, VERDICT_DENY));
        break;
    case WAKE_NEXT:
        REQUIRE(channel_next(own, channel, &event));
        break;
    case WAKE_DISARM:
        REQUIRE_OK(channel_disarm(own, channel, space, gpa(LOOSE), page));
        break;
    case WAKE_CHANNEL:
        channel_destroy(own, channel);
        break;
    case WAKE_SPACE:
        victim = space;
        body_destroy(own, NULL);
        break;
    case WAKERS:
        break;
    }
}

static void body_cancel(struct mm_ctx *own, void *arg)
{
    (void)arg;
    channel_cancel_wait(own, pool, &waits[2]);
    gone = true;
}

TEST(cancelled_while_it_is_woken)
{
    TEST_NEEDS_HOOKS();
    for (enum waker waker = 0; waker < WAKERS; waker++) {
        test_case("waker %u", waker);
        struct host_sched sched = {.setup = setup_waiter,
                                   .cpus = 2,
                                   .body = {body_wake, body_cancel},
                                   .arg = &waker,
                                   .max_preemptions = 1,
                                   .points = 1u << POINT_FLUSH};
        CHECK(host_sched_explore(&sched));
        CHECK(sched.complete);
        CHECK_LE(2, sched.schedules);
    }
}
