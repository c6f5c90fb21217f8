/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads simulated RAM as the hardware would and compares what it finds with the reference. */
#include "abstract.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "pte.h"

/* --- A decoder of its own: SDM 3C 29.3.2 and APM 2 5.4, 15.25 --------------------------------- */

#define FRAME_BITS ((UINT64_C(1) << 40) - 1) /* at bits 51:12 */

static bool is_ept(void) { return pt_format.name[0] == 'E'; }

/* Bits of an entry that is not present: what it would be, set aside with its address inverted; and
 * a page of a store. */
#define ENTRY_PARKED (UINT64_C(1) << 57)
#define ENTRY_PAGED (UINT64_C(1) << 55)

static uint64_t entry_frame(uint64_t e) { return (e & ENTRY_PARKED ? ~e : e) >> 12 & FRAME_BITS; }

static bool entry_present(uint64_t e) { return is_ept() ? (e & 7) != 0 : (e & 1) != 0; }

static unsigned entry_rights(uint64_t e)
{
    if (is_ept()) {
        return (unsigned)(e & 7); /* read, write, execute as in the reference */
    }
    return REF_READ | (e >> 1 & 1 ? REF_WRITE : 0u) | (e >> 63 ? 0u : REF_EXEC);
}

struct abs_page abs_walk(const struct space *space, uint64_t page)
{
    struct abs_page found = {.rights = 7, .level = TABLE_LEVELS - 1};
    bool parked = false;
    uint64_t table = space->root.v;

    for (;; found.level--) {
        unsigned shift = LEVEL_BITS * found.level;
        const uint64_t *slots = (const uint64_t *)(const void *)abs_bytes(table);
        found.pages = (UINT64_C(1) << shift) - (page & ((UINT64_C(1) << shift) - 1));
        found.entry = slots[page >> shift & ((1u << LEVEL_BITS) - 1)];
        bool present = entry_present(found.entry);
        bool set_aside = !present && (found.entry & ENTRY_PARKED);
        parked |= set_aside;
        found.rights = parked ? 0 : found.rights & (present ? entry_rights(found.entry) : 0);
        if (!present && (!set_aside || (found.entry & ENTRY_PAGED))) {
            found.paged = found.entry != 0;
            found.parked = parked && found.paged;
            return found;
        }
        found.frame = entry_frame(found.entry);
        if (found.level == 0 || found.entry >> 7 & 1) {
            found.present = !parked;
            found.parked = parked;
            found.frame += page & ((UINT64_C(1) << shift) - 1);
            return found;
        }
        table = found.frame;
    }
}

unsigned char *abs_bytes(uint64_t frame) { return machine.direct_map + (frame << PAGE_SHIFT); }

/* --- One page --------------------------------------------------------------------------------- */

static const char *compare_region(const struct ref *ref, const struct ref_page *page,
                                  const struct region *region)
{
    static const enum region_policy as[REF_POLICIES] = {
        REGION_NONE,   REGION_PRIVATE, REGION_READ_ONLY, REGION_SHARED, REGION_WIPE,
        REGION_ABSENT, REGION_DEVICE,  REGION_PAGED,     REGION_FOREIGN};

    if (region->policy != as[page->policy]) {
        return "policy";
    }
    if (page->policy == REF_NONE) {
        return NULL;
    }
    if (region->rights != page->rights) {
        return "rights";
    }
    if (region->armed < ref_armed(ref, page) || region->armed > page->armed) {
        return "armed";
    }
    return NULL;
}

static bool all_zero(const unsigned char *bytes, uint64_t size)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

/* What the entry allows and where it leads, against what the reference says the guest has. */
static const char *compare_entry(const struct ref *ref, const struct ref_page *page,
                                 const struct abs_page *found, bool frozen, bool taken)
{
    bool write = (found->rights & REF_WRITE) != 0;

    if (page->policy == REF_NONE) {
        return found->present || found->paged || found->parked ? "an entry where no memory is"
                                                               : NULL;
    }
    if (taken) {
        return found->present ? "a page that was taken back" : NULL;
    }
    if (found->paged) {
        return page->policy == REF_PAGED ? NULL : "a paged entry in no paged region";
    }
    if (!found->present && !found->parked) {
        bool zeros = page->policy != REF_DEVICE && page->policy != REF_FOREIGN &&
                     all_zero(ref_bytes(ref, page), ref->page_bytes);
        return zeros ? NULL : "content is gone";
    }
    if (found->rights & ~(unsigned)page->rights) {
        return "the entry allows more than the region";
    }
    if (write && (ref_armed(ref, page) || page->policy == REF_READ_ONLY || frozen)) {
        return "writable";
    }
    if (page->policy == REF_DEVICE) {
        return found->frame == page->backing ? NULL : "device frame";
    }
    if (found->frame >= machine.frames) {
        return "a frame past the end of memory";
    }
    return memcmp(abs_bytes(found->frame), ref_bytes(ref, page), ref->page_bytes) ? "content"
                                                                                  : NULL;
}

static void describe(const struct ref *ref, const struct ref_page *page,
                     const struct abs_page *found, uint64_t at, const char *what,
                     char text[ABS_TEXT])
{
    const unsigned char *expected = ref_bytes(ref, page);
    uint64_t offset = 0;

    if (!found->paged && found->frame != 0 && page->policy != REF_DEVICE) {
        const unsigned char *bytes = abs_bytes(found->frame);
        while (offset < ref->page_bytes - 1 && bytes[offset] == expected[offset]) {
            offset++;
        }
        snprintf(text, ABS_TEXT,
                 "page 0x%" PRIx64 ": %s (policy %u rights %u armed %d; level %u rights %u entry "
                 "0x%" PRIx64 "; byte %" PRIu64 " is 0x%02x, not 0x%02x)",
                 at, what, page->policy, page->rights, page->armed, found->level, found->rights,
                 found->entry, offset, bytes[offset], expected[offset]);
        return;
    }
    snprintf(text, ABS_TEXT,
             "page 0x%" PRIx64 ": %s (policy %u rights %u armed %d; level %u entry 0x%" PRIx64 ")",
             at, what, page->policy, page->rights, page->armed, found->level, found->entry);
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

bool abs_compare(const struct ref *ref, unsigned which, const struct space *space, uint64_t start,
                 uint64_t end, char text[ABS_TEXT])
{
    struct abs_page found = {0};
    struct region region = {0};
    uint64_t found_end = start;
    uint64_t region_end = start;

    for (uint64_t at = start; at < end;) {
        if (at >= found_end) {
            found = abs_walk(space, at);
            found_end = at + found.pages;
        }
        if (at >= region_end) {
            struct gfn_range extent;
            region = region_get_extent(space->regions, gfn(at), &extent);
            region_end = extent.end.v;
        }
        struct ref_page page = ref_page(ref, which, at);
        const char *what = compare_region(ref, &page, &region);
        bool taken =
            page.policy == REF_FOREIGN && !ref_map_at((struct ref *)(uintptr_t)ref, which, at);
        what = what ? what : compare_entry(ref, &page, &found, space->state == SPACE_FROZEN, taken);
        if (what) {
            describe(ref, &page, &found, at, what, text);
            return false;
        }
        /* Holes that are alike on both sides need one look. */
        uint64_t alike = least(ref_next_change(ref, which, at + 1), least(found_end, region_end));
        uint64_t step = found.present || found.parked || alike <= at ? 1 : least(alike, end) - at;
        at += step;
        found.frame += step;
    }
    return true;
}
