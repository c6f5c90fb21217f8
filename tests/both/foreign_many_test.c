/* SPDX-License-Identifier: BSD-2-Clause */
/* Foreign maps by the thousand: what they cost, and how they end. */
#include "alloc.h"
#include "foreign.h"
#include "fork.h"
#include "host.h"
#include "random.h"
#include "shapes.h"
#include "test.h"

#define REAL (TABLE_ENTRIES > 64)
#define MANY (!REAL ? 64u : alloc_running() ? 1024u : 65536u) /* a power of two */
#define SOME (!REAL ? 40u : alloc_running() ? 500u : 10000u)
#define FEW (REAL ? 100u : 6u)
#define WINDOW (REAL ? 8 * level_size(2) : UINT64_C(0)) /* where mappers map */
#define LOOKS 64u /* nodes that one map, write or unmap may look at */

static struct pool *other_pool;
static struct space *mapper;

/* An owner with a large leaf; a mapper, where the machine is large enough in a pool of its own. */
static void set_up(void)
{
    shape_start(4);
    other_pool = REAL ? host_pool(32 * level_size(1)) : shaped.pool;
    shape_make(SHAPE_GIGA);
    REQUIRE_OK(space_create(shaped.ctx, other_pool, UINT64_MAX, &mapper));
}

static void check_all(void)
{
    struct pool *pool = shaped.pool;
    shape_check();
    shaped.pool = other_pool;
    shape_check();
    shaped.pool = pool;
}

static uint64_t page_at(unsigned i)
{
    return SHAPE_AT + i % (unsigned)(shaped.bytes / PAGE_SIZE) * PAGE_SIZE;
}
static uint64_t window_at(unsigned i) { return WINDOW + i * PAGE_SIZE; }

static void map(struct space *owner, unsigned i, struct space *to, unsigned j)
{
    REQUIRE_OK(foreign_map(shaped.ctx, owner, gpa(page_at(i)), to, gpa(window_at(j))));
}
static void unmap(struct space *from, unsigned j)
{
    REQUIRE_OK(foreign_unmap(shaped.ctx, from, gpa(window_at(j))));
}
static void map_all(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        map(shaped.space, i, mapper, i);
    }
}

/* Nodes looked at so far, where no audit comes between. */
static uint64_t looks(void)
{
    return alloc_running() ? 0 : shaped.space->foreign_pages.looks + mapper->foreign_maps.looks;
}

/* Every map of 0..MANY-1 once, in another order each time. */
struct order {
    uint64_t step, start;
};
static struct order order(uint64_t *seed)
{
    return (struct order){test_random(seed) | 1, test_random(seed)};
}
static unsigned in_order(struct order order, unsigned i)
{
    return (unsigned)(order.start + i * order.step) & (MANY - 1);
}

/* --- Mapped and unmapped ---------------------------------------------------------------------- */

TEST(one_owner_in_any_order)
{
    uint64_t seed = test_seed(), value = 0;
    set_up();
    map(shaped.space, 0, mapper, 0); /* tables of the pools are made */
    unmap(mapper, 0);
    uint64_t free = shaped.pool->free;
    struct order o = order(&seed);
    for (unsigned i = 0; i < MANY; i++) {
        map(shaped.space, in_order(o, i), mapper, in_order(o, i));
    }
    CHECK_EQ(shaped.space->foreign_count, MANY);
    check_all();
    REQUIRE_OK(host_cpu_run(1, mapper));
    for (unsigned i = 0; i < MANY; i += MANY / 8) {
        CHECK_OK(host_cpu_read(1, gpa(window_at(i)), &value, sizeof(value)));
        CHECK_EQ(value, shape_read(shaped.space, page_at(i)));
    }
    /* At most a node for each leaf. */
    CHECK(shaped.space->foreign_pages.frames <= 2 * (MANY / RADIX_FAN + 1));
    CHECK(mapper->foreign_maps.frames <= 2 * (MANY / FOREIGN_RECORDS + 2));
    o = order(&seed);
    for (unsigned i = 0; i < MANY; i++) {
        unmap(mapper, in_order(o, i));
        if (i == MANY / 2) {
            check_all();
        }
    }
    CHECK_EQ(shaped.space->foreign_count, 0);
    CHECK_EQ(shaped.space->foreign_pages.frames, 0);
    CHECK_EQ(mapper->foreign_maps.frames, 0);
    CHECK(!REAL || shaped.pool->free == free); /* else the mapper's tables stay */
    check_all();
    host_cpu_stop(1);
    uint64_t all = other_pool->free;
    shape_destroy(mapper);
    CHECK(other_pool->free > all);
    check_all();
}

/* Three owners, which share their memory, in two mappers. */
TEST(several_owners_and_mappers)
{
    uint64_t seed = test_seed();
    struct space *owner[3], *second;
    set_up();
    REQUIRE_OK(space_create(shaped.ctx, other_pool, UINT64_MAX, &second));
    owner[0] = shaped.space;
    owner[1] = shape_fork(shaped.space);
    owner[2] = shape_fork(owner[1]);
    struct space *mappers[2] = {mapper, second};
    struct order o = order(&seed);
    const unsigned count = REAL ? MANY / 4 : MANY;
    for (unsigned i = 0; i < count; i++) {
        unsigned j = in_order(o, i);
        map(owner[j % 3], j, mappers[j / 3 % 2], j);
    }
    CHECK_EQ(owner[0]->foreign_count + owner[1]->foreign_count + owner[2]->foreign_count, count);
    check_all();
    shape_destroy(second);
    check_all();
    shape_destroy(owner[1]);
    check_all();
    for (unsigned i = 0; i < count; i++) {
        unsigned j = in_order(o, i);
        if (j / 3 % 2 == 0 && j % 3 != 1) {
            unmap(mapper, j);
        }
    }
    CHECK_EQ(owner[0]->foreign_pages.frames + owner[2]->foreign_pages.frames, 0);
    CHECK_EQ(mapper->foreign_maps.frames, 0);
    check_all();
    shape_destroy(owner[2]);
}

/* What a map, a write of the owner's, a write through a map and an unmap look at does not grow with
 * the number of maps. */
TEST(cost_is_that_of_one)
{
    uint64_t first[4] = {0}, value = 7;
    set_up();
    struct space *child = shape_fork(shaped.space); /* so that writes break copies */
    REQUIRE_OK(host_cpu_run(1, mapper));
    for (unsigned round = 0; round < 2; round++) {
        unsigned base = round * (MANY - FEW - 1);
        for (unsigned i = round == 0 ? 0 : FEW; i < base; i++) {
            map(shaped.space, i, mapper, i);
        }
        for (unsigned step = 0; step < 4; step++) {
            uint64_t before = looks();
            for (unsigned i = base; i < base + FEW; i++) {
                if (step == 0) {
                    map(shaped.space, i, mapper, i);
                } else if (step == 1) {
                    shape_write(shaped.space, page_at(i), i);
                } else if (step == 2) {
                    CHECK_OK(host_cpu_write(1, gpa(window_at(i)), &value, sizeof(value)));
                } else if (round == 1) {
                    unmap(mapper, i);
                }
            }
            uint64_t each = (looks() - before) / FEW;
            test_case("round %u, step %u: %llu", round, step, (unsigned long long)each);
            CHECK(each <= LOOKS);
            CHECK(round == 0 || step == 3 || each <= first[step] + 24);
            first[step] = each;
        }
    }
    check_all();
    shape_destroy(child);
}

/* --- Ends ------------------------------------------------------------------------------------- */

TEST(owner_is_destroyed_in_steps)
{
    uint64_t value;
    unsigned calls = 0;
    enum cleave_status status;
    set_up();
    map_all(SOME);
    REQUIRE_OK(host_cpu_run(1, mapper));
    uint32_t left = shaped.space->foreign_count;
    do {
        shaped.ctx->budget = 16;
        uint64_t before = looks();
        status = space_destroy(shaped.ctx, shaped.space);
        shaped.ctx->budget = UINT64_MAX;
        if (status == CLEAVE_AGAIN && shaped.space->foreign_count != 0) {
            CHECK(left - shaped.space->foreign_count <= 17);
            CHECK(looks() - before <= 17 * LOOKS);
            left = shaped.space->foreign_count;
        }
        calls++;
        if (calls == SOME / 32) {
            host_tlb_check();
        }
    } while (status == CLEAVE_AGAIN);
    CHECK_OK(status);
    CHECK(calls >= SOME / 17);
    CHECK_EQ(mapper->foreign_maps.frames, 0);
    CHECK_STATUS(host_cpu_read(1, gpa(window_at(1)), &value, sizeof(value)), CLEAVE_FAULT);
    CHECK_STATUS(foreign_unmap(shaped.ctx, mapper, gpa(window_at(1))), CLEAVE_NOT_MAPPED);
    check_all();
}

TEST(mapper_is_destroyed_in_steps)
{
    unsigned calls = 0;
    enum cleave_status status;
    set_up();
    uint64_t free = shaped.pool->free;
    map_all(SOME);
    CHECK(shaped.pool->free < free);
    do {
        shaped.ctx->budget = 16;
        status = space_destroy(shaped.ctx, mapper);
        shaped.ctx->budget = UINT64_MAX;
        calls++;
    } while (status == CLEAVE_AGAIN);
    CHECK_OK(status);
    CHECK(calls >= SOME / 17);
    CHECK_EQ(shaped.space->foreign_count, 0);
    CHECK(REAL ? shaped.pool->free == free : shaped.pool->free >= free);
    check_all();
}

/* The mapper goes back to its base, the owner cannot while it is mapped. */
TEST(mapper_is_reset_in_steps)
{
    struct fork_options options = {.limit = UINT64_MAX, .base = true};
    struct space *fork, *ours;
    enum cleave_status status;
    set_up();
    REQUIRE_OK(space_fork(shaped.ctx, mapper, 1, &options, &fork));
    REQUIRE_OK(space_fork(shaped.ctx, shaped.space, 1, &options, &ours));
    for (unsigned i = 0; i < SOME; i++) {
        map(ours, i, fork, i);
    }
    CHECK_STATUS(space_reset(shaped.ctx, ours, NULL, 0), CLEAVE_BUSY);
    check_all();
    do {
        shaped.ctx->budget = 16;
        status = space_reset(shaped.ctx, fork, NULL, 0);
        shaped.ctx->budget = UINT64_MAX;
    } while (status == CLEAVE_AGAIN);
    CHECK_OK(status);
    CHECK_EQ(ours->foreign_count, 0);
    CHECK_EQ(fork->foreign_maps.frames, 0);
    REQUIRE_OK(space_reset(shaped.ctx, ours, NULL, 0));
    check_all();
    shape_destroy(fork);
    shape_destroy(ours);
    check_all();
}

/* The owner unmaps all: maps keep their frames. */
TEST(owner_unmaps)
{
    uint64_t value = 5;
    set_up();
    map_all(SOME);
    REQUIRE_OK(host_cpu_run(1, mapper));
    for (unsigned i = 0; i < FEW; i++) {
        CHECK_OK(host_cpu_write(1, gpa(window_at(i)), &value, sizeof(value)));
    }
    CHECK_EQ(shaped.space->foreign_written, FEW);
    CHECK_OK(space_unmap(shaped.ctx, shaped.space, gpa(SHAPE_AT), shaped.bytes));
    CHECK_EQ(shaped.space->foreign_written, 0);
    check_all();
    for (unsigned i = 0; i < FEW; i++) {
        CHECK_OK(host_cpu_read(1, gpa(window_at(i)), &value, sizeof(value)));
        CHECK_EQ(value, 5);
    }
    for (unsigned i = 0; i < SOME; i++) {
        unmap(mapper, i);
    }
    check_all();
}

/* --- Forks ------------------------------------------------------------------------------------ */

/* Read-only maps cost a fork one look for each leaf of them; such as are written through are
 * copied. */
TEST(owner_forks)
{
    uint64_t value;
    set_up();
    map_all(SOME);
    REQUIRE_OK(host_cpu_run(1, mapper));
    uint64_t leaves = (SOME + RADIX_FAN - 1) / RADIX_FAN;
    uint64_t before = looks();
    struct space *child = shape_fork(shaped.space);
    CHECK_EQ(shaped.space->stats.fork_copies, 0);
    CHECK(looks() - before <= 8 * (leaves + 1));
    check_all();
    /* The owner writes, the maps follow; then some are written through. */
    for (unsigned i = 0; i < FEW; i++) {
        shape_write(shaped.space, page_at(i), 100 + i);
        CHECK_OK(host_cpu_read(1, gpa(window_at(i)), &value, sizeof(value)));
        CHECK_EQ(value, 100 + i);
        value = 200 + i;
        CHECK_OK(host_cpu_write(1, gpa(window_at(i)), &value, sizeof(value)));
    }
    CHECK_EQ(shaped.space->foreign_written, FEW);
    uint64_t copies = REAL ? FEW : FEW < shaped.bytes / PAGE_SIZE ? FEW : shaped.bytes / PAGE_SIZE;
    struct space *second = shape_fork(shaped.space);
    CHECK_EQ(shaped.space->stats.fork_copies, copies);
    check_all();
    for (unsigned i = 0; i < FEW; i++) {
        value = 300 + i;
        CHECK_OK(host_cpu_write(1, gpa(window_at(i)), &value, sizeof(value)));
        CHECK_EQ(shape_read(shaped.space, page_at(i)), 300 + i);
        CHECK_EQ(shape_read(second, page_at(i)), 200 + i);
    }
    /* Written while it is mapped, and forked: the child's table is not writable beneath a map. */
    shape_destroy(child);
    check_all();
    CHECK_OK(space_unmap(shaped.ctx, shaped.space, gpa(SHAPE_AT), shaped.bytes));
    for (unsigned i = FEW; i < FEW + 8; i++) {
        CHECK_OK(host_cpu_read(1, gpa(window_at(i)), &value, sizeof(value)));
        uint64_t was = value;
        shape_write(second, page_at(i), was + 1);
        CHECK_OK(host_cpu_read(1, gpa(window_at(i)), &value, sizeof(value)));
        CHECK_EQ(value, was);
    }
    check_all();
    shape_destroy(second);
    shape_destroy(mapper);
    check_all();
}

/* A fork copies as many pages that are written through as it does pinned ones. */
TEST(owner_forks_with_as_many_as_can_be_pinned)
{
    const unsigned most = REAL && !alloc_running() ? PINNED_MAX_PAGES : FEW;
    struct fork_options options = {.limit = UINT64_MAX};
    struct space *child;
    uint64_t value = 1;
    set_up();
    REQUIRE_OK(host_cpu_run(1, mapper));
    for (unsigned i = 0; i <= most; i++) {
        map(shaped.space, i, mapper, i);
        CHECK_OK(host_cpu_write(1, gpa(window_at(i)), &value, sizeof(value)));
    }
    if (most == PINNED_MAX_PAGES) {
        CHECK_STATUS(space_fork(shaped.ctx, shaped.space, 1, &options, &child), CLEAVE_COUNT);
        CHECK_EQ(shaped.ctx->error.value, most + 1);
    }
    unmap(mapper, most);
    REQUIRE_OK(space_fork(shaped.ctx, shaped.space, 1, &options, &child));
    CHECK_EQ(shaped.space->stats.fork_copies, most);
    check_all();
    value = 2;
    CHECK_OK(host_cpu_write(1, gpa(window_at(most / 2)), &value, sizeof(value)));
    CHECK_EQ(shape_read(shaped.space, page_at(most / 2)), 2);
    CHECK_EQ(shape_read(child, page_at(most / 2)), 1);
    check_all();
    shape_destroy(child);
}

/* A fork of the mapper has none of the maps, however many. */
TEST(mapper_forks)
{
    uint64_t value;
    set_up();
    map_all(SOME);
    struct space *child = shape_fork(mapper);
    CHECK_EQ(child->foreign_maps.frames, 0);
    CHECK_STATUS(space_read(shaped.ctx, child, gpa(window_at(3)), &value, sizeof(value), NULL),
                 CLEAVE_FAULT);
    check_all();
    REQUIRE_OK(host_cpu_run(1, mapper));
    value = 9;
    CHECK_OK(host_cpu_write(1, gpa(window_at(3)), &value, sizeof(value)));
    CHECK_EQ(shape_read(shaped.space, page_at(3)), 9);
    check_all();
    shape_destroy(child);
}

/* A right is taken from all that is written through. */
TEST(owner_is_protected)
{
    uint64_t value = 1;
    set_up();
    map_all(SOME);
    REQUIRE_OK(host_cpu_run(1, mapper));
    const unsigned count = REAL ? 200 : 16;
    for (unsigned i = 0; i < count; i++) {
        CHECK_OK(host_cpu_write(1, gpa(window_at(i)), &value, sizeof(value)));
    }
    uint64_t flushes = mapper->stats.flushes;
    CHECK_OK(space_protect(shaped.ctx, shaped.space, gpa(SHAPE_AT), shaped.bytes, RIGHT_READ));
    CHECK(mapper->stats.flushes - flushes <= count / 32 + 1);
    host_tlb_check();
    for (unsigned i = 0; i < count; i++) {
        CHECK_STATUS(host_cpu_write(1, gpa(window_at(i)), &value, sizeof(value)), CLEAVE_FAULT);
    }
    check_all();
}

/* --- Failures --------------------------------------------------------------------------------- */

/* Each allocation of a map that needs a node beside the leaves, on both sides, fails in turn. */
TEST(survives_failing_allocations)
{
    enum cleave_status status = CLEAVE_NO_MEMORY;
    const unsigned far = REAL ? 60000 : 10, away = REAL ? 40000 : 50;
    uint64_t k;
    TEST_NEEDS_HOOKS();
    set_up();
    map(shaped.space, 0, mapper, 0);
    for (k = 1; status == CLEAVE_NO_MEMORY; k++) {
        uint64_t ours = shaped.pool->free;
        test_case("allocation %u", (unsigned)k);
        host_fail_allocation(k);
        status =
            foreign_map(shaped.ctx, shaped.space, gpa(page_at(far)), mapper, gpa(window_at(away)));
        host_fail_allocation(0);
        if (status != CLEAVE_OK) {
            CHECK_EQ(shaped.space->foreign_count, 1);
            CHECK_EQ(shaped.space->foreign_pages.frames, 1);
            CHECK_EQ(mapper->foreign_maps.frames, 1);
            CHECK(!REAL || shaped.pool->free == ours);
        }
        check_all();
    }
    CHECK_OK(status);
    CHECK(k > 5);
    CHECK_EQ(shaped.space->foreign_pages.frames, 3);
    CHECK_EQ(mapper->foreign_maps.frames, 3);
    unmap(mapper, away);
    CHECK_EQ(shaped.space->foreign_pages.frames, 1);
    CHECK_EQ(mapper->foreign_maps.frames, 1);
    check_all();
}

/* The mapper pays for records, the owner for its index. */
TEST(is_charged_and_refused)
{
    set_up();
    struct mm_ctx *ctx = shaped.ctx;
    struct account *pays[2] = {account_of(shaped.pool, shaped.space->payer.account),
                               account_of(other_pool, mapper->payer.account)};
    for (unsigned i = 0; i < 2; i++) {
        test_case("%s", i == 0 ? "owner" : "mapper");
        uint64_t limit = pays[i]->limit, charged[2] = {pays[0]->charged, pays[1]->charged};
        pays[i]->limit = pays[i]->charged;
        CHECK_STATUS(foreign_map(ctx, shaped.space, gpa(page_at(0)), mapper, gpa(window_at(0))),
                     CLEAVE_QUOTA);
        CHECK_EQ(pays[0]->charged, charged[0]);
        CHECK_EQ(shaped.space->foreign_pages.frames + mapper->foreign_maps.frames, 0);
        pays[i]->limit = limit;
        check_all();
    }
    uint64_t charged = pays[0]->charged;
    map(shaped.space, 0, mapper, 0);
    CHECK_EQ(pays[0]->charged, charged + 1);
    unmap(mapper, 0);
    CHECK_EQ(pays[0]->charged, charged);
    check_all();
}

/* What a space has reserved is not spent on who maps it. */
TEST(reservations_stay)
{
    const struct fork_options options = {.limit = UINT64_MAX, .reserve = true, .vcpus = 1};
    const struct region memory = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};
    struct space *parent, *owner;
    set_up();
    REQUIRE_OK(space_create(shaped.ctx, shaped.pool, UINT64_MAX, &parent));
    REQUIRE_OK(space_map(shaped.ctx, parent, gpa(SHAPE_AT), 0, &memory));
    REQUIRE_OK(space_fork(shaped.ctx, parent, 1, &options, &owner));
    uint64_t reserved = owner->payer.reserved;
    CHECK(reserved > 0);
    map(owner, 0, mapper, 0);
    CHECK_EQ(owner->payer.reserved, reserved);
    check_all();
    unmap(mapper, 0);
    CHECK_EQ(owner->payer.reserved, reserved);
    check_all();
    shape_destroy(owner);
    shape_destroy(parent);
}
