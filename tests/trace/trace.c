/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs the episodes and hashes what a space's tables, regions and bytes say. */
#include "trace.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "random.h"

#define WHOLE 500u /* steps between two comparisons of everything with the reference */

/* --- Words ------------------------------------------------------------------------------------ */

/* Does one of the words at `words` begin with `name`? What follows it there; null: none does. */
static const char *find_word(const char *words, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = strstr(words, name); at; at = strstr(at + 1, name)) {
        if (at == words || at[-1] == ' ') {
            return at + length;
        }
    }
    return NULL;
}

static uint64_t number_after(const char *words, const char *name)
{
    const char *at = find_word(words, name);
    uint64_t number = 0;
    for (; at && *at >= '0' && *at <= '9'; at++) {
        number = number * 10 + (uint64_t)(*at - '0');
    }
    return number;
}

bool trace_parse(const char *words, struct trace *trace)
{
    *trace = (struct trace){.npt = find_word(words, "npt") != NULL,
                            .seed = number_after(words, "seed="),
                            .steps = number_after(words, "steps="),
                            .every = number_after(words, "every=")};
    return (trace->npt || find_word(words, "ept")) && trace->seed != 0 && trace->steps != 0 &&
           trace->every != 0;
}

/* --- The state -------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t sum, uint64_t v)
{
    sum = (sum ^ v) * UINT64_C(0xff51afd7ed558ccd);
    return sum ^ sum >> 32;
}

/* All that is said of a page but its bytes, in one number. */
static uint64_t page_kind(const struct abs_page *walk, const struct region *region)
{
    uint64_t flags = walk->present | (uint64_t)walk->paged << 1 | (uint64_t)walk->parked << 2;
    flags = flags << 4 | walk->level;
    flags = flags << 4 | walk->rights;
    flags = flags << 4 | (uint64_t)region->policy;
    return flags << 8 | (uint64_t)region->rights << 4 | region->armed << 1 | 1;
}

static bool has_bytes(const struct abs_page *walk, const struct region *region)
{
    return (walk->present || (walk->parked && !walk->paged)) && region->policy != REGION_DEVICE;
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Pages in a row that are alike count as one, however the tables cut them. */
static uint64_t hash_space(const struct world *w, uint64_t sum, const struct space *space)
{
    uint64_t before = 0;

    for (uint64_t at = 0; at < w->ref->pages;) {
        struct gfn_range extent;
        struct abs_page walk = abs_walk(space, at);
        struct region region = region_get_extent(space->regions, gfn(at), &extent);
        uint64_t end = least(w->ref->pages, least(at + walk.pages, extent.end.v));
        uint64_t kind = page_kind(&walk, &region);
        bool bytes = has_bytes(&walk, &region);
        if (kind != before) {
            sum = mix(mix(sum, at), kind);
            before = kind;
        }
        for (; bytes && at < end; at++, walk.frame++) {
            uint64_t word;
            memcpy(&word, abs_bytes(walk.frame), sizeof(word));
            sum = mix(sum, word);
        }
        at = end;
    }
    return sum;
}

static uint64_t hash_world(const struct world *w)
{
    uint64_t sum = mix(w->history, w->pool->free);

    sum = mix(mix(sum, w->pool->reserved), w->pool->aside);
    for (unsigned s = 0; s < REF_SPACES; s++) {
        enum ref_life life = w->ref->space[s].life;
        sum = mix(mix(sum, s), life);
        if (life == REF_ALIVE || life == REF_FROZEN) {
            sum = hash_space(w, sum, w->space[s]);
        }
    }
    return sum;
}

/* --- Running ---------------------------------------------------------------------------------- */

void trace_run(const struct trace *trace)
{
    static struct world world;
    const struct spec_shard shard = {.label = "trace",
                                     .npt = trace->npt,
                                     .least_blocks = trace->seed % 2 ? 96 : 4,
                                     .most_blocks = trace->seed % 2 ? 110 : 24,
                                     .spaces = 6,
                                     .memory = 4};
    struct world *w = &world;
    struct trace_counts counts = {0};
    uint64_t seeds = trace->seed, calls[3] = {0};

    for (uint64_t step = 1; step <= trace->steps;) {
        spec_begin(w, &shard, test_random(&seeds));
        for (w->step = 1; w->step <= TRACE_EPISODE && step <= trace->steps; w->step++, step++) {
            spec_step(w, WHOLE);
            if (step % trace->every == 0) {
                printf("trace: seed %" PRIu64 " step %" PRIu64 " state %016" PRIx64 "\n",
                       trace->seed, step, hash_world(w));
            }
        }
        spec_finish(w);
        trace_count(&counts);
        calls[0] += w->applied;
        calls[1] += w->refused;
        calls[2] += w->exhausted;
    }
    printf("trace: seed %" PRIu64 " ends: %" PRIu64 " calls succeeded, %" PRIu64
           " were refused, %" PRIu64 " ran out of memory\n",
           trace->seed, calls[0], calls[1], calls[2]);
    printf("trace: seed %" PRIu64 " ends: %" PRIu64 " accesses, %" PRIu64 " faults, %" PRIu64
           " bytes copied, %" PRIu64 " zeroed\n",
           trace->seed, counts.accesses, counts.faults, counts.copied, counts.zeroed);
}
