/* SPDX-License-Identifier: BSD-2-Clause */
/* What the control domain's calls have in common: domains by Xen's numbers, and what is told of
 * them. */
#ifndef XEN_CONTROL_H
#define XEN_CONTROL_H

#define __XEN_TOOLS__ 1
#include "calls.h"

#include <xen/domctl.h>

#include "hypercall.h"

/* The domain of that number, with a reference; DOMID_SELF is the caller. Null when there is none.
 */
struct domain *xen_domain_get(struct xen_call *call, uint32_t domid);
/* The first domain whose number is `domid` or above, with a reference; null at the end. */
struct domain *xen_domain_from(uint32_t domid);
/* What getdomaininfo tells of it. */
void xen_domain_info(struct domain *domain, struct xen_domctl_getdomaininfo *info);
/* The domain that a call is to change: its number, DOMID_SELF, or an error in `result`; with its
 * space in use until xen_target_put(). */
struct domain *xen_target(struct xen_call *call, uint32_t domid, int64_t *result);
void xen_target_put(struct xen_call *call, struct domain *domain);
/* Xen's word for what the core refused; XEN_AGAIN and XEN_WAIT. */
int64_t xen_error(enum cleave_status status);
/* Performs one of the kernel's operations on `domain` in the caller's name. 0, -XEN_E... or
 * XEN_AGAIN, XEN_WAIT. */
int64_t xen_perform(struct xen_call *call, struct domain *domain, struct call *operation, op_t *op);

/* What a domain wrote, log_dirty.c. `again`: as in Xen, a call that goes on is another hypercall,
 * whose second argument says which of the domain's it was. */
int64_t xen_log_dirty(struct xen_call *call, struct domain *domain, struct xen_domctl_shadow_op *op,
                      bool again);
/* The domain's quota; how much it may have, as its maker said, is to be in Xen's books. */
enum cleave_status xen_set_limit(struct mm_ctx *ctx, struct domain *domain, uint64_t frames);

/* The state of vcpus, hvm_context.c: those of the operations on `domain` that say so. */
int64_t xen_get_context(struct xen_call *call, struct domain *domain,
                        struct xen_domctl_hvmcontext *op);
int64_t xen_set_context(struct xen_call *call, struct domain *domain,
                        const struct xen_domctl_hvmcontext *op);
int64_t xen_get_record(struct xen_call *call, struct domain *domain,
                       struct xen_domctl_hvmcontext_partial *op);
int64_t xen_get_registers(struct xen_call *call, struct domain *domain,
                          const struct xen_domctl_vcpucontext *op);

#endif
