/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pins and foreign maps as everybody else sees them: all that touch a range, what references a page
 * of them has, and how records of pins lie in one frame. Those of foreign maps: foreign_record.c.
 */
#include "foreign.h"
#include "table.h"

/* --- Records ---------------------------------------------------------------------------------- */

static uint32_t
    last_id; /* atomic; ids are unique in the machine, so that a stale one hits nothing */

uint32_t attachment_new_id(void)
{
    uint32_t id = __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED);
    return id != 0 ? id : __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED);
}

enum cleave_status attachment_make_room(struct mm_ctx *ctx, struct space *space, uint64_t count)
{
    uint64_t room = ATTACHMENTS - (space->attachment_count - space->foreign_count);
    pfn_t f;

    if (count > room) {
        return mm_fail(ctx, CLEAVE_COUNT, "size", count, 1, room);
    }
    if (space->attachments != NULL) {
        return CLEAVE_OK;
    }
    enum cleave_status status = pool_alloc(ctx, &space->payer, 0, FRAME_OBJECT, &f);
    if (status == CLEAVE_OK) {
        port_zero_pages(frame_address(f), 1);
        space->attachments = frame_address(f);
    }
    return status;
}

void attachment_add(struct space *space, const struct attachment *record)
{
    struct attachment *a = space->attachments;
    while (a->kind != ATTACH_NONE) {
        a++;
    }
    *a = *record;
    space->attachment_count++;
}

void attachment_remove(struct space *space, struct attachment *a)
{
    space->attachment_count--;
    *a = (struct attachment){0};
}

void attachment_end(struct mm_ctx *ctx, struct space *space)
{
    if (space->attachments == NULL || space->attachment_count != space->foreign_count) {
        return;
    }
    uint64_t offset = (uint64_t)((const unsigned char *)space->attachments - machine.direct_map);
    pfn_t f = pfn((uint32_t)(offset >> PAGE_SHIFT));
    space->attachments = NULL;
    if (space->reserve_goal != 0) {
        pool_return(ctx, &space->payer, f);
        return;
    }
    MM_CHECK(node_put(ctx, f));
    pool_free(ctx, f, 0);
}

static bool is_foreign(const struct attachment *a) { return a->kind == ATTACH_FOREIGN; }

/* The next pin after `previous`, null or a pin, that meets the range. */
static struct attachment *next_pin(struct space *space, struct attachment *previous,
                                   struct gfn_range range)
{
    struct attachment *all = space->attachments;
    if (all == NULL) {
        return NULL;
    }
    for (struct attachment *a = previous != NULL ? previous + 1 : all; a < all + ATTACHMENTS; a++) {
        if (a->kind != ATTACH_NONE && a->at.v < range.end.v && range.start.v < a->at.v + a->pages) {
            return a;
        }
    }
    return NULL;
}

static struct attachment *next(struct space *space, struct attachment *previous,
                               struct gfn_range range, bool pinning)
{
    struct attachment *a = NULL;
    struct foreign_record *record = NULL;
    if (previous == NULL || !is_foreign(previous)) {
        a = next_pin(space, previous, range);
    } else {
        record = (struct foreign_record *)previous;
    }
    if (a == NULL && space->foreign_count != 0) {
        record = foreign_record_next(space, record, range, pinning);
        a = record != NULL ? &record->a : NULL;
    }
    return a;
}

struct attachment *attachment_next(struct space *space, struct attachment *previous,
                                   struct gfn_range range)
{
    return next(space, previous, range, false);
}

struct attachment *attachment_next_pinning(struct space *space, struct attachment *previous,
                                           struct gfn_range range)
{
    return next(space, previous, range, true);
}

uint64_t attachments_pages(struct space *space)
{
    const struct gfn_range everything = {gfn(0), gfn(GUEST_PAGES)};
    struct attachment *a = NULL;
    uint64_t pages = space->foreign_written;

    while ((a = next_pin(space, a, everything)) != NULL) {
        pages += a->pages;
    }
    return pages;
}

/* Does the reference of the pin `a` lie on the chain of frame `f`, mapped at `at`? */
static bool on_chain(const struct attachment *a, gfn_t at, pfn_t f)
{
    if (a->order > 0) {
        return level_align(a->at, a->order).v == level_align(at, a->order).v &&
               a->frame.v == (f.v & ~(uint32_t)(level_pages(a->order) - 1));
    }
    return at.v >= a->at.v && at.v - a->at.v < a->pages && attachment_frame(a, at).v == f.v;
}

/* Foreign maps of page `at` that show frame `f`; `*others`: some show another. */
static uint64_t foreign_at(struct space *space, gfn_t at, pfn_t f, bool *others)
{
    uint64_t found = 0;

    *others = false;
    if (space->foreign_count == 0) {
        return 0;
    }
    for (struct foreign_record *r = foreign_record_first(space, at); r != NULL; r = r->next) {
        found += !r->a.detached && r->a.frame.v == f.v;
        *others |= !r->a.detached && r->a.frame.v != f.v;
    }
    return found;
}

bool attachments_unsettled(struct space *space, gfn_t at, pfn_t f)
{
    bool others;
    (void)foreign_at(space, at, f, &others);
    return others;
}

uint64_t attachments_above(struct space *space, gfn_t at, pfn_t f, unsigned order)
{
    const struct attachment *all = space->attachments;
    bool others;
    uint64_t found = order == 0 ? foreign_at(space, at, f, &others) : 0;

    for (unsigned i = 0; all != NULL && i < ATTACHMENTS; i++) {
        found += all[i].kind != ATTACH_NONE && all[i].order >= order && on_chain(&all[i], at, f);
    }
    return found;
}

uint64_t attachments_at(struct space *space, gfn_t at, pfn_t f)
{
    const struct attachment *all = space->attachments;
    bool others;
    uint64_t found = foreign_at(space, at, f, &others);

    if (others) {
        return ATTACHMENTS_UNSETTLED;
    }
    for (unsigned i = 0; all != NULL && i < ATTACHMENTS; i++) {
        if (all[i].kind == ATTACH_NONE) {
            continue;
        }
        found += on_chain(&all[i], at, f);
    }
    return found;
}

void attachments_detach(struct space *space, struct gfn_range range)
{
    struct foreign_record *r = NULL;
    while ((r = foreign_record_next(space, r, range, false)) != NULL) {
        foreign_record_set(r, r->a.written, true);
    }
}

/* --- References of records -------------------------------------------------------------------- */

/* Consecutive frames from the `done`-th of a record of order 0 that lie in one 2 MiB block. */
static uint64_t chunk(const struct attachment *a, uint64_t done)
{
    uint64_t block = level_pages(1);
    uint64_t room = block - (a->frame.v + done) % block;
    return room < a->pages - done ? room : a->pages - done;
}

static void put_pages(struct mm_ctx *ctx, const struct attachment *a, uint64_t pages)
{
    for (uint64_t done = 0, n; done < pages; done += n) {
        n = chunk(a, done);
        frame_put_run(ctx, pfn_add(a->frame, done), 0, n);
    }
}

enum cleave_status attachment_get(struct mm_ctx *ctx, const struct attachment *a)
{
    if (a->order > 0) {
        return frame_get(ctx, a->frame, a->order);
    }
    for (uint64_t done = 0, n; done < a->pages; done += n) {
        n = chunk(a, done);
        enum cleave_status status = frame_get_run(ctx, pfn_add(a->frame, done), 0, n);
        if (status != CLEAVE_OK) {
            put_pages(ctx, a, done);
            return status;
        }
    }
    return CLEAVE_OK;
}

void attachment_put(struct mm_ctx *ctx, const struct attachment *a)
{
    if (a->order > 0) {
        frame_put(ctx, a->frame, a->order);
    } else {
        put_pages(ctx, a, a->pages);
    }
}

pte_t space_entry(struct mm_ctx *ctx, struct space *space, gfn_t at, unsigned *level)
{
    struct walk walk;
    walk_find(ctx, space, at, 0, &walk);
    walk_end(ctx, &walk);
    *level = walk.level;
    return pte_unpark(walk.entry);
}
