/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `make scenario`: one documented scenario on the hosted core, as a table. A
 * 4 GiB space of 1 GiB and 2 MiB leaves is forked 1,000 times, the forks write, some are reset and
 * collapse, all are destroyed; the numbers are read off the core's own counters. Ends with an
 * audit.
 */
#include <stdio.h>
#include <stdlib.h>

#include "audit.h"
#include "core.h"

#define FORKS 1000u
#define WRITES 64u /* pages that each fork writes, in random places of 8 blocks */

static struct space *forks[FORKS];
static double step_ns[FORKS];

/* Three GiB under 1 GiB leaves and one under 2 MiB leaves, each page with its own bytes. */
static struct space *make_template(struct pool *pool)
{
    const struct region region = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 2};
    const struct region small = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};
    struct space *space;

    CORE_REQUIRE(space_create(host_ctx(0), pool, UINT64_MAX, &space));
    CORE_REQUIRE(space_set_region(host_ctx(0), space, gpa(0), 3 * BENCH_GIB, &region));
    CORE_REQUIRE(space_set_region(host_ctx(0), space, gpa(3 * BENCH_GIB), BENCH_GIB, &small));
    CORE_REQUIRE(space_populate(host_ctx(0), space, gpa(0), 4 * BENCH_GIB));
    for (uint64_t at = 0; at < 4 * BENCH_GIB; at += 2 * BENCH_MIB) {
        uint64_t tag = at + 1, done;
        CORE_REQUIRE(space_write(host_ctx(0), space, gpa(at), &tag, sizeof(tag), NULL, &done));
    }
    return space;
}

static void row(const char *step, double total_ns, double each_ns, const char *each)
{
    printf("  %-46s %10.3f ms", step, total_ns / 1e6);
    if (each != NULL) {
        printf("  %9.2f us %s", each_ns / 1e3, each);
    }
    putchar('\n');
}

static double fork_all(struct space *parent)
{
    const struct fork_options options = {.limit = UINT64_MAX, .base = true};
    uint64_t begin = bench_now();
    for (unsigned i = 0; i < FORKS; i++) {
        uint64_t start = bench_now();
        CORE_REQUIRE(space_fork(host_ctx(0), parent, 1, &options, &forks[i]));
        step_ns[i] = bench_net(start, bench_now());
    }
    return bench_net(begin, bench_now());
}

/* Each fork writes its number into WRITES pages; returns the time of all. */
static double write_all(uint64_t *checks)
{
    uint64_t seed = 42;
    double ns = 0;

    for (uint64_t i = 0; i < FORKS; i++) {
        uint64_t block = bench_random(&seed) % 2040;
        for (unsigned w = 0; w < WRITES; w++) {
            uint64_t page = (block + w % 8) * 512 + bench_random(&seed) % 512, done, back;
            uint64_t start = bench_now();
            CORE_REQUIRE(space_write(host_ctx(0), forks[i], gpa(page << PAGE_SHIFT), &i, sizeof(i),
                                     NULL, &done));
            ns += bench_net(start, bench_now());
            CORE_REQUIRE(space_read(host_ctx(0), forks[i], gpa(page << PAGE_SHIFT), &back,
                                    sizeof(back), NULL));
            *checks += back == i;
        }
    }
    return ns;
}

static struct space_usage usage_of(struct space *space)
{
    struct space_usage usage = {.tables = 0};
    gfn_t from = gfn(0);
    CORE_REQUIRE(space_usage(host_ctx(0), space, &from, &usage));
    return usage;
}

static void print_forks(struct pool *pool, uint64_t free_before)
{
    struct space_stats sum = {.faults = 0};
    struct space_usage usage = usage_of(forks[0]);
    double all = 4.0 * (double)BENCH_GIB;

    for (unsigned i = 0; i < FORKS; i++) {
        sum.faults += forks[i]->stats.faults;
        sum.pages_copied += forks[i]->stats.pages_copied;
        sum.tables_copied += forks[i]->stats.tables_copied;
        sum.blocks_split += forks[i]->stats.blocks_split;
        sum.gigas_split += forks[i]->stats.gigas_split;
    }
    printf("\nWhat the forks did and hold\n");
    printf("  %-46s %10.1f a fork\n", "faults", (double)sum.faults / FORKS);
    printf("  %-46s %10.1f KiB a fork (%u pages written)\n", "bytes copied",
           (double)sum.pages_copied * 4 / FORKS, WRITES);
    printf("  %-46s %10.1f copied, %.1f split of 2 MiB, %.1f of 1 GiB\n", "tables a fork",
           (double)sum.tables_copied / FORKS, (double)sum.blocks_split / FORKS,
           (double)sum.gigas_split / FORKS);
    printf("  %-46s %10.1f KiB (a sample: fork 0)\n", "unique memory",
           (double)usage.exclusive / 1024);
    printf("  %-46s %10.1f MiB\n", "shared memory", (double)usage.shared / 1048576);
    printf("  %-46s %10.1f KiB a fork, everything included\n", "taken from the pool",
           (double)(free_before - pool->free - pool->own.charged) * 4 / FORKS);
    printf("  %-46s %9.1f%% and %.1f%%\n", "memory of fork 0 under 1 GiB and 2 MiB leaves",
           100 * (double)usage.mapped[2] / all, 100 * (double)usage.mapped[1] / all);
}

/* The pool is consistent: every count, every write bit, every charge. */
static bool audit(struct pool *pool)
{
    struct audit_report report;
    uint64_t bytes = audit_scratch_bytes(pool);
    void *scratch = calloc(1, bytes);
    bool clean = scratch != NULL &&
                 pool_audit(host_ctx(0), pool, scratch, bytes, &report) == CLEAVE_OK &&
                 report.invariant == 0;
    free(scratch);
    if (!clean) {
        printf("  audit: I%u: %s\n", report.invariant, report.what);
    }
    return clean;
}

int main(void)
{
    struct pool *pool = core_machine(6 * BENCH_GIB, true);
    uint64_t start = bench_now();
    struct space *parent = make_template(pool);
    double made = bench_net(start, bench_now());
    uint64_t free_before = pool->free + pool->own.charged, checks = 0, tag = 0;

    printf(
        "A 4 GiB space, 3 GiB under 1 GiB leaves and 1 GiB under 2 MiB leaves, forked %u times\n\n",
        FORKS);
    row("template made and written", made, 0, NULL);
    double forked = fork_all(parent);
    row("1,000 forks, each with a base to reset to", forked, bench_median(step_ns, FORKS),
        "median fork");
    double wrote = write_all(&checks);
    row("64,000 pages written", wrote, wrote / FORKS / WRITES, "a write");
    bool clean = audit(pool);
    print_forks(pool, free_before);

    printf("\nAfterwards\n");
    for (unsigned i = 0; i < FORKS; i++) {
        start = bench_now();
        CORE_REQUIRE(space_reset(host_ctx(0), forks[i], NULL, 0));
        step_ns[i] = bench_net(start, bench_now());
    }
    row("a fork reset to its base", bench_median(step_ns, FORKS), 0, NULL);
    CORE_REQUIRE(space_read(host_ctx(0), forks[7], gpa(0), &tag, sizeof(tag), NULL));
    clean = clean && tag == 1 && audit(pool);
    start = bench_now();
    for (unsigned i = 0; i < FORKS; i++) {
        core_destroy(forks[i]);
    }
    row("1,000 forks destroyed", bench_net(start, bench_now()), 0, NULL);
    clean = clean && audit(pool) && pool->free + pool->own.charged == free_before;
    bool right = checks == (uint64_t)FORKS * WRITES;
    printf("  %-46s %s\n", "every fork read back what it wrote", right ? "yes" : "NO");
    printf("  %-46s %s\n", "audit clean, all memory back in the pool", clean ? "yes" : "NO");
    host_stop();
    return right && clean ? 0 : 1;
}
