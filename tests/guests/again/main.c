/* SPDX-License-Identifier: BSD-2-Clause */
/* A reset takes every vcpu back: one that was off is off, one that halted halts. */
#include "guest.h"

const char guest_name[] = "again";

#define SHARED_AT (32 * MIB)
#define RESETS 20u

enum { RUNS, HALTS, WOKEN }; /* words of shared memory */

static void halts(uint64_t argument)
{
    word(SHARED_AT)[HALTS] = argument;
    __asm__ volatile("cli; hlt");
    word(SHARED_AT)[WOKEN] = argument;
}

static void runs(uint64_t argument)
{
    word(SHARED_AT)[RUNS] += argument;
    for (;;) {
        relax();
    }
}

static void vcpus(void)
{
    uint32_t id;
    start_vcpu(2, halts, 1);
    while (word(SHARED_AT)[HALTS] != 1) {
        yield();
    }
    for (unsigned i = 0; i < 50; i++) {
        yield(); /* it halts */
    }
    if (fork_self(1, CLEAVE_FORK_BASE, &id) == 1) {
        start_vcpu(1, runs, 1); /* fails when it runs from before a reset */
        for (;;) {
            yield();
        }
    }
    for (uint64_t n = 1; n <= RESETS; n++) {
        while (word(SHARED_AT)[RUNS] < n) {
            CHECK_EQ(stat_of(id)->state, CLEAVE_STATE_RUNNING);
            yield();
        }
        CHECK_EQ(word(SHARED_AT)[RUNS], n);
        CHECK_EQ(word(SHARED_AT)[WOKEN], 0);
        on_domain(CLEAVE_OP_RESET, id);
    }
    destroy(id);
}

void guest_story(void)
{
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, SHARED_AT, 2 * MIB, SHARED, RW, 0), CLEAVE_OK);
    vcpus();
    audit_clean();
}
