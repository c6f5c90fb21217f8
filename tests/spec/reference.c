/* SPDX-License-Identifier: BSD-2-Clause */
/* The naive reference: everything is copied, nothing is clever. One thread uses it. */
#include "reference.h"

#include <stdlib.h>
#include <string.h>

#include "reference_memory.h"

/* --- The world -------------------------------------------------------------------------------- */

struct ref *ref_new(uint64_t page_size, uint64_t page_bytes, uint64_t guest_pages, uint64_t pages,
                    unsigned fan_out)
{
    struct ref *ref = ref_allocate(sizeof(*ref));
    ref->page_size = page_size;
    ref->page_bytes = page_bytes;
    ref->guest_pages = guest_pages;
    ref->pages = pages;
    ref->fan_out = fan_out;
    ref->commit = true;
    return ref;
}

void ref_free(struct ref *ref)
{
    for (unsigned s = 0; s < REF_SPACES; s++) {
        ref_destroy_end(ref, s);
    }
    free(ref);
}

struct ref_page ref_page(const struct ref *ref, unsigned space, uint64_t page)
{
    struct ref_page found = ref_memory_read(ref->space[space].memory, page);
    const struct ref_map *map = found.policy == REF_FOREIGN ? ref_look_map(ref, space, page) : NULL;

    if (map && !map->detached) {
        found.cell = ref_memory_read(ref->space[map->owner].memory, map->at).cell;
    }
    return found;
}

const unsigned char *ref_bytes(const struct ref *ref, const struct ref_page *page)
{
    return ref_cell_bytes(ref, page->cell);
}

struct ref_page *ref_page_for_change(struct ref *ref, unsigned space, uint64_t page)
{
    return ref_memory_page(ref->space[space].memory, page);
}

unsigned char *ref_bytes_for_change(struct ref *ref, struct ref_page *page)
{
    if (!page->cell) {
        page->cell = ref_cell_new(ref, NULL);
    }
    return page->cell->bytes;
}

uint64_t ref_next_change(const struct ref *ref, unsigned space, uint64_t page)
{
    const struct ref_chunk *memory = ref->space[space].memory;
    return page >= ref->pages || memory[page / REF_CHUNK].each
               ? page
               : (page + REF_CHUNK - 1) / REF_CHUNK * REF_CHUNK;
}

bool ref_armed(const struct ref *ref, const struct ref_page *page)
{
    return page->armed && page->channel > 0 && ref->channel[page->channel - 1];
}

unsigned ref_unused(const struct ref *ref)
{
    unsigned s = 0;
    while (s < REF_SPACES && ref->space[s].life != REF_UNUSED) {
        s++;
    }
    return s;
}

enum cleave_status ref_range(const struct ref *ref, uint64_t at, uint64_t size)
{
    uint64_t width = ref->guest_pages * ref->page_size;

    if (at % ref->page_size != 0 || size % ref->page_size != 0) {
        return CLEAVE_ALIGN;
    }
    if (size == 0) {
        return CLEAVE_COUNT;
    }
    if (size > UINT64_MAX - at) {
        return CLEAVE_WRAP;
    }
    return at >= width || size > width - at ? CLEAVE_RANGE : CLEAVE_OK;
}

/* May the space be changed? */
enum cleave_status ref_changeable(const struct ref *ref, unsigned space)
{
    switch (ref->space[space].life) {
    case REF_ALIVE:
        return CLEAVE_OK;
    case REF_FROZEN:
        return CLEAVE_FROZEN;
    case REF_UNUSED:
    case REF_DYING:
        return CLEAVE_DYING;
    }
    return CLEAVE_DYING;
}

enum cleave_status ref_changeable_range(const struct ref *ref, unsigned space, uint64_t at,
                                        uint64_t size)
{
    enum cleave_status status = ref_range(ref, at, size);
    return status ? status : ref_changeable(ref, space);
}

static void space_begin(struct ref *ref, unsigned space, enum ref_life life,
                        struct ref_chunk *memory, struct ref_chunk *base)
{
    ref->space[space] = (struct ref_space){life, memory, base};
}

enum cleave_status ref_create(struct ref *ref, unsigned space)
{
    if (ref->commit) {
        space_begin(ref, space, REF_ALIVE, ref_memory_new(ref), NULL);
    }
    return CLEAVE_OK;
}

enum cleave_status ref_destroy_begin(struct ref *ref, unsigned space)
{
    if (ref->commit) {
        ref->space[space].life = REF_DYING;
    }
    return ref_pinned(ref, space, 0, ref->pages) ? CLEAVE_BUSY : CLEAVE_OK;
}

void ref_destroy_end(struct ref *ref, unsigned space)
{
    ref_forget_maps(ref, space);
    ref_memory_free(ref, ref->space[space].memory);
    ref_memory_free(ref, ref->space[space].base);
    ref->space[space] = (struct ref_space){REF_UNUSED, NULL, NULL};
}

/* --- Regions and mapping ---------------------------------------------------------------------- */

static enum cleave_status region_check(const struct ref_region *region, unsigned policies)
{
    if (region->policy >= REF_POLICIES || !(policies >> region->policy & 1)) {
        return CLEAVE_POLICY;
    }
    bool none = region->rights == 0 && region->policy != REF_PAGED;
    if (region->rights > 7 || (!none && !(region->rights & REF_READ)) ||
        (region->policy == REF_READ_ONLY && region->rights & REF_WRITE)) {
        return CLEAVE_RIGHTS;
    }
    return region->order > 2 ? CLEAVE_ORDER : CLEAVE_OK;
}

/* A fresh page of zeros; shared ones get the cell that forks will alias. */
static void edit_fresh(struct ref *ref, struct ref_page *page, uint64_t n, const void *arg)
{
    const struct ref_region *region = arg;
    (void)n;

    *page = (struct ref_page){.policy = (uint8_t)region->policy,
                              .rights = (uint8_t)region->rights,
                              .order = (uint8_t)region->order};
    if (region->policy == REF_SHARED) {
        page->cell = ref_cell_new(ref, NULL);
    }
}

static void edit_policy(struct ref *ref, struct ref_page *page, uint64_t n, const void *arg)
{
    const struct ref_region *region = arg;
    (void)n;

    if (page->policy == REF_SHARED && region->policy != REF_SHARED) {
        struct ref_cell *own = ref_cell_new(ref, page->cell->bytes);
        ref_cell_drop(page->cell);
        page->cell = own;
    }
    page->policy = (uint8_t)region->policy;
    page->rights = (uint8_t)region->rights;
    page->order = (uint8_t)region->order;
}

enum cleave_status ref_set_region(struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                                  const struct ref_region *region)
{
    enum cleave_status status = ref_range(ref, at, size);
    status = status ? status : region_check(region, FIRST_TOUCH);
    status = status ? status : ref_changeable(ref, space);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct ref_span span = ref_span_of(ref, at, size);
    bool fresh = ref_all_are(memory, span, BIT(REF_NONE));
    bool change = (region->policy != REF_SHARED && ref_all_are(memory, span, CONVERTIBLE)) ||
                  (region->policy == REF_PRIVATE && ref_all_are(memory, span, BIT(REF_SHARED)));
    if (!fresh && !change) {
        bool alike = ref_all_are(memory, span, CONVERTIBLE);
        for (unsigned p = 0; p < REF_POLICIES; p++) {
            alike |= ref_all_are(memory, span, BIT(p));
        }
        return alike ? CLEAVE_POLICY : CLEAVE_EXISTS;
    }
    if (!fresh && region->policy == REF_PRIVATE && ref_all_are(memory, span, BIT(REF_SHARED)) &&
        (ref_pinned(ref, space, span.start, span.end) || ref_has_maps(ref, space, span))) {
        return CLEAVE_BUSY;
    }
    if (ref->commit) {
        ref_edit_pages(ref, memory, span, region->policy != REF_SHARED,
                       fresh ? edit_fresh : edit_policy, region);
    }
    return CLEAVE_OK;
}

static void edit_rights(struct ref *ref, struct ref_page *page, uint64_t n, const void *arg)
{
    (void)ref, (void)n;
    page->rights = *(const uint8_t *)arg;
}

enum cleave_status ref_protect(struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                               unsigned rights)
{
    enum cleave_status status = ref_range(ref, at, size);
    if (!status && (rights > 7 || (rights != 0 && !(rights & REF_READ)))) {
        status = CLEAVE_RIGHTS;
    }
    status = status ? status : ref_changeable(ref, space);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct ref_span span = ref_span_of(ref, at, size);
    if (!ref_all_are(memory, span, SOMETHING)) {
        return CLEAVE_NOT_MAPPED;
    }
    if (rights & REF_WRITE && ref_count_policies(memory, span, BIT(REF_READ_ONLY)) > 0) {
        return CLEAVE_RIGHTS;
    }
    if (rights == 0 && ref_count_policies(memory, span, BIT(REF_FOREIGN)) > 0) {
        return CLEAVE_POLICY;
    }
    if (ref->commit) {
        uint8_t set = (uint8_t)rights;
        ref_edit_pages(ref, memory, span, true, edit_rights, &set);
    }
    return CLEAVE_OK;
}

enum cleave_status ref_populate(struct ref *ref, unsigned space, uint64_t at, uint64_t size)
{
    enum cleave_status status = ref_changeable_range(ref, space, at, size);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct ref_span span = ref_span_of(ref, at, size);
    return ref_all_are(memory, span, FIRST_TOUCH | BIT(REF_PAGED)) ? CLEAVE_OK : CLEAVE_NOT_MAPPED;
}

enum cleave_status ref_map(struct ref *ref, unsigned space, uint64_t at, unsigned order,
                           const struct ref_region *region)
{
    if (order > 2) {
        return CLEAVE_ORDER;
    }
    uint64_t size = ref->page_size << (ref->fan_out * order);
    enum cleave_status status = ref_range(ref, at, size);
    if (!status && at % size != 0) {
        status = CLEAVE_ALIGN;
    }
    status = status ? status : region_check(region, FIRST_TOUCH);
    status = status ? status : ref_changeable(ref, space);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct ref_span span = ref_span_of(ref, at, size);
    if (!ref_all_are(memory, span, BIT(REF_NONE))) {
        return CLEAVE_EXISTS;
    }
    if (ref->commit) {
        ref_edit_pages(ref, memory, span, region->policy != REF_SHARED, edit_fresh, region);
    }
    return CLEAVE_OK;
}

static void edit_device(struct ref *ref, struct ref_page *page, uint64_t n, const void *arg)
{
    const struct ref_page *device = arg;
    (void)ref;

    *page = *device;
    page->backing += n;
}

enum cleave_status ref_map_device(struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                                  uint64_t frame, unsigned rights, bool refuse)
{
    enum cleave_status status = ref_range(ref, at, size);
    if (!status && (rights > 7 || !(rights & REF_READ))) {
        status = CLEAVE_RIGHTS;
    }
    status = status ? status : ref_changeable(ref, space);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct ref_span span = ref_span_of(ref, at, size);
    if (!ref_all_are(memory, span, BIT(REF_NONE))) {
        return CLEAVE_EXISTS;
    }
    if (ref->commit) {
        struct ref_page device = {
            .policy = REF_DEVICE, .rights = (uint8_t)rights, .backing = frame, .refuse = refuse};
        ref_edit_pages(ref, memory, span, false, edit_device, &device);
    }
    return CLEAVE_OK;
}

enum cleave_status ref_map_paged(struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                                 const struct ref_region *region,
                                 void (*content)(void *arg, uint64_t n, unsigned char *bytes),
                                 void *arg)
{
    enum cleave_status status = ref_range(ref, at, size);
    if (!status && (at | size) % (ref->page_size << (ref->fan_out * region->order)) != 0) {
        status = CLEAVE_ALIGN;
    }
    status = status ? status : region_check(region, BIT(REF_PAGED));
    status = status ? status : ref_changeable(ref, space);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct ref_span span = ref_span_of(ref, at, size);
    if (!ref_all_are(memory, span, BIT(REF_NONE))) {
        return CLEAVE_EXISTS;
    }
    if (ref->commit) {
        ref_edit_pages(ref, memory, span, false, edit_fresh, region);
        for (uint64_t n = 0; n < span.end - span.start; n++) {
            content(arg, n, ref_bytes_for_change(ref, ref_memory_page(memory, span.start + n)));
        }
    }
    return CLEAVE_OK;
}

void ref_edit_remove(struct ref *ref, struct ref_page *page, uint64_t n, const void *arg)
{
    (void)ref, (void)n, (void)arg;
    ref_cell_drop(page->cell);
    *page = (struct ref_page){0};
}

enum cleave_status ref_unmap(struct ref *ref, unsigned space, uint64_t at, uint64_t size)
{
    enum cleave_status status = ref_changeable_range(ref, space, at, size);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct ref_span span = ref_span_of(ref, at, size);
    if (ref_count_policies(memory, span, BIT(REF_FOREIGN)) > 0) {
        return CLEAVE_BUSY;
    }
    if (ref->commit) {
        ref_detach_maps(ref, space, span);
        ref_edit_pages(ref, memory, span, true, ref_edit_remove, NULL);
    }
    return CLEAVE_OK;
}

/* --- Accesses --------------------------------------------------------------------------------- */

enum cleave_status ref_access(const struct ref *ref, unsigned space, uint64_t page,
                              enum ref_access access)
{
    static const uint8_t need[] = {REF_READ, REF_WRITE, REF_EXEC};
    enum cleave_status status = ref_changeable(ref, space);

    if (status) {
        return status;
    }
    struct ref_page found = ref_memory_read(ref->space[space].memory, page);
    if (found.policy == REF_NONE || !(found.rights & need[access])) {
        return CLEAVE_FAULT;
    }
    if (found.policy == REF_FOREIGN) {
        const struct ref_map *map = ref_look_map(ref, space, page);
        if (!map) {
            return CLEAVE_FAULT;
        }
        if (access != REF_ACCESS_WRITE) {
            return CLEAVE_OK;
        }
        if (map->detached || ref->space[map->owner].life == REF_DYING) {
            return map->written ? CLEAVE_OK : CLEAVE_FAULT;
        }
        status = ref_access(ref, map->owner, map->at, access);
        return status == CLEAVE_OK || status == CLEAVE_WAIT ? status : CLEAVE_FAULT;
    }
    return access == REF_ACCESS_WRITE && ref_armed(ref, &found) ? CLEAVE_WAIT : CLEAVE_OK;
}

enum cleave_status ref_read(const struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                            uint64_t *done)
{
    *done = 0;
    if (ref->space[space].life == REF_UNUSED || ref->space[space].life == REF_DYING) {
        return CLEAVE_DYING;
    }
    while (*done < size) {
        uint64_t offset = (at + *done) % ref->page_size;
        uint64_t step = ref->page_size - offset;
        struct ref_page page =
            ref_memory_read(ref->space[space].memory, (at + *done) / ref->page_size);
        bool gone =
            page.policy == REF_FOREIGN && !ref_look_map(ref, space, (at + *done) / ref->page_size);
        bool denied = page.policy == REF_NONE || !(page.rights & REF_READ);
        if (denied || page.policy == REF_DEVICE || gone) {
            return CLEAVE_FAULT;
        }
        *done += step < size - *done ? step : size - *done;
    }
    return CLEAVE_OK;
}

/* The hypervisor's own write: as a guest's, but it does not reach devices. */
static enum cleave_status write_access(const struct ref *ref, unsigned space, uint64_t page)
{
    enum cleave_status status = ref_access(ref, space, page, REF_ACCESS_WRITE);
    bool device = !status && ref_memory_read(ref->space[space].memory, page).policy == REF_DEVICE;
    return device ? CLEAVE_FAULT : status;
}

/* What was written through may be written to when its owner has given it up. */
static void write_through(struct ref *ref, unsigned space, uint64_t page)
{
    struct ref_map *map = ref_map_at(ref, space, page);
    if (ref->commit && map) {
        map->written = true;
    }
}

enum cleave_status ref_write(struct ref *ref, unsigned space, uint64_t at, const void *from,
                             uint64_t size, uint64_t *done)
{
    *done = 0;
    while (*done < size) {
        uint64_t page = (at + *done) / ref->page_size;
        uint64_t offset = (at + *done) % ref->page_size;
        uint64_t step = ref->page_size - offset;
        enum cleave_status status = write_access(ref, space, page);
        if (status) {
            return status;
        }
        step = step < size - *done ? step : size - *done;
        write_through(ref, space, page);
        if (ref->commit && offset < ref->page_bytes) {
            uint64_t kept = ref->page_bytes - offset;
            struct ref_page *to = ref_backing(ref, space, page);
            memcpy(ref_bytes_for_change(ref, to) + offset, (const char *)from + *done,
                   step < kept ? step : kept);
        }
        *done += step;
    }
    return CLEAVE_OK;
}

enum cleave_status ref_make_exclusive(struct ref *ref, unsigned space, uint64_t start, uint64_t end)
{
    for (uint64_t page = start; page < end; page++) {
        enum cleave_status status = write_access(ref, space, page);
        if (status) {
            return status;
        }
        write_through(ref, space, page);
    }
    return CLEAVE_OK;
}

/* --- Forks ------------------------------------------------------------------------------------ */

static bool refuses_fork(const struct ref *ref, const struct ref_chunk *memory)
{
    for (uint64_t c = 0; c < ref->pages / REF_CHUNK; c++) {
        for (unsigned i = 0; memory[c].each && i < REF_CHUNK; i++) {
            if (memory[c].each[i].refuse) {
                return true;
            }
        }
    }
    return false;
}

enum cleave_status ref_fork(struct ref *ref, unsigned parent, const unsigned *child, uint64_t count,
                            uint64_t limit, bool base)
{
    const struct ref_space *from = &ref->space[parent];

    if (count == 0 || count > limit) {
        return CLEAVE_COUNT;
    }
    if (from->life != REF_ALIVE && from->life != REF_FROZEN) {
        return CLEAVE_DYING;
    }
    if (refuses_fork(ref, from->memory)) {
        return CLEAVE_DEVICE;
    }
    for (uint64_t i = 0; ref->commit && i < count; i++) {
        bool resettable = base || from->life == REF_FROZEN;
        space_begin(ref, child[i], REF_ALIVE, ref_memory_forked(ref, from->memory),
                    resettable ? ref_memory_forked(ref, from->memory) : NULL);
    }
    return CLEAVE_OK;
}

enum cleave_status ref_snapshot(struct ref *ref, unsigned space, unsigned child)
{
    const struct ref_space *from = &ref->space[space];

    if (from->life != REF_ALIVE && from->life != REF_FROZEN) {
        return CLEAVE_DYING;
    }
    if (refuses_fork(ref, from->memory)) {
        return CLEAVE_DEVICE;
    }
    if (ref->commit) {
        space_begin(ref, child, REF_FROZEN, ref_memory_forked(ref, from->memory), NULL);
    }
    return CLEAVE_OK;
}

enum cleave_status ref_reset(struct ref *ref, unsigned space)
{
    struct ref_space *which = &ref->space[space];
    enum cleave_status status = ref_changeable(ref, space);

    if (status) {
        return status;
    }
    if (!which->base) {
        return CLEAVE_NO_BASE;
    }
    if (ref_pinned(ref, space, 0, ref->pages) ||
        ref_has_maps(ref, space, (struct ref_span){0, ref->pages})) {
        return CLEAVE_BUSY;
    }
    if (ref->commit) {
        ref_forget_maps(ref, space);
        ref_memory_free(ref, which->memory);
        which->memory = ref_memory_forked(ref, which->base);
    }
    return CLEAVE_OK;
}

enum ref_answer ref_differs(const struct ref *ref, unsigned a, unsigned b, uint64_t page)
{
    struct ref_page x = ref_page(ref, a, page);
    struct ref_page y = ref_page(ref, b, page);
    unsigned policies = BIT(x.policy) | BIT(y.policy);

    if (policies & (BIT(REF_DEVICE) | BIT(REF_FOREIGN))) {
        return REF_EITHER;
    }
    if ((x.policy == REF_NONE) != (y.policy == REF_NONE)) {
        return REF_YES;
    }
    if (memcmp(ref_bytes(ref, &x), ref_bytes(ref, &y), ref->page_bytes) != 0) {
        return REF_YES;
    }
    return policies & BIT(REF_PAGED) ? REF_EITHER : REF_NO;
}

enum cleave_status ref_move(struct ref *ref, unsigned space, uint64_t from, uint64_t to,
                            uint64_t size)
{
    enum cleave_status status = ref_range(ref, from, size);
    status = status ? status : ref_range(ref, to, size);
    if (!status && from < to + size && to < from + size) {
        status = CLEAVE_OVERLAP;
    }
    status = status ? status : ref_changeable(ref, space);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct ref_span source = ref_span_of(ref, from, size);
    struct ref_span target = ref_span_of(ref, to, size);
    if (!ref_all_are(memory, target, BIT(REF_NONE))) {
        return CLEAVE_EXISTS;
    }
    for (uint64_t p = source.start; p < source.end; p++) {
        struct ref_page page = ref_memory_read(memory, p);
        if (page.policy == REF_NONE || page.policy == REF_FOREIGN) {
            return page.policy == REF_NONE ? CLEAVE_NOT_MAPPED : CLEAVE_POLICY;
        }
    }
    for (unsigned i = 0; i < REF_MAPS; i++) {
        const struct ref_map *map = &ref->map[i];
        if (map->live && !map->detached && map->owner == space && map->at >= source.start &&
            map->at < source.end) {
            return CLEAVE_BUSY;
        }
    }
    if (ref_pinned(ref, space, source.start, source.end)) {
        return CLEAVE_BUSY;
    }
    for (uint64_t n = 0; ref->commit && n < source.end - source.start; n++) {
        struct ref_page *page = ref_memory_page(memory, source.start + n);
        *ref_memory_page(memory, target.start + n) = *page;
        *page = (struct ref_page){0};
    }
    return CLEAVE_OK;
}
