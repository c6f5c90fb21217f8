/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fork: what it costs, what each policy becomes, n forks in one call, all or nothing, and what is
 * refused. Families of forks are in fork_tree_test.c.
 */
/*
 * Fork: what it costs, what each policy becomes, forks of forks, n forks in one call, all or
 * nothing, and that whoever writes in whatever order changes its own memory alone.
 */
#include <string.h>

#include "pin.h"
#include "scene.h"

static const struct shape_row shapes[] = SHAPE_ROWS;

static const struct fork_options plain = {.limit = UINT64_MAX};

/* --- Cost ------------------------------------------------------------------------------------- */

struct cost {
    uint64_t allocations, zeroed, copied, entries;
};

#ifdef MM_HOOKS
static void count_entry(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                        void *arg)
{
    (void)ctx, (void)a, (void)b;
    *(uint64_t *)arg += point == POINT_ENTRY;
}
#endif

static struct cost fork_cost(struct space *parent, struct space **child)
{
    struct cost cost = {0};
    host_fail_allocation(0);
    host_reset_counters();
    host_on_point(NULL, NULL);
#ifdef MM_HOOKS
    host_on_point(count_entry, &cost.entries);
#endif
    *child = scene_fork(parent);
    host_on_point(NULL, NULL);
    cost.allocations = host_allocations();
    cost.zeroed = host_counters().bytes_zeroed;
    cost.copied = host_counters().bytes_copied;
    return cost;
}

/* Entries of a root that lead somewhere. */
static uint64_t root_entries(const struct space *space)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        n += table_slots(space->root)[i] != 0;
    }
    return n;
}

/* What the whole costs beside policies and pins: the object, the root, and one entry of the
 * parent's root for each that was writable. */
TEST_TABLE(fork_costs_the_same_for_every_shape, shapes)
{
    struct space *child;
    scene_shape(row->shape);
    uint64_t free = scene.pool->free;
    struct cost cost = fork_cost(scene.space, &child);
    CHECK_EQ(cost.allocations, 2);
    CHECK_EQ(cost.zeroed, 2 * PAGE_SIZE);
    CHECK_EQ(cost.copied, 0);
    CHECK_LE(cost.entries, root_entries(scene.space));
    CHECK_EQ(free - scene.pool->free, 2);
    scene_audit();
    scene_destroy(child);
    CHECK_EQ(scene.pool->free, free);
    scene_end();
}

TEST(fork_costs_the_same_for_any_size)
{
    struct cost first = {0};
    for (uint64_t gigas = 1; gigas <= 3; gigas++) {
        test_case("%d GiB", (int)gigas);
        scene_start((gigas + 2) * TABLE_ENTRIES);
        struct space *space = scene_space(), *child;
        scene_memory(space, GIGA, gigas * GIGA, 2);
        scene_write(space, GIGA, 1);
        struct cost cost = fork_cost(space, &child);
        first = gigas == 1 ? cost : first;
        CHECK_EQ(memcmp(&cost, &first, sizeof(cost)), 0);
        scene_end();
    }
}

TEST(fork_costs_the_same_with_many_siblings)
{
    struct space *child;
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, BLOCK, 0);
    struct cost first = fork_cost(space, &child);
    for (unsigned i = 0; i < 20; i++) {
        struct cost cost = fork_cost(space, &child);
        CHECK_EQ(cost.zeroed, first.zeroed + (cost.allocations - first.allocations) * PAGE_SIZE);
        CHECK_LE(cost.allocations, first.allocations + 1); /* now and then a page of accounts */
        CHECK_LE(cost.entries, first.entries);
    }
    scene_end();
}

/* A wipe or absent range inside a tree costs at most its edges: tables of the path copied, leaves
 * split, and region nodes for what becomes a hole. Its size does not matter. */
TEST(wiped_ranges_cost_their_edges)
{
    const uint64_t edges = 2 * ROOT_LEVEL;
    static const enum region_policy policies[] = {REGION_WIPE, REGION_ABSENT};
    for (unsigned p = 0; p < 2; p++) {
        for (uint64_t pages = 1; pages <= 2 * BLOCK - 2; pages += BLOCK / 2) {
            struct space *child;
            test_case("policy %d, %d pages", (int)policies[p], (int)pages);
            scene_start(0);
            struct space *space = scene_space();
            scene_memory(space, 0, 3 * BLOCK, 1);
            scene_region(space, 1, pages, policies[p], RIGHT_ALL, 1);
            struct cost cost = fork_cost(space, &child);
            uint64_t nodes = policies[p] == REGION_ABSENT ? REGION_SET_FRAMES : 0;
            CHECK_LE(cost.allocations, 2 + edges + nodes);
            CHECK_EQ(cost.copied, 0);
            scene_audit();
            scene_end();
        }
    }
}

/* A pinned page costs its copy and its path. */
TEST_TABLE(pinned_pages_cost_their_bytes_and_path, shapes)
{
    struct space *child;
    uint32_t id;
    scene_shape(row->shape);
    uint64_t page = scene.base + BLOCK + 1;
    REQUIRE_OK(space_pin(scene.ctx, scene.space, PAGE(page), BYTES(2), true, &id));
    struct mapping before = scene_lookup(scene.space, page);
    struct cost cost = fork_cost(scene.space, &child);
    CHECK_EQ(cost.copied, BYTES(2));
    /* Object, root, the pages; the path in the child, and tables that split the parent's leaf. */
    CHECK_LE(cost.allocations, 2 + 2 + ROOT_LEVEL + 2);
    scene_audit();
    CHECK_EQ(scene_lookup(scene.space, page).frame.v, before.frame.v);
    CHECK_NE(scene_lookup(child, page).frame.v, before.frame.v);
    /* What the device writes is seen by the parent, at once and only there. */
    unsigned char bytes[PAGE_SIZE];
    scene_page(bytes, 77);
    memcpy(frame_address(before.frame), bytes, PAGE_SIZE);
    scene_check(scene.space, page, 77);
    scene_check(child, page, SCENE_TAG(page) * (page == scene.base + BLOCK + 1));
    scene_write(scene.space, page, 78);
    CHECK_EQ(scene_lookup(scene.space, page).frame.v, before.frame.v);
    scene_check(child, page, SCENE_TAG(page));
    scene_audit();
    REQUIRE_OK(space_unpin(scene.ctx, scene.space, id));
    scene_end();
}

/* --- Policies --------------------------------------------------------------------------------- */

static const struct policy_case {
    const char *label;
    enum region_policy policy;
    unsigned rights;
    enum region_policy becomes; /* in the child */
    uint64_t reads;             /* what the child reads: tag, 0, or CANNOT */
    bool together;              /* what one writes, the other sees */
} policies[] = {
#define CANNOT UINT64_MAX
    {"private", REGION_PRIVATE, RIGHT_ALL, REGION_PRIVATE, 1, false},
    {"read-only", REGION_READ_ONLY, RIGHT_READ, REGION_READ_ONLY, 1, false},
    {"shared", REGION_SHARED, RIGHT_ALL, REGION_SHARED, 1, true},
    {"wipe", REGION_WIPE, RIGHT_ALL, REGION_WIPE, 0, false},
    {"absent", REGION_ABSENT, RIGHT_ALL, REGION_NONE, CANNOT, false},
};

TEST_TABLE(policy_at_fork, policies)
{
    unsigned char bytes[PAGE_SIZE];
    bool wide = true;
    for (unsigned order = 0; order < 2; order++) {
        test_case("order %u", order);
        scene_start(0);
        struct space *space = scene_space();
        uint64_t at = BLOCK - (order == 0), pages = order == 0 ? 2 : BLOCK;
        if (row->policy == REGION_SHARED) {
            scene_region(space, at, pages, row->policy, row->rights, order);
        } else {
            scene_region(space, at, pages, REGION_PRIVATE, RIGHT_ALL, order);
        }
        scene_memory(space, 3 * BLOCK, 1, 0);
        scene_write(space, at, 1);
        scene_write(space, 3 * BLOCK, 2);
        if (row->policy != REGION_SHARED && row->policy != REGION_PRIVATE) {
            scene_region(space, at, pages, row->policy, row->rights, order);
        }
        struct space *child = scene_fork(space);
        scene_audit();
        CHECK_EQ(scene_lookup(child, at).region.policy, row->becomes);
        CHECK_EQ(scene_lookup(space, at).region.policy, row->policy);
        scene_check(space, at, 1);
        scene_check(child, 3 * BLOCK, 2);
        if (row->reads == CANNOT) {
            CHECK_STATUS(scene_access(child, at, ACCESS_READ), CLEAVE_FAULT);
            CHECK_STATUS(space_read(scene.ctx, child, PAGE(at), bytes, 1, NULL), CLEAVE_FAULT);
            wide = false;
        } else {
            scene_check(child, at, row->reads);
        }
        if (!(row->rights & RIGHT_WRITE)) {
            CHECK_STATUS(scene_access(child, at, ACCESS_WRITE), CLEAVE_FAULT);
            CHECK_STATUS(scene_access(space, at, ACCESS_WRITE), CLEAVE_FAULT);
        } else if (row->reads != CANNOT) {
            scene_write(child, at, 3);
            scene_check(space, at, row->together ? 3 : 1);
            scene_write(space, at, 4);
            scene_check(child, at, row->together ? 4 : 3);
        }
        scene_audit();
        /* The child's own fork obeys the same row again. */
        struct space *grandchild = scene_fork(child);
        CHECK_EQ(scene_lookup(grandchild, at).region.policy, row->becomes);
        if (row->policy == REGION_WIPE) {
            scene_check(grandchild, at, 0);
        }
        scene_end();
    }
    (void)wide;
}

TEST(device_at_fork)
{
    scene_start_with(0, &(struct host_options){.frames = 2 * BLOCK});
    pfn_t device = host_take(BLOCK, 1);
    struct space *space = scene_space(), *child = NULL;
    scene_memory(space, 0, BLOCK, 1);
    scene_write(space, 0, 5);
    REQUIRE_OK(space_map_device(scene.ctx, space, PAGE(BLOCK), BYTES(BLOCK), device,
                                RIGHT_READ | RIGHT_WRITE, false));
    child = scene_fork(space);
    scene_audit();
    CHECK_EQ(scene_lookup(child, BLOCK).region.policy, REGION_NONE);
    CHECK_EQ(scene_lookup(child, BLOCK).kind, PTE_KIND_ABSENT);
    CHECK_STATUS(scene_access(child, BLOCK, ACCESS_READ), CLEAVE_FAULT);
    CHECK_EQ(scene_lookup(space, BLOCK).frame.v, device.v);
    REQUIRE_OK(
        space_map_device(scene.ctx, space, PAGE(2 * BLOCK), BYTES(1), device, RIGHT_READ, true));
    struct scene_state before = scene_state(), after;
    CHECK_STATUS(space_fork(scene.ctx, space, 1, &plain, &child), CLEAVE_DEVICE);
    after = scene_state();
    SCENE_CHECK_SAME(before, after);
    scene_end();
}

/* --- n forks, all or nothing ------------------------------------------------------------------ */

TEST_TABLE(n_forks_in_one_call, shapes)
{
    struct space *child[8];
    scene_shape(row->shape);
    uint64_t flushes = scene.space->stats.flushes;
    REQUIRE_OK(space_fork(scene.ctx, scene.space, 8, &plain, child));
    CHECK_LE(scene.space->stats.flushes - flushes, 3); /* the parent is flushed once for all */
    scene_audit();
    for (unsigned i = 0; i < 8; i++) {
        scene_write(child[i], scene.base + 1, 50 + i);
    }
    for (unsigned i = 0; i < 8; i++) {
        scene_check(child[i], scene.base + 1, 50 + i);
        scene_check(child[i], scene.base + BLOCK, SCENE_TAG(scene.base + BLOCK));
    }
    scene_check(scene.space, scene.base + 1, SCENE_TAG(scene.base + 1));
    scene_end();
}

static void fork_with_every_failure(struct space *parent, unsigned count,
                                    const struct fork_options *options)
{
    struct space *child[4];
    struct scene_state before = scene_state();
    for (uint64_t k = 1;; k++) {
        host_fail_allocation(k);
        enum cleave_status status = space_fork(scene.ctx, parent, count, options, child);
        bool failed = host_allocation_failed();
        host_fail_allocation(0);
        test_case("allocation %d", (int)k);
        scene_audit();
        if (!failed) {
            CHECK_OK(status);
            break;
        }
        CHECK(status >= CLEAVE_ERROR_FIRST);
        struct scene_state after = scene_state();
        SCENE_CHECK_SAME_VIEW(before, after);
        if (parent->attachment_count == 0) {
            CHECK_EQ(before.free, after.free);
            CHECK_EQ(before.charged, after.charged);
        }
        CHECK_EQ(before.reserved, after.reserved);
    }
    test_case("%s", "");
    for (unsigned i = 0; i < count; i++) {
        scene_write(child[i], scene.base, 7 + i);
    }
    scene_check(parent, scene.base, SCENE_TAG(scene.base));
    scene_audit();
}

TEST_TABLE(fork_is_all_or_nothing, shapes)
{
    const struct fork_options based = {.limit = UINT64_MAX, .base = true};
    const struct fork_options reserving = {
        .limit = UINT64_MAX, .base = true, .reserve = true, .vcpus = 1};
    uint32_t id;
    scene_shape(row->shape);
    fork_with_every_failure(scene.space, 3, &plain);
    fork_with_every_failure(scene.space, 2, &based);
    if (scene.pages < GIGA || TABLE_ENTRIES == 4) {
        scene_region(scene.space, scene.base + 1, 2, REGION_WIPE, RIGHT_ALL, 0);
        fork_with_every_failure(scene.space, 2, &based);
    }
    if (scene.pages < GIGA && TABLE_ENTRIES > 4) {
        fork_with_every_failure(scene.space, 1, &reserving);
    }
    REQUIRE_OK(
        space_pin(scene.ctx, scene.space, PAGE(scene.base + BLOCK + 1), BYTES(1), true, &id));
    fork_with_every_failure(scene.space, 2, &plain);
    REQUIRE_OK(space_unpin(scene.ctx, scene.space, id));
    scene_end();
}

TEST(fork_refuses_bad_arguments)
{
    struct space *child = NULL;
    const struct fork_options reserving = {.limit = UINT64_MAX, .reserve = true};
    const struct fork_options poor = {.limit = 1};
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, BLOCK, 0);
    struct scene_state before = scene_state();
#define REFUSED(call, status_, argument_)                                                          \
    do {                                                                                           \
        CHECK_STATUS(call, status_);                                                               \
        CHECK_EQ(scene.ctx->error.status, status_);                                                \
        CHECK_EQ(strcmp(scene.ctx->error.argument, argument_), 0);                                 \
        struct scene_state after = scene_state();                                                  \
        SCENE_CHECK_SAME(before, after);                                                           \
    } while (0)
    REFUSED(space_fork(scene.ctx, space, 0, &plain, &child), CLEAVE_COUNT, "count");
    REFUSED(space_fork(scene.ctx, space, FORK_MAX + 1, &plain, &child), CLEAVE_COUNT, "count");
    REFUSED(space_fork(scene.ctx, space, UINT32_MAX, &plain, &child), CLEAVE_COUNT, "count");
    REFUSED(space_fork(scene.ctx, space, 1, &reserving, &child), CLEAVE_COUNT, "options.vcpus");
    CHECK_STATUS(space_fork(scene.ctx, space, 1, &poor, &child), CLEAVE_QUOTA);
    struct scene_state refused = scene_state();
    SCENE_CHECK_SAME_VIEW(before, refused); /* the parent's root may have lost its write bits */
    CHECK_EQ(refused.charged, before.charged);
    CHECK_EQ(refused.free, before.free);
    space->op = OP_RESET;
    before = scene_state();
    REFUSED(space_fork(scene.ctx, space, 1, &plain, &child), CLEAVE_BUSY, "parent");
    space->op = OP_NONE;
    space->state = SPACE_DYING;
    before = scene_state();
    REFUSED(space_fork(scene.ctx, space, 1, &plain, &child), CLEAVE_DYING, "parent");
    REFUSED(space_snapshot(scene.ctx, space, UINT64_MAX, &child), CLEAVE_DYING, "space");
    space->state = SPACE_ALIVE;
    scene_end();
}

/* A count of the table or the region tree that would overflow: the fork fails before anything. */
TEST(fork_fails_before_a_count_overflows)
{
    struct space *child = NULL;
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, 1, 0); /* so that the region tree has a node */
    pfn_t table = pte_pfn(table_slots(space->root)[0]);
    frame_of(table, 0)->count = UINT32_MAX;
    struct scene_state before = scene_state();
    CHECK_STATUS(space_fork(scene.ctx, space, 1, &plain, &child), CLEAVE_OVERFLOW);
    struct scene_state after = scene_state();
    CHECK_EQ(before.free, after.free);
    SCENE_CHECK_SAME_VIEW(before, after);
    CHECK_EQ(frame_of(table, 0)->count, UINT32_MAX);
    frame_of(table, 0)->count = 1;
    scene_audit();
    child = scene_fork(space);
    scene_end();
}

/* T-T3: a shared table that is replaced by a copy is dropped after the flush, so that a CPU that
 * may still walk through it finds nothing else there. The monitor looks at every drop. */
TEST_TABLE(t3_unshared_tables_are_dropped_after_the_flush, shapes)
{
    TEST_NEEDS_HOOKS();
    scene_shape(row->shape);
    struct space *child = scene_fork(scene.space);
    scene_check(scene.space, scene.base, SCENE_TAG(scene.base));
    scene_check(child, scene.base, SCENE_TAG(scene.base));
    host_log_clear();
    scene_write(child, scene.base, 9); /* copies the path */
    CHECK(host_log_count(POINT_FLUSHED) > 0);
    for (uint64_t i = host_log_find(POINT_DROP, 0); i != HOST_LOG_NONE;
         i = host_log_find(POINT_DROP, i + 1)) {
        uint64_t flushed = host_log_find(POINT_FLUSHED, 0);
        CHECK(flushed < i || host_log_at(i).b == 0);
    }
    scene_destroy(scene.space); /* the last holder of what the child left */
    scene_check(child, scene.base, 9);
    scene_check(child, scene.base + 1, SCENE_TAG(scene.base + 1));
    scene_end();
}
