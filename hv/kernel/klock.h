/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Locks of hv/kernel/: held for a few instructions, never while the core is called or a flush is
 * waited for, but for those that are only ever tried. Order: table of domains, run queue.
 * port_wake() takes the run queue inside locks of the core.
 */
#ifndef KERNEL_KLOCK_H
#define KERNEL_KLOCK_H

#include "platform.h"

struct klock {
    uint32_t held;
    uint32_t claimed; /* somebody waits for it: others do not get it */
};

static inline bool klock_seize(struct klock *lock)
{
    return __atomic_exchange_n(&lock->held, 1, __ATOMIC_ACQUIRE) == 0;
}
static inline bool klock_try(struct klock *lock)
{
    return __atomic_load_n(&lock->claimed, __ATOMIC_RELAXED) == 0 && klock_seize(lock);
}
/* As klock_try(), but where it fails, klock_try() fails for all until this, called again, has
 * succeeded. For one CPU at a time. */
static inline bool klock_claim(struct klock *lock)
{
    bool held = klock_seize(lock);
    __atomic_store_n(&lock->claimed, !held, __ATOMIC_RELAXED);
    return held;
}
static inline void klock_take(struct klock *lock)
{
    while (!klock_seize(lock)) {
        cpu_pause();
    }
}
static inline void klock_release(struct klock *lock)
{
    __atomic_store_n(&lock->held, 0, __ATOMIC_RELEASE);
}

#endif
