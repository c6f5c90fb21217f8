/* SPDX-License-Identifier: BSD-2-Clause */
/* See hvm_records.h. */
#include "hvm_records.h"

#include <stddef.h>

/* What the CPU record says here beyond Xen's flags: one of the two is a shadow that would let an
 * interrupt in between STI and HLT if it were forgotten. */
#define FLAG_SHADOW (1u << 1)
#define FLAG_NMI_MASKED (1u << 2)
#define FLAGS (XEN_X86_FPU_INITIALISED | FLAG_SHADOW | FLAG_NMI_MASKED)

#define ATTRIBUTES 0xfffu
#define ATTRIBUTE_PRESENT 0x80u
#define ATTRIBUTE_UNUSABLE 0x1000u
#define RFLAGS_FIXED UINT64_C(2)
#define XSAVE_HEAD ((uint32_t)offsetof(struct hvm_hw_cpu_xsave, save_area))
#define MSR_HEAD ((uint32_t)offsetof(struct hvm_msr, msr))

_Static_assert(sizeof(((struct hvm_hw_lapic_regs *)0)->data) == LAPIC_PAGE_WORDS * 4, "a page");
_Static_assert(MTRR_VCNT == MTRR_VARIABLE && NUM_FIXED_MSR == MTRR_FIXED, "as many as Xen's");

/* --- CPU -------------------------------------------------------------------------------------- */

/* Fields that are the same on both sides, but for their width: all of 64 bits. */
#define REGISTERS(X)                                                                               \
    X(rax, regs.rax)                                                                               \
    X(rbx, regs.rbx)                                                                               \
    X(rcx, regs.rcx)                                                                               \
    X(rdx, regs.rdx)                                                                               \
    X(rbp, regs.rbp)                                                                               \
    X(rsi, regs.rsi)                                                                               \
    X(rdi, regs.rdi)                                                                               \
    X(rsp, regs.rsp)                                                                               \
    X(r8, regs.r8)                                                                                 \
    X(r9, regs.r9)                                                                                 \
    X(r10, regs.r10)                                                                               \
    X(r11, regs.r11)                                                                               \
    X(r12, regs.r12)                                                                               \
    X(r13, regs.r13)                                                                               \
    X(r14, regs.r14)                                                                               \
    X(r15, regs.r15)                                                                               \
    X(rip, regs.rip)                                                                               \
    X(rflags, regs.rflags)                                                                         \
    X(cr0, cr0)                                                                                    \
    X(cr2, cr2)                                                                                    \
    X(cr3, cr3)                                                                                    \
    X(cr4, cr4)                                                                                    \
    X(dr0, dr[0])                                                                                  \
    X(dr1, dr[1])                                                                                  \
    X(dr2, dr[2])                                                                                  \
    X(dr3, dr[3])                                                                                  \
    X(dr6, dr6)                                                                                    \
    X(dr7, dr7)                                                                                    \
    X(idtr_base, idt_base)                                                                         \
    X(gdtr_base, gdt_base)                                                                         \
    X(idtr_limit, idt_limit)                                                                       \
    X(gdtr_limit, gdt_limit)                                                                       \
    X(sysenter_cs, sysenter_cs)                                                                    \
    X(sysenter_esp, sysenter_esp)                                                                  \
    X(sysenter_eip, sysenter_eip)                                                                  \
    X(shadow_gs, kernel_gs_base)                                                                   \
    X(msr_lstar, lstar)                                                                            \
    X(msr_star, star)                                                                              \
    X(msr_cstar, cstar)                                                                            \
    X(msr_syscall_mask, sfmask)                                                                    \
    X(msr_efer, efer)                                                                              \
    X(msr_tsc_aux, tsc_aux)

#define SEGMENTS(X)                                                                                \
    X(cs, SEG_CS)                                                                                  \
    X(ds, SEG_DS)                                                                                  \
    X(es, SEG_ES)                                                                                  \
    X(fs, SEG_FS)                                                                                  \
    X(gs, SEG_GS)                                                                                  \
    X(ss, SEG_SS)                                                                                  \
    X(tr, SEG_TR)                                                                                  \
    X(ldtr, SEG_LDTR)

/* Xen has no bit for unusable segments: they are not present. */
static uint32_t attributes_of(const struct hvm_segment *segment)
{
    uint32_t attributes = segment->attributes & ATTRIBUTES;
    return segment->attributes & ATTRIBUTE_UNUSABLE ? attributes & ~ATTRIBUTE_PRESENT : attributes;
}

static bool set_segment(struct hvm_segment *segment, uint32_t selector, uint32_t limit,
                        uint64_t base, uint32_t attributes)
{
    if (selector > UINT16_MAX || attributes & ~ATTRIBUTES) {
        return false;
    }
    attributes |= attributes & ATTRIBUTE_PRESENT ? 0 : ATTRIBUTE_UNUSABLE;
    *segment = (struct hvm_segment){(uint16_t)selector, (uint16_t)attributes, limit, base};
    return true;
}

static void encode_cpu(const struct context_vcpu *vcpu, struct hvm_hw_cpu *cpu)
{
    const struct hvm_state *state = &vcpu->state;
    *cpu = (struct hvm_hw_cpu){.tsc = vcpu->tsc, .flags = XEN_X86_FPU_INITIALISED};
    __builtin_memcpy(cpu->fpu_regs, vcpu->xsave, sizeof(cpu->fpu_regs));
#define X(theirs, ours) cpu->theirs = state->ours;
    REGISTERS(X)
#undef X
#define X(name, i)                                                                                 \
    cpu->name##_sel = state->segment[i].selector;                                                  \
    cpu->name##_limit = state->segment[i].limit;                                                   \
    cpu->name##_base = state->segment[i].base;                                                     \
    cpu->name##_arbytes = attributes_of(&state->segment[i]);
    SEGMENTS(X)
#undef X
    if (state->pending & HVM_EVENT_VALID) {
        cpu->pending_event = state->pending;
        cpu->error_code = state->pending & HVM_EVENT_ERROR ? state->pending_error : 0;
    }
    cpu->flags |= state->interruptibility & 1 ? FLAG_SHADOW : 0;
    cpu->flags |= state->interruptibility & 2 ? FLAG_NMI_MASKED : 0;
}

/* What it says nothing of stays as it was: PAT, XCR0 and the further XSAVE components. */
static bool decode_cpu(struct context_vcpu *vcpu, const struct hvm_hw_cpu *cpu)
{
    struct hvm_state *state = &vcpu->state;
    bool good = !(cpu->flags & ~FLAGS) && cpu->pad0 == 0 && cpu->pending_reserved == 0;
#define X(theirs, ours) state->ours = cpu->theirs;
    REGISTERS(X)
#undef X
#define X(name, i)                                                                                 \
    good &= set_segment(&state->segment[i], cpu->name##_sel, cpu->name##_limit, cpu->name##_base,  \
                        cpu->name##_arbytes);
    SEGMENTS(X)
#undef X
    state->regs.rflags |= RFLAGS_FIXED;
    state->pending = cpu->pending_valid ? cpu->pending_event : 0;
    state->pending_error = state->pending & HVM_EVENT_ERROR ? cpu->error_code : 0;
    state->interruptibility =
        (cpu->flags & FLAG_SHADOW ? 1u : 0) | (cpu->flags & FLAG_NMI_MASKED ? 2u : 0);
    if (cpu->flags & XEN_X86_FPU_INITIALISED) {
        hvm_xsave_set_legacy(vcpu->xsave, cpu->fpu_regs);
    } else {
        hvm_xsave_reset(vcpu->xsave);
    }
    vcpu->tsc = cpu->tsc;
    vcpu->on = true;
    return good;
}

/* --- The others ------------------------------------------------------------------------------- */

static void encode_lapic(const struct context_vcpu *vcpu, struct hvm_hw_lapic *lapic)
{
    *lapic = (struct hvm_hw_lapic){.apic_base_msr = lapic_base(&vcpu->lapic),
                                   .timer_divisor = lapic_timer_divisor(&vcpu->lapic)};
}

/* Its mode is never another; the divisor follows from the registers. */
static bool decode_lapic(const struct context_vcpu *vcpu, const struct hvm_hw_lapic *lapic)
{
    uint32_t divisor = lapic->timer_divisor;
    return lapic->apic_base_msr == lapic_base(&vcpu->lapic) && lapic->disabled == 0 &&
           lapic->tdt_msr == 0 && divisor != 0 && divisor <= 128 && (divisor & (divisor - 1)) == 0;
}

static void encode_mtrr(const struct context_vcpu *vcpu, struct hvm_hw_mtrr *mtrr)
{
    *mtrr = (struct hvm_hw_mtrr){.msr_pat_cr = vcpu->state.pat,
                                 .msr_mtrr_cap = mtrr_capability(),
                                 .msr_mtrr_def_type = vcpu->mtrr.def_type};
    __builtin_memcpy(mtrr->msr_mtrr_var, vcpu->mtrr.variable, sizeof(mtrr->msr_mtrr_var));
    __builtin_memcpy(mtrr->msr_mtrr_fixed, vcpu->mtrr.fixed, sizeof(mtrr->msr_mtrr_fixed));
}

static bool decode_mtrr(struct context_vcpu *vcpu, const struct hvm_hw_mtrr *mtrr)
{
    vcpu->state.pat = mtrr->msr_pat_cr;
    vcpu->mtrr.def_type = mtrr->msr_mtrr_def_type;
    __builtin_memcpy(vcpu->mtrr.variable, mtrr->msr_mtrr_var, sizeof(mtrr->msr_mtrr_var));
    __builtin_memcpy(vcpu->mtrr.fixed, mtrr->msr_mtrr_fixed, sizeof(mtrr->msr_mtrr_fixed));
    return mtrr->msr_mtrr_cap == mtrr_capability() && mtrr_legal(&vcpu->mtrr);
}

/* All components that guests have here, whatever this one has enabled until now. */
static void encode_xsave(const struct context_vcpu *vcpu, union context_record *record)
{
    record->xsave.xfeature_mask = xsave_components;
    record->xsave.xcr0 = vcpu->state.xcr0;
    record->xsave.xcr0_accum = xsave_components;
    __builtin_memcpy(record->bytes + XSAVE_HEAD, vcpu->xsave, xsave_size(xsave_components));
}

static bool decode_xsave(struct context_vcpu *vcpu, const union context_record *record,
                         uint32_t length)
{
    const struct hvm_hw_cpu_xsave *xsave = &record->xsave;
    if (length < sizeof(*xsave)) {
        return false;
    }
    uint64_t components = xsave->xcr0_accum;
    if (components & ~xsave_components || length != XSAVE_HEAD + xsave_size(components) ||
        xsave->xcr0 & ~components || xsave->save_area.xsave_hdr.xstate_bv & ~components) {
        return false;
    }
    __builtin_memset(vcpu->xsave, 0, PAGE_SIZE);
    __builtin_memcpy(vcpu->xsave, record->bytes + XSAVE_HEAD, length - XSAVE_HEAD);
    vcpu->state.xcr0 = xsave->xcr0;
    return vcpu->on;
}

/* No MSR of a guest here is missing in the other records. */
static bool decode_msr(const struct hvm_msr *msr, uint32_t length)
{
    return length == MSR_HEAD && msr->count == 0;
}

/* --- By type ---------------------------------------------------------------------------------- */

/* In the order of Xen. */
static const struct {
    uint16_t type;
    bool always;     /* also of a vcpu that has no state */
    uint32_t length; /* 0: it has none of one size */
} records[] = {
    {HVM_SAVE_CODE(CPU), false, HVM_SAVE_LENGTH(CPU)},
    {HVM_SAVE_CODE(LAPIC), true, HVM_SAVE_LENGTH(LAPIC)},
    {HVM_SAVE_CODE(LAPIC_REGS), true, HVM_SAVE_LENGTH(LAPIC_REGS)},
    {HVM_SAVE_CODE(MTRR), true, HVM_SAVE_LENGTH(MTRR)},
    {CPU_XSAVE_CODE, false, 0},
    {HVM_SAVE_CODE(TSC_ADJUST), false, HVM_SAVE_LENGTH(TSC_ADJUST)},
    {CPU_MSR_CODE, false, 0},
};
#define RECORDS (sizeof(records) / sizeof(records[0]))

uint16_t context_type(unsigned i) { return i < RECORDS ? records[i].type : 0; }

static unsigned index_of(uint32_t type)
{
    unsigned i = 0;
    while (i < RECORDS && records[i].type != type) {
        i++;
    }
    return i;
}

bool context_type_known(uint32_t type) { return index_of(type) < RECORDS; }

uint32_t context_length(const struct context_vcpu *vcpu, uint16_t type)
{
    unsigned i = index_of(type);
    if (i == RECORDS || !(vcpu->on || records[i].always)) {
        return 0;
    }
    return type == CPU_XSAVE_CODE ? XSAVE_HEAD + xsave_size(xsave_components) : records[i].length;
}

void context_encode(const struct context_vcpu *vcpu, uint16_t type, union context_record *record)
{
    switch (type) {
    case HVM_SAVE_CODE(CPU):
        encode_cpu(vcpu, &record->cpu);
        break;
    case HVM_SAVE_CODE(LAPIC):
        encode_lapic(vcpu, &record->lapic);
        break;
    case HVM_SAVE_CODE(LAPIC_REGS):
        lapic_to_page(&vcpu->lapic, (uint32_t *)record->bytes);
        break;
    case HVM_SAVE_CODE(MTRR):
        encode_mtrr(vcpu, &record->mtrr);
        break;
    case CPU_XSAVE_CODE:
        encode_xsave(vcpu, record);
        break;
    case HVM_SAVE_CODE(TSC_ADJUST):
        record->tsc_adjust.tsc_adjust = vcpu->adjust;
        break;
    default:
        break;
    }
}

bool context_decode(struct context_vcpu *vcpu, uint16_t type, const union context_record *record,
                    uint32_t length)
{
    unsigned i = index_of(type);
    if (i == RECORDS || (records[i].length != 0 && length != records[i].length) ||
        vcpu->seen >> type & 1) {
        return false;
    }
    vcpu->seen |= 1u << type;
    switch (type) {
    case HVM_SAVE_CODE(CPU):
        return decode_cpu(vcpu, &record->cpu);
    case HVM_SAVE_CODE(LAPIC):
        return decode_lapic(vcpu, &record->lapic);
    case HVM_SAVE_CODE(LAPIC_REGS):
        return lapic_from_page(&vcpu->lapic, (const uint32_t *)record->bytes);
    case HVM_SAVE_CODE(MTRR):
        return decode_mtrr(vcpu, &record->mtrr);
    case CPU_XSAVE_CODE:
        return decode_xsave(vcpu, record, length);
    case HVM_SAVE_CODE(TSC_ADJUST):
        vcpu->adjust = record->tsc_adjust.tsc_adjust;
        return vcpu->on;
    default:
        return decode_msr(&record->msr, length);
    }
}

bool context_legal(const struct context_vcpu *vcpu)
{
    return hvm_state_legal(&vcpu->state) && (!vcpu->on || hvm_xsave_legal(vcpu->xsave));
}
