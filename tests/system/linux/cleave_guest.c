/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cleave-guest: Cleave's own operations (cleave/abi.h) for programs and scripts in a Linux guest.
 * The hypercalls go through /dev/xen/privcmd, which needs root and, in a domain that is not the
 * first, "xen_privcmd.unrestricted=1" on the kernel's command line. The status is 0 when the
 * operation was done, 1 when it was refused, and 2 for a call that cannot be understood.
 */
#define _GNU_SOURCE /* sched_setaffinity() */
#include "causes.h"
#include "hypercall.h"
#include "identity.h"

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
    "cleave-guest fork [COUNT]      forks this domain; prints 0 in the parent, 1..COUNT in a "
    "child\n"
    "cleave-guest measure           forks this domain; both print what that took, and the child "
    "what it took in its first 100 ms and in a second of doing nothing, and for which pages\n"
    "cleave-guest wait [INFO]       waits until this domain is a new fork (since info printed "
    "that); "
    "prints its index\n"
    "cleave-guest notice INFO STILL the same; also until it was forked since still printed that: 0 "
    "in the parent\n"
    "cleave-guest collect COUNT     waits until COUNT children have ended; prints a line for each\n"
    "cleave-guest info              prints index, count, domain, generation and size of the data\n"
    "cleave-guest still             prints for how long it stood still at its last fork, in ns\n"
    "cleave-guest leaves            prints how much of its memory is mapped by which leaves\n"
    "cleave-guest data              writes the data that the fork's caller gave\n"
    "cleave-guest console TEXT      a line on the hypervisor's console\n"
    "cleave-guest busy SECONDS CPU  computes there, and checks what came of it and the clock\n"
    "cleave-guest call NUMBER       makes that hypercall of Xen's, and prints what it returns\n"
    "cleave-guest try WHAT DOMAIN   fork|pause|unpause|stat|reset|destroy; prints the status\n"
    "cleave-guest exit CODE [FILE]  ends this domain, with the first bytes of FILE as its result\n";

static const volatile struct cleave_identity *must_have_identity(void)
{
    const volatile struct cleave_identity *identity = identity_map();
    if (identity == NULL) {
        fail("no identity page");
    }
    return identity;
}

static int fork_domain(unsigned long count)
{
    const volatile struct cleave_identity *identity = must_have_identity();
    struct cleave_fork *fork = shared_memory();
    *fork = (struct cleave_fork){
        .domain = CLEAVE_DOMAIN_SELF, .count = (uint32_t)count, .limit = UINT64_MAX};
    uint8_t before[sizeof(identity->generation)];
    memcpy(before, (const void *)identity->generation, sizeof(before));
    must(CLEAVE_OP_FORK, fork, sizeof(*fork));
    /* The call returns in the children too. Only they are of a new generation. */
    int child = memcmp(before, (const void *)identity->generation, sizeof(before)) != 0;
    printf("%u\n", child ? identity->index : 0);
    return 0;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* Into shared memory. */
static struct cleave_stat *own_stat(void)
{
    struct cleave_stat *stat = shared_memory();
    *stat = (struct cleave_stat){.domain = CLEAVE_DOMAIN_SELF};
    must(CLEAVE_OP_STAT, stat, sizeof(*stat));
    return stat;
}

static void print_stat(const char *when, const struct cleave_stat *s)
{
    const uint64_t values[] = {s->faults,       s->copied,    s->zeroed,    s->tables_copied,
                               s->blocks_split, s->reused,    s->charged,   s->exclusive,
                               s->mapped[0],    s->mapped[1], s->mapped[2], s->exits};
    static const char *const names[] = {"faults",       "copied",    "zeroed",    "tables_copied",
                                        "blocks_split", "reused",    "charged",   "exclusive",
                                        "mapped_4k",    "mapped_2m", "mapped_1g", "exits"};
    for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        printf("%s.%s %llu\n", when, names[i], (unsigned long long)values[i]);
    }
}

/* One process through it all, which writes no more than it must. */
static int measure(void)
{
    static struct cleave_stat first, early, late;
    const volatile struct cleave_identity *identity = must_have_identity();
    uint8_t before[sizeof(identity->generation)];
    memcpy(before, (const void *)identity->generation, sizeof(before));
    first = *own_stat();
    struct cleave_fork *fork = shared_memory();
    *fork = (struct cleave_fork){.domain = CLEAVE_DOMAIN_SELF, .count = 1, .limit = UINT64_MAX};
    must(CLEAVE_OP_FORK, fork, sizeof(*fork));
    if (memcmp(before, (const void *)identity->generation, sizeof(before)) == 0) {
        sleep_ms(3000); /* the child's time */
        print_stat("before", &first);
        printf("parent.stood_still %llu\n", (unsigned long long)own_stat()->stood_still);
        return 0;
    }
    sleep_ms(100);
    early = *own_stat();
    sleep_ms(900);
    late = *own_stat();
    causes_note();
    printf("start.ticks %u\nstart.copied %u\nstart.zeroed %u\n", early.start_ticks,
           early.start_copied, early.start_zeroed);
    printf("entry.ticks %u\nentry.copied %u\nentry.zeroed %u\n", early.entry_ticks,
           early.entry_copied, early.entry_zeroed);
    print_stat("100ms", &early);
    print_stat("1s", &late);
    causes_print();
    return 0;
}

/* 32 digits and a zero byte. */
static void generation_text(const volatile struct cleave_identity *identity, char *text)
{
    for (unsigned i = 0; i < sizeof(identity->generation); i++) {
        sprintf(text + 2 * (size_t)i, "%02x", identity->generation[i]);
    }
}

/* Until the generation is another than in `info`, which print_info() has printed (null: than now);
 * with `still` (null: without), also until this domain has stood still for another time than that.
 */
static int wait_for_fork(const char *info, const char *still)
{
    const volatile struct cleave_identity *identity = must_have_identity();
    char before[2 * sizeof(identity->generation) + 1], now[sizeof(before)];
    bool forked = false, child;
    generation_text(identity, before);
    do {
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
        if (still != NULL) {
            forked = own_stat()->stood_still != strtoull(still, NULL, 0);
        }
        generation_text(identity, now);
        child = strstr(info != NULL ? info : before, now) == NULL;
    } while (!child && !forked);
    printf("%u\n", child ? identity->index : 0);
    return 0;
}

/* The first line of what a child has handed back, as text. */
static void print_result(const char *result, uint32_t size)
{
    for (uint32_t i = 0; i < size && i < CLEAVE_RESULT_MAX && result[i] != '\n'; i++) {
        putchar(result[i] >= ' ' && result[i] <= '~' ? result[i] : '?');
    }
    putchar('\n');
}

/* "domain ID reason REASON code CODE RESULT", and 1 when one of them has not ended with code 0. It
 * looks now and then: a vcpu that waited in the call would take no interrupt meanwhile. */
static int collect(unsigned long count)
{
    struct cleave_wait *wait = shared_memory();
    char *result = (char *)wait + 4096;
    int failed = 0;
    while (count > 0) {
        *wait = (struct cleave_wait){
            .flags = CLEAVE_WAIT_NOT, .size = CLEAVE_RESULT_MAX, .result = (uintptr_t)result};
        unsigned status = call(CLEAVE_OP_WAIT, wait, sizeof(*wait));
        if (status == CLEAVE_BUSY) {
            nanosleep(&(struct timespec){.tv_nsec = 100 * 1000 * 1000}, NULL);
            continue;
        }
        if (status != CLEAVE_OK) {
            refused(CLEAVE_OP_WAIT, status);
        }
        printf("domain %u reason %u code %u ", wait->which, wait->reason, wait->code);
        print_result(result, wait->size);
        failed |= wait->reason != CLEAVE_EXITED || wait->code != 0;
        count--;
    }
    return failed;
}

static int print_info(void)
{
    const volatile struct cleave_identity *identity = must_have_identity();
    char generation[2 * sizeof(identity->generation) + 1];
    generation_text(identity, generation);
    printf("index %u count %u domain %u generation %s data %u\n", identity->index, identity->count,
           identity->domain, generation, identity->data_size);
    return 0;
}

static int print_leaves(void)
{
    struct cleave_stat *stat = shared_memory();
    *stat = (struct cleave_stat){.domain = CLEAVE_DOMAIN_SELF};
    must(CLEAVE_OP_STAT, stat, sizeof(*stat));
    printf("4 KiB: %llu KiB, 2 MiB: %llu KiB, 1 GiB: %llu KiB, split: %llu\n",
           (unsigned long long)stat->mapped[0] >> 10, (unsigned long long)stat->mapped[1] >> 10,
           (unsigned long long)stat->mapped[2] >> 10, (unsigned long long)stat->blocks_split);
    return 0;
}

static int write_data(void)
{
    const volatile struct cleave_identity *identity = must_have_identity();
    uint32_t size = identity->data_size;
    if (size > 4096) {
        fail("%u bytes of data", size);
    }
    return fwrite((const void *)identity_data(identity), 1, size, stdout) != size;
}

static int print_line(const char *text)
{
    char *line = (char *)shared_memory() + 4096;
    int size = snprintf(line, CLEAVE_TEXT_MAX, "%s\n", text);
    if (size < 0 || size >= (int)CLEAVE_TEXT_MAX) {
        fail("a line of more than %u bytes", CLEAVE_TEXT_MAX - 2);
    }
    struct cleave_console *console = shared_memory();
    *console = (struct cleave_console){.text = (uintptr_t)line, .size = (uint32_t)size};
    must(CLEAVE_OP_CONSOLE, console, sizeof(*console));
    return 0;
}

static int end_domain(unsigned long code, const char *file)
{
    struct cleave_exit *arguments = shared_memory();
    *arguments = (struct cleave_exit){.code = (uint32_t)code};
    if (file != NULL) {
        FILE *stream = fopen(file, "rb");
        if (stream == NULL) {
            fail("%s: %s", file, strerror(errno));
        }
        char *result = (char *)shared_memory() + 4096;
        arguments->result = (uintptr_t)result;
        arguments->size = (uint32_t)fread(result, 1, CLEAVE_RESULT_MAX, stream);
        fclose(stream);
    }
    must(CLEAVE_OP_EXIT, arguments, sizeof(*arguments));
    return 1;
}

static int make_call(unsigned long number)
{
    printf("%d\n", xen_call(number, 0, 0, 0));
    return 0;
}

/* Asks for an operation on another domain and prints the status, whatever it is. False: there is
 * none of that name. */
static bool try_on(const char *what, uint32_t domain)
{
    static const struct {
        const char *name;
        enum cleave_op op;
        size_t size;
    } tries[] = {{"fork", CLEAVE_OP_FORK, sizeof(struct cleave_fork)},
                 {"stat", CLEAVE_OP_STAT, sizeof(struct cleave_stat)},
                 {"pause", CLEAVE_OP_PAUSE, sizeof(struct cleave_domain)},
                 {"unpause", CLEAVE_OP_UNPAUSE, sizeof(struct cleave_domain)},
                 {"reset", CLEAVE_OP_RESET, sizeof(struct cleave_domain)},
                 {"destroy", CLEAVE_OP_DESTROY, sizeof(struct cleave_domain)}};
    for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
        if (strcmp(what, tries[i].name) == 0) {
            uint32_t *arguments = shared_memory();
            memset(arguments, 0, tries[i].size);
            if (tries[i].op == CLEAVE_OP_FORK) {
                *(struct cleave_fork *)shared_memory() = (struct cleave_fork){
                    .count = 1, .flags = CLEAVE_FORK_PAUSED, .limit = UINT64_MAX};
            }
            arguments[0] = domain; /* the first of each of these structures */
            printf("%u\n", call(tries[i].op, arguments, tries[i].size));
            return true;
        }
    }
    return false;
}

/* x -> FACTOR x + STEP (mod 2^64), `count` times: by squaring. */
#define FACTOR UINT64_C(6364136223846793005)
#define STEP UINT64_C(1442695040888963407)
static uint64_t many_steps(uint64_t x, uint64_t count)
{
    uint64_t factor = FACTOR, step = STEP;
    for (; count != 0; count >>= 1) {
        if (count & 1) {
            x = factor * x + step;
        }
        step = factor * step + step;
        factor *= factor;
    }
    return x;
}

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* One step after the other, in a register and through memory, for that time on that CPU; forks
 * happen in between. */
static int compute(unsigned long seconds, unsigned long cpu)
{
    static volatile uint64_t memory[8192];
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0) {
        fail("CPU %lu: %s", cpu, strerror(errno));
    }
    uint64_t x = 1, count = 0, began = monotonic_ns(), last = began, largest = 0, now;
    do {
        for (unsigned i = 0; i < 8192; i++, count++) {
            x = FACTOR * x + STEP;
            memory[i] = x;
        }
        now = monotonic_ns();
        if (now < last) {
            fail("the clock went back by %llu ns", (unsigned long long)(last - now));
        }
        largest = now - last > largest ? now - last : largest;
        last = now;
    } while (now - began < seconds * 1000000000);
    int right = x == many_steps(1, count);
    for (unsigned i = 0; i < 8192; i++) {
        right &= memory[i] == many_steps(1, count - 8192 + i + 1);
    }
    printf("CPU %lu: %s, largest step %llu ms\n", cpu, right ? "right" : "WRONG",
           (unsigned long long)largest / 1000000);
    return !right;
}

static int misused(void)
{
    fputs(usage, stderr);
    return 2;
}

/* A number from `low` to UINT32_MAX; anything else ends the program. */
static unsigned long number(const char *text, unsigned long low)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 0);
    if (errno != 0 || end == text || *end != '\0' || value < low || value > UINT32_MAX) {
        exit(misused());
    }
    return value;
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    if (strcmp(command, "fork") == 0 && argc <= 3) {
        return fork_domain(argc > 2 ? number(argv[2], 1) : 1);
    }
    if (strcmp(command, "measure") == 0 && argc == 2) {
        return measure();
    }
    if (strcmp(command, "wait") == 0 && argc <= 3) {
        return wait_for_fork(argc > 2 ? argv[2] : NULL, NULL);
    }
    if (strcmp(command, "notice") == 0 && argc == 4) {
        return wait_for_fork(argv[2], argv[3]);
    }
    if (strcmp(command, "still") == 0 && argc == 2) {
        printf("%llu\n", (unsigned long long)own_stat()->stood_still);
        return 0;
    }
    if (strcmp(command, "collect") == 0 && argc == 3) {
        return collect(number(argv[2], 1));
    }
    if (strcmp(command, "info") == 0 && argc == 2) {
        return print_info();
    }
    if (strcmp(command, "leaves") == 0 && argc == 2) {
        return print_leaves();
    }
    if (strcmp(command, "data") == 0 && argc == 2) {
        return write_data();
    }
    if (strcmp(command, "console") == 0 && argc == 3) {
        return print_line(argv[2]);
    }
    if (strcmp(command, "busy") == 0 && argc == 4) {
        return compute(number(argv[2], 1), number(argv[3], 0));
    }
    if (strcmp(command, "call") == 0 && argc == 3) {
        return make_call(number(argv[2], 0));
    }
    if (strcmp(command, "try") == 0 && argc == 4) {
        return try_on(argv[2], (uint32_t)number(argv[3], 1)) ? 0 : misused();
    }
    if (strcmp(command, "exit") == 0 && (argc == 3 || argc == 4)) {
        return end_domain(number(argv[2], 0), argc > 3 ? argv[3] : NULL);
    }
    return misused();
}
