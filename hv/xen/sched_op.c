/* SPDX-License-Identifier: BSD-2-Clause */
/* sched_op (Xen's public/sched.h): yield, poll, shutdown; of others by the control domain. */
#include "control.h"

#include <xen/errno.h>
#include <xen/sched.h>
#include <xen/xen.h>

#include "sched.h"

#define POLL_PORTS_MAX 64u

/* Sleeps until one of the ports is pending or the time has come. The instruction is executed again
 * whenever something happened; that it is a second time, `polling` tells. */
static int64_t poll(struct xen_call *call)
{
    struct sched_poll poll;
    uint32_t port[POLL_PORTS_MAX];
    struct xen_vcpu *xen = &call->vcpu->xen;
    bool any = false;
    int64_t result = xen_get(call, call->argument[1], &poll, sizeof(poll));

    if (result == 0 && poll.nr_ports > POLL_PORTS_MAX) {
        result = -XEN_EINVAL;
    }
    if (result == 0) {
        result = xen_get(call, (uint64_t)poll.ports.p, port, poll.nr_ports * sizeof(port[0]));
    }
    for (uint32_t i = 0; result == 0 && i < poll.nr_ports; i++) {
        result = port[i] < XEN_PORTS ? 0 : -XEN_EINVAL;
    }
    if (result == 0 && call->xen->shared_info == XEN_NOWHERE) {
        result = -XEN_EINVAL;
    }
    if (result == 0) {
        __atomic_store_n(&xen->polling, 1, __ATOMIC_SEQ_CST);
        result = xen_status(xen_any_pending(call->ctx, call->vcpu, port, poll.nr_ports, &any));
    }
    if (result == 0 && !any && !(poll.timeout != 0 && xen_now(call->vcpu) >= poll.timeout)) {
        xen->poll_until = poll.timeout;
        xen_run_timer(call->vcpu);
        vcpu_sleep(call->vcpu, SLEEP_HALT);
        return XEN_AGAIN;
    }
    xen->polling = 0;
    xen->poll_until = 0;
    return result;
}

/* Cleave's word for Xen's; 0: there is no such. */
static uint8_t reason_of(uint32_t reason)
{
    static const uint8_t reasons[] = {[SHUTDOWN_poweroff] = CLEAVE_POWERED_OFF,
                                      [SHUTDOWN_reboot] = CLEAVE_REBOOTED,
                                      [SHUTDOWN_suspend] = CLEAVE_SUSPENDED,
                                      [SHUTDOWN_crash] = CLEAVE_GUEST_CRASHED,
                                      [SHUTDOWN_watchdog] = CLEAVE_GUEST_CRASHED};
    return reason < sizeof(reasons) ? reasons[reason] : 0;
}

static int64_t shut_down(struct xen_call *call)
{
    struct sched_shutdown shutdown;
    int64_t result = xen_get(call, call->argument[1], &shutdown, sizeof(shutdown));

    if (result == 0 && reason_of(shutdown.reason) == 0) {
        result = -XEN_EINVAL;
    }
    if (result != 0) {
        return result;
    }
    call->vcpu->ending = reason_of(shutdown.reason);
    call->vcpu->end_code = 0;
    return 0;
}

/* One that has ended keeps its reason. */
static int64_t shut_down_other(struct xen_call *call)
{
    struct sched_remote_shutdown shutdown;
    if (!call->domain->control) {
        return xen_unknown(call);
    }
    int64_t result = xen_get(call, call->argument[1], &shutdown, sizeof(shutdown));
    if (result != 0) {
        return result;
    }
    struct domain *domain = xen_target(call, shutdown.domain_id, &result);
    if (domain == NULL) {
        return result;
    }
    if (domain == call->domain || domain->snapshot || reason_of(shutdown.reason) == 0) {
        result = -XEN_EINVAL;
    } else if (!klock_try(&domain->busy)) {
        result = XEN_AGAIN;
    } else {
        domain_end(call->ctx, domain, call->vcpu, reason_of(shutdown.reason), 0);
        klock_release(&domain->busy);
    }
    xen_target_put(call, domain);
    return result;
}

int64_t xen_sched_op(struct xen_call *call)
{
    switch (call->argument[0]) {
    case SCHEDOP_yield:
        this_cpu()->resched = 1;
        return 0;
    case SCHEDOP_poll:
        return poll(call);
    case SCHEDOP_shutdown:
        return shut_down(call);
    case SCHEDOP_remote_shutdown:
        return shut_down_other(call);
    default:
        return xen_unknown(call);
    }
}
