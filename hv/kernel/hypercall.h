/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hypercalls. hypercall.c decodes: who calls, which operation, its arguments, copied once; ops_*.c
 * perform. An operation that cannot finish returns CLEAVE_AGAIN or CLEAVE_WAIT, and the vcpu
 * executes the same instruction again.
 */
#ifndef KERNEL_HYPERCALL_H
#define KERNEL_HYPERCALL_H

#include "domain.h"

#define HYPERCALL_BUDGET 4096u /* units of work before a call lets others run */

/* A call being carried out. The debug console makes some of them, too: then no vcpu and no domain
 * is the caller, and guest memory is not looked at. */
struct call {
    struct mm_ctx *ctx;
    struct vcpu *vcpu; /* the caller; null: the debug console */
    const struct hvm_exit *exit;
    struct domain *caller; /* its domain, or null */
    struct domain *domain; /* the domain that the arguments name, with a reference */
    struct space *space;   /* its space, in use */
    uint64_t results;      /* RDX afterwards; see CLEAVE_OP_FORK */
    bool set_results;
    struct stat_mark asked; /* of a fork: when it began */
    struct domain *into;    /* of a fork of one: the empty domain whose place it takes; or null */
    bool no_interrupts;     /* of a fork: its vcpus take no interrupts */
    uint8_t reset_what;     /* of call_reset(): CALL_RESET_* */
    union {
        struct cleave_version version;
        struct cleave_console console;
        struct cleave_exit exit;
        struct cleave_error error;
        struct cleave_create create;
        struct cleave_map map;
        struct cleave_copy copy;
        struct cleave_start start;
        struct cleave_domain domain;
        struct cleave_fork fork;
        struct cleave_snapshot snapshot;
        struct cleave_wait wait;
        struct cleave_stat stat;
        struct cleave_grant grant;
        struct cleave_audit audit;
        struct cleave_lookup lookup;
        struct cleave_collapse collapse;
        struct cleave_notify notify;
        struct cleave_event event;
        struct cleave_verdict verdict;
        struct cleave_list list;
        struct cleave_rename rename;
        struct cleave_terminal terminal;
        struct cleave_window window;
        struct cleave_pool_create pool_create;
        struct cleave_pool_list pool_list;
        struct cleave_pool_delete pool_delete;
        struct cleave_create_in create_in;
        struct cleave_pool_resize pool_resize;
    } args;
};

typedef enum cleave_status op_t(struct call *call);
op_t op_version, op_console, op_exit, op_error, op_yield;                     /* ops_self.c */
op_t op_create, op_start, op_pause, op_unpause, op_destroy, op_wait, op_stat; /* ops_domain.c */
op_t op_create_in, op_list, op_rename, op_grant, op_window;
op_t op_terminal;                                                             /* ops_terminal.c */
op_t op_map, op_unmap, op_protect, op_copy, op_lookup, op_collapse, op_audit; /* ops_memory.c */
op_t op_fork, op_snapshot, op_reset;                                          /* ops_fork.c */
op_t op_notify, op_event, op_verdict;                                         /* ops_notify.c */
op_t op_pool_create, op_pool_list, op_pool_resize, op_pool_delete;            /* ops_pool.c */

/* CLEAVE_OP_FORK for the debug console: call->args.fork.data is not read, `data` is a page with the
 * caller's data (null: none). Afterwards call->results is the first child's id. */
enum cleave_status call_fork(struct call *call, const void *data) MUST_CHECK;
/* CLEAVE_OP_RESET of memory, or vcpus and what belongs to them, or both: call->reset_what. */
enum { CALL_RESET_STATE = 1, CALL_RESET_MEMORY = 2 };
enum cleave_status call_reset(struct call *call) MUST_CHECK;
/* Looks after what calls of this vcpu leave half-way: this one, of number `op`, and an earlier one
 * with which it does not go on, because it now makes another. Xen's are CALL_XEN and more. */
#define CALL_XEN 0x80u
void call_settle(struct call *call, uint64_t op, enum cleave_status status);
/* Frames that a domain made by this call may be charged for, from the `limit` in bytes of the
 * arguments: not more than the caller itself may (for the debug console: than the domain that it
 * is made from), and with UINT64_MAX as much. CLEAVE_QUOTA. */
enum cleave_status call_limit(struct call *call, uint64_t limit, uint64_t *frames) MUST_CHECK;

/* A vcpu executed the hypercall instruction; registers are in vcpu->hvm.regs. */
void hypercall(struct mm_ctx *ctx, struct vcpu *vcpu, const struct hvm_exit *exit);

#endif
