/* SPDX-License-Identifier: BSD-2-Clause */
/* The TSC of a domain stands still while it is paused, was not restored yet, or goes back with a
 * reset; of a child that was asked to, it goes on. It never goes back otherwise. */
#include "guest.h"

const char guest_name[] = "clock";

#define AT (32 * MIB) /* shared memory */

/* What a child writes there. */
struct told {
    volatile uint64_t first; /* TSC of its first look; 0: none since the parent cleared it */
    volatile uint64_t last;
};
static struct told *const told = (struct told *)AT;

/* Long enough that what a child waits for a CPU is little beside it. */
static uint64_t while_long(void) { return guest_amd ? 2000000000 : 100000000; }

static void wait_long(void)
{
    uint64_t began = cycles();
    while (cycles() - began < while_long()) {
        relax();
    }
}

_Noreturn static void look_at_clock(void)
{
    uint64_t before = 0;
    for (;;) {
        uint64_t now = cycles();
        CHECK(now > before);
        before = now;
        told->last = now;
        if (told->first == 0) {
            told->first = now;
        }
        yield();
    }
}

static void await_first(void)
{
    while (told->first == 0) {
        yield();
    }
}

static uint32_t child_of(uint32_t domain, uint32_t flags)
{
    static uint32_t id;
    static struct cleave_fork fork;
    uint64_t index;
    fork = (struct cleave_fork){.domain = domain,
                                .count = 1,
                                .flags = flags,
                                .limit = UINT64_MAX,
                                .domains = (uint64_t)&id};
    CHECK_EQ(hypercall_fork(&fork, &index), CLEAVE_OK);
    if (index != 0) {
        look_at_clock();
    }
    return id;
}

/* How far the child's clock came from `since` to its first look, with a long while in between. */
static bool went_on(uint64_t since)
{
    await_first();
    uint64_t went = told->first - since;
    CHECK(told->first > since);
    bool on = went >= while_long();
    if (!on) {
        CHECK(went < while_long() / 2);
    }
    return on;
}

/* Paused by a call, and from the start. */
static void pauses(uint32_t flags, bool goes_on)
{
    told->first = 0;
    uint64_t since = cycles();
    uint32_t id = child_of(CLEAVE_DOMAIN_SELF, flags | CLEAVE_FORK_PAUSED);
    wait_long();
    CHECK_EQ(told->first, 0);
    on_domain(CLEAVE_OP_UNPAUSE, id);
    CHECK_EQ(went_on(since), goes_on);

    on_domain(CLEAVE_OP_PAUSE, id);
    on_domain(CLEAVE_OP_PAUSE, id); /* pauses nest */
    uint64_t last = told->last;
    wait_long();
    on_domain(CLEAVE_OP_UNPAUSE, id);
    told->first = 0;
    wait_long();
    CHECK_EQ(told->first, 0);
    on_domain(CLEAVE_OP_UNPAUSE, id);
    CHECK_EQ(went_on(last), goes_on);
    destroy(id);
}

static void tell_clock(uint64_t argument)
{
    for (;;) {
        told->last = cycles() + argument;
        relax();
    }
}

/* The clock of a vcpu that is started when its domain has stood still is that of the others. */
static void started_late(void)
{
    uint32_t id;
    told->last = 0;
    if (fork_self(1, CLEAVE_FORK_PAUSED, &id) == 1) {
        uint64_t before = cycles();
        start_vcpu(1, tell_clock, 0);
        while (told->last == 0) {
            yield();
        }
        CHECK(told->last > before && cycles() - told->last < while_long() / 2);
        leave(7);
    }
    wait_long();
    on_domain(CLEAVE_OP_UNPAUSE, id);
    wait_for(id, 7);
    destroy(id);
}

static void resets(void)
{
    told->first = 0;
    uint64_t since = cycles();
    uint32_t id = child_of(CLEAVE_DOMAIN_SELF, CLEAVE_FORK_BASE);
    await_first();
    for (unsigned i = 0; i < 3; i++) {
        wait_long();
        on_domain(CLEAVE_OP_PAUSE, id);
        CHECK(told->last - since >= while_long() / 2); /* it ran until now, but for a slice */
        told->first = 0;
        on_domain(CLEAVE_OP_RESET, id);
        wait_long();
        on_domain(CLEAVE_OP_UNPAUSE, id);
        CHECK(!went_on(since));
    }
    destroy(id);
}

static void restores(void)
{
    static struct cleave_snapshot snapshot = {.domain = CLEAVE_DOMAIN_SELF, .name = "template"};
    told->first = told->last = 0;
    uint64_t since = cycles();
    CHECK_EQ(CLEAVE(CLEAVE_OP_SNAPSHOT, &snapshot), CLEAVE_OK);
    if (told->last != 0) {
        look_at_clock(); /* restored: the parent wrote this after the snapshot */
    }
    told->last = 1;
    wait_long();
    uint32_t id = child_of(snapshot.snapshot, 0);
    CHECK(!went_on(since));
    destroy(id);
    told->first = 0;
    id = child_of(snapshot.snapshot, CLEAVE_FORK_CLOCK);
    CHECK(went_on(since));
    destroy(id);
    destroy(snapshot.snapshot);
}

void guest_story(void)
{
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, AT, PAGE, SHARED, RW, 0), CLEAVE_OK);
    pauses(0, false);
    pauses(CLEAVE_FORK_CLOCK, true);
    started_late();
    resets();
    restores();
    audit_clean();
}
