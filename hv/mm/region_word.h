/* SPDX-License-Identifier: BSD-2-Clause */
/* Words of a region tree, for the files that own it: region.c and region_look.c. */
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

static inline unsigned policy_summary(enum region_policy policy)
{
    switch (policy) {
    case REGION_NONE:
    case REGION_POLICIES:
        return 0;
    case REGION_PRIVATE:
    case REGION_READ_ONLY:
        return REGION_HAS_MEMORY;
    case REGION_SHARED:
        return REGION_HAS_MEMORY | REGION_HAS_SHARED;
    case REGION_WIPE:
    case REGION_ABSENT:
    case REGION_DEVICE:
    case REGION_FOREIGN:
        return REGION_HAS_MEMORY | REGION_HAS_FORK;
    case REGION_PAGED:
        return REGION_HAS_MEMORY | REGION_HAS_PAGED;
    }
    return 0;
}

static inline unsigned leaf_summary(region_word_t leaf)
{
    unsigned rights = (unsigned)(leaf >> LEAF_RIGHTS) & RIGHT_ALL;
    bool armed = (leaf >> LEAF_ARMED & 1u) != 0;

    if ((leaf >> LEAF_POLICY & 15u) == REGION_NONE) {
        return 0; /* nothing is mapped there that could have a right too many */
    }
    return policy_summary((enum region_policy)(leaf >> LEAF_POLICY & 15u)) |
           (armed || !(rights & RIGHT_WRITE) ? REGION_HAS_NO_WRITE : 0u) |
           (rights & RIGHT_EXEC ? 0u : REGION_HAS_NO_EXEC) |
           (rights & RIGHT_READ ? 0u : REGION_HAS_NO_READ) |
           (leaf >> LEAF_NOTIFY & 1u ? REGION_HAS_NOTIFY : 0u);
}

static inline unsigned word_summary(region_word_t word)
{
    return word_is_node(word) ? (unsigned)(word >> NODE_SUMMARY) & NODE_SUMMARY_MASK
                              : leaf_summary(word);
}

#endif
