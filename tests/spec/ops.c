/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations on spaces, regions and mappings, and what all operations share. */
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
    if (spec_chance(w, 12)) {
        region.rights = 0;
    } else if (spec_chance(w, 30)) {
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
    w->ctx->budget = spec_chance(w, 2) ? UINT64_MAX : 1 + spec_below(w, w->shard->ragged ? 8 : 40);
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
    w->owner = NULL;
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

unsigned ops_alive(const struct world *w)
{
    unsigned count = 0;
    for (unsigned s = 0; s < REF_SPACES; s++) {
        count += w->ref->space[s].life != REF_UNUSED;
    }
    return count;
}

static void give_memory(struct world *w, unsigned s)
{
    const struct ref_region region = {.policy = REF_PRIVATE, .rights = 7, .order = 1};
    const struct region core = {.policy = REGION_PRIVATE, .rights = 7, .order = 1};
    uint64_t size = w->shard->memory * level_size(1);

    w->ref->commit = false;
    enum cleave_status expected = ref_set_region(w->ref, s, 0, size, &region);
    ops_before(w);
    enum cleave_status got = space_set_region(w->ctx, w->space[s], gpa(0), size, &core);
    spec_touch(w, 0, w->shard->memory * level_pages(1));
    if (spec_agree(w, got, expected, w->space[s], 40)) {
        w->ref->commit = true;
        (void)ref_set_region(w->ref, s, 0, size, &region);
    }
}

static void op_create(struct world *w)
{
    unsigned s = ref_unused(w->ref);
    if (s == REF_SPACES || ops_alive(w) >= w->shard->spaces) {
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
        w->promised[s] = 0;
        if (w->shard->memory > 0) {
            give_memory(w, s);
        }
    }
}

/* Takes a vcpu out of whatever queue it waits in, and gives back what it was granted. */
void ops_cancel_wait(struct world *w, struct spec_vcpu *vcpu)
{
    switch (vcpu->wait.kind) {
    case WAIT_NONE:
    case WAIT_MEMORY:
        pool_cancel_wait(w->ctx, w->pool, &vcpu->wait);
        break;
    case WAIT_VERDICT:
    case WAIT_RING:
    case WAIT_EVENT:
        channel_cancel_wait(w->ctx, w->pool, &vcpu->wait);
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
            ops_cancel_wait(w, &w->vcpu[cpu]);
            host_cpu_stop(cpu);
            w->vcpu[cpu].space = REF_SPACES;
        }
    }
}

/* A mapper of this space's pages is going away or being reset, and the maps with it: they may be
 * there or not. */
bool ops_maps_uncertain(const struct world *w, unsigned s)
{
    for (unsigned i = 0; i < REF_MAPS; i++) {
        const struct ref_map *map = &w->ref->map[i];
        if (map->live && map->owner == s &&
            (w->ref->space[map->mapper].life == REF_DYING || w->changing[map->mapper])) {
            return true;
        }
    }
    return false;
}

/* The first call makes the space dying; it may stay so for some steps. */
/* Grains that are dirty in all spaces. */
static uint64_t all_dirty(const struct world *w)
{
    uint64_t dirty = 0;
    for (unsigned i = 0; i < REF_CHANNELS; i++) {
        dirty += w->ref->channel[i] ? ref_dirty(w->ref, i, 1) : 0;
    }
    return dirty;
}

static void op_destroy(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    if (s == REF_SPACES || w->stopped ||
        (ops_alive(w) <= 2 && w->ref->space[s].life != REF_DYING)) {
        return;
    }
    spec_say(w, "destroy %u", s);
    w->ref->commit = true;
    uint64_t dirty = all_dirty(w);
    enum cleave_status expected = ref_destroy_begin(w->ref, s);
    /* Dirty grains go step by step and count until they are gone, which the reference does not
     * know. */
    bool leave = spec_chance(w, 6) && all_dirty(w) == dirty;
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
    if (s == REF_SPACES || ops_maps_uncertain(w, s)) {
        return;
    }
    struct spec_range range = spec_pick_any_range(w, s);
    struct ref_region region = ops_pick_region(w);
    struct region core = ops_core_region(w, &region);
    spec_say(w, "set_region %u 0x%" PRIx64 "+0x%" PRIx64 " policy %u rights %u order %u", s,
             range.at, range.size, region.policy, region.rights, region.order);
    w->ref->commit = false;
    enum cleave_status expected = ref_set_region(w->ref, s, range.at, range.size, &region);
    enum cleave_status got;
    unsigned calls = 0;
    ops_before(w);
    do {
        ops_budget(w);
        got = space_set_region(w->ctx, w->space[s], gpa(range.at), range.size, &core);
    } while (ops_again(w, got, s, &calls));
    ops_touch(w, &range);
    w->promised[s] = 0;
    if (got != expected && expected == CLEAVE_BUSY) {
        w->ref->commit = false; /* a pin or a map may have ended between two parts */
        expected = ref_set_region(w->ref, s, range.at, range.size, &region);
    }
    if (spec_agree(w, got, expected, w->space[s], 40 + 3 * ops_pages(&range))) {
        w->ref->commit = true;
        (void)ref_set_region(w->ref, s, range.at, range.size, &region);
    }
}

/* Gives neighbouring pages other rights each, so that the regions have many words. */
static void op_ragged(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ALIVE);
    if (s == REF_SPACES || !w->shard->ragged || w->nested || ops_maps_uncertain(w, s)) {
        return;
    }
    spec_say(w, "ragged %u", s);
    host_fail_allocation(0);
    for (uint64_t page = 0; page < 4 * level_pages(2); page++) {
        const struct ref_region region = {.policy = REF_PRIVATE, .rights = page % 2 ? 3 : 1};
        const struct region core = {.policy = REGION_PRIVATE, .rights = region.rights};
        gpa_t at = gfn_to_gpa(gfn(page));
        w->ref->commit = false;
        if (ref_set_region(w->ref, s, at.v, PAGE_SIZE, &region) != CLEAVE_OK ||
            space_set_region(w->ctx, w->space[s], at, PAGE_SIZE, &core) != CLEAVE_OK) {
            continue; /* other memory, or none left */
        }
        w->ref->commit = true;
        (void)ref_set_region(w->ref, s, at.v, PAGE_SIZE, &region);
        w->applied++;
    }
    spec_touch(w, 0, 4 * level_pages(2));
    w->promised[s] = 0;
}

static void op_protect(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    if (s == REF_SPACES) {
        return;
    }
    struct spec_range range = spec_pick_any_range(w, s);
    unsigned rights = spec_chance(w, 20)  ? (unsigned)spec_below(w, 9)
                      : spec_chance(w, 4) ? 0
                                          : 1 + 2 * (unsigned)spec_below(w, 4);
    spec_say(w, "protect %u 0x%" PRIx64 "+0x%" PRIx64 " rights %u", s, range.at, range.size,
             rights);
    w->ref->commit = false;
    enum cleave_status expected = ref_protect(w->ref, s, range.at, range.size, rights);
    enum cleave_status got;
    unsigned calls = 0;
    ops_before(w);
    do {
        ops_budget(w);
        got = space_protect(w->ctx, w->space[s], gpa(range.at), range.size, rights);
    } while (ops_again(w, got, s, &calls));
    ops_touch(w, &range);
    w->promised[s] = 0;
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
    w->promised[s] = 0;
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
    w->promised[s] = 0;
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
    enum cleave_status got;
    unsigned calls = 0;
    ops_before(w);
    do {
        ops_budget(w);
        got = space_map_device(w->ctx, w->space[s], gpa(range.at), range.size, w->device, rights,
                               refuse);
    } while (ops_again(w, got, s, &calls));
    ops_touch(w, &range);
    w->promised[s] = 0;
    if (spec_agree(w, got, expected, w->space[s], 40 + 2 * ops_pages(&range))) {
        w->ref->commit = true;
        (void)ref_map_device(w->ref, s, range.at, range.size, w->device.v, rights, refuse);
    }
}

/* The range of an unmap that was stopped holds nothing any more: only what went is being dropped.
 */
static bool range_is_gone(const struct space *space)
{
    return space->op == OP_NONE || (space->op == OP_UNMAP && space->op_phase == PHASE_BUILD);
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
        if (got == CLEAVE_AGAIN && expected == CLEAVE_OK && range_is_gone(w->space[s])) {
            w->ref->commit = true; /* who maps one of its pages can tell */
            (void)ref_unmap(w->ref, s, range.at, range.size);
        }
    } while (ops_again(w, got, s, &calls));
    ops_touch(w, &range);
    w->promised[s] = 0;
    if (spec_agree(w, got, expected, w->space[s], 40)) {
        w->ref->commit = true;
        (void)ref_unmap(w->ref, s, range.at, range.size);
    }
}

/* --- The end ---------------------------------------------------------------------------------- */

const struct spec_op ops_space[] = {
    {"create", 3, true, op_create},         {"destroy", 5, true, op_destroy},
    {"set_region", 8, true, op_set_region}, {"protect", 5, true, op_protect},
    {"populate", 5, true, op_populate},     {"map", 8, true, op_map},
    {"map_device", 1, true, op_map_device}, {"unmap", 6, true, op_unmap},
    {"ragged", 5, true, op_ragged},
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
