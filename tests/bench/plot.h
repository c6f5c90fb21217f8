/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The two plots of the benchmarks: their points, the data files for gnuplot, and the call of it.
 * Used by bench.c only; benchmarks call bench_plot_fork() and bench_plot_write().
 */

#ifndef CLEAVE_TESTS_BENCH_PLOT_H
#define CLEAVE_TESTS_BENCH_PLOT_H

#include <stddef.h>
#include <stdint.h>

#define PLOT_POINTS 128
#define PLOT_BARS 16
#define PLOT_LABEL 41

struct plot_point {
    char label[PLOT_LABEL];
    uint64_t bytes;
    double ns;
};

/* Points of "time of a fork over size of memory", and bars of "first write after a fork". */
struct plot {
    struct plot_point forks[PLOT_POINTS];
    struct plot_point writes[PLOT_BARS];
    size_t fork_count;
    size_t write_count;
};

/* Takes a point or a bar; drops it and says so when there are too many, ignores NAN. */
void plot_add_fork(struct plot *p, const char *series, uint64_t bytes, double ns);
void plot_add_write(struct plot *p, const char *label, double ns);

/* Writes the data files to `directory` and draws both with the scripts in `scripts`. */
void plot_draw(const struct plot *p, const char *directory, const char *scripts);

#endif
