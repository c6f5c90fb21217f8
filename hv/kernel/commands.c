/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of the debug console's commands, and words of their lines; see commands.h. */
#include "commands.h"

#include "monitor.h"
#include "top.h"

static enum command_result command_help(struct command *command);

static enum command_result command_stop(struct command *command)
{
    (void)command;
    top_close();
    machine_stop(0);
}

static enum command_result command_finish(struct command *command) { monitor_finish(command->ctx); }

/* WHOM: see command_each(). */
static const struct {
    const char *name, *arguments;
    command_t *perform;
} commands[] = {
    {"help", "", command_help},
    {"list", "", command_list},
    {"stat", "ID", command_stat},
    {"tail", "[bytes=COUNT] WHOM", command_tail},
    {"calls", "WHOM", command_calls},
    {"ended", "WHOM", command_ended},
    {"diff", "WHOM", command_diff},
    {"digest", "WHOM", command_digest},
    {"audit", "", command_audit},
    {"fork", "ID [COUNT] [base] [paused] [data=TEXT]", command_fork},
    {"snapshot", "ID NAME", command_snapshot},
    {"restore", "ID [COUNT] [base] [paused] [data=TEXT]", command_restore},
    {"reset", "WHOM", command_reset},
    {"pause", "WHOM", command_pause},
    {"unpause", "WHOM", command_unpause},
    {"destroy", "WHOM", command_destroy},
    {"type", "ID TEXT", command_type},
    {"sleep", "MILLISECONDS", command_sleep},
    {"await", "ID TEXT", command_await},
    {"wait", "WHOM", command_wait},
    {"restart", "", command_restart},
    {"finish", "", command_finish},
    {"stop", "", command_stop},
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static enum command_result command_help(struct command *command)
{
    (void)command;
    print("WHOM is: ID, ID to ID, or children ID. In scripts only: sleep, await, wait.\n");
    for (unsigned i = 0; i < COMMANDS; i++) {
        print("  %-8s %s\n", commands[i].name, commands[i].arguments);
    }
    return COMMAND_DONE;
}

/* --- Words ------------------------------------------------------------------------------------ */

const char *command_rest(struct command *command)
{
    while (*command->at == ' ') {
        command->at++;
    }
    return command->at;
}

static const char *after(const char *at, const char *word)
{
    while (*word != '\0' && *at == *word) {
        at++;
        word++;
    }
    return *word == '\0' ? at : NULL;
}

bool command_word(struct command *command, const char *word)
{
    const char *end = after(command_rest(command), word);
    if (end == NULL || (*end != ' ' && *end != '\0')) {
        return false;
    }
    command->at = end;
    return true;
}

bool command_key(struct command *command, const char *name)
{
    const char *end = after(command_rest(command), name);
    if (end == NULL || *end != '=') {
        return false;
    }
    command->at = end + 1;
    return true;
}

bool command_number(struct command *command, uint32_t *number)
{
    const char *at = command_rest(command);
    uint32_t value = 0, digits = 0;
    for (; *at >= '0' && *at <= '9' && digits < 10; at++, digits++) {
        value = value * 10 + (uint32_t)(*at - '0');
    }
    if (digits == 0 || digits == 10 || (*at != ' ' && *at != '\0')) {
        return false;
    }
    command->at = at;
    *number = value;
    return true;
}

/* --- Domains ---------------------------------------------------------------------------------- */

/* Whom a turn is for. */
struct whom {
    uint32_t first, last; /* ids */
    uint32_t origin;      /* 0: of any */
};

static bool is_meant(const struct whom *whom, const struct domain *domain)
{
    return whom->origin == 0 || (domain->origin == whom->origin && !domain->snapshot);
}

/* "ID", "ID to ID" or "children ID". */
static bool take_whom(struct command *command, struct whom *whom)
{
    bool children = command_word(command, "children");
    if (!command_number(command, &whom->first)) {
        return false;
    }
    whom->origin = children ? whom->first : 0;
    whom->last = children ? DOMAIN_IDS : whom->first;
    whom->first = children ? 1 : whom->first;
    if (command_word(command, "to")) {
        return !children && command_number(command, &whom->last);
    }
    return whom->first != 0;
}

enum command_result command_each(struct command *command, command_turn_t *turn)
{
    struct whom whom;
    uint32_t turns = 0;
    bool done = true;
    if (!take_whom(command, &whom)) {
        return COMMAND_WRONG;
    }
    struct domain *domain = domain_next(whom.first - 1);
    while (domain != NULL) {
        uint32_t id = domain->id;
        if (id <= whom.last && is_meant(&whom, domain)) {
            done = turn(command, domain);
            turns++;
        }
        domain_put(command->ctx, domain);
        domain = done && id < whom.last ? domain_next(id) : NULL;
    }
    if (turns == 0) {
        print("no domain %s%u\n", whom.origin != 0 ? "is a fork of " : "",
              whom.origin != 0 ? whom.origin : whom.first);
    }
    return done ? COMMAND_DONE : COMMAND_LATER;
}

void command_refused(struct command *command, const char *what, uint32_t id,
                     enum cleave_status status)
{
    const struct mm_error *error = &command->ctx->error;
    print("%s %u: refused: status %u, %s is %lu (allowed: %lu to %lu)\n", what, id, status,
          error->argument != NULL ? error->argument : "?", error->value, error->low, error->high);
}

/* --- A line ----------------------------------------------------------------------------------- */

static bool waits(command_t *perform)
{
    return perform == command_sleep || perform == command_await || perform == command_wait;
}

enum command_result command_line(struct mm_ctx *ctx, const char *line, bool script)
{
    struct command command = {.ctx = ctx, .at = line};
    for (unsigned i = 0; i < COMMANDS; i++) {
        if (!command_word(&command, commands[i].name)) {
            continue;
        }
        enum command_result result = COMMAND_WRONG;
        if (script || !waits(commands[i].perform)) {
            result = commands[i].perform(&command);
        }
        if (result == COMMAND_DONE && *command_rest(&command) != '\0') {
            print("not looked at: %s\n", command.at);
        }
        if (result == COMMAND_WRONG) {
            print("usage: %s %s\n", commands[i].name, commands[i].arguments);
        }
        return result;
    }
    if (*command_rest(&command) != '\0') {
        print("no such command: %s; help lists them\n", command.at);
        return COMMAND_WRONG;
    }
    return COMMAND_DONE;
}
