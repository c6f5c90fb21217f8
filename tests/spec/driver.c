/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes random operations, compares after each, and says what came before a failure. */
#include "driver.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "ops.h"
#include "random.h"

#define WINDOW_PAGES (GUEST_PAGES < 786432 ? GUEST_PAGES : 786432) /* what the reference keeps */
#define AUDIT_STEPS                                                                                \
    (PAGE_SHIFT > 10 ? 50 : 1) /* between two audits: the real geometry's take long */
#define KEPT_BYTES (PAGE_SHIFT > 10 ? 8 : PAGE_SIZE) /* of each page: a tag, or all */

const char *spec_only;
bool spec_quiet;

/* --- Saying ----------------------------------------------------------------------------------- */

static uint64_t hash(uint64_t h, const char *text)
{
    for (; *text; text++) {
        h = (h ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    }
    return h;
}

uint64_t spec_hash(const char *text) { return hash(UINT64_C(0xcbf29ce484222325), text); }

void spec_say(struct world *w, const char *format, ...)
{
    va_list list;
    char *line = w->log[w->lines % SPEC_LOG];
    int used = snprintf(line, SPEC_LINE, "%6u %s", w->step, w->nested ? "between calls: " : "");

    va_start(list, format);
    vsnprintf(line + used, (size_t)(SPEC_LINE - used), format, list);
    va_end(list);
    w->history = hash(w->history, line);
}

void spec_print_log(const struct world *w)
{
    printf("  episode seed 0x%" PRIx64 ", step %u, %s\n", w->seed, w->step, w->shard->label);
    for (unsigned i = 1; i <= SPEC_LOG; i++) {
        const char *line = w->log[(w->lines + i) % SPEC_LOG];
        if (line[0]) {
            printf("    %s\n", line);
        }
    }
}

_Noreturn void spec_fail(struct world *w, const char *format, ...)
{
    char text[400];
    va_list list;

    int kind = 1 + (int)(spec_hash(format) % 90); /* so that other failures are told apart */
    if (spec_quiet) {
        spec_stop(kind);
    }
    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    printf("  %s\n", text);
    spec_print_log(w);
    spec_stop(kind);
}

/* --- Choosing --------------------------------------------------------------------------------- */

uint64_t spec_below(struct world *w, uint64_t n) { return test_random(&w->random) % n; }
bool spec_chance(struct world *w, unsigned one_in) { return spec_below(w, one_in) == 0; }

unsigned spec_pick_space(struct world *w, unsigned lives)
{
    unsigned start = (unsigned)spec_below(w, REF_SPACES);

    for (unsigned i = 0; i < REF_SPACES; i++) {
        unsigned s = (start + i) % REF_SPACES;
        enum ref_life life = w->ref->space[s].life;
        if (life != REF_UNUSED && lives >> life & 1 && !w->changing[s]) {
            return s;
        }
    }
    return REF_SPACES;
}

static uint64_t any_page(struct world *w)
{
    uint64_t page = spec_below(w, w->shard->ragged ? 4 * level_pages(2) : WINDOW_PAGES);

    if (WINDOW_PAGES > 4096) { /* near the borders of 2 MiB and 1 GiB blocks, mostly low */
        static const uint32_t areas[] = {0, 0, 0, 512, 1024, 262144 - 512, 262144, 524288};
        page = areas[spec_below(w, 8)] + spec_below(w, spec_chance(w, 2) ? 24 : 1024);
    }
    return page;
}

uint64_t spec_pick_page(struct world *w, unsigned space)
{
    uint64_t page = any_page(w);

    for (unsigned i = 0; i < 6 && spec_below(w, 8) != 0; i++) {
        if (ref_page(w->ref, space, page).policy != REF_NONE) {
            break;
        }
        page = any_page(w);
    }
    return page;
}

struct spec_range spec_pick_range(struct world *w, unsigned space)
{
    uint64_t at = spec_pick_page(w, space);
    uint64_t pages = 1 + spec_below(w, 4);

    switch (spec_below(w, w->shard->ragged ? 32 : 8)) {
    case 8:
    case 9: /* many blocks */
        at &= ~(level_pages(2) - 1);
        pages = level_pages(2) * (1 + spec_below(w, 3)) - spec_below(w, 3);
        at += spec_below(w, 3);
        break;
    case 0: /* whole blocks */
        at &= ~(level_pages(1) - 1);
        pages = level_pages(1) * (1 + spec_below(w, 2));
        break;
    case 1:
        if (WINDOW_PAGES < 4096 || spec_chance(w, 20)) {
            at &= ~(level_pages(2) - 1);
            pages = level_pages(2);
        }
        break;
    case 2: /* across a border */
        at = (at & ~(level_pages(1) - 1)) + level_pages(1) - 1;
        pages = 1 + spec_below(w, level_pages(1));
        break;
    case 3:
        pages = 1 + spec_below(w, 16);
        break;
    default:
        pages = w->shard->ragged ? 1 : pages;
        break;
    }
    if (pages > WINDOW_PAGES - at) {
        pages = WINDOW_PAGES - at;
    }
    return (struct spec_range){at << PAGE_SHIFT, pages << PAGE_SHIFT};
}

struct spec_range spec_pick_any_range(struct world *w, unsigned space)
{
    struct spec_range range = spec_pick_range(w, space);
    uint64_t width = GUEST_PAGES << PAGE_SHIFT;

    if (!spec_chance(w, 24)) {
        return range;
    }
    switch (spec_below(w, 8)) {
    case 0:
        range.at += 1 + spec_below(w, PAGE_SIZE - 1);
        break;
    case 1:
        range.size += 1 + spec_below(w, PAGE_SIZE - 1);
        break;
    case 2:
        range.size = 0;
        break;
    case 3:
        range.size = UINT64_MAX;
        break;
    case 4:
        range.size = UINT64_MAX - PAGE_SIZE + 1; /* the largest that is aligned */
        break;
    case 5:
        range.at = width - PAGE_SIZE;
        range.size = 2 * PAGE_SIZE;
        break;
    case 6:
        range.at = width << spec_below(w, 3);
        break;
    case 7:
        range.at = UINT64_MAX - PAGE_SIZE + 1;
        break;
    }
    return range;
}

/* --- Agreeing --------------------------------------------------------------------------------- */

void spec_touch(struct world *w, uint64_t start, uint64_t end)
{
    if (w->touched_start == w->touched_end) {
        w->touched_start = start;
        w->touched_end = end;
        return;
    }
    w->touched_start = start < w->touched_start ? start : w->touched_start;
    w->touched_end = end > w->touched_end ? end : w->touched_end;
}

uint64_t spec_free(const struct world *w) { return w->pool->free - w->pool->reserved; }

bool spec_injected(const struct world *w) { return w->injected || host_allocation_failed(); }

bool spec_out_of_quota(const struct world *w, const struct space *payer, uint64_t need)
{
    const struct account *account = payer ? account_of(w->pool, payer->payer.account) : NULL;
    return account && account->charged + account->promised + need > account->limit;
}

bool spec_is_promised(const struct world *w, unsigned s, uint64_t need)
{
    return w->promised[s] == UINT64_MAX ||
           (w->promised[s] != 0 && w->space[s]->payer.reserved >= need);
}

bool spec_agree(struct world *w, enum cleave_status got, enum cleave_status expected,
                struct space *payer, uint64_t need)
{
    bool dry = false;

    w->history = (w->history ^ got) * UINT64_C(0x100000001b3);
    if (got == expected) {
        *(got == CLEAVE_OK ? &w->applied : &w->refused) += 1;
        return got == CLEAVE_OK;
    }
    if (got == CLEAVE_BUSY && w->stopped && w->stopped->op != OP_NONE &&
        w->ctx->error.value == w->stopped->op) {
        w->refused++;
        return false;
    }
    if (got == CLEAVE_NO_MEMORY || got == CLEAVE_RESERVE) {
        bool promised = false;
        for (unsigned s = 0; s < REF_SPACES; s++) {
            promised |= payer && w->space[s] == payer && spec_is_promised(w, s, need);
        }
        dry = spec_injected(w) || (!promised && (w->free_before < need || spec_free(w) < need)) ||
              spec_out_of_quota(w, w->owner, need);
    } else if (got == CLEAVE_QUOTA) {
        dry = spec_out_of_quota(w, payer, need);
    }
    if (expected != CLEAVE_OK || !dry) {
        spec_fail(w,
                  "status %u, not %u (argument %s, value 0x%" PRIx64 "; %" PRIu64
                  " frames were free, up to %" PRIu64 " needed)",
                  got, expected, w->ctx->error.argument ? w->ctx->error.argument : "none",
                  w->ctx->error.value, w->free_before, need);
    }
    w->exhausted++;
    return false;
}

/* --- Comparing -------------------------------------------------------------------------------- */

static void audit(struct world *w)
{
    struct audit_report report = {0};
    uint64_t bytes = audit_scratch_bytes(w->pool);

    if (bytes > w->scratch_bytes) {
        free(w->scratch);
        w->scratch = malloc(bytes);
        w->scratch_bytes = bytes;
    }
    memset(w->scratch, 0, bytes);
    enum cleave_status status = pool_audit(w->ctx, w->pool, w->scratch, bytes, &report);
    if (status != CLEAVE_OK || report.invariant != 0) {
        spec_fail(w,
                  "audit %u: I%u %s; space %u page 0x%" PRIx64 " level %u table 0x%x slot %u entry "
                  "0x%" PRIx64 ", expected %" PRIu64 " found %" PRIu64,
                  status, report.invariant, report.what ? report.what : "", report.space,
                  report.at.v, report.level, report.table.v, report.slot, report.entry,
                  report.expected, report.found);
    }
}

/* One page as the core itself says it. */
static void look(struct world *w, unsigned s, uint64_t at)
{
    struct mapping found;
    struct ref_page page = ref_page(w->ref, s, at);
    struct abs_page walk = abs_walk(w->space[s], at);
    enum cleave_status status = space_lookup(w->ctx, w->space[s], gfn_to_gpa(gfn(at)), &found);

    if (status != CLEAVE_OK || (found.kind == PTE_KIND_LEAF) != walk.present ||
        (found.kind == PTE_KIND_PAGED) != (walk.paged && !walk.parked) ||
        (found.kind == PTE_KIND_PARKED) != walk.parked ||
        (walk.present && (found.frame.v != walk.frame || found.level != walk.level ||
                          found.rights != walk.rights))) {
        spec_fail(w, "space %u page 0x%" PRIx64 ": lookup disagrees with the tables", s, at);
    }
    if (page.policy != REF_NONE && found.region.rights != page.rights) {
        spec_fail(w, "space %u page 0x%" PRIx64 ": lookup says other rights", s, at);
    }
}

static bool comparable(const struct world *w, unsigned s)
{
    enum ref_life life = w->ref->space[s].life;
    return (life == REF_ALIVE || life == REF_FROZEN) && !w->changing[s];
}

void spec_compare(struct world *w, bool everything)
{
    char text[ABS_TEXT];
    bool settled = true;

    for (unsigned s = 0; s < REF_SPACES; s++) {
        settled &= !w->changing[s];
        if (!comparable(w, s)) {
            continue;
        }
        uint64_t start = everything ? 0 : w->touched_start;
        uint64_t end = everything ? w->ref->pages : w->touched_end;
        if (!abs_compare(w->ref, s, w->space[s], start, end, text)) {
            spec_fail(w, "space %u: %s", s, text);
        }
        if (spec_chance(w, 4)) {
            look(w, s, spec_pick_page(w, s));
        }
    }
    if (settled) {
        spec_check_machine();
    }
    if (settled && (everything || w->step % AUDIT_STEPS == 0)) {
        audit(w);
    }
}

/* --- Running ---------------------------------------------------------------------------------- */

/* All operations. */
static const struct {
    const struct spec_op *ops;
    const unsigned *count;
} groups[] = {{ops_space, &ops_space_count},
              {ops_bytes, &ops_bytes_count},
              {ops_fork, &ops_fork_count},
              {ops_notify, &ops_notify_count},
              {ops_hold, &ops_hold_count}};
#define GROUPS (sizeof(groups) / sizeof(groups[0]))

static unsigned weight_of(const struct spec_op *op)
{
    const char *only = spec_only;
    size_t length = strlen(op->name);

    for (const char *at = only; at && (at = strstr(at, op->name)); at += length) {
        if ((at == only || at[-1] == ',') && (at[length] == ',' || at[length] == '\0')) {
            return op->weight;
        }
    }
    return !only && op->enabled ? op->weight : 0;
}

static void run_op(struct world *w)
{
    static const struct spec_op *deck[400];
    static unsigned cards;

    if (cards == 0) {
        for (unsigned g = 0; g < GROUPS; g++) {
            for (unsigned i = 0; i < *groups[g].count; i++) {
                for (unsigned n = weight_of(&groups[g].ops[i]); n > 0; n--) {
                    deck[cards++] = &groups[g].ops[i];
                }
            }
        }
    }
    const struct spec_op *op = deck[spec_below(w, cards)];
    w->lines++;
    spec_say(w, "%s", op->name);
    w->owner = NULL;
    op->run(w);
}

void spec_preempted(struct world *w, unsigned space)
{
    /* Of memory that is no longer shared throughout the reference knows nothing. */
    const struct space *stopped = w->space[space];
    bool parts = stopped->op == OP_REGION && stopped->op_phase == PHASE_CONVERT;
    if (spec_chance(w, w->shard->ragged ? 2 : 4) && !w->nested && !parts && ops_dirty_agrees(w)) {
        bool injected = spec_injected(w);
        uint64_t free_before = w->free_before;
        const struct space *owner = w->owner;
        /* Where nothing is to be seen of it, others go on in that space as if it had not begun, but
         * for what is refused. */
        bool hidden = w->space[space]->op >= OP_REGION;
        w->stopped = hidden ? w->space[space] : NULL;
        w->changing[space] = !hidden;
        w->nested = true;
        w->ctx->budget = UINT64_MAX;
        run_op(w);
        spec_compare(w, WINDOW_PAGES < 4096);
        w->nested = false;
        w->stopped = NULL;
        w->changing[space] = false;
        w->injected = injected;
        w->owner = owner;
        w->free_before = free_before < spec_free(w) ? free_before : spec_free(w);
    }
}

void spec_woken(struct world *w, const struct vcpu_wait *wait)
{
    for (unsigned cpu = 1; cpu < SPEC_VCPUS; cpu++) {
        if (wait == &w->vcpu[cpu].wait) {
            w->vcpu[cpu].waiting = false;
        }
    }
}

void spec_begin(struct world *w, const struct spec_shard *shard, uint64_t seed)
{
    *w = (struct world){.shard = shard, .seed = seed, .random = seed};
    uint64_t blocks =
        shard->least_blocks + spec_below(w, shard->most_blocks - shard->least_blocks + 1);

    spec_start_machine(w, blocks);
    for (unsigned cpu = 0; cpu < SPEC_VCPUS; cpu++) {
        w->vcpu[cpu].space = REF_SPACES;
        w->vcpu[cpu].wait.vcpu = cpu;
    }
    w->pool_free = w->pool->free;
    w->ref = ref_new(PAGE_SIZE, KEPT_BYTES, GUEST_PAGES, WINDOW_PAGES, LEVEL_BITS);
}

static void note_size(struct world *w, uint64_t before)
{
    w->pool_free += w->pool->frames - before;
    w->resized += w->pool->frames != before;
    spec_say(w, "pool of %" PRIu64 " blocks", w->pool->frames / level_pages(1));
}

/* The pool gets another size, or is refused it and told which it can have: that one, and none below
 * it. With numbers of its own, so that the other steps stay as they are. */
static void resize_pool(struct world *w)
{
    uint64_t random = ~w->random, block = level_pages(1), before = w->pool->frames;
    uint64_t frames = (1 + test_random(&random) % w->shard->most_blocks) * block;
    bool shrinks = frames < before;

    w->lines++;
    enum cleave_status status = pool_resize(w->ctx, w->pool, frames);
    if (status == CLEAVE_BUSY && shrinks) {
        uint64_t least = w->ctx->error.low;
        if (least <= frames || least > before ||
            pool_resize(w->ctx, w->pool, least - block) != CLEAVE_BUSY ||
            w->ctx->error.low != least) {
            spec_fail(w, "of %" PRIu64 " frames, %" PRIu64 " are refused, and %" PRIu64 " told",
                      before, frames, least);
        }
        frames = least;
        status = pool_resize(w->ctx, w->pool, frames);
    }
    if (status != CLEAVE_OK || w->pool->frames != frames) {
        spec_fail(w, "status %u, %" PRIu64 " frames, not %" PRIu64, status, w->pool->frames,
                  frames);
    }
    note_size(w, before);
    audit(w);
}

void spec_step(struct world *w, unsigned whole)
{
    w->random = w->seed ^ w->step * UINT64_C(0xd1342543de82ef95);
    w->random = test_random(&w->random);
    w->touched_start = w->touched_end = 0;
    w->ctx->budget = UINT64_MAX;
    if (w->shard->resize != 0 && w->step % w->shard->resize == 0) {
        resize_pool(w);
    }
    run_op(w);
    spec_compare(w, w->step % whole == 0);
}

void spec_finish(struct world *w)
{
    host_fail_allocation(0);
    w->lines++;
    spec_say(w, "the end");
    spec_end(w);
    audit(w);
    /* Pages of account records stay. */
    uint64_t records = PAGE_SIZE / sizeof(struct account);
    uint64_t expected = w->pool_free - (w->pool->accounts + records - 1) / records;
    if (w->pool->free != expected) {
        spec_fail(w, "%" PRIu64 " frames are free at the end, not %" PRIu64, w->pool->free,
                  expected);
    }
    ref_free(w->ref);
    free(w->scratch);
    spec_stop_machine();
}
