/* SPDX-License-Identifier: BSD-2-Clause */
/* Random bytes to every operation, ten thousand times: the guest may end, nobody else notices. */
#include "guest.h"

const char guest_name[] = "fuzz";

#define CALLS 10000u

static uint64_t seed = 4711;

/* Numbers that are near to something. */
static uint64_t number(void)
{
    uint64_t r = random_next(&seed);
    switch (r % 8) {
    case 0:
        return 0;
    case 1:
        return r >> 32 & 0xff;
    case 2:
        return (r >> 32 & 0xff) * PAGE;
    case 3:
        return (r >> 32 & 0xff) * 2 * MIB;
    case 4:
        return UINT64_MAX - (r >> 48);
    case 5:
        return UINT64_C(1) << (r >> 32) % 64;
    case 6:
        return CLEAVE_DOMAIN_SELF | (r & UINT64_C(0x3fff00000000));
    default:
        return r;
    }
}

static _Noreturn void child(void)
{
    static const uint16_t sizes[CLEAVE_OPS] = {
        sizeof(struct cleave_version),
        sizeof(struct cleave_console),
        sizeof(struct cleave_exit),
        sizeof(struct cleave_error),
        sizeof(struct cleave_create),
        sizeof(struct cleave_map),
        sizeof(struct cleave_map),
        sizeof(struct cleave_map),
        sizeof(struct cleave_copy),
        sizeof(struct cleave_start),
        sizeof(struct cleave_domain),
        sizeof(struct cleave_domain),
        sizeof(struct cleave_fork),
        sizeof(struct cleave_snapshot),
        sizeof(struct cleave_domain),
        sizeof(struct cleave_domain),
        sizeof(struct cleave_wait),
        sizeof(struct cleave_stat),
        sizeof(struct cleave_audit),
        sizeof(struct cleave_lookup),
        sizeof(struct cleave_collapse),
        sizeof(struct cleave_notify),
        sizeof(struct cleave_event),
        sizeof(struct cleave_verdict),
        0,
        sizeof(struct cleave_list),
        sizeof(struct cleave_rename),
        sizeof(struct cleave_grant),
        [CLEAVE_OP_TERMINAL] = sizeof(struct cleave_terminal),
        [CLEAVE_OP_WINDOW] = sizeof(struct cleave_window),
        [CLEAVE_OP_POOL_CREATE] = sizeof(struct cleave_pool_create),
        [CLEAVE_OP_POOL_LIST] = sizeof(struct cleave_pool_list),
        [CLEAVE_OP_POOL_DELETE] = sizeof(struct cleave_pool_delete),
        [CLEAVE_OP_CREATE_IN] = sizeof(struct cleave_create_in),
        [CLEAVE_OP_POOL_RESIZE] = sizeof(struct cleave_pool_resize)};
    static uint64_t arguments[256];
    volatile uint64_t *count = word(64 * MIB);

    while (*count < CALLS) {
        unsigned op = (unsigned)(random_next(&seed) % (CLEAVE_OPS + 1));
        *count += 1;
        if (op == CLEAVE_OP_CONSOLE || op == CLEAVE_OP_EXIT || op == CLEAVE_OP_WAIT ||
            op == CLEAVE_OP_EVENT || op == CLEAVE_OP_PAUSE || op == CLEAVE_OP_UNMAP) {
            continue; /* would print at random, or end it sooner */
        }
        if (op == CLEAVE_OP_AUDIT && random_next(&seed) % 64 != 0) {
            continue; /* slow, and its arguments are results only */
        }
        for (unsigned i = 0; i < 16; i++) {
            arguments[i] = number();
        }
        uint64_t size = op < CLEAVE_OPS && random_next(&seed) % 16 != 0 ? sizes[op] : number();
        uint64_t at = random_next(&seed) % 32 == 0 ? number() : (uint64_t)arguments;
        (void)hypercall(random_next(&seed) % 64 == 0 ? number() : CLEAVE_HYPERCALL, op, at, size);
    }
    leave(0);
}

/* Children that lose their memory or their way are replaced until all calls were made. */
void guest_story(void)
{
    unsigned lives = 0;
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, 64 * MIB, 2 * MIB, SHARED, RW, 0), CLEAVE_OK);
    volatile uint64_t *count = word(64 * MIB);
    while (*count < CALLS) {
        uint32_t id;
        seed += 1000;
        uint64_t made = *count, turns = 0;
        if (fork_self(1, 0, &id) == 1) {
            child();
        }
        lives++;
        while (stat_of(id)->state == CLEAVE_STATE_RUNNING && turns < 2000) {
            turns = *count == made ? turns + 1 : 0;
            made = *count;
            yield();
        }
        destroy(id);
        CHECK(lives < 4000);
    }
    say("%lu calls, %u lives", *count, lives);
    audit_clean();
}
