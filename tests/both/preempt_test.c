/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Operations that stop and continue: with the smallest budget they end where they end in one go, at
 * each stop all invariants hold and others may work, and a call's work is bounded whatever the
 * size.
 */
#include <string.h>

#include "scene.h"

static const struct shape_row shapes[] = SHAPE_ROWS;

static const struct fork_options based = {.limit = UINT64_MAX, .base = true};

/* --- The same in one go and step by step ------------------------------------------------------ */

/* What happens, at the given point of its life, to a fork that has written a good deal. */
struct task {
    enum cleave_status (*run)(struct mm_ctx *ctx, void *arg);
    struct space *space;
    bool between; /* at each stop, other spaces go on */
    struct space *bystander;
    unsigned steps;
};

static enum cleave_status run_destroy(struct mm_ctx *ctx, void *arg)
{
    return space_destroy(ctx, ((struct task *)arg)->space);
}
static enum cleave_status run_reset(struct mm_ctx *ctx, void *arg)
{
    return space_reset(ctx, ((struct task *)arg)->space, NULL, 0);
}
static enum cleave_status run_reset_keep(struct mm_ctx *ctx, void *arg)
{
    const struct gfn_range keep[2] = {{gfn(scene.base), gfn(scene.base + 2)},
                                      {gfn(scene.base + BLOCK), gfn(scene.base + 2 * BLOCK)}};
    return space_reset(ctx, ((struct task *)arg)->space, keep, 2);
}
static enum cleave_status run_unmap(struct mm_ctx *ctx, void *arg)
{
    return space_unmap(ctx, ((struct task *)arg)->space, PAGE(scene.base), BYTES(scene.pages));
}
static enum cleave_status run_collapse(struct mm_ctx *ctx, void *arg)
{
    return space_collapse(ctx, ((struct task *)arg)->space, PAGE(scene.base), 1);
}
static enum cleave_status run_populate(struct mm_ctx *ctx, void *arg)
{
    return space_populate(ctx, ((struct task *)arg)->space, PAGE(scene.base + GIGA),
                          BYTES(2 * BLOCK));
}

static enum cleave_status step(struct mm_ctx *ctx, void *arg)
{
    struct task *task = arg;
    enum cleave_status status = task->run(ctx, task);
    uint64_t budget = ctx->budget;

    ctx->budget = UINT64_MAX;
    if (status == CLEAVE_AGAIN && task->steps++ < 300) {
        scene_audit(); /* T-T6: nothing is half done */
        scene_write(task->bystander, scene.base + task->steps % 2, 100 + task->steps);
        scene_check(scene.space, scene.base, SCENE_TAG(scene.base));
    }
    ctx->budget = budget;
    return status;
}

static const struct operation {
    const char *label;
    enum cleave_status (*run)(struct mm_ctx *ctx, void *arg);
} operations[] = {
    {"destroy", run_destroy}, {"reset", run_reset},       {"reset-keep", run_reset_keep},
    {"unmap", run_unmap},     {"collapse", run_collapse}, {"populate", run_populate},
};

/* Runs it with a budget of `every`; the view of it all, and the status, afterwards. */
static struct scene_state run(enum shape shape, const struct operation *operation, uint64_t every,
                              enum cleave_status *status, unsigned *steps)
{
    struct task task = {.run = operation->run};
    uint64_t sample[SCENE_SAMPLES];

    scene_shape(shape);
    unsigned n = scene_samples(sample);
    REQUIRE_OK(space_fork(scene.ctx, scene.space, 1, &based, &task.space));
    task.space->collapse_at = 0;
    scene_region(task.space, scene.base + GIGA, 2 * BLOCK, REGION_PRIVATE, RIGHT_ALL, 1);
    task.bystander = scene_fork(scene.space);
    for (unsigned i = 0; i < n; i++) {
        scene_write(task.space, sample[i], 50 + i);
    }
    for (uint64_t i = 0; i < BLOCK; i += 2) {
        scene_write(task.space, scene.base + BLOCK + i, 90 + i);
    }
    host_run_preempted(scene.ctx, step, &task, every, status);
    scene_audit();
    *steps = task.steps;
    scene_write(task.bystander, scene.base, 1);
    scene_write(task.bystander, scene.base + 1, 1);
    REQUIRE(table_reap(scene.ctx, scene.pool));
    struct scene_state state = scene_state();
    scene_end();
    return state;
}

TEST_TABLE(stopped_at_every_point_is_the_same_as_in_one_go, operations)
{
    static const uint64_t budgets[] = {1, 2, 7, 64, TABLE_ENTRIES};
    unsigned stopped = 0, none;
    for (unsigned s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        enum cleave_status expected, status;
        struct scene_state whole = run(shapes[s].shape, row, UINT64_MAX, &expected, &none);
        CHECK_EQ(none, 0);
        for (unsigned b = 0; b < sizeof(budgets) / sizeof(budgets[0]); b++) {
            unsigned steps;
            test_case("%s, budget %d", shapes[s].label, (int)budgets[b]);
            struct scene_state state = run(shapes[s].shape, row, budgets[b], &status, &steps);
            CHECK_STATUS(status, expected);
            SCENE_CHECK_SAME_VIEW(whole, state);
            CHECK_EQ(whole.free, state.free);
            stopped += steps;
        }
    }
    CHECK(stopped > 0 || BLOCK <= 4); /* else this says nothing; tiny blocks are one step */
}

/* A reset that is stopped leaves the space unusable for all but itself and destroy. */
TEST(a_stopped_reset_must_be_finished)
{
    struct space *child = NULL, *other = NULL;
    scene_shape(SHAPE_4K);
    REQUIRE_OK(space_fork(scene.ctx, scene.space, 1, &based, &child));
    scene_write(child, scene.base, 1);
    scene_write(child, scene.base + BLOCK, 2);
    scene.ctx->budget = 0;
    enum cleave_status status = space_reset(scene.ctx, child, NULL, 0);
    scene.ctx->budget = UINT64_MAX;
    if (status == CLEAVE_AGAIN) {
        CHECK_STATUS(space_unmap(scene.ctx, child, PAGE(scene.base), PAGE_SIZE), CLEAVE_BUSY);
        CHECK_STATUS(space_fork(scene.ctx, child, 1, &based, &other), CLEAVE_BUSY);
        scene_audit();
        status = space_reset(scene.ctx, child, NULL, 0);
    }
    CHECK_OK(status);
    scene_check(child, scene.base, SCENE_TAG(scene.base));
    scene_end();
}

/* --- T-X9 ------------------------------------------------------------------------------------- */

/* 1 TiB in 2 MiB leaves, on the real geometry: 524,288 of them under 1,024 tables. The leaves are
 * put there by hand, since zeroing them is not what this is about. */
static void fill_by_hand(struct space *space, uint64_t first, uint64_t gigas)
{
    for (uint64_t g = 0; g < gigas; g++) {
        struct flush_batch batch;
        struct walk walk;
        flush_begin(&batch, space);
        REQUIRE_OK(walk_exclusive(scene.ctx, space, &space->payer, gfn(first + g * GIGA), 1,
                                  WALK_MAKE | WALK_WRITE, &batch, &walk));
        for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
            pfn_t f;
            REQUIRE_OK(pool_alloc(scene.ctx, &space->payer, 1, FRAME_DATA, &f));
            walk.slot[i] = pte_make_leaf(f, 1, RIGHT_READ | RIGHT_WRITE, 0);
        }
        walk_end(scene.ctx, &walk);
        flush_finish(scene.ctx, &batch);
    }
    scene_region(space, first, gigas * GIGA, REGION_PRIVATE, RIGHT_ALL, 1);
}

static uint64_t work; /* entries changed and things dropped or freed */
#ifdef MM_HOOKS
static void count_work(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b, void *arg)
{
    (void)ctx, (void)a, (void)arg;
    work += point == POINT_ENTRY || point == POINT_DROP || point == POINT_FREE
                ? 1 + (b >> 8 != 0 && b >> 8 <= TABLE_ENTRIES && point != POINT_ENTRY ? b >> 8 : 0)
                : 0;
}
#endif

static uint64_t most_work(host_step_t *run_step, struct task *task, uint64_t every)
{
    enum cleave_status status;
    uint64_t most = 0;
#ifdef MM_HOOKS
    host_on_point(count_work, NULL);
#endif
    do {
        work = 0;
        scene.ctx->budget = every;
        status = run_step(scene.ctx, task);
        most = work > most ? work : most;
    } while (status == CLEAVE_AGAIN);
    host_on_point(NULL, NULL);
    scene.ctx->budget = UINT64_MAX;
    CHECK_OK(status);
    return most;
}

static enum cleave_status run_unmap_all(struct mm_ctx *ctx, void *arg)
{
    return space_unmap(ctx, ((struct task *)arg)->space, PAGE(0), BYTES(GUEST_PAGES));
}

TEST_TIMED(x9_a_call_on_a_terabyte_is_bounded, 120)
{
    TEST_NEEDS_HOOKS();
    const uint64_t gigas = TABLE_ENTRIES > 4 ? 1024 : 8;
    const uint64_t every = 4 * TABLE_ENTRIES;
    /* A call spends its budget, and at most the largest step beside it: one root and one table. */
    const uint64_t bound = 4 * (every + 2 * TABLE_ENTRIES);

    host_step_t *const runs[] = {run_destroy, run_unmap_all, run_reset};
    for (unsigned i = 0; i < 3; i++) {
        test_case("operation %u", i);
        scene_start((gigas + (TABLE_ENTRIES > 4 ? 2 : 8)) * TABLE_ENTRIES);
        struct task task = {.space = scene_space()};
        struct space *space = task.space;
        fill_by_hand(space, 0, gigas);
        if (i == 2) {
            /* A fork that has copied every table. */
            REQUIRE_OK(space_fork(scene.ctx, space, 1, &based, &task.space));
            for (uint64_t g = 0; g < gigas; g++) {
                REQUIRE_OK(space_protect(scene.ctx, task.space, PAGE(g * GIGA + BLOCK),
                                         BYTES(BLOCK), RIGHT_READ | RIGHT_WRITE));
            }
        }
        host_log_clear();
        uint64_t most = most_work(runs[i], &task, every);
        CHECK(most > 0);
        CHECK_LE(most, bound);
        if (i < 2) {
            CHECK(scene.pool->frames - scene.pool->free <= 16);
        }
    }
}
