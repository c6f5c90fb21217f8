/* SPDX-License-Identifier: BSD-2-Clause */
/* What only boot and the crash report need of the console; the rest is in platform.h. */
#ifndef X86_CONSOLE_H
#define X86_CONSOLE_H

#include "types.h"

/* Looks for COM1 and port 0xE9 and sets COM1 to 115200 baud, 8 bits, no parity. */
void console_init(void);
/* From now on no call waits for the console's lock: a crash prints whatever others hold. */
void console_break_lock(void);
/* Waits, for at most 100,000 polls, until COM1 has sent everything. */
void console_drain(void);

#endif
