/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the hypervisor's operations cost in instructions, counted by an emulator: hypervisor.sh
 * measures, this holds the figures against their goals.
 */

#define _GNU_SOURCE
#include "hypervisor.h"
#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SCRIPT "tests/bench/hypervisor.sh"

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
};

static void record(struct bench *b, const char *name, double value, const char *unit)
{
    struct bench_row row = {.name = name, .value = value, .unit = unit};
    size_t i;

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
            record(b, goals[i].name, NAN, "instructions");
        }
    }
}

void bench_hypervisor(struct bench *b)
{
    bool seen[sizeof(goals) / sizeof(goals[0])] = {false};
    double small = NAN;
    double large = NAN;
    char line[256];
    char name[64];
    char unit[32];
    double value;
    size_t i;
    FILE *script = popen(SCRIPT, "r");

    bench_section(b, "Hypervisor on an emulated machine, in instructions less REP iterations");
    while (script != NULL && fgets(line, sizeof(line), script) != NULL) {
        if (sscanf(line, "figure %63s %lf %31s", name, &value, unit) != 3) {
            continue;
        }
        for (i = 0; i < sizeof(goals) / sizeof(goals[0]); i++) {
            seen[i] |= strcmp(goals[i].name, name) == 0;
        }
        small = strcmp(name, "hv.fork.64m") == 0 ? value : small;
        large = strcmp(name, "hv.fork.64g") == 0 ? value : large;
        record(b, name, value, strcmp(unit, "instructions") == 0 ? "instr" : unit);
    }
    if (script == NULL || pclose(script) != 0) {
        puts("bench: " SCRIPT " failed");
    }
    record_missing(b, seen);
    bench_record(b, &(struct bench_row){.name = "hv.fork.spread",
                                        .value = 100 * fabs(large - small) / small,
                                        .unit = "%",
                                        .rule = BENCH_AT_MOST,
                                        .goal = 10,
                                        .note = "64 GiB against 64 MiB"});
}
