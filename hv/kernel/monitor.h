/* SPDX-License-Identifier: BSD-2-Clause */
/* The debug console on the serial port: a line at a time, on CPU 0 between two vcpus. */
#ifndef KERNEL_MONITOR_H
#define KERNEL_MONITOR_H

#include <stdbool.h>

struct mm_ctx;

/* Takes what was typed and carries out a finished line, and a script's next; ends the machine when
 * it is to stop. */
void monitor_poll(void);
/* Audits, destroys every domain, audits again, and stops the machine with a verdict: `pass` when
 * all was clean, all memory is back and the domains of the boot configuration ended well. */
_Noreturn void monitor_finish(struct mm_ctx *ctx);
/* The machine stops, with an audit and a verdict, once `domains` boot domains have ended. */
void monitor_stop_after(unsigned domains);

/* What is typed for the debug console is shown: for a terminal, which does not do that itself. */
void monitor_echo(bool on);

#endif
