/* SPDX-License-Identifier: BSD-2-Clause */
/* How 64-bit numbers are printed. */
#ifndef INTTYPES_H
#define INTTYPES_H

#include <stdint.h>

#define PRId64 "ld"
#define PRIu64 "lu"
#define PRIx64 "lx"

#endif
