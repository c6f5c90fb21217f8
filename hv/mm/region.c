/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Owns the region trees and their nodes. A tree belongs to a space, whose lock protects it; a node
 * that several trees hold is never changed, so that its other holders need no lock.
 *
 *   tree word (level TABLE_LEVELS)
 *     | leaf: one region for every page        or  node of TABLE_ENTRIES words (level ROOT_LEVEL)
 *     |                                               | leaf, or node of words one level down ...
 *
 * Words and looking, sharing and dropping; a change is region_change.c's.
 */
#include "region_word.h"

bool region_policy_fills(enum region_policy policy)
{
    switch (policy) {
    case REGION_PRIVATE:
    case REGION_READ_ONLY:
    case REGION_SHARED:
    case REGION_WIPE:
    case REGION_ABSENT:
    case REGION_PAGED:
        return true;
    case REGION_NONE:
    case REGION_DEVICE:
    case REGION_FOREIGN:
    case REGION_POLICIES:
        return false;
    }
    return false;
}

region_word_t region_pack(const struct region *region)
{
    if (region->policy == REGION_NONE) {
        return REGION_WORD_NONE; /* one word for it, whatever else is said */
    }
    return (uint64_t)region->policy << LEAF_POLICY |
           (uint64_t)(region->rights & RIGHT_ALL) << LEAF_RIGHTS |
           (uint64_t)region->armed << LEAF_ARMED | (uint64_t)region->notify << LEAF_NOTIFY |
           (uint64_t)region->whole << LEAF_WHOLE | (uint64_t)region->fork_refuse << LEAF_REFUSE |
           (uint64_t)(region->order & 3u) << LEAF_ORDER |
           (uint64_t)region->channel << LEAF_CHANNEL | (uint64_t)region->pager << LEAF_PAGER |
           (uint64_t)region->told << LEAF_TOLD;
}

struct region region_unpack(region_word_t leaf)
{
    return (struct region){
        .policy = (enum region_policy)(leaf >> LEAF_POLICY & 15u),
        .rights = (uint8_t)(leaf >> LEAF_RIGHTS & RIGHT_ALL),
        .armed = (leaf >> LEAF_ARMED & 1u) != 0,
        .notify = (leaf >> LEAF_NOTIFY & 1u) != 0,
        .whole = (leaf >> LEAF_WHOLE & 1u) != 0,
        .fork_refuse = (leaf >> LEAF_REFUSE & 1u) != 0,
        .order = (uint8_t)(leaf >> LEAF_ORDER & 3u),
        .channel = (uint16_t)(leaf >> LEAF_CHANNEL),
        .pager = (uint16_t)(leaf >> LEAF_PAGER),
        .told = (uint16_t)(leaf >> LEAF_TOLD),
    };
}

static unsigned policy_summary(enum region_policy policy)
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

static unsigned leaf_summary(region_word_t leaf)
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

unsigned region_word_summary(region_word_t word)
{
    return word_is_node(word) ? (unsigned)(word >> NODE_SUMMARY) & NODE_SUMMARY_MASK
                              : leaf_summary(word);
}

/* --- Looking ---------------------------------------------------------------------------------- */

/* Goes from the tree's word to the one that covers `at`: the first leaf, node without any bit of
 * `mask`, or word of level `stop`. Its level goes to `*level`. */
static region_word_t find_word(region_word_t tree, gfn_t at, unsigned stop, unsigned mask,
                               unsigned *level)
{
    region_word_t word = tree;
    unsigned l = TABLE_LEVELS;

    MM_ASSERT(at.v < GUEST_PAGES);
    while (l > stop && word_is_node(word) && (region_word_summary(word) & mask) != 0) {
        l--;
        word = node_words(word_node(word))[level_slot(at, l)];
    }
    *level = l;
    return word;
}

/* A mask that no node's summary misses: one without memory would be the leaf REGION_NONE. */
#define ANY_SUMMARY NODE_SUMMARY_MASK

struct region region_get(region_word_t tree, gfn_t at)
{
    unsigned level;
    return region_unpack(find_word(tree, at, 0, ANY_SUMMARY, &level));
}

struct region region_get_extent(region_word_t tree, gfn_t at, struct gfn_range *extent)
{
    unsigned level;
    region_word_t word = find_word(tree, at, 0, ANY_SUMMARY, &level);

    extent->start = level_align(at, level);
    extent->end = gfn(extent->start.v + level_pages(level));
    return region_unpack(word);
}

unsigned region_summary(region_word_t tree, gfn_t at, unsigned level)
{
    unsigned found;
    return region_word_summary(find_word(tree, at, level, ANY_SUMMARY, &found));
}

unsigned region_summary_all(region_word_t tree) { return region_word_summary(tree); }

bool region_find(region_word_t tree, gfn_t from, gfn_t end, unsigned mask, struct gfn_range *found,
                 struct region *region)
{
    gfn_t at = from;

    while (at.v < end.v) {
        unsigned level;
        region_word_t word = find_word(tree, at, 0, mask, &level);
        gfn_t next = gfn(level_align(at, level).v + level_pages(level));

        if ((region_word_summary(word) & mask) != 0) {
            *found = (struct gfn_range){at, next.v < end.v ? next : end};
            *region = region_unpack(word);
            return true;
        }
        at = next;
    }
    return false;
}

uint64_t region_count_words(region_word_t tree, struct gfn_range range, uint64_t limit)
{
    uint64_t words = 0;
    for (gfn_t at = range.start; at.v < range.end.v && words <= limit; words++) {
        unsigned level;
        (void)find_word(tree, at, 0, ANY_SUMMARY, &level);
        at = gfn(level_align(at, level).v + level_pages(level));
    }
    return words;
}

static void walk_node(region_word_t word, unsigned level,
                      bool (*visit)(void *arg, pfn_t node, unsigned level), void *arg)
{
    if (!visit(arg, word_node(word), level)) {
        return;
    }
    const region_word_t *words = node_words(word_node(word));
    for (unsigned i = 0; level > 0 && i < TABLE_ENTRIES; i++) {
        if (word_is_node(words[i])) {
            walk_node(words[i], level - 1, visit, arg);
        }
    }
}

void region_walk(region_word_t tree, bool (*visit)(void *arg, pfn_t node, unsigned level),
                 void *arg)
{
    if (word_is_node(tree)) {
        walk_node(tree, ROOT_LEVEL, visit, arg);
    }
}

void region_walk_dead(pfn_t node, bool (*visit)(void *arg, pfn_t node, unsigned level), void *arg)
{
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        region_walk(node_words(node)[i], visit, arg);
    }
}

/* --- Sharing and dropping --------------------------------------------------------------------- */

enum cleave_status region_share(struct mm_ctx *ctx, region_word_t tree)
{
    return word_is_node(tree) ? node_get(ctx, word_node(tree)) : CLEAVE_OK;
}

/* Drops one reference on `node` unless it is the last; false when it is, and nobody else can see
 * the node. */
static bool put_shared(pfn_t node)
{
    uint32_t *count = &frame_of(node, 0)->count;
    uint32_t old = __atomic_load_n(count, __ATOMIC_ACQUIRE);

    do {
        if (old == 1) {
            return false;
        }
    } while (!__atomic_compare_exchange_n(count, &old, old - 1, true, __ATOMIC_ACQ_REL,
                                          __ATOMIC_ACQUIRE));
    return true;
}

void region_free_node(struct mm_ctx *ctx, struct payer *back, pfn_t node)
{
    if (back != NULL) {
        pool_return(ctx, back, node);
        return;
    }
    bool last = node_put(ctx, node);
    MM_CHECK(last);
    pool_free(ctx, node, 0);
}

/*
 * Drops the reference that `*word`, a node, holds; it is REGION_WORD_NONE then. A node that this is
 * the last holder of keeps its count of one until all beneath it is gone, so that a drop which
 * stops leaves a tree that can be walked and dropped on. One unit for each reference dropped. Calls
 * itself at most ROOT_LEVEL deep. `back` as for region_free_node().
 */
static bool drop_word(struct mm_ctx *ctx, struct payer *back, region_word_t *word)
{
    pfn_t node = word_node(*word);

    if (node_count(node) > 1) {
        if (!mm_spend(ctx, 1)) {
            return false;
        }
        if (put_shared(node)) {
            *word = REGION_WORD_NONE;
            return true;
        }
    }
    region_word_t *words = node_words(node);
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        if (word_is_node(words[i]) && !drop_word(ctx, back, &words[i])) {
            return false;
        }
    }
    if (!mm_spend(ctx, 1)) {
        return false;
    }
    region_free_node(ctx, back, node);
    *word = REGION_WORD_NONE;
    return true;
}

bool region_drop(struct mm_ctx *ctx, region_word_t *tree)
{
    if (word_is_node(*tree)) {
        return drop_word(ctx, NULL, tree);
    }
    *tree = REGION_WORD_NONE;
    return true;
}

void region_defer(struct mm_ctx *ctx, region_word_t word)
{
    if (word_is_node(word) && !put_shared(word_node(word))) {
        bool last = node_put(ctx, word_node(word));
        MM_CHECK(last);
        pool_defer_table(ctx, pool_of(word_node(word)), word_node(word));
    }
}

void region_drop_some(struct mm_ctx *ctx, struct payer *back, region_word_t tree, uint64_t *limit)
{
    uint64_t budget = ctx->budget;
    bool done = !word_is_node(tree);

    if (*limit != 0 && !done) {
        ctx->budget = *limit;
        done = drop_word(ctx, back, &tree);
        *limit = ctx->budget;
        ctx->budget = budget;
    }
    if (!done) {
        region_defer(ctx, tree);
    }
}

void region_destroy_node(struct mm_ctx *ctx, pfn_t node)
{
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        region_defer(ctx, node_words(node)[i]);
    }
    pool_free(ctx, node, 0);
}
