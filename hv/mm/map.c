/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mapping and unmapping. Every operation here holds the writers' side of the space's lock: first
 * what can fail and no guest can see (tables copied, leaves split, frames had), then the change.
 */
#include "map.h"
#include "attachment.h"
#include "notify.h"
#include "table.h"

/* --- Boundaries and ranges -------------------------------------------------------------------- */

enum cleave_status space_cut(struct mm_ctx *ctx, struct space *space, gfn_t at,
                             struct flush_batch *batch)
{
    unsigned stop = 0;
    if (at.v == 0 || at.v >= GUEST_PAGES) {
        return CLEAVE_OK;
    }
    while (stop < ROOT_LEVEL && at.v % level_pages(stop + 1) == 0) {
        stop++;
    }
    for (;;) {
        struct walk walk;
        enum cleave_status status =
            walk_exclusive(ctx, space, &space->payer, at, stop, 0, batch, &walk);
        if (status != CLEAVE_OK) {
            return status;
        }
        bool spans = walk.level > stop && walk.entry != 0;
        if (spans) {
            status = table_split_leaf(ctx, &space->payer, &walk, batch);
        }
        walk_end(ctx, &walk);
        if (!spans || status != CLEAVE_OK) {
            return status;
        }
    }
}

enum cleave_status space_cut_both(struct mm_ctx *ctx, struct space *space, struct gfn_range range,
                                  struct flush_batch *batch)
{
    enum cleave_status status = space_cut(ctx, space, range.start, batch);
    return status == CLEAVE_OK ? space_cut(ctx, space, range.end, batch) : status;
}

static void clear_table(struct mm_ctx *ctx, pfn_t table, gfn_t base, struct gfn_range range,
                        struct flush_batch *batch)
{
    unsigned level = table_level(table);
    uint64_t pages = level_pages(level);
    uint64_t first = range.start.v > base.v ? (range.start.v - base.v) / pages : 0;
    pte_t *slots = table_slots(table);

    for (uint64_t i = first; i < TABLE_ENTRIES && base.v + i * pages < range.end.v; i++) {
        gfn_t at = gfn(base.v + i * pages);
        pte_t e = pte_read(&slots[i]);
        if (e == 0) {
            continue;
        }
        if (at.v < range.start.v || at.v + pages > range.end.v) {
            MM_CHECK(pte_holds_table(e, level));
            if (node_count(pte_pfn(e)) == 1) { /* a shared one holds nothing that was put there */
                clear_table(ctx, pte_pfn(e), at, range, batch);
            }
            continue;
        }
        if (flush_room(batch) == 0) {
            flush_finish(ctx, batch);
        }
        e = pte_take(ctx, &slots[i]);
        if (pte_holds_table(e, level)) {
            flush_drop_table(batch, pte_pfn(e));
        } else if (pte_holds_leaf(e, level) && pte_counted(e)) {
            flush_drop_frames(batch, pte_pfn(e), level, 1);
        } else {
            flush_need(batch);
        }
    }
}

void space_clear(struct mm_ctx *ctx, struct space *space, struct gfn_range range,
                 struct flush_batch *batch)
{
    clear_table(ctx, space->root, gfn(0), range, batch);
}

bool space_is_empty(struct space *space, struct gfn_range range)
{
    struct gfn_range found;
    struct region region;
    return !region_find(space->regions, range.start, range.end, REGION_HAS_MEMORY, &found, &region);
}

enum cleave_status space_unmap(struct mm_ctx *ctx, struct space *space, gpa_t at, uint64_t size)
{
    const struct region none = {.policy = REGION_NONE};
    struct gfn_range range;
    enum cleave_status status = range_check(ctx, at, size, &range);
    if (status != CLEAVE_OK) {
        return status;
    }
    status = space_begin(ctx, space);
    if (status != CLEAVE_OK) {
        return status;
    }
    struct flush_batch batch;
    struct gfn_range found = {range.start, range.start};
    struct region region;
    flush_begin(&batch, space);
    while (status == CLEAVE_OK &&
           region_find(space->regions, found.end, range.end, REGION_HAS_FORK, &found, &region)) {
        if (region.policy == REGION_FOREIGN) {
            status = mm_fail(ctx, CLEAVE_BUSY, "at", found.start.v << PAGE_SHIFT, 1, 0);
        }
    }
    if (status == CLEAVE_OK) {
        status = space_cut_both(ctx, space, range, &batch);
    }
    if (status == CLEAVE_OK) {
        channel_forget(ctx, space, range);
        status = region_set(ctx, &space->payer, &space->regions, range, &none);
        if (status != CLEAVE_OK) {
            channel_remember(ctx, space, range);
        }
    }
    if (status == CLEAVE_OK) {
        attachments_detach(space, range);
        space_clear(ctx, space, range, &batch);
    }
    flush_finish(ctx, &batch);
    space_end(ctx, space);
    if (status == CLEAVE_OK && !table_reap(ctx, space->payer.pool)) {
        port_point(ctx, POINT_PREEMPT, space->id, OP_UNMAP);
        return CLEAVE_AGAIN; /* the range is empty; its tables are dropped as calls go on */
    }
    return status;
}

/* --- Leaves ----------------------------------------------------------------------------------- */

/* A zeroed block of `order` for this space: zeroed one 2 MiB at a time, kept in the space between
 * calls. CLEAVE_AGAIN when the budget ran out. */
static enum cleave_status fresh_leaf(struct mm_ctx *ctx, struct space *space, unsigned order,
                                     pfn_t *out)
{
    uint64_t step = level_pages(order < 1 ? order : 1);

    if (space->fresh.v != 0 && space->fresh_order != order) {
        frame_put(ctx, space->fresh, space->fresh_order);
        space->fresh = PFN_NONE;
    }
    if (space->fresh.v == 0) {
        enum cleave_status status =
            pool_alloc(ctx, &space->payer, order, FRAME_DATA, &space->fresh);
        if (status != CLEAVE_OK) {
            return status;
        }
        space->fresh_order = order;
        space->fresh_zeroed = 0;
    }
    while (space->fresh_zeroed < level_pages(order)) {
        if (!mm_spend(ctx, step)) {
            port_point(ctx, POINT_PREEMPT, space->id, OP_NONE);
            return CLEAVE_AGAIN;
        }
        port_zero_pages(frame_address(pfn_add(space->fresh, space->fresh_zeroed)), step);
        space->fresh_zeroed += step;
    }
    *out = space->fresh;
    space->fresh = PFN_NONE;
    return CLEAVE_OK;
}

static unsigned region_leaf_rights(const struct region *region, unsigned level)
{
    unsigned rights = region->rights;
    if (region->armed || region->policy == REGION_READ_ONLY) {
        rights &= ~(unsigned)RIGHT_WRITE;
    }
    return level > 0 && !machine.huge_exec ? rights & ~(unsigned)RIGHT_EXEC : rights;
}

/* Puts a leaf where there is none: a hole, or a table that is left over beneath REGION_NONE. */
static enum cleave_status put_leaf(struct mm_ctx *ctx, struct space *space, gfn_t at,
                                   unsigned order, pte_t leaf, struct flush_batch *batch)
{
    struct walk walk;
    enum cleave_status status =
        walk_exclusive(ctx, space, &space->payer, at, order, WALK_MAKE | WALK_WRITE, batch, &walk);
    if (status != CLEAVE_OK) {
        return status;
    }
    if (walk.level != order || pte_holds_leaf(walk.entry, order)) {
        status = mm_fail(ctx, CLEAVE_EXISTS, "at", at.v << PAGE_SHIFT, 1, 0);
    } else {
        pte_t old = walk.entry;
        while (!pte_replace(ctx, walk.slot, old, leaf)) {
            old = pte_read(walk.slot);
        }
        if (pte_holds_table(old, order)) {
            flush_drop_table(batch, pte_pfn(old));
        }
        if (pte_counted(leaf)) {
            frame_set_rmap(pte_pfn(leaf), order, walk.table, level_slot(at, order));
        }
    }
    walk_end(ctx, &walk);
    return status;
}

/* Largest order at `at` that lies inside `range`, up to `limit`. */
static unsigned fitting_order(gfn_t at, struct gfn_range range, unsigned limit)
{
    unsigned order = limit;
    while (order > 0 &&
           (at.v % level_pages(order) != 0 || at.v + level_pages(order) > range.end.v)) {
        order--;
    }
    return order;
}

/* Fills the hole at `at` with the largest leaf that fits into `range` and that the pool has.
 * `*next` is where to go on. */
static enum cleave_status fill_hole(struct mm_ctx *ctx, struct space *space, gfn_t at,
                                    struct gfn_range range, const struct region *region,
                                    gfn_t *next)
{
    struct flush_batch batch;
    struct walk walk;
    pfn_t frame = PFN_NONE;

    walk_find(ctx, space, at, 0, &walk);
    unsigned level = walk.level;
    bool hole = walk.entry == 0;
    walk_end(ctx, &walk);
    *next = gfn(level_align(at, level).v + level_pages(level));
    if (!hole) {
        return CLEAVE_OK;
    }
    unsigned order = fitting_order(at, range, level < region->order ? level : region->order);
    enum cleave_status status = fresh_leaf(ctx, space, order, &frame);
    while (pool_lacks(status) && order > 0) {
        order--;
        status = fresh_leaf(ctx, space, order, &frame);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    pte_t leaf = pte_make_leaf(frame, order, region_leaf_rights(region, order),
                               region->policy == REGION_SHARED ? PTE_SHARED : 0);
    flush_begin(&batch, space);
    status = put_leaf(ctx, space, at, order, leaf, &batch);
    flush_finish(ctx, &batch);
    if (status != CLEAVE_OK) {
        frame_put(ctx, frame, order);
        return status;
    }
    space->stats.zeroed += level_pages(order);
    *next = gfn(at.v + level_pages(order));
    return CLEAVE_OK;
}

enum cleave_status space_fill(struct mm_ctx *ctx, struct space *space, struct gfn_range range,
                              const struct region *region)
{
    enum cleave_status status = CLEAVE_OK;
    gfn_t at = range.start;
    /* What is filled already is passed over for nothing, so that a call with any budget fills more.
     */
    while (status == CLEAVE_OK && at.v < range.end.v) {
        status = fill_hole(ctx, space, at, range, region, &at);
    }
    return status;
}

/* Does first touch fill pages of this policy? */
static bool fills(enum region_policy policy)
{
    switch (policy) {
    case REGION_PRIVATE:
    case REGION_READ_ONLY:
    case REGION_SHARED:
    case REGION_WIPE:
    case REGION_ABSENT:
    case REGION_PAGED:
        return true;
    case REGION_NONE:
    case REGION_DEVICE:
    case REGION_FOREIGN:
    case REGION_POLICIES:
        return false;
    }
    return false;
}

enum cleave_status space_populate(struct mm_ctx *ctx, struct space *space, gpa_t at, uint64_t size)
{
    struct gfn_range range, extent;
    enum cleave_status status = range_check(ctx, at, size, &range);
    if (status == CLEAVE_OK) {
        status = space_begin(ctx, space);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    for (gfn_t f = range.start; status == CLEAVE_OK && f.v < range.end.v; f = extent.end) {
        struct region region = region_get_extent(space->regions, f, &extent);
        if (!fills(region.policy)) {
            status = mm_fail(ctx, CLEAVE_NOT_MAPPED, "at", f.v << PAGE_SHIFT, 1, 0);
        }
    }
    for (gfn_t f = range.start; status == CLEAVE_OK && f.v < range.end.v; f = extent.end) {
        struct region region = region_get_extent(space->regions, f, &extent);
        struct gfn_range part = {f, extent.end.v < range.end.v ? extent.end : range.end};
        status = space_fill(ctx, space, part, &region);
    }
    space_end(ctx, space);
    return status;
}

/* --- Explicit leaves
 * ------------------------------------------------------------------------------ */

/* Maps `frame` at `at` and then gives the range its region: nothing is left when either fails. */
static enum cleave_status map_fresh(struct mm_ctx *ctx, struct space *space, struct gfn_range range,
                                    unsigned order, pfn_t frame, const struct region *region)
{
    struct flush_batch batch;
    pte_t leaf = pte_make_leaf(frame, order, region_leaf_rights(region, order),
                               region->policy == REGION_SHARED ? PTE_SHARED : 0);

    flush_begin(&batch, space);
    enum cleave_status status = put_leaf(ctx, space, range.start, order, leaf, &batch);
    if (status != CLEAVE_OK) {
        frame_put(ctx, frame, order);
    } else {
        status = region_set(ctx, &space->payer, &space->regions, range, region);
        if (status != CLEAVE_OK) {
            space_clear(ctx, space, range, &batch);
        }
    }
    flush_finish(ctx, &batch);
    return status;
}

enum cleave_status space_map(struct mm_ctx *ctx, struct space *space, gpa_t at, unsigned order,
                             const struct region *region)
{
    struct gfn_range range;
    pfn_t frame = PFN_NONE;

    if (order >= LEAF_ORDERS) {
        return mm_fail(ctx, CLEAVE_ORDER, "order", order, 0, LEAF_ORDERS - 1);
    }
    enum cleave_status status = range_check(ctx, at, level_size(order), &range);
    if (status == CLEAVE_OK && at.v % level_size(order) != 0) {
        status = mm_fail(ctx, CLEAVE_ALIGN, "at", at.v, level_size(order), level_size(order));
    }
    if (status == CLEAVE_OK) {
        status = region_check(ctx, region);
    }
    if (status == CLEAVE_OK) {
        status = space_begin(ctx, space);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    if (!space_is_empty(space, range)) {
        status = mm_fail(ctx, CLEAVE_EXISTS, "at", at.v, 1, 0);
    }
    if (status == CLEAVE_OK) {
        status = fresh_leaf(ctx, space, order, &frame);
    }
    if (status == CLEAVE_OK) {
        status = map_fresh(ctx, space, range, order, frame, region);
    }
    space_end(ctx, space);
    return status;
}

/* --- Device memory
 * --------------------------------------------------------------------------------- */

/* No frame of the range may be RAM that a pool hands out. */
static enum cleave_status device_check(struct mm_ctx *ctx, pfn_t frame, uint64_t pages)
{
    if (frame.v == 0 || pages > UINT32_MAX - (uint64_t)frame.v) {
        return mm_fail(ctx, CLEAVE_RANGE, "frame", frame.v, 1, UINT32_MAX - pages);
    }
    for (uint64_t i = 0; i < pages && frame.v + i < machine.frames; i += level_pages(1)) {
        if (pool_of(pfn_add(frame, i)) != NULL) {
            return mm_fail(ctx, CLEAVE_EXISTS, "frame", frame.v + i, machine.frames, UINT32_MAX);
        }
    }
    pfn_t last = pfn_add(frame, pages - 1);
    if (last.v < machine.frames && pool_of(last) != NULL) {
        return mm_fail(ctx, CLEAVE_EXISTS, "frame", last.v, machine.frames, UINT32_MAX);
    }
    return CLEAVE_OK;
}

static enum cleave_status map_device_leaves(struct mm_ctx *ctx, struct space *space,
                                            struct gfn_range range, pfn_t frame, unsigned rights)
{
    enum cleave_status status = CLEAVE_OK;
    gfn_t at = range.start;

    while (status == CLEAVE_OK && at.v < range.end.v) {
        struct flush_batch batch;
        unsigned order = fitting_order(at, range, LEAF_ORDERS - 1);
        while (frame.v % level_pages(order) != 0) {
            order--;
        }
        pte_t leaf = pte_make_leaf(frame, order, rights & ~(unsigned)RIGHT_EXEC, PTE_DEVICE);
        flush_begin(&batch, space);
        status = put_leaf(ctx, space, at, order, leaf, &batch);
        flush_finish(ctx, &batch);
        at.v += level_pages(order);
        frame = pfn_add(frame, level_pages(order));
    }
    return status;
}

enum cleave_status space_map_device(struct mm_ctx *ctx, struct space *space, gpa_t at,
                                    uint64_t size, pfn_t frame, unsigned rights, bool refuse)
{
    struct gfn_range range;
    struct flush_batch batch;
    const struct region region = {
        .policy = REGION_DEVICE, .rights = (uint8_t)rights, .fork_refuse = refuse};
    enum cleave_status status = range_check(ctx, at, size, &range);
    if (status == CLEAVE_OK && rights != RIGHT_READ && rights != (RIGHT_READ | RIGHT_WRITE)) {
        status =
            mm_fail(ctx, CLEAVE_RIGHTS, "rights", rights, RIGHT_READ, RIGHT_READ | RIGHT_WRITE);
    }
    if (status == CLEAVE_OK) {
        status = device_check(ctx, frame, size >> PAGE_SHIFT);
    }
    if (status == CLEAVE_OK) {
        status = space_begin(ctx, space);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    if (!space_is_empty(space, range)) {
        status = mm_fail(ctx, CLEAVE_EXISTS, "at", at.v, 1, 0);
    } else {
        status = map_device_leaves(ctx, space, range, frame, rights);
        if (status == CLEAVE_OK) {
            status = region_set(ctx, &space->payer, &space->regions, range, &region);
        }
        if (status != CLEAVE_OK) {
            flush_begin(&batch, space);
            space_clear(ctx, space, range, &batch);
            flush_finish(ctx, &batch);
        }
    }
    space_end(ctx, space);
    return status;
}
