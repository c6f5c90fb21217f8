/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The boot configuration: a text module that says which pools and domains to make. One object a
 * line, `#` begins a comment:
 *
 *   pool NAME size=SIZE                         K, M, G; "all": what is left
 *   domain NAME pool=NAME kernel=MODULE memory=SIZE [initrd=MODULE] [order=0|1|2] [vcpus=N]
 *          [limit=SIZE] [command="..."] [paused] [control]   on one line
 *          order: the largest leaf, 4 KiB, 2 MiB (without: this) or 1 GiB; those of 1 GiB, wherever
 *          the pool has a block for one, are made and zeroed before the domain starts
 *          NAME: letters, digits and - _ ., neither "fork-" nor "domain-" in front
 *          control: the one that may act on all others
 *   option stop                                 ends the machine when all domains have ended
 *   option console=NAME|all                     whose terminal is shown from the start
 *   option input=NAME                           who gets what is typed, at first
 *   option top=SECONDS                          a table of all domains so often (1 to 3600)
 *   option terminal                             what reads the console is a terminal (ECMA-48)
 *   option script=MODULE                        lines for the debug console
 */
#ifndef KERNEL_CONFIG_H
#define KERNEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_NAME_SIZE 32u
#define CONFIG_TEXT_SIZE 256u
#define CONFIG_POOLS_MAX 16u
#define CONFIG_DOMAINS_MAX 32u

struct config_pool {
    char name[CONFIG_NAME_SIZE];
    uint64_t size; /* bytes; 0: all that is left */
};
struct config_domain {
    char name[CONFIG_NAME_SIZE], pool[CONFIG_NAME_SIZE], kernel[CONFIG_NAME_SIZE];
    char initrd[CONFIG_NAME_SIZE]; /* empty: none */
    char command[CONFIG_TEXT_SIZE];
    uint64_t memory, limit; /* bytes; limit UINT64_MAX: none */
    unsigned order, vcpus;
    bool paused, control;
};
struct config {
    struct config_pool pool[CONFIG_POOLS_MAX];
    struct config_domain domain[CONFIG_DOMAINS_MAX];
    unsigned pools, domains;
    bool stop, terminal;
    uint64_t top; /* seconds; 0: none */
    char console[CONFIG_NAME_SIZE], input[CONFIG_NAME_SIZE],
        script[CONFIG_NAME_SIZE]; /* empty: none */
};

/* What was wrong, and in which line (from 1). */
struct config_error {
    unsigned line;
    char what[96];
};

/* Reads `size` bytes of text. False, with `error` filled, at the first line that is wrong: an
 * unknown word, a key given twice, a name or text that is too long, a value out of range, a pool or
 * domain made twice, a domain without pool, kernel or memory. Touches nothing but its arguments. */
bool config_parse(const char *text, uint64_t size, struct config *config,
                  struct config_error *error);

#endif
