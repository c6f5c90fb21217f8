/* SPDX-License-Identifier: BSD-2-Clause */
/* The command that is a domain's console: what it prints to standard output, and the input to it.
 */
#include "command.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define LOOK_MS 20      /* between two looks when nothing happens */
#define ESCAPE ('\x1d') /* Ctrl-] */
#define INPUT_SIZE 128  /* bytes of a line that a domain takes at once, no more */

struct console {
    struct run *run;
    struct cleave_list domain;
    uint64_t cursor, lost;
    char input[INPUT_SIZE]; /* read, and not yet taken */
    size_t waits;
    bool terminal; /* standard input is one */
    bool closed;   /* standard input is at its end */
    bool done;
};

static volatile sig_atomic_t stopped;

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

/* Shows what there is. False: nothing, or it failed. */
static bool show(struct console *console, json_t *text)
{
    char buffer[CLEAVE_TEXT_MAX];
    size_t size = sizeof(buffer);
    uint64_t lost;
    int status = cleave_terminal_read(console->run->cleave, console->domain.domain,
                                      &console->cursor, buffer, &size, &lost);
    if (status != 0) {
        failed(console->run, status, console->domain.name);
        console->done = true;
        return false;
    }
    console->lost += lost;
    if (lost != 0 && !console->run->options.json) {
        fprintf(stderr, "cleave console: %s: %llu bytes are gone: the last 4032 are kept\n",
                console->domain.name, (unsigned long long)lost);
    }
    if (text != NULL) {
        put_text(text, "text", buffer, size);
        return false; /* all that is kept */
    }
    if (size != 0 && (fwrite(buffer, 1, size, stdout) != size || fflush(stdout) != 0)) {
        failed_here(console->run, REFUSED, NULL, "standard output: %s", strerror(errno));
        console->done = true;
    }
    return size != 0 && !console->done;
}

static void send(struct console *console)
{
    size_t size = console->waits;
    int status =
        cleave_terminal_type(console->run->cleave, console->domain.domain, console->input, &size);
    if (status == CLEAVE_DYING) { /* what it printed last is still to be shown */
        console->waits = 0;
    } else if (status != 0) {
        failed(console->run, status, console->domain.name);
        console->done = true;
    } else {
        console->waits -= size;
        memmove(console->input, console->input + size, console->waits);
    }
}

static void read_input(struct console *console)
{
    ssize_t size = read(STDIN_FILENO, console->input, sizeof(console->input));
    if (size <= 0) {
        console->closed = size == 0 || errno != EINTR;
        return;
    }
    char *escape = console->terminal ? memchr(console->input, ESCAPE, (size_t)size) : NULL;
    console->done = escape != NULL;
    console->waits = escape != NULL ? (size_t)(escape - console->input) : (size_t)size;
}

/* Input, or some time. */
static void wait_some(struct console *console)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    bool listens = !console->closed && console->waits == 0;
    if (poll(&input, listens ? 1 : 0, LOOK_MS) > 0) {
        read_input(console);
    }
    if (console->waits != 0) {
        send(console);
    }
}

/* Its state is looked at first: what it printed before it ended is shown. */
static void look(struct console *console)
{
    char number[16];
    struct cleave_list *domain = &console->domain;
    snprintf(number, sizeof(number), "id=%u", domain->domain);
    int status = cleave_find(console->run->cleave, number, domain);
    if (status != 0) {
        failed(console->run, status, number);
        console->done = true;
        return;
    }
    while (show(console, NULL)) {
    }
    if (domain->state == CLEAVE_STATE_ENDED && !console->done) {
        fprintf(stderr, "cleave console: %s: %s, code %u\n", domain->name,
                cleave_reason_name(domain->reason), domain->code);
        console->done = true;
    }
}

static void follow(struct console *console)
{
    const struct sigaction action = {.sa_handler = stop};
    struct termios before, raw;

    console->terminal = tcgetattr(STDIN_FILENO, &before) == 0;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* the terminal is given back as it was */
    if (console->terminal) {
        raw = before;
        cfmakeraw(&raw);
        raw.c_oflag |= OPOST;
        fprintf(stderr, "cleave console: %s: Ctrl-] ends this\n", console->domain.name);
        tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    }
    while (!console->done && !stopped) {
        look(console);
        if (!console->done) {
            wait_some(console);
        }
    }
    if (console->terminal) {
        tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
        fputc('\n', stderr);
    }
}

void run_console(struct run *run)
{
    struct console console = {.run = run};
    struct cleave_version version;
    int status = cleave_version(run->cleave, &version);
    if (status == 0) {
        status = cleave_find(run->cleave, run->targets[0], &console.domain);
    }
    if (status != 0) {
        failed(run, status, run->targets[0]);
        return;
    }
    if (!run->options.once && console.domain.domain == version.domain) {
        failed_here(run, USAGE, run->targets[0], "it is the domain that asks: --once only");
        return;
    }
    if (console.domain.flags & CLEAVE_LIST_SNAPSHOT) {
        failed_here(run, REFUSED, run->targets[0],
                    "a snapshot prints nothing: restore it, and look at what comes of it");
        return;
    }
    if (!run->options.once) {
        follow(&console);
        return;
    }
    json_t *text = run->options.json ? run->result : NULL;
    put(run->result, "id", json_integer(console.domain.domain));
    put(run->result, "name", json_string(console.domain.name));
    (void)show(&console, text); /* all that is kept fits */
    put(run->result, "lost_bytes", json_integer((json_int_t)console.lost));
}
