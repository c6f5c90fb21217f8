/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Intel VMX with EPT (SDM 3C chapters 24 to 32): enabling it, VMCSs and entries. A CPU's current
 * VMCS is that of the vcpu that is loaded there; others are borrowed for a moment. Every VMCS that
 * is not loaded is clear, so that it may be loaded on another CPU.
 */
#include "platform.h"
#include "switch.h"
#include "vmcs.h"

#define FEATURE_LOCKED (UINT64_C(1) << 0)
#define FEATURE_VMX (UINT64_C(1) << 2)

#define EPTP_WRITE_BACK UINT64_C(6)
#define EPTP_LEVELS_4 (UINT64_C(3) << 3)
#define EPTP_DIRTY_BITS (UINT64_C(1) << 6)

enum invalidate { INVALIDATE_SINGLE = 1, INVALIDATE_ALL = 2 };

static uint64_t msr_bitmap; /* host-physical */

/* --- Enabling --------------------------------------------------------------------------------- */

static bool vmx_present(void)
{
    bool complete = vmx_controls_find();
    return switch_present() && complete;
}

/* RDMSR and WRMSR of `msr` go to the CPU (25.6.9). */
static void msr_pass(uint8_t *map, uint32_t msr)
{
    uint32_t byte = (msr & 0x1fff) / 8 + (msr >= 0xc0000000u ? 0x400u : 0);
    map[byte] &= (uint8_t) ~(1u << msr % 8);
    map[byte + 0x800] &= (uint8_t) ~(1u << msr % 8);
}

static void vmx_prepare(void)
{
    /* What the VMCS holds and what msrs_in() switches. */
    static const uint32_t passed[] = {
        MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP, MSR_FS_BASE, MSR_GS_BASE,
        MSR_STAR,        MSR_LSTAR,        MSR_CSTAR,        MSR_SFMASK,  MSR_KERNEL_GS_BASE,
    };
    msr_bitmap = boot_take(PAGE_SIZE, PAGE_SIZE, "MSR bitmap");
    uint8_t *map = host_pointer(msr_bitmap);
    for (unsigned i = 0; i < PAGE_SIZE; i++) {
        map[i] = 0xff;
    }
    for (unsigned i = 0; i < sizeof(passed) / sizeof(passed[0]); i++) {
        msr_pass(map, passed[i]);
    }
}

static uint64_t ept_pointer(uint64_t root)
{
    return root | EPTP_WRITE_BACK | EPTP_LEVELS_4 | (hvm_ept_dirty_bits ? EPTP_DIRTY_BITS : 0);
}

static void invept(enum invalidate type, uint64_t root)
{
    const uint64_t descriptor[2] = {ept_pointer(root), 0};
    bool failed;
    __asm__ volatile("invept %1, %2"
                     : "=@ccbe"(failed)
                     : "m"(descriptor), "r"((uint64_t)type)
                     : "memory");
    MM_CHECK(!failed);
}

static void invvpid(enum invalidate type, uint32_t vpid)
{
    const uint64_t descriptor[2] = {vpid, 0};
    bool failed;
    __asm__ volatile("invvpid %1, %2"
                     : "=@ccbe"(failed)
                     : "m"(descriptor), "r"((uint64_t)type)
                     : "memory");
    MM_CHECK(!failed);
}

static bool vmx_cpu_enable(struct percpu *cpu)
{
    uint64_t feature = rdmsr(MSR_FEATURE_CONTROL);
    bool failed;
    if (!(feature & FEATURE_LOCKED)) {
        feature |= FEATURE_LOCKED | FEATURE_VMX;
        wrmsr(MSR_FEATURE_CONTROL, feature);
    }
    if (!(feature & FEATURE_VMX)) {
        print("CPU %u: VMX is disabled by the firmware\n", cpu->id);
        return false;
    }
    switch_enable();
    write_cr4(read_cr4() | CR4_VMXE);
    *(uint32_t *)host_pointer(cpu->hvm_frame[0]) = vmx_controls.revision;
    __asm__ volatile("vmxon %1" : "=@ccbe"(failed) : "m"(cpu->hvm_frame[0]) : "memory");
    if (failed) {
        print("CPU %u: VMXON of %lx failed\n", cpu->id, cpu->hvm_frame[0]);
        return false;
    }
    invept(INVALIDATE_ALL, 0);
    invvpid(INVALIDATE_ALL, 0);
    cpu->asids.limit = ASID_MAX;
    return true;
}

/* --- Loading ---------------------------------------------------------------------------------- */

static void msrs_in(const struct hvm_vcpu *vcpu)
{
    wrmsr(MSR_STAR, vcpu->msrs.star);
    wrmsr(MSR_LSTAR, vcpu->msrs.lstar);
    wrmsr(MSR_CSTAR, vcpu->msrs.cstar);
    wrmsr(MSR_SFMASK, vcpu->msrs.sfmask);
    wrmsr(MSR_KERNEL_GS_BASE, vcpu->msrs.kernel_gs_base);
    __asm__ volatile("mov %0, %%db6" : : "r"(vcpu->dr6));
}

static void sync(struct hvm_vcpu *vcpu)
{
    vcpu->msrs = (struct hvm_msrs){rdmsr(MSR_STAR), rdmsr(MSR_LSTAR), rdmsr(MSR_CSTAR),
                                   rdmsr(MSR_SFMASK), rdmsr(MSR_KERNEL_GS_BASE)};
    __asm__ volatile("mov %%db6, %0" : "=r"(vcpu->dr6));
    switch_sync(vcpu);
}

struct descriptor_table {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

/* Base of the 16-byte descriptor of the TSS (SDM 3A 8.2.3). */
static uint64_t tss_base(const struct descriptor_table *gdt, uint16_t selector)
{
    const uint64_t *d = (const uint64_t *)(gdt->base + (selector & 0xfff8u));
    return (d[0] >> 16 & 0xffffff) | (d[0] >> 56 & 0xff) << 24 | d[1] << 32;
}

/* What the CPU loads at an exit: this CPU as it is now. */
static void host_state(void)
{
    struct descriptor_table gdt, idt;
    uint16_t cs, ss, tr;
    __asm__ volatile("sgdt %0" : "=m"(gdt));
    __asm__ volatile("sidt %0" : "=m"(idt));
    __asm__ volatile("mov %%cs, %0" : "=rm"(cs));
    __asm__ volatile("mov %%ss, %0" : "=rm"(ss));
    __asm__ volatile("str %0" : "=rm"(tr));
    vmwrite(HOST_CS_SELECTOR, cs);
    vmwrite(HOST_SS_SELECTOR, ss);
    vmwrite(HOST_DS_SELECTOR, ss);
    vmwrite(HOST_ES_SELECTOR, ss);
    vmwrite(HOST_FS_SELECTOR, 0);
    vmwrite(HOST_GS_SELECTOR, 0);
    vmwrite(HOST_TR_SELECTOR, tr);
    vmwrite(HOST_FS_BASE, 0);
    vmwrite(HOST_GS_BASE, (uint64_t)this_cpu());
    vmwrite(HOST_TR_BASE, tss_base(&gdt, tr));
    vmwrite(HOST_GDT_BASE, gdt.base);
    vmwrite(HOST_IDT_BASE, idt.base);
    vmwrite(HOST_CR0, read_cr0());
    vmwrite(HOST_CR3, read_cr3());
    vmwrite(HOST_CR4, read_cr4());
    vmwrite(HOST_EFER, rdmsr(MSR_EFER));
    vmwrite(HOST_PAT, rdmsr(MSR_PAT));
    vmwrite(HOST_SYSENTER_CS, 0);
    vmwrite(HOST_SYSENTER_ESP, 0);
    vmwrite(HOST_SYSENTER_EIP, 0);
    vmwrite(HOST_RIP, (uint64_t)vmx_exit);
}

/* Makes the vcpu's VMCS the current one until give_back(). */
static void borrow(const struct hvm_vcpu *vcpu)
{
    if (this_cpu()->loaded != vcpu) {
        vmcs_load(vcpu->control);
    }
}

static void give_back(struct hvm_vcpu *vcpu)
{
    const struct hvm_vcpu *loaded = this_cpu()->loaded;
    if (loaded != vcpu) {
        vmcs_clear(vcpu->control);
        if (loaded != NULL) {
            vmcs_load(loaded->control);
        }
    }
}

static void drop(struct hvm_vcpu *vcpu)
{
    vmcs_clear(vcpu->control);
    vcpu->launched = 0;
    vcpu->loaded_on = -1;
    this_cpu()->loaded = NULL;
}

static void vmx_vcpu_unload(struct hvm_vcpu *vcpu)
{
    if (this_cpu()->loaded == vcpu) {
        sync(vcpu);
        drop(vcpu);
    }
}

static void load(struct hvm_vcpu *vcpu)
{
    struct hvm_vcpu *loaded = this_cpu()->loaded;
    if (loaded != NULL) {
        vmx_vcpu_unload(loaded);
    }
    vmcs_load(vcpu->control);
    (void)switch_in(vcpu);
    msrs_in(vcpu);
    host_state();
}

/* --- State ------------------------------------------------------------------------------------ */

static void vmx_vcpu_save(struct hvm_vcpu *vcpu, struct hvm_state *state)
{
    if (this_cpu()->loaded == vcpu) {
        sync(vcpu);
    }
    borrow(vcpu);
    vmx_state_save(vcpu, state);
    give_back(vcpu);
}

static void vmx_vcpu_restore(struct hvm_vcpu *vcpu, const struct hvm_state *state)
{
    if (this_cpu()->loaded == vcpu) {
        drop(vcpu); /* what this CPU holds of it is replaced */
    }
    borrow(vcpu);
    vmx_state_restore(vcpu, state);
    give_back(vcpu);
}

static void vmx_vcpu_init(struct hvm_vcpu *vcpu, const struct hvm_state *state)
{
    if (this_cpu()->loaded == vcpu) {
        drop(vcpu);
    }
    switch_init(vcpu);
    *(uint32_t *)host_pointer(vcpu->control) = vmx_controls.revision;
    vmcs_clear(vcpu->control);
    borrow(vcpu);
    vmwrite(PIN_CONTROLS, vmx_controls.pin);
    vmwrite(PRIMARY_CONTROLS, vmx_controls.primary);
    vmwrite(SECONDARY_CONTROLS, vmx_controls.secondary);
    vmwrite(EXIT_CONTROLS, vmx_controls.exit);
    /* Loops that never end while the CPU delivers #DB or #AC are broken by an exit. */
    vmwrite(EXCEPTION_BITMAP, 1u << EXCEPTION_DB | 1u << EXCEPTION_AC | 1u << EXCEPTION_MC);
    vmwrite(MSR_BITMAP, msr_bitmap);
    vmwrite(EPT_POINTER, ept_pointer(vcpu->root));
    vmwrite(VMCS_LINK, UINT64_MAX);
    vmwrite(CR3_TARGETS, 0);
    vmwrite(EXIT_MSR_STORES, 0);
    vmwrite(EXIT_MSR_LOADS, 0);
    vmwrite(ENTRY_MSR_LOADS, 0);
    vmwrite(ENTRY_EVENT, 0);
    vmwrite(CR0_MASK, CR0_HOST);
    vmwrite(CR4_MASK, CR4_HOST);
    vmx_state_restore(vcpu, state);
    give_back(vcpu);
}

static uint64_t get_current(enum hvm_field field)
{
    switch (field) {
    case HVM_FIELD_CR4:
        return vmx_guest_cr4();
    case HVM_FIELD_EFER:
        return vmread(GUEST_EFER);
    case HVM_FIELD_PAT:
        return vmread(GUEST_PAT);
    case HVM_FIELD_TSC_OFFSET:
        return vmread(TSC_OFFSET);
    }
    __builtin_unreachable();
}

static uint64_t vmx_get(struct hvm_vcpu *vcpu, enum hvm_field field)
{
    borrow(vcpu);
    uint64_t value = get_current(field);
    give_back(vcpu);
    return value;
}

static void vmx_set(struct hvm_vcpu *vcpu, enum hvm_field field, uint64_t value)
{
    borrow(vcpu);
    switch (field) {
    case HVM_FIELD_CR4:
        vmwrite(GUEST_CR4, (value & ~CR4_HOST) | CR4_VMXE);
        vmwrite(CR4_SHADOW, value);
        break;
    case HVM_FIELD_EFER:
        vmwrite(GUEST_EFER, value);
        break;
    case HVM_FIELD_PAT:
        vmwrite(GUEST_PAT, value);
        break;
    case HVM_FIELD_TSC_OFFSET:
        vmwrite(TSC_OFFSET, value);
        break;
    }
    give_back(vcpu);
}

static void vmx_mode(struct hvm_vcpu *vcpu, uint64_t *cr0, uint64_t *cr3, uint64_t *cr4,
                     uint64_t *efer, unsigned *cpl, bool *code64)
{
    borrow(vcpu);
    *cr0 = vmx_guest_cr0();
    *cr3 = vmread(GUEST_CR3);
    *cr4 = vmx_guest_cr4();
    *efer = vmread(GUEST_EFER);
    *cpl = vmread(GUEST_ATTRIBUTES + 2 * SEG_SS) >> 5 & 3;
    *code64 = (*efer & EFER_LMA) && vmread(GUEST_ATTRIBUTES + 2 * SEG_CS) >> 13 & 1;
    give_back(vcpu);
}

/* --- Events ----------------------------------------------------------------------------------- */

static bool vmx_can_take_interrupt(struct hvm_vcpu *vcpu)
{
    borrow(vcpu);
    bool shadow = vmread(GUEST_INTERRUPTIBILITY) & (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS);
    give_back(vcpu);
    return vcpu->regs.rflags & RFLAGS_IF && !shadow && !(vcpu->pending & HVM_EVENT_VALID);
}

static bool vmx_can_take_nmi(struct hvm_vcpu *vcpu)
{
    borrow(vcpu);
    uint64_t blocked =
        vmread(GUEST_INTERRUPTIBILITY) & (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS | BLOCKED_BY_NMI);
    give_back(vcpu);
    return blocked == 0 && !(vcpu->pending & HVM_EVENT_VALID);
}

void vmx_window(struct hvm_vcpu *vcpu, bool wanted)
{
    if (vcpu->window != wanted) {
        vcpu->window = wanted;
        borrow(vcpu);
        vmwrite(PRIMARY_CONTROLS, vmx_controls.primary | (wanted ? PRIMARY_WINDOW : 0));
        give_back(vcpu);
    }
}

static void vmx_skip(struct hvm_vcpu *vcpu, const struct hvm_exit *exit)
{
    vcpu->regs.rip += exit->length;
    vcpu->regs.rflags &= ~RFLAGS_RF;
    borrow(vcpu);
    if (vcpu->regs.rflags & RFLAGS_TF) { /* the instruction was a single step */
        vmwrite(GUEST_PENDING_DEBUG, vmread(GUEST_PENDING_DEBUG) | PENDING_DEBUG_STEP);
    }
    vmwrite(GUEST_INTERRUPTIBILITY,
            vmread(GUEST_INTERRUPTIBILITY) & ~(uint64_t)(BLOCKED_BY_STI | BLOCKED_BY_MOV_SS));
    give_back(vcpu);
}

/* --- Entry ------------------------------------------------------------------------------------ */

static void prepare_translations(struct percpu *cpu, struct hvm_vcpu *vcpu)
{
    bool flush;
    uint32_t vpid = asid_use(&cpu->asids, pfn((uint32_t)(vcpu->root >> 12)), vcpu->owner, &flush);
    flush |= vcpu->flush;
    vcpu->flush = 0;
    vmwrite(VPID, vpid);
    vmwrite(EPT_POINTER, ept_pointer(vcpu->root));
    if (flush) {
        invvpid(vmx_controls.invvpid_single ? INVALIDATE_SINGLE : INVALIDATE_ALL, vpid);
    }
}

static void prepare_registers(struct hvm_vcpu *vcpu)
{
    vmwrite(GUEST_RSP, vcpu->regs.rsp);
    vmwrite(GUEST_RIP, vcpu->regs.rip);
    vmwrite(GUEST_RFLAGS, vcpu->regs.rflags);
    write_cr2(vcpu->cr2);
    if (vcpu->pending & HVM_EVENT_VALID) {
        bool real = !(vmread(GUEST_CR0) & CR0_PE); /* no error codes there (27.2.1.3) */
        vmwrite(ENTRY_EVENT, real ? vcpu->pending & ~HVM_EVENT_ERROR : vcpu->pending);
        vmwrite(ENTRY_EVENT_ERROR, vcpu->pending_error);
    } else {
        vmwrite(ENTRY_EVENT, 0);
    }
    /* A single step that a shadow has put off must be known to the CPU (27.3.1.5). */
    if (vcpu->regs.rflags & RFLAGS_TF &&
        vmread(GUEST_INTERRUPTIBILITY) & (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS)) {
        vmwrite(GUEST_PENDING_DEBUG, vmread(GUEST_PENDING_DEBUG) | PENDING_DEBUG_STEP);
    }
}

/* A physical interrupt ends the guest whatever its IF (25.6.1). There is an emulator that forgets
 * this of guests entered with IF clear: they are looked after once in a millisecond. */
static void prepare_timer(const struct hvm_vcpu *vcpu)
{
    if (vmx_controls.millisecond != 0) {
        bool enabled = vcpu->regs.rflags & RFLAGS_IF;
        vmwrite(PREEMPTION_TIMER, enabled ? UINT32_MAX : vmx_controls.millisecond);
    }
}

/* Takes over what the guest left, and an event whose delivery the exit broke off. */
static void after_exit(struct hvm_vcpu *vcpu)
{
    vcpu->launched = 1;
    vcpu->regs.rsp = vmread(GUEST_RSP);
    vcpu->regs.rip = vmread(GUEST_RIP);
    vcpu->regs.rflags = vmread(GUEST_RFLAGS);
    vcpu->cr2 = read_cr2();
    vcpu->pending = vcpu->pending_error = 0;
    uint32_t event = (uint32_t)vmread(VECTORING_EVENT);
    if (event & HVM_EVENT_VALID && !hvm_event_is_software(event)) {
        vcpu->pending = event & (HVM_EVENT_VALID | HVM_EVENT_ERROR | 0x7ffu);
        vcpu->pending_error = event & HVM_EVENT_ERROR ? (uint32_t)vmread(VECTORING_EVENT_ERROR) : 0;
        if ((event >> 8 & 7) == 2) { /* it did not arrive: none is masked yet */
            vmwrite(GUEST_INTERRUPTIBILITY,
                    vmread(GUEST_INTERRUPTIBILITY) & ~(uint64_t)BLOCKED_BY_NMI);
        }
    }
}

static void vmx_run(struct hvm_vcpu *vcpu, struct hvm_exit *exit)
{
    struct percpu *cpu = this_cpu();
    if (vcpu->pending == HVM_EVENT_SHUTDOWN) {
        *exit = (struct hvm_exit){.kind = HVM_EXIT_TRIPLE_FAULT, .code = EXIT_TRIPLE_FAULT};
        return;
    }
    if (cpu->loaded != vcpu) {
        load(vcpu);
    }
    prepare_translations(cpu, vcpu);
    prepare_registers(vcpu);
    prepare_timer(vcpu);
    enum vmx_entry entry = vmx_enter(&vcpu->regs, vcpu->launched);
    if (entry != VMX_EXITED) {
        *exit = (struct hvm_exit){
            .kind = HVM_EXIT_ENTRY_FAILED,
            .code = UINT64_MAX,
            .detail = entry == VMX_FAILED_VALID ? vmread(INSTRUCTION_ERROR) : 0,
        };
        return;
    }
    uint32_t reason = (uint32_t)vmread(EXIT_REASON);
    if (reason & EXIT_REASON_ENTRY_FAILED) { /* the VMCS is as it was (27.8) */
        *exit = (struct hvm_exit){.kind = HVM_EXIT_ENTRY_FAILED,
                                  .code = reason & 0xffff,
                                  .detail = vmread(EXIT_QUALIFICATION)};
        return;
    }
    after_exit(vcpu);
    vmx_decode(vcpu, exit);
}

static void vmx_flush_root(uint64_t root)
{
    invept(vmx_controls.invept_single ? INVALIDATE_SINGLE : INVALIDATE_ALL, root);
}

const struct hvm_ops vmx_ops = {
    .name = "VMX with EPT",
    .format = &ept_format,
    .present = vmx_present,
    .prepare = vmx_prepare,
    .cpu_enable = vmx_cpu_enable,
    .vcpu_init = vmx_vcpu_init,
    .vcpu_save = vmx_vcpu_save,
    .vcpu_restore = vmx_vcpu_restore,
    .vcpu_unload = vmx_vcpu_unload,
    .run = vmx_run,
    .inject = hvm_inject,
    .can_take_interrupt = vmx_can_take_interrupt,
    .can_take_nmi = vmx_can_take_nmi,
    .window = vmx_window,
    .flush_root = vmx_flush_root,
    .get = vmx_get,
    .set = vmx_set,
    .skip = vmx_skip,
    .mode = vmx_mode,
};
