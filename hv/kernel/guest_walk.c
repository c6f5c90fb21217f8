/* SPDX-License-Identifier: BSD-2-Clause */
/* Walks a guest's page tables (SDM 3A 4.3 to 4.5, APM 2 5.2 and 5.3); see guest_walk.h. */
#include "guest_walk.h"

#include "cpu.h"

#define ENTRY_PRESENT UINT64_C(1)
#define ENTRY_WRITE UINT64_C(2)
#define ENTRY_LARGE UINT64_C(0x80)
#define ENTRY_NO_EXECUTE (UINT64_C(1) << 63)
#define ENTRY_ADDRESS UINT64_C(0x000ffffffffff000)
#define GUEST_PAGE UINT64_C(4096)

#define BITS(high, low) ((UINT64_C(2) << (high)) - (UINT64_C(1) << (low)))

/* The levels of a mode from the top: entries of `entry` bytes; how far the index is shifted, how
 * many bits it has, and which bits are reserved in an entry that points to a table and in one that
 * maps a page; `leaf` says whether it may map one. */
struct level {
    uint8_t shift, bits;
    bool leaf;
    bool writes; /* the entry has a write bit */
    uint64_t table_reserved, leaf_reserved;
};
struct format {
    unsigned entry, levels;
    struct level level[4];
};

static const struct format formats[] = {
    /* SDM 3A tables 4-5 and 4-6. The large page has bits 39:32 of its address in 20:13. */
    [GUEST_PAGING_32] = {4, 2, {{22, 10, true, true, 0, BITS(21, 21)}, {12, 10, true, true, 0, 0}}},
    /* Tables 4-8 to 4-11. */
    [GUEST_PAGING_PAE] = {8,
                          3,
                          {{30, 2, false, false, BITS(63, 52) | BITS(8, 5) | BITS(2, 1), 0},
                           {21, 9, true, true, BITS(62, 52), BITS(62, 52) | BITS(20, 13)},
                           {12, 9, true, true, 0, BITS(62, 52)}}},
    /* Tables 4-15 to 4-20. */
    [GUEST_PAGING_4_LEVEL] = {8,
                              4,
                              {{39, 9, false, true, ENTRY_LARGE, 0},
                               {30, 9, true, true, 0, BITS(29, 13)},
                               {21, 9, true, true, 0, BITS(20, 13)},
                               {12, 9, true, true, 0, 0}}},
};

enum cleave_status guest_paging_decode(struct mm_ctx *ctx, uint64_t cr0, uint64_t cr3, uint64_t cr4,
                                       uint64_t efer, struct guest_paging *paging)
{
    *paging = (struct guest_paging){.mode = GUEST_FLAT,
                                    .write_protect = (cr0 & CR0_WP) != 0,
                                    .large = (cr4 & CR4_PSE) != 0,
                                    .no_execute = (efer & EFER_NXE) != 0};
    if (!(cr0 & CR0_PG)) {
        return CLEAVE_OK;
    }
    if (efer & EFER_LMA) {
        paging->mode = GUEST_PAGING_4_LEVEL;
        paging->root = cr3 & ENTRY_ADDRESS;
        return cr4 & CR4_LA57 ? mm_fail(ctx, CLEAVE_INVALID, "paging", cr4, 1, 0) : CLEAVE_OK;
    }
    paging->mode = cr4 & CR4_PAE ? GUEST_PAGING_PAE : GUEST_PAGING_32;
    paging->root = cr3 & (cr4 & CR4_PAE ? BITS(31, 5) : BITS(31, 12));
    return CLEAVE_OK;
}

/* Does the entry map a page, rather than point to a table? */
static bool maps_page(const struct guest_paging *paging, const struct level *level, uint64_t entry)
{
    if (level->shift == 12) {
        return true;
    }
    return level->leaf && (entry & ENTRY_LARGE) &&
           (paging->mode != GUEST_PAGING_32 || paging->large);
}

static bool entry_allows(const struct guest_paging *paging, const struct level *level,
                         uint64_t entry, bool write)
{
    uint64_t reserved =
        maps_page(paging, level, entry) ? level->leaf_reserved : level->table_reserved;
    if (!paging->no_execute && paging->mode != GUEST_PAGING_32) {
        reserved |= ENTRY_NO_EXECUTE;
    }
    bool writable = !level->writes || !paging->write_protect || (entry & ENTRY_WRITE);
    return (entry & ENTRY_PRESENT) && !(entry & reserved) && (!write || writable);
}

static gpa_t page_address(const struct guest_paging *paging, const struct level *level,
                          uint64_t entry, uint64_t linear)
{
    uint64_t inside = (UINT64_C(1) << level->shift) - 1;
    uint64_t page = entry & ENTRY_ADDRESS & ~inside;
    if (paging->mode == GUEST_PAGING_32 && level->shift == 22) {
        page |= (entry & BITS(20, 13)) << (32 - 13); /* PSE-36 */
    }
    return gpa(page | (linear & inside));
}

/* Can the mode have this linear address? */
static bool address_legal(const struct guest_paging *paging, uint64_t linear)
{
    if (paging->mode != GUEST_PAGING_4_LEVEL) {
        return linear >> 32 == 0;
    }
    return (uint64_t)((int64_t)(linear << 16) >> 16) == linear;
}

enum cleave_status guest_translate(struct mm_ctx *ctx, struct space_reader *reader,
                                   const struct guest_paging *paging, uint64_t linear, bool write,
                                   const char *name, struct vcpu_wait *wait, gpa_t *at)
{
    const struct format *format = &formats[paging->mode];
    const struct level *level = format->level;
    uint64_t table = paging->root;

    *at = gpa(linear);
    if (!address_legal(paging, linear)) {
        return mm_fail(ctx, CLEAVE_FAULT, name, linear, 1, 0);
    }
    if (paging->mode == GUEST_FLAT) {
        return CLEAVE_OK;
    }
    for (;; level++) {
        uint64_t slot = linear >> level->shift & ((UINT64_C(1) << level->bits) - 1);
        uint64_t entry = 0;
        enum cleave_status status = space_reader_read(
            ctx, reader, gpa(table + slot * format->entry), &entry, format->entry, wait);
        if (status == CLEAVE_WAIT) {
            return status;
        }
        if (status != CLEAVE_OK || !entry_allows(paging, level, entry, write)) {
            return mm_fail(ctx, CLEAVE_FAULT, name, linear, 1, 0);
        }
        if (maps_page(paging, level, entry)) {
            *at = page_address(paging, level, entry, linear);
            return CLEAVE_OK;
        }
        table = entry & ENTRY_ADDRESS;
    }
}

/* One of `to` and `from` is null. */
static enum cleave_status copy(struct mm_ctx *ctx, struct space *space,
                               const struct guest_paging *paging, uint64_t linear,
                               unsigned char *to, const unsigned char *from, uint64_t size,
                               const char *name, struct vcpu_wait *wait)
{
    enum cleave_status status = CLEAVE_OK;

    if (linear + size < linear) {
        return mm_fail(ctx, CLEAVE_WRAP, name, linear, 0, UINT64_MAX - size);
    }
    for (uint64_t done = 0; status == CLEAVE_OK && done < size;) {
        uint64_t room = GUEST_PAGE - (linear + done) % GUEST_PAGE, written;
        struct space_reader reader = {.space = space};
        gpa_t at;
        room = room < size - done ? room : size - done;
        status =
            guest_translate(ctx, &reader, paging, linear + done, from != NULL, name, wait, &at);
        if (status == CLEAVE_OK && from == NULL) {
            status = space_reader_read(ctx, &reader, at, to + done, room, wait);
        }
        space_reader_end(ctx, &reader);
        if (status == CLEAVE_OK && from != NULL) {
            status = space_write(ctx, space, at, from + done, room, wait, &written);
        }
        done += room;
    }
    return status;
}

enum cleave_status guest_copy_in(struct mm_ctx *ctx, struct space *space,
                                 const struct guest_paging *paging, uint64_t linear, void *to,
                                 uint64_t size, const char *name, struct vcpu_wait *wait)
{
    return copy(ctx, space, paging, linear, to, NULL, size, name, wait);
}

enum cleave_status guest_copy_out(struct mm_ctx *ctx, struct space *space,
                                  const struct guest_paging *paging, uint64_t linear,
                                  const void *from, uint64_t size, const char *name,
                                  struct vcpu_wait *wait)
{
    return copy(ctx, space, paging, linear, NULL, from, size, name, wait);
}
