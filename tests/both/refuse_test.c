/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bad input: every operation on a space that gets a range, order, right or policy that cannot be,
 * or a space that is dying, frozen or busy, says so, names the argument, and leaves the state bit
 * by bit.
 */
#include <string.h>

#include "pin.h"
#include "scene.h"

static const struct shape_row shapes[] = SHAPE_ROWS;

static const struct region private_region = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};

/* --- Bad input -------------------------------------------------------------------------------- */

static struct space *victim;
static struct scene_state untouched;

static void refused(enum cleave_status actual, enum cleave_status expected, const char *argument,
                    const char *what)
{
    test_case("%s", what);
    CHECK_STATUS(actual, expected);
    CHECK_EQ(scene.ctx->error.status, expected);
    CHECK(scene.ctx->error.argument != NULL && strcmp(scene.ctx->error.argument, argument) == 0);
    struct scene_state now = scene_state();
    SCENE_CHECK_SAME(untouched, now);
    host_check_locks();
}
#define REFUSED(call, status, argument) refused(call, status, argument, #call)

/* Every operation that takes a range, with one that it must refuse. */
static void refuse_range(gpa_t at, uint64_t size, enum cleave_status status, const char *argument)
{
    uint32_t id;
    struct mm_ctx *ctx = scene.ctx;
    REFUSED(space_unmap(ctx, victim, at, size), status, argument);
    REFUSED(space_protect(ctx, victim, at, size, RIGHT_READ), status, argument);
    REFUSED(space_populate(ctx, victim, at, size), status, argument);
    REFUSED(space_set_region(ctx, victim, at, size, &private_region), status, argument);
    REFUSED(space_map_device(ctx, victim, at, size, pfn(1), RIGHT_READ, false), status, argument);
    REFUSED(space_pin(ctx, victim, at, size, true, &id), status, argument);
}

TEST_TABLE(bad_ranges_are_refused, shapes)
{
    const uint64_t width = UINT64_C(1) << GUEST_BITS;
    scene_shape(row->shape);
    victim = scene.space;
    (void)scene_fork(victim);
    untouched = scene_state();
    refuse_range(gpa(1), PAGE_SIZE, CLEAVE_ALIGN, "at");
    refuse_range(gpa(BYTES(scene.base) + PAGE_SIZE - 1), PAGE_SIZE, CLEAVE_ALIGN, "at");
    refuse_range(PAGE(scene.base), 1, CLEAVE_ALIGN, "size");
    refuse_range(PAGE(scene.base), PAGE_SIZE + 1, CLEAVE_ALIGN, "size");
    refuse_range(PAGE(scene.base), UINT64_MAX, CLEAVE_ALIGN, "size");
    refuse_range(PAGE(scene.base), 0, CLEAVE_COUNT, "size");
    refuse_range(PAGE(scene.base), UINT64_MAX - PAGE_SIZE + 1, CLEAVE_WRAP, "size");
    refuse_range(gpa(UINT64_MAX - PAGE_SIZE + 1), 2 * PAGE_SIZE, CLEAVE_WRAP, "size");
    refuse_range(gpa(width), PAGE_SIZE, CLEAVE_RANGE, "at");
    refuse_range(gpa(UINT64_C(1) << 63), PAGE_SIZE, CLEAVE_RANGE, "at");
    refuse_range(gpa(width - PAGE_SIZE), 2 * PAGE_SIZE, CLEAVE_RANGE, "size");
    refuse_range(gpa(0), width + PAGE_SIZE, CLEAVE_RANGE, "size");
    scene_end();
}

TEST(bad_orders_rights_and_policies_are_refused)
{
    scene_start(0);
    victim = scene_space();
    scene_memory(victim, 0, BLOCK, 1);
    scene_write(victim, 0, 1);
    scene_region(victim, BLOCK, 1, REGION_READ_ONLY, RIGHT_READ, 0);
    scene_region(victim, BLOCK + 1, 1, REGION_SHARED, RIGHT_ALL, 0);
    untouched = scene_state();
    struct mm_ctx *ctx = scene.ctx;
    const gpa_t free = PAGE(2 * BLOCK);
    static const unsigned orders[] = {3, 4, 9, 18, 255, UINT32_MAX};
    for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        struct region region = private_region;
        REFUSED(space_map(ctx, victim, free, orders[i], &private_region), CLEAVE_ORDER, "order");
        REFUSED(space_collapse(ctx, victim, gpa(0), orders[i]), CLEAVE_ORDER, "level");
        region.order = (uint8_t)orders[i];
        REFUSED(space_map(ctx, victim, free, 0, &region), CLEAVE_ORDER, "region.order");
        REFUSED(space_set_region(ctx, victim, free, PAGE_SIZE, &region), CLEAVE_ORDER,
                "region.order");
    }
    REFUSED(space_collapse(ctx, victim, gpa(0), 0), CLEAVE_ORDER, "level");
    for (unsigned rights = 0; rights < 256; rights++) {
        bool legal = rights == 0 || rights == 1 || rights == 3 || rights == 5 || rights == 7;
        struct region region = {.policy = REGION_PRIVATE, .rights = (uint8_t)rights};
        if (!legal) {
            REFUSED(space_protect(ctx, victim, gpa(0), PAGE_SIZE, rights), CLEAVE_RIGHTS, "rights");
            REFUSED(space_set_region(ctx, victim, free, PAGE_SIZE, &region), CLEAVE_RIGHTS,
                    "region.rights");
            REFUSED(space_map(ctx, victim, free, 0, &region), CLEAVE_RIGHTS, "region.rights");
        }
    }
    REFUSED(space_protect(ctx, victim, PAGE(BLOCK), PAGE_SIZE, RIGHT_READ | RIGHT_WRITE),
            CLEAVE_RIGHTS, "rights");
    static const unsigned policies[] = {REGION_NONE,    REGION_DEVICE,   REGION_PAGED,
                                        REGION_FOREIGN, REGION_POLICIES, 255};
    for (unsigned i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
        struct region region = {.policy = (enum region_policy)policies[i], .rights = RIGHT_ALL};
        REFUSED(space_set_region(ctx, victim, free, PAGE_SIZE, &region), CLEAVE_POLICY,
                "region.policy");
        REFUSED(space_map(ctx, victim, free, 0, &region), CLEAVE_POLICY, "region.policy");
    }
    struct region writable = {.policy = REGION_READ_ONLY, .rights = RIGHT_READ | RIGHT_WRITE};
    REFUSED(space_set_region(ctx, victim, free, PAGE_SIZE, &writable), CLEAVE_RIGHTS,
            "region.rights");
    struct region armed = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .armed = true};
    REFUSED(space_set_region(ctx, victim, free, PAGE_SIZE, &armed), CLEAVE_INVALID,
            "region.channel");
    /* There already, not there, in between; shared memory becomes private only. */
    struct region wipe = {.policy = REGION_WIPE, .rights = RIGHT_ALL};
    REFUSED(space_map(ctx, victim, gpa(0), 0, &private_region), CLEAVE_EXISTS, "at");
    REFUSED(space_set_region(ctx, victim, gpa(0), BYTES(3 * BLOCK), &wipe), CLEAVE_EXISTS, "at");
    REFUSED(space_set_region(ctx, victim, PAGE(BLOCK + 1), PAGE_SIZE, &wipe), CLEAVE_POLICY,
            "region.policy");
    REFUSED(space_protect(ctx, victim, gpa(0), BYTES(3 * BLOCK), RIGHT_READ), CLEAVE_NOT_MAPPED,
            "at");
    REFUSED(space_populate(ctx, victim, free, PAGE_SIZE), CLEAVE_NOT_MAPPED, "at");
    REFUSED(space_map_device(ctx, victim, gpa(0), PAGE_SIZE, pfn(1), RIGHT_READ, false),
            CLEAVE_EXISTS, "at");
    REFUSED(space_map_device(ctx, victim, free, PAGE_SIZE, scene.pool->start, RIGHT_READ, false),
            CLEAVE_EXISTS, "frame");
    REFUSED(space_map_device(ctx, victim, free, 2 * PAGE_SIZE, pfn(UINT32_MAX), RIGHT_READ, false),
            CLEAVE_RANGE, "frame");
    REFUSED(space_map_device(ctx, victim, free, PAGE_SIZE, pfn(0), RIGHT_READ, false), CLEAVE_RANGE,
            "frame");
    REFUSED(space_map_device(ctx, victim, free, PAGE_SIZE, pfn(1), RIGHT_ALL, false), CLEAVE_RIGHTS,
            "rights");
    scene_end();
}

/* T-X8: every address modulo the largest leaf against every order: only what fits is mapped. */
TEST(x8_misaligned_leaves_are_refused)
{
    scene_start(TABLE_ENTRIES > 4 ? 0 : 96);
    victim = scene_space();
    untouched = scene_state();
    for (uint64_t page = 0; page < (TABLE_ENTRIES > 4 ? 2 * BLOCK : 2 * GIGA); page++) {
        for (unsigned order = 1; order <= 18; order++) {
            bool known = order < LEAF_ORDERS;
            if (known && page % level_pages(order) == 0) {
                continue;
            }
            REFUSED(space_map(scene.ctx, victim, PAGE(page), order, &private_region),
                    known ? CLEAVE_ALIGN : CLEAVE_ORDER, known ? "at" : "order");
            if (known) {
                REFUSED(space_collapse(scene.ctx, victim, PAGE(page), order), CLEAVE_ALIGN, "at");
            }
        }
    }
    scene_end();
}

TEST(dying_frozen_and_busy_spaces_are_refused)
{
    static const struct {
        enum space_state state;
        enum space_op op;
        enum cleave_status status;
    } cases[] = {{SPACE_DYING, OP_NONE, CLEAVE_DYING},
                 {SPACE_DEAD, OP_NONE, CLEAVE_DYING},
                 {SPACE_FROZEN, OP_NONE, CLEAVE_FROZEN},
                 {SPACE_ALIVE, OP_MOVE, CLEAVE_BUSY}};
    struct mm_ctx *ctx;
    unsigned char byte = 0;
    uint32_t id;

    scene_start(0);
    ctx = scene.ctx;
    victim = scene_space();
    scene_memory(victim, 0, BLOCK, 1);
    struct space *target = scene_space();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        enum cleave_status status = cases[i].status;
        victim->state = (uint8_t)cases[i].state;
        victim->op = (uint8_t)cases[i].op;
        untouched = scene_state();
        REFUSED(space_unmap(ctx, victim, gpa(0), PAGE_SIZE), status, "space");
        REFUSED(space_protect(ctx, victim, gpa(0), PAGE_SIZE, RIGHT_READ), status, "space");
        REFUSED(space_populate(ctx, victim, gpa(0), PAGE_SIZE), status, "space");
        REFUSED(space_set_region(ctx, victim, gpa(0), PAGE_SIZE, &private_region), status, "space");
        REFUSED(space_map(ctx, victim, PAGE(BLOCK), 0, &private_region), status, "space");
        REFUSED(space_map_device(ctx, victim, PAGE(BLOCK), PAGE_SIZE, pfn(1), RIGHT_READ, false),
                status, "space");
        REFUSED(space_pin(ctx, victim, gpa(0), PAGE_SIZE, true, &id), status, "space");
        if (status != CLEAVE_BUSY) {
            REFUSED(space_fault(ctx, victim, gpa(0), ACCESS_WRITE, NULL), status, "space");
            REFUSED(host_cpu_run(0, victim), status, "space");
            REFUSED(space_collapse(ctx, victim, gpa(0), 1), status, "space");
        }
        if (status == CLEAVE_DYING) {
            struct mapping m;
            REFUSED(space_read(ctx, victim, gpa(0), &byte, 1, NULL), status, "space");
            REFUSED(space_lookup(ctx, victim, gpa(0), &m), status, "space");
        }
    }
    victim->state = SPACE_ALIVE;
    victim->op = OP_NONE;
    (void)target;
    scene_end();
}
