/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory in the six shapes that every operation is tested with, and what tests of pins, moves and
 * diffs do with it. Works in both geometries: "2 MiB" and "1 GiB" are blocks of order 1 and 2.
 */
#ifndef SHAPES_H
#define SHAPES_H

#include "space.h"

enum shape {
    SHAPE_PAGES,       /* two tables of 4 KiB leaves */
    SHAPE_BLOCK,       /* two 2 MiB leaves */
    SHAPE_GIGA,        /* one 1 GiB leaf */
    SHAPE_SPLIT_BLOCK, /* two 2 MiB blocks, the first mapped by parts */
    SHAPE_SPLIT_GIGA,  /* a 1 GiB block mapped by parts of both sizes */
    SHAPE_PART_SHARED, /* two 2 MiB blocks, of which the first half is shared with a fork */
    SHAPES
};

struct shape_case {
    const char *label;
    enum shape shape;
};
extern const struct shape_case shape_cases[SHAPES];

/* The world of one test. */
struct shaped {
    struct mm_ctx *ctx;
    struct pool *pool;
    struct space *space; /* holds the memory */
    struct space *fork;  /* SHAPE_PART_SHARED: the other holder; null otherwise */
    uint64_t bytes;      /* of memory, from SHAPE_AT */
};
extern struct shaped shaped;

#define SHAPE_AT (2 * level_size(2))

/* A machine, and a pool of at least `gigas` blocks of order 2. */
void shape_start(unsigned gigas);
/* A space with memory of this shape; the tagged pages hold their tags. */
void shape_make(enum shape shape);
/* Destroys both spaces, which no pin or map holds. */
void shape_drop(void);
/* A fork of `parent`. */
struct space *shape_fork(struct space *parent);
void shape_destroy(struct space *space);

/* Pages of the memory that hold tags: the first eight of the first, second and last block. */
bool shape_tagged(uint64_t page);
/* What page `page` of the memory holds at first; never 0. */
uint64_t shape_tag(uint64_t page);
/* The first 8 bytes of the page at `at`. A failure where they cannot be read. */
uint64_t shape_read(struct space *space, uint64_t at);
/* Writes them by the path of a guest's write. */
void shape_write(struct space *space, uint64_t at, uint64_t value);
/* The level of the leaf at `at`; LEAF_ORDERS for none. */
unsigned shape_level(struct space *space, uint64_t at);

/* The abstract state of a space: regions, and the first bytes of pages, with addresses. Two equal
 * states have the same sum. Looks at the memory and as much before and behind it. */
uint64_t shape_sum(struct space *space);

/* Audits the pool; checks that no lock is held and no CPU has a stale translation. */
void shape_check(void);

#endif
