/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The world switch of Intel VMX: SDM 3C 27.1 (VM entry), 28.5 (loading host state at exit).
 *
 *   enum vmx_entry vmx_enter(struct hvm_registers *regs, bool launched);
 *
 * Interrupts are off; one that is pending ends the guest at once. The CPU comes back at vmx_exit
 * with RSP as it was written here, RFLAGS clear, and segments, tables and CR3 from the VMCS. When
 * the entry itself fails it goes on behind VMLAUNCH or VMRESUME with CF (no current VMCS) or ZF set.
 */
#include "guest_registers.inc"
#include "vmx/vmcs.h"

    .section .text
    .globl vmx_enter
    .type vmx_enter, @function
vmx_enter:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    push %rdi                       /* at 0(%rsp) from the exit on */
    mov $HOST_RSP, %eax
    vmwrite %rsp, %rax
    jbe 2f
    test %sil, %sil                 /* MOV does not change the flags until the jump */
    mov REGISTERS_RAX(%rdi), %rax
    GUEST_REGISTERS_LOAD
    jz 1f
    vmresume
    jmp 2f
1:  vmlaunch
2:  mov $1, %eax                    /* VMX_FAILED_INVALID */
    jc 3f
    mov $2, %eax                    /* VMX_FAILED_VALID */
3:  pop %rdi
    jmp 4f
    .size vmx_enter, . - vmx_enter

    .globl vmx_exit
    .type vmx_exit, @function
vmx_exit:
    xchg %rdi, (%rsp)               /* RDI: regs; the guest's is on the stack */
    mov %rax, REGISTERS_RAX(%rdi)
    GUEST_REGISTERS_STORE
    pop %rax
    mov %rax, REGISTERS_RDI(%rdi)
    xor %eax, %eax                  /* VMX_EXITED */
4:  pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
    .size vmx_exit, . - vmx_exit

    .section .note.GNU-stack, "", @progbits
