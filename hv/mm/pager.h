/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loading on demand. A pager is a process with a space of its own (the control domain's); requests
 * hand it a frame mapped in a window of that space, which it fills. Its lock is RANK_CHANNEL.
 */
#ifndef MM_PAGER_H
#define MM_PAGER_H

#include "space.h"

#define PAGER_LOADS 16u

/* In a paged entry of a space that has a base: made or moved there since, so that what the base has
 * at this page is something else. What makes or moves paged entries sets it with paged_own(). */
#define PTE_PAGED_OWN PTE_FOREIGN
static inline pte_t paged_own(const struct space *space, pte_t paged)
{
    return space->base != NULL ? paged | PTE_PAGED_OWN : paged;
}
/* The entry of one part when a paged entry at level 1 becomes a table of level-0 entries. */
static inline pte_t paged_part(pte_t paged, unsigned slot)
{
    return paged + ((uint64_t)slot << 12);
}

struct pager;
struct load_request {
    uint64_t id;
    uint32_t store;
    uint64_t offset; /* in pages */
    unsigned order;  /* 0 or 1: pages to fill, at `window` */
    gpa_t window;    /* where the destination is mapped, writable, in the pager's space */
};

/* `space` and `window` (PAGER_LOADS naturally aligned leaves of 2 MiB, REGION_NONE) are where
 * destinations get mapped. CLEAVE_DYING for a pool that is being revoked. */
enum cleave_status pager_create(struct mm_ctx *ctx, struct pool *pool, struct space *space,
                                gpa_t window, struct pager **out) MUST_CHECK;
enum cleave_status pager_destroy(struct mm_ctx *ctx, struct pager *pager) MUST_CHECK;

/* Gives [at, at + size) REGION_PAGED and entries of `order` (0 or 1) that name `store` (0..127) and
 * rising offsets from `offset` (pages). The range must be REGION_NONE. Preemptible. */
enum cleave_status space_map_paged(struct mm_ctx *ctx, struct space *space, gpa_t at, uint64_t size,
                                   struct pager *pager, unsigned order, uint32_t store,
                                   uint64_t offset, const struct region *region) MUST_CHECK;

/* Oldest request not yet taken. Its destination is now mapped in the pager's space. */
enum cleave_status pager_next(struct mm_ctx *ctx, struct pager *pager, struct load_request *out,
                              bool *found) MUST_CHECK;
/* The destination of `id` is filled (`ok`) or cannot be. Takes it out of the pager's space,
 * flushes, then publishes it and wakes who waits. CLEAVE_INVALID. */
enum cleave_status pager_done(struct mm_ctx *ctx, struct pager *pager, uint64_t id,
                              bool ok) MUST_CHECK;
/* Asks for a page before anyone faults on it. CLEAVE_OK also when it is loaded or under way. */
enum cleave_status pager_prefetch(struct mm_ctx *ctx, struct pager *pager, struct space *space,
                                  gpa_t at) MUST_CHECK;
/* The pager's process died: requests it had taken are queued again, unmapped; waiters stay. */
enum cleave_status pager_restart(struct mm_ctx *ctx, struct pager *pager) MUST_CHECK;

/* `space` is going away: loads for it are given up and nobody waits for them any more. */
void pager_forget(struct mm_ctx *ctx, struct space *space);

/* For fault.c: the entry `paged` of `space` at `at` is to be loaded for a read or a write. No lock
 * is held. CLEAVE_OK: try again. CLEAVE_WAIT: queued. */
enum cleave_status pager_fault(struct mm_ctx *ctx, struct space *space, gfn_t at, bool write,
                               pte_t paged, unsigned level, struct vcpu_wait *wait) MUST_CHECK;

/* Is `space` that of a pager's process? */
bool pager_uses(struct mm_ctx *ctx, const struct space *space);

/* `wait` is queued for a load and its vcpu goes away: takes it out. */
void pager_cancel_wait(struct mm_ctx *ctx, struct vcpu_wait *wait);

/* Between pager.c and paged.c. The pager's number, as regions name it, and its pool. */
uint16_t pager_number(const struct pager *pager);
struct pool *pager_pool(const struct pager *pager);
/* A paged entry of level 1 for which there is no block becomes a table of level-0 entries. */
enum cleave_status paged_split(struct mm_ctx *ctx, struct space *space, struct payer *payer,
                               gfn_t at, pte_t paged) MUST_CHECK;

/* `space` is dying and no CPU runs it: its loads end, and a pager whose process it was has none. To
 * be called while the space still has all its tables, and before its foreign maps are dropped. */
void pager_forget(struct mm_ctx *ctx, struct space *space);

/* For audits: calls `visit` once for each reference that a load holds on a frame or block of
 * `pool`; a leaf in a pager's window has none of its own. Takes no lock. */
void pager_visit_loads(struct pool *pool, void (*visit)(void *arg, pfn_t frame, unsigned order),
                       void *arg);

#endif
