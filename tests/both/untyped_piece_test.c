/* SPDX-License-Identifier: BSD-2-Clause */
/* Pieces of untyped memory that are cut and joined, and pools that grow and shrink in them. */
#include "cap_rig.h"

#include "host.h"

#define BLOCK level_pages(1)

static struct cap_rig rig;

static struct cap *slot_of(cap_t handle) { return cnode_slot(rig.root, CAP_INDEX(handle)); }

static cap_t cut(cap_t source, uint64_t frames)
{
    cap_t rest;
    REQUIRE_OK(untyped_cut(rig.ctx, rig.root, source, frames, CAP_SELF, &rest));
    return rest;
}

static enum cleave_status resize(cap_t source, cap_t pool, uint64_t blocks)
{
    return untyped_resize_pool(rig.ctx, rig.root, source, pool, blocks * BLOCK);
}

/* A piece has these frames of the rig's memory, of which so many are unused. */
static void check_piece(cap_t piece, uint64_t from, uint64_t to, uint64_t unused)
{
    struct cap_info info = rig_look(&rig, piece);
    CHECK_EQ(info.type, CAP_UNTYPED);
    CHECK_EQ(info.rights, CAP_MAY_ALL);
    CHECK(info.first);
    CHECK_EQ(info.range.start.v, rig.start.v + from);
    CHECK_EQ(info.range.end.v, rig.start.v + to);
    CHECK_EQ(info.unused, unused);
}

/* --- Cut and join ----------------------------------------------------------------------------- */

/* Directly below nothing, and below another piece. */
TEST(cut_and_joined_again)
{
    for (unsigned below = 0; below < 2; below++) {
        rig_start(&rig);
        cap_t a = below ? rig_retype(&rig, rig.untyped, CAP_UNTYPED, 10 * BLOCK) : rig.untyped;
        uint64_t all = below ? 10 * BLOCK : rig.frames;
        cap_t c = cut(a, 5);
        check_piece(a, 0, 5, 5);
        check_piece(c, 5, all, all - 5);
        cap_t b = cut(a, 1);
        check_piece(a, 0, 1, 1);
        check_piece(b, 1, 5, 4);
        CHECK_EQ(rig_look(&rig, c).depth, 1 + below);
        CHECK_EQ(rig_look(&rig, b).depth, 1 + below);
        CHECK_EQ(rig_audit(&rig), 3 + below);
        /* Each is as good as any. */
        cap_t node = rig_retype(&rig, b, CAP_CNODE, 3);
        cap_t pool = rig_retype(&rig, c, CAP_POOL, 2 * BLOCK);
        CHECK_EQ(rig_look(&rig, node).range.start.v, rig.start.v + 1);
        CHECK_EQ(rig_look(&rig, pool).range.start.v, rig.start.v + (5 + BLOCK - 1) / BLOCK * BLOCK);
        check_piece(b, 1, 5, 1);
        (void)rig_audit(&rig);
        CHECK_REFUSED(untyped_join(rig.ctx, rig.root, a, b), CLEAVE_BUSY, "rest");
        CHECK_REFUSED(untyped_join(rig.ctx, rig.root, b, c), CLEAVE_BUSY, "rest");
        /* The rest of a piece may be had by the one before it, and what was made stays. */
        cap_t tail = cut(b, 3);
        check_piece(tail, 4, 5, 1);
        check_piece(b, 1, 4, 0);
        CHECK_OK(untyped_join(rig.ctx, rig.root, b, tail));
        CHECK_STATUS(rig_status(&rig, rig.root, tail), CLEAVE_REVOKED);
        check_piece(b, 1, 5, 1);
        CHECK_OK(cap_delete(rig.ctx, rig.root, node));
        CHECK_OK(untyped_join(rig.ctx, rig.root, a, b));
        check_piece(a, 0, 5, 5);
        CHECK_OK(cap_delete(rig.ctx, rig.root, pool));
        CHECK_OK(untyped_join(rig.ctx, rig.root, a, c));
        check_piece(a, 0, all, all);
        CHECK_EQ(rig_audit(&rig), 1 + below);
        CHECK_OK(cap_revoke(rig.ctx, rig.root, rig.untyped));
        rig_check_empty(&rig);
        host_stop();
    }
}

/* What lies behind a watermark: made of it, gone, or never handed out. */
TEST(what_was_handed_out_stays_with_its_source)
{
    cap_t rest;
    rig_start(&rig);
    cap_t first = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 7);
    cap_t second = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 3);
    CHECK_OK(cap_delete(rig.ctx, rig.root, second));
    CHECK_REFUSED(untyped_cut(rig.ctx, rig.root, rig.untyped, 9, CAP_SELF, &rest), CLEAVE_COUNT,
                  "frames");
    CHECK_EQ(rig.ctx->error.low, 10);
    CHECK_EQ(rig.ctx->error.high, rig.frames - 1);
    rest = cut(rig.untyped, 10);
    check_piece(rig.untyped, 0, 10, 0);
    CHECK_OK(cap_delete(rig.ctx, rig.root, first));
    check_piece(rig.untyped, 0, 10, 10);
    second = cut(rig.untyped, 6); /* below where the watermark was */
    check_piece(rig.untyped, 0, 6, 6);
    (void)rig_audit(&rig);
    CHECK_OK(untyped_join(rig.ctx, rig.root, rig.untyped, second));
    CHECK_OK(untyped_join(rig.ctx, rig.root, rig.untyped, rest));
    rig_check_empty(&rig);
}

TEST(cut_refuses)
{
    cap_t rest;
    rig_start(&rig);
    cap_t piece = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 8);
    cap_t pool = rig_pool(&rig, 8);
    cap_t node = rig_node(&rig, 1);
    cap_t blind = rig_copy(&rig, node, CAP_MAY_ALL & ~CAP_MAY_WRITE, CAP_SELF);
    cap_t gone = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 1);
    CHECK_OK(cap_delete(rig.ctx, rig.root, gone));
#define CUT(source, frames, to) untyped_cut(rig.ctx, rig.root, source, frames, to, &rest)
    CHECK_REFUSED(CUT(piece, 0, CAP_SELF), CLEAVE_COUNT, "frames");
    CHECK_REFUSED(CUT(piece, 8, CAP_SELF), CLEAVE_COUNT, "frames");
    CHECK_REFUSED(CUT(piece, UINT64_MAX, CAP_SELF), CLEAVE_COUNT, "frames");
    CHECK_REFUSED(CUT(pool, 1, CAP_SELF), CLEAVE_TYPE, "source");
    CHECK_REFUSED(CUT(gone, 1, CAP_SELF), CLEAVE_REVOKED, "source");
    CHECK_REFUSED(CUT(CAP_SELF, 1, CAP_SELF), CLEAVE_NO_CAP, "source");
    CHECK_REFUSED(CUT(cap_handle(UINT64_MAX), 1, CAP_SELF), CLEAVE_RANGE, "source");
    CHECK_REFUSED(CUT(piece, 1, pool), CLEAVE_TYPE, "to");
    CHECK_REFUSED(CUT(piece, 1, blind), CLEAVE_DENIED, "to");
    CHECK_REFUSED(CUT(piece, 1, gone), CLEAVE_REVOKED, "to");
    slot_of(piece)->rights &= (uint8_t)~CAP_MAY_GRANT;
    CHECK_REFUSED(CUT(piece, 1, node), CLEAVE_DENIED, "source");
    slot_of(piece)->rights &= (uint8_t)~CAP_MAY_WRITE;
    CHECK_REFUSED(CUT(piece, 1, CAP_SELF), CLEAVE_DENIED, "source");
    slot_of(piece)->rights = CAP_MAY_ALL;
    slot_of(piece)->users++;
    CHECK_STATUS(CUT(piece, 1, CAP_SELF), CLEAVE_AGAIN);
    slot_of(piece)->users--;
    while (slot_of(piece)->node->used < cnode_slots(rig.root)) {
        (void)rig_copy(&rig, pool, CAP_MAY_ALL, CAP_SELF);
    }
    CHECK_REFUSED(CUT(piece, 1, CAP_SELF), CLEAVE_COUNT, "to");
#undef CUT
    (void)rig_audit(&rig);
}

TEST(join_refuses)
{
    rig_start(&rig);
    cap_t a = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 8);
    cap_t b = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 8);
    cap_t c = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 8);
    cap_t inside = rig_retype(&rig, b, CAP_UNTYPED, 8);
    cap_t last = rig_retype(&rig, a, CAP_UNTYPED, 8);
    cap_t pool = rig_pool(&rig, 8);
#define JOIN(source, rest) untyped_join(rig.ctx, rig.root, source, rest)
    CHECK_REFUSED(JOIN(a, a), CLEAVE_INVALID, "rest");
    CHECK_REFUSED(JOIN(b, a), CLEAVE_INVALID, "rest");
    CHECK_REFUSED(JOIN(a, c), CLEAVE_INVALID, "rest"); /* not side by side */
    CHECK_REFUSED(JOIN(a, rig.untyped), CLEAVE_INVALID, "rest");
    CHECK_REFUSED(JOIN(a, inside), CLEAVE_INVALID, "rest");    /* another depth */
    CHECK_REFUSED(JOIN(last, inside), CLEAVE_INVALID, "rest"); /* another source */
    CHECK_REFUSED(JOIN(a, b), CLEAVE_BUSY, "rest");
    CHECK_REFUSED(JOIN(a, pool), CLEAVE_TYPE, "rest");
    CHECK_REFUSED(JOIN(pool, a), CLEAVE_TYPE, "source");
    CHECK_REFUSED(JOIN(a, CAP_SELF), CLEAVE_NO_CAP, "rest");
    CHECK_REFUSED(JOIN(CAP_SELF, a), CLEAVE_NO_CAP, "source");
    for (unsigned i = 0; i < 2; i++) {
        struct cap *slot = slot_of(i == 0 ? b : c);
        slot->rights &= (uint8_t)~CAP_MAY_WRITE;
        CHECK_REFUSED(JOIN(b, c), CLEAVE_DENIED, i == 0 ? "source" : "rest");
        slot->rights = CAP_MAY_ALL;
        slot->users++;
        CHECK_STATUS(JOIN(b, c), CLEAVE_AGAIN);
        slot->users--;
    }
#undef JOIN
    CHECK_OK(untyped_join(rig.ctx, rig.root, b, c)); /* b's own child stays */
    check_piece(b, 8, 24, 8);
    CHECK_OK(rig_status(&rig, rig.root, inside));
    (void)rig_audit(&rig);
}

/* A rest in another node goes with that node, and no memory ends up inside itself. */
TEST(the_rest_lies_in_another_node)
{
    cap_t rest, made;
    rig_start(&rig);
    cap_t piece = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 100);
    cap_t node = rig_retype(&rig, piece, CAP_CNODE, 2);
    struct cnode *inside = rig_object(&rig, node);
    REQUIRE_OK(untyped_cut(rig.ctx, rig.root, piece, 10, node, &rest));
    CHECK_OK(rig_status(&rig, inside, rest));
    CHECK_EQ(cnode_slot(inside, CAP_INDEX(rest))->level, inside->level);
    (void)rig_audit(&rig);
    REQUIRE_OK(untyped_retype(rig.ctx, inside, rest, CAP_CNODE, 1, 1, CAP_SELF, &made));
    (void)rig_audit(&rig);
    CHECK_STATUS(untyped_join(rig.ctx, rig.root, piece, rest), CLEAVE_NO_CAP);
    CHECK_OK(rig_delete(&rig, rig.root, node, 1));
    CHECK_EQ(rig_audit(&rig), 2);
    check_piece(piece, 0, 10, 10);
    CHECK_OK(rig_delete(&rig, rig.root, piece, 1));
    rig_check_empty(&rig);
}

/* While the piece above is being revoked, after each step of it: what is cut off goes as well, and
 * what is taken cannot be cut or joined. */
TEST(cut_and_join_beside_a_revoke)
{
    for (unsigned joins = 0; joins < 2; joins++) {
        for (unsigned steps = 1; steps < 12; steps++) {
            cap_t piece[3], rest;
            rig_start(&rig);
            for (unsigned i = 0; i < 3; i++) {
                piece[i] = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 8);
            }
            test_case("%s after %u steps", joins ? "join" : "cut", steps);
            rig.ctx->budget = steps;
            enum cleave_status revoked = cap_revoke(rig.ctx, rig.root, rig.untyped);
            rig.ctx->budget = UINT64_MAX;
            for (unsigned i = 0; i < 3; i++) {
                enum cleave_status status =
                    joins ? untyped_join(rig.ctx, rig.root, piece[i], piece[(i + 1) % 3])
                          : untyped_cut(rig.ctx, rig.root, piece[i], 3, CAP_SELF, &rest);
                CHECK(status == CLEAVE_OK || status == CLEAVE_REVOKED ||
                      (joins && (status == CLEAVE_INVALID || status == CLEAVE_BUSY)));
                (void)rig_audit(&rig);
            }
            if (revoked == CLEAVE_AGAIN) {
                CHECK_REFUSED(
                    untyped_cut(rig.ctx, rig.root, rig.untyped, rig.frames - 1, CAP_SELF, &rest),
                    CLEAVE_BUSY, "source");
            }
            CHECK_OK(rig_revoke(&rig, rig.root, rig.untyped, 1));
            CHECK_EQ(rig_audit(&rig), 1);
            rig_check_empty(&rig);
            host_stop();
        }
    }
}

/* --- Pools ------------------------------------------------------------------------------------ */

TEST(pool_grows_and_shrinks_in_its_piece)
{
    rig_start(&rig);
    cap_t piece = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 22 * BLOCK);
    cap_t pool = rig_retype(&rig, piece, CAP_POOL, 7 * BLOCK);
    struct pool *object = rig_object(&rig, pool);
    for (uint64_t blocks = 1; blocks <= 22; blocks++) {
        REQUIRE_OK(resize(piece, pool, blocks));
        CHECK_EQ(object->frames, blocks * BLOCK);
        check_piece(piece, 0, 22 * BLOCK, (22 - blocks) * BLOCK);
        CHECK_EQ(rig_look(&rig, pool).range.end.v, rig.start.v + blocks * BLOCK);
        CHECK_EQ(rig_audit(&rig), 3);
        /* What the pool does not have can be handed out, and then the pool is not the last. */
        if (blocks < 22) {
            cap_t other = rig_retype(&rig, piece, CAP_UNTYPED, BLOCK);
            CHECK_EQ(rig_look(&rig, other).range.start.v, object->end.v);
            CHECK_REFUSED(resize(piece, pool, blocks + 1), CLEAVE_INVALID, "pool");
            CHECK_REFUSED(resize(piece, pool, 1), CLEAVE_INVALID, "pool");
            CHECK_OK(cap_delete(rig.ctx, rig.root, other));
        }
        REQUIRE_OK(resize(piece, pool, 22));
        REQUIRE_OK(resize(piece, pool, 1));
    }
    CHECK_REFUSED(resize(piece, pool, 23), CLEAVE_NO_MEMORY, "frames");
    CHECK_EQ(rig.ctx->error.high, 22 * BLOCK);
    CHECK_OK(cap_delete(rig.ctx, rig.root, pool));
    check_piece(piece, 0, 22 * BLOCK, 22 * BLOCK);
    CHECK_OK(cap_delete(rig.ctx, rig.root, piece));
    rig_check_empty(&rig);
}

TEST(pool_resize_refuses)
{
    rig_start(&rig);
    cap_t piece = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 20 * BLOCK);
    cap_t pool = rig_retype(&rig, piece, CAP_POOL, 8 * BLOCK);
    cap_t empty = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 2 * BLOCK);
    cap_t copy = rig_copy(&rig, pool, CAP_MAY_ALL, CAP_SELF);
    cap_t blind = rig_copy(&rig, pool, CAP_MAY_ALL & ~CAP_MAY_WRITE, CAP_SELF);
    cap_t beside = rig_pool(&rig, 5);
    cap_t behind = rig_retype(&rig, rig.untyped, CAP_UNTYPED, BLOCK);
    cap_t node = rig_node(&rig, 1);
    cap_t theirs = rig_copy(&rig, pool, CAP_MAY_ALL, node);

    CHECK_REFUSED(resize(piece, copy, 9), CLEAVE_INVALID, "pool");
    CHECK_REFUSED(resize(piece, blind, 9), CLEAVE_DENIED, "pool");
    CHECK_REFUSED(resize(piece, piece, 9), CLEAVE_TYPE, "pool");
    CHECK_REFUSED(resize(pool, pool, 9), CLEAVE_TYPE, "source");
    CHECK_REFUSED(resize(empty, pool, 9), CLEAVE_INVALID, "pool");
    CHECK_REFUSED(resize(empty, beside, 3), CLEAVE_INVALID, "pool");
    CHECK_REFUSED(resize(behind, beside, 6), CLEAVE_INVALID, "pool");
    CHECK_REFUSED(resize(behind, beside, 4), CLEAVE_INVALID, "pool");
    CHECK_REFUSED(resize(rig.untyped, beside, 5), CLEAVE_INVALID, "pool"); /* not the last */
    CHECK_REFUSED(resize(rig.untyped, pool, 9), CLEAVE_INVALID, "pool");   /* not its own */
    CHECK_REFUSED(resize(piece, beside, 9), CLEAVE_INVALID, "pool");
    /* A stranger, who holds the pool and no memory. */
    struct cnode *inside = rig_object(&rig, node);
    CHECK_REFUSED(untyped_resize_pool(rig.ctx, inside, piece, theirs, 9 * BLOCK), CLEAVE_NO_CAP,
                  "source");
    CHECK_REFUSED(untyped_resize_pool(rig.ctx, inside, theirs, theirs, 9 * BLOCK), CLEAVE_TYPE,
                  "source");
#define FRAMES(n) untyped_resize_pool(rig.ctx, rig.root, piece, pool, n)
    CHECK_REFUSED(FRAMES(0), CLEAVE_COUNT, "frames");
    CHECK_REFUSED(FRAMES(BLOCK + 1), CLEAVE_ALIGN, "frames");
    CHECK_REFUSED(FRAMES(9 * BLOCK + 1), CLEAVE_ALIGN, "frames");
    CHECK_REFUSED(FRAMES(UINT64_MAX), CLEAVE_NO_MEMORY, "frames");
    CHECK_REFUSED(FRAMES(UINT64_C(1) << 32), CLEAVE_NO_MEMORY, "frames");
    host_fail_allocation(1);
    CHECK_REFUSED(FRAMES(9 * BLOCK), CLEAVE_NO_MEMORY, "frames");
    host_fail_allocation(0);
#undef FRAMES
    slot_of(piece)->users++;
    CHECK_STATUS(resize(piece, pool, 9), CLEAVE_AGAIN);
    slot_of(piece)->users--;
    slot_of(piece)->rights &= (uint8_t)~CAP_MAY_WRITE;
    CHECK_REFUSED(resize(piece, pool, 9), CLEAVE_DENIED, "source");
    slot_of(piece)->rights = CAP_MAY_ALL;
    /* A call in flight through the pool is no hindrance, nor are copies. */
    struct cap_use use;
    REQUIRE_OK(cap_use(rig.ctx, rig.root, pool, CAP_BIT(CAP_POOL), 0, &use));
    CHECK_OK(resize(piece, pool, 9));
    cap_end(rig.ctx, &use);
    CHECK_EQ(rig_look(&rig, copy).range.end.v, rig_look(&rig, pool).range.end.v);
    (void)rig_audit(&rig);
}

TEST(pool_in_use_is_not_cut)
{
    rig_start(&rig);
    cap_t piece = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 22 * BLOCK);
    cap_t pool = rig_retype(&rig, piece, CAP_POOL, 22 * BLOCK);
    const struct region memory = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};
    cap_t guest = rig_space(&rig, pool);
    struct space *space = rig_object(&rig, guest);
    REQUIRE_OK(space_set_region(rig.ctx, space, gpa(0), 10 * BLOCK << PAGE_SHIFT, &memory));
    REQUIRE_OK(space_populate(rig.ctx, space, gpa(0), 10 * BLOCK << PAGE_SHIFT));
    CHECK_REFUSED(resize(piece, pool, 1), CLEAVE_BUSY, "frames");
    uint64_t least = rig.ctx->error.low / BLOCK;
    CHECK(least > 10 && least <= 22);
    CHECK_OK(resize(piece, pool, least));
    check_piece(piece, 0, 22 * BLOCK, (22 - least) * BLOCK);
    CHECK_OK(rig_delete(&rig, rig.root, guest, UINT64_MAX));
    REQUIRE_OK(resize(piece, pool, 1));
    REQUIRE_OK(resize(piece, pool, 22));
    (void)rig_space(&rig, pool);
    CHECK_OK(rig_revoke(&rig, rig.root, rig.untyped, 1));
    rig_check_empty(&rig);
}

/* What is going away is not resized. */
TEST(pool_being_revoked_is_not_resized)
{
    for (unsigned how = 0; how < 3; how++) {
        rig_start(&rig);
        cap_t piece = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 20 * BLOCK);
        cap_t pool = rig_retype(&rig, piece, CAP_POOL, 8 * BLOCK);
        (void)rig_space(&rig, pool);
        rig.ctx->budget = 1;
        CHECK_STATUS(how == 0   ? cap_revoke(rig.ctx, rig.root, pool)
                     : how == 1 ? cap_delete(rig.ctx, rig.root, pool)
                                : cap_revoke(rig.ctx, rig.root, piece),
                     CLEAVE_AGAIN);
        rig.ctx->budget = UINT64_MAX;
        static const enum cleave_status status[] = {CLEAVE_BUSY, CLEAVE_REVOKED, CLEAVE_BUSY};
        for (uint64_t blocks = 7; blocks <= 9; blocks++) {
            CHECK_REFUSED(resize(piece, pool, blocks), status[how], how == 2 ? "source" : "pool");
        }
        CHECK_OK(rig_revoke(&rig, rig.root, rig.untyped, 1));
        rig_check_empty(&rig);
        host_stop();
    }
}

static cap_t piece_cap, pool_cap;
static unsigned calls;

/* CPU 1, in the midst of a resize on CPU 0. */
static void meddle(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b, void *arg)
{
    cap_t made;
    (void)ctx, (void)a, (void)b, (void)arg;
    if (point != POINT_OWNER) {
        return;
    }
    struct mm_ctx *other = host_ctx(1);
    calls++;
    CHECK_STATUS(untyped_retype(other, rig.root, piece_cap, CAP_UNTYPED, BLOCK, 1, CAP_SELF, &made),
                 CLEAVE_AGAIN);
    CHECK_STATUS(untyped_cut(other, rig.root, piece_cap, 39 * BLOCK, CAP_SELF, &made),
                 CLEAVE_AGAIN);
    CHECK_STATUS(untyped_resize_pool(other, rig.root, piece_cap, pool_cap, BLOCK), CLEAVE_AGAIN);
    CHECK_STATUS(cap_move(other, rig.root, pool_cap, CAP_SELF, &made), CLEAVE_BUSY);
    CHECK_STATUS(cap_move(other, rig.root, piece_cap, CAP_SELF, &made), CLEAVE_BUSY);
    if (calls == 2) {
        CHECK_STATUS(cap_revoke(other, rig.root, rig.untyped), CLEAVE_AGAIN);
    }
}

/* Nobody else has the memory meanwhile, and a revoke waits for its end. */
TEST(resize_in_flight)
{
    TEST_NEEDS_HOOKS();
    rig_start(&rig);
    calls = 0;
    uint64_t giga = TABLE_ENTRIES, blocks = 2 * giga;
    if (blocks > RIG_BLOCKS / 2) {
        TEST_SKIP("no whole 1 GiB run fits the rig");
    }
    piece_cap = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 40 * BLOCK);
    pool_cap = rig_retype(&rig, piece_cap, CAP_POOL, (blocks - 1) * BLOCK);
    host_on_point(meddle, NULL);
    enum cleave_status grown = resize(piece_cap, pool_cap, blocks + giga);
    enum cleave_status shrunk = resize(piece_cap, pool_cap, blocks - 1);
    host_on_point(NULL, NULL);
    CHECK_OK(grown);
    CHECK_OK(shrunk);
    CHECK_EQ(calls, 2);
    CHECK_STATUS(rig_status(&rig, rig.root, pool_cap), CLEAVE_REVOKED);
    CHECK_OK(rig_revoke(&rig, rig.root, rig.untyped, 1));
    rig_check_empty(&rig);
}
