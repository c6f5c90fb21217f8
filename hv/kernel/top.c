/* SPDX-License-Identifier: BSD-2-Clause */
/* The live table; see top.h. Everything is CPU 0's. */
#include "top.h"

#include "format.h"

#include "sched.h"
#include "stat.h"
#include "tenant.h"
#include "terminal.h"

#define STEP_NS UINT64_C(1000000)
#define STEP_BUDGET 64u /* leaves between two looks at the clock */
#define NAME_WIDTH 14u

struct row {
    uint32_t id, parent, state, vcpus;
    char name[NAME_WIDTH + 1];
    uint64_t faults, copied, alone, shared; /* bytes */
    uint64_t mapped[LEAF_ORDERS];
};

static struct {
    uint64_t period; /* ticks; 0: there is no table */
    uint64_t start;  /* TSC when the first was due */
    uint64_t due;    /* TSC from when on the next is made */
    bool terminal, pending;
    unsigned height; /* lines at the top of the terminal that are the table's */
    uint32_t done;   /* the row of this domain and those of lower ids are made */
    unsigned rows, others, pools;
    struct row row[TOP_ROWS];
    struct stat_walk walk; /* of the domain behind `done` */
} top;

void top_start(uint64_t seconds, bool terminal)
{
    top.period = ns_to_tsc(seconds * UINT64_C(1000000000));
    top.start = read_tsc();
    top.due = top.start + top.period;
    top.terminal = terminal;
}

bool top_pending(void) { return top.pending; }

/* --- Collecting ------------------------------------------------------------------------------- */

static void add_row(const struct cleave_stat *stat)
{
    struct row *row = &top.row[top.rows++];
    *row = (struct row){.id = stat->domain,
                        .parent = stat->parent,
                        .state = stat->state,
                        .vcpus = stat->vcpus,
                        .faults = stat->faults,
                        .copied = stat->copied,
                        .alone = stat->exclusive,
                        .shared = stat->shared};
    __builtin_memcpy(row->name, stat->name, NAME_WIDTH);
    __builtin_memcpy(row->mapped, stat->mapped, sizeof(row->mapped));
}

/* A part of the next domain's walk. */
static void step(struct mm_ctx *ctx, struct domain *domain)
{
    struct cleave_stat stat;
    if (top.rows == TOP_ROWS) {
        top.others++;
        top.done = domain->id;
        return;
    }
    domain_hold(ctx, domain);
    ctx->budget = STEP_BUDGET;
    bool gone = domain->space == NULL; /* destroyed, while a child names it */
    enum cleave_status status = gone ? CLEAVE_OK : stat_domain(ctx, domain, &top.walk, &stat);
    ctx->budget = UINT64_MAX;
    klock_release(&domain->busy);
    if (status == CLEAVE_AGAIN) {
        return;
    }
    if (status == CLEAVE_OK && !gone) {
        add_row(&stat);
    }
    top.done = domain->id;
}

/* True when every domain was come to. */
static bool collect(struct mm_ctx *ctx)
{
    uint64_t began = read_tsc();
    do {
        struct domain *domain = domain_next(top.done);
        if (domain == NULL) {
            return true;
        }
        step(ctx, domain);
        domain_put(ctx, domain);
    } while (read_tsc() - began < ns_to_tsc(STEP_NS));
    return false;
}

/* --- Drawing ---------------------------------------------------------------------------------- */

static char text[4096]; /* goes to the console at once, so that nothing comes between its lines */
static uint64_t used;
static unsigned line;

static void put(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void put(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    uint64_t room = sizeof(text) - used;
    int length = format_text_list(text + used, room, format, arguments);
    used += (uint64_t)length < room ? (uint64_t)length : room - 1;
    va_end(arguments);
}

/* On a terminal each line has its place. */
static void begin_line(void)
{
    if (top.terminal) {
        put("\033[%u;1H", ++line);
    }
}
static void end_line(void) { put(top.terminal ? "\033[K" : "\n"); }

/* Bytes as MiB with one digit behind the point, for "%lu.%lu". */
#define MIB(bytes) ((bytes)*10 >> 20) / 10, ((bytes)*10 >> 20) % 10

static void put_row(const struct row *row)
{
    static const char *const states[] = {"?", "runs", "paused", "starved", "frozen", "ended"};
    uint64_t all = row->mapped[0] + row->mapped[1] + row->mapped[2];
    all = all != 0 ? all : 1;
    begin_line();
    put("%5u %6u %-14s %-7s %5u %8lu %7lu.%lu%7lu.%lu%7lu.%lu%7lu%%%6lu%%", row->id, row->parent,
        row->name, states[row->state], row->vcpus, row->faults, MIB(row->copied), MIB(row->alone),
        MIB(row->shared), row->mapped[1] * 100 / all, row->mapped[2] * 100 / all);
    end_line();
}

static void put_pool(const struct tenant_info *pool)
{
    begin_line();
    put("pool %s: %lu.%lu MiB, %lu.%lu free, %lu.%lu reserved", pool->name,
        MIB(pool->frames << PAGE_SHIFT), MIB(pool->free << PAGE_SHIFT),
        MIB(pool->reserved << PAGE_SHIFT));
    end_line();
}

static void put_lines(void)
{
    struct tenant_info pool;

    begin_line();
    put("--- %lu s: %u domains", tsc_to_ns(read_tsc() - top.start) / UINT64_C(1000000000),
        top.rows + top.others);
    if (top.others != 0) {
        put(", %u not shown", top.others);
    }
    end_line();
    begin_line();
    put("   id parent name           state   vcpus   faults   copied    alone   shared   2 MiB  1 "
        "GiB");
    end_line();
    for (unsigned i = 0; i < top.rows; i++) {
        put_row(&top.row[i]);
    }
    for (unsigned i = 0, lines = 0; i < TENANTS_MAX && lines < top.pools; i++) {
        if (tenant_look(i, &pool)) {
            put_pool(&pool);
            lines++;
        }
    }
    begin_line();
    put("---");
    end_line();
}

/* Makes room for more lines: what is on the screen scrolls up, and stays there when there is room
 * for both. */
static void grow(unsigned height)
{
    put("\033[999;1H");
    for (; top.height < height; top.height++) {
        put("\n");
    }
}

static unsigned count_tenants(void)
{
    struct tenant_info pool;
    unsigned count = 0;
    for (unsigned i = 0; i < TENANTS_MAX; i++) {
        count += tenant_look(i, &pool);
    }
    return count;
}

static void draw(void)
{
    top.pools = count_tenants();
    unsigned height = 3 + top.rows + top.pools;
    used = 0;
    line = 0;
    if (!top.terminal) {
        terminal_end_line();
        put_lines();
        console_write(text, used);
        return;
    }
    if (height > top.height) {
        terminal_end_line();
        grow(height);
    }
    put("\0337"); /* the cursor is kept, and given back */
    put_lines();
    while (line < top.height) {
        begin_line();
        end_line();
    }
    put("\033[%ur\0338", top.height + 1);
    console_write(text, used);
}

/* --- From outside ----------------------------------------------------------------------------- */

static void begin(void)
{
    top.pending = true;
    top.done = 0;
    top.rows = top.others = 0;
    top.walk = (struct stat_walk){.domain = 0};
}

void top_poll(struct mm_ctx *ctx)
{
    if (top.period == 0 || read_tsc() < top.due) {
        return;
    }
    if (!top.pending) {
        begin();
    }
    if (collect(ctx)) {
        draw();
        top.pending = false;
        top.due = read_tsc() + top.period;
    }
}

void top_finish(struct mm_ctx *ctx)
{
    if (top.period == 0) {
        return;
    }
    begin();
    top.due = read_tsc();
    while (!collect(ctx)) {
        world_rest(ctx); /* guests still run */
        port_relax(ctx);
    }
    draw();
    top.pending = false;
}

void top_close(void)
{
    if (top.terminal && top.height != 0) {
        print("\0337\033[r\0338");
        top.terminal = false;
    }
}
