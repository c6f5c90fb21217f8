/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Revoke and delete: stopped at every preemption point, overlapping each other, with calls in
 * flight, on pools with spaces in them, and against other CPUs that keep deriving.
 */
#include "cap_rig.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "host.h"
#include "test.h"

#define ANY UINT64_MAX

static struct cap_rig rig;

/* --- A planted tree --------------------------------------------------------------------------- */

#define PLANTS 40u

/* Capabilities of all kinds, derived at random, some in nodes that are among them. */
struct plant {
    cap_t handle[PLANTS];
    struct cnode *node[PLANTS]; /* that holds it */
    unsigned owner[PLANTS];     /* plant whose node that is; PLANTS for the first node */
    unsigned parent[PLANTS];
    enum cap_type type[PLANTS];
    struct cnode *inside[PLANTS]; /* its own node, if it is the first capability of one */
    unsigned count;
};

static unsigned pick(uint64_t *seed, unsigned limit)
{
    return (unsigned)(test_random(seed) % limit);
}

static enum cleave_status derive(const struct plant *plant, unsigned from, uint64_t *seed,
                                 cap_t *to)
{
    struct fork_options options = {.limit = ANY};
    struct channel_options channel = {0};
    struct mm_ctx *ctx = rig.ctx;
    struct cnode *node = plant->node[from];
    cap_t source = plant->handle[from];

    switch (plant->type[from]) {
    case CAP_UNTYPED: {
        static const enum cap_type types[] = {CAP_UNTYPED, CAP_CNODE, CAP_POOL};
        static const uint64_t small[] = {16, 1, 0};
        unsigned kind = pick(seed, 3);
        uint64_t frames = kind == 2 ? 8 * level_pages(1) : small[kind];
        return untyped_retype(ctx, node, source, types[kind], frames, 1, CAP_SELF, to);
    }
    case CAP_POOL:
        if (pick(seed, 4) == 0) {
            return cap_create_channel(ctx, node, source, &channel, CAP_SELF, to);
        }
        if (pick(seed, 2) == 0) {
            return cap_create_space(ctx, node, source, ANY, CAP_SELF, to);
        }
        break;
    case CAP_SPACE:
    case CAP_SNAPSHOT:
        if (pick(seed, 4) == 0) {
            return cap_snapshot(ctx, node, source, ANY, CAP_SELF, to);
        }
        if (pick(seed, 2) == 0) {
            return cap_fork(ctx, node, source, 1, &options, CAP_SELF, to);
        }
        break;
    case CAP_NONE:
    case CAP_CNODE:
    case CAP_CHANNEL:
    case CAP_PAGER:
    case CAP_TYPES:
        break;
    }
    return cap_copy(ctx, node, source, CAP_MAY_ALL, CAP_SELF, to);
}

/* Moves a capability into a node of the plant that its own node has a capability for. */
static void move_somewhere(struct plant *plant, unsigned which, uint64_t *seed)
{
    unsigned at = pick(seed, plant->count);
    cap_t moved;

    if (plant->inside[at] == NULL || plant->node[at] != plant->node[which]) {
        return;
    }
    if (cap_move(rig.ctx, plant->node[which], plant->handle[which], plant->handle[at], &moved) ==
        CLEAVE_OK) {
        plant->handle[which] = moved;
        plant->node[which] = plant->inside[at];
        plant->owner[which] = at;
    }
}

static void grow(struct plant *plant, uint64_t seed)
{
    *plant = (struct plant){.handle = {rig.untyped},
                            .node = {rig.root},
                            .owner = {PLANTS},
                            .parent = {PLANTS},
                            .type = {CAP_UNTYPED},
                            .count = 1};
    for (unsigned tries = 0; plant->count < PLANTS && tries < 10 * PLANTS; tries++) {
        unsigned from = pick(&seed, plant->count);
        unsigned n = plant->count;
        struct cap_info info;
        if (derive(plant, from, &seed, &plant->handle[n]) != CLEAVE_OK) {
            continue;
        }
        REQUIRE_OK(cap_look(rig.ctx, plant->node[from], plant->handle[n], &info));
        plant->node[n] = plant->node[from];
        plant->owner[n] = plant->owner[from];
        plant->parent[n] = from;
        plant->type[n] = info.type;
        plant->inside[n] = NULL;
        if (info.type == CAP_CNODE && info.first) {
            plant->inside[n] = frame_address(info.range.start);
        }
        plant->count++;
        move_somewhere(plant, pick(&seed, plant->count), &seed);
    }
    CHECK_EQ(rig_audit(&rig), plant->count);
}

/* Bit i: plant i is there. One whose node is gone is not looked at. */
static uint64_t alive(const struct plant *plant)
{
    uint64_t found = 0;
    bool more = true;

    while (more) {
        more = false;
        for (unsigned i = 0; i < plant->count; i++) {
            bool reachable = plant->owner[i] == PLANTS || (found >> plant->owner[i] & 1);
            if (reachable && !(found >> i & 1) &&
                rig_status(&rig, plant->node[i], plant->handle[i]) == CLEAVE_OK) {
                found |= UINT64_C(1) << i;
                more = true;
            }
        }
    }
    return found;
}

static void clear(void)
{
    CHECK_OK(cap_revoke(rig.ctx, rig.root, rig.untyped));
    CHECK_EQ(rig_audit(&rig), 1);
    CHECK_EQ(rig_look(&rig, rig.untyped).unused, rig.frames);
}

/* What a revoke or delete in one go leaves. Deleting the first one is not asked for. */
static uint64_t after_one_go(uint64_t seed, unsigned target, bool remove)
{
    struct plant plant;
    grow(&plant, seed);
    CHECK_OK(remove ? cap_delete(rig.ctx, plant.node[target], plant.handle[target])
                    : cap_revoke(rig.ctx, plant.node[target], plant.handle[target]));
    uint64_t left = alive(&plant);
    CHECK_EQ(rig_audit(&rig), __builtin_popcountll(left));
    clear();
    return left;
}

TEST(every_budget_leaves_the_same)
{
    struct plant plant;
    uint64_t seed = test_seed();
    rig_start(&rig);

    for (uint64_t round = 0; round < test_steps(40); round++) {
        uint64_t plot = test_random(&seed);
        grow(&plant, plot);
        unsigned count = plant.count;
        clear();
        for (unsigned target = 0; target < count; target += 3) {
            bool remove = target != 0 && pick(&seed, 2) == 0;
            test_case("plot %llx target %u remove %d", (unsigned long long)plot, target, remove);
            uint64_t expected = after_one_go(plot, target, remove);
            for (uint64_t every = 1; every <= 3; every++) {
                grow(&plant, plot);
                CHECK_OK(remove
                             ? rig_delete(&rig, plant.node[target], plant.handle[target], every)
                             : rig_revoke(&rig, plant.node[target], plant.handle[target], every));
                CHECK_EQ(alive(&plant), expected);
                clear();
            }
        }
    }
}

/* --- Overlap ---------------------------------------------------------------------------------- */

struct overlap {
    unsigned first, second; /* targets */
    bool remove_first, remove_second;
};

static enum cleave_status take_some(const struct plant *plant, unsigned target, bool remove,
                                    uint64_t units)
{
    rig.ctx->budget = units;
    enum cleave_status status =
        remove ? cap_delete(rig.ctx, plant->node[target], plant->handle[target])
               : cap_revoke(rig.ctx, plant->node[target], plant->handle[target]);
    rig.ctx->budget = UINT64_MAX;
    (void)rig_audit(&rig);
    return status;
}

static void end_of(const struct plant *plant, unsigned target, bool remove)
{
    uint64_t left = alive(plant);
    unsigned owner = plant->owner[target];
    if (owner != PLANTS && !(left >> owner & 1)) {
        return; /* its node is gone or going, and it with it */
    }
    enum cleave_status status = take_some(plant, target, remove, UINT64_MAX);
    CHECK(status == CLEAVE_OK || status == CLEAVE_REVOKED);
}

/* Stops the first after `units`, does the second, ends the first. False when it was not stopped. */
static bool overlap_at(uint64_t plot, const struct overlap *overlap, uint64_t units)
{
    struct plant plant;
    grow(&plant, plot);
    bool stopped = take_some(&plant, overlap->first, overlap->remove_first, units) == CLEAVE_AGAIN;
    end_of(&plant, overlap->second, overlap->remove_second);
    if (stopped) {
        end_of(&plant, overlap->first, overlap->remove_first);
    }
    /* The same in one go, one after the other. */
    uint64_t left = alive(&plant);
    CHECK_EQ(rig_audit(&rig), __builtin_popcountll(left));
    clear();
    grow(&plant, plot);
    (void)take_some(&plant, overlap->first, overlap->remove_first, UINT64_MAX);
    end_of(&plant, overlap->second, overlap->remove_second);
    CHECK_EQ(left, alive(&plant));
    clear();
    return stopped;
}

TEST(overlapping_revokes)
{
    uint64_t seed = test_seed();
    struct plant plant;
    rig_start(&rig);

    for (uint64_t round = 0; round < test_steps(40); round++) {
        uint64_t plot = test_random(&seed);
        grow(&plant, plot);
        struct overlap overlap = {pick(&seed, plant.count), 1 + pick(&seed, plant.count - 1), false,
                                  pick(&seed, 2) == 0};
        if (overlap.first != 0) {
            overlap.remove_first = pick(&seed, 2) == 0;
        }
        clear();
        test_case("plot %llx first %u%s second %u%s", (unsigned long long)plot, overlap.first,
                  overlap.remove_first ? " deleted" : "", overlap.second,
                  overlap.remove_second ? " deleted" : "");
        uint64_t units = 1;
        while (overlap_at(plot, &overlap, units)) {
            units++;
        }
    }
}

/* --- In the way ------------------------------------------------------------------------------- */

TEST(call_in_flight_is_waited_for)
{
    struct cap_use use, again;
    cap_t moved;
    rig_start(&rig);
    cap_t pool = rig_pool(&rig, 8);
    cap_t space = rig_space(&rig, pool);
    cap_t copy = rig_copy(&rig, space, CAP_MAY_ALL, CAP_SELF);
    uint64_t space_bit = CAP_BIT(CAP_SPACE);

    CHECK_OK(cap_use(rig.ctx, rig.root, copy, (unsigned)space_bit, CAP_MAY_WRITE, &use));
    CHECK_STATUS(cap_move(rig.ctx, rig.root, copy, CAP_SELF, &moved), CLEAVE_BUSY);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_STATUS(cap_revoke(rig.ctx, rig.root, pool), CLEAVE_AGAIN);
        CHECK_STATUS(cap_use(rig.ctx, rig.root, copy, (unsigned)space_bit, 0, &again),
                     CLEAVE_REVOKED);
        CHECK_STATUS(cap_use(rig.ctx, rig.root, space, (unsigned)space_bit, 0, &again),
                     CLEAVE_REVOKED);
        CHECK_EQ(use.space->state, SPACE_ALIVE);
    }
    cap_end(rig.ctx, &use);
    CHECK_OK(cap_revoke(rig.ctx, rig.root, pool));
    CHECK_EQ(rig_audit(&rig), 2);
}

TEST(nothing_is_derived_while_it_is_revoked)
{
    cap_t made;
    struct cap_info info;
    rig_start(&rig);
    cap_t pool = rig_pool(&rig, 8);
    cap_t copy = rig_copy(&rig, pool, CAP_MAY_ALL, CAP_SELF);
    cap_t space = rig_space(&rig, pool);
    cap_t own = rig_space(&rig, rig_pool(&rig, 8)); /* of a pager's process, which stays */
    const struct channel_options options = {.grain = 0};

    rig.ctx->budget = 1; /* one capability is swept */
    CHECK_STATUS(cap_revoke(rig.ctx, rig.root, pool), CLEAVE_AGAIN);
    rig.ctx->budget = UINT64_MAX;
    CHECK(rig_look(&rig, pool).revoking);
    CHECK(((struct pool *)rig_object(&rig, pool))->dying);
    CHECK_STATUS(cap_copy(rig.ctx, rig.root, pool, 1, CAP_SELF, &made), CLEAVE_BUSY);
    CHECK_STATUS(cap_move(rig.ctx, rig.root, pool, CAP_SELF, &made), CLEAVE_BUSY);
    CHECK_STATUS(cap_create_space(rig.ctx, rig.root, pool, ANY, CAP_SELF, &made), CLEAVE_BUSY);
    CHECK_STATUS(cap_look(rig.ctx, rig.root, space, &info), CLEAVE_REVOKED);
    /* The copy is still to be swept: it serves, but the pool makes nothing any more. */
    CHECK_STATUS(cap_create_space(rig.ctx, rig.root, copy, ANY, CAP_SELF, &made), CLEAVE_DYING);
    CHECK_STATUS(cap_create_channel(rig.ctx, rig.root, copy, &options, CAP_SELF, &made),
                 CLEAVE_DYING);
    CHECK_STATUS(cap_create_pager(rig.ctx, rig.root, copy, own, gpa(0), CAP_SELF, &made),
                 CLEAVE_DYING);
    CHECK(strcmp(rig.ctx->error.argument, "pool") == 0);
    CHECK_OK(cap_copy(rig.ctx, rig.root, copy, 1, CAP_SELF, &made));
    CHECK_OK(cap_revoke(rig.ctx, rig.root, pool));
    CHECK_EQ(rig_audit(&rig), 4);
    (void)rig_space(&rig, pool);

    /* A delete that was begun serves nobody. */
    rig.ctx->budget = 1;
    CHECK_STATUS(cap_delete(rig.ctx, rig.root, pool), CLEAVE_AGAIN);
    rig.ctx->budget = UINT64_MAX;
    CHECK_STATUS(cap_look(rig.ctx, rig.root, pool, &info), CLEAVE_REVOKED);
    CHECK_STATUS(cap_revoke(rig.ctx, rig.root, pool), CLEAVE_REVOKED);
    CHECK_OK(cap_delete(rig.ctx, rig.root, pool));
    CHECK_EQ(rig_audit(&rig), 3);
}

TEST(held_node_is_emptied_but_stays)
{
    cap_t made;
    rig_start(&rig);
    cap_t node = rig_node(&rig, 1);
    cap_t pool = rig_pool(&rig, 8);
    cap_t copy = rig_copy(&rig, pool, CAP_MAY_ALL, node);
    struct cnode *inside = rig_object(&rig, node);

    cnode_hold(rig.ctx, inside);
    CHECK_STATUS(cap_delete(rig.ctx, rig.root, node), CLEAVE_BUSY);
    CHECK(strcmp(rig.ctx->error.argument, "holders") == 0);
    CHECK_EQ(rig.ctx->error.value, 1);
    CHECK_EQ(rig_audit(&rig), 3);
    CHECK_STATUS(rig_status(&rig, inside, copy), CLEAVE_DYING);
    CHECK_STATUS(cap_at(rig.ctx, inside, 0, &made), CLEAVE_DYING);
    CHECK_STATUS(cap_revoke(rig.ctx, rig.root, rig.untyped), CLEAVE_BUSY);
    cnode_release(rig.ctx, inside);
    CHECK_STATUS(cap_delete(rig.ctx, rig.root, node), CLEAVE_REVOKED); /* taken by the revoke */
    CHECK_OK(cap_revoke(rig.ctx, rig.root, rig.untyped));
    CHECK_EQ(rig_audit(&rig), 1);
}

/* A node's end takes what is in it, with what was derived from that wherever it is. */
TEST(node_takes_along_what_is_in_it)
{
    cap_t moved;
    rig_start(&rig);
    cap_t a = rig_node(&rig, 1);
    struct cnode *in_a = rig_object(&rig, a);
    cap_t b;
    REQUIRE_OK(untyped_retype(rig.ctx, rig.root, rig.untyped, CAP_CNODE, 1, 1, a, &b));
    struct cnode *in_b = rig_object(&(struct cap_rig){.ctx = rig.ctx, .root = in_a}, b);
    cap_t pool = rig_pool(&rig, 16);
    cap_t space = rig_space(&rig, pool);
    cap_t fork = rig_fork(&rig, space, CAP_SELF);
    cap_t kept = rig_copy(&rig, fork, CAP_MAY_ALL, CAP_SELF);
    struct pool *object = rig_object(&rig, pool);

    CHECK_OK(cap_move(rig.ctx, rig.root, fork, a, &moved));
    CHECK_OK(cap_move(rig.ctx, in_a, moved, b, &moved));
    CHECK_OK(rig_status(&rig, in_b, moved));
    CHECK_OK(rig_delete(&rig, rig.root, a, 1));
    CHECK_STATUS(rig_status(&rig, rig.root, kept), CLEAVE_REVOKED);
    CHECK_OK(rig_status(&rig, rig.root, space));
    CHECK(object->spaces != NULL && object->spaces->next == NULL);
    CHECK_EQ(rig_audit(&rig), 3);
}

TEST(revoke_of_a_pool_gives_all_back)
{
    struct fork_options options = {.limit = ANY};
    cap_t made[3];
    rig_start(&rig);

    for (uint64_t every = 1; every < 5; every++) {
        cap_t pool = rig_pool(&rig, 16);
        struct pool *object = rig_object(&rig, pool);
        cap_t space = rig_space(&rig, pool);
        uint64_t used = object->frames - object->free;
        CHECK_OK(cap_fork(rig.ctx, rig.root, space, 3, &options, CAP_SELF, made));
        CHECK_OK(cap_snapshot(rig.ctx, rig.root, made[1], ANY, CAP_SELF, &made[0]));
        CHECK_OK(cap_fork(rig.ctx, rig.root, made[0], 1, &options, CAP_SELF, &made[1]));
        CHECK(object->frames - object->free > used);
        CHECK_OK(rig_revoke(&rig, rig.root, pool, every));
        CHECK(object->spaces == NULL && !object->dying);
        CHECK_OK(cap_create_space(rig.ctx, rig.root, pool, ANY, CAP_SELF, &space));
        CHECK_OK(rig_delete(&rig, rig.root, pool, every));
        CHECK_EQ(rig_audit(&rig), 1);
        CHECK_EQ(rig_look(&rig, rig.untyped).unused, rig.frames);
    }
}

/* --- Three handles, every sequence (T-X18) ---------------------------------------------------- */

enum { HANDLES = 3, DEPTH = 6, ACTIONS = 4 };

/* Per handle: derive it from its left neighbour (or the base), begin or end a use, revoke, delete.
 */
struct trio {
    cap_t handle[HANDLES];
    struct cap_use use[HANDLES];
    bool there[HANDLES], used[HANDLES];
};

static bool below_used(const struct trio *trio, const int *parent, int i)
{
    for (int j = 0; j < HANDLES; j++) {
        for (int up = j; up >= 0; up = parent[up]) {
            if (up == i && trio->there[j] && trio->used[j] && j != i) {
                return true;
            }
        }
    }
    return false;
}

static void drop_below(struct trio *trio, int *parent, int i)
{
    for (int j = 0; j < HANDLES; j++) {
        if (trio->there[j] && parent[j] == i) {
            drop_below(trio, parent, j);
            trio->there[j] = false;
            parent[j] = -1;
        }
    }
}

/* One action on handle `i`, on the core and on the model; false where the model ends the sequence.
 */
static bool act(struct trio *trio, int *parent, cap_t base, int i, int action)
{
    struct mm_ctx *ctx = rig.ctx;
    int left = i > 0 && trio->there[i - 1] ? i - 1 : -1;
    enum cleave_status gone = trio->there[i] ? CLEAVE_OK : CLEAVE_REVOKED;
    cap_t source = left >= 0 ? trio->handle[left] : base;

    switch (action) {
    case 0:
        if (trio->there[i]) {
            return false;
        }
        CHECK_OK(cap_copy(ctx, rig.root, source, CAP_MAY_ALL, CAP_SELF, &trio->handle[i]));
        trio->there[i] = true;
        parent[i] = left;
        return true;
    case 1:
        if (trio->used[i]) {
            cap_end(ctx, &trio->use[i]);
            trio->used[i] = false;
            return true;
        }
        if (trio->handle[i].v == 0) {
            return false;
        }
        CHECK_STATUS(cap_use(ctx, rig.root, trio->handle[i], CAP_ANY_TYPE, 0, &trio->use[i]), gone);
        trio->used[i] = trio->there[i];
        return true;
    default:
        if (trio->handle[i].v == 0) {
            return false;
        }
        bool blocked =
            trio->there[i] && (below_used(trio, parent, i) || (action == 3 && trio->used[i]));
        enum cleave_status status = action == 2 ? cap_revoke(ctx, rig.root, trio->handle[i])
                                                : cap_delete(ctx, rig.root, trio->handle[i]);
        CHECK_STATUS(status, blocked ? CLEAVE_AGAIN : gone);
        if (blocked) {
            return false; /* from here on the outcome depends on who ends first */
        }
        if (trio->there[i]) {
            drop_below(trio, parent, i);
            trio->there[i] = action == 2;
        }
        return true;
    }
}

static void finish_trio(struct trio *trio, cap_t base)
{
    for (int i = 0; i < HANDLES; i++) {
        if (trio->used[i]) {
            cap_end(rig.ctx, &trio->use[i]);
        }
    }
    CHECK_OK(cap_revoke(rig.ctx, rig.root, base));
    for (int i = 0; i < HANDLES; i++) {
        if (trio->handle[i].v != 0) {
            CHECK_STATUS(rig_status(&rig, rig.root, trio->handle[i]), CLEAVE_REVOKED);
        }
    }
    CHECK_EQ(rig_audit(&rig), 2);
}

TEST(x18_three_handles_every_sequence)
{
    unsigned choices = HANDLES * ACTIONS;
    unsigned sequences = 1;
    unsigned complete = 0;
    rig_start(&rig);
    cap_t base = rig_node(&rig, 1);

    for (unsigned i = 0; i < DEPTH; i++) {
        sequences *= choices;
    }
    for (unsigned s = 0, skip; s < sequences; s += skip) {
        struct trio trio = {0};
        int parent[HANDLES] = {-1, -1, -1};
        unsigned weight = sequences / choices;
        skip = 1;
        for (unsigned step = 0; step < DEPTH; step++, weight /= choices) {
            unsigned choice = s / weight % choices;
            if (!act(&trio, parent, base, (int)(choice / ACTIONS), (int)(choice % ACTIONS))) {
                skip = weight - s % weight; /* all that begin alike */
                break;
            }
            complete += step == DEPTH - 1;
        }
        finish_trio(&trio, base);
    }
    CHECK(complete > 30000);
}

/* --- Other CPUs ------------------------------------------------------------------------------- */

#define WORKERS 2u

struct worker {
    pthread_t thread;
    unsigned cpu;
    struct cnode *node;
    uint32_t *stop;
    uint64_t turns, made;
};

/* Derives and deletes in its own node, from whatever is there. */
static void *work(void *arg)
{
    struct worker *worker = arg;
    struct mm_ctx *ctx = host_ctx(worker->cpu);
    struct fork_options options = {.limit = ANY};
    uint64_t seed = worker->cpu;
    cap_t source, made;

    host_cpu_attach(worker->cpu);
    while (!__atomic_load_n(worker->stop, __ATOMIC_RELAXED)) {
        struct cap_use use;
        __atomic_fetch_add(&worker->turns, 1, __ATOMIC_RELAXED);
        if (cap_at(ctx, worker->node, pick(&seed, cnode_slots(worker->node)), &source) !=
            CLEAVE_OK) {
            continue;
        }
        enum cleave_status status = CLEAVE_OK;
        switch (pick(&seed, 6)) {
        case 0:
            ctx->budget = 1 + pick(&seed, 4);
            status = cap_delete(ctx, worker->node, source);
            break;
        case 1:
            status = cap_fork(ctx, worker->node, source, 1, &options, CAP_SELF, &made);
            break;
        case 2:
            status = cap_create_space(ctx, worker->node, source, ANY, CAP_SELF, &made);
            break;
        case 3:
            status = cap_use(ctx, worker->node, source, CAP_ANY_TYPE, 0, &use);
            if (status == CLEAVE_OK) {
                cap_end(ctx, &use);
            }
            break;
        default:
            status = cap_copy(ctx, worker->node, source, CAP_MAY_ALL, CAP_SELF, &made);
            break;
        }
        ctx->budget = UINT64_MAX;
        worker->made += status == CLEAVE_OK;
    }
    host_cpu_detach(worker->cpu);
    return NULL;
}

/* Two CPUs hold copies of a pool and derive as fast as they can; each revoke ends nevertheless. */
TEST_TIMED(revoke_ends_against_others, 120)
{
    struct worker workers[WORKERS];
    uint32_t stop = 0;
    uint64_t calls = 0;
    rig_start(&rig);
    host_cpu_attach(0);
    cap_t pool = rig_pool(&rig, 32);
    cap_t node[WORKERS];

    for (unsigned i = 0; i < WORKERS; i++) {
        node[i] = rig_node(&rig, 4);
        workers[i] =
            (struct worker){.cpu = i + 1, .node = rig_object(&rig, node[i]), .stop = &stop};
        REQUIRE(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    for (uint64_t round = 0; round < test_steps(60); round++) {
        enum cleave_status status;
        for (unsigned i = 0; i < WORKERS; i++) {
            (void)rig_copy(&rig, pool, CAP_MAY_ALL, node[i]);
        }
        for (unsigned i = 0; i < WORKERS; i++) {
            uint64_t turns = __atomic_load_n(&workers[i].turns, __ATOMIC_RELAXED);
            while (__atomic_load_n(&workers[i].turns, __ATOMIC_RELAXED) < turns + 20) {
                host_poll(rig.ctx);
                sched_yield();
            }
        }
        do {
            rig.ctx->budget = 8;
            status = cap_revoke(rig.ctx, rig.root, pool);
            calls++;
        } while (status == CLEAVE_AGAIN);
        rig.ctx->budget = UINT64_MAX;
        CHECK_OK(status);
        CHECK(((struct pool *)rig_object(&rig, pool))->spaces == NULL);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(workers[i].thread, NULL);
        CHECK(workers[i].made > 20);
    }
    CHECK(calls >= 60);
    CHECK_EQ(rig_audit(&rig), 2 + WORKERS);
    CHECK_OK(cap_revoke(rig.ctx, rig.root, rig.untyped));
    CHECK_EQ(rig_audit(&rig), 1);
    host_cpu_detach(0);
}
