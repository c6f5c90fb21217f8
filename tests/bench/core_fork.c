/* SPDX-License-Identifier: BSD-2-Clause */
/* Time and memory of a fork over the size and shape of the parent. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core.h"

#define ROUNDS 1001
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

void core_bench_fork(struct bench *b)
{
    const struct bench_base *base = bench_baselines(b);
    double hugetlb = base->fork[LINUX_HUGETLB].net_ns;
    double bytes_each;

    bench_section(b, "Fork");
    double eight = fork_time_of(8 * BENCH_GIB, 1);
    bench_record(b, &(struct bench_row){.name = "core.fork.8g_2m",
                                        .value = eight,
                                        .unit = "ns",
                                        .rule = BENCH_AT_MOST,
                                        .goal = 2000,
                                        .note = "8 GiB of 2 MiB leaves"});
    bench_record(b, &(struct bench_row){.name = "core.fork.vs_hugetlbfs",
                                        .value = hugetlb / eight,
                                        .unit = "times",
                                        .rule = BENCH_AT_LEAST,
                                        .goal = 200,
                                        .note = "fork() with 8 GiB of hugetlbfs, net"});
    const double spread[] = {fork_time_of(BENCH_GIB, 1), fork_time_of(1024 * BENCH_GIB, 2),
                             fork_time_of(BENCH_GIB, 0), fork_time_regions(10000),
                             fork_time_siblings(SIBLINGS, &bytes_each)};
    static const char *const names[] = {"core.fork.1g_2m", "core.fork.1t_1g", "core.fork.1g_4k",
                                        "core.fork.10000_regions", "core.fork.1000_siblings"};
    double low = spread[0], high = spread[0];
    for (unsigned i = 0; i < 5; i++) {
        low = fmin(low, spread[i]);
        high = fmax(high, spread[i]);
        bench_record(b, &(struct bench_row){.name = names[i], .value = spread[i], .unit = "ns"});
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
