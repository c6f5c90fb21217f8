/* SPDX-License-Identifier: BSD-2-Clause */
/* What a region tree says, which region.c changes: one page, an extent, a summary, all nodes. The
 * caller holds the tree's lock. */
#include "region_word.h"

/* Goes from the tree's word to the one that covers `at`: the first leaf, node without any bit of
 * `mask`, or word of level `stop`. Its level goes to `*level`. */
static region_word_t find_word(region_word_t tree, gfn_t at, unsigned stop, unsigned mask,
                               unsigned *level)
{
    region_word_t word = tree;
    unsigned l = TABLE_LEVELS;

    MM_ASSERT(at.v < GUEST_PAGES);
    while (l > stop && word_is_node(word) && (word_summary(word) & mask) != 0) {
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
    return word_summary(find_word(tree, at, level, ANY_SUMMARY, &found));
}

unsigned region_summary_all(region_word_t tree) { return word_summary(tree); }

bool region_find(region_word_t tree, gfn_t from, gfn_t end, unsigned mask, struct gfn_range *found,
                 struct region *region)
{
    gfn_t at = from;

    while (at.v < end.v) {
        unsigned level;
        region_word_t word = find_word(tree, at, 0, mask, &level);
        gfn_t next = gfn(level_align(at, level).v + level_pages(level));

        if ((word_summary(word) & mask) != 0) {
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
