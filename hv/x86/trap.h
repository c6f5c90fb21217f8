/* SPDX-License-Identifier: BSD-2-Clause */
/* What an exception or interrupt leaves on the stack; the tables that lead there. */
#ifndef X86_TRAP_H
#define X86_TRAP_H

#include "cpu.h"

/* As trap_entry.S pushes it, from the lowest address; the last five are the CPU's. */
struct trap_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
    uint64_t rbp, rdi, rsi, rdx, rcx, rbx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};

enum { TRAP_NMI = 2, TRAP_DF = 8, TRAP_GP = 13, TRAP_PF = 14, TRAP_MC = 18, TRAP_EXCEPTIONS = 32 };

/* Fills the table of interrupt gates that all CPUs share. `stacks`: NMI, #DF and #MC use the
 * stacks that the TSS names; without, they stay on the one that was in use. */
void trap_init(bool stacks);
/* Loads it on the calling CPU. */
void trap_load(void);
/* Called by trap_entry.S with interrupts off. */
void trap_handle(struct trap_frame *frame);
/* Name of exception `vector`, below 32. */
const char *trap_name(uint64_t vector);

/* Fills `frame` with the registers of the caller at its call; those that a call may change are what
 * they happen to be. trap_entry.S */
void trap_capture(struct trap_frame *frame);

/* As crash(), with the registers of an exception. */
_Noreturn void crash_trap(const struct trap_frame *frame);
/* What VECTOR_HALT and NMIs lead to: notes where this CPU was and stops it; but an NMI while no CPU
 * reports a crash is a crash of its own. */
_Noreturn void crash_halt(const struct trap_frame *frame);

#endif
