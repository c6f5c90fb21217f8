/* SPDX-License-Identifier: BSD-2-Clause */
/* One vcpu writes while the other forks: the child has one instant of both. */
#include "guest.h"

const char guest_name[] = "vcpus";

#define FIRST (16 * MIB)
#define SECOND (24 * MIB)
#define ROUNDS 20u

static volatile uint64_t stop;

/* FIRST is never behind SECOND, nor more than one ahead, at any instant. */
static void writer(uint64_t argument)
{
    (void)argument;
    for (uint64_t n = 1; stop == 0; n++) {
        for (unsigned i = 0; i < 8; i++) {
            *word(FIRST + i * 300 * KIB) = n;
            *word(SECOND + i * 300 * KIB) = n;
        }
    }
    stop = 2;
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

/* A fork's vcpu that halts, as in the parent, was started. */
static void a_halted_one_is_started(void)
{
    struct cleave_start start = {.vcpu = 1, .entry = (uint32_t)(uint64_t)guest_vcpu_entry};
    CHECK_EQ(fork_self(1, CLEAVE_FORK_PAUSED, &start.domain), 0);
    CHECK_EQ(CLEAVE(CLEAVE_OP_START, &start), CLEAVE_EXISTS);
    destroy(start.domain);
}

void guest_story(void)
{
    start_vcpu(1, writer, 0);
    while (*word(SECOND) < 100) {
        relax();
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t id;
        uint64_t seen = *word(SECOND);
        if (fork_self(1, 0, &id) == 1) {
            stop = 1; /* this child's own writer */
            while (stop != 2) {
                relax();
            }
            for (unsigned i = 0; i < 8; i++) {
                CHECK_EQ(*word(FIRST + i * 300 * KIB), *word(SECOND + i * 300 * KIB));
                CHECK(*word(FIRST + i * 300 * KIB) >= seen);
            }
            leave(3);
        }
        CHECK_EQ(wait_for(id, 3), id);
        destroy(id);
        uint64_t after = *word(SECOND);
        while (*word(SECOND) == after) {
            relax(); /* the parent's writer goes on */
        }
    }
    stop = 1;
    while (stop != 2) {
        relax();
    }
    a_halted_one_is_started();
    audit_clean();
}
