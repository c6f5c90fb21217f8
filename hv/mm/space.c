/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The life of a space: made, held, destroyed step by step. The list of a pool's spaces and their
 * holder counts are under the pool's lock.
 */
#include "space.h"

#include "notify.h"
#include "pager.h"
#include "pin.h"
#include "stage.h"
#include "table.h"

enum cleave_status range_check(struct mm_ctx *ctx, gpa_t at, uint64_t size, struct gfn_range *range)
{
    const uint64_t width = UINT64_C(1) << GUEST_BITS;
    if (at.v % PAGE_SIZE != 0) {
        return mm_fail(ctx, CLEAVE_ALIGN, "at", at.v, PAGE_SIZE, PAGE_SIZE);
    }
    if (size % PAGE_SIZE != 0) {
        return mm_fail(ctx, CLEAVE_ALIGN, "size", size, PAGE_SIZE, PAGE_SIZE);
    }
    if (size == 0) {
        return mm_fail(ctx, CLEAVE_COUNT, "size", size, PAGE_SIZE, width);
    }
    if (size > UINT64_MAX - at.v) {
        return mm_fail(ctx, CLEAVE_WRAP, "size", size, PAGE_SIZE, UINT64_MAX - at.v);
    }
    if (at.v >= width) {
        return mm_fail(ctx, CLEAVE_RANGE, "at", at.v, 0, width - PAGE_SIZE);
    }
    if (size > width - at.v) {
        return mm_fail(ctx, CLEAVE_RANGE, "size", size, PAGE_SIZE, width - at.v);
    }
    range->start = gpa_to_gfn(at);
    range->end = gpa_to_gfn(gpa(at.v + size));
    return CLEAVE_OK;
}

static enum cleave_status state_check(struct mm_ctx *ctx, const struct space *space)
{
    if (space->state == SPACE_ALIVE) {
        return CLEAVE_OK;
    }
    return mm_fail(ctx, space->state == SPACE_FROZEN ? CLEAVE_FROZEN : CLEAVE_DYING, "space",
                   space->id, 1, 0);
}

enum cleave_status space_begin(struct mm_ctx *ctx, struct space *space)
{
    write_lock(ctx, &space->lock, RANK_SPACE);
    enum cleave_status status = state_check(ctx, space);
    if (status == CLEAVE_OK && space->op != OP_NONE) {
        status = mm_fail(ctx, CLEAVE_BUSY, "space", space->op, OP_NONE, OP_NONE);
    }
    if (status != CLEAVE_OK) {
        write_unlock(ctx, &space->lock, RANK_SPACE);
        return status;
    }
    space_turn(space);
    return CLEAVE_OK;
}

enum cleave_status space_begin_op(struct mm_ctx *ctx, struct space *space, enum space_op op,
                                  struct gfn_range range, uint64_t argument)
{
    write_lock(ctx, &space->lock, RANK_SPACE);
    enum cleave_status status = state_check(ctx, space);
    bool same = space->op == op && space->op_range.start.v == range.start.v &&
                space->op_range.end.v == range.end.v && space->op_argument[0] == argument;
    if (status == CLEAVE_OK && space->op != OP_NONE && !same) {
        status = mm_fail(ctx, CLEAVE_BUSY, "space", space->op, OP_NONE, OP_NONE);
    }
    if (status != CLEAVE_OK) {
        write_unlock(ctx, &space->lock, RANK_SPACE);
        return status;
    }
    space_turn(space);
    return CLEAVE_OK;
}

void space_op_start(struct space *space, enum space_op op, struct gfn_range range,
                    uint64_t argument)
{
    space->op = (uint8_t)op;
    space->op_phase = PHASE_CHECK;
    space->op_range = range;
    space->op_at = range.start;
    space->op_argument[0] = argument;
    space->op_argument[1] = 0;
}

enum cleave_status space_undo_on(struct mm_ctx *ctx, struct space *space)
{
    if (!table_reap(ctx, space->payer.pool)) {
        return CLEAVE_AGAIN;
    }
    enum cleave_status why = (enum cleave_status)space->op_argument[1];
    space->op = OP_NONE;
    return ctx->error.status == why ? why : mm_fail(ctx, why, "space", space->id, 1, 0);
}

enum cleave_status space_undo(struct mm_ctx *ctx, struct space *space, enum cleave_status why)
{
    space->op_phase = PHASE_UNDO;
    space->op_argument[1] = why;
    return space_undo_on(ctx, space);
}

/* Gives back a leaf that was being zeroed. */
static void drop_fresh(struct mm_ctx *ctx, struct space *space)
{
    if (space->fresh.v != 0) {
        frame_put(ctx, space->fresh, space->fresh_order);
        space->fresh = PFN_NONE;
    }
}

enum cleave_status space_give_up(struct mm_ctx *ctx, struct space *space)
{
    write_lock(ctx, &space->lock, RANK_SPACE);
    enum cleave_status status = state_check(ctx, space);
    bool unmaps = space->op == OP_UNMAP && space->op_phase == PHASE_CHECK;
    bool hidden = space->op >= OP_REGION && space->op_phase != PHASE_CONVERT;
    if (status == CLEAVE_OK && space->op != OP_NONE && !hidden && !unmaps) {
        status = mm_fail(ctx, CLEAVE_BUSY, "space", space->op, OP_REGION, OP_DISARM);
    }
    if (status == CLEAVE_OK) {
        drop_fresh(ctx, space);
    }
    if (status == CLEAVE_OK && space->op != OP_NONE) {
        stage_drop(ctx, space);
        region_defer(ctx, space->op_regions);
        space->op_regions = REGION_WORD_NONE;
        space->op = OP_NONE;
        channel_resume(ctx, space);
    }
    write_unlock(ctx, &space->lock, RANK_SPACE);
    return status;
}

void space_end(struct mm_ctx *ctx, struct space *space)
{
    write_unlock(ctx, &space->lock, RANK_SPACE);
}

/* --- Making ----------------------------------------------------------------------------------- */

static void link_space(struct mm_ctx *ctx, struct pool *pool, struct space *space)
{
    spin_lock(ctx, &pool->lock, RANK_POOL);
    space->id = pool->next_id++;
    space->next = pool->spaces;
    space->previous = NULL;
    if (pool->spaces != NULL) {
        pool->spaces->previous = space;
    }
    pool->spaces = space;
    spin_unlock(ctx, &pool->lock, RANK_POOL);
}

static void unlink_space(struct mm_ctx *ctx, struct pool *pool, struct space *space)
{
    spin_lock(ctx, &pool->lock, RANK_POOL);
    if (space->previous != NULL) {
        space->previous->next = space->next;
    } else {
        pool->spaces = space->next;
    }
    if (space->next != NULL) {
        space->next->previous = space->previous;
    }
    spin_unlock(ctx, &pool->lock, RANK_POOL);
}

static pfn_t object_frame(const struct space *space)
{
    return pfn((uint32_t)(((const unsigned char *)space - machine.direct_map) >> PAGE_SHIFT));
}

static void free_node(struct mm_ctx *ctx, pfn_t f)
{
    (void)node_put(ctx, f);
    pool_free(ctx, f, 0);
}

enum cleave_status space_create(struct mm_ctx *ctx, struct pool *pool, uint64_t limit,
                                struct space **out)
{
    struct payer payer = {.pool = pool};
    pfn_t object, root;

    if (pool->dying) {
        return mm_fail(ctx, CLEAVE_DYING, "pool", pool->start.v, 1, 0);
    }
    enum cleave_status status = account_create(ctx, pool, limit, &payer.account);
    if (status != CLEAVE_OK) {
        return status;
    }
    status = pool_alloc(ctx, &payer, 0, FRAME_OBJECT, &object);
    if (status == CLEAVE_OK) {
        status = table_alloc(ctx, &payer, ROOT_LEVEL, &root);
        if (status != CLEAVE_OK) {
            free_node(ctx, object);
        }
    }
    if (status != CLEAVE_OK) {
        account_release(ctx, pool, payer.account);
        return status;
    }
    struct space *space = frame_address(object);
    port_zero_pages(space, 1);
    space->state = SPACE_ALIVE;
    space->collapse_at = TABLE_ENTRIES / 2;
    space->collapse_hint = gfn(UINT64_MAX);
    space->root = root;
    space->holders = 1;
    space->payer = space->op_payer = payer;
    space->generation = 1;
    space->vcpus = 1;
    link_space(ctx, pool, space);
    *out = space;
    return CLEAVE_OK;
}

void space_hold(struct space *space) { __atomic_fetch_add(&space->holders, 1, __ATOMIC_RELAXED); }

/* --- Destroying ------------------------------------------------------------------------------- */

/* Drops the root's entries. No CPU runs the space, and one that ran it flushes before this root's
 * tag is used again. */
static void drop_root(struct mm_ctx *ctx, struct space *space)
{
    pte_t *slots = table_slots(space->root);
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        if (pte_holds_table(slots[i], ROOT_LEVEL)) {
            table_put(ctx, pte_pfn(slots[i]));
        }
        slots[i] = 0;
    }
}

/* Takes its dirty grains off: first those that an operation which was stopped left, then its own.
 */
static bool forget_dirty(struct mm_ctx *ctx, struct space *space)
{
    const struct gfn_range everything = {gfn(0), gfn(GUEST_PAGES)};

    if (space->op != OP_DESTROY) {
        if (!channel_forget_some(ctx, space, space->op_regions)) {
            return false;
        }
        space->op = OP_DESTROY;
        space->forget = everything;
    }
    return channel_forget_some(ctx, space, space->regions);
}

/* Everything that a dying space still holds, step by step. */
static enum cleave_status drop_contents(struct mm_ctx *ctx, struct space *space)
{
    pager_forget(ctx, space);        /* first: it takes its window leaves out of a pager's space */
    if (!forget_dirty(ctx, space)) { /* others wait for that, and a pin may keep it long */
        port_point(ctx, POINT_PREEMPT, space->id, OP_DESTROY);
        return CLEAVE_AGAIN;
    }
    enum cleave_status status = attachments_destroy(ctx, space);
    if (status != CLEAVE_OK) {
        return status;
    }
    drop_fresh(ctx, space);
    stage_drop(ctx, space);
    drop_root(ctx, space);
    if (!region_drop(ctx, &space->regions) || !region_drop(ctx, &space->op_regions) ||
        !table_reap(ctx, space->payer.pool)) {
        port_point(ctx, POINT_PREEMPT, space->id, OP_DESTROY);
        return CLEAVE_AGAIN;
    }
    return CLEAVE_OK;
}

void space_release(struct mm_ctx *ctx, struct space *space)
{
    struct pool *pool = space->payer.pool;
    uint32_t account = space->payer.account;

    if (__atomic_sub_fetch(&space->holders, 1, __ATOMIC_ACQ_REL) == 0) {
        MM_CHECK(space->state == SPACE_DEAD);
        unlink_space(ctx, pool, space);
        free_node(ctx, object_frame(space));
        account_release(ctx, pool, account);
    }
}

static void finish_destroy(struct mm_ctx *ctx, struct space *space)
{
    pool_unreserve(ctx, &space->payer);
    pool_unreserve(ctx, &space->op_payer);
    free_node(ctx, space->root);
    space->root = PFN_NONE;
    space->state = SPACE_DEAD;
    space_release(ctx, space);
}

/* Gives up one hold of an immutable space unless it is the last: true when it is, and the caller
 * has to destroy the space. */
static bool last_holder(struct space *space)
{
    uint32_t holders = __atomic_load_n(&space->holders, __ATOMIC_ACQUIRE);
    while (holders > 1) {
        if (__atomic_compare_exchange_n(&space->holders, &holders, holders - 1, false,
                                        __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            return false;
        }
    }
    return true;
}

void space_discard(struct mm_ctx *ctx, struct space *space)
{
    struct pool *pool = space->payer.pool;
    struct space *base = space->base;
    uint64_t budget = ctx->budget;
    uint32_t older = __atomic_load_n(&pool->reap_tables, __ATOMIC_RELAXED);
    uint32_t head;

    ctx->budget = UINT64_MAX; /* many of them may go in one call that has little left */
    space->state = SPACE_DYING;
    drop_root(ctx, space);
    while ((head = __atomic_load_n(&pool->reap_tables, __ATOMIC_RELAXED)) != older && head != 0) {
        table_reap_some(ctx, pool, 1); /* its own few tables, so that nothing stays charged */
    }
    MM_CHECK(region_drop(ctx, &space->regions));
    ctx->budget = budget;
    finish_destroy(ctx, space);
    if (base != NULL && last_holder(base)) {
        space_discard(ctx, base); /* it has no base of its own */
    }
}

/* Ends a base whose last fork goes; a base has no base of its own. */
static enum cleave_status release_base(struct mm_ctx *ctx, struct space *space)
{
    struct space *base = space->base;
    if (base == NULL) {
        return CLEAVE_OK;
    }
    if (!last_holder(base)) {
        space->base = NULL;
        return CLEAVE_OK;
    }
    enum cleave_status status = space_destroy(ctx, base);
    if (status == CLEAVE_OK) {
        space->base = NULL;
    }
    return status;
}

enum cleave_status space_destroy(struct mm_ctx *ctx, struct space *space)
{
    if (space->state != SPACE_DYING) {
        write_lock(ctx, &space->lock, RANK_SPACE);
        if (space->state == SPACE_FROZEN && !last_holder(space)) {
            write_unlock(ctx, &space->lock, RANK_SPACE);
            return CLEAVE_OK; /* forks still go back to it: it ends with the last of them */
        }
        space->op_walk = gfn(0);
        __atomic_store_n(&space->state, SPACE_DYING, __ATOMIC_SEQ_CST);
        write_unlock(ctx, &space->lock, RANK_SPACE);
    }
    flush_evict(ctx, space);
    while (__atomic_load_n(&space->inside, __ATOMIC_ACQUIRE) != 0) {
        port_relax(ctx); /* faults end by themselves */
    }
    channel_forget_space(ctx, space);
    enum cleave_status status = drop_contents(ctx, space);
    if (status == CLEAVE_OK) {
        status = release_base(ctx, space);
    }
    if (status == CLEAVE_OK) {
        finish_destroy(ctx, space);
    }
    return status;
}
