/* SPDX-License-Identifier: BSD-2-Clause */
/* Operations on the memory of domains: map, copy, look up, collapse, audit. */
#include "audit.h"
#include "guest.h"
#include "hypercall.h"
#include "sched.h"
#include "tenant.h"

enum cleave_status op_map(struct call *call)
{
    const struct cleave_map *map = &call->args.map;
    const struct region region = {.policy = (enum region_policy)map->policy,
                                  .rights = map->rights,
                                  .order = map->order,
                                  .whole = (map->flags & CLEAVE_MAP_WHOLE) != 0};
    struct space *space = call->space;

    if (map->flags & ~(CLEAVE_MAP_POPULATE | CLEAVE_MAP_WHOLE)) {
        return mm_fail(call->ctx, CLEAVE_INVALID, "flags", map->flags, 0,
                       CLEAVE_MAP_POPULATE | CLEAVE_MAP_WHOLE);
    }
    enum cleave_status status =
        space_set_region(call->ctx, space, gpa(map->at), map->size, &region);
    if (status == CLEAVE_OK && (map->flags & CLEAVE_MAP_POPULATE) &&
        region.policy != REGION_SHARED) { /* that is filled already */
        status = space_populate(call->ctx, space, gpa(map->at), map->size);
    }
    return status;
}

enum cleave_status op_unmap(struct call *call)
{
    const struct cleave_map *map = &call->args.map;
    return space_unmap(call->ctx, call->space, gpa(map->at), map->size);
}

enum cleave_status op_protect(struct call *call)
{
    const struct cleave_map *map = &call->args.map;
    return space_protect(call->ctx, call->space, gpa(map->at), map->size, map->rights);
}

/* Reads or writes a part of the named domain. What another pool lacks is not waited for: the caller
 * may be the only one who could give some back. */
static enum cleave_status copy_part(struct call *call, gpa_t at, unsigned char *part, uint64_t size)
{
    struct vcpu_wait *wait = &call->vcpu->wait;
    uint64_t done;
    wait->memory_fails = call->domain->pool != call->caller->pool;
    enum cleave_status status =
        call->args.copy.write ? space_write(call->ctx, call->space, at, part, size, wait, &done)
                              : space_read(call->ctx, call->space, at, part, size, wait);
    wait->memory_fails = false;
    return status;
}

enum cleave_status op_copy(struct call *call)
{
    const struct cleave_copy *copy = &call->args.copy;
    unsigned char part[2048];
    enum cleave_status status = CLEAVE_OK;

    if (copy->size == 0 || copy->size > CLEAVE_COPY_MAX) {
        return mm_fail(call->ctx, CLEAVE_COUNT, "size", copy->size, 1, CLEAVE_COPY_MAX);
    }
    if (copy->at + copy->size < copy->at) {
        return mm_fail(call->ctx, CLEAVE_WRAP, "at", copy->at, 0, UINT64_MAX - copy->size);
    }
    for (uint64_t at = 0; at < copy->size && status == CLEAVE_OK; at += sizeof(part)) {
        uint64_t size = copy->size - at;
        size = size < sizeof(part) ? size : sizeof(part);
        if (copy->write) {
            status = guest_read(call->ctx, call->vcpu, copy->buffer + at, part, size, "buffer");
            if (status == CLEAVE_OK) {
                status = copy_part(call, gpa(copy->at + at), part, size);
            }
        } else {
            status = copy_part(call, gpa(copy->at + at), part, size);
            if (status == CLEAVE_OK) {
                status =
                    guest_write(call->ctx, call->vcpu, copy->buffer + at, part, size, "buffer");
            }
        }
    }
    return status;
}

enum cleave_status op_lookup(struct call *call)
{
    struct cleave_lookup *lookup = &call->args.lookup;
    struct mapping mapping;
    enum cleave_status status = space_lookup(call->ctx, call->space, gpa(lookup->at), &mapping);
    if (status != CLEAVE_OK) {
        return status;
    }
    lookup->kind = (uint8_t)mapping.kind;
    lookup->order = (uint8_t)mapping.level;
    lookup->rights = (uint8_t)mapping.rights;
    lookup->exclusive = mapping.exclusive;
    lookup->frame = tenant_frame_name(mapping.frame);
    return CLEAVE_OK;
}

enum cleave_status op_collapse(struct call *call)
{
    const struct cleave_collapse *collapse = &call->args.collapse;
    return space_collapse(call->ctx, call->space, gpa(collapse->at), collapse->order);
}

/* The world stands still for a walk of the pool's frames, of which there are at most so many; then
 * it goes on for at least as long, whoever wants to audit. */
#define AUDIT_FRAMES_MAX (UINT64_C(8) << (30 - PAGE_SHIFT))

static enum cleave_status audit_standing(struct call *call, struct audit_report *report)
{
    static uint64_t next; /* TSC; under the world's lock, but for the first look */

    if (read_tsc() < __atomic_load_n(&next, __ATOMIC_RELAXED) || !world_stop(call->ctx)) {
        this_cpu()->resched = 1;
        return CLEAVE_AGAIN;
    }
    uint64_t began = read_tsc();
    enum cleave_status status = tenant_audit(call->ctx, call->caller->pool, report);
    uint64_t ended = read_tsc();
    __atomic_store_n(&next, ended + (ended - began), __ATOMIC_RELAXED);
    world_release();
    return status;
}

enum cleave_status op_audit(struct call *call)
{
    struct cleave_audit *audit = &call->args.audit;
    struct audit_report report;

    if (call->caller->pool->frames > AUDIT_FRAMES_MAX) {
        return mm_fail(call->ctx, CLEAVE_COUNT, "pool", call->caller->pool->frames, 0,
                       AUDIT_FRAMES_MAX);
    }
    enum cleave_status status = audit_standing(call, &report);
    if (status != CLEAVE_OK) {
        return status;
    }
    *audit = (struct cleave_audit){.invariant = report.invariant,
                                   .domain_space = report.space,
                                   .at = report.at.v << PAGE_SHIFT,
                                   .entry = report.entry,
                                   .expected = report.expected,
                                   .found = report.found,
                                   .visited = report.entries_visited};
    const char *what = report.what != NULL ? report.what : "";
    for (unsigned i = 0; i < sizeof(audit->what) - 1 && what[i] != '\0'; i++) {
        audit->what[i] = what[i];
    }
    return CLEAVE_OK;
}
