/* SPDX-License-Identifier: BSD-2-Clause */
/* Moving guest memory: contents, shapes, alignments, early copies, refusals and failures. */
#include <string.h>

#include "fork.h"
#include "host.h"
#include "pin.h"
#include "shapes.h"
#include "test.h"

#define FAR (8 * level_size(2)) /* a free target, aligned for every order */

static uint64_t copies;

static enum cleave_status move(uint64_t from, uint64_t to, uint64_t size)
{
    enum cleave_status status;
    copies = 0;
    do {
        uint64_t copied;
        status = space_move(shaped.ctx, shaped.space, gpa(from), gpa(to), size, &copied);
        copies += copied;
    } while (status == CLEAVE_AGAIN);
    return status;
}

static bool is_none(uint64_t at)
{
    struct mapping mapping;
    REQUIRE_OK(space_lookup(shaped.ctx, shaped.space, gpa(at), &mapping));
    return mapping.kind == PTE_KIND_ABSENT && mapping.region.policy == REGION_NONE;
}

/* The tags of [from, from + size) are found from `to` on. */
static void check_tags(uint64_t from, uint64_t to, uint64_t size)
{
    for (uint64_t done = 0; done < size; done += PAGE_SIZE) {
        uint64_t page = (from + done - SHAPE_AT) / PAGE_SIZE;
        if (shape_tagged(page)) {
            CHECK_EQ(shape_read(shaped.space, to + done), shape_tag(page));
        } else if (page % TABLE_ENTRIES == 8) {
            done += (TABLE_ENTRIES - 9) * PAGE_SIZE;
        }
    }
}

/* All of it, there and back; the other holder of what is shared notices nothing. */
TEST_TABLE(whole_memory, shape_cases)
{
    shape_start(4);
    shape_make(row->shape);
    uint64_t sum = shape_sum(shaped.space);
    uint64_t theirs = shaped.fork != NULL ? shape_sum(shaped.fork) : 0;
    unsigned level = shape_level(shaped.space, SHAPE_AT);
    unsigned last = shape_level(shaped.space, SHAPE_AT + shaped.bytes - PAGE_SIZE);
    uint64_t charged = account_of(shaped.pool, shaped.space->payer.account)->charged;

    REQUIRE_OK(host_cpu_run(1, shaped.space));
    for (uint64_t page = 0; page < 4; page++) {
        CHECK_OK(
            host_cpu_write(1, gpa(SHAPE_AT + (TABLE_ENTRIES + page) * PAGE_SIZE + 16), "x", 1));
    }
    CHECK_OK(move(SHAPE_AT, FAR, shaped.bytes));
    CHECK_EQ(copies, row->shape == SHAPE_PART_SHARED ? TABLE_ENTRIES / 2 : 0);
    CHECK_EQ(shaped.space->stats.early_copies, copies);
    shape_check();
    check_tags(SHAPE_AT, FAR, shaped.bytes);
    CHECK(is_none(SHAPE_AT));
    CHECK(is_none(SHAPE_AT + shaped.bytes - PAGE_SIZE));
    CHECK_EQ(shape_level(shaped.space, FAR), level);
    CHECK_EQ(shape_level(shaped.space, FAR + shaped.bytes - PAGE_SIZE), last);
    uint64_t value;
    CHECK_STATUS(host_cpu_read(1, gpa(SHAPE_AT), &value, sizeof(value)), CLEAVE_FAULT);
    CHECK_OK(host_cpu_read(1, gpa(FAR), &value, sizeof(value)));
    CHECK_EQ(value, shape_tag(0));
    CHECK_OK(host_cpu_write(1, gpa(FAR + 8), "y", 1));

    CHECK_OK(move(FAR, SHAPE_AT, shaped.bytes));
    CHECK_EQ(copies, 0);
    shape_check();
    CHECK_EQ(shape_sum(shaped.space), sum);
    CHECK_EQ(shaped.fork != NULL ? shape_sum(shaped.fork) : 0, theirs);
    if (row->shape != SHAPE_PART_SHARED) {
        /* Nothing is left behind: no table, no region node. */
        CHECK_EQ(account_of(shaped.pool, shaped.space->payer.account)->charged, charged);
    }
    host_cpu_stop(1);
    shape_drop();
    shape_check();
}

/* After a fork everything is shared: all of it is copied first, and both write on their own. */
TEST_TABLE(shared_memory_is_copied_first, shape_cases)
{
    shape_start(6);
    shape_make(row->shape);
    struct space *child = shape_fork(shaped.space);
    uint64_t theirs = shape_sum(child);
    uint64_t bytes = host_counters().bytes_copied;
    CHECK_OK(move(SHAPE_AT, FAR, shaped.bytes));
    CHECK_EQ(copies, shaped.bytes / PAGE_SIZE);
    CHECK_EQ(host_counters().bytes_copied - bytes, shaped.bytes);
    CHECK_EQ(shaped.space->stats.early_copies, copies);
    shape_check();
    check_tags(SHAPE_AT, FAR, shaped.bytes);
    if (row->shape == SHAPE_BLOCK || row->shape == SHAPE_GIGA) {
        CHECK_EQ(shape_level(shaped.space, FAR), 1);
    }
    shape_write(shaped.space, FAR + PAGE_SIZE, 5);
    CHECK_EQ(shape_sum(child), theirs);
    shape_write(child, SHAPE_AT + PAGE_SIZE, 6);
    CHECK_EQ(shape_read(shaped.space, FAR + PAGE_SIZE), 5);
    shape_destroy(child);
    shape_drop();
    shape_check();
}

/* Ends in the middle of leaves: the rest stays where it is. */
TEST_TABLE(parts_of_leaves, shape_cases)
{
    uint64_t first = TABLE_ENTRIES - 2, pages = 4; /* around the first boundary of blocks */
    uint64_t from = SHAPE_AT + first * PAGE_SIZE, size = pages * PAGE_SIZE;
    shape_start(4);
    shape_make(row->shape);
    for (unsigned i = 0; i < pages; i++) {
        shape_write(shaped.space, from + i * PAGE_SIZE, 100 + i);
    }
    CHECK_OK(move(from, FAR + PAGE_SIZE, size));
    shape_check();
    for (unsigned i = 0; i < pages; i++) {
        CHECK_EQ(shape_read(shaped.space, FAR + (1 + i) * PAGE_SIZE), 100 + i);
        CHECK(is_none(from + i * PAGE_SIZE));
    }
    CHECK(is_none(FAR));
    CHECK(is_none(FAR + PAGE_SIZE + size));
    CHECK_EQ(shape_read(shaped.space, SHAPE_AT), shape_tag(0));
    CHECK_EQ(shape_read(shaped.space, from + size),
             shape_tagged(first + pages) ? shape_tag(first + pages) : 0);
    shape_drop();
    shape_check();
}

/* T-X8: source and target alignments at each order, sizes of each order and some pages. */
TEST(alignments)
{
    static const uint64_t extra[] = {0, 1, 3};
    uint64_t start[2 * LEAF_ORDERS];
    for (unsigned i = 0; i < LEAF_ORDERS; i++) {
        start[2 * i] = level_pages(i);
        start[2 * i + 1] = level_pages(2) + level_pages(i);
    }
    for (unsigned a = 0; a < 2 * LEAF_ORDERS; a++) {
        for (unsigned b = 0; b < 2 * LEAF_ORDERS; b++) {
            for (unsigned s = 0; s < 2 * 3; s++) {
                uint64_t pages = level_pages(s / 3) + extra[s % 3];
                uint64_t from = start[a] * PAGE_SIZE;
                uint64_t to = FAR + start[b] * PAGE_SIZE;
                const struct region region = {
                    .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};
                test_case("from page %u to page %u, %u pages", (unsigned)start[a],
                          (unsigned)start[b], (unsigned)pages);
                if (a == 0 && b == 0 && s == 0) {
                    shape_start(2);
                }
                REQUIRE_OK(space_create(shaped.ctx, shaped.pool, UINT64_MAX, &shaped.space));
                REQUIRE_OK(space_set_region(shaped.ctx, shaped.space, gpa(from), pages * PAGE_SIZE,
                                            &region));
                REQUIRE_OK(space_populate(shaped.ctx, shaped.space, gpa(from), pages * PAGE_SIZE));
                for (uint64_t p = 0; p < pages; p += p < 4 || p + 5 > pages ? 1 : 61) {
                    shape_write(shaped.space, from + p * PAGE_SIZE, p + 1);
                }
                CHECK_OK(move(from, to, pages * PAGE_SIZE));
                CHECK_EQ(copies, 0);
                for (uint64_t p = 0; p < pages; p += p < 4 || p + 5 > pages ? 1 : 61) {
                    CHECK_EQ(shape_read(shaped.space, to + p * PAGE_SIZE), p + 1);
                }
                /* Leaves of a block stay whole where both ends have the alignment. */
                uint64_t block = (from + level_size(1) - 1) / level_size(1) * level_size(1);
                if ((from ^ to) % level_size(1) == 0 &&
                    block + level_size(1) <= from + pages * PAGE_SIZE) {
                    CHECK_EQ(shape_level(shaped.space, block - from + to), 1);
                }
                shape_check();
                shape_destroy(shaped.space);
            }
        }
    }
}

/* --- Regions ---------------------------------------------------------------------------------- */

/* Holes, rights and policies move along; shared frames stay shared. */
TEST(regions_move_along)
{
    const struct region parts[] = {
        {.policy = REGION_PRIVATE, .rights = RIGHT_READ},
        {.policy = REGION_READ_ONLY, .rights = RIGHT_READ | RIGHT_EXEC},
        {.policy = REGION_SHARED, .rights = RIGHT_READ | RIGHT_WRITE},
        {.policy = REGION_WIPE, .rights = RIGHT_ALL},
        {.policy = REGION_ABSENT, .rights = RIGHT_ALL, .whole = true, .order = 1},
        {.policy = REGION_PRIVATE, .rights = RIGHT_ALL},
    };
    const unsigned count = sizeof(parts) / sizeof(parts[0]);
    const uint64_t each = 2 * PAGE_SIZE;
    uint64_t value;
    shape_start(4);
    shape_make(SHAPE_PAGES);
    uint64_t from = SHAPE_AT + level_size(2) + PAGE_SIZE;
    for (unsigned i = 0; i < count; i++) {
        REQUIRE_OK(
            space_set_region(shaped.ctx, shaped.space, gpa(from + i * each), each, &parts[i]));
        CHECK_EQ(shape_read(shaped.space, from + i * each), 0);
    }
    shape_write(shaped.space, from + 2 * each, 7);
    struct space *child = shape_fork(shaped.space);
    CHECK_OK(move(from, FAR, count * each));
    for (unsigned i = 0; i < count; i++) {
        struct region region = region_get(shaped.space->regions, gpa_to_gfn(gpa(FAR + i * each)));
        CHECK_EQ(region_pack(&region), region_pack(&parts[i]));
        CHECK(is_none(from + i * each));
    }
    shape_check();
    CHECK_EQ(shape_read(shaped.space, FAR + 2 * each), 7);
    shape_write(child, from + 2 * each, 8);
    CHECK_EQ(shape_read(shaped.space, FAR + 2 * each), 8);
    uint64_t done;
    CHECK_STATUS(space_write(shaped.ctx, shaped.space, gpa(FAR), "x", 1, NULL, &done),
                 CLEAVE_FAULT);
    CHECK_STATUS(space_write(shaped.ctx, shaped.space, gpa(FAR + each), "x", 1, NULL, &done),
                 CLEAVE_FAULT);
    shape_write(shaped.space, FAR + 3 * each, 9);
    CHECK_STATUS(space_read(shaped.ctx, child, gpa(from + 4 * each), &value, 8, NULL),
                 CLEAVE_FAULT);
    shape_check();
    shape_destroy(child);
    shape_drop();
    shape_check();
}

/* A right that is cleared in a table's entry alone is not found again where the leaves go. */
TEST(hidden_rights_stay_away)
{
    uint64_t value = 1;
    shape_start(4);
    shape_make(SHAPE_PAGES);
    REQUIRE_OK(host_cpu_run(1, shaped.space));
    uint64_t second = SHAPE_AT + level_size(1);
    CHECK_OK(host_cpu_access(1, gpa(second), ACCESS_EXEC, &value, sizeof(value)));
    CHECK_OK(space_protect(shaped.ctx, shaped.space, gpa(SHAPE_AT), level_size(1), RIGHT_READ));
    CHECK_OK(space_protect(shaped.ctx, shaped.space, gpa(second), level_size(1),
                           RIGHT_READ | RIGHT_WRITE));
    CHECK_OK(move(SHAPE_AT, FAR, 2 * level_size(1)));
    shape_check();
    CHECK_STATUS(host_cpu_write(1, gpa(FAR + PAGE_SIZE), &value, sizeof(value)), CLEAVE_FAULT);
    CHECK_STATUS(host_cpu_access(1, gpa(FAR + level_size(1)), ACCESS_EXEC, &value, sizeof(value)),
                 CLEAVE_FAULT);
    CHECK_OK(host_cpu_write(1, gpa(FAR + level_size(1)), &value, sizeof(value)));
    CHECK_EQ(shape_read(shaped.space, FAR + PAGE_SIZE), shape_tag(1));
    shape_check();
}

/* T-T2: device leaves of each order move, without being counted. */
TEST(device_memory)
{
    shape_start(2);
    shape_make(SHAPE_BLOCK);
    pfn_t device = host_take(level_pages(1), 1);
    uint64_t from = SHAPE_AT + level_size(2);
    REQUIRE_OK(space_map_device(shaped.ctx, shaped.space, gpa(from), level_size(1), device,
                                RIGHT_READ | RIGHT_WRITE, false));
    CHECK_OK(move(from, FAR, level_size(1)));
    shape_check();
    struct mapping mapping;
    REQUIRE_OK(space_lookup(shaped.ctx, shaped.space, gpa(FAR + PAGE_SIZE), &mapping));
    CHECK_EQ(mapping.frame.v, device.v + 1);
    CHECK_EQ(mapping.region.policy, REGION_DEVICE);
    CHECK_OK(move(FAR + PAGE_SIZE, from + 2 * PAGE_SIZE, PAGE_SIZE));
    REQUIRE_OK(space_lookup(shaped.ctx, shaped.space, gpa(from + 2 * PAGE_SIZE), &mapping));
    CHECK_EQ(mapping.frame.v, device.v + 1);
    CHECK_EQ(copies, 0);
    shape_check();
    shape_drop();
    shape_check();
}

/* --- Refusals --------------------------------------------------------------------------------- */

TEST(refuses_bad_arguments)
{
    const uint64_t width = UINT64_C(1) << GUEST_BITS;
    const uint64_t at = SHAPE_AT, block = level_size(1);
    const struct {
        const char *label;
        uint64_t from, to, size;
        enum cleave_status status;
    } bad[] = {
        {"size 0", at, FAR, 0, CLEAVE_COUNT},
        {"unaligned source", at + 1, FAR, block, CLEAVE_ALIGN},
        {"unaligned target", at, FAR + 8, block, CLEAVE_ALIGN},
        {"unaligned size", at, FAR, block + 1, CLEAVE_ALIGN},
        {"source wraps", at, FAR, UINT64_MAX - PAGE_SIZE + 1, CLEAVE_WRAP},
        {"source past the width", width, FAR, PAGE_SIZE, CLEAVE_RANGE},
        {"target past the width", at, width, PAGE_SIZE, CLEAVE_RANGE},
        {"target ends past the width", at, width - PAGE_SIZE, 2 * PAGE_SIZE, CLEAVE_RANGE},
        {"the same", at, at, block, CLEAVE_OVERLAP},
        {"overlaps its end", at, at + PAGE_SIZE, block, CLEAVE_OVERLAP},
        {"overlaps its start", at + PAGE_SIZE, at, block, CLEAVE_OVERLAP},
        {"target in use", at, at + block, block, CLEAVE_EXISTS},
        {"target ends in use", at + block, at - block + PAGE_SIZE, block, CLEAVE_EXISTS},
        {"no source", FAR + block, FAR, block, CLEAVE_NOT_MAPPED},
        {"a hole at the end", at + block, FAR, block + PAGE_SIZE, CLEAVE_NOT_MAPPED},
    };
    uint64_t copied = 9;
    struct space *snapshot;
    shape_start(4);
    shape_make(SHAPE_BLOCK);
    uint64_t before = shape_sum(shaped.space);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        test_case("%s", bad[i].label);
        CHECK_STATUS(space_move(shaped.ctx, shaped.space, gpa(bad[i].from), gpa(bad[i].to),
                                bad[i].size, &copied),
                     bad[i].status);
        CHECK_EQ(shaped.ctx->error.status, bad[i].status);
        CHECK(shaped.ctx->error.argument != NULL);
        CHECK_EQ(copied, 0);
        CHECK_EQ(shape_sum(shaped.space), before);
        CHECK_EQ(shape_level(shaped.space, SHAPE_AT), 1);
        shape_check();
    }
    test_case("a snapshot");
    REQUIRE_OK(space_snapshot(shaped.ctx, shaped.space, UINT64_MAX, &snapshot));
    CHECK_STATUS(space_move(shaped.ctx, snapshot, gpa(SHAPE_AT), gpa(FAR), PAGE_SIZE, &copied),
                 CLEAVE_FROZEN);
}

TEST(refuses_the_pinned_and_the_foreign)
{
    struct space *other;
    uint32_t id = 0;
    shape_start(4);
    shape_make(SHAPE_BLOCK);
    REQUIRE_OK(space_create(shaped.ctx, shaped.pool, UINT64_MAX, &other));
    uint64_t page = SHAPE_AT + 3 * PAGE_SIZE;
    REQUIRE_OK(space_pin(shaped.ctx, shaped.space, gpa(page), PAGE_SIZE, false, &id));
    CHECK_STATUS(move(SHAPE_AT, FAR, level_size(1)), CLEAVE_BUSY);
    CHECK_EQ(shaped.ctx->error.value, id);
    CHECK_OK(move(SHAPE_AT + level_size(1), FAR, level_size(1)));
    CHECK_OK(space_unpin(shaped.ctx, shaped.space, id));

    REQUIRE_OK(foreign_map(shaped.ctx, shaped.space, gpa(page), other, gpa(FAR)));
    CHECK_STATUS(move(SHAPE_AT, FAR + level_size(2), level_size(1)), CLEAVE_BUSY);
    struct space *space = shaped.space;
    shaped.space = other;
    CHECK_STATUS(move(FAR, SHAPE_AT, PAGE_SIZE), CLEAVE_POLICY);
    shaped.space = space;
    shape_check();
    CHECK_EQ(shape_read(shaped.space, page), shape_tag(3));
    REQUIRE_OK(foreign_unmap(shaped.ctx, other, gpa(FAR)));
    CHECK_OK(move(SHAPE_AT, FAR + level_size(2), level_size(1)));
    shape_check();
}

/* As many leaves as one call may move, and one more. */
TEST(bounds_its_work)
{
    const struct region region = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};
    uint64_t pages = MOVE_MAX_LEAVES + 1;
    uint64_t room = GUEST_PAGES / 2 - level_pages(2);
    shape_start(TABLE_ENTRIES < 64 ? 300 : 2);
    REQUIRE_OK(space_create(shaped.ctx, shaped.pool, UINT64_MAX, &shaped.space));
    if (pages > room) {
        TEST_SKIP("the guest is too small to have so many leaves");
        return;
    }
    REQUIRE_OK(space_set_region(shaped.ctx, shaped.space, gpa(0), pages * PAGE_SIZE, &region));
    REQUIRE_OK(space_populate(shaped.ctx, shaped.space, gpa(0), pages * PAGE_SIZE));
    uint64_t to = (room + level_pages(2)) * PAGE_SIZE;
    CHECK_STATUS(move(0, to, pages * PAGE_SIZE), CLEAVE_COUNT);
    CHECK_EQ(shaped.ctx->error.high, MOVE_MAX_LEAVES * PAGE_SIZE);
    CHECK(is_none(to));
    CHECK_OK(move(0, to, (pages - 1) * PAGE_SIZE));
    shape_check();
    shape_destroy(shaped.space);
}

/* --- Failures and stops ----------------------------------------------------------------------- */

/* Every allocation fails in turn: everything is where it was, and nothing that was made for the
 * move stays charged. */
static void fail_each(uint64_t from, uint64_t to, uint64_t size, struct space *child)
{
    uint64_t before = shape_sum(shaped.space), theirs = shape_sum(child);
    enum cleave_status status = CLEAVE_NO_MEMORY;
    uint64_t k;
    for (k = 1; status == CLEAVE_NO_MEMORY; k++) {
        uint64_t copied;
        test_case("allocation %u", (unsigned)k);
        host_fail_allocation(k);
        status = space_move(shaped.ctx, shaped.space, gpa(from), gpa(to), size, &copied);
        bool failed = host_allocation_failed();
        host_fail_allocation(0);
        if (status != CLEAVE_OK) {
            CHECK(failed);
            CHECK_EQ(shape_sum(shaped.space), before);
            CHECK(is_none(to));
        }
        CHECK_EQ(shape_sum(child), theirs);
        shape_check();
    }
    CHECK_OK(status);
    CHECK(k > 1);
}

TEST_TABLE(survives_failing_allocations, shape_cases)
{
    shape_start(4);
    shape_make(row->shape);
    struct space *child = shape_fork(shaped.space);
    /* Around the boundary of two blocks, to another alignment. */
    uint64_t from = SHAPE_AT + (TABLE_ENTRIES - 2) * PAGE_SIZE;
    fail_each(from, FAR + PAGE_SIZE, 4 * PAGE_SIZE, child);
    check_tags(from, FAR + PAGE_SIZE, 4 * PAGE_SIZE);
    CHECK_OK(move(FAR + PAGE_SIZE, from, 4 * PAGE_SIZE));
    /* A whole block, whose copy may be had as a whole, by parts or not at all. */
    fail_each(SHAPE_AT + shaped.bytes - level_size(1), FAR + level_size(2),
              TABLE_ENTRIES < 64 ? level_size(1) : 8 * PAGE_SIZE, child);
    shape_destroy(child);
    shape_drop();
    shape_check();
}

struct move_step {
    uint64_t copied;
};
static enum cleave_status step_move(struct mm_ctx *ctx, void *arg)
{
    struct move_step *step = arg;
    uint64_t copied;
    enum cleave_status status =
        space_move(ctx, shaped.space, gpa(SHAPE_AT), gpa(FAR), shaped.bytes, &copied);
    step->copied += copied;
    return status;
}

TEST_TABLE(is_preemptible_while_it_copies, shape_cases)
{
    struct move_step step = {0};
    enum cleave_status status;
    shape_start(4);
    shape_make(row->shape);
    struct space *child = shape_fork(shaped.space);
    uint64_t theirs = shape_sum(child);
    CHECK(host_run_preempted(shaped.ctx, step_move, &step, 0, &status) > 1);
    CHECK_OK(status);
    CHECK_EQ(step.copied, shaped.bytes / PAGE_SIZE);
    check_tags(SHAPE_AT, FAR, shaped.bytes);
    CHECK_EQ(shape_sum(child), theirs);
    shape_check();
}

/* --- Others meanwhile ------------------------------------------------------------------------- */

/* T-T1: another vcpu goes on writing where the memory was, with what its TLB still knows; what it
 * wrote is not lost, and nobody else's memory is hit. */
static void write_on(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b, void *arg)
{
    uint64_t *written = arg;
    (void)ctx, (void)a, (void)b;
    if (point == POINT_FLUSH) {
        uint64_t value = *written + 1;
        if (host_cpu_write(1, gpa(SHAPE_AT), &value, sizeof(value)) == CLEAVE_OK) {
            *written = value;
        }
    }
}

TEST_TABLE(writers_with_old_translations, shape_cases)
{
    uint64_t written = 0, value = 0;
    TEST_NEEDS_HOOKS();
    shape_start(4);
    shape_make(row->shape);
    if (shaped.fork != NULL) { /* the page is its own already */
        shape_write(shaped.space, SHAPE_AT, 0);
    }
    REQUIRE_OK(host_cpu_run(1, shaped.space));
    CHECK_OK(host_cpu_write(1, gpa(SHAPE_AT), &written, sizeof(written)));
    struct space *other;
    REQUIRE_OK(space_create(shaped.ctx, shaped.pool, UINT64_MAX, &other));
    const struct region region = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};

    host_on_point(write_on, &written);
    CHECK_OK(move(SHAPE_AT, FAR, 2 * PAGE_SIZE));
    host_on_point(NULL, NULL);
    CHECK(written > 0);
    CHECK_EQ(shape_read(shaped.space, FAR), written);
    host_tlb_check();
    CHECK_STATUS(host_cpu_write(1, gpa(SHAPE_AT), &value, sizeof(value)), CLEAVE_FAULT);
    REQUIRE_OK(space_map(shaped.ctx, other, gpa(0), 0, &region));
    CHECK_EQ(shape_read(other, 0), 0);
    shape_check();
}
