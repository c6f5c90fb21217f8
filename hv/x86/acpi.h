/* SPDX-License-Identifier: BSD-2-Clause */
/* What is read from ACPI's tables (ACPI 6.5 section 5.2), all of it at boot. */
#ifndef X86_ACPI_H
#define X86_ACPI_H

#include "types.h"

/* APIC ids of the CPUs that the firmware enabled. */
struct acpi_cpus {
    uint32_t apic_id[MM_MAX_CPUS];
    unsigned count;
    unsigned lost; /* enabled, but past MM_MAX_CPUS */
};

/* Finds the tables from the RSDP at host-physical `rsdp`, or from the BIOS areas when it is 0.
 * Returns the RSDP's address; 0 when there are no tables, and nothing else is found then. */
uint64_t acpi_init(uint64_t rsdp);
/* CPUs of the MADT; none without one. */
void acpi_find_cpus(struct acpi_cpus *out);
/* Switches the machine off where the tables say how; returns where not. */
void acpi_power_off(void);

#endif
