/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Free memory of a pool by order. A 1 GiB run is free as a whole, or BROKEN with a map of its free
 * 2 MiB blocks; a 2 MiB run is free, WHOLE, or BROKEN with a map of its free frames; what is freed
 * joins upwards at once. Everything here is under the pool's lock.
 */
#include "pool.h"

#include "account.h"

#define PARTS TABLE_ENTRIES

static uint32_t run_index(const struct run *run, unsigned order)
{
    return (uint32_t)(run - machine.run[order]);
}
static pfn_t run_frame(const struct run *run, unsigned order)
{
    return pfn(run_index(run, order) << (LEVEL_BITS * order));
}

/* --- Lists of runs, linked by index + 1 ------------------------------------------------------- */

static void list_push(uint32_t *head, struct run *run, unsigned order)
{
    MM_ASSERT(!run->listed);
    run->next = *head;
    run->prev = 0;
    if (*head != 0) {
        machine.run[order][*head - 1].prev = run_index(run, order) + 1;
    }
    *head = run_index(run, order) + 1;
    run->listed = 1;
}

static void list_remove(uint32_t *head, struct run *run, unsigned order)
{
    MM_ASSERT(run->listed);
    if (run->prev != 0) {
        machine.run[order][run->prev - 1].next = run->next;
    } else {
        *head = run->next;
    }
    if (run->next != 0) {
        machine.run[order][run->next - 1].prev = run->prev;
    }
    run->next = run->prev = 0;
    run->listed = 0;
}

static struct run *list_first(uint32_t head, unsigned order)
{
    return head != 0 ? &machine.run[order][head - 1] : NULL;
}

/* --- Free maps -------------------------------------------------------------------------------- */

static void map_fill(struct run *run)
{
    for (unsigned w = 0; w < RUN_WORDS; w++) {
        unsigned bits = PARTS - w * 64;
        run->free[w] = bits >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << bits) - 1;
    }
    run->free_count = PARTS;
}
static bool map_test(const struct run *run, unsigned part)
{
    return (run->free[part / 64] >> (part % 64) & 1) != 0;
}
static void map_take(struct run *run, unsigned part)
{
    MM_CHECK(map_test(run, part));
    run->free[part / 64] &= ~(UINT64_C(1) << (part % 64));
    run->free_count--;
}
static void map_give(struct run *run, unsigned part)
{
    MM_CHECK(!map_test(run, part));
    run->free[part / 64] |= UINT64_C(1) << (part % 64);
    run->free_count++;
}
static unsigned map_first(const struct run *run)
{
    unsigned w = 0;
    while (run->free[w] == 0) {
        w++;
    }
    return w * 64 + (unsigned)__builtin_ctzll(run->free[w]);
}

static unsigned part_of(pfn_t f, unsigned order)
{
    return (unsigned)(f.v >> (LEVEL_BITS * order)) & (PARTS - 1);
}

/* --- Whose memory ----------------------------------------------------------------------------- */

static pfn_t pool_frame(const struct pool *pool) { return pool->start; }

struct pool *pool_of(pfn_t f)
{
    uint32_t owner = run_of(f, 2)->pool;
    owner = owner != 0 ? owner : run_of(f, 1)->pool;
    return owner != 0 ? frame_address(pfn(owner)) : NULL;
}

/* The run that maps the free 2 MiB blocks around `f`: the machine's when the whole 1 GiB is ours. */
static struct run *giga_of(struct pool *pool, pfn_t f)
{
    struct run *run = run_of(f, 2);
    if (run->pool != 0) {
        return run;
    }
    return &pool->edge[run == run_of(pool->start, 2) ? 0 : 1];
}
static bool is_edge(const struct pool *pool, const struct run *giga)
{
    return giga == &pool->edge[0] || giga == &pool->edge[1];
}

/* --- Free blocks ------------------------------------------------------------------------------ */

static void break_free_giga(struct pool *pool, struct run *giga)
{
    list_remove(&pool->giga_free, giga, 2);
    map_fill(giga);
    giga->state = RUN_BROKEN;
    list_push(&pool->giga_partial, giga, 2);
}

static void take_block(struct pool *pool, struct run *giga, unsigned part)
{
    map_take(giga, part);
    if (giga->free_count == 0 && !is_edge(pool, giga)) {
        list_remove(&pool->giga_partial, giga, 2);
    }
}

/* A free 2 MiB block, off the free maps; PFN_NONE when there is none. Edges first, so that 1 GiB
 * runs stay whole. */
static pfn_t find_block(struct pool *pool)
{
    for (unsigned i = 0; i < 2; i++) {
        if (pool->edge[i].free_count != 0) {
            unsigned part = map_first(&pool->edge[i]);
            pfn_t base = i == 0 ? pool->start : pool->end;
            take_block(pool, &pool->edge[i], part);
            uint64_t giga = base.v & ~(level_pages(2) - 1);
            return pfn((uint32_t)(giga + part * level_pages(1)));
        }
    }
    if (pool->giga_partial == 0 && pool->giga_free != 0) {
        break_free_giga(pool, list_first(pool->giga_free, 2));
    }
    struct run *giga = list_first(pool->giga_partial, 2);
    if (giga == NULL) {
        return PFN_NONE;
    }
    unsigned part = map_first(giga);
    take_block(pool, giga, part);
    return pfn_add(run_frame(giga, 2), part * level_pages(1));
}

static void give_block(struct pool *pool, pfn_t block)
{
    struct run *giga = giga_of(pool, block);
    map_give(giga, part_of(block, 1));
    if (is_edge(pool, giga)) {
        return;
    }
    if (giga->free_count == 1) {
        list_push(&pool->giga_partial, giga, 2);
    }
    if (giga->free_count == PARTS) {
        list_remove(&pool->giga_partial, giga, 2);
        giga->state = RUN_NONE;
        list_push(&pool->giga_free, giga, 2);
    }
}

/* A free block becomes a BROKEN run with all its frames free. */
static struct run *break_free_block(struct pool *pool, pfn_t block)
{
    struct run *run = run_of(block, 1);
    map_fill(run);
    run->state = RUN_BROKEN;
    list_push(&pool->block_partial, run, 1);
    return run;
}

static void end_aside(struct pool *pool, struct run *run)
{
    list_remove(&pool->block_aside, run, 1);
    pool->aside -= run->free_count;
    run->owner = 0;
    run->state = RUN_BROKEN;
    if (run->free_count == PARTS) {
        run->state = RUN_NONE;
        give_block(pool, run_frame(run, 1));
    } else if (run->free_count != 0) {
        list_push(&pool->block_partial, run, 1);
    }
}

/* A run with free frames; set-aside runs are given back only when nothing else is left. */
static struct run *find_partial(struct pool *pool)
{
    if (pool->block_partial == 0) {
        pfn_t block = find_block(pool);
        if (block.v != 0) {
            return break_free_block(pool, block);
        }
        while (pool->block_partial == 0 && pool->block_aside != 0) {
            end_aside(pool, list_first(pool->block_aside, 1));
        }
        if (pool->block_partial == 0 && (block = find_block(pool)).v != 0) {
            return break_free_block(pool, block);
        }
    }
    return list_first(pool->block_partial, 1);
}

static void take_frame(struct pool *pool, struct run *run, unsigned part)
{
    map_take(run, part);
    if (run->state == RUN_ASIDE) {
        pool->aside--;
    } else if (run->free_count == 0) {
        list_remove(&pool->block_partial, run, 1);
    }
}

/* Puts `count` frames, whose bits are set in word `w`, back into the map of their run. */
static void give_frames(struct pool *pool, struct run *run, unsigned w, uint64_t bits)
{
    unsigned count = 0;
    for (uint64_t left = bits; left != 0; left &= left - 1) {
        count++;
    }
    MM_CHECK((run->free[w] & bits) == 0);
    run->free[w] |= bits;
    run->free_count = (uint16_t)(run->free_count + count);
    if (run->state == RUN_ASIDE) {
        pool->aside += count;
        return;
    }
    if (!run->listed) {
        list_push(&pool->block_partial, run, 1);
    }
    if (run->free_count == PARTS) {
        list_remove(&pool->block_partial, run, 1);
        run->state = RUN_NONE;
        give_block(pool, run_frame(run, 1));
    }
}

/* --- Handing out ------------------------------------------------------------------------------ */

/* May `payer` take `pages` more? Says whether its reservation covers them. */
static enum cleave_status may_charge(struct mm_ctx *ctx, struct payer *payer, uint64_t pages,
                                     bool *reserved)
{
    struct pool *pool = payer->pool;
    struct account *account = account_of(pool, payer->account);
    uint64_t room = account->limit > account->charged ? account->limit - account->charged : 0;

    if (pages > room) {
        pool->rejected++;
        return mm_fail(ctx, CLEAVE_QUOTA, "pages", pages, 0, room);
    }
    *reserved = pages == 1 && payer->reserved >= 1;
    if (!*reserved && pages > pool->free - pool->reserved) {
        pool->rejected++;
        return mm_fail(ctx, CLEAVE_NO_MEMORY, "pages", pages, 0, pool->free - pool->reserved);
    }
    return CLEAVE_OK;
}

/* Books a frame or block that has just left the free maps. */
static void charge(struct payer *payer, pfn_t f, unsigned order, enum frame_kind kind, bool reserved)
{
    struct pool *pool = payer->pool;
    uint64_t pages = level_pages(order);
    struct frame *d = frame_of(f, order);

    MM_CHECK(d->count == 0);
    pool->free -= pages;
    pool->kind[kind] += pages;
    account_of(pool, payer->account)->charged += pages;
    if (reserved) {
        pool->reserved--;
        payer->reserved--;
    }
    frame_set_kind(d, kind, payer->account);
    d->rmap = 0;
    d->count = 1;
    if (order < LEAF_ORDERS - 1) {
        __atomic_fetch_add(&run_of(f, order + 1)->used, 1, __ATOMIC_RELEASE);
    }
}

static pfn_t take_order(struct pool *pool, unsigned order)
{
    if (order == 0) {
        struct run *run = find_partial(pool);
        if (run == NULL) {
            return PFN_NONE;
        }
        unsigned part = map_first(run);
        take_frame(pool, run, part);
        return pfn_add(run_frame(run, 1), part);
    }
    if (order == 1) {
        pfn_t block = find_block(pool);
        if (block.v != 0) {
            run_of(block, 1)->state = RUN_WHOLE;
        }
        return block;
    }
    struct run *giga = list_first(pool->giga_free, 2);
    if (giga == NULL) {
        return PFN_NONE;
    }
    list_remove(&pool->giga_free, giga, 2);
    giga->state = RUN_WHOLE;
    return run_frame(giga, 2);
}

enum cleave_status pool_alloc(struct mm_ctx *ctx, struct payer *payer, unsigned order,
                              enum frame_kind kind, pfn_t *out)
{
    struct pool *pool = payer->pool;
    bool reserved = false;

    *out = PFN_NONE;
    if (!(order == 0 && payer->reserved > 0) && port_refuse_allocation()) {
        return mm_fail(ctx, CLEAVE_NO_MEMORY, "pages", level_pages(order), 0, 0);
    }
    spin_lock(ctx, &pool->lock, RANK_POOL);
    enum cleave_status status = may_charge(ctx, payer, level_pages(order), &reserved);
    if (status == CLEAVE_OK) {
        *out = take_order(pool, order);
        if (out->v == 0) {
            pool->rejected++;
            status = mm_fail(ctx, CLEAVE_NO_MEMORY, "order", order, 0, LEAF_ORDERS - 1);
        } else {
            charge(payer, *out, order, kind, reserved);
        }
    }
    spin_unlock(ctx, &pool->lock, RANK_POOL);
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
    if ((run->state != RUN_BROKEN && run->state != RUN_ASIDE) || !map_test(run, part_of(f, 0))) {
        status = mm_fail(ctx, CLEAVE_NO_MEMORY, "frame", f.v, 1, 0);
    } else {
        status = may_charge(ctx, payer, 1, &reserved);
    }
    if (status == CLEAVE_OK) {
        take_frame(pool, run, part_of(f, 0));
        charge(payer, f, 0, kind, reserved);
    }
    spin_unlock(ctx, &pool->lock, RANK_POOL);
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

void pool_free(struct mm_ctx *ctx, pfn_t f, unsigned order)
{
    struct frame *d = frame_of(f, order);
    enum frame_kind kind = frame_kind(d);
    struct pool *pool = pool_of(f);
    struct run *run = order > 0 ? run_of(f, order) : run_of(f, 1);

    MM_CHECK(d->count == 0 && kind != FRAME_FREE);
    port_point(ctx, POINT_FREE, f.v, order);
    spin_lock(ctx, &pool->lock, RANK_POOL);
    uncharge(ctx, pool, d->account, kind, level_pages(order));
    frame_set_kind(d, FRAME_FREE, 0);
    d->rmap = 0;
    if (order == 0) {
        unsigned part = part_of(f, 0);
        give_frames(pool, run, part / 64, UINT64_C(1) << (part % 64));
    } else {
        MM_CHECK(run->state == RUN_WHOLE);
        run->state = RUN_NONE;
        if (order == 1) {
            give_block(pool, f);
        } else {
            list_push(&pool->giga_free, run, 2);
        }
    }
    pool_wake(ctx, pool);
    spin_unlock(ctx, &pool->lock, RANK_POOL);
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
            map_give(run, i);
            freed++;
        } else {
            frame_set_kind(d, FRAME_DATA, account);
        }
    }
    frame_set_kind(head, FRAME_FREE, 0);
    if (freed != 0) {
        list_push(&pool->block_partial, run, 1);
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
    giga->free_count = 0;
    __builtin_memset(giga->free, 0, sizeof(giga->free));
    spin_unlock(ctx, &pool->lock, RANK_POOL);
}

void pool_settle_block(struct mm_ctx *ctx, pfn_t block, uint32_t account)
{
    struct pool *pool = pool_of(block);
    spin_lock(ctx, &pool->lock, RANK_POOL);
    MM_CHECK(run_of(block, 1)->state == RUN_NONE);
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
            list_remove(&pool->block_aside, run, 1);
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

pfn_t pool_set_aside(struct mm_ctx *ctx, struct pool *pool, pfn_t owner)
{
    spin_lock(ctx, &pool->lock, RANK_POOL);
    pfn_t block = find_block(pool);
    if (block.v != 0) {
        struct run *run = run_of(block, 1);
        map_fill(run);
        run->state = RUN_ASIDE;
        run->owner = owner.v;
        list_push(&pool->block_aside, run, 1);
        pool->aside += PARTS;
    }
    spin_unlock(ctx, &pool->lock, RANK_POOL);
    return block;
}

/* --- Dead tables ------------------------------------------------------------------------------ */

void pool_defer_table(struct mm_ctx *ctx, struct pool *pool, pfn_t table)
{
    pfn_t aside = pfn(frame_of(table, 0)->rmap);
    spin_lock(ctx, &pool->lock, RANK_POOL);
    if (pool_is_aside(aside, table)) {
        end_aside(pool, run_of(aside, 1));
    }
    frame_of(table, 0)->rmap = pool->reap_tables;
    pool->reap_tables = table.v;
    spin_unlock(ctx, &pool->lock, RANK_POOL);
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
            list_push(&pool->giga_free, run, 2);
            continue;
        }
        for (uint64_t b = giga; b < giga + level_pages(2); b += level_pages(1)) {
            if (b >= pool->start.v && b < pool->end.v) {
                run_of(pfn((uint32_t)b), 1)->pool = pool_frame(pool).v;
                map_give(giga_of(pool, pfn((uint32_t)b)), part_of(pfn((uint32_t)b), 1));
            }
        }
    }
}

/* Takes the first frame for the pool object, which is being filled in. */
static void claim_object(struct pool *pool)
{
    struct run *giga = giga_of(pool, pool->start);
    if (!is_edge(pool, giga)) {
        break_free_giga(pool, giga);
    }
    take_block(pool, giga, part_of(pool->start, 1));
    struct run *run = break_free_block(pool, pool->start);
    take_frame(pool, run, 0);
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
        return mm_fail(ctx, CLEAVE_ALIGN, start.v % block != 0 ? "start" : "end", bad, block, block);
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
            giga->pool = giga->next = giga->prev = 0;
            giga->state = giga->listed = 0;
            giga->free_count = 0;
            __builtin_memset(giga->free, 0, sizeof(giga->free));
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
    uint64_t own = pool->kind[FRAME_OBJECT];
    if (pool->spaces != NULL || used != own || pool->own.charged != own || pool->reserved != 0) {
        return mm_fail(ctx, CLEAVE_BUSY, "pool", used, 0, own);
    }
    pool_release_runs(ctx, pool);
    return CLEAVE_OK;
}
