/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the public history of flushes, splits and remaps in Linux, KVM and arm64
 * teaches: a named test for each bug that a core without hardware can show.
 * docs/tests.md says what each was about, and which tests of other suites are
 * those that are missing here.
 */
#include <string.h>

#include "audit.h"
#include "rows_ops.h"

#define SMALL (TABLE_ENTRIES == 4)
#define ELSEWHERE (4 * GIGA)

static const struct shape_row shapes[] = SHAPE_ROWS;
static const struct region private_region = {
    .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};

/* --- T1: move, recycle, write ----------------------------------------------------------------- */

static struct {
    enum shape shape;
    struct space *space, *next; /* `next` gets what `space` gives up */
    bool shared, wrong;
} race;

static void race_setup(void *arg)
{
    (void)arg;
    scene_shape(race.shape);
    for (unsigned i = 1; i < machine.cpus; i++) {
        host_cpu_stop(i);
    }
    race.wrong = false;
    race.space = scene.space;
    if (race.shared) {
        race.space = scene_fork(scene.space);
    }
    race.next = scene_space();
    scene_region(race.next, 0, 2, REGION_PRIVATE, RIGHT_ALL, 0);
    REQUIRE_OK(host_cpu_run(1, race.space));
    REQUIRE_OK(host_cpu_write(1, PAGE(scene.base + 1), &race.shape, 4));
}

/* Stores without exits, as far as its translation lets it. */
static void storing_body(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    for (uint64_t i = 1; i < 5; i++) {
        enum cleave_status status = host_cpu_write(ctx->cpu, PAGE(scene.base + 1), &i, sizeof(i));
        race.wrong |= status != CLEAVE_OK && status != CLEAVE_FAULT;
    }
    host_cpu_stop(ctx->cpu);
}

/* Moves the page and unmaps it at its new place; whatever frame comes free goes
 * to somebody else. */
static void moving_body(struct mm_ctx *ctx, void *arg)
{
    uint64_t copies, canary = 0xca0a51, done, found = 0;
    (void)arg;
    race.wrong |= space_move(ctx, race.space, PAGE(scene.base + 1), PAGE(ELSEWHERE), PAGE_SIZE,
                             &copies) != CLEAVE_OK;
    race.wrong |= space_unmap(ctx, race.space, PAGE(ELSEWHERE), PAGE_SIZE) != CLEAVE_OK;
    for (unsigned i = 0; i < 2; i++) {
        race.wrong |= space_write(ctx, race.next, PAGE(i), &canary, 8, NULL, &done) != CLEAVE_OK;
        host_sched_yield();
    }
    for (unsigned i = 0; i < 2; i++) {
        race.wrong |=
            space_read(ctx, race.next, PAGE(i), &found, 8, NULL) != CLEAVE_OK || found != canary;
    }
}

static bool race_check(void *arg)
{
    (void)arg;
    scene_audit();
    return !race.wrong;
}

/* CVE-2018-18281 (linux eb66ae030829): mremap() let go of the lock before it
 * flushed, and another CPU freed and reused the page under a stale writable
 * translation. */
TEST_TABLE(t_t1_move_against_a_storing_vcpu, shapes)
{
    TEST_NEEDS_HOOKS();
    for (unsigned shared = 0; shared < 2; shared++) {
        struct host_sched sched = {.setup = race_setup,
                                   .cpus = 2,
                                   .body = {moving_body, storing_body},
                                   .check = race_check,
                                   .max_preemptions = 2,
                                   .max_schedules = SMALL ? 500 : 8};
        race.shape = row->shape;
        race.shared = shared != 0;
        CHECK(host_sched_explore(&sched));
        CHECK(sched.schedules > 5);
    }
}

/* --- T2: each kind of entry to each operation ------------------------------------------------- */

enum {
    LOT_4K,
    LOT_2M,
    LOT_1G,
    LOT_HOLE,
    LOT_ABSENT,
    LOT_DEVICE,
    LOT_SHARED,
    LOT_FOREIGN,
    LOT_PAGED,
    LOT_FORKED,
    LOTS
};

static struct {
    uint64_t page[LOTS];
    struct space *owner, *child;
    struct pager *pager;
} lot;

/* In the real geometry a 1 GiB leaf takes long to make: only where it is asked
 * for. */
static void make_lots(bool with_giga)
{
    const struct region paged = {.policy = REGION_PAGED, .rights = RIGHT_READ | RIGHT_WRITE};
    scene_start_with(SMALL       ? 2 * TABLE_ENTRIES + 96
                     : with_giga ? 2 * TABLE_ENTRIES + 24
                                 : 32,
                     &(struct host_options){.frames = 2 * BLOCK});
    pfn_t mmio = host_take(BLOCK, 1);
    scene.space = scene_space();
    lot.owner = scene_space();
    scene_memory(lot.owner, GIGA, 1, 0);
    for (unsigned i = 0; i < LOTS; i++) {
        lot.page[i] = (2 + (uint64_t)i) * GIGA;
    }
    scene_memory(scene.space, lot.page[LOT_FORKED], 2 * BLOCK, 1);
    lot.child = scene_fork(scene.space);
    scene_memory(scene.space, lot.page[LOT_4K], 2 * BLOCK, 0);
    scene_memory(scene.space, lot.page[LOT_2M], 2 * BLOCK, 1);
    if (with_giga || SMALL) {
        scene_memory(scene.space, lot.page[LOT_1G], GIGA, 2);
    }
    scene_region(scene.space, lot.page[LOT_HOLE], 2 * BLOCK, REGION_PRIVATE, RIGHT_ALL, 1);
    scene_region(scene.space, lot.page[LOT_SHARED], 4, REGION_SHARED, RIGHT_ALL, 0);
    REQUIRE_OK(space_map_device(scene.ctx, scene.space, PAGE(lot.page[LOT_DEVICE]), BYTES(BLOCK),
                                mmio, RIGHT_READ | RIGHT_WRITE, false));
    REQUIRE_OK(
        foreign_map(scene.ctx, lot.owner, PAGE(GIGA), scene.space, PAGE(lot.page[LOT_FOREIGN])));
    REQUIRE_OK(pager_create(scene.ctx, scene.pool, lot.owner, gpa(4 * level_size(2)), &lot.pager));
    REQUIRE_OK(space_map_paged(scene.ctx, scene.space, PAGE(lot.page[LOT_PAGED]), BYTES(4),
                               lot.pager, 0, 1, 0, &paged));
}

static void drop_lots(void)
{
    REQUIRE_OK(pager_destroy(scene.ctx, lot.pager)); /* pagers are numbered for the whole machine */
    host_stop();
}

#define OPERATIONS 17u

static enum cleave_status operate(unsigned what, uint64_t page, uint64_t pages)
{
    struct mm_ctx *ctx = scene.ctx;
    struct space *space = scene.space, *made;
    struct region region = {.policy = REGION_WIPE, .rights = RIGHT_READ | RIGHT_WRITE};
    const struct channel_options options = {.asynchronous = true};
    const struct fork_options plain = {.limit = UINT64_MAX};
    struct gfn_range found[8];
    struct diff diff = {.from = gfn(page), .end = gfn(page + pages), .found = found, .room = 8};
    struct vcpu_wait wait = {0};
    struct channel *channel;
    struct mapping mapping;
    uint64_t value = 3, done;
    enum cleave_status status;
    uint32_t id;

    switch (what) {
    case 0:
        return space_unmap(ctx, space, PAGE(page), BYTES(pages));
    case 1:
        return space_protect(ctx, space, PAGE(page), BYTES(pages), RIGHT_READ);
    case 2:
        return space_populate(ctx, space, PAGE(page), BYTES(pages));
    case 3:
        return space_set_region(ctx, space, PAGE(page), BYTES(pages), &region);
    case 4:
        return space_map(ctx, space, PAGE(page), 0, &private_region);
    case 5:
        return space_move(ctx, space, PAGE(page), PAGE(14 * GIGA), BYTES(pages), &done);
    case 6:
        return space_collapse(ctx, space, gfn_to_gpa(level_align(gfn(page), 1)), 1);
    case 7:
        return space_collapse(ctx, space, gfn_to_gpa(level_align(gfn(page), 2)), 2);
    case 8:
        status = space_pin(ctx, space, PAGE(page), BYTES(pages), true, &id);
        return status == CLEAVE_OK ? space_unpin(ctx, space, id) : status;
    case 9:
        return space_diff(ctx, space, lot.child, &diff);
    case 10:
        return space_lookup(ctx, space, PAGE(page), &mapping);
    case 11:
        return space_read(ctx, space, PAGE(page), &value, 8, NULL);
    case 12:
    case 13:
    case 14:
        status = space_fault(ctx, space, PAGE(page), (enum access)(what - 12), &wait);
        if (wait.kind == WAIT_LOAD) {
            pager_cancel_wait(ctx, &wait);
        }
        return status;
    case 15:
        REQUIRE_OK(channel_create(ctx, scene.pool, &options, &channel));
        status = channel_arm(ctx, channel, space, PAGE(page), BYTES(pages));
        channel_destroy(ctx, channel);
        return status;
    default:
        status = space_fork(ctx, space, 1, &plain, &made);
        return status == CLEAVE_OK ? space_destroy(ctx, made) : status;
    }
}

/* CVE-2020-10757: the move path took a huge entry for a table. Every kind of
 * entry, whole and in part, is given to every operation: each knows it, or
 * refuses it with nothing changed. */
TEST_TIMED(t_t2_every_entry_to_every_operation, 120)
{
    for (unsigned what = 0; what < OPERATIONS; what++) {
        for (unsigned which = 0; which < LOTS; which += 1) {
            for (unsigned part = 0; part < 3; part++) {
                uint64_t pages = part == 2 ? BLOCK : 1;
                test_case("operation %u on entry %u, part %u", what, which, part);
                make_lots(which == LOT_1G);
                struct scene_state before = {0}, after;
                if (SMALL) { /* to look at every byte takes long in the real geometry */
                    before = scene_state();
                }
                enum cleave_status status = operate(what, lot.page[which] + part % 2, pages);
                scene_audit();
                CHECK(status < CLEAVE_STATUS_END);
                if (status >= CLEAVE_ERROR_FIRST && SMALL) {
                    after = scene_state();
                    SCENE_CHECK_SAME_VIEW(before, after);
                }
                drop_lots();
                if (!SMALL && part == 0) {
                    break;
                }
            }
        }
    }
}

/* --- T5, T6: ranges and stops ----------------------------------------------------------------- */

/* Linux 8ed716ca7dc9, 2822da446640, 33a3164161fc: what was to be flushed was
 * lost over a yield, or flushed for a wrong range. Both CPUs know every page in
 * and around the range; after each operation, and each time that it stops on
 * its way, they may use nothing that the tables do not say. CVE-2021-47094 and
 * CVE-2021-47639: an iterator that had yielded passed over an entry, or a dying
 * root: the counts and everything else that an audit sees hold at each stop,
 * too. */
TEST_TABLE(t_t5_t6_every_stop_is_flushed_and_sound, row_ops)
{
    static const uint64_t budgets[] = {1, 2, 3, 7};
    for (unsigned i = 0; i < rows_quick_shapes(); i++) {
        for (unsigned k = 0; k < (SMALL ? 4 : 1); k++) {
            enum cleave_status status;
            unsigned stops = 0;
            test_case("%s, budget %u", rows_shapes[i].label, (unsigned)budgets[k]);
            rows_start(rows_shapes[i].shape, row);
            do {
                scene.ctx->budget = budgets[k];
                status = row->step(scene.ctx, NULL);
                scene.ctx->budget = UINT64_MAX;
                if (stops < 40) {
                    scene_audit();
                }
            } while (status == CLEAVE_AGAIN && ++stops < 100000);
            CHECK(rows_done(row, status));
            host_tlb_check();
            rows_write_after();
            rows_end();
        }
    }
}

/* --- T7: nothing is mapped that nobody holds -------------------------------------------------- */

static void check_owned(void *arg, pfn_t table, unsigned level, pte_t e)
{
    (void)table;
    if (pte_holds_leaf(e, level)) {
        bool ram = pte_pfn(e).v >= scene.pool->start.v && pte_pfn(e).v < scene.pool->end.v;
        CHECK_EQ(ram, pte_counted(e));
        CHECK(!ram || audit_references(pte_pfn(e), level) > 0 ||
              frame_of(pte_pfn(e), level)->count > 0);
        ++*(unsigned *)arg;
    }
}

/* CVE-2021-22543 (linux f8be156be163): pages without a count were mapped into a
 * guest and freed beneath it. Every leaf holds a reference or is a device's; a
 * pool's frame is no device, and a fork gets neither devices nor other spaces'
 * pages. */
TEST(t_t7_every_leaf_is_owned)
{
    unsigned leaves = 0;
    make_lots(true);
    struct space *child = scene_fork(scene.space);
    rows_each_entry(check_owned, &leaves);
    CHECK(leaves > 10);
    CHECK_EQ(scene_lookup(child, lot.page[LOT_DEVICE]).kind, PTE_KIND_ABSENT);
    CHECK_EQ(scene_lookup(child, lot.page[LOT_FOREIGN]).kind, PTE_KIND_ABSENT);
    for (unsigned i = 0; i < 3; i++) {
        pfn_t f = i == 0   ? scene.pool->start
                  : i == 1 ? scene_lookup(scene.space, lot.page[LOT_4K]).frame
                           : pfn(scene.pool->end.v - 1);
        CHECK_STATUS(
            space_map_device(scene.ctx, child, PAGE(14 * GIGA), PAGE_SIZE, f, RIGHT_READ, false),
            CLEAVE_EXISTS);
    }
    uint32_t id;
    CHECK_STATUS(
        space_pin(scene.ctx, scene.space, PAGE(lot.page[LOT_DEVICE]), PAGE_SIZE, true, &id),
        CLEAVE_POLICY);
    CHECK_STATUS(
        space_pin(scene.ctx, scene.space, PAGE(lot.page[LOT_FOREIGN]), PAGE_SIZE, true, &id),
        CLEAVE_POLICY);
    drop_lots();
}

/* --- T8: lock classes ------------------------------------------------------------------------- */

struct pair {
    enum lock_rank first, second;
};

static void take_both(void *arg)
{
    const struct pair *pair = arg;
    struct spinlock a = {0}, b = {0};
    struct mm_ctx ctx = {0};
    spin_lock(&ctx, &a, pair->first);
    spin_lock(&ctx, &b, pair->second);
    spin_unlock(&ctx, &b, pair->second);
    spin_unlock(&ctx, &a, pair->first);
    if (ctx.lock_depth != 0) {
        host_fail("unbalanced");
    }
}

/* CVE-2022-45869: a step that needed the writer's lock was run under the
 * reader's. Every pair of lock classes in the wrong order stops a debug build.
 */
TEST(t_t8_lock_classes_are_checked)
{
    TEST_NEEDS_DEBUG();
    scene_start(0);
    for (unsigned first = RANK_CAP; first < RANK_END; first++) {
        for (unsigned second = RANK_CAP; second < RANK_END; second++) {
            struct pair pair = {(enum lock_rank)first, (enum lock_rank)second};
            bool legal = second > first ||
                         (second == first && (second == RANK_TABLE || second == RANK_SPACE));
            test_case("%u then %u", first, second);
            CHECK_EQ(host_expect_panic(take_both, &pair), !legal);
        }
    }
    host_stop();
}

/* --- T10: never two frames at once ------------------------------------------------------------ */

#define NOTED 1024u
static struct {
    const pte_t *slot[NOTED]; /* entries that lead to another frame than before;
                                 not flushed since */
    unsigned count;
    unsigned replaced;
} swap;

/* The frames that an entry leads to, as seen from the page at `i`. */
static uint64_t leads_to(pte_t e, unsigned level, uint64_t i)
{
    while (pte_is_table(e, level)) {
        level--;
        e = pte_read(&table_slots(pte_pfn(e))[i >> (LEVEL_BITS * level) & (TABLE_ENTRIES - 1)]);
    }
    return pte_is_leaf(e, level) ? pte_pfn(e).v + (i & (level_pages(level) - 1)) : 0;
}

static void note_entry(const pte_t *slot, pte_t e)
{
    uint64_t byte = (uint64_t)((const unsigned char *)slot - machine.direct_map);
    unsigned level = table_level(pfn((uint32_t)(byte >> PAGE_SHIFT)));
    pte_t old = pte_read(slot);

    if (!(old & pt_format.present) || !(e & pt_format.present) || level == ROOT_LEVEL) {
        return; /* it was or becomes absent, or is made of what is copied whole */
    }
    bool other = false;
    for (uint64_t i = 0; i < level_pages(level) && !other; i += level > 1 ? BLOCK - 1 : 1) {
        uint64_t from = leads_to(old, level, i), to = leads_to(e, level, i);
        other = from != 0 && from != to;
    }
    if (other && level == 0) {
        CHECK(!pte_writable(e));
        swap.replaced++;
        REQUIRE(swap.count < NOTED);
        swap.slot[swap.count++] = slot;
    } else {
        CHECK(!other); /* a split or a collapse changes no frame */
    }
    for (unsigned i = 0; i < swap.count && pte_writable(e); i++) {
        CHECK(swap.slot[i] != slot);
    }
}

static void check_protocol(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                           void *arg)
{
    (void)ctx, (void)arg;
    if (point == POINT_FLUSHED) {
        swap.count = 0;
    } else if (point == POINT_ENTRY && b != pt_format.write) {
        note_entry((const pte_t *)(uintptr_t)a, b);
    }
}

/* Linux d4b9e0790aa7, arm64's break-before-make: an entry went from one frame
 * to another, or from a block to a table, while a CPU used the old one. Here an
 * entry that leads to another frame is read-only until a flush has ended, and a
 * split or a collapse leads to the same frames as before. */
TEST_TABLE(t_t10_another_frame_is_read_only_until_the_flush, row_ops)
{
    TEST_NEEDS_HOOKS();
    unsigned replaced = 0;
    for (unsigned i = 0; i < rows_quick_shapes(); i++) {
        memset(&swap, 0, sizeof(swap));
        test_case("%s", rows_shapes[i].label);
        rows_start(rows_shapes[i].shape, row);
        bool reset = strncmp(row->label, "reset", 5) == 0; /* its vcpus are stopped */
        host_on_point(reset ? NULL : check_protocol, NULL);
        CHECK(rows_done(row, rows_run(row, UINT64_MAX)));
        host_on_point(check_protocol, NULL);
        rows_write_after();
        host_on_point(NULL, NULL);
        replaced += swap.replaced;
        rows_end();
    }
    CHECK(replaced > 0 || strncmp(row->label, "destroy", 7) == 0);
}

/* --- H2: paged entries point above all memory ------------------------------------------------- */

/* XSA-273 (L1TF): a not-present entry with an address that a guest chooses is
 * read speculatively. For every payload a paged entry's address lies above all
 * memory, in both formats. (Absent entries:
 * fault.h2_absent_entries_point_nowhere.) */
TEST(t_h2_paged_entries_point_above_all_memory)
{
    uint64_t state = test_seed();
    for (unsigned i = 0; i < 4000; i++) {
        uint64_t payload =
            i < PTE_PAGED_BITS ? UINT64_C(1) << i : test_random(&state) >> (64 - PTE_PAGED_BITS);
        payload &= (UINT64_C(1) << PTE_PAGED_BITS) - 1;
        pte_t e = pte_make_paged(payload);
        CHECK_EQ(pte_paged_payload(e), payload);
        CHECK(!(e & (ept_format.present | npt_format.present)));
        uint64_t address = e & (UINT64_C(0xfffffffffffff000) & ((UINT64_C(1) << 52) - 1));
        CHECK(address >> 12 > UINT32_MAX); /* frame numbers are 32 bits wide */
    }
    make_lots(false);
    struct host_walk walk = host_walk(scene.space->root, PAGE(lot.page[LOT_PAGED]));
    CHECK(!walk.present);
    CHECK(*walk.slot[walk.level] & PTE_PAGED_FAR);
    drop_lots();
}
