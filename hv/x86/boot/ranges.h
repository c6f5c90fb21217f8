/* SPDX-License-Identifier: BSD-2-Clause */
/* Sets of host-physical bytes as ascending ranges that do not touch each other. */
#ifndef X86_RANGES_H
#define X86_RANGES_H

#include "../platform.h"

struct ranges {
    struct boot_range *range; /* BOOT_RANGES_MAX of them */
    unsigned *count;
    uint64_t lost; /* bytes left out because there was no room for another range */
};

/* Adds [start, end), merging it with what it touches. Without room, the bytes are lost. */
void ranges_add(struct ranges *set, uint64_t start, uint64_t end);
/* Takes [start, end) out. Without room for the second half of a range that is cut in two, the
 * smaller half is lost: what was taken out never stays. */
void ranges_remove(struct ranges *set, uint64_t start, uint64_t end);
/* Whether all of [start, end), which is not empty, is in one range. */
bool ranges_hold(const struct boot_range *range, unsigned count, uint64_t start, uint64_t end);
uint64_t ranges_bytes(const struct boot_range *range, unsigned count);

#endif
