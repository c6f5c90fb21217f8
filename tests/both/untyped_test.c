/* SPDX-License-Identifier: BSD-2-Clause */
/* Untyped memory: boot, retype, watermarks, and objects that come and go in every order (T-S3). */
#include "cap_rig.h"

#include <string.h>

#include "host.h"
#include "test.h"

#define ANY UINT64_MAX

static struct cap_rig rig;

/* --- Boot ------------------------------------------------------------------------------------- */

TEST(boot_makes_untyped_of_each_range)
{
    host_start(NULL);
    struct mm_ctx *ctx = host_ctx(0);
    uint32_t base = host_take(400, 0).v;
    struct pfn_range ranges[3] = {{pfn(base), pfn(base + 2)},
                                  {pfn(base + 10), pfn(base + 100)},
                                  {pfn(base + 100), pfn(base + 400)}};
    struct cnode *root;
    struct cap_info info;
    cap_t handle;

    rig = (struct cap_rig){.ctx = ctx};
    REQUIRE_OK(cap_boot(ctx, ranges, 3, 2, &root));
    rig.root = root;
    CHECK_EQ(rig_audit(&rig), 3);
    for (uint32_t i = 0; i < 3; i++) {
        CHECK_OK(cap_at(ctx, root, i, &handle));
        CHECK_OK(cap_look(ctx, root, handle, &info));
        CHECK_EQ(info.type, CAP_UNTYPED);
        CHECK_EQ(info.rights, CAP_MAY_ALL);
        CHECK_EQ(info.range.start.v, ranges[i].start.v);
        CHECK_EQ(info.range.end.v, ranges[i].end.v - (i == 1 ? 2 : 0));
        CHECK_EQ(info.unused, info.range.end.v - info.range.start.v);
    }
    CHECK_STATUS(cap_at(ctx, root, 3, &handle), CLEAVE_NO_CAP);
    CHECK_STATUS(cap_at(ctx, root, cnode_slots(root), &handle), CLEAVE_RANGE);
    CHECK_EQ(cnode_slots(root), CNODE_SLOTS(2));
}

static const struct boot_case {
    const char *label;
    struct {
        uint32_t start, end;
    } range[2];
    unsigned count;
    uint64_t frames;
    enum cleave_status status;
} boot_cases[] = {
    {"no range", {{1, 9}}, 0, 1, CLEAVE_COUNT},
    {"too many ranges", {{1, 9}}, CAP_BOOT_RANGES + 1, 1, CLEAVE_COUNT},
    {"no frames", {{1, 9}}, 1, 0, CLEAVE_COUNT},
    {"node too large", {{1, 9}}, 1, CNODE_FRAMES_MAX + 1, CLEAVE_COUNT},
    {"frame 0", {{0, 9}}, 1, 1, CLEAVE_RANGE},
    {"past the machine", {{1, UINT32_MAX}}, 1, 1, CLEAVE_RANGE},
    {"empty", {{5, 5}}, 1, 1, CLEAVE_COUNT},
    {"reversed", {{9, 5}}, 1, 1, CLEAVE_COUNT},
    {"overlap", {{1, 9}, {8, 12}}, 2, 1, CLEAVE_OVERLAP},
    {"falling", {{10, 19}, {1, 5}}, 2, 1, CLEAVE_OVERLAP},
    {"no room", {{1, 9}, {20, 28}}, 2, 8, CLEAVE_NO_MEMORY},
};

TEST_TABLE(boot_refuses, boot_cases)
{
    host_start(NULL);
    struct cnode *root = NULL;
    struct pfn_range ranges[2];
    for (unsigned i = 0; i < 2; i++) {
        ranges[i] = (struct pfn_range){pfn(row->range[i].start), pfn(row->range[i].end)};
    }
    CHECK_STATUS(cap_boot(host_ctx(0), ranges, row->count, row->frames, &root), row->status);
    CHECK(root == NULL);
}

/* --- Retype ----------------------------------------------------------------------------------- */

TEST(retype_aligns_and_counts)
{
    uint64_t block = level_pages(1);
    rig_start(&rig);

    cap_t one = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 1);
    cap_t large = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 2 * block);
    cap_t odd = rig_retype(&rig, rig.untyped, CAP_UNTYPED, block + 1);
    cap_t pool = rig_pool(&rig, 8);
    CHECK_EQ(rig_look(&rig, one).range.start.v, rig.start.v);
    CHECK_EQ(rig_look(&rig, large).range.start.v, rig.start.v + block);
    CHECK_EQ(rig_look(&rig, odd).range.start.v, rig.start.v + 3 * block);
    CHECK_EQ(rig_look(&rig, pool).range.start.v % block, 0);
    CHECK(rig_look(&rig, pool).range.start.v >= rig_look(&rig, odd).range.end.v);
    CHECK_EQ(rig_look(&rig, pool).range.end.v - rig_look(&rig, pool).range.start.v, 8 * block);
    CHECK_EQ(rig_look(&rig, rig.untyped).unused,
             rig.start.v + rig.frames - rig_look(&rig, pool).range.end.v);
    CHECK_EQ(rig_look(&rig, one).depth, 2);
    CHECK_EQ(rig_audit(&rig), 5);
}

TEST(retype_many_at_once)
{
    cap_t made[CAP_RETYPE_MAX];
    rig_start(&rig);

    CHECK_OK(untyped_retype(rig.ctx, rig.root, rig.untyped, CAP_CNODE, 2, 5, CAP_SELF, made));
    for (unsigned i = 0; i < 5; i++) {
        CHECK_EQ(rig_look(&rig, made[i]).range.start.v, rig.start.v + 2 * i);
        CHECK_EQ(rig_look(&rig, made[i]).slots, CNODE_SLOTS(2));
        CHECK_EQ(rig_look(&rig, made[i]).used, 0);
    }
    CHECK_EQ(rig_audit(&rig), 6);
    /* All or none: the node has no room for the last, then the memory. */
    uint64_t room = cnode_slots(rig.root) - 6;
    if (room < CAP_RETYPE_MAX) {
        CHECK_REFUSED(untyped_retype(rig.ctx, rig.root, rig.untyped, CAP_UNTYPED, 1,
                                     (unsigned)room + 1, CAP_SELF, made),
                      CLEAVE_COUNT, "to");
    }
    uint64_t half = rig_look(&rig, rig.untyped).unused / 2;
    CHECK_REFUSED(
        untyped_retype(rig.ctx, rig.root, rig.untyped, CAP_UNTYPED, half + 1, 2, CAP_SELF, made),
        CLEAVE_NO_MEMORY, "source");
}

/* sel4test RETYPE: the watermark goes on while anything is left, and back when nothing is. */
TEST(retype_again_only_when_all_is_gone)
{
    rig_start(&rig);
    uint64_t half = rig.frames / 2 - 1;
    cap_t a = rig_retype(&rig, rig.untyped, CAP_UNTYPED, half);
    cap_t b = rig_retype(&rig, rig.untyped, CAP_UNTYPED, half);
    cap_t made;

    CHECK_OK(cap_delete(rig.ctx, rig.root, a));
    CHECK_REFUSED(
        untyped_retype(rig.ctx, rig.root, rig.untyped, CAP_UNTYPED, half, 1, CAP_SELF, &made),
        CLEAVE_NO_MEMORY, "source");
    CHECK_OK(cap_delete(rig.ctx, rig.root, b));
    CHECK_EQ(rig_look(&rig, rig.untyped).unused, rig.frames);
    cap_t all = rig_retype(&rig, rig.untyped, CAP_UNTYPED, rig.frames);
    CHECK_EQ(rig_look(&rig, all).range.start.v, rig.start.v);
    CHECK_OK(cap_revoke(rig.ctx, rig.root, rig.untyped));
    CHECK_EQ(rig_look(&rig, rig.untyped).unused, rig.frames);
    CHECK_EQ(rig_audit(&rig), 1);
}

TEST(new_node_shows_nothing_of_what_was_there)
{
    cap_t handle;
    rig_start(&rig);
    memset(frame_address(rig.start), 0xff, 2 * PAGE_SIZE);

    cap_t node = rig_node(&rig, 2);
    struct cnode *inside = rig_object(&rig, node);
    CHECK_EQ((uintptr_t)inside, (uintptr_t)frame_address(rig.start));
    for (uint32_t i = 0; i < cnode_slots(inside); i++) {
        CHECK_STATUS(cap_at(rig.ctx, inside, i, &handle), CLEAVE_NO_CAP);
        CHECK_STATUS(rig_status(&rig, inside, cap_handle(UINT64_MAX << 32 | i)), CLEAVE_NO_CAP);
    }
    cap_t copy = rig_copy(&rig, node, CAP_MAY_INFO, node);
    CHECK_OK(cap_at(rig.ctx, inside, 0, &handle));
    CHECK_EQ(handle.v, copy.v);
    (void)rig_audit(&rig);
}

TEST(retype_refuses)
{
    cap_t made;
    uint64_t block = level_pages(1);
    rig_start(&rig);
    cap_t pool = rig_pool(&rig, 8);
    cap_t node = rig_node(&rig, 1);
    cap_t blind = rig_copy(&rig, node, CAP_MAY_ALL & ~CAP_MAY_WRITE, CAP_SELF);
#define RETYPE(source, type, frames, count, to)                                                    \
    untyped_retype(rig.ctx, rig.root, source, type, frames, count, to, &made)

    CHECK_REFUSED(RETYPE(rig.untyped, CAP_NONE, 1, 1, CAP_SELF), CLEAVE_TYPE, "type");
    CHECK_REFUSED(RETYPE(rig.untyped, CAP_SPACE, 1, 1, CAP_SELF), CLEAVE_TYPE, "type");
    CHECK_REFUSED(RETYPE(rig.untyped, CAP_TYPES, 1, 1, CAP_SELF), CLEAVE_TYPE, "type");
    CHECK_REFUSED(RETYPE(rig.untyped, CAP_UNTYPED, 0, 1, CAP_SELF), CLEAVE_COUNT, "frames");
    CHECK_REFUSED(RETYPE(rig.untyped, CAP_CNODE, CNODE_FRAMES_MAX + 1, 1, CAP_SELF), CLEAVE_COUNT,
                  "frames");
    CHECK_REFUSED(RETYPE(rig.untyped, CAP_UNTYPED, 1, 0, CAP_SELF), CLEAVE_COUNT, "count");
    CHECK_REFUSED(RETYPE(rig.untyped, CAP_UNTYPED, 1, UINT32_MAX, CAP_SELF), CLEAVE_COUNT, "count");
    CHECK_REFUSED(RETYPE(rig.untyped, CAP_POOL, block, 2, CAP_SELF), CLEAVE_COUNT, "count");
    CHECK_REFUSED(RETYPE(rig.untyped, CAP_POOL, block + 1, 1, CAP_SELF), CLEAVE_ALIGN, "frames");
    CHECK_REFUSED(RETYPE(rig.untyped, CAP_UNTYPED, ANY, 1, CAP_SELF), CLEAVE_NO_MEMORY, "source");
    CHECK_REFUSED(RETYPE(rig.untyped, CAP_UNTYPED, UINT64_C(1) << 63, 2, CAP_SELF),
                  CLEAVE_NO_MEMORY, "source");
    CHECK_REFUSED(RETYPE(rig.untyped, CAP_POOL, ANY - block + 1, 1, CAP_SELF), CLEAVE_NO_MEMORY,
                  "source");
    CHECK_REFUSED(RETYPE(rig.untyped, CAP_UNTYPED, rig.frames + 1, 1, CAP_SELF), CLEAVE_NO_MEMORY,
                  "source");
    CHECK_REFUSED(RETYPE(pool, CAP_UNTYPED, 1, 1, CAP_SELF), CLEAVE_TYPE, "source");
    CHECK_REFUSED(RETYPE(CAP_SELF, CAP_UNTYPED, 1, 1, CAP_SELF), CLEAVE_NO_CAP, "source");
    CHECK_REFUSED(RETYPE(cap_handle(ANY), CAP_UNTYPED, 1, 1, CAP_SELF), CLEAVE_RANGE, "source");
    CHECK_REFUSED(RETYPE(rig.untyped, CAP_UNTYPED, 1, 1, pool), CLEAVE_TYPE, "to");
    CHECK_REFUSED(RETYPE(rig.untyped, CAP_UNTYPED, 1, 1, blind), CLEAVE_DENIED, "to");
    CHECK_REFUSED(RETYPE(rig.untyped, CAP_UNTYPED, 1, 1, cap_handle(ANY)), CLEAVE_RANGE, "to");
#undef RETYPE
}

/* T-S3: N objects out of one untyped, created and deleted in every order. */
#define OBJECTS 6u

static enum cap_type object_type(unsigned i)
{
    static const enum cap_type types[OBJECTS] = {CAP_POOL,    CAP_CNODE, CAP_UNTYPED,
                                                 CAP_UNTYPED, CAP_POOL,  CAP_CNODE};
    return types[i];
}

static uint64_t object_frames(unsigned i)
{
    return object_type(i) == CAP_POOL ? 4 * level_pages(1) : 1 + i % 2;
}

static void delete_object(cap_t object, uint64_t left)
{
    CHECK_OK(cap_delete(rig.ctx, rig.root, object));
    CHECK_STATUS(rig_status(&rig, rig.root, object), CLEAVE_REVOKED);
    CHECK_EQ(rig_audit(&rig), left);
}

/* Makes `n` objects and deletes them in this order. */
static void delete_in_order(unsigned n, const unsigned *order)
{
    cap_t objects[OBJECTS];
    for (unsigned i = 0; i < n; i++) {
        objects[i] = rig_retype(&rig, rig.untyped, object_type(i), object_frames(i));
    }
    for (unsigned i = 0; i < n; i++) {
        delete_object(objects[order[i]], n - i);
    }
    rig_check_empty(&rig);
}

static unsigned permute(unsigned n, unsigned at, unsigned *order)
{
    unsigned runs = 0;
    if (at == n) {
        delete_in_order(n, order);
        return 1;
    }
    for (unsigned i = at; i < n; i++) {
        unsigned first = order[i];
        order[i] = order[at];
        order[at] = first;
        runs += permute(n, at + 1, order);
        order[at] = order[i];
        order[i] = first;
    }
    return runs;
}

TEST(s3_delete_in_every_order)
{
    unsigned order[OBJECTS] = {0, 1, 2, 3, 4, 5};
    rig_start(&rig);
    for (unsigned n = 1, runs = 1; n <= OBJECTS; n++) {
        runs *= n;
        CHECK_EQ(permute(n, 0, order), runs);
    }
}

/* Creations and deletions of four objects, interleaved in every way. */
static unsigned interleave(cap_t *objects, unsigned created, unsigned deleted, unsigned *trail,
                           unsigned steps)
{
    unsigned n = 4;
    unsigned runs = 0;
    if (created == (1u << n) - 1 && deleted == created) {
        for (unsigned i = 0, left = 1; i < steps; i++) {
            unsigned object = trail[i] & 7u;
            if (trail[i] & 8u) {
                left--;
                delete_object(objects[object], left);
            } else {
                objects[object] =
                    rig_retype(&rig, rig.untyped, object_type(object), object_frames(object));
                left++;
            }
        }
        rig_check_empty(&rig);
        return 1;
    }
    for (unsigned i = 0; i < n; i++) {
        unsigned bit = 1u << i;
        if (!(created & bit)) {
            trail[steps] = i;
            runs += interleave(objects, created | bit, deleted, trail, steps + 1);
        } else if (!(deleted & bit)) {
            trail[steps] = i | 8u;
            runs += interleave(objects, created, deleted | bit, trail, steps + 1);
        }
    }
    return runs;
}

TEST(s3_create_and_delete_interleaved)
{
    cap_t objects[4];
    unsigned trail[8];
    rig_start(&rig);
    CHECK_EQ(interleave(objects, 0, 0, trail, 0), 2520);
}
