/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pins, and what a fork does to them and to pages that others map. Records of a space are changed
 * under the writers' side of its lock and read under either.
 */
#include "fault.h"
#include "foreign.h"
#include "table.h"
#include "unshare.h"

/* Rounds in which pages may change between being made exclusive and being pinned. */
#define PIN_ROUNDS 16
/* Faults that one page may take before it is found as it must be. */
#define PIN_FAULTS 16

/* --- Pinning: what is done before the lock is taken ------------------------------------------- */

/* The page is pinned by the path of a guest's write: for writing, or for reading where a write
 * would neither notify nor be refused. */
static bool by_write(const struct region *region, bool write)
{
    return write || ((region->rights & RIGHT_WRITE) && !region->armed &&
                     region->policy != REGION_SHARED && region->policy != REGION_READ_ONLY);
}

static enum cleave_status check_page(struct mm_ctx *ctx, const struct region *region, gfn_t at,
                                     bool write)
{
    if (region->policy == REGION_DEVICE || region->policy == REGION_FOREIGN) {
        return mm_fail(ctx, CLEAVE_POLICY, "at", at.v << PAGE_SHIFT, 1, 0);
    }
    unsigned need = write ? RIGHT_READ | RIGHT_WRITE : RIGHT_READ;
    if (region->policy == REGION_NONE || (region->rights & need) != need ||
        (write && region->policy == REGION_READ_ONLY)) {
        return mm_fail(ctx, CLEAVE_FAULT, "at", at.v << PAGE_SHIFT, 1, 0);
    }
    return CLEAVE_OK;
}

/* Looks at page `at`: `*next` is the end of its leaf where the leaf is as it must be, else `at`. */
static enum cleave_status look(struct mm_ctx *ctx, struct space *space, gfn_t at, bool write,
                               bool *fault_write, gfn_t *next)
{
    struct walk walk;

    *next = at;
    read_lock(ctx, &space->lock, RANK_SPACE);
    if (space->state != SPACE_ALIVE) {
        enum cleave_status dead = space->state == SPACE_FROZEN ? CLEAVE_FROZEN : CLEAVE_DYING;
        read_unlock(ctx, &space->lock, RANK_SPACE);
        return mm_fail(ctx, dead, "space", space->id, 1, 0);
    }
    struct region region = region_get(space->regions, at);
    enum cleave_status status = check_page(ctx, &region, at, write);
    *fault_write = by_write(&region, write);
    if (status == CLEAVE_OK) {
        walk_find(ctx, space, at, 0, &walk);
        walk_end(ctx, &walk);
        if (pte_is_leaf(walk.entry, walk.level) && (!*fault_write || (walk.rights & RIGHT_WRITE))) {
            *next = gfn(level_align(at, walk.level).v + level_pages(walk.level));
        }
    }
    read_unlock(ctx, &space->lock, RANK_SPACE);
    return status;
}

/* Has every page of the range filled, loaded and, where it may be written, made exclusive. */
static enum cleave_status pin_prepare(struct mm_ctx *ctx, struct space *space,
                                      struct gfn_range range, bool write)
{
    unsigned faults = 0, records = 0;
    bool fault_write;
    gfn_t next;

    for (gfn_t at = range.start; at.v < range.end.v;) {
        enum cleave_status status = look(ctx, space, at, write, &fault_write, &next);
        if (status != CLEAVE_OK) {
            return status;
        }
        if (next.v != at.v) {
            faults = 0;
            records += next.v - at.v > 1 || next.v % TABLE_ENTRIES == 0;
            if (records > ATTACHMENTS) {
                /* At least one for each large leaf and each table: there is no room. */
                return mm_fail(ctx, CLEAVE_COUNT, "size", records, 1, ATTACHMENTS);
            }
            at = next;
            continue;
        }
        if (faults++ == PIN_FAULTS) {
            return mm_fail(ctx, CLEAVE_BUSY, "at", at.v << PAGE_SHIFT, 1, 0);
        }
        if (!mm_spend(ctx, 1)) {
            port_point(ctx, POINT_PREEMPT, space->id, OP_NONE);
            return CLEAVE_AGAIN;
        }
        status = fault_write
                     ? space_make_exclusive(ctx, space, (struct gfn_range){at, gfn(at.v + 1)}, NULL)
                     : space_fault(ctx, space, gfn_to_gpa(at), ACCESS_READ, NULL);
        if (status != CLEAVE_OK) {
            return status;
        }
    }
    return CLEAVE_OK;
}

/* --- Pinning: under the writers' lock --------------------------------------------------------- */

struct pin {
    struct mm_ctx *ctx;
    struct space *space;
    struct gfn_range range;
    bool write;
    bool changed; /* what was prepared is no longer so: another round */
    struct flush_batch batch;
};

/* Every page has a region that allows the pin, still. */
static enum cleave_status pin_check(struct pin *pin)
{
    struct gfn_range extent;
    if (region_count_words(pin->space->regions, pin->range, PIN_MAX_WORDS) > PIN_MAX_WORDS) {
        return mm_fail(pin->ctx, CLEAVE_COUNT, "size", PIN_MAX_WORDS + 1, 1, PIN_MAX_WORDS);
    }
    for (gfn_t at = pin->range.start; at.v < pin->range.end.v; at = extent.end) {
        struct region region = region_get_extent(pin->space->regions, at, &extent);
        enum cleave_status status = check_page(pin->ctx, &region, at, pin->write);
        if (status != CLEAVE_OK) {
            return status;
        }
        pin->changed |= pin->write && region.armed;
    }
    return CLEAVE_OK;
}

/* Makes what is still shared exclusive: pages without the write right, and those that a fork came
 * across meanwhile. */
static enum cleave_status pin_unshare(struct pin *pin)
{
    for (gfn_t at = pin->range.start; at.v < pin->range.end.v && !pin->changed;) {
        struct standing now;
        enum cleave_status status =
            leaf_unshare(pin->ctx, pin->space, at, LEAF_ORDERS - 1, false, &pin->batch, &now);
        if (status != CLEAVE_OK) {
            return status;
        }
        pin->changed = !pte_is_leaf(now.entry, now.level) ||
                       (now.copied.v != 0 && pin->space->foreign_count != 0);
        at.v = level_align(at, now.level).v + level_pages(now.level);
        if (now.copied.v != 0 && at.v < pin->range.end.v && !mm_spend(pin->ctx, 1)) {
            port_point(pin->ctx, POINT_PREEMPT, pin->space->id, OP_NONE);
            return CLEAVE_AGAIN;
        }
    }
    return CLEAVE_OK;
}

/* The record that begins at page `at`: one leaf, or 4 KiB leaves of one table over consecutive
 * frames. */
static struct attachment pin_record(const struct pin *pin, gfn_t at)
{
    struct walk walk;
    walk_find(pin->ctx, pin->space, at, 0, &walk);
    MM_CHECK(pte_is_leaf(walk.entry, walk.level));
    gfn_t end = gfn(level_align(at, walk.level).v + level_pages(walk.level));
    if (walk.level == 0) {
        const pte_t *slots = table_slots(walk.table);
        pfn_t next = pfn_add(pte_pfn(walk.entry), 1);
        for (unsigned i = level_slot(at, 0) + 1; i < TABLE_ENTRIES; i++, end.v++, next.v++) {
            pte_t e = pte_read(&slots[i]);
            if (!pte_is_leaf(e, 0) || !pte_counted(e) || pte_pfn(e).v != next.v) {
                break;
            }
        }
    }
    walk_end(pin->ctx, &walk);
    end = end.v < pin->range.end.v ? end : pin->range.end;
    return (struct attachment){
        .kind = pin->write ? ATTACH_PIN_WRITE : ATTACH_PIN_READ,
        .order = (uint8_t)walk.level,
        .frame = pte_pfn(walk.entry),
        .pages = (uint32_t)(end.v - at.v),
        .at = at,
    };
}

/* Drops every record with this id and its references; false when there is none. */
static bool remove_pin(struct mm_ctx *ctx, struct space *space, uint32_t id)
{
    const struct gfn_range everything = {gfn(0), gfn(GUEST_PAGES)};
    struct attachment *a = NULL;
    bool found = false;

    while ((a = attachment_next(space, a, everything)) != NULL) {
        if (a->id == id && a->kind != ATTACH_FOREIGN) {
            struct attachment gone = *a;
            attachment_remove(space, a);
            attachment_put(ctx, &gone);
            found = true;
        }
    }
    attachment_end(ctx, space);
    return found;
}

static enum cleave_status pin_record_all(struct pin *pin, uint32_t *id)
{
    uint64_t count = 0;
    struct attachment record;

    for (gfn_t at = pin->range.start; at.v < pin->range.end.v; at.v += record.pages) {
        record = pin_record(pin, at);
        count++;
    }
    enum cleave_status status = attachment_make_room(pin->ctx, pin->space, count);
    if (status != CLEAVE_OK) {
        return status;
    }
    *id = attachment_new_id();
    for (gfn_t at = pin->range.start; at.v < pin->range.end.v; at.v += record.pages) {
        record = pin_record(pin, at);
        record.id = *id;
        status = attachment_get(pin->ctx, &record);
        if (status != CLEAVE_OK) {
            (void)remove_pin(pin->ctx, pin->space, *id);
            return status;
        }
        attachment_add(pin->space, &record);
    }
    return CLEAVE_OK;
}

enum cleave_status space_pin(struct mm_ctx *ctx, struct space *space, gpa_t at, uint64_t size,
                             bool write, uint32_t *id)
{
    struct pin pin = {.ctx = ctx, .space = space, .write = write, .changed = true};
    enum cleave_status status = range_check(ctx, at, size, &pin.range);

    for (unsigned i = 0; status == CLEAVE_OK && pin.changed; i++) {
        if (i == PIN_ROUNDS) {
            return mm_fail(ctx, CLEAVE_BUSY, "at", at.v, 1, 0);
        }
        status = pin_prepare(ctx, space, pin.range, write);
        if (status == CLEAVE_OK) {
            status = space_begin(ctx, space);
        }
        if (status != CLEAVE_OK) {
            return status;
        }
        pin.changed = false;
        flush_begin(&pin.batch, space);
        status = pin_check(&pin);
        if (status == CLEAVE_OK) {
            status = pin_unshare(&pin);
        }
        if (status == CLEAVE_OK && !pin.changed) {
            status = pin_record_all(&pin, id);
        }
        bool follow = space->foreign_count != 0;
        flush_finish(ctx, &pin.batch);
        space_end(ctx, space);
        if (follow) {
            foreign_follow_range(ctx, space, pin.range);
        }
    }
    return status;
}

enum cleave_status space_unpin(struct mm_ctx *ctx, struct space *space, uint32_t id)
{
    write_lock(ctx, &space->lock, RANK_SPACE);
    bool found = id != 0 && remove_pin(ctx, space, id);
    write_unlock(ctx, &space->lock, RANK_SPACE);
    return found ? CLEAVE_OK : mm_fail(ctx, CLEAVE_INVALID, "id", id, 1, 0);
}

enum cleave_status space_pinned_frame(struct mm_ctx *ctx, struct space *space, uint32_t id,
                                      gpa_t at, pfn_t *out)
{
    const struct gfn_range everything = {gfn(0), gfn(GUEST_PAGES)};
    gfn_t page = gpa_to_gfn(at);
    enum cleave_status status = CLEAVE_INVALID;
    struct attachment *a = NULL;

    read_lock(ctx, &space->lock, RANK_SPACE);
    while (status != CLEAVE_OK && (a = attachment_next(space, a, everything)) != NULL) {
        if (a->id != id || a->kind == ATTACH_FOREIGN) {
            continue;
        }
        status = CLEAVE_NOT_MAPPED;
        if (page.v >= a->at.v && page.v - a->at.v < a->pages) {
            *out = attachment_frame(a, page);
            status = CLEAVE_OK;
        }
    }
    read_unlock(ctx, &space->lock, RANK_SPACE);
    if (status != CLEAVE_OK) {
        return mm_fail(ctx, status, status == CLEAVE_INVALID ? "id" : "at",
                       status == CLEAVE_INVALID ? id : at.v, 1, 0);
    }
    return CLEAVE_OK;
}

/* --- Before a fork ---------------------------------------------------------------------------- */

/* Hands the references of a record on a block to exactly the parts that it means. */
static enum cleave_status split_record(struct mm_ctx *ctx, struct attachment *a)
{
    struct attachment exact = *a;
    exact.order = 0;
    exact.frame = attachment_frame(a, a->at);
    enum cleave_status status = attachment_get(ctx, &exact);
    if (status == CLEAVE_OK) {
        frame_put(ctx, a->frame, a->order);
        *a = exact;
    }
    return status;
}

/* Splits the leaves of a pinned range; `*shared`: it lies in a shared region, and is left alone. */
static enum cleave_status split_range(struct mm_ctx *ctx, struct space *space,
                                      const struct attachment *a, struct flush_batch *batch,
                                      bool *shared)
{
    struct gfn_range range = attachment_range(a);
    struct standing now;

    *shared = false;
    for (gfn_t at = range.start; at.v < range.end.v;) {
        unsigned level;
        pte_t e = space_entry(ctx, space, at, &level);
        if (e & PTE_SHARED) {
            *shared = true;
        }
        if (!pte_is_leaf(e, level) || (e & PTE_SHARED)) {
            at.v = level_align(at, level).v + level_pages(level);
            continue;
        }
        enum cleave_status status = leaf_settle(ctx, space, at, 0, batch, &now);
        if (status != CLEAVE_OK) {
            return status;
        }
        at.v = level_align(at, 1).v + level_pages(1); /* its whole table is of 4 KiB leaves */
    }
    return CLEAVE_OK;
}

enum cleave_status attachments_split(struct mm_ctx *ctx, struct space *space,
                                     struct flush_batch *batch)
{
    const struct gfn_range everything = {gfn(0), gfn(GUEST_PAGES)};
    uint64_t pages = attachments_pages(space);
    struct attachment *a = NULL;

    if (pages > PINNED_MAX_PAGES) {
        return mm_fail(ctx, CLEAVE_COUNT, "pinned", pages, 0, PINNED_MAX_PAGES);
    }
    while ((a = attachment_next_pinning(space, a, everything)) != NULL) {
        bool shared;
        enum cleave_status status = split_range(ctx, space, a, batch, &shared);
        if (status == CLEAVE_OK && a->order > 0 && !shared) {
            status = split_record(ctx, a);
        }
        if (status != CLEAVE_OK) {
            return status;
        }
    }
    foreign_strip_owner(ctx, space, batch);
    return CLEAVE_OK;
}
