/* SPDX-License-Identifier: BSD-2-Clause */
/* cleave: what one does to virtual machines from the control domain. */
#include "command.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tell(const struct run *run, const char *format, ...)
{
    va_list list;
    if (!run->options.json) {
        clock_clear();
        va_start(list, format);
        vprintf(format, list);
        va_end(list);
    }
}

void put(json_t *to, const char *key, json_t *value)
{
    if (json_object_set_new(to, key, value) != 0) {
        fputs("cleave: no memory for the result\n", stderr);
        exit(REFUSED);
    }
}

void append(json_t *to, json_t *value)
{
    if (json_array_append_new(to, value) != 0) {
        fputs("cleave: no memory for the result\n", stderr);
        exit(REFUSED);
    }
}

void put_text(json_t *to, const char *key, const void *bytes, size_t size)
{
    const unsigned char *byte = bytes;
    char hex_key[64];
    json_t *text = json_stringn(bytes, size);
    if (text != NULL && memchr(bytes, '\0', size) == NULL) {
        put(to, key, text);
        return;
    }
    json_decref(text);
    char *hex = calloc(2 * size + 1, 1);
    for (size_t i = 0; hex != NULL && i < size; i++) {
        snprintf(hex + 2 * i, 3, "%02x", byte[i]);
    }
    snprintf(hex_key, sizeof(hex_key), "%s_hex", key);
    put(to, hex_key, json_string(hex != NULL ? hex : ""));
    free(hex);
}

static int exit_of(int status)
{
    switch (status) {
    case -ENOENT:
    case -ENOTUNIQ:
    case CLEAVE_NO_CAP:
        return NO_DOMAIN;
    case -EINVAL:
        return USAGE;
    case -ETIMEDOUT:
        return TIMED_OUT;
    default:
        return status > 0 ? REFUSED : UNREACHABLE;
    }
}

static void note(struct run *run, int exit, const char *target, const char *message, json_t *error)
{
    clock_clear();
    if (target != NULL) {
        fprintf(stderr, "cleave %s: %s: %s\n", run->command->name, target, message);
        put(error, "target", json_string(target));
    } else {
        fprintf(stderr, "cleave %s: %s\n", run->command->name, message);
    }
    put(error, "message", json_string(message));
    append(run->errors, error);
    if (run->exit == DONE) {
        run->exit = exit;
    }
}

void failed(struct run *run, int status, const char *target)
{
    json_t *object = json_object();
    const struct cleave_error *error = cleave_last_error(run->cleave);

    put(object, "status", json_string(status > 0 ? cleave_status_name((unsigned)status) : "HERE"));
    if (status > 0 && error->argument[0] != '\0') {
        put(object, "argument", json_string(error->argument));
        put(object, "value", json_integer((json_int_t)error->value));
    }
    note(run, exit_of(status), target, cleave_message(run->cleave), object);
}

void failed_here(struct run *run, int exit, const char *target, const char *format, ...)
{
    char message[CLEAVE_MESSAGE_SIZE];
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof(message), format, list);
    va_end(list);
    note(run, exit, target, message, json_pack("{s:s}", "status", "HERE"));
}

static void finish(struct run *run)
{
    clock_end();
    put(run->result, "ok", json_boolean(run->exit == DONE));
    put(run->result, "errors", run->errors);
    if (run->options.json) {
        json_dumpf(run->result, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        putchar('\n');
    }
    json_decref(run->result);
    cleave_close(run->cleave);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "cleave: standard output: %s\n", strerror(errno));
        run->exit = run->exit == DONE ? REFUSED : run->exit;
    }
}

static void print_commands(FILE *to)
{
    fputs("Makes, forks, resets and watches the virtual machines of a Cleave hypervisor.\n\n"
          "cleave COMMAND [OPTION]... [TARGET]...\n\n",
          to);
    for (const struct command *c = commands; c->name != NULL; c++) {
        fprintf(to, "  %-10s %s\n", c->name, c->purpose);
    }
    fputs(
        "\nA TARGET is a domain's number or name, as \"cleave list\" shows them; a name of digits "
        "is\nwritten name=TEXT. Every command takes --json and --help; \"cleave COMMAND --help\" "
        "says\nmore, cleave(1) all.\n",
        to);
}

static const struct command *find_command(const char *name)
{
    for (const struct command *c = commands; c->name != NULL; c++) {
        if (strcmp(c->name, name) == 0) {
            return c;
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    char why[CLEAVE_MESSAGE_SIZE];
    bool asked = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
                              strcmp(argv[1], "help") == 0);

    if (argc < 2 || (asked && argc == 2)) {
        print_commands(asked ? stdout : stderr);
        return asked ? DONE : USAGE;
    }
    const char *name = asked ? argv[2] : strcmp(argv[1], "--version") == 0 ? "version" : argv[1];
    const struct command *command = find_command(name);
    if (command == NULL) {
        fprintf(stderr, "cleave: there is no command \"%s\": \"cleave --help\" lists them\n", name);
        return USAGE;
    }
    if (asked) {
        usage_print(stdout, command);
        return DONE;
    }
    struct run run = {.command = command, .errors = json_array()};
    if (!options_parse(&run, argc - 1, argv + 1)) {
        json_decref(run.errors);
        return run.exit;
    }
    run.result = json_pack("{s:i,s:s}", "schema", JSON_SCHEMA, "command", command->name);
    /* The command that is asked why tools and hypervisor do not fit must work then. */
    unsigned flags = command->perform == run_version ? CLEAVE_OPEN_ANY_REVISION : 0;
    run.cleave = cleave_open(flags, why);
    if (run.cleave == NULL) {
        failed_here(&run, UNREACHABLE, NULL, "%s", why);
    } else {
        clock_begin(&run);
        command->perform(&run);
    }
    finish(&run);
    return run.exit;
}
