/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Domains and their virtual CPUs. A domain is a space, its vcpus, a name and who made it; a
 * snapshot is a domain whose space is frozen and whose vcpus are records. Each object is one frame
 * of the domain's pool, charged to its space's account.
 *
 * A domain may act on itself and on what it made, and what that made: authority is the chain of
 * `parent`. The control domain may act on all. The object of a domain that is gone stays as long as
 * a call uses it or a child names it.
 */
#ifndef KERNEL_DOMAIN_H
#define KERNEL_DOMAIN_H

#include "cleave/abi.h"
#include "cleave/identity.h"
#include "fault.h"
#include "fork.h"
#include "hvm.h"
#include "ids.h"
#include "klock.h"
#include "lapic.h"
#include "mtrr.h"
#include "notify.h"
#include "space.h"
#include "state.h"
#include "timer.h"

#define DOMAIN_DEPTH_MAX 4096u

enum vcpu_state {
    VCPU_OFF,     /* not started, or its domain has ended */
    VCPU_READY,   /* could run; in the run queue unless its domain is paused */
    VCPU_RUNNING, /* on `cpu` */
    VCPU_BLOCKED  /* until sched_wake() */
};

/* What a vcpu of a parent waits for besides the core's queues. */
enum vcpu_sleep {
    SLEEP_NONE,
    SLEEP_HALT,
    SLEEP_SIPI, /* a start-up after INIT */
    SLEEP_CORE,
    SLEEP_CHILD,
    SLEEP_QUOTA
};

/* Bytes of a result that copies of a vcpu take over, as its call must not be done twice. That of a
 * call whose result is larger only looks, and is executed again. */
#define RESULT_KEPT 96u

/* How far the walk of a domain's tables has come, and what it found. */
struct stat_walk {
    uint32_t domain; /* 0: none is under way */
    gfn_t at;
    struct space_usage usage;
    uint64_t copied, zeroed; /* by all CPUs, in bytes, when it began */
};

/* What was counted at one moment: the TSC, and pages copied and zeroed by all CPUs. */
struct stat_mark {
    uint64_t tsc, copied, zeroed;
};

struct vcpu {
    struct vcpu_wait wait; /* the core's: first, so that port_wake() finds the vcpu */
    struct domain *domain;
    uint32_t number;
    /* Under the run queue's lock: */
    uint8_t state; /* enum vcpu_state */
    uint8_t queued;
    uint8_t woken; /* sched_wake() came before it was blocked */
    unsigned cpu;
    struct vcpu *next, *previous;
    uint8_t attention; /* atomic: see vcpu_attend() */
    /* The vcpu's own CPU's: */
    uint8_t sleep;        /* enum vcpu_sleep: what it is to be blocked for after this exit */
    uint8_t halted;       /* HLT with interrupts off, or waits for a start-up; siblings read it */
    uint8_t ending;       /* enum cleave_reason with which its domain is to end, code in end_code */
    uint8_t started;      /* its state was set: by a start, a fork or a boot configuration; not
                             after INIT */
    uint8_t stopped_op;   /* enum cleave_op of the call that left stopped_in half-way */
    uint16_t result_size; /* bytes of `result` that a call has still to write to its guest */
    uint32_t end_code;
    struct { /* guest.c: the page that the call of the moment named last */
        uint64_t page;
        gpa_t at;
        bool known, writable;
    } walked;
    uint64_t exits, hypercalls;
    uint64_t ran; /* ticks of the TSC on a CPU */
    struct cleave_error error;
    struct hvm_vcpu hvm;
    struct lapic lapic; /* these three of a snapshot, too */
    struct mtrr mtrr;
    struct xen_vcpu xen;  /* hv/xen/ */
    struct timer timer;   /* timer.h */
    uint64_t clock_shift; /* atomic: ticks that its TSC is to lose; guest_clock.h */
    uint64_t saved_clock_shift;
    struct hvm_state saved;    /* where reset goes back to; of a snapshot, the state itself */
    pfn_t saved_xsave;         /* PFN_NONE: none is kept */
    uint8_t saved_halted;      /* `halted` then, */
    uint8_t saved_result_size; /* `result_size`, */
    uint8_t saved_result[RESULT_KEPT]; /* `result`, */
    struct lapic saved_lapic;          /* `lapic`, */
    struct mtrr saved_mtrr;            /* `mtrr` */
    struct xen_vcpu saved_xen;         /* and `xen` */
    struct domain *stopped_in; /* whose space a call of it left half-way, with a reference; or null
                                */
    struct stat_walk walk;     /* of a CLEAVE_OP_STAT that was stopped */
    union {
        struct cleave_stat stat; /* the largest */
    } result;
};
_Static_assert(sizeof(struct vcpu) <= PAGE_SIZE, "a vcpu object is one frame");

/* What was written since when; hv/xen/log_dirty.c. Under the domain's `busy`. */
struct domain_log {
    struct space *clean; /* the memory as it was then; null: it is not asked */
    struct space *next;  /* as it was when the call began that is under way, of those that clean */
    struct space *old;   /* being destroyed */
    uint64_t serial;     /* of the call that is under way, */
    uint64_t at;         /* the page up to which it is done, */
    uint64_t dirty;      /* and the pages that it found */
    uint64_t limit;      /* frames of the domain's quota without it */
};

struct domain {
    uint32_t id;
    uint32_t references; /* atomic: table, calls, children */
    char name[CLEAVE_NAME_SIZE];
    uint8_t handle[16];        /* Xen's: whatever its maker gave */
    uint8_t blank;             /* made by Xen's ABI and still empty: a fork may take its place */
    uint64_t pages, pages_max; /* in Xen's books: it has, and may have */
    struct domain *next_named; /* under the table's lock */
    struct domain *parent;     /* null: made at boot, or by the debug console */
    uint32_t origin; /* id of the domain or snapshot that it was forked from; 0: of none */
    uint8_t at_boot; /* the boot configuration has it */
    uint8_t control; /* the control domain: it may act on all others; Xen's ABI calls it 0 */
    uint32_t depth;
    struct pool *pool;
    struct space *space; /* null once destroyed; see domain_use() */
    uint32_t space_id;   /* of the space, in its pool */
    uint32_t users;      /* calls inside domain_use(); under the table's lock */
    uint8_t going;       /* no further one begins; under the table's lock */
    uint32_t vcpu_count;
    struct vcpu *vcpu[CLEAVE_VCPUS_MAX];
    uint32_t asked_pauses; /* of these: by CLEAVE_OP_PAUSE */
    uint32_t paused;       /* under the run queue's lock: pauses that nest; 0: runs */
    struct klock busy;     /* try only: a call changes the domain as a whole */
    uint8_t state;         /* enum cleave_state */
    uint8_t snapshot;
    uint8_t has_base;  /* vcpu[]->saved holds the state that reset goes back to */
    uint8_t resetting; /* a reset was begun: paused until it is done */
    uint8_t reported;  /* its end was told by CLEAVE_OP_WAIT */
    uint32_t reason, code;
    uint32_t result_size;
    uint8_t *result; /* a frame; null where the size is 0 */
    uint8_t untold;  /* atomic: `identity` and `data` are to be stored in its memory */
    struct cleave_identity identity;
    uint8_t *data;           /* a frame; null: none was given */
    struct channel *channel; /* on which it is told of writes; null: none yet */
    uint64_t created;        /* TSC */
    struct stat_mark asked;  /* when the fork was that made it */
    struct stat_mark entry;  /* from there to its first vcpu's first entry; tsc 0: not yet */
    struct stat_mark start;  /* from there to the last entry that began at the first instruction */
    uint64_t start_at;       /* which is there */
    uint8_t starts;          /* that vcpu has not got beyond it */
    uint64_t tsc_offset;     /* added to the TSC, for each of its vcpus that starts */
    uint64_t clock_stopped;  /* TSC since which its clock stands still; 0: it goes; guest_clock.h */
    uint64_t base_tsc, base_tsc_offset; /* when the base was made that reset goes back to */
    uint8_t clock_runs;                 /* also while it is paused */
    uint8_t no_interrupts;              /* a fork that is to hear of none, nor of NMIs */
    uint8_t has_window;                 /* its memory map has the pages of XEN_WINDOW */
    struct xen_domain *xen;             /* hv/xen/; null: it made no such call yet */
    struct xen_domain *saved_xen;
    struct domain_log log;
    struct grants *grants; /* grant.h; null: none were given yet */
    struct klock grants_lock;
    struct terminal *terminal; /* null: it wrote nothing yet */
};
_Static_assert(sizeof(struct domain) <= PAGE_SIZE, "a domain object is one frame");

/* --- Table ------------------------------------------------------------------------------------ */

/* The domain of this id with a reference more; null when there is none. */
struct domain *domain_get(uint32_t id);
void domain_put(struct mm_ctx *ctx, struct domain *domain);
/* The domain's space, which stays until domain_unuse(); null when it is gone or going. */
struct space *domain_use(struct domain *domain);
void domain_unuse(struct domain *domain);
/* The next domain with an id above `id`, with a reference; null at the end. */
struct domain *domain_next(uint32_t id);
/* Is `domain` the caller or descended from it, or the caller the control domain? */
bool domain_commands(const struct domain *caller, const struct domain *domain);
/* May it be chosen: it has its zero byte within CLEAVE_NAME_SIZE, 1 to 63 of letters, digits and -
 * _ ., not "fork-" or "domain-" in front, which the names that nobody chose have, before the id:
 * those are free wherever the id is. */
bool domain_name_legal(const char *name);
/* Holds `count` ids in a row for domains about to be made; 0 when there are none. */
uint32_t domain_ids_take(uint32_t count);
/* Holds that id; false when it is taken, or none. */
bool domain_id_take(uint32_t id);
void domain_ids_drop(uint32_t first, uint32_t count);

/* --- Making and ending ------------------------------------------------------------------------ */

/* A domain with id `id` (held by domain_ids_take()) over `space`, with `vcpus` vcpus that are off;
 * `records` makes them records of a snapshot. Nobody finds it before domain_enter(), so that it is
 * whole when others act on it. The space is its own from then on; on error that is discarded, too.
 * CLEAVE_NO_MEMORY, CLEAVE_QUOTA. */
enum cleave_status domain_make(struct mm_ctx *ctx, uint32_t id, const char *name,
                               struct domain *parent, struct space *space, uint32_t vcpus,
                               bool records, struct domain **out) MUST_CHECK;
/* Puts it under its id: from now on others act on it, unless the caller holds its `busy`. False
 * when its name was `chosen` and another domain of its pool has the name, or any domain does and
 * its maker is the control domain, the boot configuration or the debug console. */
bool domain_enter(struct domain *domain, bool chosen) MUST_CHECK;
/* Gives it another name, a legal one; false when another domain of its pool has that, or any does
 * and `namer`, who asks for it, is the control domain. The caller holds its `busy`. */
bool domain_rename(struct domain *domain, const char *name, const struct domain *namer) MUST_CHECK;
/* No call begins to use the domain's space from now on; false while one still does. Undone by
 * domain_reopen(). The caller holds its `busy`. */
bool domain_close(struct domain *domain) MUST_CHECK;
void domain_reopen(struct domain *domain);
/* Puts `domain`, which was not entered, in the place of `old`, whose id and name it has and which
 * is closed and has never run; `old` is taken away. */
void domain_replace(struct mm_ctx *ctx, struct domain *domain, struct domain *old);
/* Takes back a domain that was not entered, with its space. Keeps ctx->error. */
void domain_discard(struct mm_ctx *ctx, struct domain *domain);
/* Keeps `state` of a vcpu that does not run as what reset goes back to. */
enum cleave_status vcpu_keep(struct mm_ctx *ctx, struct vcpu *vcpu, const struct hvm_state *state,
                             const void *xsave) MUST_CHECK;

/* A call that was stopped will not be gone on with: what it left half-way is given up, so that
 * others get at that space. Of a vcpu of this CPU, or one that does not run. Keeps ctx->error. */
void vcpu_abandon(struct mm_ctx *ctx, struct vcpu *vcpu);
/* Takes a vcpu that does not run out of every queue of the core. */
void vcpu_cancel_waits(struct mm_ctx *ctx, struct vcpu *vcpu);

/* Takes `busy` as soon as the call that has it stops or ends, before all that try it. For the debug
 * console: on CPU 0 between two vcpus, with no lock held. */
void domain_hold(struct mm_ctx *ctx, struct domain *domain);
/* Between two tries of what answers CLEAVE_AGAIN, there as well: lets others run, and the call that
 * has the domain stop or end. */
void domain_rest(struct mm_ctx *ctx, struct domain *domain);

/* Ends the domain: its vcpus are stopped and taken out of queues, its parent's waiters woken. The
 * caller holds `busy`. `self` is the vcpu on whose behalf, or null. */
void domain_end(struct mm_ctx *ctx, struct domain *domain, struct vcpu *self, uint32_t reason,
                uint32_t code);
/* Ends it if need be and gives its memory back. CLEAVE_AGAIN until done; CLEAVE_BUSY. The caller
 * holds a reference. */
enum cleave_status domain_destroy(struct mm_ctx *ctx, struct domain *domain,
                                  struct vcpu *self) MUST_CHECK;

/* Stops all vcpus but `self` and returns when none runs; they start again with domain_resume(). */
void domain_stop(struct mm_ctx *ctx, struct domain *domain, struct vcpu *self);
void domain_resume(struct domain *domain);

/* The frame of an object that object_alloc() gave. */
pfn_t object_frame(const void *object);
/* A frame for an object of the kernel, zeroed, charged to the payer's account. */
enum cleave_status object_alloc(struct mm_ctx *ctx, struct payer *payer, pfn_t *out) MUST_CHECK;
void object_free(struct mm_ctx *ctx, pfn_t f);

#endif
