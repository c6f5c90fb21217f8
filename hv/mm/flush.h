/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Translations in CPUs: who may hold them, how they are invalidated, and when a reference may be
 * dropped. A batch collects the references that one change took out of a space's tables; finishing
 * it is the only place that drops them, after every CPU that could cache them has flushed.
 *
 *   CPU entering a guest            flusher
 *   running[cpu] = space            change entries
 *   fence                           space->generation += 1
 *   g = space->generation           fence
 *   if seen[cpu] != g: flush local  for each cpu with running[cpu] == space: kick, wait until
 *   seen[cpu] = g                     seen[cpu] >= generation or running[cpu] != space
 *                                   drop
 *
 * Either the CPU sees the new generation and flushes before it runs, or the flusher sees it running
 * and waits. A CPU that is elsewhere flushes when it comes back. Generations are 64 bits wide and
 * never wrap; a new space has seen[] = 0 and generation 1, so a recycled root page is flushed on
 * each CPU before its first use there.
 */
#ifndef MM_FLUSH_H
#define MM_FLUSH_H

#include "frame.h"
#include "types.h"

struct space;

#define FLUSH_DROPS 24

struct flush_batch {
    struct space *space;
    bool needed; /* a translation that was readable changed or went */
    unsigned count;
    struct {
        pfn_t frame;
        uint8_t order;  /* of a data frame */
        uint8_t table;  /* a table (dead ones go to the reap list) */
        uint16_t parts; /* consecutive frames */
    } drop[FLUSH_DROPS];
};

static inline void flush_begin(struct flush_batch *batch, struct space *space)
{
    batch->space = space;
    batch->needed = false;
    batch->count = 0;
}
/* Something readable changed: the flush must happen even if nothing is dropped. */
static inline void flush_need(struct flush_batch *batch) { batch->needed = true; }

/* Adds references that the batch drops once flushed. When the batch is full it is finished first,
 * which the caller must allow: no table or higher lock is held where `flush_room` is below what the
 * caller adds. */
static inline unsigned flush_room(const struct flush_batch *batch)
{
    return FLUSH_DROPS - batch->count;
}
void flush_drop_frames(struct flush_batch *batch, pfn_t f, unsigned order, uint64_t parts);
void flush_drop_table(struct flush_batch *batch, pfn_t table);

/* Flushes, waits for the acknowledgement of every CPU that runs the space, and drops. The batch is
 * empty afterwards. No table, run or pool lock is held; the space's lock may be. */
void flush_finish(struct mm_ctx *ctx, struct flush_batch *batch);

/* --- Called by the world switch (or the simulated CPU) ---------------------------------------- */

/* The CPU of `ctx` is about to run `space`: publishes it and flushes if it must. The space is
 * alive: CLEAVE_DYING otherwise, CLEAVE_FROZEN for a snapshot, and the CPU runs nothing. */
enum cleave_status flush_enter(struct mm_ctx *ctx, struct space *space) MUST_CHECK;
/* It left guest mode for good (it will call flush_enter before it runs any space again). */
void flush_leave(struct mm_ctx *ctx);
/* It was kicked, or came out of the guest for another reason while flushes may be pending: flushes
 * if the generation moved, and acknowledges. True when the CPU keeps running the space; false when
 * it runs none any more, because the space is dying. */
bool flush_acknowledge(struct mm_ctx *ctx);
/* Makes every CPU leave a space that is dying; returns when none runs it. No lock is held. */
void flush_evict(struct mm_ctx *ctx, struct space *space);
/* The space that CPU `cpu` published; null for none. */
struct space *flush_running(unsigned cpu);

/* --- Address-space identifiers (AMD ASIDs, Intel VPIDs) --------------------------------------- */

/* Per CPU: hands the spaces that it runs identifiers from 1 to limit - 1. When they run out, all
 * are taken back at once and the CPU flushes everything. */
struct asid_cpu {
    uint64_t generation; /* starts at 1 */
    uint32_t next;
    uint32_t limit;
};
struct asid {
    uint64_t generation; /* of the CPU's asid_cpu when it was given; 0: never */
    uint32_t value;
};
/* Identifier of a space on this CPU. `*flush_all` is set when the CPU must flush all identifiers
 * before the guest runs. */
uint32_t asid_use(struct asid_cpu *cpu, struct asid *space_on_cpu, bool *flush_all);

#endif
