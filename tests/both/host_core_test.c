/* SPDX-License-Identifier: BSD-2-Clause */
/* Guests on simulated CPUs above the real core: copy-on-write, flushes and frees as the model TLB
 * and the monitor see them. */
#include "test.h"

#include <string.h>

#include "fork.h"
#include "frame.h"
#include "host.h"

#define PAGES 24u /* of each guest */

static struct pool *pool;

static struct space *make_space(const struct pt_format *format)
{
    struct region region = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};
    struct space *space = NULL;

    host_start(&(struct host_options){.frames = 40 * level_pages(2), .cpus = 3, .format = format});
    host_enable_tlb(true);
    pool = host_pool(32 * level_size(2));
    REQUIRE_OK(space_create(host_ctx(0), pool, UINT64_MAX, &space));
    REQUIRE_OK(space_set_region(host_ctx(0), space, gpa(0), PAGES * PAGE_SIZE, &region));
    return space;
}

static struct space *fork_one(struct mm_ctx *ctx, struct space *parent)
{
    struct fork_options options = {.limit = UINT64_MAX};
    struct space *child = NULL;
    REQUIRE_OK(space_fork(ctx, parent, 1, &options, &child));
    return child;
}

static gpa_t page(unsigned n) { return gpa(n * PAGE_SIZE + 5); }

static void put(unsigned cpu, unsigned n, char byte)
{
    CHECK_OK(host_cpu_write(cpu, page(n), &byte, 1));
}

static char get(unsigned cpu, unsigned n)
{
    char byte = '?';
    CHECK_OK(host_cpu_read(cpu, page(n), &byte, 1));
    return byte;
}

static const struct format_case {
    const char *label;
    const struct pt_format *format;
} formats[] = {{"ept", &ept_format}, {"npt", &npt_format}};

TEST_TABLE(copies_on_write, formats)
{
    struct space *parent = make_space(row->format);

    REQUIRE_OK(host_cpu_run(1, parent));
    for (unsigned n = 0; n < PAGES; n++) {
        CHECK_EQ(get(1, n), 0);
        put(1, n, 'p');
    }
    host_tlb_check();
    struct space *child = fork_one(host_ctx(0), parent);
    host_tlb_check();
    REQUIRE_OK(host_cpu_run(2, child));
    for (unsigned n = 0; n < PAGES; n++) {
        CHECK_EQ(get(2, n), 'p');
        put(n % 2 ? 1 : 2, n, 'w');
        CHECK_EQ(get(1, n), n % 2 ? 'w' : 'p');
        CHECK_EQ(get(2, n), n % 2 ? 'p' : 'w');
        host_tlb_check();
    }
    host_cpu_stop(2);
    while (space_destroy(host_ctx(0), child) == CLEAVE_AGAIN) {
    }
    for (unsigned n = 0; n < PAGES; n++) {
        put(1, n, 'q');
    }
    host_tlb_check();
    host_check_locks();
}

/* While an unmap stands between its change and its flush, the guest still reads the page; the flush
 * is acknowledged before anything is dropped; afterwards the access is a fault. */
static unsigned read_at_flush;
static void read_page(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b, void *arg)
{
    (void)ctx, (void)a, (void)b, (void)arg;
    if (point == POINT_FLUSH) {
        read_at_flush += get(1, 3) == 'p';
    }
}

TEST(unmap_under_a_running_guest)
{
    TEST_NEEDS_HOOKS();
    struct space *space = make_space(&ept_format);
    char byte;

    REQUIRE_OK(host_cpu_run(1, space));
    put(1, 3, 'p');
    host_log_clear();
    host_on_point(read_page, NULL);
    CHECK_OK(space_unmap(host_ctx(0), space, gpa(3 * PAGE_SIZE), PAGE_SIZE));
    host_on_point(NULL, NULL);
    CHECK(read_at_flush > 0);
    CHECK(host_counters().stale > 0);
    CHECK(host_log_find(HOST_KICK, 0) != HOST_LOG_NONE);
    uint64_t free = host_log_find(POINT_FREE, 0);
    CHECK(host_log_find(HOST_ACKNOWLEDGE, 0) < free);
    CHECK(host_log_find(POINT_FLUSH, 0) < host_log_find(HOST_ACKNOWLEDGE, 0));
    CHECK(host_log_find(POINT_FLUSHED, 0) < free);
    host_tlb_check();
    CHECK_STATUS(host_cpu_read(1, page(3), &byte, 1), CLEAVE_FAULT);
}

/* A CPU that is elsewhere is not kicked and flushes when it comes back. */
TEST(flushes_lazily)
{
    struct space *space = make_space(&npt_format);
    char byte;

    REQUIRE_OK(host_cpu_run(1, space));
    put(1, 3, 'p');
    host_cpu_stop(1);
    uint64_t entries = host_tlb_entries(1, space->root);
    CHECK(entries > 0);
    host_reset_counters();
    CHECK_OK(space_unmap(host_ctx(0), space, gpa(3 * PAGE_SIZE), PAGE_SIZE));
    CHECK_EQ(host_counters().kicks, 0);
    CHECK_EQ(host_tlb_entries(1, space->root), entries);
    host_tlb_check();
    REQUIRE_OK(host_cpu_run(1, space));
    CHECK_EQ(host_tlb_entries(1, space->root), 0);
    CHECK_STATUS(host_cpu_read(1, page(3), &byte, 1), CLEAVE_FAULT);
}

/* --- A walk at random, with what each page should hold beside it ------------------------------ */

#define SPACES 5u

static struct guest {
    struct space *space;
    char bytes[PAGES];
} guests[SPACES];

static void random_fork(uint64_t r)
{
    struct guest *from = &guests[r % SPACES], *to = &guests[r / 8 % SPACES];

    if (from == to || !from->space) {
        return;
    }
    if (to->space) {
        for (unsigned cpu = 1; cpu < 3; cpu++) {
            if (flush_running(cpu) == to->space) {
                host_cpu_stop(cpu);
            }
        }
        while (space_destroy(host_ctx(0), to->space) == CLEAVE_AGAIN) {
        }
    }
    *to = *from;
    to->space = fork_one(host_ctx(0), from->space);
}

static void random_access(uint64_t r)
{
    struct guest *g = &guests[r % SPACES];
    unsigned cpu = 1 + (r >> 8 & 1), n = (unsigned)(r >> 16) % PAGES;

    if (!g->space) {
        return;
    }
    if (flush_running(cpu) != g->space) {
        host_cpu_stop(cpu);
        REQUIRE_OK(host_cpu_run(cpu, g->space));
    }
    if (r >> 32 & 1) {
        g->bytes[n] = (char)(r >> 40);
        put(cpu, n, g->bytes[n]);
    } else if (get(cpu, n) != g->bytes[n]) {
        test_case("space %u page %u", g->space->id, n);
        CHECK_EQ(get(cpu, n), g->bytes[n]);
    }
}

static void walk_at_random(enum host_tlb_mode mode, enum host_speculation speculation,
                           uint64_t steps)
{
    uint64_t seed = test_seed();

    memset(guests, 0, sizeof(guests));
    guests[0].space = make_space(&ept_format);
    host_tlb_mode(mode);
    host_speculation(speculation);
    for (uint64_t i = 0; i < steps; i++) {
        uint64_t r = test_random(&seed);
        if (r >> 56 < 12) {
            random_fork(r);
        } else {
            random_access(r);
        }
        host_tlb_check();
        host_check_locks();
    }
    CHECK(host_counters().accesses > steps / 2);
}

TEST(random_stale) { walk_at_random(HOST_TLB_STALE, HOST_SPECULATE_RECENT, test_steps(4000)); }
TEST(random_mixed) { walk_at_random(HOST_TLB_RANDOM, HOST_SPECULATE_RECENT, test_steps(4000)); }
TEST(random_everything)
{
    if (GUEST_PAGES > 4096) {
        TEST_SKIP("the small geometry only");
    }
    walk_at_random(HOST_TLB_STALE, HOST_SPECULATE_ALL, test_steps(4000));
}

/* --- Schedules -------------------------------------------------------------------------------- */

static struct {
    struct space *space[2];
    bool wrong;
} race;

static void race_setup(void *arg)
{
    (void)arg;
    race.wrong = false;
    race.space[0] = make_space(&ept_format);
    REQUIRE_OK(host_cpu_run(2, race.space[0]));
    put(2, 1, 'p');
    host_cpu_stop(2);
    race.space[1] = fork_one(host_ctx(0), race.space[0]);
}

/* Both write the page that they share; each must read back its own byte. */
static void race_body(struct mm_ctx *ctx, void *arg)
{
    char byte = (char)('a' + ctx->cpu), seen = 0;
    (void)arg;
    if (host_cpu_run(ctx->cpu, race.space[ctx->cpu]) != CLEAVE_OK ||
        host_cpu_write(ctx->cpu, page(1), &byte, 1) != CLEAVE_OK ||
        host_cpu_read(ctx->cpu, page(1), &seen, 1) != CLEAVE_OK || seen != byte) {
        race.wrong = true;
    }
    host_cpu_stop(ctx->cpu);
}

static bool race_check(void *arg)
{
    (void)arg;
    host_tlb_check();
    return !race.wrong;
}

TEST(two_forks_write_one_page)
{
    struct host_sched sched = {.setup = race_setup,
                               .cpus = 2,
                               .body = {race_body, race_body},
                               .check = race_check,
                               .max_preemptions = 2,
                               .max_schedules = 4000};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.schedules > 10);
}

/* Two vcpus of one space write the same page. */
static void one_body(struct mm_ctx *ctx, void *arg)
{
    char byte = (char)('a' + ctx->cpu), seen = 0;
    (void)arg;
    if (host_cpu_run(ctx->cpu, race.space[0]) != CLEAVE_OK ||
        host_cpu_write(ctx->cpu, gpa(page(1).v + ctx->cpu), &byte, 1) != CLEAVE_OK ||
        host_cpu_read(ctx->cpu, gpa(page(1).v + ctx->cpu), &seen, 1) != CLEAVE_OK || seen != byte) {
        race.wrong = true;
    }
    host_cpu_stop(ctx->cpu);
}

TEST(two_vcpus_write_one_page)
{
    struct host_sched sched = {.setup = race_setup,
                               .cpus = 2,
                               .body = {one_body, one_body},
                               .check = race_check,
                               .max_preemptions = 2,
                               .max_schedules = 4000};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.schedules > 10);
}

/* What one vcpu writes and another has been told of, a third may not miss, whoever copies the page.
 */
static bool told;

static void tell_setup(void *arg)
{
    race_setup(arg);
    told = false;
    for (unsigned cpu = 0; cpu < 3; cpu++) {
        REQUIRE_OK(host_cpu_run(cpu, race.space[0]));
        host_tlb_prefetch(cpu, page(1));
    }
}

static void copier_body(struct mm_ctx *ctx, void *arg)
{
    char byte = 'c';
    (void)arg;
    race.wrong |= host_cpu_write(ctx->cpu, gpa(page(1).v + 1), &byte, 1) != CLEAVE_OK;
    host_cpu_stop(ctx->cpu);
}

static void teller_body(struct mm_ctx *ctx, void *arg)
{
    char byte = 't';
    (void)arg;
    race.wrong |= host_cpu_write(ctx->cpu, page(1), &byte, 1) != CLEAVE_OK;
    told = true;
    host_cpu_stop(ctx->cpu);
}

static void listener_body(struct mm_ctx *ctx, void *arg)
{
    char byte = 0;
    (void)arg;
    bool was_told = told;
    race.wrong |= host_cpu_read(ctx->cpu, page(1), &byte, 1) != CLEAVE_OK;
    race.wrong |= was_told && byte != 't';
    host_cpu_stop(ctx->cpu);
}

TEST(a_copy_is_seen_by_all_at_once)
{
    struct host_sched sched = {.setup = tell_setup,
                               .cpus = 3,
                               .body = {copier_body, teller_body, listener_body},
                               .check = race_check,
                               .max_preemptions = 2,
                               .max_schedules = 4000};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.schedules > 10);
}
