/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reader of ACPI's tables: RSDP, RSDT or XSDT, MADT, and of FADT and DSDT what switches the machine
 * off. A table is used only when all of it is mapped and its bytes sum to zero.
 */
#include "acpi.h"

#include "boot/boot.h"

enum { HEADER = 36, TABLE_MAX = 1 << 24 };
enum { MADT_LAPIC = 0, MADT_X2APIC = 9, MADT_ENABLED = 1 };

/* A table that was checked; `bytes` 0: there is none. */
struct table {
    const unsigned char *at;
    uint32_t bytes;
};

static uint64_t root;       /* host-physical RSDT or XSDT; 0: none */
static unsigned root_entry; /* bytes of an entry in it */
static struct {
    uint16_t port[2]; /* PM1a and PM1b control; 0: none */
    uint8_t type[2];  /* SLP_TYP for S5 */
    bool known;
} power;

static uint64_t number(const unsigned char *at, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++) {
        value |= (uint64_t)at[i] << (8 * i);
    }
    return value;
}

static bool sums_to_zero(const unsigned char *at, uint64_t bytes)
{
    uint8_t sum = 0;
    for (uint64_t i = 0; i < bytes; i++) {
        sum = (uint8_t)(sum + at[i]);
    }
    return sum == 0;
}

/* Null unless all of it is in the direct map. */
static const unsigned char *mapped(uint64_t address, uint64_t bytes)
{
    if (address == 0 || address > direct_map_end || bytes > direct_map_end - address) {
        return NULL;
    }
    return host_pointer(address);
}

static struct table table_at(uint64_t address, const char *signature)
{
    const unsigned char *at = mapped(address, HEADER);
    if (at == NULL || __builtin_memcmp(at, signature, 4) != 0) {
        return (struct table){0};
    }
    uint32_t bytes = (uint32_t)number(at + 4, 4);
    if (bytes < HEADER || bytes > TABLE_MAX || !mapped(address, bytes) ||
        !sums_to_zero(at, bytes)) {
        print("acpi: table %s at %lx is damaged\n", signature, (unsigned long)address);
        return (struct table){0};
    }
    return (struct table){at, bytes};
}

static struct table find_table(const char *signature)
{
    struct table all = {0};
    if (root != 0) {
        all = table_at(root, root_entry == 8 ? "XSDT" : "RSDT");
    }
    for (uint32_t at = HEADER; at + root_entry <= all.bytes; at += root_entry) {
        struct table found = table_at(number(all.at + at, root_entry), signature);
        if (found.bytes) {
            return found;
        }
    }
    return (struct table){0};
}

/* --- RSDP (5.2.5) ----------------------------------------------------------------------------- */

static bool rsdp_read(uint64_t address)
{
    const unsigned char *at = mapped(address, 36);
    if (at == NULL || __builtin_memcmp(at, "RSD PTR ", 8) != 0 || !sums_to_zero(at, 20)) {
        return false;
    }
    root = number(at + 16, 4);
    root_entry = 4;
    if (at[15] >= 2 && number(at + 20, 4) >= 36 && sums_to_zero(at, 36) && number(at + 24, 8)) {
        root = number(at + 24, 8);
        root_entry = 8;
    }
    return true;
}

static uint64_t rsdp_search(uint64_t start, uint64_t bytes)
{
    for (uint64_t at = start; at < start + bytes; at += 16) {
        if (rsdp_read(at)) {
            return at;
        }
    }
    return 0;
}

/* --- S5 (7.4.2, 20.2.4): the DSDT's package _S5_ ---------------------------------------------- */

/* A small integer in AML: Zero, One, or a byte. Moves `at` past it. */
static bool aml_byte(struct table t, uint32_t *at, uint8_t *value)
{
    if (*at + 2 > t.bytes) {
        return false;
    }
    uint8_t op = t.at[(*at)++];
    if (op == 0x0a) {
        op = t.at[(*at)++];
    } else if (op > 1) {
        return false;
    }
    *value = op & 7;
    return true;
}

static bool s5_read(struct table dsdt, uint32_t at)
{
    /* PackageOp, its length in 1 to 4 bytes, number of elements. */
    if (at + 8 > dsdt.bytes || dsdt.at[at] != 0x12) {
        return false;
    }
    at += 2 + (uint32_t)(dsdt.at[at + 1] >> 6) + 1;
    return aml_byte(dsdt, &at, &power.type[0]) && aml_byte(dsdt, &at, &power.type[1]);
}

static void power_init(void)
{
    struct table fadt = find_table("FACP");
    if (fadt.bytes < 72) {
        return;
    }
    power.port[0] = (uint16_t)number(fadt.at + 64, 4);
    power.port[1] = (uint16_t)number(fadt.at + 68, 4);
    struct table dsdt = table_at(number(fadt.at + 40, 4), "DSDT");
    if (dsdt.bytes == 0 && fadt.bytes >= 148) {
        dsdt = table_at(number(fadt.at + 140, 8), "DSDT");
    }
    for (uint32_t at = HEADER; at + 4 <= dsdt.bytes && !power.known; at++) {
        power.known = __builtin_memcmp(dsdt.at + at, "_S5_", 4) == 0 && s5_read(dsdt, at + 4);
    }
}

static void out16(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

void acpi_power_off(void)
{
    for (unsigned i = 0; power.known && i < 2; i++) {
        if (power.port[i]) {
            out16(power.port[i], (uint16_t)(power.type[i] << 10 | 1 << 13)); /* SLP_TYP, SLP_EN */
        }
    }
}

/* --- CPUs (5.2.12) ---------------------------------------------------------------------------- */

static void add_cpu(struct acpi_cpus *out, uint64_t apic_id, uint64_t flags)
{
    if (!(flags & MADT_ENABLED)) {
        return;
    }
    for (unsigned i = 0; i < out->count; i++) {
        if (out->apic_id[i] == apic_id) {
            return; /* named by both kinds of entry */
        }
    }
    if (out->count == MM_MAX_CPUS) {
        out->lost++;
        return;
    }
    out->apic_id[out->count++] = (uint32_t)apic_id;
}

void acpi_find_cpus(struct acpi_cpus *out)
{
    struct table madt = find_table("APIC");

    *out = (struct acpi_cpus){0};
    for (uint32_t at = HEADER + 8; at + 2 <= madt.bytes;) {
        const unsigned char *entry = madt.at + at;
        if (entry[1] < 2 || entry[1] > madt.bytes - at) {
            print("acpi: MADT ends in the middle of an entry\n");
            return;
        }
        if (entry[0] == MADT_LAPIC && entry[1] >= 8) {
            add_cpu(out, entry[3], number(entry + 4, 4));
        } else if (entry[0] == MADT_X2APIC && entry[1] >= 16) {
            add_cpu(out, number(entry + 4, 4), number(entry + 8, 4));
        }
        at += entry[1];
    }
}

uint64_t acpi_init(uint64_t rsdp)
{
    if (rsdp == 0 || !rsdp_read(rsdp)) {
        /* The first KiB of the EBDA, whose segment is at 40:0e; the BIOS itself. */
        uint64_t ebda = number(host_pointer(0x40e), 2) << 4;
        rsdp = ebda >= 0x400 && ebda < 0xa0000 ? rsdp_search(ebda, 1024) : 0;
        rsdp = rsdp ? rsdp : rsdp_search(0xe0000, 0x20000);
    }
    if (rsdp == 0) {
        print("acpi: no tables found\n");
        return 0;
    }
    power_init();
    return rsdp;
}
