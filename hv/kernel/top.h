/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The live table on the console: what each domain has of its own, what it shares, and what of it is
 * still under large leaves. CPU 0 draws it between two vcpus, from walks in small steps that take
 * no fault lock. CPU 0 only.
 */
#ifndef KERNEL_TOP_H
#define KERNEL_TOP_H

#include "types.h"

#define TOP_ROWS 16u /* domains with a line of their own, those of the lowest ids */

/* A table each `seconds` from now on; 0: none. On a `terminal` that knows ECMA-48's sequences it
 * stays at the top of the screen, and all else scrolls beneath it; else each is a block of lines.
 */
void top_start(uint64_t seconds, bool terminal);
/* Goes on with the table for about a millisecond; draws it when it is whole. */
void top_poll(struct mm_ctx *ctx);
/* A table is begun and not whole: top_poll() is to come soon. */
bool top_pending(void);
/* Draws a last one, of what is there now. */
void top_finish(struct mm_ctx *ctx);
/* Gives the terminal its whole screen back. */
void top_close(void);

#endif
