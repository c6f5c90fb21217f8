/* SPDX-License-Identifier: BSD-2-Clause */
/* The children's limit is reached at each step of a fork in turn: all comes back each time. */
#include "guest.h"

const char guest_name[] = "undone";

#define CHILDREN 16u
#define RANGES 300u

static uint32_t ids[CHILDREN];

static uint64_t fork_limited(uint32_t id, uint64_t limit)
{
    struct cleave_fork fork = {.domain = id,
                               .count = CHILDREN,
                               .flags = guest_command[0] == 'b' ? CLEAVE_FORK_BASE : 0,
                               .limit = limit,
                               .domains = (uint64_t)ids};
    uint64_t status = CLEAVE(CLEAVE_OP_FORK, &fork);
    for (unsigned i = 0; i < CHILDREN && status == CLEAVE_OK; i++) {
        destroy(ids[i]);
    }
    return status;
}

void guest_story(void)
{
    struct cleave_create create = {.limit = UINT64_MAX, .vcpus = 2};
    for (unsigned i = 0; guest_command[i] != '\0'; i++) {
        create.name[i] = guest_command[i];
    }
    CHECK_EQ(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_OK);
    /* Many regions beside one that no child inherits: each child has a part of the tree alone. */
    for (uint64_t i = 0; i < RANGES; i++) {
        CHECK_EQ(map(create.domain, (64 + 2 * i) * MIB, PAGE, PRIVATE, RW, 0), CLEAVE_OK);
    }
    CHECK_EQ(map(create.domain, 32 * MIB, PAGE, ABSENT, RW, 0), CLEAVE_OK);
    CHECK_EQ(fork_limited(create.domain, UINT64_MAX), CLEAVE_OK); /* accounts are made */
    uint64_t limit = PAGE, free = stat_of(create.domain)->pool_free, status;
    while ((status = fork_limited(create.domain, limit)) != CLEAVE_OK) {
        CHECK_EQ(status, CLEAVE_QUOTA);
        CHECK_EQ(stat_of(create.domain)->pool_free, free);
        limit += PAGE;
    }
    say("%s: %lu pages are enough for a child", guest_command, limit / PAGE);
    CHECK(limit / PAGE > 8);
    audit_clean();
    destroy(create.domain);
}
