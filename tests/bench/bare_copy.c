/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Cold copies and fills with nothing around them, on one CPU and on two. A page of the buffers is
 * used again only after all others, in random order, so no cache or prefetcher knows it.
 */

#define _GNU_SOURCE
#include "bench.h"
#include "helper.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE (4 * BENCH_KIB)
#define BLOCK (2 * BENCH_MIB)
#define BUFFER (2 * BENCH_GIB)
#define BUFFER_MIN (256 * BENCH_MIB)

#define SINGLE_COPIES 8192
#define RUN_COPIES 16384
#define THREAD_ROUNDS 15
#define BLOCK_COPIES 64
#define HELPER_SECONDS 20

/* One thread of bare_copy_rate(). */
struct copier {
    pthread_t thread;
    pthread_barrier_t *start;
    const struct bare_buffers *buffers;
    unsigned index;
    size_t first;
    size_t copies;
    uint64_t began;
    uint64_t ended;
    bool bound;
};

/* Maps `bytes`, aligned to huge pages where the kernel gives them, and writes all of it. */
static unsigned char *buffer_map(uint64_t bytes, int value)
{
    unsigned char *at = mmap(NULL, bytes + BLOCK, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint64_t before;

    if (at == MAP_FAILED) {
        return NULL;
    }
    before = (BLOCK - (uintptr_t)at % BLOCK) % BLOCK;
    if (before > 0) {
        munmap(at, before);
    }
    if (before < BLOCK) {
        munmap(at + before + bytes, BLOCK - before);
    }
    at += before;
    (void)madvise(at, bytes, MADV_HUGEPAGE); /* the result says whether it helped */
    memset(at, value, bytes);
    return at;
}

bool bare_buffers_get(struct bare_buffers *buffers, uint64_t bytes)
{
    uint64_t seed = 2;

    bytes -= bytes % BLOCK;
    buffers->pages = bytes / PAGE;
    buffers->next = 0;
    buffers->from = buffer_map(bytes, 1);
    buffers->to = buffer_map(bytes, 2);
    buffers->order = calloc(buffers->pages, sizeof(*buffers->order));
    if (buffers->from == NULL || buffers->to == NULL || buffers->order == NULL) {
        bare_buffers_put(buffers);
        return false;
    }
    bench_shuffle(buffers->order, buffers->pages, &seed);
    return true;
}

void bare_buffers_put(struct bare_buffers *buffers)
{
    if (buffers->from != NULL) {
        munmap(buffers->from, buffers->pages * PAGE);
    }
    if (buffers->to != NULL) {
        munmap(buffers->to, buffers->pages * PAGE);
    }
    free(buffers->order);
    memset(buffers, 0, sizeof(*buffers));
}

/* Source and destination of the `i`-th copy: far from each other, no page again before all others.
 */
static unsigned char *page_from(const struct bare_buffers *b, size_t i)
{
    return b->from + b->order[i % b->pages] * PAGE;
}

static unsigned char *page_to(const struct bare_buffers *b, size_t i)
{
    return b->to + b->order[b->pages - 1 - i % b->pages] * PAGE;
}

bool bare_bind_cpu(unsigned index)
{
    cpu_set_t all;
    cpu_set_t one;
    size_t cpu;

    if (sched_getaffinity(getpid(), sizeof(all), &all) != 0) {
        return false;
    }
    for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &all) && index-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            return sched_setaffinity(0, sizeof(one), &one) == 0;
        }
    }
    return false;
}

/* A thread of bare_copy_rate(): waits for the others, copies, notes its times. */
static void *copier_run(void *argument)
{
    struct copier *c = argument;
    size_t i;

    c->bound = bare_bind_cpu(c->index);
    pthread_barrier_wait(c->start);
    c->began = bench_now();
    for (i = c->first; i < c->first + c->copies; i++) {
        memcpy(page_to(c->buffers, i), page_from(c->buffers, i), PAGE);
    }
    c->ended = bench_now();
    return NULL;
}

double bare_copy_rate(struct bare_buffers *buffers, unsigned threads, size_t copies)
{
    struct copier copiers[2];
    pthread_barrier_t start;
    uint64_t began = UINT64_MAX;
    uint64_t ended = 0;
    bool bound = true;
    unsigned i;

    pthread_barrier_init(&start, NULL, threads);
    for (i = 0; i < threads; i++) {
        copiers[i] = (struct copier){.start = &start,
                                     .buffers = buffers,
                                     .index = i,
                                     .first = buffers->next,
                                     .copies = copies};
        buffers->next += copies;
        if (pthread_create(&copiers[i].thread, NULL, copier_run, &copiers[i]) != 0) {
            abort(); /* the others wait for it for ever */
        }
    }
    for (i = 0; i < threads; i++) {
        pthread_join(copiers[i].thread, NULL);
        began = copiers[i].began < began ? copiers[i].began : began;
        ended = copiers[i].ended > ended ? copiers[i].ended : ended;
        bound = bound && copiers[i].bound;
    }
    pthread_barrier_destroy(&start);
    return bound ? (double)(threads * copies) * 1e9 / bench_net(began, ended) : NAN;
}

/* Copies one by one, then fills one by one, each timed alone. */
static void measure_single(struct bare_buffers *b, struct bare_costs *result)
{
    static double samples[SINGLE_COPIES];
    size_t at = b->next;
    size_t i;

    for (i = 0; i < SINGLE_COPIES; i++) {
        unsigned char *to = page_to(b, at + i);
        const unsigned char *from = page_from(b, at + i);
        uint64_t start = bench_now();

        memcpy(to, from, PAGE);
        samples[i] = bench_net(start, bench_now());
    }
    result->copy_4k_ns = bench_median(samples, SINGLE_COPIES);
    at += SINGLE_COPIES;
    for (i = 0; i < SINGLE_COPIES; i++) {
        unsigned char *to = page_to(b, at + i);
        uint64_t start = bench_now();

        memset(to, 0, PAGE);
        samples[i] = bench_net(start, bench_now());
    }
    result->fill_4k_ns = bench_median(samples, SINGLE_COPIES);
    b->next = at + SINGLE_COPIES;
}

/* Copies runs of pages on one CPU and on two, in turn. */
static void measure_threads(struct bare_buffers *b, struct bare_costs *result)
{
    double one[THREAD_ROUNDS];
    double gain[THREAD_ROUNDS];
    size_t i;

    for (i = 0; i < THREAD_ROUNDS; i++) {
        double alone = bare_copy_rate(b, 1, RUN_COPIES);

        one[i] = 1e9 / alone;
        gain[i] = bare_copy_rate(b, 2, RUN_COPIES) / alone;
    }
    result->copy_4k_run_ns = bench_median(one, THREAD_ROUNDS);
    result->two_threads = bench_median(gain, THREAD_ROUNDS);
    if (isnan(gain[0])) {
        snprintf(result->note, sizeof(result->note), "two threads need two CPUs");
    }
}

/* Copies whole blocks. */
static void measure_blocks(struct bare_buffers *b, struct bare_costs *result)
{
    size_t blocks = b->pages * PAGE / BLOCK;
    uint32_t *order = calloc(blocks, sizeof(*order));
    double samples[BLOCK_COPIES];
    uint64_t seed = 3;
    size_t i;

    if (order == NULL) {
        return;
    }
    bench_shuffle(order, blocks, &seed);
    for (i = 0; i < BLOCK_COPIES; i++) {
        unsigned char *to = b->to + order[i] * BLOCK;
        const unsigned char *from = b->from + order[blocks - 1 - i] * BLOCK;
        uint64_t start = bench_now();

        memcpy(to, from, BLOCK);
        samples[i] = bench_net(start, bench_now());
    }
    result->copy_2m_ns = bench_median(samples, BLOCK_COPIES);
    free(order);
}

/* The part of this process's memory that is under transparent huge pages. */
static double huge_part(uint64_t bytes)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "re");
    unsigned long kib = 0;
    char line[256];

    if (file == NULL) {
        return NAN;
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "AnonHugePages: %lu", &kib) == 1) {
            break;
        }
    }
    fclose(file);
    return fmin((double)kib * (double)BENCH_KIB / (double)bytes, 1);
}

/* The helper: everything that needs the memory. */
static void measure_apart(void *argument)
{
    struct bare_costs *result = argument;
    struct bare_buffers buffers;

    if (!bare_buffers_get(&buffers, result->bytes)) {
        snprintf(result->note, sizeof(result->note), "no memory for the buffers");
        return;
    }
    result->huge = huge_part(2 * result->bytes);
    measure_threads(&buffers, result);
    measure_blocks(&buffers, result);
    measure_single(&buffers, result);
    bare_buffers_put(&buffers);
    result->ok = true;
}

void bare_costs_clear(struct bare_costs *result)
{
    memset(result, 0, sizeof(*result));
    result->huge = result->copy_4k_ns = result->fill_4k_ns = result->copy_4k_run_ns = NAN;
    result->copy_2m_ns = result->two_threads = NAN;
}

void bare_copy_measure(struct bare_costs *result)
{
    uint64_t available = bench_memory_available() / 2;
    struct helper_why why;

    bare_costs_clear(result);
    result->wanted = BUFFER;
    result->bytes = available < BUFFER ? available - available % BUFFER_MIN : BUFFER;
    if (result->bytes == 0) {
        snprintf(result->note, sizeof(result->note), "too little memory is available");
        return;
    }
    if (!helper_run(measure_apart, result, sizeof(*result), HELPER_SECONDS, &why)) {
        memcpy(result->note, why.text, sizeof(result->note));
    } else if (!(result->huge >= 0.95)) {
        snprintf(result->note, sizeof(result->note), "only %.0f%% came under huge pages",
                 result->huge * 100);
    }
}
