/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nested page-table entries, one meaning over two formats (EPT: SDM 3C 29.3.2; NPT: APM 2 15.25,
 * 5.3). A format is a table of bit masks, chosen once at boot, so that one walker serves both.
 *
 * An entry is one of:
 *   absent   all bits zero
 *   table    present, no huge bit, level > 0: points to a table of level - 1 entries
 *   leaf     present, level 0, or the huge bit at level 1 or 2: maps a frame or block
 *   paged    not present, PTE_PAGED: names a store and an offset that a pager loads from
 *   parked   not present, PTE_PARKED: one of the last three, whose space may not read what is
 * beneath Nothing else is ever stored (T-H2: a non-present entry is zero or points above all
 * memory).
 *
 * A parked table or leaf keeps its reference and all its bits but those for write and execute; its
 * address bits are inverted, so that they name no memory (L1TF).
 */
#ifndef MM_PTE_H
#define MM_PTE_H

#include "port.h"
#include "types.h"

typedef uint64_t pte_t;

/* Bits that both formats ignore in every entry (SDM 3C tables 29-1 to 29-6: 56:52; APM 2 5.4.1). */
#define PTE_SHARED (UINT64_C(1) << 52)  /* leaf of a shared region: several may write */
#define PTE_DEVICE (UINT64_C(1) << 53)  /* leaf whose frame is not RAM: never counted */
#define PTE_FOREIGN (UINT64_C(1) << 54) /* leaf that maps a page of another space */
#define PTE_PAGED (UINT64_C(1) << 55)   /* with no present bit: to be loaded */
/* Leaf that replaced another frame: gets no write bit before a flush that began after it was put
 * there. */
#define PTE_PENDING (UINT64_C(1) << 56)

/* With no present bit, where the processor ignores all of 62:3 (SDM 3C 29.3.2) or 63:1 (APM 2 5.4):
 * what the entry would refer to must not be read here. */
#define PTE_PARKED (UINT64_C(1) << 57)

#define PTE_PAGED_FAR (UINT64_C(1) << 51) /* a paged entry points above all memory */
#define PTE_PAGED_BITS 39                 /* store (7 bits) and offset in pages (32 bits) */

struct pt_format {
    const char *name;
    uint64_t present;     /* any of these set: the hardware uses the entry */
    uint64_t read;        /* the one of them that every present entry has */
    uint64_t write;       /* set: writes may pass */
    uint64_t exec;        /* execute bit ... */
    uint64_t exec_invert; /* ... and what to exclusive-or it with to read it as "may execute" */
    uint64_t huge;        /* leaf above level 0 */
    uint64_t accessed;
    uint64_t dirty;
    uint64_t address;     /* bits of the frame number, which stands at bit 12 whatever PAGE_SHIFT */
    uint64_t table_bits;  /* set in every table entry besides address, write and execute */
    uint64_t leaf_bits;   /* set in every RAM leaf (memory type write-back) */
    uint64_t device_bits; /* set in every device leaf (memory type uncacheable) */
    uint64_t reserved_table;             /* must be zero in a table entry */
    uint64_t reserved_leaf[LEAF_ORDERS]; /* must be zero in a leaf of that order */
};

/* The machine's format and its choice for huge leaves; set once by machine_init(). */
extern struct pt_format pt_format;
extern const struct pt_format ept_format; /* hv/x86/vmx/ept.c */
extern const struct pt_format npt_format; /* hv/x86/svm/npt.c */

enum pte_kind { PTE_KIND_ABSENT, PTE_KIND_TABLE, PTE_KIND_LEAF, PTE_KIND_PAGED, PTE_KIND_PARKED };

static inline bool pte_is_parked(pte_t e) { return (e & PTE_PARKED) != 0; }

static inline enum pte_kind pte_kind(pte_t e, unsigned level)
{
    if (!(e & pt_format.present)) {
        return pte_is_parked(e) ? PTE_KIND_PARKED
               : e & PTE_PAGED  ? PTE_KIND_PAGED
                                : PTE_KIND_ABSENT;
    }
    return level == 0 || (e & pt_format.huge) ? PTE_KIND_LEAF : PTE_KIND_TABLE;
}
static inline bool pte_is_table(pte_t e, unsigned level)
{
    return pte_kind(e, level) == PTE_KIND_TABLE;
}
static inline bool pte_is_leaf(pte_t e, unsigned level)
{
    return pte_kind(e, level) == PTE_KIND_LEAF;
}
/* The frame number's bits as the entry stores them: inverted in a parked one. */
static inline pte_t pte_address(pte_t e)
{
    return (e ^ (0 - (e / PTE_PARKED & 1))) & pt_format.address;
}
/* Frame or table of an entry, present or parked. */
static inline pfn_t pte_pfn(pte_t e) { return pfn((uint32_t)(pte_address(e) >> 12)); }
/* The same entry for another frame or table. */
static inline pte_t pte_with_pfn(pte_t e, pfn_t f)
{
    return e ^ pte_address(e) ^ (uint64_t)f.v << 12;
}
static inline bool pte_writable(pte_t e) { return (e & pt_format.write) != 0; }
static inline bool pte_executable(pte_t e)
{
    return ((e ^ pt_format.exec_invert) & pt_format.exec) != 0;
}
/* True for a leaf that holds a reference on its frame. */
static inline bool pte_counted(pte_t e) { return !(e & PTE_DEVICE); }

static inline pte_t pte_without_write(pte_t e) { return e & ~pt_format.write; }
static inline pte_t pte_with_write(pte_t e) { return e | pt_format.write; }
static inline pte_t pte_set_exec(pte_t e, bool exec)
{
    return (e & ~pt_format.exec) | ((exec ? pt_format.exec : 0) ^ (pt_format.exec_invert));
}

static inline unsigned pte_rights(pte_t e)
{
    if (pte_is_parked(e)) {
        return 0;
    }
    return RIGHT_READ | (pte_writable(e) ? RIGHT_WRITE : 0u) |
           (pte_executable(e) ? RIGHT_EXEC : 0u);
}

/* A table entry without the write bit; executable as far as this entry decides. */
static inline pte_t pte_make_table(pfn_t table)
{
    return pte_set_exec(pt_format.table_bits | (uint64_t)table.v << 12, true);
}

/* Parks an entry that is not absent; one that is parked stays so. */
static inline pte_t pte_park(pte_t e)
{
    if (e & (PTE_PAGED | PTE_PARKED)) {
        return e | PTE_PARKED;
    }
    e = pte_set_exec(pte_without_write(e), false) & ~pt_format.present;
    return (e ^ pt_format.address) | PTE_PARKED;
}

/* What a parked entry is, without write and execute; any other entry as it is. */
static inline pte_t pte_unpark(pte_t e)
{
    if (!pte_is_parked(e)) {
        return e;
    }
    e &= ~PTE_PARKED;
    return e & PTE_PAGED ? e : (e ^ pt_format.address) | pt_format.read;
}

/* Kind of an entry whether it is parked or not: what it refers to and counts. */
static inline enum pte_kind pte_target(pte_t e, unsigned level)
{
    return pte_kind(pte_unpark(e), level);
}
static inline bool pte_holds_table(pte_t e, unsigned level)
{
    return pte_target(e, level) == PTE_KIND_TABLE;
}
static inline bool pte_holds_leaf(pte_t e, unsigned level)
{
    return pte_target(e, level) == PTE_KIND_LEAF;
}

/* A leaf at `level` with `rights` and the software bits `software`; parked without READ. */
static inline pte_t pte_make_leaf(pfn_t frame, unsigned level, unsigned rights, pte_t software)
{
    pte_t e = (software & PTE_DEVICE ? pt_format.device_bits : pt_format.leaf_bits) |
              (uint64_t)frame.v << 12 | software | (level > 0 ? pt_format.huge : 0);
    e = pte_set_exec(e, (rights & RIGHT_EXEC) != 0);
    e = rights & RIGHT_WRITE ? pte_with_write(e) : e;
    return rights & RIGHT_READ ? e : pte_park(e);
}

/* The leaf of one part when `e`, a leaf at `level`, becomes a table of level - 1 leaves; parked as
 * `e` is. */
static inline pte_t pte_split_leaf(pte_t e, unsigned level, unsigned slot)
{
    uint64_t offset = (uint64_t)slot * level_pages(level - 1) << 12;
    pte_t part = pte_is_parked(e) ? e - offset : e + offset; /* inverted, it counts down */
    return level == 1 ? part & ~pt_format.huge : part;
}

/* A paged entry; `payload` below 2^PTE_PAGED_BITS is store << 32 | offset in pages. */
static inline pte_t pte_make_paged(uint64_t payload)
{
    return PTE_PAGED | PTE_PAGED_FAR | payload << 12;
}
static inline uint64_t pte_paged_payload(pte_t e)
{
    return (e >> 12) & ((UINT64_C(1) << PTE_PAGED_BITS) - 1);
}

/* A live entry is read once ... */
static inline pte_t pte_read(const pte_t *slot) { return __atomic_load_n(slot, __ATOMIC_ACQUIRE); }

/* ... and changed by one compare-exchange; false when it no longer was `old`. */
static inline bool pte_replace(struct mm_ctx *ctx, pte_t *slot, pte_t old, pte_t new)
{
    port_point(ctx, POINT_ENTRY, (uint64_t)(uintptr_t)slot, new);
    return __atomic_compare_exchange_n(slot, &old, new, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* Clears `bits` of a live entry whatever the hardware sets meanwhile; returns what it was. */
static inline pte_t pte_clear_bits(struct mm_ctx *ctx, pte_t *slot, pte_t bits)
{
    port_point(ctx, POINT_ENTRY, (uint64_t)(uintptr_t)slot, bits);
    return __atomic_fetch_and(slot, ~bits, __ATOMIC_ACQ_REL);
}

/* Clears the write bit of an entry of a shared table by one store of `e`, which is what was read
 * since the caller holds the table, without that bit. Nothing else can have changed in it meanwhile
 * but an accessed bit, which may so be lost: it is set again by the next access, and 512 locked
 * operations would be most of what a first write costs. */
static inline void pte_store_without_write(struct mm_ctx *ctx, pte_t *slot, pte_t e)
{
    port_point(ctx, POINT_ENTRY, (uint64_t)(uintptr_t)slot, e);
    __atomic_store_n(slot, e, __ATOMIC_RELEASE);
}

/* Empties a live entry; returns what it was, bits that the hardware set included. */
static inline pte_t pte_take(struct mm_ctx *ctx, pte_t *slot)
{
    port_point(ctx, POINT_ENTRY, (uint64_t)(uintptr_t)slot, 0);
    return __atomic_exchange_n(slot, 0, __ATOMIC_ACQ_REL);
}

#endif
