/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control domain writes into domains of another pool, by COPY and through maps. For a verdict
 * it waits, and the vcpu that waits can be stopped; for memory that the other pool or the owner's
 * limit has not it does not.
 */
#define __XEN_TOOLS__ 1
#include "guest.h"
#include "xen.h"

const char guest_name[] = "across";

#define FLAGS (6 * MIB)   /* of the armer: how far it is, and what it may do */
#define ARMED (7 * MIB)   /* its page whose writes it is told of */
#define COMMON (5 * MIB)  /* its page that a child shares */
#define WINDOW (64 * MIB) /* where pages of others are mapped */
enum { ALLOW, DENY };

static uint64_t copy(uint32_t domain, bool write, uint64_t at, uint64_t *value)
{
    struct cleave_copy copy = {
        .domain = domain, .write = write, .at = at, .buffer = (uint64_t)value, .size = 8};
    return CLEAVE(CLEAVE_OP_COPY, &copy);
}

static uint64_t read_word(uint32_t domain, uint64_t at)
{
    uint64_t value = 0;
    CHECK_EQ(copy(domain, false, at, &value), CLEAVE_OK);
    return value;
}

static uint64_t write_word(uint32_t domain, uint64_t at, uint64_t value)
{
    return copy(domain, true, at, &value);
}

/* --- In the other pool ------------------------------------------------------------------------ */

static void await_order(uint64_t order)
{
    while (*word(FLAGS + 8) < order) {
        yield();
    }
}

static void decide(uint64_t deny)
{
    struct cleave_event event = {.id = 0};
    CHECK_EQ(CLEAVE(CLEAVE_OP_EVENT, &event), CLEAVE_OK);
    CHECK_EQ(event.start, ARMED);
    *word(FLAGS) += 1;
    await_order(*word(FLAGS) - 1);
    struct cleave_verdict verdict = {.id = event.id, .deny = (uint32_t)deny};
    CHECK_EQ(CLEAVE(CLEAVE_OP_VERDICT, &verdict), CLEAVE_OK);
}

static void armer(void)
{
    struct cleave_notify notify = {
        .domain = CLEAVE_DOMAIN_SELF, .command = 1, .at = ARMED, .size = PAGE};
    *word(COMMON) = 1;
    CHECK_EQ(CLEAVE(CLEAVE_OP_NOTIFY, &notify), CLEAVE_OK);
    *word(FLAGS) = 1;
    decide(ALLOW); /* to a writer that is gone */
    *word(FLAGS) = 10;
    *word(FLAGS + 8) = 10;
    decide(DENY);
    await_order(11);
    CHECK_EQ(*word(ARMED), 0);
    CHECK_EQ(*word(COMMON), 1);
}

/* --- Verdicts --------------------------------------------------------------------------------- */

/* A child of `parent`, which is gone. */
static uint32_t orphan_of(uint32_t parent)
{
    struct cleave_list list = {.domain = 0};
    do {
        CHECK_EQ(CLEAVE(CLEAVE_OP_LIST, &list), CLEAVE_OK);
    } while (list.domain != 0 && (list.state == 0 || list.parent != parent));
    return list.domain;
}

static void await_flag(uint32_t domain, uint64_t flag)
{
    while (read_word(domain, FLAGS) != flag) {
        yield();
    }
}

static uint64_t fork_of(uint32_t domain, uint64_t limit, uint32_t *id)
{
    struct cleave_fork fork = {.domain = domain,
                               .count = 1,
                               .flags = CLEAVE_FORK_PAUSED,
                               .limit = limit,
                               .domains = (uint64_t)id};
    return CLEAVE(CLEAVE_OP_FORK, &fork);
}

/* Not the control domain: it makes a child in the other pool, as soon as it may, and waits there.
 */
static void writer(void)
{
    uint32_t child;
    while (fork_of(1, UINT64_MAX, &child) != CLEAVE_OK) {
        yield();
    }
    (void)write_word(child, ARMED, 78);
    CHECK(false); /* it goes while it waits */
}

/* A domain in pool `pool` with memory of so many pages, each of which begins with no address. */
static uint64_t fill(uint32_t pool, uint64_t pages, uint32_t *id)
{
    struct cleave_create_in create = {
        .name = "filler", .limit = UINT64_MAX, .vcpus = 1, .pool = pool};
    CHECK_EQ(CLEAVE(CLEAVE_OP_CREATE_IN, &create), CLEAVE_OK);
    CHECK_EQ(map(create.domain, 0, pages * PAGE, PRIVATE, RW, 0), CLEAVE_OK);
    uint64_t status = CLEAVE_OK;
    for (uint64_t i = 0; i < pages && status == CLEAVE_OK; i++) {
        status = write_word(create.domain, i * PAGE, UINT64_C(0x4141414141414141));
    }
    *id = create.domain;
    return status;
}

/* Who waits for a verdict in another pool is destroyed, and others get the memory of its vcpu. */
static void verdicts(uint32_t armed)
{
    uint32_t id, filler;
    if (fork_self(1, 0, &id) == 1) {
        writer();
    }
    struct cleave_grant grant = {.domain = id, .over = armed, .rights = CLEAVE_RIGHT_FORK};
    await_flag(armed, 1);
    CHECK_EQ(CLEAVE(CLEAVE_OP_GRANT, &grant), CLEAVE_OK);
    await_flag(armed, 2);
    destroy(id);
    CHECK_EQ(fill(1, 4096, &filler), CLEAVE_OK);
    CHECK_EQ(write_word(armed, FLAGS + 8, 1), CLEAVE_OK);
    await_flag(armed, 10);
    destroy(filler);
    destroy(orphan_of(id));
    CHECK_EQ(write_word(armed, ARMED, 78), CLEAVE_DENIED); /* by one that waits for it */
}

/* --- Memory ----------------------------------------------------------------------------------- */

/* A store through the map is refused, and nothing is changed by it. */
static void refused(uint32_t child)
{
    uint8_t value = 0;
    CHECK(!try_store((uint8_t *)WINDOW, 9));
    CHECK_EQ(last_error().status, CLEAVE_NO_MEMORY);
    CHECK_EQ(last_error().operation, UINT32_MAX);
    CHECK(try_load((uint8_t *)WINDOW, &value));
    CHECK_EQ(value, 1);
    CHECK_EQ(read_word(child, COMMON), 1);
}

static void memory(uint32_t domain, uint32_t pool)
{
    uint32_t child, filler;
    CHECK_EQ(fork_of(domain, UINT64_MAX, &child), CLEAVE_OK);
    map_foreign(child, COMMON / PAGE, WINDOW);
    CHECK_EQ(fill(pool, 16384, &filler), CLEAVE_NO_MEMORY);
    refused(child);
    CHECK_EQ(write_word(child, COMMON, 5), CLEAVE_NO_MEMORY);
    destroy(filler);
    CHECK(try_store((uint8_t *)WINDOW, 9));
    CHECK_EQ(read_word(child, COMMON), 9);
    CHECK_EQ(read_word(domain, COMMON), 1);
    destroy(child);

    CHECK_EQ(fork_of(domain, 2 * MIB, &child), CLEAVE_OK);
    map_foreign(child, COMMON / PAGE, WINDOW);
    uint64_t status = CLEAVE_OK;
    for (uint64_t at = 0; at < COMMON && status == CLEAVE_OK; at += PAGE) {
        status = write_word(child, at, at);
    }
    CHECK_EQ(status, CLEAVE_QUOTA);
    refused(child);
    destroy(child);
}

void guest_story(void)
{
    if (guest_command[0] == 'a') {
        armer();
        return;
    }
    verdicts(1);
    memory(1, 2);
    CHECK_EQ(write_word(1, FLAGS + 8, 11), CLEAVE_OK);
    audit_clean();
}
