/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paged entries: made over a range, and split when there is no block to load one of 2 MiB into.
 * Under the writers' side of the space's lock.
 */
#include "pager.h"

#include "table.h"
#include "walk.h"

#define OFFSET_PAGES (UINT64_C(1) << 32) /* pages that a store can have */
#define STORES 128u

/* --- Splitting one ---------------------------------------------------------------------------- */

enum cleave_status paged_split(struct mm_ctx *ctx, struct space *space, struct payer *payer,
                               gfn_t at, pte_t paged)
{
    struct flush_batch batch;
    struct walk walk;
    pfn_t table;

    struct payer *back = payer_reserves(payer);
    enum cleave_status status = table_alloc(ctx, payer, 0, &table);
    if (status != CLEAVE_OK) {
        return status;
    }
    pte_t *parts = table_slots(table);
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        parts[i] = paged_part(paged, i);
    }
    flush_begin(&batch, space);
    /* The tables of a base are read under the readers' side, with no lock of theirs, by who goes
     * back to it: none may be replaced meanwhile. */
    write_lock(ctx, &space->lock, RANK_SPACE);
    status = space->state == SPACE_ALIVE || space->state == SPACE_FROZEN
                 ? walk_exclusive(ctx, space, payer, at, 1, 0, &batch, &walk)
                 : mm_fail(ctx, CLEAVE_DYING, "space", space->id, 1, 0);
    if (status == CLEAVE_OK) {
        pte_t entry = pte_with_write(pte_make_table(table)); /* nothing beneath it is present */
        for (unsigned i = 0; i < TABLE_ENTRIES && pte_is_parked(walk.entry); i++) {
            parts[i] = pte_park(parts[i]);
        }
        if (walk.level == 1 && pte_unpark(walk.entry) == paged &&
            pte_replace(ctx, walk.slot, walk.entry, entry)) {
            table = PFN_NONE;
        }
        walk_end(ctx, &walk);
    }
    flush_finish(ctx, &batch);
    write_unlock(ctx, &space->lock, RANK_SPACE);
    if (table.v != 0 && back != NULL) {
        pool_return(ctx, back, table);
    } else if (table.v != 0) {
        (void)node_put(ctx, table);
        pool_free(ctx, table, 0);
    }
    return status;
}

/* --- Mapping a range -------------------------------------------------------------------------- */

/* What a preempted mapping keeps in its space: op_at, op_range, its first entry and order in
 * op_argument[0], and why it is being undone in op_argument[1]. */
struct map_paged {
    struct space *space;
    struct gfn_range range;
    pte_t first; /* entry of the first leaf */
    unsigned order;
    struct region region;
};

static enum cleave_status check_arguments(struct mm_ctx *ctx, struct pager *pager, gpa_t at,
                                          uint64_t size, unsigned order, uint32_t store,
                                          uint64_t offset, const struct region *region,
                                          struct map_paged *map)
{
    enum cleave_status status = range_check(ctx, at, size, &map->range);
    if (status != CLEAVE_OK) {
        return status;
    }
    uint64_t pages = size >> PAGE_SHIFT;
    if (order > 1) {
        return mm_fail(ctx, CLEAVE_ORDER, "order", order, 0, 1);
    }
    if (at.v % level_size(order) != 0 || size % level_size(order) != 0) {
        bool bad_at = at.v % level_size(order) != 0;
        return mm_fail(ctx, CLEAVE_ALIGN, bad_at ? "at" : "size", bad_at ? at.v : size,
                       level_size(order), level_size(order));
    }
    if (store >= STORES) {
        return mm_fail(ctx, CLEAVE_INVALID, "store", store, 0, STORES - 1);
    }
    if (pages > OFFSET_PAGES) {
        return mm_fail(ctx, CLEAVE_COUNT, "size", size, PAGE_SIZE, OFFSET_PAGES << PAGE_SHIFT);
    }
    if (offset >= OFFSET_PAGES || pages > OFFSET_PAGES - offset) {
        return mm_fail(ctx, CLEAVE_INVALID, "offset", offset, 0, OFFSET_PAGES - pages);
    }
    if (region->policy != REGION_PAGED) {
        return mm_fail(ctx, CLEAVE_POLICY, "region", region->policy, REGION_PAGED, REGION_PAGED);
    }
    if (!(region->rights & RIGHT_READ) || (region->rights & ~(unsigned)RIGHT_ALL) != 0) {
        return mm_fail(ctx, CLEAVE_RIGHTS, "region", region->rights, RIGHT_READ, RIGHT_ALL);
    }
    if (pager_pool(pager) != map->space->payer.pool) {
        return mm_fail(ctx, CLEAVE_FAMILY, "pager", pager_number(pager), 1, 0);
    }
    return CLEAVE_OK;
}

static bool all_absent(pfn_t table)
{
    const pte_t *slots = table_slots(table);
    pte_t any = 0;
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        any |= pte_read(&slots[i]);
    }
    return any == 0;
}

/* Makes entries from op_at to the end of its table or of the range; at most `entries`. */
static enum cleave_status map_some(struct mm_ctx *ctx, const struct map_paged *map,
                                   uint64_t entries)
{
    struct space *space = map->space;
    uint64_t step = level_pages(map->order);
    struct flush_batch batch;
    struct walk walk;

    flush_begin(&batch, space);
    enum cleave_status status = walk_exclusive(ctx, space, &space->payer, space->op_at, map->order,
                                               WALK_MAKE, &batch, &walk);
    if (status == CLEAVE_OK) {
        unsigned slot = level_slot(space->op_at, map->order);
        pte_t *slots = table_slots(walk.table);
        for (; slot < TABLE_ENTRIES && entries > 0 && space->op_at.v < map->range.end.v &&
               flush_room(&batch) > 0;
             slot++, entries--) {
            pte_t old = pte_read(&slots[slot]);
            uint64_t pages = space->op_at.v - map->range.start.v;
            if (pte_is_table(old,
                             map->order)) { /* where small leaves were once: nothing is in it */
                MM_CHECK(all_absent(pte_pfn(old)));
                flush_drop_table(&batch, pte_pfn(old));
            }
            while (!pte_replace(ctx, &slots[slot], old, map->first + (pages << 12))) {
                old = pte_read(&slots[slot]); /* accessed was set in what points to a table */
            }
            space->op_at.v += step;
        }
        walk_end(ctx, &walk);
    }
    flush_finish(ctx, &batch);
    return status;
}

/* Takes tables out that have become empty, from the one that holds entries of `level` for `at` up.
 */
static void drop_empty(struct mm_ctx *ctx, struct space *space, gfn_t at, unsigned level)
{
    struct flush_batch batch;
    struct walk walk;

    flush_begin(&batch, space);
    for (unsigned l = level + 1; l <= ROOT_LEVEL; l++) {
        walk_find(ctx, space, at, l, &walk);
        bool drop = walk.level == l && walk.exclusive && pte_is_table(walk.entry, l) &&
                    node_count(pte_pfn(walk.entry)) == 1 && all_absent(pte_pfn(walk.entry));
        if (drop && pte_replace(ctx, walk.slot, walk.entry, 0)) {
            flush_drop_table(&batch, pte_pfn(walk.entry));
        }
        walk_end(ctx, &walk);
    }
    flush_finish(ctx, &batch);
}

/* Takes entries back from op_at down to the start of its table or of the range; at most `entries`.
 */
static void unmap_some(struct mm_ctx *ctx, const struct map_paged *map, uint64_t entries)
{
    struct space *space = map->space;
    uint64_t step = level_pages(map->order);
    gfn_t last = gfn(space->op_at.v - step);
    struct walk walk;

    walk_find(ctx, space, last, map->order, &walk);
    pte_t *slots = table_slots(walk.table);
    MM_CHECK(walk.exclusive && walk.level == map->order);
    for (unsigned slot = level_slot(last, map->order) + 1;
         slot > 0 && entries > 0 && space->op_at.v > map->range.start.v; slot--, entries--) {
        pte_t old = pte_read(&slots[slot - 1]);
        MM_CHECK(pte_kind(old, map->order) == PTE_KIND_PAGED);
        MM_CHECK(pte_replace(ctx, &slots[slot - 1], old, 0));
        space->op_at.v -= step;
    }
    walk_end(ctx, &walk);
    drop_empty(ctx, space, last, map->order);
}

static uint64_t spend_entries(struct mm_ctx *ctx)
{
    uint64_t n = ctx->budget < TABLE_ENTRIES ? ctx->budget : TABLE_ENTRIES;
    return n > 0 && mm_spend(ctx, n) ? n : 0;
}

/* Takes back what was mapped; returns why, once all is gone. */
static enum cleave_status map_undo(struct mm_ctx *ctx, const struct map_paged *map)
{
    struct space *space = map->space;
    while (space->op_at.v > map->range.start.v) {
        uint64_t entries = spend_entries(ctx);
        if (entries == 0) {
            port_point(ctx, POINT_PREEMPT, space->id, OP_MAP);
            return CLEAVE_AGAIN;
        }
        unmap_some(ctx, map, entries);
    }
    while (pool_has_dead(space->payer.pool)) {
        if (spend_entries(ctx) == 0) {
            port_point(ctx, POINT_PREEMPT, space->id, OP_MAP);
            return CLEAVE_AGAIN;
        }
        table_reap_some(ctx, space->payer.pool, 1); /* the tables made: nothing stays charged */
    }
    space->op = OP_NONE;
    enum cleave_status why = (enum cleave_status)space->op_argument[1];
    return ctx->error.status == why ? why : mm_fail(ctx, why, "space", space->id, 1, 0);
}

static enum cleave_status map_on(struct mm_ctx *ctx, const struct map_paged *map)
{
    struct space *space = map->space;
    enum cleave_status status = CLEAVE_OK;

    while (space->op_at.v < map->range.end.v && status == CLEAVE_OK) {
        uint64_t entries = spend_entries(ctx);
        if (entries == 0) {
            port_point(ctx, POINT_PREEMPT, space->id, OP_MAP);
            return CLEAVE_AGAIN;
        }
        status = map_some(ctx, map, entries);
    }
    if (status == CLEAVE_OK) {
        status = region_set(ctx, &space->payer, &space->regions, map->range, &map->region);
    }
    if (status == CLEAVE_OK) {
        space->op = OP_NONE;
        return CLEAVE_OK;
    }
    space->op_argument[1] = status;
    if (space->op_at.v < map->range.end.v) {
        drop_empty(ctx, space, space->op_at, map->order); /* tables made for the leaf that failed */
    }
    return map_undo(ctx, map);
}

/* Begins a mapping, or goes on with the one that these arguments began. The writer's lock is held.
 */
static enum cleave_status map_begin(struct mm_ctx *ctx, const struct map_paged *map)
{
    struct space *space = map->space;
    struct gfn_range found;
    struct region region;

    if (space->state != SPACE_ALIVE) {
        return mm_fail(ctx, space->state == SPACE_FROZEN ? CLEAVE_FROZEN : CLEAVE_DYING, "space",
                       space->id, 1, 0);
    }
    if (space->op == OP_MAP && space->op_range.start.v == map->range.start.v &&
        space->op_range.end.v == map->range.end.v &&
        space->op_argument[0] == (map->first | map->order)) {
        return CLEAVE_OK;
    }
    if (space->op != OP_NONE) {
        return mm_fail(ctx, CLEAVE_BUSY, "space", space->op, OP_NONE, OP_NONE);
    }
    if (region_find(space->regions, map->range.start, map->range.end, REGION_HAS_MEMORY, &found,
                    &region)) {
        return mm_fail(ctx, CLEAVE_EXISTS, "at", found.start.v << PAGE_SHIFT, 1, 0);
    }
    space->op = OP_MAP;
    space->op_range = map->range;
    space->op_at = map->range.start;
    space->op_argument[0] = map->first | map->order;
    space->op_argument[1] = CLEAVE_OK;
    return CLEAVE_OK;
}

enum cleave_status space_map_paged(struct mm_ctx *ctx, struct space *space, gpa_t at, uint64_t size,
                                   struct pager *pager, unsigned order, uint32_t store,
                                   uint64_t offset, const struct region *region)
{
    struct map_paged map = {.space = space, .order = order, .region = *region};
    enum cleave_status status =
        check_arguments(ctx, pager, at, size, order, store, offset, region, &map);
    if (status != CLEAVE_OK) {
        return status;
    }
    map.first = paged_own(space, pte_make_paged((uint64_t)store << 32 | offset));
    map.region.pager = pager_number(pager);
    map.region.order = (uint8_t)order;
    map.region.armed = map.region.notify = false;
    map.region.channel = 0;

    write_lock(ctx, &space->lock, RANK_SPACE);
    status = map_begin(ctx, &map);
    if (status == CLEAVE_OK) {
        status = space->op_argument[1] == CLEAVE_OK ? map_on(ctx, &map) : map_undo(ctx, &map);
    }
    write_unlock(ctx, &space->lock, RANK_SPACE);
    return status;
}
