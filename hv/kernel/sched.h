/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Scheduling: one queue of vcpus that are ready, first come first served, slices of 5 ms. A vcpu
 * that used its slice goes to the end, so that each of n that are ready runs at least every n
 * slices. Each step is O(1). A vcpu that sleeps is in no queue and costs nothing.
 */
#ifndef KERNEL_SCHED_H
#define KERNEL_SCHED_H

#include "domain.h"

#define SCHED_SLICE_NS UINT64_C(5000000)

/* What each CPU does for ever. */
_Noreturn void sched_run(void);

/* A vcpu that is off becomes ready, unless its domain has ended. */
void sched_start(struct vcpu *vcpu);
/* A vcpu that is blocked, or is about to be, goes on. From any CPU, under locks of the core. */
void sched_wake(struct vcpu *vcpu);
/* The same for those vcpus of a domain that sleep, or are about to, for `sleep`. */
void sched_wake_sleepers(struct domain *domain, enum vcpu_sleep sleep);
/* Before the vcpus of a domain that has ended are freed: nobody finds them any more. Returns how
 * many there are. */
uint32_t sched_forget(struct domain *domain);
/* Before what may queue the vcpu for waking: forgets wakes from before. */
void sched_expect(struct vcpu *vcpu);

/* From any CPU: the vcpu looks at what is pending for it before its next instruction. */
void vcpu_attend(struct vcpu *vcpu);
/* The vcpu, which runs here, sleeps at the end of this round until vcpu_attend(), unless that came
 * since it last looked. */
void vcpu_sleep(struct vcpu *vcpu, enum vcpu_sleep sleep);
/* Does a store for a vcpu with this status have to be made again, as one of the guest's own is? */
static inline bool vcpu_repeats(enum cleave_status status)
{
    return status == CLEAVE_WAIT || status == CLEAVE_AGAIN || status == CLEAVE_QUOTA;
}
/* A vcpu whose state was copied, and which is off, goes on with what it did or waited for. */
void sched_resume(struct vcpu *vcpu);

/* Pauses nest. Takes the vcpus off the queue and asks CPUs that run one to put it down. */
void sched_pause(struct domain *domain);
void sched_unpause(struct domain *domain);
/* True while a vcpu of the domain other than `self` runs. */
bool sched_runs(struct domain *domain, const struct vcpu *self);
/* All vcpus of a domain that stands still are off, but one that runs; of a domain that has ended,
 * that one too once it is put down. */
void sched_off(struct domain *domain);

/* Every other CPU stands still outside of guests and calls until world_release(). False when
 * another CPU has it: try again later. */
bool world_stop(struct mm_ctx *ctx);
void world_release(void);
/* Where a CPU waits between two steps of a call with no lock held: stands still if it is to. */
void world_rest(struct mm_ctx *ctx);

/* Runs the vcpu until its slice ends, it sleeps, or its domain is to stop. exits.c */
void vcpu_run(struct vcpu *vcpu);
/* Does what is pending for the vcpu, which runs here and is not in the guest. False: it does not
 * enter the guest now. attention.c */
bool vcpu_attention(struct mm_ctx *ctx, struct vcpu *vcpu);
/* No interrupt will wake it: when that is so of all its domain's vcpus, that ends. exits.c */
void vcpu_halted(struct vcpu *vcpu);

#endif
