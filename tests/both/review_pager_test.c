/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Errors that a review found around pagers and waiting, one test each: what a caller, a guest or
 * another CPU had to do at the wrong moment, and what must come of it.
 */
#include <string.h>

#include "pager.h"
#include "scene.h"

#define WINDOWS (2 * GIGA) /* of pagers, in the control space */
#define WAITS 32u

static const struct region paged = {.policy = REGION_PAGED, .rights = RIGHT_READ | RIGHT_WRITE};
static struct space *control, *space;
static struct vcpu_wait waits[WAITS];

static struct pager *new_pager(unsigned window)
{
    struct pager *pager = NULL;
    uint64_t page = WINDOWS + window * PAGER_LOADS * BLOCK;
    REQUIRE_OK(pager_create(scene.ctx, scene.pool, control, PAGE(page), &pager));
    return pager;
}

static void start(void)
{
    scene_start(0);
    control = scene_space();
    space = scene_space();
    for (unsigned i = 0; i < WAITS; i++) {
        waits[i] = (struct vcpu_wait){.vcpu = i};
    }
}

static void map(struct space *in, uint64_t page, uint64_t pages, struct pager *pager,
                uint64_t offset)
{
    REQUIRE_OK(
        space_map_paged(scene.ctx, in, PAGE(page), BYTES(pages), pager, 0, 1, offset, &paged));
}

static struct load_request take(struct pager *pager)
{
    struct load_request request = {.id = 0};
    bool found = false;
    REQUIRE_OK(pager_next(scene.ctx, pager, &request, &found));
    REQUIRE(found);
    return request;
}

/* The pager fills what it has taken with a page of this tag. */
static void fill(const struct load_request *request, uint64_t tag)
{
    scene_write(control, request->window.v >> PAGE_SHIFT, tag);
}

static void wait_for(struct space *in, uint64_t page, enum access access, unsigned wait)
{
    REQUIRE_EQ(space_fault(scene.ctx, in, PAGE(page), access, &waits[wait]), CLEAVE_WAIT);
}

/* --- Two pagers ------------------------------------------------------------------------------- */

/* A page is unmapped while one pager fills it, and mapped again as the same page of the other's
 * store: what the first one brings is not for it. */
TEST(a_load_is_not_for_another_pagers_page)
{
    start();
    struct pager *first = new_pager(0), *second = new_pager(1);
    map(space, 0, 1, first, 7);
    wait_for(space, 0, ACCESS_READ, 0);
    struct load_request late = take(first);
    fill(&late, 1);
    REQUIRE_OK(space_unmap(scene.ctx, space, PAGE(0), BYTES(1)));
    map(space, 0, 1, second, 7);
    REQUIRE_OK(pager_done(scene.ctx, first, late.id, true));
    CHECK_EQ(scene_lookup(space, 0).kind, PTE_KIND_PAGED);
    wait_for(space, 0, ACCESS_READ, 0);
    struct load_request request = take(second);
    fill(&request, 2);
    REQUIRE_OK(pager_done(scene.ctx, second, request.id, true));
    scene_check(space, 0, 2);
    REQUIRE_OK(pager_destroy(scene.ctx, first));
    REQUIRE_OK(pager_destroy(scene.ctx, second));
    scene_end();
}

/* Two spaces have one page of two pagers' stores in the same place: that is not the same memory. */
TEST(diff_tells_pagers_apart)
{
    struct gfn_range found[4];
    start();
    struct pager *first = new_pager(0), *second = new_pager(1);
    map(space, 0, BLOCK, first, 7);
    struct space *fork = scene_fork(scene_snapshot(space));
    struct diff diff = {.end = gfn(BLOCK), .found = found, .room = 4};
    REQUIRE_OK(space_diff(scene.ctx, space, fork, &diff));
    CHECK_EQ(diff.count, 0);
    REQUIRE_OK(space_unmap(scene.ctx, fork, PAGE(1), BYTES(1)));
    map(fork, 1, 1, second, 8);
    diff.from = gfn(0);
    REQUIRE_OK(space_diff(scene.ctx, space, fork, &diff));
    if (CHECK_EQ(diff.count, 1)) {
        CHECK_EQ(found[0].start.v, 1);
        CHECK_EQ(found[0].end.v, 2);
    }
    REQUIRE_OK(pager_destroy(scene.ctx, first));
    REQUIRE_OK(pager_destroy(scene.ctx, second));
    scene_end();
}

/* --- Who waits when a space goes ---------------------------------------------------------------
 */

/* The pager has taken the load, and perhaps died: nobody of a space that is gone waits for it. */
TEST(a_space_that_goes_waits_for_no_load)
{
    start();
    struct pager *pager = new_pager(0);
    map(space, 0, 1, pager, 0);
    wait_for(space, 0, ACCESS_READ, 0);
    struct load_request request = take(pager);
    REQUIRE_OK(space_destroy(scene.ctx, space));
    CHECK_EQ(waits[0].kind, WAIT_NONE);
    REQUIRE_OK(pager_done(scene.ctx, pager, request.id, true));
    REQUIRE_OK(pager_destroy(scene.ctx, pager));
    scene_end();
}

/* The same where the load fills the entry of the space's base, and others wait for it too. */
TEST(a_fork_that_goes_waits_for_no_load_of_its_base)
{
    start();
    struct pager *pager = new_pager(0);
    map(space, 0, 1, pager, 0);
    struct space *base = scene_snapshot(space), *fork = scene_fork(base), *other = scene_fork(base);
    wait_for(fork, 0, ACCESS_READ, 0);
    wait_for(other, 0, ACCESS_READ, 1);
    struct load_request request = take(pager);
    fill(&request, 5);
    REQUIRE_OK(space_destroy(scene.ctx, fork));
    CHECK_EQ(waits[0].kind, WAIT_NONE);
    CHECK_EQ(waits[1].kind, WAIT_LOAD);
    REQUIRE_OK(pager_done(scene.ctx, pager, request.id, true));
    CHECK_EQ(waits[1].kind, WAIT_NONE);
    scene_check(other, 0, 5);
    REQUIRE_OK(pager_destroy(scene.ctx, pager));
    scene_end();
}

/* The same where all loads are taken, and it waits for one to become free. */
TEST(a_space_that_goes_waits_for_no_free_load)
{
    start();
    struct pager *pager = new_pager(0);
    struct space *late = scene_space();
    map(space, 0, PAGER_LOADS, pager, 0);
    map(late, 0, 1, pager, 100);
    for (unsigned i = 0; i < PAGER_LOADS; i++) {
        wait_for(space, i, ACCESS_READ, i);
    }
    wait_for(late, 0, ACCESS_READ, PAGER_LOADS);
    REQUIRE_OK(space_destroy(scene.ctx, late));
    CHECK_EQ(waits[PAGER_LOADS].kind, WAIT_NONE);
    CHECK_EQ(waits[0].kind, WAIT_LOAD);
    REQUIRE_OK(pager_destroy(scene.ctx, pager));
    scene_end();
}

/* --- Memory that comes back ---------------------------------------------------------------------
 */

/* A pager's window drops a table that it no longer needs: that frame is enough for who waits. */
TEST(a_dropped_table_wakes_who_waits_for_memory)
{
    start();
    struct pager *pager = new_pager(0);
    map(space, 0, 1, pager, 0);
    REQUIRE_OK(
        space_map_paged(scene.ctx, space, PAGE(GIGA), BYTES(BLOCK), pager, 1, 1, 100, &paged));
    scene_memory(space, 2 * GIGA, 1, 0);
    scene_region(space, 2 * GIGA + 1, 1, REGION_PRIVATE, RIGHT_ALL, 0);
    wait_for(space, 0, ACCESS_READ, 0);
    struct load_request request = take(pager); /* of a page: its slot of the window has a table */
    fill(&request, 1);
    REQUIRE_OK(pager_done(scene.ctx, pager, request.id, true));
    wait_for(space, GIGA, ACCESS_READ, 0); /* of a block, in the same slot */
    scene_drain(0);
    wait_for(space, 2 * GIGA + 1, ACCESS_WRITE, 1);
    REQUIRE_EQ(waits[1].kind, WAIT_MEMORY);
    request = take(pager);
    CHECK_EQ(waits[1].kind, WAIT_NONE);
    CHECK_OK(space_fault(scene.ctx, space, PAGE(2 * GIGA + 1), ACCESS_WRITE, &waits[1]));
    REQUIRE_OK(pager_done(scene.ctx, pager, request.id, true));
    REQUIRE_OK(pager_destroy(scene.ctx, pager));
    scene_give_back(UINT64_MAX);
    scene_end();
}

static struct {
    struct space *space;
    bool done;
} rival;

static void ask_first(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b, void *arg)
{
    (void)a, (void)b, (void)arg;
    if (point == POINT_COPIED && ctx->cpu == 1 && !rival.done) {
        rival.done = true;
        CHECK_STATUS(space_fault(host_ctx(2), rival.space, PAGE(0), ACCESS_READ, &waits[2]),
                     CLEAVE_WAIT);
    }
}

/* Two vcpus ask for one page, and the frame of one of them is in vain: it goes back to its
 * reservation or grant, and to the pool where that was used up. */
TEST(a_load_in_vain_takes_nothing)
{
    TEST_NEEDS_HOOKS();
    const struct fork_options options = {.limit = UINT64_MAX, .reserve = true, .vcpus = 2};
    enum { RESERVED, USED_UP, GRANTED, CASES };
    for (unsigned row = 0; row < CASES; row++) {
        test_case("case %u", row);
        start();
        struct pager *pager = new_pager(0);
        map(space, 0, 2, pager, 0);
        REQUIRE_OK(space_fork(scene.ctx, space, 1, &options, &rival.space));
        uint64_t reserved = row == RESERVED ? rival.space->payer.reserved - 1 : 0;
        if (row != RESERVED) {
            pool_unreserve(scene.ctx, &rival.space->payer);
        }
        if (row == GRANTED) {
            pool_wait(scene.ctx, scene.pool, &waits[1], 2);
            REQUIRE_EQ(waits[1].grant.reserved, 2);
        }
        uint64_t free = scene.pool->free;
        rival.done = false;
        host_on_point(ask_first, NULL);
        CHECK_STATUS(space_fault(host_ctx(1), rival.space, PAGE(0), ACCESS_READ, &waits[1]),
                     CLEAVE_WAIT);
        host_on_point(NULL, NULL);
        CHECK(rival.done);
        CHECK_EQ(rival.space->payer.reserved, reserved);
        CHECK_EQ(waits[1].grant.reserved, 0); /* the fault is over */
        CHECK_EQ(scene.pool->reserved, reserved);
        CHECK_EQ(scene.pool->free, free - 1);
        scene_audit();
        REQUIRE_OK(pager_destroy(scene.ctx, pager));
        scene_end();
    }
}

/* --- What is said -------------------------------------------------------------------------------
 */

/* A range of more pages than a store has: no offset would do, so the size is what is wrong. */
TEST(a_range_larger_than_a_store_is_too_large)
{
    if (GUEST_PAGES <= UINT64_C(1) << 32) {
        TEST_SKIP("no such range");
    }
    start();
    struct pager *pager = new_pager(0);
    uint64_t size = BYTES(UINT64_C(1) << 33);
    CHECK_STATUS(space_map_paged(scene.ctx, space, PAGE(0), size, pager, 1, 1, 0, &paged),
                 CLEAVE_COUNT);
    CHECK_EQ(strcmp(scene.ctx->error.argument, "size"), 0);
    CHECK_EQ(scene.ctx->error.high, BYTES(UINT64_C(1) << 32));
    REQUIRE_OK(pager_destroy(scene.ctx, pager));
    scene_end();
}

/* While a paged range is being mapped it is no memory yet: a read says so, as a guest's does. */
TEST(a_range_that_is_being_mapped_is_no_memory)
{
    uint64_t word;
    start();
    struct pager *pager = new_pager(0);
    scene.ctx->budget = 1;
    REQUIRE_EQ(space_map_paged(scene.ctx, space, PAGE(0), BYTES(BLOCK), pager, 0, 1, 0, &paged),
               CLEAVE_AGAIN);
    scene.ctx->budget = UINT64_MAX;
    CHECK_STATUS(space_fault(scene.ctx, space, PAGE(0), ACCESS_READ, NULL), CLEAVE_FAULT);
    CHECK_STATUS(space_read(scene.ctx, space, PAGE(0), &word, sizeof(word), NULL), CLEAVE_FAULT);
    map(space, 0, BLOCK, pager, 0);
    REQUIRE_OK(pager_destroy(scene.ctx, pager));
    scene_end();
}
