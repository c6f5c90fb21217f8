/* SPDX-License-Identifier: BSD-2-Clause */
/* Commands of the debug console, and the end of the machine; see monitor.h. CPU 0 only. */
#include "monitor.h"

#include "domain.h"
#include "sched.h"
#include "stat.h"
#include "tenant.h"
#include "terminal.h"
#include "top.h"

static char line[64];
static unsigned length;
static unsigned stop_after;
static bool echo;

static void list(struct mm_ctx *ctx)
{
    static const char *const states[] = {"?", "running", "paused", "starved", "frozen", "ended"};
    struct cleave_stat s;
    struct stat_walk walk = {.domain = 0};
    struct domain *domain = domain_next(0);

    print("   id parent name             state    vcpus  charged KiB   faults  copied KiB\n");
    while (domain != NULL) {
        uint32_t id = domain->id;
        if (klock_try(&domain->busy)) {
            if (stat_domain(ctx, domain, &walk, &s) == CLEAVE_OK) {
                print("%5u %6u %-16s %-8s %5u %12lu %8lu %11lu\n", s.domain, s.parent, s.name,
                      states[s.state], s.vcpus, s.charged >> 10, s.faults, s.copied >> 10);
            }
            klock_release(&domain->busy);
        }
        domain_put(ctx, domain);
        domain = domain_next(id);
    }
}

static void stat(struct mm_ctx *ctx, uint32_t id)
{
    struct cleave_stat s;
    struct stat_walk walk = {.domain = 0};
    struct domain *domain = domain_get(id);
    if (domain == NULL) {
        print("no domain %u\n", id);
        return;
    }
    if (klock_try(&domain->busy)) {
        if (stat_domain(ctx, domain, &walk, &s) == CLEAVE_OK) {
            print("domain %u %s, parent %u, %u vcpus: %lu exits, %lu hypercalls\n", s.domain,
                  s.name, s.parent, s.vcpus, s.exits, s.hypercalls);
            print(
                "  memory: %lu KiB charged, %lu alone, %lu shared; under 4K %lu, 2M %lu, 1G %lu\n",
                s.charged >> 10, s.exclusive >> 10, s.shared >> 10, s.mapped[0] >> 10,
                s.mapped[1] >> 10, s.mapped[2] >> 10);
            print("  %lu faults, %lu KiB copied, %lu zeroed, %lu tables copied, %lu blocks split, "
                  "%lu reused, %lu collapsed\n",
                  s.faults, s.copied >> 10, s.zeroed >> 10, s.tables_copied, s.blocks_split,
                  s.reused, s.collapsed);
            print("  stood still %lu ns at its last fork; pool: %lu of %lu KiB free\n",
                  s.stood_still, s.pool_free >> 10, s.pool_size >> 10);
            for (unsigned i = 0; i < 32; i++) {
                if (s.fork_ns[i] + s.fault_ns[i] + s.still_ns[i] != 0) {
                    print("  2^%-2u ns: %8lu forks %8lu faults %8lu stood still\n", i, s.fork_ns[i],
                          s.fault_ns[i], s.still_ns[i]);
                }
            }
        }
        klock_release(&domain->busy);
    }
    domain_put(ctx, domain);
}

static void audit(struct mm_ctx *ctx)
{
    if (world_stop(ctx)) {
        (void)tenants_audit(ctx);
        world_release();
    } else {
        print("audit: another is under way\n");
    }
}

static bool is(const char *word)
{
    unsigned i = 0;
    while (word[i] != '\0' && line[i] == word[i]) {
        i++;
    }
    return word[i] == '\0' && (line[i] == '\0' || line[i] == ' ');
}

static void carry_out(struct mm_ctx *ctx)
{
    uint32_t id = 0;
    unsigned i = 0;
    while (line[i] != '\0' && line[i] != ' ') {
        i++;
    }
    for (; line[i] != '\0'; i++) {
        if (line[i] >= '0' && line[i] <= '9' && id < 100000) {
            id = id * 10 + (uint32_t)(line[i] - '0');
        }
    }
    if (is("list")) {
        list(ctx);
    } else if (is("stat")) {
        stat(ctx, id);
    } else if (is("audit")) {
        audit(ctx);
    } else if (is("stop")) {
        top_close();
        machine_stop(0);
    } else if (line[0] != '\0') {
        print("list, stat ID, audit, stop\n");
    }
}

/* Destroys every domain, children before parents as far as it matters. */
static bool destroy_all(struct mm_ctx *ctx)
{
    bool all = true;
    struct domain *domain = domain_next(0);
    while (domain != NULL) {
        uint32_t id = domain->id;
        enum cleave_status status;
        do {
            status = domain_destroy(ctx, domain, NULL);
            world_rest(ctx); /* guests still run, and audit */
            port_relax(ctx);
        } while (status == CLEAVE_AGAIN);
        if (status != CLEAVE_OK) {
            print("domain %u: not destroyed: %s %lu\n", id, ctx->error.argument, ctx->error.value);
            all = false;
        }
        domain_put(ctx, domain);
        domain = domain_next(id);
    }
    return all;
}

static void finish(struct mm_ctx *ctx)
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
        finish(ctx);
    }
    terminal_poll();
    top_poll(ctx);
    while ((c = console_read()) >= 0) {
        if (!terminal_typed((char)c)) {
            continue;
        }
        if (c == '\r' || c == '\n') {
            console_write("\n", 1);
            line[length] = '\0';
            length = 0;
            this_cpu()->doing[0] = CPU_CONSOLE;
            carry_out(ctx);
        } else {
            take((char)c);
        }
    }
}
