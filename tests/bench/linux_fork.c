/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The Linux baselines: populates a process, forks it at halving sizes, and times the first writes
 * of its children. All of it runs in one helper process per backing, except the settings for huge
 * pages, which the caller's process changes and guards.
 */

#define _GNU_SOURCE
#include "bench.h"
#include "helper.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE (4 * BENCH_KIB)
#define BLOCK (2 * BENCH_MIB)
#define SMALLEST (256 * BENCH_MIB)
#define POPULATE_STEP (64 * BENCH_MIB)

#define EMPTY_FORKS 101
#define FORKS_MAX 15
#define FORKS_MIN 3
#define FORKS_SECONDS 1.2
#define WRITES 512 /* one per block and round */
#define ROUNDS 3
#define POPULATE_SECONDS 32
#define HELPER_SECONDS 45

#define HUGE_DIR "/sys/kernel/mm/hugepages/hugepages-2048kB"
#define HUGE_COUNT HUGE_DIR "/nr_hugepages"
#define HUGE_FREE HUGE_DIR "/free_hugepages"

/* Memory of the process that forks. */
struct area {
    unsigned char *start;
    uint64_t bytes;
};

/* What the helper works on: comes in through the fork, goes out through the pipe. */
struct task {
    enum linux_backing backing;
    struct linux_fork result;
};

/* Samples, in memory that a child shares with its parent. */
struct writes {
    double first[WRITES * ROUNDS];
    double next[WRITES * ROUNDS];
    double reuse[WRITES * ROUNDS];
};

const char *linux_backing_name(enum linux_backing backing)
{
    static const char *const names[LINUX_BACKINGS] = {
        [LINUX_4K] = "4 KiB pages",
        [LINUX_THP] = "transparent huge pages",
        [LINUX_HUGETLB] = "hugetlbfs",
    };

    return names[backing];
}

/* Waits for a child to end; false unless it ended with success. */
static bool child_wait(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
}

/* Maps the area, aligned to its blocks. False when the kernel refuses. */
static bool area_map(struct area *a, enum linux_backing backing)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    unsigned char *at;

    if (backing == LINUX_HUGETLB) {
        at = mmap(NULL, a->bytes, PROT_READ | PROT_WRITE, flags | MAP_HUGETLB, -1, 0);
        a->start = at;
        return at != MAP_FAILED;
    }
    at = mmap(NULL, a->bytes + BLOCK, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        return false;
    }
    a->start = at + (BLOCK - (uintptr_t)at % BLOCK) % BLOCK;
    /* May fail where the kernel has no such pages; area_huge_part() tells what came of it. */
    (void)madvise(a->start, a->bytes, backing == LINUX_THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    return true;
}

/* Cuts the area down to `bytes`. */
static void area_shrink(struct area *a, uint64_t bytes)
{
    if (bytes < a->bytes) {
        munmap(a->start + bytes, a->bytes - bytes);
        a->bytes = bytes;
    }
}

/* Writes every page, and cuts the area where the time for it runs out. */
static void area_populate(struct area *a)
{
    uint64_t start = bench_now();
    uint64_t at;
    uint64_t page;

    for (at = 0; at < a->bytes; at += POPULATE_STEP) {
        if (bench_net(start, bench_now()) > POPULATE_SECONDS * 1e9) {
            area_shrink(a, at);
            return;
        }
        /* Only a short cut: where the kernel does not know it, the writes below do its work. */
        (void)madvise(a->start + at, POPULATE_STEP, MADV_POPULATE_WRITE);
        for (page = at; page < at + POPULATE_STEP; page += PAGE) {
            *(volatile uint64_t *)(a->start + page) = page + 1;
        }
    }
}

/* The part of the area that is under transparent huge pages, as /proc/self/smaps has it. */
static double area_huge_part(const struct area *a)
{
    FILE *file = fopen("/proc/self/smaps", "re");
    uint64_t huge = 0;
    bool inside = false;
    char line[512];

    if (file == NULL) {
        return NAN;
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        uintptr_t from;
        uintptr_t to;
        uint64_t kib;

        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2) {
            inside = from < (uintptr_t)a->start + a->bytes && to > (uintptr_t)a->start;
        } else if (inside && sscanf(line, "AnonHugePages: %" SCNu64, &kib) == 1) {
            huge += kib * BENCH_KIB;
        }
    }
    fclose(file);
    return fmin((double)huge / (double)a->bytes, 1);
}

/* Times fork() in the parent, `max` times or until the time for it runs out. */
static struct bench_summary fork_time(size_t max)
{
    double samples[EMPTY_FORKS];
    uint64_t begin = bench_now();
    size_t count = 0;

    while (count < max) {
        uint64_t start = bench_now();
        pid_t pid = fork();
        uint64_t end;

        if (pid == 0) {
            _exit(EXIT_SUCCESS);
        }
        end = bench_now();
        if (pid < 0 || !child_wait(pid)) {
            break;
        }
        samples[count++] = bench_net(start, end);
        if (count >= FORKS_MIN && bench_net(begin, bench_now()) > FORKS_SECONDS * 1e9) {
            break;
        }
    }
    return bench_sum_up(samples, count);
}

/* The time of one write. */
static double write_time(unsigned char *at)
{
    uint64_t start = bench_now();
    uint64_t end;

    *(volatile uint64_t *)at = start;
    end = bench_now();
    return bench_net(start, end);
}

/* A word in a random page of the given half of a block. */
static unsigned char *word_in_block(const struct area *a, uint32_t block, bool upper,
                                    uint64_t *seed)
{
    uint64_t page = bench_random(seed) % (BLOCK / PAGE / 2) + (upper ? BLOCK / PAGE / 2 : 0);

    return a->start + block * BLOCK + page * PAGE;
}

/* In the child: writes twice into each of the first `count` blocks of `order`. */
static void child_writes(const struct area *a, const uint32_t *order, size_t count, double *first,
                         double *next, uint64_t seed)
{
    size_t i;

    helper_die_with_parent();
    alarm(HELPER_SECONDS);
    for (i = 0; i < count; i++) {
        first[i] = next[i] = 0; /* so that the shared pages are there when the samples come */
    }
    for (i = 0; i < count; i++) {
        first[i] = write_time(word_in_block(a, order[i], false, &seed));
    }
    for (i = 0; i < count; i++) {
        next[i] = write_time(word_in_block(a, order[i], true, &seed));
    }
    _exit(EXIT_SUCCESS);
}

/*
 * One round of `count` blocks in random order: a child writes twice into each, then, when it is
 * gone, the parent once. False when the child did not live through it.
 */
static bool round_run(const struct area *a, struct writes *shared, size_t at, size_t count,
                      uint32_t *order, uint64_t *seed)
{
    pid_t pid;
    size_t i;

    bench_shuffle(order, a->bytes / BLOCK, seed);
    pid = fork();
    if (pid == 0) {
        child_writes(a, order, count, shared->first + at, shared->next + at, *seed);
    }
    if (pid < 0 || !child_wait(pid)) {
        return false;
    }
    for (i = 0; i < count; i++) {
        shared->reuse[at + i] = write_time(word_in_block(a, order[i], false, seed));
    }
    return true;
}

/* Times the writes after a fork of the whole area, all of them on one CPU. */
static void measure_writes(const struct area *a, struct linux_fork *result)
{
    size_t blocks = a->bytes / BLOCK;
    size_t count = blocks < WRITES ? blocks : WRITES;
    uint32_t *order = calloc(blocks, sizeof(*order));
    struct writes *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t seed = 1;
    cpu_set_t all;
    size_t round;

    if (order == NULL || shared == MAP_FAILED || sched_getaffinity(0, sizeof(all), &all) != 0) {
        snprintf(result->note, sizeof(result->note), "no memory to note the writes in");
        free(order);
        return;
    }
    memset(shared, 0, sizeof(*shared));
    (void)bare_bind_cpu(0);
    /* The last round takes the place of the first, which paid for memory nobody used before. */
    for (round = 0; round <= ROUNDS; round++) {
        if (!round_run(a, shared, round % ROUNDS * count, count, order, &seed)) {
            snprintf(result->note, sizeof(result->note), "the writing child was killed");
            break;
        }
    }
    (void)sched_setaffinity(0, sizeof(all), &all);
    if (round > ROUNDS) {
        result->first_write_ns = bench_median(shared->first, ROUNDS * count);
        result->next_write_ns = bench_median(shared->next, ROUNDS * count);
        result->reuse_write_ns = bench_median(shared->reuse, ROUNDS * count);
    }
    munmap(shared, sizeof(*shared));
    free(order);
}

/* Times fork() of the whole area, then of its parts whose size is a power of two. */
static void measure_forks(struct area *a, struct linux_fork *result)
{
    struct bench_summary time = fork_time(FORKS_MAX);
    uint64_t bytes = SMALLEST;
    size_t i;

    result->fork_ns = time.median;
    result->fork_p90_ns = time.p90;
    result->net_ns = fmax(time.median - result->empty_ns, 0);
    result->sizes[0].bytes = a->bytes;
    result->sizes[0].ns = time.median;
    measure_writes(a, result);

    while (bytes * 2 < a->bytes) {
        bytes *= 2;
    }
    for (i = 1; i < LINUX_FORK_SIZES && bytes >= SMALLEST && bytes < a->bytes; i++) {
        area_shrink(a, bytes);
        result->sizes[i].bytes = bytes;
        result->sizes[i].ns = fork_time(FORKS_MAX).median;
        bytes /= 2;
    }
}

/* The helper: everything that needs the memory. */
static void measure_apart(void *argument)
{
    struct task *task = argument;
    struct linux_fork *result = &task->result;
    struct area area = {.bytes = result->bytes};

    result->empty_ns = fork_time(EMPTY_FORKS).median;
    if (!area_map(&area, task->backing)) {
        snprintf(result->note, sizeof(result->note), "no such memory: %s", strerror(errno));
        return;
    }
    area_populate(&area);
    result->bytes = area.bytes;
    if (area.bytes < SMALLEST) {
        snprintf(result->note, sizeof(result->note), "memory came too slowly");
        return;
    }
    result->huge = task->backing == LINUX_HUGETLB ? 1 : area_huge_part(&area);
    measure_forks(&area, result);
    if (task->backing == LINUX_HUGETLB) {
        result->next_write_ns = NAN; /* the whole block is private: no fault is left to time */
    }
    result->ok = !isnan(result->fork_ns);
}

/* Says how much came under huge pages where it should have been all; drops what is not theirs. */
static void judge_huge(struct linux_fork *result)
{
    struct linux_fork none;

    if (result->huge >= 0.95) {
        return;
    }
    if (!(result->huge >= 0.5)) {
        linux_fork_clear(&none);
        none.wanted = result->wanted;
        none.huge = result->huge;
        *result = none;
    }
    snprintf(result->note, sizeof(result->note), "only %.0f%% came under huge pages",
             result->huge * 100);
}

/* Runs the helper on `result`, whose size is chosen. */
static void measure_in_helper(enum linux_backing backing, struct linux_fork *result)
{
    struct task task = {.backing = backing, .result = *result};
    struct helper_why why;

    if (!helper_run(measure_apart, &task, sizeof(task), HELPER_SECONDS, &why)) {
        memcpy(result->note, why.text, sizeof(result->note));
        return;
    }
    *result = task.result;
    if (backing == LINUX_THP && result->ok) {
        judge_huge(result);
    }
}

/* Asks for the pages of `bytes` and of the copies, and cuts `bytes` to what there is. */
static bool huge_pages_get(struct helper_setting *setting, uint64_t *bytes, struct helper_why *why)
{
    uint64_t wanted = *bytes / BLOCK + WRITES;
    uint64_t before = strtoull(setting->old, NULL, 10);
    char value[32] = "0";
    uint64_t got;

    snprintf(value, sizeof(value), "%" PRIu64, before + wanted);
    if (!helper_setting_write(setting, value, why)) {
        return false;
    }
    if (!helper_setting_read(HUGE_FREE, value, sizeof(value))) {
        value[0] = '\0';
    }
    got = strtoull(value, NULL, 10);
    if (got < wanted) {
        uint64_t rest = got > WRITES ? (got - WRITES) * BLOCK : 0;

        *bytes = rest - rest % SMALLEST;
    }
    if (*bytes == 0) {
        snprintf(why->text, sizeof(why->text), "only %" PRIu64 " huge pages could be had", got);
    }
    return *bytes > 0;
}

/* Measures under hugetlbfs, with pages that it sets up and removes. */
static void measure_hugetlb(struct linux_fork *result)
{
    struct helper_setting setting;
    struct helper_why why;

    if (!helper_setting_open(&setting, HUGE_COUNT, &why)) {
        memcpy(result->note, why.text, sizeof(result->note));
        return;
    }
    if (huge_pages_get(&setting, &result->bytes, &why)) {
        measure_in_helper(LINUX_HUGETLB, result);
    } else {
        memcpy(result->note, why.text, sizeof(result->note));
    }
    if (!helper_setting_close(&setting, &why)) {
        memcpy(result->note, why.text, sizeof(result->note));
    }
}

void linux_fork_clear(struct linux_fork *result)
{
    memset(result, 0, sizeof(*result));
    result->huge = NAN;
    result->empty_ns = result->fork_ns = result->fork_p90_ns = result->net_ns = NAN;
    result->first_write_ns = result->next_write_ns = result->reuse_write_ns = NAN;
}

void linux_fork_measure(enum linux_backing backing, uint64_t wanted, struct linux_fork *result)
{
    uint64_t available = bench_memory_available();
    uint64_t copies = WRITES * BLOCK;

    linux_fork_clear(result);
    result->wanted = wanted;
    available = available > copies ? available - copies : 0;
    available -= available / 64; /* page tables, twice */
    result->bytes = available < wanted ? available - available % SMALLEST : wanted;
    if (result->bytes == 0) {
        snprintf(result->note, sizeof(result->note), "too little memory is available");
        return;
    }
    switch (backing) {
    case LINUX_4K:
    case LINUX_THP:
        measure_in_helper(backing, result);
        break;
    case LINUX_HUGETLB:
        measure_hugetlb(result);
        break;
    case LINUX_BACKINGS:
        break;
    }
}
