/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Xen's own forks (its mem_sharing) were mended nine times without an advisory,
 * for they were never supported; those commits are the best list of bugs that
 * there is for exactly this feature. One named test for each, with the commit
 * in xen-project/xen.
 */
#include <stdio.h>
#include <string.h>

#include "rows_ops.h"

#define SMALL (TABLE_ENTRIES == 4)

static const struct shape_row shapes[] = SHAPE_ROWS;
static const struct fork_options based = {.limit = UINT64_MAX, .base = true};

static uint64_t word_at(struct space *space, uint64_t page)
{
    uint64_t value = ~UINT64_C(0);
    CHECK_OK(space_read(scene.ctx, space, PAGE(page), &value, sizeof(value), NULL));
    return value;
}

/* --- F1, F2: no memory while a page is made private ------------------------------------------- */

static unsigned starved;

static void on_starved(struct space *space, void *arg)
{
    (void)space, (void)arg;
    CHECK_EQ(scene.ctx->lock_depth, 0);
    starved++;
}

/* Everything that makes a page private, with nothing to be had. */
static enum cleave_status make_private(unsigned how, struct space *child, uint64_t page)
{
    uint64_t value = 1, done;
    uint32_t id;
    switch (how) {
    case 0:
        return space_fault(scene.ctx, child, PAGE(page), ACCESS_WRITE, NULL);
    case 1:
        return space_write(scene.ctx, child, PAGE(page), &value, sizeof(value), NULL, &done);
    case 2:
        return space_make_exclusive(scene.ctx, child, (struct gfn_range){gfn(page), gfn(page + 1)},
                                    NULL);
    case 3:
        return space_pin(scene.ctx, child, PAGE(page), PAGE_SIZE, true, &id);
    default:
        return space_move(scene.ctx, child, PAGE(page), PAGE(4 * GIGA), PAGE_SIZE, &done);
    }
}

/* 0806e39659: out of memory while unsharing left the list of who shares the
 * page inconsistent, made the fault handler go round for ever, reported the
 * event under locks, and some callers never looked. Each caller is told, again
 * and again, in one bounded call; the page stays shared and whole; the owner is
 * told with no lock held. */
TEST_TABLE(t_f1_no_memory_leaves_the_page_shared, shapes)
{
    scene_shape(row->shape);
    const uint64_t page = scene.base + BLOCK; /* shared in every shape */
    struct space *child = scene_fork(scene.space), *filler = scene_space();
    REQUIRE_OK(pool_reserve(scene.ctx, &filler->payer, scene.pool->free - scene.pool->reserved));
    struct scene_state before = scene_state();
    for (unsigned how = 0; how < 5; how++) {
        for (unsigned again = 0; again < 3; again++) {
            test_case("caller %u, time %u", how, again);
            uint64_t faults = child->stats.faults;
            CHECK_STATUS(make_private(how, child, page), CLEAVE_NO_MEMORY);
            CHECK_LE(child->stats.faults - faults, 1);
            scene_audit();
            struct scene_state after = scene_state();
            SCENE_CHECK_SAME_VIEW(before, after);
            CHECK_EQ(after.free, before.free);
            CHECK_EQ(scene_lookup(child, page).frame.v, scene_lookup(scene.space, page).frame.v);
            CHECK(!scene_lookup(child, page).exclusive);
        }
    }
    struct vcpu_wait wait = {0};
    starved = 0;
    host_on_starved(on_starved, NULL);
    CHECK_STATUS(space_fault(scene.ctx, child, PAGE(page), ACCESS_WRITE, &wait), CLEAVE_WAIT);
    CHECK_EQ(starved, 1);
    pool_unreserve(scene.ctx, &filler->payer);
    pool_wake(scene.ctx, scene.pool);
    CHECK_OK(space_fault(scene.ctx, child, PAGE(page), ACCESS_WRITE, &wait));
    pool_cancel_wait(scene.ctx, scene.pool, &wait);
    scene_check(child, page, SCENE_TAG(page));
    scene_end();
}

/* 77ece196fa: a failed unsharing did not take back what it had counted, and the
 * retry counted it again, so that the figure ran below zero. Failures change no
 * figure; the success counts once. */
TEST_TABLE(t_f2_failures_are_not_counted, shapes)
{
    scene_shape(row->shape);
    const uint64_t page = scene.base + BLOCK;
    struct space *child = scene_fork(scene.space), *filler = scene_space();
    struct space_usage before = scene_usage(child);
    REQUIRE_OK(pool_reserve(scene.ctx, &filler->payer, scene.pool->free - scene.pool->reserved));
    for (unsigned i = 0; i < 10; i++) {
        CHECK_STATUS(make_private(i % 3, child, page), CLEAVE_NO_MEMORY);
    }
    struct space_usage after = scene_usage(child);
    CHECK_EQ(child->stats.pages_copied, 0);
    CHECK_EQ(child->stats.reused, 0);
    CHECK_EQ(after.shared, before.shared);
    CHECK_EQ(after.exclusive, before.exclusive);
    pool_unreserve(scene.ctx, &filler->payer);
    CHECK_OK(make_private(0, child, page));
    after = scene_usage(child);
    CHECK_EQ(child->stats.pages_copied, 1);
    CHECK_EQ(after.shared, before.shared - PAGE_SIZE);
    CHECK_EQ(after.exclusive, before.exclusive + PAGE_SIZE);
    scene_audit();
    scene_end();
}

/* --- F3: what a reset takes away -------------------------------------------------------------- */

/* f5500c3196: reset took pages out that the fork had not allocated while it ran
 * (the vcpu info page), and the guest faulted for ever. After a reset every
 * page of the base is there at once, shared and read-only pages too, and each
 * write takes one fault. */
TEST_TABLE(t_f3_reset_takes_only_what_was_written, shapes)
{
    uint64_t sample[SCENE_SAMPLES];
    struct space *child;
    scene_shape(row->shape);
    unsigned n = scene_samples(sample);
    const uint64_t shared = 4 * GIGA, fixed = 4 * GIGA + 4;
    scene_region(scene.space, shared, 1, REGION_SHARED, RIGHT_ALL, 0);
    scene_write(scene.space, shared, 3);
    scene_memory(scene.space, fixed, 1, 0);
    scene_write(scene.space, fixed, 4);
    const struct region read_only = {.policy = REGION_READ_ONLY, .rights = RIGHT_READ};
    REQUIRE_OK(space_set_region(scene.ctx, scene.space, PAGE(fixed), PAGE_SIZE, &read_only));
    REQUIRE_OK(space_fork(scene.ctx, scene.space, 1, &based, &child));
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < n; i++) {
            uint64_t faults = child->stats.faults;
            scene_write(child, sample[i], 100 + i);
            CHECK_LE(child->stats.faults - faults, 2);
        }
        scene_write(child, shared, 50 + round);
        pfn_t frame = scene_lookup(child, shared).frame;
        REQUIRE_OK(space_reset(scene.ctx, child, NULL, 0));
        scene_audit();
        CHECK_EQ(scene_lookup(child, shared).frame.v, frame.v);
        scene_check(child, shared, 50 + round);
        scene_check(scene.space, shared, 50 + round);
        scene_check(child, fixed, 4);
        uint64_t faults = child->stats.faults;
        for (unsigned i = 0; i < n; i++) {
            scene_check(child, sample[i], SCENE_TAG(sample[i]));
        }
        CHECK_EQ(child->stats.faults, faults); /* nothing that is there is fetched again */
    }
    scene_end();
}

/* --- F4, F5, F6: locks ------------------------------------------------------------------------ */

static struct {
    struct space *space[3];
    bool wrong;
} game;

static void cross_setup(void *arg)
{
    (void)arg;
    scene_start(0);
    game.wrong = false;
    struct space *parent = scene_space();
    scene_memory(parent, 0, BLOCK, 1);
    scene_write(parent, 0, 1);
    game.space[0] = parent;
    game.space[1] = scene_fork(parent);
    game.space[2] = scene_fork(parent);
    for (unsigned i = 0; i < 3; i++) { /* each maps a page of the next */
        REQUIRE_OK(
            foreign_map(scene.ctx, game.space[(i + 1) % 3], gpa(0), game.space[i], PAGE(2 * GIGA)));
    }
    for (unsigned i = 1; i < machine.cpus; i++) {
        host_cpu_stop(i);
    }
}

/* Writes its own page and the next one's, and has the whole forked. */
static void cross_body(struct mm_ctx *ctx, void *arg)
{
    const struct fork_options plain = {.limit = UINT64_MAX};
    struct space *space = game.space[ctx->cpu], *child = NULL;
    uint64_t value = ctx->cpu + 1, done;
    (void)arg;
    game.wrong |= space_write(ctx, space, PAGE(2 * GIGA), &value, 8, NULL, &done) != CLEAVE_OK;
    game.wrong |= space_write(ctx, space, gpa(8), &value, 8, NULL, &done) != CLEAVE_OK;
    if (ctx->cpu == 0) {
        game.wrong |= space_fork(ctx, space, 1, &plain, &child) != CLEAVE_OK;
        game.wrong |= child == NULL || space_destroy(ctx, child) != CLEAVE_OK;
    }
}

static bool cross_check(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t found[2];
        game.wrong |= space_read(scene.ctx, game.space[i], gpa(0), found, 16, NULL) != CLEAVE_OK;
        game.wrong |= found[0] != (i + 2) % 3 + 1 || found[1] != i + 1;
    }
    scene_audit();
    return !game.wrong;
}

/* 3e6c560ea1: locks of several address spaces were taken in different orders.
 * Three relatives each write through a map of the next one's page, and one
 * forks meanwhile: no schedule deadlocks, and debug builds check the order at
 * every lock. */
TEST(t_f4_relatives_that_map_each_other)
{
    TEST_NEEDS_HOOKS();
    struct host_sched sched = {.setup = cross_setup,
                               .cpus = 3,
                               .body = {cross_body, cross_body, cross_body},
                               .check = cross_check,
                               .max_preemptions = 2,
                               .max_schedules = SMALL ? 1000 : 80};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.schedules > 10);
}

/* d6e02850d3: a lock was left held by a path that looked something up. No
 * operation leaves one, whether it succeeds or is refused: on a snapshot, on a
 * dying space, and on one whose operation was stopped. */
TEST_TABLE(t_f5_no_lock_stays_behind, row_ops)
{
    static const struct {
        uint8_t state, op;
    } states[] = {{SPACE_FROZEN, OP_NONE}, {SPACE_DYING, OP_NONE}, {SPACE_ALIVE, OP_MAP}};
    bool destroy = strncmp(row->label, "destroy", 7) == 0, done = false;
    rows_start(SHAPE_2M, row);
    for (unsigned i = 0; i < 3 && !destroy && !done; i++) {
        test_case("state %u", i);
        scene.space->state = rows.child->state = states[i].state;
        scene.space->op = rows.child->op = states[i].op;
        struct scene_state before = scene_state();
        enum cleave_status status = row->step(scene.ctx, NULL);
        host_check_locks();
        if (status >= CLEAVE_ERROR_FIRST) {
            struct scene_state after = scene_state();
            SCENE_CHECK_SAME_VIEW(before, after);
        } else {
            done = true; /* snapshots may be forked, and their pages mapped */
        }
        scene.space->state = rows.child->state = SPACE_ALIVE;
        scene.space->op = rows.child->op = OP_NONE;
    }
    CHECK(done || rows_done(row, rows_run(row, UINT64_MAX)));
    host_check_locks();
    rows_end();
}

static void release_setup(void *arg)
{
    (void)arg;
    scene_start(0);
    game.wrong = false;
    game.space[0] = scene_space();
    scene_memory(game.space[0], 0, BLOCK, 1);
    scene_write(game.space[0], 0, 1);
    game.space[1] = scene_fork(game.space[0]);
    game.space[2] = scene_fork(game.space[1]);
    for (unsigned i = 1; i < machine.cpus; i++) {
        host_cpu_stop(i);
    }
}

static void release_body(struct mm_ctx *ctx, void *arg)
{
    uint64_t value = ctx->cpu + 1, done;
    (void)arg;
    if (ctx->cpu == 2) {
        game.wrong |= space_destroy(ctx, game.space[2]) != CLEAVE_OK;
        return;
    }
    game.wrong |=
        space_write(ctx, game.space[ctx->cpu], gpa(0), &value, 8, NULL, &done) != CLEAVE_OK;
}

static bool release_check(void *arg)
{
    (void)arg;
    scene_audit();
    return !game.wrong && word_at(game.space[0], 0) == 1 && word_at(game.space[1], 0) == 2;
}

/* c2c6f8b68c: a page was released under its own lock. Two write the page that
 * all three share while the third goes away, so that either may be the last to
 * let go. */
TEST(t_f6_the_last_to_let_go)
{
    TEST_NEEDS_HOOKS();
    struct host_sched sched = {.setup = release_setup,
                               .cpus = 3,
                               .body = {release_body, release_body, release_body},
                               .check = release_check,
                               .max_preemptions = 2,
                               .max_schedules = SMALL ? 1500 : 80};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.schedules > 10);
}

/* --- F7: two areas on one page ---------------------------------------------------------------- */

/* 9a499a84a2: the fork allocated a page for each vcpu's info area without
 * looking whether one was mapped there, which broke two areas on one page. Two
 * pins on one page: a fork copies it once, and both pins and the guest go on
 * seeing one page. */
TEST_TABLE(t_f7_two_areas_on_one_page, shapes)
{
    uint32_t id[2];
    scene_shape(row->shape);
    const uint64_t page = scene.base + 1;
    for (unsigned i = 0; i < 2; i++) {
        REQUIRE_OK(space_pin(scene.ctx, scene.space, PAGE(page), PAGE_SIZE, true, &id[i]));
    }
    uint64_t copies = scene.space->stats.fork_copies;
    struct space *child = scene_fork(scene.space);
    CHECK_EQ(scene.space->stats.fork_copies - copies, 1);
    scene_audit();
    pfn_t mine = scene_lookup(scene.space, page).frame, seen[2];
    for (unsigned i = 0; i < 2; i++) {
        REQUIRE_OK(space_pinned_frame(scene.ctx, scene.space, id[i], PAGE(page), &seen[i]));
        CHECK_EQ(seen[i].v, mine.v);
        uint64_t value = 70 + i;
        memcpy((unsigned char *)frame_address(seen[i]) + 64 * i, &value, 8);
    }
    scene_check(child, page, SCENE_TAG(page)); /* the child has one page of its own, from before */
    CHECK(scene_lookup(child, page).exclusive || row->shape == SHAPE_PARTLY);
    uint64_t found[9];
    REQUIRE_OK(space_read(scene.ctx, scene.space, PAGE(page), found, sizeof(found), NULL));
    CHECK_EQ(found[0], 70);
    CHECK_EQ(found[8], 71);
    for (unsigned i = 0; i < 2; i++) {
        REQUIRE_OK(space_unpin(scene.ctx, scene.space, id[i]));
        scene_audit();
    }
    scene_end();
}

/* --- F8: what a fork looks like before it runs ------------------------------------------------ */

static gfn_t last_page(struct space *space)
{
    struct gfn_range found = {gfn(0), gfn(0)};
    struct region region;
    while (region_find(space->regions, found.end, gfn(GUEST_PAGES), REGION_HAS_MEMORY, &found,
                       &region)) {
    }
    return found.end;
}

/* f10c415371: the highest page number was not copied, so that a fork that had
 * not run yet looked smaller than it was. Before its first instruction a fork
 * has every region of its parent's, its size, and every page, up to the last
 * one of the guest's width. */
TEST_TABLE(t_f8_a_fork_has_its_size_at_once, shapes)
{
    scene_shape(row->shape);
    scene_memory(scene.space, GUEST_PAGES - 1, 1, 0);
    scene_write(scene.space, GUEST_PAGES - 1, 9);
    struct space *child = scene_fork(scene.space);
    CHECK_EQ(last_page(child).v, GUEST_PAGES);
    CHECK_EQ(last_page(child).v, last_page(scene.space).v);
    scene_look(child, GUEST_PAGES - 1, 9);
    struct space_usage a = scene_usage(scene.space), b = scene_usage(child);
    for (unsigned order = 0; order < LEAF_ORDERS; order++) {
        CHECK_EQ(a.mapped[order], b.mapped[order]);
    }
    CHECK_EQ(child->stats.faults, 0);
    scene_end();
}

/* --- F9: preemption is looked at again -------------------------------------------------------- */

static enum cleave_status destroy_step(struct mm_ctx *ctx, void *arg)
{
    return space_destroy(ctx, arg);
}

/* a0070f7a5a: preemption was asked for once and never again, and pages that are
 * not shared did not count. A space of which some is shared and most is not is
 * destroyed with every small budget: the smaller it is, the more calls, and
 * each stops. */
TEST(t_f9_preemption_is_checked_again)
{
    uint64_t calls_before = UINT64_MAX;
    for (uint64_t budget = 1; budget <= 4096 * TABLE_ENTRIES; budget *= 8) {
        enum cleave_status status;
        test_case("budget %u", (unsigned)budget);
        scene_start(SMALL ? 0 : 48);
        struct space *space = scene_space();
        const uint64_t blocks = SMALL ? 16 : 24;
        scene_memory(space, 0, blocks * BLOCK, 0);
        struct space *child = scene_fork(space);
        for (uint64_t i = 0; i < blocks; i++) {
            if (i % 8 != 7) {
                scene_write(child, i * BLOCK, i + 1); /* this table is the child's own */
            }
        }
        for (unsigned i = 1; i < machine.cpus; i++) {
            host_cpu_stop(i);
        }
        uint64_t calls = host_run_preempted(scene.ctx, destroy_step, child, budget, &status);
        CHECK_OK(status);
        CHECK_LE(calls, calls_before);
        if (budget == 1) {
            CHECK(calls > blocks / 2);
        }
        calls_before = calls;
        scene_end();
    }
    CHECK_EQ(calls_before, 1);
}
