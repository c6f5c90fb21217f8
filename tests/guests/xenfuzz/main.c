/* SPDX-License-Identifier: BSD-2-Clause */
/* Ten thousand random calls of Xen's ABI by two vcpus at once: the guest may end, or overwrite
 * itself with what it asks for; nobody else notices. */
#include "xen.h"

const char guest_name[] = "xenfuzz";

#define CALLS 10000u
#define COUNT_AT (64 * MIB) /* shared by all forks */
#define INFO_AT (16 * MIB)  /* where most structures of the hypervisor are asked for */

static uint64_t seed = 4712;

/* Numbers that are near to something. */
static uint64_t number(uint64_t *state)
{
    uint64_t r = random_next(state);
    switch (r % 8) {
    case 0:
        return r >> 32 & 3;
    case 1:
        return r >> 32 & 0xff;
    case 2:
        return (r >> 32 & 0xff) * PAGE;
    case 3:
        return INFO_AT + (r >> 32 & 0xffff);
    case 4:
        return UINT64_MAX - (r >> 48);
    case 5:
        return UINT64_C(1) << (r >> 32) % 64;
    case 6:
        return DOMID_SELF | (r & UINT64_C(0xff00000000));
    default:
        return r;
    }
}

/* Two small numbers, the first of them often this domain. */
static uint64_t two_numbers(uint64_t *state)
{
    uint64_t r = random_next(state);
    uint64_t low = r % 2 != 0 ? DOMID_SELF : r >> 8 & 0xff;
    return low | (r >> 16 & (r >> 40 & 1 ? 7 : 0x1ff)) << 32;
}

/* One that the guest survives in most cases: a poll may sleep for ever, a shutdown ends it. */
static bool may(uint64_t call, uint64_t command, uint64_t *state)
{
    bool ends = call == __HYPERVISOR_sched_op && command == SCHEDOP_shutdown;
    bool sleeps = call == __HYPERVISOR_sched_op && command == SCHEDOP_poll;
    return (!ends && !sleeps) || random_next(state) % (ends ? 4 : 2) == 0;
}

static void make_call(uint64_t *state, uint64_t *arguments)
{
    static const uint8_t calls[] = {__HYPERVISOR_memory_op,  __HYPERVISOR_xen_version,
                                    __HYPERVISOR_console_io, __HYPERVISOR_vcpu_op,
                                    __HYPERVISOR_sched_op,   __HYPERVISOR_event_channel_op,
                                    __HYPERVISOR_hvm_op,     __HYPERVISOR_event_channel_op};
    uint64_t r = random_next(state), call = calls[r % sizeof(calls)], command = r >> 8 & 15;
    for (unsigned i = 0; i < 16; i++) {
        arguments[i] = random_next(state) % 2 != 0 ? number(state) : two_numbers(state);
    }
    if (call == __HYPERVISOR_memory_op && (r >> 16) % 2 != 0) { /* a place that is its own */
        command = XENMEM_add_to_physmap;
        *(struct xen_add_to_physmap *)arguments = (struct xen_add_to_physmap){
            .domid = DOMID_SELF, .gpfn = (INFO_AT / PAGE) + (r >> 24 & 15)};
    }
    if (!may(call, command, state)) {
        return;
    }
    uint64_t at = random_next(state) % 16 == 0 ? number(state) : (uint64_t)arguments;
    uint64_t second = call == __HYPERVISOR_vcpu_op ? r >> 32 & 3 : at;
    uint64_t third = at;
    if (call == __HYPERVISOR_console_io) {
        second = r >> 32 & 0x3fff;
    }
    if (random_next(state) % 64 == 0) {
        call = number(state);
        call = call == CLEAVE_HYPERCALL ? 0 : call;
    }
    (void)xen_call(call, command, second, third);
}

static void calls(uint64_t vcpu)
{
    static uint64_t arguments[2][16];
    uint64_t state = seed + vcpu * 77;
    uint64_t *count = (uint64_t *)COUNT_AT;
    while (__atomic_fetch_add(count, 1, __ATOMIC_SEQ_CST) < CALLS) {
        make_call(&state, arguments[vcpu]);
    }
    if (vcpu == 0) {
        leave(0);
    }
}

/* Children that end, stop or lose their way are replaced until all calls were made. */
void guest_story(void)
{
    unsigned lives = 0;
    volatile uint64_t *count = word(COUNT_AT);
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, COUNT_AT, 2 * MIB, SHARED, RW, 0), CLEAVE_OK);
    CHECK_EQ(place_shared_info(INFO_AT), 0);
    while (*count < CALLS) {
        uint32_t id;
        seed += 1000;
        uint64_t made = *count, turns = 0;
        if (fork_self(1, lives % 4 == 0 ? CLEAVE_FORK_BASE : 0, &id) == 1) {
            start_vcpu(1, calls, 1);
            calls(0);
        }
        while (stat_of(id)->state == CLEAVE_STATE_RUNNING && turns < 500) {
            turns = *count == made ? turns + 1 : 0;
            made = *count;
            yield();
        }
        if (lives % 4 == 0 && stat_of(id)->state == CLEAVE_STATE_RUNNING) {
            on_domain(CLEAVE_OP_RESET, id); /* whatever it was in */
        }
        lives++;
        destroy(id);
        CHECK(lives < 4000);
    }
    say("%lu calls, %u lives", *count, lives);
    audit_clean();
}
