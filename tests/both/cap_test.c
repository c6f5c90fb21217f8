/* SPDX-License-Identifier: BSD-2-Clause */
/* Capabilities one operation at a time: copy, move, delete, use, rights, bad input.
 */
#include "cap_rig.h"

#include <string.h>

#include "host.h"
#include "test.h"

#define ANY UINT64_MAX

static struct cap_rig rig;

/* --- Copy, move, delete ----------------------------------------------------------------------- */

TEST(rights_only_shrink)
{
    cap_t made;
    rig_start(&rig);
    cap_t pool = rig_pool(&rig, 8);
    cap_t node = rig_node(&rig, 4);

    for (unsigned rights = 1; rights <= CAP_MAY_ALL; rights++) {
        cap_t copy = rig_copy(&rig, pool, rights, CAP_SELF);
        CHECK_EQ(rig_look(&rig, copy).rights, rights);
        CHECK(!rig_look(&rig, copy).first);
        for (unsigned more = 1; more <= CAP_MAY_ALL; more++) {
            enum cleave_status status = cap_copy(rig.ctx, rig.root, copy, more, CAP_SELF, &made);
            CHECK_STATUS(status, more & ~rights ? CLEAVE_DENIED : CLEAVE_OK);
            if (status == CLEAVE_OK) {
                CHECK_OK(cap_delete(rig.ctx, rig.root, made));
            }
        }
        enum cleave_status status = cap_copy(rig.ctx, rig.root, copy, rights, node, &made);
        CHECK_STATUS(status, rights & CAP_MAY_GRANT ? CLEAVE_OK : CLEAVE_DENIED);
        status = cap_revoke(rig.ctx, rig.root, copy);
        CHECK_STATUS(status, rights & CAP_MAY_REVOKE ? CLEAVE_OK : CLEAVE_DENIED);
        CHECK_OK(cap_delete(rig.ctx, rig.root, copy));
        CHECK_EQ(rig_audit(&rig), 3);
    }
    CHECK_REFUSED(cap_copy(rig.ctx, rig.root, pool, 0, CAP_SELF, &made), CLEAVE_RIGHTS, "rights");
    CHECK_REFUSED(cap_copy(rig.ctx, rig.root, pool, CAP_MAY_ALL + 1, CAP_SELF, &made),
                  CLEAVE_RIGHTS, "rights");
}

TEST(untyped_is_not_copied)
{
    cap_t made;
    rig_start(&rig);
    CHECK_REFUSED(cap_copy(rig.ctx, rig.root, rig.untyped, CAP_MAY_ALL, CAP_SELF, &made),
                  CLEAVE_TYPE, "source");
}

TEST(full_node_is_refused)
{
    cap_t made;
    rig_start(&rig);
    cap_t node = rig_node(&rig, 1);
    for (uint32_t i = 0; i < CNODE_SLOTS(1); i++) {
        (void)rig_copy(&rig, node, CAP_MAY_INFO, node);
    }
    CHECK_REFUSED(cap_copy(rig.ctx, rig.root, node, CAP_MAY_INFO, node, &made), CLEAVE_COUNT, "to");
    cap_t copy = rig_copy(&rig, node, CAP_MAY_ALL, CAP_SELF);
    CHECK_REFUSED(cap_move(rig.ctx, rig.root, copy, node, &made), CLEAVE_COUNT, "to");
    cap_t first;
    struct cnode *inside = rig_object(&rig, node);
    CHECK_OK(cap_at(rig.ctx, inside, 3, &first));
    CHECK_OK(cap_delete(rig.ctx, inside, first));
    CHECK_OK(cap_copy(rig.ctx, rig.root, node, CAP_MAY_INFO, node, &made));
    CHECK_EQ(CAP_INDEX(made), 3);
    CHECK_STATUS(rig_status(&rig, inside, first), CLEAVE_REVOKED);
    CHECK_OK(rig_status(&rig, inside, made));
    (void)rig_audit(&rig);
}

TEST(move_keeps_the_place_in_the_tree)
{
    cap_t moved;
    rig_start(&rig);
    cap_t node = rig_node(&rig, 4);
    struct cnode *inside = rig_object(&rig, node);
    cap_t pool = rig_pool(&rig, 8);
    cap_t copy = rig_copy(&rig, pool, CAP_MAY_ALL, CAP_SELF);
    cap_t below = rig_copy(&rig, copy, CAP_MAY_INFO, CAP_SELF);
    cap_t beside = rig_copy(&rig, pool, CAP_MAY_INFO, CAP_SELF);

    CHECK_OK(cap_move(rig.ctx, rig.root, copy, node, &moved));
    CHECK_STATUS(rig_status(&rig, rig.root, copy), CLEAVE_REVOKED);
    (void)rig_audit(&rig);
    CHECK_OK(cap_revoke(rig.ctx, inside, moved));
    CHECK_STATUS(rig_status(&rig, rig.root, below), CLEAVE_REVOKED);
    CHECK_OK(rig_status(&rig, rig.root, beside));
    CHECK_OK(cap_move(rig.ctx, rig.root, pool, CAP_SELF, &pool));
    CHECK_OK(cap_delete(rig.ctx, rig.root, pool));
    CHECK_STATUS(rig_status(&rig, inside, moved), CLEAVE_REVOKED);
    CHECK_EQ(rig_audit(&rig), 2);
}

/* A worn-out slot is never used again: its next generation would be its first. */
TEST(worn_slot_stays_empty)
{
    rig_start(&rig);
    cap_t node = rig_node(&rig, 1);
    cap_t copy = rig_copy(&rig, node, CAP_MAY_INFO, CAP_SELF);
    struct cap *slot = cnode_slot(rig.root, CAP_INDEX(copy));
    slot->generation = UINT32_MAX - 1;
    copy = cap_name(slot);

    CHECK_OK(cap_delete(rig.ctx, rig.root, copy));
    CHECK_STATUS(rig_status(&rig, rig.root, copy), CLEAVE_REVOKED);
    copy = rig_copy(&rig, node, CAP_MAY_INFO, CAP_SELF);
    CHECK_NE(CAP_INDEX(copy), CAP_INDEX(cap_name(slot)));
    CHECK_EQ(rig_audit(&rig), 3);
}

TEST(derivations_have_a_depth_limit)
{
    cap_t made;
    rig_start(&rig);
    cap_t node = rig_node(&rig, 64);
    struct cnode *inside = rig_object(&rig, node);
    cap_t self = rig_copy(&rig, node, CAP_MAY_ALL, node);
    cap_t deepest = self;

    for (unsigned depth = 3; depth < CAP_DEPTH_MAX; depth++) {
        CHECK_OK(cap_copy(rig.ctx, inside, deepest, CAP_MAY_ALL, CAP_SELF, &deepest));
    }
    struct cap_info info;
    CHECK_OK(cap_look(rig.ctx, inside, deepest, &info));
    CHECK_EQ(info.depth, CAP_DEPTH_MAX);
    CHECK_REFUSED(cap_copy(rig.ctx, inside, deepest, CAP_MAY_ALL, CAP_SELF, &made), CLEAVE_COUNT,
                  "source");
    CHECK_EQ(rig_audit(&rig), CAP_DEPTH_MAX);
    CHECK_OK(rig_revoke(&rig, rig.root, node, 1));
    CHECK_EQ(rig_audit(&rig), 2);
}

/* Memory must not end up inside itself: a node that holds, over however many steps, what it was
 * made from could only be destroyed after itself. */
TEST(loops_of_nodes_are_refused)
{
    cap_t moved, made;
    rig_start(&rig);
    cap_t piece = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 8);
    cap_t a = rig_retype(&rig, piece, CAP_CNODE, 1);
    cap_t b = rig_node(&rig, 1);
    cap_t below;
    REQUIRE_OK(untyped_retype(rig.ctx, rig.root, rig.untyped, CAP_CNODE, 1, 1, a, &below));

    CHECK_REFUSED(cap_move(rig.ctx, rig.root, a, a, &moved), CLEAVE_INVALID, "to");
    CHECK_REFUSED(cap_move(rig.ctx, rig.root, a, b, &moved), CLEAVE_INVALID, "to");
    CHECK_REFUSED(cap_move(rig.ctx, rig.root, piece, a, &moved), CLEAVE_INVALID, "to");
    CHECK_REFUSED(cap_move(rig.ctx, rig.root, piece, b, &moved), CLEAVE_INVALID, "to");
    CHECK_REFUSED(cap_move(rig.ctx, rig.root, rig.untyped, b, &moved), CLEAVE_INVALID, "to");
    (void)rig_audit(&rig);

    /* One from which nothing was made goes anywhere; what is then made of it lies higher. */
    cap_t fresh = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 8);
    CHECK_OK(cap_move(rig.ctx, rig.root, fresh, a, &fresh));
    struct cnode *inside = rig_object(&rig, a);
    CHECK_OK(untyped_retype(rig.ctx, inside, fresh, CAP_CNODE, 1, 1, CAP_SELF, &made));
    CHECK_OK(cap_move(rig.ctx, inside, below, CAP_SELF, &below));
    (void)rig_audit(&rig);
    CHECK_OK(rig_delete(&rig, rig.root, piece, 1));
    CHECK_EQ(rig_audit(&rig), 2);
    CHECK_OK(rig_revoke(&rig, rig.root, rig.untyped, 1));
    CHECK_EQ(rig_look(&rig, rig.untyped).unused, rig.frames);
}

/* --- Handles that name nothing (T-S2) --------------------------------------------------------- */

/* Every operation with `dead` in every place where a handle may stand. */
static void use_everywhere(cap_t dead, enum cleave_status status, cap_t pool, cap_t space)
{
    struct fork_options options = {.limit = UINT64_MAX};
    struct channel_options channel = {0};
    struct cap_use use;
    struct cap_info info;
    struct mm_ctx *ctx = rig.ctx;
    struct cnode *root = rig.root;
    cap_t made;

    CHECK_REFUSED(cap_copy(ctx, root, dead, 1, CAP_SELF, &made), status, "source");
    CHECK_REFUSED(cap_copy(ctx, root, pool, 1, dead, &made), status, "to");
    CHECK_REFUSED(cap_move(ctx, root, dead, CAP_SELF, &made), status, "source");
    CHECK_REFUSED(cap_move(ctx, root, pool, dead, &made), status, "to");
    CHECK_REFUSED(cap_delete(ctx, root, dead), status, "source");
    CHECK_REFUSED(cap_revoke(ctx, root, dead), status, "source");
    CHECK_REFUSED(cap_look(ctx, root, dead, &info), status, "source");
    CHECK_REFUSED(cap_use(ctx, root, dead, CAP_ANY_TYPE, 0, &use), status, "source");
    CHECK_REFUSED(untyped_retype(ctx, root, dead, CAP_UNTYPED, 1, 1, CAP_SELF, &made), status,
                  "source");
    CHECK_REFUSED(untyped_retype(ctx, root, rig.untyped, CAP_UNTYPED, 1, 1, dead, &made), status,
                  "to");
    CHECK_REFUSED(cap_create_space(ctx, root, dead, ANY, CAP_SELF, &made), status, "pool");
    CHECK_REFUSED(cap_create_space(ctx, root, pool, ANY, dead, &made), status, "to");
    CHECK_REFUSED(cap_create_channel(ctx, root, dead, &channel, CAP_SELF, &made), status, "pool");
    CHECK_REFUSED(cap_create_channel(ctx, root, pool, &channel, dead, &made), status, "to");
    CHECK_REFUSED(cap_create_pager(ctx, root, dead, space, gpa(0), CAP_SELF, &made), status,
                  "pool");
    CHECK_REFUSED(cap_create_pager(ctx, root, pool, dead, gpa(0), CAP_SELF, &made), status,
                  "space");
    CHECK_REFUSED(cap_create_pager(ctx, root, pool, space, gpa(0), dead, &made), status, "to");
    CHECK_REFUSED(cap_fork(ctx, root, dead, 1, &options, CAP_SELF, &made), status, "source");
    CHECK_REFUSED(cap_fork(ctx, root, space, 1, &options, dead, &made), status, "to");
    CHECK_REFUSED(cap_snapshot(ctx, root, dead, ANY, CAP_SELF, &made), status, "source");
    CHECK_REFUSED(cap_snapshot(ctx, root, space, ANY, dead, &made), status, "to");
}

TEST(s2_every_handle_after_revoke)
{
    rig_start(&rig);
    cap_t pool = rig_pool(&rig, 8);
    cap_t space = rig_space(&rig, pool);
    cap_t piece = rig_retype(&rig, rig.untyped, CAP_UNTYPED, rig.frames / 2);
    cap_t victim = rig_retype(&rig, piece, CAP_POOL, 8 * level_pages(1));
    cap_t dead[8] = {
        victim,
        rig_space(&rig, victim),
        rig_copy(&rig, victim, CAP_MAY_ALL, CAP_SELF),
        rig_retype(&rig, piece, CAP_CNODE, 1),
        rig_retype(&rig, piece, CAP_UNTYPED, 1),
    };
    dead[5] = rig_fork(&rig, dead[1], CAP_SELF);
    dead[6] = rig_copy(&rig, dead[5], CAP_MAY_ALL, CAP_SELF);
    CHECK_OK(cap_snapshot(rig.ctx, rig.root, dead[6], ANY, CAP_SELF, &dead[7]));
    CHECK_OK(cap_revoke(rig.ctx, rig.root, piece));
    CHECK_EQ(rig_audit(&rig), 4);

    /* First with the slots empty, then with other capabilities in them. */
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 8; i++) {
            test_case("round %u, handle %u", round, i);
            use_everywhere(dead[i], CLEAVE_REVOKED, pool, space);
        }
        for (unsigned i = 0; i < 8; i++) {
            (void)rig_copy(&rig, pool, CAP_MAY_ALL, CAP_SELF);
        }
    }
    test_case("%s", "");
    cap_t never = cap_handle(pool.v + (UINT64_C(1) << 32));
    use_everywhere(never, CLEAVE_NO_CAP, pool, space);
    (void)rig_audit(&rig);
}

TEST(handles_that_never_were)
{
    rig_start(&rig);
    cap_t pool = rig_pool(&rig, 8);
    cap_t space = rig_space(&rig, pool);
    struct cap_info info;

    /* A slot that exists, under a generation that it never had, and slots that do not exist. */
    cap_t next = cap_handle(pool.v + (UINT64_C(1) << 32));
    CHECK_REFUSED(cap_look(rig.ctx, rig.root, next, &info), CLEAVE_NO_CAP, "source");
    cap_t fresh = cap_handle(space.v + 1);
    CHECK_REFUSED(cap_look(rig.ctx, rig.root, fresh, &info), CLEAVE_NO_CAP, "source");
    cap_t past = cap_handle((pool.v & ~UINT64_C(0xffffffff)) | cnode_slots(rig.root));
    CHECK_REFUSED(cap_look(rig.ctx, rig.root, past, &info), CLEAVE_RANGE, "source");
    CHECK_EQ(rig.ctx->error.high, cnode_slots(rig.root) - 1);
}

/* A handle into a node does not open the one that is made in the same frames later. */
TEST(handle_does_not_outlive_its_node)
{
    rig_start(&rig);
    cap_t node = rig_node(&rig, 1);
    cap_t old = rig_copy(&rig, node, CAP_MAY_ALL, node);
    struct cnode *inside = rig_object(&rig, node);

    CHECK_OK(cap_revoke(rig.ctx, rig.root, rig.untyped));
    node = rig_node(&rig, 1);
    CHECK_EQ((uintptr_t)rig_object(&rig, node), (uintptr_t)inside);
    cap_t made = rig_copy(&rig, node, CAP_MAY_ALL, node);
    CHECK_EQ(CAP_INDEX(made), CAP_INDEX(old));
    CHECK(rig_status(&rig, inside, old) != CLEAVE_OK);
    CHECK_OK(rig_status(&rig, inside, made));
}

/* --- Types and rights ------------------------------------------------------------------------- */

TEST(wrong_types)
{
    struct fork_options options = {.limit = UINT64_MAX};
    struct channel_options channel = {0};
    struct cap_use use;
    cap_t made, snapshot;
    rig_start(&rig);
    struct mm_ctx *ctx = rig.ctx;
    struct cnode *root = rig.root;
    cap_t pool = rig_pool(&rig, 8);
    cap_t node = rig_node(&rig, 1);
    cap_t space = rig_space(&rig, pool);
    CHECK_OK(cap_snapshot(ctx, root, space, ANY, CAP_SELF, &snapshot));
    CHECK_OK(cap_create_channel(ctx, root, pool, &channel, CAP_SELF, &made));
    cap_t all[] = {rig.untyped, node, pool, space, snapshot, made};

    for (unsigned i = 0; i < 6; i++) {
        enum cap_type type = rig_look(&rig, all[i]).type;
        test_case("type %d", type);
        if (type != CAP_UNTYPED) {
            CHECK_REFUSED(untyped_retype(ctx, root, all[i], CAP_UNTYPED, 1, 1, CAP_SELF, &made),
                          CLEAVE_TYPE, "source");
        }
        if (type != CAP_CNODE) {
            CHECK_REFUSED(cap_copy(ctx, root, pool, 1, all[i], &made), CLEAVE_TYPE, "to");
        }
        if (type != CAP_POOL) {
            CHECK_REFUSED(cap_create_space(ctx, root, all[i], ANY, CAP_SELF, &made), CLEAVE_TYPE,
                          "pool");
        }
        if (type != CAP_SPACE && type != CAP_SNAPSHOT) {
            CHECK_REFUSED(cap_fork(ctx, root, all[i], 1, &options, CAP_SELF, &made), CLEAVE_TYPE,
                          "source");
            CHECK_REFUSED(cap_snapshot(ctx, root, all[i], ANY, CAP_SELF, &made), CLEAVE_TYPE,
                          "source");
        }
        for (unsigned t = 1; t < CAP_TYPES; t++) {
            enum cleave_status status = cap_use(ctx, root, all[i], CAP_BIT(t), 0, &use);
            bool right = t == type && t != CAP_UNTYPED;
            CHECK_STATUS(status, right ? CLEAVE_OK : CLEAVE_TYPE);
            if (status == CLEAVE_OK) {
                CHECK_EQ(use.type, type);
                cap_end(ctx, &use);
            }
        }
    }
    (void)rig_audit(&rig);
}

/* The design's helper: may fork one template and no more. */
TEST(spawn_forks_a_template_and_no_more)
{
    struct fork_options options = {.limit = UINT64_MAX};
    struct cap_use use;
    cap_t made, again;
    rig_start(&rig);
    cap_t pool = rig_pool(&rig, 16);
    cap_t space = rig_space(&rig, pool);
    cap_t node = rig_node(&rig, 1);
    struct cnode *helper = rig_object(&rig, node);
    cap_t template = rig_copy(&rig, space, CAP_MAY_SPAWN, node);
    struct mm_ctx *ctx = rig.ctx;

    CHECK_OK(cap_fork(ctx, helper, template, 1, &options, CAP_SELF, &made));
    CHECK_OK(cap_use(ctx, helper, made, CAP_BIT(CAP_SPACE), CAP_SPAWNED, &use));
    CHECK_EQ(use.rights, CAP_SPAWNED);
    cap_end(ctx, &use);
    CHECK_REFUSED(cap_fork(ctx, helper, made, 1, &options, CAP_SELF, &again), CLEAVE_DENIED,
                  "source");
    CHECK_REFUSED(cap_snapshot(ctx, helper, template, ANY, CAP_SELF, &again), CLEAVE_DENIED,
                  "source");
    for (unsigned right = 1; right <= CAP_MAY_ALL; right <<= 1) {
        if (!(right & CAP_SPAWNED)) {
            CHECK_REFUSED(cap_use(ctx, helper, made, CAP_BIT(CAP_SPACE), right, &use),
                          CLEAVE_DENIED, "source");
        }
        if (right != CAP_MAY_SPAWN) {
            CHECK_REFUSED(cap_use(ctx, helper, template, CAP_BIT(CAP_SPACE), right, &use),
                          CLEAVE_DENIED, "source");
        }
    }
    CHECK_OK(cap_delete(ctx, helper, made));
    CHECK_OK(cap_fork(ctx, helper, template, 1, &options, CAP_SELF, &made));
    (void)rig_audit(&rig);

    /* Who handed the template out takes back what was made with it, and only that. */
    CHECK_OK(cap_revoke(ctx, rig.root, space));
    CHECK_STATUS(rig_status(&rig, helper, template), CLEAVE_REVOKED);
    CHECK_STATUS(rig_status(&rig, helper, made), CLEAVE_REVOKED);
    CHECK_OK(rig_status(&rig, rig.root, space));
    CHECK_EQ(rig_audit(&rig), 4);
}

TEST(fork_outlives_its_parent_but_not_the_pool)
{
    rig_start(&rig);
    cap_t pool = rig_pool(&rig, 16);
    cap_t space = rig_space(&rig, pool);
    cap_t child = rig_fork(&rig, space, CAP_SELF);
    cap_t grandchild = rig_fork(&rig, child, CAP_SELF);

    CHECK_EQ(rig_look(&rig, grandchild).depth, rig_look(&rig, space).depth);
    CHECK_OK(cap_delete(rig.ctx, rig.root, space));
    CHECK_OK(cap_revoke(rig.ctx, rig.root, child));
    CHECK_OK(rig_status(&rig, rig.root, child));
    CHECK_OK(cap_delete(rig.ctx, rig.root, child));
    CHECK_OK(rig_status(&rig, rig.root, grandchild));
    (void)rig_audit(&rig);
    struct pool *object = rig_object(&rig, pool);
    CHECK_OK(cap_revoke(rig.ctx, rig.root, pool));
    CHECK_STATUS(rig_status(&rig, rig.root, grandchild), CLEAVE_REVOKED);
    CHECK(object->spaces == NULL && !object->dying);
    (void)rig_space(&rig, pool);
    CHECK_EQ(rig_audit(&rig), 3);
}

TEST(forks_in_one_call_are_all_or_none)
{
    struct fork_options options = {.limit = UINT64_MAX};
    cap_t made[FORK_MAX];
    rig_start(&rig);
    cap_t pool = rig_pool(&rig, 16);
    cap_t space = rig_space(&rig, pool);
    cap_t node = rig_node(&rig, 1);
    unsigned room = CNODE_SLOTS(1);

    CHECK_REFUSED(cap_fork(rig.ctx, rig.root, space, 0, &options, CAP_SELF, made), CLEAVE_COUNT,
                  "count");
    CHECK_REFUSED(cap_fork(rig.ctx, rig.root, space, FORK_MAX + 1, &options, CAP_SELF, made),
                  CLEAVE_COUNT, "count");
    CHECK_REFUSED(cap_fork(rig.ctx, rig.root, space, room + 1, &options, node, made), CLEAVE_COUNT,
                  "to");
    CHECK_OK(cap_fork(rig.ctx, rig.root, space, 3, &options, node, made));
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(CAP_INDEX(made[i]), i);
    }
    CHECK_EQ(rig_audit(&rig), 7);
    CHECK_OK(cap_delete(rig.ctx, rig.root, node));
    CHECK_EQ(rig_audit(&rig), 3);
}

/* --- Every allocation fails once -------------------------------------------------------------- */

/* A little of everything; stops at the first failure and returns it. */
static enum cleave_status scenario(void)
{
    struct fork_options options = {.limit = UINT64_MAX};
    struct channel_options channel = {0};
    struct mm_ctx *ctx = rig.ctx;
    struct cnode *root = rig.root;
    cap_t node, pool, space, copy, made[2];
    uint64_t before = 0;

#define STEP(call)                                                                                 \
    do {                                                                                           \
        before = rig_state();                                                                      \
        enum cleave_status status = call;                                                          \
        (void)rig_audit(&rig);                                                                     \
        if (status != CLEAVE_OK) {                                                                 \
            CHECK_EQ(rig_state(), before);                                                         \
            return status;                                                                         \
        }                                                                                          \
    } while (0)
    STEP(untyped_retype(ctx, root, rig.untyped, CAP_CNODE, 1, 1, CAP_SELF, &node));
    STEP(untyped_retype(ctx, root, rig.untyped, CAP_POOL, 16 * level_pages(1), 1, CAP_SELF, &pool));
    STEP(cap_create_space(ctx, root, pool, ANY, CAP_SELF, &space));
    STEP(cap_copy(ctx, root, space, CAP_MAY_ALL, node, &copy));
    STEP(cap_fork(ctx, root, space, 2, &options, node, made));
    STEP(cap_create_channel(ctx, root, pool, &channel, CAP_SELF, made));
    STEP(cap_snapshot(ctx, root, space, ANY, CAP_SELF, made));
    STEP(cap_move(ctx, root, space, node, &space));
#undef STEP
    return CLEAVE_OK;
}

TEST(every_allocation_fails)
{
    uint64_t k = 1;
    bool failed = true;
    rig_start(&rig);
    for (; failed; k++) {
        test_case("allocation %u", (unsigned)k);
        host_fail_allocation(k);
        enum cleave_status status = scenario();
        failed = host_allocation_failed();
        host_fail_allocation(0);
        CHECK(failed ? status == CLEAVE_COUNT || status == CLEAVE_NO_MEMORY : status == CLEAVE_OK);
        CHECK_OK(cap_revoke(rig.ctx, rig.root, rig.untyped));
        CHECK_EQ(rig_audit(&rig), 1);
        rig_check_empty(&rig);
    }
    CHECK(k > 8);
}

/* Its first node may lie where that of the machine before it did. */
TEST(next_machine_begins_with_nothing)
{
    for (unsigned machines = 0; machines < 2; machines++) {
        rig_start(&rig);
        CHECK_EQ(rig_audit(&rig), 1);
        (void)rig_copy(&rig, rig_node(&rig, 4), CAP_MAY_ALL, CAP_SELF);
        CHECK_EQ(rig_audit(&rig), 3);
        host_stop();
    }
}
