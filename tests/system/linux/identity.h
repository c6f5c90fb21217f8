/* SPDX-License-Identifier: BSD-2-Clause */
/* The identity page (cleave/identity.h) as a program in a Linux guest sees it. */
#ifndef IDENTITY_H
#define IDENTITY_H

#include <cleave/identity.h>

/*
 * Maps the identity page for reading, by /dev/mem; where the environment has CLEAVE_IDENTITY, the
 * file of that name, at least a page long, stands for it. Returns NULL when there is none: no such
 * page, or not of this revision. What is behind the pointer changes when the guest is forked: read
 * each field once.
 */
const volatile struct cleave_identity *identity_map(void);

/* The page of the caller's data behind the identity page, which must have been mapped. */
const volatile uint8_t *identity_data(const volatile struct cleave_identity *identity);

#endif
