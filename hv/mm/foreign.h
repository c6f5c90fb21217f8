/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The records of foreign maps, and what foreign.c and foreign_end.c share. A record lies in a frame
 * of the mapper's, at the place of its page there, and is found from both sides:
 *
 *   owner->foreign_pages   by the owner's page: a leaf has the first record of each of RADIX_FAN
 *                          pages, and records of one page are linked
 *   mapper->foreign_maps   by the mapper's page: a leaf has FOREIGN_RECORDS records
 *
 * Both change under RANK_FOREIGN and the writers' side of both spaces' locks, so that any of the
 * three is enough to read. `detached` alone is set under the owner's lock.
 */
#ifndef MM_FOREIGN_H
#define MM_FOREIGN_H

#include "attachment.h"

struct foreign_record {
    struct attachment a; /* first: attachment_next() gives it out */
    struct space *owner;
    struct foreign_record *next, *previous; /* of the same page of the owner's */
};

#define FOREIGN_RECORDS (PAGE_SIZE / sizeof(struct foreign_record) - 1)
_Static_assert(sizeof(struct radix_node) <= sizeof(struct foreign_record), "a head takes a place");

/* Has the leaves for a record. CLEAVE_COUNT where the owner or its page has as many maps as can be,
 * CLEAVE_NO_MEMORY, CLEAVE_QUOTA. foreign_record_trim() gives back what is then not used. */
enum cleave_status foreign_record_make_room(struct mm_ctx *ctx, struct space *owner,
                                            const struct attachment *a) MUST_CHECK;
void foreign_record_trim(struct mm_ctx *ctx, struct space *owner, const struct attachment *a);
/* Puts a record into its place, which is free and there. */
void foreign_record_add(struct space *owner, const struct attachment *a);
/* Takes it out; its frames go with the last. */
void foreign_record_remove(struct mm_ctx *ctx, struct foreign_record *record);

/* The record of a mapper's page, or null. */
struct foreign_record *foreign_record_find(struct space *mapper, gfn_t mapper_at);
/* The first record of an owner's page, or null. */
struct foreign_record *foreign_record_first(struct space *owner, gfn_t at);
/* The one after `previous` (null: the first) in a range of the owner's pages, by page; with
 * `pinning` only such as are written through, and not detached. */
struct foreign_record *foreign_record_next(struct space *owner,
                                           const struct foreign_record *previous,
                                           struct gfn_range range, bool pinning);
/* What makes a record a pin changes. */
void foreign_record_set(struct foreign_record *record, bool written, bool detached);

/* Takes the write bits of the owner's leaves of all pages that are mapped, but of shared memory. A
 * walk for each leaf of `foreign_pages` and a look at each page in it. The space's lock is held for
 * writing. */
void foreign_strip_owner(struct mm_ctx *ctx, struct space *owner, struct flush_batch *batch);

/* --- Between foreign.c and foreign_end.c ------------------------------------------------------ */

void foreign_begin(struct mm_ctx *ctx);
void foreign_end(struct mm_ctx *ctx);
void foreign_lock_two(struct mm_ctx *ctx, struct space *a, struct space *b);
void foreign_unlock_two(struct mm_ctx *ctx, struct space *a, struct space *b);

/* A pager's window is a foreign region that names no owner; its leaves belong to loads. */
static inline bool foreign_is_window(const struct region *region)
{
    return region->policy == REGION_FOREIGN && region->channel == 0 && region->pager == 0;
}
static inline struct gfn_range foreign_page(gfn_t at)
{
    return (struct gfn_range){at, gfn(at.v + 1)};
}
/* Ends a map: leaf and record go, then, flushed, their reference. Both locks are held. */
void foreign_drop(struct mm_ctx *ctx, struct foreign_record *record);

#endif
