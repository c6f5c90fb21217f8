/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commands of the debug console: commands.c takes a line apart, commands_show.c tells,
 * commands_change.c does what the hypercalls of the same names do. CPU 0 only, between two vcpus.
 */
#ifndef KERNEL_COMMANDS_H
#define KERNEL_COMMANDS_H

#include "domain.h"

#define COMMAND_SIZE 256u /* a line, with the zero byte that ends it */

enum command_result {
    COMMAND_DONE,
    COMMAND_WRONG, /* not to be understood */
    COMMAND_LATER  /* what it waits for has not come: to be called again */
};

/* What is left of a line. */
struct command {
    struct mm_ctx *ctx;
    const char *at;
};

typedef enum command_result command_t(struct command *command);
command_t command_list, command_stat, command_audit, command_tail, command_calls, command_ended,
    command_diff, command_digest; /* commands_show.c, compare.c */
command_t command_fork, command_restore, command_snapshot, command_reset, command_pause,
    command_unpause, command_destroy, command_type, command_restart; /* commands_change.c */
command_t command_sleep, command_await, command_wait;                /* script.c */

/* Carries out a line; says so where it is not understood. `script`: the line may have to wait. */
enum command_result command_line(struct mm_ctx *ctx, const char *line, bool script);

/* --- Words of the line ------------------------------------------------------------------------ */

/* Takes the next word when it is this one. */
bool command_word(struct command *command, const char *word);
/* Takes the next word when it is a number of at most 9 digits. */
bool command_number(struct command *command, uint32_t *number);
/* What is left, without the blanks in front. */
const char *command_rest(struct command *command);
/* Takes "NAME=", with which the next word begins. */
bool command_key(struct command *command, const char *name);

/* --- Domains ---------------------------------------------------------------------------------- */

/* What one domain's turn of a command does. False: not yet. The domain has a reference. */
typedef bool command_turn_t(struct command *command, struct domain *domain);
/* "ID", "ID to ID" for those with ids from one to the other, or "children ID" for all that were
 * forked from ID: a turn for each, until one says not yet, which is COMMAND_LATER. That there is no
 * such domain is said. */
enum command_result command_each(struct command *command, command_turn_t *turn);
/* Says which argument an operation on domain `id` was refused for. */
void command_refused(struct command *command, const char *what, uint32_t id,
                     enum cleave_status status);

#endif
