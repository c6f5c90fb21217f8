/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Measuring for the benchmarks: the clock, medians, random orders, and how much memory a row may
 * use. Keeps no state but the cost of the clock, which is measured on first use.
 */

#include "bench.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CLOCK_SAMPLES 4001

/* What is left to everybody else: an eighth of what is available, and never less than 1 GiB. */
#define HEADROOM_SHARE 8
#define HEADROOM_MIN BENCH_GIB

static int samples_compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

uint64_t bench_now(void)
{
    struct timespec now;

    __sync_synchronize();
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* The median time between two readings of the clock with nothing between them. */
static double clock_cost(void)
{
    static double cost = -1;
    double samples[CLOCK_SAMPLES];
    size_t i;

    if (cost >= 0) {
        return cost;
    }
    for (i = 0; i < CLOCK_SAMPLES; i++) {
        uint64_t start = bench_now();

        samples[i] = (double)(bench_now() - start);
    }
    cost = bench_median(samples, CLOCK_SAMPLES);
    return cost;
}

double bench_net(uint64_t start, uint64_t end)
{
    return fmax((double)(end - start) - clock_cost(), 0);
}

struct bench_summary bench_sum_up(double *samples, size_t count)
{
    struct bench_summary sum = {NAN, NAN, NAN};

    if (count == 0) {
        return sum;
    }
    qsort(samples, count, sizeof(samples[0]), samples_compare);
    sum.min = samples[0];
    sum.median = (samples[(count - 1) / 2] + samples[count / 2]) / 2;
    sum.p90 = samples[(count - 1) * 9 / 10];
    return sum;
}

double bench_median(double *samples, size_t count) { return bench_sum_up(samples, count).median; }

uint64_t bench_random(uint64_t *seed)
{
    uint64_t z = *seed += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void bench_shuffle(uint32_t *order, size_t count, uint64_t *seed)
{
    size_t i;

    for (i = 0; i < count; i++) {
        size_t at = bench_random(seed) % (i + 1);

        order[i] = order[at];
        order[at] = (uint32_t)i;
    }
}

/* MemAvailable of /proc/meminfo in bytes; 0 when it cannot be read. */
static uint64_t memory_of_machine(void)
{
    FILE *file = fopen("/proc/meminfo", "re");
    uint64_t kib = 0;
    char line[128];

    if (file == NULL) {
        return 0;
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1) {
            break;
        }
    }
    fclose(file);
    return kib * BENCH_KIB;
}

/* The number in a file of this process's version 2 control group; UINT64_MAX when there is none. */
static uint64_t group_number(const char *group, const char *name)
{
    char path[640];
    uint64_t number;
    FILE *file;

    snprintf(path, sizeof(path), "/sys/fs/cgroup%s/%s", group, name);
    file = fopen(path, "re");
    if (file == NULL) {
        return UINT64_MAX;
    }
    if (fscanf(file, "%" SCNu64, &number) != 1) {
        number = UINT64_MAX;
    }
    fclose(file);
    return number;
}

/* What the control group of this process leaves it; UINT64_MAX when nothing limits it. */
static uint64_t memory_of_group(void)
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    char group[512] = "";
    char line[600];
    uint64_t limit;
    uint64_t used;

    if (file == NULL) {
        return UINT64_MAX;
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "0::%511s", group) == 1) {
            break;
        }
    }
    fclose(file);
    limit = group_number(group, "memory.max");
    used = group_number(group, "memory.current");
    if (limit == UINT64_MAX || used == UINT64_MAX) {
        return UINT64_MAX;
    }
    return limit > used ? limit - used : 0;
}

uint64_t bench_memory_available(void)
{
    uint64_t machine = memory_of_machine();
    uint64_t group = memory_of_group();
    uint64_t bytes = machine < group ? machine : group;
    uint64_t headroom = bytes / HEADROOM_SHARE;

    if (headroom < HEADROOM_MIN) {
        headroom = HEADROOM_MIN;
    }
    return bytes > headroom ? bytes - headroom : 0;
}

char *bench_size_text(char text[24], uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t i = 0;

    while (value >= 1024 && i + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        i++;
    }
    snprintf(text, 24, "%.4g %s", value, units[i]);
    return text;
}
