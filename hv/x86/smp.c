/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Starts the other CPUs one after the other (SDM 3A 9.4.4): INIT, then SIPI with the page of the
 * trampoline, which boot.S holds. The boot CPU alone runs this, but for secondary_start().
 */
#include "acpi.h"
#include "apic.h"
#include "boot/boot.h"
#include "boot/ranges.h"
#include "time.h"
#include "trap.h"

enum { ATTEMPTS = 3, ANSWER_US = 100000, LAST_ANSWER_US = 1000000 };
#define LOW_MEMORY_START UINT64_C(0x8000)
#define LOW_MEMORY_END UINT64_C(0x9f000)

extern const unsigned char trampoline[], trampoline_end[], boot_pml4[], boot_gdt[];

/* What the CPU that is being started loads; see secondary_entry in boot.S. */
uint64_t secondary_stack;
struct percpu *secondary_cpu;
void secondary_start(struct percpu *cpu);

static uint32_t answered;     /* id of the CPU that last came up, plus one */
static uint64_t answered_tsc; /* its clock then */

void secondary_start(struct percpu *cpu)
{
    cpu_load(cpu);
    apic_enable();
    answered_tsc = read_tsc();
    __atomic_store_n(&answered, cpu->id + 1, __ATOMIC_RELEASE);
    kernel_main_cpu();
}

static bool wait_for(const struct percpu *cpu, uint64_t microseconds)
{
    for (uint64_t us = 0; us < microseconds; us += 10) {
        if (__atomic_load_n(&answered, __ATOMIC_ACQUIRE) == cpu->id + 1) {
            return true;
        }
        time_wait_us(10);
    }
    return false;
}

static bool start(struct percpu *cpu, uint64_t page)
{
    secondary_stack = cpu->stack_top;
    secondary_cpu = cpu;
    for (unsigned attempt = 1; attempt <= ATTEMPTS; attempt++) {
        uint64_t before = read_tsc();
        apic_send(cpu->apic_id, APIC_INIT);
        time_wait_us(10000);
        apic_send(cpu->apic_id, APIC_STARTUP | (uint32_t)(page >> 12));
        if (!wait_for(cpu, 200)) {
            apic_send(cpu->apic_id, APIC_STARTUP | (uint32_t)(page >> 12));
        }
        if (wait_for(cpu, attempt < ATTEMPTS ? ANSWER_US : LAST_ANSWER_US)) {
            if (answered_tsc < before || answered_tsc > read_tsc()) {
                print("cpus: the TSC of CPU %u differs from that of CPU 0\n", cpu->id);
            }
            return true;
        }
    }
    apic_send(cpu->apic_id, APIC_INIT); /* so that it does not come up later */
    time_wait_us(10000);
    return false;
}

/* RAM, and no module lies there. */
static bool page_usable(uint64_t page)
{
    bool usable = ranges_hold(boot_info.ram, boot_info.ram_count, page, page + PAGE_SIZE);
    for (unsigned i = 0; i < boot_info.module_count; i++) {
        usable &= boot_info.module[i].end <= page || boot_info.module[i].start >= page + PAGE_SIZE;
    }
    return usable;
}

/* Copies the trampoline to a page below 1 MiB, past the BIOS's data; 0: there is none. */
static uint64_t place_trampoline(void)
{
    uint64_t page = LOW_MEMORY_START;
    while (!page_usable(page)) {
        page += PAGE_SIZE;
        if (page >= LOW_MEMORY_END) {
            return 0;
        }
    }
    unsigned char *copy = host_pointer(page);
    uint32_t pml4 = (uint32_t)image_physical(boot_pml4), far, gdt;
    __builtin_memcpy(copy, trampoline, (size_t)(trampoline_end - trampoline));
    __builtin_memcpy(&far, copy + TRAMPOLINE_FAR, 4);
    far += (uint32_t)page;
    gdt = (uint32_t)image_physical(boot_gdt);
    __builtin_memcpy(copy + TRAMPOLINE_CR3, &pml4, 4);
    __builtin_memcpy(copy + TRAMPOLINE_FAR, &far, 4);
    __builtin_memcpy(copy + TRAMPOLINE_GDTR + 2, &gdt, 4);
    return page;
}

void cpus_start(void)
{
    static struct acpi_cpus found;
    struct percpu *cpu = NULL;
    uint64_t page = place_trampoline();

    acpi_find_cpus(&found);
    if (found.lost) {
        print("cpus: %u CPUs more than the %u that can be used\n", found.lost, MM_MAX_CPUS);
    }
    if (page == 0) {
        print("cpus: no page below 1 MiB to start others from\n");
        found.count = 0;
    }
    for (unsigned i = 0; i < found.count && boot_info.cpus < MM_MAX_CPUS; i++) {
        if (found.apic_id[i] == this_cpu()->apic_id) {
            continue;
        }
        if (cpu == NULL) {
            cpu = cpu_create(boot_info.cpus, found.apic_id[i]);
        }
        cpu->apic_id = found.apic_id[i];
        if (start(cpu, page)) {
            boot_info.cpus++;
            cpu = NULL;
        } else {
            print("cpus: the CPU with APIC id %u does not answer\n", found.apic_id[i]);
        }
    }
    print("cpus: %u\n", boot_info.cpus);
}
