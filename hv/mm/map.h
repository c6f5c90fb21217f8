/* SPDX-License-Identifier: BSD-2-Clause */
/* What map.c and policy.c share. The writers' side of the space's lock is held throughout. */
#ifndef MM_MAP_H
#define MM_MAP_H

#include "space.h"

/* space_cut() at both ends of `range`. */
enum cleave_status space_cut_both(struct mm_ctx *ctx, struct space *space, struct gfn_range range,
                                  struct flush_batch *batch) MUST_CHECK;
/* A zeroed block of `order` for this space: zeroed one 2 MiB at a time, kept in the space between
 * calls. CLEAVE_AGAIN when the budget ran out; CLEAVE_NO_MEMORY, CLEAVE_QUOTA. */
enum cleave_status space_fresh_leaf(struct mm_ctx *ctx, struct space *space, unsigned order,
                                    pfn_t *out) MUST_CHECK;
/* Rights of a new leaf of `level` in `region`. */
unsigned region_leaf_rights(const struct region *region, unsigned level);
/* Largest order at `at` that lies inside `range`, up to `limit`. */
unsigned fitting_order(gfn_t at, struct gfn_range range, unsigned limit);
/* Checks a region that a caller asks for. */
enum cleave_status region_check(struct mm_ctx *ctx, const struct region *region) MUST_CHECK;

#endif
