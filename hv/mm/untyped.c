/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Untyped memory: the first capabilities at boot, and retyping, the only way in which memory
 * becomes an object. A capability's watermark says how far its range was handed out. Under the
 * tree's lock (RANK_CAP); pools are made without it, while the capability counts a user, which
 * keeps others off.
 */
#include "cap_tree.h"

/* --- Boot ------------------------------------------------------------------------------------- */

static enum cleave_status check_ranges(struct mm_ctx *ctx, const struct pfn_range *ranges,
                                       unsigned count, uint64_t frames)
{
    bool fits = false;

    if (count == 0 || count > CAP_BOOT_RANGES) {
        return mm_fail(ctx, CLEAVE_COUNT, "count", count, 1, CAP_BOOT_RANGES);
    }
    if (frames == 0 || frames > CNODE_FRAMES_MAX || CNODE_SLOTS(frames) < count) {
        return mm_fail(ctx, CLEAVE_COUNT, "frames", frames, 1, CNODE_FRAMES_MAX);
    }
    for (unsigned i = 0; i < count; i++) {
        uint64_t start = ranges[i].start.v;
        uint64_t end = ranges[i].end.v;
        if (start == 0 || end > machine.frames) {
            return mm_fail(ctx, CLEAVE_RANGE, "ranges", start == 0 ? start : end, 1,
                           machine.frames);
        }
        if (start >= end) {
            return mm_fail(ctx, CLEAVE_COUNT, "ranges", end, start + 1, machine.frames);
        }
        if (i > 0 && start < ranges[i - 1].end.v) {
            return mm_fail(ctx, CLEAVE_OVERLAP, "ranges", start, ranges[i - 1].end.v,
                           machine.frames);
        }
        fits = fits || end - start > frames;
    }
    return fits ? CLEAVE_OK : mm_fail(ctx, CLEAVE_NO_MEMORY, "frames", frames, 1, 0);
}

static void fill_untyped(struct cap *slot, struct pfn_range range, unsigned level,
                         struct cap *parent, bool beside)
{
    slot->range = range;
    slot->mark = range.start.v;
    slot->level = (uint8_t)level;
    cap_fill(slot, CAP_UNTYPED, CAP_MAY_ALL, CAP_FIRST, parent, beside);
}

/* Makes the first node at the end of the first range that has room for more than it. */
static struct cnode *make_root(const struct pfn_range *ranges, uint64_t frames)
{
    while ((uint64_t)ranges->end.v - ranges->start.v <= frames) {
        ranges++;
    }
    return cnode_make(pfn((uint32_t)(ranges->end.v - frames)), (uint32_t)frames, 0);
}

enum cleave_status cap_boot(struct mm_ctx *ctx, const struct pfn_range *ranges, unsigned count,
                            uint64_t frames, struct cnode **root)
{
    enum cleave_status status = check_ranges(ctx, ranges, count, frames);
    struct cap *slots;

    if (status != CLEAVE_OK) {
        return status;
    }
    struct cnode *node = make_root(ranges, frames);
    status = cap_reserve(ctx, node, count, &slots);
    if (status != CLEAVE_OK) {
        return status;
    }
    cap_tree = (struct cap_tree){.root = node};
    cap_tree.head.link = (struct cap_link){&cap_tree.head.link, &cap_tree.head.link};
    for (unsigned i = 0; i < count; i++) {
        struct pfn_range left = ranges[i];
        if (left.start.v < node->frame.v && node->frame.v < left.end.v) {
            left.end = node->frame;
        }
        fill_untyped(cap_pop(&slots), left, 0, &cap_tree.head, false);
    }
    *root = node;
    return CLEAVE_OK;
}

/* Finds untyped memory that may be written and that nobody else changes meanwhile. */
static enum cleave_status find_untyped(struct mm_ctx *ctx, struct cnode *root, cap_t handle,
                                       const char *argument, struct cap **out)
{
    enum cleave_status status =
        cap_find(ctx, root, handle, CAP_BIT(CAP_UNTYPED), CAP_MAY_WRITE, argument, out);

    if (status == CLEAVE_OK && (*out)->users != 0) {
        return CLEAVE_AGAIN;
    }
    if (status == CLEAVE_OK && ((*out)->flags & CAP_ROOT)) {
        status = mm_fail(ctx, CLEAVE_BUSY, argument, handle.v, 1, 0);
    }
    return status;
}

/* First frame that was not handed out of it. */
static uint32_t unused_from(const struct cap *slot)
{
    return cap_has_children(slot) ? slot->mark : slot->range.start.v;
}

/* --- Retype ----------------------------------------------------------------------------------- */

/* A retype that is under way: checked, its slots reserved, `source` in use. */
struct retype {
    enum cap_type type;
    uint64_t frames;
    unsigned count;
    struct cap *source;
    struct cap *slots;
    unsigned level; /* of the new nodes or untyped pieces */
    pfn_t start;    /* of the first object */
};

static enum cleave_status check_size(struct mm_ctx *ctx, const struct retype *retype)
{
    unsigned most = retype->type == CAP_POOL ? 1 : CAP_RETYPE_MAX;

    if (retype->type != CAP_UNTYPED && retype->type != CAP_CNODE && retype->type != CAP_POOL) {
        return mm_fail(ctx, CLEAVE_TYPE, "type", retype->type, CAP_UNTYPED, CAP_POOL);
    }
    if (retype->frames == 0 || (retype->type == CAP_CNODE && retype->frames > CNODE_FRAMES_MAX)) {
        return mm_fail(ctx, CLEAVE_COUNT, "frames", retype->frames, 1,
                       retype->type == CAP_CNODE ? CNODE_FRAMES_MAX : machine.frames);
    }
    if (retype->type == CAP_POOL && retype->frames % level_pages(1) != 0) {
        return mm_fail(ctx, CLEAVE_ALIGN, "frames", retype->frames, level_pages(1), level_pages(1));
    }
    if (retype->count == 0 || retype->count > most) {
        return mm_fail(ctx, CLEAVE_COUNT, "count", retype->count, 1, most);
    }
    return CLEAVE_OK;
}

/* Where the objects go: at the largest alignment that their size has and the range allows. */
static enum cleave_status place(struct mm_ctx *ctx, struct retype *retype)
{
    const struct cap *source = retype->source;
    uint64_t from = unused_from(source);
    uint64_t end = source->range.end.v;
    unsigned least = retype->type == CAP_POOL ? 1 : 0;

    for (unsigned order = LEAF_ORDERS; order-- > least;) {
        uint64_t pages = level_pages(order);
        uint64_t start = (from + pages - 1) & ~(pages - 1);
        if (retype->frames % pages == 0 && start <= end &&
            retype->frames <= (end - start) / retype->count) {
            if (port_refuse_allocation()) {
                break;
            }
            retype->start = pfn((uint32_t)start);
            return CLEAVE_OK;
        }
    }
    return mm_fail(ctx, CLEAVE_NO_MEMORY, "source", retype->frames, 1,
                   (end - from) / retype->count);
}

/* All checks; on success the slots are reserved and the source counts a user. */
static enum cleave_status begin(struct mm_ctx *ctx, struct cnode *root, cap_t source, cap_t to,
                                struct retype *retype)
{
    struct cnode *node;
    enum cleave_status status = find_untyped(ctx, root, source, "source", &retype->source);

    if (status == CLEAVE_OK) {
        status = cap_check_parent(ctx, retype->source, "source");
    }
    if (status == CLEAVE_OK) {
        status = cap_find_target(ctx, root, to, &node);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    unsigned level = retype->source->level > node->level ? retype->source->level : node->level;
    retype->level = level + (retype->type == CAP_CNODE ? 1 : 0);
    if (retype->level > CAP_LEVEL_MAX) {
        return mm_fail(ctx, CLEAVE_COUNT, "to", node->level, 0, CAP_LEVEL_MAX - 1);
    }
    status = place(ctx, retype);
    if (status == CLEAVE_OK) {
        status = cap_reserve_for(ctx, root, retype->source, to, retype->count, &retype->slots);
    }
    if (status == CLEAVE_OK) {
        retype->source->users++;
    }
    return status;
}

static void fill_object(const struct retype *retype, struct cap *slot, pfn_t at, struct pool *pool)
{
    struct cap *source = retype->source;

    if (retype->type == CAP_UNTYPED) {
        struct pfn_range range = {at, pfn_add(at, retype->frames)};
        fill_untyped(slot, range, retype->level, source, false);
        return;
    }
    if (retype->type == CAP_CNODE) {
        slot->object = cnode_make(at, (uint32_t)retype->frames, retype->level);
    } else {
        slot->object = pool;
    }
    cap_fill(slot, retype->type, CAP_MAY_ALL, CAP_FIRST, source, false);
}

enum cleave_status untyped_retype(struct mm_ctx *ctx, struct cnode *root, cap_t source,
                                  enum cap_type type, uint64_t frames, unsigned count, cap_t to,
                                  cap_t *made)
{
    struct retype retype = {.type = type, .frames = frames, .count = count};
    struct pool *pool = NULL;
    enum cleave_status status = check_size(ctx, &retype);

    if (status != CLEAVE_OK) {
        return status;
    }
    cap_lock(ctx);
    status = begin(ctx, root, source, to, &retype);
    cap_unlock(ctx);
    if (status != CLEAVE_OK) {
        return status;
    }
    if (type == CAP_POOL) {
        status = pool_create(ctx, retype.start, pfn_add(retype.start, frames), &pool);
    }
    cap_lock(ctx);
    retype.source->users--;
    if (status != CLEAVE_OK) {
        cap_unreserve(retype.slots);
    } else {
        retype.source->mark = (uint32_t)(retype.start.v + frames * count);
        for (unsigned i = 0; i < count; i++) {
            struct cap *slot = cap_pop(&retype.slots);
            fill_object(&retype, slot, pfn_add(retype.start, i * frames), pool);
            made[i] = cap_name(slot);
        }
    }
    cap_unlock(ctx);
    return status;
}

/* --- Pieces that lie side by side ------------------------------------------------------------- */

/* untyped_cut() under the lock. */
static enum cleave_status cut(struct mm_ctx *ctx, struct cnode *root, cap_t handle, uint64_t frames,
                              cap_t to, cap_t *rest)
{
    struct cap *source, *slot;
    enum cleave_status status = find_untyped(ctx, root, handle, "source", &source);

    if (status != CLEAVE_OK) {
        return status;
    }
    uint64_t all = (uint64_t)source->range.end.v - source->range.start.v;
    uint64_t least = (uint64_t)unused_from(source) - source->range.start.v;
    least = least == 0 ? 1 : least;
    if (frames < least || frames >= all) {
        return mm_fail(ctx, CLEAVE_COUNT, "frames", frames, least, all - 1);
    }
    status = cap_reserve_for(ctx, root, source, to, 1, &slot);
    if (status != CLEAVE_OK) {
        return status;
    }
    struct pfn_range range = {pfn_add(source->range.start, frames), source->range.end};
    unsigned level = slot->node->level > source->level ? slot->node->level : source->level;
    source->mark = unused_from(source);
    source->range.end = range.start;
    fill_untyped(slot, range, level, source, true);
    *rest = cap_name(slot);
    return CLEAVE_OK;
}

enum cleave_status untyped_cut(struct mm_ctx *ctx, struct cnode *root, cap_t source,
                               uint64_t frames, cap_t to, cap_t *rest)
{
    cap_lock(ctx);
    enum cleave_status status = cut(ctx, root, source, frames, to, rest);
    cap_unlock(ctx);
    return status;
}

/* untyped_join() under the lock. Siblings lie in the list by falling address: `source` right behind
 * `rest`, of which nothing was made. */
static enum cleave_status join(struct mm_ctx *ctx, struct cnode *root, cap_t handle, cap_t other)
{
    struct cap *source, *rest;
    enum cleave_status status = find_untyped(ctx, root, handle, "source", &source);

    if (status == CLEAVE_OK) {
        status = find_untyped(ctx, root, other, "rest", &rest);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    if (rest->depth != source->depth || rest->range.start.v != source->range.end.v) {
        return mm_fail(ctx, CLEAVE_INVALID, "rest", other.v, 1, 0);
    }
    if (cap_has_children(rest)) {
        return mm_fail(ctx, CLEAVE_BUSY, "rest", other.v, 1, 0);
    }
    if (cap_after(&rest->link) != source) {
        return mm_fail(ctx, CLEAVE_INVALID, "rest", other.v, 1, 0);
    }
    source->range.end = rest->range.end;
    cap_remove(rest);
    return CLEAVE_OK;
}

enum cleave_status untyped_join(struct mm_ctx *ctx, struct cnode *root, cap_t source, cap_t rest)
{
    cap_lock(ctx);
    enum cleave_status status = join(ctx, root, source, rest);
    cap_unlock(ctx);
    return status;
}

/* --- Pools that grow and shrink --------------------------------------------------------------- */

/* A resize that is under way: checked, both capabilities in use. */
struct resize {
    struct cap *source;
    struct cap *slot; /* the pool's */
    uint64_t frames;
    uint32_t mark; /* watermark before */
};

/* The pool's capability is the first, and the newest below `source`. */
static bool is_last_child(const struct cap *source, const struct cap *slot)
{
    return (slot->flags & CAP_FIRST) && slot->depth == source->depth + 1 &&
           cap_after(&source->link) == slot;
}

/* All checks but those of pool_resize(), under the lock; on success both capabilities count a user,
 * and what the pool is to gain is handed out. */
static enum cleave_status begin_resize(struct mm_ctx *ctx, struct cnode *root, cap_t source,
                                       cap_t named, struct resize *resize)
{
    enum cleave_status status = find_untyped(ctx, root, source, "source", &resize->source);

    if (status == CLEAVE_OK) {
        status =
            cap_find(ctx, root, named, CAP_BIT(CAP_POOL), CAP_MAY_WRITE, "pool", &resize->slot);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    struct cap *from = resize->source, *slot = resize->slot;
    if (!is_last_child(from, slot)) {
        return mm_fail(ctx, CLEAVE_INVALID, "pool", named.v, 1, 0);
    }
    if ((slot->flags & CAP_ROOT) || slot->users == UINT16_MAX) {
        return mm_fail(ctx, CLEAVE_BUSY, "pool", named.v, 1, 0);
    }
    const struct pool *pool = slot->object;
    uint64_t most = ((uint64_t)from->range.end.v - pool->start.v) & ~(level_pages(1) - 1);
    bool grows = resize->frames > pool->frames;
    if (grows && (resize->frames > most || port_refuse_allocation())) {
        return mm_fail(ctx, CLEAVE_NO_MEMORY, "frames", resize->frames, level_pages(1), most);
    }
    resize->mark = from->mark;
    from->mark = grows ? (uint32_t)(pool->start.v + resize->frames) : from->mark;
    from->users++;
    slot->users++;
    return CLEAVE_OK;
}

enum cleave_status untyped_resize_pool(struct mm_ctx *ctx, struct cnode *root, cap_t source,
                                       cap_t pool, uint64_t frames)
{
    struct resize resize = {.frames = frames};

    cap_lock(ctx);
    enum cleave_status status = begin_resize(ctx, root, source, pool, &resize);
    cap_unlock(ctx);
    if (status != CLEAVE_OK) {
        return status;
    }
    struct pool *object = resize.slot->object;
    status = pool_resize(ctx, object, frames);
    cap_lock(ctx);
    resize.source->mark = status == CLEAVE_OK ? object->end.v : resize.mark;
    resize.source->users--;
    resize.slot->users--;
    cap_unlock(ctx);
    return status;
}
