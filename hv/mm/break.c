/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Copy-on-write broken for one write: the source is held and the target had under the table's lock,
 * copied with no lock held, compared and put in place, and writable only after a flush. Called in
 * the rounds of fault.c, under the readers' side of the space's lock.
 */
#include "collapse.h"
#include "fault_round.h"
#include "pin.h"
#include "table.h"

/* Rights of a new leaf of `level` for this space's region. */
static unsigned leaf_rights(const struct fault *f, unsigned level)
{
    unsigned rights = f->region.rights;
    if (f->region.armed || f->region.policy == REGION_READ_ONLY) {
        rights &= ~(unsigned)RIGHT_WRITE;
    }
    if (level > 0 && !machine.huge_exec) {
        rights &= ~(unsigned)RIGHT_EXEC;
    }
    return rights;
}

/* Has the leaf of `level` at `at` the faulting page's region throughout? */
static bool in_extent(const struct fault *f, gfn_t at, unsigned level)
{
    gfn_t first = level_align(at, level);
    return first.v >= f->extent.start.v && first.v + level_pages(level) <= f->extent.end.v;
}

/* --- Preparing frames under the table lock, filling them without ------------------------------ */

/* Where the copy of the page in `slot` of `table` goes: its own offset in the run set aside for the
 * table, which is begun here; any frame when there is none to be had. */
static enum cleave_status alloc_copy(struct fault *f, const struct walk *walk, gfn_t at, pfn_t *out)
{
    struct frame *table = frame_of(walk->table, 0);
    pfn_t aside = pfn(table->rmap);

    if (!pool_is_aside(aside, walk->table)) {
        aside = PFN_NONE;
        if (f->region.order > 0 && f->payer->reserved == 0) {
            aside = pool_set_aside(f->ctx, f->payer->pool, walk->table);
        }
        table->rmap = aside.v;
    }
    *out = pfn_add(aside, level_slot(at, 0));
    if (aside.v != 0 && pool_alloc_at(f->ctx, f->payer, *out, FRAME_DATA) == CLEAVE_OK) {
        return CLEAVE_OK;
    }
    return pool_alloc(f->ctx, f->payer, 0, FRAME_DATA, out);
}

/* May the page at `at`, a neighbour of the faulting one, be copied along with it? */
static bool copies_along(struct fault *f, const struct walk *walk, gfn_t at)
{
    pte_t e = pte_read(&table_slots(walk->table)[level_slot(at, 0)]);
    return in_extent(f, at, 0) && pte_is_leaf(e, 0) &&
           !(e & (PTE_SHARED | PTE_DEVICE | PTE_FOREIGN)) && !pte_writable(e) &&
           !frame_is_exclusive(f->ctx, pte_pfn(e), 0, 0);
}

/* The walk stands on a shared 4 KiB leaf: prepares a copy of it, and of its neighbours in the
 * grain. */
static enum need prepare_grain(struct fault *f, const struct walk *walk)
{
    uint64_t pages = UINT64_C(1) << f->space->grain;
    gfn_t first = gfn(f->at.v & ~(pages - 1));
    pfn_t to = f->copy;
    enum cleave_status status = CLEAVE_OK;

    f->copy = PFN_NONE;
    if (to.v == 0) {
        status = alloc_copy(f, walk, f->at, &to);
    }
    if (status != CLEAVE_OK) {
        return fault_fail(f, status);
    }
    status = prepared_add(f->ctx, &f->prepared, f->at, 0, walk->entry, to);
    if (status != CLEAVE_OK) {
        return fault_fail(f, status);
    }
    bool alone = pages == 1 || f->space->by_page || f->space->attachment_count != 0;
    for (uint64_t i = 0; i < pages && !alone; i++) {
        gfn_t at = gfn(first.v + i);
        if (at.v == f->at.v || level_slot(at, 0) / pages != level_slot(f->at, 0) / pages ||
            !copies_along(f, walk, at)) {
            continue;
        }
        pte_t e = pte_read(&table_slots(walk->table)[level_slot(at, 0)]);
        if (alloc_copy(f, walk, at, &to) != CLEAVE_OK ||
            prepared_add(f->ctx, &f->prepared, at, 0, e, to) != CLEAVE_OK) {
            break; /* neighbours are a favour */
        }
    }
    return NEED_FILL;
}

/* The walk stands on a hole: prepares a zeroed frame as large as region, alignment and pool allow.
 */
enum need fault_first_touch(struct fault *f, const struct walk *walk)
{
    if (f->region.policy == REGION_DEVICE || f->region.policy == REGION_FOREIGN) {
        return fault_fail(f, mm_fail(f->ctx, CLEAVE_FAULT, "at", f->at.v << PAGE_SHIFT, 1, 0));
    }
    unsigned order = f->region.order < 1 ? 0 : 1; /* larger ones come from space_map() */
    for (order = order < walk->level ? order : walk->level;; order--) {
        gfn_t first = level_align(f->at, order);
        bool fits = in_extent(f, first, order);
        pfn_t to;
        enum cleave_status status = CLEAVE_NO_MEMORY;
        if (fits) {
            status = pool_alloc(f->ctx, f->payer, order, FRAME_DATA, &to);
        }
        if (status == CLEAVE_OK) {
            status = prepared_add(f->ctx, &f->prepared, first, order, 0, to);
            return status == CLEAVE_OK ? NEED_FILL : fault_fail(f, status);
        }
        if (order == 0) {
            return fault_fail(f, status);
        }
    }
}

/* --- Putting prepared frames in place --------------------------------------------------------- */

/* Replaces one entry by its prepared leaf if it still is what was copied. A leaf that takes the
 * place of another frame is not writable before every CPU has forgotten that one: else one vcpu
 * could read old bytes after another has written new ones. */
static bool commit_one(struct fault *f, const struct walk *walk, struct prepared_item *item,
                       unsigned rights)
{
    pte_t *slot = &table_slots(walk->table)[level_slot(item->at, item->level)];
    bool copy = item->from != 0;
    pte_t leaf = pte_make_leaf(item->to, item->level, rights, 0);
    pte_t now = pte_read(slot);
    const pte_t flags = pt_format.accessed | pt_format.dirty;

    leaf = copy ? pte_without_write(leaf) | PTE_PENDING : leaf;
    do {
        if (((now ^ item->from) & ~flags) != 0) {
            return false;
        }
    } while (!pte_replace(f->ctx, slot, now, leaf) && (now = pte_read(slot), true));
    frame_set_rmap(item->to, item->level, walk->table, level_slot(item->at, item->level));
    item->to = PFN_NONE;
    if (!copy) {
        f->space->stats.zeroed += level_pages(item->level);
        return true;
    }
    flush_drop_frames(&f->batch, pte_pfn(now), item->level, 1);
    f->space->stats.pages_copied += item->level == 0;
    f->space->stats.blocks_copied += item->level == 1;
    f->pending[f->pending_count].at = item->at;
    f->pending[f->pending_count].leaf = leaf;
    f->pending_count++;
    f->pending_level = item->level;
    return true;
}

/* The flush is done: gives the pending leaves, in the walk's table, their write bits where nothing
 * changed meanwhile. */
static void give_pending(struct fault *f, const struct walk *walk)
{
    const pte_t flags = pt_format.accessed | pt_format.dirty;
    unsigned count = f->pending_count;
    bool may = walk->level == f->pending_level && (leaf_rights(f, walk->level) & RIGHT_WRITE);

    f->pending_count = 0;
    for (unsigned i = 0; i < count && may; i++) {
        gfn_t at = f->pending[i].at;
        pte_t leaf = f->pending[i].leaf;
        pte_t *slot = &table_slots(walk->table)[level_slot(at, walk->level)];
        pte_t now = pte_read(slot);
        pfn_t page = pfn_add(pte_pfn(leaf), at.v & (level_pages(walk->level) - 1));
        uint64_t own = attachments_at(f->space, at, page);
        /* Not in_extent(): pages of one large leaf may have regions that all allow the write. */
        unsigned lacks =
            region_summary(f->space->regions, level_align(at, walk->level), walk->level);
        if (((now ^ leaf) & ~flags) != 0 || (lacks & REGION_HAS_NO_WRITE) ||
            !frame_is_exclusive(f->ctx, pte_pfn(leaf), walk->level, own)) {
            continue;
        }
        while (((now ^ leaf) & ~flags) == 0 &&
               !pte_replace(f->ctx, slot, now, pte_with_write(now & ~PTE_PENDING))) {
            now = pte_read(slot);
        }
    }
}

/* Walks again and installs what was prepared. The first item is the faulting page's. */
enum need fault_commit(struct fault *f)
{
    struct prepared *p = &f->prepared;
    unsigned level = p->item[0].level;
    bool hole = p->item[0].from == 0;
    unsigned flags = (hole ? WALK_MAKE : 0u) | (f->access == ACCESS_WRITE ? WALK_WRITE : 0u);
    struct walk walk;
    bool done = false, given = false;

    enum cleave_status status =
        walk_exclusive(f->ctx, f->space, f->payer, f->at, level, flags, &f->batch, &walk);
    if (status != CLEAVE_OK) {
        return fault_fail(f, status);
    }
    /* A map of a page of the block came meanwhile, which would not follow: page by page, then. */
    bool mapped = level > 0 && !hole && f->space->attachment_count != 0;
    if (walk.level == level && !mapped) {
        for (unsigned i = 0; i < p->count; i++) {
            bool installed = in_extent(f, p->item[i].at, level) &&
                             commit_one(f, &walk, &p->item[i], leaf_rights(f, level));
            done = i == 0 ? installed : done;
        }
        f->pending_turns = space_turns(f->space);
        collapse_note(f->space, &walk);
        /* Where no other CPU runs the space, the flush needs no waiting, nor another round. */
        given = done && !hole && f->space->foreign_count == 0 && flush_alone(f->ctx, &f->batch);
        if (given) {
            give_pending(f, &walk);
        }
    }
    walk_end(f->ctx, &walk);
    if (!done) {
        f->space->stats.lost_races++;
        f->pending_count = 0; /* neighbours wait for their own faults */
        return NEED_AGAIN;
    }
    return hole || given ? NEED_NOTHING : NEED_CONFIRM;
}

/* The flush is done: walks again and gives the pending leaves their write bits. Not where something
 * may have changed twice: a frame that came back to its entry with a later copy is pending for a
 * flush of its own. */
enum need fault_confirm(struct fault *f)
{
    struct walk walk;

    enum cleave_status status = walk_exclusive(f->ctx, f->space, f->payer, f->at, f->pending_level,
                                               WALK_WRITE, &f->batch, &walk);
    if (status != CLEAVE_OK) {
        f->pending_count = 0;
        return fault_fail(f, status);
    }
    bool changed = space_turns(f->space) != f->pending_turns;
    if (changed) {
        f->pending_count = 0;
    } else {
        give_pending(f, &walk);
    }
    walk_end(f->ctx, &walk);
    return changed ? NEED_AGAIN : NEED_NOTHING;
}

/* --- Writes ----------------------------------------------------------------------------------- */

/* Sets the write bit of the walk's leaf, and of the other leaves of its table that may have it. */
static enum need give_write(struct fault *f, struct walk *walk)
{
    gfn_t base = level_align(f->at, walk->level + 1);
    pte_t e = walk->entry;

    while (!pte_replace(f->ctx, walk->slot, e, pte_with_write(e))) {
        e = pte_read(walk->slot);
    }
    frame_set_rmap(pte_pfn(e), walk->level, walk->table, level_slot(f->at, walk->level));
    f->space->stats.reused++;
    f->space->stats.restored += table_give_write(f->ctx, f->space, walk->table, base);
    return NEED_NOTHING;
}

enum need fault_split(struct fault *f, struct walk *walk)
{
    enum cleave_status status = table_split_leaf(f->ctx, f->payer, walk, &f->batch);
    return status == CLEAVE_OK ? NEED_AGAIN : fault_fail(f, status);
}

/* Is the walk's leaf held by this space alone, its own pins and foreign maps apart? */
static bool exclusive_leaf(struct fault *f, const struct walk *walk)
{
    pfn_t frame = pfn_add(pte_pfn(walk->entry), f->at.v & (level_pages(walk->level) - 1));
    uint64_t own = attachments_at(f->space, f->at, frame);
    return frame_is_exclusive(f->ctx, pte_pfn(walk->entry), walk->level, own);
}

/* Splits a leaf of which one page will be copied next: its frame is had at once, and the walk
 * goes on to the page, unless that is exclusive now. */
static enum need split_for_copy(struct fault *f, struct walk *walk)
{
    if (walk->level != 1 || f->region.order == 0 || f->payer->reserved != 0 || f->copy.v != 0) {
        return fault_split(f, walk);
    }
    enum cleave_status status = table_split_for_copy(f->ctx, f->payer, walk, &f->batch, &f->copy);
    if (status != CLEAVE_OK) {
        return fault_fail(f, status);
    }
    walk_into(f->ctx, walk);
    return exclusive_leaf(f, walk) ? NEED_AGAIN : prepare_grain(f, walk);
}

/* Does a foreign map of the page still show the frame that another vcpu's copy replaced? */
static bool unsettled(struct fault *f, const struct walk *walk)
{
    pfn_t frame = pfn_add(pte_pfn(walk->entry), f->at.v & (level_pages(walk->level) - 1));
    return f->space->foreign_count != 0 && attachments_unsettled(f->space, f->at, frame);
}

/* The walk's leaf is shared: prepares a copy, or splits it. */
static enum need copy_leaf(struct fault *f, struct walk *walk)
{
    gfn_t first = level_align(f->at, walk->level);

    f->pending_count = 0;
    if (walk->level == 0) {
        return prepare_grain(f, walk);
    }
    if (walk->level == 1 && f->region.whole && f->payer->reserved == 0 &&
        f->space->attachment_count == 0 && !f->space->by_page && in_extent(f, first, 1)) {
        pfn_t to;
        if (pool_alloc(f->ctx, f->payer, 1, FRAME_DATA, &to) == CLEAVE_OK) {
            enum cleave_status status =
                prepared_add(f->ctx, &f->prepared, first, 1, walk->entry, to);
            return status == CLEAVE_OK ? NEED_FILL : fault_fail(f, status);
        }
    }
    return split_for_copy(f, walk);
}

/* The walk stands on a leaf, all tables above are exclusive and writable. */
enum need fault_write_leaf(struct fault *f, struct walk *walk)
{
    gfn_t first = level_align(f->at, walk->level);
    bool mixed = walk->level > 0 &&
                 (region_summary(f->space->regions, first, walk->level) & REGION_HAS_NO_WRITE) != 0;
    if (pte_writable(walk->entry)) {
        /* A table above had lost the bit; or another vcpu was faster, or the translation was old.
         */
        if (walk->given) {
            f->space->stats.restored += table_give_write(f->ctx, f->space, walk->table,
                                                         level_align(f->at, walk->level + 1));
        }
        return NEED_NOTHING;
    }
    if (walk->entry & PTE_FOREIGN) {
        return NEED_FOREIGN;
    }
    if (mixed) {
        return fault_split(f, walk);
    }
    bool follow = unsettled(f, walk);
    if ((walk->entry & PTE_PENDING) || follow) {
        /* Another vcpu's copy, or one that a fork left so: flush, then as if it were ours. */
        flush_need(&f->batch);
        f->pending[0].at = f->at;
        f->pending[0].leaf = walk->entry & ~(pt_format.accessed | pt_format.dirty);
        f->pending_count = 1;
        f->pending_level = walk->level;
        f->pending_turns = space_turns(f->space);
        return follow || exclusive_leaf(f, walk) ? NEED_CONFIRM : copy_leaf(f, walk);
    }
    if (walk->entry & (PTE_SHARED | PTE_DEVICE)) {
        while (!pte_replace(f->ctx, walk->slot, walk->entry, pte_with_write(walk->entry))) {
            walk->entry = pte_read(walk->slot);
        }
        return NEED_NOTHING;
    }
    return exclusive_leaf(f, walk) ? give_write(f, walk) : copy_leaf(f, walk);
}
