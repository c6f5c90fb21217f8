/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Foreign maps: pages of one space in the tables of another, the mapper. The owner's record and the
 * mapper's PTE_FOREIGN leaf share one reference on the 4 KiB frame; the mapper's region word names
 * the owner. Both sides change under RANK_FOREIGN and the writers' side of both spaces' locks,
 * taken in address order.
 *
 *   owner                                 mapper
 *     leaf ----> frame <---- leaf           REGION_FOREIGN {owner}
 *     record {frame, mapper, mapper_at}     leaf, read-only until the record says `written`
 */
#include "foreign.h"
#include "fault.h"
#include "table.h"

/* Rounds in which the owner's page may change under a map or a write. */
#define FOREIGN_ROUNDS 16
/* Maps that are protected under one flush. */
#define FOREIGN_CHUNK 64

static struct spinlock foreign_lock;

void foreign_begin(struct mm_ctx *ctx) { spin_lock(ctx, &foreign_lock, RANK_FOREIGN); }
void foreign_end(struct mm_ctx *ctx) { spin_unlock(ctx, &foreign_lock, RANK_FOREIGN); }

void foreign_lock_two(struct mm_ctx *ctx, struct space *a, struct space *b)
{
    bool first = (uintptr_t)a < (uintptr_t)b;
    write_lock(ctx, first ? &a->lock : &b->lock, RANK_SPACE);
    write_lock(ctx, first ? &b->lock : &a->lock, RANK_SPACE);
}

void foreign_unlock_two(struct mm_ctx *ctx, struct space *a, struct space *b)
{
    write_unlock(ctx, &a->lock, RANK_SPACE);
    write_unlock(ctx, &b->lock, RANK_SPACE);
}

static enum cleave_status may_change(struct mm_ctx *ctx, const struct space *space)
{
    if (space->state != SPACE_ALIVE) {
        return mm_fail(ctx, space->state == SPACE_FROZEN ? CLEAVE_FROZEN : CLEAVE_DYING, "space",
                       space->id, 1, 0);
    }
    return space->op == OP_NONE ? CLEAVE_OK
                                : mm_fail(ctx, CLEAVE_BUSY, "space", space->op, OP_NONE, OP_NONE);
}

/* --- Who owns a foreign page ------------------------------------------------------------------ */

/* The region word of a foreign page holds the frame of the owner's object where others hold channel
 * and pager. It is followed only while the page has its leaf: the record is there then, and so the
 * owner. */
static struct region foreign_region(const struct space *owner)
{
    uint64_t offset = (uint64_t)((const unsigned char *)owner - machine.direct_map);
    uint32_t object = (uint32_t)(offset >> PAGE_SHIFT);
    return (struct region){.policy = REGION_FOREIGN,
                           .rights = RIGHT_READ | RIGHT_WRITE,
                           .channel = (uint16_t)object,
                           .pager = (uint16_t)(object >> 16)};
}

static struct space *region_owner(const struct region *region)
{
    return frame_address(pfn((uint32_t)region->pager << 16 | region->channel));
}

/* The owner of the foreign page `at`; null where there is no foreign leaf. `*region` is what stands
 * there. RANK_FOREIGN is held, so that it stays so. */
static struct space *find_owner(struct mm_ctx *ctx, struct space *mapper, gfn_t at,
                                struct region *region)
{
    unsigned level;
    read_lock(ctx, &mapper->lock, RANK_SPACE);
    *region = region_get(mapper->regions, at);
    pte_t e = space_entry(ctx, mapper, at, &level);
    read_unlock(ctx, &mapper->lock, RANK_SPACE);
    bool foreign = region->policy == REGION_FOREIGN && !foreign_is_window(region) &&
                   pte_is_leaf(e, level) && (e & PTE_FOREIGN);
    return foreign ? region_owner(region) : NULL;
}

/* The owner's record of a mapper's page. Every foreign leaf has one. */
static struct foreign_record *find_record(const struct space *owner, struct space *mapper, gfn_t at)
{
    struct foreign_record *record = foreign_record_find(mapper, at);
    MM_CHECK(record != NULL && record->owner == owner && record->a.mapper_at.v == at.v);
    return record;
}

/* The frame that the owner has at the record's page now; PFN_NONE when it has none that is its own.
 */
static pfn_t owner_frame(struct mm_ctx *ctx, struct space *owner, const struct attachment *a)
{
    unsigned level;
    pte_t e = space_entry(ctx, owner, a->at, &level);
    if (!pte_is_leaf(e, level) || (e & (PTE_DEVICE | PTE_FOREIGN))) {
        return PFN_NONE;
    }
    return pfn_add(pte_pfn(e), a->at.v & (level_pages(level) - 1));
}

/* --- The mapper's leaf ------------------------------------------------------------------------ */

/* Replaces the mapper's leaf, which is there, and returns what it was. Its table is the mapper's
 * own, but perhaps for holders that are dead and not yet reaped: a fork takes foreign leaves out of
 * its copy. */
static pte_t replace_leaf(struct mm_ctx *ctx, struct space *mapper, gfn_t at, pte_t leaf)
{
    struct walk walk;
    walk_find(ctx, mapper, at, 0, &walk);
    MM_CHECK(walk.level == 0 && (walk.entry & PTE_FOREIGN));
    pte_t old;
    do {
        old = pte_read(walk.slot);
    } while (!pte_replace(ctx, walk.slot, old, leaf));
    walk_end(ctx, &walk);
    return old;
}

void foreign_drop(struct mm_ctx *ctx, struct foreign_record *record)
{
    const struct attachment *a = &record->a;
    struct flush_batch batch;
    flush_begin(&batch, a->mapper);
    pte_t old = replace_leaf(ctx, a->mapper, a->mapper_at, 0);
    MM_CHECK(pte_pfn(old).v == a->frame.v);
    flush_drop_frames(&batch, a->frame, 0, 1);
    foreign_record_remove(ctx, record);
    flush_finish(ctx, &batch);
}

/* Makes the map show the owner's frame, read-only. Both locks are held. */
static void settle_map(struct mm_ctx *ctx, struct space *owner, struct foreign_record *record)
{
    struct attachment *a = &record->a;
    struct flush_batch batch;
    pfn_t frame = owner_frame(ctx, owner, a);

    if (frame.v == a->frame.v || a->detached) {
        return;
    }
    if (frame.v == 0 || frame_get(ctx, frame, 0) != CLEAVE_OK) {
        foreign_record_set(record, a->written, true); /* it keeps what it shows */
        return;
    }
    flush_begin(&batch, a->mapper);
    pte_t leaf = pte_make_leaf(frame, 0, RIGHT_READ, PTE_FOREIGN);
    (void)replace_leaf(ctx, a->mapper, a->mapper_at, leaf);
    flush_drop_frames(&batch, a->frame, 0, 1);
    a->frame = frame;
    foreign_record_set(record, false, false);
    flush_finish(ctx, &batch);
}

/* --- Mapping and unmapping -------------------------------------------------------------------- */

/* What may be mapped by another space. The owner's lock is held. */
static enum cleave_status check_owner(struct mm_ctx *ctx, const struct space *owner, gfn_t at)
{
    struct region region = region_get(owner->regions, at);
    if (region.policy == REGION_NONE || region.policy == REGION_DEVICE ||
        region.policy == REGION_FOREIGN || !(region.rights & RIGHT_READ)) {
        return mm_fail(ctx, CLEAVE_FAULT, "at", at.v << PAGE_SHIFT, 1, 0);
    }
    return CLEAVE_OK;
}

/* Where the owner shares the table of the page, its leaf there loses its write bit (which a cleared
 * bit above hides already): the last holder of the table must not find it while the map has a
 * reference. */
static void protect_shared(struct mm_ctx *ctx, struct space *owner, gfn_t at)
{
    struct walk walk;
    walk_find(ctx, owner, at, 0, &walk);
    if (!walk.exclusive && pte_is_leaf(walk.entry, walk.level) && !(walk.entry & PTE_SHARED)) {
        (void)pte_clear_bits(ctx, walk.slot, pt_format.write);
    }
    walk_end(ctx, &walk);
}

/* Takes memory and references for the map `a`, in the order in which they can be given back, and
 * makes the leaf. Both locks are held. */
static enum cleave_status install_map(struct mm_ctx *ctx, struct space *owner,
                                      const struct attachment *a, struct flush_batch *batch)
{
    struct region region = foreign_region(owner);
    struct walk walk;

    enum cleave_status status = foreign_record_make_room(ctx, owner, a);
    if (status != CLEAVE_OK) {
        return status;
    }
    status = frame_get(ctx, a->frame, 0);
    if (status != CLEAVE_OK) {
        foreign_record_trim(ctx, owner, a);
        return status;
    }
    status = walk_exclusive(ctx, a->mapper, &a->mapper->payer, a->mapper_at, 0,
                            WALK_MAKE | WALK_WRITE, batch, &walk);
    if (status == CLEAVE_OK) {
        MM_CHECK(walk.level == 0 && walk.entry == 0);
        status = region_set(ctx, &a->mapper->payer, &a->mapper->regions, foreign_page(a->mapper_at),
                            &region);
        if (status == CLEAVE_OK) {
            pte_t leaf = pte_make_leaf(a->frame, 0, RIGHT_READ, PTE_FOREIGN);
            MM_CHECK(pte_replace(ctx, walk.slot, 0, leaf));
            foreign_record_add(owner, a);
        }
        walk_end(ctx, &walk);
    }
    if (status == CLEAVE_OK) {
        protect_shared(ctx, owner, a->at);
    }
    if (status != CLEAVE_OK) {
        frame_put(ctx, a->frame, 0);
        foreign_record_trim(ctx, owner, a);
    }
    return status;
}

/* One round under the locks. `*found` is false when the owner's page has first to be filled. */
static enum cleave_status map_locked(struct mm_ctx *ctx, struct space *owner, struct attachment *a,
                                     bool *found)
{
    struct flush_batch batch;
    enum cleave_status status = may_change(ctx, owner);
    const char *argument = status == CLEAVE_OK ? "mapper" : "owner";

    *found = true;
    status = status == CLEAVE_OK ? may_change(ctx, a->mapper) : status;
    if (status != CLEAVE_OK) {
        ctx->error.argument = argument;
        return status;
    }
    if (region_get(a->mapper->regions, a->mapper_at).policy != REGION_NONE) {
        return mm_fail(ctx, CLEAVE_EXISTS, "to", a->mapper_at.v << PAGE_SHIFT, 1, 0);
    }
    status = check_owner(ctx, owner, a->at);
    if (status != CLEAVE_OK) {
        return status;
    }
    a->frame = owner_frame(ctx, owner, a);
    if (a->frame.v == 0) {
        *found = false;
        return CLEAVE_OK;
    }
    flush_begin(&batch, a->mapper);
    status = install_map(ctx, owner, a, &batch);
    flush_finish(ctx, &batch);
    return status;
}

enum cleave_status foreign_map(struct mm_ctx *ctx, struct space *owner, gpa_t at,
                               struct space *mapper, gpa_t to)
{
    struct gfn_range from, target;
    enum cleave_status status = range_check(ctx, at, PAGE_SIZE, &from);
    if (status == CLEAVE_OK) {
        status = range_check(ctx, to, PAGE_SIZE, &target);
        if (status != CLEAVE_OK) {
            ctx->error.argument = "to";
        }
    }
    if (status == CLEAVE_OK && owner == mapper) {
        status = mm_fail(ctx, CLEAVE_INVALID, "mapper", mapper->id, 1, 0);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    struct attachment a = {.kind = ATTACH_FOREIGN,
                           .id = attachment_new_id(),
                           .pages = 1,
                           .at = from.start,
                           .mapper = mapper,
                           .mapper_at = target.start};
    for (unsigned i = 0; i < FOREIGN_ROUNDS; i++) {
        bool found;
        foreign_begin(ctx);
        foreign_lock_two(ctx, owner, mapper);
        status = map_locked(ctx, owner, &a, &found);
        foreign_unlock_two(ctx, owner, mapper);
        foreign_end(ctx);
        if (status == CLEAVE_OK && !found) {
            status = space_fault(ctx, owner, at, ACCESS_READ, NULL);
        }
        if (status != CLEAVE_OK || found) {
            return status;
        }
    }
    return mm_fail(ctx, CLEAVE_BUSY, "at", at.v, 1, 0);
}

/* The mapper's region goes first, which is all that can fail. */
static enum cleave_status unmap_region(struct mm_ctx *ctx, struct space *mapper, gfn_t at)
{
    const struct region none = {.policy = REGION_NONE};
    enum cleave_status status = may_change(ctx, mapper);
    return status == CLEAVE_OK
               ? region_set(ctx, &mapper->payer, &mapper->regions, foreign_page(at), &none)
               : status;
}

enum cleave_status foreign_unmap(struct mm_ctx *ctx, struct space *mapper, gpa_t to)
{
    struct gfn_range range;
    struct region region;
    enum cleave_status status = range_check(ctx, to, PAGE_SIZE, &range);
    if (status != CLEAVE_OK) {
        return status;
    }
    foreign_begin(ctx);
    struct space *owner = find_owner(ctx, mapper, range.start, &region);
    if (owner != NULL) {
        foreign_lock_two(ctx, owner, mapper);
        status = unmap_region(ctx, mapper, range.start);
        if (status == CLEAVE_OK) {
            foreign_drop(ctx, find_record(owner, mapper, range.start));
        }
        foreign_unlock_two(ctx, owner, mapper);
    } else if (region.policy == REGION_FOREIGN && !foreign_is_window(&region)) {
        /* the owner has taken it back */
        write_lock(ctx, &mapper->lock, RANK_SPACE);
        status = unmap_region(ctx, mapper, range.start);
        write_unlock(ctx, &mapper->lock, RANK_SPACE);
    } else {
        status = mm_fail(ctx, CLEAVE_NOT_MAPPED, "to", to.v, 1, 0);
    }
    foreign_end(ctx);
    return status;
}

/* --- When the owner's page changes ------------------------------------------------------------ */

/* The record after `r` whose map shows another frame than the owner has. RANK_FOREIGN is held:
 * records stay where they are when the owner's lock is let go. */
static struct foreign_record *next_unsettled(struct mm_ctx *ctx, struct space *owner,
                                             struct foreign_record *r, struct gfn_range range)
{
    write_lock(ctx, &owner->lock, RANK_SPACE);
    do {
        r = foreign_record_next(owner, r, range, false);
    } while (r != NULL && (r->a.detached || owner_frame(ctx, owner, &r->a).v == r->a.frame.v));
    write_unlock(ctx, &owner->lock, RANK_SPACE);
    return r;
}

void foreign_follow_range(struct mm_ctx *ctx, struct space *owner, struct gfn_range range)
{
    struct foreign_record *r = NULL;
    foreign_begin(ctx);
    while ((r = next_unsettled(ctx, owner, r, range)) != NULL) {
        struct space *mapper = r->a.mapper;
        port_point(ctx, POINT_RELOCK, owner->id, r->a.at.v);
        foreign_lock_two(ctx, owner, mapper);
        settle_map(ctx, owner, r);
        foreign_unlock_two(ctx, owner, mapper);
    }
    foreign_end(ctx);
}

void foreign_follow(struct mm_ctx *ctx, struct space *owner, gfn_t at)
{
    foreign_follow_range(ctx, owner, foreign_page(at));
}

/* Takes the write bits from the leaves of up to FOREIGN_CHUNK records from `r` on that one mapper
 * has, flushed once; `forget`: they are no pins any more. Returns the last. */
static struct foreign_record *protect_maps(struct mm_ctx *ctx, struct space *owner,
                                           struct foreign_record *r, struct gfn_range range,
                                           bool forget)
{
    struct space *mapper = r->a.mapper;
    struct foreign_record *last = r;
    struct flush_batch batch;

    foreign_lock_two(ctx, owner, mapper);
    flush_begin(&batch, mapper);
    for (unsigned i = 0; r != NULL && r->a.mapper == mapper && i < FOREIGN_CHUNK; i++) {
        struct walk walk;
        last = r;
        r = foreign_record_next(owner, r, range, true);
        if (last->a.detached) { /* by an unmap, since it was found */
            continue;
        }
        walk_find(ctx, mapper, last->a.mapper_at, 0, &walk);
        (void)pte_clear_bits(ctx, walk.slot, pt_format.write);
        walk_end(ctx, &walk);
        if (forget) {
            foreign_record_set(last, false, false);
        }
    }
    flush_need(&batch);
    flush_finish(ctx, &batch);
    foreign_unlock_two(ctx, owner, mapper);
    return last;
}

static void protect_range(struct mm_ctx *ctx, struct space *owner, struct gfn_range range,
                          bool forget)
{
    struct foreign_record *r = NULL;
    foreign_begin(ctx);
    for (;;) {
        write_lock(ctx, &owner->lock, RANK_SPACE);
        r = foreign_record_next(owner, r, range, true);
        write_unlock(ctx, &owner->lock, RANK_SPACE);
        if (r == NULL) {
            break;
        }
        port_point(ctx, POINT_RELOCK, owner->id, r->a.at.v);
        r = protect_maps(ctx, owner, r, range, forget);
    }
    foreign_end(ctx);
}

void foreign_protect(struct mm_ctx *ctx, struct space *owner, struct gfn_range range)
{
    protect_range(ctx, owner, range, false);
}

void foreign_unwrite(struct mm_ctx *ctx, struct space *owner)
{
    protect_range(ctx, owner, (struct gfn_range){gfn(0), gfn(GUEST_PAGES)}, true);
}

/* --- Writes through a map --------------------------------------------------------------------- */

/* May the mapper write to the record's page: nobody else sees it but the owner, or it is shared
 * memory, and no subscriber has to be asked first? What the owner has given up, or is dying with,
 * is the mapper's as it was written through. Both locks are held. */
static enum cleave_status check_write(struct mm_ctx *ctx, struct space *owner,
                                      const struct attachment *a, bool *ready)
{
    struct region region = region_get(owner->regions, a->at);
    struct walk walk;

    bool kept = a->detached || owner->state != SPACE_ALIVE;
    bool may = (region.rights & RIGHT_WRITE) && region.policy != REGION_READ_ONLY;
    *ready = kept && a->written;
    if (kept ? !a->written : !may) {
        return mm_fail(ctx, CLEAVE_FAULT, "at", a->mapper_at.v << PAGE_SHIFT, 1, 0);
    }
    if (kept) {
        return CLEAVE_OK;
    }
    walk_find(ctx, owner, a->at, 0, &walk);
    if (pte_is_leaf(walk.entry, walk.level) && !(walk.entry & PTE_PENDING) && !region.armed) {
        pfn_t page = pfn_add(pte_pfn(walk.entry), a->at.v & (level_pages(walk.level) - 1));
        bool alone = (walk.entry & PTE_SHARED) ||
                     (walk.exclusive &&
                      frame_is_exclusive(ctx, page, 0, attachments_at(owner, a->at, page)));
        *ready = alone && page.v == a->frame.v;
    }
    walk_end(ctx, &walk);
    return CLEAVE_OK;
}

/* Gives the mapper's leaf its write bit. */
static enum cleave_status give_write(struct mm_ctx *ctx, struct foreign_record *record)
{
    const struct attachment *a = &record->a;
    struct space *mapper = a->mapper;
    struct flush_batch batch;
    struct walk walk;

    flush_begin(&batch, mapper);
    enum cleave_status status =
        walk_exclusive(ctx, mapper, &mapper->payer, a->mapper_at, 0, WALK_WRITE, &batch, &walk);
    if (status == CLEAVE_OK) {
        MM_CHECK(walk.level == 0 && (walk.entry & PTE_FOREIGN));
        foreign_record_set(record, true, a->detached);
        pte_t e = walk.entry;
        while (!pte_replace(ctx, walk.slot, e, pte_with_write(e))) {
            e = pte_read(walk.slot);
        }
        walk_end(ctx, &walk);
    }
    flush_finish(ctx, &batch);
    return status;
}

/* A fork takes write bits on the way to a window, too: its leaf has its own back. */
static enum cleave_status write_window(struct mm_ctx *ctx, struct space *mapper, gfn_t at)
{
    struct flush_batch batch;
    struct walk walk;

    flush_begin(&batch, mapper);
    write_lock(ctx, &mapper->lock, RANK_SPACE);
    struct region region = region_get(mapper->regions, at);
    enum cleave_status status = may_change(ctx, mapper);
    if (status == CLEAVE_OK && foreign_is_window(&region) && (region.rights & RIGHT_WRITE)) {
        status = walk_exclusive(ctx, mapper, &mapper->payer, at, 0, WALK_WRITE, &batch, &walk);
        if (status == CLEAVE_OK) {
            pte_t e = walk.entry;
            while (pte_is_leaf(e, walk.level) &&
                   !pte_replace(ctx, walk.slot, e, pte_with_write(e))) {
                e = pte_read(walk.slot);
            }
            walk_end(ctx, &walk);
        }
    }
    flush_finish(ctx, &batch);
    write_unlock(ctx, &mapper->lock, RANK_SPACE);
    return status;
}

/* One round under the locks: writes may pass (`*ready`), or the page `*page` of the owner, which
 * the caller then holds, has first to be broken out. */
static enum cleave_status write_locked(struct mm_ctx *ctx, struct space *mapper, gfn_t at,
                                       struct space **owner, gfn_t *page, bool *ready)
{
    struct region region;
    enum cleave_status status = CLEAVE_OK;

    *ready = false;
    *owner = find_owner(ctx, mapper, at, &region);
    if (*owner == NULL && foreign_is_window(&region)) {
        *ready = true;
        return write_window(ctx, mapper, at);
    }
    if (*owner == NULL) {
        return mm_fail(ctx, CLEAVE_FAULT, "at", at.v << PAGE_SHIFT, 1, 0);
    }
    foreign_lock_two(ctx, *owner, mapper);
    struct foreign_record *record = find_record(*owner, mapper, at);
    settle_map(ctx, *owner, record);
    *page = record->a.at;
    region = region_get(mapper->regions, at); /* which may have lost a right since */
    if (mapper->state != SPACE_ALIVE || !(region.rights & RIGHT_WRITE)) {
        status = mm_fail(ctx, CLEAVE_FAULT, "at", at.v << PAGE_SHIFT, 1, 0);
    }
    if (status == CLEAVE_OK) {
        status = check_write(ctx, *owner, &record->a, ready);
    }
    if (status == CLEAVE_OK && *ready) {
        status = give_write(ctx, record);
    }
    if (status == CLEAVE_OK && !*ready) {
        space_hold(*owner);
    }
    foreign_unlock_two(ctx, *owner, mapper);
    return status;
}

/* Makes the owner's page its own. Memory that the owner may not have, or that another pool lacks,
 * is not waited for: the mapper may be the only one who could give some back. */
static enum cleave_status break_copy(struct mm_ctx *ctx, struct space *owner, struct space *mapper,
                                     gfn_t page, struct vcpu_wait *wait)
{
    bool fails = wait != NULL && wait->memory_fails;
    if (wait != NULL) {
        wait->memory_fails = fails || owner->payer.pool != mapper->payer.pool;
    }
    enum cleave_status status = space_make_exclusive(ctx, owner, foreign_page(page), wait);
    if (wait != NULL) {
        wait->memory_fails = fails;
    }
    return status == CLEAVE_QUOTA ? CLEAVE_NO_MEMORY : status;
}

enum cleave_status foreign_write(struct mm_ctx *ctx, struct space *mapper, gfn_t at,
                                 struct vcpu_wait *wait)
{
    for (unsigned i = 0; i < FOREIGN_ROUNDS; i++) {
        struct space *owner;
        gfn_t page;
        bool ready;

        foreign_begin(ctx);
        enum cleave_status status = write_locked(ctx, mapper, at, &owner, &page, &ready);
        foreign_end(ctx);
        if (status != CLEAVE_OK || ready) {
            return status;
        }
        status = break_copy(ctx, owner, mapper, page, wait);
        space_release(ctx, owner);
        if (status != CLEAVE_OK) {
            return status == CLEAVE_DYING ? CLEAVE_FAULT : status;
        }
    }
    return CLEAVE_OK; /* the access is executed again anyway */
}
