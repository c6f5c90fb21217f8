/* SPDX-License-Identifier: BSD-2-Clause */
/* What the two files of region trees share: how words lie in nodes. For no others. */
#ifndef MM_REGION_WORD_H
#define MM_REGION_WORD_H

#include "region.h"

/*
 * A leaf: policy 1..4, rights 5..7, armed 8, notify 9, whole 10, fork_refuse 11, order 12..13,
 * channel 16..31, pager 32..47, told 48..63. A node: bit 0, summary 1..8, frame number 9..40.
 */
#define WORD_NODE UINT64_C(1)
#define LEAF_POLICY 1
#define LEAF_RIGHTS 5
#define LEAF_ARMED 8
#define LEAF_NOTIFY 9
#define LEAF_WHOLE 10
#define LEAF_REFUSE 11
#define LEAF_ORDER 12
#define LEAF_CHANNEL 16
#define LEAF_PAGER 32
#define LEAF_TOLD 48
#define NODE_SUMMARY 1
#define NODE_SUMMARY_MASK 0xffu
#define NODE_FRAME 9

_Static_assert(REGION_POLICIES <= 16, "a policy fits in its bits");
_Static_assert(LEAF_ORDERS <= 4, "an order fits in its bits");
_Static_assert(2 * REGION_HAS_NO_READ - 1 <= NODE_SUMMARY_MASK, "a summary fits in its bits");

static inline bool word_is_node(region_word_t word) { return (word & WORD_NODE) != 0; }
static inline pfn_t word_node(region_word_t word) { return pfn((uint32_t)(word >> NODE_FRAME)); }
static inline region_word_t *node_words(pfn_t node) { return frame_address(node); }

/* What a word's regions have (REGION_HAS_*), be it a leaf or a node. */
unsigned region_word_summary(region_word_t word);
/* Gives back a node that nobody else can see; into the reservation of `back` unless it is null. */
void region_free_node(struct mm_ctx *ctx, struct payer *back, pfn_t node);

#endif
