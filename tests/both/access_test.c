/* SPDX-License-Identifier: BSD-2-Clause */
/* Atomic changes of words in guest memory: at every shape, in forks, in shared and armed pages,
 * where they are refused, and beside others who change the same word. */
#include <pthread.h>
#include <string.h>

#include "alloc.h"
#include "notify.h"
#include "scene.h"

#define OFFSET 24u

static const struct shape_row shapes[] = SHAPE_ROWS;

static uint64_t change(struct space *space, uint64_t page, enum space_atomic op, uint64_t operand)
{
    uint64_t old = 0;
    gpa_t at = gpa(PAGE(page).v + OFFSET);
    REQUIRE_OK(space_atomic(scene.ctx, space, at, op, operand, &old, NULL));
    return old;
}

static uint64_t word(struct space *space, uint64_t page)
{
    uint64_t value = 0;
    gpa_t at = gpa(PAGE(page).v + OFFSET);
    REQUIRE_OK(space_read(scene.ctx, space, at, &value, sizeof(value), NULL));
    return value;
}

/* The rest of the page is as it was filled. */
static void check_rest(struct space *space, uint64_t page, uint64_t tag)
{
    unsigned char want[PAGE_SIZE], found[PAGE_SIZE];
    scene_page(want, tag);
    REQUIRE_OK(space_read(scene.ctx, space, PAGE(page), found, PAGE_SIZE, NULL));
    memcpy(want + OFFSET, found + OFFSET, 8);
    CHECK_BYTES(found, want, PAGE_SIZE);
}

TEST_TABLE(only_the_word_changes, shapes)
{
    uint64_t sample[SCENE_SAMPLES];
    scene_shape(row->shape);
    unsigned samples = scene_samples(sample);
    struct space *child = scene_fork(scene.space);
    for (unsigned i = 0; i < samples; i++) {
        uint64_t page = sample[i], filled = word(scene.space, page);
        CHECK_EQ(change(child, page, ATOMIC_OR, UINT64_C(1) << 63), filled);
        CHECK_EQ(change(child, page, ATOMIC_AND, ~UINT64_C(0xff)), filled | UINT64_C(1) << 63);
        CHECK_EQ(word(child, page), (filled | UINT64_C(1) << 63) & ~UINT64_C(0xff));
        CHECK_EQ(word(scene.space, page), filled);
        CHECK_EQ(change(scene.space, page, ATOMIC_AND, 0), filled);
        CHECK_EQ(word(scene.space, page), 0);
        CHECK_EQ(word(child, page), (filled | UINT64_C(1) << 63) & ~UINT64_C(0xff));
        check_rest(child, page, SCENE_TAG(page));
        check_rest(scene.space, page, SCENE_TAG(page));
        scene_audit();
    }
    scene_end();
}

/* Memory that nobody has touched is zero before; a shared page is everybody's. */
TEST(first_touch_and_shared)
{
    scene_start(0);
    struct space *space = scene_space();
    scene_region(space, 0, 2, REGION_PRIVATE, RIGHT_ALL, 0);
    scene_region(space, 4, 2, REGION_SHARED, RIGHT_READ | RIGHT_WRITE, 0);
    REQUIRE_OK(space_populate(scene.ctx, space, PAGE(4), BYTES(2)));
    CHECK_EQ(change(space, 1, ATOMIC_OR, 6), 0);
    CHECK_EQ(word(space, 1), 6);
    struct space *child = scene_fork(space);
    CHECK_EQ(change(child, 4, ATOMIC_OR, 1), 0);
    CHECK_EQ(change(space, 4, ATOMIC_OR, 2), 1);
    CHECK_EQ(change(child, 4, ATOMIC_AND, ~UINT64_C(1)), 3);
    CHECK_EQ(word(space, 4), 2);
    scene_end();
}

TEST(refused)
{
    const uint64_t top = UINT64_C(1) << GUEST_BITS;
    uint64_t old = 0;
    scene_start(0);
    struct space *space = scene_space();
    scene_region(space, 0, 1, REGION_PRIVATE, RIGHT_ALL, 0);
    scene_region(space, 1, 1, REGION_PRIVATE, RIGHT_READ, 0);
    scene_region(space, 2, 1, REGION_READ_ONLY, RIGHT_READ, 0);
    scene_write(space, 0, 5);
    struct space *frozen = scene_snapshot(space);
    const struct {
        struct space *space;
        uint64_t at;
        enum cleave_status status;
    } cases[] = {{space, 1, CLEAVE_ALIGN},
                 {space, 4, CLEAVE_ALIGN},
                 {space, PAGE_SIZE - 4, CLEAVE_ALIGN},
                 {space, PAGE_SIZE, CLEAVE_FAULT},
                 {space, 2 * PAGE_SIZE, CLEAVE_FAULT},
                 {space, 3 * PAGE_SIZE, CLEAVE_FAULT},
                 {space, top, CLEAVE_RANGE},
                 {space, top - 4, CLEAVE_RANGE},
                 {space, UINT64_MAX - 7, CLEAVE_WRAP},
                 {frozen, 0, CLEAVE_FROZEN}};
    struct scene_state before = scene_state();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_case("case %u", i);
        CHECK_STATUS(space_atomic(scene.ctx, cases[i].space, gpa(cases[i].at), ATOMIC_OR,
                                  UINT64_MAX, &old, NULL),
                     cases[i].status);
    }
    test_case("%s", "");
    SCENE_CHECK_SAME_VIEW(before, scene_state());
    scene_end();
}

/* The subscriber is told before the word changes, and may say no; nothing is left of a wait. */
TEST(armed_pages)
{
    struct channel *channel;
    struct event event;
    struct vcpu_wait wait = {.vcpu = 0};
    uint64_t old = 0;
    scene_start(0);
    struct space *space = scene_space();
    scene_region(space, 0, 4, REGION_PRIVATE, RIGHT_ALL, 0);
    scene_write(space, 0, 5);
    uint64_t filled = word(space, 0);
    wait.space = space;
    REQUIRE_OK(
        channel_create(scene.ctx, scene.pool, &(struct channel_options){.grain = 0}, &channel));
    for (unsigned allow = 0; allow < 2; allow++) {
        enum verdict verdict = allow != 0 ? VERDICT_ALLOW : VERDICT_DENY;
        REQUIRE_OK(channel_arm(scene.ctx, channel, space, PAGE(0), BYTES(1)));
        CHECK_STATUS(space_atomic(scene.ctx, space, gpa(OFFSET), ATOMIC_AND, 0, &old, &wait),
                     CLEAVE_WAIT);
        CHECK_EQ(word(space, 0), filled);
        REQUIRE(channel_next(scene.ctx, channel, &event));
        CHECK_EQ(event.range.start.v, 0);
        REQUIRE_OK(channel_verdict(scene.ctx, channel, event.id, verdict));
        CHECK_STATUS(space_atomic(scene.ctx, space, gpa(OFFSET), ATOMIC_AND, 0, &old, &wait),
                     allow != 0 ? CLEAVE_OK : CLEAVE_DENIED);
        CHECK_EQ(word(space, 0), allow != 0 ? 0 : filled);
    }
    CHECK_EQ(old, filled);
    channel_destroy(scene.ctx, channel);
    scene_end();
}

/* --- Others who change the same word ---------------------------------------------------------- */

#define ROUNDS 2000u
#define CHANGERS 2u

static struct space *common;

/* Sets and clears a bit of its own, which is always as it left it. */
static void *change_own_bit(void *number)
{
    const unsigned cpu = 1 + (unsigned)(uintptr_t)number;
    const uint64_t bit = UINT64_C(1) << cpu;
    struct mm_ctx *ctx = host_ctx(cpu);
    host_cpu_attach(cpu);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t old = 0;
        REQUIRE_OK(space_atomic(ctx, common, gpa(OFFSET), ATOMIC_OR, bit, &old, NULL));
        REQUIRE((old & bit) == 0);
        REQUIRE_OK(space_atomic(ctx, common, gpa(OFFSET), ATOMIC_AND, ~bit, &old, NULL));
        REQUIRE((old & bit) != 0);
        host_poll(ctx);
    }
    host_cpu_detach(cpu);
    return NULL;
}

/* A guest's locked instructions on a word of memory; both of its bits are as it left them. */
static void *change_as_a_guest(void *at)
{
    uint64_t *value = at;
    for (unsigned i = 0; i < 100 * ROUNDS; i++) {
        uint64_t old = __atomic_fetch_or(value, 2, __ATOMIC_SEQ_CST);
        REQUIRE((old & 2) == 0);
        old = __atomic_fetch_and(value, ~UINT64_C(2), __ATOMIC_SEQ_CST);
        REQUIRE((old & 2) != 0);
    }
    __atomic_fetch_or(value, 4, __ATOMIC_SEQ_CST);
    return NULL;
}

/* The guest itself changes other bits of the word at the same time. */
TEST(no_change_of_the_guest_is_lost)
{
    pthread_t thread;
    scene_start(0);
    struct space *space = scene_space();
    scene_region(space, 0, 1, REGION_PRIVATE, RIGHT_ALL, 0);
    CHECK_EQ(change(space, 0, ATOMIC_OR, 0), 0);
    unsigned char *at = frame_address(scene_lookup(space, 0).frame);
    REQUIRE(pthread_create(&thread, NULL, change_as_a_guest, at + OFFSET) == 0);
    uint64_t old = 0;
    while ((old & 4) == 0) {
        old = change(space, 0, ATOMIC_OR, 1);
        REQUIRE((old & 1) == 0);
        old = change(space, 0, ATOMIC_AND, ~UINT64_C(1));
        REQUIRE((old & 1) != 0);
    }
    REQUIRE(pthread_join(thread, NULL) == 0);
    CHECK_EQ(word(space, 0), 4);
    scene_end();
}

/* Meanwhile the page is shared with forks again and again, and copied. */
TEST(no_change_is_lost_in_copies)
{
    pthread_t thread[CHANGERS];
    const unsigned changers = alloc_running() ? 0 : CHANGERS; /* they could not go on */
    scene_start(0);
    common = scene_space();
    scene_region(common, 0, 4, REGION_PRIVATE, RIGHT_ALL, 0);
    scene_write(common, 0, 0);
    host_cpu_stop(scene_cpu(common)); /* whose CPU is a thread's from here on */
    for (uintptr_t i = 0; i < changers; i++) {
        REQUIRE(pthread_create(&thread[i], NULL, change_own_bit, (void *)i) == 0);
    }
    for (unsigned i = 0; i < 50; i++) {
        struct space *child = scene_fork(common);
        uint64_t seen = word(child, 0);
        CHECK_EQ(seen & ~UINT64_C(6), word(common, 0) & ~UINT64_C(6));
        scene_destroy(child);
    }
    for (unsigned i = 0; i < changers; i++) {
        REQUIRE(pthread_join(thread[i], NULL) == 0);
    }
    CHECK_EQ(word(common, 0) & 6, 0);
    scene_end();
}
