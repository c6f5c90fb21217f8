/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The virtual-machine control structure of Intel VMX: field encodings (SDM 3D appendix B), controls
 * (SDM 3C 25.6 to 25.8), exit reasons (SDM 3D appendix C), and the instructions.
 */
#ifndef VMX_VMCS_H
#define VMX_VMCS_H

#define HOST_RSP 0x6c14 /* for enter.S */

#ifndef __ASSEMBLER__

#include "port.h"
#include "switch.h"

enum vmcs_field {
    VPID = 0x0000,
    GUEST_SELECTOR = 0x0800, /* of SEG_ES; the next ones are 2 apart, in the order of SEG_* */
    HOST_ES_SELECTOR = 0x0c00,
    HOST_CS_SELECTOR = 0x0c02,
    HOST_SS_SELECTOR = 0x0c04,
    HOST_DS_SELECTOR = 0x0c06,
    HOST_FS_SELECTOR = 0x0c08,
    HOST_GS_SELECTOR = 0x0c0a,
    HOST_TR_SELECTOR = 0x0c0c,
    MSR_BITMAP = 0x2004,
    TSC_OFFSET = 0x2010,
    EPT_POINTER = 0x201a,
    GUEST_PHYSICAL = 0x2400,
    VMCS_LINK = 0x2800,
    GUEST_DEBUGCTL = 0x2802,
    GUEST_PAT = 0x2804,
    GUEST_EFER = 0x2806,
    GUEST_PDPTE = 0x280a, /* four, 2 apart */
    HOST_PAT = 0x2c00,
    HOST_EFER = 0x2c02,
    PIN_CONTROLS = 0x4000,
    PRIMARY_CONTROLS = 0x4002,
    EXCEPTION_BITMAP = 0x4004,
    CR3_TARGETS = 0x400a,
    EXIT_CONTROLS = 0x400c,
    EXIT_MSR_STORES = 0x400e,
    EXIT_MSR_LOADS = 0x4010,
    ENTRY_CONTROLS = 0x4012,
    ENTRY_MSR_LOADS = 0x4014,
    ENTRY_EVENT = 0x4016,
    ENTRY_EVENT_ERROR = 0x4018,
    SECONDARY_CONTROLS = 0x401e,
    INSTRUCTION_ERROR = 0x4400,
    EXIT_REASON = 0x4402,
    EXIT_EVENT = 0x4404,
    EXIT_EVENT_ERROR = 0x4406,
    VECTORING_EVENT = 0x4408,
    VECTORING_EVENT_ERROR = 0x440a,
    EXIT_LENGTH = 0x440c,
    GUEST_LIMIT = 0x4800,
    GUEST_GDT_LIMIT = 0x4810,
    GUEST_IDT_LIMIT = 0x4812,
    GUEST_ATTRIBUTES = 0x4814,
    GUEST_INTERRUPTIBILITY = 0x4824,
    GUEST_ACTIVITY = 0x4826,
    GUEST_SYSENTER_CS = 0x482a,
    PREEMPTION_TIMER = 0x482e,
    HOST_SYSENTER_CS = 0x4c00,
    CR0_MASK = 0x6000,
    CR4_MASK = 0x6002,
    CR0_SHADOW = 0x6004,
    CR4_SHADOW = 0x6006,
    EXIT_QUALIFICATION = 0x6400,
    GUEST_LINEAR = 0x640a,
    GUEST_CR0 = 0x6800,
    GUEST_CR3 = 0x6802,
    GUEST_CR4 = 0x6804,
    GUEST_BASE = 0x6806,
    GUEST_GDT_BASE = 0x6816,
    GUEST_IDT_BASE = 0x6818,
    GUEST_DR7 = 0x681a,
    GUEST_RSP = 0x681c,
    GUEST_RIP = 0x681e,
    GUEST_RFLAGS = 0x6820,
    GUEST_PENDING_DEBUG = 0x6822,
    GUEST_SYSENTER_ESP = 0x6824,
    GUEST_SYSENTER_EIP = 0x6826,
    HOST_CR0 = 0x6c00,
    HOST_CR3 = 0x6c02,
    HOST_CR4 = 0x6c04,
    HOST_FS_BASE = 0x6c06,
    HOST_GS_BASE = 0x6c08,
    HOST_TR_BASE = 0x6c0a,
    HOST_GDT_BASE = 0x6c0c,
    HOST_IDT_BASE = 0x6c0e,
    HOST_SYSENTER_ESP = 0x6c10,
    HOST_SYSENTER_EIP = 0x6c12,
    HOST_RIP = 0x6c16
};

#define PIN_EXTERNAL_INTERRUPTS (1u << 0)
#define PIN_NMIS (1u << 3)
#define PIN_VIRTUAL_NMIS (1u << 5)
#define PIN_PREEMPTION_TIMER (1u << 6)
#define PRIMARY_WINDOW (1u << 2)
#define PRIMARY_TSC_OFFSET (1u << 3)
#define PRIMARY_HLT (1u << 7)
#define PRIMARY_MWAIT (1u << 10)
#define PRIMARY_RDPMC (1u << 11)
#define PRIMARY_CR3_LOAD (1u << 15)
#define PRIMARY_CR3_STORE (1u << 16)
#define PRIMARY_CR8_LOAD (1u << 19)
#define PRIMARY_CR8_STORE (1u << 20)
#define PRIMARY_IO (1u << 24)
#define PRIMARY_MSR_BITMAP (1u << 28)
#define PRIMARY_MONITOR (1u << 29)
#define PRIMARY_SECONDARY (1u << 31)
#define SECONDARY_EPT (1u << 1)
#define SECONDARY_RDTSCP (1u << 3)
#define SECONDARY_VPID (1u << 5)
#define SECONDARY_WBINVD (1u << 6)
#define SECONDARY_UNRESTRICTED (1u << 7)
#define EXIT_SAVE_DEBUG (1u << 2)
#define EXIT_HOST_64 (1u << 9)
#define EXIT_SAVE_PAT (1u << 18)
#define EXIT_LOAD_PAT (1u << 19)
#define EXIT_SAVE_EFER (1u << 20)
#define EXIT_LOAD_EFER (1u << 21)
#define ENTRY_LOAD_DEBUG (1u << 2)
#define ENTRY_GUEST_64 (1u << 9)
#define ENTRY_LOAD_PAT (1u << 14)
#define ENTRY_LOAD_EFER (1u << 15)

#define BLOCKED_BY_STI 1u /* GUEST_INTERRUPTIBILITY (25.4.2) */
#define BLOCKED_BY_MOV_SS 2u
#define BLOCKED_BY_NMI 8u
#define PENDING_DEBUG_STEP (UINT64_C(1) << 14)

enum vmx_exit {
    EXIT_EXCEPTION = 0,
    EXIT_INTERRUPT = 1,
    EXIT_TRIPLE_FAULT = 2,
    EXIT_WINDOW = 7,
    EXIT_CPUID = 10,
    EXIT_GETSEC = 11,
    EXIT_HLT = 12,
    EXIT_INVD = 13,
    EXIT_RDPMC = 15,
    EXIT_VMCALL = 18,
    EXIT_VMCLEAR = 19, /* up to VMXON: the instructions of VMX itself */
    EXIT_VMXON = 27,
    EXIT_CR = 28,
    EXIT_IO = 30,
    EXIT_RDMSR = 31,
    EXIT_WRMSR = 32,
    EXIT_MWAIT = 36,
    EXIT_MONITOR = 39,
    EXIT_EPT_VIOLATION = 48,
    EXIT_EPT_MISCONFIGURATION = 49,
    EXIT_INVEPT = 50,
    EXIT_PREEMPTION_TIMER = 52,
    EXIT_INVVPID = 53,
    EXIT_WBINVD = 54,
    EXIT_XSETBV = 55
};
#define EXIT_REASON_ENTRY_FAILED (1u << 31)

/* EPT violations (table 28-7). */
#define VIOLATION_WRITE (UINT64_C(1) << 1)
#define VIOLATION_FETCH (UINT64_C(1) << 2)
#define VIOLATION_LINEAR_VALID (UINT64_C(1) << 7)
#define VIOLATION_TRANSLATED (UINT64_C(1) << 8)
#define VIOLATION_NMI_UNBLOCKED (UINT64_C(1) << 12)

static inline uint64_t vmread(enum vmcs_field field)
{
    uint64_t value;
    bool failed;
    __asm__ volatile("vmread %2, %0"
                     : "=r"(value), "=@ccbe"(failed)
                     : "r"((uint64_t)field)
                     : "memory");
    MM_CHECK(!failed);
    return value;
}
static inline void vmwrite(enum vmcs_field field, uint64_t value)
{
    bool failed;
    __asm__ volatile("vmwrite %1, %2"
                     : "=@ccbe"(failed)
                     : "r"(value), "r"((uint64_t)field)
                     : "memory");
    MM_CHECK(!failed);
}
static inline void vmcs_load(uint64_t control)
{
    bool failed;
    __asm__ volatile("vmptrld %1" : "=@ccbe"(failed) : "m"(control) : "memory");
    MM_CHECK(!failed);
}
static inline void vmcs_clear(uint64_t control)
{
    bool failed;
    __asm__ volatile("vmclear %1" : "=@ccbe"(failed) : "m"(control) : "memory");
    MM_CHECK(!failed);
}

/* --- controls.c: what this CPU offers --------------------------------------------------------- */

struct vmx_controls {
    uint32_t revision;
    uint32_t pin, primary, secondary, exit, entry; /* values for new VMCSs */
    bool invept_single, invvpid_single;
    uint32_t millisecond; /* of the preemption timer; 0: there is none */
};
extern struct vmx_controls vmx_controls;
/* Fills vmx_controls; prints each feature that is missing and returns false when any is. */
bool vmx_controls_find(void);

/* --- state.c: the VMCS as a record ------------------------------------------------------------ */

/* CR0 and CR4 bits that are the host's; guests read and write them in the shadows. */
#define CR0_HOST (CR0_NE | CR0_NW | CR0_CD)
#define CR4_HOST (~CR4_GUEST)
/* CR0 and CR4 as the guest reads them, of the current VMCS. */
uint64_t vmx_guest_cr0(void);
uint64_t vmx_guest_cr4(void);
void vmx_state_save(struct hvm_vcpu *vcpu, struct hvm_state *state);
void vmx_state_restore(struct hvm_vcpu *vcpu, const struct hvm_state *state);

/* --- exit.c, vmx.c, enter.S ------------------------------------------------------------------- */

/* Decodes what the CPU left in the current VMCS, the vcpu's. */
void vmx_decode(struct hvm_vcpu *vcpu, struct hvm_exit *exit);
void vmx_window(struct hvm_vcpu *vcpu, bool wanted);

enum vmx_entry { VMX_EXITED, VMX_FAILED_INVALID, VMX_FAILED_VALID };
/* Runs the guest of the current VMCS until its next exit, with its registers but RSP, RIP and
 * RFLAGS from and to `regs`. Otherwise no guest instruction ran and `regs` is as before. */
enum vmx_entry vmx_enter(struct hvm_registers *regs, bool launched);
/* HOST_RIP; never called. */
void vmx_exit(void);

#endif
#endif
