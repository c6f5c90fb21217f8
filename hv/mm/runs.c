/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Free memory of a pool by order. A 1 GiB run is free as a whole, or BROKEN with a map of its free
 * 2 MiB blocks; a 2 MiB run is free, WHOLE, or BROKEN with a map of its free frames; what is freed
 * joins upwards at once. Everything here is under the pool's lock.
 */
#include "runs.h"

#define PARTS TABLE_ENTRIES

static uint32_t run_index(const struct run *run, unsigned order)
{
    return (uint32_t)(run - machine.run[order]);
}
pfn_t runs_frame(const struct run *run, unsigned order)
{
    return pfn(run_index(run, order) << (LEVEL_BITS * order));
}

/* --- Lists of runs, linked by index + 1 ------------------------------------------------------- */

void runs_push(uint32_t *head, struct run *run, unsigned order)
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

void runs_remove(uint32_t *head, struct run *run, unsigned order)
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

struct run *runs_first(uint32_t head, unsigned order)
{
    return head != 0 ? &machine.run[order][head - 1] : NULL;
}

/* --- Free maps -------------------------------------------------------------------------------- */

void runs_map_fill(struct run *run)
{
    for (unsigned w = 0; w < RUN_WORDS; w++) {
        unsigned bits = PARTS - w * 64;
        run->free[w] = bits >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << bits) - 1;
    }
    run->free_count = PARTS;
}
bool runs_map_test(const struct run *run, unsigned part)
{
    return (run->free[part / 64] >> (part % 64) & 1) != 0;
}
static void runs_map_take(struct run *run, unsigned part)
{
    MM_CHECK(runs_map_test(run, part));
    run->free[part / 64] &= ~(UINT64_C(1) << (part % 64));
    run->free_count--;
}
void runs_map_give(struct run *run, unsigned part)
{
    MM_CHECK(!runs_map_test(run, part));
    run->free[part / 64] |= UINT64_C(1) << (part % 64);
    run->free_count++;
}
unsigned runs_map_first(const struct run *run, uint32_t account)
{
    unsigned w = account % RUN_WORDS;
    while (run->free[w] == 0) {
        w = (w + 1) % RUN_WORDS;
    }
    return w * 64 + (unsigned)__builtin_ctzll(run->free[w]);
}

static unsigned map_first(const struct run *run) { return runs_map_first(run, 0); }

/* A free part that nobody can foretell. O(words of the map). */
static unsigned runs_map_random(const struct run *run)
{
    uint64_t random = port_random();
    unsigned w = (unsigned)(random % RUN_WORDS);
    while (run->free[w] == 0) {
        w = (w + 1) % RUN_WORDS;
    }
    uint64_t from = UINT64_MAX << (random >> 32) % (PARTS < 64 ? PARTS : 64);
    uint64_t word = run->free[w] & from ? run->free[w] & from : run->free[w];
    return w * 64 + (unsigned)__builtin_ctzll(word);
}

unsigned runs_part(pfn_t f, unsigned order)
{
    return (unsigned)(f.v >> (LEVEL_BITS * order)) & (PARTS - 1);
}

void runs_forget(struct run *run)
{
    run->pool = run->next = run->prev = run->owner = 0;
    run->state = run->listed = 0;
    run->free_count = 0;
    __builtin_memset(run->free, 0, sizeof(run->free));
}

/* --- Whose memory ----------------------------------------------------------------------------- */

/* While pool_resize() makes a 1 GiB run with frames in use wholly the pool's, or no longer, the
 * marks of its blocks stand before that of the run goes. */
struct pool *pool_of(pfn_t f)
{
    uint32_t owner = __atomic_load_n(&run_of(f, 2)->pool, __ATOMIC_ACQUIRE);
    owner = owner != 0 ? owner : __atomic_load_n(&run_of(f, 1)->pool, __ATOMIC_RELAXED);
    return owner != 0 ? frame_address(pfn(owner)) : NULL;
}

/* The run that maps the free 2 MiB blocks around `f`: the machine's when the whole 1 GiB is ours.
 */
struct run *runs_giga(struct pool *pool, pfn_t f)
{
    struct run *run = run_of(f, 2);
    if (run->pool != 0) {
        return run;
    }
    return &pool->edge[run == run_of(pool->start, 2) ? 0 : 1];
}
bool runs_is_edge(const struct pool *pool, const struct run *giga)
{
    return giga == &pool->edge[0] || giga == &pool->edge[1];
}

/* --- Free blocks ------------------------------------------------------------------------------ */

void runs_push_free_giga(struct pool *pool, struct run *giga)
{
    struct run *blocks = run_of(runs_frame(giga, 2), 1);

    for (unsigned i = 0; blocks[PARTS - 1].pool != 0 && i < PARTS; i++) {
        blocks[i].pool = 0;
    }
    giga->state = RUN_NONE;
    runs_push(&pool->giga_free, giga, 2);
}

void runs_break_giga(struct pool *pool, struct run *giga)
{
    runs_remove(&pool->giga_free, giga, 2);
    runs_map_fill(giga);
    giga->state = RUN_BROKEN;
    runs_push(&pool->giga_partial, giga, 2);
}

void runs_take_block(struct pool *pool, struct run *giga, unsigned part)
{
    runs_map_take(giga, part);
    if (giga->free_count == 0 && !runs_is_edge(pool, giga)) {
        runs_remove(&pool->giga_partial, giga, 2);
    }
}

/* A free 2 MiB block, off the free maps; which of its map, `choose` says. */
static pfn_t find_block(struct pool *pool, unsigned (*choose)(const struct run *run))
{
    for (unsigned i = 0; i < 2; i++) {
        if (pool->edge[i].free_count != 0) {
            unsigned part = choose(&pool->edge[i]);
            pfn_t base = i == 0 ? pool->start : pool->end;
            runs_take_block(pool, &pool->edge[i], part);
            uint64_t giga = base.v & ~(level_pages(2) - 1);
            return pfn((uint32_t)(giga + part * level_pages(1)));
        }
    }
    if (pool->giga_partial == 0 && pool->giga_free != 0) {
        runs_break_giga(pool, runs_first(pool->giga_free, 2));
    }
    struct run *giga = runs_first(pool->giga_partial, 2);
    if (giga == NULL) {
        return PFN_NONE;
    }
    unsigned part = choose(giga);
    runs_take_block(pool, giga, part);
    return pfn_add(runs_frame(giga, 2), part * level_pages(1));
}

pfn_t runs_find_block(struct pool *pool) { return find_block(pool, map_first); }

pfn_t runs_find_random_block(struct pool *pool) { return find_block(pool, runs_map_random); }

void runs_give_block(struct pool *pool, pfn_t block)
{
    struct run *giga = runs_giga(pool, block);
    runs_map_give(giga, runs_part(block, 1));
    if (runs_is_edge(pool, giga)) {
        return;
    }
    if (giga->free_count == 1) {
        runs_push(&pool->giga_partial, giga, 2);
    }
    if (giga->free_count == PARTS) {
        runs_remove(&pool->giga_partial, giga, 2);
        runs_push_free_giga(pool, giga);
    }
}

/* A free block becomes a BROKEN run with all its frames free. */
struct run *runs_break_block(struct pool *pool, pfn_t block)
{
    struct run *run = run_of(block, 1);
    runs_map_fill(run);
    run->state = RUN_BROKEN;
    runs_push(&pool->block_partial, run, 1);
    return run;
}

void runs_end_aside(struct pool *pool, struct run *run)
{
    runs_remove(&pool->block_aside, run, 1);
    pool->aside -= run->free_count;
    run->owner = 0;
    run->state = RUN_BROKEN;
    if (run->free_count == PARTS) {
        run->state = RUN_NONE;
        runs_give_block(pool, runs_frame(run, 1));
    } else if (run->free_count != 0) {
        runs_push(&pool->block_partial, run, 1);
    }
}

/* A run with free frames; set-aside runs are given back only when nothing else is left. */
struct run *runs_find_partial(struct pool *pool)
{
    if (pool->block_partial == 0) {
        pfn_t block = runs_find_random_block(pool);
        if (block.v != 0) {
            return runs_break_block(pool, block);
        }
        while (pool->block_partial == 0 && pool->block_aside != 0) {
            runs_end_aside(pool, runs_first(pool->block_aside, 1));
        }
        if (pool->block_partial == 0 && (block = runs_find_random_block(pool)).v != 0) {
            return runs_break_block(pool, block);
        }
    }
    return runs_first(pool->block_partial, 1);
}

void runs_take_frame(struct pool *pool, struct run *run, unsigned part)
{
    runs_map_take(run, part);
    if (run->state == RUN_ASIDE) {
        pool->aside--;
    } else if (run->free_count == 0) {
        runs_remove(&pool->block_partial, run, 1);
    }
}

/* Puts `count` frames, whose bits are set in word `w`, back into the map of their run. */
void runs_give_frames(struct pool *pool, struct run *run, unsigned w, uint64_t bits)
{
    unsigned count = bits_count(bits);
    MM_CHECK((run->free[w] & bits) == 0);
    run->free[w] |= bits;
    run->free_count = (uint16_t)(run->free_count + count);
    if (run->state == RUN_ASIDE) {
        pool->aside += count;
        return;
    }
    if (!run->listed) {
        runs_push(&pool->block_partial, run, 1);
    }
    if (run->free_count == PARTS) {
        runs_remove(&pool->block_partial, run, 1);
        run->state = RUN_NONE;
        runs_give_block(pool, runs_frame(run, 1));
    }
}
