/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nested page faults. A fault walks under the readers' side of the space's lock and one table lock;
 * what takes long (copying, zeroing, asking a subscriber or pager) is done with no lock held, and the
 * walk is then repeated and the entry compared before it is replaced.
 */
#include "fault.h"

#include "collapse.h"
#include "notify.h"
#include "pager.h"
#include "pin.h"
#include "prepare.h"
#include "table.h"

/* Rounds that one call makes at most: split, copy, notify, load each restart the walk. */
#define FAULT_ROUNDS 16

/* What has to be done without locks before the walk is repeated. */
enum need {
    NEED_NOTHING,
    NEED_AGAIN,
    NEED_NOTIFY,
    NEED_FILL,
    NEED_LOAD,
    NEED_FOREIGN,
    NEED_CONFIRM,
    NEED_ERROR
};

struct fault {
    struct mm_ctx *ctx;
    struct space *space;
    struct payer *payer;
    struct vcpu_wait *wait;
    gfn_t at;
    enum access access;
    enum cleave_status status; /* NEED_ERROR */
    struct region region;
    struct gfn_range extent;
    struct flush_batch batch;
    struct prepared prepared;
    struct {
        gfn_t at;
        pte_t leaf;
    } pending[PREPARED_MAX]; /* leaves that may have their write bit once the batch is flushed */
    unsigned pending_count;
    unsigned pending_level;
    pte_t paged; /* NEED_LOAD */
    unsigned paged_level;
};

static enum need fail(struct fault *f, enum cleave_status status)
{
    f->status = status;
    return NEED_ERROR;
}

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

/* --- Preparing frames under the table lock, filling them without ------------------------------- */

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

/* The walk stands on a shared 4 KiB leaf: prepares a copy of it, and of its neighbours in the grain. */
static enum need prepare_grain(struct fault *f, const struct walk *walk)
{
    uint64_t pages = UINT64_C(1) << f->space->grain;
    gfn_t first = gfn(f->at.v & ~(pages - 1));
    pfn_t to;

    enum cleave_status status = alloc_copy(f, walk, f->at, &to);
    if (status != CLEAVE_OK) {
        return fail(f, status);
    }
    status = prepared_add(f->ctx, &f->prepared, f->at, 0, walk->entry, to);
    if (status != CLEAVE_OK) {
        return fail(f, status);
    }
    for (uint64_t i = 0; i < pages && pages > 1 && f->space->attachment_count == 0; i++) {
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

/* The walk stands on a hole: prepares a zeroed frame as large as region, alignment and pool allow. */
static enum need prepare_first_touch(struct fault *f, const struct walk *walk)
{
    if (f->region.policy == REGION_DEVICE || f->region.policy == REGION_FOREIGN) {
        return fail(f, mm_fail(f->ctx, CLEAVE_FAULT, "at", f->at.v << PAGE_SHIFT, 1, 0));
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
            return status == CLEAVE_OK ? NEED_FILL : fail(f, status);
        }
        if (order == 0) {
            return fail(f, status);
        }
    }
}

/* --- Putting prepared frames in place ----------------------------------------------------------- */

/* Replaces one entry by its prepared leaf if it still is what was copied. A leaf that takes the place
 * of another frame is not writable before every CPU has forgotten that one: else one vcpu could read
 * old bytes after another has written new ones. */
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

/* Walks again and installs what was prepared. The first item is the faulting page's. */
static enum need commit(struct fault *f)
{
    struct prepared *p = &f->prepared;
    unsigned level = p->item[0].level;
    bool hole = p->item[0].from == 0;
    unsigned flags = (hole ? WALK_MAKE : 0u) | (f->access == ACCESS_WRITE ? WALK_WRITE : 0u);
    struct walk walk;
    bool done = false;

    enum cleave_status status = walk_exclusive(f->ctx, f->space, f->payer, f->at, level, flags,
                                               &f->batch, &walk);
    if (status != CLEAVE_OK) {
        return fail(f, status);
    }
    if (walk.level == level) {
        for (unsigned i = 0; i < p->count; i++) {
            bool installed = in_extent(f, p->item[i].at, level) &&
                             commit_one(f, &walk, &p->item[i], leaf_rights(f, level));
            done = i == 0 ? installed : done;
        }
        collapse_note(f->space, &walk);
    }
    walk_end(f->ctx, &walk);
    if (!done) {
        f->space->stats.lost_races++;
        f->pending_count = 0; /* neighbours wait for their own faults */
        return NEED_AGAIN;
    }
    return hole ? NEED_NOTHING : NEED_CONFIRM;
}

/* The flush is done: gives the pending leaves their write bits where nothing changed meanwhile. */
static enum need confirm(struct fault *f)
{
    const pte_t flags = pt_format.accessed | pt_format.dirty;
    unsigned count = f->pending_count;
    struct walk walk;

    f->pending_count = 0;
    enum cleave_status status = walk_exclusive(f->ctx, f->space, f->payer, f->at, f->pending_level,
                                               WALK_WRITE, &f->batch, &walk);
    if (status != CLEAVE_OK) {
        return fail(f, status);
    }
    bool may = walk.level == f->pending_level && (leaf_rights(f, walk.level) & RIGHT_WRITE);
    for (unsigned i = 0; i < count && may; i++) {
        gfn_t at = f->pending[i].at;
        pte_t leaf = f->pending[i].leaf;
        pte_t *slot = &table_slots(walk.table)[level_slot(at, walk.level)];
        pte_t now = pte_read(slot);
        pfn_t page = pfn_add(pte_pfn(leaf), at.v & (level_pages(walk.level) - 1));
        uint64_t own = attachments_at(f->space, at, page);
        /* Not in_extent(): pages of one large leaf may have regions that all allow the write. */
        unsigned lacks = region_summary(f->space->regions, level_align(at, walk.level), walk.level);
        if (((now ^ leaf) & ~flags) != 0 || (lacks & REGION_HAS_NO_WRITE) ||
            !frame_is_exclusive(f->ctx, pte_pfn(leaf), walk.level, own)) {
            continue;
        }
        while (((now ^ leaf) & ~flags) == 0 &&
               !pte_replace(f->ctx, slot, now, pte_with_write(now & ~PTE_PENDING))) {
            now = pte_read(slot);
        }
    }
    walk_end(f->ctx, &walk);
    return NEED_NOTHING;
}

/* --- Writes ------------------------------------------------------------------------------------- */

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

static enum need split(struct fault *f, struct walk *walk)
{
    enum cleave_status status = table_split_leaf(f->ctx, f->payer, walk, &f->batch);
    return status == CLEAVE_OK ? NEED_AGAIN : fail(f, status);
}

/* Is the walk's leaf held by this space alone, its own pins and foreign maps apart? */
static bool exclusive_leaf(struct fault *f, const struct walk *walk)
{
    pfn_t frame = pfn_add(pte_pfn(walk->entry), f->at.v & (level_pages(walk->level) - 1));
    uint64_t own = attachments_at(f->space, f->at, frame);
    return frame_is_exclusive(f->ctx, pte_pfn(walk->entry), walk->level, own);
}

/* Does a foreign map of the page still show the frame that another vcpu's copy replaced? */
static bool unsettled(struct fault *f, const struct walk *walk)
{
    pfn_t frame = pfn_add(pte_pfn(walk->entry), f->at.v & (level_pages(walk->level) - 1));
    return f->space->foreign_count != 0 &&
           attachments_at(f->space, f->at, frame) == ATTACHMENTS_UNSETTLED;
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
        f->space->attachment_count == 0 && in_extent(f, first, 1)) {
        pfn_t to;
        if (pool_alloc(f->ctx, f->payer, 1, FRAME_DATA, &to) == CLEAVE_OK) {
            enum cleave_status status =
                prepared_add(f->ctx, &f->prepared, first, 1, walk->entry, to);
            return status == CLEAVE_OK ? NEED_FILL : fail(f, status);
        }
    }
    return split(f, walk);
}

/* The walk stands on a leaf, all tables above are exclusive and writable. */
static enum need write_leaf(struct fault *f, struct walk *walk)
{
    gfn_t first = level_align(f->at, walk->level);
    bool mixed = walk->level > 0 && (region_summary(f->space->regions, first, walk->level) &
                                     REGION_HAS_NO_WRITE) != 0;
    if (pte_writable(walk->entry)) {
        /* A table above had lost the bit; or another vcpu was faster, or the translation was old. */
        if (walk->given) {
            f->space->stats.restored += table_give_write(
                f->ctx, f->space, walk->table, level_align(f->at, walk->level + 1));
        }
        return NEED_NOTHING;
    }
    if (walk->entry & PTE_FOREIGN) {
        return NEED_FOREIGN;
    }
    if (mixed) {
        return split(f, walk);
    }
    bool follow = unsettled(f, walk);
    if ((walk->entry & PTE_PENDING) || follow) {
        /* Another vcpu's copy, or one that a fork left so: flush, then as if it were ours. */
        flush_need(&f->batch);
        f->pending[0].at = f->at;
        f->pending[0].leaf = walk->entry & ~(pt_format.accessed | pt_format.dirty);
        f->pending_count = 1;
        f->pending_level = walk->level;
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
static enum need step_write(struct fault *f)
{
    struct walk walk;
    enum cleave_status status = walk_exclusive(f->ctx, f->space, f->payer, f->at, 0, WALK_WRITE,
                                               &f->batch, &walk);
    if (status != CLEAVE_OK) {
        return fail(f, status);
    }
    enum need need = NEED_NOTHING;
    switch (pte_kind(walk.entry, walk.level)) {
    case PTE_KIND_ABSENT:
        need = prepare_first_touch(f, &walk);
        break;
    case PTE_KIND_PAGED:
        f->paged = walk.entry;
        f->paged_level = walk.level;
        need = NEED_LOAD;
        break;
    case PTE_KIND_LEAF:
        need = write_leaf(f, &walk);
        break;
    case PTE_KIND_TABLE:
        MM_CHECK(false); /* the walk goes down to level 0 */
    }
    walk_end(f->ctx, &walk);
    return need;
}

/* --- Reads and fetches -------------------------------------------------------------------------- */

static enum need step_read(struct fault *f)
{
    struct walk walk;
    walk_find(f->ctx, f->space, f->at, 0, &walk);
    enum need need = NEED_NOTHING;
    switch (pte_kind(walk.entry, walk.level)) {
    case PTE_KIND_ABSENT:
        need = prepare_first_touch(f, &walk);
        break;
    case PTE_KIND_PAGED:
        f->paged = walk.entry;
        f->paged_level = walk.level;
        need = NEED_LOAD;
        break;
    case PTE_KIND_LEAF:
    case PTE_KIND_TABLE:
        break; /* readable: another vcpu was faster */
    }
    walk_end(f->ctx, &walk);
    return need;
}

/* Sets the execute bit of the walk's leaf and, at level 0, of all leaves of its table whose region
 * allows it: one fault a table. */
static void give_exec(struct fault *f, struct walk *walk)
{
    pte_t *slots = table_slots(walk->table);
    gfn_t base = level_align(f->at, walk->level + 1);

    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        gfn_t at = gfn(base.v + i * level_pages(walk->level));
        pte_t e = pte_read(&slots[i]);
        while (pte_is_leaf(e, walk->level) && !pte_executable(e) &&
               !(region_summary(f->space->regions, at, walk->level) & REGION_HAS_NO_EXEC) &&
               !pte_replace(f->ctx, &slots[i], e, pte_set_exec(e, true))) {
            e = pte_read(&slots[i]);
        }
    }
}

static enum need step_exec(struct fault *f)
{
    struct walk walk;
    walk_find(f->ctx, f->space, f->at, 0, &walk);
    bool leaf = pte_is_leaf(walk.entry, walk.level);
    bool done = leaf && (walk.rights & RIGHT_EXEC);
    walk_end(f->ctx, &walk);
    if (done || !leaf) {
        return done ? NEED_NOTHING : step_read(f);
    }
    enum cleave_status status = walk_exclusive(f->ctx, f->space, f->payer, f->at, 0, WALK_EXEC,
                                               &f->batch, &walk);
    if (status != CLEAVE_OK) {
        return fail(f, status);
    }
    enum need need = NEED_NOTHING;
    if (pte_is_leaf(walk.entry, walk.level)) {
        gfn_t first = level_align(f->at, walk.level);
        bool mixed = (region_summary(f->space->regions, first, walk.level) &
                      REGION_HAS_NO_EXEC) != 0;
        if (walk.level > 0 && (!machine.huge_exec || mixed)) {
            need = split(f, &walk);
        } else {
            give_exec(f, &walk);
        }
    }
    walk_end(f->ctx, &walk);
    return need;
}

/* --- The whole ---------------------------------------------------------------------------------- */

/* Checks the access against the space's state and region. The readers' lock is held. */
static enum need check_access(struct fault *f)
{
    static const uint8_t right[] = {[ACCESS_READ] = RIGHT_READ,
                                    [ACCESS_WRITE] = RIGHT_WRITE,
                                    [ACCESS_EXEC] = RIGHT_EXEC};
    if (f->space->state != SPACE_ALIVE) {
        return fail(f, mm_fail(f->ctx,
                               f->space->state == SPACE_FROZEN ? CLEAVE_FROZEN : CLEAVE_DYING,
                               "space", f->space->id, 1, 0));
    }
    f->region = region_get_extent(f->space->regions, f->at, &f->extent);
    bool read_only = f->region.policy == REGION_READ_ONLY && f->access == ACCESS_WRITE;
    if (f->region.policy == REGION_NONE || !(f->region.rights & right[f->access]) || read_only) {
        return fail(f, mm_fail(f->ctx, CLEAVE_FAULT, "at", f->at.v << PAGE_SHIFT, 1, 0));
    }
    return f->region.armed && f->access == ACCESS_WRITE ? NEED_NOTIFY : NEED_NOTHING;
}

static enum need fault_round(struct fault *f)
{
    enum need need = check_access(f);
    if (need != NEED_NOTHING) {
        return need;
    }
    if (f->prepared.count != 0) {
        return commit(f);
    }
    if (f->pending_count != 0) {
        return confirm(f);
    }
    switch (f->access) {
    case ACCESS_READ:
        return step_read(f);
    case ACCESS_WRITE:
        return step_write(f);
    case ACCESS_EXEC:
        return step_exec(f);
    }
    return NEED_NOTHING;
}

/* Memory ran out: reap what others left; then wait, in order, for as many frames as this access can
 * still need, or fail. */
static enum cleave_status out_of_memory(struct fault *f)
{
    struct pool *pool = f->payer->pool;
    if (f->status != CLEAVE_NO_MEMORY || f->wait == NULL) {
        return f->status;
    }
    if (pool->reap_tables != 0) {
        table_reap_some(f->ctx, pool, ROOT_LEVEL);
        return CLEAVE_AGAIN;
    }
    if (f->payer != &f->space->payer) {
        /* The grant did not suffice: it goes back before the vcpu queues again. */
        pool_cancel_wait(f->ctx, pool, f->wait);
        f->payer = &f->space->payer;
    }
    struct walk walk;
    read_lock(f->ctx, &f->space->lock, RANK_SPACE);
    walk_find(f->ctx, f->space, f->at, 0, &walk);
    uint64_t need = f->region.armed ? TABLE_LEVELS : table_level(walk.locked) + 1u;
    walk_end(f->ctx, &walk);
    read_unlock(f->ctx, &f->space->lock, RANK_SPACE);
    f->wait->space = f->space;
    f->wait->at = f->at;
    f->space->stats.waits++;
    pool_wait(f->ctx, pool, f->wait, need);
    port_starved(f->space);
    return CLEAVE_WAIT;
}

/* After a subscriber or pager was asked: walk again, wait for memory that it lacked, or end. */
static enum cleave_status fault_outcome(struct fault *f, enum cleave_status status)
{
    if (status != CLEAVE_NO_MEMORY) {
        return status == CLEAVE_OK ? CLEAVE_AGAIN : status;
    }
    f->status = status;
    prepared_drop(f->ctx, &f->prepared);
    return out_of_memory(f);
}

/* Does, without locks, what a round asked for. CLEAVE_AGAIN: walk again. */
static enum cleave_status between_rounds(struct fault *f, enum need need)
{
    enum cleave_status status;

    switch (need) {
    case NEED_NOTHING:
        return CLEAVE_OK;
    case NEED_AGAIN:
        prepared_drop(f->ctx, &f->prepared);
        return CLEAVE_AGAIN;
    case NEED_FILL:
        prepared_fill(f->ctx, &f->prepared);
        return CLEAVE_AGAIN;
    case NEED_NOTIFY:
        status = channel_notify(f->ctx, f->space, f->at, &f->region, f->wait);
        return fault_outcome(f, status);
    case NEED_LOAD:
        status = pager_fault(f->ctx, f->space, f->at, f->access == ACCESS_WRITE, f->paged,
                             f->paged_level, f->wait);
        return fault_outcome(f, status);
    case NEED_FOREIGN:
        return foreign_write(f->ctx, f->space, f->at, f->wait);
    case NEED_CONFIRM:
        prepared_drop(f->ctx, &f->prepared);
        for (unsigned i = 0; i < f->pending_count && f->space->foreign_count != 0; i++) {
            foreign_follow(f->ctx, f->space, f->pending[i].at);
        }
        return CLEAVE_AGAIN;
    case NEED_ERROR:
        prepared_drop(f->ctx, &f->prepared);
        return out_of_memory(f);
    }
    return CLEAVE_OK;
}

/* What became of an earlier wait of this vcpu for this page: consumed here. */
static enum cleave_status take_outcome(struct mm_ctx *ctx, struct space *space,
                                       struct vcpu_wait *wait, gfn_t at)
{
    enum wait_outcome outcome = wait->outcome;
    if (outcome != WAIT_RETRY && wait->space != space) {
        return CLEAVE_OK; /* of the space whose page a foreign map is of: asked again below */
    }
    wait->outcome = WAIT_RETRY;
    if (outcome == WAIT_RETRY || wait->at.v != at.v) {
        return CLEAVE_OK;
    }
    return mm_fail(ctx, outcome == WAIT_DENIED ? CLEAVE_DENIED : CLEAVE_IO, "at",
                   at.v << PAGE_SHIFT, 1, 0);
}

static enum cleave_status fault_rounds(struct fault *f)
{
    enum cleave_status status = CLEAVE_AGAIN;
    for (unsigned round = 0; round < FAULT_ROUNDS && status == CLEAVE_AGAIN; round++) {
        flush_begin(&f->batch, f->space);
        read_lock(f->ctx, &f->space->lock, RANK_SPACE);
        enum need need = fault_round(f);
        read_unlock(f->ctx, &f->space->lock, RANK_SPACE);
        flush_finish(f->ctx, &f->batch);
        status = between_rounds(f, need);
    }
    prepared_drop(f->ctx, &f->prepared);
    return status == CLEAVE_AGAIN ? CLEAVE_OK : status; /* the access is executed again anyway */
}

enum cleave_status space_fault(struct mm_ctx *ctx, struct space *space, gpa_t at,
                               enum access access, struct vcpu_wait *wait)
{
    if (at.v >> GUEST_BITS != 0) {
        return mm_fail(ctx, CLEAVE_RANGE, "at", at.v, 0, (UINT64_C(1) << GUEST_BITS) - 1);
    }
    struct fault f;
    f.ctx = ctx;
    f.space = space;
    f.wait = wait;
    f.at = gpa_to_gfn(at);
    f.access = access;
    f.payer = &space->payer;
    f.prepared.count = 0;
    f.pending_count = 0;
    space->stats.faults++;
    switch (access) {
    case ACCESS_READ:
        space->stats.read_faults++;
        break;
    case ACCESS_WRITE:
        space->stats.write_faults++;
        break;
    case ACCESS_EXEC:
        space->stats.exec_faults++;
        break;
    }
    if (wait != NULL) {
        enum cleave_status outcome = take_outcome(ctx, space, wait, f.at);
        if (outcome != CLEAVE_OK) {
            return outcome;
        }
        if (wait->grant.reserved != 0) {
            wait->grant.account = space->payer.account;
            f.payer = &wait->grant;
        }
    }
    enum cleave_status status = fault_rounds(&f);
    if (f.payer != &space->payer) {
        pool_cancel_wait(ctx, f.payer->pool, wait); /* what is left of the grant goes back */
    }
    table_reap_some(ctx, space->payer.pool, 1);
    if (space->collapse_hint.v != UINT64_MAX) {
        collapse_hinted(ctx, space);
    }
    return status;
}
