/* SPDX-License-Identifier: BSD-2-Clause */
/* The reference: what holds pages of a space from outside: foreign maps, pins, subscribers. */
#include <stdlib.h>

#include "reference_memory.h"

/* --- Foreign maps ----------------------------------------------------------------------------- */

struct ref_map *ref_map_at(struct ref *ref, unsigned mapper, uint64_t to)
{
    for (unsigned i = 0; i < REF_MAPS; i++) {
        struct ref_map *map = &ref->map[i];
        if (map->live && map->mapper == mapper && map->to == to) {
            return map;
        }
    }
    return NULL;
}

const struct ref_map *ref_look_map(const struct ref *ref, unsigned mapper, uint64_t to)
{
    return ref_map_at((struct ref *)(uintptr_t)ref, mapper, to);
}

/* The pages are about to go: maps of them keep their content. */
void ref_detach_maps(struct ref *ref, unsigned owner, struct ref_span span)
{
    for (unsigned i = 0; i < REF_MAPS; i++) {
        struct ref_map *map = &ref->map[i];
        if (map->live && !map->detached && map->owner == owner && map->at >= span.start &&
            map->at < span.end) {
            struct ref_page *page = ref_memory_page(ref->space[map->mapper].memory, map->to);
            page->cell = ref_cell_hold(ref_memory_read(ref->space[owner].memory, map->at).cell);
            map->detached = true;
        }
    }
}

/* All maps that a space has of others are gone. */
void ref_forget_maps(struct ref *ref, unsigned mapper)
{
    for (unsigned i = 0; i < REF_MAPS; i++) {
        if (ref->map[i].mapper == mapper) {
            ref->map[i].live = false;
        }
    }
}

bool ref_has_maps(const struct ref *ref, unsigned owner, struct ref_span span)
{
    bool found = false;
    for (unsigned i = 0; i < REF_MAPS; i++) {
        const struct ref_map *map = &ref->map[i];
        found |= map->live && map->owner == owner && map->at >= span.start && map->at < span.end;
    }
    return found;
}

/* Where the content of a page is kept: with its owner, for a foreign map. */
struct ref_page *ref_backing(struct ref *ref, unsigned space, uint64_t page)
{
    const struct ref_map *map = ref_look_map(ref, space, page);
    return map && !map->detached ? ref_memory_page(ref->space[map->owner].memory, map->at)
                                 : ref_memory_page(ref->space[space].memory, page);
}

/* --- Pins and foreign maps -------------------------------------------------------------------- */

bool ref_pinned(const struct ref *ref, unsigned space, uint64_t start, uint64_t end)
{
    for (unsigned i = 0; i < REF_PINS; i++) {
        const struct ref_pin *pin = &ref->pin[i];
        if (pin->live && pin->space == space && pin->start < end && start < pin->end) {
            return true;
        }
    }
    return false;
}

/* May a device write to a page of the range? Then nobody would be told of it. */
static bool device_writes(const struct ref *ref, unsigned space, struct ref_span span)
{
    for (unsigned i = 0; i < REF_PINS; i++) {
        const struct ref_pin *pin = &ref->pin[i];
        if (pin->live && pin->write && pin->space == space && pin->start < span.end &&
            span.start < pin->end) {
            return true;
        }
    }
    return false;
}

/* What a pin of one page answers. */
static enum cleave_status pin_page(const struct ref *ref, unsigned space, uint64_t at, bool write)
{
    enum cleave_status status = ref_changeable(ref, space);
    struct ref_page page = ref_page(ref, space, at);

    if (!status && (page.policy == REF_DEVICE || page.policy == REF_FOREIGN)) {
        return CLEAVE_POLICY;
    }
    return status ? status : ref_access(ref, space, at, write ? REF_ACCESS_WRITE : REF_ACCESS_READ);
}

enum cleave_status ref_pin_pages(struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                                 bool write, unsigned pin)
{
    enum cleave_status status = ref_range(ref, at, size);
    struct ref_span span = ref_span_of(ref, at, size);

    for (uint64_t p = span.start; !status && p < span.end; p++) {
        status = pin_page(ref, space, p, write);
    }
    if (!status && ref->commit) {
        struct ref_pin *made = &ref->pin[pin];
        *made = (struct ref_pin){true, write, space, span.start, span.end, NULL};
        made->cell = ref_allocate((span.end - span.start) * sizeof(struct ref_cell *));
        for (uint64_t p = span.start; p < span.end; p++) {
            struct ref_page *page = ref_memory_page(ref->space[space].memory, p);
            (void)ref_bytes_for_change(ref, page);
            made->cell[p - span.start] = ref_cell_hold(page->cell);
        }
    }
    return status;
}

void ref_unpin(struct ref *ref, unsigned pin)
{
    struct ref_pin *gone = &ref->pin[pin];

    for (uint64_t i = 0; i < gone->end - gone->start; i++) {
        ref_cell_drop(gone->cell[i]);
    }
    free(gone->cell);
    *gone = (struct ref_pin){0};
}

enum cleave_status ref_foreign_map(struct ref *ref, unsigned owner, uint64_t at, unsigned mapper,
                                   uint64_t to)
{
    enum cleave_status status = ref_range(ref, at, ref->page_size);
    status = status ? status : ref_range(ref, to, ref->page_size);
    if (!status && owner == mapper) {
        status = CLEAVE_INVALID;
    }
    status = status ? status : ref_changeable(ref, owner);
    status = status ? status : ref_changeable(ref, mapper);
    if (status) {
        return status;
    }
    uint64_t page = at / ref->page_size;
    struct ref_page from = ref_page(ref, owner, page);
    struct ref_page *map = ref_memory_page(ref->space[mapper].memory, to / ref->page_size);
    if (map->policy != REF_NONE) {
        return CLEAVE_EXISTS;
    }
    if (!(BIT(from.policy) & (FIRST_TOUCH | BIT(REF_PAGED))) || !(from.rights & REF_READ)) {
        return CLEAVE_FAULT;
    }
    unsigned i = 0;
    while (i < REF_MAPS && ref->map[i].live) {
        i++;
    }
    if (i == REF_MAPS) {
        return CLEAVE_COUNT;
    }
    if (ref->commit) {
        *map = (struct ref_page){.policy = REF_FOREIGN, .rights = REF_READ | REF_WRITE};
        ref->map[i] = (struct ref_map){
            .live = true, .owner = owner, .mapper = mapper, .at = page, .to = to / ref->page_size};
    }
    return CLEAVE_OK;
}

enum cleave_status ref_foreign_unmap(struct ref *ref, unsigned mapper, uint64_t to)
{
    enum cleave_status status = ref_range(ref, to, ref->page_size);
    if (status) {
        return status;
    }
    struct ref_page *page = ref->space[mapper].memory
                                ? ref_memory_page(ref->space[mapper].memory, to / ref->page_size)
                                : NULL;
    if (!page || page->policy != REF_FOREIGN) {
        return CLEAVE_NOT_MAPPED;
    }
    status = ref_changeable(ref, mapper);
    if (!status && ref->commit) {
        struct ref_map *map = ref_map_at(ref, mapper, to / ref->page_size);
        ref_edit_remove(ref, page, 0, NULL);
        if (map) {
            map->live = false;
        }
    }
    return status;
}

void ref_map_taken(struct ref *ref, struct ref_map *map, bool region)
{
    struct ref_page *page = ref_memory_page(ref->space[map->mapper].memory, map->to);
    struct ref_page kept = *page;

    map->live = false;
    ref_edit_remove(ref, page, 0, NULL);
    if (region) {
        kept.cell = NULL;
        *page = kept;
    }
}

/* --- Notification ----------------------------------------------------------------------------- */

struct notice {
    uint16_t channel; /* 1 + number */
};

static void edit_arm(struct ref *ref, struct ref_page *page, uint64_t n, const void *arg)
{
    (void)ref, (void)n;
    page->channel = ((const struct notice *)arg)->channel;
    page->armed = true;
    page->told = false;
}

/* Only pages that belong to the channel already. */
static void edit_rearm(struct ref *ref, struct ref_page *page, uint64_t n, const void *arg)
{
    if (page->channel == ((const struct notice *)arg)->channel) {
        edit_arm(ref, page, n, arg);
    }
}

static void edit_disarm(struct ref *ref, struct ref_page *page, uint64_t n, const void *arg)
{
    (void)ref, (void)n;
    if (page->channel == ((const struct notice *)arg)->channel) {
        page->channel = 0;
        page->armed = page->told = false;
    }
}

static void edit_allow(struct ref *ref, struct ref_page *page, uint64_t n, const void *arg)
{
    (void)ref, (void)n;
    if (page->channel == ((const struct notice *)arg)->channel && page->armed) {
        page->armed = false;
        page->told = true;
    }
}

/* Pages of the range that belong to a channel that is alive: this one, or another. */
static uint64_t count_notified(const struct ref *ref, const struct ref_chunk *memory,
                               struct ref_span span, unsigned channel, bool other)
{
    uint64_t count = 0;

    for (uint64_t at = span.start; at < span.end; at++) {
        struct ref_page page = ref_memory_read(memory, at);
        bool own = page.channel == channel + 1;
        count += page.channel != 0 && own != other && ref->channel[page.channel - 1];
    }
    return count;
}

enum cleave_status ref_arm(struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                           unsigned channel)
{
    enum cleave_status status = ref_changeable_range(ref, space, at, size);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct ref_span span = ref_span_of(ref, at, size);
    for (uint64_t p = span.start; p < span.end; p++) {
        struct ref_span one = {p, p + 1};
        if (ref_count_policies(memory, one, BIT(REF_NONE)) > 0) {
            return CLEAVE_NOT_MAPPED;
        }
        if (!ref_all_are(memory, one, BIT(REF_PRIVATE) | BIT(REF_SHARED))) {
            return CLEAVE_POLICY;
        }
        if (count_notified(ref, memory, one, channel, true) > 0) {
            return CLEAVE_EXISTS;
        }
    }
    if (device_writes(ref, space, span)) {
        return CLEAVE_BUSY;
    }
    if (ref->commit) {
        struct notice notice = {(uint16_t)(channel + 1)};
        ref_edit_pages(ref, memory, span, true, edit_arm, &notice);
    }
    return CLEAVE_OK;
}

/* Rearm and disarm are alike but for what they do to a page. */
static enum cleave_status change_notified(struct ref *ref, unsigned space, uint64_t at,
                                          uint64_t size, unsigned channel, uint64_t grain,
                                          ref_page_edit *edit)
{
    enum cleave_status status = ref_changeable_range(ref, space, at, size);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct ref_span span = ref_span_of(ref, at, size);
    if (count_notified(ref, memory, span, channel, false) == 0) {
        return CLEAVE_NOT_MAPPED;
    }
    span.start = span.start / grain * grain;
    span.end = (span.end + grain - 1) / grain * grain;
    if (edit == edit_rearm && device_writes(ref, space, span)) {
        return CLEAVE_BUSY;
    }
    if (ref->commit) {
        struct notice notice = {(uint16_t)(channel + 1)};
        ref_edit_pages(ref, memory, span, true, edit, &notice);
    }
    return CLEAVE_OK;
}

enum cleave_status ref_rearm(struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                             unsigned channel, uint64_t grain)
{
    return change_notified(ref, space, at, size, channel, grain, edit_rearm);
}

enum cleave_status ref_disarm(struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                              unsigned channel)
{
    return change_notified(ref, space, at, size, channel, 1, edit_disarm);
}

void ref_allow(struct ref *ref, unsigned space, uint64_t start, uint64_t end, unsigned channel)
{
    struct notice notice = {(uint16_t)(channel + 1)};
    ref_edit_pages(ref, ref->space[space].memory, (struct ref_span){start, end}, true, edit_allow,
                   &notice);
}

uint64_t ref_dirty(const struct ref *ref, unsigned channel, uint64_t grain)
{
    uint64_t count = 0;

    for (unsigned s = 0; s < REF_SPACES; s++) {
        uint64_t last = UINT64_MAX;
        bool counts = ref->space[s].life == REF_ALIVE || ref->space[s].life == REF_FROZEN;
        for (uint64_t at = 0; counts && at < ref->pages; at = ref_next_change(ref, s, at + 1)) {
            struct ref_page page = ref_page(ref, s, at);
            if (page.told && page.channel == channel + 1 && at / grain != last) {
                last = at / grain;
                count++;
            }
        }
    }
    return count;
}
