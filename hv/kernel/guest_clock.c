/* SPDX-License-Identifier: BSD-2-Clause */
/* Clocks of domains over pauses, forks and resets; see guest_clock.h. */
#include "guest_clock.h"

#include "calls.h"
#include "sched.h"

/* All its vcpus find their TSC so much lower than it would be. */
static void shift(struct domain *domain, uint64_t ticks)
{
    domain->tsc_offset -= ticks;
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        __atomic_fetch_add(&domain->vcpu[i]->clock_shift, ticks, __ATOMIC_SEQ_CST);
        __atomic_store_n(&domain->vcpu[i]->attention, 1, __ATOMIC_SEQ_CST);
    }
    xen_refresh(domain);
}

void clock_stop(struct domain *domain)
{
    if (domain->clock_stopped == 0 && !domain->clock_runs) {
        domain->clock_stopped = read_tsc();
    }
}

void clock_go(struct domain *domain)
{
    if (domain->clock_stopped != 0) {
        uint64_t stood = read_tsc() - domain->clock_stopped;
        domain->clock_stopped = 0;
        shift(domain, stood);
    }
    xen_refresh(domain);
}

void clock_fork(const struct domain *from, struct domain *child, bool runs)
{
    child->tsc_offset = from->tsc_offset;
    child->clock_runs = runs;
    for (unsigned i = 0; i < child->vcpu_count; i++) {
        child->vcpu[i]->clock_shift = from->vcpu[i]->clock_shift;
    }
    if (!runs && from->clock_stopped != 0) {
        shift(child, read_tsc() - from->clock_stopped);
    }
    if (child->snapshot) {
        child->clock_stopped = read_tsc();
    }
}

void clock_keep(struct domain *domain)
{
    domain->base_tsc = read_tsc();
    domain->base_tsc_offset = domain->tsc_offset;
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        domain->vcpu[i]->saved_clock_shift = domain->vcpu[i]->clock_shift;
    }
}

void clock_reset(struct domain *domain)
{
    domain->tsc_offset = domain->base_tsc_offset;
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        domain->vcpu[i]->clock_shift = domain->vcpu[i]->saved_clock_shift;
    }
    if (!domain->clock_runs) {
        shift(domain, read_tsc() - domain->base_tsc);
    }
    if (domain->clock_stopped != 0) {
        domain->clock_stopped = read_tsc();
    }
}

void clock_attend(struct vcpu *vcpu)
{
    uint64_t ticks = __atomic_exchange_n(&vcpu->clock_shift, 0, __ATOMIC_SEQ_CST);
    if (ticks != 0) {
        hvm->set(&vcpu->hvm, HVM_FIELD_TSC_OFFSET,
                 hvm->get(&vcpu->hvm, HVM_FIELD_TSC_OFFSET) - ticks);
    }
}

/* The hypervisor's own changes are in the domain's offset as well, or due to be in the vcpu's. */
uint64_t clock_adjust(struct vcpu *vcpu)
{
    uint64_t due = __atomic_load_n(&vcpu->clock_shift, __ATOMIC_SEQ_CST);
    return hvm->get(&vcpu->hvm, HVM_FIELD_TSC_OFFSET) - due - vcpu->domain->tsc_offset;
}

void clock_set_adjust(struct vcpu *vcpu, uint64_t value)
{
    uint64_t offset = hvm->get(&vcpu->hvm, HVM_FIELD_TSC_OFFSET);
    hvm->set(&vcpu->hvm, HVM_FIELD_TSC_OFFSET, offset + value - clock_adjust(vcpu));
}
