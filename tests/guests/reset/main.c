/* SPDX-License-Identifier: BSD-2-Clause */
/* Snapshot, restore, and a thousand resets: each run finds the snapshot's memory and registers. */
#include "guest.h"

const char guest_name[] = "reset";

#define BASE (8 * MIB)
#define PAGES 16u
#define RESETS 1000u

static uint64_t page_of(unsigned i) { return BASE + (uint64_t)i * 65 * PAGE; }

static uint64_t lookup_status(uint64_t at)
{
    struct cleave_lookup lookup = {.domain = CLEAVE_DOMAIN_SELF, .at = at};
    return CLEAVE(CLEAVE_OP_LOOKUP, &lookup);
}

void guest_story(void)
{
    struct cleave_snapshot snapshot = {.domain = CLEAVE_DOMAIN_SELF, .name = "template"};
    struct cleave_fork fork = {.count = 1, .limit = UINT64_MAX};
    static volatile uint64_t is_parent;
    static uint32_t id;

    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, 32 * MIB, 2 * MIB, SHARED, RW, 0), CLEAVE_OK);
    for (unsigned i = 0; i < PAGES; i++) {
        *word(page_of(i)) = i + 1;
    }
    volatile uint64_t *runs = word(32 * MIB);
    CHECK_EQ(CLEAVE(CLEAVE_OP_SNAPSHOT, &snapshot), CLEAVE_OK);
    if (runs[1] != 0) { /* set in shared memory after the snapshot: this is a restored one */
        for (unsigned i = 0; i < PAGES; i++) {
            CHECK_EQ(*word(page_of(i)), i + 1);
            *word(page_of(i)) = 0;
        }
        CHECK_EQ(is_parent, 0);
        CHECK_EQ(last_error().status, CLEAVE_OK); /* nothing of an earlier run */
        CHECK_EQ(lookup_status(UINT64_C(1) << 50), CLEAVE_RANGE);
        CHECK_EQ(last_error().status, CLEAVE_RANGE);
        runs[0] += 1;
        for (;;) {
            yield();
        }
    }
    is_parent = 1;
    runs[1] = 1;
    fork.domain = snapshot.snapshot;
    fork.domains = (uint64_t)&id;
    CHECK_EQ(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_OK);
    for (uint64_t n = 1; n <= RESETS; n++) {
        while (runs[0] < n) {
            yield();
        }
        CHECK_EQ(runs[0], n);
        on_domain(CLEAVE_OP_RESET, id);
    }
    say("%u resets, %lu faults, %lu KiB copied", RESETS, stat_of(id)->faults,
        stat_of(id)->copied / KIB);
    audit_clean();
    destroy(id);
    destroy(snapshot.snapshot);
    audit_clean();
}
