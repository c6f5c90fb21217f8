/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The audit, against states that are made and then broken by hand: each row changes one thing, and
 * the audit must name exactly that invariant. What is legal and looks odd must pass.
 */
#include "audit.h"

#include <stdio.h>
#include <stdlib.h>

#include "foreign.h"
#include "host.h"
#include "table.h"
#include "test.h"

#define BLOCK level_pages(1)
#define GIGA level_pages(2)

/* Where things are in the spaces of the scene, in pages. */
#define PAGES 0u           /* three 4 KiB pages, private */
#define HUGE (BLOCK)       /* a 2 MiB leaf, private */
#define COMMON (2 * BLOCK) /* a page of a shared region */
#define MIXED (3 * BLOCK)  /* no leaf; private, then read-only */
#define GIANT (GIGA)       /* a 1 GiB leaf, private */
#define DEVICE (2 * GIGA)  /* a 2 MiB leaf of a device */
#define PAGED (2 * GIGA + BLOCK)
#define TWIN (3 * GIGA) /* a private region that is empty: place for second maps */

static struct mm_ctx *ctx;
static struct pool *pool;
static struct space *one;          /* alone */
static struct space *left, *right; /* share all their tables */
static pfn_t device;

/* --- Making the scene ------------------------------------------------------------------------- */

static const struct region private_region = {
    .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = 1};

static void set_region(struct space *space, uint64_t start, uint64_t pages,
                       const struct region *region)
{
    struct gfn_range range = {gfn(start), gfn(start + pages)};
    REQUIRE_OK(region_set(ctx, &space->payer, &space->regions, range, region));
}

static pfn_t fresh(struct space *space, unsigned order)
{
    pfn_t f;
    REQUIRE_OK(pool_alloc(ctx, &space->payer, order, FRAME_DATA, &f));
    return f;
}

/* The entry of `level` for page `at`; the path to it is made. */
static pte_t *entry_of(struct space *space, uint64_t at, unsigned level)
{
    struct flush_batch batch;
    struct walk walk;
    flush_begin(&batch, space);
    REQUIRE_OK(walk_exclusive(ctx, space, &space->payer, gfn(at), level, WALK_MAKE | WALK_WRITE,
                              &batch, &walk));
    walk_end(ctx, &walk);
    REQUIRE_EQ(walk.level, level);
    return walk.slot;
}

/* The entry of `level` for page `at`, as it stands. */
static pte_t *seen_at(struct space *space, uint64_t at, unsigned level)
{
    struct walk walk;
    walk_find(ctx, space, gfn(at), level, &walk);
    walk_end(ctx, &walk);
    REQUIRE_EQ(walk.level, level);
    return walk.slot;
}

static void put_leaf(struct space *space, uint64_t at, unsigned level, pfn_t f, unsigned rights,
                     pte_t mark)
{
    *entry_of(space, at, level) = pte_make_leaf(f, level, rights, mark);
}

static void fill_space(struct space *space)
{
    const struct region shared = {.policy = REGION_SHARED, .rights = RIGHT_ALL};
    const struct region read_only = {.policy = REGION_READ_ONLY, .rights = RIGHT_READ};
    const struct region io = {.policy = REGION_DEVICE, .rights = RIGHT_READ | RIGHT_WRITE};
    const struct region paged = {.policy = REGION_PAGED, .rights = RIGHT_ALL, .pager = 7};

    set_region(space, PAGES, BLOCK, &private_region);
    set_region(space, HUGE, BLOCK, &private_region);
    set_region(space, COMMON, BLOCK, &shared);
    set_region(space, MIXED, BLOCK / 2, &private_region);
    set_region(space, MIXED + BLOCK / 2, BLOCK / 2, &read_only);
    set_region(space, GIANT, GIGA, &private_region);
    set_region(space, PAGED, BLOCK, &paged);
    set_region(space, TWIN, GIGA, &private_region);
    for (unsigned i = 0; i < 3; i++) {
        put_leaf(space, PAGES + i, 0, fresh(space, 0), RIGHT_ALL, 0);
    }
    put_leaf(space, HUGE, 1, fresh(space, 1), RIGHT_READ | RIGHT_WRITE, 0);
    put_leaf(space, COMMON, 0, fresh(space, 0), RIGHT_ALL, PTE_SHARED);
    put_leaf(space, GIANT, 2, fresh(space, 2), RIGHT_READ | RIGHT_WRITE, 0);
    *entry_of(space, PAGED, 0) = pte_make_paged(3);
    if (space == one) {
        set_region(space, DEVICE, BLOCK, &io);
        put_leaf(space, DEVICE, 1, device, RIGHT_READ | RIGHT_WRITE, PTE_DEVICE);
    }
}

/* What a fork does to tables and regions. */
static void share_all(struct space *from, struct space *to)
{
    pte_t *a = table_slots(from->root);
    pte_t *b = table_slots(to->root);
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        if (a[i] != 0) {
            REQUIRE_OK(node_get(ctx, pte_pfn(a[i])));
            a[i] = pte_without_write(a[i]);
            b[i] = a[i];
        }
    }
    REQUIRE_OK(region_share(ctx, from->regions));
    to->regions = from->regions;
}

static void make_scene(const struct pt_format *format)
{
    const uint64_t gigas = TABLE_ENTRIES > 4 ? 4 : 12; /* small ones are used up by tables */
    host_start(&(struct host_options){.frames = (gigas + 4) * GIGA, .format = format});
    ctx = host_ctx(0);
    pool = host_pool(gigas * level_size(2) + 2 * level_size(1));
    device = host_take(BLOCK, 1);
    REQUIRE_OK(space_create(ctx, pool, UINT64_MAX, &one));
    REQUIRE_OK(space_create(ctx, pool, UINT64_MAX, &left));
    REQUIRE_OK(space_create(ctx, pool, UINT64_MAX, &right));
    fill_space(one);
    fill_space(left);
    share_all(left, right);
}

static struct audit_report audit(void)
{
    struct audit_report report;
    uint64_t bytes = audit_scratch_bytes(pool);
    void *scratch = calloc(1, bytes);
    REQUIRE(scratch != NULL);
    REQUIRE_OK(pool_audit(ctx, pool, scratch, bytes, &report));
    free(scratch);
    if (report.invariant != 0) {
        printf("  I%u: %s: space %u, page %#llx, level %u, table %#x, slot %u, entry %#llx, "
               "expected %#llx, found %#llx\n",
               report.invariant, report.what, report.space, (unsigned long long)report.at.v,
               report.level, report.table.v, report.slot, (unsigned long long)report.entry,
               (unsigned long long)report.expected, (unsigned long long)report.found);
    }
    return report;
}

/* --- What is broken --------------------------------------------------------------------------- */

static struct frame *page_frame(uint64_t at) { return frame_of(pte_pfn(*seen_at(one, at, 0)), 0); }
static pfn_t giant(void) { return pte_pfn(*seen_at(one, GIANT, 2)); }

/* A second, read-only map of the frame at `f`, counted. */
static void map_twin(pfn_t f, unsigned order)
{
    REQUIRE_OK(frame_get(ctx, f, order));
    put_leaf(one, TWIN, order, f, RIGHT_READ, 0);
}

static void write_shared_table(void)
{
    pte_t *e = seen_at(left, PAGES, ROOT_LEVEL);
    *e = pte_with_write(*e);
}
static void write_shared_page(void) { map_twin(pte_pfn(*seen_at(one, PAGES, 0)), 0); }
static void write_shared_block(void) { map_twin(pte_pfn(*seen_at(one, HUGE, 1)), 1); }
static void write_block_with_part(void)
{
    map_twin(pfn_add(pte_pfn(*seen_at(one, HUGE, 1)), 1), 0);
}
static void write_giant_with_block(void) { map_twin(pfn_add(giant(), BLOCK), 1); }
static void write_giant_with_page(void) { map_twin(pfn_add(giant(), BLOCK + 1), 0); }
static void write_part_of_shared_block(void)
{
    pte_t *e = seen_at(one, HUGE, 1);
    map_twin(pte_pfn(*e), 1);
    *e = pte_without_write(*e);
    pfn_t part = pfn_add(pte_pfn(*e), 2);
    REQUIRE_OK(frame_get(ctx, part, 0));
    put_leaf(one, PAGES + 3, 0, part, RIGHT_ALL, 0);
}
static void write_under_shared_table(void)
{
    pfn_t f = pte_pfn(*seen_at(left, PAGES + 1, 0));
    map_twin(f, 0);
}
static void write_armed(void)
{
    struct region armed = private_region;
    armed.armed = armed.notify = true;
    set_region(one, PAGES + 2, 1, &armed);
}
static void write_armed_in_block(void)
{
    struct region armed = private_region;
    armed.armed = armed.notify = true;
    set_region(one, HUGE + 3, 1, &armed);
}
static void write_read_only(void)
{
    const struct region r = {.policy = REGION_READ_ONLY, .rights = RIGHT_READ | RIGHT_EXEC};
    set_region(one, PAGES, 1, &r);
}
static void write_armed_shared(void)
{
    const struct region r = {
        .policy = REGION_SHARED, .rights = RIGHT_ALL, .armed = true, .notify = true};
    set_region(one, COMMON, 1, &r);
}
static void write_snapshot(void) { one->state = SPACE_FROZEN; }

/* So that a wrong count cannot look like a broken write rule. */
static void no_write(uint64_t at, unsigned level)
{
    pte_t *e = seen_at(one, at, level);
    *e = pte_without_write(*e);
}
static void count_high(void)
{
    no_write(PAGES, 0);
    page_frame(PAGES)->count++;
}
static void count_low(void)
{
    no_write(PAGES, 0);
    write_shared_page();
    page_frame(PAGES)->count--;
}
static void count_block(void)
{
    no_write(HUGE, 1);
    frame_of(pte_pfn(*seen_at(one, HUGE, 1)), 1)->count += 2;
}
static void count_giant(void)
{
    no_write(GIANT, 2);
    frame_of(giant(), 2)->count++;
}
static void count_part_of_giant(void) { frame_of(pfn_add(giant(), BLOCK), 1)->count++; }
static void count_part(void) { frame_of(pfn_add(pte_pfn(*seen_at(one, HUGE, 1)), 1), 0)->count++; }
static void count_table(void)
{
    pte_t *e = seen_at(left, PAGES, ROOT_LEVEL);
    frame_of(pte_pfn(*e), 0)->count++;
}
static void count_root(void) { frame_of(one->root, 0)->count++; }
static bool count_node(void *arg, pfn_t node, unsigned level)
{
    (void)arg, (void)level;
    frame_of(node, 0)->count++;
    return false;
}
static void count_region(void) { region_walk(one->regions, count_node, NULL); }
static void count_used(void) { run_of(pte_pfn(*seen_at(one, PAGES, 0)), 1)->used++; }
static void count_used_giga(void)
{
    no_write(GIANT, 2);
    run_of(giant(), 2)->used++;
}
static void mapped_free(void)
{
    pfn_t f = fresh(one, 0);
    frame_put(ctx, f, 0);
    put_leaf(one, TWIN, 0, f, RIGHT_READ, 0);
}
static void base_not_held(void)
{
    left->state = SPACE_FROZEN;
    right->base = left;
    left->holders = 0;
}

static void stray_bits(void) { *seen_at(one, PAGES + 3, 0) = PTE_SHARED; }
static void unaligned_block(void) { *seen_at(one, HUGE, 1) += UINT64_C(1) << 12; }
static void huge_at_top(void) { *seen_at(one, DEVICE + GIGA - GIGA, ROOT_LEVEL) |= pt_format.huge; }
static void odd_bits(void) { *seen_at(one, PAGES, 0) |= UINT64_C(1) << 58; }
static void odd_table_bits(void) { *seen_at(one, PAGES, 1) |= UINT64_C(1) << 58; }
static void no_memory_type(void) { *seen_at(one, PAGES, 0) &= ~(pt_format.leaf_bits & 0xfffe); }
static void reserved_in_table(void)
{
    /* NPT reserves the bit alone that makes a leaf; bits 52 and up stand for it there. */
    pte_t reserved = pt_format.reserved_table & ~pt_format.huge;
    *seen_at(one, PAGES, 2) |= reserved != 0 ? reserved : UINT64_C(1) << 57;
}
static void huge_executable(void)
{
    pte_t *e = seen_at(one, HUGE, 1);
    *e = pte_set_exec(*e, true);
}
static void two_marks(void) { *seen_at(one, COMMON, 0) |= PTE_FOREIGN; }
static void device_in_pool(void)
{
    pte_t *e = seen_at(one, DEVICE, 1);
    *e = pte_make_leaf(pte_pfn(*seen_at(one, HUGE, 1)), 1, RIGHT_READ, PTE_DEVICE);
}
static void outside_pool(void) { put_leaf(one, TWIN, 1, device, RIGHT_READ, 0); }
static void shared_in_private(void) { *seen_at(one, PAGES, 0) |= PTE_SHARED; }
static void private_in_shared(void) { *seen_at(one, COMMON, 0) &= ~PTE_SHARED; }
static void leaf_in_hole(void)
{
    const struct region none = {.policy = REGION_NONE};
    set_region(one, PAGES + 1, 1, &none);
}
static void leaf_over_two(void)
{
    const struct region r = {.policy = REGION_SHARED, .rights = RIGHT_ALL};
    set_region(one, HUGE + BLOCK / 2, BLOCK / 2, &r);
}
static void executable_without(void)
{
    struct region r = private_region;
    r.rights = RIGHT_READ | RIGHT_WRITE;
    set_region(one, PAGES, 1, &r);
}
static void paged_in_private(void) { *entry_of(one, TWIN, 0) = pte_make_paged(1); }
static void paged_malformed(void) { *seen_at(one, PAGED, 0) &= ~PTE_PAGED_FAR; }
static void paged_too_high(void)
{
    const struct region r = {.policy = REGION_PAGED, .rights = RIGHT_ALL, .pager = 7};
    set_region(one, TWIN, GIGA, &r);
    *entry_of(one, TWIN, 2) = pte_make_paged(1);
}
static void table_is_data(void)
{
    pfn_t f = fresh(one, 0);
    *entry_of(one, TWIN, 1) = pte_make_table(f);
}
static void table_at_wrong_level(void)
{
    pfn_t table;
    REQUIRE_OK(table_alloc(ctx, &one->payer, 1, &table));
    *entry_of(one, TWIN, 1) = pte_make_table(table);
}
static void no_state(void) { one->state = 0; }

static void free_sum(void) { pool->free++; }
static void kind_sum(void) { pool->kind[FRAME_TABLE]--; }
static void aside_sum(void) { pool->aside = 1; }
static void charge_sum(void) { account_of(pool, one->payer.account)->charged++; }
static void accounts_used(void) { pool->account_used++; }
static void account_freed_twice(void) { pool->account_free = one->payer.account; }
static void charged_to_other(void) { page_frame(PAGES)->account = (uint16_t)left->payer.account; }
static void reserved_sum(void) { one->payer.reserved = 5; }
static void promised_sum(void) { account_of(pool, one->payer.account)->promised = 5; }
static void promised_by_nobody(void) { one->op_payer.promised = true, one->op_payer.reserved = 5; }
static void reserved_too_much(void)
{
    one->payer.reserved = pool->free + 1;
    pool->reserved = pool->free + 1;
}
static void leaked(void)
{
    pfn_t f = fresh(one, 0);
    frame_of(f, 0)->count = 0;
    run_of(f, 1)->used--;
}
static void dead_table(void)
{
    pfn_t table;
    REQUIRE_OK(table_alloc(ctx, &one->payer, 0, &table));
    REQUIRE(node_put(ctx, table));
}
static void live_table_reaped(void)
{
    pool_defer_table(ctx, pool, pte_pfn(*seen_at(one, PAGES, 1)));
}
static void free_map(void)
{
    struct run *run = run_of(pte_pfn(*seen_at(one, PAGES, 0)), 1);
    run->free_count++;
}
static void used_in_free_map(void)
{
    pfn_t f;
    for (unsigned i = 0;; i++) { /* in a run that is not full */
        f = fresh(one, 0);
        put_leaf(one, TWIN + i, 0, f, RIGHT_READ, 0);
        if (run_of(f, 1)->free_count > 0) {
            break;
        }
    }
    run_of(f, 1)->free[(f.v % BLOCK) / 64] |= UINT64_C(1) << (f.v % BLOCK % 64);
    run_of(f, 1)->free_count++;
}
static void whole_is_broken(void)
{
    run_of(pte_pfn(*seen_at(one, HUGE, 1)), 1)->state = RUN_BROKEN;
}
static void whole_is_free(void) { run_of(pte_pfn(*seen_at(one, HUGE, 1)), 1)->state = RUN_NONE; }
static void list_cut(void) { pool->block_partial = 0; }
static void aside_orphan(void)
{
    pfn_t block = pool_set_aside(ctx, pool, pte_pfn(*seen_at(one, PAGES, 1)));
    REQUIRE(block.v != 0);
}

static void table_locked(void) { table_lock(ctx, pte_pfn(*seen_at(one, PAGES, 1))); }
static void pool_locked(void) { spin_lock(ctx, &pool->lock, RANK_POOL); }
static void space_locked(void) { read_lock(ctx, &one->lock, RANK_SPACE); }

/* --- Pins and foreign maps -------------------------------------------------------------------- */

/* A pin of `pages` pages of the leaf of `order` at `at` in `one`, counted. */
static struct attachment *pin(enum attachment_kind kind, uint64_t at, unsigned order,
                              uint32_t pages)
{
    struct attachment record = {.kind = (uint8_t)kind,
                                .order = (uint8_t)order,
                                .id = attachment_new_id(),
                                .frame = pte_pfn(*seen_at(one, at, order)),
                                .pages = pages,
                                .at = gfn(at)};
    REQUIRE_OK(attachment_make_room(ctx, one, 1));
    REQUIRE_OK(attachment_get(ctx, &record));
    attachment_add(one, &record);
    const struct gfn_range range = {gfn(at), gfn(at + 1)};
    return attachment_next(one, NULL, range);
}
static void pin_page(void) { (void)pin(ATTACH_PIN_WRITE, PAGES, 0, 1); }
static void pin_block(void) { (void)pin(ATTACH_PIN_WRITE, HUGE, 1, 2); }
static void pin_shared_page(void)
{
    no_write(PAGES, 0);
    pin_page();
    map_twin(pte_pfn(*seen_at(one, PAGES, 0)), 0);
}
static void pin_not_counted(void)
{
    pin_page();
    frame_put(ctx, pte_pfn(*seen_at(one, PAGES, 0)), 0);
}
static void pin_number(void)
{
    pin_page();
    one->attachment_count++;
}
static void pin_past_block(void) { pin(ATTACH_PIN_READ, HUGE, 1, 1)->pages = (uint32_t)BLOCK + 1; }

/* Page 0 of `one` in a space of its own: leaf and record share a reference. */
static pte_t *map_foreign(struct attachment **record)
{
    const struct region region = {.policy = REGION_FOREIGN, .rights = RIGHT_READ | RIGHT_WRITE};
    struct space *mapper;
    REQUIRE_OK(space_create(ctx, pool, UINT64_MAX, &mapper));
    set_region(mapper, 5, 1, &region);
    struct attachment a = {.kind = ATTACH_FOREIGN,
                           .id = attachment_new_id(),
                           .frame = pte_pfn(*seen_at(one, PAGES, 0)),
                           .pages = 1,
                           .at = gfn(PAGES),
                           .mapper = mapper,
                           .mapper_at = gfn(5)};
    REQUIRE_OK(foreign_record_make_room(ctx, one, &a));
    REQUIRE_OK(attachment_get(ctx, &a));
    foreign_record_add(one, &a);
    *record = &foreign_record_find(mapper, gfn(5))->a;
    put_leaf(mapper, 5, 0, (*record)->frame, RIGHT_READ, PTE_FOREIGN);
    return seen_at(mapper, 5, 0);
}
static void foreign(void)
{
    struct attachment *record;
    (void)map_foreign(&record);
}
static void foreign_written(void)
{
    struct attachment *record;
    pte_t *e = map_foreign(&record);
    *e = pte_with_write(*e);
    foreign_record_set(foreign_record_first(one, gfn(PAGES)), true, false);
}
static void foreign_writable(void)
{
    struct attachment *record;
    pte_t *e = map_foreign(&record);
    *e = pte_with_write(*e);
}
static void foreign_elsewhere(void)
{
    struct attachment *record;
    pte_t *e = map_foreign(&record);
    *e = pte_make_leaf(pte_pfn(*seen_at(one, PAGES + 1, 0)), 0, RIGHT_READ, PTE_FOREIGN);
}
static void foreign_left_behind(void)
{
    struct attachment *record;
    (void)map_foreign(&record);
    put_leaf(one, PAGES, 0, fresh(one, 0), RIGHT_ALL, 0);
}
static void foreign_detached(void)
{
    struct attachment *record;
    (void)map_foreign(&record);
    frame_put(ctx, record->frame, 0);
    put_leaf(one, PAGES, 0, fresh(one, 0), RIGHT_ALL, 0);
    record->detached = 1;
}

/* Maps of a page, twice, and of one far away, so that both trees have a node. */
static struct space *many_maps(void)
{
    const uint64_t page[] = {PAGES, PAGES, GIANT}, to[] = {5, 6, 100};
    struct space *mapper;
    REQUIRE_OK(space_create(ctx, pool, UINT64_MAX, &mapper));
    for (unsigned i = 0; i < 3; i++) {
        gpa_t from = gfn_to_gpa(gfn(page[i]));
        REQUIRE_OK(foreign_map(ctx, one, from, mapper, gfn_to_gpa(gfn(to[i]))));
    }
    REQUIRE(one->foreign_pages.root->level > 0 && mapper->foreign_maps.root->level > 0);
    return mapper;
}
static struct foreign_record *first_map(void)
{
    (void)many_maps();
    return foreign_record_first(one, gfn(PAGES));
}
static void maps(void) { (void)many_maps(); }
static void maps_number(void)
{
    maps();
    one->foreign_count++;
    one->attachment_count++;
}
static void maps_of_a_leaf(void)
{
    maps();
    radix_next(&one->foreign_pages, 0)->used++;
}
static void maps_of_the_mapper(void) { radix_next(&many_maps()->foreign_maps, 0)->used--; }
static void maps_written(void)
{
    maps();
    one->foreign_written++;
}
static void maps_written_in_leaf(void)
{
    maps();
    radix_next(&one->foreign_pages, 0)->count++;
}
static void maps_children(void)
{
    maps();
    one->foreign_pages.root->used++;
}
static void maps_misplaced(void)
{
    maps();
    struct radix_node *leaf = radix_next(&one->foreign_pages, 1);
    leaf->key++;
}
static void maps_frames(void) { many_maps()->foreign_maps.frames++; }
static void map_of_another(void) { first_map()->owner = left; }
static void map_elsewhere(void) { first_map()->a.mapper_at.v++; }
static void map_unlinked_back(void) { first_map()->next->previous = NULL; }
static void map_forgotten(void)
{
    struct foreign_record *record = first_map();
    record->next = NULL;
    radix_next(&one->foreign_pages, 0)->used--;
    one->foreign_count--;
    one->attachment_count--;
    frame_put(ctx, record->a.frame, 0);
}
static void map_in_a_ring(void)
{
    struct foreign_record *record = first_map();
    record->next->next = record;
    record->previous = record->next;
}
static void map_among_pins(void)
{
    pin_page();
    one->attachments->kind = ATTACH_FOREIGN;
}

/* --- What is parked --------------------------------------------------------------------------- */

static void park(struct space *space, uint64_t at, unsigned level)
{
    pte_t *e = seen_at(space, at, level);
    *e = pte_park(*e);
}
static void hide_region(struct space *space, uint64_t at)
{
    const struct region hidden = {.policy = REGION_PRIVATE};
    struct gfn_range range = {gfn(at), gfn(at + 1)};
    REQUIRE_OK(region_set(ctx, &space->payer, &space->regions, range, &hidden));
}
static void readable_without(void) { hide_region(one, PAGES + 1); }
static void readable_block_without(void) { hide_region(one, HUGE + 1); }
static void readable_in_shared_table(void) { hide_region(right, PAGES + 1); }
static void loadable_without(void)
{
    const struct region hidden = {.policy = REGION_PAGED, .pager = 7};
    struct gfn_range range = {gfn(PAGED), gfn(PAGED + 1)};
    REQUIRE_OK(region_set(ctx, &right->payer, &right->regions, range, &hidden));
}
static void parked_with_write(void)
{
    park(one, PAGES, 0);
    *seen_at(one, PAGES, 0) |=
        pt_format.write & ~pt_format.present ? pt_format.write : UINT64_C(1) << 58;
}
static void parked_near(void)
{
    park(one, PAGES, 0);
    *seen_at(one, PAGES, 0) ^= pt_format.address;
}
static void parked_hole(void) { *seen_at(one, PAGES + 3, 0) = PTE_PARKED; }
static void parked_not_counted(void)
{
    park(one, HUGE, 1);
    REQUIRE_OK(frame_get(ctx, pte_pfn(*seen_at(one, HUGE, 1)), 1));
}
static void parked_table_not_counted(void)
{
    park(one, PAGES, 2);
    count_table();
}
static void parked_in_hole(void)
{
    leaf_in_hole();
    park(one, PAGES + 1, 0);
}

static void park_some(void)
{
    park(one, PAGES, 0); /* where the region gives READ: not looked at since */
    park(one, GIANT, 2);
    park(one, PAGED, 0);
    hide_region(one, PAGES + 1);
    park(one, PAGES + 1, 0);
}
static void park_tables(void)
{
    park(one, HUGE, ROOT_LEVEL);
    park(left, PAGES, ROOT_LEVEL); /* one holder of a shared table may read it, the other not */
    hide_region(left, PAGES + 1);
}

static const struct breakage {
    const char *label;
    void (*run)(void);
    unsigned invariant;
} breakages[] = {
    {"table entry writable, table shared", write_shared_table, 1},
    {"page writable, mapped twice", write_shared_page, 1},
    {"block writable, mapped twice", write_shared_block, 1},
    {"block writable, a part mapped", write_block_with_part, 1},
    {"giant writable, a block mapped", write_giant_with_block, 1},
    {"giant writable, a page mapped", write_giant_with_page, 1},
    {"part writable, block mapped", write_part_of_shared_block, 1},
    {"page under a shared table, mapped elsewhere", write_under_shared_table, 1},
    {"armed page writable", write_armed, 1},
    {"armed page in a writable block", write_armed_in_block, 1},
    {"read-only region writable", write_read_only, 1},
    {"armed shared page writable", write_armed_shared, 1},
    {"snapshot writable", write_snapshot, 1},
    {"page count high", count_high, 3},
    {"page count low", count_low, 3},
    {"block count high", count_block, 3},
    {"giant count high", count_giant, 3},
    {"count of a part of a giant", count_part_of_giant, 3},
    {"count of a part of a block", count_part, 3},
    {"table count high", count_table, 3},
    {"region node count high", count_region, 3},
    {"root count high", count_root, 3},
    {"parts in use of a block", count_used, 3},
    {"parts in use of a giant", count_used_giga, 3},
    {"free frame mapped", mapped_free, 3},
    {"base not held", base_not_held, 3},
    {"stray bits in an absent entry", stray_bits, 6},
    {"unaligned block", unaligned_block, 6},
    {"huge bit at the root", huge_at_top, 6},
    {"bits that no leaf has", odd_bits, 6},
    {"bits that no table entry has", odd_table_bits, 6},
    {"leaf bits missing", no_memory_type, 6},
    {"reserved bits of a table entry", reserved_in_table, 6},
    {"executable block", huge_executable, 6},
    {"two marks", two_marks, 6},
    {"device leaf in the pool", device_in_pool, 6},
    {"leaf outside the pool", outside_pool, 6},
    {"shared leaf in a private region", shared_in_private, 6},
    {"private leaf in a shared region", private_in_shared, 6},
    {"leaf without a region", leaf_in_hole, 6},
    {"leaf over two policies", leaf_over_two, 6},
    {"executable without the right", executable_without, 6},
    {"paged entry in a private region", paged_in_private, 6},
    {"malformed paged entry", paged_malformed, 6},
    {"paged entry of 1 GiB", paged_too_high, 6},
    {"table entry to data", table_is_data, 6},
    {"table at another level", table_at_wrong_level, 6},
    {"readable without the right", readable_without, 1},
    {"readable block, a page without the right", readable_block_without, 1},
    {"readable without the right, in a shared table", readable_in_shared_table, 1},
    {"paged entry of a shared table, to be loaded without the right", loadable_without, 1},
    {"parked with other bits", parked_with_write, 6},
    {"parked and names memory", parked_near, 6},
    {"parked hole", parked_hole, 6},
    {"parked leaf without a region", parked_in_hole, 6},
    {"count of a parked block", parked_not_counted, 3},
    {"count of a table beneath a parked one", parked_table_not_counted, 3},
    {"space in no state", no_state, 6},
    {"free frames", free_sum, 8},
    {"frames by kind", kind_sum, 8},
    {"frames set aside", aside_sum, 8},
    {"frames charged", charge_sum, 8},
    {"accounts in use", accounts_used, 8},
    {"a live account is free", account_freed_twice, 8},
    {"charged to another account", charged_to_other, 8},
    {"reserved by nobody's pool", reserved_sum, 8},
    {"promised and not reserved", promised_sum, 8},
    {"reserved and not promised", promised_by_nobody, 8},
    {"reserved more than free", reserved_too_much, 8},
    {"leaked frame", leaked, 8},
    {"dead table nowhere", dead_table, 8},
    {"live table to be reaped", live_table_reaped, 8},
    {"free map and its count", free_map, 8},
    {"used frame in the free map", used_in_free_map, 3},
    {"whole block broken", whole_is_broken, 8},
    {"whole block free", whole_is_free, 8},
    {"free list cut", list_cut, 8},
    {"run set aside for nobody", aside_orphan, 8},
    {"page pinned for writing, mapped twice", pin_shared_page, 1},
    {"pin not counted", pin_not_counted, 3},
    {"number of pins", pin_number, 3},
    {"pin past its block", pin_past_block, 6},
    {"foreign map writable too early", foreign_writable, 1},
    {"foreign map of another frame", foreign_elsewhere, 2},
    {"foreign map of an old frame", foreign_left_behind, 2},
    {"foreign maps of a space", maps_number, 3},
    {"foreign maps in a leaf of the owner", maps_of_a_leaf, 3},
    {"foreign maps in a leaf of the mapper", maps_of_the_mapper, 3},
    {"maps written through", maps_written, 3},
    {"maps written through in a leaf", maps_written_in_leaf, 3},
    {"children of a node of maps", maps_children, 6},
    {"leaf of maps in the wrong place", maps_misplaced, 6},
    {"frames of maps", maps_frames, 3},
    {"foreign map of another owner", map_of_another, 6},
    {"foreign map in the wrong place", map_elsewhere, 6},
    {"foreign map not linked back", map_unlinked_back, 6},
    {"foreign map that its owner forgot", map_forgotten, 6},
    {"foreign maps in a ring", map_in_a_ring, 6},
    {"foreign map among the pins", map_among_pins, 6},
    {"table locked", table_locked, 10},
    {"pool locked", pool_locked, 10},
    {"space locked", space_locked, 10},
};

static void check_breakage(const struct breakage *row, const struct pt_format *format)
{
    make_scene(format);
    struct audit_report report = audit();
    CHECK_EQ(report.invariant, 0);
    REQUIRE(report.what == NULL);
    row->run();
    report = audit();
    CHECK_EQ(report.invariant, row->invariant);
    CHECK(report.what != NULL);
}

/* --- What is legal ---------------------------------------------------------------------------- */

static void armed_under_read_only_table(void)
{
    pte_t *e = seen_at(one, PAGES, ROOT_LEVEL);
    write_armed();
    *e = pte_without_write(*e);
}
static void armed_in_shared_table(void)
{
    struct region armed = private_region;
    armed.armed = armed.notify = true;
    set_region(left, PAGES, 1, &armed);
}
static void common_in_two(void)
{
    pfn_t f = pte_pfn(*seen_at(one, COMMON, 0));
    REQUIRE_OK(frame_get(ctx, f, 0));
    put_leaf(one, COMMON + 1, 0, f, RIGHT_ALL, PTE_SHARED);
}
static void giant_in_parts(void)
{
    struct flush_batch batch;
    struct walk walk;
    map_twin(pfn_add(giant(), BLOCK + 1), 0);
    flush_begin(&batch, one);
    REQUIRE_OK(walk_exclusive(ctx, one, &one->payer, gfn(GIANT), 2, WALK_WRITE, &batch, &walk));
    walk.entry = *walk.slot = pte_without_write(walk.entry);
    REQUIRE_OK(table_split_leaf(ctx, &one->payer, &walk, &batch));
    walk_end(ctx, &walk);
    flush_finish(ctx, &batch);
}
static void dead_tables_listed(void)
{
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        pte_t *e = &table_slots(one->root)[i];
        if (*e != 0) {
            REQUIRE(node_put(ctx, pte_pfn(*e)));
            pool_defer_table(ctx, pool, pte_pfn(*e));
            *e = 0;
        }
    }
}
static void run_set_aside(void)
{
    pfn_t table = pte_pfn(*seen_at(one, PAGES, 1));
    pfn_t block = pool_set_aside(ctx, pool, table);
    REQUIRE(block.v != 0);
    frame_of(table, 0)->rmap = block.v;
    pfn_t f = pfn_add(block, 1);
    REQUIRE_OK(pool_alloc_at(ctx, &one->payer, f, FRAME_DATA));
    put_leaf(one, PAGES + 3, 0, f, RIGHT_ALL, 0);
}
static void frozen_base(void)
{
    left->state = SPACE_FROZEN;
    space_hold(left);
    right->base = left;
}
static void reservation(void) { REQUIRE_OK(pool_reserve(ctx, &one->payer, 3)); }
static void accessed_and_dirty(void)
{
    *seen_at(one, PAGES, 0) |= pt_format.accessed | pt_format.dirty;
    *seen_at(one, PAGES, 1) |= pt_format.accessed;
    *seen_at(one, HUGE, 1) |= pt_format.accessed | pt_format.dirty;
}

static const struct breakage legal[] = {
    {"armed page under a table entry without write", armed_under_read_only_table, 0},
    {"armed page in a shared table", armed_in_shared_table, 0},
    {"shared frame writable twice", common_in_two, 0},
    {"1 GiB block in parts", giant_in_parts, 0},
    {"dead tables that will be reaped", dead_tables_listed, 0},
    {"run set aside", run_set_aside, 0},
    {"frozen base", frozen_base, 0},
    {"reservation", reservation, 0},
    {"accessed and dirty bits", accessed_and_dirty, 0},
    {"parked entries", park_some, 0},
    {"parked tables", park_tables, 0},
    {"pinned page", pin_page, 0},
    {"pinned part of a block", pin_block, 0},
    {"foreign map", foreign, 0},
    {"foreign maps", maps, 0},
    {"foreign map that was written through", foreign_written, 0},
    {"foreign map of a page that was unmapped", foreign_detached, 0},
};

TEST_TABLE(passes, legal)
{
    make_scene(&ept_format);
    row->run();
    CHECK_EQ(audit().invariant, 0);
}

/* --- The report ------------------------------------------------------------------------------- */

TEST(names_the_path)
{
    make_scene(&ept_format);
    pte_t *e = seen_at(one, PAGES + 2, 0);
    pfn_t table = pte_pfn(*seen_at(one, PAGES, 1));
    map_twin(pte_pfn(*e), 0);
    struct audit_report report = audit();
    CHECK_EQ(report.invariant, 1);
    CHECK_EQ(report.space, one->id);
    CHECK_EQ(report.at.v, PAGES + 2);
    CHECK_EQ(report.level, 0);
    CHECK_EQ(report.table.v, table.v);
    CHECK_EQ(report.slot, level_slot(gfn(PAGES + 2), 0));
    CHECK_EQ(report.entry, *e);
    CHECK_EQ(report.expected, 1);
    CHECK_EQ(report.found, 2);
}

TEST(names_the_descriptor)
{
    make_scene(&ept_format);
    pfn_t f = pte_pfn(*seen_at(one, PAGES, 0));
    count_high();
    struct audit_report report = audit();
    CHECK_EQ(report.invariant, 3);
    CHECK_EQ(report.table.v, f.v);
    CHECK_EQ(report.level, 0);
    CHECK_EQ(report.expected, 1);
    CHECK_EQ(report.found, 2);
}

/* The walk visits what is shared once: the second of two spaces adds its root's entries alone. */
TEST(visits_shared_tables_once)
{
    make_scene(&ept_format);
    uint64_t before = audit().entries_visited;
    struct space *more;
    REQUIRE_OK(space_create(ctx, pool, UINT64_MAX, &more));
    share_all(left, more);
    CHECK_LE(audit().entries_visited, before + TABLE_ENTRIES + 1);
}

TEST(refuses_small_scratch)
{
    make_scene(&ept_format);
    struct audit_report report;
    uint64_t bytes = audit_scratch_bytes(pool);
    void *scratch = calloc(1, bytes);
    REQUIRE(scratch != NULL);
    CHECK_STATUS(pool_audit(ctx, pool, scratch, bytes - 1, &report), CLEAVE_COUNT);
    CHECK_EQ(ctx->error.value, bytes - 1);
    CHECK_OK(pool_audit(ctx, pool, scratch, bytes, &report));
    free(scratch);
}

TEST_TABLE(finds, breakages) { check_breakage(row, &ept_format); }
TEST_TABLE(finds_npt, breakages) { check_breakage(row, &npt_format); }
