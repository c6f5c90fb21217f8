/* SPDX-License-Identifier: BSD-2-Clause */
/* The early copy of pins and moves. Everything here is under the writers' side of a space's lock.
 */
#include "unshare.h"

#include "pin.h"
#include "table.h"

/* A free frame or block that the walk's leaf is copied to; PFN_NONE when it is to be split instead.
 */
static enum cleave_status destination(struct mm_ctx *ctx, struct space *space,
                                      const struct walk *walk, bool whole, uint64_t own, pfn_t *to)
{
    pfn_t from = pte_pfn(walk->entry);

    *to = PFN_NONE;
    if (walk->level == 0) {
        return pool_alloc(ctx, &space->payer, 0, FRAME_DATA, to);
    }
    /* A block that is only shared in part is cheaper to split than to copy. */
    bool parts_only = frame_references(ctx, from, walk->level) == 1 + own;
    if (walk->level == 1 && whole && !parts_only) {
        enum cleave_status status = pool_alloc(ctx, &space->payer, 1, FRAME_DATA, to);
        if (status != CLEAVE_OK) {
            *to = PFN_NONE; /* one page at a time, then */
        }
    }
    return CLEAVE_OK;
}

/* Replaces the walk's leaf by a read-only one of the copy `to`. */
static void replace_leaf(struct mm_ctx *ctx, struct walk *walk, pfn_t to, struct flush_batch *batch)
{
    pfn_t from = pte_pfn(walk->entry);
    pte_t old = walk->entry;
    pte_t leaf;

    port_copy_pages(frame_address(to), frame_address(from), level_pages(walk->level));
    do {
        old = pte_read(walk->slot);
        leaf = pte_with_pfn(pte_without_write(old) & ~pt_format.dirty, to);
    } while (!pte_replace(ctx, walk->slot, old, leaf));
    frame_set_rmap(to, walk->level, walk->table, level_slot(walk->at, walk->level));
    flush_drop_frames(batch, from, walk->level, 1);
    walk->entry = leaf;
}

/* One step at the entry where the walk stands: `*again` when it was split. */
static enum cleave_status unshare_entry(struct mm_ctx *ctx, struct space *space, struct walk *walk,
                                        unsigned order, bool copy, bool whole,
                                        struct flush_batch *batch, struct standing *out,
                                        bool *again)
{
    pfn_t to = PFN_NONE;
    *again = walk->level > order && walk->entry != 0;
    if (!*again && copy && pte_holds_leaf(walk->entry, walk->level) &&
        !(walk->entry & (PTE_SHARED | PTE_DEVICE | PTE_FOREIGN))) {
        pfn_t page = pfn_add(pte_pfn(walk->entry), walk->at.v & (level_pages(walk->level) - 1));
        uint64_t own = attachments_at(space, walk->at, page);
        if (!frame_is_exclusive(ctx, pte_pfn(walk->entry), walk->level, own)) {
            enum cleave_status status = destination(ctx, space, walk, whole, own, &to);
            if (status != CLEAVE_OK) {
                return status;
            }
            *again = to.v == 0;
        }
    }
    if (*again) {
        return table_split_leaf(ctx, &space->payer, walk, batch);
    }
    if (to.v != 0) {
        replace_leaf(ctx, walk, to, batch);
    }
    if (pte_holds_leaf(walk->entry, walk->level) && (walk->entry & PTE_PENDING)) {
        /* The caller flushes before any vcpu can fault again. */
        walk->entry = pte_clear_bits(ctx, walk->slot, PTE_PENDING) & ~PTE_PENDING;
        flush_need(batch);
    }
    *out = (struct standing){walk->level, walk->entry, to};
    return CLEAVE_OK;
}

static enum cleave_status settle(struct mm_ctx *ctx, struct space *space, gfn_t at, unsigned order,
                                 bool copy, bool whole, struct flush_batch *batch,
                                 struct standing *out)
{
    struct walk walk;
    bool again;

    walk_find(ctx, space, at, 0, &walk);
    *out = (struct standing){walk.level, walk.entry, PFN_NONE};
    walk_end(ctx, &walk);
    if (out->entry == 0) {
        return CLEAVE_OK;
    }
    do {
        if (flush_room(batch) < UNSHARE_DROPS) {
            flush_finish(ctx, batch);
        }
        enum cleave_status status =
            walk_exclusive(ctx, space, &space->payer, at, 0, 0, batch, &walk);
        if (status != CLEAVE_OK) {
            return status;
        }
        status = unshare_entry(ctx, space, &walk, order, copy, whole, batch, out, &again);
        walk_end(ctx, &walk);
        if (status != CLEAVE_OK) {
            return status;
        }
    } while (again);
    return CLEAVE_OK;
}

enum cleave_status leaf_unshare(struct mm_ctx *ctx, struct space *space, gfn_t at, unsigned order,
                                bool whole, struct flush_batch *batch, struct standing *out)
{
    return settle(ctx, space, at, order, true, whole, batch, out);
}

enum cleave_status leaf_settle(struct mm_ctx *ctx, struct space *space, gfn_t at, unsigned order,
                               struct flush_batch *batch, struct standing *out)
{
    return settle(ctx, space, at, order, false, false, batch, out);
}
