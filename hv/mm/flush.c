/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Flush batches and the generation protocol drawn in flush.h. What runs where is one pointer per
 * CPU, written by that CPU alone.
 */
#include "flush.h"

#include "space.h"
#include "table.h"

static struct {
    struct space *running;
    char pad[56]; /* a cache line each: CPUs write their own and flushers read all */
} cpu_state[MM_MAX_CPUS];

struct space *flush_running(unsigned cpu)
{
    return __atomic_load_n(&cpu_state[cpu].running, __ATOMIC_ACQUIRE);
}

void flush_drop_frames(struct flush_batch *batch, pfn_t f, unsigned order, uint64_t parts)
{
    uint64_t pages = level_pages(order);
    unsigned i = batch->count;
    if (i > 0 && order < LEAF_ORDERS - 1 && !batch->drop[i - 1].table &&
        batch->drop[i - 1].order == order &&
        batch->drop[i - 1].frame.v + batch->drop[i - 1].parts * pages == f.v &&
        f.v % level_pages(order + 1) != 0) {
        batch->drop[i - 1].parts = (uint16_t)(batch->drop[i - 1].parts + parts);
        return;
    }
    MM_CHECK(i < FLUSH_DROPS);
    batch->count++;
    batch->drop[i].frame = f;
    batch->drop[i].order = (uint8_t)order;
    batch->drop[i].table = 0;
    batch->drop[i].parts = (uint16_t)parts;
    batch->needed = true;
}

void flush_drop_table(struct flush_batch *batch, pfn_t table)
{
    MM_CHECK(batch->count < FLUSH_DROPS);
    unsigned i = batch->count++;
    batch->drop[i].frame = table;
    batch->drop[i].order = 0;
    batch->drop[i].table = 1;
    batch->drop[i].parts = 1;
    batch->needed = true;
}

/* Flushes the calling CPU's own translations of the space it runs. */
static void flush_self(struct mm_ctx *ctx, struct space *space)
{
    uint64_t generation = __atomic_load_n(&space->generation, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&space->seen[ctx->cpu], __ATOMIC_RELAXED) != generation) {
        port_flush_local(ctx, space->root);
        __atomic_store_n(&space->seen[ctx->cpu], generation, __ATOMIC_SEQ_CST);
    }
}

/* Bumps the generation and returns once no CPU can use a translation from before. */
static void flush_all(struct mm_ctx *ctx, struct space *space)
{
    uint64_t generation = __atomic_add_fetch(&space->generation, 1, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (unsigned cpu = 0; cpu < machine.cpus; cpu++) {
        if (flush_running(cpu) != space) {
            continue;
        }
        if (cpu == ctx->cpu) {
            flush_self(ctx, space);
            continue;
        }
        port_kick(ctx, cpu);
        while (flush_running(cpu) == space &&
               __atomic_load_n(&space->seen[cpu], __ATOMIC_ACQUIRE) < generation) {
            port_relax(ctx);
        }
    }
    __atomic_fetch_add(&space->stats.flushes, 1, __ATOMIC_RELAXED);
}

/* Is another CPU in the space's guest? */
static bool runs_elsewhere(const struct mm_ctx *ctx, const struct space *space)
{
    for (unsigned cpu = 0; cpu < machine.cpus; cpu++) {
        if (cpu != ctx->cpu && flush_running(cpu) == space) {
            return true;
        }
    }
    return false;
}

bool flush_alone(struct mm_ctx *ctx, struct flush_batch *batch)
{
    struct space *space = batch->space;

    if (runs_elsewhere(ctx, space)) {
        return false;
    }
    port_point(ctx, POINT_FLUSH, (uint64_t)(uintptr_t)space, batch->count);
    __atomic_add_fetch(&space->generation, 1, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (runs_elsewhere(ctx, space)) { /* it came before it could see the new generation */
        return false;
    }
    if (flush_running(ctx->cpu) == space) {
        flush_self(ctx, space);
    }
    __atomic_fetch_add(&space->stats.flushes, 1, __ATOMIC_RELAXED);
    batch->needed = false;
    port_point(ctx, POINT_FLUSHED, (uint64_t)(uintptr_t)space, batch->count);
    return true;
}

void flush_finish(struct mm_ctx *ctx, struct flush_batch *batch)
{
    unsigned tables = 0;

    if (batch->needed) {
        port_point(ctx, POINT_FLUSH, (uint64_t)(uintptr_t)batch->space, batch->count);
        flush_all(ctx, batch->space);
        port_point(ctx, POINT_FLUSHED, (uint64_t)(uintptr_t)batch->space, batch->count);
    }
    for (unsigned i = 0; i < batch->count; i++) {
        pfn_t f = batch->drop[i].frame;
        if (batch->drop[i].table) {
            table_put(ctx, f);
            tables++;
        } else {
            port_point(ctx, POINT_DROP, f.v,
                       batch->drop[i].order | (uint64_t)batch->drop[i].parts << 8);
            frame_put_run(ctx, f, batch->drop[i].order, batch->drop[i].parts);
        }
    }
    struct pool *pool = tables != 0 ? batch->space->payer.pool : NULL;
    if (pool != NULL && __atomic_load_n(&pool->wait_first, __ATOMIC_RELAXED) != NULL) {
        table_reap_some(ctx, pool, tables); /* who waits for memory is not to wait for a fault */
    }
    batch->count = 0;
    batch->needed = false;
}

enum cleave_status flush_enter(struct mm_ctx *ctx, struct space *space)
{
    __atomic_store_n(&cpu_state[ctx->cpu].running, space, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uint8_t state = __atomic_load_n(&space->state, __ATOMIC_SEQ_CST);
    if (state != SPACE_ALIVE) {
        flush_leave(ctx);
        return mm_fail(ctx, state == SPACE_FROZEN ? CLEAVE_FROZEN : CLEAVE_DYING, "space",
                       space->id, 1, 0);
    }
    flush_self(ctx, space);
    return CLEAVE_OK;
}

void flush_leave(struct mm_ctx *ctx)
{
    __atomic_store_n(&cpu_state[ctx->cpu].running, NULL, __ATOMIC_SEQ_CST);
}

bool flush_acknowledge(struct mm_ctx *ctx)
{
    struct space *space = cpu_state[ctx->cpu].running;
    if (space == NULL) {
        return false;
    }
    flush_self(ctx, space);
    if (__atomic_load_n(&space->state, __ATOMIC_SEQ_CST) != SPACE_ALIVE) {
        flush_leave(ctx);
        return false;
    }
    return true;
}

void flush_evict(struct mm_ctx *ctx, struct space *space)
{
    for (unsigned cpu = 0; cpu < machine.cpus; cpu++) {
        if (flush_running(cpu) == space && cpu == ctx->cpu) {
            flush_leave(ctx);
        }
        if (flush_running(cpu) == space) {
            port_kick(ctx, cpu);
        }
        while (flush_running(cpu) == space) {
            port_relax(ctx);
        }
    }
}

static bool asid_is(const struct asid_cpu *cpu, uint32_t id, pfn_t root, uint64_t owner)
{
    return cpu->of[id].owner == owner && cpu->of[id].root.v == root.v;
}

/* Identifier that `owner` already has; 0: none. */
static uint32_t asid_find(const struct asid_cpu *cpu, pfn_t root, uint64_t owner)
{
    if (asid_is(cpu, cpu->last, root, owner)) {
        return cpu->last;
    }
    for (uint32_t id = 1; id < cpu->limit; id++) {
        if (asid_is(cpu, id, root, owner)) {
            return id;
        }
    }
    return 0;
}

uint32_t asid_use(struct asid_cpu *cpu, pfn_t root, uint64_t owner, bool *flush)
{
    uint32_t id = asid_find(cpu, root, owner);
    if (id == 0) {
        if (cpu->next == 0 || cpu->next >= cpu->limit) {
            cpu->next = 1;
        }
        id = cpu->next++;
        cpu->of[id].owner = owner;
        cpu->of[id].root = root;
        cpu->of[id].stale = 1; /* what its last owner left, or what was there at boot */
    }
    cpu->last = id;
    *flush = cpu->of[id].stale != 0;
    cpu->of[id].stale = 0;
    return id;
}

void asid_forget(struct asid_cpu *cpu, pfn_t root)
{
    for (uint32_t id = 1; id < cpu->limit; id++) {
        if (cpu->of[id].root.v == root.v) {
            cpu->of[id].stale = 1;
        }
    }
}
