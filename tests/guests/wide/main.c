/* SPDX-License-Identifier: BSD-2-Clause */
/* A thousand children at once, each with a page of its own; QEMU has 16 ASIDs. */
#include "guest.h"

const char guest_name[] = "wide";

#define BASE (16 * MIB)
#define MOST 1000u

static uint32_t ids[MOST];

static unsigned count(void)
{
    unsigned n = 0;
    for (const char *c = guest_command; *c >= '0' && *c <= '9'; c++) {
        n = n * 10 + (unsigned)(*c - '0');
    }
    return n == 0 || n > MOST ? MOST : n;
}

void guest_story(void)
{
    unsigned children = count(), made = 0;
    for (uint64_t at = BASE; at < BASE + 4 * MIB; at += PAGE) {
        *word(at) = at;
    }
    uint64_t before = stat_of(CLEAVE_DOMAIN_SELF)->pool_free;
    while (made < children) {
        unsigned now = children - made < CLEAVE_FORKS_MAX ? children - made : CLEAVE_FORKS_MAX;
        uint32_t index = fork_self(now, 0, &ids[made]);
        if (index != 0) {
            uint64_t mine = BASE + (made + index) % 1024 * PAGE;
            CHECK_EQ(*word(mine), mine);
            *word(mine) = made + index;
            yield();
            CHECK_EQ(*word(mine), made + index);
            CHECK_EQ(*word(BASE + (made + index + 1) % 1024 * PAGE),
                     BASE + (made + index + 1) % 1024 * PAGE);
            leave(made + index);
        }
        made += now;
    }
    uint64_t held = before - stat_of(CLEAVE_DOMAIN_SELF)->pool_free;
    for (unsigned i = 0; i < children; i++) {
        CHECK_EQ(wait_for(ids[i], i + 1), ids[i]);
    }
    say("%u children, %lu KiB each before and while they ran", children, held / children / KIB);
    audit_clean();
    for (unsigned i = 0; i < children; i++) {
        destroy(ids[i]);
    }
    for (uint64_t at = BASE; at < BASE + 4 * MIB; at += PAGE) {
        CHECK_EQ(*word(at), at);
    }
    audit_clean();
}
