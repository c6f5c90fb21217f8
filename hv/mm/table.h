/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Operations on one table: make, copy, drop, split a leaf into one, and give or take rights. A
 * table is changed under its lock (walk.h) when it is exclusive; a shared one is only read,
 * counted, and has write bits cleared.
 */
#ifndef MM_TABLE_H
#define MM_TABLE_H

#include "walk.h"

/* A table for entries of `level`, all absent, count 1. */
enum cleave_status table_alloc(struct mm_ctx *ctx, struct payer *payer, unsigned level,
                               pfn_t *out) MUST_CHECK;

/* A copy of `table` that nobody can write through (leaves of shared regions excepted): counts every
 * target once more and clears the original's write bits. `table` is held by the caller (through a
 * locked parent). CLEAVE_NO_MEMORY, CLEAVE_QUOTA, CLEAVE_OVERFLOW: counts are as before. */
enum cleave_status table_copy(struct mm_ctx *ctx, struct payer *payer, pfn_t table,
                              pfn_t *out) MUST_CHECK;

/* Drops one reference to a table, after the flush; a table that dies thereby is deferred to its
 * pool's reap list. */
void table_put(struct mm_ctx *ctx, pfn_t table);

/* Drops what the entries of a table that nobody can reach refer to, and the table. Children that
 * thereby die are deferred to the pool's reap list. One table's worth of work. The same for a
 * deferred region node. */
void table_destroy(struct mm_ctx *ctx, pfn_t table);

/* Destroys deferred dead tables and region nodes of the pool and settles its dissolved blocks;
 * spends TABLE_ENTRIES units each. False when the budget ran out before the lists were empty. */
bool table_reap(struct mm_ctx *ctx, struct pool *pool);
/* The same for at most `limit` tables whatever the budget: what a fault does for others. */
void table_reap_some(struct mm_ctx *ctx, struct pool *pool, unsigned limit);

/*
 * `walk` stands on a leaf or paged entry of level >= 1, parked or not, in an exclusive table
 * (locked). Replaces it by a table of leaves of the next level, with the same rights, and marks
 * `batch` as needing a flush. The walk then stands on the same slot, which holds the new table.
 * CLEAVE_NO_MEMORY, CLEAVE_QUOTA, CLEAVE_OVERFLOW: nothing changed, the walk is still held.
 */
enum cleave_status table_split_leaf(struct mm_ctx *ctx, struct payer *payer, struct walk *walk,
                                    struct flush_batch *batch) MUST_CHECK;
/* The same for a leaf of level 1, of a payer without a reservation, when a copy of the walk's page
 * is to follow: `*copy` is a data frame for it, which the caller then holds (count 1), at the
 * page's own offset in a run set aside for the table. PFN_NONE where that is not to be had, and on
 * error.
 */
enum cleave_status table_split_for_copy(struct mm_ctx *ctx, struct payer *payer, struct walk *walk,
                                        struct flush_batch *batch, pfn_t *copy) MUST_CHECK;

/* Takes `right`, one of RIGHT_*, from every entry of an exclusive `table`, whose first entry maps
 * `base`, that meets a region of `space` without that right (or, for WRITE, armed); parks it for
 * READ. To be done before the entry that points to `table` gets that right. Takes the table's lock,
 * which the caller does not hold; that of a table above it may be held. */
void table_restrict(struct mm_ctx *ctx, struct space *space, pfn_t table, gfn_t base,
                    unsigned right);

/* Unparks every entry of an exclusive, locked `table` beneath which this space may read everything:
 * without write and execute, whoever else holds what it refers to. */
void table_unpark(struct mm_ctx *ctx, struct space *space, pfn_t table, gfn_t base);

/* Gives the write bit to every leaf of an exclusive, locked `table` whose frame is exclusive and
 * whose region allows it; returns how many got it. */
unsigned table_give_write(struct mm_ctx *ctx, struct space *space, pfn_t table, gfn_t base);

/* Takes `right`, one of RIGHT_*, from everything in `range`: at the highest entries that lie inside
 * it, which READ parks, and so takes all three. For WRITE only exclusive tables are visited
 * (nothing beneath a shared one is writable). The space's lock is held for writing; the caller
 * finishes `batch`. For READ and EXEC space_cut_both() was done before. */
void space_strip(struct mm_ctx *ctx, struct space *space, struct gfn_range range, unsigned right,
                 struct flush_batch *batch);
static inline void space_strip_write(struct mm_ctx *ctx, struct space *space,
                                     struct gfn_range range, struct flush_batch *batch)
{
    space_strip(ctx, space, range, RIGHT_WRITE, batch);
}

/* First frames of consecutive leaves of `level` from slot `first` in `table` whose frames follow
 * each other within one block of the next order: how many. At least 1. The entries are counted
 * leaves, parked or not. */
unsigned table_run_length(const pte_t *slots, unsigned first, unsigned level);

/* The first slot from `i` on that is not empty; TABLE_ENTRIES when there is none. */
static inline unsigned table_next_used(const pte_t *slots, unsigned i)
{
    while (i + 4 <= TABLE_ENTRIES && (pte_read(&slots[i]) | pte_read(&slots[i + 1]) |
                                      pte_read(&slots[i + 2]) | pte_read(&slots[i + 3])) == 0) {
        i += 4;
    }
    while (i < TABLE_ENTRIES && pte_read(&slots[i]) == 0) {
        i++;
    }
    return i;
}

#endif
