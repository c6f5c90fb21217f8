/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a reservation promises: however a fork writes, reads, is notified of or shared again, its
 * writes do not run out of memory. Whatever is nobody's is taken by others meanwhile.
 */
#include "notify.h"
#include "pager.h"
#include "pin.h"
#include "scene.h"

#define WINDOW (2 * GIGA)

static struct pager *pager;

/* --- What a reservation covers ---------------------------------------------------------------- */

/* A snapshot shares everything again: what the space may have to copy is reserved once more. */
TEST(a_snapshot_renews_it)
{
    const struct fork_options options = {.limit = UINT64_MAX, .reserve = true, .vcpus = 1};
    struct space *child = NULL, *snapshot = NULL;
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, 8, 0);
    REQUIRE_OK(space_fork(scene.ctx, space, 1, &options, &child));
    uint64_t goal = child->payer.reserved;
    for (unsigned i = 0; i < 8; i++) {
        scene_write(child, i, 1);
    }
    scene_drain(6);
    struct scene_state before = scene_state();
    CHECK_STATUS(space_snapshot(scene.ctx, child, UINT64_MAX, &snapshot), CLEAVE_RESERVE);
    SCENE_CHECK_SAME_VIEW(before, scene_state());
    CHECK_EQ(scene_state().charged, before.charged);
    scene_give_back(UINT64_MAX);
    REQUIRE_OK(space_snapshot(scene.ctx, child, UINT64_MAX, &snapshot));
    CHECK_EQ(child->payer.reserved, goal);
    scene_drain(0);
    for (unsigned i = 0; i < 8; i++) {
        CHECK_OK(scene_access(child, i, ACCESS_WRITE));
    }
    scene_give_back(UINT64_MAX);
    scene_end();
}

/* So much and no more: copies and tables as long as it lasts, then what is free, then none. */
TEST(covers_what_it_says)
{
    const struct fork_options options = {
        .limit = UINT64_MAX, .reserve = true, .vcpus = 1, .reserve_frames = ROOT_LEVEL + 3};
    struct space *child = NULL;
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, 8, 0);
    REQUIRE_OK(space_fork(scene.ctx, space, 1, &options, &child));
    CHECK_EQ(child->payer.reserved, ROOT_LEVEL + 3);
    scene_drain(0);
    uint64_t written = 0;
    while (written < 8 &&
           space_fault(scene.ctx, child, PAGE(written), ACCESS_WRITE, NULL) == CLEAVE_OK) {
        written++;
    }
    CHECK(written >= 3 && written < 8); /* tables for all of them on the way to the first */
    CHECK_EQ(child->payer.reserved, 0);
    CHECK_STATUS(space_fault(scene.ctx, child, PAGE(written), ACCESS_WRITE, NULL),
                 CLEAVE_NO_MEMORY);
    scene_give_back(UINT64_MAX);
    CHECK_OK(scene_access(child, written, ACCESS_WRITE));
    scene_end();
}

/* Tells of every event at once. */
static void allow_all(struct channel *channel)
{
    struct event event;
    while (channel_next(scene.ctx, channel, &event)) {
        REQUIRE_OK(channel_verdict(scene.ctx, channel, event.id, VERDICT_ALLOW));
    }
}

static void write_notified(struct channel *channel, struct space *space, uint64_t page)
{
    struct vcpu_wait wait = {.vcpu = 0};
    enum cleave_status status = space_fault(scene.ctx, space, PAGE(page), ACCESS_WRITE, &wait);
    if (status == CLEAVE_WAIT && wait.kind == WAIT_VERDICT) {
        allow_all(channel);
        status = space_fault(scene.ctx, space, PAGE(page), ACCESS_WRITE, &wait);
    }
    REQUIRE_OK(status);
}

/* Armed pages so far apart that each has tables, and nodes of the region tree, of its own. */
TEST(covers_scattered_armed_pages)
{
    const uint64_t count = TABLE_ENTRIES > 4 ? 32 : 4, apart = level_pages(ROOT_LEVEL);
    const struct channel_options synchronous = {.asynchronous = false};
    const struct fork_options options = {.limit = UINT64_MAX, .reserve = true, .vcpus = 1};
    struct channel *channel = NULL;
    struct space *child = NULL;
    scene_start(0);
    struct space *space = scene_space();
    REQUIRE_OK(channel_create(scene.ctx, scene.pool, &synchronous, &channel));
    for (uint64_t i = 0; i < count; i++) {
        scene_memory(space, i * apart, 1, 0);
        REQUIRE_OK(channel_arm(scene.ctx, channel, space, PAGE(i * apart), BYTES(1)));
    }
    REQUIRE_OK(space_fork(scene.ctx, space, 1, &options, &child));
    scene_drain(0);
    for (uint64_t i = 0; i < count; i++) {
        test_case("page %u", (unsigned)i);
        write_notified(channel, child, i * apart);
    }
    scene_give_back(UINT64_MAX);
    scene_end();
}

/* A page is armed again after each write: the nodes that come and go are the reservation's. */
TEST(outlasts_rearming)
{
    const struct channel_options synchronous = {.asynchronous = false};
    const struct fork_options options = {.limit = UINT64_MAX, .reserve = true, .vcpus = 1};
    struct channel *channel = NULL;
    struct space *child = NULL;
    scene_start(0);
    struct space *space = scene_space();
    REQUIRE_OK(channel_create(scene.ctx, scene.pool, &synchronous, &channel));
    scene_memory(space, 0, BLOCK, 0);
    REQUIRE_OK(channel_arm(scene.ctx, channel, space, PAGE(0), BYTES(BLOCK)));
    REQUIRE_OK(space_fork(scene.ctx, space, 1, &options, &child));
    for (unsigned i = 0; i < 2 * BLOCK + 64; i++) {
        test_case("round %u", i);
        scene_drain(0); /* what is nobody's, others take */
        write_notified(channel, child, 1);
        CHECK_OK(channel_rearm(scene.ctx, channel, child, PAGE(1), BYTES(1)));
    }
    scene_give_back(UINT64_MAX);
    scene_end();
}

/* Two vcpus split one paged block for want of a block to load: one table is in vain. */
TEST(outlasts_lost_splits_of_paged_blocks)
{
    const struct region paged = {.policy = REGION_PAGED, .rights = RIGHT_READ | RIGHT_WRITE};
    const struct fork_options options = {.limit = UINT64_MAX, .reserve = true, .vcpus = 2};
    struct space *child = NULL;
    scene_start(0);
    struct space *control = scene_space(), *space = scene_space();
    REQUIRE_OK(pager_create(scene.ctx, scene.pool, control, PAGE(WINDOW), &pager));
    REQUIRE_OK(space_map_paged(scene.ctx, space, PAGE(0), BYTES(BLOCK), pager, 1, 1, 0, &paged));
    REQUIRE_OK(space_fork(scene.ctx, space, 1, &options, &child));
    pte_t entry = scene_lookup(child, 0).entry;
    REQUIRE_OK(paged_split(scene.ctx, child, &child->payer, gfn(0), entry));
    uint64_t reserved = child->payer.reserved;
    CHECK_OK(paged_split(scene.ctx, child, &child->payer, gfn(0), entry));
    CHECK_EQ(child->payer.reserved, reserved);
    REQUIRE_OK(pager_destroy(scene.ctx, pager));
    scene_end();
}

/* The table that is in vain goes back to whom it came from: a grant, or whoever asks first. */
TEST(lost_splits_are_given_back_to_who_paid)
{
    const struct region paged = {.policy = REGION_PAGED, .rights = RIGHT_READ | RIGHT_WRITE};
    const struct fork_options options = {.limit = UINT64_MAX, .reserve = true, .vcpus = 2};
    for (unsigned granted = 0; granted < 2; granted++) {
        struct space *child = NULL;
        struct vcpu_wait wait = {.vcpu = 1};
        test_case("granted %u", granted);
        scene_start(0);
        struct space *control = scene_space(), *space = scene_space();
        REQUIRE_OK(pager_create(scene.ctx, scene.pool, control, PAGE(WINDOW), &pager));
        REQUIRE_OK(
            space_map_paged(scene.ctx, space, PAGE(0), BYTES(BLOCK), pager, 1, 1, 0, &paged));
        REQUIRE_OK(space_fork(scene.ctx, space, 1, &options, &child));
        pool_unreserve(scene.ctx, &child->payer); /* as if it were used up */
        pte_t entry = scene_lookup(child, 0).entry;
        REQUIRE_OK(paged_split(scene.ctx, child, &child->payer, gfn(0), entry));
        if (granted) {
            pool_wait(scene.ctx, scene.pool, &wait, 3);
        }
        uint64_t free = scene.pool->free;
        CHECK_OK(paged_split(scene.ctx, child, space_payer(child, &wait), gfn(0), entry));
        CHECK_EQ(child->payer.reserved, 0);
        CHECK_EQ(wait.grant.reserved, granted ? 3 : 0);
        CHECK_EQ(scene.pool->reserved, wait.grant.reserved);
        CHECK_EQ(scene.pool->free, free);
        pool_cancel_wait(scene.ctx, scene.pool, &wait);
        REQUIRE_OK(pager_destroy(scene.ctx, pager));
        scene_end();
    }
}

/* Another space maps a page and unmaps it again: the frame of the records comes and goes. */
TEST(outlasts_maps_that_come_and_go)
{
    const struct fork_options options = {.limit = UINT64_MAX, .reserve = true, .vcpus = 1};
    struct space *child = NULL;
    uint32_t id;
    scene_start(0);
    struct space *space = scene_space(), *mapper = scene_space();
    scene_memory(space, 0, 4, 0);
    REQUIRE_OK(space_fork(scene.ctx, space, 1, &options, &child));
    REQUIRE_OK(foreign_map(scene.ctx, child, PAGE(0), mapper, PAGE(0)));
    REQUIRE_OK(foreign_unmap(scene.ctx, mapper, PAGE(0)));
    REQUIRE_OK(space_pin(scene.ctx, child, PAGE(1), BYTES(1), true, &id));
    REQUIRE_OK(space_unpin(scene.ctx, child, id));
    uint64_t reserved = child->payer.reserved;
    for (unsigned i = 0; i < 16; i++) {
        REQUIRE_OK(foreign_map(scene.ctx, child, PAGE(0), mapper, PAGE(0)));
        REQUIRE_OK(foreign_unmap(scene.ctx, mapper, PAGE(0)));
        REQUIRE_OK(space_pin(scene.ctx, child, PAGE(1), BYTES(1), true, &id));
        REQUIRE_OK(space_unpin(scene.ctx, child, id));
    }
    CHECK_EQ(child->payer.reserved, reserved);
    scene_end();
}

/* --- Paged memory and reservations ------------------------------------------------------------ */

/* One access that may have to load its page first. */
static enum cleave_status access_paged(struct space *space, uint64_t page, enum access access)
{
    struct vcpu_wait wait = {.vcpu = 0};
    struct load_request request;
    bool found = false;

    enum cleave_status status = space_fault(scene.ctx, space, PAGE(page), access, &wait);
    if (status != CLEAVE_WAIT || wait.kind != WAIT_LOAD) {
        return status;
    }
    REQUIRE_OK(pager_next(scene.ctx, pager, &request, &found));
    REQUIRE(found);
    REQUIRE_OK(pager_done(scene.ctx, pager, request.id, true));
    return space_fault(scene.ctx, space, PAGE(page), access, &wait);
}

static const struct paged_case {
    const char *label;
    bool snapshot;
    unsigned order;
} paged_cases[] = {{"pages-of-a-snapshot", true, 0},
                   {"pages-of-a-space", false, 0},
                   {"blocks-of-a-snapshot", true, 1},
                   {"blocks-of-a-space", false, 1}};

/* A page that is read first is loaded for all who share it, and copied when it is written. */
TEST_TABLE(covers_paged_memory_read_and_written, paged_cases)
{
    const struct region paged = {.policy = REGION_PAGED, .rights = RIGHT_READ | RIGHT_WRITE};
    const struct fork_options options = {.limit = UINT64_MAX, .reserve = true, .vcpus = 1};
    const uint64_t pages = row->order == 1 || BLOCK < 64 ? BLOCK : 64;
    struct space *child = NULL;
    scene_start(0);
    struct space *control = scene_space(), *space = scene_space();
    scene_region(control, 0, 1, REGION_PRIVATE, RIGHT_ALL, 0);
    REQUIRE_OK(pager_create(scene.ctx, scene.pool, control, PAGE(WINDOW), &pager));
    REQUIRE_OK(
        space_map_paged(scene.ctx, space, PAGE(0), BYTES(pages), pager, row->order, 1, 0, &paged));
    REQUIRE_OK(
        space_fork(scene.ctx, row->snapshot ? scene_snapshot(space) : space, 1, &options, &child));
    REQUIRE_OK(pool_reserve(scene.ctx, &control->payer, 8)); /* for the window's tables */
    scene_drain(0);
    for (uint64_t i = 0; i < pages; i++) {
        test_case("read of page %u", (unsigned)i);
        REQUIRE_OK(access_paged(child, i, ACCESS_READ));
    }
    for (uint64_t i = 0; i < pages; i++) {
        test_case("write of page %u", (unsigned)i);
        REQUIRE_OK(access_paged(child, i, ACCESS_WRITE));
    }
    scene_give_back(UINT64_MAX);
    REQUIRE_OK(pager_destroy(scene.ctx, pager));
    scene_end();
}
