/* SPDX-License-Identifier: BSD-2-Clause */
/* Formatting into whatever takes characters; the conversions are those of print(). */
#ifndef X86_FORMAT_H
#define X86_FORMAT_H

#include <stdarg.h>

#include "types.h"

/* Calls `put_char(to, c)` for each character; returns how many there were. An unknown conversion
 * ends the formatting: the rest is put as it stands. */
int format_to(void (*put_char)(void *to, char c), void *to, const char *format, va_list arguments);
/* format_text() with a list. */
int format_text_list(char *to, uint64_t room, const char *format, va_list arguments);

#endif
