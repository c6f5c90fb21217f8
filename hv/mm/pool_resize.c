/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Moves the end of a pool: what it gains joins its free maps, what it gives up has to be free. A
 * 1 GiB run of which the pool has a part has its map in the pool's `edge`, one that it has whole in
 * the machine's run. Everything here is under the pool's lock; pool_of() reads without it, and
 * finds the pool of a frame in use at every moment.
 */
#include "pool.h"
#include "runs.h"

#define PARTS TABLE_ENTRIES

static uint64_t giga_start(uint64_t f) { return f & ~(level_pages(2) - 1); }
static pfn_t block_at(uint64_t f) { return pfn((uint32_t)f); }

/* --- 1 GiB runs that become the pool's own, or cease to be ------------------------------------ */

static void mark_block(const struct pool *pool, uint64_t block)
{
    __atomic_store_n(&run_of(block_at(block), 1)->pool, pool->start.v, __ATOMIC_RELAXED);
}

/* All of the 1 GiB run at `giga` is the pool's from now on, which had a part of it: the map moves
 * from the edge to the machine's run. The marks of its blocks stay until no frame of it is in use
 * (runs_push_free_giga()). */
static void own_giga(struct mm_ctx *ctx, struct pool *pool, uint64_t giga)
{
    struct run *run = run_of(block_at(giga), 2);
    struct run *edge = runs_giga(pool, block_at(giga));

    run->state = RUN_BROKEN;
    run->free_count = edge->free_count;
    __builtin_memcpy(run->free, edge->free, sizeof(run->free));
    *edge = (struct run){.state = RUN_NONE};
    __atomic_store_n(&run->pool, pool->start.v, __ATOMIC_RELEASE);
    port_point(ctx, POINT_OWNER, giga, 1);
    if (run->free_count != 0) {
        runs_push(&pool->giga_partial, run, 2);
    }
}

/* The reverse, for a run that is not handed out whole. */
static void disown_giga(struct mm_ctx *ctx, struct pool *pool, uint64_t giga)
{
    struct run *run = run_of(block_at(giga), 2);

    if (run->state == RUN_NONE) {
        runs_break_giga(pool, run);
    }
    MM_CHECK(run->state == RUN_BROKEN && run->unsettled == 0);
    if (run->free_count != 0) {
        runs_remove(&pool->giga_partial, run, 2);
    }
    for (uint64_t i = 0; i < PARTS; i++) {
        mark_block(pool, giga + i * level_pages(1));
    }
    __atomic_store_n(&run->pool, 0, __ATOMIC_RELEASE);
    port_point(ctx, POINT_OWNER, giga, 0);
    struct run *edge = runs_giga(pool, block_at(giga));
    edge->free_count = run->free_count;
    __builtin_memcpy(edge->free, run->free, sizeof(edge->free));
    runs_forget(run);
}

/* --- Growing ---------------------------------------------------------------------------------- */

static void set_end(struct pool *pool, uint64_t end)
{
    __atomic_store_n(&pool->end.v, (uint32_t)end, __ATOMIC_RELAXED);
    pool->frames = end - pool->start.v;
}

/* [pool->end, end) joins the free maps. */
static void grow(struct mm_ctx *ctx, struct pool *pool, uint64_t end)
{
    uint64_t at = pool->end.v, giga = giga_start(at);

    pool->free += end - at;
    if (giga != at && giga >= pool->start.v && giga + level_pages(2) <= end) {
        own_giga(ctx, pool, giga);
    }
    while (at < end) {
        struct run *run = run_of(block_at(at), 2);
        if (giga_start(at) == at && at + level_pages(2) <= end) {
            __atomic_store_n(&run->pool, pool->start.v, __ATOMIC_RELAXED);
            runs_push_free_giga(pool, run);
            at += level_pages(2);
        } else {
            mark_block(pool, at);
            runs_give_block(pool, block_at(at));
            at += level_pages(1);
        }
    }
    set_end(pool, end);
    pool_wake(ctx, pool);
}

/* --- Shrinking -------------------------------------------------------------------------------- */

/* Is the block below `at` free, or can it be made so? Set-aside runs of which nothing is used end.
 * CLEAVE_AGAIN: no budget is left for that. */
static enum cleave_status try_block(struct mm_ctx *ctx, struct pool *pool, uint64_t block,
                                    bool *free)
{
    const struct run *giga = runs_giga(pool, block_at(block));
    struct run *run = run_of(block_at(block), 1);

    *free = giga->state != RUN_WHOLE && runs_map_test(giga, runs_part(block_at(block), 1));
    if (!*free && run->state == RUN_ASIDE && run->free_count == PARTS) {
        if (!mm_spend(ctx, 1)) {
            return CLEAVE_AGAIN;
        }
        runs_end_aside(pool, run);
        *free = true;
    }
    return CLEAVE_OK;
}

/* The lowest end, not below `end`, behind which nothing is in use. */
static enum cleave_status find_end(struct mm_ctx *ctx, struct pool *pool, uint64_t end,
                                   uint64_t *lowest)
{
    uint64_t at = pool->end.v;
    bool free = true;

    while (at > end && free) {
        uint64_t giga = giga_start(at - 1), block = at - level_pages(1);
        const struct run *run = run_of(block_at(giga), 2);
        if (run->pool != 0 && run->state == RUN_NONE) {
            at = giga > end ? giga : end;
            continue;
        }
        enum cleave_status status = try_block(ctx, pool, block, &free);
        if (status != CLEAVE_OK) {
            return status;
        }
        at = free ? block : at;
    }
    *lowest = at;
    return CLEAVE_OK;
}

/* [end, pool->end), which is free, leaves the free maps and is nobody's. */
static void give_up(struct mm_ctx *ctx, struct pool *pool, uint64_t end)
{
    for (uint64_t at = pool->end.v; at > end;) {
        uint64_t giga = giga_start(at - 1);
        struct run *run = run_of(block_at(giga), 2);
        if (run->pool != 0 && giga >= end) {
            runs_remove(&pool->giga_free, run, 2);
            runs_forget(run);
            at = giga;
            continue;
        }
        if (run->pool != 0) {
            disown_giga(ctx, pool, giga);
        }
        at -= level_pages(1);
        runs_take_block(pool, runs_giga(pool, block_at(at)), runs_part(block_at(at), 1));
        runs_forget(run_of(block_at(at), 1));
        *frame_of(block_at(at), 1) = (struct frame){0};
    }
    pool->free -= pool->end.v - end;
    set_end(pool, end);
}

static enum cleave_status shrink(struct mm_ctx *ctx, struct pool *pool, uint64_t end)
{
    uint64_t spare = pool->free - pool->reserved, lowest;
    enum cleave_status status = find_end(ctx, pool, end, &lowest);

    if (status != CLEAVE_OK) {
        return status;
    }
    uint64_t covered = pool->end.v - spare / level_pages(1) * level_pages(1);
    lowest = lowest > covered ? lowest : covered;
    if (lowest > end) {
        return mm_fail(ctx, CLEAVE_BUSY, "frames", end - pool->start.v, lowest - pool->start.v,
                       pool->frames);
    }
    give_up(ctx, pool, end);
    return CLEAVE_OK;
}

/* --- Both ------------------------------------------------------------------------------------- */

static enum cleave_status check_size(struct mm_ctx *ctx, const struct pool *pool, uint64_t frames)
{
    uint64_t block = level_pages(1);
    uint64_t most = (machine.frames - pool->start.v) / block * block;

    if (frames % block != 0) {
        return mm_fail(ctx, CLEAVE_ALIGN, "frames", frames, block, block);
    }
    if (frames == 0) {
        return mm_fail(ctx, CLEAVE_COUNT, "frames", frames, block, most);
    }
    return frames <= most ? CLEAVE_OK : mm_fail(ctx, CLEAVE_RANGE, "frames", frames, block, most);
}

enum cleave_status pool_resize(struct mm_ctx *ctx, struct pool *pool, uint64_t frames)
{
    enum cleave_status status = check_size(ctx, pool, frames);

    if (status != CLEAVE_OK) {
        return status;
    }
    spin_lock(ctx, &pool->lock, RANK_POOL);
    uint64_t end = pool->start.v + frames;
    if (end > pool->end.v) {
        grow(ctx, pool, end);
    } else if (end < pool->end.v) {
        status = shrink(ctx, pool, end);
    }
    spin_unlock(ctx, &pool->lock, RANK_POOL);
    return status;
}
