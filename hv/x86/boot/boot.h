/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of boot share. Only the boot CPU runs any of it, but for secondary_start(). */
#ifndef X86_BOOT_H
#define X86_BOOT_H

#include "../platform.h"
#include "layout.h"
#include "multiboot.h"

/* Set by link.lds: addresses in the image's mapping, all on pages. */
extern char image_start[], text_end[], data_start[], image_load_end[], image_end[];

static inline uint64_t image_physical(const void *in_image)
{
    return (uint64_t)in_image - LAYOUT_IMAGE;
}

/* memory.c: fills boot_info's ranges and modules from what the boot loader said. */
void memory_init(const struct multiboot *multiboot);

/* paging.c: PTE bits of the hypervisor's own tables. */
#define PAGE_WRITE (UINT64_C(1) << 1)
#define PAGE_UNCACHED (UINT64_C(3) << 3)
#define PAGE_NX (UINT64_C(1) << 63)
/* Builds the hypervisor's tables and leaves those of boot.S. */
void paging_init(void);
/* Maps whole pages that were not mapped; takes memory for tables by boot_take(). */
void paging_map(uint64_t virtual, uint64_t physical, uint64_t bytes, uint64_t bits);
/* First byte past the direct map, as host-physical address. */
extern uint64_t direct_map_end;

/* cpu.c */
void cpu_init_boot(void);
/* Takes memory for a record and stacks and maps them. */
struct percpu *cpu_create(unsigned id, uint32_t apic_id);
void cpu_make_stacks(struct percpu *cpu);
/* Registers of the calling CPU: GDT, TSS, IDT, GS, control registers. */
void cpu_load(struct percpu *cpu);

_Noreturn void boot_run_on(uintptr_t stack, void (*run)(void));
void x86_start(uint32_t magic, uint32_t pointer);

#endif
