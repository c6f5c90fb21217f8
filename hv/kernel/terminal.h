/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Terminals of domains on the one serial line. What a domain writes goes to a ring of its own,
 * which drops the oldest and counts it: a domain never waits for a terminal. CPU 0 takes the rings
 * to the line: of the domain in front as it is, or of all, each line with the domain's name.
 */
#ifndef KERNEL_TERMINAL_H
#define KERNEL_TERMINAL_H

#include "domain.h"

#define TERMINAL_SIZE (4096u - 64u)
#define TERMINAL_KEY 1 /* Ctrl-A: three in a row change who gets what is typed */

/* Appends; from any CPU. The first write takes a frame from the domain's account; what finds none
 * is lost. */
void terminal_write(struct mm_ctx *ctx, struct domain *domain, const char *text, uint32_t size);
/* The domain's ring, when it ends: given back. */
void terminal_free(struct mm_ctx *ctx, struct domain *domain);
/* Copies the newest `room` bytes at most to `to`; `*dropped` is how many were lost since it was
 * made. Returns how many. */
uint32_t terminal_read(struct domain *domain, char *to, uint32_t room, uint32_t *dropped);

/* How many bytes it ever wrote. */
uint64_t terminal_written(struct domain *domain);
/* Copies at most `room` of what it wrote from byte `*from` on, counted from its first, which are
 * not more than it wrote. What the ring has no more is left out: `*from` then becomes the oldest
 * that is there. Returns how many. Takes nothing from the line. */
uint32_t terminal_read_from(struct domain *domain, uint64_t *from, char *to, uint32_t room);

/* CPU 0: some of what waits goes to the line. True: there may be more. */
bool terminal_poll(void);
/* CPU 0: shows domain `id` only (0: none), or TERMINAL_ALL. */
#define TERMINAL_ALL UINT32_MAX
void terminal_show(uint32_t id);
/* CPU 0: domain `id` gets what is typed (0: the debug console). */
void terminal_listen(uint32_t id);
/* CPU 0: something else is to be written from the beginning of a line. */
void terminal_end_line(void);
/* CPU 0: a character arrived. True: it is for the debug console. */
bool terminal_typed(struct mm_ctx *ctx, char c);

#endif
