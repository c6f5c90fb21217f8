/* SPDX-License-Identifier: BSD-2-Clause */
/* Layout of PVH guests; see pvh.h. */
#include "pvh.h"

#include <stddef.h>

/* RAM is one piece from 0 on, but for what lies between LOW_END and 1 MiB, the rest from 4 GiB on.
 */
#define LOW_END UINT64_C(0xa0000)
#define HIGH_START UINT64_C(0x100000)
#define LOW_MEMORY_MAX UINT64_C(0xc0000000)
#define WINDOW UINT64_C(0xfeff8000) /* XEN_WINDOW, which build.c compares */
#define WINDOW_SIZE UINT64_C(0x8000)
#define INITRD_ALIGN UINT64_C(0x200000)
#define START_MAGIC 0x336ec578u
#define START_CONTROL 3u /* SIF_PRIVILEGED, SIF_INITDOMAIN */
enum { COMMAND_LINE = 0x400, MEMORY_MAP = 0x800, MODULES = 0xc00 }; /* in the page */
enum { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3 };
_Static_assert(COMMAND_LINE + PVH_COMMAND_MAX < MEMORY_MAP, "with its zero byte");

struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line, rsdp, memory_map;
    uint32_t memory_entries, reserved;
};
_Static_assert(sizeof(struct start_info) == 56, "as the boot protocol says");
struct memory_entry {
    uint64_t at, size;
    uint32_t type, reserved;
};
_Static_assert(sizeof(struct memory_entry) == 24, "as the boot protocol says");

const char *pvh_plan(const void *file, uint64_t size, uint64_t initrd_size, uint64_t memory,
                     struct pvh_guest *guest)
{
    *guest = (struct pvh_guest){.initrd_size = initrd_size};
    if (memory < PVH_MEMORY_MIN) {
        return "memory is below 2M";
    }
    guest->low = memory < LOW_MEMORY_MAX ? memory : LOW_MEMORY_MAX;
    guest->far = memory - guest->low;
    const char *wrong = elf_read(file, size, guest->low, &guest->kernel);
    uint64_t end = HIGH_START;
    for (unsigned i = 0; i < guest->kernel.segments && wrong == NULL; i++) {
        const struct elf_segment *s = &guest->kernel.segment[i];
        if (s->at < HIGH_START && s->at + s->memory_size > LOW_END) {
            return "its kernel lies where start information and no RAM are";
        }
        end = s->at + s->memory_size > end ? s->at + s->memory_size : end;
    }
    if (wrong != NULL || initrd_size == 0) {
        return wrong;
    }
    guest->initrd = (end + INITRD_ALIGN - 1) & ~(INITRD_ALIGN - 1);
    if (guest->initrd > guest->low || initrd_size > guest->low - guest->initrd) {
        return "its initrd does not fit behind its kernel";
    }
    return NULL;
}

static uint32_t put_map(uint8_t *page, const struct pvh_guest *guest)
{
    const struct memory_entry map[] = {
        {0, LOW_END, E820_RAM, 0},
        {PVH_ACPI_TABLES, PVH_PAGE_SIZE, E820_ACPI, 0},
        {PVH_START_INFO, HIGH_START - PVH_START_INFO, E820_RESERVED, 0},
        {HIGH_START, guest->low - HIGH_START, E820_RAM, 0},
        {WINDOW, WINDOW_SIZE, E820_RESERVED, 0},
        {PVH_FAR_START, guest->far, E820_RAM, 0}};
    uint32_t entries = sizeof(map) / sizeof(map[0]) - (guest->far == 0);
    __builtin_memcpy(page + MEMORY_MAP, map, entries * sizeof(map[0]));
    return entries;
}

void pvh_start_page(uint8_t page[PVH_PAGE_SIZE], const struct pvh_guest *guest, const char *command,
                    bool control)
{
    /* address, size, command line, reserved */
    const uint64_t module[4] = {guest->initrd, guest->initrd_size, 0, 0};
    struct start_info info = {.magic = START_MAGIC,
                              .version = 1,
                              .flags = control ? START_CONTROL : 0,
                              .command_line = PVH_START_INFO + COMMAND_LINE,
                              .rsdp = PVH_ACPI_TABLES,
                              .memory_map = PVH_START_INFO + MEMORY_MAP};
    for (unsigned i = 0; i < PVH_PAGE_SIZE; i++) {
        page[i] = 0;
    }
    info.memory_entries = put_map(page, guest);
    if (guest->initrd != 0) {
        info.modules = 1;
        info.module_list = PVH_START_INFO + MODULES;
        __builtin_memcpy(page + MODULES, module, sizeof(module));
    }
    for (unsigned i = 0; i < PVH_COMMAND_MAX && command[i] != '\0'; i++) {
        page[COMMAND_LINE + i] = (uint8_t)command[i];
    }
    __builtin_memcpy(page, &info, sizeof(info));
}
