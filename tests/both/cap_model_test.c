/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random operations on capabilities beside a naive tree that keeps parent pointers and searches for
 * everything else; and an audit that is shown broken trees.
 */
#include "cap_rig.h"

#include <string.h>

#include "host.h"
#include "test.h"

#define ANY UINT64_MAX

static struct cap_rig rig;
static uint64_t seed;

/* --- The model -------------------------------------------------------------------------------- */

#define ITEMS 400
#define NOBODY (-1)

struct item {
    bool live;
    int parent; /* NOBODY: boot */
    int place;  /* item whose node holds it; NOBODY: the first node */
    cap_t handle;
    enum cap_type type;
    unsigned rights;
    bool first;
    void *object;
    struct pfn_range range;
};
static struct item items[ITEMS];
static int count;
static bool doomed[ITEMS]; /* scratch: what a revoke takes */

static unsigned joined, resized;

static unsigned pick(unsigned limit) { return (unsigned)(test_random(&seed) % limit); }

static struct cnode *node_of(int place) { return place == NOBODY ? rig.root : items[place].object; }

static unsigned depth_of(int i)
{
    unsigned depth = 1;
    while (items[i].parent != NOBODY) {
        i = items[i].parent;
        depth++;
    }
    return depth;
}

static unsigned used_in(int place)
{
    unsigned used = 0;
    for (int i = 0; i < count; i++) {
        used += items[i].live && items[i].place == place;
    }
    return used;
}

static bool has_children(int i)
{
    for (int j = 0; j < count; j++) {
        if (items[j].live && items[j].parent == i) {
            return true;
        }
    }
    return false;
}

/* Marks `i` and all that goes with it. */
static void doom(int i)
{
    if (doomed[i]) {
        return;
    }
    doomed[i] = true;
    for (int j = 0; j < count; j++) {
        bool within = items[i].type == CAP_CNODE && items[i].first && items[j].place == i;
        if (items[j].live && (items[j].parent == i || within)) {
            doom(j);
        }
    }
}

/* Marks what a revoke (or delete) of `i` takes. */
static void doom_below(int i, bool itself)
{
    memset(doomed, 0, sizeof(doomed));
    if (itself) {
        doom(i);
        return;
    }
    for (int j = 0; j < count; j++) { /* what lies in a node stays when its capability is revoked */
        if (items[j].live && items[j].parent == i) {
            doom(j);
        }
    }
}

/* Whether the end of `i` would need the end of `i` first. Searches all paths. */
static bool leads_to(int from, int to, bool *seen)
{
    if (seen[from]) {
        return false;
    }
    seen[from] = true;
    for (int j = 0; j < count; j++) {
        bool within = items[from].type == CAP_CNODE && items[from].first && items[j].place == from;
        if (items[j].live && (items[j].parent == from || within) &&
            (j == to || leads_to(j, to, seen))) {
            return true;
        }
    }
    return false;
}

static bool any_loop(void)
{
    for (int i = 0; i < count; i++) {
        bool seen[ITEMS] = {false};
        if (items[i].live && items[i].type == CAP_CNODE && items[i].first && leads_to(i, i, seen)) {
            return true;
        }
    }
    return false;
}

static int pick_live(void)
{
    int i;
    do {
        i = (int)pick((unsigned)count);
    } while (!items[i].live);
    return i;
}

/* A place for something from `from`: its own node, or one that its node has a capability for. */
static int pick_target(int from, int *through)
{
    for (unsigned tries = 0; tries < 4; tries++) {
        int i = pick_live();
        if (items[i].type == CAP_CNODE && items[i].place == items[from].place) {
            *through = i;
            int node = i;
            while (!items[node].first) {
                node = items[node].parent;
            }
            return node;
        }
    }
    *through = NOBODY;
    return items[from].place;
}

static int add(int parent, int place, cap_t handle, enum cap_type type, unsigned rights, bool first)
{
    struct cap_info info;
    int i = 0;
    while (i < count && items[i].live) {
        i++;
    }
    REQUIRE(i < ITEMS);
    items[i] = (struct item){true, parent, place, handle, type, rights, first, NULL, {{0}, {0}}};
    count = i == count ? count + 1 : count;
    REQUIRE_OK(cap_look(rig.ctx, node_of(place), handle, &info));
    items[i].range = info.range;
    if (type != CAP_UNTYPED) {
        struct cap_use use;
        REQUIRE_OK(cap_use(rig.ctx, node_of(place), handle, CAP_ANY_TYPE, 0, &use));
        items[i].object = use.object;
        cap_end(rig.ctx, &use);
    }
    return i;
}

/* --- Comparing -------------------------------------------------------------------------------- */

static void check_memory(int i)
{
    int parent = items[i].parent;
    if (items[i].range.end.v == 0 || !items[i].first || parent == NOBODY) {
        return;
    }
    CHECK(items[i].range.start.v >= items[parent].range.start.v &&
          items[i].range.end.v <= items[parent].range.end.v);
    for (int j = 0; j < count; j++) {
        if (j != i && items[j].live && items[j].first && items[j].parent == parent) {
            CHECK(items[j].range.end.v <= items[i].range.start.v ||
                  items[i].range.end.v <= items[j].range.start.v);
        }
    }
}

static void compare(void)
{
    unsigned live = 0;
    for (int i = 0; i < count; i++) {
        struct cap_info info;
        int place = items[i].place;
        if (!items[i].live) {
            continue;
        }
        live++;
        if (!CHECK_OK(cap_look(rig.ctx, node_of(place), items[i].handle, &info))) {
            continue;
        }
        CHECK_EQ(info.type, items[i].type);
        CHECK_EQ(info.rights, items[i].rights);
        CHECK_EQ(info.first, items[i].first);
        CHECK_EQ(info.depth, depth_of(i));
        CHECK_EQ(info.range.start.v, items[i].range.start.v);
        CHECK_EQ(info.range.end.v, items[i].range.end.v);
        check_memory(i);
        if (items[i].type == CAP_UNTYPED && !has_children(i)) {
            CHECK_EQ(info.unused, info.range.end.v - info.range.start.v);
        }
    }
    CHECK_EQ(rig_audit(&rig), live);
}

/* --- Operations ------------------------------------------------------------------------------- */

static cap_t target_handle(int through)
{
    return through == NOBODY ? CAP_SELF : items[through].handle;
}

/* What every operation that puts something of `from` into `place` answers, if the memory is there.
 */
static enum cleave_status target_status(int from, int place, int through, unsigned slots)
{
    if (through != NOBODY && !(items[through].rights & CAP_MAY_WRITE)) {
        return CLEAVE_DENIED;
    }
    if (place != items[from].place && !(items[from].rights & CAP_MAY_GRANT)) {
        return CLEAVE_DENIED;
    }
    return used_in(place) + slots > cnode_slots(node_of(place)) ? CLEAVE_COUNT : CLEAVE_OK;
}

static void try_copy(void)
{
    int from = pick_live();
    int through;
    int place = pick_target(from, &through);
    unsigned rights = pick(2) ? CAP_MAY_ALL & items[from].rights : 1 + pick(CAP_MAY_ALL);
    cap_t made;
    enum cleave_status expected = CLEAVE_OK;

    rights = rights == 0 ? CAP_MAY_INFO : rights;
    if (items[from].type == CAP_UNTYPED) {
        expected = CLEAVE_TYPE;
    } else if (rights & ~items[from].rights) {
        expected = CLEAVE_DENIED;
    } else {
        expected = target_status(from, place, through, 1);
    }
    CHECK_STATUS(cap_copy(rig.ctx, node_of(items[from].place), items[from].handle, rights,
                          target_handle(through), &made),
                 expected);
    if (expected == CLEAVE_OK) {
        (void)add(from, place, made, items[from].type, rights, false);
    }
}

static void try_move(void)
{
    int from = pick_live();
    int through;
    int place = pick_target(from, &through);
    int was = items[from].place;
    cap_t moved;
    enum cleave_status expected = target_status(from, place, through, 1);
    enum cleave_status status =
        cap_move(rig.ctx, node_of(was), items[from].handle, target_handle(through), &moved);

    if (status == CLEAVE_INVALID) {
        CHECK(items[from].type == CAP_CNODE || items[from].type == CAP_UNTYPED);
        CHECK(place != was);
        return;
    }
    CHECK_STATUS(status, expected);
    if (status == CLEAVE_OK) {
        CHECK_STATUS(rig_status(&rig, node_of(was), items[from].handle), CLEAVE_REVOKED);
        items[from].handle = moved;
        items[from].place = place;
        CHECK(!any_loop());
    }
}

static void try_retype(void)
{
    static const enum cap_type types[] = {CAP_UNTYPED, CAP_CNODE, CAP_CNODE, CAP_POOL};
    int from = pick_live();
    int through;
    int place = pick_target(from, &through);
    enum cap_type type = types[pick(4)];
    uint64_t frames = type == CAP_POOL      ? 6 * level_pages(1)
                      : type == CAP_UNTYPED ? 1 + pick(12 * (unsigned)level_pages(1))
                                            : 1;
    unsigned n = type == CAP_POOL ? 1 : 1 + pick(2);
    cap_t made[2];
    enum cleave_status expected = target_status(from, place, through, n);
    enum cleave_status status =
        untyped_retype(rig.ctx, node_of(items[from].place), items[from].handle, type, frames, n,
                       target_handle(through), made);

    if (items[from].type != CAP_UNTYPED) {
        CHECK_STATUS(status, CLEAVE_TYPE);
        return;
    }
    if (status == CLEAVE_NO_MEMORY) {
        CHECK(has_children(from) ||
              frames * n + level_pages(2) > items[from].range.end.v - items[from].range.start.v);
        return;
    }
    CHECK_STATUS(status, expected);
    for (unsigned i = 0; status == CLEAVE_OK && i < n; i++) {
        (void)add(from, place, made[i], type, CAP_MAY_ALL, true);
    }
}

/* --- Pieces of memory ------------------------------------------------------------------------- */

static uint64_t size_of(int i) { return items[i].range.end.v - items[i].range.start.v; }

static void try_cut(void)
{
    int from = pick_live();
    int through;
    int place = pick_target(from, &through);
    struct cnode *root = node_of(items[from].place);
    uint64_t frames = 1 + pick(12 * (unsigned)level_pages(1));
    struct cap_info info;
    cap_t rest;

    if (items[from].type == CAP_UNTYPED && items[from].parent == NOBODY) {
        return; /* it could be lost with a node that it is moved to */
    }
    REQUIRE_OK(cap_look(rig.ctx, root, items[from].handle, &info));
    enum cleave_status expected = target_status(from, place, through, 1);
    if (items[from].type != CAP_UNTYPED) {
        expected = CLEAVE_TYPE;
    } else if (frames >= size_of(from) || frames < size_of(from) - info.unused) {
        expected = CLEAVE_COUNT;
    }
    CHECK_STATUS(
        untyped_cut(rig.ctx, root, items[from].handle, frames, target_handle(through), &rest),
        expected);
    if (expected == CLEAVE_OK) {
        items[from].range.end = pfn_add(items[from].range.start, frames);
        (void)add(items[from].parent, place, rest, CAP_UNTYPED, CAP_MAY_ALL, true);
        CHECK(!any_loop());
    }
}

/* The item that begins where this one ends, if it lies in the same node; else any in that node. */
static int pick_beside(int i)
{
    int other = i;
    for (int j = 0; j < count; j++) {
        if (items[j].live && items[j].place == items[i].place &&
            (other == i || items[j].range.start.v == items[i].range.end.v)) {
            other = j;
        }
    }
    return other;
}

static void try_join(void)
{
    int a = pick_live();
    int b = pick_beside(a);
    enum cleave_status expected = CLEAVE_OK;

    for (unsigned tries = pick(400); tries > 0; tries--) { /* few lie side by side */
        if (items[a].type == CAP_UNTYPED && items[b].type == CAP_UNTYPED &&
            items[b].range.start.v == items[a].range.end.v) {
            break;
        }
        a = pick_live();
        b = pick_beside(a);
    }

    bool beside = depth_of(a) == depth_of(b) && items[b].range.start.v == items[a].range.end.v;
    if (items[a].type != CAP_UNTYPED || items[b].type != CAP_UNTYPED) {
        expected = CLEAVE_TYPE;
    } else if (beside && has_children(b)) {
        expected = CLEAVE_BUSY;
    } else if (!beside || items[a].parent != items[b].parent) {
        expected = CLEAVE_INVALID;
    }
    CHECK_STATUS(untyped_join(rig.ctx, node_of(items[a].place), items[a].handle, items[b].handle),
                 expected);
    if (expected == CLEAVE_OK) {
        items[a].range.end = items[b].range.end;
        items[b].live = false;
        joined++;
    }
}

/* Whether nothing that was made of the same memory lies behind it. */
static bool is_last(int i)
{
    for (int j = 0; j < count; j++) {
        if (items[j].live && items[j].first && items[j].parent == items[i].parent &&
            items[j].range.start.v > items[i].range.start.v) {
            return false;
        }
    }
    return true;
}

static void try_resize(void)
{
    int p = pick_live();
    for (unsigned tries = pick(400); tries > 0; tries--) { /* few can be resized */
        if (items[p].type == CAP_POOL && items[p].first && is_last(p) &&
            items[items[p].parent].place == items[p].place) {
            break;
        }
        p = pick_live();
    }
    int from = pick(8) == 0 || items[p].parent == NOBODY ? pick_live() : items[p].parent;
    struct cnode *root = node_of(items[p].place);
    uint64_t frames = (1 + pick(16)) * level_pages(1);
    enum cleave_status expected = CLEAVE_OK;

    if (items[from].place != items[p].place) {
        return;
    }
    if (items[from].type != CAP_UNTYPED || items[p].type != CAP_POOL) {
        expected = CLEAVE_TYPE;
    } else if (!(items[p].rights & CAP_MAY_WRITE)) {
        expected = CLEAVE_DENIED;
    } else if (!items[p].first || items[p].parent != from || !is_last(p)) {
        expected = CLEAVE_INVALID;
    } else if (frames > size_of(p) && frames > items[from].range.end.v - items[p].range.start.v) {
        expected = CLEAVE_NO_MEMORY;
    }
    enum cleave_status status =
        untyped_resize_pool(rig.ctx, root, items[from].handle, items[p].handle, frames);
    if (status == CLEAVE_BUSY && expected == CLEAVE_OK) {
        CHECK(frames < size_of(p)); /* what is in it is not the model's matter */
        frames = rig.ctx->error.low;
        CHECK(frames <= size_of(p));
        status = untyped_resize_pool(rig.ctx, root, items[from].handle, items[p].handle, frames);
    }
    CHECK_STATUS(status, expected);
    if (status == CLEAVE_OK) {
        resized += frames != size_of(p);
        items[p].range.end = pfn_add(items[p].range.start, frames);
        for (int j = 0; j < count; j++) {
            if (items[j].live && items[j].type == CAP_POOL && items[j].object == items[p].object) {
                items[j].range.end = items[p].range.end;
            }
        }
    }
}

static bool is_space(int i) { return items[i].type == CAP_SPACE || items[i].type == CAP_SNAPSHOT; }

static void try_object(void)
{
    struct fork_options options = {.limit = ANY};
    int from = pick_live();
    int through;
    int place = pick_target(from, &through);
    struct cnode *root = node_of(items[from].place);
    bool snapshot = pick(3) == 0;
    unsigned need = is_space(from) ? CAP_MAY_FORK : CAP_MAY_WRITE;
    enum cleave_status expected = target_status(from, place, through, 1);
    enum cleave_status status;
    cap_t made;

    if (is_space(from)) {
        need |= snapshot ? 0u : CAP_MAY_SPAWN;
        status = snapshot ? cap_snapshot(rig.ctx, root, items[from].handle, ANY,
                                         target_handle(through), &made)
                          : cap_fork(rig.ctx, root, items[from].handle, 1, &options,
                                     target_handle(through), &made);
    } else {
        status =
            cap_create_space(rig.ctx, root, items[from].handle, ANY, target_handle(through), &made);
    }
    if (!is_space(from) && items[from].type != CAP_POOL) {
        CHECK_STATUS(status, CLEAVE_TYPE);
        return;
    }
    if (!(items[from].rights & need)) {
        expected = CLEAVE_DENIED;
    }
    if (status == CLEAVE_NO_MEMORY || status == CLEAVE_COUNT) {
        return; /* the pool is small; which call meets its end is not the model's matter */
    }
    CHECK_STATUS(status, expected);
    if (status != CLEAVE_OK) {
        return;
    }
    unsigned rights = items[from].rights;
    if (!is_space(from)) {
        rights = CAP_MAY_ALL & (items[from].rights | ~CAP_MAY_GRANT);
    } else if (!(rights & CAP_MAY_FORK)) {
        rights = CAP_SPAWNED;
    }
    bool beside = is_space(from) && items[from].first;
    (void)add(beside ? items[from].parent : from, place, made,
              is_space(from) && snapshot ? CAP_SNAPSHOT : CAP_SPACE, rights, true);
}

/* While a revoke is stopped: copies in place. What goes serves no more, or what it makes goes too.
 */
static void interfere(int root)
{
    for (unsigned n = pick(3); n > 0; n--) {
        int from = pick_live();
        cap_t made;
        if (items[from].type == CAP_UNTYPED || from == root ||
            used_in(items[from].place) >= cnode_slots(node_of(items[from].place))) {
            continue;
        }
        enum cleave_status status =
            cap_copy(rig.ctx, node_of(items[from].place), items[from].handle, items[from].rights,
                     CAP_SELF, &made);
        if (status == CLEAVE_OK) {
            int i = add(from, items[from].place, made, items[from].type, items[from].rights, false);
            doomed[i] = doomed[from] || (items[from].place >= 0 && doomed[items[from].place]);
        } else {
            CHECK(doomed[from] || (items[from].place >= 0 && doomed[items[from].place]));
            CHECK(status == CLEAVE_REVOKED || status == CLEAVE_DYING || status == CLEAVE_BUSY ||
                  status == CLEAVE_NO_CAP);
        }
    }
}

/* A doomed item may be gone already, its node too, so that its handle is not to be used any more.
 */
static void try_take(void)
{
    int root = pick_live();
    bool remove = items[root].parent != NOBODY && pick(2) == 0;
    bool disturb = pick(2) == 0;
    cap_t handle = items[root].handle;
    struct cnode *node = node_of(items[root].place);
    enum cleave_status status;

    if (items[root].parent == NOBODY && pick(8) != 0) {
        return;
    }
    doom_below(root, remove);
    if (!remove && !(items[root].rights & CAP_MAY_REVOKE)) {
        CHECK_STATUS(cap_revoke(rig.ctx, node, handle), CLEAVE_DENIED);
        return;
    }
    do {
        rig.ctx->budget = disturb ? 1 + pick(3) : UINT64_MAX;
        status = remove ? cap_delete(rig.ctx, node, handle) : cap_revoke(rig.ctx, node, handle);
        rig.ctx->budget = UINT64_MAX;
        if (status == CLEAVE_AGAIN) {
            bool within = false;
            for (int i = 0; i < count; i++) { /* nodes may be gone: only where none is doomed */
                within = within || (items[i].live && doomed[i] && items[i].type == CAP_CNODE);
            }
            (void)rig_audit(&rig);
            if (!within) {
                interfere(root);
            }
        }
    } while (status == CLEAVE_AGAIN);
    CHECK_OK(status);
    for (int i = 0; i < count; i++) {
        if (items[i].live && doomed[i]) {
            items[i].live = false;
            if (items[i].place == NOBODY || !doomed[items[i].place]) {
                CHECK_STATUS(rig_status(&rig, node_of(items[i].place), items[i].handle),
                             CLEAVE_REVOKED);
            }
        }
    }
}

TEST(random_beside_a_naive_tree)
{
    unsigned taken = 0;
    seed = test_seed();
    rig_start(&rig);
    (void)add(NOBODY, NOBODY, rig.untyped, CAP_UNTYPED, CAP_MAY_ALL, true);

    for (uint64_t step = 0; step < test_steps(20000); step++) {
        test_case("step %u", (unsigned)step);
        unsigned live = 0;
        for (int i = 0; i < count; i++) {
            live += items[i].live;
        }
        switch (live > ITEMS / 2 ? 99 : pick(13)) {
        case 0:
        case 1:
        case 2:
            try_copy();
            break;
        case 3:
        case 4:
            try_move();
            break;
        case 5:
        case 6:
            try_retype();
            break;
        case 7:
        case 8:
            try_object();
            break;
        case 9:
            try_cut();
            break;
        case 10:
            try_join();
            break;
        case 11:
            try_resize();
            break;
        default:
            if (live > 20 || pick(4) == 0) {
                try_take();
                taken++;
            }
            break;
        }
        if (step % 4 == 0 || live > ITEMS / 2) {
            compare();
        }
    }
    CHECK(taken > 200);
    CHECK(joined > 5);
    CHECK(resized > 20);
    rig.untyped = items[0].handle;
    CHECK_OK(cap_revoke(rig.ctx, rig.root, rig.untyped));
    CHECK_EQ(rig_audit(&rig), 1);
    CHECK_EQ(rig_look(&rig, rig.untyped).unused, rig.frames);
}

/* --- The audit finds what is broken ----------------------------------------------------------- */

struct subject {
    struct cap *piece, *node, *pool, *copy, *space, *fork, *inside;
};

static struct cap *slot_of(cap_t handle) { return cnode_slot(rig.root, CAP_INDEX(handle)); }

static struct subject make_subject(void)
{
    struct subject s;
    rig_start(&rig);
    cap_t piece = rig_retype(&rig, rig.untyped, CAP_UNTYPED, 8);
    cap_t node = rig_retype(&rig, piece, CAP_CNODE, 1);
    cap_t pool = rig_pool(&rig, 16);
    cap_t copy = rig_copy(&rig, pool, CAP_MAY_WRITE | CAP_MAY_GRANT, CAP_SELF);
    cap_t space = rig_space(&rig, copy);
    cap_t fork = rig_fork(&rig, space, CAP_SELF);
    cap_t inside = rig_copy(&rig, node, CAP_MAY_ALL, node);
    s = (struct subject){slot_of(piece), slot_of(node), slot_of(pool), slot_of(copy),
                         slot_of(space), slot_of(fork), NULL};
    s.inside = cnode_slot(s.node->object, CAP_INDEX(inside));
    CHECK_EQ(rig_audit(&rig), 8);
    return s;
}

static void break_depth(struct subject *s) { s->copy->depth += 2; }
static void break_depth_small(struct subject *s) { s->space->depth = 1; }
static void break_link(struct subject *s) { s->copy->link.previous = &s->node->link; }
static void break_rights(struct subject *s) { s->inside->rights = 0; }
static void break_shrink(struct subject *s) { s->pool->rights &= (uint8_t)~CAP_MAY_WRITE; }
static void break_grant(struct subject *s) { s->copy->rights = CAP_MAY_WRITE; }
static void break_object(struct subject *s) { s->copy->object = s->node->object; }
static void break_null(struct subject *s) { s->space->object = NULL; }
static void break_type(struct subject *s) { s->space->type = CAP_NONE; }
static void break_mark(struct subject *s) { s->piece->mark = s->piece->range.end.v + 1; }
static void break_handed_out(struct subject *s) { s->piece->mark = s->piece->range.start.v; }
static void break_range(struct subject *s) { s->piece->range.start.v += 1; }
static void break_level(struct subject *s) { ((struct cnode *)s->node->object)->level = 0; }
static void break_taken(struct subject *s) { s->fork->flags |= CAP_TAKEN; }
static void break_root(struct subject *s) { s->pool->flags |= CAP_ROOT; }
static void break_closing(struct subject *s) { s->space->flags |= CAP_CLOSING; }
static void break_owner(struct subject *s) { s->copy->node = s->node->object; }
static void break_used(struct subject *s) { ((struct cnode *)s->node->object)->used++; }
static void break_free(struct subject *s) { rig.root->free = s->inside; }
static void break_lost(struct subject *s) { link_remove(&s->inside->link); }
static void break_first(struct subject *s) { s->copy->flags |= CAP_FIRST; }
static void break_family(struct subject *s)
{
    ((struct space *)s->fork->object)->payer.pool = (struct pool *)s->node->object;
}
static void break_marker(struct subject *s)
{
    s->copy->flags |= CAP_ROOT;
    link_insert(&s->copy->marker, &s->pool->link);
}
static void break_swept(struct subject *s)
{
    s->copy->flags |= CAP_ROOT | CAP_SWEPT;
    link_insert(&s->copy->marker, &s->copy->link);
}

static const struct break_case {
    const char *label;
    void (*damage)(struct subject *subject);
} break_cases[] = {
    {"a depth", break_depth},
    {"a depth that is an ancestor's", break_depth_small},
    {"a link", break_link},
    {"no rights", break_rights},
    {"more rights than the source", break_shrink},
    {"grant out of nothing", break_grant},
    {"a copy of something else", break_object},
    {"no object", break_null},
    {"an empty slot in the tree", break_type},
    {"a watermark past the end", break_mark},
    {"an object above the watermark", break_handed_out},
    {"an object below its untyped", break_range},
    {"a level", break_level},
    {"taken by nobody", break_taken},
    {"a root without a marker", break_root},
    {"closing for ever", break_closing},
    {"a slot of another node", break_owner},
    {"a used slot too many", break_used},
    {"a free list that strays", break_free},
    {"a slot outside of the tree", break_lost},
    {"two first capabilities", break_first},
    {"a space of another pool", break_family},
    {"a marker before its root", break_marker},
    {"a sweep that ended early", break_swept},
};

TEST_TABLE(audit_finds, break_cases)
{
    struct cap_report report;
    struct subject subject = make_subject();

    row->damage(&subject);
    CHECK_OK(cap_audit(rig.ctx, &report));
    CHECK(report.what != NULL);
}
