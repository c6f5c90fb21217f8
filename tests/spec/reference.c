/* SPDX-License-Identifier: BSD-2-Clause */
/* The naive reference: everything is copied, nothing is clever. One thread uses it. */
#include "reference.h"

#include <stdlib.h>
#include <string.h>

/* Pages from the first to one past the last. */
struct span {
    uint64_t start, end;
};

static void *allocate(size_t size)
{
    void *memory = calloc(1, size);
    if (!memory) {
        abort();
    }
    return memory;
}

/* --- Cells ------------------------------------------------------------------------------------ */

static struct ref_cell *cell_new(const struct ref *ref, const unsigned char *bytes)
{
    struct ref_cell *cell = allocate(sizeof(*cell) + ref->page_bytes);
    cell->holders = 1;
    if (bytes) {
        memcpy(cell->bytes, bytes, ref->page_bytes);
    }
    return cell;
}

static struct ref_cell *cell_hold(struct ref_cell *cell)
{
    if (cell) {
        cell->holders++;
    }
    return cell;
}

static void cell_drop(struct ref_cell *cell)
{
    if (cell && --cell->holders == 0) {
        free(cell);
    }
}

static const unsigned char *cell_bytes(const struct ref *ref, const struct ref_cell *cell)
{
    static unsigned char zeros[4096];
    (void)ref;
    return cell ? cell->bytes : zeros;
}

/* --- Memory ----------------------------------------------------------------------------------- */

static struct ref_chunk *memory_new(const struct ref *ref)
{
    return allocate(ref->pages / REF_CHUNK * sizeof(struct ref_chunk));
}

static void memory_free(const struct ref *ref, struct ref_chunk *memory)
{
    for (uint64_t c = 0; memory && c < ref->pages / REF_CHUNK; c++) {
        for (unsigned i = 0; memory[c].each && i < REF_CHUNK; i++) {
            cell_drop(memory[c].each[i].cell);
        }
        free(memory[c].each);
    }
    free(memory);
}

static struct ref_page *memory_page(struct ref_chunk *memory, uint64_t page)
{
    struct ref_chunk *chunk = &memory[page / REF_CHUNK];

    if (!chunk->each) {
        chunk->each = allocate(REF_CHUNK * sizeof(struct ref_page));
        for (unsigned i = 0; i < REF_CHUNK; i++) {
            chunk->each[i] = chunk->all;
        }
    }
    return &chunk->each[page % REF_CHUNK];
}

static struct ref_page memory_read(const struct ref_chunk *memory, uint64_t page)
{
    const struct ref_chunk *chunk = &memory[page / REF_CHUNK];
    return chunk->each ? chunk->each[page % REF_CHUNK] : chunk->all;
}

/* What a fork's page is, by the table of policies. */
static struct ref_page page_forked(const struct ref *ref, struct ref_page page)
{
    static const struct ref_page nothing;

    page.told = false;
    switch ((enum ref_policy)page.policy) {
    case REF_NONE:
    case REF_ABSENT:
    case REF_DEVICE:
    case REF_FOREIGN:
    case REF_POLICIES:
        return nothing;
    case REF_WIPE:
        page.cell = NULL;
        break;
    case REF_SHARED:
        page.cell = cell_hold(page.cell);
        break;
    case REF_PRIVATE:
    case REF_READ_ONLY:
    case REF_PAGED:
        page.cell = page.cell ? cell_new(ref, page.cell->bytes) : NULL;
        break;
    }
    return page;
}

static struct ref_chunk *memory_forked(const struct ref *ref, const struct ref_chunk *memory)
{
    struct ref_chunk *copy = memory_new(ref);

    for (uint64_t c = 0; c < ref->pages / REF_CHUNK; c++) {
        if (!memory[c].each) {
            copy[c].all = page_forked(ref, memory[c].all);
            continue;
        }
        copy[c].each = allocate(REF_CHUNK * sizeof(struct ref_page));
        for (unsigned i = 0; i < REF_CHUNK; i++) {
            copy[c].each[i] = page_forked(ref, memory[c].each[i]);
        }
    }
    return copy;
}

typedef void page_edit(struct ref *ref, struct ref_page *page, uint64_t n, const void *arg);

/* Applies `edit` to every page of the range; `n` counts pages from its start. An edit that does not
 * look at `n` or make cells may treat pages that are all alike as one (`alike`). */
static void edit_pages(struct ref *ref, struct ref_chunk *memory, struct span span, bool alike,
                       page_edit *edit, const void *arg)
{
    for (uint64_t at = span.start; at < span.end;) {
        struct ref_chunk *chunk = &memory[at / REF_CHUNK];
        if (alike && !chunk->each && at % REF_CHUNK == 0 && span.end - at >= REF_CHUNK) {
            edit(ref, &chunk->all, at - span.start, arg);
            at += REF_CHUNK;
        } else {
            edit(ref, memory_page(memory, at), at - span.start, arg);
            at++;
        }
    }
}

/* Number of the pages in the range whose policy is in the set of bits `policies`. */
static uint64_t count_policies(const struct ref_chunk *memory, struct span span, unsigned policies)
{
    uint64_t count = 0;

    for (uint64_t at = span.start; at < span.end;) {
        const struct ref_chunk *chunk = &memory[at / REF_CHUNK];
        bool whole = !chunk->each && at % REF_CHUNK == 0 && span.end - at >= REF_CHUNK;
        uint64_t step = whole ? REF_CHUNK : 1;
        if (policies >> memory_read(memory, at).policy & 1) {
            count += step;
        }
        at += step;
    }
    return count;
}

static bool all_are(const struct ref_chunk *memory, struct span span, unsigned policies)
{
    return count_policies(memory, span, policies) == span.end - span.start;
}

static struct span span_of(const struct ref *ref, uint64_t at, uint64_t size)
{
    return (struct span){at / ref->page_size, (at + size) / ref->page_size};
}

/* --- The world -------------------------------------------------------------------------------- */

struct ref *ref_new(uint64_t page_size, uint64_t page_bytes, uint64_t guest_pages, uint64_t pages,
                    unsigned fan_out)
{
    struct ref *ref = allocate(sizeof(*ref));
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

static const struct ref_map *map_at(const struct ref *ref, unsigned mapper, uint64_t to)
{
    return ref_map_at((struct ref *)(uintptr_t)ref, mapper, to);
}

/* The pages are about to go: maps of them keep their content. */
static void detach_maps(struct ref *ref, unsigned owner, struct span span)
{
    for (unsigned i = 0; i < REF_MAPS; i++) {
        struct ref_map *map = &ref->map[i];
        if (map->live && !map->detached && map->owner == owner && map->at >= span.start &&
            map->at < span.end) {
            struct ref_page *page = memory_page(ref->space[map->mapper].memory, map->to);
            page->cell = cell_hold(memory_read(ref->space[owner].memory, map->at).cell);
            map->detached = true;
        }
    }
}

/* All maps that a space has of others are gone. */
static void forget_maps(struct ref *ref, unsigned mapper)
{
    for (unsigned i = 0; i < REF_MAPS; i++) {
        if (ref->map[i].mapper == mapper) {
            ref->map[i].live = false;
        }
    }
}

static bool has_maps(const struct ref *ref, unsigned owner, struct span span)
{
    bool found = false;
    for (unsigned i = 0; i < REF_MAPS; i++) {
        const struct ref_map *map = &ref->map[i];
        found |= map->live && map->owner == owner && map->at >= span.start && map->at < span.end;
    }
    return found;
}

/* Where the content of a page is kept: with its owner, for a foreign map. */
static struct ref_page *backing(struct ref *ref, unsigned space, uint64_t page)
{
    const struct ref_map *map = map_at(ref, space, page);
    return map && !map->detached ? memory_page(ref->space[map->owner].memory, map->at)
                                 : memory_page(ref->space[space].memory, page);
}

struct ref_page ref_page(const struct ref *ref, unsigned space, uint64_t page)
{
    struct ref_page found = memory_read(ref->space[space].memory, page);
    const struct ref_map *map =
        found.policy == REF_FOREIGN ? map_at(ref, space, page) : NULL;

    if (map && !map->detached) {
        found.cell = memory_read(ref->space[map->owner].memory, map->at).cell;
    }
    return found;
}

const unsigned char *ref_bytes(const struct ref *ref, const struct ref_page *page)
{
    return cell_bytes(ref, page->cell);
}

struct ref_page *ref_page_for_change(struct ref *ref, unsigned space, uint64_t page)
{
    return memory_page(ref->space[space].memory, page);
}

unsigned char *ref_bytes_for_change(struct ref *ref, struct ref_page *page)
{
    if (!page->cell) {
        page->cell = cell_new(ref, NULL);
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
static enum cleave_status changeable(const struct ref *ref, unsigned space)
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

static enum cleave_status changeable_range(const struct ref *ref, unsigned space, uint64_t at,
                                           uint64_t size)
{
    enum cleave_status status = ref_range(ref, at, size);
    return status ? status : changeable(ref, space);
}

static void space_begin(struct ref *ref, unsigned space, enum ref_life life,
                        struct ref_chunk *memory, struct ref_chunk *base)
{
    ref->space[space] = (struct ref_space){life, memory, base};
}

enum cleave_status ref_create(struct ref *ref, unsigned space)
{
    if (ref->commit) {
        space_begin(ref, space, REF_ALIVE, memory_new(ref), NULL);
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
    forget_maps(ref, space);
    memory_free(ref, ref->space[space].memory);
    memory_free(ref, ref->space[space].base);
    ref->space[space] = (struct ref_space){REF_UNUSED, NULL, NULL};
}

/* --- Regions and mapping ---------------------------------------------------------------------- */

#define BIT(policy) (1u << (policy))
#define CONVERTIBLE (BIT(REF_PRIVATE) | BIT(REF_READ_ONLY) | BIT(REF_WIPE) | BIT(REF_ABSENT))
#define FIRST_TOUCH (CONVERTIBLE | BIT(REF_SHARED))
#define SOMETHING (BIT(REF_POLICIES) - 1 - BIT(REF_NONE))

static enum cleave_status region_check(const struct ref_region *region, unsigned policies)
{
    if (region->policy >= REF_POLICIES || !(policies >> region->policy & 1)) {
        return CLEAVE_POLICY;
    }
    if (region->rights > 7 || !(region->rights & REF_READ) ||
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
        page->cell = cell_new(ref, NULL);
    }
}

static void edit_policy(struct ref *ref, struct ref_page *page, uint64_t n, const void *arg)
{
    const struct ref_region *region = arg;
    (void)n;

    if (page->policy == REF_SHARED && region->policy != REF_SHARED) {
        struct ref_cell *own = cell_new(ref, page->cell->bytes);
        cell_drop(page->cell);
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
    status = status ? status : changeable(ref, space);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct span span = span_of(ref, at, size);
    bool fresh = all_are(memory, span, BIT(REF_NONE));
    bool change = (region->policy != REF_SHARED && all_are(memory, span, CONVERTIBLE)) ||
                  (region->policy == REF_PRIVATE && all_are(memory, span, BIT(REF_SHARED)));
    if (!fresh && !change) {
        bool alike = all_are(memory, span, CONVERTIBLE);
        for (unsigned p = 0; p < REF_POLICIES; p++) {
            alike |= all_are(memory, span, BIT(p));
        }
        return alike ? CLEAVE_POLICY : CLEAVE_EXISTS;
    }
    if (!fresh && region->policy == REF_PRIVATE && all_are(memory, span, BIT(REF_SHARED)) &&
        (ref_pinned(ref, space, span.start, span.end) || has_maps(ref, space, span))) {
        return CLEAVE_BUSY;
    }
    if (ref->commit) {
        edit_pages(ref, memory, span, region->policy != REF_SHARED,
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
    if (!status && (rights > 7 || !(rights & REF_READ))) {
        status = CLEAVE_RIGHTS;
    }
    status = status ? status : changeable(ref, space);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct span span = span_of(ref, at, size);
    if (!all_are(memory, span, SOMETHING)) {
        return CLEAVE_NOT_MAPPED;
    }
    if (rights & REF_WRITE && count_policies(memory, span, BIT(REF_READ_ONLY)) > 0) {
        return CLEAVE_RIGHTS;
    }
    if (ref->commit) {
        uint8_t set = (uint8_t)rights;
        edit_pages(ref, memory, span, true, edit_rights, &set);
    }
    return CLEAVE_OK;
}

enum cleave_status ref_populate(struct ref *ref, unsigned space, uint64_t at, uint64_t size)
{
    enum cleave_status status = changeable_range(ref, space, at, size);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct span span = span_of(ref, at, size);
    return all_are(memory, span, FIRST_TOUCH | BIT(REF_PAGED)) ? CLEAVE_OK : CLEAVE_NOT_MAPPED;
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
    status = status ? status : changeable(ref, space);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct span span = span_of(ref, at, size);
    if (!all_are(memory, span, BIT(REF_NONE))) {
        return CLEAVE_EXISTS;
    }
    if (ref->commit) {
        edit_pages(ref, memory, span, region->policy != REF_SHARED, edit_fresh, region);
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
    status = status ? status : changeable(ref, space);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct span span = span_of(ref, at, size);
    if (!all_are(memory, span, BIT(REF_NONE))) {
        return CLEAVE_EXISTS;
    }
    if (ref->commit) {
        struct ref_page device = {.policy = REF_DEVICE,
                                  .rights = (uint8_t)rights,
                                  .backing = frame,
                                  .refuse = refuse};
        edit_pages(ref, memory, span, false, edit_device, &device);
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
    status = status ? status : changeable(ref, space);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct span span = span_of(ref, at, size);
    if (!all_are(memory, span, BIT(REF_NONE))) {
        return CLEAVE_EXISTS;
    }
    if (ref->commit) {
        edit_pages(ref, memory, span, false, edit_fresh, region);
        for (uint64_t n = 0; n < span.end - span.start; n++) {
            content(arg, n, ref_bytes_for_change(ref, memory_page(memory, span.start + n)));
        }
    }
    return CLEAVE_OK;
}

static void edit_remove(struct ref *ref, struct ref_page *page, uint64_t n, const void *arg)
{
    (void)ref, (void)n, (void)arg;
    cell_drop(page->cell);
    *page = (struct ref_page){0};
}

enum cleave_status ref_unmap(struct ref *ref, unsigned space, uint64_t at, uint64_t size)
{
    enum cleave_status status = changeable_range(ref, space, at, size);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct span span = span_of(ref, at, size);
    if (count_policies(memory, span, BIT(REF_FOREIGN)) > 0) {
        return CLEAVE_BUSY;
    }
    if (ref->commit) {
        detach_maps(ref, space, span);
        edit_pages(ref, memory, span, true, edit_remove, NULL);
    }
    return CLEAVE_OK;
}

/* --- Accesses --------------------------------------------------------------------------------- */

enum cleave_status ref_access(const struct ref *ref, unsigned space, uint64_t page,
                              enum ref_access access)
{
    static const uint8_t need[] = {REF_READ, REF_WRITE, REF_EXEC};
    enum cleave_status status = changeable(ref, space);

    if (status) {
        return status;
    }
    struct ref_page found = memory_read(ref->space[space].memory, page);
    if (found.policy == REF_NONE || !(found.rights & need[access])) {
        return CLEAVE_FAULT;
    }
    if (found.policy == REF_FOREIGN) {
        const struct ref_map *map = map_at(ref, space, page);
        if (!map) {
            return CLEAVE_FAULT;
        }
        if (access != REF_ACCESS_WRITE) {
            return CLEAVE_OK;
        }
        if (map->detached) {
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
            memory_read(ref->space[space].memory, (at + *done) / ref->page_size);
        bool gone = page.policy == REF_FOREIGN &&
                    !map_at(ref, space, (at + *done) / ref->page_size);
        if (page.policy == REF_NONE || page.policy == REF_DEVICE || gone) {
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
    bool device = !status && memory_read(ref->space[space].memory, page).policy == REF_DEVICE;
    return device ? CLEAVE_FAULT : status;
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
        if (ref->commit && offset < ref->page_bytes) {
            uint64_t kept = ref->page_bytes - offset;
            struct ref_page *to = backing(ref, space, page);
            struct ref_map *map = ref_map_at(ref, space, page);
            if (map) {
                map->written = true;
            }
            memcpy(ref_bytes_for_change(ref, to) + offset, (const char *)from + *done,
                   step < kept ? step : kept);
        }
        *done += step;
    }
    return CLEAVE_OK;
}

enum cleave_status ref_make_exclusive(const struct ref *ref, unsigned space, uint64_t start,
                                      uint64_t end)
{
    for (uint64_t page = start; page < end; page++) {
        enum cleave_status status = write_access(ref, space, page);
        if (status) {
            return status;
        }
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

enum cleave_status ref_fork(struct ref *ref, unsigned parent, const unsigned *child,
                            uint64_t count, uint64_t limit, bool base)
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
        space_begin(ref, child[i], REF_ALIVE, memory_forked(ref, from->memory),
                    resettable ? memory_forked(ref, from->memory) : NULL);
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
        space_begin(ref, child, REF_FROZEN, memory_forked(ref, from->memory), NULL);
    }
    return CLEAVE_OK;
}

enum cleave_status ref_reset(struct ref *ref, unsigned space)
{
    struct ref_space *which = &ref->space[space];
    enum cleave_status status = changeable(ref, space);

    if (status) {
        return status;
    }
    if (!which->base) {
        return CLEAVE_NO_BASE;
    }
    if (ref_pinned(ref, space, 0, ref->pages) || has_maps(ref, space, (struct span){0, ref->pages})) {
        return CLEAVE_BUSY;
    }
    if (ref->commit) {
        forget_maps(ref, space);
        memory_free(ref, which->memory);
        which->memory = memory_forked(ref, which->base);
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
    status = status ? status : changeable(ref, space);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct span source = span_of(ref, from, size);
    struct span target = span_of(ref, to, size);
    if (!all_are(memory, target, BIT(REF_NONE))) {
        return CLEAVE_EXISTS;
    }
    for (uint64_t p = source.start; p < source.end; p++) {
        struct ref_page page = memory_read(memory, p);
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
        struct ref_page *page = memory_page(memory, source.start + n);
        *memory_page(memory, target.start + n) = *page;
        *page = (struct ref_page){0};
    }
    return CLEAVE_OK;
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

/* What a pin of one page answers. */
static enum cleave_status pin_page(const struct ref *ref, unsigned space, uint64_t at, bool write)
{
    enum cleave_status status = changeable(ref, space);
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
    struct span span = span_of(ref, at, size);

    for (uint64_t p = span.start; !status && p < span.end; p++) {
        status = pin_page(ref, space, p, write);
    }
    if (!status && ref->commit) {
        struct ref_pin *made = &ref->pin[pin];
        *made = (struct ref_pin){true, write, space, span.start, span.end, NULL};
        made->cell = allocate((span.end - span.start) * sizeof(struct ref_cell *));
        for (uint64_t p = span.start; p < span.end; p++) {
            struct ref_page *page = memory_page(ref->space[space].memory, p);
            (void)ref_bytes_for_change(ref, page);
            made->cell[p - span.start] = cell_hold(page->cell);
        }
    }
    return status;
}

void ref_unpin(struct ref *ref, unsigned pin)
{
    struct ref_pin *gone = &ref->pin[pin];

    for (uint64_t i = 0; i < gone->end - gone->start; i++) {
        cell_drop(gone->cell[i]);
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
    status = status ? status : changeable(ref, owner);
    status = status ? status : changeable(ref, mapper);
    if (status) {
        return status;
    }
    uint64_t page = at / ref->page_size;
    struct ref_page from = ref_page(ref, owner, page);
    struct ref_page *map = memory_page(ref->space[mapper].memory, to / ref->page_size);
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
        ref->map[i] = (struct ref_map){.live = true,
                                       .owner = owner,
                                       .mapper = mapper,
                                       .at = page,
                                       .to = to / ref->page_size};
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
                                ? memory_page(ref->space[mapper].memory, to / ref->page_size)
                                : NULL;
    if (!page || page->policy != REF_FOREIGN) {
        return CLEAVE_NOT_MAPPED;
    }
    status = changeable(ref, mapper);
    if (!status && ref->commit) {
        struct ref_map *map = ref_map_at(ref, mapper, to / ref->page_size);
        edit_remove(ref, page, 0, NULL);
        if (map) {
            map->live = false;
        }
    }
    return status;
}

void ref_map_taken(struct ref *ref, struct ref_map *map, bool region)
{
    struct ref_page *page = memory_page(ref->space[map->mapper].memory, map->to);
    struct ref_page kept = *page;

    map->live = false;
    edit_remove(ref, page, 0, NULL);
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
                               struct span span, unsigned channel, bool other)
{
    uint64_t count = 0;

    for (uint64_t at = span.start; at < span.end; at++) {
        struct ref_page page = memory_read(memory, at);
        bool own = page.channel == channel + 1;
        count += page.channel != 0 && own != other && ref->channel[page.channel - 1];
    }
    return count;
}

enum cleave_status ref_arm(struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                           unsigned channel)
{
    enum cleave_status status = changeable_range(ref, space, at, size);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct span span = span_of(ref, at, size);
    for (uint64_t p = span.start; p < span.end; p++) {
        struct span one = {p, p + 1};
        if (count_policies(memory, one, BIT(REF_NONE)) > 0) {
            return CLEAVE_NOT_MAPPED;
        }
        if (!all_are(memory, one, BIT(REF_PRIVATE) | BIT(REF_SHARED))) {
            return CLEAVE_POLICY;
        }
        if (count_notified(ref, memory, one, channel, true) > 0) {
            return CLEAVE_EXISTS;
        }
    }
    if (ref->commit) {
        struct notice notice = {(uint16_t)(channel + 1)};
        edit_pages(ref, memory, span, true, edit_arm, &notice);
    }
    return CLEAVE_OK;
}

/* Rearm and disarm are alike but for what they do to a page. */
static enum cleave_status change_notified(struct ref *ref, unsigned space, uint64_t at,
                                          uint64_t size, unsigned channel, uint64_t grain,
                                          page_edit *edit)
{
    enum cleave_status status = changeable_range(ref, space, at, size);
    if (status) {
        return status;
    }
    struct ref_chunk *memory = ref->space[space].memory;
    struct span span = span_of(ref, at, size);
    if (count_notified(ref, memory, span, channel, false) == 0) {
        return CLEAVE_NOT_MAPPED;
    }
    if (ref->commit) {
        struct notice notice = {(uint16_t)(channel + 1)};
        span.start = span.start / grain * grain;
        span.end = (span.end + grain - 1) / grain * grain;
        edit_pages(ref, memory, span, true, edit, &notice);
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
    edit_pages(ref, ref->space[space].memory, (struct span){start, end}, true, edit_allow,
               &notice);
}

uint64_t ref_dirty(const struct ref *ref, unsigned channel, uint64_t grain)
{
    uint64_t count = 0;

    for (unsigned s = 0; s < REF_SPACES; s++) {
        uint64_t last = UINT64_MAX;
        bool counts = ref->space[s].life == REF_ALIVE || ref->space[s].life == REF_FROZEN;
        for (uint64_t at = 0; counts && at < ref->pages;
             at = ref_next_change(ref, s, at + 1)) {
            struct ref_page page = ref_page(ref, s, at);
            if (page.told && page.channel == channel + 1 && at / grain != last) {
                last = at / grain;
                count++;
            }
        }
    }
    return count;
}
