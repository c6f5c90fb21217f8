/* SPDX-License-Identifier: BSD-2-Clause */
/* Shared, wiped, absent and read-only ranges across a fork. */
#include "guest.h"

const char guest_name[] = "policies";

#define SHARED_AT (64 * MIB)
#define WIPE_AT (16 * MIB)
#define ABSENT_AT (20 * MIB)
#define READ_AT (24 * MIB)
#define SIZE (2 * MIB)

void guest_story(void)
{
    uint32_t id;
    uint8_t byte;
    const uint32_t self = CLEAVE_DOMAIN_SELF;

    CHECK_EQ(map(self, SHARED_AT, SIZE, SHARED, RW, 1), CLEAVE_OK);
    *word(READ_AT) = 4;
    CHECK_EQ(map(self, WIPE_AT, SIZE, WIPE, RW, 1), CLEAVE_OK);
    CHECK_EQ(map(self, ABSENT_AT, SIZE, ABSENT, RW, 1), CLEAVE_OK);
    CHECK_EQ(map(self, READ_AT, SIZE, READ_ONLY, R, 1), CLEAVE_OK);
    *word(SHARED_AT) = 1;
    *word(WIPE_AT) = 2;
    *word(ABSENT_AT) = 3;
    CHECK(!try_store((volatile void *)READ_AT, 1));
    CHECK_EQ(last_error().status, CLEAVE_FAULT);
    CHECK_EQ(last_error().value, READ_AT);
    if (fork_self(1, 0, &id) == 1) {
        CHECK_EQ(*word(SHARED_AT), 1);
        CHECK_EQ(*word(WIPE_AT), 0);
        CHECK(!try_load((volatile void *)ABSENT_AT, &byte));
        CHECK_EQ(last_error().value, ABSENT_AT);
        CHECK_EQ(*word(READ_AT), 4);
        CHECK(!try_store((volatile void *)READ_AT, 1));
        *word(WIPE_AT) = 5;
        *word(SHARED_AT) = 6;
        while (*word(SHARED_AT) == 6) {
            yield(); /* until the parent has seen it and answers */
        }
        CHECK_EQ(*word(SHARED_AT), 7);
        leave(4);
    }
    while (*word(SHARED_AT) != 6) {
        yield();
    }
    *word(SHARED_AT) = 7;
    CHECK_EQ(wait_for(id, 4), id);
    CHECK_EQ(*word(WIPE_AT), 2);
    CHECK_EQ(*word(ABSENT_AT), 3);
    CHECK_EQ(*word(READ_AT), 4);
    CHECK(!try_load((volatile void *)(128 * MIB), &byte)); /* no memory at all */
    destroy(id);
    audit_clean();
}
