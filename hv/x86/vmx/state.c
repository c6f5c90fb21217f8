/* SPDX-License-Identifier: BSD-2-Clause */
/* The guest state of the current VMCS as a record and back (SDM 3C 25.4, 27.3.1). */
#include "switch.h"
#include "vmcs.h"

#define ATTRIBUTE_UNUSABLE 0x1000u

/* A single step that is to be told at the next entry: in the record it is an event. Within a shadow
 * it is found anew at each entry. */
static void save_step(struct hvm_state *state)
{
    bool waits = (vmread(GUEST_PENDING_DEBUG) & PENDING_DEBUG_STEP) != 0;
    if (waits && !(state->interruptibility & 1) && !(state->pending & HVM_EVENT_VALID)) {
        state->dr6 |= DR6_BS;
        state->pending = HVM_EVENT_EXCEPTION(EXCEPTION_DB);
        state->pending_error = 0;
    }
}

/* What the VMCS holds as hvm_state has it, all of 64 bits there. */
static const struct {
    uint16_t offset;
    uint16_t field;
} fields[] = {
    {offsetof(struct hvm_state, gdt_base), GUEST_GDT_BASE},
    {offsetof(struct hvm_state, idt_base), GUEST_IDT_BASE},
    {offsetof(struct hvm_state, cr3), GUEST_CR3},
    {offsetof(struct hvm_state, efer), GUEST_EFER},
    {offsetof(struct hvm_state, dr7), GUEST_DR7},
    {offsetof(struct hvm_state, sysenter_cs), GUEST_SYSENTER_CS},
    {offsetof(struct hvm_state, sysenter_esp), GUEST_SYSENTER_ESP},
    {offsetof(struct hvm_state, sysenter_eip), GUEST_SYSENTER_EIP},
    {offsetof(struct hvm_state, pat), GUEST_PAT},
    {offsetof(struct hvm_state, debugctl), GUEST_DEBUGCTL},
    {offsetof(struct hvm_state, tsc_offset), TSC_OFFSET},
};

static uint64_t *at(const struct hvm_state *state, unsigned i)
{
    return (uint64_t *)((uintptr_t)state + fields[i].offset);
}

uint64_t vmx_guest_cr0(void)
{
    return (vmread(GUEST_CR0) & ~CR0_HOST) | (vmread(CR0_SHADOW) & CR0_HOST);
}

uint64_t vmx_guest_cr4(void)
{
    return (vmread(GUEST_CR4) & ~CR4_HOST) | (vmread(CR4_SHADOW) & CR4_HOST);
}

/* VMCS attributes have G, D/B, L and AVL at 15:12 and the unusable bit at 16 (table 25-2). */
static void segments_save(struct hvm_state *state)
{
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        uint32_t a = (uint32_t)vmread(GUEST_ATTRIBUTES + 2 * i);
        uint32_t attributes =
            (a & 0xff) | (a >> 4 & 0xf00) | (a >> 16 & 1 ? ATTRIBUTE_UNUSABLE : 0);
        state->segment[i] = (struct hvm_segment){
            .selector = (uint16_t)vmread(GUEST_SELECTOR + 2 * i),
            .attributes = (uint16_t)attributes,
            .limit = (uint32_t)vmread(GUEST_LIMIT + 2 * i),
            .base = vmread(GUEST_BASE + 2 * i),
        };
    }
    state->gdt_limit = (uint32_t)vmread(GUEST_GDT_LIMIT);
    state->idt_limit = (uint32_t)vmread(GUEST_IDT_LIMIT);
}

static void segments_restore(const struct hvm_state *state)
{
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        const struct hvm_segment *s = &state->segment[i];
        uint32_t a = s->attributes;
        vmwrite(GUEST_SELECTOR + 2 * i, s->selector);
        vmwrite(GUEST_ATTRIBUTES + 2 * i,
                (a & 0xff) | (a & 0xf00) << 4 | (a & ATTRIBUTE_UNUSABLE ? 1u << 16 : 0));
        vmwrite(GUEST_LIMIT + 2 * i, s->limit);
        vmwrite(GUEST_BASE + 2 * i, s->base);
    }
    vmwrite(GUEST_GDT_LIMIT, state->gdt_limit);
    vmwrite(GUEST_IDT_LIMIT, state->idt_limit);
}

static bool has_pdptes(const struct hvm_state *state)
{
    return state->cr0 & CR0_PG && state->cr4 & CR4_PAE && !(state->efer & EFER_LMA);
}

void vmx_state_save(struct hvm_vcpu *vcpu, struct hvm_state *state)
{
    *state = (struct hvm_state){.cr0 = vmx_guest_cr0(), .cr4 = vmx_guest_cr4()};
    for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        *at(state, i) = vmread(fields[i].field);
    }
    segments_save(state);
    for (unsigned i = 0; i < 4 && has_pdptes(state); i++) {
        state->pdpte[i] = vmread(GUEST_PDPTE + 2 * i);
    }
    uint64_t blocked = vmread(GUEST_INTERRUPTIBILITY);
    state->interruptibility = (blocked & (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS) ? 1u : 0u) |
                              (blocked & BLOCKED_BY_NMI ? 2u : 0u);
    state->dr6 = vcpu->dr6;
    state->star = vcpu->msrs.star;
    state->lstar = vcpu->msrs.lstar;
    state->cstar = vcpu->msrs.cstar;
    state->sfmask = vcpu->msrs.sfmask;
    state->kernel_gs_base = vcpu->msrs.kernel_gs_base;
    switch_save(vcpu, state);
    save_step(state);
}

void vmx_state_restore(struct hvm_vcpu *vcpu, const struct hvm_state *state)
{
    for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        vmwrite(fields[i].field, *at(state, i));
    }
    segments_restore(state);
    for (unsigned i = 0; i < 4; i++) {
        vmwrite(GUEST_PDPTE + 2 * i, state->pdpte[i]);
    }
    vmwrite(GUEST_CR0, (state->cr0 & ~CR0_HOST) | CR0_NE | CR0_ET);
    vmwrite(CR0_SHADOW, state->cr0);
    vmwrite(GUEST_CR4, (state->cr4 & ~CR4_HOST) | CR4_VMXE);
    vmwrite(CR4_SHADOW, state->cr4);
    vmwrite(ENTRY_CONTROLS, vmx_controls.entry | (state->efer & EFER_LMA ? ENTRY_GUEST_64 : 0));
    /* Which of the two shadows it was no longer matters; that of STI needs IF (27.3.1.5). */
    uint64_t shadow = state->regs.rflags & RFLAGS_IF ? BLOCKED_BY_STI : BLOCKED_BY_MOV_SS;
    vmwrite(GUEST_INTERRUPTIBILITY, (state->interruptibility & 1 ? shadow : 0) |
                                        (state->interruptibility & 2 ? BLOCKED_BY_NMI : 0));
    vmwrite(GUEST_PENDING_DEBUG, 0);
    vmwrite(GUEST_ACTIVITY, 0);
    vcpu->dr6 = state->dr6;
    vcpu->msrs = (struct hvm_msrs){state->star, state->lstar, state->cstar, state->sfmask,
                                   state->kernel_gs_base};
    switch_restore(vcpu, state);
}
