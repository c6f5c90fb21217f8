/* SPDX-License-Identifier: BSD-2-Clause */
/* A parent arms memory of its child: it is told before a write lands, allows, denies and rearms. */
#include "guest.h"

const char guest_name[] = "notify";

#define AT (16 * MIB)
#define SIZE (2 * MIB)
#define SHARED_AT (64 * MIB)

static uint32_t id;

static void notify(unsigned command, uint64_t at, uint64_t size)
{
    struct cleave_notify n = {.domain = id, .command = (uint16_t)command, .at = at, .size = size};
    CHECK_EQ(CLEAVE(CLEAVE_OP_NOTIFY, &n), CLEAVE_OK);
}

static struct cleave_event event(void)
{
    struct cleave_event e = {0};
    CHECK_EQ(CLEAVE(CLEAVE_OP_EVENT, &e), CLEAVE_OK);
    return e;
}

static void verdict(uint64_t event_id, uint32_t deny)
{
    struct cleave_verdict v = {.id = event_id, .deny = deny};
    CHECK_EQ(CLEAVE(CLEAVE_OP_VERDICT, &v), CLEAVE_OK);
}

static uint64_t peek(uint64_t at)
{
    uint64_t value = 0;
    struct cleave_copy copy = {.domain = id, .at = at, .buffer = (uint64_t)&value, .size = 8};
    CHECK_EQ(CLEAVE(CLEAVE_OP_COPY, &copy), CLEAVE_OK);
    return value;
}

void guest_story(void)
{
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, SHARED_AT, 2 * MIB, SHARED, RW, 1), CLEAVE_OK);
    for (uint64_t at = AT; at < AT + SIZE; at += PAGE) {
        *word(at) = 1;
    }
    if (fork_self(1, CLEAVE_FORK_PAUSED, &id) == 1) {
        *word(AT) = 2; /* waits, is allowed */
        CHECK_EQ(*word(AT), 2);
        *word(SHARED_AT) = 1;
        CHECK(!try_store((volatile void *)(AT + PAGE), 3)); /* waits, is denied */
        CHECK_EQ(last_error().status, CLEAVE_DENIED);
        CHECK_EQ(*word(AT + PAGE), 1);
        *word(AT + SIZE) = 4; /* not armed */
        while (*word(SHARED_AT) != 2) {
            yield();
        }
        *word(AT) = 5; /* armed again */
        leave(4);
    }
    notify(1, AT, SIZE);
    on_domain(CLEAVE_OP_UNPAUSE, id);
    struct cleave_event e = event();
    CHECK_EQ(e.domain, id);
    CHECK_EQ(e.start, AT);
    CHECK_EQ(e.end, AT + PAGE);
    CHECK_EQ(peek(AT), 1); /* told before the write is there */
    verdict(e.id, 0);
    e = event();
    CHECK_EQ(e.start, AT + PAGE);
    CHECK_EQ(peek(AT), 2);
    verdict(e.id, 1);
    while (*word(SHARED_AT) != 1) {
        yield();
    }
    notify(2, AT, PAGE);
    *word(SHARED_AT) = 2;
    e = event();
    CHECK_EQ(e.start, AT);
    CHECK_EQ(peek(AT), 2);
    verdict(e.id, 0);
    CHECK_EQ(wait_for(id, 4), id);
    CHECK_EQ(peek(AT), 5);
    CHECK_EQ(*word(AT), 1);
    destroy(id);
    audit_clean();
}
