/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command top: what the domains do, again and again. It needs four sequences of ECMA-48 that
 * every terminal has, and so neither a library for terminals nor its database, which a small
 * control domain has not.
 */
#include "command.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <xenctrl.h>

#define MIB 1048576.0
#define FIRST_MS 250 /* over which the first table's shares of CPUs are measured */

struct line {
    struct cleave_list domain;
    struct cleave_stat stat;
    uint64_t cpu_ns; /* since it was made */
    double share;    /* of one CPU, percent, since the last table; negative: not known */
};

struct table {
    struct line *line;
    size_t count;
    int64_t at; /* ns */
};

static volatile sig_atomic_t stopped;

static void stop(int signal) { stopped = signal; }

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* --- Collecting ------------------------------------------------------------------------------- */

/* Times of the table's domains; both are in the order of Xen's numbers, but for this domain, which
 * is the last here and Xen's 0. */
static void add_times(xc_interface *xc, struct table *table)
{
    static xc_domaininfo_t some[256];
    uint32_t next = 0;
    int count = 1;
    while (xc != NULL && count > 0) {
        count = xc_domain_getinfolist(xc, next, 256, some);
        for (int i = 0; i < count; i++) {
            uint32_t id = some[i].domain == 0 ? CLEAVE_DOMAIN_CONTROL : some[i].domain;
            next = some[i].domain + 1u;
            for (size_t j = 0; j < table->count; j++) {
                if (table->line[j].domain.domain == id) {
                    table->line[j].cpu_ns = some[i].cpu_time;
                    break;
                }
            }
        }
    }
}

/* Shares of the time since `before`, for those that were in it. */
static void add_shares(struct table *table, const struct table *before, bool known)
{
    double passed = (double)(table->at - before->at);
    for (size_t i = 0, j = 0; i < table->count; i++) {
        struct line *line = &table->line[i];
        while (j < before->count && before->line[j].domain.domain < line->domain.domain) {
            j++;
        }
        bool same = j < before->count && before->line[j].domain.domain == line->domain.domain &&
                    line->cpu_ns >= before->line[j].cpu_ns;
        line->share = -1;
        if (same && known && passed > 0) {
            line->share = (double)(line->cpu_ns - before->line[j].cpu_ns) * 100 / passed;
        }
    }
}

/* A domain that goes meanwhile is left out. */
static bool collect(struct run *run, xc_interface *xc, struct table *out)
{
    struct cleave_list *all;
    size_t count;
    int status = cleave_list(run->cleave, &all, &count);
    if (status != 0) {
        failed(run, status, NULL);
        return false;
    }
    out->line = calloc(count + 1, sizeof(*out->line));
    out->count = 0;
    for (size_t i = 0; i < count && out->line != NULL; i++) {
        struct line *line = &out->line[out->count];
        if (cleave_stat(run->cleave, all[i].domain, &line->stat) == 0) {
            line->domain = all[i];
            out->count++;
        }
    }
    free(all);
    if (out->line == NULL) {
        failed_here(run, REFUSED, NULL, "no memory for %zu domains", count);
        return false;
    }
    add_times(xc, out);
    out->at = now_ns();
    return true;
}

/* --- Showing ---------------------------------------------------------------------------------- */

static double huge_part(const struct cleave_stat *s)
{
    uint64_t all = s->mapped[0] + s->mapped[1] + s->mapped[2];
    return all != 0 ? (double)(s->mapped[1] + s->mapped[2]) * 100 / (double)all : 0;
}

/* The busiest first, of those equally busy the older. */
static int compare(const void *a, const void *b)
{
    const struct line *first = a, *second = b;
    if (first->share != second->share) {
        return first->share > second->share ? -1 : 1;
    }
    return first->domain.domain < second->domain.domain ? -1 : 1;
}

static void tell_line(const struct run *run, const struct line *line, const char *end)
{
    const struct cleave_stat *s = &line->stat;
    char share[16] = "-";
    if (line->share >= 0) {
        snprintf(share, sizeof(share), "%.1f", line->share);
    }
    tell(run, "%5u %-20.20s %-8s %6s %9" PRIu64 " %9.1f %9.1f %9.1f %5.0f%s", line->domain.domain,
         line->domain.name, cleave_state_name(s->state), share, s->faults, (double)s->copied / MIB,
         (double)s->exclusive / MIB, (double)s->shared / MIB, huge_part(s), end);
}

static void tell_table(const struct run *run, const struct table *table, bool live)
{
    struct winsize size = {.ws_row = 24};
    const char *end = live ? "\033[K\n" : "\n"; /* the rest of the line is erased */
    const struct cleave_stat *pool = table->count != 0 ? &table->line[0].stat : NULL;
    size_t rows = table->count;
    if (live) {
        ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
        unsigned lines = size.ws_row != 0 ? size.ws_row : 24; /* 0: the terminal does not know */
        size_t most = lines > 4 ? lines - 4 : 1;
        rows = rows < most ? rows : most;
        tell(run, "\033[H");
    }
    if (pool != NULL) {
        tell(run, "%zu domains; %.1f MiB, %.1f free, %.1f reserved%s", table->count,
             (double)pool->pool_size / MIB, (double)pool->pool_free / MIB,
             (double)pool->pool_reserved / MIB, end);
    }
    tell(run, "%5s %-20s %-8s %6s %9s %9s %9s %9s %5s%s", "ID", "NAME", "STATE", "CPU%", "FAULTS",
         "COPIED", "ALONE", "SHARED", "HUGE%", end);
    for (size_t i = 0; i < rows; i++) {
        tell_line(run, &table->line[i], end);
    }
    if (rows < table->count) {
        tell(run, "... %zu more%s", table->count - rows, end);
    }
    tell(run, "%s", live ? "\033[J" : "");
    fflush(stdout);
}

static json_t *table_json(const struct table *table, const struct table *before)
{
    json_t *domains = json_array();
    for (size_t i = 0; i < table->count; i++) {
        const struct line *line = &table->line[i];
        const struct cleave_stat *s = &line->stat;
        append(domains,
               json_pack("{s:i,s:s,s:s,s:o,s:I,s:I,s:I,s:I,s:f}", "id", (int)line->domain.domain,
                         "name", line->domain.name, "state", cleave_state_name(s->state),
                         "cpu_percent", line->share >= 0 ? json_real(line->share) : json_null(),
                         "faults", (json_int_t)s->faults, "copied_bytes", (json_int_t)s->copied,
                         "exclusive_bytes", (json_int_t)s->exclusive, "shared_bytes",
                         (json_int_t)s->shared, "huge_percent", huge_part(s)));
    }
    return json_pack("{s:f,s:o}", "seconds", (double)(table->at - before->at) / 1e9, "domains",
                     domains);
}

/* --- Again and again -------------------------------------------------------------------------- */

/* Waits; false: no further table is wanted. Stops at `q` where keys are read. */
static bool rest(int64_t ms, bool keys)
{
    struct pollfd key = {.fd = STDIN_FILENO, .events = POLLIN};
    int64_t until = now_ns() + ms * 1000000, left;
    while (stopped == 0 && (left = until - now_ns()) > 0) {
        char typed;
        int ready = poll(&key, keys ? 1 : 0, (int)(left / 1000000 + 1));
        if (ready > 0 && (read(STDIN_FILENO, &typed, 1) != 1 || typed == 'q')) {
            return false;
        }
    }
    return stopped == 0;
}

static void tables(struct run *run, xc_interface *xc, bool live, bool keys)
{
    struct table before, now;
    json_t *all = json_array();
    uint32_t times = run->options.times != 0 || live ? run->options.times : 1; /* 0: for ever */
    int64_t wait = run->options.delay < FIRST_MS ? run->options.delay : FIRST_MS;
    put(run->result, "tables", all);
    if (!collect(run, xc, &before)) {
        return;
    }
    for (uint32_t i = 0; times == 0 || i < times; i++) {
        if (!rest(wait, keys) || !collect(run, xc, &now)) {
            break;
        }
        add_shares(&now, &before, xc != NULL);
        if (run->options.json) {
            append(all, table_json(&now, &before));
        }
        /* What is shown is in another order than what the next is held against. */
        struct table shown = now;
        shown.line = calloc(now.count + 1, sizeof(*now.line));
        if (shown.line != NULL) {
            memcpy(shown.line, now.line, now.count * sizeof(*now.line));
            qsort(shown.line, shown.count, sizeof(*shown.line), compare);
            tell_table(run, &shown, live);
            free(shown.line);
        }
        free(before.line);
        before = now;
        wait = run->options.delay;
    }
    free(before.line);
}

void run_top(struct run *run)
{
    struct sigaction action = {.sa_handler = stop};
    struct termios old, raw;
    bool live = !run->options.json && isatty(STDOUT_FILENO);
    bool keys = live && tcgetattr(STDIN_FILENO, &old) == 0;
    xentoollog_logger *logger =
        (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_CRITICAL, 0);
    xc_interface *xc = xc_interface_open(logger, NULL, 0); /* null: shares are not known */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    if (keys) {
        raw = old;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    tell(run, "%s", live ? "\033[2J" : "");
    tables(run, xc, live, keys);
    if (keys) {
        tcsetattr(STDIN_FILENO, TCSANOW, &old);
    }
    if (xc != NULL) {
        xc_interface_close(xc);
    }
    xtl_logger_destroy(logger);
}
