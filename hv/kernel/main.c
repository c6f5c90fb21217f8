/* SPDX-License-Identifier: BSD-2-Clause */
/* What happens between the platform's start and the first guest, on each CPU. */
#include "build.h"
#include "monitor.h"
#include "sched.h"
#include "tenant.h"

static struct config config;
static uint32_t go; /* the boot CPU has made everything: the others may run guests */

static void enable(struct percpu *cpu)
{
    if (!hvm->cpu_enable(cpu)) {
        crash("CPU %u: %s cannot be turned on", cpu->id, hvm->name);
    }
}

void kernel_main(void)
{
    struct percpu *cpu = this_cpu();

    print("Cleave: %u modules from %s\n", boot_info.module_count, boot_info.loader);
    if (!hvm_choose()) {
        machine_stop(2);
    }
    cpus_start();
    for (unsigned i = 0; i < boot_info.cpus; i++) {
        cpu_at(i)->hvm_frame[0] = boot_take(2 * PAGE_SIZE, PAGE_SIZE, "world switch");
        cpu_at(i)->hvm_frame[1] = cpu_at(i)->hvm_frame[0] + PAGE_SIZE;
    }
    print("machine: %s, %u CPUs\n", hvm->name, boot_info.cpus);
    enable(cpu);
    tenants_start(&cpu->ctx);
    boot_print_map();
    cpu->ctx.budget = UINT64_MAX;
    if (!build_all(&cpu->ctx, &config)) {
        machine_stop(2);
    }
    if (config.stop) {
        monitor_stop_after(config.domains);
    }
    __atomic_store_n(&go, 1, __ATOMIC_RELEASE);
    sched_run();
}

void kernel_main_cpu(void)
{
    struct percpu *cpu = this_cpu();
    cpu->ctx.budget = UINT64_MAX;
    while (!__atomic_load_n(&go, __ATOMIC_ACQUIRE)) {
        cpu_pause();
    }
    enable(cpu);
    sched_run();
}
