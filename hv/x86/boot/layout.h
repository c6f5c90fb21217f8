/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where things lie in the hypervisor's address space, for C and assembly.
 *
 *   ffff8000'00000000  direct map: host-physical address 0 and on
 *   ffffffff'80000000  the image: host-physical 0 plus this, from 1 MiB
 *   ffffffff'bfe00000  the local APIC's page, uncached
 *   ffffffff'c0000000  stacks, 64 KiB for each CPU: a guard page below each stack
 */
#ifndef X86_LAYOUT_H
#define X86_LAYOUT_H

#define LAYOUT_DIRECT_SLOT 256 /* of the root table */
#define LAYOUT_IMAGE 0xffffffff80000000
#define LAYOUT_IMAGE_SLOT 510 /* of the table that the root's last entry names */
#define LAYOUT_APIC 0xffffffffbfe00000
#define LAYOUT_STACKS 0xffffffffc0000000

#define LAYOUT_CPU_STACKS 0x10000
/* Offsets in a CPU's 64 KiB: where each stack begins and ends; what lies between is not mapped. */
#define LAYOUT_STACK_LOW 0x1000
#define LAYOUT_STACK_TOP 0x5000
#define LAYOUT_IST_SIZE 0x2000
#define LAYOUT_IST_LOW(n) (0x6000 + (n)*0x3000) /* n: 0 for NMI, 1 for #DF, 2 for #MC */

#define BOOT_STACK_SIZE 0x4000

/* Selectors: each CPU has a GDT like this. */
#define SELECTOR_CODE 0x08
#define SELECTOR_DATA 0x10
#define SELECTOR_TSS 0x18

/* Offsets of what cpus_start() writes into its copy of the trampoline. */
#define TRAMPOLINE_CR3 0x08
#define TRAMPOLINE_FAR 0x10
#define TRAMPOLINE_GDTR 0x18
#define TRAMPOLINE_ENTRY 0x20

#endif
