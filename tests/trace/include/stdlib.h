/* SPDX-License-Identifier: BSD-2-Clause */
/* Of the C library, what the driver and the reference allocate with. */
#ifndef STDLIB_H
#define STDLIB_H

#include <stddef.h>

void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void free(void *memory);
_Noreturn void abort(void);
_Noreturn void exit(int status);

#endif
