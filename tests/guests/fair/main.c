/* SPDX-License-Identifier: BSD-2-Clause */
/* Eight domains that never give up a CPU all get their turns. The bound is wide: an emulator's TSC
 * goes on while its own computer does something else. */
#include "guest.h"

const char guest_name[] = "fair";

#define CHILDREN 8u
#define COUNTERS (32 * MIB)

void guest_story(void)
{
    struct cleave_version version = {0};
    uint32_t ids[CHILDREN];
    uint64_t least = UINT64_MAX, most = 0;

    CHECK_EQ(CLEAVE(CLEAVE_OP_VERSION, &version), CLEAVE_OK);
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, COUNTERS, 2 * MIB, SHARED, RW, 0), CLEAVE_OK);
    uint32_t index = fork_self(CHILDREN, 0, ids);
    if (index != 0) {
        for (;;) {
            *word(COUNTERS + index * PAGE) += 1;
        }
    }
    for (uint64_t begin = cycles(); cycles() - begin < 2 * version.tsc_per_second;) {
        yield();
    }
    for (unsigned i = 0; i < CHILDREN; i++) {
        on_domain(CLEAVE_OP_PAUSE, ids[i]);
    }
    for (unsigned i = 1; i <= CHILDREN; i++) {
        uint64_t count = *word(COUNTERS + i * PAGE);
        least = count < least ? count : least;
        most = count > most ? count : most;
    }
    say("between %lu and %lu turns of the loop in two seconds", least, most);
    CHECK(least > 0);
    CHECK(most < 4 * least);
    for (unsigned i = 0; i < CHILDREN; i++) {
        destroy(ids[i]);
    }
    audit_clean();
}
