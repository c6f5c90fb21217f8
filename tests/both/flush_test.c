/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Flush batches and generations: a reference is dropped after every CPU that may use the
 * translation has flushed, a CPU that is elsewhere flushes when it comes back, a recycled root and
 * a recycled identifier carry nothing over, and generations do not wrap.
 */
#include <string.h>

#include "scene.h"

static const struct shape_row shapes[] = SHAPE_ROWS;

/* In the log from its beginning: what a batch drops comes after its flush was acknowledged, what is
 * freed after it was dropped. */
static void check_order(void)
{
    uint64_t flushed = HOST_LOG_NONE, pending = 0;
    for (uint64_t i = 0; i < host_log_length(); i++) {
        struct host_record r = host_log_at(i);
        if (r.kind == POINT_FLUSH) {
            pending = r.b;
            flushed = HOST_LOG_NONE;
        } else if (r.kind == POINT_FLUSHED) {
            flushed = i;
        } else if (r.kind == POINT_DROP && pending > 0) {
            CHECK(flushed != HOST_LOG_NONE); /* begun, but not acknowledged */
            pending--;
        } else if (r.kind == POINT_FREE) {
            CHECK(pending == 0 || flushed != HOST_LOG_NONE);
        }
    }
}

/* Operations that take translations away, with two other CPUs in the guest that hold them. */
static enum cleave_status do_unmap(struct space *space)
{
    return space_unmap(scene.ctx, space, PAGE(scene.base), BYTES(BLOCK));
}
static enum cleave_status do_unmap_part(struct space *space)
{
    return space_unmap(scene.ctx, space, PAGE(scene.base + 1), BYTES(1));
}
static enum cleave_status do_protect(struct space *space)
{
    return space_protect(scene.ctx, space, PAGE(scene.base), BYTES(2), RIGHT_READ);
}
static enum cleave_status do_fork(struct space *space)
{
    return scene_fork(space) != NULL ? CLEAVE_OK : CLEAVE_INVALID;
}
static enum cleave_status do_move(struct space *space)
{
    uint64_t copies;
    return space_move(scene.ctx, space, PAGE(scene.base), PAGE(scene.base + GIGA), BYTES(1),
                      &copies);
}
static enum cleave_status do_reset(struct space *space)
{
    return space_reset(scene.ctx, space, NULL, 0);
}

static const struct operation {
    const char *label;
    enum cleave_status (*run)(struct space *space);
    unsigned lost; /* access that the first page does not allow any more; RIGHT_ALL: none */
} operations[] = {
    {"unmap", do_unmap, RIGHT_READ},      {"unmap-part", do_unmap_part, RIGHT_ALL},
    {"protect", do_protect, RIGHT_WRITE}, {"fork", do_fork, RIGHT_ALL},
    {"move", do_move, RIGHT_READ},        {"reset", do_reset, RIGHT_ALL},
};

TEST_TABLE(operations_flush_before_they_return, operations)
{
    const struct fork_options based = {.limit = UINT64_MAX, .base = true};
    uint64_t word = 0;
    for (unsigned shape = SHAPE_4K; shape <= SHAPE_PARTLY; shape++) {
        struct space *space = NULL;
        test_case("shape %u", shape);
        scene_shape((enum shape)shape);
        for (unsigned i = 1; i < machine.cpus; i++) {
            host_cpu_stop(i);
        }
        REQUIRE_OK(space_fork(scene.ctx, scene.space, 1, &based, &space));
        space->collapse_at = 0;
        for (unsigned cpu = 1; cpu < 3; cpu++) {
            REQUIRE_OK(host_cpu_run(cpu, space));
            REQUIRE_OK(host_cpu_write(cpu, PAGE(scene.base), &word, 8));
            REQUIRE_OK(host_cpu_write(cpu, PAGE(scene.base + 1), &word, 8));
            REQUIRE_OK(host_cpu_read(cpu, PAGE(scene.base), &word, 8));
        }
        host_log_clear();
        host_reset_counters();
        REQUIRE_OK(row->run(space));
        CHECK(host_counters().kicks >= 2);
        host_tlb_check(); /* I5: nobody may use what the tables no longer say */
        check_order();
        scene_audit();
        for (unsigned cpu = 1; cpu < 3; cpu++) {
            bool gone = row->lost == RIGHT_READ;
            CHECK_STATUS(host_cpu_read(cpu, PAGE(scene.base), &word, 8),
                         gone ? CLEAVE_FAULT : CLEAVE_OK);
            CHECK_STATUS(host_cpu_write(cpu, PAGE(scene.base), &word, 8),
                         gone || row->lost == RIGHT_WRITE ? CLEAVE_FAULT : CLEAVE_OK);
        }
        scene_look(scene.space, scene.base, SCENE_TAG(scene.base));
        scene_end();
    }
}

/* Where the log says that a frame, or the block around it, was freed. */
static uint64_t find_free(pfn_t f)
{
    for (uint64_t i = host_log_find(POINT_FREE, 0); i != HOST_LOG_NONE;
         i = host_log_find(POINT_FREE, i + 1)) {
        struct host_record r = host_log_at(i);
        uint64_t parts = r.b >> 8 ? r.b >> 8 : 1;
        if (f.v >= r.a && f.v - r.a < parts * level_pages((unsigned)(r.b & 0xff))) {
            return i;
        }
    }
    return HOST_LOG_NONE;
}

/* The order in which one CPU sees it: entries change, flush, acknowledged, drop, free (T-X16). */
TEST_TABLE(x16_flush_then_drop_then_free, shapes)
{
    TEST_NEEDS_HOOKS();
    scene_shape(row->shape);
    if (scene.other != NULL) {
        scene_destroy(scene.other);
    }
    scene_check(scene.space, scene.base, SCENE_TAG(scene.base));
    REQUIRE(table_reap(scene.ctx, scene.pool));
    pfn_t f = scene_lookup(scene.space, scene.base).frame;
    host_log_clear();
    REQUIRE_OK(space_unmap(scene.ctx, scene.space, PAGE(scene.base), BYTES(scene.pages)));
    uint64_t entry = host_log_find(POINT_ENTRY, 0), flush = host_log_find(POINT_FLUSH, entry);
    uint64_t kick = host_log_find(HOST_KICK, flush);
    uint64_t local = host_log_find(HOST_FLUSH, kick), flushed = host_log_find(POINT_FLUSHED, local);
    uint64_t drop = host_log_find(POINT_DROP, 0), freed = find_free(f);
    CHECK(entry < flush && flush < kick && kick < local && local < flushed);
    CHECK(flushed != HOST_LOG_NONE && flushed < drop);
    CHECK(freed != HOST_LOG_NONE && drop < freed);
    check_order();
    scene_end();
}

/* T-T5: a flush covers all that changed, however many ranges: pages at the ends and in the middle.
 */
TEST_TABLE(t5_a_flush_covers_the_whole_range, shapes)
{
    uint64_t sample[SCENE_SAMPLES], word;
    scene_shape(row->shape);
    unsigned n = scene_samples(sample);
    for (unsigned i = 1; i < machine.cpus; i++) {
        host_cpu_stop(i);
    }
    for (unsigned cpu = 1; cpu < 3; cpu++) {
        REQUIRE_OK(host_cpu_run(cpu, scene.space));
        for (unsigned i = 0; i < n; i++) {
            REQUIRE_OK(host_cpu_write(cpu, PAGE(sample[i]), &sample[i], 8));
        }
    }
    REQUIRE_OK(
        space_protect(scene.ctx, scene.space, PAGE(scene.base), BYTES(scene.pages), RIGHT_READ));
    for (unsigned i = 0; i < n; i++) {
        for (unsigned cpu = 1; cpu < 3; cpu++) {
            CHECK_STATUS(host_cpu_write(cpu, PAGE(sample[i]), &word, 8), CLEAVE_FAULT);
            CHECK_OK(host_cpu_read(cpu, PAGE(sample[i]), &word, 8));
            CHECK_EQ(word, sample[i]);
        }
    }
    REQUIRE_OK(space_unmap(scene.ctx, scene.space, PAGE(scene.base), BYTES(scene.pages)));
    for (unsigned i = 0; i < n; i++) {
        CHECK_STATUS(host_cpu_read(1 + i % 2, PAGE(sample[i]), &word, 8), CLEAVE_FAULT);
    }
    scene_audit();
    scene_end();
}

/* --- Lazy ------------------------------------------------------------------------------------- */

/* A CPU that runs something else is neither kicked nor waited for; it flushes when it comes back.
 */
TEST(cpus_elsewhere_flush_when_they_come_back)
{
    uint64_t word = 0;
    scene_start(0);
    struct space *space = scene_space(), *other = scene_space();
    scene_memory(space, 0, 2, 0);
    scene_memory(other, 0, 1, 0);
    REQUIRE_OK(host_cpu_run(1, space));
    REQUIRE_OK(host_cpu_write(1, PAGE(1), &word, 8));
    REQUIRE_OK(host_cpu_run(1, other));
    host_reset_counters();
    uint64_t seen = space->seen[1];
    REQUIRE_OK(space_unmap(scene.ctx, space, PAGE(1), BYTES(1)));
    CHECK_EQ(host_counters().kicks, 0);
    CHECK_EQ(host_counters().flushes, 0);
    CHECK_EQ(space->seen[1], seen);
    CHECK(space->generation > seen);
    REQUIRE_OK(host_cpu_run(1, space));
    CHECK_EQ(host_counters().flushes, 1);
    CHECK_EQ(space->seen[1], space->generation);
    CHECK_STATUS(host_cpu_read(1, PAGE(1), &word, 8), CLEAVE_FAULT);
    CHECK_OK(host_cpu_read(1, PAGE(0), &word, 8));
    /* Coming back without a change in between flushes nothing. */
    host_reset_counters();
    REQUIRE_OK(host_cpu_run(1, other));
    REQUIRE_OK(host_cpu_run(1, space));
    CHECK_EQ(host_counters().flushes, 0);
    scene_end();
}

/* A root page that gets a new owner: no CPU that cached the old one uses it under the new one. */
TEST(recycled_roots_carry_nothing_over)
{
    uint64_t word = 0x5ec7e7;
    bool recycled = false;
    scene_start(0);
    for (unsigned round = 0; round < 8; round++) {
        struct space *space = scene_space();
        scene_memory(space, 0, 1, 0);
        REQUIRE_OK(host_cpu_run(1, space));
        REQUIRE_OK(host_cpu_write(1, PAGE(0), &word, 8));
        host_cpu_stop(1);
        pfn_t root = space->root;
        scene_destroy(space);
        struct space *next = scene_space();
        recycled = recycled || next->root.v == root.v;
        scene_region(next, 0, 1, REGION_PRIVATE, RIGHT_ALL, 0);
        REQUIRE_OK(host_cpu_run(1, next));
        uint64_t found = 1;
        REQUIRE_OK(host_cpu_read(1, PAGE(0), &found, 8));
        CHECK_EQ(found, 0);
        scene_audit();
        scene_destroy(next);
    }
    CHECK(recycled); /* else this says nothing */
    scene_end();
}

/* T-X17: a counter that once was 8 bits wide; generations close to 2^64 are compared as numbers. */
TEST(x17_generations_near_2_to_the_64)
{
    static const uint64_t starts[] = {1,          UINT8_MAX,         UINT16_MAX,
                                      UINT32_MAX, UINT64_C(1) << 63, UINT64_MAX - 400};
    for (unsigned i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        uint64_t word = 0;
        test_case("from %#llx", (unsigned long long)starts[i]);
        scene_start(0);
        struct space *space = scene_space();
        scene_memory(space, 0, 2, 0);
        space->generation = starts[i];
        REQUIRE_OK(host_cpu_run(1, space));
        REQUIRE_OK(host_cpu_run(2, space));
        for (unsigned round = 0; round < 100; round++) {
            REQUIRE_OK(host_cpu_write(1, PAGE(0), &word, 8));
            REQUIRE_OK(host_cpu_write(2, PAGE(0), &word, 8));
            uint64_t before = space->generation;
            REQUIRE_OK(space_protect(scene.ctx, space, PAGE(0), BYTES(1), RIGHT_READ));
            CHECK(space->generation > before);
            CHECK_STATUS(host_cpu_write(1, PAGE(0), &word, 8), CLEAVE_FAULT);
            CHECK_STATUS(host_cpu_write(2, PAGE(0), &word, 8), CLEAVE_FAULT);
            CHECK_EQ(space->seen[1], space->generation);
            REQUIRE_OK(space_protect(scene.ctx, space, PAGE(0), BYTES(1), RIGHT_ALL));
        }
        scene_end();
    }
}

/* --- Dying ------------------------------------------------------------------------------------ */

/* T-T6: a space that is being destroyed step by step is run by nobody, and nothing that a CPU could
 * still reach is freed before. */
TEST_TABLE(t6_dying_spaces_are_left_first, shapes)
{
    uint64_t word;
    scene_shape(row->shape);
    struct space *child = scene_fork(scene.space);
    for (unsigned cpu = 1; cpu < 3; cpu++) {
        host_cpu_stop(cpu);
        REQUIRE_OK(host_cpu_run(cpu, child));
        REQUIRE_OK(host_cpu_write(cpu, PAGE(scene.base), &word, 8));
    }
    enum cleave_status status;
    do {
        scene.ctx->budget = TABLE_ENTRIES;
        host_log_clear();
        status = space_destroy(scene.ctx, child);
        scene.ctx->budget = UINT64_MAX;
        for (unsigned cpu = 1; cpu < 3; cpu++) {
            CHECK(flush_running(cpu) == NULL);
            CHECK_STATUS(host_cpu_read(cpu, PAGE(scene.base), &word, 8), CLEAVE_DYING);
        }
        if (status == CLEAVE_AGAIN) {
            CHECK_STATUS(host_cpu_run(1, child), CLEAVE_DYING);
            CHECK(flush_running(1) == NULL);
        }
        scene_audit();
    } while (status == CLEAVE_AGAIN);
    CHECK_OK(status);
    scene_check(scene.space, scene.base, SCENE_TAG(scene.base));
    scene_end();
}

/* --- Batches by hand -------------------------------------------------------------------------- */

TEST(neighbours_share_a_place_in_the_batch)
{
    struct flush_batch batch;
    scene_start(0);
    struct space *space = scene_space();
    pfn_t block, f;
    REQUIRE_OK(pool_alloc(scene.ctx, &space->payer, 1, FRAME_DATA, &block));
    REQUIRE_OK(frame_split(scene.ctx, block, 1));
    flush_begin(&batch, space);
    CHECK_EQ(flush_room(&batch), FLUSH_DROPS);
    for (uint64_t i = 0; i < BLOCK; i++) {
        flush_drop_frames(&batch, pfn_add(block, i), 0, 1);
    }
    CHECK_EQ(flush_room(&batch), FLUSH_DROPS - 1);
    REQUIRE_OK(pool_alloc(scene.ctx, &space->payer, 0, FRAME_DATA, &f));
    flush_drop_frames(&batch, f, 0, 1);
    CHECK_LE(flush_room(&batch), FLUSH_DROPS - 1);
    uint64_t free = scene.pool->free, generation = space->generation;
    flush_finish(scene.ctx, &batch);
    CHECK_EQ(scene.pool->free, free + BLOCK + 1);
    CHECK_EQ(space->generation, generation + 1);
    CHECK_EQ(batch.count, 0);
    flush_finish(scene.ctx, &batch); /* an empty one flushes nothing */
    CHECK_EQ(space->generation, generation + 1);
    scene_end();
}

/* A flush that waits for nobody is done at once and drops nothing by itself; it is not done where
 * another CPU is in the guest. */
TEST(alone_flushes_at_once)
{
    struct flush_batch batch;
    scene_start(0);
    struct space *space = scene_space(), *other = scene_space();
    scene_memory(space, 0, 1, 0);
    scene_memory(other, 0, 1, 0);
    for (unsigned guests = 0; guests < 3; guests++) {
        pfn_t f;
        test_case("guests %u", guests);
        if (guests > 0) {
            REQUIRE_OK(host_cpu_run(1, guests == 1 ? other : space));
        }
        REQUIRE_OK(pool_alloc(scene.ctx, &space->payer, 0, FRAME_DATA, &f));
        flush_begin(&batch, space);
        flush_drop_frames(&batch, f, 0, 1);
        uint64_t free = scene.pool->free, flushes = space->stats.flushes;
        host_reset_counters();
        CHECK_EQ(flush_alone(scene.ctx, &batch), guests < 2);
        CHECK_EQ(batch.needed, guests == 2);
        CHECK_EQ(space->stats.flushes, flushes + (guests < 2));
        CHECK_EQ(scene.pool->free, free);
        flush_finish(scene.ctx, &batch);
        CHECK_EQ(space->stats.flushes, flushes + 1);
        CHECK_EQ(host_counters().kicks, guests == 2);
        CHECK_EQ(scene.pool->free, free + 1);
    }
    scene_end();
}

/* A CPU that is elsewhere meanwhile flushes when it comes back. */
TEST(alone_is_seen_by_who_comes_back)
{
    struct flush_batch batch;
    uint64_t word;
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, 1, 0);
    REQUIRE_OK(host_cpu_run(1, space));
    REQUIRE_OK(host_cpu_read(1, PAGE(0), &word, 8));
    host_cpu_stop(1);
    flush_begin(&batch, space);
    CHECK(flush_alone(scene.ctx, &batch));
    host_reset_counters();
    REQUIRE_OK(host_cpu_run(1, space));
    CHECK_EQ(host_counters().flushes, 1);
    scene_end();
}

/* CPU 1 enters the guest when nobody was found in it and the generation is still the old one. */
static void enter_meanwhile(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                            void *arg)
{
    uint64_t word;
    (void)ctx, (void)a, (void)b;
    if (point == POINT_FLUSH && flush_running(1) == NULL) {
        REQUIRE_OK(host_cpu_run(1, arg));
        REQUIRE_OK(host_cpu_read(1, PAGE(0), &word, 8));
    }
}

TEST(alone_is_seen_by_who_comes_meanwhile)
{
    struct flush_batch batch;
    TEST_NEEDS_HOOKS();
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, 1, 0);
    flush_begin(&batch, space);
    flush_need(&batch);
    host_on_point(enter_meanwhile, space);
    CHECK(!flush_alone(scene.ctx, &batch));
    host_on_point(NULL, NULL);
    CHECK(batch.needed);
    flush_finish(scene.ctx, &batch);
    CHECK_EQ(space->seen[1], space->generation);
    scene_end();
}

/* --- Identifiers ------------------------------------------------------------------------------ */

/* What a CPU caches under each identifier: for whom, with which root. */
struct cached {
    uint64_t owner;
    uint32_t root;
};

/* Runs `owner` and checks that it finds nothing of another owner or root under its identifier. */
static uint32_t asid_run(struct asid_cpu *cpu, struct cached *cached, uint32_t root, uint64_t owner)
{
    bool flush;
    uint32_t id = asid_use(cpu, pfn(root), owner, &flush);
    REQUIRE(id >= 1 && id < cpu->limit);
    if (flush) {
        cached[id] = (struct cached){0, 0};
    }
    CHECK(cached[id].owner == 0 || (cached[id].owner == owner && cached[id].root == root));
    cached[id] = (struct cached){owner, root};
    return id;
}

static unsigned asid_count(const struct cached *cached, uint32_t root)
{
    unsigned count = 0;
    for (unsigned i = 0; i < ASID_MAX; i++) {
        count += cached[i].owner != 0 && cached[i].root == root;
    }
    return count;
}

static const struct asid_row {
    const char *label;
    uint32_t limit;
} asid_rows[] = {{"one", 2}, {"eight", 8}, {"sixteen", 16}, {"all", ASID_MAX}};

/* More owners than identifiers, roots that are used by several and recycled: an identifier is given
 * to another only with a flush, and keeps its owner while nobody else needs it. */
TEST_TABLE(asids_are_recycled_with_a_flush, asid_rows)
{
    enum { OWNERS = 200, ROOTS = 20 };
    struct asid_cpu cpu = {.limit = row->limit};
    struct cached cached[ASID_MAX];
    uint64_t state = test_seed();
    unsigned flushes = 0;
    bool flush;

    memset(cached, 0, sizeof(cached));
    for (unsigned i = 0; i < 4000; i++) {
        uint64_t owner = 1 + test_random(&state) % OWNERS;
        uint32_t root = (uint32_t)(1 + test_random(&state) % ROOTS);
        uint32_t id = asid_run(&cpu, cached, root, owner);
        CHECK_EQ(asid_use(&cpu, pfn(root), owner, &flush), id);
        CHECK_EQ(flush, false);
    }
    for (uint64_t owner = 1000; owner < 1000 + row->limit - 1; owner++) {
        (void)asid_run(&cpu, cached, 1, owner);
    }
    for (uint64_t owner = 1000; owner < 1000 + row->limit - 1; owner++) {
        (void)asid_use(&cpu, pfn(1), owner, &flush); /* all fit: each still has its own */
        flushes += flush;
    }
    CHECK_EQ(flushes, 0);
}

/* Two vcpus of one space on one CPU have an identifier each; a flush of the root reaches both, and
 * nobody else. */
TEST(asids_of_a_root_are_forgotten_together)
{
    struct asid_cpu cpu = {.limit = 8};
    struct cached cached[ASID_MAX];
    bool flush;

    memset(cached, 0, sizeof(cached));
    uint32_t first = asid_run(&cpu, cached, 5, 1), second = asid_run(&cpu, cached, 5, 2);
    uint32_t other = asid_run(&cpu, cached, 6, 3);
    CHECK(first != second && second != other && first != other);
    CHECK_EQ(asid_count(cached, 5), 2);
    asid_forget(&cpu, pfn(5));
    CHECK_EQ(asid_use(&cpu, pfn(6), 3, &flush), other);
    CHECK_EQ(flush, false);
    CHECK_EQ(asid_use(&cpu, pfn(5), 2, &flush), second);
    CHECK_EQ(flush, true);
    CHECK_EQ(asid_use(&cpu, pfn(5), 1, &flush), first);
    CHECK_EQ(flush, true);
    CHECK_EQ(asid_use(&cpu, pfn(5), 1, &flush), first);
    CHECK_EQ(flush, false);
    /* Another root under the same owner is another identifier: the old one's is not reused. */
    CHECK(asid_use(&cpu, pfn(7), 1, &flush) != first);
    CHECK_EQ(flush, true);
}
