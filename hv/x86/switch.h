/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What both world switches do by themselves because neither VMCB nor VMCS holds it: the FPU with
 * all of its extensions, XCR0, debug registers and TSC_AUX. A guest's stay in the CPU while its
 * vcpu is loaded; the hypervisor uses none of them.
 */
#ifndef X86_SWITCH_H
#define X86_SWITCH_H

#include "hvm.h"

#define RFLAGS_TF (UINT64_C(1) << 8)
#define RFLAGS_IF (UINT64_C(1) << 9)
#define RFLAGS_RF (UINT64_C(1) << 16)
#define DR6_BS (UINT64_C(1) << 14)
#define EXCEPTION_AC 17u
#define EXCEPTION_MC 18u

/* Bits of CR4 that guests have: VME to OSXMMEXCPT, UMIP, FSGSBASE, OSXSAVE, SMEP, SMAP, PKE. */
#define CR4_GUEST                                                                                  \
    (UINT64_C(0x7ff) | UINT64_C(1) << 11 | UINT64_C(1) << 16 | CR4_OSXSAVE | UINT64_C(7) << 20)
/* Bits of EFER that they have. */
#define EFER_GUEST (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)

/* The beginning of an XSAVE area: the legacy region as FXSAVE has it, and the header (SDM 1 13.4).
 */
struct xsave_area {
    uint16_t fcw, fsw;
    uint8_t unnamed1[20];
    uint32_t mxcsr, mxcsr_mask;
    uint8_t unnamed2[480];
    uint64_t components; /* XSTATE_BV */
    uint64_t compacted, reserved[6];
};

/* Is there XSAVE? Else says so. */
bool switch_present(void);
/* Makes the calling CPU ready for them. */
void switch_enable(void);

/* Sets what a vcpu has before its first load: owner, FPU as after a reset unless the area has one.
 */
void switch_init(struct hvm_vcpu *vcpu);
/* The fields of the state that live in struct hvm_vcpu, and back. */
void switch_save(struct hvm_vcpu *vcpu, struct hvm_state *state);
void switch_restore(struct hvm_vcpu *vcpu, const struct hvm_state *state);

/* Puts the vcpu's registers into this CPU, where none are; true when it last ran on another. */
bool switch_in(struct hvm_vcpu *vcpu);
/* Brings vcpu and XSAVE area up to date; its registers stay in this CPU. */
void switch_sync(struct hvm_vcpu *vcpu);

/* The vcpu's XCR0 now: there is an emulator that lets guests set it without an exit, so that `xcr0`
 * is right only behind switch_sync(). */
uint64_t switch_xcr0(const struct hvm_vcpu *vcpu);
/* Are they eight memory types? */
bool switch_pat_legal(uint64_t pat);
/* Changes the vcpu's XCR0 or TSC_AUX, in this CPU as well where it is loaded. */
void switch_set_xcr0(struct hvm_vcpu *vcpu, uint64_t value);
void switch_set_tsc_aux(struct hvm_vcpu *vcpu, uint64_t value);

/* A number for asid_use() that was never used before. */
uint64_t switch_new_owner(void);

/* hvm_ops.inject, on both. */
void hvm_inject(struct hvm_vcpu *vcpu, uint32_t event, uint32_t error);
/* A machine check in a guest is the host's: its handler reports it. */
static inline void hvm_machine_check(void) { __asm__ volatile("int $18" : : : "memory"); }
/* True for an event whose delivery is not to be repeated but its instruction executed again. */
static inline bool hvm_event_is_software(uint32_t event)
{
    uint32_t type = event >> 8 & 7, vector = event & 0xff;
    return type >= 4 || (type == 3 && (vector == 3 || vector == 4));
}

#endif
