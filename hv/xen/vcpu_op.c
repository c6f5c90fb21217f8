/* SPDX-License-Identifier: BSD-2-Clause */
/* vcpu_op (Xen's public/vcpu.h): where a vcpu's vcpu_info is, and its one-shot timer. */
#include "calls.h"

#include <xen/errno.h>
#include <xen/vcpu.h>
#include <xen/xen.h>

#include "sched.h"

/* Its vcpu_info moves to the guest's memory at `mfn` and `offset`, once. What is pending already is
 * told again, as the old place may have held it. */
static int64_t register_info(struct xen_call *call, struct vcpu *vcpu)
{
    struct vcpu_register_vcpu_info where;
    int64_t result = xen_get(call, call->argument[2], &where, sizeof(where));
    uint64_t done;
    if (result != 0) {
        return result;
    }
    if (where.offset > PAGE_SIZE - sizeof(struct vcpu_info) || where.offset % 8 != 0 ||
        where.mfn >= UINT64_C(1) << (GUEST_BITS - PAGE_SHIFT)) {
        return -XEN_EINVAL;
    }
    uint64_t info = (where.mfn << PAGE_SHIFT) + where.offset;
    struct vcpu_info fresh = {.evtchn_upcall_pending = 1, .evtchn_pending_sel = UINT64_MAX};
    enum cleave_status status = space_write(call->ctx, call->domain->space, gpa(info), &fresh,
                                            sizeof(fresh), &call->vcpu->wait, &done);
    if (status == CLEAVE_OK) {
        status = xen_write_clock(call->ctx, call->vcpu, info);
    }
    if (status != CLEAVE_OK) {
        return xen_status(status);
    }
    __atomic_store_n(&vcpu->xen.info, info, __ATOMIC_RELEASE);
    vcpu->xen.upcall = 1;
    vcpu_attend(vcpu);
    return 0;
}

/* A time that has passed fires at once; whoever asks for an error then gets it. */
static int64_t set_timer(struct xen_call *call)
{
    struct vcpu_set_singleshot_timer timer;
    int64_t result = xen_get(call, call->argument[2], &timer, sizeof(timer));
    if (result != 0) {
        return result;
    }
    if (timer.flags & VCPU_SSHOTTMR_future && timer.timeout_abs_ns < xen_now(call->vcpu)) {
        return -XEN_ETIME;
    }
    call->vcpu->xen.deadline = timer.timeout_abs_ns != 0 ? timer.timeout_abs_ns : 1;
    xen_run_timer(call->vcpu);
    return 0;
}

int64_t xen_vcpu_op(struct xen_call *call)
{
    uint64_t number = call->argument[1];
    if (number >= call->domain->vcpu_count) {
        return -XEN_ENOENT;
    }
    struct vcpu *vcpu = call->domain->vcpu[number];

    switch (call->argument[0]) {
    case VCPUOP_register_vcpu_info:
        if (vcpu->xen.info != XEN_NOWHERE &&
            vcpu->xen.info - number * sizeof(struct vcpu_info) != call->xen->shared_info) {
            return -XEN_EINVAL;
        }
        return register_info(call, vcpu);
    case VCPUOP_is_up:
        return vcpu->started;
    case VCPUOP_register_runstate_memory_area:
        return 0; /* nothing is accounted there */
    case VCPUOP_stop_periodic_timer:
        return 0; /* there is none */
    case VCPUOP_stop_singleshot_timer:
        if (vcpu != call->vcpu) {
            return -XEN_EINVAL;
        }
        vcpu->xen.deadline = 0;
        xen_run_timer(vcpu);
        return 0;
    case VCPUOP_set_singleshot_timer:
        return vcpu == call->vcpu ? set_timer(call) : -XEN_EINVAL;
    default:
        return xen_unknown(call);
    }
}
