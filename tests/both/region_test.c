/* SPDX-License-Identifier: BSD-2-Clause */
/* The region tree against a plain array, with trees that share nodes and allocations that fail. */
#include "region.h"

#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "host.h"
#include "table.h"
#include "test.h"

#define TREES 5u
#define INTERVALS_MAX 300u

/*
 * The guest's pages are cut at `bound`; everything is done to whole intervals, and the array holds
 * the region of each. In the small geometry an interval is a page.
 */
static struct mm_ctx *ctx;
static struct pool *pool;
static gfn_t bound[INTERVALS_MAX + 1];
static unsigned intervals;
static uint64_t seed;

struct model {
    region_word_t tree;
    bool live;
    struct region at[INTERVALS_MAX];
};
static struct model model[TREES];

static uint64_t below(uint64_t limit) { return test_random(&seed) % limit; }

static int compare_bounds(const void *a, const void *b)
{
    uint64_t x = ((const gfn_t *)a)->v;
    uint64_t y = ((const gfn_t *)b)->v;
    return x < y ? -1 : x > y;
}

static void make_bounds(void)
{
    unsigned n = 0;
    if (GUEST_PAGES < INTERVALS_MAX) {
        intervals = (unsigned)GUEST_PAGES;
        for (; n <= intervals; n++) {
            bound[n] = gfn(n);
        }
        return;
    }
    bound[n++] = gfn(0);
    bound[n++] = gfn(GUEST_PAGES);
    while (n < 120) { /* some near each other, some far apart, at all alignments */
        unsigned level = (unsigned)below(TABLE_LEVELS);
        uint64_t near = below(4) != 0 ? bound[below(n)].v : below(GUEST_PAGES);
        uint64_t v = (near + below(4) * level_pages(level)) & ~(level_pages(level) - 1);
        bool seen = v >= GUEST_PAGES;
        for (unsigned i = 0; i < n; i++) {
            seen = seen || bound[i].v == v;
        }
        bound[n] = gfn(v);
        n += !seen;
    }
    qsort(bound, n, sizeof(bound[0]), compare_bounds);
    intervals = n - 1;
}

static void set_up(void)
{
    host_start(&(struct host_options){.frames = 1u << 14});
    ctx = host_ctx(0);
    pool = host_pool(UINT64_C(1) << (PAGE_SHIFT + 13));
    seed = test_seed();
    make_bounds();
    memset(model, 0, sizeof(model));
    model[0].live = true;
}

static struct region some_region(void)
{
    struct region region = {.policy = (enum region_policy)below(REGION_POLICIES)};
    if (region.policy == REGION_NONE) {
        return region;
    }
    region.rights = below(3) != 0 ? RIGHT_ALL : (uint8_t)below(8);
    region.notify = below(4) == 0;
    region.armed = region.notify && below(2) == 0;
    region.channel = region.notify ? (uint16_t)(1 + below(2)) : 0;
    return region;
}

/* --- Checks ----------------------------------------------------------------------------------- */

static bool same_region(const struct region *a, const struct region *b)
{
    return a->policy == b->policy && a->rights == b->rights && a->armed == b->armed &&
           a->notify == b->notify && a->whole == b->whole && a->fork_refuse == b->fork_refuse &&
           a->order == b->order && a->channel == b->channel && a->pager == b->pager &&
           a->told == b->told;
}

static unsigned expected_summary(const struct region *r)
{
    unsigned bits = 0;
    if (r->policy == REGION_NONE) {
        return 0;
    }
    bits |= r->armed || !(r->rights & RIGHT_WRITE) ? REGION_HAS_NO_WRITE : 0u;
    bits |= r->rights & RIGHT_EXEC ? 0u : REGION_HAS_NO_EXEC;
    bits |= r->rights & RIGHT_READ ? 0u : REGION_HAS_NO_READ;
    bits |= r->policy == REGION_WIPE || r->policy == REGION_ABSENT || r->policy == REGION_DEVICE ||
                    r->policy == REGION_FOREIGN
                ? REGION_HAS_FORK
                : 0u;
    bits |= REGION_HAS_MEMORY;
    bits |= r->notify ? REGION_HAS_NOTIFY : 0u;
    bits |= r->policy == REGION_PAGED ? REGION_HAS_PAGED : 0u;
    bits |= r->policy == REGION_SHARED ? REGION_HAS_SHARED : 0u;
    return bits;
}

/* Interval that contains page `at`. */
static unsigned interval_of(gfn_t at)
{
    unsigned i = 0;
    while (bound[i + 1].v <= at.v) {
        i++;
    }
    return i;
}

static unsigned model_summary(const struct model *m, gfn_t start, gfn_t end)
{
    unsigned bits = 0;
    for (unsigned i = interval_of(start); i < intervals && bound[i].v < end.v; i++) {
        bits |= expected_summary(&m->at[i]);
    }
    return bits;
}

static void check_page(const struct model *m, gfn_t at)
{
    const struct region *expected = &m->at[interval_of(at)];
    struct gfn_range extent;
    struct region found = region_get(m->tree, at);

    CHECK(same_region(&found, expected));
    found = region_get_extent(m->tree, at, &extent);
    CHECK(same_region(&found, expected));
    CHECK(extent.start.v <= at.v && at.v < extent.end.v);
    for (unsigned i = interval_of(extent.start); i < intervals && bound[i].v < extent.end.v; i++) {
        CHECK(same_region(&m->at[i], expected));
    }
    for (unsigned level = 0; level <= ROOT_LEVEL; level++) {
        gfn_t start = level_align(at, level);
        CHECK_EQ(region_summary(m->tree, at, level),
                 model_summary(m, start, gfn(start.v + level_pages(level))));
    }
}

static void check_find(const struct model *m, gfn_t from, gfn_t end, unsigned mask)
{
    struct gfn_range found;
    struct region region;
    gfn_t at = from;

    while (region_find(m->tree, at, end, mask, &found, &region)) {
        CHECK(found.start.v >= at.v && found.start.v < found.end.v && found.end.v <= end.v);
        for (unsigned i = interval_of(at); at.v < found.start.v && bound[i].v < found.start.v;
             i++) {
            CHECK_EQ(expected_summary(&m->at[i]) & mask, 0);
        }
        for (unsigned i = interval_of(found.start); i < intervals && bound[i].v < found.end.v;
             i++) {
            CHECK(same_region(&m->at[i], &region));
            CHECK_NE(expected_summary(&m->at[i]) & mask, 0);
        }
        at = found.end;
    }
    for (unsigned i = interval_of(at); i < intervals && at.v < end.v && bound[i].v < end.v; i++) {
        CHECK_EQ(expected_summary(&m->at[i]) & mask, 0);
    }
}

static void check_tree(const struct model *m)
{
    for (unsigned i = 0; i < intervals; i++) {
        struct region first = region_get(m->tree, bound[i]);
        struct region last = region_get(m->tree, gfn(bound[i + 1].v - 1));
        CHECK(same_region(&first, &m->at[i]));
        CHECK(same_region(&last, &m->at[i]));
    }
    CHECK_EQ(region_summary_all(m->tree), model_summary(m, gfn(0), gfn(GUEST_PAGES)));
}

/* References found on each node, by frame number; `nodes` of them. */
static uint32_t *references;
static uint64_t nodes;
static bool dropping; /* a tree is half gone: its nodes need not differ from a leaf */

static bool count_node(void *arg, pfn_t node, unsigned level)
{
    const region_word_t *words = frame_address(node);
    bool uniform = !(words[0] & 1);

    (void)arg;
    CHECK(level <= ROOT_LEVEL);
    CHECK_EQ(frame_kind(frame_of(node, 0)), FRAME_REGION);
    if (references[node.v]++ > 0) {
        return false;
    }
    nodes++;
    for (unsigned i = 1; i < TABLE_ENTRIES; i++) {
        uniform = uniform && words[i] == words[0];
    }
    CHECK(dropping || !uniform);
    return true;
}

/* Frees what changes have deferred. */
static void reap(void)
{
    uint64_t budget = ctx->budget;
    ctx->budget = UINT64_MAX;
    REQUIRE(table_reap(ctx, pool));
    ctx->budget = budget;
}

/* Every count equals what points to the node, and no node is lost. */
static void check_counts(void)
{
    reap();
    references = calloc(machine.frames, sizeof(*references));
    nodes = 0;
    for (unsigned t = 0; t < TREES; t++) {
        region_walk(model[t].tree, count_node, NULL);
    }
    for (uint64_t f = 0; f < machine.frames; f++) {
        if (references[f] != 0) {
            CHECK_EQ(node_count(pfn((uint32_t)f)), references[f]);
        }
    }
    CHECK_EQ(pool->kind[FRAME_REGION], nodes);
    free(references);
}

static void check_all(void)
{
    for (unsigned t = 0; t < TREES; t++) {
        check_tree(&model[t]);
    }
    check_counts();
}

/* --- Changes ---------------------------------------------------------------------------------- */

enum edit { EDIT_ARM, EDIT_DISARM, EDIT_RIGHTS, EDIT_PRIVATE, EDIT_UNMAP, EDITS };

static void edit_region(struct region *region, const void *arg)
{
    switch (*(const enum edit *)arg) {
    case EDIT_ARM:
        region->notify = region->armed = true;
        region->channel = 7;
        region->told = 0;
        break;
    case EDIT_DISARM:
        region->armed = false;
        region->told = region->notify ? 9 : 0;
        break;
    case EDIT_RIGHTS:
        region->rights &= RIGHT_READ | RIGHT_EXEC;
        break;
    case EDIT_PRIVATE:
        region->policy = REGION_PRIVATE;
        break;
    case EDIT_UNMAP:
        *region = (struct region){.policy = REGION_NONE};
        break;
    case EDITS:
        break;
    }
}

struct step {
    struct model *m;
    unsigned from, to; /* intervals */
    bool set;
    struct region region;
    enum edit edit;
};

static enum cleave_status do_step(const struct step *step)
{
    struct gfn_range range = {bound[step->from], bound[step->to]};
    return step->set
               ? region_set(ctx, &pool->payer, &step->m->tree, range, &step->region)
               : region_edit(ctx, &pool->payer, &step->m->tree, range, edit_region, &step->edit);
}

static void do_model(const struct step *step)
{
    for (unsigned i = step->from; i < step->to; i++) {
        if (step->set) {
            step->m->at[i] = step->region;
        } else if (step->m->at[i].policy != REGION_NONE) {
            edit_region(&step->m->at[i], &step->edit);
        }
    }
}

static struct step some_step(void)
{
    struct step step = {.m = &model[below(TREES)]};
    step.m->live = true;
    step.from = (unsigned)below(intervals);
    step.to = step.from + 1 + (unsigned)below(below(3) != 0 ? 4 : intervals);
    step.to = step.to < intervals ? step.to : intervals;
    step.set = below(3) != 0;
    step.region = some_region();
    step.edit = (enum edit)below(EDITS);
    return step;
}

/* Makes one allocation after the other fail, until the step needs no more; returns how many it
 * made. After each failure everything is as it was. */
static unsigned step_failing(const struct step *step)
{
    for (unsigned k = 1;; k++) {
        region_word_t tree = step->m->tree;
        uint64_t free = pool->free;

        host_fail_allocation(k);
        enum cleave_status status = do_step(step);
        host_fail_allocation(0);
        if (status == CLEAVE_OK) {
            return k - 1;
        }
        CHECK_STATUS(status, CLEAVE_NO_MEMORY);
        CHECK_EQ(step->m->tree, tree);
        CHECK_EQ(pool->free, free);
        check_all();
    }
}

/* Makes tree `to` a fork of `from`. */
static void fork_tree(struct model *from, struct model *to)
{
    ctx->budget = UINT64_MAX;
    CHECK(region_drop(ctx, &to->tree));
    CHECK_EQ(to->tree, REGION_WORD_NONE);
    CHECK_OK(region_share(ctx, from->tree));
    *to = *from;
}

static void drop_everything(void)
{
    ctx->budget = UINT64_MAX;
    for (unsigned t = 0; t < TREES; t++) {
        CHECK(region_drop(ctx, &model[t].tree));
    }
    reap();
    CHECK_EQ(pool->kind[FRAME_REGION], 0);
}

/* --- Tests ------------------------------------------------------------------------------------ */

TEST(words_round_trip)
{
    set_up();
    for (unsigned i = 0; i < 10000; i++) {
        struct region region = {
            .policy = (enum region_policy)(1 + below(REGION_POLICIES - 1)),
            .rights = (uint8_t)below(8),
            .armed = below(2) != 0,
            .notify = below(2) != 0,
            .whole = below(2) != 0,
            .fork_refuse = below(2) != 0,
            .order = (uint8_t)below(LEAF_ORDERS),
            .channel = (uint16_t)test_random(&seed),
            .pager = (uint16_t)test_random(&seed),
            .told = (uint16_t)test_random(&seed),
        };
        region_word_t word = region_pack(&region);
        struct region back = region_unpack(word);
        CHECK_EQ(word & 1, 0);
        CHECK(same_region(&region, &back));
        CHECK_EQ(region_summary_all(word), expected_summary(&region));
    }
    CHECK_EQ(region_pack(&(struct region){.policy = REGION_NONE}), REGION_WORD_NONE);
}

TEST(random_against_array)
{
    set_up();
    uint64_t steps = test_steps(6000);
    for (uint64_t i = 0; i < steps; i++) {
        test_case("step %llu", (unsigned long long)i);
        if (below(8) == 0) {
            unsigned from = (unsigned)below(TREES);
            unsigned to = (unsigned)below(TREES);
            if (from != to) {
                fork_tree(&model[from], &model[to]);
            }
        }
        struct step step = some_step();
        CHECK_OK(do_step(&step));
        do_model(&step);
        check_page(step.m, gfn(below(GUEST_PAGES)));
        check_page(step.m, bound[below(intervals)]);
        if (i % 20 == 0) {
            unsigned a = (unsigned)below(intervals);
            unsigned b = (unsigned)below(intervals);
            check_find(step.m, bound[a < b ? a : b], bound[a < b ? b : a], 1u << below(7));
            check_all();
        }
    }
    check_all();
    drop_everything();
}

TEST(every_allocation_fails)
{
    unsigned most = 0;

    set_up();
    uint64_t steps = test_steps(600);
    for (uint64_t i = 0; i < steps; i++) {
        test_case("step %llu", (unsigned long long)i);
        if (below(4) == 0) {
            unsigned from = (unsigned)below(TREES);
            fork_tree(&model[from], &model[(from + 1) % TREES]);
        }
        struct step step = some_step();
        unsigned taken = step_failing(&step);
        if (step.set) {
            CHECK_LE(taken, REGION_SET_FRAMES);
        }
        most = taken > most ? taken : most;
        do_model(&step);
        check_all();
    }
    CHECK_LE(4, most);
    drop_everything();
}

/* Pages `first` to `last` of a leaf at each level beneath the root word of an empty tree. */
static struct gfn_range pages(uint64_t first, uint64_t count)
{
    return (struct gfn_range){gfn(first), gfn(first + count)};
}

static const struct region plain = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};

/* A split tree that nobody shares is changed, and shrinks, with an empty pool. */
TEST(exclusive_change_takes_no_memory)
{
    const enum edit arm = EDIT_ARM;
    region_word_t tree = REGION_WORD_NONE;

    set_up();
    CHECK_OK(region_set(ctx, &pool->payer, &tree, pages(0, 3), &plain));
    CHECK_EQ(pool->kind[FRAME_REGION], TABLE_LEVELS);
    host_fail_allocation(1);
    CHECK_OK(region_edit(ctx, &pool->payer, &tree, pages(1, 1), edit_region, &arm));
    CHECK_OK(region_set(ctx, &pool->payer, &tree, pages(3, 1), &plain));
    CHECK_OK(
        region_set(ctx, &pool->payer, &tree, pages(0, 4), &(struct region){.policy = REGION_NONE}));
    host_fail_allocation(0);
    CHECK_EQ(tree, REGION_WORD_NONE);
    reap();
    CHECK_EQ(pool->kind[FRAME_REGION], 0);
}

/* A shared tree that becomes one leaf, or does not change, needs no memory either. */
TEST(shared_change_to_one_leaf_takes_no_memory)
{
    region_word_t tree = REGION_WORD_NONE;

    set_up();
    CHECK_OK(region_set(ctx, &pool->payer, &tree, pages(0, 3), &plain));
    region_word_t fork = tree;
    CHECK_OK(region_share(ctx, tree));
    host_fail_allocation(1);
    CHECK_OK(region_set(ctx, &pool->payer, &fork, pages(1, 2), &plain));
    CHECK_EQ(fork, tree);
    CHECK_OK(
        region_set(ctx, &pool->payer, &fork, pages(0, 3), &(struct region){.policy = REGION_NONE}));
    CHECK_EQ(fork, REGION_WORD_NONE);
    CHECK_STATUS(region_set(ctx, &pool->payer, &tree, pages(0, 0), &plain), CLEAVE_OK);
    host_fail_allocation(0);
    CHECK_EQ(pool->kind[FRAME_REGION], TABLE_LEVELS);
    CHECK_EQ(region_get(tree, gfn(2)).policy, REGION_PRIVATE);
    ctx->budget = 100;
    CHECK(region_drop(ctx, &tree));
    reap();
    CHECK_EQ(pool->kind[FRAME_REGION], 0);
}

/* A word that the whole range covers becomes a leaf, whatever lay beneath. */
TEST(whole_leaves_at_each_level)
{
    set_up();
    for (unsigned level = 0; level < TABLE_LEVELS; level++) {
        struct gfn_range extent;
        region_word_t tree = REGION_WORD_NONE;
        gfn_t at = gfn(level_pages(level));
        CHECK_OK(region_set(ctx, &pool->payer, &tree, pages(at.v, level_pages(level)), &plain));
        CHECK_EQ(pool->kind[FRAME_REGION], TABLE_LEVELS - level);
        CHECK_EQ(region_get_extent(tree, at, &extent).policy, REGION_PRIVATE);
        CHECK_EQ(extent.start.v, at.v);
        CHECK_EQ(extent.end.v, at.v + level_pages(level));
        CHECK_OK(region_set(ctx, &pool->payer, &tree, pages(0, GUEST_PAGES), &plain));
        CHECK_EQ(tree, region_pack(&plain));
        reap();
        CHECK_EQ(pool->kind[FRAME_REGION], 0);
    }
}

/* The first node that the walk meets at `wanted`. */
struct wanted {
    unsigned level;
    pfn_t node;
};
static bool find_node(void *arg, pfn_t node, unsigned level)
{
    struct wanted *wanted = arg;
    if (level == wanted->level && wanted->node.v == 0) {
        wanted->node = node;
    }
    return true;
}

/* A count that cannot rise stops the change, and nothing has changed. */
TEST(overflow_changes_nothing)
{
    struct wanted wanted = {.level = ROOT_LEVEL - 1};

    set_up();
    /* Two subtrees: the first will be kept by a change in the second. */
    struct step step = {.m = &model[0], .set = true, .region = plain};
    for (unsigned i = 0; i + 1 < intervals; i += 3) {
        step.from = i;
        step.to = i + 1;
        CHECK_OK(do_step(&step));
        do_model(&step);
    }
    fork_tree(&model[0], &model[1]);
    check_all();
    region_walk(model[0].tree, find_node, &wanted);
    REQUIRE(wanted.node.v != 0);
    uint32_t *count = &frame_of(wanted.node, 0)->count;
    uint32_t old = *count;
    uint64_t free = pool->free;
    region_word_t tree = model[1].tree;

    step = (struct step){.m = &model[1],
                         .from = intervals - 2,
                         .to = intervals - 1,
                         .set = true,
                         .region = {.policy = REGION_READ_ONLY, .rights = RIGHT_READ}};
    *count = UINT32_MAX;
    CHECK_STATUS(do_step(&step), CLEAVE_OVERFLOW);
    CHECK_EQ(model[1].tree, tree);
    CHECK_EQ(pool->free, free);
    *count = old;
    check_all();
    CHECK_OK(do_step(&step));
    do_model(&step);
    check_all();

    wanted = (struct wanted){.level = ROOT_LEVEL};
    region_walk(model[0].tree, find_node, &wanted);
    count = &frame_of(wanted.node, 0)->count;
    old = *count;
    *count = UINT32_MAX;
    CHECK_STATUS(region_share(ctx, model[0].tree), CLEAVE_OVERFLOW);
    *count = old;
    drop_everything();
}

/* A drop that may do one unit at a time: every state between can be walked, the others stay. */
TEST(drop_stops_and_goes_on)
{
    set_up();
    for (unsigned i = 0; i < 200; i++) {
        struct step step = some_step();
        step.m = &model[0];
        CHECK_OK(do_step(&step));
        do_model(&step);
    }
    fork_tree(&model[0], &model[1]);
    for (unsigned i = 0; i < 20; i++) {
        struct step step = some_step();
        step.m = &model[1];
        CHECK_OK(do_step(&step));
        do_model(&step);
    }
    uint64_t calls = 0;
    reap();
    uint64_t before = pool->kind[FRAME_REGION];
    memset(model[0].at, 0, sizeof(model[0].at));
    dropping = true;
    do {
        ctx->budget = 1;
        calls++;
        check_counts();
        REQUIRE(calls < 10000);
    } while (!region_drop(ctx, &model[0].tree));
    CHECK_LE(before - pool->kind[FRAME_REGION], calls);
    dropping = false;
    check_all();

    ctx->budget = 0;
    CHECK(!region_drop(ctx, &model[1].tree));
    check_all();
    drop_everything();
    ctx->budget = 0;
    CHECK(region_drop(ctx, &model[0].tree)); /* nothing left: needs no budget */
}

#define MANY 10000u

/* 10,000 regions next to each other; a fork and one change cost a path, not the whole. */
TEST(ten_thousand_regions)
{
    unsigned many = GUEST_PAGES / 2 < MANY ? (unsigned)(GUEST_PAGES / 2) : MANY;
    region_word_t tree = REGION_WORD_NONE;

    set_up();
    for (unsigned i = 0; i < many; i++) {
        struct region region = plain;
        region.rights = i % 2 != 0 ? RIGHT_READ : RIGHT_ALL;
        CHECK_OK(region_set(ctx, &pool->payer, &tree, pages(2 * i, 2), &region));
    }
    region_word_t fork = tree;
    uint64_t before = pool->kind[FRAME_REGION];
    CHECK_OK(region_share(ctx, tree));
    CHECK_OK(region_set(ctx, &pool->payer, &fork, pages(6, 1), &plain));
    CHECK_LE(pool->kind[FRAME_REGION], before + REGION_SET_FRAMES);
    for (unsigned i = 0; i < many; i++) {
        unsigned rights = i % 2 != 0 ? RIGHT_READ : RIGHT_ALL;
        CHECK_EQ(region_get(tree, gfn(2 * i)).rights, rights);
        CHECK_EQ(region_get(fork, gfn(2 * i)).rights, i == 3 ? RIGHT_ALL : rights);
        CHECK_EQ(region_get(fork, gfn(2 * i + 1)).rights, rights);
    }
    ctx->budget = UINT64_MAX;
    CHECK(region_drop(ctx, &tree));
    CHECK(region_drop(ctx, &fork));
    reap();
    CHECK_EQ(pool->kind[FRAME_REGION], 0);
}
