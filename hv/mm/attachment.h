/* SPDX-License-Identifier: BSD-2-Clause */
/* The records of pins, and what those of foreign maps share with them; see pin.h for their locks.
 */
#ifndef MM_ATTACHMENT_H
#define MM_ATTACHMENT_H

#include "pin.h"

#define ATTACHMENTS (PAGE_SIZE / sizeof(struct attachment))

/* Has the frame that the records lie in, and room for `count` more of them. CLEAVE_COUNT,
 * CLEAVE_NO_MEMORY, CLEAVE_QUOTA. */
enum cleave_status attachment_make_room(struct mm_ctx *ctx, struct space *space,
                                        uint64_t count) MUST_CHECK;
/* Puts the record of a pin into a free place. There is room. */
void attachment_add(struct space *space, const struct attachment *record);
/* Takes one out; the frame of the records goes with the last (attachment_end()). */
void attachment_remove(struct space *space, struct attachment *a);
/* Gives the frame of the records back if none is left. */
void attachment_end(struct mm_ctx *ctx, struct space *space);
/* An id that no attachment of any space has. */
uint32_t attachment_new_id(void);

/* Takes or drops the references of a record. CLEAVE_OVERFLOW: none taken. No CPU holds a
 * translation by them. */
enum cleave_status attachment_get(struct mm_ctx *ctx, const struct attachment *a) MUST_CHECK;
void attachment_put(struct mm_ctx *ctx, const struct attachment *a);

/* What the tables of `space` say about page `at`, with its lock held for writing: a leaf, a paged
 * entry or a hole, and its level; as if nothing were parked. */
pte_t space_entry(struct mm_ctx *ctx, struct space *space, gfn_t at, unsigned *level);

/* foreign_follow() for every page of a range. */
void foreign_follow_range(struct mm_ctx *ctx, struct space *owner, struct gfn_range range);

#endif
