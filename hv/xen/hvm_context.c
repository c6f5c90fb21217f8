/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state of a domain's vcpus as Xen's HVM context, read and written by the control domain; each
 * vcpu's part is in hvm_records.c. The domain stands still meanwhile and its `busy` is held. What
 * is written is first read as a whole into frames of the caller's and checked there.
 */
#include "control.h"

#include <stddef.h>

#include <xen/errno.h>
#include <xen/xen.h>

#include "hvm_records.h"
#include "sched.h"

#define DESCRIPTOR_SIZE ((uint32_t)sizeof(struct hvm_save_descriptor))
#define PDPT_MASK UINT64_C(0xffffffe0)

struct context {
    struct xen_call *call;
    struct domain *domain;
    uint64_t now;                                /* TSC at which all of it is */
    struct context_vcpu *vcpu[CLEAVE_VCPUS_MAX]; /* written: a frame each; null: not mentioned */
};
_Static_assert(sizeof(struct context_vcpu) <= PAGE_SIZE, "one frame");

/* --- Standing still --------------------------------------------------------------------------- */

static int64_t hold(struct xen_call *call, struct domain *domain, struct context *context)
{
    if (domain_use(domain) == NULL) {
        return -XEN_ESRCH;
    }
    bool mine = klock_try(&domain->busy);
    if (!mine || domain->resetting) {
        if (mine) {
            klock_release(&domain->busy);
        }
        domain_unuse(domain);
        return mine ? -XEN_EBUSY : XEN_AGAIN;
    }
    domain_stop(call->ctx, domain, NULL);
    *context = (struct context){.call = call, .domain = domain, .now = domain->clock_stopped};
    if (context->now == 0) {
        context->now = read_tsc();
    }
    return 0;
}

static void let_go(struct context *context)
{
    domain_resume(context->domain);
    klock_release(&context->domain->busy);
    domain_unuse(context->domain);
}

/* What is due to the vcpu's TSC when it runs again; see guest_clock.h. */
static uint64_t due(const struct vcpu *vcpu)
{
    return __atomic_load_n(&vcpu->clock_shift, __ATOMIC_SEQ_CST);
}

/* The vcpu as it is; `xsave` is its own area. One that has no state: as it would start. */
static void look(const struct context *context, unsigned number, struct context_vcpu *to)
{
    struct vcpu *vcpu = context->domain->vcpu[number];
    *to = (struct context_vcpu){.on = vcpu->started,
                                .tsc = context->now + context->domain->tsc_offset,
                                .xsave = vcpu->hvm.xsave,
                                .lapic = vcpu->lapic,
                                .mtrr = vcpu->mtrr};
    if (!to->on) {
        hvm_state_start(&to->state, 0, 0);
        return;
    }
    if (context->domain->snapshot) {
        to->state = vcpu->saved;
        to->xsave = frame_address(vcpu->saved_xsave);
    } else {
        hvm->vcpu_save(&vcpu->hvm, &to->state);
    }
    lapic_set_cr8(&to->lapic, to->state.cr8);
    to->tsc = context->now + to->state.tsc_offset - due(vcpu);
    to->adjust = to->tsc - context->now - context->domain->tsc_offset;
}

/* --- Reading ---------------------------------------------------------------------------------- */

/* The header tells what the records were made for; nothing depends on it but magic and version. */
static struct hvm_save_header header(void)
{
    return (struct hvm_save_header){.magic = HVM_FILE_MAGIC,
                                    .version = HVM_FILE_VERSION,
                                    .cpuid = cpuid(1, 0).eax,
                                    .gtsc_khz = (uint32_t)(tsc_per_second / 1000)};
}

/* One record behind its descriptor to `*at` in the caller's buffer, which goes on behind it. A null
 * `bytes`: only that. */
static int64_t put_record(struct xen_call *call, uint64_t *at, uint16_t type, unsigned instance,
                          const void *bytes, uint32_t length)
{
    const struct hvm_save_descriptor descriptor = {type, (uint16_t)instance, length};
    uint64_t to = *at;
    *at += DESCRIPTOR_SIZE + length;
    if (bytes == NULL) {
        return 0;
    }
    int64_t result = xen_put(call, to, &descriptor, DESCRIPTOR_SIZE);
    return result == 0 && length != 0 ? xen_put(call, to + DESCRIPTOR_SIZE, bytes, length) : result;
}

/* All of it to `*at`, which goes on behind it; or how long it is. */
static int64_t put_all(struct context *context, uint64_t *at, bool only_size)
{
    const struct hvm_save_header head = header();
    struct context_vcpu vcpu;
    union context_record record;
    uint16_t type;
    int64_t result = put_record(context->call, at, HVM_SAVE_CODE(HEADER), 0,
                                only_size ? NULL : &head, sizeof(head));
    for (unsigned t = 0; (type = context_type(t)) != 0; t++) {
        for (unsigned i = 0; i < context->domain->vcpu_count && result == 0; i++) {
            look(context, i, &vcpu);
            uint32_t length = context_length(&vcpu, type);
            if (length == 0) {
                continue;
            }
            if (!only_size) {
                context_encode(&vcpu, type, &record);
            }
            result =
                put_record(context->call, at, type, i, only_size ? NULL : record.bytes, length);
        }
    }
    return result == 0
               ? put_record(context->call, at, HVM_SAVE_CODE(END), 0, only_size ? NULL : &head, 0)
               : result;
}

int64_t xen_get_context(struct xen_call *call, struct domain *domain,
                        struct xen_domctl_hvmcontext *op)
{
    struct context context;
    uint64_t size = 0, at = (uint64_t)op->buffer.p;
    int64_t result = hold(call, domain, &context);
    if (result != 0) {
        return result;
    }
    result = put_all(&context, &size, true);
    if (result == 0 && at != 0) {
        result = op->size < size ? -XEN_ENOSPC : put_all(&context, &at, false);
    }
    let_go(&context);
    op->size = (uint32_t)size;
    return result;
}

/* One record, without a descriptor. */
int64_t xen_get_record(struct xen_call *call, struct domain *domain,
                       struct xen_domctl_hvmcontext_partial *op)
{
    struct context context;
    struct context_vcpu vcpu;
    union context_record record;
    uint64_t at = (uint64_t)op->buffer.p;
    if (!context_type_known(op->type)) {
        return -XEN_EINVAL;
    }
    int64_t result = hold(call, domain, &context);
    if (result != 0) {
        return result;
    }
    uint32_t length = 0;
    if (op->instance < domain->vcpu_count) {
        look(&context, op->instance, &vcpu);
        length = context_length(&vcpu, (uint16_t)op->type);
    }
    if (length == 0) {
        result = op->instance < domain->vcpu_count ? -XEN_ENODATA : -XEN_ENOENT;
    } else if (at != 0 && op->bufsz < length) {
        result = -XEN_ENOBUFS;
    } else if (at != 0) {
        context_encode(&vcpu, (uint16_t)op->type, &record);
        result = xen_put(call, at, record.bytes, length);
    }
    let_go(&context);
    op->bufsz = length;
    return result;
}

static void fill_registers(const struct context_vcpu *vcpu, struct vcpu_guest_context *to)
{
    const struct hvm_state *state = &vcpu->state;
    const struct hvm_registers *regs = &state->regs;
    const struct hvm_segment *segment = state->segment;
    bool kernel = (segment[SEG_SS].attributes >> 5 & 3) == 0;
    *to = (struct vcpu_guest_context){
        .flags = VGCF_i387_valid | VGCF_online | (kernel ? VGCF_in_kernel : 0),
        .user_regs = {.r15 = regs->r15,
                      .r14 = regs->r14,
                      .r13 = regs->r13,
                      .r12 = regs->r12,
                      .rbp = regs->rbp,
                      .rbx = regs->rbx,
                      .r11 = regs->r11,
                      .r10 = regs->r10,
                      .r9 = regs->r9,
                      .r8 = regs->r8,
                      .rax = regs->rax,
                      .rcx = regs->rcx,
                      .rdx = regs->rdx,
                      .rsi = regs->rsi,
                      .rdi = regs->rdi,
                      .rip = regs->rip,
                      .rflags = regs->rflags,
                      .rsp = regs->rsp,
                      .cs = segment[SEG_CS].selector,
                      .ss = segment[SEG_SS].selector,
                      .es = segment[SEG_ES].selector,
                      .ds = segment[SEG_DS].selector,
                      .fs = segment[SEG_FS].selector,
                      .gs = segment[SEG_GS].selector},
        .ctrlreg = {[0] = state->cr0, [2] = state->cr2, [3] = state->cr3, [4] = state->cr4},
        .debugreg = {state->dr[0], state->dr[1], state->dr[2],
                     state->dr[3], [6] = state->dr6, [7] = state->dr7},
        .fs_base = segment[SEG_FS].base,
        .gs_base_kernel = kernel ? segment[SEG_GS].base : state->kernel_gs_base,
        .gs_base_user = kernel ? state->kernel_gs_base : segment[SEG_GS].base};
    __builtin_memcpy(&to->fpu_ctxt, vcpu->xsave, sizeof(to->fpu_ctxt));
}

int64_t xen_get_registers(struct xen_call *call, struct domain *domain,
                          const struct xen_domctl_vcpucontext *op)
{
    struct context context;
    struct context_vcpu vcpu;
    struct vcpu_guest_context registers;
    int64_t result = hold(call, domain, &context);
    if (result != 0) {
        return result;
    }
    if (op->vcpu >= domain->vcpu_count) {
        result = -XEN_EINVAL;
    } else if (!domain->vcpu[op->vcpu]->started) {
        result = -XEN_ENODATA;
    } else {
        look(&context, op->vcpu, &vcpu);
        fill_registers(&vcpu, &registers);
        result = xen_put(call, (uint64_t)op->ctxt.p, &registers, sizeof(registers));
    }
    let_go(&context);
    return result;
}

/* --- Writing ---------------------------------------------------------------------------------- */

static void drop_staged(struct context *context)
{
    for (unsigned i = 0; i < CLEAVE_VCPUS_MAX; i++) {
        struct context_vcpu *vcpu = context->vcpu[i];
        if (vcpu != NULL) {
            object_free(context->call->ctx, object_frame(vcpu->xsave));
            object_free(context->call->ctx, object_frame(vcpu));
        }
    }
}

/* What the vcpu is to become: as it is, until its records say more. */
static int64_t stage_vcpu(struct context *context, unsigned number)
{
    struct payer *payer = &context->call->domain->space->payer;
    struct mm_ctx *ctx = context->call->ctx;
    pfn_t object, area;
    if (context->vcpu[number] != NULL) {
        return 0;
    }
    enum cleave_status status = object_alloc(ctx, payer, &object);
    if (status != CLEAVE_OK) {
        return -XEN_ENOMEM;
    }
    if (object_alloc(ctx, payer, &area) != CLEAVE_OK) {
        object_free(ctx, object);
        return -XEN_ENOMEM;
    }
    struct context_vcpu *vcpu = frame_address(object);
    look(context, number, vcpu);
    if (vcpu->on) {
        port_copy_pages(frame_address(area), vcpu->xsave, 1);
    } else {
        hvm_xsave_reset(frame_address(area));
    }
    vcpu->xsave = frame_address(area);
    context->vcpu[number] = vcpu;
    return 0;
}

/* A record of `length` bytes at `at` in the caller's buffer. */
static int64_t stage_record(struct context *context, const struct hvm_save_descriptor *descriptor,
                            uint64_t at)
{
    union context_record record;
    unsigned number = descriptor->instance;
    if (!context_type_known(descriptor->typecode) || number >= context->domain->vcpu_count ||
        descriptor->length > sizeof(record)) {
        return -XEN_EINVAL;
    }
    int64_t result = stage_vcpu(context, number);
    if (result == 0) {
        result = xen_get(context->call, at, record.bytes, descriptor->length);
    }
    if (result == 0 &&
        !context_decode(context->vcpu[number], descriptor->typecode, &record, descriptor->length)) {
        result = -XEN_EINVAL;
    }
    return result;
}

static int64_t check_header(struct context *context, const struct hvm_save_descriptor *descriptor,
                            uint64_t at)
{
    struct hvm_save_header head;
    if (descriptor->typecode != HVM_SAVE_CODE(HEADER) || descriptor->instance != 0 ||
        descriptor->length != sizeof(head)) {
        return -XEN_EINVAL;
    }
    int64_t result = xen_get(context->call, at, &head, sizeof(head));
    if (result == 0 && (head.magic != HVM_FILE_MAGIC || head.version != HVM_FILE_VERSION)) {
        result = -XEN_EINVAL;
    }
    return result;
}

/* From the header to the end; what lies behind that is not looked at. */
static int64_t stage_all(struct context *context, uint64_t at, uint64_t size)
{
    struct hvm_save_descriptor descriptor;
    int64_t result = 0;
    for (bool first = true; result == 0; first = false) {
        if (size < DESCRIPTOR_SIZE) {
            return -XEN_EINVAL;
        }
        result = xen_get(context->call, at, &descriptor, DESCRIPTOR_SIZE);
        at += DESCRIPTOR_SIZE;
        size -= DESCRIPTOR_SIZE;
        if (result != 0) {
            break;
        }
        if (descriptor.length > size) {
            return -XEN_EINVAL;
        }
        if (first) {
            result = check_header(context, &descriptor, at);
        } else if (descriptor.typecode == HVM_SAVE_CODE(END)) {
            return descriptor.length == 0 && descriptor.instance == 0 ? 0 : -XEN_EINVAL;
        } else {
            result = stage_record(context, &descriptor, at);
        }
        at += descriptor.length;
        size -= descriptor.length;
    }
    return result;
}

/* VMX has the PDPTEs of a PAE guest in the VMCS: a record has none, they are read again as by a MOV
 * to CR3. Zero, where there is no memory yet: then the guest faults. */
static void load_pdptes(struct context *context, struct hvm_state *state)
{
    bool pae = state->cr0 & CR0_PG && state->cr4 & CR4_PAE && !(state->efer & EFER_LMA);
    enum cleave_status status = CLEAVE_FAULT;
    if (pae) {
        status = space_read(context->call->ctx, context->domain->space, gpa(state->cr3 & PDPT_MASK),
                            state->pdpte, sizeof(state->pdpte), NULL);
    }
    if (status != CLEAVE_OK) {
        __builtin_memset(state->pdpte, 0, sizeof(state->pdpte));
    }
}

static int64_t check_staged(struct context *context)
{
    for (unsigned i = 0; i < CLEAVE_VCPUS_MAX; i++) {
        struct context_vcpu *vcpu = context->vcpu[i];
        if (vcpu == NULL) {
            continue;
        }
        vcpu->state.cr8 = vcpu->lapic.priority >> 4;
        if (!context_legal(vcpu)) {
            return -XEN_EINVAL;
        }
        if (CONTEXT_HAS(vcpu, CPU)) {
            load_pdptes(context, &vcpu->state);
        }
    }
    return 0;
}

/* Their TSCs go on from where the records say. The domain's own offset is that of the first: an
 * IA32_TSC_ADJUST is what the vcpu's differs from that. */
static void set_clocks(struct context *context)
{
    bool first = true;
    for (unsigned i = 0; i < context->domain->vcpu_count; i++) {
        struct context_vcpu *vcpu = context->vcpu[i];
        if (vcpu == NULL || !(CONTEXT_HAS(vcpu, CPU) || CONTEXT_HAS(vcpu, TSC_ADJUST))) {
            continue;
        }
        vcpu->state.tsc_offset = vcpu->tsc - context->now + due(context->domain->vcpu[i]);
        if (first) {
            context->domain->tsc_offset = vcpu->tsc - context->now - vcpu->adjust;
        }
        first = false;
    }
}

/* It does nothing of what it did: it is where its CPU record says. A halted one goes on, and an NMI
 * that was sent to it comes. */
static void begin_anew(struct mm_ctx *ctx, struct vcpu *vcpu, struct lapic *lapic)
{
    vcpu_abandon(ctx, vcpu);
    vcpu->result_size = 0;
    vcpu->walk.domain = 0;
    vcpu->error = (struct cleave_error){.low = 0};
    vcpu->ending = CLEAVE_RUNNING;
    vcpu->halted = 0;
    vcpu->xen.polling = 0;
    vcpu->xen.poll_until = 0;
    lapic->activity = LAPIC_ACTIVE;
    lapic->request &= LAPIC_REQUEST_NMI;
}

static void become(struct mm_ctx *ctx, struct vcpu *vcpu, struct context_vcpu *from)
{
    if (CONTEXT_HAS(from, CPU)) {
        begin_anew(ctx, vcpu, &from->lapic);
    }
    vcpu->lapic = from->lapic;
    vcpu->mtrr = from->mtrr;
    if (!from->on) {
        return;
    }
    if (vcpu->started) {
        hvm->vcpu_restore(&vcpu->hvm, &from->state);
    } else {
        hvm->vcpu_init(&vcpu->hvm, &from->state);
        vcpu->started = 1;
    }
    port_copy_pages(vcpu->hvm.xsave, from->xsave, 1);
}

/* Cannot fail. The domain stays paused; what its vcpus wait for they find out again. */
static void apply(struct context *context)
{
    struct domain *domain = context->domain;
    struct mm_ctx *ctx = context->call->ctx;
    sched_off(domain);
    set_clocks(context);
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        vcpu_cancel_waits(ctx, domain->vcpu[i]);
        domain->vcpu[i]->wait.outcome = WAIT_RETRY;
        if (context->vcpu[i] != NULL) {
            become(ctx, domain->vcpu[i], context->vcpu[i]);
        }
    }
    domain->blank = 0;
    xen_refresh(domain);
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        sched_resume(domain->vcpu[i]);
    }
}

int64_t xen_set_context(struct xen_call *call, struct domain *domain,
                        const struct xen_domctl_hvmcontext *op)
{
    struct context context;
    int64_t result = hold(call, domain, &context);
    if (result != 0) {
        return result;
    }
    if (domain->snapshot || domain->state == CLEAVE_STATE_ENDED) {
        result = -XEN_EINVAL;
    } else if (domain->asked_pauses == 0) {
        result = -XEN_EBUSY;
    } else {
        result = stage_all(&context, (uint64_t)op->buffer.p, op->size);
    }
    if (result == 0) {
        result = check_staged(&context);
    }
    if (result == 0) {
        apply(&context);
    }
    drop_staged(&context);
    let_go(&context);
    return result;
}
