/* SPDX-License-Identifier: BSD-2-Clause */
/* Foreign maps and pins while others fault, fork, unmap and destroy: every schedule with up to two
 * preemptions. */
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "fork.h"
#include "host.h"
#include "pin.h"
#include "test.h"

#define AT gpa(4 * PAGE_SIZE)
#define WINDOW gpa(8 * PAGE_SIZE)
#define OLD UINT64_C(0x0101010101010101)

static struct {
    struct pool *pool;
    struct space *owner, *child, *mapper;
    enum cleave_status pinned;
    uint32_t pin;
    uint64_t seen;
} world;

static const struct region private_memory = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};

static void must(enum cleave_status status)
{
    if (status != CLEAVE_OK) {
        host_fail("setup: status %u", (unsigned)status);
    }
}

/* An owner of one page that its child shares; both and a mapper that maps it run. */
static void setup(void *arg)
{
    uint64_t value = OLD, done;
    struct fork_options options = {.limit = UINT64_MAX};
    (void)arg;
    host_start(&(struct host_options){.frames = 512, .cpus = 3});
    memset(&world, 0, sizeof(world));
    struct mm_ctx *ctx = host_ctx(0);
    world.pool = host_pool(16 * level_size(2));
    must(space_create(ctx, world.pool, UINT64_MAX, &world.owner));
    must(space_create(ctx, world.pool, UINT64_MAX, &world.mapper));
    must(space_set_region(ctx, world.owner, AT, PAGE_SIZE, &private_memory));
    must(space_write(ctx, world.owner, AT, &value, sizeof(value), NULL, &done));
    must(space_fork(ctx, world.owner, 1, &options, &world.child));
    must(foreign_map(ctx, world.owner, AT, world.mapper, WINDOW));
    must(host_cpu_run(0, world.owner));
    must(host_cpu_run(1, world.mapper));
    must(host_cpu_run(2, world.child));
}

static void expect(bool holds, const char *what)
{
    if (!holds) {
        host_fail("%s", what);
    }
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
}

static uint64_t look(struct space *space, gpa_t at)
{
    uint64_t value = 0;
    must(space_read(host_ctx(0), space, at, &value, sizeof(value), NULL));
    return value;
}

/* --- The owner, the mapper and the child write ------------------------------------------------ */

/* Once a write through the map was made, it is seen by the owner, and the other way round. */
static void owner_writes(struct mm_ctx *ctx, void *arg)
{
    uint64_t value = 2, seen = 0;
    (void)ctx, (void)arg;
    must(host_cpu_write(0, AT, &value, sizeof(value)));
    must(host_cpu_read(0, AT, &seen, sizeof(seen)));
    expect(seen == 2 || seen == 3, "the owner sees neither its own nor the mapper's write");
}

static void mapper_writes(struct mm_ctx *ctx, void *arg)
{
    uint64_t value = 3, seen = 0;
    (void)ctx, (void)arg;
    must(host_cpu_read(1, WINDOW, &seen, sizeof(seen)));
    expect(seen == OLD || seen == 2, "the mapper sees what was never there");
    must(host_cpu_write(1, WINDOW, &value, sizeof(value)));
    must(host_cpu_read(1, WINDOW, &seen, sizeof(seen)));
    expect(seen == 2 || seen == 3, "the mapper sees neither its own nor the owner's write");
}

static void child_writes(struct mm_ctx *ctx, void *arg)
{
    uint64_t value = 4, seen = 0;
    (void)ctx, (void)arg;
    must(host_cpu_read(2, AT, &seen, sizeof(seen)));
    expect(seen == OLD, "the child sees another space's write");
    must(host_cpu_write(2, AT, &value, sizeof(value)));
}

static bool check_writes(void *arg)
{
    (void)arg;
    audit();
    expect(look(world.child, AT) == 4, "the child's write is lost");
    uint64_t value = look(world.owner, AT);
    expect(value == 2 || value == 3, "both writes are lost");
    return look(world.mapper, WINDOW) == value;
}

static void explore(struct host_sched *sched)
{
    sched->setup = sched->setup != NULL ? sched->setup : setup;
    sched->max_preemptions = test_preemptions(2);
    CHECK(host_sched_explore(sched));
    CHECK(sched->complete);
    sched->random = test_steps(100);
    sched->seed = test_seed();
    CHECK(host_sched_explore(sched));
}

TEST_TIMED(writers_on_both_sides, 120)
{
    TEST_NEEDS_HOOKS();
    explore(&(struct host_sched){
        .cpus = 3, .body = {owner_writes, mapper_writes, child_writes}, .check = check_writes});
}

/* --- A reader through the map ----------------------------------------------------------------- */

/* What the owner wrote is seen through the map as soon as the owner goes on. */
static void owner_tells(struct mm_ctx *ctx, void *arg)
{
    uint64_t value = 2;
    (void)ctx, (void)arg;
    must(host_cpu_write(0, AT, &value, sizeof(value)));
    __atomic_store_n(&world.seen, 1, __ATOMIC_SEQ_CST);
}

static void mapper_looks(struct mm_ctx *ctx, void *arg)
{
    (void)ctx, (void)arg;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t seen = 0;
        bool told = __atomic_load_n(&world.seen, __ATOMIC_SEQ_CST) != 0;
        must(host_cpu_read(1, WINDOW, &seen, sizeof(seen)));
        expect(seen == 2 || (!told && seen == OLD), "the map shows the old page");
    }
}

static bool check_tells(void *arg)
{
    (void)arg;
    audit();
    return look(world.mapper, WINDOW) == 2 && look(world.child, AT) == OLD;
}

TEST_TIMED(a_reader_follows, 120)
{
    TEST_NEEDS_HOOKS();
    explore(
        &(struct host_sched){.cpus = 2, .body = {owner_tells, mapper_looks}, .check = check_tells});
}

/* Two vcpus of the owner, of which the second finds the copy that the first has just put in place.
 */
static void second_vcpu_tells(struct mm_ctx *ctx, void *arg)
{
    uint64_t value = 5;
    (void)ctx, (void)arg;
    must(host_cpu_write(2, gpa(AT.v + 8), &value, sizeof(value)));
    __atomic_store_n(&world.seen, 1, __ATOMIC_SEQ_CST);
}

static void first_vcpu_writes(struct mm_ctx *ctx, void *arg)
{
    uint64_t value = 2;
    (void)ctx, (void)arg;
    must(host_cpu_write(0, AT, &value, sizeof(value)));
}

static void mapper_looks_behind(struct mm_ctx *ctx, void *arg)
{
    (void)ctx, (void)arg;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t seen = 0;
        bool told = __atomic_load_n(&world.seen, __ATOMIC_SEQ_CST) != 0;
        must(host_cpu_read(1, gpa(WINDOW.v + 8), &seen, sizeof(seen)));
        expect(seen == 5 || (!told && seen == 0), "the map shows the old page");
    }
}

static void setup_vcpus(void *arg)
{
    setup(arg);
    must(host_cpu_run(2, world.owner));
}

TEST_TIMED(two_vcpus_of_the_owner, 120)
{
    TEST_NEEDS_HOOKS();
    explore(
        &(struct host_sched){.setup = setup_vcpus,
                             .cpus = 3,
                             .body = {first_vcpu_writes, mapper_looks_behind, second_vcpu_tells},
                             .check = check_tells});
}

/* --- Ends ------------------------------------------------------------------------------------- */

static void owner_is_destroyed(struct mm_ctx *ctx, void *arg)
{
    enum cleave_status status;
    (void)arg;
    do {
        status = space_destroy(ctx, world.owner);
    } while (status == CLEAVE_AGAIN);
    must(status);
}

/* Fails one day, when the page is taken back. */
static void mapper_goes_on(struct mm_ctx *ctx, void *arg)
{
    enum cleave_status status = CLEAVE_OK;
    uint64_t value = 3, seen = 0;
    (void)ctx, (void)arg;
    for (unsigned i = 0; i < 2 && status == CLEAVE_OK; i++) {
        status = host_cpu_write(1, WINDOW, &value, sizeof(value));
        status = status == CLEAVE_OK ? host_cpu_read(1, WINDOW, &seen, sizeof(seen)) : status;
        expect(status != CLEAVE_OK || seen == 3, "the mapper sees what it did not write");
    }
    expect(status == CLEAVE_OK || status == CLEAVE_FAULT, "the mapper fails in another way");
}

static bool check_destroyed(void *arg)
{
    (void)arg;
    audit();
    return look(world.child, AT) == OLD;
}

TEST_TIMED(the_owner_goes, 120)
{
    TEST_NEEDS_HOOKS();
    explore(&(struct host_sched){
        .cpus = 2, .body = {owner_is_destroyed, mapper_goes_on}, .check = check_destroyed});
}

/* --- What a map may write, while that changes --------------------------------------------------
 */

/* The mapper has written through the map. */
static void setup_written(void *arg)
{
    uint64_t value = 3;
    setup(arg);
    must(host_cpu_write(1, WINDOW, &value, sizeof(value)));
}

static void maps_are_unwritten(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    foreign_unwrite(ctx, world.owner);
}

static void owner_unmaps(struct mm_ctx *ctx, void *arg)
{
    enum cleave_status status;
    (void)arg;
    do {
        status = space_unmap(ctx, world.owner, AT, PAGE_SIZE);
    } while (status == CLEAVE_AGAIN);
    must(status);
}

/* The map keeps its page, whatever the owner has there later. */
static bool check_kept(void *arg)
{
    uint64_t value = 5, done;
    (void)arg;
    audit();
    must(space_set_region(host_ctx(0), world.owner, AT, PAGE_SIZE, &private_memory));
    must(space_write(host_ctx(0), world.owner, AT, &value, sizeof(value), NULL, &done));
    value = 6;
    enum cleave_status status = host_cpu_write(1, WINDOW, &value, sizeof(value));
    expect(status == CLEAVE_OK || status == CLEAVE_FAULT, "the mapper fails in another way");
    expect(look(world.owner, AT) == 5, "the map shows another page than it kept");
    audit();
    return look(world.mapper, WINDOW) == (status == CLEAVE_OK ? 6 : 3);
}

TEST_TIMED(an_unmap_while_maps_are_unwritten, 120)
{
    TEST_NEEDS_HOOKS();
    explore(&(struct host_sched){.cpus = 2,
                                 .setup = setup_written,
                                 .body = {maps_are_unwritten, owner_unmaps},
                                 .check = check_kept});
}

static void mapper_loses_its_right(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    must(space_protect(ctx, world.mapper, WINDOW, PAGE_SIZE, RIGHT_READ));
}

static void mapper_tries(struct mm_ctx *ctx, void *arg)
{
    uint64_t value = 3;
    (void)ctx, (void)arg;
    enum cleave_status status = host_cpu_write(1, WINDOW, &value, sizeof(value));
    expect(status == CLEAVE_OK || status == CLEAVE_FAULT, "the mapper fails in another way");
}

static bool check_lost(void *arg)
{
    uint64_t value = 7;
    (void)arg;
    audit();
    return host_cpu_write(1, WINDOW, &value, sizeof(value)) == CLEAVE_FAULT;
}

TEST_TIMED(a_mapper_that_loses_its_right, 120)
{
    TEST_NEEDS_HOOKS();
    explore(&(struct host_sched){
        .cpus = 2, .body = {mapper_loses_its_right, mapper_tries}, .check = check_lost});
}

/* --- Pins ------------------------------------------------------------------------------------- */

static void child_is_pinned(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    world.pinned = space_pin(ctx, world.child, AT, PAGE_SIZE, false, &world.pin);
}

/* The pin sees what its own space writes, and nobody else's writes. */
static bool check_pinned(void *arg)
{
    uint64_t value = 0;
    pfn_t f;
    (void)arg;
    audit();
    must(world.pinned);
    must(space_pinned_frame(host_ctx(0), world.child, world.pin, AT, &f));
    memcpy(&value, frame_address(f), sizeof(value));
    return value == 4 && look(world.child, AT) == 4 && look(world.owner, AT) == 2;
}

static void owner_and_pin(struct mm_ctx *ctx, void *arg)
{
    uint64_t value = 2;
    must(host_cpu_write(0, AT, &value, sizeof(value)));
    child_is_pinned(ctx, arg);
}

TEST_TIMED(a_pin_meets_writers, 120)
{
    TEST_NEEDS_HOOKS();
    explore(&(struct host_sched){
        .cpus = 3, .body = {owner_and_pin, mapper_looks, child_writes}, .check = check_pinned});
}

/* --- A reset lets its locks go to give up maps ------------------------------------------------ */

#define WORDS gpa(16 * PAGE_SIZE) /* 16 pages, each of them a word of the region tree */

static enum cleave_status protect_words(struct mm_ctx *ctx)
{
    return space_protect(ctx, world.child, WORDS, 16 * PAGE_SIZE, RIGHT_READ);
}

/* A fork with a base that has many words, and since has mapped a page of the owner. */
static void setup_reset(void *arg)
{
    const struct fork_options options = {.limit = UINT64_MAX, .base = true};
    struct space *parent;
    setup(arg);
    struct mm_ctx *ctx = host_ctx(0);
    must(space_create(ctx, world.pool, UINT64_MAX, &parent));
    must(space_set_region(ctx, parent, WORDS, 16 * PAGE_SIZE, &private_memory));
    for (uint64_t i = 0; i < 16; i += 2) {
        must(space_protect(ctx, parent, gpa(WORDS.v + i * PAGE_SIZE), PAGE_SIZE, RIGHT_READ));
    }
    must(space_fork(ctx, parent, 1, &options, &world.child));
    must(foreign_map(ctx, world.owner, AT, world.child, WINDOW));
}

static void reset_child(struct mm_ctx *ctx, void *arg)
{
    enum cleave_status status;
    (void)arg;
    do {
        status = space_reset(ctx, world.child, NULL, 0);
    } while (status == CLEAVE_AGAIN);
    expect(status == CLEAVE_OK || status == CLEAVE_BUSY, "a reset fails");
}

/* Resets, too; then begins something else, and stops. */
static void reset_and_protect(struct mm_ctx *ctx, void *arg)
{
    reset_child(ctx, arg);
    ctx->budget = 1;
    world.pinned = protect_words(ctx);
    ctx->budget = UINT64_MAX;
    expect(world.pinned == CLEAVE_AGAIN || world.pinned == CLEAVE_BUSY, "nothing is stopped");
}

static void mapper_unmaps(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    must(foreign_unmap(ctx, world.mapper, WINDOW));
}

/* What was stopped is there, and goes on. */
static bool check_reset(void *arg)
{
    struct mm_ctx *ctx = host_ctx(1);
    (void)arg;
    audit();
    expect(world.pinned == CLEAVE_BUSY || world.child->op == OP_PROTECT, "it was lost");
    while (world.pinned == CLEAVE_AGAIN) {
        world.pinned = protect_words(ctx);
    }
    must(world.child->op == OP_NONE ? CLEAVE_OK : CLEAVE_BUSY);
    must(space_reset(ctx, world.child, NULL, 0));
    audit();
    return true;
}

/* Two resets of one space, of which one is done, and more begun, when the other has its lock again.
 */
TEST_TIMED(a_reset_that_others_overtake, 120)
{
    TEST_NEEDS_HOOKS();
    explore(&(struct host_sched){.setup = setup_reset,
                                 .cpus = 3,
                                 .body = {reset_child, reset_and_protect, mapper_unmaps},
                                 .check = check_reset});
}
