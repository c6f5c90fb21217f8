/* SPDX-License-Identifier: BSD-2-Clause */
/* A call whose result cannot be written has done nothing. One that is done and waits to write it is
 * not done again, by nobody: its forks and their resets write it too. */
#include "guest.h"

const char guest_name[] = "results";

#define COMMAND 0x830u /* x2APIC: interrupt command */
#define NMI_TO_FIRST 0x400u
#define SHARED_AT (40 * MIB) /* behind its RAM */
#define GUARD UINT64_C(0x5afe5afe5afe5afe)

#define MANY 2000u /* calls: time enough for another vcpu to do something */

#define READ_ONLY_AT (24 * MIB)

static void protect(unsigned rights)
{
    struct cleave_map map = {
        .domain = CLEAVE_DOMAIN_SELF, .at = READ_ONLY_AT, .size = PAGE, .rights = (uint8_t)rights};
    CHECK_EQ(CLEAVE(CLEAVE_OP_PROTECT, &map), CLEAVE_OK);
}

/* In memory that cannot be written: refused, and there is nothing under that name. */
static void nothing_is_made(void)
{
    struct cleave_create *create = (struct cleave_create *)READ_ONLY_AT;
    *create = (struct cleave_create){.name = "made", .limit = UINT64_MAX, .vcpus = 1};
    protect(R);
    CHECK_EQ(CLEAVE(CLEAVE_OP_CREATE, create), CLEAVE_FAULT);
    protect(RW);
    CHECK_EQ(CLEAVE(CLEAVE_OP_CREATE, create), CLEAVE_OK); /* not CLEAVE_EXISTS */
    destroy(create->domain);

    struct cleave_snapshot *snapshot = (struct cleave_snapshot *)READ_ONLY_AT;
    *snapshot = (struct cleave_snapshot){.domain = CLEAVE_DOMAIN_SELF, .name = "made"};
    protect(R);
    CHECK_EQ(CLEAVE(CLEAVE_OP_SNAPSHOT, snapshot), CLEAVE_FAULT);
    protect(RW);
    CHECK_EQ(CLEAVE(CLEAVE_OP_SNAPSHOT, snapshot), CLEAVE_OK);
    destroy(snapshot->snapshot);
}

/* The end of a child is told where it can be written. */
static void no_end_is_lost(void)
{
    struct cleave_wait *wait = (struct cleave_wait *)READ_ONLY_AT;
    uint32_t id;
    if (fork_self(1, 0, &id) == 1) {
        leave(3);
    }
    *wait = (struct cleave_wait){.domain = 0};
    protect(R);
    while (stat_of(id)->state != CLEAVE_STATE_ENDED) {
        yield();
    }
    CHECK_EQ(CLEAVE(CLEAVE_OP_WAIT, wait), CLEAVE_FAULT);
    protect(RW);
    CHECK_EQ(CLEAVE(CLEAVE_OP_WAIT, wait), CLEAVE_OK);
    CHECK_EQ(wait->which, id);
    CHECK_EQ(wait->code, 3);
    destroy(id);
}

/* --- Interrupted --------------------------------------------------------------------------------
 */

static volatile uint64_t is_child, nmis;
static struct {
    struct cleave_version version;
    uint64_t guard[32];
} answer;

/* A handler makes a call of its own. */
void guest_nmi(void)
{
    CHECK_EQ(CLEAVE(CLEAVE_OP_VERSION, &answer.version), CLEAVE_OK);
    nmis++;
}

/* The second vcpu, which writes no memory: its child has none left. */
static void sender(uint64_t argument)
{
    (void)argument;
    while (!is_child || *word(SHARED_AT) == 0) {
        relax();
    }
    __asm__ volatile("wrmsr" : : "c"(COMMAND), "a"(NMI_TO_FIRST), "d"(0) : "memory");
    for (;;) {
        relax();
    }
}

/* --- At the limit ----------------------------------------------------------------------------- */

/* The child: a snapshot of itself shares the page to which its result goes, so that this must be
 * copied, for which there may be nothing left. */
static _Noreturn void take_snapshot(void)
{
    static struct cleave_snapshot snapshot = {.domain = CLEAVE_DOMAIN_SELF, .name = "own"};
    is_child = 1;
    uint64_t status = CLEAVE(CLEAVE_OP_SNAPSHOT, &snapshot);
    for (unsigned i = 0; i < 32; i++) {
        CHECK_EQ(answer.guard[i], GUARD);
    }
    if (*word(SHARED_AT) != 0) {
        while (nmis == 0) {
            relax();
        }
        CHECK_EQ(nmis, 1);
        CHECK_EQ(answer.version.revision, CLEAVE_ABI_REVISION);
    }
    leave(status == CLEAVE_OK && snapshot.snapshot != 0 ? 9 : 100 + (uint32_t)status);
}

static bool has_snapshot(void)
{
    struct cleave_create create = {.name = "own", .limit = UINT64_MAX, .vcpus = 1};
    uint64_t status = CLEAVE(CLEAVE_OP_CREATE, &create);
    if (status == CLEAVE_OK) {
        destroy(create.domain);
    }
    return status == CLEAVE_EXISTS;
}

static uint32_t fork_of(uint32_t domain, uint64_t limit, uint32_t flags)
{
    uint32_t id = 0;
    struct cleave_fork fork = {
        .domain = domain, .count = 1, .flags = flags, .limit = limit, .domains = (uint64_t)&id};
    uint64_t index, status = hypercall_fork(&fork, &index);
    if (index != 0 && status == CLEAVE_OK) {
        take_snapshot();
    }
    return status == CLEAVE_OK ? id : 0;
}

/* A child that stands at its limit with the snapshot taken, or 0. */
static uint32_t child_at_limit(uint64_t limit)
{
    uint32_t id = fork_of(CLEAVE_DOMAIN_SELF, limit, 0);
    if (id == 0) {
        return 0;
    }
    uint32_t state = stat_of(id)->state;
    while (state != CLEAVE_STATE_STARVED && state != CLEAVE_STATE_ENDED) {
        yield();
        state = stat_of(id)->state;
    }
    if (state == CLEAVE_STATE_STARVED && has_snapshot()) {
        return id;
    }
    if (state ==
        CLEAVE_STATE_ENDED) { /* refused before it was begun; or a smaller limit would do */
        wait_for(id, 100 + CLEAVE_QUOTA);
    }
    destroy(id);
    return 0;
}

static void it_is_done_once(void)
{
    uint32_t id = 0;
    for (uint64_t pages = 1; id == 0; pages++) {
        id = child_at_limit(pages * PAGE);
    }
    uint32_t fork = fork_of(id, UINT64_MAX, CLEAVE_FORK_BASE);
    CHECK(fork != 0);
    wait_for(fork, 9);
    destroy(fork);
    /* From a record, and after a reset. */
    struct cleave_snapshot record = {.domain = id, .name = "record"};
    CHECK_EQ(CLEAVE(CLEAVE_OP_SNAPSHOT, &record), CLEAVE_OK);
    fork = fork_of(record.snapshot, UINT64_MAX, CLEAVE_FORK_PAUSED);
    CHECK(fork != 0);
    on_domain(CLEAVE_OP_RESET, fork);
    on_domain(CLEAVE_OP_UNPAUSE, fork);
    wait_for(fork, 9);
    destroy(fork);
    destroy(record.snapshot);
    /* An NMI comes while the result waits to be written: behind it, in whoever writes it. */
    *word(SHARED_AT) = 1;
    for (uint64_t start = cycles(); cycles() - start < 2000000000;) {
        yield();
    }
    fork = fork_of(id, UINT64_MAX, 0);
    CHECK(fork != 0);
    wait_for(fork, 9);
    destroy(fork);
    destroy(id);
}

void guest_story(void)
{
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, SHARED_AT, 2 * MIB, SHARED, RW, 0), CLEAVE_OK);
    for (unsigned i = 0; i < 32; i++) {
        answer.guard[i] = GUARD;
    }
    start_vcpu(1, sender, 0);
    nothing_is_made();
    no_end_is_lost();
    it_is_done_once();
    audit_clean();
}
