/* SPDX-License-Identifier: BSD-2-Clause */
/* hvm_op: parameters of a domain (Xen's public/hvm/hvm_op.h, params.h): its own, and for the
 * control domain those of others. */
#include "control.h"

#include <xen/errno.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/xen.h>

#define VIA_VECTOR 2u /* HVM_PARAM_CALLBACK_TYPE_VECTOR, in bits 63:56 */
_Static_assert(XEN_PARAMS >= HVM_NR_PARAMS, "all of them");

/* Only a vector is delivered: there is no PCI device and no interrupt controller. */
static int64_t set_callback(struct domain *domain, uint64_t value)
{
    uint64_t vector = value & 0xff;
    if (value != 0 && (value >> 56 != VIA_VECTOR || vector < 0x10 || value << 8 >> 8 != vector)) {
        return -XEN_EINVAL;
    }
    domain->xen->vector = (uint8_t)vector;
    domain->xen->param[HVM_PARAM_CALLBACK_IRQ] = value;
    xen_attend_all(domain); /* what is pending already is told by it */
    return 0;
}

/* The console's are the hypervisor's, where it has one. */
static bool is_console(const struct domain *domain, uint32_t index)
{
    return domain->has_window &&
           (index == HVM_PARAM_CONSOLE_PFN || index == HVM_PARAM_CONSOLE_EVTCHN);
}

/* Numbers that have no meaning any more (Xen's public/hvm/params.h, "deprecated"). */
static bool is_gone(uint32_t index)
{
    return index == HVM_PARAM_PAE_ENABLED || index == HVM_PARAM_DM_DOMAIN ||
           (index >= HVM_PARAM_MEMORY_EVENT_CR0 && index <= HVM_PARAM_BUFIOREQ_EVTCHN) ||
           index == HVM_PARAM_MEMORY_EVENT_MSR;
}

/* What there is not for a domain here cannot be had. */
static bool is_missing(uint32_t index)
{
    return index == HVM_PARAM_VIRIDIAN || index == HVM_PARAM_ALTP2M || index == HVM_PARAM_MCA_CAP;
}

/* A guest sets how it is told of events; the others are its builder's. */
static int64_t set_param(struct xen_call *call, struct domain *domain,
                         const struct xen_hvm_param *param)
{
    if (param->index == HVM_PARAM_CALLBACK_IRQ) {
        return set_callback(domain, param->value);
    }
    if (domain == call->domain || is_console(domain, param->index)) {
        return -XEN_EPERM;
    }
    if (is_missing(param->index) && param->value != 0) {
        return -XEN_EINVAL;
    }
    domain->xen->param[param->index] = param->value;
    return 0;
}

static uint64_t value_of(const struct domain *domain, uint32_t index)
{
    if (is_console(domain, index)) {
        return index == HVM_PARAM_CONSOLE_PFN ? XEN_CONSOLE_PAGE >> PAGE_SHIFT : XEN_CONSOLE_PORT;
    }
    return domain->xen != NULL ? domain->xen->param[index] : 0;
}

static int64_t on_domain(struct xen_call *call, struct domain *domain, struct xen_hvm_param *param)
{
    if (call->argument[0] == HVMOP_get_param) {
        param->value = value_of(domain, param->index);
        return xen_put(call, call->argument[1], param, sizeof(*param));
    }
    int64_t result = xen_status(xen_make(call->ctx, domain));
    if (result == 0) {
        result = set_param(call, domain, param);
    }
    return result == XEN_QUOTA ? -XEN_ENOMEM : result;
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
    if (param.domid != DOMID_SELF && !call->domain->control) {
        return -XEN_ESRCH;
    }
    if (param.index >= HVM_NR_PARAMS || is_gone(param.index)) {
        return -XEN_EINVAL;
    }
    struct domain *domain = xen_target(call, param.domid, &result);
    if (domain == NULL) {
        return result;
    }
    result = domain->snapshot ? -XEN_EINVAL : on_domain(call, domain, &param);
    xen_target_put(call, domain);
    return result;
}
