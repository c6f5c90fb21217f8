/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * When sleeping vcpus are to look at their clocks: one time each, in a heap of all that have one.
 * Each step is O(log n). A CPU arms its timer for the first of them whenever it enters a guest or
 * goes idle; see timers_next().
 */
#ifndef KERNEL_TIMER_H
#define KERNEL_TIMER_H

#include <stdint.h>

struct vcpu;

/* Part of each vcpu, under the timers' lock: a node of a leftist heap, ordered by time. */
struct timer {
    uint64_t at; /* TSC; 0: not in the heap */
    uint32_t rank;
    struct vcpu *parent, *left, *right;
};

/* vcpu_attend() at host TSC `at`; 0: never, and none is under way afterwards. From the vcpu's own
 * CPU, or when it is loaded nowhere. Arms this CPU's timer if that is earlier. */
void vcpu_timer(struct vcpu *vcpu, uint64_t at);
/* vcpu_attend() for all whose time has come. */
void timers_expire(void);
/* The earlier of `limit` and the first time in the heap. */
uint64_t timers_next(uint64_t limit);

#endif
