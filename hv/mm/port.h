/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the memory core needs from the machine below it. hv/host/ implements it in a Linux process,
 * hv/x86/ on hardware. Nothing else is called from hv/mm/.
 */
#ifndef MM_PORT_H
#define MM_PORT_H

#include "types.h"

struct space;
struct pool;
struct vcpu_wait;

/* Copies and clears `pages` whole frames; addresses are direct-map pointers, page-aligned. */
void port_copy_pages(void *to, const void *from, uint64_t pages);
void port_zero_pages(void *to, uint64_t pages);

/*
 * Invalidates on the calling CPU every translation cached for `tag`, nested leaves and
 * paging-structure entries alike (INVEPT single-context, SDM 3C 29.4.3.1; INVLPGA/TLB_CONTROL by
 * ASID, APM 2 15.16). `tag` is the host frame number of the space's root table.
 */
void port_flush_local(struct mm_ctx *ctx, pfn_t tag);

/*
 * Makes CPU `cpu` leave guest mode and call flush_acknowledge(); returns at once. Only called for
 * CPUs that published that they run the space.
 */
void port_kick(struct mm_ctx *ctx, unsigned cpu);

/* Called in every wait loop: pauses the CPU; the hosted port runs other simulated CPUs here. */
void port_relax(struct mm_ctx *ctx);

/* A vcpu that waited may execute its access again. Called with a pool or channel lock held. */
void port_wake(struct vcpu_wait *wait);

/* `space` found its pool empty and its vcpu now waits: tell the owner. No lock is held. */
void port_starved(struct space *space);

/* True when the next allocation is to be refused (failure injection). Production ports: false. */
bool port_refuse_allocation(void);

/* Nanoseconds since some moment before the first call; the same clock on every CPU. */
uint64_t port_now(void);

/* A number that guests cannot predict. */
uint64_t port_random(void);

/* The state is corrupt: print and stop the machine. Never called for what a guest can cause. */
_Noreturn void port_panic(const char *file, int line, const char *what);

/* Points between two steps of a protocol, for tests that interleave CPUs or stop there. */
enum port_point {
    POINT_ENTRY,        /* before a live entry is changed */
    POINT_COPY,         /* source held, no lock held, before bytes are copied */
    POINT_COPIED,       /* bytes copied, no lock held, before the entry is compared again */
    POINT_SPLIT_RAISED, /* split: parts raised, head not yet lowered */
    POINT_MERGE_RAISED, /* collapse: head raised, parts not yet lowered */
    POINT_SPREAD,       /* the parts of a run have their share of its splits, which still count */
    POINT_TABLE_COPIED, /* table copied and counted, not yet linked */
    POINT_FLUSH,        /* batch: entries changed, flush not yet begun */
    POINT_FLUSHED,      /* batch: flush acknowledged, nothing dropped yet */
    POINT_DROP,         /* one reference is about to be dropped */
    POINT_FREE,         /* a frame is about to go back to its pool */
    POINT_OWNER,        /* whose the frames of a 1 GiB run are is said elsewhere from now on */
    POINT_RELOCK,       /* between two holds of a lock: what was found may be another */
    POINT_PREEMPT,      /* a preemptible operation is about to stop */
    POINT_END
};
/* Compiled away unless MM_HOOKS is defined. `a` and `b` say what the point is about. */
#ifdef MM_HOOKS
void port_point(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b);
#else
static inline void port_point(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b)
{
    (void)ctx, (void)point, (void)a, (void)b;
}
#endif

/* Always on: corrupted state must stop the machine. */
#define MM_CHECK(condition)                                                                        \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0)) {                                                   \
            port_panic(__FILE__, __LINE__, #condition);                                            \
        }                                                                                          \
    } while (0)

/* Debug builds only: invariants that the code relies on. */
#ifdef MM_DEBUG
#define MM_ASSERT(condition) MM_CHECK(condition)
#else
#define MM_ASSERT(condition) ((void)sizeof(condition))
#endif

#endif
