/* SPDX-License-Identifier: BSD-2-Clause */
/* The geometry of x86-64 nested paging: 4 KiB pages, 512 entries, four levels. */
#ifndef GEOMETRY_H
#define GEOMETRY_H

#define PAGE_SHIFT 12  /* log2 of the bytes in a frame */
#define LEVEL_BITS 9   /* log2 of the entries in a table */
#define TABLE_LEVELS 4 /* tables on a walk; level 0 is the leaf level, the root is level 3 */
#define MM_MAX_CPUS 256

#endif
