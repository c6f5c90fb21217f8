/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rights that a domain was given over domains which it did not make (CLEAVE_OP_GRANT). They lie in
 * a frame of the domain that has them, are not inherited by its forks, and end with either domain.
 */
#ifndef KERNEL_GRANT_H
#define KERNEL_GRANT_H

#include "domain.h"

/* Gives `to` exactly these CLEAVE_RIGHT_* over `over`, in place of those it has; 0 takes them back.
 * Both have a reference. CLEAVE_COUNT (grants): a frame of them is in use; CLEAVE_NO_MEMORY,
 * CLEAVE_QUOTA: none for the first. */
enum cleave_status grant_set(struct mm_ctx *ctx, struct domain *to, struct domain *over,
                             uint32_t rights) MUST_CHECK;
/* Which CLEAVE_RIGHT_* the domain has over that one by a grant. */
uint32_t grant_rights(struct domain *domain, const struct domain *over);
/* The domain goes: gives the frame back. */
void grants_free(struct mm_ctx *ctx, struct domain *domain);

#endif
