/* SPDX-License-Identifier: BSD-2-Clause */
/* One vcpu reads a page in a loop without leaving the guest while the other breaks its copy: it
 * must see the new frame once the writer has gone on. */
#include "guest.h"

const char guest_name[] = "flush";

#define AT (16 * MIB)
#define ROUNDS 200u

static volatile uint64_t seen, backwards;

static void reader(uint64_t argument)
{
    uint64_t last = 0;
    for (;;) {
        uint64_t now = *word(argument);
        backwards += now < last;
        last = now;
        seen = now;
    }
}

void guest_story(void)
{
    *word(AT) = 1;
    start_vcpu(1, reader, AT);
    while (seen != 1) {
        relax();
    }
    for (uint64_t round = 2; round < ROUNDS; round++) {
        uint32_t id;
        if (fork_self(1, CLEAVE_FORK_PAUSED, &id) == 1) {
            leave(9); /* it stays paused until it is destroyed */
        }
        CHECK_EQ(*word(AT), round - 1);
        *word(AT) = round; /* breaks the copy that the child shares */
        uint64_t start = cycles();
        while (seen != round) {
            CHECK(cycles() - start < UINT64_C(20000000000)); /* the reader is blind */
        }
        destroy(id);
    }
    CHECK_EQ(backwards, 0);
    audit_clean();
}
