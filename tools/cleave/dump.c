/* SPDX-License-Identifier: BSD-2-Clause */
/* The command dump: an ELF core of a domain to a file that is whole or not there, or to a pipe. */
#define _GNU_SOURCE 1 /* mkostemp() */
#include "command.h"
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct output {
    const char *path; /* "-": standard output */
    char *temporary;  /* what is written, and renamed in the end; null: `path` itself is written */
    int fd;
    int error; /* errno of what failed */
    uint64_t written, size;
    struct progress progress;
};

static volatile sig_atomic_t stopped;

static void stop(int signal) { stopped = signal; }

static bool sink(void *to, const void *bytes, size_t size)
{
    struct output *out = to;
    const char *from = bytes;
    while (size != 0 && stopped == 0) {
        ssize_t done = write(out->fd, from, size);
        if (done < 0 && errno != EINTR) {
            out->error = errno;
            return false;
        }
        if (done > 0) {
            from += done;
            size -= (size_t)done;
            out->written += (uint64_t)done;
        }
    }
    progress_tell(&out->progress, out->written, out->size);
    return stopped == 0;
}

/* --- Where it goes ---------------------------------------------------------------------------- */

static bool fits(struct run *run, const struct output *out)
{
    struct statvfs system;
    struct rlimit limit;
    uint64_t most = run->options.limit;
    if (most != 0 && out->size > most) {
        failed_here(run, REFUSED, NULL,
                    "the core has %" PRIu64 " bytes, --limit allows %" PRIu64
                    ": nothing is written",
                    out->size, most);
        return false;
    }
    if (out->temporary == NULL) {
        return true;
    }
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && out->size > limit.rlim_cur) {
        failed_here(run, REFUSED, out->path,
                    "the core has %" PRIu64 " bytes, a file here at most %" PRIu64
                    " (ulimit -f): nothing is written",
                    out->size, (uint64_t)limit.rlim_cur);
        return false;
    }
    if (fstatvfs(out->fd, &system) != 0 || system.f_blocks == 0) { /* it does not know */
        return true;
    }
    uint64_t room = (uint64_t)system.f_bavail * system.f_frsize;
    if (out->size > room) {
        failed_here(run, REFUSED, out->path,
                    "the core has %" PRIu64 " bytes, its file system only %" PRIu64
                    " left: nothing is written",
                    out->size, room);
        return false;
    }
    return true;
}

/* What is no regular file, as a pipe or a device, is written as it is. */
static bool open_output(struct run *run, struct output *out)
{
    struct stat about;
    bool there = stat(out->path, &about) == 0;
    if (strcmp(out->path, "-") == 0) {
        out->fd = STDOUT_FILENO;
        if (isatty(out->fd)) {
            failed_here(run, USAGE, NULL, "a core is nothing for a terminal: name a file");
            return false;
        }
        return true;
    }
    if (there && !S_ISREG(about.st_mode)) {
        out->fd = open(out->path, O_WRONLY | O_CLOEXEC);
    } else {
        size_t length = strlen(out->path) + sizeof(".XXXXXX");
        out->temporary = malloc(length);
        if (out->temporary != NULL) {
            snprintf(out->temporary, length, "%s.XXXXXX", out->path);
            out->fd = mkostemp(out->temporary, O_CLOEXEC);
        }
        if (out->fd < 0) {
            free(out->temporary);
            out->temporary = NULL;
        }
    }
    if (out->fd < 0) {
        failed_here(run, REFUSED, out->path, "%s", strerror(errno));
    }
    return out->fd >= 0;
}

/* The file is whole under its name, or nothing of it is left. */
static void close_output(struct run *run, struct output *out, bool good)
{
    progress_end(&out->progress);
    if (out->fd < 0 || out->fd == STDOUT_FILENO) {
        return;
    }
    bool whole = good && (out->temporary == NULL || fsync(out->fd) == 0);
    whole = (close(out->fd) == 0) && whole;
    whole = whole && (out->temporary == NULL || rename(out->temporary, out->path) == 0);
    if (good && !whole) {
        failed_here(run, REFUSED, out->path, "%s", strerror(errno));
    }
    if (out->temporary != NULL && !whole) {
        unlink(out->temporary);
    }
    free(out->temporary);
}

/* --- The dump --------------------------------------------------------------------------------- */

static void say_stopped(struct run *run, const struct output *out)
{
    const char *target = out->fd == STDOUT_FILENO ? "standard output" : out->path;
    if (stopped != 0) {
        failed_here(run, REFUSED, NULL, "stopped by a signal (%s)", strsignal(stopped));
    } else {
        failed_here(run, REFUSED, target, "%s after %" PRIu64 " bytes", strerror(out->error),
                    out->written);
    }
}

static bool write_core(struct run *run, struct core *core, struct output *out)
{
    out->size = core->size;
    out->progress = progress_begin(run);
    if (!fits(run, out)) {
        return false;
    }
    int status = core_write(core, sink, out);
    if (status == -EIO) {
        say_stopped(run, out);
    } else if (status != 0) {
        failed(run, status, run->targets[0]);
    }
    return status == 0;
}

static void dump(struct run *run, const struct cleave_list *domain, struct core *core,
                 xc_interface *xc)
{
    char why[CLEAVE_MESSAGE_SIZE];
    struct output out = {.path = run->options.output, .fd = -1};
    bool good = open_output(run, &out);
    int status = good ? core_plan(core, run->cleave, domain->domain, domain->name, xc, why) : 0;
    if (status == -EIO) {
        failed_here(run, REFUSED, run->targets[0], "%s", why);
    } else if (status != 0) {
        failed(run, status, run->targets[0]);
    }
    good = good && status == 0 && write_core(run, core, &out);
    close_output(run, &out, good);
    core_free(core);
    if (run->exit != DONE) {
        return;
    }
    put(run->result, "id", json_integer(domain->domain));
    put(run->result, "name", json_string(domain->name));
    put(run->result, "file", json_string(out.path));
    put(run->result, "bytes", json_integer((json_int_t)core->size));
    put(run->result, "memory_bytes", json_integer((json_int_t)core->memory));
    put(run->result, "vcpus", json_integer(core->vcpus));
    put(run->result, "live", json_boolean(run->options.live));
    if (out.fd != STDOUT_FILENO) {
        tell(run, "%u %s: %" PRIu64 " bytes in %s\n", domain->domain, domain->name, core->size,
             out.path);
    }
}

/* What ends it by a signal ends it in good order: the domain goes on, and no file is left. */
static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    action.sa_handler = SIG_IGN; /* writing tells of these two */
    sigaction(SIGPIPE, &action, NULL);
    sigaction(SIGXFSZ, &action, NULL);
}

static void dump_standing(struct run *run, const struct cleave_list *domain, xc_interface *xc)
{
    static struct core core;
    bool stands = run->options.live || (domain->flags & CLEAVE_LIST_SNAPSHOT) != 0 ||
                  domain->state == CLEAVE_STATE_ENDED;
    catch_signals();
    int status = stands ? 0 : cleave_pause(run->cleave, domain->domain);
    if (status == CLEAVE_DYING) { /* it has ended meanwhile */
        stands = true;
        status = 0;
    }
    if (status != 0) {
        failed(run, status, run->targets[0]);
        return;
    }
    dump(run, domain, &core, xc);
    status = stands ? 0 : cleave_unpause(run->cleave, domain->domain);
    if (status != 0) {
        failed(run, status, run->targets[0]);
    }
}

void run_dump(struct run *run)
{
    struct cleave_list domain;
    struct cleave_version own;
    int status = cleave_version(run->cleave, &own);
    if (status == 0) {
        status = cleave_find(run->cleave, run->targets[0], &domain);
    }
    if (status != 0) {
        failed(run, status, run->targets[0]);
        return;
    }
    if (domain.domain == own.domain) {
        failed_here(run, USAGE, run->targets[0], "a domain cannot dump itself");
        return;
    }
    /* It says what went wrong by errno; its own messages are for developers. */
    xentoollog_logger *logger =
        (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_CRITICAL, 0);
    xc_interface *xc = xc_interface_open(logger, NULL, 0);
    if (xc == NULL) {
        failed_here(run, UNREACHABLE, NULL, "libxenctrl: %s", strerror(errno));
    } else {
        dump_standing(run, &domain, xc);
        xc_interface_close(xc);
    }
    xtl_logger_destroy(logger);
}
