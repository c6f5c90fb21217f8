/* SPDX-License-Identifier: BSD-2-Clause */
/* Write notification for guests: each domain has at most one channel, made when it first arms. */
#include "hypercall.h"
#include "sched.h"

/* The caller's channel, made with the options of its first NOTIFY. */
static enum cleave_status own_channel(struct call *call)
{
    const struct cleave_notify *notify = &call->args.notify;
    const struct channel_options options = {.asynchronous = notify->asynchronous != 0,
                                            .grain = notify->grain,
                                            .max_dirty = notify->max_dirty};
    if (call->caller->channel != NULL) {
        return CLEAVE_OK;
    }
    if (notify->command != 1) {
        return mm_fail(call->ctx, CLEAVE_NOT_MAPPED, "command", notify->command, 1, 1);
    }
    return channel_create(call->ctx, call->caller->pool, &options, &call->caller->channel);
}

enum cleave_status op_notify(struct call *call)
{
    const struct cleave_notify *notify = &call->args.notify;
    struct domain *caller = call->caller;
    struct space *space = call->space;

    if (notify->command < 1 || notify->command > 3) {
        return mm_fail(call->ctx, CLEAVE_INVALID, "command", notify->command, 1, 3);
    }
    if (!klock_try(&caller->busy)) {
        return CLEAVE_AGAIN;
    }
    enum cleave_status status = own_channel(call);
    if (status == CLEAVE_OK && notify->command == 1) {
        status = channel_arm(call->ctx, caller->channel, space, gpa(notify->at), notify->size);
    } else if (status == CLEAVE_OK && notify->command == 2) {
        status = channel_rearm(call->ctx, caller->channel, space, gpa(notify->at), notify->size);
    } else if (status == CLEAVE_OK) {
        status = channel_disarm(call->ctx, caller->channel, space, gpa(notify->at), notify->size);
    }
    klock_release(&caller->busy);
    return status;
}

/* The domain whose space has this number in the caller's pool; 0 when it is gone. */
static uint32_t domain_of_space(struct call *call, uint32_t space)
{
    uint32_t id = 0;
    struct domain *domain = domain_next(0);
    while (domain != NULL) {
        uint32_t at = domain->id;
        if (domain->pool == call->caller->pool && domain->space_id == space) {
            id = at;
        }
        domain_put(call->ctx, domain);
        domain = id != 0 ? NULL : domain_next(at);
    }
    return id;
}

enum cleave_status op_event(struct call *call)
{
    struct event event;
    if (call->caller->channel == NULL) {
        return mm_fail(call->ctx, CLEAVE_NOT_MAPPED, "channel", 0, 1, 0);
    }
    if (!channel_await(call->ctx, call->caller->channel, &call->vcpu->wait, &event)) {
        return CLEAVE_WAIT;
    }
    call->args.event = (struct cleave_event){.id = event.id,
                                             .domain = domain_of_space(call, event.space),
                                             .vcpu = event.vcpu,
                                             .start = event.range.start.v << PAGE_SHIFT,
                                             .end = event.range.end.v << PAGE_SHIFT,
                                             .generation = event.generation};
    return CLEAVE_OK;
}

enum cleave_status op_verdict(struct call *call)
{
    const struct cleave_verdict *verdict = &call->args.verdict;
    if (verdict->deny > 1) {
        return mm_fail(call->ctx, CLEAVE_INVALID, "deny", verdict->deny, 0, 1);
    }
    if (call->caller->channel == NULL) {
        return mm_fail(call->ctx, CLEAVE_NOT_MAPPED, "channel", 0, 1, 0);
    }
    return channel_verdict(call->ctx, call->caller->channel, verdict->id,
                           verdict->deny ? VERDICT_DENY : VERDICT_ALLOW);
}
