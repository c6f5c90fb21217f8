/* SPDX-License-Identifier: BSD-2-Clause */
/* The sparse array of frames beside a sorted list of its keys. */
#include "radix.h"

#include "host.h"
#include "random.h"
#include "shapes.h"
#include "space.h"
#include "test.h"

#define KEYS 40u

static struct radix tree;
static struct payer payer;
static uint64_t keys[KEYS]; /* sorted */
static unsigned count;

static void set_up(void)
{
    shape_start(4);
    payer = shaped.pool->payer;
    tree = (struct radix){0};
    count = 0;
}

static unsigned place(uint64_t key)
{
    unsigned i = 0;
    while (i < count && keys[i] < key) {
        i++;
    }
    return i;
}

static void add(uint64_t key)
{
    unsigned i = place(key);
    struct radix_node *leaf;
    REQUIRE_OK(radix_make(shaped.ctx, &payer, &tree, key, &leaf));
    CHECK_EQ(leaf->key, key);
    CHECK_EQ(leaf->level, 0);
    if (i < count && keys[i] == key) {
        CHECK_EQ(leaf->used, 1);
        return;
    }
    CHECK_EQ(leaf->used, 0);
    leaf->used = 1;
    for (unsigned j = count++; j > i; j--) {
        keys[j] = keys[j - 1];
    }
    keys[i] = key;
}

static void take(unsigned i)
{
    radix_trim(shaped.ctx, &tree, keys[i]); /* in use: stays */
    struct radix_node *leaf = radix_find(&tree, keys[i]);
    REQUIRE(leaf != NULL);
    leaf->used = 0;
    radix_trim(shaped.ctx, &tree, keys[i]);
    for (count--; i < count; i++) {
        keys[i] = keys[i + 1];
    }
}

static void check(uint64_t key)
{
    unsigned i = place(key);
    struct radix_node *leaf = radix_find(&tree, key);
    CHECK_EQ(leaf != NULL, i < count && keys[i] == key);
    leaf = radix_next(&tree, key);
    CHECK_EQ(leaf != NULL, i < count);
    CHECK(leaf == NULL || leaf->key == keys[i]);
    CHECK(count == 0 ? tree.frames == 0 : tree.frames >= count && tree.frames < 2 * count);
}

/* Keys near and far, at the edges of nodes and of all that there are. */
TEST(is_a_sorted_list)
{
    uint64_t seed = test_seed();
    set_up();
    uint64_t free = shaped.pool->free;
    for (uint64_t step = 0; step < test_steps(4000); step++) {
        unsigned bits = (unsigned)(test_random(&seed) % 31) + 1;
        uint64_t key = test_random(&seed) & ((UINT64_C(1) << bits) - 1);
        if (count < KEYS && test_random(&seed) % 64 < KEYS) {
            add(key);
        } else if (count > 0) {
            take((unsigned)(test_random(&seed) % count));
        }
        check(key);
        check(key + 1);
        check(count > 0 ? keys[count / 2] : 0);
        check(0);
    }
    while (count > 0) {
        take(count / 2);
    }
    check(0);
    CHECK_EQ(shaped.pool->free, free);
}

/* One leaf is one frame; where two part there is one node, whose parent it may have. */
TEST(takes_a_node_where_leaves_part)
{
    set_up();
    const struct {
        uint64_t key;
        uint32_t frames;
    } step[] = {{0, 1}, {1, 3}, {2, 4}, {(uint64_t)RADIX_FAN * RADIX_FAN * RADIX_FAN, 6}};
    for (unsigned i = 0; i < 4; i++) {
        test_case("key %llu", (unsigned long long)step[i].key);
        add(step[i].key);
        CHECK_EQ(tree.frames, step[i].frames);
    }
    for (unsigned i = 4; i-- > 0;) {
        CHECK_EQ(tree.frames, step[i].frames);
        take(i);
    }
    CHECK_EQ(tree.frames, 0);
}

TEST(refuses_and_stays)
{
    struct radix_node *leaf;
    TEST_NEEDS_HOOKS();
    set_up();
    add(5);
    uint64_t free = shaped.pool->free;
    for (uint64_t k = 1; k < 3; k++) {
        host_fail_allocation(k);
        CHECK_STATUS(radix_make(shaped.ctx, &payer, &tree, 500, &leaf), CLEAVE_NO_MEMORY);
        host_fail_allocation(0);
        CHECK_EQ(shaped.pool->free, free);
        check(500);
    }
    add(500);
    CHECK_EQ(tree.frames, 3);
}
