/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Calls of the core by tests, as alloc.h sees them: each is announced before and after, so that a
 * run in which one of its allocations is refused can compare the state. Every test includes this
 * through test.h; it costs a load and a branch.
 *
 * What may return with a lock held, or is a step of other calls, is announced otherwise or not at
 * all: what a test has done by hand no audit understands.
 */
#ifndef CALLS_H
#define CALLS_H

#include "account.h"
#include "cap.h"
#include "collapse.h"
#include "fork.h"
#include "host.h"
#include "map.h"
#include "notify.h"
#include "pager.h"
#include "pin.h"
#include "space.h"
#include "unshare.h"

/* `whole`: the call does all or nothing, as far as a guest can tell. */
void call_begin(const char *name, bool whole);
enum cleave_status call_end(enum cleave_status status);
/* For a call that is left by a jump, as a panic that was expected: the depth before, and back. */
unsigned call_depth(void);
void call_return(unsigned depth);

/* A test takes something itself that nothing in the machine refers to. */
void call_by_hand(void);
/* A test is about to give up, see alloc_excuses(). */
void call_gives_up(void);

#define CORE_CALL(name, ...) (call_begin(#name, true), call_end(name(__VA_ARGS__)))

static inline bool call_in_page(gpa_t at, uint64_t size)
{
    return (at.v & (PAGE_SIZE - 1)) + size <= PAGE_SIZE;
}

static inline enum cleave_status call_cpu_access(unsigned cpu, gpa_t at, enum access access,
                                                 void *buffer, uint64_t size)
{
    call_begin("host_cpu_access", call_in_page(at, size));
    return call_end(host_cpu_access(cpu, at, access, buffer, size));
}
static inline enum cleave_status call_cpu_read(unsigned cpu, gpa_t at, void *to, uint64_t size)
{
    call_begin("host_cpu_read", call_in_page(at, size));
    return call_end(host_cpu_read(cpu, at, to, size));
}
static inline enum cleave_status call_cpu_write(unsigned cpu, gpa_t at, const void *from,
                                                uint64_t size)
{
    call_begin("host_cpu_write", call_in_page(at, size));
    return call_end(host_cpu_write(cpu, at, from, size));
}
static inline enum cleave_status call_space_write(struct mm_ctx *ctx, struct space *space, gpa_t at,
                                                  const void *from, uint64_t size,
                                                  struct vcpu_wait *wait, uint64_t *done)
{
    call_begin("space_write", call_in_page(at, size));
    return call_end(space_write(ctx, space, at, from, size, wait, done));
}
static inline bool call_expect_panic(void (*fn)(void *arg), void *arg)
{
    unsigned depth = call_depth();
    bool panicked = host_expect_panic(fn, arg);
    call_return(depth);
    return panicked;
}
static inline struct pool *call_pool(uint64_t bytes)
{
    call_begin("host_pool", true);
    struct pool *pool = host_pool(bytes);
    (void)call_end(CLEAVE_OK);
    return pool;
}
#define host_pool call_pool
#define host_fail(...) (call_gives_up(), host_fail(__VA_ARGS__))
#define account_create(...) (call_by_hand(), account_create(__VA_ARGS__))
#define pool_alloc(...) (call_by_hand(), pool_alloc(__VA_ARGS__))
#define pool_alloc_at(...) (call_by_hand(), pool_alloc_at(__VA_ARGS__))
#define host_cpu_access call_cpu_access
#define host_cpu_read call_cpu_read
#define host_cpu_write call_cpu_write
#define space_write call_space_write
#define host_expect_panic call_expect_panic

#define pool_create(...) CORE_CALL(pool_create, __VA_ARGS__)
#define pool_destroy(...) CORE_CALL(pool_destroy, __VA_ARGS__)
#define pool_resize(...) CORE_CALL(pool_resize, __VA_ARGS__)
#define pool_reserve(...) CORE_CALL(pool_reserve, __VA_ARGS__)
#define region_set(...) CORE_CALL(region_set, __VA_ARGS__)
#define region_edit(...) CORE_CALL(region_edit, __VA_ARGS__)

#define space_create(...) CORE_CALL(space_create, __VA_ARGS__)
#define space_set_region(...) CORE_CALL(space_set_region, __VA_ARGS__)
#define space_protect(...) CORE_CALL(space_protect, __VA_ARGS__)
#define space_populate(...) CORE_CALL(space_populate, __VA_ARGS__)
#define space_map(...) CORE_CALL(space_map, __VA_ARGS__)
#define space_map_device(...) CORE_CALL(space_map_device, __VA_ARGS__)
#define space_map_paged(...) CORE_CALL(space_map_paged, __VA_ARGS__)
#define space_unmap(...) CORE_CALL(space_unmap, __VA_ARGS__)
#define space_read(...) CORE_CALL(space_read, __VA_ARGS__)
#define space_collapse(...) CORE_CALL(space_collapse, __VA_ARGS__)
#define space_fault(...) CORE_CALL(space_fault, __VA_ARGS__)

#define space_fork(...) CORE_CALL(space_fork, __VA_ARGS__)
#define space_snapshot(...) CORE_CALL(space_snapshot, __VA_ARGS__)
#define space_reset(...) CORE_CALL(space_reset, __VA_ARGS__)
#define space_move(...) CORE_CALL(space_move, __VA_ARGS__)
#define space_destroy(...) CORE_CALL(space_destroy, __VA_ARGS__)

#define space_pin(...) CORE_CALL(space_pin, __VA_ARGS__)
#define space_unpin(...) CORE_CALL(space_unpin, __VA_ARGS__)
#define foreign_map(...) CORE_CALL(foreign_map, __VA_ARGS__)
#define foreign_unmap(...) CORE_CALL(foreign_unmap, __VA_ARGS__)
#define foreign_write(...) CORE_CALL(foreign_write, __VA_ARGS__)

#define channel_create(...) CORE_CALL(channel_create, __VA_ARGS__)
#define channel_arm(...) CORE_CALL(channel_arm, __VA_ARGS__)
#define channel_rearm(...) CORE_CALL(channel_rearm, __VA_ARGS__)
#define channel_disarm(...) CORE_CALL(channel_disarm, __VA_ARGS__)
#define channel_verdict(...) CORE_CALL(channel_verdict, __VA_ARGS__)

#define pager_create(...) CORE_CALL(pager_create, __VA_ARGS__)
#define pager_destroy(...) CORE_CALL(pager_destroy, __VA_ARGS__)
#define pager_next(...) CORE_CALL(pager_next, __VA_ARGS__)
#define pager_done(...) CORE_CALL(pager_done, __VA_ARGS__)
#define pager_prefetch(...) CORE_CALL(pager_prefetch, __VA_ARGS__)
#define pager_restart(...) CORE_CALL(pager_restart, __VA_ARGS__)

#define cap_boot(...) CORE_CALL(cap_boot, __VA_ARGS__)
#define untyped_retype(...) CORE_CALL(untyped_retype, __VA_ARGS__)
#define untyped_cut(...) CORE_CALL(untyped_cut, __VA_ARGS__)
#define untyped_join(...) CORE_CALL(untyped_join, __VA_ARGS__)
#define untyped_resize_pool(...) CORE_CALL(untyped_resize_pool, __VA_ARGS__)
#define cap_copy(...) CORE_CALL(cap_copy, __VA_ARGS__)
#define cap_move(...) CORE_CALL(cap_move, __VA_ARGS__)
#define cap_revoke(...) CORE_CALL(cap_revoke, __VA_ARGS__)
#define cap_delete(...) CORE_CALL(cap_delete, __VA_ARGS__)
#define cap_create_space(...) CORE_CALL(cap_create_space, __VA_ARGS__)
#define cap_create_channel(...) CORE_CALL(cap_create_channel, __VA_ARGS__)
#define cap_create_pager(...) CORE_CALL(cap_create_pager, __VA_ARGS__)
#define cap_fork(...) CORE_CALL(cap_fork, __VA_ARGS__)
#define cap_snapshot(...) CORE_CALL(cap_snapshot, __VA_ARGS__)

#endif
