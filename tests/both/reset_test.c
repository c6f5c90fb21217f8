/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Snapshot, restore and reset: a fork goes back to its base, dropping what it wrote or copying back
 * what is kept; bases that are unnamed, destroyed first, or not there at all.
 */
#include <string.h>

#include "pin.h"
#include "scene.h"

static const struct shape_row shapes[] = SHAPE_ROWS;

static const struct fork_options based = {.limit = UINT64_MAX, .base = true};

static uint64_t sample[SCENE_SAMPLES];
static unsigned samples;

static struct space *fork_with_base(struct space *parent)
{
    struct space *child = NULL;
    REQUIRE_OK(space_fork(scene.ctx, parent, 1, &based, &child));
    child->collapse_at = 0;
    return child;
}

static void start(enum shape shape)
{
    scene_shape(shape);
    samples = scene_samples(sample);
}

static void check_all(struct space *space, uint64_t plus)
{
    for (unsigned i = 0; i < samples; i++) {
        scene_check(space, sample[i], SCENE_TAG(sample[i]) + plus);
    }
}

/* Nothing differs from the base: by the tables, and by the bytes. */
static void check_no_difference(struct space *space, bool tables_too)
{
    struct gfn_range found[4];
    for (unsigned exact = 0; exact < 2; exact++) {
        struct diff diff = {.from = gfn(0),
                            .end = gfn(GUEST_PAGES),
                            .exact = exact != 0,
                            .found = found,
                            .room = 4};
        REQUIRE_OK(space_diff(scene.ctx, space, space->base, &diff));
        if (exact || tables_too) {
            CHECK_EQ(diff.count, 0);
        }
    }
}

static void dirty(struct space *space)
{
    for (unsigned i = 0; i < samples; i++) {
        scene_write(space, sample[i], 7 + i);
    }
}

/* What was written, mapped, unmapped and protected since is as it was; everything private is freed.
 */
TEST_TABLE(reset_drops_what_was_written, shapes)
{
    start(row->shape);
    struct space *child = fork_with_base(scene.space);
    REQUIRE(table_reap(scene.ctx, scene.pool));
    uint64_t free = scene.pool->free;
    for (unsigned round = 0; round < 3; round++) {
        dirty(child);
        uint64_t far = scene.base + GIGA;
        if (round == 1) {
            scene_memory(child, far, 2, 0);
            scene_write(child, far, 5);
            REQUIRE_OK(space_unmap(scene.ctx, child, PAGE(scene.base + 1), BYTES(BLOCK)));
            REQUIRE_OK(space_protect(scene.ctx, child, PAGE(scene.base), BYTES(1), RIGHT_READ));
        }
        scene_audit();
        uint64_t frames = scene_lookup(child, scene.base).frame.v;
        REQUIRE_OK(space_reset(scene.ctx, child, NULL, 0));
        scene_audit();
        CHECK_EQ(scene.pool->free, free);
        CHECK_NE(scene_lookup(child, scene.base).frame.v, frames);
        check_no_difference(child, true);
        check_all(child, 0);
        check_all(scene.space, 0);
        CHECK_STATUS(scene_access(child, far, ACCESS_READ), CLEAVE_FAULT);
        CHECK_OK(scene_access(child, scene.base, ACCESS_READ));
    }
    /* A reset of what was not written changes nothing. */
    REQUIRE_OK(space_reset(scene.ctx, child, NULL, 0));
    CHECK_EQ(scene.pool->free, free);
    scene_end();
}

/* Its parent may have changed meanwhile: the base is what it was at the fork. */
TEST_TABLE(reset_goes_back_to_the_base, shapes)
{
    start(row->shape);
    struct space *child = fork_with_base(scene.space);
    dirty(scene.space);
    dirty(child);
    REQUIRE_OK(space_reset(scene.ctx, child, NULL, 0));
    check_all(child, 0);
    for (unsigned i = 0; i < samples; i++) {
        scene_check(scene.space, sample[i], 7 + i);
    }
    scene_audit();
    scene_destroy(scene.space);
    dirty(child);
    REQUIRE_OK(space_reset(scene.ctx, child, NULL, 0));
    check_all(child, 0);
    scene_audit();
    scene_end();
}

/* With `keep`, pages stay where they are and get their base's bytes; their first writes take no
 * fault. */
TEST_TABLE(reset_keeps_hot_pages, shapes)
{
    start(row->shape);
    struct space *child = fork_with_base(scene.space);
    const struct gfn_range keep[2] = {{gfn(scene.base), gfn(scene.base + 2)},
                                      {gfn(scene.base + BLOCK), gfn(scene.base + BLOCK + 1)}};
    for (unsigned round = 0; round < 2; round++) {
        dirty(child);
        pfn_t kept = scene_lookup(child, scene.base).frame;
        pfn_t dropped = scene_lookup(child, scene.base + BLOCK - 1).frame;
        REQUIRE_OK(space_reset(scene.ctx, child, keep, 2));
        scene_audit();
        CHECK_EQ(scene_lookup(child, scene.base).frame.v, kept.v);
        if (BLOCK > 4) {
            CHECK_NE(scene_lookup(child, scene.base + BLOCK - 1).frame.v, dropped.v);
        }
        check_all(child, 0);
        check_all(scene.space, 0);
        check_no_difference(child, false);
        uint64_t faults = child->stats.write_faults;
        scene_write(child, scene.base, 9);
        scene_write(child, scene.base + BLOCK, 9);
        CHECK_EQ(child->stats.write_faults, faults);
        check_all(scene.space, 0);
    }
    scene_end();
}

/* A page that was kept and that the base has as a hole is zeros again. */
TEST(reset_keeps_what_the_base_has_not)
{
    scene_start(0);
    struct space *space = scene_space();
    scene_region(space, 0, 2 * BLOCK, REGION_PRIVATE, RIGHT_ALL, 0);
    scene_write(space, 1, 1);
    struct space *child = fork_with_base(space);
    const struct gfn_range keep = {gfn(0), gfn(2 * BLOCK)};
    scene_write(child, 0, 2);
    scene_write(child, BLOCK, 3);
    REQUIRE_OK(space_reset(scene.ctx, child, &keep, 1));
    scene_audit();
    scene_check(child, 0, 0);
    scene_check(child, 1, 1);
    scene_check(child, BLOCK, 0);
    check_no_difference(child, false);
    scene_end();
}

TEST_TABLE(snapshots_are_immutable, shapes)
{
    unsigned char byte = 1;
    uint64_t done;
    struct space *other = NULL;
    start(row->shape);
    struct space *snapshot = scene_snapshot(scene.space);
    dirty(scene.space);
    scene_audit();
    struct scene_state before = scene_state();
    const gpa_t at = PAGE(scene.base);
    const struct region region = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};
    CHECK_STATUS(space_write(scene.ctx, snapshot, at, &byte, 1, NULL, &done), CLEAVE_FROZEN);
    CHECK_STATUS(space_unmap(scene.ctx, snapshot, at, PAGE_SIZE), CLEAVE_FROZEN);
    CHECK_STATUS(space_protect(scene.ctx, snapshot, at, PAGE_SIZE, RIGHT_READ), CLEAVE_FROZEN);
    CHECK_STATUS(space_populate(scene.ctx, snapshot, at, PAGE_SIZE), CLEAVE_FROZEN);
    CHECK_STATUS(space_set_region(scene.ctx, snapshot, at, PAGE_SIZE, &region), CLEAVE_FROZEN);
    CHECK_STATUS(space_collapse(scene.ctx, snapshot, at, 1), CLEAVE_FROZEN);
    CHECK_STATUS(space_reset(scene.ctx, snapshot, NULL, 0), CLEAVE_FROZEN);
    CHECK_STATUS(host_cpu_run(0, snapshot), CLEAVE_FROZEN);
    struct scene_state after = scene_state();
    SCENE_CHECK_SAME(before, after);
    /* Restored as often as one likes; each goes back to it. */
    for (unsigned i = 0; i < 3; i++) {
        other = scene_fork(snapshot);
        CHECK_EQ(other->base, snapshot);
        check_all(other, 0);
        dirty(other);
        check_all(snapshot, 0);
        REQUIRE_OK(space_reset(scene.ctx, other, NULL, 0));
        check_all(other, 0);
        scene_audit();
    }
    scene_end();
}

/* The name goes first, the base with the last fork of it; or the forks first. */
TEST(bases_go_with_the_last_that_needs_them)
{
    for (unsigned order = 0; order < 3; order++) {
        test_case("order %u", order);
        scene_start(0);
        struct space *space = scene_space();
        scene_memory(space, 0, 2 * BLOCK, 1);
        scene_write(space, 0, 1);
        uint64_t free = scene.pool->free;
        struct space *snapshot = scene_snapshot(space);
        struct space *child[2] = {scene_fork(snapshot), scene_fork(snapshot)};
        scene_write(child[0], 0, 2);
        if (order == 0) {
            scene_destroy(snapshot);
        }
        scene_audit();
        scene_destroy(child[0]);
        if (order == 1) {
            scene_destroy(snapshot);
        }
        scene_write(child[1], 1, 3);
        REQUIRE_OK(space_reset(scene.ctx, child[1], NULL, 0));
        scene_check(child[1], 0, 1);
        scene_check(child[1], 1, 0);
        scene_audit();
        scene_destroy(child[1]);
        if (order == 2) {
            scene_destroy(snapshot);
        }
        scene_audit();
        CHECK_EQ(scene.pool->free, free);
        scene_write(space, 0, 4);
        scene_end();
    }
}

/* n forks made with a base share one; a fork of such a fork has none unless asked for. */
TEST(one_base_for_all_forks_of_a_call)
{
    struct space *child[3], *plain, *again;
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, BLOCK, 1);
    scene_write(space, 0, 1);
    REQUIRE_OK(space_fork(scene.ctx, space, 3, &based, child));
    CHECK(child[0]->base != NULL && child[0]->base == child[1]->base &&
          child[1]->base == child[2]->base);
    CHECK_EQ(child[0]->base->holders, 3);
    scene_write(child[0], 0, 2);
    plain = scene_fork(child[0]);
    CHECK(plain->base == NULL);
    struct scene_state before = scene_state();
    CHECK_STATUS(space_reset(scene.ctx, plain, NULL, 0), CLEAVE_NO_BASE);
    CHECK_EQ(strcmp(scene.ctx->error.argument, "space"), 0);
    CHECK_STATUS(space_reset(scene.ctx, space, NULL, 0), CLEAVE_NO_BASE);
    struct scene_state after = scene_state();
    SCENE_CHECK_SAME(before, after);
    again = fork_with_base(child[0]);
    scene_write(again, 0, 3);
    REQUIRE_OK(space_reset(scene.ctx, again, NULL, 0));
    scene_check(again, 0, 2);
    REQUIRE_OK(space_reset(scene.ctx, child[0], NULL, 0));
    scene_check(child[0], 0, 1);
    scene_check(plain, 0, 2);
    scene_audit();
    scene_end();
}

TEST(reset_refuses_bad_arguments)
{
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, BLOCK, 1);
    struct space *child = fork_with_base(space);
    scene_write(child, 0, 1);
    uint32_t id;
    struct scene_state before = scene_state();
    struct gfn_range keep[RESET_KEEP_MAX + 1];
    for (unsigned i = 0; i <= RESET_KEEP_MAX; i++) {
        keep[i] = (struct gfn_range){gfn(0), gfn(1)};
    }
    CHECK_STATUS(space_reset(scene.ctx, child, keep, RESET_KEEP_MAX + 1), CLEAVE_COUNT);
    CHECK_STATUS(space_reset(scene.ctx, child, keep, UINT32_MAX), CLEAVE_COUNT);
    keep[1] = (struct gfn_range){gfn(1), gfn(1)};
    CHECK_STATUS(space_reset(scene.ctx, child, keep, 2), CLEAVE_COUNT);
    keep[1] = (struct gfn_range){gfn(2), gfn(1)};
    CHECK_STATUS(space_reset(scene.ctx, child, keep, 2), CLEAVE_COUNT);
    keep[1] = (struct gfn_range){gfn(0), gfn(GUEST_PAGES + 1)};
    CHECK_STATUS(space_reset(scene.ctx, child, keep, 2), CLEAVE_RANGE);
    CHECK_EQ(strcmp(scene.ctx->error.argument, "keep"), 0);
    struct scene_state after = scene_state();
    SCENE_CHECK_SAME(before, after);
    REQUIRE_OK(space_pin(scene.ctx, child, gpa(0), PAGE_SIZE, true, &id));
    CHECK_STATUS(space_reset(scene.ctx, child, NULL, 0), CLEAVE_BUSY);
    CHECK_EQ(scene.ctx->error.value, id);
    scene_check(child, 0, 1);
    REQUIRE_OK(space_unpin(scene.ctx, child, id));
    REQUIRE_OK(space_reset(scene.ctx, child, NULL, 0));
    scene_check(child, 0, 0);
    scene_end();
}

static bool take_first(void *arg, pfn_t node, unsigned level)
{
    pfn_t *first = arg;
    *first = first->v == 0 ? node : *first;
    (void)level;
    return false;
}

/* The base's regions can have no more holders: nothing is changed, and no operation is left that
 * others would have to wait for. */
TEST(reset_that_fails_leaves_no_operation)
{
    pfn_t node = PFN_NONE;
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, BLOCK, 1);
    struct space *child = fork_with_base(space);
    scene_write(child, 0, 1);
    REQUIRE_OK(space_protect(scene.ctx, child, PAGE(1), PAGE_SIZE, RIGHT_READ));
    region_walk(child->base->regions, take_first, &node);
    REQUIRE(node.v != 0 && child->regions != child->base->regions);
    struct scene_state before = scene_state();
    uint32_t count = frame_of(node, 0)->count;
    frame_of(node, 0)->count = UINT32_MAX;
    CHECK_STATUS(space_reset(scene.ctx, child, NULL, 0), CLEAVE_OVERFLOW);
    frame_of(node, 0)->count = count;
    CHECK_EQ(child->op, OP_NONE);
    struct scene_state after = scene_state();
    SCENE_CHECK_SAME_VIEW(before, after);
    CHECK_OK(space_protect(scene.ctx, child, PAGE(2), PAGE_SIZE, RIGHT_READ));
    scene_destroy(scene_fork(child));
    CHECK_OK(space_reset(scene.ctx, child, NULL, 0));
    check_no_difference(child, true);
    scene_end();
}
