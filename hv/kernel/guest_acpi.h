/* SPDX-License-Identifier: BSD-2-Clause */
/* The few ACPI tables (ACPI 6.3) that tell a guest its CPUs and that it has no other hardware. */
#ifndef KERNEL_GUEST_ACPI_H
#define KERNEL_GUEST_ACPI_H

#include <stdint.h>

#define GUEST_ACPI_SIZE 1024u

/* Writes RSDP (at offset 0), XSDT, FADT (hardware-reduced), an empty DSDT and MADT for a guest of
 * `vcpus` vcpus (1..32; vcpu i has ACPI id i, APIC id 2 i), as they are to lie at guest-physical
 * `at` (below 4 GiB). */
void guest_acpi(uint8_t table[GUEST_ACPI_SIZE], uint32_t at, unsigned vcpus);

#endif
