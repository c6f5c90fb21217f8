/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The world switch of AMD SVM: APM volume 2, 15.5 (VMRUN), 15.17 (GIF).
 *
 *   void svm_enter(struct hvm_registers *regs, uint64_t control, uint64_t host);
 *
 * Interrupts are off. With GIF clear nothing is taken between here and the guest; IF is set for
 * VMRUN, because with V_INTR_MASKING it is the host's IF that lets a physical interrupt end the
 * guest: one that came before ends it at once. VMRUN saves and loads RAX, RSP, RIP and RFLAGS; FS,
 * GS, LDTR, TR and the MSRs of system calls go by VMSAVE and VMLOAD. A C function finds its CPU's
 * record through GS, so none runs before the last VMLOAD.
 */
#include "guest_registers.inc"

    .section .text
    .globl svm_enter
    .type svm_enter, @function
svm_enter:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    push %rdx                       /* at 8(%rsp) from the exit on */
    push %rdi                       /* at 0(%rsp) */
    mov %rsi, %rax
    clgi
    sti
    vmload %rax
    GUEST_REGISTERS_LOAD
    vmrun %rax
    vmsave %rax                     /* RAX is the host's again: the VMCB */
    xchg %rdi, (%rsp)               /* RDI: regs; the guest's is on the stack */
    GUEST_REGISTERS_STORE
    pop %rax
    mov %rax, REGISTERS_RDI(%rdi)
    pop %rax
    vmload %rax
    cli
    stgi
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
    .size svm_enter, . - svm_enter

    .section .note.GNU-stack, "", @progbits
