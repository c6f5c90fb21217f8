/* SPDX-License-Identifier: BSD-2-Clause */
/* A pool that is empty pauses the domain that asked, and no other; when memory comes back it goes
 * on. */
#include "guest.h"

const char guest_name[] = "exhaust";

#define BASE (8 * MIB)

static _Noreturn void eat(void)
{
    for (uint64_t at = BASE; at < guest_memory; at += PAGE) {
        *word(at) = at; /* some day this waits */
    }
    say("ate all of its memory: the pool was not small enough");
    leave(1);
}

/* A child eats until it starves; its parent sees that, destroys it and has memory again. */
static void greedy(void)
{
    uint32_t id, second;
    if (fork_self(1, 0, &id) == 1) {
        eat();
    }
    while (stat_of(id)->state != CLEAVE_STATE_STARVED) {
        yield();
    }
    /* A second one that wants a reservation is refused at once. */
    struct cleave_fork fork = {.domain = CLEAVE_DOMAIN_SELF,
                               .count = 1,
                               .flags = CLEAVE_FORK_RESERVE,
                               .limit = UINT64_MAX,
                               .domains = (uint64_t)&second};
    uint64_t status = CLEAVE(CLEAVE_OP_FORK, &fork);
    CHECK(status == CLEAVE_RESERVE || status == CLEAVE_NO_MEMORY);
    audit_clean();
    uint64_t before = stat_of(id)->pool_free;
    destroy(id);
    CHECK(stat_of(CLEAVE_DOMAIN_SELF)->pool_free > before + 4 * MIB);
    for (uint64_t at = BASE; at < BASE + 2 * MIB; at += PAGE) {
        *word(at) = at;
    }
    audit_clean();
}

static void modest(void)
{
    for (unsigned round = 0; round < 50; round++) {
        uint32_t id;
        *word(BASE) = round;
        if (fork_self(1, CLEAVE_FORK_RESERVE, &id) == 1) {
            *word(BASE) += 1;
            CHECK_EQ(*word(BASE), round + 1);
            leave(5);
        }
        CHECK_EQ(wait_for(id, 5), id);
        destroy(id);
        CHECK_EQ(*word(BASE), round);
    }
}

void guest_story(void)
{
    if (guest_command[0] == 'g') {
        greedy();
    } else {
        modest();
    }
}
