/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Changes to the regions of a range, whatever its size: a range of at most CHANGE_WORDS words of
 * the region tree is changed in one go; a longer one is checked in steps, then changed in steps in
 * a tree beside the space's, which takes its place at the end. So a change is seen as a whole, or
 * not at all.
 */
#ifndef MM_CHANGE_H
#define MM_CHANGE_H

#include "space.h"

#define CHANGE_WORDS (2u * TABLE_ENTRIES)

struct region_change {
    struct space *space;
    struct gfn_range range;
    enum space_op op;
    uint64_t argument; /* with `op` and `range`: which operation goes on */
    region_edit_t *edit;
    const void *arg;
    /* Looks at a word of the range and the part of it that is meant; `state` is 0 before the first
     * and kept between calls. Then whether the change may be made. An error ends it. */
    enum cleave_status (*check)(struct mm_ctx *ctx, struct region_change *change,
                                const struct region *region, struct gfn_range part);
    enum cleave_status (*checked)(struct mm_ctx *ctx, struct region_change *change);
    /* What the pages of a part count for in `tree`; null: nothing is counted. Parts end at
     * multiples of a 2 MiB block or where the range does. */
    uint64_t (*count)(const struct region_change *change, region_word_t tree,
                      struct gfn_range part);
    bool cut; /* entries are to end where the range does */
    /* Carries the change over in steps of its own before its regions are seen, first in
     * PHASE_SETTLE with op_at at the start; `state` is 0 then, and kept. CLEAVE_AGAIN when out of
     * budget; an error ends the change, and nothing is changed. Null: nothing is to be done. */
    enum cleave_status (*carry)(struct mm_ctx *ctx, struct region_change *change);
    uint64_t state;
    uint64_t counted; /* by how much the count went down */
};

/*
 * Checks and makes the change, which the caller then carries over to the tables. Begins, or goes on
 * with what space_begin_op() found; the space is locked for writing. CLEAVE_AGAIN: out of budget;
 * nothing is changed yet. Errors of the checks, CLEAVE_NO_MEMORY, CLEAVE_QUOTA, CLEAVE_OVERFLOW:
 * nothing is changed.
 */
enum cleave_status change_apply(struct mm_ctx *ctx, struct region_change *change,
                                struct flush_batch *batch) MUST_CHECK;

/* True while a change of this space is being built or carried over: its regions must not change
 * otherwise, but in both trees. */
static inline bool change_building(const struct space *space)
{
    return space->op >= OP_REGION &&
           (space->op_phase == PHASE_BUILD || space->op_phase == PHASE_SETTLE ||
            space->op_phase == PHASE_CONVERT);
}

#endif
