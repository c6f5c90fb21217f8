/* SPDX-License-Identifier: BSD-2-Clause */
/* Commands that look at a domain's memory page by page: map, diff. */
#include "command.h"

#include <inttypes.h>
#include <string.h>

#define PAGE UINT64_C(4096)

/* Neighbours that are told as one. */
struct range {
    uint64_t at, size;
    struct cleave_lookup leaf; /* of a map: the first one */
    uint64_t total;            /* bytes in all ranges */
    struct run *run;
    json_t *all;
};

static const char *leaf_name(const struct cleave_lookup *leaf)
{
    static const char *const sizes[] = {"4K", "2M", "1G"};
    return leaf->kind != 2 ? "not-loaded" : leaf->order < 3 ? sizes[leaf->order] : "?";
}

static void end_range(struct range *range, bool leaves)
{
    const struct cleave_lookup *leaf = &range->leaf;
    if (range->size == 0) {
        return;
    }
    json_t *object =
        json_pack("{s:I,s:I}", "at", (json_int_t)range->at, "bytes", (json_int_t)range->size);
    if (leaves) {
        char rights[] = {leaf->rights & 1 ? 'r' : '-', leaf->rights & 2 ? 'w' : '-',
                         leaf->rights & 4 ? 'x' : '-', '\0'};
        put(object, "leaves", json_string(leaf_name(leaf)));
        put(object, "rights", json_string(rights));
        put(object, "exclusive", json_boolean(leaf->exclusive != 0));
        tell(range->run, "%012" PRIx64 " - %012" PRIx64 " %10" PRIu64 " KiB  %-10s %s  %s\n",
             range->at, range->at + range->size, range->size >> 10, leaf_name(leaf), rights,
             leaf->exclusive ? "exclusive" : "shared");
    } else {
        tell(range->run, "%012" PRIx64 " - %012" PRIx64 " %10" PRIu64 " KiB\n", range->at,
             range->at + range->size, range->size >> 10);
    }
    append(range->all, object);
    range->total += range->size;
    range->size = 0;
}

static bool same_kind(const struct cleave_lookup *a, const struct cleave_lookup *b)
{
    return a->kind == b->kind && a->order == b->order && a->rights == b->rights &&
           a->exclusive == b->exclusive;
}

void run_map(struct run *run)
{
    struct cleave_list domain;
    struct cleave_lookup leaf;
    struct range range = {.run = run, .all = json_array()};
    uint64_t at = 0;
    put(run->result, "ranges", range.all);
    int status = cleave_find(run->cleave, run->targets[0], &domain);
    while (status == 0 && at < CLEAVE_MEMORY_END) {
        status = cleave_next_leaf(run->cleave, domain.domain, at, CLEAVE_MEMORY_END, &leaf);
        if (status != 0 || leaf.kind == 0) {
            break;
        }
        uint64_t size = PAGE << 9 * leaf.order, end = (leaf.at | (size - 1)) + 1;
        if (leaf.at != range.at + range.size || !same_kind(&leaf, &range.leaf)) {
            end_range(&range, true);
            range.at = leaf.at;
            range.leaf = leaf;
        }
        range.size += end - leaf.at;
        at = end;
    }
    end_range(&range, true);
    if (status != 0) {
        failed(run, status, run->targets[0]);
    }
    put(run->result, "bytes", json_integer((json_int_t)range.total));
}

static int note_difference(void *context, uint64_t at)
{
    struct range *range = context;
    if (at != range->at + range->size) {
        end_range(range, false);
        range->at = at;
    }
    range->size += PAGE;
    return 0;
}

void run_diff(struct run *run)
{
    struct cleave_list first, second;
    struct range range = {.run = run, .all = json_array()};
    put(run->result, "ranges", range.all);
    const char *wrong = run->targets[0];
    int status = cleave_find(run->cleave, run->targets[0], &first);
    if (status == 0) {
        wrong = run->targets[1];
        status = cleave_find(run->cleave, run->targets[1], &second);
    }
    if (status == 0) {
        wrong = NULL;
        status = cleave_diff(run->cleave, first.domain, second.domain, 0, CLEAVE_MEMORY_END,
                             note_difference, &range);
        end_range(&range, false);
        tell(run, "%" PRIu64 " KiB differ\n", range.total >> 10);
    }
    if (status != 0) {
        failed(run, status, wrong);
    }
    put(run->result, "bytes", json_integer((json_int_t)range.total));
}
