/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ordinary operations at every shape, on shared tables and in forks: map, unmap, protect,
 * populate, look up, copy to and from guest memory. What runs out of memory changes nothing that a
 * guest can see; what is refused is in refuse_test.c.
 */
/*
 * The ordinary operations at every shape, on shared tables and in forks: map, unmap, protect,
 * populate, look up, copy to and from guest memory. What is refused names its argument and changes
 * nothing; what runs out of memory changes nothing that a guest can see.
 */
#include <string.h>

#include "scene.h"

static const struct shape_row shapes[] = SHAPE_ROWS;

static const struct region private_region = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};

/* --- What stands in each page, kept beside the core ------------------------------------------- */

#define GONE UINT64_MAX /* no region */

/* The shape's samples in the shape's space and, when `shared`, in a fork of it. */
static struct book {
    struct space *space[2];
    unsigned spaces, samples;
    uint64_t sample[SCENE_SAMPLES], tag[2][SCENE_SAMPLES];
} book;

static void book_start(enum shape shape, bool shared)
{
    memset(&book, 0, sizeof(book));
    scene_shape(shape);
    book.samples = scene_samples(book.sample);
    book.space[0] = scene.space;
    book.spaces = shared ? 2 : 1;
    for (unsigned i = 0; i < book.samples; i++) {
        book.tag[0][i] = book.tag[1][i] = SCENE_TAG(book.sample[i]);
    }
    if (shared) {
        book.space[1] = scene_fork(scene.space);
    }
}

static void book_check(void)
{
    for (unsigned s = 0; s < book.spaces; s++) {
        for (unsigned i = 0; i < book.samples; i++) {
            if (book.tag[s][i] == GONE) {
                unsigned char byte;
                CHECK_STATUS(scene_access(book.space[s], book.sample[i], ACCESS_READ),
                             CLEAVE_FAULT);
                CHECK_STATUS(
                    space_read(scene.ctx, book.space[s], PAGE(book.sample[i]), &byte, 1, NULL),
                    CLEAVE_FAULT);
                CHECK_EQ(scene_lookup(book.space[s], book.sample[i]).kind, PTE_KIND_ABSENT);
            } else {
                scene_check(book.space[s], book.sample[i], book.tag[s][i]);
            }
        }
    }
    scene_audit();
}

static void book_set(unsigned s, uint64_t page, uint64_t pages, uint64_t tag)
{
    for (unsigned i = 0; i < book.samples; i++) {
        if (book.sample[i] >= page && book.sample[i] < page + pages) {
            book.tag[s][i] = tag;
        }
    }
}

/* Ranges inside a shape: a page, across a boundary, a block, all but an end, all. */
static const struct {
    int64_t start, end; /* pages; negative: from the end */
} parts[] = {{0, 1}, {1, 2}, {-1, 0}, {1, -1}};
#define PARTS 6u
static bool part(unsigned n, uint64_t *page, uint64_t *pages)
{
    uint64_t first, end;
    if (n < sizeof(parts) / sizeof(parts[0])) {
        first = parts[n].start < 0 ? scene.pages - 1 : (uint64_t)parts[n].start;
        end = parts[n].end <= 0 ? scene.pages + (uint64_t)parts[n].end : (uint64_t)parts[n].end;
    } else if (n == 4) {
        first = BLOCK / 2;
        end = BLOCK + BLOCK / 2;
    } else {
        first = n == 5 ? BLOCK : 0;
        end = n == 5 ? 2 * BLOCK : scene.pages;
    }
    *page = scene.base + first;
    *pages = end - first;
    return n <= PARTS;
}

/* --- Unmap ------------------------------------------------------------------------------------ */

TEST_TABLE(unmap, shapes)
{
    uint64_t page, pages;
    for (unsigned shared = 0; shared < 2; shared++) {
        for (unsigned n = 0; part(n, &page, &pages); n++) {
            test_case("part %u, shared %u", n, shared);
            book_start(row->shape, shared != 0);
            uint64_t free = scene.pool->free;
            REQUIRE_OK(space_unmap(scene.ctx, book.space[0], PAGE(page), BYTES(pages)));
            book_set(0, page, pages, GONE);
            book_check();
            if (!shared && scene.other == NULL && pages >= BLOCK && scene.pages < GIGA) {
                CHECK(scene.pool->free + ROOT_LEVEL + 2 >= free + pages); /* the frames came back */
            }
            /* Twice is the same: the range may contain holes. */
            REQUIRE_OK(space_unmap(scene.ctx, book.space[0], PAGE(page), BYTES(pages)));
            book_check();
            if (shared) { /* then in the other one, which had it all */
                REQUIRE_OK(space_unmap(scene.ctx, book.space[1], PAGE(page), BYTES(pages)));
                book_set(1, page, pages, GONE);
                book_check();
            }
            /* What is mapped there again has none of the old bytes. */
            REQUIRE_OK(space_set_region(scene.ctx, book.space[0], PAGE(page), BYTES(pages),
                                        &private_region));
            book_set(0, page, pages, 0);
            book_check();
            scene_end();
        }
    }
}

/* T-X6, XSA-247: a part of a block is to be unmapped and there is no frame for the table that
 * splits it: nothing is unmapped, nothing freed; the guest keeps what it has. */
TEST_TABLE(x6_unmapping_a_part_with_every_allocation_failing, shapes)
{
    uint64_t page, pages;
    for (unsigned n = 0; part(n, &page, &pages); n++) {
        for (unsigned shared = 0; shared < 2; shared++) {
            book_start(row->shape, shared != 0);
            for (uint64_t k = 1;; k++) {
                test_case("part %u, shared %u, allocation %d", n, shared, (int)k);
                struct scene_state before = scene_state();
                host_fail_allocation(k);
                enum cleave_status status =
                    space_unmap(scene.ctx, book.space[0], PAGE(page), BYTES(pages));
                bool failed = host_allocation_failed();
                host_fail_allocation(0);
                if (!failed) {
                    CHECK_OK(status);
                    break;
                }
                CHECK_STATUS(status, CLEAVE_NO_MEMORY);
                struct scene_state after = scene_state();
                SCENE_CHECK_SAME_VIEW(before, after);
                CHECK(after.free <= before.free);
                scene_audit();
            }
            book_set(0, page, pages, GONE);
            book_check();
            scene_end();
        }
    }
}

/* The same with a pool that really is empty. */
static uint64_t drain(pfn_t *last)
{
    struct payer hog = {.pool = scene.pool};
    uint64_t taken = 0;
    for (unsigned order = LEAF_ORDERS; order-- > 0;) {
        pfn_t f;
        while (pool_alloc(scene.ctx, &hog, order, FRAME_DATA, &f) == CLEAVE_OK) {
            taken += level_pages(order);
            *last = order == 0 ? f : *last;
        }
    }
    return taken;
}

static const struct shape_row huge_shapes[] = {
    {"2m", SHAPE_2M}, {"1g", SHAPE_1G}, {"split-1g", SHAPE_SPLIT_1G}, {"partly", SHAPE_PARTLY}};
TEST_TABLE(x6_unmapping_a_part_with_an_empty_pool, huge_shapes)
{
    pfn_t last = PFN_NONE;
    book_start(row->shape, true);
    CHECK(drain(&last) > 0);
    REQUIRE_EQ(scene.pool->free, 0);
    struct scene_state before = scene_state();
    CHECK_STATUS(space_unmap(scene.ctx, scene.space, PAGE(scene.base + 1), BYTES(1)),
                 CLEAVE_NO_MEMORY);
    struct scene_state after = scene_state();
    SCENE_CHECK_SAME_VIEW(before, after);
    CHECK_EQ(after.free, 0);
    for (unsigned i = 0; i < book.samples; i++) {
        scene_look(book.space[0], book.sample[i], book.tag[0][i]);
        scene_look(book.space[1], book.sample[i], book.tag[1][i]);
    }
    CHECK_EQ(scene_lookup(scene.space, scene.base + 1).region.policy, REGION_PRIVATE);
    /* With all of it unmapped no split is needed. */
    REQUIRE_OK(space_unmap(scene.ctx, scene.space, PAGE(0), BYTES(GUEST_PAGES)));
    CHECK_EQ(scene_lookup(scene.space, scene.base + 1).region.policy, REGION_NONE);
}

/* --- Protect ---------------------------------------------------------------------------------- */

TEST_TABLE(protect, shapes)
{
    static const unsigned rights[] = {RIGHT_READ, RIGHT_READ | RIGHT_WRITE, RIGHT_READ | RIGHT_EXEC,
                                      RIGHT_ALL};
    uint64_t page, pages;
    for (unsigned shared = 0; shared < 2; shared++) {
        book_start(row->shape, shared != 0);
        for (unsigned n = 0; part(n, &page, &pages); n++) {
            for (unsigned r = 0; r < 4; r++) {
                test_case("part %u, rights %u, shared %u", n, rights[r], shared);
                REQUIRE_OK(
                    space_protect(scene.ctx, book.space[0], PAGE(page), BYTES(pages), rights[r]));
                host_tlb_check(); /* what was taken away is gone when it returns (I5) */
                for (unsigned i = 0; i < book.samples; i++) {
                    uint64_t at = book.sample[i];
                    bool in = at >= page && at < page + pages;
                    unsigned may = in ? rights[r] : RIGHT_ALL;
                    CHECK_STATUS(scene_access(book.space[0], at, ACCESS_EXEC),
                                 may & RIGHT_EXEC ? CLEAVE_OK : CLEAVE_FAULT);
                    if (may & RIGHT_WRITE) {
                        book.tag[0][i]++;
                        scene_write(book.space[0], at, book.tag[0][i]);
                    } else {
                        CHECK_STATUS(scene_access(book.space[0], at, ACCESS_WRITE), CLEAVE_FAULT);
                    }
                }
                if (r % 2 == 0) {
                    book_check();
                }
            }
            REQUIRE_OK(
                space_protect(scene.ctx, book.space[0], PAGE(page), BYTES(pages), RIGHT_ALL));
        }
        book_check();
        if (shared) { /* the other one's rights never changed */
            scene_write(book.space[1], book.sample[0], 4);
            book.tag[1][0] = 4;
            book_check();
        }
        scene_end();
    }
}

TEST_TABLE(protect_with_every_allocation_failing, shapes)
{
    book_start(row->shape, true);
    for (uint64_t k = 1;; k++) {
        test_case("allocation %d", (int)k);
        struct scene_state before = scene_state();
        host_fail_allocation(k);
        enum cleave_status status =
            space_protect(scene.ctx, book.space[0], PAGE(scene.base + 1), BYTES(BLOCK), RIGHT_READ);
        bool failed = host_allocation_failed();
        host_fail_allocation(0);
        scene_audit();
        if (!failed) {
            CHECK_OK(status);
            break;
        }
        CHECK_STATUS(status, CLEAVE_NO_MEMORY);
        struct scene_state after = scene_state();
        SCENE_CHECK_SAME_VIEW(before, after);
    }
    book_check();
    scene_end();
}

/* --- Map and populate ------------------------------------------------------------------------- */

/* Leaves of each order, zeroed although the frames were used before. */
TEST(map_leaves_of_each_order)
{
    scene_start(TABLE_ENTRIES > 4 ? 0 : 96);
    unsigned orders = TABLE_ENTRIES > 4 ? 2 : 3; /* a real 1 GiB leaf takes long to zero */
    struct space *dirty = scene_space();
    scene_memory(dirty, 0, 4 * BLOCK, 1);
    for (uint64_t i = 0; i < 4 * BLOCK; i++) {
        scene_write(dirty, i, 0x5ec7e7);
    }
    scene_destroy(dirty);
    for (unsigned order = 0; order < orders; order++) {
        const struct region region = {
            .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = (uint8_t)order};
        struct space *space = scene_space();
        for (unsigned i = 0; i < 3; i++) {
            gpa_t at = gpa(level_size(order) * (1 + 2 * i));
            uint64_t free = scene.pool->free;
            REQUIRE_OK(space_map(scene.ctx, space, at, order, &region));
            CHECK(free - scene.pool->free >= level_pages(order));
            scene_audit();
            struct mapping m = scene_lookup(space, at.v >> PAGE_SHIFT);
            CHECK_EQ(m.kind, PTE_KIND_LEAF);
            CHECK_EQ(m.level, order);
            CHECK(m.exclusive);
            CHECK(m.rights & RIGHT_WRITE);
            for (uint64_t p = 0; p < level_pages(order); p++) {
                scene_look(space, (at.v >> PAGE_SHIFT) + p, 0);
            }
            scene_write(space, at.v >> PAGE_SHIFT, 4);
            CHECK_STATUS(space_map(scene.ctx, space, at, order, &region), CLEAVE_EXISTS);
            scene_check(space, at.v >> PAGE_SHIFT, 4);
        }
        CHECK_EQ(scene_usage(space).mapped[order], 3 * level_size(order));
        CHECK_EQ(scene_usage(space).exclusive, 3 * level_size(order));
        scene_destroy(space);
        scene_audit();
    }
    scene_end();
}

TEST(map_a_giant_for_real)
{
    const struct region region = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 2};
    scene_start_with(2 * TABLE_ENTRIES, &(struct host_options){.backing_huge = true});
    struct space *space = scene_space();
    enum cleave_status status;
    unsigned calls = 0;
    do {
        scene.ctx->budget =
            BLOCK < GIGA / 8 ? GIGA / 8 : BLOCK; /* it is preemptible: zeroed a little at a time */
        status = space_map(scene.ctx, space, PAGE(GIGA), 2, &region);
        scene.ctx->budget = UINT64_MAX;
        scene_audit();
        calls++;
    } while (status == CLEAVE_AGAIN && calls < 100);
    CHECK_OK(status);
    CHECK(calls >= 4);
    CHECK_EQ(scene_lookup(space, GIGA).level, 2);
    scene_check(space, 2 * GIGA - 1, 0);
    scene_end();
}

/* A range that does not begin or end at a large boundary gets small leaves at its ends. */
TEST(populate_uses_the_largest_leaves)
{
    scene_start(0);
    struct space *space = scene_space();
    scene_region(space, 1, 4 * BLOCK, REGION_PRIVATE, RIGHT_ALL, 1);
    REQUIRE_OK(space_populate(scene.ctx, space, PAGE(1), BYTES(4 * BLOCK)));
    scene_audit();
    struct space_usage usage = scene_usage(space);
    CHECK_EQ(usage.mapped[1], BYTES(3 * BLOCK));
    CHECK_EQ(usage.mapped[0], BYTES(BLOCK));
    CHECK_EQ(space->stats.zeroed, 4 * BLOCK);
    /* Again: nothing is left to be done, and what is there stays. */
    scene_write(space, 1, 6);
    uint64_t free = scene.pool->free;
    REQUIRE_OK(space_populate(scene.ctx, space, PAGE(1), BYTES(4 * BLOCK)));
    CHECK_EQ(scene.pool->free, free);
    scene_check(space, 1, 6);
    CHECK_STATUS(space_populate(scene.ctx, space, PAGE(0), BYTES(2)), CLEAVE_NOT_MAPPED);
    scene_end();
}

TEST(populate_with_every_allocation_failing)
{
    scene_start(0);
    struct space *space = scene_space();
    scene_region(space, 1, 2 * BLOCK, REGION_PRIVATE, RIGHT_ALL, 1);
    for (uint64_t k = 1; k < 3 * BLOCK; k += k < 16 ? 1 : BLOCK / 4) {
        struct space *child = scene_fork(space); /* on shared tables */
        struct scene_state before = scene_state();
        host_fail_allocation(k);
        enum cleave_status status = space_populate(scene.ctx, child, PAGE(1), BYTES(2 * BLOCK));
        host_fail_allocation(0);
        /* A block that is not to be had is made of small leaves. */
        CHECK(status == CLEAVE_OK || status == CLEAVE_NO_MEMORY);
        struct scene_state after = scene_state();
        SCENE_CHECK_SAME_VIEW(before, after);
        scene_audit();
        REQUIRE_OK(space_populate(scene.ctx, child, PAGE(1), BYTES(2 * BLOCK)));
        scene_destroy(child);
    }
    scene_end();
}

/* --- Copy to and from guest memory ------------------------------------------------------------ */

TEST_TABLE(read_and_write_any_bytes, shapes)
{
    unsigned char bytes[2 * PAGE_SIZE], found[2 * PAGE_SIZE];
    uint64_t done;
    scene_shape(row->shape);
    struct space *child = scene_fork(scene.space);
    for (unsigned i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (unsigned char)(i * 7 + 1);
    }
    static const uint64_t sizes[] = {
        0, 1, 7, 8, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE};
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (uint64_t offset = 0; offset < 3; offset++) {
            gpa_t at = gpa(BYTES(scene.base + BLOCK - 1) + offset * 5);
            test_case("size %d, offset %d", (int)sizes[i], (int)offset);
            bytes[0]++;
            REQUIRE_OK(space_write(scene.ctx, child, at, bytes, sizes[i], NULL, &done));
            CHECK_EQ(done, sizes[i]);
            REQUIRE_OK(space_read(scene.ctx, child, at, found, sizes[i], NULL));
            CHECK_EQ(memcmp(found, bytes, sizes[i]), 0);
            if (sizes[i] > 0) { /* its guest sees it as well */
                REQUIRE_OK(host_cpu_read(scene_cpu(child), at, found, sizes[i]));
                CHECK_BYTES(found, bytes, sizes[i]);
            }
        }
    }
    scene_look(scene.space, scene.base + BLOCK - 1, SCENE_TAG(scene.base + BLOCK - 1));
    scene_look(scene.space, scene.base + BLOCK, SCENE_TAG(scene.base + BLOCK));
    scene_audit();
    /* Past the memory's end: what comes before is written, and said. */
    gpa_t end = PAGE(scene.base + scene.pages);
    CHECK_STATUS(space_write(scene.ctx, child, gpa(end.v - 8), bytes, 16, NULL, &done),
                 CLEAVE_FAULT);
    CHECK_EQ(done, 8);
    CHECK_STATUS(space_read(scene.ctx, child, gpa(end.v - 8), found, 16, NULL), CLEAVE_FAULT);
    /* A snapshot is read, not written. */
    struct space *snapshot = scene_snapshot(child);
    scene_look(snapshot, scene.base, SCENE_TAG(scene.base));
    CHECK_STATUS(space_write(scene.ctx, snapshot, PAGE(scene.base), bytes, 1, NULL, &done),
                 CLEAVE_FROZEN);
    CHECK_EQ(done, 0);
    scene_end();
}

TEST(reading_a_hole_fills_nothing)
{
    unsigned char found[PAGE_SIZE], zero[PAGE_SIZE] = {0};
    scene_start(0);
    struct space *space = scene_space();
    scene_region(space, 0, 2, REGION_PRIVATE, RIGHT_ALL, 0);
    struct scene_state before = scene_state();
    REQUIRE_OK(space_read(scene.ctx, space, gpa(PAGE_SIZE / 2), found, PAGE_SIZE, NULL));
    CHECK_BYTES(found, zero, PAGE_SIZE);
    struct scene_state after = scene_state();
    SCENE_CHECK_SAME(before, after);
    scene_end();
}

/* --- Lookup and usage ------------------------------------------------------------------------- */

static const struct usage_case {
    const char *label;
    enum shape shape;
    unsigned level; /* of the first page's leaf */
} usages[] = {
    {"4k", SHAPE_4K, 0},
    {"2m", SHAPE_2M, 1},
    {"1g", SHAPE_1G, 2},
    {"split-2m", SHAPE_SPLIT_2M, 0},
    {"split-1g", SHAPE_SPLIT_1G, 1},
    {"partly", SHAPE_PARTLY, 0},
};
TEST_TABLE(lookup_and_usage, usages)
{
    scene_shape(row->shape);
    struct mapping m = scene_lookup(scene.space, scene.base);
    CHECK_EQ(m.kind, PTE_KIND_LEAF);
    CHECK_EQ(m.level, row->level);
    CHECK_EQ(m.region.policy, REGION_PRIVATE);
    CHECK_EQ(m.exclusive, true);
    struct host_walk hardware = host_walk(scene.space->root, PAGE(scene.base));
    CHECK_EQ(hardware.frame, m.frame.v);
    CHECK_EQ(hardware.rights, m.rights);
    CHECK_EQ(hardware.level, m.level);
    struct space_usage usage = scene_usage(scene.space);
    CHECK_EQ(usage.mapped[0] + usage.mapped[1] + usage.mapped[2], BYTES(scene.pages));
    CHECK_EQ(usage.exclusive + usage.shared, BYTES(scene.pages));
    CHECK_EQ(usage.shared == 0, scene.other == NULL);
    struct space *child = scene_fork(scene.space);
    CHECK_EQ(scene_lookup(scene.space, scene.base).exclusive, false);
    CHECK_EQ(scene_usage(child).exclusive, 0);
    CHECK_EQ(scene_usage(scene.space).shared, BYTES(scene.pages));
    scene_write(child, scene.base, 1);
    CHECK_EQ(scene_usage(child).exclusive, BYTES(1));
    CHECK(scene_lookup(child, scene.base).exclusive);
    /* Preempted at every entry it says the same. */
    struct space_usage again = {0}, whole = scene_usage(child);
    gfn_t from = gfn(0);
    enum cleave_status status;
    do {
        scene.ctx->budget = 1;
        status = space_usage(scene.ctx, child, &from, &again);
    } while (status == CLEAVE_AGAIN);
    scene.ctx->budget = UINT64_MAX;
    CHECK_OK(status);
    CHECK_EQ(memcmp(&again, &whole, sizeof(whole)), 0);
    scene_end();
}

/* A quota that has no room for a block still has room for pages: a leaf falls back to 4 KiB for it
 * as it does where the pool has no block. */
TEST(a_quota_below_a_block_is_used_up_by_pages)
{
    scene_start(0);
    struct space *space = scene_space();
    uint32_t account = space->payer.account;
    scene_memory(space, BLOCK, 1, 0); /* its path is there */
    scene_region(space, 0, BLOCK, REGION_PRIVATE, RIGHT_ALL, 1);
    uint64_t zeroed = space->stats.zeroed;
    uint64_t limit = account_of(scene.pool, account)->charged + 1 + 2; /* a table, two pages */
    REQUIRE_OK(account_set_limit(scene.ctx, scene.pool, account, limit));
    CHECK_STATUS(space_populate(scene.ctx, space, gpa(0), BYTES(BLOCK)), CLEAVE_QUOTA);
    CHECK_EQ(space->stats.zeroed, zeroed + 2);
    CHECK_EQ(account_of(scene.pool, account)->charged, limit);
    scene_end();
}
