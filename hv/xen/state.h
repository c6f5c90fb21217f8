/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a domain and a vcpu keep for Xen's ABI: plain data that a fork copies and a reset puts back.
 * A domain has it from its first Xen hypercall on, in a frame of its own.
 */
#ifndef XEN_STATE_H
#define XEN_STATE_H

#include <stdint.h>

#include "klock.h"

#define XEN_PORTS 256u /* event channels of a domain, 0 excluded; the 2-level ABI allows 4,096 */
#define XEN_PORT_WORDS (XEN_PORTS / 64)
#define XEN_NOWHERE UINT64_MAX /* no guest-physical address yet */
#define XEN_PARAMS 40u
#define XEN_VIRQS 24u
#define XEN_HYPERCALL_PAGE_MSR 0x40000000u
#define XEN_INPUT_SIZE 128u
#define XEN_CALLS 64u /* hypercalls that are counted by number */

/* Guest-physical pages that the hypervisor and a guest share, told in a reserved range of its
 * memory map; ordinary copy-on-write memory. */
#define XEN_WINDOW UINT64_C(0xfeff8000)
#define XEN_WINDOW_SIZE UINT64_C(0x8000)
#define XEN_IDENTITY_PAGE XEN_WINDOW /* struct cleave_identity, and the caller's data behind it */
#define XEN_CONSOLE_PAGE (XEN_WINDOW + 0x7000)
#define XEN_CONSOLE_PORT 1u

enum xen_port_kind {
    XEN_PORT_FREE = 0,
    XEN_PORT_VIRQ,
    XEN_PORT_IPI,
    XEN_PORT_UNBOUND, /* for the domain `virq` to bind to */
    XEN_PORT_CONSOLE  /* to the hypervisor */
};

/* As the BIOS tells memory (INT 15h, AX = E820h). */
struct xen_map_entry {
    uint64_t at, size;
    uint32_t type;
} __attribute__((packed));
#define XEN_MAP_MAX 64u

struct xen_port {
    uint8_t kind;  /* enum xen_port_kind */
    uint8_t vcpu;  /* which is told */
    uint16_t virq; /* or domain */
};

struct xen_domain {
    struct klock lock;         /* of the ports and of `input` */
    struct klock ring;         /* try only: a vcpu is at the console's ring */
    uint32_t unknown;          /* calls that were answered with -ENOSYS */
    uint32_t calls[XEN_CALLS]; /* atomic: by number, those executed again too */
    uint32_t refresh;          /* atomic: the wall clock is to be written again */
    uint8_t vector;            /* of the callback; 0: none */
    uint64_t shared_info;      /* guest-physical */
    uint64_t param[XEN_PARAMS];
    struct xen_port port[XEN_PORTS];
    uint32_t map_count; /* under `lock`: 0 when it was given none */
    struct xen_map_entry map[XEN_MAP_MAX];
    uint32_t input_size; /* typed, and not yet in the guest's ring */
    uint32_t lost;       /* events and bytes that could not be stored */
    uint8_t input[XEN_INPUT_SIZE];
};
_Static_assert(sizeof(struct xen_domain) <= 4096, "one frame");

struct xen_vcpu {
    uint64_t info;                   /* guest-physical address of its vcpu_info */
    uint64_t raised[XEN_PORT_WORDS]; /* atomic: ports to be made pending before its next
                                        instruction */
    uint64_t deadline;               /* of its one-shot timer, ns of its clock; 0: none */
    uint64_t poll_until;             /* SCHEDOP_poll, ns of its clock; 0: without end */
    uint8_t polling;
    uint8_t upcall; /* it is to be told that events are pending */
    uint16_t virq[XEN_VIRQS];
};

#endif
