/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shared memory that becomes private while the block that it was part of is settled by another CPU:
 * every schedule with up to two preemptions. Nothing is free, and nothing has to be.
 */
#include "scene.h"

static struct {
    struct space *space, *child;
    enum cleave_status status;
} world;

static enum cleave_status make_private(struct mm_ctx *ctx, uint64_t budget)
{
    const struct region private = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};
    ctx->budget = budget;
    enum cleave_status status =
        space_set_region(ctx, world.space, PAGE(GIGA), BYTES(GIGA), &private);
    ctx->budget = UINT64_MAX;
    return status;
}

/* Goes on until the operation stands in `phase`, or before its end if `last`. */
static void stop_in(enum space_phase phase, bool last)
{
    struct space *space = world.space;
    const uint64_t end = 2 * GIGA;
    while (space->op == OP_NONE || space->op_phase != phase || (last && space->op_at.v + 1 < end)) {
        REQUIRE_EQ(make_private(scene.ctx, 1), CLEAVE_AGAIN);
    }
}

/* 4 KiB leaves of a 1 GiB block that has dissolved and is not settled: its other holder, which
 * mapped it whole, is about to be gone. No page has to be copied, and none could be. */
static void setup(void *arg)
{
    (void)arg;
    scene_start(0);
    world.space = scene_space();
    scene_region(world.space, GIGA, GIGA, REGION_SHARED, RIGHT_ALL, 2);
    scene_write(world.space, GIGA, 1);
    REQUIRE_EQ(scene_lookup(world.space, GIGA).level, 2);
    world.child = scene_fork(world.space);
    stop_in(PHASE_SETTLE, true); /* the last leaf is split by then */
    REQUIRE_OK(space_give_up(scene.ctx, world.space));
    REQUIRE_EQ(scene_lookup(world.space, GIGA).level, 0);
    REQUIRE_EQ(scene_lookup(world.space, 2 * GIGA - 1).level, 0);
    while (scene.pool->reap_gigas == 0) {
        scene.ctx->budget = 1;
        REQUIRE_EQ(space_destroy(scene.ctx, world.child), CLEAVE_AGAIN);
        scene.ctx->budget = UINT64_MAX;
    }
    stop_in(PHASE_CONVERT, false);
    REQUIRE_EQ(world.space->op_payer.reserved, 0);
    scene_drain(0);
}

static void converts(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    world.status = make_private(ctx, UINT64_MAX);
}

static void settles(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    while (frame_settle_some(ctx, scene.pool)) {
    }
}

static bool check(void *arg)
{
    (void)arg;
    for (uint64_t page = GIGA; page < 2 * GIGA; page++) {
        REQUIRE_EQ(scene_lookup(world.space, page).level, 0);
    }
    REQUIRE_OK(space_destroy(scene.ctx, world.child));
    scene_give_back(UINT64_MAX);
    scene_audit();
    return world.status == CLEAVE_OK && world.space->stats.pages_copied == 0;
}

TEST_TIMED(pages_become_private_while_their_block_is_settled, 120)
{
    TEST_NEEDS_HOOKS();
    struct host_sched sched = {.setup = setup,
                               .cpus = 2,
                               .body = {converts, settles},
                               .check = check,
                               .max_preemptions = 2,
                               .points = 1u << POINT_SPREAD | 1u << POINT_ENTRY};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.complete);
    CHECK_LE(2, sched.schedules);
}
