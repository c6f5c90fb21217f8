/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of the memory core share: a machine with one pool, memory in each of the shapes
 * that every line of the core is tested at, pages filled and compared by a tag, and an audit after
 * each step. Guests run on CPUs 1 and up; operations on CPU 0.
 */
#ifndef SCENE_H
#define SCENE_H

#include "fault.h"
#include "fork.h"
#include "host.h"
#include "space.h"
#include "table.h"
#include "test.h"

#define BLOCK level_pages(1) /* pages of a 2 MiB leaf */
#define GIGA level_pages(2)  /* pages of a 1 GiB leaf */
#define PAGE(n) gpa((uint64_t)(n) << PAGE_SHIFT)
#define BYTES(pages) ((uint64_t)(pages) << PAGE_SHIFT)

enum shape {
    SHAPE_4K,       /* 4 KiB leaves, each a frame of its own */
    SHAPE_2M,       /* 2 MiB leaves */
    SHAPE_1G,       /* a 1 GiB leaf */
    SHAPE_SPLIT_2M, /* 2 MiB blocks under tables of 4 KiB leaves, nobody else's */
    SHAPE_SPLIT_1G, /* a 1 GiB block under 2 MiB leaves, one of them under 4 KiB leaves */
    SHAPE_PARTLY    /* 2 MiB leaves shared with a fork, half of the first one's pages copied */
};
struct shape_row {
    const char *label;
    enum shape shape;
};
#define SHAPE_ROWS                                                                                 \
    {                                                                                              \
        {"4k", SHAPE_4K}, {"2m", SHAPE_2M}, {"1g", SHAPE_1G}, {"split-2m", SHAPE_SPLIT_2M},        \
            {"split-1g", SHAPE_SPLIT_1G}, {"partly", SHAPE_PARTLY},                                \
    }

struct scene {
    struct mm_ctx *ctx; /* of CPU 0 */
    struct pool *pool;
    /* scene_shape(): */
    struct space *space;
    struct space *other; /* SHAPE_PARTLY: the fork; else null */
    uint64_t base;       /* first page of the memory, a multiple of a 1 GiB block */
    uint64_t pages;
    uint64_t drained; /* frames that scene_drain() holds */
};
extern struct scene scene;

/* Makes a machine and a pool of `blocks` 2 MiB blocks (0: enough for every shape but the giant
 * ones). */
void scene_start(uint64_t blocks);
/* The same with options; `frames` is added to what the pool needs. */
void scene_start_with(uint64_t blocks, const struct host_options *options);
/* The machine, and in `scene.space` memory of this shape, filled with SCENE_TAG(page). Its region
 * is private, with all rights and leaves up to the shape's order. */
void scene_shape(enum shape shape);
void scene_shape_with(enum shape shape, const struct host_options *options);
#define SCENE_TAG(page) ((page) + UINT64_C(0x5eed00000000))

/* Pages of the shape that are worth a look: ends and middles of leaves of each order. */
#define SCENE_SAMPLES 12
unsigned scene_samples(uint64_t sample[SCENE_SAMPLES]);

/* An empty space, whose blocks do not collapse unasked; a region over some of its pages. */
struct space *scene_space(void);
void scene_region(struct space *space, uint64_t page, uint64_t pages, enum region_policy policy,
                  unsigned rights, unsigned order);
/* Memory at page `at` in leaves of `order`, written by nobody. A 1 GiB leaf's bytes are left as the
 * machine has them, zero, and not touched. */
void scene_memory(struct space *space, uint64_t page, uint64_t pages, unsigned order);

struct space *scene_fork(struct space *parent);
struct space *scene_snapshot(struct space *space);
void scene_destroy(struct space *space);

/* A store of a guest's over the whole page, and a load that must find it (0: zeros). The space runs
 * on the CPU that ran it last, or takes the next one. The load checks space_read() as well, and
 * that alone for a snapshot. */
void scene_write(struct space *space, uint64_t page, uint64_t tag);
void scene_check(struct space *space, uint64_t page, uint64_t tag);
/* The same load by space_read() alone, which takes no fault. */
void scene_look(struct space *space, uint64_t page, uint64_t tag);
/* One access of a guest's, without a check. */
enum cleave_status scene_access(struct space *space, uint64_t page, enum access access) MUST_CHECK;
unsigned scene_cpu(struct space *space);
/* Bytes of a page with this tag. */
void scene_page(unsigned char *bytes, uint64_t tag);

struct mapping scene_lookup(struct space *space, uint64_t page);
/* Bytes of the space under leaves of each order. */
struct space_usage scene_usage(struct space *space);

/* Takes what is free and not reserved, but for `leave` frames, and gives that many back again,
 * those taken last first. */
void scene_drain(uint64_t leave);
void scene_give_back(uint64_t frames);

/* Audits the pool, and that free plus used is its size, no lock is held and no CPU may use a
 * translation that is gone. */
void scene_audit(void);
/* Audits, destroys every space of the pool and checks that all memory came back. */
void scene_end(void);

/* --- The state, to compare before and after an operation that must not change it -------------- */

struct scene_state {
    uint64_t spaces; /* regions, tables, entries, frames and counts, bit by bit */
    uint64_t view;   /* only what a guest can see: regions and bytes */
    uint64_t free, reserved, charged;
};
struct scene_state scene_state(void);
/* Bit by bit the same, or only to the guests. */
#define SCENE_CHECK_SAME(a, b)                                                                     \
    do {                                                                                           \
        CHECK_EQ((a).spaces, (b).spaces);                                                          \
        CHECK_EQ((a).view, (b).view);                                                              \
        CHECK_EQ((a).free, (b).free);                                                              \
        CHECK_EQ((a).reserved, (b).reserved);                                                      \
        CHECK_EQ((a).charged, (b).charged);                                                        \
    } while (0)
#define SCENE_CHECK_SAME_VIEW(a, b) CHECK_EQ((a).view, (b).view)

#endif
