/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machine's memory as the kernel deals it out: all RAM that the hypervisor does not use becomes
 * untyped memory in the first capability node, and each tenant's pool is retyped from it.
 */
#ifndef KERNEL_TENANT_H
#define KERNEL_TENANT_H

#include "audit.h"
#include "cap.h"

#define TENANTS_MAX 16u
#define TENANT_NAME_SIZE 32u

/* Makes the core's machine and the untyped memory. Stops the machine with a message when there is
 * too little. */
void tenants_start(struct mm_ctx *ctx);
/* Retypes a pool of `bytes` (rounded down to 2 MiB; 0: nearly all that is left). CLEAVE_EXISTS
 * (name), CLEAVE_COUNT (TENANTS_MAX), and the errors of untyped_retype(). */
enum cleave_status tenant_make(struct mm_ctx *ctx, const char *name, uint64_t bytes) MUST_CHECK;
/* The pool of a tenant; null where there is none. */
struct pool *tenant_pool(const char *name);
/* Tenant number `index`: its name and pool; null past the last. */
const char *tenant_at(unsigned index, struct pool **pool);

/* Audits a pool while the world stands still. CLEAVE_COUNT: no scratch memory for one so large. */
enum cleave_status tenant_audit(struct mm_ctx *ctx, struct pool *pool,
                                struct audit_report *report) MUST_CHECK;
/* Audits every pool and the capabilities, and says on the console what it found; true when clean.
 */
bool tenants_audit(struct mm_ctx *ctx);
/* With all domains destroyed: is every pool as empty as it was when it was made? */
bool tenants_empty(void);

/* A number that is the same for two pages that share a frame, and tells nothing else. */
uint64_t tenant_frame_name(pfn_t frame);

#endif
