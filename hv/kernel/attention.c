/* SPDX-License-Identifier: BSD-2-Clause */
/* What is pending for a vcpu, before it goes on: INIT and start-up, NMIs, interrupts, HLT. */
#include "calls.h"
#include "guest_clock.h"
#include "identity.h"
#include "sched.h"

#define EVENT_NMI (HVM_EVENT_VALID | 2u << 8 | 2u)
#define RFLAGS_IF 0x200u

void vcpu_sleep(struct vcpu *vcpu, enum vcpu_sleep sleep)
{
    sched_expect(vcpu);
    __atomic_store_n(&vcpu->sleep, (uint8_t)sleep, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&vcpu->attention, __ATOMIC_SEQ_CST)) {
        vcpu->sleep = SLEEP_NONE;
    }
}

/* Nothing of what it did goes on (SDM 3A 10.4.7.3). Its registers are set by the start-up. */
static void take_init(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    vcpu_cancel_waits(ctx, vcpu);
    vcpu_abandon(ctx, vcpu);
    vcpu->wait.outcome = WAIT_RETRY;
    vcpu->result_size = 0;
    vcpu->walk.domain = 0;
    vcpu->started = 0;
    xen_vcpu_restart(vcpu);
    lapic_reset(&vcpu->lapic);
}

static void take_startup(struct vcpu *vcpu, uint8_t vector)
{
    struct hvm_state state;
    hvm_state_sipi(&state, vector);
    state.tsc_offset = vcpu->lapic.sipi_tsc_offset;
    port_zero_pages(vcpu->hvm.xsave, 1);
    hvm->vcpu_init(&vcpu->hvm, &state);
    vcpu->started = 1;
    vcpu->lapic.activity = LAPIC_ACTIVE;
}

/* `halted` is zero from before they are taken: a sibling that looks never misses them. */
static void take_requests(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    struct lapic *lapic = &vcpu->lapic;
    if (__atomic_load_n(&lapic->request, __ATOMIC_ACQUIRE) == 0) {
        return;
    }
    __atomic_store_n(&vcpu->halted, 0, __ATOMIC_SEQ_CST);
    uint32_t request = __atomic_exchange_n(&lapic->request, 0, __ATOMIC_SEQ_CST);
    if (request & LAPIC_REQUEST_INIT) {
        take_init(ctx, vcpu);
    }
    if (request & LAPIC_REQUEST_NMI && lapic->activity != LAPIC_WAIT_SIPI) {
        lapic->nmi = 1; /* else there is nobody to take it */
    }
    if (request & LAPIC_REQUEST_SIPI && lapic->activity == LAPIC_WAIT_SIPI) {
        take_startup(vcpu, (uint8_t)request);
    }
}

/* At most one event; for those that cannot be taken yet it looks again. None comes between a call
 * that is done and its result: the handler's own calls would take it for theirs. */
static void inject(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    struct lapic *lapic = &vcpu->lapic;
    bool again = false;

    if (vcpu->result_size != 0) {
        __atomic_store_n(&vcpu->attention, 1, __ATOMIC_RELAXED); /* at the next exit */
        return;
    }

    lapic_set_cr8(lapic, vcpu->hvm.cr8);
    if (vcpu->domain->no_interrupts) {
        return;
    }
    if (lapic->nmi && hvm->can_take_nmi(&vcpu->hvm)) {
        lapic->nmi = 0;
        hvm->inject(&vcpu->hvm, EVENT_NMI, 0);
    }
    int vector = xen_vector(ctx, vcpu);
    if (vector >= 0 && hvm->can_take_interrupt(&vcpu->hvm)) {
        xen_told(vcpu);
        hvm->window(&vcpu->hvm, false);
        hvm->inject(&vcpu->hvm, HVM_EVENT_INTERRUPT(vector), 0);
    } else if (vector >= 0) {
        hvm->window(&vcpu->hvm, true);
    }
    vector = lapic_pending(lapic);
    if (vector >= 0 && hvm->can_take_interrupt(&vcpu->hvm)) {
        lapic_take(lapic, vector);
        hvm->window(&vcpu->hvm, false);
        hvm->inject(&vcpu->hvm, HVM_EVENT_INTERRUPT(vector), 0);
    } else if (vector >= 0) {
        hvm->window(&vcpu->hvm, true);
    } else {
        again = lapic_masked(lapic);
    }
    if (vcpu->hvm.pending & HVM_EVENT_VALID) {
        lapic->activity = LAPIC_ACTIVE;
        __atomic_store_n(&vcpu->halted, 0, __ATOMIC_RELAXED);
    }
    if ((again || lapic->nmi) && lapic->activity == LAPIC_ACTIVE) {
        __atomic_store_n(&vcpu->attention, 1, __ATOMIC_RELAXED); /* at the next exit */
    }
}

/* Stores into the guest's memory what was raised for it. False: not all of it yet. */
static bool store(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    if (vcpu->lapic.activity == LAPIC_WAIT_SIPI) {
        return true; /* nothing of it has run that could be told of anything */
    }
    clock_attend(vcpu);
    sched_expect(vcpu);
    enum cleave_status status = identity_attend(ctx, vcpu);
    if (!vcpu_repeats(status)) {
        status = xen_attend(ctx, vcpu);
    }
    if (!vcpu_repeats(status)) {
        return true;
    }
    __atomic_store_n(&vcpu->attention, 1, __ATOMIC_SEQ_CST);
    if (status == CLEAVE_WAIT) {
        vcpu->sleep = SLEEP_CORE;
    } else if (status == CLEAVE_QUOTA) {
        vcpu->sleep = SLEEP_QUOTA; /* as after a write of its own; see nested_fault() */
    }
    return false;
}

bool vcpu_attention(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    take_requests(ctx, vcpu);
    if (!store(ctx, vcpu)) {
        return false;
    }
    if (vcpu->lapic.activity != LAPIC_WAIT_SIPI) {
        inject(ctx, vcpu);
    }
    switch ((enum lapic_activity)vcpu->lapic.activity) {
    case LAPIC_HLT:
        vcpu_sleep(vcpu, SLEEP_HALT);
        if (!(vcpu->hvm.regs.rflags & RFLAGS_IF)) {
            vcpu_halted(vcpu);
        }
        return false;
    case LAPIC_WAIT_SIPI:
        vcpu_sleep(vcpu, SLEEP_SIPI);
        vcpu_halted(vcpu);
        return false;
    case LAPIC_ACTIVE:
        break;
    }
    return true;
}
