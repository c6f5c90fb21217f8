/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Revoke and delete: cap_tree.h draws the two steps. Each unit of work is done under the tree's
 * lock (RANK_CAP), which is let go in between; an object is destroyed without it, while its
 * capability is marked CAP_CLOSING, which keeps other revokes off.
 *
 * A node is destroyed with all that is in it: each capability in it becomes the root of a revoke of
 * its own, the inner one, which is carried on from the outer one as long as it lasts. The levels of
 * nodes (cap_move()) see to it that this ends, at most CAP_LEVEL_MAX deep.
 */
#include "cap_tree.h"
#include "table.h"

#define SCAN_SLOTS 64u /* slots of a dying node that one unit of work looks at */

enum step {
    STEP_DONE,    /* nothing is left to take */
    STEP_MORE,    /* a unit of work was done */
    STEP_REMOVED, /* ... and the victim is gone */
    STEP_CLOSE,   /* the victim's object is to be destroyed, without the lock */
    STEP_INNER,   /* the victim's node holds a capability that goes first */
    STEP_AGAIN,   /* another CPU is in a call through the victim */
    STEP_BUSY     /* the victim's node is held */
};

/* Keeps new calls away from an object whose first capability is going. */
static void close_to_calls(struct cap *slot)
{
    if (!(slot->flags & CAP_FIRST)) {
        return;
    }
    if (slot->type == CAP_POOL) {
        __atomic_store_n(&((struct pool *)slot->object)->dying, 1, __ATOMIC_RELEASE);
    } else if (slot->type == CAP_CNODE) {
        ((struct cnode *)slot->object)->dying = 1;
    }
}

/* Makes `root` the root of a revoke, if it is none yet. */
static void begin(struct cap *root)
{
    if (root->flags & CAP_ROOT) {
        return;
    }
    root->flags |= CAP_ROOT;
    link_insert(&root->marker, &root->link);
    if (root->type == CAP_POOL) {
        close_to_calls(root);
    }
}

/* The revoke of `root` is done, and it stays. */
static void finish(struct cap *root)
{
    link_remove(&root->marker);
    root->flags &= (uint8_t) ~(CAP_ROOT | CAP_SWEPT);
    if (root->type == CAP_POOL && (root->flags & CAP_FIRST)) {
        __atomic_store_n(&((struct pool *)root->object)->dying, 0, __ATOMIC_RELEASE);
    }
}

/* Moves the marker over one more descendant; false when there are none. */
static bool sweep(struct cap *root)
{
    if (root->flags & CAP_SWEPT) {
        return false;
    }
    struct cap *next = cap_after(&root->marker);
    if (next->depth <= root->depth) {
        root->flags |= CAP_SWEPT;
        return false;
    }
    next->flags |= CAP_TAKEN;
    close_to_calls(next);
    link_remove(&root->marker);
    link_insert(&root->marker, &next->link);
    return true;
}

/* Empties the dying node of `victim`, the first capability of it, slot by slot. */
static enum step take_node(struct mm_ctx *ctx, struct cap *victim, struct cap **inner)
{
    struct cnode *node = victim->object;

    for (unsigned i = 0; i < SCAN_SLOTS && node->scan < node->fresh; i++, node->scan++) {
        struct cap *slot = cnode_slot(node, node->scan);
        if (slot->flags & CAP_RESERVED) {
            return STEP_AGAIN;
        }
        if (slot->type != CAP_NONE) {
            close_to_calls(slot);
            *inner = slot;
            return STEP_INNER;
        }
    }
    if (node->scan < node->fresh) {
        return STEP_MORE;
    }
    if (node->holders != 0) {
        (void)mm_fail(ctx, CLEAVE_BUSY, "holders", node->holders, 0, 0);
        return STEP_BUSY;
    }
    cap_remove(victim);
    return STEP_REMOVED;
}

/* Takes a capability that has no descendants. */
static enum step take(struct mm_ctx *ctx, struct cap *victim, struct cap **inner)
{
    if (victim->users != 0 || (victim->flags & CAP_CLOSING)) {
        return STEP_AGAIN;
    }
    if (!(victim->flags & CAP_FIRST) || victim->type == CAP_UNTYPED) {
        cap_remove(victim);
        return STEP_REMOVED;
    }
    if (victim->type == CAP_CNODE) {
        return take_node(ctx, victim, inner);
    }
    victim->flags |= CAP_CLOSING;
    return STEP_CLOSE;
}

/* One unit of work at the revoke of `top`, or, with `remove`, at its deletion. */
static enum step step(struct mm_ctx *ctx, struct cap *top, bool remove, struct cap **victim)
{
    struct cap *root = top;

    for (;;) {
        struct cap *inner;
        begin(root);
        if (sweep(root)) {
            return STEP_MORE;
        }
        struct cap *last = cap_before(&root->marker);
        if (last == top && !remove) {
            finish(top);
            return STEP_DONE;
        }
        *victim = last;
        enum step result = take(ctx, last, &inner);
        if (result != STEP_INNER) {
            return result == STEP_REMOVED && last == top ? STEP_DONE : result;
        }
        MM_ASSERT(inner != top);
        root = inner;
    }
}

/* --- Destroying objects ----------------------------------------------------------------------- */

static struct space *first_space(struct mm_ctx *ctx, struct pool *pool)
{
    spin_lock(ctx, &pool->lock, RANK_POOL);
    struct space *space = pool->spaces;
    spin_unlock(ctx, &pool->lock, RANK_POOL);
    return space;
}

/* Ends a pool. Its capabilities are gone, so what is left in it are dead tables that await
 * reaping, and whatever was made in it without a capability, which makes it busy. */
static enum cleave_status close_pool(struct mm_ctx *ctx, struct pool *pool)
{
    if (!table_reap(ctx, pool)) {
        return CLEAVE_AGAIN;
    }
    struct space *space = first_space(ctx, pool);
    if (space != NULL) {
        return mm_fail(ctx, CLEAVE_BUSY, "space", space->id, 1, 0);
    }
    return pool_destroy(ctx, pool);
}

static enum cleave_status close_object(struct mm_ctx *ctx, const struct cap *victim)
{
    switch ((enum cap_type)victim->type) {
    case CAP_POOL:
        return close_pool(ctx, victim->object);
    case CAP_SPACE:
    case CAP_SNAPSHOT:
        return space_destroy(ctx, victim->object);
    case CAP_CHANNEL:
        channel_destroy(ctx, victim->object);
        return CLEAVE_OK;
    case CAP_PAGER:
        return pager_destroy(ctx, victim->object);
    case CAP_NONE:
    case CAP_UNTYPED:
    case CAP_CNODE:
    case CAP_TYPES:
        break;
    }
    port_panic(__FILE__, __LINE__, "an object of this type has no end of its own");
}

/* Destroys the object of a victim marked CAP_CLOSING, and removes it. Called and left with the
 * lock. */
static enum cleave_status close_victim(struct mm_ctx *ctx, struct cap *victim)
{
    cap_unlock(ctx);
    enum cleave_status status = close_object(ctx, victim);
    cap_lock(ctx);
    victim->flags &= (uint8_t)~CAP_CLOSING;
    if (status == CLEAVE_OK) {
        cap_remove(victim);
    }
    return status;
}

/* --- The two operations ----------------------------------------------------------------------- */

/* Finds what is to be revoked or deleted. A delete that was begun may go on, unless someone above
 * has taken it over. */
static enum cleave_status find_root(struct mm_ctx *ctx, struct cnode *node, cap_t source,
                                    bool remove, struct cap **out)
{
    if (!remove) {
        return cap_find(ctx, node, source, CAP_ANY_TYPE, CAP_MAY_REVOKE, "source", out);
    }
    enum cleave_status status = cap_find_slot(ctx, node, source, "source", out);
    if (status == CLEAVE_OK && ((*out)->flags & CAP_TAKEN)) {
        status = mm_fail(ctx, CLEAVE_REVOKED, "source", source.v, 1, 0);
    }
    return status;
}

/* One unit of work; CLEAVE_WAIT stands for "more to do". The lock is held. */
static enum cleave_status work(struct mm_ctx *ctx, struct cnode *node, cap_t source, bool remove)
{
    struct cap *top;
    struct cap *victim = NULL;
    enum cleave_status status = find_root(ctx, node, source, remove, &top);

    if (status != CLEAVE_OK) {
        return status;
    }
    if (remove && !(top->flags & CAP_DELETE)) {
        top->flags |= CAP_DELETE;
        close_to_calls(top);
    }
    switch (step(ctx, top, remove, &victim)) {
    case STEP_DONE:
        return CLEAVE_OK;
    case STEP_AGAIN:
        return CLEAVE_AGAIN;
    case STEP_BUSY:
        return CLEAVE_BUSY;
    case STEP_CLOSE:
        status = close_victim(ctx, victim);
        return status == CLEAVE_OK && victim != top ? CLEAVE_WAIT : status;
    case STEP_MORE:
    case STEP_REMOVED:
    case STEP_INNER:
        break;
    }
    return CLEAVE_WAIT;
}

static enum cleave_status run(struct mm_ctx *ctx, struct cnode *node, cap_t source, bool remove)
{
    enum cleave_status status = CLEAVE_WAIT;

    while (status == CLEAVE_WAIT) {
        if (ctx->budget == 0) {
            port_point(ctx, POINT_PREEMPT, source.v, 0);
            return CLEAVE_AGAIN;
        }
        cap_lock(ctx);
        status = work(ctx, node, source, remove);
        cap_unlock(ctx);
        (void)mm_spend(ctx, 1);
    }
    return status;
}

enum cleave_status cap_revoke(struct mm_ctx *ctx, struct cnode *root, cap_t source)
{
    return run(ctx, root, source, false);
}

enum cleave_status cap_delete(struct mm_ctx *ctx, struct cnode *root, cap_t source)
{
    return run(ctx, root, source, true);
}
