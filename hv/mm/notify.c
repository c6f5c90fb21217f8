/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Write notification: what the subscriber and the writer do to the regions of a space, whose lock
 * is taken before the channel's.
 *
 *   synchronous, the writer waits:
 *     armed --write--> event queued --channel_next--> taken --ALLOW--> dirty --rearm--> armed
 *                                                           --DENY---> armed, the writer refused
 *   asynchronous:
 *     armed --write--> dirty, event queued --channel_next--> event gone; dirty --rearm--> armed
 */
#include "channel.h"

#include "pin.h"
#include "table.h"

/* --- Changes of regions ----------------------------------------------------------------------- */

struct notify_edit {
    uint16_t channel;
    uint16_t tag;
};

static void edit_arm(struct region *region, const void *arg)
{
    const struct notify_edit *edit = arg;
    region->notify = region->armed = true;
    region->channel = edit->channel;
    region->told = 0;
}

static void edit_rearm(struct region *region, const void *arg)
{
    const struct notify_edit *edit = arg;
    if (region->notify && region->channel == edit->channel) {
        region->armed = true;
        region->told = 0;
    }
}

static void edit_told(struct region *region, const void *arg)
{
    const struct notify_edit *edit = arg;
    if (region->armed && region->channel == edit->channel) {
        region->armed = false;
        region->told = edit->tag;
    }
}

static void edit_disarm(struct region *region, const void *arg)
{
    const struct notify_edit *edit = arg;
    if (region->notify && region->channel == edit->channel) {
        region->notify = region->armed = false;
        region->channel = region->told = 0;
    }
}

/* Edits the regions of `range`; `*before` and `*after` are what the grains that it meets count as
 * dirty. The space's lock is held for writing. */
static enum cleave_status change_regions(struct mm_ctx *ctx, struct payer *payer,
                                         struct channel *channel, struct space *space,
                                         struct gfn_range range, region_edit_t *edit,
                                         uint64_t *before, uint64_t *after)
{
    struct notify_edit arg = {channel->number, space_tag(space)};
    struct gfn_range whole = whole_grains(channel, range);

    *before = channel_count_dirty(channel, space, whole);
    enum cleave_status status = region_edit(ctx, payer, &space->regions, range, edit, &arg);
    *after = channel_count_dirty(channel, space, whole);
    return status;
}

/* --- The subscriber's calls ------------------------------------------------------------------- */

/* Checks the arguments and takes the space's lock for writing; not held on error. */
static enum cleave_status begin_range(struct mm_ctx *ctx, const struct channel *channel,
                                      struct space *space, gpa_t at, uint64_t size,
                                      struct gfn_range *range)
{
    if (space->payer.pool != channel->pool) {
        return mm_fail(ctx, CLEAVE_FAMILY, "space", space->id, 1, 0);
    }
    enum cleave_status status = range_check(ctx, at, size, range);
    return status == CLEAVE_OK ? space_begin(ctx, space) : status;
}

/* The same for a range of which some page must belong to the channel. */
static enum cleave_status begin_notified(struct mm_ctx *ctx, const struct channel *channel,
                                         struct space *space, gpa_t at, uint64_t size,
                                         struct gfn_range *range)
{
    enum cleave_status status = begin_range(ctx, channel, space, at, size, range);
    if (status == CLEAVE_OK && !channel_has_pages(channel, space, *range)) {
        space_end(ctx, space);
        return mm_fail(ctx, CLEAVE_NOT_MAPPED, "at", at.v, 1, 0);
    }
    return status;
}

/* Every page of `range` may be armed with `channel`. */
static enum cleave_status check_arm(struct mm_ctx *ctx, const struct channel *channel,
                                    struct space *space, struct gfn_range range)
{
    struct gfn_range extent;

    for (gfn_t at = range.start; at.v < range.end.v; at = extent.end) {
        struct region region = region_get_extent(space->regions, at, &extent);
        if (region.policy == REGION_NONE) {
            return mm_fail(ctx, CLEAVE_NOT_MAPPED, "at", gfn_to_gpa(at).v, 1, 0);
        }
        if (region.policy != REGION_PRIVATE && region.policy != REGION_SHARED) {
            return mm_fail(ctx, CLEAVE_POLICY, "at", gfn_to_gpa(at).v, 1, 0);
        }
        if (region.notify && region.channel != channel->number) {
            struct channel *other = channel_by_number(ctx, channel->pool, region.channel);
            if (other) {
                channel_put(ctx, other);
                return mm_fail(ctx, CLEAVE_EXISTS, "at", gfn_to_gpa(at).v, 1, 0);
            }
        }
    }
    return CLEAVE_OK;
}

/* What a device may write to cannot be armed: nobody would be told. */
static enum cleave_status check_pins(struct mm_ctx *ctx, struct space *space,
                                     struct gfn_range range)
{
    struct attachment *a = NULL;
    do {
        a = attachment_next(space, a, range);
    } while (a != NULL && a->kind != ATTACH_PIN_WRITE);
    return a == NULL ? CLEAVE_OK : mm_fail(ctx, CLEAVE_BUSY, "at", a->id, 1, 0);
}

/* Arms what `edit` arms in `range` and takes the write bits there, with the flush; of other spaces'
 * foreign maps, too. Ends what space_begin() began. */
static enum cleave_status arm_range(struct mm_ctx *ctx, struct channel *channel,
                                    struct space *space, struct gfn_range range,
                                    region_edit_t *edit)
{
    struct flush_batch batch;
    uint64_t before, after;
    enum cleave_status status = check_pins(ctx, space, range);

    if (status == CLEAVE_OK) {
        status = change_regions(ctx, &space->payer, channel, space, range, edit, &before, &after);
    }
    if (status != CLEAVE_OK) {
        space_end(ctx, space);
        return status;
    }
    flush_begin(&batch, space);
    space_strip_write(ctx, space, range, &batch);
    flush_finish(ctx, &batch);
    channel_lock(ctx, channel);
    channel->generation += edit == edit_rearm;
    channel_book_dirty(channel, before, after);
    channel_unlock(ctx, channel);
    bool mapped = space->foreign_count != 0;
    space_end(ctx, space);
    if (mapped) {
        foreign_protect(ctx, space, range);
    }
    return CLEAVE_OK;
}

enum cleave_status channel_arm(struct mm_ctx *ctx, struct channel *channel, struct space *space,
                               gpa_t at, uint64_t size)
{
    struct gfn_range range;
    enum cleave_status status = begin_range(ctx, channel, space, at, size, &range);
    if (status != CLEAVE_OK) {
        return status;
    }
    status = check_arm(ctx, channel, space, range);
    if (status != CLEAVE_OK) {
        space_end(ctx, space);
        return status;
    }
    return arm_range(ctx, channel, space, range, edit_arm);
}

enum cleave_status channel_rearm(struct mm_ctx *ctx, struct channel *channel, struct space *space,
                                 gpa_t at, uint64_t size)
{
    struct gfn_range range;
    enum cleave_status status = begin_notified(ctx, channel, space, at, size, &range);
    if (status != CLEAVE_OK) {
        return status;
    }
    return arm_range(ctx, channel, space, whole_grains(channel, range), edit_rearm);
}

enum cleave_status channel_disarm(struct mm_ctx *ctx, struct channel *channel, struct space *space,
                                  gpa_t at, uint64_t size)
{
    struct gfn_range range;
    uint64_t before, after;

    enum cleave_status status = begin_notified(ctx, channel, space, at, size, &range);
    if (status != CLEAVE_OK) {
        return status;
    }
    status =
        change_regions(ctx, &space->payer, channel, space, range, edit_disarm, &before, &after);
    if (status == CLEAVE_OK) {
        channel_lock(ctx, channel);
        channel_book_dirty(channel, before, after);
        for (unsigned i = 0; i < CHANNEL_EVENTS; i++) {
            const struct event *event = &channel->slot[i].event;
            unsigned ends = channel_used_slots(channel) & ~(unsigned)channel->deciding;
            if ((ends >> i & 1u) && event->space == space->id &&
                !channel_has_pages(channel, space, event->range)) {
                channel_end_event(channel, i, WAIT_RETRY);
            }
        }
        channel_wake(channel, &(struct channel_waiters){WAIT_NONE, space, range}, WAIT_RETRY);
        channel_unlock(ctx, channel);
    }
    space_end(ctx, space);
    return status;
}

bool channel_next(struct mm_ctx *ctx, struct channel *channel, struct event *out)
{
    unsigned oldest = CHANNEL_EVENTS;

    channel_lock(ctx, channel);
    for (unsigned i = 0; i < CHANNEL_EVENTS; i++) {
        if ((channel->queued >> i & 1u) &&
            (oldest == CHANNEL_EVENTS ||
             channel->slot[i].event.id < channel->slot[oldest].event.id)) {
            oldest = i;
        }
    }
    if (oldest < CHANNEL_EVENTS) {
        *out = channel->slot[oldest].event;
        if (channel->asynchronous) {
            channel_end_event(channel, oldest, WAIT_RETRY);
        } else {
            channel->queued = (uint16_t)(channel->queued & ~(1u << oldest));
            channel->taken = (uint16_t)(channel->taken | 1u << oldest);
        }
    }
    channel_unlock(ctx, channel);
    return oldest < CHANNEL_EVENTS;
}

/* Carries ALLOW out for the event in `slot`, which is being decided: the grain is no longer armed.
 */
static enum cleave_status allow_event(struct mm_ctx *ctx, struct channel *channel, unsigned slot)
{
    struct space *space = channel->slot[slot].space;
    uint64_t before = 0, after = 0;

    enum cleave_status status = space_begin(ctx, space);
    bool alive = status == CLEAVE_OK;
    if (alive) {
        status = change_regions(ctx, &space->payer, channel, space, channel->slot[slot].event.range,
                                edit_told, &before, &after);
    } else if (status == CLEAVE_DYING) {
        status = CLEAVE_OK; /* its writers will find out */
    }
    channel_lock(ctx, channel);
    channel->deciding = (uint16_t)(channel->deciding & ~(1u << slot));
    if (status == CLEAVE_OK) {
        channel_book_dirty(channel, before, after);
        channel_end_event(channel, slot, WAIT_RETRY);
    }
    channel_unlock(ctx, channel);
    if (alive) {
        space_end(ctx, space);
    }
    return status;
}

enum cleave_status channel_verdict(struct mm_ctx *ctx, struct channel *channel, uint64_t id,
                                   enum verdict verdict)
{
    channel_lock(ctx, channel);
    unsigned slot = channel->asynchronous ? CHANNEL_EVENTS : channel_find_event(channel, id);
    if (slot == CHANNEL_EVENTS || (channel->deciding >> slot & 1u)) {
        channel_unlock(ctx, channel);
        return mm_fail(ctx, CLEAVE_INVALID, "id", id, 1, 0);
    }
    if (verdict == VERDICT_DENY) {
        channel_end_event(channel, slot, WAIT_DENIED);
        channel_unlock(ctx, channel);
        return CLEAVE_OK;
    }
    channel->deciding = (uint16_t)(channel->deciding | 1u << slot);
    channel_unlock(ctx, channel);
    return allow_event(ctx, channel, slot);
}

/* --- The writer's side ------------------------------------------------------------------------ */

/* True when the page is (still) to be told of on channel `number`. The space's lock is held. */
static bool still_armed(const struct space *space, gfn_t at, uint32_t number)
{
    struct region region = region_get(space->regions, at);
    return space->state == SPACE_ALIVE && region.armed && region.channel == number;
}

/* Sends the event and queues the writer until the verdict. */
static enum cleave_status notify_and_wait(struct mm_ctx *ctx, struct channel *channel,
                                          struct space *space, gfn_t at, struct vcpu_wait *wait)
{
    enum cleave_status status = CLEAVE_OK;

    read_lock(ctx, &space->lock, RANK_SPACE);
    channel_lock(ctx, channel);
    if (still_armed(space, at, channel->number) && !channel->dead) {
        bool sent = channel_find_grain(channel, space, at) < CHANNEL_EVENTS;
        if (!sent && channel_used_slots(channel) != CHANNEL_SLOTS && channel_below_limit(channel)) {
            channel_add_event(channel, space, at, wait);
            sent = true;
        }
        channel_queue_wait(channel, wait, sent ? WAIT_VERDICT : WAIT_RING, space, at);
        status = CLEAVE_WAIT;
    }
    channel_unlock(ctx, channel);
    read_unlock(ctx, &space->lock, RANK_SPACE);
    return status;
}

/* Sends the event and lets the writer go on, or queues it where there is no room. */
static enum cleave_status notify_and_go(struct mm_ctx *ctx, struct channel *channel,
                                        struct space *space, gfn_t at, struct vcpu_wait *wait)
{
    enum cleave_status status = CLEAVE_OK;

    write_lock(ctx, &space->lock, RANK_SPACE);
    channel_lock(ctx, channel);
    if (still_armed(space, at, channel->number) && !channel->dead) {
        bool sent = channel_find_grain(channel, space, at) < CHANNEL_EVENTS;
        if (channel_below_limit(channel) &&
            (sent || channel_used_slots(channel) != CHANNEL_SLOTS)) {
            uint64_t before, after;
            struct gfn_range grain = {grain_start(channel, at), grain_end(channel, at)};
            status = change_regions(ctx, space_payer(space, wait), channel, space, grain, edit_told,
                                    &before, &after);
            channel_book_dirty(channel, before, after);
            if (status == CLEAVE_OK && !sent) {
                channel_add_event(channel, space, at, wait);
            }
        } else {
            channel_queue_wait(channel, wait, WAIT_RING, space, at);
            status = CLEAVE_WAIT;
        }
    }
    channel_unlock(ctx, channel);
    write_unlock(ctx, &space->lock, RANK_SPACE);
    return status;
}

/* The channel is gone: the word of the tree that holds `at` is no longer armed. */
static enum cleave_status notify_nobody(struct mm_ctx *ctx, struct space *space, gfn_t at,
                                        uint16_t number, struct vcpu_wait *wait)
{
    enum cleave_status status = CLEAVE_OK;

    write_lock(ctx, &space->lock, RANK_SPACE);
    if (still_armed(space, at, number)) {
        struct notify_edit arg = {number, 0};
        struct gfn_range extent;
        (void)region_get_extent(space->regions, at, &extent);
        status =
            region_edit(ctx, space_payer(space, wait), &space->regions, extent, edit_disarm, &arg);
    }
    write_unlock(ctx, &space->lock, RANK_SPACE);
    return status;
}

enum cleave_status channel_notify(struct mm_ctx *ctx, struct space *space, gfn_t at,
                                  const struct region *region, struct vcpu_wait *wait)
{
    struct channel *channel = channel_by_number(ctx, space->payer.pool, region->channel);
    if (!channel) {
        return notify_nobody(ctx, space, at, region->channel, wait);
    }
    enum cleave_status status = channel->asynchronous
                                    ? notify_and_go(ctx, channel, space, at, wait)
                                    : notify_and_wait(ctx, channel, space, at, wait);
    channel_put(ctx, channel);
    return status;
}
