/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Addresses, frame numbers and ranges as types of their own, the geometry's derived constants, and
 * the context that every operation carries. Level (and order) 0 is the leaf level everywhere.
 */
#ifndef MM_TYPES_H
#define MM_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <geometry.h>

#include "cleave/status.h"

#define PAGE_SIZE (UINT64_C(1) << PAGE_SHIFT)
#define TABLE_ENTRIES (1u << LEVEL_BITS)
#define LEAF_ORDERS 3u                 /* leaves exist at levels 0, 1 and 2 */
#define ROOT_LEVEL (TABLE_LEVELS - 1u) /* level of the entries in a root table */
#define GUEST_BITS (PAGE_SHIFT + LEVEL_BITS * TABLE_LEVELS)
#define GUEST_PAGES (UINT64_C(1) << (GUEST_BITS - PAGE_SHIFT))

_Static_assert(TABLE_ENTRIES * 8 <= PAGE_SIZE, "a table fits in one frame");
_Static_assert(TABLE_LEVELS > LEAF_ORDERS, "a root holds tables only");

#define MUST_CHECK __attribute__((warn_unused_result))

/* Guest-physical byte address, guest frame number, host frame number. */
typedef struct {
    uint64_t v;
} gpa_t;
typedef struct {
    uint64_t v;
} gfn_t;
typedef struct {
    uint32_t v;
} pfn_t;

#define PFN_NONE ((pfn_t){0}) /* frame 0 is never handed out */

static inline gpa_t gpa(uint64_t v) { return (gpa_t){v}; }
static inline gfn_t gfn(uint64_t v) { return (gfn_t){v}; }
static inline pfn_t pfn(uint32_t v) { return (pfn_t){v}; }
static inline gfn_t gpa_to_gfn(gpa_t a) { return gfn(a.v >> PAGE_SHIFT); }
static inline gpa_t gfn_to_gpa(gfn_t f) { return gpa(f.v << PAGE_SHIFT); }
static inline pfn_t pfn_add(pfn_t f, uint64_t n) { return pfn((uint32_t)(f.v + n)); }

/* Half-open: [start, end) in guest frames. */
struct gfn_range {
    gfn_t start;
    gfn_t end;
};

/* Frames that one entry at `level` covers; also the frames in a leaf or block of order `level`. */
static inline uint64_t level_pages(unsigned level) { return UINT64_C(1) << (LEVEL_BITS * level); }
static inline uint64_t level_size(unsigned level) { return level_pages(level) << PAGE_SHIFT; }
/* Slot of `f` in a table whose entries are of `level`. */
static inline unsigned level_slot(gfn_t f, unsigned level)
{
    return (unsigned)(f.v >> (LEVEL_BITS * level)) & (TABLE_ENTRIES - 1u);
}
static inline gfn_t level_align(gfn_t f, unsigned level)
{
    return gfn(f.v & ~(level_pages(level) - 1u));
}

/* Bits set in `word`; compilers call a library for it that the hypervisor does not have. */
static inline unsigned bits_count(uint64_t word)
{
    unsigned count = 0;
    for (; word != 0; word &= word - 1) {
        count++;
    }
    return count;
}

/* Access rights of a leaf or region; a right set without READ is no legal set but 0: no access. */
enum { RIGHT_READ = 1, RIGHT_WRITE = 2, RIGHT_EXEC = 4, RIGHT_ALL = 7 };

/* What was wrong with the arguments of the last failed call made with a context. */
struct mm_error {
    enum cleave_status status;
    const char *argument; /* name of the offending parameter */
    uint64_t value;       /* what it was */
    uint64_t low, high;   /* its legal range, both included; low > high where none applies */
};

/*
 * One per CPU that executes operations. The caller owns it and passes it to every call; it is not
 * shared between CPUs. `budget` counts work units (an entry or a frame each) that a preemptible
 * operation may still spend before it must return CLEAVE_AGAIN; other operations ignore it.
 */
struct mm_ctx {
    unsigned cpu;
    uint64_t budget;
    struct mm_error error;
    uint32_t lock_depth;    /* debug builds: locks held, for the order check */
    uint8_t lock_ranks[16]; /* debug builds: their ranks */
};

/* Records the offending argument in `ctx` and returns `status`. */
static inline enum cleave_status mm_fail(struct mm_ctx *ctx, enum cleave_status status,
                                         const char *argument, uint64_t value, uint64_t low,
                                         uint64_t high)
{
    ctx->error = (struct mm_error){status, argument, value, low, high};
    return status;
}

/* Spends `units` on one step; false when nothing is left and the operation should stop where it is.
 * A step may overdraw, so that a call with any budget gets ahead. */
static inline bool mm_spend(struct mm_ctx *ctx, uint64_t units)
{
    if (ctx->budget == 0) {
        return false;
    }
    ctx->budget = ctx->budget > units ? ctx->budget - units : 0;
    return true;
}

#endif
