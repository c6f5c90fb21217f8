/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A kernel that tests the platform alone: map, other CPUs, timer, interrupts between CPUs; and one
 * crash of a chosen kind, by words of the command line. Ends with code 0 when all was well.
 */
#include "hvm.h"
#include "platform.h"
#include "port.h"

/* No guest runs here. */
const struct hvm_ops *hvm;
void port_wake(struct vcpu_wait *wait) { (void)wait; }
void port_starved(struct space *space) { (void)space; }

static uint32_t pinged[MM_MAX_CPUS]; /* how often each CPU was woken */
static bool stuck;                   /* other CPUs wait without taking interrupts */
static unsigned failures;

#define WANT(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            print("FAIL  line %d: %s\n", __LINE__, #condition);                                    \
            failures++;                                                                            \
        }                                                                                          \
    } while (0)

_Noreturn void kernel_main_cpu(void)
{
    struct percpu *cpu = this_cpu();
    cpu->doing[0] = CPU_IDLE;
    for (;;) {
        cpu_idle();
        if (__atomic_exchange_n(&cpu->resched, 0, __ATOMIC_SEQ_CST)) {
            __atomic_add_fetch(&pinged[cpu->id], 1, __ATOMIC_SEQ_CST);
        }
        if (__atomic_load_n(&cpu->kicked, __ATOMIC_SEQ_CST)) {
            port_relax(&cpu->ctx);
        }
        while (__atomic_load_n(&stuck, __ATOMIC_RELAXED)) {
            cpu_pause();
        }
    }
}

static bool within(uint64_t milliseconds, const uint32_t *value, uint32_t wanted)
{
    uint64_t end = read_tsc() + ns_to_tsc(milliseconds * 1000000);
    while (__atomic_load_n(value, __ATOMIC_SEQ_CST) != wanted) {
        if (read_tsc() > end) {
            return false;
        }
        cpu_pause();
    }
    return true;
}

static void test_memory(void)
{
    uint64_t used = 0, before = 0, end = 0;
    for (unsigned i = 0; i < boot_info.free_count; i++) {
        before += boot_info.free[i].end - boot_info.free[i].start;
        WANT(boot_info.free[i].start >= end && boot_info.free[i].start < boot_info.free[i].end);
        end = boot_info.free[i].end;
    }
    uint64_t at = boot_take(3 * PAGE_SIZE - 1, UINT64_C(1) << 21, "test");
    WANT(at % (UINT64_C(1) << 21) == 0);
    for (unsigned i = 0; i < 3 * PAGE_SIZE / 8; i++) {
        used |= ((uint64_t *)host_pointer(at))[i];
    }
    WANT(used == 0);
    uint64_t after = 0;
    for (unsigned i = 0; i < boot_info.free_count; i++) {
        after += boot_info.free[i].end - boot_info.free[i].start;
    }
    WANT(before - after == 3 * PAGE_SIZE);
    /* The direct map reaches the last byte of RAM, and that is no alias of another. */
    uint64_t *last = host_pointer(boot_info.memory_end - 8);
    uint64_t old = *last;
    *last = UINT64_C(0x0123456789abcdef);
    WANT(*(uint64_t *)host_pointer(at) == 0 && *last == UINT64_C(0x0123456789abcdef));
    *last = old;
}

static void test_format(void)
{
    char text[64], small[4];
    static const char expected[] = "a 42 -7 00ff    x|x   | 18446744073709551615 0x10 %";
    int length = format_text(text, sizeof(text), "%s %u %d %04x %4s|%-4s| %lu %p %%", "a", 42, -7,
                             0xff, "x", "x", ~0ul, (void *)16);
    WANT(length == (int)sizeof(expected) - 1);
    WANT(__builtin_memcmp(text, expected, sizeof(expected)) == 0);
    WANT(format_text(small, sizeof(small), "%d", 12345) == 5 && small[2] == '3' && small[3] == 0);
}

static void test_msr(void)
{
    uint64_t value = 1;
    WANT(rdmsr_safe(MSR_EFER, &value) && (value & EFER_LMA) && (value & EFER_NXE));
    WANT(!wrmsr_safe(0x6e1, ~UINT64_C(0))); /* IA32_PKRS: its upper half is reserved */
    /* No CPU has this one, but QEMU reads each as zero. */
    if (rdmsr_safe(0x4b564d42, &value)) {
        print("boottest: a read of an MSR that there is none of does not fault here\n");
    }
    WANT(value == 0);
}

static void test_timer(void)
{
    struct percpu *cpu = this_cpu();
    uint64_t start = read_tsc(), wait = ns_to_tsc(20000000);

    for (unsigned i = 0; i < 3; i++) {
        cpu->ticked = 0;
        timer_arm(i == 2 ? start : read_tsc() + wait);
        while (!__atomic_load_n(&cpu->ticked, __ATOMIC_RELAXED)) {
            cpu_idle();
        }
        WANT(cpu->deadline == 0);
        WANT(i == 2 || read_tsc() - start >= wait);
        start = read_tsc();
    }
    cpu->ticked = 0;
    timer_arm(read_tsc() + wait / 10);
    timer_arm(0);
    start = read_tsc();
    while (read_tsc() - start < wait) {
        cpu_take_interrupts();
    }
    WANT(cpu->ticked == 0);
    uint64_t second = tsc_to_ns(tsc_per_second);
    WANT(second > 999999000 && second < 1000001000);
}

/* Every CPU wakes every time, whatever the moment: none of the wakeups is lost. */
static void test_wakeups(void)
{
    uint64_t start = read_tsc();
    for (unsigned cpu = 1; cpu < boot_info.cpus; cpu++) {
        for (uint32_t n = 1; n <= 1000; n++) {
            __atomic_store_n(&cpu_at(cpu)->resched, 1, __ATOMIC_SEQ_CST);
            cpu_send(cpu, VECTOR_RESCHED);
            if (!within(2000, &pinged[cpu], n)) {
                print("FAIL  CPU %u lost a wakeup, number %u\n", cpu, n);
                failures++;
                break;
            }
        }
        port_kick(&this_cpu()->ctx, cpu);
        WANT(within(2000, &cpu_at(cpu)->kicked, 0));
    }
    print("boottest: wakeups took %lu us\n", (unsigned long)tsc_to_ns(read_tsc() - start) / 1000);
}

static __attribute__((noinline)) int overflow(volatile int *deep)
{
    volatile char big[512];
    big[0] = (char)*deep;
    *deep += 1;
    return *deep < 0 ? 0 : overflow(deep) + big[0];
}

/* One crash, by name. */
static void test_crash(void)
{
    extern char image_start[], text_end[];
    volatile int deep = 0;

    if (boot_option("crash")) {
        crash("asked for, with %s and %d", "words", 42);
    } else if (boot_option("panic")) {
        MM_CHECK(boot_info.cpus == 0);
    } else if (boot_option("null")) {
        *(volatile int *)(uintptr_t)deep = 1;
    } else if (boot_option("write-text")) {
        *(volatile char *)image_start = 0;
    } else if (boot_option("write-rodata")) {
        *(volatile char *)text_end = 0;
    } else if (boot_option("write-alias")) {
        *(volatile char *)host_pointer(boot_info.image.start) = 0;
    } else if (boot_option("execute-data")) {
        static char code[] = {(char)0xc3};
        ((void (*)(void))(uintptr_t)code)();
    } else if (boot_option("stack")) {
        deep = overflow(&deep);
    } else if (boot_option("ud")) {
        __asm__ volatile("ud2");
    } else if (boot_option("nmi")) {
        __asm__ volatile("int $2");
    } else if (boot_option("stuck")) {
        stuck = true;
        for (unsigned i = 1; i < boot_info.cpus; i++) {
            cpu_send(i, VECTOR_RESCHED);
        }
        crash("the others do not take interrupts");
    }
}

_Noreturn void kernel_main(void)
{
    print("boottest: x2APIC %s\n", rdmsr(MSR_APIC_BASE) >> 10 & 1 ? "in use" : "not in use");
    print("boottest: loader %s, command line \"%s\", rsdp %lx\n", boot_info.loader,
          boot_info.command_line, (unsigned long)boot_info.rsdp);
    for (unsigned i = 0; i < boot_info.module_count; i++) {
        const struct boot_module *m = &boot_info.module[i];
        uint32_t sum = 0;
        for (uint64_t at = m->start; at < m->end; at++) {
            sum += *(unsigned char *)host_pointer(at);
        }
        print("boottest: module %s, %lu bytes, sum %u\n", m->name,
              (unsigned long)(m->end - m->start), sum);
    }
    cpus_start();
    test_memory();
    test_format();
    test_msr();
    test_timer();
    test_wakeups();
    WANT(port_random() != port_random());
    boot_print_map();
    test_crash();
    print("boottest: %u failed\n", failures);
    machine_stop(failures != 0);
}
