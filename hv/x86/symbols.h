/* SPDX-License-Identifier: BSD-2-Clause */
/* Names of the image's functions, from a table that the build adds in a second link. */
#ifndef X86_SYMBOLS_H
#define X86_SYMBOLS_H

#include "types.h"

/* The function that holds `address` and how far into it that is; null where there is none. */
const char *symbol_name(uint64_t address, uint64_t *offset);

#endif
