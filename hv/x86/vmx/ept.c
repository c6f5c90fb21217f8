/* SPDX-License-Identifier: BSD-2-Clause */
/* Bits of Intel EPT entries: SDM volume 3C, section 29.3.2, tables 29-1 to 29-6. Bit names only. */
#include "pte.h"

#define EPT_READ (UINT64_C(1) << 0)
#define EPT_WRITE (UINT64_C(1) << 1)
#define EPT_EXECUTE (UINT64_C(1) << 2)
#define EPT_MEMORY_TYPE(t) ((uint64_t)(t) << 3) /* leaves: bits 5:3 */
#define EPT_TYPE_UNCACHEABLE 0
#define EPT_TYPE_WRITE_BACK 6
#define EPT_HUGE (UINT64_C(1) << 7)
#define EPT_ACCESSED (UINT64_C(1) << 8)
#define EPT_DIRTY (UINT64_C(1) << 9)
#define EPT_ADDRESS (((UINT64_C(1) << 52) - 1) & ~((UINT64_C(1) << 12) - 1))

const struct pt_format ept_format = {
    .name = "EPT",
    .present = EPT_READ | EPT_WRITE | EPT_EXECUTE,
    .read = EPT_READ,
    .write = EPT_WRITE,
    .exec = EPT_EXECUTE,
    .exec_invert = 0,
    .huge = EPT_HUGE,
    .accessed = EPT_ACCESSED,
    .dirty = EPT_DIRTY,
    .address = EPT_ADDRESS,
    .table_bits = EPT_READ,
    .leaf_bits = EPT_READ | EPT_MEMORY_TYPE(EPT_TYPE_WRITE_BACK),
    .device_bits = EPT_READ | EPT_MEMORY_TYPE(EPT_TYPE_UNCACHEABLE),
    .reserved_table = UINT64_C(0xf8), /* bits 7:3 */
    .reserved_leaf = {0, ((UINT64_C(1) << LEVEL_BITS) - 1) << 12,
                      ((UINT64_C(1) << 2 * LEVEL_BITS) - 1) << 12},
};

_Static_assert((EPT_ADDRESS & (PTE_SHARED | PTE_DEVICE | PTE_FOREIGN | PTE_PAGED)) == 0,
               "software bits lie outside the address");
_Static_assert((PTE_SHARED | PTE_DEVICE | PTE_FOREIGN | PTE_PAGED | PTE_PENDING) >> 52 <= 0x1f,
               "software bits are in 56:52, ignored by EPT");
_Static_assert(PTE_PARKED > EPT_ADDRESS && PTE_PARKED >> 63 == 0,
               "an entry that is not present may have any bit of 62:3");
_Static_assert(PTE_PAGED_BITS + 12 <= 51, "a paged entry's payload stays below its far bit");
