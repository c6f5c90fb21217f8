/* SPDX-License-Identifier: BSD-2-Clause */
/* A domain gives another the right to fork a third and no more; takes it back; and destroys it. */
#include "guest.h"

const char guest_name[] = "grants";

#define SHARED_AT (64 * MIB)
#define LAST_TURN 13u

enum { TEMPLATE, TURN, DONE, GRANTS, FORKED }; /* words of shared memory */

static volatile uint64_t *const board = (volatile uint64_t *)SHARED_AT;

static uint64_t on(enum cleave_op op, uint32_t id)
{
    struct cleave_domain domain = {.domain = id};
    return CLEAVE(op, &domain);
}

static uint64_t stat(uint32_t id)
{
    static struct cleave_stat stat;
    stat = (struct cleave_stat){.domain = id};
    return CLEAVE(CLEAVE_OP_STAT, &stat);
}

/* Forks `id`, paused; the status. */
static uint64_t fork_of(uint32_t id, uint32_t *child)
{
    struct cleave_fork fork = {.domain = id,
                               .count = 1,
                               .flags = CLEAVE_FORK_PAUSED,
                               .limit = UINT64_MAX,
                               .domains = (uint64_t)child};
    uint64_t index;
    return hypercall_fork(&fork, &index);
}

/* All that the right to fork is not. */
static void nothing_else(uint32_t id)
{
    struct cleave_copy copy = {.domain = id, .buffer = SHARED_AT + PAGE, .size = 8};
    struct cleave_snapshot snapshot = {.domain = id, .name = "stolen"};
    struct cleave_map map = {.domain = id, .size = PAGE, .policy = PRIVATE, .rights = RW};
    struct cleave_grant grant = {.domain = CLEAVE_DOMAIN_SELF, .over = id, .rights = 7};
    struct cleave_rename rename = {.domain = id, .name = "mine"};
    CHECK_EQ(stat(id), CLEAVE_NO_CAP);
    CHECK_EQ(on(CLEAVE_OP_PAUSE, id), CLEAVE_NO_CAP);
    CHECK_EQ(on(CLEAVE_OP_UNPAUSE, id), CLEAVE_NO_CAP);
    CHECK_EQ(on(CLEAVE_OP_RESET, id), CLEAVE_NO_CAP);
    CHECK_EQ(on(CLEAVE_OP_DESTROY, id), CLEAVE_NO_CAP);
    CHECK_EQ(CLEAVE(CLEAVE_OP_COPY, &copy), CLEAVE_NO_CAP);
    CHECK_EQ(CLEAVE(CLEAVE_OP_SNAPSHOT, &snapshot), CLEAVE_NO_CAP);
    CHECK_EQ(CLEAVE(CLEAVE_OP_MAP, &map), CLEAVE_NO_CAP);
    CHECK_EQ(CLEAVE(CLEAVE_OP_UNMAP, &map), CLEAVE_NO_CAP);
    CHECK_EQ(CLEAVE(CLEAVE_OP_PROTECT, &map), CLEAVE_NO_CAP);
    CHECK_EQ(CLEAVE(CLEAVE_OP_GRANT, &grant), CLEAVE_NO_CAP); /* nor to give it away */
    CHECK_EQ(CLEAVE(CLEAVE_OP_RENAME, &rename), CLEAVE_NO_CAP);
}

static void await_turn(uint64_t turn)
{
    board[DONE] = turn - 1;
    while (board[TURN] < turn) {
        yield();
    }
}

/* FORK, which is taken back while it is used, a few times. */
static void fork_till_refused(uint32_t id)
{
    for (uint64_t turn = 5; turn < LAST_TURN; turn++) {
        uint64_t status;
        uint32_t child;
        await_turn(turn);
        while ((status = fork_of(id, &child)) == CLEAVE_OK) {
            board[FORKED]++;
            destroy(child);
        }
        CHECK_EQ(status, CLEAVE_NO_CAP);
        for (unsigned i = 0; i < 20; i++) {
            CHECK_EQ(fork_of(id, &child), CLEAVE_NO_CAP);
        }
    }
}

/* The domain that is given rights. */
static _Noreturn void given(void)
{
    uint32_t child = 0, other = 0, id;
    await_turn(1);
    id = (uint32_t)board[TEMPLATE];
    CHECK_EQ(fork_of(id, &child), CLEAVE_NO_CAP);
    nothing_else(id);
    await_turn(2); /* FORK */
    CHECK_EQ(fork_of(id, &child), CLEAVE_OK);
    nothing_else(id);
    CHECK_EQ(stat(child), CLEAVE_OK); /* that is its own */
    on_domain(CLEAVE_OP_UNPAUSE, child);
    on_domain(CLEAVE_OP_PAUSE, child);
    await_turn(3); /* LOOK and HOLD in its place */
    CHECK_EQ(fork_of(id, &other), CLEAVE_NO_CAP);
    CHECK_EQ(stat(id), CLEAVE_OK);
    CHECK_EQ(on(CLEAVE_OP_PAUSE, id), CLEAVE_OK);
    CHECK_EQ(on(CLEAVE_OP_UNPAUSE, id), CLEAVE_OK);
    CHECK_EQ(on(CLEAVE_OP_DESTROY, id), CLEAVE_NO_CAP);
    await_turn(4); /* nothing */
    nothing_else(id);
    CHECK_EQ(fork_of(id, &other), CLEAVE_NO_CAP);
    CHECK_EQ(fork_of(child, &other), CLEAVE_OK); /* what it made stays its own */
    destroy(other);
    fork_till_refused(id);
    await_turn(LAST_TURN); /* FORK again, and the template is destroyed */
    CHECK_EQ(fork_of(id, &other), CLEAVE_NO_CAP);
    destroy(child);
    leave(7);
}

static uint64_t grant(uint32_t to, uint32_t over, uint32_t rights)
{
    struct cleave_grant grant = {.domain = to, .over = over, .rights = rights};
    return CLEAVE(CLEAVE_OP_GRANT, &grant);
}

static void next_turn(uint64_t turn)
{
    board[TURN] = turn;
    while (board[DONE] < turn) {
        CHECK(stat_of((uint32_t)board[GRANTS])->state != CLEAVE_STATE_ENDED);
        yield();
    }
}

/* Domains that this one commands. */
static unsigned domains(void)
{
    struct cleave_list list = {.domain = 0};
    unsigned count = 0;
    do {
        CHECK_EQ(CLEAVE(CLEAVE_OP_LIST, &list), CLEAVE_OK);
        count += list.name[0] != '\0';
    } while (list.domain != 0);
    return count;
}

/* The right is taken back in the middle of its use: calls are refused from then on, and what was
 * made before is whole and its maker's. */
static void taken_back(uint32_t to, uint32_t template)
{
    for (uint64_t turn = 5; turn < LAST_TURN; turn++) {
        uint64_t before = board[FORKED];
        CHECK_EQ(grant(to, template, CLEAVE_RIGHT_FORK), CLEAVE_OK);
        board[TURN] = turn;
        while (board[FORKED] < before + turn) {
            CHECK(stat_of(to)->state != CLEAVE_STATE_ENDED);
            yield();
        }
        CHECK_EQ(grant(to, template, 0), CLEAVE_OK);
        next_turn(turn);
        CHECK_EQ(domains(), 4); /* this one, those two, and the child of the first */
    }
}

/* Argument by argument. */
static void refusals(uint32_t to, uint32_t over)
{
    CHECK_EQ(grant(to, over, 8), CLEAVE_INVALID);
    CHECK_EQ(grant(to, to, CLEAVE_RIGHT_FORK), CLEAVE_INVALID);
    CHECK_EQ(grant(to, 4711, CLEAVE_RIGHT_FORK), CLEAVE_NO_CAP);
    CHECK_EQ(grant(4711, over, CLEAVE_RIGHT_FORK), CLEAVE_NO_CAP);
    CHECK_EQ(grant(to, over, 0), CLEAVE_OK); /* there is nothing to take back */
}

/* As many as there is room for; those of domains that are gone make room. */
static void many(uint32_t to, uint32_t template)
{
    static uint32_t child[300];
    unsigned count = 0;
    uint64_t status = CLEAVE_OK;
    while (count < 300 && status == CLEAVE_OK) {
        CHECK_EQ(fork_of(template, &child[count]), CLEAVE_OK);
        status = grant(to, child[count++], CLEAVE_RIGHT_LOOK);
    }
    CHECK_EQ(status, CLEAVE_COUNT);
    CHECK_EQ(count, 257);
    destroy(child[0]);
    CHECK_EQ(grant(to, child[256], CLEAVE_RIGHT_LOOK), CLEAVE_OK);
    for (unsigned i = 1; i < count; i++) {
        destroy(child[i]);
    }
}

void guest_story(void)
{
    uint32_t to, template;
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, SHARED_AT, 2 * MIB, SHARED, RW, 0), CLEAVE_OK);
    if (fork_self(1, 0, &to) == 1) {
        given();
    }
    if (fork_self(1, CLEAVE_FORK_PAUSED, &template) == 1) {
        for (;;) {
            yield(); /* the template, and its forks */
        }
    }
    refusals(to, template);
    board[TEMPLATE] = template;
    board[GRANTS] = to;
    next_turn(1);
    CHECK_EQ(grant(to, template, CLEAVE_RIGHT_FORK), CLEAVE_OK);
    next_turn(2);
    CHECK_EQ(grant(to, template, CLEAVE_RIGHT_LOOK | CLEAVE_RIGHT_HOLD), CLEAVE_OK);
    next_turn(3);
    CHECK_EQ(grant(to, template, 0), CLEAVE_OK);
    next_turn(4);
    taken_back(to, template);
    many(to, template);
    CHECK_EQ(grant(to, template, CLEAVE_RIGHT_FORK), CLEAVE_OK);
    destroy(template);
    board[TURN] = LAST_TURN;
    wait_for(to, 7);
    destroy(to);
    audit_clean();
}
