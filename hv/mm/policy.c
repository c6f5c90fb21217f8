/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Regions and rights of a range: set, changed, taken away. Under the writers' side of the space's
 * lock; what can fail comes before what a guest can see.
 */
#include "attachment.h"
#include "map.h"
#include "table.h"

/* First page of `range` without a region; the end when there is none. */
static gfn_t first_hole(struct space *space, struct gfn_range range)
{
    gfn_t at = range.start;
    while (at.v < range.end.v) {
        struct gfn_range extent;
        if (region_get_extent(space->regions, at, &extent).policy == REGION_NONE) {
            return at;
        }
        at = extent.end;
    }
    return range.end;
}

/* --- Regions ---------------------------------------------------------------------------------- */

static bool rights_legal(unsigned rights)
{
    return rights == 0 || rights == RIGHT_READ || rights == (RIGHT_READ | RIGHT_WRITE) ||
           rights == (RIGHT_READ | RIGHT_EXEC) || rights == RIGHT_ALL;
}

/* Policies between which a range may change without its contents. */
static bool is_private_kind(enum region_policy policy)
{
    return policy == REGION_PRIVATE || policy == REGION_READ_ONLY || policy == REGION_WIPE ||
           policy == REGION_ABSENT;
}

enum cleave_status region_check(struct mm_ctx *ctx, const struct region *region)
{
    if (!is_private_kind(region->policy) && region->policy != REGION_SHARED) {
        return mm_fail(ctx, CLEAVE_POLICY, "region.policy", region->policy, REGION_PRIVATE,
                       REGION_ABSENT);
    }
    if (!rights_legal(region->rights) ||
        (region->policy == REGION_READ_ONLY && (region->rights & RIGHT_WRITE))) {
        return mm_fail(ctx, CLEAVE_RIGHTS, "region.rights", region->rights, 0, RIGHT_ALL);
    }
    if (region->order >= LEAF_ORDERS) {
        return mm_fail(ctx, CLEAVE_ORDER, "region.order", region->order, 0, LEAF_ORDERS - 1);
    }
    if (region->armed || region->notify || region->channel != 0 || region->pager != 0) {
        return mm_fail(ctx, CLEAVE_INVALID, "region.channel", region->channel, 0, 0);
    }
    return CLEAVE_OK;
}

static void edit_policy(struct region *region, const void *arg)
{
    const struct region *to = arg;
    region->policy = to->policy;
    region->rights = to->rights;
    region->whole = to->whole;
    region->order = to->order;
}

/* Takes from a range, at both ends of which space_cut() was done, all that `rights` does not give.
 */
static void strip_rights(struct mm_ctx *ctx, struct space *space, struct gfn_range range,
                         unsigned rights, struct flush_batch *batch)
{
    for (unsigned right = RIGHT_READ; right <= RIGHT_EXEC; right <<= 1) {
        if (!(rights & right)) {
            space_strip(ctx, space, range, right, batch);
        }
    }
}

/* Changes the policy of a range of private kinds; takes away what the new one does not allow. */
static enum cleave_status change_region(struct mm_ctx *ctx, struct space *space,
                                        struct gfn_range range, const struct region *region)
{
    struct flush_batch batch;
    flush_begin(&batch, space);
    enum cleave_status status = space_cut_both(ctx, space, range, &batch);
    if (status == CLEAVE_OK) {
        status = region_edit(ctx, &space->payer, &space->regions, range, edit_policy, region);
    }
    if (status == CLEAVE_OK) {
        strip_rights(ctx, space, range, region->rights, &batch);
    }
    flush_finish(ctx, &batch);
    return status;
}

static enum cleave_status add_region(struct mm_ctx *ctx, struct space *space,
                                     struct gfn_range range, const struct region *region)
{
    struct flush_batch batch;
    if (region->policy != REGION_SHARED) {
        return region_set(ctx, &space->payer, &space->regions, range, region);
    }
    /* Populated in this call, so that a fork finds every leaf; and before it is a region, so that
     * nothing is left when either fails. */
    uint64_t budget = ctx->budget;
    ctx->budget = UINT64_MAX;
    enum cleave_status status = space_fill(ctx, space, range, region);
    ctx->budget = budget;
    if (status == CLEAVE_OK) {
        status = region_set(ctx, &space->payer, &space->regions, range, region);
    }
    if (status != CLEAVE_OK) {
        flush_begin(&batch, space);
        space_clear(ctx, space, range, &batch);
        flush_finish(ctx, &batch);
    }
    return status;
}

/* --- Shared memory made private
 * --------------------------------------------------------------------- */

static void edit_policy(struct region *region, const void *arg);

/* One leaf of shared memory becomes a private one: its own when nobody else maps it, else a copy.
 * `payer` holds a reservation for everything that this takes. */
static enum cleave_status unshare_leaf(struct mm_ctx *ctx, struct space *space, struct payer *payer,
                                       gfn_t at, gfn_t *next)
{
    struct flush_batch batch;
    struct walk walk;

    flush_begin(&batch, space);
    enum cleave_status status = walk_exclusive(ctx, space, payer, at, 0, 0, &batch, &walk);
    if (status != CLEAVE_OK) {
        flush_finish(ctx, &batch);
        return status;
    }
    pte_t old = walk.entry;
    pfn_t from = pte_pfn(old), to = from;
    bool keep = frame_is_exclusive(ctx, from, walk.level, 0);
    *next = gfn(at.v + level_pages(walk.level));
    if (!keep && walk.level > 0) {
        status = table_split_leaf(ctx, payer, &walk, &batch);
        *next = at;
    } else {
        if (!keep) {
            status = pool_alloc(ctx, payer, 0, FRAME_DATA, &to);
        }
        if (status == CLEAVE_OK) {
            if (!keep) {
                port_copy_pages(frame_address(to), frame_address(from), 1);
                space->stats.pages_copied++;
                flush_drop_frames(&batch, from, 0, 1);
            }
            pte_t new = pte_with_pfn(old, to) & ~PTE_SHARED;
            while (!pte_replace(ctx, walk.slot, old, pte_without_write(new))) {
                old = pte_read(walk.slot);
            }
            flush_need(&batch);
        }
    }
    walk_end(ctx, &walk);
    flush_finish(ctx, &batch);
    return status;
}

/* Tables that splitting and copying paths under `range` can take, and its pages. */
static uint64_t unshare_frames(struct gfn_range range)
{
    uint64_t pages = range.end.v - range.start.v;
    uint64_t frames = pages;
    for (unsigned level = 1; level <= ROOT_LEVEL; level++) {
        frames += pages / level_pages(level) + 2;
    }
    return frames;
}

enum cleave_status space_unshare(struct mm_ctx *ctx, struct space *space, struct gfn_range range,
                                 const struct region *region)
{
    uint64_t pages = range.end.v - range.start.v;
    struct payer payer = {.pool = space->payer.pool, .account = space->payer.account};
    struct flush_batch batch;

    if (pages > UNSHARE_MAX_PAGES) {
        return mm_fail(ctx, CLEAVE_COUNT, "size", pages << PAGE_SHIFT, PAGE_SIZE,
                       UNSHARE_MAX_PAGES << PAGE_SHIFT);
    }
    const struct attachment *held = attachment_next(space, NULL, range);
    if (held != NULL) {
        return mm_fail(ctx, CLEAVE_BUSY, "at", held->id, 1, 0);
    }
    flush_begin(&batch, space);
    enum cleave_status status = space_cut_both(ctx, space, range, &batch);
    if (status == CLEAVE_OK) {
        status = pool_reserve(ctx, &payer, unshare_frames(range));
    }
    if (status == CLEAVE_OK) {
        status = region_edit(ctx, &space->payer, &space->regions, range, edit_policy, region);
    }
    if (status == CLEAVE_OK) { /* nobody writes what is being copied */
        strip_rights(ctx, space, range, region->rights & ~(unsigned)RIGHT_WRITE, &batch);
    }
    flush_finish(ctx, &batch);
    for (gfn_t at = range.start; status == CLEAVE_OK && at.v < range.end.v;) {
        status = unshare_leaf(ctx, space, &payer, at, &at);
    }
    pool_unreserve(ctx, &payer);
    return status;
}

/* What the whole of `range` is now: REGION_POLICIES for a mixture that cannot change together. */
static enum region_policy present_policy(struct space *space, struct gfn_range range)
{
    struct gfn_range extent;
    enum region_policy first = region_get_extent(space->regions, range.start, &extent).policy;
    first = is_private_kind(first) ? REGION_PRIVATE : first;
    for (gfn_t at = extent.end; at.v < range.end.v; at = extent.end) {
        enum region_policy policy = region_get_extent(space->regions, at, &extent).policy;
        policy = is_private_kind(policy) ? REGION_PRIVATE : policy;
        if (policy != first) {
            return REGION_POLICIES;
        }
    }
    return first;
}

enum cleave_status space_set_region(struct mm_ctx *ctx, struct space *space, gpa_t at,
                                    uint64_t size, const struct region *region)
{
    struct gfn_range range;
    enum cleave_status status = range_check(ctx, at, size, &range);
    if (status == CLEAVE_OK) {
        status = region_check(ctx, region);
    }
    if (status == CLEAVE_OK) {
        status = space_begin(ctx, space);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    enum region_policy now = present_policy(space, range);
    if (now == REGION_NONE) {
        status = add_region(ctx, space, range, region);
    } else if (now == REGION_PRIVATE && is_private_kind(region->policy)) {
        status = change_region(ctx, space, range, region);
    } else if (now == REGION_SHARED && region->policy == REGION_PRIVATE) {
        status = space_unshare(ctx, space, range, region);
    } else if (now == REGION_POLICIES) {
        status = mm_fail(ctx, CLEAVE_EXISTS, "at", at.v, 1, 0);
    } else {
        status = mm_fail(ctx, CLEAVE_POLICY, "region.policy", region->policy, now, now);
    }
    bool mapped = space->foreign_count != 0;
    space_end(ctx, space);
    if (status == CLEAVE_OK && mapped) {
        foreign_follow_range(ctx, space, range);
        if (!(region->rights & RIGHT_WRITE)) {
            foreign_protect(ctx, space, range);
        }
    }
    return status;
}

static void edit_rights(struct region *region, const void *arg)
{
    region->rights = (uint8_t) * (const unsigned *)arg;
}

enum cleave_status space_protect(struct mm_ctx *ctx, struct space *space, gpa_t at, uint64_t size,
                                 unsigned rights)
{
    struct gfn_range range, extent;
    struct flush_batch batch;
    enum cleave_status status = range_check(ctx, at, size, &range);
    if (status == CLEAVE_OK && !rights_legal(rights)) {
        status = mm_fail(ctx, CLEAVE_RIGHTS, "rights", rights, 0, RIGHT_ALL);
    }
    if (status == CLEAVE_OK) {
        status = space_begin(ctx, space);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    flush_begin(&batch, space);
    gfn_t hole = first_hole(space, range);
    if (hole.v < range.end.v) {
        status = mm_fail(ctx, CLEAVE_NOT_MAPPED, "at", hole.v << PAGE_SHIFT, 1, 0);
    }
    for (gfn_t f = range.start; status == CLEAVE_OK && f.v < range.end.v; f = extent.end) {
        struct region region = region_get_extent(space->regions, f, &extent);
        if (region.policy == REGION_READ_ONLY && (rights & RIGHT_WRITE)) {
            status = mm_fail(ctx, CLEAVE_RIGHTS, "rights", rights, 0, RIGHT_READ | RIGHT_EXEC);
        }
        if (region.policy == REGION_FOREIGN && !(rights & RIGHT_READ)) {
            /* foreign_unmap() takes it away; its owner finds its leaf where it was. */
            status = mm_fail(ctx, CLEAVE_POLICY, "at", f.v << PAGE_SHIFT, 1, 0);
        }
    }
    if (status == CLEAVE_OK && !(rights & RIGHT_EXEC)) {
        status = space_cut_both(ctx, space, range, &batch);
    }
    if (status == CLEAVE_OK) {
        status = region_edit(ctx, &space->payer, &space->regions, range, edit_rights, &rights);
    }
    if (status == CLEAVE_OK) {
        strip_rights(ctx, space, range, rights, &batch);
    }
    flush_finish(ctx, &batch);
    bool mapped = space->foreign_count != 0;
    space_end(ctx, space);
    if (status == CLEAVE_OK && mapped && !(rights & RIGHT_WRITE)) {
        foreign_protect(ctx, space, range);
    }
    return status;
}
