/* SPDX-License-Identifier: BSD-2-Clause */
/* ACPI tables for guests; see guest_acpi.h. */
#include "guest_acpi.h"

#include <stddef.h>

enum { XSDT = 0x40, FADT = 0x80, DSDT = 0x1c0, MADT = 0x200 };
enum { HEADER_SIZE = 36, FADT_SIZE = 276, MADT_SIZE = 44, LAPIC_SIZE = 8 };
_Static_assert(FADT + FADT_SIZE <= DSDT && DSDT + HEADER_SIZE <= MADT &&
                   MADT + MADT_SIZE + 32 * LAPIC_SIZE <= GUEST_ACPI_SIZE,
               "each fits");

/* Offsets in the FADT (ACPI 6.3, 5.2.9). */
enum { FADT_DSDT = 40, FADT_BOOT = 109, FADT_FLAGS = 112, FADT_MINOR = 131, FADT_X_DSDT = 140 };
enum { BOOT_NO_VGA = 1 << 2, BOOT_NO_RTC = 1 << 5 };
enum { FLAG_WBINVD = 1 << 0, FLAG_HW_REDUCED = 1 << 20 };

static void put32(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> 8 * i);
    }
}

static void put_text(uint8_t *at, const char *text)
{
    for (unsigned i = 0; text[i] != '\0'; i++) {
        at[i] = (uint8_t)text[i];
    }
}

/* Sets the byte at `where` so that all `size` bytes add up to zero. */
static void set_sum(uint8_t *table, unsigned size, unsigned where)
{
    uint8_t sum = 0;
    table[where] = 0;
    for (unsigned i = 0; i < size; i++) {
        sum = (uint8_t)(sum + table[i]);
    }
    table[where] = (uint8_t)-sum;
}

static void finish(uint8_t *table, const char *name, uint32_t size, uint8_t revision)
{
    put_text(table, name);
    put32(table + 4, size);
    table[8] = revision;
    put_text(table + 10, "CLEAVECLEAVE  ");
    put32(table + 24, 1);
    put_text(table + 28, "CLV ");
    put32(table + 32, 1);
    set_sum(table, size, 9);
}

void guest_acpi(uint8_t table[GUEST_ACPI_SIZE], uint32_t at, unsigned vcpus)
{
    for (unsigned i = 0; i < GUEST_ACPI_SIZE; i++) {
        table[i] = 0;
    }
    put_text(table, "RSD PTR ");
    put_text(table + 9, "CLEAVE");
    table[15] = 2; /* revision */
    put32(table + 20, 36);
    put32(table + 24, at + XSDT);
    set_sum(table, 20, 8);
    set_sum(table, 36, 32);

    put32(table + XSDT + HEADER_SIZE, at + FADT);
    put32(table + XSDT + HEADER_SIZE + 8, at + MADT);
    finish(table + XSDT, "XSDT", HEADER_SIZE + 16, 1);

    uint8_t *fadt = table + FADT;
    put32(fadt + FADT_DSDT, at + DSDT);
    put32(fadt + FADT_X_DSDT, at + DSDT);
    fadt[FADT_BOOT] = BOOT_NO_VGA | BOOT_NO_RTC;
    put32(fadt + FADT_FLAGS, FLAG_WBINVD | FLAG_HW_REDUCED);
    fadt[FADT_MINOR] = 3;
    finish(fadt, "FACP", FADT_SIZE, 6);
    finish(table + DSDT, "DSDT", HEADER_SIZE, 2);

    uint8_t *madt = table + MADT;
    put32(madt + 36, 0xfee00000);
    for (unsigned i = 0; i < vcpus; i++) {
        uint8_t *lapic = madt + MADT_SIZE + i * LAPIC_SIZE;
        lapic[1] = LAPIC_SIZE;
        lapic[2] = (uint8_t)i;
        lapic[3] = (uint8_t)(2 * i);
        lapic[4] = 1; /* enabled */
    }
    finish(madt, "APIC", MADT_SIZE + vcpus * LAPIC_SIZE, 5);
}
