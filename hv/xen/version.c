/* SPDX-License-Identifier: BSD-2-Clause */
/* xen_version (Xen's public/version.h): a Xen 4.17 for auto-translated guests. */
#include "calls.h"

#include <xen/errno.h>
#include <xen/features.h>
#include <xen/version.h>
#include <xen/xen.h>

#define VERSION (4 << 16 | 17)
/* What a guest may count on: memory without its own frame numbers, the callback vector, and the
 * clock of vcpu_info. */
#define FEATURES                                                                                   \
    (1u << XENFEAT_writable_page_tables | 1u << XENFEAT_auto_translated_physmap |                  \
     1u << XENFEAT_hvm_callback_vector | 1u << XENFEAT_hvm_safe_pvclock |                          \
     1u << XENFEAT_memory_op_vnode_supported | 1u << XENFEAT_not_direct_mapped)

static int64_t put_text(struct xen_call *call, const char *text, uint64_t room)
{
    char buffer[sizeof(xen_capabilities_info_t)] = {0};
    for (unsigned i = 0; i + 1 < room && text[i] != '\0'; i++) {
        buffer[i] = text[i];
    }
    return xen_put(call, call->argument[1], buffer, room);
}

int64_t xen_version_op(struct xen_call *call)
{
    uint64_t at = call->argument[1];
    switch (call->argument[0]) {
    case XENVER_version:
        return VERSION;
    case XENVER_extraversion:
        return put_text(call, "-cleave", sizeof(xen_extraversion_t));
    case XENVER_capabilities:
        return put_text(call, "hvm-3.0-x86_64", sizeof(xen_capabilities_info_t));
    case XENVER_changeset:
        return put_text(call, "unavailable", sizeof(xen_changeset_info_t));
    case XENVER_get_features: {
        struct xen_feature_info info;
        int64_t result = xen_get(call, at, &info, sizeof(info));
        if (result == 0) {
            uint32_t features = FEATURES | (uint32_t)call->domain->control << XENFEAT_dom0;
            info.submap = info.submap_idx < XENFEAT_NR_SUBMAPS ? features : 0;
            result = xen_put(call, at, &info, sizeof(info));
        }
        return result;
    }
    case XENVER_pagesize:
        return PAGE_SIZE;
    default:
        return xen_unknown(call);
    }
}
