/* SPDX-License-Identifier: BSD-2-Clause */
/* Figures of the booted hypervisor. */

#ifndef CLEAVE_TESTS_BENCH_HYPERVISOR_H
#define CLEAVE_TESTS_BENCH_HYPERVISOR_H

#include "bench.h"

/* Boots the hypervisor on QEMU twice and records what its operations cost in instructions. Needs
 * build/gcc-release/cleave.elf and build/guests/bench.elf, in the current directory. */
void bench_hypervisor(struct bench *b);

#endif
