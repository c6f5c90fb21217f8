/* SPDX-License-Identifier: BSD-2-Clause */
/* A scaled geometry for exhaustive and randomized tests: 1 KiB pages, 4 entries, four levels. */
#ifndef GEOMETRY_H
#define GEOMETRY_H

#define PAGE_SHIFT 10
#define LEVEL_BITS 2
#define TABLE_LEVELS 4
#define MM_MAX_CPUS 4

#endif
