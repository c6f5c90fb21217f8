/* SPDX-License-Identifier: BSD-2-Clause */
/* The sparse array of frames; see radix.h. Every node has two children or more. */
#include "radix.h"

/* The keys beneath a node of `level` have the same bits from here on. */
static unsigned shift(unsigned level) { return RADIX_BITS * level; }

static bool covers(const struct radix_node *node, uint64_t key)
{
    return key >> shift(node->level) == node->key >> shift(node->level);
}

static struct radix_node **place_of(struct radix_node *node, uint64_t key)
{
    return &radix_children(node)[key >> shift(node->level - 1) & (RADIX_FAN - 1)];
}

struct radix_node *radix_find(struct radix *tree, uint64_t key)
{
    struct radix_node *node = tree->root;
    while (node != NULL && node->level > 0 && covers(node, key)) {
        tree->looks++;
        node = *place_of(node, key);
    }
    tree->looks++;
    return node != NULL && node->level == 0 && node->key == key ? node : NULL;
}

/* The lowest leaf beneath a node. */
static struct radix_node *first_leaf(struct radix *tree, struct radix_node *node)
{
    while (node->level > 0) {
        struct radix_node **child = radix_children(node);
        while (*child == NULL) {
            child++;
        }
        node = *child;
        tree->looks++;
    }
    return node;
}

struct radix_node *radix_next(struct radix *tree, uint64_t key)
{
    struct radix_node *node = tree->root, *after = NULL; /* what follows the way down */

    while (node != NULL && node->level > 0 && covers(node, key)) {
        struct radix_node **child = place_of(node, key);
        struct radix_node **end = radix_children(node) + RADIX_FAN;
        node = *child++;
        while (child < end && *child == NULL) {
            child++;
        }
        after = child < end ? *child : after;
        tree->looks++;
    }
    if (node != NULL && node->key >= key) {
        return first_leaf(tree, node);
    }
    return after != NULL ? first_leaf(tree, after) : NULL;
}

static enum cleave_status make_node(struct mm_ctx *ctx, const struct payer *payer,
                                    struct radix *tree, struct radix_node **out)
{
    struct payer plain = {.pool = payer->pool, .account = payer->account};
    pfn_t f;
    enum cleave_status status = pool_alloc(ctx, &plain, 0, FRAME_OBJECT, &f);
    if (status == CLEAVE_OK) {
        *out = frame_address(f);
        port_zero_pages(*out, 1);
        tree->frames++;
    }
    return status;
}

static void free_node(struct mm_ctx *ctx, struct radix *tree, struct radix_node *node)
{
    uint64_t offset = (uint64_t)((const unsigned char *)node - machine.direct_map);
    pfn_t f = pfn((uint32_t)(offset >> PAGE_SHIFT));
    tree->frames--;
    MM_CHECK(node_put(ctx, f));
    pool_free(ctx, f, 0);
}

/* Fills the node `fork` in between, where `leaf` and what is at `*place` part. */
static void part(struct radix_node *fork, struct radix_node **place, struct radix_node *leaf)
{
    struct radix_node *old = *place;
    fork->level = old->level + 1;
    fork->key = old->key;
    while (!covers(fork, leaf->key)) {
        fork->level++;
    }
    fork->key = old->key >> shift(fork->level) << shift(fork->level);
    fork->used = 2;
    *place_of(fork, old->key) = old;
    *place_of(fork, leaf->key) = leaf;
    *place = fork;
}

enum cleave_status radix_make(struct mm_ctx *ctx, const struct payer *payer, struct radix *tree,
                              uint64_t key, struct radix_node **leaf)
{
    struct radix_node **place = &tree->root, *above = NULL, *fork = NULL;

    while (*place != NULL && (*place)->level > 0 && covers(*place, key)) {
        above = *place;
        place = place_of(above, key);
        tree->looks++;
    }
    if (*place != NULL && (*place)->level == 0 && (*place)->key == key) {
        *leaf = *place;
        return CLEAVE_OK;
    }
    enum cleave_status status = make_node(ctx, payer, tree, leaf);
    if (status != CLEAVE_OK) {
        return status;
    }
    (*leaf)->key = key;
    if (*place != NULL) {
        status = make_node(ctx, payer, tree, &fork);
        if (status != CLEAVE_OK) {
            free_node(ctx, tree, *leaf);
            return status;
        }
        part(fork, place, *leaf);
        return CLEAVE_OK;
    }
    *place = *leaf;
    if (above != NULL) {
        above->used++;
    }
    return CLEAVE_OK;
}

void radix_trim(struct mm_ctx *ctx, struct radix *tree, uint64_t key)
{
    struct radix_node **place = &tree->root, **above = NULL;

    while (*place != NULL && (*place)->level > 0 && covers(*place, key)) {
        above = place;
        place = place_of(*place, key);
        tree->looks++;
    }
    struct radix_node *leaf = *place;
    if (leaf == NULL || leaf->level > 0 || leaf->key != key || leaf->used > 0) {
        return;
    }
    *place = NULL;
    free_node(ctx, tree, leaf);
    if (above != NULL && --(*above)->used == 1) {
        struct radix_node *node = *above;
        struct radix_node **child = radix_children(node);
        while (*child == NULL) {
            child++;
        }
        *above = *child;
        free_node(ctx, tree, node);
    }
}
