/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The report of a crash and the ends of the machine. One CPU reports; the others are stopped first
 * by an interrupt, then by an NMI, and note where they were. No lock is taken.
 */
#include "acpi.h"
#include "apic.h"
#include "boot/boot.h"
#include "console.h"
#include "format.h"
#include "symbols.h"
#include "time.h"
#include "trap.h"

enum { NOBODY = -1, DEBUG_EXIT = 0xf4, BACKTRACE_MAX = 24, HALT_WAIT_US = 20000 };

static int reporter = NOBODY; /* CPU that crashed first */
/* Written by each CPU as it stops: where it was. */
static struct {
    uint32_t stopped;
    uint64_t rip, rbp;
} stopped[MM_MAX_CPUS];

extern const char boot_stack[];

static _Noreturn void halt(void)
{
    for (;;) {
        __asm__ volatile("cli; hlt" : : : "memory");
    }
}

/* Can [address, address + 16) be read as part of a stack of `cpu`? */
static bool on_stack(const struct percpu *cpu, uint64_t address)
{
    uint64_t offset = address - (LAYOUT_STACKS + (uint64_t)cpu->id * LAYOUT_CPU_STACKS);

    if (address & 7) {
        return false;
    }
    if (address >= (uint64_t)boot_stack && address <= (uint64_t)boot_stack + BOOT_STACK_SIZE - 16) {
        return true;
    }
    if (cpu->stack_top == 0 || offset >= LAYOUT_CPU_STACKS) {
        return false;
    }
    if (offset >= LAYOUT_STACK_LOW && offset <= LAYOUT_STACK_TOP - 16) {
        return true;
    }
    for (unsigned i = 0; i < 3; i++) {
        if (offset >= LAYOUT_IST_LOW(i) && offset <= LAYOUT_IST_LOW(i) + LAYOUT_IST_SIZE - 16) {
            return true;
        }
    }
    return false;
}

/* `before`: the address is that behind a call, which may be the function's last instruction. */
static void print_place(uint64_t rip, uint64_t before)
{
    uint64_t offset;
    const char *name = symbol_name(rip - before, &offset);
    if (name) {
        print("    %016lx %s+0x%lx\n", (unsigned long)rip, name, (unsigned long)(offset + before));
    } else {
        print("    %016lx\n", (unsigned long)rip);
    }
}

/* Frames are linked by RBP, as -fno-omit-frame-pointer leaves them. */
static void backtrace(const struct percpu *cpu, uint64_t rip, uint64_t rbp)
{
    print_place(rip, 0);
    for (unsigned i = 0; i < BACKTRACE_MAX && on_stack(cpu, rbp); i++) {
        const uint64_t *frame = (const uint64_t *)rbp;
        if (frame[1] == 0) {
            return;
        }
        print_place(frame[1], 1);
        if (frame[0] <= rbp && frame[0] >= LAYOUT_STACKS) {
            return; /* goes round */
        }
        rbp = frame[0];
    }
}

static void print_registers(const struct trap_frame *f)
{
    const struct {
        const char *name;
        uint64_t value;
    } reg[] = {{"rax", f->rax},     {"rbx", f->rbx},     {"rcx", f->rcx},     {"rdx", f->rdx},
               {"rsi", f->rsi},     {"rdi", f->rdi},     {"rbp", f->rbp},     {"rsp", f->rsp},
               {"r8 ", f->r8},      {"r9 ", f->r9},      {"r10", f->r10},     {"r11", f->r11},
               {"r12", f->r12},     {"r13", f->r13},     {"r14", f->r14},     {"r15", f->r15},
               {"rip", f->rip},     {"cs ", f->cs},      {"rfl", f->rflags},  {"ss ", f->ss},
               {"cr0", read_cr0()}, {"cr2", read_cr2()}, {"cr3", read_cr3()}, {"cr4", read_cr4()}};
    for (unsigned i = 0; i < sizeof(reg) / sizeof(reg[0]); i++) {
        print("  %s %016lx%s", reg[i].name, (unsigned long)reg[i].value, i % 4 == 3 ? "\n" : "");
    }
}

static void print_doing(const struct percpu *cpu)
{
    static const char *const names[] = {[CPU_BOOT] = "booting",
                                        [CPU_IDLE] = "idle",
                                        [CPU_GUEST] = "in a guest",
                                        [CPU_EXIT] = "handling an exit",
                                        [CPU_HYPERCALL] = "in a hypercall",
                                        [CPU_CONSOLE] = "at the console"};
    uint64_t doing = cpu->doing[0];
    print("  CPU %u: %s (%lx), %lu exits, %lu interrupts\n", cpu->id,
          doing < sizeof(names) / sizeof(names[0]) ? names[doing] : "unknown",
          (unsigned long)cpu->doing[1], (unsigned long)cpu->exits, (unsigned long)cpu->interrupts);
}

static bool has_stopped(unsigned id)
{
    return __atomic_load_n(&stopped[id].stopped, __ATOMIC_ACQUIRE) != 0;
}

/* Sends `command` to each CPU that has not stopped and waits for them, but not for ever. */
static void stop_others(const struct percpu *self, uint32_t command)
{
    bool all = true;
    for (unsigned i = 0; i < boot_info.cpus; i++) {
        if (i != self->id && !has_stopped(i)) {
            apic_send(cpu_at(i)->apic_id, command);
        }
    }
    for (unsigned us = 0; us < HALT_WAIT_US; us += 100) {
        all = true;
        for (unsigned i = 0; i < boot_info.cpus; i++) {
            all &= i == self->id || has_stopped(i);
        }
        if (all) {
            return;
        }
        time_wait_us(100);
    }
}

/* The second and later CPUs that crash stop here; so does a report that crashes. */
static void become_reporter(struct percpu *self)
{
    int nobody = NOBODY;

    __asm__ volatile("cli" : : : "memory");
    if (__atomic_compare_exchange_n(&reporter, &nobody, (int)self->id, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE)) {
        if (boot_info.cpus > 1) {
            stop_others(self, APIC_FIXED | VECTOR_HALT);
            stop_others(self, APIC_NMI);
        }
        console_break_lock();
        return;
    }
    if (nobody == (int)self->id) {
        print("\nCPU %u crashed again while it reported a crash\n", self->id);
        machine_stop(MACHINE_CRASHED);
    }
    __atomic_store_n(&stopped[self->id].stopped, 1, __ATOMIC_RELEASE);
    halt();
}

static _Noreturn void report(struct percpu *self, const struct trap_frame *frame)
{
    print_registers(frame);
    print("  backtrace:\n");
    backtrace(self, frame->rip, frame->rbp);
    print_doing(self);
    for (unsigned i = 0; i < boot_info.cpus; i++) {
        if (i == self->id) {
            continue;
        }
        print_doing(cpu_at(i));
        if (has_stopped(i)) {
            backtrace(cpu_at(i), stopped[i].rip, stopped[i].rbp);
        } else {
            print("    does not answer\n");
        }
    }
    machine_stop(MACHINE_CRASHED);
}

_Noreturn void crash(const char *format, ...)
{
    static char text[512]; /* the reporter alone writes it */
    struct percpu *self = this_cpu();
    struct trap_frame frame;
    va_list arguments;

    trap_capture(&frame);
    become_reporter(self);
    va_start(arguments, format);
    format_text_list(text, sizeof(text), format, arguments);
    va_end(arguments);
    print("\nCRASH on CPU %u: %s\n", self->id, text);
    report(self, &frame);
}

_Noreturn void crash_trap(const struct trap_frame *frame)
{
    struct percpu *self = this_cpu();
    uint64_t cr2 = read_cr2();

    become_reporter(self);
    print("\nCRASH on CPU %u: %s, error %lx", self->id, trap_name(frame->vector),
          (unsigned long)frame->error);
    if (frame->vector == TRAP_PF) {
        print(", %s of %016lx",
              frame->error & 16  ? "execution"
              : frame->error & 2 ? "write"
                                 : "read",
              (unsigned long)cr2);
    }
    print("\n");
    report(self, frame);
}

_Noreturn void crash_halt(const struct trap_frame *frame)
{
    struct percpu *self = this_cpu();

    if (frame->vector == TRAP_NMI && __atomic_load_n(&reporter, __ATOMIC_ACQUIRE) == NOBODY) {
        crash_trap(frame);
    }
    stopped[self->id].rip = frame->rip;
    stopped[self->id].rbp = frame->rbp;
    __atomic_store_n(&stopped[self->id].stopped, 1, __ATOMIC_RELEASE);
    halt();
}

_Noreturn void machine_stop(uint8_t code)
{
    __asm__ volatile("cli" : : : "memory");
    print("machine: stop %u\n", code);
    console_drain();
    outl(DEBUG_EXIT, code);
    acpi_power_off();
    for (unsigned i = 0; i < boot_info.cpus; i++) {
        if (i != this_cpu()->id && !has_stopped(i)) {
            apic_send(cpu_at(i)->apic_id, APIC_FIXED | VECTOR_HALT);
        }
    }
    halt();
}
