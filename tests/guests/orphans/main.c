/* SPDX-License-Identifier: BSD-2-Clause */
/* A parent ends before its children, which go on; they end with the machine. */
#include "guest.h"

const char guest_name[] = "orphans";

#define CHILDREN 6u
#define SHARED_AT (8 * MIB)

void guest_story(void)
{
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, SHARED_AT, 2 * MIB, SHARED, RW, 0), CLEAVE_OK);
    uint32_t index = fork_self(CHILDREN, 0, NULL);
    if (index != 0) {
        for (;;) {
            audit_clean();
            word(SHARED_AT)[index] += 1;
        }
    }
    for (index = 1; index <= CHILDREN; index++) {
        while (word(SHARED_AT)[index] < 3) {
            yield();
        }
    }
}
