/* SPDX-License-Identifier: BSD-2-Clause */
/* memory_op (Xen's public/memory.h): where shared_info lies, and what memory there is. */
#include "calls.h"

#include <stddef.h>

#include <xen/errno.h>
#include <xen/memory.h>
#include <xen/xen.h>

/* shared_info is a page of the guest's own memory: a fork shares it as all else, and each writer
 * gets its copy. It is emptied, and its clocks are set before the guest looks. */
static int64_t place_shared_info(struct xen_call *call, uint64_t gfn)
{
    static const struct vcpu_info none;
    struct space *space = call->domain->space;
    uint64_t at = gfn << PAGE_SHIFT, done;
    enum cleave_status status = CLEAVE_OK;

    for (uint64_t part = 0; part < PAGE_SIZE && status == CLEAVE_OK; part += sizeof(none)) {
        status = space_write(call->ctx, space, gpa(at + part), &none, sizeof(none),
                             &call->vcpu->wait, &done);
    }
    for (uint64_t i = 0; i < XEN_LEGACY_MAX_VCPUS && status == CLEAVE_OK; i++) {
        status = xen_write_clock(call->ctx, call->vcpu, at + i * sizeof(none));
    }
    if (status != CLEAVE_OK) {
        return xen_status(status);
    }
    for (uint64_t i = 0; i < call->domain->vcpu_count; i++) {
        struct vcpu *vcpu = call->domain->vcpu[i];
        uint64_t before = call->xen->shared_info;
        if (vcpu->xen.info == XEN_NOWHERE || vcpu->xen.info - i * sizeof(none) == before) {
            vcpu->xen.info = at + i * sizeof(none);
        }
    }
    call->xen->shared_info = at;
    xen_refresh(call->domain);
    xen_attend_all(call->domain); /* what was raised before has a place now, and the wall clock */
    return 0;
}

int64_t xen_memory_op(struct xen_call *call)
{
    struct xen_add_to_physmap add;
    if (call->argument[0] == XENMEM_memory_map) {
        return xen_memory_map(call);
    }
    if (call->argument[0] != XENMEM_add_to_physmap) {
        return xen_physmap_op(call);
    }
    int64_t result = xen_get(call, call->argument[1], &add, sizeof(add));
    if (result != 0) {
        return result;
    }
    if (add.domid != DOMID_SELF) {
        return -XEN_ESRCH;
    }
    if (add.space != XENMAPSPACE_shared_info) {
        return xen_unknown(call);
    }
    if (add.idx != 0 || add.gpfn >= UINT64_C(1) << (GUEST_BITS - PAGE_SHIFT)) {
        return -XEN_EINVAL;
    }
    return place_shared_info(call, add.gpfn);
}
