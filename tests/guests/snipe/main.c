/* SPDX-License-Identifier: BSD-2-Clause */
/* One vcpu forks a template while two others act on the children, whose ids they know before. */
#include "guest.h"

const char guest_name[] = "snipe";

#define CHILDREN 16u
#define ROUNDS 30u

static volatile uint32_t ids[CHILDREN];
static volatile uint64_t stop, stopped;

/* Whoever finds a child finds it whole: paused, as the fork was asked for. */
static void destroys(uint32_t id)
{
    struct cleave_stat stat = {.domain = id};
    if (CLEAVE(CLEAVE_OP_STAT, &stat) == CLEAVE_OK) {
        CHECK_EQ(stat.state, CLEAVE_STATE_PAUSED);
        destroy(id);
    }
}

static void starts(uint32_t id)
{
    struct cleave_start start = {.domain = id, .entry = 0x1000};
    (void)CLEAVE(CLEAVE_OP_START, &start);
}

static void sniper(uint64_t function)
{
    while (stop == 0) {
        for (uint32_t i = 0; i < CHILDREN; i++) {
            ((void (*)(uint32_t))function)(ids[i]);
        }
    }
    __atomic_fetch_add(&stopped, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        yield();
    }
}

void guest_story(void)
{
    struct cleave_create create = {.name = "template", .limit = UINT64_MAX, .vcpus = 2};
    struct cleave_fork fork = {.count = CHILDREN, .flags = CLEAVE_FORK_PAUSED, .limit = UINT64_MAX};

    CHECK_EQ(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_OK);
    CHECK_EQ(map(create.domain, 0, MIB, PRIVATE, RWX, 0), CLEAVE_OK);
    struct cleave_start start = {.domain = create.domain, .vcpu = 1, .entry = 0x1000};
    CHECK_EQ(CLEAVE(CLEAVE_OP_PAUSE, &(struct cleave_domain){.domain = create.domain}), CLEAVE_OK);
    CHECK_EQ(CLEAVE(CLEAVE_OP_START, &start), CLEAVE_OK);
    start_vcpu(1, sniper, (uint64_t)destroys);
    start_vcpu(2, sniper, (uint64_t)starts);
    fork.domain = create.domain;
    fork.domains = (uint64_t)ids;
    for (unsigned round = 0; round < ROUNDS; round++) {
        CHECK_EQ(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_OK);
        for (unsigned i = 0; i < CHILDREN; i++) {
            struct cleave_stat stat = {.domain = ids[i]};
            while (CLEAVE(CLEAVE_OP_STAT, &stat) != CLEAVE_NO_CAP) {
                relax();
            }
        }
    }
    stop = 1;
    while (stopped != 2) {
        relax();
    }
    audit_clean();
    destroy(create.domain);
}
