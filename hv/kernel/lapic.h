/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vcpu's local APIC, always in x2APIC mode (SDM 3A 10.12): interrupts between the vcpus of a
 * domain, INIT, start-up and NMI. Its timer and local lines keep what is written and never fire.
 *
 * Only the vcpu itself, in an exit of its own, touches its APIC, but for `irr` and `request`, in
 * which others post. What is posted is acted on by vcpu_attention(), before the next instruction.
 */
#ifndef KERNEL_LAPIC_H
#define KERNEL_LAPIC_H

#include "types.h"

struct vcpu;

#define LAPIC_WORDS 8u /* of 32 vectors each */
#define LAPIC_LVTS 6u

/* What a vcpu does (SDM 3C 25.4.2). */
enum lapic_activity { LAPIC_ACTIVE, LAPIC_HLT, LAPIC_WAIT_SIPI };

/* In `request`; the vector of a start-up in bits 7:0. */
#define LAPIC_REQUEST_NMI (1u << 8)
#define LAPIC_REQUEST_INIT (1u << 9)
#define LAPIC_REQUEST_SIPI (1u << 10)

/* Plain data: a fork copies it while the vcpu stands still. */
struct lapic {
    uint32_t irr[LAPIC_WORDS]; /* atomic */
    uint32_t request;          /* atomic; INIT comes before the rest */
    uint32_t spurious;         /* atomic: others look whether it is enabled */
    uint32_t isr[LAPIC_WORDS];
    uint32_t id;
    uint32_t error, errors_since; /* ESR, and what its next write puts there */
    uint32_t lvt[LAPIC_LVTS];
    uint32_t timer_initial, timer_divide;
    uint8_t priority; /* TPR; bits 7:4 are CR8, see lapic_set_cr8() */
    uint8_t bsp;
    uint8_t nmi;      /* one was accepted and is to be injected */
    uint8_t activity; /* enum lapic_activity */
    uint64_t command;
    uint64_t sipi_tsc_offset; /* of who asked for the start-up; written before the request */
};

/* As after power-up, with x2APIC mode on. The first vcpu is active, others wait for a start-up. */
void lapic_init(struct lapic *lapic, uint32_t apic_id, bool bsp);
/* What INIT does to it (SDM 3A 10.12.5.1): its id and requests stay. It waits for a start-up. */
void lapic_reset(struct lapic *lapic);

/* Is it one of the MSRs below? */
static inline bool lapic_has(uint32_t msr) { return msr == 0x1b || msr >> 8 == 8; }
/* MSRs 0x1b and 0x800 to 0x8ff (SDM 3A table 10-6), of the calling vcpu. False: #GP. */
bool lapic_rdmsr(struct vcpu *vcpu, uint32_t msr, uint64_t *value);
bool lapic_wrmsr(struct vcpu *vcpu, uint32_t msr, uint64_t value);

#define LAPIC_PAGE_WORDS 256u
/* The registers as the page of an xAPIC has them (SDM 3A table 10-1), in words of 32 bits, and
 * back. False, and nothing is changed: a register would not read again as it is there. */
void lapic_to_page(const struct lapic *lapic, uint32_t page[LAPIC_PAGE_WORDS]);
bool lapic_from_page(struct lapic *lapic, const uint32_t page[LAPIC_PAGE_WORDS]);
/* IA32_APIC_BASE, and by how much its timer's clock is divided. */
uint64_t lapic_base(const struct lapic *lapic);
uint32_t lapic_timer_divisor(const struct lapic *lapic);

/* The guest may have changed CR8, which is TPR[7:4] (SDM 3A 10.8.6). */
void lapic_set_cr8(struct lapic *lapic, uint64_t cr8);
/* The vector that could be taken now by priority, 16 to 255; -1: none. */
int lapic_pending(const struct lapic *lapic);
/* Would there be one were TPR lower? */
bool lapic_masked(const struct lapic *lapic);
/* The vcpu takes `vector`, which was pending: from IRR to ISR. */
void lapic_take(struct lapic *lapic, int vector);

/* From any CPU: an edge-triggered interrupt, dropped where the APIC is disabled by software. */
void lapic_post(struct vcpu *vcpu, uint8_t vector);
/* Would its requests make a vcpu that is off run? */
bool lapic_wakes(const struct lapic *lapic);

#endif
