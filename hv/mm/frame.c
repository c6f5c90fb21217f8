/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reference counts of frames and blocks. The lock of a 1 GiB run protects the head counts of that
 * block and of its 2 MiB blocks; the lock of a 2 MiB run those of its 4 KiB parts.
 */
#include "frame.h"

#include "pool.h"
#include "pte.h"

struct machine machine;
struct pt_format pt_format;

#define COUNT_MAX UINT32_MAX
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

enum cleave_status frame_get_run(struct mm_ctx *ctx, pfn_t f, unsigned order, uint64_t parts,
                                 uint32_t n)
{
    struct run *run = count_run(f, order);
    struct frame *d = frame_of(f, order);
    enum cleave_status status = CLEAVE_OK;

    spin_lock(ctx, &run->lock, count_rank(order));
    int used = 0;
    uint64_t i = 0;
    /* Four at a time as long as all are far from the limit. */
    for (; i + 4 <= parts && n <= COUNT_MAX / 2; i += 4) {
        struct frame *p = &d[i];
        if ((p[0].count | p[1].count | p[2].count | p[3].count) > COUNT_MAX / 2) {
            break;
        }
        used += (p[0].count == 0) + (p[1].count == 0) + (p[2].count == 0) + (p[3].count == 0);
        p[0].count += n;
        p[1].count += n;
        p[2].count += n;
        p[3].count += n;
    }
    for (; i < parts && d[i].count <= COUNT_MAX - n; i++) {
        used += d[i].count == 0;
        d[i].count += n;
    }
    if (i < parts) {
        status = mm_fail(ctx, CLEAVE_OVERFLOW, "references", d[i].count, 0, COUNT_MAX - n);
        while (i > 0) {
            d[--i].count -= n;
        }
    } else {
        count_used(run, order, used);
    }
    spin_unlock(ctx, &run->lock, count_rank(order));
    return status;
}

/* References from heads above `order` that keep the frames at `f` in use. They are all read at one
 * time only while the lock of the 1 GiB run is held. */
static uint64_t references_above(pfn_t f, unsigned order)
{
    uint64_t sum = 0;
    for (unsigned o = order + 1; o < LEAF_ORDERS; o++) {
        sum += __atomic_load_n(&frame_of(f, o)->count, __ATOMIC_RELAXED);
    }
    return sum;
}
static uint64_t references(pfn_t f, unsigned order)
{
    uint64_t own = __atomic_load_n(&frame_of(f, order)->count, __ATOMIC_RELAXED);
    return references_above(f, order) + own;
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
        bool alone = frame_of(f, 0)->count == 1 + own;
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
    for (uint64_t i = 0; i < parts; i++) {
        bool alone =
            above + d[i].count == 1 && nothing_beneath(pfn_add(f, i * level_pages(order)), order);
        exclusive[i / 64] |= (uint64_t)alone << (i % 64);
    }
    chain_unlock(ctx, f, order);
}

/* Drops references on 4 KiB parts. A part that ends without any is freed, unless its block is still
 * handed out whole: who ends that takes the block's lock later and looks at the part. */
static void put_parts(struct mm_ctx *ctx, pfn_t f, uint64_t parts)
{
    struct run *run = run_of(f, 1);
    struct frame *d = frame_of(f, 0);
    uint64_t gone[RUN_WORDS] = {0};
    int used = 0;

    spin_lock(ctx, &run->lock, RANK_BLOCK);
    bool free = in_parts(f);
    for (uint64_t i = 0; i < parts; i++) {
        MM_CHECK(d[i].count > 0);
        d[i].count--;
        if (d[i].count == 0) {
            used--;
            gone[i / 64] |= free ? UINT64_C(1) << (i % 64) : 0;
        }
    }
    count_used(run, 0, used);
    spin_unlock(ctx, &run->lock, RANK_BLOCK);
    for (uint64_t w = 0; w < RUN_WORDS; w++) {
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
        pool_break_block(ctx, block);
    }
    spin_unlock(ctx, &run_of(block, 1)->lock, RANK_BLOCK);
}

static void put_blocks(struct mm_ctx *ctx, pfn_t f, uint64_t parts)
{
    struct run *giga = run_of(f, 2);
    struct frame *d = frame_of(f, 1);
    int used = 0;

    spin_lock(ctx, &giga->lock, RANK_GIGA);
    bool free = frame_of(f, 2)->count == 0;
    for (uint64_t i = 0; i < parts; i++) {
        MM_CHECK(d[i].count > 0);
        d[i].count--;
        if (d[i].count == 0) {
            pfn_t block = pfn_add(f, i * level_pages(1));
            used--;
            if (free && run_of(block, 1)->state == RUN_WHOLE) {
                end_block(ctx, block);
            }
        }
    }
    count_used(giga, 1, used);
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

enum cleave_status frame_split(struct mm_ctx *ctx, pfn_t f, unsigned order)
{
    enum cleave_status status = frame_get_run(ctx, f, order - 1, TABLE_ENTRIES, 1);
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
    MM_CHECK(d->count == 0);
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
        if (old == COUNT_MAX) {
            return mm_fail(ctx, CLEAVE_OVERFLOW, "references", old, 0, COUNT_MAX - 1);
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
