/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reset: a fork's entries become its base's again, at the highest level where they differ, and what
 * was private is dropped. Pages in `keep` ranges get their base's bytes back in place. Nothing is
 * allocated. The space's lock is held for writing, its base is immutable.
 */
#include "fork.h"
#include "notify.h"
#include "pager.h"
#include "pin.h"
#include "table.h"

struct reset {
    struct mm_ctx *ctx;
    struct space *space;
    const struct gfn_range *keep;
    unsigned count;
    struct flush_batch batch;
    enum cleave_status status;
};

static bool keeps(const struct reset *reset, gfn_t at, uint64_t pages)
{
    for (unsigned i = 0; i < reset->count; i++) {
        if (at.v < reset->keep[i].end.v && at.v + pages > reset->keep[i].start.v) {
            return true;
        }
    }
    return false;
}

/* What the base has somewhere: the entry as it reads at that level, and the slot it comes from (its
 * own, or that of the larger leaf it is a part of); null where the base has nothing. */
struct base_entry {
    pte_t entry;
    pte_t *slot;
};

/* What the base has for slot `i` of `level` beneath `above`. Where that is parked, what is beneath
 * need not be: the regions say what table_restrict() parks here. */
static struct base_entry base_below(struct base_entry above, unsigned level, unsigned i)
{
    struct base_entry below = {0, NULL};
    switch (pte_target(above.entry, level + 1)) {
    case PTE_KIND_TABLE:
        below.slot = &table_slots(pte_pfn(above.entry))[i];
        below.entry = pte_read(below.slot);
        break;
    case PTE_KIND_LEAF:
        below = (struct base_entry){pte_split_leaf(above.entry, level + 1, i), above.slot};
        break;
    case PTE_KIND_PAGED:
        below.entry = paged_part(above.entry, i);
        break;
    case PTE_KIND_ABSENT:
    case PTE_KIND_PARKED:
        break;
    }
    return below;
}

/* Takes a reference on what a base's entry points to. */
static enum cleave_status count_entry(struct mm_ctx *ctx, pte_t e, unsigned level)
{
    if (pte_holds_table(e, level)) {
        return node_get(ctx, pte_pfn(e));
    }
    return pte_holds_leaf(e, level) && pte_counted(e) ? frame_get(ctx, pte_pfn(e), level)
                                                      : CLEAVE_OK;
}

/* Replaces an entry by its base's, which more than one entry then points to: neither is writable.
 */
static void revert_entry(struct reset *r, pte_t *slot, struct base_entry base, unsigned level)
{
    bool shared = pte_holds_leaf(base.entry, level) && (base.entry & PTE_SHARED);

    r->status = count_entry(r->ctx, base.entry, level);
    if (r->status != CLEAVE_OK) {
        return;
    }
    if (flush_room(&r->batch) == 0) {
        flush_finish(r->ctx, &r->batch);
    }
    if (base.slot != NULL && !shared && pte_writable(pte_read(base.slot))) {
        pte_clear_bits(r->ctx, base.slot, pt_format.write);
    }
    pte_t new =
        shared || !(base.entry & pt_format.present) ? base.entry : pte_without_write(base.entry);
    port_point(r->ctx, POINT_ENTRY, (uint64_t)(uintptr_t)slot, new);
    pte_t old = __atomic_exchange_n(slot, new, __ATOMIC_ACQ_REL);
    if (pte_holds_table(old, level)) {
        flush_drop_table(&r->batch, pte_pfn(old));
    } else if (pte_holds_leaf(old, level) && pte_counted(old)) {
        flush_drop_frames(&r->batch, pte_pfn(old), level, 1);
    } else {
        flush_need(&r->batch);
    }
}

/* Would a first touch of the leaf's whole range find zeros? Then a hole of the base reads as the
 * kept frame does once it is zeroed. */
static bool fills_leaf(struct space *space, gfn_t at, unsigned level)
{
    struct gfn_range extent;
    enum region_policy policy = region_get_extent(space->regions, at, &extent).policy;
    return extent.end.v >= at.v + level_pages(level) && policy != REGION_NONE &&
           policy != REGION_DEVICE && policy != REGION_FOREIGN && policy != REGION_SHARED;
}

/* Copies the base's bytes back into a leaf that stays. False when it cannot stay. */
static bool keep_leaf(struct reset *r, pte_t *slot, pte_t base, unsigned level, gfn_t at)
{
    pte_t e = pte_read(slot);
    if (level > 1 || !pte_holds_leaf(e, level) || (e & (PTE_SHARED | PTE_FOREIGN | PTE_DEVICE)) ||
        !(base == 0 ? fills_leaf(r->space, at, level)
                    : pte_holds_leaf(base, level) && !(base & PTE_SHARED)) ||
        !frame_is_exclusive(r->ctx, pte_pfn(e), level, 0)) {
        return false;
    }
    if (base == 0) {
        port_zero_pages(frame_address(pte_pfn(e)), level_pages(level));
    } else {
        port_copy_pages(frame_address(pte_pfn(e)), frame_address(pte_pfn(base)),
                        level_pages(level));
        /* Rights are the base's; write stays where the base's regions allow it. */
        bool exec = !pte_is_parked(base) && pte_executable(base);
        while (!pte_is_parked(e) && !pte_replace(r->ctx, slot, e, pte_set_exec(e, exec))) {
            e = pte_read(slot);
        }
    }
    if (region_summary(r->space->regions, at, level) & REGION_HAS_NO_WRITE) {
        pte_clear_bits(r->ctx, slot, pt_format.write);
    }
    flush_need(&r->batch);
    return true;
}

static bool same_target(pte_t a, pte_t b)
{
    const pte_t rights = pt_format.write | pt_format.accessed | pt_format.dirty | PTE_PENDING;
    return ((a ^ b) & ~rights) == 0;
}

/* Reverts the entries of `table`, an exclusive one, beneath the base's entry `above`. Stops when
 * the budget is gone: what was reverted is recognised by its target and passed over next time. */
static void revert_table(struct reset *r, pfn_t table, gfn_t base_at, struct base_entry above)
{
    unsigned level = table_level(table);
    uint64_t pages = level_pages(level);
    pte_t *slots = table_slots(table);

    for (unsigned i = 0; i < TABLE_ENTRIES && r->status == CLEAVE_OK; i++) {
        gfn_t at = gfn(base_at.v + i * pages);
        pte_t e = pte_read(&slots[i]);
        struct base_entry base = base_below(above, level, i);
        if (at.v + pages <= r->space->op_at.v || same_target(e, base.entry)) {
            continue;
        }
        bool kept = keeps(r, at, pages);
        if (kept && pte_holds_table(e, level) && node_count(pte_pfn(e)) == 1) {
            revert_table(r, pte_pfn(e), at, base);
        } else if (!kept || !keep_leaf(r, &slots[i], base.entry, level, at)) {
            revert_entry(r, &slots[i], base, level);
        } else if (level > 0) { /* a block was copied */
            r->space->op_at = gfn(at.v + pages);
            r->status = mm_spend(r->ctx, pages) ? CLEAVE_OK : CLEAVE_AGAIN;
        }
    }
    /* What the base has, or the fork still has, may hide rights that the regions do not give. */
    table_restrict(r->ctx, r->space, table, base_at, RIGHT_READ);
    table_restrict(r->ctx, r->space, table, base_at, RIGHT_WRITE);
    table_restrict(r->ctx, r->space, table, base_at, RIGHT_EXEC);
    flush_need(&r->batch);
    if (level == 0 && r->count != 0 && r->status == CLEAVE_OK) {
        r->space->op_at = gfn(base_at.v + TABLE_ENTRIES);
        r->status = mm_spend(r->ctx, TABLE_ENTRIES) ? CLEAVE_OK : CLEAVE_AGAIN;
    }
}

static void revert_root(struct reset *r)
{
    pte_t *base = table_slots(r->space->base->root);
    pte_t *slots = table_slots(r->space->root);

    for (unsigned i = 0; i < TABLE_ENTRIES && r->status == CLEAVE_OK; i++) {
        gfn_t at = gfn(i * level_pages(ROOT_LEVEL));
        struct base_entry b = {pte_read(&base[i]), &base[i]};
        pte_t e = pte_read(&slots[i]);
        if (at.v + level_pages(ROOT_LEVEL) <= r->space->op_at.v || same_target(e, b.entry)) {
            continue;
        }
        if (pte_holds_table(e, ROOT_LEVEL) && node_count(pte_pfn(e)) == 1 &&
            keeps(r, at, level_pages(ROOT_LEVEL))) {
            revert_table(r, pte_pfn(e), at, b);
        } else {
            revert_entry(r, &slots[i], b, ROOT_LEVEL);
        }
    }
}

static enum cleave_status keep_check(struct mm_ctx *ctx, const struct gfn_range *keep,
                                     unsigned count)
{
    if (count > RESET_KEEP_MAX) {
        return mm_fail(ctx, CLEAVE_COUNT, "count", count, 0, RESET_KEEP_MAX);
    }
    for (unsigned i = 0; i < count; i++) {
        if (keep[i].start.v >= keep[i].end.v) {
            return mm_fail(ctx, CLEAVE_COUNT, "keep", i, 0, count - 1);
        }
        if (keep[i].end.v > GUEST_PAGES) {
            return mm_fail(ctx, CLEAVE_RANGE, "keep", keep[i].end.v, 1, GUEST_PAGES);
        }
    }
    return CLEAVE_OK;
}

/* The space for writing and its base for reading, lower address first: a pager may still split a
 * paged entry of the base, for which tables are copied. */
static void lock_both(struct mm_ctx *ctx, struct space *space)
{
    struct space *base = space->base; /* stays as long as the space */
    bool first = base != NULL && (uintptr_t)base < (uintptr_t)space;

    if (first) {
        read_lock(ctx, &base->lock, RANK_SPACE);
    }
    write_lock(ctx, &space->lock, RANK_SPACE);
    space_turn(space);
    if (base != NULL && !first) {
        read_lock(ctx, &base->lock, RANK_SPACE);
    }
}

static void unlock_both(struct mm_ctx *ctx, struct space *space)
{
    if (space->base != NULL) {
        read_unlock(ctx, &space->base->lock, RANK_SPACE);
    }
    write_unlock(ctx, &space->lock, RANK_SPACE);
}

/* Locks a space that may be reset, or whose reset goes on. */
static enum cleave_status reset_begin(struct mm_ctx *ctx, struct space *space)
{
    lock_both(ctx, space);
    enum cleave_status status = CLEAVE_OK;
    if (space->state != SPACE_ALIVE) {
        status = mm_fail(ctx, space->state == SPACE_FROZEN ? CLEAVE_FROZEN : CLEAVE_DYING, "space",
                         space->id, 1, 0);
    } else if (space->op != OP_NONE && space->op != OP_RESET) {
        status = mm_fail(ctx, CLEAVE_BUSY, "space", space->op, OP_NONE, OP_RESET);
    } else if (space->base == NULL) {
        status = mm_fail(ctx, CLEAVE_NO_BASE, "space", space->id, 1, 0);
    } else if (space->attachment_count != 0) {
        const struct gfn_range all = {gfn(0), gfn(GUEST_PAGES)};
        status = mm_fail(ctx, CLEAVE_BUSY, "space", attachment_next(space, NULL, all)->id, 1, 0);
    }
    if (status == CLEAVE_OK && (region_summary_all(space->regions) & REGION_HAS_FORK) &&
        pager_uses(ctx, space)) {
        /* Its window would go, and with it references that are the loads'. */
        status = mm_fail(ctx, CLEAVE_BUSY, "space", space->id, 1, 0);
    }
    if (status != CLEAVE_OK) {
        unlock_both(ctx, space);
    }
    return status;
}

/* Where a reset stands that has not given up the space's own foreign maps and regions. */
#define FIRST_PHASE gfn(UINT64_MAX)

/* The regions are the base's again. Where they give less, nothing has it from now on: the entries
 * may be reverted calls later. */
static enum cleave_status revert_regions(struct mm_ctx *ctx, struct space *space)
{
    struct flush_batch batch;
    if (space->regions == space->base->regions) {
        return CLEAVE_OK;
    }
    enum cleave_status status = region_share(ctx, space->base->regions);
    if (status != CLEAVE_OK) {
        return status;
    }
    space->op_regions = space->regions;
    space->regions = space->base->regions;
    if (region_summary_all(space->regions) & (REGION_HAS_NO_WRITE | REGION_HAS_NO_EXEC)) {
        flush_begin(&batch, space);
        table_restrict(ctx, space, space->root, gfn(0), RIGHT_READ);
        table_restrict(ctx, space, space->root, gfn(0), RIGHT_WRITE);
        table_restrict(ctx, space, space->root, gfn(0), RIGHT_EXEC);
        flush_need(&batch);
        flush_finish(ctx, &batch);
    }
    return CLEAVE_OK;
}

/* First phase, before any entry: the space's maps of others go, and the regions are the base's
 * again. The lock is let go on the way, and is not held with CLEAVE_AGAIN. */
static enum cleave_status give_up_regions(struct mm_ctx *ctx, struct space *space)
{
    const struct gfn_range everything = {gfn(0), gfn(GUEST_PAGES)};
    enum cleave_status status = CLEAVE_OK;

    if (region_summary_all(space->regions) & REGION_HAS_FORK) {
        unlock_both(ctx, space);
        status = foreign_release_mapper(ctx, space);
        if (status != CLEAVE_OK) {
            return status;
        }
        lock_both(ctx, space);
    }
    if (space->state != SPACE_ALIVE) {
        return mm_fail(ctx, CLEAVE_DYING, "space", space->id, 1, 0);
    }
    if (space->op != OP_RESET || space->op_at.v != FIRST_PHASE.v) {
        unlock_both(ctx, space);
        return CLEAVE_AGAIN; /* another call for the same space was faster: the next one looks */
    }
    space_unfill(space, everything);
    status = revert_regions(ctx, space);
    if (status != CLEAVE_OK) {
        space->op = OP_NONE;
    } else {
        space->forget = everything;
    }
    space->op_at = gfn(0);
    return status;
}

enum cleave_status space_reset(struct mm_ctx *ctx, struct space *space,
                               const struct gfn_range *keep, unsigned count)
{
    struct reset r = {.ctx = ctx, .space = space, .keep = keep, .count = count};
    r.status = keep_check(ctx, keep, count);
    if (r.status == CLEAVE_OK) {
        r.status = reset_begin(ctx, space);
    }
    if (r.status != CLEAVE_OK) {
        return r.status;
    }
    if (space->op == OP_NONE) {
        space->op = OP_RESET;
        space->op_at = FIRST_PHASE;
        space->op_walk = gfn(0);
    }
    if (space->op_at.v == FIRST_PHASE.v) {
        r.status = give_up_regions(ctx, space);
        if (r.status == CLEAVE_AGAIN) {
            return r.status;
        }
    }
    if (r.status == CLEAVE_OK && !channel_forget_some(ctx, space, space->op_regions)) {
        r.status = CLEAVE_AGAIN;
    }
    if (r.status == CLEAVE_OK) {
        flush_begin(&r.batch, space);
        revert_root(&r);
        flush_finish(ctx, &r.batch);
    }
    if (r.status == CLEAVE_OK &&
        (!region_drop(ctx, &space->op_regions) || !table_reap(ctx, space->payer.pool))) {
        r.status = CLEAVE_AGAIN;
    }
    if (r.status == CLEAVE_OK) {
        space->op = OP_NONE;
        space->op_at = gfn(0);
        space->collapse_hint = gfn(UINT64_MAX);
        if (space->reserve_goal > space->payer.reserved) {
            /* The reset is done: where others took the frames meanwhile, it does without the
             * promise. */
            (void)!pool_reserve(ctx, &space->payer, space->reserve_goal - space->payer.reserved);
        }
    }
    unlock_both(ctx, space);
    if (r.status == CLEAVE_AGAIN) {
        port_point(ctx, POINT_PREEMPT, space->id, OP_RESET);
    }
    return r.status;
}
