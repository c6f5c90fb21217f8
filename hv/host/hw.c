/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nested page tables as the hardware walks them. Entries are decoded here from the manuals (SDM 3C
 * 29.3.2 and 29.3.3; APM 2 5.3.3, 15.25.5), not with pte.h, so that a wrong bit in the core's
 * formats is found. Takes no lock: entries are read and marked atomically.
 */
#include "model.h"

#include <inttypes.h>

#include "frame.h"

#define BIT(n) (UINT64_C(1) << (n))

#define EPT_ACCESSED BIT(8)
#define EPT_DIRTY BIT(9)
#define NPT_ACCESSED BIT(5)
#define NPT_DIRTY BIT(6)

/* Accessed, and dirty where the access is a write to what a leaf maps. */
static uint64_t mark_bits(bool dirty)
{
    uint64_t accessed = host.npt ? NPT_ACCESSED : EPT_ACCESSED;
    return accessed | (!dirty ? 0 : host.npt ? NPT_DIRTY : EPT_DIRTY);
}

static struct hw_entry broken(const char *why)
{
    return (struct hw_entry){.kind = HW_BROKEN, .broken = why};
}

/* Bits that EPT reserves in a leaf or a table entry; null when all is well. */
static const char *ept_wrong(uint64_t e, unsigned level, bool leaf)
{
    uint64_t type = e >> 3 & 7;

    if ((e & 7) == 2 || (e & 7) == 6) {
        return "write without read";
    }
    if ((e & 7) == 4) {
        return "execute-only, which not every CPU has";
    }
    if (!leaf) {
        return e & 0xf8 ? "reserved bits 7:3 of a table entry" : NULL;
    }
    if (type == 2 || type == 3 || type == 7) {
        return "reserved memory type";
    }
    return level > 0 && !(e & BIT(7)) ? "a leaf without the page-size bit" : NULL;
}

static const char *npt_wrong(uint64_t e, unsigned level, bool leaf)
{
    if (!(e & BIT(2))) {
        return "supervisor page: every guest access is a user access";
    }
    return !leaf && level == ROOT_LEVEL && (e & BIT(7)) ? "reserved bit 7 of a root entry" : NULL;
}

/* Reads an entry of `level`; `e` is what memory holds. */
static struct hw_entry hw_decode(uint64_t e, unsigned level)
{
    bool present = host.npt ? e & BIT(0) : (e & 7) != 0;
    bool leaf = level == 0 || (level < LEAF_ORDERS && (e & BIT(7)));
    struct hw_entry out = {.kind = leaf ? HW_LEAF : HW_TABLE, .frame = e << 12 >> 24};

    if (!present) {
        /* L1TF: an address in an entry that is not present must lie above all memory. */
        return e != 0 && !(e & BIT(51)) ? broken("not present, yet names memory")
                                        : (struct hw_entry){.kind = HW_ABSENT};
    }
    const char *wrong = host.npt ? npt_wrong(e, level, leaf) : ept_wrong(e, level, leaf);
    if (wrong) {
        return broken(wrong);
    }
    if (leaf && (out.frame & (level_pages(level) - 1))) {
        return broken("reserved address bits of a huge leaf");
    }
    bool cached = host.npt ? !(e & BIT(4)) : (e >> 3 & 7) != 0;
    if (out.frame >= machine.frames && (!leaf || cached)) {
        return broken("points past all memory");
    }
    out.rights = RIGHT_READ | (e & BIT(1) ? RIGHT_WRITE : 0u);
    out.rights |= (host.npt ? !(e >> 63) : e & BIT(2)) ? RIGHT_EXEC : 0u;
    return out;
}

pte_t *hw_slot(uint64_t table, unsigned level, uint64_t page)
{
    pte_t *slots = (pte_t *)(void *)(machine.direct_map + (table << PAGE_SHIFT));
    return &slots[page >> (LEVEL_BITS * level) & (TABLE_ENTRIES - 1)];
}

struct hw_entry hw_read(uint64_t table, unsigned level, uint64_t page)
{
    pte_t *slot = hw_slot(table, level, page);
    uint64_t value = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    struct hw_entry e = hw_decode(value, level);

    if (e.kind == HW_BROKEN) {
        host_fail("the hardware finds an entry that no CPU accepts: %s; page %#" PRIx64
                  ", level %u, table %#" PRIx64 ", entry %#" PRIx64,
                  e.broken, page, level, table, value);
    }
    return e;
}

struct host_walk host_walk(pfn_t root, gpa_t at)
{
    uint64_t page = at.v >> PAGE_SHIFT;
    uint64_t table = root.v;
    struct host_walk walk = {.rights = RIGHT_ALL};

    for (unsigned level = ROOT_LEVEL;; level--) {
        struct hw_entry e = hw_read(table, level, page);
        walk.level = level;
        walk.slot[level] = hw_slot(table, level, page);
        if (e.kind == HW_ABSENT) {
            walk.rights = 0;
            return walk;
        }
        walk.rights &= e.rights;
        if (e.kind == HW_LEAF) {
            walk.present = true;
            walk.frame = e.frame + (page & (level_pages(level) - 1));
            return walk;
        }
        table = e.frame;
    }
}

void hw_mark(pte_t *slot, unsigned level, uint64_t target, bool dirty)
{
    uint64_t bits = mark_bits(dirty);
    pte_t old = __atomic_load_n(slot, __ATOMIC_ACQUIRE);

    while ((old & bits) != bits) {
        struct hw_entry e = hw_decode(old, level);
        if ((e.kind != HW_TABLE && e.kind != HW_LEAF) || e.frame != target ||
            __atomic_compare_exchange_n(slot, &old, old | bits, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE)) {
            return;
        }
    }
}

void hw_mark_walk(const struct host_walk *walk, bool write)
{
    for (unsigned level = walk->level; level < TABLE_LEVELS; level++) {
        pte_t value = __atomic_load_n(walk->slot[level], __ATOMIC_ACQUIRE);
        hw_mark(walk->slot[level], level, hw_decode(value, level).frame,
                write && level == walk->level);
    }
}
