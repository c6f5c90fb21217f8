/* SPDX-License-Identifier: BSD-2-Clause */
/* Checks the invariants that a state shows, over all spaces of a pool that stands still. */
#ifndef MM_AUDIT_H
#define MM_AUDIT_H

#include "space.h"

/* The first violation found and where. */
struct audit_report {
    unsigned invariant; /* 1 to 10 as in docs/memory-core.md; 0: none */
    const char *what;
    uint32_t space; /* id; 0 where it concerns the pool */
    gfn_t at;
    unsigned level;
    pfn_t table; /* the table that holds the entry */
    unsigned slot;
    pte_t entry;
    uint64_t expected, found;
    uint64_t entries_visited;
};

/* Bytes of scratch memory that an audit of `pool` needs: the caller names the memory. */
uint64_t audit_scratch_bytes(const struct pool *pool);

/* Audits `pool` with its spaces standing still (their vcpus stopped, no call in flight). `scratch`
 * is zeroed memory of at least audit_scratch_bytes(). CLEAVE_OK and report->invariant says; or
 * CLEAVE_COUNT when the scratch memory is too small. Takes no lock and changes nothing. */
enum cleave_status pool_audit(struct mm_ctx *ctx, struct pool *pool, void *scratch,
                              uint64_t scratch_bytes, struct audit_report *report) MUST_CHECK;

/* --- Between audit.c (spaces), audit_walk.c (tables) and audit_pool.c (the allocator) --------- */

/* An audit under way. `expected` counts the references that the walk finds, one word for each
 * descriptor that the pool's range touches; `charged` the frames found charged to each account. */
struct audit {
    struct pool *pool;
    struct audit_report *report; /* its position fields follow the walk until the first violation */
    struct space *space;         /* whose tables are walked; null for what no space holds */
    uint32_t *expected[LEAF_ORDERS];
    uint64_t first[LEAF_ORDERS];
    uint32_t *charged;
};
/* The expected count of a table on the reap list: no entry may add to it. */
#define AUDIT_DEAD UINT32_MAX

/* The word that counts the references to the frame or block of `order` at `f`, in the pool. */
static inline uint32_t *audit_expected(struct audit *audit, pfn_t f, unsigned order)
{
    return &audit->expected[order][(f.v >> (LEVEL_BITS * order)) - audit->first[order]];
}
/* True when `pages` frames from `f` all lie in the audited pool. */
static inline bool audit_owns(const struct audit *audit, pfn_t f, uint64_t pages)
{
    return f.v >= audit->pool->start.v && f.v < audit->pool->end.v &&
           pages <= audit->pool->end.v - f.v;
}
/* Notes a violation where the walk stands; returns false. */
bool audit_violation(struct audit *audit, unsigned invariant, const char *what, uint64_t expected,
                     uint64_t found);
/* The walk stands at no entry: at a descriptor (`f` and its order), or nowhere (PFN_NONE, 0). */
void audit_stand_at(struct audit *audit, pfn_t f, unsigned order);

/* The references of a frame or block of `order` itself, as the descriptors count them. Plain reads:
 * nothing runs. */
uint32_t audit_count(pfn_t f, unsigned order);
/* The same along its chain. */
uint64_t audit_references(pfn_t f, unsigned order);

/* True for a part of a dissolved 1 GiB block that is still to be settled: it is in use, charged as
 * the block was. */
static inline bool audit_unsettled(pfn_t f)
{
    return level_slot(gfn(f.v), 1) >= TABLE_ENTRIES - (unsigned)run_of(f, 2)->unsettled;
}

/* These return false when a violation was noted. Counts a reference of a leaf, pin, map or load: */
bool audit_expect_data(struct audit *audit, pfn_t f, unsigned order);
/* Counts a holder of an object of the pool's own. */
bool audit_expect_object(struct audit *audit, const void *object, const char *what);
/* Pins of `audit->space`, its foreign maps, and other spaces' of its pages. */
bool audit_attachments(struct audit *audit);
/* Counts what a region node on the reap list holds. */
bool audit_dead_node(struct audit *audit, pfn_t node);
/* Walks the tables of `audit->space` beneath its root, or those that it stages. */
bool audit_root(struct audit *audit, pfn_t root);
/* Walks the tables on the reap list. */
bool audit_dead_tables(struct audit *audit);
/* Compares counts with `expected` and the allocator's state with its own sums. */
bool audit_allocator(struct audit *audit);

#endif
