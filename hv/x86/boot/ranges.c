/* SPDX-License-Identifier: BSD-2-Clause */
/* Sets of ranges; see ranges.h. No data of its own. */
#include "ranges.h"

static void insert(struct ranges *set, unsigned at, uint64_t start, uint64_t end)
{
    for (unsigned i = *set->count; i > at; i--) {
        set->range[i] = set->range[i - 1];
    }
    set->range[at] = (struct boot_range){start, end};
    ++*set->count;
}

static void erase(struct ranges *set, unsigned at)
{
    --*set->count;
    for (unsigned i = at; i < *set->count; i++) {
        set->range[i] = set->range[i + 1];
    }
}

void ranges_add(struct ranges *set, uint64_t start, uint64_t end)
{
    unsigned at = 0;
    if (start >= end) {
        return;
    }
    while (at < *set->count && set->range[at].end < start) {
        at++;
    }
    /* Swallows each range that touches. */
    while (at < *set->count && set->range[at].start <= end) {
        start = start < set->range[at].start ? start : set->range[at].start;
        end = end > set->range[at].end ? end : set->range[at].end;
        erase(set, at);
    }
    if (*set->count == BOOT_RANGES_MAX) {
        set->lost += end - start;
        return;
    }
    insert(set, at, start, end);
}

void ranges_remove(struct ranges *set, uint64_t start, uint64_t end)
{
    for (unsigned at = 0; start < end && at < *set->count;) {
        struct boot_range *r = &set->range[at];
        if (r->end <= start || r->start >= end) {
            at++;
        } else if (r->start >= start && r->end <= end) {
            erase(set, at);
        } else if (r->start >= start) {
            r->start = end;
        } else if (r->end <= end) {
            r->end = start;
        } else if (*set->count < BOOT_RANGES_MAX) {
            insert(set, at + 1, end, r->end);
            r->end = start;
        } else if (start - r->start < r->end - end) {
            set->lost += start - r->start;
            r->start = end;
        } else {
            set->lost += r->end - end;
            r->end = start;
        }
    }
}

bool ranges_hold(const struct boot_range *range, unsigned count, uint64_t start, uint64_t end)
{
    for (unsigned i = 0; i < count; i++) {
        if (range[i].start <= start && end <= range[i].end) {
            return start < end;
        }
    }
    return false;
}

uint64_t ranges_bytes(const struct boot_range *range, unsigned count)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < count; i++) {
        bytes += range[i].end - range[i].start;
    }
    return bytes;
}
