/* SPDX-License-Identifier: BSD-2-Clause */
/* The virtual machine control block of AMD SVM: APM volume 2, appendix B; exit codes: appendix C.
 */
#ifndef SVM_VMCB_H
#define SVM_VMCB_H

#include "hvm.h"
#include "platform.h"

/* Attributes of hvm_segment are the VMCB's, but for the unusable bit. */
struct vmcb_segment {
    uint16_t selector, attributes;
    uint32_t limit;
    uint64_t base;
};

struct vmcb {
    uint16_t intercept_cr_read, intercept_cr_write;
    uint16_t intercept_dr_read, intercept_dr_write;
    uint32_t intercept_exceptions;
    uint32_t intercept[3]; /* VMCB_INTERCEPT */
    uint8_t reserved_018[0x3c - 0x18];
    uint16_t pause_threshold, pause_count;
    uint64_t iopm, msrpm, tsc_offset;
    uint32_t asid;
    uint32_t tlb_control;
    uint64_t interrupt_control; /* V_* */
    uint64_t shadow;            /* bit 0: in an interrupt shadow */
    uint64_t exit_code, exit_info1, exit_info2;
    uint32_t exit_event, exit_event_error; /* EXITINTINFO */
    uint64_t nested_control;
    uint8_t reserved_098[0xa8 - 0x98];
    uint32_t event, event_error; /* EVENTINJ */
    uint64_t nested_cr3;
    uint64_t lbr_control;
    uint32_t clean, reserved_0c4;
    uint64_t next_rip;
    uint8_t fetched, bytes[15];
    uint8_t reserved_0e0[0x400 - 0xe0];
    struct vmcb_segment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
    uint8_t reserved_4a0[0x4cb - 0x4a0];
    uint8_t cpl;
    uint32_t reserved_4cc;
    uint64_t efer;
    uint8_t reserved_4d8[0x548 - 0x4d8];
    uint64_t cr4, cr3, cr0, dr7, dr6, rflags, rip;
    uint8_t reserved_580[0x5d8 - 0x580];
    uint64_t rsp;
    uint8_t reserved_5e0[0x5f8 - 0x5e0];
    uint64_t rax, star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip, cr2;
    uint8_t reserved_648[0x668 - 0x648];
    uint64_t pat, debugctl;
    uint8_t reserved_678[0x1000 - 0x678];
};

#define VMCB_AT(field, offset)                                                                     \
    _Static_assert(offsetof(struct vmcb, field) == (offset), "APM 2, appendix B: " #field)
VMCB_AT(intercept_dr_read, 0x004);
VMCB_AT(intercept_exceptions, 0x008);
VMCB_AT(intercept, 0x00c);
VMCB_AT(pause_threshold, 0x03c);
VMCB_AT(pause_count, 0x03e);
VMCB_AT(iopm, 0x040);
VMCB_AT(msrpm, 0x048);
VMCB_AT(tsc_offset, 0x050);
VMCB_AT(asid, 0x058);
VMCB_AT(tlb_control, 0x05c);
VMCB_AT(interrupt_control, 0x060);
VMCB_AT(shadow, 0x068);
VMCB_AT(exit_code, 0x070);
VMCB_AT(exit_info1, 0x078);
VMCB_AT(exit_info2, 0x080);
VMCB_AT(exit_event, 0x088);
VMCB_AT(nested_control, 0x090);
VMCB_AT(event, 0x0a8);
VMCB_AT(nested_cr3, 0x0b0);
VMCB_AT(lbr_control, 0x0b8);
VMCB_AT(clean, 0x0c0);
VMCB_AT(next_rip, 0x0c8);
VMCB_AT(fetched, 0x0d0);
VMCB_AT(es, 0x400);
VMCB_AT(cs, 0x410);
VMCB_AT(ss, 0x420);
VMCB_AT(ds, 0x430);
VMCB_AT(fs, 0x440);
VMCB_AT(gs, 0x450);
VMCB_AT(gdtr, 0x460);
VMCB_AT(ldtr, 0x470);
VMCB_AT(idtr, 0x480);
VMCB_AT(tr, 0x490);
VMCB_AT(cpl, 0x4cb);
VMCB_AT(efer, 0x4d0);
VMCB_AT(cr4, 0x548);
VMCB_AT(cr3, 0x550);
VMCB_AT(cr0, 0x558);
VMCB_AT(dr7, 0x560);
VMCB_AT(dr6, 0x568);
VMCB_AT(rflags, 0x570);
VMCB_AT(rip, 0x578);
VMCB_AT(rsp, 0x5d8);
VMCB_AT(rax, 0x5f8);
VMCB_AT(star, 0x600);
VMCB_AT(lstar, 0x608);
VMCB_AT(cstar, 0x610);
VMCB_AT(sfmask, 0x618);
VMCB_AT(kernel_gs_base, 0x620);
VMCB_AT(sysenter_cs, 0x628);
VMCB_AT(sysenter_esp, 0x630);
VMCB_AT(sysenter_eip, 0x638);
VMCB_AT(cr2, 0x640);
VMCB_AT(pat, 0x668);
VMCB_AT(debugctl, 0x670);
_Static_assert(sizeof(struct vmcb) == 4096, "APM 2, appendix B: a VMCB is one page");

/* Intercepts, by word of `intercept`. */
#define VMCB_INTERCEPT0_INTR (1u << 0)
#define VMCB_INTERCEPT0_NMI (1u << 1)
#define VMCB_INTERCEPT0_INIT (1u << 3)
#define VMCB_INTERCEPT0_VINTR (1u << 4)
#define VMCB_INTERCEPT0_RDPMC (1u << 15)
#define VMCB_INTERCEPT0_CPUID (1u << 18)
#define VMCB_INTERCEPT0_IRET (1u << 20)
#define VMCB_INTERCEPT0_INVD (1u << 22)
#define VMCB_INTERCEPT0_HLT (1u << 24)
#define VMCB_INTERCEPT0_INVLPGA (1u << 26)
#define VMCB_INTERCEPT0_IO (1u << 27)
#define VMCB_INTERCEPT0_MSR (1u << 28)
#define VMCB_INTERCEPT0_SHUTDOWN (1u << 31)
#define VMCB_INTERCEPT1_VMRUN (1u << 0)
#define VMCB_INTERCEPT1_VMMCALL (1u << 1)
#define VMCB_INTERCEPT1_VMLOAD (1u << 2)
#define VMCB_INTERCEPT1_VMSAVE (1u << 3)
#define VMCB_INTERCEPT1_STGI (1u << 4)
#define VMCB_INTERCEPT1_CLGI (1u << 5)
#define VMCB_INTERCEPT1_SKINIT (1u << 6)
#define VMCB_INTERCEPT1_WBINVD (1u << 9)
#define VMCB_INTERCEPT1_MONITOR (1u << 10)
#define VMCB_INTERCEPT1_MWAIT (1u << 11)
#define VMCB_INTERCEPT1_MWAIT_ARMED (1u << 12)
#define VMCB_INTERCEPT1_XSETBV (1u << 13)
#define VMCB_INTERCEPT1_RDPRU (1u << 14)

#define VMCB_TLB_NOTHING 0u
#define VMCB_TLB_FLUSH_ALL 1u
#define VMCB_TLB_FLUSH_ASID 3u

#define V_TPR UINT64_C(0xf)
#define V_IRQ (UINT64_C(1) << 8)
#define V_PRIORITY (UINT64_C(0xf) << 16)
#define V_IGNORE_TPR (UINT64_C(1) << 20)
#define V_VECTOR(vector) ((uint64_t)(vector) << 32)
#define V_INTR_MASKING (UINT64_C(1) << 24)

#define VMCB_NESTED_PAGING UINT64_C(1)

/* What the CPU may keep of this VMCB since it last ran it here (15.15.3). */
#define VMCB_CLEAN_INTERCEPTS (1u << 0)
#define VMCB_CLEAN_ASID (1u << 2)
#define VMCB_CLEAN_INTERRUPTS (1u << 3)
#define VMCB_CLEAN_NESTED (1u << 4)
#define VMCB_CLEAN_CR (1u << 5)
#define VMCB_CLEAN_DR (1u << 6)
#define VMCB_CLEAN_CR2 (1u << 9)
#define VMCB_CLEAN_ALL 0x7ffu

enum vmcb_exit {
    VMEXIT_EXCEPTION = 0x40,
    VMEXIT_INTR = 0x60,
    VMEXIT_NMI = 0x61,
    VMEXIT_INIT = 0x63,
    VMEXIT_VINTR = 0x64,
    VMEXIT_RDPMC = 0x6f,
    VMEXIT_CPUID = 0x72,
    VMEXIT_IRET = 0x74,
    VMEXIT_INVD = 0x76,
    VMEXIT_HLT = 0x78,
    VMEXIT_INVLPGA = 0x7a,
    VMEXIT_IO = 0x7b,
    VMEXIT_MSR = 0x7c,
    VMEXIT_SHUTDOWN = 0x7f,
    VMEXIT_VMRUN = 0x80,
    VMEXIT_VMMCALL = 0x81,
    VMEXIT_VMLOAD = 0x82,
    VMEXIT_SKINIT = 0x86,
    VMEXIT_WBINVD = 0x89,
    VMEXIT_MONITOR = 0x8a,
    VMEXIT_MWAIT_ARMED = 0x8c,
    VMEXIT_XSETBV = 0x8d,
    VMEXIT_RDPRU = 0x8e,
    VMEXIT_NPF = 0x400
};
#define VMEXIT_INVALID UINT64_MAX /* low half alone where the CPU stores 32 bits */

#define NPF_WRITE (UINT64_C(1) << 1)
#define NPF_FETCH (UINT64_C(1) << 4)
#define NPF_WALKING (UINT64_C(1) << 33)

#define EXIT_IO_IN (UINT64_C(1) << 0)
#define EXIT_IO_STRING (UINT64_C(1) << 2)

static inline struct vmcb *svm_vmcb(const struct hvm_vcpu *vcpu)
{
    return host_pointer(vcpu->control);
}

/* svm.c: */
extern bool svm_has_next_rip; /* does this CPU store the address of the next instruction? */
void svm_window(struct hvm_vcpu *vcpu, bool wanted);
/* Changes bits of `intercept[word]`. */
void svm_intercept(struct hvm_vcpu *vcpu, unsigned word, uint32_t bits, bool wanted);

/* exit.c: decodes what the CPU left in the VMCB. */
void svm_decode(struct hvm_vcpu *vcpu, struct hvm_exit *exit);

/* enter.S: runs the guest of the VMCB at `control` until its next exit, with its registers but RAX,
 * RSP, RIP and RFLAGS from and to `regs`. `host` is the page that the host's VMSAVE went to. */
void svm_enter(struct hvm_registers *regs, uint64_t control, uint64_t host);

#endif
