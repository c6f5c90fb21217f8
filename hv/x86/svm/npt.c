/* SPDX-License-Identifier: BSD-2-Clause */
/* Bits of AMD nested page-table entries: APM volume 2, 5.3.3 and 15.25.5. Bit names only. */
#include "pte.h"

#define NPT_PRESENT (UINT64_C(1) << 0)
#define NPT_WRITE (UINT64_C(1) << 1)
#define NPT_USER (UINT64_C(1) << 2) /* guest accesses count as user accesses: always set */
#define NPT_WRITE_THROUGH (UINT64_C(1) << 3)
#define NPT_CACHE_DISABLE (UINT64_C(1) << 4)
#define NPT_ACCESSED (UINT64_C(1) << 5)
#define NPT_DIRTY (UINT64_C(1) << 6)
#define NPT_HUGE (UINT64_C(1) << 7)
#define NPT_NO_EXECUTE (UINT64_C(1) << 63)
#define NPT_ADDRESS (((UINT64_C(1) << 52) - 1) & ~((UINT64_C(1) << 12) - 1))

const struct pt_format npt_format = {
    .name = "NPT",
    .present = NPT_PRESENT,
    .read = NPT_PRESENT,
    .write = NPT_WRITE,
    .exec = NPT_NO_EXECUTE,
    .exec_invert = NPT_NO_EXECUTE,
    .huge = NPT_HUGE,
    .accessed = NPT_ACCESSED,
    .dirty = NPT_DIRTY,
    .address = NPT_ADDRESS,
    .table_bits = NPT_PRESENT | NPT_USER,
    .leaf_bits = NPT_PRESENT | NPT_USER,
    .device_bits = NPT_PRESENT | NPT_USER | NPT_WRITE_THROUGH | NPT_CACHE_DISABLE,
    .reserved_table = NPT_HUGE,
    .reserved_leaf = {0, ((UINT64_C(1) << LEVEL_BITS) - 1) << 12,
                      ((UINT64_C(1) << 2 * LEVEL_BITS) - 1) << 12},
};

_Static_assert((NPT_ADDRESS & (PTE_SHARED | PTE_DEVICE | PTE_FOREIGN | PTE_PAGED)) == 0,
               "software bits lie outside the address");
_Static_assert((PTE_SHARED | PTE_DEVICE | PTE_FOREIGN | PTE_PAGED | PTE_PENDING) >> 52 <= 0x7f,
               "software bits are in 58:52, available to software");
_Static_assert((PTE_PARKED & (NPT_ADDRESS | NPT_NO_EXECUTE)) == 0,
               "parking touches neither the address nor no-execute");
