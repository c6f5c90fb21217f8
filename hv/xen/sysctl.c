/* SPDX-License-Identifier: BSD-2-Clause */
/* sysctl (Xen's public/sysctl.h): the machine, and a list of domains; for the control domain. */
#define __XEN_TOOLS__ 1
#include "control.h"

#include <stddef.h>

#include <xen/errno.h>
#include <xen/sysctl.h>
#include <xen/xen.h>

#include "tenant.h"

static void physinfo(struct xen_call *call, struct xen_sysctl_physinfo *info)
{
    const struct pool *pool = call->domain->pool;
    *info = (struct xen_sysctl_physinfo){.threads_per_core = 1,
                                         .cores_per_socket = boot_info.cpus,
                                         .nr_cpus = boot_info.cpus,
                                         .max_cpu_id = boot_info.cpus - 1,
                                         .nr_nodes = 1,
                                         .cpu_khz = (uint32_t)(tsc_per_second / 1000),
                                         .capabilities =
                                             XEN_SYSCTL_PHYSCAP_hvm | XEN_SYSCTL_PHYSCAP_hap,
                                         .total_pages = pool->frames,
                                         .free_pages = pool->free,
                                         .max_mfn = machine.frames - 1};
}

/* Domains from `first_domain` on, in order of their numbers; all again when it is executed again.
 */
static int64_t list(struct xen_call *call, struct xen_sysctl_getdomaininfolist *list)
{
    struct xen_domctl_getdomaininfo info;
    uint32_t number = list->first_domain, count = 0;
    int64_t result = 0;

    while (result == 0 && count < list->max_domains) {
        struct domain *domain = xen_domain_from(number);
        if (domain == NULL) {
            break;
        }
        number = xen_domid(domain) + 1;
        xen_domain_info(domain, &info);
        domain_put(call->ctx, domain);
        result =
            xen_put(call, (uint64_t)list->buffer.p + count * sizeof(info), &info, sizeof(info));
        count += result == 0;
    }
    list->num_domains = count;
    return result;
}

/* What the hypervisor printed, from `index` on or the oldest there is; `index` goes on behind it.
 */
static int64_t read_console(struct xen_call *call, struct xen_sysctl_readconsole *op)
{
    char part[256];
    uint32_t at = op->index, done = 0, count;
    bool oldest = op->incremental == 0;
    int64_t result = 0;
    do {
        uint32_t room = op->count - done;
        room = room < sizeof(part) ? room : (uint32_t)sizeof(part);
        count = console_log(&at, oldest, part, room);
        oldest = false;
        if (count != 0) {
            result = xen_put(call, (uint64_t)op->buffer.p + done, part, count);
            done += count;
        }
    } while (result == 0 && count != 0);
    if (result == 0 && op->clear) {
        console_log_clear(at);
    }
    op->index = at;
    op->count = done;
    return result;
}

int64_t xen_sysctl(struct xen_call *call)
{
    struct xen_sysctl op;
    uint64_t at = call->argument[0];
    if (!call->domain->control) {
        return -XEN_EPERM;
    }
    int64_t result = xen_get(call, at, &op, sizeof(op));
    if (result != 0) {
        return result;
    }
    if (op.interface_version != XEN_SYSCTL_INTERFACE_VERSION) {
        return -XEN_EACCES;
    }
    switch (op.cmd) {
    case XEN_SYSCTL_readconsole:
        result = read_console(call, &op.u.readconsole);
        break;
    case XEN_SYSCTL_physinfo:
        physinfo(call, &op.u.physinfo);
        break;
    case XEN_SYSCTL_getdomaininfolist:
        result = list(call, &op.u.getdomaininfolist);
        break;
    default:
        return xen_unknown(call);
    }
    return result == 0 ? xen_put(call, at, &op, sizeof(op)) : result;
}
