/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The record, descriptor tables and stacks of each CPU. Made by the boot CPU; a CPU loads its own.
 */
#include "boot/boot.h"
#include "trap.h"

/* SDM 3A 8.7. */
struct tss {
    uint32_t reserved0;
    uint64_t rsp[3];
    uint64_t reserved1;
    uint64_t ist[7];
    uint64_t reserved2;
    uint16_t reserved3;
    uint16_t io_map;
} __attribute__((packed));
_Static_assert(sizeof(struct tss) == 104, "SDM 3A figure 8-11");

struct cpu_block {
    struct percpu cpu; /* first: cpu_at() names it */
    uint64_t gdt[5];
    struct tss tss;
};

extern const uint64_t boot_gdt[];

/* The boot CPU's is in the image; it is reached by the direct map like those of the others. */
static struct cpu_block boot_block;
static struct percpu *cpus[MM_MAX_CPUS];
static const char memory_of_cpus[] = "records and stacks of CPUs";
_Static_assert(LAYOUT_STACK_TOP - LAYOUT_STACK_LOW == CPU_STACK_SIZE, "a CPU's stack");

struct percpu *cpu_at(unsigned id) { return id < MM_MAX_CPUS ? cpus[id] : NULL; }

static struct cpu_block *block_of(struct percpu *cpu) { return (struct cpu_block *)(void *)cpu; }

/* Available 64-bit TSS (SDM 3A 8.2.3). */
static void make_tables(struct cpu_block *block)
{
    uint64_t base = (uint64_t)&block->tss, limit = sizeof(struct tss) - 1;
    for (unsigned i = 0; i < 3; i++) {
        block->gdt[i] = boot_gdt[i];
    }
    block->gdt[SELECTOR_TSS / 8] =
        limit | (base & 0xffffff) << 16 | UINT64_C(0x89) << 40 | (base >> 24 & 0xff) << 56;
    block->gdt[SELECTOR_TSS / 8 + 1] = base >> 32;
    block->tss.io_map = sizeof(struct tss);
}

static struct percpu *cpu_register(struct cpu_block *block, unsigned id, uint32_t apic)
{
    struct percpu *cpu = &block->cpu;
    cpu->self = cpu;
    cpu->id = id;
    cpu->apic_id = apic;
    cpu->ctx.cpu = id;
    make_tables(block);
    cpus[id] = cpu;
    return cpu;
}

void cpu_init_boot(void)
{
    struct cpu_block *block = host_pointer(image_physical(&boot_block));
    trap_init(false);
    cpu_load(cpu_register(block, 0, 0));
}

/* Maps `bytes` of RAM at `*from` and moves that past them. */
static void map_stack(uint64_t bottom, uint64_t bytes, uint64_t *from)
{
    paging_map(bottom, *from, bytes, PAGE_WRITE | PAGE_NX);
    *from += bytes;
}

void cpu_make_stacks(struct percpu *cpu)
{
    uint64_t base = LAYOUT_STACKS + (uint64_t)cpu->id * LAYOUT_CPU_STACKS;
    uint64_t from = boot_take(CPU_STACK_SIZE + 3 * LAYOUT_IST_SIZE, PAGE_SIZE, memory_of_cpus);

    map_stack(base + LAYOUT_STACK_LOW, CPU_STACK_SIZE, &from);
    cpu->stack_top = base + LAYOUT_STACK_TOP;
    for (unsigned i = 0; i < 3; i++) {
        map_stack(base + LAYOUT_IST_LOW(i), LAYOUT_IST_SIZE, &from);
        block_of(cpu)->tss.ist[i] = base + LAYOUT_IST_LOW(i) + LAYOUT_IST_SIZE;
    }
}

struct percpu *cpu_create(unsigned id, uint32_t apic)
{
    uint64_t at = boot_take(sizeof(struct cpu_block), PAGE_SIZE, memory_of_cpus);
    struct percpu *cpu = cpu_register(host_pointer(at), id, apic);
    cpu_make_stacks(cpu);
    return cpu;
}

static void load_segments(struct cpu_block *block)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) gdtr = {sizeof(block->gdt) - 1, (uint64_t)block->gdt};

    __asm__ volatile("lgdt %0\n"
                     "pushq %1\n"
                     "leaq 1f(%%rip), %%rax\n"
                     "pushq %%rax\n"
                     "lretq\n"
                     "1: movl %2, %%ds\n"
                     "movl %2, %%es\n"
                     "movl %2, %%ss\n"
                     "movl %3, %%fs\n"
                     "movl %3, %%gs\n"
                     "lldt %w3\n"
                     "ltr %w4"
                     :
                     : "m"(gdtr), "i"(SELECTOR_CODE), "r"(SELECTOR_DATA), "r"(0), "r"(SELECTOR_TSS)
                     : "rax", "memory");
}

void cpu_load(struct percpu *cpu)
{
    struct cpu_block *block = block_of(cpu);

    /* A TSS that was loaded is busy, and cannot be loaded again. */
    block->gdt[SELECTOR_TSS / 8] &= ~(UINT64_C(2) << 40);
    load_segments(block);
    wrmsr(MSR_FS_BASE, 0);
    wrmsr(MSR_GS_BASE, (uint64_t)cpu);
    wrmsr(MSR_KERNEL_GS_BASE, 0);
    trap_load();
    write_cr0(CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_MP | CR0_PE);
    write_cr4(CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT |
              (cpuid(1, 0).edx >> 7 & 1 ? CR4_MCE : 0) |
              (cpuid(1, 0).ecx >> 26 & 1 ? CR4_OSXSAVE : 0));
}
