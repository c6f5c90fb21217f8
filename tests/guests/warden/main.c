/* SPDX-License-Identifier: BSD-2-Clause */
/* The control domain waits for domains that it has not made, whose maker is told all the same. */
#include "guest.h"

const char guest_name[] = "warden";

enum { CODE = 9 };

/* Its child stands still until the warden has found it, and ends while that waits for it. The maker
 * asks long after the warden was told. */
static void make(void)
{
    uint32_t id;
    if (fork_self(1, CLEAVE_FORK_PAUSED, &id) != 0) {
        for (unsigned i = 0; i < 2000; i++) {
            yield();
        }
        leave(CODE);
    }
    while (stat_of(id)->state != CLEAVE_STATE_ENDED) {
        yield();
    }
    for (unsigned i = 0; i < 2000; i++) {
        yield();
    }
    CHECK_EQ(wait_for(0, CODE), id);
    struct cleave_wait none = {.flags = CLEAVE_WAIT_NOT};
    CHECK_EQ(CLEAVE(CLEAVE_OP_WAIT, &none), CLEAVE_NO_CAP); /* it was told of all */
    none.domain = CLEAVE_DOMAIN_CONTROL;
    CHECK_EQ(CLEAVE(CLEAVE_OP_WAIT, &none), CLEAVE_NO_CAP);
}

/* The first domain that `parent` made; with 0, the first of the boot configuration. */
static uint32_t find(uint32_t parent)
{
    struct cleave_list list = {.domain = 0};
    do {
        CHECK_EQ(CLEAVE(CLEAVE_OP_LIST, &list), CLEAVE_OK);
    } while (list.domain != 0 && (list.state == 0 || list.parent != parent));
    return list.domain;
}

static void wait_and_see(void)
{
    uint32_t maker = find(0), child;
    struct cleave_wait wait = {.flags = CLEAVE_WAIT_NOT};
    CHECK(maker != 0 && maker != CLEAVE_DOMAIN_CONTROL);
    CHECK_EQ(CLEAVE(CLEAVE_OP_WAIT, &wait), CLEAVE_BUSY); /* the maker runs */
    while ((child = find(maker)) == 0) {
        yield();
    }
    wait.domain = child;
    CHECK_EQ(CLEAVE(CLEAVE_OP_WAIT, &wait), CLEAVE_BUSY);
    on_domain(CLEAVE_OP_UNPAUSE, child);
    CHECK_EQ(wait_for(child, CODE), child);
    CHECK_EQ(wait_for(child, CODE), child); /* as often as it likes */
    CHECK_EQ(wait_for(0, 0), maker);        /* the child is none that nobody made */
    CHECK_EQ(wait_for(maker, 0), maker);
    wait.domain = 0;
    CHECK_EQ(CLEAVE(CLEAVE_OP_WAIT, &wait), CLEAVE_NO_CAP); /* it was told of all */
    wait.domain = CLEAVE_DOMAIN_CONTROL;
    CHECK_EQ(CLEAVE(CLEAVE_OP_WAIT, &wait), CLEAVE_NO_CAP); /* itself */
    destroy(child);
    wait.domain = child;
    CHECK_EQ(CLEAVE(CLEAVE_OP_WAIT, &wait), CLEAVE_NO_CAP);
}

void guest_story(void)
{
    if (guest_command[0] == 'm') {
        make();
    } else {
        wait_and_see();
    }
}
