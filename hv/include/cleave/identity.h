/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The identity page: how a guest finds out which of several forks it is. It lies in guest memory
 * that the guest's memory map calls reserved; the caller's data of the fork stand in the page
 * behind it. Both are complete before a child's first instruction. Shared by hypervisor, guests and
 * tests.
 */
#ifndef CLEAVE_IDENTITY_H
#define CLEAVE_IDENTITY_H

#include <stddef.h>
#include <stdint.h>

#define CLEAVE_IDENTITY_GPA UINT64_C(0xfeff8000)      /* guest-physical, one 4 KiB page */
#define CLEAVE_IDENTITY_DATA_GPA UINT64_C(0xfeff9000) /* guest-physical, one 4 KiB page */
#define CLEAVE_IDENTITY_MAGIC "CleaveID"              /* 8 bytes, without the zero byte */
#define CLEAVE_IDENTITY_REVISION 1u

struct cleave_identity {
    uint8_t magic[8]; /* CLEAVE_IDENTITY_MAGIC */
    uint32_t revision;
    uint32_t index;         /* its number among them, 1..count; 0: never forked */
    uint32_t count;         /* children that were forked, by this call or as the caller said */
    uint32_t domain;        /* the domain's id */
    uint8_t generation[16]; /* new at fork, restore and reset */
    uint32_t data_size;     /* bytes of the caller's data that count, at most 4096 */
    uint32_t reserved;
    uint64_t forked_at_ns; /* guest time */
};

_Static_assert(sizeof(struct cleave_identity) == 56,
               "cleave_identity has the size that the ABI says");
_Static_assert(offsetof(struct cleave_identity, domain) == 20,
               "cleave_identity.domain is where it was");
_Static_assert(offsetof(struct cleave_identity, generation) == 24,
               "cleave_identity.generation is where it was");
_Static_assert(offsetof(struct cleave_identity, forked_at_ns) == 48,
               "cleave_identity.forked_at_ns is where it was");

#endif
