/* SPDX-License-Identifier: BSD-2-Clause */
/* The numbers of randomized tests: the same on every machine. */
#ifndef RANDOM_H
#define RANDOM_H

#include <stdint.h>

/* Next number of the sequence that `*state` is in (splitmix64); `*state` starts as a seed. */
uint64_t test_random(uint64_t *state);

#endif
