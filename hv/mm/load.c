/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loads: which paged entries a pager has been asked to fill, who waits for them, and how a filled
 * frame takes an entry's place. Everything about a load is under its pager's lock; the lock of the
 * space whose entry it fills is taken before.
 */
#include "load.h"

#include "walk.h"

#define PAGER_NUMBERS 65536u /* a region has 16 bits for its pager; numbers are not used again */

static struct {
    struct spinlock lock;
    uint32_t number; /* of the present pager, or the last one */
    bool taken;
    struct pager *pager;
} slots[PAGERS_MAX];

/* --- Pagers by number ------------------------------------------------------------------------- */

struct spinlock *pager_lock(const struct pager *pager)
{
    return &slots[pager->number % PAGERS_MAX].lock;
}

/* The pager of that number with its lock taken; null for none, and no lock is held. */
struct pager *pager_find(struct mm_ctx *ctx, unsigned number)
{
    unsigned i = number % PAGERS_MAX;
    spin_lock(ctx, &slots[i].lock, RANK_CHANNEL);
    if (number != 0 && slots[i].number == number && slots[i].pager != NULL) {
        return slots[i].pager;
    }
    spin_unlock(ctx, &slots[i].lock, RANK_CHANNEL);
    return NULL;
}

/* A number that no pager had before; 0 when there is none left. Its slot is taken. */
uint16_t pager_take_number(struct mm_ctx *ctx)
{
    uint32_t number = 0;
    for (uint32_t i = 0; i < PAGERS_MAX && number == 0; i++) {
        spin_lock(ctx, &slots[i].lock, RANK_CHANNEL);
        uint32_t next = slots[i].number != 0 ? slots[i].number + PAGERS_MAX : i + PAGERS_MAX;
        if (!slots[i].taken && next < PAGER_NUMBERS) {
            slots[i].taken = true;
            slots[i].number = number = next;
        }
        spin_unlock(ctx, &slots[i].lock, RANK_CHANNEL);
    }
    return (uint16_t)number;
}

void pager_set_number(struct mm_ctx *ctx, uint16_t number, struct pager *pager)
{
    unsigned i = number % PAGERS_MAX;
    spin_lock(ctx, &slots[i].lock, RANK_CHANNEL);
    slots[i].pager = pager;
    slots[i].taken = pager != NULL;
    spin_unlock(ctx, &slots[i].lock, RANK_CHANNEL);
}

struct pager *pager_peek(unsigned place) { return slots[place].pager; }

void pager_visit(struct mm_ctx *ctx, void (*visit)(void *arg, struct pager *pager), void *arg)
{
    for (unsigned i = 0; i < PAGERS_MAX; i++) {
        spin_lock(ctx, &slots[i].lock, RANK_CHANNEL);
        if (slots[i].pager != NULL) {
            visit(arg, slots[i].pager);
        }
        spin_unlock(ctx, &slots[i].lock, RANK_CHANNEL);
    }
}

uint16_t pager_number(const struct pager *pager) { return pager->number; }
struct pool *pager_pool(const struct pager *pager) { return pager->pool; }

/* --- Who waits -------------------------------------------------------------------------------- */

static void load_wait(struct vcpu_wait **list, struct vcpu_wait *wait, struct space *space,
                      gfn_t at)
{
    wait->kind = WAIT_LOAD;
    wait->outcome = WAIT_RETRY;
    wait->space = space;
    wait->at = at;
    wait->next = NULL;
    while (*list != NULL) {
        list = &(*list)->next;
    }
    *list = wait;
}

void load_wake(struct vcpu_wait **list, enum wait_outcome outcome)
{
    struct vcpu_wait *wait = *list;
    *list = NULL;
    while (wait != NULL) {
        struct vcpu_wait *next = wait->next;
        wait->next = NULL;
        wait->kind = WAIT_NONE;
        wait->outcome = outcome;
        port_wake(wait);
        wait = next;
    }
}

void load_wake_space(struct vcpu_wait **list, const struct space *space)
{
    while (*list != NULL) {
        struct vcpu_wait *wait = *list;
        if (wait->space != space) {
            list = &wait->next;
            continue;
        }
        *list = wait->next;
        wait->next = NULL;
        load_wake(&wait, WAIT_RETRY);
    }
}

static bool load_unwait(struct vcpu_wait **list, struct vcpu_wait *wait)
{
    for (; *list != NULL; list = &(*list)->next) {
        if (*list == wait) {
            *list = wait->next;
            wait->next = NULL;
            wait->kind = WAIT_NONE;
            return true;
        }
    }
    return false;
}

static void cancel_in(void *arg, struct pager *pager)
{
    struct vcpu_wait *wait = arg;
    bool found = load_unwait(&pager->full, wait);
    for (unsigned i = 0; i < PAGER_LOADS && !found; i++) {
        found = load_unwait(&pager->loads[i].waiters, wait);
    }
}

void pager_cancel_wait(struct mm_ctx *ctx, struct vcpu_wait *wait)
{
    pager_visit(ctx, cancel_in, wait);
}

/* --- Loads ------------------------------------------------------------------------------------ */

/* What is to be loaded for whom. */
struct load_key {
    struct space *space;  /* that asks and pays */
    struct space *target; /* whose entry is filled: `space`, or its base */
    struct payer *payer;
    struct vcpu_wait *wait; /* may be null */
    gfn_t page;             /* that was accessed */
    gfn_t at;               /* first page under the entry */
    pte_t paged;
    unsigned level;
    unsigned number; /* of the pager */
    bool write;
};

/* A load that `key` can wait on: one for this very entry, or a reader's load of the same pages,
 * which may fill an entry that both share. */
static struct load *load_find(struct pager *pager, const struct load_key *key)
{
    for (unsigned i = 0; i < PAGER_LOADS; i++) {
        struct load *load = &pager->loads[i];
        if (load->state == LOAD_FREE) {
            continue;
        }
        if (load->target == key->space && load->at.v == key->at.v) {
            return load;
        }
        if (!load->write && load->paged == key->paged && load->order == key->level) {
            return load;
        }
    }
    return NULL;
}

static struct load *load_free(struct pager *pager)
{
    for (unsigned i = 0; i < PAGER_LOADS; i++) {
        if (pager->loads[i].state == LOAD_FREE) {
            return &pager->loads[i];
        }
    }
    return NULL;
}

/* Is the target's entry still what is to be loaded? Its lock is held. */
static bool still_paged(struct mm_ctx *ctx, const struct load_key *key)
{
    struct walk walk;
    uint8_t state = key->target->state;
    if (state != SPACE_ALIVE && state != SPACE_FROZEN) {
        return false;
    }
    walk_find(ctx, key->target, key->at, key->level, &walk);
    bool same = walk.level == key->level && pte_unpark(walk.entry) == key->paged;
    walk_end(ctx, &walk);
    return same;
}

/* One round under the pager's lock. CLEAVE_WAIT: waits on a load. CLEAVE_BUSY: none is free, and
 * waits for one. CLEAVE_OK: the entry changed, look again. CLEAVE_AGAIN (only without a frame): a
 * load can begin. With a frame it begins, and the frame is taken. */
static enum cleave_status load_join(struct mm_ctx *ctx, const struct load_key *key, pfn_t *frame)
{
    struct pager *pager = pager_find(ctx, key->number);
    if (pager != NULL && pager->closing) {
        spin_unlock(ctx, pager_lock(pager), RANK_CHANNEL);
        pager = NULL;
    }
    if (pager == NULL) {
        return mm_fail(ctx, CLEAVE_IO, "pager", key->number, 1, 0);
    }
    struct load *load = load_find(pager, key);
    enum cleave_status status = CLEAVE_WAIT;
    struct vcpu_wait **list = load != NULL ? &load->waiters : &pager->full;

    if (load == NULL && !still_paged(ctx, key)) {
        status = CLEAVE_OK;
    } else if (load == NULL && (load = load_free(pager)) == NULL) {
        status = mm_fail(ctx, CLEAVE_BUSY, "loads", PAGER_LOADS + 1, 0, PAGER_LOADS);
    } else if (load->state == LOAD_FREE && frame == NULL) {
        status = CLEAVE_AGAIN;
    } else if (load->state == LOAD_FREE) {
        *load = (struct load){.id = pager->next_id++,
                              .target = key->target,
                              .at = key->at,
                              .paged = key->paged,
                              .frame = *frame,
                              .state = LOAD_QUEUED,
                              .order = (uint8_t)key->level,
                              .write = key->write};
        *frame = PFN_NONE;
        key->space->stats.loads += level_pages(key->level);
        list = &load->waiters;
    }
    if ((status == CLEAVE_WAIT || status == CLEAVE_BUSY) && key->wait != NULL) {
        load_wait(list, key->wait, key->space, key->page);
    }
    spin_unlock(ctx, pager_lock(pager), RANK_CHANNEL);
    return status;
}

static enum cleave_status load_join_locked(struct mm_ctx *ctx, const struct load_key *key,
                                           pfn_t *frame)
{
    read_lock(ctx, &key->target->lock, RANK_SPACE);
    enum cleave_status status = load_join(ctx, key, frame);
    read_unlock(ctx, &key->target->lock, RANK_SPACE);
    return status;
}

/* Begins a load of `key`, or waits on the one that is under way. CLEAVE_OK: look again. */
static enum cleave_status load_start(struct mm_ctx *ctx, const struct load_key *key)
{
    pfn_t frame;
    enum cleave_status status = load_join_locked(ctx, key, NULL);
    if (status != CLEAVE_AGAIN) {
        return status;
    }
    struct payer *back = key->level == 0 ? payer_reserves(key->payer) : NULL;
    status = pool_alloc(ctx, key->payer, key->level, FRAME_DATA, &frame);
    if (pool_lacks(status) && key->level > 0) {
        return paged_split(ctx, key->space, key->payer, key->at, key->paged);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    port_zero_pages(frame_address(frame), level_pages(key->level));
    port_point(ctx, POINT_COPIED, key->at.v, key->level);
    status = load_join_locked(ctx, key, &frame);
    if (frame.v != 0 && back != NULL) {
        pool_return(ctx, back, frame);
    } else if (frame.v != 0) {
        frame_put(ctx, frame, key->level);
    }
    return status;
}

/* --- Filling through the base ----------------------------------------------------------------- */

/* What a fork's base has where the fork's entry is `key->paged`. */
enum base_entry { BASE_OTHER, BASE_PAGED, BASE_LOADED };

/* Looks at the base's entry. BASE_LOADED: `*frame` is what it maps, with a reference taken. */
static enum base_entry base_look(struct mm_ctx *ctx, struct space *base, const struct load_key *key,
                                 pfn_t *frame)
{
    enum base_entry result = BASE_OTHER;
    struct walk walk;

    read_lock(ctx, &base->lock, RANK_SPACE);
    if (base->state == SPACE_FROZEN) {
        struct region region = region_get(base->regions, key->at);
        walk_find(ctx, base, key->at, key->level, &walk);
        if (walk.level != key->level || region.policy != REGION_PAGED ||
            region.pager != key->number) {
            result = BASE_OTHER;
        } else if (pte_unpark(walk.entry) == key->paged) {
            result = BASE_PAGED;
        } else if (pte_holds_leaf(walk.entry, walk.level) && !pte_writable(walk.entry) &&
                   frame_get(ctx, pte_pfn(walk.entry), walk.level) == CLEAVE_OK) {
            *frame = pte_pfn(walk.entry);
            result = BASE_LOADED;
        }
        walk_end(ctx, &walk);
    }
    read_unlock(ctx, &base->lock, RANK_SPACE);
    return result;
}

/* A leaf for `frame` in the place of the paged entry on which `walk` stands, with what the region
 * of its space gives; parked, in a table that others hold too, if the entry is: some of them may
 * not read it. False when the entry changed. */
static bool publish_leaf(struct mm_ctx *ctx, const struct walk *walk, pte_t paged, pfn_t frame,
                         unsigned rights)
{
    unsigned lacks = region_summary(walk->space->regions, walk->at, walk->level);
    if (pte_unpark(walk->entry) != paged) {
        return false;
    }
    if ((lacks & REGION_HAS_NO_WRITE) || !walk->exclusive) {
        rights &= ~(unsigned)RIGHT_WRITE;
    }
    if ((lacks & REGION_HAS_NO_EXEC) || !walk->exclusive || /* others may not have the right */
        (walk->level > 0 && !machine.huge_exec)) {
        rights &= ~(unsigned)RIGHT_EXEC;
    }
    if (walk->exclusive ? (lacks & REGION_HAS_NO_READ) != 0 : pte_is_parked(walk->entry)) {
        rights = 0;
    }
    pte_t leaf = pte_make_leaf(frame, walk->level, rights, 0);
    if (!pte_replace(ctx, walk->slot, walk->entry, leaf)) {
        return false;
    }
    frame_set_rmap(frame, walk->level, walk->table, level_slot(walk->at, walk->level));
    return true;
}

bool load_publish(struct mm_ctx *ctx, struct space *target, gfn_t at, unsigned level, pte_t paged,
                  unsigned number, pfn_t frame, unsigned rights)
{
    bool done = false;
    struct walk walk;

    read_lock(ctx, &target->lock, RANK_SPACE);
    struct region region = region_get(target->regions, at);
    if ((target->state == SPACE_ALIVE || target->state == SPACE_FROZEN) &&
        region.policy == REGION_PAGED && region.pager == number) {
        walk_find(ctx, target, at, level, &walk);
        done = walk.level == level && publish_leaf(ctx, &walk, paged, frame, rights);
        walk_end(ctx, &walk);
    }
    read_unlock(ctx, &target->lock, RANK_SPACE);
    return done;
}

/* Looks to the base of a fork first. CLEAVE_OK: it had the page, and the fork has it now.
 * CLEAVE_AGAIN: `key->target` is the space whose entry is to be loaded. */
static enum cleave_status load_through_base(struct mm_ctx *ctx, struct space *base,
                                            struct load_key *key)
{
    pfn_t frame = PFN_NONE;
    switch (base_look(ctx, base, key, &frame)) {
    case BASE_OTHER:
        return CLEAVE_AGAIN;
    case BASE_PAGED:
        key->target = key->write ? key->space : base;
        return CLEAVE_AGAIN;
    case BASE_LOADED:
        if (!load_publish(ctx, key->space, key->at, key->level, key->paged, key->number, frame,
                          RIGHT_READ | RIGHT_EXEC)) {
            frame_put(ctx, frame, key->level);
        }
        return CLEAVE_OK;
    }
    return CLEAVE_AGAIN;
}

/* --- What faults and prefetching ask for ------------------------------------------------------ */

static enum cleave_status load_page(struct mm_ctx *ctx, struct load_key *key)
{
    struct space *base = NULL;
    enum cleave_status status = CLEAVE_AGAIN;

    read_lock(ctx, &key->space->lock, RANK_SPACE);
    struct region region = region_get(key->space->regions, key->page);
    if (key->space->base != NULL && !(key->paged & PTE_PAGED_OWN)) {
        base = key->space->base; /* stays as long as the fork */
    }
    read_unlock(ctx, &key->space->lock, RANK_SPACE);
    key->number = region.policy == REGION_PAGED ? region.pager : 0;
    key->target = key->space;
    key->at = level_align(key->page, key->level);
    if (base != NULL) {
        status = load_through_base(ctx, base, key);
    }
    return status == CLEAVE_AGAIN ? load_start(ctx, key) : status;
}

enum cleave_status pager_fault(struct mm_ctx *ctx, struct space *space, gfn_t at, bool write,
                               pte_t paged, unsigned level, struct vcpu_wait *wait)
{
    struct load_key key = {.space = space,
                           .payer = space_payer(space, wait),
                           .wait = wait,
                           .page = at,
                           .paged = paged,
                           .level = level,
                           .write = write};
    enum cleave_status status = load_page(ctx, &key);
    return status == CLEAVE_BUSY ? CLEAVE_WAIT : status;
}

enum cleave_status pager_prefetch(struct mm_ctx *ctx, struct pager *pager, struct space *space,
                                  gpa_t at)
{
    struct gfn_range range;
    struct walk walk;
    enum cleave_status status = range_check(ctx, at, PAGE_SIZE, &range);
    if (status != CLEAVE_OK) {
        return status;
    }
    read_lock(ctx, &space->lock, RANK_SPACE);
    struct region region = region_get(space->regions, range.start);
    if (space->state != SPACE_ALIVE && space->state != SPACE_FROZEN) {
        status = mm_fail(ctx, CLEAVE_DYING, "space", space->id, 1, 0);
    } else if (region.policy != REGION_PAGED || region.pager != pager->number) {
        status = mm_fail(ctx, CLEAVE_POLICY, "at", at.v, 1, 0);
    } else {
        walk_find(ctx, space, range.start, 0, &walk);
        walk_end(ctx, &walk);
    }
    read_unlock(ctx, &space->lock, RANK_SPACE);
    if (status != CLEAVE_OK || pte_target(walk.entry, walk.level) != PTE_KIND_PAGED) {
        return status;
    }
    struct load_key key = {.space = space,
                           .payer = &space->payer,
                           .page = range.start,
                           .paged = pte_unpark(walk.entry),
                           .level = walk.level};
    status = load_page(ctx, &key);
    return status == CLEAVE_WAIT ? CLEAVE_OK : status;
}
