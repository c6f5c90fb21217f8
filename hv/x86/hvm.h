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
    uint64_t pdpte[4];   /* VMX, with PAE paging outside of long mode: as the CPU has them; zero
                            on SVM, where they are read again from memory */
    uint64_t tsc_offset; /* added to the host's TSC */
    uint32_t interruptibility; /* 1: in the shadow of STI or MOV SS; 2: NMIs masked */
    uint32_t pending;          /* event to inject at the next entry: vector 7:0, type 10:8, error
                                  code valid 11, valid 31 (SDM 3C 25.8.3, APM 2 15.20: alike) */
    uint32_t pending_error;
    uint32_t reserved;
};

enum hvm_exit_kind {
    HVM_EXIT_INTERRUPT, /* nothing to do but cpu_take_interrupts() and run again: a physical
                           interrupt, or something that the world switch did by itself */
    HVM_EXIT_WINDOW,    /* the window asked for with hvm_ops.window is open */
    HVM_EXIT_NESTED,    /* nested page fault: gpa, access */
    HVM_EXIT_HYPERCALL,
    HVM_EXIT_CPUID,
    HVM_EXIT_RDMSR,
    HVM_EXIT_WRMSR,
    HVM_EXIT_IO, /* port, size, io_in, io_string */
    HVM_EXIT_HLT,
    HVM_EXIT_XSETBV,
    HVM_EXIT_INVALID_OP, /* an instruction that guests do not have here: inject #UD */
    HVM_EXIT_TRIPLE_FAULT,
    HVM_EXIT_ENTRY_FAILED, /* the CPU refused the state: code, detail. No guest instruction ran; the
                              vcpu can only be restored or ended */
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
    uint16_t port;
    uint64_t gpa;    /* NESTED */
    uint64_t linear; /* NESTED: guest-linear address where linear_valid */
    uint64_t code;   /* the CPU's own exit code or reason */
    uint64_t detail; /* EXITINFO1, or the exit qualification, or the VM-instruction error */
};

/* MSRs that VMX leaves to software: the guest's are in the CPU while the vcpu is loaded. */
struct hvm_msrs {
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
};

/* What can be read and written without a whole save. TSC_OFFSET is added to the host's TSC. */
enum hvm_field { HVM_FIELD_CR4, HVM_FIELD_EFER, HVM_FIELD_PAT, HVM_FIELD_TSC_OFFSET };

/*
 * The part of a vcpu that the world switch owns. Embedded in struct vcpu (hv/kernel/vcpu.h), zeroed
 * when that is made. The kernel sets the first group before hvm_ops.vcpu_init(), and may change
 * `root` between runs. A vcpu is loaded on the CPU that ran it last until that CPU runs another one
 * or calls vcpu_unload(); only there, or when it is loaded nowhere, may it be touched.
 */
struct hvm_vcpu {
    uint64_t control; /* host-physical address of its VMCB or VMCS page, which it alone uses */
    uint64_t root;    /* host-physical address of the nested root table */
    void *xsave;      /* its XSAVE area, a zeroed page of its own; valid after vcpu_save() */
    uint32_t apic_id; /* that CPUID tells */
    uint32_t cpus;    /* of its machine, 1 or more; CPUID shows them as cores of one package, their
                         APIC ids two apart */

    /* Valid between exits and entries; change freely. */
    struct hvm_registers regs;
    uint64_t cr2, cr8;

    int loaded_on; /* CPU whose registers hold it; -1: none. Before vcpu_init() it means nothing */
    uint8_t launched; /* VMX: VMRESUME instead of VMLAUNCH */
    uint8_t flush; /* set by anybody who has it: drop what its CPU cached for it at the next run */
    uint8_t nmi_masked;              /* SVM: an NMI was injected and no IRET seen */
    uint8_t window;                  /* asked for */
    uint8_t window_later;            /* SVM: it waits for the exit behind this entry */
    uint32_t clean;                  /* SVM: VMCB clean bits */
    unsigned last_cpu;               /* that it ran on */
    uint64_t owner;                  /* what asid_use() knows it by */
    uint32_t pending, pending_error; /* as hvm_state.pending */
    uint64_t xcr0, tsc_aux;
    uint64_t dr[4], dr6;  /* VMX: DR6; in the VMCB on SVM */
    struct hvm_msrs msrs; /* VMX; in the VMCB on SVM */
};

struct hvm_ops {
    const char *name; /* "SVM with NPT", "VMX with EPT" */
    const struct pt_format *format;
    /* Does this CPU have it, enabled and complete? Else prints each feature that is missing. */
    bool (*present)(void);
    /* Once, after present(): takes the tables that all CPUs share (boot_take()). */
    void (*prepare)(void);
    /* Turns it on for the calling CPU; `cpu->hvm_frame` are two zeroed frames. Prints why not. */
    bool (*cpu_enable)(struct percpu *cpu);
    /* Makes the control structure of a vcpu whose first group is set, in the state `state`. Its
     * XSAVE area is given the state of a reset when its header is zero, else taken as it is. */
    void (*vcpu_init)(struct hvm_vcpu *vcpu, const struct hvm_state *state);
    /* Its state as a record, and from a record. The XSAVE area belongs to the record: a save brings
     * it up to date, a restore takes what stands there. */
    void (*vcpu_save)(struct hvm_vcpu *vcpu, struct hvm_state *state);
    void (*vcpu_restore)(struct hvm_vcpu *vcpu, const struct hvm_state *state);
    /* The calling CPU is done with it: another may load it, and its frames may be freed. Nothing
     * when it is not loaded here. */
    void (*vcpu_unload)(struct hvm_vcpu *vcpu);
    /* Enters the guest and returns at its next exit, decoded. Interrupts are off before and after;
     * a pending physical interrupt ends it at once. Loads the vcpu when it is not. */
    void (*run)(struct hvm_vcpu *vcpu, struct hvm_exit *exit);
    /* Puts an event in front of the next entry: as hvm_state.pending. An exception takes the place
     * of an event that waits there, or becomes a double fault with it, or behind a double fault the
     * next run()'s HVM_EXIT_TRIPLE_FAULT (SDM 3A table 6-5 and 6.15, interrupt 8). */
    void (*inject)(struct hvm_vcpu *vcpu, uint32_t event, uint32_t error);
    bool (*can_take_interrupt)(struct hvm_vcpu *vcpu); /* IF set, no shadow, nothing pending */
    bool (*can_take_nmi)(
        struct hvm_vcpu *vcpu); /* none is in service, no shadow, nothing pending */
    void (*window)(struct hvm_vcpu *vcpu, bool wanted); /* exit as soon as it can */
    /* Invalidates on this CPU everything cached for the nested root at host-physical `root`, before
     * any guest runs here again. */
    void (*flush_root)(uint64_t root);
    /* Skips the instruction that caused the exit. */
    void (*skip)(struct hvm_vcpu *vcpu, const struct hvm_exit *exit);
    uint64_t (*get)(struct hvm_vcpu *vcpu, enum hvm_field field);
    void (*set)(struct hvm_vcpu *vcpu, enum hvm_field field, uint64_t value);
    /* Reads what hypercalls need without a whole save. */
    void (*mode)(struct hvm_vcpu *vcpu, uint64_t *cr0, uint64_t *cr3, uint64_t *cr4, uint64_t *efer,
                 unsigned *cpl, bool *code64);
};

extern const struct hvm_ops vmx_ops, svm_ops;
extern const struct hvm_ops *hvm; /* the one in use; hvm.c */

/* Chooses by the boot CPU and prepares it, while boot_take() can be called; prints why none can be
 * used and returns false. */
bool hvm_choose(void);
/* EPT accessed and dirty bits: on until hvm_choose(), which clears it where the CPU has none or the
 * boot's command line says so. Guests may then only run when the self-test finds that the CPU does
 * not write into frames that are read-only. May also be cleared later, before the first domain is
 * made; each root that was used is then flushed. */
extern bool hvm_ept_dirty_bits;
/* May huge leaves be executable (machine_init())? Set by hvm_choose(): false where a page-size
 * change under an instruction fetch may stop the machine (iTLB multihit), or as the boot's command
 * line says. */
extern bool hvm_huge_exec;
/* The state in which a guest's first instruction runs (PVH: 32-bit flat, paging off), at `eip` with
 * `ebx`. */
void hvm_state_start(struct hvm_state *state, uint32_t eip, uint32_t ebx);
/* Skips an instruction of `length` bytes in a record, as hvm_ops.skip does for a vcpu. */
void hvm_state_skip(struct hvm_state *state, uint8_t length);
/* Reset state of a vcpu started by INIT and SIPI `vector`. */
void hvm_state_sipi(struct hvm_state *state, uint8_t vector);

/* May a record from elsewhere be loaded? Each value that this hypervisor itself puts into the CPU
 * is legal there; what else the CPU objects to ends that guest alone (HVM_EXIT_ENTRY_FAILED). */
bool hvm_state_legal(const struct hvm_state *state);
/* The same of an XSAVE area: a page, in the standard format. */
bool hvm_xsave_legal(const void *area);
/* x87 and SSE registers as FXSAVE has them, 512 bytes, into an XSAVE area, whose other components
 * stay; the area as after a reset; how many bytes of it `components` fill. */
void hvm_xsave_set_legacy(void *area, const void *registers);
void hvm_xsave_reset(void *area);
uint32_t xsave_size(uint64_t components);
/* May a guest have that XCR0? */
bool hvm_xcr0_legal(uint64_t xcr0);
/* State components (SDM 1 13.1) that guests have here: the host's, as far as the standard format
 * holds them in a page. The same on every CPU. */
extern uint64_t xsave_components;

/* CPUID as a guest sees it; leaves from 0x40000000 are the kernel's and are zero here. MSRs that a
 * guest may use, but those of the local APIC and of memory types, which are the kernel's. False:
 * inject #GP. */
void hvm_guest_cpuid(struct hvm_vcpu *vcpu, uint32_t leaf, uint32_t subleaf, struct cpuid *out);
bool hvm_guest_rdmsr(struct hvm_vcpu *vcpu, uint32_t msr, uint64_t *value);
bool hvm_guest_wrmsr(struct hvm_vcpu *vcpu, uint32_t msr, uint64_t value);
bool hvm_guest_xsetbv(struct hvm_vcpu *vcpu, uint32_t index, uint64_t value);

/* hvm_state.pending for exceptions and external interrupts. */
#define HVM_EVENT_VALID UINT32_C(0x80000000)
#define HVM_EVENT_ERROR UINT32_C(0x800)
#define HVM_EVENT_INTERRUPT(vector) (HVM_EVENT_VALID | (uint32_t)(vector))
#define HVM_EVENT_EXCEPTION(vector) (HVM_EVENT_VALID | 3u << 8 | (uint32_t)(vector))
/* In `pending` only, and never given to the CPU (type 1 is reserved): a third fault came. */
#define HVM_EVENT_SHUTDOWN (HVM_EVENT_VALID | 1u << 8)
#define EXCEPTION_DB 1u
#define EXCEPTION_UD 6u
#define EXCEPTION_DF 8u
#define EXCEPTION_GP 13u
#define EXCEPTION_PF 14u

#endif
