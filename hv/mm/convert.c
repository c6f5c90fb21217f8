/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shared memory made private in bounded steps, under the writers' side of the space's lock:
 *
 *   PHASE_SETTLE    up to op_at the tables are the space's own, and leaves that others map are of
 *                   4 KiB; these are counted, and at the end as many frames reserved
 *   PHASE_CONVERT   up to op_at the leaves are private: they were the space's own, or are copied
 *
 * While it is stopped nobody forks, pins, maps or collapses pages of the space. So what is settled
 * stays so, a leaf that was the space's own stays its own, and the second phase cannot fail.
 */
#include "convert.h"

#include "table.h"

/* Is the walk's leaf the space's own? Exact, where frame_is_exclusive() may be wrong with "shared":
 * a copy that was not counted has no frame. For a large leaf, after it was settled. */
static bool is_own(struct mm_ctx *ctx, const struct walk *walk)
{
    return frame_references(ctx, pte_pfn(walk->entry), walk->level) == 1;
}

/* --- Settling --------------------------------------------------------------------------------- */

/* Settles the leaf at op_at, and counts it in `state` if it is to be copied; or splits it. */
static enum cleave_status settle_leaf(struct mm_ctx *ctx, struct region_change *change)
{
    struct space *space = change->space;
    /* Not from the space's reservation, which is for its own writes. */
    struct payer payer = {.pool = space->payer.pool, .account = space->payer.account};
    struct flush_batch batch;
    struct walk walk;

    flush_begin(&batch, space);
    enum cleave_status status =
        walk_exclusive(ctx, space, &payer, space->op_at, 0, 0, &batch, &walk);
    if (status == CLEAVE_OK) {
        MM_CHECK(pte_holds_leaf(walk.entry, walk.level) && (walk.entry & PTE_SHARED));
        bool own = walk.level > 0 ? frame_is_exclusive(ctx, pte_pfn(walk.entry), walk.level, 0)
                                  : is_own(ctx, &walk);
        if (!own && walk.level > 0) {
            status = table_split_leaf(ctx, &payer, &walk, &batch);
        } else {
            change->state += !own;
            space->op_at.v += level_pages(walk.level);
        }
        walk_end(ctx, &walk);
    }
    flush_finish(ctx, &batch);
    return status;
}

static enum cleave_status settle_on(struct mm_ctx *ctx, struct region_change *change)
{
    struct space *space = change->space;
    enum cleave_status status = CLEAVE_OK;

    while (status == CLEAVE_OK && space->op_at.v < change->range.end.v) {
        status = mm_spend(ctx, 1) ? settle_leaf(ctx, change) : CLEAVE_AGAIN;
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    status = pool_reserve(ctx, &space->op_payer, change->state);
    if (status == CLEAVE_RESERVE) {
        status = mm_fail(ctx, CLEAVE_NO_MEMORY, "pages", change->state, 0, ctx->error.high);
    }
    if (status == CLEAVE_OK) {
        space->op_at = change->range.start;
        space->op_phase = PHASE_CONVERT;
    }
    return status;
}

/* --- Converting ------------------------------------------------------------------------------- */

/* What one step converts: a large leaf, or what is left of a level-0 table. */
static struct gfn_range next_part(struct mm_ctx *ctx, const struct region_change *change)
{
    struct space *space = change->space;
    gfn_t at = space->op_at;
    struct walk walk;

    walk_find(ctx, space, at, 0, &walk);
    walk_end(ctx, &walk);
    unsigned level = walk.level > 0 ? walk.level : 1;
    gfn_t end = gfn(level_align(at, level).v + level_pages(level));
    return (struct gfn_range){at, end.v < change->range.end.v ? end : change->range.end};
}

/* Makes the leaf at op_at, which no vcpu of the space can write, private. */
static void convert_leaf(struct mm_ctx *ctx, struct space *space, struct flush_batch *batch)
{
    struct walk walk;
    enum cleave_status status =
        walk_exclusive(ctx, space, &space->op_payer, space->op_at, 0, 0, batch, &walk);
    MM_CHECK(status == CLEAVE_OK && pte_holds_leaf(walk.entry, walk.level));
    pfn_t from = pte_pfn(walk.entry), to = from;

    if (!is_own(ctx, &walk)) {
        MM_CHECK(walk.level == 0);
        status = pool_alloc(ctx, &space->op_payer, 0, FRAME_DATA, &to);
        MM_CHECK(status == CLEAVE_OK);
        port_copy_pages(frame_address(to), frame_address(from), 1);
        frame_set_rmap(to, 0, walk.table, level_slot(space->op_at, 0));
        flush_drop_frames(batch, from, 0, 1);
        space->stats.pages_copied++;
    }
    pte_t old = walk.entry;
    while (
        !pte_replace(ctx, walk.slot, old, pte_without_write(pte_with_pfn(old, to) & ~PTE_SHARED))) {
        old = pte_read(walk.slot);
    }
    flush_need(batch);
    space->op_at.v += level_pages(walk.level);
    walk_end(ctx, &walk);
}

static enum cleave_status convert_on(struct mm_ctx *ctx, struct region_change *change)
{
    struct space *space = change->space;
    struct flush_batch batch;

    flush_begin(&batch, space);
    while (space->op_at.v < change->range.end.v) {
        struct gfn_range part = next_part(ctx, change);
        if (!mm_spend(ctx, part.end.v - part.start.v)) {
            return CLEAVE_AGAIN;
        }
        space_strip(ctx, space, part, RIGHT_WRITE, &batch); /* nobody writes what is being copied */
        flush_finish(ctx, &batch);
        while (space->op_at.v < part.end.v) {
            if (flush_room(&batch) == 0) {
                flush_finish(ctx, &batch);
            }
            convert_leaf(ctx, space, &batch);
        }
        flush_finish(ctx, &batch);
    }
    pool_unreserve(ctx, &space->op_payer);
    return CLEAVE_OK;
}

enum cleave_status convert_shared(struct mm_ctx *ctx, struct region_change *change)
{
    enum cleave_status status = CLEAVE_OK;
    if (change->space->op_phase == PHASE_SETTLE) {
        status = settle_on(ctx, change);
    }
    return status == CLEAVE_OK ? convert_on(ctx, change) : status;
}
