/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where the parts of a PVH guest lie in its memory, and what tells it so (Xen's
 * public/arch-x86/hvm/start_info.h; docs/abi.md, section 1). Pure: the same source builds domains
 * of the boot configuration, and in libcleave those of cleave_create().
 */
#ifndef KERNEL_PVH_H
#define KERNEL_PVH_H

#include "elf.h"

/* Below 1 MiB: guest-physical. */
#define PVH_ACPI_TABLES UINT64_C(0xe0000)
#define PVH_START_INFO UINT64_C(0xf0000)

#define PVH_MEMORY_MIN UINT64_C(0x200000)   /* bytes */
#define PVH_FAR_START UINT64_C(0x100000000) /* where RAM goes on that is more than 3 GiB */
#define PVH_COMMAND_MAX 1023u               /* characters of a command line */
#define PVH_PAGE_SIZE 4096u

struct pvh_guest {
    struct elf_kernel kernel;
    uint64_t low, far;            /* bytes of RAM from 0 and from PVH_FAR_START on */
    uint64_t initrd, initrd_size; /* guest-physical (0: none), bytes */
};

/* Places a kernel (the `size` bytes of an ELF file at `file`) and an initial RAM disk of
 * `initrd_size` bytes (0: none) in `memory` bytes. Null on success, else what is wrong. */
const char *pvh_plan(const void *file, uint64_t size, uint64_t initrd_size, uint64_t memory,
                     struct pvh_guest *guest);

/* Writes the page at PVH_START_INFO: start information, command line (cut at PVH_COMMAND_MAX),
 * memory map, list of modules. `control`: it is the initial domain. */
void pvh_start_page(uint8_t page[PVH_PAGE_SIZE], const struct pvh_guest *guest, const char *command,
                    bool control);

#endif
