/* SPDX-License-Identifier: BSD-2-Clause */
/* The catalogue of operations for tests that hold whatever the operation is. */
#include "rows_ops.h"

#include <stdlib.h>
#include <string.h>

struct rows rows;

const struct shape_row rows_shapes[6] = {
    {"2m", SHAPE_2M}, {"partly", SHAPE_PARTLY},     {"4k", SHAPE_4K}, {"split-2m", SHAPE_SPLIT_2M},
    {"1g", SHAPE_1G}, {"split-1g", SHAPE_SPLIT_1G},
};

unsigned rows_quick_shapes(void) { return TABLE_ENTRIES > 4 ? 2 : 6; }

#define AT (scene.base + 1)  /* where a part begins */
#define PART 2u              /* pages of it */
#define ELSEWHERE (4 * GIGA) /* nothing is there */

static const struct fork_options plain = {.limit = UINT64_MAX};
static const struct region private_region = {
    .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};

/* --- Operations ------------------------------------------------------------------------------- */

#define STEP(name_, call_)                                                                         \
    static enum cleave_status step_##name_(struct mm_ctx *ctx, void *arg)                          \
    {                                                                                              \
        (void)arg;                                                                                 \
        return call_;                                                                              \
    }

STEP(unmap_part, space_unmap(ctx, scene.space, PAGE(AT), BYTES(PART)))
STEP(unmap_all, space_unmap(ctx, scene.space, PAGE(scene.base), BYTES(scene.pages)))
STEP(unmap_of_fork, space_unmap(ctx, rows.child, PAGE(AT), BYTES(BLOCK)))
STEP(protect_write, space_protect(ctx, scene.space, PAGE(AT), BYTES(PART), RIGHT_READ | RIGHT_EXEC))
STEP(protect_exec,
     space_protect(ctx, scene.space, PAGE(AT), BYTES(BLOCK), RIGHT_READ | RIGHT_WRITE))
STEP(protect_all, space_protect(ctx, scene.space, PAGE(scene.base), BYTES(scene.pages), RIGHT_READ))
STEP(unprotect, space_protect(ctx, scene.space, PAGE(AT), BYTES(BLOCK), RIGHT_ALL))
STEP(hide, space_protect(ctx, scene.space, PAGE(AT), BYTES(PART), 0))
STEP(hide_all, space_protect(ctx, scene.space, PAGE(scene.base), BYTES(scene.pages), 0))
STEP(look_again, space_fault(ctx, scene.space, PAGE(AT), ACCESS_READ, NULL))
STEP(populate, space_populate(ctx, scene.space, PAGE(ELSEWHERE), BYTES(BLOCK + 1)))
STEP(map, space_map(ctx, scene.space, PAGE(ELSEWHERE), 1, &private_region))
STEP(unshare, space_set_region(ctx, scene.space, PAGE(ELSEWHERE), BYTES(3), &private_region))
STEP(fork, space_fork(ctx, scene.space, 2, &plain, rows.made))
STEP(fork_of_fork, space_fork(ctx, rows.child, 2, &plain, rows.made))
STEP(snapshot, space_snapshot(ctx, scene.space, UINT64_MAX, &rows.made[0]))
STEP(reset, space_reset(ctx, rows.child, NULL, 0))
STEP(move_part, space_move(ctx, scene.space, PAGE(AT), PAGE(ELSEWHERE), BYTES(PART), &rows.value))
STEP(move_block,
     space_move(ctx, scene.space, PAGE(scene.base), PAGE(ELSEWHERE), BYTES(BLOCK), &rows.value))
STEP(collapse, space_collapse(ctx, rows.child, PAGE(scene.base), 1))
STEP(pin, space_pin(ctx, rows.child, PAGE(AT), BYTES(PART), true, &rows.pin))
STEP(foreign, foreign_map(ctx, rows.child, PAGE(AT), rows.mapper, PAGE(0)))
STEP(arm, channel_arm(ctx, rows.channel, scene.space, PAGE(AT), BYTES(PART)))
STEP(rearm, channel_rearm(ctx, rows.channel, scene.space, PAGE(AT), BYTES(PART)))
STEP(disarm, channel_disarm(ctx, rows.channel, scene.space, PAGE(AT), BYTES(PART)))
STEP(destroy_parent, space_destroy(ctx, scene.space))
STEP(destroy_fork, space_destroy(ctx, rows.child))

static enum cleave_status step_wipe(struct mm_ctx *ctx, void *arg)
{
    const struct region wipe = {.policy = REGION_WIPE, .rights = RIGHT_READ};
    (void)arg;
    return space_set_region(ctx, scene.space, PAGE(AT), BYTES(PART), &wipe);
}

static enum cleave_status step_share(struct mm_ctx *ctx, void *arg)
{
    const struct region shared = {.policy = REGION_SHARED, .rights = RIGHT_ALL, .order = 1};
    (void)arg;
    return space_set_region(ctx, scene.space, PAGE(ELSEWHERE), BYTES(BLOCK + 1), &shared);
}

static enum cleave_status step_reset_keep(struct mm_ctx *ctx, void *arg)
{
    const struct gfn_range keep = {gfn(AT), gfn(AT + PART)};
    (void)arg;
    return space_reset(ctx, rows.child, &keep, 1);
}

static enum cleave_status step_write(struct mm_ctx *ctx, void *arg)
{
    uint64_t done, value = 99;
    (void)arg;
    return space_write(ctx, rows.child, PAGE(AT + BLOCK), &value, sizeof(value), NULL, &done);
}

/* --- What some need before -------------------------------------------------------------------- */

static void prepare_hole(void)
{
    scene_region(scene.space, ELSEWHERE, BLOCK + 1, REGION_PRIVATE, RIGHT_ALL, 1);
}

static void prepare_shared(void)
{
    scene_region(scene.space, ELSEWHERE, 3, REGION_SHARED, RIGHT_ALL, 0);
    rows.made[0] = scene_fork(scene.space);
}

static void prepare_collapse(void)
{
    for (uint64_t i = 0; i<BLOCK; i += BLOCK> 4 ? 7 : 1) {
        scene_write(rows.child, scene.base + i, 50 + i);
    }
}

static void prepare_protected(void)
{
    REQUIRE_OK(space_protect(scene.ctx, scene.space, PAGE(AT), BYTES(BLOCK), RIGHT_READ));
}

/* What may be read again and nobody has looked at; a fork of it may, and its parent may not. */
static void prepare_hidden(void)
{
    REQUIRE_OK(step_hide_all(scene.ctx, NULL));
    rows.made[0] = scene_fork(scene.space);
    REQUIRE_OK(space_protect(scene.ctx, scene.space, PAGE(AT), BYTES(BLOCK), RIGHT_ALL));
}

static void prepare_mapper(void) { rows.mapper = scene_space(); }

static void prepare_channel(void)
{
    const struct channel_options options = {.asynchronous = true};
    REQUIRE_OK(channel_create(scene.ctx, scene.pool, &options, &rows.channel));
}

static void prepare_armed(void)
{
    struct event event;
    prepare_channel();
    REQUIRE_OK(step_arm(scene.ctx, NULL));
    scene_write(scene.space, AT, 77);
    (void)channel_next(scene.ctx, rows.channel, &event);
}

const struct row_op row_ops[ROW_OPS] = {
    {"unmap-part", NULL, step_unmap_part},
    {"unmap-all", NULL, step_unmap_all},
    {"unmap-of-fork", NULL, step_unmap_of_fork},
    {"protect-write", NULL, step_protect_write},
    {"protect-exec", NULL, step_protect_exec},
    {"protect-all", NULL, step_protect_all},
    {"unprotect", prepare_protected, step_unprotect},
    {"hide", NULL, step_hide},
    {"hide-all", NULL, step_hide_all},
    {"look-again", prepare_hidden, step_look_again},
    {"populate", prepare_hole, step_populate},
    {"map", NULL, step_map},
    {"wipe", NULL, step_wipe},
    {"share", NULL, step_share},
    {"unshare", prepare_shared, step_unshare},
    {"fork", NULL, step_fork},
    {"fork-of-fork", NULL, step_fork_of_fork},
    {"snapshot", NULL, step_snapshot},
    {"reset", NULL, step_reset},
    {"reset-keep", NULL, step_reset_keep},
    {"move-part", NULL, step_move_part},
    {"move-block", NULL, step_move_block},
    {"collapse", prepare_collapse, step_collapse},
    {"pin", NULL, step_pin},
    {"foreign-map", prepare_mapper, step_foreign},
    {"arm", prepare_channel, step_arm},
    {"rearm", prepare_armed, step_rearm},
    {"disarm", prepare_armed, step_disarm},
    {"destroy-parent", NULL, step_destroy_parent},
    {"destroy-fork", NULL, step_destroy_fork},
    {"write", NULL, step_write},
};

/* --- The scene -------------------------------------------------------------------------------- */

void rows_touch(void)
{
    uint64_t sample[SCENE_SAMPLES];
    unsigned n = scene_samples(sample);

    for (unsigned i = 0; i < n + 3; i++) {
        uint64_t page = i < n ? sample[i] : scene.base + 1 + (i - n);
        enum cleave_status status = host_cpu_read(1, PAGE(page), NULL, 8);
        REQUIRE(status == CLEAVE_OK || status == CLEAVE_FAULT || status == CLEAVE_DYING);
        status = host_cpu_read(2, PAGE(page), NULL, 8);
        REQUIRE(status == CLEAVE_OK || status == CLEAVE_FAULT || status == CLEAVE_DYING);
    }
}

void rows_start(enum shape shape, const struct row_op *op)
{
    const struct fork_options based = {.limit = UINT64_MAX, .base = true};

    memset(&rows, 0, sizeof(rows));
    scene_shape(shape);
    REQUIRE_OK(space_fork(scene.ctx, scene.space, 1, &based, &rows.child));
    for (unsigned i = 1; i < machine.cpus; i++) {
        host_cpu_stop(i);
    }
    REQUIRE_OK(host_cpu_run(1, scene.space));
    REQUIRE_OK(host_cpu_run(2, rows.child));
    scene_write(rows.child, scene.base + 1, 31);
    scene_write(scene.space, scene.base, 32);
    rows_touch();
    if (op != NULL && op->prepare != NULL) {
        op->prepare();
    }
}

enum cleave_status rows_run(const struct row_op *op, uint64_t budget)
{
    enum cleave_status status;
    do {
        scene.ctx->budget = budget;
        status = op->step(scene.ctx, NULL);
    } while (status == CLEAVE_AGAIN);
    scene.ctx->budget = UINT64_MAX;
    return status;
}

bool rows_done(const struct row_op *op, enum cleave_status status)
{
    bool favour = op->step == step_collapse;
    return status == CLEAVE_OK || (favour && (status == CLEAVE_NO_MEMORY || status == CLEAVE_BUSY));
}

void rows_write_after(void)
{
    for (unsigned cpu = 1; cpu < 3; cpu++) {
        for (uint64_t i = 0; i < 2; i++) {
            uint64_t value = 60 + i;
            enum cleave_status status =
                host_cpu_write(cpu, PAGE(scene.base + 1 + i * BLOCK), &value, sizeof(value));
            REQUIRE(status == CLEAVE_OK || status == CLEAVE_FAULT || status == CLEAVE_DYING);
        }
    }
}

void rows_end(void)
{
    if (rows.pin != 0) {
        REQUIRE_OK(space_unpin(scene.ctx, rows.child, rows.pin));
    }
    if (rows.channel != NULL) {
        channel_destroy(scene.ctx, rows.channel);
    }
    scene_end();
}

/* --- Counting by hand ------------------------------------------------------------------------- */

static void each_below(pfn_t table, unsigned char *seen, rows_entry_t *visit, void *arg)
{
    unsigned level = table_level(table);
    if (seen[table.v]) {
        return;
    }
    seen[table.v] = 1;
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        pte_t e = pte_read(&table_slots(table)[i]);
        if (e != 0) {
            visit(arg, table, level, e);
        }
        if (pte_holds_table(e, level)) {
            each_below(pte_pfn(e), seen, visit, arg);
        }
    }
}

void rows_each_entry(rows_entry_t *visit, void *arg)
{
    unsigned char *seen = calloc(1, machine.frames);
    REQUIRE(seen != NULL);
    for (struct space *s = scene.pool->spaces; s != NULL; s = s->next) {
        if (s->state == SPACE_ALIVE || s->state == SPACE_FROZEN) {
            each_below(s->root, seen, visit, arg);
        }
    }
    free(seen);
}
