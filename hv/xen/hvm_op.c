/* SPDX-License-Identifier: BSD-2-Clause */
/* hvm_op: parameters of a domain (Xen's public/hvm/hvm_op.h, params.h). */
#include "calls.h"

#include <xen/errno.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/xen.h>

#define VIA_VECTOR 2u /* HVM_PARAM_CALLBACK_TYPE_VECTOR, in bits 63:56 */
_Static_assert(XEN_PARAMS >= HVM_NR_PARAMS, "all of them");

/* Only a vector is delivered: there is no PCI device and no interrupt controller. */
static int64_t set_callback(struct xen_call *call, uint64_t value)
{
    uint64_t vector = value & 0xff;
    if (value != 0 && (value >> 56 != VIA_VECTOR || vector < 0x10 || value << 8 >> 8 != vector)) {
        return -XEN_EINVAL;
    }
    call->xen->vector = (uint8_t)vector;
    xen_attend_all(call->domain); /* what is pending already is told by it */
    return 0;
}

static int64_t set_param(struct xen_call *call, const struct xen_hvm_param *param)
{
    if (param->index == HVM_PARAM_CALLBACK_IRQ) {
        int64_t result = set_callback(call, param->value);
        if (result != 0) {
            return result;
        }
        call->xen->param[param->index] = param->value;
        return 0;
    }
    return -XEN_EPERM; /* the others are its builder's */
}

static uint64_t value_of(const struct xen_call *call, uint32_t index)
{
    switch (index) {
    case HVM_PARAM_CONSOLE_PFN:
        return call->domain->has_window ? XEN_CONSOLE_PAGE >> PAGE_SHIFT : 0;
    case HVM_PARAM_CONSOLE_EVTCHN:
        return call->domain->has_window ? XEN_CONSOLE_PORT : 0;
    default:
        return call->xen->param[index];
    }
}

int64_t xen_hvm_op(struct xen_call *call)
{
    struct xen_hvm_param param;
    uint64_t command = call->argument[0];

    if (command != HVMOP_set_param && command != HVMOP_get_param) {
        return xen_unknown(call);
    }
    int64_t result = xen_get(call, call->argument[1], &param, sizeof(param));
    if (result != 0) {
        return result;
    }
    if (param.domid != DOMID_SELF) {
        return -XEN_ESRCH;
    }
    if (param.index >= HVM_NR_PARAMS) {
        return -XEN_EINVAL;
    }
    if (command == HVMOP_set_param) {
        return set_param(call, &param);
    }
    param.value = value_of(call, param.index);
    return xen_put(call, call->argument[1], &param, sizeof(param));
}
