/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Forked helper processes with a time limit, and kernel settings with a guard process that puts
 * them back. The guard waits for the end of a pipe that only its parent can write to, so it needs
 * no signal handler and works when the parent is killed.
 */

#define _GNU_SOURCE
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAY(why, ...) ((void)snprintf((why)->text, sizeof((why)->text), __VA_ARGS__))

/* Milliseconds of a clock that never jumps. */
static long clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits for a child of this process to end, and returns its status. */
static int child_reap(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

void helper_die_with_parent(void) { prctl(PR_SET_PDEATHSIG, SIGKILL); }

/* In the helper: lets the kernel choose it first when memory runs out, not a bystander. */
static void prefer_for_oom(void)
{
    int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (file >= 0) {
        if (write(file, "1000", 4) < 0) {
            perror("oom_score_adj");
        }
        close(file);
    }
}

/* The life of a helper process: works, writes its result to the pipe, ends. */
static void helper_live(helper_work_fn *work, void *result, size_t size, unsigned limit, int out)
{
    const char *at = result;

    helper_die_with_parent();
    prefer_for_oom();
    alarm(limit);
    work(result);
    while (size > 0) {
        ssize_t n = write(out, at, size);

        if (n < 0) {
            _exit(EXIT_FAILURE);
        }
        at += n;
        size -= (size_t)n;
    }
    _exit(EXIT_SUCCESS);
}

/* Reads up to `size` bytes until the end of the pipe or `limit` seconds; returns how many. */
static size_t pipe_read(int in, char *buffer, size_t size, unsigned limit)
{
    long end = clock_ms() + (long)limit * 1000;
    size_t done = 0;

    while (done < size) {
        struct pollfd wait = {.fd = in, .events = POLLIN};
        long left = end - clock_ms();
        ssize_t n;

        if (left <= 0) {
            break;
        }
        if (poll(&wait, 1, (int)left) <= 0) {
            continue;
        }
        n = read(in, buffer + done, size - done);
        if (n <= 0) {
            break;
        }
        done += (size_t)n;
    }
    return done;
}

bool helper_run(helper_work_fn *work, void *result, size_t size, unsigned limit,
                struct helper_why *why)
{
    char *buffer = malloc(size);
    int ends[2] = {-1, -1};
    size_t got;
    int status;
    pid_t pid;

    fflush(NULL);
    if (buffer == NULL || pipe2(ends, O_CLOEXEC) != 0 || (pid = fork()) < 0) {
        SAY(why, "no helper process: %s", strerror(errno));
        free(buffer);
        close(ends[0]);
        close(ends[1]);
        return false;
    }
    if (pid == 0) {
        close(ends[0]);
        helper_live(work, result, size, limit, ends[1]);
    }
    close(ends[1]);
    got = pipe_read(ends[0], buffer, size, limit + 1);
    close(ends[0]);
    if (got < size) {
        kill(pid, SIGKILL);
    }
    status = child_reap(pid);
    if (got == size) {
        memcpy(result, buffer, size);
    } else if (WIFSIGNALED(status)) {
        SAY(why, "the helper process was ended by signal %d (limit %u s)", WTERMSIG(status), limit);
    } else {
        SAY(why, "the helper process failed");
    }
    free(buffer);
    return got == size;
}

bool helper_setting_read(const char *path, char *value, size_t size)
{
    FILE *file = fopen(path, "re");
    char line[256];
    char *start = line;
    bool ok;

    if (file == NULL) {
        return false;
    }
    ok = fgets(line, sizeof(line), file) != NULL;
    fclose(file);
    if (!ok) {
        return false;
    }
    if (strchr(line, '[') != NULL) {
        start = strchr(line, '[') + 1;
    }
    start[strcspn(start, "]\n")] = '\0';
    return (size_t)snprintf(value, size, "%s", start) < size;
}

/* The life of the guard: waits until nobody holds the other end of the pipe, puts back, ends. */
static void guard_live(const struct helper_setting *s, int in)
{
    sigset_t all;
    char byte;

    setsid();
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    while (read(in, &byte, 1) > 0) {
    }
    if (pwrite(s->file, s->old, strlen(s->old), 0) < 0) {
        _exit(EXIT_FAILURE);
    }
    _exit(EXIT_SUCCESS);
}

bool helper_setting_open(struct helper_setting *s, const char *path, struct helper_why *why)
{
    int ends[2] = {-1, -1};

    s->path = path;
    s->file = open(path, O_RDWR | O_CLOEXEC);
    if (s->file < 0) {
        SAY(why, "may not change %s: %s", path, strerror(errno));
        return false;
    }
    if (flock(s->file, LOCK_EX | LOCK_NB) != 0) {
        SAY(why, "%s is in use by another run", path);
        close(s->file);
        return false;
    }
    if (!helper_setting_read(path, s->old, sizeof(s->old)) || pipe2(ends, O_CLOEXEC) != 0 ||
        (s->guard = fork()) < 0) {
        SAY(why, "cannot guard %s: %s", path, strerror(errno));
        close(s->file);
        close(ends[0]);
        close(ends[1]);
        return false;
    }
    if (s->guard == 0) {
        close(ends[1]);
        guard_live(s, ends[0]);
    }
    close(ends[0]);
    s->guard_pipe = ends[1];
    return true;
}

bool helper_setting_write(struct helper_setting *s, const char *value, struct helper_why *why)
{
    if (pwrite(s->file, value, strlen(value), 0) < 0) {
        SAY(why, "%s refuses %s: %s", s->path, value, strerror(errno));
        return false;
    }
    return true;
}

bool helper_setting_close(struct helper_setting *s, struct helper_why *why)
{
    char now[sizeof(s->old)];

    close(s->guard_pipe);
    child_reap(s->guard);
    close(s->file);
    if (!helper_setting_read(s->path, now, sizeof(now)) || strcmp(now, s->old) != 0) {
        SAY(why, "%s could not be put back to %s", s->path, s->old);
        return false;
    }
    return true;
}
