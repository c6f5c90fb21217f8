/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of random operations share. */
#ifndef OPS_H
#define OPS_H

#include "driver.h"

struct ref_region ops_pick_region(struct world *w);
struct region ops_core_region(struct world *w, const struct ref_region *region);
/* Before each call: notes what is free, and now and then arms a failing allocation. */
void ops_before(struct world *w);
/* Gives the next call a budget. */
void ops_budget(struct world *w);
/* True when the call was preempted and is to be made again; something else may have happened
 * meanwhile. */
bool ops_again(struct world *w, enum cleave_status status, unsigned space, unsigned *calls);
/* A legal range that is not within what the reference keeps. */
bool ops_past(const struct world *w, const struct spec_range *range);
/* Pages in a range; 0 for one that is past all width. */
uint64_t ops_pages(const struct spec_range *range);
/* Spaces that are not unused. */
unsigned ops_alive(const struct world *w);
/* A mapper of this space's pages is going away or being reset, and the maps with it: they may be
 * there or not. */
bool ops_maps_uncertain(const struct world *w, unsigned s);
/* Takes a vcpu out of whatever queue it waits in, and gives back what it was granted. */
void ops_cancel_wait(struct world *w, struct spec_vcpu *vcpu);
/* Its vcpus are going away: those that wait are taken out of their queues. */
void ops_forget_space(struct world *w, unsigned s);
/* Pages of the space that are pinned. */
uint64_t ops_pinned_pages(const struct world *w, unsigned s);

/* Notes that a range may have changed. */
void ops_touch(struct world *w, const struct spec_range *range);
/* CLEAVE_WAIT when a write to the page has to wait for a subscriber. */
enum cleave_status ops_foresee_notice(struct world *w, unsigned s, uint64_t page);
/* After a write to a page, before the reference makes it: the subscriber was told. */
void ops_notice(struct world *w, unsigned s, uint64_t page, enum cleave_status got);
/* False while dirty grains of what is going are taken off step by step: nobody can foresee then who
 * has to wait for room. */
bool ops_dirty_agrees(struct world *w);
/* Cuts a range after its first page where someone has to be asked before one of them is written. */
struct spec_range ops_cut_where_asked(struct world *w, unsigned s, struct spec_range range);
/* True when the tables have a page of the range that is still to be loaded. */
bool ops_any_paged(struct world *w, unsigned s, struct spec_range range);
/* A dying owner takes its pages back from their mappers: the reference follows what has happened so
 * far; with `all`, it must have happened. */
void ops_take_back(struct world *w, unsigned owner, bool all);
/* Ends all pins. */
void ops_end_hold(struct world *w);
/* Events of a dying space are gone. */
void ops_forget_events(struct world *w, uint32_t id);
/* Ends channels and pager. */
void ops_end_notify(struct world *w);

extern const struct spec_op ops_space[], ops_bytes[], ops_fork[], ops_notify[], ops_hold[];
extern const unsigned ops_space_count, ops_bytes_count, ops_fork_count, ops_notify_count,
    ops_hold_count;

#endif
