/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A range that is filled before anyone can see it: its leaves are put beneath a root of their own,
 * in as many calls as that takes, and linked into the space's tables at once, by at most
 * 2 * TABLE_ENTRIES entries per level.
 */
#ifndef MM_STAGE_H
#define MM_STAGE_H

#include "map.h"

struct stage {
    struct space *space;
    struct gfn_range range; /* REGION_NONE throughout */
    const struct region *region;
    enum space_op op; /* OP_REGION: zeroed frames of the space's own; OP_DEVICE: a device's */
    pfn_t device;     /* its host frame of the first page */
    uint64_t argument;
};

/*
 * Fills `range` and gives it its region; begins, or goes on with what space_begin_op() found. The
 * space is locked for writing. CLEAVE_AGAIN: out of budget, to be called again with the same
 * arguments; until it returns CLEAVE_OK nothing is to be seen of it. CLEAVE_NO_MEMORY,
 * CLEAVE_QUOTA, CLEAVE_EXISTS ("frame": a device frame that is a pool's), CLEAVE_OVERFLOW: what was
 * made is gone.
 */
enum cleave_status stage_run(struct mm_ctx *ctx, const struct stage *stage) MUST_CHECK;
/* Drops what is staged, of a space that gives it up or dies; O(TABLE_ENTRIES), the rest is reaped.
 * Nothing where nothing is. */
void stage_drop(struct mm_ctx *ctx, struct space *space);

#endif
