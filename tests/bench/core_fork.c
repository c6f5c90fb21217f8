/* SPDX-License-Identifier: BSD-2-Clause */
/* Time and memory of a fork over the size and shape of the parent. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core.h"

#define ROUNDS 501
#define TURNS 5u /* over the shapes */
#define SIBLINGS 1000

/* Median time of a fork; the child is destroyed outside the time. */
static double fork_time(struct space *parent)
{
    static double samples[ROUNDS];
    const struct fork_options options = {.limit = UINT64_MAX};

    for (unsigned i = 0; i < ROUNDS; i++) {
        struct space *child;
        uint64_t start = bench_now();
        enum cleave_status status = space_fork(host_ctx(0), parent, 1, &options, &child);
        samples[i] = bench_net(start, bench_now());
        core_require(status, "space_fork");
        core_destroy(child);
    }
    return bench_median(samples, ROUNDS);
}

static double fork_time_of(uint64_t bytes, unsigned order)
{
    struct pool *pool = core_machine(bytes + 4 * BENCH_GIB, true);
    double ns = fork_time(core_space(pool, bytes, order));
    host_stop();
    return ns;
}

/* A parent with `count` regions, by giving every other page other rights. */
static double fork_time_regions(unsigned count)
{
    struct pool *pool = core_machine(4 * BENCH_GIB, true);
    struct space *parent = core_space(pool, BENCH_GIB, 1);
    for (unsigned i = 0; i < count / 2; i++) {
        gpa_t at = gpa(2 * i * PAGE_SIZE);
        CORE_REQUIRE(space_protect(host_ctx(0), parent, at, PAGE_SIZE, RIGHT_READ | RIGHT_WRITE));
    }
    double ns = fork_time(parent);
    host_stop();
    return ns;
}

static double fork_time_siblings(unsigned count, double *bytes_each)
{
    struct pool *pool = core_machine(4 * BENCH_GIB, true);
    struct space *parent = core_space(pool, BENCH_GIB, 1);
    uint64_t before = pool->free;
    for (unsigned i = 0; i < count; i++) {
        (void)core_fork(parent);
    }
    *bytes_each = (double)((before - pool->free) << PAGE_SHIFT) / count;
    double ns = fork_time(parent);
    host_stop();
    return ns;
}

static double fork_time_many(unsigned count)
{
    static double samples[64];
    static struct space *children[FORK_MAX];
    const struct fork_options options = {.limit = UINT64_MAX};
    struct pool *pool = core_machine(12 * BENCH_GIB, true);
    struct space *parent = core_space(pool, 8 * BENCH_GIB, 1);

    for (unsigned i = 0; i < 64; i++) {
        uint64_t start = bench_now();
        enum cleave_status status = space_fork(host_ctx(0), parent, count, &options, children);
        samples[i] = bench_net(start, bench_now()) / count;
        core_require(status, "space_fork");
        for (unsigned c = 0; c < count; c++) {
            core_destroy(children[c]);
        }
    }
    host_stop();
    return bench_median(samples, 64);
}

static void plot_sizes(struct bench *b)
{
    for (uint64_t bytes = BENCH_GIB; bytes <= 1024 * BENCH_GIB; bytes *= 4) {
        bench_plot_fork(b, "Cleave, 2 MiB leaves", bytes, fork_time_of(bytes, 1));
    }
}

#define SHAPES 6u
static const char *const shape_names[SHAPES] = {
    "core.fork.8g_2m", "core.fork.1g_2m",         "core.fork.1t_1g",
    "core.fork.1g_4k", "core.fork.10000_regions", "core.fork.1000_siblings"};

static double time_shape(unsigned shape, double *bytes_each)
{
    switch (shape) {
    case 0:
        return fork_time_of(8 * BENCH_GIB, 1);
    case 1:
        return fork_time_of(BENCH_GIB, 1);
    case 2:
        return fork_time_of(1024 * BENCH_GIB, 2);
    case 3:
        return fork_time_of(BENCH_GIB, 0);
    case 4:
        return fork_time_regions(10000);
    default:
        return fork_time_siblings(SIBLINGS, bytes_each);
    }
}

/* The shapes in turn, several times: of each the lowest median, since the computer's speed drifts
 * by more than the shapes differ. */
static void time_shapes(double best[SHAPES], double *bytes_each)
{
    for (unsigned turn = 0; turn < TURNS; turn++) {
        for (unsigned i = 0; i < SHAPES; i++) {
            double ns = time_shape(i, bytes_each);
            best[i] = turn == 0 ? ns : fmin(best[i], ns);
        }
    }
}

void core_bench_fork(struct bench *b)
{
    double hugetlb = bench_baselines(b)->fork[LINUX_HUGETLB].net_ns;
    double best[SHAPES], bytes_each = NAN;

    bench_section(b, "Fork");
    time_shapes(best, &bytes_each);
    bench_record(b, &(struct bench_row){.name = shape_names[0],
                                        .value = best[0],
                                        .unit = "ns",
                                        .rule = BENCH_AT_MOST,
                                        .goal = 2000,
                                        .note = "8 GiB of 2 MiB leaves"});
    bench_record(b, &(struct bench_row){.name = "core.fork.vs_hugetlbfs",
                                        .value = hugetlb / best[0],
                                        .unit = "times",
                                        .rule = BENCH_AT_LEAST,
                                        .goal = 200,
                                        .note = "fork() with 8 GiB of hugetlbfs, net"});
    double low = best[1], high = best[1];
    for (unsigned i = 1; i < SHAPES; i++) {
        low = fmin(low, best[i]);
        high = fmax(high, best[i]);
        bench_record(b,
                     &(struct bench_row){.name = shape_names[i], .value = best[i], .unit = "ns"});
    }
    bench_record(b, &(struct bench_row){.name = "core.fork.spread",
                                        .value = high / low,
                                        .unit = "times",
                                        .rule = BENCH_AT_MOST,
                                        .goal = 1.5,
                                        .note = "slowest over fastest of the five above"});
    bench_record(b, &(struct bench_row){.name = "core.fork.256_in_one_call",
                                        .value = fork_time_many(FORK_MAX),
                                        .unit = "ns/child",
                                        .rule = BENCH_AT_MOST,
                                        .goal = 2000});
    bench_record(b, &(struct bench_row){.name = "core.fork.idle_memory",
                                        .value = bytes_each / 1024,
                                        .unit = "KiB/fork",
                                        .rule = BENCH_AT_MOST,
                                        .goal = 16,
                                        .note = "1,000 forks, accounts included"});
    bench_record(b,
                 &(struct bench_row){.name = "core.descriptors",
                                     .value = 100.0 * (double)machine_descriptor_bytes(1u << 24) /
                                              ((double)(1u << 24) * PAGE_SIZE),
                                     .unit = "% of RAM",
                                     .rule = BENCH_AT_MOST,
                                     .goal = 0.4});
    plot_sizes(b);
}
