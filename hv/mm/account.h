/* SPDX-License-Identifier: BSD-2-Clause */
/* The records of who is charged in a pool: for pool.c and account.c. */
#ifndef MM_ACCOUNT_H
#define MM_ACCOUNT_H

#include "pool.h"

/* Makes the directory and account 0, which pays for the pool's own objects and has no limit. */
enum cleave_status account_begin(struct mm_ctx *ctx, struct pool *pool) MUST_CHECK;
/* Frames that a pool which nobody uses has in use: its object, the directory and the records. */
uint64_t account_own_frames(const struct pool *pool);
/* Takes `pages` off an account, under the pool's lock; ends the record when its owner is gone and
 * nothing is charged to it any more. */
void account_uncharge(struct mm_ctx *ctx, struct pool *pool, uint32_t account, uint64_t pages);
/* What `account` may still be charged for, or be promised. Under the pool's lock. */
static inline uint64_t account_room(const struct account *account)
{
    uint64_t taken = account->charged + account->promised;
    return account->limit > taken ? account->limit - taken : 0;
}

#endif
