/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the hypervisor's operations cost in instructions, counted by an emulator: hypervisor.sh,
 * linux.sh and control.sh measure, this holds the figures against their goals.
 */

#define _GNU_SOURCE
#include "hypervisor.h"
#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    double goal;
    const char *note;
} goals[] = {
    {"hv.null_hypercall", 600, "a number that no call has"},
    {"hv.fork.64m", 15000, "hypercall to the child's first instruction, paging off"},
    {"hv.fork.64g", 15000, "the same with 64 GiB more"},
    {"hv.write.first", 20000, "first write into a shared leaf, all tables of the path shared"},
    {"hv.write.further_leaf", 6000, "path private: another 2 MiB leaf is split"},
    {"hv.write.further_page", 6000, "path private: another page of the leaf that was split"},
    {"hv.fork.idle_memory", 65536, "one vcpu, not run yet, everything included"},
    {"hv.linux.256m.fork", 40000,
     "hypercall to the child's first instruction, its faults included"},
    {"hv.linux.256m.idle_memory", 1572864, "after a second, everything included"},
    {"hv.linux.256m.idle_overhead", 65536,
     "of that: no written page, nor the table of one's block"},
    {"hv.linux.1g.fork", 40000, "the same with 4 times the memory"},
    {"hv.linux.1g.idle_memory", 1572864, "after a second, everything included"},
    {"hv.linux.1g.idle_overhead", 65536, "of that: no written page, nor the table of one's block"},
    {"control.memshr_fork", 60000, "xc_memshr_fork, from ioctl to return"},
    {"control.cleave_fork_to_first", 60000,
     "one call, from ioctl to the child's first instruction"},
};

/* With a goal of its own where `at_most` is none of NAN: what Xen takes for the same. */
static void record(struct bench *b, const char *name, double value, const char *unit,
                   double at_most)
{
    struct bench_row row = {.name = name, .value = value, .unit = unit};
    size_t i;

    if (!isnan(at_most)) {
        row.rule = BENCH_AT_MOST;
        row.goal = at_most;
        row.note = "goal: Debian's Xen, its null hypercall levelled";
    }
    for (i = 0; i < sizeof(goals) / sizeof(goals[0]); i++) {
        if (strcmp(goals[i].name, name) == 0) {
            row.rule = BENCH_AT_MOST;
            row.goal = goals[i].goal;
            row.note = goals[i].note;
        }
    }
    bench_record(b, &row);
}

/* Goals whose figure is missing count as missed. */
static void record_missing(struct bench *b, const bool *seen)
{
    size_t i;

    for (i = 0; i < sizeof(goals) / sizeof(goals[0]); i++) {
        if (!seen[i]) {
            record(b, goals[i].name, NAN, "instructions", NAN);
        }
    }
}

/* The figures of which the differences are held against a goal, too. */
static struct {
    const char *small, *large, *name, *note;
    double values[2];
} spreads[] = {
    {"hv.fork.64m", "hv.fork.64g", "hv.fork.spread", "64 GiB against 64 MiB", {NAN, NAN}},
    {"hv.linux.256m.fork",
     "hv.linux.1g.fork",
     "hv.linux.fork.spread",
     "1 GiB against 256 MiB",
     {NAN, NAN}},
};

static void note_figure(const char *name, double value, bool *seen)
{
    size_t i;

    for (i = 0; i < sizeof(goals) / sizeof(goals[0]); i++) {
        seen[i] |= strcmp(goals[i].name, name) == 0;
    }
    for (i = 0; i < sizeof(spreads) / sizeof(spreads[0]); i++) {
        if (strcmp(name, spreads[i].small) == 0) {
            spreads[i].values[0] = value;
        } else if (strcmp(name, spreads[i].large) == 0) {
            spreads[i].values[1] = value;
        }
    }
}

/* Records the figures that a script prints. */
static void run_script(struct bench *b, const char *script, bool *seen)
{
    char line[256];
    char name[64];
    char unit[32];
    double value;
    double goal;
    FILE *figures = popen(script, "r");

    while (figures != NULL && fgets(line, sizeof(line), figures) != NULL) {
        int fields = sscanf(line, "figure %63s %lf %31s %lf", name, &value, unit, &goal);
        if (fields < 3) {
            continue;
        }
        note_figure(name, value, seen);
        record(b, name, value, strcmp(unit, "instructions") == 0 ? "instr" : unit,
               fields == 4 ? goal : NAN);
    }
    if (figures == NULL || pclose(figures) != 0) {
        printf("bench: %s failed\n", script);
    }
}

void bench_hypervisor(struct bench *b)
{
    bool seen[sizeof(goals) / sizeof(goals[0])] = {false};
    size_t i;

    bench_section(b, "Hypervisor on an emulated machine, in instructions less REP iterations");
    run_script(b, "tests/bench/hypervisor.sh", seen);
    run_script(b, "tests/bench/linux.sh", seen);
    run_script(b, "tests/bench/control.sh", seen);
    record_missing(b, seen);
    for (i = 0; i < sizeof(spreads) / sizeof(spreads[0]); i++) {
        double small = spreads[i].values[0];
        bench_record(b,
                     &(struct bench_row){.name = spreads[i].name,
                                         .value = 100 * fabs(spreads[i].values[1] - small) / small,
                                         .unit = "%",
                                         .rule = BENCH_AT_MOST,
                                         .goal = 10,
                                         .note = spreads[i].note});
    }
}
