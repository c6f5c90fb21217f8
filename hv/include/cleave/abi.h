/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Cleave's own operation: what a guest or a control domain asks that Xen's ABI cannot say. Shared
 * by hypervisor, tools, guest agent and tests. docs/abi.md explains each operation and its errors.
 *
 * Call: VMCALL on Intel, VMMCALL on AMD, from ring 0, with
 *   64-bit code: RAX = CLEAVE_HYPERCALL, RDI = operation, RSI = arguments, RDX = their size
 *   32-bit code: EAX = CLEAVE_HYPERCALL, EBX = operation, ECX = arguments, EDX = their size
 * The arguments are a structure at a guest-linear address (in the page tables of the moment; with
 * paging off, guest-physical), read once at the start and, where an operation has results, written
 * once at the end. The size must be that of the structure: another means another revision. RAX is
 * an enum cleave_status, zero for success; other registers keep their values, but for RDX after
 * CLEAVE_OP_FORK. Whatever fails leaves everything as it was, and CLEAVE_OP_ERROR says which
 * argument was wrong. Addresses and sizes are in bytes.
 */
#ifndef CLEAVE_ABI_H
#define CLEAVE_ABI_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

#define CLEAVE_ABI_REVISION 2u
#define CLEAVE_HYPERCALL                                                                           \
    55u /* __HYPERVISOR_arch_7 of Xen's public/xen.h, which Xen leaves free                        \
         */

#define CLEAVE_DOMAIN_SELF UINT32_C(0x7ff0) /* DOMID_SELF */
#define CLEAVE_DOMAIN_CONTROL                                                                      \
    UINT32_C(0x7fef)              /* the control domain, where there is one; Xen's ABI calls it 0 */
#define CLEAVE_NAME_SIZE 64u      /* with the zero byte that ends a name */
#define CLEAVE_POOL_NAME_SIZE 32u /* with the zero byte */
#define CLEAVE_VCPUS_MAX 8u
#define CLEAVE_FORKS_MAX 64u /* in one call */
#define CLEAVE_TEXT_MAX 4096u
#define CLEAVE_RESULT_MAX 4096u
#define CLEAVE_DATA_MAX 4096u

enum cleave_op {
    CLEAVE_OP_VERSION = 0,
    CLEAVE_OP_CONSOLE = 1,
    CLEAVE_OP_EXIT = 2,
    CLEAVE_OP_ERROR = 3,
    CLEAVE_OP_CREATE = 4,
    CLEAVE_OP_MAP = 5,
    CLEAVE_OP_UNMAP = 6,
    CLEAVE_OP_PROTECT = 7,
    CLEAVE_OP_COPY = 8,
    CLEAVE_OP_START = 9,
    CLEAVE_OP_PAUSE = 10,
    CLEAVE_OP_UNPAUSE = 11,
    CLEAVE_OP_FORK = 12,
    CLEAVE_OP_SNAPSHOT = 13,
    CLEAVE_OP_RESET = 14,
    CLEAVE_OP_DESTROY = 15,
    CLEAVE_OP_WAIT = 16,
    CLEAVE_OP_STAT = 17,
    CLEAVE_OP_AUDIT = 18,
    CLEAVE_OP_LOOKUP = 19,
    CLEAVE_OP_COLLAPSE = 20,
    CLEAVE_OP_NOTIFY = 21,
    CLEAVE_OP_EVENT = 22,
    CLEAVE_OP_VERDICT = 23,
    CLEAVE_OP_YIELD = 24,
    CLEAVE_OP_LIST = 25,
    CLEAVE_OP_RENAME = 26,
    CLEAVE_OP_GRANT = 27,
    CLEAVE_OP_TERMINAL = 28,
    CLEAVE_OP_WINDOW = 29,
    CLEAVE_OP_POOL_CREATE = 30,
    CLEAVE_OP_POOL_LIST = 31,
    CLEAVE_OP_POOL_DELETE = 32,
    CLEAVE_OP_CREATE_IN = 33,
    CLEAVE_OP_POOL_RESIZE = 34,
    CLEAVE_OPS
};

/* VERSION. */
struct cleave_version {
    uint32_t revision;   /* out: CLEAVE_ABI_REVISION */
    uint32_t operations; /* out: CLEAVE_OPS */
    uint32_t domain;     /* out: the caller's id */
    uint32_t vcpu;       /* out: the caller's number in its domain */
    uint64_t tsc_per_second;
    char machine[32]; /* out: "SVM with NPT", "VMX with EPT" */
};

/* CONSOLE: writes text to the console, whole or not at all. */
struct cleave_console {
    uint64_t text;
    uint32_t size; /* at most CLEAVE_TEXT_MAX */
    uint32_t reserved;
};

/* EXIT: ends the calling domain. Does not return. */
struct cleave_exit {
    uint32_t code;
    uint32_t size;   /* of the result, 0..CLEAVE_RESULT_MAX */
    uint64_t result; /* guest-linear; whoever waits for this domain can read it */
};

/* ERROR: what was wrong with the last call of this vcpu that failed. */
struct cleave_error {
    uint32_t status;
    uint32_t operation;
    uint64_t value;     /* what the argument was */
    uint64_t low, high; /* its legal range, both included; low > high where there is none */
    char argument[32];
};

/* CREATE: an empty domain in the caller's pool, made by the caller. */
struct cleave_create {
    char name[CLEAVE_NAME_SIZE]; /* unique, 1 to 63 characters; empty: "domain-<id>" */
    uint64_t limit;              /* bytes it may be charged for; UINT64_MAX: no limit */
    uint32_t vcpus;              /* 1..CLEAVE_VCPUS_MAX */
    uint32_t domain;             /* out */
};

/* MAP: gives [at, at + size) a policy. PROTECT: new rights. UNMAP: takes it away. */
struct cleave_map {
    uint32_t domain;
    uint16_t policy; /* 1 private, 2 read-only, 3 shared, 4 wipe, 5 absent */
    uint8_t rights;  /* 1 read, 2 write, 4 execute */
    uint8_t order;   /* largest leaf: 0, 1, 2 for 4 KiB, 2 MiB, 1 GiB */
    uint64_t at, size;
    uint32_t flags; /* CLEAVE_MAP_* */
    uint32_t reserved;
};
#define CLEAVE_MAP_POPULATE 1u /* fill it with zeroed memory in this call */
#define CLEAVE_MAP_WHOLE 2u    /* a shared 2 MiB leaf is copied whole, not split */

/* COPY: between the caller's memory and another domain's, at most 64 KiB. */
struct cleave_copy {
    uint32_t domain;
    uint32_t write;  /* 0: from the domain into `buffer`; 1: from `buffer` into the domain */
    uint64_t at;     /* guest-physical, in the domain */
    uint64_t buffer; /* guest-linear, the caller's */
    uint64_t size;
};
#define CLEAVE_COPY_MAX UINT64_C(0x10000)

/* START: a vcpu begins at `entry` in 32-bit flat mode without paging, `argument` in EBX. */
struct cleave_start {
    uint32_t domain, vcpu;
    uint32_t entry, argument;
};

/* PAUSE, UNPAUSE (they nest), RESET, DESTROY. */
struct cleave_domain {
    uint32_t domain;
    uint32_t reserved;
};

/* FORK: `count` forks. A vcpu of the forked domain that called it returns in each child too: RDX is
 * 0 in the parent and `first`, `first` + 1 and so on in the children, in order. */
struct cleave_fork {
    uint32_t domain;    /* CLEAVE_DOMAIN_SELF, a domain or a snapshot */
    uint32_t count;     /* 1..CLEAVE_FORKS_MAX */
    uint32_t flags;     /* CLEAVE_FORK_* */
    uint32_t data_size; /* 0..CLEAVE_DATA_MAX */
    uint64_t limit;     /* quota of each child, bytes */
    uint64_t domains;   /* guest-linear: uint32_t[count] for the children's ids; 0: not wanted */
    uint64_t
        data; /* guest-linear: bytes that each child finds behind its identity page (identity.h) */
    uint32_t first; /* number of the first child, as children are told; 0: 1 */
    uint32_t of;    /* of how many, made by several calls; 0: `count`. At most CLEAVE_FORK_OF_MAX */
    uint64_t
        reserve; /* with CLEAVE_FORK_RESERVE: so many bytes for each child; 0: the worst case */
};
#define CLEAVE_FORK_OF_MAX 0x7fffffffu
#define CLEAVE_FORK_RESERVE 1u /* reserve memory: as far as that goes, their writes cannot fail */
#define CLEAVE_FORK_BASE 2u    /* keep a base, so that the children can be reset */
#define CLEAVE_FORK_PAUSED 4u
#define CLEAVE_FORK_CLOCK 8u /* clocks go on while a child is paused; else they stand still */

/* SNAPSHOT: a frozen copy with its vcpus; fork restores it. */
struct cleave_snapshot {
    uint32_t domain;
    uint32_t snapshot; /* out: its id */
    char name[CLEAVE_NAME_SIZE];
};

/* WAIT: until a domain that the caller made has ended, and how. The control domain: any domain. */
struct cleave_wait {
    uint32_t domain; /* 0: any child; the control domain's: also those that nobody made */
    uint32_t which;  /* out: which one */
    uint32_t reason; /* out: enum cleave_reason */
    uint32_t code;   /* out */
    uint32_t
        size; /* room for the result, bytes; out: its size, of which as much as fits is there */
    uint32_t flags;  /* CLEAVE_WAIT_* */
    uint64_t result; /* guest-linear: where the result goes; 0 with size 0: not wanted */
};
#define CLEAVE_WAIT_NOT 1u /* CLEAVE_BUSY instead of waiting: they all run still */
enum cleave_reason {
    CLEAVE_RUNNING = 0,
    CLEAVE_EXITED,       /* by CLEAVE_OP_EXIT; code as given */
    CLEAVE_HALTED,       /* every vcpu halted with interrupts off */
    CLEAVE_TRIPLE_FAULT, /* code: vcpu */
    CLEAVE_BAD_ACCESS,   /* an access that its memory map does not allow */
    CLEAVE_UNKNOWN_EXIT, /* code: the CPU's exit code */
    CLEAVE_ENTRY_FAILED, /* the CPU refused its state */
    CLEAVE_DESTROYED,
    CLEAVE_POWERED_OFF, /* these four by SCHEDOP_shutdown of Xen's ABI */
    CLEAVE_REBOOTED,
    CLEAVE_SUSPENDED,
    CLEAVE_GUEST_CRASHED, /* also by its watchdog */
    CLEAVE_REASONS
};

/* STAT. Memory in bytes. */
struct cleave_stat {
    uint32_t domain;
    uint32_t state; /* out: enum cleave_state */
    uint32_t parent, vcpus;
    char name[CLEAVE_NAME_SIZE];
    uint64_t charged;                /* memory paid for */
    uint64_t exclusive, shared;      /* guest memory that it holds alone, with others */
    uint64_t mapped[3];              /* guest memory under 4 KiB, 2 MiB, 1 GiB leaves */
    uint64_t faults, copied, zeroed; /* nested page faults, bytes */
    uint64_t tables_copied, blocks_split, reused, collapsed;
    uint64_t exits, hypercalls;
    uint64_t stood_still; /* nanoseconds, at its last fork */
    uint64_t pool_free, pool_reserved, pool_size;
    uint64_t hv_copied, hv_zeroed; /* pages copied and zeroed from boot until this call began, for
                                      all domains, bytes */
    uint32_t start_ticks; /* of the TSC, from the request for the fork that made the domain until
                             its first vcpu began its first instruction; 0: it has not yet, or is no
                             fork; UINT32_MAX: as many or more */
    uint16_t start_copied, start_zeroed; /* pages copied and zeroed by the machine meanwhile */
    uint64_t fork_ns[32], fault_ns[32], still_ns[32]; /* machine-wide histograms: bucket i counts
                                                         what took [2^i, 2^(i+1)) nanoseconds */
    uint32_t entry_ticks; /* as start_ticks, until it was entered for the first time */
    uint16_t entry_copied, entry_zeroed;
};
enum cleave_state {
    CLEAVE_STATE_RUNNING = 1,
    CLEAVE_STATE_PAUSED,
    CLEAVE_STATE_STARVED, /* waits for memory */
    CLEAVE_STATE_FROZEN,  /* a snapshot */
    CLEAVE_STATE_ENDED
};

/* AUDIT: checks the invariants of the caller's pool with all its domains standing still. */
struct cleave_audit {
    uint32_t invariant; /* out: 1..10, 0 for none violated */
    uint32_t domain_space;
    uint64_t at, entry, expected, found;
    uint64_t visited; /* out: entries */
    char what[96];
};

/* LOOKUP: how a page is mapped now. */
struct cleave_lookup {
    uint32_t domain;
    uint8_t kind;   /* out: 0 absent, 2 leaf, 3 paged */
    uint8_t order;  /* out */
    uint8_t rights; /* out: what the tables allow at this moment */
    uint8_t exclusive;
    uint64_t at;
    uint64_t frame; /* out: an opaque name of the frame, equal for two pages that share it */
};

/* COLLAPSE: makes one 2 MiB (order 1) or 1 GiB (order 2) leaf of the block at `at` again. */
struct cleave_collapse {
    uint32_t domain;
    uint32_t order;
    uint64_t at;
};

/* NOTIFY: arms, rearms or disarms a range of a domain; the caller's one channel tells of writes. */
struct cleave_notify {
    uint32_t domain;
    uint16_t command; /* 1 arm, 2 rearm, 3 disarm */
    uint8_t asynchronous, grain;
    uint64_t at, size;
    uint64_t max_dirty;
};
/* EVENT: the oldest event not yet taken; waits for one. */
struct cleave_event {
    uint64_t id; /* out */
    uint32_t domain, vcpu;
    uint64_t start, end; /* out: bytes */
    uint64_t generation;
};
/* VERDICT. */
struct cleave_verdict {
    uint64_t id;
    uint32_t deny; /* 0 allow, 1 deny */
    uint32_t reserved;
};

/* LIST: the next domain that the caller may command. Begin with 0 and hand `domain` back as it is
 * until it is 0; where `state` is 0 the call only looked on, and tells of no domain. */
struct cleave_list {
    uint32_t domain; /* in: above which id, at most CLEAVE_DOMAIN_CONTROL; out: 0 at the end */
    uint32_t state;  /* out: enum cleave_state; 0: none */
    uint32_t parent; /* out: who made it; 0: the boot configuration, or the debug console */
    uint32_t origin; /* out: what it was forked from; 0: nothing. Both may be gone */
    uint32_t vcpus;  /* out */
    uint32_t pauses; /* out: of CLEAVE_OP_PAUSE, that were not taken back */
    uint32_t reason; /* out: enum cleave_reason */
    uint32_t code;   /* out */
    uint32_t flags;  /* out: CLEAVE_LIST_* */
    uint32_t pool;   /* out: the number of its pool, by POOL_LIST */
    char name[CLEAVE_NAME_SIZE]; /* out */
};
#define CLEAVE_LIST_SNAPSHOT 1u
#define CLEAVE_LIST_BASE 2u /* it can be reset */

/* RENAME: another name, unique as that of CREATE. */
struct cleave_rename {
    uint32_t domain;
    uint32_t reserved;
    char name[CLEAVE_NAME_SIZE];
};

/* GRANT: gives `domain` these rights over `over`, in place of those that it had by a grant. */
struct cleave_grant {
    uint32_t domain;
    uint32_t over;
    uint32_t rights; /* CLEAVE_RIGHT_*; 0 takes them back */
    uint32_t reserved;
};
#define CLEAVE_RIGHT_FORK 1u /* FORK */
#define CLEAVE_RIGHT_LOOK 2u /* STAT, LOOKUP */
#define CLEAVE_RIGHT_HOLD 4u /* PAUSE, UNPAUSE */

/* TERMINAL: reads what a domain printed, or types for it. Bytes are counted from its first; of
 * those the last CLEAVE_TERMINAL_KEPT are kept. */
struct cleave_terminal {
    uint32_t domain;
    uint32_t flags;  /* CLEAVE_TERMINAL_* */
    uint64_t cursor; /* in: the first byte that is wanted; out: behind the last that was given */
    uint64_t lost;   /* out: bytes from there on that are gone */
    uint64_t buffer; /* guest-linear, the caller's */
    uint32_t size;   /* room, or bytes to type, 1..CLEAVE_TEXT_MAX; out: given, or taken */
    uint32_t reserved;
};
#define CLEAVE_TERMINAL_TYPE 1u
#define CLEAVE_TERMINAL_KEPT 4032u

/* WINDOW: the pages that a guest and the hypervisor share (identity page, console ring), for a
 * domain that was never started. */
struct cleave_window {
    uint32_t domain;
    uint32_t reserved;
    uint64_t memory; /* bytes that Xen's calls are to tell as its memory */
};
/* POOL_CREATE: memory of a tenant, out of what no pool has. This and the next four are the control
 * domain's. */
struct cleave_pool_create {
    char name[CLEAVE_POOL_NAME_SIZE]; /* unique among pools, 1 to 31 characters */
    uint64_t size;                    /* bytes; out: as many as were taken, whole 2 MiB */
};
/* POOL_LIST: the next pool. */
struct cleave_pool_list {
    uint32_t number;                  /* in: above which; out: 0 at the end */
    uint32_t spaces;                  /* out: domains, snapshots and bases that have memory in it */
    char name[CLEAVE_POOL_NAME_SIZE]; /* out */
    uint64_t size, free;              /* out: bytes */
    uint64_t promised;                /* out: of what is free, by reservations */
    uint64_t left;  /* out: the largest pool that could be made, also at the end */
    uint32_t flags; /* out: CLEAVE_POOL_* */
    uint32_t reserved;
};
#define CLEAVE_POOL_CLOSING 1u /* a POOL_DELETE was begun and is not done */
/* POOL_DELETE: its memory is no pool's again. */
struct cleave_pool_delete {
    char name[CLEAVE_POOL_NAME_SIZE];
};
/* CREATE_IN: CREATE in another pool than the caller's. */
struct cleave_create_in {
    char name[CLEAVE_NAME_SIZE];
    uint64_t limit; /* UINT64_MAX: the whole pool */
    uint32_t vcpus;
    uint32_t domain; /* out */
    uint32_t pool;   /* its number, by POOL_LIST */
    uint32_t reserved;
};
/* POOL_RESIZE: moves the end of a pool. */
struct cleave_pool_resize {
    char name[CLEAVE_POOL_NAME_SIZE];
    uint64_t size; /* bytes; out: what it has, whole 2 MiB */
};

#define CLEAVE_ABI_SIZE(type, size)                                                                \
    _Static_assert(sizeof(struct type) == (size), #type " has the size that the ABI says")
#define CLEAVE_ABI_AT(type, field, offset)                                                         \
    _Static_assert(offsetof(struct type, field) == (offset), #type "." #field " is where it was")
CLEAVE_ABI_SIZE(cleave_version, 56);
CLEAVE_ABI_AT(cleave_version, tsc_per_second, 16);
CLEAVE_ABI_AT(cleave_version, machine, 24);
CLEAVE_ABI_SIZE(cleave_console, 16);
CLEAVE_ABI_AT(cleave_console, size, 8);
CLEAVE_ABI_SIZE(cleave_exit, 16);
CLEAVE_ABI_AT(cleave_exit, result, 8);
CLEAVE_ABI_SIZE(cleave_error, 64);
CLEAVE_ABI_AT(cleave_error, value, 8);
CLEAVE_ABI_AT(cleave_error, argument, 32);
CLEAVE_ABI_SIZE(cleave_create, 80);
CLEAVE_ABI_AT(cleave_create, limit, 64);
CLEAVE_ABI_AT(cleave_create, domain, 76);
CLEAVE_ABI_SIZE(cleave_map, 32);
CLEAVE_ABI_AT(cleave_map, at, 8);
CLEAVE_ABI_AT(cleave_map, flags, 24);
CLEAVE_ABI_SIZE(cleave_copy, 32);
CLEAVE_ABI_AT(cleave_copy, at, 8);
CLEAVE_ABI_AT(cleave_copy, size, 24);
CLEAVE_ABI_SIZE(cleave_start, 16);
CLEAVE_ABI_SIZE(cleave_domain, 8);
CLEAVE_ABI_SIZE(cleave_fork, 56);
CLEAVE_ABI_AT(cleave_fork, data, 32);
CLEAVE_ABI_AT(cleave_fork, limit, 16);
CLEAVE_ABI_AT(cleave_fork, domains, 24);
CLEAVE_ABI_SIZE(cleave_snapshot, 72);
CLEAVE_ABI_AT(cleave_snapshot, name, 8);
CLEAVE_ABI_SIZE(cleave_wait, 32);
CLEAVE_ABI_AT(cleave_wait, result, 24);
CLEAVE_ABI_SIZE(cleave_stat, 1032);
CLEAVE_ABI_AT(cleave_stat, charged, 80);
CLEAVE_ABI_AT(cleave_stat, hv_copied, 232);
CLEAVE_ABI_AT(cleave_stat, fork_ns, 256);
CLEAVE_ABI_AT(cleave_stat, entry_ticks, 1024);
CLEAVE_ABI_SIZE(cleave_audit, 144);
CLEAVE_ABI_AT(cleave_audit, what, 48);
CLEAVE_ABI_SIZE(cleave_lookup, 24);
CLEAVE_ABI_AT(cleave_lookup, at, 8);
CLEAVE_ABI_SIZE(cleave_collapse, 16);
CLEAVE_ABI_SIZE(cleave_notify, 32);
CLEAVE_ABI_SIZE(cleave_event, 40);
CLEAVE_ABI_SIZE(cleave_verdict, 16);
CLEAVE_ABI_SIZE(cleave_list, 104);
CLEAVE_ABI_AT(cleave_list, pool, 36);
CLEAVE_ABI_AT(cleave_list, name, 40);
CLEAVE_ABI_SIZE(cleave_rename, 72);
CLEAVE_ABI_AT(cleave_rename, name, 8);
CLEAVE_ABI_SIZE(cleave_grant, 16);
CLEAVE_ABI_SIZE(cleave_terminal, 40);
CLEAVE_ABI_AT(cleave_terminal, cursor, 8);
CLEAVE_ABI_AT(cleave_terminal, buffer, 24);
CLEAVE_ABI_AT(cleave_terminal, size, 32);
CLEAVE_ABI_SIZE(cleave_window, 16);
CLEAVE_ABI_AT(cleave_window, memory, 8);
CLEAVE_ABI_SIZE(cleave_pool_create, 40);
CLEAVE_ABI_AT(cleave_pool_create, size, 32);
CLEAVE_ABI_SIZE(cleave_pool_list, 80);
CLEAVE_ABI_AT(cleave_pool_list, size, 40);
CLEAVE_ABI_AT(cleave_pool_list, flags, 72);
CLEAVE_ABI_SIZE(cleave_pool_delete, 32);
CLEAVE_ABI_SIZE(cleave_create_in, 88);
CLEAVE_ABI_AT(cleave_create_in, pool, 80);
CLEAVE_ABI_SIZE(cleave_pool_resize, 40);
CLEAVE_ABI_AT(cleave_pool_resize, size, 32);

#endif
