/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads 64-bit ELF kernels with a PVH entry (Xen's public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY). */
#ifndef KERNEL_ELF_H
#define KERNEL_ELF_H

#include <stdbool.h>
#include <stdint.h>

#define ELF_SEGMENTS_MAX 16u

struct elf_segment {
    uint64_t at;     /* guest-physical */
    uint64_t offset; /* in the file */
    uint64_t file_size, memory_size;
};
struct elf_kernel {
    uint32_t entry; /* of the PVH note */
    unsigned segments;
    struct elf_segment segment[ELF_SEGMENTS_MAX];
};

/* Reads the headers of the `size` bytes at `file` for a guest of `memory` bytes. Null on success,
 * else what is wrong: not an ELF file of this machine, headers or segments outside of the file, too
 * many segments, segments that overlap or lie outside of the memory, no PVH entry, an entry outside
 * of the segments. Every offset and size in the file is checked before it is used. */
const char *elf_read(const void *file, uint64_t size, uint64_t memory, struct elf_kernel *kernel);

#endif
