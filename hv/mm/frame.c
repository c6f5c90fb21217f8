/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reference counts of frames and blocks. The lock of a 1 GiB run protects the head counts of that
 * block and of its 2 MiB blocks; the lock of a 2 MiB run those of its 4 KiB parts. A run's `split`
 * belongs to the counts of its parts.
 */
#include "frame.h"

#include "pool.h"
#include "pte.h"

struct machine machine;
struct pt_format pt_format;

#define NODE_COUNT_MAX UINT32_MAX
/* Blocks with parts in use that are settled by whoever drops the last reference to a 1 GiB block.
 */
#define SETTLE_AT_ONCE ((TABLE_ENTRIES + 63) / 64)

static uint64_t round_up(uint64_t v, uint64_t to) { return (v + to - 1) / to * to; }

uint64_t machine_descriptor_bytes(uint64_t frames)
{
    uint64_t bytes = 0;
    for (unsigned o = 0; o < LEAF_ORDERS; o++) {
        uint64_t n = round_up(frames, level_pages(o)) / level_pages(o);
        bytes += round_up(n * sizeof(struct frame), 64);
        bytes += o > 0 ? round_up(n * sizeof(struct run), 64) : 0;
    }
    return bytes;
}

enum cleave_status machine_init(struct mm_ctx *ctx, void *direct_map, uint64_t frames,
                                void *descriptors, const struct pt_format *format, unsigned cpus,
                                bool huge_exec)
{
    if (frames == 0 || frames > UINT32_MAX) {
        return mm_fail(ctx, CLEAVE_COUNT, "frames", frames, 1, UINT32_MAX);
    }
    if (cpus == 0 || cpus > MM_MAX_CPUS) {
        return mm_fail(ctx, CLEAVE_COUNT, "cpus", cpus, 1, MM_MAX_CPUS);
    }
    unsigned char *next = descriptors;
    machine = (struct machine){
        .direct_map = direct_map, .frames = frames, .cpus = cpus, .huge_exec = huge_exec};
    for (unsigned o = 0; o < LEAF_ORDERS; o++) {
        uint64_t n = round_up(frames, level_pages(o)) / level_pages(o);
        machine.frame[o] = (struct frame *)(void *)next;
        next += round_up(n * sizeof(struct frame), 64);
        if (o > 0) {
            machine.run[o] = (struct run *)(void *)next;
            next += round_up(n * sizeof(struct run), 64);
        }
    }
    pt_format = *format;
    return CLEAVE_OK;
}

/* The run whose lock protects the count of a frame or block of `order`, and that lock's rank. */
static struct run *count_run(pfn_t f, unsigned order) { return run_of(f, order == 0 ? 1 : 2); }
static enum lock_rank count_rank(unsigned order) { return order == 0 ? RANK_BLOCK : RANK_GIGA; }

/* Counts that become non-zero or zero change how many parts of the run are referenced on their own.
 * A 1 GiB head is not a part of anything. */
static void count_used(struct run *run, unsigned order, int by)
{
    if (order < LEAF_ORDERS - 1 && by != 0) {
        __atomic_fetch_add(&run->used, (uint16_t)by, __ATOMIC_RELEASE);
    }
}

/* What `run`, under whose lock they are, counts for all frames of `order` at once. */
static uint32_t split_of(const struct run *run, unsigned order)
{
    return order < LEAF_ORDERS - 1 ? run->split : 0;
}

/* Gives each part of `run` its share of `split`; under the lock of their counts. */
static void spread_split(struct mm_ctx *ctx, struct run *run, struct frame *parts)
{
    if (run->split == 0) {
        return;
    }
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        parts[i].count += run->split;
    }
    port_point(ctx, POINT_SPREAD, run->split, 0);
    run->split = 0;
}

enum cleave_status frame_get_run(struct mm_ctx *ctx, pfn_t f, unsigned order, uint64_t parts)
{
    struct run *run = count_run(f, order);
    struct frame *d = frame_of(f, order);
    enum cleave_status status = CLEAVE_OK;

    spin_lock(ctx, &run->lock, count_rank(order));
    uint32_t split = split_of(run, order);
    int used = 0;
    uint64_t i = 0;
    for (; i < parts && d[i].count + split < FRAME_COUNT_MAX; i++) {
        used += d[i].count + split == 0;
        d[i].count++;
    }
    if (i < parts) {
        status =
            mm_fail(ctx, CLEAVE_OVERFLOW, "references", d[i].count + split, 0, FRAME_COUNT_MAX - 1);
        while (i > 0) {
            d[--i].count--;
        }
    } else {
        count_used(run, order, used);
    }
    spin_unlock(ctx, &run->lock, count_rank(order));
    return status;
}

/* The references of several frames, or-ed. */
static inline __attribute__((always_inline)) uint32_t any_count(const struct frame *d,
                                                                uint64_t parts, uint32_t split)
{
    uint32_t any = 0;
    uint64_t i = 0;
    for (; i + 4 <= parts; i += 4) {
        any |= (d[i].count + split) | (d[i + 1].count + split) | (d[i + 2].count + split) |
               (d[i + 3].count + split);
    }
    for (; i < parts; i++) {
        any |= d[i].count + split;
    }
    return any;
}

enum cleave_status frame_get_mapped(struct mm_ctx *ctx, pfn_t f, unsigned order, uint64_t parts)
{
    struct run *run = count_run(f, order);
    struct frame *d = frame_of(f, order);

    spin_lock(ctx, &run->lock, count_rank(order));
    uint32_t split = split_of(run, order);
    for (uint64_t i = 0; i < parts; i++) {
        MM_ASSERT(d[i].count + split > 0); /* so `used` stays as it is */
    }
    bool far =
        (split == 0 ? any_count(d, parts, 0) : any_count(d, parts, split)) <= FRAME_COUNT_MAX / 2;
    uint64_t i = 0;
    for (; far && i + 4 <= parts; i += 4) {
        d[i].count++;
        d[i + 1].count++;
        d[i + 2].count++;
        d[i + 3].count++;
    }
    for (; far && i < parts; i++) {
        d[i].count++;
    }
    spin_unlock(ctx, &run->lock, count_rank(order));
    return far ? CLEAVE_OK : frame_get_run(ctx, f, order, parts);
}

/* References from heads above `order` that keep the frames at `f` in use. They are all read at one
 * time only while the lock of the 1 GiB run is held. */
static uint64_t references_above(pfn_t f, unsigned order)
{
    uint64_t sum = 0;
    for (unsigned o = order + 1; o < LEAF_ORDERS; o++) {
        sum += frame_count(f, o);
    }
    return sum;
}
static uint64_t references(pfn_t f, unsigned order)
{
    return references_above(f, order) + frame_count(f, order);
}

/* Is the 2 MiB run at `f` handed out part by part? Then nothing refers to it through a head; and
 * while its lock is held, as it is here, and a part is referenced, nothing can begin to. */
static bool in_parts(pfn_t f)
{
    uint8_t state = __atomic_load_n(&run_of(f, 1)->state, __ATOMIC_RELAXED);
    return state == RUN_BROKEN || state == RUN_ASIDE;
}

/* Locks everything on the chain of a frame of `order`, from the head down. */
static void chain_lock(struct mm_ctx *ctx, pfn_t f, unsigned order)
{
    spin_lock(ctx, &run_of(f, 2)->lock, RANK_GIGA);
    if (order == 0) {
        spin_lock(ctx, &run_of(f, 1)->lock, RANK_BLOCK);
    }
}
static void chain_unlock(struct mm_ctx *ctx, pfn_t f, unsigned order)
{
    if (order == 0) {
        spin_unlock(ctx, &run_of(f, 1)->lock, RANK_BLOCK);
    }
    spin_unlock(ctx, &run_of(f, 2)->lock, RANK_GIGA);
}

uint64_t frame_references(struct mm_ctx *ctx, pfn_t f, unsigned order)
{
    chain_lock(ctx, f, order);
    uint64_t sum = references(f, order);
    chain_unlock(ctx, f, order);
    return sum;
}

/* True when nothing beneath the block of `order` is referenced on its own. The caller holds the 1
 * GiB run's lock and the only reference through a head, so that no part can gain a holder
 * meanwhile. */
static bool nothing_beneath(pfn_t f, unsigned order)
{
    if (order == 0) {
        return true;
    }
    if (order == 1) {
        return __atomic_load_n(&run_of(f, 1)->used, __ATOMIC_ACQUIRE) == 0;
    }
    if (run_of(f, 2)->used != 0) {
        return false;
    }
    struct run *blocks = run_of(f, 1);
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        if (__atomic_load_n(&blocks[i].used, __ATOMIC_ACQUIRE) != 0) {
            return false;
        }
    }
    return true;
}

bool frame_is_exclusive(struct mm_ctx *ctx, pfn_t f, unsigned order, uint64_t own)
{
    /* Read with no lock the sum may be wrong, and a false "shared" may be the answer. */
    if (references(f, order) > 1 + own) {
        return false;
    }
    if (order == 0) {
        spin_lock(ctx, &run_of(f, 1)->lock, RANK_BLOCK);
        bool parts = in_parts(f);
        bool alone = frame_count(f, 0) == 1 + own;
        spin_unlock(ctx, &run_of(f, 1)->lock, RANK_BLOCK);
        if (parts) {
            return alone;
        }
    }
    chain_lock(ctx, f, order);
    bool exclusive = references(f, order) == 1 + own && nothing_beneath(f, order);
    chain_unlock(ctx, f, order);
    return exclusive;
}

void frame_exclusive_run(struct mm_ctx *ctx, pfn_t f, unsigned order, uint64_t parts,
                         uint64_t exclusive[RUN_WORDS])
{
    const struct frame *d = frame_of(f, order);

    chain_lock(ctx, f, order);
    uint64_t above = references_above(f, order);
    uint32_t split = split_of(count_run(f, order), order);
    for (uint64_t i = 0; i < parts; i++) {
        bool alone = above + (uint32_t)(d[i].count + split) == 1 &&
                     nothing_beneath(pfn_add(f, i * level_pages(order)), order);
        exclusive[i / 64] |= (uint64_t)alone << (i % 64);
    }
    chain_unlock(ctx, f, order);
}

/* `gone` parts of the run of `f` have lost their last reference. With the last of them all splits
 * are forgotten, so that free memory has plain counts. */
static void parts_gone(struct mm_ctx *ctx, pfn_t f, unsigned order, int gone)
{
    struct run *run = run_of(f, order + 1);
    count_used(run, order, -gone);
    if (run->split != 0 && run->used == 0) {
        pfn_t first = pfn((uint32_t)(f.v & ~(level_pages(order + 1) - 1)));
        spread_split(ctx, run, frame_of(first, order));
    }
}

/* Drops references on 4 KiB parts. A part that ends without any is freed, unless its block is still
 * handed out whole: who ends that takes the block's lock later and looks at the part. */
static void put_parts(struct mm_ctx *ctx, pfn_t f, uint64_t parts)
{
    struct run *run = run_of(f, 1);
    struct frame *d = frame_of(f, 0);
    uint64_t gone[RUN_WORDS];
    int unused = 0;

    spin_lock(ctx, &run->lock, RANK_BLOCK);
    bool free = in_parts(f);
    for (unsigned w = 0; w < RUN_WORDS && free; w++) {
        gone[w] = 0;
    }
    uint32_t split = run->split;
    for (uint64_t i = 0; i < parts; i++) {
        MM_CHECK(d[i].count + split > 0);
        d[i].count--;
        if (d[i].count + split == 0) {
            unused++;
            if (free) {
                gone[i / 64] |= UINT64_C(1) << (i % 64);
            }
        }
    }
    parts_gone(ctx, f, 0, unused);
    spin_unlock(ctx, &run->lock, RANK_BLOCK);
    for (uint64_t w = 0; w < RUN_WORDS && free && unused != 0; w++) {
        if (gone[w] != 0) {
            pool_free_frames(ctx, pfn_add(f, w * 64), gone[w]);
        }
    }
}

/* Ends a 2 MiB block that nothing maps whole any more; under its chain's locks. */
static void end_block(struct mm_ctx *ctx, pfn_t block)
{
    spin_lock(ctx, &run_of(block, 1)->lock, RANK_BLOCK);
    if (run_of(block, 1)->used == 0) {
        pool_free(ctx, block, 1);
    } else {
        spread_split(ctx, run_of(block, 1), frame_of(block, 0));
        pool_break_block(ctx, block);
    }
    spin_unlock(ctx, &run_of(block, 1)->lock, RANK_BLOCK);
}

static void put_blocks(struct mm_ctx *ctx, pfn_t f, uint64_t parts)
{
    struct run *giga = run_of(f, 2);
    struct frame *d = frame_of(f, 1);
    int unused = 0;

    spin_lock(ctx, &giga->lock, RANK_GIGA);
    bool free = frame_of(f, 2)->count == 0;
    uint32_t split = giga->split;
    for (uint64_t i = 0; i < parts; i++) {
        MM_CHECK(d[i].count + split > 0);
        d[i].count--;
        if (d[i].count + split == 0) {
            pfn_t block = pfn_add(f, i * level_pages(1));
            unused++;
            if (free && run_of(block, 1)->state == RUN_WHOLE) {
                end_block(ctx, block);
            }
        }
    }
    parts_gone(ctx, f, 1, unused);
    spin_unlock(ctx, &giga->lock, RANK_GIGA);
}

/* A 1 GiB block that nothing maps whole any more becomes 2 MiB blocks: those mapped whole, those of
 * which parts are in use, and free ones. One block at a time, under the chain's locks. Of those
 * whose parts have to be looked at, `limit` are settled; the rest waits on the pool's list. Whoever
 * drops a part of a block that is not settled leaves it to this. */
static void dissolve_giga(struct mm_ctx *ctx, pfn_t f, unsigned limit)
{
    struct run *giga = run_of(f, 2);

    for (bool room = true; giga->unsettled > 0 && room;) {
        pfn_t block = pfn_add(f, (TABLE_ENTRIES - (uint64_t)giga->unsettled) * level_pages(1));
        spin_lock(ctx, &giga->lock, RANK_GIGA);
        bool ends = frame_of(block, 1)->count == 0;
        if (ends && __atomic_load_n(&run_of(block, 1)->used, __ATOMIC_RELAXED) != 0) {
            room = limit > 0;
            limit -= room;
        }
        if (room) {
            pool_settle_block(ctx, block, frame_of(f, 2)->account);
            if (ends) {
                end_block(ctx, block);
            }
        }
        spin_unlock(ctx, &giga->lock, RANK_GIGA);
    }
    if (giga->unsettled > 0) {
        pool_defer_giga(ctx, f);
    }
}

bool frame_settle_some(struct mm_ctx *ctx, struct pool *pool)
{
    pfn_t f = pool_next_giga(ctx, pool);
    if (f.v != 0) {
        dissolve_giga(ctx, f, 1);
    }
    return f.v != 0;
}

static void put_giga(struct mm_ctx *ctx, pfn_t f)
{
    struct run *giga = run_of(f, 2);
    struct frame *d = frame_of(f, 2);
    bool dissolve = false;

    spin_lock(ctx, &giga->lock, RANK_GIGA);
    MM_CHECK(d->count > 0);
    d->count--;
    if (d->count == 0) {
        dissolve = !nothing_beneath(f, 2);
        if (dissolve) {
            spread_split(ctx, giga, frame_of(f, 1));
            pool_break_giga(ctx, f);
        } else {
            pool_free(ctx, f, 2);
        }
    }
    spin_unlock(ctx, &giga->lock, RANK_GIGA);
    if (dissolve) {
        dissolve_giga(ctx, f, SETTLE_AT_ONCE);
    }
}

void frame_put_run(struct mm_ctx *ctx, pfn_t f, unsigned order, uint64_t parts)
{
    if (order == 0) {
        put_parts(ctx, f, parts);
    } else if (order == 1) {
        put_blocks(ctx, f, parts);
    } else {
        put_giga(ctx, f);
    }
}

/* Makes room in `split`: the parts get what it counts, unless one has too many references. */
static bool renew_split(struct mm_ctx *ctx, struct run *run, struct frame *parts)
{
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        if (parts[i].count + run->split > FRAME_COUNT_MAX) {
            return false;
        }
    }
    spread_split(ctx, run, parts);
    return true;
}

enum cleave_status frame_split(struct mm_ctx *ctx, pfn_t f, unsigned order)
{
    struct run *run = run_of(f, order);
    enum cleave_status status = CLEAVE_OK;

    spin_lock(ctx, &run->lock, count_rank(order - 1));
    if (run->split == FRAME_COUNT_MAX && !renew_split(ctx, run, frame_of(f, order - 1))) {
        status = mm_fail(ctx, CLEAVE_OVERFLOW, "references", FRAME_COUNT_MAX, 0, FRAME_COUNT_MAX);
    } else {
        run->split++;
        __atomic_store_n(&run->used, TABLE_ENTRIES, __ATOMIC_RELEASE);
    }
    spin_unlock(ctx, &run->lock, count_rank(order - 1));
    if (status != CLEAVE_OK) {
        return status;
    }
    port_point(ctx, POINT_SPLIT_RAISED, f.v, order);
    frame_put(ctx, f, order);
    return CLEAVE_OK;
}

enum cleave_status frame_merge(struct mm_ctx *ctx, pfn_t f, unsigned order)
{
    struct run *giga = run_of(f, 2);
    struct frame *d = frame_of(f, order);

    chain_lock(ctx, f, order == 1 ? 0 : 2);
    MM_CHECK(frame_count(f, order) == 0);
    enum cleave_status status = pool_join(ctx, f, order);
    if (status == CLEAVE_OK) {
        d->count = 1;
        count_used(giga, order, 1);
    }
    chain_unlock(ctx, f, order == 1 ? 0 : 2);
    if (status != CLEAVE_OK) {
        return status;
    }
    port_point(ctx, POINT_MERGE_RAISED, f.v, order);
    frame_put_run(ctx, f, order - 1, TABLE_ENTRIES);
    return CLEAVE_OK;
}

enum cleave_status node_get(struct mm_ctx *ctx, pfn_t node)
{
    uint32_t *count = &frame_of(node, 0)->count;
    uint32_t old = __atomic_load_n(count, __ATOMIC_RELAXED);
    do {
        if (old == NODE_COUNT_MAX) {
            return mm_fail(ctx, CLEAVE_OVERFLOW, "references", old, 0, NODE_COUNT_MAX - 1);
        }
    } while (!__atomic_compare_exchange_n(count, &old, old + 1, true, __ATOMIC_ACQ_REL,
                                          __ATOMIC_RELAXED));
    return CLEAVE_OK;
}

bool node_put(struct mm_ctx *ctx, pfn_t node)
{
    (void)ctx;
    uint32_t old = __atomic_fetch_sub(&frame_of(node, 0)->count, 1, __ATOMIC_ACQ_REL);
    MM_CHECK(old > 0);
    if (old == 1) {
        count_used(run_of(node, 1), 0, -1);
    }
    return old == 1;
}
