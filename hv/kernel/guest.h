/* SPDX-License-Identifier: BSD-2-Clause */
/* A guest's memory by its own linear addresses, as hypercalls name it. */
#ifndef KERNEL_GUEST_H
#define KERNEL_GUEST_H

#include "domain.h"

/* Copies between the memory of the calling vcpu's guest and the hypervisor's, through its page
 * tables of the moment, as guest_walk.h says: no paging, 32-bit, PAE or 4-level; supervisor rights,
 * as the caller runs in ring 0. Any address, size up to 1 MiB. CLEAVE_FAULT (argument `name`, the
 * address that is not mapped); CLEAVE_WAIT: the vcpu is queued, execute again; CLEAVE_INVALID
 * (paging): 5 levels. What was written before a failure stays written. */
enum cleave_status guest_read(struct mm_ctx *ctx, struct vcpu *vcpu, uint64_t linear, void *to,
                              uint64_t size, const char *name) MUST_CHECK;
enum cleave_status guest_write(struct mm_ctx *ctx, struct vcpu *vcpu, uint64_t linear,
                               const void *from, uint64_t size, const char *name) MUST_CHECK;

/* A call begins: the guest may have changed its page tables since the last one. */
void guest_forget_walk(struct vcpu *vcpu);

#endif
