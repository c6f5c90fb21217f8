/* SPDX-License-Identifier: BSD-2-Clause */
/* A 1 GiB leaf stays one while it is shared, is split where a fork writes, and reads back whole. */
#include "guest.h"

const char guest_name[] = "giant";

#define AT GIB
#define STEP (8 * MIB)

void guest_story(void)
{
    uint32_t id;
    struct cleave_map arguments = {.domain = CLEAVE_DOMAIN_SELF,
                                   .policy = PRIVATE,
                                   .rights = RW,
                                   .order = 2,
                                   .at = AT,
                                   .size = GIB,
                                   .flags = CLEAVE_MAP_POPULATE};
    CHECK_EQ(CLEAVE(CLEAVE_OP_MAP, &arguments), CLEAVE_OK);
    CHECK_EQ(lookup(AT).order, 2);
    for (uint64_t at = AT; at < AT + GIB; at += STEP) {
        CHECK_EQ(*word(at), 0);
        *word(at) = at;
    }
    if (fork_self(1, 0, &id) == 1) {
        CHECK_EQ(lookup(AT).order, 2); /* still one leaf, shared */
        *word(AT + 3 * STEP) = 1;
        CHECK_EQ(lookup(AT + 3 * STEP).order, 0);
        CHECK_EQ(lookup(AT + 4 * STEP).order, 1); /* its neighbours are 2 MiB, not less */
        for (uint64_t at = AT; at < AT + GIB; at += STEP) {
            CHECK_EQ(*word(at), at == AT + 3 * STEP ? 1 : at);
        }
        leave(6);
    }
    CHECK_EQ(wait_for(id, 6), id);
    CHECK_EQ(lookup(AT).order, 2);
    say("the child copied %lu KiB of 1 GiB, %lu splits", stat_of(id)->copied / KIB,
        stat_of(id)->blocks_split);
    CHECK(stat_of(id)->copied <= 512 * KIB);
    destroy(id);
    *word(AT + 3 * STEP) = 2; /* alone again: no copy, no split */
    CHECK_EQ(lookup(AT + 3 * STEP).order, 2);
    for (uint64_t at = AT; at < AT + GIB; at += STEP) {
        CHECK_EQ(*word(at), at == AT + 3 * STEP ? 2 : at);
    }
    audit_clean();
}
