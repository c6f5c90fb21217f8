/* SPDX-License-Identifier: BSD-2-Clause */
/* What a domain is told of itself in its identity page (cleave/identity.h): which of the children
 * of a fork it is, a generation id, and the data of whoever forked it. */
#ifndef KERNEL_IDENTITY_H
#define KERNEL_IDENTITY_H

#include "domain.h"

/* Gives `child`, which nobody has yet, its place among `count` children and a copy of `size` bytes
 * of `data` (a page; null when size is 0). CLEAVE_NO_MEMORY, CLEAVE_QUOTA. */
enum cleave_status identity_fork(struct mm_ctx *ctx, struct domain *child, uint32_t index,
                                 uint32_t count, const void *data, uint32_t size) MUST_CHECK;
/* A generation id that no domain had before; told before the next instruction of the domain, whose
 * vcpus do not run. */
void identity_renew(struct domain *domain);
/* The identity of a domain that is being built. */
void identity_make(struct domain *domain);
void identity_free(struct mm_ctx *ctx, struct domain *domain);
/* Before an instruction of the vcpu: stores it into the guest's pages if that is still to be done.
 * CLEAVE_WAIT: the vcpu is queued; then, and for CLEAVE_AGAIN and CLEAVE_QUOTA, call again. */
enum cleave_status identity_attend(struct mm_ctx *ctx, struct vcpu *vcpu) MUST_CHECK;

#endif
