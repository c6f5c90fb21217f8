/* SPDX-License-Identifier: BSD-2-Clause */
/* Writes after a fork, reset, copy amplification, and two threads that fault side by side. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>

#include "core.h"

#define SPACE_BYTES (4 * BENCH_GIB)
#define BLOCKS (SPACE_BYTES / (2 * BENCH_MIB))

/* --- First writes ----------------------------------------------------------------------------- */

/* A random page of block `block`. */
static gpa_t page_of(uint32_t block, uint64_t *seed)
{
    return gpa(((uint64_t)block * 512 + bench_random(seed) % 512) * PAGE_SIZE);
}

struct write_times {
    double first, further, same, back;
};

/* One child per sample: its first write anywhere, then one into another block of the same GiB, then
 * a second page of that block. Afterwards the parent's write when the child is gone. */
static struct write_times write_times(struct space *parent)
{
    enum { SAMPLES = 501 };
    static double first[SAMPLES], further[SAMPLES], same[SAMPLES], back[SAMPLES];
    static uint32_t order[BLOCKS];
    uint64_t seed = 1;

    bench_shuffle(order, BLOCKS, &seed);
    for (unsigned i = 0; i < SAMPLES; i++) {
        struct space *child = core_fork(parent);
        uint32_t block = order[2 * i], other = (block & ~511u) | ((block + 77) & 511u);
        gpa_t at = page_of(block, &seed);
        first[i] = core_fault(child, at);
        at = page_of(other, &seed);
        further[i] = core_fault(child, at);
        at = gpa(at.v ^ 5 * PAGE_SIZE);
        same[i] = core_fault(child, at);
        core_destroy(child);
        back[i] = core_fault(parent, page_of(block, &seed));
    }
    return (struct write_times){bench_median(first, SAMPLES), bench_median(further, SAMPLES),
                                bench_median(same, SAMPLES), bench_median(back, SAMPLES)};
}

/* Faults that a parent takes to write all its memory when its last child, which wrote some pages of
 * every block, has died; per table. */
static double faults_per_table(struct space *parent, uint64_t bytes)
{
    struct space *child = core_fork(parent);
    for (uint64_t at = 0; at < bytes; at += 2 * BENCH_MIB) {
        (void)core_fault(child, gpa(at + 3 * PAGE_SIZE));
    }
    core_destroy(child);
    uint64_t before = parent->stats.faults;
    for (uint64_t at = 0; at < bytes; at += PAGE_SIZE) {
        struct mapping mapping;
        CORE_REQUIRE(space_lookup(host_ctx(0), parent, gpa(at), &mapping));
        if (!(mapping.rights & RIGHT_WRITE)) {
            (void)core_fault(parent, gpa(at));
        }
    }
    struct space_usage usage = {.tables = 0};
    gfn_t from = gfn(0);
    CORE_REQUIRE(space_usage(host_ctx(0), parent, &from, &usage));
    return (double)(parent->stats.faults - before) / (double)usage.tables;
}

void core_bench_write(struct bench *b)
{
    const struct bench_base *base = bench_baselines(b);
    double unit = base->bare.copy_4k_ns + base->bare.fill_4k_ns;
    struct pool *pool = core_machine(SPACE_BYTES + 4 * BENCH_GIB, false);
    struct space *parent = core_space(pool, SPACE_BYTES, 1);
    core_touch_free(pool);
    struct write_times t = write_times(parent);
    double back = faults_per_table(parent, BENCH_GIB);
    host_stop();

    bench_section(b, "Writes after a fork");
    bench_record(b, &(struct bench_row){.name = "core.write.first",
                                        .value = t.first,
                                        .unit = "ns",
                                        .rule = BENCH_AT_MOST,
                                        .goal = 8 * unit,
                                        .ratio = t.first / unit,
                                        .note = "path copied, 2 MiB split, page; of copy + fill"});
    bench_record(b, &(struct bench_row){.name = "core.write.further_leaf",
                                        .value = t.further,
                                        .unit = "ns",
                                        .rule = BENCH_AT_MOST,
                                        .goal = 3 * unit,
                                        .ratio = t.further / unit,
                                        .note = "path private: split and page"});
    bench_record(
        b, &(struct bench_row){.name = "core.write.further_page", .value = t.same, .unit = "ns"});
    bench_record(b, &(struct bench_row){.name = "core.write.given_back",
                                        .value = t.back,
                                        .unit = "ns",
                                        .note = "the parent's, the child being gone: no copy"});
    bench_record(b, &(struct bench_row){.name = "core.write.vs_hugetlbfs",
                                        .value = base->fork[LINUX_HUGETLB].first_write_ns / t.first,
                                        .unit = "times",
                                        .rule = BENCH_AT_LEAST,
                                        .goal = 20});
    bench_record(b, &(struct bench_row){.name = "core.write.vs_thp",
                                        .value = base->fork[LINUX_THP].first_write_ns / t.first,
                                        .unit = "times",
                                        .rule = BENCH_AT_LEAST,
                                        .goal = 1});
    bench_record(b, &(struct bench_row){.name = "core.write.back_faults_per_table",
                                        .value = back,
                                        .unit = "faults",
                                        .rule = BENCH_AT_MOST,
                                        .goal = 1,
                                        .note = "last child died; 1 GiB written again"});
    bench_plot_write(b, "Cleave, first write", t.first);
    bench_plot_write(b, "Cleave, further 2 MiB leaf", t.further);
    bench_plot_write(b, "Cleave, further page", t.same);
}

/* --- Reset ------------------------------------------------------------------------------------ */

/* Time of a reset of a fork that wrote `pages` pages, `stride` bytes apart, by what is allowed for
 * them: 200 ns a page and 3 us a private table. Without collapse, which would leave fewer of both.
 */
static double reset_share(struct space *parent, unsigned pages, uint64_t stride, double *ns)
{
    enum { SAMPLES = 21 };
    static double samples[SAMPLES], shares[SAMPLES];
    const struct fork_options options = {.limit = UINT64_MAX, .base = true};
    struct space *child;

    CORE_REQUIRE(space_fork(host_ctx(0), parent, 1, &options, &child));
    child->collapse_at = 0;
    for (unsigned i = 0; i < SAMPLES; i++) {
        for (unsigned p = 0; p < pages; p++) {
            (void)core_fault(child, gpa(p * stride));
        }
        uint64_t tables = core_private_tables(child);
        uint64_t start = bench_now();
        enum cleave_status status = space_reset(host_ctx(0), child, NULL, 0);
        samples[i] = bench_net(start, bench_now());
        core_require(status, "space_reset");
        shares[i] = samples[i] / (200.0 * pages + 3000.0 * (double)tables);
    }
    core_destroy(child);
    *ns = bench_median(samples, SAMPLES);
    return bench_median(shares, SAMPLES);
}

static void record_reset(struct bench *b, const char *name, double share, double ns,
                         const char *note)
{
    bench_record(b, &(struct bench_row){.name = name,
                                        .value = share,
                                        .unit = "of allowed",
                                        .rule = BENCH_AT_MOST,
                                        .goal = 1,
                                        .note = note});
    char full[64];
    snprintf(full, sizeof(full), "%s_time", name);
    bench_record(b, &(struct bench_row){.name = full, .value = ns, .unit = "ns"});
}

void core_bench_reset(struct bench *b)
{
    double ns;

    bench_section(b, "Reset");
    struct pool *pool = core_machine(6 * BENCH_GIB, true);
    double share = reset_share(core_space(pool, BENCH_GIB, 1), 4096, PAGE_SIZE, &ns);
    host_stop();
    record_reset(b, "core.reset.dense", share, ns,
                 "4,096 pages in a row; 200 ns each + 3 us a table");
    pool = core_machine(132 * BENCH_GIB, true);
    share = reset_share(core_space(pool, 128 * BENCH_GIB, 1), 128, BENCH_GIB, &ns);
    host_stop();
    record_reset(b, "core.reset.sparse", share, ns, "one page in each of 128 GiB");
}

/* --- Copy amplification ----------------------------------------------------------------------- */

static void amplification_scattered(struct bench *b)
{
    enum { WRITTEN_BLOCKS = (int)(BLOCKS * 5 / 100) };
    const unsigned pages = (unsigned)(SPACE_BYTES / PAGE_SIZE / 100);
    static uint32_t blocks[BLOCKS], inside[WRITTEN_BLOCKS * 512];
    uint64_t seed = 7;
    struct pool *pool = core_machine(SPACE_BYTES + 2 * BENCH_GIB, true);
    struct space *child = core_fork(core_space(pool, SPACE_BYTES, 2));

    bench_shuffle(blocks, BLOCKS, &seed);
    bench_shuffle(inside, WRITTEN_BLOCKS * 512, &seed);
    host_reset_counters();
    for (unsigned i = 0; i < pages; i++) {
        (void)core_fault(
            child, gpa(((uint64_t)blocks[inside[i] / 512] * 512 + inside[i] % 512) * PAGE_SIZE));
    }
    struct space_usage usage = {.tables = 0};
    gfn_t from = gfn(0);
    CORE_REQUIRE(space_usage(host_ctx(0), child, &from, &usage));
    double copied = (double)host_counters().bytes_copied;
    host_stop();
    bench_record(b,
                 &(struct bench_row){.name = "core.grain.copied",
                                     .value = copied / ((double)pages * PAGE_SIZE),
                                     .unit = "of written",
                                     .rule = BENCH_AT_MOST,
                                     .goal = 1.1,
                                     .note = "4 GiB of 1 GiB leaves, 1% of pages in 5% of blocks"});
    bench_record(b, &(struct bench_row){
                        .name = "core.grain.still_huge",
                        .value = 100.0 * (double)(usage.mapped[1] + usage.mapped[2]) / SPACE_BYTES,
                        .unit = "%",
                        .rule = BENCH_AT_LEAST,
                        .goal = 94,
                        .note = "of it read through 2 MiB or larger leaves"});
}

static void amplification_block(struct bench *b)
{
    static uint32_t order[512];
    uint64_t seed = 3;
    struct pool *pool = core_machine(6 * BENCH_GIB, true);
    struct space *child = core_fork(core_space(pool, BENCH_GIB, 1));
    struct mapping mapping;

    bench_shuffle(order, 512, &seed);
    host_reset_counters();
    for (unsigned i = 0; i < 512; i++) {
        gpa_t at = gpa(order[i] * PAGE_SIZE);
        CORE_REQUIRE(space_lookup(host_ctx(0), child, at, &mapping));
        if (!(mapping.rights & RIGHT_WRITE)) {
            (void)core_fault(child, at);
        }
    }
    double copied = (double)host_counters().bytes_copied;
    CORE_REQUIRE(space_lookup(host_ctx(0), child, gpa(0), &mapping));
    host_stop();
    bench_record(b, &(struct bench_row){.name = "core.grain.whole_block",
                                        .value = copied / (2.0 * BENCH_MIB),
                                        .unit = "of 2 MiB",
                                        .rule = BENCH_AT_MOST,
                                        .goal = 1.3,
                                        .note = mapping.level == 1
                                                    ? "every page in random order; one leaf again"
                                                    : "every page in random order; not one leaf"});
}

void core_bench_amplification(struct bench *b)
{
    bench_section(b, "Copy grain");
    amplification_scattered(b);
    amplification_block(b);
}

/* --- Two threads ------------------------------------------------------------------------------ */

struct faulter {
    pthread_t thread;
    pthread_barrier_t *start;
    unsigned cpu;
    struct space *space;
    const uint32_t *blocks;
    unsigned count;
    double seconds;
};

/* Writes one page in each of its blocks: each is a split and a copy, its path being private. */
static void *faulter_run(void *arg)
{
    struct faulter *f = arg;
    struct mm_ctx *ctx = host_ctx(f->cpu);

    (void)bare_bind_cpu(f->cpu);
    host_cpu_attach(f->cpu);
    pthread_barrier_wait(f->start);
    uint64_t start = bench_now();
    for (unsigned i = 0; i < f->count; i++) {
        gpa_t at = gpa(((uint64_t)f->blocks[i] * 512 + i % 512) * PAGE_SIZE);
        core_require(space_fault(ctx, f->space, at, ACCESS_WRITE, NULL), "space_fault");
        host_poll(ctx);
    }
    f->seconds = bench_net(start, bench_now()) / 1e9;
    host_cpu_detach(f->cpu);
    return NULL;
}

/* Faults a second of `threads` threads, each in a fork of its own of one parent. With `same` they
 * write the same blocks in the same order, else each its own half. */
static double fault_rate(struct space *parent, unsigned threads, bool same, const uint32_t *blocks,
                         unsigned count)
{
    struct faulter f[2];
    pthread_barrier_t start;
    double slowest = 0;

    pthread_barrier_init(&start, NULL, threads);
    for (unsigned i = 0; i < threads; i++) {
        f[i] = (struct faulter){.start = &start,
                                .cpu = i,
                                .space = core_fork(parent),
                                .blocks = blocks + (same ? 0 : i * count),
                                .count = count};
        pthread_create(&f[i].thread, NULL, faulter_run, &f[i]);
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(f[i].thread, NULL);
        slowest = fmax(slowest, f[i].seconds);
    }
    pthread_barrier_destroy(&start);
    for (unsigned i = 0; i < threads; i++) {
        core_destroy(f[i].space);
    }
    return threads * count / slowest;
}

void core_bench_threads(struct bench *b)
{
    /* A pool just large enough, so that after some rounds this computer's memory is really there.
     */
    const uint64_t bytes = 2 * BENCH_GIB;
    enum { ROUNDS = 41, COUNT = 512, WARM_UP = 8 };
    static uint32_t blocks[BLOCKS];
    static double apart[ROUNDS], together[ROUNDS], bare[ROUNDS];
    uint64_t seed = 11;
    struct bare_buffers buffers;
    struct pool *pool = core_machine(bytes + 9 * BENCH_GIB / 4, false);
    struct space *parent = core_space(pool, bytes, 1);
    core_touch_free(pool);
    bool have = bare_buffers_get(&buffers, BENCH_GIB);

    bench_shuffle(blocks, 2 * COUNT, &seed);
    for (unsigned i = 0; i < WARM_UP; i++) {
        (void)fault_rate(parent, 2, false, blocks, COUNT);
    }
    for (unsigned i = 0; i < ROUNDS; i++) {
        double one = fault_rate(parent, 1, false, blocks, COUNT);
        apart[i] = fault_rate(parent, 2, false, blocks, COUNT) / one;
        together[i] = fault_rate(parent, 2, true, blocks, COUNT) / one;
        bare[i] =
            have ? bare_copy_rate(&buffers, 2, 20000) / bare_copy_rate(&buffers, 1, 20000) : NAN;
    }
    host_stop();
    if (have) {
        bare_buffers_put(&buffers);
    }
    double gain = bench_median(bare, ROUNDS);
    double goal = isnan(gain) ? 1.8 : fmin(1.8, 0.9 * gain);
    bench_section(b, "Two threads in two forks of one parent");
    bench_record(b, &(struct bench_row){
                        .name = "core.threads.bare_copies", .value = gain, .unit = "times one"});
    bench_record(b, &(struct bench_row){.name = "core.threads.apart",
                                        .value = bench_median(apart, ROUNDS),
                                        .unit = "times one",
                                        .rule = BENCH_AT_LEAST,
                                        .goal = goal,
                                        .note = "1.8, or 90% of what bare copies gain"});
    bench_record(b, &(struct bench_row){.name = "core.threads.same_tables",
                                        .value = bench_median(together, ROUNDS),
                                        .unit = "times one",
                                        .note = "the same blocks in the same order"});
}
