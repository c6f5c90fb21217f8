/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The region tree of a space: which policy and rights each guest page has. A radix tree of the same
 * shape as the page tables. A word of it is a leaf (one policy for everything beneath) or points to
 * a node of TABLE_ENTRIES words one level down; a node pointer carries the OR of what is beneath,
 * so that a fork finds wipe ranges, and a fault armed ones, without a search. Nodes are counted and
 * shared between forks like tables, and copied on change. A node whose words are all the same leaf
 * is replaced by that leaf.
 */
#ifndef MM_REGION_H
#define MM_REGION_H

#include "pool.h"
#include "types.h"

enum region_policy {
    REGION_NONE = 0, /* no memory here: every access is a fault that the guest is told of */
    REGION_PRIVATE,
    REGION_READ_ONLY,
    REGION_SHARED,
    REGION_WIPE,
    REGION_ABSENT,  /* here as private; a fork gets REGION_NONE */
    REGION_DEVICE,  /* leaves that are not RAM; a fork gets REGION_NONE */
    REGION_PAGED,   /* as private once loaded */
    REGION_FOREIGN, /* maps pages of another space; a fork gets REGION_NONE */
    REGION_POLICIES
};
/* Does an access to a hole of this policy meet memory (zeros, or what a pager loads)? */
bool region_policy_fills(enum region_policy policy);

/* What a page's region says. */
struct region {
    enum region_policy policy;
    uint8_t rights;   /* RIGHT_* the guest may have; WRITE never for READ_ONLY */
    bool armed;       /* the subscriber must be told before a write lands */
    bool notify;      /* belongs to a notify range (armed or already told) */
    bool whole;       /* a shared 2 MiB leaf is copied whole, not split */
    bool fork_refuse; /* device: a fork is refused instead of leaving a hole */
    uint8_t order;    /* largest leaf that first touch makes: 0, 1, 2 */
    uint16_t channel; /* notify: channel number, 0 for none */
    uint16_t pager;   /* paged: pager number, 0 for none */
    uint16_t told;    /* notify, not armed: space_tag() of the space whose write was told, so that
                         it is taken off the dirty count once; 0 for none. Only notify.c sets it */
};

/* A packed word: leaves have bit 0 clear. The layout is region.c's own but for this bit. */
typedef uint64_t region_word_t;
#define REGION_WORD_NONE UINT64_C(0) /* leaf REGION_NONE: an empty tree */

/* Summaries: for a leaf word what it says, for a node the OR over everything beneath. REGION_NONE
 * has none of them. */
#define REGION_HAS_NO_WRITE 1u /* some page lacks WRITE, or is armed */
#define REGION_HAS_NO_EXEC 2u  /* some page lacks EXEC */
#define REGION_HAS_FORK 4u     /* wipe, absent, device or foreign: the fork must look */
#define REGION_HAS_MEMORY 8u   /* some page is not REGION_NONE */
#define REGION_HAS_NOTIFY 16u  /* some page belongs to a notify range */
#define REGION_HAS_PAGED 32u
#define REGION_HAS_SHARED 64u
#define REGION_HAS_NO_READ 128u /* some page lacks READ, and so every right */

region_word_t region_pack(const struct region *region);
struct region region_unpack(region_word_t leaf);

/* The region of page `at`. A 4-step walk; takes no lock: the caller holds the space's lock. */
struct region region_get(region_word_t tree, gfn_t at);
/* The same, and the aligned range of one word that contains `at` and has that region throughout. */
struct region region_get_extent(region_word_t tree, gfn_t at, struct gfn_range *extent);
/* Summary of the aligned range that one entry of `level` (0..ROOT_LEVEL) at `at` covers. O(1). */
unsigned region_summary(region_word_t tree, gfn_t at, unsigned level);
/* Summary of the whole tree. */
unsigned region_summary_all(region_word_t tree);

/* First range at or after `from` (ending by `end`) of pages for which (summary of the page &
 * `mask`) is not zero: one word's extent, clipped to [from, end). False when there is none. Skips
 * subtrees by their summaries. */
bool region_find(region_word_t tree, gfn_t from, gfn_t end, unsigned mask, struct gfn_range *found,
                 struct region *region);

/* Words that meet `range`, but at most `limit` + 1: O(`limit`). */
uint64_t region_count_words(region_word_t tree, struct gfn_range range, uint64_t limit);

/* A change to a range: either all of it becomes `set`, or `edit` is applied to each leaf in it. */
typedef void region_edit_t(struct region *region, const void *arg);

/* Frames that region_set() or region_edit() on `range` takes at most when edges are shared:
 * 2 * ROOT_LEVEL + 1 nodes. region_edit() over a range of mixed leaves beneath a shared node copies
 * that node too, so needs one more per distinct shared node; it allocates as it goes, all before
 * the first visible change (the new tree is built beside the old and swapped in). */
#define REGION_SET_FRAMES (2 * ROOT_LEVEL + 1)

/*
 * Makes every page of `range` have `region`. O(TABLE_ENTRIES) for each level: of what was there, at
 * most REGION_DROPS nodes are dropped, the others are deferred. Builds changed nodes as copies,
 * never touching a node that another tree shares, and stores the new root word through `tree` at
 * the end; nodes exclusive to this tree may be changed in place only after every allocation has
 * succeeded. CLEAVE_NO_MEMORY or CLEAVE_QUOTA: nothing changed. The caller holds the space's lock
 * for writing.
 */
enum cleave_status region_set(struct mm_ctx *ctx, struct payer *payer, region_word_t *tree,
                              struct gfn_range range, const struct region *region) MUST_CHECK;
/* Applies `edit` to every leaf that meets `range` (REGION_NONE leaves are left alone). O(words of
 * the range): change.h does long ones in steps. */
enum cleave_status region_edit(struct mm_ctx *ctx, struct payer *payer, region_word_t *tree,
                               struct gfn_range range, region_edit_t *edit,
                               const void *arg) MUST_CHECK;

/* Sharing a whole tree: one count. CLEAVE_OVERFLOW. */
enum cleave_status region_share(struct mm_ctx *ctx, region_word_t tree) MUST_CHECK;
/* Drops a tree. Frees what nothing else shares; work is bounded by the nodes it alone holds, spends
 * one unit per node; false when the budget ran out: `*tree` holds what is left, call again. */
bool region_drop(struct mm_ctx *ctx, region_word_t *tree);

/* The same at once: what nothing else shares goes to its pool's reap list (table.h). */
void region_defer(struct mm_ctx *ctx, region_word_t tree);
/* Drops up to `*limit` nodes, which it is lowered by, into the reservation of `back` unless it is
 * null, and defers the rest. */
void region_drop_some(struct mm_ctx *ctx, struct payer *back, region_word_t tree, uint64_t *limit);
#define REGION_DROPS 16u /* nodes that region_set() drops itself */
/* Frees a node that was deferred; what it alone held is deferred in turn. */
void region_destroy_node(struct mm_ctx *ctx, pfn_t node);

/* For audits: the same walk beneath a deferred node. */
void region_walk_dead(pfn_t node, bool (*visit)(void *arg, pfn_t node, unsigned level), void *arg);
/* For audits: calls `visit` for each node reached from `tree` (the node, its level). `visit`
 * returns true to descend. */
void region_walk(region_word_t tree, bool (*visit)(void *arg, pfn_t node, unsigned level),
                 void *arg);

#endif
