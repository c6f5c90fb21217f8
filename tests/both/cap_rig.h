/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of capabilities share: a machine with its first node, and short ways to say
 * things. */
#ifndef CAP_RIG_H
#define CAP_RIG_H

#include <string.h>

#include "cap_tree.h"
#include "test.h"

#define RIG_BLOCKS 64u /* 2 MiB blocks of untyped memory */

struct cap_rig {
    struct mm_ctx *ctx;
    struct cnode *root;
    pfn_t start;
    uint64_t frames; /* of the untyped memory, without the first node */
    cap_t untyped;   /* all of it */
};

/* Starts a machine; the first node has 4 frames. */
void rig_start(struct cap_rig *rig);

/* Each must succeed. The new capability goes into the first node. */
cap_t rig_retype(const struct cap_rig *rig, cap_t source, enum cap_type type, uint64_t frames);
cap_t rig_node(const struct cap_rig *rig, uint64_t frames);
cap_t rig_pool(const struct cap_rig *rig, uint64_t blocks);
cap_t rig_space(const struct cap_rig *rig, cap_t pool);
cap_t rig_fork(const struct cap_rig *rig, cap_t space, cap_t to);
cap_t rig_copy(const struct cap_rig *rig, cap_t source, unsigned rights, cap_t to);
struct cap_info rig_look(const struct cap_rig *rig, cap_t source);
/* Object of a capability, without a use. */
void *rig_object(const struct cap_rig *rig, cap_t source);

/* Status of looking at a handle. */
enum cleave_status rig_status(const struct cap_rig *rig, struct cnode *node, cap_t handle);

/* Fails unless the audit finds nothing; returns the capabilities in the tree. */
uint64_t rig_audit(const struct cap_rig *rig);
/* A number that changes with anything in the tree but the time: for "nothing changed". */
uint64_t rig_state(void);

/* Calls with a budget of `every` until it is not CLEAVE_AGAIN, auditing in between. */
enum cleave_status rig_revoke(const struct cap_rig *rig, struct cnode *node, cap_t source,
                              uint64_t every);
enum cleave_status rig_delete(const struct cap_rig *rig, struct cnode *node, cap_t source,
                              uint64_t every);

/* Fails unless the untyped memory is whole and no pool is in it. */
void rig_check_empty(const struct cap_rig *rig);

/* The operation fails with `status`, blames `argument_`, and nothing in the tree has changed. For
 * tests with a `struct cap_rig rig`. */
#define CHECK_REFUSED(call, status_, argument_)                                                    \
    do {                                                                                           \
        uint64_t before_ = rig_state();                                                            \
        rig.ctx->error = (struct mm_error){0};                                                     \
        CHECK_STATUS(call, status_);                                                               \
        CHECK_EQ(rig.ctx->error.status, status_);                                                  \
        CHECK(rig.ctx->error.argument != NULL && strcmp(rig.ctx->error.argument, argument_) == 0); \
        CHECK_EQ(rig_state(), before_);                                                            \
    } while (0)

#endif
