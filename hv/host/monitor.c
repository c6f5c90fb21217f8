/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The protocol monitor: a log of what the core did in which order, the checks at the points where a
 * reference is dropped and a frame freed, and the poison in freed frames. The log may be appended
 * to by several threads; it is read when they stand still.
 */
#include "model.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "frame.h"

#define LOG_SIZE UINT64_C(16384)

static struct host_record records[LOG_SIZE];
static uint64_t recorded; /* since the log was cleared */

static struct {
    host_point_t *fn;
    void *arg;
    bool inside;
    struct {
        const struct space *space; /* of the last batch on this CPU */
        uint64_t drops;            /* that are still to come from it */
    } batch[MM_MAX_CPUS];
} monitor;

static const char *const event_names[HOST_EVENTS] = {
    [POINT_ENTRY] = "entry",
    [POINT_COPY] = "copy-begins",
    [POINT_COPIED] = "copy-ended",
    [POINT_SPLIT_RAISED] = "split-raised",
    [POINT_MERGE_RAISED] = "merge-raised",
    [POINT_SPREAD] = "spread",
    [POINT_TABLE_COPIED] = "table-copied",
    [POINT_FLUSH] = "flush-begins",
    [POINT_FLUSHED] = "flush-ended",
    [POINT_DROP] = "drop",
    [POINT_FREE] = "free",
    [POINT_OWNER] = "owner",
    [POINT_RELOCK] = "relock",
    [POINT_PREEMPT] = "preempt",
    [HOST_FLUSH] = "local-flush",
    [HOST_KICK] = "kick",
    [HOST_ACKNOWLEDGE] = "acknowledge",
    [HOST_ENTER] = "enter",
    [HOST_LEAVE] = "leave",
    [HOST_COPY] = "copy",
    [HOST_ZERO] = "zero",
    [HOST_FAULT] = "fault",
    [HOST_STALE] = "stale-access",
    [HOST_WAKE] = "wake",
    [HOST_STARVED] = "starved",
};

/* --- Log -------------------------------------------------------------------------------------- */

void monitor_record(unsigned kind, unsigned cpu, uint64_t a, uint64_t b)
{
    if (host.log) {
        uint64_t at = __atomic_fetch_add(&recorded, 1, __ATOMIC_RELAXED);
        records[at % LOG_SIZE] = (struct host_record){kind, cpu, a, b};
    }
}

void monitor_reset(void)
{
    memset(monitor.batch, 0, sizeof(monitor.batch));
    monitor.inside = false;
    recorded = 0;
}

void host_log_enable(bool on) { host.log = on; }
void host_log_clear(void) { recorded = 0; }
uint64_t host_log_length(void) { return recorded < LOG_SIZE ? recorded : LOG_SIZE; }

struct host_record host_log_at(uint64_t position)
{
    uint64_t first = recorded < LOG_SIZE ? 0 : recorded - LOG_SIZE;
    return records[(first + position) % LOG_SIZE];
}

uint64_t host_log_find(unsigned kind, uint64_t from)
{
    for (uint64_t i = from; i < host_log_length(); i++) {
        if (host_log_at(i).kind == kind) {
            return i;
        }
    }
    return HOST_LOG_NONE;
}

uint64_t host_log_count(unsigned kind)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < host_log_length(); i++) {
        count += host_log_at(i).kind == kind;
    }
    return count;
}

bool host_log_ordered(unsigned first, unsigned second)
{
    uint64_t last = HOST_LOG_NONE;
    uint64_t begin = host_log_find(second, 0);

    for (uint64_t i = host_log_find(first, 0); i != HOST_LOG_NONE;
         i = host_log_find(first, i + 1)) {
        last = i;
    }
    return last != HOST_LOG_NONE && begin != HOST_LOG_NONE && last < begin;
}

void host_log_print(uint64_t last)
{
    uint64_t length = host_log_length();

    for (uint64_t i = length > last ? length - last : 0; i < length; i++) {
        struct host_record r = host_log_at(i);
        fprintf(stderr, "  log %6" PRIu64 "  cpu %3d  %-14s %#" PRIx64 " %#" PRIx64 "\n", i,
                (int)r.cpu, r.kind < HOST_EVENTS ? event_names[r.kind] : "?", r.a, r.b);
    }
}

/* --- Points ----------------------------------------------------------------------------------- */

void host_poison(bool on) { host.poison = on; }

void host_on_point(host_point_t *fn, void *arg)
{
    monitor.fn = fn;
    monitor.arg = arg;
}

#ifdef MM_HOOKS
/* Pages that were never touched are zeros for whoever reads them and stay untouched. */
static void poison_frames(uint64_t frame, uint64_t pages)
{
    static const uint64_t kernel_page = 4096;
    unsigned char resident[512];
    unsigned char *at = machine.direct_map + (frame << PAGE_SHIFT);
    uint64_t bytes = pages << PAGE_SHIFT;

    if (bytes <= kernel_page) {
        memset(at, HOST_POISON, bytes);
        return;
    }
    uintptr_t start = (uintptr_t)at & ~(uintptr_t)(kernel_page - 1);
    uint64_t span = ((uintptr_t)at + bytes - start + kernel_page - 1) / kernel_page;
    if (span > sizeof(resident) || mincore((void *)start, span * kernel_page, resident) != 0) {
        return;
    }
    for (uint64_t done = 0; done < bytes; done += PAGE_SIZE) {
        if (resident[((uintptr_t)at + done - start) / kernel_page] & 1) {
            memset(at + done, HOST_POISON, PAGE_SIZE);
        }
    }
}

/* A reference that is dropped outside a batch is nobody's translation any more; that holds for
 * every space as long as no other operation stands between its change and its flush. */
static void check_drop(const struct mm_ctx *ctx, uint64_t frame, uint64_t b)
{
    bool table = (b & 0xff) == HOST_TABLE;
    uint64_t parts = b >> 8 ? b >> 8 : 1;
    struct tlb_gone gone = {.frame = frame,
                            .pages = table ? 1 : parts * level_pages((unsigned)(b & 0xff)),
                            .table = table,
                            .dropped = true};

    if (monitor.batch[ctx->cpu].drops > 0) {
        monitor.batch[ctx->cpu].drops--;
        gone.space = monitor.batch[ctx->cpu].space;
    } else if (sched_active() || monitor.inside || host_threads() > 1) {
        return;
    }
    if (host.tlb) {
        tlb_check_gone(ctx, &gone);
    }
}

static void check_free(const struct mm_ctx *ctx, uint64_t frame, uint64_t b)
{
    uint64_t pages = (b >> 8 ? b >> 8 : 1) * level_pages((unsigned)(b & 0xff));
    struct tlb_gone gone = {.frame = frame, .pages = pages};

    if (host.tlb) {
        tlb_check_gone(ctx, &gone);
        gone.table = true;
        tlb_check_gone(ctx, &gone);
    }
    if (host.poison && pages <= level_pages(1)) {
        poison_frames(frame, pages);
    }
}

static void check_point(const struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b)
{
    switch (point) {
    case POINT_ENTRY:
        if (host.tlb) {
            tlb_speculate();
        }
        break;
    case POINT_FLUSHED:
        monitor.batch[ctx->cpu].space = (const struct space *)(uintptr_t)a;
        monitor.batch[ctx->cpu].drops = b;
        break;
    case POINT_DROP:
        check_drop(ctx, a, b);
        break;
    case POINT_FREE:
        check_free(ctx, a, b);
        break;
    case POINT_FLUSH:
    case POINT_COPY:
    case POINT_COPIED:
    case POINT_SPLIT_RAISED:
    case POINT_MERGE_RAISED:
    case POINT_SPREAD:
    case POINT_TABLE_COPIED:
    case POINT_OWNER:
    case POINT_RELOCK:
    case POINT_PREEMPT:
    case POINT_END:
        break;
    }
}

void port_point(struct mm_ctx *ctx, enum port_point point, uint64_t a, uint64_t b)
{
    monitor_record(point, ctx->cpu, a, b);
    if (monitor.fn && !monitor.inside) {
        monitor.inside = true;
        monitor.fn(ctx, point, a, b, monitor.arg);
        monitor.inside = false;
    }
    if (sched_active()) {
        sched_point(point);
    }
    /* Last: what a CPU reads ahead is the entry as it is when the change comes. */
    check_point(ctx, point, a, b);
}
#endif
