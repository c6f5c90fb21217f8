/* SPDX-License-Identifier: BSD-2-Clause */
/* Revoke of pools whose spaces hold memory, run, are pinned, notify and load on demand. */
#include "cap_rig.h"

#include "host.h"
#include "pin.h"

#define ANY UINT64_MAX

static struct cap_rig rig;

/* A space of 4 KiB pages at 0, of which some are written. */
static cap_t make_guest(cap_t pool, unsigned pages)
{
    struct region region = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};
    cap_t cap = rig_space(&rig, pool);
    struct space *space = rig_object(&rig, cap);
    uint64_t done;

    REQUIRE_OK(space_set_region(rig.ctx, space, gpa(0), 64 * PAGE_SIZE, &region));
    for (unsigned i = 0; i < pages; i++) {
        REQUIRE_OK(space_write(rig.ctx, space, gpa(i * 5 * PAGE_SIZE), "abc", 3, NULL, &done));
    }
    return cap;
}

static void write_page(cap_t cap, unsigned page)
{
    uint64_t done;
    REQUIRE_OK(
        space_write(rig.ctx, rig_object(&rig, cap), gpa(page * PAGE_SIZE), "def", 3, NULL, &done));
}

/* The frames of a pool in which nothing was made yet. */
static uint64_t free_when_new(cap_t pool) { return ((struct pool *)rig_object(&rig, pool))->free; }

TEST(revoke_frees_what_spaces_hold)
{
    rig_start(&rig);
    for (uint64_t every = 1; every < 2000; every = every * 5 + 1) {
        cap_t pool = rig_pool(&rig, 40);
        struct pool *object = rig_object(&rig, pool);
        uint64_t free = free_when_new(pool);
        cap_t parent = make_guest(pool, 10);
        cap_t child = rig_fork(&rig, parent, CAP_SELF);
        cap_t grandchild = rig_fork(&rig, child, CAP_SELF);
        write_page(child, 5);
        write_page(grandchild, 10);
        write_page(parent, 40);

        test_case("budget %u", (unsigned)every);
        CHECK_OK(rig_revoke(&rig, rig.root, pool, every));
        CHECK(object->spaces == NULL);
        CHECK_EQ(object->reap_tables, 0);
        /* What stays is what the pool keeps for its records. */
        CHECK(free - object->free <= 2);
        parent = make_guest(pool, 10);
        CHECK_OK(rig_delete(&rig, rig.root, pool, every));
        CHECK_EQ(rig_audit(&rig), 1);
        rig_check_empty(&rig);
    }
}

TEST(revoke_of_a_pool_whose_spaces_run)
{
    char buffer[3];
    rig_start(&rig);
    cap_t pool = rig_pool(&rig, 40);
    cap_t parent = make_guest(pool, 10);
    cap_t child = rig_fork(&rig, parent, CAP_SELF);

    REQUIRE_OK(host_cpu_run(1, rig_object(&rig, parent)));
    REQUIRE_OK(host_cpu_run(2, rig_object(&rig, child)));
    CHECK_OK(host_cpu_write(1, gpa(5 * PAGE_SIZE), "xyz", 3));
    CHECK_OK(host_cpu_read(2, gpa(5 * PAGE_SIZE), buffer, 3));
    rig.ctx->budget = 1;
    CHECK_STATUS(cap_revoke(rig.ctx, rig.root, pool), CLEAVE_AGAIN);
    rig.ctx->budget = UINT64_MAX;
    CHECK_OK(cap_revoke(rig.ctx, rig.root, pool));
    CHECK_STATUS(host_cpu_read(1, gpa(5 * PAGE_SIZE), buffer, 3), CLEAVE_DYING);
    CHECK_STATUS(host_cpu_read(2, gpa(5 * PAGE_SIZE), buffer, 3), CLEAVE_DYING);
    host_tlb_check();
    CHECK_OK(cap_delete(rig.ctx, rig.root, pool));
    rig_check_empty(&rig);
}

/* --- A call in flight when the revoke comes --------------------------------------------------- */

static cap_t pool_cap, node_cap;
static unsigned calls;

/* CPU 1, in the midst of a fork on CPU 0. */
static void revoke_meanwhile(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                             void *arg)
{
    (void)ctx, (void)a, (void)b, (void)arg;
    if (point == POINT_FLUSH && calls == 0) {
        calls++;
        CHECK_STATUS(cap_delete(host_ctx(1), rig.root, node_cap), CLEAVE_AGAIN);
        CHECK_STATUS(cap_revoke(host_ctx(1), rig.root, pool_cap), CLEAVE_AGAIN);
    }
}

/* What it makes belongs to what is being revoked, and lies in a node that is being destroyed: the
 * first must know, the second must wait. */
TEST(fork_in_flight_is_revoked_too)
{
    struct fork_options options = {.limit = ANY};
    cap_t made;
    TEST_NEEDS_HOOKS();
    for (unsigned through_copy = 0; through_copy < 2; through_copy++) {
        rig_start(&rig);
        calls = 0;
        pool_cap = rig_pool(&rig, 40);
        node_cap = rig_node(&rig, 1);
        cap_t guest = make_guest(pool_cap, 10);
        struct pool *object = rig_object(&rig, pool_cap);
        struct cnode *node = rig_object(&rig, node_cap);
        if (through_copy) {
            guest = rig_copy(&rig, guest, CAP_MAY_ALL, CAP_SELF);
        }
        REQUIRE_OK(host_cpu_run(2, rig_object(&rig, guest)));
        host_on_point(revoke_meanwhile, NULL);
        enum cleave_status status =
            cap_fork(rig.ctx, rig.root, guest, 1, &options, node_cap, &made);
        host_on_point(NULL, NULL);
        CHECK_EQ(calls, 1);
        CHECK_OK(status);
        CHECK_STATUS(rig_status(&rig, node, made), CLEAVE_DYING);
        CHECK_EQ(rig_audit(&rig), 5 + through_copy);
        CHECK_EQ(cnode_slot(node, CAP_INDEX(made))->flags & CAP_TAKEN, CAP_TAKEN);
        CHECK_OK(rig_revoke(&rig, rig.root, pool_cap, 1));
        CHECK(object->spaces == NULL);
        CHECK_OK(rig_delete(&rig, rig.root, node_cap, 1));
        CHECK_EQ(rig_audit(&rig), 2);
        host_stop();
    }
}

TEST(pin_makes_it_busy_and_calling_again_goes_on)
{
    uint32_t id;
    rig_start(&rig);
    cap_t pool = rig_pool(&rig, 40);
    cap_t guest = make_guest(pool, 10);
    cap_t other = make_guest(pool, 4);
    struct space *space = rig_object(&rig, guest);

    REQUIRE_OK(space_pin(rig.ctx, space, gpa(5 * PAGE_SIZE), PAGE_SIZE, true, &id));
    for (unsigned i = 0; i < 2; i++) {
        CHECK_STATUS(cap_revoke(rig.ctx, rig.root, pool), CLEAVE_BUSY);
        CHECK_EQ(rig.ctx->error.status, CLEAVE_BUSY);
        CHECK_EQ(rig.ctx->error.value, id);
        CHECK_STATUS(rig_status(&rig, rig.root, guest), CLEAVE_REVOKED);
        (void)rig_audit(&rig);
    }
    CHECK_STATUS(rig_status(&rig, rig.root, other), CLEAVE_REVOKED);
    CHECK_OK(space_unpin(rig.ctx, space, id));
    CHECK_OK(cap_revoke(rig.ctx, rig.root, pool));
    CHECK_OK(cap_delete(rig.ctx, rig.root, pool));
    rig_check_empty(&rig);
}

TEST(space_without_a_capability_makes_it_busy)
{
    struct space *space;
    rig_start(&rig);
    cap_t pool = rig_pool(&rig, 8);

    REQUIRE_OK(space_create(rig.ctx, rig_object(&rig, pool), ANY, &space));
    uint32_t id = space->id;
    CHECK_STATUS(cap_delete(rig.ctx, rig.root, pool), CLEAVE_BUSY);
    CHECK_EQ(rig.ctx->error.value, id);
    CHECK_OK(space_destroy(rig.ctx, space));
    CHECK_OK(cap_delete(rig.ctx, rig.root, pool));
    rig_check_empty(&rig);
}

TEST(snapshot_lives_on_as_a_base)
{
    struct fork_options options = {.limit = ANY, .base = true};
    cap_t snapshot, child;
    rig_start(&rig);
    cap_t pool = rig_pool(&rig, 40);
    struct pool *object = rig_object(&rig, pool);
    cap_t guest = make_guest(pool, 10);

    REQUIRE_OK(cap_snapshot(rig.ctx, rig.root, guest, ANY, CAP_SELF, &snapshot));
    REQUIRE_OK(cap_fork(rig.ctx, rig.root, snapshot, 1, &options, CAP_SELF, &child));
    write_page(child, 5);
    CHECK_OK(rig_delete(&rig, rig.root, guest, 1));
    CHECK_OK(rig_delete(&rig, rig.root, snapshot, 1));
    CHECK_STATUS(rig_status(&rig, rig.root, snapshot), CLEAVE_REVOKED);
    struct space *space = rig_object(&rig, child);
    CHECK(space->base != NULL);
    CHECK_OK(space_reset(rig.ctx, space, NULL, 0));
    CHECK_OK(rig_delete(&rig, rig.root, child, 1));
    CHECK(object->spaces == NULL);
    CHECK_OK(cap_delete(rig.ctx, rig.root, pool));
    rig_check_empty(&rig);
}

TEST(channels_and_pagers_go_with_the_pool)
{
    struct channel_options options = {.max_dirty = 0};
    cap_t channel, pager;
    rig_start(&rig);
    cap_t pool = rig_pool(&rig, 40);
    cap_t guest = make_guest(pool, 10);
    cap_t own = rig_space(&rig, pool);

    REQUIRE_OK(cap_create_channel(rig.ctx, rig.root, pool, &options, CAP_SELF, &channel));
    REQUIRE_OK(channel_arm(rig.ctx, rig_object(&rig, channel), rig_object(&rig, guest), gpa(0),
                           4 * PAGE_SIZE));
    REQUIRE_OK(cap_create_pager(rig.ctx, rig.root, pool, own, gpa(0), CAP_SELF, &pager));
    CHECK_EQ(rig_audit(&rig), 6);
    CHECK_OK(rig_delete(&rig, rig.root, own, 1));
    CHECK_OK(rig_status(&rig, rig.root, pager));
    CHECK_OK(rig_delete(&rig, rig.root, channel, 1));
    write_page(guest, 0);
    CHECK_OK(rig_revoke(&rig, rig.root, pool, 1));
    CHECK_STATUS(rig_status(&rig, rig.root, pager), CLEAVE_REVOKED);
    CHECK_OK(rig_delete(&rig, rig.root, pool, 1));
    rig_check_empty(&rig);
}
