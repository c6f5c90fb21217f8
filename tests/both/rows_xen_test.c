/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What Xen's security advisories (XSA) on page tables teach, as tests of this
 * core: a named test for each that a core without hardware can show; the second
 * half is rows_xen_race_test.c. docs/tests.md says which tests of other suites
 * cover the rest.
 */
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "rows_ops.h"

static const struct region private_region = {
    .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};

static unsigned audit_invariant(void)
{
    struct audit_report report = {0};
    uint64_t bytes = audit_scratch_bytes(scene.pool);
    void *scratch = calloc(1, bytes);
    REQUIRE(scratch != NULL);
    REQUIRE_OK(pool_audit(scene.ctx, scene.pool, scratch, bytes, &report));
    free(scratch);
    return report.invariant;
}

/* --- X1, X2: which bits an entry may have and which may change -------------------------------- */

static bool legal_entry(pte_t e, unsigned level)
{
    const pte_t hardware = pt_format.accessed | pt_format.dirty;
    const pte_t software = PTE_SHARED | PTE_DEVICE | PTE_FOREIGN | PTE_PENDING;
    pte_t allowed = pt_format.address | pt_format.write | pt_format.exec | hardware;

    switch (pte_kind(e, level)) {
    case PTE_KIND_ABSENT:
        return e == 0;
    case PTE_KIND_PAGED:
        return (e & PTE_PAGED_FAR) != 0 && level < LEAF_ORDERS - 1;
    case PTE_KIND_PARKED:
        return (e >> 51 & 1) != 0 && !pte_is_parked(pte_unpark(e)) &&
               legal_entry(pte_unpark(e), level);
    case PTE_KIND_TABLE:
        return (e & ~(allowed | pt_format.table_bits)) == 0 && !(e & pt_format.reserved_table);
    case PTE_KIND_LEAF:
        allowed |= software | pt_format.leaf_bits | pt_format.device_bits;
        allowed |= level > 0 ? pt_format.huge : 0;
        return level < LEAF_ORDERS && (e & ~allowed) == 0 &&
               !(e & pt_format.reserved_leaf[level]) && pte_pfn(e).v % level_pages(level) == 0;
    }
    return false;
}

static bool same_target(pte_t a, pte_t b) { return ((a ^ b) & pt_format.address) == 0; }

/* At every change of an entry: the new one is legal, and one that keeps its
 * kind and target changes in nothing but these bits. */
static void check_change(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                         void *arg)
{
    const pte_t in_place = pt_format.write | pt_format.exec | pt_format.accessed | pt_format.dirty |
                           PTE_PENDING | PTE_SHARED;
    pte_t *slot = (pte_t *)(uintptr_t)a;
    (void)ctx;
    if (point != POINT_ENTRY || b == pt_format.write) {
        return;
    }
    uint64_t byte = (uint64_t)((unsigned char *)slot - machine.direct_map);
    unsigned level = table_level(pfn((uint32_t)(byte >> PAGE_SHIFT)));
    pte_t old = pte_read(slot);
    CHECK(legal_entry(b, level));
    if (old != 0 && b != 0 && pte_kind(old, level) == pte_kind(b, level) && same_target(old, b)) {
        CHECK_EQ((old ^ b) & ~in_place, 0);
    }
    ++*(uint64_t *)arg;
}

/* XSA-148, XSA-182: a fast path that skipped validation let size and write bits
 * change. */
TEST_TABLE(t_x1_entries_change_in_whitelisted_bits_only, row_ops)
{
    TEST_NEEDS_HOOKS();
    for (unsigned i = 0; i < rows_quick_shapes(); i++) {
        uint64_t changes = 0;
        test_case("%s", rows_shapes[i].label);
        rows_start(rows_shapes[i].shape, row);
        host_on_point(check_change, &changes);
        CHECK(rows_done(row, rows_run(row, UINT64_MAX)));
        rows_write_after();
        host_on_point(NULL, NULL);
        CHECK(changes > 0);
        rows_end();
    }
}

static const struct format_row {
    const char *label;
    const struct pt_format *format;
} formats[] = {{"ept", &ept_format}, {"npt", &npt_format}};

/* XSA-167, XSA-176: a size bit where it is reserved, a superpage frame that
 * nobody had checked. Each of the 64 bits of an entry at each level, turned
 * over, is found by the audit, but those that the hardware sets and those that
 * are the core's own to keep or to clear. */
TEST_TABLE(t_x2_every_bit_of_an_entry_is_audited, formats)
{
    scene_shape_with(SHAPE_PARTLY, &(struct host_options){.format = row->format});
    host_enable_tlb(false);
    for (unsigned leaf = 0; leaf < 2; leaf++) {
        struct host_walk walk = host_walk(scene.space->root, PAGE(scene.base + leaf * BLOCK));
        REQUIRE(walk.present);
        for (unsigned level = walk.level; level < TABLE_LEVELS; level++) {
            pte_t *slot = walk.slot[level], old = *slot;
            pte_t silent = pt_format.accessed | pt_format.dirty | pt_format.exec | pt_format.write |
                           PTE_PENDING;
            for (unsigned bit = 0; bit < 64; bit++) {
                pte_t mask = UINT64_C(1) << bit;
                *slot = old ^ mask;
                unsigned found = audit_invariant();
                *slot = old;
                if (found == 0 && !(mask & silent)) {
                    test_case("level %u bit %u", level, bit);
                    CHECK(false);
                }
                CHECK(found == 0 || !(mask & pt_format.accessed));
            }
            *slot = old;
        }
    }
    test_case("%s", "");
    scene_end();
}

/* --- X3: arguments from everywhere ------------------------------------------------------------ */

static uint64_t fuzz_state;

static uint64_t fuzz_number(void)
{
    uint64_t r = test_random(&fuzz_state);
    const uint64_t base = scene.base << PAGE_SHIFT, width = UINT64_C(1) << GUEST_BITS;
    const uint64_t edges[] = {0,
                              1,
                              PAGE_SIZE,
                              base,
                              base + PAGE_SIZE,
                              level_size(1),
                              level_size(2),
                              width - PAGE_SIZE,
                              width,
                              UINT64_MAX,
                              UINT64_MAX - PAGE_SIZE + 1,
                              UINT64_C(1) << 63,
                              base + level_size(1),
                              UINT64_C(1) << 32};
    switch (r % 4) {
    case 0:
        return test_random(&fuzz_state);
    case 1:
        return test_random(&fuzz_state) >> (r >> 8 & 63) << PAGE_SHIFT;
    default:
        return edges[(r >> 8) % (sizeof(edges) / sizeof(edges[0]))] +
               ((r >> 16) % 4 == 0 ? (r >> 24) % 3 - 1 : 0);
    }
}

static enum cleave_status fuzz_call(void)
{
    struct mm_ctx *ctx = scene.ctx;
    struct space *space = scene.space;
    gpa_t at = gpa(fuzz_number()), to = gpa(fuzz_number());
    uint64_t size = fuzz_number(), value = 0;
    struct mapping mapping;
    struct region region = private_region;
    region.policy = (enum region_policy)(fuzz_number() % 16);
    region.rights = (uint8_t)fuzz_number();
    region.order = (uint8_t)(fuzz_number() % 4);
    const struct gfn_range keep[2] = {{gfn(fuzz_number()), gfn(fuzz_number())}, {gfn(1), gfn(2)}};

    switch (test_random(&fuzz_state) % 14) {
    case 0:
        return space_unmap(ctx, space, at, size);
    case 1:
        return space_protect(ctx, space, at, size, region.rights);
    case 2:
        return space_set_region(ctx, space, at, size % (4 * level_size(1)), &region);
    case 3:
        return space_map(ctx, space, at, (unsigned)(size % 3 == 2 ? size >> 32 | 3 : size % 2),
                         &region);
    case 4:
        return space_map_device(ctx, space, at, size, pfn((uint32_t)fuzz_number()), region.rights,
                                false);
    case 5:
        return space_move(ctx, space, at, to, size, &value);
    case 6:
        return space_collapse(ctx, space, at, (unsigned)size);
    case 7:
        return space_fault(ctx, space, at, (enum access)(size % 3), NULL);
    case 8:
        return space_lookup(ctx, space, at, &mapping);
    case 9:
        return space_read(ctx, space, at, &value, size % 9, NULL);
    case 10:
        return space_populate(ctx, space, at, size);
    case 11:
        return foreign_map(ctx, space, at, rows.mapper, to);
    case 12:
        return space_reset(ctx, rows.child, keep, (unsigned)(size % 3));
    default:
        return channel_arm(ctx, rows.channel, space, at, size);
    }
}

/* XSA-29, XSA-31, XSA-158, XSA-212: only the start of a range was checked, or
 * an order not at all. */
TEST(t_x3_arguments_from_everywhere)
{
    const struct channel_options options = {.asynchronous = true};
    unsigned refused = 0, done = 0;
    rows_start(SHAPE_PARTLY, NULL);
    REQUIRE_OK(channel_create(scene.ctx, scene.pool, &options, &rows.channel));
    rows.mapper = scene_space();
    fuzz_state = test_seed();
    for (uint64_t i = 0; i < test_steps(TABLE_ENTRIES > 4 ? 300 : 4000); i++) {
        test_case("call %u", (unsigned)i);
        struct scene_state before = {0}, after;
        if (i % 8 == 0) {
            before = scene_state();
        }
        enum cleave_status status = fuzz_call();
        host_check_locks();
        if (status >= CLEAVE_ERROR_FIRST && i % 8 == 0) {
            after = scene_state();
            SCENE_CHECK_SAME_VIEW(before, after);
        }
        refused += status >= CLEAVE_ERROR_FIRST;
        done += status < CLEAVE_ERROR_FIRST;
        if (i % 64 == 0) {
            scene_audit();
        }
    }
    CHECK(refused > done && done > 10);
    rows_end();
}

/* --- X4, X7: failure in the middle ------------------------------------------------------------ */

/* XSA-30, XSA-277, XSA-334: an error path kept a lock. XSA-222, XSA-389: a lost
 * return value, or a part of the work done. Each operation with its k-th
 * allocation refused, for every k: no lock is held, no guest sees a change, and
 * asked again it succeeds. */
TEST_TABLE(t_x4_x7_failing_allocations_change_nothing, row_ops)
{
    for (unsigned i = 0; i < (TABLE_ENTRIES > 4 ? 1 : 6); i++) {
        for (uint64_t k = 1;; k += k < 16 ? 1 : 2 * k) { /* many are those of one page each */
            test_case("%s, allocation %u", rows_shapes[i].label, (unsigned)k);
            rows_start(rows_shapes[i].shape, row);
            struct scene_state before = scene_state();
            host_fail_allocation(k);
            enum cleave_status status = rows_run(row, UINT64_MAX);
            bool failed = host_allocation_failed();
            host_fail_allocation(0);
            scene_audit();
            if (status != CLEAVE_OK) {
                CHECK(failed || rows_done(row, status));
                struct scene_state after = scene_state();
                SCENE_CHECK_SAME_VIEW(before, after);
                CHECK(rows_done(row, rows_run(row, UINT64_MAX)));
            }
            rows_end();
            if (!failed) {
                break;
            }
        }
    }
}

/* --- X8: every range, aligned or not ---------------------------------------------------------- */

static void cut_out(unsigned what, uint64_t first, uint64_t end)
{
    uint64_t moved;
    const gpa_t at = PAGE(scene.base + first);
    switch (what) {
    case 0:
        CHECK_OK(space_unmap(scene.ctx, scene.space, at, BYTES(end - first)));
        break;
    case 1:
        CHECK_OK(space_protect(scene.ctx, scene.space, at, BYTES(end - first), RIGHT_READ));
        break;
    default:
        CHECK_OK(space_move(scene.ctx, scene.space, at, PAGE(4 * GIGA + first), BYTES(end - first),
                            &moved));
        break;
    }
}

/* XSA-388: ranges and orders that are not those of a page of the format. On the
 * small geometry every range inside a 1 GiB leaf, unmapped, protected and
 * moved, alone and beside a fork; what lies outside stays as it was.
 * (map.x8_misaligned_leaves_are_refused has every pair of a page and an order
 * from 1 to 18.) */
TEST(t_x8_every_range_of_a_huge_leaf)
{
    if (TABLE_ENTRIES > 4) {
        TEST_SKIP("the small geometry only");
    }
    for (uint64_t first = 0; first < GIGA; first++) {
        for (uint64_t end = first + 1; end <= GIGA; end++) {
            for (unsigned what = 0; what < 6; what++) {
                test_case("[%u, %u) %u", (unsigned)first, (unsigned)end, what);
                scene_shape(SHAPE_1G);
                if (what >= 3) {
                    (void)scene_fork(scene.space);
                }
                cut_out(what % 3, first, end);
                uint64_t sample[SCENE_SAMPLES];
                unsigned n = scene_samples(sample);
                for (unsigned i = 0; i < n; i++) {
                    bool inside = sample[i] >= scene.base + first && sample[i] < scene.base + end;
                    uint64_t at = sample[i] + (inside && what % 3 == 2 ? 4 * GIGA - scene.base : 0);
                    if (inside && what % 3 == 0) {
                        CHECK_STATUS(scene_access(scene.space, at, ACCESS_READ), CLEAVE_FAULT);
                    } else {
                        scene_check(scene.space, at, SCENE_TAG(sample[i]));
                        CHECK_STATUS(scene_access(scene.space, at, ACCESS_WRITE),
                                     inside && what % 3 == 1 ? CLEAVE_FAULT : CLEAVE_OK);
                    }
                }
                scene_end();
            }
        }
    }
}

/* --- X9: bounded work ------------------------------------------------------------------------- */

static void count_change(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                         void *arg)
{
    (void)ctx, (void)a, (void)b;
    *(uint64_t *)arg += point == POINT_ENTRY || point == POINT_FREE;
}

/* The most that one call with a budget of one unit does, for memory of `blocks`
 * blocks of pages. */
static uint64_t most_work(const char *label, host_step_t *step, uint64_t blocks)
{
    const struct fork_options based = {.limit = UINT64_MAX, .base = true};
    uint64_t most = 0;

    memset(&rows, 0, sizeof(rows));
    scene_start(4 * blocks + 32);
    test_case("%s, %u blocks", label, (unsigned)blocks);
    scene.base = GIGA;
    scene.pages = blocks * BLOCK;
    scene.space = scene_space();
    scene_memory(scene.space, scene.base, scene.pages, 0);
    REQUIRE_OK(space_fork(scene.ctx, scene.space, 1, &based, &rows.child));
    for (uint64_t i = 0; i < blocks; i++) {
        scene_write(rows.child, scene.base + i * BLOCK, i);
    }
    enum cleave_status status;
    do {
        uint64_t changes = 0, bytes = host_counters().bytes_copied + host_counters().bytes_zeroed;
        scene.ctx->budget = 1;
        host_on_point(count_change, &changes);
        status = step(scene.ctx, NULL);
        host_on_point(NULL, NULL);
        bytes = host_counters().bytes_copied + host_counters().bytes_zeroed - bytes;
        uint64_t work = changes + bytes / PAGE_SIZE;
        most = work > most ? work : most;
    } while (status == CLEAVE_AGAIN);
    scene.ctx->budget = UINT64_MAX;
    CHECK_OK(status);
    scene_end();
    return most;
}

static enum cleave_status work_destroy(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    return space_destroy(ctx, rows.child);
}
static enum cleave_status work_reset(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    return space_reset(ctx, rows.child, NULL, 0);
}
static enum cleave_status work_unmap(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    return space_unmap(ctx, rows.child, PAGE(scene.base), BYTES(scene.pages));
}
static enum cleave_status work_protect(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    return space_protect(ctx, rows.child, PAGE(scene.base), BYTES(scene.pages),
                         RIGHT_READ | RIGHT_EXEC);
}
static enum cleave_status work_fork(struct mm_ctx *ctx, void *arg)
{
    const struct fork_options plain = {.limit = UINT64_MAX};
    (void)arg;
    return space_fork(ctx, rows.child, 1, &plain, &rows.made[0]);
}
static enum cleave_status work_populate(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    return space_populate(ctx, rows.mapper, PAGE(scene.base), BYTES(scene.pages));
}

/* XSA-45, XSA-97, XSA-150, XSA-410: work in proportion to the guest in one
 * call. What one call does stays below a constant, however much memory there
 * is. */
TEST(t_x9_one_call_does_bounded_work)
{
    TEST_NEEDS_HOOKS();
    static const struct {
        const char *label;
        host_step_t *step;
    } steps[] = {{"destroy", work_destroy},
                 {"reset", work_reset},
                 {"unmap", work_unmap},
                 {"protect", work_protect},
                 {"fork", work_fork}};
    (void)work_populate;
    for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        uint64_t some = most_work(steps[i].label, steps[i].step, 4);
        uint64_t more = most_work(steps[i].label, steps[i].step, TABLE_ENTRIES > 4 ? 32 : 16);
        CHECK_LE(more, 2 * TABLE_ENTRIES * TABLE_LEVELS + 16);
        CHECK_LE(more, some + TABLE_ENTRIES + 8);
    }
}

/* --- X12: the flush follows the change -------------------------------------------------------- */

/* Both CPUs read everything again at the last moment before a flush, and right
 * after it: what they then know must be what the tables say when the operation
 * returns. */
static void read_ahead(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b, void *arg)
{
    uint64_t sample[SCENE_SAMPLES];
    (void)ctx, (void)a, (void)b;
    if (point != POINT_FLUSH && point != POINT_FLUSHED) {
        return;
    }
    unsigned n = scene_samples(sample);
    for (unsigned i = 0; i < n; i++) {
        for (unsigned cpu = 1; cpu < 3; cpu++) {
            if (flush_running(cpu) != NULL) {
                host_tlb_prefetch(cpu, PAGE(sample[i]));
            }
        }
    }
    ++*(unsigned *)arg;
}

/* XSA-285, XSA-401, XSA-408: the flush came before the change that it was for,
 * so that a CPU could read the old entry once more in between. */
TEST_TABLE(t_x12_the_flush_follows_the_change, row_ops)
{
    TEST_NEEDS_HOOKS();
    for (unsigned i = 0; i < rows_quick_shapes(); i++) {
        unsigned flushes = 0;
        test_case("%s", rows_shapes[i].label);
        rows_start(rows_shapes[i].shape, row);
        host_on_point(read_ahead, &flushes);
        CHECK(rows_done(row, rows_run(row, UINT64_MAX)));
        host_on_point(NULL, NULL);
        host_tlb_check();
        rows_end();
    }
}

/* --- X13: counts at every step, not only at rest ---------------------------------------------- */

struct census {
    uint32_t *leaves; /* by frame: leaves that map it, in distinct tables */
    uint32_t *tables; /* by frame: entries that point to the table */
};

static void census_entry(void *arg, pfn_t table, unsigned level, pte_t e)
{
    struct census *census = arg;
    (void)table;
    if (pte_holds_table(e, level)) {
        census->tables[pte_pfn(e).v]++;
    } else if (pte_holds_leaf(e, level) && pte_counted(e) && !(e & PTE_FOREIGN)) {
        for (uint64_t i = 0; i < level_pages(level); i++) {
            census->leaves[pte_pfn(e).v + i]++;
        }
    }
}

static void check_counts(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                         void *arg)
{
    struct census census = {calloc(machine.frames, 4), calloc(machine.frames, 4)};
    (void)ctx, (void)point, (void)a, (void)b;
    rows_each_entry(census_entry, &census);
    for (uint32_t f = scene.pool->start.v; f < scene.pool->end.v; f++) {
        if (census.leaves[f] > 0) {
            CHECK_LE(census.leaves[f], audit_references(pfn(f), 0));
        }
        if (census.tables[f] > 0) {
            CHECK_LE(census.tables[f], node_count(pfn(f)));
        }
    }
    free(census.leaves);
    free(census.tables);
    ++*(unsigned *)arg;
}

/* XSA-242, XSA-287: counts broken "for a moment". At every step of every
 * operation, and of the faults after it, no frame and no table has fewer
 * references than entries point to it. */
TEST_TABLE(t_x13_counts_hold_at_every_step, row_ops)
{
    TEST_NEEDS_HOOKS();
    if (TABLE_ENTRIES > 4) {
        TEST_SKIP("the small geometry only");
    }
    for (unsigned i = 0; i < rows_quick_shapes(); i++) {
        unsigned steps = 0;
        test_case("%s", rows_shapes[i].label);
        rows_start(rows_shapes[i].shape, row);
        host_on_point(check_counts, &steps);
        CHECK(rows_done(row, rows_run(row, 1)));
        rows_write_after();
        host_on_point(NULL, NULL);
        CHECK(steps > 0);
        rows_end();
    }
}
