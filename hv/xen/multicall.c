/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * multicall (Xen's public/xen.h): several calls in one. Entries are performed in order, each with
 * its result stored; the arguments say which is next, for when it is executed again.
 */
#include "calls.h"

#include <stddef.h>

#include <xen/errno.h>
#include <xen/xen.h>

#define ENTRIES_MAX 32u /* at a time */

/* How far an operation came that is to be executed again. */
static int64_t keep_place(struct xen_call *call, uint64_t at, struct multicall_entry *entry,
                          const struct xen_call *inner)
{
    entry->op = inner->number;
    __builtin_memcpy(entry->args, inner->argument, sizeof(entry->args));
    return xen_put(call, at, entry, sizeof(*entry));
}

static int64_t perform(struct xen_call *call, uint64_t at)
{
    struct multicall_entry entry;
    int64_t result = xen_get(call, at, &entry, sizeof(entry));
    if (result == 0) { /* what is done is not done again for want of a place for its result */
        result = xen_put(call, at + offsetof(struct multicall_entry, result), &entry.result,
                         sizeof(entry.result));
    }
    if (result != 0) {
        return result;
    }
    struct xen_call inner = *call;
    inner.number = entry.op;
    for (unsigned i = 0; i < sizeof(entry.args) / sizeof(entry.args[0]); i++) {
        inner.argument[i] = entry.args[i];
    }
    result = entry.op != __HYPERVISOR_multicall ? xen_operate(&inner) : -XEN_EINVAL;
    if (xen_repeats(result)) {
        if (inner.number != entry.op ||
            __builtin_memcmp(inner.argument, entry.args, sizeof(entry.args)) != 0) {
            int64_t kept = keep_place(call, at, &entry, &inner);
            return kept == -XEN_EFAULT ? kept : result;
        }
        return result;
    }
    return xen_put(call, at + offsetof(struct multicall_entry, result), &result, sizeof(result));
}

int64_t xen_multicall(struct xen_call *call)
{
    uint64_t *at = &call->argument[0], *left = &call->argument[1];
    *left = (uint32_t)*left;
    for (unsigned i = 0; *left != 0; i++, *at += sizeof(struct multicall_entry), --*left) {
        if (i == ENTRIES_MAX) {
            return XEN_AGAIN;
        }
        int64_t result = perform(call, *at);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}
