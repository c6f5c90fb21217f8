/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations on spaces, regions, mappings and bytes, and on forks of them. */
#include "ops.h"

#include <inttypes.h>
#include <string.h>

#include "test.h"

/* --- Regions ---------------------------------------------------------------------------------- */

static enum region_policy core_policy(enum ref_policy policy)
{
    static const enum region_policy as[REF_POLICIES + 1] = {
        REGION_NONE,   REGION_PRIVATE, REGION_READ_ONLY, REGION_SHARED,  REGION_WIPE,
        REGION_ABSENT, REGION_DEVICE,  REGION_PAGED,     REGION_FOREIGN, REGION_POLICIES};
    return as[policy];
}

/* Mostly private and writable; now and then one that is refused. */
struct ref_region ops_pick_region(struct world *w)
{
    static const uint8_t policies[] = {REF_PRIVATE, REF_PRIVATE, REF_PRIVATE,   REF_PRIVATE,
                                       REF_SHARED,  REF_WIPE,    REF_READ_ONLY, REF_ABSENT};
    static const uint8_t rights[] = {3, 3, 3, 3, 7, 7, 1, 5};
    struct ref_region region = {.policy = policies[spec_below(w, 8)],
                                .rights = rights[spec_below(w, 8)],
                                .order = (unsigned)spec_below(w, 3)};

    if (region.policy == REF_READ_ONLY) {
        region.rights &= (unsigned)~REF_WRITE;
    }
    if (spec_chance(w, 30)) {
        region.rights = (unsigned)spec_below(w, 9);
    }
    if (spec_chance(w, 60)) {
        region.policy = spec_below(w, REF_POLICIES + 1);
    }
    if (spec_chance(w, 60)) {
        region.order = 2 + (unsigned)spec_below(w, 3);
    }
    return region;
}

struct region ops_core_region(struct world *w, const struct ref_region *region)
{
    return (struct region){.policy = core_policy(region->policy),
                           .rights = (uint8_t)region->rights,
                           .whole = spec_chance(w, 4),
                           .order = (uint8_t)region->order};
}

/* --- Calls that may be preempted -------------------------------------------------------------- */

void ops_budget(struct world *w)
{
    w->ctx->budget = spec_chance(w, 2) ? UINT64_MAX : 1 + spec_below(w, 40);
}

bool ops_again(struct world *w, enum cleave_status status, unsigned space, unsigned *calls)
{
    if (status != CLEAVE_AGAIN) {
        return false;
    }
    if (++*calls > 1000000) {
        spec_fail(w, "a preempted call does not end");
    }
    spec_preempted(w, space);
    ops_budget(w);
    return true;
}

void ops_before(struct world *w)
{
    w->free_before = spec_free(w);
    w->injected = false;
    host_fail_allocation(spec_chance(w, 24) ? 1 + spec_below(w, 12) : 0);
}

bool ops_past(const struct world *w, const struct spec_range *range)
{
    return ref_range(w->ref, range->at, range->size) == CLEAVE_OK &&
           (range->at + range->size) >> PAGE_SHIFT > w->ref->pages;
}

uint64_t ops_pages(const struct spec_range *range)
{
    uint64_t pages = range->size >> PAGE_SHIFT;
    return pages < GUEST_PAGES ? pages : 0;
}

void ops_touch(struct world *w, const struct spec_range *range)
{
    uint64_t start = range->at >> PAGE_SHIFT;
    uint64_t end = start + (range->size >> PAGE_SHIFT);
    if (end <= w->ref->pages && start <= end) {
        spec_touch(w, start > 0 ? start - 1 : 0, end < w->ref->pages ? end + 1 : end);
    }
}

/* --- Spaces ----------------------------------------------------------------------------------- */

static unsigned alive(const struct world *w)
{
    unsigned count = 0;
    for (unsigned s = 0; s < REF_SPACES; s++) {
        count += w->ref->space[s].life != REF_UNUSED;
    }
    return count;
}

static void op_create(struct world *w)
{
    unsigned s = ref_unused(w->ref);
    if (s == REF_SPACES || alive(w) >= w->shard->spaces) {
        return;
    }
    uint64_t limit = spec_chance(w, 8) ? spec_below(w, 60) : UINT64_MAX;
    spec_say(w, "create %u limit %" PRId64, s, (int64_t)limit);
    w->ref->commit = false;
    enum cleave_status expected = ref_create(w->ref, s);
    ops_before(w);
    enum cleave_status got = space_create(w->ctx, w->pool, limit, &w->space[s]);
    if (got == CLEAVE_QUOTA && limit < 4) {
        w->exhausted++;
        return;
    }
    if (spec_agree(w, got, expected, NULL, 16)) {
        w->ref->commit = true;
        (void)ref_create(w->ref, s);
        w->space[s]->grain = (uint8_t)spec_below(w, 3);
        w->promised[s] = false;
    }
}

/* Takes a vcpu out of whatever queue it waits in, and gives back what it was granted. */
static void cancel_wait(struct world *w, struct spec_vcpu *vcpu)
{
    switch (vcpu->wait.kind) {
    case WAIT_NONE:
    case WAIT_MEMORY:
        pool_cancel_wait(w->ctx, w->pool, &vcpu->wait);
        break;
    case WAIT_VERDICT:
    case WAIT_RING:
        channel_cancel_wait(w->ctx, &vcpu->wait);
        break;
    case WAIT_LOAD:
        pager_cancel_wait(w->ctx, &vcpu->wait);
        break;
    }
    vcpu->wait = (struct vcpu_wait){.vcpu = vcpu->wait.vcpu};
    vcpu->waiting = vcpu->pending = false;
}

void ops_forget_space(struct world *w, unsigned s)
{
    w->forgotten++;
    if (w->ref->space[s].life == REF_DYING) {
        ops_forget_events(w, w->space[s]->id);
    }
    for (unsigned cpu = 1; cpu < SPEC_VCPUS; cpu++) {
        if (w->vcpu[cpu].space == s) {
            cancel_wait(w, &w->vcpu[cpu]);
            host_cpu_stop(cpu);
            w->vcpu[cpu].space = REF_SPACES;
        }
    }
}

/* A mapper of this space's pages is going away, and the maps with it: they may be there or not. */
static bool maps_uncertain(const struct world *w, unsigned s)
{
    for (unsigned i = 0; i < REF_MAPS; i++) {
        const struct ref_map *map = &w->ref->map[i];
        if (map->live && map->owner == s && w->ref->space[map->mapper].life == REF_DYING) {
            return true;
        }
    }
    return false;
}

/* The first call makes the space dying; it may stay so for some steps. */
static void op_destroy(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    if (s == REF_SPACES || (alive(w) <= 2 && w->ref->space[s].life != REF_DYING)) {
        return;
    }
    spec_say(w, "destroy %u", s);
    w->ref->commit = true;
    enum cleave_status expected = ref_destroy_begin(w->ref, s);
    bool leave = spec_chance(w, 6);
    ops_forget_space(w, s);
    enum cleave_status got;
    unsigned calls = 0;
    do {
        ops_budget(w);
        got = space_destroy(w->ctx, w->space[s]);
        ops_take_back(w, s, got == CLEAVE_OK);
    } while (!leave && ops_again(w, got, s, &calls));
    if (got == CLEAVE_AGAIN) {
        return;
    }
    if (spec_agree(w, got, expected, NULL, 0)) {
        ref_destroy_end(w->ref, s);
        w->space[s] = NULL;
    }
}

static void op_set_region(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    if (s == REF_SPACES || maps_uncertain(w, s)) {
        return;
    }
    struct spec_range range = spec_pick_any_range(w, s);
    struct ref_region region = ops_pick_region(w);
    struct region core = ops_core_region(w, &region);
    spec_say(w, "set_region %u 0x%" PRIx64 "+0x%" PRIx64 " policy %u rights %u order %u", s,
             range.at, range.size, region.policy, region.rights, region.order);
    w->ref->commit = false;
    enum cleave_status expected = ref_set_region(w->ref, s, range.at, range.size, &region);
    ops_before(w);
    enum cleave_status got =
        space_set_region(w->ctx, w->space[s], gpa(range.at), range.size, &core);
    ops_touch(w, &range);
    w->promised[s] = false;
    if (spec_agree(w, got, expected, w->space[s], 40 + 3 * ops_pages(&range))) {
        w->ref->commit = true;
        (void)ref_set_region(w->ref, s, range.at, range.size, &region);
    }
}

static void op_protect(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    if (s == REF_SPACES) {
        return;
    }
    struct spec_range range = spec_pick_any_range(w, s);
    unsigned rights = spec_chance(w, 20) ? (unsigned)spec_below(w, 9)
                                         : 1 + 2 * (unsigned)spec_below(w, 4);
    spec_say(w, "protect %u 0x%" PRIx64 "+0x%" PRIx64 " rights %u", s, range.at, range.size,
             rights);
    w->ref->commit = false;
    enum cleave_status expected = ref_protect(w->ref, s, range.at, range.size, rights);
    ops_before(w);
    enum cleave_status got =
        space_protect(w->ctx, w->space[s], gpa(range.at), range.size, rights);
    ops_touch(w, &range);
    w->promised[s] = false;
    if (spec_agree(w, got, expected, w->space[s], 40 + 2 * ops_pages(&range))) {
        w->ref->commit = true;
        (void)ref_protect(w->ref, s, range.at, range.size, rights);
    }
}

static void op_populate(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    if (s == REF_SPACES) {
        return;
    }
    struct spec_range range = spec_pick_any_range(w, s);
    spec_say(w, "populate %u 0x%" PRIx64 "+0x%" PRIx64, s, range.at, range.size);
    w->ref->commit = false;
    enum cleave_status expected = ref_populate(w->ref, s, range.at, range.size);
    enum cleave_status got;
    unsigned calls = 0;
    ops_before(w);
    do {
        ops_budget(w);
        got = space_populate(w->ctx, w->space[s], gpa(range.at), range.size);
    } while (ops_again(w, got, s, &calls));
    ops_touch(w, &range);
    w->promised[s] = false;
    (void)spec_agree(w, got, expected, w->space[s], 40 + 3 * ops_pages(&range));
}

static void op_map(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    if (s == REF_SPACES) {
        return;
    }
    struct spec_range range = spec_pick_any_range(w, s);
    unsigned order = (unsigned)spec_below(w, spec_chance(w, 40) ? 5 : 3);
    if (order == 2 && GUEST_PAGES > 4096 && !spec_chance(w, 40)) {
        order = 1;
    }
    if (order < 3 && !spec_chance(w, 20)) {
        range.at &= ~(level_size(order) - 1);
    }
    range.size = order < 3 ? level_size(order) : PAGE_SIZE;
    if (ops_past(w, &range)) {
        return;
    }
    struct ref_region region = ops_pick_region(w);
    if (order == 2 && GUEST_PAGES > 4096) {
        region.policy = REF_PRIVATE;
    }
    struct region core = ops_core_region(w, &region);
    spec_say(w, "map %u 0x%" PRIx64 " order %u policy %u rights %u", s, range.at, order,
             region.policy, region.rights);
    w->ref->commit = false;
    enum cleave_status expected = ref_map(w->ref, s, range.at, order, &region);
    ops_before(w);
    enum cleave_status got = space_map(w->ctx, w->space[s], gpa(range.at), order, &core);
    ops_touch(w, &range);
    /* A block needs neighbouring frames: there may be none long before the pool is empty. */
    uint64_t need = order == 0 ? 40 : 40 + 8 * level_pages(order) + w->pool->frames / 2;
    w->promised[s] = false;
    if (spec_agree(w, got, expected, w->space[s], need)) {
        w->ref->commit = true;
        (void)ref_map(w->ref, s, range.at, order, &region);
    }
}

static void op_map_device(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    if (s == REF_SPACES) {
        return;
    }
    struct spec_range range = spec_pick_any_range(w, s);
    if (ops_pages(&range) > level_pages(1)) {
        range.size = 2 * PAGE_SIZE;
    }
    if (ops_past(w, &range)) {
        return;
    }
    bool refuse = spec_chance(w, 16);
    unsigned rights = 1 + 2 * (unsigned)spec_below(w, 2);
    spec_say(w, "map_device %u 0x%" PRIx64 "+0x%" PRIx64 " rights %u refuse %d", s, range.at,
             range.size, rights, refuse);
    w->ref->commit = false;
    enum cleave_status expected =
        ref_map_device(w->ref, s, range.at, range.size, w->device.v, rights, refuse);
    ops_before(w);
    enum cleave_status got = space_map_device(w->ctx, w->space[s], gpa(range.at), range.size,
                                              w->device, rights, refuse);
    ops_touch(w, &range);
    w->promised[s] = false;
    if (spec_agree(w, got, expected, w->space[s], 40)) {
        w->ref->commit = true;
        (void)ref_map_device(w->ref, s, range.at, range.size, w->device.v, rights, refuse);
    }
}

static void op_unmap(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    if (s == REF_SPACES) {
        return;
    }
    struct spec_range range = spec_pick_any_range(w, s);
    spec_say(w, "unmap %u 0x%" PRIx64 "+0x%" PRIx64, s, range.at, range.size);
    w->ref->commit = false;
    enum cleave_status expected = ref_unmap(w->ref, s, range.at, range.size);
    enum cleave_status got;
    unsigned calls = 0;
    ops_before(w);
    do {
        ops_budget(w);
        got = space_unmap(w->ctx, w->space[s], gpa(range.at), range.size);
    } while (ops_again(w, got, s, &calls));
    ops_touch(w, &range);
    w->promised[s] = false;
    if (spec_agree(w, got, expected, w->space[s], 40)) {
        w->ref->commit = true;
        (void)ref_unmap(w->ref, s, range.at, range.size);
    }
}

/* --- Bytes ------------------------------------------------------------------------------------ */

#define BYTES_MOST (3 * PAGE_SIZE)

/* A place and size of an access; in the real geometry one that meets the bytes that are kept. */
static struct spec_range pick_bytes(struct world *w, unsigned s)
{
    struct spec_range range = {spec_pick_page(w, s) << PAGE_SHIFT, 0};
    uint64_t kept = w->ref->page_bytes;

    range.at += spec_below(w, kept);
    switch (spec_below(w, 4)) {
    case 0:
        range.size = 1 + spec_below(w, 2 * PAGE_SIZE);
        break;
    case 1:
        range.at &= ~(PAGE_SIZE - 1);
        range.size = PAGE_SIZE;
        break;
    default:
        range.size = 1 + spec_below(w, 8);
        break;
    }
    uint64_t left = (w->ref->pages << PAGE_SHIFT) - range.at;
    range.size = range.size < left ? range.size : left;
    return range;
}

static void fill(struct world *w, unsigned char *bytes, uint64_t size)
{
    uint64_t tag = test_random(&w->random) | 1;
    for (uint64_t i = 0; i < size; i++) {
        bytes[i] = (unsigned char)(tag >> (i % 8 * 8)) ^ (unsigned char)(i >> 3);
    }
}

/* What was read, against what the reference keeps of it. */
static void check_bytes(struct world *w, unsigned s, struct spec_range range, uint64_t done,
                        const unsigned char *bytes)
{
    for (uint64_t i = 0; i < done;) {
        uint64_t offset = (range.at + i) & (PAGE_SIZE - 1);
        uint64_t step = PAGE_SIZE - offset < done - i ? PAGE_SIZE - offset : done - i;
        struct ref_page page = ref_page(w->ref, s, (range.at + i) >> PAGE_SHIFT);
        if (offset < w->ref->page_bytes && page.policy != REF_DEVICE) {
            uint64_t kept = w->ref->page_bytes - offset;
            kept = kept < step ? kept : step;
            if (memcmp(bytes + i, ref_bytes(w->ref, &page) + offset, kept) != 0) {
                spec_fail(w, "space %u reads other bytes at 0x%" PRIx64, s, range.at + i);
            }
        }
        i += step;
    }
}

bool ops_any_paged(struct world *w, unsigned s, struct spec_range range)
{
    uint64_t end = (range.at + range.size + PAGE_SIZE - 1) >> PAGE_SHIFT;
    for (uint64_t page = range.at >> PAGE_SHIFT; page < end; page++) {
        if (ref_page(w->ref, s, page).policy == REF_PAGED && abs_walk(w->space[s], page).paged) {
            return true;
        }
    }
    return false;
}

struct spec_range ops_cut_where_asked(struct world *w, unsigned s, struct spec_range range)
{
    uint64_t end = (range.at + range.size + PAGE_SIZE - 1) >> PAGE_SHIFT;
    for (uint64_t page = range.at >> PAGE_SHIFT; page < end; page++) {
        struct ref_page found = ref_page(w->ref, s, page);
        uint64_t first = PAGE_SIZE - (range.at & (PAGE_SIZE - 1));
        if ((ref_armed(w->ref, &found) || found.policy == REF_PAGED ||
             found.policy == REF_FOREIGN) && range.size > first) {
            range.size = first;
        }
    }
    return range;
}

static void op_read(struct world *w)
{
    unsigned char bytes[BYTES_MOST];
    unsigned s = spec_pick_space(w, SPEC_ANY);
    if (s == REF_SPACES) {
        return;
    }
    struct spec_range range = ops_cut_where_asked(w, s, pick_bytes(w, s));
    uint64_t done;
    spec_say(w, "read %u 0x%" PRIx64 "+0x%" PRIx64, s, range.at, range.size);
    enum cleave_status expected = ref_read(w->ref, s, range.at, range.size, &done);
    ops_before(w);
    enum cleave_status got =
        space_read(w->ctx, w->space[s], gpa(range.at), bytes, range.size, NULL);
    if (got == CLEAVE_WAIT && ops_any_paged(w, s, range)) {
        return;
    }
    if (spec_agree(w, got, expected, w->space[s], 60 + level_pages(1))) {
        check_bytes(w, s, range, range.size, bytes);
    }
}

static void op_write(struct world *w)
{
    unsigned char bytes[BYTES_MOST];
    unsigned s = spec_pick_space(w, SPEC_ANY);
    if (s == REF_SPACES) {
        return;
    }
    struct spec_range range = ops_cut_where_asked(w, s, pick_bytes(w, s));
    uint64_t page = range.at >> PAGE_SHIFT;
    uint64_t expected_done, done = 0;
    spec_say(w, "write %u 0x%" PRIx64 "+0x%" PRIx64, s, range.at, range.size);
    fill(w, bytes, range.size);
    w->ref->commit = false;
    enum cleave_status expected =
        ref_write(w->ref, s, range.at, bytes, range.size, &expected_done);
    if (expected == CLEAVE_WAIT && ops_foresee_notice(w, s, page) == CLEAVE_OK) {
        expected = CLEAVE_OK;
        expected_done = range.size;
    }
    bool paged = ops_any_paged(w, s, range);
    ops_before(w);
    enum cleave_status got =
        space_write(w->ctx, w->space[s], gpa(range.at), bytes, range.size, NULL, &done);
    ops_notice(w, s, page, got);
    if (done > expected_done || (got == expected && done != expected_done)) {
        spec_fail(w, "%" PRIu64 " bytes written, not %" PRIu64, done, expected_done);
    }
    if (done < expected_done && (got == CLEAVE_NO_MEMORY || got == CLEAVE_QUOTA)) {
        expected = CLEAVE_OK; /* it would have got further */
    }
    if (!(got == CLEAVE_WAIT && paged)) {
        (void)spec_agree(w, got, expected, w->space[s], 60 + level_pages(1));
    }
    w->ref->commit = true;
    (void)ref_write(w->ref, s, range.at, bytes, done, &expected_done);
    range.size += PAGE_SIZE;
    ops_touch(w, &range);
}

/* Puts a CPU into some space. False when it cannot run it, as foreseen. */
static bool enter(struct world *w, unsigned cpu)
{
    static const enum cleave_status entered[] = {CLEAVE_DYING, CLEAVE_OK, CLEAVE_FROZEN,
                                                 CLEAVE_DYING};
    unsigned s = spec_pick_space(w, SPEC_ANY);

    if (s == REF_SPACES) {
        return false;
    }
    spec_say(w, "cpu %u enters %u", cpu, s);
    host_cpu_stop(cpu);
    w->vcpu[cpu].space = REF_SPACES;
    enum cleave_status status = host_cpu_run(cpu, w->space[s]);
    if (!spec_agree(w, status, entered[w->ref->space[s].life], NULL, 0)) {
        return false;
    }
    w->vcpu[cpu].space = s;
    return true;
}

/* The access has to wait: for a subscriber, a load or memory. False when there is no reason to. */
static bool may_wait(struct world *w, struct spec_vcpu *vcpu, enum cleave_status expected, bool paged,
                     uint64_t need)
{
    vcpu->waiting = vcpu->wait.kind != WAIT_NONE;
    vcpu->pending = true;
    switch (vcpu->wait.kind) {
    case WAIT_NONE: /* it had nothing to wait with, or was woken at once */
        return expected == CLEAVE_WAIT || paged || spec_injected(w) ||
               w->free_before < need;
    case WAIT_MEMORY:
        w->exhausted++;
        if (spec_chance(w, 2)) {
            cancel_wait(w, vcpu);
        }
        return spec_injected(w) || (w->free_before < need && !w->promised[vcpu->space]);
    case WAIT_VERDICT:
    case WAIT_RING:
        return expected == CLEAVE_WAIT;
    case WAIT_LOAD:
        return paged;
    }
    return false;
}

/* Accesses one page. True when it went through. */
static bool access_page(struct world *w, unsigned cpu, struct spec_range range, enum access access)
{
    unsigned char bytes[PAGE_SIZE];
    struct spec_vcpu *vcpu = &w->vcpu[cpu];
    unsigned s = vcpu->space;
    uint64_t page = range.at >> PAGE_SHIFT;
    uint64_t need = 60 + level_pages(1);
    enum wait_outcome outcome = vcpu->wait.outcome;
    enum cleave_status expected = ref_access(w->ref, s, page, (enum ref_access)access);
    uint64_t written;

    if (expected == CLEAVE_WAIT) {
        expected = ops_foresee_notice(w, s, page);
    }
    bool paged = expected == CLEAVE_OK && ops_any_paged(w, s, range);
    fill(w, bytes, range.size);
    struct vcpu_wait *wait = vcpu->pending || spec_chance(w, 2) ? &vcpu->wait : NULL;
    host_cpu_set_wait(cpu, wait);
    vcpu->pending = false;
    vcpu->at = range.at;
    vcpu->access = access;
    ops_before(w);
    enum cleave_status got = host_cpu_access(cpu, gpa(range.at), access, bytes, range.size);
    spec_touch(w, page & ~UINT64_C(15), (page | 15) + 1);
    if (access == ACCESS_WRITE) {
        bool verdict = !wait || wait->kind == WAIT_VERDICT || wait->kind == WAIT_RING;
        ops_notice(w, s, page, got == CLEAVE_WAIT && !verdict ? CLEAVE_NO_MEMORY : got);
    }
    if ((got == CLEAVE_DENIED && outcome == WAIT_DENIED) ||
        (got == CLEAVE_IO && outcome == WAIT_FAILED)) {
        w->refused++;
        return false;
    }
    if (got == CLEAVE_WAIT && may_wait(w, vcpu, expected, paged, need)) {
        return false;
    }
    if (!vcpu->waiting && vcpu->wait.grant.reserved > 0) {
        cancel_wait(w, vcpu); /* it went on without */
    }
    if (!spec_agree(w, got, expected, w->space[s], need)) {
        return false;
    }
    if (access == ACCESS_WRITE) {
        w->ref->commit = true;
        (void)ref_write(w->ref, s, range.at, bytes, range.size, &written);
    } else {
        check_bytes(w, s, range, range.size, bytes);
    }
    return true;
}

/* A guest's access, page by page, through the model TLB of one of the CPUs that run it. A vcpu that
 * was woken makes its access again. */
static void op_access(struct world *w)
{
    unsigned cpu = 1 + (unsigned)spec_below(w, SPEC_VCPUS - 1);
    struct spec_vcpu *vcpu = &w->vcpu[cpu];
    enum access access = (enum access)spec_below(w, 3);

    if (vcpu->waiting || (vcpu->space < REF_SPACES && w->changing[vcpu->space])) {
        return;
    }
    if (!vcpu->pending && (vcpu->space == REF_SPACES || spec_chance(w, 12)) && !enter(w, cpu)) {
        return;
    }
    struct spec_range range = pick_bytes(w, vcpu->space);
    bool again = vcpu->pending;
    if (again) {
        range = (struct spec_range){vcpu->at, 1};
        access = vcpu->access;
    }
    spec_say(w, "cpu %u in %u %s 0x%" PRIx64 "+0x%" PRIx64 "%s", cpu, vcpu->space,
             (const char *[]){"reads", "writes", "fetches"}[access], range.at, range.size,
             again ? " again" : "");
    for (uint64_t done = 0; done < range.size;) {
        uint64_t at = range.at + done;
        uint64_t step = PAGE_SIZE - (at & (PAGE_SIZE - 1));
        step = step < range.size - done ? step : range.size - done;
        if (!access_page(w, cpu, (struct spec_range){at, step}, access)) {
            return;
        }
        done += step;
    }
}

static void op_make_exclusive(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ALIVE);
    if (s == REF_SPACES) {
        return;
    }
    struct spec_range range = {spec_pick_page(w, s) << PAGE_SHIFT, PAGE_SIZE};
    uint64_t left = (w->ref->pages << PAGE_SHIFT) - range.at;
    range.size *= 1 + spec_below(w, 4);
    range.size = range.size < left ? range.size : left;
    range = ops_cut_where_asked(w, s, range);
    uint64_t page = range.at >> PAGE_SHIFT;
    uint64_t end = (range.at + range.size) >> PAGE_SHIFT;
    spec_say(w, "make_exclusive %u [0x%" PRIx64 ", 0x%" PRIx64 ")", s, page, end);
    enum cleave_status expected = ref_make_exclusive(w->ref, s, page, end);
    expected = expected == CLEAVE_WAIT ? ops_foresee_notice(w, s, page) : expected;
    bool paged = ops_any_paged(w, s, range);
    ops_before(w);
    enum cleave_status got =
        space_make_exclusive(w->ctx, w->space[s], (struct gfn_range){gfn(page), gfn(end)}, NULL);
    ops_notice(w, s, page, got);
    ops_touch(w, &range);
    if (end > page + 1 && (got == CLEAVE_NO_MEMORY || got == CLEAVE_QUOTA)) {
        expected = CLEAVE_OK; /* it would have got further */
    }
    if (!(got == CLEAVE_WAIT && paged)) {
        (void)spec_agree(w, got, expected, w->space[s], 60 + 5 * level_pages(1));
    }
}

static void op_collapse(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ALIVE);
    if (s == REF_SPACES) {
        return;
    }
    unsigned level = 1 + (unsigned)spec_chance(w, 4);
    uint64_t page = spec_pick_page(w, s) & ~(level_pages(level) - 1);
    spec_say(w, "collapse %u page 0x%" PRIx64 " level %u", s, page, level);
    enum cleave_status got;
    unsigned calls = 0;
    ops_before(w);
    do {
        ops_budget(w);
        got = space_collapse(w->ctx, w->space[s], gpa(page << PAGE_SHIFT), level);
    } while (ops_again(w, got, s, &calls));
    spec_touch(w, page, page + level_pages(level));
    if (got != CLEAVE_OK && got != CLEAVE_NOT_MAPPED && got != CLEAVE_BUSY &&
        got != CLEAVE_NO_MEMORY && got != CLEAVE_QUOTA) {
        spec_fail(w, "status %u of a collapse", got);
    }
    *(got ? &w->refused : &w->applied) += 1;
}

/* --- Forks ------------------------------------------------------------------------------------ */

static void op_fork(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    unsigned child[4];
    struct space *made[4];
    unsigned count = 0;
    uint64_t want = spec_chance(w, 4) ? 1 + spec_below(w, 3) : 1;

    if (s == REF_SPACES) {
        return;
    }
    for (unsigned i = 0; i < REF_SPACES && count < want && alive(w) + count < w->shard->spaces;
         i++) {
        if (w->ref->space[i].life == REF_UNUSED) {
            child[count++] = i;
        }
    }
    if (count == 0) {
        return;
    }
    struct fork_options options = {.limit = spec_chance(w, 10) ? spec_below(w, 60) : UINT64_MAX,
                                   .reserve = spec_chance(w, 12),
                                   .base = spec_chance(w, 3),
                                   .vcpus = 1};
    unsigned asked = spec_chance(w, 40) ? (unsigned[]){0, FORK_MAX + 1, UINT32_MAX}[spec_below(w, 3)]
                                        : count;
    spec_say(w, "fork %u -> %u..%u (%u) limit %" PRId64 " reserve %d base %d", s, child[0],
             child[count - 1], asked, (int64_t)options.limit, options.reserve, options.base);
    w->ref->commit = false;
    enum cleave_status expected = ref_fork(w->ref, s, child, asked, FORK_MAX, options.base);
    ops_before(w);
    enum cleave_status got = space_fork(w->ctx, w->space[s], asked, &options, made);
    bool renews = w->space[s]->reserve_goal > 0;
    bool poor = got == CLEAVE_QUOTA &&
                (options.limit < 60 || spec_out_of_quota(w, w->space[s], renews ? 1000 : 200));
    if (expected == CLEAVE_OK && (poor || (got == CLEAVE_RESERVE && (options.reserve || renews)))) {
        w->exhausted++;
        return;
    }
    uint64_t pinned = ops_pinned_pages(w, s);
    if (spec_agree(w, got, expected, NULL, (60 + 8 * pinned) * count + 4 * GUEST_PAGES / 64)) {
        w->ref->commit = true;
        (void)ref_fork(w->ref, s, child, count, FORK_MAX, options.base);
        for (unsigned i = 0; i < count; i++) {
            w->space[child[i]] = made[i];
            w->promised[child[i]] = options.reserve;
        }
    }
}

static void op_snapshot(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    unsigned child = ref_unused(w->ref);

    if (s == REF_SPACES || child == REF_SPACES || alive(w) >= w->shard->spaces) {
        return;
    }
    spec_say(w, "snapshot %u -> %u", s, child);
    w->ref->commit = false;
    enum cleave_status expected = ref_snapshot(w->ref, s, child);
    ops_before(w);
    enum cleave_status got = space_snapshot(w->ctx, w->space[s], UINT64_MAX, &w->space[child]);
    struct space *payer = got == CLEAVE_QUOTA ? w->space[s] : NULL; /* for its pins' tables */
    if (spec_agree(w, got, expected, payer, 60 + 8 * ops_pinned_pages(w, s))) {
        w->ref->commit = true;
        (void)ref_snapshot(w->ref, s, child);
        w->promised[child] = false;
    }
}

static void op_reset(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    struct gfn_range keep[3];
    unsigned kept = 0;

    if (s == REF_SPACES || maps_uncertain(w, s)) {
        return;
    }
    while (spec_chance(w, 3) && kept < 3) {
        struct spec_range range = spec_pick_range(w, s);
        keep[kept++] = (struct gfn_range){gfn(range.at >> PAGE_SHIFT),
                                          gfn((range.at + range.size) >> PAGE_SHIFT)};
    }
    spec_say(w, "reset %u keep %u", s, kept);
    w->ref->commit = false;
    enum cleave_status expected = ref_reset(w->ref, s);
    enum cleave_status got;
    unsigned calls = 0;
    ops_before(w);
    do {
        ops_budget(w);
        got = space_reset(w->ctx, w->space[s], kept ? keep : NULL, kept);
    } while (ops_again(w, got, s, &calls));
    spec_touch(w, 0, w->ref->pages < 2048 ? w->ref->pages : 2048);
    w->promised[s] = false;
    if (spec_agree(w, got, expected, w->space[s], 60)) {
        w->ref->commit = true;
        (void)ref_reset(w->ref, s);
    }
}

/* Every page that differs is reported; and when the answer is to be exact, no other. */
static void check_diff(struct world *w, unsigned a, unsigned b, const struct diff *diff,
                       uint64_t from, uint64_t end, bool exact)
{
    uint64_t at = from;
    unsigned next = 0;

    while (at < end) {
        bool reported = next < diff->count && at >= diff->found[next].start.v;
        if (next < diff->count && at >= diff->found[next].end.v) {
            next++;
            continue;
        }
        enum ref_answer differs = ref_differs(w->ref, a, b, at);
        if (differs == REF_YES && !reported) {
            spec_fail(w, "page 0x%" PRIx64 " differs and is not reported", at);
        }
        if (exact && reported && differs == REF_NO) {
            spec_fail(w, "page 0x%" PRIx64 " is reported and does not differ", at);
        }
        uint64_t a_next = ref_next_change(w->ref, a, at + 1);
        uint64_t b_next = ref_next_change(w->ref, b, at + 1);
        uint64_t step = a_next < b_next ? a_next : b_next;
        at = step > at + 1 && !reported && next >= diff->count ? step : at + 1;
    }
}

static void op_diff(struct world *w)
{
    unsigned a = spec_pick_space(w, SPEC_ALIVE | SPEC_FROZEN);
    unsigned b = spec_pick_space(w, SPEC_ALIVE | SPEC_FROZEN);
    struct gfn_range found[40];
    bool exact = spec_chance(w, 2);
    unsigned room = 1 + (unsigned)spec_below(w, 40);
    unsigned calls = 0;

    if (a == REF_SPACES || b == REF_SPACES || a == b) {
        return;
    }
    uint64_t from = spec_chance(w, 2) ? 0 : spec_pick_page(w, a);
    spec_say(w, "diff %u %u from 0x%" PRIx64 " exact %d room %u", a, b, from, exact, room);
    enum cleave_status got;
    do {
        struct diff diff = {.from = gfn(from), .end = gfn(w->ref->pages), .exact = exact,
                            .found = found, .room = room};
        ops_budget(w);
        got = space_diff(w->ctx, w->space[a], w->space[b], &diff);
        if (got != CLEAVE_OK && got != CLEAVE_AGAIN) {
            spec_fail(w, "status %u of a diff", got);
        }
        if (diff.count > room || diff.from.v < from || diff.from.v > w->ref->pages) {
            spec_fail(w, "a diff of %u ranges goes on at 0x%" PRIx64, diff.count, diff.from.v);
        }
        uint64_t upto = got == CLEAVE_OK ? w->ref->pages : diff.from.v;
        check_diff(w, a, b, &diff, from, upto, exact);
        from = upto;
        calls++;
    } while (got == CLEAVE_AGAIN && calls < 1000000);
    w->applied++;
}

static void op_move(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    if (s == REF_SPACES || maps_uncertain(w, s)) {
        return;
    }
    struct spec_range range = spec_pick_any_range(w, s);
    uint64_t to = spec_pick_any_range(w, s).at;
    if (ops_pages(&range) > 0 && !spec_chance(w, 16)) { /* mostly into a hole that fits */
        for (unsigned i = 0; i < 8; i++) {
            uint64_t left = w->ref->pages - ops_pages(&range);
            uint64_t page = spec_pick_range(w, s).at >> PAGE_SHIFT;
            page = page < left ? page : left;
            to = page << PAGE_SHIFT;
            if (ref_page(w->ref, s, page).policy == REF_NONE) {
                break;
            }
        }
    }
    uint64_t copies = 0;
    spec_say(w, "move %u 0x%" PRIx64 "+0x%" PRIx64 " to 0x%" PRIx64, s, range.at, range.size, to);
    if (ops_pages(&range) > 0 && to >> PAGE_SHIFT < GUEST_PAGES &&
        (to >> PAGE_SHIFT) + ops_pages(&range) > w->ref->pages) {
        return; /* past what the reference keeps */
    }
    w->ref->commit = false;
    enum cleave_status expected = ref_move(w->ref, s, range.at, to, range.size);
    enum cleave_status got;
    unsigned calls = 0;
    ops_before(w);
    do {
        ops_budget(w);
        got = space_move(w->ctx, w->space[s], gpa(range.at), gpa(to), range.size, &copies);
    } while (ops_again(w, got, s, &calls));
    ops_touch(w, &range);
    ops_touch(w, &(struct spec_range){to, range.size});
    w->promised[s] = false;
    if (spec_agree(w, got, expected, w->space[s], 60 + 3 * ops_pages(&range))) {
        w->ref->commit = true;
        (void)ref_move(w->ref, s, range.at, to, range.size);
    }
}

/* --- Memory ----------------------------------------------------------------------------------- */

static void op_limit(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ALIVE);
    if (s == REF_SPACES) {
        return;
    }
    uint64_t limit = spec_chance(w, 4) ? spec_below(w, 100) : UINT64_MAX;
    spec_say(w, "limit %u %" PRId64, s, (int64_t)limit);
    ops_before(w);
    enum cleave_status got =
        account_set_limit(w->ctx, w->pool, w->space[s]->payer.account, limit);
    (void)spec_agree(w, got, CLEAVE_OK, NULL, 0);
}

static void op_usage(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ALIVE | SPEC_FROZEN);
    struct space_usage usage = {0};
    gfn_t from = gfn(0);
    enum cleave_status got;
    unsigned calls = 0;

    if (s == REF_SPACES) {
        return;
    }
    spec_say(w, "usage %u", s);
    do {
        ops_budget(w);
        got = space_usage(w->ctx, w->space[s], &from, &usage);
    } while (got == CLEAVE_AGAIN && ++calls < 1000000);
    uint64_t mapped[LEAF_ORDERS] = {0};
    for (uint64_t at = 0; at < w->ref->pages;) {
        struct abs_page page = abs_walk(w->space[s], at);
        if (page.present && ref_page(w->ref, s, at).policy != REF_DEVICE) {
            mapped[page.level] += page.pages << PAGE_SHIFT;
        }
        at += page.pages;
    }
    uint64_t sum = 0;
    for (unsigned o = 0; o < LEAF_ORDERS; o++) {
        sum += mapped[o];
        if (mapped[o] != usage.mapped[o]) {
            spec_fail(w, "usage says %" PRIu64 " bytes at order %u, not %" PRIu64, usage.mapped[o],
                      o, mapped[o]);
        }
    }
    if (usage.exclusive + usage.shared != sum) {
        spec_fail(w, "usage: %" PRIu64 " bytes alone and %" PRIu64 " shared, not %" PRIu64,
                  usage.exclusive, usage.shared, sum);
    }
    (void)spec_agree(w, got, CLEAVE_OK, NULL, 0);
}

/* --- The table -------------------------------------------------------------------------------- */

const struct spec_op ops_space[] = {
    {"create", 3, true, op_create},
    {"destroy", 5, true, op_destroy},
    {"set_region", 8, true, op_set_region},
    {"protect", 5, true, op_protect},
    {"populate", 5, true, op_populate},
    {"map", 8, true, op_map},
    {"map_device", 1, true, op_map_device},
    {"unmap", 6, true, op_unmap},
    {"read", 4, true, op_read},
    {"write", 14, true, op_write},
    {"access", 30, true, op_access},
    {"make_exclusive", 2, true, op_make_exclusive},
    {"collapse", 4, true, op_collapse},
    {"fork", 7, true, op_fork},
    {"snapshot", 2, true, op_snapshot},
    {"reset", 3, true, op_reset},
    {"diff", 3, true, op_diff},
    {"move", 4, true, op_move},
    {"limit", 1, true, op_limit},
    {"usage", 1, true, op_usage},
};
const unsigned ops_space_count = sizeof(ops_space) / sizeof(ops_space[0]);

void spec_end(struct world *w)
{
    for (unsigned cpu = 1; cpu < SPEC_VCPUS; cpu++) {
        host_cpu_stop(cpu);
    }
    ops_end_hold(w);
    for (unsigned i = 0; i < REF_SPACES; i++) {
        unsigned s = spec_pick_space(w, SPEC_ANY);
        if (s == REF_SPACES) {
            break;
        }
        enum cleave_status got;
        unsigned calls = 0;
        w->ref->commit = true;
        (void)ref_destroy_begin(w->ref, s);
        ops_forget_space(w, s);
        do {
            w->ctx->budget = 1 + spec_below(w, 1000);
            got = space_destroy(w->ctx, w->space[s]);
            ops_take_back(w, s, got == CLEAVE_OK);
        } while (got == CLEAVE_AGAIN && ++calls < 1000000);
        if (got != CLEAVE_OK) {
            spec_fail(w, "status %u of the last destroy of space %u", got, s);
        }
        ref_destroy_end(w->ref, s);
        spec_compare(w, true);
    }
    ops_end_notify(w);
}
