/* SPDX-License-Identifier: BSD-2-Clause */
/* Random forks, snapshots, resets, diffs and moves; quotas and usage. */
#include "ops.h"

#include <inttypes.h>

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
    for (unsigned i = 0; i < REF_SPACES && count < want && ops_alive(w) + count < w->shard->spaces;
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
    if (options.reserve && spec_chance(w, 2)) {
        options.reserve_frames = 1 + spec_below(w, spec_chance(w, 4) ? 2000 : 100);
    }
    unsigned asked =
        spec_chance(w, 40) ? (unsigned[]){0, FORK_MAX + 1, UINT32_MAX}[spec_below(w, 3)] : count;
    spec_say(w, "fork %u -> %u..%u (%u) limit %" PRId64 " reserve %d (%" PRIu64 ") base %d", s,
             child[0], child[count - 1], asked, (int64_t)options.limit, options.reserve,
             options.reserve_frames, options.base);
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
            w->promised[child[i]] = !options.reserve              ? 0
                                    : options.reserve_frames != 0 ? options.reserve_frames
                                                                  : UINT64_MAX;
            if (options.reserve_frames != 0 && made[i]->payer.reserved != options.reserve_frames) {
                spec_fail(w, "child %u has %" PRIu64 " frames reserved, not %" PRIu64, child[i],
                          made[i]->payer.reserved, options.reserve_frames);
            }
        }
    }
}

static void op_snapshot(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    unsigned child = ref_unused(w->ref);

    if (s == REF_SPACES || child == REF_SPACES || ops_alive(w) >= w->shard->spaces) {
        return;
    }
    spec_say(w, "snapshot %u -> %u", s, child);
    w->ref->commit = false;
    enum cleave_status expected = ref_snapshot(w->ref, s, child);
    ops_before(w);
    enum cleave_status got = space_snapshot(w->ctx, w->space[s], UINT64_MAX, &w->space[child]);
    bool renews = w->space[s]->reserve_goal > 0;
    if (expected == CLEAVE_OK && renews && (got == CLEAVE_RESERVE || got == CLEAVE_QUOTA)) {
        w->exhausted++;
        return;
    }
    struct space *payer = got == CLEAVE_QUOTA ? w->space[s] : NULL; /* for its pins' tables */
    if (spec_agree(w, got, expected, payer, 60 + 8 * ops_pinned_pages(w, s))) {
        w->ref->commit = true;
        (void)ref_snapshot(w->ref, s, child);
        w->promised[child] = 0;
    }
}

static void op_reset(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ANY);
    struct gfn_range keep[3];
    unsigned kept = 0;

    if (s == REF_SPACES || ops_maps_uncertain(w, s)) {
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
    w->promised[s] = 0;
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
        struct diff diff = {.from = gfn(from),
                            .end = gfn(w->ref->pages),
                            .exact = exact,
                            .found = found,
                            .room = room};
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
    if (s == REF_SPACES || ops_maps_uncertain(w, s)) {
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
    w->promised[s] = 0;
    if (got == CLEAVE_COUNT && ops_pages(&range) > MOVE_MAX_LEAVES) {
        w->refused++; /* words, leaves and holes, of which the reference counts none */
        return;
    }
    if (spec_agree(w, got, expected, w->space[s], 60 + 3 * ops_pages(&range))) {
        w->ref->commit = true;
        (void)ref_move(w->ref, s, range.at, to, range.size);
    }
}

/* --- Memory ----------------------------------------------------------------------------------- */

static void op_limit(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ALIVE);
    /* A call that was refused and is being undone will say so by the limit that it met. */
    if (s == REF_SPACES || (w->stopped == w->space[s] && w->stopped->op_phase == PHASE_UNDO)) {
        return;
    }
    uint64_t limit = spec_chance(w, 4) ? spec_below(w, 100) : UINT64_MAX;
    spec_say(w, "limit %u %" PRId64, s, (int64_t)limit);
    ops_before(w);
    enum cleave_status got = account_set_limit(w->ctx, w->pool, w->space[s]->payer.account, limit);
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
        bool mapped_here = page.present || (page.parked && !page.paged);
        if (mapped_here && ref_page(w->ref, s, at).policy != REF_DEVICE) {
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

const struct spec_op ops_fork[] = {
    {"fork", 7, true, op_fork},   {"snapshot", 2, true, op_snapshot}, {"reset", 3, true, op_reset},
    {"diff", 3, true, op_diff},   {"move", 4, true, op_move},         {"limit", 1, true, op_limit},
    {"usage", 1, true, op_usage},
};
const unsigned ops_fork_count = sizeof(ops_fork) / sizeof(ops_fork[0]);
