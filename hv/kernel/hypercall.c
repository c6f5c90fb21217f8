/* SPDX-License-Identifier: BSD-2-Clause */
/* Decodes hypercalls and finishes them; see hypercall.h. */
#include "hypercall.h"

#include "calls.h"
#include "grant.h"
#include "guest.h"
#include "sched.h"

#define EPERM_RESULT ((uint64_t)-1)   /* -EPERM */
#define ENOSYS_RESULT ((uint64_t)-38) /* -ENOSYS, as Xen answers a call it does not know */

#define OP_RIGHTS 5u
enum {
    OP_DOMAIN = 1, /* the arguments begin with a domain id */
    OP_RESULT = 2, /* the structure goes back to the guest */
    OP_ENDED = 4,  /* also for a domain that has ended */
    OP_ENDING = 8, /* ends it: does not use its space meanwhile */
    OP_ONCE = 16,  /* not begun where the structure cannot go back: it could not be taken back */
    /* Also by a grant of this right. */
    OP_BY_FORK = CLEAVE_RIGHT_FORK << OP_RIGHTS,
    OP_BY_LOOK = CLEAVE_RIGHT_LOOK << OP_RIGHTS,
    OP_BY_HOLD = CLEAVE_RIGHT_HOLD << OP_RIGHTS
};

#define RESERVED(type)                                                                             \
    offsetof(struct cleave_##type, reserved), sizeof(((struct cleave_##type *)0)->reserved)

#define NOT_RESERVED 0, 0

_Static_assert(sizeof(struct cleave_create) <= RESULT_KEPT &&
                   sizeof(struct cleave_snapshot) <= RESULT_KEPT &&
                   sizeof(struct cleave_wait) <= RESULT_KEPT &&
                   sizeof(struct cleave_event) <= RESULT_KEPT &&
                   sizeof(struct cleave_terminal) <= RESULT_KEPT &&
                   sizeof(struct cleave_pool_create) <= RESULT_KEPT &&
                   sizeof(struct cleave_create_in) <= RESULT_KEPT &&
                   sizeof(struct cleave_pool_resize) <= RESULT_KEPT,
               "copies of a vcpu keep what OP_ONCE gives");

static const struct {
    op_t *perform;
    uint16_t size;
    uint16_t flags;
    uint16_t reserved, reserved_size; /* where bytes must be zero */
} operations[CLEAVE_OPS] = {
    [CLEAVE_OP_VERSION] = {op_version, sizeof(struct cleave_version), OP_RESULT, NOT_RESERVED},
    [CLEAVE_OP_CONSOLE] = {op_console, sizeof(struct cleave_console), 0, RESERVED(console)},
    [CLEAVE_OP_EXIT] = {op_exit, sizeof(struct cleave_exit), 0, NOT_RESERVED},
    [CLEAVE_OP_ERROR] = {op_error, sizeof(struct cleave_error), OP_RESULT, NOT_RESERVED},
    [CLEAVE_OP_CREATE] = {op_create, sizeof(struct cleave_create), OP_RESULT | OP_ONCE,
                          NOT_RESERVED},
    [CLEAVE_OP_MAP] = {op_map, sizeof(struct cleave_map), OP_DOMAIN, RESERVED(map)},
    [CLEAVE_OP_UNMAP] = {op_unmap, sizeof(struct cleave_map), OP_DOMAIN, RESERVED(map)},
    [CLEAVE_OP_PROTECT] = {op_protect, sizeof(struct cleave_map), OP_DOMAIN, RESERVED(map)},
    [CLEAVE_OP_COPY] = {op_copy, sizeof(struct cleave_copy), OP_DOMAIN | OP_ENDED, NOT_RESERVED},
    [CLEAVE_OP_START] = {op_start, sizeof(struct cleave_start), OP_DOMAIN, NOT_RESERVED},
    [CLEAVE_OP_PAUSE] = {op_pause, sizeof(struct cleave_domain), OP_DOMAIN | OP_BY_HOLD,
                         RESERVED(domain)},
    [CLEAVE_OP_UNPAUSE] = {op_unpause, sizeof(struct cleave_domain), OP_DOMAIN | OP_BY_HOLD,
                           RESERVED(domain)},
    [CLEAVE_OP_FORK] = {op_fork, sizeof(struct cleave_fork), OP_DOMAIN | OP_BY_FORK, NOT_RESERVED},
    [CLEAVE_OP_SNAPSHOT] = {op_snapshot, sizeof(struct cleave_snapshot),
                            OP_DOMAIN | OP_RESULT | OP_ONCE, NOT_RESERVED},
    [CLEAVE_OP_RESET] = {op_reset, sizeof(struct cleave_domain), OP_DOMAIN, RESERVED(domain)},
    [CLEAVE_OP_DESTROY] = {op_destroy, sizeof(struct cleave_domain), OP_DOMAIN | OP_ENDING,
                           RESERVED(domain)},
    [CLEAVE_OP_WAIT] = {op_wait, sizeof(struct cleave_wait), OP_RESULT | OP_ONCE, NOT_RESERVED},
    [CLEAVE_OP_STAT] = {op_stat, sizeof(struct cleave_stat),
                        OP_DOMAIN | OP_RESULT | OP_ENDED | OP_BY_LOOK, NOT_RESERVED},
    [CLEAVE_OP_AUDIT] = {op_audit, sizeof(struct cleave_audit), OP_RESULT, NOT_RESERVED},
    [CLEAVE_OP_LOOKUP] = {op_lookup, sizeof(struct cleave_lookup),
                          OP_DOMAIN | OP_RESULT | OP_ENDED | OP_BY_LOOK, NOT_RESERVED},
    [CLEAVE_OP_COLLAPSE] = {op_collapse, sizeof(struct cleave_collapse), OP_DOMAIN, NOT_RESERVED},
    [CLEAVE_OP_NOTIFY] = {op_notify, sizeof(struct cleave_notify), OP_DOMAIN, NOT_RESERVED},
    [CLEAVE_OP_EVENT] = {op_event, sizeof(struct cleave_event), OP_RESULT | OP_ONCE, NOT_RESERVED},
    [CLEAVE_OP_VERDICT] = {op_verdict, sizeof(struct cleave_verdict), 0, RESERVED(verdict)},
    [CLEAVE_OP_YIELD] = {op_yield, 0, 0, NOT_RESERVED},
    [CLEAVE_OP_LIST] = {op_list, sizeof(struct cleave_list), OP_RESULT, NOT_RESERVED},
    [CLEAVE_OP_RENAME] = {op_rename, sizeof(struct cleave_rename), OP_DOMAIN | OP_ENDED,
                          RESERVED(rename)},
    [CLEAVE_OP_GRANT] = {op_grant, sizeof(struct cleave_grant), OP_DOMAIN, RESERVED(grant)},
    [CLEAVE_OP_TERMINAL] = {op_terminal, sizeof(struct cleave_terminal),
                            OP_DOMAIN | OP_RESULT | OP_ENDED | OP_ONCE, RESERVED(terminal)},
    [CLEAVE_OP_WINDOW] = {op_window, sizeof(struct cleave_window), OP_DOMAIN, RESERVED(window)},
    [CLEAVE_OP_POOL_CREATE] = {op_pool_create, sizeof(struct cleave_pool_create),
                               OP_RESULT | OP_ONCE, NOT_RESERVED},
    [CLEAVE_OP_POOL_LIST] = {op_pool_list, sizeof(struct cleave_pool_list), OP_RESULT,
                             RESERVED(pool_list)},
    [CLEAVE_OP_POOL_DELETE] = {op_pool_delete, sizeof(struct cleave_pool_delete), 0, NOT_RESERVED},
    [CLEAVE_OP_CREATE_IN] = {op_create_in, sizeof(struct cleave_create_in), OP_RESULT | OP_ONCE,
                             RESERVED(create_in)},
    [CLEAVE_OP_POOL_RESIZE] = {op_pool_resize, sizeof(struct cleave_pool_resize),
                               OP_RESULT | OP_ONCE, NOT_RESERVED},
};

struct operands {
    uint64_t op, arguments, size;
};

static struct operands operands_of(const struct hvm_registers *regs, bool code64)
{
    if (code64) {
        return (struct operands){regs->rdi, regs->rsi, regs->rdx};
    }
    return (struct operands){(uint32_t)regs->rbx, (uint32_t)regs->rcx, (uint32_t)regs->rdx};
}

/* May the caller do this to the domain: as who commands it, or by a grant? */
static bool may(const struct call *call, const struct domain *domain, unsigned flags)
{
    uint32_t right = flags >> OP_RIGHTS;
    return domain_commands(call->caller, domain) ||
           (right != 0 && (grant_rights(call->caller, domain) & right) != 0);
}

/* Finds the domain that the arguments begin with and to which the caller may do this. */
static enum cleave_status find_domain(struct call *call, unsigned flags)
{
    uint32_t id = call->args.domain.domain;
    struct domain *domain = domain_get(id == CLEAVE_DOMAIN_SELF ? call->caller->id : id);
    if (domain == NULL || !may(call, domain, flags)) {
        domain_put(call->ctx, domain);
        return mm_fail(call->ctx, CLEAVE_NO_CAP, "domain", id, 1, 0);
    }
    call->domain = domain;
    if (flags & OP_ENDING) {
        return CLEAVE_OK;
    }
    call->space = domain_use(domain);
    if (call->space == NULL || (!(flags & OP_ENDED) && domain->state == CLEAVE_STATE_ENDED)) {
        return mm_fail(call->ctx, CLEAVE_DYING, "domain", id, 1, 0);
    }
    return CLEAVE_OK;
}

static enum cleave_status check_reserved(struct call *call, uint64_t op)
{
    uint64_t value = 0;
    const unsigned char *arguments = (const unsigned char *)&call->args;
    __builtin_memcpy(&value, arguments + operations[op].reserved, operations[op].reserved_size);
    return value == 0 ? CLEAVE_OK : mm_fail(call->ctx, CLEAVE_INVALID, "reserved", value, 0, 0);
}

void call_settle(struct call *call, uint64_t op, enum cleave_status status)
{
    struct vcpu *vcpu = call->vcpu;
    bool stops = status == CLEAVE_AGAIN || status == CLEAVE_WAIT;

    if (vcpu->stopped_in != NULL && !(stops && call->domain == NULL)) {
        bool same = vcpu->stopped_in == call->domain && vcpu->stopped_op == op;
        if (!same || status == CLEAVE_BUSY) {
            vcpu_abandon(call->ctx, vcpu);
        } else if (!stops) {
            domain_put(call->ctx, vcpu->stopped_in);
            vcpu->stopped_in = NULL;
        }
    }
    if (status == CLEAVE_AGAIN && call->space != NULL && call->space->op != OP_NONE &&
        vcpu->stopped_in == NULL) {
        vcpu->stopped_in = domain_get(call->domain->id);
        vcpu->stopped_op = (uint8_t)op;
    }
}

/* What was read can be written back, and is. */
static enum cleave_status check_writable(struct call *call, uint64_t arguments, uint64_t size)
{
    return guest_write(call->ctx, call->vcpu, arguments, &call->args, size, "arguments");
}

/* Arguments in, operation, results kept in the vcpu for writing. */
static enum cleave_status perform(struct call *call, const struct operands *operands)
{
    struct mm_ctx *ctx = call->ctx;
    if (operands->op >= CLEAVE_OPS || operations[operands->op].perform == NULL) {
        return mm_fail(ctx, CLEAVE_INVALID, "operation", operands->op, 0, CLEAVE_OPS - 1);
    }
    uint64_t size = operations[operands->op].size;
    unsigned flags = operations[operands->op].flags;
    if (operands->size != size) {
        return mm_fail(ctx, CLEAVE_COUNT, "size", operands->size, size, size);
    }
    enum cleave_status status =
        guest_read(ctx, call->vcpu, operands->arguments, &call->args, size, "arguments");
    if (status == CLEAVE_OK) {
        status = check_reserved(call, operands->op);
    }
    if (status == CLEAVE_OK && (flags & OP_DOMAIN)) {
        status = find_domain(call, flags);
    }
    if (status == CLEAVE_OK && (flags & OP_ONCE)) {
        status = check_writable(call, operands->arguments, size);
    }
    if (status == CLEAVE_OK) {
        status = operations[operands->op].perform(call);
    }
    if (status == CLEAVE_BUSY && call->space != NULL &&
        (space_help_unmap(ctx, call->space) || space_help_convert(ctx, call->space))) {
        status = CLEAVE_AGAIN;
    }
    call_settle(call, operands->op, status);
    if (call->space != NULL) {
        domain_unuse(call->domain);
    }
    domain_put(ctx, call->domain);
    if (status == CLEAVE_OK && (flags & OP_RESULT)) {
        call->vcpu->result_size = (uint16_t)size;
        __builtin_memcpy(&call->vcpu->result, &call->args, size);
    }
    return status;
}

static void note_error(struct mm_ctx *ctx, struct vcpu *vcpu, uint64_t op,
                       enum cleave_status status)
{
    vcpu->error = (struct cleave_error){.status = status,
                                        .operation = (uint32_t)op,
                                        .value = ctx->error.value,
                                        .low = ctx->error.low,
                                        .high = ctx->error.high};
    const char *name = ctx->error.argument != NULL ? ctx->error.argument : "";
    for (unsigned i = 0; i < sizeof(vcpu->error.argument) - 1 && name[i] != '\0'; i++) {
        vcpu->error.argument[i] = name[i];
    }
}

static enum cleave_status cleave_call(struct mm_ctx *ctx, struct vcpu *vcpu,
                                      const struct hvm_exit *exit, bool code64, struct call *call)
{
    struct operands operands = operands_of(&vcpu->hvm.regs, code64);
    enum cleave_status status = CLEAVE_OK;

    *call = (struct call){.ctx = ctx, .vcpu = vcpu, .caller = vcpu->domain, .exit = exit};
    sched_expect(vcpu);
    if (vcpu->result_size == 0) { /* else only the results are still to be written */
        status = perform(call, &operands);
    }
    if (status == CLEAVE_OK && vcpu->result_size != 0) {
        status = guest_write(ctx, vcpu, operands.arguments, &vcpu->result, vcpu->result_size,
                             "arguments");
        if (status == CLEAVE_QUOTA) { /* done already: it stops as a write of the guest's does */
            vcpu->sleep = SLEEP_QUOTA;
            status = CLEAVE_WAIT;
        }
        if (status == CLEAVE_WAIT || status == CLEAVE_AGAIN) {
            return status;
        }
    }
    if (status == CLEAVE_WAIT || status == CLEAVE_AGAIN) {
        return status;
    }
    vcpu->result_size = 0;
    vcpu->wait.outcome = WAIT_RETRY; /* what was refused was refused to this call */
    if (status != CLEAVE_OK) {
        note_error(ctx, vcpu, operands.op, status);
    }
    return status;
}

void hypercall(struct mm_ctx *ctx, struct vcpu *vcpu, const struct hvm_exit *exit)
{
    struct call call;
    uint64_t cr0, cr3, cr4, efer, result;
    unsigned cpl;
    bool code64;

    vcpu->hypercalls++;
    guest_forget_walk(vcpu);
    hvm->mode(&vcpu->hvm, &cr0, &cr3, &cr4, &efer, &cpl, &code64);
    uint64_t number = code64 ? vcpu->hvm.regs.rax : (uint32_t)vcpu->hvm.regs.rax;
    call.set_results = false;
    if (cpl != 0) {
        result = number == CLEAVE_HYPERCALL ? CLEAVE_DENIED : EPERM_RESULT;
    } else if (number != CLEAVE_HYPERCALL && code64) {
        if (xen_hypercall(ctx, vcpu, number)) {
            hvm->skip(&vcpu->hvm, exit);
        }
        return;
    } else if (number != CLEAVE_HYPERCALL) {
        result = ENOSYS_RESULT; /* Xen's structures are laid out otherwise there */
    } else {
        ctx->budget = HYPERCALL_BUDGET;
        enum cleave_status status = cleave_call(ctx, vcpu, exit, code64, &call);
        ctx->budget = UINT64_MAX;
        if (status == CLEAVE_WAIT && vcpu->sleep == SLEEP_NONE) {
            vcpu->sleep = SLEEP_CORE;
        }
        if (status == CLEAVE_WAIT || status == CLEAVE_AGAIN) {
            return; /* the same instruction again */
        }
        result = status;
    }
    vcpu->hvm.regs.rax = result;
    if (call.set_results) {
        vcpu->hvm.regs.rdx = call.results;
    }
    hvm->skip(&vcpu->hvm, exit);
}
