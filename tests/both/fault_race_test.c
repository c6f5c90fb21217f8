/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What other CPUs, spaces and operations may do between the steps of one fault: while its page is
 * being copied, and while they hold the translation that it replaces.
 */
#include <string.h>

#include "scene.h"

static const struct shape_row shapes[] = SHAPE_ROWS;

/* --- What others do while a page is being copied ---------------------------------------------- */

/* At the `nth` time that the point is reached, `act` runs once, on CPU 2. */
static struct meanwhile {
    enum port_point point;
    void (*act)(struct meanwhile *m);
    struct space *space, *child, *sibling;
    uint64_t page;
    unsigned acted;
    bool locked; /* the actor's fault would wait for a lock that is held */
} meanwhile;

#ifdef MM_HOOKS
static void on_point(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b, void *arg)
{
    struct meanwhile *m = arg;
    (void)a, (void)b;
    if (point == m->point && m->acted == 0 && ctx->cpu == 1) {
        m->acted++;
        CHECK_EQ(ctx->lock_depth, 0); /* copies are made outside the locks */
        m->act(m);
    }
}
#endif

static void run_meanwhile(enum port_point point, void (*act)(struct meanwhile *m))
{
    meanwhile.point = point;
    meanwhile.act = act;
    meanwhile.acted = 0;
#ifdef MM_HOOKS
    host_on_point(on_point, &meanwhile);
#endif
}

static const struct race_row {
    const char *label;
    enum shape shape;
    enum port_point point;
} races[] = {
    {"4k-copy", SHAPE_4K, POINT_COPY},
    {"4k-copied", SHAPE_4K, POINT_COPIED},
    {"2m-copy", SHAPE_2M, POINT_COPY},
    {"2m-copied", SHAPE_2M, POINT_COPIED},
    {"1g-copy", SHAPE_1G, POINT_COPY},
    {"1g-copied", SHAPE_1G, POINT_COPIED},
    {"split-2m-copied", SHAPE_SPLIT_2M, POINT_COPIED},
    {"split-1g-copied", SHAPE_SPLIT_1G, POINT_COPIED},
    {"partly-copy", SHAPE_PARTLY, POINT_COPY},
    {"partly-copied", SHAPE_PARTLY, POINT_COPIED},
};

static void race_start(const struct race_row *row)
{
    memset(&meanwhile, 0, sizeof(meanwhile));
    scene_shape(row->shape);
    for (unsigned i = 1; i < machine.cpus; i++) {
        host_cpu_stop(i);
    }
    meanwhile.space = scene.space;
    meanwhile.page = scene.base + (row->shape == SHAPE_PARTLY ? BLOCK - 1 : 0);
    meanwhile.child = scene_fork(scene.space);
}

static void write_at(unsigned cpu, uint64_t page, uint64_t tag)
{
    unsigned char bytes[PAGE_SIZE];
    scene_page(bytes, tag);
    REQUIRE_OK(host_cpu_write(cpu, PAGE(page), bytes, PAGE_SIZE));
}

/* Another vCPU of the same space writes the same page: one copy is dropped, no byte is lost. */
static void write_too(struct meanwhile *m)
{
    unsigned char byte = 0xab;
    REQUIRE_OK(host_cpu_write(2, gpa((m->page << PAGE_SHIFT) + 3), &byte, 1));
}
TEST_TABLE(lost_race_drops_the_copy, races)
{
    TEST_NEEDS_HOOKS();
    unsigned char found[PAGE_SIZE], bytes[PAGE_SIZE], byte = 0xcd;
    race_start(row);
    REQUIRE_OK(host_cpu_run(1, meanwhile.child));
    REQUIRE_OK(host_cpu_run(2, meanwhile.child));
    REQUIRE_OK(host_cpu_read(1, PAGE(meanwhile.page), found, 1));
    REQUIRE_OK(host_cpu_read(2, PAGE(meanwhile.page), found, 1));
    uint64_t lost = meanwhile.child->stats.lost_races;
    run_meanwhile(row->point, write_too);
    REQUIRE_OK(host_cpu_write(1, gpa((meanwhile.page << PAGE_SHIFT) + 5), &byte, 1));
    host_on_point(NULL, NULL);
    CHECK_EQ(meanwhile.acted, 1);
    CHECK(meanwhile.child->stats.lost_races > lost);
    scene_page(bytes, SCENE_TAG(meanwhile.page));
    bytes[3] = 0xab;
    bytes[5] = 0xcd;
    for (unsigned cpu = 1; cpu < 3; cpu++) {
        REQUIRE_OK(host_cpu_read(cpu, PAGE(meanwhile.page), found, PAGE_SIZE));
        CHECK_BYTES(found, bytes, PAGE_SIZE);
    }
    scene_look(scene.space, meanwhile.page, SCENE_TAG(meanwhile.page));
    scene_audit();
    scene_end();
}

/* The parent, which by then is the source's other holder, writes it while it is being copied: it
 * must not find itself the last. */
static void parent_writes(struct meanwhile *m)
{
    REQUIRE_OK(host_cpu_run(2, m->space));
    write_at(2, m->page, 8);
}
TEST_TABLE(source_is_held_while_it_is_copied, races)
{
    TEST_NEEDS_HOOKS();
    race_start(row);
    REQUIRE_OK(host_cpu_run(1, meanwhile.child));
    run_meanwhile(row->point, parent_writes);
    unsigned char byte;
    scene_page((unsigned char[PAGE_SIZE]){0}, 0);
    byte = 0x77;
    REQUIRE_OK(host_cpu_write(1, gpa((meanwhile.page << PAGE_SHIFT) + PAGE_SIZE - 1), &byte, 1));
    host_on_point(NULL, NULL);
    CHECK_EQ(meanwhile.acted, 1);
    unsigned char found[PAGE_SIZE], wanted[PAGE_SIZE];
    scene_page(wanted, SCENE_TAG(meanwhile.page));
    wanted[PAGE_SIZE - 1] = 0x77;
    REQUIRE_OK(host_cpu_read(1, PAGE(meanwhile.page), found, PAGE_SIZE));
    CHECK_BYTES(found, wanted, PAGE_SIZE);
    scene_check(scene.space, meanwhile.page, 8);
    scene_audit();
    scene_end();
}

/* T-C8: parent and sibling die while the page is being copied; what they held is recycled. */
static void relatives_die(struct meanwhile *m)
{
    struct space *filler;
    REQUIRE_OK(space_destroy(host_ctx(2), m->sibling));
    REQUIRE_OK(space_destroy(host_ctx(2), m->space));
    if (scene.other != NULL) {
        REQUIRE_OK(space_destroy(host_ctx(2), scene.other));
    }
    REQUIRE_OK(space_create(host_ctx(2), scene.pool, UINT64_MAX, &filler));
    const struct region region = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};
    REQUIRE_OK(space_set_region(host_ctx(2), filler, gpa(0), BYTES(BLOCK), &region));
    REQUIRE_OK(host_cpu_run(2, filler));
    for (uint64_t i = 0; i < BLOCK; i++) {
        write_at(2, i, 0xdead);
    }
}
TEST_TABLE(c8_relatives_die_between_copy_and_commit, races)
{
    TEST_NEEDS_HOOKS();
    race_start(row);
    meanwhile.sibling = scene_fork(scene.space);
    REQUIRE_OK(host_cpu_run(1, meanwhile.child));
    run_meanwhile(row->point, relatives_die);
    write_at(1, meanwhile.page, 7);
    host_on_point(NULL, NULL);
    CHECK_EQ(meanwhile.acted, 1);
    scene_check(meanwhile.child, meanwhile.page, 7);
    uint64_t next = meanwhile.page == scene.base ? scene.base + 1 : scene.base + BLOCK;
    scene_check(meanwhile.child, next, SCENE_TAG(next));
    scene_audit();
    scene_end();
}

/* The page is unmapped, or loses the right to be written, while it is being copied: the write
 * faults, the copy is dropped. */
static void unmap_it(struct meanwhile *m)
{
    REQUIRE_OK(space_unmap(host_ctx(2), m->child, PAGE(m->page), BYTES(1)));
}
static void protect_it(struct meanwhile *m)
{
    REQUIRE_OK(space_protect(host_ctx(2), m->child, PAGE(m->page), BYTES(1), RIGHT_READ));
}
static void fork_it(struct meanwhile *m)
{
    const struct fork_options options = {.limit = UINT64_MAX};
    REQUIRE_OK(space_fork(host_ctx(2), m->child, 1, &options, &m->sibling));
}
TEST_TABLE(changes_between_copy_and_commit_count, races)
{
    TEST_NEEDS_HOOKS();
    static void (*const acts[])(struct meanwhile *) = {unmap_it, protect_it, fork_it};
    unsigned char byte = 1;
    for (unsigned i = 0; i < 3; i++) {
        test_case("act %u", i);
        race_start(row);
        REQUIRE_OK(host_cpu_run(1, meanwhile.child));
        run_meanwhile(row->point, acts[i]);
        CHECK_STATUS(host_cpu_write(1, PAGE(meanwhile.page), &byte, 1),
                     i < 2 ? CLEAVE_FAULT : CLEAVE_OK);
        host_on_point(NULL, NULL);
        CHECK_EQ(meanwhile.acted, 1);
        scene_check(scene.space, meanwhile.page, SCENE_TAG(meanwhile.page));
        if (i == 2) {
            scene_check(meanwhile.sibling, meanwhile.page, SCENE_TAG(meanwhile.page));
        }
        scene_audit();
        scene_end();
    }
}

/* T-T4: a block is split, or copied, while another vCPU of the space uses its old translation: once
 * the fault has returned no store goes there any more. The model uses stale entries wherever it
 * may. */
TEST_TABLE(t4_no_old_translation_after_a_split, shapes)
{
    uint64_t sample[SCENE_SAMPLES];
    scene_shape(row->shape);
    unsigned n = scene_samples(sample);
    struct space *child = scene_fork(scene.space);
    REQUIRE_OK(host_cpu_run(1, child));
    REQUIRE_OK(host_cpu_run(2, child));
    for (unsigned i = 0; i < n; i++) {
        scene_check(child, sample[i], SCENE_TAG(sample[i]));
        CHECK_OK(host_cpu_read(2, PAGE(sample[i]), NULL, 8));
    }
    for (unsigned i = 0; i < n; i++) {
        unsigned char found[PAGE_SIZE], wanted[PAGE_SIZE];
        write_at(1, sample[i], 100 + i);
        REQUIRE_OK(host_cpu_read(2, PAGE(sample[i]), found, PAGE_SIZE));
        scene_page(wanted, 100 + i);
        CHECK_BYTES(found, wanted, PAGE_SIZE);
        write_at(2, sample[i], 200 + i);
        REQUIRE_OK(host_cpu_read(1, PAGE(sample[i]), found, PAGE_SIZE));
        scene_page(wanted, 200 + i);
        CHECK_BYTES(found, wanted, PAGE_SIZE);
        scene_look(scene.space, sample[i], SCENE_TAG(sample[i]));
        host_tlb_check();
    }
    scene_audit();
    scene_end();
}
