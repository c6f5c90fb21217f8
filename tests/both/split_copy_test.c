/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A write fault takes the table of a split, the run for its copies and the first copy at once. What
 * it may take at the edge of a quota or beside reservations, what becomes of a copy that is not
 * needed any more, and two CPUs that do this with the last frames.
 */
#include "scene.h"

/* A parent with three 2 MiB leaves and a fork that wrote into the last of them, so that its path is
 * its own and the next write only splits. */
static struct {
    struct space *parent, *child;
} pair;

static void start(void)
{
    scene_start(0);
    pair.parent = scene_space();
    scene_memory(pair.parent, 0, 3 * BLOCK, 1);
    pair.child = scene_fork(pair.parent);
    scene_write(pair.child, 2 * BLOCK, 1);
    scene_audit();
}

static struct account *account(struct space *space)
{
    return account_of(scene.pool, space->payer.account);
}

/* Leaves `room` frames to `space`: by its quota, or by reserving all others for the parent. */
static void leave_room(struct space *space, uint64_t room, bool quota)
{
    if (quota) {
        account(space)->limit = account(space)->charged + room;
    } else {
        REQUIRE_OK(pool_reserve(scene.ctx, &pair.parent->payer,
                                scene.pool->free - scene.pool->reserved - room));
    }
}

TEST(copy_lies_in_the_run_of_its_table)
{
    start();
    uint64_t charged = account(pair.child)->charged, aside = scene.pool->aside;
    scene_write(pair.child, 1, 2);
    struct mapping m = scene_lookup(pair.child, 1);
    CHECK_EQ(m.level, 0);
    CHECK_EQ(m.frame.v % BLOCK, 1);
    CHECK_EQ(run_of(m.frame, 1)->state, RUN_ASIDE);
    CHECK_EQ(account(pair.child)->charged, charged + 2); /* the table and the copy */
    CHECK_EQ(scene.pool->aside, aside + BLOCK - 1);
    scene_audit();
    scene_end();
}

/* A vcpu by itself flushes once for the split and the copy, and never waits. With another one in
 * the guest the write bit comes in a round of its own, after both have flushed. */
TEST(one_flush_for_split_and_copy)
{
    const uint64_t pages[] = {1, BLOCK + 1};
    uint64_t word = 5;
    for (unsigned guests = 1; guests <= 2; guests++) {
        test_case("guests %u", guests);
        start();
        for (unsigned cpu = 1; cpu <= guests; cpu++) {
            REQUIRE_OK(host_cpu_run(cpu, pair.child));
            REQUIRE_OK(host_cpu_read(cpu, PAGE(1), &word, 8));
        }
        for (unsigned i = 0; i < 2; i++) {
            uint64_t flushes = pair.child->stats.flushes;
            host_reset_counters();
            REQUIRE_OK(host_cpu_write(1, PAGE(pages[i]), &word, 8));
            CHECK_EQ(pair.child->stats.flushes - flushes, 1);
            CHECK_EQ(host_counters().kicks, guests - 1);
            CHECK_EQ(pair.child->stats.blocks_split, 2 + i);
            CHECK(pte_writable(scene_lookup(pair.child, pages[i]).entry));
        }
        scene_end();
    }
}

/* Each room that a write may be left, less than it needs and just enough. */
static const struct edge_row {
    const char *label;
    bool quota;
    enum cleave_status status; /* where the room does not suffice */
} edges[] = {{"quota", true, CLEAVE_QUOTA}, {"reserved", false, CLEAVE_NO_MEMORY}};

TEST_TABLE(takes_what_it_may_and_no_more, edges)
{
    for (uint64_t room = 0; room < 4; room++) {
        test_case("room for %d", (int)room);
        start();
        leave_room(pair.child, room, row->quota);
        uint64_t charged = account(pair.child)->charged;
        enum cleave_status status = scene_access(pair.child, 1, ACCESS_WRITE);
        if (room < 2) {
            CHECK_STATUS(status, row->status);
        } else {
            CHECK_OK(status);
        }
        CHECK_EQ(account(pair.child)->charged, charged + (room < 2 ? room : 2));
        CHECK_LE(scene.pool->reserved, scene.pool->free);
        pfn_t f;
        for (uint64_t left = pair.parent->payer.reserved; left > 0; left--) {
            REQUIRE_OK(pool_alloc(scene.ctx, &pair.parent->payer, 0, FRAME_OBJECT, &f));
        }
    }
}

/* The split fails where it cannot be counted: the table goes, and with it the
 * run and the copy that were to follow. */
TEST(split_that_fails_gives_all_back)
{
    start();
    struct mapping m = scene_lookup(pair.child, 1);
    REQUIRE_EQ(m.level, 1);
    pfn_t block = pte_pfn(m.entry);
    run_of(block, 1)->split = FRAME_COUNT_MAX;
    frame_of(pfn_add(block, 3), 0)->count = 1;
    struct scene_state before = scene_state();
    uint64_t aside = scene.pool->aside, data = scene.pool->kind[FRAME_DATA];
    CHECK_STATUS(scene_access(pair.child, 1, ACCESS_WRITE), CLEAVE_OVERFLOW);
    struct scene_state after = scene_state();
    SCENE_CHECK_SAME(before, after);
    CHECK_EQ(scene.pool->aside, aside);
    CHECK_EQ(scene.pool->kind[FRAME_DATA], data);
    run_of(block, 1)->split = 0;
    frame_of(pfn_add(block, 3), 0)->count = 0;
    scene_audit();
    scene_write(pair.child, 1, 2);
    scene_end();
}

/* The parent gave up page 1 of the block, so that it is the child's alone as soon as that splits.
 */
TEST(copy_that_is_not_needed_goes_back)
{
    start();
    scene_write(pair.parent, 1, 3);
    uint64_t copied = pair.child->stats.pages_copied, split = pair.child->stats.blocks_split;
    uint64_t data = scene.pool->kind[FRAME_DATA], charged = account(pair.child)->charged;
    struct mapping before = scene_lookup(pair.child, 1);
    CHECK_EQ(before.level, 1);
    scene_write(pair.child, 1, 2);
    struct mapping after = scene_lookup(pair.child, 1);
    CHECK_EQ(after.level, 0);
    CHECK_EQ(after.frame.v, before.frame.v);
    CHECK_EQ(pair.child->stats.blocks_split, split + 1);
    CHECK_EQ(pair.child->stats.pages_copied, copied);
    CHECK_EQ(scene.pool->kind[FRAME_DATA], data);
    CHECK_EQ(account(pair.child)->charged, charged + 1); /* the table */
    scene_check(pair.parent, 1, 3);
    scene_audit(); /* and nothing is in use that nobody holds */
    scene_end();
}

/* --- Two CPUs --------------------------------------------------------------------------------- */

/* Two faults with room for `room` frames: of two forks of one parent beside a reservation, or of
 * two vcpus of one fork at its quota. */
static const struct last_row {
    const char *label;
    bool quota;
    uint64_t room;
} lasts[] = {
    {"reserved-2", false, 2}, {"reserved-3", false, 3}, {"reserved-4", false, 4},
    {"quota-2", true, 2},     {"quota-3", true, 3},     {"quota-4", true, 4},
};
static const struct last_row *last;
static struct space *writer[2];
static enum cleave_status written[2];

static void last_setup(void *arg)
{
    (void)arg;
    start();
    writer[0] = writer[1] = pair.child;
    if (!last->quota) {
        writer[1] = scene_fork(pair.parent);
        scene_write(writer[1], 2 * BLOCK, 2);
    }
    for (unsigned i = 1; i < machine.cpus; i++) {
        host_cpu_stop(i);
    }
    leave_room(pair.child, last->room, last->quota);
}

static void last_body(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    gpa_t at = PAGE(last->quota && ctx->cpu == 1 ? BLOCK + 1 : 1);
    written[ctx->cpu] = space_fault(ctx, writer[ctx->cpu], at, ACCESS_WRITE, NULL);
}

/* Nobody gets a frame that is not to be had, and nobody fails for a frame that only lay ready for
 * the other. */
static bool last_check(void *arg)
{
    (void)arg;
    scene_audit();
    enum cleave_status refusal = last->quota ? CLEAVE_QUOTA : CLEAVE_NO_MEMORY;
    unsigned done = 0;
    for (unsigned i = 0; i < 2; i++) {
        done += written[i] == CLEAVE_OK;
        if (written[i] != CLEAVE_OK && written[i] != refusal) {
            return false;
        }
    }
    if (account(pair.child)->charged > account(pair.child)->limit ||
        scene.pool->reserved > scene.pool->free) {
        return false;
    }
    return last->room < 3 ? done < 2 : last->room < 4 ? done == 1 : done == 2;
}

TEST_TABLE(two_cpus_and_the_last_frames, lasts)
{
    TEST_NEEDS_HOOKS();
    last = row;
    struct host_sched sched = {.setup = last_setup,
                               .cpus = 2,
                               .body = {last_body, last_body},
                               .check = last_check,
                               .max_preemptions = 2,
                               .max_schedules = TABLE_ENTRIES == 4 ? 1500 : 100};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.schedules > 5);
}
