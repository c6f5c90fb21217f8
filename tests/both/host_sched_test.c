/* SPDX-License-Identifier: BSD-2-Clause */
/* The exploration of schedules: on toys whose races are known, and on the flush protocol. */
#include "test.h"

#include <stdio.h>
#include <string.h>

#include "frame.h"
#include "host.h"

static struct {
    struct spinlock lock;
    unsigned value;
    unsigned started;
    bool locked; /* the bodies take the lock */
} toy;

static void toy_setup(void *arg)
{
    bool locked = toy.locked;
    (void)arg;
    host_start(&(struct host_options){.frames = 64, .cpus = 3});
    memset(&toy, 0, sizeof(toy));
    toy.locked = locked;
}

/* Two increments that another CPU can come between. */
static void toy_body(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 2; i++) {
        if (toy.locked) {
            spin_lock(ctx, &toy.lock, RANK_POOL);
        }
        unsigned value = toy.value;
        host_sched_yield();
        toy.value = value + 1;
        if (toy.locked) {
            spin_unlock(ctx, &toy.lock, RANK_POOL);
        }
        host_sched_yield();
    }
}

static bool toy_check(void *arg)
{
    (void)arg;
    return toy.value == 4;
}

TEST(finds_a_race)
{
    struct host_sched sched = {.setup = toy_setup,
                               .cpus = 2,
                               .body = {toy_body, toy_body},
                               .check = toy_check,
                               .quiet = true};

    CHECK(host_sched_explore(&sched)); /* without a preemption nothing comes between */
    CHECK(sched.complete);
    CHECK_EQ(sched.schedules, 2);
    sched.max_preemptions = 2;
    CHECK(!host_sched_explore(&sched));
    CHECK(!sched.complete);

    char found[HOST_SCHED_TEXT];
    strcpy(found, sched.failed);
    printf("%s\n", found);
    for (unsigned i = 0; i < 3; i++) {
        CHECK(!host_sched_replay(&sched, found));
        CHECK(strcmp(sched.failed, found) == 0);
    }
    CHECK(host_sched_replay(&sched, ""));

    sched.random = 2000;
    CHECK(!host_sched_explore(&sched));
    strcpy(found, sched.failed);
    CHECK(!host_sched_replay(&sched, found));
}

TEST(lock_prevents_it)
{
    struct host_sched sched = {.setup = toy_setup,
                               .cpus = 3,
                               .body = {toy_body, toy_body, toy_body},
                               .max_preemptions = 2};
    toy.locked = true;
    CHECK(host_sched_explore(&sched));
    CHECK(sched.complete);
    CHECK(sched.schedules > 100);
    printf("%u schedules\n", (unsigned)sched.schedules);
}

/* Every interleaving is met: two CPUs of 4 steps each have C(8, 4) of them. */
static unsigned char trace[8];
static unsigned trace_length;
static uint32_t seen[256 / 32];

static void trace_setup(void *arg)
{
    toy_setup(arg);
    trace_length = 0;
}
static void trace_body(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 4; i++) {
        trace[trace_length++] = (unsigned char)ctx->cpu;
        if (i < 3) {
            host_sched_yield();
        }
    }
}
static bool trace_check(void *arg)
{
    unsigned word = 0;
    (void)arg;
    for (unsigned i = 0; i < 8; i++) {
        word = word << 1 | trace[i];
    }
    seen[word / 32] |= 1u << word % 32;
    return trace_length == 8;
}

TEST(meets_every_interleaving)
{
    struct host_sched sched = {.setup = trace_setup,
                               .cpus = 2,
                               .body = {trace_body, trace_body},
                               .check = trace_check,
                               .max_preemptions = 8};
    int distinct = 0;

    CHECK(host_sched_explore(&sched));
    CHECK(sched.complete);
    for (unsigned i = 0; i < 256 / 32; i++) {
        distinct += __builtin_popcount(seen[i]);
    }
    CHECK_EQ(distinct, 70);
    CHECK_EQ(sched.schedules,
             70); /* each once, although a higher bound runs the lower ones again */
    sched.max_schedules = 10;
    CHECK(host_sched_explore(&sched));
    CHECK(!sched.complete);
    CHECK_EQ(sched.schedules, 10);
}

static void stuck_body(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    toy.started++;
    while (toy.started < 3) {
        port_relax(ctx);
    }
}

TEST(finds_a_deadlock)
{
    struct host_sched sched = {
        .setup = toy_setup, .cpus = 2, .body = {stuck_body, stuck_body}, .quiet = true};
    CHECK(!host_sched_explore(&sched));
    CHECK(strstr(sched.why, "deadlock") != NULL);
    sched.cpus = 3;
    sched.body[2] = stuck_body;
    CHECK(host_sched_explore(&sched)); /* waiting lets the others run */
}

static void panic_body(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    toy.value |= 1u << ctx->cpu;
    host_sched_yield();
    if (ctx->cpu == 0) {
        MM_CHECK(toy.value == 1);
    }
}

TEST(panic_ends_a_schedule)
{
    struct host_sched sched = {.setup = toy_setup,
                               .cpus = 2,
                               .body = {panic_body, panic_body},
                               .max_preemptions = 1,
                               .quiet = true};
    CHECK(!host_sched_explore(&sched));
    CHECK(strstr(sched.why, "toy.value == 1") != NULL);
    CHECK(!host_sched_replay(&sched, sched.failed));
}

/* --- The flush protocol ----------------------------------------------------------------------- */

/* CPU 1 reads a page over and over while CPU 0 takes it away, flushes and gives the frame to
 * somebody else. No read that began after the flush may see the frame's new bytes. */
static struct {
    struct space *space;
    pte_t *slot;
    pfn_t frame, other;
    enum { PROTOCOL_RIGHT, PROTOCOL_NO_KICK, PROTOCOL_FLUSH_FIRST } wrong;
    bool stale;
} game;

static void game_setup(void *arg)
{
    (void)arg;
    host_start(&(struct host_options){.frames = 256, .cpus = 2});
    host_enable_tlb(true);
    game.stale = false;
    game.space = frame_address(host_take(1, 0));
    game.space->state = SPACE_ALIVE;
    game.space->generation = 1;
    pfn_t table = host_take(1, 0);
    game.space->root = table;
    for (unsigned level = ROOT_LEVEL; level > 0; level--) {
        pfn_t lower = host_take(1, 0);
        *(pte_t *)frame_address(table) = pte_with_write(pte_make_table(lower));
        table = lower;
    }
    game.slot = frame_address(table);
    game.frame = host_take(1, 0);
    game.other = host_take(1, 0);
    *(char *)frame_address(game.frame) = 'a';
    *(char *)frame_address(game.other) = 'a';
    *game.slot = pte_make_leaf(game.frame, 0, RIGHT_ALL, 0);
}

static void game_flush(struct mm_ctx *ctx)
{
    struct flush_batch batch;
    flush_begin(&batch, game.space);
    flush_need(&batch);
    flush_finish(ctx, &batch);
}

static void game_writer(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    if (game.wrong == PROTOCOL_FLUSH_FIRST) {
        game_flush(ctx);
        host_sched_yield();
    }
    __atomic_store_n(game.slot, pte_make_leaf(game.other, 0, RIGHT_ALL, 0), __ATOMIC_SEQ_CST);
    host_sched_yield();
    if (game.wrong == PROTOCOL_RIGHT) {
        game_flush(ctx);
    } else if (game.wrong == PROTOCOL_NO_KICK) {
        port_flush_local(ctx, game.space->root);
    }
    *(char *)frame_address(game.frame) = 'x'; /* the frame's next holder */
}

static void game_reader(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    if (host_cpu_run(ctx->cpu, game.space) != CLEAVE_OK) {
        host_fail("the guest is not entered");
    }
    for (unsigned i = 0; i < 3; i++) {
        char byte = 0;
        if (host_cpu_read(ctx->cpu, gpa(0), &byte, 1) != CLEAVE_OK || byte != 'a') {
            game.stale = true;
        }
    }
    host_cpu_stop(ctx->cpu);
}

static bool game_check(void *arg)
{
    (void)arg;
    return !game.stale;
}

TEST(flush_protocol)
{
    struct host_sched sched = {.setup = game_setup,
                               .cpus = 2,
                               .body = {game_writer, game_reader},
                               .check = game_check,
                               .max_preemptions = 3};

    game.wrong = PROTOCOL_RIGHT;
    CHECK(host_sched_explore(&sched));
    CHECK(sched.complete);
    printf("%u schedules\n", (unsigned)sched.schedules);
    sched.quiet = true;
    game.wrong = PROTOCOL_NO_KICK;
    CHECK(!host_sched_explore(&sched));
    game.wrong = PROTOCOL_FLUSH_FIRST;
    CHECK(!host_sched_explore(&sched));
}
