/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Objects made in a pool through a capability: spaces, forks, snapshots, channels, pagers. Slots
 * are reserved first and the capability counts a user, both under the tree's lock (RANK_CAP); then
 * the object is made without it; then its capability is put in, which cannot fail.
 */
#include "cap_tree.h"

/* An object, or some of a kind, about to be made. */
struct making {
    struct cap *source;
    struct cap *slots;
    unsigned rights;
    bool beside; /* a fork through a first capability */
};

/* Finds the source and reserves `count` slots in `to`. Each set of `rights` will do. */
static enum cleave_status begin_locked(struct mm_ctx *ctx, struct cnode *root, cap_t source,
                                       const char *argument, unsigned types, unsigned rights,
                                       cap_t to, unsigned count, struct making *making)
{
    enum cleave_status status = cap_find(ctx, root, source, types, 0, argument, &making->source);

    if (status == CLEAVE_OK && !(making->source->rights & rights)) {
        status = mm_fail(ctx, CLEAVE_DENIED, argument, source.v, 1, 0);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    const struct cap *slot = making->source;
    making->beside = slot->type != CAP_POOL && (slot->flags & CAP_FIRST);
    if (!making->beside || (slot->flags & CAP_ROOT)) {
        status = cap_check_parent(ctx, slot, argument);
    }
    if (status == CLEAVE_OK && slot->users == UINT16_MAX) {
        status = mm_fail(ctx, CLEAVE_OVERFLOW, argument, source.v, 1, 0);
    }
    if (status == CLEAVE_OK) {
        status = cap_reserve_for(ctx, root, slot, to, count, &making->slots);
    }
    if (status == CLEAVE_OK) {
        making->rights = slot->rights;
        making->source->users++;
    }
    return status;
}

static enum cleave_status begin(struct mm_ctx *ctx, struct cnode *root, cap_t source,
                                const char *argument, unsigned types, unsigned rights, cap_t to,
                                unsigned count, struct making *making)
{
    cap_lock(ctx);
    enum cleave_status status =
        begin_locked(ctx, root, source, argument, types, rights, to, count, making);
    cap_unlock(ctx);
    return status;
}

/* Gives one object its capability. The lock is held. */
static cap_t name_object(struct making *making, enum cap_type type, unsigned rights, void *object)
{
    struct cap *slot = cap_pop(&making->slots);

    slot->object = object;
    cap_fill(slot, type, rights, CAP_FIRST, making->source, making->beside);
    return cap_name(slot);
}

/* Ends it after one object was made, or (`status`) was not. */
static enum cleave_status end(struct mm_ctx *ctx, struct making *making, enum cleave_status status,
                              enum cap_type type, unsigned rights, void *object, cap_t *made)
{
    cap_lock(ctx);
    if (status == CLEAVE_OK) {
        *made = name_object(making, type, rights, object);
    } else {
        cap_unreserve(making->slots);
    }
    making->source->users--;
    cap_unlock(ctx);
    return status;
}

/* What the maker of an object in a pool may do with it: all, but hand it on only where the pool's
 * own capability may be handed on. */
static unsigned maker_rights(const struct making *making)
{
    return CAP_MAY_ALL & ~(~making->rights & CAP_MAY_GRANT);
}

enum cleave_status cap_create_space(struct mm_ctx *ctx, struct cnode *root, cap_t pool,
                                    uint64_t limit, cap_t to, cap_t *made)
{
    struct making making;
    struct space *space = NULL;
    enum cleave_status status =
        begin(ctx, root, pool, "pool", CAP_BIT(CAP_POOL), CAP_MAY_WRITE, to, 1, &making);

    if (status != CLEAVE_OK) {
        return status;
    }
    status = space_create(ctx, making.source->object, limit, &space);
    return end(ctx, &making, status, CAP_SPACE, maker_rights(&making), space, made);
}

enum cleave_status cap_create_channel(struct mm_ctx *ctx, struct cnode *root, cap_t pool,
                                      const struct channel_options *options, cap_t to, cap_t *made)
{
    struct making making;
    struct channel *channel = NULL;
    enum cleave_status status =
        begin(ctx, root, pool, "pool", CAP_BIT(CAP_POOL), CAP_MAY_WRITE, to, 1, &making);

    if (status != CLEAVE_OK) {
        return status;
    }
    status = channel_create(ctx, making.source->object, options, &channel);
    return end(ctx, &making, status, CAP_CHANNEL, maker_rights(&making), channel, made);
}

enum cleave_status cap_create_pager(struct mm_ctx *ctx, struct cnode *root, cap_t pool, cap_t space,
                                    gpa_t window, cap_t to, cap_t *made)
{
    struct making making;
    struct cap_use own;
    struct pager *pager = NULL;
    enum cleave_status status =
        begin(ctx, root, pool, "pool", CAP_BIT(CAP_POOL), CAP_MAY_WRITE, to, 1, &making);

    if (status != CLEAVE_OK) {
        return status;
    }
    status = cap_use(ctx, root, space, CAP_BIT(CAP_SPACE), CAP_MAY_WRITE, &own);
    if (status == CLEAVE_OK) {
        status = pager_create(ctx, making.source->object, own.space, window, &pager);
        cap_end(ctx, &own);
    } else {
        ctx->error.argument = "space";
    }
    return end(ctx, &making, status, CAP_PAGER, maker_rights(&making), pager, made);
}

enum cleave_status cap_fork(struct mm_ctx *ctx, struct cnode *root, cap_t source, unsigned count,
                            const struct fork_options *options, cap_t to, cap_t *made)
{
    struct making making;
    struct space *children[FORK_MAX];

    if (count == 0 || count > FORK_MAX) {
        return mm_fail(ctx, CLEAVE_COUNT, "count", count, 1, FORK_MAX);
    }
    enum cleave_status status =
        begin(ctx, root, source, "source", CAP_BIT(CAP_SPACE) | CAP_BIT(CAP_SNAPSHOT),
              CAP_MAY_FORK | CAP_MAY_SPAWN, to, count, &making);
    if (status != CLEAVE_OK) {
        return status;
    }
    unsigned rights = making.rights & CAP_MAY_FORK ? making.rights : CAP_SPAWNED;
    status = space_fork(ctx, making.source->object, count, options, children);
    cap_lock(ctx);
    if (status == CLEAVE_OK) {
        for (unsigned i = 0; i < count; i++) {
            made[i] = name_object(&making, CAP_SPACE, rights, children[i]);
        }
    } else {
        cap_unreserve(making.slots);
    }
    making.source->users--;
    cap_unlock(ctx);
    return status;
}

enum cleave_status cap_snapshot(struct mm_ctx *ctx, struct cnode *root, cap_t source,
                                uint64_t limit, cap_t to, cap_t *made)
{
    struct making making;
    struct space *snapshot = NULL;
    enum cleave_status status =
        begin(ctx, root, source, "source", CAP_BIT(CAP_SPACE) | CAP_BIT(CAP_SNAPSHOT), CAP_MAY_FORK,
              to, 1, &making);

    if (status != CLEAVE_OK) {
        return status;
    }
    status = space_snapshot(ctx, making.source->object, limit, &snapshot);
    return end(ctx, &making, status, CAP_SNAPSHOT, making.rights, snapshot, made);
}
