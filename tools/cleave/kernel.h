/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of guests in memory. */
#ifndef KERNEL_H
#define KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes {
    unsigned char *at; /* to be given back by free() */
    size_t size;
};

/* A whole file. Null on success, else why not. */
const char *file_read(const char *path, struct bytes *out);

/* The kernel in a file: a bzImage (gzip, xz or lz4) becomes what it holds, an ELF file stays as it
 * is. Null on success; else what is wrong, and the file stays. */
const char *kernel_unpack(struct bytes *file);

#endif
