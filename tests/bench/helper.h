/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Work that runs apart from the benchmark itself: a forked helper process with a time limit, whose
 * memory is gone when it ends, and kernel settings that are put back however the run ends.
 */

#ifndef CLEAVE_TESTS_BENCH_HELPER_H
#define CLEAVE_TESTS_BENCH_HELPER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define HELPER_WHY 160

/* Why something was not done, in words. */
struct helper_why {
    char text[HELPER_WHY];
};

/* Does the work on `result`, which holds what the caller of helper_run() put there. */
typedef void helper_work_fn(void *result);

/*
 * Runs `work` in a forked process on a copy of the `size` bytes at `result`, and copies them back
 * through a pipe when it has ended. Returns false and says why, with `result` as it was, when the
 * process fails or takes longer than `limit` seconds; it is killed and reaped in any case.
 */
bool helper_run(helper_work_fn *work, void *result, size_t size, unsigned limit,
                struct helper_why *why);

/* Asks the kernel to kill the calling process when its parent ends; for children of a helper. */
void helper_die_with_parent(void);

/* A file of /sys that holds one setting, and what it held before. Close the last opened first. */
struct helper_setting {
    const char *path;
    char old[64];
    int file;
    int guard_pipe;
    pid_t guard;
};

/*
 * Opens a setting for writing, locks it against other runs, and starts the guard: a process that
 * puts the old value back when helper_setting_close() is called or this process ends, even if it
 * is killed. Returns false and says why when the setting may not be changed.
 */
bool helper_setting_open(struct helper_setting *s, const char *path, struct helper_why *why);

/* Writes a value to an open setting. Returns false and says why when the kernel refuses it. */
bool helper_setting_write(struct helper_setting *s, const char *value, struct helper_why *why);

/* Puts the old value back and ends the guard. Returns false and says so if that did not work. */
bool helper_setting_close(struct helper_setting *s, struct helper_why *why);

/* Reads the first line of `path`; for a choice of words, the one in brackets. False on failure. */
bool helper_setting_read(const char *path, char *value, size_t size);

#endif
