/* SPDX-License-Identifier: BSD-2-Clause */
/* Twenty guests take turns on few address-space identifiers: none sees another's bytes. */
#include "guest.h"

const char guest_name[] = "asids";

#define BASE (8 * MIB)

void guest_story(void)
{
    uint64_t mine = (uint64_t)(unsigned char)guest_command[0] << 32;
    for (unsigned round = 0; round < 60; round++) {
        for (uint64_t i = 0; i < 64; i++) {
            volatile uint64_t *at = word(BASE + i * PAGE);
            CHECK_EQ(*at, round == 0 ? 0 : mine + round - 1 + i);
            *at = mine + round + i;
        }
        yield();
    }
}
