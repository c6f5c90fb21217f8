/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * event_channel_op (Xen's public/event_channel.h): the 2-level ABI. A port is raised in the vcpu
 * object; the vcpu itself makes it pending in its guest's memory and tells the guest by the
 * callback vector.
 */
#include "calls.h"

#include <stddef.h>

#include <xen/errno.h>
#include <xen/event_channel.h>
#include <xen/xen.h>

#include "sched.h"

#define PENDING offsetof(struct shared_info, evtchn_pending)
#define MASK offsetof(struct shared_info, evtchn_mask)
#define SELECTOR offsetof(struct vcpu_info, evtchn_pending_sel)
#define UPCALL offsetof(struct vcpu_info, evtchn_upcall_pending)

static uint64_t word_of(const struct vcpu *vcpu, uint64_t array, uint32_t port)
{
    return vcpu->domain->xen->shared_info + array + port / 64 * 8;
}

static bool listens(const struct vcpu *vcpu)
{
    return vcpu->domain->xen->shared_info != XEN_NOWHERE && vcpu->xen.info != XEN_NOWHERE;
}

/* --- Raising ---------------------------------------------------------------------------------- */

void xen_raise(struct vcpu *vcpu, uint32_t port)
{
    __atomic_fetch_or(&vcpu->xen.raised[port / 64], UINT64_C(1) << port % 64, __ATOMIC_SEQ_CST);
    vcpu_attend(vcpu);
}

void xen_raise_port(struct domain *domain, uint32_t port)
{
    struct xen_domain *xen = domain->xen;
    klock_take(&xen->lock);
    bool bound = xen->port[port].kind != XEN_PORT_FREE;
    uint32_t number = xen->port[port].vcpu;
    klock_release(&xen->lock);
    if (bound && number < domain->vcpu_count) {
        xen_raise(domain->vcpu[number], port);
    }
}

void xen_raise_virq(struct domain *domain, uint32_t virq)
{
    uint32_t port = domain->vcpu_count != 0 ? domain->vcpu[0]->xen.virq[virq] : 0;
    if (port != 0) {
        xen_raise_port(domain, port);
    }
}

void xen_tell_end(struct domain *control)
{
    if (control->xen != NULL) {
        xen_raise_virq(control, VIRQ_DOM_EXC);
    }
}

void xen_attend_all(struct domain *domain)
{
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        vcpu_attend(domain->vcpu[i]);
    }
}

/* A pending port that is not masked: the vcpu is to be told, once. */
static enum cleave_status tell(struct mm_ctx *ctx, struct vcpu *vcpu, uint32_t port)
{
    struct space *space = vcpu->domain->space;
    uint64_t old, done, info = vcpu->xen.info;
    const uint8_t one = 1;
    enum cleave_status status = space_atomic(ctx, space, gpa(info + SELECTOR), ATOMIC_OR,
                                             UINT64_C(1) << port / 64, &old, &vcpu->wait);
    if (status == CLEAVE_OK) {
        status = space_write(ctx, space, gpa(info + UPCALL), &one, 1, &vcpu->wait, &done);
    }
    if (status == CLEAVE_OK) {
        vcpu->xen.upcall = 1;
    }
    return status;
}

static void wake_pollers(struct domain *domain)
{
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        if (__atomic_load_n(&domain->vcpu[i]->xen.polling, __ATOMIC_SEQ_CST)) {
            vcpu_attend(domain->vcpu[i]);
        }
    }
}

static enum cleave_status make_pending(struct mm_ctx *ctx, struct vcpu *vcpu, uint32_t port)
{
    struct space *space = vcpu->domain->space;
    uint64_t old, mask = 0, bit = UINT64_C(1) << port % 64;
    enum cleave_status status = space_atomic(ctx, space, gpa(word_of(vcpu, PENDING, port)),
                                             ATOMIC_OR, bit, &old, &vcpu->wait);
    if (status != CLEAVE_OK) {
        return status;
    }
    /* The guest clears the mask, then looks at the bit; here it is the other way round. When this
     * is repeated after a wait, the bit is there already: so it does not end it. */
    status = space_read(ctx, space, gpa(word_of(vcpu, MASK, port)), &mask, 8, &vcpu->wait);
    if (status == CLEAVE_OK && !(mask & bit)) {
        status = tell(ctx, vcpu, port);
    }
    wake_pollers(vcpu->domain);
    return status;
}

/* Stores what was raised. What cannot be stored yet stays raised. */
static enum cleave_status store_raised(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    for (unsigned word = 0; word < XEN_PORT_WORDS && listens(vcpu); word++) {
        uint64_t bits = __atomic_exchange_n(&vcpu->xen.raised[word], 0, __ATOMIC_SEQ_CST);
        while (bits != 0) {
            uint32_t port = word * 64 + (uint32_t)__builtin_ctzll(bits);
            enum cleave_status status = make_pending(ctx, vcpu, port);
            if (vcpu_repeats(status)) {
                __atomic_fetch_or(&vcpu->xen.raised[word], bits, __ATOMIC_SEQ_CST);
                return status;
            }
            vcpu->domain->xen->lost += status != CLEAVE_OK; /* the guest took the page away */
            bits &= bits - 1;
        }
    }
    return CLEAVE_OK;
}

enum cleave_status xen_tell_again(struct mm_ctx *ctx, struct vcpu *vcpu, uint32_t port)
{
    uint64_t pending = 0;
    enum cleave_status status = space_read(
        ctx, vcpu->domain->space, gpa(word_of(vcpu, PENDING, port)), &pending, 8, &vcpu->wait);
    if (status == CLEAVE_OK && pending >> port % 64 & 1) {
        xen_raise_port(vcpu->domain, port);
    }
    return status;
}

enum cleave_status xen_any_pending(struct mm_ctx *ctx, struct vcpu *vcpu, const uint32_t *port,
                                   uint32_t count, bool *any)
{
    *any = false;
    for (uint32_t i = 0; i < count && !*any; i++) {
        uint64_t pending = 0;
        enum cleave_status status =
            space_read(ctx, vcpu->domain->space, gpa(word_of(vcpu, PENDING, port[i])), &pending, 8,
                       &vcpu->wait);
        if (status != CLEAVE_OK) {
            return status;
        }
        *any = pending >> port[i] % 64 & 1;
    }
    return CLEAVE_OK;
}

/* --- Before the next instruction -------------------------------------------------------------- */

/* Its one-shot timer, and the end of a poll. Of that it is told once: it may be in a handler of an
 * interrupt, and come back to the poll much later or never. */
void xen_run_timer(struct vcpu *vcpu)
{
    struct xen_vcpu *xen = &vcpu->xen;
    uint64_t now = xen_now(vcpu), next = 0;

    if (xen->deadline != 0 && now >= xen->deadline) {
        xen->deadline = 0;
        if (xen->virq[VIRQ_TIMER] != 0) {
            uint32_t port = xen->virq[VIRQ_TIMER];
            __atomic_fetch_or(&xen->raised[port / 64], UINT64_C(1) << port % 64, __ATOMIC_SEQ_CST);
            __atomic_store_n(&vcpu->attention, 1, __ATOMIC_SEQ_CST);
        }
    }
    if (xen->poll_until != 0 && now >= xen->poll_until) {
        xen->poll_until = 0;
        __atomic_store_n(&vcpu->attention, 1, __ATOMIC_SEQ_CST);
    }
    next = xen->deadline;
    if (xen->poll_until != 0 && (next == 0 || xen->poll_until < next)) {
        next = xen->poll_until;
    }
    if (next != 0 || vcpu->timer.at != 0) {
        vcpu_timer(vcpu, next != 0 ? xen_tsc_at(vcpu, next) : 0);
    }
}

enum cleave_status xen_attend(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    struct xen_domain *xen = vcpu->domain->xen;
    enum cleave_status status = CLEAVE_OK;

    if (xen == NULL) {
        return CLEAVE_OK;
    }
    xen_run_timer(vcpu);
    if (__atomic_load_n(&xen->refresh, __ATOMIC_ACQUIRE) && xen->shared_info != XEN_NOWHERE) {
        __atomic_store_n(&xen->refresh, 0, __ATOMIC_RELEASE);
        status = xen_write_wall_clock(ctx, vcpu);
        if (vcpu_repeats(status)) {
            xen_refresh(vcpu->domain);
            return status;
        }
    }
    if (xen->input_size != 0 && !vcpu->domain->control &&
        xen->port[XEN_CONSOLE_PORT].vcpu == vcpu->number) {
        status = xen_console_type(ctx, vcpu);
        if (vcpu_repeats(status)) {
            return status;
        }
    }
    return store_raised(ctx, vcpu);
}

int xen_vector(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    uint8_t pending = 0, vector;
    if (!vcpu->xen.upcall) {
        return -1;
    }
    vector = __atomic_load_n(&vcpu->domain->xen->vector, __ATOMIC_RELAXED);
    if (vector == 0) {
        return -1;
    }
    /* It may have looked by itself, with interrupts off. */
    if (space_read(ctx, vcpu->domain->space, gpa(vcpu->xen.info + UPCALL), &pending, 1, NULL) ==
            CLEAVE_OK &&
        pending == 0) {
        vcpu->xen.upcall = 0;
        return -1;
    }
    return vector;
}

void xen_told(struct vcpu *vcpu) { vcpu->xen.upcall = 0; }

/* --- Operations ------------------------------------------------------------------------------- */

/* A free port, bound; 0 when there is none. The lock is held. */
static uint32_t take_port(struct xen_domain *xen, struct xen_port port)
{
    for (uint32_t i = 1; i < XEN_PORTS; i++) {
        if (xen->port[i].kind == XEN_PORT_FREE) {
            xen->port[i] = port;
            return i;
        }
    }
    return 0;
}

/* What was raised and not stored yet is forgotten. */
static int64_t free_port(struct xen_call *call, uint32_t number)
{
    int64_t result = 0;
    klock_take(&call->xen->lock);
    struct xen_port *port = &call->xen->port[number];
    if (port->kind == XEN_PORT_FREE || port->kind == XEN_PORT_CONSOLE) {
        result = -XEN_EINVAL;
    } else {
        struct xen_vcpu *told = &call->domain->vcpu[port->vcpu]->xen;
        if (port->kind == XEN_PORT_VIRQ) {
            told->virq[port->virq] = 0;
        }
        __atomic_fetch_and(&told->raised[number / 64], ~(UINT64_C(1) << number % 64),
                           __ATOMIC_SEQ_CST);
        *port = (struct xen_port){XEN_PORT_FREE, 0, 0};
    }
    klock_release(&call->xen->lock);
    return result;
}

/* Of whom had the port before nothing stays pending. */
static int64_t clear_pending(struct xen_call *call, uint32_t port)
{
    uint64_t old;
    if (call->xen->shared_info == XEN_NOWHERE) {
        return 0;
    }
    int64_t result = xen_status(space_atomic(call->ctx, call->domain->space,
                                             gpa(word_of(call->vcpu, PENDING, port)), ATOMIC_AND,
                                             ~(UINT64_C(1) << port % 64), &old, &call->vcpu->wait));
    return result == XEN_AGAIN || result == XEN_WAIT || result == XEN_QUOTA ? result : 0;
}

/* What is pending goes first; what is stored for it meanwhile goes when it is bound again. */
static int64_t close_port(struct xen_call *call, uint32_t number)
{
    uint8_t kind = __atomic_load_n(&call->xen->port[number].kind, __ATOMIC_RELAXED);
    if (kind == XEN_PORT_FREE || kind == XEN_PORT_CONSOLE) {
        return -XEN_EINVAL;
    }
    int64_t result = clear_pending(call, number);
    return result == 0 ? free_port(call, number) : result;
}

/* Tells the guest the port that was bound; where that fails, or is to be repeated, it is free. */
static int64_t tell_port(struct xen_call *call, uint64_t at, uint32_t port)
{
    int64_t result = clear_pending(call, port);
    if (result == 0) {
        result = xen_put(call, at, &port, sizeof(port));
    }
    if (result != 0) {
        (void)free_port(call, port);
    }
    return result;
}

/* Told to one vcpu of the domain, the first. */
static bool is_global(uint32_t virq) { return virq != VIRQ_TIMER && virq != VIRQ_DEBUG; }

/* Each vcpu has the timer and the debug key; what tells of the machine and of other domains is the
 * control domain's. */
static bool is_virq(const struct domain *domain, uint32_t virq)
{
    return virq == VIRQ_TIMER || virq == VIRQ_DEBUG ||
           (domain->control &&
            (virq == VIRQ_CONSOLE || virq == VIRQ_DOM_EXC || virq == VIRQ_PCPU_STATE));
}

/* A port that waits for another domain to bind to it. */
static int64_t alloc_unbound(struct xen_call *call)
{
    struct evtchn_alloc_unbound alloc;
    uint64_t at = call->argument[1];
    int64_t result = xen_get(call, at, &alloc, sizeof(alloc));
    if (result != 0) {
        return result;
    }
    if (alloc.dom != DOMID_SELF && alloc.dom != xen_domid(call->domain)) {
        return -XEN_ESRCH;
    }
    klock_take(&call->xen->lock);
    uint32_t port =
        take_port(call->xen, (struct xen_port){XEN_PORT_UNBOUND, 0, (uint16_t)alloc.remote_dom});
    klock_release(&call->xen->lock);
    return port == 0 ? -XEN_ENOSPC
                     : tell_port(call, at + offsetof(struct evtchn_alloc_unbound, port), port);
}

static int64_t bind_virq(struct xen_call *call)
{
    struct evtchn_bind_virq bind;
    uint64_t at = call->argument[1];
    uint32_t port = 0;
    int64_t result = xen_get(call, at, &bind, sizeof(bind));
    if (result != 0) {
        return result;
    }
    if (!is_virq(call->domain, bind.virq) || (is_global(bind.virq) && bind.vcpu != 0)) {
        return -XEN_EINVAL;
    }
    if (bind.vcpu >= call->domain->vcpu_count) {
        return -XEN_ENOENT;
    }
    uint16_t *bound = &call->domain->vcpu[bind.vcpu]->xen.virq[bind.virq];
    klock_take(&call->xen->lock);
    if (*bound != 0) {
        result = -XEN_EEXIST;
    } else {
        port = take_port(call->xen,
                         (struct xen_port){XEN_PORT_VIRQ, (uint8_t)bind.vcpu, (uint16_t)bind.virq});
        *bound = (uint16_t)port;
        result = port != 0 ? 0 : -XEN_ENOSPC;
    }
    klock_release(&call->xen->lock);
    return result != 0 ? result
                       : tell_port(call, at + offsetof(struct evtchn_bind_virq, port), port);
}

static int64_t bind_ipi(struct xen_call *call)
{
    struct evtchn_bind_ipi bind;
    uint64_t at = call->argument[1];
    int64_t result = xen_get(call, at, &bind, sizeof(bind));
    if (result != 0) {
        return result;
    }
    if (bind.vcpu >= call->domain->vcpu_count) {
        return -XEN_ENOENT;
    }
    klock_take(&call->xen->lock);
    uint32_t port = take_port(call->xen, (struct xen_port){XEN_PORT_IPI, (uint8_t)bind.vcpu, 0});
    klock_release(&call->xen->lock);
    if (port == 0) {
        return -XEN_ENOSPC;
    }
    return tell_port(call, at + offsetof(struct evtchn_bind_ipi, port), port);
}

static int64_t send(struct xen_call *call, uint32_t port)
{
    switch ((enum xen_port_kind)call->xen->port[port].kind) {
    case XEN_PORT_IPI:
        xen_raise_port(call->domain, port);
        return 0;
    case XEN_PORT_CONSOLE:
        return xen_status(xen_console_drain(call->ctx, call->vcpu));
    case XEN_PORT_UNBOUND:
        return 0; /* there is nobody to hear it */
    case XEN_PORT_FREE:
    case XEN_PORT_VIRQ:
        break;
    }
    return -XEN_EINVAL;
}

static int64_t unmask(struct xen_call *call, uint32_t port)
{
    uint64_t old, bit = UINT64_C(1) << port % 64;
    if (call->xen->shared_info == XEN_NOWHERE) {
        return -XEN_EINVAL;
    }
    enum cleave_status status =
        space_atomic(call->ctx, call->domain->space, gpa(word_of(call->vcpu, MASK, port)),
                     ATOMIC_AND, ~bit, &old, &call->vcpu->wait);
    if (status == CLEAVE_OK) {
        status = xen_tell_again(call->ctx, call->vcpu, port);
    }
    return xen_status(status);
}

static int64_t bind_vcpu(struct xen_call *call, uint32_t number, uint32_t vcpu)
{
    int64_t result = 0;
    if (vcpu >= call->domain->vcpu_count) {
        return -XEN_ENOENT;
    }
    klock_take(&call->xen->lock);
    struct xen_port *port = &call->xen->port[number];
    if (port->kind == XEN_PORT_CONSOLE) {
        port->vcpu = (uint8_t)vcpu;
    } else {
        result = -XEN_EINVAL; /* what belongs to one vcpu stays there */
    }
    klock_release(&call->xen->lock);
    if (result == 0) {
        vcpu_attend(call->domain->vcpu[vcpu]); /* what is typed already */
    }
    return result;
}

static int64_t status_of(struct xen_call *call)
{
    struct evtchn_status status;
    int64_t result = xen_get(call, call->argument[1], &status, sizeof(status));
    if (result != 0) {
        return result;
    }
    if (status.dom != DOMID_SELF) {
        return -XEN_ESRCH;
    }
    if (status.port >= XEN_PORTS) {
        return -XEN_EINVAL;
    }
    klock_take(&call->xen->lock);
    struct xen_port port = call->xen->port[status.port];
    klock_release(&call->xen->lock);
    status.vcpu = port.vcpu;
    switch ((enum xen_port_kind)port.kind) {
    case XEN_PORT_FREE:
        status.status = EVTCHNSTAT_closed;
        break;
    case XEN_PORT_VIRQ:
        status.status = EVTCHNSTAT_virq;
        status.u.virq = port.virq;
        break;
    case XEN_PORT_IPI:
        status.status = EVTCHNSTAT_ipi;
        break;
    case XEN_PORT_UNBOUND:
        status.status = EVTCHNSTAT_unbound;
        status.u.unbound.dom = port.virq;
        break;
    case XEN_PORT_CONSOLE:
        status.status = EVTCHNSTAT_interdomain;
        status.u.interdomain.dom = 0;
        status.u.interdomain.port = 0;
        break;
    }
    return xen_put(call, call->argument[1], &status, sizeof(status));
}

/* Operations whose only argument is a port, or begins with one. */
static int64_t with_port(struct xen_call *call)
{
    struct evtchn_bind_vcpu bind = {0};
    uint64_t command = call->argument[0];
    uint64_t size = command == EVTCHNOP_bind_vcpu ? sizeof(bind) : sizeof(bind.port);
    int64_t result = xen_get(call, call->argument[1], &bind, size);

    if (result != 0) {
        return result;
    }
    if (bind.port == 0 || bind.port >= XEN_PORTS) {
        return -XEN_EINVAL;
    }
    switch (command) {
    case EVTCHNOP_send:
        return send(call, bind.port);
    case EVTCHNOP_close:
        return close_port(call, bind.port);
    case EVTCHNOP_unmask:
        return unmask(call, bind.port);
    default:
        return bind_vcpu(call, bind.port, bind.vcpu);
    }
}

int64_t xen_event_channel_op(struct xen_call *call)
{
    switch (call->argument[0]) {
    case EVTCHNOP_bind_virq:
        return bind_virq(call);
    case EVTCHNOP_bind_ipi:
        return bind_ipi(call);
    case EVTCHNOP_alloc_unbound:
        return alloc_unbound(call);
    case EVTCHNOP_send:
    case EVTCHNOP_close:
    case EVTCHNOP_unmask:
    case EVTCHNOP_bind_vcpu:
        return with_port(call);
    case EVTCHNOP_status:
        return status_of(call);
    default:
        return xen_unknown(call);
    }
}
