/* SPDX-License-Identifier: BSD-2-Clause */
#include "shapes.h"

#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "fork.h"
#include "host.h"
#include "test.h"

const struct shape_case shape_cases[SHAPES] = {
    {"pages", SHAPE_PAGES},
    {"block", SHAPE_BLOCK},
    {"giga", SHAPE_GIGA},
    {"split-block", SHAPE_SPLIT_BLOCK},
    {"split-giga", SHAPE_SPLIT_GIGA},
    {"part-shared", SHAPE_PART_SHARED},
};

struct shaped shaped;

static const struct region private_memory = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};

void shape_start(unsigned gigas)
{
    shaped = (struct shaped){0};
    gigas *= TABLE_ENTRIES < 64 ? 8 : 1; /* tables take more of a small machine */
    host_start(&(struct host_options){
        .frames = (gigas + 3) * level_pages(2),
        .cpus = 3,
        .format = TABLE_ENTRIES < 64 ? &npt_format : &ept_format,
        .zero_by_kernel = true,
    });
    shaped.ctx = host_ctx(0);
    shaped.pool = host_pool(gigas * level_size(2));
}

struct space *shape_fork(struct space *parent)
{
    struct space *child = NULL;
    struct fork_options options = {.limit = UINT64_MAX};
    REQUIRE_OK(space_fork(shaped.ctx, parent, 1, &options, &child));
    return child;
}

void shape_destroy(struct space *space)
{
    enum cleave_status status;
    do {
        status = space_destroy(shaped.ctx, space);
    } while (status == CLEAVE_AGAIN);
    REQUIRE_OK(status);
}

bool shape_tagged(uint64_t page)
{
    uint64_t block = page / TABLE_ENTRIES;
    uint64_t last = shaped.bytes / level_size(1) - 1;
    return page % TABLE_ENTRIES < 8 && (block < 2 || block == last) &&
           page < shaped.bytes / PAGE_SIZE;
}

uint64_t shape_tag(uint64_t page) { return UINT64_C(0x7a60000000000001) + (page << 8); }

uint64_t shape_read(struct space *space, uint64_t at)
{
    uint64_t value = 0;
    CHECK_OK(space_read(shaped.ctx, space, gpa(at), &value, sizeof(value), NULL));
    return value;
}

void shape_write(struct space *space, uint64_t at, uint64_t value)
{
    uint64_t done;
    CHECK_OK(space_write(shaped.ctx, space, gpa(at), &value, sizeof(value), NULL, &done));
}

unsigned shape_level(struct space *space, uint64_t at)
{
    struct mapping mapping;
    REQUIRE_OK(space_lookup(shaped.ctx, space, gpa(at), &mapping));
    return mapping.kind == PTE_KIND_LEAF ? mapping.level : LEAF_ORDERS;
}

/* Has the leaf at `at` split: one page of it loses a right, and another is written. */
static void split_leaf(uint64_t at)
{
    REQUIRE_OK(space_protect(shaped.ctx, shaped.space, gpa(at), PAGE_SIZE, RIGHT_READ));
    shape_write(shaped.space, at + PAGE_SIZE, 1);
    REQUIRE_OK(space_protect(shaped.ctx, shaped.space, gpa(at), PAGE_SIZE, RIGHT_ALL));
    REQUIRE_EQ(shape_level(shaped.space, at), 0);
}

static void tag_pages(void)
{
    for (uint64_t page = 0; page < shaped.bytes / PAGE_SIZE; page++) {
        if (shape_tagged(page)) {
            shape_write(shaped.space, SHAPE_AT + page * PAGE_SIZE, shape_tag(page));
        } else if (page % TABLE_ENTRIES == 8) {
            page += TABLE_ENTRIES - 9;
        }
    }
}

void shape_make(enum shape shape)
{
    bool giga = shape == SHAPE_GIGA || shape == SHAPE_SPLIT_GIGA;
    unsigned order = shape == SHAPE_PAGES ? 0 : giga ? 2 : 1;

    REQUIRE_OK(space_create(shaped.ctx, shaped.pool, UINT64_MAX, &shaped.space));
    shaped.fork = NULL;
    shaped.bytes = giga ? level_size(2) : 2 * level_size(1);
    for (uint64_t at = 0; at < shaped.bytes; at += level_size(order)) {
        REQUIRE_OK(space_map(shaped.ctx, shaped.space, gpa(SHAPE_AT + at), order, &private_memory));
    }
    REQUIRE_EQ(shape_level(shaped.space, SHAPE_AT), order);
    if (shape == SHAPE_SPLIT_BLOCK || shape == SHAPE_SPLIT_GIGA) {
        split_leaf(SHAPE_AT);
    }
    tag_pages();
    if (shape == SHAPE_PART_SHARED) {
        shaped.fork = shape_fork(shaped.space);
        for (uint64_t page = TABLE_ENTRIES / 2; page < shaped.bytes / PAGE_SIZE; page++) {
            shape_write(shaped.space, SHAPE_AT + page * PAGE_SIZE,
                        shape_tagged(page) ? shape_tag(page) : 0);
        }
    }
    shape_check();
}

void shape_drop(void)
{
    shape_destroy(shaped.space);
    if (shaped.fork != NULL) {
        shape_destroy(shaped.fork);
    }
    shaped.space = shaped.fork = NULL;
}

static uint64_t mix(uint64_t sum, uint64_t value)
{
    sum = (sum ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return sum ^ sum >> 29;
}

/* Pages whose bytes are looked at; every one in the small geometry. */
static bool summed(uint64_t page) { return page % TABLE_ENTRIES < 8; }

uint64_t shape_sum(struct space *space)
{
    uint64_t first = (SHAPE_AT - shaped.bytes) / PAGE_SIZE;
    uint64_t sum = 1;

    for (uint64_t n = 0; n < 3 * shaped.bytes / PAGE_SIZE; n++) {
        uint64_t at = (first + n) * PAGE_SIZE;
        struct gfn_range extent;
        uint64_t value = 0;
        if (!summed(first + n)) {
            continue;
        }
        struct region region = region_get_extent(space->regions, gpa_to_gfn(gpa(at)), &extent);
        sum = mix(sum, region_pack(&region));
        if (region.policy == REGION_NONE && region_find(space->regions, gpa_to_gfn(gpa(at)),
                                                        gfn(first + 3 * shaped.bytes / PAGE_SIZE),
                                                        REGION_HAS_MEMORY, &extent, &region)) {
            if (extent.start.v > first + n + TABLE_ENTRIES) {
                n = extent.start.v / TABLE_ENTRIES * TABLE_ENTRIES - first - 1;
                continue;
            }
        } else if (region.policy == REGION_NONE) {
            break;
        }
        enum cleave_status status =
            space_read(shaped.ctx, space, gpa(at), &value, sizeof(value), NULL);
        sum = mix(sum, status == CLEAVE_OK ? value + 1 : 0);
        sum = mix(sum, at);
    }
    return sum;
}

void shape_check(void)
{
    struct audit_report report;
    uint64_t size = audit_scratch_bytes(shaped.pool);
    void *scratch = calloc(1, size);

    REQUIRE(scratch != NULL);
    host_check_locks();
    host_tlb_check();
    CHECK_OK(pool_audit(shaped.ctx, shaped.pool, scratch, size, &report));
    if (!CHECK_EQ(report.invariant, 0)) {
        test_case("audit: %s (expected %llu, found %llu)", report.what,
                  (unsigned long long)report.expected, (unsigned long long)report.found);
        CHECK(false);
    }
    free(scratch);
}
