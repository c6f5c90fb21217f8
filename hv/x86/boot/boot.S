/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Entry from the boot loader: 32-bit protected mode, paging off (multiboot 0.6.96 section 3.2,
 * multiboot2 2.0 section 3.3). Checks the CPU, maps the first 4 GiB by 2 MiB pages at 0, in the
 * direct map and (1 GiB of it) where the image is linked, and calls x86_start() in 64-bit mode.
 */
#include "layout.h"

/* Host-physical address of a symbol of the image. */
#define PHYSICAL(symbol) ((symbol) - LAYOUT_IMAGE)

#define MB1_MAGIC 0x1badb002
#define MB1_FLAGS 0x00010003 /* modules on pages, memory map, address fields */
#define MB2_MAGIC 0xe85250d6

    .section .boot, "ax"
    .balign 8
mb1_header:
    .long MB1_MAGIC
    .long MB1_FLAGS
    .long -(MB1_MAGIC + MB1_FLAGS)
    .long PHYSICAL(mb1_header)
    .long PHYSICAL(image_start)
    .long PHYSICAL(image_load_end)
    .long PHYSICAL(image_end)
    .long PHYSICAL(boot_entry)

    .balign 8
mb2_header:
    .long MB2_MAGIC
    .long 0 /* i386 */
    .long mb2_header_end - mb2_header
    .long 0x100000000 - (MB2_MAGIC + 0 + (mb2_header_end - mb2_header))
    /* What we must be told: command line, modules, memory map. */
    .balign 8
    .short 1, 0
    .long 20
    .long 1, 3, 6
    /* What we like to be told: the ACPI RSDP, old and new. */
    .balign 8
    .short 1, 1
    .long 16
    .long 14, 15
    /* Where the image goes. */
    .balign 8
    .short 2, 0
    .long 24
    .long PHYSICAL(mb2_header), PHYSICAL(image_start)
    .long PHYSICAL(image_load_end), PHYSICAL(image_end)
    /* Where it begins. */
    .balign 8
    .short 3, 0
    .long 12
    .long PHYSICAL(boot_entry)
    /* Modules on pages of their own. */
    .balign 8
    .short 6, 0
    .long 8
    .balign 8
    .short 0, 0
    .long 8
mb2_header_end:

    .code32
    .globl boot_entry
boot_entry:
    cli
    cld
    movl $PHYSICAL(boot_stack_top), %esp
    movl %eax, PHYSICAL(boot_magic)
    movl %ebx, PHYSICAL(boot_pointer)
    pushl $0
    popfl

    movl $PHYSICAL(no_cpuid), %esi
    pushfl
    popl %eax
    movl %eax, %ecx
    xorl $0x200000, %eax /* EFLAGS.ID */
    pushl %eax
    popfl
    pushfl
    popl %eax
    cmpl %ecx, %eax
    je refuse

    movl $PHYSICAL(no_long_mode), %esi
    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb refuse
    movl $0x80000001, %eax
    cpuid
    btl $29, %edx
    jnc refuse
    movl $PHYSICAL(no_nx), %esi
    btl $20, %edx
    jnc refuse
    /* CPUID.1:EDX: TSC 4, MSR 5, PAE 6, APIC 9, PGE 13, FXSR 24. */
    movl $PHYSICAL(no_features), %esi
    movl $1, %eax
    cpuid
    andl $0x01002270, %edx
    cmpl $0x01002270, %edx
    jne refuse

    /* 4 GiB in pages of 2 MiB: present, writable, large. */
    movl $PHYSICAL(boot_pd), %edi
    movl $0x83, %eax
    movl $2048, %ecx
1:  movl %eax, (%edi)
    movl $0, 4(%edi)
    addl $8, %edi
    addl $0x200000, %eax
    loop 1b
    movl $PHYSICAL(boot_pd) + 3, %eax
    movl %eax, PHYSICAL(boot_pdpt_image) + 8 * LAYOUT_IMAGE_SLOT
    movl $PHYSICAL(boot_pdpt), %edi
    movl $4, %ecx
2:  movl %eax, (%edi)
    addl $8, %edi
    addl $0x1000, %eax
    loop 2b
    movl $PHYSICAL(boot_pdpt) + 3, %eax
    movl %eax, PHYSICAL(boot_pml4)
    movl %eax, PHYSICAL(boot_pml4) + 8 * LAYOUT_DIRECT_SLOT
    movl $PHYSICAL(boot_pdpt_image) + 3, %eax
    movl %eax, PHYSICAL(boot_pml4) + 8 * 511

    movl $0xa0, %eax /* PAE, PGE */
    movl %eax, %cr4
    movl $PHYSICAL(boot_pml4), %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x900, %eax /* LME, NXE */
    wrmsr
    movl $0x80010033, %eax /* PG, WP, NE, ET, MP, PE; caches on */
    movl %eax, %cr0
    lgdt PHYSICAL(boot_gdtr)
    ljmp $SELECTOR_CODE, $PHYSICAL(long_low)

/* Prints the string at ESI on port 0xE9 and COM1, and stops. */
refuse:
    movl $PHYSICAL(uart_setup), %ebx
3:  movzwl (%ebx), %edx
    testl %edx, %edx
    jz 4f
    movb 2(%ebx), %al
    outb %al, %dx
    addl $3, %ebx
    jmp 3b
4:  lodsb
    testb %al, %al
    jz 6f
    movb %al, %bl
    outb %al, $0xe9
    movl $0x10000, %ecx
    movw $0x3fd, %dx
5:  inb %dx, %al
    testb $0x20, %al /* transmitter empty */
    loopz 5b
    movb %bl, %al
    movw $0x3f8, %dx
    outb %al, %dx
    jmp 4b
6:  hlt
    jmp 6b

    .code64
long_low:
    movabsq $long_high, %rax
    jmp *%rax
long_high:
    xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    leaq boot_stack_top(%rip), %rsp
    xorl %ebp, %ebp
    movl boot_magic(%rip), %edi
    movl boot_pointer(%rip), %esi
    call x86_start
    ud2

/* _Noreturn void boot_run_on(uintptr_t stack, void (*run)(void)): leaves this stack for ever. */
    .text
    .globl boot_run_on
    .type boot_run_on, @function
boot_run_on:
    movq %rdi, %rsp
    xorl %ebp, %ebp
    call *%rsi
    ud2
    .size boot_run_on, . - boot_run_on

/*
 * What another CPU runs first, copied to a page below 1 MiB: real mode, CS:IP = page:0 after SIPI
 * (SDM 3A 9.4.3). It goes straight to 64-bit mode on the boot CPU's first tables, which map this page
 * at its own address, and leaves for secondary_entry.
 */
    .section .rodata
    .balign 16
    .globl trampoline, trampoline_end
    .code16
trampoline:
    cli
    cld
    jmp trampoline_code
    .org trampoline + TRAMPOLINE_CR3
    .long 0
    .org trampoline + TRAMPOLINE_FAR
    .long trampoline_long - trampoline /* plus the page's address */
    .short SELECTOR_CODE
    .org trampoline + TRAMPOLINE_GDTR
    .short boot_gdt_end - boot_gdt - 1
    .long 0
    .org trampoline + TRAMPOLINE_ENTRY
    .quad secondary_entry
trampoline_code:
    movw %cs, %ax
    movw %ax, %ds
    lgdtl TRAMPOLINE_GDTR
    movl $0xa0, %eax
    movl %eax, %cr4
    movl TRAMPOLINE_CR3, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x900, %eax
    wrmsr
    movl $0x80010033, %eax
    movl %eax, %cr0
    ljmpl *TRAMPOLINE_FAR
    .code64
trampoline_long:
    movq trampoline + TRAMPOLINE_ENTRY(%rip), %rax
    jmp *%rax
trampoline_end:

/* On the first tables, no stack yet: loads what cpus_start() prepared. */
    .text
    .globl secondary_entry
secondary_entry:
    xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    movq secondary_cr3(%rip), %rax
    movq %rax, %cr3
    movq secondary_stack(%rip), %rsp
    movq secondary_cpu(%rip), %rdi
    xorl %ebp, %ebp
    call secondary_start
    ud2

    .section .rodata
    .balign 8
    .globl boot_gdt
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
boot_gdt_end:
boot_gdtr:
    .short boot_gdt_end - boot_gdt - 1
    .long PHYSICAL(boot_gdt)
/* Port and byte: 115200 baud, 8 bits, no parity, FIFO on. */
uart_setup:
    .macro uart port, byte
    .short \port
    .byte \byte
    .endm
    uart 0x3f9, 0
    uart 0x3fb, 0x80
    uart 0x3f8, 1
    uart 0x3f9, 0
    uart 0x3fb, 3
    uart 0x3fa, 7
    .short 0
no_cpuid:
    .asciz "Cleave: this CPU has no CPUID instruction; a 64-bit CPU is needed.\n"
no_long_mode:
    .asciz "Cleave: this CPU has no 64-bit mode.\n"
no_nx:
    .asciz "Cleave: this CPU has no NX bit, or the firmware switched it off.\n"
no_features:
    .asciz "Cleave: this CPU lacks TSC, MSR, PAE, APIC, PGE or FXSR.\n"

    .bss
    .balign 4096
    .globl boot_pml4
boot_pml4:
    .skip 4096
boot_pdpt:
    .skip 4096
boot_pdpt_image:
    .skip 4096
boot_pd:
    .skip 4 * 4096
    .globl boot_stack
boot_stack:
    .skip BOOT_STACK_SIZE
boot_stack_top:
boot_magic:
    .long 0
boot_pointer:
    .long 0

    .section .note.GNU-stack, "", @progbits
