/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hosted port: the memory core in a Linux process, on simulated RAM, with simulated CPUs whose
 * TLBs use whatever stale translation they may. host.c is the machine and the port functions, cpu.c
 * the CPUs, tlb.c and hw.c what they remember and read, monitor.c the event log and the checks,
 * sched.c the exploration of schedules.
 *
 * A test in five minutes:
 *
 *     host_start(&(struct host_options){.frames = 65536, .cpus = 2});
 *     struct mm_ctx *ctx = host_ctx(0);
 *     struct pool *pool = host_pool(64 * level_size(1));
 *     struct space *space;
 *     ... space_create(ctx, pool, UINT64_MAX, &space), space_set_region(...) ...
 *     host_cpu_run(1, space);                       CPU 1 is in the guest from now on
 *     host_cpu_write(1, gpa(0x1000), "abc", 3);     a guest's store: faults are resolved
 *     ... any operation on CPU 0; CPU 1 acknowledges its flushes ...
 *     host_cpu_read(1, gpa(0x1000), buffer, 3);     reads through a stale entry if there is one
 *     host_tlb_check();                             no CPU may use what the tables no longer say
 *     host_stop();
 *
 * Whatever the model finds wrong is a failure: it prints what happened last and aborts, or ends
 * host_expect_panic(), or the schedule that is being explored.
 *
 * Which CPU runs what: an operation runs on the CPU of its context. A simulated CPU that was put
 * into a guest with host_cpu_run() and that no thread or coroutine owns is passive: it acknowledges
 * a kick when the flusher waits for it. One that a thread has attached acknowledges when that
 * thread calls host_poll(), waits for a lock, or ends an access. The build that ships (no MM_HOOKS)
 * has no points, no log and no TLB unless host_enable_tlb(true); what is left costs a few
 * instructions.
 */
#ifndef HOST_HOST_H
#define HOST_HOST_H

#include "fault.h"
#include "pool.h"
#include "port.h"
#include "pte.h"
#include "space.h"

/* --- The machine ------------------------------------------------------------------------------ */

/* A field that is zero has the default in brackets. */
struct host_options {
    uint64_t frames;                /* of simulated RAM, frame 0 included [65536] */
    unsigned cpus;                  /* [4, or MM_MAX_CPUS where that is less] */
    const struct pt_format *format; /* [ept_format] */
    bool huge_exec;                 /* huge leaves may be executable */
    bool zero_by_kernel; /* zeroing 2 MiB and more gives the memory back to the kernel, so
                            that a machine may be larger than this computer */
    bool backing_huge;   /* ask the kernel for huge pages under the simulated RAM */
};

/* Makes the machine: RAM and descriptors are reserved, not touched, so 1 TiB costs nothing until it
 * is used. All switches, counters and callbacks below are reset. `options` may be null. Exits with
 * a message when the kernel refuses the address space. */
void host_start(const struct host_options *options);
/* Takes it down; every pointer into it is dead. Nothing happens when there is none. */
void host_stop(void);

/* The context of CPU `cpu`; its budget is UINT64_MAX unless a test sets it. */
struct mm_ctx *host_ctx(unsigned cpu);

/* `pages` frames that nobody else is given, from a frame that is a multiple of level_pages(order):
 * for untyped memory, tables made by hand, devices. Never frame 0. Panics when RAM is used up. */
pfn_t host_take(uint64_t pages, unsigned order);
/* A pool of `bytes`, a multiple of a 2 MiB block; starts at a 1 GiB boundary if it is as large. */
struct pool *host_pool(uint64_t bytes);

struct host_counters {
    uint64_t bytes_copied, bytes_zeroed;
    uint64_t copies;  /* calls of port_copy_pages() */
    uint64_t kicks;   /* sent */
    uint64_t flushes; /* local flushes */
    uint64_t wakes, starved;
    uint64_t accesses; /* host_cpu_access(), pages */
    uint64_t faults;   /* of these: exits for a fault */
    uint64_t stale;    /* accesses that went through a translation the tables no longer say */
};
/* Sums over all threads since host_start() or host_reset_counters(). */
struct host_counters host_counters(void);
void host_reset_counters(void);

/* Seeds port_random(). */
void host_seed(uint64_t seed);

/* --- Failure injection and stops -------------------------------------------------------------- */

/* Refuses the `k`-th allocation from now (1: the next), once; 0: none. Counts from now on. */
void host_fail_allocation(uint64_t k);
/* Allocations seen since host_fail_allocation(); a test raises k until k is above this. */
uint64_t host_allocations(void);
/* True when the one that was to be refused has been, or one that host_watch() refused. */
bool host_allocation_failed(void);

/* What a run is told in which any allocation may be refused; it stays over host_start(). */
struct host_watch {
    /* Before each allocation; true refuses it. A schedule goes its own ways from then on. */
    bool (*refuse)(void);
    /* A machine is about to be taken down by host_stop(), or its pool could not be made. */
    void (*machine_ends)(void);
    /* A schedule ended, every CPU of it; `why` it failed, or null. `expected`: it may. */
    void (*schedule_ended)(const char *why, bool expected);
};
void host_watch(const struct host_watch *watch); /* null ends it */
/* Is there a machine? */
bool host_started(void);
/* Have several threads called the core? */
bool host_threaded(void);

typedef enum cleave_status host_step_t(struct mm_ctx *ctx, void *arg);
/* Calls `step` with a budget of `every` units each time until it does not return CLEAVE_AGAIN; its
 * last status goes to `*status` (may be null). Returns the number of calls. A failure after
 * 10,000,000 of them. */
uint64_t host_run_preempted(struct mm_ctx *ctx, host_step_t *step, void *arg, uint64_t every,
                            enum cleave_status *status);

/* Runs fn(arg); what it printed and true when it ended in a panic or a failure of the model. */
bool host_expect_panic(void (*fn)(void *arg), void *arg);
const char *host_panic_text(void);
/* Reports a failure as the model does. For checks in tests that must also end a schedule. */
_Noreturn void host_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Fails unless every context holds no lock (debug builds know). */
void host_check_locks(void);

/* --- Callbacks; null ends them ---------------------------------------------------------------- */

typedef void host_point_t(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                          void *arg);
/* Called at every port_point() of a hooked build, but not from within itself: it may run operations
 * of other CPUs. POINT_ENTRY comes before the change. */
void host_on_point(host_point_t *fn, void *arg);
void host_on_wake(void (*fn)(struct vcpu_wait *wait, void *arg), void *arg);
void host_on_starved(void (*fn)(struct space *space, void *arg), void *arg);

/* --- Simulated CPUs --------------------------------------------------------------------------- */

/* Puts `cpu` into the guest, or takes it out, as the world switch does. */
enum cleave_status host_cpu_run(unsigned cpu, struct space *space) MUST_CHECK;
void host_cpu_stop(unsigned cpu);
/* What a fault on this CPU waits with; null (the default): no memory is an error at once. */
void host_cpu_set_wait(unsigned cpu, struct vcpu_wait *wait);

/*
 * An access of the guest on `cpu`: `size` bytes at any address, taken from `buffer` for a write,
 * stored there (unless null) for a read or a fetch. Translates with the CPU's TLB, goes through
 * space_fault() as the exit handler does, and returns its status when that is not CLEAVE_OK. Pages
 * before the one that failed are done. CLEAVE_DYING when the CPU runs nothing. A fault that is
 * resolved 64 times without letting the access through is a failure (livelock).
 */
enum cleave_status host_cpu_access(unsigned cpu, gpa_t at, enum access access, void *buffer,
                                   uint64_t size) MUST_CHECK;
enum cleave_status host_cpu_read(unsigned cpu, gpa_t at, void *to, uint64_t size) MUST_CHECK;
enum cleave_status host_cpu_write(unsigned cpu, gpa_t at, const void *from,
                                  uint64_t size) MUST_CHECK;

/* --- Threads ---------------------------------------------------------------------------------- */

/* The calling thread runs `cpu` from now on: others do not acknowledge for it any more, and it
 * calls host_poll() often. Detach before the thread ends or stops polling. */
void host_cpu_attach(unsigned cpu);
void host_cpu_detach(unsigned cpu);
extern struct host_kick {
    uint32_t pending;
    uint32_t attached;
    uint64_t unused[7]; /* a cache line for each CPU */
} host_kicks[MM_MAX_CPUS];
void host_acknowledge(struct mm_ctx *ctx);
/* Acknowledges a kick, if there is one. */
static inline void host_poll(struct mm_ctx *ctx)
{
    if (__builtin_expect(__atomic_load_n(&host_kicks[ctx->cpu].pending, __ATOMIC_ACQUIRE), 0)) {
        host_acknowledge(ctx);
    }
}

/* --- The model TLB ---------------------------------------------------------------------------- */

/*
 * Every CPU keeps, per root table, each translation and each paging-structure entry that it has
 * read since that root was last flushed on it, with the rights of the walk that read it. An access
 * may use any of them, and may walk on from a remembered table through what that table holds now.
 */
enum host_tlb_mode {
    HOST_TLB_FRESH, /* the tables as they are */
    HOST_TLB_STALE, /* a stale translation wherever one lets the access through (default) */
    HOST_TLB_RANDOM /* any; one that forbids the access makes a spurious fault */
};
void host_tlb_mode(enum host_tlb_mode mode);
/* On by default in hooked builds only. */
void host_enable_tlb(bool on);

/* What CPUs in a guest read ahead before each change of an entry (hooked builds). */
enum host_speculation {
    HOST_SPECULATE_NONE,
    HOST_SPECULATE_RECENT, /* the paths to the last pages that they accessed (default) */
    HOST_SPECULATE_ALL     /* everything: exactly "ever readable"; small geometry, small tests */
};
void host_speculation(enum host_speculation what);
/* `cpu` reads ahead the path to `at`; nothing when it runs nothing. */
void host_tlb_prefetch(unsigned cpu, gpa_t at);

/* Fails when a CPU may use, for a page that it accessed lately, a translation that the tables do
 * not give: another frame, or more rights. To be called when no operation is under way (I5). */
void host_tlb_check(void);
/* Entries that `cpu` remembers for the root at `root`. */
uint64_t host_tlb_entries(unsigned cpu, pfn_t root);

/* What the hardware finds for `at` under `root`, decoded bit by bit and apart from hv/mm/. */
struct host_walk {
    bool present;
    unsigned level;            /* of the leaf, or of the entry that is not present */
    uint64_t frame;            /* of the page at `at` */
    unsigned rights;           /* RIGHT_*, AND over the levels */
    pte_t *slot[TABLE_LEVELS]; /* entries read, by level; null beneath `level` */
};
struct host_walk host_walk(pfn_t root, gpa_t at);

/* --- The monitor: log and checks -------------------------------------------------------------- */

/*
 * Hooked builds check at POINT_DROP that no CPU may still use the translation that held the
 * reference, and at POINT_FREE that no CPU may use any translation to the frame (I4); freed frames
 * and blocks up to 2 MiB are filled with 0xdb. What points say:
 *     POINT_ENTRY            a: address of the entry, b: its new value or the bits to be cleared
 *     POINT_FLUSH, FLUSHED   a: the space (pointer), b: references that the batch drops
 *     POINT_DROP             a: frame, b: order | parts << 8 (0 parts: one); order 255: a table;
 *                            as many as POINT_FLUSHED said are the batch's; others are checked
 *                            only when one operation is under way
 *     POINT_FREE             a: frame, b: order | parts << 8
 *     POINT_OWNER            a: its first frame, b: 1 by the run's mark, 0 by those of its blocks
 *     POINT_RELOCK           a: id of the space, b: its page
 */
#define HOST_TABLE 255u
#define HOST_POISON 0xdb
void host_poison(bool on);

/* Kinds below POINT_END are points. */
enum host_event {
    HOST_FLUSH = POINT_END, /* a: root */
    HOST_KICK,              /* a: CPU that is kicked */
    HOST_ACKNOWLEDGE,
    HOST_ENTER, /* a: root */
    HOST_LEAVE,
    HOST_COPY,  /* a: frame of the target, b: pages */
    HOST_ZERO,  /* a: frame, b: pages */
    HOST_FAULT, /* a: address, b: enum access */
    HOST_STALE, /* a: address, b: frame used */
    HOST_WAKE,
    HOST_STARVED,
    HOST_EVENTS
};
#define HOST_NO_CPU 0xffffffffu
struct host_record {
    unsigned kind;
    unsigned cpu;
    uint64_t a, b;
};

/* The log keeps the last 16,384 events. Positions count from 0, the oldest kept. */
#define HOST_LOG_NONE UINT64_MAX
void host_log_enable(bool on); /* on by default in hooked builds */
void host_log_clear(void);
uint64_t host_log_length(void);
struct host_record host_log_at(uint64_t position);
/* First event of `kind` at or after `from`; HOST_LOG_NONE. */
uint64_t host_log_find(unsigned kind, uint64_t from);
uint64_t host_log_count(unsigned kind);
/* True when both happened and the last `first` lies before the first `second`. */
bool host_log_ordered(unsigned first, unsigned second);
void host_log_print(uint64_t last);

/* --- Schedules -------------------------------------------------------------------------------- */

#define HOST_SCHED_CPUS 8u
#define HOST_SCHED_TEXT 512u

typedef void host_body_t(struct mm_ctx *ctx, void *arg);

/*
 * A concurrent test. `setup` makes the machine and all it needs, from nothing, each time in the
 * same way; `body[i]` runs as CPU i on a stack of its own; `check` (may be null) then says whether
 * all is well. CPUs switch at port_point(), at guest accesses, at host_sched_yield() and where one
 * waits. A switch away from a CPU that could go on is a preemption.
 */
struct host_sched {
    void (*setup)(void *arg);
    unsigned cpus;
    host_body_t *body[HOST_SCHED_CPUS];
    bool (*check)(void *arg);
    void *arg;
    unsigned max_preemptions;
    uint64_t max_schedules; /* 0: no limit */
    uint64_t random;        /* this many random schedules, instead of all */
    uint64_t seed;          /* for these */
    uint32_t points;        /* bits 1 << enum port_point to switch at; 0: all */
    bool quiet;             /* print nothing */
    /* results */
    uint64_t schedules;
    bool complete;                /* every schedule within the bound was run */
    char failed[HOST_SCHED_TEXT]; /* the failing schedule; "" for none */
    char why[HOST_SCHED_TEXT];
};

/* Runs all schedules with at most `max_preemptions`, fewest deviations first. True when all passed;
 * else the first that failed is printed, with the string that host_sched_replay() takes. */
bool host_sched_explore(struct host_sched *sched);
/* Runs the one schedule that `schedule` names ("step:cpu,step:cpu"; "" is the plain one). */
bool host_sched_replay(struct host_sched *sched, const char *schedule);
/* A point of a body's own; nothing outside an exploration. */
void host_sched_yield(void);
/* Does a body run? */
bool host_sched_running(void);
/* Ends the body that runs as if it had returned; comes back, and nothing is done, when its CPU
 * holds a lock. */
void host_sched_leave(void);

#endif
