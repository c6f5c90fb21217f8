/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The concrete state as the reference would say it: reads a space's tables in simulated RAM with a
 * decoder of its own, and says where they differ from the reference.
 */
#ifndef ABSTRACT_H
#define ABSTRACT_H

#include "reference.h"
#include "space.h"

/* What the tables in RAM say about a page. */
struct abs_page {
    bool present;    /* the hardware would use the entry */
    bool paged;      /* the entry names a page of a store */
    bool parked;     /* neither is used, but kept: this entry or one above is parked */
    unsigned level;  /* of the entry that decides */
    unsigned rights; /* AND over all levels */
    uint64_t frame;  /* of the page itself, present or parked */
    uint64_t entry;
    uint64_t pages; /* that the entry still covers, this page included */
};
struct abs_page abs_walk(const struct space *space, uint64_t page);
/* Where the bytes of a frame are. */
unsigned char *abs_bytes(uint64_t frame);

#define ABS_TEXT 200

/* Compares pages [start, end) of a space with the reference; `text` says where they differ. */
bool abs_compare(const struct ref *ref, unsigned which, const struct space *space, uint64_t start,
                 uint64_t end, char text[ABS_TEXT]);

#endif
