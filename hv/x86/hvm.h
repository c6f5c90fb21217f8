/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One interface over Intel VMX and AMD SVM: making virtual CPUs, entering them, decoding why they
 * left, and their whole state as a record that both understand. vmx/ and svm/ each fill a
 * `struct hvm_ops`; which one runs is chosen at boot. Nothing here knows domains or memory policy.
 */
#ifndef X86_HVM_H
#define X86_HVM_H

#include "cpu.h"
#include "pte.h"
#include "types.h"

/* General registers in the order of the ModRM encoding; RSP, RIP and RFLAGS are in the VMCB or
 * VMCS while the vcpu is loaded, and are copied here at each exit and from here at each entry. */
struct hvm_registers {
    uint64_t rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi;
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t rip, rflags;
};

/* `attributes`: type 3:0, S 4, DPL 6:5, P 7, AVL 8, L 9, D/B 10, G 11, unusable 12. */
struct hvm_segment {
    uint16_t selector;
    uint16_t attributes;
    uint32_t limit;
    uint64_t base;
};
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

/* Everything that makes a virtual CPU, but its XSAVE area. What a fork copies, what two vcpus that
 * are in the same state have equal byte for byte. */
struct hvm_state {
    struct hvm_registers regs;
    struct hvm_segment segment[SEG_COUNT];
    uint64_t gdt_base, idt_base;
    uint32_t gdt_limit, idt_limit;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0;
    uint64_t dr[4], dr6, dr7;
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, tsc_aux, debugctl;
    uint64_t tsc_offset;       /* added to the host's TSC */
    uint32_t interruptibility; /* 1: in the shadow of STI or MOV SS; 2: NMIs masked */
    uint32_t pending;          /* event to inject at the next entry: vector 7:0, type 10:8, error
                                  code valid 11, valid 31 (SDM 3C 25.8.3, APM 2 15.20: alike) */
    uint32_t pending_error;
    uint32_t reserved;
};

enum hvm_exit_kind {
    HVM_EXIT_INTERRUPT, /* a physical interrupt or NMI: take it with cpu_take_interrupts() */
    HVM_EXIT_WINDOW,    /* the window asked for with hvm_ops.window is open */
    HVM_EXIT_NESTED,    /* nested page fault: gpa, access */
    HVM_EXIT_HYPERCALL,
    HVM_EXIT_CPUID,
    HVM_EXIT_RDMSR,
    HVM_EXIT_WRMSR,
    HVM_EXIT_IO, /* port, size, io_in, io_string */
    HVM_EXIT_HLT,
    HVM_EXIT_CR, /* a CR access that the guest may not make by itself; see cr_* */
    HVM_EXIT_XSETBV,
    HVM_EXIT_INVALID_OP, /* an instruction that guests do not have here: inject #UD */
    HVM_EXIT_TRIPLE_FAULT,
    HVM_EXIT_ENTRY_FAILED, /* the CPU refused the state: code, detail. No guest instruction ran */
    HVM_EXIT_UNKNOWN       /* code, detail */
};

struct hvm_exit {
    enum hvm_exit_kind kind;
    uint8_t length; /* bytes of the instruction that caused it, where it is to be skipped */
    uint8_t size;   /* IO: 1, 2, 4 */
    uint8_t io_in, io_string;
    uint8_t access;  /* NESTED: enum access */
    uint8_t walking; /* NESTED: while the CPU walked the guest's page tables */
    uint8_t linear_valid;
    uint8_t cr, cr_write, cr_register; /* CR: number, direction, index into hvm_registers */
    uint16_t port;
    uint64_t gpa;    /* NESTED */
    uint64_t linear; /* NESTED: guest-linear address where linear_valid */
    uint64_t code;   /* the CPU's own exit code or reason */
    uint64_t detail; /* EXITINFO1, or the exit qualification, or the VM-instruction error */
};

/* The part of a vcpu that the world switch owns. Embedded in struct vcpu (hv/kernel/vcpu.h). */
struct hvm_vcpu {
    struct hvm_registers regs; /* valid between exits and entries; change freely */
    uint64_t control;          /* host-physical address of its VMCB or VMCS page */
    void *xsave;               /* its XSAVE area, a page of its own, 64-byte aligned */
    uint64_t xcr0;             /* loaded around the guest */
    uint64_t cr2;
    uint64_t root;       /* host-physical address of the nested root table */
    struct asid asid[1]; /* of the CPU that last ran it */
    int loaded_on;       /* CPU whose VMCS this is current or cached on; -1: none */
    uint8_t launched;    /* VMX: VMRESUME instead of VMLAUNCH */
    uint8_t flush;       /* invalidate this vcpu's translations at the next entry */
    uint64_t extra[16];  /* the world switch's own; see vmx.c, svm.c */
};

struct hvm_ops {
    const char *name; /* "SVM with NPT", "VMX with EPT" */
    const struct pt_format *format;
    /* Does this CPU have it, enabled and complete? Else prints each feature that is missing. */
    bool (*present)(void);
    /* Turns it on for the calling CPU; `cpu->hvm_frame` are two zeroed frames. */
    bool (*cpu_enable)(struct percpu *cpu);
    /* Makes the control structure of a vcpu whose `control`, `xsave` and `root` are set, in the
     * state `state`. The vcpu is loaded nowhere. */
    bool (*vcpu_init)(struct hvm_vcpu *vcpu, const struct hvm_state *state);
    /* Its state as a record, and from a record. On the CPU where it is loaded, or nowhere loaded.
     */
    void (*vcpu_save)(struct hvm_vcpu *vcpu, struct hvm_state *state);
    void (*vcpu_restore)(struct hvm_vcpu *vcpu, const struct hvm_state *state);
    /* The calling CPU is done with it: another may load it (VMCLEAR; nothing on SVM). */
    void (*vcpu_unload)(struct hvm_vcpu *vcpu);
    /* Enters the guest and returns at its next exit, decoded. Interrupts are off before and after;
     * a pending physical interrupt ends it at once. Loads the vcpu when it is not. */
    void (*run)(struct hvm_vcpu *vcpu, struct hvm_exit *exit);
    /* Puts an event in front of the next entry: as hvm_state.pending. */
    void (*inject)(struct hvm_vcpu *vcpu, uint32_t event, uint32_t error);
    bool (*can_take_interrupt)(struct hvm_vcpu *vcpu);  /* IF set, no shadow, nothing pending */
    void (*window)(struct hvm_vcpu *vcpu, bool wanted); /* exit as soon as it can */
    /* Invalidates on this CPU everything cached for the nested root at host-physical `root`. */
    void (*flush_root)(uint64_t root);
    /* Skips the instruction that caused the exit. */
    void (*skip)(struct hvm_vcpu *vcpu, const struct hvm_exit *exit);
    /* Reads what hypercalls need without a whole save: CR0, CR3, CR4, EFER, CS and SS attributes.
     */
    void (*mode)(struct hvm_vcpu *vcpu, uint64_t *cr0, uint64_t *cr3, uint64_t *cr4, uint64_t *efer,
                 unsigned *cpl, bool *code64);
};

extern const struct hvm_ops vmx_ops, svm_ops;
extern const struct hvm_ops *hvm; /* the one in use; hvm.c */

/* Chooses by the boot CPU; prints why none can be used and returns false. */
bool hvm_choose(void);
/* The state in which a guest's first instruction runs (PVH: 32-bit flat, paging off), at `eip` with
 * `ebx`. */
void hvm_state_start(struct hvm_state *state, uint32_t eip, uint32_t ebx);
/* Reset state of a vcpu started by INIT and SIPI `vector`. */
void hvm_state_sipi(struct hvm_state *state, uint8_t vector);

/* CPUID as a guest sees it; writes to MSRs and CRs that a guest may make. False: inject #GP. */
void hvm_guest_cpuid(struct hvm_vcpu *vcpu, uint32_t leaf, uint32_t subleaf, struct cpuid *out);
bool hvm_guest_rdmsr(struct hvm_vcpu *vcpu, uint32_t msr, uint64_t *value);
bool hvm_guest_wrmsr(struct hvm_vcpu *vcpu, uint32_t msr, uint64_t value);
bool hvm_guest_xsetbv(struct hvm_vcpu *vcpu, uint32_t index, uint64_t value);

/* hvm_state.pending for exceptions and external interrupts. */
#define HVM_EVENT_VALID UINT32_C(0x80000000)
#define HVM_EVENT_ERROR UINT32_C(0x800)
#define HVM_EVENT_INTERRUPT(vector) (HVM_EVENT_VALID | (uint32_t)(vector))
#define HVM_EVENT_EXCEPTION(vector) (HVM_EVENT_VALID | 3u << 8 | (uint32_t)(vector))
#define EXCEPTION_DB 1u
#define EXCEPTION_UD 6u
#define EXCEPTION_DF 8u
#define EXCEPTION_GP 13u
#define EXCEPTION_PF 14u

#endif
