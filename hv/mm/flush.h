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

/* Flushes where that waits for nobody; table locks may be held. True: no CPU can use a translation
 * from before, and flush_finish() only drops. False: another CPU runs the space, and nothing of the
 * batch is done. */
bool flush_alone(struct mm_ctx *ctx, struct flush_batch *batch);

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

/*
 * A CPU's own table: which identifier its caches use for whom. Two vcpus of one space have
 * different CR3s and so need different identifiers; a flush of their nested root must reach both.
 * An `owner` is a number that is never used again: a vcpu takes a new one when it has run on
 * another CPU (where it may have invalidated what is still cached here), and when its state is
 * replaced.
 */
#define ASID_MAX 64

struct asid_cpu {
    uint32_t limit; /* identifiers 1 .. limit - 1; at least 2, at most ASID_MAX */
    uint32_t next;  /* the next one to be taken back, round robin */
    uint32_t last;  /* the one given last: looked at first */
    struct {
        uint64_t owner; /* 0: never given */
        pfn_t root;     /* of the nested tables that it was used with */
        uint32_t stale; /* to be flushed before its next use */
    } of[ASID_MAX];     /* [0] is the host's */
};

/* The identifier under which `owner` (not 0) runs on this CPU with the nested tables at `root`:
 * the one that it has, or one taken back from another. `*flush` is set when this identifier must be
 * flushed before the guest runs, which the caller does. */
uint32_t asid_use(struct asid_cpu *cpu, pfn_t root, uint64_t owner, bool *flush);
/* Every identifier used with `root` must be flushed on this CPU at its next use (for
 * port_flush_local() where nested translations are tagged with ASIDs). */
void asid_forget(struct asid_cpu *cpu, pfn_t root);

#endif
