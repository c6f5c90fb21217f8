/* SPDX-License-Identifier: BSD-2-Clause */
/* Commands on domains that there are: pause, unpause, rename, reset, destroy, wait; and targets. */
#include "command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static bool named_already(const struct cleave_list *domains, size_t count, uint32_t id)
{
    for (size_t i = 0; i < count; i++) {
        if (domains[i].domain == id) {
            return true;
        }
    }
    return false;
}

/* Appends to `found`, which has room for `all`, the forks of `parent`. */
static size_t add_children(const struct cleave_list *all, size_t count, uint32_t parent,
                           struct cleave_list *found, size_t used)
{
    for (size_t i = 0; i < count; i++) {
        bool child = all[i].origin == parent && !(all[i].flags & CLEAVE_LIST_SNAPSHOT);
        if (child && !named_already(found, used, all[i].domain)) {
            found[used++] = all[i];
        }
    }
    return used;
}

static bool replace_by_children(struct run *run, struct cleave_list **domains, size_t *count)
{
    struct cleave_list *all, *found = NULL;
    size_t there, used = 0;
    int status = cleave_list(run->cleave, &all, &there);
    if (status != 0) {
        failed(run, status, NULL);
        return false;
    }
    found = calloc(there + 1, sizeof(*found));
    for (size_t i = 0; found != NULL && i < *count; i++) {
        used = add_children(all, there, (*domains)[i].domain, found, used);
    }
    free(all);
    free(*domains);
    *domains = found;
    *count = used;
    if (found == NULL) {
        failed_here(run, REFUSED, NULL, "no memory");
    }
    return found != NULL;
}

bool targets_find(struct run *run, struct cleave_list **out, size_t *count)
{
    struct cleave_list *domains = calloc((size_t)run->target_count + 1, sizeof(*domains));
    size_t used = 0;
    if (domains == NULL) {
        failed_here(run, REFUSED, NULL, "no memory");
        return false;
    }
    for (int i = 0; i < run->target_count; i++) {
        int status = cleave_find(run->cleave, run->targets[i], &domains[used]);
        if (status != 0) {
            failed(run, status, run->targets[i]);
        } else if (!named_already(domains, used, domains[used].domain)) {
            used++;
        }
    }
    bool good = run->exit == DONE;
    if (good && run->options.children) {
        good = replace_by_children(run, &domains, &used);
    }
    if (!good) {
        free(domains);
        return false;
    }
    *out = domains;
    *count = used;
    return true;
}

/* Would it be done? What is wrong is said. */
static bool could(struct run *run, const struct cleave_list *domain)
{
    bool resets = run->command->perform == run_reset;
    struct cleave_version version;
    int status = cleave_version(run->cleave, &version);
    if (status != 0) {
        failed(run, status, domain->name);
        return false;
    }
    if (domain->domain == version.domain) {
        failed_here(run, USAGE, domain->name, "this is the domain that asks");
        return false;
    }
    if (resets && (domain->flags & CLEAVE_LIST_BASE) == 0) {
        failed_here(run, REFUSED, domain->name, "it was not forked with a base");
        return false;
    }
    if (resets && domain->state == CLEAVE_STATE_ENDED) {
        failed_here(run, REFUSED, domain->name, "it has ended");
        return false;
    }
    return true;
}

/* One operation on each target; what fails with one is said, and the others have their turn. */
static void for_each(struct run *run, int (*perform)(struct cleave_handle *, uint32_t),
                     const char *done)
{
    struct cleave_list *domains;
    size_t count;
    json_t *all = json_array();
    put(run->result, "domains", all);
    if (run->command->options & OPT_DRY_RUN) {
        put(run->result, "dry_run", json_boolean(run->options.dry_run));
    }
    if (!targets_find(run, &domains, &count)) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const struct cleave_list *d = &domains[i];
        if (run->options.dry_run && !could(run, d)) {
            continue;
        }
        int status = run->options.dry_run ? 0 : perform(run->cleave, d->domain);
        if (status != 0) {
            failed(run, status, d->name);
            continue;
        }
        tell(run, "%u %s: %s%s\n", d->domain, d->name, run->options.dry_run ? "would be " : "",
             done);
        append(all, json_pack("{s:i,s:s}", "id", (int)d->domain, "name", d->name));
    }
    free(domains);
}

void run_pause(struct run *run) { for_each(run, cleave_pause, "paused"); }
void run_unpause(struct run *run) { for_each(run, cleave_unpause, "unpaused"); }
void run_reset(struct run *run) { for_each(run, cleave_reset, "reset"); }
void run_destroy(struct run *run) { for_each(run, cleave_destroy, "destroyed"); }

void run_rename(struct run *run)
{
    struct cleave_list domain;
    int status = cleave_find(run->cleave, run->targets[0], &domain);
    if (status == 0) {
        status = cleave_rename(run->cleave, domain.domain, run->targets[1]);
    }
    if (status != 0) {
        failed(run, status, run->targets[0]);
        return;
    }
    put(run->result, "id", json_integer(domain.domain));
    put(run->result, "name", json_string(run->targets[1]));
    put(run->result, "old_name", json_string(domain.name));
    tell(run, "%u %s: renamed %s\n", domain.domain, domain.name, run->targets[1]);
}

/* --- Rights ------------------------------------------------------------------------------------
 */

static const struct {
    const char *name;
    uint32_t right;
} rights[] = {
    {"fork", CLEAVE_RIGHT_FORK}, {"look", CLEAVE_RIGHT_LOOK}, {"hold", CLEAVE_RIGHT_HOLD}};
#define RIGHTS (sizeof(rights) / sizeof(rights[0]))

static uint32_t right_named(const char *name)
{
    for (unsigned i = 0; i < RIGHTS; i++) {
        if (strcmp(rights[i].name, name) == 0) {
            return rights[i].right;
        }
    }
    return 0;
}

static void set_rights(struct run *run, uint32_t set)
{
    struct cleave_list domain[2];
    json_t *names = json_array();
    int status = 0, which = 0;

    for (int i = 0; i < 2 && status == 0; i++) {
        which = i;
        status = cleave_find(run->cleave, run->targets[i], &domain[i]);
    }
    if (status == 0) {
        which = 0;
        status = cleave_grant(run->cleave, domain[0].domain, domain[1].domain, set);
    }
    if (status != 0) {
        json_decref(names);
        failed(run, status, run->targets[which]);
        return;
    }
    for (unsigned i = 0; i < RIGHTS; i++) {
        if ((set & rights[i].right) != 0) {
            append(names, json_string(rights[i].name));
        }
    }
    put(run->result, "id", json_integer(domain[0].domain));
    put(run->result, "over", json_integer(domain[1].domain));
    put(run->result, "rights", names);
    tell(run, "%u %s: %s rights over %u %s", domain[0].domain, domain[0].name,
         set != 0 ? "has" : "has no", domain[1].domain, domain[1].name);
    for (unsigned i = 0, told = 0; i < RIGHTS; i++) {
        if ((set & rights[i].right) != 0) {
            tell(run, "%s%s", told++ == 0 ? ": " : ", ", rights[i].name);
        }
    }
    tell(run, "\n");
}

void run_grant(struct run *run)
{
    uint32_t set = 0;
    for (int i = 2; i < run->target_count; i++) {
        uint32_t right = right_named(run->targets[i]);
        if (right == 0) {
            failed_here(run, USAGE, run->targets[i], "no right: fork, look or hold");
            return;
        }
        set |= right;
    }
    set_rights(run, set);
}

void run_revoke(struct run *run) { set_rights(run, 0); }

/* --- Waiting ---------------------------------------------------------------------------------- */

static void tell_end(const struct run *run, const struct cleave_list *domain,
                     const struct cleave_end *end)
{
    tell(run, "%u %s: %s, code %u%s", end->domain, domain->name, cleave_reason_name(end->reason),
         end->code, end->size != 0 ? ": " : "");
    uint32_t size = end->size;
    while (size != 0 && end->result[size - 1] == '\n') {
        size--;
    }
    for (uint32_t i = 0; i < size; i++) {
        bool plain = end->result[i] >= ' ' && end->result[i] <= '~';
        tell(run, "%c", plain ? end->result[i] : '?');
    }
    tell(run, "\n");
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void wait_for(struct run *run, struct cleave_list *domains, size_t count, json_t *all)
{
    uint32_t ids[1024];
    int64_t until = now_ms() + run->options.timeout;
    size_t left = count;

    for (size_t i = 0; i < count; i++) {
        ids[i] = domains[i].domain;
    }
    while (left != 0) {
        struct cleave_end end;
        int64_t timeout = -1;
        if (run->options.timeout >= 0) {
            timeout = until - now_ms();
            timeout = timeout > 0 ? timeout : 0;
        }
        int status = cleave_wait(run->cleave, ids, left, timeout, &end);
        if (status != 0) {
            failed(run, status, left == 1 ? domains[0].name : NULL);
            return;
        }
        size_t which = 0;
        while (ids[which] != end.domain) {
            which++;
        }
        json_t *object =
            json_pack("{s:i,s:s,s:s,s:I}", "id", (int)end.domain, "name", domains[which].name,
                      "reason", cleave_reason_name(end.reason), "code", (json_int_t)end.code);
        put_text(object, "result", end.result, end.size);
        append(all, object);
        tell_end(run, &domains[which], &end);
        left = run->options.any ? 0 : left - 1;
        ids[which] = ids[left];
        domains[which] = domains[left];
    }
}

void run_wait(struct run *run)
{
    struct cleave_list *domains;
    size_t count;
    json_t *all = json_array();
    put(run->result, "domains", all);
    if (!targets_find(run, &domains, &count)) {
        return;
    }
    if (count > 1024) {
        failed_here(run, USAGE, NULL, "at most 1024 domains are waited for at once");
    } else {
        wait_for(run, domains, count, all);
    }
    free(domains);
}
