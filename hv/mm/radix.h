/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A sparse array of frames, the leaves, by a number: a radix tree that has a node only where two
 * leaves part, so that n leaves take at most n - 1 nodes and one leaf none. What lies in a leaf
 * behind its head is the caller's, and so are the locks: one writer, or readers.
 *
 *   node   key, level, used | child, child, ...        at least two, of lower levels
 *   leaf   key, level 0, used | of the caller's        at least one `used`, or about to be
 */
#ifndef MM_RADIX_H
#define MM_RADIX_H

#include "pool.h"

/* What a frame has room for beside the head; a power of two. */
#define RADIX_BITS (TABLE_ENTRIES * 8 < PAGE_SIZE ? LEVEL_BITS : LEVEL_BITS - 1u)
#define RADIX_FAN (1u << RADIX_BITS)

struct radix_node {
    uint64_t key;   /* of a leaf; of a node: the first of the RADIX_FAN^level keys beneath */
    uint32_t level; /* 0: a leaf */
    uint32_t used;  /* children; of a leaf what the caller counts */
    uint64_t count; /* of a leaf: the caller's */
};

struct radix {
    struct radix_node *root;
    uint32_t frames; /* nodes and leaves */
    uint32_t looks;  /* nodes and leaves looked at; plain, and wraps: for tests */
};

/* The leaf of `key`, or null. */
struct radix_node *radix_find(struct radix *tree, uint64_t key);
/* The first leaf whose key is not lower, or null. */
struct radix_node *radix_next(struct radix *tree, uint64_t key);

/* Has a leaf of `key`, zeroed where it is new. Charged to the account of `payer`, but never drawn
 * from its reservation, which is promised for other things. CLEAVE_NO_MEMORY, CLEAVE_QUOTA: nothing
 * changed. */
enum cleave_status radix_make(struct mm_ctx *ctx, const struct payer *payer, struct radix *tree,
                              uint64_t key, struct radix_node **leaf) MUST_CHECK;
/* Frees the leaf of `key` if there is one of which nothing is used, and the node above when that is
 * left with one child. */
void radix_trim(struct mm_ctx *ctx, struct radix *tree, uint64_t key);

static inline struct radix_node **radix_children(struct radix_node *node)
{
    return (struct radix_node **)(node + 1);
}

_Static_assert(sizeof(struct radix_node) + RADIX_FAN * 8 <= PAGE_SIZE, "a node is one frame");

#endif
