/* SPDX-License-Identifier: BSD-2-Clause */
/* The command diff, which looks at two domains' memory page by page. */
#include "command.h"

#include <inttypes.h>
#include <string.h>

#define PAGE UINT64_C(4096)
#define PART (UINT64_C(16) << 20) /* looked at between two tellings of how far it is */

/* Neighbours that are told as one. */
struct range {
    uint64_t at, size;
    uint64_t total; /* bytes in all ranges */
    struct progress progress;
    struct run *run;
    json_t *all;
};

static void end_range(struct range *range)
{
    if (range->size == 0) {
        return;
    }
    progress_end(&range->progress);
    append(range->all,
           json_pack("{s:I,s:I}", "at", (json_int_t)range->at, "bytes", (json_int_t)range->size));
    tell(range->run, "%012" PRIx64 " - %012" PRIx64 " %10" PRIu64 " KiB\n", range->at,
         range->at + range->size, range->size >> 10);
    range->total += range->size;
    range->size = 0;
}

static int note_difference(void *context, uint64_t at)
{
    struct range *range = context;
    if (at != range->at + range->size) {
        end_range(range);
        range->at = at;
    }
    range->size += PAGE;
    return 0;
}

/* Part after part, of where one of the two has memory at all. */
static int diff(struct range *range, uint32_t first, uint32_t second)
{
    struct cleave_handle *cleave = range->run->cleave;
    uint64_t at = 0;
    for (;;) {
        struct cleave_lookup a, b;
        int status = cleave_next_leaf(cleave, first, at, CLEAVE_MEMORY_END, &a);
        if (status == 0) {
            status = cleave_next_leaf(cleave, second, at, CLEAVE_MEMORY_END, &b);
        }
        if (status != 0 || (a.kind == 0 && b.kind == 0)) {
            return status;
        }
        uint64_t from = a.kind != 0 && (b.kind == 0 || a.at < b.at) ? a.at : b.at;
        at = (from | (PART - 1)) + 1;
        status = cleave_diff(cleave, first, second, from, at, note_difference, range);
        if (status != 0) {
            return status;
        }
        progress_tell(&range->progress, at, 0);
    }
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
        range.progress = progress_begin(run);
        status = diff(&range, first.domain, second.domain);
        end_range(&range);
        progress_end(&range.progress);
        tell(run, "%" PRIu64 " KiB differ\n", range.total >> 10);
    }
    if (status != 0) {
        failed(run, status, wrong);
    }
    put(run->result, "bytes", json_integer((json_int_t)range.total));
}
