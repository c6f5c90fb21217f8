/* SPDX-License-Identifier: BSD-2-Clause */
/* The command diff, which looks at two domains' memory page by page. */
#include "command.h"

#include <inttypes.h>
#include <string.h>

#define PAGE UINT64_C(4096)

/* Neighbours that are told as one. */
struct range {
    uint64_t at, size;
    uint64_t total; /* bytes in all ranges */
    struct run *run;
    json_t *all;
};

static void end_range(struct range *range)
{
    if (range->size == 0) {
        return;
    }
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
        end_range(&range);
        tell(run, "%" PRIu64 " KiB differ\n", range.total >> 10);
    }
    if (status != 0) {
        failed(run, status, wrong);
    }
    put(run->result, "bytes", json_integer((json_int_t)range.total));
}
