/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Races about one block: split, merge, collapse, and what others do to it meanwhile. Wherever
 * another CPU comes between, a write of one space never shows in another, whichever of them maps
 * the block whole and whichever by its parts.
 */
#include <stdio.h>

#include "scene.h"

/* A space with one leaf of `order` at scene.base, and a page in the same table that may be written.
 */
static void one_leaf(unsigned order)
{
    uint64_t spare = TABLE_ENTRIES > 4 ? 24 : 96;
    scene_start(order == 2 ? 2 * TABLE_ENTRIES + spare : spare);
    scene.base = GIGA;
    scene.pages = level_pages(order);
    scene.space = scene_space();
    scene_memory(scene.space, scene.base, scene.pages, order);
    scene_region(scene.space, scene.base + scene.pages, 1, REGION_PRIVATE, RIGHT_ALL, 0);
}

static uint64_t page_tag(uint64_t page) { return SCENE_TAG(scene.base + page); }
/* What somebody writes there later. */
static uint64_t late_tag(uint64_t page) { return page_tag(page) + UINT64_C(0x100000000); }

/* Makes [page, page + pages) of the block leaves of their own, copying nothing. */
static void cut(struct space *space, uint64_t page, uint64_t pages)
{
    gpa_t at = PAGE(scene.base + page);
    REQUIRE_OK(space_protect(scene.ctx, space, at, BYTES(pages), RIGHT_READ | RIGHT_WRITE));
    REQUIRE_OK(space_protect(scene.ctx, space, at, BYTES(pages), RIGHT_ALL));
}

static const struct race_order {
    const char *label;
    unsigned order;
} orders[] = {{"2m", 1}, {"1g", 2}};

/* --- Another space's write in the middle of a split or a merge -------------------------------- */

static struct {
    enum port_point point;
    struct space *writer;
    unsigned cpu; /* that runs it */
    uint64_t page[2];
    unsigned met;
} middle;

static pfn_t frame_at(struct space *space, uint64_t page)
{
    struct mapping m = {0};
    REQUIRE_OK(space_lookup(host_ctx(middle.cpu), space, PAGE(scene.base + page), &m));
    return m.frame;
}

/* A page that another holds, too, is copied, even now. */
static void write_in_the_middle(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                                void *arg)
{
    (void)ctx, (void)a, (void)b, (void)arg;
    if (point != middle.point || middle.met++ > 0) {
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        uint64_t page = middle.page[i];
        pfn_t before = frame_at(middle.writer, page);
        scene_write(middle.writer, scene.base + page, late_tag(page));
        CHECK_NE(frame_at(middle.writer, page).v, before.v);
    }
}

static void expect_middle(enum port_point point, struct space *writer, uint64_t first,
                          uint64_t second)
{
    middle.point = point;
    middle.writer = writer;
    middle.cpu = scene_cpu(writer);
    middle.page[0] = first;
    middle.page[1] = second;
    middle.met = 0;
    host_on_point(write_in_the_middle, NULL);
}

/* Two spaces map a block whole. One splits it; before the head is lowered, the other writes. */
TEST_TABLE(x15_write_in_the_middle_of_a_split, orders)
{
    TEST_NEEDS_HOOKS();
    const uint64_t other = level_pages(row->order - 1) + 1; /* a page of the second part */
    one_leaf(row->order);
    scene_write(scene.space, scene.base, page_tag(0));
    scene_write(scene.space, scene.base + other, page_tag(other));
    struct space *child = scene_fork(scene.space);
    /* Each gets tables of its own, so that they meet at the block alone. */
    scene_write(child, scene.base + scene.pages, 1);
    scene_write(scene.space, scene.base + scene.pages, 2);
    REQUIRE_EQ(scene_lookup(child, scene.base).level, row->order);

    expect_middle(POINT_SPLIT_RAISED, child, 0, other);
    scene_write(scene.space, scene.base + 1, late_tag(1));
    host_on_point(NULL, NULL);
    CHECK(middle.met > 0);
    scene_check(scene.space, scene.base, page_tag(0));
    scene_check(scene.space, scene.base + 1, late_tag(1));
    scene_check(scene.space, scene.base + other, page_tag(other));
    scene_check(child, scene.base, late_tag(0));
    scene_check(child, scene.base + 1, 0);
    scene_check(child, scene.base + other, late_tag(other));
    scene_end();
}

/* Two spaces map the parts of a block. The references of one become one of the head; before the
 * parts are lowered, the other writes. (A collapse merges no block that another holds a part of:
 * this is the step alone, and back again.) */
TEST_TABLE(x15_write_in_the_middle_of_a_merge, orders)
{
    TEST_NEEDS_HOOKS();
    const uint64_t part = level_pages(row->order - 1);
    one_leaf(row->order);
    for (uint64_t page = 0; page < 3 * part; page += part) {
        scene_write(scene.space, scene.base + page, page_tag(page));
    }
    cut(scene.space, 0, part);
    struct space *child = scene_fork(scene.space);
    scene_write(child, scene.base, late_tag(0));
    scene_write(scene.space, scene.base + scene.pages, 1);
    struct mapping m = scene_lookup(scene.space, scene.base);
    REQUIRE_EQ(m.level, row->order - 1);

    expect_middle(POINT_MERGE_RAISED, child, part, 2 * part);
    REQUIRE_OK(frame_merge(scene.ctx, m.frame, row->order));
    host_on_point(NULL, NULL);
    CHECK(middle.met > 0);
    REQUIRE_OK(frame_split(scene.ctx, m.frame, row->order));
    for (uint64_t page = 0; page < 3 * part; page += part) {
        scene_check(scene.space, scene.base + page, page_tag(page));
        scene_check(child, scene.base + page, late_tag(page));
    }
    scene_end();
}

/* --- Split, merge and update of one block, in every order ------------------------------------- */

enum deed { WRITE, DESTROY, PROTECT, UNMAP };

static const struct race {
    const char *label;
    unsigned order;
    bool parts;       /* the fork maps the block by its parts, too */
    enum deed fork;   /* what is done in the fork, or to it */
    enum deed update; /* what is done in the parent beside its collapse */
} races[] = {
    {"2m-write", 1, false, WRITE, WRITE},      {"2m-destroy", 1, false, DESTROY, WRITE},
    {"parts-write", 1, true, WRITE, WRITE},    {"parts-destroy", 1, true, DESTROY, WRITE},
    {"2m-protect", 1, false, WRITE, PROTECT},  {"parts-unmap", 1, true, DESTROY, UNMAP},
    {"1g-write", 2, false, WRITE, WRITE},      {"1g-destroy", 2, true, DESTROY, WRITE},
    {"1g-protect", 2, true, DESTROY, PROTECT}, {"1g-unmap", 2, false, DESTROY, UNMAP},
};

static struct {
    const struct race *row;
    struct space *fork;
    bool wrong;
    unsigned collapsed; /* schedules in which the collapse came through */
} race;

/* Pages of the parts by number. */
static uint64_t in_part(unsigned part) { return part * level_pages(race.row->order - 1); }

static void race_setup(void *arg)
{
    race.row = arg;
    race.wrong = false;
    one_leaf(race.row->order);
    for (unsigned part = 0; part < 4; part++) {
        scene_write(scene.space, scene.base + in_part(part), page_tag(in_part(part)));
    }
    if (race.row->parts) {
        cut(scene.space, 0, in_part(1));
    }
    race.fork = scene_fork(scene.space);
    scene_write(race.fork, scene.base + scene.pages, 1);
    if (race.row->order == 1) {
        scene_write(scene.space, scene.base + in_part(1), late_tag(in_part(1)));
    }
    for (unsigned cpu = 1; cpu < machine.cpus; cpu++) {
        host_cpu_stop(cpu);
    }
}

static void guest_write(struct mm_ctx *ctx, struct space *space, uint64_t page)
{
    unsigned char bytes[PAGE_SIZE];
    scene_page(bytes, late_tag(page));
    race.wrong |= host_cpu_run(ctx->cpu, space) != CLEAVE_OK ||
                  host_cpu_write(ctx->cpu, PAGE(scene.base + page), bytes, PAGE_SIZE) != CLEAVE_OK;
    host_cpu_stop(ctx->cpu);
}

/* The parent's block becomes one leaf again, or something stands in the way. */
static void collapse_body(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    enum cleave_status status = space_collapse(ctx, scene.space, PAGE(scene.base), race.row->order);
    /* NO_MEMORY: the place of a part is taken, by what somebody else is about to drop. */
    race.wrong |= status != CLEAVE_OK && status != CLEAVE_BUSY && status != CLEAVE_NO_MEMORY &&
                  status != CLEAVE_NOT_MAPPED;
    race.collapsed += status == CLEAVE_OK;
}

static void fork_body(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    if (race.row->fork == DESTROY) {
        race.wrong |= space_destroy(ctx, race.fork) != CLEAVE_OK;
    } else {
        guest_write(ctx, race.fork, in_part(2));
    }
}

static void update_body(struct mm_ctx *ctx, void *arg)
{
    gpa_t at = PAGE(scene.base + in_part(3));
    (void)arg;
    switch (race.row->update) {
    case WRITE:
        guest_write(ctx, scene.space, in_part(3));
        break;
    case PROTECT:
        race.wrong |= space_protect(ctx, scene.space, at, BYTES(1), RIGHT_READ) != CLEAVE_OK;
        break;
    case UNMAP:
        race.wrong |= space_unmap(ctx, scene.space, at, BYTES(1)) != CLEAVE_OK;
        break;
    case DESTROY:
        break;
    }
}

static bool race_check(void *arg)
{
    (void)arg;
    for (unsigned part = 0; part < 4; part++) {
        uint64_t page = in_part(part);
        bool late = (part == 1 && race.row->order == 1) || (part == 3 && race.row->update == WRITE);
        if (part != 3 || race.row->update != UNMAP) {
            scene_look(scene.space, scene.base + page, late ? late_tag(page) : page_tag(page));
        }
        if (race.row->fork == WRITE) {
            scene_look(race.fork, scene.base + page, part == 2 ? late_tag(page) : page_tag(page));
        }
    }
    scene_audit();
    return !race.wrong;
}

TEST_TABLE(x15_split_merge_and_update, races)
{
    TEST_NEEDS_HOOKS();
    if (TABLE_ENTRIES > 4) {
        TEST_SKIP("the small geometry only");
    }
    race.collapsed = 0;
    struct host_sched sched = {.setup = race_setup,
                               .cpus = 3,
                               .body = {collapse_body, fork_body, update_body},
                               .check = race_check,
                               .arg = (void *)(uintptr_t)row,
                               .max_preemptions = 1};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.complete);
    unsigned all = (unsigned)sched.schedules;
    sched.max_preemptions = 4;
    sched.random = test_steps(300);
    sched.seed = test_seed();
    CHECK(host_sched_explore(&sched));
    printf("%u schedules and %u at random: %u collapsed\n", all, (unsigned)sched.schedules,
           race.collapsed);
}
