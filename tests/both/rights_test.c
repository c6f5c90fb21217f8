/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * READ taken away and given back, at every shape, on shared tables and in forks: nobody reads what
 * is hidden, nothing of it is lost, and no other space notices. What is hidden is parked in the
 * tables; every other operation meets it there.
 */
#include <string.h>

#include "notify.h"
#include "pin.h"
#include "scene.h"

static const struct shape_row shapes[] = SHAPE_ROWS;

/* --- Hiding, showing and looking -------------------------------------------------------------- */

static void protect(struct space *space, uint64_t page, uint64_t pages, unsigned rights)
{
    REQUIRE_OK(space_protect(scene.ctx, space, PAGE(page), BYTES(pages), rights));
    host_tlb_check(); /* what was taken away is gone when it returns (I5) */
}

static void hide(struct space *space, uint64_t page, uint64_t pages)
{
    protect(space, page, pages, 0);
}

/* Nobody reads, writes or executes the page, neither the guest nor the hypervisor for it. */
static void check_hidden(struct space *space, uint64_t page)
{
    uint64_t word = 1, done = 1;
    for (unsigned access = ACCESS_READ; access <= ACCESS_EXEC; access++) {
        enum cleave_status expected = space->state == SPACE_FROZEN ? CLEAVE_FROZEN : CLEAVE_FAULT;
        CHECK_STATUS(space_fault(scene.ctx, space, PAGE(page), (enum access)access, NULL),
                     expected);
        if (space->state != SPACE_FROZEN) {
            CHECK_STATUS(scene_access(space, page, (enum access)access), CLEAVE_FAULT);
        }
    }
    CHECK_STATUS(space_read(scene.ctx, space, PAGE(page), &word, sizeof(word), NULL), CLEAVE_FAULT);
    if (space->state != SPACE_FROZEN) {
        CHECK_STATUS(space_write(scene.ctx, space, PAGE(page), &word, sizeof(word), NULL, &done),
                     CLEAVE_FAULT);
        CHECK_EQ(done, 0);
    }
    struct mapping m = scene_lookup(space, page);
    CHECK_EQ(m.rights, 0);
    CHECK(m.kind == PTE_KIND_PARKED || m.kind == PTE_KIND_ABSENT);
    CHECK(!host_walk(space->root, PAGE(page)).present);
}

/* Parts of a shape: pages from its start, or its whole. */
static const struct {
    uint64_t blocks, pages, size_blocks, size; /* start and size; size 0: to the end */
} parts[] = {{0, 0, 0, 1}, {0, 1, 0, 2}, {0, 1, 1, 1}, {0, 0, 1, 0}, {1, 0, 1, 0}, {0, 0, 0, 0}};
#define PARTS (sizeof(parts) / sizeof(parts[0]))

static struct gfn_range part(unsigned n)
{
    uint64_t start = scene.base + parts[n].blocks * BLOCK + parts[n].pages;
    uint64_t size = parts[n].size_blocks * BLOCK + parts[n].size;
    uint64_t end = size == 0 ? scene.base + scene.pages : start + size;
    return (struct gfn_range){gfn(start), gfn(end)};
}

static bool inside(struct gfn_range range, uint64_t page)
{
    return page >= range.start.v && page < range.end.v;
}

static void hide_range(struct space *space, struct gfn_range range)
{
    hide(space, range.start.v, range.end.v - range.start.v);
}
static void show_range(struct space *space, struct gfn_range range, unsigned rights)
{
    protect(space, range.start.v, range.end.v - range.start.v, rights);
}

/* Every sample of the shape reads as it was filled, but for those in `hidden`. */
static void check_samples(struct space *space, struct gfn_range hidden)
{
    uint64_t sample[SCENE_SAMPLES];
    unsigned n = scene_samples(sample);
    for (unsigned i = 0; i < n; i++) {
        if (inside(hidden, sample[i])) {
            check_hidden(space, sample[i]);
        } else {
            scene_check(space, sample[i], SCENE_TAG(sample[i]));
        }
    }
    scene_audit();
}
static const struct gfn_range nothing = {{0}, {0}};

/* --- The guest's view ------------------------------------------------------------------------- */

static void one_part(struct gfn_range range, struct space *fork)
{
    struct space *space = scene.space;
    uint64_t copied = space->stats.pages_copied;
    uint64_t first = range.start.v;

    hide_range(space, range);
    check_samples(space, range);
    hide_range(space, range); /* twice is the same */
    check_samples(space, range);
    show_range(space, range, RIGHT_READ);
    check_samples(space, nothing);
    CHECK_STATUS(scene_access(space, first, ACCESS_WRITE), CLEAVE_FAULT);
    CHECK_STATUS(scene_access(space, first, ACCESS_EXEC), CLEAVE_FAULT);
    CHECK_EQ(space->stats.pages_copied, copied); /* reading copies nothing */
    hide_range(space, range);
    show_range(space, range, RIGHT_ALL);
    CHECK_OK(scene_access(space, first, ACCESS_EXEC));
    scene_write(space, first, 5);
    scene_check(space, first, 5);
    if (fork != NULL) {
        check_samples(fork, nothing);
        CHECK_EQ(fork->stats.tables_copied + fork->stats.pages_copied, 0);
    }
    scene_write(space, first, SCENE_TAG(first));
    check_samples(space, nothing);
}

TEST_TABLE(taken_and_given_back, shapes)
{
    for (unsigned shared = 0; shared < 2; shared++) {
        for (unsigned n = 0; n < PARTS; n++) {
            test_case("shared %u, part %u", shared, n);
            scene_shape(row->shape);
            struct space *fork = shared ? scene_fork(scene.space) : NULL;
            one_part(part(n), fork);
            if (scene.other != NULL) {
                check_samples(scene.other, nothing);
            }
            scene_end();
        }
    }
}

/* A fork is made of what is hidden: the child inherits that, and each may look again alone. */
TEST_TABLE(forks_inherit_it, shapes)
{
    for (unsigned n = 0; n < PARTS; n++) {
        test_case("part %u", n);
        scene_shape(row->shape);
        hide_range(scene.space, part(n));
        struct space *child = scene_fork(scene.space);
        struct space *snapshot = scene_snapshot(scene.space);
        check_samples(child, part(n));
        check_samples(snapshot, part(n));
        show_range(child, part(n), RIGHT_ALL);
        struct space *grandchild = scene_fork(child);
        check_samples(child, nothing);
        check_samples(scene.space, part(n));
        CHECK_EQ(child->stats.pages_copied, 0);
        check_samples(grandchild, nothing);
        uint64_t first = part(n).start.v;
        scene_write(child, first, 6);
        show_range(scene.space, part(n), RIGHT_ALL);
        check_samples(scene.space, nothing);
        check_samples(grandchild, nothing);
        scene_check(child, first, 6);
        check_samples(snapshot, part(n));
        struct space *restored = scene_fork(snapshot);
        check_samples(restored, part(n));
        show_range(restored, part(n), RIGHT_READ | RIGHT_WRITE);
        scene_write(restored, first, 7);
        scene_check(restored, first, 7);
        scene_end();
    }
}

/* A snapshot of what may be read again but was not: it reads as well, without being changed. */
TEST_TABLE(what_was_given_back_is_read_in_a_snapshot, shapes)
{
    scene_shape(row->shape);
    hide_range(scene.space, part(2));
    show_range(scene.space, part(2), RIGHT_READ);
    struct space *snapshot = scene_snapshot(scene.space);
    check_samples(snapshot, nothing);
    CHECK_EQ(snapshot->stats.tables_copied, 0);
    scene_end();
}

/* One page of what is hidden is given back: no other comes with it. */
TEST_TABLE(one_page_alone, shapes)
{
    for (unsigned n = 0; n < 4; n++) {
        bool shared = n % 2 != 0, split = n / 2 == 0; /* by taking EXEC, or by the fault */
        test_case("shared %u, split %u", shared, split);
        scene_shape(row->shape);
        hide_range(scene.space, part(PARTS - 1));
        struct space *child = shared ? scene_fork(scene.space) : NULL;
        uint64_t page = scene.base + BLOCK + 1;
        protect(scene.space, page, 1, split ? RIGHT_READ | RIGHT_WRITE : RIGHT_ALL);
        scene_check(scene.space, page, SCENE_TAG(page));
        check_hidden(scene.space, page - 1);
        check_hidden(scene.space, page + 1);
        check_hidden(scene.space, scene.base);
        scene_audit();
        scene_write(scene.space, page, 9);
        scene_check(scene.space, page, 9);
        if (child != NULL) {
            check_samples(child, part(PARTS - 1));
            show_range(child, part(PARTS - 1), RIGHT_READ);
            check_samples(child, nothing);
        }
        scene_end();
    }
}

/* What was given back and not looked at stays parked when a neighbour gets its write bit back, and
 * with it the rest of the table. */
TEST(a_neighbours_write_leaves_it_parked)
{
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, GIGA, BLOCK, 1);
    for (uint64_t i = 0; i < 3; i++) {
        scene_write(space, GIGA + i, 80 + i);
    }
    hide(space, GIGA + 1, 1); /* parts of one block, one after the other */
    protect(space, GIGA + 1, 1, RIGHT_ALL);
    struct space *child = scene_fork(space);
    scene_write(child, GIGA + 3, 1);
    scene_destroy(child);
    scene_write(space, GIGA, 90);
    CHECK_EQ(scene_lookup(space, GIGA + 1).kind, PTE_KIND_PARKED);
    CHECK(scene_lookup(space, GIGA + 2).rights & RIGHT_WRITE); /* the others have it */
    scene_audit();
    scene_check(space, GIGA + 1, 81);
    scene_write(space, GIGA + 1, 91);
    scene_check(space, GIGA + 2, 82);
    scene_end();
}

/* --- Costs ------------------------------------------------------------------------------------ */

static uint64_t changes;
static void count_change(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                         void *arg)
{
    (void)ctx, (void)a, (void)b, (void)arg;
    changes += point == POINT_ENTRY;
}

/* Entries that a call changes, and with `*frames` what it allocates. */
static uint64_t cost_of_hiding(struct space *space, uint64_t page, uint64_t pages, uint64_t *frames)
{
    changes = 0;
    host_fail_allocation(0);
    host_on_point(count_change, NULL);
    hide(space, page, pages);
    host_on_point(NULL, NULL);
    *frames = host_allocations();
    return changes;
}

/* A whole table of pages more costs one store more, and no frame. */
TEST(a_table_costs_one_store)
{
    TEST_NEEDS_HOOKS();
    uint64_t frames[2], stores[2];
    for (unsigned more = 0; more < 2; more++) {
        uint64_t pages = (3 + more) * BLOCK;
        scene_start(TABLE_ENTRIES > 4 ? 24 : 96);
        struct space *space = scene_space();
        scene_memory(space, GIGA, pages, 0);
        scene_write(space, GIGA + 2 * BLOCK, 3);
        stores[more] = cost_of_hiding(space, GIGA + 1, pages - 2, &frames[more]);
        check_hidden(space, GIGA + 2 * BLOCK);
        protect(space, GIGA + 1, pages - 2, RIGHT_ALL);
        scene_check(space, GIGA + 2 * BLOCK, 3);
        scene_end();
    }
    CHECK_EQ(stores[1], stores[0] + 1);
    CHECK(frames[0] <= REGION_SET_FRAMES && frames[1] <= REGION_SET_FRAMES);
    CHECK(stores[0] <= 2 * TABLE_ENTRIES + 2 * REGION_SET_FRAMES);
}

/* All of a guest, with memory here and there: edges, and what stands in them. */
TEST(all_of_a_guest_costs_its_edges)
{
    TEST_NEEDS_HOOKS();
    uint64_t frames;
    scene_start(0);
    struct space *space = scene_space();
    scene_region(space, 0, GUEST_PAGES, REGION_PRIVATE, RIGHT_ALL, 0);
    for (uint64_t i = 0; i < TABLE_ENTRIES; i += TABLE_ENTRIES / 4) {
        scene_write(space, i * (GUEST_PAGES / TABLE_ENTRIES) + i, 70 + i);
    }
    struct space *child = scene_fork(space);
    uint64_t stores = cost_of_hiding(space, 1, GUEST_PAGES - 2, &frames);
    CHECK(stores <= 2 * TABLE_LEVELS * (TABLE_ENTRIES + 1));
    CHECK(frames <= 2 * ROOT_LEVEL + 2 * REGION_SET_FRAMES);
    for (uint64_t i = TABLE_ENTRIES / 4; i < TABLE_ENTRIES; i += TABLE_ENTRIES / 4) {
        uint64_t page = i * (GUEST_PAGES / TABLE_ENTRIES) + i;
        check_hidden(space, page);
        scene_check(child, page, 70 + i);
    }
    CHECK_EQ(child->stats.tables_copied, 0);
    protect(space, 1, GUEST_PAGES - 2, RIGHT_READ);
    for (uint64_t i = 0; i < TABLE_ENTRIES; i += TABLE_ENTRIES / 4) {
        scene_check(space, i * (GUEST_PAGES / TABLE_ENTRIES) + i, 70 + i);
    }
    CHECK_EQ(space->stats.pages_copied, 0);
    hide(space, 0, GUEST_PAGES); /* and so it ends, root and all */
    CHECK_EQ(scene_usage(space).shared, BYTES(4));
    scene_end();
}

/* One fault shows all pages of a table again, and a table that others share is not copied for it.
 */
TEST(one_fault_shows_a_table)
{
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, GIGA, 2 * BLOCK, 0);
    hide(space, GIGA + 1, 2 * BLOCK - 1); /* its first table page by page, the second as a whole */
    struct space *child = scene_fork(space);
    protect(space, GIGA + 1, 2 * BLOCK - 1, RIGHT_ALL);
    uint64_t faults = space->stats.faults, copied = space->stats.tables_copied;
    for (uint64_t i = BLOCK; i < 2 * BLOCK; i++) {
        scene_check(space, GIGA + i, 0);
    }
    CHECK_EQ(space->stats.faults, faults + 1);
    CHECK_EQ(space->stats.tables_copied, copied + ROOT_LEVEL - 1); /* those above it */
    for (uint64_t i = 0; i < BLOCK; i++) {
        scene_check(space, GIGA + i, 0);
    }
    CHECK_EQ(space->stats.faults, faults + 2);
    CHECK_EQ(space->stats.tables_copied, copied + ROOT_LEVEL);
    check_hidden(child, GIGA + 1);
    check_hidden(child, GIGA + BLOCK);
    scene_end();
}

/* --- Out of memory ---------------------------------------------------------------------------- */

TEST_TABLE(every_allocation_fails, shapes)
{
    for (unsigned n = 0; n < PARTS; n++) {
        scene_shape(row->shape);
        struct space *fork = scene_fork(scene.space);
        bool failed = true;
        for (uint64_t k = 1; failed; k++) {
            test_case("part %u, allocation %d", n, (int)k);
            struct scene_state before = scene_state();
            host_fail_allocation(k);
            enum cleave_status status =
                space_protect(scene.ctx, scene.space, gfn_to_gpa(part(n).start),
                              BYTES(part(n).end.v - part(n).start.v), 0);
            failed = host_allocation_failed();
            host_fail_allocation(0);
            CHECK_STATUS(status, failed ? CLEAVE_NO_MEMORY : CLEAVE_OK);
            struct scene_state after = scene_state();
            if (failed) {
                SCENE_CHECK_SAME_VIEW(before, after);
            }
            scene_audit();
        }
        check_samples(scene.space, part(n));
        check_samples(fork, nothing);
        scene_end();
    }
}

/* A page that is given back, of tables that a fork shares: the fault that shows it fails cleanly.
 */
TEST_TABLE(showing_with_every_allocation_failing, shapes)
{
    uint64_t page;
    bool failed = true;
    scene_shape(row->shape);
    page = scene.base + BLOCK - 1;
    hide_range(scene.space, part(2));
    struct space *fork = scene_fork(scene.space);
    protect(scene.space, page, 1, RIGHT_READ);
    for (uint64_t k = 1; failed; k++) {
        test_case("allocation %d", (int)k);
        host_fail_allocation(k);
        enum cleave_status status =
            space_fault(scene.ctx, scene.space, PAGE(page), ACCESS_READ, NULL);
        failed = host_allocation_failed();
        host_fail_allocation(0);
        CHECK_STATUS(status, failed ? CLEAVE_NO_MEMORY : CLEAVE_OK);
        check_hidden(scene.space, page - 1);
        check_samples(fork, part(2));
    }
    scene_check(scene.space, page, SCENE_TAG(page));
    scene_end();
}

/* --- Other operations over what is hidden ----------------------------------------------------- */

TEST_TABLE(unmapped, shapes)
{
    for (unsigned shared = 0; shared < 2; shared++) {
        for (unsigned n = 0; n < PARTS; n++) {
            test_case("shared %u, part %u", shared, n);
            scene_shape(row->shape);
            struct space *fork = shared ? scene_fork(scene.space) : NULL;
            hide_range(scene.space, part(PARTS - 1));
            uint64_t first = part(n).start.v, pages = part(n).end.v - first;
            REQUIRE_OK(space_unmap(scene.ctx, scene.space, PAGE(first), BYTES(pages)));
            CHECK_EQ(scene_lookup(scene.space, first).kind, PTE_KIND_ABSENT);
            scene_audit();
            if (part(n).end.v < scene.base + scene.pages) {
                protect(scene.space, part(n).end.v, scene.base + scene.pages - part(n).end.v,
                        RIGHT_READ);
                scene_check(scene.space, scene.base + scene.pages - 1,
                            SCENE_TAG(scene.base + scene.pages - 1));
            }
            /* What is mapped there again has none of the old bytes. */
            scene_region(scene.space, first, pages, REGION_PRIVATE, RIGHT_ALL, 1);
            scene_check(scene.space, first, 0);
            if (fork != NULL) {
                check_samples(fork, nothing);
            }
            scene_end();
        }
    }
}

TEST_TABLE(moved, shapes)
{
    const uint64_t to = 4 * GIGA;
    for (unsigned shared = 0; shared < 2; shared++) {
        for (unsigned n = 0; n < 3; n++) {
            test_case("shared %u, part %u", shared, n);
            scene_shape(row->shape);
            struct space *fork = shared ? scene_fork(scene.space) : NULL;
            uint64_t copies;
            uint64_t first = part(n).start.v, pages = part(n).end.v - first;
            hide_range(scene.space, part(PARTS - 1));
            REQUIRE_OK(space_move(scene.ctx, scene.space, PAGE(first), PAGE(to + first),
                                  BYTES(pages), &copies));
            scene_audit();
            CHECK(copies == pages || !shared); /* early copies, as of what can be read */
            check_hidden(scene.space, to + first);
            check_hidden(scene.space, to + first + pages - 1);
            protect(scene.space, to + first, pages, RIGHT_READ | RIGHT_WRITE);
            scene_check(scene.space, to + first, SCENE_TAG(first));
            scene_write(scene.space, to + first, 8);
            if (fork != NULL) {
                check_samples(fork, nothing);
            }
            scene_audit();
            scene_end();
        }
    }
}

static unsigned differences(struct space *a, struct space *b, bool exact, struct gfn_range *first)
{
    struct gfn_range found[8];
    struct diff diff = {.end = gfn(GUEST_PAGES), .exact = exact, .found = found, .room = 8};
    REQUIRE_OK(space_diff(scene.ctx, a, b, &diff));
    *first = diff.count > 0 ? found[0] : nothing;
    return diff.count;
}

/* Hiding is no write: it makes no difference, and hides none. */
TEST_TABLE(compared, shapes)
{
    struct gfn_range found;
    scene_shape(row->shape);
    struct space *child = scene_fork(scene.space);
    hide_range(scene.space, part(2));
    CHECK_EQ(differences(scene.space, child, false, &found), 0);
    CHECK_EQ(differences(scene.space, child, true, &found), 0);
    show_range(scene.space, part(2), RIGHT_ALL);
    scene_write(scene.space, scene.base + 1, SCENE_TAG(scene.base + 1)); /* the same bytes */
    hide_range(scene.space, part(2));
    CHECK_EQ(differences(scene.space, child, false, &found), 1);
    CHECK_EQ(differences(scene.space, child, true, &found), 0);
    show_range(scene.space, part(2), RIGHT_ALL);
    scene_write(scene.space, scene.base + 3, 1);
    hide_range(scene.space, part(PARTS - 1));
    CHECK(differences(scene.space, child, false, &found) > 0);
    CHECK_EQ(differences(scene.space, child, true, &found), 1);
    CHECK_EQ(found.start.v, scene.base + 3);
    CHECK_EQ(found.end.v, scene.base + 4);
    scene_end();
}

/* A reset brings back what the base has, hidden or not. */
TEST_TABLE(reset, shapes)
{
    const struct fork_options based = {.limit = UINT64_MAX, .base = true};
    for (unsigned n = 0; n < PARTS; n++) {
        for (unsigned hidden = 0; hidden < 2; hidden++) {
            for (unsigned keeps = 0; keeps < 2; keeps++) {
                test_case("part %u, hidden %u, keep %u", n, hidden, keeps);
                struct space *child = NULL;
                uint64_t page = part(n).start.v;
                scene_shape(row->shape);
                page = part(n).start.v;
                if (hidden) {
                    hide_range(scene.space, part(n));
                }
                REQUIRE_OK(space_fork(scene.ctx, scene.space, 1, &based, &child));
                show_range(child, part(n), RIGHT_ALL);
                scene_write(child, page, 4);
                if (!hidden) {
                    hide_range(child, part(n));
                }
                for (unsigned cpu = 1; cpu < machine.cpus; cpu++) {
                    host_cpu_stop(cpu);
                }
                struct gfn_range keep = {gfn(page), gfn(page + 1)};
                REQUIRE_OK(space_reset(scene.ctx, child, &keep, keeps));
                scene_audit();
                check_samples(child, hidden ? part(n) : nothing);
                show_range(child, part(n), RIGHT_ALL);
                check_samples(child, nothing);
                uint64_t copied = child->stats.pages_copied;
                scene_write(child, page, 4);
                if (keeps) { /* its page was kept, parked or not */
                    CHECK_EQ(child->stats.pages_copied, copied);
                }
                scene_end();
            }
        }
    }
}

TEST(not_collapsed)
{
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, GIGA, BLOCK, 1);
    struct space *child = scene_fork(space);
    for (uint64_t i = 0; i < BLOCK; i++) {
        scene_write(child, GIGA + i, 100 + i);
    }
    hide(child, GIGA + 1, 1);
    CHECK_STATUS(space_collapse(scene.ctx, child, PAGE(GIGA), 1), CLEAVE_BUSY);
    protect(child, GIGA + 1, 1, RIGHT_ALL);
    CHECK_STATUS(space_collapse(scene.ctx, child, PAGE(GIGA), 1), CLEAVE_BUSY); /* not looked at */
    hide(child, GIGA, BLOCK);
    CHECK_STATUS(space_collapse(scene.ctx, child, PAGE(GIGA), 1), CLEAVE_BUSY);
    protect(child, GIGA, BLOCK, RIGHT_ALL);
    CHECK_STATUS(space_collapse(scene.ctx, child, PAGE(GIGA), 1), CLEAVE_BUSY);
    scene_audit();
    for (uint64_t i = 0; i < BLOCK; i++) {
        scene_check(child, GIGA + i, 100 + i);
    }
    CHECK_OK(space_collapse(scene.ctx, child, PAGE(GIGA), 1));
    CHECK_EQ(scene_lookup(child, GIGA).level, 1);
    for (uint64_t i = 0; i < BLOCK; i++) {
        scene_check(child, GIGA + i, 100 + i);
    }
    scene_end();
}

/* Pins and maps that there are go on; new ones are refused as they are without the right. */
TEST_TABLE(pins_and_maps, shapes)
{
    uint32_t id, refused;
    pfn_t before, after;
    uint64_t word = 0;
    scene_shape(row->shape);
    struct space *space = scene.space;
    struct space *mapper = scene_space();
    uint64_t page = scene.base + 1;
    REQUIRE_OK(space_pin(scene.ctx, space, PAGE(page), PAGE_SIZE, true, &id));
    REQUIRE_OK(space_pinned_frame(scene.ctx, space, id, PAGE(page), &before));
    REQUIRE_OK(foreign_map(scene.ctx, space, PAGE(page + 1), mapper, PAGE(0)));
    scene_write(mapper, 0, 21);
    hide_range(space, part(PARTS - 1));
    CHECK_STATUS(space_pin(scene.ctx, space, PAGE(page), PAGE_SIZE, false, &refused), CLEAVE_FAULT);
    CHECK_STATUS(foreign_map(scene.ctx, space, PAGE(page), mapper, PAGE(1)), CLEAVE_FAULT);
    REQUIRE_OK(space_pinned_frame(scene.ctx, space, id, PAGE(page), &after));
    CHECK_EQ(after.v, before.v);
    scene_check(mapper, 0, 21); /* a capability of its own */
    CHECK_STATUS(scene_access(mapper, 0, ACCESS_WRITE), CLEAVE_FAULT);
    CHECK_STATUS(space_protect(scene.ctx, mapper, PAGE(0), PAGE_SIZE, 0), CLEAVE_POLICY);
    scene_audit();
    struct space *child = scene_fork(space); /* has copies of both */
    memcpy(frame_address(before), "device", 7);
    protect(child, page, 2, RIGHT_READ);
    scene_check(child, page, SCENE_TAG(page));
    scene_check(child, page + 1, 21);
    protect(space, page, 2, RIGHT_READ | RIGHT_WRITE);
    REQUIRE_OK(space_read(scene.ctx, space, PAGE(page), &word, 7, NULL));
    CHECK_BYTES((unsigned char *)&word, (const unsigned char *)"device", 7);
    scene_write(space, page + 1, 22);
    scene_check(mapper, 0, 22);
    CHECK_EQ(scene_lookup(space, page).frame.v, before.v);
    REQUIRE_OK(space_unpin(scene.ctx, space, id));
    scene_end();
}

/* A write that may not even read is refused before a subscriber hears of it. */
TEST(no_notice_of_what_is_refused)
{
    const struct channel_options options = {.asynchronous = true};
    struct channel *channel;
    struct event event;
    scene_shape(SHAPE_4K);
    REQUIRE_OK(channel_create(scene.ctx, scene.pool, &options, &channel));
    REQUIRE_OK(channel_arm(scene.ctx, channel, scene.space, PAGE(scene.base), BYTES(2)));
    hide(scene.space, scene.base, 2 * BLOCK);
    CHECK_STATUS(scene_access(scene.space, scene.base, ACCESS_WRITE), CLEAVE_FAULT);
    CHECK(!channel_next(scene.ctx, channel, &event));
    REQUIRE_OK(channel_rearm(scene.ctx, channel, scene.space, PAGE(scene.base), BYTES(2)));
    protect(scene.space, scene.base, 2 * BLOCK, RIGHT_ALL);
    scene_check(scene.space, scene.base, SCENE_TAG(scene.base));
    scene_audit();
    scene_write(scene.space, scene.base, 3);
    CHECK(channel_next(scene.ctx, channel, &event));
    CHECK_EQ(event.range.start.v, scene.base);
    channel_destroy(scene.ctx, channel);
    scene_end();
}

/* --- Regions that begin without rights -------------------------------------------------------- */

static const struct policy_row {
    const char *label;
    enum region_policy policy;
    unsigned rights; /* given later */
} policies[] = {
    {"private", REGION_PRIVATE, RIGHT_ALL}, {"read-only", REGION_READ_ONLY, RIGHT_READ},
    {"shared", REGION_SHARED, RIGHT_ALL},   {"wipe", REGION_WIPE, RIGHT_ALL},
    {"absent", REGION_ABSENT, RIGHT_ALL},
};

TEST_TABLE(begins_hidden, policies)
{
    for (unsigned order = 0; order < 2; order++) {
        test_case("order %u", order);
        scene_start(0);
        struct space *space = scene_space();
        scene_region(space, GIGA, 2 * BLOCK, row->policy, 0, order);
        check_hidden(space, GIGA);
        REQUIRE_OK(space_populate(scene.ctx, space, PAGE(GIGA), BYTES(2 * BLOCK)));
        check_hidden(space, GIGA);
        check_hidden(space, GIGA + BLOCK);
        scene_audit();
        struct space *child = scene_fork(space);
        scene_audit();
        protect(space, GIGA, 2 * BLOCK, row->rights);
        scene_check(space, GIGA, 0);
        if (row->rights & RIGHT_WRITE) {
            scene_write(space, GIGA + 1, 12);
        }
        if (row->policy != REGION_ABSENT) {
            check_hidden(child, GIGA + 1);
            protect(child, GIGA, 2 * BLOCK, RIGHT_READ);
            scene_check(child, GIGA + 1, row->policy == REGION_SHARED ? 12 : 0);
        }
        scene_audit();
        scene_end();
    }
    struct region region = {.policy = row->policy, .order = 1};
    scene_start(0);
    struct space *space = scene_space();
    REQUIRE_OK(space_map(scene.ctx, space, PAGE(GIGA), 1, &region));
    check_hidden(space, GIGA);
    CHECK_EQ(scene_lookup(space, GIGA).level, 1);
    protect(space, GIGA, BLOCK, row->rights);
    scene_check(space, GIGA, 0);
    scene_end();
}

/* From one private kind to another, and from shared to private, with no rights and back. */
TEST_TABLE(changes_of_policy, shapes)
{
    const struct region hidden = {.policy = REGION_WIPE};
    const struct region shown = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};
    scene_shape(row->shape);
    struct space *fork = scene_fork(scene.space);
    REQUIRE_OK(
        space_set_region(scene.ctx, scene.space, PAGE(scene.base + 1), BYTES(BLOCK), &hidden));
    check_hidden(scene.space, scene.base + 1);
    scene_audit();
    REQUIRE_OK(
        space_set_region(scene.ctx, scene.space, PAGE(scene.base + 1), BYTES(BLOCK), &shown));
    check_samples(scene.space, nothing);
    check_samples(fork, nothing);
    scene_end();
}

TEST(shared_memory_made_private)
{
    const struct region hidden = {.policy = REGION_PRIVATE};
    const struct region shown = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL};
    for (unsigned i = 0; i < 2; i++) {
        test_case("hidden %s", i == 0 ? "before" : "by it");
        scene_start(0);
        struct space *space = scene_space();
        scene_region(space, GIGA, BLOCK, REGION_SHARED, RIGHT_ALL, 1);
        struct space *child = scene_fork(space);
        scene_write(child, GIGA + 1, 41);
        if (i == 0) {
            hide(space, GIGA, BLOCK);
        }
        REQUIRE_OK(space_set_region(scene.ctx, space, PAGE(GIGA), BYTES(BLOCK),
                                    i == 0 ? &shown : &hidden));
        scene_audit();
        scene_write(child, GIGA + 1, 42);
        if (i == 1) {
            check_hidden(space, GIGA + 1);
            protect(space, GIGA, BLOCK, RIGHT_ALL);
        }
        scene_check(space, GIGA + 1, 41);
        scene_write(space, GIGA + 1, 43);
        scene_check(child, GIGA + 1, 42);
        scene_end();
    }
}

/* Device memory is parked as it is. */
TEST(device_memory)
{
    scene_start(0);
    struct space *space = scene_space();
    pfn_t device = pfn((uint32_t)machine.frames + 8);
    REQUIRE_OK(space_map_device(scene.ctx, space, PAGE(GIGA), BYTES(2), device,
                                RIGHT_READ | RIGHT_WRITE, false));
    hide(space, GIGA, 1);
    CHECK_STATUS(space_fault(scene.ctx, space, PAGE(GIGA), ACCESS_READ, NULL), CLEAVE_FAULT);
    CHECK(!host_walk(space->root, PAGE(GIGA)).present);
    CHECK(host_walk(space->root, PAGE(GIGA + 1)).present);
    scene_audit();
    protect(space, GIGA, 1, RIGHT_READ | RIGHT_WRITE);
    CHECK_OK(space_fault(scene.ctx, space, PAGE(GIGA), ACCESS_READ, NULL));
    CHECK_EQ(host_walk(space->root, PAGE(GIGA)).frame, device.v);
    CHECK_OK(space_fault(scene.ctx, space, PAGE(GIGA), ACCESS_WRITE, NULL));
    CHECK(host_walk(space->root, PAGE(GIGA)).rights & RIGHT_WRITE);
    scene_audit();
    scene_end();
}

/* --- Two vcpus and who hides ------------------------------------------------------------------ */

static struct {
    struct space *space;
    bool wrong;
} race;

static void race_setup(void *arg)
{
    (void)arg;
    scene_start(0);
    race.wrong = false;
    race.space = scene_space();
    scene_memory(race.space, GIGA, 2 * BLOCK, 0);
    for (uint64_t i = 0; i < 2; i++) {
        scene_write(race.space, GIGA + i * BLOCK, 30 + i);
    }
    for (unsigned cpu = 1; cpu < machine.cpus; cpu++) {
        host_cpu_stop(cpu);
    }
    (void)scene_fork(race.space);
    REQUIRE_OK(space_protect(scene.ctx, race.space, PAGE(GIGA), BYTES(2 * BLOCK), 0));
    REQUIRE_OK(space_protect(scene.ctx, race.space, PAGE(GIGA), BYTES(2 * BLOCK), RIGHT_ALL));
    REQUIRE_OK(host_cpu_run(1, race.space));
    REQUIRE_OK(host_cpu_run(2, race.space));
}

static void race_reader(struct mm_ctx *ctx, void *arg)
{
    uint64_t page = GIGA + (ctx->cpu - 1) * BLOCK;
    uint64_t word[2];
    (void)arg;
    enum cleave_status status = host_cpu_read(ctx->cpu, PAGE(page), word, sizeof(word));
    unsigned char expected[PAGE_SIZE];
    scene_page(expected, 30 + ctx->cpu - 1);
    race.wrong |= status != CLEAVE_OK && status != CLEAVE_FAULT;
    race.wrong |= status == CLEAVE_OK && memcmp(word, expected, sizeof(word)) != 0;
}

static void race_writer(struct mm_ctx *ctx, void *arg)
{
    uint64_t word = 77;
    (void)arg;
    enum cleave_status status = host_cpu_write(ctx->cpu, PAGE(GIGA + BLOCK + 1), &word, 8);
    race.wrong |= status != CLEAVE_OK && status != CLEAVE_FAULT;
}

static void race_hider(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    enum cleave_status status = space_protect(ctx, race.space, PAGE(GIGA + 1), BYTES(BLOCK), 0);
    race.wrong |= status != CLEAVE_OK;
}

static bool race_check(void *arg)
{
    (void)arg;
    scene_audit();
    check_hidden(race.space, GIGA + 1);
    check_hidden(race.space, GIGA + BLOCK);
    return !race.wrong;
}

TEST(two_vcpus_and_who_hides)
{
    TEST_NEEDS_HOOKS();
    struct host_sched sched = {.setup = race_setup,
                               .cpus = 3,
                               .body = {race_hider, race_reader, race_writer},
                               .check = race_check,
                               .max_preemptions = 2,
                               .max_schedules = 1000};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.schedules > 100);
}
