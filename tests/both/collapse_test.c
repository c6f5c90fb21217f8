/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Copy grain and collapse: what one write copies, when a block becomes one leaf again and out of
 * what, what stands in its way, and writers that race with it at every point.
 */
#include <string.h>

#include "notify.h"
#include "pin.h"
#include "scene.h"

/* A fork of a space with `blocks` 2 MiB leaves at page 0, filled with SCENE_TAG(). */
static struct space *parent, *child;

static void start(uint64_t blocks)
{
    scene_start(0);
    parent = scene_space();
    scene_memory(parent, 0, blocks * BLOCK, 1);
    for (uint64_t i = 0; i < blocks * BLOCK; i++) {
        scene_write(parent, i, SCENE_TAG(i));
    }
    child = scene_fork(parent);
}

static void write_some(struct space *space, uint64_t first, uint64_t end)
{
    for (uint64_t i = first; i < end; i++) {
        scene_write(space, i, 1000 + i);
    }
}

/* Pages below `written` are the child's own, the others the parent's. */
static void check_child(uint64_t written, uint64_t pages)
{
    for (uint64_t i = 0; i < pages; i++) {
        scene_check(child, i, i < written ? 1000 + i : SCENE_TAG(i));
        scene_look(parent, i, SCENE_TAG(i));
    }
}

/* --- Grain ------------------------------------------------------------------------------------ */

/* A write copies the pages of its grain, aligned, that are not its own yet; no byte twice. */
TEST(grain_is_what_one_write_copies)
{
    for (unsigned grain = 0; grain <= 4; grain++) {
        uint64_t pages = UINT64_C(1) << grain;
        uint64_t copied = pages < BLOCK ? pages : BLOCK; /* a grain ends with its table */
        test_case("grain %u", grain);
        start(2);
        child->grain = (uint8_t)grain;
        uint64_t page = BLOCK > 2 * pages ? 2 * pages - 1 : BLOCK - 1;
        host_reset_counters();
        scene_write(child, page, 7);
        CHECK_EQ(host_counters().bytes_copied, BYTES(copied));
        CHECK_EQ(child->stats.pages_copied, copied);
        scene_audit();
        /* Its neighbours take no fault any more. */
        uint64_t faults = child->stats.write_faults;
        scene_write(child, page & ~(copied - 1), 8);
        CHECK_EQ(child->stats.write_faults, faults);
        /* The parent is written whole: what was copied is reused, nothing is copied twice. */
        host_reset_counters();
        for (uint64_t i = 0; i < BLOCK; i++) {
            scene_write(child, i, 1000 + i);
        }
        CHECK_EQ(host_counters().bytes_copied, BYTES(BLOCK - copied));
        check_child(BLOCK, 2 * BLOCK);
        scene_audit();
        scene_end();
    }
}

/* The grain stays inside one region, and inside what may be written. */
TEST(grain_ends_with_the_region)
{
    scene_start(0);
    parent = scene_space();
    scene_memory(parent, 0, BLOCK, 0);
    REQUIRE_OK(space_protect(scene.ctx, parent, PAGE(1), BYTES(1), RIGHT_READ));
    child = scene_fork(parent);
    child->grain = 4;
    scene_write(child, 0, 7);
    CHECK_EQ(child->stats.pages_copied, 1);
    scene_audit();
    CHECK_EQ(scene_lookup(child, 1).rights & RIGHT_WRITE, 0);
    scene_end();
}

/* --- Collapse --------------------------------------------------------------------------------- */

TEST(collapse_completes_the_block_and_copies_nothing_twice)
{
    for (uint64_t written = 1; written <= BLOCK; written += BLOCK > 4 ? BLOCK / 4 : 1) {
        test_case("%d pages written", (int)written);
        start(2);
        host_reset_counters();
        write_some(child, 0, written);
        REQUIRE_OK(space_collapse(scene.ctx, child, gpa(0), 1));
        scene_audit();
        CHECK_EQ(host_counters().bytes_copied, BYTES(BLOCK));
        struct mapping m = scene_lookup(child, 0);
        CHECK_EQ(m.level, 1);
        CHECK(m.exclusive);
        CHECK_EQ(child->stats.collapsed, 1);
        CHECK_EQ(scene.pool->aside, 0);
        check_child(written, 2 * BLOCK);
        uint64_t faults = child->stats.write_faults, copied = child->stats.pages_copied;
        for (uint64_t i = 0; i < BLOCK; i++) {
            scene_write(child, i, 5);
        }
        CHECK_LE(child->stats.write_faults, faults + 1); /* at most one for the whole leaf */
        CHECK_EQ(child->stats.pages_copied, copied);
        scene_look(parent, 0, SCENE_TAG(0));
        scene_audit();
        scene_end();
    }
}

/* A fault asks for it when the private parts reach the space's threshold. */
TEST(collapse_by_threshold)
{
    for (unsigned at = 2; at <= TABLE_ENTRIES; at *= 2) {
        test_case("at %u", at);
        start(2);
        child->collapse_at = (uint16_t)at;
        write_some(child, 0, at - 1);
        CHECK_EQ(child->stats.collapsed, 0);
        CHECK_EQ(scene_lookup(child, 0).level, 0);
        write_some(child, at - 1, at);
        CHECK_EQ(child->stats.collapsed, 1);
        CHECK_EQ(scene_lookup(child, 0).level, 1);
        check_child(at, 2 * BLOCK);
        scene_audit();
        scene_end();
    }
}

/* The other holders of a split block died: its parts become one leaf again without a copy. */
TEST(collapse_of_what_others_left)
{
    for (unsigned some = 0; some < 2; some++) {
        start(1);
        write_some(parent, 0, 1 + some * (BLOCK / 2)); /* splits the parent's block */
        scene_destroy(child);
        REQUIRE(table_reap(scene.ctx, scene.pool));
        CHECK_EQ(scene_lookup(parent, 0).level, 0);
        host_reset_counters();
        REQUIRE_OK(space_collapse(scene.ctx, parent, gpa(0), 1));
        uint64_t moved = host_counters().bytes_copied;
        CHECK(moved <= BYTES(BLOCK / 2 + 1));
        scene_audit();
        CHECK_EQ(scene_lookup(parent, 0).level, 1);
        for (uint64_t i = 0; i < BLOCK; i++) {
            scene_check(parent, i, i < 1 + some * (BLOCK / 2) ? 1000 + i : SCENE_TAG(i));
        }
        scene_end();
    }
}

/* Split by protect, with nobody else there: no copy at all. */
TEST(collapse_of_a_split_block_moves_nothing)
{
    scene_shape(SHAPE_SPLIT_2M);
    pfn_t frame = scene_lookup(scene.space, scene.base).frame;
    host_reset_counters();
    REQUIRE_OK(space_collapse(scene.ctx, scene.space, PAGE(scene.base), 1));
    CHECK_EQ(host_counters().bytes_copied, 0);
    CHECK_EQ(scene_lookup(scene.space, scene.base).level, 1);
    CHECK_EQ(scene_lookup(scene.space, scene.base).frame.v, frame.v);
    scene_check(scene.space, scene.base + 1, SCENE_TAG(scene.base + 1));
    scene_audit();
    /* Once it is one leaf there is nothing to do. */
    CHECK_STATUS(space_collapse(scene.ctx, scene.space, PAGE(scene.base), 1), CLEAVE_NOT_MAPPED);
    scene_end();
}

/* 2 MiB leaves that are the parts of one 1 GiB block become one 1 GiB leaf. */
TEST(collapse_of_a_giant)
{
    scene_shape(SHAPE_SPLIT_1G);
    pfn_t frame = scene_lookup(scene.space, scene.base).frame;
    CHECK_STATUS(space_collapse(scene.ctx, scene.space, PAGE(scene.base), 2), CLEAVE_NOT_MAPPED);
    scene_audit();
    REQUIRE_OK(space_collapse(scene.ctx, scene.space, PAGE(scene.base + BLOCK), 1));
    host_reset_counters();
    REQUIRE_OK(space_collapse(scene.ctx, scene.space, PAGE(scene.base), 2));
    CHECK_EQ(host_counters().bytes_copied, 0);
    scene_audit();
    CHECK_EQ(scene_lookup(scene.space, scene.base).level, 2);
    CHECK_EQ(scene_lookup(scene.space, scene.base).frame.v, frame.v);
    uint64_t sample[SCENE_SAMPLES];
    unsigned n = scene_samples(sample);
    for (unsigned i = 0; i < n; i++) {
        scene_check(scene.space, sample[i], SCENE_TAG(sample[i]));
    }
    scene_end();
}

/* --- What stands in its way ------------------------------------------------------------------- */

static void collapse_refused(struct space *space, gpa_t at, enum cleave_status status)
{
    struct scene_state before = scene_state();
    CHECK_STATUS(space_collapse(scene.ctx, space, at, 1), status);
    struct scene_state after = scene_state();
    SCENE_CHECK_SAME_VIEW(before, after);
    scene_audit();
}

TEST(collapse_is_refused)
{
    const struct channel_options options = {0};
    struct channel *channel;
    uint32_t id;

    start(2);
    collapse_refused(child, gpa(0), CLEAVE_NOT_MAPPED); /* it is one leaf */
    write_some(child, 0, 1);
    struct space *grandchild = scene_fork(child);
    collapse_refused(child, gpa(0), CLEAVE_BUSY); /* the table is shared */
    collapse_refused(grandchild, gpa(0), CLEAVE_BUSY);
    scene_destroy(grandchild);
    REQUIRE_OK(space_pin(scene.ctx, child, PAGE(1), BYTES(1), true, &id));
    collapse_refused(child, gpa(0), CLEAVE_BUSY); /* pinned */
    REQUIRE_OK(space_unpin(scene.ctx, child, id));
    REQUIRE_OK(channel_create(scene.ctx, scene.pool, &options, &channel));
    REQUIRE_OK(channel_arm(scene.ctx, channel, child, PAGE(2), BYTES(1)));
    collapse_refused(child, gpa(0), CLEAVE_BUSY); /* armed */
    REQUIRE_OK(channel_disarm(scene.ctx, channel, child, PAGE(2), BYTES(1)));
    channel_destroy(scene.ctx, channel);
    REQUIRE_OK(space_protect(scene.ctx, child, PAGE(1), BYTES(1), RIGHT_READ));
    collapse_refused(child, gpa(0), CLEAVE_BUSY); /* not one region */
    REQUIRE_OK(space_protect(scene.ctx, child, PAGE(1), BYTES(1), RIGHT_ALL));
    REQUIRE_OK(pool_reserve(scene.ctx, &child->payer, 3));
    collapse_refused(child, gpa(0), CLEAVE_BUSY); /* its frames are reserved ones */
    CHECK_EQ(child->payer.reserved, 3);
    pool_unreserve(scene.ctx, &child->payer);
    REQUIRE_OK(space_unmap(scene.ctx, child, PAGE(BLOCK - 1), BYTES(1)));
    REQUIRE_OK(space_set_region(
        scene.ctx, child, PAGE(BLOCK - 1), BYTES(1),
        &(struct region){.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1}));
    collapse_refused(child, gpa(0), CLEAVE_NOT_MAPPED); /* a hole */
    REQUIRE_OK(space_unmap(scene.ctx, child, PAGE(0), BYTES(BLOCK)));
    collapse_refused(child, gpa(0), CLEAVE_BUSY); /* no memory there */
    check_child(0, 0);
    scene_end();
}

TEST(collapse_with_every_allocation_failing)
{
    for (uint64_t k = 1; k < 2 * BLOCK; k += k < 20 ? 1 : BLOCK / 4) {
        test_case("allocation %d", (int)k);
        start(1);
        write_some(child, 0, 1);
        struct scene_state before = scene_state();
        host_fail_allocation(k);
        enum cleave_status status = space_collapse(scene.ctx, child, gpa(0), 1);
        bool failed = host_allocation_failed();
        host_fail_allocation(0);
        scene_audit();
        struct scene_state after = scene_state();
        SCENE_CHECK_SAME_VIEW(before, after);
        CHECK(failed ? status == CLEAVE_NO_MEMORY || status == CLEAVE_OK : status == CLEAVE_OK);
        check_child(1, BLOCK);
        scene_end();
        if (!failed) {
            break;
        }
    }
}

/* --- Races ------------------------------------------------------------------------------------ */

/* At the n-th point of a collapse on CPU 0, `act` runs once on CPU 2, whose guest is the same
 * space. */
static struct race {
    unsigned at, seen;
    bool acted;
    unsigned kind;
    uint64_t page;
    struct space *grandchild;
} race;

#ifdef MM_HOOKS
static void act(struct race *r)
{
    unsigned char byte = 0xee;
    const struct fork_options options = {.limit = UINT64_MAX};
    switch (r->kind) {
    case 0:
        REQUIRE_OK(host_cpu_write(2, PAGE(r->page), &byte, 1));
        break;
    case 1:
        REQUIRE_OK(host_cpu_read(2, PAGE(r->page), NULL, 1));
        break;
    default:
        REQUIRE_OK(space_fork(host_ctx(2), child, 1, &options, &r->grandchild));
    }
}
static void on_point(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b, void *arg)
{
    struct race *r = arg;
    (void)a, (void)b;
    if (ctx->cpu != 0 || ctx->lock_depth != 0) {
        return; /* the writer would wait for the lock */
    }
    if (point == POINT_COPY || point == POINT_COPIED || point == POINT_FLUSH ||
        point == POINT_FLUSHED) {
        if (++r->seen == r->at && !r->acted) {
            r->acted = true;
            act(r);
        }
    }
}
#endif

/* A write through whatever translation the CPU has, at every point, is seen by the guest afterwards
 * and by nobody else; a fork in the middle has what was there. */
TEST(collapse_races_with_a_writer_at_every_point)
{
    TEST_NEEDS_HOOKS();
    for (unsigned kind = 0; kind < 3; kind++) {
        for (unsigned at = 1;; at += at < 12 || BLOCK < 8 ? 1 : BLOCK / 5) {
            test_case("kind %u at point %u", kind, at);
            start(1);
            write_some(child, 0, 2);
            for (unsigned i = 1; i < machine.cpus; i++) {
                host_cpu_stop(i);
            }
            REQUIRE_OK(host_cpu_run(2, child));
            race = (struct race){.at = at, .kind = kind, .page = at % 3 == 0 ? 0 : BLOCK - 1};
            REQUIRE_OK(host_cpu_read(2, PAGE(race.page), NULL, 1));
#ifdef MM_HOOKS
            host_on_point(on_point, &race);
#endif
            enum cleave_status status = space_collapse(scene.ctx, child, gpa(0), 1);
            host_on_point(NULL, NULL);
            CHECK(status == CLEAVE_OK || status == CLEAVE_BUSY);
            bool acted = race.acted;
            if (acted && kind == 0) {
                unsigned char wanted[PAGE_SIZE], found[PAGE_SIZE];
                scene_page(wanted, race.page < 2 ? 1000 + race.page : SCENE_TAG(race.page));
                wanted[0] = 0xee;
                REQUIRE_OK(host_cpu_read(2, PAGE(race.page), found, PAGE_SIZE));
                CHECK_BYTES(found, wanted, PAGE_SIZE);
                scene_write(child, race.page,
                            race.page < 2 ? 1000 + race.page : SCENE_TAG(race.page));
            }
            check_child(2, BLOCK);
            if (acted && kind == 2) {
                for (uint64_t i = 0; i < BLOCK; i++) {
                    scene_look(race.grandchild, i, i < 2 ? 1000 + i : SCENE_TAG(i));
                }
                scene_write(child, 0, 3);
                scene_check(race.grandchild, 0, 1000);
                scene_write(race.grandchild, 1, 4);
                scene_check(child, 1, 1001);
            }
            scene_audit();
            scene_end();
            if (!acted) {
                break;
            }
        }
    }
}
