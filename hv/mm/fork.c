/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fork: the child's root points to the parent's subtrees, each counted once, and both roots lose
 * their write bits. What a child must not share (wipe, absent, device and foreign ranges, pinned
 * pages) is taken out of the child's own tables before anyone can see it. The parent's lock is held
 * for writing; a child is nobody else's until the call returns.
 */
#include "fork.h"

#include "map.h"
#include "pin.h"
#include "table.h"

/* --- What a reservation must cover ------------------------------------------------------------ */

/* Tables that writes and first touches may take above the pages of one more extent. `last`
 * remembers per level the last table counted, so that neighbours count a common table once. */
static uint64_t extent_tables(struct gfn_range extent, uint64_t last[TABLE_LEVELS])
{
    uint64_t tables = 0;
    for (unsigned level = 1; level <= ROOT_LEVEL; level++) {
        uint64_t first = extent.start.v / level_pages(level);
        uint64_t end = (extent.end.v - 1) / level_pages(level) + 1;
        first = first < last[level] ? last[level] : first;
        tables += end > first ? end - first : 0;
        last[level] = end;
    }
    return tables;
}

uint64_t space_reserve_frames(struct mm_ctx *ctx, struct space *space, unsigned vcpus)
{
    uint64_t last[TABLE_LEVELS] = {0};
    uint64_t pages = 0, tables = 0;
    struct gfn_range extent = {gfn(0), gfn(0)};
    struct region region;

    (void)ctx;
    while (region_find(space->regions, extent.end, gfn(GUEST_PAGES), REGION_HAS_MEMORY, &extent,
                       &region)) {
        if (region.policy != REGION_ABSENT && region.policy != REGION_DEVICE &&
            region.policy != REGION_FOREIGN) {
            /* A paged page that is read first is loaded for all who share it, and copied later. */
            uint64_t times = region.policy == REGION_PAGED ? 2 : 1;
            pages += times * (extent.end.v - extent.start.v);
            tables += extent_tables(extent, last);
        }
    }
    /* Where pages are notified of, each table may need a node of the region tree beside it, and
     * the root one. */
    bool notify = (region_summary_all(space->regions) & REGION_HAS_NOTIFY) != 0;
    uint64_t nodes = notify ? tables + 1 : 0;
    return pages + tables + nodes + (uint64_t)vcpus * (ROOT_LEVEL + (UINT64_C(1) << space->grain));
}

/* --- Sharing ---------------------------------------------------------------------------------- */

/* Points the child's empty root at the parent's subtrees. On error everything is given back. */
static enum cleave_status share_root(struct mm_ctx *ctx, struct space *parent, struct space *child)
{
    const pte_t *from = table_slots(parent->root);
    pte_t *to = table_slots(child->root);

    enum cleave_status status = region_share(ctx, parent->regions);
    if (status != CLEAVE_OK) {
        return status;
    }
    child->regions = parent->regions;
    for (unsigned i = table_next_used(from, 0); i < TABLE_ENTRIES;
         i = table_next_used(from, i + 1)) {
        pte_t e = pte_read(&from[i]);
        status = node_get(ctx, pte_pfn(e));
        if (status != CLEAVE_OK) {
            return status; /* the caller destroys the child */
        }
        to[i] = pte_without_write(e);
    }
    return CLEAVE_OK;
}

/* Takes the write bits out of a root whose subtrees have just been shared. */
static void protect_root(struct mm_ctx *ctx, struct space *parent, struct flush_batch *batch)
{
    pte_t *slots = table_slots(parent->root);
    for (unsigned i = table_next_used(slots, 0); i < TABLE_ENTRIES;
         i = table_next_used(slots, i + 1)) {
        if (pte_writable(pte_read(&slots[i]))) {
            pte_clear_bits(ctx, &slots[i], pt_format.write);
            flush_need(batch);
        }
    }
}

/* The next range at or after `range->end` that a fork does not inherit: neighbouring words that are
 * treated alike. */
static bool next_policy(region_word_t tree, struct gfn_range *range, bool *wipe)
{
    struct gfn_range more;
    struct region region;

    if (!region_find(tree, range->end, gfn(GUEST_PAGES), REGION_HAS_FORK, range, &region)) {
        return false;
    }
    *wipe = region.policy == REGION_WIPE;
    while (region_find(tree, range->end, gfn(GUEST_PAGES), REGION_HAS_FORK, &more, &region) &&
           more.start.v == range->end.v && (region.policy == REGION_WIPE) == *wipe) {
        range->end = more.end;
    }
    return true;
}

/* Takes the ranges that a fork does not inherit out of the child. */
static enum cleave_status apply_policies(struct mm_ctx *ctx, struct space *child)
{
    const struct region none = {.policy = REGION_NONE};
    struct gfn_range range = {gfn(0), gfn(0)};
    enum cleave_status status = CLEAVE_OK;
    bool wipe;

    while (status == CLEAVE_OK && next_policy(child->regions, &range, &wipe)) {
        struct flush_batch batch;
        flush_begin(&batch, child);
        status = space_cut_both(ctx, child, range, &batch);
        if (status == CLEAVE_OK && !wipe) {
            status = region_set(ctx, &child->payer, &child->regions, range, &none);
        }
        if (status == CLEAVE_OK) {
            space_clear(ctx, child, range, &batch);
        }
        flush_finish(ctx, &batch);
    }
    return status;
}

/* Gives the child its own copy of one page that the parent has pinned. */
static enum cleave_status copy_pinned_page(struct mm_ctx *ctx, struct space *parent,
                                           struct space *child, gfn_t at, pfn_t pinned)
{
    struct flush_batch batch;
    struct walk walk;
    pfn_t copy;

    flush_begin(&batch, child);
    enum cleave_status status = walk_exclusive(ctx, child, &child->payer, at, 0, 0, &batch, &walk);
    if (status != CLEAVE_OK) {
        flush_finish(ctx, &batch);
        return status;
    }
    bool same = walk.level == 0 && pte_holds_leaf(walk.entry, 0) &&
                pte_pfn(walk.entry).v == pinned.v && !(walk.entry & PTE_SHARED);
    if (same) {
        status = pool_alloc(ctx, &child->payer, 0, FRAME_DATA, &copy);
    }
    if (same && status == CLEAVE_OK) {
        port_copy_pages(frame_address(copy), frame_address(pinned), 1);
        MM_CHECK(pte_replace(ctx, walk.slot, walk.entry, pte_with_pfn(walk.entry, copy)));
        flush_drop_frames(&batch, pinned, 0, 1);
        parent->stats.fork_copies++;
    }
    walk_end(ctx, &walk);
    flush_finish(ctx, &batch);
    return status;
}

/* Copies the pinned pages of the parent, whose references are exact (attachments_split()). */
static enum cleave_status copy_pinned(struct mm_ctx *ctx, struct space *parent, struct space *child)
{
    const struct gfn_range all = {gfn(0), gfn(GUEST_PAGES)};
    enum cleave_status status = CLEAVE_OK;
    struct attachment *a = NULL;

    while (status == CLEAVE_OK && (a = attachment_next_pinning(parent, a, all)) != NULL) {
        for (uint32_t i = 0; i < a->pages && status == CLEAVE_OK; i++) {
            gfn_t at = gfn(a->at.v + i);
            status = copy_pinned_page(ctx, parent, child, at, attachment_frame(a, at));
        }
    }
    return status;
}

/* --- One fork --------------------------------------------------------------------------------- */

/* Ends a child that could not be finished: it shares, but for a few edge tables, so that this is
 * short. The parent's lock is held. */
static void abandon(struct mm_ctx *ctx, struct space *child)
{
    uint64_t budget = ctx->budget;
    struct mm_error error = ctx->error;
    ctx->budget = UINT64_MAX;
    if (child->base != NULL) {
        __atomic_fetch_sub(&child->base->holders, 1, __ATOMIC_ACQ_REL);
        child->base = NULL;
    }
    child->holders = 1;
    space_discard(ctx, child);
    ctx->budget = budget;
    ctx->error = error;
}

/* Makes one child of a parent that is locked and whose pins are exact. */
static enum cleave_status fork_one(struct mm_ctx *ctx, struct space *parent, uint64_t limit,
                                   struct space **out)
{
    struct space *child;
    enum cleave_status status = space_create(ctx, parent->payer.pool, limit, &child);
    if (status != CLEAVE_OK) {
        return status;
    }
    child->grain = parent->grain;
    child->collapse_at = parent->collapse_at;
    child->vcpus = parent->vcpus;
    status = share_root(ctx, parent, child);
    if (status == CLEAVE_OK && parent->state != SPACE_FROZEN &&
        (region_summary_all(child->regions) & REGION_HAS_FORK)) {
        status = apply_policies(ctx, child);
    }
    if (status == CLEAVE_OK && parent->attachment_count != 0) {
        status = copy_pinned(ctx, parent, child);
    }
    if (status != CLEAVE_OK) {
        abandon(ctx, child);
        return status;
    }
    *out = child;
    return CLEAVE_OK;
}

/* Device regions that refuse a fork, and ranges that are too many to be taken out of it. */
static enum cleave_status policies_check(struct mm_ctx *ctx, struct space *parent,
                                         const char *argument)
{
    struct gfn_range range = {gfn(0), gfn(0)};
    struct region region;
    uint64_t words = 0;

    while (region_find(parent->regions, range.end, gfn(GUEST_PAGES), REGION_HAS_FORK, &range,
                       &region)) {
        if (region.policy == REGION_DEVICE && region.fork_refuse) {
            return mm_fail(ctx, CLEAVE_DEVICE, argument, range.start.v << PAGE_SHIFT, 1, 0);
        }
        if (++words > FORK_MAX_WORDS && parent->state != SPACE_FROZEN) {
            return mm_fail(ctx, CLEAVE_COUNT, argument, words, 0, FORK_MAX_WORDS);
        }
    }
    return CLEAVE_OK;
}

/* Pinned pages are copied for each child: not too many. */
static enum cleave_status pins_check(struct mm_ctx *ctx, struct space *parent, const char *argument,
                                     unsigned copies)
{
    uint64_t pages = attachments_pages(parent) * copies;
    return pages <= PINNED_MAX_PAGES
               ? CLEAVE_OK
               : mm_fail(ctx, CLEAVE_COUNT, argument, pages, 0, PINNED_MAX_PAGES);
}

/* Locks a parent that may be forked: alive or a snapshot, with exact pins, which are copied
 * `copies` times. `*began`: when. Errors name it as `argument`. */
static enum cleave_status fork_begin(struct mm_ctx *ctx, struct space *parent, const char *argument,
                                     unsigned copies, struct flush_batch *batch, uint64_t *began)
{
    flush_begin(batch, parent);
    write_lock(ctx, &parent->lock, RANK_SPACE);
    space_turn(parent);
    *began = port_now();
    enum cleave_status status = CLEAVE_OK;
    if (parent->state != SPACE_ALIVE && parent->state != SPACE_FROZEN) {
        status = mm_fail(ctx, CLEAVE_DYING, argument, parent->id, 1, 0);
    } else if (parent->op != OP_NONE) {
        status = mm_fail(ctx, CLEAVE_BUSY, argument, parent->op, OP_NONE, OP_NONE);
    } else if (region_summary_all(parent->regions) & REGION_HAS_FORK) {
        status = policies_check(ctx, parent, argument);
    }
    if (status == CLEAVE_OK && parent->attachment_count != 0) {
        status = pins_check(ctx, parent, argument, copies);
    }
    if (status == CLEAVE_OK && parent->attachment_count != 0) {
        status = attachments_split(ctx, parent, batch);
    }
    if (status != CLEAVE_OK) {
        flush_finish(ctx, batch);
        write_unlock(ctx, &parent->lock, RANK_SPACE);
    }
    return status;
}

static void fork_end(struct mm_ctx *ctx, struct space *parent, struct flush_batch *batch,
                     uint64_t began)
{
    protect_root(ctx, parent, batch);
    flush_finish(ctx, batch);
    parent->stats.stood_still = port_now() - began;
    write_unlock(ctx, &parent->lock, RANK_SPACE);
}

/* Reserves for each child, and renews the parent's reservation if it holds one. */
static enum cleave_status reserve_all(struct mm_ctx *ctx, struct space *parent, unsigned count,
                                      const struct fork_options *options, struct space **children)
{
    const struct gfn_range all = {gfn(0), gfn(GUEST_PAGES)};
    enum cleave_status status = CLEAVE_OK;
    uint64_t frames = options->reserve ? options->reserve_frames : 0;
    if (options->reserve && frames == 0) {
        if (region_count_words(parent->regions, all, RESERVE_MAX_WORDS) > RESERVE_MAX_WORDS) {
            return mm_fail(ctx, CLEAVE_COUNT, "parent", RESERVE_MAX_WORDS + 1, 0,
                           RESERVE_MAX_WORDS);
        }
        frames = space_reserve_frames(ctx, parent, options->vcpus);
    }

    for (unsigned i = 0; i < count && frames != 0 && status == CLEAVE_OK; i++) {
        children[i]->vcpus = options->vcpus;
        children[i]->reserve_goal = frames;
        status = pool_reserve(ctx, &children[i]->payer, frames);
    }
    if (status == CLEAVE_OK && parent->reserve_goal > parent->payer.reserved) {
        status = pool_reserve(ctx, &parent->payer, parent->reserve_goal - parent->payer.reserved);
    }
    return status;
}

static enum cleave_status options_check(struct mm_ctx *ctx, unsigned count,
                                        const struct fork_options *options)
{
    if (count == 0 || count > FORK_MAX) {
        return mm_fail(ctx, CLEAVE_COUNT, "count", count, 1, FORK_MAX);
    }
    if (options->reserve && options->vcpus == 0) {
        return mm_fail(ctx, CLEAVE_COUNT, "options.vcpus", options->vcpus, 1, UINT8_MAX);
    }
    return CLEAVE_OK;
}

enum cleave_status space_fork(struct mm_ctx *ctx, struct space *parent, unsigned count,
                              const struct fork_options *options, struct space **children)
{
    struct flush_batch batch;
    struct space *from = parent;
    unsigned made = 0;

    enum cleave_status status = options_check(ctx, count, options);
    if (status != CLEAVE_OK) {
        return status;
    }
    bool base = options->base && parent->state != SPACE_FROZEN;
    uint64_t began;
    status = fork_begin(ctx, parent, "parent", base ? 1 : count, &batch, &began);
    if (status != CLEAVE_OK) {
        return status;
    }
    if (options->base && parent->state != SPACE_FROZEN) {
        status = fork_one(ctx, parent, UINT64_MAX, &from);
        if (status == CLEAVE_OK) {
            from->state = SPACE_FROZEN;
            from->holders = 0; /* one for each child, below */
        }
    }
    while (status == CLEAVE_OK && made < count) {
        status = fork_one(ctx, from, options->limit, &children[made]);
        if (status == CLEAVE_OK && from->state == SPACE_FROZEN) {
            children[made]->base = from;
            space_hold(from);
        }
        made += status == CLEAVE_OK;
    }
    if (status == CLEAVE_OK) {
        status = reserve_all(ctx, parent, count, options, children);
    }
    if (status != CLEAVE_OK) {
        while (made > 0) {
            abandon(ctx, children[--made]);
        }
        if (from != parent) {
            abandon(ctx, from);
        }
    }
    fork_end(ctx, parent, &batch, began);
    return status;
}

void space_copy_by_page(struct mm_ctx *ctx, struct space *space, bool set)
{
    write_lock(ctx, &space->lock, RANK_SPACE);
    space->by_page = set;
    write_unlock(ctx, &space->lock, RANK_SPACE);
}

enum cleave_status space_snapshot(struct mm_ctx *ctx, struct space *space, uint64_t limit,
                                  struct space **out)
{
    struct flush_batch batch;
    uint64_t began;
    enum cleave_status status = fork_begin(ctx, space, "space", 1, &batch, &began);
    if (status != CLEAVE_OK) {
        return status;
    }
    status = fork_one(ctx, space, limit, out);
    if (status == CLEAVE_OK) {
        const struct fork_options none = {0};
        status = reserve_all(ctx, space, 0, &none, NULL);
        if (status == CLEAVE_OK) {
            (*out)->state = SPACE_FROZEN;
        } else {
            abandon(ctx, *out);
        }
    }
    fork_end(ctx, space, &batch, began);
    return status;
}
