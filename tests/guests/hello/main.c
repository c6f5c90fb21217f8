/* SPDX-License-Identifier: BSD-2-Clause */
/* A guest starts, calls, reads and writes its memory, and ends. With "child=NAME" it makes a domain
 * of that name, which stays; with "look" it asks for its own statistics until the machine stops. */
#include "guest.h"

const char guest_name[] = "hello";

static bool begins(const char *text, const char *with)
{
    while (*with != '\0' && *text == *with) {
        text++;
        with++;
    }
    return *with == '\0';
}

static void make_child(const char *name)
{
    struct cleave_create create = {.limit = 2 * MIB, .vcpus = 1};
    for (unsigned i = 0; i < CLEAVE_NAME_SIZE && name[i] != '\0'; i++) {
        create.name[i] = name[i];
    }
    CHECK_EQ(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_OK);
}

void guest_story(void)
{
    struct cleave_version version = {0};
    CHECK_EQ(CLEAVE(CLEAVE_OP_VERSION, &version), CLEAVE_OK);
    CHECK_EQ(version.revision, CLEAVE_ABI_REVISION);
    say("domain %u on %s, %lu MiB", version.domain, version.machine, guest_memory / MIB);
    for (uint64_t at = 8 * MIB; at < 16 * MIB; at += 64 * KIB) {
        CHECK_EQ(*word(at), 0);
        *word(at) = at;
    }
    for (uint64_t at = 8 * MIB; at < 16 * MIB; at += 64 * KIB) {
        CHECK_EQ(*word(at), at);
    }
    CHECK_EQ(hypercall(9999, 0, 0, 0), (uint64_t)-38);
    if (begins(guest_command, "child=")) {
        make_child(guest_command + 6);
    }
    audit_clean();
    if (begins(guest_command, "look")) {
        struct cleave_stat stat = {.domain = version.domain};
        for (;;) {
            CHECK_EQ(CLEAVE(CLEAVE_OP_STAT, &stat), CLEAVE_OK);
            for (unsigned i = 0; i < 200000; i++) { /* others get a turn, too */
                __asm__ volatile("");
            }
        }
    }
}
