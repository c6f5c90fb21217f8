/* SPDX-License-Identifier: BSD-2-Clause */
/* Of the C library, what the driver and the reference handle bytes with. */
#ifndef STRING_H
#define STRING_H

#include <stddef.h>

void *memcpy(void *to, const void *from, size_t bytes);
void *memset(void *to, int byte, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);
size_t strlen(const char *text);
char *strstr(const char *text, const char *wanted);

#endif
