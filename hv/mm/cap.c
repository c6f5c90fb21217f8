/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Capability nodes, the slots in them, and what is done with one capability: find, copy, move,
 * look, use. Everything is under the tree's lock (RANK_CAP); cap_tree.h draws the tree.
 */
#include "cap_tree.h"

struct cap_tree cap_tree;

/* --- Nodes and slots -------------------------------------------------------------------------- */

/* Generations start at random in the lower half, so that a handle into an earlier node in the same
 * frames names nothing, and a slot serves 2^31 capabilities before it is worn out. */
struct cnode *cnode_make(pfn_t frame, uint32_t frames, unsigned level)
{
    struct cnode *node = frame_address(frame);
    __builtin_memset(node, 0, CAP_SLOT_SIZE);
    *node = (struct cnode){
        .slots = CNODE_SLOTS(frames),
        .generation = (uint32_t)port_random() >> 1 | 1u,
        .frame = frame,
        .frames = frames,
        .level = (uint8_t)level,
    };
    return node;
}

uint32_t cnode_slots(const struct cnode *node) { return node->slots; }

struct cap *cap_pop(struct cap **first)
{
    struct cap *slot = *first;
    struct cap_link *next = slot->link.next;
    *first = (struct cap *)(void *)next;
    slot->link = (struct cap_link){NULL, NULL};
    return slot;
}

static void push(struct cap **first, struct cap *slot)
{
    slot->link.next = *first != NULL ? &(*first)->link : NULL;
    *first = slot;
}

static struct cap *take_free_slot(struct cnode *node)
{
    if (node->free != NULL) {
        return cap_pop(&node->free);
    }
    struct cap *slot = cnode_slot(node, node->fresh);
    node->fresh++;
    __builtin_memset(slot, 0, sizeof(*slot));
    slot->node = node;
    slot->generation = node->generation;
    return slot;
}

enum cleave_status cap_reserve(struct mm_ctx *ctx, struct cnode *node, unsigned count,
                               struct cap **first)
{
    if (node->dying) {
        return mm_fail(ctx, CLEAVE_DYING, "to", 0, 1, 0);
    }
    if (count > node->slots - node->used || port_refuse_allocation()) {
        return mm_fail(ctx, CLEAVE_COUNT, "to", count, 0, node->slots - node->used);
    }
    struct cap *last = NULL;
    for (unsigned i = 0; i < count; i++) {
        struct cap *slot = take_free_slot(node);
        slot->flags = CAP_RESERVED;
        if (last == NULL) {
            *first = slot;
        } else {
            last->link.next = &slot->link;
        }
        last = slot;
    }
    node->used += count;
    return CLEAVE_OK;
}

void cap_unreserve(struct cap *first)
{
    while (first != NULL) {
        struct cap *slot = cap_pop(&first);
        slot->flags = 0;
        slot->node->used--;
        push(&slot->node->free, slot);
    }
}

void cap_fill(struct cap *slot, enum cap_type type, unsigned rights, unsigned flags,
              struct cap *parent, bool beside)
{
    unsigned depth = beside ? parent->depth : parent->depth + 1u;
    bool taken = (parent->flags & CAP_TAKEN) || (!beside && (parent->flags & CAP_ROOT));

    MM_ASSERT(slot->type == CAP_NONE && slot->flags == CAP_RESERVED && depth <= CAP_DEPTH_MAX);
    slot->type = (uint8_t)type;
    slot->rights = (uint8_t)rights;
    slot->flags = (uint8_t)(flags | (taken ? CAP_TAKEN : 0u));
    slot->depth = (uint8_t)depth;
    slot->users = 0;
    link_insert(&slot->link, beside ? parent->link.previous : &parent->link);
}

/* Makes a slot whose capability is gone or elsewhere a free one. */
static void clear_slot(struct cap *slot)
{
    struct cnode *node = slot->node;
    uint32_t generation = slot->generation + 1;

    __builtin_memset(slot, 0, sizeof(*slot));
    slot->node = node;
    slot->generation = generation;
    if (generation != UINT32_MAX) {
        node->used--;
        push(&node->free, slot);
    }
}

void cap_remove(struct cap *slot)
{
    MM_ASSERT(!cap_has_children(slot) && slot->users == 0);
    if (slot->flags & CAP_ROOT) {
        link_remove(&slot->marker);
    }
    link_remove(&slot->link);
    clear_slot(slot);
}

void cnode_hold(struct mm_ctx *ctx, struct cnode *node)
{
    cap_lock(ctx);
    node->holders++;
    MM_CHECK(node->holders != 0);
    cap_unlock(ctx);
}

void cnode_release(struct mm_ctx *ctx, struct cnode *node)
{
    cap_lock(ctx);
    MM_CHECK(node->holders != 0);
    node->holders--;
    cap_unlock(ctx);
}

/* --- Finding ---------------------------------------------------------------------------------- */

enum cleave_status cap_find_slot(struct mm_ctx *ctx, struct cnode *node, cap_t handle,
                                 const char *argument, struct cap **out)
{
    uint32_t index = CAP_INDEX(handle);
    uint32_t generation = (uint32_t)(handle.v >> 32);

    if (node->dying) {
        return mm_fail(ctx, CLEAVE_DYING, "root", 0, 1, 0);
    }
    if (index >= node->slots) {
        return mm_fail(ctx, CLEAVE_RANGE, argument, index, 0, node->slots - 1);
    }
    if (index >= node->fresh) {
        return mm_fail(ctx, CLEAVE_NO_CAP, argument, handle.v, 1, 0);
    }
    struct cap *slot = cnode_slot(node, index);
    if (generation >= node->generation && generation < slot->generation) {
        return mm_fail(ctx, CLEAVE_REVOKED, argument, handle.v, 1, 0);
    }
    if (generation != slot->generation || slot->type == CAP_NONE) {
        return mm_fail(ctx, CLEAVE_NO_CAP, argument, handle.v, 1, 0);
    }
    *out = slot;
    return CLEAVE_OK;
}

enum cleave_status cap_find(struct mm_ctx *ctx, struct cnode *node, cap_t handle, unsigned types,
                            unsigned rights, const char *argument, struct cap **out)
{
    struct cap *slot;
    enum cleave_status status = cap_find_slot(ctx, node, handle, argument, &slot);

    if (status != CLEAVE_OK) {
        return status;
    }
    if (slot->flags & (CAP_TAKEN | CAP_DELETE)) {
        return mm_fail(ctx, CLEAVE_REVOKED, argument, handle.v, 1, 0);
    }
    if (!(types & CAP_BIT(slot->type))) {
        return mm_fail(ctx, CLEAVE_TYPE, argument, handle.v, 1, 0);
    }
    if ((slot->rights & rights) != rights) {
        return mm_fail(ctx, CLEAVE_DENIED, argument, handle.v, 1, 0);
    }
    *out = slot;
    return CLEAVE_OK;
}

enum cleave_status cap_check_parent(struct mm_ctx *ctx, const struct cap *slot,
                                    const char *argument)
{
    if (slot->flags & CAP_ROOT) {
        return mm_fail(ctx, CLEAVE_BUSY, argument, cap_name(slot).v, 1, 0);
    }
    if (slot->depth >= CAP_DEPTH_MAX) {
        return mm_fail(ctx, CLEAVE_COUNT, argument, slot->depth, 1, CAP_DEPTH_MAX - 1);
    }
    return CLEAVE_OK;
}

enum cleave_status cap_find_target(struct mm_ctx *ctx, struct cnode *root, cap_t to,
                                   struct cnode **out)
{
    struct cap *slot;

    if (to.v == CAP_SELF.v) {
        *out = root;
        return CLEAVE_OK;
    }
    enum cleave_status status =
        cap_find(ctx, root, to, CAP_BIT(CAP_CNODE), CAP_MAY_WRITE, "to", &slot);
    if (status == CLEAVE_OK) {
        *out = slot->object;
    }
    return status;
}

/* Finds the node `to` for something that comes from `source`. */
static enum cleave_status find_grant(struct mm_ctx *ctx, struct cnode *root,
                                     const struct cap *source, cap_t to, struct cnode **out)
{
    enum cleave_status status = cap_find_target(ctx, root, to, out);

    if (status == CLEAVE_OK && *out != source->node && !(source->rights & CAP_MAY_GRANT)) {
        return mm_fail(ctx, CLEAVE_DENIED, "source", cap_name(source).v, 1, 0);
    }
    return status;
}

enum cleave_status cap_reserve_for(struct mm_ctx *ctx, struct cnode *root, const struct cap *source,
                                   cap_t to, unsigned count, struct cap **first)
{
    struct cnode *node;
    enum cleave_status status = find_grant(ctx, root, source, to, &node);

    return status == CLEAVE_OK ? cap_reserve(ctx, node, count, first) : status;
}

/* --- Copy and move ---------------------------------------------------------------------------- */

static enum cleave_status copy_locked(struct mm_ctx *ctx, struct cnode *root, cap_t source,
                                      unsigned rights, cap_t to, cap_t *copy)
{
    struct cap *from;
    struct cap *slot;
    enum cleave_status status =
        cap_find(ctx, root, source, ~CAP_BIT(CAP_UNTYPED), 0, "source", &from);

    if (status == CLEAVE_OK && (rights & ~(unsigned)from->rights) != 0) {
        status = mm_fail(ctx, CLEAVE_DENIED, "rights", rights, 1, from->rights);
    }
    if (status == CLEAVE_OK) {
        status = cap_check_parent(ctx, from, "source");
    }
    if (status == CLEAVE_OK) {
        status = cap_reserve_for(ctx, root, from, to, 1, &slot);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    slot->object = from->object;
    cap_fill(slot, from->type, rights, 0, from, false);
    *copy = cap_name(slot);
    return CLEAVE_OK;
}

enum cleave_status cap_copy(struct mm_ctx *ctx, struct cnode *root, cap_t source, unsigned rights,
                            cap_t to, cap_t *copy)
{
    if (rights == 0 || rights > CAP_MAY_ALL) {
        return mm_fail(ctx, CLEAVE_RIGHTS, "rights", rights, 1, CAP_MAY_ALL);
    }
    cap_lock(ctx);
    enum cleave_status status = copy_locked(ctx, root, source, rights, to, copy);
    cap_unlock(ctx);
    return status;
}

/* Whether a capability may lie in `node` without closing a loop of nodes: see cap_move(). */
static bool level_allows(const struct cap *slot, const struct cnode *node)
{
    if (slot->type == CAP_UNTYPED) {
        return node->level <= slot->level || !cap_has_children(slot);
    }
    if (slot->type == CAP_CNODE && (slot->flags & CAP_FIRST)) {
        return node->level < ((const struct cnode *)slot->object)->level;
    }
    return true;
}

/* Puts what is in `from` into `to`, a reserved slot, at the same place of the tree. */
static void move_slot(struct cap *from, struct cap *to)
{
    struct cnode *node = to->node;
    uint32_t generation = to->generation;

    *to = *from;
    to->node = node;
    to->generation = generation;
    to->link.next->previous = &to->link;
    to->link.previous->next = &to->link;
    if (to->type == CAP_UNTYPED && to->level < node->level) {
        to->level = node->level;
    }
    clear_slot(from);
}

static enum cleave_status move_locked(struct mm_ctx *ctx, struct cnode *root, cap_t source,
                                      cap_t to, cap_t *moved)
{
    struct cap *from;
    struct cap *slot;
    struct cnode *node;
    enum cleave_status status = cap_find(ctx, root, source, CAP_ANY_TYPE, 0, "source", &from);

    if (status == CLEAVE_OK && ((from->flags & CAP_ROOT) || from->users != 0)) {
        status = mm_fail(ctx, CLEAVE_BUSY, "source", source.v, 1, 0);
    }
    if (status == CLEAVE_OK) {
        status = find_grant(ctx, root, from, to, &node);
    }
    if (status == CLEAVE_OK && !level_allows(from, node)) {
        status = mm_fail(ctx, CLEAVE_INVALID, "to", to.v, 1, 0);
    }
    if (status == CLEAVE_OK) {
        status = cap_reserve(ctx, node, 1, &slot);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    move_slot(from, slot);
    *moved = cap_name(slot);
    return CLEAVE_OK;
}

enum cleave_status cap_move(struct mm_ctx *ctx, struct cnode *root, cap_t source, cap_t to,
                            cap_t *moved)
{
    cap_lock(ctx);
    enum cleave_status status = move_locked(ctx, root, source, to, moved);
    cap_unlock(ctx);
    return status;
}

/* --- Looking and using ------------------------------------------------------------------------ */

static void describe(const struct cap *slot, struct cap_info *info)
{
    const struct cnode *node = slot->object;
    const struct pool *pool = slot->object;

    *info = (struct cap_info){
        .type = (enum cap_type)slot->type,
        .rights = slot->rights,
        .depth = slot->depth,
        .first = (slot->flags & CAP_FIRST) != 0,
        .revoking = (slot->flags & CAP_ROOT) != 0,
    };
    switch ((enum cap_type)slot->type) {
    case CAP_UNTYPED:
        info->range = slot->range;
        info->unused =
            slot->range.end.v - (cap_has_children(slot) ? slot->mark : slot->range.start.v);
        break;
    case CAP_CNODE:
        info->range = (struct pfn_range){node->frame, pfn_add(node->frame, node->frames)};
        info->slots = node->slots;
        info->used = node->used;
        break;
    case CAP_POOL:
        info->range.start = pool->start;
        info->range.end = pfn(__atomic_load_n(&pool->end.v, __ATOMIC_RELAXED));
        break;
    case CAP_NONE:
    case CAP_SPACE:
    case CAP_SNAPSHOT:
    case CAP_CHANNEL:
    case CAP_PAGER:
    case CAP_TYPES:
        break;
    }
}

enum cleave_status cap_look(struct mm_ctx *ctx, struct cnode *root, cap_t source,
                            struct cap_info *info)
{
    struct cap *slot;

    cap_lock(ctx);
    enum cleave_status status = cap_find(ctx, root, source, CAP_ANY_TYPE, 0, "source", &slot);
    if (status == CLEAVE_OK) {
        describe(slot, info);
    }
    cap_unlock(ctx);
    return status;
}

enum cleave_status cap_at(struct mm_ctx *ctx, struct cnode *root, uint32_t index, cap_t *handle)
{
    enum cleave_status status = CLEAVE_OK;

    cap_lock(ctx);
    if (root->dying) {
        status = mm_fail(ctx, CLEAVE_DYING, "root", 0, 1, 0);
    } else if (index >= root->slots) {
        status = mm_fail(ctx, CLEAVE_RANGE, "index", index, 0, root->slots - 1);
    } else if (index >= root->fresh || cnode_slot(root, index)->type == CAP_NONE) {
        status = mm_fail(ctx, CLEAVE_NO_CAP, "index", index, 1, 0);
    } else {
        *handle = cap_name(cnode_slot(root, index));
    }
    cap_unlock(ctx);
    return status;
}

enum cleave_status cap_use(struct mm_ctx *ctx, struct cnode *root, cap_t source, unsigned types,
                           unsigned rights, struct cap_use *use)
{
    struct cap *slot;

    cap_lock(ctx);
    enum cleave_status status =
        cap_find(ctx, root, source, types & ~CAP_BIT(CAP_UNTYPED), rights, "source", &slot);
    if (status == CLEAVE_OK && slot->users == UINT16_MAX) {
        status = mm_fail(ctx, CLEAVE_OVERFLOW, "source", source.v, 1, 0);
    }
    if (status == CLEAVE_OK) {
        slot->users++;
        *use = (struct cap_use){.slot = slot,
                                .type = (enum cap_type)slot->type,
                                .rights = slot->rights,
                                .object = slot->object};
    }
    cap_unlock(ctx);
    return status;
}

void cap_end(struct mm_ctx *ctx, struct cap_use *use)
{
    cap_lock(ctx);
    MM_CHECK(use->slot->users != 0);
    use->slot->users--;
    cap_unlock(ctx);
    *use = (struct cap_use){0};
}
