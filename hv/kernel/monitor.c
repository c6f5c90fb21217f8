/* SPDX-License-Identifier: BSD-2-Clause */
/* What is typed on the serial port, and the end of the machine; see monitor.h. CPU 0 only. */
#include "monitor.h"

#include "commands.h"
#include "sched.h"
#include "script.h"
#include "stat.h"
#include "tenant.h"
#include "terminal.h"
#include "top.h"

static char line[COMMAND_SIZE];
static unsigned length;
static unsigned stop_after;
static bool echo;

/* Destroys every domain, children before parents as far as it matters. */
static bool destroy_all(struct mm_ctx *ctx)
{
    bool all = true;
    struct domain *domain = domain_next(0);
    while (domain != NULL) {
        uint32_t id = domain->id;
        enum cleave_status status;
        while ((status = domain_destroy(ctx, domain, NULL)) == CLEAVE_AGAIN) {
            domain_rest(ctx, domain); /* guests still run, and audit */
        }
        if (status != CLEAVE_OK) {
            print("domain %u: not destroyed: %s %lu\n", id, ctx->error.argument, ctx->error.value);
            all = false;
        }
        domain_put(ctx, domain);
        domain = domain_next(id);
    }
    return all;
}

void monitor_finish(struct mm_ctx *ctx)
{
    uint32_t worst = stat_worst();
    bool clean = false;
    while (terminal_poll()) {
    }
    top_finish(ctx);
    top_close();
    while (!world_stop(ctx)) {
        world_rest(ctx); /* for the one that has it */
        cpu_pause();
    }
    clean = tenants_audit(ctx);
    world_release();
    clean &= destroy_all(ctx);
    clean &= tenants_audit(ctx) && tenants_empty();
    print("verdict: %s, worst exit code %u, audits %s\n", clean && worst == 0 ? "pass" : "fail",
          worst, clean ? "clean" : "not clean");
    machine_stop(clean ? (uint8_t)worst : STAT_CODE_LOST + 1);
}

void monitor_stop_after(unsigned domains) { stop_after = domains; }

void monitor_echo(bool on) { echo = on; }

/* A character of a line that is not finished. */
static void take(char c)
{
    bool rubs = (c == '\b' || c == 0x7f) && length > 0;
    if (rubs) {
        length--;
    } else if (c >= ' ' && c != 0x7f && length < sizeof(line) - 1) {
        line[length++] = c;
    } else {
        return;
    }
    if (echo && rubs) {
        print("\b \b");
    } else if (echo) {
        print("%c", c);
    }
}

void monitor_poll(void)
{
    struct mm_ctx *ctx = &this_cpu()->ctx;
    int c;

    if (stop_after != 0 && stat_ended_at_boot() >= stop_after) {
        monitor_finish(ctx);
    }
    terminal_poll();
    script_poll();
    top_poll(ctx);
    while ((c = console_read()) >= 0) {
        if (!terminal_typed(ctx, (char)c)) {
            continue;
        }
        if (c == '\r' || c == '\n') {
            console_write("\n", 1);
            line[length] = '\0';
            length = 0;
            this_cpu()->doing[0] = CPU_CONSOLE;
            (void)command_line(ctx, line, false);
        } else {
            take((char)c);
        }
    }
}
