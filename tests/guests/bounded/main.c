/* SPDX-License-Identifier: BSD-2-Clause */
/* A helper makes a domain and maps much into it, in many steps. Its parent stops it in the middle
 * of that, ends it or resets it, and then changes the domain's memory itself. */
#include "guest.h"

const char guest_name[] = "bounded";

#define SHARED_AT (32 * MIB)
#define SMALL_AT UINT64_C(0)
#define LARGE_AT (1 * GIB)
#define LARGE (64 * MIB)

enum { TARGET, ROUNDS }; /* words of shared memory */

/* The helper, for ever. */
static void helper(void)
{
    struct cleave_create create = {.name = "target", .limit = UINT64_MAX, .vcpus = 1};
    CHECK_EQ(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_OK);
    CHECK_EQ(map(create.domain, SMALL_AT, PAGE, PRIVATE, RW, 0), CLEAVE_OK);
    word(SHARED_AT)[TARGET] = create.domain;
    for (;;) {
        struct cleave_map large = {.domain = create.domain, .at = LARGE_AT, .size = LARGE};
        word(SHARED_AT)[ROUNDS]++;
        CHECK_EQ(map(create.domain, LARGE_AT, LARGE, SHARED, RW, 0), CLEAVE_OK);
        CHECK_EQ(CLEAVE(CLEAVE_OP_UNMAP, &large), CLEAVE_OK);
    }
}

static uint64_t protect(uint32_t domain, unsigned rights)
{
    struct cleave_map small = {.domain = domain, .at = SMALL_AT, .size = PAGE, .rights = rights};
    return CLEAVE(CLEAVE_OP_PROTECT, &small);
}

/* Pauses the helper where it has left the target's memory half-way. */
static void stop_in_the_middle(uint32_t id, uint32_t target)
{
    for (;;) {
        uint64_t rounds = word(SHARED_AT)[ROUNDS];
        while (word(SHARED_AT)[ROUNDS] == rounds) {
            yield();
        }
        on_domain(CLEAVE_OP_PAUSE, id);
        uint64_t status = protect(target, R);
        if (status == CLEAVE_BUSY) {
            return;
        }
        CHECK_EQ(status, CLEAVE_OK);
        on_domain(CLEAVE_OP_UNPAUSE, id);
    }
}

static void callers(void)
{
    uint32_t id;
    word(SHARED_AT)[TARGET] = word(SHARED_AT)[ROUNDS] = 0;
    if (fork_self(1, CLEAVE_FORK_BASE, &id) == 1) {
        helper();
    }
    while (word(SHARED_AT)[TARGET] == 0) {
        yield();
    }
    uint32_t target = (uint32_t)word(SHARED_AT)[TARGET];
    stop_in_the_middle(id, target);
    CHECK_EQ(protect(target, RW), CLEAVE_BUSY); /* it may go on yet */
    on_domain(CLEAVE_OP_RESET, id);             /* from its beginning, where there was no target */
    CHECK_EQ(protect(target, RW), CLEAVE_OK);
    destroy(target);
    word(SHARED_AT)[TARGET] = 0;
    on_domain(CLEAVE_OP_UNPAUSE, id);
    while (word(SHARED_AT)[TARGET] == 0) {
        yield();
    }
    target = (uint32_t)word(SHARED_AT)[TARGET];
    stop_in_the_middle(id, target);
    destroy(id);
    CHECK_EQ(protect(target, RW), CLEAVE_OK);
    destroy(target);
}

/* More shared pages than one step of a call takes, and filled by it anyway. */
static void shared_and_populated(void)
{
    struct cleave_map large = {.domain = CLEAVE_DOMAIN_SELF,
                               .at = LARGE_AT,
                               .size = LARGE,
                               .policy = SHARED,
                               .rights = RW,
                               .flags = CLEAVE_MAP_POPULATE};
    CHECK_EQ(CLEAVE(CLEAVE_OP_MAP, &large), CLEAVE_OK);
    CHECK_EQ(lookup(LARGE_AT + LARGE - PAGE).kind, 2);
    CHECK_EQ(CLEAVE(CLEAVE_OP_UNMAP, &large), CLEAVE_OK);
}

/* How long `AUDITS` audits take, each of them begun when `rest` cycles have passed. */
#define AUDITS 5u
static uint64_t audits_after(uint64_t rest)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < AUDITS; i++) {
        uint64_t start = cycles();
        while (cycles() - start < rest) {
            relax();
        }
        start = cycles();
        audit_clean();
        sum += cycles() - start;
    }
    return sum;
}

/* After an audit the next one waits for as long as that took; a loaded computer may hide it. */
static void audits(void)
{
    for (unsigned tries = 0; tries < 10; tries++) {
        uint64_t rested = audits_after(3 * audits_after(0) / AUDITS);
        if (audits_after(0) > rested + rested / 2) {
            return;
        }
    }
    CHECK(!"audits in a row take more time");
}

void guest_story(void)
{
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, SHARED_AT, 2 * MIB, SHARED, RW, 0), CLEAVE_OK);
    callers();
    shared_and_populated();
    audits();
}
