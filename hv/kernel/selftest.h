/* SPDX-License-Identifier: BSD-2-Clause */
/* What this machine's CPUs do with nested page tables, tried out before the first domain is made.
 */
#ifndef KERNEL_SELFTEST_H
#define KERNEL_SELFTEST_H

#include "pool.h"

/*
 * Runs a few instructions as a guest in a space of `pool`, on the boot CPU and beside it on CPU 1,
 * and says of each check "ok", "fail" or, where this machine cannot show it, "not decidable here".
 * On Intel it then chooses hvm_ept_dirty_bits. False when a check failed. No domain exists; every
 * CPU is enabled or about to be; other CPUs call selftest_assist() meanwhile. The pool is
 * afterwards as it was.
 */
bool selftest_run(struct mm_ctx *ctx, struct pool *pool) MUST_CHECK;
/* What another CPU does again and again while it waits for the boot CPU. */
void selftest_assist(void);

#endif
