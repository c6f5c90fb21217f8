/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pool hands out frames and blocks, charges them, takes them back, and follows blocks that
 * dissolve and join; runs.c keeps what is free. Everything here is under the pool's lock.
 */
#include "pool.h"

#include "account.h"
#include "runs.h"

#define PARTS TABLE_ENTRIES

/* A pool is named by the frame of its object, its first. */
static pfn_t pool_frame(const struct pool *pool) { return pool->start; }

/* --- Handing out ------------------------------------------------------------------------------ */

/* May `payer` take `pages` more? Says whether its reservation covers them, which the quota was
 * asked for when it was made. */
static enum cleave_status may_charge(struct mm_ctx *ctx, struct payer *payer, uint64_t pages,
                                     bool *reserved)
{
    struct pool *pool = payer->pool;
    uint64_t room = account_room(account_of(pool, payer->account));

    *reserved = pages == 1 && payer->reserved >= 1;
    if (!(*reserved && payer->promised) && pages > room) {
        pool->rejected++;
        return mm_fail(ctx, CLEAVE_QUOTA, "pages", pages, 0, room);
    }
    if (!*reserved && pages > pool->free - pool->reserved) {
        pool->rejected++;
        return mm_fail(ctx, CLEAVE_NO_MEMORY, "pages", pages, 0, pool->free - pool->reserved);
    }
    return CLEAVE_OK;
}

/* Books a frame or block that has just left the free maps. */
static void charge(struct payer *payer, unsigned order, enum frame_kind kind, bool reserved)
{
    struct pool *pool = payer->pool;
    struct account *account = account_of(pool, payer->account);
    uint64_t pages = level_pages(order);

    pool->free -= pages;
    pool->kind[kind] += pages;
    account->charged += pages;
    if (reserved) {
        account->promised -= payer->promised;
        pool->reserved--;
        payer->reserved--;
    }
}

/* Makes what was booked a frame or block with one holder. It is the caller's already, so this needs
 * no lock, and the lock is not held while its descriptor is fetched. */
static void hand_out(const struct payer *payer, pfn_t f, unsigned order, enum frame_kind kind)
{
    struct frame *d = frame_of(f, order);

    MM_CHECK(d->count == 0);
    frame_set_kind(d, kind, payer->account);
    d->rmap = 0;
    d->count = 1;
    if (order < LEAF_ORDERS - 1) {
        __atomic_fetch_add(&run_of(f, order + 1)->used, 1, __ATOMIC_RELEASE);
    }
}

static pfn_t take_order(struct pool *pool, uint32_t account, unsigned order)
{
    if (order == 0) {
        struct run *run = runs_find_partial(pool);
        if (run == NULL) {
            return PFN_NONE;
        }
        unsigned part = runs_map_first(run, account);
        runs_take_frame(pool, run, part);
        return pfn_add(runs_frame(run, 1), part);
    }
    if (order == 1) {
        pfn_t block = runs_find_block(pool);
        if (block.v != 0) {
            run_of(block, 1)->state = RUN_WHOLE;
        }
        return block;
    }
    struct run *giga = runs_first(pool->giga_free, 2);
    if (giga == NULL) {
        return PFN_NONE;
    }
    runs_remove(&pool->giga_free, giga, 2);
    giga->state = RUN_WHOLE;
    return runs_frame(giga, 2);
}

/* pool_alloc() under the lock. */
static enum cleave_status take(struct mm_ctx *ctx, struct payer *payer, unsigned order,
                               enum frame_kind kind, pfn_t *out)
{
    struct pool *pool = payer->pool;
    bool reserved = false;

    enum cleave_status status = may_charge(ctx, payer, level_pages(order), &reserved);
    if (status != CLEAVE_OK) {
        return status;
    }
    *out = take_order(pool, payer->account, order);
    if (out->v == 0) {
        pool->rejected++;
        return mm_fail(ctx, CLEAVE_NO_MEMORY, "order", order, 0, LEAF_ORDERS - 1);
    }
    charge(payer, order, kind, reserved);
    return CLEAVE_OK;
}

enum cleave_status pool_alloc(struct mm_ctx *ctx, struct payer *payer, unsigned order,
                              enum frame_kind kind, pfn_t *out)
{
    struct pool *pool = payer->pool;

    *out = PFN_NONE;
    if (!(order == 0 && payer->reserved > 0) && port_refuse_allocation()) {
        return mm_fail(ctx, CLEAVE_NO_MEMORY, "pages", level_pages(order), 0, 0);
    }
    spin_lock(ctx, &pool->lock, RANK_POOL);
    enum cleave_status status = take(ctx, payer, order, kind, out);
    spin_unlock(ctx, &pool->lock, RANK_POOL);
    if (status == CLEAVE_OK) {
        hand_out(payer, *out, order, kind);
    }
    return status;
}

enum cleave_status pool_alloc_at(struct mm_ctx *ctx, struct payer *payer, pfn_t f,
                                 enum frame_kind kind)
{
    struct pool *pool = payer->pool;
    struct run *run = run_of(f, 1);
    bool reserved = false;

    if (payer->reserved == 0 && port_refuse_allocation()) {
        return mm_fail(ctx, CLEAVE_NO_MEMORY, "pages", 1, 0, 0);
    }
    spin_lock(ctx, &pool->lock, RANK_POOL);
    enum cleave_status status = CLEAVE_OK;
    bool ours = f.v >= pool->start.v && f.v < pool->end.v; /* it may have shrunk meanwhile */
    if (!ours || (run->state != RUN_BROKEN && run->state != RUN_ASIDE) ||
        !runs_map_test(run, runs_part(f, 0))) {
        status = mm_fail(ctx, CLEAVE_NO_MEMORY, "frame", f.v, 1, 0);
    } else {
        status = may_charge(ctx, payer, 1, &reserved);
    }
    if (status == CLEAVE_OK) {
        runs_take_frame(pool, run, runs_part(f, 0));
        charge(payer, 0, kind, reserved);
    }
    spin_unlock(ctx, &pool->lock, RANK_POOL);
    if (status == CLEAVE_OK) {
        hand_out(payer, f, 0, kind);
    }
    return status;
}

/* --- Giving back ------------------------------------------------------------------------------ */

/* Takes `pages` of `kind` off the books. */
static void uncharge(struct mm_ctx *ctx, struct pool *pool, uint32_t account, enum frame_kind kind,
                     uint64_t pages)
{
    pool->free += pages;
    pool->kind[kind] -= pages;
    account_uncharge(ctx, pool, account, pages);
}

/* Frees a frame or block; into the reservation of `payer` unless it is null. */
static void free_to(struct mm_ctx *ctx, struct payer *payer, pfn_t f, unsigned order)
{
    struct frame *d = frame_of(f, order);
    enum frame_kind kind = frame_kind(d);
    struct pool *pool = pool_of(f);
    struct run *run = order > 0 ? run_of(f, order) : run_of(f, 1);

    MM_CHECK(d->count == 0 && kind != FRAME_FREE);
    port_point(ctx, POINT_FREE, f.v, order);
    spin_lock(ctx, &pool->lock, RANK_POOL);
    if (payer != NULL) {
        account_of(pool, payer->account)->promised += payer->promised;
        pool->reserved++;
        payer->reserved++;
    }
    uncharge(ctx, pool, d->account, kind, level_pages(order));
    if (kind == FRAME_TABLE && pool_is_aside(pfn(d->rmap), f)) {
        runs_end_aside(pool, run_of(pfn(d->rmap), 1)); /* a table that was never put in place */
    }
    frame_set_kind(d, FRAME_FREE, 0);
    d->rmap = 0;
    if (order == 0) {
        unsigned part = runs_part(f, 0);
        runs_give_frames(pool, run, part / 64, UINT64_C(1) << (part % 64));
    } else {
        MM_CHECK(run->state == RUN_WHOLE);
        run->state = RUN_NONE;
        if (order == 1) {
            runs_give_block(pool, f);
        } else {
            runs_push_free_giga(pool, run);
        }
    }
    pool_wake(ctx, pool);
    spin_unlock(ctx, &pool->lock, RANK_POOL);
}

void pool_free(struct mm_ctx *ctx, pfn_t f, unsigned order) { free_to(ctx, NULL, f, order); }

void pool_return(struct mm_ctx *ctx, struct payer *payer, pfn_t f)
{
    bool last = node_put(ctx, f);
    MM_CHECK(last);
    free_to(ctx, payer, f, 0);
}

void pool_free_frames(struct mm_ctx *ctx, pfn_t f, uint64_t bits)
{
    for (; bits != 0; bits &= bits - 1) {
        pool_free(ctx, pfn_add(f, (uint64_t)__builtin_ctzll(bits)), 0);
    }
}

/* --- Blocks that dissolve and join ------------------------------------------------------------ */

void pool_break_block(struct mm_ctx *ctx, pfn_t block)
{
    struct pool *pool = pool_of(block);
    struct run *run = run_of(block, 1);
    struct frame *head = frame_of(block, 1);
    uint64_t freed = 0;

    spin_lock(ctx, &pool->lock, RANK_POOL);
    uint32_t account = head->account;
    MM_CHECK(run->state == RUN_WHOLE);
    run->state = RUN_BROKEN;
    run->free_count = 0;
    __builtin_memset(run->free, 0, sizeof(run->free));
    for (unsigned i = 0; i < PARTS; i++) {
        struct frame *d = frame_of(pfn_add(block, i), 0);
        if (d->count == 0) {
            port_point(ctx, POINT_FREE, block.v + i, 0);
            frame_set_kind(d, FRAME_FREE, 0);
            d->rmap = 0;
            runs_map_give(run, i);
            freed++;
        } else {
            frame_set_kind(d, FRAME_DATA, account);
        }
    }
    frame_set_kind(head, FRAME_FREE, 0);
    if (freed != 0) {
        runs_push(&pool->block_partial, run, 1);
        uncharge(ctx, pool, account, FRAME_DATA, freed);
        pool_wake(ctx, pool);
    }
    spin_unlock(ctx, &pool->lock, RANK_POOL);
}

void pool_break_giga(struct mm_ctx *ctx, pfn_t f)
{
    struct pool *pool = pool_of(f);
    struct run *giga = run_of(f, 2);

    spin_lock(ctx, &pool->lock, RANK_POOL);
    MM_CHECK(giga->state == RUN_WHOLE);
    giga->state = RUN_BROKEN;
    giga->unsettled = PARTS;
    giga->free_count = 0;
    __builtin_memset(giga->free, 0, sizeof(giga->free));
    spin_unlock(ctx, &pool->lock, RANK_POOL);
}

void pool_settle_block(struct mm_ctx *ctx, pfn_t block, uint32_t account)
{
    struct pool *pool = pool_of(block);
    spin_lock(ctx, &pool->lock, RANK_POOL);
    MM_CHECK(run_of(block, 1)->state == RUN_NONE);
    run_of(block, 2)->unsettled--;
    run_of(block, 1)->state = RUN_WHOLE;
    frame_set_kind(frame_of(block, 1), FRAME_DATA, account);
    spin_unlock(ctx, &pool->lock, RANK_POOL);
}

/* All parts in use and charged to one account? Every part of a 1 GiB run is WHOLE. */
static bool can_join(pfn_t f, unsigned order)
{
    struct frame *parts = frame_of(f, order - 1);
    struct run *run = run_of(f, order);
    bool edge = order == 2 && run->pool == 0;

    if (edge || run->free_count != 0 || (run->state != RUN_BROKEN && run->state != RUN_ASIDE)) {
        return false;
    }
    for (unsigned i = 0; i < PARTS; i++) {
        bool whole = order == 1 || run_of(f, 1)[i].state == RUN_WHOLE;
        if (!whole || frame_kind(&parts[i]) != FRAME_DATA || parts[i].count == 0 ||
            parts[i].account != parts[0].account) {
            return false;
        }
    }
    return true;
}

enum cleave_status pool_join(struct mm_ctx *ctx, pfn_t f, unsigned order)
{
    struct pool *pool = pool_of(f);
    struct run *run = run_of(f, order);
    struct frame *parts = frame_of(f, order - 1);
    enum cleave_status status = CLEAVE_OK;

    spin_lock(ctx, &pool->lock, RANK_POOL);
    if (!can_join(f, order)) {
        status = mm_fail(ctx, CLEAVE_BUSY, "block", f.v, 1, 0);
    } else {
        if (run->state == RUN_ASIDE) {
            runs_remove(&pool->block_aside, run, 1);
            run->owner = 0;
        }
        frame_set_kind(frame_of(f, order), FRAME_DATA, parts[0].account);
        run->state = RUN_WHOLE;
        for (unsigned i = 0; i < PARTS && order == 2; i++) {
            run_of(f, 1)[i].state = RUN_NONE;
        }
    }
    spin_unlock(ctx, &pool->lock, RANK_POOL);
    return status;
}

/* --- Runs set aside for copies ---------------------------------------------------------------- */

bool pool_is_aside(pfn_t block, pfn_t owner)
{
    const struct run *run = run_of(block, 1);
    return block.v != 0 && run->state == RUN_ASIDE && run->owner == owner.v;
}

/* pool_set_aside() under the lock. */
static pfn_t set_aside(struct pool *pool, pfn_t owner)
{
    pfn_t block = runs_find_random_block(pool);
    if (block.v != 0) {
        struct run *run = run_of(block, 1);
        runs_map_fill(run);
        run->state = RUN_ASIDE;
        run->owner = owner.v;
        runs_push(&pool->block_aside, run, 1);
        pool->aside += PARTS;
    }
    return block;
}

pfn_t pool_set_aside(struct mm_ctx *ctx, struct pool *pool, pfn_t owner)
{
    spin_lock(ctx, &pool->lock, RANK_POOL);
    pfn_t block = set_aside(pool, owner);
    spin_unlock(ctx, &pool->lock, RANK_POOL);
    return block;
}

/* Sets a run, whose first frame goes to `block`, aside for `table` and takes part `part` of it;
 * PFN_NONE where the run is not to be had or the payer may not have the frame. Under the lock. */
static pfn_t take_first_copy(struct payer *payer, pfn_t table, unsigned part, pfn_t *block)
{
    struct pool *pool = payer->pool;

    if (account_room(account_of(pool, payer->account)) == 0 || pool->free == pool->reserved) {
        return PFN_NONE;
    }
    *block = set_aside(pool, table);
    if (block->v == 0) {
        return PFN_NONE;
    }
    runs_take_frame(pool, run_of(*block, 1), part);
    charge(payer, 0, FRAME_DATA, false);
    return pfn_add(*block, part);
}

enum cleave_status pool_alloc_split(struct mm_ctx *ctx, struct payer *payer, unsigned part,
                                    pfn_t *table, pfn_t *copy)
{
    struct pool *pool = payer->pool;
    pfn_t block = PFN_NONE;

    *table = *copy = PFN_NONE;
    if (port_refuse_allocation()) {
        return mm_fail(ctx, CLEAVE_NO_MEMORY, "pages", 1, 0, 0);
    }
    bool refused = port_refuse_allocation();
    spin_lock(ctx, &pool->lock, RANK_POOL);
    enum cleave_status status = take(ctx, payer, 0, FRAME_TABLE, table);
    if (status == CLEAVE_OK && !refused) {
        *copy = take_first_copy(payer, *table, part, &block);
    }
    spin_unlock(ctx, &pool->lock, RANK_POOL);
    if (status == CLEAVE_OK) {
        hand_out(payer, *table, 0, FRAME_TABLE);
        frame_of(*table, 0)->rmap = block.v;
    }
    if (copy->v != 0) {
        hand_out(payer, *copy, 0, FRAME_DATA);
    }
    return status;
}

/* --- Dead tables ------------------------------------------------------------------------------ */

void pool_defer_table(struct mm_ctx *ctx, struct pool *pool, pfn_t table)
{
    pfn_t aside = pfn(frame_of(table, 0)->rmap);
    spin_lock(ctx, &pool->lock, RANK_POOL);
    if (pool_is_aside(aside, table)) {
        runs_end_aside(pool, run_of(aside, 1));
    }
    frame_of(table, 0)->rmap = pool->reap_tables;
    pool->reap_tables = table.v;
    spin_unlock(ctx, &pool->lock, RANK_POOL);
}

void pool_defer_giga(struct mm_ctx *ctx, pfn_t giga)
{
    struct pool *pool = pool_of(giga);
    spin_lock(ctx, &pool->lock, RANK_POOL);
    run_of(giga, 2)->owner = pool->reap_gigas;
    pool->reap_gigas = (giga.v >> (2 * LEVEL_BITS)) + 1;
    spin_unlock(ctx, &pool->lock, RANK_POOL);
}

pfn_t pool_next_giga(struct mm_ctx *ctx, struct pool *pool)
{
    if (__atomic_load_n(&pool->reap_gigas, __ATOMIC_RELAXED) == 0) {
        return PFN_NONE;
    }
    spin_lock(ctx, &pool->lock, RANK_POOL);
    struct run *run = runs_first(pool->reap_gigas, 2);
    if (run != NULL) {
        pool->reap_gigas = run->owner;
        run->owner = 0;
    }
    spin_unlock(ctx, &pool->lock, RANK_POOL);
    return run != NULL ? runs_frame(run, 2) : PFN_NONE;
}

pfn_t pool_next_dead_table(struct mm_ctx *ctx, struct pool *pool)
{
    if (__atomic_load_n(&pool->reap_tables, __ATOMIC_RELAXED) == 0) {
        return PFN_NONE;
    }
    spin_lock(ctx, &pool->lock, RANK_POOL);
    pfn_t table = pfn(pool->reap_tables);
    if (table.v != 0) {
        pool->reap_tables = frame_of(table, 0)->rmap;
        frame_of(table, 0)->rmap = 0;
    }
    spin_unlock(ctx, &pool->lock, RANK_POOL);
    return table;
}

/* --- Making and ending a pool ----------------------------------------------------------------- */

static bool giga_inside(const struct pool *pool, uint64_t giga)
{
    return giga >= pool->start.v && giga + level_pages(2) <= pool->end.v;
}

/* Marks every run of the range as the pool's and puts it into the free maps. */
static void claim_runs(struct pool *pool)
{
    uint64_t first = pool->start.v & ~(level_pages(2) - 1);
    for (uint64_t giga = first; giga < pool->end.v; giga += level_pages(2)) {
        struct run *run = run_of(pfn((uint32_t)giga), 2);
        if (giga_inside(pool, giga)) {
            run->pool = pool_frame(pool).v;
            run->state = RUN_NONE;
            runs_push(&pool->giga_free, run, 2);
            continue;
        }
        for (uint64_t b = giga; b < giga + level_pages(2); b += level_pages(1)) {
            if (b >= pool->start.v && b < pool->end.v) {
                run_of(pfn((uint32_t)b), 1)->pool = pool_frame(pool).v;
                runs_map_give(runs_giga(pool, pfn((uint32_t)b)), runs_part(pfn((uint32_t)b), 1));
            }
        }
    }
}

/* Takes the first frame for the pool object, which is being filled in. */
static void claim_object(struct pool *pool)
{
    struct run *giga = runs_giga(pool, pool->start);
    if (!runs_is_edge(pool, giga)) {
        runs_break_giga(pool, giga);
    }
    runs_take_block(pool, giga, runs_part(pool->start, 1));
    struct run *run = runs_break_block(pool, pool->start);
    runs_take_frame(pool, run, 0);
    frame_set_kind(frame_of(pool->start, 0), FRAME_OBJECT, 0);
    frame_of(pool->start, 0)->count = 1;
    run->used++;
    pool->free--;
    pool->kind[FRAME_OBJECT]++;
    pool->own.charged++;
}

enum cleave_status pool_create(struct mm_ctx *ctx, pfn_t start, pfn_t end, struct pool **out)
{
    uint64_t block = level_pages(1);
    if (start.v % block != 0 || end.v % block != 0) {
        uint64_t bad = start.v % block != 0 ? start.v : end.v;
        return mm_fail(ctx, CLEAVE_ALIGN, start.v % block != 0 ? "start" : "end", bad, block,
                       block);
    }
    if (end.v > machine.frames || start.v == 0) {
        return mm_fail(ctx, CLEAVE_RANGE, start.v == 0 ? "start" : "end",
                       start.v == 0 ? start.v : end.v, 1, machine.frames);
    }
    if (start.v >= end.v) {
        return mm_fail(ctx, CLEAVE_COUNT, "end", end.v, start.v + block, machine.frames);
    }
    struct pool *pool = frame_address(start);
    _Static_assert(sizeof(struct pool) <= PAGE_SIZE, "a pool object is one frame");
    port_zero_pages(pool, 1);
    pool->start = start;
    pool->end = end;
    pool->frames = (uint64_t)end.v - start.v;
    pool->free = pool->frames;
    pool->own = (struct account){.limit = UINT64_MAX, .live = 1};
    pool->payer = (struct payer){.pool = pool};
    pool->next_id = 1;
    claim_runs(pool);
    claim_object(pool);
    enum cleave_status status = account_begin(ctx, pool);
    if (status != CLEAVE_OK) {
        pool_release_runs(ctx, pool);
        return status;
    }
    *out = pool;
    return CLEAVE_OK;
}

void pool_release_runs(struct mm_ctx *ctx, struct pool *pool)
{
    (void)ctx;
    for (uint64_t b = pool->start.v; b < pool->end.v; b += level_pages(1)) {
        pfn_t block = pfn((uint32_t)b);
        if ((b & (level_pages(2) - 1)) == 0 && run_of(block, 2)->pool == pool_frame(pool).v) {
            struct run *giga = run_of(block, 2);
            bool broken = giga->state == RUN_BROKEN;
            runs_forget(giga);
            if (!broken) {
                b += level_pages(2) - level_pages(1);
                continue;
            }
        }
        struct run *run = run_of(block, 1);
        if (run->state == RUN_BROKEN) {
            for (unsigned i = 0; i < PARTS; i++) {
                *frame_of(pfn_add(block, i), 0) = (struct frame){0};
            }
        }
        *run = (struct run){0};
        *frame_of(block, 1) = (struct frame){0};
    }
}

enum cleave_status pool_destroy(struct mm_ctx *ctx, struct pool *pool)
{
    uint64_t used = pool->frames - pool->free;
    uint64_t own = account_own_frames(pool);
    if (used != own || pool->account_used != 0 || pool->reserved != 0 || pool->wait_first != NULL) {
        return mm_fail(ctx, CLEAVE_BUSY, "pool", used, 0, own);
    }
    pool_release_runs(ctx, pool);
    return CLEAVE_OK;
}
