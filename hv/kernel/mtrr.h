/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vcpu's memory type range registers (SDM 3A 12.11): what is written is read again and changes
 * nothing, as all memory of guests is write-back. The vcpu's own, in an exit of its own.
 */
#ifndef KERNEL_MTRR_H
#define KERNEL_MTRR_H

#include "types.h"

#define MTRR_FIXED 11u
#define MTRR_VARIABLE 8u /* pairs of base and mask */

/* Plain data: a fork copies it while the vcpu stands still. */
struct mtrr {
    uint64_t variable[2 * MTRR_VARIABLE];
    uint64_t fixed[MTRR_FIXED];
    uint64_t def_type;
};

/* On, and everything write-back. */
void mtrr_init(struct mtrr *mtrr);
/* Is it an MSR of these, or IA32_MTRRCAP? */
bool mtrr_has(uint32_t msr);
/* Of an MSR that mtrr_has(). A write returns false where that is #GP: a type that does not exist, a
 * reserved bit, or IA32_MTRRCAP. */
uint64_t mtrr_read(const struct mtrr *mtrr, uint32_t msr);
bool mtrr_write(struct mtrr *mtrr, uint32_t msr, uint64_t value);
/* Could all of them have been written? */
bool mtrr_legal(const struct mtrr *mtrr);
/* IA32_MTRRCAP */
uint64_t mtrr_capability(void);

#endif
