/* SPDX-License-Identifier: BSD-2-Clause */
/* What happens between the platform's start and the first guest, on each CPU. */
#include "build.h"
#include "monitor.h"
#include "sched.h"
#include "selftest.h"
#include "tenant.h"
#include "top.h"

static struct config config;
/* What the boot CPU has made, so that the others may enable themselves, and may run guests. */
enum { MADE_NOTHING, MADE_FRAMES, MADE_ALL };
static uint32_t made;

static bool is_made(uint32_t what) { return __atomic_load_n(&made, __ATOMIC_ACQUIRE) >= what; }

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
    __atomic_store_n(&made, MADE_FRAMES, __ATOMIC_RELEASE);
    tenants_start(&cpu->ctx);
    boot_print_map();
    cpu->ctx.budget = UINT64_MAX;
    if (!build_all(&cpu->ctx, &config)) {
        machine_stop(2);
    }
    if (config.stop) {
        monitor_stop_after(config.domains);
    }
    monitor_echo(config.terminal);
    top_start(config.top, config.terminal);
    __atomic_store_n(&made, MADE_ALL, __ATOMIC_RELEASE);
    sched_run();
}

void kernel_main_cpu(void)
{
    struct percpu *cpu = this_cpu();
    cpu->ctx.budget = UINT64_MAX;
    while (!is_made(MADE_FRAMES)) {
        cpu_pause();
    }
    enable(cpu);
    while (!is_made(MADE_ALL)) {
        selftest_assist();
        cpu_pause();
    }
    sched_run();
}
