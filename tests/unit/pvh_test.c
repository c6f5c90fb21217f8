/* SPDX-License-Identifier: BSD-2-Clause */
/* Layout of PVH guests: where kernel and initial RAM disk come to lie, and what tells the guest so.
 */
#include <elf.h>
#include <string.h>

#include <xen/xen.h>

#include <xen/arch-x86/hvm/start_info.h>

#include "../../hv/kernel/pvh.h"
#include "test.h"

#define MIB UINT64_C(0x100000)
#define GIB (1024 * MIB)

static struct {
    Elf64_Ehdr header;
    Elf64_Phdr program[2];
    uint32_t note[5];
} file;
static struct pvh_guest guest;
static uint8_t page[PVH_PAGE_SIZE];

/* One segment at `at` that ends at `end`, with the entry at its beginning. */
static const char *plan(uint64_t at, uint64_t end, uint64_t initrd, uint64_t memory)
{
    memset(&file, 0, sizeof(file));
    memcpy(file.header.e_ident, "\177ELF\2\1\1", 7);
    file.header.e_machine = EM_X86_64;
    file.header.e_phoff = sizeof(file.header);
    file.header.e_phentsize = sizeof(file.program[0]);
    file.header.e_phnum = 2;
    file.program[0] =
        (Elf64_Phdr){.p_type = PT_LOAD, .p_paddr = at, .p_filesz = 64, .p_memsz = end - at};
    file.program[1] = (Elf64_Phdr){
        .p_type = PT_NOTE, .p_offset = offsetof(typeof(file), note), .p_filesz = sizeof(file.note)};
    memcpy(file.note, (uint32_t[]){4, 4, 18, 0x006e6558, (uint32_t)at}, sizeof(file.note));
    return pvh_plan(&file, sizeof(file), initrd, memory, &guest);
}

static bool says(const char *wrong, const char *text)
{
    return wrong != NULL && strstr(wrong, text) != NULL;
}

TEST(places_the_initrd_behind_the_kernel)
{
    REQUIRE(plan(16 * MIB, 17 * MIB + 1, 5000, 64 * MIB) == NULL);
    CHECK_EQ(guest.kernel.entry, 16 * MIB);
    CHECK_EQ(guest.initrd, 18 * MIB);
    CHECK_EQ(guest.initrd_size, 5000);
    CHECK(guest.low == 64 * MIB && guest.far == 0);
    REQUIRE(plan(0x1000, 0x2000, 2 * MIB, 4 * MIB) == NULL); /* below 640 KiB, and it just fits */
    CHECK_EQ(guest.initrd, 2 * MIB);
    REQUIRE(plan(16 * MIB, 18 * MIB, 0, 64 * MIB) == NULL);
    CHECK_EQ(guest.initrd, 0);
    REQUIRE(plan(16 * MIB, 18 * MIB, 1, 5 * GIB) == NULL);
    CHECK(guest.low == 3 * GIB && guest.far == 2 * GIB);
}

TEST(refuses_what_does_not_fit)
{
    CHECK(says(plan(MIB, MIB + 4096, 0, 2 * MIB - 4096), "memory is below 2M"));
    CHECK(says(plan(MIB, MIB + 4096, 2 * MIB + 1, 4 * MIB), "initrd does not fit"));
    CHECK(says(plan(MIB, MIB + 4096, UINT64_MAX, 4 * MIB), "initrd does not fit"));
    CHECK(says(plan(MIB, 3 * MIB, 1, 3 * MIB), "initrd does not fit"));
    CHECK(says(plan(0x90000, 0xa0001, 0, 4 * MIB), "no RAM"));
    CHECK(says(plan(0xff000, 2 * MIB, 0, 4 * MIB), "no RAM"));
    CHECK(says(plan(MIB, 5 * MIB, 0, 4 * MIB), "outside of the guest's memory"));
    CHECK(says(plan(4 * GIB, 4 * GIB + 4096, 0, 8 * GIB), "outside of the guest's memory"));
    CHECK(says(pvh_plan(&file, 3, 0, 4 * MIB, &guest), "too small"));
}

static const struct hvm_memmap_table_entry *map_entry(uint32_t i)
{
    const struct hvm_start_info *info = (const void *)page;
    return (const void *)(page + (info->memmap_paddr - PVH_START_INFO) +
                          i * sizeof(struct hvm_memmap_table_entry));
}

TEST(start_information)
{
    const struct hvm_start_info *info = (const void *)page;
    uint64_t ram = 0;

    REQUIRE(plan(16 * MIB, 18 * MIB, 5000, 5 * GIB) == NULL);
    memset(page, 0xff, sizeof(page));
    pvh_start_page(page, &guest, "console=hvc0", false);
    CHECK(info->magic == XEN_HVM_START_MAGIC_VALUE && info->version == 1 && info->flags == 0);
    CHECK_EQ(info->rsdp_paddr, PVH_ACPI_TABLES);
    CHECK(strcmp((char *)page + (info->cmdline_paddr - PVH_START_INFO), "console=hvc0") == 0);
    CHECK_EQ(info->nr_modules, 1);
    const struct hvm_modlist_entry *module =
        (const void *)(page + (info->modlist_paddr - PVH_START_INFO));
    CHECK(module->paddr == guest.initrd && module->size == 5000 && module->cmdline_paddr == 0);
    for (uint32_t i = 0; i < info->memmap_entries; i++) {
        const struct hvm_memmap_table_entry *at = map_entry(i);
        CHECK(at->size != 0);
        CHECK(i == 0 || at->addr >= map_entry(i - 1)->addr + map_entry(i - 1)->size);
        ram += at->type == XEN_HVM_MEMMAP_TYPE_RAM ? at->size : 0;
    }
    CHECK_EQ(ram, 5 * GIB - (MIB - 0xa0000));

    REQUIRE(plan(16 * MIB, 18 * MIB, 0, 64 * MIB) == NULL);
    pvh_start_page(page, &guest, "", true);
    CHECK(info->nr_modules == 0 && info->flags == 3 && info->memmap_entries == 5);
}

TEST(a_long_command_line_is_cut)
{
    char text[2000];
    const struct hvm_start_info *info = (const void *)page;
    REQUIRE(plan(16 * MIB, 18 * MIB, 0, 64 * MIB) == NULL);
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    pvh_start_page(page, &guest, text, false);
    const char *found = (char *)page + (info->cmdline_paddr - PVH_START_INFO);
    CHECK_EQ(strlen(found), PVH_COMMAND_MAX);
    CHECK_EQ(map_entry(0)->addr, 0);
    CHECK_EQ(map_entry(0)->type, XEN_HVM_MEMMAP_TYPE_RAM);
}
