/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pool is the memory of one tenant: frames of three orders, tables and objects of a family of
 * spaces. One contiguous range of host frames, aligned to 2 MiB. Its lock (RANK_POOL) protects the
 * free maps, the accounts, the reservations and the queue of waiters.
 */
#ifndef MM_POOL_H
#define MM_POOL_H

#include "frame.h"
#include "types.h"

struct space;
struct channel;

/* What one domain is charged for. Charges never move; the record outlives the domain until the last
 * frame that is charged to it goes. Counts are in 4 KiB frames. */
struct account {
    uint64_t charged;
    uint64_t limit; /* quota */
    union {
        uint32_t promised;  /* in use: to its payers by pool_reserve(), part of the quota as well */
        uint32_t next_free; /* free list: index + 1 */
    };
    uint32_t live; /* its owner still exists */
};

/* Who pays for an allocation: an account of a pool, and the frames reserved for it. */
struct payer {
    struct pool *pool;
    uint32_t account;
    bool promised;     /* by pool_reserve(), the quota for them, too; a grant is not */
    uint64_t reserved; /* 4 KiB frames set aside for this payer; under the pool's lock */
};

/* A vcpu that waits for memory, a verdict or a load. Embedded in the caller's vcpu object. */
enum wait_kind { WAIT_NONE = 0, WAIT_MEMORY, WAIT_VERDICT, WAIT_RING, WAIT_LOAD, WAIT_EVENT };
enum wait_outcome { WAIT_RETRY = 0, WAIT_DENIED, WAIT_FAILED };
struct vcpu_wait {
    struct vcpu_wait *next;
    struct space *space;
    uint32_t vcpu; /* number in its domain, as events report it */
    enum wait_kind kind;
    enum wait_outcome outcome; /* why it was woken; WAIT_DENIED and WAIT_FAILED end the access */
    bool memory_fails;         /* CLEAVE_NO_MEMORY instead of waiting for memory */
    uint64_t need;             /* WAIT_MEMORY: frames asked for */
    struct payer grant;        /* WAIT_MEMORY, woken: frames granted to this vcpu's next fault */
    gfn_t at;                  /* the page it waits for */
};

struct pool {
    pfn_t start, end; /* host frames [start, end), multiples of a 2 MiB block */
    uint64_t frames;  /* end - start */
    pfn_t account_directory;
    uint32_t accounts;     /* records made so far */
    uint32_t account_free; /* free list: index + 1 */
    uint32_t account_used; /* records not on it: live, or charged */
    uint32_t reap_tables;  /* dead tables, by frame number, linked through frame.rmap */
    uint32_t reap_gigas;   /* 1 GiB runs with unsettled blocks: index + 1, by run.owner */
    uint8_t dying;
    /* What each allocation writes begins a cache line: what faults only read lies before it. */
    struct spinlock lock __attribute__((aligned(64)));
    uint32_t giga_free;         /* list of wholly free 1 GiB runs */
    uint32_t giga_partial;      /* list of BROKEN 1 GiB runs with free 2 MiB blocks */
    uint32_t block_partial;     /* list of BROKEN 2 MiB runs with free frames */
    uint32_t block_aside;       /* list of RUN_ASIDE runs */
    uint64_t free;              /* free 4 KiB frames, set-aside ones included */
    uint64_t aside;             /* of these: set aside in collapse runs */
    uint64_t reserved;          /* promised by reservations and grants; at most `free` */
    uint64_t kind[FRAME_KINDS]; /* frames in use by kind */
    struct run edge[2] __attribute__((aligned(64))); /* free 2 MiB blocks at either end, in 1 GiB
                                                        runs not wholly ours */
    struct vcpu_wait *wait_first, *wait_last;
    struct space *spaces;     /* every space and snapshot of the family */
    struct account own;       /* account 0: the pool's own objects; no limit */
    struct payer payer;       /* charges account 0 */
    uint32_t next_id;         /* of the next space */
    uint32_t last_channel;    /* numbers of channels rise and are not used again */
    struct channel *channels; /* live channels, highest number first; see notify.c */
    uint64_t rejected;        /* allocations refused so far */
};

/* Makes [start, end) a pool; its object lies in its first frame. The range is untyped memory that
 * nothing else uses. Errors: CLEAVE_ALIGN (not multiples of 2 MiB), CLEAVE_RANGE, CLEAVE_COUNT
 * (empty). O(1 GiB blocks + 2 * 512). */
enum cleave_status pool_create(struct mm_ctx *ctx, pfn_t start, pfn_t end,
                               struct pool **out) MUST_CHECK;

/* Ends a pool whose spaces, channels, pagers and accounts are gone, for whose memory nobody waits,
 * and all of whose frames but its own (its object, the records of accounts) are free; its range is
 * untyped memory again. CLEAVE_BUSY with the number of frames in use, and nothing changed,
 * otherwise. */
enum cleave_status pool_destroy(struct mm_ctx *ctx, struct pool *pool) MUST_CHECK;

/*
 * Gives the pool `frames` frames by moving its end. The frames that it gains are untyped memory
 * that nothing else uses; waiters are woken as far as they reach. Those that it gives up must be
 * free, and what is left cover what is reserved: else CLEAVE_BUSY, and ctx->error.low is the size
 * down to which it can shrink now. Nothing is moved; set-aside runs of which nothing is used end,
 * also where it is refused. CLEAVE_AGAIN, nothing else changed: the budget was spent on these.
 * CLEAVE_ALIGN (no multiple of a 2 MiB block), CLEAVE_COUNT (0), CLEAVE_RANGE (past the machine);
 * all of them name `frames`. No other resize of the pool may run. O(1 GiB blocks + 2 * 512).
 */
enum cleave_status pool_resize(struct mm_ctx *ctx, struct pool *pool, uint64_t frames) MUST_CHECK;

/* For a pool that could not be finished or is empty: its runs are nobody's again. */
void pool_release_runs(struct mm_ctx *ctx, struct pool *pool);

/* The pool that a frame belongs to; null for memory that is no pool's. */
struct pool *pool_of(pfn_t f);

/*
 * Allocates one frame or block of `order`, count 1, kind `kind`, charged to the payer's account;
 * first from the payer's reservation, else from what is free and not reserved. The bytes are what
 * they were: the caller overwrites or zeroes all of them before a domain sees any.
 * CLEAVE_NO_MEMORY, CLEAVE_QUOTA; nothing changed.
 */
enum cleave_status pool_alloc(struct mm_ctx *ctx, struct payer *payer, unsigned order,
                              enum frame_kind kind, pfn_t *out) MUST_CHECK;

/* True when a block was refused for what a smaller one may still be had for. */
static inline bool pool_lacks(enum cleave_status status)
{
    return status == CLEAVE_NO_MEMORY || status == CLEAVE_QUOTA;
}

/* Allocates the 4 KiB frame `f` itself, which must be free in a BROKEN run or set aside. For copies
 * to their own offset in a run. CLEAVE_NO_MEMORY when it is in use, or the pool's no longer. */
enum cleave_status pool_alloc_at(struct mm_ctx *ctx, struct payer *payer, pfn_t f,
                                 enum frame_kind kind) MUST_CHECK;

/* Gives back a frame or block that has no references left, nor any beneath it; with a table that
 * was never put in place also the run set aside for it. */
void pool_free(struct mm_ctx *ctx, pfn_t f, unsigned order);
/* Gives back a 4 KiB frame that nobody but its payer has seen (count 1), into the payer's
 * reservation, so that a race that was lost takes nothing from it. */
void pool_return(struct mm_ctx *ctx, struct payer *payer, pfn_t f);
/* To whom a frame that is allocated next is returned if it is in vain: to `payer` while it has a
 * reservation or grant, which is what the frame comes from. Null: it is freed. */
static inline struct payer *payer_reserves(struct payer *payer)
{
    return payer->reserved != 0 ? payer : NULL;
}
/* Gives back the 4 KiB frames f + i for the bits i set in `bits`, all in one 2 MiB run. */
void pool_free_frames(struct mm_ctx *ctx, pfn_t f, uint64_t bits);

/* For frame.c, under the locks of the chain: a block that was handed out whole has parts in use and
 * no whole reference; its unreferenced parts become free, the others are charged as it was. */
void pool_break_block(struct mm_ctx *ctx, pfn_t block);
/* A 1 GiB block becomes BROKEN with all its 2 MiB blocks in use ... */
void pool_break_giga(struct mm_ctx *ctx, pfn_t giga);
/* ... and each of them, in turn, a block of its own, charged to `account`. */
void pool_settle_block(struct mm_ctx *ctx, pfn_t block, uint32_t account);
/* A BROKEN run of `order` all of whose parts are in use and charged alike is handed out as one
 * block again. CLEAVE_BUSY where that does not hold. */
enum cleave_status pool_join(struct mm_ctx *ctx, pfn_t f, unsigned order) MUST_CHECK;

/* Sets a free 2 MiB block aside for the copies of table `owner`; PFN_NONE when there is none. Its
 * frames still count as free, and are had by whoever finds no other. */
pfn_t pool_set_aside(struct mm_ctx *ctx, struct pool *pool, pfn_t owner);
/*
 * What a split and the copy that follows it take, at once: a frame for the level-0 table `*table`,
 * as pool_alloc() gives it, and, where they are to be had, a run set aside for it (in its rmap) and
 * in `*copy` part `part` of that run for data, else PFN_NONE. The payer has nothing reserved. When
 * the table is freed unused the run is given back with it. CLEAVE_NO_MEMORY, CLEAVE_QUOTA; nothing
 * changed.
 */
enum cleave_status pool_alloc_split(struct mm_ctx *ctx, struct payer *payer, unsigned part,
                                    pfn_t *table, pfn_t *copy) MUST_CHECK;
/* Is the run at `block` still set aside for `owner`? It ends at any time when memory runs short. */
bool pool_is_aside(pfn_t block, pfn_t owner);

/* A reservation: moves `frames` from unreserved free memory to `payer`, whose 4 KiB allocations
 * then cannot fail until it is used up: the quota counts them as charged from now on.
 * CLEAVE_RESERVE and nothing changed when there are not that many; CLEAVE_QUOTA when the account
 * could not be charged for them. */
enum cleave_status pool_reserve(struct mm_ctx *ctx, struct payer *payer,
                                uint64_t frames) MUST_CHECK;
/* Gives back what is left of it. */
void pool_unreserve(struct mm_ctx *ctx, struct payer *payer);

/* Makes an account with a quota of `limit` frames. CLEAVE_NO_MEMORY, CLEAVE_COUNT (65,535 exist).
 */
enum cleave_status account_create(struct mm_ctx *ctx, struct pool *pool, uint64_t limit,
                                  uint32_t *out) MUST_CHECK;
/* The owner is gone; the record goes with the last frame charged to it. */
void account_release(struct mm_ctx *ctx, struct pool *pool, uint32_t account);
/* Sets the quota; may lie below what is charged and promised, which then only stops further charges
 * and promises. */
enum cleave_status account_set_limit(struct mm_ctx *ctx, struct pool *pool, uint32_t account,
                                     uint64_t limit) MUST_CHECK;
/* The record; null for an index that was never made. */
struct account *account_of(struct pool *pool, uint32_t account);

/* Puts a 1 GiB run with unsettled blocks on the list, or takes one off: PFN_NONE when it is empty.
 */
void pool_defer_giga(struct mm_ctx *ctx, pfn_t giga);
pfn_t pool_next_giga(struct mm_ctx *ctx, struct pool *pool);
/* Is anything on either list? */
static inline bool pool_has_dead(const struct pool *pool)
{
    return __atomic_load_n(&pool->reap_tables, __ATOMIC_RELAXED) != 0 ||
           __atomic_load_n(&pool->reap_gigas, __ATOMIC_RELAXED) != 0;
}
/* Puts a dead table or region node (count 0) on the reap list; a run set aside for it is given
 * back. */
void pool_defer_table(struct mm_ctx *ctx, struct pool *pool, pfn_t table);
/* Takes one off; PFN_NONE when the list is empty. */
pfn_t pool_next_dead_table(struct mm_ctx *ctx, struct pool *pool);

/* Queues `wait` until `need` frames are free, in order. Called by faults. */
void pool_wait(struct mm_ctx *ctx, struct pool *pool, struct vcpu_wait *wait, uint64_t need);
/* Wakes waiters, first come first served, as far as unreserved free memory reaches; each takes what
 * it asked for as a grant. Called after frames were freed. */
void pool_wake(struct mm_ctx *ctx, struct pool *pool);
/* Takes a waiter out of the queue (its vcpu is going away) or gives back its grant of this pool. */
void pool_cancel_wait(struct mm_ctx *ctx, struct pool *pool, struct vcpu_wait *wait);

#endif
