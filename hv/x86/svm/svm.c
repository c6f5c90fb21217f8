/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * AMD SVM with nested paging (APM 2 chapter 15): enabling it, VMCBs and entries. Only the CPU on
 * which a vcpu is loaded touches its VMCB.
 */
#include "platform.h"
#include "switch.h"
#include "vmcb.h"

#define MSR_VM_CR 0xc0010114u
#define VM_CR_SVMDIS (UINT64_C(1) << 4)
#define MSR_VM_HSAVE_PA 0xc0010117u

#define LEAF_EDX_1_GIB (1u << 26)
#define CPUID_SVM 0x8000000au
#define SVM_EDX_NESTED_PAGING (1u << 0)
#define SVM_EDX_NEXT_RIP (1u << 3)
#define SVM_EDX_FLUSH_BY_ASID (1u << 6)

#define IOPM_SIZE 12288u /* 15.10.1: a bit per port, and one page more */
#define MSRPM_SIZE 8192u /* 15.11: two bits per MSR, three ranges */

#define ATTRIBUTE_PRESENT 0x80u
#define ATTRIBUTE_UNUSABLE 0x1000u
#define ATTRIBUTE_DPL(dpl) ((uint32_t)(dpl) << 5)
#define ATTRIBUTE_L 0x200u

bool svm_has_next_rip;
static bool has_flush_by_asid;
static uint64_t iopm, msrpm; /* host-physical */

/* --- Enabling --------------------------------------------------------------------------------- */

static bool svm_present(void)
{
    bool complete = true;
    uint64_t vm_cr = 0;
    struct cpuid svm = cpuid(CPUID_SVM, 0);
    if (!(svm.edx & SVM_EDX_NESTED_PAGING)) {
        print("  missing: nested paging (CPUID.8000000AH:EDX[0])\n");
        complete = false;
    }
    if (!(cpuid(0x80000001, 0).edx & LEAF_EDX_1_GIB)) {
        print("  missing: 1 GiB pages (CPUID.80000001H:EDX[26])\n");
        complete = false;
    }
    if (svm.ebx < 2) {
        print("  missing: ASIDs (CPUID.8000000AH:EBX is %u)\n", svm.ebx);
        complete = false;
    }
    if (rdmsr_safe(MSR_VM_CR, &vm_cr) && vm_cr & VM_CR_SVMDIS) {
        print("  SVM is disabled by the firmware (VM_CR.SVMDIS)\n");
        complete = false;
    }
    return switch_present() && complete;
}

/* RDMSR and WRMSR of `msr` go to the CPU. */
static void msr_pass(uint8_t *map, uint32_t msr)
{
    uint32_t bit = (msr >= 0xc0000000u ? msr - 0xc0000000u + 0x2000 : msr) * 2;
    map[bit / 8] &= (uint8_t) ~(3u << bit % 8);
}

static void svm_prepare(void)
{
    /* What VMLOAD, VMSAVE and switch.c switch. */
    static const uint32_t passed[] = {
        MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP, MSR_STAR,           MSR_LSTAR,
        MSR_CSTAR,       MSR_SFMASK,       MSR_FS_BASE,      MSR_KERNEL_GS_BASE, MSR_GS_BASE,
    };
    iopm = boot_take(IOPM_SIZE, PAGE_SIZE, "I/O permission map");
    msrpm = boot_take(MSRPM_SIZE, PAGE_SIZE, "MSR permission map");
    uint8_t *ports = host_pointer(iopm), *map = host_pointer(msrpm);
    for (unsigned i = 0; i < IOPM_SIZE; i++) {
        ports[i] = 0xff;
    }
    for (unsigned i = 0; i < MSRPM_SIZE; i++) {
        map[i] = 0xff;
    }
    for (unsigned i = 0; i < sizeof(passed) / sizeof(passed[0]); i++) {
        msr_pass(map, passed[i]);
    }
    struct cpuid svm = cpuid(CPUID_SVM, 0);
    svm_has_next_rip = (svm.edx & SVM_EDX_NEXT_RIP) != 0;
    has_flush_by_asid = (svm.edx & SVM_EDX_FLUSH_BY_ASID) != 0;
}

static bool svm_cpu_enable(struct percpu *cpu)
{
    struct cpuid svm = cpuid(CPUID_SVM, 0);
    switch_enable();
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
    if (!wrmsr_safe(MSR_VM_HSAVE_PA, cpu->hvm_frame[0])) {
        print("CPU %u: no host save area at %llx\n", cpu->id,
              (unsigned long long)cpu->hvm_frame[0]);
        return false;
    }
    __asm__ volatile("vmsave %%rax" : : "a"(cpu->hvm_frame[1]) : "memory");
    cpu->asids.limit = svm.ebx < ASID_MAX ? svm.ebx : ASID_MAX;
    return true;
}

/* --- State ------------------------------------------------------------------------------------ */

/* In the order of SEG_*. */
static struct vmcb_segment *segment_at(struct vmcb *vmcb, unsigned i)
{
    struct vmcb_segment *const at[SEG_COUNT] = {
        &vmcb->es, &vmcb->cs, &vmcb->ss, &vmcb->ds, &vmcb->fs, &vmcb->gs, &vmcb->ldtr, &vmcb->tr,
    };
    return at[i];
}

static void segments_save(struct vmcb *vmcb, struct hvm_state *state)
{
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        const struct vmcb_segment *s = segment_at(vmcb, i);
        uint32_t attributes = s->attributes & 0xfffu;
        if (!(attributes & ATTRIBUTE_PRESENT)) {
            attributes |= ATTRIBUTE_UNUSABLE;
        }
        if (i == SEG_SS) { /* the CPL counts; in 64-bit mode nothing else keeps it there */
            attributes = (attributes & ~ATTRIBUTE_DPL(3)) | ATTRIBUTE_DPL(vmcb->cpl & 3);
        }
        state->segment[i] =
            (struct hvm_segment){s->selector, (uint16_t)attributes, s->limit, s->base};
    }
    state->gdt_base = vmcb->gdtr.base;
    state->gdt_limit = vmcb->gdtr.limit;
    state->idt_base = vmcb->idtr.base;
    state->idt_limit = vmcb->idtr.limit;
}

static void segments_restore(struct vmcb *vmcb, const struct hvm_state *state)
{
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        const struct hvm_segment *s = &state->segment[i];
        uint32_t attributes = s->attributes & 0xfffu;
        if (s->attributes & ATTRIBUTE_UNUSABLE) {
            attributes &= ~ATTRIBUTE_PRESENT;
        }
        *segment_at(vmcb, i) =
            (struct vmcb_segment){s->selector, (uint16_t)attributes, s->limit, s->base};
    }
    vmcb->cpl = (uint8_t)(state->segment[SEG_SS].attributes >> 5 & 3);
    vmcb->gdtr = (struct vmcb_segment){.limit = state->gdt_limit, .base = state->gdt_base};
    vmcb->idtr = (struct vmcb_segment){.limit = state->idt_limit, .base = state->idt_base};
}

static void svm_vcpu_save(struct hvm_vcpu *vcpu, struct hvm_state *state)
{
    struct vmcb *vmcb = svm_vmcb(vcpu);
    if (this_cpu()->loaded == vcpu) {
        switch_sync(vcpu);
    }
    *state = (struct hvm_state){
        .cr0 = vmcb->cr0,
        .cr3 = vmcb->cr3,
        .cr4 = vmcb->cr4,
        .efer = vmcb->efer & ~EFER_SVME,
        .dr6 = vmcb->dr6,
        .dr7 = vmcb->dr7,
        .star = vmcb->star,
        .lstar = vmcb->lstar,
        .cstar = vmcb->cstar,
        .sfmask = vmcb->sfmask,
        .kernel_gs_base = vmcb->kernel_gs_base,
        .sysenter_cs = vmcb->sysenter_cs,
        .sysenter_esp = vmcb->sysenter_esp,
        .sysenter_eip = vmcb->sysenter_eip,
        .pat = vmcb->pat,
        .debugctl = vmcb->debugctl,
        .tsc_offset = vmcb->tsc_offset,
        .interruptibility = (vmcb->shadow & 1 ? 1u : 0u) | (vcpu->nmi_masked ? 2u : 0u),
    };
    segments_save(vmcb, state);
    switch_save(vcpu, state);
}

static void svm_vcpu_restore(struct hvm_vcpu *vcpu, const struct hvm_state *state)
{
    struct vmcb *vmcb = svm_vmcb(vcpu);
    if (this_cpu()->loaded == vcpu) {
        this_cpu()->loaded = NULL; /* what this CPU holds of it is replaced */
        vcpu->loaded_on = -1;
    }
    switch_restore(vcpu, state);
    segments_restore(vmcb, state);
    vmcb->cr0 = state->cr0;
    vmcb->cr3 = state->cr3;
    vmcb->cr4 = state->cr4;
    vmcb->efer = state->efer | EFER_SVME;
    vmcb->dr6 = state->dr6;
    vmcb->dr7 = state->dr7;
    vmcb->star = state->star;
    vmcb->lstar = state->lstar;
    vmcb->cstar = state->cstar;
    vmcb->sfmask = state->sfmask;
    vmcb->kernel_gs_base = state->kernel_gs_base;
    vmcb->sysenter_cs = state->sysenter_cs;
    vmcb->sysenter_esp = state->sysenter_esp;
    vmcb->sysenter_eip = state->sysenter_eip;
    vmcb->pat = state->pat;
    vmcb->debugctl = state->debugctl;
    vmcb->tsc_offset = state->tsc_offset;
    vmcb->shadow = state->interruptibility & 1;
    vcpu->nmi_masked = (state->interruptibility & 2) != 0;
    svm_intercept(vcpu, 0, VMCB_INTERCEPT0_IRET, vcpu->nmi_masked);
    vcpu->clean = 0;
}

static void svm_vcpu_init(struct hvm_vcpu *vcpu, const struct hvm_state *state)
{
    struct vmcb *vmcb = svm_vmcb(vcpu);
    *vmcb = (struct vmcb){
        /* Loops that never end while the CPU delivers #DB or #AC are broken by an exit. */
        .intercept_exceptions = 1u << EXCEPTION_DB | 1u << EXCEPTION_AC | 1u << EXCEPTION_MC,
        .intercept =
            {
                VMCB_INTERCEPT0_INTR | VMCB_INTERCEPT0_NMI | VMCB_INTERCEPT0_INIT |
                    VMCB_INTERCEPT0_RDPMC | VMCB_INTERCEPT0_CPUID | VMCB_INTERCEPT0_INVD |
                    VMCB_INTERCEPT0_HLT | VMCB_INTERCEPT0_INVLPGA | VMCB_INTERCEPT0_IO |
                    VMCB_INTERCEPT0_MSR | VMCB_INTERCEPT0_SHUTDOWN,
                VMCB_INTERCEPT1_VMRUN | VMCB_INTERCEPT1_VMMCALL | VMCB_INTERCEPT1_VMLOAD |
                    VMCB_INTERCEPT1_VMSAVE | VMCB_INTERCEPT1_STGI | VMCB_INTERCEPT1_CLGI |
                    VMCB_INTERCEPT1_SKINIT | VMCB_INTERCEPT1_WBINVD | VMCB_INTERCEPT1_MONITOR |
                    VMCB_INTERCEPT1_MWAIT | VMCB_INTERCEPT1_MWAIT_ARMED | VMCB_INTERCEPT1_XSETBV |
                    VMCB_INTERCEPT1_RDPRU,
            },
        .iopm = iopm,
        .msrpm = msrpm,
        .interrupt_control = V_INTR_MASKING,
        .nested_control = VMCB_NESTED_PAGING,
    };
    switch_init(vcpu);
    svm_vcpu_restore(vcpu, state);
}

static void svm_vcpu_unload(struct hvm_vcpu *vcpu)
{
    if (this_cpu()->loaded == vcpu) {
        switch_sync(vcpu);
        this_cpu()->loaded = NULL;
        vcpu->loaded_on = -1;
    }
}

static uint64_t svm_get(struct hvm_vcpu *vcpu, enum hvm_field field)
{
    const struct vmcb *vmcb = svm_vmcb(vcpu);
    switch (field) {
    case HVM_FIELD_CR4:
        return vmcb->cr4;
    case HVM_FIELD_EFER:
        return vmcb->efer & ~EFER_SVME;
    case HVM_FIELD_PAT:
        return vmcb->pat;
    case HVM_FIELD_TSC_OFFSET:
        return vmcb->tsc_offset;
    }
    __builtin_unreachable();
}

static void svm_set(struct hvm_vcpu *vcpu, enum hvm_field field, uint64_t value)
{
    struct vmcb *vmcb = svm_vmcb(vcpu);
    switch (field) {
    case HVM_FIELD_CR4:
        vmcb->cr4 = value;
        vcpu->clean &= ~VMCB_CLEAN_CR;
        break;
    case HVM_FIELD_EFER:
        vmcb->efer = value | EFER_SVME;
        vcpu->clean &= ~VMCB_CLEAN_CR;
        break;
    case HVM_FIELD_PAT:
        vmcb->pat = value;
        vcpu->clean &= ~VMCB_CLEAN_NESTED;
        break;
    case HVM_FIELD_TSC_OFFSET:
        vmcb->tsc_offset = value;
        vcpu->clean &= ~VMCB_CLEAN_INTERCEPTS;
        break;
    }
}

static void svm_mode(struct hvm_vcpu *vcpu, uint64_t *cr0, uint64_t *cr3, uint64_t *cr4,
                     uint64_t *efer, unsigned *cpl, bool *code64)
{
    const struct vmcb *vmcb = svm_vmcb(vcpu);
    *cr0 = vmcb->cr0;
    *cr3 = vmcb->cr3;
    *cr4 = vmcb->cr4;
    *efer = vmcb->efer & ~EFER_SVME;
    *cpl = vmcb->cpl;
    *code64 = (vmcb->efer & EFER_LMA) && (vmcb->cs.attributes & ATTRIBUTE_L);
}

/* --- Events ----------------------------------------------------------------------------------- */

void svm_intercept(struct hvm_vcpu *vcpu, unsigned word, uint32_t bits, bool wanted)
{
    struct vmcb *vmcb = svm_vmcb(vcpu);
    uint32_t value = wanted ? vmcb->intercept[word] | bits : vmcb->intercept[word] & ~bits;
    if (vmcb->intercept[word] != value) {
        vmcb->intercept[word] = value;
        vcpu->clean &= ~VMCB_CLEAN_INTERCEPTS;
    }
}

static bool svm_may_interrupt(const struct hvm_vcpu *vcpu)
{
    return vcpu->regs.rflags & RFLAGS_IF && !(svm_vmcb(vcpu)->shadow & 1);
}

static bool svm_can_take_interrupt(struct hvm_vcpu *vcpu)
{
    return svm_may_interrupt(vcpu) && !(vcpu->pending & HVM_EVENT_VALID);
}

static bool svm_can_take_nmi(struct hvm_vcpu *vcpu)
{
    return !vcpu->nmi_masked && !(svm_vmcb(vcpu)->shadow & 1) && !(vcpu->pending & HVM_EVENT_VALID);
}

/* A virtual interrupt that nothing masks and that is intercepted when it would be taken. */
void svm_window(struct hvm_vcpu *vcpu, bool wanted)
{
    struct vmcb *vmcb = svm_vmcb(vcpu);
    if (vcpu->window != wanted) {
        vcpu->window = wanted;
        vmcb->interrupt_control &= ~(V_IRQ | V_PRIORITY | V_IGNORE_TPR);
        vmcb->interrupt_control |= wanted ? V_IRQ | V_PRIORITY | V_IGNORE_TPR : 0;
        vcpu->clean &= ~VMCB_CLEAN_INTERRUPTS;
        svm_intercept(vcpu, 0, VMCB_INTERCEPT0_VINTR, wanted);
    }
}

/* --- Entry ------------------------------------------------------------------------------------ */

/* Under which ASID it runs, and what the CPU must forget of that first. */
static void prepare_translations(struct percpu *cpu, struct hvm_vcpu *vcpu, struct vmcb *vmcb)
{
    bool flush;
    uint32_t asid = asid_use(&cpu->asids, pfn((uint32_t)(vcpu->root >> 12)), vcpu->owner, &flush);
    flush |= vcpu->flush;
    vcpu->flush = 0;
    vmcb->tlb_control = !flush              ? VMCB_TLB_NOTHING
                        : has_flush_by_asid ? VMCB_TLB_FLUSH_ASID
                                            : VMCB_TLB_FLUSH_ALL;
    if (vmcb->asid != asid) {
        vmcb->asid = asid;
        vcpu->clean &= ~VMCB_CLEAN_ASID;
    }
    if (vmcb->nested_cr3 != vcpu->root) {
        vmcb->nested_cr3 = vcpu->root;
        vcpu->clean &= ~VMCB_CLEAN_NESTED;
    }
}

/* An interrupt goes in as a virtual one, which the guest takes at once: there is an emulator that
 * may deliver an injected one twice (APM 2 15.21.4). A window that was asked for, which is a
 * virtual interrupt too, opens behind the next exit, the IRET of the handler at the latest. */
static bool prepare_interrupt(struct hvm_vcpu *vcpu, struct vmcb *vmcb)
{
    if ((vcpu->pending & (HVM_EVENT_VALID | 0x700)) != HVM_EVENT_VALID ||
        !svm_may_interrupt(vcpu)) {
        return false;
    }
    if (vcpu->window) {
        svm_window(vcpu, false);
        svm_intercept(vcpu, 0, VMCB_INTERCEPT0_IRET, true);
        vcpu->window_later = 1;
    }
    vmcb->interrupt_control |= V_IRQ | V_PRIORITY | V_IGNORE_TPR | V_VECTOR(vcpu->pending & 0xff);
    vcpu->clean &= ~VMCB_CLEAN_INTERRUPTS;
    return true;
}

/* Takes a virtual interrupt back after an exit; true when it is still to be delivered: the guest
 * did not take it, or the exit broke that off, which the same emulator tells as of an exception. */
static bool withdraw_interrupt(struct hvm_vcpu *vcpu, struct vmcb *vmcb)
{
    uint64_t left = vmcb->interrupt_control & V_IRQ;
    uint32_t event = vmcb->exit_event;
    if (vcpu->window || !(vmcb->interrupt_control & V_PRIORITY)) {
        return false;
    }
    vmcb->interrupt_control &= ~(V_IRQ | V_PRIORITY | V_IGNORE_TPR | V_VECTOR(0xff));
    vcpu->clean &= ~VMCB_CLEAN_INTERRUPTS;
    if (vcpu->window_later) {
        vcpu->window_later = 0;
        svm_window(vcpu, true);
        svm_intercept(vcpu, 0, VMCB_INTERCEPT0_IRET, vcpu->nmi_masked);
    }
    return left != 0 || (event & HVM_EVENT_VALID && !hvm_event_is_software(event) &&
                         (event & 0xff) == (vcpu->pending & 0xff));
}

static void prepare_registers(struct hvm_vcpu *vcpu, struct vmcb *vmcb)
{
    vmcb->rax = vcpu->regs.rax;
    vmcb->rsp = vcpu->regs.rsp;
    vmcb->rip = vcpu->regs.rip;
    vmcb->rflags = vcpu->regs.rflags;
    write_cr2(vcpu->cr2); /* VMRUN does it too, but not on every emulator */
    if (vmcb->cr2 != vcpu->cr2) {
        vmcb->cr2 = vcpu->cr2;
        vcpu->clean &= ~VMCB_CLEAN_CR2;
    }
    if ((vmcb->interrupt_control & V_TPR) != vcpu->cr8) {
        vmcb->interrupt_control = (vmcb->interrupt_control & ~V_TPR) | (vcpu->cr8 & V_TPR);
        vcpu->clean &= ~VMCB_CLEAN_INTERRUPTS;
    }
    if (prepare_interrupt(vcpu, vmcb)) {
        vmcb->event = 0;
    } else {
        vmcb->event = vmcb->cr0 & CR0_PE ? vcpu->pending : vcpu->pending & ~HVM_EVENT_ERROR;
        vmcb->event_error = vcpu->pending_error;
    }
    if ((vcpu->pending & (HVM_EVENT_VALID | 0x700)) == (HVM_EVENT_VALID | 2u << 8)) {
        vcpu->nmi_masked = 1;
        svm_intercept(vcpu, 0, VMCB_INTERCEPT0_IRET, true);
    }
    vmcb->clean = vcpu->clean;
}

/* Takes over what the guest left, and an event whose delivery the exit broke off. */
static void after_exit(struct hvm_vcpu *vcpu, struct vmcb *vmcb)
{
    vcpu->regs.rax = vmcb->rax;
    vcpu->regs.rsp = vmcb->rsp;
    vcpu->regs.rip = vmcb->rip;
    vcpu->regs.rflags = vmcb->rflags;
    vcpu->cr2 = vmcb->cr2;
    vcpu->cr8 = vmcb->interrupt_control & V_TPR;
    vcpu->clean = VMCB_CLEAN_ALL;
    if (withdraw_interrupt(vcpu, vmcb)) {
        return;
    }
    vcpu->pending = vcpu->pending_error = 0;
    if (vmcb->exit_event & HVM_EVENT_VALID && !hvm_event_is_software(vmcb->exit_event)) {
        vcpu->pending = vmcb->exit_event;
        vcpu->pending_error = vmcb->exit_event_error;
    }
}

static void svm_run(struct hvm_vcpu *vcpu, struct hvm_exit *exit)
{
    struct percpu *cpu = this_cpu();
    struct vmcb *vmcb = svm_vmcb(vcpu);
    if (vcpu->pending == HVM_EVENT_SHUTDOWN) {
        *exit = (struct hvm_exit){.kind = HVM_EXIT_TRIPLE_FAULT, .code = VMEXIT_SHUTDOWN};
        return;
    }
    if (cpu->loaded != vcpu) {
        if (cpu->loaded != NULL) {
            svm_vcpu_unload(cpu->loaded);
        }
        if (switch_in(vcpu)) {
            vcpu->clean = 0;
        }
    }
    prepare_translations(cpu, vcpu, vmcb);
    prepare_registers(vcpu, vmcb);
    svm_enter(&vcpu->regs, vcpu->control, cpu->hvm_frame[1]);
    if ((uint32_t)vmcb->exit_code == (uint32_t)VMEXIT_INVALID) {
        (void)withdraw_interrupt(vcpu, vmcb);
        vcpu->clean = 0;
        vcpu->flush = 1; /* what was asked for with this entry may not have been done */
        *exit = (struct hvm_exit){
            .kind = HVM_EXIT_ENTRY_FAILED, .code = vmcb->exit_code, .detail = vmcb->exit_info1};
        return;
    }
    after_exit(vcpu, vmcb);
    svm_decode(vcpu, exit);
}

/* Nested translations are tagged with ASIDs (15.16): each one of the root is flushed as it is used
 * next, which is at the next entry of any vcpu that could use them. */
static void svm_flush_root(uint64_t root)
{
    asid_forget(&this_cpu()->asids, pfn((uint32_t)(root >> 12)));
}

static void svm_skip(struct hvm_vcpu *vcpu, const struct hvm_exit *exit)
{
    struct vmcb *vmcb = svm_vmcb(vcpu);
    vcpu->regs.rip += exit->length;
    vcpu->regs.rflags &= ~RFLAGS_RF;
    vmcb->shadow &= ~UINT64_C(1);
    if (vcpu->regs.rflags & RFLAGS_TF) { /* the instruction was a single step */
        vmcb->dr6 |= DR6_BS;
        vcpu->clean &= ~VMCB_CLEAN_DR;
        hvm_inject(vcpu, HVM_EVENT_EXCEPTION(EXCEPTION_DB), 0);
    }
}

const struct hvm_ops svm_ops = {
    .name = "SVM with NPT",
    .format = &npt_format,
    .present = svm_present,
    .prepare = svm_prepare,
    .cpu_enable = svm_cpu_enable,
    .vcpu_init = svm_vcpu_init,
    .vcpu_save = svm_vcpu_save,
    .vcpu_restore = svm_vcpu_restore,
    .vcpu_unload = svm_vcpu_unload,
    .run = svm_run,
    .inject = hvm_inject,
    .can_take_interrupt = svm_can_take_interrupt,
    .can_take_nmi = svm_can_take_nmi,
    .window = svm_window,
    .flush_root = svm_flush_root,
    .get = svm_get,
    .set = svm_set,
    .skip = svm_skip,
    .mode = svm_mode,
};
