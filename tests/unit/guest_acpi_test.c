/* SPDX-License-Identifier: BSD-2-Clause */
/* ACPI tables of guests, found as a guest finds them: by addresses, signatures and sums. */
#include "../../hv/kernel/guest_acpi.h"

#include <string.h>

#include "test.h"

#define AT 0xe0000u

static uint8_t table[GUEST_ACPI_SIZE];

static uint32_t get32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}
static uint64_t get64(const uint8_t *at) { return get32(at) | (uint64_t)get32(at + 4) << 32; }

static uint8_t sum(const uint8_t *at, uint32_t size)
{
    uint8_t total = 0;
    for (uint32_t i = 0; i < size; i++) {
        total = (uint8_t)(total + at[i]);
    }
    return total;
}

/* The table at a guest-physical address, which must lie whole in the bytes, and be right. */
static const uint8_t *find(uint64_t at, const char *signature, uint32_t *size)
{
    REQUIRE(at >= AT && at % 4 == 0 && at + 36 <= AT + sizeof(table));
    const uint8_t *found = table + (at - AT);
    *size = get32(found + 4);
    CHECK_BYTES(found, signature, 4);
    REQUIRE(*size >= 36 && at + *size <= AT + sizeof(table));
    CHECK_EQ(sum(found, *size), 0);
    return found;
}

TEST(tables_for_each_number_of_vcpus)
{
    for (unsigned vcpus = 1; vcpus <= 32; vcpus++) {
        uint32_t size;
        test_case("%u vcpus", vcpus);
        memset(table, 0x5a, sizeof(table));
        guest_acpi(table, AT, vcpus);

        CHECK_BYTES(table, "RSD PTR ", 8); /* ACPI 6.3, 5.2.5 */
        CHECK_EQ(sum(table, 20), 0);
        CHECK_EQ(sum(table, 36), 0);
        CHECK_EQ(table[15], 2);
        CHECK_EQ(get32(table + 20), 36);

        const uint8_t *xsdt = find(get64(table + 24), "XSDT", &size);
        CHECK_EQ(size, 36 + 2 * 8);
        const uint8_t *fadt = find(get64(xsdt + 36), "FACP", &size);
        CHECK_EQ(size, 276);
        CHECK_EQ(fadt[8], 6);
        CHECK_EQ(get32(fadt + 112) >> 20 & 1, 1); /* no ACPI hardware */
        CHECK_EQ(fadt[109] & 0x24, 0x24);         /* no VGA, no real-time clock */
        CHECK_EQ(get32(fadt + 40), get64(fadt + 140));
        (void)find(get64(fadt + 140), "DSDT", &size);
        CHECK_EQ(size, 36);

        const uint8_t *madt = find(get64(xsdt + 44), "APIC", &size);
        CHECK_EQ(size, 44 + 8 * vcpus);
        CHECK_EQ(get32(madt + 36), 0xfee00000);
        for (unsigned i = 0; i < vcpus; i++) {
            const uint8_t entry[] = {0, 8, (uint8_t)i, (uint8_t)(2 * i), 1, 0, 0, 0};
            CHECK_BYTES(madt + 44 + 8 * i, entry, sizeof(entry));
        }
    }
}
