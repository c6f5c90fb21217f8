/* SPDX-License-Identifier: BSD-2-Clause */
/* Operations of a vcpu on itself: version, console, exit, last error, yield. */
#include "guest.h"
#include "hypercall.h"
#include "sched.h"

enum cleave_status op_version(struct call *call)
{
    struct cleave_version *v = &call->args.version;
    *v = (struct cleave_version){.revision = CLEAVE_ABI_REVISION,
                                 .operations = CLEAVE_OPS,
                                 .domain = call->caller->id,
                                 .vcpu = call->vcpu->number,
                                 .tsc_per_second = tsc_per_second};
    for (unsigned i = 0; i < sizeof(v->machine) - 1 && hvm->name[i] != '\0'; i++) {
        v->machine[i] = hvm->name[i];
    }
    return CLEAVE_OK;
}

enum cleave_status op_console(struct call *call)
{
    const struct cleave_console *console = &call->args.console;
    char text[256];

    if (console->size == 0 || console->size > CLEAVE_TEXT_MAX) {
        return mm_fail(call->ctx, CLEAVE_COUNT, "size", console->size, 1, CLEAVE_TEXT_MAX);
    }
    for (unsigned pass = 0; pass < 2; pass++) { /* all of it is readable before any is written */
        for (uint32_t at = 0; at < console->size; at += (uint32_t)sizeof(text)) {
            uint32_t part = console->size - at;
            part = part < sizeof(text) ? part : (uint32_t)sizeof(text);
            enum cleave_status status =
                guest_read(call->ctx, call->vcpu, console->text + at, text, part, "text");
            if (status != CLEAVE_OK) {
                return status;
            }
            if (pass == 1) {
                console_write(text, part);
                port_relax(call->ctx); /* others wait for this CPU's flush, the line is slow */
                world_rest(call->ctx);
            }
        }
    }
    return CLEAVE_OK;
}

/* The result is kept in a frame of the domain until it is destroyed. */
static enum cleave_status keep_result(struct call *call)
{
    const struct cleave_exit *exit = &call->args.exit;
    struct domain *domain = call->caller;
    pfn_t frame;
    enum cleave_status status = CLEAVE_OK;

    if (domain->result == NULL && exit->size != 0) {
        status = object_alloc(call->ctx, &domain->space->payer, &frame);
        if (status != CLEAVE_OK) {
            return status;
        }
        domain->result = frame_address(frame);
    }
    status = guest_read(call->ctx, call->vcpu, exit->result, domain->result, exit->size, "result");
    domain->result_size = status == CLEAVE_OK ? exit->size : 0;
    return status;
}

enum cleave_status op_exit(struct call *call)
{
    const struct cleave_exit *exit = &call->args.exit;
    struct domain *domain = call->caller;

    if (exit->size > CLEAVE_RESULT_MAX) {
        return mm_fail(call->ctx, CLEAVE_COUNT, "size", exit->size, 0, CLEAVE_RESULT_MAX);
    }
    if (!klock_try(&domain->busy)) {
        return CLEAVE_AGAIN;
    }
    enum cleave_status status = keep_result(call);
    if (status == CLEAVE_OK) {
        domain_end(call->ctx, domain, call->vcpu, CLEAVE_EXITED, exit->code);
        status = CLEAVE_AGAIN; /* it never comes back */
    }
    klock_release(&domain->busy);
    return status;
}

enum cleave_status op_error(struct call *call)
{
    call->args.error = call->vcpu->error;
    return CLEAVE_OK;
}

enum cleave_status op_yield(struct call *call)
{
    (void)call;
    this_cpu()->resched = 1;
    return CLEAVE_OK;
}
