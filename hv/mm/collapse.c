/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Collapse: a table whose leaves are, or can be made, the parts of one block becomes one leaf. The
 * parts that are missing are copied early, by the same steps as a write would (source held, copied
 * with no lock, entry compared, replaced): each step is complete in itself, so there is nothing to
 * undo. When all parts are in place the table is replaced by one store, flushed, and dropped; no
 * frame changes, so a write that goes through an old translation until the flush is not lost.
 */
#include "collapse.h"

#include "fault.h"
#include "pin.h"
#include "prepare.h"
#include "table.h"

struct collapse {
    struct mm_ctx *ctx;
    struct space *space;
    gfn_t base;         /* of the block */
    unsigned level;     /* of the leaf to come: 1 or 2 */
    pfn_t target;       /* the block that the parts lie in or go to */
    struct payer payer; /* pays for missing parts: what the others are charged to */
    struct region region;
    struct prepared prepared;
    struct flush_batch batch;
    pfn_t table; /* the table that was replaced */
};

/* Rounds for one block: protect, copy and install PREPARED_MAX pages at a time, with some to spare.
 */
#define COLLAPSE_ROUNDS (2 * TABLE_ENTRIES / PREPARED_MAX + 16)

void collapse_note(struct space *space, const struct walk *walk)
{
    pfn_t aside = pfn(frame_of(walk->table, 0)->rmap);
    if (walk->level != 0 || space->collapse_at == 0 || space->by_page ||
        !pool_is_aside(aside, walk->table)) {
        return;
    }
    /* A grain, or another vcpu's copy, may step over the number itself. */
    unsigned taken = TABLE_ENTRIES - run_of(aside, 1)->free_count;
    if (taken >= space->collapse_at && taken - space->collapse_at < PREPARED_MAX) {
        space->collapse_hint = level_align(walk->at, 1);
    }
}

void collapse_hinted(struct mm_ctx *ctx, struct space *space)
{
    gfn_t at = space->collapse_hint;
    struct mm_error error = ctx->error;
    uint64_t budget = ctx->budget;

    space->collapse_hint = gfn(UINT64_MAX);
    ctx->budget = UINT64_MAX; /* one block's worth */
    enum cleave_status status = space_collapse(ctx, space, gfn_to_gpa(at), 1);
    (void)status; /* a favour: whatever stood in its way, the space reads the same */
    ctx->budget = budget;
    ctx->error = error;
}

/* Does the entry in `slot` map the part of the target that belongs there? */
static bool in_place(const struct collapse *c, pte_t e, unsigned slot)
{
    return pte_pfn(e).v == c->target.v + slot * level_pages(c->level - 1);
}

/* May the block become one leaf as far as regions, pins and reservations go? */
static enum cleave_status check_block(struct collapse *c)
{
    struct gfn_range extent;
    const struct gfn_range block = {c->base, gfn(c->base.v + level_pages(c->level))};

    if (c->space->state != SPACE_ALIVE) {
        return mm_fail(c->ctx, c->space->state == SPACE_FROZEN ? CLEAVE_FROZEN : CLEAVE_DYING,
                       "space", c->space->id, 1, 0);
    }
    c->region = region_get_extent(c->space->regions, c->base, &extent);
    bool policy = c->region.policy == REGION_PRIVATE || c->region.policy == REGION_WIPE ||
                  c->region.policy == REGION_ABSENT || c->region.policy == REGION_PAGED;
    if (extent.start.v > block.start.v || extent.end.v < block.end.v || !policy ||
        c->region.notify || c->space->by_page || c->space->payer.reserved != 0 ||
        attachment_next(c->space, NULL, block) != NULL) {
        return mm_fail(c->ctx, CLEAVE_BUSY, "at", c->base.v << PAGE_SHIFT, 1, 0);
    }
    return CLEAVE_OK;
}

/* The block whose part the leaf in `slot` would be if it lay at its own offset; 0 when it does not
 * lie at one, or is not held by this space alone. */
static pfn_t block_of(const struct collapse *c, pte_t e, unsigned slot)
{
    unsigned level = c->level - 1;
    pfn_t start = pfn((uint32_t)(pte_pfn(e).v - slot * level_pages(level)));
    bool fits =
        start.v % level_pages(c->level) == 0 && frame_is_exclusive(c->ctx, pte_pfn(e), level, 0);
    return fits ? start : PFN_NONE;
}

/* Chooses the block that the parts go to: of the run set aside for the table's copies and the block
 * that the others came from, the one with more parts in place. Checks that every entry is a private
 * leaf. */
static enum cleave_status choose_target(struct collapse *c, pfn_t table)
{
    const pte_t *slots = table_slots(table);
    unsigned level = c->level - 1;
    pfn_t aside = pfn(frame_of(table, 0)->rmap);
    struct {
        pfn_t start;
        uint32_t account;
        unsigned parts;
    } run = {.start = aside}, home = {.parts = 0};

    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        pte_t e = pte_read(&slots[i]);
        if (pte_is_parked(e)) {
            return mm_fail(c->ctx, CLEAVE_BUSY, "at",
                           (c->base.v + i * level_pages(level)) << PAGE_SHIFT, 1, 0);
        }
        if (!pte_is_leaf(e, level) || (e & (PTE_SHARED | PTE_DEVICE | PTE_FOREIGN))) {
            return mm_fail(c->ctx, CLEAVE_NOT_MAPPED, "at",
                           (c->base.v + i * level_pages(level)) << PAGE_SHIFT, 1, 0);
        }
        pfn_t start = block_of(c, e, i);
        if (start.v != 0 && start.v == aside.v) {
            run.parts++;
            run.account = frame_of(pte_pfn(e), level)->account;
        } else if (start.v != 0 && (home.start.v == 0 || home.start.v == start.v)) {
            home.start = start;
            home.parts++;
            home.account = frame_of(pte_pfn(e), level)->account;
        }
    }
    bool use_run = run.parts >= home.parts;
    c->target = use_run ? run.start : home.start;
    c->payer.account = use_run ? run.account : home.account;
    if (run.parts + home.parts == 0) {
        return mm_fail(c->ctx, CLEAVE_BUSY, "at", c->base.v << PAGE_SHIFT, 1, 0);
    }
    return CLEAVE_OK;
}

/* Prepares copies of pages that are not in place. Those that can be written lose their write bit
 * first and are copied in a later round, after the flush. */
static enum cleave_status prepare_missing(struct collapse *c, pfn_t table)
{
    pte_t *slots = table_slots(table);
    enum cleave_status status = CLEAVE_OK;

    for (unsigned i = 0; i < TABLE_ENTRIES && c->prepared.count < PREPARED_MAX; i++) {
        pte_t e = pte_read(&slots[i]);
        if (in_place(c, e, i)) {
            continue;
        }
        if (c->level != 1) {
            return mm_fail(c->ctx, CLEAVE_BUSY, "at", c->base.v << PAGE_SHIFT, 1, 0);
        }
        if (pte_writable(e)) {
            pte_clear_bits(c->ctx, &slots[i], pt_format.write);
            flush_need(&c->batch);
            continue;
        }
        if (c->batch.needed) {
            continue; /* once something was protected, this round only protects */
        }
        pfn_t to = pfn_add(c->target, i);
        status = pool_alloc_at(c->ctx, &c->payer, to, FRAME_DATA);
        if (status == CLEAVE_OK) {
            status = prepared_add(c->ctx, &c->prepared, gfn(c->base.v + i), 0, e, to);
        }
        if (status != CLEAVE_OK) {
            return status;
        }
    }
    return c->prepared.count != 0 || c->batch.needed ? CLEAVE_AGAIN : CLEAVE_OK;
}

/* Puts the copies in place where nothing changed meanwhile. */
static enum cleave_status install_missing(struct collapse *c, pfn_t table)
{
    const pte_t flags = pt_format.accessed | pt_format.dirty;
    enum cleave_status status = CLEAVE_AGAIN; /* the next round looks for more */

    space_turn(c->space); /* a copy may go where an earlier one was */
    for (unsigned i = 0; i < c->prepared.count; i++) {
        struct prepared_item *item = &c->prepared.item[i];
        pte_t *slot = &table_slots(table)[level_slot(item->at, 0)];
        pte_t now = pte_read(slot);
        pte_t new = (pte_without_write(item->from) & ~pt_format.address) |
                    (uint64_t)item->to.v << 12 | PTE_PENDING;
        if (((now ^ item->from) & ~flags) != 0 || !pte_replace(c->ctx, slot, now, new)) {
            c->space->stats.lost_races++;
            status = mm_fail(c->ctx, CLEAVE_BUSY, "at", item->at.v << PAGE_SHIFT, 1, 0);
            continue;
        }
        flush_drop_frames(&c->batch, pte_pfn(now), 0, 1);
        frame_set_rmap(item->to, 0, table, level_slot(item->at, 0));
        item->to = PFN_NONE;
        c->space->stats.pages_copied++;
    }
    return status;
}

/* All parts are in place: gives their references to the head and replaces the table by one leaf,
 * with one store. `walk` stands on the entry that points to the table; both are locked. */
static enum cleave_status replace_table(struct collapse *c, struct walk *walk)
{
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        pfn_t part = pfn_add(c->target, i * level_pages(c->level - 1));
        if (!frame_is_exclusive(c->ctx, part, c->level - 1, 0)) {
            return mm_fail(c->ctx, CLEAVE_BUSY, "at", c->base.v << PAGE_SHIFT, 1, 0);
        }
    }
    enum cleave_status status = frame_merge(c->ctx, c->target, c->level);
    if (status != CLEAVE_OK) {
        return status;
    }
    unsigned rights = c->region.rights;
    rights &= machine.huge_exec ? RIGHT_ALL : ~(unsigned)RIGHT_EXEC;
    c->table = pte_pfn(walk->entry);
    const pte_t *slots = table_slots(c->table);
    pte_t pending = 0;
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        pending |= pte_read(&slots[i]) & PTE_PENDING;
    }
    rights &= pending ? ~(unsigned)RIGHT_WRITE : RIGHT_ALL; /* the next write flushes first */
    pte_t leaf = pte_make_leaf(c->target, c->level, rights, pending);
    while (!pte_replace(c->ctx, walk->slot, walk->entry, leaf)) {
        walk->entry = pte_read(walk->slot); /* accessed was set */
    }
    frame_set_rmap(c->target, c->level, walk->table, level_slot(c->base, c->level));
    flush_need(&c->batch);
    c->space->stats.collapsed++;
    return CLEAVE_OK;
}

/* One round under the readers' lock. CLEAVE_AGAIN: fill what was prepared, and go on. */
static enum cleave_status collapse_round(struct collapse *c)
{
    struct walk walk;
    enum cleave_status status = check_block(c);
    if (status != CLEAVE_OK) {
        return status;
    }
    walk_find(c->ctx, c->space, c->base, c->level, &walk);
    if (walk.level != c->level || !pte_holds_table(walk.entry, c->level)) {
        status = mm_fail(c->ctx, CLEAVE_NOT_MAPPED, "at", c->base.v << PAGE_SHIFT, 1, 0);
    } else if (walk.parked != 0 || !walk.exclusive || node_count(pte_pfn(walk.entry)) != 1) {
        status = mm_fail(c->ctx, CLEAVE_BUSY, "at", c->base.v << PAGE_SHIFT, 1, 0);
    } else {
        pfn_t table = pte_pfn(walk.entry);
        table_lock(c->ctx, table);
        if (c->prepared.count != 0) {
            status = install_missing(c, table);
        } else {
            status = choose_target(c, table);
            status = status == CLEAVE_OK ? prepare_missing(c, table) : status;
            status = status == CLEAVE_OK ? replace_table(c, &walk) : status;
        }
        table_unlock(c->ctx, table);
    }
    walk_end(c->ctx, &walk);
    return status;
}

/* The old table holds no references any more: those went to the block's head. */
static void drop_table(struct collapse *c)
{
    port_zero_pages(table_slots(c->table), 1);
    table_put(c->ctx, c->table);
    table_reap_some(c->ctx, c->space->payer.pool, 1);
}

/* Rounds until the block is one leaf, or something stands in the way. The only collapse of the
 * space. */
static enum cleave_status collapse_block(struct mm_ctx *ctx, struct space *space, gfn_t base,
                                         unsigned level)
{
    struct collapse c = {.ctx = ctx, .space = space, .base = base, .level = level};
    enum cleave_status status = CLEAVE_AGAIN;
    c.payer.pool = space->payer.pool;
    for (unsigned round = 0; round < COLLAPSE_ROUNDS; round++) {
        if (c.prepared.count == 0 && !mm_spend(ctx, PREPARED_MAX)) {
            port_point(ctx, POINT_PREEMPT, space->id, OP_COLLAPSE);
            return CLEAVE_AGAIN; /* every round so far is complete in itself */
        }
        bool filled = c.prepared.count != 0;
        flush_begin(&c.batch, space);
        read_lock(ctx, &space->lock, RANK_SPACE);
        status = collapse_round(&c);
        read_unlock(ctx, &space->lock, RANK_SPACE);
        flush_finish(ctx, &c.batch);
        if (filled || status != CLEAVE_AGAIN) {
            prepared_drop(ctx, &c.prepared);
        }
        if (status != CLEAVE_AGAIN) {
            break;
        }
        prepared_fill(ctx, &c.prepared);
    }
    if (status == CLEAVE_OK) {
        drop_table(&c);
    }
    return status == CLEAVE_AGAIN ? mm_fail(ctx, CLEAVE_BUSY, "at", base.v << PAGE_SHIFT, 1,
                                            0) /* a writer keeps being faster */
                                  : status;
}

enum cleave_status space_collapse(struct mm_ctx *ctx, struct space *space, gpa_t at, unsigned level)
{
    struct gfn_range range;
    if (level == 0 || level >= LEAF_ORDERS) {
        return mm_fail(ctx, CLEAVE_ORDER, "level", level, 1, LEAF_ORDERS - 1);
    }
    enum cleave_status status = range_check(ctx, at, level_size(level), &range);
    if (status == CLEAVE_OK && at.v % level_size(level) != 0) {
        status = mm_fail(ctx, CLEAVE_ALIGN, "at", at.v, level_size(level), level_size(level));
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    if (__atomic_exchange_n(&space->collapsing, 1, __ATOMIC_ACQUIRE) != 0) {
        /* A page that another collapse has just protected is not yet flushed: not to be copied. */
        return mm_fail(ctx, CLEAVE_BUSY, "at", at.v, 1, 0);
    }
    status = collapse_block(ctx, space, range.start, level);
    __atomic_store_n(&space->collapsing, 0, __ATOMIC_RELEASE);
    return status;
}
