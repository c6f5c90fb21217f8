/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads that follow one another keep what the last one found: whatever that was, and whatever comes
 * next, they say what space_read() says, and hold nothing in the end. */
#include <string.h>

#include "scene.h"

static const struct shape_row shapes[] = SHAPE_ROWS;

/* Each of the addresses after each other one. */
static void check_pairs(struct space *space, const uint64_t *at, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        for (unsigned j = 0; j < count; j++) {
            struct space_reader reader = {.space = space};
            unsigned char byte;
            test_case("%lx after %lx", (unsigned long)at[j], (unsigned long)at[i]);
            enum cleave_status status =
                space_reader_read(scene.ctx, &reader, gpa(at[i]), &byte, 1, NULL);
            CHECK(status == CLEAVE_OK || reader.locked.v == 0);
            unsigned char want[8] = {0}, found[8] = {0};
            status = space_reader_read(scene.ctx, &reader, gpa(at[j]), found, 8, NULL);
            space_reader_end(scene.ctx, &reader);
            space_reader_end(scene.ctx, &reader);
            CHECK_STATUS(space_read(scene.ctx, space, gpa(at[j]), want, 8, NULL), status);
            CHECK_BYTES(found, want, sizeof(want));
        }
    }
    test_case("%s", "");
    scene_audit(); /* no lock is held */
}

/* Of the shape, of what lies around it, and of nothing at all. */
static unsigned addresses(uint64_t at[SCENE_SAMPLES + 8])
{
    uint64_t sample[SCENE_SAMPLES];
    unsigned count = scene_samples(sample);
    for (unsigned i = 0; i < count; i++) {
        at[i] = PAGE(sample[i]).v + PAGE_SIZE - 24;
    }
    at[count++] = PAGE(scene.base + scene.pages).v;
    at[count++] = PAGE(scene.base).v - PAGE_SIZE;
    at[count++] = (UINT64_C(1) << GUEST_BITS) - 24;
    at[count++] = UINT64_C(1) << GUEST_BITS;
    at[count++] = UINT64_MAX - 23;
    return count;
}

TEST_TABLE(every_shape, shapes)
{
    uint64_t at[SCENE_SAMPLES + 8];
    scene_shape(row->shape);
    unsigned count = addresses(at);
    check_pairs(scene.space, at, count);
    struct space *child = scene_fork(scene.space);
    check_pairs(child, at, count); /* shared tables */
    scene_write(child, scene.base + 1, 7);
    check_pairs(child, at, count);
    check_pairs(scene_snapshot(child), at, count);
    scene_end();
}

/* A page that nobody may read is not read, whatever lies beside it or above it. */
TEST_TABLE(hidden, shapes)
{
    uint64_t at[SCENE_SAMPLES + 8], word;
    scene_shape(row->shape);
    unsigned count = addresses(at);
    REQUIRE_OK(space_protect(scene.ctx, scene.space, PAGE(scene.base + 1), BYTES(1), 0));
    check_pairs(scene.space, at, count);
    REQUIRE_OK(space_protect(scene.ctx, scene.space, PAGE(scene.base), BYTES(scene.pages), 0));
    check_pairs(scene.space, at, count);
    CHECK_STATUS(space_read(scene.ctx, scene.space, PAGE(scene.base), &word, 8, NULL),
                 CLEAVE_FAULT);
    struct space *child = scene_fork(scene.space);
    REQUIRE_OK(space_protect(scene.ctx, child, PAGE(scene.base), BYTES(1), RIGHT_READ));
    check_pairs(child, at, count);
    scene_end();
}

TEST(holes_and_devices)
{
    scene_start_with(0, &(struct host_options){.frames = 2 * BLOCK});
    pfn_t device = host_take(BLOCK, 1);
    struct space *space = scene_space();
    scene_memory(space, 0, BLOCK, 1);
    scene_write(space, 0, 5);
    scene_region(space, 2 * BLOCK, BLOCK, REGION_PRIVATE, RIGHT_ALL, 0);
    scene_write(space, 2 * BLOCK, 6);
    REQUIRE_OK(space_map_device(scene.ctx, space, PAGE(BLOCK), BYTES(BLOCK), device,
                                RIGHT_READ | RIGHT_WRITE, false));
    const uint64_t at[] = {0,
                           PAGE(1).v,
                           PAGE(BLOCK).v,
                           PAGE(BLOCK + 1).v,
                           PAGE(2 * BLOCK).v,
                           PAGE(2 * BLOCK + 1).v,
                           PAGE(3 * BLOCK).v};
    check_pairs(space, at, sizeof(at) / sizeof(at[0]));
    scene_end();
}

/* Between two reads of a reader nobody takes the page away: it comes when the reader ends. */
TEST(what_is_read_stays)
{
    scene_shape(SHAPE_4K);
    struct space_reader reader = {.space = scene.space};
    unsigned char byte;
    REQUIRE_OK(space_reader_read(scene.ctx, &reader, PAGE(scene.base), &byte, 1, NULL));
    CHECK(reader.locked.v != 0);
    CHECK((frame_of(reader.locked, 0)->bits & FRAME_LOCK) != 0);
    space_reader_end(scene.ctx, &reader);
    scene_end();
}
