/* SPDX-License-Identifier: BSD-2-Clause */
/* Parent and child diverge after a self-fork, at each size of leaf: "4K", "2M" or "1G". */
#include "guest.h"

const char guest_name[] = "fork";

static uint64_t base, size, step;
static unsigned order;

static void choose(void)
{
    order = guest_command[0] == '4' ? 0 : guest_command[0] == '2' ? 1 : 2;
    base = order == 2 ? GIB : 32 * MIB;
    size = order == 2 ? GIB : 16 * MIB;
    step = order == 2 ? 16 * MIB : 256 * KIB;
    CHECK(base + size <= guest_memory);
}

static void fill(uint64_t tag)
{
    for (uint64_t at = base; at < base + size; at += step) {
        *word(at) = at ^ tag;
    }
}

static void check(uint64_t tag)
{
    for (uint64_t at = base; at < base + size; at += step) {
        CHECK_EQ(*word(at), at ^ tag);
    }
}

void guest_story(void)
{
    uint32_t id;
    choose();
    fill(1);
    CHECK_EQ(lookup(base).order, order);
    uint32_t index = fork_self(1, 0, &id);
    if (index == 1) {
        check(1);
        CHECK(!lookup(base).exclusive);
        fill(2);
        check(2);
        leave(7);
    }
    check(1); /* whatever the child has written by now */
    for (unsigned i = 0; i < 50; i++) {
        check(1);
        yield();
    }
    fill(3);
    CHECK_EQ(wait_for(0, 7), id);
    check(3);
    say("leaves of order %u: the child's faults %lu, copied %lu KiB", order, stat_of(id)->faults,
        stat_of(id)->copied / KIB);
    audit_clean();
    destroy(id);
    check(3);
    audit_clean();
}
