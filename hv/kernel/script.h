/* SPDX-License-Identifier: BSD-2-Clause */
/* A boot module with a line for the debug console each, for machines and tests without input. */
#ifndef KERNEL_SCRIPT_H
#define KERNEL_SCRIPT_H

#include "platform.h"

/* From the next poll on, the lines of `module`; one that waits holds up those behind it. */
void script_start(const struct boot_module *module);
/* CPU 0: carries out the next line, when nothing is waited for. */
void script_poll(void);

#endif
