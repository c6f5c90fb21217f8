/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the reference share. */
#ifndef REFERENCE_MEMORY_H
#define REFERENCE_MEMORY_H

#include "reference.h"

/* Pages from the first to one past the last. */
struct ref_span {
    uint64_t start, end;
};

/* Sets of policies. */
#define BIT(policy) (1u << (policy))
#define CONVERTIBLE (BIT(REF_PRIVATE) | BIT(REF_READ_ONLY) | BIT(REF_WIPE) | BIT(REF_ABSENT))
#define FIRST_TOUCH (CONVERTIBLE | BIT(REF_SHARED))
#define SOMETHING (BIT(REF_POLICIES) - 1 - BIT(REF_NONE))

/* Zeroed memory; ends the process where there is none. */
void *ref_allocate(size_t size);

/* A cell with these bytes, or zeros for null; one more holder of a cell, or one less. Null is no
 * cell. */
struct ref_cell *ref_cell_new(const struct ref *ref, const unsigned char *bytes);
struct ref_cell *ref_cell_hold(struct ref_cell *cell);
void ref_cell_drop(struct ref_cell *cell);
const unsigned char *ref_cell_bytes(const struct ref *ref, const struct ref_cell *cell);

struct ref_chunk *ref_memory_new(const struct ref *ref);
void ref_memory_free(const struct ref *ref, struct ref_chunk *memory);
struct ref_page *ref_memory_page(struct ref_chunk *memory, uint64_t page);
struct ref_page ref_memory_read(const struct ref_chunk *memory, uint64_t page);
/* A deep copy, as a fork gets it. */
struct ref_chunk *ref_memory_forked(const struct ref *ref, const struct ref_chunk *memory);

/* Applied to pages of a range; `n` counts them from its start. */
typedef void ref_page_edit(struct ref *ref, struct ref_page *page, uint64_t n, const void *arg);
/* An edit that does not look at `n` or make cells may treat pages that are all alike as one. */
void ref_edit_pages(struct ref *ref, struct ref_chunk *memory, struct ref_span span, bool alike,
                    ref_page_edit *edit, const void *arg);
/* The page is nothing any more. */
void ref_edit_remove(struct ref *ref, struct ref_page *page, uint64_t n, const void *arg);
/* Number of the pages in the range whose policy is in the set. */
uint64_t ref_count_policies(const struct ref_chunk *memory, struct ref_span span,
                            unsigned policies);
bool ref_all_are(const struct ref_chunk *memory, struct ref_span span, unsigned policies);
struct ref_span ref_span_of(const struct ref *ref, uint64_t at, uint64_t size);

/* May the space be changed? With the checks of a range first. */
enum cleave_status ref_changeable(const struct ref *ref, unsigned space);
enum cleave_status ref_changeable_range(const struct ref *ref, unsigned space, uint64_t at,
                                        uint64_t size);

/* --- Foreign maps (reference_hold.c) ---------------------------------------------------------- */

const struct ref_map *ref_look_map(const struct ref *ref, unsigned mapper, uint64_t to);
/* The pages are about to go: maps of them keep their content. */
void ref_detach_maps(struct ref *ref, unsigned owner, struct ref_span span);
/* All maps that a space has of others are gone. */
void ref_forget_maps(struct ref *ref, unsigned mapper);
bool ref_has_maps(const struct ref *ref, unsigned owner, struct ref_span span);
/* Where the content of a page is kept: with its owner, for a foreign map. */
struct ref_page *ref_backing(struct ref *ref, unsigned space, uint64_t page);

#endif
