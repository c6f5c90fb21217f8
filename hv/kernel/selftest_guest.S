/* SPDX-License-Identifier: BSD-2-Clause */
/* What the self-test runs in a guest: 64-bit code that is copied there, each piece alone. */
    .section .rodata
    .globl selftest_guest, selftest_guest_read, selftest_guest_write, selftest_guest_count
    .globl selftest_guest_end
selftest_guest:
selftest_guest_read:            /* RAX = the word at RDI */
    mov (%rdi), %rax
    hlt
selftest_guest_write:           /* the word at RDI = RAX */
    mov %rax, (%rdi)
    hlt
selftest_guest_count:           /* counts at RDI for ever */
    incq (%rdi)
    jmp selftest_guest_count
selftest_guest_end:

    .section .note.GNU-stack, "", @progbits
