/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random operations of subscribers and pagers, and what the driver keeps about their events. Events
 * are taken as soon as they are there, and decided at random later.
 */
#include "change.h"
#include "ops.h"

#include <inttypes.h>
#include <string.h>

#include "test.h"

/* --- Channels --------------------------------------------------------------------------------- */

static uint64_t grain_of(const struct spec_channel *c) { return level_pages(c->grain); }

static struct spec_channel *pick_channel(struct world *w)
{
    unsigned start = (unsigned)spec_below(w, SPEC_CHANNELS);
    for (unsigned i = 0; i < SPEC_CHANNELS; i++) {
        struct spec_channel *c = &w->channel[(start + i) % SPEC_CHANNELS];
        if (c->core) {
            return c;
        }
    }
    return NULL;
}

/* Takes what is queued and checks that each event is about one grain. */
static void take_events(struct world *w, struct spec_channel *c)
{
    struct event event;
    while (channel_next(w->ctx, c->core, &event)) {
        if (event.range.start.v % grain_of(c) != 0 ||
            event.range.end.v - event.range.start.v != grain_of(c)) {
            spec_fail(w, "event %" PRIu64 " is about [0x%" PRIx64 ", 0x%" PRIx64 ")", event.id,
                      event.range.start.v, event.range.end.v);
        }
        if (c->events == CHANNEL_EVENTS) {
            spec_fail(w, "more than %u events", CHANNEL_EVENTS);
        }
        c->event[c->events++] = event;
    }
}

static bool has_event(const struct spec_channel *c, uint32_t space, uint64_t page)
{
    for (unsigned i = 0; i < c->events; i++) {
        if (c->event[i].space == space && page >= c->event[i].range.start.v &&
            page < c->event[i].range.end.v) {
            return true;
        }
    }
    return false;
}

static struct spec_channel *channel_of(struct world *w, const struct ref_page *page)
{
    for (unsigned i = 0; i < SPEC_CHANNELS; i++) {
        if (w->channel[i].core && page->channel == w->channel[i].number + 1) {
            return &w->channel[i];
        }
    }
    return NULL;
}

/* A write through a foreign map is told of as the owner's. */
static void resolve(struct world *w, unsigned *s, uint64_t *page)
{
    const struct ref_map *map = ref_map_at(w->ref, *s, *page);
    if (map && !map->detached) {
        *s = map->owner;
        *page = map->at;
    }
}

enum cleave_status ops_foresee_notice(struct world *w, unsigned s, uint64_t page)
{
    resolve(w, &s, &page);
    struct ref_page found = ref_page(w->ref, s, page);
    struct spec_channel *c = channel_of(w, &found);

    if (!c || !ref_armed(w->ref, &found)) {
        return CLEAVE_OK;
    }
    if (w->stopped == w->space[s] && change_building(w->stopped)) {
        return CLEAVE_WAIT;
    }
    return c->asynchronous &&
                   (c->max_dirty == 0 || ref_dirty(w->ref, c->number, grain_of(c)) < c->max_dirty)
               ? CLEAVE_OK
               : CLEAVE_WAIT;
}

void ops_notice(struct world *w, unsigned s, uint64_t page, enum cleave_status got)
{
    resolve(w, &s, &page);
    struct ref_page found = ref_page(w->ref, s, page);
    struct spec_channel *c = channel_of(w, &found);

    if (!c || !ref_armed(w->ref, &found)) {
        return;
    }
    uint64_t start = page / grain_of(c) * grain_of(c);
    uint64_t dirty = ref_dirty(w->ref, c->number, grain_of(c));
    bool changing = w->stopped == w->space[s] && change_building(w->stopped) && c->asynchronous;
    bool room = c->max_dirty == 0 || dirty + (c->asynchronous ? 0 : c->events) < c->max_dirty;
    room = room && c->events < CHANNEL_EVENTS && !changing;
    take_events(w, c);
    bool sent = has_event(c, w->space[s]->id, page);
    if (room && !sent && (got == CLEAVE_OK || got == CLEAVE_WAIT)) {
        spec_fail(w, "a write to armed page 0x%" PRIx64 " of space %u sent no event", page, s);
    }
    if (c->asynchronous) {
        c->events = 0; /* told is all there is to it, also when the write then fails */
        if (sent) {
            ref_allow(w->ref, s, start, start + grain_of(c), c->number);
        }
    }
}

static void op_channel(struct world *w)
{
    unsigned i = (unsigned)spec_below(w, SPEC_CHANNELS);
    struct spec_channel *c = &w->channel[i];

    if (c->core) {
        if (spec_chance(w, 3) && !w->stopped) {
            spec_say(w, "channel_destroy %u", c->number);
            channel_destroy(w->ctx, c->core);
            w->ref->channel[c->number] = false;
            *c = (struct spec_channel){0};
        }
        return;
    }
    struct channel_options options = {.asynchronous = spec_chance(w, 3),
                                      .grain = (uint8_t)spec_below(w, spec_chance(w, 20) ? 4 : 2),
                                      .max_dirty = spec_chance(w, 2) ? 0 : 1 + spec_below(w, 6)};
    if (w->channels == REF_CHANNELS) {
        return;
    }
    spec_say(w, "channel_create %u async %d grain %u max %" PRIu64, w->channels,
             options.asynchronous, options.grain, options.max_dirty);
    ops_before(w);
    struct channel *made = NULL;
    enum cleave_status got = channel_create(w->ctx, w->pool, &options, &made);
    if (spec_agree(w, got, options.grain > 1 ? CLEAVE_ORDER : CLEAVE_OK, NULL, 4)) {
        *c = (struct spec_channel){.core = made,
                                   .number = w->channels++,
                                   .asynchronous = options.asynchronous,
                                   .grain = options.grain,
                                   .max_dirty = options.max_dirty};
        w->ref->channel[c->number] = true;
    }
}

/* Events of grains that no longer belong to the channel are gone. */
static void drop_disarmed(struct world *w, struct spec_channel *c, unsigned s)
{
    for (unsigned i = 0; i < c->events;) {
        bool belongs = c->event[i].space != w->space[s]->id;
        for (uint64_t p = c->event[i].range.start.v; p < c->event[i].range.end.v; p++) {
            belongs |= p < w->ref->pages && ref_page(w->ref, s, p).channel == c->number + 1;
        }
        if (belongs) {
            i++;
        } else {
            c->event[i] = c->event[--c->events];
        }
    }
}

/* Arms, rearms or disarms in the reference. */
static enum cleave_status change_reference(struct world *w, unsigned what, unsigned s,
                                           const struct spec_range *range,
                                           const struct spec_channel *c, bool commit)
{
    w->ref->commit = commit;
    if (what < 2) {
        return ref_arm(w->ref, s, range->at, range->size, c->number);
    }
    return what < 4 ? ref_rearm(w->ref, s, range->at, range->size, c->number, grain_of(c))
                    : ref_disarm(w->ref, s, range->at, range->size, c->number);
}

static void op_arm(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    struct spec_channel *c = pick_channel(w);
    if (s == REF_SPACES || !c) {
        return;
    }
    struct spec_range range = spec_pick_any_range(w, s);
    unsigned what = (unsigned)spec_below(w, 5);
    spec_say(w, "channel_%s %u space %u 0x%" PRIx64 "+0x%" PRIx64,
             (const char *[]){"arm", "arm", "rearm", "rearm", "disarm"}[what], c->number, s,
             range.at, range.size);
    enum cleave_status expected = change_reference(w, what, s, &range, c, false);
    enum cleave_status got;
    unsigned calls = 0;
    w->promised[s] = 0;
    ops_before(w);
    do {
        ops_budget(w);
        got = what < 2   ? channel_arm(w->ctx, c->core, w->space[s], gpa(range.at), range.size)
              : what < 4 ? channel_rearm(w->ctx, c->core, w->space[s], gpa(range.at), range.size)
                         : channel_disarm(w->ctx, c->core, w->space[s], gpa(range.at), range.size);
    } while (ops_again(w, got, s, &calls));
    ops_touch(w, &range);
    if (got != expected && expected == CLEAVE_BUSY) { /* a pin may have ended between two parts */
        expected = change_reference(w, what, s, &range, c, false);
    }
    if (!spec_agree(w, got, expected, w->space[s], 60 + 2 * ops_pages(&range))) {
        return;
    }
    (void)change_reference(w, what, s, &range, c, true);
    if (what == 4) {
        drop_disarmed(w, c, s);
    }
}

void ops_forget_events(struct world *w, uint32_t id)
{
    for (unsigned k = 0; k < SPEC_CHANNELS; k++) {
        struct spec_channel *c = &w->channel[k];
        for (unsigned i = 0; c->core && i < c->events;) {
            if (c->event[i].space == id) {
                c->event[i] = c->event[--c->events];
            } else {
                i++;
            }
        }
    }
}

static unsigned space_by_id(const struct world *w, uint32_t id)
{
    unsigned s = 0;
    while (s < REF_SPACES && (w->ref->space[s].life == REF_UNUSED || w->space[s]->id != id)) {
        s++;
    }
    return s;
}

static void op_verdict(struct world *w)
{
    struct spec_channel *c = pick_channel(w);
    if (!c || c->asynchronous) {
        return;
    }
    if (c->events == 0 || spec_chance(w, 30)) {
        spec_say(w, "verdict %u on no event", c->number);
        ops_before(w);
        (void)spec_agree(w, channel_verdict(w->ctx, c->core, UINT64_MAX, VERDICT_ALLOW),
                         CLEAVE_INVALID, NULL, 0);
        return;
    }
    unsigned i = (unsigned)spec_below(w, c->events);
    struct event event = c->event[i];
    unsigned s = space_by_id(w, event.space);
    enum verdict verdict = spec_chance(w, 4) ? VERDICT_DENY : VERDICT_ALLOW;
    if (s < REF_SPACES && w->changing[s]) {
        return;
    }
    spec_say(w, "verdict %u on %" PRIu64 ": %s space %u page 0x%" PRIx64, c->number, event.id,
             verdict == VERDICT_ALLOW ? "allow" : "deny", s, event.range.start.v);
    ops_before(w);
    enum cleave_status got = channel_verdict(w->ctx, c->core, event.id, verdict);
    spec_touch(w, event.range.start.v, event.range.end.v);
    if (spec_agree(w, got, CLEAVE_OK, s < REF_SPACES ? w->space[s] : NULL, 40)) {
        c->event[i] = c->event[--c->events];
        if (verdict == VERDICT_ALLOW && s < REF_SPACES && w->ref->space[s].life == REF_ALIVE) {
            ref_allow(w->ref, s, event.range.start.v, event.range.end.v, c->number);
        }
    }
}

bool ops_dirty_agrees(struct world *w)
{
    bool agrees = true;
    for (unsigned i = 0; i < SPEC_CHANNELS && agrees; i++) {
        struct spec_channel *c = &w->channel[i];
        agrees =
            !c->core || ref_dirty(w->ref, c->number, grain_of(c)) == channel_dirty(w->ctx, c->core);
    }
    return agrees;
}

static void op_dirty(struct world *w)
{
    struct spec_channel *c = pick_channel(w);
    if (!c) {
        return;
    }
    for (unsigned s = 0; s < REF_SPACES; s++) {
        if (w->changing[s] || w->ref->space[s].life == REF_DYING) {
            return;
        }
    }
    spec_say(w, "channel_dirty %u", c->number);
    uint64_t expected = ref_dirty(w->ref, c->number, grain_of(c));
    uint64_t found = channel_dirty(w->ctx, c->core);
    if (found != expected) {
        spec_fail(w, "%" PRIu64 " grains are dirty, not %" PRIu64, found, expected);
    }
    w->applied++;
}

/* --- Pagers ----------------------------------------------------------------------------------- */

/* What a store holds at an offset. */
static void store_page(uint32_t store, uint64_t offset, unsigned char *bytes, uint64_t size)
{
    uint64_t state = (uint64_t)store << 40 ^ offset;
    for (uint64_t i = 0; i < size; i += 8) {
        uint64_t word = test_random(&state);
        memcpy(bytes + i, &word, size - i < 8 ? size - i : 8);
    }
}

struct stored {
    uint32_t store;
    uint64_t offset;
    uint64_t size;
};

static void stored_content(void *arg, uint64_t n, unsigned char *bytes)
{
    const struct stored *stored = arg;
    store_page(stored->store, stored->offset + n, bytes, stored->size);
}

static void start_pager(struct world *w)
{
    spec_say(w, "pager_create");
    ops_before(w);
    if (w->free_before < w->pool->frames / 2) {
        return;
    }
    host_fail_allocation(0);
    enum cleave_status status = space_create(w->ctx, w->pool, UINT64_MAX, &w->control);
    if (status == CLEAVE_OK) {
        status = pager_create(w->ctx, w->pool, w->control, gpa(0), &w->pager);
    }
    if (status == CLEAVE_NO_MEMORY && spec_injected(w)) {
        if (w->control != NULL && space_destroy(w->ctx, w->control) != CLEAVE_OK) {
            spec_fail(w, "a space that is empty is not destroyed");
        }
        w->control = NULL;
        return;
    }
    if (status != CLEAVE_OK) {
        spec_fail(w, "status %u of a pager's start", status);
    }
}

static void op_map_paged(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    if (s == REF_SPACES) {
        return;
    }
    if (!w->pager) {
        start_pager(w);
        return;
    }
    struct spec_range range = spec_pick_any_range(w, s);
    unsigned order = (unsigned)spec_chance(w, 4);
    if (order == 1 && !spec_chance(w, 8)) {
        range.at &= ~(level_size(1) - 1);
        range.size = level_size(1);
    }
    if (ops_pages(&range) > 4 * level_pages(1)) {
        range.size = level_size(1);
    }
    if (ops_past(w, &range)) {
        return;
    }
    struct ref_region region = {REF_PAGED, 3, order};
    struct region core = ops_core_region(w, &region);
    struct stored stored = {(uint32_t)spec_below(w, 128), spec_below(w, 1000), w->ref->page_bytes};
    spec_say(w, "map_paged %u 0x%" PRIx64 "+0x%" PRIx64 " order %u store %u offset %" PRIu64, s,
             range.at, range.size, order, stored.store, stored.offset);
    w->ref->commit = false;
    enum cleave_status expected =
        ref_map_paged(w->ref, s, range.at, range.size, &region, stored_content, &stored);
    enum cleave_status got;
    unsigned calls = 0;
    w->promised[s] = 0;
    ops_before(w);
    do {
        ops_budget(w);
        got = space_map_paged(w->ctx, w->space[s], gpa(range.at), range.size, w->pager, order,
                              stored.store, stored.offset, &core);
    } while (ops_again(w, got, s, &calls));
    ops_touch(w, &range);
    if (spec_agree(w, got, expected, w->space[s], 60)) {
        w->ref->commit = true;
        (void)ref_map_paged(w->ref, s, range.at, range.size, &region, stored_content, &stored);
    }
}

static void fill_load(struct world *w, const struct load_request *load)
{
    unsigned char bytes[PAGE_SIZE];
    for (uint64_t i = 0; i < level_pages(load->order); i++) {
        uint64_t done;
        memset(bytes, 0x5a, sizeof(bytes));
        store_page(load->store, load->offset + i, bytes, w->ref->page_bytes);
        enum cleave_status status =
            space_write(w->ctx, w->control, gpa(load->window.v + (i << PAGE_SHIFT)), bytes,
                        PAGE_SIZE, NULL, &done);
        if (status != CLEAVE_OK) {
            spec_fail(w, "status %u when a pager fills its window", status);
        }
    }
}

static void op_serve(struct world *w)
{
    struct load_request load;
    bool found = false;

    if (!w->pager) {
        return;
    }
    if (spec_chance(w, 30)) {
        spec_say(w, "pager_restart");
        w->loads = 0;
        (void)spec_agree(w, pager_restart(w->ctx, w->pager), CLEAVE_OK, NULL, 0);
        return;
    }
    if (w->loads < PAGER_LOADS && (w->loads == 0 || spec_chance(w, 2))) {
        spec_say(w, "pager_next");
        ops_before(w);
        enum cleave_status got = pager_next(w->ctx, w->pager, &load, &found);
        if (spec_agree(w, got, CLEAVE_OK, w->control, 40) && found) {
            w->load[w->loads++] = load;
        }
        return;
    }
    unsigned i = (unsigned)spec_below(w, w->loads);
    bool ok = !spec_chance(w, 8);
    load = w->load[i];
    spec_say(w, "pager_done %" PRIu64 " store %u offset %" PRIu64 " order %u ok %d", load.id,
             load.store, load.offset, load.order, ok);
    host_fail_allocation(0);
    fill_load(w, &load);
    w->load[i] = w->load[--w->loads];
    enum cleave_status got = pager_done(w->ctx, w->pager, load.id, ok);
    w->touched_start = 0;
    w->touched_end = w->ref->pages < 2048 ? w->ref->pages : 2048;
    if (got == CLEAVE_INVALID && w->forgotten > 0) {
        return; /* its space was destroyed meanwhile */
    }
    (void)spec_agree(w, got, CLEAVE_OK, NULL, 0);
}

static void op_prefetch(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ALIVE);
    if (s == REF_SPACES || !w->pager) {
        return;
    }
    uint64_t page = spec_pick_page(w, s);
    spec_say(w, "pager_prefetch %u page 0x%" PRIx64, s, page);
    ops_before(w);
    enum cleave_status got = pager_prefetch(w->ctx, w->pager, w->space[s], gpa(page << PAGE_SHIFT));
    if (got != CLEAVE_OK && ref_page(w->ref, s, page).policy != REF_PAGED) {
        w->refused++;
        return;
    }
    if (got == CLEAVE_WAIT || got == CLEAVE_BUSY) {
        return; /* no room for one more load */
    }
    (void)spec_agree(w, got, CLEAVE_OK, w->space[s], 60 + level_pages(1));
}

void ops_end_notify(struct world *w)
{
    for (unsigned i = 0; i < SPEC_CHANNELS; i++) {
        if (w->channel[i].core) {
            channel_destroy(w->ctx, w->channel[i].core);
            w->ref->channel[w->channel[i].number] = false;
        }
    }
    if (w->pager && pager_destroy(w->ctx, w->pager) != CLEAVE_OK) {
        spec_fail(w, "the pager does not end");
    }
    w->ctx->budget = UINT64_MAX;
    if (w->control && space_destroy(w->ctx, w->control) != CLEAVE_OK) {
        spec_fail(w, "the pager's space does not end");
    }
}

const struct spec_op ops_notify[] = {
    {"channel", 2, true, op_channel},     {"arm", 6, true, op_arm},
    {"verdict", 6, true, op_verdict},     {"dirty", 1, true, op_dirty},
    {"map_paged", 3, true, op_map_paged}, {"serve", 8, true, op_serve},
    {"prefetch", 1, true, op_prefetch},
};
const unsigned ops_notify_count = sizeof(ops_notify) / sizeof(ops_notify[0]);
