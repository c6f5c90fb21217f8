/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Moving a range of guest-physical memory, under the writers' side of the space's lock. First all
 * that can fail and that no guest can see: shared frames are copied, leaves split to what fits at
 * both ends, tables made at the target, the new region tree built beside the old. Then entries and
 * regions move, which cannot fail.
 */
#include "fork.h"
#include "notify.h"
#include "pager.h"
#include "pin.h"
#include "table.h"
#include "unshare.h"

struct move {
    struct mm_ctx *ctx;
    struct space *space;
    struct gfn_range from, to;
    struct flush_batch batch;
    region_word_t regions; /* the tree as it is to be */
    uint64_t copied;       /* 4 KiB pages */
    unsigned pruned;       /* tables taken out */
};

static gfn_t target_of(const struct move *m, gfn_t at)
{
    return gfn(at.v - m->from.start.v + m->to.start.v);
}

/* Largest order, up to `limit`, of a leaf at source page `at` that has its alignment at both ends
 * and lies inside the range. */
static unsigned moving_order(const struct move *m, gfn_t at, unsigned limit)
{
    unsigned order = limit < LEAF_ORDERS - 1 ? limit : LEAF_ORDERS - 1;
    while (order > 0 && (((at.v | target_of(m, at).v) & (level_pages(order) - 1)) != 0 ||
                         at.v + level_pages(order) > m->from.end.v)) {
        order--;
    }
    return order;
}

/* What a walk finds at `at`, and where that ends. */
static pte_t look(const struct move *m, gfn_t at, unsigned *level, gfn_t *end)
{
    struct walk walk;
    walk_find(m->ctx, m->space, at, 0, &walk);
    walk_end(m->ctx, &walk);
    *level = walk.level;
    *end = gfn(level_align(at, walk.level).v + level_pages(walk.level));
    *end = end->v < m->from.end.v ? *end : m->from.end;
    return walk.entry;
}

static void make_room(struct move *m, unsigned drops)
{
    if (flush_room(&m->batch) < drops) {
        flush_finish(m->ctx, &m->batch);
    }
}

/* --- Checks ----------------------------------------------------------------------------------- */

static enum cleave_status check_ranges(struct mm_ctx *ctx, gpa_t from, gpa_t to, uint64_t size,
                                       struct move *m)
{
    enum cleave_status status = range_check(ctx, from, size, &m->from);
    if (status == CLEAVE_OK) {
        status = range_check(ctx, to, size, &m->to);
        if (status != CLEAVE_OK) {
            ctx->error.argument = "to";
        }
    }
    if (status == CLEAVE_OK && m->from.start.v < m->to.end.v && m->to.start.v < m->from.end.v) {
        status = mm_fail(ctx, CLEAVE_OVERLAP, "to", to.v, 1, 0);
    }
    return status;
}

static enum cleave_status check_regions(const struct move *m)
{
    uint64_t bytes = (m->from.end.v - m->from.start.v) << PAGE_SHIFT;
    struct gfn_range found;
    struct region region;

    if (region_count_words(m->space->regions, m->from, MOVE_MAX_WORDS) > MOVE_MAX_WORDS) {
        return mm_fail(m->ctx, CLEAVE_COUNT, "size", bytes, PAGE_SIZE, bytes - PAGE_SIZE);
    }
    if (region_find(m->space->regions, m->to.start, m->to.end, REGION_HAS_MEMORY, &found,
                    &region)) {
        return mm_fail(m->ctx, CLEAVE_EXISTS, "to", found.start.v << PAGE_SHIFT, 1, 0);
    }
    for (gfn_t at = m->from.start; at.v < m->from.end.v; at = found.end) {
        region = region_get_extent(m->space->regions, at, &found);
        if (region.policy == REGION_NONE) {
            return mm_fail(m->ctx, CLEAVE_NOT_MAPPED, "from", at.v << PAGE_SHIFT, 1, 0);
        }
        if (region.policy == REGION_FOREIGN) {
            return mm_fail(m->ctx, CLEAVE_POLICY, "from", at.v << PAGE_SHIFT, 1, 0);
        }
    }
    struct attachment *a = NULL;
    while ((a = attachment_next(m->space, a, m->from)) != NULL) {
        if (!a->detached) {
            return mm_fail(m->ctx, CLEAVE_BUSY, "from", a->id, 1, 0);
        }
    }
    return CLEAVE_OK;
}

/* Counts the leaves and paged entries as they would move; stops past the limit. A hole costs one
 * look at each table that leads to it. */
static enum cleave_status check_count(const struct move *m)
{
    uint64_t leaves = 0, holes = 0;
    gfn_t end;
    unsigned level;

    for (gfn_t at = m->from.start; at.v < m->from.end.v;) {
        bool hole = look(m, at, &level, &end) == 0;
        leaves += !hole;
        holes += hole;
        if (leaves <= MOVE_MAX_LEAVES && holes <= MOVE_MAX_HOLES && hole) {
            at = end;
            continue;
        }
        if (leaves > MOVE_MAX_LEAVES || holes > MOVE_MAX_HOLES) {
            return mm_fail(m->ctx, CLEAVE_COUNT, "size",
                           (m->from.end.v - m->from.start.v) << PAGE_SHIFT, PAGE_SIZE,
                           (at.v - m->from.start.v) << PAGE_SHIFT);
        }
        at.v += level_pages(moving_order(m, at, level));
    }
    return CLEAVE_OK;
}

/* --- What can fail ---------------------------------------------------------------------------- */

/* Makes the tables that lead to a target entry of `level`, which is then absent. */
static enum cleave_status prepare_target(struct move *m, gfn_t at, unsigned level)
{
    struct walk walk;
    make_room(m, ROOT_LEVEL + 1);
    enum cleave_status status =
        walk_exclusive(m->ctx, m->space, &m->space->payer, at, level,
                       WALK_MAKE | WALK_WRITE | WALK_EXEC, &m->batch, &walk);
    if (status != CLEAVE_OK) {
        return status;
    }
    MM_CHECK(walk.level == level && !pte_holds_leaf(walk.entry, level));
    pte_t old = pte_take(m->ctx, walk.slot);
    if (pte_holds_table(old, level)) {
        flush_drop_table(&m->batch,
                         pte_pfn(old)); /* left over beneath REGION_NONE: nothing in it */
        m->pruned++;
    }
    walk_end(m->ctx, &walk);
    return CLEAVE_OK;
}

/* Makes every source leaf one that can move, and its target. */
static enum cleave_status prepare_leaves(struct move *m)
{
    uint64_t leaves = 0;

    for (gfn_t at = m->from.start; at.v < m->from.end.v;) {
        struct standing now;
        unsigned order = moving_order(m, at, LEAF_ORDERS - 1);
        enum cleave_status status =
            leaf_unshare(m->ctx, m->space, at, order, true, &m->batch, &now);
        if (status != CLEAVE_OK) {
            return status;
        }
        uint64_t pages = level_pages(now.level);
        if (now.entry == 0) {
            at.v = level_align(at, now.level).v + pages;
            continue;
        }
        if (++leaves > MOVE_MAX_LEAVES) { /* where blocks had to be copied by the page */
            return mm_fail(m->ctx, CLEAVE_NO_MEMORY, "order", 1, 1, 1);
        }
        status = prepare_target(m, target_of(m, at), now.level);
        if (status != CLEAVE_OK) {
            return status;
        }
        at.v += pages;
        if (now.copied.v != 0) {
            m->copied += pages;
            if (at.v < m->from.end.v && !mm_spend(m->ctx, pages)) {
                port_point(m->ctx, POINT_PREEMPT, m->space->id, OP_MOVE);
                return CLEAVE_AGAIN;
            }
        }
    }
    return CLEAVE_OK;
}

static void drop_tree(struct move *m, region_word_t tree)
{
    uint64_t limit = REGION_DROPS;
    region_drop_some(m->ctx, NULL, tree, &limit);
}

/* Builds the region tree as it will be, sharing what stays. */
static enum cleave_status prepare_regions(struct move *m)
{
    const struct region none = {.policy = REGION_NONE};
    struct payer *payer = &m->space->payer;
    struct gfn_range extent;

    m->regions = m->space->regions;
    enum cleave_status status = region_share(m->ctx, m->regions);
    if (status != CLEAVE_OK) {
        return status;
    }
    for (gfn_t at = m->from.start; status == CLEAVE_OK && at.v < m->from.end.v; at = extent.end) {
        struct region region = region_get_extent(m->space->regions, at, &extent);
        extent.end = extent.end.v < m->from.end.v ? extent.end : m->from.end;
        struct gfn_range target = {target_of(m, at), target_of(m, extent.end)};
        status = region_set(m->ctx, payer, &m->regions, target, &region);
    }
    if (status == CLEAVE_OK) {
        status = region_set(m->ctx, payer, &m->regions, m->from, &none);
    }
    if (status != CLEAVE_OK) {
        drop_tree(m, m->regions);
    }
    return status;
}

/* --- What cannot fail ------------------------------------------------------------------------- */

/* Takes the entry at `at` out. The write and execute bits stay only as far as the region gives
 * them: a cleared bit above may have hidden them. */
static pte_t take_entry(struct move *m, gfn_t at, unsigned *level)
{
    struct walk walk;
    walk_find(m->ctx, m->space, at, 0, &walk);
    *level = walk.level;
    pte_t e = walk.entry;
    if (e != 0) {
        MM_CHECK(walk.exclusive);
        e = pte_take(m->ctx, walk.slot);
        unsigned lacks = region_summary(m->space->regions, at, walk.level);
        if (pte_is_leaf(e, walk.level)) {
            e = lacks & REGION_HAS_NO_WRITE ? pte_without_write(e) : e;
            e = lacks & REGION_HAS_NO_EXEC ? pte_set_exec(e, false) : e;
        }
        flush_need(&m->batch);
    }
    walk_end(m->ctx, &walk);
    return e;
}

static void put_entry(struct move *m, gfn_t at, unsigned level, pte_t e)
{
    struct walk walk;
    walk_find(m->ctx, m->space, at, level, &walk);
    MM_CHECK(walk.exclusive && walk.level == level);
    if (pte_target(e, level) == PTE_KIND_PAGED) {
        e = paged_own(m->space, e); /* the base has something else here */
    }
    MM_CHECK(pte_replace(m->ctx, walk.slot, 0, e));
    if (pte_holds_leaf(e, level) && pte_counted(e)) {
        frame_set_rmap(pte_pfn(e), level, walk.table, level_slot(at, level));
    }
    walk_end(m->ctx, &walk);
}

static void move_leaves(struct move *m)
{
    unsigned level;
    for (gfn_t at = m->from.start; at.v < m->from.end.v;) {
        pte_t e = take_entry(m, at, &level);
        if (e != 0) {
            put_entry(m, target_of(m, at), level, e);
        }
        at.v = level_align(at, level).v + level_pages(level);
    }
}

/* --- Tables left empty ------------------------------------------------------------------------ */

static bool table_is_empty(pfn_t table)
{
    const pte_t *slots = table_slots(table);
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        if (pte_read(&slots[i]) != 0) {
            return false;
        }
    }
    return true;
}

/* Takes out the empty tables of `range`, from the lowest up. */
static void prune(struct move *m, struct gfn_range range)
{
    for (unsigned level = 1; level <= ROOT_LEVEL; level++) {
        for (gfn_t at = range.start; at.v < range.end.v;) {
            struct walk walk;
            make_room(m, 1);
            walk_find(m->ctx, m->space, at, level, &walk);
            if (walk.level == level && walk.exclusive && pte_is_table(walk.entry, level) &&
                table_is_empty(pte_pfn(walk.entry))) {
                flush_drop_table(&m->batch, pte_pfn(pte_take(m->ctx, walk.slot)));
                m->pruned++;
            }
            at.v = level_align(at, walk.level).v + level_pages(walk.level);
            walk_end(m->ctx, &walk);
        }
    }
}

/* --- The whole -------------------------------------------------------------------------------- */

static enum cleave_status move_locked(struct move *m)
{
    enum cleave_status status = check_regions(m);
    if (status == CLEAVE_OK) {
        status = check_count(m);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    if (m->space->attachment_count != 0) {
        /* A pin's reference on a whole block would count for what moves away from it. */
        status = attachments_split(m->ctx, m->space, &m->batch);
    }
    if (status == CLEAVE_OK) {
        status = prepare_leaves(m);
    }
    if (status == CLEAVE_OK) {
        status = prepare_regions(m);
    }
    if (status != CLEAVE_OK) {
        if (status != CLEAVE_AGAIN) {
            prune(m, m->to);
        }
        return status;
    }
    channel_forget(m->ctx, m->space, m->from);
    space_unfill(m->space, m->from);
    move_leaves(m);
    region_word_t old = m->space->regions;
    m->space->regions = m->regions;
    channel_remember(m->ctx, m->space, m->to);
    drop_tree(m, old);
    prune(m, m->from);
    return CLEAVE_OK;
}

enum cleave_status space_move(struct mm_ctx *ctx, struct space *space, gpa_t from, gpa_t to,
                              uint64_t size, uint64_t *early_copies)
{
    struct move m = {.ctx = ctx, .space = space};
    *early_copies = 0;
    enum cleave_status status = check_ranges(ctx, from, to, size, &m);
    if (status != CLEAVE_OK) {
        return status;
    }
    status = space_begin(ctx, space);
    if (status != CLEAVE_OK) {
        return status;
    }
    flush_begin(&m.batch, space);
    status = move_locked(&m);
    flush_finish(ctx, &m.batch);
    table_reap_some(ctx, space->payer.pool, m.pruned);
    space->stats.early_copies += m.copied;
    *early_copies = m.copied;
    space_end(ctx, space);
    return status;
}
