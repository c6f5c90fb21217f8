/* SPDX-License-Identifier: BSD-2-Clause */
/* How far a command is: a line on the terminal that is written over, where it takes long. */
#include "command.h"

#include <inttypes.h>
#include <stdio.h>
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

struct progress progress_begin(const struct run *run)
{
    return (struct progress){.command = run->command->name, .began = now_ms()};
}

void progress_tell(struct progress *progress, uint64_t done, uint64_t all)
{
    int64_t now = now_ms();
    if (now - progress->began < FROM_MS || now - progress->told < EVERY_MS ||
        !isatty(STDERR_FILENO)) {
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
