/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pagers and their loads: for load.c, which begins and publishes loads, and pager.c, which hands
 * them to the pager's process. A pager's object lies in its pool; its lock (RANK_CHANNEL) lies in a
 * static table that names pagers by number, and protects the pager, its loads and their waiters.
 */
#ifndef MM_LOAD_H
#define MM_LOAD_H

#include "pager.h"

#define PAGERS_MAX 64u

enum load_state {
    LOAD_FREE = 0,
    LOAD_QUEUED, /* the pager has not taken it yet */
    LOAD_TAKEN,  /* its frame is mapped in the pager's window */
    LOAD_BUSY    /* being mapped, or unmapped and published */
};

struct load {
    uint64_t id;
    struct vcpu_wait *waiters; /* in order */
    struct space *target;      /* whose entry is filled; null when it is gone */
    gfn_t at;                  /* first page under the entry */
    pte_t paged;               /* what the entry was */
    pfn_t frame;               /* destination: one reference */
    uint8_t state;             /* enum load_state */
    uint8_t order;
    uint8_t write;  /* for the target alone, mapped writable */
    uint8_t mapped; /* in the pager's window */
};

struct pager {
    struct pool *pool;
    struct space *space; /* null when it is gone */
    gpa_t window;
    uint64_t next_id;
    struct vcpu_wait *full; /* wait for a load to become free, in order */
    uint16_t number;
    bool closing; /* being destroyed: no load begins */
    struct load loads[PAGER_LOADS];
};
_Static_assert(sizeof(struct pager) <= PAGE_SIZE, "a pager object is one frame");

/* Takes a number that no pager had before; 0 when there is none left. */
uint16_t pager_take_number(struct mm_ctx *ctx);
/* Gives the number to `pager`, or with null gives its place in the table up. */
void pager_set_number(struct mm_ctx *ctx, uint16_t number, struct pager *pager);
/* The lock of a pager; it outlives the pager. */
struct spinlock *pager_lock(const struct pager *pager);
/* The pager of that number with its lock taken; null for none, and no lock is held. */
struct pager *pager_find(struct mm_ctx *ctx, unsigned number);
/* The pager in one of the PAGERS_MAX places of the table, or null; for audits, which take no lock.
 */
struct pager *pager_peek(unsigned place);
/* Calls `visit` for every pager, under its lock. */
void pager_visit(struct mm_ctx *ctx, void (*visit)(void *arg, struct pager *pager), void *arg);

/* Wakes all that wait in `list`, in order. The pager's lock is held. */
void load_wake(struct vcpu_wait **list, enum wait_outcome outcome);
/* The same for those that wait for pages of `space`, which try again. */
void load_wake_space(struct vcpu_wait **list, const struct space *space);
/* Fills the entry of `target` at `at` if it still is `paged`, in a region of the pager `number`.
 * True when the frame's reference is the entry's from now on. In a table with several holders the
 * leaf is read-only, and all have it; parked if the entry was. No lock is held, and no CPU but the
 * caller's reaches the frame. */
bool load_publish(struct mm_ctx *ctx, struct space *target, gfn_t at, unsigned level, pte_t paged,
                  unsigned number, pfn_t frame, unsigned rights);

#endif
