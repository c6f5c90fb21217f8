/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The trace on the hypervisor: a kernel that makes the core's machine of real memory and real CPUs
 * and runs the driver on CPU 0. The port is the hypervisor's own, but for the two functions that
 * must answer as they do in the hosted run: which allocation is refused, and random numbers. The
 * linker puts these here in the core's calls (--wrap).
 */
#include "boot/boot.h"
#include "hvm.h"
#include "machine.h"
#include "platform.h"
#include "random.h"
#include "trace.h"

#define STACK_BYTES (UINT64_C(512) << 10)
#define HEAP_BYTES (UINT64_C(96) << 20)

static struct {
    void *descriptors;
    uint64_t descriptor_bytes;
    uint64_t frames;
    pfn_t device;
    struct world *world;
} own;

/* --- The port --------------------------------------------------------------------------------- */

static struct {
    uint64_t seen, at;
    bool fired;
} refusal;
static uint64_t random_state;

bool __wrap_port_refuse_allocation(void);
uint64_t __wrap_port_random(void);

bool __wrap_port_refuse_allocation(void)
{
    bool refuse = ++refusal.seen == refusal.at;
    refusal.fired |= refuse;
    return refuse;
}

uint64_t __wrap_port_random(void) { return test_random(&random_state); }

void host_fail_allocation(uint64_t k)
{
    refusal.seen = 0;
    refusal.at = k;
    refusal.fired = false;
}

bool host_allocation_failed(void) { return refusal.fired; }

void port_wake(struct vcpu_wait *wait) { spec_woken(own.world, wait); }
void port_starved(struct space *space) { (void)space; }

/* --- The machine ------------------------------------------------------------------------------ */

void spec_start_machine(struct world *w, uint64_t blocks)
{
    pfn_t start = pfn(TRACE_POOL_BLOCKS * (uint32_t)level_pages(1));
    pfn_t end = pfn_add(start, blocks * level_pages(1));
    bool there = false;

    for (unsigned i = 0; i < boot_info.free_count; i++) {
        there |= boot_info.free[i].start <= (uint64_t)start.v << PAGE_SHIFT &&
                 boot_info.free[i].end >= (uint64_t)end.v << PAGE_SHIFT;
    }
    if (!there) {
        crash("frames %x to %x, for the pool, are not free", start.v, end.v);
    }
    own.world = w;
    for (unsigned cpu = 0; cpu < SPEC_VCPUS; cpu++) {
        cpu_at(cpu)->words_copied = cpu_at(cpu)->words_zeroed = 0;
    }
    w->ctx = &this_cpu()->ctx;
    w->device = own.device;
    random_state = w->seed;
    refusal.at = 0;
    __builtin_memset(own.descriptors, 0, own.descriptor_bytes);
    enum cleave_status status = machine_init(w->ctx, host_pointer(0), own.frames, own.descriptors,
                                             hvm->format, boot_info.cpus, w->shard->huge_exec);
    MM_CHECK(status == CLEAVE_OK);
    cpus_make_guests();
    status = pool_create(w->ctx, start, end, &w->pool);
    MM_CHECK(status == CLEAVE_OK);
}

void spec_stop_machine(void)
{
    for (unsigned cpu = 1; cpu < SPEC_VCPUS; cpu++) {
        host_cpu_stop(cpu);
    }
}

void spec_check_machine(void)
{
    for (unsigned cpu = 0; cpu < SPEC_VCPUS; cpu++) {
        MM_CHECK(cpu_at(cpu)->ctx.lock_depth == 0);
    }
}

void trace_count(struct trace_counts *counts)
{
    cpus_count(&counts->accesses, &counts->faults);
    for (unsigned cpu = 0; cpu < SPEC_VCPUS; cpu++) {
        counts->copied += 8 * cpu_at(cpu)->words_copied;
        counts->zeroed += 8 * cpu_at(cpu)->words_zeroed;
    }
}

void spec_stop(int kind) { machine_stop((uint8_t)kind); }

/* --- The kernel ------------------------------------------------------------------------------- */

static void enable_cpus(void)
{
    for (unsigned cpu = 0; cpu < SPEC_VCPUS; cpu++) {
        cpu_at(cpu)->hvm_frame[1] = boot_take(PAGE_SIZE, PAGE_SIZE, "world switch");
        __atomic_store_n(&cpu_at(cpu)->hvm_frame[0],
                         boot_take(PAGE_SIZE, PAGE_SIZE, "world switch"), __ATOMIC_RELEASE);
    }
}

static void run(void)
{
    struct trace trace;

    if (!trace_parse(boot_info.command_line, &trace)) {
        crash("the command line is no trace: %s", boot_info.command_line);
    }
    if (hvm->format != (trace.npt ? &npt_format : &ept_format)) {
        crash("%s does not use %s entries", hvm->name, trace.npt ? "NPT" : "EPT");
    }
    trace_run(&trace);
    machine_stop(0);
}

void kernel_main(void)
{
    if (!hvm_choose()) {
        machine_stop(2);
    }
    cpus_start();
    if (boot_info.cpus != SPEC_VCPUS) {
        crash("a trace needs %u CPUs", SPEC_VCPUS);
    }
    own.frames = boot_info.memory_end >> PAGE_SHIFT;
    own.descriptor_bytes = machine_descriptor_bytes(own.frames);
    own.descriptors = host_pointer(boot_take(own.descriptor_bytes, PAGE_SIZE, "descriptors"));
    own.device = pfn((uint32_t)(boot_take(level_size(1), level_size(1), "device") >> PAGE_SHIFT));
    libc_start(host_pointer(boot_take(HEAP_BYTES, PAGE_SIZE, "heap")), HEAP_BYTES);
    uint64_t stack = boot_take(STACK_BYTES, PAGE_SIZE, "stack");
    cpus_prepare();
    enable_cpus();
    boot_print_map();
    print("machine: %s, %u CPUs\n", hvm->name, boot_info.cpus);
    boot_run_on((uintptr_t)host_pointer(stack + STACK_BYTES), run);
}
