/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The part of the audit that looks at descriptors: every count against the references that the walk
 * found, every run's state and free map, the free lists, and the pool's sums (free, kinds, charges,
 * reservations) against what is there.
 */
#include "audit.h"

/* What the descriptors add up to, in 4 KiB frames, and how many runs belong on each list. */
struct audit_sums {
    uint64_t free;
    uint64_t aside;
    uint64_t kind[FRAME_KINDS];
    uint64_t giga_free, giga_partial, block_partial, block_aside;
};

/* --- Frames, blocks and 1 GiB blocks ---------------------------------------------------------- */

/* Compares a count with the references found. */
static bool check_count(struct audit *audit, pfn_t f, unsigned order)
{
    uint32_t expected = *audit_expected(audit, f, order);
    uint32_t count = audit_count(f, order);
    return count == expected ||
           audit_violation(audit, 3, "a count is not the number of references", expected, count);
}

/* Books `pages` frames in use. */
static bool book(struct audit *audit, struct audit_sums *sums, const struct frame *d,
                 uint64_t pages)
{
    if (frame_kind(d) == FRAME_FREE || frame_kind(d) >= FRAME_KINDS) {
        return audit_violation(audit, 8, "what is in use is of no kind", FRAME_DATA, frame_kind(d));
    }
    if (d->account > audit->pool->accounts) {
        return audit_violation(audit, 8, "charged to an account that was never made",
                               audit->pool->accounts, d->account);
    }
    sums->kind[frame_kind(d)] += pages;
    audit->charged[d->account] += (uint32_t)pages;
    return true;
}

static bool check_free_frames(struct audit *audit, pfn_t f, uint64_t pages)
{
    for (uint64_t i = 0; i < pages; i++) {
        const struct frame *d = frame_of(pfn_add(f, i), 0);
        audit_stand_at(audit, pfn_add(f, i), 0);
        if (d->count != 0 || *audit_expected(audit, pfn_add(f, i), 0) != 0) {
            return audit_violation(audit, 3, "a free frame is referenced",
                                   *audit_expected(audit, pfn_add(f, i), 0), d->count);
        }
        /* A part of a block that was mapped whole may keep the kind that its reverse pointer gave.
         */
        if (frame_kind(d) != FRAME_FREE && frame_kind(d) != FRAME_DATA) {
            return audit_violation(audit, 8, "a free frame has a kind", FRAME_FREE, frame_kind(d));
        }
    }
    return true;
}

/* A frame of its own that is in use. */
static bool check_used_frame(struct audit *audit, struct audit_sums *sums, pfn_t f)
{
    const struct frame *d = frame_of(f, 0);
    uint32_t expected = *audit_expected(audit, f, 0);

    if (frame_kind(d) == FRAME_OBJECT) {
        if (d->count != 1) {
            return audit_violation(audit, 3, "an object's frame has other than one holder", 1,
                                   d->count);
        }
    } else if ((frame_kind(d) == FRAME_TABLE || frame_kind(d) == FRAME_REGION) && d->count == 0) {
        if (expected != AUDIT_DEAD) {
            return audit_violation(audit, 8, "a dead table that nobody will reap", AUDIT_DEAD,
                                   expected);
        }
    } else if (!check_count(audit, f, 0)) {
        return false;
    } else if (d->count == 0) {
        return audit_violation(audit, 8, "a frame in use that nothing holds", 1, 0);
    }
    return book(audit, sums, d, 1);
}

/* The number of parts of order - 1 that have a reference; what `used` must be. */
static bool check_used(struct audit *audit, pfn_t f, unsigned order)
{
    const struct frame *parts = frame_of(f, order - 1);
    const struct run *run = run_of(f, order);
    bool whole = run->state == RUN_WHOLE || run->state == RUN_NONE;
    uint64_t used = 0;

    audit_stand_at(audit, f, order);
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        used += parts[i].count + run->split != 0;
    }
    if (run->split != 0 && (used == 0 || !whole)) {
        return audit_violation(audit, 3, "splits of a run that is in parts, or free", 0,
                               run->split);
    }
    return used == run->used ||
           audit_violation(audit, 3, "the number of parts that are referenced on their own", used,
                           run->used);
}

/* The parts of a block that is mapped whole, or lies in one that is. */
static bool check_parts(struct audit *audit, pfn_t block)
{
    for (uint64_t i = 0; i < TABLE_ENTRIES; i++) {
        audit_stand_at(audit, pfn_add(block, i), 0);
        if (!check_count(audit, pfn_add(block, i), 0)) {
            return false;
        }
    }
    return check_used(audit, block, 1);
}

static bool map_bit(const struct run *run, unsigned part)
{
    return (run->free[part / 64] >> (part % 64) & 1) != 0;
}

/* The free map's bits add up to its count, and lie in it. */
static bool check_map(struct audit *audit, const struct run *run)
{
    uint64_t bits = 0;
    for (unsigned w = 0; w < RUN_WORDS; w++) {
        bits += bits_count(run->free[w]);
    }
    for (unsigned i = TABLE_ENTRIES; i < RUN_WORDS * 64; i++) {
        bits += map_bit(run, i) ? TABLE_ENTRIES : 0;
    }
    return bits == run->free_count ||
           audit_violation(audit, 8, "a free map and its count", bits, run->free_count);
}

/* A set-aside run belongs to the copies of one level-0 table that names it. */
static bool check_aside(struct audit *audit, pfn_t block, const struct run *run)
{
    pfn_t owner = pfn(run->owner);
    bool table = audit_owns(audit, owner, 1) && frame_kind(frame_of(owner, 0)) == FRAME_TABLE;
    if (!table || table_level(owner) != 0) {
        return audit_violation(audit, 8, "a run is set aside for no table", FRAME_TABLE, owner.v);
    }
    uint32_t named = frame_of(owner, 0)->rmap;
    return node_count(owner) == 0 || named == block.v ||
           audit_violation(audit, 8, "a run is set aside for a table that names another", block.v,
                           named);
}

/* A block whose parts are handed out one by one. */
static bool check_broken_block(struct audit *audit, struct audit_sums *sums, pfn_t block)
{
    const struct run *run = run_of(block, 1);
    bool aside = run->state == RUN_ASIDE;

    if (!check_map(audit, run) || !check_count(audit, block, 1)) {
        return false;
    }
    if (frame_of(block, 1)->count != 0) {
        return audit_violation(audit, 8, "a broken block is mapped whole", 0,
                               frame_of(block, 1)->count);
    }
    if (run->listed != (aside || run->free_count > 0)) {
        return audit_violation(audit, 8, "a broken block is listed that has no free frame, or not",
                               !run->listed, run->listed);
    }
    if (!aside && run->free_count == TABLE_ENTRIES) {
        return audit_violation(audit, 8, "a broken block is wholly free", TABLE_ENTRIES - 1,
                               run->free_count);
    }
    if (aside && !check_aside(audit, block, run)) {
        return false;
    }
    sums->free += run->free_count;
    sums->aside += aside ? run->free_count : 0;
    sums->block_aside += aside;
    sums->block_partial += !aside && run->free_count > 0;
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        pfn_t f = pfn_add(block, i);
        audit_stand_at(audit, f, 0);
        if (map_bit(run, i) ? !check_free_frames(audit, f, 1) : !check_used_frame(audit, sums, f)) {
            return false;
        }
    }
    return check_used(audit, block, 1);
}

static bool check_whole(struct audit *audit, struct audit_sums *sums, pfn_t f, unsigned order)
{
    const struct frame *d = frame_of(f, order);
    audit_stand_at(audit, f, order);
    if (!check_count(audit, f, order)) {
        return false;
    }
    if (d->count == 0) {
        return audit_violation(audit, 8, "a whole block that nothing maps whole", 1, 0);
    }
    if (run_of(f, order)->listed) {
        return audit_violation(audit, 8, "a whole block is on a free list", 0, 1);
    }
    return book(audit, sums, d, level_pages(order));
}

/* A 2 MiB block that is free, as its 1 GiB run's map says. */
static bool check_free_block(struct audit *audit, struct audit_sums *sums, pfn_t block)
{
    const struct run *run = run_of(block, 1);
    audit_stand_at(audit, block, 1);
    if (run->state != RUN_NONE || run->listed) {
        return audit_violation(audit, 8, "a free block is handed out", RUN_NONE, run->state);
    }
    sums->free += level_pages(1);
    return check_count(audit, block, 1) && check_free_frames(audit, block, TABLE_ENTRIES) &&
           check_used(audit, block, 1);
}

static bool check_block(struct audit *audit, struct audit_sums *sums, pfn_t block)
{
    audit_stand_at(audit, block, 1);
    if (audit_unsettled(block) && run_of(block, 1)->state == RUN_NONE) {
        return check_count(audit, block, 1) && check_parts(audit, block) &&
               book(audit, sums, frame_of(block, 2), level_pages(1));
    }
    switch ((enum run_state)run_of(block, 1)->state) {
    case RUN_WHOLE:
        return check_whole(audit, sums, block, 1) && check_parts(audit, block);
    case RUN_BROKEN:
    case RUN_ASIDE:
        return check_broken_block(audit, sums, block);
    case RUN_NONE:
        break;
    }
    return audit_violation(audit, 8, "a block in use is in no state", RUN_WHOLE,
                           run_of(block, 1)->state);
}

/* The blocks of [start, end), which lie in one 1 GiB run, by its map of free ones. */
static bool check_blocks(struct audit *audit, struct audit_sums *sums, const struct run *map,
                         uint64_t start, uint64_t end)
{
    audit_stand_at(audit, pfn((uint32_t)start), 2);
    if (!check_map(audit, map)) {
        return false;
    }
    for (uint64_t b = start; b < end; b += level_pages(1)) {
        pfn_t block = pfn((uint32_t)b);
        unsigned part = (unsigned)(b >> LEVEL_BITS) & (TABLE_ENTRIES - 1u);
        if (map_bit(map, part) ? !check_free_block(audit, sums, block)
                               : !check_block(audit, sums, block)) {
            return false;
        }
    }
    return true;
}

/* A 1 GiB block mapped whole: its parts may be referenced on their own as well. */
static bool check_whole_giga(struct audit *audit, struct audit_sums *sums, pfn_t giga)
{
    if (!check_whole(audit, sums, giga, 2)) {
        return false;
    }
    for (uint64_t i = 0; i < TABLE_ENTRIES; i++) {
        pfn_t block = pfn_add(giga, i * level_pages(1));
        audit_stand_at(audit, block, 1);
        if (run_of(block, 1)->state != RUN_NONE || run_of(block, 1)->listed) {
            return audit_violation(audit, 8, "a part of a whole 1 GiB block is in a state",
                                   RUN_NONE, run_of(block, 1)->state);
        }
        if (!check_count(audit, block, 1) || !check_parts(audit, block)) {
            return false;
        }
    }
    return check_used(audit, giga, 2);
}

static bool check_giga(struct audit *audit, struct audit_sums *sums, pfn_t giga)
{
    const struct run *run = run_of(giga, 2);
    uint64_t end = giga.v + level_pages(2);

    audit_stand_at(audit, giga, 2);
    if (run->pool != audit->pool->start.v) {
        return audit_violation(audit, 8, "a run of the pool belongs to another",
                               audit->pool->start.v, run->pool);
    }
    switch ((enum run_state)run->state) {
    case RUN_NONE:
        sums->giga_free++;
        for (uint64_t b = giga.v; b < end; b += level_pages(1)) {
            if (!check_free_block(audit, sums, pfn((uint32_t)b))) {
                return false;
            }
        }
        audit_stand_at(audit, giga, 2);
        return check_count(audit, giga, 2) && check_used(audit, giga, 2) &&
               (run->listed || audit_violation(audit, 8, "a free 1 GiB run is not listed", 1, 0));
    case RUN_WHOLE:
        return check_whole_giga(audit, sums, giga);
    case RUN_BROKEN:
        sums->giga_partial += run->free_count > 0;
        if (run->listed != (run->free_count > 0) || run->free_count == TABLE_ENTRIES) {
            return audit_violation(audit, 8,
                                   "a broken 1 GiB run is listed that is not partly free, "
                                   "or not",
                                   run->free_count, run->listed);
        }
        return check_count(audit, giga, 2) && check_blocks(audit, sums, run, giga.v, end) &&
               check_used(audit, giga, 2);
    case RUN_ASIDE:
        break;
    }
    return audit_violation(audit, 8, "a 1 GiB run is in no state", RUN_NONE, run->state);
}

/* The blocks of the pool in a 1 GiB run that it does not own whole; `map` is its own for them. */
static bool check_edge(struct audit *audit, struct audit_sums *sums, const struct run *map,
                       uint64_t start, uint64_t end)
{
    for (uint64_t b = start; b < end; b += level_pages(1)) {
        audit_stand_at(audit, pfn((uint32_t)b), 1);
        if (run_of(pfn((uint32_t)b), 1)->pool != audit->pool->start.v) {
            return audit_violation(audit, 8, "a block of the pool belongs to another",
                                   audit->pool->start.v, run_of(pfn((uint32_t)b), 1)->pool);
        }
    }
    return check_blocks(audit, sums, map, start, end);
}

static bool check_runs(struct audit *audit, struct audit_sums *sums)
{
    const struct pool *pool = audit->pool;
    uint64_t size = level_pages(2);

    for (uint64_t giga = pool->start.v & ~(size - 1); giga < pool->end.v; giga += size) {
        uint64_t start = giga < pool->start.v ? pool->start.v : giga;
        uint64_t end = giga + size > pool->end.v ? pool->end.v : giga + size;
        const struct run *map = giga <= pool->start.v ? &pool->edge[0] : &pool->edge[1];
        if (end - start == size ? !check_giga(audit, sums, pfn((uint32_t)giga))
                                : !check_edge(audit, sums, map, start, end)) {
            return false;
        }
    }
    return true;
}

/* --- Lists and sums --------------------------------------------------------------------------- */

/* A list holds `length` runs of `order`, all of the pool and in `state`, linked both ways. */
static bool check_list(struct audit *audit, uint32_t head, unsigned order, enum run_state state,
                       uint64_t length)
{
    uint64_t found = 0;
    uint32_t previous = 0;

    for (uint32_t i = head; i != 0 && found <= length; i = machine.run[order][i - 1].next) {
        const struct run *run = &machine.run[order][i - 1];
        pfn_t f = pfn((i - 1) << (LEVEL_BITS * order));
        audit_stand_at(audit, f, order);
        if (!audit_owns(audit, f, level_pages(order)) || run->state != state || !run->listed ||
            run->prev != previous) {
            return audit_violation(audit, 8, "a free list meets a run that is not to be there",
                                   state, run->state);
        }
        previous = i;
        found++;
    }
    audit_stand_at(audit, PFN_NONE, order);
    return found == length || audit_violation(audit, 8, "the length of a free list", length, found);
}

static bool check_sum(struct audit *audit, const char *what, uint64_t expected, uint64_t found)
{
    return expected == found || audit_violation(audit, 8, what, expected, found);
}

/* Records on the free list, of which none is live or charged. */
static bool check_free_accounts(struct audit *audit)
{
    const struct pool *pool = audit->pool;
    uint64_t count = 0;

    for (uint32_t i = pool->account_free; i != 0 && count <= pool->accounts; count++) {
        const struct account *account = account_of(audit->pool, i);
        if (account == NULL || account->live || account->charged != 0) {
            return audit_violation(audit, 8, "a free account is in use", 0, i);
        }
        i = account->next_free;
    }
    return check_sum(audit, "the records of accounts that are free",
                     (uint64_t)pool->accounts - pool->account_used, count);
}

static bool check_accounts(struct audit *audit)
{
    for (uint32_t i = 0; i <= audit->pool->accounts; i++) {
        const struct account *account = account_of(audit->pool, i);
        audit->report->slot = i;
        if (!check_sum(audit, "the frames charged to an account (slot: its number)",
                       audit->charged[i], account->charged)) {
            return false;
        }
    }
    audit->report->slot = 0;
    return check_free_accounts(audit);
}

static uint64_t promised(const struct payer *payer)
{
    return payer->promised ? payer->reserved : 0;
}

/* What is promised to an account is what its payers hold. */
static bool check_promised(struct audit *audit)
{
    const char *what = "the frames promised to an account (slot: its number)";
    const struct pool *pool = audit->pool;

    if (!check_sum(audit, what, promised(&pool->payer), pool->own.promised)) {
        return false;
    }
    for (const struct space *s = pool->spaces; s != NULL; s = s->next) {
        audit->report->slot = s->payer.account;
        if (!check_sum(audit, what, promised(&s->payer) + promised(&s->op_payer),
                       account_of(audit->pool, s->payer.account)->promised)) {
            return false;
        }
    }
    audit->report->slot = 0;
    return true;
}

/* Reservations that spaces hold are part of the promised frames; the rest are grants to vcpus that
 * were woken and have not executed again. */
static bool check_reserved(struct audit *audit)
{
    const struct pool *pool = audit->pool;
    uint64_t reserved = pool->payer.reserved;

    for (const struct space *s = pool->spaces; s != NULL; s = s->next) {
        reserved += s->payer.reserved + s->op_payer.reserved;
    }
    if (reserved > pool->reserved) {
        return audit_violation(audit, 8, "less is reserved than payers hold", reserved,
                               pool->reserved);
    }
    return pool->reserved <= pool->free ||
           audit_violation(audit, 8, "more is reserved than is free", pool->free, pool->reserved);
}

/* Each 1 GiB run with unsettled blocks is on the list, once. */
static bool check_unsettled(struct audit *audit)
{
    const struct pool *pool = audit->pool;
    uint64_t size = level_pages(2), expected = 0, found = 0;

    for (uint64_t giga = pool->start.v & ~(size - 1); giga < pool->end.v; giga += size) {
        expected += run_of(pfn((uint32_t)giga), 2)->unsettled > 0;
    }
    for (uint32_t i = pool->reap_gigas; i != 0 && found <= expected; found++) {
        const struct run *run = &machine.run[2][i - 1];
        if (run->unsettled == 0 || run->state != RUN_BROKEN) {
            return audit_violation(audit, 8, "what is to be settled is no dissolved block",
                                   RUN_BROKEN, run->state);
        }
        i = run->owner;
    }
    return found == expected ||
           audit_violation(audit, 8, "dissolved blocks that nobody will settle", expected, found);
}

bool audit_allocator(struct audit *audit)
{
    const struct pool *pool = audit->pool;
    struct audit_sums sums = {0};

    audit->space = NULL;
    if (pool->lock.held != 0) {
        return audit_violation(audit, 10, "the pool is locked and nothing runs", 0, 1);
    }
    if (!check_runs(audit, &sums)) {
        return false;
    }
    audit_stand_at(audit, PFN_NONE, 0);
    if (!check_unsettled(audit)) {
        return false;
    }
    if (!check_list(audit, pool->giga_free, 2, RUN_NONE, sums.giga_free) ||
        !check_list(audit, pool->giga_partial, 2, RUN_BROKEN, sums.giga_partial) ||
        !check_list(audit, pool->block_partial, 1, RUN_BROKEN, sums.block_partial) ||
        !check_list(audit, pool->block_aside, 1, RUN_ASIDE, sums.block_aside)) {
        return false;
    }
    uint64_t used = 0;
    for (unsigned k = FRAME_DATA; k < FRAME_KINDS; k++) {
        used += sums.kind[k];
        audit->report->slot = k;
        if (!check_sum(audit, "frames in use by kind (slot: the kind)", sums.kind[k],
                       pool->kind[k])) {
            return false;
        }
    }
    audit->report->slot = 0;
    return check_sum(audit, "free frames", sums.free, pool->free) &&
           check_sum(audit, "frames set aside", sums.aside, pool->aside) &&
           check_sum(audit, "free and used frames", pool->frames, sums.free + used) &&
           check_accounts(audit) && check_promised(audit) && check_reserved(audit);
}
