/* SPDX-License-Identifier: BSD-2-Clause */
/* From the boot loader's information to kernel_main(), on the boot CPU. */
#include "../acpi.h"
#include "../apic.h"
#include "../console.h"
#include "../time.h"
#include "../trap.h"
#include "boot.h"

/* What the loader said; the copy of its RSDP stays in use. */
static struct multiboot multiboot;

/* On the boot CPU's own stack, with the hypervisor's own tables. */
static void start_on_stack(void)
{
    struct percpu *cpu = this_cpu();

    trap_init(true);
    cpu_load(cpu);
    apic_init();
    cpu->apic_id = apic_id();
    boot_info.cpus = 1;
    time_init();
    rtc_init();
    boot_info.rsdp = acpi_init(multiboot.rsdp[0] ? image_physical(multiboot.rsdp) : 0);
    if (!(cpuid(1, 0).ecx >> 30 & 1)) {
        print("random: no RDRAND, numbers come from the TSC's jitter\n");
    }
    kernel_main();
}

void x86_start(uint32_t magic, uint32_t pointer)
{
    cpu_init_boot();
    console_init();
    print("\nCleave\n");
    const char *wrong =
        multiboot_parse(host_pointer(0), direct_map_end, magic, pointer, &multiboot);
    if (wrong) {
        crash("what the boot loader left cannot be used: %s (%s, %x at %x)", wrong,
              multiboot.loader, magic, pointer);
    }
    memory_init(&multiboot);
    paging_init();
    cpu_make_stacks(this_cpu());
    boot_run_on(this_cpu()->stack_top, start_on_stack);
}
