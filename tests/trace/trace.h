/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A trace of the randomized run beside the reference: lines that hash all calls so far and the
 * state that they led to, without anything that depends on addresses or time. The hosted port
 * (hosted.c) and the hypervisor's image (kernel.c) print the same lines for the same words.
 */
#ifndef TRACE_H
#define TRACE_H

#include "driver.h"

/* Where the pool begins: this many 2 MiB blocks above a multiple of 1 GiB. The allocator knows no
 * other property of an address. */
#define TRACE_POOL_BLOCKS 128u

struct trace {
    bool npt;       /* NPT entries, else EPT */
    uint64_t seed;  /* of all episodes */
    uint64_t steps; /* in all; at most TRACE_EPISODE on one machine */
    uint64_t every; /* steps between two lines */
};
#define TRACE_EPISODE 2000u

/* The pool of an odd seed is roomy; that of an even one is often empty. */

/* Reads words "npt" or "ept", "seed=N", "steps=N", "every=N"; all are needed, N is decimal and not
 * zero. False when they are not all there. */
bool trace_parse(const char *words, struct trace *trace);
/* Prints "trace: seed N step N state H" after each `every` steps, and two last lines. */
void trace_run(const struct trace *trace);

/* What the machine has done. */
struct trace_counts {
    uint64_t accesses, faults; /* of guests: accesses that went through, exits for a fault */
    uint64_t copied, zeroed;   /* bytes, through the port */
};
/* Adds what this machine did since spec_start_machine(). In hosted.c or kernel.c. */
void trace_count(struct trace_counts *counts);

#endif
