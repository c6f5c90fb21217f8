/* SPDX-License-Identifier: BSD-2-Clause */
/* A child that writes every page of a 2 MiB block gets one 2 MiB leaf again. */
#include "guest.h"

const char guest_name[] = "collapse";

#define AT (16 * MIB)

void guest_story(void)
{
    uint32_t id;
    for (uint64_t at = AT; at < AT + 2 * MIB; at += PAGE) {
        *word(at) = at;
    }
    CHECK_EQ(lookup(AT).order, 1);
    if (fork_self(1, 0, &id) == 1) {
        struct cleave_collapse collapse = {.domain = CLEAVE_DOMAIN_SELF, .order = 1, .at = AT};
        *word(AT + 5 * PAGE) = 1;
        CHECK_EQ(lookup(AT + 5 * PAGE).order, 0);
        CHECK_EQ(lookup(AT).order, 0);
        for (uint64_t at = AT; at < AT + 2 * MIB; at += 2 * PAGE) {
            *word(at) = at + 1;
        }
        uint64_t status = CLEAVE(CLEAVE_OP_COLLAPSE, &collapse);
        CHECK(status == CLEAVE_OK || status == CLEAVE_NOT_MAPPED); /* a fault was quicker */
        CHECK_EQ(lookup(AT).order, 1);
        CHECK(lookup(AT).exclusive);
        for (uint64_t at = AT; at < AT + 2 * MIB; at += PAGE) {
            uint64_t expected = at == AT + 5 * PAGE ? 1 : at + (at / PAGE % 2 == 0);
            CHECK_EQ(*word(at), expected);
        }
        audit_clean();
        leave(8);
    }
    CHECK_EQ(wait_for(id, 8), id);
    say("the child copied %lu KiB, %lu blocks collapsed", stat_of(id)->copied / KIB,
        stat_of(id)->collapsed);
    for (uint64_t at = AT; at < AT + 2 * MIB; at += PAGE) {
        CHECK_EQ(*word(at), at);
    }
    destroy(id);
    audit_clean();
}
