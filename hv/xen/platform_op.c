/* SPDX-License-Identifier: BSD-2-Clause */
/* platform_op (Xen's public/platform.h): the control domain's, of a machine that shows it no
 * hardware. */
#define __XEN_TOOLS__ 1
#include "calls.h"

#include <xen/errno.h>
#include <xen/platform.h>
#include <xen/xen.h>

int64_t xen_platform_op(struct xen_call *call)
{
    struct {
        uint32_t command, version;
    } head;
    if (!call->domain->control) {
        return -XEN_EPERM;
    }
    int64_t result = xen_get(call, call->argument[0], &head, sizeof(head));
    if (result != 0) {
        return result;
    }
    if (head.version != XENPF_INTERFACE_VERSION) {
        return -XEN_EACCES;
    }
    switch (head.command) {
    case XENPF_settime64:
        return 0; /* the machine's clock is the hypervisor's */
    case XENPF_get_cpuinfo:
    case XENPF_firmware_info:
        return -XEN_EPERM; /* there is nothing to tell, and Linux goes on without */
    default:
        return xen_unknown(call);
    }
}
