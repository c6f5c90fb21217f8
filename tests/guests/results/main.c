/* SPDX-License-Identifier: BSD-2-Clause */
/* A call whose result cannot be written has done nothing. One that is done and waits to write it is
 * not done again, by nobody: its forks and their resets write it too. */
#include "xen.h"

const char guest_name[] = "results";

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

/* --- Interrupted ------------------------------------------------------------------------------ */

#define INFO_AT (20 * MIB) /* shared_info */
#define VECTOR 28u         /* of the callback; the runtime's table ends at 32 */
#define SOON UINT64_C(20000000)
#define GUARD UINT64_C(0x5afe5afe5afe5afe)

static struct shared_info *const shared = (void *)INFO_AT;
static volatile uint64_t upcalls;
static struct {
    struct cleave_version version;
    uint64_t guard[32];
} answer;

/* The timer's handler makes a call of its own. */
void guest_upcall(void)
{
    shared->vcpu_info[0].evtchn_upcall_pending = 0;
    shared->vcpu_info[0].evtchn_pending_sel = 0;
    shared->evtchn_pending[0] = 0;
    CHECK_EQ(CLEAVE(CLEAVE_OP_VERSION, &answer.version), CLEAVE_OK);
    upcalls++;
}

static void listen(void)
{
    for (unsigned i = 0; i < 32; i++) {
        answer.guard[i] = GUARD;
    }
    CHECK_EQ(place_shared_info(INFO_AT), 0);
    CHECK(bind_virq(VIRQ_TIMER, 0) > 0);
    CHECK_EQ(set_param(HVM_PARAM_CALLBACK_IRQ, CALLBACK_VECTOR(VECTOR)), 0);
}

static uint64_t now(void) { return ns_at(&shared->vcpu_info[0], cycles()); }

/* --- At the limit ----------------------------------------------------------------------------- */

/* The child: a snapshot of itself shares the page to which its result goes, so that this must be
 * copied, for which there may be nothing left. */
static _Noreturn void take_snapshot(void)
{
    static struct cleave_snapshot snapshot = {.domain = CLEAVE_DOMAIN_SELF, .name = "own"};
    CHECK_EQ(set_timer(now() + SOON, 0), 0);
    __asm__ volatile("sti");
    uint64_t status = CLEAVE(CLEAVE_OP_SNAPSHOT, &snapshot);
    while (upcalls == 0) {
        relax();
    }
    __asm__ volatile("cli");
    for (unsigned i = 0; i < 32; i++) {
        CHECK_EQ(answer.guard[i], GUARD);
    }
    CHECK_EQ(answer.version.revision, CLEAVE_ABI_REVISION);
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
    uint64_t end = now() + 2 * SOON; /* the timer's event comes behind the result */
    while (now() < end) {
        yield();
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
    destroy(id);
}

void guest_story(void)
{
    listen();
    nothing_is_made();
    no_end_is_lost();
    it_is_done_once();
    audit_clean();
}
