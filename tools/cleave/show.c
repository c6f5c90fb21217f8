/* SPDX-License-Identifier: BSD-2-Clause */
/* Commands that only look: version, info, list, stat, audit. */
#include "command.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB 1048576.0

static json_t *number(uint64_t value) { return json_integer((json_int_t)value); }

json_t *domain_json(const struct cleave_list *domain)
{
    json_t *object = json_object();
    put(object, "id", number(domain->domain));
    put(object, "name", json_string(domain->name));
    put(object, "state", json_string(cleave_state_name(domain->state)));
    put(object, "made_by", domain->parent != 0 ? number(domain->parent) : json_null());
    put(object, "forked_from", domain->origin != 0 ? number(domain->origin) : json_null());
    put(object, "vcpus", number(domain->vcpus));
    put(object, "pool", number(domain->pool));
    put(object, "pauses", number(domain->pauses));
    put(object, "snapshot", json_boolean((domain->flags & CLEAVE_LIST_SNAPSHOT) != 0));
    put(object, "can_reset", json_boolean((domain->flags & CLEAVE_LIST_BASE) != 0));
    if (domain->state == CLEAVE_STATE_ENDED) {
        put(object, "reason", json_string(cleave_reason_name(domain->reason)));
        put(object, "code", number(domain->code));
    }
    return object;
}

void run_version(struct run *run)
{
    struct cleave_version v;
    int status = cleave_version(run->cleave, &v);
    if (status != 0) {
        failed(run, status, NULL);
        return;
    }
    put(run->result, "tool",
        json_pack("{s:s,s:i,s:i}", "version", TOOL_VERSION, "revision", (int)CLEAVE_ABI_REVISION,
                  "operations", (int)CLEAVE_OPS));
    put(run->result, "hypervisor",
        json_pack("{s:i,s:i,s:s%}", "revision", (int)v.revision, "operations", (int)v.operations,
                  "machine", v.machine, strnlen(v.machine, sizeof(v.machine))));
    tell(run, "tool:       %s, revision %u, %u operations\n", TOOL_VERSION, CLEAVE_ABI_REVISION,
         (unsigned)CLEAVE_OPS);
    tell(run, "hypervisor: revision %u, %u operations, %.*s\n", v.revision, v.operations,
         (int)sizeof(v.machine), v.machine);
    if (v.revision != CLEAVE_ABI_REVISION) {
        failed_here(run, UNREACHABLE, NULL,
                    "the hypervisor speaks revision %u, this tool revision %u: use the tools that "
                    "were built with the hypervisor",
                    v.revision, CLEAVE_ABI_REVISION);
    }
}

void run_info(struct run *run)
{
    struct cleave_version v;
    struct cleave_stat stat;
    struct cleave_list *all = NULL;
    size_t count = 0, by_state[CLEAVE_STATE_ENDED + 1] = {0};
    int status = cleave_version(run->cleave, &v);
    if (status == 0) {
        status = cleave_stat(run->cleave, CLEAVE_DOMAIN_SELF, &stat);
    }
    if (status == 0) {
        status = cleave_list(run->cleave, &all, &count);
    }
    if (status != 0) {
        failed(run, status, NULL);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        by_state[all[i].state <= CLEAVE_STATE_ENDED ? all[i].state : 0]++;
    }
    free(all);
    put(run->result, "machine", json_stringn(v.machine, strnlen(v.machine, sizeof(v.machine))));
    put(run->result, "tsc_per_second", number(v.tsc_per_second));
    put(run->result, "self", number(v.domain));
    put(run->result, "pool_bytes", number(stat.pool_size));
    put(run->result, "free_bytes", number(stat.pool_free));
    put(run->result, "reserved_bytes", number(stat.pool_reserved));
    put(run->result, "domains", number(count));
    tell(run, "machine:  %.*s, TSC %.0f MHz\n", (int)sizeof(v.machine), v.machine,
         (double)v.tsc_per_second / 1e6);
    tell(run, "memory:   %.1f MiB, %.1f free, %.1f reserved\n", (double)stat.pool_size / MIB,
         (double)stat.pool_free / MIB, (double)stat.pool_reserved / MIB);
    tell(run, "domains:  %zu", count);
    for (uint32_t s = CLEAVE_STATE_RUNNING; s <= CLEAVE_STATE_ENDED; s++) {
        if (by_state[s] != 0) {
            tell(run, ", %zu %s", by_state[s], cleave_state_name(s));
        }
    }
    tell(run, "; this is %u\n", v.domain);
}

void run_list(struct run *run)
{
    struct cleave_list *all;
    size_t count;
    int status = cleave_list(run->cleave, &all, &count);
    if (status != 0) {
        failed(run, status, NULL);
        return;
    }
    json_t *domains = json_array();
    tell(run, "%5s %-20s %-8s %5s %6s %6s %4s  %s\n", "ID", "NAME", "STATE", "VCPUS", "FORKED",
         "MADE", "POOL", "END");
    for (size_t i = 0; i < count; i++) {
        const struct cleave_list *d = &all[i];
        char origin[12] = "-", maker[12] = "-";
        append(domains, domain_json(d));
        if (d->origin != 0) {
            snprintf(origin, sizeof(origin), "%u", d->origin);
        }
        if (d->parent != 0) {
            snprintf(maker, sizeof(maker), "%u", d->parent);
        }
        tell(run, "%5u %-20s %-8s %5u %6s %6s %4u ", d->domain, d->name,
             cleave_state_name(d->state), d->vcpus, origin, maker, d->pool);
        if (d->state == CLEAVE_STATE_ENDED) {
            tell(run, " %s, code %u", cleave_reason_name(d->reason), d->code);
        }
        tell(run, "\n");
    }
    put(run->result, "domains", domains);
    free(all);
}

static json_t *stat_json(const struct cleave_stat *s)
{
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {
        {"charged_bytes", s->charged},
        {"exclusive_bytes", s->exclusive},
        {"shared_bytes", s->shared},
        {"mapped_4k_bytes", s->mapped[0]},
        {"mapped_2m_bytes", s->mapped[1]},
        {"mapped_1g_bytes", s->mapped[2]},
        {"copied_bytes", s->copied},
        {"zeroed_bytes", s->zeroed},
        {"faults", s->faults},
        {"tables_copied", s->tables_copied},
        {"blocks_split", s->blocks_split},
        {"reused", s->reused},
        {"collapsed", s->collapsed},
        {"exits", s->exits},
        {"hypercalls", s->hypercalls},
        {"stood_still_ns", s->stood_still},
        {"entry_ticks", s->entry_ticks},
        {"start_ticks", s->start_ticks},
    };
    json_t *object = json_object();
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        put(object, fields[i].name, number(fields[i].value));
    }
    return object;
}

void run_stat(struct run *run)
{
    struct cleave_list *domains;
    size_t count;
    json_t *all = json_array();
    put(run->result, "domains", all);
    if (!targets_find(run, &domains, &count)) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct cleave_stat stat;
        const char *key;
        json_t *value;
        int status = cleave_stat(run->cleave, domains[i].domain, &stat);
        if (status != 0) {
            failed(run, status, domains[i].name);
            continue;
        }
        json_t *object = domain_json(&domains[i]), *counts = stat_json(&stat);
        tell(run, "%u %s, %s\n", domains[i].domain, stat.name, cleave_state_name(stat.state));
        json_object_foreach(counts, key, value)
        {
            tell(run, "  %-16s %" JSON_INTEGER_FORMAT "\n", key, json_integer_value(value));
        }
        json_object_update(object, counts);
        json_decref(counts);
        append(all, object);
    }
    free(domains);
}

void run_audit(struct run *run)
{
    struct cleave_audit audit;
    int status = cleave_audit(run->cleave, &audit);
    if (status != 0) {
        failed(run, status, NULL);
        return;
    }
    put(run->result, "visited", number(audit.visited));
    put(run->result, "violated", audit.invariant != 0 ? number(audit.invariant) : json_null());
    if (audit.invariant == 0) {
        tell(run, "clean: %" PRIu64 " entries\n", audit.visited);
        return;
    }
    put(run->result, "what", json_string(audit.what));
    put(run->result, "space", number(audit.domain_space));
    put(run->result, "at", number(audit.at));
    failed_here(run, VIOLATED, NULL,
                "invariant I%u is violated: %s (space %u, at %#" PRIx64 ", entry %#" PRIx64
                ", expected %#" PRIx64 ", found %#" PRIx64 ")",
                audit.invariant, audit.what, audit.domain_space, audit.at, audit.entry,
                audit.expected, audit.found);
}
