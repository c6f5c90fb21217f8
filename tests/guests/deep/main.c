/* SPDX-License-Identifier: BSD-2-Clause */
/* Ten generations: each forks the next, and each keeps what it saw and what it wrote. */
#include "guest.h"

const char guest_name[] = "deep";

#define GENERATIONS 10u
#define BASE (16 * MIB)
#define PAGES 64u

static uint64_t page_of(unsigned i) { return BASE + (uint64_t)i * 33 * PAGE; }

static void check(unsigned generation)
{
    for (unsigned i = 0; i < PAGES; i++) { /* page i was written last by generation i % ... */
        unsigned last = i % (GENERATIONS + 1) <= generation ? i % (GENERATIONS + 1) : 0;
        CHECK_EQ(*word(page_of(i)), 1000 * last + i);
    }
}

static void generation(unsigned number)
{
    uint32_t id;
    for (unsigned i = 0; i < PAGES; i++) {
        if (number == 0 || i % (GENERATIONS + 1) == number) {
            *word(page_of(i)) = 1000 * number + i;
        }
    }
    check(number);
    if (number == GENERATIONS) {
        audit_clean();
        return;
    }
    if (fork_self(1, 0, &id) == 1) {
        check(number);
        generation(number + 1);
        leave(number + 1);
    }
    CHECK_EQ(wait_for(id, number + 1), id);
    check(number);
    destroy(id);
    check(number);
}

void guest_story(void)
{
    generation(0);
    audit_clean();
}
