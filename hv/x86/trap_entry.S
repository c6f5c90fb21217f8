/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One entry of 16 bytes for each of the 256 vectors, and the common path to trap_handle(). The layout
 * is struct trap_frame's.
 */
    .text
    .balign 16
    .globl trap_entries
trap_entries:
    .set vector, 0
    .rept 256
    .balign 16
    /* The CPU pushes an error code for 8, 10 to 14, 17, 21, 29 and 30 (SDM 3A 6.15, APM 2 8.2). */
    .if !((vector == 8) | ((vector >= 10) & (vector <= 14)) | (vector == 17) | (vector == 21) | (vector == 29) | (vector == 30))
    pushq $0
    .endif
    pushq $vector
    jmp trap_common
    .set vector, vector + 1
    .endr

    .type trap_common, @function
trap_common:
    pushq %rax
    pushq %rbx
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %rbp
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    movq %rsp, %rbx
    andq $-16, %rsp
    call trap_handle
    movq %rbx, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rbp
    popq %rdi
    popq %rsi
    popq %rdx
    popq %rcx
    popq %rbx
    popq %rax
    addq $16, %rsp
    iretq
    .size trap_common, . - trap_common

/* void trap_capture(struct trap_frame *frame) */
    .globl trap_capture
    .type trap_capture, @function
trap_capture:
    movq %r15, 0(%rdi)
    movq %r14, 8(%rdi)
    movq %r13, 16(%rdi)
    movq %r12, 24(%rdi)
    movq %r11, 32(%rdi)
    movq %r10, 40(%rdi)
    movq %r9, 48(%rdi)
    movq %r8, 56(%rdi)
    movq %rbp, 64(%rdi)
    movq %rdi, 72(%rdi)
    movq %rsi, 80(%rdi)
    movq %rdx, 88(%rdi)
    movq %rcx, 96(%rdi)
    movq %rbx, 104(%rdi)
    movq %rax, 112(%rdi)
    movq $0, 120(%rdi)
    movq $0, 128(%rdi)
    movq (%rsp), %rax
    movq %rax, 136(%rdi)
    movl %cs, %eax
    movq %rax, 144(%rdi)
    pushfq
    popq %rax
    movq %rax, 152(%rdi)
    leaq 8(%rsp), %rax
    movq %rax, 160(%rdi)
    movl %ss, %eax
    movq %rax, 168(%rdi)
    ret
    .size trap_capture, . - trap_capture

    .section .note.GNU-stack, "", @progbits
