/* SPDX-License-Identifier: BSD-2-Clause */
/* Diff: what it reports is never less than what was written, and with `exact` just that. */
#include <stdlib.h>
#include <string.h>

#include "fork.h"
#include "host.h"
#include "shapes.h"
#include "test.h"

#define ROOM 64u

static struct gfn_range found[ROOM];
static unsigned count;
static uint64_t compared;

/* Collects all ranges of a diff made with `room` ranges and `budget` units at a time. */
static void diff_with(struct space *a, struct space *b, bool exact, unsigned room, uint64_t budget)
{
    struct gfn_range some[ROOM];
    struct diff diff = {
        .from = gfn(0), .end = gfn(GUEST_PAGES), .exact = exact, .found = some, .room = room};
    enum cleave_status status;
    gfn_t from = gfn(0);
    count = 0;
    compared = 0;
    do {
        shaped.ctx->budget = budget;
        status = space_diff(shaped.ctx, a, b, &diff);
        shaped.ctx->budget = UINT64_MAX;
        REQUIRE(status == CLEAVE_OK || status == CLEAVE_AGAIN);
        REQUIRE(status == CLEAVE_OK ? diff.from.v == GUEST_PAGES : diff.from.v > from.v);
        compared += diff.bytes_compared;
        for (unsigned i = 0; i < diff.count; i++) {
            CHECK(some[i].start.v < some[i].end.v);
            CHECK(some[i].start.v >= from.v && some[i].end.v <= diff.from.v);
            if (count > 0 && found[count - 1].end.v == some[i].start.v) {
                CHECK_EQ(i, 0); /* neighbours are merged within a call */
                found[count - 1].end = some[i].end;
            } else {
                REQUIRE(count < ROOM);
                found[count++] = some[i];
            }
        }
        from = diff.from;
    } while (status == CLEAVE_AGAIN);
    host_check_locks();
}

static uint64_t pages_found(void)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < count; i++) {
        pages += found[i].end.v - found[i].start.v;
    }
    return pages;
}

static bool reported(uint64_t at)
{
    for (unsigned i = 0; i < count; i++) {
        if (found[i].start.v <= at / PAGE_SIZE && at / PAGE_SIZE < found[i].end.v) {
            return true;
        }
    }
    return false;
}

/* The same in one call and in as many as there can be. */
static void diff(struct space *a, struct space *b, bool exact)
{
    struct gfn_range whole[ROOM];
    unsigned ranges;
    diff_with(b, a, exact, ROOM, UINT64_MAX);
    memcpy(whole, found, sizeof(whole));
    ranges = count;
    uint64_t bytes = compared;
    for (unsigned small = 0; small < 3; small++) {
        uint64_t budget = small == 0 ? UINT64_MAX : TABLE_ENTRIES < 64 ? small - 1 : 100 * small;
        diff_with(a, b, exact, 1, budget);
        REQUIRE_EQ(count, ranges);
        CHECK(memcmp(whole, found, ranges * sizeof(whole[0])) == 0);
        CHECK(compared >= bytes); /* a page without room is compared again */
    }
    compared = bytes;
}

TEST_TABLE(reports_what_was_written, shape_cases)
{
    static const uint64_t pages[] = {1, 2, 5};
    shape_start(6);
    shape_make(row->shape);
    struct space *child = shape_fork(shaped.space);
    diff(shaped.space, child, false);
    CHECK_EQ(count, 0);
    diff(shaped.space, shaped.space, true);
    CHECK_EQ(count, 0);
    for (unsigned i = 0; i < 3; i++) {
        shape_write(child, SHAPE_AT + pages[i] * PAGE_SIZE, 1000 + i);
    }
    diff(shaped.space, child, false);
    CHECK_EQ(pages_found(), 3);
    CHECK_EQ(count, 2);
    CHECK_EQ(compared, 0);
    for (unsigned i = 0; i < 3; i++) {
        CHECK(reported(SHAPE_AT + pages[i] * PAGE_SIZE));
    }
    /* Written with what it held: reported, but not exactly. */
    shape_write(child, SHAPE_AT + 3 * PAGE_SIZE, shape_tag(3));
    diff(shaped.space, child, false);
    CHECK_EQ(pages_found(), 4);
    diff(shaped.space, child, true);
    CHECK_EQ(pages_found(), 3);
    CHECK(!reported(SHAPE_AT + 3 * PAGE_SIZE));
    CHECK_EQ(compared, 4 * PAGE_SIZE);
    shape_check();
    if (shaped.fork != NULL) { /* the forks of one parent, of which the parent wrote half a block */
        diff(shaped.fork, child, false);
        CHECK(pages_found() >= 3);
        diff(shaped.fork, child, true);
        CHECK_EQ(pages_found(), 3);
    }
    shape_destroy(child);
    shape_drop();
    shape_check();
}

/* A leaf on one side and its parts on the other are compared part by part. */
TEST(parts_against_whole)
{
    shape_start(4);
    shape_make(SHAPE_GIGA);
    struct space *child = shape_fork(shaped.space);
    CHECK_OK(space_protect(shaped.ctx, child, gpa(SHAPE_AT), PAGE_SIZE, RIGHT_READ));
    shape_write(child, SHAPE_AT + PAGE_SIZE, 5); /* splits both sizes */
    CHECK_EQ(shape_level(child, SHAPE_AT), 0);
    CHECK_EQ(shape_level(shaped.space, SHAPE_AT), 2);
    diff(shaped.space, child, false);
    CHECK_EQ(count, 1);
    CHECK_EQ(pages_found(), 1);
    CHECK(reported(SHAPE_AT + PAGE_SIZE));
}

/* Whole-block copies are reported as blocks, and exactly by page. */
TEST(blocks_that_were_copied_whole)
{
    const struct region region = {
        .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1, .whole = true};
    shape_start(4);
    shape_make(SHAPE_BLOCK);
    uint64_t at = SHAPE_AT + level_size(2);
    REQUIRE_OK(space_map(shaped.ctx, shaped.space, gpa(at), 1, &region));
    struct space *child = shape_fork(shaped.space);
    shape_write(child, at + 2 * PAGE_SIZE, 5);
    CHECK_EQ(shape_level(child, at), 1);
    diff(shaped.space, child, false);
    CHECK_EQ(count, 1);
    CHECK_EQ(pages_found(), TABLE_ENTRIES);
    diff(shaped.space, child, true);
    CHECK_EQ(pages_found(), 1);
    CHECK(reported(at + 2 * PAGE_SIZE));
    CHECK_EQ(compared, level_size(1));
}

/* With what a space copies by page alone, a diff with a snapshot finds what was written since,
 * whatever else would be copied along: blocks, grains, and what a collapse lacks. */
TEST(pages_that_were_written)
{
    struct region region = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};
    const uint64_t half = TABLE_ENTRIES / 2, block = SHAPE_AT + level_size(2);
    const uint64_t whole = block + level_size(1);
    shape_start(4);
    shape_make(SHAPE_BLOCK);
    struct space *space = shaped.space, *snapshot;
    REQUIRE_OK(space_map(shaped.ctx, space, gpa(block), 1, &region));
    region.whole = true;
    REQUIRE_OK(space_map(shaped.ctx, space, gpa(whole), 1, &region));
    space->grain = 4;
    space_copy_by_page(shaped.ctx, space, true);
    REQUIRE_OK(space_snapshot(shaped.ctx, space, UINT64_MAX, &snapshot));
    shape_write(space, whole + 2 * PAGE_SIZE, 5);
    for (uint64_t i = 0; i <= half; i++) {
        shape_write(space, block + i * PAGE_SIZE, 6);
    }
    CHECK_STATUS(space_collapse(shaped.ctx, space, gpa(block), 1), CLEAVE_BUSY);
    diff(snapshot, space, false);
    CHECK_EQ(pages_found(), half + 2);
    CHECK(reported(whole + 2 * PAGE_SIZE) && reported(block + half * PAGE_SIZE));
    struct space *fork = shape_fork(space);
    CHECK(!fork->by_page);
    shape_destroy(fork);
    shape_destroy(snapshot);
    space_copy_by_page(shaped.ctx, space, false);
    CHECK_OK(space_collapse(shaped.ctx, space, gpa(block), 1));
    shape_check();
}

/* First touch: reported, but zeros are zeros. A hole is not what can never be filled. */
TEST(holes)
{
    const struct region region = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};
    uint64_t at = SHAPE_AT + level_size(2);
    shape_start(4);
    shape_make(SHAPE_PAGES);
    REQUIRE_OK(space_set_region(shaped.ctx, shaped.space, gpa(at), level_size(2), &region));
    struct space *child = shape_fork(shaped.space);
    CHECK_EQ(shape_read(child, at), 0);
    diff(shaped.space, child, false);
    CHECK_EQ(count, 0);
    CHECK_OK(space_fault(shaped.ctx, child, gpa(at), ACCESS_READ, NULL));
    diff(shaped.space, child, false);
    CHECK(reported(at));
    CHECK(pages_found() <= TABLE_ENTRIES);
    diff(shaped.space, child, true);
    CHECK_EQ(count, 0);
    shape_write(shaped.space, at + PAGE_SIZE, 1);
    diff(shaped.space, child, true);
    CHECK_EQ(pages_found(), 1);
    CHECK(reported(at + PAGE_SIZE));
    /* Removed on one side, though the page was never there. */
    uint64_t hole = at + level_size(2) - level_size(1);
    CHECK_OK(space_unmap(shaped.ctx, child, gpa(hole), 3 * PAGE_SIZE));
    for (unsigned exact = 0; exact < 2; exact++) {
        diff(shaped.space, child, exact != 0);
        CHECK(reported(hole) && reported(hole + 2 * PAGE_SIZE) && !reported(hole + 3 * PAGE_SIZE));
    }
    shape_check();
}

/* What a fork does not inherit differs; rights alone do not. */
TEST(policies_and_rights)
{
    const struct region parts[] = {
        {.policy = REGION_WIPE, .rights = RIGHT_ALL},
        {.policy = REGION_ABSENT, .rights = RIGHT_ALL},
        {.policy = REGION_SHARED, .rights = RIGHT_ALL},
    };
    uint64_t at = SHAPE_AT + level_size(2);
    shape_start(4);
    shape_make(SHAPE_PAGES);
    for (unsigned i = 0; i < 3; i++) {
        REQUIRE_OK(space_set_region(shaped.ctx, shaped.space, gpa(at + 2 * i * PAGE_SIZE),
                                    PAGE_SIZE, &parts[i]));
        shape_write(shaped.space, at + 2 * i * PAGE_SIZE, 1 + i);
    }
    struct space *child = shape_fork(shaped.space);
    CHECK_OK(space_protect(shaped.ctx, child, gpa(SHAPE_AT), shaped.bytes, RIGHT_READ));
    shape_write(child, at + 4 * PAGE_SIZE, 9);
    for (unsigned exact = 0; exact < 2; exact++) {
        diff(shaped.space, child, exact != 0);
        CHECK_EQ(count, 2);
        CHECK(reported(at) && reported(at + 2 * PAGE_SIZE));
    }
}

/* Snapshots, siblings and grandchildren of one family. */
TEST(families)
{
    struct space *snapshot, *stranger;
    shape_start(4);
    shape_make(SHAPE_BLOCK);
    REQUIRE_OK(space_snapshot(shaped.ctx, shaped.space, UINT64_MAX, &snapshot));
    struct space *a = shape_fork(snapshot), *b = shape_fork(snapshot);
    struct space *c = shape_fork(a);
    shape_write(a, SHAPE_AT + PAGE_SIZE, 1);
    shape_write(b, SHAPE_AT + 2 * PAGE_SIZE, 2);
    shape_write(c, SHAPE_AT + 3 * PAGE_SIZE, 3);
    diff(snapshot, a, false);
    CHECK_EQ(pages_found(), 1);
    diff(a, b, false);
    CHECK_EQ(pages_found(), 2);
    diff(b, c, true);
    CHECK_EQ(pages_found(), 2);
    diff(a, c, true);
    CHECK_EQ(pages_found(), 2);
    shape_check();

    struct pool *other = host_pool(8 * level_size(1));
    struct diff query = {.end = gfn(GUEST_PAGES), .found = found, .room = ROOM};
    REQUIRE_OK(space_create(shaped.ctx, other, UINT64_MAX, &stranger));
    CHECK_STATUS(space_diff(shaped.ctx, a, stranger, &query), CLEAVE_FAMILY);
    query.end = gfn(GUEST_PAGES + 1);
    CHECK_STATUS(space_diff(shaped.ctx, a, b, &query), CLEAVE_RANGE);
    query = (struct diff){.from = gfn(5), .end = gfn(4), .found = found, .room = ROOM};
    CHECK_STATUS(space_diff(shaped.ctx, a, b, &query), CLEAVE_RANGE);
    query = (struct diff){.end = gfn(4), .found = found, .room = 0};
    CHECK_STATUS(space_diff(shaped.ctx, a, b, &query), CLEAVE_COUNT);
    query = (struct diff){.from = gfn(4), .end = gfn(4), .found = found, .room = ROOM};
    CHECK_OK(space_diff(shaped.ctx, a, b, &query));
    CHECK_EQ(query.count, 0);
    host_check_locks();
}

/* Random writes on both sides of a fork: never less than what differs, exactly that when asked. */
TEST_TABLE(never_misses_a_write, shape_cases)
{
    uint64_t seed = test_seed();
    shape_start(4);
    shape_make(row->shape);
    struct space *child = shape_fork(shaped.space);
    uint64_t span = shaped.bytes / PAGE_SIZE;
    uint64_t pages[24];
    for (unsigned i = 0; i < 24; i++) {
        struct space *side = test_random(&seed) % 3 != 0 ? child : shaped.space;
        uint64_t value = test_random(&seed) % 2;
        pages[i] = test_random(&seed) % span;
        shape_write(side, SHAPE_AT + pages[i] * PAGE_SIZE, value);
    }
    for (unsigned exact = 0; exact < 2; exact++) {
        diff(shaped.space, child, exact != 0);
        for (unsigned i = 0; i < 24; i++) {
            uint64_t at = SHAPE_AT + pages[i] * PAGE_SIZE;
            bool differs = shape_read(shaped.space, at) != shape_read(child, at);
            CHECK(exact != 0 ? reported(at) == differs : reported(at) || !differs);
        }
    }
    shape_check();
}
