/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loads while others publish, fork, reset and destroy: every schedule with up to two preemptions. A
 * guest of the space runs on CPU 2, the pager's process on CPU 1.
 */
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "fork.h"
#include "host.h"
#include "pager.h"
#include "test.h"

#define WINDOW gpa(32 * PAGE_SIZE) /* from the middle of one root entry to that of the next */
#define LOADED UINT64_C(0x0a0a0a0a0a0a0a0a) /* what the pager fills pages with */
#define WRITTEN UINT64_C(7)

static struct {
    struct pool *pool;
    struct space *space, *child, *control;
    struct pager *pager;
    struct vcpu_wait wait;
    enum cleave_status status; /* of the guest's access */
    uint64_t seen;
    bool over; /* the guest is done: the pager may end */
} world;

static const struct region paged = {.policy = REGION_PAGED, .rights = RIGHT_READ | RIGHT_WRITE};

static void must(enum cleave_status status)
{
    if (status != CLEAVE_OK) {
        host_fail("status %u", (unsigned)status);
    }
}

static void expect(bool holds, const char *what)
{
    if (!holds) {
        host_fail("%s", what);
    }
}

/* A space of four paged pages, which is a fork of a snapshot that has them too. */
static void setup(void *arg)
{
    const struct fork_options options = {.limit = UINT64_MAX, .base = true};
    struct space *first;
    (void)arg;
    host_start(&(struct host_options){.frames = 512, .cpus = 4});
    memset(&world, 0, sizeof(world));
    struct mm_ctx *ctx = host_ctx(0);
    world.pool = host_pool(16 * level_size(2));
    must(space_create(ctx, world.pool, UINT64_MAX, &world.control));
    must(space_create(ctx, world.pool, UINT64_MAX, &first));
    must(pager_create(ctx, world.pool, world.control, WINDOW, &world.pager));
    must(space_map_paged(ctx, first, gpa(0), 4 * PAGE_SIZE, world.pager, 0, 1, 0, &paged));
    must(space_fork(ctx, first, 1, &options, &world.space));
    must(host_cpu_run(1, world.control));
    must(host_cpu_run(2, world.space));
    host_cpu_set_wait(2, &world.wait);
}

static void audit(void)
{
    struct audit_report report;
    uint64_t size = audit_scratch_bytes(world.pool);
    void *scratch = calloc(1, size);
    must(pool_audit(host_ctx(0), world.pool, scratch, size, &report));
    free(scratch);
    expect(report.invariant == 0, report.what);
    host_tlb_check();
    host_check_locks();
}

static uint64_t look(struct space *space, uint64_t page)
{
    uint64_t value = 0;
    must(space_read(host_ctx(0), space, gpa(page * PAGE_SIZE), &value, sizeof(value), NULL));
    return value;
}

/* --- The bodies ------------------------------------------------------------------------------- */

/* The guest's access, executed again whenever it was woken. */
static void guest_access(struct mm_ctx *ctx, enum access access, void *word)
{
    while ((world.status = host_cpu_access(2, gpa(PAGE_SIZE), access, word, 8)) == CLEAVE_WAIT) {
        while (__atomic_load_n(&world.wait.kind, __ATOMIC_ACQUIRE) != WAIT_NONE) {
            port_relax(ctx);
        }
    }
    __atomic_store_n(&world.over, true, __ATOMIC_SEQ_CST);
}

static void guest_reads(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    guest_access(ctx, ACCESS_READ, &world.seen);
}

static void guest_writes(struct mm_ctx *ctx, void *arg)
{
    uint64_t value = WRITTEN;
    (void)arg;
    guest_access(ctx, ACCESS_WRITE, &value);
    if (world.status == CLEAVE_OK) {
        world.status = host_cpu_read(2, gpa(PAGE_SIZE), &world.seen, sizeof(world.seen));
    }
}

/* The pager serves whatever is asked for, until the guest is done. */
static void pager_serves(struct mm_ctx *ctx, void *arg)
{
    struct load_request request;
    uint64_t page[PAGE_SIZE / 8];
    bool found;
    (void)arg;
    memset(page, (int)(LOADED & 0xff), sizeof(page));
    while (!__atomic_load_n(&world.over, __ATOMIC_SEQ_CST)) {
        must(pager_next(ctx, world.pager, &request, &found));
        if (!found) {
            port_relax(ctx);
            continue;
        }
        must(host_cpu_write(1, request.window, page, sizeof(page)));
        must(pager_done(ctx, world.pager, request.id, true));
    }
}

static void space_is_forked(struct mm_ctx *ctx, void *arg)
{
    const struct fork_options options = {.limit = UINT64_MAX};
    (void)arg;
    must(space_fork(ctx, world.space, 1, &options, &world.child));
}

static void space_is_destroyed(struct mm_ctx *ctx, void *arg)
{
    enum cleave_status status;
    (void)arg;
    do {
        status = space_destroy(ctx, world.space);
    } while (status == CLEAVE_AGAIN);
    must(status);
    world.space = NULL;
}

static void nothing(struct mm_ctx *ctx, void *arg) { (void)ctx, (void)arg; }

/* --- What must come of it ----------------------------------------------------------------------
 */

static void explore(struct host_sched *sched)
{
    sched->setup = setup;
    sched->max_preemptions = test_preemptions(2);
    CHECK(host_sched_explore(sched));
    CHECK(sched->complete);
    sched->random = test_steps(50);
    sched->seed = test_seed();
    CHECK(host_sched_explore(sched));
}

/* The waiter was woken, and no load is left. The pager ends, as its number outlives the machine. */
static void check_idle(void)
{
    struct load_request request;
    bool found;
    expect(world.wait.kind == WAIT_NONE, "the guest is left waiting");
    must(pager_next(host_ctx(0), world.pager, &request, &found));
    expect(!found, "a load is left that nobody waits for");
    must(pager_destroy(host_ctx(0), world.pager));
}

static bool check_read(void *arg)
{
    (void)arg;
    audit();
    check_idle();
    return world.status == CLEAVE_OK && world.seen == LOADED && look(world.space, 1) == LOADED;
}

static bool check_written(void *arg)
{
    (void)arg;
    audit();
    check_idle();
    return world.status == CLEAVE_OK && world.seen == WRITTEN && look(world.space, 1) == WRITTEN;
}

/* A fault queues, the pager takes, fills and publishes: no wake is lost. */
TEST_TIMED(a_read_meets_the_pager, 120)
{
    TEST_NEEDS_HOOKS();
    explore(&(struct host_sched){
        .cpus = 3, .body = {nothing, pager_serves, guest_reads}, .check = check_read});
}

TEST_TIMED(a_write_meets_the_pager, 120)
{
    TEST_NEEDS_HOOKS();
    explore(&(struct host_sched){
        .cpus = 3, .body = {nothing, pager_serves, guest_writes}, .check = check_written});
}

/* --- A fork meanwhile ------------------------------------------------------------------------- */

/* The child has the page as it was before the write or after it. */
static bool check_forked(void *arg)
{
    struct mapping mapping;
    bool good = arg != NULL ? check_written(NULL) : check_read(NULL);
    must(space_lookup(host_ctx(0), world.child, gpa(PAGE_SIZE), &mapping));
    if (mapping.kind == PTE_KIND_LEAF) {
        uint64_t value = look(world.child, 1);
        expect(value == LOADED || (arg != NULL && value == WRITTEN),
               "the child reads another page");
    }
    return good && mapping.kind != PTE_KIND_ABSENT;
}

TEST_TIMED(a_read_meets_a_fork, 120)
{
    TEST_NEEDS_HOOKS();
    explore(&(struct host_sched){
        .cpus = 3, .body = {space_is_forked, pager_serves, guest_reads}, .check = check_forked});
}

TEST_TIMED(a_write_meets_a_fork, 120)
{
    TEST_NEEDS_HOOKS();
    explore(&(struct host_sched){.cpus = 3,
                                 .body = {space_is_forked, pager_serves, guest_writes},
                                 .check = check_forked,
                                 .arg = &world});
}

/* --- The faulting space goes --------------------------------------------------------------------
 */

/* The guest's access was done before, or fails; nothing of the space is left. */
static bool check_destroyed(void *arg)
{
    (void)arg;
    host_cpu_stop(2);
    audit();
    check_idle();
    expect(world.status != CLEAVE_OK || world.seen == LOADED || world.seen == WRITTEN,
           "the guest reads another page");
    return world.status == CLEAVE_OK || world.status == CLEAVE_DYING;
}

TEST_TIMED(a_read_meets_the_end_of_its_space, 120)
{
    TEST_NEEDS_HOOKS();
    explore(&(struct host_sched){.cpus = 3,
                                 .body = {space_is_destroyed, pager_serves, guest_reads},
                                 .check = check_destroyed});
}

TEST_TIMED(a_write_meets_the_end_of_its_space, 120)
{
    TEST_NEEDS_HOOKS();
    explore(&(struct host_sched){.cpus = 3,
                                 .body = {space_is_destroyed, pager_serves, guest_writes},
                                 .check = check_destroyed});
}

/* --- The pager and its space go ------------------------------------------------------------------
 */

/* Two loads are in the pager's window. */
static void setup_taken(void *arg)
{
    struct load_request request;
    bool found;
    setup(arg);
    host_cpu_stop(1);
    host_cpu_stop(2);
    for (uint64_t page = 0; page < 2; page++) {
        must(pager_prefetch(host_ctx(0), world.pager, world.space, gpa(page * PAGE_SIZE)));
        must(pager_next(host_ctx(0), world.pager, &request, &found));
        expect(found, "no load");
    }
}

static void control_is_destroyed(struct mm_ctx *ctx, void *arg)
{
    enum cleave_status status;
    (void)arg;
    do {
        status = space_destroy(ctx, world.control);
    } while (status == CLEAVE_AGAIN);
    must(status);
}

static void pager_is_destroyed(struct mm_ctx *ctx, void *arg)
{
    enum cleave_status status;
    (void)arg;
    while ((status = pager_destroy(ctx, world.pager)) == CLEAVE_BUSY) {
        port_relax(ctx); /* a load is in a call's hands */
    }
    must(status);
}

static bool check_both_gone(void *arg)
{
    (void)arg;
    host_cpu_stop(1);
    audit();
    return world.pool->kind[FRAME_DATA] == 0;
}

TEST_TIMED(a_pager_goes_with_its_space, 120)
{
    TEST_NEEDS_HOOKS();
    struct host_sched sched = {.setup = setup_taken,
                               .cpus = 2,
                               .body = {control_is_destroyed, pager_is_destroyed},
                               .check = check_both_gone,
                               .max_preemptions = test_preemptions(3)};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.complete);
}

/* Two loads are asked for. */
static void setup_queued(void *arg)
{
    setup(arg);
    host_cpu_stop(1);
    host_cpu_stop(2);
    for (uint64_t page = 0; page < 2; page++) {
        world.status =
            space_fault(host_ctx(0), world.space, gpa(page * PAGE_SIZE), ACCESS_WRITE, NULL);
        expect(world.status == CLEAVE_WAIT, "no load");
    }
}

static bool check_target_gone(void *arg)
{
    (void)arg;
    audit();
    return world.pool->kind[FRAME_DATA] == 0;
}

TEST_TIMED(a_pager_goes_with_who_asked, 120)
{
    TEST_NEEDS_HOOKS();
    struct host_sched sched = {.setup = setup_queued,
                               .cpus = 2,
                               .body = {space_is_destroyed, pager_is_destroyed},
                               .check = check_target_gone,
                               .max_preemptions = test_preemptions(3)};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.complete);
}

/* --- The pager's space forks --------------------------------------------------------------------
 */

static struct load_request taken;

/* One load is in the window, and the control space has memory in another subtree. */
static void setup_window(void *arg)
{
    const struct region private = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};
    gpa_t at = gpa(3 * level_size(ROOT_LEVEL));
    bool found;
    setup(arg);
    host_cpu_stop(1);
    host_cpu_stop(2);
    must(space_set_region(host_ctx(0), world.control, at, PAGE_SIZE, &private));
    must(space_populate(host_ctx(0), world.control, at, PAGE_SIZE));
    must(pager_prefetch(host_ctx(0), world.pager, world.space, gpa(0)));
    must(pager_next(host_ctx(0), world.pager, &taken, &found));
    expect(found, "no load");
}

/* A fork fails for want of its n-th frame, and then the load is done. */
static void fork_fails_and_load_ends(struct mm_ctx *ctx, void *arg)
{
    const struct fork_options options = {.limit = UINT64_MAX};
    struct space *child;
    host_fail_allocation(*(const uint64_t *)arg);
    enum cleave_status status = space_fork(ctx, world.control, 1, &options, &child);
    host_fail_allocation(0);
    expect(status == CLEAVE_OK || status == CLEAVE_NO_MEMORY, "the fork fails otherwise");
    must(pager_done(ctx, world.pager, taken.id, true));
}

/* A fault of somebody else, who reaps dead tables of the pool. */
static void somebody_faults(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    expect(space_fault(ctx, world.space, gpa(8 * PAGE_SIZE), ACCESS_READ, NULL) == CLEAVE_FAULT,
           "there is memory");
}

static bool check_window(void *arg)
{
    (void)arg;
    audit();
    must(pager_destroy(host_ctx(0), world.pager));
    return true;
}

TEST_TIMED(a_failing_fork_leaves_the_window_alone, 120)
{
    TEST_NEEDS_HOOKS();
    for (uint64_t k = 1; k < 12; k++) {
        struct host_sched sched = {.setup = setup_window,
                                   .cpus = 2,
                                   .body = {fork_fails_and_load_ends, somebody_faults},
                                   .check = check_window,
                                   .arg = &k,
                                   .max_preemptions = test_preemptions(2)};
        test_case("allocation %u", (unsigned)k);
        CHECK(host_sched_explore(&sched));
        CHECK(sched.complete);
    }
}

/* --- A reset meanwhile --------------------------------------------------------------------------
 */

#define BLOCK level_pages(1)

static struct space *base, *sibling;

/* A snapshot with a paged block and three of memory, and two forks of it, one of which has written
 * all the memory. */
static void setup_reset(void *arg)
{
    const struct region private = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};
    const struct fork_options options = {.limit = UINT64_MAX};
    struct space *first, *forks[2];
    uint64_t done;

    setup(arg);
    host_cpu_stop(1);
    host_cpu_stop(2);
    struct mm_ctx *ctx = host_ctx(0);
    must(space_create(ctx, world.pool, UINT64_MAX, &first));
    must(space_map_paged(ctx, first, gpa(0), level_size(1), world.pager, 1, 1, 0, &paged));
    must(space_set_region(ctx, first, gpa(level_size(1)), 3 * level_size(1), &private));
    must(space_populate(ctx, first, gpa(level_size(1)), 3 * level_size(1)));
    must(space_snapshot(ctx, first, UINT64_MAX, &base));
    must(space_destroy(ctx, first));
    must(space_fork(ctx, base, 2, &options, forks));
    must(space_destroy(ctx, world.space));
    world.space = forks[0];
    sibling = forks[1];
    for (uint64_t page = BLOCK; page < 4 * BLOCK; page++) {
        uint64_t value = WRITTEN;
        must(space_write(ctx, world.space, gpa(page * PAGE_SIZE), &value, 8, NULL, &done));
    }
}

static void space_is_reset(struct mm_ctx *ctx, void *arg)
{
    const struct gfn_range keep = {gfn(BLOCK), gfn(4 * BLOCK)};
    (void)arg;
    must(space_reset(ctx, world.space, &keep, 1));
}

/* The paged block is split in the snapshot, as there is no block for it, and so the snapshot gets
 * tables of its own; then the other holder of the old ones goes. */
static void base_is_split(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    host_fail_allocation(1);
    must(pager_prefetch(ctx, world.pager, base, gpa(0)));
    host_fail_allocation(0);
    must(space_destroy(ctx, sibling));
}

static bool check_reset(void *arg)
{
    (void)arg;
    audit();
    must(pager_destroy(host_ctx(0), world.pager));
    for (uint64_t page = BLOCK; page < 4 * BLOCK; page++) {
        expect(look(world.space, page) == 0, "a page is not what the base has");
    }
    return true;
}

TEST_TIMED(a_reset_meets_a_split_of_its_base, 120)
{
    TEST_NEEDS_HOOKS();
    struct host_sched sched = {.setup = setup_reset,
                               .cpus = 2,
                               .body = {space_is_reset, base_is_split},
                               .check = check_reset,
                               .max_preemptions = test_preemptions(2)};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.complete);
}
