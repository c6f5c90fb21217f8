/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Clocks of domains. A guest's TSC is the host's plus an offset, which all vcpus of a domain have
 * in common until a guest writes its TSC; Xen's clock is computed from it. While a domain is paused
 * by a call, is a record of a snapshot, or waits for a reset to end, its clock stands still: it
 * goes on where it stood, and the guest finds its wall clock put right. With CLEAVE_FORK_CLOCK it
 * goes on meanwhile instead: then the guest sees one step forward.
 *
 * Offsets change in the vcpus' own context, before their next instruction: until then `clock_shift`
 * says by how much.
 */
#ifndef KERNEL_GUEST_CLOCK_H
#define KERNEL_GUEST_CLOCK_H

#include "domain.h"

/* The domain stands still by a call, from now on; it goes on. Nothing when it did, or does, already
 * for another reason that lasts. The caller holds `busy`. */
void clock_stop(struct domain *domain);
void clock_go(struct domain *domain);
/* The clock of `child`, a copy of `from`, whose vcpus were copied already: where that of `from`
 * stands; `runs`: it never stands still. */
void clock_fork(const struct domain *from, struct domain *child, bool runs);
/* Notes the clock of a domain that nobody has yet, for resets; and puts it back. */
void clock_keep(struct domain *domain);
void clock_reset(struct domain *domain);
/* Before an instruction of the vcpu, which is loaded here. */
void clock_attend(struct vcpu *vcpu);
/* What is to be the TSC offset of a vcpu that starts, for its TSC to be that of one with `offset`,
 * to which nothing is due: what is due to it since it was off comes off then. The domain runs the
 * caller's vcpu or stands still. */
static inline uint64_t clock_offset(const struct vcpu *vcpu, uint64_t offset)
{
    return offset + __atomic_load_n(&vcpu->clock_shift, __ATOMIC_SEQ_CST);
}
/* IA32_TSC_ADJUST (SDM 3B 18.17.3) of such a vcpu: what the guest's own writes added to its TSC.
 * Set: its TSC changes by as much. */
uint64_t clock_adjust(struct vcpu *vcpu);
void clock_set_adjust(struct vcpu *vcpu, uint64_t value);

#endif
