/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The core beside the naive reference on the real geometry: content by a tag of 64 bits per 4 KiB
 * page; what a step touched is compared in all spaces after it, everything each 1,000 steps. A
 * whole check runs 10^5 steps, spread over its builds; CLEAVE_LONG ten times as many.
 */
#include "driver.h"
#include "test.h"

static const struct spec_shard shards[] = {
    {"ept", 50, 2500, false, true, 1536, 1700, 6, false, 4, 0},
    {"npt", 50, 2500, true, false, 96, 200, 6, false, 4, 0},
};

TEST_TABLE(shard, shards) { spec_run(row, 1000); }
