/* SPDX-License-Identifier: BSD-2-Clause */
/* Lines for the debug console from a boot module, and what they may wait for; see script.h. */
#include "script.h"

#include "commands.h"
#include "monitor.h"
#include "sched.h"
#include "terminal.h"

#define NS_PER_MS UINT64_C(1000000)

static struct {
    const char *at, *end;
    char line[COMMAND_SIZE];
    bool waiting;   /* `line` is to be called again */
    uint64_t began; /* TSC: when it was called first */
} script;

void script_start(const struct boot_module *module)
{
    script.at = host_pointer(module->start);
    script.end = script.at + (module->end - module->start);
}

/* The next line; what is longer than COMMAND_SIZE is cut off, and says so by not being understood.
 */
static void take_line(void)
{
    unsigned length = 0;
    while (script.at < script.end && *script.at != '\n' && *script.at != '\0') {
        if (length < COMMAND_SIZE - 1) {
            script.line[length++] = *script.at;
        }
        script.at++;
    }
    script.at++;
    script.line[length] = '\0';
}

void script_poll(void)
{
    if (!script.waiting) {
        if (script.at >= script.end) {
            return;
        }
        take_line();
        if (script.line[0] == '#' || script.line[0] == '\0') {
            return;
        }
        print("> %s\n", script.line);
        script.began = read_tsc();
    }
    this_cpu()->doing[0] = CPU_CONSOLE;
    script.waiting = command_line(&this_cpu()->ctx, script.line, true) == COMMAND_LATER;
}

/* --- Waiting ---------------------------------------------------------------------------------- */

enum command_result command_sleep(struct command *command)
{
    uint32_t ms;
    if (!command_number(command, &ms)) {
        return COMMAND_WRONG;
    }
    return tsc_to_ns(read_tsc() - script.began) < ms * NS_PER_MS ? COMMAND_LATER : COMMAND_DONE;
}

static bool contains(const char *text, uint32_t size, const char *part)
{
    for (uint32_t i = 0; i < size; i++) {
        uint32_t same = 0;
        while (part[same] != '\0' && i + same < size && text[i + same] == part[same]) {
            same++;
        }
        if (part[same] == '\0') {
            return true;
        }
    }
    return false;
}

static bool has_written(struct command *command, struct domain *domain)
{
    static char text[TERMINAL_SIZE];
    uint32_t dropped, size = 0;
    if (domain_use(domain) != NULL) {
        size = terminal_read(domain, text, sizeof(text), &dropped);
        domain_unuse(domain);
    }
    return contains(text, size, command_rest(command));
}

enum command_result command_await(struct command *command)
{
    enum command_result result = command_each(command, has_written);
    while (result == COMMAND_DONE && *command->at != '\0') {
        command->at++; /* the text */
    }
    return result;
}

static bool has_ended(struct command *command, struct domain *domain)
{
    (void)command;
    return __atomic_load_n(&domain->state, __ATOMIC_ACQUIRE) == CLEAVE_STATE_ENDED;
}

enum command_result command_wait(struct command *command)
{
    return command_each(command, has_ended);
}
