/* SPDX-License-Identifier: BSD-2-Clause */
/* The local APIC of the calling CPU (SDM 3A chapter 10). */
#ifndef X86_APIC_H
#define X86_APIC_H

#include "types.h"

/* Finds whether the firmware left it in x2APIC mode, or the word `x2apic` asks for it; else maps
 * its page. On the boot CPU. */
void apic_init(void);
/* Enables that of the calling CPU: spurious vector, timer, all else masked but NMI. */
void apic_enable(void);
uint32_t apic_id(void);
void apic_end_of_interrupt(void);

/* One-shot timer: raises VECTOR_TIMER after `ticks`; 0 stops it. What is left of it. */
void apic_timer_set(uint32_t ticks);
uint32_t apic_timer_get(void);

/* Kinds of interrupts between CPUs, added to a vector (SDM 3A 10.6.1). */
enum { APIC_FIXED = 0, APIC_NMI = 4 << 8, APIC_INIT = 5 << 8, APIC_STARTUP = 6 << 8 };
/* Sends to the CPU with APIC id `to`; waits, but not for ever, until the last one was sent. */
void apic_send(uint32_t to, uint32_t command);

#endif
