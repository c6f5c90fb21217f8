/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The newest of what the hypervisor itself printed, for who asks later; what guests print is not in
 * it. Each byte has a number, modulo 2^32. Under the console's lock.
 */
#ifndef X86_CONSOLE_LOG_H
#define X86_CONSOLE_LOG_H

#include "types.h"

#define CONSOLE_LOG_SIZE 16384u /* bytes, a power of two */

void console_log_put(char c);
/* The number of the oldest byte that is there. */
uint32_t console_log_first(void);
/* Copies what there is from byte `*from` on, at most `room` bytes, and moves `*from` behind it. A
 * number that no byte has any more, or has yet, stands for the oldest. Returns how many. */
uint32_t console_log_take(uint32_t *from, char *to, uint32_t room);
/* What stands before byte `before` is not given again. */
void console_log_drop(uint32_t before);

#endif
