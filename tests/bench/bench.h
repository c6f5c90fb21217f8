/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The frame of `make bench`: the clock, medians, the recorder of figures (a table on stdout and
 * results.json) and the plots. Single-threaded: only bench_now() and bench_net() may be called by
 * threads that a benchmark starts.
 */

#ifndef CLEAVE_TESTS_BENCH_BENCH_H
#define CLEAVE_TESTS_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bare_copy.h"
#include "linux_fork.h"

#define BENCH_KIB UINT64_C(1024)
#define BENCH_MIB (1024 * BENCH_KIB)
#define BENCH_GIB (1024 * BENCH_MIB)

/* What Linux and the bare memory cost on this machine, measured before bench_core() is called. */
struct bench_base {
    struct linux_fork fork[LINUX_BACKINGS];
    struct bare_costs bare;
    double empty_fork_ns; /* fork() of a process with next to no memory, NAN if not measured */
};

/* How a value is held against its goal. */
enum bench_rule {
    BENCH_NO_GOAL, /* a row to compare with */
    BENCH_AT_MOST,
    BENCH_AT_LEAST,
};

/*
 * One figure. `name`, `value` and `unit` are always set; the rest may be left zero. The name is the
 * figure's identity in results.json. A value of NAN means that the figure could not be measured,
 * which counts as a missed goal.
 */
struct bench_row {
    const char *name;
    double value;
    const char *unit;
    enum bench_rule rule;
    double goal;
    double ratio;       /* shown as "12.3x" where it is above zero; say in `note` of what */
    const char *note;   /* shown in the last column */
    const char *scaled; /* where a row was made smaller to fit: "4 GiB instead of 8 GiB" */
};

/* Least value, median and 90th percentile of a set of samples. */
struct bench_summary {
    double min;
    double median;
    double p90;
};

struct bench;

/*
 * Nanoseconds of CLOCK_MONOTONIC_RAW, after every earlier store of this CPU has reached its cache:
 * a copy is timed to its end and not to the filling of the store buffer. Use it on both sides of
 * any comparison.
 */
uint64_t bench_now(void);

/* Nanoseconds from `start` to `end`, less what reading the clock costs; never below zero. */
double bench_net(uint64_t start, uint64_t end);

/* Sorts the `count` samples in place and sums them up; all NAN when there are none. */
struct bench_summary bench_sum_up(double *samples, size_t count);

/* The median of the `count` samples, which it sorts in place; NAN when there are none. */
double bench_median(double *samples, size_t count);

/* The next of a reproducible sequence of random numbers (splitmix64); any seed will do. */
uint64_t bench_random(uint64_t *seed);

/* Fills `order` with the numbers 0 to `count` - 1 in random order. */
void bench_shuffle(uint32_t *order, size_t count, uint64_t *seed);

/*
 * Bytes of memory that this process may still use without disturbing others: what the kernel calls
 * available, within the limit of the control group, less head-room.
 */
uint64_t bench_memory_available(void);

/* Writes `bytes` in words ("8 GiB", "1.5 GiB", "256 MiB") to `text`, and returns it. */
char *bench_size_text(char text[24], uint64_t bytes);

/*
 * Begins a run whose files go to `directory`, which is made if missing. `command` is what the
 * reader types to repeat it. With `keep_results`, results.json is left as it is. Returns NULL,
 * having said why, when the directory cannot be made. The caller ends the run with bench_close().
 */
struct bench *bench_open(const char *directory, const char *command, bool keep_results);

/* Prints the section before it, and begins a new part of the table under `title`. */
void bench_section(struct bench *b, const char *title);

/* Takes one figure into the current section; the strings are copied. */
void bench_record(struct bench *b, const struct bench_row *row);

/* The baselines of this run; never NULL, every field that was not measured is NAN. */
const struct bench_base *bench_baselines(const struct bench *b);

/* Gives the run its baselines, which are copied. */
void bench_set_baselines(struct bench *b, const struct bench_base *base);

/* One point of the plot "time of a fork over size of memory"; `series` names its line. */
void bench_plot_fork(struct bench *b, const char *series, uint64_t bytes, double ns);

/* One bar of the plot "first write after a fork", from the top; `label` of at most 40 letters. */
void bench_plot_write(struct bench *b, const char *label, double ns);

/* Draws both plots with gnuplot and the scripts in `scripts`; says so when it cannot. */
void bench_draw(struct bench *b, const char *scripts);

/*
 * Prints the last section and the sum of goals met and missed, and writes results.json: figures of
 * other commands in it stay, figures of this command are replaced. Frees `b`. Returns false when
 * the file could not be written.
 */
bool bench_close(struct bench *b);

/* Measures the memory core; in bench_core.c. */
void bench_core(struct bench *b);

#endif
