/* SPDX-License-Identifier: BSD-2-Clause */
/* Foreign maps: pages of one space in another, which may belong to another pool. */
#include <string.h>

#include "fork.h"
#include "host.h"
#include "notify.h"
#include "pin.h"
#include "shapes.h"
#include "table.h"
#include "test.h"

#define PAGE_A (SHAPE_AT + PAGE_SIZE) /* a tagged page of the owner */
#define WINDOW (8 * level_size(2))    /* where the mapper maps */
#define NEW_VALUE UINT64_C(0x1234567890abcdef)

static struct pool *other_pool;
static struct space *mapper;

/* An owner with memory of this shape; a mapper in a pool of its own, which CPU 1 runs. */
static void set_up(enum shape shape)
{
    shape_start(4);
    other_pool = host_pool(8 * level_size(1));
    shape_make(shape);
    REQUIRE_OK(space_create(shaped.ctx, other_pool, UINT64_MAX, &mapper));
    REQUIRE_OK(host_cpu_run(1, mapper));
}

static void check_all(void)
{
    struct pool *pool = shaped.pool;
    shape_check();
    shaped.pool = other_pool;
    shape_check();
    shaped.pool = pool;
}

static enum cleave_status map(uint64_t at, uint64_t to)
{
    return foreign_map(shaped.ctx, shaped.space, gpa(at), mapper, gpa(to));
}

/* An access of the mapper's guest. */
static uint64_t mapper_read(uint64_t at)
{
    uint64_t value = 0;
    CHECK_OK(host_cpu_read(1, gpa(at), &value, sizeof(value)));
    return value;
}
static enum cleave_status mapper_write(uint64_t at, uint64_t value)
{
    return host_cpu_write(1, gpa(at), &value, sizeof(value));
}

static pfn_t frame_at(struct space *space, uint64_t at)
{
    struct mapping mapping;
    REQUIRE_OK(space_lookup(shaped.ctx, space, gpa(at), &mapping));
    return mapping.kind == PTE_KIND_LEAF ? mapping.frame : PFN_NONE;
}

/* --- What both see ---------------------------------------------------------------------------- */

TEST_TABLE(shows_the_owners_page, shape_cases)
{
    set_up(row->shape);
    uint64_t copied = host_counters().bytes_copied;
    REQUIRE_OK(map(PAGE_A, WINDOW));
    CHECK_EQ(host_counters().bytes_copied, copied);
    check_all();
    CHECK_EQ(mapper_read(WINDOW), shape_tag(1));
    CHECK_EQ(frame_at(mapper, WINDOW).v, frame_at(shaped.space, PAGE_A).v);
    /* The owner writes to what it alone has: the same frame, seen at once. */
    shape_write(shaped.space, PAGE_A, NEW_VALUE);
    CHECK_EQ(mapper_read(WINDOW), NEW_VALUE);
    CHECK_EQ(shape_read(shaped.space, PAGE_A + PAGE_SIZE), shape_tag(2));
    check_all();
    REQUIRE_OK(foreign_unmap(shaped.ctx, mapper, gpa(WINDOW)));
    CHECK_STATUS(foreign_unmap(shaped.ctx, mapper, gpa(WINDOW)), CLEAVE_NOT_MAPPED);
    CHECK_EQ(shaped.space->attachment_count, 0);
    CHECK_EQ(shaped.space->foreign_pages.frames, 0);
    uint64_t value;
    CHECK_STATUS(host_cpu_read(1, gpa(WINDOW), &value, sizeof(value)), CLEAVE_FAULT);
    check_all();
}

/* The owner breaks the copy: the map follows, flushed, before the owner goes on. */
TEST_TABLE(follows_the_owner, shape_cases)
{
    set_up(row->shape);
    struct space *child = shape_fork(shaped.space);
    REQUIRE_OK(map(PAGE_A, WINDOW));
    CHECK_EQ(mapper_read(WINDOW), shape_tag(1));
    pfn_t before = frame_at(shaped.space, PAGE_A);
    shape_write(shaped.space, PAGE_A, NEW_VALUE);
    CHECK_NE(frame_at(shaped.space, PAGE_A).v, before.v);
    CHECK_EQ(frame_at(mapper, WINDOW).v, frame_at(shaped.space, PAGE_A).v);
    CHECK_EQ(mapper_read(WINDOW), NEW_VALUE);
    CHECK_EQ(shape_read(child, PAGE_A), shape_tag(1));
    check_all();
    /* And not for others. */
    shape_write(child, PAGE_A, 5);
    CHECK_EQ(mapper_read(WINDOW), NEW_VALUE);
    shape_destroy(child);
    check_all();
}

/* The first write through the map breaks the copy in the owner; from then on it is a pin. */
TEST_TABLE(a_write_breaks_the_copy, shape_cases)
{
    set_up(row->shape);
    struct space *child = shape_fork(shaped.space);
    REQUIRE_OK(map(PAGE_A, WINDOW));
    CHECK_EQ(mapper_read(WINDOW), shape_tag(1));
    CHECK_OK(mapper_write(WINDOW, NEW_VALUE));
    CHECK_EQ(mapper_read(WINDOW), NEW_VALUE);
    CHECK_EQ(shape_read(shaped.space, PAGE_A), NEW_VALUE);
    CHECK_EQ(shape_read(child, PAGE_A), shape_tag(1));
    check_all();
    struct space *second = shape_fork(shaped.space);
    check_all();
    CHECK_OK(mapper_write(WINDOW, 7));
    CHECK_EQ(shape_read(shaped.space, PAGE_A), 7);
    CHECK_EQ(shape_read(second, PAGE_A), NEW_VALUE);
    shape_write(shaped.space, PAGE_A, 8);
    CHECK_EQ(mapper_read(WINDOW), 8);
    CHECK_EQ(shape_read(second, PAGE_A), NEW_VALUE);
    CHECK_EQ(shape_read(second, PAGE_A + PAGE_SIZE), shape_tag(2));
    check_all();
    REQUIRE_OK(foreign_unmap(shaped.ctx, mapper, gpa(WINDOW)));
    shape_destroy(child);
    shape_destroy(second);
    check_all();
}

/* A map that was written through asks again: a snapshot shares its page, and keeps it. */
TEST_TABLE(a_written_map_can_be_taken_back, shape_cases)
{
    struct space *snapshot;
    set_up(row->shape);
    REQUIRE_OK(map(PAGE_A, WINDOW));
    REQUIRE_OK(map(PAGE_A, WINDOW + PAGE_SIZE));
    REQUIRE_OK(map(PAGE_A + PAGE_SIZE, WINDOW + 2 * PAGE_SIZE));
    CHECK_OK(mapper_write(WINDOW, NEW_VALUE));
    CHECK_OK(mapper_write(WINDOW + 2 * PAGE_SIZE, 6));
    CHECK_EQ(shaped.space->foreign_written, 2);
    foreign_unwrite(shaped.ctx, shaped.space);
    CHECK_EQ(shaped.space->foreign_written, 0);
    check_all();
    REQUIRE_OK(space_snapshot(shaped.ctx, shaped.space, UINT64_MAX, &snapshot));
    CHECK_EQ(frame_at(snapshot, PAGE_A).v, frame_at(shaped.space, PAGE_A).v);
    CHECK_OK(mapper_write(WINDOW, 7));
    CHECK_EQ(mapper_read(WINDOW + PAGE_SIZE), 7);
    CHECK_EQ(shape_read(shaped.space, PAGE_A), 7);
    CHECK_EQ(shape_read(snapshot, PAGE_A), NEW_VALUE);
    CHECK_EQ(frame_at(snapshot, PAGE_A + PAGE_SIZE).v,
             frame_at(shaped.space, PAGE_A + PAGE_SIZE).v);
    check_all();
    shape_destroy(snapshot);
    check_all();
}

/* T-C4: the child's page is mapped, the child unmaps it, the parent writes: the map keeps the
 * bytes. */
TEST_TABLE(outlives_the_owners_unmap, shape_cases)
{
    set_up(row->shape);
    struct space *child = shape_fork(shaped.space);
    REQUIRE_OK(foreign_map(shaped.ctx, child, gpa(PAGE_A), mapper, gpa(WINDOW)));
    CHECK_EQ(mapper_read(WINDOW), shape_tag(1));
    CHECK_OK(space_unmap(shaped.ctx, child, gpa(PAGE_A), PAGE_SIZE));
    check_all();
    shape_write(shaped.space, PAGE_A, NEW_VALUE);
    CHECK_EQ(mapper_read(WINDOW), shape_tag(1));
    CHECK_STATUS(mapper_write(WINDOW, 1), CLEAVE_FAULT);
    /* Another page of the child's in its place is not shown. */
    const struct region region = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};
    REQUIRE_OK(space_set_region(shaped.ctx, child, gpa(PAGE_A), PAGE_SIZE, &region));
    shape_write(child, PAGE_A, 3);
    CHECK_EQ(mapper_read(WINDOW), shape_tag(1));
    check_all();
    shape_destroy(child);
    uint64_t value;
    CHECK_STATUS(host_cpu_read(1, gpa(WINDOW), &value, sizeof(value)), CLEAVE_FAULT);
    check_all();
}

/* A map that was written through keeps its page to write to: also when a fork of the mapper has
 * taken the write bits of its tables meanwhile, or the owner asked to be told. One that was only
 * read does not, though it shows the same frame. */
TEST_TABLE(keeps_what_it_wrote_to, shape_cases)
{
    set_up(row->shape);
    REQUIRE_OK(map(PAGE_A, WINDOW));
    REQUIRE_OK(map(PAGE_A, WINDOW + PAGE_SIZE));
    CHECK_OK(mapper_write(WINDOW, NEW_VALUE));
    CHECK_OK(space_protect(shaped.ctx, shaped.space, gpa(PAGE_A), PAGE_SIZE, RIGHT_READ));
    CHECK_OK(space_unmap(shaped.ctx, shaped.space, gpa(PAGE_A), PAGE_SIZE));
    for (uint64_t i = 2; i < 4; i++) {
        struct space *child = shape_fork(mapper);
        CHECK_OK(mapper_write(WINDOW, i));
        CHECK_EQ(mapper_read(WINDOW + PAGE_SIZE), i);
        CHECK_STATUS(mapper_write(WINDOW + PAGE_SIZE, 1), CLEAVE_FAULT);
        CHECK_EQ(mapper_read(WINDOW), i);
        check_all();
        shape_destroy(child);
    }
    check_all();
}

/* The same where the owner's whole table goes, which a fork shares: the fork is then its only
 * holder, finds its leaves as the owner left them, and must still not write under the map. */
static void last_holder_of_a_table(enum shape shape, bool map_first)
{
    set_up(shape);
    if (map_first) {
        REQUIRE_OK(map(PAGE_A, WINDOW));
    }
    struct space *child = shape_fork(shaped.space);
    if (!map_first) {
        REQUIRE_OK(map(PAGE_A, WINDOW));
    }
    check_all();
    CHECK_OK(space_unmap(shaped.ctx, shaped.space, gpa(SHAPE_AT), shaped.bytes));
    if (shaped.fork != NULL) {
        shape_destroy(shaped.fork);
    }
    while (!table_reap(shaped.ctx, shaped.pool)) {
    }
    check_all();
    shape_write(child, PAGE_A, NEW_VALUE);
    CHECK_EQ(mapper_read(WINDOW), shape_tag(1));
    CHECK_EQ(shape_read(child, PAGE_A), NEW_VALUE);
    check_all();
}

TEST_TABLE(shares_with_the_last_holder_of_a_table, shape_cases)
{
    last_holder_of_a_table(row->shape, true);
}
TEST_TABLE(is_made_on_a_shared_table, shape_cases) { last_holder_of_a_table(row->shape, false); }

/* Shared memory needs no copy, and a right that the owner lost is asked for again. */
TEST(writes_to_shared_memory_and_asks_again)
{
    const struct region shared = {.policy = REGION_SHARED, .rights = RIGHT_ALL, .order = 1};
    uint64_t at = SHAPE_AT + level_size(2);
    set_up(SHAPE_BLOCK);
    REQUIRE_OK(space_set_region(shaped.ctx, shaped.space, gpa(at), level_size(1), &shared));
    struct space *child = shape_fork(shaped.space);
    REQUIRE_OK(map(at, WINDOW));
    uint64_t copied = host_counters().bytes_copied;
    CHECK_OK(mapper_write(WINDOW, NEW_VALUE));
    CHECK_EQ(host_counters().bytes_copied, copied);
    CHECK_EQ(shape_read(child, at), NEW_VALUE);
    check_all();
    shape_destroy(child);

    REQUIRE_OK(map(PAGE_A, WINDOW + PAGE_SIZE));
    CHECK_OK(mapper_write(WINDOW + PAGE_SIZE, 1));
    CHECK_OK(space_protect(shaped.ctx, shaped.space, gpa(PAGE_A), PAGE_SIZE, RIGHT_READ));
    struct gfn_range page = {gpa_to_gfn(gpa(PAGE_A)), gpa_to_gfn(gpa(PAGE_A + PAGE_SIZE))};
    foreign_protect(shaped.ctx, shaped.space, page);
    host_tlb_check();
    CHECK_STATUS(mapper_write(WINDOW + PAGE_SIZE, 2), CLEAVE_FAULT);
    CHECK_EQ(shape_read(shaped.space, PAGE_A), 1);
    CHECK_OK(space_protect(shaped.ctx, shaped.space, gpa(PAGE_A), PAGE_SIZE, RIGHT_ALL));
    CHECK_OK(mapper_write(WINDOW + PAGE_SIZE, 3));
    CHECK_EQ(shape_read(shaped.space, PAGE_A), 3);
    check_all();
}

/* A write through the map was denied, and the guest does something else first: the denial is not
 * for a write to the page that comes much later. Without that, the write is refused. */
TEST(a_denial_ends_with_the_next_fault)
{
    const struct region memory = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};
    for (unsigned other = 0; other < 2; other++) {
        struct vcpu_wait wait = {.vcpu = 1};
        struct channel *channel;
        struct event event;
        test_case("another fault: %u", other);
        set_up(SHAPE_PAGES);
        host_cpu_set_wait(1, &wait);
        REQUIRE_OK(space_set_region(shaped.ctx, mapper, gpa(0), level_size(1), &memory));
        REQUIRE_OK(channel_create(shaped.ctx, shaped.pool, &(struct channel_options){.grain = 0},
                                  &channel));
        REQUIRE_OK(map(PAGE_A, WINDOW));
        REQUIRE_OK(channel_arm(shaped.ctx, channel, shaped.space, gpa(PAGE_A), PAGE_SIZE));
        CHECK_STATUS(mapper_write(WINDOW, 1), CLEAVE_WAIT);
        REQUIRE(channel_next(shaped.ctx, channel, &event));
        CHECK_EQ(event.space, shaped.space->id);
        REQUIRE_OK(channel_verdict(shaped.ctx, channel, event.id, VERDICT_DENY));
        CHECK_EQ(wait.outcome, WAIT_DENIED);
        struct space *child = NULL;
        if (other) {
            CHECK_OK(mapper_write(0, 1));
            REQUIRE_OK(channel_disarm(shaped.ctx, channel, shaped.space, gpa(PAGE_A), PAGE_SIZE));
            child = shape_fork(shaped.space); /* the write faults in the owner */
        }
        CHECK_STATUS(mapper_write(WINDOW, NEW_VALUE), other ? CLEAVE_OK : CLEAVE_DENIED);
        CHECK_EQ(shape_read(shaped.space, PAGE_A), other ? NEW_VALUE : shape_tag(1));
        CHECK_EQ(wait.outcome, WAIT_RETRY);
        if (child != NULL) {
            CHECK_EQ(shape_read(child, PAGE_A), shape_tag(1));
        }
        channel_destroy(shaped.ctx, channel);
        check_all();
    }
}

/* --- Ends ------------------------------------------------------------------------------------- */

TEST(owner_is_destroyed)
{
    set_up(SHAPE_BLOCK);
    for (unsigned i = 0; i < 4; i++) {
        REQUIRE_OK(map(SHAPE_AT + i * PAGE_SIZE, WINDOW + i * PAGE_SIZE));
        CHECK_EQ(mapper_read(WINDOW + i * PAGE_SIZE), shape_tag(i));
    }
    CHECK_OK(mapper_write(WINDOW, 1));
    /* Each call stops after one page; the mapper never sees freed memory. */
    enum cleave_status status;
    unsigned calls = 0;
    do {
        shaped.ctx->budget = 1;
        status = space_destroy(shaped.ctx, shaped.space);
        shaped.ctx->budget = UINT64_MAX;
        host_tlb_check();
        calls++;
    } while (status == CLEAVE_AGAIN && calls < 100 && shaped.space->foreign_count != 0);
    CHECK(calls > 3);
    CHECK_EQ(shaped.space->foreign_count, 0);
    while (status == CLEAVE_AGAIN) {
        status = space_destroy(shaped.ctx, shaped.space);
    }
    CHECK_OK(status);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t value;
        CHECK_STATUS(host_cpu_read(1, gpa(WINDOW + i * PAGE_SIZE), &value, sizeof(value)),
                     CLEAVE_FAULT);
        CHECK_STATUS(foreign_unmap(shaped.ctx, mapper, gpa(WINDOW + i * PAGE_SIZE)),
                     CLEAVE_NOT_MAPPED);
    }
    check_all();
    host_cpu_stop(1);
    shape_destroy(mapper);
    check_all();
}

/* Until its turn has come, a page of a dying owner can be read, and written to where it was. */
TEST(dying_owners_pages)
{
    set_up(SHAPE_PAGES);
    for (unsigned i = 0; i < 3; i++) {
        REQUIRE_OK(map(SHAPE_AT + i * PAGE_SIZE, WINDOW + i * PAGE_SIZE));
    }
    CHECK_OK(mapper_write(WINDOW + 2 * PAGE_SIZE, 1));
    for (unsigned i = 0; i < 100 && shaped.space->foreign_count == 3; i++) {
        shaped.ctx->budget = 1;
        CHECK_STATUS(space_destroy(shaped.ctx, shaped.space), CLEAVE_AGAIN);
        shaped.ctx->budget = UINT64_MAX;
    }
    REQUIRE(shaped.space->foreign_count == 2);
    struct space *child = shape_fork(mapper);
    CHECK_EQ(mapper_read(WINDOW + PAGE_SIZE), shape_tag(1));
    CHECK_STATUS(mapper_write(WINDOW + PAGE_SIZE, 1), CLEAVE_FAULT);
    CHECK_OK(mapper_write(WINDOW + 2 * PAGE_SIZE, 2));
    CHECK_EQ(mapper_read(WINDOW + 2 * PAGE_SIZE), 2);
    shape_destroy(child);
    shape_destroy(shaped.space);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t value;
        CHECK_STATUS(host_cpu_read(1, gpa(WINDOW + i * PAGE_SIZE), &value, sizeof(value)),
                     CLEAVE_FAULT);
    }
    host_cpu_stop(1);
    shape_destroy(mapper);
    check_all();
}

TEST(mapper_is_destroyed)
{
    set_up(SHAPE_BLOCK);
    for (unsigned i = 0; i < 4; i++) {
        REQUIRE_OK(map(SHAPE_AT + i * PAGE_SIZE, WINDOW + i * PAGE_SIZE));
    }
    CHECK_OK(mapper_write(WINDOW, 1));
    uint64_t sum = shape_sum(shaped.space);
    shape_destroy(mapper);
    CHECK_EQ(shaped.space->attachment_count, 0);
    CHECK_EQ(shaped.space->foreign_pages.frames, 0);
    CHECK_EQ(shape_sum(shaped.space), sum);
    check_all();
    shape_drop();
    check_all();
}

/* A fork of the mapper has holes; the map stays the mapper's, which may write again. */
TEST(mapper_forks)
{
    uint64_t value;
    set_up(SHAPE_BLOCK);
    REQUIRE_OK(map(PAGE_A, WINDOW));
    CHECK_OK(mapper_write(WINDOW, 1));
    struct space *child = shape_fork(mapper);
    CHECK_STATUS(space_read(shaped.ctx, child, gpa(WINDOW), &value, sizeof(value), NULL),
                 CLEAVE_FAULT);
    check_all();
    CHECK_OK(mapper_write(WINDOW, 2));
    CHECK_EQ(shape_read(shaped.space, PAGE_A), 2);
    shape_destroy(mapper);
    shape_destroy(child);
    check_all();
    CHECK_EQ(shaped.space->attachment_count, 0);
}

/* The mapper goes back to its base: the map is gone, and the owner's page intact. */
TEST(mapper_is_reset)
{
    struct fork_options options = {.limit = UINT64_MAX, .base = true};
    struct space *fork;
    uint64_t value;
    set_up(SHAPE_BLOCK);
    REQUIRE_OK(space_fork(shaped.ctx, mapper, 1, &options, &fork));
    REQUIRE_OK(foreign_map(shaped.ctx, shaped.space, gpa(PAGE_A), fork, gpa(WINDOW)));
    REQUIRE_OK(host_cpu_run(1, fork));
    CHECK_OK(mapper_write(WINDOW, 1));
    REQUIRE_OK(space_reset(shaped.ctx, fork, NULL, 0));
    CHECK_STATUS(host_cpu_read(1, gpa(WINDOW), &value, sizeof(value)), CLEAVE_FAULT);
    CHECK_EQ(shaped.space->attachment_count, 0);
    CHECK_EQ(shape_read(shaped.space, PAGE_A), 1);
    check_all();
    host_cpu_stop(1);
    shape_destroy(fork);
    shape_destroy(mapper);
    shape_drop();
    check_all();
}

/* --- Arguments and failures ------------------------------------------------------------------- */

TEST(refuses_bad_arguments)
{
    const uint64_t width = UINT64_C(1) << GUEST_BITS;
    const struct {
        const char *label;
        uint64_t at, to;
        enum cleave_status status;
    } bad[] = {
        {"unaligned page", PAGE_A + 8, WINDOW, CLEAVE_ALIGN},
        {"unaligned target", PAGE_A, WINDOW + 8, CLEAVE_ALIGN},
        {"page past the width", width, WINDOW, CLEAVE_RANGE},
        {"target past the width", PAGE_A, width, CLEAVE_RANGE},
        {"no memory", SHAPE_AT - PAGE_SIZE, WINDOW, CLEAVE_FAULT},
        {"target in use", PAGE_A, WINDOW + PAGE_SIZE, CLEAVE_EXISTS},
    };
    const struct region region = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};
    struct space *snapshot;
    set_up(SHAPE_BLOCK);
    REQUIRE_OK(space_set_region(shaped.ctx, mapper, gpa(WINDOW + PAGE_SIZE), PAGE_SIZE, &region));
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        test_case("%s", bad[i].label);
        CHECK_STATUS(map(bad[i].at, bad[i].to), bad[i].status);
        CHECK_EQ(shaped.space->attachment_count, 0);
        CHECK_EQ(shaped.space->foreign_pages.frames, 0);
        check_all();
    }
    test_case("spaces");
    CHECK_STATUS(foreign_map(shaped.ctx, mapper, gpa(PAGE_A), mapper, gpa(WINDOW)), CLEAVE_INVALID);
    REQUIRE_OK(space_snapshot(shaped.ctx, shaped.space, UINT64_MAX, &snapshot));
    CHECK_STATUS(foreign_map(shaped.ctx, snapshot, gpa(PAGE_A), mapper, gpa(WINDOW)),
                 CLEAVE_FROZEN);
    CHECK_EQ(strcmp(shaped.ctx->error.argument, "owner"), 0);
    CHECK_STATUS(foreign_map(shaped.ctx, shaped.space, gpa(PAGE_A), snapshot, gpa(WINDOW)),
                 CLEAVE_FROZEN);
    CHECK_EQ(strcmp(shaped.ctx->error.argument, "mapper"), 0);
    /* A map of a map, and what only its owner may take out. */
    REQUIRE_OK(map(PAGE_A, WINDOW));
    CHECK_STATUS(foreign_map(shaped.ctx, mapper, gpa(WINDOW), shaped.space, gpa(WINDOW)),
                 CLEAVE_FAULT);
    CHECK_STATUS(map(PAGE_A, WINDOW), CLEAVE_EXISTS);
    CHECK_STATUS(space_unmap(shaped.ctx, mapper, gpa(WINDOW), PAGE_SIZE), CLEAVE_BUSY);
    check_all();
}

static enum cleave_status try_map(void) { return map(PAGE_A, WINDOW); }
static enum cleave_status try_write(void) { return mapper_write(WINDOW, NEW_VALUE); }
static enum cleave_status try_unmap(void) { return foreign_unmap(shaped.ctx, mapper, gpa(WINDOW)); }

/* Runs `step` with every allocation failing in turn, until it succeeds. */
static void fail_each(enum cleave_status (*step)(void), bool changes)
{
    enum cleave_status status = CLEAVE_NO_MEMORY;
    uint64_t sum = shape_sum(shaped.space);
    for (uint64_t k = 1; status == CLEAVE_NO_MEMORY; k++) {
        test_case("allocation %u", (unsigned)k);
        host_fail_allocation(k);
        status = step();
        bool failed = host_allocation_failed();
        host_fail_allocation(0);
        CHECK(status == CLEAVE_OK || failed);
        if (status != CLEAVE_OK || !changes) {
            CHECK_EQ(shape_sum(shaped.space), sum);
        }
        check_all();
    }
    CHECK_OK(status);
}

TEST_TABLE(survives_failing_allocations, shape_cases)
{
    set_up(row->shape);
    struct space *child = shape_fork(shaped.space);
    uint64_t theirs = shape_sum(child);
    fail_each(try_map, false);
    CHECK_EQ(shaped.space->attachment_count, 1);
    fail_each(try_write, true);
    CHECK_EQ(shape_read(shaped.space, PAGE_A), NEW_VALUE);
    fail_each(try_unmap, false);
    CHECK_EQ(shape_sum(child), theirs);
    shape_destroy(child);
    check_all();
}

TEST(a_page_has_so_many_maps)
{
    const unsigned room = FOREIGN_PAGE_MAX;
    const uint64_t window = WINDOW / 2;
    set_up(SHAPE_BLOCK);
    REQUIRE_OK(space_create(shaped.ctx, shaped.pool, UINT64_MAX, &mapper));
    REQUIRE_OK(host_cpu_run(1, mapper));
    for (unsigned i = 0; i < room; i++) {
        REQUIRE_OK(map(PAGE_A, window + i * PAGE_SIZE));
    }
    uint32_t frames = shaped.space->foreign_pages.frames + mapper->foreign_maps.frames;
    CHECK_STATUS(map(PAGE_A, window + room * PAGE_SIZE), CLEAVE_COUNT);
    CHECK_EQ(strcmp(shaped.ctx->error.argument, "at"), 0);
    CHECK_EQ(shaped.ctx->error.value, room);
    CHECK_EQ(shaped.space->foreign_pages.frames + mapper->foreign_maps.frames, frames);
    REQUIRE_OK(map(PAGE_A + PAGE_SIZE, window + room * PAGE_SIZE));
    struct space *child = shape_fork(shaped.space);
    shape_write(shaped.space, PAGE_A, NEW_VALUE);
    for (unsigned i = 0; i < room; i++) {
        CHECK_EQ(mapper_read(window + i * PAGE_SIZE), NEW_VALUE);
    }
    check_all();
    shape_destroy(child);
    shape_destroy(mapper);
    check_all();
}
