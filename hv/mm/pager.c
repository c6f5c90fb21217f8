/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pagers: made and ended, and the calls by which a pager's process takes loads, gets their frames
 * mapped in a window of its space, and gives them back filled. A load in state LOAD_BUSY belongs to
 * the call that put it there; everything else is under the pager's lock, which is taken after the
 * lock of a space.
 */
#include "load.h"

#include "walk.h"

/* --- The pager's window ----------------------------------------------------------------------- */

static gfn_t window_page(const struct pager *pager, const struct load *load)
{
    uint64_t slot = (uint64_t)(load - pager->loads);
    return gfn(gpa_to_gfn(pager->window).v + slot * level_pages(1));
}

/* Maps a load's frame in the pager's space. The load is LOAD_BUSY. */
static enum cleave_status window_map(struct mm_ctx *ctx, struct pager *pager, struct load *load)
{
    struct space *space = pager->space;
    struct flush_batch batch;
    struct walk walk;

    if (space == NULL) {
        return mm_fail(ctx, CLEAVE_DYING, "pager", pager->number, 1, 0);
    }
    enum cleave_status status = CLEAVE_OK;
    flush_begin(&batch, space);
    read_lock(ctx, &space->lock, RANK_SPACE);
    if (space->state != SPACE_ALIVE) {
        status = mm_fail(ctx, CLEAVE_DYING, "space", space->id, 1, 0);
    } else {
        status = walk_exclusive(ctx, space, &space->payer, window_page(pager, load), load->order,
                                WALK_MAKE | WALK_WRITE, &batch, &walk);
    }
    if (status == CLEAVE_OK) {
        pte_t leaf = pte_make_leaf(load->frame, load->order, RIGHT_READ | RIGHT_WRITE, PTE_FOREIGN);
        pte_t old = walk.entry;
        while (!pte_replace(ctx, walk.slot, old, leaf)) {
            old = pte_read(walk.slot);
        }
        if (pte_is_table(old, walk.level)) { /* an empty one, of an earlier load of order 0 */
            flush_drop_table(&batch, pte_pfn(old));
        }
        load->mapped = true;
        walk_end(ctx, &walk);
    }
    flush_finish(ctx, &batch);
    read_unlock(ctx, &space->lock, RANK_SPACE);
    return status;
}

/* Takes a load's leaf out of the pager's space. Flushed: the pager cannot reach the frame
 * afterwards. The load is busy, so that a space that is being destroyed keeps its tables meanwhile.
 */
static void window_unmap(struct mm_ctx *ctx, struct pager *pager, struct load *load)
{
    struct space *space = pager->space;
    struct flush_batch batch;
    struct walk walk;

    if (!load->mapped) {
        return;
    }
    flush_begin(&batch, space);
    read_lock(ctx, &space->lock, RANK_SPACE);
    walk_find(ctx, space, window_page(pager, load), load->order, &walk);
    /* Its table is this space's own, but perhaps for what a fork that failed left to be reaped. */
    MM_CHECK(walk.level == load->order && (walk.entry & PTE_FOREIGN) &&
             pte_pfn(walk.entry).v == load->frame.v);
    pte_t old = walk.entry;
    while (!pte_replace(ctx, walk.slot, old, 0)) {
        old = pte_read(walk.slot);
    }
    flush_need(&batch); /* the reference is the load's */
    walk_end(ctx, &walk);
    flush_finish(ctx, &batch);
    read_unlock(ctx, &space->lock, RANK_SPACE);
    load->mapped = false;
}

/* --- Calls of the pager ----------------------------------------------------------------------- */

/* The load that has waited longest in `state`, or that of `id` unless it is 0; it is busy then. */
static struct load *load_take(struct mm_ctx *ctx, struct pager *pager, enum load_state state,
                              uint64_t id)
{
    struct load *found = NULL;
    spin_lock(ctx, pager_lock(pager), RANK_CHANNEL);
    for (unsigned i = 0; i < PAGER_LOADS; i++) {
        struct load *load = &pager->loads[i];
        if (load->state == state && (id == 0 || load->id == id) &&
            (found == NULL || load->id < found->id)) {
            found = load;
        }
    }
    if (found != NULL) {
        found->state = LOAD_BUSY;
    }
    spin_unlock(ctx, pager_lock(pager), RANK_CHANNEL);
    return found;
}

static void load_set_state(struct mm_ctx *ctx, struct pager *pager, struct load *load,
                           enum load_state state)
{
    spin_lock(ctx, pager_lock(pager), RANK_CHANNEL);
    load->state = (uint8_t)state;
    spin_unlock(ctx, pager_lock(pager), RANK_CHANNEL);
}

/* The load is free again; wakes who waits for it or for room. The pager's lock is held. */
static void load_clear(struct pager *pager, struct load *load, enum wait_outcome outcome)
{
    struct vcpu_wait *waiters = load->waiters;
    *load = (struct load){0};
    load_wake(&waiters, outcome);
    load_wake(&pager->full, WAIT_RETRY);
}

/* Ends a busy load whose frame has been published or dropped. */
static void load_end(struct mm_ctx *ctx, struct pager *pager, struct load *load,
                     enum wait_outcome outcome)
{
    spin_lock(ctx, pager_lock(pager), RANK_CHANNEL);
    load_clear(pager, load, outcome);
    spin_unlock(ctx, pager_lock(pager), RANK_CHANNEL);
}

enum cleave_status pager_next(struct mm_ctx *ctx, struct pager *pager, struct load_request *out,
                              bool *found)
{
    struct load *load = load_take(ctx, pager, LOAD_QUEUED, 0);
    *found = false;
    if (load == NULL) {
        return CLEAVE_OK;
    }
    enum cleave_status status = window_map(ctx, pager, load);
    if (status == CLEAVE_OK) {
        uint64_t payload = pte_paged_payload(load->paged);
        *out = (struct load_request){.id = load->id,
                                     .store = (uint32_t)(payload >> 32),
                                     .offset = (uint32_t)payload,
                                     .order = load->order,
                                     .window = gfn_to_gpa(window_page(pager, load))};
        *found = true;
    }
    load_set_state(ctx, pager, load, status == CLEAVE_OK ? LOAD_TAKEN : LOAD_QUEUED);
    return status;
}

enum cleave_status pager_done(struct mm_ctx *ctx, struct pager *pager, uint64_t id, bool ok)
{
    struct load *load = id != 0 ? load_take(ctx, pager, LOAD_TAKEN, id) : NULL;
    if (load == NULL) {
        return mm_fail(ctx, CLEAVE_INVALID, "id", id, 1, 0);
    }
    unsigned rights = RIGHT_READ | RIGHT_EXEC | (load->write ? RIGHT_WRITE : 0u);
    window_unmap(ctx, pager, load);
    if (!ok || load->target == NULL ||
        !load_publish(ctx, load->target, load->at, load->order, load->paged, pager->number,
                      load->frame, rights)) {
        frame_put(ctx, load->frame, load->order);
    }
    load_end(ctx, pager, load, ok ? WAIT_RETRY : WAIT_FAILED);
    return CLEAVE_OK;
}

enum cleave_status pager_restart(struct mm_ctx *ctx, struct pager *pager)
{
    for (unsigned i = 0; i < PAGER_LOADS; i++) {
        struct load *load = load_take(ctx, pager, LOAD_TAKEN, 0);
        if (load == NULL) {
            break;
        }
        window_unmap(ctx, pager, load);
        load_set_state(ctx, pager, load, LOAD_QUEUED);
    }
    return CLEAVE_OK;
}

/* --- Making and ending a pager ---------------------------------------------------------------- */

/* Gives the pager's window in its `space`, which has no leaf, a region, or takes it back. */
static enum cleave_status window_set_region(struct mm_ctx *ctx, const struct pager *pager,
                                            struct space *space, bool present)
{
    struct region region = {.policy = REGION_NONE};
    struct gfn_range range = {gpa_to_gfn(pager->window), gpa_to_gfn(pager->window)};
    struct gfn_range other;

    range.end.v += PAGER_LOADS * level_pages(1);
    if (present) {
        region = (struct region){
            .policy = REGION_FOREIGN, .rights = RIGHT_READ | RIGHT_WRITE, .order = 1};
    }
    enum cleave_status status = space_begin(ctx, space);
    if (status != CLEAVE_OK) {
        return status;
    }
    if (present &&
        region_find(space->regions, range.start, range.end, REGION_HAS_MEMORY, &other, &region)) {
        space_end(ctx, space);
        return mm_fail(ctx, CLEAVE_EXISTS, "window", other.start.v << PAGE_SHIFT, 1, 0);
    }
    status = region_set(ctx, &space->payer, &space->regions, range, &region);
    space_end(ctx, space);
    return status;
}

enum cleave_status pager_create(struct mm_ctx *ctx, struct pool *pool, struct space *space,
                                gpa_t window, struct pager **out)
{
    struct gfn_range range;
    pfn_t frame;
    if (pool->dying) {
        return mm_fail(ctx, CLEAVE_DYING, "pool", pool->start.v, 1, 0);
    }
    if (window.v % level_size(1) != 0) {
        return mm_fail(ctx, CLEAVE_ALIGN, "window", window.v, level_size(1), level_size(1));
    }
    enum cleave_status status = range_check(ctx, window, PAGER_LOADS * level_size(1), &range);
    if (status != CLEAVE_OK) {
        return status;
    }
    uint16_t number = pager_take_number(ctx);
    if (number == 0) {
        return mm_fail(ctx, CLEAVE_COUNT, "pagers", PAGERS_MAX + 1, 1, PAGERS_MAX);
    }
    status = pool_alloc(ctx, &pool->payer, 0, FRAME_OBJECT, &frame);
    if (status != CLEAVE_OK) {
        pager_set_number(ctx, number, NULL);
        return status;
    }
    struct pager *pager = frame_address(frame);
    *pager = (struct pager){
        .pool = pool, .space = space, .window = window, .next_id = 1, .number = number};
    pager_set_number(ctx, number, pager); /* first: a space that ends must find it */
    status = window_set_region(ctx, pager, space, true);
    if (status != CLEAVE_OK) {
        pager_set_number(ctx, number, NULL);
        (void)node_put(ctx, frame);
        pool_free(ctx, frame, 0);
        return status;
    }
    *out = pager;
    return CLEAVE_OK;
}

/* No load may begin any more. False when one is being taken or given back. */
static bool pager_close(struct mm_ctx *ctx, struct pager *pager)
{
    bool idle = true;
    spin_lock(ctx, pager_lock(pager), RANK_CHANNEL);
    for (unsigned i = 0; i < PAGER_LOADS; i++) {
        idle = idle && pager->loads[i].state != LOAD_BUSY;
    }
    pager->closing |= idle;
    spin_unlock(ctx, pager_lock(pager), RANK_CHANNEL);
    return idle;
}

/* Takes the window's region back, where the pager's space is still there. */
static enum cleave_status window_end(struct mm_ctx *ctx, struct pager *pager)
{
    spin_lock(ctx, pager_lock(pager), RANK_CHANNEL);
    struct space *space = pager->space;
    if (space != NULL) {
        space_hold(space);
    }
    spin_unlock(ctx, pager_lock(pager), RANK_CHANNEL);
    if (space == NULL) {
        return CLEAVE_OK;
    }
    enum cleave_status status = window_set_region(ctx, pager, space, false);
    space_release(ctx, space);
    return status == CLEAVE_DYING ? CLEAVE_OK : status;
}

enum cleave_status pager_destroy(struct mm_ctx *ctx, struct pager *pager)
{
    pfn_t frame =
        pfn((uint32_t)((uint64_t)((unsigned char *)pager - machine.direct_map) >> PAGE_SHIFT));
    if (!pager_close(ctx, pager)) {
        return mm_fail(ctx, CLEAVE_BUSY, "pager", pager->number, 1, 0);
    }
    enum cleave_status status = pager_restart(ctx, pager);
    while (!pager_close(ctx, pager)) {
        port_relax(ctx); /* the end of its space has a load in hand */
    }
    if (status == CLEAVE_OK) {
        status = window_end(ctx, pager);
    }
    if (status != CLEAVE_OK) {
        pager->closing = false;
        return status;
    }
    for (struct load *load; (load = load_take(ctx, pager, LOAD_QUEUED, 0)) != NULL;) {
        frame_put(ctx, load->frame, load->order);
        load_end(ctx, pager, load, WAIT_FAILED);
    }
    pager_set_number(ctx, pager->number, NULL);
    (void)node_put(ctx, frame);
    pool_free(ctx, frame, 0);
    return CLEAVE_OK;
}

/* --- Spaces that end -------------------------------------------------------------------------- */

struct forget {
    const struct space *space;
    struct mm_ctx *ctx;
    bool busy; /* a load that concerns the space is in a call's hands */
};

/* A load for a space that ends: dropped at once, or when the pager gives it back. */
static void forget_load(struct forget *f, struct pager *pager, struct load *load)
{
    if (load->state == LOAD_QUEUED) {
        frame_put(f->ctx, load->frame, load->order);
        load_clear(pager, load, WAIT_RETRY);
    } else {
        load->target = NULL;
    }
}

static void forget_in(void *arg, struct pager *pager)
{
    struct forget *f = arg;
    bool own = pager->space == f->space;

    load_wake_space(&pager->full, f->space);
    for (unsigned i = 0; i < PAGER_LOADS; i++) {
        load_wake_space(&pager->loads[i].waiters, f->space);
    }
    for (unsigned i = 0; i < PAGER_LOADS; i++) {
        struct load *load = &pager->loads[i];
        if (load->state == LOAD_FREE || (!own && load->target != f->space)) {
            continue;
        }
        if (load->state == LOAD_BUSY || (own && load->mapped)) {
            f->busy = true;
            return;
        }
        if (load->target == f->space) {
            forget_load(f, pager, load);
        }
    }
    pager->space = own ? NULL : pager->space;
}

/* A load in the window of a pager whose space ends. */
struct window_load {
    const struct space *space;
    struct pager *pager;
    struct load *load;
};

/* Makes one busy, which keeps its pager. */
static void find_window_load(void *arg, struct pager *pager)
{
    struct window_load *w = arg;
    for (unsigned i = 0; i < PAGER_LOADS && w->load == NULL && pager->space == w->space; i++) {
        if (pager->loads[i].state == LOAD_TAKEN) {
            pager->loads[i].state = LOAD_BUSY;
            w->pager = pager;
            w->load = &pager->loads[i];
        }
    }
}

/* Takes one load out of a window in `space`, as pager_restart() does; false when there is none. */
static bool window_close(struct mm_ctx *ctx, const struct space *space)
{
    struct window_load w = {.space = space};
    pager_visit(ctx, find_window_load, &w);
    if (w.load != NULL) {
        window_unmap(ctx, w.pager, w.load);
        load_set_state(ctx, w.pager, w.load, LOAD_QUEUED);
    }
    return w.load != NULL;
}

void pager_forget(struct mm_ctx *ctx, struct space *space)
{
    struct forget f = {.space = space, .ctx = ctx};
    do {
        while (window_close(ctx, space)) {
        }
        f.busy = false;
        pager_visit(ctx, forget_in, &f);
        if (f.busy) {
            port_relax(ctx);
        }
    } while (f.busy);
}

struct use {
    const struct space *space;
    bool found;
};

static void find_use(void *arg, struct pager *pager)
{
    struct use *use = arg;
    use->found |= pager->space == use->space;
}

bool pager_uses(struct mm_ctx *ctx, const struct space *space)
{
    struct use use = {.space = space};
    pager_visit(ctx, find_use, &use);
    return use.found;
}

/* --- For audits ------------------------------------------------------------------------------- */

void pager_visit_loads(struct pool *pool, void (*visit)(void *arg, pfn_t frame, unsigned order),
                       void *arg)
{
    for (unsigned i = 0; i < PAGERS_MAX * PAGER_LOADS; i++) {
        struct pager *pager = pager_peek(i / PAGER_LOADS);
        const struct load *load = pager != NULL ? &pager->loads[i % PAGER_LOADS] : NULL;
        if (load == NULL || load->state == LOAD_FREE || pool_of(load->frame) != pool) {
            continue;
        }
        visit(arg, load->frame, load->order);
    }
}
