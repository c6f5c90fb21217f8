/* SPDX-License-Identifier: BSD-2-Clause */
/* The command that makes a domain of files: create. */
#include "command.h"
#include "kernel.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static volatile sig_atomic_t stopped;

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

/* A signal stops it between two steps, so that no half of a domain is left. */
static void catch_signals(void)
{
    const struct sigaction action = {.sa_handler = stop};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

static int tell_progress(void *context, uint64_t done, uint64_t all)
{
    progress_tell(context, done, all);
    return stopped;
}

static void create(struct run *run, const struct bytes *kernel, const struct bytes *initrd)
{
    const struct options *o = &run->options;
    struct progress progress = progress_begin(run);
    struct cleave_list made;
    char number[16];
    uint32_t id;
    struct cleave_create_options options = {
        .name = o->name,
        .kernel = kernel->at,
        .kernel_size = kernel->size,
        .initrd = initrd->at,
        .initrd_size = initrd->size,
        .command_line = o->cmdline,
        .memory = o->memory != 0 ? o->memory : UINT64_C(512) << 20,
        .vcpus = o->vcpus != 0 ? o->vcpus : 1,
        .flags = o->flags & CLEAVE_FORK_PAUSED ? CLEAVE_CREATE_PAUSED : 0,
        .pool = o->pool,
        .progress = tell_progress,
        .context = &progress};

    int status = cleave_create(run->cleave, &options, &id);
    progress_end(&progress);
    if (status == -ECANCELED) {
        failed_here(run, REFUSED, NULL, "%s", cleave_message(run->cleave));
        return;
    }
    if (status == 0) {
        snprintf(number, sizeof(number), "id=%u", id);
        status = cleave_find(run->cleave, number, &made);
    }
    if (status != 0) {
        failed(run, status, NULL);
        return;
    }
    put(run->result, "id", json_integer(id));
    put(run->result, "name", json_string(made.name));
    put(run->result, "memory_bytes", json_integer((json_int_t)options.memory));
    put(run->result, "vcpus", json_integer(options.vcpus));
    tell(run, "%u %s\n", id, made.name);
}

void run_create(struct run *run)
{
    const struct options *o = &run->options;
    struct bytes kernel = {.at = NULL}, initrd = {.at = NULL};
    const char *which = "--kernel", *path = o->kernel;

    catch_signals();
    const char *wrong = file_read(path, &kernel);
    int exit = wrong != NULL ? REFUSED : USAGE;
    if (wrong == NULL) {
        wrong = kernel_unpack(&kernel);
    }
    if (wrong == NULL && o->initrd != NULL) {
        which = "--initrd";
        path = o->initrd;
        wrong = file_read(path, &initrd);
        exit = REFUSED;
    }
    if (wrong != NULL) {
        failed_here(run, exit, path, "%s: %s", which, wrong);
    } else {
        create(run, &kernel, &initrd);
    }
    free(kernel.at);
    free(initrd.at);
}
