/* SPDX-License-Identifier: BSD-2-Clause */
/* Which file performs which hypercall, and how calls reach guest memory; see calls.h. */
#include "calls.h"

#include <xen/errno.h>
#include <xen/xen.h>

#include "guest.h"
#include "sched.h"

static xen_op_t *const operations[] = {
    [__HYPERVISOR_platform_op] = xen_platform_op,
    [__HYPERVISOR_memory_op] = xen_memory_op,
    [__HYPERVISOR_multicall] = xen_multicall,
    [__HYPERVISOR_xen_version] = xen_version_op,
    [__HYPERVISOR_console_io] = xen_console_io,
    [__HYPERVISOR_vcpu_op] = xen_vcpu_op,
    [__HYPERVISOR_sched_op] = xen_sched_op,
    [__HYPERVISOR_event_channel_op] = xen_event_channel_op,
    [__HYPERVISOR_hvm_op] = xen_hvm_op,
    [__HYPERVISOR_sysctl] = xen_sysctl,
    [__HYPERVISOR_domctl] = xen_domctl,
    [__HYPERVISOR_arch_1] = xen_domctl_again,
};
#define OPERATIONS (sizeof(operations) / sizeof(operations[0]))

uint32_t xen_domid(const struct domain *domain) { return domain->control ? 0 : domain->id; }

int64_t xen_status(enum cleave_status status)
{
    if (status == CLEAVE_OK) {
        return 0;
    }
    if (status == CLEAVE_AGAIN || status == CLEAVE_WAIT) {
        return status == CLEAVE_WAIT ? XEN_WAIT : XEN_AGAIN;
    }
    if (status == CLEAVE_QUOTA) {
        return XEN_QUOTA;
    }
    return status == CLEAVE_NO_MEMORY ? -XEN_ENOMEM : -XEN_EFAULT;
}

int64_t xen_get(struct xen_call *call, uint64_t at, void *to, uint64_t size)
{
    return xen_status(guest_read(call->ctx, call->vcpu, at, to, size, "argument"));
}

int64_t xen_put(struct xen_call *call, uint64_t at, const void *from, uint64_t size)
{
    return xen_status(guest_write(call->ctx, call->vcpu, at, from, size, "argument"));
}

int64_t xen_unknown(struct xen_call *call)
{
    __atomic_fetch_add(&call->xen->unknown, 1, __ATOMIC_RELAXED);
    return -XEN_ENOSYS;
}

/* --- The domain's state ----------------------------------------------------------------------- */

void xen_vcpu_init(struct vcpu *vcpu) { vcpu->xen = (struct xen_vcpu){.info = XEN_NOWHERE}; }

void xen_vcpu_restart(struct vcpu *vcpu)
{
    struct xen_vcpu *xen = &vcpu->xen;
    xen->deadline = xen->poll_until = 0;
    xen->polling = 0;
    vcpu_timer(vcpu, 0);
}

static const struct xen_domain fresh = {
    .shared_info = XEN_NOWHERE,
    .port = {[XEN_CONSOLE_PORT] = {.kind = XEN_PORT_CONSOLE}},
};

enum cleave_status xen_make(struct mm_ctx *ctx, struct domain *domain)
{
    pfn_t frame;
    if (__atomic_load_n(&domain->xen, __ATOMIC_ACQUIRE) != NULL) {
        return CLEAVE_OK;
    }
    enum cleave_status status = object_alloc(ctx, &domain->space->payer, &frame);
    if (status != CLEAVE_OK) {
        return status;
    }
    struct xen_domain *xen = frame_address(frame), *none = NULL;
    *xen = fresh;
    /* Two vcpus may make their first calls at the same time. */
    if (!__atomic_compare_exchange_n(&domain->xen, &none, xen, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        object_free(ctx, frame);
    }
    return CLEAVE_OK;
}

static void give_back(struct mm_ctx *ctx, struct xen_domain **xen)
{
    if (*xen != NULL) {
        object_free(ctx, object_frame(*xen));
        *xen = NULL;
    }
}

/* A copy of `from`, which may be null, for `payer`. */
static enum cleave_status copy(struct mm_ctx *ctx, struct payer *payer, struct xen_domain *from,
                               struct xen_domain **to)
{
    pfn_t frame;
    if (from == NULL) {
        return CLEAVE_OK;
    }
    enum cleave_status status = object_alloc(ctx, payer, &frame);
    if (status != CLEAVE_OK) {
        return status;
    }
    *to = frame_address(frame);
    klock_take(&from->lock);
    port_copy_pages(*to, from, 1);
    klock_release(&from->lock);
    (*to)->lock = (struct klock){0};
    return CLEAVE_OK;
}

enum cleave_status xen_fork(struct mm_ctx *ctx, struct domain *from, struct domain *to)
{
    enum cleave_status status = copy(ctx, &to->space->payer, from->xen, &to->xen);
    if (status == CLEAVE_OK && to->xen != NULL) {
        to->xen->input_size = to->xen->lost = to->xen->unknown = 0;
        __builtin_memset(to->xen->calls, 0, sizeof(to->xen->calls));
        /* The wall clock is right as it is, unless the clock was moved: clock_fork() sees to that.
         */
    }
    return status;
}

enum cleave_status xen_keep(struct mm_ctx *ctx, struct domain *domain)
{
    return copy(ctx, &domain->space->payer, domain->xen, &domain->saved_xen);
}

void xen_reset(struct domain *domain)
{
    struct xen_domain *xen = domain->xen;
    const struct xen_domain *base = domain->saved_xen != NULL ? domain->saved_xen : &fresh;
    const size_t from = offsetof(struct xen_domain, unknown);
    if (xen == NULL) {
        return;
    }
    klock_take(&xen->lock); /* somebody may be typing */
    __builtin_memcpy((char *)xen + from, (const char *)base + from, sizeof(*xen) - from);
    klock_release(&xen->lock);
    xen_refresh(domain);
}

bool xen_as_kept(const struct domain *domain)
{
    const struct xen_domain *is = domain->xen;
    const struct xen_domain *was = domain->saved_xen != NULL ? domain->saved_xen : &fresh;
    if (is == NULL) {
        return was == &fresh;
    }
    return is->vector == was->vector && is->shared_info == was->shared_info &&
           __builtin_memcmp(is->param, was->param, sizeof(is->param)) == 0 &&
           __builtin_memcmp(is->port, was->port, sizeof(is->port)) == 0;
}

void xen_free(struct mm_ctx *ctx, struct domain *domain)
{
    give_back(ctx, &domain->xen);
    give_back(ctx, &domain->saved_xen);
}

void xen_refresh(struct domain *domain)
{
    if (domain->xen != NULL) {
        __atomic_store_n(&domain->xen->refresh, 1, __ATOMIC_RELEASE);
    }
}

/* --- A call ----------------------------------------------------------------------------------- */

int64_t xen_operate(struct xen_call *call)
{
    uint64_t number = call->number;
    if (number < XEN_CALLS) {
        __atomic_fetch_add(&call->xen->calls[number], 1, __ATOMIC_RELAXED);
    }
    xen_op_t *const op = number < OPERATIONS ? operations[number] : NULL;
    return op != NULL ? op(call) : xen_unknown(call);
}

bool xen_hypercall(struct mm_ctx *ctx, struct vcpu *vcpu, uint64_t number)
{
    struct hvm_registers *regs = &vcpu->hvm.regs;
    struct xen_call call = {
        .ctx = ctx,
        .vcpu = vcpu,
        .domain = vcpu->domain,
        .number = number,
        .argument = {regs->rdi, regs->rsi, regs->rdx, regs->r10, regs->r8, regs->r9}};

    if ((number >= OPERATIONS || operations[number] == NULL) && vcpu->domain->xen == NULL) {
        regs->rax = (uint64_t)-XEN_ENOSYS; /* a guest that is not one of Xen's stays as it is */
        return true;
    }
    sched_expect(vcpu);
    if (xen_make(ctx, vcpu->domain) != CLEAVE_OK) {
        regs->rax = (uint64_t)-XEN_ENOMEM;
        return true;
    }
    call.xen = vcpu->domain->xen;
    int64_t result = xen_operate(&call);
    if (result == XEN_WAIT && vcpu->sleep == SLEEP_NONE) {
        vcpu->sleep = SLEEP_CORE;
    }
    if (result == XEN_QUOTA) {
        vcpu->sleep = SLEEP_QUOTA;
    }
    if (xen_repeats(result)) {
        regs->rax = call.number;
        regs->rdi = call.argument[0];
        regs->rsi = call.argument[1];
        regs->rdx = call.argument[2];
        return false;
    }
    regs->rax = (uint64_t)result;
    return true;
}
