/* SPDX-License-Identifier: BSD-2-Clause */
/* The command pool: memory of tenants, made of what no pool has, listed, resized, given back. */
#include "command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB 1048576.0

static void list_pools(struct run *run)
{
    struct cleave_pool_list *all;
    size_t count;
    uint64_t left;
    json_t *pools = json_array();
    put(run->result, "pools", pools);
    int status = cleave_pool_list(run->cleave, &all, &count, &left);
    if (status != 0) {
        failed(run, status, NULL);
        return;
    }
    put(run->result, "left_bytes", json_integer((json_int_t)left));
    tell(run, "%3s %-20s %10s %10s %10s %7s\n", "NR", "NAME", "MIB", "FREE", "RESERVED", "SPACES");
    for (size_t i = 0; i < count; i++) {
        const struct cleave_pool_list *p = &all[i];
        bool closing = (p->flags & CLEAVE_POOL_CLOSING) != 0;
        tell(run, "%3u %-20s %10.1f %10.1f %10.1f %7u%s\n", p->number, p->name,
             (double)p->size / MIB, (double)p->free / MIB, (double)p->promised / MIB, p->spaces,
             closing ? "  being deleted" : "");
        append(pools, json_pack("{s:i,s:s,s:I,s:I,s:I,s:i,s:b}", "number", (int)p->number, "name",
                                p->name, "bytes", (json_int_t)p->size, "free_bytes",
                                (json_int_t)p->free, "reserved_bytes", (json_int_t)p->promised,
                                "spaces", (int)p->spaces, "closing", closing));
    }
    tell(run, "the largest that could be made: %.1f MiB\n", (double)left / MIB);
    free(all);
}

typedef int change_t(struct cleave_handle *cleave, const char *name, uint64_t *size);

/* create and resize: a name, and a size that it then has. */
static void size_pool(struct run *run, change_t *change, const char *name, const char *text)
{
    uint64_t size;
    if (!parse_size(text, &size)) {
        failed_here(run, USAGE, text,
                    "no size: a number of bytes, or with K, M, G or T, as in 256M");
        return;
    }
    int status = change(run->cleave, name, &size);
    if (status != 0) {
        failed(run, status, name);
        return;
    }
    put(run->result, "name", json_string(name));
    put(run->result, "bytes", json_integer((json_int_t)size));
    tell(run, "%s: %.1f MiB\n", name, (double)size / MIB);
}

/* Would it be deleted? What is wrong is said. */
static bool can_delete(struct run *run, const char *name)
{
    struct cleave_pool_list *all;
    size_t count, i = 0;
    int status = cleave_pool_list(run->cleave, &all, &count, NULL);
    if (status != 0) {
        failed(run, status, NULL);
        return false;
    }
    while (i < count && strcmp(all[i].name, name) != 0) {
        i++;
    }
    if (i == count) {
        failed_here(run, REFUSED, name, "there is no such pool");
    } else if (all[i].spaces != 0) {
        failed_here(run, REFUSED, name, "%u domains, snapshots or what forks go back to are in it",
                    all[i].spaces);
    }
    free(all);
    return run->exit == DONE;
}

static void delete_pool(struct run *run, const char *name)
{
    bool dry = run->options.dry_run;
    int status = dry ? 0 : cleave_pool_delete(run->cleave, name);
    put(run->result, "dry_run", json_boolean(dry));
    if (status != 0) {
        failed(run, status, name);
    } else if (!dry || can_delete(run, name)) {
        put(run->result, "name", json_string(name));
        tell(run, "%s: %s\n", name, dry ? "would be deleted" : "deleted");
    }
}

void run_pool(struct run *run)
{
    const char *what = run->targets[0];
    int arguments = run->target_count - 1;
    if (run->options.dry_run && strcmp(what, "delete") != 0) {
        failed_here(run, USAGE, what, "--dry-run goes with delete");
    } else if (strcmp(what, "list") == 0 && arguments == 0) {
        list_pools(run);
    } else if (strcmp(what, "create") == 0 && arguments == 2) {
        size_pool(run, cleave_pool_create, run->targets[1], run->targets[2]);
    } else if (strcmp(what, "resize") == 0 && arguments == 2) {
        size_pool(run, cleave_pool_resize, run->targets[1], run->targets[2]);
    } else if (strcmp(what, "delete") == 0 && arguments == 1) {
        delete_pool(run, run->targets[1]);
    } else {
        failed_here(run, USAGE, what, "it takes %s", run->command->usage);
    }
}
