/* SPDX-License-Identifier: BSD-2-Clause */
/* The reference's memory: lists of pages and what is in them. One thread uses it. */
#include "reference_memory.h"

#include <stdlib.h>
#include <string.h>

void *ref_allocate(size_t size)
{
    void *memory = calloc(1, size);
    if (!memory) {
        abort();
    }
    return memory;
}

/* --- Cells ------------------------------------------------------------------------------------ */

struct ref_cell *ref_cell_new(const struct ref *ref, const unsigned char *bytes)
{
    struct ref_cell *cell = ref_allocate(sizeof(*cell) + ref->page_bytes);
    cell->holders = 1;
    if (bytes) {
        memcpy(cell->bytes, bytes, ref->page_bytes);
    }
    return cell;
}

struct ref_cell *ref_cell_hold(struct ref_cell *cell)
{
    if (cell) {
        cell->holders++;
    }
    return cell;
}

void ref_cell_drop(struct ref_cell *cell)
{
    if (cell && --cell->holders == 0) {
        free(cell);
    }
}

const unsigned char *ref_cell_bytes(const struct ref *ref, const struct ref_cell *cell)
{
    static unsigned char zeros[4096];
    (void)ref;
    return cell ? cell->bytes : zeros;
}

/* --- Memory ----------------------------------------------------------------------------------- */

struct ref_chunk *ref_memory_new(const struct ref *ref)
{
    return ref_allocate(ref->pages / REF_CHUNK * sizeof(struct ref_chunk));
}

void ref_memory_free(const struct ref *ref, struct ref_chunk *memory)
{
    for (uint64_t c = 0; memory && c < ref->pages / REF_CHUNK; c++) {
        for (unsigned i = 0; memory[c].each && i < REF_CHUNK; i++) {
            ref_cell_drop(memory[c].each[i].cell);
        }
        free(memory[c].each);
    }
    free(memory);
}

struct ref_page *ref_memory_page(struct ref_chunk *memory, uint64_t page)
{
    struct ref_chunk *chunk = &memory[page / REF_CHUNK];

    if (!chunk->each) {
        chunk->each = ref_allocate(REF_CHUNK * sizeof(struct ref_page));
        for (unsigned i = 0; i < REF_CHUNK; i++) {
            chunk->each[i] = chunk->all;
        }
    }
    return &chunk->each[page % REF_CHUNK];
}

struct ref_page ref_memory_read(const struct ref_chunk *memory, uint64_t page)
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
        page.cell = ref_cell_hold(page.cell);
        break;
    case REF_PRIVATE:
    case REF_READ_ONLY:
    case REF_PAGED:
        page.cell = page.cell ? ref_cell_new(ref, page.cell->bytes) : NULL;
        break;
    }
    return page;
}

struct ref_chunk *ref_memory_forked(const struct ref *ref, const struct ref_chunk *memory)
{
    struct ref_chunk *copy = ref_memory_new(ref);

    for (uint64_t c = 0; c < ref->pages / REF_CHUNK; c++) {
        if (!memory[c].each) {
            copy[c].all = page_forked(ref, memory[c].all);
            continue;
        }
        copy[c].each = ref_allocate(REF_CHUNK * sizeof(struct ref_page));
        for (unsigned i = 0; i < REF_CHUNK; i++) {
            copy[c].each[i] = page_forked(ref, memory[c].each[i]);
        }
    }
    return copy;
}

/* Applies `edit` to every page of the range; `n` counts pages from its start. An edit that does not
 * look at `n` or make cells may treat pages that are all alike as one (`alike`). */
void ref_edit_pages(struct ref *ref, struct ref_chunk *memory, struct ref_span span, bool alike,
                    ref_page_edit *edit, const void *arg)
{
    for (uint64_t at = span.start; at < span.end;) {
        struct ref_chunk *chunk = &memory[at / REF_CHUNK];
        if (alike && !chunk->each && at % REF_CHUNK == 0 && span.end - at >= REF_CHUNK) {
            edit(ref, &chunk->all, at - span.start, arg);
            at += REF_CHUNK;
        } else {
            edit(ref, ref_memory_page(memory, at), at - span.start, arg);
            at++;
        }
    }
}

/* Number of the pages in the range whose policy is in the set of bits `policies`. */
uint64_t ref_count_policies(const struct ref_chunk *memory, struct ref_span span, unsigned policies)
{
    uint64_t count = 0;

    for (uint64_t at = span.start; at < span.end;) {
        const struct ref_chunk *chunk = &memory[at / REF_CHUNK];
        bool whole = !chunk->each && at % REF_CHUNK == 0 && span.end - at >= REF_CHUNK;
        uint64_t step = whole ? REF_CHUNK : 1;
        if (policies >> ref_memory_read(memory, at).policy & 1) {
            count += step;
        }
        at += step;
    }
    return count;
}

bool ref_all_are(const struct ref_chunk *memory, struct ref_span span, unsigned policies)
{
    return ref_count_policies(memory, span, policies) == span.end - span.start;
}

struct ref_span ref_span_of(const struct ref *ref, uint64_t at, uint64_t size)
{
    return (struct ref_span){at / ref->page_size, (at + size) / ref->page_size};
}
