/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machine's memory as the kernel deals it out: all RAM that the hypervisor does not use becomes
 * untyped memory in the first capability node. A tenant has a piece of it, and in that a pool of
 * its size. Pieces without a pool that lie side by side are one piece.
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
/* Retypes a pool of `*bytes` (rounded down to 2 MiB; 0: nearly all of the largest piece that is
 * left), and says how many it has. CLEAVE_EXISTS (name), CLEAVE_COUNT (pools: TENANTS_MAX; size:
 * less than 2 MiB), CLEAVE_NO_MEMORY (size), and CLEAVE_AGAIN while another CPU makes, resizes
 * or deletes one. */
enum cleave_status tenant_make(struct mm_ctx *ctx, const char *name, uint64_t *bytes) MUST_CHECK;
/* Moves the end of a pool, so that it has `*bytes` (rounded down to 2 MiB), and says how many it
 * has. CLEAVE_NOT_MAPPED (name); CLEAVE_DYING (name): it is being deleted; CLEAVE_COUNT (size: less
 * than 2 MiB); CLEAVE_NO_MEMORY (size): no more lies without a pool right behind it than the error
 * says; CLEAVE_BUSY (size): down to what the error says nothing is in use or reserved. Preemptible;
 * CLEAVE_AGAIN as above, too. */
enum cleave_status tenant_resize(struct mm_ctx *ctx, const char *name, uint64_t *bytes) MUST_CHECK;
/* Ends a pool without domains. CLEAVE_NOT_MAPPED (name); CLEAVE_BUSY (spaces): there are domains,
 * snapshots or bases in it, or memory that one of them held is not all given back. Preemptible:
 * from the first step on no domain can be made in it. */
enum cleave_status tenant_delete(struct mm_ctx *ctx, const char *name) MUST_CHECK;
/* The pool of a tenant; null where there is none. It stays as long as a space is in it, or at
 * boot. */
struct pool *tenant_pool(const char *name);
/* The number that POOL_LIST gives a pool, 1 to TENANTS_MAX; there is a space in it. */
uint32_t tenant_number(const struct pool *pool);
/* An empty space in the pool of tenant number `index`, as space_create() makes it.
 * CLEAVE_NOT_MAPPED (pool): there is none, or it is being deleted. CLEAVE_AGAIN as above. */
enum cleave_status tenant_create_space(struct mm_ctx *ctx, unsigned index, uint64_t limit,
                                       struct space **space) MUST_CHECK;

/* Takes a waiter out of the channels of all pools: its vcpu may wait for a verdict over what it
 * writes in a domain of another pool. As channel_cancel_wait(). */
void tenants_cancel_wait(struct mm_ctx *ctx, struct vcpu_wait *wait);

struct tenant_info {
    char name[TENANT_NAME_SIZE];
    uint64_t frames, free, reserved; /* while it is being deleted, all but the first are 0 */
    uint32_t spaces;                 /* accounts that are in use */
    bool closing;
};
/* Tenant number `index`, 0 to TENANTS_MAX - 1; false where there is none. */
bool tenant_look(unsigned index, struct tenant_info *info);
/* Frames of the largest pool that could be made now. */
uint64_t tenant_room(struct mm_ctx *ctx);

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
