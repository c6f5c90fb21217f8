/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What Linux itself pays for fork() and for the first write after it, with the same memory under 4
 * KiB pages, transparent huge pages and hugetlbfs. Each is measured in a helper process, so that
 * nothing of it is left in the process that measures the core.
 */

#ifndef CLEAVE_TESTS_BENCH_LINUX_FORK_H
#define CLEAVE_TESTS_BENCH_LINUX_FORK_H

#include <stdbool.h>
#include <stdint.h>

/* The memory of the process that forks: MAP_PRIVATE and anonymous, every page written. */
enum linux_backing {
    LINUX_4K,      /* madvise(MADV_NOHUGEPAGE) */
    LINUX_THP,     /* madvise(MADV_HUGEPAGE), 2 MiB */
    LINUX_HUGETLB, /* MAP_HUGETLB, 2 MiB */
    LINUX_BACKINGS,
};

#define LINUX_FORK_SIZES 6
#define LINUX_NOTE 160

/* fork() of a process with `bytes` of memory, nothing subtracted. */
struct linux_fork_size {
    uint64_t bytes;
    double ns;
};

/* Medians in nanoseconds; NAN is "not measured", and `note` says why. */
struct linux_fork {
    bool ok;
    uint64_t bytes;  /* of memory in the process that forked */
    uint64_t wanted; /* more than `bytes` where the row was scaled down */
    double huge;     /* part of `bytes` that really was under 2 MiB pages, 0 to 1 */
    double empty_ns; /* fork() of the same process before it had its memory */
    double fork_ns;  /* fork() with `bytes`, from before the call to its return in the parent */
    double fork_p90_ns;
    double net_ns;         /* fork_ns less empty_ns */
    double first_write_ns; /* the child's first write into a 2 MiB block */
    double next_write_ns;  /* its next write into the same block, to another page */
    double reuse_write_ns; /* the parent's write when the child is gone: a fault without a copy */
    struct linux_fork_size sizes[LINUX_FORK_SIZES]; /* from `bytes` down; bytes 0 is unused */
    char note[LINUX_NOTE];
};

/* "4 KiB pages", "transparent huge pages" or "hugetlbfs". */
const char *linux_backing_name(enum linux_backing backing);

/* Sets a result to "nothing measured". */
void linux_fork_clear(struct linux_fork *result);

/*
 * Measures one backing with `wanted` bytes, or with what memory allows. Sets up the
 * pages of hugetlbfs and removes them; transparent huge pages must be allowed by the caller. Takes
 * at most 45 seconds.
 */
void linux_fork_measure(enum linux_backing backing, uint64_t wanted, struct linux_fork *result);

#endif
