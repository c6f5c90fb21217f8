/* SPDX-License-Identifier: BSD-2-Clause */
/* A domain is destroyed while its vcpus run, one that triple-faults ends alone, one that halts
 * ends. */
#include "guest.h"

const char guest_name[] = "destroy";

#define BASE (16 * MIB)

static void busy(uint64_t argument)
{
    for (uint64_t n = argument;; n++) {
        *word(BASE + n % 512 * PAGE) = n;
    }
}

static uint32_t reason_of(uint32_t id)
{
    struct cleave_wait wait = {.domain = id};
    CHECK_EQ(CLEAVE(CLEAVE_OP_WAIT, &wait), CLEAVE_OK);
    return wait.reason;
}

void guest_story(void)
{
    uint32_t id;
    for (unsigned round = 0; round < 10; round++) {
        if (fork_self(1, 0, &id) == 1) {
            start_vcpu(1, busy, 7);
            busy(3);
        }
        while (stat_of(id)->faults < 20) {
            yield();
        }
        destroy(id);
        struct cleave_domain gone = {.domain = id};
        CHECK_EQ(CLEAVE(CLEAVE_OP_DESTROY, &gone), CLEAVE_NO_CAP);
    }
    if (fork_self(1, 0, &id) == 1) {
        struct {
            uint16_t limit;
            uint64_t base;
        } __attribute__((packed)) none = {0, 0};
        __asm__ volatile("lidt %0; int3" : : "m"(none));
    }
    CHECK_EQ(reason_of(id), CLEAVE_TRIPLE_FAULT);
    destroy(id);
    if (fork_self(1, 0, &id) == 1) {
        __asm__ volatile("cli; hlt");
    }
    CHECK_EQ(reason_of(id), CLEAVE_HALTED);
    destroy(id);
    audit_clean();
}
