/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mapping and unmapping. Every operation here holds the writers' side of the space's lock: first
 * what can fail and no guest can see (tables copied, leaves split, frames had), then the change.
 */
#include "map.h"
#include "attachment.h"
#include "change.h"
#include "notify.h"
#include "stage.h"
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

/* No page of the range from op_at on, or `*at`, may be another space's. */
static enum cleave_status unmap_check(struct mm_ctx *ctx, struct space *space, gfn_t *at, gfn_t end,
                                      bool spend)
{
    struct gfn_range found;
    struct region region;

    while (region_find(space->regions, *at, end, REGION_HAS_FORK, &found, &region)) {
        if (region.policy == REGION_FOREIGN) {
            return mm_fail(ctx, CLEAVE_BUSY, "at", found.start.v << PAGE_SHIFT, 1, 0);
        }
        if (spend && !mm_spend(ctx, 1)) {
            return CLEAVE_AGAIN;
        }
        *at = found.end;
    }
    return CLEAVE_OK;
}

static void unmap_entries(struct mm_ctx *ctx, struct space *space, struct gfn_range range,
                          struct flush_batch *batch)
{
    attachments_detach(space, range);
    space_unfill(space, range);
    space_clear(ctx, space, range, batch);
}

/* A range of few words, in one go. */
static enum cleave_status unmap_at_once(struct mm_ctx *ctx, struct space *space,
                                        struct gfn_range range)
{
    const struct region none = {.policy = REGION_NONE};
    struct flush_batch batch;
    gfn_t at = range.start;
    enum cleave_status status = unmap_check(ctx, space, &at, range.end, false);

    flush_begin(&batch, space);
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
        unmap_entries(ctx, space, range, &batch);
    }
    flush_finish(ctx, &batch);
    return status;
}

/* The regions and entries of a range of many words go; what they were is kept in op_regions, from
 * which its dirty grains are then taken off. */
static enum cleave_status unmap_all(struct mm_ctx *ctx, struct space *space, struct gfn_range range)
{
    const struct region none = {.policy = REGION_NONE};
    region_word_t old = space->regions;
    struct flush_batch batch;
    enum cleave_status status = region_share(ctx, old);

    if (status != CLEAVE_OK) {
        return status;
    }
    flush_begin(&batch, space);
    status = space_cut_both(ctx, space, range, &batch);
    if (status == CLEAVE_OK) {
        status = region_set(ctx, &space->payer, &space->regions, range, &none);
    }
    if (status == CLEAVE_OK) {
        unmap_entries(ctx, space, range, &batch);
        space->op_regions = old;
        space->forget = range;
        space->op_phase = PHASE_BUILD;
    } else {
        region_defer(ctx, old);
    }
    flush_finish(ctx, &batch);
    return status;
}

/* What is left when all is removed: dirty grains are taken off, then the old region tree goes. */
static enum cleave_status unmap_rest(struct mm_ctx *ctx, struct space *space)
{
    if (!channel_forget_some(ctx, space, space->op_regions)) {
        return CLEAVE_AGAIN;
    }
    region_defer(ctx, space->op_regions);
    space->op_regions = REGION_WORD_NONE;
    return CLEAVE_OK;
}

bool space_help_unmap(struct mm_ctx *ctx, struct space *space)
{
    write_lock(ctx, &space->lock, RANK_SPACE);
    bool stopped =
        space->state == SPACE_ALIVE && space->op == OP_UNMAP && space->op_phase == PHASE_BUILD;
    if (stopped && unmap_rest(ctx, space) == CLEAVE_OK) {
        space->op = OP_NONE;
    }
    write_unlock(ctx, &space->lock, RANK_SPACE);
    return stopped;
}

/* Begins, or goes on with, a range of many words. */
static enum cleave_status unmap_in_steps(struct mm_ctx *ctx, struct space *space,
                                         struct gfn_range range)
{
    enum cleave_status status = CLEAVE_OK;

    if (space->op == OP_NONE) {
        space_op_start(space, OP_UNMAP, range, 0);
    }
    if (space->op_phase == PHASE_CHECK) {
        status = unmap_check(ctx, space, &space->op_at, range.end, true);
        if (status == CLEAVE_OK) {
            status = unmap_all(ctx, space, range);
        }
    }
    if (status == CLEAVE_OK) {
        status = unmap_rest(ctx, space);
    }
    if (status != CLEAVE_AGAIN) {
        space->op = OP_NONE;
    }
    return status;
}

enum cleave_status space_unmap(struct mm_ctx *ctx, struct space *space, gpa_t at, uint64_t size)
{
    struct gfn_range range;
    enum cleave_status status = range_check(ctx, at, size, &range);
    if (status == CLEAVE_OK) {
        status = space_begin_op(ctx, space, OP_UNMAP, range, 0);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    bool few = space->op == OP_NONE &&
               region_count_words(space->regions, range, CHANGE_WORDS) <= CHANGE_WORDS;
    status = few ? unmap_at_once(ctx, space, range) : unmap_in_steps(ctx, space, range);
    space_end(ctx, space);
    if (status == CLEAVE_OK && !table_reap(ctx, space->payer.pool)) {
        status = CLEAVE_AGAIN; /* the range is empty; its tables are dropped as calls go on */
    }
    if (status == CLEAVE_AGAIN) {
        port_point(ctx, POINT_PREEMPT, space->id, OP_UNMAP);
    }
    return status;
}

/* --- Leaves ----------------------------------------------------------------------------------- */

enum cleave_status space_fresh_leaf(struct mm_ctx *ctx, struct space *space, unsigned order,
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

unsigned region_leaf_rights(const struct region *region, unsigned level)
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

unsigned fitting_order(gfn_t at, struct gfn_range range, unsigned limit)
{
    unsigned order = limit;
    while (order > 0 &&
           (at.v % level_pages(order) != 0 || at.v + level_pages(order) > range.end.v)) {
        order--;
    }
    return order;
}

/* Is there a hole at `at`? `*level` is its size; if not, `*next` is the first page that may be one.
 */
static bool find_hole(struct mm_ctx *ctx, struct space *space, gfn_t at, unsigned *level,
                      gfn_t *next)
{
    struct walk walk;
    walk_find(ctx, space, at, 0, &walk);
    bool hole = walk.entry == 0;
    *level = walk.level;
    *next = gfn(level_align(at, walk.level).v + level_pages(walk.level));
    if (!hole && walk.level == 0) { /* what else of its table is there */
        const pte_t *slots = table_slots(walk.table);
        for (unsigned i = level_slot(at, 0) + 1; i < TABLE_ENTRIES && pte_read(&slots[i]) != 0;
             i++) {
            next->v++;
        }
    }
    walk_end(ctx, &walk);
    return hole;
}

/* Fills the hole at `at` with the largest leaf that fits into `range` and that the pool has, or
 * passes over what is there. `*next` is where to go on. */
static enum cleave_status fill_hole(struct mm_ctx *ctx, struct space *space, gfn_t at,
                                    struct gfn_range range, const struct region *region,
                                    gfn_t *next)
{
    struct flush_batch batch;
    pfn_t frame = PFN_NONE;
    unsigned level;

    if (!find_hole(ctx, space, at, &level, next)) {
        return mm_spend(ctx, level == 0 ? next->v - at.v : 1) ? CLEAVE_OK : CLEAVE_AGAIN;
    }
    unsigned order = fitting_order(at, range, level < region->order ? level : region->order);
    enum cleave_status status = space_fresh_leaf(ctx, space, order, &frame);
    while (pool_lacks(status) && order > 0) {
        order--;
        status = space_fresh_leaf(ctx, space, order, &frame);
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

/* Calls for other ranges that one which was stopped shuts out, so that two of them in turn do not
 * take the progress from each other for ever; then its caller is thought to be gone. */
#define POPULATE_OTHERS 64

/* Goes on with this range's progress, or begins. CLEAVE_AGAIN: another range's turn. */
static enum cleave_status populate_begin(struct space *space, struct gfn_range range)
{
    struct populate *p = &space->populate;
    bool same = p->range.start.v == range.start.v && p->range.end.v == range.end.v;

    if (!same && p->range.end.v != 0 && ++p->others < POPULATE_OTHERS) {
        return CLEAVE_AGAIN;
    }
    if (!same) {
        *p = (struct populate){.range = range, .at = range.start};
    }
    p->others = 0;
    return CLEAVE_OK;
}

/* Looks whether every page from p->at on can be filled. */
static enum cleave_status populate_check(struct mm_ctx *ctx, struct space *space,
                                         struct populate *p)
{
    while (p->at.v < p->range.end.v) {
        struct gfn_range extent;
        struct region region = region_get_extent(space->regions, p->at, &extent);
        if (!region_policy_fills(region.policy)) {
            return mm_fail(ctx, CLEAVE_NOT_MAPPED, "at", p->at.v << PAGE_SHIFT, 1, 0);
        }
        if (!mm_spend(ctx, 1)) {
            return CLEAVE_AGAIN;
        }
        p->at = extent.end;
    }
    p->checked = true;
    p->at = p->range.start;
    return CLEAVE_OK;
}

static enum cleave_status populate_fill(struct mm_ctx *ctx, struct space *space, struct populate *p)
{
    enum cleave_status status = CLEAVE_OK;

    while (status == CLEAVE_OK && p->at.v < p->range.end.v) {
        struct gfn_range part;
        gfn_t next;
        struct region region = region_get_extent(space->regions, p->at, &part);
        part.end = part.end.v < p->range.end.v ? part.end : p->range.end;
        status = fill_hole(ctx, space, p->at, part, &region, &next);
        if (status == CLEAVE_OK) {
            p->at = next;
        }
    }
    return status;
}

void space_unfill(struct space *space, struct gfn_range range)
{
    struct populate *p = &space->populate;
    if (p->range.start.v < range.end.v && range.start.v < p->range.end.v) {
        *p = (struct populate){0};
    }
}

enum cleave_status space_populate(struct mm_ctx *ctx, struct space *space, gpa_t at, uint64_t size)
{
    struct populate *p = &space->populate;
    struct gfn_range range;
    enum cleave_status status = range_check(ctx, at, size, &range);
    if (status == CLEAVE_OK) {
        status = space_begin(ctx, space);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    status = populate_begin(space, range);
    if (status == CLEAVE_OK && !p->checked) {
        status = populate_check(ctx, space, p);
    }
    if (status == CLEAVE_OK) {
        status = populate_fill(ctx, space, p);
    }
    if (status != CLEAVE_AGAIN) {
        *p = (struct populate){0};
    }
    space_end(ctx, space);
    return status;
}

/* --- Explicit leaves -------------------------------------------------------------------------- */

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
        status = space_fresh_leaf(ctx, space, order, &frame);
    }
    if (status == CLEAVE_OK) {
        status = map_fresh(ctx, space, range, order, frame, region);
    }
    space_end(ctx, space);
    return status;
}

/* --- Device memory ---------------------------------------------------------------------------- */

enum cleave_status space_map_device(struct mm_ctx *ctx, struct space *space, gpa_t at,
                                    uint64_t size, pfn_t frame, unsigned rights, bool refuse)
{
    struct gfn_range range;
    const struct region region = {
        .policy = REGION_DEVICE, .rights = (uint8_t)rights, .fork_refuse = refuse};
    enum cleave_status status = range_check(ctx, at, size, &range);
    if (status == CLEAVE_OK && rights != RIGHT_READ && rights != (RIGHT_READ | RIGHT_WRITE)) {
        status =
            mm_fail(ctx, CLEAVE_RIGHTS, "rights", rights, RIGHT_READ, RIGHT_READ | RIGHT_WRITE);
    }
    if (status == CLEAVE_OK &&
        (frame.v == 0 || size >> PAGE_SHIFT > UINT32_MAX - (uint64_t)frame.v)) {
        status = mm_fail(ctx, CLEAVE_RANGE, "frame", frame.v, 1, UINT32_MAX - (size >> PAGE_SHIFT));
    }
    struct stage stage = {.space = space,
                          .range = range,
                          .region = &region,
                          .device = frame,
                          .op = OP_DEVICE,
                          .argument = (uint64_t)frame.v << 8 | (uint64_t)refuse << 3 | rights};
    if (status == CLEAVE_OK) {
        status = space_begin_op(ctx, space, OP_DEVICE, range, stage.argument);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    if (space->op == OP_NONE && !space_is_empty(space, range)) {
        status = mm_fail(ctx, CLEAVE_EXISTS, "at", at.v, 1, 0);
    } else {
        status = stage_run(ctx, &stage);
    }
    space_end(ctx, space);
    return status;
}
