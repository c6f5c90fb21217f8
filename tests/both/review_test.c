/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Errors that a review found in the core, one test each: what a caller, a guest or another CPU had
 * to do at the wrong moment, and what must come of it.
 */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "collapse.h"
#include "notify.h"
#include "pager.h"
#include "pin.h"
#include "scene.h"

static bool guest_may_write(struct space *space, uint64_t page)
{
    return (host_walk(space->root, PAGE(page)).rights & RIGHT_WRITE) != 0;
}

/* --- The pager's window ----------------------------------------------------------------------- */

#define WINDOW (2 * GIGA)

static struct pager *pager;

/* A control space whose pager has taken one load of a block. */
static struct space *control_with_load(struct load_request *request)
{
    const struct region paged = {.policy = REGION_PAGED, .rights = RIGHT_READ | RIGHT_WRITE};
    struct space *control, *space;
    bool found = false;

    scene_start(0);
    control = scene_space();
    space = scene_space();
    scene_region(control, 0, 4, REGION_PRIVATE, RIGHT_ALL, 0);
    REQUIRE_OK(pager_create(scene.ctx, scene.pool, control, PAGE(WINDOW), &pager));
    REQUIRE_OK(space_map_paged(scene.ctx, space, PAGE(0), BYTES(BLOCK), pager, 1, 1, 0, &paged));
    REQUIRE_OK(pager_prefetch(scene.ctx, pager, space, PAGE(0)));
    REQUIRE_OK(pager_next(scene.ctx, pager, request, &found));
    REQUIRE(found);
    return control;
}

static void end_load(const struct load_request *request)
{
    REQUIRE_OK(pager_done(scene.ctx, pager, request->id, true));
    REQUIRE_OK(pager_destroy(scene.ctx, pager));
    scene_end();
}

/* A leaf in the window has no owner to be looked up. */
TEST(a_pagers_window_is_no_foreign_map)
{
    struct load_request request;
    struct space *control = control_with_load(&request);
    CHECK_STATUS(foreign_unmap(scene.ctx, control, request.window), CLEAVE_NOT_MAPPED);
    end_load(&request);
}

/* A fork of the pager's space takes write bits on the way to the window. */
TEST(a_pager_that_forks_goes_on_filling)
{
    struct load_request request;
    struct space *control = control_with_load(&request);
    uint64_t page = request.window.v >> PAGE_SHIFT;
    scene_write(control, page, 1);
    (void)scene_fork(control);
    scene_write(control, page, 2);
    end_load(&request);
}

/* The references of window leaves are the loads'. */
TEST(a_pagers_space_is_not_reset)
{
    struct load_request request;
    const struct fork_options options = {.limit = UINT64_MAX, .base = true};
    struct space *control = control_with_load(&request), *fork;
    REQUIRE_OK(pager_done(scene.ctx, pager, request.id, true));
    REQUIRE_OK(pager_destroy(scene.ctx, pager));
    REQUIRE_OK(space_fork(scene.ctx, control, 1, &options, &fork));
    bool found = false;
    const struct region paged = {.policy = REGION_PAGED, .rights = RIGHT_READ | RIGHT_WRITE};
    struct space *other = scene_space();
    REQUIRE_OK(pager_create(scene.ctx, scene.pool, fork, PAGE(WINDOW), &pager));
    REQUIRE_OK(space_map_paged(scene.ctx, other, PAGE(0), BYTES(BLOCK), pager, 1, 1, 0, &paged));
    REQUIRE_OK(pager_prefetch(scene.ctx, pager, other, PAGE(0)));
    REQUIRE_OK(pager_next(scene.ctx, pager, &request, &found));
    REQUIRE(found);
    CHECK_STATUS(space_reset(scene.ctx, fork, NULL, 0), CLEAVE_BUSY);
    REQUIRE_OK(pager_done(scene.ctx, pager, request.id, true));
    REQUIRE_OK(pager_destroy(scene.ctx, pager));
    CHECK_OK(space_reset(scene.ctx, fork, NULL, 0));
    scene_end();
}

/* --- Memory granted by another tenant's pool -------------------------------------------------- */

/* A writer through a foreign map does not wait for the owner's pool. Who waited there, and was
 * granted memory, does not take it for its own. */
TEST(a_grant_is_spent_in_its_own_pool)
{
    struct vcpu_wait wait = {.vcpu = 0};
    struct space *owner, *mapper;

    scene_start_with(0, &(struct host_options){.frames = 4 * GIGA});
    struct pool *theirs = host_pool(BYTES(8 * BLOCK));
    owner = scene_space();
    scene_region(owner, 0, 4, REGION_PRIVATE, RIGHT_ALL, 0);
    scene_write(owner, 0, 1);
    (void)scene_fork(owner);
    REQUIRE_OK(space_create(scene.ctx, theirs, UINT64_MAX, &mapper));
    scene_region(mapper, 0, 4, REGION_PRIVATE, RIGHT_ALL, 0);
    REQUIRE_OK(foreign_map(scene.ctx, owner, PAGE(0), mapper, PAGE(8)));
    scene_drain(0);
    CHECK_STATUS(space_fault(scene.ctx, mapper, PAGE(8), ACCESS_WRITE, &wait), CLEAVE_NO_MEMORY);
    CHECK(wait.kind == WAIT_NONE && !wait.memory_fails);
    REQUIRE_EQ(space_fault(scene.ctx, owner, PAGE(0), ACCESS_WRITE, &wait), CLEAVE_WAIT);
    scene_give_back(16);
    REQUIRE(wait.grant.reserved != 0);
    CHECK_OK(space_fault(scene.ctx, mapper, PAGE(1), ACCESS_WRITE, &wait));
    CHECK(pool_of(scene_lookup(mapper, 1).frame) == theirs);
    scene_give_back(UINT64_MAX);
    CHECK_OK(space_fault(scene.ctx, mapper, PAGE(8), ACCESS_WRITE, &wait));
    CHECK_EQ(scene.pool->reserved, 0);
    REQUIRE_OK(space_destroy(scene.ctx, mapper));
    scene_end();
}

/* --- Shared memory made private --------------------------------------------------------------- */

static struct {
    struct space *space;
    bool wrote;
} racer;

static void write_if_possible(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                              void *arg)
{
    (void)ctx, (void)a, (void)arg;
    bool leaf = (b & pt_format.present) && !(b & PTE_SHARED) && pte_pfn(b).v != 0;
    if (point == POINT_ENTRY && leaf && !racer.wrote && guest_may_write(racer.space, 1)) {
        racer.wrote = true;
        scene_write(racer.space, 1, 9);
    }
}

/* A guest goes on writing while its shared memory becomes private: nothing that it wrote is lost.
 */
TEST(a_write_while_memory_is_unshared_is_kept)
{
    TEST_NEEDS_HOOKS();
    const struct region private = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};
    scene_start(0);
    racer.space = scene_space();
    racer.wrote = false;
    scene_region(racer.space, 0, 4, REGION_SHARED, RIGHT_ALL, 0);
    struct space *child = scene_fork(racer.space);
    scene_write(racer.space, 1, 5);
    host_on_point(write_if_possible, NULL);
    CHECK_OK(space_set_region(scene.ctx, racer.space, PAGE(0), BYTES(4), &private));
    host_on_point(NULL, NULL);
    scene_check(racer.space, 1, racer.wrote ? 9 : 5);
    scene_check(child, 1, 5);
    scene_end();
}

/* What a device writes to stays where it is. */
TEST(pinned_memory_is_not_unshared)
{
    const struct region private = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};
    uint32_t id;
    pfn_t pinned;
    scene_start(0);
    struct space *space = scene_space();
    scene_region(space, 0, 4, REGION_SHARED, RIGHT_ALL, 0);
    REQUIRE_OK(space_pin(scene.ctx, space, PAGE(1), BYTES(1), true, &id));
    REQUIRE_OK(space_pinned_frame(scene.ctx, space, id, PAGE(1), &pinned));
    CHECK_STATUS(space_set_region(scene.ctx, space, PAGE(0), BYTES(4), &private), CLEAVE_BUSY);
    CHECK_EQ(scene_lookup(space, 1).frame.v, pinned.v);
    REQUIRE_OK(space_unpin(scene.ctx, space, id));
    CHECK_OK(space_set_region(scene.ctx, space, PAGE(0), BYTES(4), &private));
    scene_end();
}

/* --- Reset that keeps pages ------------------------------------------------------------------- */

static struct channel *new_channel(void)
{
    const struct channel_options options = {.asynchronous = true};
    struct channel *channel = NULL;
    REQUIRE_OK(channel_create(scene.ctx, scene.pool, &options, &channel));
    return channel;
}

/* A fork disarmed a shared page and wrote to it: after the reset it is armed again. */
TEST(reset_with_keep_arms_again)
{
    const struct gfn_range keep = {gfn(3), gfn(4)};
    scene_start(0);
    struct channel *channel = new_channel();
    struct space *space = scene_space();
    scene_region(space, 0, 2, REGION_SHARED, RIGHT_ALL, 0);
    scene_region(space, 2, 2, REGION_PRIVATE, RIGHT_ALL, 0);
    scene_write(space, 3, 1);
    REQUIRE_OK(channel_arm(scene.ctx, channel, space, PAGE(1), BYTES(1)));
    struct space *fork = scene_fork(scene_snapshot(space));
    REQUIRE_OK(channel_disarm(scene.ctx, channel, fork, PAGE(1), BYTES(1)));
    scene_write(fork, 1, 2);
    scene_write(fork, 3, 3);
    REQUIRE(guest_may_write(fork, 1));
    CHECK_OK(space_reset(scene.ctx, fork, &keep, 1));
    CHECK(!guest_may_write(fork, 1));
    scene_check(fork, 3, 1);
    scene_end();
    channel = NULL;
}

/* The base's leaf of an armed page may have its write bit, hidden by a table above it. */
TEST(reset_with_keep_restricts_what_it_brings_back)
{
    const struct gfn_range keep = {gfn(3), gfn(4)};
    scene_start(0);
    struct channel *channel = new_channel();
    struct space *space = scene_space();
    scene_region(space, 0, 2, REGION_SHARED, RIGHT_ALL, 0);
    scene_region(space, 2, 2, REGION_PRIVATE, RIGHT_ALL, 0);
    scene_write(space, 3, 1);
    scene_write(space, 1, 1);
    (void)scene_fork(space); /* shares the tables: what is armed now is only recorded */
    REQUIRE_OK(channel_arm(scene.ctx, channel, space, PAGE(1), BYTES(1)));
    struct space *fork = scene_fork(scene_snapshot(space));
    REQUIRE_OK(space_unmap(scene.ctx, fork, PAGE(1), BYTES(1)));
    scene_write(fork, 3, 3);
    CHECK_OK(space_reset(scene.ctx, fork, &keep, 1));
    CHECK(!guest_may_write(fork, 1));
    scene_check(fork, 1, 1);
    scene_check(fork, 3, 1);
    scene_end();
}

/* --- Reservations and lost races -------------------------------------------------------------- */

static struct {
    struct space *space;
    uint64_t page;
    bool done;
} rival;

static void write_first(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                        void *arg)
{
    (void)a, (void)b, (void)arg;
    if (point == POINT_COPIED && ctx->cpu == 1 && !rival.done) {
        rival.done = true;
        CHECK_OK(space_fault(host_ctx(2), rival.space, PAGE(rival.page), ACCESS_WRITE, NULL));
    }
}

/* Two vcpus write every page at the same moment, and one of the two copies is in vain each time.
 * The reservation lasts all the same. */
TEST(a_reservation_outlasts_lost_races)
{
    TEST_NEEDS_HOOKS();
    const struct fork_options options = {.limit = UINT64_MAX, .reserve = true, .vcpus = 2};
    const uint64_t pages = 64;
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, pages, 0);
    REQUIRE_OK(space_fork(scene.ctx, space, 1, &options, &rival.space));
    scene_drain(0);
    host_on_point(write_first, NULL);
    for (rival.page = 0; rival.page < pages; rival.page++) {
        rival.done = false;
        test_case("page %u", (unsigned)rival.page);
        REQUIRE_OK(space_fault(host_ctx(1), rival.space, PAGE(rival.page), ACCESS_WRITE, NULL));
        REQUIRE(rival.done);
        scene_drain(0); /* what is nobody's, others take */
    }
    host_on_point(NULL, NULL);
    scene_give_back(UINT64_MAX);
    scene_end();
}

static struct {
    struct space *sibling;
    struct vcpu_wait wait; /* of a vcpu of the sibling's */
} next;

/* The rival is faster, and a vcpu of another space finds nothing left. */
static void write_first_and_wait(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                                 void *arg)
{
    bool before = rival.done;
    write_first(ctx, point, a, b, arg);
    if (!before && rival.done) {
        CHECK_STATUS(
            space_fault(host_ctx(3), next.sibling, PAGE(rival.page), ACCESS_WRITE, &next.wait),
            CLEAVE_WAIT);
    }
}

/* A space whose reservation is used up waits for memory, and the copy that it is granted is in
 * vain: that frame is for who waits next. */
TEST(a_grant_of_a_lost_race_goes_on)
{
    TEST_NEEDS_HOOKS();
    const struct fork_options options = {.limit = UINT64_MAX, .reserve = true, .vcpus = 2};
    struct vcpu_wait wait = {.vcpu = 1};
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, 4, 0);
    REQUIRE_OK(space_fork(scene.ctx, space, 1, &options, &rival.space));
    next.sibling = scene_fork(space);
    next.wait = (struct vcpu_wait){.vcpu = 2};
    scene_write(rival.space, 0, 1); /* their tables are their own */
    scene_write(next.sibling, 0, 1);
    pool_unreserve(scene.ctx, &rival.space->payer);
    scene_drain(0);
    rival.page = 1;
    rival.done = false;
    CHECK_STATUS(space_fault(host_ctx(1), rival.space, PAGE(1), ACCESS_WRITE, &wait), CLEAVE_WAIT);
    scene_give_back(wait.need);
    REQUIRE_EQ(wait.grant.reserved, wait.need);
    scene_give_back(1); /* for the rival */
    host_on_point(write_first_and_wait, NULL);
    CHECK_OK(space_fault(host_ctx(1), rival.space, PAGE(1), ACCESS_WRITE, &wait));
    host_on_point(NULL, NULL);
    CHECK(rival.done);
    CHECK_EQ(wait.grant.reserved, 0);
    CHECK_EQ(rival.space->payer.reserved, 0);
    CHECK_EQ(next.wait.kind, WAIT_NONE);
    CHECK_EQ(next.wait.grant.reserved, next.wait.need);
    scene_audit();
    CHECK_OK(space_fault(host_ctx(3), next.sibling, PAGE(1), ACCESS_WRITE, &next.wait));
    CHECK_EQ(scene.pool->reserved, 0);
    scene_give_back(UINT64_MAX);
    scene_end();
}

/* --- Two collapses of one block --------------------------------------------------------------- */

static struct {
    struct space *space;
    uint64_t page;
    enum cleave_status status[2];
} twice;

static void twice_setup(void *arg)
{
    (void)arg;
    scene_start(0);
    struct space *parent = scene_space();
    const struct region large = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};
    scene_memory(parent, 0, BLOCK, 0);
    REQUIRE_OK(space_set_region(scene.ctx, parent, PAGE(0), BYTES(BLOCK), &large));
    twice.space = scene_fork(parent);
    twice.space->collapse_at = 0;
    REQUIRE_OK(space_fault(scene.ctx, twice.space, PAGE(0), ACCESS_WRITE, NULL));
    REQUIRE_OK(space_destroy(scene.ctx, parent));
    twice.page = 2;
    REQUIRE_OK(space_fault(scene.ctx, twice.space, PAGE(2), ACCESS_WRITE, NULL));
    REQUIRE_OK(host_cpu_run(2, twice.space));
    uint64_t word = 1;
    REQUIRE_OK(host_cpu_write(2, PAGE(2), &word, 8));
}

static void twice_collapse(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    twice.status[ctx->cpu] = space_collapse(ctx, twice.space, PAGE(0), 1);
}

static void twice_write(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    uint64_t word = 9, found = 0;
    if (host_cpu_write(ctx->cpu, PAGE(2), &word, 8) != CLEAVE_OK) {
        host_fail("the write failed");
    }
    host_sched_yield();
    if (host_cpu_read(ctx->cpu, PAGE(2), &found, 8) != CLEAVE_OK || found != 9) {
        host_fail("the guest reads %llu", (unsigned long long)found);
    }
}

static bool twice_check(void *arg)
{
    uint64_t found = 0;
    (void)arg;
    host_cpu_stop(2);
    return space_read(scene.ctx, twice.space, PAGE(2), &found, 8, NULL) == CLEAVE_OK && found == 9;
}

/* Two CPUs collapse a block while a guest writes to it: nothing that it wrote is lost. */
TEST(two_collapses_lose_no_write)
{
    TEST_NEEDS_HOOKS();
    if (TABLE_ENTRIES > 4) {
        TEST_SKIP("schedules of the small geometry");
    }
    struct host_sched sched = {.setup = twice_setup,
                               .cpus = 3,
                               .body = {twice_collapse, twice_collapse, twice_write},
                               .check = twice_check,
                               .max_preemptions = 3,
                               .random = test_steps(3000),
                               .seed = 1};
    CHECK(host_sched_explore(&sched));
}

/* --- Spaces that end while they are in use ---------------------------------------------------- */

static struct space *ending;

static void ending_setup(void *arg)
{
    (void)arg;
    scene_start(0);
    ending = scene_space();
    scene_memory(ending, 0, 4, 0);
    (void)scene_fork(ending);
    REQUIRE_OK(host_cpu_run(1, ending));
    REQUIRE_OK(host_cpu_run(2, ending));
}

static void ending_destroy(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    if (space_destroy(ctx, ending) != CLEAVE_OK) {
        host_fail("not destroyed");
    }
}

static void ending_write(struct mm_ctx *ctx, void *arg)
{
    uint64_t word = 1;
    (void)arg;
    (void)!host_cpu_write(ctx->cpu, PAGE(ctx->cpu), &word, 8);
    (void)!host_cpu_write(ctx->cpu, PAGE(ctx->cpu), &word, 8);
}

static bool ending_check(void *arg)
{
    (void)arg;
    for (unsigned i = 1; i < machine.cpus; i++) {
        host_cpu_stop(i);
    }
    scene_audit();
    return scene.pool->spaces != NULL && scene.pool->spaces->next == NULL;
}

/* A space is destroyed while its vcpus are in the fault handler: the object stays until they are
 * out of it. */
TEST(a_space_outlives_its_faults)
{
    TEST_NEEDS_HOOKS();
    if (TABLE_ENTRIES > 4) {
        TEST_SKIP("schedules of the small geometry");
    }
    struct host_sched sched = {.setup = ending_setup,
                               .cpus = 3,
                               .body = {ending_destroy, ending_write, ending_write},
                               .check = ending_check,
                               .max_preemptions = 2,
                               .max_schedules = test_steps(20000)};
    CHECK(host_sched_explore(&sched));
}

/* --- Paged memory over tables that are left --------------------------------------------------- */

/* What a processor does that walks there at that moment. */
static void mark_accessed(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                          void *arg)
{
    pte_t *slot = (pte_t *)(uintptr_t)a;
    (void)ctx, (void)arg;
    if (point == POINT_ENTRY && pte_kind(b, 1) == PTE_KIND_PAGED && pte_is_table(*slot, 1)) {
        __atomic_fetch_or(slot, pt_format.accessed, __ATOMIC_ACQ_REL);
    }
}

/* The processor marks an empty table as accessed just before a paged entry takes its place. */
TEST(paged_entries_over_an_accessed_table)
{
    TEST_NEEDS_HOOKS();
    const struct region paged = {.policy = REGION_PAGED, .rights = RIGHT_READ | RIGHT_WRITE};
    scene_start(0);
    struct space *control = scene_space(), *space = scene_space();
    REQUIRE_OK(pager_create(scene.ctx, scene.pool, control, PAGE(WINDOW), &pager));
    scene_region(space, 0, 1, REGION_PRIVATE, RIGHT_ALL, 0);
    REQUIRE_OK(space_populate(scene.ctx, space, PAGE(0), BYTES(1)));
    REQUIRE_OK(space_unmap(scene.ctx, space, PAGE(0), BYTES(1)));
    host_on_point(mark_accessed, NULL);
    CHECK_OK(space_map_paged(scene.ctx, space, PAGE(0), BYTES(BLOCK), pager, 1, 1, 0, &paged));
    host_on_point(NULL, NULL);
    REQUIRE_OK(pager_destroy(scene.ctx, pager));
    scene_end();
}

/* --- A leaf that is split while rights are taken from its table ------------------------------- */

static struct space *hidden;

/* The space's large leaf has its write bit, which a cleared one above it hides, and lies over a
 * page that is armed. */
static void hidden_setup(void *arg)
{
    (void)arg;
    scene_start(0);
    struct channel *channel = new_channel();
    hidden = scene_space();
    scene_memory(hidden, 0, 2 * BLOCK, 1);
    struct space *child = scene_fork(hidden);
    REQUIRE_OK(channel_arm(scene.ctx, channel, hidden, PAGE(1), BYTES(1)));
    REQUIRE_OK(space_destroy(scene.ctx, child));
    REQUIRE_OK(host_cpu_run(0, hidden));
    REQUIRE_OK(host_cpu_run(1, hidden));
}

static void hidden_fetch(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    if (host_cpu_access(ctx->cpu, PAGE(0), ACCESS_EXEC, NULL, 1) != CLEAVE_OK) {
        host_fail("the fetch failed");
    }
}

static void hidden_write(struct mm_ctx *ctx, void *arg)
{
    uint64_t word = 1;
    (void)arg;
    if (host_cpu_write(ctx->cpu, PAGE(BLOCK), &word, 8) != CLEAVE_OK) {
        host_fail("the write failed");
    }
}

static bool hidden_check(void *arg)
{
    (void)arg;
    host_cpu_stop(0);
    host_cpu_stop(1);
    return !guest_may_write(hidden, 1);
}

/* One vcpu fetches from a block, which is split for that; another writes beside it, and the table
 * of both gets its write bit back. The armed page between them stays read-only. */
TEST(a_split_keeps_no_right_that_is_taken)
{
    TEST_NEEDS_HOOKS();
    if (TABLE_ENTRIES > 4) {
        TEST_SKIP("schedules of the small geometry");
    }
    struct host_sched sched = {.setup = hidden_setup,
                               .cpus = 2,
                               .body = {hidden_fetch, hidden_write},
                               .check = hidden_check,
                               .max_preemptions = 2};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.complete);
}

/* --- A base whose tables change while a fork goes back to it ---------------------------------- */

static struct {
    struct space *parent, *base, *fork;
    enum cleave_status reset;
} back;

/* Private blocks with a paged one between them; the fork has written to both. */
static void back_setup(void *arg)
{
    const struct region paged = {.policy = REGION_PAGED, .rights = RIGHT_READ | RIGHT_WRITE};
    const struct fork_options options = {.limit = UINT64_MAX};
    (void)arg;
    scene_start(0);
    struct space *control = scene_space();
    back.parent = scene_space();
    REQUIRE_OK(pager_create(scene.ctx, scene.pool, control, PAGE(WINDOW), &pager));
    scene_memory(back.parent, 0, BLOCK, 0);
    scene_memory(back.parent, 2 * BLOCK, BLOCK, 0);
    REQUIRE_OK(
        space_map_paged(scene.ctx, back.parent, PAGE(BLOCK), BYTES(BLOCK), pager, 1, 1, 0, &paged));
    scene_write(back.parent, 2 * BLOCK, 1);
    back.base = scene_snapshot(back.parent);
    REQUIRE_OK(space_fork(scene.ctx, back.base, 1, &options, &back.fork));
    scene_write(back.fork, 0, 2);
    scene_write(back.fork, 2 * BLOCK, 2);
    for (unsigned i = 0; i < machine.cpus; i++) {
        host_cpu_stop(i);
    }
}

static void back_reset(struct mm_ctx *ctx, void *arg)
{
    const struct gfn_range keep = {gfn(0), gfn(1)};
    (void)arg;
    back.reset = space_reset(ctx, back.fork, &keep, 1);
}

/* There is no block to load: the base's paged entry is split, for which its tables are copied. The
 * parent, which shared them, has them for itself then. */
static void back_prefetch(struct mm_ctx *ctx, void *arg)
{
    uint64_t word = 3, done;
    (void)arg;
    host_fail_allocation(1);
    if (pager_prefetch(ctx, pager, back.base, PAGE(BLOCK)) != CLEAVE_OK ||
        space_write(ctx, back.parent, PAGE(2 * BLOCK), &word, 8, NULL, &done) != CLEAVE_OK) {
        host_fail("nothing was split, or written");
    }
}

static bool back_check(void *arg)
{
    (void)arg;
    scene_look(back.fork, 2 * BLOCK, 1);
    scene_look(back.base, 2 * BLOCK, 1);
    scene_audit();
    return back.reset == CLEAVE_OK && pager_destroy(scene.ctx, pager) == CLEAVE_OK;
}

/* A fork goes back to its base while a paged entry of that is split: it gets what the base has, not
 * what the parent has written since. */
TEST(a_base_stays_while_forks_go_back_to_it)
{
    TEST_NEEDS_HOOKS();
    if (TABLE_ENTRIES > 4) {
        TEST_SKIP("schedules of the small geometry");
    }
    struct host_sched sched = {.setup = back_setup,
                               .cpus = 2,
                               .body = {back_reset, back_prefetch},
                               .check = back_check,
                               .max_preemptions = 2};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.complete);
}

/* --- A map that comes while a whole block is copied ------------------------------------------- */
/* --- Foreign maps of a block that is copied whole --------------------------------------------- */

static struct {
    struct space *owner, *mapper;
    bool mapped;
} late;

static void map_late(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b, void *arg)
{
    (void)a, (void)b, (void)arg;
    if (point == POINT_COPIED && ctx->cpu == 1 && !late.mapped) {
        late.mapped = true;
        REQUIRE_OK(foreign_map(host_ctx(2), late.owner, PAGE(2), late.mapper, PAGE(GIGA)));
    }
}

/* Another space maps a page of a block that is just being copied as a whole: it goes on seeing what
 * the owner has. */
TEST(a_map_follows_the_copy_of_its_block)
{
    TEST_NEEDS_HOOKS();
    const struct region whole = {
        .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1, .whole = true};
    uint64_t word = 7, found = 0, done;

    scene_start(0);
    late.owner = scene_space();
    late.mapper = scene_space();
    late.mapped = false;
    REQUIRE_OK(space_map(scene.ctx, late.owner, PAGE(0), 1, &whole));
    (void)scene_fork(late.owner);
    host_on_point(map_late, NULL);
    REQUIRE_OK(space_fault(host_ctx(1), late.owner, PAGE(0), ACCESS_WRITE, NULL));
    host_on_point(NULL, NULL);
    REQUIRE(late.mapped);
    REQUIRE_OK(space_write(scene.ctx, late.owner, PAGE(2), &word, 8, NULL, &done));
    REQUIRE_OK(space_read(scene.ctx, late.mapper, PAGE(GIGA), &found, 8, NULL));
    CHECK_EQ(found, 7);
    scene_audit();
    REQUIRE_OK(foreign_unmap(scene.ctx, late.mapper, PAGE(GIGA)));
    scene_end();
}
/* --- Frames of tables that an operation gave up ----------------------------------------------- */

/* A table that a mapping takes the place of is the frame that somebody waits for. */
TEST(who_waits_gets_the_frames_of_dead_tables)
{
    struct vcpu_wait wait = {.vcpu = 0};
    scene_start(0);
    pfn_t device = host_take(BLOCK, 1);
    struct space *space = scene_space(), *other = scene_space();
    scene_region(space, 0, BLOCK, REGION_PRIVATE, RIGHT_ALL, 0);
    scene_write(space, 0, 1);
    scene_memory(other, 0, 1, 0);
    REQUIRE_OK(space_unmap(scene.ctx, other, PAGE(0), BYTES(1)));
    REQUIRE_OK(pool_reserve(scene.ctx, &other->payer, 8)); /* for the regions */
    scene_drain(0);
    REQUIRE_EQ(space_fault(scene.ctx, space, PAGE(1), ACCESS_WRITE, &wait), CLEAVE_WAIT);
    REQUIRE_EQ(wait.need, 1);
    REQUIRE_OK(space_map_device(scene.ctx, other, PAGE(0), BYTES(BLOCK), device,
                                RIGHT_READ | RIGHT_WRITE, false));
    CHECK_EQ(wait.grant.reserved, 1);
    scene_give_back(UINT64_MAX);
    CHECK_OK(space_fault(scene.ctx, space, PAGE(1), ACCESS_WRITE, &wait));
    scene_end();
}

/* --- The last account ------------------------------------------------------------------------- */

struct maker {
    unsigned cpu;
    enum cleave_status status;
    uint32_t account;
};

static void *make_account(void *arg)
{
    struct maker *m = arg;
    host_cpu_attach(m->cpu);
    m->status = account_create(host_ctx(m->cpu), scene.pool, 1, &m->account);
    host_cpu_detach(m->cpu);
    return NULL;
}

/* Two CPUs stand at the pool's lock for the last account there can be: no more are made. */
TEST(the_last_account_is_made_once)
{
    struct maker maker[2] = {{.cpu = 1}, {.cpu = 2}};
    pthread_t thread[2];
    enum cleave_status status;
    uint32_t account;

    scene_start(TABLE_ENTRIES > 4 ? 0 : 256);
    do {
        status = account_create(scene.ctx, scene.pool, 1, &account);
    } while (status == CLEAVE_OK);
    CHECK_STATUS(status, CLEAVE_COUNT);
    const uint32_t made = scene.pool->accounts;
    account_release(scene.ctx, scene.pool, 1);
    for (unsigned round = 0; round < 50; round++) {
        spin_lock(scene.ctx, &scene.pool->lock, RANK_POOL);
        for (unsigned i = 0; i < 2; i++) {
            REQUIRE(pthread_create(&thread[i], NULL, make_account, &maker[i]) == 0);
        }
        (void)usleep(1000); /* both wait by then, or the round shows nothing */
        spin_unlock(scene.ctx, &scene.pool->lock, RANK_POOL);
        for (unsigned i = 0; i < 2; i++) {
            REQUIRE(pthread_join(thread[i], NULL) == 0);
        }
        REQUIRE_EQ(scene.pool->accounts, made);
        REQUIRE((maker[0].status == CLEAVE_OK) + (maker[1].status == CLEAVE_OK) == 1);
        account_release(scene.ctx, scene.pool, maker[maker[0].status == CLEAVE_OK ? 0 : 1].account);
    }
    for (uint32_t i = 2; i <= made; i++) {
        account_release(scene.ctx, scene.pool, i);
    }
    scene_end();
}

/* --- A threshold that copies step over -------------------------------------------------------- */

/* Two pages are copied at a time, and the block asks for collapse at an odd number. */
TEST(a_grain_steps_over_the_threshold_of_collapse)
{
    const struct region large = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};
    scene_start(0);
    struct space *parent = scene_space();
    scene_memory(parent, 0, BLOCK, 0);
    REQUIRE_OK(space_set_region(scene.ctx, parent, PAGE(0), BYTES(BLOCK), &large));
    struct space *child = scene_fork(parent);
    child->grain = 1;
    child->collapse_at = 3;
    scene_write(child, 0, 1);
    CHECK_EQ(child->stats.collapsed, 0);
    scene_write(child, 2, 1);
    CHECK_EQ(child->stats.collapsed, 1);
    CHECK_EQ(scene_lookup(child, 0).level, 1);
    scene_end();
}

/* --- A frame that comes back to the entry it was taken from ----------------------------------- */

static struct {
    struct space *space;
    bool shared;
} again;

static void again_setup(void *arg)
{
    (void)arg;
    scene_start(0);
    again.space = scene_space();
    again.shared = false;
    scene_memory(again.space, 0, 4, 0);
    (void)scene_fork(again.space);
    REQUIRE_OK(host_cpu_run(3, again.space));
}

/* What it has written, every vcpu reads. */
static void again_write(struct mm_ctx *ctx, void *arg)
{
    uint64_t word = 9, found = 0, done;
    (void)arg;
    if (space_write(ctx, again.space, PAGE(0), &word, 8, NULL, &done) != CLEAVE_OK) {
        return; /* there is no memory for it, in some schedules */
    }
    if (host_cpu_read(3, PAGE(0), &found, 8) != CLEAVE_OK || found != 9) {
        host_fail("another vcpu reads %llu", (unsigned long long)found);
    }
}

/* Forks share the page again, one of them goes with the frame that the writer copied to, and that
 * frame is the only one left. */
static void again_share(struct mm_ctx *ctx, void *arg)
{
    const struct fork_options options = {.limit = UINT64_MAX};
    struct space *fork[2];
    struct mapping copy;
    pfn_t taken;
    uint64_t found;
    (void)arg;
    if (space_lookup(ctx, again.space, PAGE(0), &copy) != CLEAVE_OK ||
        space_fork(ctx, again.space, 1, &options, &fork[0]) != CLEAVE_OK ||
        space_fault(ctx, again.space, PAGE(0), ACCESS_WRITE, NULL) != CLEAVE_OK ||
        space_destroy(ctx, fork[0]) != CLEAVE_OK) {
        host_fail("not shared");
    }
    bool kept = pool_alloc_at(ctx, &scene.pool->payer, copy.frame, FRAME_OBJECT) == CLEAVE_OK;
    if (space_fork(ctx, again.space, 1, &options, &fork[1]) != CLEAVE_OK ||
        space_fault(ctx, again.space, PAGE(1), ACCESS_WRITE, NULL) != CLEAVE_OK ||
        host_cpu_read(3, PAGE(0), &found, 8) != CLEAVE_OK) {
        host_fail("not shared again");
    }
    while (pool_alloc(ctx, &scene.pool->payer, 0, FRAME_OBJECT, &taken) == CLEAVE_OK) {
    }
    if (kept && node_put(ctx, copy.frame)) {
        pool_free(ctx, copy.frame, 0);
    }
    again.shared = true;
}

static void again_copy(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    while (!again.shared) {
        port_relax(ctx);
    }
    (void)!space_fault(ctx, again.space, PAGE(0), ACCESS_WRITE, NULL);
}

static bool again_check(void *arg)
{
    (void)arg;
    host_cpu_stop(3);
    return true;
}

/* The hypervisor's own write to a page stands between its flush and the write bit, while the page
 * is shared and copied anew into the same frame: it does not take that copy, which some vcpu may
 * not know of yet, for its own. */
TEST(a_frame_that_comes_back_is_not_written_before_the_flush)
{
    TEST_NEEDS_HOOKS();
    if (TABLE_ENTRIES > 4) {
        TEST_SKIP("schedules of the small geometry");
    }
    struct host_sched sched = {.setup = again_setup,
                               .cpus = 3,
                               .body = {again_write, again_share, again_copy},
                               .check = again_check,
                               .max_preemptions = 2,
                               .points = 1u << POINT_FLUSH | 1u << POINT_FLUSHED};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.complete);
}

/* --- Pins and notification -------------------------------------------------------------------- */

/* Through a pin a device writes without a fault: what is pinned for that is not armed, before the
 * write was told or after. */
TEST(nothing_is_armed_beneath_a_device_that_writes)
{
    uint32_t id;
    scene_start(0);
    struct channel *channel = new_channel();
    struct space *space = scene_space();
    scene_memory(space, 0, 4, 0);
    REQUIRE_OK(space_pin(scene.ctx, space, PAGE(1), BYTES(1), true, &id));
    struct scene_state before = scene_state();
    CHECK_STATUS(channel_arm(scene.ctx, channel, space, PAGE(0), BYTES(4)), CLEAVE_BUSY);
    CHECK_EQ(scene.ctx->error.value, id);
    SCENE_CHECK_SAME(scene_state(), before);
    REQUIRE_OK(space_unpin(scene.ctx, space, id));
    REQUIRE_OK(channel_arm(scene.ctx, channel, space, PAGE(0), BYTES(4)));
    REQUIRE_OK(space_pin(scene.ctx, space, PAGE(1), BYTES(1), true, &id)); /* this is told */
    CHECK_EQ(channel_dirty(scene.ctx, channel), 1);
    CHECK_STATUS(channel_rearm(scene.ctx, channel, space, PAGE(0), BYTES(4)), CLEAVE_BUSY);
    CHECK_OK(channel_rearm(scene.ctx, channel, space, PAGE(2), BYTES(1)));
    CHECK_EQ(channel_dirty(scene.ctx, channel), 1);
    REQUIRE_OK(space_unpin(scene.ctx, space, id));
    CHECK_OK(channel_rearm(scene.ctx, channel, space, PAGE(0), BYTES(4)));
    CHECK_EQ(channel_dirty(scene.ctx, channel), 0);
    scene_end();
}

/* --- How long a fork takes -------------------------------------------------------------------- */

/* What the parent reports is about its last fork or snapshot that was made, and no longer than the
 * call took. */
TEST(a_fork_says_how_long_its_parent_stood_still)
{
    const struct fork_options options = {.limit = UINT64_MAX, .reserve = true};
    struct space *child;
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, 4, 0);
    CHECK_EQ(space->stats.stood_still, 0);
    uint64_t began = port_now();
    child = scene_fork(space);
    uint64_t took = port_now() - began;
    CHECK_LE(1, space->stats.stood_still);
    CHECK_LE(space->stats.stood_still, took);
    CHECK_EQ(child->stats.stood_still, 0);
    space->stats.stood_still = 0;
    CHECK_STATUS(space_fork(scene.ctx, space, 1, &options, &child), CLEAVE_COUNT);
    CHECK_EQ(space->stats.stood_still, 0);
    began = port_now();
    (void)scene_snapshot(space);
    took = port_now() - began;
    CHECK_LE(1, space->stats.stood_still);
    CHECK_LE(space->stats.stood_still, took);
    scene_end();
}

static struct {
    struct space *space, *child;
    uint64_t let_go, done;
} still;

static void still_setup(void *arg)
{
    (void)arg;
    scene_start(0);
    still.space = scene_space();
    scene_memory(still.space, 0, 4, 0);
}

static void still_walks(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    read_lock(ctx, &still.space->lock, RANK_SPACE);
    host_sched_yield();
    uint64_t until = port_now() + UINT64_C(2000000);
    while (port_now() < until) {
    }
    still.let_go = port_now();
    read_unlock(ctx, &still.space->lock, RANK_SPACE);
}

static void still_forks(struct mm_ctx *ctx, void *arg)
{
    const struct fork_options options = {.limit = UINT64_MAX};
    (void)arg;
    if (space_fork(ctx, still.space, 1, &options, &still.child) != CLEAVE_OK) {
        host_fail("no fork");
    }
    still.done = port_now();
}

static bool still_check(void *arg)
{
    (void)arg;
    return still.done < still.let_go || still.space->stats.stood_still <= still.done - still.let_go;
}

/* While the call waits for walks that are under way, the parent does not stand still. */
TEST(waiting_for_the_parent_is_not_standing_still)
{
    TEST_NEEDS_HOOKS();
    struct host_sched sched = {.setup = still_setup,
                               .cpus = 2,
                               .body = {still_walks, still_forks},
                               .check = still_check,
                               .max_preemptions = 1};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.complete);
}
