/* SPDX-License-Identifier: BSD-2-Clause */
/* Fork, snapshot, restore, reset and diff: what shares whole trees and what compares them. */
#ifndef MM_FORK_H
#define MM_FORK_H

#include "space.h"

struct fork_options {
    uint64_t limit;          /* quota of each child's account, frames */
    bool reserve;            /* reserve the worst case for each child, so that its writes cannot
                                fail, or `reserve_frames` */
    bool base;               /* keep an immutable base, so that the children can be reset */
    uint8_t vcpus;           /* of each child, for the reservation; at least 1 when `reserve` */
    uint64_t reserve_frames; /* when `reserve`: so many instead of the worst case; 0: that */
};

/*
 * Makes `count` forks of `parent`, all or none. The parent's vcpus are stopped or in the fault
 * handler, for as long as parent->stats.stood_still says afterwards; it may be alive or a snapshot.
 * Constant time for each child, plus its wipe, absent, device and foreign ranges (edge tables) and
 * pinned ranges (their bytes and path). A parent that holds a reservation gets it renewed or the
 * fork is refused. CLEAVE_COUNT: "count" is 0 or > FORK_MAX, or ("parent") such ranges are more
 * than FORK_MAX_WORDS words of the region tree, or pinned pages times children more than
 * PINNED_MAX_PAGES, or to be reserved for more than RESERVE_MAX_WORDS words. CLEAVE_NO_MEMORY,
 * CLEAVE_QUOTA, CLEAVE_RESERVE, CLEAVE_DEVICE, CLEAVE_OVERFLOW, CLEAVE_DYING.
 */
#define FORK_MAX 256
#define FORK_MAX_WORDS 8192u     /* where the parent is no snapshot */
#define RESERVE_MAX_WORDS 65536u /* region words of the parent */
enum cleave_status space_fork(struct mm_ctx *ctx, struct space *parent, unsigned count,
                              const struct fork_options *options,
                              struct space **children) MUST_CHECK;

/* An immutable fork: nothing runs in it, nothing changes it. Destroyed like a space; forks made
 * from it keep it alive as their base. A space that holds a reservation gets it renewed, or the
 * snapshot is refused. Errors as for space_fork(). */
enum cleave_status space_snapshot(struct mm_ctx *ctx, struct space *space, uint64_t limit,
                                  struct space **out) MUST_CHECK;

/* While it is set, a page of the space gets another frame only by a write to it, or when it had
 * none: no copies of whole blocks or grains, and no collapse (CLEAVE_BUSY). So a diff with a
 * snapshot that was made meanwhile finds the pages that were written since, and no other. Forks do
 * not inherit it.
 */
void space_copy_by_page(struct mm_ctx *ctx, struct space *space, bool set);

/*
 * Takes a fork back to its base: drops what it has written since. Its vcpus are stopped.
 * Preemptible, O(written). `keep` ranges (may be null, count <= RESET_KEEP_MAX) have their pages
 * copied back in place, so that their first writes fault no more. CLEAVE_NO_BASE, CLEAVE_BUSY
 * (pinned, mapped by another space, or the space of a pager's process), and for `keep` CLEAVE_COUNT
 * and CLEAVE_RANGE.
 */
#define RESET_KEEP_MAX 16
enum cleave_status space_reset(struct mm_ctx *ctx, struct space *space,
                               const struct gfn_range *keep, unsigned count) MUST_CHECK;

/* Worst case of frames that writes and first touches of a fork of `space` may take: what
 * `fork_options.reserve` reserves for each child. The formula stands in docs/memory-core.md. */
uint64_t space_reserve_frames(struct mm_ctx *ctx, struct space *space, unsigned vcpus);

struct diff {
    gfn_t from; /* in: where to begin; out: where to go on */
    gfn_t end;
    bool exact;              /* compare bytes: report only pages that differ */
    struct gfn_range *found; /* out: ranges, ascending, disjoint, neighbours merged */
    unsigned room, count;    /* capacity of `found`; ranges found */
    uint64_t bytes_compared;
};
/* Ranges in which two spaces of one pool may differ. CLEAVE_OK: complete up to `end`. CLEAVE_AGAIN:
 * out of budget or of room; take the ranges, call again. CLEAVE_FAMILY. Locks both spaces. */
enum cleave_status space_diff(struct mm_ctx *ctx, struct space *a, struct space *b,
                              struct diff *diff) MUST_CHECK;

/*
 * Moves [from, from + size) to `to` in the same space, with its regions. Exclusive frames move;
 * shared ones are copied first (`*early_copies`: 4 KiB pages that this call copied). Leaves stay as
 * large as both ends' alignment allows. Every page of the source must have a region
 * (CLEAVE_NOT_MAPPED), none of another space's memory (CLEAVE_POLICY), none pinned or mapped by
 * another space (CLEAVE_BUSY, value: the id); the target must be REGION_NONE (CLEAVE_EXISTS) and
 * not overlap (CLEAVE_OVERLAP). At most MOVE_MAX_LEAVES leaves, MOVE_MAX_WORDS words of the region
 * tree and MOVE_MAX_HOLES absent entries (CLEAVE_COUNT). Preemptible while it copies. On failure
 * everything is where it was. Returns after the flush.
 */
#define MOVE_MAX_LEAVES 4096u
#define MOVE_MAX_WORDS 1024u
#define MOVE_MAX_HOLES 65536u
enum cleave_status space_move(struct mm_ctx *ctx, struct space *space, gpa_t from, gpa_t to,
                              uint64_t size, uint64_t *early_copies) MUST_CHECK;

#endif
