/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Spin locks and a readers-writer spin lock, with the one lock order of the core. A CPU takes locks
 * in rising rank; only table locks are taken several at once (parent before child), and the locks
 * of two spaces (lower address first). Debug builds check every acquisition.
 */
#ifndef MM_LOCK_H
#define MM_LOCK_H

#include "port.h"
#include "types.h"

enum lock_rank {
    RANK_CAP = 1, /* the capability tree */
    RANK_FOREIGN, /* records that tie a page of one space to another space */
    RANK_SPACE,   /* readers: walkers and faults; writer: what changes a space's shape as a whole */
    RANK_CHANNEL, /* one notification channel or pager */
    RANK_TABLE,   /* one exclusive table, hand over hand down the tree */
    RANK_GIGA,    /* references to a 1 GiB block and to the 2 MiB blocks in it */
    RANK_BLOCK,   /* references to the 4 KiB parts of a 2 MiB block */
    RANK_POOL,    /* free lists, accounts, reservations, waiters */
    RANK_END
};

struct spinlock {
    uint32_t held;
};

/* `readers` counts readers; the top bit is the writer's. */
struct rwlock {
    uint32_t state;
};
#define RWLOCK_WRITER (UINT32_C(1) << 31)

static inline void lock_enter(struct mm_ctx *ctx, enum lock_rank rank)
{
#ifdef MM_DEBUG
    uint8_t top = ctx->lock_depth > 0 ? ctx->lock_ranks[ctx->lock_depth - 1] : 0;
    MM_CHECK(ctx->lock_depth < sizeof(ctx->lock_ranks));
    MM_CHECK(rank > top || (rank == top && (rank == RANK_TABLE || rank == RANK_SPACE)));
    ctx->lock_ranks[ctx->lock_depth] = (uint8_t)rank;
    ctx->lock_depth++;
#else
    (void)ctx, (void)rank;
#endif
}

static inline void lock_leave(struct mm_ctx *ctx, enum lock_rank rank)
{
#ifdef MM_DEBUG
    uint32_t i = ctx->lock_depth;
    while (i > 0 && ctx->lock_ranks[i - 1] != rank) {
        i--;
    }
    MM_CHECK(i > 0);
    for (; i < ctx->lock_depth; i++) {
        ctx->lock_ranks[i - 1] = ctx->lock_ranks[i];
    }
    ctx->lock_depth--;
#else
    (void)ctx, (void)rank;
#endif
}

static inline void spin_lock(struct mm_ctx *ctx, struct spinlock *lock, enum lock_rank rank)
{
    lock_enter(ctx, rank);
    while (__atomic_exchange_n(&lock->held, 1, __ATOMIC_ACQUIRE) != 0) {
        while (__atomic_load_n(&lock->held, __ATOMIC_RELAXED) != 0) {
            port_relax(ctx);
        }
    }
}

static inline void spin_unlock(struct mm_ctx *ctx, struct spinlock *lock, enum lock_rank rank)
{
    __atomic_store_n(&lock->held, 0, __ATOMIC_RELEASE);
    lock_leave(ctx, rank);
}

static inline void read_lock(struct mm_ctx *ctx, struct rwlock *lock, enum lock_rank rank)
{
    lock_enter(ctx, rank);
    for (;;) {
        uint32_t s = __atomic_load_n(&lock->state, __ATOMIC_RELAXED);
        if (!(s & RWLOCK_WRITER) &&
            __atomic_compare_exchange_n(&lock->state, &s, s + 1, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED)) {
            return;
        }
        port_relax(ctx);
    }
}

static inline void read_unlock(struct mm_ctx *ctx, struct rwlock *lock, enum lock_rank rank)
{
    __atomic_fetch_sub(&lock->state, 1, __ATOMIC_RELEASE);
    lock_leave(ctx, rank);
}

static inline void write_lock(struct mm_ctx *ctx, struct rwlock *lock, enum lock_rank rank)
{
    lock_enter(ctx, rank);
    /* First keep new readers out, then wait for those inside. */
    while (__atomic_fetch_or(&lock->state, RWLOCK_WRITER, __ATOMIC_ACQUIRE) & RWLOCK_WRITER) {
        port_relax(ctx);
    }
    while (__atomic_load_n(&lock->state, __ATOMIC_ACQUIRE) != RWLOCK_WRITER) {
        port_relax(ctx);
    }
}

static inline void write_unlock(struct mm_ctx *ctx, struct rwlock *lock, enum lock_rank rank)
{
    __atomic_fetch_and(&lock->state, ~RWLOCK_WRITER, __ATOMIC_RELEASE);
    lock_leave(ctx, rank);
}

#endif
