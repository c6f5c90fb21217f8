/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pools: frames of every order, what becomes whole again, edges, reservations, quotas near the
 * limits of their type, accounts that outlive their owner, what is set aside, and the books after
 * each step.
 */
#include <stdlib.h>
#include <string.h>

#include "scene.h"

static struct payer payer; /* of an account of its own */

static void start(uint64_t blocks, uint64_t limit)
{
    scene_start(blocks);
    payer = (struct payer){.pool = scene.pool};
    REQUIRE_OK(account_create(scene.ctx, scene.pool, limit, &payer.account));
    scene_audit();
}

static uint64_t charged(uint32_t account) { return account_of(scene.pool, account)->charged; }

static pfn_t take(unsigned order)
{
    pfn_t f;
    REQUIRE_OK(pool_alloc(scene.ctx, &payer, order, FRAME_DATA, &f));
    REQUIRE(f.v != 0);
    return f;
}

/* The audit knows nothing of frames that no space maps, so the books are looked at here. */
struct books {
    uint64_t free, reserved, aside, data, charged;
};
static struct books books(void)
{
    const struct pool *pool = scene.pool;
    uint64_t used = 0;
    for (unsigned kind = 0; kind < FRAME_KINDS; kind++) {
        used += pool->kind[kind];
    }
    CHECK_EQ(used + pool->free, pool->frames);
    return (struct books){pool->free, pool->reserved, pool->aside, pool->kind[FRAME_DATA],
                          charged(payer.account)};
}
/* hugemmap10: each counter is predicted after each operation. */
static void predict(struct books before, int64_t free, int64_t reserved, int64_t aside)
{
    struct books now = books();
    CHECK_EQ(now.free, before.free + (uint64_t)free);
    CHECK_EQ(now.reserved, before.reserved + (uint64_t)reserved);
    CHECK_EQ(now.aside, before.aside + (uint64_t)aside);
    CHECK_EQ(now.data, before.data - (uint64_t)free);
    CHECK_EQ(now.charged, before.charged - (uint64_t)free);
}

/* --- Orders ----------------------------------------------------------------------------------- */

TEST(every_order_is_aligned_and_booked)
{
    start(3 * TABLE_ENTRIES, UINT64_MAX);
    for (unsigned order = 0; order < LEAF_ORDERS; order++) {
        struct books before = books();
        pfn_t f = take(order);
        int64_t pages = (int64_t)level_pages(order);
        CHECK_EQ(f.v % level_pages(order), 0);
        CHECK(f.v >= scene.pool->start.v && f.v + level_pages(order) <= scene.pool->end.v);
        CHECK_EQ(frame_of(f, order)->count, 1);
        CHECK_EQ(frame_of(f, order)->account, payer.account);
        CHECK_EQ(frame_kind(frame_of(f, order)), FRAME_DATA);
        CHECK_EQ(pool_of(f), scene.pool);
        predict(before, -pages, 0, 0);
        frame_put(scene.ctx, f, order);
        predict(before, 0, 0, 0);
    }
    account_release(scene.ctx, scene.pool, payer.account);
    scene_end();
}

/* All frames of the pool, one by one; then in an order of their own they go back, and all blocks
 * and 1 GiB blocks are whole again. */
static unsigned count_order(unsigned order)
{
    pfn_t f[64];
    unsigned n = 0;
    while (n < 64 && pool_alloc(scene.ctx, &payer, order, FRAME_DATA, &f[n]) == CLEAVE_OK) {
        n++;
    }
    for (unsigned i = 0; i < n; i++) {
        frame_put(scene.ctx, f[i], order);
    }
    return n;
}

static void take_all_and_give_back(uint64_t stride)
{
    uint64_t n = 0, room = scene.pool->free;
    pfn_t *all = malloc((room + 1) * sizeof(*all)); /* a refusal is stored, too */
    struct books before = books();
    while (pool_alloc(scene.ctx, &payer, 0, FRAME_DATA, &all[n]) == CLEAVE_OK) {
        n++;
        REQUIRE(n <= room);
    }
    CHECK_EQ(n, room);
    predict(before, -(int64_t)n, 0, 0);
    for (uint64_t k = 0; k < stride; k++) {
        for (uint64_t i = k; i < n; i += stride) {
            frame_put(scene.ctx, all[i], 0);
        }
    }
    predict(before, 0, 0, 0);
    free(all);
}

TEST(freed_frames_become_blocks_again)
{
    start(2 * TABLE_ENTRIES + 3, UINT64_MAX);
    unsigned gigas = count_order(2), blocks = count_order(1);
    CHECK_EQ(gigas, 1); /* the other one holds the pool's own objects */
    for (uint64_t stride = 1; stride <= 7; stride += BLOCK > 4 ? 6 : 3) {
        take_all_and_give_back(stride);
        CHECK_EQ(count_order(2), gigas);
        CHECK_EQ(count_order(1), blocks);
        scene_audit();
    }
    account_release(scene.ctx, scene.pool, payer.account);
    scene_end();
}

/* A part that stays in use keeps its block, and only that, from becoming whole. */
TEST(one_frame_in_use_keeps_its_block)
{
    start(2 * TABLE_ENTRIES, UINT64_MAX);
    pfn_t giga = take(2);
    CHECK_EQ(count_order(2), 0);
    frame_put(scene.ctx, giga, 2);
    pfn_t blocks[4096];
    uint64_t n = 0;
    while (n < 4096 && pool_alloc(scene.ctx, &payer, 1, FRAME_DATA, &blocks[n]) == CLEAVE_OK) {
        n++;
    }
    CHECK_EQ(count_order(2), 0);
    pfn_t kept = PFN_NONE;
    for (uint64_t i = 0; i < n; i++) {
        if (kept.v == 0 && blocks[i].v / GIGA == giga.v / GIGA) {
            kept = blocks[i];
        } else {
            frame_put(scene.ctx, blocks[i], 1);
        }
    }
    CHECK_EQ(count_order(2), 0);
    frame_put(scene.ctx, kept, 1);
    CHECK_EQ(count_order(2), 1);
    account_release(scene.ctx, scene.pool, payer.account);
    scene_end();
}

/* --- Edges ------------------------------------------------------------------------------------ */

/* Pools that begin and end anywhere inside 1 GiB blocks, beside each other. */
TEST(pools_with_partial_edges)
{
    struct pool *pool[3];
    host_start(&(struct host_options){.frames = 6 * GIGA});
    struct mm_ctx *ctx = host_ctx(0);
    uint64_t at = GIGA + BLOCK;
    const uint64_t sizes[] = {BLOCK, GIGA + 2 * BLOCK, GIGA - BLOCK};
    for (unsigned i = 0; i < 3; i++) {
        REQUIRE_OK(pool_create(ctx, pfn((uint32_t)at), pfn((uint32_t)(at + sizes[i])), &pool[i]));
        CHECK_EQ(pool[i]->frames, sizes[i]);
        at += sizes[i];
    }
    for (unsigned i = 0; i < 3; i++) {
        uint64_t n = 0;
        pfn_t f;
        struct payer all = {.pool = pool[i]};
        while (pool_alloc(ctx, &all, 0, FRAME_DATA, &f) == CLEAVE_OK) {
            REQUIRE(f.v >= pool[i]->start.v && f.v < pool[i]->end.v);
            CHECK_EQ(pool_of(f), pool[i]);
            n++;
        }
        CHECK_EQ(pool[i]->free, 0);
        CHECK_EQ(n + pool[i]->kind[FRAME_OBJECT], sizes[i]);
        for (uint64_t p = pool[i]->start.v; p < pool[i]->end.v; p++) {
            if (frame_kind(frame_of(pfn((uint32_t)p), 0)) == FRAME_DATA) {
                frame_put(ctx, pfn((uint32_t)p), 0);
            }
        }
        CHECK_EQ(pool[i]->free, n);
        CHECK_OK(pool_destroy(ctx, pool[i]));
        CHECK(pool_of(pool[i]->start) == NULL);
    }
}

TEST(pool_create_refuses)
{
    struct pool *pool = NULL;
    host_start(&(struct host_options){.frames = 3 * GIGA});
    struct mm_ctx *ctx = host_ctx(0);
    const uint32_t b = (uint32_t)BLOCK, end = (uint32_t)(3 * GIGA);
    const struct {
        uint32_t start, end;
        enum cleave_status status;
        const char *argument;
    } cases[] = {
        {b + 1, 2 * b, CLEAVE_ALIGN, "start"},
        {b, 2 * b + 1, CLEAVE_ALIGN, "end"},
        {0, b, CLEAVE_RANGE, "start"},
        {b, end + b, CLEAVE_RANGE, "end"},
        {b, b, CLEAVE_COUNT, "end"},
        {2 * b, b, CLEAVE_COUNT, "end"},
        {b, UINT32_MAX - b + 1, CLEAVE_RANGE, "end"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_case("case %u", i);
        CHECK_STATUS(pool_create(ctx, pfn(cases[i].start), pfn(cases[i].end), &pool),
                     cases[i].status);
        CHECK_EQ(strcmp(ctx->error.argument, cases[i].argument), 0);
        CHECK(pool == NULL);
    }
    host_fail_allocation(1); /* the page of accounts */
    CHECK_STATUS(pool_create(ctx, pfn(b), pfn(2 * b), &pool), CLEAVE_NO_MEMORY);
    host_fail_allocation(0);
    CHECK(pool_of(pfn(b)) == NULL);
    CHECK_OK(pool_create(ctx, pfn(b), pfn(3 * b), &pool));
    struct space *space;
    REQUIRE_OK(space_create(ctx, pool, UINT64_MAX, &space));
    CHECK_STATUS(pool_destroy(ctx, pool), CLEAVE_BUSY);
    REQUIRE_OK(space_destroy(ctx, space));
    CHECK_OK(pool_destroy(ctx, pool));
}

/* Refused with nothing changed. */
static void keeps(struct mm_ctx *ctx, struct pool *pool, const char *what)
{
    struct pool before = *pool;
    test_case("%s", what);
    REQUIRE(pool_destroy(ctx, pool) == CLEAVE_BUSY);
    CHECK_EQ(ctx->error.value, pool->frames - pool->free);
    CHECK_BYTES(pool, &before, sizeof(before));
    CHECK_EQ(pool_of(pool->start), pool);
}

/* Whatever a pool's memory holds, or who is to have it. */
TEST(pool_destroy_refuses_what_is_used)
{
    const struct channel_options options = {.grain = 0};
    const struct region memory = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};
    struct space *space, *control;
    struct channel *channel;
    struct pager *pager;
    struct vcpu_wait wait = {.vcpu = 1};
    uint32_t pin;
    pfn_t f;

    host_start(NULL);
    struct mm_ctx *ctx = host_ctx(0);
    struct pool *pool = host_pool(16 * level_size(1));
    struct pool *beside = host_pool(16 * level_size(1));
    payer = (struct payer){.pool = pool};
    REQUIRE_OK(space_create(ctx, beside, UINT64_MAX, &control));

    REQUIRE_OK(channel_create(ctx, pool, &options, &channel));
    keeps(ctx, pool, "a channel");
    channel_destroy(ctx, channel);

    REQUIRE_OK(pager_create(ctx, pool, control, gpa(0), &pager));
    keeps(ctx, pool, "a pager");
    REQUIRE_OK(pager_destroy(ctx, pager));

    REQUIRE_OK(pool_alloc(ctx, &payer, 0, FRAME_OBJECT, &f));
    keeps(ctx, pool, "an object");
    frame_put(ctx, f, 0);

    REQUIRE_OK(account_create(ctx, pool, UINT64_MAX, &payer.account));
    keeps(ctx, pool, "an account");
    REQUIRE_OK(pool_reserve(ctx, &payer, 1));
    keeps(ctx, pool, "a reservation");
    REQUIRE_OK(pool_alloc(ctx, &payer, 0, FRAME_DATA, &f));
    account_release(ctx, pool, payer.account);
    keeps(ctx, pool, "a frame of an account without an owner");
    frame_put(ctx, f, 0);

    pool_wait(ctx, pool, &wait, pool->frames);
    keeps(ctx, pool, "a vcpu that waits for memory");
    pool_cancel_wait(ctx, pool, &wait);
    pool_wait(ctx, pool, &wait, 1);
    keeps(ctx, pool, "a grant");
    pool_cancel_wait(ctx, pool, &wait);

    REQUIRE_OK(space_create(ctx, pool, UINT64_MAX, &space));
    keeps(ctx, pool, "a space");
    REQUIRE_OK(space_set_region(ctx, space, gpa(0), PAGE_SIZE, &memory));
    REQUIRE_OK(space_pin(ctx, space, gpa(0), PAGE_SIZE, true, &pin));
    CHECK_STATUS(space_destroy(ctx, space), CLEAVE_BUSY);
    keeps(ctx, pool, "a pin");
    REQUIRE_OK(space_unpin(ctx, space, pin));
    space_hold(space);
    REQUIRE_OK(space_destroy(ctx, space));
    keeps(ctx, pool, "a holder of a dead space");
    space_release(ctx, space);

    test_case("nothing");
    CHECK_OK(pool_destroy(ctx, pool));
    CHECK(pool_of(pool->start) == NULL);
}

/* --- Reservations ----------------------------------------------------------------------------- */

TEST(reservations_are_refused_and_never_overcommitted)
{
    start(0, UINT64_MAX);
    struct payer other = {.pool = scene.pool};
    struct books before = books();
    uint64_t free = scene.pool->free;
    static const uint64_t huge[] = {UINT32_MAX, UINT64_C(1) << 32, UINT64_MAX, UINT64_MAX / 2};
    for (unsigned i = 0; i < 4; i++) {
        CHECK_STATUS(pool_reserve(scene.ctx, &payer, huge[i]), CLEAVE_RESERVE);
        predict(before, 0, 0, 0);
    }
    CHECK_STATUS(pool_reserve(scene.ctx, &payer, free + 1), CLEAVE_RESERVE);
    CHECK_EQ(payer.reserved, 0);
    REQUIRE_OK(pool_reserve(scene.ctx, &payer, free - 10));
    predict(before, 0, (int64_t)free - 10, 0);
    /* chunk-overcommit: what is promised to one is nobody else's, whatever the order. */
    CHECK_STATUS(pool_reserve(scene.ctx, &other, 11), CLEAVE_RESERVE);
    REQUIRE_OK(pool_reserve(scene.ctx, &other, 4));
    pfn_t f;
    CHECK_STATUS(pool_alloc(scene.ctx, &other, 1, FRAME_DATA, &f),
                 BLOCK > 6 ? CLEAVE_NO_MEMORY : CLEAVE_OK);
    if (BLOCK <= 6) {
        frame_put(scene.ctx, f, 1);
    }
    pool_unreserve(scene.ctx, &other);
    /* noresv-preserve: one without a reservation gets the 10 and not one more. */
    for (unsigned i = 0; i < 10; i++) {
        REQUIRE_OK(pool_alloc(scene.ctx, &other, 0, FRAME_DATA, &f));
    }
    CHECK_STATUS(pool_alloc(scene.ctx, &other, 0, FRAME_DATA, &f), CLEAVE_NO_MEMORY);
    CHECK_EQ(scene.pool->free, scene.pool->reserved);
    /* The one that has it gets all of it; each use counts it down once (hugemmap28). */
    before = books();
    for (uint64_t i = 0; i < free - 10; i++) {
        REQUIRE_OK(pool_alloc(scene.ctx, &payer, 0, FRAME_DATA, &f));
    }
    predict(before, 10 - (int64_t)free, 10 - (int64_t)free, 0);
    CHECK_EQ(payer.reserved, 0);
    CHECK_STATUS(pool_alloc(scene.ctx, &payer, 0, FRAME_DATA, &f), CLEAVE_NO_MEMORY);
}

/* A reservation is one of 4 KiB frames: a block comes out of what is free beside it. */
TEST(reservations_are_not_for_blocks)
{
    start(0, UINT64_MAX);
    pfn_t f;
    REQUIRE_OK(pool_reserve(scene.ctx, &payer, 5));
    struct books before = books();
    f = take(1);
    predict(before, -(int64_t)BLOCK, 0, 0);
    CHECK_EQ(payer.reserved, 5);
    frame_put(scene.ctx, f, 1);
    REQUIRE_OK(pool_reserve(scene.ctx, &payer, scene.pool->free - scene.pool->reserved));
    CHECK_STATUS(pool_alloc(scene.ctx, &payer, 1, FRAME_DATA, &f), CLEAVE_NO_MEMORY);
    CHECK_EQ(payer.reserved, scene.pool->free);
    pool_unreserve(scene.ctx, &payer);
    account_release(scene.ctx, scene.pool, payer.account);
    scene_end();
}

TEST(reservations_survive_failing_allocations)
{
    start(0, UINT64_MAX);
    REQUIRE_OK(pool_reserve(scene.ctx, &payer, 5));
    for (unsigned i = 0; i < 5; i++) {
        host_fail_allocation(1); /* what is reserved cannot fail */
        pfn_t f = take(0);
        frame_put(scene.ctx, f, 0);
        CHECK_EQ(payer.reserved, 4 - i);
    }
    host_fail_allocation(0);
    pool_unreserve(scene.ctx, &payer);
    CHECK_EQ(scene.pool->reserved, 0);
    account_release(scene.ctx, scene.pool, payer.account);
    scene_end();
}

/* --- Quotas ----------------------------------------------------------------------------------- */

/* T-X19: sums that would wrap 32 or 64 bits do not pass. */
TEST(x19_quotas_near_the_limits_of_their_type)
{
    static const uint64_t limits[] = {0,
                                      1,
                                      UINT32_MAX - 1,
                                      UINT32_MAX,
                                      UINT64_C(1) << 32,
                                      (UINT64_C(1) << 32) + 1,
                                      UINT64_MAX - 1,
                                      UINT64_MAX};
    start(2 * TABLE_ENTRIES, UINT64_MAX);
    struct account *record = account_of(scene.pool, payer.account);
    for (unsigned i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        for (uint64_t below = 0; below <= GIGA; below = below == 0 ? 1 : below * TABLE_ENTRIES) {
            if (below > limits[i]) {
                continue;
            }
            REQUIRE_OK(account_set_limit(scene.ctx, scene.pool, payer.account, limits[i]));
            record->charged = limits[i] - below; /* as if so much were charged */
            for (unsigned order = 0; order < LEAF_ORDERS; order++) {
                pfn_t f;
                bool fits = level_pages(order) <= below;
                test_case("limit %#llx, %d below, order %u", (unsigned long long)limits[i],
                          (int)below, order);
                CHECK_STATUS(pool_alloc(scene.ctx, &payer, order, FRAME_DATA, &f),
                             fits ? CLEAVE_OK : CLEAVE_QUOTA);
                if (fits) {
                    CHECK_EQ(record->charged, limits[i] - below + level_pages(order));
                    frame_put(scene.ctx, f, order);
                }
                CHECK_EQ(record->charged, limits[i] - below);
            }
            uint64_t more = below + 1;
            CHECK_STATUS(pool_reserve(scene.ctx, &payer, more), CLEAVE_QUOTA);
            CHECK_STATUS(pool_reserve(scene.ctx, &payer, UINT64_MAX),
                         below == UINT64_MAX ? CLEAVE_RESERVE : CLEAVE_QUOTA);
            CHECK_EQ(payer.reserved, 0);
        }
    }
    record->charged = 0;
    account_release(scene.ctx, scene.pool, payer.account);
    scene_end();
}

TEST(quota_counts_what_is_reserved)
{
    start(0, 10);
    pfn_t f;
    CHECK_STATUS(pool_reserve(scene.ctx, &payer, 11), CLEAVE_QUOTA);
    REQUIRE_OK(pool_reserve(scene.ctx, &payer, 8));
    CHECK_STATUS(pool_reserve(scene.ctx, &payer, 3), CLEAVE_QUOTA);
    CHECK_STATUS(pool_reserve(scene.ctx, &payer, UINT64_MAX - 7), CLEAVE_QUOTA);
    CHECK_EQ(payer.reserved, 8);
    for (unsigned i = 0; i < 10; i++) {
        f = take(0);
    }
    CHECK_EQ(charged(payer.account), 10);
    CHECK_STATUS(pool_alloc(scene.ctx, &payer, 0, FRAME_DATA, &f), CLEAVE_QUOTA);
    /* A lower limit takes nothing away, it only stops what is more. */
    REQUIRE_OK(account_set_limit(scene.ctx, scene.pool, payer.account, 3));
    CHECK_EQ(charged(payer.account), 10);
    CHECK_STATUS(pool_alloc(scene.ctx, &payer, 0, FRAME_DATA, &f), CLEAVE_QUOTA);
    REQUIRE_OK(account_set_limit(scene.ctx, scene.pool, payer.account, 11));
    f = take(0);
    CHECK_STATUS(account_set_limit(scene.ctx, scene.pool, 60000, 3), CLEAVE_INVALID);
}

/* What is reserved is charged as it is drawn whatever the quota has become, and another payer of
 * the account does not get at it. What comes back into the reservation is promised again. */
TEST(what_is_reserved_is_part_of_the_quota)
{
    start(0, 10);
    struct payer other = {.pool = scene.pool, .account = payer.account};
    const struct account *account = account_of(scene.pool, payer.account);
    pfn_t f;
    REQUIRE_OK(pool_reserve(scene.ctx, &payer, 8));
    for (unsigned i = 0; i < 2; i++) {
        REQUIRE_OK(pool_alloc(scene.ctx, &other, 0, FRAME_DATA, &f));
    }
    CHECK_STATUS(pool_alloc(scene.ctx, &other, 0, FRAME_DATA, &f), CLEAVE_QUOTA);
    CHECK_STATUS(pool_reserve(scene.ctx, &other, 1), CLEAVE_QUOTA);
    f = take(0);
    CHECK_EQ(account->promised, 7);
    pool_return(scene.ctx, &payer, f);
    CHECK_EQ(account->promised, 8);
    CHECK_EQ(charged(payer.account), 2);
    CHECK_STATUS(pool_alloc(scene.ctx, &other, 0, FRAME_DATA, &f), CLEAVE_QUOTA);
    REQUIRE_OK(account_set_limit(scene.ctx, scene.pool, payer.account, 1));
    for (unsigned i = 0; i < 5; i++) {
        f = take(0);
    }
    CHECK_EQ(charged(payer.account), 7);
    CHECK_EQ(account->promised, 3);
    REQUIRE_OK(account_set_limit(scene.ctx, scene.pool, payer.account, 8));
    CHECK_STATUS(pool_alloc(scene.ctx, &other, 0, FRAME_DATA, &f), CLEAVE_QUOTA);
    pool_unreserve(scene.ctx, &payer);
    CHECK_EQ(account->promised, 0);
    REQUIRE_OK(pool_alloc(scene.ctx, &other, 0, FRAME_DATA, &f));
}

/* A record stays while something is promised to it, and goes once. */
TEST(promises_end_before_their_account)
{
    start(0, 10);
    uint32_t used = scene.pool->account_used;
    REQUIRE_OK(pool_reserve(scene.ctx, &payer, 3));
    account_release(scene.ctx, scene.pool, payer.account);
    CHECK_EQ(scene.pool->account_used, used);
    pool_unreserve(scene.ctx, &payer);
    CHECK_EQ(scene.pool->account_used, used - 1);
    pool_unreserve(scene.ctx, &payer);
    CHECK_EQ(scene.pool->account_used, used - 1);
    scene_end();
}

/* Tables and region nodes are charged to the space as well (T-X10), and a space at its limit gets
 * no more, whoever else has plenty. */
TEST(x10_tables_are_charged)
{
    start(0, UINT64_MAX);
    struct space *space = scene_space(), *poor = NULL;
    uint64_t before = charged(space->payer.account);
    CHECK_EQ(before, 2); /* object and root */
    scene_region(space, 0, 1, REGION_PRIVATE, RIGHT_ALL, 0);
    uint64_t nodes = charged(space->payer.account) - before;
    CHECK(nodes > 0);
    scene_write(space, 0, 1);
    CHECK_EQ(charged(space->payer.account), 2 + nodes + ROOT_LEVEL + 1);
    REQUIRE_OK(space_create(scene.ctx, scene.pool, 2 + nodes + ROOT_LEVEL, &poor));
    scene_region(poor, 0, 1, REGION_PRIVATE, RIGHT_ALL, 0);
    CHECK_STATUS(scene_access(poor, 0, ACCESS_WRITE), CLEAVE_QUOTA);
    scene_audit();
    REQUIRE_OK(account_set_limit(scene.ctx, scene.pool, poor->payer.account, 1000));
    scene_write(poor, 0, 1);
    account_release(scene.ctx, scene.pool, payer.account);
    scene_end();
}

/* --- Accounts --------------------------------------------------------------------------------- */

TEST(accounts_outlive_their_domain)
{
    start(0, UINT64_MAX);
    struct space *space = scene_space();
    scene_memory(space, 0, 2 * BLOCK, 1);
    scene_write(space, 0, 1);
    uint32_t account = space->payer.account;
    struct space *child = scene_fork(space);
    scene_destroy(space);
    /* The child reads frames that its parent paid for: they stay charged to it, its tables too. */
    CHECK(charged(account) >= 2 * BLOCK);
    scene_check(child, 0, 1);
    uint32_t fresh;
    REQUIRE_OK(account_create(scene.ctx, scene.pool, 7, &fresh));
    CHECK_NE(fresh, account); /* the number is not used again while something is charged to it */
    scene_audit();
    scene_write(child, 0, 2);
    scene_destroy(child);
    scene_audit();
    CHECK_EQ(charged(account), 0);
    uint32_t again = 0, more[4];
    bool found = false;
    for (unsigned i = 0; i < 4; i++) {
        REQUIRE_OK(account_create(scene.ctx, scene.pool, 7, &more[i]));
        found = found || more[i] == account;
    }
    CHECK(found); /* now it is */
    (void)again;
}

TEST(account_numbers_end)
{
    start(TABLE_ENTRIES > 4 ? 0 : 4096, UINT64_MAX);
    uint32_t account = 0, last = payer.account;
    enum cleave_status status;
    while ((status = account_create(scene.ctx, scene.pool, 1, &account)) == CLEAVE_OK) {
        REQUIRE(account > last);
        last = account;
    }
    CHECK_STATUS(status, CLEAVE_COUNT);
    CHECK(last <= 65535);
    uint64_t free = scene.pool->free;
    CHECK_STATUS(account_create(scene.ctx, scene.pool, 1, &account), CLEAVE_COUNT);
    CHECK_EQ(scene.pool->free, free);
    account_release(scene.ctx, scene.pool, last);
    REQUIRE_OK(account_create(scene.ctx, scene.pool, 1, &account));
    CHECK_EQ(account, last);
}

/* --- What two CPUs would take from each other ------------------------------------------------- */

#define LINE 64u /* bytes of a cache line */

static uint64_t line_of(const void *at) { return (uint64_t)(uintptr_t)at / LINE; }

/* Spaces made one after the other: their accounts, and the descriptors of the frames that they take
 * in turn, share no cache line. In the scaled geometry a run's descriptors all lie in one. */
TEST(successive_accounts_share_no_line)
{
    start(0, UINT64_MAX);
    struct payer other = {.pool = scene.pool};
    REQUIRE_OK(account_create(scene.ctx, scene.pool, UINT64_MAX, &other.account));
    const struct account *mine = account_of(scene.pool, payer.account);
    const struct account *theirs = account_of(scene.pool, other.account);
    uint64_t bytes = mine < theirs ? (uint64_t)((uintptr_t)theirs - (uintptr_t)mine)
                                   : (uint64_t)((uintptr_t)mine - (uintptr_t)theirs);
    CHECK(bytes >= LINE);
    struct payer *const turn[] = {&payer, &other};
    if (TABLE_ENTRIES > 64) {
        pfn_t f[8];
        for (unsigned i = 0; i < 8; i++) {
            REQUIRE_OK(pool_alloc(scene.ctx, turn[i % 2], 0, FRAME_DATA, &f[i]));
        }
        for (unsigned i = 0; i < 8; i += 2) {
            for (unsigned k = 1; k < 8; k += 2) {
                CHECK_NE(line_of(frame_of(f[i], 0)), line_of(frame_of(f[k], 0)));
            }
        }
        for (unsigned i = 0; i < 8; i++) {
            frame_put(scene.ctx, f[i], 0);
        }
    }
    account_release(scene.ctx, scene.pool, other.account);
    account_release(scene.ctx, scene.pool, payer.account);
    scene_end();
}

/* --- What is set aside ------------------------------------------------------------------------ */

TEST(aside_is_free_and_given_back_under_pressure)
{
    start(0, UINT64_MAX);
    struct space *space = scene_space();
    scene_memory(space, 0, 2 * BLOCK, 1);
    scene_write(space, 0, 1);
    struct space *child = scene_fork(space);
    scene_write(child, 1, 2);
    CHECK_EQ(scene.pool->aside, BLOCK - 1); /* one of the run is the copy */
    pfn_t copy = scene_lookup(child, 1).frame;
    CHECK_EQ(copy.v % BLOCK, 1); /* at its own offset */
    scene_audit();
    /* It counts as free: all of it can be had, and then it is no longer set aside. */
    uint64_t n = 0, room = scene.pool->free;
    pfn_t f, *all = malloc(room * sizeof(*all));
    while (pool_alloc(scene.ctx, &payer, 0, FRAME_DATA, &f) == CLEAVE_OK) {
        all[n++] = f;
    }
    CHECK_EQ(n, room);
    CHECK_EQ(scene.pool->aside, 0);
    scene_check(child, 1, 2);
    scene_check(child, 0, 1);
    for (uint64_t i = 0; i < n; i++) {
        frame_put(scene.ctx, all[i], 0);
    }
    free(all);
    scene_audit();
    /* The next copies go anywhere, and later ones to a run of their own again. */
    scene_write(child, 2, 3);
    scene_check(child, 2, 3);
    scene_check(space, 2, 0);
    scene_audit();
    scene_destroy(child);
    scene_audit();
    CHECK_EQ(scene.pool->aside, 0);
    account_release(scene.ctx, scene.pool, payer.account);
    scene_end();
}

/* A block is not set aside out of what is reserved for somebody. */
TEST(aside_takes_nothing_that_is_reserved)
{
    start(0, UINT64_MAX);
    struct space *space = scene_space();
    scene_memory(space, 0, BLOCK, 1);
    struct space *child = scene_fork(space);
    REQUIRE_OK(pool_reserve(scene.ctx, &payer, scene.pool->free - ROOT_LEVEL - 2));
    scene_write(child, 1, 2);
    scene_audit();
    pfn_t f;
    for (uint64_t left = payer.reserved; left > 0; left--) {
        REQUIRE_OK(pool_alloc(scene.ctx, &payer, 0, FRAME_DATA, &f));
    }
    CHECK(scene.pool->free <= ROOT_LEVEL + 2);
    scene_check(child, 1, 2);
}

/* I9, T-X21: what one domain wrote is read by no other, however the frame comes to it. */
TEST(x21_frames_that_change_hands_are_zeroed)
{
    start(0, UINT64_MAX);
    for (unsigned order = 0; order < 2; order++) {
        struct space *space = scene_space();
        uint64_t pages = scene.pool->free / 2 / BLOCK * BLOCK;
        scene_memory(space, 0, pages < GUEST_PAGES / 2 ? pages : GUEST_PAGES / 2, order);
        for (uint64_t i = 0; i < pages && i < GUEST_PAGES / 2; i++) {
            scene_write(space, i, 0x5ec7e7);
        }
        scene_destroy(space);
        space = scene_space();
        scene_region(space, 0, 3 * BLOCK, REGION_PRIVATE, RIGHT_ALL, order);
        for (uint64_t i = 0; i < 3 * BLOCK; i++) {
            scene_check(space, i, 0);
        }
        scene_destroy(space);
    }
    account_release(scene.ctx, scene.pool, payer.account);
    scene_end();
}
