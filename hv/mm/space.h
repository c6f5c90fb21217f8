/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A space is a guest-physical address space: a tree of nested page tables, a region tree, and the
 * account that pays for both. This header holds the object and the operations that concern one
 * space; fork.h, fault.h, notify.h, pager.h and pin.h hold the others.
 *
 * Arguments: addresses and sizes are in bytes and must be multiples of the page size; ranges are
 * [at, at + size). Common errors, always with nothing changed: CLEAVE_ALIGN, CLEAVE_COUNT (size 0),
 * CLEAVE_WRAP, CLEAVE_RANGE (past the guest's width), CLEAVE_DYING, CLEAVE_FROZEN (a snapshot),
 * CLEAVE_BUSY (a preempted operation has to be finished first, or a holder is in the way),
 * CLEAVE_NO_MEMORY, CLEAVE_QUOTA. ctx->error names the argument.
 */
#ifndef MM_SPACE_H
#define MM_SPACE_H

#include "flush.h"
#include "lock.h"
#include "pool.h"
#include "pte.h"
#include "radix.h"
#include "region.h"
#include "types.h"

enum space_state { SPACE_ALIVE = 1, SPACE_FROZEN, SPACE_DYING, SPACE_DEAD };

/* Preempted operation of a space; its progress lives here, never in guest memory. */
enum space_op {
    OP_NONE = 0,
    OP_RESET,
    OP_COLLAPSE,
    OP_DESTROY,
    OP_MOVE,
    OP_UNMAP,
    OP_MAP,
    OP_REGION, /* from here on: nothing is changed yet, and space_give_up() may end it */
    OP_DEVICE,
    OP_PROTECT,
    OP_ARM,
    OP_REARM,
    OP_DISARM
};
/* How far: OP_REGION and those after it. */
enum space_phase {
    PHASE_CHECK = 0, /* looks at regions up to op_at */
    PHASE_BUILD,     /* up to op_at, op_regions is the tree as it will be */
    PHASE_STAGE,     /* up to op_at, leaves stand beneath op_root, which nothing points to */
    PHASE_SETTLE,    /* change.h: up to op_at, the change can be carried over and not fail */
    PHASE_CONVERT,   /* convert.h: up to op_at, shared memory is private: to be finished */
    PHASE_UNDO       /* failed with op_argument[1]; what was made is being dropped */
};

/* What happened in this space since it was made. Plain counts; a racing increment may be lost. */
struct space_stats {
    uint64_t faults; /* entries into space_fault() */
    uint64_t read_faults, write_faults, exec_faults;
    uint64_t tables_copied; /* shared tables made private */
    uint64_t pages_copied;  /* 4 KiB pages copied by write faults, grain included */
    uint64_t blocks_copied; /* 2 MiB blocks copied whole */
    uint64_t blocks_split, gigas_split;
    uint64_t reused;   /* leaves made writable without a copy */
    uint64_t restored; /* other entries of the same table given back in the same fault */
    uint64_t zeroed;   /* frames given on first touch (4 KiB units) */
    uint64_t lost_races;
    uint64_t collapsed;    /* tables that became one leaf */
    uint64_t early_copies; /* move */
    uint64_t fork_copies;  /* pages copied at fork because they were pinned */
    uint64_t stood_still;  /* nanoseconds for which the last fork or snapshot of it held its lock */
    uint64_t loads;        /* pages asked of a pager */
    uint64_t events;       /* notifications sent */
    uint64_t waits;
    uint64_t flushes;
};

struct attachment; /* pin.h */

/* Progress of a populate that was stopped: every page before `at` is fillable, or with `checked`
 * filled. Nobody is shut out by it: what makes holes forgets it (space_unfill()). */
struct populate {
    struct gfn_range range; /* empty: none */
    gfn_t at;
    bool checked;
    uint8_t others; /* calls for other ranges since the last for this one */
};

struct space {
    struct rwlock lock;
    uint32_t id;          /* unique in its pool */
    uint8_t state;        /* enum space_state */
    uint8_t op;           /* enum space_op */
    uint8_t op_phase;     /* enum space_phase */
    uint8_t grain;        /* log2 of the pages copied at a time: 0..4 */
    uint8_t by_page;      /* see space_copy_by_page() */
    uint8_t vcpus;        /* for the reservation formula */
    uint16_t collapse_at; /* private parts at which a fault asks for collapse; 0: never */
    uint16_t collapsing;  /* a collapse is under way; see collapse.c */
    pfn_t root;
    uint32_t inside;  /* faults under way: destroying waits for them */
    uint32_t holders; /* bases, restores, capabilities and loads that hold this object */
    uint32_t turns;   /* see space_turn() */
    region_word_t regions;
    struct payer payer;
    uint64_t reserve_goal; /* what the fork reserved: renewed by reset and by its own forks */
    struct space *base;    /* immutable space that reset goes back to; holds one of its holders */
    struct space *next, *previous; /* in pool->spaces */
    gfn_t op_at;                   /* progress of the preempted operation */
    struct gfn_range op_range;
    uint64_t op_argument[2];
    pfn_t op_root;         /* PHASE_STAGE: a root of tables that are being filled */
    struct payer op_payer; /* PHASE_CONVERT: what is reserved for it */
    pfn_t fresh;           /* a large leaf being zeroed for this space, and how far */
    uint32_t fresh_order;
    uint64_t fresh_zeroed;
    region_word_t op_regions;
    struct gfn_range forget; /* whose dirty grains in op_regions (dying: regions) still count */
    gfn_t op_walk;           /* reset, dying: foreign pages are given up to here */
    struct populate populate;
    gfn_t collapse_hint;            /* a block that passed collapse_at; GFN with v = ~0 for none */
    struct attachment *attachments; /* pins of this space's pages: a page of them */
    struct radix foreign_pages;     /* foreign maps of this space's pages, see foreign.h */
    struct radix foreign_maps;      /* its maps of others' pages */
    uint32_t attachment_count;      /* pins and foreign maps of this space's pages */
    uint32_t foreign_count;         /* of these: foreign maps */
    uint32_t foreign_written;       /* of these: written through and not detached */
    struct space_stats stats;
    uint64_t generation; /* flush.h */
    uint64_t seen[MM_MAX_CPUS];
};
_Static_assert(sizeof(struct space) <= PAGE_SIZE, "a space object is one frame");

/* Makes an empty space in `pool` with an account of its own (`limit` frames). Takes two frames and
 * an account; more when an account page must be made. Errors: CLEAVE_NO_MEMORY, CLEAVE_QUOTA,
 * CLEAVE_COUNT, CLEAVE_DYING (the pool is being revoked). */
enum cleave_status space_create(struct mm_ctx *ctx, struct pool *pool, uint64_t limit,
                                struct space **out) MUST_CHECK;

/*
 * Destroys a space: kicks its CPUs out, gives back foreign maps, drops its tables and regions.
 * Preemptible: CLEAVE_AGAIN until done. From the first call on the space is dying and every other
 * operation on it fails. CLEAVE_BUSY (value: the holder of a DMA pin) while a pin is held; calling
 * again continues. A snapshot that is
 * the base of forks goes with the last of them. O(what is private). After CLEAVE_OK the pointer is
 * gone.
 */
enum cleave_status space_destroy(struct mm_ctx *ctx, struct space *space) MUST_CHECK;

/* One more holder of the object: a fork that has it as its base, or a call that uses it unlocked. A
 * space that is destroyed meanwhile stays in its pool's list, dead and empty, until it is released.
 */
void space_hold(struct space *space);
void space_release(struct mm_ctx *ctx, struct space *space);
/* Ends a space that nobody was ever given: without attachments, vcpus or loads; with its base, when
 * nobody else holds that. Locks of other spaces may be held. Whatever budget is left. */
void space_discard(struct mm_ctx *ctx, struct space *space);

/*
 * Gives up an operation that was stopped (CLEAVE_AGAIN) and that nobody will go on with, when
 * nothing of it is to be seen yet: space_set_region(), space_map(), space_map_device(),
 * space_protect(), channel_arm(), rearm and disarm; and the leaf that a populate was zeroing.
 * Others can then begin. CLEAVE_BUSY for what has to be finished: a reset, a paged mapping, memory
 * of which a part is private already; CLEAVE_OK also where nothing was stopped. O(TABLE_ENTRIES).
 */
enum cleave_status space_give_up(struct mm_ctx *ctx, struct space *space) MUST_CHECK;

/* Goes on with a space_unmap() that was stopped when everything was removed already, on behalf of
 * anybody whom it shuts out. True: it came a step further, try again; false: no such is stopped.
 * Its own caller may call space_unmap() again, which finds holes. Spends the budget. */
bool space_help_unmap(struct mm_ctx *ctx, struct space *space) MUST_CHECK;
/* The same for a change from shared to private that was stopped when a part was private. */
bool space_help_convert(struct mm_ctx *ctx, struct space *space) MUST_CHECK;

/* --- Regions ---------------------------------------------------------------------------------- */

/*
 * Gives [at, at + size) a policy. The range must be REGION_NONE before, or (for a change between
 * PRIVATE, WIPE, ABSENT and READ_ONLY, or SHARED to PRIVATE, which copies what is shared) already a
 * region. SHARED is populated first. Preemptible: nothing of it is to be seen before CLEAVE_OK, but
 * that of SHARED to PRIVATE pages become private one after the other once all memory for that is
 * had; and after an error all is as it was. CLEAVE_BUSY (value: its id) where shared memory is
 * pinned or mapped by others. DEVICE, FOREIGN and PAGED come from
 * space_map_device(), foreign_map() and space_map_paged(). `region` gives policy, rights, whole,
 * order. CLEAVE_POLICY, CLEAVE_RIGHTS, CLEAVE_ORDER, CLEAVE_EXISTS.
 */
enum cleave_status space_set_region(struct mm_ctx *ctx, struct space *space, gpa_t at,
                                    uint64_t size, const struct region *region) MUST_CHECK;

/* Changes the rights of mapped regions: READ with or without WRITE and EXEC, or 0, with which what
 * is there stays and nobody reads it but pins and foreign maps that there are. Write is taken at
 * the highest entries that lie inside the range; read or execute by copying shared tables at the
 * edges. Rights that are added come back with the next fault. Preemptible: the rights change at
 * once, with CLEAVE_OK. CLEAVE_NOT_MAPPED when part of the range has no region; CLEAVE_RIGHTS for a
 * set that no entry can have, or WRITE on a read-only region; CLEAVE_POLICY for 0 over another
 * space's memory. Returns after the flush. */
enum cleave_status space_protect(struct mm_ctx *ctx, struct space *space, gpa_t at, uint64_t size,
                                 unsigned rights) MUST_CHECK;

/* --- Mapping ---------------------------------------------------------------------------------- */

/* Fills the holes of [at, at + size) with zeroed frames now, using leaves as large as the region's
 * order, alignment and the pool allow. Every page must have a region of a kind that first touch
 * fills. What was filled before an error stays, which no guest can tell. Preemptible, and linear in
 * all calls together; one for another range of the space meanwhile waits for its turn with
 * CLEAVE_AGAIN. */
enum cleave_status space_populate(struct mm_ctx *ctx, struct space *space, gpa_t at,
                                  uint64_t size) MUST_CHECK;

/* Sets a region `region` over one naturally aligned leaf of `order` at `at` and maps there a fresh
 * zeroed frame of exactly that order. CLEAVE_ORDER, CLEAVE_EXISTS. */
enum cleave_status space_map(struct mm_ctx *ctx, struct space *space, gpa_t at, unsigned order,
                             const struct region *region) MUST_CHECK;

/* Maps `size` bytes of device memory at host frame `frame` (not 0, not RAM of any pool) and gives
 * the range REGION_DEVICE. Preemptible: nothing is to be seen before CLEAVE_OK. `refuse` makes
 * forks fail with CLEAVE_DEVICE instead of leaving a hole. */
enum cleave_status space_map_device(struct mm_ctx *ctx, struct space *space, gpa_t at,
                                    uint64_t size, pfn_t frame, unsigned rights,
                                    bool refuse) MUST_CHECK;

/* Removes [at, at + size): entries, frames and region. Splits huge leaves at the edges; the tables
 * for that are had before anything changes. The range may contain holes. Preemptible: before
 * and after everything is removed at once. Returns after the flush. CLEAVE_BUSY where the
 * hypervisor's own foreign map of another space is not removed with foreign_unmap(). */
enum cleave_status space_unmap(struct mm_ctx *ctx, struct space *space, gpa_t at,
                               uint64_t size) MUST_CHECK;

/* --- Looking and copying ---------------------------------------------------------------------- */

struct mapping {
    enum pte_kind kind; /* ABSENT, LEAF, PAGED; PARKED for the last two where they are parked */
    unsigned level;     /* of the entry that decides */
    pfn_t frame;        /* of the page at `at`, for a leaf, parked or not */
    unsigned rights;    /* AND over all levels; 0 where anything is parked */
    pte_t entry;
    struct region region;
    bool exclusive; /* every table on the path and the leaf */
};
/* What a walk for `at` finds now. Works on snapshots. */
enum cleave_status space_lookup(struct mm_ctx *ctx, struct space *space, gpa_t at,
                                struct mapping *out) MUST_CHECK;

/* Copies guest memory out; holes that first touch would fill read as zeros and are not filled. Any
 * byte address, and size up to SPACE_ACCESS_MAX (CLEAVE_COUNT). CLEAVE_FAULT (value: the address)
 * where there is no memory or the region lacks READ, CLEAVE_WAIT where a page is still to be
 * loaded. Works on snapshots. */
#define SPACE_ACCESS_MAX (512 * PAGE_SIZE)
enum cleave_status space_read(struct mm_ctx *ctx, struct space *space, gpa_t at, void *to,
                              uint64_t size, struct vcpu_wait *wait) MUST_CHECK;
/* Reads that follow one another and lie near each other, as those of a guest's page tables do: the
 * table that the last one ended in stays locked for the next. Zero but for the space to begin with.
 */
struct space_reader {
    struct space *space;
    pfn_t locked;   /* by the walk, with the readers' side of the space's lock; PFN_NONE: nothing */
    pfn_t table;    /* in which it ended */
    unsigned level; /* of its entries */
    uint64_t start, end; /* guest-physical bytes that `bytes` are */
    const unsigned char *bytes;
};
/* As space_read(), of at most what is left of a page. No other lock may be taken before
 * space_reader_end(); on any error it holds nothing. */
enum cleave_status space_reader_read(struct mm_ctx *ctx, struct space_reader *reader, gpa_t at,
                                     void *to, uint64_t size, struct vcpu_wait *wait) MUST_CHECK;
/* Lets go of what it holds; may be called again. */
void space_reader_end(struct mm_ctx *ctx, struct space_reader *reader);

/* Copies into guest memory by the path of a guest's write: breaks copy-on-write, notifies, waits.
 * On CLEAVE_WAIT and errors `*done` says how many bytes were written before. */
enum cleave_status space_write(struct mm_ctx *ctx, struct space *space, gpa_t at, const void *from,
                               uint64_t size, struct vcpu_wait *wait, uint64_t *done) MUST_CHECK;

/* Changes the 8 bytes at `at` (aligned) by one atomic access, for words that vcpus of the guest
 * change at the same time: or, and with `operand`; `*old` is what was there. The path, and the
 * errors, of space_write(). */
enum space_atomic { ATOMIC_OR, ATOMIC_AND };
enum cleave_status space_atomic(struct mm_ctx *ctx, struct space *space, gpa_t at,
                                enum space_atomic op, uint64_t operand, uint64_t *old,
                                struct vcpu_wait *wait) MUST_CHECK;

/* Where memory is: bytes by size of the leaf that maps them, and how they are held. Walks the tree;
 * takes no fault lock but the readers' side of the space's; preemptible through `from`. */
struct space_usage {
    uint64_t mapped[LEAF_ORDERS]; /* bytes under leaves of each order */
    uint64_t exclusive;           /* bytes held by this space alone */
    uint64_t shared;              /* bytes that others hold too */
    uint64_t tables, tables_exclusive;
};
enum cleave_status space_usage(struct mm_ctx *ctx, struct space *space, gfn_t *from,
                               struct space_usage *usage) MUST_CHECK;

/* Who pays for what a vcpu of `space` does: what it was granted after it had waited for memory,
 * which is spent in the pool it came from, else the space. */
static inline struct payer *space_payer(struct space *space, struct vcpu_wait *wait)
{
    if (wait == NULL || wait->grant.reserved == 0 || wait->grant.pool != space->payer.pool) {
        return &space->payer;
    }
    wait->grant.account = space->payer.account;
    return &wait->grant;
}

/* --- For the other files of hv/mm/ ------------------------------------------------------------ */

/* Checks [at, at + size) against alignment, wrap and width; fills `range`. */
enum cleave_status range_check(struct mm_ctx *ctx, gpa_t at, uint64_t size,
                               struct gfn_range *range) MUST_CHECK;
/* Takes the space's lock for writing and checks that it may be changed; the lock is not held on
 * error. */
enum cleave_status space_begin(struct mm_ctx *ctx, struct space *space) MUST_CHECK;
/* The same for an operation that may have been stopped: also goes on with the one of this kind,
 * range and argument. */
enum cleave_status space_begin_op(struct mm_ctx *ctx, struct space *space, enum space_op op,
                                  struct gfn_range range, uint64_t argument) MUST_CHECK;
/* Notes that an operation begins which may be stopped; its progress stands at the range's start. */
void space_op_start(struct space *space, enum space_op op, struct gfn_range range,
                    uint64_t argument);
/* Ends the operation with an error once what it made, already on the reap list, is freed, so that
 * nothing stays charged: CLEAVE_AGAIN until then, `why` at the end. */
enum cleave_status space_undo(struct mm_ctx *ctx, struct space *space, enum cleave_status why);
enum cleave_status space_undo_on(struct mm_ctx *ctx, struct space *space);
void space_end(struct mm_ctx *ctx, struct space *space);
/* From here on a frame that an entry had may leave it, or be shared, and come back to it with other
 * bytes: done by every change, fork and reset under the writers' side of the lock, and by a
 * collapse that copies. Tells a fault that had let the lock go. The number wraps. */
static inline void space_turn(struct space *space)
{
    __atomic_fetch_add(&space->turns, 1, __ATOMIC_RELAXED);
}
static inline uint32_t space_turns(const struct space *space)
{
    return __atomic_load_n(&space->turns, __ATOMIC_RELAXED);
}
/* Makes a boundary between entries at `at`: copies the shared tables on its path and splits the
 * leaf that spans it, which no guest can tell. The space is locked for writing; `batch` has room
 * for ROOT_LEVEL more. CLEAVE_NO_MEMORY, CLEAVE_QUOTA, CLEAVE_OVERFLOW. */
enum cleave_status space_cut(struct mm_ctx *ctx, struct space *space, gfn_t at,
                             struct flush_batch *batch) MUST_CHECK;
/* Empties `range`, at both ends of which space_cut() was done, and drops what was there. */
void space_clear(struct mm_ctx *ctx, struct space *space, struct gfn_range range,
                 struct flush_batch *batch);
/* Entries or regions of `range` go: a populate that was stopped there begins again. */
void space_unfill(struct space *space, struct gfn_range range);
/* True when every page of `range` is REGION_NONE. */
bool space_is_empty(struct space *space, struct gfn_range range);

#endif
