/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What memory itself costs on this machine: cold copies and fills with nothing around them, and
 * what a second thread adds to them. The goals of the core are multiples of these.
 */

#ifndef CLEAVE_TESTS_BENCH_BARE_COPY_H
#define CLEAVE_TESTS_BENCH_BARE_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BARE_NOTE 160

/*
 * Medians in nanoseconds; NAN is "not measured", and `note` says why. Cold means that neither the
 * source nor the destination is in a cache: both are random places of buffers several times the
 * size of the caches, under huge pages, and none is used again before all others.
 */
struct bare_costs {
    bool ok;
    uint64_t bytes;        /* of each of the two buffers */
    uint64_t wanted;       /* more than `bytes` where they were scaled down */
    double huge;           /* part of both that was under huge pages, 0 to 1 */
    double copy_4k_ns;     /* one cold copy, timed alone to its last store */
    double fill_4k_ns;     /* one cold fill, timed alone to its last store */
    double copy_4k_run_ns; /* per copy in a run of many, which overlap */
    double copy_2m_ns;
    double two_threads; /* throughput of two threads that copy cold 4 KiB pages, by that of one */
    char note[BARE_NOTE];
};

/* Two buffers of `pages` pages of 4 KiB each, and a random order to use them in. */
struct bare_buffers {
    unsigned char *from;
    unsigned char *to;
    uint32_t *order;
    size_t pages;
    size_t next; /* where in `order` the next run of bare_copy_rate() begins */
};

/* Maps and writes buffers of `bytes` each. Returns false, with nothing held, without memory. */
bool bare_buffers_get(struct bare_buffers *buffers, uint64_t bytes);

/* Gives the buffers back. */
void bare_buffers_put(struct bare_buffers *buffers);

/*
 * Copies per second of `threads` (1 or 2) threads, each on a CPU of its own, that each copy
 * `copies` cold 4 KiB pages. Returns NAN when there are not as many CPUs.
 */
double bare_copy_rate(struct bare_buffers *buffers, unsigned threads, size_t copies);

/* Binds the calling thread to the `index`-th CPU this process may use; false if there is none. */
bool bare_bind_cpu(unsigned index);

/* Sets a result to "nothing measured". */
void bare_costs_clear(struct bare_costs *result);

/* Measures all of it in a helper process. Takes at most about 20 seconds. */
void bare_copy_measure(struct bare_costs *result);

#endif
