/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where a guest begins: 32-bit flat mode with paging off, as the PVH boot protocol and
 * CLEAVE_OP_START leave it. Each vcpu goes to 64-bit mode with 4 GiB mapped one to one and calls C.
 */
    .section .note, "a", @note
    .align 4
    .long 4, 8, 18              /* name, description, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad guest_entry

    .section .text.start, "ax", @progbits
    .code32
    .globl guest_entry
guest_entry:                    /* EBX: start information */
    movl $guest_stack_top, %esp
    movl $guest_main, %esi
    jmp enter_long

    .globl guest_vcpu_entry
guest_vcpu_entry:               /* EBX: a struct guest_vcpu of lib.h */
    movl 0(%ebx), %esp
    movl 8(%ebx), %esi
    movl 16(%ebx), %ebx

enter_long:
    movl $guest_pml4, %eax
    movl %eax, %cr3
    movl $0x6a0, %eax           /* PAE | PGE | OSFXSR | OSXMMEXCPT */
    movl %eax, %cr4
    movl $0xc0000080, %ecx      /* EFER: SCE, LME, NXE */
    movl $0x901, %eax
    xorl %edx, %edx
    wrmsr
    movl $0x80010033, %eax      /* PG | WP | NE | ET | MP | PE */
    movl %eax, %cr0
    lgdt guest_gdt_pointer
    ljmp $8, $1f
    .code64
1:  movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    lidt guest_idt_pointer
    movl %ebx, %edi
    movl %esi, %esi             /* clears the upper half */
    andq $-16, %rsp
    call *%rsi
2:  cli
    hlt
    jmp 2b

/* Exceptions: what the C handler returns is where to go on. */
    .macro exception number, has_error
    .align 16
    .if !\has_error
    pushq $0
    .endif
    pushq $\number
    jmp common
    .endm
    .align 16
    .globl guest_exceptions
guest_exceptions:
    .irp number, 0, 1, 2, 3, 4, 5, 6, 7
    exception \number, 0
    .endr
    exception 8, 1
    exception 9, 0
    .irp number, 10, 11, 12, 13, 14
    exception \number, 1
    .endr
    .irp number, 15, 16
    exception \number, 0
    .endr
    exception 17, 1
    .irp number, 18, 19, 20
    exception \number, 0
    .endr
    exception 21, 1
    .irp number, 22, 23, 24, 25, 26, 27, 28
    exception \number, 0
    .endr
    .irp number, 29, 30
    exception \number, 1
    .endr
    exception 31, 0
common:
    pushq %rax; pushq %rcx; pushq %rdx; pushq %rbx; pushq %rbp; pushq %rsi; pushq %rdi
    pushq %r8; pushq %r9; pushq %r10; pushq %r11; pushq %r12; pushq %r13; pushq %r14; pushq %r15
    movq 15*8(%rsp), %rdi       /* number */
    movq 16*8(%rsp), %rsi       /* error code */
    leaq 17*8(%rsp), %rdx       /* RIP, CS, RFLAGS, RSP, SS */
    cld
    call guest_exception
    popq %r15; popq %r14; popq %r13; popq %r12; popq %r11; popq %r10; popq %r9; popq %r8
    popq %rdi; popq %rsi; popq %rbp; popq %rbx; popq %rdx; popq %rcx; popq %rax
    addq $16, %rsp
    iretq

/* bool try_load(const volatile void *at, uint8_t *value), bool try_store(volatile void *at, value) */
    .globl try_load, try_load_fault, try_store, try_store_fault, try_end
try_load:
try_load_fault:
    movb (%rdi), %al
    movb %al, (%rsi)
    movl $1, %eax
    ret
try_store:
try_store_fault:
    movb %sil, (%rdi)
    movl $1, %eax
    ret
try_end:                        /* where the handler goes on after a fault in either */
    xorl %eax, %eax
    ret

    .data
    .align 16
guest_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
guest_gdt_pointer:
    .word 23
    .quad guest_gdt
    .globl guest_idt_pointer
guest_idt_pointer:
    .word 32*16 - 1
    .quad guest_idt

/* One to one, 4 GiB in 2 MiB pages. */
    .align 4096
    .globl guest_pml4
guest_pml4:
    .quad guest_pdpt + 7
    .fill 511, 8, 0
guest_pdpt:
    .quad guest_pd + 7, guest_pd + 0x1007, guest_pd + 0x2007, guest_pd + 0x3007
    .fill 508, 8, 0
    .globl guest_pd
guest_pd:
    .set page, 0x83
    .rept 2048
    .quad page
    .set page, page + 0x200000
    .endr

    .bss
    .align 4096
    .skip 65536
guest_stack_top:
    .section .note.GNU-stack, "", @progbits
