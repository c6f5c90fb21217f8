/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loading on demand, against a pager that is played by CPU 1 in a control space: it takes requests,
 * writes the pages through its window as a guest does, and gives them back.
 */
#include "pager.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "fork.h"
#include "host.h"
#include "test.h"
#include "walk.h"

#define PAGER_CPU 1u
#define GUEST_CPU 2u
#define PAGES 8u /* of the paged range, 4 KiB entries */
#define STORE 5u
#define OFFSET 1000u  /* of its first page in the store */
#define WINDOW gpa(0) /* in the control space */
#define WAITS 40u

static struct mm_ctx *ctx;
static struct pool *pool;
static struct space *control;
static struct space *space; /* has the paged range at 0 */
static struct pager *pager;
static struct vcpu_wait waits[WAITS];
static unsigned woken[WAITS]; /* in which order, from 1 */
static unsigned wakes;

static const struct region paged_region = {.policy = REGION_PAGED,
                                           .rights = RIGHT_READ | RIGHT_WRITE};

static void on_wake(struct vcpu_wait *wait, void *arg)
{
    (void)arg;
    woken[wait - waits] = ++wakes;
}

static uint64_t small(uint64_t real, uint64_t scaled) { return TABLE_ENTRIES > 4 ? real : scaled; }

static void start(void)
{
    host_start(&(struct host_options){.frames = small(32 * level_pages(1), 64 * level_pages(1))});
    host_on_wake(on_wake, NULL);
    ctx = host_ctx(0);
    pool = host_pool(small(16, 48) * level_size(1));
    REQUIRE_OK(space_create(ctx, pool, UINT64_MAX, &control));
    REQUIRE_OK(space_create(ctx, pool, UINT64_MAX, &space));
    REQUIRE_OK(pager_create(ctx, pool, control, WINDOW, &pager));
    REQUIRE_OK(host_cpu_run(PAGER_CPU, control));
    REQUIRE_OK(space_map_paged(ctx, space, gpa(0), PAGES * PAGE_SIZE, pager, 0, STORE, OFFSET,
                               &paged_region));
    for (unsigned i = 0; i < WAITS; i++) {
        waits[i] = (struct vcpu_wait){.vcpu = i};
    }
}

static void check_audit(void)
{
    struct audit_report report;
    uint64_t bytes = audit_scratch_bytes(pool);
    void *scratch = calloc(1, bytes);
    REQUIRE(scratch != NULL);
    REQUIRE_OK(pool_audit(ctx, pool, scratch, bytes, &report));
    free(scratch);
    if (!CHECK_EQ(report.invariant, 0)) {
        printf("  I%u: %s: space %u, page %#llx, level %u, table %#x, slot %u, entry %#llx, "
               "expected %#llx, found %#llx\n",
               report.invariant, report.what, report.space, (unsigned long long)report.at.v,
               report.level, report.table.v, report.slot, (unsigned long long)report.entry,
               (unsigned long long)report.expected, (unsigned long long)report.found);
    }
}

/* What the store holds. */
static void store_page(unsigned char *page, uint64_t offset)
{
    for (unsigned i = 0; i < PAGE_SIZE; i++) {
        page[i] = (unsigned char)(offset * 7 + i * 13 + 1);
    }
}

static bool take(struct load_request *request)
{
    bool found;
    REQUIRE_OK(pager_next(ctx, pager, request, &found));
    return found;
}

static void fill(const struct load_request *request)
{
    unsigned char page[PAGE_SIZE];
    for (uint64_t i = 0; i < level_pages(request->order); i++) {
        store_page(page, request->offset + i);
        REQUIRE_OK(
            host_cpu_write(PAGER_CPU, gpa(request->window.v + i * PAGE_SIZE), page, PAGE_SIZE));
    }
}

/* Serves what is asked for; how many requests there were. */
static unsigned serve(void)
{
    struct load_request request;
    unsigned served = 0;
    while (take(&request)) {
        CHECK_EQ(request.store, STORE);
        fill(&request);
        check_audit();
        REQUIRE_OK(pager_done(ctx, pager, request.id, true));
        check_audit();
        served++;
    }
    return served;
}

/* One access of a guest in `in`, with the `wait`-th waiter. */
static enum cleave_status access_page(struct space *in, uint64_t page, enum access access,
                                      unsigned wait)
{
    return space_fault(ctx, in, gpa(page * PAGE_SIZE), access, &waits[wait]);
}

/* A guest's read of a page that is there: no wait, and the store's bytes. */
static void check_reads(struct space *in, uint64_t page)
{
    unsigned char found[PAGE_SIZE], expected[PAGE_SIZE];
    REQUIRE_OK(host_cpu_run(GUEST_CPU, in));
    store_page(expected, OFFSET + page);
    if (CHECK_OK(host_cpu_read(GUEST_CPU, gpa(page * PAGE_SIZE), found, PAGE_SIZE))) {
        CHECK_BYTES(found, expected, PAGE_SIZE);
    }
    host_cpu_stop(GUEST_CPU);
}

static void guest_write(struct space *in, uint64_t page, unsigned char value)
{
    REQUIRE_OK(host_cpu_run(GUEST_CPU, in));
    CHECK_OK(host_cpu_write(GUEST_CPU, gpa(page * PAGE_SIZE + 3), &value, 1));
    host_cpu_stop(GUEST_CPU);
}

static struct space *fork_of(struct space *parent)
{
    const struct fork_options options = {.limit = UINT64_MAX};
    struct space *child;
    REQUIRE_OK(space_fork(ctx, parent, 1, &options, &child));
    return child;
}

static struct mapping looked_up(struct space *in, uint64_t page)
{
    struct mapping mapping;
    REQUIRE_OK(space_lookup(ctx, in, gpa(page * PAGE_SIZE), &mapping));
    return mapping;
}

/* --- Reads ------------------------------------------------------------------------------------ */

TEST(read_fill_is_shared_by_all_forks)
{
    start();
    struct space *a = fork_of(space), *b = fork_of(a);
    CHECK_STATUS(access_page(a, 2, ACCESS_READ, 0), CLEAVE_WAIT);
    CHECK_EQ(waits[0].kind, WAIT_LOAD);
    CHECK_EQ(serve(), 1);
    CHECK_EQ(woken[0], 1);
    check_reads(a, 2);
    check_reads(b, 2);
    check_reads(space, 2);
    CHECK_EQ(serve(), 0);
    CHECK_EQ(space->stats.loads + a->stats.loads + b->stats.loads, 1);
    CHECK_EQ(looked_up(space, 2).frame.v, looked_up(b, 2).frame.v);
    CHECK_EQ(a->stats.tables_copied, 0);
}

TEST(read_fill_then_write_copies)
{
    start();
    struct space *a = fork_of(space);
    CHECK_STATUS(access_page(space, 0, ACCESS_READ, 0), CLEAVE_WAIT);
    CHECK_EQ(serve(), 1);
    guest_write(a, 0, 99);
    CHECK_EQ(a->stats.pages_copied, 1);
    check_reads(space, 0);
    check_audit();
}

TEST(one_load_for_two_readers)
{
    start();
    struct space *a = fork_of(space);
    CHECK_STATUS(access_page(a, 1, ACCESS_READ, 0), CLEAVE_WAIT);
    CHECK_STATUS(access_page(space, 1, ACCESS_READ, 1), CLEAVE_WAIT);
    CHECK_STATUS(access_page(a, 1, ACCESS_READ, 2), CLEAVE_WAIT);
    CHECK_EQ(serve(), 1);
    CHECK_EQ(woken[0], 1);
    CHECK_EQ(woken[1], 2);
    CHECK_EQ(woken[2], 3);
    check_reads(a, 1);
    check_reads(space, 1);
    CHECK_EQ(serve(), 0);
}

TEST(destination_is_cleared_for_the_pager)
{
    start();
    struct load_request request;
    unsigned char page[PAGE_SIZE], zero[PAGE_SIZE] = {0};
    CHECK_STATUS(access_page(space, 1, ACCESS_READ, 0), CLEAVE_WAIT);
    REQUIRE(take(&request));
    CHECK_EQ(request.offset, OFFSET + 1);
    CHECK_EQ(request.order, 0);
    CHECK_OK(host_cpu_read(PAGER_CPU, request.window, page, PAGE_SIZE));
    CHECK_BYTES(page, zero, PAGE_SIZE);
    CHECK_OK(pager_done(ctx, pager, request.id, true));
}

/* --- Writes ----------------------------------------------------------------------------------- */

TEST(write_fill_goes_straight_into_the_private_frame)
{
    start();
    struct space *a = fork_of(space);
    struct load_request request;
    CHECK_STATUS(access_page(a, 3, ACCESS_WRITE, 0), CLEAVE_WAIT);
    REQUIRE(take(&request));
    fill(&request);
    host_reset_counters();
    CHECK_OK(pager_done(ctx, pager, request.id, true));
    CHECK_EQ(looked_up(a, 3).rights & RIGHT_WRITE, RIGHT_WRITE);
    CHECK(looked_up(a, 3).exclusive);
    CHECK_EQ(looked_up(space, 3).kind, PTE_KIND_PAGED);
    check_reads(a, 3);
    uint64_t faults = a->stats.faults;
    guest_write(a, 3, 42);
    CHECK_EQ(a->stats.faults, faults);
    CHECK_EQ(host_counters().copies, 0);
    check_audit();

    CHECK_STATUS(access_page(space, 3, ACCESS_READ, 1), CLEAVE_WAIT);
    CHECK_EQ(serve(), 1);
    check_reads(space, 3);
}

TEST(a_reader_waits_for_its_own_writers_load)
{
    start();
    CHECK_STATUS(access_page(space, 3, ACCESS_WRITE, 0), CLEAVE_WAIT);
    CHECK_STATUS(access_page(space, 3, ACCESS_READ, 1), CLEAVE_WAIT);
    CHECK_EQ(serve(), 1);
    CHECK_EQ(wakes, 2);
    check_reads(space, 3);
}

TEST(fork_during_a_write_load)
{
    start();
    struct load_request request;
    CHECK_STATUS(access_page(space, 3, ACCESS_WRITE, 0), CLEAVE_WAIT);
    REQUIRE(take(&request));
    struct space *a = fork_of(space);
    fill(&request);
    CHECK_OK(pager_done(ctx, pager, request.id, true));
    check_audit();
    check_reads(a, 3);
    guest_write(space, 3, 77);
    check_reads(a, 3);
    CHECK_EQ(serve(), 0);
    check_audit();
}

/* --- Through the base ------------------------------------------------------------------------- */

/* Two forks of one snapshot, both of which have tables of their own. */
static struct space *snapshot, *first, *second;

static void start_with_base(void)
{
    start();
    REQUIRE_OK(space_snapshot(ctx, space, UINT64_MAX, &snapshot));
    first = fork_of(snapshot);
    second = fork_of(snapshot);
    CHECK_STATUS(access_page(first, 7, ACCESS_WRITE, 0), CLEAVE_WAIT);
    CHECK_STATUS(access_page(second, 7, ACCESS_WRITE, 1), CLEAVE_WAIT);
    CHECK_EQ(serve(), 2);
    CHECK_OK(access_page(first, 7, ACCESS_WRITE, 0));
    CHECK_OK(access_page(second, 7, ACCESS_WRITE, 1));
    CHECK(first->base == snapshot);
    wakes = 0;
}

TEST(forks_with_their_own_tables_fill_through_the_base)
{
    start_with_base();
    CHECK_STATUS(access_page(first, 6, ACCESS_READ, 0), CLEAVE_WAIT);
    CHECK_STATUS(access_page(second, 6, ACCESS_READ, 1), CLEAVE_WAIT);
    CHECK_EQ(serve(), 1);
    CHECK_EQ(wakes, 2);
    check_reads(first, 6);
    check_reads(second, 6);
    CHECK_EQ(serve(), 0);
    CHECK_EQ(looked_up(first, 6).frame.v, looked_up(snapshot, 6).frame.v);
    CHECK_EQ(looked_up(second, 6).frame.v, looked_up(snapshot, 6).frame.v);
    check_audit();
    guest_write(first, 6, 1);
    check_reads(second, 6);
    check_audit();
}

TEST(a_write_copies_what_the_base_has)
{
    start_with_base();
    CHECK_STATUS(access_page(first, 6, ACCESS_READ, 0), CLEAVE_WAIT);
    CHECK_EQ(serve(), 1);
    guest_write(second, 6, 1);
    CHECK_EQ(serve(), 0);
    CHECK_EQ(second->stats.pages_copied, 1);
    check_reads(first, 6);
    check_audit();
}

TEST(a_writer_waits_for_a_readers_load)
{
    start_with_base();
    CHECK_STATUS(access_page(first, 6, ACCESS_READ, 0), CLEAVE_WAIT);
    CHECK_STATUS(access_page(second, 6, ACCESS_WRITE, 1), CLEAVE_WAIT);
    CHECK_EQ(serve(), 1);
    CHECK_EQ(wakes, 2);
    guest_write(second, 6, 1);
    check_reads(first, 6);
    CHECK_EQ(serve(), 0);
    check_audit();
}

/* A range that the fork mapped anew is not the base's, though the base has something there. */
TEST(a_range_mapped_since_is_not_the_bases)
{
    start_with_base();
    REQUIRE_OK(pager_prefetch(ctx, pager, snapshot, gpa(0)));
    CHECK_EQ(serve(), 1);
    REQUIRE_OK(space_unmap(ctx, first, gpa(0), PAGES * PAGE_SIZE));
    REQUIRE_OK(space_map_paged(ctx, first, gpa(0), PAGES * PAGE_SIZE, pager, 0, STORE, OFFSET + 50,
                               &paged_region));
    CHECK_STATUS(access_page(first, 0, ACCESS_READ, 0), CLEAVE_WAIT);
    struct load_request request;
    REQUIRE(take(&request));
    CHECK_EQ(request.offset, OFFSET + 50);
    CHECK_OK(pager_done(ctx, pager, request.id, true));
    CHECK_NE(looked_up(first, 0).frame.v, looked_up(snapshot, 0).frame.v);
    check_audit();
}

/* --- Prefetching ------------------------------------------------------------------------------ */

TEST(prefetch)
{
    start();
    CHECK_OK(pager_prefetch(ctx, pager, space, gpa(4 * PAGE_SIZE)));
    CHECK_OK(pager_prefetch(ctx, pager, space, gpa(4 * PAGE_SIZE)));
    CHECK_EQ(serve(), 1);
    CHECK_OK(pager_prefetch(ctx, pager, space, gpa(4 * PAGE_SIZE)));
    CHECK_EQ(serve(), 0);
    check_reads(space, 4);
    CHECK_STATUS(pager_prefetch(ctx, pager, control, WINDOW), CLEAVE_POLICY);
    CHECK_STATUS(pager_prefetch(ctx, pager, space, gpa(1)), CLEAVE_ALIGN);
}

TEST(prefetch_into_a_snapshot)
{
    start();
    REQUIRE_OK(space_snapshot(ctx, space, UINT64_MAX, &snapshot));
    CHECK_OK(pager_prefetch(ctx, pager, snapshot, gpa(0)));
    CHECK_EQ(serve(), 1);
    first = fork_of(snapshot);
    check_reads(first, 0);
    check_audit();
}

/* --- The pager's death and return ------------------------------------------------------------- */

TEST(restart_queues_again_what_was_taken)
{
    start();
    struct load_request taken[2], again;
    unsigned char byte = 1;
    CHECK_STATUS(access_page(space, 0, ACCESS_READ, 0), CLEAVE_WAIT);
    CHECK_STATUS(access_page(space, 1, ACCESS_WRITE, 1), CLEAVE_WAIT);
    REQUIRE(take(&taken[0]));
    REQUIRE(take(&taken[1]));
    CHECK(!take(&again));
    fill(&taken[0]);
    CHECK_OK(pager_restart(ctx, pager));
    check_audit();
    CHECK_EQ(wakes, 0);
    CHECK_STATUS(host_cpu_write(PAGER_CPU, taken[0].window, &byte, 1), CLEAVE_FAULT);
    CHECK_STATUS(pager_done(ctx, pager, taken[0].id, true), CLEAVE_INVALID);
    REQUIRE(take(&again));
    CHECK_EQ(again.id, taken[0].id);
    fill(&again);
    CHECK_OK(pager_done(ctx, pager, again.id, true));
    CHECK_EQ(serve(), 1);
    check_reads(space, 0);
    check_reads(space, 1);
    check_audit();
}

TEST(window_is_closed_before_the_page_is_seen)
{
    start();
    struct load_request request;
    unsigned char byte = 1;
    CHECK_STATUS(access_page(space, 0, ACCESS_READ, 0), CLEAVE_WAIT);
    REQUIRE(take(&request));
    fill(&request);
    uint64_t before = host_log_length();
    CHECK_OK(pager_done(ctx, pager, request.id, true));
    CHECK_STATUS(host_cpu_write(PAGER_CPU, request.window, &byte, 1), CLEAVE_FAULT);
    host_tlb_check();
#ifdef MM_HOOKS
    uint64_t unmapped = host_log_find(POINT_ENTRY, before);
    uint64_t flushed = host_log_find(HOST_FLUSH, before);
    uint64_t published = host_log_find(POINT_ENTRY, unmapped + 1);
    CHECK(unmapped < flushed && flushed < published && published != HOST_LOG_NONE);
#else
    (void)before;
#endif
    check_reads(space, 0);
}

TEST(destroy_ends_loads_and_the_number)
{
    start();
    struct load_request request;
    CHECK_STATUS(access_page(space, 0, ACCESS_READ, 0), CLEAVE_WAIT);
    CHECK_STATUS(access_page(space, 1, ACCESS_READ, 1), CLEAVE_WAIT);
    REQUIRE(take(&request));
    CHECK_OK(pager_destroy(ctx, pager));
    CHECK_EQ(wakes, 2);
    check_audit();
    CHECK_STATUS(access_page(space, 0, ACCESS_READ, 0), CLEAVE_IO);
    CHECK_STATUS(access_page(space, 0, ACCESS_READ, 0), CLEAVE_IO);
    struct pager *other;
    REQUIRE_OK(pager_create(ctx, pool, control, WINDOW, &other));
    CHECK_STATUS(access_page(space, 1, ACCESS_READ, 2), CLEAVE_IO);
    CHECK_OK(pager_destroy(ctx, other));
    check_audit();
}

/* --- What goes wrong -------------------------------------------------------------------------- */

TEST(failed_load)
{
    start();
    struct load_request request;
    uint64_t free = pool->free;
    CHECK_STATUS(access_page(space, 0, ACCESS_READ, 0), CLEAVE_WAIT);
    REQUIRE(take(&request));
    CHECK_OK(pager_done(ctx, pager, request.id, false));
    CHECK_STATUS(pager_done(ctx, pager, request.id, false), CLEAVE_INVALID);
    CHECK_EQ(waits[0].outcome, WAIT_FAILED);
    CHECK_STATUS(access_page(space, 0, ACCESS_READ, 0), CLEAVE_IO);
    CHECK_EQ(looked_up(space, 0).kind, PTE_KIND_PAGED);
    CHECK_LE(free - pool->free, ROOT_LEVEL); /* the tables of the window stay */
    CHECK_STATUS(access_page(space, 0, ACCESS_READ, 0), CLEAVE_WAIT);
    CHECK_EQ(serve(), 1);
    check_reads(space, 0);
}

TEST(full_table_of_loads)
{
    start();
    const uint64_t base = 16 * level_pages(1);
    REQUIRE_OK(space_map_paged(ctx, space, gpa(base * PAGE_SIZE), 32 * PAGE_SIZE, pager, 0, STORE,
                               OFFSET + base, &paged_region));
    for (unsigned i = 0; i < PAGER_LOADS + 3; i++) {
        CHECK_STATUS(access_page(space, base + i, ACCESS_READ, i), CLEAVE_WAIT);
        CHECK_EQ(waits[i].kind, WAIT_LOAD);
    }
    CHECK_STATUS(pager_prefetch(ctx, pager, space, gpa((base + 30) * PAGE_SIZE)), CLEAVE_BUSY);
    CHECK_EQ(serve(), PAGER_LOADS);
    for (unsigned i = 0; i < 3; i++) { /* in order, and as soon as there is room */
        CHECK_EQ(woken[PAGER_LOADS + i], 2 + i);
        CHECK_STATUS(access_page(space, base + PAGER_LOADS + i, ACCESS_READ, i), CLEAVE_WAIT);
    }
    CHECK_EQ(serve(), 3);
    for (unsigned i = 0; i < PAGER_LOADS + 3; i++) {
        check_reads(space, base + i);
    }
}

TEST(a_waiter_goes_away)
{
    start();
    CHECK_STATUS(access_page(space, 0, ACCESS_READ, 0), CLEAVE_WAIT);
    CHECK_STATUS(access_page(space, 0, ACCESS_READ, 1), CLEAVE_WAIT);
    pager_cancel_wait(ctx, &waits[0]);
    CHECK_EQ(waits[0].kind, WAIT_NONE);
    pager_cancel_wait(ctx, &waits[0]);
    CHECK_EQ(serve(), 1);
    CHECK_EQ(woken[0], 0);
    CHECK_EQ(woken[1], 1);
}

TEST(unmapped_during_the_load)
{
    start();
    struct load_request request;
    CHECK_STATUS(access_page(space, 0, ACCESS_READ, 0), CLEAVE_WAIT);
    REQUIRE(take(&request));
    uint64_t data = pool->kind[FRAME_DATA];
    REQUIRE_OK(space_unmap(ctx, space, gpa(0), PAGE_SIZE));
    fill(&request);
    CHECK_OK(pager_done(ctx, pager, request.id, true));
    CHECK_EQ(woken[0], 1);
    CHECK_EQ(pool->kind[FRAME_DATA], data - 1);
    CHECK_STATUS(access_page(space, 0, ACCESS_READ, 0), CLEAVE_FAULT);
    check_audit();
}

TEST(target_destroyed_during_the_load)
{
    start();
    struct space *a = fork_of(space);
    struct load_request request;
    CHECK_STATUS(access_page(a, 0, ACCESS_READ, 0), CLEAVE_WAIT);
    CHECK_STATUS(access_page(a, 1, ACCESS_READ, 1), CLEAVE_WAIT);
    REQUIRE(take(&request));
    pager_cancel_wait(ctx, &waits[0]);
    pager_cancel_wait(ctx, &waits[1]);
    CHECK_OK(space_destroy(ctx, a));
    check_audit();
    fill(&request);
    CHECK_OK(pager_done(ctx, pager, request.id, true));
    CHECK_EQ(serve(), 0);
    CHECK_EQ(looked_up(space, 0).kind, PTE_KIND_PAGED);
    check_audit();
}

TEST(pagers_space_destroyed)
{
    start();
    struct load_request request;
    bool found;
    CHECK_STATUS(access_page(space, 0, ACCESS_READ, 0), CLEAVE_WAIT);
    REQUIRE(take(&request));
    host_cpu_stop(PAGER_CPU);
    CHECK_OK(space_destroy(ctx, control));
    check_audit();
    CHECK_STATUS(pager_next(ctx, pager, &request, &found), CLEAVE_DYING);
    CHECK_OK(pager_destroy(ctx, pager));
    CHECK_EQ(waits[0].outcome, WAIT_FAILED);
    check_audit();
}

TEST(no_memory_for_the_destination)
{
    start();
    uint64_t before = pool->free;
    host_fail_allocation(1);
    CHECK_STATUS(space_fault(ctx, space, gpa(0), ACCESS_READ, NULL), CLEAVE_NO_MEMORY);
    CHECK(host_allocation_failed());
    CHECK_EQ(pool->free, before);
    CHECK_STATUS(access_page(space, 0, ACCESS_READ, 0), CLEAVE_WAIT);
    struct load_request request;
    bool found;
    host_fail_allocation(1); /* the window's tables */
    CHECK_STATUS(pager_next(ctx, pager, &request, &found), CLEAVE_NO_MEMORY);
    CHECK(!found);
    check_audit();
    CHECK_EQ(serve(), 1);
    check_reads(space, 0);
}

/* --- Entries of 2 MiB ------------------------------------------------------------------------- */

static const uint64_t huge_at =
    32; /* in blocks: past everything else, and of the small geometry too */

static void start_huge(void)
{
    start();
    REQUIRE_OK(space_map_paged(ctx, space, gpa(huge_at * level_size(1)), 2 * level_size(1), pager,
                               1, STORE, OFFSET + huge_at * level_pages(1), &paged_region));
}

TEST(huge_load)
{
    start_huge();
    uint64_t page = huge_at * level_pages(1);
    struct space *a = fork_of(space);
    CHECK_STATUS(access_page(a, page + 1, ACCESS_READ, 0), CLEAVE_WAIT);
    CHECK_STATUS(access_page(space, page + 2, ACCESS_READ, 1), CLEAVE_WAIT);
    CHECK_EQ(serve(), 1);
    check_reads(a, page + 1);
    check_reads(space, page + 3);
    CHECK_EQ(looked_up(space, page).level, 1);
    CHECK_EQ(a->stats.loads, level_pages(1));
    /* The next one is small and in the same place of the window, then huge again. */
    CHECK_STATUS(access_page(a, 0, ACCESS_READ, 0), CLEAVE_WAIT);
    CHECK_EQ(serve(), 1);
    CHECK_STATUS(access_page(a, page + level_pages(1), ACCESS_WRITE, 0), CLEAVE_WAIT);
    CHECK_EQ(serve(), 1);
    CHECK_EQ(looked_up(a, page + level_pages(1)).rights & RIGHT_WRITE, RIGHT_WRITE);
    check_reads(a, page + level_pages(1) + 1);
}

/* Takes all memory but the frames, save one each, of two blocks. */
static void take_all_blocks(void)
{
    struct payer hog = {.pool = pool};
    pfn_t f, last[2] = {PFN_NONE, PFN_NONE};
    pfn_t *frames = malloc((2 * level_pages(1) + 1) * sizeof(*frames));
    unsigned count = 0;

    while (pool_alloc(ctx, &hog, 1, FRAME_DATA, &f) == CLEAVE_OK) {
        last[0] = last[1];
        last[1] = f;
    }
    while (pool_alloc(ctx, &hog, 0, FRAME_DATA, &f) == CLEAVE_OK) {
    }
    frame_put(ctx, last[0], 1);
    frame_put(ctx, last[1], 1);
    while (pool_alloc(ctx, &hog, 0, FRAME_DATA, &f) == CLEAVE_OK) {
        frames[count++] = f;
    }
    REQUIRE_EQ(count, 2 * level_pages(1));
    while (count-- > 0) {
        if ((frames[count].v & (level_pages(1) - 1)) != 0) {
            frame_put(ctx, frames[count], 0);
        }
    }
    free(frames);
}

TEST(huge_entry_without_a_block)
{
    start_huge();
    uint64_t page = huge_at * level_pages(1);
    take_all_blocks();
    CHECK_STATUS(access_page(space, page + 1, ACCESS_READ, 0), CLEAVE_WAIT);
    CHECK_EQ(looked_up(space, page).level, 0);
    struct load_request request;
    REQUIRE(take(&request));
    CHECK_EQ(request.order, 0);
    CHECK_EQ(request.offset, OFFSET + page + 1);
    fill(&request);
    CHECK_OK(pager_done(ctx, pager, request.id, true));
    check_reads(space, page + 1);
}

/* --- Mapping paged ranges --------------------------------------------------------------------- */

struct arguments {
    const char *label;
    uint64_t at, size;
    unsigned order;
    uint32_t store;
    uint64_t offset;
    struct region region;
    enum cleave_status status;
};
#define GOOD                                                                                       \
    {                                                                                              \
        .policy = REGION_PAGED, .rights = RIGHT_READ                                               \
    }
#define BLOCK_BYTES (PAGE_SIZE << LEVEL_BITS)
#define FREE_AT (40 * BLOCK_BYTES)
static const struct arguments bad[] = {
    {"misaligned", 1, PAGE_SIZE, 0, 0, 0, GOOD, CLEAVE_ALIGN},
    {"misaligned order", FREE_AT + PAGE_SIZE, BLOCK_BYTES, 1, 0, 0, GOOD, CLEAVE_ALIGN},
    {"size 0", FREE_AT, 0, 0, 0, 0, GOOD, CLEAVE_COUNT},
    {"wrap", FREE_AT, -PAGE_SIZE, 0, 0, 0, GOOD, CLEAVE_WRAP},
    {"width", UINT64_C(1) << GUEST_BITS, PAGE_SIZE, 0, 0, 0, GOOD, CLEAVE_RANGE},
    {"order 2", FREE_AT, BLOCK_BYTES << LEVEL_BITS, 2, 0, 0, GOOD, CLEAVE_ORDER},
    {"store", FREE_AT, PAGE_SIZE, 0, 128, 0, GOOD, CLEAVE_INVALID},
    {"offset", FREE_AT, 2 * PAGE_SIZE, 0, 0, UINT64_C(0xffffffff), GOOD, CLEAVE_INVALID},
    {"policy", FREE_AT, PAGE_SIZE, 0, 0, 0, {.policy = REGION_PRIVATE, .rights = 1}, CLEAVE_POLICY},
    {"rights", FREE_AT, PAGE_SIZE, 0, 0, 0, {.policy = REGION_PAGED, .rights = 2}, CLEAVE_RIGHTS},
    {"exists", (PAGES - 1) * PAGE_SIZE, 2 * PAGE_SIZE, 0, 0, 0, GOOD, CLEAVE_EXISTS},
};

TEST_TABLE(map_refuses, bad)
{
    start();
    uint64_t before = pool->free;
    CHECK_STATUS(space_map_paged(ctx, space, gpa(row->at), row->size, pager, row->order, row->store,
                                 row->offset, &row->region),
                 row->status);
    CHECK_EQ(pool->free, before);
    check_audit();
}

static enum cleave_status map_step(struct mm_ctx *with, void *arg)
{
    (void)arg;
    return space_map_paged(with, space, gpa(FREE_AT), 4 * level_size(1), pager, 0, STORE, 0,
                           &paged_region);
}

TEST(map_is_preemptible)
{
    start();
    enum cleave_status status;
    uint64_t calls = host_run_preempted(ctx, map_step, NULL, 3, &status);
    CHECK_OK(status);
    CHECK_LE(4 * level_pages(1) / 3, calls);
    CHECK_EQ(looked_up(space, FREE_AT / PAGE_SIZE + 4 * level_pages(1) - 1).kind, PTE_KIND_PAGED);
    CHECK_EQ(looked_up(space, FREE_AT / PAGE_SIZE + 4 * level_pages(1)).kind, PTE_KIND_ABSENT);
    check_audit();
}

/* Every allocation is made to fail in turn: nothing is changed then, not even what is charged. */
TEST(map_fails_cleanly)
{
    start();
    uint64_t before = pool->free;
    for (uint64_t k = 1;; k++) {
        enum cleave_status status;
        host_fail_allocation(k);
        (void)host_run_preempted(ctx, map_step, NULL, 3, &status);
        if (!host_allocation_failed()) {
            CHECK_OK(status);
            CHECK(k > 3);
            break;
        }
        CHECK_STATUS(status, CLEAVE_NO_MEMORY);
        CHECK_EQ(pool->free, before);
        CHECK_EQ(looked_up(space, FREE_AT / PAGE_SIZE).kind, PTE_KIND_ABSENT);
        CHECK_EQ(space->op, OP_NONE);
        check_audit();
    }
    host_fail_allocation(0);
}

TEST(part_of_a_huge_entry_is_unmapped)
{
    start_huge();
    uint64_t page = huge_at * level_pages(1);
    REQUIRE_OK(space_unmap(ctx, space, gpa((page + 1) * PAGE_SIZE), PAGE_SIZE));
    check_audit();
    CHECK_EQ(looked_up(space, page).kind, PTE_KIND_PAGED);
    CHECK_EQ(looked_up(space, page + 1).kind, PTE_KIND_ABSENT);
    CHECK_STATUS(access_page(space, page + 2, ACCESS_READ, 0), CLEAVE_WAIT);
    CHECK_EQ(serve(), 1);
    check_reads(space, page + 2);
}

/* What was moved is not what the base has there, loaded or not. */
TEST(moved_entries_are_not_the_bases)
{
    uint64_t copies;
    start_with_base();
    REQUIRE_OK(pager_prefetch(ctx, pager, snapshot, gpa(2 * PAGE_SIZE)));
    CHECK_EQ(serve(), 1);
    REQUIRE_OK(space_unmap(ctx, first, gpa(2 * PAGE_SIZE), PAGE_SIZE));
    REQUIRE_OK(space_move(ctx, first, gpa(3 * PAGE_SIZE), gpa(2 * PAGE_SIZE), PAGE_SIZE, &copies));
    CHECK_STATUS(access_page(first, 2, ACCESS_READ, 0), CLEAVE_WAIT);
    struct load_request request;
    if (CHECK(take(&request))) {
        CHECK_EQ(request.offset, OFFSET + 3);
        CHECK_OK(pager_done(ctx, pager, request.id, true));
    }
    check_audit();
}

/* --- READ taken away -------------------------------------------------------------------------- */

static void protect(struct space *in, uint64_t page, uint64_t pages, unsigned rights)
{
    REQUIRE_OK(space_protect(ctx, in, gpa(page * PAGE_SIZE), pages * PAGE_SIZE, rights));
    check_audit();
}

/* A load that is under way when READ goes is not lost: nobody reads the page before READ is back,
 * and then it is there. */
TEST(hidden_during_the_load)
{
    struct load_request request;
    start();
    struct space *a = fork_of(space);
    CHECK_STATUS(access_page(a, 2, ACCESS_READ, 0), CLEAVE_WAIT);
    REQUIRE(take(&request));
    protect(space, 0, PAGES, 0);
    fill(&request);
    CHECK_OK(pager_done(ctx, pager, request.id, true));
    check_audit();
    CHECK_STATUS(access_page(space, 2, ACCESS_READ, 1), CLEAVE_FAULT);
    check_reads(a, 2);
    protect(space, 0, PAGES, RIGHT_READ);
    bool there = looked_up(space, 2).frame.v != 0;
    CHECK_STATUS(access_page(space, 2, ACCESS_READ, 1), there ? CLEAVE_OK : CLEAVE_WAIT);
    CHECK_EQ(serve(), there ? 0 : 1);
    check_reads(space, 2);
    check_audit();
}

/* The same in the table of the one space that has it: the leaf comes parked. */
TEST(hidden_alone_during_the_load)
{
    struct load_request request;
    start();
    CHECK_STATUS(access_page(space, 2, ACCESS_WRITE, 0), CLEAVE_WAIT);
    REQUIRE(take(&request));
    protect(space, 1, 4, 0);
    CHECK_EQ(looked_up(space, 2).kind, PTE_KIND_PARKED);
    fill(&request);
    CHECK_OK(pager_done(ctx, pager, request.id, true));
    check_audit();
    CHECK_EQ(looked_up(space, 2).kind, PTE_KIND_PARKED);
    CHECK_STATUS(access_page(space, 2, ACCESS_READ, 1), CLEAVE_FAULT);
    protect(space, 1, 4, RIGHT_READ | RIGHT_WRITE);
    CHECK_EQ(serve(), 0);
    check_reads(space, 2);
    guest_write(space, 2, 9);
    check_audit();
}

/* Parked paged entries in a table that a fork shares: the fork that may read loads them, and the
 * other one still does not see them. */
TEST(a_fork_loads_what_its_parent_may_not_read)
{
    start();
    protect(space, 1, 4, 0);
    struct space *a = fork_of(space), *b = fork_of(space);
    protect(a, 1, 4, RIGHT_READ | RIGHT_WRITE);
    CHECK_STATUS(access_page(a, 2, ACCESS_READ, 0), CLEAVE_WAIT);
    CHECK_EQ(serve(), 1);
    check_reads(a, 2);
    CHECK_STATUS(access_page(space, 2, ACCESS_READ, 1), CLEAVE_FAULT);
    CHECK_STATUS(access_page(b, 2, ACCESS_READ, 1), CLEAVE_FAULT);
    CHECK_OK(pager_prefetch(ctx, pager, space, gpa(2 * PAGE_SIZE)));
    CHECK_EQ(serve(), 1); /* where nobody looked again it is loaded, too, and stays parked */
    CHECK_STATUS(access_page(b, 2, ACCESS_READ, 1), CLEAVE_FAULT);
    protect(b, 1, 4, RIGHT_READ);
    check_reads(b, 2);
    CHECK_EQ(b->stats.loads, 0);
    check_audit();
}

/* A fork of a snapshot whose pages may not be read: what it loads through its base is parked there.
 */
TEST(loaded_through_a_base_that_is_hidden)
{
    struct space *still;
    start();
    protect(space, 1, 4, 0);
    REQUIRE_OK(space_snapshot(ctx, space, UINT64_MAX, &still));
    struct space *a = fork_of(still), *b = fork_of(still);
    protect(a, 1, 4, RIGHT_READ | RIGHT_WRITE);
    protect(b, 1, 4, RIGHT_READ | RIGHT_WRITE);
    CHECK_STATUS(access_page(a, 3, ACCESS_READ, 0), CLEAVE_WAIT);
    CHECK_EQ(serve(), 1);
    check_reads(a, 3);
    CHECK_EQ(looked_up(still, 3).kind, PTE_KIND_PARKED);
    check_reads(b, 3);
    CHECK_EQ(serve(), 0);
    CHECK_EQ(b->stats.loads, 0);
    guest_write(b, 3, 7);
    check_reads(a, 3);
    check_audit();
}

/* What may be read again but was not yet is loaded for the hypervisor's own read of it, also in a
 * snapshot. */
TEST(read_of_what_was_given_back)
{
    unsigned char found[PAGE_SIZE], expected[PAGE_SIZE];
    struct space *still;
    start();
    protect(space, 1, 4, 0);
    protect(space, 1, 4, RIGHT_READ);
    REQUIRE_OK(space_snapshot(ctx, space, UINT64_MAX, &still));
    CHECK_STATUS(space_read(ctx, still, gpa(PAGE_SIZE), found, PAGE_SIZE, &waits[0]), CLEAVE_WAIT);
    CHECK_EQ(serve(), 1);
    REQUIRE_OK(space_read(ctx, still, gpa(PAGE_SIZE), found, PAGE_SIZE, &waits[0]));
    store_page(expected, OFFSET + 1);
    CHECK_BYTES(found, expected, PAGE_SIZE);
    check_reads(space, 1);
    CHECK_EQ(serve(), 0);
    check_audit();
}

/* A parked paged entry that is split stays parked in all its parts: who shares the table later and
 * loads one shows it to nobody else. */
TEST(huge_entry_split_while_hidden)
{
    start_huge();
    uint64_t page = huge_at * level_pages(1);
    protect(space, page, level_pages(1), 0);
    host_fail_allocation(1); /* of a block */
    CHECK_OK(pager_prefetch(ctx, pager, space, gpa((page + 1) * PAGE_SIZE)));
    host_fail_allocation(0);
    CHECK_EQ(looked_up(space, page).level, 0);
    struct space *a = fork_of(space);
    protect(a, page, level_pages(1), RIGHT_ALL);
    CHECK_STATUS(access_page(a, page + 2, ACCESS_READ, 0), CLEAVE_WAIT);
    (void)serve();
    check_reads(a, page + 2);
    CHECK_STATUS(access_page(space, page + 2, ACCESS_READ, 1), CLEAVE_FAULT);
    CHECK_EQ(looked_up(space, page + 3).kind, PTE_KIND_PARKED);
    check_audit();
}

/* As moved_entries_are_not_the_bases, of an entry that is parked while it moves. */
TEST(moved_while_hidden)
{
    uint64_t copies;
    struct load_request request;
    start_with_base();
    REQUIRE_OK(pager_prefetch(ctx, pager, snapshot, gpa(2 * PAGE_SIZE)));
    CHECK_EQ(serve(), 1);
    REQUIRE_OK(space_unmap(ctx, first, gpa(2 * PAGE_SIZE), PAGE_SIZE));
    protect(first, 3, 1, 0);
    REQUIRE_OK(space_move(ctx, first, gpa(3 * PAGE_SIZE), gpa(2 * PAGE_SIZE), PAGE_SIZE, &copies));
    CHECK_STATUS(access_page(first, 2, ACCESS_READ, 0), CLEAVE_FAULT);
    protect(first, 2, 1, RIGHT_READ);
    CHECK_STATUS(access_page(first, 2, ACCESS_READ, 0), CLEAVE_WAIT);
    if (CHECK(take(&request))) {
        CHECK_EQ(request.offset, OFFSET + 3);
        CHECK_OK(pager_done(ctx, pager, request.id, true));
    }
    check_audit();
}
