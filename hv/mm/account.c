/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Accounts: who is charged for how many frames of a pool, and reservations. Records lie in frames
 * that a directory frame of the pool names. All under the pool's lock.
 */
#include "account.h"

#define PER_PAGE (PAGE_SIZE / sizeof(struct account))
/* Records of successive numbers lie this many apart, so that spaces made one after the other, whose
 * faults write them, share no cache line. */
#define STRIDE 11
_Static_assert(PER_PAGE % STRIDE != 0, "a prime that is no divisor: each record has a place");
#define DIRECTORY_ENTRIES (PAGE_SIZE / sizeof(uint32_t))
#define ACCOUNT_MAX UINT32_C(65535) /* an account's number fits a descriptor's 16 bits */

static uint32_t *directory(struct pool *pool) { return frame_address(pool->account_directory); }

struct account *account_of(struct pool *pool, uint32_t account)
{
    if (account == 0) {
        return &pool->own;
    }
    if (account > pool->accounts) {
        return NULL;
    }
    struct account *page = frame_address(pfn(directory(pool)[(account - 1) / PER_PAGE]));
    return &page[(account - 1) % PER_PAGE * STRIDE % PER_PAGE];
}

enum cleave_status account_begin(struct mm_ctx *ctx, struct pool *pool)
{
    pfn_t page;
    enum cleave_status status = pool_alloc(ctx, &pool->payer, 0, FRAME_OBJECT, &page);
    if (status != CLEAVE_OK) {
        return status;
    }
    port_zero_pages(frame_address(page), 1);
    pool->account_directory = page;
    return CLEAVE_OK;
}

uint64_t account_own_frames(const struct pool *pool)
{
    return 2 + (pool->accounts + PER_PAGE - 1) / PER_PAGE;
}

/* Have all records been made that there can be? */
static bool all_made(const struct pool *pool)
{
    return pool->accounts >= ACCOUNT_MAX || pool->accounts >= DIRECTORY_ENTRIES * PER_PAGE;
}

/* A free record's number, or 0: from the free list, else the next one of the last page. `page` is
 * taken (and cleared) when a page had to be begun. */
static uint32_t take_record(struct pool *pool, pfn_t *page)
{
    uint32_t account = pool->account_free;
    if (account != 0) {
        pool->account_free = account_of(pool, account)->next_free;
        pool->account_used++;
        return account;
    }
    if (all_made(pool)) {
        return 0; /* another CPU was faster: the caller looks again */
    }
    if (pool->accounts % PER_PAGE == 0) {
        if (page->v == 0) {
            return 0;
        }
        directory(pool)[pool->accounts / PER_PAGE] = page->v;
        *page = PFN_NONE;
    }
    pool->accounts++;
    pool->account_used++;
    return pool->accounts;
}

static bool needs_page(struct mm_ctx *ctx, struct pool *pool)
{
    spin_lock(ctx, &pool->lock, RANK_POOL);
    bool need = pool->account_free == 0 && pool->accounts % PER_PAGE == 0;
    spin_unlock(ctx, &pool->lock, RANK_POOL);
    return need;
}

enum cleave_status account_create(struct mm_ctx *ctx, struct pool *pool, uint64_t limit,
                                  uint32_t *out)
{
    for (;;) {
        pfn_t page = PFN_NONE;
        if (pool->account_free == 0 && all_made(pool)) {
            return mm_fail(ctx, CLEAVE_COUNT, "accounts", pool->accounts + 1, 1, ACCOUNT_MAX);
        }
        if (needs_page(ctx, pool)) {
            enum cleave_status status = pool_alloc(ctx, &pool->payer, 0, FRAME_OBJECT, &page);
            if (status != CLEAVE_OK) {
                return status;
            }
            port_zero_pages(frame_address(page), 1);
        }
        spin_lock(ctx, &pool->lock, RANK_POOL);
        *out = take_record(pool, &page);
        if (*out != 0) {
            *account_of(pool, *out) = (struct account){.limit = limit, .live = 1};
        }
        spin_unlock(ctx, &pool->lock, RANK_POOL);
        if (page.v != 0 && node_put(ctx, page)) { /* another CPU made the page first */
            pool_free(ctx, page, 0);
        }
        if (*out != 0) {
            return CLEAVE_OK;
        }
    }
}

static void end_if_unused(struct pool *pool, uint32_t account)
{
    struct account *record = account_of(pool, account);
    if (account != 0 && record->live == 0 && record->charged == 0 && record->promised == 0) {
        record->next_free = pool->account_free;
        pool->account_free = account;
        pool->account_used--;
    }
}

void account_release(struct mm_ctx *ctx, struct pool *pool, uint32_t account)
{
    spin_lock(ctx, &pool->lock, RANK_POOL);
    account_of(pool, account)->live = 0;
    end_if_unused(pool, account);
    spin_unlock(ctx, &pool->lock, RANK_POOL);
}

void account_uncharge(struct mm_ctx *ctx, struct pool *pool, uint32_t account, uint64_t pages)
{
    (void)ctx;
    struct account *record = account_of(pool, account);
    MM_CHECK(record != NULL && record->charged >= pages);
    record->charged -= pages;
    end_if_unused(pool, account);
}

enum cleave_status account_set_limit(struct mm_ctx *ctx, struct pool *pool, uint32_t account,
                                     uint64_t limit)
{
    spin_lock(ctx, &pool->lock, RANK_POOL);
    struct account *record = account_of(pool, account);
    enum cleave_status status = CLEAVE_OK;
    if (record == NULL || (account != 0 && !record->live)) {
        status = mm_fail(ctx, CLEAVE_INVALID, "account", account, 0, pool->accounts);
    } else {
        record->limit = limit;
    }
    spin_unlock(ctx, &pool->lock, RANK_POOL);
    return status;
}

/* --- Reservations ----------------------------------------------------------------------------- */

enum cleave_status pool_reserve(struct mm_ctx *ctx, struct payer *payer, uint64_t frames)
{
    struct pool *pool = payer->pool;
    if (frames != 0 && port_refuse_allocation()) {
        return mm_fail(ctx, CLEAVE_RESERVE, "frames", frames, 0, 0);
    }
    spin_lock(ctx, &pool->lock, RANK_POOL);
    enum cleave_status status = CLEAVE_OK;
    struct account *record = account_of(pool, payer->account);
    uint64_t room = account_room(record);
    if (frames > room) {
        status = mm_fail(ctx, CLEAVE_QUOTA, "frames", frames, 0, room);
    } else if (frames > pool->free - pool->reserved) {
        status = mm_fail(ctx, CLEAVE_RESERVE, "frames", frames, 0, pool->free - pool->reserved);
    } else {
        pool->reserved += frames;
        payer->reserved += frames;
        record->promised += (uint32_t)frames;
        payer->promised = true;
    }
    spin_unlock(ctx, &pool->lock, RANK_POOL);
    return status;
}

void pool_unreserve(struct mm_ctx *ctx, struct payer *payer)
{
    struct pool *pool = payer->pool;
    spin_lock(ctx, &pool->lock, RANK_POOL);
    if (payer->promised && payer->reserved != 0) {
        account_of(pool, payer->account)->promised -= (uint32_t)payer->reserved;
        end_if_unused(pool, payer->account);
    }
    pool->reserved -= payer->reserved;
    payer->reserved = 0;
    payer->promised = false;
    pool_wake(ctx, pool);
    spin_unlock(ctx, &pool->lock, RANK_POOL);
}

/* --- Waiting for memory: first come, first served --------------------------------------------- */

void pool_wait(struct mm_ctx *ctx, struct pool *pool, struct vcpu_wait *wait, uint64_t need)
{
    spin_lock(ctx, &pool->lock, RANK_POOL);
    wait->kind = WAIT_MEMORY;
    wait->outcome = WAIT_RETRY;
    wait->need = need;
    wait->next = NULL;
    if (pool->wait_last != NULL) {
        pool->wait_last->next = wait;
    } else {
        pool->wait_first = wait;
    }
    pool->wait_last = wait;
    pool_wake(ctx, pool); /* frames may have come back since the allocation failed */
    spin_unlock(ctx, &pool->lock, RANK_POOL);
}

void pool_wake(struct mm_ctx *ctx, struct pool *pool)
{
    (void)ctx;
    while (pool->wait_first != NULL && pool->free - pool->reserved >= pool->wait_first->need) {
        struct vcpu_wait *wait = pool->wait_first;
        pool->wait_first = wait->next;
        if (pool->wait_first == NULL) {
            pool->wait_last = NULL;
        }
        pool->reserved += wait->need;
        wait->grant = (struct payer){.pool = pool, .reserved = wait->need};
        wait->kind = WAIT_NONE;
        wait->next = NULL;
        port_wake(wait);
    }
}

void pool_cancel_wait(struct mm_ctx *ctx, struct pool *pool, struct vcpu_wait *wait)
{
    spin_lock(ctx, &pool->lock, RANK_POOL);
    struct vcpu_wait *previous = NULL;
    for (struct vcpu_wait *w = pool->wait_first; w != NULL; previous = w, w = w->next) {
        if (w != wait) {
            continue;
        }
        if (previous != NULL) {
            previous->next = w->next;
        } else {
            pool->wait_first = w->next;
        }
        if (pool->wait_last == w) {
            pool->wait_last = previous;
        }
        wait->kind = WAIT_NONE;
        break;
    }
    if (wait->grant.reserved != 0 && wait->grant.pool == pool) {
        pool->reserved -= wait->grant.reserved;
        wait->grant.reserved = 0;
        pool_wake(ctx, pool);
    }
    spin_unlock(ctx, &pool->lock, RANK_POOL);
}
