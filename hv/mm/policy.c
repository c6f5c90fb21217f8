/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Regions and rights of a range: set, changed, taken away. Under the writers' side of the space's
 * lock; what can fail comes before what a guest can see.
 */
#include "attachment.h"
#include "change.h"
#include "convert.h"
#include "map.h"
#include "stage.h"
#include "table.h"

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

static enum region_policy kind_of(enum region_policy policy)
{
    return is_private_kind(policy) ? REGION_PRIVATE : policy;
}

/* The whole range must have policies of one kind: `state` is that of the first word, plus one. */
static enum cleave_status check_kind(struct mm_ctx *ctx, struct region_change *change,
                                     const struct region *region, struct gfn_range part)
{
    uint64_t kind = 1 + (uint64_t)kind_of(region->policy);
    (void)part;
    if (change->state != 0 && change->state != kind) {
        return mm_fail(ctx, CLEAVE_EXISTS, "at", change->range.start.v << PAGE_SHIFT, 1, 0);
    }
    change->state = kind;
    return CLEAVE_OK;
}

static enum cleave_status checked_kind(struct mm_ctx *ctx, struct region_change *change)
{
    const struct region *to = change->arg;
    uint64_t now = change->state - 1;

    if (now == REGION_PRIVATE && is_private_kind(to->policy)) {
        return CLEAVE_OK;
    }
    if (now == REGION_SHARED && change->carry != NULL) {
        const struct attachment *held = attachment_next(change->space, NULL, change->range);
        return held == NULL ? CLEAVE_OK : mm_fail(ctx, CLEAVE_BUSY, "at", held->id, 1, 0);
    }
    return mm_fail(ctx, CLEAVE_POLICY, "region.policy", to->policy, now, now);
}

static enum cleave_status carry_private(struct mm_ctx *ctx, struct region_change *change)
{
    return convert_shared(ctx, change);
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

/* Changes the policy of a range of private kinds, or of shared memory that becomes private; takes
 * away what the new one does not allow. */
static enum cleave_status change_region(struct mm_ctx *ctx, struct space *space,
                                        struct gfn_range range, const struct region *region)
{
    struct region_change change = {.space = space,
                                   .range = range,
                                   .op = OP_REGION,
                                   .argument = region_pack(region),
                                   .edit = edit_policy,
                                   .arg = region,
                                   .check = check_kind,
                                   .checked = checked_kind,
                                   .cut = true};
    struct flush_batch batch;

    if (region->policy == REGION_PRIVATE &&
        region_get(space->regions, range.start).policy == REGION_SHARED) {
        change.carry = carry_private;
    }
    flush_begin(&batch, space);
    enum cleave_status status = change_apply(ctx, &change, &batch);
    if (status == CLEAVE_OK) {
        strip_rights(ctx, space, range, region->rights, &batch);
    }
    flush_finish(ctx, &batch);
    return status;
}

bool space_help_convert(struct mm_ctx *ctx, struct space *space)
{
    write_lock(ctx, &space->lock, RANK_SPACE);
    bool stopped =
        space->state == SPACE_ALIVE && space->op == OP_REGION && space->op_phase == PHASE_CONVERT;
    if (stopped) {
        struct region region = region_unpack(space->op_argument[0]);
        space_turn(space);
        enum cleave_status status = change_region(ctx, space, space->op_range, &region);
        MM_CHECK(status == CLEAVE_OK || status == CLEAVE_AGAIN);
    }
    write_unlock(ctx, &space->lock, RANK_SPACE);
    return stopped;
}

static enum cleave_status add_region(struct mm_ctx *ctx, struct space *space,
                                     struct gfn_range range, const struct region *region)
{
    if (region->policy != REGION_SHARED) {
        return region_set(ctx, &space->payer, &space->regions, range, region);
    }
    /* Populated, so that a fork finds every leaf, before it is a region. */
    const struct stage stage = {.space = space,
                                .range = range,
                                .region = region,
                                .op = OP_REGION,
                                .argument = region_pack(region)};
    return stage_run(ctx, &stage);
}

/* Is a range that is no region yet to be added: now, or in a call before? */
static bool adds(struct space *space, struct gfn_range range)
{
    if (space->op == OP_NONE) {
        return space_is_empty(space, range);
    }
    return space->op_phase == PHASE_STAGE ||
           (space->op_phase == PHASE_UNDO && space_is_empty(space, range));
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
        status = space_begin_op(ctx, space, OP_REGION, range, region_pack(region));
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    if (adds(space, range)) {
        status = add_region(ctx, space, range, region);
    } else {
        status = change_region(ctx, space, range, region);
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

/* Every page must have a region. `state`: one of them may not be written; or one is another
 * space's, in the higher bits which. */
#define CHECKED_READ_ONLY 1u
#define CHECKED_FOREIGN 2u
#define CHECKED_SHIFT 2
static enum cleave_status check_rights(struct mm_ctx *ctx, struct region_change *change,
                                       const struct region *region, struct gfn_range part)
{
    if (region->policy == REGION_NONE) {
        return mm_fail(ctx, CLEAVE_NOT_MAPPED, "at", part.start.v << PAGE_SHIFT, 1, 0);
    }
    if (region->policy == REGION_READ_ONLY) {
        change->state |= CHECKED_READ_ONLY;
    } else if (region->policy == REGION_FOREIGN && !(change->state & CHECKED_FOREIGN)) {
        change->state |= CHECKED_FOREIGN | part.start.v << CHECKED_SHIFT;
    }
    return CLEAVE_OK;
}

static enum cleave_status checked_rights(struct mm_ctx *ctx, struct region_change *change)
{
    unsigned rights = *(const unsigned *)change->arg;
    if ((change->state & CHECKED_READ_ONLY) && (rights & RIGHT_WRITE)) {
        return mm_fail(ctx, CLEAVE_RIGHTS, "rights", rights, 0, RIGHT_READ | RIGHT_EXEC);
    }
    if ((change->state & CHECKED_FOREIGN) && !(rights & RIGHT_READ)) {
        /* foreign_unmap() takes it away; its owner finds its leaf where it was. */
        uint64_t at = change->state >> CHECKED_SHIFT;
        return mm_fail(ctx, CLEAVE_POLICY, "at", at << PAGE_SHIFT, 1, 0);
    }
    return CLEAVE_OK;
}

enum cleave_status space_protect(struct mm_ctx *ctx, struct space *space, gpa_t at, uint64_t size,
                                 unsigned rights)
{
    struct region_change change = {.space = space,
                                   .op = OP_PROTECT,
                                   .argument = rights,
                                   .edit = edit_rights,
                                   .arg = &rights,
                                   .check = check_rights,
                                   .checked = checked_rights,
                                   .cut = !(rights & RIGHT_EXEC)};
    struct flush_batch batch;
    enum cleave_status status = range_check(ctx, at, size, &change.range);
    if (status == CLEAVE_OK && !rights_legal(rights)) {
        status = mm_fail(ctx, CLEAVE_RIGHTS, "rights", rights, 0, RIGHT_ALL);
    }
    if (status == CLEAVE_OK) {
        status = space_begin_op(ctx, space, OP_PROTECT, change.range, rights);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    flush_begin(&batch, space);
    status = change_apply(ctx, &change, &batch);
    if (status == CLEAVE_OK) {
        strip_rights(ctx, space, change.range, rights, &batch);
    }
    flush_finish(ctx, &batch);
    bool mapped = space->foreign_count != 0;
    space_end(ctx, space);
    if (status == CLEAVE_OK && mapped && !(rights & RIGHT_WRITE)) {
        foreign_protect(ctx, space, change.range);
    }
    return status;
}
