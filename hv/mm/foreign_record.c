/* SPDX-License-Identifier: BSD-2-Clause */
/* The records of foreign maps, found by the owner's page and by the mapper's; see foreign.h. */
#include "foreign.h"
#include "table.h"

/* --- The leaves ------------------------------------------------------------------------------- */

static uint64_t page_key(gfn_t at) { return at.v / RADIX_FAN; }
static uint64_t map_key(gfn_t mapper_at) { return mapper_at.v / FOREIGN_RECORDS; }

/* The first record of each page of a leaf of `foreign_pages`. */
static struct foreign_record **firsts(struct radix_node *leaf)
{
    return (struct foreign_record **)(leaf + 1);
}

/* The place of a mapper's page in a leaf of `foreign_maps`. */
static struct foreign_record *place(struct radix_node *leaf, gfn_t mapper_at)
{
    return (struct foreign_record *)leaf + 1 + mapper_at.v % FOREIGN_RECORDS;
}

struct foreign_record *foreign_record_find(struct space *mapper, gfn_t mapper_at)
{
    struct radix_node *leaf = radix_find(&mapper->foreign_maps, map_key(mapper_at));
    if (leaf == NULL || place(leaf, mapper_at)->a.kind == ATTACH_NONE) {
        return NULL;
    }
    return place(leaf, mapper_at);
}

struct foreign_record *foreign_record_first(struct space *owner, gfn_t at)
{
    struct radix_node *leaf = radix_find(&owner->foreign_pages, page_key(at));
    return leaf != NULL ? firsts(leaf)[at.v % RADIX_FAN] : NULL;
}

/* --- Records made and gone -------------------------------------------------------------------- */

enum cleave_status foreign_record_make_room(struct mm_ctx *ctx, struct space *owner,
                                            const struct attachment *a)
{
    struct radix_node *leaf;
    uint64_t count = 0;

    if (owner->foreign_count >= FOREIGN_MAX) {
        return mm_fail(ctx, CLEAVE_COUNT, "owner", owner->foreign_count, 0, FOREIGN_MAX - 1);
    }
    for (struct foreign_record *r = foreign_record_first(owner, a->at); r != NULL; r = r->next) {
        count++;
    }
    if (count >= FOREIGN_PAGE_MAX) {
        return mm_fail(ctx, CLEAVE_COUNT, "at", count, 0, FOREIGN_PAGE_MAX - 1);
    }
    enum cleave_status status =
        radix_make(ctx, &owner->payer, &owner->foreign_pages, page_key(a->at), &leaf);
    if (status == CLEAVE_OK) {
        status = radix_make(ctx, &a->mapper->payer, &a->mapper->foreign_maps, map_key(a->mapper_at),
                            &leaf);
    }
    if (status != CLEAVE_OK) {
        foreign_record_trim(ctx, owner, a);
    }
    return status;
}

void foreign_record_trim(struct mm_ctx *ctx, struct space *owner, const struct attachment *a)
{
    radix_trim(ctx, &owner->foreign_pages, page_key(a->at));
    radix_trim(ctx, &a->mapper->foreign_maps, map_key(a->mapper_at));
}

void foreign_record_add(struct space *owner, const struct attachment *a)
{
    struct radix_node *pages = radix_find(&owner->foreign_pages, page_key(a->at));
    struct radix_node *maps = radix_find(&a->mapper->foreign_maps, map_key(a->mapper_at));
    MM_CHECK(pages != NULL && maps != NULL);
    struct foreign_record **first = &firsts(pages)[a->at.v % RADIX_FAN];
    struct foreign_record *record = place(maps, a->mapper_at);

    MM_CHECK(record->a.kind == ATTACH_NONE);
    *record = (struct foreign_record){.a = *a, .owner = owner, .next = *first};
    if (*first != NULL) {
        (*first)->previous = record;
    }
    *first = record;
    pages->used++;
    maps->used++;
    owner->attachment_count++;
    owner->foreign_count++;
}

void foreign_record_remove(struct mm_ctx *ctx, struct foreign_record *record)
{
    struct space *owner = record->owner;
    struct attachment gone = record->a;
    struct radix_node *pages = radix_find(&owner->foreign_pages, page_key(gone.at));
    struct radix_node *maps = radix_find(&gone.mapper->foreign_maps, map_key(gone.mapper_at));

    foreign_record_set(record, false, false);
    if (record->next != NULL) {
        record->next->previous = record->previous;
    }
    if (record->previous != NULL) {
        record->previous->next = record->next;
    } else {
        firsts(pages)[gone.at.v % RADIX_FAN] = record->next;
    }
    *record = (struct foreign_record){0};
    pages->used--;
    maps->used--;
    owner->attachment_count--;
    owner->foreign_count--;
    foreign_record_trim(ctx, owner, &gone);
}

void foreign_record_set(struct foreign_record *record, bool written, bool detached)
{
    struct radix_node *pages = radix_find(&record->owner->foreign_pages, page_key(record->a.at));
    bool was = attachment_pins(&record->a);
    record->a.written = written;
    record->a.detached = detached;
    bool is = attachment_pins(&record->a);
    if (was != is) {
        pages->count += is ? 1u : UINT64_MAX;
        record->owner->foreign_written += is ? 1u : UINT32_MAX;
    }
}

/* --- All of a range --------------------------------------------------------------------------- */

struct foreign_record *foreign_record_next(struct space *owner,
                                           const struct foreign_record *previous,
                                           struct gfn_range range, bool pinning)
{
    struct foreign_record *record = previous != NULL ? previous->next : NULL;
    gfn_t at = previous != NULL ? previous->a.at : gfn(range.start.v - 1);
    struct radix_node *leaf = NULL;

    for (;;) {
        for (; record != NULL; record = record->next) {
            if (!pinning || attachment_pins(&record->a)) {
                return record;
            }
        }
        at.v++;
        if (at.v >= range.end.v) {
            return NULL;
        }
        if (leaf == NULL || leaf->key != page_key(at)) {
            leaf = radix_next(&owner->foreign_pages, page_key(at));
            while (leaf != NULL && pinning && leaf->count == 0) {
                leaf = radix_next(&owner->foreign_pages, leaf->key + 1);
            }
            if (leaf == NULL || leaf->key * RADIX_FAN >= range.end.v) {
                return NULL;
            }
            at.v = leaf->key > page_key(at) ? leaf->key * RADIX_FAN : at.v;
        }
        record = firsts(leaf)[at.v % RADIX_FAN];
    }
}

/* Takes the write bits for the pages of one leaf, which lie in one table or beneath one entry. */
static void strip_leaf(struct mm_ctx *ctx, struct space *owner, struct radix_node *leaf,
                       struct flush_batch *batch)
{
    gfn_t base = gfn(leaf->key * RADIX_FAN);
    struct walk walk;

    walk_find(ctx, owner, base, 0, &walk);
    pte_t *slot = walk.slot;
    unsigned count = walk.level == 0 ? RADIX_FAN : 1;
    for (unsigned i = 0; i < count; i++) {
        pte_t e = pte_read(&slot[i]);
        if ((walk.level > 0 || firsts(leaf)[i] != NULL) && pte_is_leaf(e, walk.level) &&
            pte_writable(e) && !(e & PTE_SHARED)) {
            (void)pte_clear_bits(ctx, &slot[i], pt_format.write);
            flush_need(batch);
        }
    }
    walk_end(ctx, &walk);
}

void foreign_strip_owner(struct mm_ctx *ctx, struct space *owner, struct flush_batch *batch)
{
    struct radix_node *leaf = radix_next(&owner->foreign_pages, 0);
    while (leaf != NULL) {
        strip_leaf(ctx, owner, leaf, batch);
        leaf = radix_next(&owner->foreign_pages, leaf->key + 1);
    }
}
