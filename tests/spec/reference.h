/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The naive reference: what every operation of the memory core means, without its tables, counts or
 * sharing. A space is a list of pages, each with content, rights and a policy; a fork copies all of
 * it. Nothing here is shared with the core but the status values.
 *
 * Each operation first decides its status. Only when that is CLEAVE_OK and `ref->commit` is set
 * does it change anything, so that a caller can ask beforehand what is going to happen.
 */
#ifndef REFERENCE_H
#define REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cleave/status.h"

#define REF_SPACES 12
#define REF_PINS 32
#define REF_MAPS 64
#define REF_CHANNELS 256 /* that a world can have in its life */
#define REF_CHUNK 64     /* pages that are kept as one record while they are all alike */

enum ref_policy {
    REF_NONE,
    REF_PRIVATE,
    REF_READ_ONLY,
    REF_SHARED,
    REF_WIPE,
    REF_ABSENT,
    REF_DEVICE,
    REF_PAGED,
    REF_FOREIGN,
    REF_POLICIES
};
enum { REF_READ = 1, REF_WRITE = 2, REF_EXEC = 4 };
enum ref_life { REF_UNUSED, REF_ALIVE, REF_FROZEN, REF_DYING };

/* Bytes of one page. Private pages have one each; pages that alias each other hold the same one. */
struct ref_cell {
    unsigned holders;
    unsigned char bytes[];
};

struct ref_page {
    struct ref_cell *cell; /* null: zeros */
    uint64_t backing;      /* device: host frame */
    uint8_t policy;
    uint8_t rights;
    uint8_t order;    /* largest leaf that first touch makes */
    uint16_t channel; /* notify: 1 + number of the channel; 0 for none */
    bool armed;
    bool told;   /* the subscriber has allowed writes to it here, and not armed it again */
    bool refuse; /* device: forks are refused */
};

/* REF_CHUNK pages: all like `all`, or each its own. Pages that hold a cell are never kept alike. */
struct ref_chunk {
    struct ref_page all;
    struct ref_page *each;
};

struct ref_space {
    enum ref_life life;
    struct ref_chunk *memory;
    struct ref_chunk *base; /* what reset goes back to; null for none */
};

/* A device's or another space's hold on pages. */
struct ref_pin {
    bool live;
    bool write;
    unsigned space;
    uint64_t start, end;    /* pages of the space */
    struct ref_cell **cell; /* of each page: what the device sees */
};

/* Page `at` of `owner` as page `to` of `mapper`. */
struct ref_map {
    bool live;
    bool detached; /* the owner's page is gone: the mapper keeps what it was */
    bool written;  /* through the map */
    unsigned owner, mapper;
    uint64_t at, to;
};

struct ref {
    bool commit;
    uint64_t page_bytes;  /* of content kept per page */
    uint64_t page_size;   /* of an address step per page */
    uint64_t guest_pages; /* width of the guest */
    uint64_t pages;       /* of these: pages kept here, from 0 */
    unsigned fan_out;     /* log2 of the pages in a leaf of order 1 */
    struct ref_space space[REF_SPACES];
    struct ref_pin pin[REF_PINS];
    struct ref_map map[REF_MAPS];
    bool channel[REF_CHANNELS]; /* exists */
};

/* A world without spaces. `page_size` bytes of address per page, `page_bytes` of them compared. */
struct ref *ref_new(uint64_t page_size, uint64_t page_bytes, uint64_t guest_pages, uint64_t pages,
                    unsigned fan_out);
void ref_free(struct ref *ref);

/* The page as it is now (of a foreign map, with the owner's content); its content (page_bytes long,
 * zeros where it holds no cell). */
struct ref_page ref_page(const struct ref *ref, unsigned space, uint64_t page);
const unsigned char *ref_bytes(const struct ref *ref, const struct ref_page *page);
/* The page for changes: what the mutation tests of the comparison use. */
struct ref_page *ref_page_for_change(struct ref *ref, unsigned space, uint64_t page);
/* Gives the page a cell of its own to write into. */
unsigned char *ref_bytes_for_change(struct ref *ref, struct ref_page *page);
/* First page at or after `page` that may differ from the one before it; ref->pages at the end. */
uint64_t ref_next_change(const struct ref *ref, unsigned space, uint64_t page);
/* A write would have to tell a subscriber first. */
bool ref_armed(const struct ref *ref, const struct ref_page *page);
/* Number of an unused space, REF_SPACES when there is none. */
unsigned ref_unused(const struct ref *ref);

/* What a region is made with. */
struct ref_region {
    enum ref_policy policy;
    unsigned rights;
    unsigned order;
};

/* Checks [at, at + size): CLEAVE_ALIGN, CLEAVE_COUNT, CLEAVE_WRAP, CLEAVE_RANGE. */
enum cleave_status ref_range(const struct ref *ref, uint64_t at, uint64_t size);

enum cleave_status ref_create(struct ref *ref, unsigned space);
/* The first call of a destroy, which makes the space dying, and its end. */
enum cleave_status ref_destroy_begin(struct ref *ref, unsigned space);
void ref_destroy_end(struct ref *ref, unsigned space);

enum cleave_status ref_set_region(struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                                  const struct ref_region *region);
enum cleave_status ref_protect(struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                               unsigned rights);
enum cleave_status ref_populate(struct ref *ref, unsigned space, uint64_t at, uint64_t size);
enum cleave_status ref_map(struct ref *ref, unsigned space, uint64_t at, unsigned order,
                           const struct ref_region *region);
enum cleave_status ref_map_device(struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                                  uint64_t frame, unsigned rights, bool refuse);
/* `content` fills page n of the range with what its store holds. */
enum cleave_status ref_map_paged(struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                                 const struct ref_region *region,
                                 void (*content)(void *arg, uint64_t n, unsigned char *bytes),
                                 void *arg);
enum cleave_status ref_unmap(struct ref *ref, unsigned space, uint64_t at, uint64_t size);

/* A guest's access to one page: CLEAVE_OK, CLEAVE_FAULT, CLEAVE_WAIT (armed), CLEAVE_DYING,
 * CLEAVE_FROZEN. */
enum ref_access { REF_ACCESS_READ, REF_ACCESS_WRITE, REF_ACCESS_EXEC };
enum cleave_status ref_access(const struct ref *ref, unsigned space, uint64_t page,
                              enum ref_access access);
/* The hypervisor's read, as far as it gets: `*done` bytes. */
enum cleave_status ref_read(const struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                            uint64_t *done);
/* Writes up to `size` bytes: `*done` says how many before the status stopped it. */
enum cleave_status ref_write(struct ref *ref, unsigned space, uint64_t at, const void *from,
                             uint64_t size, uint64_t *done);
enum cleave_status ref_make_exclusive(struct ref *ref, unsigned space, uint64_t start,
                                      uint64_t end);

enum cleave_status ref_fork(struct ref *ref, unsigned parent, const unsigned *child, uint64_t count,
                            uint64_t limit, bool base);
enum cleave_status ref_snapshot(struct ref *ref, unsigned space, unsigned child);
enum cleave_status ref_reset(struct ref *ref, unsigned space);
/* Whether a page reads differently in two spaces; either answer is right for memory that is a
 * device's or another space's, and for what is still to be loaded. */
enum ref_answer { REF_NO, REF_YES, REF_EITHER };
enum ref_answer ref_differs(const struct ref *ref, unsigned a, unsigned b, uint64_t page);
enum cleave_status ref_move(struct ref *ref, unsigned space, uint64_t from, uint64_t to,
                            uint64_t size);

enum cleave_status ref_pin_pages(struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                                 bool write, unsigned pin);
void ref_unpin(struct ref *ref, unsigned pin);
bool ref_pinned(const struct ref *ref, unsigned space, uint64_t start, uint64_t end);
enum cleave_status ref_foreign_map(struct ref *ref, unsigned owner, uint64_t at, unsigned mapper,
                                   uint64_t to);
enum cleave_status ref_foreign_unmap(struct ref *ref, unsigned mapper, uint64_t to);
/* The map at page `to` of `mapper`; null where none is. */
struct ref_map *ref_map_at(struct ref *ref, unsigned mapper, uint64_t to);
/* The dying owner has taken its page back: the mapper's page is nothing any more, or an empty
 * foreign region (`region`). */
void ref_map_taken(struct ref *ref, struct ref_map *map, bool region);

enum cleave_status ref_arm(struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                           unsigned channel);
enum cleave_status ref_rearm(struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                             unsigned channel, uint64_t grain);
enum cleave_status ref_disarm(struct ref *ref, unsigned space, uint64_t at, uint64_t size,
                              unsigned channel);
/* The subscriber allowed writes to the pages of one grain. */
void ref_allow(struct ref *ref, unsigned space, uint64_t start, uint64_t end, unsigned channel);
/* Grains of `grain` pages that are dirty for a channel, in all spaces. */
uint64_t ref_dirty(const struct ref *ref, unsigned channel, uint64_t grain);

#endif
