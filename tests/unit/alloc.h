/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every allocation of a test made to fail, in turn. A first run counts the allocations; a second
 * one forks at each of them, and in the child that one is refused while the second run goes on. The
 * child is the test with its k-th allocation refused, and costs what is left of the test.
 *
 * In the child the call that met the refusal is looked at when it returns: no lock is held, the
 * audit finds nothing, and if it failed, no guest and no holder of a capability can tell. Then the
 * test goes on until a check does not hold, or to its end. There everything in the machine is
 * destroyed, preempted all the time: it must come to its end, every frame must be back, and the
 * audit must find nothing.
 */
#ifndef ALLOC_H
#define ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum alloc_run {
    ALLOC_OFF,
    ALLOC_COUNT,  /* counts, refuses nothing */
    ALLOC_REFUSE, /* a child for each allocation that is chosen */
    ALLOC_ONE     /* refuses one in this process */
};

/* In the process that starts the runs, once. */
void alloc_prepare(void);
/* What the counting run that ended last has found; `threads`: others than the first called. */
uint64_t alloc_counted(bool *threads);

/*
 * In the process of a test. `panics`: the text with which the test is to die, or null. `only`: the
 * allocation to refuse; 0 in a run ALLOC_REFUSE: all, or where there are more than `most`, that
 * many, first and last included. False when there is nothing left to run: threads do not survive a
 * fork, so that a test that makes some has been run from its start for each.
 */
bool alloc_begin(enum alloc_run run, uint64_t only, uint64_t most, const char *panics);
/* The test has come to its end. */
void alloc_finish(void);

/* A check of the test did not hold: is that because an allocation was refused? True: ignore it, the
 * core is in the middle of a call. Does not return at the end of such a run. `bytes`: what a guest
 * read was wrong. */
bool alloc_excuses(bool fatal, bool bytes);

/* Runs, and of these: that ended at a check, went through, and were not between two calls. */
struct alloc_tally {
    uint64_t runs;
    uint64_t ended, through, blind;
    uint64_t compared; /* calls that failed, and the state was compared */
    uint64_t failed;
};
struct alloc_tally alloc_tally(void);

/* For tests that can be shorter: is this one of the runs above? */
bool alloc_running(void);

/* --- Between alloc.c and alloc_state.c -------------------------------------------------------- */

#define ALLOC_TEXT 300
#define ALLOC_POOLS 16u

/* A machine before a call. */
struct alloc_state {
    bool locked;   /* some CPU holds a lock */
    bool sound;    /* none does, and the audit found nothing */
    bool settled;  /* and no preempted call is to be continued */
    uint64_t view; /* what guests and holders of capabilities can tell */
    unsigned pools;
    struct alloc_pool {
        const void *pool;
        uint64_t reserved;
        /* What the test itself holds of it: frames of objects, reservations, accounts. */
        uint64_t stray, stray_reserved, stray_accounts;
    } pool[ALLOC_POOLS];
};
void alloc_observe(struct alloc_state *state);
/* The machine goes. The core keeps the head of its capabilities, and the next machine may have its
 * first node at the same address before its cap_boot() has succeeded. */
void alloc_forget_tree(void);
/* Is no preempted call to be continued? */
bool alloc_settled(void);
/* These return false with a text that says what is wrong. Is all well between two calls? */
bool alloc_audit(char text[ALLOC_TEXT]);
/* `now` is as `before`, after a call that failed. */
bool alloc_compare(const struct alloc_state *before, char text[ALLOC_TEXT]);
/* Destroys all there is; every frame but those that the test held in `before` comes back. */
bool alloc_destroy(const struct alloc_state *before, char text[ALLOC_TEXT]);

#endif
