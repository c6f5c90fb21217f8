/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frame descriptors and reference counts. Each order has a dense array of its own: a 4 KiB frame, a
 * 2 MiB block and a 1 GiB block each have a `struct frame` (12 bytes), and each block has a
 * `struct run` with its lock and its free map. Together below 12.5 bytes per 4 KiB.
 *
 * References: a leaf entry, a pin or a foreign map of order n holds one reference on the descriptor
 * of its own order. A 4 KiB part is therefore referenced as often as the sum along its chain says:
 * 1 GiB head + 2 MiB head + part. The references of a part are the holders that have split its
 * block, which the block's run counts once for all parts (`split`), and what its own descriptor
 * counts beside: frame_count() adds the two. Locks: the lock of a 1 GiB run protects the counts of
 * that block and of the 2 MiB blocks in it, `split` of that run included; the lock of a 2 MiB run
 * those of its 4 KiB parts, and under it a run with a part in use goes from WHOLE to BROKEN and
 * back. The counts of tables, region nodes and objects are atomic and need no lock.
 */
#ifndef MM_FRAME_H
#define MM_FRAME_H

#include "lock.h"
#include "types.h"

struct pt_format;

enum frame_kind {
    FRAME_FREE = 0, /* or a part of a block that is mapped whole and not referenced on its own */
    FRAME_DATA,
    FRAME_TABLE,  /* nested page table */
    FRAME_REGION, /* node of a region tree */
    FRAME_OBJECT, /* pool, space, channel, capability node, account page */
    FRAME_KINDS
};

/*
 * bits: slot of the reverse pointer 0..8, kind 9..12, lock bit of a table 13, level of a
 * table 14..15. rmap: for DATA the table that maps it (a hint: checked before use); for a level-0
 * TABLE the first frame of the 2 MiB run set aside for its copies (0 for none, under the table's
 * lock); for a dead table the next one on its pool's reap list. count: for DATA less than its
 * references by `split` of the run above, modulo 2^32.
 */
struct frame {
    uint32_t count;
    uint16_t account;
    uint16_t bits;
    uint32_t rmap;
};
_Static_assert(sizeof(struct frame) == 12, "descriptors stay within 16 bytes per 4 KiB");

#define FRAME_SLOT_MASK 0x1ffu
#define FRAME_KIND_SHIFT 9
#define FRAME_KIND_MASK 0xfu
#define FRAME_LOCK (1u << 13)
#define FRAME_LEVEL_SHIFT 14
_Static_assert(TABLE_ENTRIES <= FRAME_SLOT_MASK + 1, "a slot fits");

enum run_state {
    RUN_NONE = 0, /* free, or part of the order above */
    RUN_WHOLE,    /* handed out as one block */
    RUN_BROKEN,   /* its parts are handed out one by one; `free` says which are free */
    RUN_ASIDE     /* 2 MiB only: BROKEN, and its free parts are set aside for one table's copies */
};

#define RUN_WORDS ((TABLE_ENTRIES + 63) / 64)

/* Per block of order 1 or 2. `free`, `free_count`, links and `state` are under the pool's lock. */
struct run {
    struct spinlock lock;
    uint8_t state;
    uint8_t listed;      /* on one of its pool's lists */
    uint16_t used;       /* parts with a count of their own; atomic */
    uint16_t free_count; /* bits set in `free` */
    uint16_t unsettled;  /* order 2, BROKEN: its last blocks, which are still to be settled */
    uint32_t next, prev; /* list links: run index + 1 */
    uint32_t pool;       /* frame of the pool that owns the whole run; 0: none or several */
    uint32_t owner;      /* RUN_ASIDE: the table whose copies go here; `unsettled`: list link */
    uint32_t split;      /* references that every part has beside its own count; 0 unless the run is
                            WHOLE or lies in a block, and has parts in use */
    uint64_t free[RUN_WORDS];
};
_Static_assert(sizeof(struct frame) * 512 + sizeof(struct frame) + 2 * sizeof(struct run) + 64 <=
                   16 * 512,
               "descriptors stay within 16 bytes per 4 KiB");

/* The machine: one per hypervisor or process. Set by machine_init(), constant afterwards. */
struct machine {
    unsigned char *direct_map; /* where frame 0 is mapped; contiguous */
    uint64_t frames;           /* host frames from 0; below 2^32 */
    struct frame
        *frame[LEAF_ORDERS];      /* by order, indexed by frame number >> (LEVEL_BITS * order) */
    struct run *run[LEAF_ORDERS]; /* [1] and [2]; [0] is null */
    unsigned cpus;                /* CPUs in use, at most MM_MAX_CPUS */
    bool huge_exec;               /* huge leaves may be executable (iTLB multihit: false) */
    uint64_t features;
};
extern struct machine machine;

/* Bytes of zeroed memory that machine_init() needs for the descriptors of `frames` frames. */
uint64_t machine_descriptor_bytes(uint64_t frames);

/*
 * Sets up the machine: `direct_map` maps frames 0 to frames - 1 contiguously, `descriptors` is
 * zeroed memory of machine_descriptor_bytes(frames) bytes, 64-byte aligned, that no untyped covers.
 * `format` is the entry format; `huge_exec` false keeps every huge leaf non-executable. Returns
 * CLEAVE_COUNT for frames 0 or >= 2^32 or cpus 0 or > MM_MAX_CPUS. Called once, before any other.
 */
enum cleave_status machine_init(struct mm_ctx *ctx, void *direct_map, uint64_t frames,
                                void *descriptors, const struct pt_format *format, unsigned cpus,
                                bool huge_exec) MUST_CHECK;

static inline void *frame_address(pfn_t f)
{
    return machine.direct_map + ((uint64_t)f.v << PAGE_SHIFT);
}
static inline struct frame *frame_of(pfn_t f, unsigned order)
{
    return &machine.frame[order][f.v >> (LEVEL_BITS * order)];
}
static inline struct run *run_of(pfn_t f, unsigned order)
{
    return &machine.run[order][f.v >> (LEVEL_BITS * order)];
}
/* References on a data frame or block of `order` itself. The lock that protects its count is held;
 * without it the answer may be any number. */
static inline uint32_t frame_count(pfn_t f, unsigned order)
{
    uint32_t split = order < LEAF_ORDERS - 1
                         ? __atomic_load_n(&run_of(f, order + 1)->split, __ATOMIC_RELAXED)
                         : 0;
    return __atomic_load_n(&frame_of(f, order)->count, __ATOMIC_RELAXED) + split;
}
static inline enum frame_kind frame_kind(const struct frame *d)
{
    return (enum frame_kind)(__atomic_load_n(&d->bits, __ATOMIC_RELAXED) >> FRAME_KIND_SHIFT &
                             FRAME_KIND_MASK);
}
static inline void frame_set_kind(struct frame *d, enum frame_kind kind, uint32_t account)
{
    d->account = (uint16_t)account;
    __atomic_store_n(&d->bits, (uint16_t)((unsigned)kind << FRAME_KIND_SHIFT), __ATOMIC_RELAXED);
}
static inline unsigned table_level(pfn_t table)
{
    return frame_of(table, 0)->bits >> FRAME_LEVEL_SHIFT & 3u;
}
/* Notes that the leaf in `slot` of `table` maps the frame or block; a hint, so the last one wins.
 */
static inline void frame_set_rmap(pfn_t f, unsigned order, pfn_t table, unsigned slot)
{
    struct frame *d = frame_of(f, order);
    __atomic_store_n(&d->rmap, table.v, __ATOMIC_RELAXED);
    __atomic_store_n(&d->bits, (uint16_t)((unsigned)FRAME_DATA << FRAME_KIND_SHIFT | slot),
                     __ATOMIC_RELAXED);
}

/* --- References to data frames and blocks ----------------------------------------------------- */

#define FRAME_COUNT_MAX ((uint32_t)INT32_MAX)

/* Takes one reference on each of `parts` consecutive frames of `order` from `f`, which lie in one
 * block of the next order. CLEAVE_OVERFLOW and nothing taken where one would then have more than
 * FRAME_COUNT_MAX. The caller holds a reference along the chain of each (so that none can be
 * freed). */
enum cleave_status frame_get_run(struct mm_ctx *ctx, pfn_t f, unsigned order,
                                 uint64_t parts) MUST_CHECK;
static inline enum cleave_status frame_get(struct mm_ctx *ctx, pfn_t f, unsigned order)
{
    return frame_get_run(ctx, f, order, 1);
}

/* Takes one reference on each of `parts` such frames, on each of which an entry that the caller
 * knows of holds one: what copying a table does. */
enum cleave_status frame_get_mapped(struct mm_ctx *ctx, pfn_t f, unsigned order,
                                    uint64_t parts) MUST_CHECK;

/* Drops one reference on each of `parts` consecutive frames of `order` from `f` in one block of the
 * next order; what nothing references any more goes back to its pool at once. Only a flush batch
 * (after its flush) or a path on which no CPU can hold a translation calls this. */
void frame_put_run(struct mm_ctx *ctx, pfn_t f, unsigned order, uint64_t parts);
static inline void frame_put(struct mm_ctx *ctx, pfn_t f, unsigned order)
{
    frame_put_run(ctx, f, order, 1);
}

/* References that reach a frame or block of `order` at `f` along its chain (heads above included).
 */
uint64_t frame_references(struct mm_ctx *ctx, pfn_t f, unsigned order);

/* The one predicate. True when the references along the chain of `f`, less `own` (pins and foreign
 * maps that belong to the asking space), add up to one and nothing beneath a block is referenced on
 * its own (less `own_beneath` parts). The caller holds that one reference. Never falsely true. */
bool frame_is_exclusive(struct mm_ctx *ctx, pfn_t f, unsigned order, uint64_t own);

/* The same for `parts` consecutive frames of `order` in one block of the next order: sets a bit in
 * `exclusive`, which the caller has zeroed, for each that is. */
void frame_exclusive_run(struct mm_ctx *ctx, pfn_t f, unsigned order, uint64_t parts,
                         uint64_t exclusive[RUN_WORDS]);

/* Goes on with a 1 GiB block of the pool that has dissolved and waits to be settled: up to its next
 * 2 MiB block with parts in use. O(TABLE_ENTRIES). False when there is none. */
struct pool;
bool frame_settle_some(struct mm_ctx *ctx, struct pool *pool);

/* Hands one reference of the block of `order` at `f` to its parts of order - 1: raises the parts,
 * by one number for all of them, then lowers the head (POINT_SPLIT_RAISED between). CLEAVE_OVERFLOW
 * and nothing changed where a part has more than FRAME_COUNT_MAX, which is looked at every
 * FRAME_COUNT_MAX splits. When that was the last whole reference the block dissolves: its parts are
 * frames of their own from then on, and those that nothing references go back to the pool at once.
 */
enum cleave_status frame_split(struct mm_ctx *ctx, pfn_t f, unsigned order) MUST_CHECK;

/* The reverse of frame_split() for a block all of whose parts of order - 1 are in use: takes one
 * reference from each part and gives one to the head, which is handed out as a whole again. Raises
 * the head, then lowers the parts (POINT_MERGE_RAISED between). CLEAVE_BUSY when a part is free or
 * charged to another account than the first. */
enum cleave_status frame_merge(struct mm_ctx *ctx, pfn_t f, unsigned order) MUST_CHECK;

/* --- Counted nodes: tables and region nodes --------------------------------------------------- */

enum cleave_status node_get(struct mm_ctx *ctx, pfn_t node) MUST_CHECK;
/* Drops one; returns true when it was the last, and the caller owns the node. */
bool node_put(struct mm_ctx *ctx, pfn_t node);
static inline uint32_t node_count(pfn_t node)
{
    return __atomic_load_n(&frame_of(node, 0)->count, __ATOMIC_ACQUIRE);
}

#endif
