/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pools that grow and shrink: within a 1 GiB run and across its edges, with memory in use, set
 * aside, reserved or waited for, pools beside them, and random ones beside a list of what is in
 * use.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "scene.h"

#define T ((uint64_t)TABLE_ENTRIES) /* blocks of 2 MiB in one of 1 GiB */

static struct mm_ctx *ctx;
static struct pool *pool;
static struct payer payer; /* of account 0: what a test takes by hand */
static uint64_t seed;

static uint64_t below(uint64_t n) { return test_random(&seed) % n; }

/* A machine of so many 1 GiB runs, and a pool of `blocks` from block number `first` on. */
static void start(uint64_t gigas, uint64_t first, uint64_t blocks)
{
    host_start(&(struct host_options){.frames = gigas * GIGA});
    ctx = host_ctx(0);
    REQUIRE_OK(pool_create(ctx, pfn((uint32_t)(first * BLOCK)),
                           pfn((uint32_t)((first + blocks) * BLOCK)), &pool));
    payer = (struct payer){.pool = pool};
}

static void audit(struct pool *of)
{
    struct audit_report report = {0};
    uint64_t bytes = audit_scratch_bytes(of);
    void *scratch = calloc(1, bytes);
    REQUIRE(scratch != NULL);
    REQUIRE_OK(pool_audit(ctx, of, scratch, bytes, &report));
    free(scratch);
    if (report.invariant != 0) {
        printf("  I%u: %s: table %#x, level %u, expected %#llx, found %#llx\n", report.invariant,
               report.what, report.table.v, report.level, (unsigned long long)report.expected,
               (unsigned long long)report.found);
    }
    REQUIRE_EQ(report.invariant, 0);
    host_check_locks();
}

static bool all_zero(const void *at, size_t size)
{
    const unsigned char *bytes = at;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

/* Nothing says that anybody has these frames. The map of a block that was broken once means nothing
 * while it is free. */
static void check_nobodys(uint64_t from, uint64_t to)
{
    for (uint64_t f = from; f < to; f += BLOCK) {
        pfn_t block = pfn((uint32_t)f);
        struct run run = *run_of(block, 1);
        run.free_count = 0;
        memset(run.free, 0, sizeof(run.free));
        CHECK(pool_of(block) == NULL);
        CHECK(all_zero(&run, sizeof(run)));
        CHECK(all_zero(frame_of(block, 1), sizeof(struct frame)));
        if (f % GIGA == 0 && to - f >= GIGA) {
            CHECK(all_zero(run_of(block, 2), sizeof(struct run)));
        }
    }
}

/* The size is refused, the least that would do is `least`, and nothing but what was set aside has
 * changed. */
static void refused(uint64_t frames, uint64_t least)
{
    struct pool before = *pool;
    CHECK_STATUS(pool_resize(ctx, pool, frames), CLEAVE_BUSY);
    CHECK_EQ(strcmp(ctx->error.argument, "frames"), 0);
    CHECK_EQ(ctx->error.value, frames);
    CHECK_EQ(ctx->error.low, least);
    CHECK_EQ(ctx->error.high, pool->frames);
    CHECK_BYTES(pool, &before, sizeof(before));
}

static pfn_t take(unsigned order)
{
    pfn_t f;
    REQUIRE_OK(pool_alloc(ctx, &payer, order, order == 0 ? FRAME_OBJECT : FRAME_DATA, &f));
    return f;
}

/* How many blocks of `order` could be had. */
static uint64_t count_order(struct pool *of, unsigned order)
{
    pfn_t *f = malloc(of->frames / level_pages(order) * sizeof(*f) + sizeof(*f));
    struct payer all = {.pool = of};
    uint64_t n = 0;
    while (pool_alloc(ctx, &all, order, FRAME_DATA, &f[n]) == CLEAVE_OK) {
        n++;
    }
    for (uint64_t i = 0; i < n; i++) {
        frame_put(ctx, f[i], order);
    }
    free(f);
    return n;
}

/* Takes a frame in block number `at` of the pool, and no other. */
static pfn_t occupy(uint64_t at)
{
    uint64_t n = 0, small = 0;
    pfn_t wanted = pfn_add(pool->start, at * BLOCK), found;
    pfn_t *block = malloc(pool->frames / BLOCK * sizeof(*block) + sizeof(*block));
    pfn_t *frame = malloc(pool->frames * sizeof(*frame));
    while (pool->block_partial != 0) {
        frame[small++] = take(0);
    }
    while (pool_alloc(ctx, &payer, 1, FRAME_DATA, &block[n]) == CLEAVE_OK) {
        if (block[n].v != wanted.v) {
            n++;
        }
    }
    frame_put(ctx, wanted, 1);
    found = take(0);
    CHECK_EQ(found.v / BLOCK, wanted.v / BLOCK);
    while (n > 0) {
        frame_put(ctx, block[--n], 1);
    }
    while (small > 0) {
        frame_put(ctx, frame[--small], 0);
    }
    free(block);
    free(frame);
    return found;
}

/* --- Sizes ------------------------------------------------------------------------------------ */

/* All that can be told of a pool in which nothing is: its books, its blocks of each order, whose
 * its ends are. */
static void check_empty(uint64_t blocks)
{
    uint64_t start_block = pool->start.v / BLOCK, gigas = 0;
    for (uint64_t g = (start_block + T - 1) / T; (g + 1) * T <= start_block + blocks; g++) {
        gigas += g * T != start_block; /* that one has the pool's object */
    }
    CHECK_EQ(pool->frames, blocks * BLOCK);
    CHECK_EQ(pool->end.v, pool->start.v + blocks * BLOCK);
    CHECK_EQ(pool->free, blocks * BLOCK - 2);
    CHECK_EQ(count_order(pool, 2), gigas);
    CHECK_EQ(count_order(pool, 1), blocks - 1);
    CHECK_EQ(pool_of(pool->start), pool);
    CHECK_EQ(pool_of(pfn_add(pool->end, UINT64_MAX)), pool);
    CHECK(pool_of(pool->end) != pool);
    audit(pool);
}

/* From every size to every other, wherever in a 1 GiB run it begins, with a pool before it, one far
 * behind, and one in what it gave up. */
TEST(every_size_to_every_other)
{
    const uint64_t real[] = {1, 2, T - 1, T, T + 1, 2 * T - 1, 2 * T, 2 * T + 1};
    const uint64_t offsets[] = {0, 1, T - 1};
    uint64_t sizes = BLOCK > 4 ? sizeof(real) / sizeof(real[0]) : 3 * T + 1;
    for (uint64_t i = 0; i < (BLOCK > 4 ? 3 : T); i++) {
        uint64_t first = T + (BLOCK > 4 ? offsets[i] : i);
        struct pool *beside[2], *inside, before[2];
        start(8, first, 1);
        REQUIRE_OK(pool_create(ctx, pfn((uint32_t)BLOCK), pool->start, &beside[0]));
        REQUIRE_OK(pool_create(ctx, pfn_add(pool->start, (3 * T + 1) * BLOCK),
                               pfn((uint32_t)(8 * GIGA)), &beside[1]));
        for (unsigned k = 0; k < 2; k++) {
            before[k] = *beside[k];
        }
        for (uint64_t a = 0; a < sizes; a++) {
            for (uint64_t b = 0; b < sizes; b++) {
                uint64_t from = BLOCK > 4 ? real[a] : a + 1, to = BLOCK > 4 ? real[b] : b + 1;
                test_case("block %u, %u to %u blocks", (unsigned)first, (unsigned)from,
                          (unsigned)to);
                REQUIRE_OK(pool_resize(ctx, pool, from * BLOCK));
                REQUIRE_OK(pool_resize(ctx, pool, to * BLOCK));
                check_empty(to);
                if (to < from) {
                    check_nobodys(pool->end.v, pool->start.v + from * BLOCK);
                    REQUIRE_OK(
                        pool_create(ctx, pool->end, pfn_add(pool->start, from * BLOCK), &inside));
                    audit(inside);
                    audit(pool);
                    REQUIRE_OK(pool_destroy(ctx, inside));
                    check_nobodys(pool->end.v, pool->start.v + from * BLOCK);
                }
            }
        }
        for (unsigned k = 0; k < 2; k++) {
            CHECK_BYTES(beside[k], &before[k], sizeof(before[k]));
            audit(beside[k]);
        }
        uint64_t at = pool->start.v, end = pool->end.v;
        REQUIRE_OK(pool_destroy(ctx, pool));
        check_nobodys(at, end);
        host_stop();
    }
}

TEST(resize_refuses)
{
    start(3, 1, 4);
    uint64_t most = (3 * T - 1) * BLOCK;
    const struct {
        uint64_t frames;
        enum cleave_status status;
        uint64_t low, high;
    } cases[] = {
        {0, CLEAVE_COUNT, BLOCK, most},
        {1, CLEAVE_ALIGN, BLOCK, BLOCK},
        {4 * BLOCK + 1, CLEAVE_ALIGN, BLOCK, BLOCK},
        {UINT64_MAX, CLEAVE_ALIGN, BLOCK, BLOCK},
        {most + BLOCK, CLEAVE_RANGE, BLOCK, most},
        {UINT64_C(1) << 32, CLEAVE_RANGE, BLOCK, most},
        {(UINT64_C(1) << 32) + 4 * BLOCK, CLEAVE_RANGE, BLOCK, most},
        {UINT64_MAX - BLOCK + 1, CLEAVE_RANGE, BLOCK, most},
    };
    struct pool before = *pool;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_case("case %u", i);
        CHECK_STATUS(pool_resize(ctx, pool, cases[i].frames), cases[i].status);
        CHECK_EQ(strcmp(ctx->error.argument, "frames"), 0);
        CHECK_EQ(ctx->error.value, cases[i].frames);
        CHECK_EQ(ctx->error.low, cases[i].low);
        CHECK_EQ(ctx->error.high, cases[i].high);
        CHECK_BYTES(pool, &before, sizeof(before));
    }
    CHECK_OK(pool_resize(ctx, pool, 4 * BLOCK)); /* as it is */
    CHECK_BYTES(pool, &before, sizeof(before));
    CHECK_OK(pool_resize(ctx, pool, most)); /* to the end of the machine */
    audit(pool);
}

/* --- What is in use --------------------------------------------------------------------------- */

/* One frame anywhere: the pool shrinks down to its block, and no further. */
TEST(shrinks_to_the_last_frame_in_use)
{
    const uint64_t real[] = {1, T - 2, T - 1, T, 2 * T - 2, 2 * T - 1, 2 * T, 2 * T + 1};
    const uint64_t blocks = 2 * T + 2;
    for (uint64_t first = T; first < T + (BLOCK > 4 ? 2 : T); first++) {
        start(5, first, blocks);
        for (uint64_t i = 0; i < (BLOCK > 4 ? 8 : blocks - 1); i++) {
            uint64_t used = BLOCK > 4 ? real[i] : i + 1;
            test_case("block %u, block %u in use", (unsigned)first, (unsigned)used);
            REQUIRE_OK(pool_resize(ctx, pool, blocks * BLOCK));
            pfn_t f = occupy(used);
            for (uint64_t to = 1; to <= used; to += BLOCK > 4 ? T / 2 : 1) {
                refused(to * BLOCK, (used + 1) * BLOCK);
            }
            REQUIRE_OK(pool_resize(ctx, pool, (used + 1) * BLOCK));
            audit(pool);
            CHECK_EQ(pool_of(f), pool);
            check_nobodys(pool->end.v, pool->start.v + blocks * BLOCK);
            refused(used * BLOCK, (used + 1) * BLOCK);
            REQUIRE_OK(pool_resize(ctx, pool, blocks * BLOCK)); /* around what is in use */
            audit(pool);
            frame_put(ctx, f, 0);
            check_empty(blocks);
            REQUIRE_OK(pool_resize(ctx, pool, BLOCK));
            check_empty(1);
        }
        REQUIRE_OK(pool_destroy(ctx, pool));
        host_stop();
    }
}

/* A 1 GiB block in use, and whatever becomes of it. */
TEST(shrinks_to_a_giant_in_use)
{
    start(6, T, 3 * T);
    pfn_t giga = take(2);
    uint64_t number = giga.v / GIGA - 1;
    refused(BLOCK, (number + 1) * GIGA);
    /* Held whole once, and part by part: the blocks are still to be settled when that goes. */
    REQUIRE_OK(frame_get(ctx, giga, 2));
    REQUIRE_OK(frame_split(ctx, giga, 2));
    for (uint64_t i = 0; i < T; i++) {
        REQUIRE_OK(frame_split(ctx, pfn_add(giga, i * BLOCK), 1));
    }
    frame_put(ctx, giga, 2);
    CHECK(run_of(giga, 2)->unsettled != 0);
    refused(BLOCK, (number + 1) * GIGA);
    for (uint64_t i = T / 2 * BLOCK; i < GIGA; i += BLOCK) {
        frame_put_run(ctx, pfn_add(giga, i), 0, BLOCK);
    }
    refused(BLOCK, (number + 1) * GIGA); /* free as they are, they are not settled */
    while (!table_reap(ctx, pool)) {
    }
    CHECK_EQ(run_of(giga, 2)->unsettled, 0);
    uint64_t half = number * GIGA + GIGA / 2;
    refused(BLOCK, half);
    REQUIRE_OK(pool_resize(ctx, pool, half));
    check_nobodys(pool->end.v, pool->start.v + 3 * GIGA);
    CHECK_EQ(pool_of(giga), pool);
    for (uint64_t i = 0; i < T / 2 * BLOCK; i += BLOCK) {
        frame_put_run(ctx, pfn_add(giga, i), 0, BLOCK);
    }
    check_empty(half / BLOCK);
    REQUIRE_OK(pool_resize(ctx, pool, 3 * GIGA));
    check_empty(3 * T);
}

/* All of an edge is in use when the rest of its 1 GiB run comes; then it is one block, and that is
 * free. */
TEST(an_edge_in_use_becomes_a_giant)
{
    start(4, T + 1, 2 * T - 2);
    const uint64_t last = 2 * T; /* first block of the run that the end lies in */
    pfn_t *block = malloc(4 * T * sizeof(*block));
    uint64_t n = 0;
    while (pool_alloc(ctx, &payer, 1, FRAME_DATA, &block[n]) == CLEAVE_OK) {
        n++;
    }
    CHECK_EQ(n, 2 * T - 3);
    REQUIRE_OK(pool_resize(ctx, pool, (2 * T - 1) * BLOCK));
    CHECK_EQ(run_of(pfn((uint32_t)(last * BLOCK)), 2)->pool, pool->start.v);
    while (pool_alloc(ctx, &payer, 1, FRAME_DATA, &block[n]) == CLEAVE_OK) {
        n++;
    }
    CHECK_EQ(n, 2 * T - 2);
    pfn_t giga = pfn((uint32_t)(last * BLOCK));
    REQUIRE_OK(frame_merge(ctx, giga, 2));
    refused(BLOCK, (2 * T - 1) * BLOCK);
    for (uint64_t i = 0; i < n; i++) {
        CHECK_EQ(pool_of(block[i]), pool);
        if (block[i].v < giga.v) {
            frame_put(ctx, block[i], 1);
        }
    }
    frame_put(ctx, giga, 2);
    check_empty(2 * T - 1);
    free(block);
    REQUIRE_OK(pool_resize(ctx, pool, BLOCK)); /* the whole run at once: no mark of a block stays */
    check_nobodys(pool->end.v, (3 * T) * BLOCK);
    REQUIRE_OK(pool_destroy(ctx, pool));
    check_nobodys(BLOCK, 4 * GIGA);
}

static unsigned points;
static pfn_t held;

static void on_owner(struct mm_ctx *of, enum port_point point, uint64_t a, uint64_t b, void *arg)
{
    (void)of, (void)arg, (void)b;
    if (point == POINT_OWNER) {
        points++;
        CHECK_EQ(a, held.v / GIGA * GIGA);
        CHECK_EQ(pool_of(held), pool);
    }
}

/* Who asks whose a frame in use is takes no lock, and is told at every moment. */
TEST(a_frame_in_use_is_never_nobodys)
{
    TEST_NEEDS_HOOKS();
    start(5, T, T + 2);
    held = occupy(T);
    host_on_point(on_owner, NULL);
    for (unsigned i = 1; i <= 3; i++) {
        REQUIRE_OK(pool_resize(ctx, pool, 2 * GIGA));
        CHECK_EQ(points, 2 * i - 1);
        CHECK_EQ(pool_of(held), pool);
        REQUIRE_OK(pool_resize(ctx, pool, 2 * GIGA - BLOCK));
        CHECK_EQ(points, 2 * i);
        CHECK_EQ(pool_of(held), pool);
        audit(pool);
    }
    host_on_point(NULL, NULL);
}

/* Who found a free frame by its number, and takes it when the pool has given it up: it is another
 * pool's. */
TEST(a_frame_given_up_is_not_taken)
{
    pfn_t f;
    struct pool *other;
    start(4, T, 2 * T);
    REQUIRE_OK(pool_resize(ctx, pool, GIGA));
    REQUIRE_OK(pool_create(ctx, pool->end, pfn_add(pool->end, GIGA), &other));
    struct pool before = *other;
    f = pfn_add(other->start, 3); /* free in a broken run */
    CHECK_STATUS(pool_alloc_at(ctx, &payer, f, FRAME_DATA), CLEAVE_NO_MEMORY);
    CHECK_BYTES(other, &before, sizeof(before));
    audit(other);
    audit(pool);
}

/* Another CPU has freed the last of a block or 1 GiB run, and is about to lower how many of its
 * parts are in use, and to let go of its locks. */
TEST(a_run_given_up_is_left_as_it_is_held)
{
    for (uint64_t blocks = 1; blocks <= 2 * T; blocks += T / 2) {
        start(5, T, 3 * T);
        struct run *giga = run_of(pfn_add(pool->start, 2 * GIGA), 2);
        struct run *block = run_of(pfn_add(pool->start, 3 * GIGA - BLOCK), 1);
        giga->used = 1;
        giga->lock.held = block->lock.held = 1;
        REQUIRE_OK(pool_resize(ctx, pool, blocks * BLOCK));
        CHECK_EQ(giga->used, 1);
        CHECK_EQ(giga->lock.held, 1);
        CHECK_EQ(block->lock.held, 1);
        CHECK_EQ(giga->pool, 0);
        host_stop();
    }
}

/* --- What is set aside, reserved, waited for -------------------------------------------------- */

/* Runs set aside of which nothing is used end, one for each unit of work; of which a frame is used,
 * not. */
TEST(set_aside_runs_end)
{
    start(5, T + 1, 3 * T);
    pfn_t table, first = PFN_NONE;
    REQUIRE_OK(pool_alloc(ctx, &payer, 0, FRAME_TABLE, &table));
    uint64_t runs = 0;
    while ((first = pool_set_aside(ctx, pool, table)).v != 0) {
        runs++;
    }
    CHECK_EQ(runs, 3 * T - 1);
    CHECK_EQ(pool->aside, runs * BLOCK);
    uint64_t calls = 0, size = pool->frames, free = pool->free;
    enum cleave_status status;
    do {
        ctx->budget = 1;
        status = pool_resize(ctx, pool, BLOCK + GIGA);
        CHECK_EQ(pool->frames, status == CLEAVE_OK ? BLOCK + GIGA : size);
        CHECK_EQ(pool->free, status == CLEAVE_OK ? free - (2 * T - 1) * BLOCK : free);
        calls++;
    } while (status == CLEAVE_AGAIN);
    ctx->budget = UINT64_MAX;
    REQUIRE_OK(status);
    CHECK_EQ(calls, 2 * T - 1);
    CHECK_EQ(pool->aside, T * BLOCK);
    check_nobodys(pool->end.v, pool->start.v + size);
    /* A copy in one of them, which stays: those behind it end, those before it do not. */
    pfn_t copy = pfn_add(pool->start, 2 * BLOCK + 1);
    REQUIRE_OK(pool_alloc_at(ctx, &payer, copy, FRAME_OBJECT));
    CHECK_STATUS(pool_resize(ctx, pool, BLOCK), CLEAVE_BUSY);
    CHECK_EQ(ctx->error.low, 3 * BLOCK);
    CHECK_EQ(pool->aside, 2 * BLOCK - 1);
    REQUIRE_OK(pool_resize(ctx, pool, 3 * BLOCK));
    CHECK_EQ(pool->aside, 2 * BLOCK - 1);
    frame_put(ctx, copy, 0);
    REQUIRE_OK(pool_resize(ctx, pool, BLOCK));
    CHECK_EQ(pool->aside, 0);
    CHECK(node_put(ctx, table));
    pool_free(ctx, table, 0);
    check_empty(1);
}

TEST(what_is_reserved_stays)
{
    start(4, T, 2 * T + 1);
    for (uint64_t left = 0; left < 3; left++) {
        uint64_t frames = pool->free - (T + 1) * BLOCK - left;
        test_case("%u frames more than a block", (unsigned)left);
        REQUIRE_OK(pool_reserve(ctx, &payer, frames));
        /* Of the T + 1 blocks, and `left` frames, that are not reserved. */
        refused(BLOCK, T * BLOCK);
        refused((T - 1) * BLOCK, T * BLOCK);
        REQUIRE_OK(pool_resize(ctx, pool, T * BLOCK));
        CHECK_EQ(pool->free - pool->reserved, left);
        refused((T - 1) * BLOCK, T * BLOCK);
        REQUIRE_OK(pool_resize(ctx, pool, (2 * T + 1) * BLOCK));
        pool_unreserve(ctx, &payer);
        audit(pool);
    }
    /* What is in use says more. */
    pfn_t f = occupy(T + 2);
    REQUIRE_OK(pool_reserve(ctx, &payer, pool->free - 2 * T * BLOCK));
    refused(BLOCK, (T + 3) * BLOCK);
    frame_put(ctx, f, 0);
    pool_unreserve(ctx, &payer);
    check_empty(2 * T + 1);
}

static unsigned woken;
static void on_wake(struct vcpu_wait *wait, void *arg)
{
    (void)wait, (void)arg;
    woken++;
}

TEST(growth_wakes_who_waits)
{
    struct vcpu_wait wait[3] = {{.vcpu = 0}, {.vcpu = 1}, {.vcpu = 2}};
    start(4, T, 2);
    host_on_wake(on_wake, NULL);
    pfn_t *all = malloc(pool->frames * sizeof(*all));
    uint64_t n = 0;
    while (pool_alloc(ctx, &payer, 0, FRAME_OBJECT, &all[n]) == CLEAVE_OK) {
        n++;
    }
    pool_wait(ctx, pool, &wait[0], 1);
    pool_wait(ctx, pool, &wait[1], BLOCK);
    pool_wait(ctx, pool, &wait[2], 1);
    REQUIRE_OK(pool_resize(ctx, pool, 3 * BLOCK));
    CHECK_EQ(woken, 1); /* first come, first served: the second has not enough yet */
    CHECK_EQ(wait[0].grant.reserved, 1);
    CHECK_EQ(pool->reserved, 1);
    refused(2 * BLOCK, 3 * BLOCK); /* what was granted is not given up */
    audit(pool);
    REQUIRE_OK(pool_resize(ctx, pool, T * BLOCK));
    CHECK_EQ(woken, 3);
    CHECK_EQ(pool->reserved, BLOCK + 2);
    refused(2 * BLOCK, 4 * BLOCK);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(wait[i].kind, WAIT_NONE);
        pool_cancel_wait(ctx, pool, &wait[i]);
    }
    REQUIRE_OK(pool_resize(ctx, pool, 2 * BLOCK));
    while (n > 0) {
        frame_put(ctx, all[--n], 0);
    }
    free(all);
    check_empty(2);
}

/* Guests fill what a pool gains, and have their bytes through all of its sizes. */
TEST(guests_run_through_it)
{
    start(BLOCK > 4 ? 4 : 40, T + 1, BLOCK > 4 ? 4 : 12);
    uint64_t least = pool->frames, most = BLOCK > 4 ? 2 * GIGA : 32 * GIGA;
    struct space *space, *child;
    const struct region memory = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};
    REQUIRE_OK(space_create(ctx, pool, UINT64_MAX, &space));
    REQUIRE_OK(space_set_region(ctx, space, gpa(0), 8 * GIGA << PAGE_SHIFT, &memory));
    REQUIRE_OK(host_cpu_run(1, space));
    uint64_t written = 0, tag;
    for (uint64_t size = least + BLOCK; size <= most; size = size * 3 / 2 / BLOCK * BLOCK) {
        REQUIRE_OK(pool_resize(ctx, pool, size));
        enum cleave_status status = CLEAVE_OK;
        while (status == CLEAVE_OK && written < 32 * BLOCK) {
            tag = SCENE_TAG(written);
            status = host_cpu_write(1, PAGE(written), &tag, sizeof(tag));
            written += status == CLEAVE_OK ? BLOCK / 2 : 0;
        }
        CHECK(status == CLEAVE_OK || status == CLEAVE_NO_MEMORY);
        audit(pool);
        enum cleave_status shrunk = pool_resize(ctx, pool, least);
        CHECK(shrunk == CLEAVE_BUSY && ctx->error.low <= size);
        REQUIRE_OK(pool_resize(ctx, pool, ctx->error.low));
        audit(pool);
    }
    REQUIRE_OK(pool_resize(ctx, pool, most));
    REQUIRE_OK(space_fork(ctx, space, 1, &(struct fork_options){.limit = UINT64_MAX}, &child));
    REQUIRE_OK(host_cpu_run(2, child));
    for (uint64_t at = 0; at < written; at += BLOCK / 2) {
        REQUIRE_OK(host_cpu_read(2, PAGE(at), &tag, sizeof(tag)));
        CHECK_EQ(tag, SCENE_TAG(at));
        tag = at;
        REQUIRE_OK(host_cpu_write(2, PAGE(at), &tag, sizeof(tag)));
        REQUIRE_OK(host_cpu_read(1, PAGE(at), &tag, sizeof(tag)));
        CHECK_EQ(tag, SCENE_TAG(at));
    }
    audit(pool);
    host_cpu_stop(1);
    host_cpu_stop(2);
    REQUIRE_OK(space_destroy(ctx, child));
    REQUIRE_OK(space_destroy(ctx, space));
    while (!table_reap(ctx, pool)) {
    }
    host_tlb_check();
    audit(pool);
}

/* --- Beside others ---------------------------------------------------------------------------- */

static struct space *parent, *child;
static bool wrong;

/* A fork that is to copy pages, and a pool whose end lies in the middle of a 1 GiB run. */
static void race_setup(void *arg)
{
    const struct region memory = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};
    (void)arg;
    wrong = false;
    start(BLOCK > 4 ? 4 : 24, T + 1, BLOCK > 4 ? 40 : 6 * T);
    REQUIRE_OK(space_create(ctx, pool, UINT64_MAX, &parent));
    REQUIRE_OK(space_set_region(ctx, parent, gpa(0), 4 * BLOCK << PAGE_SHIFT, &memory));
    REQUIRE_OK(space_populate(ctx, parent, gpa(0), 4 * BLOCK << PAGE_SHIFT));
    REQUIRE_OK(space_fork(ctx, parent, 1, &(struct fork_options){.limit = UINT64_MAX}, &child));
}

static void race_write(struct mm_ctx *on, void *arg)
{
    uint64_t tag = 1;
    (void)arg;
    wrong |= host_cpu_run(on->cpu, child) != CLEAVE_OK;
    for (uint64_t page = 0; page < 2 * BLOCK; page += BLOCK / 2) {
        wrong |= host_cpu_write(on->cpu, PAGE(page), &tag, sizeof(tag)) != CLEAVE_OK;
    }
    host_cpu_stop(on->cpu);
}

/* Down to what is in use at the moment, which may be more already when that size is asked for, and
 * far up again. */
static void race_resize(struct mm_ctx *on, void *arg)
{
    uint64_t most = (BLOCK > 4 ? 2 * T : 12 * T) * BLOCK;
    (void)arg;
    for (unsigned i = 0; i < 2; i++) {
        wrong |= pool_resize(on, pool, most) != CLEAVE_OK;
        host_sched_yield();
        enum cleave_status status = pool_resize(on, pool, BLOCK);
        wrong |= status != CLEAVE_BUSY;
        uint64_t least = on->error.low;
        host_sched_yield();
        status = pool_resize(on, pool, least);
        wrong |= status != CLEAVE_OK && (status != CLEAVE_BUSY || on->error.low <= least);
        host_sched_yield();
    }
    wrong |= pool_resize(on, pool, most) != CLEAVE_OK;
}

static bool race_check(void *arg)
{
    (void)arg;
    audit(pool);
    host_tlb_check();
    return !wrong;
}

TEST(beside_a_writer)
{
    struct host_sched sched = {.setup = race_setup,
                               .cpus = 2,
                               .body = {race_resize, race_write},
                               .check = race_check,
                               .max_preemptions = test_preemptions(2),
                               .max_schedules = BLOCK > 4 ? 300 : 3000};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.schedules > 10);
}

static volatile bool over;

/* Takes and gives back what there is, of all orders, and asks whose it is meanwhile. */
static void *take_and_give(void *arg)
{
    unsigned cpu = *(unsigned *)arg;
    uint64_t state = cpu, strange = 0;
    struct payer mine = {.pool = pool};
    struct mm_ctx *on = host_ctx(cpu);
    host_cpu_attach(cpu);
    while (!over) {
        pfn_t f[8];
        unsigned order[8], n = 0;
        for (; n < 8; n++) {
            order[n] = (unsigned)(test_random(&state) % 16 < 13 ? 0 : test_random(&state) % 3);
            if (pool_alloc(on, &mine, order[n], FRAME_DATA, &f[n]) != CLEAVE_OK) {
                break;
            }
        }
        for (unsigned i = 0; i < n * 50; i++) {
            strange += pool_of(f[i % n]) != pool;
        }
        while (n > 0) {
            n--;
            frame_put(on, f[n], order[n]);
        }
    }
    host_cpu_detach(cpu);
    CHECK_EQ(strange, 0);
    return NULL;
}

TEST(beside_threads)
{
    unsigned cpu[2] = {1, 2}, done = 0;
    pthread_t thread[2];
    start(6, T + 1, T);
    seed = test_seed();
    for (unsigned i = 0; i < 2; i++) {
        REQUIRE(pthread_create(&thread[i], NULL, take_and_give, &cpu[i]) == 0);
    }
    for (uint64_t i = 0; i < test_steps(BLOCK > 4 ? 20000 : 200000); i++) {
        enum cleave_status status = pool_resize(ctx, pool, (1 + below(4 * T)) * BLOCK);
        REQUIRE(status == CLEAVE_OK || status == CLEAVE_BUSY);
        done += status == CLEAVE_OK;
    }
    over = true;
    for (unsigned i = 0; i < 2; i++) {
        REQUIRE(pthread_join(thread[i], NULL) == 0);
    }
    CHECK(done > 100);
    REQUIRE_OK(pool_resize(ctx, pool, T * BLOCK));
    check_empty(T);
    REQUIRE_OK(pool_resize(ctx, pool, 4 * T * BLOCK));
    check_empty(4 * T);
}

/* --- Random ones ------------------------------------------------------------------------------ */

#define HELD 256

static struct {
    pfn_t f;
    unsigned order;
} hold[HELD];
static unsigned holds;
/* Frames behind the last that is held: where the pool may end, but for what is reserved. */
static uint64_t naive_end(void)
{
    uint64_t end = pool->start.v + BLOCK;
    for (unsigned i = 0; i < holds; i++) {
        uint64_t behind = hold[i].f.v / BLOCK * BLOCK;
        behind += hold[i].order == 0 ? BLOCK : level_pages(hold[i].order);
        end = behind > end ? behind : end;
    }
    return end;
}

static void try_resize(uint64_t most)
{
    uint64_t frames = (1 + below(most)) * BLOCK, old = pool->frames;
    uint64_t end = naive_end(), spare = (pool->free - pool->reserved) / BLOCK * BLOCK;
    uint64_t least = end - pool->start.v;
    least = least > old - spare ? least : old - spare;
    if (frames < least) {
        refused(frames, least);
        return;
    }
    REQUIRE_OK(pool_resize(ctx, pool, frames));
    CHECK_EQ(pool->frames, frames);
    for (unsigned i = 0; i < holds; i++) {
        CHECK_EQ(pool_of(hold[i].f), pool);
    }
}

static void check_books(void)
{
    uint64_t used = 2;
    for (unsigned i = 0; i < holds; i++) {
        used += level_pages(hold[i].order);
    }
    CHECK_EQ(pool->free, pool->frames - used);
    if (holds == 0 && pool->reserved == 0) {
        audit(pool);
    }
}

static void random_step(uint64_t most)
{
    unsigned order = (unsigned)below(3);
    uint64_t n = pool->free - pool->reserved;
    switch (below(8)) {
    case 0:
    case 1:
    case 2:
        if (holds < HELD &&
            pool_alloc(ctx, &payer, order, FRAME_DATA, &hold[holds].f) == CLEAVE_OK) {
            hold[holds++].order = order;
        }
        break;
    case 3:
    case 4:
        if (holds > 0) {
            unsigned i = (unsigned)below(holds);
            frame_put(ctx, hold[i].f, hold[i].order);
            hold[i] = hold[--holds];
        }
        break;
    case 5:
        pool_unreserve(ctx, &payer);
        if (below(3) == 0 && n > 0) {
            REQUIRE_OK(pool_reserve(ctx, &payer, 1 + below(n)));
        }
        break;
    default:
        try_resize(most);
        break;
    }
}

TEST(random_beside_a_list)
{
    seed = test_seed();
    for (uint64_t turn = 0; turn < (BLOCK > 4 ? 4 : 40); turn++) {
        uint64_t first = T + below(T), most = 3 * T + below(2 * T);
        struct pool *beside;
        holds = 0;
        start(9, first, 1 + below(most));
        REQUIRE_OK(pool_create(ctx, pfn_add(pool->start, (most + 1) * BLOCK),
                               pfn_add(pool->start, (most + 3) * BLOCK), &beside));
        struct pool before = *beside;
        for (uint64_t step = 0; step < test_steps(BLOCK > 4 ? 300 : 1000); step++) {
            test_case("turn %u, step %u", (unsigned)turn, (unsigned)step);
            random_step(most);
            check_books();
            if (step % 100 == 99) {
                while (holds > 0) {
                    holds--;
                    frame_put(ctx, hold[holds].f, hold[holds].order);
                }
                check_books();
            }
        }
        pool_unreserve(ctx, &payer);
        while (holds > 0) {
            holds--;
            frame_put(ctx, hold[holds].f, hold[holds].order);
        }
        uint64_t at = pool->start.v;
        REQUIRE_OK(pool_destroy(ctx, pool));
        for (uint64_t f = at; f < at + (most + 1) * BLOCK; f += BLOCK) {
            CHECK(pool_of(pfn((uint32_t)f)) == NULL);
        }
        CHECK_BYTES(beside, &before, sizeof(before));
        audit(beside);
        host_stop();
    }
}
