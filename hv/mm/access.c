/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking at a space and copying to and from its memory, by the same walk and the same faults as a
 * guest's accesses. Readers' side of the space's lock, plus the walk's table lock.
 */
#include "fault.h"
#include "pager.h"
#include "pin.h"
#include "table.h"

/* Rounds in which a page may change under a writer before it is told to try again. */
#define WRITE_ROUNDS 32

static enum cleave_status readable_check(struct mm_ctx *ctx, struct space *space)
{
    if (space->state == SPACE_ALIVE || space->state == SPACE_FROZEN) {
        return CLEAVE_OK;
    }
    return mm_fail(ctx, CLEAVE_DYING, "space", space->id, 1, 0);
}

/* Any byte range inside the guest's width; size may be 0. */
static enum cleave_status bytes_check(struct mm_ctx *ctx, gpa_t at, uint64_t size)
{
    const uint64_t width = UINT64_C(1) << GUEST_BITS;
    if (size > UINT64_MAX - at.v) {
        return mm_fail(ctx, CLEAVE_WRAP, "size", size, 0, UINT64_MAX - at.v);
    }
    if (at.v >= width) {
        return mm_fail(ctx, CLEAVE_RANGE, "at", at.v, 0, width - 1);
    }
    if (size > width - at.v) {
        return mm_fail(ctx, CLEAVE_RANGE, "size", size, 0, width - at.v);
    }
    if (size > SPACE_ACCESS_MAX) {
        return mm_fail(ctx, CLEAVE_COUNT, "size", size, 0, SPACE_ACCESS_MAX);
    }
    return CLEAVE_OK;
}

static pfn_t walk_frame(const struct walk *walk)
{
    return pfn_add(pte_pfn(walk->entry), walk->at.v & (level_pages(walk->level) - 1));
}

enum cleave_status space_lookup(struct mm_ctx *ctx, struct space *space, gpa_t at,
                                struct mapping *out)
{
    enum cleave_status status = bytes_check(ctx, at, 1);
    if (status != CLEAVE_OK) {
        return status;
    }
    read_lock(ctx, &space->lock, RANK_SPACE);
    status = readable_check(ctx, space);
    if (status == CLEAVE_OK) {
        struct walk walk;
        walk_find(ctx, space, gpa_to_gfn(at), 0, &walk);
        *out = (struct mapping){.kind = pte_kind(walk.entry, walk.level),
                                .level = walk.level,
                                .entry = walk.entry,
                                .region = region_get(space->regions, walk.at)};
        if (walk.parked != 0 && walk.entry != 0) {
            out->kind = PTE_KIND_PARKED;
        }
        if (pte_holds_leaf(walk.entry, walk.level)) {
            out->frame = walk_frame(&walk);
            out->rights = walk.rights;
            out->exclusive = walk.exclusive && pte_counted(walk.entry) &&
                             frame_is_exclusive(ctx, pte_pfn(walk.entry), walk.level,
                                                attachments_at(space, walk.at, out->frame));
        }
        walk_end(ctx, &walk);
    }
    read_unlock(ctx, &space->lock, RANK_SPACE);
    return status;
}

/* Can the guest itself read here? Its region then says so, too. */
static bool walk_readable(const struct walk *walk)
{
    return walk->parked == 0 && pte_is_leaf(walk->entry, walk->level) &&
           !(walk->entry & PTE_DEVICE);
}

/* Reads from one page. CLEAVE_NOT_MAPPED asks for the pager: `walk` says of what. */
static enum cleave_status read_page(struct mm_ctx *ctx, struct space *space, gpa_t at,
                                    unsigned char *to, uint64_t size, struct walk *walk)
{
    read_lock(ctx, &space->lock, RANK_SPACE);
    enum cleave_status status = readable_check(ctx, space);
    if (status == CLEAVE_OK) {
        walk_find(ctx, space, gpa_to_gfn(at), 0, walk);
        if (walk_readable(walk)) {
            const unsigned char *page = frame_address(walk_frame(walk));
            __builtin_memcpy(to, page + at.v % PAGE_SIZE, size);
            walk_end(ctx, walk);
            read_unlock(ctx, &space->lock, RANK_SPACE);
            return CLEAVE_OK;
        }
        struct region region = region_get(space->regions, walk->at);
        enum pte_kind kind = pte_target(walk->entry, walk->level);
        bool may = (region.rights & RIGHT_READ) != 0; /* parked or not */
        if (may && kind == PTE_KIND_LEAF && !(walk->entry & PTE_DEVICE)) {
            const unsigned char *page = frame_address(walk_frame(walk));
            __builtin_memcpy(to, page + at.v % PAGE_SIZE, size);
        } else if (may && kind == PTE_KIND_PAGED && region.policy == REGION_PAGED) {
            status = CLEAVE_NOT_MAPPED;
        } else if (!may || kind == PTE_KIND_LEAF || region.policy == REGION_DEVICE ||
                   region.policy == REGION_FOREIGN) {
            status = mm_fail(ctx, CLEAVE_FAULT, "at", at.v, 1, 0);
        } else {
            __builtin_memset(to, 0, size);
        }
        walk_end(ctx, walk);
    }
    read_unlock(ctx, &space->lock, RANK_SPACE);
    return status;
}

/* Looks at the leaf that maps `at` by this entry of the table in which the reader stands. */
static bool reader_take(struct space_reader *reader, gpa_t at, pte_t entry)
{
    uint64_t size = level_pages(reader->level) << PAGE_SHIFT;
    if (!pte_is_leaf(entry, reader->level) || (entry & PTE_DEVICE)) {
        return false;
    }
    reader->bytes = frame_address(pte_pfn(entry));
    reader->start = at.v & ~(size - 1);
    reader->end = reader->start + size;
    return true;
}

/* The same in the table where it stands. Nothing above is parked, or it would not stand there. */
static bool reader_near(struct space_reader *reader, gpa_t at)
{
    uint64_t span = level_pages(reader->level + 1) << PAGE_SHIFT;
    if (reader->locked.v == 0 || (at.v ^ reader->start) >= span) {
        return false;
    }
    unsigned slot = level_slot(gpa_to_gfn(at), reader->level);
    return (at.v >= reader->start && at.v < reader->end) ||
           reader_take(reader, at, pte_read(&table_slots(reader->table)[slot]));
}

/* The same by a walk, whose locks are kept. */
static bool reader_walk(struct mm_ctx *ctx, struct space_reader *reader, gpa_t at)
{
    struct space *space = reader->space;
    struct walk walk;
    read_lock(ctx, &space->lock, RANK_SPACE);
    walk_find(ctx, space, gpa_to_gfn(at), 0, &walk);
    reader->locked = walk.locked;
    reader->table = walk.table;
    reader->level = walk.level;
    bool alive = space->state == SPACE_ALIVE || space->state == SPACE_FROZEN;
    return alive && walk.parked == 0 && reader_take(reader, at, walk.entry);
}

enum cleave_status space_reader_read(struct mm_ctx *ctx, struct space_reader *reader, gpa_t at,
                                     void *to, uint64_t size, struct vcpu_wait *wait)
{
    if (!reader_near(reader, at)) {
        space_reader_end(ctx, reader);
        enum cleave_status status = bytes_check(ctx, at, size);
        if (status != CLEAVE_OK) {
            return status;
        }
        if (!reader_walk(ctx, reader, at)) {
            space_reader_end(ctx, reader);
            return space_read(ctx, reader->space, at, to, size, wait);
        }
    }
    __builtin_memcpy(to, reader->bytes + (at.v - reader->start), size);
    return CLEAVE_OK;
}

void space_reader_end(struct mm_ctx *ctx, struct space_reader *reader)
{
    if (reader->locked.v != 0) {
        table_unlock(ctx, reader->locked);
        read_unlock(ctx, &reader->space->lock, RANK_SPACE);
        reader->locked = PFN_NONE;
    }
}

static uint64_t bytes_in_page(gpa_t at, uint64_t left)
{
    uint64_t room = PAGE_SIZE - at.v % PAGE_SIZE;
    return left < room ? left : room;
}

enum cleave_status space_read(struct mm_ctx *ctx, struct space *space, gpa_t at, void *to,
                              uint64_t size, struct vcpu_wait *wait)
{
    enum cleave_status status = bytes_check(ctx, at, size);
    unsigned char *next = to;

    while (status == CLEAVE_OK && size > 0) {
        uint64_t n = bytes_in_page(at, size);
        struct walk walk;
        status = read_page(ctx, space, at, next, n, &walk);
        if (status == CLEAVE_NOT_MAPPED) {
            status = pager_fault(ctx, space, gpa_to_gfn(at), false, pte_unpark(walk.entry),
                                 walk.level, wait);
            continue;
        }
        next += n;
        at.v += n;
        size -= n;
    }
    return status;
}

/* What is done to one page: bytes from `from`, or with `atomic` an operation on one word of 8. */
struct store {
    const unsigned char *from; /* null: nothing, the page only becomes writable */
    uint64_t size;
    bool atomic;
    enum space_atomic op;
    uint64_t operand, old;
};

static void store_to(unsigned char *to, struct store *store)
{
    uint64_t *word = (uint64_t *)to;
    if (store->atomic) {
        store->old = store->op == ATOMIC_OR
                         ? __atomic_fetch_or(word, store->operand, __ATOMIC_SEQ_CST)
                         : __atomic_fetch_and(word, store->operand, __ATOMIC_SEQ_CST);
    } else if (store->from != NULL) {
        __builtin_memcpy(to, store->from, store->size);
    }
}

/* Writes to one page if the walk finds it writable; CLEAVE_AGAIN when a fault has to be taken. */
static enum cleave_status write_page(struct mm_ctx *ctx, struct space *space, gpa_t at,
                                     struct store *store)
{
    enum cleave_status status = CLEAVE_AGAIN;
    struct walk walk;

    read_lock(ctx, &space->lock, RANK_SPACE);
    if (space->state == SPACE_ALIVE) {
        walk_find(ctx, space, gpa_to_gfn(at), 0, &walk);
        if (pte_is_leaf(walk.entry, walk.level) && (walk.rights & RIGHT_WRITE) &&
            !(walk.entry & PTE_DEVICE)) {
            unsigned char *page = frame_address(walk_frame(&walk));
            store_to(page + at.v % PAGE_SIZE, store);
            status = CLEAVE_OK;
        }
        walk_end(ctx, &walk);
    }
    read_unlock(ctx, &space->lock, RANK_SPACE);
    return status;
}

/* The same with faults in between. */
static enum cleave_status write_through_fault(struct mm_ctx *ctx, struct space *space, gpa_t at,
                                              struct store *store, struct vcpu_wait *wait)
{
    for (unsigned round = 0; round < WRITE_ROUNDS; round++) {
        enum cleave_status status = write_page(ctx, space, at, store);
        if (status != CLEAVE_AGAIN) {
            return status;
        }
        status = space_fault(ctx, space, at, ACCESS_WRITE, wait);
        if (status != CLEAVE_OK) {
            return status;
        }
    }
    return mm_fail(ctx, CLEAVE_FAULT, "at", at.v, 1, 0); /* device memory, or endless races */
}

enum cleave_status space_write(struct mm_ctx *ctx, struct space *space, gpa_t at, const void *from,
                               uint64_t size, struct vcpu_wait *wait, uint64_t *done)
{
    enum cleave_status status = bytes_check(ctx, at, size);
    const unsigned char *next = from;

    *done = 0;
    while (status == CLEAVE_OK && *done < size) {
        uint64_t n = bytes_in_page(at, size - *done);
        struct store store = {.from = next, .size = n};
        status = write_through_fault(ctx, space, at, &store, wait);
        if (status == CLEAVE_OK) {
            next += n;
            at.v += n;
            *done += n;
        }
    }
    return status;
}

enum cleave_status space_atomic(struct mm_ctx *ctx, struct space *space, gpa_t at,
                                enum space_atomic op, uint64_t operand, uint64_t *old,
                                struct vcpu_wait *wait)
{
    struct store store = {.atomic = true, .op = op, .operand = operand};
    enum cleave_status status = bytes_check(ctx, at, sizeof(uint64_t));
    if (status == CLEAVE_OK && at.v % sizeof(uint64_t) != 0) {
        status = mm_fail(ctx, CLEAVE_ALIGN, "at", at.v, 0, sizeof(uint64_t));
    }
    if (status == CLEAVE_OK) {
        status = write_through_fault(ctx, space, at, &store, wait);
    }
    *old = store.old;
    return status;
}

enum cleave_status space_make_exclusive(struct mm_ctx *ctx, struct space *space,
                                        struct gfn_range range, struct vcpu_wait *wait)
{
    enum cleave_status status = CLEAVE_OK;
    for (gfn_t at = range.start; status == CLEAVE_OK && at.v < range.end.v; at.v++) {
        struct store nothing = {.from = NULL};
        status = write_through_fault(ctx, space, gfn_to_gpa(at), &nothing, wait);
    }
    return status;
}

/* Adds what one entry maps to the usage. */
static void usage_add(struct mm_ctx *ctx, struct space *space, const struct walk *walk,
                      struct space_usage *usage)
{
    if (pte_holds_leaf(walk->entry, walk->level) && pte_counted(walk->entry)) {
        uint64_t bytes = level_size(walk->level);
        bool exclusive = walk->exclusive &&
                         frame_is_exclusive(ctx, pte_pfn(walk->entry), walk->level,
                                            attachments_at(space, walk->at, walk_frame(walk)));
        usage->mapped[walk->level] += bytes;
        *(exclusive ? &usage->exclusive : &usage->shared) += bytes;
    }
    for (unsigned level = walk->level; level < ROOT_LEVEL; level++) {
        if (walk->at.v % level_pages(level + 1) != 0) {
            break;
        }
        usage->tables++;
        usage->tables_exclusive += table_level(walk->locked) <= level;
    }
}

enum cleave_status space_usage(struct mm_ctx *ctx, struct space *space, gfn_t *from,
                               struct space_usage *usage)
{
    while (from->v < GUEST_PAGES) {
        struct walk walk;
        if (!mm_spend(ctx, 1)) {
            return CLEAVE_AGAIN;
        }
        read_lock(ctx, &space->lock, RANK_SPACE);
        enum cleave_status status = readable_check(ctx, space);
        if (status != CLEAVE_OK) {
            read_unlock(ctx, &space->lock, RANK_SPACE);
            return status;
        }
        walk_find(ctx, space, *from, 0, &walk);
        usage_add(ctx, space, &walk, usage);
        from->v = level_align(*from, walk.level).v + level_pages(walk.level);
        walk_end(ctx, &walk);
        read_unlock(ctx, &space->lock, RANK_SPACE);
    }
    return CLEAVE_OK;
}
