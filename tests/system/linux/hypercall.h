/* SPDX-License-Identifier: BSD-2-Clause */
/* Cleave's operations (cleave/abi.h) for programs in a Linux guest, by /dev/xen/privcmd. */
#ifndef HYPERCALL_H
#define HYPERCALL_H

#include <cleave/abi.h>
#include <stddef.h>
#include <stdint.h>

/* Says so on standard error, behind the program's name, and ends the program with status 1. */
void __attribute__((format(printf, 1, 2), noreturn)) fail(const char *format, ...);

/* Two pages that the hypervisor can read and write at their linear address, the same at each call:
 * arguments of operations stand there. The kernel never moves them. */
void *shared_memory(void);

/* Makes any hypercall of Xen's. Returns what it returned, or the kernel's -errno. */
int xen_call(uint64_t number, uint64_t first, uint64_t second, uint64_t third);

/* Asks for an operation, whose `size` bytes of arguments are in shared memory, until it is through.
 * Returns an enum cleave_status other than CLEAVE_AGAIN. */
unsigned call(enum cleave_op op, void *arguments, size_t size);

/* Says which argument the last operation was refused for, and ends the program. */
void __attribute__((noreturn)) refused(enum cleave_op op, unsigned status);

/* Asks for an operation; refused() when it is. */
void must(enum cleave_op op, void *arguments, size_t size);

#endif
