/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hypervisor's own page tables (SDM 3A 4.5): the direct map, the image with W^X, stacks with
 * guard pages. Changed by the boot CPU only, and only by adding what was not mapped.
 */
#include "boot.h"

enum { PRESENT = 1, LARGE = 1 << 7, GLOBAL = 1 << 8 };
#define ADDRESS_BITS UINT64_C(0x000ffffffffff000)
#define FOUR_GIB (UINT64_C(1) << 32)

/* boot.S maps so much. */
uint64_t direct_map_end = FOUR_GIB;
uint64_t secondary_cr3; /* root table: what other CPUs load */
static bool giga_pages;
static const char tables[] = "page tables of the hypervisor";

static uint64_t *next_table(uint64_t *entry)
{
    if (*entry == 0) {
        *entry = boot_take(PAGE_SIZE, PAGE_SIZE, tables) | PAGE_WRITE | PRESENT;
    }
    return host_pointer(*entry & ADDRESS_BITS);
}

/* Largest page that `virtual` and `physical` can both begin, of at most `bytes`. */
static unsigned page_level(uint64_t virtual, uint64_t physical, uint64_t bytes)
{
    unsigned level = giga_pages ? 2 : 1;
    while (((virtual | physical) & (level_size(level) - 1)) != 0 || bytes < level_size(level)) {
        level--;
    }
    return level;
}

void paging_map(uint64_t virtual, uint64_t physical, uint64_t bytes, uint64_t bits)
{
    while (bytes > 0) {
        unsigned level = page_level(virtual, physical, bytes);
        uint64_t *table = host_pointer(secondary_cr3);
        for (unsigned above = 3; above > level; above--) {
            table = next_table(&table[virtual >> (12 + 9 * above) & 511]);
        }
        uint64_t *entry = &table[virtual >> (12 + 9 * level) & 511];
        if (*entry != 0) {
            crash("%lx is mapped twice", (unsigned long)virtual);
        }
        __atomic_store_n(entry, physical | bits | PRESENT | GLOBAL | (level ? LARGE : 0),
                         __ATOMIC_RELEASE);
        virtual += level_size(level);
        physical += level_size(level);
        bytes -= level_size(level);
    }
}

static void map_direct(uint64_t start, uint64_t end, uint64_t bits)
{
    paging_map(DIRECT_MAP + start, start, end - start, bits | PAGE_NX);
}

static void map_image(const char *start, const char *end, uint64_t bits)
{
    paging_map((uint64_t)start, image_physical(start), (uint64_t)(end - start), bits);
}

void paging_init(void)
{
    uint64_t end = (boot_info.memory_end + level_size(1) - 1) & ~(level_size(1) - 1);

    giga_pages = (cpuid(0x80000001, 0).edx >> 26 & 1) != 0;
    secondary_cr3 = boot_take(PAGE_SIZE, PAGE_SIZE, tables);
    end = end > FOUR_GIB ? end : FOUR_GIB;
    /* What the image may not write, it may not write through the direct map either. */
    map_direct(0, image_physical(image_start), PAGE_WRITE);
    map_direct(image_physical(image_start), image_physical(data_start), 0);
    map_direct(image_physical(data_start), end, PAGE_WRITE);
    map_image(image_start, text_end, 0);
    map_image(text_end, data_start, PAGE_NX);
    map_image(data_start, image_end, PAGE_WRITE | PAGE_NX);
    write_cr3(secondary_cr3);
    direct_map_end = end;
}
