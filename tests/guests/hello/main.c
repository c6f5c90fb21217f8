/* SPDX-License-Identifier: BSD-2-Clause */
/* A guest starts, calls, reads and writes its memory, and ends. */
#include "guest.h"

const char guest_name[] = "hello";

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
    audit_clean();
}
