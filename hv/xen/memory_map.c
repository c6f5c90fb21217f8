/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory maps, in entries of the BIOS's (memory_op of Xen's public/memory.h): one that a domain's
 * maker gives it, which it can ask for, and the machine's. Nothing is mapped or unmapped by them.
 */
#include "control.h"

#include <stddef.h>

#include <xen/errno.h>
#include <xen/memory.h>
#include <xen/xen.h>

#define E820_RAM 1u

/* Gives as many of the `count` entries as the caller has room for, and says how many. */
static int64_t give(struct xen_call *call, struct xen_memory_map *map,
                    const struct xen_map_entry *entry, uint32_t count)
{
    map->nr_entries = map->nr_entries < count ? map->nr_entries : count;
    int64_t result =
        xen_put(call, (uint64_t)map->buffer.p, entry, map->nr_entries * sizeof(*entry));
    return result == 0 ? xen_put(call, call->argument[1], map, sizeof(*map)) : result;
}

int64_t xen_memory_map(struct xen_call *call)
{
    struct xen_domain *xen = call->xen;
    struct xen_map_entry entry[XEN_MAP_MAX];
    klock_take(&xen->lock);
    uint32_t count = xen->map_count;
    __builtin_memcpy(entry, xen->map, sizeof(entry));
    klock_release(&xen->lock);
    if (count == 0) {
        return -XEN_ENOSYS; /* as Xen where none was given */
    }
    struct xen_memory_map map;
    int64_t result = xen_get(call, call->argument[1], &map, sizeof(map));
    return result == 0 ? give(call, &map, entry, count) : result;
}

/* All of the machine's RAM; with no place for it, how many entries that takes. */
int64_t xen_machine_map(struct xen_call *call)
{
    struct xen_map_entry entry[BOOT_RANGES_MAX];
    struct xen_memory_map map;
    int64_t result = xen_get(call, call->argument[1], &map, sizeof(map));
    if (result != 0) {
        return result;
    }
    if (map.buffer.p == NULL) {
        map.nr_entries = boot_info.ram_count;
        return xen_put(call, call->argument[1], &map, sizeof(map));
    }
    for (unsigned i = 0; i < boot_info.ram_count; i++) {
        const struct boot_range *ram = &boot_info.ram[i];
        entry[i] = (struct xen_map_entry){ram->start, ram->end - ram->start, E820_RAM};
    }
    return give(call, &map, entry, boot_info.ram_count);
}

int64_t xen_set_memory_map(struct xen_call *call)
{
    struct xen_foreign_memory_map set;
    struct xen_map_entry entry[XEN_MAP_MAX];
    int64_t result = xen_get(call, call->argument[1], &set, sizeof(set));
    if (result == 0 && set.map.nr_entries > XEN_MAP_MAX) {
        result = -XEN_EINVAL;
    }
    if (result == 0) {
        result =
            xen_get(call, (uint64_t)set.map.buffer.p, entry, set.map.nr_entries * sizeof(entry[0]));
    }
    if (result != 0) {
        return result;
    }
    struct domain *domain = xen_target(call, set.domid, &result);
    if (domain == NULL) {
        return result;
    }
    result = xen_status(xen_make(call->ctx, domain));
    if (result == 0) {
        klock_take(&domain->xen->lock);
        domain->xen->map_count = set.map.nr_entries;
        __builtin_memcpy(domain->xen->map, entry, set.map.nr_entries * sizeof(entry[0]));
        klock_release(&domain->xen->lock);
    }
    xen_target_put(call, domain);
    return result == XEN_QUOTA ? -XEN_ENOMEM : result;
}
