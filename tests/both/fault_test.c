/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nested page faults: every case of a write after a fork, first touch, reads and fetches, what
 * copies and what does not. What others do meanwhile is in fault_race_test.c.
 */
/*
 * Nested page faults: every case of a write after a fork, first touch, reads and fetches, what
 * copies and what does not, and what other CPUs may do between the steps of one fault.
 */
#include <string.h>

#include "notify.h"
#include "scene.h"

static const struct shape_row shapes[] = SHAPE_ROWS;

/* What a space has done since `since`. */
static struct space_stats done(const struct space *space, const struct space_stats *since)
{
    struct space_stats d = space->stats;
    d.faults -= since->faults;
    d.write_faults -= since->write_faults;
    d.tables_copied -= since->tables_copied;
    d.pages_copied -= since->pages_copied;
    d.blocks_copied -= since->blocks_copied;
    d.blocks_split -= since->blocks_split;
    d.gigas_split -= since->gigas_split;
    d.reused -= since->reused;
    d.restored -= since->restored;
    d.zeroed -= since->zeroed;
    d.lost_races -= since->lost_races;
    d.collapsed -= since->collapsed;
    return d;
}

/* The first table that a walk to `page` meets below the root. */
static pfn_t table_at(struct space *space, uint64_t page, unsigned level)
{
    struct walk walk;
    walk_find(scene.ctx, space, gfn(page), level, &walk);
    walk_end(scene.ctx, &walk);
    return walk.level == level ? walk.table : PFN_NONE;
}

/* --- Each case of a write --------------------------------------------------------------------- */

static const struct write_case {
    const char *label;
    enum shape shape;
    uint64_t tables, pages, blocks, gigas; /* copied, copied, split, split */
    unsigned level;                        /* of the leaf that was written, after it */
} writes[] = {
    {"4k", SHAPE_4K, ROOT_LEVEL, 1, 0, 0, 0},
    {"2m", SHAPE_2M, ROOT_LEVEL - 1, 1, 1, 0, 0},
    {"1g", SHAPE_1G, ROOT_LEVEL - 2, 1, 1, 1, 0},
    {"split-2m", SHAPE_SPLIT_2M, ROOT_LEVEL, 1, 0, 0, 0},
    {"split-1g", SHAPE_SPLIT_1G, ROOT_LEVEL - 1, 1, 1, 0, 0},
    {"partly", SHAPE_PARTLY, ROOT_LEVEL, 1, 0, 0, 0},
};

/* The first write after a fork copies the path, splits what is large, and copies one page. A second
 * one to the same page takes no fault; the other side keeps its bytes and its huge leaf. */
TEST_TABLE(write_after_fork, writes)
{
    scene_shape(row->shape);
    struct space *space = scene.space, *child = scene_fork(space);
    unsigned before = scene_lookup(space, scene.base).level;
    struct space_stats since = child->stats;
    host_reset_counters();
    scene_write(child, scene.base, 9);
    struct space_stats d = done(child, &since);
    CHECK_EQ(d.tables_copied, row->tables);
    CHECK_EQ(d.pages_copied, row->pages);
    CHECK_EQ(d.blocks_split, row->blocks);
    CHECK_EQ(d.gigas_split, row->gigas);
    CHECK_EQ(d.write_faults, 1);
    CHECK_EQ(host_counters().bytes_copied, PAGE_SIZE);
    struct mapping m = scene_lookup(child, scene.base);
    CHECK_EQ(m.level, row->level);
    CHECK_EQ(m.rights & RIGHT_WRITE, RIGHT_WRITE);
    CHECK(m.exclusive);
    CHECK_EQ(scene_lookup(space, scene.base).level, before);
    scene_audit();
    since = child->stats;
    scene_write(child, scene.base, 10);
    CHECK_EQ(done(child, &since).faults, 0);
    scene_check(space, scene.base, SCENE_TAG(scene.base));
    scene_check(child, scene.base, 10);
    scene_check(child, scene.base + 1, SCENE_TAG(scene.base + 1));
    scene_end();
}

/* A further write next to it copies that page and nothing else. */
TEST_TABLE(second_write_finds_its_path, writes)
{
    scene_shape(row->shape);
    struct space *child = scene_fork(scene.space);
    scene_write(child, scene.base, 9);
    struct space_stats since = child->stats;
    scene_write(child, scene.base + 1, 10);
    struct space_stats d = done(child, &since);
    CHECK_EQ(d.tables_copied, 0);
    CHECK_EQ(d.pages_copied, 1);
    CHECK_EQ(d.blocks_split + d.gigas_split, 0);
    CHECK_EQ(d.write_faults, 1);
    scene_check(scene.space, scene.base + 1, SCENE_TAG(scene.base + 1));
    scene_audit();
    scene_end();
}

/* By policy a shared 2 MiB leaf is copied whole; also when it lies in a 1 GiB leaf, which is split
 * into 2 MiB parts first. Without a free block the copy falls back to a split and one page. */
TEST(whole_blocks_are_copied_by_policy)
{
    static const enum shape which[] = {SHAPE_2M, SHAPE_1G, SHAPE_SPLIT_1G};
    for (unsigned i = 0; i < 3; i++) {
        test_case("shape %u", i);
        scene_shape(which[i]);
        const struct region whole = {
            .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1, .whole = true};
        REQUIRE_OK(
            space_set_region(scene.ctx, scene.space, PAGE(scene.base), BYTES(scene.pages), &whole));
        struct space *child = scene_fork(scene.space);
        struct space_stats since = child->stats;
        scene_write(child, scene.base + 1, 9);
        struct space_stats d = done(child, &since);
        CHECK_EQ(d.blocks_copied, 1);
        CHECK_EQ(d.pages_copied, 0);
        CHECK_EQ(d.blocks_split, 0);
        CHECK_EQ(d.gigas_split, which[i] == SHAPE_1G);
        CHECK_EQ(scene_lookup(child, scene.base + 1).level, 1);
        scene_audit();
        since = child->stats;
        scene_write(child, scene.base, 10);
        CHECK_EQ(done(child, &since).faults, 0);
        scene_check(scene.space, scene.base + 1, SCENE_TAG(scene.base + 1));
        scene_check(scene.space, scene.base, SCENE_TAG(scene.base));
        scene_end();
    }
}

TEST(whole_copy_falls_back_when_no_block_is_free)
{
    scene_shape(SHAPE_2M);
    const struct region whole = {
        .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1, .whole = true};
    REQUIRE_OK(
        space_set_region(scene.ctx, scene.space, PAGE(scene.base), BYTES(scene.pages), &whole));
    struct space *child = scene_fork(scene.space);
    struct payer hog = {.pool = scene.pool};
    pfn_t f, small[16];
    for (unsigned i = 0; i < 16; i++) {
        REQUIRE_OK(pool_alloc(scene.ctx, &hog, 0, FRAME_DATA, &small[i]));
    }
    uint64_t taken = 0;
    while (pool_alloc(scene.ctx, &hog, 1, FRAME_DATA, &f) == CLEAVE_OK) {
        taken++;
    }
    CHECK(taken > 0);
    for (unsigned i = 0; i < 16; i += 2) {
        frame_put(scene.ctx, small[i], 0); /* frames are left, but no whole block */
    }
    struct space_stats since = child->stats;
    scene_write(child, scene.base, 9);
    struct space_stats d = done(child, &since);
    CHECK_EQ(d.blocks_copied, 0);
    CHECK_EQ(d.pages_copied, 1);
    CHECK_EQ(d.blocks_split, 1);
    scene_check(scene.space, scene.base, SCENE_TAG(scene.base));
    scene_check(child, scene.base, 9);
}

/* --- Reuse ------------------------------------------------------------------------------------ */

/* The other holder is gone: what it shared is written in place, nothing is copied, and one fault
 * gives all leaves of the table their write bits back. */
TEST_TABLE(last_holder_reuses, shapes)
{
    scene_shape(row->shape);
    struct space *child = scene_fork(scene.space);
    scene_write(child, scene.base + BLOCK,
                5); /* a private path in the child; the parent's is shared */
    scene_destroy(child);
    if (scene.other != NULL) {
        scene_destroy(scene.other);
    }
    REQUIRE(table_reap(scene.ctx, scene.pool));
    struct mapping before = scene_lookup(scene.space, scene.base);
    struct space_stats since = scene.space->stats;
    host_reset_counters();
    scene_write(scene.space, scene.base, 9);
    struct space_stats d = done(scene.space, &since);
    CHECK_EQ(host_counters().bytes_copied, 0);
    CHECK_EQ(d.tables_copied + d.pages_copied + d.blocks_split + d.gigas_split, 0);
    CHECK_EQ(d.write_faults, 1);
    CHECK_EQ(scene_lookup(scene.space, scene.base).frame.v, before.frame.v);
    scene_audit();
    /* Every other leaf of that table has its write bit, too. */
    since = scene.space->stats;
    uint64_t reach =
        level_pages(before.level + 1) < scene.pages ? level_pages(before.level + 1) : scene.pages;
    for (uint64_t i = 0; i < TABLE_ENTRIES && i * level_pages(before.level) < reach; i++) {
        uint64_t page = scene.base + i * level_pages(before.level);
        struct mapping m = scene_lookup(scene.space, page);
        if (m.level == before.level) {
            CHECK(m.rights & RIGHT_WRITE);
        }
    }
    scene_write(scene.space, scene.base + 1, 10);
    CHECK_EQ(done(scene.space, &since).faults, 0);
    scene_end();
}

/* At most one fault a table, however the last child had left the tables. */
TEST(one_fault_per_table_after_the_last_child_died)
{
    enum { BLOCKS = 3 };
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, BLOCKS * BLOCK, 0);
    for (uint64_t i = 0; i < BLOCKS * BLOCK; i++) {
        scene_write(space, i, 1 + i);
    }
    struct space *child = scene_fork(space);
    scene_destroy(child);
    struct space_stats since = space->stats;
    for (uint64_t i = 0; i < BLOCKS * BLOCK; i++) {
        scene_write(space, i, 1000 + i);
    }
    CHECK_LE(done(space, &since).write_faults, BLOCKS);
    CHECK_EQ(done(space, &since).pages_copied, 0);
    scene_end();
}

/* Write bits that come back with a table are not given to what is read-only or armed. */
TEST(write_bits_are_not_given_to_what_must_not_have_them)
{
    const struct channel_options options = {0};
    struct channel *channel = NULL;
    for (unsigned order = 0; order < 2; order++) {
        test_case("order %u", order);
        scene_start(0);
        struct space *space = scene_space();
        uint64_t step = level_pages(order);
        scene_memory(space, 0, 4 * step, order);
        for (uint64_t i = 0; i < 4; i++) {
            scene_write(space, i * step, 1 + i);
        }
        REQUIRE_OK(channel_create(scene.ctx, scene.pool, &options, &channel));
        struct space *child = scene_fork(space);
        /* Over shared tables both are only recorded. */
        REQUIRE_OK(
            space_protect(scene.ctx, space, PAGE(step), BYTES(step), RIGHT_READ | RIGHT_EXEC));
        REQUIRE_OK(channel_arm(scene.ctx, channel, space, PAGE(2 * step), BYTES(step)));
        scene_audit();
        scene_destroy(child);
        scene_write(space, 0, 9); /* gives the table, and what in it may, the write bit */
        scene_audit();
        CHECK_EQ(scene_lookup(space, step).rights & RIGHT_WRITE, 0);
        CHECK_EQ(scene_lookup(space, 2 * step).rights & RIGHT_WRITE, 0);
        CHECK_EQ(scene_lookup(space, 3 * step).rights & RIGHT_WRITE, RIGHT_WRITE);
        CHECK_STATUS(scene_access(space, step, ACCESS_WRITE), CLEAVE_FAULT);
        struct vcpu_wait wait = {.vcpu = 1};
        host_cpu_set_wait(scene_cpu(space), &wait);
        CHECK_STATUS(scene_access(space, 2 * step, ACCESS_WRITE), CLEAVE_WAIT);
        scene_audit();
        scene_look(space, 2 * step, 3);
        host_cpu_set_wait(scene_cpu(space), NULL);
        struct event event;
        REQUIRE(channel_next(scene.ctx, channel, &event));
        REQUIRE_OK(channel_verdict(scene.ctx, channel, event.id, VERDICT_ALLOW));
        scene_write(space, 2 * step, 10);
        channel_destroy(scene.ctx, channel);
        scene_end();
    }
}

/* --- First touch, reads and fetches ----------------------------------------------------------- */

TEST(first_touch_is_writable_in_one_step)
{
    for (unsigned order = 0; order < 2; order++) {
        scene_start(0);
        struct space *space = scene_space();
        scene_region(space, 0, 2 * BLOCK, REGION_PRIVATE, RIGHT_ALL, order);
        scene_write(space, 1, 3);
        CHECK_EQ(space->stats.faults, 1);
        CHECK_EQ(space->stats.zeroed, level_pages(order));
        CHECK_EQ(space->stats.pages_copied, 0);
        CHECK_EQ(scene_lookup(space, 1).level, order);
        /* A read maps it, too, and a write after that faults no more. */
        scene_check(space, BLOCK, 0);
        CHECK_EQ(space->stats.faults, 2);
        scene_write(space, BLOCK, 4);
        CHECK_EQ(space->stats.faults, 2);
        scene_audit();
        scene_end();
    }
}

/* A hole that parent and child share: each fills its own. */
TEST(first_touch_in_shared_tables)
{
    scene_start(0);
    struct space *space = scene_space();
    scene_region(space, 0, BLOCK, REGION_PRIVATE, RIGHT_ALL, 0);
    scene_write(space, 0, 1);
    struct space *child = scene_fork(space);
    scene_write(child, 1, 2);
    scene_check(space, 1, 0);
    scene_write(space, 1, 3);
    scene_check(child, 1, 2);
    scene_check(child, 0, 1);
    scene_audit();
    scene_end();
}

TEST(accesses_that_no_region_allows_fault)
{
    static const struct {
        unsigned rights;
        enum access access;
        enum cleave_status status;
    } cases[] = {
        {RIGHT_READ, ACCESS_READ, CLEAVE_OK},
        {RIGHT_READ, ACCESS_WRITE, CLEAVE_FAULT},
        {RIGHT_READ, ACCESS_EXEC, CLEAVE_FAULT},
        {RIGHT_READ | RIGHT_WRITE, ACCESS_WRITE, CLEAVE_OK},
        {RIGHT_READ | RIGHT_WRITE, ACCESS_EXEC, CLEAVE_FAULT},
        {RIGHT_READ | RIGHT_EXEC, ACCESS_EXEC, CLEAVE_OK},
        {RIGHT_READ | RIGHT_EXEC, ACCESS_WRITE, CLEAVE_FAULT},
        {RIGHT_ALL, ACCESS_EXEC, CLEAVE_OK},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (unsigned touched = 0; touched < 2; touched++) {
            test_case("case %u, touched %u", i, touched);
            scene_start(0);
            struct space *space = scene_space();
            scene_region(space, 0, 1, REGION_PRIVATE, cases[i].rights, 0);
            if (touched) {
                CHECK_OK(scene_access(space, 0, ACCESS_READ));
            }
            CHECK_STATUS(scene_access(space, 0, cases[i].access), cases[i].status);
            CHECK_STATUS(scene_access(space, 1, cases[i].access), CLEAVE_FAULT);
            scene_audit();
            scene_end();
        }
    }
    scene_start(0);
    struct space *space = scene_space();
    CHECK_STATUS(space_fault(scene.ctx, space, gpa(UINT64_C(1) << GUEST_BITS), ACCESS_READ, NULL),
                 CLEAVE_RANGE);
    CHECK_EQ(strcmp(scene.ctx->error.argument, "at"), 0);
    CHECK_STATUS(space_fault(scene.ctx, space, gpa(UINT64_MAX), ACCESS_WRITE, NULL), CLEAVE_RANGE);
    struct space *snapshot = scene_snapshot(space);
    CHECK_STATUS(space_fault(scene.ctx, snapshot, gpa(0), ACCESS_READ, NULL), CLEAVE_FROZEN);
    scene_end();
}

/* T-T9: what may be done is the AND over the levels: every combination of write and execute at each
 * of them, against the hardware's own walk. */
TEST(t9_rights_are_anded_over_the_levels)
{
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, 1, 0);
    scene_write(space, 0, 1);
    struct host_walk path = host_walk(space->root, gpa(0));
    pte_t saved[TABLE_LEVELS];
    for (unsigned level = 0; level < TABLE_LEVELS; level++) {
        saved[level] = *path.slot[level];
    }
    for (unsigned bits = 0; bits < 1u << (2 * TABLE_LEVELS); bits++) {
        unsigned expected = RIGHT_ALL;
        for (unsigned level = 0; level < TABLE_LEVELS; level++) {
            bool w = (bits >> (2 * level) & 1) != 0, x = (bits >> (2 * level + 1) & 1) != 0;
            pte_t e = pte_set_exec(pte_without_write(saved[level]), x);
            *path.slot[level] = w ? pte_with_write(e) : e;
            expected &= RIGHT_READ | (w ? RIGHT_WRITE : 0u) | (x ? RIGHT_EXEC : 0u);
        }
        test_case("bits %#x", bits);
        CHECK_EQ(scene_lookup(space, 0).rights, expected);
        CHECK_EQ(host_walk(space->root, gpa(0)).rights, expected);
        /* Whatever was missing comes back with a fault, at whichever level. */
        CHECK_OK(space_fault(scene.ctx, space, gpa(0), ACCESS_WRITE, NULL));
        CHECK(host_walk(space->root, gpa(0)).rights & RIGHT_WRITE);
        CHECK_OK(space_fault(scene.ctx, space, gpa(0), ACCESS_EXEC, NULL));
        CHECK_EQ(host_walk(space->root, gpa(0)).rights, RIGHT_ALL);
    }
    scene_end();
}

/* T-H1: with executable huge leaves forbidden none ever is; a fetch splits once and then goes on.
 */
static const struct exec_case {
    const char *label;
    enum shape shape;
    bool huge_exec;
} execs[] = {
    {"2m", SHAPE_2M, false},
    {"1g", SHAPE_1G, false},
    {"split-1g", SHAPE_SPLIT_1G, false},
    {"partly", SHAPE_PARTLY, false},
    {"2m-allowed", SHAPE_2M, true},
    {"1g-allowed", SHAPE_1G, true},
};
TEST_TABLE(h1_huge_leaves_are_not_executable, execs)
{
    uint64_t sample[SCENE_SAMPLES];
    scene_shape_with(row->shape, &(struct host_options){.huge_exec = row->huge_exec});
    unsigned n = scene_samples(sample);
    for (unsigned i = 0; i < n; i++) {
        struct mapping m = scene_lookup(scene.space, sample[i]);
        CHECK(m.level == 0 || row->huge_exec || !(m.rights & RIGHT_EXEC));
    }
    unsigned level = scene_lookup(scene.space, scene.base).level;
    struct space_stats since = scene.space->stats;
    CHECK_OK(scene_access(scene.space, scene.base, ACCESS_EXEC));
    CHECK_OK(scene_access(scene.space, scene.base + 1, ACCESS_EXEC));
    CHECK_LE(scene.space->stats.exec_faults - since.exec_faults, 2);
    CHECK_EQ(done(scene.space, &since).pages_copied, 0);
    CHECK_EQ(scene_lookup(scene.space, scene.base).level, row->huge_exec ? level : 0);
    CHECK(scene_lookup(scene.space, scene.base).rights & RIGHT_EXEC);
    scene_check(scene.space, scene.base, SCENE_TAG(scene.base));
    scene_audit();
    struct space *child = scene_fork(scene.space);
    CHECK_OK(scene_access(child, scene.base, ACCESS_EXEC));
    scene_write(child, scene.base, 3);
    CHECK_OK(scene_access(child, scene.base, ACCESS_EXEC));
    scene_check(scene.space, scene.base, SCENE_TAG(scene.base));
    scene_audit();
    scene_end();
}

/* T-H2: an entry that is not present is zero, or points above all memory. */
static void check_not_present(pfn_t table)
{
    unsigned level = table_level(table);
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        pte_t e = table_slots(table)[i];
        if (pte_is_table(e, level)) {
            check_not_present(pte_pfn(e));
        } else if (!pte_is_leaf(e, level)) {
            CHECK(e == 0 || (e & PTE_PAGED_FAR));
        }
    }
}
TEST_TABLE(h2_absent_entries_point_nowhere, shapes)
{
    scene_shape(row->shape);
    struct space *child = scene_fork(scene.space);
    scene_write(child, scene.base, 1);
    REQUIRE_OK(space_unmap(scene.ctx, child, PAGE(scene.base + 1), BYTES(2)));
    REQUIRE_OK(space_protect(scene.ctx, child, PAGE(scene.base + BLOCK), BYTES(1), RIGHT_READ));
    check_not_present(child->root);
    check_not_present(scene.space->root);
    scene_end();
}

/* --- T-C2: accessed and dirty bits prove nothing ---------------------------------------------- */

static void set_flags(pfn_t table)
{
    unsigned level = table_level(table);
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        pte_t *slot = &table_slots(table)[i];
        if (pte_is_table(*slot, level)) {
            *slot |= pt_format.accessed;
            set_flags(pte_pfn(*slot));
        } else if (pte_is_leaf(*slot, level)) {
            *slot |= pt_format.accessed | pt_format.dirty;
        }
    }
}

TEST_TABLE(c2_dirty_bits_do_not_make_writable, shapes)
{
    uint64_t sample[SCENE_SAMPLES];
    scene_shape(row->shape);
    unsigned n = scene_samples(sample);
    struct space *child = scene_fork(scene.space);
    set_flags(child->root);
    set_flags(scene.space->root);
    for (unsigned i = 0; i < n; i++) {
        CHECK_OK(scene_access(child, sample[i], ACCESS_READ));
        CHECK_OK(scene_access(child, sample[i], ACCESS_EXEC));
        CHECK_EQ(scene_lookup(child, sample[i]).rights & RIGHT_WRITE, 0);
        CHECK_EQ(scene_lookup(scene.space, sample[i]).rights & RIGHT_WRITE, 0);
    }
    scene_audit();
    scene_write(child, scene.base, 3);
    set_flags(child->root);
    scene_check(scene.space, scene.base, SCENE_TAG(scene.base));
    scene_write(scene.space, scene.base, 4);
    scene_check(child, scene.base, 3);
    scene_audit();
    scene_end();
}

/* T-X5: no frame for the table of a split, or for a table on the path: the fault says so, nothing
 * that anybody reads has changed, and with memory back it succeeds. */
TEST_TABLE(x5_every_allocation_of_a_write_fails, shapes)
{
    for (uint64_t k = 1;; k++) {
        test_case("allocation %d", (int)k);
        scene_shape(row->shape);
        struct space *child = scene_fork(scene.space);
        struct scene_state before = scene_state();
        uint64_t tag = 1;
        host_cpu_stop(1);
        REQUIRE_OK(host_cpu_run(1, child));
        host_fail_allocation(k);
        enum cleave_status status = host_cpu_write(1, PAGE(scene.base + 1), &tag, sizeof(tag));
        bool failed = host_allocation_failed();
        host_fail_allocation(0);
        scene_audit();
        if (status != CLEAVE_OK) {
            CHECK_STATUS(status, CLEAVE_NO_MEMORY);
            struct scene_state after = scene_state();
            SCENE_CHECK_SAME_VIEW(before, after);
        }
        scene_write(child, scene.base + 1, 6);
        scene_check(scene.space, scene.base + 1, SCENE_TAG(scene.base + 1));
        scene_check(child, scene.base, SCENE_TAG(scene.base));
        scene_audit();
        scene_end();
        if (!failed) {
            break;
        }
    }
}

/* A table is copied, another is not: the parent keeps its tables. */
TEST(shared_tables_are_copied_once)
{
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, BLOCK, 0);
    scene_write(space, 0, 1);
    pfn_t before = table_at(space, 0, 0);
    struct space *child = scene_fork(space);
    CHECK_EQ(table_at(child, 0, 0).v, before.v);
    scene_write(child, 0, 2);
    CHECK_EQ(table_at(space, 0, 0).v, before.v);
    CHECK_NE(table_at(child, 0, 0).v, before.v);
    CHECK_EQ(node_count(before), 1);
    uint64_t copied = space->stats.tables_copied;
    scene_write(space, 0, 3); /* its own again: no copy of a table */
    CHECK_EQ(space->stats.tables_copied, copied);
    CHECK_EQ(table_at(space, 0, 0).v, before.v);
    scene_audit();
    scene_end();
}
