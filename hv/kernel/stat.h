/* SPDX-License-Identifier: BSD-2-Clause */
/* What is measured over the machine's life: histograms of times, and how domains ended. */
#ifndef KERNEL_STAT_H
#define KERNEL_STAT_H

#include "domain.h"

/* Times are differences of read_tsc(). */
void stat_fork(uint64_t ticks);
void stat_fault(uint64_t ticks);
void stat_stood_still(uint64_t ns);

/* Counts up to now. */
void stat_mark(struct stat_mark *mark);
/* The first vcpu of a domain that `starts` is about to be entered: the fork has taken until now, if
 * it still is at its first instruction. Faults of that instruction are part of it. */
void stat_start(struct domain *domain);

/* Notes the end of a domain, and says it on the console of one that was made at boot. */
void stat_ended(const struct domain *domain);
#define STAT_CODE_LOST 100u
/* The largest exit code of a domain that was made at boot, at most STAT_CODE_LOST; that for one
 * that ended otherwise. */
uint32_t stat_worst(void);
/* How many domains that were made at boot have ended. */
unsigned stat_ended_at_boot(void);
/* Runs, is paused, starves, ...: its vcpus stay meanwhile. */
uint32_t stat_state(const struct domain *domain);
const char *stat_reason(uint32_t reason);

/* Fills what CLEAVE_OP_STAT reports of `domain`. CLEAVE_AGAIN: out of budget; called again with the
 * same `walk`, which is zeroed at first, it goes on. */
enum cleave_status stat_domain(struct mm_ctx *ctx, struct domain *domain, struct stat_walk *walk,
                               struct cleave_stat *stat) MUST_CHECK;

#endif
