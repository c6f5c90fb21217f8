/* SPDX-License-Identifier: BSD-2-Clause */
/* Commands that change domains, by what carries out the hypercalls; see commands.h. */
#include "build.h"
#include "calls.h"
#include "commands.h"
#include "hypercall.h"
#include "sched.h"
#include "stat.h"

/* A call in the name of nobody on `domain`, until it is done or refused. `ended`: also for one that
 * has ended. */
static enum cleave_status perform(struct call *call, op_t *op, bool ended)
{
    struct mm_ctx *ctx = call->ctx;
    enum cleave_status status;

    ctx->error = (struct mm_error){.low = 1};
    call->space = ended ? NULL : domain_use(call->domain);
    if (!ended && (call->space == NULL || call->domain->state == CLEAVE_STATE_ENDED)) {
        status = mm_fail(ctx, CLEAVE_DYING, "domain", call->domain->id, 1, 0);
    } else {
        while ((status = op(call)) == CLEAVE_AGAIN) {
            domain_rest(ctx, call->domain);
        }
    }
    if (call->space != NULL) {
        domain_unuse(call->domain);
    }
    return status;
}

/* --- Fork ------------------------------------------------------------------------------------- */

static char data[PAGE_SIZE];

static enum cleave_status fork_with_data(struct call *call) { return call_fork(call, data); }

/* [COUNT] [base] [paused] [data=TEXT], the text to the end of the line. */
static bool fork_arguments(struct command *command, struct cleave_fork *fork)
{
    *fork = (struct cleave_fork){.count = 1, .limit = UINT64_MAX};
    bool some = command_number(command, &fork->count);
    do {
        some = true;
        if (command_word(command, "base")) {
            fork->flags |= CLEAVE_FORK_BASE;
        } else if (command_word(command, "paused")) {
            fork->flags |= CLEAVE_FORK_PAUSED;
        } else if (command_key(command, "data")) {
            __builtin_memset(data, 0, sizeof(data));
            while (*command->at != '\0') {
                data[fork->data_size++] = *command->at++;
            }
        } else {
            some = false;
        }
    } while (some);
    return *command_rest(command) == '\0';
}

static enum command_result fork_one(struct command *command, const char *what, bool snapshot)
{
    struct call call = {.ctx = command->ctx};
    uint32_t id;
    if (!command_number(command, &id) || !fork_arguments(command, &call.args.fork)) {
        return COMMAND_WRONG;
    }
    call.domain = domain_get(id);
    if (call.domain == NULL || (snapshot && !call.domain->snapshot)) {
        print("no %s %u\n", snapshot ? "snapshot" : "domain", id);
        domain_put(command->ctx, call.domain);
        return COMMAND_DONE;
    }
    uint64_t began = read_tsc();
    stat_mark(&call.asked);
    enum cleave_status status = perform(&call, fork_with_data, false);
    if (status == CLEAVE_OK) {
        uint64_t last = call.results + call.args.fork.count - 1;
        print("%s %u: domains %lu to %lu, in %lu ns\n", what, id, call.results, last,
              tsc_to_ns(read_tsc() - began));
    } else {
        command_refused(command, what, id, status);
    }
    domain_put(command->ctx, call.domain);
    return COMMAND_DONE;
}

enum command_result command_fork(struct command *command)
{
    return fork_one(command, "fork", false);
}

enum command_result command_restore(struct command *command)
{
    return fork_one(command, "restore", true);
}

enum command_result command_snapshot(struct command *command)
{
    struct call call = {.ctx = command->ctx};
    uint32_t id;
    if (!command_number(command, &id)) {
        return COMMAND_WRONG;
    }
    const char *name = command_rest(command);
    for (unsigned i = 0; i < CLEAVE_NAME_SIZE && *name != '\0'; i++) {
        call.args.snapshot.name[i] = *name++;
    }
    command->at = name;
    call.domain = domain_get(id);
    if (call.domain == NULL) {
        print("no domain %u\n", id);
        return COMMAND_DONE;
    }
    enum cleave_status status = perform(&call, op_snapshot, false);
    if (status == CLEAVE_OK) {
        print("snapshot %u: domain %u\n", id, call.args.snapshot.snapshot);
    } else {
        command_refused(command, "snapshot", id, status);
    }
    domain_put(command->ctx, call.domain);
    return COMMAND_DONE;
}

/* --- For each of several ---------------------------------------------------------------------- */

static bool change(struct command *command, struct domain *domain, const char *what, op_t *op,
                   bool ended)
{
    struct call call = {.ctx = command->ctx, .domain = domain};
    enum cleave_status status = perform(&call, op, ended);
    if (status != CLEAVE_OK) {
        command_refused(command, what, domain->id, status);
    }
    return true;
}

static bool reset_turn(struct command *command, struct domain *domain)
{
    return change(command, domain, "reset", op_reset, false);
}

static bool pause_turn(struct command *command, struct domain *domain)
{
    return change(command, domain, "pause", op_pause, false);
}

static bool unpause_turn(struct command *command, struct domain *domain)
{
    return change(command, domain, "unpause", op_unpause, false);
}

static enum cleave_status destroy(struct call *call)
{
    return domain_destroy(call->ctx, call->domain, NULL);
}

static bool destroy_turn(struct command *command, struct domain *domain)
{
    return change(command, domain, "destroy", destroy, true);
}

enum command_result command_reset(struct command *command)
{
    return command_each(command, reset_turn);
}

enum command_result command_pause(struct command *command)
{
    return command_each(command, pause_turn);
}

enum command_result command_unpause(struct command *command)
{
    return command_each(command, unpause_turn);
}

enum command_result command_destroy(struct command *command)
{
    return command_each(command, destroy_turn);
}

/* The rest of the line, and its end, as if typed on the domain's console. */
static bool type_turn(struct command *command, struct domain *domain)
{
    uint32_t size = 0, taken = 0;
    const char *text = command_rest(command);
    while (text[size] != '\0') {
        size++;
    }
    if (domain_use(domain) != NULL) {
        taken = xen_type(domain, text, size) + xen_type(domain, "\n", 1);
        domain_unuse(domain);
    }
    if (taken != size + 1) {
        print("type %u: %u of %u characters taken\n", domain->id, taken, size + 1);
    }
    command->at = text + size;
    return true;
}

enum command_result command_type(struct command *command)
{
    return command_each(command, type_turn);
}

/* The control domain that has ended goes, with the maps that it had, and comes again. */
enum command_result command_restart(struct command *command)
{
    struct mm_ctx *ctx = command->ctx;
    struct domain *old = domain_get(CLEAVE_DOMAIN_CONTROL);
    if (old != NULL && old->state != CLEAVE_STATE_ENDED) {
        print("restart: the control domain runs; \"destroy %u\" ends it\n", old->id);
        domain_put(ctx, old);
        return COMMAND_DONE;
    }
    while (old != NULL && domain_destroy(ctx, old, NULL) == CLEAVE_AGAIN) {
        domain_rest(ctx, old);
    }
    domain_put(ctx, old);
    (void)build_control(ctx);
    return COMMAND_DONE;
}
