/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Changes regions in bounded steps. Progress is in the space: `op_at`, and while the new tree is
 * being built, that tree. Under the writers' side of the space's lock.
 */
#include "change.h"

#include "map.h"
#include "notify.h"
#include "table.h"

/* Words that a step looks at or changes, more or less. */
#define STEP_WORDS TABLE_ENTRIES

/* --- Checking --------------------------------------------------------------------------------- */

/* Checks some words from `*at` on. */
static enum cleave_status check_words(struct mm_ctx *ctx, struct region_change *change, gfn_t *at,
                                      uint64_t words)
{
    enum cleave_status status = CLEAVE_OK;
    struct gfn_range extent;

    for (; status == CLEAVE_OK && words > 0 && at->v < change->range.end.v; words--) {
        struct region region = region_get_extent(change->space->regions, *at, &extent);
        struct gfn_range part = {*at, extent.end};
        part.end = part.end.v < change->range.end.v ? part.end : change->range.end;
        status = change->check(ctx, change, &region, part);
        *at = part.end;
    }
    return status;
}

static enum cleave_status check_on(struct mm_ctx *ctx, struct region_change *change)
{
    struct space *space = change->space;
    enum cleave_status status = CLEAVE_OK;

    while (status == CLEAVE_OK && space->op_at.v < change->range.end.v) {
        if (!mm_spend(ctx, STEP_WORDS)) {
            return CLEAVE_AGAIN;
        }
        status = check_words(ctx, change, &space->op_at, STEP_WORDS);
    }
    if (status == CLEAVE_OK) {
        status = change->checked(ctx, change);
    }
    if (status == CLEAVE_OK) {
        status = region_share(ctx, space->regions);
    }
    if (status == CLEAVE_OK) {
        space->op_regions = space->regions;
        space->op_at = change->range.start;
        space->op_phase = PHASE_BUILD;
        change->state = 0;
    }
    return status;
}

/* --- Building --------------------------------------------------------------------------------- */

/* The part of the range from op_at on that has some STEP_WORDS words. */
static struct gfn_range next_part(const struct region_change *change)
{
    gfn_t start = change->space->op_at;
    struct gfn_range extent = {start, start};

    for (uint64_t words = 0; extent.end.v < change->range.end.v; words++) {
        if (words >= STEP_WORDS && extent.end.v % level_pages(1) == 0) {
            break;
        }
        (void)region_get_extent(change->space->op_regions, extent.end, &extent);
    }
    return (struct gfn_range){start,
                              extent.end.v < change->range.end.v ? extent.end : change->range.end};
}

static uint64_t count_in(const struct region_change *change, region_word_t tree,
                         struct gfn_range part)
{
    return change->count != NULL ? change->count(change, tree, part) : 0;
}

static enum cleave_status build_on(struct mm_ctx *ctx, struct region_change *change)
{
    struct space *space = change->space;
    /* Not from the space's reservation: the old tree's nodes do not go back there. */
    struct payer payer = {.pool = space->payer.pool, .account = space->payer.account};

    while (space->op_at.v < change->range.end.v) {
        if (!mm_spend(ctx, STEP_WORDS)) {
            return CLEAVE_AGAIN;
        }
        struct gfn_range part = next_part(change);
        uint64_t before = count_in(change, space->op_regions, part);
        enum cleave_status status =
            region_edit(ctx, &payer, &space->op_regions, part, change->edit, change->arg);
        if (status != CLEAVE_OK) {
            return status;
        }
        change->state += before - count_in(change, space->op_regions, part);
        space->op_at = part.end;
    }
    return CLEAVE_OK;
}

/* --- The whole -------------------------------------------------------------------------------- */

static enum cleave_status change_at_once(struct mm_ctx *ctx, struct region_change *change,
                                         struct flush_batch *batch)
{
    struct space *space = change->space;
    gfn_t at = change->range.start;

    enum cleave_status status = check_words(ctx, change, &at, UINT64_MAX);
    if (status == CLEAVE_OK) {
        status = change->checked(ctx, change);
    }
    if (status == CLEAVE_OK && change->cut) {
        status = space_cut_both(ctx, space, change->range, batch);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    uint64_t before = count_in(change, space->regions, change->range);
    status =
        region_edit(ctx, &space->payer, &space->regions, change->range, change->edit, change->arg);
    change->counted = before - count_in(change, space->regions, change->range);
    return status;
}

/* The tree that was built takes the old one's place; or it is given up with `status`. */
static enum cleave_status change_end(struct mm_ctx *ctx, struct region_change *change,
                                     struct flush_batch *batch, enum cleave_status status)
{
    struct space *space = change->space;
    region_word_t gone = space->op_regions;

    change->counted = change->state;
    if (status == CLEAVE_OK) {
        gone = space->regions;
        space->regions = space->op_regions;
    }
    space->op_regions = REGION_WORD_NONE;
    region_defer(ctx, gone);
    channel_resume(ctx, space);
    if (status == CLEAVE_OK) {
        flush_finish(ctx, batch); /* dead tables may hold what the cuts have put aside */
        (void)table_reap(ctx, space->payer.pool); /* the rest whoever reaps next */
        space->op = OP_NONE;
        return CLEAVE_OK;
    }
    return space_undo(ctx, space, status);
}

static enum cleave_status change_in_steps(struct mm_ctx *ctx, struct region_change *change,
                                          struct flush_batch *batch)
{
    struct space *space = change->space;
    enum cleave_status status = CLEAVE_OK;

    if (space->op_phase == PHASE_UNDO) {
        return space_undo_on(ctx, space);
    }
    change->state = space->op_argument[1];
    if (space->op_phase == PHASE_CHECK) {
        status = check_on(ctx, change);
    }
    if (status == CLEAVE_OK && space->op_phase == PHASE_BUILD) {
        status = build_on(ctx, change);
        if (status == CLEAVE_OK && change->cut) {
            status = space_cut_both(ctx, space, change->range, batch);
        }
        if (status == CLEAVE_OK && change->carry != NULL) {
            space->op_phase = PHASE_SETTLE;
            space->op_at = change->range.start;
        }
    }
    if (status == CLEAVE_OK && change->carry != NULL) {
        flush_finish(ctx, batch);
        status = change->carry(ctx, change);
    }
    space->op_argument[1] = change->state;
    return status == CLEAVE_AGAIN ? status : change_end(ctx, change, batch, status);
}

enum cleave_status change_apply(struct mm_ctx *ctx, struct region_change *change,
                                struct flush_batch *batch)
{
    struct space *space = change->space;

    if (space->op == OP_NONE) {
        if (change->carry == NULL &&
            region_count_words(space->regions, change->range, CHANGE_WORDS) <= CHANGE_WORDS) {
            return change_at_once(ctx, change, batch);
        }
        space_op_start(space, change->op, change->range, change->argument);
    }
    enum cleave_status status = change_in_steps(ctx, change, batch);
    if (status == CLEAVE_AGAIN) {
        port_point(ctx, POINT_PREEMPT, space->id, space->op);
    }
    return status;
}
