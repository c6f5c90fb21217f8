/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Capabilities: who may do what with which object, and where that authority came from. A capability
 * node is an array of slots in frames that were retyped from untyped memory; nothing here allocates
 * anything else. One tree records what was derived from what; its lock is RANK_CAP, held for
 * bounded steps only and never while an object is made or destroyed.
 *
 *   untyped --+-- untyped ...                 untyped_retype()
 *             +-- cnode ---- cnode            cap_copy()
 *             +-- pool --+-- pool             cap_copy()
 *                        +-- space --+-- space (a copy) -- space (a fork made through the copy)
 *                        +-- space   (a fork made through the first capability of the space above)
 *                        +-- snapshot, channel, pager
 *
 * Every object has one first capability; copies are derived from it. A capability's descendants
 * never outlive it, so the object goes when its first capability goes, and that is its last one.
 *
 * A fork or snapshot that is made through the first capability of a space hangs beside it: it lives
 * on when its parent is deleted, and goes with the pool. One that is made through a copy hangs
 * below that copy: who handed the copy out takes back with it all that was made through it.
 *
 * Errors common to all operations, with nothing changed and ctx->error naming the argument:
 * CLEAVE_RANGE (no such slot in the node), CLEAVE_NO_CAP (the slot is empty), CLEAVE_REVOKED (the
 * capability that the handle named is gone or being taken back), CLEAVE_TYPE, CLEAVE_DENIED (a
 * right is missing), CLEAVE_DYING (the node is being destroyed), CLEAVE_COUNT (the target node is
 * full, or the derivation is CAP_DEPTH_MAX deep), CLEAVE_BUSY (a revoke of this capability was
 * begun and has to be finished first).
 */
#ifndef MM_CAP_H
#define MM_CAP_H

#include "fork.h"
#include "notify.h"
#include "pager.h"
#include "pool.h"
#include "space.h"
#include "types.h"

enum cap_type {
    CAP_NONE = 0,
    CAP_UNTYPED, /* a range of host frames that nothing uses but what was retyped from it */
    CAP_CNODE,
    CAP_POOL,
    CAP_SPACE,
    CAP_SNAPSHOT,
    CAP_CHANNEL,
    CAP_PAGER,
    CAP_TYPES
};

/* Rights. A copy has those of its source or fewer. */
enum {
    CAP_MAY_INFO = 1,     /* see state and statistics */
    CAP_MAY_READ = 2,     /* read memory, compare */
    CAP_MAY_WRITE = 4,    /* untyped: retype; cnode: put capabilities in; pool: make objects in it;
                           * space: map, unmap, write; channel: arm, decide; pager: serve */
    CAP_MAY_CONTROL = 8,  /* pause, unpause, reset */
    CAP_MAY_FORK = 16,    /* fork, snapshot; what is made carries the rights of this capability */
    CAP_MAY_SPAWN = 32,   /* fork this template and no more; a child carries INFO and CONTROL */
    CAP_MAY_GRANT = 64,   /* be copied or moved into another node */
    CAP_MAY_REVOKE = 128, /* take back what was derived from it */
    CAP_MAY_ALL = 255
};
/* What a child made with CAP_MAY_SPAWN may: told about, paused, unpaused, reset, and deleted, which
 * needs no right. */
#define CAP_SPAWNED (CAP_MAY_INFO | CAP_MAY_CONTROL)

/*
 * Names a capability: slot number in the low half, the slot's generation in the high half. A slot's
 * generation rises whenever it is emptied and starts at a random number, so a handle whose
 * capability is gone names nothing ever after. Zero is no handle; as a target it means the node
 * itself.
 */
typedef struct {
    uint64_t v;
} cap_t;
#define CAP_SELF ((cap_t){0})
#define CAP_INDEX(handle) ((uint32_t)(handle).v)
static inline cap_t cap_handle(uint64_t v) { return (cap_t){v}; }

#define CAP_DEPTH_MAX 255u     /* longest chain of derivations */
#define CAP_LEVEL_MAX 255u     /* see cap_move() */
#define CAP_BOOT_RANGES 64u    /* ranges of RAM at boot */
#define CAP_RETYPE_MAX 256u    /* objects made by one untyped_retype() */
#define CNODE_FRAMES_MAX 4096u /* frames in one node */
#define CAP_SLOT_SIZE 64u      /* bytes; a node's first slot holds its header */
#define CNODE_SLOTS(frames) ((uint32_t)((frames) * (PAGE_SIZE / CAP_SLOT_SIZE) - 1))

/*
 * An array of slots. Operations are given the node that the caller's handles belong to; whoever
 * keeps a pointer to one between calls holds it.
 */
struct cnode;

/* Half-open: host frames [start, end). */
struct pfn_range {
    pfn_t start;
    pfn_t end;
};

/* --- Boot and untyped memory ------------------------------------------------------------------ */

/*
 * Makes the first node in `frames` frames at the end of the first range that is larger than that,
 * and in it, from slot 0 on, an untyped capability with all rights for what each range still holds.
 * Called once for a machine, after machine_init(); forgets every capability that was there before.
 * The first node has no capability and is never destroyed. CLEAVE_COUNT (`count`
 * not 1..CAP_BOOT_RANGES; `frames` not 1..CNODE_FRAMES_MAX or too few for the ranges; an empty
 * range), CLEAVE_RANGE (frame 0, or past the machine), CLEAVE_OVERLAP (ranges not ascending and
 * apart), CLEAVE_NO_MEMORY.
 */
enum cleave_status cap_boot(struct mm_ctx *ctx, const struct pfn_range *ranges, unsigned count,
                            uint64_t frames, struct cnode **root) MUST_CHECK;

/*
 * Makes `count` objects of `frames` host frames each out of the untyped memory of `source`, which
 * needs CAP_MAY_WRITE: CAP_UNTYPED, CAP_CNODE or CAP_POOL. All or none; their capabilities go into
 * free slots of `to`, their handles to `made`. An object is aligned to the largest leaf order whose
 * size divides its own and at which it fits; what is skipped for that stays unused. Memory is
 * handed out rising from the start and again from there once nothing derived from the capability is
 * left. A pool's frames are overwritten before a domain sees them, a node's slots before they are
 * used. CLEAVE_TYPE (`type`), CLEAVE_COUNT (`frames`: 0, or more than CNODE_FRAMES_MAX in a node;
 * `count`: not 1..CAP_RETYPE_MAX, for a pool not 1), CLEAVE_ALIGN (pool: no multiple of a 2 MiB
 * block), CLEAVE_NO_MEMORY (it does not fit). CLEAVE_AGAIN while another CPU retypes the same
 * capability.
 */
enum cleave_status untyped_retype(struct mm_ctx *ctx, struct cnode *root, cap_t source,
                                  enum cap_type type, uint64_t frames, unsigned count, cap_t to,
                                  cap_t *made) MUST_CHECK;

/*
 * What was not handed out of untyped memory can change its holder without being retyped. Each needs
 * CAP_MAY_WRITE on all that it names, and answers CLEAVE_AGAIN while another CPU retypes or resizes
 * through one of them.
 *
 *     | pool |          ..... |   untyped_cut()          | pool |   |   rest   |
 *     |      source           |   ---------------->      | source   |
 *                                 <----------------
 *                                 untyped_join()
 */

/* Leaves `source` its first `frames` frames, to which all must belong that was handed out of it.
 * `rest` is a capability beside it, below the same one, for the others, in a free slot of `to`.
 * CLEAVE_COUNT (`frames`; the range says how many there may be). */
enum cleave_status untyped_cut(struct mm_ctx *ctx, struct cnode *root, cap_t source,
                               uint64_t frames, cap_t to, cap_t *rest) MUST_CHECK;

/* `source` has the frames of `rest`, too, which is gone. CLEAVE_INVALID (`rest`: it does not begin
 * where `source` ends, or comes from something else), CLEAVE_BUSY (`rest`: something was made of
 * it). */
enum cleave_status untyped_join(struct mm_ctx *ctx, struct cnode *root, cap_t source,
                                cap_t rest) MUST_CHECK;

/*
 * Gives `pool` `frames` frames: more out of the untyped memory of `source`, which it was made of,
 * or fewer, and the others can be handed out of `source` again. As pool_resize(); CLEAVE_INVALID
 * (`pool`: not the first capability of the pool that was made last of `source`), CLEAVE_NO_MEMORY
 * (`frames`: `source` has not so many). CLEAVE_BUSY for `source` and `pool` as said above.
 */
enum cleave_status untyped_resize_pool(struct mm_ctx *ctx, struct cnode *root, cap_t source,
                                       cap_t pool, uint64_t frames) MUST_CHECK;

/* --- Capabilities ----------------------------------------------------------------------------- */

/*
 * Derives from `source` a capability to the same object with `rights`. `to` is a node capability
 * with CAP_MAY_WRITE, or CAP_SELF; into another node than its own, `source` needs CAP_MAY_GRANT.
 * CLEAVE_RIGHTS (none, or unknown ones), CLEAVE_DENIED (more than `source` has). CLEAVE_TYPE for
 * untyped memory: two watermarks over one range would hand it out twice; retype a piece instead.
 */
enum cleave_status cap_copy(struct mm_ctx *ctx, struct cnode *root, cap_t source, unsigned rights,
                            cap_t to, cap_t *copy) MUST_CHECK;

/*
 * Moves a capability, with its place in the tree, into a free slot of `to`; the old handle is gone.
 * CLEAVE_BUSY while a call uses it. CLEAVE_INVALID where memory would end up inside itself: each
 * node has a level above that of every node that holds its first capability or untyped memory it
 * came from, and neither may be moved to a node where that would fail. Untyped memory from which
 * nothing was made may go anywhere.
 */
enum cleave_status cap_move(struct mm_ctx *ctx, struct cnode *root, cap_t source, cap_t to,
                            cap_t *moved) MUST_CHECK;

/*
 * Takes back all that was derived from a capability (which needs CAP_MAY_REVOKE): objects are
 * destroyed when their first capability goes, nodes with all that is in them. First everything
 * below is closed to new calls, then it goes, descendants first. What it takes is finite whatever
 * others do meanwhile. Preemptible: CLEAVE_AGAIN, also while another CPU is inside a call through
 * one of the capabilities. CLEAVE_BUSY: something is in the way; ctx->error names it, "pin" and the
 * like as space_destroy() and pool_destroy() do, "holders" for a node that somebody holds. Calling
 * again continues. A pool is dying until the revoke of its first capability is done, then empty and
 * usable again. CLEAVE_REVOKED when it was taken back itself meanwhile.
 */
enum cleave_status cap_revoke(struct mm_ctx *ctx, struct cnode *root, cap_t source) MUST_CHECK;

/* Revokes a capability, whatever its rights, and removes it; with the first capability of an object
 * goes the object. From the first call on it serves no other operation. Otherwise as cap_revoke().
 */
enum cleave_status cap_delete(struct mm_ctx *ctx, struct cnode *root, cap_t source) MUST_CHECK;

/* What a capability is. */
struct cap_info {
    enum cap_type type;
    unsigned rights;
    unsigned depth;         /* derivations from boot, which is 1 */
    bool first;             /* the object goes with it */
    bool revoking;          /* a revoke or delete of it was begun and is not done */
    struct pfn_range range; /* untyped, node, pool: its frames; else empty */
    uint64_t unused;        /* untyped: frames that retype may still hand out */
    uint32_t slots, used;   /* node */
};
enum cleave_status cap_look(struct mm_ctx *ctx, struct cnode *root, cap_t source,
                            struct cap_info *info) MUST_CHECK;

/* Handle of the capability in slot `index`, for lists. CLEAVE_RANGE, CLEAVE_NO_CAP. */
enum cleave_status cap_at(struct mm_ctx *ctx, struct cnode *root, uint32_t index,
                          cap_t *handle) MUST_CHECK;
uint32_t cnode_slots(const struct cnode *node);

/* --- Using the object of a capability --------------------------------------------------------- */

/* From cap_use() to cap_end() the capability, and so the object, stays; a revoke in between answers
 * CLEAVE_AGAIN. Meant for the length of one call: a preempted operation ends it and uses it anew.
 */
struct cap_use {
    struct cap *slot;
    enum cap_type type;
    unsigned rights;
    union {
        void *object;
        struct cnode *node;
        struct pool *pool;
        struct space *space; /* CAP_SPACE, CAP_SNAPSHOT */
        struct channel *channel;
        struct pager *pager;
    };
};
#define CAP_BIT(type) (1u << (type))
/* Looks `source` up; it must be of one of `types` (CAP_BIT() of each, untyped excepted) and have
 * all `rights`. */
enum cleave_status cap_use(struct mm_ctx *ctx, struct cnode *root, cap_t source, unsigned types,
                           unsigned rights, struct cap_use *use) MUST_CHECK;
void cap_end(struct mm_ctx *ctx, struct cap_use *use);

/* Keeps a node's memory while something (a domain) has it as the node of its handles; taken during
 * a cap_use() of it. Deleting the node meanwhile empties it and answers CLEAVE_BUSY until it is
 * released. */
void cnode_hold(struct mm_ctx *ctx, struct cnode *node);
void cnode_release(struct mm_ctx *ctx, struct cnode *node);

/* --- Objects made in a pool ------------------------------------------------------------------- */

/* Each makes an object and puts its first capability, derived as said above, into `to`. Errors of
 * the call it makes (space_create() and so on) come back as they are. */

/* Through a pool capability with CAP_MAY_WRITE. */
enum cleave_status cap_create_space(struct mm_ctx *ctx, struct cnode *root, cap_t pool,
                                    uint64_t limit, cap_t to, cap_t *made) MUST_CHECK;
enum cleave_status cap_create_channel(struct mm_ctx *ctx, struct cnode *root, cap_t pool,
                                      const struct channel_options *options, cap_t to,
                                      cap_t *made) MUST_CHECK;
/* Also needs CAP_MAY_WRITE on `space`, the pager's own. It derives from the pool, and loads nothing
 * any more once its space is gone. */
enum cleave_status cap_create_pager(struct mm_ctx *ctx, struct cnode *root, cap_t pool, cap_t space,
                                    gpa_t window, cap_t to, cap_t *made) MUST_CHECK;

/* `count` forks through a space or snapshot capability with CAP_MAY_FORK or CAP_MAY_SPAWN. All or
 * none; `made` gets their handles. */
enum cleave_status cap_fork(struct mm_ctx *ctx, struct cnode *root, cap_t source, unsigned count,
                            const struct fork_options *options, cap_t to, cap_t *made) MUST_CHECK;
/* A snapshot through a space or snapshot capability with CAP_MAY_FORK. */
enum cleave_status cap_snapshot(struct mm_ctx *ctx, struct cnode *root, cap_t source,
                                uint64_t limit, cap_t to, cap_t *made) MUST_CHECK;

/* --- Audit ------------------------------------------------------------------------------------ */

/* What cap_audit() found: counts, and the first violation. */
struct cap_report {
    const char *what; /* null: none */
    uint64_t handle;  /* of the capability it concerns, in its node */
    enum cap_type type;
    uint64_t expected, found;
    uint64_t caps;               /* in the tree */
    uint64_t objects[CAP_TYPES]; /* first capabilities by type; the first node not counted */
};
/* Checks the tree while no call is in flight: links, depths, that each capability derives from what
 * it may derive from and has no more rights than its source, untyped ranges nested and apart, each
 * occupied slot in the tree once, marks of revokes under way. CLEAVE_OK, and report->what says. */
enum cleave_status cap_audit(struct mm_ctx *ctx, struct cap_report *report) MUST_CHECK;

#endif
