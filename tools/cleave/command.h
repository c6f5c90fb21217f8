/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the command share: its options, what a run has found so far, and how it tells.
 * A command prints text as it goes, or with --json collects all in one object that is printed at
 * the end. cleave.1 describes both.
 */
#ifndef COMMAND_H
#define COMMAND_H

#include "cleave.h"

#include <jansson.h>
#include <stdbool.h>

#define TOOL_VERSION "0.1"
#define JSON_SCHEMA 1 /* raised when a field goes or changes its meaning, not when one is added */

/* Exit codes. */
enum {
    DONE = 0,
    REFUSED = 1,     /* by the hypervisor, or the system */
    USAGE = 2,       /* the command line makes no sense */
    NO_DOMAIN = 3,   /* a target that is not there */
    UNREACHABLE = 4, /* no Cleave, no right to call it, or another revision */
    TIMED_OUT = 5,   /* of wait */
    VIOLATED = 6     /* audit found a violation */
};

/* Options, as bits, so that a command says which are its own. */
enum {
    OPT_COUNT = 1,
    OPT_FORK = 2, /* --reserve, --no-base, --paused, --clock, --limit, --data, --data-dir */
    OPT_WAIT = 4, /* --any, --all, --timeout */
    OPT_CHILDREN = 8,
    OPT_DRY_RUN = 16,
    OPT_CREATE =
        32, /* --kernel, --initrd, --cmdline, --memory, --vcpus, --pool, --name, --paused */
    OPT_CONSOLE = 64,                           /* --once */
    OPT_DUMP = 256,                             /* --output, --limit, --live */
    OPT_MAP = 512,                              /* --svg, --table */
    OPT_TOP = 1024,                             /* --delay, --times */
    OPT_LOG = 2048,                             /* --follow */
    OPT_SHOWS = OPT_CONSOLE | OPT_TOP | OPT_LOG /* goes on for as long as it is looked at */
};

struct options {
    bool json, any, children, dry_run, no_base, once;
    uint32_t count, flags; /* of a fork; count 0: not given */
    uint64_t limit, reserve;
    int64_t timeout; /* milliseconds; -1: none */
    const char *data, *data_dir;
    const char *kernel, *initrd, *cmdline, *name, *pool; /* of create; null: not given */
    uint64_t memory;                                     /* 0: not given */
    uint32_t vcpus;                                      /* 0: not given */
    const char *output;                                  /* of a dump */
    const char *svg;
    bool live, table, follow;
    int64_t delay;  /* milliseconds between two tables */
    uint32_t times; /* tables; 0: not given */
};

struct run {
    const struct command *command;
    struct options options;
    char **targets; /* what follows the options */
    int target_count;
    struct cleave_handle *cleave;
    json_t *result; /* the object that --json prints */
    json_t *errors;
    int exit; /* of the first failure */
};

struct command {
    const char *name;
    void (*perform)(struct run *run);
    unsigned options;
    int least, most; /* arguments; most -1: any number */
    const char *usage, *purpose, *help;
};

/* Parses the command line up to run->targets; false: run->exit, all is said. */
bool options_parse(struct run *run, int argc, char **argv);
void usage_print(FILE *to, const struct command *command);
/* In the order of --help, ended by one without a name. */
extern const struct command commands[];

/* Bytes, or with K, M, G or T, more than 0; false: it is none. */
bool parse_size(const char *text, uint64_t *out);

/* Text for people, not with --json. */
void tell(const struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A failure of the library's, of `target` (null: of none). */
void failed(struct run *run, int status, const char *target);
/* A failure that is found here. */
void failed_here(struct run *run, int exit, const char *target, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Adds bytes: as `key` where they are text, else in hexadecimal as `key`_hex. */
void put_text(json_t *to, const char *key, const void *bytes, size_t size);
/* Adds a value, whose reference it takes, to an object or an array. */
void put(json_t *to, const char *key, json_t *value);
void append(json_t *to, json_t *value);

/* The domains that the targets, or with --all-children their children, name: an array to be given
 * back by free(). False when one is not there: said, and nothing is to be done. */
bool targets_find(struct run *run, struct cleave_list **out, size_t *count);
/* An object with what is known of a domain. */
json_t *domain_json(const struct cleave_list *domain);

/* On a terminal: for how many seconds the command has been at it, from the first on, until it ends
 * or progress_begin() says more. What is told takes the line away. */
void clock_begin(const struct run *run);
void clock_end(void);
/* Takes the line away, and begins a second anew. */
void clock_clear(void);

/* How far a command is, on a terminal, once it takes longer than a second. */
struct progress {
    const char *command;
    int64_t began, told; /* ms; told 0: nothing stands there */
};
struct progress progress_begin(const struct run *run);
/* `done` of `all` bytes; 0: nobody knows of how many. Every so often is enough. */
void progress_tell(struct progress *progress, uint64_t done, uint64_t all);
/* Takes the line away, before anything else is printed. */
void progress_end(struct progress *progress);

/* domain.c, fork.c, show.c, memory.c, picture.c, create.c, console.c, dump.c, top.c, log.c, pool.c
 */
void run_list(struct run *run), run_info(struct run *run), run_version(struct run *run),
    run_stat(struct run *run), run_audit(struct run *run);
void run_pause(struct run *run), run_unpause(struct run *run), run_destroy(struct run *run),
    run_reset(struct run *run), run_rename(struct run *run), run_wait(struct run *run),
    run_grant(struct run *run), run_revoke(struct run *run);
void run_fork(struct run *run), run_restore(struct run *run), run_snapshot(struct run *run);
void run_map(struct run *run), run_diff(struct run *run);
void run_create(struct run *run), run_console(struct run *run);
void run_dump(struct run *run), run_top(struct run *run), run_log(struct run *run),
    run_pool(struct run *run);

#endif
