/* SPDX-License-Identifier: BSD-2-Clause */
/* How far a command is: a line on the terminal that is written over, where it takes long. */
#include "command.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define FROM_MS 1000 /* nothing is said before */
#define EVERY_MS 200

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Standard error is the terminal of the one who waits for the command: of a command in the
 * background it is another's, and a console that nobody types at is a log. */
static bool is_watched(void) { return tcgetpgrp(STDERR_FILENO) == getpgrp(); }

/* --- A clock, for what cannot say how far it is ------------------------------------------------
 */

static struct {
    char line[80]; /* "cleave COMMAND: " and the number, written from the handler */
    size_t length; /* up to the number */
    int64_t began;
    volatile sig_atomic_t runs, shown;
} clock_line;

static void tick(int signal)
{
    char digits[24];
    size_t length = clock_line.length, used = 0;
    int before = errno;
    (void)signal;
    if (!is_watched()) {
        errno = before;
        return;
    }
    for (int64_t left = (now_ms() - clock_line.began) / 1000; used == 0 || left != 0; left /= 10) {
        digits[used++] = (char)('0' + left % 10);
    }
    while (used != 0) {
        clock_line.line[length++] = digits[--used];
    }
    clock_line.line[length++] = ' ';
    clock_line.line[length++] = 's';
    clock_line.shown = 1;
    (void)!write(STDERR_FILENO, clock_line.line, length);
    errno = before;
}

static void set_timer(time_t seconds)
{
    struct itimerval every = {.it_interval.tv_sec = seconds, .it_value.tv_sec = seconds};
    setitimer(ITIMER_REAL, &every, NULL);
}

void clock_begin(const struct run *run)
{
    if (!is_watched() || (run->command->options & OPT_SHOWS) != 0) {
        return;
    }
    int length = snprintf(clock_line.line, sizeof(clock_line.line) - 24,
                          "\rcleave %s: ", run->command->name);
    clock_line.length = (size_t)length;
    clock_line.began = now_ms();
    clock_line.runs = 1;
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = tick, .sa_flags = SA_RESTART}, NULL);
    set_timer(1);
}

void clock_clear(void)
{
    if (clock_line.runs != 0) {
        set_timer(1); /* so that it comes neither between this and what is told */
        if (clock_line.shown != 0) {
            clock_line.shown = 0;
            fputs("\r\033[K", stderr);
        }
    }
}

void clock_end(void)
{
    clock_clear();
    if (clock_line.runs != 0) {
        clock_line.runs = 0;
        set_timer(0);
    }
}

/* --- How far it is -----------------------------------------------------------------------------
 */

struct progress progress_begin(const struct run *run)
{
    clock_end();
    return (struct progress){.command = run->command->name, .began = now_ms()};
}

void progress_tell(struct progress *progress, uint64_t done, uint64_t all)
{
    int64_t now = now_ms();
    if (now - progress->began < FROM_MS || now - progress->told < EVERY_MS || !is_watched()) {
        return;
    }
    progress->told = now;
    if (all != 0) {
        fprintf(stderr, "\rcleave %s: %3u%% of %" PRIu64 " MiB", progress->command,
                (unsigned)((double)(done < all ? done : all) / (double)all * 100), all >> 20);
    } else {
        fprintf(stderr, "\rcleave %s: %" PRIu64 " MiB", progress->command, done >> 20);
    }
}

void progress_end(struct progress *progress)
{
    if (progress->told != 0) {
        fputs("\r\033[K", stderr);
        progress->told = 0;
    }
}
