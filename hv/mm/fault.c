/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nested page faults. A fault walks under the readers' side of the space's lock and one table lock;
 * what takes long (copying, zeroing, asking a subscriber or pager) is done with no lock held, and
 * the walk is then repeated and the entry compared before it is replaced.
 */
#include "collapse.h"
#include "fault_round.h"
#include "notify.h"
#include "pager.h"
#include "pin.h"
#include "table.h"

/* Rounds that one call makes at most: split, copy, notify, load each restart the walk. */
#define FAULT_ROUNDS 16

/* --- Reading given back ----------------------------------------------------------------------- */

/* The walk stands on a parked entry in an exclusive table: it is unparked, with its neighbours, or
 * split where only a part of it may be read. */
static enum need unpark(struct fault *f, struct walk *walk)
{
    gfn_t first = level_align(f->at, walk->level);
    if (walk->level > 0 &&
        (region_summary(f->space->regions, first, walk->level) & REGION_HAS_NO_READ)) {
        return fault_split(f, walk);
    }
    table_unpark(f->ctx, f->space, walk->table, level_align(f->at, walk->level + 1));
    return NEED_AGAIN;
}

/* The highest parked entry on the way to the page, which may be read, is at level `parked` - 1. One
 * that may be read throughout is unparked where it stands; for another table the walk goes on. */
static enum need step_unpark(struct fault *f, unsigned parked)
{
    struct walk walk;
    unsigned level = parked - 1;
    bool mixed = (region_summary(f->space->regions, level_align(f->at, level), level) &
                  REGION_HAS_NO_READ) != 0;
    enum cleave_status status =
        walk_exclusive(f->ctx, f->space, f->payer, f->at, mixed ? 0 : level, 0, &f->batch, &walk);
    if (status != CLEAVE_OK) {
        return fault_fail(f, status);
    }
    enum need need = pte_is_parked(walk.entry) ? unpark(f, &walk) : NEED_AGAIN;
    walk_end(f->ctx, &walk);
    return need;
}

/* --- Writes ----------------------------------------------------------------------------------- */

static enum need step_write(struct fault *f)
{
    struct walk walk;
    enum cleave_status status =
        walk_exclusive(f->ctx, f->space, f->payer, f->at, 0, WALK_WRITE, &f->batch, &walk);
    if (status != CLEAVE_OK) {
        return fault_fail(f, status);
    }
    enum need need = NEED_NOTHING;
    switch (pte_kind(walk.entry, walk.level)) {
    case PTE_KIND_ABSENT:
        need = fault_first_touch(f, &walk);
        break;
    case PTE_KIND_PAGED:
        f->paged = walk.entry;
        f->paged_level = walk.level;
        need = NEED_LOAD;
        break;
    case PTE_KIND_LEAF:
        need = fault_write_leaf(f, &walk);
        break;
    case PTE_KIND_PARKED:
        need = unpark(f, &walk);
        break;
    case PTE_KIND_TABLE:
        MM_CHECK(false); /* the walk goes down to level 0 */
    }
    walk_end(f->ctx, &walk);
    return need;
}

/* --- Reads and fetches ------------------------------------------------------------------------ */

static enum need step_read(struct fault *f)
{
    struct walk walk;
    walk_find(f->ctx, f->space, f->at, 0, &walk);
    enum need need = NEED_NOTHING;
    if (walk.parked != 0) {
        walk_end(f->ctx, &walk);
        return step_unpark(f, walk.parked);
    }
    switch (pte_kind(walk.entry, walk.level)) {
    case PTE_KIND_ABSENT:
        need = fault_first_touch(f, &walk);
        break;
    case PTE_KIND_PAGED:
        f->paged = walk.entry;
        f->paged_level = walk.level;
        need = NEED_LOAD;
        break;
    case PTE_KIND_LEAF:
    case PTE_KIND_TABLE:
    case PTE_KIND_PARKED:
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
    enum cleave_status status =
        walk_exclusive(f->ctx, f->space, f->payer, f->at, 0, WALK_EXEC, &f->batch, &walk);
    if (status != CLEAVE_OK) {
        return fault_fail(f, status);
    }
    enum need need = NEED_NOTHING;
    if (pte_is_leaf(walk.entry, walk.level)) {
        gfn_t first = level_align(f->at, walk.level);
        bool mixed =
            (region_summary(f->space->regions, first, walk.level) & REGION_HAS_NO_EXEC) != 0;
        if (walk.level > 0 && (!machine.huge_exec || mixed)) {
            need = fault_split(f, &walk);
        } else {
            give_exec(f, &walk);
        }
    }
    walk_end(f->ctx, &walk);
    return need;
}

/* --- The whole -------------------------------------------------------------------------------- */

/* Checks the access against the space's state and region. The readers' lock is held. */
static enum need check_access(struct fault *f)
{
    static const uint8_t right[] = {
        [ACCESS_READ] = RIGHT_READ, [ACCESS_WRITE] = RIGHT_WRITE, [ACCESS_EXEC] = RIGHT_EXEC};
    if (f->space->state != SPACE_ALIVE) {
        return fault_fail(f, mm_fail(f->ctx,
                                     f->space->state == SPACE_FROZEN ? CLEAVE_FROZEN : CLEAVE_DYING,
                                     "space", f->space->id, 1, 0));
    }
    f->region = region_get_extent(f->space->regions, f->at, &f->extent);
    bool read_only = f->region.policy == REGION_READ_ONLY && f->access == ACCESS_WRITE;
    if (f->region.policy == REGION_NONE || !(f->region.rights & right[f->access]) || read_only) {
        return fault_fail(f, mm_fail(f->ctx, CLEAVE_FAULT, "at", f->at.v << PAGE_SHIFT, 1, 0));
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
        return fault_commit(f);
    }
    if (f->pending_count != 0) {
        return fault_confirm(f);
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

/* Gives back what the access does not need any more: frames prepared, and one had in advance. */
static void drop_frames(struct fault *f)
{
    prepared_drop(f->ctx, &f->prepared);
    if (f->copy.v != 0) {
        frame_put(f->ctx, f->copy, 0);
        f->copy = PFN_NONE;
    }
}

/* Memory ran out: reap what others left; then wait, in order, for as many frames as this access can
 * still need, or fail. */
static enum cleave_status out_of_memory(struct fault *f)
{
    struct pool *pool = f->payer->pool;
    if (f->status != CLEAVE_NO_MEMORY || f->wait == NULL) {
        return f->status;
    }
    if (pool_has_dead(pool)) {
        table_reap_some(f->ctx, pool, ROOT_LEVEL);
        return CLEAVE_AGAIN;
    }
    if (f->wait->memory_fails) {
        return f->status;
    }
    if (f->wait->grant.reserved != 0) {
        /* The grant did not suffice: it goes back before the vcpu queues again. */
        pool_cancel_wait(f->ctx, f->wait->grant.pool, f->wait);
    }
    f->payer = &f->space->payer;
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
    drop_frames(f);
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
        drop_frames(f);
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
    flush_begin(&f->batch, f->space);
    for (unsigned round = 0; round < FAULT_ROUNDS && status == CLEAVE_AGAIN; round++) {
        read_lock(f->ctx, &f->space->lock, RANK_SPACE);
        enum need need = fault_round(f);
        read_unlock(f->ctx, &f->space->lock, RANK_SPACE);
        if (need != NEED_FILL) {
            flush_finish(f->ctx, &f->batch);
        }
        status = between_rounds(f, need);
    }
    flush_finish(f->ctx, &f->batch);
    drop_frames(f);
    return status == CLEAVE_AGAIN ? CLEAVE_OK : status; /* the access is executed again anyway */
}

/* The whole fault, of a space that stays until it is done. */
static enum cleave_status fault_inside(struct mm_ctx *ctx, struct space *space, gpa_t at,
                                       enum access access, struct vcpu_wait *wait)
{
    struct fault f;
    f.ctx = ctx;
    f.space = space;
    f.wait = wait;
    f.at = gpa_to_gfn(at);
    f.access = access;
    f.payer = space_payer(space, wait);
    f.prepared.count = 0;
    f.copy = PFN_NONE;
    f.prepared.payer = payer_reserves(f.payer);
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
    }
    /* A grant of the pool whose page a foreign map is of is spent there, or given back. */
    bool other = wait != NULL && wait->grant.reserved != 0 && f.payer == &space->payer;
    enum cleave_status status = fault_rounds(&f);
    if (wait != NULL && status != CLEAVE_WAIT && wait->space != space) {
        wait->outcome = WAIT_RETRY; /* this was not the access that an outcome there is for */
    }
    if (f.payer != &space->payer) {
        pool_cancel_wait(ctx, f.payer->pool, wait); /* what is left of the grant goes back */
    } else if (other && status != CLEAVE_WAIT) {
        pool_cancel_wait(ctx, wait->grant.pool, wait);
    }
    table_reap_some(ctx, space->payer.pool, 1);
    if (space->collapse_hint.v != UINT64_MAX) {
        collapse_hinted(ctx, space);
    }
    return status;
}

enum cleave_status space_fault(struct mm_ctx *ctx, struct space *space, gpa_t at,
                               enum access access, struct vcpu_wait *wait)
{
    if (at.v >> GUEST_BITS != 0) {
        return mm_fail(ctx, CLEAVE_RANGE, "at", at.v, 0, (UINT64_C(1) << GUEST_BITS) - 1);
    }
    /* A CPU that waits in here acknowledges that it is to leave a dying space, and is not waited
     * for any more by flush_evict(): so it counts as long as it uses the space. */
    __atomic_fetch_add(&space->inside, 1, __ATOMIC_SEQ_CST);
    uint8_t state = __atomic_load_n(&space->state, __ATOMIC_SEQ_CST);
    enum cleave_status status =
        state == SPACE_ALIVE ? fault_inside(ctx, space, at, access, wait)
                             : mm_fail(ctx, state == SPACE_FROZEN ? CLEAVE_FROZEN : CLEAVE_DYING,
                                       "space", space->id, 1, 0);
    __atomic_fetch_sub(&space->inside, 1, __ATOMIC_RELEASE);
    return status;
}
