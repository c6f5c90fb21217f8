/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Single instructions of x86-64 and what each CPU keeps for itself. A CPU finds its record through
 * GS. The hypervisor runs with interrupts off but in cpu_idle() and cpu_take_interrupts().
 */
#ifndef X86_CPU_H
#define X86_CPU_H

#include "flush.h"
#include "types.h"

struct hvm_vcpu;
struct vcpu;

#define CPU_STACK_SIZE 16384u

/* One per CPU, made at boot, never moved. */
struct percpu {
    struct percpu *self; /* at offset 0: read through GS */
    unsigned id;         /* 0.. machine.cpus - 1, also ctx.cpu */
    uint32_t apic_id;
    struct mm_ctx ctx;
    uint32_t kicked;            /* another CPU asked for flush_acknowledge(); port.c */
    uint32_t resched;           /* look at the run queue before entering a guest again */
    uint32_t ticked;            /* the timer fired */
    uint64_t deadline;          /* TSC at which the timer was asked to fire; 0: not armed */
    struct vcpu *current;       /* whose state is loaded in this CPU; null: none */
    struct hvm_vcpu *loaded;    /* whose guest registers are in this CPU; null: none */
    struct asid_cpu asids;      /* ASIDs or VPIDs of this CPU */
    uint64_t hvm_frame[2];      /* host-physical: VMXON region or host save area; its spare */
    uint64_t doing[2];          /* what a crash report says: an enum cpu_doing and an argument */
    uint64_t interrupts, exits; /* counted since boot */
    uint64_t words_copied,
        words_zeroed;    /* by port_copy_pages() and port_zero_pages(), of 8 bytes */
    uintptr_t stack_top; /* of the stack on which this CPU runs the hypervisor */
};

enum cpu_doing { CPU_BOOT, CPU_IDLE, CPU_GUEST, CPU_EXIT, CPU_HYPERCALL, CPU_CONSOLE };

static inline struct percpu *this_cpu(void)
{
    struct percpu *cpu;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(cpu));
    return cpu;
}
/* The record of CPU `id`; null where there is none. */
struct percpu *cpu_at(unsigned id);

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
    return (uint64_t)high << 32 | low;
}
static inline void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr"
                     :
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
}
struct cpuid {
    uint32_t eax, ebx, ecx, edx;
};
static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid r;
    __asm__ volatile("cpuid"
                     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                     : "a"(leaf), "c"(subleaf));
    return r;
}
static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
static inline uint8_t inb(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
static inline void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
static inline uint64_t read_tsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}
#define CPU_READ_CR(n)                                                                             \
    static inline uint64_t read_cr##n(void)                                                        \
    {                                                                                              \
        uint64_t value;                                                                            \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(value) : : "memory");                         \
        return value;                                                                              \
    }                                                                                              \
    static inline void write_cr##n(uint64_t value)                                                 \
    {                                                                                              \
        __asm__ volatile("mov %0, %%cr" #n : : "r"(value) : "memory");                             \
    }
CPU_READ_CR(0)
CPU_READ_CR(2)
CPU_READ_CR(3)
CPU_READ_CR(4)
static inline void cpu_pause(void) { __asm__ volatile("pause" : : : "memory"); }

/* MSRs (SDM 4, APM 2 appendix A). */
#define MSR_APIC_BASE 0x1bu
#define MSR_FEATURE_CONTROL 0x3au
#define MSR_TSC_ADJUST 0x3bu
#define MSR_SYSENTER_CS 0x174u
#define MSR_SYSENTER_ESP 0x175u
#define MSR_SYSENTER_EIP 0x176u
#define MSR_PAT 0x277u
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u
#define EFER_SCE (UINT64_C(1) << 0)
#define EFER_LME (UINT64_C(1) << 8)
#define EFER_LMA (UINT64_C(1) << 10)
#define EFER_NXE (UINT64_C(1) << 11)
#define EFER_SVME (UINT64_C(1) << 12)

#define CR0_PE (UINT64_C(1) << 0)
#define CR0_MP (UINT64_C(1) << 1)
#define CR0_EM (UINT64_C(1) << 2)
#define CR0_TS (UINT64_C(1) << 3)
#define CR0_ET (UINT64_C(1) << 4)
#define CR0_NE (UINT64_C(1) << 5)
#define CR0_WP (UINT64_C(1) << 16)
#define CR0_NW (UINT64_C(1) << 29)
#define CR0_CD (UINT64_C(1) << 30)
#define CR0_PG (UINT64_C(1) << 31)
#define CR4_PSE (UINT64_C(1) << 4)
#define CR4_PAE (UINT64_C(1) << 5)
#define CR4_MCE (UINT64_C(1) << 6)
#define CR4_PGE (UINT64_C(1) << 7)
#define CR4_OSFXSR (UINT64_C(1) << 9)
#define CR4_OSXMMEXCPT (UINT64_C(1) << 10)
#define CR4_LA57 (UINT64_C(1) << 12)
#define CR4_VMXE (UINT64_C(1) << 13)
#define CR4_OSXSAVE (UINT64_C(1) << 18)

#endif
