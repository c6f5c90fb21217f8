/* SPDX-License-Identifier: BSD-2-Clause */
/* What the benchmarks of the core and the scenario share: machines, spaces, and writes to them. */
#ifndef CLEAVE_TESTS_BENCH_CORE_H
#define CLEAVE_TESTS_BENCH_CORE_H

#include "bench.h"
#include "fork.h"
#include "host.h"

/* Ends the program with the call's name and the core's own error when `status` is not CLEAVE_OK. */
void core_require(enum cleave_status status, const char *call);
#define CORE_REQUIRE(call) core_require(call, #call)

/* A machine with one pool of `bytes`. With `lazy`, only what is used of it needs memory of this
 * computer, 4 KiB at a time, and the first use of each page costs what Linux takes for it;
 * otherwise it lies under huge pages. */
struct pool *core_machine(uint64_t bytes, bool lazy);
/* A space with private memory [0, bytes) all under leaves of `order`. */
struct space *core_space(struct pool *pool, uint64_t bytes, unsigned order);
/* Writes into every page, so that the computer's memory is really there. */
void core_touch(struct space *space, uint64_t bytes);
/* Makes this computer give the memory behind all that is free in the pool: copies go to random
 * blocks of it, and a first use of one would be timed with them. */
void core_touch_free(struct pool *pool);
/* One child without a base, a quota or a reservation. */
struct space *core_fork(struct space *parent);
void core_destroy(struct space *space);
/* Nanoseconds of one write fault at `at`. */
double core_fault(struct space *space, gpa_t at);
/* Tables that this space alone holds. */
uint64_t core_private_tables(struct space *space);

/* The parts of bench_core(). */
void core_bench_fork(struct bench *b);
void core_bench_write(struct bench *b);
void core_bench_reset(struct bench *b);
void core_bench_amplification(struct bench *b);
void core_bench_threads(struct bench *b);

#endif
