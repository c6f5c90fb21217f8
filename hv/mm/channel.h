/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The channel object: its events, the writers that wait and what it counts as dirty. For channel.c,
 * which owns it, and notify.c, which decides. The list of a pool's channels is under the pool's
 * lock, what is in a channel under its own.
 */
#ifndef MM_CHANNEL_H
#define MM_CHANNEL_H

#include "notify.h"

/* An event that awaits its verdict (asynchronous: to be taken). Its space is there as long as it
 * is: channel_forget_space() takes it away before the space goes. */
struct channel_slot {
    struct event event;
    struct space *space;
};

struct channel {
    struct spinlock lock;
    pfn_t self; /* its frame: counts who uses the object at the moment, and its life */
    struct pool *pool;
    struct channel *next; /* in pool->channels */
    uint16_t number;
    uint16_t queued;   /* a bit for each slot: not yet taken */
    uint16_t taken;    /* a bit for each slot: taken, awaits its verdict */
    uint16_t deciding; /* a bit for each slot: its verdict is being carried out; it stays */
    uint8_t grain;
    bool asynchronous;
    bool dead;
    uint64_t generation;
    uint64_t next_id;
    uint64_t dirty, max_dirty;
    struct vcpu_wait *wait_first, *wait_last;
    struct channel_slot slot[CHANNEL_EVENTS];
};
_Static_assert(sizeof(struct channel) <= PAGE_SIZE, "a channel object is one frame");
_Static_assert(CHANNEL_EVENTS <= 16, "a bit for each slot");

#define CHANNEL_SLOTS ((1u << CHANNEL_EVENTS) - 1)

static inline void channel_lock(struct mm_ctx *ctx, struct channel *channel)
{
    spin_lock(ctx, &channel->lock, RANK_CHANNEL);
}
static inline void channel_unlock(struct mm_ctx *ctx, struct channel *channel)
{
    spin_unlock(ctx, &channel->lock, RANK_CHANNEL);
}

/* The live channel of this number, which stays until channel_put(); null when it is gone. */
struct channel *channel_by_number(struct mm_ctx *ctx, struct pool *pool, uint32_t number);
void channel_put(struct mm_ctx *ctx, struct channel *channel);

/* --- Grains and the dirty count (the space's lock is held) ------------------------------------ */

static inline gfn_t grain_start(const struct channel *channel, gfn_t at)
{
    return level_align(at, channel->grain);
}
static inline gfn_t grain_end(const struct channel *channel, gfn_t at)
{
    return gfn(grain_start(channel, at).v + level_pages(channel->grain));
}
/* The whole grains that a range meets. */
static inline struct gfn_range whole_grains(const struct channel *channel, struct gfn_range range)
{
    return (struct gfn_range){grain_start(channel, range.start),
                              grain_end(channel, gfn(range.end.v - 1))};
}

/* What marks pages that `space` may write because its subscriber was told. Inherited marks name
 * another space (unless ids lie a multiple of 65,535 apart, which only makes the count inexact). */
static inline uint16_t space_tag(const struct space *space)
{
    return (uint16_t)(1 + space->id % 65535u);
}

/* Grains with a page in `range` that was told for this channel and space, by `tree`. */
uint64_t channel_count_dirty(const struct channel *channel, const struct space *space,
                             region_word_t tree, struct gfn_range range);
/* True when a page of `range` belongs to the channel. */
bool channel_has_pages(const struct channel *channel, const struct space *space,
                       struct gfn_range range);

/* --- With the channel's lock held ------------------------------------------------------------- */

/* Books a change of the dirty count from `before` to `after`; whoever waits for that looks again.
 */
void channel_book_dirty(struct channel *channel, uint64_t before, uint64_t after);

/* Queues `wait`, of a writer to `space` or (null) of a reader of events; nothing where it is null.
 */
void channel_queue_wait(struct channel *channel, struct vcpu_wait *wait, enum wait_kind kind,
                        struct space *space, gfn_t at);

/* Which writers: of a kind or (WAIT_NONE) either; of a space and range, or (null) any. */
struct channel_waiters {
    enum wait_kind kind;
    const struct space *space;
    struct gfn_range range;
};
void channel_wake(struct channel *channel, const struct channel_waiters *waiters,
                  enum wait_outcome outcome);

static inline unsigned channel_used_slots(const struct channel *channel)
{
    return (unsigned)(channel->queued | channel->taken);
}
/* Slot of the event that `space` has outstanding for the grain of `at`; CHANNEL_EVENTS for none. */
unsigned channel_find_grain(const struct channel *channel, const struct space *space, gfn_t at);
/* Slot of the event of this id; CHANNEL_EVENTS for none. */
unsigned channel_find_event(const struct channel *channel, uint64_t id);
/* True when one more grain may become dirty. What awaits a verdict may be allowed, so it counts. */
bool channel_below_limit(const struct channel *channel);
/* Adds an event; there is a free slot. */
void channel_add_event(struct channel *channel, struct space *space, gfn_t at,
                       const struct vcpu_wait *wait);
/* Ends event `slot`: its writers go on with `outcome`, and those that wait for room look again. */
void channel_end_event(struct channel *channel, unsigned slot, enum wait_outcome outcome);

#endif
