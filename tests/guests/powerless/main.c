/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ten thousand calls that are for the control domain alone, by a domain that has no right over any
 * other, aimed at all there are: each is refused as docs/xen-compat.md says. Its maker and a domain
 * beside it, which both stand still, have the same bytes as before, and so has the control domain
 * past its image and its stacks: it looks at all of them.
 */
#define __XEN_TOOLS__ 1
#include "xen.h"

#include <xen/domctl.h>
#include <xen/platform.h>
#include <xen/sysctl.h>

const char guest_name[] = "powerless";

#define CALLS 10000u
#define SHARED_AT (64 * MIB)
#define COPIED_AT (8 * MIB) /* where the bytes of another are looked at */
#define SEED 4714u

static uint64_t state = SEED;
static uint64_t arguments[64];

/* Shared by the maker and those that it made, past the memory that is looked at. */
struct shared {
    uint64_t made; /* calls */
    uint64_t beside, caller, ready;
};
static volatile struct shared *const shared = (volatile struct shared *)SHARED_AT;

static uint64_t next(void) { return random_next(&state); }

/* Near to something: numbers, domains, places in this domain and nowhere. */
static uint64_t number(void)
{
    uint64_t r = next();
    switch (r % 8) {
    case 0:
        return r >> 32 & 7;
    case 1:
        return r >> 32 & 0xff;
    case 2:
        return (r >> 32 & 0xff) * PAGE;
    case 3:
        return (uint64_t)&arguments[r >> 32 & 63];
    case 4:
        return UINT64_MAX - (r >> 48);
    case 5:
        return UINT64_C(1) << (r >> 32) % 64;
    case 6:
        return CLEAVE_DOMAIN_CONTROL;
    default:
        return r;
    }
}

static uint16_t anybody(void)
{
    static const uint16_t some[] = {0, 1, 2, 3, 4, 0x7fef, DOMID_SELF, DOMID_IO, DOMID_XEN};
    uint64_t r = next();
    return (uint16_t)(r % 4 != 0 ? some[(r >> 8) % 9] : r >> 16);
}

static void fill(void)
{
    for (unsigned i = 0; i < 64; i++) {
        arguments[i] = number();
    }
}

static uint64_t place(void) { return next() % 16 != 0 ? (uint64_t)arguments : number(); }

static void domctl(void)
{
    struct xen_domctl *op = (struct xen_domctl *)arguments;
    op->cmd = (uint32_t)(next() % 90);
    op->domain = anybody();
    if (next() % 8 != 0) {
        op->interface_version = XEN_DOMCTL_INTERFACE_VERSION;
    }
    bool again = next() % 8 == 0;
    CHECK_EQ(xen_call(again ? __HYPERVISOR_arch_1 : __HYPERVISOR_domctl, place(), next(), 0),
             -XEN_EPERM);
}

static void sysctl(void)
{
    struct xen_sysctl *op = (struct xen_sysctl *)arguments;
    op->cmd = (uint32_t)(next() % 40);
    op->interface_version = XEN_SYSCTL_INTERFACE_VERSION;
    CHECK_EQ(
        xen_call(next() % 8 != 0 ? __HYPERVISOR_sysctl : __HYPERVISOR_platform_op, place(), 0, 0),
        -XEN_EPERM);
}

/* Of its own memory it may say where shared_info is, and no more: none is asked for here. */
static void memory_op(void)
{
    uint64_t command = next() % 64;
    command |= next() % 8 == 0 ? next() << 6 : 0;
    arguments[0] = (arguments[0] & ~UINT64_C(0xffff)) | anybody();
    arguments[1] = next() % 2 != 0 ? arguments[1] : anybody();
    arguments[2] = next() % 2 != 0 ? arguments[2] : (uint64_t)anybody() << 48 | anybody();
    if (command != XENMEM_add_to_physmap) {
        CHECK_EQ(xen_call(__HYPERVISOR_memory_op, command, place(), 0), -XEN_ENOSYS);
        return;
    }
    arguments[0] |= DOMID_SELF ^ 1;
    int64_t result = xen_call(__HYPERVISOR_memory_op, command, (uint64_t)arguments, 0);
    CHECK(result == -XEN_ESRCH || result == -XEN_EINVAL || result == -XEN_ENOSYS);
}

static void other(void)
{
    struct xen_hvm_param *param = (struct xen_hvm_param *)arguments;
    param->domid = anybody();
    if (param->domid == DOMID_SELF) {
        param->domid = 0;
    }
    if (next() % 2 != 0) {
        CHECK_EQ(xen_call(__HYPERVISOR_hvm_op, next() % 2, (uint64_t)arguments, 0), -XEN_ESRCH);
    } else {
        CHECK_EQ(xen_call(__HYPERVISOR_sched_op, SCHEDOP_remote_shutdown, (uint64_t)arguments, 0),
                 -XEN_ENOSYS);
    }
}

/* In a list they are refused as alone. */
static void in_a_list(void)
{
    struct multicall_entry list[2] = {
        {.op = __HYPERVISOR_domctl, .args = {(uint64_t)arguments}},
        {.op = __HYPERVISOR_memory_op, .args = {6 + next() % 3 * 8, (uint64_t)arguments}}};
    CHECK_EQ(xen_call(__HYPERVISOR_multicall, (uint64_t)list, 2, 0), 0);
    CHECK_EQ((int64_t)list[0].result, -XEN_EPERM);
    CHECK_EQ((int64_t)list[1].result, -XEN_ENOSYS);
}

static _Noreturn void calls(void)
{
    static void (*const kinds[])(void) = {domctl, sysctl, memory_op, memory_op, other, in_a_list};
    for (unsigned i = 0; i < CALLS; i++) {
        fill();
        kinds[next() % 6]();
        shared->made++;
    }
    leave(7);
}

/* --- Those that are aimed at ------------------------------------------------------------------ */

static uint64_t sum_more(uint64_t sum, uint64_t from, uint64_t end)
{
    for (; from < end; from += 8) {
        sum = (sum << 7 | sum >> 57) + *word(from);
    }
    return sum;
}

/* The memory of another domain, which stands still and has as much as this one. */
static uint64_t sum_of(uint32_t id)
{
    uint64_t sum = 0;
    for (uint64_t at = 0; at < guest_memory; at += CLEAVE_COPY_MAX) {
        struct cleave_copy copy = {
            .domain = id, .at = at, .buffer = COPIED_AT, .size = CLEAVE_COPY_MAX};
        CHECK_EQ(CLEAVE(CLEAVE_OP_COPY, &copy), CLEAVE_OK);
        sum = sum_more(sum, COPIED_AT, COPIED_AT + CLEAVE_COPY_MAX);
    }
    CHECK_EQ(stat_of(id)->state, CLEAVE_STATE_PAUSED);
    return sum;
}

/* All of this domain's that nothing here writes. */
static uint64_t sum_of_own(void)
{
    uint64_t sum = sum_more(0, (uint64_t)guest_end, COPIED_AT);
    return sum_more(sum, COPIED_AT + CLEAVE_COPY_MAX, guest_memory);
}

static void fill_own(void)
{
    for (uint64_t at = (uint64_t)guest_end; at < guest_memory; at += 8) {
        *word(at) = next();
    }
}

/* What the maker shares with those that it made; zeros until it does. */
static struct shared shared_of(uint32_t maker)
{
    struct shared *found = (struct shared *)COPIED_AT;
    struct cleave_copy copy = {
        .domain = maker, .at = SHARED_AT, .buffer = COPIED_AT, .size = sizeof(*found)};
    *found = (struct shared){0};
    (void)CLEAVE(CLEAVE_OP_COPY, &copy);
    return *found;
}

static void make(void)
{
    uint32_t beside, caller;
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, SHARED_AT, 2 * MIB, SHARED, RW, 0), CLEAVE_OK);
    shared->ready = 0; /* the page is there */
    if (fork_self(1, CLEAVE_FORK_PAUSED, &beside) == 1) {
        leave(9);
    }
    if (fork_self(1, CLEAVE_FORK_PAUSED, &caller) == 1) {
        calls();
    }
    shared->beside = beside;
    shared->caller = caller;
    shared->ready = 1;
    while (shared->made != CALLS) {
        yield();
    }
    wait_for(caller, 7);
    on_domain(CLEAVE_OP_UNPAUSE, beside);
    wait_for(beside, 9);
    destroy(beside);
    destroy(caller);
    audit_clean();
}

static uint32_t find_maker(void)
{
    struct cleave_list list = {.domain = 0};
    CHECK_EQ(CLEAVE(CLEAVE_OP_LIST, &list), CLEAVE_OK);
    CHECK(list.domain != 0 && list.domain != CLEAVE_DOMAIN_CONTROL);
    return list.domain;
}

static void judge(void)
{
    uint32_t maker = find_maker();
    say("seed %u", SEED);
    fill_own();
    while (shared_of(maker).ready == 0) {
        yield();
    }
    on_domain(CLEAVE_OP_PAUSE, maker);
    uint32_t beside = (uint32_t)shared_of(maker).beside;
    uint32_t caller = (uint32_t)shared_of(maker).caller;
    uint64_t of_maker = sum_of(maker), of_beside = sum_of(beside), own = sum_of_own();
    on_domain(CLEAVE_OP_UNPAUSE, caller);
    wait_for(caller, 7);
    CHECK_EQ(shared_of(maker).made, CALLS);
    CHECK_EQ(sum_of_own(), own);
    CHECK_EQ(sum_of(beside), of_beside);
    CHECK_EQ(sum_of(maker), of_maker);
    on_domain(CLEAVE_OP_UNPAUSE, maker);
    wait_for(maker, 0);
}

void guest_story(void)
{
    if (guest_command[0] == 'm') {
        make();
    } else {
        judge();
    }
}
