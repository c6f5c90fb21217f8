/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * No frames left: who waits, who is told, in which order they go on; and reservations, whose worst
 * case is a formula that is exact: with one frame less the fork is refused, with it every page can
 * be written in any order although nothing else is free.
 */
#include <stdlib.h>
#include <string.h>

#include "scene.h"

static const struct shape_row shapes[] = SHAPE_ROWS;

/* --- Waiting ---------------------------------------------------------------------------------- */

static struct {
    struct vcpu_wait *woken[16];
    unsigned count;
    struct space *starved;
    unsigned starved_count;
} told;

static void on_wake(struct vcpu_wait *wait, void *arg)
{
    (void)arg;
    told.woken[told.count++] = wait;
}
static void on_starved(struct space *space, void *arg)
{
    (void)arg;
    told.starved = space;
    told.starved_count++;
}

/* An access by space_fault() itself, so that no CPU has to be there for each waiter. */
static enum cleave_status write_fault(struct space *space, uint64_t page, struct vcpu_wait *wait)
{
    return space_fault(scene.ctx, space, PAGE(page), ACCESS_WRITE, wait);
}

/* Domains that find the pool empty are paused and their owners told; as frames come back they
 * resume in the order in which they came, each with what it needs. Nobody else notices. */
TEST(waiting_domains_resume_in_order)
{
    enum { WAITERS = 5 };
    struct space *space[WAITERS];
    struct vcpu_wait wait[WAITERS];
    scene_start(0);
    memset(&told, 0, sizeof(told));
    memset(wait, 0, sizeof(wait));
    struct space *parent = scene_space();
    scene_memory(parent, 0, BLOCK, 0);
    scene_write(parent, 0, 1);
    for (unsigned i = 0; i < WAITERS; i++) {
        space[i] = scene_fork(parent);
        wait[i].vcpu = i;
    }
    host_on_wake(on_wake, NULL);
    host_on_starved(on_starved, NULL);
    scene_drain(0);
    for (unsigned i = 0; i < WAITERS; i++) {
        CHECK_STATUS(write_fault(space[i], 0, &wait[i]), CLEAVE_WAIT);
        CHECK_EQ(wait[i].kind, WAIT_MEMORY);
        CHECK_EQ(told.starved, space[i]);
        CHECK_EQ(told.starved_count, i + 1);
        CHECK_EQ(space[i]->stats.waits, 1);
        scene_look(space[i], 0, 1);
        scene_audit();
    }
    /* Without somebody to wake, the fault says so at once. */
    CHECK_STATUS(write_fault(space[0], 1, NULL), CLEAVE_NO_MEMORY);
    CHECK_EQ(told.count, 0);
    for (unsigned i = 0; i < WAITERS; i++) {
        while (told.count == i) {
            REQUIRE(scene.drained > 0);
            scene_give_back(1);
        }
        CHECK_EQ(told.count, i + 1);
        CHECK_EQ(told.woken[i], &wait[i]);
        CHECK_EQ(wait[i].kind, WAIT_NONE);
        /* What it was granted is nobody else's: a newcomer does not get it. */
        CHECK_EQ(scene.pool->free - scene.pool->reserved, 0);
        if (i + 1 < WAITERS) {
            struct vcpu_wait late = {.vcpu = 99};
            CHECK_STATUS(write_fault(space[WAITERS - 1], 2, &late), CLEAVE_WAIT);
            pool_cancel_wait(scene.ctx, scene.pool, &late);
        }
        CHECK_OK(write_fault(space[i], 0, &wait[i]));
        CHECK_EQ(wait[i].grant.reserved, 0);
        CHECK(scene_lookup(space[i], 0).rights & RIGHT_WRITE);
        scene_audit();
    }
    host_on_wake(NULL, NULL);
    host_on_starved(NULL, NULL);
    scene_look(parent, 0, 1);
    scene_give_back(UINT64_MAX);
    scene_end();
}

/* A vCPU that goes away while it waits lets the next one through; a grant it did not use comes
 * back. */
TEST(waits_can_be_cancelled)
{
    struct vcpu_wait wait[3];
    scene_start(0);
    memset(&told, 0, sizeof(told));
    memset(wait, 0, sizeof(wait));
    struct space *parent = scene_space();
    scene_memory(parent, 0, BLOCK, 0);
    struct space *space[3] = {scene_fork(parent), scene_fork(parent), scene_fork(parent)};
    host_on_wake(on_wake, NULL);
    scene_drain(0);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_STATUS(write_fault(space[i], 0, &wait[i]), CLEAVE_WAIT);
    }
    pool_cancel_wait(scene.ctx, scene.pool, &wait[1]);
    scene_give_back(wait[0].need);
    CHECK_EQ(told.count, 1);
    CHECK_EQ(told.woken[0], &wait[0]);
    uint64_t granted = wait[0].grant.reserved;
    CHECK(granted > 0);
    CHECK_EQ(scene.pool->reserved, granted);
    pool_cancel_wait(scene.ctx, scene.pool, &wait[0]); /* woken, but its vcpu is gone */
    CHECK_EQ(told.count, 2);
    CHECK_EQ(told.woken[1], &wait[2]);
    CHECK_OK(write_fault(space[2], 0, &wait[2]));
    scene_audit();
    CHECK_EQ(scene.pool->reserved, 0);
    host_on_wake(NULL, NULL);
    scene_give_back(UINT64_MAX);
    scene_end();
}

/* T-C9: the pool is empty at every point of a write that breaks copy-on-write; frames come one by
 * one. No other domain is altered, the waiter gets through as soon as there is enough. */
TEST_TABLE(c9_empty_pool_at_every_point, shapes)
{
    uint64_t sample[SCENE_SAMPLES];
    for (uint64_t left = 0;; left++) {
        struct vcpu_wait wait = {.vcpu = 1};
        scene_shape(row->shape);
        unsigned n = scene_samples(sample);
        struct space *child = scene_fork(scene.space);
        test_case("%d frames left", (int)left);
        scene_drain(left);
        enum cleave_status status = write_fault(child, scene.base, &wait);
        bool waited = status == CLEAVE_WAIT;
        CHECK(waited || status == CLEAVE_OK);
        for (uint64_t more = 0; waited && wait.kind == WAIT_MEMORY; more++) {
            REQUIRE(more <= 2 * TABLE_LEVELS);
            scene_give_back(1);
        }
        scene_audit();
        if (waited) {
            CHECK_OK(write_fault(child, scene.base, &wait));
        }
        CHECK(scene_lookup(child, scene.base).rights & RIGHT_WRITE);
        CHECK_EQ(wait.grant.reserved, 0);
        CHECK_EQ(scene.pool->reserved, 0);
        for (unsigned i = 0; i < n; i++) {
            scene_look(child, sample[i], SCENE_TAG(sample[i]));
            scene_look(scene.space, sample[i], SCENE_TAG(sample[i]));
        }
        scene_give_back(UINT64_MAX);
        scene_end();
        if (!waited) {
            break;
        }
        left += scene.pages >= GIGA && BLOCK > 4; /* draining so much takes long */
    }
}

/* --- Reservations ----------------------------------------------------------------------------- */

static const struct fork_options reserving = {.limit = UINT64_MAX, .reserve = true, .vcpus = 1};

/* Writes every page of a fork in random order while nothing but its reservation is free. */
static void write_everything(struct space *child, uint64_t seed)
{
    uint64_t state = seed, pages = scene.pages;
    uint64_t *order = malloc(pages * sizeof(*order));
    for (uint64_t i = 0; i < pages; i++) {
        order[i] = i;
    }
    for (uint64_t i = pages; i > 1; i--) {
        uint64_t k = test_random(&state) % i, swap = order[i - 1];
        order[i - 1] = order[k];
        order[k] = swap;
    }
    for (uint64_t i = 0; i < pages; i++) {
        REQUIRE_OK(write_fault(child, scene.base + order[i], NULL));
        REQUIRE(scene_lookup(child, scene.base + order[i]).rights & RIGHT_WRITE);
    }
    free(order);
}

static const struct shape_row small_shapes[] = {{"4k", SHAPE_4K},
                                                {"2m", SHAPE_2M},
                                                {"split-2m", SHAPE_SPLIT_2M},
#if LEVEL_BITS == 2
                                                {"1g", SHAPE_1G},
                                                {"split-1g", SHAPE_SPLIT_1G},
#endif
                                                {"partly", SHAPE_PARTLY}};

TEST_TABLE(reservation_is_refused_with_one_frame_less_and_suffices, small_shapes)
{
    for (unsigned grain = 0; grain <= 4; grain += 2) {
        for (unsigned wiped = 0; wiped < 2; wiped++) {
            struct space *child = NULL;
            test_case("grain %u, wiped %u", grain, wiped);
            scene_shape(row->shape);
            scene.space->grain = (uint8_t)grain;
            if (wiped) {
                scene_region(scene.space, scene.base + 1, BLOCK, REGION_WIPE, RIGHT_ALL, 1);
            }
            uint64_t frames = space_reserve_frames(scene.ctx, scene.space, 1);
            /* What the fork itself takes, seen once. */
            uint64_t free = scene.pool->free;
            child = scene_fork(scene.space);
            uint64_t cost = free - scene.pool->free;
            scene_destroy(child);
            REQUIRE(table_reap(scene.ctx, scene.pool));
            REQUIRE_EQ(scene.pool->free, free);
            scene_drain(frames + cost - 1);
            struct scene_state before = scene_state();
            CHECK_STATUS(space_fork(scene.ctx, scene.space, 1, &reserving, &child), CLEAVE_RESERVE);
            struct scene_state after = scene_state();
            SCENE_CHECK_SAME_VIEW(before, after);
            CHECK_EQ(before.free, after.free);
            CHECK_EQ(before.reserved, after.reserved);
            scene_audit();
            scene_give_back(1);
            REQUIRE_OK(space_fork(scene.ctx, scene.space, 1, &reserving, &child));
            CHECK_EQ(child->payer.reserved, frames);
            CHECK_EQ(scene.pool->free, scene.pool->reserved);
            scene_audit();
            /* Nobody else gets any of it. */
            CHECK_STATUS(write_fault(scene.space, scene.base, NULL), CLEAVE_NO_MEMORY);
            host_fail_allocation(1); /* whatever is asked for beyond it fails */
            write_everything(child, test_seed() + grain);
            host_fail_allocation(0);
            scene_audit();
            scene_look(scene.space, scene.base, SCENE_TAG(scene.base));
            scene_destroy(child); /* what is left of it goes back */
            CHECK_EQ(scene.pool->reserved, 0);
            scene_give_back(UINT64_MAX);
            scene_end();
        }
    }
}

/* A fork of a space that holds a reservation renews it for the parent as well, or is refused. */
TEST(forks_renew_the_parents_reservation)
{
    struct space *child = NULL, *grandchild = NULL;
    const struct fork_options plain = {.limit = UINT64_MAX};
    scene_shape(SHAPE_4K);
    REQUIRE_OK(space_fork(scene.ctx, scene.space, 1, &reserving, &child));
    uint64_t goal = child->payer.reserved;
    scene_write(child, scene.base, 1);
    CHECK(child->payer.reserved < goal);
    REQUIRE_OK(space_fork(scene.ctx, child, 1, &plain, &grandchild));
    CHECK_EQ(child->payer.reserved, goal);
    CHECK_EQ(grandchild->payer.reserved, 0);
    scene_audit();
    scene_write(child, scene.base, 2);
    uint64_t used = goal - child->payer.reserved;
    CHECK(used > 0);
    scene_drain(2 + used - 1); /* enough for the fork, not for the renewal */
    struct scene_state before = scene_state();
    CHECK_STATUS(space_fork(scene.ctx, child, 1, &plain, &grandchild), CLEAVE_RESERVE);
    struct scene_state after = scene_state();
    SCENE_CHECK_SAME_VIEW(before, after);
    CHECK_EQ(before.reserved, after.reserved);
    CHECK_EQ(before.free, after.free);
    scene_give_back(1);
    REQUIRE_OK(space_fork(scene.ctx, child, 1, &plain, &grandchild));
    CHECK_EQ(child->payer.reserved, goal);
    scene_audit();
    /* So its writes still cannot fail. */
    write_everything(child, 5);
    scene_give_back(UINT64_MAX);
    scene_end();
}

/* Reset renews it as well. */
TEST(reset_renews_the_reservation)
{
    struct space *child = NULL;
    const struct fork_options options = {
        .limit = UINT64_MAX, .reserve = true, .vcpus = 1, .base = true};
    scene_shape(SHAPE_2M);
    REQUIRE_OK(space_fork(scene.ctx, scene.space, 1, &options, &child));
    uint64_t goal = child->payer.reserved;
    scene_drain(0);
    for (unsigned round = 0; round < 2; round++) {
        write_everything(child, round);
        REQUIRE_OK(space_reset(scene.ctx, child, NULL, 0));
        CHECK_EQ(child->payer.reserved, goal);
        scene_audit();
        scene_look(child, scene.base, SCENE_TAG(scene.base));
    }
    scene_give_back(UINT64_MAX);
    scene_end();
}

/* n forks that reserve: each has its own, or none is made. */
TEST(n_forks_reserve_for_each)
{
    struct space *child[3];
    scene_shape(SHAPE_4K);
    uint64_t frames = space_reserve_frames(scene.ctx, scene.space, 1);
    scene_drain(3 * (frames + 2) - 1);
    CHECK_STATUS(space_fork(scene.ctx, scene.space, 3, &reserving, child), CLEAVE_RESERVE);
    CHECK_EQ(scene.pool->reserved, 0);
    scene_audit();
    scene_give_back(1);
    REQUIRE_OK(space_fork(scene.ctx, scene.space, 3, &reserving, child));
    CHECK_EQ(scene.pool->reserved, 3 * frames);
    for (unsigned i = 0; i < 3; i++) {
        write_everything(child[i], i);
    }
    scene_audit();
    scene_give_back(UINT64_MAX);
    scene_end();
}

/* Two vCPUs that copy the same last page at the same time need a frame each: the one transient set
 * per vCPU that the formula has. */
#ifdef MM_HOOKS
static struct {
    struct space *space;
    bool acted;
    enum cleave_status status;
} second;
static void second_vcpu(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                        void *arg)
{
    (void)a, (void)b, (void)arg;
    if (point == POINT_COPIED && ctx->cpu == 0 && !second.acted) {
        second.acted = true;
        second.status = space_fault(host_ctx(1), second.space, PAGE(scene.base + scene.pages - 1),
                                    ACCESS_WRITE, NULL);
    }
}
#endif
TEST(reservation_covers_a_race)
{
    TEST_NEEDS_HOOKS();
#ifdef MM_HOOKS
    for (unsigned grain = 0; grain <= 4; grain += 4) {
        struct space *child = NULL;
        const struct fork_options two = {.limit = UINT64_MAX, .reserve = true, .vcpus = 2};
        test_case("grain %u", grain);
        scene_shape(SHAPE_4K);
        scene.space->grain = (uint8_t)grain;
        REQUIRE_OK(space_fork(scene.ctx, scene.space, 1, &two, &child));
        scene_drain(0);
        uint64_t last = scene.pages - (UINT64_C(1) << grain);
        last = last > scene.pages || last < BLOCK ? scene.pages - BLOCK : last;
        for (uint64_t i = 0; i < last; i++) {
            REQUIRE_OK(write_fault(child, scene.base + i, NULL));
        }
        memset(&second, 0, sizeof(second));
        second.space = child;
        host_on_point(second_vcpu, NULL);
        REQUIRE_OK(write_fault(child, scene.base + scene.pages - 1, NULL));
        host_on_point(NULL, NULL);
        CHECK(second.acted);
        CHECK_OK(second.status);
        scene_audit();
        scene_look(child, scene.base + scene.pages - 1, SCENE_TAG(scene.base + scene.pages - 1));
        scene_give_back(UINT64_MAX);
        scene_end();
    }
#endif
}
