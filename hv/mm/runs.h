/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs of free memory, for pool.c: lists of runs by order, free maps, and what breaks and joins
 * them. Everything here is called under the pool's lock.
 */
#ifndef MM_RUNS_H
#define MM_RUNS_H

#include "pool.h"

/* First frame of a run. */
pfn_t runs_frame(const struct run *run, unsigned order);

/* Puts a run on a list, or takes it off; lists are linked by index + 1. */
void runs_push(uint32_t *head, struct run *run, unsigned order);
void runs_remove(uint32_t *head, struct run *run, unsigned order);

/* First run of a list; null for none. */
struct run *runs_first(uint32_t head, unsigned order);

/* Free maps: all parts free; is a part free; give one; the first free one, seen from the word that
 * `account` begins at. Accounts with different numbers so take parts whose descriptors share
 * no cache line. */
void runs_map_fill(struct run *run);
bool runs_map_test(const struct run *run, unsigned part);
void runs_map_give(struct run *run, unsigned part);
unsigned runs_map_first(const struct run *run, uint32_t account);

/* Which part of the block of the next order a frame or block of `order` is. */
unsigned runs_part(pfn_t f, unsigned order);

/* The run that maps the free 2 MiB blocks around `f`: the machine's when the whole 1 GiB is ours.
 */
struct run *runs_giga(struct pool *pool, pfn_t f);
bool runs_is_edge(const struct pool *pool, const struct run *giga);

/* A run that nothing uses is nobody's. Its lock may still be held by who has freed the last of it,
 * and `used` be about to fall: these stay. */
void runs_forget(struct run *run);

/* A 1 GiB run of the pool's is wholly free. Blocks in it that are marked on their own, since the
 * pool once had a part of it only, are so no more. */
void runs_push_free_giga(struct pool *pool, struct run *giga);

/* A free 1 GiB run becomes a map of free 2 MiB blocks. */
void runs_break_giga(struct pool *pool, struct run *giga);

/* Takes a free block off its map. */
void runs_take_block(struct pool *pool, struct run *giga, unsigned part);

/* A free 2 MiB block, off the free maps; PFN_NONE when there is none. Edges first, so that 1 GiB
 * runs stay whole. */
pfn_t runs_find_block(struct pool *pool);
/* The same, of those free in its 1 GiB run one at random: what copies of guest pages go to, so that
 * a guest cannot foretell which memory lies beside them. */
pfn_t runs_find_random_block(struct pool *pool);

/* Puts a free block back; a 1 GiB run that is wholly free joins. */
void runs_give_block(struct pool *pool, pfn_t block);

/* A block that was taken becomes a BROKEN run with all its frames free. */
struct run *runs_break_block(struct pool *pool, pfn_t block);

/* Gives a set-aside run back to the common lists. */
void runs_end_aside(struct pool *pool, struct run *run);

/* A run with free frames; null when the pool is empty. Set-aside runs are given back only when
 * nothing else is left. */
struct run *runs_find_partial(struct pool *pool);

/* Takes one frame off a BROKEN or set-aside run. */
void runs_take_frame(struct pool *pool, struct run *run, unsigned part);

/* Puts frames, whose bits are set in word `w`, back into their run; a run that is wholly free
 * joins. */
void runs_give_frames(struct pool *pool, struct run *run, unsigned w, uint64_t bits);

#endif
