/* SPDX-License-Identifier: BSD-2-Clause */
/* Commands that tell of domains and change nothing; see commands.h. */
#include "calls.h"
#include "commands.h"
#include "sched.h"
#include "stat.h"
#include "tenant.h"
#include "terminal.h"

/* False: there are no statistics, which was said. */
static bool hold_and_stat(struct command *command, struct domain *domain, struct cleave_stat *s)
{
    struct stat_walk walk = {.domain = 0};
    domain_hold(command->ctx, domain);
    enum cleave_status status = stat_domain(command->ctx, domain, &walk, s);
    klock_release(&domain->busy);
    if (status != CLEAVE_OK) {
        command_refused(command, "stat", domain->id, status);
    }
    return status == CLEAVE_OK;
}

enum command_result command_list(struct command *command)
{
    struct mm_ctx *ctx = command->ctx;
    static const char *const states[] = {"?", "running", "paused", "starved", "frozen", "ended"};
    struct cleave_stat s;
    struct domain *domain = domain_next(0);

    print("   id parent name             state    vcpus  charged KiB   faults  copied KiB\n");
    while (domain != NULL) {
        uint32_t id = domain->id;
        if (hold_and_stat(command, domain, &s)) {
            print("%5u %6u %-16s %-8s %5u %12lu %8lu %11lu\n", s.domain, s.parent, s.name,
                  states[s.state], s.vcpus, s.charged >> 10, s.faults, s.copied >> 10);
        }
        domain_put(ctx, domain);
        domain = domain_next(id);
    }
    return COMMAND_DONE;
}

static void print_stat(const struct cleave_stat *s)
{
    print("domain %u %s, parent %u, %u vcpus: %lu exits, %lu hypercalls\n", s->domain, s->name,
          s->parent, s->vcpus, s->exits, s->hypercalls);
    print("  memory: %lu KiB charged, %lu alone, %lu shared; under 4K %lu, 2M %lu, 1G %lu\n",
          s->charged >> 10, s->exclusive >> 10, s->shared >> 10, s->mapped[0] >> 10,
          s->mapped[1] >> 10, s->mapped[2] >> 10);
    print("  %lu faults, %lu KiB copied, %lu zeroed, %lu tables copied, %lu blocks split, "
          "%lu reused, %lu collapsed\n",
          s->faults, s->copied >> 10, s->zeroed >> 10, s->tables_copied, s->blocks_split, s->reused,
          s->collapsed);
    print("  stood still %lu ns at its last fork; pool: %lu of %lu KiB free\n", s->stood_still,
          s->pool_free >> 10, s->pool_size >> 10);
    for (unsigned i = 0; i < 32; i++) {
        if (s->fork_ns[i] + s->fault_ns[i] + s->still_ns[i] != 0) {
            print("  2^%-2u ns: %8lu forks %8lu faults %8lu stood still\n", i, s->fork_ns[i],
                  s->fault_ns[i], s->still_ns[i]);
        }
    }
}

static bool stat_turn(struct command *command, struct domain *domain)
{
    struct cleave_stat s;
    if (hold_and_stat(command, domain, &s)) {
        print_stat(&s);
    }
    return true;
}

enum command_result command_stat(struct command *command)
{
    return command_each(command, stat_turn);
}

enum command_result command_audit(struct command *command)
{
    struct mm_ctx *ctx = command->ctx;
    if (world_stop(ctx)) {
        (void)tenants_audit(ctx);
        world_release();
    } else {
        print("audit: another is under way\n");
    }
    return COMMAND_DONE;
}

/* --- What a guest said and asked -------------------------------------------------------------- */

/* Prints text of a guest's, each line behind `front`, with dots for what cannot be printed. */
static void print_text(const char *front, const char *text, uint32_t size)
{
    bool begun = false;
    for (uint32_t i = 0; i < size; i++) {
        char c = text[i];
        if (c == '\n') {
            print("%s\n", begun ? "" : front);
            begun = false;
        } else if (c != '\r') {
            print("%s%c", begun ? "" : front, c >= ' ' && c <= '~' ? c : '.');
            begun = true;
        }
    }
    if (begun) {
        print("\n");
    }
}

static uint32_t tail_bytes;

static bool tail_turn(struct command *command, struct domain *domain)
{
    static char text[TERMINAL_SIZE];
    uint32_t dropped = 0, size = 0;
    (void)command;
    if (domain_use(domain) != NULL) {
        size = terminal_read(domain, text, tail_bytes, &dropped);
        domain_unuse(domain);
    }
    print("tail %u: %u bytes, %u dropped\n", domain->id, size, dropped);
    print_text("| ", text, size);
    return true;
}

enum command_result command_tail(struct command *command)
{
    tail_bytes = TERMINAL_SIZE;
    if (command_key(command, "bytes") &&
        (!command_number(command, &tail_bytes) || tail_bytes > TERMINAL_SIZE)) {
        return COMMAND_WRONG;
    }
    return command_each(command, tail_turn);
}

static bool calls_turn(struct command *command, struct domain *domain)
{
    (void)command;
    if (domain_use(domain) == NULL) {
        return true;
    }
    print("calls %u: %u unknown\n", domain->id, domain->xen != NULL ? domain->xen->unknown : 0);
    for (unsigned i = 0; i < XEN_CALLS && domain->xen != NULL; i++) {
        if (domain->xen->calls[i] != 0) {
            print("  hypercall %u: %u\n", i, domain->xen->calls[i]);
        }
    }
    domain_unuse(domain);
    return true;
}

enum command_result command_calls(struct command *command)
{
    return command_each(command, calls_turn);
}

static bool ended_turn(struct command *command, struct domain *domain)
{
    (void)command;
    print("domain %u %s of %u: %s, code %u\n", domain->id, domain->name, domain->origin,
          stat_reason(domain->reason), domain->code);
    if (domain_use(domain) != NULL) {
        print_text("  result: ", (const char *)domain->result, domain->result_size);
        domain_unuse(domain);
    }
    return true;
}

enum command_result command_ended(struct command *command)
{
    return command_each(command, ended_turn);
}
