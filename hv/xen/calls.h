/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Xen's ABI for PVH guests (public headers of Debian's libxen-dev): what hv/kernel/ calls. One file
 * a hypercall: it decodes, with every check, then performs. Stores into a guest are made by the
 * vcpu whose they are, before its next instruction: they may copy, notify or wait as its own would.
 */
#ifndef XEN_CALLS_H
#define XEN_CALLS_H

#include "domain.h"
#include "state.h"

/* --- Called by the kernel --------------------------------------------------------------------- */

/* The calling vcpu, in 64-bit code and ring 0, executed hypercall `number`. True: its result is in
 * RAX; false: execute the same instruction again, after a wait when vcpu->sleep says so. */
bool xen_hypercall(struct mm_ctx *ctx, struct vcpu *vcpu, uint64_t number) MUST_CHECK;
/* Before the vcpu's next instruction, when it was asked to look: its timer, raised events, typed
 * characters, the wall clock. CLEAVE_WAIT: it is queued; then, and for CLEAVE_AGAIN and
 * CLEAVE_QUOTA, this is to be called again. */
enum cleave_status xen_attend(struct mm_ctx *ctx, struct vcpu *vcpu) MUST_CHECK;
/* The vector that tells the vcpu of pending events, when it is to be told now; else -1. */
int xen_vector(struct mm_ctx *ctx, struct vcpu *vcpu) MUST_CHECK;
/* The vector was injected. */
void xen_told(struct vcpu *vcpu);
/* Leaves 0x40000000 to 0x400000ff; MSR 0x40000000: writes the hypercall page. False: #GP. */
void xen_cpuid(const struct vcpu *vcpu, uint32_t leaf, struct cpuid *out);
enum cleave_status xen_hypercall_page(struct mm_ctx *ctx, struct vcpu *vcpu,
                                      uint64_t value) MUST_CHECK;

/* State of a domain: none yet; as that of `from`; given back. CLEAVE_NO_MEMORY, CLEAVE_QUOTA. */
void xen_vcpu_init(struct vcpu *vcpu);
/* It begins anew: no timer, no poll. Its ports stay bound, and what its vcpu_info has pending is
 * still told, as that may have been placed for it by another vcpu. */
void xen_vcpu_restart(struct vcpu *vcpu);
enum cleave_status xen_fork(struct mm_ctx *ctx, struct domain *from, struct domain *to) MUST_CHECK;
void xen_free(struct mm_ctx *ctx, struct domain *domain);
/* What a reset goes back to: noted; put back, while no vcpu of it runs. */
enum cleave_status xen_keep(struct mm_ctx *ctx, struct domain *domain) MUST_CHECK;
void xen_reset(struct domain *domain);
/* Is the state of a domain whose vcpus do not run that which was kept? */
bool xen_as_kept(const struct domain *domain);
/* Its clock went on without it, or it is another's copy: it learns the true time. */
void xen_refresh(struct domain *domain);

/* A domain that goes: what is kept to tell what it wrote. CLEAVE_AGAIN until done. */
enum cleave_status xen_log_end(struct mm_ctx *ctx, struct domain *domain) MUST_CHECK;

/* Tells a control domain that another one has ended or is gone: VIRQ_DOM_EXC. It is in use. */
void xen_tell_end(struct domain *control);
/* Characters typed for a domain. Returns how many it takes. */
uint32_t xen_type(struct domain *domain, const char *bytes, uint32_t count);

/* --- Among the files of hv/xen/ --------------------------------------------------------------- */

struct xen_call {
    struct mm_ctx *ctx;
    struct vcpu *vcpu;
    struct domain *domain;
    struct xen_domain *xen;
    uint64_t number;
    uint64_t argument[6];
};

/* What an operation returns besides 0, counts and -XEN_E...: execute the instruction again, at once
 * or after a wait. */
#define XEN_AGAIN INT64_MIN
#define XEN_WAIT (INT64_MIN + 1)
#define XEN_QUOTA (INT64_MIN + 2) /* as a store of the guest's own: until its limit allows it */

static inline bool xen_repeats(int64_t result)
{
    return result == XEN_AGAIN || result == XEN_WAIT || result == XEN_QUOTA;
}

typedef int64_t xen_op_t(struct xen_call *call);
xen_op_t xen_memory_op, xen_physmap_op, xen_multicall, xen_version_op, xen_console_io, xen_vcpu_op,
    xen_sched_op, xen_event_channel_op, xen_hvm_op, xen_platform_op, xen_sysctl, xen_domctl,
    xen_domctl_again, xen_memory_map, xen_machine_map, xen_set_memory_map;
/* The operation of call->number; what it changed in that and in `argument` is where it goes on when
 * it is to be executed again. */
int64_t xen_operate(struct xen_call *call);

/* The domain has `xen` from then on. CLEAVE_NO_MEMORY, CLEAVE_QUOTA. */
enum cleave_status xen_make(struct mm_ctx *ctx, struct domain *domain) MUST_CHECK;

/* The domain's number in Xen's ABI: 0 for the control domain. */
uint32_t xen_domid(const struct domain *domain);

/* Copies between the guest's linear address `at` and the hypervisor: 0, -XEN_EFAULT, XEN_AGAIN or
 * XEN_WAIT. */
int64_t xen_get(struct xen_call *call, uint64_t at, void *to, uint64_t size) MUST_CHECK;
int64_t xen_put(struct xen_call *call, uint64_t at, const void *from, uint64_t size) MUST_CHECK;
/* A sub-operation that is not known: counted. */
int64_t xen_unknown(struct xen_call *call);
/* What an operation returns for a status of the core. */
int64_t xen_status(enum cleave_status status);

/* Makes `port` of the vcpu's domain pending before its next instruction. From any CPU. */
void xen_raise(struct vcpu *vcpu, uint32_t port);
/* The same for the vcpu to which the port is bound. Nothing where it is free. */
void xen_raise_port(struct domain *domain, uint32_t port);
/* The same for the port to which the domain bound `virq`, one of those that are told to one vcpu.
 */
void xen_raise_virq(struct domain *domain, uint32_t virq);
/* Each vcpu of the domain looks again at what it is to be told. */
void xen_attend_all(struct domain *domain);
/* Is any of the `count` ports pending in the guest's memory? */
enum cleave_status xen_any_pending(struct mm_ctx *ctx, struct vcpu *vcpu, const uint32_t *port,
                                   uint32_t count, bool *any) MUST_CHECK;
/* Makes `port` tell again if it is pending, as after its mask bit was cleared. */
enum cleave_status xen_tell_again(struct mm_ctx *ctx, struct vcpu *vcpu, uint32_t port) MUST_CHECK;

/* Arms the vcpu's timer for what comes first, and raises what has come. */
void xen_run_timer(struct vcpu *vcpu);
/* Nanoseconds of the vcpu's clock now; the host's TSC at such a time. */
uint64_t xen_now(struct vcpu *vcpu);
uint64_t xen_tsc_at(struct vcpu *vcpu, uint64_t ns);
/* Writes the clock's constants into a vcpu_info at guest-physical `info`. */
enum cleave_status xen_write_clock(struct mm_ctx *ctx, struct vcpu *vcpu, uint64_t info) MUST_CHECK;
/* Writes the wall clock into shared_info. */
enum cleave_status xen_write_wall_clock(struct mm_ctx *ctx, struct vcpu *vcpu) MUST_CHECK;

/* Takes what the guest's ring holds to the console; puts typed characters into it. */
enum cleave_status xen_console_drain(struct mm_ctx *ctx, struct vcpu *vcpu) MUST_CHECK;
enum cleave_status xen_console_type(struct mm_ctx *ctx, struct vcpu *vcpu) MUST_CHECK;

#endif
