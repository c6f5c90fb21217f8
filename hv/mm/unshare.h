/* SPDX-License-Identifier: BSD-2-Clause */
/* Copy-on-write broken under the space's own lock, for pins and moves: no access, no right given.
 */
#ifndef MM_UNSHARE_H
#define MM_UNSHARE_H

#include "flush.h"
#include "pte.h"
#include "types.h"

/* Room that a batch must have for one call beside what the caller adds. */
#define UNSHARE_DROPS (ROOT_LEVEL + 1)

/* What stands at a page. */
struct standing {
    unsigned level; /* of the entry that decides */
    pte_t entry;    /* a leaf or a paged entry, parked or not, or a hole */
    pfn_t copied;   /* the frame or block that the last copy went to; PFN_NONE when nothing was */
};

/*
 * Makes every table on the way to `at` exclusive and the leaf or paged entry there one of at most
 * `order`, split where it is larger. With `whole` or without, a leaf whose frames others reference
 * is copied: a 4 KiB one; a 2 MiB one with `whole` if a block is free; larger ones are split first.
 * The copy has the leaf's rights but for the write right. Leaves of shared regions, device and
 * foreign ones are not copied. A hole stays one, and nothing is done to its tables.
 *
 * The space's lock is held for writing. `batch` is finished here when it is short of room, and by
 * the caller at the end. CLEAVE_NO_MEMORY, CLEAVE_QUOTA, CLEAVE_OVERFLOW: what was split or made
 * exclusive stays so, which no space can tell.
 */
enum cleave_status leaf_unshare(struct mm_ctx *ctx, struct space *space, gfn_t at, unsigned order,
                                bool whole, struct flush_batch *batch,
                                struct standing *out) MUST_CHECK;

/* Only splits and makes exclusive: nothing is copied. */
enum cleave_status leaf_settle(struct mm_ctx *ctx, struct space *space, gfn_t at, unsigned order,
                               struct flush_batch *batch, struct standing *out) MUST_CHECK;

#endif
