/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the hypervisor's side share: the machine, its CPUs, its guests. */
#ifndef TRACE_MACHINE_H
#define TRACE_MACHINE_H

#include "driver.h"

/* --- libc.c ----------------------------------------------------------------------------------- */

/* Gives malloc() its memory. */
void libc_start(void *memory, uint64_t bytes);

/* --- cpus.c: what each CPU but the first does ------------------------------------------------- */

/* Takes frames for the guests of all CPUs, while boot_take() can be called. */
void cpus_prepare(void);
/* Makes these guests; after machine_init(). */
void cpus_make_guests(void);
/* Of all CPUs, since the guests were made: accesses that went through, exits for a fault. */
void cpus_count(uint64_t *accesses, uint64_t *faults);

/* --- guest.c: accesses that a CPU makes in guest mode, through the space's own tables --------- */

/* One for each CPU, which alone uses it. */
struct guest;
/* Takes its frames, while boot_take() can be called. */
struct guest *guest_take(unsigned cpu);
/* Makes its tables in the machine's format, and its vcpu; on its CPU, after machine_init(). */
void guest_make(struct guest *guest);
/* Makes an access of `size` bytes within a page: true when the CPU let it through, false when it
 * left the guest with the nested page fault that is due. Crashes when it did anything else. */
bool guest_access(struct guest *guest, const struct space *space, uint64_t at, enum access access,
                  void *buffer, uint64_t size);

#endif
