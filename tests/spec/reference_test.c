/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reference by itself: a few cases worked out by hand, and a test that the comparison with the
 * core notices every single change of the reference. What is wrong here would hide bugs elsewhere.
 */
#include "abstract.h"
#include "fork.h"
#include "host.h"
#include "reference.h"
#include "test.h"

#include <string.h>

#define PAGE 16u /* bytes of a page in the cases without a core */

static struct ref *world(void) { return ref_new(PAGE, PAGE, 256, 256, 2); }

static const struct ref_region writable = {REF_PRIVATE, REF_READ | REF_WRITE, 0};

static void set(struct ref *ref, unsigned space, uint64_t page, uint64_t pages,
                enum ref_policy policy)
{
    struct ref_region region = {policy, policy == REF_READ_ONLY ? REF_READ : 3, 0};
    CHECK_OK(ref_set_region(ref, space, page * PAGE, pages * PAGE, &region));
}

static enum cleave_status put(struct ref *ref, unsigned space, uint64_t page, char byte)
{
    char bytes[PAGE];
    uint64_t done;
    memset(bytes, byte, PAGE);
    return ref_write(ref, space, page * PAGE, bytes, PAGE, &done);
}

static char get(const struct ref *ref, unsigned space, uint64_t page)
{
    struct ref_page found = ref_page(ref, space, page);
    return (char)ref_bytes(ref, &found)[PAGE - 1];
}

/* One page of each policy, written before the fork and on both sides after it. */
TEST(fork_by_policy)
{
    static const struct {
        enum ref_policy policy;
        char child, parent_after, child_after; /* 0 where there is no memory, or zeros */
    } cases[] = {
        {REF_PRIVATE, 'a', 'p', 'c'},
        {REF_SHARED, 'a', 'c', 'c'},
        {REF_WIPE, 0, 'p', 'c'},
        {REF_ABSENT, 0, 'p', 0},
    };
    struct ref *ref = world();

    CHECK_OK(ref_create(ref, 0));
    for (unsigned i = 0; i < 4; i++) {
        set(ref, 0, i, 1, cases[i].policy);
        CHECK_OK(put(ref, 0, i, 'a'));
    }
    CHECK_OK(ref_fork(ref, 0, (unsigned[]){1}, 1, 8, false));
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQ(get(ref, 1, i), cases[i].child);
        CHECK_OK(put(ref, 0, i, 'p'));
        CHECK_STATUS(put(ref, 1, i, 'c'), cases[i].policy == REF_ABSENT ? CLEAVE_FAULT : CLEAVE_OK);
        CHECK_EQ(get(ref, 0, i), cases[i].parent_after);
        CHECK_EQ(get(ref, 1, i), cases[i].child_after);
    }
    CHECK_STATUS(ref_reset(ref, 1), CLEAVE_NO_BASE);
    ref_free(ref);
}

TEST(snapshot_and_reset)
{
    struct ref *ref = world();

    CHECK_OK(ref_create(ref, 0));
    set(ref, 0, 0, 4, REF_PRIVATE);
    CHECK_OK(put(ref, 0, 1, 'a'));
    CHECK_OK(ref_snapshot(ref, 0, 1));
    CHECK_STATUS(put(ref, 1, 1, 'x'), CLEAVE_FROZEN);
    CHECK_OK(ref_fork(ref, 1, (unsigned[]){2, 3}, 2, 8, false));
    CHECK_OK(put(ref, 2, 1, 'b'));
    CHECK_OK(ref_unmap(ref, 2, 2 * PAGE, PAGE));
    CHECK_EQ(ref_differs(ref, 2, 3, 1), REF_YES);
    ref_destroy_end(ref, 1); /* its forks keep what they go back to */
    CHECK_OK(ref_reset(ref, 2));
    CHECK_EQ(get(ref, 2, 1), 'a');
    CHECK_EQ(ref_page(ref, 2, 2).policy, REF_PRIVATE);
    CHECK_EQ(ref_differs(ref, 2, 3, 1), REF_NO);
    ref_free(ref);
}

TEST(move_and_alias)
{
    struct ref *ref = world();

    CHECK_OK(ref_create(ref, 0));
    CHECK_OK(ref_create(ref, 1));
    set(ref, 0, 0, 4, REF_PRIVATE);
    CHECK_OK(put(ref, 0, 3, 'a'));
    CHECK_STATUS(ref_move(ref, 0, 0, 2 * PAGE, 4 * PAGE), CLEAVE_OVERLAP);
    CHECK_OK(ref_move(ref, 0, 0, 8 * PAGE, 4 * PAGE));
    CHECK_EQ(get(ref, 0, 11), 'a');
    CHECK_EQ(ref_page(ref, 0, 3).policy, REF_NONE);
    CHECK_OK(ref_foreign_map(ref, 0, 11 * PAGE, 1, 5 * PAGE));
    CHECK_OK(put(ref, 1, 5, 'b'));
    CHECK_EQ(get(ref, 0, 11), 'b');
    CHECK_OK(put(ref, 0, 11, 'c'));
    CHECK_EQ(get(ref, 1, 5), 'c');
    CHECK_STATUS(ref_unmap(ref, 1, 5 * PAGE, PAGE), CLEAVE_BUSY);
    ref_free(ref);
}

TEST(refuses_and_changes_nothing)
{
    struct ref *ref = world();

    CHECK_OK(ref_create(ref, 0));
    CHECK_STATUS(ref_set_region(ref, 0, 1, PAGE, &writable), CLEAVE_ALIGN);
    CHECK_STATUS(ref_set_region(ref, 0, 0, PAGE + 1, &writable), CLEAVE_ALIGN);
    CHECK_STATUS(ref_set_region(ref, 0, 0, 0, &writable), CLEAVE_COUNT);
    CHECK_STATUS(ref_set_region(ref, 0, 2 * PAGE, UINT64_MAX - PAGE + 1, &writable), CLEAVE_WRAP);
    CHECK_STATUS(ref_set_region(ref, 0, 255 * PAGE, 2 * PAGE, &writable), CLEAVE_RANGE);
    CHECK_STATUS(ref_protect(ref, 0, 0, PAGE, REF_READ), CLEAVE_NOT_MAPPED);
    CHECK_STATUS(put(ref, 0, 0, 'a'), CLEAVE_FAULT);
    for (uint64_t p = 0; p < 256; p++) {
        CHECK_EQ(ref_page(ref, 0, p).policy, REF_NONE);
    }
    ref->commit = false;
    CHECK_OK(ref_set_region(ref, 0, 0, PAGE, &writable));
    CHECK_EQ(ref_page(ref, 0, 0).policy, REF_NONE);
    ref_free(ref);
}

/* --- The comparison --------------------------------------------------------------------------- */

/* Each changes the reference in one place, so that it is wrong about page `at`. */
static void flip_byte(struct ref *ref, uint64_t at)
{
    struct ref_page *page = ref_page_for_change(ref, 0, at);
    ref_bytes_for_change(ref, page)[ref->page_bytes - 1] ^= 1;
}
static void flip_rights(struct ref *ref, uint64_t at)
{
    ref_page_for_change(ref, 0, at)->rights ^= REF_EXEC;
}
static void take_write(struct ref *ref, uint64_t at)
{
    ref_page_for_change(ref, 0, at)->rights &= (uint8_t)~REF_WRITE;
}
static void change_policy(struct ref *ref, uint64_t at)
{
    ref_page_for_change(ref, 0, at)->policy = REF_WIPE;
}
static void forget_page(struct ref *ref, uint64_t at)
{
    ref_page_for_change(ref, 0, at)->policy = REF_NONE;
}
static void arm(struct ref *ref, uint64_t at)
{
    ref->channel[0] = true;
    ref_page_for_change(ref, 0, at)->channel = 1;
    ref_page_for_change(ref, 0, at)->armed = true;
}
static void swap_with_next(struct ref *ref, uint64_t at)
{
    struct ref_cell **one = &ref_page_for_change(ref, 0, at)->cell;
    struct ref_cell **two = &ref_page_for_change(ref, 0, at + 1)->cell;
    struct ref_cell *kept = *one;
    *one = *two;
    *two = kept;
}

static const struct mutation {
    const char *label;
    void (*change)(struct ref *ref, uint64_t at);
} mutations[] = {{"flip byte", flip_byte},          {"flip rights", flip_rights},
                 {"take write", take_write},        {"change policy", change_policy},
                 {"forget page", forget_page},      {"arm", arm},
                 {"swap with next", swap_with_next}};

/* Eight pages: written ones, holes, and a fork of them. */
TEST_TABLE(comparison_notices, mutations)
{
    char text[ABS_TEXT];
    struct space *space;
    struct region region = {.policy = REGION_PRIVATE, .rights = RIGHT_READ | RIGHT_WRITE};
    struct ref *ref = ref_new(PAGE_SIZE, 64, GUEST_PAGES, 256, LEVEL_BITS);
    uint64_t done;

    host_start(&(struct host_options){.frames = 64 * level_pages(1)});
    struct pool *pool = host_pool(32 * level_size(1));
    REQUIRE_OK(space_create(host_ctx(0), pool, UINT64_MAX, &space));
    REQUIRE_OK(space_set_region(host_ctx(0), space, gpa(0), 8 * PAGE_SIZE, &region));
    CHECK_OK(ref_create(ref, 0));
    CHECK_OK(ref_set_region(ref, 0, 0, 8 * PAGE_SIZE, &writable));
    for (uint64_t p = 0; p < 6; p++) {
        char bytes[64];
        memset(bytes, 'a' + (int)p, sizeof(bytes));
        REQUIRE_OK(space_write(host_ctx(0), space, gpa(p * PAGE_SIZE), bytes, 64, NULL, &done));
        CHECK_OK(ref_write(ref, 0, p * PAGE_SIZE, bytes, 64, &done));
    }
    CHECK(abs_compare(ref, 0, space, 0, 256, text));
    row->change(ref, 3);
    CHECK(!abs_compare(ref, 0, space, 0, 256, text));
    CHECK(!abs_compare(ref, 0, space, 3, 4, text));
    if (strcmp(row->label, "swap with next") != 0) {
        CHECK(abs_compare(ref, 0, space, 0, 3, text));
        CHECK(abs_compare(ref, 0, space, 4, 256, text));
    }
    ref_free(ref);
    host_stop();
}
