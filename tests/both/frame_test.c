/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reference counts: what each of the chain of a part says, the one predicate against a count by
 * hand, splits and merges that hand references over, blocks that dissolve and leave nothing
 * stranded, and counts that would overflow.
 */
#include <string.h>

#include "scene.h"

static struct payer payer;

static void start(uint64_t blocks)
{
    scene_start(blocks);
    payer = (struct payer){.pool = scene.pool};
}

static pfn_t take(unsigned order)
{
    pfn_t f;
    REQUIRE_OK(pool_alloc(scene.ctx, &payer, order, FRAME_DATA, &f));
    return f;
}

static uint64_t giga_blocks(void) { return 2 * TABLE_ENTRIES; }

/* --- The predicate ---------------------------------------------------------------------------- */

/* References on a 1 GiB head, one of its 2 MiB heads and one of its parts, on another part of that
 * block and on another block. */
struct references {
    unsigned giga, block, part, other_part, other_block;
};

static void check_predicate(pfn_t giga, struct references r)
{
    pfn_t block = pfn_add(giga, BLOCK), part = pfn_add(block, 1);
    uint64_t chain[LEAF_ORDERS] = {r.giga + r.block + r.part, r.giga + r.block, r.giga};
    bool beneath[LEAF_ORDERS] = {false, r.part + r.other_part > 0,
                                 r.block + r.part + r.other_part + r.other_block > 0};
    const pfn_t f[LEAF_ORDERS] = {part, block, giga};

    for (unsigned order = 0; order < LEAF_ORDERS; order++) {
        CHECK_EQ(frame_references(scene.ctx, f[order], order), chain[order]);
        for (uint64_t own = 0; own < 3; own++) {
            bool expected = chain[order] == 1 + own && (order == 0 || own > 0 || !beneath[order]);
            bool found = frame_is_exclusive(scene.ctx, f[order], order, own);
            if (own == 0 || order == 0) {
                CHECK_EQ(found, expected);
            } else {
                CHECK(!found ||
                      expected); /* a false "shared" is allowed, a false "exclusive" never */
            }
        }
    }
}

TEST(exclusive_is_one_along_the_chain_and_nothing_beneath)
{
    start(giga_blocks());
    pfn_t giga = take(2), block = pfn_add(giga, BLOCK), part = pfn_add(block, 1);
    for (unsigned bits = 0; bits < 3 * 3 * 3 * 2 * 2; bits++) {
        struct references r = {1 + bits % 3, bits / 3 % 3, bits / 9 % 3, bits / 27 % 2, bits / 54};
        test_case("giga %u, block %u, part %u, other part %u, other block %u", r.giga, r.block,
                  r.part, r.other_part, r.other_block);
        for (unsigned i = 1; i < r.giga; i++) {
            REQUIRE_OK(frame_get(scene.ctx, giga, 2));
        }
        for (unsigned i = 0; i < r.block; i++) {
            REQUIRE_OK(frame_get(scene.ctx, block, 1));
        }
        for (unsigned i = 0; i < r.part; i++) {
            REQUIRE_OK(frame_get(scene.ctx, part, 0));
        }
        for (unsigned i = 0; i < r.other_part; i++) {
            REQUIRE_OK(frame_get(scene.ctx, pfn_add(part, 1), 0));
        }
        for (unsigned i = 0; i < r.other_block; i++) {
            REQUIRE_OK(frame_get(scene.ctx, pfn_add(block, BLOCK), 1));
        }
        check_predicate(giga, r);
        for (unsigned i = 0; i < r.other_block; i++) {
            frame_put(scene.ctx, pfn_add(block, BLOCK), 1);
        }
        for (unsigned i = 0; i < r.other_part; i++) {
            frame_put(scene.ctx, pfn_add(part, 1), 0);
        }
        for (unsigned i = 0; i < r.part; i++) {
            frame_put(scene.ctx, part, 0);
        }
        for (unsigned i = 0; i < r.block; i++) {
            frame_put(scene.ctx, block, 1);
        }
        for (unsigned i = 1; i < r.giga; i++) {
            frame_put(scene.ctx, giga, 2);
        }
    }
    frame_put(scene.ctx, giga, 2);
    scene_end();
}

/* --- Split and merge -------------------------------------------------------------------------- */

/* While others map the block whole its parts keep them in mind; the last whole reference dissolves
 * it. */
TEST(split_hands_references_over)
{
    for (unsigned order = 1; order < LEAF_ORDERS; order++) {
        for (unsigned holders = 1; holders <= 3; holders++) {
            test_case("order %u, %u holders", order, holders);
            start(giga_blocks());
            uint64_t free = scene.pool->free, step = level_pages(order - 1);
            pfn_t f = take(order);
            for (unsigned i = 1; i < holders; i++) {
                REQUIRE_OK(frame_get(scene.ctx, f, order));
            }
            for (unsigned left = holders; left > 0; left--) {
                REQUIRE_OK(frame_split(scene.ctx, f, order));
                CHECK_EQ(frame_of(f, order)->count, left - 1);
                for (uint64_t i = 0; i < TABLE_ENTRIES; i += TABLE_ENTRIES / 4) {
                    pfn_t part = pfn_add(f, i * step);
                    CHECK_EQ(frame_count(part, order - 1), holders - left + 1);
                    CHECK_EQ(frame_references(scene.ctx, part, order - 1), holders);
                    CHECK_EQ(frame_is_exclusive(scene.ctx, part, order - 1, 0), holders == 1);
                }
                CHECK_EQ(scene.pool->free, free - level_pages(order));
            }
            /* Each holder drops its parts; a part is free with the last of them, at once. */
            for (unsigned i = 1; i < holders; i++) {
                frame_put_run(scene.ctx, f, order - 1, TABLE_ENTRIES);
                CHECK_EQ(scene.pool->free, free - level_pages(order));
            }
            frame_put(scene.ctx, f, order - 1);
            CHECK_EQ(scene.pool->free, free - level_pages(order) + step);
            frame_put_run(scene.ctx, pfn_add(f, step), order - 1, TABLE_ENTRIES - 1);
            CHECK_EQ(scene.pool->free, free);
            scene_audit();
            f = take(order); /* it is whole again */
            frame_put(scene.ctx, f, order);
            scene_end();
        }
    }
}

/* One holder split the block, the other maps it whole and goes: what the first let go of meanwhile
 * is free at once, with nothing stranded, and what it kept stays. */
TEST(dissolving_strands_nothing)
{
    for (unsigned order = 1; order < LEAF_ORDERS; order++) {
        start(giga_blocks());
        uint64_t free = scene.pool->free, step = level_pages(order - 1);
        pfn_t f = take(order);
        REQUIRE_OK(frame_get(scene.ctx, f, order));
        REQUIRE_OK(frame_split(scene.ctx, f, order));
        for (uint64_t i = 0; i < TABLE_ENTRIES; i++) {
            if (i % 2 == 0) { /* copied, say: the first holder dropped every other part */
                frame_put(scene.ctx, pfn_add(f, i * step), order - 1);
            }
        }
        CHECK_EQ(scene.pool->free, free - level_pages(order));
        frame_put(scene.ctx, f, order);
        CHECK_EQ(scene.pool->free, free - level_pages(order) / 2);
        for (uint64_t i = 0; i < TABLE_ENTRIES; i++) {
            pfn_t part = pfn_add(f, i * step);
            CHECK_EQ(frame_count(part, order - 1), i % 2);
            if (i % 2 == 1) {
                CHECK(frame_is_exclusive(scene.ctx, part, order - 1, 0));
                frame_put(scene.ctx, part, order - 1);
            }
        }
        CHECK_EQ(scene.pool->free, free);
        scene_end();
    }
}

/* A 1 GiB block of which some blocks are mapped whole, of others single parts, and the rest not at
 * all, loses its last whole reference. */
TEST(dissolving_a_giant_keeps_what_is_used)
{
    start(giga_blocks());
    uint64_t free = scene.pool->free;
    pfn_t giga = take(2), whole = pfn_add(giga, BLOCK), partly = pfn_add(giga, 2 * BLOCK);
    REQUIRE_OK(frame_get(scene.ctx, whole, 1));
    REQUIRE_OK(frame_get(scene.ctx, pfn_add(partly, 1), 0));
    frame_put(scene.ctx, giga, 2);
    CHECK_EQ(scene.pool->free, free - BLOCK - 1);
    CHECK(frame_is_exclusive(scene.ctx, whole, 1, 0));
    CHECK(frame_is_exclusive(scene.ctx, pfn_add(partly, 1), 0, 0));
    frame_put(scene.ctx, whole, 1);
    CHECK_EQ(scene.pool->free, free - 1);
    frame_put(scene.ctx, pfn_add(partly, 1), 0);
    CHECK_EQ(scene.pool->free, free);
    giga = take(2);
    frame_put(scene.ctx, giga, 2);
    scene_end();
}

TEST(merge_is_the_reverse_of_split)
{
    for (unsigned order = 1; order < LEAF_ORDERS; order++) {
        test_case("order %u", order);
        start(giga_blocks());
        uint64_t free = scene.pool->free, step = level_pages(order - 1);
        pfn_t f = take(order);
        REQUIRE_OK(frame_split(scene.ctx, f, order));
        REQUIRE_OK(frame_merge(scene.ctx, f, order));
        CHECK_EQ(frame_of(f, order)->count, 1);
        CHECK_EQ(frame_of(f, order - 1)->count, 0);
        CHECK(frame_is_exclusive(scene.ctx, f, order, 0));
        CHECK_EQ(scene.pool->free, free - level_pages(order));
        /* Not with a part that is free, or charged to somebody else. */
        REQUIRE_OK(frame_split(scene.ctx, f, order));
        pfn_t last = pfn_add(f, (TABLE_ENTRIES - 1) * step);
        frame_put(scene.ctx, last, order - 1);
        CHECK_STATUS(frame_merge(scene.ctx, f, order), CLEAVE_BUSY);
        CHECK_EQ(frame_of(f, order)->count, 0);
        CHECK_EQ(frame_of(f, order - 1)->count, 1);
        frame_put_run(scene.ctx, f, order - 1, TABLE_ENTRIES - 1);
        CHECK_EQ(scene.pool->free, free);
        scene_end();
    }
}

TEST(merge_wants_one_account)
{
    start(0);
    struct payer other = {.pool = scene.pool};
    REQUIRE_OK(account_create(scene.ctx, scene.pool, UINT64_MAX, &other.account));
    pfn_t block = take(1);
    REQUIRE_OK(frame_split(scene.ctx, block, 1));
    frame_put(scene.ctx, pfn_add(block, 1), 0);
    REQUIRE_OK(pool_alloc_at(scene.ctx, &other, pfn_add(block, 1), FRAME_DATA));
    CHECK_STATUS(pool_alloc_at(scene.ctx, &other, pfn_add(block, 2), FRAME_DATA), CLEAVE_NO_MEMORY);
    CHECK_STATUS(frame_merge(scene.ctx, block, 1), CLEAVE_BUSY);
    CHECK_EQ(account_of(scene.pool, other.account)->charged, 1);
    frame_put_run(scene.ctx, block, 0, TABLE_ENTRIES);
    CHECK_EQ(account_of(scene.pool, other.account)->charged, 0);
    account_release(scene.ctx, scene.pool, other.account);
    scene_end();
}

/* Between the two steps of each the sum along the chain is never too low: whoever looks sees
 * "shared". */
#ifdef MM_HOOKS
static struct {
    pfn_t f, part;
    unsigned order, seen;
} look;
static void on_point(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b, void *arg)
{
    (void)ctx, (void)a, (void)b, (void)arg;
    if (point == POINT_SPLIT_RAISED || point == POINT_MERGE_RAISED) {
        look.seen++;
        CHECK_EQ(frame_references(host_ctx(1), look.part, look.order - 1), 2);
        CHECK(!frame_is_exclusive(host_ctx(1), look.part, look.order - 1, 0));
        CHECK(!frame_is_exclusive(host_ctx(1), look.f, look.order, 0));
    }
}
#endif
TEST(the_destination_is_raised_first)
{
    TEST_NEEDS_HOOKS();
#ifdef MM_HOOKS
    for (unsigned order = 1; order < LEAF_ORDERS; order++) {
        start(giga_blocks());
        look.f = take(order);
        look.part = pfn_add(look.f, level_pages(order - 1));
        look.order = order;
        look.seen = 0;
        host_on_point(on_point, NULL);
        REQUIRE_OK(frame_split(scene.ctx, look.f, order));
        REQUIRE_OK(frame_merge(scene.ctx, look.f, order));
        host_on_point(NULL, NULL);
        CHECK_EQ(look.seen, 2);
        frame_put(scene.ctx, look.f, order);
        scene_end();
    }
#endif
}

/* --- Overflow --------------------------------------------------------------------------------- */

TEST(counts_fail_before_they_overflow)
{
    start(giga_blocks());
    for (unsigned order = 0; order < LEAF_ORDERS; order++) {
        pfn_t f = take(order);
        struct frame *d = frame_of(f, order);
        d->count = FRAME_COUNT_MAX - 1;
        REQUIRE_OK(frame_get(scene.ctx, f, order));
        CHECK_STATUS(frame_get(scene.ctx, f, order), CLEAVE_OVERFLOW);
        CHECK_EQ(strcmp(scene.ctx->error.argument, "references"), 0);
        CHECK_EQ(d->count, FRAME_COUNT_MAX);
        CHECK_STATUS(frame_get_mapped(scene.ctx, f, order, 1), CLEAVE_OVERFLOW);
        CHECK_EQ(d->count, FRAME_COUNT_MAX);
        d->count--;
        REQUIRE_OK(frame_get_mapped(scene.ctx, f, order, 1));
        CHECK_EQ(d->count, FRAME_COUNT_MAX);
        d->count = 1;
        frame_put(scene.ctx, f, order);
    }
    /* One part of a run that cannot be raised: none is, whether it is split or its own count that
     * says so. */
    for (unsigned split = 0; split < 2; split++) {
        pfn_t block = take(1);
        for (unsigned i = 0; i < split; i++) {
            REQUIRE_OK(frame_get(scene.ctx, block, 1));
        }
        REQUIRE_OK(frame_split(scene.ctx, block, 1));
        frame_of(pfn_add(block, 2), 0)->count = FRAME_COUNT_MAX - split;
        CHECK_STATUS(frame_get_run(scene.ctx, block, 0, TABLE_ENTRIES), CLEAVE_OVERFLOW);
        CHECK_STATUS(frame_get_mapped(scene.ctx, block, 0, TABLE_ENTRIES), CLEAVE_OVERFLOW);
        for (uint64_t i = 0; i < BLOCK; i++) {
            CHECK_EQ(frame_count(pfn_add(block, i), 0), i == 2 ? FRAME_COUNT_MAX : 1);
        }
        frame_of(pfn_add(block, 2), 0)->count = 1 - split;
        frame_put_run(scene.ctx, block, 0, TABLE_ENTRIES);
        for (unsigned i = 0; i < split; i++) {
            frame_put(scene.ctx, block, 1);
        }
    }
    scene_end();
}

/* --- How splits are counted
 * ----------------------------------------------------------------------------------- */

/* A split touches none of the parts, and they say what they should whatever comes and goes. */
TEST(split_is_counted_once_for_all_parts)
{
    for (unsigned order = 1; order < LEAF_ORDERS; order++) {
        test_case("order %u", order);
        start(giga_blocks());
        uint64_t free = scene.pool->free, step = level_pages(order - 1);
        pfn_t f = take(order), second = pfn_add(f, step);
        REQUIRE_OK(frame_get(scene.ctx, f, order));
        REQUIRE_OK(frame_get(scene.ctx, f, order));
        REQUIRE_OK(frame_split(scene.ctx, f, order));
        REQUIRE_OK(frame_split(scene.ctx, f, order));
        CHECK_EQ(run_of(f, order)->split, 2);
        CHECK_EQ(run_of(f, order)->used, TABLE_ENTRIES);
        for (uint64_t i = 0; i < TABLE_ENTRIES; i++) {
            CHECK_EQ(frame_of(pfn_add(f, i * step), order - 1)->count, 0);
        }
        /* Both holders give the second part up, one comes back to it, and a table of it is copied.
         */
        frame_put(scene.ctx, second, order - 1);
        frame_put(scene.ctx, second, order - 1);
        CHECK_EQ(frame_count(second, order - 1), 0);
        CHECK_EQ(frame_references(scene.ctx, second, order - 1), 1);
        CHECK(frame_is_exclusive(scene.ctx, second, order - 1, 0));
        CHECK(!frame_is_exclusive(scene.ctx, f, order, 0));
        CHECK_EQ(run_of(f, order)->used, TABLE_ENTRIES - 1);
        REQUIRE_OK(frame_get(scene.ctx, second, order - 1));
        CHECK(!frame_is_exclusive(scene.ctx, second, order - 1, 0));
        CHECK_EQ(run_of(f, order)->used, TABLE_ENTRIES);
        REQUIRE_OK(frame_get_mapped(scene.ctx, f, order - 1, TABLE_ENTRIES));
        CHECK_EQ(frame_references(scene.ctx, second, order - 1), 3);
        CHECK_EQ(frame_references(scene.ctx, f, order - 1), 4);
        uint64_t exclusive[RUN_WORDS] = {0};
        frame_put_run(scene.ctx, f, order - 1, TABLE_ENTRIES);
        frame_put(scene.ctx, second, order - 1);
        frame_exclusive_run(scene.ctx, f, order - 1, TABLE_ENTRIES, exclusive);
        CHECK_EQ(exclusive[0], 2);
        /* With the last part that was split off nothing is left to know. */
        frame_put(scene.ctx, f, order - 1);
        frame_put(scene.ctx, f, order - 1);
        frame_put_run(scene.ctx, pfn_add(second, step), order - 1, TABLE_ENTRIES - 2);
        CHECK_EQ(run_of(f, order)->split, 2);
        frame_put_run(scene.ctx, pfn_add(second, step), order - 1, TABLE_ENTRIES - 2);
        CHECK_EQ(run_of(f, order)->split, 0);
        CHECK_EQ(run_of(f, order)->used, 0);
        for (uint64_t i = 0; i < TABLE_ENTRIES; i++) {
            CHECK_EQ(frame_of(pfn_add(f, i * step), order - 1)->count, 0);
        }
        CHECK(frame_is_exclusive(scene.ctx, f, order, 0));
        frame_put(scene.ctx, f, order);
        CHECK_EQ(scene.pool->free, free);
        scene_audit();
        scene_end();
    }
}

/* A 1 GiB block and a 2 MiB block in it are both split; then the last whole references go. */
TEST(split_in_a_split_giant)
{
    start(giga_blocks());
    uint64_t free = scene.pool->free;
    pfn_t giga = take(2), block = pfn_add(giga, BLOCK), part = pfn_add(block, 1);
    REQUIRE_OK(frame_get(scene.ctx, giga, 2));
    REQUIRE_OK(frame_split(scene.ctx, giga, 2));
    REQUIRE_OK(frame_get(scene.ctx, block, 1));
    REQUIRE_OK(frame_split(scene.ctx, block, 1));
    CHECK_EQ(frame_references(scene.ctx, part, 0), 3);
    CHECK_EQ(frame_count(block, 1), 1);
    frame_put(scene.ctx, part, 0);
    CHECK_EQ(frame_references(scene.ctx, part, 0), 2);
    frame_put(scene.ctx, giga, 2); /* it dissolves: all blocks are in use */
    CHECK_EQ(scene.pool->free, free - level_pages(2));
    CHECK_EQ(run_of(giga, 2)->split, 0);
    CHECK(frame_is_exclusive(scene.ctx, part, 0, 0));
    CHECK_EQ(frame_references(scene.ctx, block, 0), 2);
    CHECK_EQ(run_of(block, 1)->split, 1);
    frame_put(scene.ctx, block, 1); /* and so does the block: the part that was dropped is free */
    CHECK_EQ(scene.pool->free, free - level_pages(2) + 1);
    CHECK_EQ(run_of(block, 1)->split, 0);
    CHECK_EQ(frame_count(block, 0), 1);
    frame_put(scene.ctx, block, 0);
    frame_put_run(scene.ctx, pfn_add(block, 2), 0, TABLE_ENTRIES - 2);
    frame_put(scene.ctx, giga, 1);
    frame_put_run(scene.ctx, pfn_add(block, BLOCK), 1, TABLE_ENTRIES - 2);
    CHECK_EQ(scene.pool->free, free);
    giga = take(2);
    frame_put(scene.ctx, giga, 2);
    scene_end();
}

/* After as many splits as can be counted the parts get their share, unless one has too much. */
TEST(splits_without_end)
{
    for (unsigned order = 1; order < LEAF_ORDERS; order++) {
        test_case("order %u", order);
        start(giga_blocks());
        uint64_t free = scene.pool->free, step = level_pages(order - 1);
        pfn_t f = take(order), last = pfn_add(f, (TABLE_ENTRIES - 1) * step);
        for (unsigned i = 0; i < 2; i++) {
            REQUIRE_OK(frame_get(scene.ctx, f, order));
        }
        REQUIRE_OK(frame_split(scene.ctx, f, order));
        /* As if FRAME_COUNT_MAX - 1 others had split it since, and were gone. */
        struct run *run = run_of(f, order);
        struct frame *parts = frame_of(f, order - 1);
        run->split = FRAME_COUNT_MAX;
        for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
            parts[i].count = 1 - FRAME_COUNT_MAX;
        }
        CHECK_EQ(frame_references(scene.ctx, last, order - 1), 3);
        parts[TABLE_ENTRIES - 1].count += FRAME_COUNT_MAX;
        CHECK_EQ(frame_count(last, order - 1), FRAME_COUNT_MAX + 1);
        CHECK_STATUS(frame_split(scene.ctx, f, order), CLEAVE_OVERFLOW);
        CHECK_EQ(strcmp(scene.ctx->error.argument, "references"), 0);
        CHECK_EQ(run->split, FRAME_COUNT_MAX);
        CHECK_EQ(frame_of(f, order)->count, 2);
        CHECK_EQ(frame_count(f, order - 1), 1);
        parts[TABLE_ENTRIES - 1].count -= FRAME_COUNT_MAX;
        REQUIRE_OK(frame_split(scene.ctx, f, order));
        CHECK_EQ(run->split, 1);
        CHECK_EQ(frame_of(f, order)->count, 1);
        for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
            CHECK_EQ(parts[i].count, 1);
        }
        CHECK_EQ(frame_references(scene.ctx, last, order - 1), 3);
        frame_put_run(scene.ctx, f, order - 1, TABLE_ENTRIES);
        frame_put_run(scene.ctx, f, order - 1, TABLE_ENTRIES);
        frame_put(scene.ctx, f, order);
        CHECK_EQ(scene.pool->free, free);
        scene_end();
    }
}

TEST(table_copies_fail_before_a_count_overflows)
{
    static const enum shape shapes[] = {SHAPE_4K, SHAPE_2M, SHAPE_1G};
    for (unsigned i = 0; i < 3; i++) {
        scene_shape(shapes[i]);
        struct space *child = scene_fork(scene.space);
        struct mapping m = scene_lookup(child, scene.base);
        struct frame *d = frame_of(pte_pfn(m.entry), m.level);
        uint32_t count = d->count;
        d->count = FRAME_COUNT_MAX;
        struct scene_state before = scene_state();
        CHECK_STATUS(scene_access(child, scene.base, ACCESS_WRITE), CLEAVE_OVERFLOW);
        struct scene_state after = scene_state();
        SCENE_CHECK_SAME_VIEW(before, after);
        CHECK_EQ(d->count, FRAME_COUNT_MAX);
        d->count = count;
        scene_audit();
        scene_write(child, scene.base, 1);
        scene_check(scene.space, scene.base, SCENE_TAG(scene.base));
        scene_audit();
        scene_end();
    }
}

TEST(nodes_count_up_to_their_limit)
{
    start(0);
    pfn_t node;
    REQUIRE_OK(pool_alloc(scene.ctx, &payer, 0, FRAME_OBJECT, &node));
    frame_of(node, 0)->count = UINT32_MAX - 1;
    REQUIRE_OK(node_get(scene.ctx, node));
    CHECK_STATUS(node_get(scene.ctx, node), CLEAVE_OVERFLOW);
    CHECK_EQ(node_count(node), UINT32_MAX);
    CHECK(!node_put(scene.ctx, node));
    frame_of(node, 0)->count = 1;
    CHECK(node_put(scene.ctx, node));
    pool_free(scene.ctx, node, 0);
    scene_end();
}

/* --- The machine ------------------------------------------------------------------------------ */

TEST(descriptors_are_small)
{
    const uint64_t frames = 64 * GIGA;
    if (TABLE_ENTRIES == 512) {
        CHECK(machine_descriptor_bytes(frames) <= 16 * frames);
        CHECK(machine_descriptor_bytes(frames) * 1000 <= 4 * frames * PAGE_SIZE); /* 0.4% */
    }
    struct mm_ctx *ctx;
    scene_start(0);
    ctx = scene.ctx;
    struct machine saved = machine;
    CHECK_STATUS(machine_init(ctx, NULL, 0, NULL, &ept_format, 1, false), CLEAVE_COUNT);
    CHECK_STATUS(machine_init(ctx, NULL, UINT64_C(1) << 32, NULL, &ept_format, 1, false),
                 CLEAVE_COUNT);
    CHECK_STATUS(machine_init(ctx, NULL, 1, NULL, &ept_format, 0, false), CLEAVE_COUNT);
    CHECK_STATUS(machine_init(ctx, NULL, 1, NULL, &ept_format, MM_MAX_CPUS + 1, false),
                 CLEAVE_COUNT);
    CHECK(saved.direct_map == machine.direct_map);
    CHECK_EQ(saved.frames, machine.frames);
    CHECK_EQ(saved.cpus, machine.cpus);
    for (unsigned o = 0; o < LEAF_ORDERS; o++) {
        CHECK(saved.frame[o] == machine.frame[o] && saved.run[o] == machine.run[o]);
    }
}
