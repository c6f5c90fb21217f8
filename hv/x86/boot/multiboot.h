/* SPDX-License-Identifier: BSD-2-Clause */
/* What a boot loader says by multiboot 1 or 2, copied. Nothing in it is checked for sense yet. */
#ifndef X86_MULTIBOOT_H
#define X86_MULTIBOOT_H

#include "types.h"

#define MULTIBOOT_ENTRIES_MAX 256u
#define MULTIBOOT_MODULES_MAX 64u
#define MULTIBOOT_TEXT_MAX 256u

enum { MULTIBOOT_RAM = 1 }; /* type of an entry; all others are no RAM to us */

struct multiboot {
    const char *loader; /* "multiboot1", "multiboot2" */
    char command_line[MULTIBOOT_TEXT_MAX];
    struct {
        uint64_t start, bytes;
        uint32_t type;
    } entry[MULTIBOOT_ENTRIES_MAX];
    unsigned entries;
    struct {
        uint64_t start, end;
        char text[MULTIBOOT_TEXT_MAX]; /* its command line */
    } module[MULTIBOOT_MODULES_MAX];
    unsigned modules;
    unsigned entries_lost, modules_lost; /* there was no room for these */
    unsigned char rsdp[36];              /* copy of the ACPI RSDP; all zero: not given */
};

/*
 * Reads what a loader left at host-physical `info`, where `magic` is what it left in EAX. `memory`
 * is where host-physical 0 is mapped, `limit` bytes of it; nothing past that is read. Null when all
 * went well, else what was wrong: `out` then holds what was read before.
 */
const char *multiboot_parse(const unsigned char *memory, uint64_t limit, uint32_t magic,
                            uint64_t info, struct multiboot *out);

#endif
