/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Calls whose work grows with a guest's range, with the words of its regions or with what lies in a
 * block: with the smallest budget each call gets ahead by one step and no more, what it has not
 * finished nobody can see, it fails or is given up without a trace, and it ends.
 */
#include "change.h"
#include "notify.h"
#include "pin.h"
#include "scene.h"

#define REAL (TABLE_ENTRIES > 4)
#define PAGES ((REAL ? 6 : 16) * BLOCK) /* more words than are changed in one go */
#define AT (GIGA + 1)                   /* where they begin: at no border */
#define BUDGET 1u
#define MANY 1000000u

static struct space *space;
static struct channel *channel;

static void start(uint64_t blocks)
{
    scene_start(blocks);
    space = scene_space();
    channel = NULL;
}

static void finish(void)
{
    if (channel != NULL) {
        channel_destroy(scene.ctx, channel);
    }
    scene_end();
}

/* --- Operations that may stop ----------------------------------------------------------------- */

static enum cleave_status do_share(void)
{
    const struct region shared = {.policy = REGION_SHARED, .rights = RIGHT_ALL};
    return space_set_region(scene.ctx, space, PAGE(AT), BYTES(PAGES), &shared);
}
static enum cleave_status do_unshare(void)
{
    const struct region private = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};
    return space_set_region(scene.ctx, space, PAGE(AT), BYTES(PAGES), &private);
}
static enum cleave_status do_device(void)
{
    return space_map_device(scene.ctx, space, PAGE(AT), BYTES(PAGES), pfn((uint32_t)machine.frames),
                            RIGHT_READ | RIGHT_WRITE, false);
}
static enum cleave_status do_protect(void)
{
    return space_protect(scene.ctx, space, PAGE(AT), BYTES(PAGES), RIGHT_READ);
}
static enum cleave_status do_wipe(void)
{
    const struct region wipe = {.policy = REGION_WIPE, .rights = RIGHT_READ};
    return space_set_region(scene.ctx, space, PAGE(AT), BYTES(PAGES), &wipe);
}
static enum cleave_status do_arm(void)
{
    return channel_arm(scene.ctx, channel, space, PAGE(AT), BYTES(PAGES));
}
static enum cleave_status do_rearm(void)
{
    return channel_rearm(scene.ctx, channel, space, PAGE(AT), BYTES(PAGES));
}
static enum cleave_status do_disarm(void)
{
    return channel_disarm(scene.ctx, channel, space, PAGE(AT), BYTES(PAGES));
}
static enum cleave_status do_unmap(void)
{
    return space_unmap(scene.ctx, space, PAGE(AT), BYTES(PAGES));
}

/* Memory whose neighbouring pages have other rights. */
static void prepare_words(void)
{
    scene_memory(space, AT, PAGES, 0);
    for (uint64_t i = 0; i < PAGES; i += 2) {
        REQUIRE_OK(
            space_protect(scene.ctx, space, PAGE(AT + i), PAGE_SIZE, RIGHT_READ | RIGHT_WRITE));
    }
}

/* Shared memory whose neighbouring pages have other rights, and a fork maps it, too. */
static void prepare_shared(void)
{
    REQUIRE_OK(do_share());
    for (uint64_t i = 0; i < PAGES; i += 2) {
        REQUIRE_OK(
            space_protect(scene.ctx, space, PAGE(AT + i), PAGE_SIZE, RIGHT_READ | RIGHT_WRITE));
    }
    (void)scene_fork(space);
    scene_write(space, AT + 3, 0); /* its tables are the space's own */
}

/* The same, armed, and every third page dirty. */
static void prepare_dirty(void)
{
    const struct channel_options options = {.asynchronous = true};
    struct event event;
    prepare_words();
    REQUIRE_OK(channel_create(scene.ctx, scene.pool, &options, &channel));
    REQUIRE_OK(do_arm());
    for (uint64_t i = 0; i < PAGES; i += 3) {
        scene_write(space, AT + i, 1000 + i);
        (void)channel_next(scene.ctx, channel, &event);
    }
    CHECK_EQ(channel_dirty(scene.ctx, channel), (PAGES + 2) / 3);
}

static void prepare_nothing(void) {}

static const struct operation {
    const char *label;
    void (*prepare)(void);
    enum cleave_status (*run)(void);
    bool hidden; /* nothing of it is to be seen until it is done, and space_give_up() ends it */
} operations[] = {
    {"share", prepare_nothing, do_share, true},    {"device", prepare_nothing, do_device, true},
    {"protect", prepare_words, do_protect, true},  {"policy", prepare_words, do_wipe, true},
    {"arm", prepare_dirty, do_arm, true},          {"rearm", prepare_dirty, do_rearm, true},
    {"disarm", prepare_dirty, do_disarm, true},    {"unmap", prepare_dirty, do_unmap, false},
    {"unshare", prepare_shared, do_unshare, true},
};

static enum cleave_status run_with(const struct operation *op, uint64_t budget)
{
    scene.ctx->budget = budget;
    enum cleave_status status = op->run();
    scene.ctx->budget = UINT64_MAX;
    return status;
}

/* Words of the tree that is looked at, or pages that are staged, between two moments of op_at. */
static uint64_t progress(gfn_t from, gfn_t to)
{
    struct gfn_range range = {from, to};
    if (from.v >= to.v) {
        return 0;
    }
    region_word_t tree = space->op_phase == PHASE_BUILD ? space->op_regions : space->regions;
    bool pages = space->op_phase >= PHASE_STAGE;
    return pages ? to.v - from.v : region_count_words(tree, range, MANY);
}

/* With a budget of one unit a call looks at one step's words, or fills one leaf; there are as many
 * calls as that takes, and the end is that of one call. */
TEST_TABLE(a_call_does_one_step, operations)
{
    struct scene_state whole;
    for (unsigned turn = 0; turn < 2; turn++) {
        test_case("turn %u", turn);
        start(0);
        row->prepare();
        enum cleave_status status = CLEAVE_AGAIN;
        uint64_t calls = 0;
        while (status == CLEAVE_AGAIN && calls < MANY) {
            gfn_t before = space->op != OP_NONE ? space->op_at : gfn(AT);
            uint8_t phase = space->op_phase;
            status = run_with(row, turn == 0 ? UINT64_MAX : BUDGET);
            calls++;
            if (status == CLEAVE_AGAIN && space->op_phase == phase && space->op != OP_NONE) {
                CHECK_LE(progress(before, space->op_at), 3 * TABLE_ENTRIES);
            }
            if (status == CLEAVE_AGAIN && calls % 64 == 1) {
                scene_audit();
            }
        }
        CHECK_OK(status);
        CHECK(turn == 0 ? calls == 1 : calls > PAGES / (4 * TABLE_ENTRIES));
        CHECK_EQ(space->op, OP_NONE);
        scene_audit();
        REQUIRE(table_reap(scene.ctx, scene.pool));
        struct scene_state state = scene_state();
        if (turn == 0) {
            whole = state;
        } else {
            SCENE_CHECK_SAME_VIEW(whole, state);
            CHECK_EQ(whole.free, state.free);
        }
        if (channel != NULL && row->run == do_unmap) {
            CHECK_EQ(channel_dirty(scene.ctx, channel), 0);
        }
        finish();
    }
}

/* Stops a hidden operation after some calls. */
static void stop_after(const struct operation *op, unsigned calls)
{
    for (unsigned i = 0; i < calls; i++) {
        REQUIRE_EQ(run_with(op, BUDGET), CLEAVE_AGAIN);
    }
}

/* Between two calls the guest and forks find everything as it was; others that would change the
 * space are refused; what was stopped can be given up, and leaves nothing. */
TEST_TABLE(what_is_stopped_is_not_to_be_seen, operations)
{
    const struct fork_options plain = {.limit = UINT64_MAX};
    const struct region other = {.policy = REGION_PRIVATE, .rights = RIGHT_READ};
    uint64_t early;
    struct space *child;
    if (!row->hidden) {
        CHECK(true);
        return;
    }
    for (unsigned calls = 1; calls < 8; calls++) {
        test_case("after %u calls", calls);
        start(0);
        row->prepare();
        REQUIRE(table_reap(scene.ctx, scene.pool));
        struct scene_state before = scene_state();
        stop_after(row, calls);
        struct scene_state after = scene_state();
        SCENE_CHECK_SAME_VIEW(before, after);
        scene_audit();
        CHECK_STATUS(space_fork(scene.ctx, space, 1, &plain, &child), CLEAVE_BUSY);
        CHECK_STATUS(space_unmap(scene.ctx, space, PAGE(AT), PAGE_SIZE), CLEAVE_BUSY);
        CHECK_STATUS(space_protect(scene.ctx, space, PAGE(AT), PAGE_SIZE, RIGHT_READ), CLEAVE_BUSY);
        CHECK_STATUS(space_set_region(scene.ctx, space, PAGE(0), PAGE_SIZE, &other), CLEAVE_BUSY);
        CHECK_STATUS(space_populate(scene.ctx, space, PAGE(AT), PAGE_SIZE), CLEAVE_BUSY);
        CHECK_STATUS(space_move(scene.ctx, space, PAGE(AT), PAGE(0), PAGE_SIZE, &early),
                     CLEAVE_BUSY);
        if (row->prepare == prepare_nothing) {
            CHECK_STATUS(scene_access(space, AT, ACCESS_READ), CLEAVE_FAULT);
        } else if (channel == NULL) {
            scene_write(space, AT + 3, 7);
            scene_write(space, AT + 3, 0);
        }
        after = scene_state();
        CHECK_OK(space_give_up(scene.ctx, space));
        CHECK_EQ(space->op, OP_NONE);
        REQUIRE(table_reap(scene.ctx, scene.pool));
        after = scene_state();
        CHECK_EQ(before.free, after.free);
        CHECK_EQ(before.charged, after.charged);
        scene_audit();
        CHECK_OK(run_with(row, UINT64_MAX));
        finish();
    }
}

TEST_TABLE(a_stopped_space_can_be_destroyed, operations)
{
    for (unsigned calls = 1; calls < 8; calls++) {
        test_case("after %u calls", calls);
        start(0);
        row->prepare();
        stop_after(row, calls);
        scene_destroy(space);
        if (channel != NULL) {
            CHECK_EQ(channel_dirty(scene.ctx, channel), 0);
        }
        finish();
    }
}

/* Whichever allocation fails, in whichever call, nothing is left of it. */
TEST_TABLE(a_failure_leaves_nothing, operations)
{
    static const uint64_t budgets[] = {BUDGET, UINT64_MAX};
    for (unsigned b = 0; b < 2; b++) {
        enum cleave_status status = CLEAVE_NO_MEMORY;
        start(0);
        row->prepare();
        REQUIRE(table_reap(scene.ctx, scene.pool));
        for (unsigned fail = 1; status != CLEAVE_OK; fail += REAL && fail > 20 ? 97 : 1) {
            test_case("allocation %u, budget %d", fail, (int)budgets[b]);
            struct scene_state before = scene_state();
            host_fail_allocation(fail);
            do {
                status = run_with(row, budgets[b]);
            } while (status == CLEAVE_AGAIN);
            host_fail_allocation(0);
            if (status == CLEAVE_OK) {
                break;
            }
            CHECK_STATUS(status, CLEAVE_NO_MEMORY);
            REQUIRE(table_reap(scene.ctx, scene.pool));
            struct scene_state after = scene_state();
            SCENE_CHECK_SAME_VIEW(before, after);
            /* Empty tables may stay, and those that were made the space's own. */
            uint64_t stays = row->run == do_unshare ? 2 * PAGES / TABLE_ENTRIES : 0;
            CHECK_LE(before.free - after.free, 2 * ROOT_LEVEL + stays);
            scene_audit();
        }
        finish();
    }
}

/* A pool that runs empty in the middle, and a quota: all that was taken comes back, step by step.
 */
TEST(sharing_more_than_there_is)
{
    for (unsigned quota = 0; quota < 2; quota++) {
        start(0);
        if (quota) {
            REQUIRE_OK(account_set_limit(scene.ctx, scene.pool, space->payer.account, PAGES / 2));
        } else {
            scene_drain(PAGES / 2);
        }
        uint64_t free = scene.pool->free, calls = 0;
        enum cleave_status status;
        do {
            scene.ctx->budget = BUDGET;
            uint64_t before = scene.pool->free;
            status = do_share();
            scene.ctx->budget = UINT64_MAX;
            uint64_t after = scene.pool->free;
            CHECK_LE(after > before ? after - before : 0, TABLE_ENTRIES + 1 + 2 * TABLE_LEVELS);
            calls++;
        } while (status == CLEAVE_AGAIN);
        CHECK_STATUS(status, quota ? CLEAVE_QUOTA : CLEAVE_NO_MEMORY);
        CHECK(calls > PAGES / 2 - 8);
        CHECK_EQ(scene.pool->free, free);
        CHECK_EQ(region_get(space->regions, gfn(AT)).policy, REGION_NONE);
        scene_audit();
        scene_give_back(UINT64_MAX);
        scene_end();
    }
}

/* An unmap that took effect cannot be given up: whoever it shuts out goes on with it, step by step,
 * and its own caller finds holes. */
TEST(others_finish_an_unmap)
{
    const struct operation unmap = {.run = do_unmap};
    unsigned steps = 0;
    start(0);
    scene_memory(space, 0, 1, 0);
    prepare_dirty();
    CHECK(!space_help_unmap(scene.ctx, space));
    do {
        REQUIRE_EQ(run_with(&unmap, BUDGET), CLEAVE_AGAIN);
        if (space->op_phase == PHASE_CHECK) {
            CHECK(!space_help_unmap(scene.ctx, space)); /* this one can be given up */
        }
    } while (space->op_phase == PHASE_CHECK);
    CHECK_STATUS(space_give_up(scene.ctx, space), CLEAVE_BUSY);
    CHECK_STATUS(space_protect(scene.ctx, space, PAGE(0), PAGE_SIZE, RIGHT_READ), CLEAVE_BUSY);
    for (;;) {
        uint64_t before = channel_dirty(scene.ctx, channel);
        scene.ctx->budget = BUDGET;
        bool stopped = space_help_unmap(scene.ctx, space);
        scene.ctx->budget = UINT64_MAX;
        if (!stopped) {
            break;
        }
        CHECK_LE(before - channel_dirty(scene.ctx, channel), 2);
        CHECK(++steps < MANY);
        scene_audit();
    }
    CHECK(steps > PAGES / 6);
    CHECK_EQ(channel_dirty(scene.ctx, channel), 0);
    CHECK_OK(space_protect(scene.ctx, space, PAGE(0), PAGE_SIZE, RIGHT_READ));
    CHECK_OK(do_unmap());
    finish();
}

/* The leaf that a mapping or a populate is zeroing is not lost when nobody goes on with it. */
TEST(a_leaf_that_is_zeroed_is_given_up)
{
    const struct region memory = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 2};
    scene_start(REAL ? 2 * TABLE_ENTRIES : 0);
    space = scene_space();
    uint64_t free = scene.pool->free;
    for (unsigned populate = 0; populate < 2; populate++) {
        test_case("populate %u", populate);
        if (populate) {
            REQUIRE_OK(space_set_region(scene.ctx, space, PAGE(GIGA), BYTES(GIGA), &memory));
            free = scene.pool->free;
        }
        scene.ctx->budget = BUDGET;
        CHECK_STATUS(populate ? space_populate(scene.ctx, space, PAGE(GIGA), BYTES(GIGA))
                              : space_map(scene.ctx, space, PAGE(GIGA), 2, &memory),
                     CLEAVE_AGAIN);
        scene.ctx->budget = UINT64_MAX;
        CHECK_LE(scene.pool->free, free - GIGA);
        CHECK_OK(space_give_up(scene.ctx, space));
        CHECK_EQ(scene.pool->free, free);
        scene_audit();
    }
    CHECK_OK(space_populate(scene.ctx, space, PAGE(GIGA), BYTES(GIGA)));
    CHECK_EQ(scene_lookup(space, GIGA).level, 2);
    scene_end();
}

/* --- Shared memory that becomes private ------------------------------------------------------- */

/* Goes on until the operation stands in `phase`, `steps` steps behind its beginning. */
static void stop_in(enum space_phase phase, unsigned steps)
{
    while (space->op == OP_NONE || space->op_phase != phase || steps-- > 0) {
        scene.ctx->budget = BUDGET;
        REQUIRE_EQ(do_unshare(), CLEAVE_AGAIN);
        scene.ctx->budget = UINT64_MAX;
    }
}

/* While leaves are looked at and split nobody can tell, and it can be given up. */
TEST(settling_is_not_to_be_seen)
{
    start(0);
    prepare_shared();
    struct space *child = scene.pool->spaces;
    struct scene_state before = scene_state();
    uint64_t reserved = scene.pool->reserved;
    stop_in(PHASE_SETTLE, TABLE_ENTRIES + 2);
    struct scene_state after = scene_state();
    SCENE_CHECK_SAME_VIEW(before, after);
    scene_audit();
    scene_write(space, AT + 5, 8);
    scene_check(child, AT + 5, 8);
    scene_write(child, AT + 5, 0);
    scene_check(space, AT + 5, 0);
    CHECK_OK(space_give_up(scene.ctx, space));
    CHECK_EQ(scene.pool->reserved, reserved);
    after = scene_state();
    SCENE_CHECK_SAME_VIEW(before, after);
    scene_audit();
    CHECK_OK(do_unshare());
    finish();
}

/* From the first page on that is private it has all the memory it needs, only stops, and has to be
 * finished: what is behind it is private, what lies before it shared. */
TEST(shared_pages_become_private_in_order)
{
    const struct fork_options plain = {.limit = UINT64_MAX};
    struct space *made;
    uint32_t id;
    for (unsigned ending = 0; ending < 4; ending++) {
        start(0);
        prepare_shared();
        struct space *child = scene.pool->spaces;
        for (uint64_t i = 0; i < PAGES; i++) {
            scene_write(child, AT + i, 100 + i);
        }
        stop_in(PHASE_CONVERT, 2);
        uint64_t at = space->op_at.v;
        CHECK(at > AT + TABLE_ENTRIES && at < AT + PAGES - TABLE_ENTRIES);
        scene_audit();
        for (uint64_t page = at - 2; page < at + 2; page++) {
            test_case("page %d", (int)(page - at));
            scene_write(child, page, 7);
            scene_check(space, page, page < at ? 100 + page - AT : 7);
            scene_write(space, page, 9);
            scene_check(child, page, page < at ? 7 : 9);
        }
        scene_audit();
        CHECK_STATUS(space_give_up(scene.ctx, space), CLEAVE_BUSY);
        CHECK_STATUS(space_fork(scene.ctx, space, 1, &plain, &made), CLEAVE_BUSY);
        CHECK_STATUS(space_pin(scene.ctx, space, PAGE(at), PAGE_SIZE, true, &id), CLEAVE_BUSY);
        if (ending == 0) {
            scene_destroy(space);
        } else if (ending == 3) { /* by whoever it shuts out, in as many steps */
            unsigned steps = 0;
            bool stopped = true;
            for (; stopped; steps++) {
                scene.ctx->budget = BUDGET;
                stopped = space_help_convert(scene.ctx, space);
                scene.ctx->budget = UINT64_MAX;
            }
            CHECK(steps > PAGES / TABLE_ENTRIES / 2);
            CHECK_EQ(space->op, OP_NONE);
            CHECK_EQ(scene.pool->reserved, 0);
            CHECK_EQ(region_get(space->regions, gfn(AT)).policy, REGION_PRIVATE);
            scene_check(space, AT + PAGES - 1, 100 + PAGES - 1);
            CHECK_OK(do_unshare()); /* its own caller finds it done */
        } else if (ending == 1) {   /* what is left is the space's own: nothing more is copied */
            scene_destroy(child);
            uint64_t copied = space->stats.pages_copied;
            CHECK_OK(do_unshare());
            CHECK_EQ(space->stats.pages_copied, copied);
            CHECK_EQ(scene.pool->reserved, 0);
            scene_check(space, AT + PAGES - 1, 100 + PAGES - 1);
        } else {
            scene_drain(0);
            scene.ctx->budget = UINT64_MAX;
            host_fail_allocation(1);
            CHECK_OK(do_unshare());
            CHECK(!host_allocation_failed());
            host_fail_allocation(0);
            scene_give_back(UINT64_MAX);
            CHECK_EQ(region_get(space->regions, gfn(AT + 1)).policy, REGION_PRIVATE);
            for (uint64_t i = 0; i < PAGES; i++) {
                scene_write(child, AT + i, 3);
                bool written = AT + i + 2 >= at && AT + i < at + 2;
                scene_check(space, AT + i, written ? 9 : 100 + i);
            }
        }
        scene_audit();
        finish();
    }
}

/* Leaves of every size: those of the space's own stay whole, others are copied page by page. */
TEST(shared_leaves_of_every_size_become_private)
{
    const struct region private = {.policy = REGION_PRIVATE, .rights = RIGHT_READ};
    for (unsigned order = 0; order < LEAF_ORDERS; order++) {
        for (unsigned forked = 0; forked < 2; forked++) {
            test_case("order %u, forked %u", order, forked);
            scene_start(REAL ? 3 * TABLE_ENTRIES : 0);
            space = scene_space();
            uint64_t pages = order == 2 && (!REAL || !forked) ? GIGA : 2 * BLOCK;
            scene_region(space, GIGA, pages, REGION_SHARED, RIGHT_ALL, order);
            scene_write(space, GIGA, 1);
            scene_write(space, GIGA + pages - 1, 2);
            struct space *child = forked ? scene_fork(space) : NULL;
            unsigned level = scene_lookup(space, GIGA).level;
            uint64_t free = scene.pool->free, calls = 1;
            scene.ctx->budget = BUDGET;
            while (space_set_region(scene.ctx, space, PAGE(GIGA), BYTES(pages), &private) ==
                   CLEAVE_AGAIN) {
                scene.ctx->budget = BUDGET;
                calls++;
            }
            scene.ctx->budget = UINT64_MAX;
            CHECK_EQ(region_get(space->regions, gfn(GIGA)).policy, REGION_PRIVATE);
            CHECK_EQ(scene_lookup(space, GIGA).level, forked ? 0 : level);
            REQUIRE(table_reap(scene.ctx, scene.pool));
            CHECK(forked ? free - scene.pool->free >= pages : free <= scene.pool->free);
            CHECK_LE(forked ? pages / TABLE_ENTRIES : 2, calls);
            CHECK_STATUS(scene_access(space, GIGA, ACCESS_WRITE), CLEAVE_FAULT);
            CHECK_EQ(scene.pool->reserved, 0);
            if (child != NULL) {
                scene_write(child, GIGA, 3);
                scene_write(child, GIGA + pages - 1, 4);
            }
            scene_check(space, GIGA, 1);
            scene_check(space, GIGA + pages - 1, 2);
            scene_end();
        }
    }
}

/* What is reserved for it is asked for before anything is private. */
TEST(too_little_memory_leaves_shared_memory_shared)
{
    for (unsigned quota = 0; quota < 2; quota++) {
        start(0);
        prepare_shared();
        struct space *child = scene.pool->spaces;
        struct scene_state before = scene_state();
        uint64_t charged = account_of(scene.pool, space->payer.account)->charged;
        if (quota) {
            REQUIRE_OK(account_set_limit(scene.ctx, scene.pool, space->payer.account,
                                         charged + PAGES - 1));
        } else {
            scene_drain(PAGES - 1);
        }
        CHECK_STATUS(do_unshare(), quota ? CLEAVE_QUOTA : CLEAVE_NO_MEMORY);
        CHECK_EQ(space->op, OP_NONE);
        scene_give_back(UINT64_MAX);
        struct scene_state after = scene_state();
        SCENE_CHECK_SAME_VIEW(before, after);
        scene_write(child, AT, 4);
        scene_check(space, AT, 4);
        REQUIRE_OK(account_set_limit(scene.ctx, scene.pool, space->payer.account, UINT64_MAX));
        CHECK_OK(do_unshare());
        scene_audit();
        finish();
    }
}

/* Its quota neither: what is reserved counts as charged, so that nothing else of the domain takes
 * it, and it is had under whatever quota there is by then. */
TEST(others_of_the_domain_leave_room_for_the_copies)
{
    const uint64_t fresh = AT + PAGES + GIGA;
    for (unsigned lower = 0; lower < 2; lower++) {
        start(0);
        prepare_shared();
        scene_region(space, fresh, BLOCK, REGION_PRIVATE, RIGHT_ALL, 0);
        struct space *child = scene.pool->spaces;
        const struct account *account = account_of(scene.pool, space->payer.account);
        for (uint64_t i = 0; i < PAGES; i++) {
            scene_write(child, AT + i, 100 + i);
        }
        stop_in(PHASE_CONVERT, 2);
        CHECK(space->op_payer.reserved > TABLE_ENTRIES);
        uint64_t limit = account->charged + space->op_payer.reserved + ROOT_LEVEL + 2;
        REQUIRE_OK(account_set_limit(scene.ctx, scene.pool, space->payer.account, limit));
        enum cleave_status status = CLEAVE_OK;
        uint64_t touched = 0;
        for (; status == CLEAVE_OK && touched < BLOCK; touched += status == CLEAVE_OK) {
            status = space_fault(scene.ctx, space, PAGE(fresh + touched), ACCESS_WRITE, NULL);
        }
        CHECK_STATUS(status, CLEAVE_QUOTA);
        CHECK_LE(2, touched);
        CHECK_EQ(account->charged + space->op_payer.reserved, limit);
        scene_audit();
        if (lower) {
            REQUIRE_OK(account_set_limit(scene.ctx, scene.pool, space->payer.account, 1));
        }
        CHECK_OK(do_unshare());
        CHECK_LE(account->charged, limit);
        CHECK_EQ(account->promised, 0);

        for (uint64_t i = 0; i < PAGES; i++) {
            scene_look(space, AT + i, 100 + i);
        }
        scene_audit();
        finish();
    }
}

/* --- Writers while a change is built ---------------------------------------------------------- */

static unsigned woken;
static void on_wake(struct vcpu_wait *wait, void *arg)
{
    (void)wait, (void)arg;
    woken++;
}

/* What an asynchronous writer does to the regions would be lost in the tree that is being built: it
 * waits until that has taken its place, and the write is then told of. */
TEST(writers_wait_for_a_change)
{
    for (unsigned give_up = 0; give_up < 2; give_up++) {
        struct vcpu_wait wait = {.vcpu = 1};
        struct event event;
        start(0);
        prepare_dirty();
        host_on_wake(on_wake, NULL);
        woken = 0;
        scene.ctx->budget = BUDGET;
        while (!change_building(space)) {
            REQUIRE_EQ(do_rearm(), CLEAVE_AGAIN);
            scene.ctx->budget = BUDGET;
        }
        scene.ctx->budget = UINT64_MAX;
        CHECK_STATUS(space_fault(scene.ctx, space, PAGE(AT + 1), ACCESS_WRITE, &wait), CLEAVE_WAIT);
        CHECK_EQ(wait.kind, WAIT_RING);
        CHECK_OK(give_up ? space_give_up(scene.ctx, space) : do_rearm());
        CHECK_EQ(woken, 1);
        CHECK_EQ(wait.kind, WAIT_NONE);
        CHECK(!channel_next(scene.ctx, channel, &event));
        CHECK_OK(space_fault(scene.ctx, space, PAGE(AT + 1), ACCESS_WRITE, &wait));
        CHECK(channel_next(scene.ctx, channel, &event));
        CHECK_EQ(event.range.start.v, AT + 1);
        CHECK_EQ(channel_dirty(scene.ctx, channel), give_up ? (PAGES + 2) / 3 + 1 : 1);
        finish();
    }
}

/* --- Reset ------------------------------------------------------------------------------------ */

/* A reset that keeps 2 MiB leaves copies one of them in a call, and takes one word's dirty grains
 * off in another. */
TEST(reset_stops_between_blocks_and_words)
{
    const struct fork_options based = {.limit = UINT64_MAX, .base = true};
    const struct channel_options options = {.asynchronous = true};
    const struct region whole = {
        .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .whole = true, .order = 1};
    const uint64_t blocks = 4, dirty = 2 * BLOCK;
    const struct gfn_range keep = {gfn(GIGA), gfn(GIGA + blocks * BLOCK)};
    struct space *child;
    struct event event;
    enum cleave_status status;
    unsigned calls = 0;

    start(0);
    REQUIRE_OK(space_set_region(scene.ctx, space, PAGE(GIGA), BYTES(blocks * BLOCK), &whole));
    REQUIRE_OK(space_populate(scene.ctx, space, PAGE(GIGA), BYTES(blocks * BLOCK)));
    scene_memory(space, 0, dirty, 0);
    REQUIRE_OK(channel_create(scene.ctx, scene.pool, &options, &channel));
    REQUIRE_OK(channel_arm(scene.ctx, channel, space, PAGE(0), BYTES(dirty)));
    REQUIRE_OK(space_fork(scene.ctx, space, 1, &based, &child));
    for (uint64_t i = 0; i < blocks; i++) {
        scene_write(child, GIGA + i * BLOCK, 5 + i);
        CHECK_EQ(scene_lookup(child, GIGA + i * BLOCK).level, 1);
    }
    for (uint64_t i = 0; i < dirty; i += 2) {
        scene_write(child, i, 9);
        (void)channel_next(scene.ctx, channel, &event);
    }
    CHECK_EQ(channel_dirty(scene.ctx, channel), dirty / 2);
    do {
        uint64_t before = channel_dirty(scene.ctx, channel);
        gfn_t at = child->op_at;
        scene.ctx->budget = BUDGET;
        status = space_reset(scene.ctx, child, &keep, 1);
        scene.ctx->budget = UINT64_MAX;
        CHECK_LE(before - channel_dirty(scene.ctx, channel), 2);
        if (at.v >= GIGA && child->op_at.v > at.v && child->op_at.v < GUEST_PAGES) {
            CHECK_LE(child->op_at.v - at.v, 2 * BLOCK);
        }
        scene_audit();
        calls++;
    } while (status == CLEAVE_AGAIN);
    CHECK_OK(status);
    CHECK(calls > dirty / 2 + blocks - 2);
    CHECK_EQ(channel_dirty(scene.ctx, channel), 0);
    for (uint64_t i = 0; i < blocks; i++) {
        scene_check(child, GIGA + i * BLOCK, 0);
        CHECK_EQ(scene_lookup(child, GIGA + i * BLOCK).level, 1);
    }
    scene_check(child, 0, 0);
    finish();
}

/* --- Populate --------------------------------------------------------------------------------- */

/* All calls together are linear: what is there is paid for once, and is not looked at again. */
TEST(populate_is_linear)
{
    for (unsigned turn = 0; turn < 2; turn++) { /* filling, and passing over what is filled */
        start(0);
        scene_region(space, AT, PAGES, REGION_PRIVATE, RIGHT_ALL, 0);
        for (unsigned again = 0; again <= turn; again++) {
            enum cleave_status status;
            uint64_t calls = 0;
            do {
                uint64_t free = scene.pool->free;
                gfn_t at = space->populate.at;
                scene.ctx->budget = 4;
                status = space_populate(scene.ctx, space, PAGE(AT), BYTES(PAGES));
                scene.ctx->budget = UINT64_MAX;
                CHECK_LE(free - scene.pool->free, 4 + 1 + TABLE_LEVELS);
                if (at.v >= AT && space->populate.at.v > at.v && space->populate.checked) {
                    CHECK_LE(space->populate.at.v - at.v, 4 + TABLE_ENTRIES);
                }
                calls++;
            } while (status == CLEAVE_AGAIN && calls < 2 * PAGES);
            CHECK_OK(status);
            CHECK(calls >= PAGES / (4 + TABLE_ENTRIES));
            CHECK_LE(calls, PAGES / 2 + 64);
        }
        scene_end();
    }
}

/* What makes holes in its range starts it anew; what does not, or is elsewhere, leaves it. */
TEST(populate_knows_what_was_undone)
{
    uint64_t early;
    for (unsigned what = 0; what < 5; what++) {
        test_case("case %u", what);
        start(0);
        scene_region(space, AT, PAGES, REGION_PRIVATE, RIGHT_ALL, 0);
        scene_region(space, 0, 2, REGION_PRIVATE, RIGHT_ALL, 0);
        scene.ctx->budget = PAGES / 2;
        REQUIRE_EQ(space_populate(scene.ctx, space, PAGE(AT), BYTES(PAGES)), CLEAVE_AGAIN);
        scene.ctx->budget = UINT64_MAX;
        switch (what) {
        case 0:
            REQUIRE_OK(space_unmap(scene.ctx, space, PAGE(AT + 1), PAGE_SIZE));
            scene_region(space, AT + 1, 1, REGION_PRIVATE, RIGHT_ALL, 0);
            break;
        case 1:
            REQUIRE_OK(space_move(scene.ctx, space, PAGE(AT + 2), PAGE(8), PAGE_SIZE, &early));
            scene_region(space, AT + 2, 1, REGION_PRIVATE, RIGHT_ALL, 0);
            break;
        case 2:
            REQUIRE_OK(space_protect(scene.ctx, space, PAGE(AT), BYTES(PAGES), RIGHT_READ));
            break;
        case 3:
            REQUIRE_OK(space_unmap(scene.ctx, space, PAGE(0), PAGE_SIZE));
            break;
        case 4: /* another range has to wait until this one's caller does not come any more */
            scene.ctx->budget = 1;
            REQUIRE_EQ(space_populate(scene.ctx, space, PAGE(0), PAGE_SIZE), CLEAVE_AGAIN);
            scene.ctx->budget = UINT64_MAX;
            CHECK(space->populate.range.start.v == AT);
            break;
        }
        CHECK_EQ(space->populate.range.end.v != 0, what >= 2);
        CHECK_OK(space_populate(scene.ctx, space, PAGE(AT), BYTES(PAGES)));
        for (uint64_t i = 0; i < PAGES; i++) {
            CHECK_EQ(scene_lookup(space, AT + i).kind, PTE_KIND_LEAF);
        }
        scene_end();
    }
}

/* Two ranges in turn, each with the smallest budget: both end. And one whose caller is gone. */
TEST(populates_take_turns)
{
    for (unsigned gone = 0; gone < 2; gone++) {
        enum cleave_status a = CLEAVE_AGAIN, b = CLEAVE_AGAIN;
        start(0);
        scene_region(space, AT, 2 * PAGES, REGION_PRIVATE, RIGHT_ALL, 0);
        for (unsigned i = 0; i < MANY && (a == CLEAVE_AGAIN || b == CLEAVE_AGAIN); i++) {
            scene.ctx->budget = 2;
            if (a == CLEAVE_AGAIN && (!gone || i < 2)) {
                a = space_populate(scene.ctx, space, PAGE(AT), BYTES(PAGES));
            } else if (gone) {
                a = CLEAVE_OK;
            }
            scene.ctx->budget = 2;
            if (b == CLEAVE_AGAIN) {
                b = space_populate(scene.ctx, space, PAGE(AT + PAGES), BYTES(PAGES));
            }
        }
        scene.ctx->budget = UINT64_MAX;
        CHECK_OK(a);
        CHECK_OK(b);
        scene_end();
    }
}

/* --- Blocks that dissolve --------------------------------------------------------------------- */

static uint64_t
    freed; /* parts that went back to the pool, each after its descriptor was looked at */
#ifdef MM_HOOKS
static void count_freed(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                        void *arg)
{
    (void)ctx, (void)a, (void)b, (void)arg;
    freed += point == POINT_FREE;
}
#endif

/* The last whole reference to a 1 GiB block of which every 2 MiB block has one part in use. */
TEST_TIMED(a_block_dissolves_in_steps, 120)
{
    TEST_NEEDS_HOOKS();
    const uint64_t most = ((TABLE_ENTRIES + 63) / 64 + 1) * TABLE_ENTRIES;
    scene_start(2 * TABLE_ENTRIES);
    struct payer payer = {.pool = scene.pool};
    uint64_t free = scene.pool->free, calls = 0;
    pfn_t giga;
    REQUIRE_OK(pool_alloc(scene.ctx, &payer, 2, FRAME_DATA, &giga));
    for (uint64_t i = 0; i < TABLE_ENTRIES; i++) {
        REQUIRE_OK(frame_get(scene.ctx, pfn_add(giga, i * BLOCK + i % BLOCK), 0));
    }
#ifdef MM_HOOKS
    host_on_point(count_freed, NULL);
#endif
    freed = 0;
    frame_put(scene.ctx, giga, 2);
    CHECK_LE(freed, most);
    /* Who holds parts goes on with them, settled or not. */
    pfn_t last = pfn_add(giga, (TABLE_ENTRIES - 1) * BLOCK + (TABLE_ENTRIES - 1) % BLOCK);
    CHECK(frame_is_exclusive(scene.ctx, last, 0, 0));
    REQUIRE_OK(frame_get(scene.ctx, last, 0));
    CHECK(!frame_is_exclusive(scene.ctx, last, 0, 0));
    frame_put(scene.ctx, last, 0);
    frame_put(scene.ctx, last, 0);
    bool done;
    do {
        freed = 0;
        scene.ctx->budget = BUDGET;
        done = table_reap(scene.ctx, scene.pool);
        scene.ctx->budget = UINT64_MAX;
        CHECK_LE(freed, 2 * TABLE_ENTRIES);
        calls++;
    } while (!done);
    CHECK(calls >= TABLE_ENTRIES / 2);
    host_on_point(NULL, NULL);
    CHECK_EQ(scene.pool->free, free - (TABLE_ENTRIES - 1));
    for (uint64_t i = 0; i + 1 < TABLE_ENTRIES; i++) {
        frame_put(scene.ctx, pfn_add(giga, i * BLOCK + i % BLOCK), 0);
    }
    CHECK_EQ(scene.pool->free, free);
    scene_end();
}

/* --- What is refused because it cannot be stopped --------------------------------------------- */

TEST(limits)
{
    const struct fork_options plain = {.limit = UINT64_MAX};
    static unsigned char bytes[1];
    struct space *child;
    uint64_t early, done;

    start(0);
    scene_region(space, 0, REAL ? 40 * BLOCK : 32, REGION_PRIVATE, RIGHT_ALL, 0);
    CHECK_STATUS(space_read(scene.ctx, space, PAGE(0), bytes, SPACE_ACCESS_MAX + 1, NULL),
                 SPACE_ACCESS_MAX < BYTES(GUEST_PAGES) ? CLEAVE_COUNT : CLEAVE_RANGE);
    CHECK_STATUS(space_write(scene.ctx, space, PAGE(0), bytes, SPACE_ACCESS_MAX + 1, NULL, &done),
                 SPACE_ACCESS_MAX < BYTES(GUEST_PAGES) ? CLEAVE_COUNT : CLEAVE_RANGE);
    if (REAL) {
        const struct region wipe = {.policy = REGION_WIPE, .rights = RIGHT_ALL};
        for (uint64_t i = 0; i <= 2 * FORK_MAX_WORDS; i += 2) {
            REQUIRE_OK(space_set_region(scene.ctx, space, PAGE(i), PAGE_SIZE, &wipe));
        }
        CHECK_STATUS(space_fork(scene.ctx, space, 1, &plain, &child), CLEAVE_COUNT);
        CHECK_STATUS(space_snapshot(scene.ctx, space, UINT64_MAX, &child), CLEAVE_COUNT);
        CHECK_STATUS(
            space_move(scene.ctx, space, PAGE(0), PAGE(GIGA), BYTES(MOVE_MAX_WORDS + 2), &early),
            CLEAVE_COUNT);
        CHECK_STATUS(space_unmap(scene.ctx, space, PAGE(0), PAGE_SIZE), CLEAVE_OK);
        CHECK_OK(space_fork(scene.ctx, space, 1, &plain, &child));
    }
    scene_end();
}

/* What a device holds is copied by a fork, and settled by it and a move: not without end. */
TEST(pinned_memory_is_not_copied_without_end)
{
    const struct fork_options plain = {.limit = UINT64_MAX};
    struct space *child;
    uint64_t early;
    uint32_t id;

    start((REAL ? 2 : 8) * TABLE_ENTRIES);
    scene_memory(space, 2 * GIGA, GIGA, 2);
    scene_memory(space, 0, 1, 0);
    REQUIRE_OK(space_pin(scene.ctx, space, PAGE(2 * GIGA), BYTES(GIGA), false, &id));
    bool much = GIGA > PINNED_MAX_PAGES;
    CHECK_STATUS(space_move(scene.ctx, space, PAGE(0), PAGE(BLOCK), PAGE_SIZE, &early),
                 much ? CLEAVE_COUNT : CLEAVE_OK);
    enum cleave_status status = space_fork(scene.ctx, space, 1, &plain, &child);
    CHECK_STATUS(status, much ? CLEAVE_COUNT : CLEAVE_OK);
    REQUIRE_OK(space_unpin(scene.ctx, space, id));
    CHECK_OK(space_fork(scene.ctx, space, 1, &plain, &child));
    scene_end();
}
