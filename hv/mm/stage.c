/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fills ranges beside the tables of their space, under the writers' side of its lock. The staged
 * tables are exclusive and out of everyone's reach until they are linked, so that they need neither
 * locks nor flushes.
 */
#include "stage.h"

#include "table.h"

/* --- Filling ---------------------------------------------------------------------------------- */

/* The staged table that holds entries of `level` for `at`, made with those above it. */
static enum cleave_status staged_table(struct mm_ctx *ctx, const struct stage *stage, gfn_t at,
                                       unsigned level, pfn_t *out)
{
    pfn_t table = stage->space->op_root;

    for (unsigned l = ROOT_LEVEL; l > level; l--) {
        pte_t *slot = &table_slots(table)[level_slot(at, l)];
        if (*slot == 0) {
            pfn_t made;
            enum cleave_status status = table_alloc(ctx, &stage->space->payer, l - 1, &made);
            if (status != CLEAVE_OK) {
                return status;
            }
            *slot = pte_with_write(pte_make_table(made));
        }
        table = pte_pfn(*slot);
    }
    *out = table;
    return CLEAVE_OK;
}

/* The device leaf for op_at: none of its frames may be RAM that a pool hands out. */
static enum cleave_status device_leaf(struct mm_ctx *ctx, const struct stage *stage,
                                      unsigned *order, pfn_t *out)
{
    gfn_t at = stage->space->op_at;
    pfn_t f = pfn_add(stage->device, at.v - stage->range.start.v);

    while (f.v % level_pages(*order) != 0) {
        (*order)--;
    }
    uint64_t pages = level_pages(*order);
    if (!mm_spend(ctx, *order == 2 ? TABLE_ENTRIES : 1)) {
        return CLEAVE_AGAIN;
    }
    for (uint64_t i = 0; i < pages && f.v + i < machine.frames; i += level_pages(1)) {
        if (pool_of(pfn_add(f, i)) != NULL) {
            return mm_fail(ctx, CLEAVE_EXISTS, "frame", f.v + i, machine.frames, UINT32_MAX);
        }
    }
    *out = f;
    return CLEAVE_OK;
}

/* A zeroed leaf for op_at, of the largest order up to `*order` that the pool has. */
static enum cleave_status memory_leaf(struct mm_ctx *ctx, const struct stage *stage,
                                      unsigned *order, pfn_t *out)
{
    enum cleave_status status = space_fresh_leaf(ctx, stage->space, *order, out);
    while (pool_lacks(status) && *order > 0) {
        (*order)--;
        status = space_fresh_leaf(ctx, stage->space, *order, out);
    }
    return status;
}

static pte_t mark_of(enum region_policy policy)
{
    return policy == REGION_SHARED ? PTE_SHARED : policy == REGION_DEVICE ? PTE_DEVICE : 0;
}

/* Puts the leaf at op_at and moves on. */
static enum cleave_status stage_leaf(struct mm_ctx *ctx, const struct stage *stage)
{
    struct space *space = stage->space;
    const struct region *region = stage->region;
    bool memory = stage->op != OP_DEVICE;
    unsigned order =
        fitting_order(space->op_at, stage->range, memory ? region->order : LEAF_ORDERS - 1);
    pfn_t f, table;

    enum cleave_status status =
        memory ? memory_leaf(ctx, stage, &order, &f) : device_leaf(ctx, stage, &order, &f);
    if (status != CLEAVE_OK) {
        return status;
    }
    status = staged_table(ctx, stage, space->op_at, order, &table);
    if (status != CLEAVE_OK) {
        if (memory) {
            frame_put(ctx, f, order);
        }
        return status;
    }
    unsigned rights = region_leaf_rights(region, order);
    if (!memory) {
        rights &= ~(unsigned)RIGHT_EXEC;
    }
    unsigned slot = level_slot(space->op_at, order);
    table_slots(table)[slot] = pte_make_leaf(f, order, rights, mark_of(region->policy));
    if (memory) {
        frame_set_rmap(f, order, table, slot);
        space->stats.zeroed += level_pages(order);
    }
    space->op_at.v += level_pages(order);
    return CLEAVE_OK;
}

/* --- Linking ---------------------------------------------------------------------------------- */

/* Takes the staged entry of `level` at `at`, which is there, out. */
static pte_t take_staged(const struct space *space, gfn_t at, unsigned level)
{
    pfn_t table = space->op_root;
    for (unsigned l = ROOT_LEVEL; l > level; l--) {
        table = pte_pfn(table_slots(table)[level_slot(at, l)]);
    }
    pte_t *slot = &table_slots(table)[level_slot(at, level)];
    pte_t e = *slot;
    MM_CHECK(pte_holds_table(e, level) || pte_holds_leaf(e, level));
    *slot = 0;
    return e;
}

/* Moves the entry of `level` at `at` over; an empty table may be left over there. */
static enum cleave_status link_entry(struct mm_ctx *ctx, struct space *space, gfn_t at,
                                     unsigned level, struct flush_batch *batch)
{
    struct walk walk;
    enum cleave_status status =
        walk_exclusive(ctx, space, &space->payer, at, level, WALK_MAKE | WALK_WRITE, batch, &walk);
    if (status != CLEAVE_OK) {
        return status;
    }
    MM_CHECK(walk.level == level && !pte_holds_leaf(walk.entry, level));
    pte_t e = take_staged(space, at, level);
    pte_t old = walk.entry;
    while (!pte_replace(ctx, walk.slot, old, e)) {
        old = pte_read(walk.slot); /* accessed was set */
    }
    if (pte_holds_table(old, level)) {
        flush_drop_table(batch, pte_pfn(old));
    }
    if (pte_holds_leaf(e, level) && pte_counted(e)) {
        frame_set_rmap(pte_pfn(e), level, walk.table, level_slot(at, level));
    }
    walk_end(ctx, &walk);
    return CLEAVE_OK;
}

/* Links the whole range, by its largest entries, and gives it its region. */
static enum cleave_status link_range(struct mm_ctx *ctx, const struct stage *stage)
{
    struct space *space = stage->space;
    enum cleave_status status = CLEAVE_OK;
    struct flush_batch batch;

    flush_begin(&batch, space);
    for (gfn_t at = stage->range.start; status == CLEAVE_OK && at.v < stage->range.end.v;) {
        unsigned level = fitting_order(at, stage->range, ROOT_LEVEL);
        if (flush_room(&batch) < ROOT_LEVEL + 1) {
            flush_finish(ctx, &batch);
        }
        status = link_entry(ctx, space, at, level, &batch);
        at.v += level_pages(level);
    }
    if (status == CLEAVE_OK) {
        status = region_set(ctx, &space->payer, &space->regions, stage->range, stage->region);
    }
    if (status != CLEAVE_OK) {
        space_clear(ctx, space, stage->range, &batch);
    }
    flush_finish(ctx, &batch);
    return status;
}

/* --- Ending ----------------------------------------------------------------------------------- */

static void free_table(struct mm_ctx *ctx, pfn_t table)
{
    bool last = node_put(ctx, table);
    MM_CHECK(last);
    pool_free(ctx, table, 0);
}

/* Frees the tables on the paths to the range's ends, all that is left when it is linked. */
static void free_paths(struct mm_ctx *ctx, pfn_t table)
{
    unsigned level = table_level(table);
    for (unsigned i = 0; level > 0 && i < TABLE_ENTRIES; i++) {
        pte_t e = table_slots(table)[i];
        if (e != 0) {
            free_paths(ctx, pte_pfn(e));
        }
    }
    free_table(ctx, table);
}

void stage_drop(struct mm_ctx *ctx, struct space *space)
{
    if (space->op_root.v == 0) {
        return;
    }
    pte_t *slots = table_slots(space->op_root);
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        if (slots[i] != 0) {
            table_put(ctx, pte_pfn(slots[i]));
        }
    }
    free_table(ctx, space->op_root);
    space->op_root = PFN_NONE;
}

/* Goes on from op_at. */
static enum cleave_status stage_on(struct mm_ctx *ctx, const struct stage *stage)
{
    struct space *space = stage->space;
    enum cleave_status status = CLEAVE_OK;

    while (status == CLEAVE_OK && space->op_at.v < stage->range.end.v) {
        status = stage_leaf(ctx, stage);
    }
    if (status == CLEAVE_OK) {
        status = link_range(ctx, stage);
    }
    if (status == CLEAVE_OK) {
        free_paths(ctx, space->op_root);
        space->op_root = PFN_NONE;
        space->op = OP_NONE;
    } else if (status != CLEAVE_AGAIN) {
        stage_drop(ctx, space);
        status = space_undo(ctx, space, status);
    }
    return status;
}

enum cleave_status stage_run(struct mm_ctx *ctx, const struct stage *stage)
{
    struct space *space = stage->space;
    enum cleave_status status;

    if (space->op == OP_NONE) {
        status = table_alloc(ctx, &space->payer, ROOT_LEVEL, &space->op_root);
        if (status != CLEAVE_OK) {
            return status;
        }
        space_op_start(space, stage->op, stage->range, stage->argument);
        space->op_phase = PHASE_STAGE;
    }
    status = space->op_phase == PHASE_UNDO ? space_undo_on(ctx, space) : stage_on(ctx, stage);
    if (status == CLEAVE_AGAIN) {
        port_point(ctx, POINT_PREEMPT, space->id, space->op);
    }
    return status;
}
