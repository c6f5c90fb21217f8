/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the public history of copy-on-write and of dirty tracking in Linux,
 * FreeBSD and KVM teaches: a named test for each bug that a core without
 * hardware can show. docs/tests.md says what each was about, and which tests of
 * other suites are those that are missing here.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rows_ops.h"

#define SMALL (TABLE_ENTRIES == 4)

static const struct shape_row shapes[] = SHAPE_ROWS;
static const struct region private_region = {
    .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};

static uint64_t word_at(struct mm_ctx *ctx, struct space *space, uint64_t page)
{
    uint64_t value = ~UINT64_C(0);
    enum cleave_status status = space_read(ctx, space, PAGE(page), &value, sizeof(value), NULL);
    return status == CLEAVE_OK ? value : ~UINT64_C(0);
}

/* --- C1: a write that was broken, discarded and retried --------------------------------------- */

static struct {
    struct space *parent, *child, *mapper;
    struct channel *channel;
    enum shape shape;
    uint64_t word; /* of the parent's page, for ever */
    bool wrong;
} race;

static void race_setup(void *arg)
{
    (void)arg;
    scene_shape(race.shape);
    for (unsigned i = 1; i < machine.cpus; i++) {
        host_cpu_stop(i);
    }
    race.wrong = false;
    race.parent = scene.space;
    race.child = scene_fork(race.parent);
    race.mapper = scene_space();
    race.word = word_at(scene.ctx, race.parent, scene.base);
    REQUIRE_OK(foreign_map(scene.ctx, race.child, PAGE(scene.base), race.mapper, PAGE(0)));
}

/* Somebody writes to the fork's page from outside, again and again. */
static void foreign_body(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    race.wrong |= host_cpu_run(ctx->cpu, race.mapper) != CLEAVE_OK;
    for (uint64_t i = 1; i < 3; i++) {
        enum cleave_status status = host_cpu_write(ctx->cpu, PAGE(0), &i, sizeof(i));
        race.wrong |= status != CLEAVE_OK && status != CLEAVE_FAULT;
    }
    host_cpu_stop(ctx->cpu);
}

/* The fork throws its copy away and has the page anew. */
static void discard_body(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    race.wrong |= space_unmap(ctx, race.child, PAGE(scene.base), PAGE_SIZE) != CLEAVE_OK;
    race.wrong |= space_map(ctx, race.child, PAGE(scene.base), 0, &private_region) != CLEAVE_OK;
}

/* The hypervisor writes it too. */
static void forced_body(struct mm_ctx *ctx, void *arg)
{
    uint64_t value = 77, done;
    (void)arg;
    for (unsigned i = 0; i < 2; i++) {
        enum cleave_status status =
            space_write(ctx, race.child, PAGE(scene.base), &value, sizeof(value), NULL, &done);
        race.wrong |= status != CLEAVE_OK && status != CLEAVE_FAULT;
    }
}

static bool race_check(void *arg)
{
    (void)arg;
    scene_audit();
    return !race.wrong && word_at(scene.ctx, race.parent, scene.base) == race.word;
}

/* CVE-2016-5195 (linux 19be0eaffa3a): after a discard the write was retried as
 * if the copy had been broken already, and reached the shared page. In no
 * schedule do the parent's bytes change. */
TEST_TABLE(t_c1_foreign_write_against_discard, shapes)
{
    TEST_NEEDS_HOOKS();
    struct host_sched sched = {.setup = race_setup,
                               .cpus = 3,
                               .body = {discard_body, foreign_body, forced_body},
                               .check = race_check,
                               .max_preemptions = 2,
                               .max_schedules = SMALL ? 700 : 12};
    race.shape = row->shape;
    CHECK(host_sched_explore(&sched));
    CHECK(sched.schedules > 10);
}

/* --- C3: clean looks are not taken for a proof ------------------------------------------------ */

/* CVE-2022-2590 (linux 5535be309971): a page installed read-only but dirty was
 * taken for one whose copy is broken. A fork's pages are made present and dirty
 * and then written from outside: they are copied. */
TEST_TABLE(t_c3_dirty_read_only_pages_are_copied_by_forced_writes, shapes)
{
    uint64_t sample[SCENE_SAMPLES], done;
    scene_shape(row->shape);
    unsigned n = scene_samples(sample);
    struct space *child = scene_fork(scene.space), *mapper = scene_space();
    for (unsigned i = 0; i < n; i++) {
        scene_check(child, sample[i], SCENE_TAG(sample[i]));
        struct host_walk walk = host_walk(child->root, PAGE(sample[i]));
        REQUIRE(walk.present && !(walk.rights & RIGHT_WRITE));
        *walk.slot[walk.level] |= pt_format.dirty | pt_format.accessed;
    }
    for (unsigned i = 0; i < n; i++) {
        uint64_t value = 9000 + i;
        pfn_t before = scene_lookup(scene.space, sample[i]).frame;
        if (i % 2 == 0) {
            CHECK_OK(space_write(scene.ctx, child, PAGE(sample[i]), &value, 8, NULL, &done));
        } else {
            REQUIRE_OK(foreign_map(scene.ctx, child, PAGE(sample[i]), mapper, PAGE(i)));
            REQUIRE_OK(host_cpu_write(scene_cpu(mapper), PAGE(i), &value, 8));
        }
        CHECK_EQ(word_at(scene.ctx, child, sample[i]), value);
        CHECK_NE(scene_lookup(child, sample[i]).frame.v, before.v);
        scene_check(scene.space, sample[i], SCENE_TAG(sample[i]));
        scene_audit();
    }
    scene_end();
}

/* --- C10: one predicate ----------------------------------------------------------------------- */

/* Ways from a root of the pool to the page. */
static uint64_t paths_below(pfn_t table, pfn_t f)
{
    unsigned level = table_level(table);
    uint64_t n = 0;
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        pte_t e = pte_read(&table_slots(table)[i]);
        if (pte_is_table(e, level)) {
            n += paths_below(pte_pfn(e), f);
        } else if (pte_is_leaf(e, level)) {
            n += f.v >= pte_pfn(e).v && f.v - pte_pfn(e).v < level_pages(level);
        }
    }
    return n;
}

static void check_predicate(struct space *space, uint64_t page, uint64_t pins)
{
    struct mapping m = scene_lookup(space, page);
    uint64_t paths = 0;
    if (m.kind != PTE_KIND_LEAF || m.level != 0) {
        return; /* of a large leaf it speaks of all its pages */
    }
    for (struct space *s = scene.pool->spaces; s != NULL; s = s->next) {
        paths +=
            s->state == SPACE_ALIVE || s->state == SPACE_FROZEN ? paths_below(s->root, m.frame) : 0;
    }
    CHECK_EQ(m.exclusive, paths + pins == 1);
    CHECK(!(m.rights & RIGHT_WRITE) || paths == 1);
}

/* CVE-2026-23100: a sharing test looked at a count that no longer meant
 * "shared". There is one predicate; at every step of a random life of forks it
 * says what counting all ways to the page by hand does. */
TEST(t_c10_one_predicate_says_who_shares)
{
    enum { SPACES = 4 };
    uint64_t state = test_seed();
    struct space *space[SPACES] = {0};
    scene_start(SMALL ? 0 : 8);
    scene.base = 0;
    space[0] = scene_space();
    scene_memory(space[0], 0, SMALL ? 2 * BLOCK : BLOCK, 1);
    for (uint64_t step = 0; step < test_steps(SMALL ? 700 : 120); step++) {
        uint64_t r = test_random(&state);
        unsigned who = r % SPACES, other = (r >> 8) % SPACES;
        uint64_t page = (r >> 16) % (SMALL ? 2 * BLOCK : 4);
        test_case("step %u", (unsigned)step);
        if (space[who] == NULL) {
            if (space[other] != NULL) {
                space[who] = scene_fork(space[other]);
            }
        } else if (r >> 32 & 7) {
            scene_write(space[who], page, r);
        } else if (who != 0) {
            scene_destroy(space[who]);
            space[who] = NULL;
        }
        for (unsigned i = 0; i < SPACES; i++) {
            if (space[i] != NULL) {
                check_predicate(space[i], page, 0);
            }
        }
    }
    scene_end();
}

/* --- D1: writer, collector, splitter ---------------------------------------------------------- */

static struct {
    struct space *space;
    uint64_t collected; /* the value at the last collection */
    bool reported;      /* something was written after it, says the channel */
    bool wrong;
} track;

static void track_setup(void *arg)
{
    const struct channel_options options = {.asynchronous = true};
    (void)arg;
    scene_shape(race.shape);
    for (unsigned i = 1; i < machine.cpus; i++) {
        host_cpu_stop(i);
    }
    memset(&track, 0, sizeof(track));
    track.space = scene.space;
    REQUIRE_OK(channel_create(scene.ctx, scene.pool, &options, &race.channel));
    REQUIRE_OK(channel_arm(scene.ctx, race.channel, track.space, PAGE(scene.base), BYTES(BLOCK)));
    track.collected = word_at(scene.ctx, track.space, scene.base + 1);
}

static void counting_body(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    track.wrong |= host_cpu_run(ctx->cpu, track.space) != CLEAVE_OK;
    for (uint64_t i = 1; i < 4; i++) {
        track.wrong |= host_cpu_write(ctx->cpu, PAGE(scene.base + 1), &i, 8) != CLEAVE_OK;
    }
    host_cpu_stop(ctx->cpu);
}

static void collect(struct mm_ctx *ctx)
{
    struct event event;
    while (channel_next(ctx, race.channel, &event)) {
    }
    track.wrong |=
        channel_rearm(ctx, race.channel, track.space, PAGE(scene.base), BYTES(BLOCK)) != CLEAVE_OK;
    track.collected = word_at(ctx, track.space, scene.base + 1);
}

static void collector_body(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    collect(ctx);
    host_sched_yield();
    collect(ctx);
}

static void splitter_body(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    const gpa_t at = PAGE(scene.base + 2);
    track.wrong |=
        space_protect(ctx, track.space, at, PAGE_SIZE, RIGHT_READ | RIGHT_WRITE) != CLEAVE_OK;
    track.wrong |= space_protect(ctx, track.space, at, PAGE_SIZE, RIGHT_ALL) != CLEAVE_OK;
}

/* What was written after the last collection is reported in the next. */
static bool track_check(void *arg)
{
    struct event event;
    (void)arg;
    bool told = false;
    while (channel_next(scene.ctx, race.channel, &event)) {
        told |= event.range.start.v <= scene.base + 1 && event.range.end.v > scene.base + 1;
    }
    told |= channel_dirty(scene.ctx, race.channel) != 0;
    scene_audit();
    return !track.wrong &&
           (told || word_at(scene.ctx, track.space, scene.base + 1) == track.collected);
}

/* Linux b827e496c893, 479db0bf408e, 8a8683ad9ba4: a page was cleaned between
 * the notice and the write, a dirty bit was lost while the entry was away. The
 * rule of KVM's dirty_log_test, over all schedules of a writer, a collector and
 * one who splits the block. */
TEST_TABLE(t_d1_no_write_is_missed, shapes)
{
    TEST_NEEDS_HOOKS();
    struct host_sched sched = {.setup = track_setup,
                               .cpus = 3,
                               .body = {counting_body, collector_body, splitter_body},
                               .check = track_check,
                               .max_preemptions = 2,
                               .max_schedules = SMALL ? 700 : 12};
    race.shape = row->shape;
    CHECK(host_sched_explore(&sched));
    CHECK(sched.schedules > 10);
}

/* --- D2: nothing to change, but something to flush -------------------------------------------- */

static struct {
    unsigned what; /* 0: protect, 1: another policy, 2: arm, 3: rearm */
    uint32_t done;
} late;

/* A fork whose parent is gone has one page of a block apart, which a collapse
 * would copy home. */
static void late_setup(void *arg)
{
    const struct channel_options options = {.asynchronous = true};
    struct event event;
    (void)arg;
    scene_start(0);
    struct space *parent = scene_space();
    scene_memory(parent, 0, BLOCK, 1);
    track.space = scene_fork(parent);
    track.wrong = false;
    late.done = 0;
    REQUIRE_OK(channel_create(scene.ctx, scene.pool, &options, &race.channel));
    if (late.what == 3) {
        REQUIRE_OK(channel_arm(scene.ctx, race.channel, track.space, gpa(0), BYTES(BLOCK)));
    }
    REQUIRE_OK(host_cpu_run(2, track.space));
    scene_write(track.space, 1, 1);
    (void)channel_next(scene.ctx, race.channel, &event);
    scene_destroy(parent);
}

static void late_collapse(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    (void)!space_collapse(ctx, track.space, gpa(0), 1);
}

static void late_protect(struct mm_ctx *ctx, void *arg)
{
    const struct region read_only = {.policy = REGION_READ_ONLY, .rights = RIGHT_READ, .order = 1};
    enum cleave_status status = CLEAVE_OK;
    (void)arg;
    switch (late.what) {
    case 0:
        status = space_protect(ctx, track.space, PAGE(1), PAGE_SIZE, RIGHT_READ | RIGHT_EXEC);
        break;
    case 1:
        status = space_set_region(ctx, track.space, PAGE(1), PAGE_SIZE, &read_only);
        break;
    case 2:
        status = channel_arm(ctx, race.channel, track.space, PAGE(1), PAGE_SIZE);
        break;
    default:
        status = channel_rearm(ctx, race.channel, track.space, PAGE(1), PAGE_SIZE);
    }
    track.wrong |= status != CLEAVE_OK;
    late.done = 1;
}

static void late_writer(struct mm_ctx *ctx, void *arg)
{
    bool told = false;
    (void)arg;
    for (uint64_t i = 2; i < 5; i++) {
        struct event event;
        bool done = late.done != 0;
        bool wrote = host_cpu_write(ctx->cpu, PAGE(1), &i, sizeof(i)) == CLEAVE_OK;
        told |= channel_next(ctx, race.channel, &event);
        track.wrong |= done && wrote && late.what < 2;
        track.wrong |= done && wrote && late.what >= 2 && !told;
    }
    host_cpu_stop(ctx->cpu);
}

static bool late_check(void *arg)
{
    (void)arg;
    scene_audit();
    return !track.wrong;
}

static const struct late_row {
    const char *label;
    unsigned what;
} lates[] = {{"protect", 0}, {"set-region", 1}, {"arm", 2}, {"rearm", 3}};

/* Linux b64d740ea7dd: dirty logging was switched on, found every entry
 * read-only already and left out the flush, while a CPU still had a writable
 * translation: another operation had cleared the bit and not flushed yet. Here
 * that other one is a collapse. */
TEST_TABLE(t_d2_what_is_read_only_already_is_flushed, lates)
{
    TEST_NEEDS_HOOKS();
    struct host_sched sched = {.setup = late_setup,
                               .cpus = 3,
                               .body = {late_collapse, late_protect, late_writer},
                               .check = late_check,
                               .max_preemptions = 2,
                               .max_schedules = SMALL ? 1000 : 100};
    late.what = row->what;
    CHECK(host_sched_explore(&sched));
    CHECK(sched.schedules > 10);
}

/* The same where a fork took the write bits, at the root. */
TEST_TABLE(t_d2_arming_a_shared_table, shapes)
{
    const struct channel_options options = {.asynchronous = true};
    struct event event;
    scene_shape(row->shape);
    struct channel *channel;
    REQUIRE_OK(channel_create(scene.ctx, scene.pool, &options, &channel));
    scene_write(scene.space, scene.base, 5);
    struct space *child = scene_fork(scene.space);
    REQUIRE_OK(channel_arm(scene.ctx, channel, scene.space, PAGE(scene.base), BYTES(BLOCK)));
    scene_audit();
    scene_destroy(child);
    scene_write(scene.space, scene.base + 1, 1);
    CHECK(channel_next(scene.ctx, channel, &event));
    scene_write(scene.space, scene.base, 6);
    CHECK(channel_next(scene.ctx, channel, &event));
    CHECK_EQ(event.range.start.v, scene.base);
    channel_destroy(scene.ctx, channel);
    scene_end();
}

/* --- D4: on, off, collect, fork, destroy ------------------------------------------------------ */

static void on_off_body(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    const gpa_t at = PAGE(scene.base);
    track.wrong |= channel_disarm(ctx, race.channel, track.space, at, BYTES(BLOCK)) != CLEAVE_OK;
    track.wrong |= channel_arm(ctx, race.channel, track.space, at, BYTES(BLOCK)) != CLEAVE_OK;
}

static void fork_body(struct mm_ctx *ctx, void *arg)
{
    const struct fork_options plain = {.limit = UINT64_MAX};
    struct space *child;
    uint64_t value = 9, done;
    struct event event;
    (void)arg;
    track.wrong |= space_fork(ctx, track.space, 1, &plain, &child) != CLEAVE_OK;
    track.wrong |=
        space_write(ctx, child, PAGE(scene.base + 1), &value, 8, NULL, &done) >= CLEAVE_ERROR_FIRST;
    (void)channel_next(ctx, race.channel, &event);
    track.wrong |= space_destroy(ctx, child) != CLEAVE_OK;
}

static void writer_body(struct mm_ctx *ctx, void *arg)
{
    uint64_t value = 4, done;
    (void)arg;
    track.wrong |=
        space_write(ctx, track.space, PAGE(scene.base + 1), &value, 8, NULL, &done) != CLEAVE_OK;
    enum cleave_status status =
        channel_rearm(ctx, race.channel, track.space, PAGE(scene.base), BYTES(BLOCK));
    track.wrong |= status != CLEAVE_OK && status != CLEAVE_NOT_MAPPED;
}

static bool on_off_check(void *arg)
{
    (void)arg;
    struct region region = region_get(track.space->regions, gfn(scene.base));
    bool armed = region.armed && !(scene_lookup(track.space, scene.base).rights & RIGHT_WRITE);
    scene_audit();
    return !track.wrong && armed && word_at(scene.ctx, track.space, scene.base + 1) == 4;
}

/* XSA-104, XSA-397: dirty tracking switched on and off at once from two sides.
 */
TEST_TABLE(t_d4_on_off_collect_fork_destroy, shapes)
{
    TEST_NEEDS_HOOKS();
    struct host_sched sched = {.setup = track_setup,
                               .cpus = 3,
                               .body = {on_off_body, fork_body, writer_body},
                               .check = on_off_check,
                               .max_preemptions = 2,
                               .max_schedules = SMALL ? 700 : 12};
    race.shape = row->shape;
    CHECK(host_sched_explore(&sched));
    CHECK(sched.schedules > 10);
}
