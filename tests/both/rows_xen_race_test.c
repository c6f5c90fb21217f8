/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The second half of what Xen's security advisories teach: races, batches,
 * generations, handles that are used twice, and pages that are not the fork's
 * to touch. See docs/tests.md.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "rows_ops.h"

#define SMALL (TABLE_ENTRIES == 4)

static const struct shape_row shapes[] = SHAPE_ROWS;
static const struct region private_region = {
    .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};

/* --- X14: an entry is one store --------------------------------------------------------------- */

static struct {
    pte_t *slot;
    uint32_t stop;
    uint64_t reads, kinds[4], wrong;
} watch;

/* Reads the entry over and over, as the hardware does. */
static void *watch_entry(void *arg)
{
    (void)arg;
    while (!__atomic_load_n(&watch.stop, __ATOMIC_RELAXED)) {
        pte_t e = pte_read(watch.slot);
        enum pte_kind kind = pte_kind(e, 1);
        bool inside = pte_pfn(e).v >= scene.pool->start.v && pte_pfn(e).v < scene.pool->end.v;
        bool legal = kind == PTE_KIND_ABSENT ? e == 0
                     : kind == PTE_KIND_LEAF
                         ? inside && pte_pfn(e).v % BLOCK == 0 && !(e & pt_format.reserved_leaf[1])
                         : inside && !(e & pt_format.reserved_table);
        watch.wrong += !legal;
        watch.kinds[kind]++;
        __atomic_fetch_add(&watch.reads, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* XSA-328: a live entry was put together by several stores. Whatever an
 * operation does, who reads the entry meanwhile finds one that some state of
 * the space has. */
TEST(t_x14_an_entry_is_one_store)
{
    pthread_t thread;
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, 2 * BLOCK, 1);
    watch.slot = host_walk(space->root, gpa(0)).slot[1];
    REQUIRE_EQ(pthread_create(&thread, NULL, watch_entry, NULL), 0);
    for (unsigned i = 0; i < 400 || __atomic_load_n(&watch.reads, __ATOMIC_RELAXED) == 0; i++) {
        CHECK_OK(space_protect(scene.ctx, space, PAGE(1), PAGE_SIZE, RIGHT_READ | RIGHT_WRITE));
        CHECK_OK(space_protect(scene.ctx, space, PAGE(1), PAGE_SIZE, RIGHT_ALL));
        CHECK_OK(space_collapse(scene.ctx, space, gpa(0), 1));
        CHECK_OK(space_unmap(scene.ctx, space, gpa(0), BYTES(BLOCK)));
        CHECK_OK(space_map(scene.ctx, space, gpa(0), 1, &private_region));
    }
    __atomic_store_n(&watch.stop, 1, __ATOMIC_RELAXED);
    REQUIRE_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(watch.wrong, 0);
    CHECK(watch.reads > 0);
    scene_end();
}

/* --- X16: batches and poison ------------------------------------------------------------------ */

static void batch_point(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                        void *arg)
{
    unsigned *changed = arg;
    (void)ctx, (void)a, (void)b;
    if (point == POINT_ENTRY) {
        ++changed[0];
    } else if (point == POINT_FLUSHED) {
        changed[0] = 0;
        ++changed[1];
    } else if (point == POINT_DROP) {
        CHECK_EQ(changed[0], 0); /* everything before it was flushed */
        ++changed[2];
    }
}

/* XSA-346, XSA-480: a page or table was freed before the flush that had been
 * put off. More pages than a batch holds are unmapped, none beside another,
 * while a CPU knows all of them; freed frames are filled with poison, which it
 * never sees. */
TEST(t_x16_deferred_flushes_come_before_drops)
{
    TEST_NEEDS_HOOKS();
    enum { PAGES = 3 * FLUSH_DROPS };
    unsigned changed[3] = {0};
    scene_start(0);
    struct space *space = scene_space();
    scene_region(space, 0, PAGES, REGION_PRIVATE, RIGHT_ALL, 0);
    for (unsigned i = 0; i < PAGES; i++) {
        scene_write(space, i * 5 % PAGES, 1 + i * 5 % PAGES); /* neighbours have distant frames */
    }
    struct space *child = scene_fork(space);
    for (unsigned i = 0; i < PAGES; i++) {
        scene_check(child, i, 1 + i);
        scene_write(space, i, 1000 + i);
    }
    host_on_point(batch_point, changed);
    CHECK_OK(space_unmap(scene.ctx, space, gpa(0), BYTES(PAGES - 1)));
    host_on_point(NULL, NULL);
    CHECK(changed[2] > 0);
    for (unsigned i = 0; i < PAGES; i++) {
        CHECK_STATUS(scene_access(space, i, ACCESS_READ), i < PAGES - 1 ? CLEAVE_FAULT : CLEAVE_OK);
        scene_check(child, i, 1 + i);
    }
    scene_end();
}

/* --- X17: generations that are far along, and lazy switches ----------------------------------- */

/* XSA-241, XSA-286, XSA-292: a stale stamp, or a context switch without a
 * flush. */
TEST(t_x17_generations_and_lazy_switches)
{
    static const uint64_t edges[] = {
        0xff, 0x100, 0xffff, 0xffffffff, UINT64_C(1) << 32, UINT64_C(1) << 63};
    for (unsigned i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
        test_case("generation %llx", (unsigned long long)edges[i]);
        scene_start(0);
        struct space *space = scene_space(), *other = scene_space();
        scene_memory(space, 0, 8, 0);
        scene_memory(other, 0, 8, 0);
        REQUIRE_OK(host_cpu_run(1, space));
        scene_write(space, 0, 5);
        host_cpu_stop(1);
        space->generation = edges[i] - 1;
        space->seen[1] = edges[i] - 1;
        for (unsigned round = 0; round < 4; round++) {
            REQUIRE_OK(host_cpu_run(1, space));
            scene_write(space, 1, 10 + round);
            REQUIRE_OK(host_cpu_run(1, other)); /* elsewhere when it is changed */
            scene_write(other, 1, 20 + round);
            CHECK_OK(space_protect(scene.ctx, space, PAGE(1), PAGE_SIZE, RIGHT_READ));
            REQUIRE_OK(host_cpu_run(1, space));
            host_tlb_check();
            CHECK_STATUS(scene_access(space, 1, ACCESS_WRITE), CLEAVE_FAULT);
            CHECK_OK(space_protect(scene.ctx, space, PAGE(1), PAGE_SIZE, RIGHT_ALL));
            scene_check(space, 1, 10 + round);
        }
        scene_end();
    }
}

/* --- X18: handles that are used twice --------------------------------------------------------- */

#define HANDLES 3u
#define ACTIONS (2 * HANDLES + 3)

static struct {
    struct space *owner, *mapper;
    bool there;     /* the owner's page */
    uint64_t value; /* what it holds */
    bool mapped[HANDLES], detached[HANDLES];
    uint64_t shows[HANDLES]; /* a detached one */
} trio;

static uint64_t first_word(struct space *space, uint64_t page)
{
    uint64_t value = 0;
    CHECK_OK(space_read(scene.ctx, space, PAGE(page), &value, sizeof(value), NULL));
    return value;
}

static void act(unsigned action)
{
    struct mm_ctx *ctx = scene.ctx;
    unsigned i = action % HANDLES;
    uint64_t done;

    if (action < HANDLES) {
        enum cleave_status expected = trio.mapped[i] ? CLEAVE_EXISTS
                                      : trio.there   ? CLEAVE_OK
                                                     : CLEAVE_FAULT;
        enum cleave_status status = foreign_map(ctx, trio.owner, PAGE(1), trio.mapper, PAGE(i));
        CHECK(status == expected || (trio.mapped[i] && !trio.there && status == CLEAVE_FAULT));
        if (status == CLEAVE_OK) {
            trio.mapped[i] = true;
            trio.detached[i] = false;
        }
    } else if (action < 2 * HANDLES) {
        CHECK_STATUS(foreign_unmap(ctx, trio.mapper, PAGE(i)),
                     trio.mapped[i] ? CLEAVE_OK : CLEAVE_NOT_MAPPED);
        trio.mapped[i] = false;
    } else if (i == 0) { /* a part of what is mapped, by the wrong call */
        bool any = trio.mapped[1] || trio.mapped[2];
        CHECK_STATUS(space_unmap(ctx, trio.mapper, PAGE(1), BYTES(2)),
                     any ? CLEAVE_BUSY : CLEAVE_OK);
    } else if (i == 1) { /* the owner writes */
        trio.value++;
        CHECK_STATUS(space_write(ctx, trio.owner, PAGE(1), &trio.value, 8, NULL, &done),
                     trio.there ? CLEAVE_OK : CLEAVE_FAULT);
    } else if (trio.there) {
        CHECK_OK(space_unmap(ctx, trio.owner, PAGE(1), PAGE_SIZE));
        for (unsigned k = 0; k < HANDLES; k++) {
            trio.shows[k] = trio.mapped[k] && !trio.detached[k] ? trio.value : trio.shows[k];
            trio.detached[k] |= trio.mapped[k];
        }
        trio.there = false;
    } else {
        CHECK_OK(space_map(ctx, trio.owner, PAGE(1), 0, &private_region));
        CHECK_OK(space_write(ctx, trio.owner, PAGE(1), &trio.value, 8, NULL, &done));
        trio.there = true;
    }
}

static void check_trio(void)
{
    for (unsigned i = 0; i < HANDLES; i++) {
        if (trio.mapped[i]) {
            CHECK_EQ(first_word(trio.mapper, i), trio.detached[i] ? trio.shows[i] : trio.value);
        }
    }
    scene_audit();
}

static void reset_trio(void)
{
    for (unsigned i = 0; i < HANDLES; i++) {
        if (trio.mapped[i]) {
            act(HANDLES + i);
        }
    }
    if (!trio.there) {
        act(2 * HANDLES + 2);
    }
    CHECK_EQ(trio.owner->attachment_count, 0);
    CHECK_EQ(trio.owner->foreign_count, 0);
}

/* XSA-218, XSA-224, XSA-380, XSA-394, XSA-486, XSA-500: a grant given back
 * twice or in part, or mapped while it was freed. Every sequence of map, unmap,
 * a part and a double over three maps of one page, with its owner writing it
 * and taking it away. (cap_revoke.x18_three_handles_every_sequence does the
 * same with capabilities.) */
TEST_TIMED(t_x18_three_maps_every_sequence, 120)
{
    const unsigned depth = SMALL ? 4 : 3;
    unsigned sequences = 1;
    scene_start(0);
    trio.owner = scene_space();
    trio.mapper = scene_space();
    for (unsigned i = 0; i < depth; i++) {
        sequences *= ACTIONS;
    }
    reset_trio();
    act(0); /* the mapper's tables stay */
    reset_trio();
    uint64_t free = scene.pool->free;
    for (unsigned s = 0; s < sequences; s++) {
        test_case("sequence %u", s);
        for (unsigned step = 0, rest = s; step < depth; step++, rest /= ACTIONS) {
            act(rest % ACTIONS);
        }
        check_trio();
        reset_trio();
        CHECK_EQ(scene.pool->free, free);
    }
    scene_end();
}

/* --- X20: nothing armed survives an unmap ----------------------------------------------------- */

/* XSA-393: an entry that the hardware could not use but the hypervisor did was
 * not cleared on removal. An armed and a dirty page are unmapped and mapped
 * anew: the new page is neither. */
TEST_TABLE(t_x20_armed_pages_are_forgotten_on_unmap, shapes)
{
    const struct channel_options options = {.asynchronous = true};
    struct event event;
    scene_shape(row->shape);
    struct channel *channel;
    REQUIRE_OK(channel_create(scene.ctx, scene.pool, &options, &channel));
    REQUIRE_OK(channel_arm(scene.ctx, channel, scene.space, PAGE(scene.base), BYTES(BLOCK)));
    scene_write(scene.space, scene.base, 5); /* one is told of, one is armed still */
    CHECK(channel_next(scene.ctx, channel, &event));
    CHECK_EQ(channel_dirty(scene.ctx, channel), 1);
    REQUIRE_OK(space_unmap(scene.ctx, scene.space, PAGE(scene.base), BYTES(BLOCK)));
    CHECK_EQ(channel_dirty(scene.ctx, channel), 0);
    struct host_walk walk = host_walk(scene.space->root, PAGE(scene.base));
    CHECK(!walk.present);
    CHECK_EQ(*walk.slot[walk.level], 0);
    scene_region(scene.space, scene.base, BLOCK, REGION_PRIVATE, RIGHT_ALL, 1);
    for (unsigned i = 0; i < 2; i++) {
        scene_check(scene.space, scene.base + i, 0);
        scene_write(scene.space, scene.base + i, 6);
    }
    CHECK(!channel_next(scene.ctx, channel, &event));
    CHECK_EQ(channel_dirty(scene.ctx, channel), 0);
    channel_destroy(scene.ctx, channel);
    scene_end();
}

/* --- X21: what a domain gets is clean --------------------------------------------------------- */

/* XSA-100, XSA-364: freed memory that was not scrubbed before its next owner
 * saw it. A pool full of secrets changes hands by every way in which a space
 * gets a frame. */
TEST(t_x21_frames_come_clean_by_every_way)
{
    scene_start(SMALL ? 0 : 16);
    struct space *space = scene_space();
    for (unsigned way = 0; way < 4; way++) {
        test_case("way %u", way);
        struct space *secret = scene_space();
        scene_region(secret, 0, GUEST_PAGES / 4, REGION_PRIVATE, RIGHT_ALL, 0);
        for (uint64_t i = 0; scene.pool->free > 4 * BLOCK + 16 && i < GUEST_PAGES / 4; i++) {
            scene_write(secret, i, 0xbad);
        }
        scene_destroy(secret);
        if (way == 0) {
            REQUIRE_OK(space_map(scene.ctx, space, PAGE(GIGA), 1, &private_region));
        } else {
            scene_region(space, GIGA, BLOCK, way == 3 ? REGION_SHARED : REGION_PRIVATE, RIGHT_ALL,
                         way == 1);
        }
        if (way == 2) {
            REQUIRE_OK(space_populate(scene.ctx, space, PAGE(GIGA), BYTES(BLOCK)));
        }
        for (uint64_t i = 0; i < BLOCK; i += SMALL ? 1 : 61) {
            scene_check(space, GIGA + i, 0);
        }
        REQUIRE_OK(space_unmap(scene.ctx, space, PAGE(GIGA), BYTES(BLOCK)));
    }
    scene_end();
}

/* --- X22: special pages are not the fork's ---------------------------------------------------- */

/* XSA-507: a special page was taken for ordinary memory and reclaimed. Fork and
 * reset leave shared pages, device pages, pinned pages and those that others
 * map as they are. */
TEST(t_x22_fork_and_reset_leave_special_pages_alone)
{
    const struct fork_options based = {.limit = UINT64_MAX, .base = true};
    const uint64_t shared = 2 * BLOCK, device = 3 * BLOCK, pinned = 1;
    uint32_t id;
    scene_start_with(0, &(struct host_options){.frames = 2 * BLOCK});
    pfn_t mmio = host_take(BLOCK, 1);
    struct space *space = scene_space(), *child, *mapper = scene_space();
    scene_memory(space, 0, BLOCK, 1);
    scene_write(space, 0, 5);
    scene_region(space, shared, 1, REGION_SHARED, RIGHT_ALL, 0);
    scene_write(space, shared, 6);
    REQUIRE_OK(space_map_device(scene.ctx, space, PAGE(device), PAGE_SIZE, mmio,
                                RIGHT_READ | RIGHT_WRITE, false));
    REQUIRE_OK(space_pin(scene.ctx, space, PAGE(pinned), PAGE_SIZE, true, &id));
    pfn_t before, after;
    REQUIRE_OK(space_pinned_frame(scene.ctx, space, id, PAGE(pinned), &before));
    REQUIRE_OK(space_fork(scene.ctx, space, 1, &based, &child));
    scene_audit();
    CHECK_EQ(scene_lookup(space, device).frame.v, mmio.v);
    CHECK_EQ(scene_lookup(space, pinned).frame.v, before.v);
    CHECK_NE(scene_lookup(child, pinned).frame.v, before.v);
    CHECK_EQ(scene_lookup(child, shared).frame.v, scene_lookup(space, shared).frame.v);
    scene_write(child, shared, 7);
    scene_write(child, 0, 8);
    /* What holds pages of the child refuses the reset, and nothing is reset. */
    REQUIRE_OK(foreign_map(scene.ctx, child, PAGE(0), mapper, PAGE(0)));
    struct scene_state held = scene_state();
    CHECK_STATUS(space_reset(scene.ctx, child, NULL, 0), CLEAVE_BUSY);
    struct scene_state now = scene_state();
    SCENE_CHECK_SAME(held, now);
    REQUIRE_OK(foreign_unmap(scene.ctx, mapper, PAGE(0)));
    REQUIRE_OK(space_reset(scene.ctx, child, NULL, 0));
    scene_check(child, 0, 5);
    scene_check(child, shared, 7); /* it is both's, and no part of what the child has written */
    scene_check(space, shared, 7);
    CHECK_EQ(scene_lookup(space, device).frame.v, mmio.v);
    REQUIRE_OK(space_pinned_frame(scene.ctx, space, id, PAGE(pinned), &after));
    CHECK_EQ(after.v, before.v);
    REQUIRE_OK(space_unpin(scene.ctx, space, id));
    scene_end();
}
