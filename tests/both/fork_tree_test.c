/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Families of forks: whoever writes, in whatever order and at whatever depth, changes its own
 * memory alone, and whoever dies takes nothing along.
 */
#include <string.h>

#include "scene.h"

static const struct shape_row shapes[] = SHAPE_ROWS;

/* --- Who writes, and in which order ----------------------------------------------------------- */

/* Each space has a value per sampled page; whoever writes changes its own. */
#define TREE 5u
static struct tree {
    struct space *space[TREE];
    uint64_t tag[TREE][SCENE_SAMPLES];
    uint64_t sample[SCENE_SAMPLES];
    unsigned samples;
} tree;

static void tree_fork(unsigned from, unsigned to)
{
    tree.space[to] = scene_fork(tree.space[from]);
    memcpy(tree.tag[to], tree.tag[from], sizeof(tree.tag[to]));
}

static void tree_write(unsigned who, unsigned sample, uint64_t tag)
{
    scene_write(tree.space[who], tree.sample[sample], tag);
    tree.tag[who][sample] = tag;
}

static void tree_check(bool all)
{
    for (unsigned who = 0; who < TREE; who++) {
        for (unsigned i = 0; i < tree.samples && tree.space[who] != NULL; i++) {
            if (all) {
                scene_check(tree.space[who], tree.sample[i], tree.tag[who][i]);
            } else {
                scene_look(tree.space[who], tree.sample[i], tree.tag[who][i]);
            }
        }
    }
}

static void tree_start(enum shape shape)
{
    memset(&tree, 0, sizeof(tree));
    scene_shape(shape);
    tree.samples = scene_samples(tree.sample);
    tree.space[0] = scene.space;
    for (unsigned i = 0; i < tree.samples; i++) {
        tree.tag[0][i] = SCENE_TAG(tree.sample[i]);
    }
}

/* cow.c C1 and hugefork01: the parent's write after the fork does not reach the child, also where
 * the parent's CPU had a writable translation; nor the other way. */
TEST_TABLE(fork_isolates, shapes)
{
    tree_start(row->shape);
    tree_fork(0, 1);
    tree_check(true);
    for (unsigned i = 0; i < tree.samples; i++) {
        tree_write(i % 2, i, 1000 + i);
        tree_check(false);
        scene_audit();
    }
    for (unsigned i = 0; i < tree.samples; i++) {
        tree_write(1 - i % 2, i, 2000 + i);
    }
    tree_check(true);
    scene_audit();
    scene_end();
}

/* cow.c C2: the same after the parent's memory was made read-only and writable again. */
TEST_TABLE(fork_isolates_after_protect, shapes)
{
    tree_start(row->shape);
    tree_fork(0, 1);
    REQUIRE_OK(space_protect(scene.ctx, scene.space, PAGE(scene.base), BYTES(scene.pages),
                             RIGHT_READ | RIGHT_EXEC));
    CHECK_STATUS(scene_access(scene.space, scene.base, ACCESS_WRITE), CLEAVE_FAULT);
    REQUIRE_OK(
        space_protect(scene.ctx, scene.space, PAGE(scene.base), BYTES(scene.pages), RIGHT_ALL));
    scene_audit();
    for (unsigned i = 0; i < tree.samples; i++) {
        tree_write(0, i, 1000 + i);
    }
    tree_check(true);
    scene_audit();
    scene_end();
}

/* T-C7: grandparent, two children, two grandchildren; every order in which all five write one page,
 * the middle one destroyed halfway, its frames recycled and filled with poison. */
static void write_in_order(const unsigned *order, unsigned sample, bool destroy)
{
    for (unsigned i = 0; i < TREE; i++) {
        unsigned who = order[i];
        if (tree.space[who] != NULL) {
            tree_write(who, sample, tree.tag[who][sample] + 10 * (who + 1));
        }
        if (destroy && i == 2 && tree.space[1] != NULL) {
            scene_destroy(tree.space[1]);
            tree.space[1] = NULL;
        }
        for (unsigned k = 0; k < TREE; k++) {
            if (tree.space[k] != NULL) {
                scene_check(tree.space[k], tree.sample[sample], tree.tag[k][sample]);
            }
        }
    }
}

static void grow_tree(void)
{
    tree_fork(0, 1);
    tree_fork(0, 2);
    tree_fork(1, 3);
    tree_fork(1, 4);
}

static void cut_tree(void)
{
    for (unsigned who = 1; who < TREE; who++) {
        if (tree.space[who] != NULL) {
            scene_destroy(tree.space[who]);
            tree.space[who] = NULL;
        }
    }
}

static bool next_order(unsigned *order)
{
    unsigned i = TREE - 1, k = TREE - 1;
    while (i > 0 && order[i - 1] >= order[i]) {
        i--;
    }
    if (i == 0) {
        return false;
    }
    while (order[k] <= order[i - 1]) {
        k--;
    }
    unsigned swap = order[i - 1];
    order[i - 1] = order[k];
    order[k] = swap;
    for (k = TREE - 1; i < k; i++, k--) {
        swap = order[i];
        order[i] = order[k];
        order[k] = swap;
    }
    return true;
}

TEST_TABLE(c7_fork_trees_in_every_write_order, shapes)
{
    tree_start(row->shape);
    for (unsigned destroy = 0; destroy < 2; destroy++) {
        unsigned order[TREE] = {0, 1, 2, 3, 4}, n = 0;
        do {
            grow_tree();
            write_in_order(order, n % tree.samples, destroy != 0);
            if (n++ % 24 == 0) {
                scene_audit();
            }
            cut_tree();
        } while (next_order(order));
    }
    scene_audit();
    scene_end();
}

TEST(forks_of_forks_to_depth_100)
{
    enum { DEPTH = 100 };
    struct space *line[DEPTH + 1];
    scene_start(TABLE_ENTRIES > 4 ? 0 : 1024);
    line[0] = scene_space();
    scene_memory(line[0], 0, 2 * BLOCK, 1);
    scene_write(line[0], 0, 1);
    for (unsigned i = 1; i <= DEPTH; i++) {
        line[i] = scene_fork(line[i - 1]);
        scene_write(line[i], BLOCK + i % BLOCK, 100 + i);
        if (i % 3 == 0) {
            scene_write(line[i], 0, 1000 + i);
        }
    }
    scene_audit();
    for (unsigned i = 0; i <= DEPTH; i++) {
        scene_look(line[i], 0, i < 3 ? 1 : 1000 + i / 3 * 3);
        scene_look(line[i], BLOCK + i % BLOCK, i == 0 ? 0 : 100 + i);
    }
    /* Those in the middle go first. */
    for (unsigned i = DEPTH / 2; i > 0; i--) {
        scene_destroy(line[i]);
    }
    scene_audit();
    scene_look(line[DEPTH], 0, 1000 + DEPTH / 3 * 3);
    scene_look(line[DEPTH], BLOCK + DEPTH % BLOCK, 100 + DEPTH);
    scene_write(line[0], 0, 2);
    scene_check(line[DEPTH], 0, 1000 + DEPTH / 3 * 3);
    scene_end();
}
