/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Steps of protocols that look superfluous until somebody comes between: each of these tests is the
 * one that notices when its step is left out (tests/mutants/).
 */
#include "notify.h"
#include "pin.h"
#include "scene.h"

static void put(unsigned cpu, uint64_t page, unsigned offset, unsigned char byte)
{
    REQUIRE_OK(host_cpu_write(cpu, gpa((page << PAGE_SHIFT) + offset), &byte, 1));
}

static unsigned char get(unsigned cpu, uint64_t page, unsigned offset)
{
    unsigned char byte = 0;
    REQUIRE_OK(host_cpu_read(cpu, gpa((page << PAGE_SHIFT) + offset), &byte, 1));
    return byte;
}

/* Calls `act` once, at the first `point` from now. */
static struct {
    enum port_point point;
    void (*act)(void);
    unsigned acted;
} once;

static void act_once(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b, void *arg)
{
    (void)ctx, (void)a, (void)b, (void)arg;
    if (point == once.point && once.acted++ == 0) {
        once.act();
    }
}

static void expect_point(enum port_point point, void (*act)(void))
{
    once.point = point;
    once.act = act;
    once.acted = 0;
    host_on_point(act_once, NULL);
}

static void points_end(void)
{
    host_on_point(NULL, NULL);
    CHECK(once.acted > 0);
}

/* --- Collapse --------------------------------------------------------------------------------- */

static uint64_t last_page; /* of the block at scene.base */

/* A block of which every page but the last was copied to a run of its own, while a fork shared it;
 * the last one is still where it was, and nobody else's. */
static void last_page_elsewhere(void)
{
    scene_start(0);
    scene.base = GIGA;
    scene.pages = BLOCK;
    scene.space = scene_space();
    scene_memory(scene.space, scene.base, BLOCK, 1);
    last_page = scene.base + BLOCK - 1;
    scene_write(scene.space, last_page, SCENE_TAG(last_page));
    struct space *fork = scene_fork(scene.space);
    for (uint64_t page = scene.base; page < last_page; page++) {
        scene_write(scene.space, page, SCENE_TAG(page));
    }
    scene_destroy(fork);
    REQUIRE(scene_lookup(scene.space, last_page).exclusive);
}

static void write_last_page(void) { put(3, last_page, 3, 0xab); }

/* A page that is to be moved is write-protected, and flushed, before it is copied: what is written
 * meanwhile is not lost. */
TEST(collapse_protects_before_it_copies)
{
    TEST_NEEDS_HOOKS();
    last_page_elsewhere();
    scene_write(scene.space, last_page, SCENE_TAG(1)); /* it is writable */
    host_cpu_stop(3);
    REQUIRE_OK(host_cpu_run(3, scene.space));
    put(3, last_page, 3, 0xcd);
    expect_point(POINT_COPIED, write_last_page);
    enum cleave_status status = space_collapse(scene.ctx, scene.space, PAGE(scene.base), 1);
    points_end();
    CHECK(status == CLEAVE_OK || status == CLEAVE_BUSY);
    CHECK_EQ(get(3, last_page, 3), 0xab);
    scene_end();
}

/* A pinned page stays where the device sees it. */
TEST(collapse_moves_no_pinned_page)
{
    uint32_t id;
    pfn_t pinned;

    last_page_elsewhere();
    REQUIRE_OK(space_pin(scene.ctx, scene.space, PAGE(last_page), PAGE_SIZE, true, &id));
    CHECK_STATUS(space_collapse(scene.ctx, scene.space, PAGE(scene.base), 1), CLEAVE_BUSY);
    REQUIRE_OK(space_pinned_frame(scene.ctx, scene.space, id, PAGE(last_page), &pinned));
    scene_write(scene.space, last_page, SCENE_TAG(2));
    CHECK_EQ(scene_lookup(scene.space, last_page).frame.v, pinned.v);
    scene_audit();
    REQUIRE_OK(space_unpin(scene.ctx, scene.space, id));
    scene_end();
}

/* All parts are in their places, but a fork holds most of them, too. */
TEST(collapse_takes_no_shared_parts)
{
    scene_shape(SHAPE_SPLIT_2M);
    struct space *fork = scene_fork(scene.space);
    scene_write(fork, scene.base, SCENE_TAG(1)); /* a table of its own */
    CHECK_STATUS(space_collapse(scene.ctx, scene.space, PAGE(scene.base), 1), CLEAVE_BUSY);
    scene_audit();
    CHECK_EQ(scene_lookup(scene.space, scene.base).level, 0);
    scene_write(scene.space, scene.base + 1, SCENE_TAG(2));
    scene_check(fork, scene.base + 1, SCENE_TAG(scene.base + 1));
    scene_end();
}

/* --- Copies ----------------------------------------------------------------------------------- */

/* Two pages that a fork shares; it has copied the second, so that both tables are private. CPUs 1,
 * 2 and 3 run `runs`. */
static struct space *fork_of_two;
static void two_pages(bool fork_runs)
{
    scene_start(0);
    scene.base = GIGA;
    scene.pages = 2;
    scene.space = scene_space();
    scene_memory(scene.space, scene.base, 2, 0);
    scene_write(scene.space, scene.base, SCENE_TAG(scene.base));
    fork_of_two = scene_fork(scene.space);
    scene_write(fork_of_two, scene.base + 1, SCENE_TAG(1));
    for (unsigned cpu = 1; cpu < 4; cpu++) {
        host_cpu_stop(cpu);
        REQUIRE_OK(host_cpu_run(cpu, fork_runs ? fork_of_two : scene.space));
        (void)get(cpu, scene.base, 0); /* its translation is remembered */
    }
}

/* CPU 1 has put its copy in place and not yet flushed. CPU 2 gets write bits for the table, and
 * writes; CPU 3 still has the old translation. */
static void write_both_pages(void)
{
    put(2, scene.base + 1, 0, 0x11);
    put(2, scene.base, 0, 0x22);
    CHECK_EQ(get(3, scene.base, 0), 0x22);
}

TEST(a_copy_is_not_written_before_the_flush)
{
    TEST_NEEDS_HOOKS();
    two_pages(false);
    expect_point(POINT_FLUSH, write_both_pages);
    put(1, scene.base, 5, 0x33);
    points_end();
    for (unsigned cpu = 1; cpu < 4; cpu++) {
        CHECK_EQ(get(cpu, scene.base, 0), 0x22);
        CHECK_EQ(get(cpu, scene.base, 5), 0x33);
    }
    scene_end();
}

/* CPU 1 has copied the page. The page becomes the fork's alone and is written by CPU 2, then shared
 * and write-protected again: were it still the same frame, CPU 1 would take it for unchanged. */
static void write_and_share_again(void)
{
    scene_destroy(scene.space);
    put(2, scene.base, 3, 0x44);
    (void)scene_fork(fork_of_two);
    put(2, scene.base + 1, 3, 0x55);
}

TEST(the_source_of_a_copy_does_not_come_back)
{
    TEST_NEEDS_HOOKS();
    two_pages(true);
    expect_point(POINT_COPIED, write_and_share_again);
    put(1, scene.base, 5, 0x66);
    points_end();
    CHECK_EQ(get(3, scene.base, 3), 0x44);
    CHECK_EQ(get(3, scene.base, 5), 0x66);
    scene_end();
}

/* --- A CPU that comes back while another flushes ---------------------------------------------- */

static bool taken, wrong;

static void enter_setup(void *arg)
{
    (void)arg;
    taken = wrong = false;
    scene_start(0);
    scene.base = GIGA;
    scene.pages = 1;
    scene.space = scene_space();
    scene_memory(scene.space, scene.base, 1, 0);
    REQUIRE_OK(host_cpu_run(1, scene.space));
    put(1, scene.base, 0, 1);
    host_cpu_stop(1);
}

static void take_write(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    wrong |= space_protect(ctx, scene.space, PAGE(scene.base), PAGE_SIZE, RIGHT_READ) != CLEAVE_OK;
    taken = true;
}

static void enter_and_write(struct mm_ctx *ctx, void *arg)
{
    unsigned char byte = 2;
    (void)arg;
    wrong |= host_cpu_run(ctx->cpu, scene.space) != CLEAVE_OK;
    bool was_taken = taken;
    enum cleave_status status = host_cpu_write(ctx->cpu, PAGE(scene.base), &byte, 1);
    wrong |= was_taken ? status != CLEAVE_FAULT : status != CLEAVE_OK && status != CLEAVE_FAULT;
    host_cpu_stop(ctx->cpu);
}

static bool nothing_wrong(void *arg)
{
    (void)arg;
    scene_audit();
    return !wrong;
}

TEST(entering_while_another_flushes)
{
    TEST_NEEDS_HOOKS();
    struct host_sched sched = {.setup = enter_setup,
                               .cpus = 2,
                               .body = {take_write, enter_and_write},
                               .check = nothing_wrong,
                               .max_preemptions = 2};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.complete);
}

/* --- Armed holes, and many tables ------------------------------------------------------------- */

/* A read that fills a hole of an armed region says nothing to the subscriber; the write after it
 * does. */
TEST(an_armed_hole_is_read_first)
{
    const struct channel_options options = {.grain = 0};
    struct channel *channel = NULL;
    struct vcpu_wait wait = {0};
    unsigned char byte = 1;

    scene_start(0);
    scene.base = GIGA;
    scene.pages = BLOCK;
    scene.space = scene_space();
    scene_region(scene.space, scene.base, BLOCK, REGION_PRIVATE, RIGHT_ALL, 1);
    REQUIRE_OK(channel_create(scene.ctx, scene.pool, &options, &channel));
    REQUIRE_OK(channel_arm(scene.ctx, channel, scene.space, PAGE(scene.base), BYTES(BLOCK)));
    REQUIRE_OK(host_cpu_run(1, scene.space));
    host_cpu_set_wait(1, &wait);
    CHECK_EQ(get(1, scene.base, 0), 0);
    scene_audit();
    CHECK_STATUS(host_cpu_write(1, PAGE(scene.base), &byte, 1), CLEAVE_WAIT);
    channel_destroy(scene.ctx, channel);
    scene_end();
}

static enum cleave_status destroy_step(struct mm_ctx *ctx, void *arg)
{
    return space_destroy(ctx, arg);
}

/* With the least budget, a call frees no more than one table. */
TEST(destroy_frees_one_table_a_call)
{
    enum cleave_status status;
    const uint64_t tables = TABLE_ENTRIES > 4 ? 12 : 4;

    scene_start(0);
    scene.space = scene_space();
    /* All that is mapped is one region: the tree of regions has nothing to free. */
    scene_region(scene.space, 0, GUEST_PAGES, REGION_PRIVATE, RIGHT_ALL, 0);
    for (uint64_t i = 0; i < tables; i++) {
        scene_write(scene.space, i * BLOCK, SCENE_TAG(i));
    }
    CHECK(host_run_preempted(scene.ctx, destroy_step, scene.space, 1, &status) > tables);
    CHECK_OK(status);
    scene_end();
}
