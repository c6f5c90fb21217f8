/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Slots, nodes and the derivation tree as the files of the capability system see them. All of it is
 * under the tree's lock (RANK_CAP).
 *
 * The tree is one list in preorder: a capability, then what was derived from it, each with its
 * depth. What follows a capability and is deeper is derived from it; a new child goes right behind
 * its parent, so no operation searches.
 *
 * Revoking a capability X puts a second link of X's slot, its marker, into the same list:
 *
 *   1. sweep   X [marker] a b c | d     the marker moves on over each descendant and marks it as
 *              X a b [marker] c | d     CAP_TAKEN: it serves no call and nothing is derived from
 * it.
 *   2. take    X a b c [marker] | d     The capability before the marker is the last descendant and
 *              X a b [marker] | d       so has none of its own: it goes, its object with it.
 *
 * The marker is the progress of a preempted revoke; others insert and unlink around it. A child of
 * a capability that is being swept or taken lies before the marker and is born taken. The sweep
 * ends, since no slot becomes free by it and the slots are finite; so does the take, since nothing
 * is added.
 */
#ifndef MM_CAP_TREE_H
#define MM_CAP_TREE_H

#include "cap.h"

struct cap_link {
    struct cap_link *next, *previous;
};

enum {
    CAP_FIRST = 1,    /* the object's first capability */
    CAP_TAKEN = 2,    /* an ancestor's sweep has passed it */
    CAP_ROOT = 4,     /* being revoked: its marker is in the list */
    CAP_SWEPT = 8,    /* ... and step 1 is done */
    CAP_DELETE = 16,  /* cap_delete() was called on it */
    CAP_CLOSING = 32, /* a CPU is destroying its object and holds no lock */
    CAP_RESERVED = 64 /* empty, but promised to a call in flight */
};

struct cap {
    struct cap_link link; /* in the tree; `next` chains free and reserved slots */
    struct cap_link marker;
    union {
        void *object;
        struct pfn_range range; /* CAP_UNTYPED */
    };
    uint32_t mark;  /* CAP_UNTYPED: first frame not handed out */
    uint16_t users; /* calls in flight through it */
    uint8_t level;  /* CAP_UNTYPED: highest level of a node that holds it or what it came from */
    uint8_t unused;
    struct cnode *node;
    uint32_t generation;
    uint8_t type; /* enum cap_type */
    uint8_t rights;
    uint8_t flags;
    uint8_t depth;
};
_Static_assert(sizeof(struct cap) == CAP_SLOT_SIZE, "slots fill a node without gaps");
_Static_assert(offsetof(struct cap, link) == 0, "a link at a slot's start is a capability's");

/* The header of a node, where its first slot would be; slots follow. */
struct cnode {
    struct cap *free; /* slots that were used and are empty again */
    uint32_t slots;
    uint32_t fresh;      /* slots from here on were never used, and hold no meaning */
    uint32_t used;       /* slots that cannot be had: occupied, reserved or worn out */
    uint32_t scan;       /* dying: slots below are empty for good */
    uint32_t holders;    /* cnode_hold() */
    uint32_t generation; /* that its slots start with */
    pfn_t frame;         /* first of its own */
    uint32_t frames;
    uint8_t level; /* above that of every node that its memory or first capability lies in */
    uint8_t dying;
};
_Static_assert(sizeof(struct cnode) <= CAP_SLOT_SIZE, "the header fits where a slot would be");

struct cap_tree {
    struct spinlock lock;
    struct cnode *root;
    _Alignas(CAP_SLOT_SIZE) struct cap head; /* depth 0: what all else is derived from */
};
extern struct cap_tree cap_tree;

static inline void cap_lock(struct mm_ctx *ctx) { spin_lock(ctx, &cap_tree.lock, RANK_CAP); }
static inline void cap_unlock(struct mm_ctx *ctx) { spin_unlock(ctx, &cap_tree.lock, RANK_CAP); }

static inline struct cap *cnode_slot(struct cnode *node, uint32_t index)
{
    return (struct cap *)(void *)node + 1 + index;
}
static inline cap_t cap_name(const struct cap *slot)
{
    uint64_t index = (uint64_t)(slot - (const struct cap *)(const void *)slot->node) - 1;
    return cap_handle((uint64_t)slot->generation << 32 | index);
}

/* Markers share the list with capabilities and are told by their place in the slot. */
static inline bool link_is_marker(const struct cap_link *link)
{
    return ((uintptr_t)link & (CAP_SLOT_SIZE - 1)) != 0;
}
/* The capability after or before a place in the list, markers skipped; the head at either end.
 * Markers that lie together are of one line of ancestors or of nodes within each other: at most a
 * constant. */
static inline struct cap *cap_after(const struct cap_link *at)
{
    struct cap_link *link = at->next;
    while (link_is_marker(link)) {
        link = link->next;
    }
    return (struct cap *)(void *)link;
}
static inline struct cap *cap_before(const struct cap_link *at)
{
    struct cap_link *link = at->previous;
    while (link_is_marker(link)) {
        link = link->previous;
    }
    return (struct cap *)(void *)link;
}
static inline void link_insert(struct cap_link *link, struct cap_link *previous)
{
    link->previous = previous;
    link->next = previous->next;
    previous->next->previous = link;
    previous->next = link;
}
static inline void link_remove(struct cap_link *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
}
/* Whether anything is derived from it. */
static inline bool cap_has_children(const struct cap *slot)
{
    return cap_after(&slot->link)->depth > slot->depth;
}

/* Finds the capability that `handle` names in `node`, which must be of one of `types` and have all
 * of `rights`, and not be taken. `argument` names it in the error. */
enum cleave_status cap_find(struct mm_ctx *ctx, struct cnode *node, cap_t handle, unsigned types,
                            unsigned rights, const char *argument, struct cap **out) MUST_CHECK;
#define CAP_ANY_TYPE (~0u)

/* The slot that `handle` names, whatever happens to its capability; error as cap_find(). */
enum cleave_status cap_find_slot(struct mm_ctx *ctx, struct cnode *node, cap_t handle,
                                 const char *argument, struct cap **out) MUST_CHECK;

/* Checks that a capability may be derived from `slot`: CLEAVE_BUSY, CLEAVE_COUNT. */
enum cleave_status cap_check_parent(struct mm_ctx *ctx, const struct cap *slot,
                                    const char *argument) MUST_CHECK;

/* The node that a target names: `root` for CAP_SELF. */
enum cleave_status cap_find_target(struct mm_ctx *ctx, struct cnode *root, cap_t to,
                                   struct cnode **out) MUST_CHECK;

/* Takes `count` free slots of `node`, chained by link.next, all or none: CLEAVE_COUNT. */
enum cleave_status cap_reserve(struct mm_ctx *ctx, struct cnode *node, unsigned count,
                               struct cap **first) MUST_CHECK;
/* The same in the node `to`, for what comes from `source`: into another node than its own, that
 * needs CAP_MAY_GRANT (CLEAVE_DENIED). */
enum cleave_status cap_reserve_for(struct mm_ctx *ctx, struct cnode *root, const struct cap *source,
                                   cap_t to, unsigned count, struct cap **first) MUST_CHECK;
/* Takes the first slot off a chain. */
struct cap *cap_pop(struct cap **first);
/* Gives back the reserved slots of a chain; their generation is as before. */
void cap_unreserve(struct cap *first);

/* Puts a capability into a reserved slot: as the newest child of `parent`, or as a sibling before
 * it. */
void cap_fill(struct cap *slot, enum cap_type type, unsigned rights, unsigned flags,
              struct cap *parent, bool beside);
/* Empties a slot whose capability has no descendants. */
void cap_remove(struct cap *slot);

/* Makes the frames from `frame` on an empty node of `level`. */
struct cnode *cnode_make(pfn_t frame, uint32_t frames, unsigned level);

#endif
