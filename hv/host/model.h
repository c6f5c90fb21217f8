/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the hosted port share among themselves. */
#ifndef HOST_MODEL_H
#define HOST_MODEL_H

#include "host.h"

/* Counters of one thread, so that threads do not meet in a cache line. */
struct host_thread {
    struct host_counters counters;
    uint64_t random;
    uint64_t unused[5];
};
struct host_thread *host_thread(void);
/* Threads that have called the port so far. */
uint32_t host_threads(void);

/* The switches of this run; constant while operations are under way. */
struct host_state {
    bool started;
    bool tlb;
    bool log;
    bool poison;
    bool npt;
    bool zero_by_kernel;
    enum host_tlb_mode mode;
    enum host_speculation speculation;
    struct mm_ctx ctx[MM_MAX_CPUS];
};
extern struct host_state host;
extern const struct host_watch *host_watched; /* null: none */

/* Serializes what touches the TLB of another CPU; nests. Never held across a callback, a switch or
 * a call into the core. */
void model_lock(void);
void model_unlock(void);

/* --- monitor.c -------------------------------------------------------------------------------- */

/* Appends to the log if that is on. */
void monitor_record(unsigned kind, unsigned cpu, uint64_t a, uint64_t b);
void monitor_reset(void);

/* --- hw.c: tables as the hardware walks them -------------------------------------------------- */

enum hw_kind { HW_ABSENT, HW_TABLE, HW_LEAF, HW_BROKEN };

struct hw_entry {
    enum hw_kind kind;
    unsigned rights; /* RIGHT_*, of this entry alone */
    uint64_t frame;
    const char *broken; /* why, for HW_BROKEN */
};

/* The entry for `page` in a table of `level` entries; fails on one that no CPU accepts. */
struct hw_entry hw_read(uint64_t table, unsigned level, uint64_t page);
pte_t *hw_slot(uint64_t table, unsigned level, uint64_t page);
/* Sets accessed (and dirty) in an entry that still leads to `target`, atomically. */
void hw_mark(pte_t *slot, unsigned level, uint64_t target, bool dirty);
/* The same along a walk that found a leaf; dirty in the leaf of a write. */
void hw_mark_walk(const struct host_walk *walk, bool write);

/* --- cpu.c, tlb.c ----------------------------------------------------------------------------- */

void cpu_reset(void);
void tlb_reset(void);
/* Translates `page` for an access that needs `right`. True when it may pass: `*frame` is where to.
 */
bool tlb_translate(unsigned cpu, uint64_t page, unsigned right, uint64_t *frame);
void tlb_flush(unsigned cpu, pfn_t root);
/* `cpu` (re)enters the guest that it runs, if any. */
void tlb_load_root(unsigned cpu);
/* Reads ahead on every CPU that is in a guest; before an entry changes. */
void tlb_speculate(void);
/* Fails when a CPU may still use a translation to what is given up. */
struct tlb_gone {
    uint64_t frame, pages;
    bool table;                /* a table; else frames that leaves map */
    bool dropped;              /* one reference: what the tables still give is another's */
    const struct space *space; /* only this space's translations; null: all */
};
void tlb_check_gone(const struct mm_ctx *ctx, const struct tlb_gone *gone);

/* --- sched.c ---------------------------------------------------------------------------------- */

/* True while a coroutine runs. */
bool sched_active(void);
/* May switch to another coroutine. */
void sched_point(enum port_point point);
/* The current coroutine waits: runs another. False when there is no other. */
void sched_wait(void);
/* The same, before a guest's access: a kick reaches the CPU while it stands there. */
void sched_guest_point(void);
/* True when a coroutine acknowledges for `cpu`: one that is not in its guest and has not ended. */
bool sched_owns(unsigned cpu);
/* Ends the schedule that runs with a failure. */
_Noreturn void sched_fail(const char *text);
/* From here on the schedule is not the one that was to be repeated. */
void sched_diverge(void);

#endif
