/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The TSC as the clock and the local APIC's one-shot timer, both measured against the PIT at boot.
 * Constant afterwards; a CPU arms its own timer only.
 */
#include "time.h"

#include "apic.h"
#include "platform.h"

enum { PIT_HZ = 1193182, PIT_CHANNEL_2 = 0x42, PIT_COMMAND = 0x43, PIT_GATE = 0x61 };
enum { GATE_ON = 1, GATE_SPEAKER = 2, GATE_OUTPUT = 0x20 };
enum { WINDOW = PIT_HZ / 50 }; /* 20 ms */
#define NS_PER_SECOND UINT64_C(1000000000)

uint64_t tsc_per_second;

/* 32.32 fixed point: what a TSC tick is in nanoseconds and in ticks of the APIC timer. */
static uint64_t ns_per_tsc, tsc_per_ns, apic_per_tsc;

/* a * b / 2^32, without a library for division by 128 bits. */
static uint64_t scale(uint64_t a, uint64_t b) { return (uint64_t)((unsigned __int128)a * b >> 32); }

/* Ticks of TSC and APIC timer while channel 2 counts down WINDOW (8254, mode 0). False when it does
 * not within 2^34 ticks, some seconds. */
static bool measure(uint64_t *tsc, uint64_t *apic)
{
    outb(PIT_GATE, (uint8_t)((inb(PIT_GATE) & ~(GATE_SPEAKER | GATE_ON)) & 0xff));
    outb(PIT_COMMAND, 0xb0); /* channel 2, both bytes, mode 0 */
    outb(PIT_CHANNEL_2, WINDOW & 0xff);
    outb(PIT_CHANNEL_2, WINDOW >> 8);
    apic_timer_set(UINT32_MAX);
    uint64_t start = read_tsc();
    outb(PIT_GATE, (uint8_t)(inb(PIT_GATE) | GATE_ON));
    while (!(inb(PIT_GATE) & GATE_OUTPUT)) {
        if (read_tsc() - start > UINT64_C(1) << 34) {
            return false;
        }
    }
    *tsc = read_tsc() - start;
    *apic = UINT32_MAX - apic_timer_get();
    apic_timer_set(0);
    return true;
}

void time_init(void)
{
    uint64_t best_tsc = 0, best_apic = 0, tsc = 0, apic = 0;

    /* Whatever comes in between makes a window longer: the shortest is the best. */
    for (unsigned i = 0; i < 3; i++) {
        if (!measure(&tsc, &apic)) {
            crash("the PIT does not count: the clock cannot be measured");
        }
        if (best_tsc == 0 || tsc < best_tsc) {
            best_tsc = tsc;
            best_apic = apic;
        }
    }
    if (best_tsc == 0 || best_apic == 0) {
        crash("the TSC or the APIC timer does not count");
    }
    tsc_per_second = best_tsc * PIT_HZ / WINDOW;
    ns_per_tsc = (NS_PER_SECOND << 32) / tsc_per_second;
    tsc_per_ns = (tsc_per_second / NS_PER_SECOND << 32) +
                 (tsc_per_second % NS_PER_SECOND << 32) / NS_PER_SECOND;
    apic_per_tsc = (best_apic << 32) / best_tsc;
    print("time: TSC %lu kHz, APIC timer %lu kHz\n", (unsigned long)tsc_per_second / 1000,
          (unsigned long)(best_apic * PIT_HZ / WINDOW) / 1000);
}

uint64_t tsc_to_ns(uint64_t ticks) { return scale(ticks, ns_per_tsc); }
uint64_t ns_to_tsc(uint64_t ns) { return scale(ns, tsc_per_ns); }

void time_wait_us(uint64_t microseconds)
{
    uint64_t start = read_tsc(), ticks = ns_to_tsc(microseconds * 1000);
    while (read_tsc() - start < ticks) {
        cpu_pause();
    }
}

/* Starts the timer for this CPU's deadline. It may fire early, then timer_fired() starts it again.
 */
static void start(const struct percpu *cpu)
{
    uint64_t now = read_tsc();
    uint64_t ticks = cpu->deadline > now ? scale(cpu->deadline - now, apic_per_tsc) : 0;
    apic_timer_set(ticks < UINT32_MAX ? (uint32_t)ticks + 1 : UINT32_MAX);
}

void timer_arm(uint64_t deadline)
{
    struct percpu *cpu = this_cpu();
    cpu->deadline = deadline;
    if (deadline == 0) {
        apic_timer_set(0);
    } else {
        start(cpu);
    }
}

void timer_fired(struct percpu *cpu)
{
    if (cpu->deadline == 0) {
        return; /* it was on its way when it was disarmed */
    }
    if (read_tsc() < cpu->deadline) {
        start(cpu);
        return;
    }
    cpu->deadline = 0;
    __atomic_store_n(&cpu->ticked, 1, __ATOMIC_RELEASE);
}
