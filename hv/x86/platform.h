/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machine below the kernel: what the boot loader left, console, CPUs, timer, interrupts between
 * CPUs. hv/x86/boot/ and its neighbours implement it; hv/kernel/ and the world switches use it.
 */
#ifndef X86_PLATFORM_H
#define X86_PLATFORM_H

#include <stdarg.h>

#include "cpu.h"
#include "types.h"

/* Where host-physical address 0 is mapped; as far as RAM reaches, 4 GiB at least. */
#define DIRECT_MAP UINT64_C(0xffff800000000000)
static inline void *host_pointer(uint64_t address) { return (void *)(DIRECT_MAP + address); }
static inline uint64_t host_address(const void *direct) { return (uint64_t)direct - DIRECT_MAP; }

/* --- What the boot loader left ---------------------------------------------------------------- */

#define BOOT_RANGES_MAX 64u
#define BOOT_MODULES_MAX 32u
#define BOOT_NAME_MAX 64u

/* Half-open: host-physical bytes [start, end). */
struct boot_range {
    uint64_t start, end;
};
struct boot_module {
    uint64_t start, end;      /* the bytes, as they lie in RAM */
    char name[BOOT_NAME_MAX]; /* first word of its command line, without folders */
};
/* Filled by x86_start() before kernel_main(); constant afterwards. */
struct boot_info {
    const char *loader; /* "multiboot1" or "multiboot2" */
    char command_line[256];
    struct boot_range ram[BOOT_RANGES_MAX]; /* ascending, apart, whole pages: all usable RAM */
    unsigned ram_count;
    struct boot_range image;                 /* the hypervisor as linked, with its zeroed data */
    struct boot_range free[BOOT_RANGES_MAX]; /* RAM less image, low MiB, modules, boot_take() */
    unsigned free_count;
    struct boot_module module[BOOT_MODULES_MAX];
    unsigned module_count;
    uint64_t memory_end; /* first byte past the highest RAM: the direct map reaches it */
    uint64_t rsdp;       /* host-physical; 0: none found */
    unsigned cpus;
};
extern struct boot_info boot_info;

/* Takes `bytes` (more than 0, rounded up to pages, aligned to `align`, a power of two >= 4096) off
 * boot_info.free for ever and zeroes them; host-physical address. Panics when there is no such
 * range: only at boot, before the rest becomes untyped memory. */
uint64_t boot_take(uint64_t bytes, uint64_t align, const char *what);
/* Is `word` one of the words of the command line? */
bool boot_option(const char *word);
/* Says on the console where each byte of RAM went: image, modules, each boot_take(), free. */
void boot_print_map(void);

/* Called by x86_start() on the boot CPU once the console, traps, page tables, this_cpu() and the
 * timer work; other CPUs wait. Never returns. hv/kernel/main.c */
_Noreturn void kernel_main(void);
/* What each other CPU runs after cpus_start(). hv/kernel/main.c */
_Noreturn void kernel_main_cpu(void);
/* Starts the other CPUs (INIT, SIPI; from ACPI's MADT), at most MM_MAX_CPUS in all; each calls
 * kernel_main_cpu() on its own stack with its own record. Returns when all that answered within
 * 100 ms have; boot_info.cpus is their number. */
void cpus_start(void);

/* --- Console and ends ------------------------------------------------------------------------- */

/* Output to COM1 and port 0xE9, a lock around each call so that lines of two CPUs do not mix. Knows
 * %s %c %d %u %x %p with l and ll, width, 0 and -, and %%. */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
void vprint(const char *format, va_list arguments);
void console_write(const char *bytes, uint64_t count);
/* The newest 16 KiB of what print() wrote, from any CPU: from byte `*from` on, or the oldest, at
 * most `room` bytes; console_log.h. */
uint32_t console_log(uint32_t *from, bool oldest, char *to, uint32_t room);
/* What stands before byte `before` is not given again. */
void console_log_clear(uint32_t before);
/* A character that has arrived on COM1, or -1. */
int console_read(void);
/* snprintf() with the same conversions; always terminates; returns what would have been written. */
int format_text(char *to, uint64_t room, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define MACHINE_CRASHED 99 /* code with which a crash stops the machine */

/* Prints what happened with registers, a backtrace with symbols and what each CPU was doing, then
 * stops the machine by machine_stop(MACHINE_CRASHED). */
_Noreturn void crash(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Ends the machine in good order: prints `machine: stop <code>`, waits for the console to drain,
 * isa-debug-exit (port 0xf4) with `code` (below 120: see configs/qemu.sh), ACPI poweroff where
 * known, else halts. */
_Noreturn void machine_stop(uint8_t code);

/* --- Interrupts and time ---------------------------------------------------------------------- */

enum interrupt_vector {
    VECTOR_TIMER = 0xf0,
    VECTOR_KICK,    /* look up from the guest: port_kick(), vcpu_attend() */
    VECTOR_RESCHED, /* look at the run queue */
    VECTOR_HALT,    /* a crash: stop */
    VECTOR_SPURIOUS = 0xff
};
/* Sends `vector` to CPU `id`; returns at once. */
void cpu_send(unsigned id, enum interrupt_vector vector);
/* Lets pending interrupts come in and handles them (sti; nop; cli); returns with interrupts off. */
void cpu_take_interrupts(void);
/* Waits with interrupts on until one came; returns with interrupts off. Does not sleep when
 * this_cpu()->resched, ->kicked or ->ticked is already set. */
void cpu_idle(void);

extern uint64_t tsc_per_second; /* measured at boot */
/* Asks for VECTOR_TIMER on this CPU at TSC `deadline`, or at once when it has passed; sets
 * this_cpu()->deadline. 0: none. The handler clears `deadline` and sets `ticked`. */
void timer_arm(uint64_t deadline);
uint64_t tsc_to_ns(uint64_t ticks);
/* Nanoseconds since 1970, UTC; from the machine's clock at boot, then by the TSC. */
uint64_t wall_clock_ns(void);
uint64_t ns_to_tsc(uint64_t ns);

/* Instructions that may fault: false where #GP was raised, with the result zero. */
bool rdmsr_safe(uint32_t msr, uint64_t *value);
bool wrmsr_safe(uint32_t msr, uint64_t value);

#endif
