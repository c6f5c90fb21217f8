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

#include "change.h"
#include "pin.h"
#include "table.h"

/* --- Changes of regions ----------------------------------------------------------------------- */

struct notify_edit {
    uint16_t channel;
    uint16_t tag;
    const struct channel *object; /* for the subscriber's calls: and what they asked for */
    struct gfn_range asked;
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
    const struct notify_edit arg = {.channel = channel->number, .tag = space_tag(space)};
    struct gfn_range whole = whole_grains(channel, range);

    *before = channel_count_dirty(channel, space, space->regions, whole);
    enum cleave_status status = region_edit(ctx, payer, &space->regions, range, edit, &arg);
    *after = channel_count_dirty(channel, space, space->regions, whole);
    return status;
}

/* --- The subscriber's calls ------------------------------------------------------------------- */

/* A page of `part` may be armed with the channel. */
static enum cleave_status check_arm(struct mm_ctx *ctx, struct region_change *change,
                                    const struct region *region, struct gfn_range part)
{
    const struct notify_edit *edit = change->arg;

    if (region->policy == REGION_NONE) {
        return mm_fail(ctx, CLEAVE_NOT_MAPPED, "at", gfn_to_gpa(part.start).v, 1, 0);
    }
    if (region->policy != REGION_PRIVATE && region->policy != REGION_SHARED) {
        return mm_fail(ctx, CLEAVE_POLICY, "at", gfn_to_gpa(part.start).v, 1, 0);
    }
    if (region->notify && region->channel != edit->channel) {
        struct channel *other = channel_by_number(ctx, change->space->payer.pool, region->channel);
        if (other) {
            channel_put(ctx, other);
            return mm_fail(ctx, CLEAVE_EXISTS, "at", gfn_to_gpa(part.start).v, 1, 0);
        }
    }
    change->state = 1;
    return CLEAVE_OK;
}

/* Notes whether a page that was asked for belongs to the channel. */
static enum cleave_status check_notified(struct mm_ctx *ctx, struct region_change *change,
                                         const struct region *region, struct gfn_range part)
{
    const struct notify_edit *edit = change->arg;
    (void)ctx;
    change->state |= region->notify && region->channel == edit->channel &&
                     part.start.v < edit->asked.end.v && edit->asked.start.v < part.end.v;
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

/* Some page must belong to the channel, or can be armed with it. */
static enum cleave_status checked_pages(struct mm_ctx *ctx, struct region_change *change)
{
    const struct notify_edit *edit = change->arg;
    if (change->state == 0) {
        return mm_fail(ctx, CLEAVE_NOT_MAPPED, "at", gfn_to_gpa(edit->asked.start).v, 1, 0);
    }
    return change->op == OP_DISARM ? CLEAVE_OK : check_pins(ctx, change->space, change->range);
}

static uint64_t count_grains(const struct region_change *change, region_word_t tree,
                             struct gfn_range part)
{
    const struct notify_edit *edit = change->arg;
    return channel_count_dirty(edit->object, change->space, tree, whole_grains(edit->object, part));
}

/* What a subscriber's call does to the regions of its range. */
struct subscriber_call {
    enum space_op op;
    region_edit_t *edit;
    bool whole; /* in whole grains */
    enum cleave_status (*check)(struct mm_ctx *ctx, struct region_change *change,
                                const struct region *region, struct gfn_range part);
};

/* Does it, or goes on with it. CLEAVE_OK: the space is locked for writing, and the dirty count is
 * to go down by change->counted. The lock is not held on error. */
static enum cleave_status change_range(struct mm_ctx *ctx, struct channel *channel,
                                       struct space *space, gpa_t at, uint64_t size,
                                       const struct subscriber_call *call,
                                       struct region_change *change)
{
    struct notify_edit edit = {
        .channel = channel->number, .tag = space_tag(space), .object = channel};
    struct flush_batch batch;

    if (space->payer.pool != channel->pool) {
        return mm_fail(ctx, CLEAVE_FAMILY, "space", space->id, 1, 0);
    }
    enum cleave_status status = range_check(ctx, at, size, &edit.asked);
    if (status != CLEAVE_OK) {
        return status;
    }
    *change = (struct region_change){
        .space = space,
        .range = call->whole ? whole_grains(channel, edit.asked) : edit.asked,
        .op = call->op,
        .argument = channel->number,
        .edit = call->edit,
        .arg = &edit,
        .check = call->check,
        .checked = checked_pages,
        .count = count_grains,
    };
    status = space_begin_op(ctx, space, call->op, change->range, change->argument);
    if (status != CLEAVE_OK) {
        return status;
    }
    flush_begin(&batch, space);
    status = change_apply(ctx, change, &batch);
    change->arg = NULL;
    if (status != CLEAVE_OK) {
        space_end(ctx, space);
    }
    return status;
}

/* Arms what the call arms and takes the write bits there, with the flush; of other spaces' foreign
 * maps, too. */
static enum cleave_status arm_range(struct mm_ctx *ctx, struct channel *channel,
                                    struct space *space, gpa_t at, uint64_t size,
                                    const struct subscriber_call *call)
{
    struct region_change change;
    struct flush_batch batch;
    enum cleave_status status = change_range(ctx, channel, space, at, size, call, &change);

    if (status != CLEAVE_OK) {
        return status;
    }
    flush_begin(&batch, space);
    space_strip_write(ctx, space, change.range, &batch);
    flush_finish(ctx, &batch);
    channel_lock(ctx, channel);
    channel->generation += call->edit == edit_rearm;
    channel_book_dirty(channel, change.counted, 0);
    channel_unlock(ctx, channel);
    bool mapped = space->foreign_count != 0;
    space_end(ctx, space);
    if (mapped) {
        foreign_protect(ctx, space, change.range);
    }
    return CLEAVE_OK;
}

enum cleave_status channel_arm(struct mm_ctx *ctx, struct channel *channel, struct space *space,
                               gpa_t at, uint64_t size)
{
    static const struct subscriber_call arm = {OP_ARM, edit_arm, false, check_arm};
    return arm_range(ctx, channel, space, at, size, &arm);
}

enum cleave_status channel_rearm(struct mm_ctx *ctx, struct channel *channel, struct space *space,
                                 gpa_t at, uint64_t size)
{
    static const struct subscriber_call rearm = {OP_REARM, edit_rearm, true, check_notified};
    return arm_range(ctx, channel, space, at, size, &rearm);
}

enum cleave_status channel_disarm(struct mm_ctx *ctx, struct channel *channel, struct space *space,
                                  gpa_t at, uint64_t size)
{
    static const struct subscriber_call disarm = {OP_DISARM, edit_disarm, false, check_notified};
    struct region_change change;

    enum cleave_status status = change_range(ctx, channel, space, at, size, &disarm, &change);
    if (status != CLEAVE_OK) {
        return status;
    }
    channel_lock(ctx, channel);
    channel_book_dirty(channel, change.counted, 0);
    for (unsigned i = 0; i < CHANNEL_EVENTS; i++) {
        const struct event *event = &channel->slot[i].event;
        unsigned ends = channel_used_slots(channel) & ~(unsigned)channel->deciding;
        if ((ends >> i & 1u) && event->space == space->id &&
            !channel_has_pages(channel, space, event->range)) {
            channel_end_event(channel, i, WAIT_RETRY);
        }
    }
    channel_wake(channel, &(struct channel_waiters){WAIT_NONE, space, change.range}, WAIT_RETRY);
    channel_unlock(ctx, channel);
    space_end(ctx, space);
    return CLEAVE_OK;
}

/* Takes the oldest event that is queued; false when there is none. The channel is locked. */
static bool take_event(struct channel *channel, struct event *out)
{
    unsigned oldest = CHANNEL_EVENTS;

    for (unsigned i = 0; i < CHANNEL_EVENTS; i++) {
        if ((channel->queued >> i & 1u) &&
            (oldest == CHANNEL_EVENTS ||
             channel->slot[i].event.id < channel->slot[oldest].event.id)) {
            oldest = i;
        }
    }
    if (oldest == CHANNEL_EVENTS) {
        return false;
    }
    *out = channel->slot[oldest].event;
    if (channel->asynchronous) {
        channel_end_event(channel, oldest, WAIT_RETRY);
    } else {
        channel->queued = (uint16_t)(channel->queued & ~(1u << oldest));
        channel->taken = (uint16_t)(channel->taken | 1u << oldest);
    }
    return true;
}

bool channel_next(struct mm_ctx *ctx, struct channel *channel, struct event *out)
{
    channel_lock(ctx, channel);
    bool taken = take_event(channel, out);
    channel_unlock(ctx, channel);
    return taken;
}

bool channel_await(struct mm_ctx *ctx, struct channel *channel, struct vcpu_wait *wait,
                   struct event *out)
{
    channel_lock(ctx, channel);
    bool taken = take_event(channel, out);
    if (!taken && !channel->dead) {
        channel_queue_wait(channel, wait, WAIT_EVENT, NULL, gfn(0));
    }
    channel_unlock(ctx, channel);
    return taken;
}

/* space_begin() for a verdict. The writer may be who began what is stopped, and goes on with
 * neither before the other: what took effect is finished for it as far as the budget goes, and what
 * is not to be seen yet is given up, and begun again by its caller. */
static enum cleave_status begin_verdict(struct mm_ctx *ctx, struct space *space)
{
    enum cleave_status status = space_begin(ctx, space);
    if (status == CLEAVE_BUSY && (space_help_unmap(ctx, space) || space_help_convert(ctx, space) ||
                                  space_give_up(ctx, space) == CLEAVE_OK)) {
        status = space_begin(ctx, space);
    }
    return status;
}

/* Carries ALLOW out for the event in `slot`, which is being decided: the grain is no longer armed.
 */
static enum cleave_status allow_event(struct mm_ctx *ctx, struct channel *channel, unsigned slot)
{
    struct space *space = channel->slot[slot].space;
    uint64_t before = 0, after = 0;

    enum cleave_status status = begin_verdict(ctx, space);
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

/* Sends the event and lets the writer go on, or queues it where there is no room, or while the
 * regions are being changed: what it does to them would be lost. */
static enum cleave_status notify_and_go(struct mm_ctx *ctx, struct channel *channel,
                                        struct space *space, gfn_t at, struct vcpu_wait *wait)
{
    enum cleave_status status = CLEAVE_OK;

    write_lock(ctx, &space->lock, RANK_SPACE);
    channel_lock(ctx, channel);
    if (still_armed(space, at, channel->number) && !channel->dead) {
        bool sent = channel_find_grain(channel, space, at) < CHANNEL_EVENTS;
        if (!change_building(space) && channel_below_limit(channel) &&
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

static struct gfn_range page_of(gfn_t at) { return (struct gfn_range){at, gfn(at.v + 1)}; }

/* The channel is gone: the word of the tree that holds `at` is no longer armed. */
static enum cleave_status notify_nobody(struct mm_ctx *ctx, struct space *space, gfn_t at,
                                        uint16_t number, struct vcpu_wait *wait)
{
    enum cleave_status status = CLEAVE_OK;

    write_lock(ctx, &space->lock, RANK_SPACE);
    if (still_armed(space, at, number)) {
        const struct notify_edit arg = {.channel = number};
        struct gfn_range extent;
        (void)region_get_extent(space->regions, at, &extent);
        if (change_building(space)) {
            status = region_edit(ctx, space_payer(space, wait), &space->op_regions, page_of(at),
                                 edit_disarm, &arg);
            extent = page_of(at); /* the new tree may have many words where the old has one */
        }
        if (status == CLEAVE_OK) {
            status = region_edit(ctx, space_payer(space, wait), &space->regions, extent,
                                 edit_disarm, &arg);
        }
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
