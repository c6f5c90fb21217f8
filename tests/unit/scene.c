/* SPDX-License-Identifier: BSD-2-Clause */
/* The machine, the shapes, the pages and the audit that tests of the memory core share. */
#include "scene.h"

#include <stdlib.h>
#include <string.h>

#include "audit.h"

struct scene scene;

static unsigned next_cpu; /* takes the next space that is to run */
static pfn_t *drained;

/* --- The machine ------------------------------------------------------------------------------ */

void scene_start_with(uint64_t blocks, const struct host_options *options)
{
    struct host_options o = options ? *options : (struct host_options){0};

    blocks = blocks ? blocks : TABLE_ENTRIES > 4 ? 24 : 96;
    uint64_t pages = blocks * BLOCK;
    o.frames += (pages + GIGA - 1) / GIGA * GIGA + 2 * GIGA;
    host_start(&o);
    scene = (struct scene){.ctx = host_ctx(0), .pool = host_pool(BYTES(pages))};
    next_cpu = 0;
}

void scene_start(uint64_t blocks) { scene_start_with(blocks, NULL); }

/* --- Memory ----------------------------------------------------------------------------------- */

struct space *scene_space(void)
{
    struct space *space = NULL;
    REQUIRE_OK(space_create(scene.ctx, scene.pool, UINT64_MAX, &space));
    space->collapse_at = 0;
    return space;
}

void scene_region(struct space *space, uint64_t page, uint64_t pages, enum region_policy policy,
                  unsigned rights, unsigned order)
{
    const struct region region = {
        .policy = policy, .rights = (uint8_t)rights, .order = (uint8_t)order};
    REQUIRE_OK(space_set_region(scene.ctx, space, PAGE(page), BYTES(pages), &region));
}

/* A 1 GiB leaf as space_map() makes it, but for the zeroing. */
static void map_giant(struct space *space, uint64_t page)
{
    const struct region region = {.policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 2};
    struct gfn_range range = {gfn(page), gfn(page + GIGA)};
    struct flush_batch batch;
    struct walk walk;
    pfn_t f;

    REQUIRE_OK(pool_alloc(scene.ctx, &space->payer, 2, FRAME_DATA, &f));
    flush_begin(&batch, space);
    REQUIRE_OK(walk_exclusive(scene.ctx, space, &space->payer, range.start, 2,
                              WALK_MAKE | WALK_WRITE, &batch, &walk));
    unsigned rights = machine.huge_exec ? RIGHT_ALL : RIGHT_READ | RIGHT_WRITE;
    *walk.slot = pte_make_leaf(f, 2, rights, 0);
    frame_set_rmap(f, 2, walk.table, level_slot(range.start, 2));
    walk_end(scene.ctx, &walk);
    flush_finish(scene.ctx, &batch);
    REQUIRE_OK(region_set(scene.ctx, &space->payer, &space->regions, range, &region));
}

void scene_memory(struct space *space, uint64_t page, uint64_t pages, unsigned order)
{
    if (order == 2) {
        for (uint64_t i = 0; i < pages; i += GIGA) {
            map_giant(space, page + i);
        }
        return;
    }
    scene_region(space, page, pages, REGION_PRIVATE, RIGHT_ALL, order);
    REQUIRE_OK(space_populate(scene.ctx, space, PAGE(page), BYTES(pages)));
}

/* Makes 4 KiB leaves of what maps `page`, copying nothing. */
static void cut(struct space *space, uint64_t page)
{
    REQUIRE_OK(space_protect(scene.ctx, space, PAGE(page), BYTES(1), RIGHT_READ | RIGHT_WRITE));
    REQUIRE_OK(space_protect(scene.ctx, space, PAGE(page), BYTES(1), RIGHT_ALL));
}

static void fill_samples(void)
{
    uint64_t sample[SCENE_SAMPLES];
    unsigned n = scene_samples(sample);
    for (unsigned i = 0; i < n; i++) {
        scene_write(scene.space, sample[i], SCENE_TAG(sample[i]));
    }
}

void scene_shape_with(enum shape shape, const struct host_options *options)
{
    bool giant = shape == SHAPE_1G || shape == SHAPE_SPLIT_1G;
    uint64_t spare = TABLE_ENTRIES > 4 ? 24 : 96;

    scene_start_with(giant ? 2 * TABLE_ENTRIES + spare : 0, options);
    scene.base = GIGA;
    scene.pages = giant ? GIGA : 2 * BLOCK;
    scene.space = scene_space();
    scene_memory(scene.space, scene.base, scene.pages, shape == SHAPE_4K ? 0 : giant ? 2 : 1);
    fill_samples();
    switch (shape) {
    case SHAPE_4K:
    case SHAPE_2M:
    case SHAPE_1G:
        break;
    case SHAPE_SPLIT_2M:
        cut(scene.space, scene.base);
        cut(scene.space, scene.base + 2 * BLOCK - 1);
        break;
    case SHAPE_SPLIT_1G:
        cut(scene.space, scene.base + BLOCK + 1);
        break;
    case SHAPE_PARTLY:
        scene.other = scene_fork(scene.space);
        for (uint64_t i = 0; i < BLOCK / 2; i++) {
            scene_write(scene.space, scene.base + i, SCENE_TAG(scene.base + i));
        }
        break;
    }
    scene_audit();
}

void scene_shape(enum shape shape) { scene_shape_with(shape, NULL); }

unsigned scene_samples(uint64_t sample[SCENE_SAMPLES])
{
    const uint64_t last = scene.pages - 1;
    const uint64_t wanted[SCENE_SAMPLES] = {
        0,        1,         BLOCK / 2 - 1, BLOCK / 2, BLOCK - 1,
        BLOCK,    BLOCK + 1, 2 * BLOCK - 1, GIGA / 2,  last - BLOCK + 1,
        last - 1, last};
    unsigned n = 0;

    for (unsigned i = 0; i < SCENE_SAMPLES; i++) {
        bool known = wanted[i] > last;
        for (unsigned k = 0; k < n; k++) {
            known = known || sample[k] == scene.base + wanted[i];
        }
        if (!known) {
            sample[n++] = scene.base + wanted[i];
        }
    }
    return n;
}

struct space *scene_fork(struct space *parent)
{
    const struct fork_options options = {.limit = UINT64_MAX};
    struct space *child = NULL;
    REQUIRE_OK(space_fork(scene.ctx, parent, 1, &options, &child));
    return child;
}

struct space *scene_snapshot(struct space *space)
{
    struct space *snapshot = NULL;
    REQUIRE_OK(space_snapshot(scene.ctx, space, UINT64_MAX, &snapshot));
    return snapshot;
}

void scene_destroy(struct space *space) { REQUIRE_OK(space_destroy(scene.ctx, space)); }

/* --- Accesses --------------------------------------------------------------------------------- */

unsigned scene_cpu(struct space *space)
{
    for (unsigned i = 1; i < machine.cpus; i++) {
        if (flush_running(i) == space) {
            return i;
        }
    }
    unsigned cpu = 1 + next_cpu++ % (machine.cpus - 1);
    REQUIRE_OK(host_cpu_run(cpu, space));
    return cpu;
}

void scene_page(unsigned char *bytes, uint64_t tag)
{
    for (uint64_t i = 0; i < PAGE_SIZE; i += 8) {
        uint64_t word = tag ? tag * UINT64_C(0x9e3779b97f4a7c15) + i : 0;
        memcpy(bytes + i, &word, 8);
    }
}

void scene_write(struct space *space, uint64_t page, uint64_t tag)
{
    unsigned char bytes[PAGE_SIZE];
    scene_page(bytes, tag);
    REQUIRE_OK(host_cpu_write(scene_cpu(space), PAGE(page), bytes, PAGE_SIZE));
}

static void compare(const unsigned char *found, uint64_t page, uint64_t tag, const char *how)
{
    unsigned char wanted[PAGE_SIZE];
    scene_page(wanted, tag);
    if (memcmp(found, wanted, PAGE_SIZE) != 0) {
        test_case("page %#llx read by %s, tag %#llx", (unsigned long long)page, how,
                  (unsigned long long)tag);
        CHECK_BYTES(found, wanted, PAGE_SIZE);
        test_case("%s", "");
    } else {
        CHECK(true);
    }
}

void scene_look(struct space *space, uint64_t page, uint64_t tag)
{
    unsigned char found[PAGE_SIZE];
    REQUIRE_OK(space_read(scene.ctx, space, PAGE(page), found, PAGE_SIZE, NULL));
    compare(found, page, tag, "space_read()");
}

void scene_check(struct space *space, uint64_t page, uint64_t tag)
{
    unsigned char found[PAGE_SIZE];
    scene_look(space, page, tag);
    if (space->state == SPACE_ALIVE) {
        REQUIRE_OK(host_cpu_read(scene_cpu(space), PAGE(page), found, PAGE_SIZE));
        compare(found, page, tag, "its guest");
    }
}

enum cleave_status scene_access(struct space *space, uint64_t page, enum access access)
{
    uint64_t word = 0;
    return host_cpu_access(scene_cpu(space), PAGE(page), access, &word, sizeof(word));
}

struct mapping scene_lookup(struct space *space, uint64_t page)
{
    struct mapping mapping = {0};
    REQUIRE_OK(space_lookup(scene.ctx, space, PAGE(page), &mapping));
    return mapping;
}

struct space_usage scene_usage(struct space *space)
{
    struct space_usage usage = {0};
    gfn_t from = gfn(0);
    REQUIRE_OK(space_usage(scene.ctx, space, &from, &usage));
    return usage;
}

/* --- An empty pool ---------------------------------------------------------------------------- */

void scene_drain(uint64_t leave)
{
    struct payer payer = {.pool = scene.pool};
    pfn_t f;

    drained = drained != NULL ? drained : calloc(scene.pool->frames, sizeof(*drained));
    /* The audit counts references to data; these frames are nobody's. */
    while (scene.pool->free - scene.pool->reserved > leave &&
           pool_alloc(scene.ctx, &payer, 0, FRAME_OBJECT, &f) == CLEAVE_OK) {
        drained[scene.drained++] = f;
    }
    REQUIRE_EQ(scene.pool->free - scene.pool->reserved, leave);
}

void scene_give_back(uint64_t frames)
{
    for (; frames > 0 && scene.drained > 0; frames--) {
        pfn_t f = drained[--scene.drained];
        REQUIRE(node_put(scene.ctx, f));
        pool_free(scene.ctx, f, 0);
    }
    if (scene.drained == 0) {
        free(drained);
        drained = NULL;
    }
}

/* --- Audit ------------------------------------------------------------------------------------ */

void scene_audit(void)
{
    struct pool *pool = scene.pool;
    struct audit_report report = {0};
    uint64_t bytes = audit_scratch_bytes(pool);
    void *scratch = calloc(1, bytes);
    uint64_t used = 0;

    REQUIRE(scratch != NULL);
    REQUIRE_OK(pool_audit(scene.ctx, pool, scratch, bytes, &report));
    free(scratch);
    if (report.invariant != 0) {
        host_fail("I%u: %s: space %u page %#llx level %u table %#x slot %u entry %#llx,"
                  " %llu expected, %llu found",
                  report.invariant, report.what, report.space, (unsigned long long)report.at.v,
                  report.level, report.table.v, report.slot, (unsigned long long)report.entry,
                  (unsigned long long)report.expected, (unsigned long long)report.found);
    }
    for (unsigned kind = 0; kind < FRAME_KINDS; kind++) {
        used += pool->kind[kind];
    }
    REQUIRE_EQ(pool->free + used, pool->frames);
    REQUIRE(pool->reserved <= pool->free);
    REQUIRE(pool->aside <= pool->free);
    host_check_locks();
    host_tlb_check();
}

void scene_end(void)
{
    scene_audit();
    for (unsigned i = 1; i < machine.cpus; i++) {
        host_cpu_stop(i);
    }
    while (scene.pool->spaces != NULL) {
        struct space *space = scene.pool->spaces;
        while (space != NULL && space->state == SPACE_FROZEN && space->holders > 1) {
            space = space->next; /* goes with its forks, or after them */
        }
        REQUIRE(space != NULL);
        REQUIRE_OK(space_destroy(scene.ctx, space));
    }
    scene_audit();
    while (scene.pool->channels != NULL) {
        channel_destroy(scene.ctx, scene.pool->channels);
    }
    CHECK_EQ(scene.pool->frames - scene.pool->free, scene.pool->kind[FRAME_OBJECT]);
    CHECK_EQ(scene.pool->reserved, 0);
    CHECK_EQ(scene.pool->aside, 0);
    CHECK_OK(pool_destroy(scene.ctx, scene.pool));
    host_stop();
}

/* --- State ------------------------------------------------------------------------------------ */

static uint64_t mix(uint64_t sum, uint64_t v)
{
    sum = (sum ^ v) * UINT64_C(0xff51afd7ed558ccd);
    return sum ^ sum >> 32;
}

static uint64_t hash_bytes(uint64_t sum, pfn_t f)
{
    uint64_t word[PAGE_SIZE / 8];
    memcpy(word, frame_address(f), PAGE_SIZE);
    for (uint64_t i = 0; i < PAGE_SIZE / 8; i++) {
        sum = mix(sum, word[i]);
    }
    return sum;
}

/* Entries and counts beneath a table, without what the hardware sets. */
static uint64_t hash_table(uint64_t sum, pfn_t table)
{
    unsigned level = table_level(table);
    sum = mix(mix(sum, table.v), node_count(table));
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        pte_t e = pte_read(&table_slots(table)[i]);
        sum = mix(sum, e & ~(pt_format.accessed | pt_format.dirty));
        if (pte_holds_table(e, level)) {
            sum = hash_table(sum, pte_pfn(e));
        } else if (pte_holds_leaf(e, level) && pte_counted(e)) {
            sum = mix(sum, frame_count(pte_pfn(e), level));
        }
    }
    return sum;
}

/* One page's bytes as its guest reads them. */
static uint64_t hash_page(uint64_t sum, struct space *space, uint64_t page)
{
    struct mapping m = scene_lookup(space, page);
    pte_t paged = pte_unpark(m.entry) & PTE_PAGED ? pte_unpark(m.entry) : 0;
    uint64_t kept = paged;
    if (m.frame.v != 0 && m.frame.v < machine.frames) { /* parked or not */
        kept = hash_bytes(0, m.frame);
    } else if (m.kind == PTE_KIND_ABSENT) {
        for (uint64_t i = 0; i < PAGE_SIZE / 8; i++) {
            kept = mix(kept, 0); /* a hole reads as zeros */
        }
    }
    return mix(mix(sum, page), kept);
}

/* One region, and the bytes of its pages; of a large one those of the samples alone. */
static uint64_t hash_extent(uint64_t sum, struct space *space, struct gfn_range range,
                            const struct region *region)
{
    uint64_t sample[SCENE_SAMPLES];
    unsigned samples = scene.pages != 0 ? scene_samples(sample) : 0;
    bool all = range.end.v - range.start.v <= 4 * 512;

    sum = mix(mix(mix(sum, region_pack(region)), range.start.v), range.end.v);
    for (uint64_t page = range.start.v; all && page < range.end.v; page++) {
        sum = hash_page(sum, space, page);
    }
    for (unsigned i = 0; i < samples && !all; i++) {
        if (sample[i] >= range.start.v && sample[i] < range.end.v) {
            sum = hash_page(sum, space, sample[i]);
        }
    }
    return sum;
}

static uint64_t hash_view(uint64_t sum, struct space *space)
{
    struct gfn_range whole = {gfn(0), gfn(0)};
    struct region region = {0};

    for (gfn_t at = gfn(0); at.v < GUEST_PAGES;) {
        struct gfn_range extent;
        struct region next = region_get_extent(space->regions, at, &extent);
        if (region_pack(&next) != region_pack(&region)) {
            if (region.policy != REGION_NONE) {
                sum = hash_extent(sum, space, whole, &region);
            }
            region = next;
            whole.start = extent.start;
        }
        whole.end = at = extent.end;
    }
    return region.policy != REGION_NONE ? hash_extent(sum, space, whole, &region) : sum;
}

struct scene_state scene_state(void)
{
    struct scene_state state = {.free = scene.pool->free, .reserved = scene.pool->reserved};

    for (struct space *s = scene.pool->spaces; s != NULL; s = s->next) {
        const uint64_t word[] = {s->id, s->state, s->op, s->holders, s->root.v, s->regions};
        for (unsigned i = 0; i < sizeof(word) / sizeof(word[0]); i++) {
            state.spaces = mix(state.spaces, word[i]);
        }
        state.view = mix(mix(state.view, s->id), s->state);
        if (s->state == SPACE_ALIVE || s->state == SPACE_FROZEN) {
            state.spaces = hash_table(state.spaces, s->root);
            state.view = hash_view(state.view, s);
        }
    }
    for (uint32_t i = 0; i <= scene.pool->accounts; i++) {
        const struct account *a = account_of(scene.pool, i);
        if (a->live || a->charged != 0) {
            state.charged = mix(mix(mix(state.charged, i), a->charged), a->limit);
        }
    }
    return state;
}
