/* SPDX-License-Identifier: BSD-2-Clause */
/* What traps and boot need of the clock; the rest is in platform.h. */
#ifndef X86_TIME_H
#define X86_TIME_H

#include "cpu.h"

/* Measures TSC and APIC timer against the PIT, on the boot CPU. */
void time_init(void);
/* Reads the machine's clock, after time_init(). */
void rtc_init(void);
/* VECTOR_TIMER came in on `cpu`, the calling one. */
void timer_fired(struct percpu *cpu);
/* Waits so long, without interrupts. */
void time_wait_us(uint64_t microseconds);

#endif
