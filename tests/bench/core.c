/* SPDX-License-Identifier: BSD-2-Clause */
/* Machines, spaces and writes for the benchmarks of the core and for the scenario. */
#include "core.h"

#include <stdio.h>
#include <stdlib.h>

void core_require(enum cleave_status status, const char *call)
{
    const struct mm_error *error = &host_ctx(0)->error;
    if (status != CLEAVE_OK) {
        fprintf(stderr, "bench: %s: status %d, %s = %llu\n", call, (int)status,
                error->argument != NULL ? error->argument : "-", (unsigned long long)error->value);
        exit(1);
    }
}

struct pool *core_machine(uint64_t bytes, bool lazy)
{
    host_start(&(struct host_options){.frames = (bytes >> PAGE_SHIFT) + 2 * level_pages(2),
                                      .cpus = 2,
                                      .zero_by_kernel = lazy,
                                      .backing_huge = !lazy});
    return host_pool(bytes);
}

struct space *core_space(struct pool *pool, uint64_t bytes, unsigned order)
{
    const struct region region = {
        .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = (uint8_t)order};
    struct space *space;

    CORE_REQUIRE(space_create(host_ctx(0), pool, UINT64_MAX, &space));
    CORE_REQUIRE(space_set_region(host_ctx(0), space, gpa(0), bytes, &region));
    CORE_REQUIRE(space_populate(host_ctx(0), space, gpa(0), bytes));
    return space;
}

void core_touch(struct space *space, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += PAGE_SIZE) {
        uint64_t done;
        CORE_REQUIRE(space_write(host_ctx(0), space, gpa(at), &at, sizeof(at), NULL, &done));
    }
}

void core_touch_free(struct pool *pool)
{
    const uint64_t block = 2 * BENCH_MIB, spare = 256 * BENCH_MIB;
    uint64_t bytes = ((pool->free << PAGE_SHIFT) - spare) / block * block;
    core_destroy(core_space(pool, bytes, 1));
}

struct space *core_fork(struct space *parent)
{
    const struct fork_options options = {.limit = UINT64_MAX};
    struct space *child;
    CORE_REQUIRE(space_fork(host_ctx(0), parent, 1, &options, &child));
    return child;
}

void core_destroy(struct space *space) { CORE_REQUIRE(space_destroy(host_ctx(0), space)); }

double core_fault(struct space *space, gpa_t at)
{
    uint64_t start = bench_now();
    enum cleave_status status = space_fault(host_ctx(0), space, at, ACCESS_WRITE, NULL);
    uint64_t end = bench_now();
    CORE_REQUIRE(status);
    return bench_net(start, end);
}

uint64_t core_private_tables(struct space *space)
{
    struct space_usage usage = {.tables = 0};
    gfn_t from = gfn(0);
    CORE_REQUIRE(space_usage(host_ctx(0), space, &from, &usage));
    return usage.tables_exclusive;
}
