/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The cases of peers' suites that carry over to guest memory: Linux's mm
 * selftests (cow.c, mkdirty.c), the hugetlb tests of LTP and libhugetlbfs,
 * KVM's selftests, and Hafnium's mm_test. Each at the shapes where it says
 * something. The cases C1 to C14 of cow.c are fork.fork_isolates* and
 * pin.cow_cases.
 */
#include <string.h>

#include "rows_ops.h"

#define SMALL (TABLE_ENTRIES == 4)

static const struct shape_row shapes[] = SHAPE_ROWS;
static const struct region private_region = {
    .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};

static uint64_t word_at(struct space *space, uint64_t page)
{
    uint64_t value = ~UINT64_C(0);
    CHECK_OK(space_read(scene.ctx, space, PAGE(page), &value, sizeof(value), NULL));
    return value;
}

/* --- cow.c: collapsed memory ------------------------------------------------------------------ */

static const struct merge_row {
    const char *label;
    uint64_t first, end; /* of the block's quarters, shared with a fork when it is merged */
    bool after;          /* forked after the merge, wholly */
} merges[] = {
    {"K1-before-fork", 0, 0, true},
    {"K2-fully-shared", 0, 4, false},
    {"K3-lower-half", 0, 2, false},
    {"K4-upper-half", 2, 4, false},
};

/* K1 to K4: a block is merged into one leaf before a fork, or while all, the
 * lower or the upper half of it is shared: the fork sees no later write. */
TEST_TABLE(k_no_leak_through_a_collapse, merges)
{
    struct space *child = NULL;
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, BLOCK, 1);
    for (uint64_t i = 0; i < BLOCK; i++) {
        scene_write(space, i, 100 + i);
    }
    if (row->after) { /* apart, and one leaf again */
        REQUIRE_OK(space_protect(scene.ctx, space, gpa(0), PAGE_SIZE, RIGHT_READ | RIGHT_WRITE));
        REQUIRE_OK(space_protect(scene.ctx, space, gpa(0), PAGE_SIZE, RIGHT_ALL));
        REQUIRE_EQ(scene_lookup(space, 1).level, 0);
        REQUIRE_OK(space_collapse(scene.ctx, space, gpa(0), 1));
        CHECK_EQ(scene_lookup(space, 1).level, 1);
        child = scene_fork(space);
    } else {
        child = scene_fork(space);
        for (uint64_t i = 0; i < BLOCK; i++) {
            if (i < row->first * BLOCK / 4 || i >= row->end * BLOCK / 4) {
                scene_write(space, i, 100 + i);
            }
        }
        enum cleave_status status = space_collapse(scene.ctx, space, gpa(0), 1);
        CHECK(status == CLEAVE_OK || status == CLEAVE_BUSY || status == CLEAVE_NOT_MAPPED);
    }
    scene_audit();
    for (uint64_t i = 0; i < BLOCK; i += SMALL ? 1 : 37) {
        scene_write(space, i, 900 + i);
        scene_check(child, i, 100 + i);
        scene_write(child, i, 500 + i);
        scene_check(space, i, 900 + i);
    }
    scene_end();
}

/* N1 to N3: a private write over what is not anonymous memory of one's own, a
 * hole or a shared page made private, does not change the other view; nor with
 * a pin there. */
TEST(n_private_writes_over_other_memory)
{
    for (unsigned pinned = 0; pinned < 2; pinned++) {
        uint32_t id = 0;
        test_case("pinned %u", pinned);
        scene_start(0);
        struct space *space = scene_space();
        scene_region(space, 0, BLOCK, REGION_PRIVATE, RIGHT_ALL, 1); /* a hole of zeros */
        scene_region(space, 2 * BLOCK, 4, REGION_SHARED, RIGHT_ALL, 0);
        scene_write(space, 2 * BLOCK, 5);
        struct space *child = scene_fork(space);
        REQUIRE_OK(space_set_region(scene.ctx, child, PAGE(2 * BLOCK), BYTES(4), &private_region));
        if (pinned) {
            REQUIRE_OK(space_pin(scene.ctx, child, PAGE(2 * BLOCK), PAGE_SIZE, false, &id));
        }
        scene_write(child, 1, 6);
        scene_write(child, 2 * BLOCK, 7);
        scene_check(space, 1, 0);
        scene_check(space, 2 * BLOCK, 5);
        scene_write(space, 2 * BLOCK, 8);
        scene_write(space, 1, 9);
        scene_check(child, 2 * BLOCK, 7);
        scene_check(child, 1, 6);
        scene_audit();
        if (pinned) {
            pfn_t f;
            REQUIRE_OK(space_pinned_frame(scene.ctx, child, id, PAGE(2 * BLOCK), &f));
            CHECK_EQ(f.v, scene_lookup(child, 2 * BLOCK).frame.v);
            REQUIRE_OK(space_unpin(scene.ctx, child, id));
        }
        scene_end();
    }
}

/* --- mkdirty.c -------------------------------------------------------------------------------- */

/* Ways in which the core makes or touches a leaf of a region that may not be
 * written. */
static void touch_read_only(unsigned way, struct space *space, uint64_t page)
{
    uint64_t value = 1, done, moved;
    const gpa_t at = PAGE(page);
    switch (way) {
    case 0: /* a forced write is refused */
        CHECK_STATUS(space_write(scene.ctx, space, at, &value, 8, NULL, &done), CLEAVE_FAULT);
        break;
    case 1: /* moved away and back */
        CHECK_OK(space_move(scene.ctx, space, at, PAGE(4 * GIGA), PAGE_SIZE, &moved));
        CHECK_OK(space_move(scene.ctx, space, PAGE(4 * GIGA), at, PAGE_SIZE, &moved));
        break;
    case 2: /* its block is split by what is done to a neighbour */
        CHECK_OK(space_protect(scene.ctx, space, PAGE(page + 1), PAGE_SIZE, RIGHT_READ));
        break;
    case 3: /* its neighbours are written, which gives back what was lost */
        scene_destroy(scene_fork(space));
        CHECK_STATUS(scene_access(space, page + 2, ACCESS_WRITE), CLEAVE_OK);
        break;
    case 4: /* collapsed */
        (void)!space_collapse(scene.ctx, space, gfn_to_gpa(level_align(gfn(page), 1)), 1);
        break;
    default: { /* pinned, for reading */
        uint32_t id;
        CHECK_OK(space_pin(scene.ctx, space, at, PAGE_SIZE, false, &id));
        CHECK_OK(space_unpin(scene.ctx, space, id));
        break;
    }
    }
}

/* M1 to M6: whatever makes an entry, moves it or marks it dirty does not make
 * it writable. */
TEST_TABLE(m_no_way_makes_a_read_only_page_writable, shapes)
{
    for (unsigned way = 0; way < 6; way++) {
        test_case("way %u", way);
        scene_shape(row->shape);
        const uint64_t page = scene.base;
        REQUIRE_OK(space_protect(scene.ctx, scene.space, PAGE(page), PAGE_SIZE, RIGHT_READ));
        touch_read_only(way, scene.space, page);
        struct host_walk walk = host_walk(scene.space->root, PAGE(page));
        REQUIRE(walk.present);
        CHECK_EQ(walk.rights & RIGHT_WRITE, 0);
        CHECK_STATUS(scene_access(scene.space, page, ACCESS_WRITE), CLEAVE_FAULT);
        scene_check(scene.space, page, SCENE_TAG(page));
        scene_end();
    }
}

/* --- hugetlb: forks --------------------------------------------------------------------------- */

/* hugefork02, shm-fork: many children on one shared segment see each other's
 * writes. hugemmap29, 31: private writes never reach the shared segment, nor
 * come back. */
TEST(h_shared_segment_of_many_children)
{
    enum { CHILDREN = 6 };
    struct space *child[CHILDREN];
    scene_start(0);
    struct space *space = scene_space();
    scene_region(space, 0, BLOCK, REGION_SHARED, RIGHT_ALL, 1);
    scene_memory(space, BLOCK, BLOCK, 1);
    scene_write(space, BLOCK, 1);
    for (unsigned i = 0; i < CHILDREN; i++) {
        child[i] = scene_fork(i % 2 ? child[i - 1] : space);
    }
    for (unsigned i = 0; i < CHILDREN; i++) {
        scene_write(child[i], i % BLOCK, 10 + i);
        scene_write(child[i], BLOCK, 20 + i);
        for (unsigned k = 0; k < CHILDREN; k++) {
            scene_look(child[k], i % BLOCK, 10 + i);
        }
    }
    for (unsigned i = 0; i < CHILDREN; i++) {
        scene_check(child[i], BLOCK, 20 + i);
    }
    scene_check(space, BLOCK, 1);
    scene_look(space, (CHILDREN - 1) % BLOCK, 10 + CHILDREN - 1);
    scene_end();
}

/* hugemmap09, corrupt-by-cow-opt: "the last user may reuse the page" overwrote
 * the original that the page cache still held. The last fork of a snapshot
 * writes: the snapshot keeps its bytes. */
TEST_TABLE(h_last_user_beside_a_snapshot, shapes)
{
    uint64_t sample[SCENE_SAMPLES];
    scene_shape(row->shape);
    unsigned n = scene_samples(sample);
    struct space *snapshot = scene_snapshot(scene.space);
    struct space *fork = scene_fork(snapshot);
    scene_destroy(scene.space);
    for (unsigned i = 0; i < n; i++) {
        scene_write(fork, sample[i], 5 + i);
        scene_look(snapshot, sample[i], SCENE_TAG(sample[i]));
    }
    scene_audit();
    struct space *second = scene_fork(snapshot);
    for (unsigned i = 0; i < n; i++) {
        scene_check(second, sample[i], SCENE_TAG(sample[i]));
    }
    scene_end();
}

/* --- hugetlb: counts and reservations --------------------------------------------------------- */

static struct {
    uint64_t free, data, tables;
} predicted;

static void check_counters(const char *after)
{
    test_case("after %s", after);
    CHECK_EQ(scene.pool->kind[FRAME_DATA], predicted.data);
    CHECK_EQ(scene.pool->kind[FRAME_TABLE], predicted.tables);
    scene_audit();
}

/* hugemmap10, counters: every figure is foretold after every operation, over a
 * life of one block: mapped, forked, written, collapsed back, unmapped. */
TEST(h_counters_foretold)
{
    scene_start(0);
    struct space *space = scene_space(), *child;
    predicted.data = 0;
    predicted.tables = scene.pool->kind[FRAME_TABLE]; /* the root */
    check_counters("create");
    REQUIRE_OK(space_map(scene.ctx, space, gpa(0), 1, &private_region));
    predicted.data += BLOCK;
    predicted.tables += ROOT_LEVEL - 1;
    check_counters("map");
    child = scene_fork(space);
    predicted.tables += 1;
    check_counters("fork");
    scene_write(child, 1, 5);
    predicted.tables += ROOT_LEVEL; /* its own path, and one more level down */
    predicted.data += 1;
    check_counters("first write");
    scene_write(child, 1, 6);
    check_counters("second write");
    scene_write(child, 2, 7);
    predicted.data += 1;
    check_counters("write beside it");
    scene_write(space, 1, 8);
    predicted.tables += 1;   /* its path is its own, the block is split */
    predicted.data += 1 - 1; /* the old page is nobody's now: a copy, or not even that */
    check_counters("parent's write");
    scene_destroy(child);
    predicted.tables -= 1 + ROOT_LEVEL;
    predicted.data = BLOCK;
    check_counters("destroy");
    REQUIRE_OK(space_unmap(scene.ctx, space, gpa(0), BYTES(BLOCK)));
    predicted.data = 0;
    predicted.tables -= 1;
    check_counters("unmap");
    scene_end();
}

/* hugemmap08, chunk-overcommit: reservations cannot be overcommitted in chunks.
 * hugemmap28: none is counted twice. hugemmap27, noresv-preserve: who has none
 * fails rather than take another's. */
TEST(h_reservations_hold_against_chunks)
{
    const struct fork_options reserving = {.limit = UINT64_MAX, .reserve = true, .vcpus = 1};
    struct space *child[64];
    unsigned made = 0;
    scene_start(SMALL ? 0 : 8);
    struct space *space = scene_space(), *stranger = scene_space();
    scene_memory(space, 0, BLOCK, 0);
    scene_region(stranger, 0, GUEST_PAGES / 4, REGION_PRIVATE, RIGHT_ALL, 0);
    const uint64_t each = space_reserve_frames(scene.ctx, space, 1);
    while (made < 64) {
        uint64_t reserved = scene.pool->reserved;
        enum cleave_status status = space_fork(scene.ctx, space, 1, &reserving, &child[made]);
        if (status != CLEAVE_OK) {
            CHECK_STATUS(status, CLEAVE_RESERVE);
            break;
        }
        CHECK_EQ(scene.pool->reserved, reserved + each);
        CHECK_LE(scene.pool->reserved, scene.pool->free);
        made++;
    }
    REQUIRE(made >= 2 && made < 64);
    uint64_t page = 0, reserved = scene.pool->reserved;
    while (space_fault(scene.ctx, stranger, PAGE(page), ACCESS_WRITE, NULL) == CLEAVE_OK) {
        page++;
    }
    CHECK_EQ(scene.ctx->error.status, CLEAVE_NO_MEMORY);
    CHECK_EQ(scene.pool->reserved, reserved);
    for (unsigned i = 0; i < made; i++) {
        uint64_t before = scene.pool->reserved, free = scene.pool->free;
        for (uint64_t k = 0; k < BLOCK; k++) {
            scene_write(child[i], k, 10 + i);
        }
        CHECK_EQ(before - scene.pool->reserved, free - scene.pool->free); /* each frame once */
        scene_audit();
    }
    for (unsigned i = 0; i < made; i++) {
        scene_check(child[i], BLOCK - 1, 10 + i);
    }
    scene_end();
}

static struct {
    struct space *space;
    enum cleave_status status[2];
} last_frame;

static void last_frame_setup(void *arg)
{
    (void)arg;
    scene_start(0);
    last_frame.space = scene_space();
    scene_memory(last_frame.space, 0, 1, 0); /* the path is there */
    scene_region(last_frame.space, 1, 1, REGION_PRIVATE, RIGHT_ALL, 0);
    struct space *filler = scene_space();
    REQUIRE_OK(
        pool_reserve(scene.ctx, &filler->payer, scene.pool->free - scene.pool->reserved - 1));
}

static void last_frame_body(struct mm_ctx *ctx, void *arg)
{
    (void)arg;
    last_frame.status[ctx->cpu] = space_fault(ctx, last_frame.space, PAGE(1), ACCESS_WRITE, NULL);
}

static bool last_frame_check(void *arg)
{
    (void)arg;
    scene_audit();
    bool mapped = scene_lookup(last_frame.space, 1).kind == PTE_KIND_LEAF;
    bool first = last_frame.status[0] == CLEAVE_OK, second = last_frame.status[1] == CLEAVE_OK;
    return mapped && (first || second) && (first || last_frame.status[0] == CLEAVE_NO_MEMORY) &&
           (second || last_frame.status[1] == CLEAVE_NO_MEMORY);
}

/* hugemmap06, alloc-instantiate-race: two vcpus touch one page when one frame
 * is left: the page is there afterwards, and who lost finds it or is told to
 * ask again; nobody dies of it. */
TEST(h_two_faults_for_the_last_frame)
{
    TEST_NEEDS_HOOKS();
    struct host_sched sched = {.setup = last_frame_setup,
                               .cpus = 2,
                               .body = {last_frame_body, last_frame_body},
                               .check = last_frame_check,
                               .max_preemptions = 3,
                               .max_schedules = SMALL ? 2000 : 300};
    CHECK(host_sched_explore(&sched));
    CHECK(sched.schedules > 5);
}

/* hugemmap18, misalign: a base or offset that is not aligned to the leaf is
 * refused at every order. */
TEST(h_misaligned_leaves)
{
    scene_start(0);
    struct space *space = scene_space();
    for (unsigned order = 0; order < LEAF_ORDERS; order++) {
        for (uint64_t shift = 0; order > 0 && shift < LEVEL_BITS * order; shift++) {
            CHECK_STATUS(space_map(scene.ctx, space, PAGE(4 * GIGA + (UINT64_C(1) << shift)), order,
                                   &private_region),
                         CLEAVE_ALIGN);
        }
        CHECK_STATUS(space_map(scene.ctx, space, gpa(PAGE(4 * GIGA).v + PAGE_SIZE / 2), order,
                               &private_region),
                     CLEAVE_ALIGN);
    }
    CHECK_EQ(region_summary_all(space->regions), 0);
    scene_end();
}

/* hugemmap13, 14, 17, 19, 36: off by one at 4 GiB. hugemmap 36 too: what is cut
 * off above does not touch what lies below. Leaves of each order on both sides
 * of 4 GiB, and of the highest 32-bit page number's neighbours where the guest
 * is as wide. */
TEST(h_around_4_gib)
{
    const uint64_t edge = SMALL ? GUEST_PAGES / 2 : (UINT64_C(4) << 30) >> PAGE_SHIFT;
    for (unsigned order = 0; order < 2; order++) {
        const uint64_t step = level_pages(order);
        test_case("order %u", order);
        scene_start(0);
        struct space *space = scene_space();
        scene_memory(space, edge - 2 * step, 4 * step, order);
        for (unsigned i = 0; i < 4; i++) {
            scene_write(space, edge - 2 * step + i * step, 10 + i);
            scene_write(space, edge - step + i * step - 1, 20 + i);
        }
        struct space *child = scene_fork(space);
        scene_write(child, edge, 99);
        scene_write(child, edge - 1, 98);
        REQUIRE_OK(space_unmap(scene.ctx, space, PAGE(edge), BYTES(2 * step)));
        CHECK_STATUS(scene_access(space, edge, ACCESS_READ), CLEAVE_FAULT);
        scene_check(space, edge - 1, 21);
        scene_check(space, edge - 2 * step, order ? 10 : 20);
        scene_check(child, edge, 99);
        scene_check(child, edge - 1, 98);
        scene_check(child, edge + 2 * step - 1, 23);
        REQUIRE_OK(space_unmap(scene.ctx, child, PAGE(edge - 1), BYTES(2)));
        CHECK_STATUS(scene_access(child, edge, ACCESS_WRITE), CLEAVE_FAULT);
        CHECK_STATUS(scene_access(child, edge - 1, ACCESS_WRITE), CLEAVE_FAULT);
        scene_check(child, edge + 2 * step - 1, 23);
        scene_end();
    }
}

/* hugefallocate01, 02: a hole is punched in whole pages, to the page: beside it
 * every byte stays. */
TEST_TABLE(h_punch_whole_pages, shapes)
{
    scene_shape(row->shape);
    const uint64_t page = scene.base + BLOCK - 1;
    struct scene_state before = scene_state();
    CHECK_STATUS(space_unmap(scene.ctx, scene.space, gpa(PAGE(page).v + 1), PAGE_SIZE),
                 CLEAVE_ALIGN);
    CHECK_STATUS(space_unmap(scene.ctx, scene.space, PAGE(page), PAGE_SIZE / 2), CLEAVE_ALIGN);
    struct scene_state after = scene_state();
    SCENE_CHECK_SAME(before, after);
    CHECK_OK(space_unmap(scene.ctx, scene.space, PAGE(page), BYTES(2)));
    scene_region(scene.space, page, 2, REGION_PRIVATE, RIGHT_ALL, 0);
    scene_check(scene.space, page, 0);
    scene_check(scene.space, page + 1, 0);
    uint64_t sample[SCENE_SAMPLES];
    unsigned n = scene_samples(sample);
    for (unsigned i = 0; i < n; i++) {
        if (sample[i] != page && sample[i] != page + 1) {
            scene_check(scene.space, sample[i], SCENE_TAG(sample[i]));
        }
    }
    scene_end();
}

/* --- KVM -------------------------------------------------------------------------------------- */

/* dirty_log_page_splitting: tracking splits huge leaves; with tracking off and
 * every page touched there are as many leaves of each size as before. */
TEST_TABLE(v_as_many_huge_leaves_after_tracking, shapes)
{
    const struct channel_options options = {.asynchronous = true};
    struct event event;
    struct channel *channel;
    scene_shape(row->shape);
    struct space_usage before = scene_usage(scene.space);
    REQUIRE_OK(channel_create(scene.ctx, scene.pool, &options, &channel));
    REQUIRE_OK(channel_arm(scene.ctx, channel, scene.space, PAGE(scene.base), BYTES(2 * BLOCK)));
    for (uint64_t i = 0; i < 2 * BLOCK; i++) {
        scene_write(scene.space, scene.base + i, 40 + i);
        (void)channel_next(scene.ctx, channel, &event);
    }
    CHECK_EQ(channel_dirty(scene.ctx, channel), 2 * BLOCK);
    REQUIRE_OK(channel_disarm(scene.ctx, channel, scene.space, PAGE(scene.base), BYTES(2 * BLOCK)));
    for (uint64_t i = 0; i < 2; i++) {
        (void)!space_collapse(scene.ctx, scene.space, PAGE(scene.base + i * BLOCK), 1);
    }
    if (scene.pages == GIGA) {
        (void)!space_collapse(scene.ctx, scene.space, PAGE(scene.base), 2);
    }
    struct space_usage after = scene_usage(scene.space);
    CHECK_LE(before.mapped[2],
             after.mapped[2]); /* what was split before may be better than it was */
    CHECK_LE(before.mapped[2] + before.mapped[1], after.mapped[2] + after.mapped[1]);
    if (row->shape == SHAPE_2M || row->shape == SHAPE_1G) {
        CHECK_EQ(after.mapped[0], 0);
    }
    for (uint64_t i = 0; i < 2 * BLOCK; i += SMALL ? 1 : 51) {
        scene_check(scene.space, scene.base + i, 40 + i);
    }
    channel_destroy(scene.ctx, channel);
    scene_end();
}

/* demand_paging: every page is asked for exactly once, however many vcpus and
 * forks touch it. */
TEST(v_each_page_is_loaded_once)
{
    const struct region paged = {.policy = REGION_PAGED, .rights = RIGHT_READ | RIGHT_WRITE};
    struct vcpu_wait wait[3] = {{.vcpu = 0}, {.vcpu = 1}, {.vcpu = 2}};
    enum { PAGES = 12 };
    struct pager *pager;
    unsigned loads[PAGES] = {0};
    scene_start(0);
    struct space *control = scene_space(), *space = scene_space();
    REQUIRE_OK(pager_create(scene.ctx, scene.pool, control, gpa(0), &pager));
    REQUIRE_OK(space_map_paged(scene.ctx, space, gpa(0), BYTES(PAGES), pager, 0, 3, 100, &paged));
    struct space *child = scene_fork(space);
    for (uint64_t i = 0; i < 3 * PAGES; i++) {
        uint64_t page = i * 7 % PAGES;
        struct load_request request;
        bool found = false;
        for (unsigned v = 0; v < 3; v++) {
            struct space *who = v == 2 ? child : space;
            enum cleave_status status =
                space_fault(scene.ctx, who, PAGE(page), ACCESS_READ, &wait[v]);
            CHECK(status == CLEAVE_OK || status == CLEAVE_WAIT);
        }
        REQUIRE_OK(pager_next(scene.ctx, pager, &request, &found));
        if (found) {
            uint64_t value = request.offset * 3;
            CHECK_EQ(request.offset, 100 + page);
            REQUIRE_OK(host_cpu_write(scene_cpu(control), request.window, &value, 8));
            REQUIRE_OK(pager_done(scene.ctx, pager, request.id, true));
            loads[page]++;
        }
        CHECK_EQ(word_at(space, page), (100 + page) * 3);
        CHECK_EQ(word_at(child, page), (100 + page) * 3);
        scene_audit();
    }
    for (unsigned i = 0; i < PAGES; i++) {
        CHECK_EQ(loads[i], 1);
    }
    REQUIRE_OK(pager_destroy(scene.ctx, pager));
    scene_end();
}

/* mmu_stress: write all; read-only: every write faults; writable again: all
 * succeed; every second page goes, then half of the rest. */
TEST_TABLE(v_stress_of_rights_and_removal, shapes)
{
    scene_shape(row->shape);
    const uint64_t pages = 2 * BLOCK, step = SMALL ? 1 : 13;
    for (uint64_t i = 0; i < pages; i += step) {
        scene_write(scene.space, scene.base + i, 10 + i);
    }
    REQUIRE_OK(space_protect(scene.ctx, scene.space, PAGE(scene.base), BYTES(pages), RIGHT_READ));
    for (uint64_t i = 0; i < pages; i += step) {
        CHECK_STATUS(scene_access(scene.space, scene.base + i, ACCESS_WRITE), CLEAVE_FAULT);
        scene_check(scene.space, scene.base + i, 10 + i);
    }
    REQUIRE_OK(space_protect(scene.ctx, scene.space, PAGE(scene.base), BYTES(pages), RIGHT_ALL));
    for (uint64_t i = 0; i < pages; i += step) {
        scene_write(scene.space, scene.base + i, 20 + i);
    }
    for (uint64_t i = 0; i < pages; i += 2 * step) {
        REQUIRE_OK(space_unmap(scene.ctx, scene.space, PAGE(scene.base + i), PAGE_SIZE));
    }
    REQUIRE_OK(space_unmap(scene.ctx, scene.space, PAGE(scene.base + BLOCK), BYTES(BLOCK)));
    for (uint64_t i = 0; i < pages; i += step) {
        if (i % (2 * step) == 0 || i >= BLOCK) {
            CHECK_STATUS(scene_access(scene.space, scene.base + i, ACCESS_READ), CLEAVE_FAULT);
        } else {
            scene_check(scene.space, scene.base + i, 20 + i);
        }
    }
    if (scene.other != NULL) {
        scene_check(scene.other, scene.base + BLOCK, SCENE_TAG(scene.base + BLOCK));
    }
    scene_end();
}

/* The access matrix of kvm-unit-tests, hugemmap23: each legal set of rights,
 * changed into each, against each access, before and after a fork. */
TEST_TABLE(v_access_matrix, shapes)
{
    static const unsigned sets[] = {RIGHT_READ, RIGHT_READ | RIGHT_WRITE, RIGHT_READ | RIGHT_EXEC,
                                    RIGHT_ALL};
    static const unsigned right[] = {RIGHT_READ, RIGHT_WRITE, RIGHT_EXEC};
    scene_shape(row->shape);
    struct space *child = NULL;
    for (unsigned forked = 0; forked < 2; forked++) {
        for (unsigned i = 0; i < 16; i++) {
            const unsigned order[] = {sets[i / 4], sets[i % 4]};
            for (unsigned k = 0; k < 2; k++) {
                REQUIRE_OK(space_protect(scene.ctx, scene.space, PAGE(scene.base), BYTES(BLOCK),
                                         order[k]));
                host_tlb_check();
                for (unsigned access = 0; access < 3; access++) {
                    test_case("rights %u then %u, access %u", order[0], order[1], access);
                    CHECK_STATUS(scene_access(scene.space, scene.base + 1, (enum access)access),
                                 order[k] & right[access] ? CLEAVE_OK : CLEAVE_FAULT);
                }
            }
        }
        scene_audit();
        child = child ? child : scene_fork(scene.space);
    }
    for (unsigned access = 0; access < 3; access++) {
        CHECK_OK(scene_access(child, scene.base + 1, (enum access)access));
    }
    scene_end();
}

/* --- Hafnium ---------------------------------------------------------------------------------- */

/* overmap, overmap_no_partial_success: a range of which a part is mapped
 * already is refused with the tables bit by bit the same; so is a leaf over a
 * table and beneath a leaf. */
TEST_TABLE(a_overmap_changes_nothing, shapes)
{
    uint64_t moved;
    scene_shape(row->shape);
    struct scene_state before = scene_state();
    const uint64_t free = scene.base - BLOCK;
    struct region shared = {.policy = REGION_SHARED, .rights = RIGHT_ALL};
    for (unsigned order = 0; order < LEAF_ORDERS; order++) {
        CHECK_STATUS(space_map(scene.ctx, scene.space, PAGE(scene.base), order, &private_region),
                     CLEAVE_EXISTS);
    }
    CHECK_STATUS(
        space_set_region(scene.ctx, scene.space, PAGE(free), BYTES(BLOCK + 1), &private_region),
        CLEAVE_EXISTS);
    CHECK_STATUS(space_set_region(scene.ctx, scene.space, PAGE(free), BYTES(BLOCK + 1), &shared),
                 CLEAVE_EXISTS);
    CHECK_STATUS(space_move(scene.ctx, scene.space, PAGE(scene.base + BLOCK), PAGE(free),
                            BYTES(BLOCK), &moved) == CLEAVE_OK
                     ? space_move(scene.ctx, scene.space, PAGE(free), PAGE(scene.base + 1),
                                  BYTES(BLOCK), &moved)
                     : CLEAVE_EXISTS,
                 CLEAVE_EXISTS);
    CHECK_OK(space_move(scene.ctx, scene.space, PAGE(free), PAGE(scene.base + BLOCK), BYTES(BLOCK),
                        &moved));
    struct scene_state after = scene_state();
    SCENE_CHECK_SAME_VIEW(before, after);
    scene_end();
}

/* prepare then commit cannot fail: with its tables made in advance (the range
 * populated and unmapped once), an operation that needs no more frames succeeds
 * in an empty pool, disjoint or overlapping. */
TEST(a_what_is_prepared_cannot_fail)
{
    scene_start(0);
    struct space *space = scene_space(), *filler = scene_space();
    scene_memory(space, 0, 2 * BLOCK, 0);
    REQUIRE_OK(pool_reserve(scene.ctx, &filler->payer, scene.pool->free - scene.pool->reserved));
    for (uint64_t i = 0; i < 2 * BLOCK; i += SMALL ? 1 : 17) {
        CHECK_OK(scene_access(space, i, ACCESS_WRITE));
        scene_audit();
    }
    CHECK_OK(space_protect(scene.ctx, space, gpa(0), BYTES(2 * BLOCK), RIGHT_READ));
    CHECK_OK(space_protect(scene.ctx, space, gpa(0), BYTES(2 * BLOCK), RIGHT_ALL));
    CHECK_OK(space_unmap(scene.ctx, space, PAGE(BLOCK), BYTES(BLOCK)));
    CHECK_OK(scene_access(space, 0, ACCESS_WRITE));
    pool_unreserve(scene.ctx, &filler->payer);
    scene_end();
}

/* defrag idempotent: a second collapse finds nothing to do and changes nothing.
 */
TEST(a_collapse_twice_is_collapse_once)
{
    scene_start(0);
    struct space *parent = scene_space();
    scene_memory(parent, 0, 2 * BLOCK, 1);
    struct space *space = scene_fork(parent);
    for (uint64_t i = 0; i < BLOCK; i += 3) {
        scene_write(space, i, 5 + i);
    }
    REQUIRE_OK(space_collapse(scene.ctx, space, gpa(0), 1));
    CHECK_EQ(scene_lookup(space, 0).level, 1);
    struct scene_state before = scene_state();
    CHECK_STATUS(space_collapse(scene.ctx, space, gpa(0), 1), CLEAVE_NOT_MAPPED);
    struct scene_state after = scene_state();
    SCENE_CHECK_SAME(before, after);
    for (uint64_t i = 0; i < BLOCK; i += 3) {
        scene_check(space, i, 5 + i);
        scene_check(parent, i, 0);
    }
    scene_end();
}

/* unmap all: nothing is left but the root and what is shared. */
TEST_TABLE(a_unmap_all_leaves_no_tables, shapes)
{
    scene_shape(row->shape);
    REQUIRE_OK(space_unmap(scene.ctx, scene.space, gpa(0), GUEST_PAGES << PAGE_SHIFT));
    struct space_usage usage = scene_usage(scene.space);
    CHECK_EQ(usage.mapped[0] + usage.mapped[1] + usage.mapped[2], 0);
    CHECK_LE(usage.tables, 1);
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        CHECK_EQ(table_slots(scene.space->root)[i], 0);
    }
    CHECK_EQ(scene.space->regions, REGION_WORD_NONE);
    if (scene.other == NULL) {
        CHECK_EQ(scene.pool->kind[FRAME_DATA], 0);
        CHECK_EQ(scene.pool->kind[FRAME_TABLE], 1);
    }
    scene_end();
}
