/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Consoles of guests: console_io, and the ring of Xen's public/io/console.h, whose other end is the
 * hypervisor. It takes what the guest wrote in the guest's own call, so a guest never waits.
 */
#include "calls.h"

#include <stddef.h>

#include <xen/errno.h>
#include <xen/io/console.h>
#include <xen/xen.h>

#include "sched.h"
#include "terminal.h"

#define PARTS_MAX 16u /* of 256 bytes, at a time */
#define RING(field) (XEN_CONSOLE_PAGE + offsetof(struct xencons_interface, field))
#define IN_SIZE sizeof(((struct xencons_interface *)0)->in)
#define OUT_SIZE sizeof(((struct xencons_interface *)0)->out)

static enum cleave_status drain(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    struct space *space = vcpu->domain->space;
    XENCONS_RING_IDX at[2]; /* out_cons, out_prod */
    char text[256];
    uint64_t done;

    enum cleave_status status =
        space_read(ctx, space, gpa(RING(out_cons)), at, sizeof(at), &vcpu->wait);
    if (status != CLEAVE_OK || at[0] == at[1]) {
        return status;
    }
    if (at[1] - at[0] > OUT_SIZE) {
        at[0] = at[1] - (uint32_t)OUT_SIZE; /* the guest's own fault: what is left in the ring */
    }
    while (at[0] != at[1] && status == CLEAVE_OK) {
        uint32_t from = at[0] & (OUT_SIZE - 1), part = at[1] - at[0];
        part = part < OUT_SIZE - from ? part : (uint32_t)OUT_SIZE - from;
        part = part < sizeof(text) ? part : (uint32_t)sizeof(text);
        status = space_read(ctx, space, gpa(RING(out) + from), text, part, &vcpu->wait);
        if (status == CLEAVE_OK) {
            at[0] += part;
            status = space_write(ctx, space, gpa(RING(out_cons)), &at[0], sizeof(at[0]),
                                 &vcpu->wait, &done);
        }
        if (status == CLEAVE_OK) {
            terminal_write(ctx, vcpu->domain, text, part);
        }
    }
    return status;
}

/* Of two vcpus that drain it at the same time, the later could put `out_cons` back. */
enum cleave_status xen_console_drain(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    struct xen_domain *xen = vcpu->domain->xen;
    if (!vcpu->domain->has_window) {
        return CLEAVE_OK;
    }
    if (!klock_try(&xen->ring)) {
        return CLEAVE_AGAIN;
    }
    enum cleave_status status = drain(ctx, vcpu);
    klock_release(&xen->ring);
    if (status == CLEAVE_OK && xen->input_size != 0) {
        uint32_t number = xen->port[XEN_CONSOLE_PORT].vcpu;
        vcpu_attend(vcpu->domain->vcpu[number]); /* it may have made room for what is typed */
    }
    return status;
}

/* The first `count` typed characters were taken. The lock is held. */
static void forget_typed(struct xen_domain *xen, uint32_t count)
{
    xen->input_size -= count;
    for (uint32_t i = 0; i < xen->input_size; i++) {
        xen->input[i] = xen->input[i + count];
    }
}

static enum cleave_status type(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    struct xen_domain *xen = vcpu->domain->xen;
    struct space *space = vcpu->domain->space;
    XENCONS_RING_IDX at[2]; /* in_cons, in_prod */
    uint32_t typed = 0;
    uint64_t done;

    enum cleave_status status =
        space_read(ctx, space, gpa(RING(in_cons)), at, sizeof(at), &vcpu->wait);
    while (status == CLEAVE_OK && typed < xen->input_size && at[1] - at[0] < IN_SIZE) {
        status = space_write(ctx, space, gpa(RING(in) + (at[1] & (IN_SIZE - 1))),
                             &xen->input[typed], 1, &vcpu->wait, &done);
        at[1]++;
        typed++;
    }
    if (status == CLEAVE_OK && typed != 0) {
        status =
            space_write(ctx, space, gpa(RING(in_prod)), &at[1], sizeof(at[1]), &vcpu->wait, &done);
    }
    if (status != CLEAVE_OK || typed == 0) {
        return status; /* a ring that is full: until the guest says that it has read */
    }
    klock_take(&xen->lock);
    forget_typed(xen, typed);
    klock_release(&xen->lock);
    xen_raise(vcpu, XEN_CONSOLE_PORT);
    return CLEAVE_OK;
}

/* The port may go to another vcpu meanwhile: only one of them takes what was typed. */
enum cleave_status xen_console_type(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    struct xen_domain *xen = vcpu->domain->xen;
    if (!klock_try(&xen->ring)) {
        __atomic_store_n(&vcpu->attention, 1, __ATOMIC_SEQ_CST);
        return CLEAVE_OK;
    }
    enum cleave_status status = type(ctx, vcpu);
    klock_release(&xen->ring);
    return status;
}

uint32_t xen_type(struct domain *domain, const char *bytes, uint32_t count)
{
    struct xen_domain *xen = domain->xen;
    uint32_t taken = 0;
    if (xen == NULL || !domain->has_window || domain->snapshot) {
        return 0;
    }
    klock_take(&xen->lock);
    while (taken < count && xen->input_size < XEN_INPUT_SIZE) {
        xen->input[xen->input_size++] = (uint8_t)bytes[taken++];
    }
    uint32_t number = xen->port[XEN_CONSOLE_PORT].vcpu;
    klock_release(&xen->lock);
    if (taken != 0 && domain->control) {
        xen_raise_virq(domain, VIRQ_CONSOLE);
    } else if (taken != 0 && number < domain->vcpu_count) {
        vcpu_attend(domain->vcpu[number]);
    }
    return taken;
}

/* Typed characters of a control domain, which has no ring. */
static int64_t read_typed(struct xen_call *call)
{
    struct xen_domain *xen = call->xen;
    uint32_t room = (uint32_t)call->argument[1];
    uint8_t taken[XEN_INPUT_SIZE];

    if (!call->domain->control) {
        return 0;
    }
    klock_take(&xen->lock);
    uint32_t count = xen->input_size < room ? xen->input_size : room;
    __builtin_memcpy(taken, xen->input, count);
    klock_release(&xen->lock);
    /* Only this one takes characters away; a sibling's call at the same time gets the same. */
    int64_t result = count != 0 ? xen_put(call, call->argument[2], taken, count) : 0;
    if (result != 0) {
        return result;
    }
    klock_take(&xen->lock);
    forget_typed(xen, count < xen->input_size ? count : xen->input_size);
    klock_release(&xen->lock);
    return count;
}

/* The arguments say what is left, for when it is executed again. */
static int64_t write_text(struct xen_call *call)
{
    char text[256];
    uint64_t *count = &call->argument[1], *at = &call->argument[2], part;

    *count = (uint32_t)*count;
    for (unsigned parts = 0; *count != 0; *count -= part, *at += part) {
        if (parts++ == PARTS_MAX) {
            return XEN_AGAIN;
        }
        part = *count < sizeof(text) ? *count : sizeof(text);
        int64_t result = xen_get(call, *at, text, part);
        if (result != 0) {
            return result;
        }
        terminal_write(call->ctx, call->domain, text, (uint32_t)part);
    }
    return 0;
}

int64_t xen_console_io(struct xen_call *call)
{
    switch (call->argument[0]) {
    case CONSOLEIO_read:
        return read_typed(call);
    case CONSOLEIO_write:
        return write_text(call);
    default:
        return xen_unknown(call);
    }
}
