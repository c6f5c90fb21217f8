/* SPDX-License-Identifier: BSD-2-Clause */
/* SHA-1 (FIPS 180-4, section 6.1), which redis makes its digests of. */
#ifndef SHA1_H
#define SHA1_H

#include <stddef.h>
#include <stdint.h>

#define SHA1_SIZE 20u

void sha1(const void *bytes, size_t size, uint8_t hash[SHA1_SIZE]);

#endif
