/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Exceptions and interrupts (SDM 3A chapter 6). The table of gates is written at boot and the same
 * for all CPUs. An exception of the hypervisor is a crash, but where extable names the instruction.
 */
#include "trap.h"

#include "apic.h"
#include "boot/layout.h"
#include "platform.h"
#include "time.h"

struct gate {
    uint16_t offset_low, selector;
    uint8_t ist, type;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
};

enum { GATE_INTERRUPT = 0x8e }; /* present, DPL 0, 64-bit interrupt gate */

static struct gate gates[256] __attribute__((aligned(16)));

extern const char trap_entries[][16];

/* Instructions that may raise #GP, and where to go on. Made by rdmsr_safe() and its like. */
struct extable_entry {
    uint64_t fault, go_on;
};
extern const struct extable_entry extable_start[], extable_end[];

static const char *const names[TRAP_EXCEPTIONS] = {
    "#DE divide error",
    "#DB debug",
    "NMI",
    "#BP breakpoint",
    "#OF overflow",
    "#BR bound range",
    "#UD invalid opcode",
    "#NM no FPU",
    "#DF double fault",
    "vector 9",
    "#TS invalid TSS",
    "#NP segment not present",
    "#SS stack fault",
    "#GP general protection",
    "#PF page fault",
    "vector 15",
    "#MF x87",
    "#AC alignment check",
    "#MC machine check",
    "#XM SIMD",
    "#VE virtualization",
    "#CP control protection",
    "vector 22",
    "vector 23",
    "vector 24",
    "vector 25",
    "vector 26",
    "vector 27",
    "#HV hypervisor injection",
    "#VC VMM communication",
    "#SX security",
    "vector 31",
};

const char *trap_name(uint64_t vector) { return names[vector]; }

void trap_init(bool stacks)
{
    for (unsigned i = 0; i < 256; i++) {
        uint64_t entry = (uint64_t)trap_entries[i];
        gates[i] = (struct gate){.offset_low = (uint16_t)entry,
                                 .selector = SELECTOR_CODE,
                                 .type = GATE_INTERRUPT,
                                 .offset_middle = (uint16_t)(entry >> 16),
                                 .offset_high = (uint32_t)(entry >> 32)};
    }
    gates[TRAP_NMI].ist = stacks ? 1 : 0;
    gates[TRAP_DF].ist = stacks ? 2 : 0;
    gates[TRAP_MC].ist = stacks ? 3 : 0;
}

void trap_load(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) idtr = {sizeof(gates) - 1, (uint64_t)gates};
    __asm__ volatile("lidt %0" : : "m"(idtr));
}

static bool goes_on(struct trap_frame *frame)
{
    for (const struct extable_entry *e = extable_start; e < extable_end; e++) {
        if (e->fault == frame->rip) {
            frame->rip = e->go_on;
            return true;
        }
    }
    return false;
}

static void interrupt(struct trap_frame *frame)
{
    struct percpu *cpu = this_cpu();

    cpu->interrupts++;
    if (frame->vector == VECTOR_SPURIOUS) {
        return; /* and needs no EOI (SDM 3A 10.9) */
    }
    if (frame->vector == VECTOR_TIMER) {
        timer_fired(cpu);
    } else if (frame->vector == VECTOR_RESCHED) {
        __atomic_store_n(&cpu->resched, 1, __ATOMIC_RELAXED);
    } else if (frame->vector == VECTOR_HALT) {
        crash_halt(frame);
    } else if (frame->vector != VECTOR_KICK) {
        /* The PIC is masked, yet may raise a spurious 7 or 15, which are moved to 0x27 and 0x2f. */
        if (frame->vector != 0x27 && frame->vector != 0x2f) {
            print("CPU %u: unexpected interrupt %lx\n", cpu->id, (unsigned long)frame->vector);
            apic_end_of_interrupt();
        }
        return;
    }
    apic_end_of_interrupt();
}

void trap_handle(struct trap_frame *frame)
{
    if (frame->vector >= TRAP_EXCEPTIONS) {
        interrupt(frame);
    } else if (frame->vector == TRAP_NMI) {
        crash_halt(frame);
    } else if (frame->vector != TRAP_GP || !goes_on(frame)) {
        crash_trap(frame);
    }
}

/* `done` stays 0 where the instruction faults: its extable entry goes on behind the move. */
bool rdmsr_safe(uint32_t msr, uint64_t *value)
{
    uint32_t low = 0, high = 0, done = 0;
    __asm__ volatile("1: rdmsr\n"
                     "   movl $1, %2\n"
                     "2:\n"
                     "   .pushsection .extable, \"a\"\n"
                     "   .quad 1b, 2b\n"
                     "   .popsection"
                     : "+a"(low), "+d"(high), "+r"(done)
                     : "c"(msr)
                     : "memory");
    *value = (uint64_t)high << 32 | low;
    return done != 0;
}

bool wrmsr_safe(uint32_t msr, uint64_t value)
{
    uint32_t done = 0;
    __asm__ volatile("1: wrmsr\n"
                     "   movl $1, %0\n"
                     "2:\n"
                     "   .pushsection .extable, \"a\"\n"
                     "   .quad 1b, 2b\n"
                     "   .popsection"
                     : "+r"(done)
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
    return done != 0;
}
