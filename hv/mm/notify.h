/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Write notification: the hypervisor's page_mkwrite. A channel belongs to a pool and one
 * subscriber; regions are armed with it. Events are bounded: at most CHANNEL_EVENTS await a
 * verdict, a further writer waits for room and nothing is dropped. Its lock is RANK_CHANNEL.
 *
 * What is armed stands in each space's region tree: `notify` over the whole range, `armed` on what
 * the subscriber has not been told of. A grain is dirty in a space from when a write to it was
 * allowed there until it is rearmed. A fork inherits both as they are: a grain that is dirty in the
 * parent is not armed in the child either, and does not count as dirty there.
 */
#ifndef MM_NOTIFY_H
#define MM_NOTIFY_H

#include "space.h"

#define CHANNEL_EVENTS 16u     /* that await a verdict, or to be taken */
#define CHANNELS_MAX 64u       /* channels of a pool at a time */
#define CHANNEL_NUMBERS 65535u /* channels that a pool can have in its life */

struct event {
    uint64_t id;    /* names the event in the verdict; unique in the channel, rising */
    uint32_t space; /* id of the space that was written */
    uint32_t vcpu;  /* the writer that caused the event; UINT32_MAX for none that can wait */
    struct gfn_range range; /* one grain */
    uint64_t generation;    /* of the channel: raised by every rearm */
};

enum verdict { VERDICT_ALLOW, VERDICT_DENY };

struct channel;

struct channel_options {
    bool asynchronous;  /* the writer goes on at once; the event is information */
    uint8_t grain;      /* level: 0 for 4 KiB, 1 for 2 MiB */
    uint64_t max_dirty; /* grains that may be dirty before they are rearmed; 0: no limit */
};

/* Makes a channel; takes one frame of the pool. CLEAVE_ORDER (grain), CLEAVE_COUNT (too many),
 * CLEAVE_DYING, CLEAVE_NO_MEMORY, CLEAVE_QUOTA. */
enum cleave_status channel_create(struct mm_ctx *ctx, struct pool *pool,
                                  const struct channel_options *options,
                                  struct channel **out) MUST_CHECK;
/* Its armed ranges lose their subscriber: they are no longer armed (their first writer finds out),
 * and waiting writers go on. No other of the subscriber's calls is under way. */
void channel_destroy(struct mm_ctx *ctx, struct channel *channel);

/* Arms [at, at + size), which must be private or shared memory: nothing in it is writable any more
 * when this returns CLEAVE_OK. Forks inherit it armed. Preemptible, as rearm and disarm are: the
 * regions change at once at the end; asynchronous writers to armed pages wait meanwhile.
 * CLEAVE_POLICY, CLEAVE_NOT_MAPPED, CLEAVE_EXISTS (armed with another channel), CLEAVE_FAMILY,
 * CLEAVE_BUSY (value: the id of a pin through which a device may write there). */
enum cleave_status channel_arm(struct mm_ctx *ctx, struct channel *channel, struct space *space,
                               gpa_t at, uint64_t size) MUST_CHECK;
/* Write-protects again what was written in a range of notify regions, in whole grains, after the
 * subscriber has used the data; takes the grains off the dirty count and lets writers that wait for
 * it go on. CLEAVE_NOT_MAPPED when nothing in the range belongs to the channel; CLEAVE_BUSY as
 * above. */
enum cleave_status channel_rearm(struct mm_ctx *ctx, struct channel *channel, struct space *space,
                                 gpa_t at, uint64_t size) MUST_CHECK;
/* Ends notification for a range; its waiting writers go on. CLEAVE_NOT_MAPPED as above. */
enum cleave_status channel_disarm(struct mm_ctx *ctx, struct channel *channel, struct space *space,
                                  gpa_t at, uint64_t size) MUST_CHECK;

/* Oldest event not yet taken; false when there is none. In asynchronous mode this also ends it. */
bool channel_next(struct mm_ctx *ctx, struct channel *channel, struct event *out);
/* The same; where there is none, `wait` is queued until there is one, or the channel ends. Then
 * other readers may have been faster: call again. */
bool channel_await(struct mm_ctx *ctx, struct channel *channel, struct vcpu_wait *wait,
                   struct event *out);
/* Decides event `id`. ALLOW: the grain is writable from now until the next rearm; DENY: the waiting
 * writers get CLEAVE_DENIED. CLEAVE_INVALID for an id that is not outstanding; CLEAVE_NO_MEMORY
 * when the region tree cannot be split, CLEAVE_BUSY while an operation of the space is stopped that
 * space_give_up() does not end: the event stays outstanding. One that it ends is given up, and an
 * unmap or conversion that took effect comes as much further as the budget allows. */
enum cleave_status channel_verdict(struct mm_ctx *ctx, struct channel *channel, uint64_t id,
                                   enum verdict verdict) MUST_CHECK;

/* Grains that are dirty now. */
uint64_t channel_dirty(struct mm_ctx *ctx, struct channel *channel);

/* For fault.c: page `at` of `space` is armed and was written. CLEAVE_OK: no longer armed, or not
 * any more what `region` says: look again. CLEAVE_WAIT: queued; without `wait`, the event is sent
 * if there is room. CLEAVE_NO_MEMORY, CLEAVE_QUOTA: no frame to split the region tree. No lock is
 * held. */
enum cleave_status channel_notify(struct mm_ctx *ctx, struct space *space, gfn_t at,
                                  const struct region *region, struct vcpu_wait *wait) MUST_CHECK;

/* Takes a waiter, of whatever kind, out of the queue of a channel of `pool` where it stands in one:
 * its vcpu is going away. When this returns no CPU uses it for a channel of the pool any more, even
 * if it was woken meanwhile. The event stays. For a vcpu whose space maps pages of other pools once
 * for each pool. No channel or higher lock is held. O(CHANNELS_MAX and the waiters). */
void channel_cancel_wait(struct mm_ctx *ctx, struct pool *pool, struct vcpu_wait *wait);

/* For whatever removes or replaces regions of `space`, at most CHANGE_WORDS of them: takes the
 * grains of `range` off the dirty counts of their channels, before the tree changes. The space's
 * lock is held. */
void channel_forget(struct mm_ctx *ctx, struct space *space, struct gfn_range range);
/* Takes that back, where the change then failed; or counts them where they were moved to. */
void channel_remember(struct mm_ctx *ctx, struct space *space, struct gfn_range range);
/* The same for any number of them: takes those of space->forget, as they stand in `tree`, off the
 * counts, and moves its start on. One unit for each word; false when the budget ran out. */
bool channel_forget_some(struct mm_ctx *ctx, struct space *space, region_word_t tree);
/* A change of the space's regions, which asynchronous writers had to wait for, has ended. The
 * space's lock is held. O(CHANNELS_MAX and the waiters). */
void channel_resume(struct mm_ctx *ctx, struct space *space);
/* For a space that is dying, after channel_forget() and before the object goes: ends its events and
 * wakes who waits to write to it. May be called again. No lock is held. */
void channel_forget_space(struct mm_ctx *ctx, struct space *space);

#endif
