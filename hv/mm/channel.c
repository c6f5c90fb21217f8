/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Owns the notification channels of a pool: their list (under the pool's lock), and in each, under
 * its own lock, the events, the writers that wait and the count of dirty grains.
 */
#include "channel.h"

/* --- Objects ---------------------------------------------------------------------------------- */

void channel_put(struct mm_ctx *ctx, struct channel *channel)
{
    pfn_t self = channel->self;
    if (node_put(ctx, self)) {
        pool_free(ctx, self, 0);
    }
}

/* The channel of the highest number up to `number`, which stays until channel_put(). It may be dead
 * and about to leave the list. */
static struct channel *channel_up_to(struct mm_ctx *ctx, struct pool *pool, uint32_t number)
{
    spin_lock(ctx, &pool->lock, RANK_POOL);
    struct channel *channel = pool->channels;
    while (channel && channel->number > number) {
        channel = channel->next;
    }
    if (channel) {
        enum cleave_status status = node_get(ctx, channel->self);
        MM_CHECK(status == CLEAVE_OK); /* one for each CPU at most */
    }
    spin_unlock(ctx, &pool->lock, RANK_POOL);
    return channel;
}

struct channel *channel_by_number(struct mm_ctx *ctx, struct pool *pool, uint32_t number)
{
    struct channel *channel = channel_up_to(ctx, pool, number);
    if (channel &&
        (channel->number != number || __atomic_load_n(&channel->dead, __ATOMIC_RELAXED))) {
        channel_put(ctx, channel);
        return NULL;
    }
    return channel;
}

/* Gives the channel its number and links it. */
static enum cleave_status channel_link(struct mm_ctx *ctx, struct pool *pool,
                                       struct channel *channel)
{
    enum cleave_status status = CLEAVE_OK;
    unsigned count = 0;

    spin_lock(ctx, &pool->lock, RANK_POOL);
    for (struct channel *c = pool->channels; c; c = c->next) {
        count++;
    }
    if (pool->dying) {
        status = mm_fail(ctx, CLEAVE_DYING, "pool", pool->start.v, 1, 0);
    } else if (count >= CHANNELS_MAX) {
        status = mm_fail(ctx, CLEAVE_COUNT, "channels", count, 0, CHANNELS_MAX - 1);
    } else if (pool->last_channel >= CHANNEL_NUMBERS) {
        status = mm_fail(ctx, CLEAVE_COUNT, "numbers", pool->last_channel, 0, CHANNEL_NUMBERS - 1);
    } else {
        channel->number = (uint16_t)++pool->last_channel;
        channel->next = pool->channels;
        pool->channels = channel;
    }
    spin_unlock(ctx, &pool->lock, RANK_POOL);
    return status;
}

enum cleave_status channel_create(struct mm_ctx *ctx, struct pool *pool,
                                  const struct channel_options *options, struct channel **out)
{
    pfn_t self;

    if (options->grain > 1) {
        return mm_fail(ctx, CLEAVE_ORDER, "grain", options->grain, 0, 1);
    }
    enum cleave_status status = pool_alloc(ctx, &pool->payer, 0, FRAME_OBJECT, &self);
    if (status != CLEAVE_OK) {
        return status;
    }
    struct channel *channel = frame_address(self);
    port_zero_pages(channel, 1);
    channel->self = self;
    channel->pool = pool;
    channel->grain = options->grain;
    channel->asynchronous = options->asynchronous;
    channel->max_dirty = options->max_dirty;
    channel->next_id = 1;
    status = channel_link(ctx, pool, channel);
    if (status != CLEAVE_OK) {
        channel_put(ctx, channel);
        return status;
    }
    *out = channel;
    return CLEAVE_OK;
}

/* --- Waiters (the channel's lock is held) ----------------------------------------------------- */

void channel_queue_wait(struct channel *channel, struct vcpu_wait *wait, enum wait_kind kind,
                        struct space *space, gfn_t at)
{
    if (!wait) {
        return;
    }
    wait->next = NULL;
    wait->space = space;
    wait->at = at;
    wait->outcome = WAIT_RETRY;
    wait->kind = kind;
    if (channel->wait_last) {
        channel->wait_last->next = wait;
    } else {
        channel->wait_first = wait;
    }
    channel->wait_last = wait;
    if (space) {
        space->stats.waits++;
    }
}

/* Takes `*link`, whose predecessor is `previous`, off the queue. */
static void unlink_wait(struct channel *channel, struct vcpu_wait **link,
                        struct vcpu_wait *previous)
{
    struct vcpu_wait *wait = *link;
    *link = wait->next;
    if (channel->wait_last == wait) {
        channel->wait_last = previous;
    }
    wait->next = NULL;
    wait->kind = WAIT_NONE;
}

static bool waits_for(const struct vcpu_wait *wait, const struct channel_waiters *waiters)
{
    return (waiters->kind == WAIT_NONE || wait->kind == waiters->kind) &&
           (!waiters->space ||
            (wait->space == waiters->space && wait->at.v >= waiters->range.start.v &&
             wait->at.v < waiters->range.end.v));
}

void channel_wake(struct channel *channel, const struct channel_waiters *waiters,
                  enum wait_outcome outcome)
{
    struct vcpu_wait **link = &channel->wait_first;
    struct vcpu_wait *previous = NULL;

    while (*link) {
        struct vcpu_wait *wait = *link;
        if (!waits_for(wait, waiters)) {
            previous = wait;
            link = &wait->next;
            continue;
        }
        wait->outcome = outcome;
        unlink_wait(channel, link, previous);
        port_wake(wait);
    }
}

/* There may be room: whoever waits for it looks again. */
static void wake_ring(struct channel *channel)
{
    channel_wake(channel, &(struct channel_waiters){.kind = WAIT_RING}, WAIT_RETRY);
}

void channel_cancel_wait(struct mm_ctx *ctx, struct pool *pool, struct vcpu_wait *wait)
{
    struct channel *channel = channel_up_to(ctx, pool, CHANNEL_NUMBERS);

    /* Also when it does not wait any more: whoever woke it may still hold a channel's lock, and be
     * about to use it. */
    while (channel) {
        struct vcpu_wait *previous = NULL;
        channel_lock(ctx, channel);
        struct vcpu_wait **link = &channel->wait_first;
        while (*link && *link != wait) {
            previous = *link;
            link = &previous->next;
        }
        if (*link) {
            unlink_wait(channel, link, previous);
        }
        channel_unlock(ctx, channel);
        uint32_t number = channel->number;
        channel_put(ctx, channel);
        channel = channel_up_to(ctx, pool, number - 1u);
    }
}

/* --- Events (the channel's lock is held) ------------------------------------------------------ */

unsigned channel_find_grain(const struct channel *channel, const struct space *space, gfn_t at)
{
    for (unsigned i = 0; i < CHANNEL_EVENTS; i++) {
        const struct event *event = &channel->slot[i].event;
        if ((channel_used_slots(channel) >> i & 1u) && event->space == space->id &&
            event->range.start.v == grain_start(channel, at).v) {
            return i;
        }
    }
    return CHANNEL_EVENTS;
}

unsigned channel_find_event(const struct channel *channel, uint64_t id)
{
    for (unsigned i = 0; i < CHANNEL_EVENTS; i++) {
        if ((channel_used_slots(channel) >> i & 1u) && channel->slot[i].event.id == id) {
            return i;
        }
    }
    return CHANNEL_EVENTS;
}

bool channel_below_limit(const struct channel *channel)
{
    uint64_t may = channel->asynchronous ? 0 : bits_count(channel_used_slots(channel));
    return channel->max_dirty == 0 || channel->dirty + may < channel->max_dirty;
}

void channel_add_event(struct channel *channel, struct space *space, gfn_t at,
                       const struct vcpu_wait *wait)
{
    unsigned i = (unsigned)__builtin_ctz(~channel_used_slots(channel) & CHANNEL_SLOTS);
    channel->slot[i].event = (struct event){
        .id = channel->next_id++,
        .space = space->id,
        .vcpu = wait ? wait->vcpu : UINT32_MAX,
        .range = {grain_start(channel, at), grain_end(channel, at)},
        .generation = channel->generation,
    };
    channel->slot[i].space = space;
    channel->queued = (uint16_t)(channel->queued | 1u << i);
    space->stats.events++;
    channel_wake(channel, &(struct channel_waiters){.kind = WAIT_EVENT}, WAIT_RETRY);
}

void channel_end_event(struct channel *channel, unsigned slot, enum wait_outcome outcome)
{
    const struct channel_slot *s = &channel->slot[slot];
    const struct channel_waiters writers = {WAIT_VERDICT, s->space, s->event.range};

    channel->queued = (uint16_t)(channel->queued & ~(1u << slot));
    channel->taken = (uint16_t)(channel->taken & ~(1u << slot));
    channel->deciding = (uint16_t)(channel->deciding & ~(1u << slot));
    if (!channel->asynchronous) {
        channel_wake(channel, &writers, outcome);
    }
    wake_ring(channel);
}

/* --- Grains and the dirty count --------------------------------------------------------------- */

static bool is_dirty(const struct space *space, const struct region *region)
{
    return region->notify && !region->armed && region->told == space_tag(space);
}

uint64_t channel_count_dirty(const struct channel *channel, const struct space *space,
                             region_word_t tree, struct gfn_range range)
{
    uint64_t pages = level_pages(channel->grain);
    uint64_t last = UINT64_MAX;
    uint64_t count = 0;
    struct gfn_range found;
    struct region region;

    for (gfn_t at = range.start;
         region_find(tree, at, range.end, REGION_HAS_NOTIFY, &found, &region); at = found.end) {
        if (region.channel == channel->number && is_dirty(space, &region)) {
            uint64_t first = found.start.v / pages;
            count += (found.end.v - 1) / pages - first + (first != last);
            last = (found.end.v - 1) / pages;
        }
    }
    return count;
}

bool channel_has_pages(const struct channel *channel, const struct space *space,
                       struct gfn_range range)
{
    struct gfn_range found;
    struct region region;

    for (gfn_t at = range.start;
         region_find(space->regions, at, range.end, REGION_HAS_NOTIFY, &found, &region);
         at = found.end) {
        if (region.channel == channel->number) {
            return true;
        }
    }
    return false;
}

void channel_book_dirty(struct channel *channel, uint64_t before, uint64_t after)
{
    channel->dirty += after;
    channel->dirty -= before < channel->dirty ? before : channel->dirty;
    if (after < before) {
        wake_ring(channel);
    }
}

uint64_t channel_dirty(struct mm_ctx *ctx, struct channel *channel)
{
    channel_lock(ctx, channel);
    uint64_t dirty = channel->dirty;
    channel_unlock(ctx, channel);
    return dirty;
}

/* Grains of `found`, which is dirty in `tree`, that no page before them and none from `end` on
 * makes dirty. */
static uint64_t count_alone(const struct channel *channel, const struct space *space,
                            region_word_t tree, gfn_t end, struct gfn_range found)
{
    struct gfn_range whole = whole_grains(channel, found);
    struct gfn_range head = {whole.start, found.start};
    struct gfn_range tail = {end, whole.end};
    uint64_t count = (whole.end.v - whole.start.v) / level_pages(channel->grain);
    bool head_dirty = channel_count_dirty(channel, space, tree, head) > 0;

    count -= head_dirty;
    if (count > 0 && channel_count_dirty(channel, space, tree, tail) > 0) {
        count--;
    }
    return count;
}

/* Books what the first word that notifies from `range->start` on counts for, and moves there; false
 * when there is none. */
static bool book_word(struct mm_ctx *ctx, struct space *space, region_word_t tree,
                      struct gfn_range *range, bool forget)
{
    struct gfn_range found;
    struct region region;

    if (!region_find(tree, range->start, range->end, REGION_HAS_NOTIFY, &found, &region)) {
        range->start = range->end;
        return false;
    }
    range->start = found.end;
    struct channel *channel =
        is_dirty(space, &region) ? channel_by_number(ctx, space->payer.pool, region.channel) : NULL;
    if (channel) {
        uint64_t count = count_alone(channel, space, tree, range->end, found);
        channel_lock(ctx, channel);
        channel_book_dirty(channel, forget ? count : 0, forget ? 0 : count);
        channel_unlock(ctx, channel);
        channel_put(ctx, channel);
    }
    return true;
}

void channel_forget(struct mm_ctx *ctx, struct space *space, struct gfn_range range)
{
    while (book_word(ctx, space, space->regions, &range, true)) {
    }
}

void channel_remember(struct mm_ctx *ctx, struct space *space, struct gfn_range range)
{
    while (book_word(ctx, space, space->regions, &range, false)) {
    }
}

bool channel_forget_some(struct mm_ctx *ctx, struct space *space, region_word_t tree)
{
    while (space->forget.start.v < space->forget.end.v) {
        if (!mm_spend(ctx, 1)) {
            return false;
        }
        (void)book_word(ctx, space, tree, &space->forget, true);
    }
    return true;
}

/* --- Ends ------------------------------------------------------------------------------------- */

void channel_destroy(struct mm_ctx *ctx, struct channel *channel)
{
    struct pool *pool = channel->pool;

    /* Waking comes before it leaves the list, where channel_cancel_wait() looks for it. */
    channel_lock(ctx, channel);
    __atomic_store_n(&channel->dead, true, __ATOMIC_RELAXED);
    channel->queued = channel->taken = 0;
    channel_wake(channel, &(struct channel_waiters){.kind = WAIT_NONE}, WAIT_RETRY);
    channel_unlock(ctx, channel);

    spin_lock(ctx, &pool->lock, RANK_POOL);
    struct channel **link = &pool->channels;
    while (*link && *link != channel) {
        link = &(*link)->next;
    }
    MM_CHECK(*link == channel);
    *link = channel->next;
    spin_unlock(ctx, &pool->lock, RANK_POOL);
    channel_put(ctx, channel);
}

/* Takes the events and writers of a space out of one channel. */
static void forget_events(struct mm_ctx *ctx, struct channel *channel, const struct space *space)
{
    const struct channel_waiters all = {WAIT_NONE, space, {gfn(0), gfn(GUEST_PAGES)}};
    bool deciding = true;

    while (deciding) {
        deciding = false;
        channel_lock(ctx, channel);
        for (unsigned i = 0; i < CHANNEL_EVENTS; i++) {
            bool used = (channel_used_slots(channel) >> i & 1u) != 0;
            if (!used || channel->slot[i].event.space != space->id) {
                continue;
            }
            if (channel->deciding >> i & 1u) {
                deciding = true; /* by another CPU, which uses the space */
            } else {
                channel_end_event(channel, i, WAIT_RETRY);
            }
        }
        channel_wake(channel, &all, WAIT_RETRY);
        channel_unlock(ctx, channel);
        if (deciding) {
            port_relax(ctx);
        }
    }
}

void channel_resume(struct mm_ctx *ctx, struct space *space)
{
    const struct channel_waiters all = {WAIT_RING, space, {gfn(0), gfn(GUEST_PAGES)}};
    struct channel *channel = channel_up_to(ctx, space->payer.pool, CHANNEL_NUMBERS);

    while (channel) {
        channel_lock(ctx, channel);
        channel_wake(channel, &all, WAIT_RETRY);
        channel_unlock(ctx, channel);
        uint32_t number = channel->number;
        channel_put(ctx, channel);
        channel = channel_up_to(ctx, space->payer.pool, number - 1u);
    }
}

void channel_forget_space(struct mm_ctx *ctx, struct space *space)
{
    struct pool *pool = space->payer.pool;
    struct channel *channel = channel_up_to(ctx, pool, CHANNEL_NUMBERS);

    while (channel) {
        forget_events(ctx, channel, space);
        uint32_t number = channel->number;
        channel_put(ctx, channel);
        channel = channel_up_to(ctx, pool, number - 1u);
    }
}
