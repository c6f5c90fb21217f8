/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The model TLB of each simulated CPU. What a CPU may remember is kept per root table as paths:
 * what one entry was read to say, with the rights of the whole walk down to it, as paging-structure
 * caches and TLBs keep them (SDM 3C 29.4.2; APM 2 15.25.8). Under the model lock.
 */
#include "model.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"

#define BUCKETS 256u
#define TAG_LISTS 64u
#define RECENT 16u

struct path {
    uint64_t prefix; /* page number >> level bits */
    uint32_t target; /* frame of the leaf, or of the table of level - 1 */
    uint32_t next;   /* in its bucket: index + 1 */
    pte_t *slot;     /* where it was read */
    uint8_t level;
    uint8_t rights; /* AND over the levels of the walk that read it */
    bool leaf;
};

/* All paths of one CPU under one root. */
struct tag {
    struct tag *next;
    struct space *space; /* that was last run with this root */
    uint32_t root;
    uint32_t count, room;
    struct path *path;
    uint32_t bucket[BUCKETS]; /* index + 1 */
};

static struct cpu {
    struct tag *tags[TAG_LISTS];
    struct tag *running;
    uint64_t recent[RECENT]; /* page + 1 */
    unsigned recent_next;
} cpus[MM_MAX_CPUS];

static pthread_mutex_t lock;
static pthread_once_t lock_once = PTHREAD_ONCE_INIT;

static void lock_init(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &attributes);
}

void model_lock(void)
{
    pthread_once(&lock_once, lock_init);
    pthread_mutex_lock(&lock);
}

void model_unlock(void) { pthread_mutex_unlock(&lock); }

void tlb_reset(void)
{
    for (unsigned i = 0; i < MM_MAX_CPUS; i++) {
        for (unsigned l = 0; l < TAG_LISTS; l++) {
            while (cpus[i].tags[l]) {
                struct tag *tag = cpus[i].tags[l];
                cpus[i].tags[l] = tag->next;
                free(tag->path);
                free(tag);
            }
        }
        memset(&cpus[i], 0, sizeof(cpus[i]));
    }
}

static struct tag *tag_find(unsigned cpu, uint32_t root, bool make)
{
    struct tag **list = &cpus[cpu].tags[root % TAG_LISTS];
    struct tag *tag = *list;

    while (tag && tag->root != root) {
        tag = tag->next;
    }
    if (!tag && make) {
        tag = calloc(1, sizeof(*tag));
        if (!tag) {
            abort();
        }
        tag->root = root;
        tag->next = *list;
        *list = tag;
    }
    return tag;
}

static unsigned bucket_of(unsigned level, uint64_t prefix)
{
    return (unsigned)((prefix * UINT64_C(0x9e3779b97f4a7c15) >> 40) + level * 61) % BUCKETS;
}

static void tag_insert(struct tag *tag, const struct path *path)
{
    uint32_t *bucket = &tag->bucket[bucket_of(path->level, path->prefix)];

    for (uint32_t i = *bucket; i != 0; i = tag->path[i - 1].next) {
        const struct path *p = &tag->path[i - 1];
        if (p->level == path->level && p->prefix == path->prefix && p->target == path->target &&
            p->rights == path->rights && p->leaf == path->leaf) {
            return;
        }
    }
    if (tag->count == tag->room) {
        tag->room = tag->room ? tag->room * 2 : 64;
        tag->path = realloc(tag->path, tag->room * sizeof(*tag->path));
        if (!tag->path) {
            abort();
        }
    }
    tag->path[tag->count] = *path;
    tag->path[tag->count].next = *bucket;
    *bucket = ++tag->count;
}

/* Forgets what lets `page` be translated without `right`: an access that a remembered translation
 * forbids makes the CPU walk again, and a fault invalidates all that was used (SDM 3C 29.4.3.1). */
static void tag_forget(struct tag *tag, uint64_t page, unsigned right)
{
    for (unsigned level = 0; level <= ROOT_LEVEL; level++) {
        uint64_t prefix = page >> (LEVEL_BITS * level);
        for (uint32_t i = tag->bucket[bucket_of(level, prefix)]; i != 0;) {
            struct path *p = &tag->path[i - 1];
            i = p->next;
            if (p->level == level && p->prefix == prefix && !(p->rights & right)) {
                p->prefix = UINT64_MAX; /* no page's; stays in its bucket */
            }
        }
    }
}

void tlb_flush(unsigned cpu, pfn_t root)
{
    model_lock();
    struct tag *tag = tag_find(cpu, root.v, false);
    if (tag) {
        tag->count = 0;
        memset(tag->bucket, 0, sizeof(tag->bucket));
    }
    model_unlock();
}

uint64_t host_tlb_entries(unsigned cpu, pfn_t root)
{
    const struct tag *tag = tag_find(cpu, root.v, false);
    return tag ? tag->count : 0;
}

/* Walks one step: reads the entry for `page` in `table` and remembers what it says. */
static void read_step(struct tag *tag, uint64_t table, unsigned level, uint64_t page,
                      unsigned rights)
{
    struct hw_entry e = hw_read(table, level, page);

    if (e.kind == HW_TABLE || e.kind == HW_LEAF) {
        struct path path = {.prefix = page >> (LEVEL_BITS * level),
                            .target = (uint32_t)e.frame,
                            .slot = hw_slot(table, level, page),
                            .level = (uint8_t)level,
                            .rights = (uint8_t)(rights & e.rights),
                            .leaf = e.kind == HW_LEAF};
        tag_insert(tag, &path);
    }
}

/* Reads every entry on every path to `page`, from the root and from each remembered table. */
static void tlb_fill(struct tag *tag, uint64_t page)
{
    read_step(tag, tag->root, ROOT_LEVEL, page, RIGHT_ALL);
    for (unsigned level = ROOT_LEVEL; level-- > 0;) {
        uint64_t prefix = page >> (LEVEL_BITS * (level + 1));
        uint32_t i = tag->bucket[bucket_of(level + 1, prefix)];
        while (i != 0) {
            struct path p = tag->path[i - 1];
            if (!p.leaf && p.level == level + 1 && p.prefix == prefix) {
                read_step(tag, p.target, level, page, p.rights);
            }
            i = p.next;
        }
    }
}

/* The same for every page of the guest: each table that can be reached, or is remembered. */
static void tlb_fill_all(struct tag *tag)
{
    for (uint64_t s = 0; s < TABLE_ENTRIES; s++) {
        read_step(tag, tag->root, ROOT_LEVEL, s << (LEVEL_BITS * ROOT_LEVEL), RIGHT_ALL);
    }
    /* The list grows behind us by what is found, and ends with the leaf level. */
    for (uint32_t i = 0; i < tag->count; i++) {
        struct path p = tag->path[i];
        for (uint64_t s = 0; !p.leaf && p.prefix != UINT64_MAX && s < TABLE_ENTRIES; s++) {
            unsigned level = p.level - 1u;
            read_step(tag, p.target, level, (p.prefix << LEVEL_BITS | s) << (LEVEL_BITS * level),
                      p.rights);
        }
    }
}

static void remember_page(struct cpu *cpu, uint64_t page)
{
    for (unsigned i = 0; i < RECENT; i++) {
        if (cpu->recent[i] == page + 1) {
            return;
        }
    }
    cpu->recent[cpu->recent_next++ % RECENT] = page + 1;
}

static void fill_recent(struct cpu *cpu)
{
    for (unsigned i = 0; i < RECENT; i++) {
        if (cpu->recent[i] != 0) {
            tlb_fill(cpu->running, cpu->recent[i] - 1);
        }
    }
}

void tlb_speculate(void)
{
    if (host.speculation == HOST_SPECULATE_NONE) {
        return;
    }
    model_lock();
    for (unsigned i = 0; i < machine.cpus; i++) {
        if (!cpus[i].running || flush_running(i) != cpus[i].running->space) {
            continue;
        }
        if (host.speculation == HOST_SPECULATE_ALL) {
            tlb_fill_all(cpus[i].running);
        } else {
            fill_recent(&cpus[i]);
        }
    }
    model_unlock();
}

void host_tlb_prefetch(unsigned cpu, gpa_t at)
{
    if (host.tlb && cpus[cpu].running && at.v >> PAGE_SHIFT < GUEST_PAGES) {
        model_lock();
        remember_page(&cpus[cpu], at.v >> PAGE_SHIFT);
        tlb_fill(cpus[cpu].running, at.v >> PAGE_SHIFT);
        model_unlock();
    }
}

void host_tlb_mode(enum host_tlb_mode mode) { host.mode = mode; }
void host_speculation(enum host_speculation what) { host.speculation = what; }

void host_enable_tlb(bool on)
{
    host.tlb = on;
    for (unsigned i = 0; on && i < machine.cpus; i++) {
        if (flush_running(i)) {
            cpus[i].running = tag_find(i, flush_running(i)->root.v, true);
            cpus[i].running->space = flush_running(i);
        }
    }
}

/* --- Checks ----------------------------------------------------------------------------------- */

/* True when `cpu` could use what it remembers under `tag` without a flush before. `here` is the CPU
 * that executes the core now: it flushes before it goes back to its guest if it is behind. */
static bool tag_usable(unsigned cpu, const struct tag *tag, unsigned here)
{
    const struct space *space = tag->space;
    bool current = space->seen[cpu] == __atomic_load_n(&space->generation, __ATOMIC_ACQUIRE);

    if (cpus[cpu].running == tag && flush_running(cpu) == space) {
        return cpu != here || current;
    }
    return space->state == SPACE_ALIVE && space->root.v == tag->root && current;
}

/* True when the tables give what `path` says, for the page at `page`. */
static bool path_lives(const struct tag *tag, const struct path *path, uint64_t page)
{
    if (path->leaf) {
        struct host_walk walk = host_walk(pfn(tag->root), gpa(page << PAGE_SHIFT));
        uint64_t frame = path->target + (page & (level_pages(path->level) - 1));
        return walk.present && walk.frame == frame;
    }
    uint64_t table = tag->root;
    for (unsigned level = ROOT_LEVEL; level >= path->level; level--) {
        struct hw_entry e = hw_read(table, level, page);
        if (e.kind != HW_TABLE) {
            return false;
        }
        table = e.frame;
    }
    return table == path->target;
}

/* Fails if `path` leads into what is gone. */
static void check_path(unsigned cpu, const struct tag *tag, const struct path *path,
                       const struct tlb_gone *gone)
{
    uint64_t span = path->leaf ? level_pages(path->level) : 1;

    if (path->prefix == UINT64_MAX || path->leaf == gone->table ||
        path->target >= gone->frame + gone->pages || gone->frame >= path->target + span) {
        return;
    }
    uint64_t offset = gone->frame > path->target ? gone->frame - path->target : 0;
    uint64_t page = (path->prefix << (LEVEL_BITS * path->level)) + offset;
    if (gone->dropped && path_lives(tag, path, page)) {
        return;
    }
    host_fail("%s before the flush: CPU %u may still use %s %#" PRIx64 " for page %#" PRIx64
              " (level %u, rights %u) of space %u, root %#x",
              gone->dropped ? "dropped" : "freed", cpu, gone->table ? "table" : "frame",
              path->target + offset, page, path->level, path->rights, tag->space->id, tag->root);
}

void tlb_check_gone(const struct mm_ctx *ctx, const struct tlb_gone *gone)
{
    model_lock();
    for (unsigned i = 0; i < machine.cpus; i++) {
        for (unsigned l = 0; l < TAG_LISTS; l++) {
            for (struct tag *tag = cpus[i].tags[l]; tag; tag = tag->next) {
                if (tag->count == 0 || !tag->space || (gone->space && tag->space != gone->space) ||
                    !tag_usable(i, tag, ctx->cpu)) {
                    continue;
                }
                for (uint32_t p = 0; p < tag->count; p++) {
                    check_path(i, tag, &tag->path[p], gone);
                }
            }
        }
    }
    model_unlock();
}

/* Every translation that `tag` allows for `page` must be one that the tables give. */
static void check_page(unsigned cpu, struct tag *tag, uint64_t page)
{
    struct host_walk walk = host_walk(pfn(tag->root), gpa(page << PAGE_SHIFT));

    tlb_fill(tag, page);
    for (unsigned level = 0; level < LEAF_ORDERS; level++) {
        uint64_t prefix = page >> (LEVEL_BITS * level);
        uint32_t i = tag->bucket[bucket_of(level, prefix)];
        for (; i != 0; i = tag->path[i - 1].next) {
            const struct path *p = &tag->path[i - 1];
            if (!p->leaf || p->level != level || p->prefix != prefix) {
                continue;
            }
            uint64_t frame = p->target + (page & (level_pages(level) - 1));
            if (!walk.present || walk.frame != frame || (p->rights & ~walk.rights)) {
                host_fail("stale translation: CPU %u of space %u may use frame %#" PRIx64
                          " with rights %u for page %#" PRIx64 "; the tables give %s %#" PRIx64
                          " with rights %u",
                          cpu, tag->space->id, frame, p->rights, page,
                          walk.present ? "frame" : "nothing", walk.frame, walk.rights);
            }
        }
    }
}

void host_tlb_check(void)
{
    if (!host.tlb) {
        return;
    }
    model_lock();
    for (unsigned i = 0; i < machine.cpus; i++) {
        for (unsigned l = 0; l < TAG_LISTS; l++) {
            for (struct tag *tag = cpus[i].tags[l]; tag; tag = tag->next) {
                for (unsigned r = 0; r < RECENT && tag->count > 0; r++) {
                    if (cpus[i].recent[r] != 0 && tag->space && tag_usable(i, tag, MM_MAX_CPUS)) {
                        check_page(i, tag, cpus[i].recent[r] - 1);
                    }
                }
            }
        }
    }
    model_unlock();
}

/* --- Translating ------------------------------------------------------------------------------ */

void tlb_load_root(unsigned cpu)
{
    struct space *space = flush_running(cpu);

    model_lock();
    cpus[cpu].running = NULL;
    if (host.tlb && space) {
        cpus[cpu].running = tag_find(cpu, space->root.v, true);
        cpus[cpu].running->space = space;
    }
    model_unlock();
}

/* Picks among what `tag` remembers for `page`. STALE: a path that lets the access through and is
 * not what the tables say. RANDOM: any, or none. Returns its index or -1. */
static int64_t pick_path(struct tag *tag, uint64_t page, unsigned right,
                         const struct host_walk *fresh)
{
    int64_t picked = -1;
    uint64_t seen = 1; /* the fresh walk is one candidate */

    for (unsigned level = 0; level < LEAF_ORDERS; level++) {
        uint64_t prefix = page >> (LEVEL_BITS * level);
        uint32_t i = tag->bucket[bucket_of(level, prefix)];
        for (; i != 0; i = tag->path[i - 1].next) {
            const struct path *p = &tag->path[i - 1];
            if (!p->leaf || p->level != level || p->prefix != prefix) {
                continue;
            }
            uint64_t frame = p->target + (page & (level_pages(level) - 1));
            bool stale = !fresh->present || fresh->frame != frame || !(fresh->rights & right);
            if (host.mode == HOST_TLB_STALE ? stale && (p->rights & right)
                                            : port_random() % ++seen == 0) {
                picked = i - 1;
            }
        }
    }
    return picked;
}

bool tlb_translate(unsigned cpu, uint64_t page, unsigned right, uint64_t *frame)
{
    struct tag *tag = host.tlb ? cpus[cpu].running : NULL;
    pfn_t root = tag ? pfn(tag->root) : flush_running(cpu)->root;
    int64_t index = -1;

    if (page >= GUEST_PAGES) {
        return false;
    }
    struct host_walk fresh = host_walk(root, gpa(page << PAGE_SHIFT));

    if (tag) {
        remember_page(&cpus[cpu], page);
        tlb_fill(tag, page);
        index = host.mode == HOST_TLB_FRESH ? -1 : pick_path(tag, page, right, &fresh);
    }
    if (index >= 0) {
        struct path p = tag->path[index];
        uint64_t offset = page & (level_pages(p.level) - 1);
        bool as_fresh = fresh.present && fresh.frame == p.target + offset;
        if (!(p.rights & right)) {
            tag_forget(tag, page, right);
            return false;
        }
        if (!as_fresh || !(fresh.rights & right)) {
            host_thread()->counters.stale++;
            monitor_record(HOST_STALE, cpu, page << PAGE_SHIFT, p.target + offset);
            hw_mark(p.slot, p.level, p.target, right == RIGHT_WRITE);
            *frame = p.target + offset;
            return true;
        }
    }
    bool passes = fresh.present && (fresh.rights & right);
    if (tag) {
        tag_forget(tag, page, right);
    }
    if (!passes) {
        return false;
    }
    hw_mark_walk(&fresh, right == RIGHT_WRITE);
    *frame = fresh.frame;
    return true;
}
