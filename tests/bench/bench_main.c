/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `make bench`: measures Linux and the bare memory of this machine, then the memory core beside
 * them, prints the table and writes results.json and the plots.
 */

#define _GNU_SOURCE
#include "bench.h"
#include "core.h"
#include "helper.h"
#include "hypervisor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define LINUX_BYTES (8 * BENCH_GIB)
#define COMMAND "make bench"
#define HUGE_SWITCH "/sys/kernel/mm/transparent_hugepage/enabled"

#define USAGE                                                                                      \
    "usage: %s [-c] [-l] [-m] [-t] [-o directory] [-s scripts]\n"                                  \
    "  -c  the core alone, without what it is compared with; results.json stays as it is\n"        \
    "  -l  Linux alone; results.json stays as it is\n"                                             \
    "  -m  the hypervisor on its machine alone; results.json stays as it is\n"                     \
    "  -t  the core's two threads alone; results.json stays as it is\n"                            \
    "  -o  where results and plots go (build/bench)\n"                                             \
    "  -s  where the gnuplot scripts are (tests/bench)\n"

/* What the command line asks for. */
struct options {
    const char *directory;
    const char *scripts;
    bool core;
    bool linux_side;
    bool hypervisor;
    bool threads; /* of the core, these figures alone */
};

/* Names the machine, so that a figure can be read without having been there. */
static void machine_print(void)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[256];
    char model[128] = "unknown processor";
    char size[24];
    struct utsname name;
    double load = 0;

    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "model name : %127[^\n]", model) == 1) {
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    uname(&name);
    (void)getloadavg(&load, 1);
    printf("On %s, %ld CPUs, %s %s, %s to use, load %.2f. Times are medians.\n", model,
           sysconf(_SC_NPROCESSORS_ONLN), name.sysname, name.release,
           bench_size_text(size, bench_memory_available()), load);
    fflush(stdout);
}

/* Allows transparent huge pages for this run where nobody may have them; true if it did so. */
static bool huge_pages_allow(struct helper_setting *setting)
{
    struct helper_why why = {"this kernel has none"};
    char value[32];

    if (helper_setting_read(HUGE_SWITCH, value, sizeof(value))) {
        if (strcmp(value, "never") != 0) {
            return false;
        }
        if (helper_setting_open(setting, HUGE_SWITCH, &why)) {
            if (helper_setting_write(setting, "madvise", &why)) {
                puts("Transparent huge pages are allowed for this run, and forbidden again after.");
                return true;
            }
            (void)helper_setting_close(setting, &why);
        }
    }
    printf("No transparent huge pages: %s.\n", why.text);
    return false;
}

/* Where a row was scaled down, the words for it in `text`; else NULL. */
static const char *scaled_text(char text[64], uint64_t bytes, uint64_t wanted)
{
    char have[24];
    char want[24];

    if (bytes >= wanted) {
        return NULL;
    }
    snprintf(text, 64, "%s instead of %s", bench_size_text(have, bytes),
             bench_size_text(want, wanted));
    return text;
}

/* Records one figure of Linux under "linux <what>, <backing>". */
static void linux_record(struct bench *b, enum linux_backing backing, const char *what,
                         const char *unit, double value, const char *note)
{
    const struct linux_fork *f = &bench_baselines(b)->fork[backing];
    char name[96];
    char text[64];
    char all[256];
    struct bench_row row = {.name = name, .value = value, .unit = unit, .note = all};

    snprintf(name, sizeof(name), "linux %s, %s", what, linux_backing_name(backing));
    snprintf(all, sizeof(all), "%s%s%s", note, *note && *f->note ? "; " : "", f->note);
    if (f->ok) {
        row.scaled = scaled_text(text, f->bytes, f->wanted);
    }
    bench_record(b, &row);
}

/* Records what Linux does under one backing. */
static void backing_record(struct bench *b, enum linux_backing backing)
{
    const struct linux_fork *f = &bench_baselines(b)->fork[backing];
    char size[24];
    char fork_note[96];
    char p90[96];

    snprintf(fork_note, sizeof(fork_note), "%s, every page written",
             bench_size_text(size, f->bytes));
    snprintf(p90, sizeof(p90), "p90 %.0f us", f->fork_p90_ns / 1000);
    linux_record(b, backing, "fork", "us", f->fork_ns / 1000, f->ok ? p90 : "");
    linux_record(b, backing, "fork less empty fork", "us", f->net_ns / 1000,
                 f->ok ? fork_note : "");
    linux_record(b, backing, "first write", "us", f->first_write_ns / 1000,
                 "in the child, once per 2 MiB");
    if (backing != LINUX_HUGETLB) {
        linux_record(b, backing, "next write", "us", f->next_write_ns / 1000,
                     "same 2 MiB, another page");
    }
    linux_record(b, backing, "write given back", "us", f->reuse_write_ns / 1000,
                 "in the parent, child gone: no copy");
}

/* Records what the bare memory does. */
static void bare_record(struct bench *b)
{
    const struct bare_costs *c = &bench_baselines(b)->bare;
    const struct bench_row rows[] = {
        {.name = "bare cold 4 KiB copy",
         .value = c->copy_4k_ns,
         .unit = "ns",
         .note = "alone, to its last store"},
        {.name = "bare cold 4 KiB fill",
         .value = c->fill_4k_ns,
         .unit = "ns",
         .note = "alone, to its last store"},
        {.name = "bare cold 4 KiB copy, in a run",
         .value = c->copy_4k_run_ns,
         .unit = "ns",
         .note = "one after the other, overlapping"},
        {.name = "bare cold 2 MiB copy", .value = c->copy_2m_ns / 1000, .unit = "us"},
        {.name = "bare two threads copying, by one",
         .value = c->two_threads,
         .unit = "x",
         .note = "throughput of cold 4 KiB copies"},
    };
    size_t i;

    bench_section(b, "Bare memory");
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char all[256];
        char text[64];
        struct bench_row row = rows[i];

        snprintf(all, sizeof(all), "%s%s%s", row.note ? row.note : "",
                 row.note && *c->note ? "; " : "", c->note);
        row.note = all;
        row.scaled = c->ok ? scaled_text(text, c->bytes, c->wanted) : NULL;
        bench_record(b, &row);
    }
}

/* Adds what Linux does to the plots. */
static void linux_plot(struct bench *b)
{
    const struct bench_base *base = bench_baselines(b);
    char label[64];
    size_t i;
    size_t k;

    for (i = 0; i < LINUX_BACKINGS; i++) {
        const struct linux_fork *f = &base->fork[i];

        snprintf(label, sizeof(label), "Linux, %s", linux_backing_name((enum linux_backing)i));
        for (k = LINUX_FORK_SIZES; k-- > 0;) {
            if (f->sizes[k].bytes > 0) {
                bench_plot_fork(b, label, f->sizes[k].bytes, f->sizes[k].ns);
            }
        }
        bench_plot_write(b, label, f->first_write_ns);
    }
    bench_plot_write(b, "bare cold 4 KiB copy", base->bare.copy_4k_ns);
}

/* Measures Linux and the bare memory, and records them. */
static void linux_measure(struct bench *b)
{
    struct bench_base base = *bench_baselines(b);
    double empty[LINUX_BACKINGS];
    size_t count = 0;
    size_t i;

    for (i = 0; i < LINUX_BACKINGS; i++) {
        linux_fork_measure((enum linux_backing)i, LINUX_BYTES, &base.fork[i]);
        if (!isnan(base.fork[i].empty_ns)) {
            empty[count++] = base.fork[i].empty_ns;
        }
    }
    base.empty_fork_ns = bench_median(empty, count);
    bare_copy_measure(&base.bare);
    bench_set_baselines(b, &base);

    bench_section(b, "Linux");
    bench_record(b, &(struct bench_row){.name = "linux fork, empty process",
                                        .value = base.empty_fork_ns / 1000,
                                        .unit = "us",
                                        .note = "subtracted below"});
    for (i = 0; i < LINUX_BACKINGS; i++) {
        backing_record(b, (enum linux_backing)i);
    }
    bare_record(b);
    linux_plot(b);
}

/* Measures what is asked for, and ends the run. */
static bool measure(const struct options *o, struct bench *b)
{
    struct helper_setting setting;
    struct helper_why why;
    bool allowed;

    machine_print();
    allowed = huge_pages_allow(&setting);
    if (o->linux_side) {
        linux_measure(b);
    }
    if (o->threads) {
        core_bench_threads(b);
    } else if (o->core) {
        bench_core(b);
    }
    if (o->hypervisor) {
        bench_hypervisor(b);
    }
    if (allowed && !helper_setting_close(&setting, &why)) {
        puts(why.text);
    }
    bench_draw(b, o->scripts);
    return bench_close(b);
}

/* Reads the command line; false when it makes no sense. */
static bool options_read(struct options *o, int argc, char **argv)
{
    int option;

    while ((option = getopt(argc, argv, "clmto:s:")) != -1) {
        switch (option) {
        case 'c':
            o->linux_side = o->hypervisor = false;
            break;
        case 'l':
            o->core = o->hypervisor = false;
            break;
        case 'm':
            o->core = o->linux_side = false;
            break;
        case 't':
            o->threads = true;
            o->linux_side = o->hypervisor = false;
            break;
        case 'o':
            o->directory = optarg;
            break;
        case 's':
            o->scripts = optarg;
            break;
        default:
            return false;
        }
    }
    return optind == argc && (o->core || o->linux_side || o->hypervisor);
}

int main(int argc, char **argv)
{
    struct options o = {.directory = "build/bench",
                        .scripts = "tests/bench",
                        .core = true,
                        .linux_side = true,
                        .hypervisor = true};
    struct bench *b;

    if (!options_read(&o, argc, argv)) {
        fprintf(stderr, USAGE, argv[0]);
        return EXIT_FAILURE;
    }
    b = bench_open(o.directory, COMMAND, !o.core || !o.linux_side || !o.hypervisor);
    if (b == NULL) {
        return EXIT_FAILURE;
    }
    return measure(&o, b) ? EXIT_SUCCESS : EXIT_FAILURE;
}
