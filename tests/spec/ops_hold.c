/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations that hold pages of a space from outside: pins and what devices do, foreign
 * maps. */
#include "ops.h"

#include <inttypes.h>
#include <string.h>

#include "attachment.h"
#include "test.h"

uint64_t ops_pinned_pages(const struct world *w, unsigned s)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < REF_PINS; i++) {
        const struct ref_pin *pin = &w->ref->pin[i];
        pages += pin->live && pin->space == s ? pin->end - pin->start : 0;
    }
    for (unsigned i = 0; i < REF_MAPS; i++) {
        pages += w->ref->map[i].live && w->ref->map[i].owner == s;
    }
    return pages;
}

/* --- Pins ------------------------------------------------------------------------------------- */

#define PINS 4u /* at a time, and as many that were made between two parts of a call */

static unsigned pick_pin(struct world *w)
{
    unsigned start = (unsigned)spec_below(w, REF_PINS);
    for (unsigned i = 0; i < REF_PINS; i++) {
        if (w->ref->pin[(start + i) % REF_PINS].live) {
            return (start + i) % REF_PINS;
        }
    }
    return REF_PINS;
}

/* A write pin of an armed page tells the subscriber. */
static void tell(struct world *w, unsigned s, const struct spec_range *range,
                 enum cleave_status got)
{
    uint64_t page = range->at >> PAGE_SHIFT;
    if (ref_access(w->ref, s, page, REF_ACCESS_WRITE) == CLEAVE_WAIT) {
        ops_notice(w, s, page, got);
    }
}

static void op_pin(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    unsigned pin =
        w->nested ? PINS : 0; /* the call in which it is nested may have a slot in mind */
    unsigned end = pin + PINS;
    while (pin < end && w->ref->pin[pin].live) {
        pin++;
    }
    if (s == REF_SPACES || pin == end) {
        return;
    }
    struct spec_range range = spec_pick_any_range(w, s);
    bool write = spec_chance(w, 2);
    if (ops_pages(&range) > 6) {
        range.size = 2 * PAGE_SIZE;
    }
    if (ops_past(w, &range)) {
        return;
    }
    if (write && ops_pages(&range) > 1 && ref_range(w->ref, range.at, range.size) == CLEAVE_OK) {
        struct spec_range cut = ops_cut_where_asked(w, s, range);
        range.size = cut.size;
    }
    spec_say(w, "pin %u 0x%" PRIx64 "+0x%" PRIx64 " write %d -> %u", s, range.at, range.size, write,
             pin);
    w->ref->commit = false;
    enum cleave_status expected = ref_pin_pages(w->ref, s, range.at, range.size, write, pin);
    uint64_t page = range.at >> PAGE_SHIFT;
    bool legal = ref_range(w->ref, range.at, range.size) == CLEAVE_OK;
    if (expected == CLEAVE_WAIT && ops_foresee_notice(w, s, page) == CLEAVE_OK) {
        expected = CLEAVE_OK;
    }
    bool paged = legal && ops_any_paged(w, s, range);
    bool full = w->space[s]->attachment_count - w->space[s]->foreign_count + ops_pages(&range) >
                ATTACHMENTS;
    enum cleave_status got;
    unsigned calls = 0;
    w->promised[s] = 0;
    ops_before(w);
    do {
        ops_budget(w);
        got = space_pin(w->ctx, w->space[s], gpa(range.at), range.size, write, &w->pin[pin]);
    } while (ops_again(w, got, s, &calls));
    if (write && legal && ops_pages(&range) == 1 && !paged) {
        tell(w, s, &range, got);
    }
    ops_touch(w, &range);
    if ((got == CLEAVE_COUNT && full) || (got == CLEAVE_WAIT && paged)) {
        w->refused++;
        return;
    }
    if (ops_pages(&range) > 1 && (got == CLEAVE_NO_MEMORY || got == CLEAVE_QUOTA)) {
        expected = CLEAVE_OK; /* it would have got further */
    }
    uint64_t need = 60 + 4 * ops_pages(&range) + level_pages(1);
    if (spec_agree(w, got, expected, w->space[s], need)) {
        w->ref->commit = true;
        (void)ref_pin_pages(w->ref, s, range.at, range.size, write, pin);
    }
}

static void op_unpin(struct world *w)
{
    unsigned pin = pick_pin(w);
    if (pin == REF_PINS || w->changing[w->ref->pin[pin].space]) {
        return;
    }
    unsigned s = w->ref->pin[pin].space;
    spec_say(w, "unpin %u of %u", pin, s);
    ops_before(w);
    enum cleave_status got = space_unpin(w->ctx, w->space[s], w->pin[pin]);
    if (spec_agree(w, got, CLEAVE_OK, NULL, 0)) {
        ref_unpin(w->ref, pin);
        got = space_unpin(w->ctx, w->space[s], w->pin[pin]);
        (void)spec_agree(w, got, CLEAVE_INVALID, NULL, 0);
    }
}

/* A device writes to, or reads, a page that is pinned for it. */
static void op_device(struct world *w)
{
    unsigned i = pick_pin(w);
    if (i == REF_PINS) {
        return;
    }
    const struct ref_pin *pin = &w->ref->pin[i];
    uint64_t page = pin->start + spec_below(w, pin->end - pin->start);
    pfn_t frame;
    spec_say(w, "device at page 0x%" PRIx64 " of pin %u of %u", page, i, pin->space);
    enum cleave_status got = space_pinned_frame(w->ctx, w->space[pin->space], w->pin[i],
                                                gpa(page << PAGE_SHIFT), &frame);
    if (!spec_agree(w, got, CLEAVE_OK, NULL, 0)) {
        return;
    }
    unsigned char *bytes = abs_bytes(frame.v);
    unsigned char *kept = pin->cell[page - pin->start]->bytes;
    if (memcmp(bytes, kept, w->ref->page_bytes) != 0) {
        spec_fail(w, "a device reads other bytes at page 0x%" PRIx64, page);
    }
    if (pin->write && spec_chance(w, 2)) {
        uint64_t at = spec_below(w, w->ref->page_bytes);
        bytes[at] = kept[at] = (unsigned char)spec_below(w, 256);
        spec_touch(w, 0, w->ref->pages < 2048 ? w->ref->pages : 2048);
    }
}

/* --- Foreign maps ----------------------------------------------------------------------------- */

static void op_foreign_map(struct world *w)
{
    unsigned owner = spec_pick_space(w, SPEC_ANY);
    unsigned mapper = spec_pick_space(w, SPEC_ANY);
    if (owner == REF_SPACES || mapper == REF_SPACES) {
        return;
    }
    uint64_t at = spec_pick_page(w, owner) << PAGE_SHIFT;
    uint64_t to = spec_pick_range(w, mapper).at;
    if (spec_chance(w, 40)) {
        at = spec_pick_any_range(w, owner).at;
    }
    if (ops_past(w, &(struct spec_range){at, PAGE_SIZE})) {
        return;
    }
    for (unsigned i = 0; i < 6 && ref_page(w->ref, mapper, to >> PAGE_SHIFT).policy; i++) {
        to = spec_pick_range(w, mapper).at;
    }
    spec_say(w, "foreign_map 0x%" PRIx64 " of %u -> 0x%" PRIx64 " of %u", at, owner, to, mapper);
    w->ref->commit = false;
    enum cleave_status expected = ref_foreign_map(w->ref, owner, at, mapper, to);
    bool paged =
        expected == CLEAVE_OK && ops_any_paged(w, owner, (struct spec_range){at, PAGE_SIZE});
    w->promised[mapper] = 0;
    w->promised[owner] = 0;
    ops_before(w);
    enum cleave_status got =
        foreign_map(w->ctx, w->space[owner], gpa(at), w->space[mapper], gpa(to));
    ops_touch(w, &(struct spec_range){at, PAGE_SIZE});
    ops_touch(w, &(struct spec_range){to, PAGE_SIZE});
    if (got == CLEAVE_WAIT && paged) {
        w->refused++;
        return;
    }
    struct space *payer = got == CLEAVE_QUOTA && spec_out_of_quota(w, w->space[mapper], 40)
                              ? w->space[mapper]
                              : w->space[owner];
    if (spec_agree(w, got, expected, payer, 60)) {
        w->ref->commit = true;
        (void)ref_foreign_map(w->ref, owner, at, mapper, to);
    }
}

static void op_foreign_unmap(struct world *w)
{
    const struct ref_map *map = NULL;
    unsigned start = (unsigned)spec_below(w, REF_MAPS);
    unsigned mapper = spec_pick_space(w, SPEC_ANY);

    for (unsigned i = 0; i < REF_MAPS && !map; i++) {
        const struct ref_map *m = &w->ref->map[(start + i) % REF_MAPS];
        map = m->live && !w->changing[m->mapper] && !w->changing[m->owner] ? m : NULL;
    }
    if (mapper == REF_SPACES) {
        return;
    }
    uint64_t to = spec_pick_page(w, mapper) << PAGE_SHIFT;
    if (map && !spec_chance(w, 8)) {
        mapper = map->mapper;
        to = map->to << PAGE_SHIFT;
    }
    spec_say(w, "foreign_unmap 0x%" PRIx64 " of %u", to, mapper);
    w->ref->commit = false;
    enum cleave_status expected = ref_foreign_unmap(w->ref, mapper, to);
    if (w->ref->space[mapper].life == REF_DYING) {
        return; /* its maps may be gone, or not yet */
    }
    ops_before(w);
    enum cleave_status got = foreign_unmap(w->ctx, w->space[mapper], gpa(to));
    ops_touch(w, &(struct spec_range){to, PAGE_SIZE});
    if (spec_agree(w, got, expected, w->space[mapper], 40)) {
        w->ref->commit = true;
        (void)ref_foreign_unmap(w->ref, mapper, to);
    }
}

void ops_take_back(struct world *w, unsigned owner, bool all)
{
    for (unsigned i = 0; i < REF_MAPS; i++) {
        struct ref_map *map = &w->ref->map[i];
        if (!map->live || map->owner != owner) {
            continue;
        }
        struct abs_page found = abs_walk(w->space[map->mapper], map->to);
        bool present = found.present;
        struct region region = region_get(w->space[map->mapper]->regions, gfn(map->to));
        if (present && all) {
            spec_fail(w, "space %u still maps page 0x%" PRIx64 " of a space that is gone",
                      map->mapper, map->at);
        }
        if (!present) {
            ref_map_taken(w->ref, map, region.policy == REGION_FOREIGN);
        }
    }
}

void ops_end_hold(struct world *w)
{
    for (unsigned i = 0; i < REF_PINS; i++) {
        const struct ref_pin *pin = &w->ref->pin[i];
        if (pin->live) {
            if (space_unpin(w->ctx, w->space[pin->space], w->pin[i]) != CLEAVE_OK) {
                spec_fail(w, "pin %u does not end", i);
            }
            ref_unpin(w->ref, i);
        }
    }
}

const struct spec_op ops_hold[] = {
    {"pin", 3, true, op_pin},
    {"unpin", 3, true, op_unpin},
    {"device", 4, true, op_device},
    {"foreign_map", 3, true, op_foreign_map},
    {"foreign_unmap", 2, true, op_foreign_unmap},
};
const unsigned ops_hold_count = sizeof(ops_hold) / sizeof(ops_hold[0]);
