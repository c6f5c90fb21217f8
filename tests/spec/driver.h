/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The randomized driver: makes random calls to the core and to the reference, and compares
 * statuses, all bytes, rights and policies, and the core's own audit. A run consists of episodes,
 * each on a fresh machine; what a step does depends on the seed, the episode, the step and the
 * state only.
 */
#ifndef DRIVER_H
#define DRIVER_H

#include "abstract.h"
#include "fault.h"
#include "fork.h"
#include "host.h"
#include "notify.h"
#include "pager.h"
#include "pin.h"
#include "reference.h"

/* One shard of a randomized test. */
struct spec_shard {
    const char *label;
    unsigned steps;        /* in thousands */
    unsigned episode;      /* steps on one machine */
    bool npt;              /* NPT entries, else EPT */
    bool huge_exec;        /* huge leaves may be executable */
    unsigned least_blocks; /* the pool's size in 2 MiB blocks: at least ... */
    unsigned most_blocks;  /* ... and at most */
    unsigned spaces;       /* alive at a time */
    bool ragged;           /* ranges are single pages or long, so that regions have many words */
    unsigned memory;       /* 2 MiB blocks of private memory that a new space begins with, at 0 */
    unsigned resize; /* before one step in so many the pool gets another size, up to most_blocks; 0:
                        never */
};

#define SPEC_LOG 40
#define SPEC_LINE 180
#define SPEC_VCPUS 4

/* A guest's or device's context that waits in the core. */
struct spec_vcpu {
    struct vcpu_wait wait;
    bool waiting;   /* queued in the core and not yet woken */
    unsigned space; /* that its CPU runs; REF_SPACES for none */
    bool pending;   /* it waited and is to make the same access again */
    uint64_t at;
    enum access access;
};

/* A subscriber, and the events that it has taken and not decided. */
#define SPEC_CHANNELS 3
struct spec_channel {
    struct channel *core; /* null: none */
    unsigned number;      /* in the reference */
    bool asynchronous;
    uint8_t grain;
    uint64_t max_dirty;
    unsigned events;
    struct event event[CHANNEL_EVENTS];
};

struct world {
    const struct spec_shard *shard;
    uint64_t seed;   /* of this episode */
    uint64_t random; /* of this step */
    unsigned step;
    unsigned lines; /* of the log */
    struct mm_ctx *ctx;
    struct pool *pool;
    uint64_t pool_free; /* of the empty pool */
    uint64_t resized;   /* times that it got another size */
    struct ref *ref;
    struct space *space[REF_SPACES];
    bool changing[REF_SPACES]; /* a preempted call has to be finished: the content is between two */
    /* Forked with a reservation, and not given more memory since: UINT64_MAX, for the worst case;
     * else of so many frames; 0: not. */
    uint64_t promised[REF_SPACES];
    uint32_t pin[REF_PINS];
    struct spec_channel channel[SPEC_CHANNELS];
    unsigned channels;     /* made so far */
    struct space *control; /* the pager's space */
    struct pager *pager;
    struct load_request load[PAGER_LOADS]; /* taken and not given back */
    unsigned loads;
    unsigned forgotten;                /* spaces destroyed so far */
    struct spec_vcpu vcpu[SPEC_VCPUS]; /* by CPU; CPU 0 is the one that operates */
    pfn_t device;                      /* level_pages(1) frames that are not in the pool */
    bool nested;                       /* in a call between two parts of a preempted one */
    struct space *stopped;             /* its space, where nothing of it is to be seen yet */
    void *scratch;
    uint64_t scratch_bytes;
    uint64_t free_before; /* unreserved frames before the call */
    /* What is written is a page of this space's, whose account pays for its copy; the mapper is
     * told that there is no memory. Null: a page of its own, or nothing is written. */
    const struct space *owner;
    bool injected; /* an allocation of an earlier part of the call was made to fail */
    char log[SPEC_LOG][SPEC_LINE];
    /* Pages that the step may have changed: what a quick comparison looks at. */
    uint64_t touched_start, touched_end;
    uint64_t applied, refused, exhausted; /* calls that succeeded, failed as foreseen, ran dry */
    uint64_t history; /* hash of all that was called, with arguments and statuses */
};

/* Runs a shard; failures are the test's. `whole` is the number of steps between two comparisons of
 * everything: 1, or more where only what a step touched is compared after it. In run.c. */
void spec_run(const struct spec_shard *shard, unsigned whole);
/* Runs one episode of a shard with the operations `only` (null: all), and compares everything after
 * each step. */
void spec_run_episode(const struct spec_shard *shard, uint64_t seed, const char *only);

/* --- An episode ------------------------------------------------------------------------------- */

/* Makes the machine and an empty world. */
void spec_begin(struct world *w, const struct spec_shard *shard, uint64_t seed);
/* Makes step `w->step`, and compares. */
void spec_step(struct world *w, unsigned whole);
/* Destroys everything, wants every frame back, and takes the machine down. */
void spec_finish(struct world *w);
/* The operations that take part: "map,fork,write"; null: all. */
extern const char *spec_only;
/* Print nothing: only the outcome counts. */
extern bool spec_quiet;

/* --- What the machine below provides: run.c, or tests/trace/ ---------------------------------- */

/* Also the functions of host.h that the operations call. */

/* Makes a machine of SPEC_VCPUS CPUs with a pool of `blocks` blocks of 2 MiB, and sets `ctx`,
 * `device` and `pool`. Calls of port_wake() come to spec_woken() until it is taken down. */
void spec_start_machine(struct world *w, uint64_t blocks);
void spec_stop_machine(void);
void spec_woken(struct world *w, const struct vcpu_wait *wait);
/* Fails unless locks and translations are as they must be between two operations. */
void spec_check_machine(void);
/* Ends the run with a failure; `kind` (1 to 90) tells failures apart. */
_Noreturn void spec_stop(int kind);

/* --- For the operations ----------------------------------------------------------------------- */

struct spec_op {
    const char *name;
    unsigned weight;
    bool enabled;
    void (*run)(struct world *w);
};

uint64_t spec_below(struct world *w, uint64_t n);
bool spec_chance(struct world *w, unsigned one_in);
uint64_t spec_hash(const char *text);
/* Writes the line of this step's log. */
void spec_say(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Ends the test: prints the seed, the step and the last operations. */
_Noreturn void spec_fail(struct world *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Prints the last operations, and how to repeat them. */
void spec_print_log(const struct world *w);
/* Notes that pages [start, end) may have changed, in whatever space. */
void spec_touch(struct world *w, uint64_t start, uint64_t end);

/* Compares a status with the one foreseen. True when the call succeeded, so that the reference does
 * the same. Running dry is allowed instead of success when fewer than `need` frames were there. */
bool spec_agree(struct world *w, enum cleave_status got, enum cleave_status expected,
                struct space *payer, uint64_t need);
/* Would `need` more frames pass the quota of a space? */
bool spec_out_of_quota(const struct world *w, const struct space *payer, uint64_t need);
/* An allocation of this call was made to fail. */
bool spec_injected(const struct world *w);
/* Does the reservation of space `s` cover `need` frames? */
bool spec_is_promised(const struct world *w, unsigned s, uint64_t need);
/* Frames that are free and not reserved. */
uint64_t spec_free(const struct world *w);
/* Between two parts of a preempted call: now and then does something else elsewhere. */
void spec_preempted(struct world *w, unsigned space);
/* Destroys everything. */
void spec_end(struct world *w);
/* Compares everything (or what was touched) now. */
void spec_compare(struct world *w, bool everything);

/* Number of a random space in one of the lives of `lives` (bits), REF_SPACES when there is none. */
unsigned spec_pick_space(struct world *w, unsigned lives);
#define SPEC_ALIVE (1u << REF_ALIVE)
#define SPEC_FROZEN (1u << REF_FROZEN)
#define SPEC_DYING (1u << REF_DYING)
#define SPEC_ANY (SPEC_ALIVE | SPEC_FROZEN | SPEC_DYING)

struct spec_range {
    uint64_t at, size; /* bytes */
};
/* A page of the space, more often than not one with memory. */
uint64_t spec_pick_page(struct world *w, unsigned space);
/* A legal range of a few pages, or of whole blocks. */
struct spec_range spec_pick_range(struct world *w, unsigned space);
/* The same, but now and then not legal: misaligned, empty, wrapping or past the width. */
struct spec_range spec_pick_any_range(struct world *w, unsigned space);

#endif
