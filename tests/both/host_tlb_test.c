/* SPDX-License-Identifier: BSD-2-Clause */
/* The hosted port's CPUs, model TLB and monitor, on tables made by hand with bits from the manuals.
 */
#include "test.h"

#include <pthread.h>
#include <string.h>

#include "frame.h"
#include "host.h"

/* Entry bits, written out once more: neither the core's nor the model's names are used. */
struct bits {
    uint64_t table, leaf, write, exec, huge, accessed, dirty;
};
static const struct bits ept_bits = {0x5, 0x31 | 0x4, 0x2, 0x4, 0x80, 0x100, 0x200};
static const struct bits npt_bits = {0x5, 0x5, 0x2, 0, 0x80, 0x20, 0x40};

/* A space whose tables are made by hand, down to `level`, on the path to page `at`. */
struct hand {
    const struct bits *bits;
    struct space *space;
    gpa_t at;
    pfn_t table[TABLE_LEVELS]; /* by level of their entries */
    pfn_t frame;               /* what the leaf maps */
};

static pte_t *hand_slot(const struct hand *h, unsigned level)
{
    return &((pte_t *)frame_address(h->table[level]))[level_slot(gpa_to_gfn(h->at), level)];
}

static pte_t hand_leaf(const struct hand *h, pfn_t frame, unsigned level)
{
    return h->bits->leaf | h->bits->write | (uint64_t)frame.v << 12 |
           (level > 0 ? h->bits->huge : 0);
}

static pte_t hand_table(const struct hand *h, pfn_t table)
{
    return h->bits->table | h->bits->write | (uint64_t)table.v << 12;
}

static struct hand hand_make(bool npt, unsigned level)
{
    host_start(&(struct host_options){.frames = 8 * level_pages(2),
                                      .format = npt ? &npt_format : &ept_format});
    struct hand h = {.bits = npt ? &npt_bits : &ept_bits};
    h.at = gpa(GUEST_PAGES / 2 * PAGE_SIZE + level_size(2) + level_size(1) + PAGE_SIZE);
    h.space = frame_address(host_take(1, 0));
    h.space->state = SPACE_ALIVE;
    h.space->id = 7;
    h.space->generation = 1;
    h.space->payer.pool = host_pool(4 * level_size(1)); /* no regions: faults find nothing */
    h.space->collapse_hint = gfn(UINT64_MAX);
    for (unsigned l = ROOT_LEVEL;; l--) {
        h.table[l] = host_take(1, 0);
        if (l < ROOT_LEVEL) {
            *hand_slot(&h, l + 1) = hand_table(&h, h.table[l]);
        }
        if (l == level) {
            break;
        }
    }
    h.space->root = h.table[ROOT_LEVEL];
    h.frame = host_take(level_pages(level), level);
    *hand_slot(&h, level) = hand_leaf(&h, h.frame, level);
    return h;
}

static void run(const struct hand *h) { REQUIRE_OK(host_cpu_run(1, h->space)); }

static void fill(pfn_t frame, int byte) { memset(frame_address(frame), byte, PAGE_SIZE); }

static int read_byte(const struct hand *h)
{
    unsigned char byte = 0;
    CHECK_OK(host_cpu_read(1, h->at, &byte, 1));
    return byte;
}

static const struct walk_case {
    const char *label;
    bool npt;
    unsigned level;
} walk_cases[] = {
    {"ept-4K", false, 0}, {"ept-2M", false, 1}, {"ept-1G", false, 2},
    {"npt-4K", true, 0},  {"npt-2M", true, 1},  {"npt-1G", true, 2},
};

TEST_TABLE(walk, walk_cases)
{
    struct hand h = hand_make(row->npt, row->level);
    uint64_t page = h.at.v >> PAGE_SHIFT & (level_pages(row->level) - 1);
    struct host_walk walk = host_walk(h.space->root, h.at);

    CHECK(walk.present);
    CHECK_EQ(walk.level, row->level);
    CHECK_EQ(walk.frame, h.frame.v + page);
    CHECK_EQ(walk.rights, RIGHT_ALL);
    CHECK(walk.slot[row->level] == hand_slot(&h, row->level));

    run(&h);
    CHECK_OK(host_cpu_write(1, h.at, "abc", 3));
    CHECK_BYTES((char *)frame_address(pfn_add(h.frame, page)), "abc", 3);
    CHECK_EQ(read_byte(&h), 'a');
    CHECK(*hand_slot(&h, row->level) & h.bits->dirty);
    for (unsigned l = row->level; l <= ROOT_LEVEL; l++) {
        CHECK(*hand_slot(&h, l) & h.bits->accessed);
        CHECK(l == row->level || !(*hand_slot(&h, l) & h.bits->dirty));
    }
    host_tlb_check();

    *hand_slot(&h, ROOT_LEVEL) &= ~h.bits->write;
    CHECK_EQ(host_walk(h.space->root, h.at).rights, RIGHT_READ | RIGHT_EXEC);
    *hand_slot(&h, row->level) = 0;
    CHECK(!host_walk(h.space->root, h.at).present);
    host_stop();
}

/* What the core's formats say must be what the hardware reads. */
TEST_TABLE(agrees_with_core, walk_cases)
{
    struct hand h = hand_make(row->npt, row->level);
    static const unsigned rights[] = {RIGHT_READ, RIGHT_READ | RIGHT_WRITE, RIGHT_READ | RIGHT_EXEC,
                                      RIGHT_ALL};

    for (unsigned i = 0; i < 4; i++) {
        *hand_slot(&h, row->level) = pte_make_leaf(h.frame, row->level, rights[i], PTE_SHARED);
        for (unsigned l = row->level + 1; l <= ROOT_LEVEL; l++) {
            *hand_slot(&h, l) = pte_with_write(pte_make_table(h.table[l - 1]));
        }
        CHECK_EQ(host_walk(h.space->root, h.at).rights, rights[i]);
        *hand_slot(&h, ROOT_LEVEL) = pte_make_table(h.table[ROOT_LEVEL - 1]);
        CHECK_EQ(host_walk(h.space->root, h.at).rights, rights[i] & ~(unsigned)RIGHT_WRITE);
    }
    *hand_slot(&h, row->level) = pte_make_paged(UINT64_C(0x1234567));
    CHECK(!host_walk(h.space->root, h.at).present);
}

/* --- Entries that no CPU accepts -------------------------------------------------------------- */

static struct hand broken_hand;
static void walk_broken(void *arg)
{
    (void)arg;
    (void)host_walk(broken_hand.space->root, broken_hand.at);
}

static const struct broken_case {
    const char *label;
    bool npt;
    unsigned level; /* of the entry that is spoilt */
    uint64_t flip;
    const char *text;
} broken_cases[] = {
    {"ept-write-only", false, 0, 0x1, "write without read"},
    {"ept-execute-only", false, 0, 0x3, "execute-only"},
    {"ept-memory-type", false, 0, 0x8, "memory type"},
    {"ept-table-bits", false, 2, 0x8, "reserved bits"},
    {"ept-root-huge", false, ROOT_LEVEL, 0x80, "reserved bits"},
    {"ept-huge-address", false, 1, 0x1000, "address bits"},
    {"npt-supervisor", true, 0, 0x4, "supervisor"},
    {"npt-supervisor-table", true, 2, 0x4, "supervisor"},
    {"npt-root-huge", true, ROOT_LEVEL, 0x80, "bit 7"},
    {"npt-huge-address", true, 2, 0x2000, "address bits"},
    {"npt-past-memory", true, 0, UINT64_C(1) << 50, "past all memory"},
    {"ept-l1tf", false, 0, 0x7, "names memory"},
    {"npt-l1tf", true, 1, 0x1, "names memory"},
};

TEST_TABLE(refuses, broken_cases)
{
    bool table = row->level == ROOT_LEVEL || strstr(row->label, "table") != NULL;
    broken_hand = hand_make(row->npt, table ? 0 : row->level);
    CHECK(!host_expect_panic(walk_broken, NULL));
    *hand_slot(&broken_hand, row->level) ^= row->flip;
    CHECK(host_expect_panic(walk_broken, NULL));
    CHECK(strstr(host_panic_text(), row->text) != NULL);
}

/* --- Stale translations ----------------------------------------------------------------------- */

TEST_TABLE(stale_leaf, walk_cases)
{
    struct hand h = hand_make(row->npt, row->level);
    pfn_t other = host_take(level_pages(row->level), row->level);
    uint64_t page = h.at.v >> PAGE_SHIFT & (level_pages(row->level) - 1);

    host_enable_tlb(true);
    fill(pfn_add(h.frame, page), 'o');
    fill(pfn_add(other, page), 'n');
    run(&h);
    CHECK_EQ(read_byte(&h), 'o');
    *hand_slot(&h, row->level) = hand_leaf(&h, other, row->level);
    CHECK_EQ(read_byte(&h), 'o');
    CHECK_OK(host_cpu_write(1, h.at, "w", 1));
    CHECK_EQ(*(char *)frame_address(pfn_add(h.frame, page)), 'w');
    CHECK_EQ(*(char *)frame_address(pfn_add(other, page)), 'n');
    CHECK_EQ(host_counters().stale, 2);

    host_tlb_mode(HOST_TLB_FRESH);
    CHECK_EQ(read_byte(&h), 'n');
    host_tlb_mode(HOST_TLB_STALE);
    port_flush_local(host_ctx(0), h.space->root); /* another CPU's flush is no help */
    CHECK_EQ(read_byte(&h), 'w');
    port_flush_local(host_ctx(1), pfn(h.space->root.v + 1)); /* nor another root's */
    CHECK_EQ(read_byte(&h), 'w');
    port_flush_local(host_ctx(1), h.space->root);
    CHECK_EQ(read_byte(&h), 'n');
}

/* A page that is gone stays readable, a write right that was taken stays usable. */
TEST(stale_absent_and_write)
{
    struct hand h = hand_make(false, 0);

    host_enable_tlb(true);
    fill(h.frame, 'o');
    run(&h);
    host_tlb_prefetch(1, h.at);
    *hand_slot(&h, 0) &= ~h.bits->write;
    CHECK_OK(host_cpu_write(1, h.at, "w", 1));
    *hand_slot(&h, 0) = 0;
    CHECK_EQ(read_byte(&h), 'w');
    CHECK_EQ(host_counters().faults, 0);
}

/* A remembered table is walked on from, through what it holds now. */
TEST_TABLE(stale_table, walk_cases)
{
    struct hand h = hand_make(row->npt, row->level);
    pfn_t late = host_take(level_pages(row->level), row->level);
    uint64_t page = h.at.v >> PAGE_SHIFT & (level_pages(row->level) - 1);
    pfn_t copy = host_take(1, 0);
    struct hand old = h;

    host_enable_tlb(true);
    fill(pfn_add(h.frame, page), 'o');
    fill(pfn_add(late, page), 'l');
    run(&h);
    CHECK_EQ(read_byte(&h), 'o');
    /* The table is replaced by a copy; later somebody changes the old one. */
    memcpy(frame_address(copy), frame_address(h.table[row->level]), PAGE_SIZE);
    *hand_slot(&h, row->level + 1) = hand_table(&h, copy);
    h.table[row->level] = copy;
    host_tlb_check(); /* the same frames with the same rights: nothing wrong yet */
    CHECK_EQ(read_byte(&h), 'o');
    *hand_slot(&old, row->level) = hand_leaf(&h, late, row->level);
    CHECK_EQ(read_byte(&h), 'l');
    port_flush_local(host_ctx(1), h.space->root);
    CHECK_EQ(read_byte(&h), 'o');
}

/* Rights are those of the whole walk: a write bit beneath a read-only table was never usable, also
 * when the table's entry gets its write bit back after the leaf has lost its own. */
TEST(rights_of_one_walk)
{
    struct hand h = hand_make(false, 0);

    host_enable_tlb(true);
    *hand_slot(&h, 2) &= ~h.bits->write;
    run(&h);
    host_tlb_prefetch(1, h.at);
    *hand_slot(&h, 0) &= ~h.bits->write;
    host_tlb_prefetch(1, h.at);
    *hand_slot(&h, 2) |= h.bits->write;
    host_tlb_prefetch(1, h.at);
    host_tlb_check();
    CHECK_EQ(host_walk(h.space->root, h.at).rights, RIGHT_READ | RIGHT_EXEC);
    CHECK_STATUS(host_cpu_write(1, h.at, "w", 1), CLEAVE_FAULT);
    CHECK_EQ(host_counters().faults, 1);
}

static void check_tlb(void *arg)
{
    (void)arg;
    host_tlb_check();
}

TEST(check_finds_stale)
{
    struct hand h = hand_make(true, 0);

    host_enable_tlb(true);
    run(&h);
    (void)read_byte(&h);
    *hand_slot(&h, 0) &= ~h.bits->write;
    CHECK(host_expect_panic(check_tlb, NULL));
    CHECK(strstr(host_panic_text(), "stale translation") != NULL);
    host_cpu_stop(1);
    CHECK(host_expect_panic(check_tlb, NULL)); /* it may come back without a flush */
    h.space->generation++;
    CHECK(!host_expect_panic(check_tlb, NULL)); /* it flushes when it does */
    run(&h);
    CHECK_EQ(host_counters().flushes, 2);
    host_tlb_check();
    CHECK_EQ(host_tlb_entries(1, h.space->root), 0);
}

/* RANDOM mixes old and new, and a spurious fault of it ends. */
TEST(random_mode)
{
    struct hand h = hand_make(false, 0);
    pfn_t other = host_take(1, 0);
    unsigned old = 0;

    host_enable_tlb(true);
    fill(h.frame, 'o');
    fill(other, 'n');
    run(&h);
    host_tlb_mode(HOST_TLB_RANDOM);
    (void)read_byte(&h);
    *hand_slot(&h, 0) = hand_leaf(&h, other, 0);
    for (unsigned i = 0; i < 100; i++) {
        old += read_byte(&h) == 'o';
    }
    CHECK(old > 10 && old < 90);
}

/* What an entry held between two changes may have been read by a CPU that did not access it then.
 */
TEST(speculation)
{
    TEST_NEEDS_HOOKS();
    static const enum host_speculation modes[] = {HOST_SPECULATE_NONE, HOST_SPECULATE_RECENT,
                                                  HOST_SPECULATE_ALL};
    for (unsigned i = 0; i < (GUEST_PAGES <= 4096 ? 3 : 2); i++) {
        struct hand h = hand_make(false, 0);
        pfn_t between = host_take(1, 0), last = host_take(1, 0);
        test_case("speculation %u", i);
        fill(h.frame, 'o');
        fill(between, 'b');
        fill(last, 'n');
        host_speculation(modes[i]);
        run(&h);
        if (i == 1) {
            (void)read_byte(&h);
            port_flush_local(host_ctx(1), h.space->root);
        }
        *hand_slot(&h, 0) = hand_leaf(&h, between, 0);
        pte_t now = *hand_slot(&h, 0);
        CHECK(pte_replace(host_ctx(0), hand_slot(&h, 0), now, hand_leaf(&h, last, 0)));
        CHECK_EQ(read_byte(&h), i == 0 ? 'n' : 'b');
    }
}

/* --- Accesses --------------------------------------------------------------------------------- */

TEST(crosses_pages)
{
    struct hand h = hand_make(false, 1);
    unsigned char out[300], in[300];
    gpa_t at = gpa((h.at.v & ~(level_size(1) - 1)) + 2 * PAGE_SIZE - 150);

    run(&h);
    for (unsigned i = 0; i < sizeof(out); i++) {
        out[i] = (unsigned char)(i * 7);
    }
    CHECK_OK(host_cpu_write(1, at, out, sizeof(out)));
    CHECK_OK(host_cpu_read(1, at, in, sizeof(in)));
    CHECK_BYTES(in, out, sizeof(out));
    CHECK_BYTES((unsigned char *)frame_address(h.frame) + 2 * PAGE_SIZE - 150, out, sizeof(out));
    CHECK_EQ(host_counters().accesses, 4);
}

TEST(reports_what_is_not_there)
{
    struct hand h = hand_make(false, 0);
    char byte;

    CHECK_STATUS(host_cpu_read(1, h.at, &byte, 1), CLEAVE_DYING); /* runs nothing */
    run(&h);
    CHECK_STATUS(host_cpu_read(1, gpa(h.at.v + PAGE_SIZE), &byte, 1), CLEAVE_FAULT);
    CHECK(host_cpu_read(1, gpa(UINT64_C(1) << GUEST_BITS), &byte, 1) != CLEAVE_OK);
    CHECK_OK(host_cpu_access(1, h.at, ACCESS_EXEC, &byte, 1));
}

/* --- The monitor ------------------------------------------------------------------------------ */

struct drop {
    struct hand *hand;
    enum port_point point;
    uint64_t frame, b;
};

static void drop(void *arg)
{
    const struct drop *d = arg;
    struct mm_ctx *ctx = host_ctx(0);
    if (d->point == POINT_DROP) {
        port_point(ctx, POINT_FLUSHED, (uint64_t)(uintptr_t)d->hand->space, 1);
    }
    port_point(ctx, d->point, d->frame, d->b);
}

TEST_TABLE(drop_before_flush, walk_cases)
{
    TEST_NEEDS_HOOKS();
    struct hand h = hand_make(row->npt, row->level);
    struct drop d = {&h, POINT_DROP, h.frame.v, row->level};

    run(&h);
    (void)read_byte(&h);
    CHECK(!host_expect_panic(drop, &d)); /* the tables still say so: another reference of theirs */
    *hand_slot(&h, row->level) = 0;
    CHECK(host_expect_panic(drop, &d));
    CHECK(strstr(host_panic_text(), "dropped before the flush") != NULL);
    d.frame = h.table[row->level].v;
    d.b = HOST_TABLE;
    CHECK(!host_expect_panic(drop, &d));
    *hand_slot(&h, row->level + 1) = 0;
    CHECK(host_expect_panic(drop, &d));
    CHECK(strstr(host_panic_text(), "table") != NULL);

    struct flush_batch batch;
    flush_begin(&batch, h.space);
    flush_need(&batch);
    host_log_clear();
    flush_finish(host_ctx(0), &batch);
    CHECK(!host_expect_panic(drop, &d));
    CHECK(host_log_ordered(POINT_FLUSH, HOST_KICK));
    CHECK(host_log_ordered(HOST_KICK, HOST_ACKNOWLEDGE));
    CHECK(host_log_ordered(HOST_ACKNOWLEDGE, HOST_FLUSH));
    CHECK(host_log_ordered(HOST_FLUSH, POINT_DROP));
    CHECK(!host_log_ordered(POINT_DROP, HOST_FLUSH));
    CHECK_EQ(host_log_count(HOST_KICK), 1);
}

/* Freed is freed: also what the tables still say, a part of a block, and a CPU that may come back.
 */
TEST_TABLE(free_before_flush, walk_cases)
{
    TEST_NEEDS_HOOKS();
    struct hand h = hand_make(row->npt, row->level);
    uint64_t last = h.frame.v + level_pages(row->level) - 1;
    struct drop d = {&h, POINT_FREE, last, 0};

    run(&h);
    (void)read_byte(&h);
    CHECK(host_expect_panic(drop, &d));
    CHECK(strstr(host_panic_text(), "freed before the flush") != NULL);
    d.frame = h.table[ROOT_LEVEL - 1].v;
    CHECK(host_expect_panic(drop, &d));
    host_cpu_stop(1);
    CHECK(host_expect_panic(drop, &d));
    h.space->generation++;
    CHECK(!host_expect_panic(drop, &d));
}

TEST(poison)
{
    TEST_NEEDS_HOOKS();
    (void)hand_make(false, 0);
    pfn_t block = host_take(level_pages(1), 1);
    unsigned char *bytes = frame_address(block);

    bytes[0] = 1;
    port_point(host_ctx(0), POINT_FREE, block.v, 1);
    CHECK_EQ(bytes[0], HOST_POISON);
    CHECK_EQ(bytes[PAGE_SIZE - 1], HOST_POISON);
    if (level_size(1) > 4096 * 8) {
        CHECK_EQ(bytes[level_size(1) / 2], 0); /* never touched, so left alone */
    }
    host_poison(false);
    bytes[0] = 1;
    port_point(host_ctx(0), POINT_FREE, block.v, 0);
    CHECK_EQ(bytes[0], 1);
}

static void visit_point(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b,
                        void *arg)
{
    (void)b;
    *(uint64_t *)arg += a;
    port_point(ctx, point, 1000, 0); /* is not reported from within */
}

TEST(on_point)
{
    TEST_NEEDS_HOOKS();
    uint64_t sum = 0;
    (void)hand_make(false, 0);
    host_on_point(visit_point, &sum);
    port_point(host_ctx(0), POINT_COPY, 5, 0);
    port_point(host_ctx(0), POINT_COPIED, 6, 0);
    host_on_point(NULL, NULL);
    port_point(host_ctx(0), POINT_COPY, 7, 0);
    CHECK_EQ(sum, 11);
}

/* --- Threads ---------------------------------------------------------------------------------- */

#define THREAD_ROUNDS 500

struct worker {
    unsigned cpu;
    unsigned *left;
    const struct hand *hand;
};

/* Reads, and flushes all the others, who must not keep it waiting. */
static void *work(void *arg)
{
    const struct worker *w = arg;
    struct mm_ctx *ctx = host_ctx(w->cpu);

    host_cpu_attach(w->cpu);
    CHECK_OK(host_cpu_run(w->cpu, w->hand->space));
    for (unsigned i = 0; i < THREAD_ROUNDS; i++) {
        unsigned char byte;
        struct flush_batch batch;
        CHECK_OK(host_cpu_read(w->cpu, w->hand->at, &byte, 1));
        flush_begin(&batch, w->hand->space);
        flush_need(&batch);
        flush_finish(ctx, &batch);
        host_poll(ctx);
    }
    __atomic_fetch_sub(w->left, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(w->left, __ATOMIC_SEQ_CST) > 0) {
        port_relax(ctx);
    }
    host_cpu_stop(w->cpu);
    host_cpu_detach(w->cpu);
    return NULL;
}

TEST(threads_acknowledge)
{
    struct hand h = hand_make(false, 0);
    unsigned left = 3;
    struct worker worker[3];
    pthread_t thread[3];

    for (unsigned i = 0; i < 3; i++) {
        worker[i] = (struct worker){i, &left, &h};
        REQUIRE_EQ(pthread_create(&thread[i], NULL, work, &worker[i]), 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        REQUIRE_EQ(pthread_join(thread[i], NULL), 0);
    }
    CHECK_EQ(h.space->generation, 1 + 3 * THREAD_ROUNDS);
    CHECK_EQ(host_counters().accesses, 3 * THREAD_ROUNDS);
}

/* --- The machine ------------------------------------------------------------------------------ */

TEST(terabyte_costs_nothing)
{
    host_start(&(struct host_options){.frames = (UINT64_C(1) << 40) / PAGE_SIZE < UINT32_MAX
                                                    ? (UINT64_C(1) << 40) / PAGE_SIZE
                                                    : UINT64_C(1) << 24,
                                      .cpus = 1});
    pfn_t top = host_take(level_pages(2), 2);
    CHECK_EQ(top.v % level_pages(2), 0);
    CHECK(top.v != 0);
    *(char *)frame_address(pfn((uint32_t)(machine.frames - 1))) = 1;
    host_stop();
    host_stop();
}

TEST(counts_and_fails_allocations)
{
    host_start(NULL);
    host_fail_allocation(3);
    CHECK(!port_refuse_allocation());
    CHECK(!port_refuse_allocation());
    CHECK(!host_allocation_failed());
    CHECK(port_refuse_allocation());
    CHECK(!port_refuse_allocation());
    CHECK(host_allocation_failed());
    CHECK_EQ(host_allocations(), 4);

    unsigned char *at = frame_address(pfn(8));
    memset(at, 7, PAGE_SIZE);
    port_copy_pages(at + PAGE_SIZE, at, 1);
    CHECK_EQ(at[2 * PAGE_SIZE - 1], 7);
    port_zero_pages(at, 2);
    CHECK_EQ(at[0] + at[2 * PAGE_SIZE - 1], 0);
    CHECK_EQ(host_counters().bytes_copied, PAGE_SIZE);
    CHECK_EQ(host_counters().bytes_zeroed, 2 * PAGE_SIZE);

    host_seed(5);
    uint64_t a = port_random();
    host_seed(5);
    CHECK_EQ(port_random(), a);
    CHECK_NE(port_random(), a);
}

static enum cleave_status count_down(struct mm_ctx *ctx, void *arg)
{
    unsigned *left = arg;
    while (*left > 0 && mm_spend(ctx, 1)) {
        --*left;
    }
    return *left > 0 ? CLEAVE_AGAIN : CLEAVE_BUSY;
}

TEST(runs_preempted)
{
    unsigned left = 100;
    enum cleave_status status;
    host_start(NULL);
    CHECK_EQ(host_run_preempted(host_ctx(0), count_down, &left, 7, &status), 15);
    CHECK_STATUS(status, CLEAVE_BUSY);
    CHECK_EQ(host_ctx(0)->budget, UINT64_MAX);
}

TEST_PANICS(panic_ends_the_test, "something is wrong")
{
    host_start(NULL);
    port_panic("file.c", 1, "something is wrong");
}

TEST_PANICS(waits_for_ever, "waits for ever")
{
    struct spinlock lock = {1};
    host_start(NULL);
    spin_lock(host_ctx(0), &lock, RANK_POOL);
}
