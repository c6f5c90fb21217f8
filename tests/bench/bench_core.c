/* SPDX-License-Identifier: BSD-2-Clause */
/* The benchmarks of the memory core on the hosted port, in the order they run. */
#include "core.h"

void bench_core(struct bench *b)
{
    core_bench_fork(b);
    core_bench_write(b);
    core_bench_reset(b);
    core_bench_amplification(b);
    core_bench_threads(b);
}
