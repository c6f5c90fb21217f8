/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Changes of a region tree.
 *
 * A change goes through the words that meet its range four times. The plan tells for each word
 * whether it stays, becomes a leaf or needs a node of its own, and how many nodes that takes; these
 * are had. Then the references of nodes that will be copied are taken. Only then, when nothing can
 * fail any more, are nodes filled, exclusive ones changed in place and the root word replaced. One
 * page among others in a node that is exclusive is stored at once: change_in_place().
 */
#include "region_word.h"

/* --- Changing: the plan ----------------------------------------------------------------------- */

struct change {
    struct gfn_range range;
    region_word_t set; /* where `edit` is null */
    region_edit_t *edit;
    const void *arg;
    struct payer *back;     /* whose reservation nodes go back to; null: none */
    region_word_t from, to; /* the leaf edited last, and what it became */
    region_word_t spare;    /* nodes had beforehand: each one's first word names the next */
    uint64_t taken;         /* references taken beforehand */
    uint64_t drops;         /* nodes that may still be dropped at once */
    bool meets_shared;      /* there are nodes to copy */
};

/* What becomes of a word. */
struct plan {
    enum { PLAN_KEEP, PLAN_LEAF, PLAN_NODE } kind;
    region_word_t leaf;
    uint64_t frames; /* nodes that must be had */
};

/* First and last word that meet the range of `change`, in a node of words of `level` at `base`. */
struct span {
    unsigned first, last;
};

static struct span change_span(const struct change *change, unsigned level, gfn_t base)
{
    gfn_t end = gfn(base.v + level_pages(level + 1));
    return (struct span){
        change->range.start.v > base.v ? level_slot(change->range.start, level) : 0,
        change->range.end.v < end.v ? level_slot(gfn(change->range.end.v - 1), level)
                                    : TABLE_ENTRIES - 1,
    };
}

static region_word_t change_leaf(struct change *change, region_word_t leaf)
{
    if (!change->edit) {
        return change->set;
    }
    if (leaf == REGION_WORD_NONE) {
        return leaf;
    }
    if (leaf != change->from) {
        struct region region = region_unpack(leaf);
        change->edit(&region, change->arg);
        change->from = leaf;
        change->to = region_pack(&region);
    }
    return change->to;
}

/* Word `slot` beneath `word`, which may be a leaf that is to be split. */
static region_word_t child_word(region_word_t word, unsigned slot)
{
    return word_is_node(word) ? node_words(word_node(word))[slot] : word;
}

/* True when the words beneath `word` that lie outside `span` are all `leaf`. Most often one of the
 * neighbours says no. */
static bool outside_is(region_word_t word, struct span span, region_word_t leaf)
{
    if ((span.last + 1 < TABLE_ENTRIES && child_word(word, span.last + 1) != leaf) ||
        (span.first > 0 && child_word(word, span.first - 1) != leaf)) {
        return false;
    }
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        if (i == span.first) {
            i = span.last;
        } else if (child_word(word, i) != leaf) {
            return false;
        }
    }
    return true;
}

static struct plan plan_word(struct change *change, region_word_t word, unsigned level, gfn_t base,
                             bool shared);

/* Plans what lies beneath `word`: a node, or a leaf that the range covers in part. `level` is that
 * of the words beneath, `shared` says that the node is not to be changed in place. */
static struct plan plan_node(struct change *change, region_word_t word, unsigned level, gfn_t base,
                             bool shared)
{
    struct span span = change_span(change, level, base);
    uint64_t frames = word_is_node(word) && !shared ? 0 : 1;
    region_word_t leaf = REGION_WORD_NONE;
    bool changed = false;
    bool uniform = true;

    for (unsigned i = span.first; i <= span.last; i++) {
        region_word_t child = child_word(word, i);
        gfn_t at = gfn(base.v + i * level_pages(level));
        struct plan plan = plan_word(change, child, level, at, shared);
        region_word_t becomes = plan.kind == PLAN_KEEP   ? child
                                : plan.kind == PLAN_LEAF ? plan.leaf
                                                         : WORD_NODE;
        leaf = i == span.first ? becomes : leaf;
        uniform = uniform && becomes == leaf && !word_is_node(becomes);
        changed = changed || plan.kind != PLAN_KEEP;
        frames += plan.frames;
    }
    if (!changed) {
        return (struct plan){PLAN_KEEP, 0, 0};
    }
    if (uniform && outside_is(word, span, leaf)) {
        return (struct plan){PLAN_LEAF, leaf, 0};
    }
    return (struct plan){PLAN_NODE, 0, frames};
}

/* Plans `word` of `level`, which covers pages from `base` and meets the range. `shared`: the node
 * that holds it is. */
static struct plan plan_word(struct change *change, region_word_t word, unsigned level, gfn_t base,
                             bool shared)
{
    gfn_t end = gfn(base.v + level_pages(level));
    bool inside = change->range.start.v <= base.v && end.v <= change->range.end.v;

    if (!word_is_node(word)) {
        region_word_t leaf = change_leaf(change, word);
        if (leaf == word) {
            return (struct plan){PLAN_KEEP, 0, 0};
        }
        if (inside) {
            return (struct plan){PLAN_LEAF, leaf, 0};
        }
    } else if (inside && !change->edit) {
        return (struct plan){PLAN_LEAF, change->set, 0};
    } else {
        shared = shared || node_count(word_node(word)) > 1;
        change->meets_shared |= shared;
    }
    return plan_node(change, word, level - 1, base, shared);
}

/* --- Changing: what can fail ------------------------------------------------------------------ */

static void free_spare(struct mm_ctx *ctx, struct change *change)
{
    while (word_is_node(change->spare)) {
        pfn_t node = word_node(change->spare);
        change->spare = node_words(node)[0];
        region_free_node(ctx, change->back, node);
    }
}

static enum cleave_status have_spare(struct mm_ctx *ctx, struct payer *payer, struct change *change,
                                     uint64_t frames)
{
    for (uint64_t i = 0; i < frames; i++) {
        pfn_t node;
        enum cleave_status status = pool_alloc(ctx, payer, 0, FRAME_REGION, &node);
        if (status != CLEAVE_OK) {
            free_spare(ctx, change);
            return status;
        }
        node_words(node)[0] = change->spare;
        change->spare = WORD_NODE | (uint64_t)node.v << NODE_FRAME;
    }
    return CLEAVE_OK;
}

static pfn_t take_spare(struct change *change)
{
    MM_CHECK(word_is_node(change->spare));
    pfn_t node = word_node(change->spare);
    change->spare = node_words(node)[0];
    return node;
}

/* Takes a reference, or gives one of change->taken back. CLEAVE_OVERFLOW ends either walk. */
static enum cleave_status hold_node(struct mm_ctx *ctx, struct change *change, region_word_t word,
                                    bool undo)
{
    if (!undo) {
        enum cleave_status status = node_get(ctx, word_node(word));
        change->taken += status == CLEAVE_OK;
        return status;
    }
    if (change->taken == 0) {
        return CLEAVE_OVERFLOW;
    }
    change->taken--;
    bool last = node_put(ctx, word_node(word));
    MM_CHECK(!last);
    return CLEAVE_OK;
}

/*
 * Takes the references that copies of shared nodes will hold: one on each node that the old and the
 * new tree will share, and one on the topmost node of each shared part that is copied, which so
 * stays shared (and is planned the same) until the end. With `undo`, gives them back in the same
 * order.
 */
static enum cleave_status hold_word(struct mm_ctx *ctx, struct change *change, region_word_t word,
                                    unsigned level, gfn_t base, bool shared, bool undo)
{
    if (!word_is_node(word)) {
        return CLEAVE_OK;
    }
    struct plan plan = plan_word(change, word, level, base, shared);
    if (plan.kind == PLAN_LEAF) {
        return CLEAVE_OK;
    }
    if (plan.kind == PLAN_KEEP) {
        return shared ? hold_node(ctx, change, word, undo) : CLEAVE_OK;
    }
    bool beneath = shared || node_count(word_node(word)) > 1;
    enum cleave_status status = CLEAVE_OK;
    if (beneath && !shared) {
        status = hold_node(ctx, change, word, undo);
    }
    struct span span = change_span(change, level - 1, base);
    unsigned first = beneath ? 0 : span.first; /* what is not copied keeps what it holds */
    unsigned last = beneath ? TABLE_ENTRIES - 1 : span.last;
    for (unsigned i = first; status == CLEAVE_OK && i <= last; i++) {
        region_word_t child = child_word(word, i);
        if (i >= span.first && i <= span.last) {
            gfn_t at = gfn(base.v + i * level_pages(level - 1));
            status = hold_word(ctx, change, child, level - 1, at, beneath, undo);
        } else if (beneath && word_is_node(child)) {
            status = hold_node(ctx, change, child, undo);
        }
    }
    return status;
}

/* --- Changing: what cannot fail --------------------------------------------------------------- */

static void replace_word(struct mm_ctx *ctx, struct change *change, region_word_t *slot,
                         unsigned level, gfn_t base, bool shared);

static void drop_some(struct mm_ctx *ctx, struct change *change, region_word_t word)
{
    region_drop_some(ctx, change->back, word, &change->drops);
}

/* The word that points to `node`: what it was made of had the summary `before`, and these words
 * have changed. When all bits are found that there can be, nothing more is looked at. */
static region_word_t word_of_node(pfn_t node, struct span changed, unsigned before)
{
    const region_word_t *words = node_words(node);
    unsigned summary = region_word_summary(words[changed.first]);

    for (unsigned i = changed.first + 1; i <= changed.last; i++) {
        if (words[i] != words[i - 1]) {
            summary |= region_word_summary(words[i]);
        }
    }
    summary |= changed.first > 0 ? region_word_summary(words[changed.first - 1]) : 0;
    unsigned most = before | summary;
    region_word_t last = words[changed.last];
    for (unsigned n = 1; summary != most && n < TABLE_ENTRIES; n++) {
        region_word_t word = words[(changed.last + n) % TABLE_ENTRIES];
        summary |= word != last ? region_word_summary(word) : 0;
        last = word;
    }
    return WORD_NODE | (uint64_t)summary << NODE_SUMMARY | (uint64_t)node.v << NODE_FRAME;
}

/* Makes the node that `word` becomes, of words of `level`, and returns the word that points to it:
 * a node filled with the leaf that is split, a copy of a shared node, or the node itself. */
static region_word_t replace_node(struct mm_ctx *ctx, struct change *change, region_word_t word,
                                  unsigned level, gfn_t base, bool shared)
{
    bool in_place = word_is_node(word) && !shared;
    pfn_t node = in_place ? word_node(word) : take_spare(change);
    region_word_t *words = node_words(node);

    for (unsigned i = 0; !in_place && i < TABLE_ENTRIES; i++) {
        words[i] = child_word(word, i);
    }
    struct span span = change_span(change, level, base);
    for (unsigned i = span.first; i <= span.last; i++) {
        gfn_t at = gfn(base.v + i * level_pages(level));
        replace_word(ctx, change, &words[i], level, at, shared);
    }
    return word_of_node(node, span, region_word_summary(word));
}

/* Carries the plan for `*slot` out. `shared`: the slot is in a copy, and so holds a reference only
 * on what stays. */
static void replace_word(struct mm_ctx *ctx, struct change *change, region_word_t *slot,
                         unsigned level, gfn_t base, bool shared)
{
    region_word_t old = *slot;
    struct plan plan = plan_word(change, old, level, base, shared);

    if (plan.kind == PLAN_KEEP) {
        return;
    }
    if (plan.kind == PLAN_LEAF) {
        *slot = plan.leaf;
        if (word_is_node(old) && !shared) {
            drop_some(ctx, change, old);
        }
        return;
    }
    bool copied = word_is_node(old) && !shared && node_count(word_node(old)) > 1;
    *slot = replace_node(ctx, change, old, level - 1, base, shared || copied);
    if (copied) {
        bool last = node_put(ctx, word_node(old)); /* taken by hold_word() */
        MM_CHECK(!last);
        drop_some(ctx, change, old);
    }
}

/* One page, whose word stands among others that stay, below nodes that nobody else holds: the word
 * is stored, and the summaries above it. False: the change is another, and nothing was done. */
static bool change_in_place(struct change *change, region_word_t *tree)
{
    region_word_t *slot[TABLE_LEVELS + 1];
    gfn_t at = change->range.start;
    unsigned level = TABLE_LEVELS;

    if (change->range.end.v != at.v + 1) {
        return false;
    }
    slot[level] = tree;
    for (; level > 0; level--) {
        region_word_t word = *slot[level];
        if (!word_is_node(word) || node_count(word_node(word)) > 1) {
            return false;
        }
        slot[level - 1] = &node_words(word_node(word))[level_slot(at, level - 1)];
    }
    unsigned i = level_slot(at, 0);
    region_word_t leaf = change_leaf(change, *slot[0]);
    if (outside_is(*slot[1], (struct span){i, i}, leaf)) {
        return false;
    }
    *slot[0] = leaf;
    for (level = 1; level <= TABLE_LEVELS; level++) {
        region_word_t word = *slot[level];
        i = level_slot(at, level - 1);
        *slot[level] =
            word_of_node(word_node(word), (struct span){i, i}, region_word_summary(word));
        if (*slot[level] == word) {
            break; /* nothing has changed for what is above */
        }
    }
    return true;
}

static enum cleave_status change_tree(struct mm_ctx *ctx, struct payer *payer, region_word_t *tree,
                                      struct change *change)
{
    if (change->range.start.v >= change->range.end.v) {
        return CLEAVE_OK;
    }
    MM_ASSERT(change->range.end.v <= GUEST_PAGES);
    if (change_in_place(change, tree)) {
        return CLEAVE_OK;
    }
    struct plan plan = plan_word(change, *tree, TABLE_LEVELS, gfn(0), false);
    if (plan.kind == PLAN_KEEP) {
        return CLEAVE_OK;
    }
    /* What comes and goes with each write to an armed page must not use a reservation up. */
    change->back = payer_reserves(payer);
    enum cleave_status status = have_spare(ctx, payer, change, plan.frames);
    if (status != CLEAVE_OK) {
        return status;
    }
    if (change->meets_shared) {
        status = hold_word(ctx, change, *tree, TABLE_LEVELS, gfn(0), false, false);
    }
    if (status != CLEAVE_OK) {
        (void)!hold_word(ctx, change, *tree, TABLE_LEVELS, gfn(0), false, true);
        MM_CHECK(change->taken == 0);
        free_spare(ctx, change);
        return status;
    }
    replace_word(ctx, change, tree, TABLE_LEVELS, gfn(0), false);
    free_spare(ctx, change); /* where other holders of a node went meanwhile */
    return CLEAVE_OK;
}

enum cleave_status region_set(struct mm_ctx *ctx, struct payer *payer, region_word_t *tree,
                              struct gfn_range range, const struct region *region)
{
    struct change change = {.range = range, .set = region_pack(region), .drops = REGION_DROPS};
    return change_tree(ctx, payer, tree, &change);
}

enum cleave_status region_edit(struct mm_ctx *ctx, struct payer *payer, region_word_t *tree,
                               struct gfn_range range, region_edit_t *edit, const void *arg)
{
    struct change change = {.range = range, .edit = edit, .arg = arg, .drops = UINT64_MAX};
    return change_tree(ctx, payer, tree, &change);
}
