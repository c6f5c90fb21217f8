/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pins: what a device sees while guests write, unmap and fork. The cases are those of Linux's
 * tools/testing/selftests/mm/cow.c, once for each shape of memory.
 */
#include "pin.h"

#include <string.h>

#include "fork.h"
#include "host.h"
#include "shapes.h"
#include "test.h"

#define PAGE_A (SHAPE_AT + PAGE_SIZE) /* a tagged page */
#define NEW_VALUE UINT64_C(0x1234567890abcdef)

/* What a device sees at page `at` of a pin. */
static uint64_t pin_read(struct space *space, uint32_t id, uint64_t at)
{
    uint64_t value = 0;
    pfn_t f = PFN_NONE;
    if (CHECK_OK(space_pinned_frame(shaped.ctx, space, id, gpa(at), &f))) {
        memcpy(&value, frame_address(f), sizeof(value));
    }
    return value;
}

static void pin_write(struct space *space, uint32_t id, uint64_t at, uint64_t value)
{
    pfn_t f = PFN_NONE;
    if (CHECK_OK(space_pinned_frame(shaped.ctx, space, id, gpa(at), &f))) {
        memcpy(frame_address(f), &value, sizeof(value));
    }
}

static uint32_t pin(struct space *space, uint64_t at, uint64_t size, bool write)
{
    uint32_t id = 0;
    enum cleave_status status;
    do {
        status = space_pin(shaped.ctx, space, gpa(at), size, write, &id);
    } while (status == CLEAVE_AGAIN);
    REQUIRE_OK(status);
    CHECK_NE(id, 0);
    shape_check();
    return id;
}

static void unpin(struct space *space, uint32_t id)
{
    CHECK_OK(space_unpin(shaped.ctx, space, id));
    shape_check();
}

/* --- The cases -------------------------------------------------------------------------------- */

/* C3, C4: the child pins for reading, unmaps, the parent writes: the pin shows the old bytes. */
static void child_pins_and_unmaps(bool toggle)
{
    struct space *child = shape_fork(shaped.space);
    uint32_t id = pin(child, PAGE_A, PAGE_SIZE, false);
    CHECK_OK(space_unmap(shaped.ctx, child, gpa(PAGE_A), PAGE_SIZE));
    if (toggle) {
        CHECK_OK(space_protect(shaped.ctx, shaped.space, gpa(SHAPE_AT), shaped.bytes, RIGHT_READ));
        CHECK_OK(space_protect(shaped.ctx, shaped.space, gpa(SHAPE_AT), shaped.bytes, RIGHT_ALL));
    }
    shape_write(shaped.space, PAGE_A, NEW_VALUE);
    CHECK_EQ(pin_read(child, id, PAGE_A), shape_tag(1));
    CHECK_EQ(shape_read(shaped.space, PAGE_A), NEW_VALUE);
    shape_check();
    unpin(child, id);
    shape_destroy(child);
}

static void c3(void) { child_pins_and_unmaps(false); }
static void c4(void) { child_pins_and_unmaps(true); }

/* C5, C6: the owner pins before or after the fork and unmaps, the child writes: the pin is
 * unchanged. */
static void owner_unmaps(bool before)
{
    uint32_t id = before ? pin(shaped.space, PAGE_A, PAGE_SIZE, false) : 0;
    struct space *child = shape_fork(shaped.space);
    id = before ? id : pin(shaped.space, PAGE_A, PAGE_SIZE, false);
    CHECK_OK(space_unmap(shaped.ctx, shaped.space, gpa(PAGE_A), PAGE_SIZE));
    shape_write(child, PAGE_A, NEW_VALUE);
    CHECK_EQ(pin_read(shaped.space, id, PAGE_A), shape_tag(1));
    CHECK_EQ(shape_read(child, PAGE_A), NEW_VALUE);
    shape_check();
    unpin(shaped.space, id);
    shape_destroy(child);
}

static void c5(void) { owner_unmaps(true); }
static void c6(void) { owner_unmaps(false); }

/* C7: pinned for writing, then made read-only and writable again: writes on both sides are seen. */
static void c7(void)
{
    uint32_t id = pin(shaped.space, PAGE_A, PAGE_SIZE, true);
    CHECK_OK(space_protect(shaped.ctx, shaped.space, gpa(PAGE_A), PAGE_SIZE, RIGHT_READ));
    pin_write(shaped.space, id, PAGE_A, 1);
    CHECK_EQ(shape_read(shaped.space, PAGE_A), 1);
    CHECK_OK(space_protect(shaped.ctx, shaped.space, gpa(PAGE_A), PAGE_SIZE, RIGHT_ALL));
    shape_write(shaped.space, PAGE_A, NEW_VALUE);
    CHECK_EQ(pin_read(shaped.space, id, PAGE_A), NEW_VALUE);
    pin_write(shaped.space, id, PAGE_A, 2);
    CHECK_EQ(shape_read(shaped.space, PAGE_A), 2);
    unpin(shaped.space, id);
}

/* C8, T-C6: pinned for writing, then forked: the pinned page is not shared, writes are seen through
 * the pin and not by the child. */
static void c8(void)
{
    uint32_t id = pin(shaped.space, PAGE_A, PAGE_SIZE, true);
    uint64_t copies = shaped.space->stats.fork_copies;
    struct space *child = shape_fork(shaped.space);
    shape_check();
    CHECK_EQ(shaped.space->stats.fork_copies - copies, 1);
    pin_write(shaped.space, id, PAGE_A, 1);
    CHECK_EQ(shape_read(child, PAGE_A), shape_tag(1));
    CHECK_EQ(shape_read(shaped.space, PAGE_A), 1);
    shape_write(shaped.space, PAGE_A, NEW_VALUE);
    CHECK_EQ(pin_read(shaped.space, id, PAGE_A), NEW_VALUE);
    shape_write(child, PAGE_A, 3);
    CHECK_EQ(pin_read(shaped.space, id, PAGE_A), NEW_VALUE);
    CHECK_EQ(shape_read(shaped.space, PAGE_A + PAGE_SIZE), shape_tag(2));
    CHECK_EQ(shape_read(child, PAGE_A + PAGE_SIZE), shape_tag(2));
    shape_check();
    unpin(shaped.space, id);
    shape_destroy(child);
}

/* C9, C10: a pin for reading on a shared page breaks the sharing: later writes are seen. */
static void c9(void)
{
    struct space *child = shape_fork(shaped.space);
    for (unsigned i = 0; i < 2; i++) {
        struct space *owner = i == 0 ? child : shaped.space;
        struct space *other = i == 0 ? shaped.space : child;
        uint64_t theirs = shape_read(other, PAGE_A);
        uint32_t id = pin(owner, PAGE_A, PAGE_SIZE, false);
        shape_write(owner, PAGE_A, NEW_VALUE + i);
        CHECK_EQ(pin_read(owner, id, PAGE_A), NEW_VALUE + i);
        CHECK_EQ(shape_read(other, PAGE_A), theirs);
        shape_check();
        unpin(owner, id);
    }
    shape_destroy(child);
}

/* The same where a write is not allowed, and allowed later. */
static void c10(void)
{
    CHECK_OK(space_protect(shaped.ctx, shaped.space, gpa(PAGE_A), PAGE_SIZE, RIGHT_READ));
    struct space *child = shape_fork(shaped.space);
    uint32_t id = pin(shaped.space, PAGE_A, PAGE_SIZE, false);
    CHECK_OK(space_protect(shaped.ctx, shaped.space, gpa(PAGE_A), PAGE_SIZE, RIGHT_ALL));
    shape_write(shaped.space, PAGE_A, NEW_VALUE);
    CHECK_EQ(pin_read(shaped.space, id, PAGE_A), NEW_VALUE);
    CHECK_EQ(shape_read(child, PAGE_A), shape_tag(1));
    shape_check();
    unpin(shaped.space, id);
    shape_destroy(child);
}

/* C11, C12: the page was shared with a child that is gone. */
static void c11(void)
{
    shape_destroy(shape_fork(shaped.space));
    uint32_t id = pin(shaped.space, PAGE_A, PAGE_SIZE, false);
    shape_write(shaped.space, PAGE_A, NEW_VALUE);
    CHECK_EQ(pin_read(shaped.space, id, PAGE_A), NEW_VALUE);
    unpin(shaped.space, id);
}

/* C13, C14: read-only and exclusive. */
static void c13(void)
{
    CHECK_OK(space_protect(shaped.ctx, shaped.space, gpa(PAGE_A), PAGE_SIZE, RIGHT_READ));
    uint32_t id = pin(shaped.space, PAGE_A, PAGE_SIZE, false);
    uint32_t refused;
    CHECK_STATUS(space_pin(shaped.ctx, shaped.space, gpa(PAGE_A), PAGE_SIZE, true, &refused),
                 CLEAVE_FAULT);
    CHECK_OK(space_protect(shaped.ctx, shaped.space, gpa(PAGE_A), PAGE_SIZE, RIGHT_ALL));
    shape_write(shaped.space, PAGE_A, NEW_VALUE);
    CHECK_EQ(pin_read(shaped.space, id, PAGE_A), NEW_VALUE);
    unpin(shaped.space, id);
}

/* Everything pinned, then forked: each page on its own, both sides intact. */
static void whole(void)
{
    uint64_t size =
        shaped.bytes > 2 * level_size(1) && TABLE_ENTRIES > 64 ? 2 * level_size(1) : shaped.bytes;
    uint32_t id = 0;
    enum cleave_status status;
    do {
        status = space_pin(shaped.ctx, shaped.space, gpa(SHAPE_AT), size, true, &id);
    } while (status == CLEAVE_AGAIN);
    if (status == CLEAVE_COUNT) { /* scattered pages: more than one space can have */
        CHECK_EQ(shaped.space->attachment_count, 0);
        CHECK(shaped.space->attachments == NULL);
        shape_check();
        return;
    }
    REQUIRE_OK(status);
    struct space *child = shape_fork(shaped.space);
    shape_check();
    for (uint64_t page = 0; page < size / PAGE_SIZE; page++) {
        if (shape_tagged(page)) {
            uint64_t at = SHAPE_AT + page * PAGE_SIZE;
            shape_write(shaped.space, at, page);
            CHECK_EQ(pin_read(shaped.space, id, at), page);
            CHECK_EQ(shape_read(child, at), shape_tag(page));
        }
    }
    shape_check();
    unpin(shaped.space, id);
    CHECK_EQ(shaped.space->attachment_count, 0);
    shape_destroy(child);
}

static const struct pin_case {
    const char *label;
    void (*run)(void);
} cases[] = {{"C3", c3}, {"C4", c4},   {"C5", c5},   {"C6", c6},   {"C7", c7},      {"C8", c8},
             {"C9", c9}, {"C10", c10}, {"C11", c11}, {"C13", c13}, {"whole", whole}};

TEST_TABLE(cow_cases, shape_cases)
{
    shape_start(4);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_case("%s", cases[i].label);
        shape_make(row->shape);
        uint64_t others = shaped.fork != NULL ? shape_sum(shaped.fork) : 0;
        cases[i].run();
        CHECK_EQ(shaped.fork != NULL ? shape_sum(shaped.fork) : 0, others);
        shape_drop();
        shape_check();
    }
}

/* --- Arguments and limits --------------------------------------------------------------------- */

TEST(refuses_bad_arguments)
{
    const uint64_t width = UINT64_C(1) << GUEST_BITS;
    const struct {
        const char *label;
        uint64_t at, size;
        enum cleave_status status;
    } bad[] = {
        {"size 0", SHAPE_AT, 0, CLEAVE_COUNT},
        {"unaligned address", SHAPE_AT + 1, PAGE_SIZE, CLEAVE_ALIGN},
        {"unaligned size", SHAPE_AT, PAGE_SIZE + 1, CLEAVE_ALIGN},
        {"wraps", SHAPE_AT, UINT64_MAX - PAGE_SIZE + 1, CLEAVE_WRAP},
        {"past the width", width, PAGE_SIZE, CLEAVE_RANGE},
        {"ends past the width", width - PAGE_SIZE, 2 * PAGE_SIZE, CLEAVE_RANGE},
        {"no memory", SHAPE_AT - PAGE_SIZE, PAGE_SIZE, CLEAVE_FAULT},
        {"no memory at the end", SHAPE_AT, shaped.bytes, CLEAVE_FAULT},
    };
    shape_start(4);
    shape_make(SHAPE_BLOCK);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t size =
            i + 1 == sizeof(bad) / sizeof(bad[0]) ? shaped.bytes + PAGE_SIZE : bad[i].size;
        uint64_t before = shape_sum(shaped.space);
        uint32_t id = 77;
        pfn_t f;
        test_case("%s", bad[i].label);
        for (unsigned write = 0; write < 2; write++) {
            CHECK_STATUS(space_pin(shaped.ctx, shaped.space, gpa(bad[i].at), size, write != 0, &id),
                         bad[i].status);
            CHECK_EQ(shaped.ctx->error.status, bad[i].status);
            CHECK(shaped.ctx->error.argument != NULL);
        }
        CHECK_EQ(id, 77);
        CHECK_STATUS(space_unpin(shaped.ctx, shaped.space, id), CLEAVE_INVALID);
        CHECK_STATUS(space_pinned_frame(shaped.ctx, shaped.space, id, gpa(SHAPE_AT), &f),
                     CLEAVE_INVALID);
        CHECK_EQ(shape_sum(shaped.space), before);
        shape_check();
    }
}

TEST(refuses_snapshots_and_the_dying)
{
    struct space *snapshot;
    uint32_t id = 0;
    shape_start(4);
    shape_make(SHAPE_BLOCK);
    REQUIRE_OK(space_snapshot(shaped.ctx, shaped.space, UINT64_MAX, &snapshot));
    CHECK_STATUS(space_pin(shaped.ctx, snapshot, gpa(SHAPE_AT), PAGE_SIZE, false, &id),
                 CLEAVE_FROZEN);
    id = pin(shaped.space, SHAPE_AT, PAGE_SIZE, false);
    /* A pin is in the way of destroying, which goes on once it is gone. */
    for (unsigned i = 0; i < 2; i++) {
        CHECK_STATUS(space_destroy(shaped.ctx, shaped.space), CLEAVE_BUSY);
        CHECK_EQ(shaped.ctx->error.value, id);
    }
    uint32_t other;
    CHECK_STATUS(space_pin(shaped.ctx, shaped.space, gpa(SHAPE_AT), PAGE_SIZE, false, &other),
                 CLEAVE_DYING);
    CHECK_EQ(pin_read(shaped.space, id, SHAPE_AT), shape_tag(0));
    CHECK_OK(space_unpin(shaped.ctx, shaped.space, id));
    CHECK_STATUS(space_unpin(shaped.ctx, shaped.space, id), CLEAVE_INVALID);
    shape_destroy(shaped.space);
    shape_destroy(snapshot);
    shape_check();
}

/* A stale id hits nothing, and each pin is one's own. */
TEST(pins_of_one_page_are_apart)
{
    shape_start(4);
    shape_make(SHAPE_PAGES);
    uint32_t a = pin(shaped.space, PAGE_A, PAGE_SIZE, true);
    uint32_t b = pin(shaped.space, SHAPE_AT, 4 * PAGE_SIZE, false);
    CHECK_NE(a, b);
    shape_write(shaped.space, PAGE_A, NEW_VALUE);
    CHECK_EQ(pin_read(shaped.space, a, PAGE_A), NEW_VALUE);
    CHECK_EQ(pin_read(shaped.space, b, PAGE_A), NEW_VALUE);
    unpin(shaped.space, a);
    CHECK_STATUS(space_unpin(shaped.ctx, shaped.space, a), CLEAVE_INVALID);
    struct space *child = shape_fork(shaped.space);
    shape_write(shaped.space, PAGE_A, 5);
    CHECK_EQ(pin_read(shaped.space, b, PAGE_A), 5);
    CHECK_EQ(shape_read(child, PAGE_A), NEW_VALUE);
    unpin(shaped.space, b);
    CHECK(shaped.space->attachments == NULL);
    shape_check();
}

TEST(a_space_has_so_many_pins)
{
    uint32_t ids[PAGE_SIZE / sizeof(struct attachment)];
    const unsigned room = sizeof(ids) / sizeof(ids[0]);
    uint32_t more;
    shape_start(4);
    shape_make(SHAPE_BLOCK);
    for (unsigned i = 0; i < room; i++) {
        REQUIRE_OK(
            space_pin(shaped.ctx, shaped.space, gpa(SHAPE_AT), PAGE_SIZE, i % 2 != 0, &ids[i]));
    }
    CHECK_STATUS(space_pin(shaped.ctx, shaped.space, gpa(SHAPE_AT), PAGE_SIZE, true, &more),
                 CLEAVE_COUNT);
    shape_check();
    for (unsigned i = 0; i < room; i++) {
        CHECK_OK(space_unpin(shaped.ctx, shaped.space, ids[i]));
    }
    CHECK(shaped.space->attachments == NULL);
    shape_check();
}

/* First touch, and shared regions, whose frames a fork keeps sharing. */
TEST(pins_fill_holes_and_share_regions)
{
    const struct region hole = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};
    const struct region shared = {.policy = REGION_SHARED, .rights = RIGHT_ALL, .order = 1};
    uint64_t far = SHAPE_AT + level_size(2);
    shape_start(4);
    shape_make(SHAPE_PAGES);
    REQUIRE_OK(space_set_region(shaped.ctx, shaped.space, gpa(far), 2 * PAGE_SIZE, &hole));
    uint32_t id = pin(shaped.space, far, 2 * PAGE_SIZE, false);
    CHECK_EQ(pin_read(shaped.space, id, far), 0);
    shape_write(shaped.space, far + PAGE_SIZE, 9);
    CHECK_EQ(pin_read(shaped.space, id, far + PAGE_SIZE), 9);

    far += level_size(1);
    REQUIRE_OK(space_set_region(shaped.ctx, shaped.space, gpa(far), level_size(1), &shared));
    uint32_t dma = pin(shaped.space, far, level_size(1), true);
    struct space *child = shape_fork(shaped.space);
    pin_write(shaped.space, dma, far + PAGE_SIZE, 3);
    CHECK_EQ(shape_read(child, far + PAGE_SIZE), 3);
    shape_write(child, far, 4);
    CHECK_EQ(pin_read(shaped.space, dma, far), 4);
    CHECK_EQ(shape_level(shaped.space, far), 1);
    shape_check();
    unpin(shaped.space, dma);
    unpin(shaped.space, id);
    shape_destroy(child);
}

/* --- Failures --------------------------------------------------------------------------------- */

/* Every allocation of a pin fails in turn; nothing is pinned, and what guests see stays. */
TEST_TABLE(survives_failing_allocations, shape_cases)
{
    shape_start(4);
    shape_make(row->shape);
    struct space *child = shape_fork(shaped.space);
    CHECK_OK(space_protect(shaped.ctx, shaped.space, gpa(SHAPE_AT), PAGE_SIZE, RIGHT_READ));
    uint64_t before = shape_sum(shaped.space), theirs = shape_sum(child);
    enum cleave_status status = CLEAVE_NO_MEMORY;
    uint32_t id = 0;
    uint64_t k;
    for (k = 1; status == CLEAVE_NO_MEMORY; k++) {
        test_case("allocation %u", (unsigned)k);
        host_fail_allocation(k);
        status = space_pin(shaped.ctx, shaped.space, gpa(SHAPE_AT), 3 * PAGE_SIZE, false, &id);
        bool failed = host_allocation_failed();
        host_fail_allocation(0);
        if (status != CLEAVE_OK) {
            CHECK(failed);
            CHECK_EQ(shaped.space->attachment_count, 0);
            CHECK(shaped.space->attachments == NULL);
        }
        CHECK_EQ(shape_sum(shaped.space), before);
        CHECK_EQ(shape_sum(child), theirs);
        shape_check();
    }
    CHECK_OK(status);
    CHECK(k > 2);
    unpin(shaped.space, id);
    shape_destroy(child);
    shape_drop();
    shape_check();
}

/* The same for a fork of a space with pins. */
TEST_TABLE(fork_survives_failing_allocations, shape_cases)
{
    struct fork_options options = {.limit = UINT64_MAX};
    struct space *child = NULL;
    shape_start(4);
    shape_make(row->shape);
    uint32_t id = pin(shaped.space, SHAPE_AT, 3 * PAGE_SIZE, true);
    uint64_t before = shape_sum(shaped.space);
    enum cleave_status status = CLEAVE_NO_MEMORY;
    uint64_t k;
    for (k = 1; status == CLEAVE_NO_MEMORY; k++) {
        test_case("allocation %u", (unsigned)k);
        host_fail_allocation(k);
        status = space_fork(shaped.ctx, shaped.space, 1, &options, &child);
        host_fail_allocation(0);
        CHECK_EQ(shape_sum(shaped.space), before);
        shape_check();
    }
    REQUIRE_OK(status);
    CHECK(k > 4);
    CHECK_EQ(shape_sum(child), before);
    pin_write(shaped.space, id, PAGE_A, 1);
    CHECK_EQ(shape_sum(child), before);
    CHECK_EQ(shape_read(shaped.space, PAGE_A), 1);
    unpin(shaped.space, id);
    shape_destroy(child);
    shape_drop();
    shape_check();
}

/* A pin of many shared pages stops when its budget is gone and goes on. */
struct pin_step {
    uint32_t id;
};
static enum cleave_status step_pin(struct mm_ctx *ctx, void *arg)
{
    struct pin_step *step = arg;
    return space_pin(ctx, shaped.space, gpa(SHAPE_AT), 6 * PAGE_SIZE, false, &step->id);
}

TEST(is_preemptible)
{
    struct pin_step step = {0};
    enum cleave_status status;
    shape_start(4);
    shape_make(SHAPE_BLOCK);
    struct space *child = shape_fork(shaped.space);
    CHECK_OK(space_protect(shaped.ctx, shaped.space, gpa(SHAPE_AT), shaped.bytes, RIGHT_READ));
    CHECK(host_run_preempted(shaped.ctx, step_pin, &step, 1, &status) > 2);
    CHECK_OK(status);
    CHECK_EQ(pin_read(shaped.space, step.id, PAGE_A), shape_tag(1));
    shape_check();
    unpin(shaped.space, step.id);
    shape_destroy(child);
}
