/* SPDX-License-Identifier: BSD-2-Clause */
/* Statistics; see stat.h. Counters are atomic. */
#include "stat.h"

static uint64_t fork_ns[32], fault_ns[32], still_ns[32];
static uint32_t worst;
static unsigned ended;

static void note(uint64_t histogram[32], uint64_t ns)
{
    unsigned bucket = 63u - (unsigned)__builtin_clzll(ns | 1);
    bucket = bucket < 31 ? bucket : 31;
    __atomic_fetch_add(&histogram[bucket], 1, __ATOMIC_RELAXED);
}

void stat_fork(uint64_t ticks) { note(fork_ns, tsc_to_ns(ticks)); }
void stat_fault(uint64_t ticks) { note(fault_ns, tsc_to_ns(ticks)); }
void stat_stood_still(uint64_t ns) { note(still_ns, ns); }

const char *stat_reason(uint32_t reason)
{
    switch ((enum cleave_reason)reason) {
    case CLEAVE_RUNNING:
        return "is running";
    case CLEAVE_EXITED:
        return "exited";
    case CLEAVE_HALTED:
        return "halted with interrupts off";
    case CLEAVE_TRIPLE_FAULT:
        return "triple fault";
    case CLEAVE_BAD_ACCESS:
        return "access that its memory map does not allow";
    case CLEAVE_UNKNOWN_EXIT:
        return "unknown exit";
    case CLEAVE_ENTRY_FAILED:
        return "the CPU refused its state";
    case CLEAVE_DESTROYED:
        return "destroyed";
    case CLEAVE_POWERED_OFF:
        return "powered off";
    case CLEAVE_REBOOTED:
        return "rebooted";
    case CLEAVE_SUSPENDED:
        return "suspended itself";
    case CLEAVE_GUEST_CRASHED:
        return "crashed";
    case CLEAVE_REASONS:
        break;
    }
    return "?";
}

void stat_ended(const struct domain *domain)
{
    if (!domain->at_boot) {
        return;
    }
    bool ended_well = domain->reason == CLEAVE_EXITED || domain->reason == CLEAVE_POWERED_OFF ||
                      domain->reason == CLEAVE_REBOOTED;
    uint32_t code = ended_well && domain->code < STAT_CODE_LOST ? domain->code : STAT_CODE_LOST;
    print("domain %u %s: %s, code %u\n", domain->id, domain->name, stat_reason(domain->reason),
          domain->code);
    if (code > __atomic_load_n(&worst, __ATOMIC_RELAXED)) {
        __atomic_store_n(&worst, code, __ATOMIC_RELAXED);
    }
    __atomic_fetch_add(&ended, 1, __ATOMIC_RELEASE);
}

unsigned stat_ended_at_boot(void) { return __atomic_load_n(&ended, __ATOMIC_ACQUIRE); }

uint32_t stat_worst(void) { return __atomic_load_n(&worst, __ATOMIC_RELAXED); }

uint32_t stat_state(const struct domain *domain)
{
    if (domain->state != CLEAVE_STATE_RUNNING) {
        return domain->state;
    }
    if (domain->paused != 0) {
        return CLEAVE_STATE_PAUSED;
    }
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        const struct vcpu *vcpu = domain->vcpu[i];
        if (vcpu->state == VCPU_BLOCKED &&
            (vcpu->sleep == SLEEP_QUOTA ||
             (vcpu->sleep == SLEEP_CORE && vcpu->wait.kind == WAIT_MEMORY))) {
            return CLEAVE_STATE_STARVED;
        }
    }
    return CLEAVE_STATE_RUNNING;
}

void stat_mark(struct stat_mark *mark)
{
    *mark = (struct stat_mark){.tsc = read_tsc()};
    for (unsigned i = 0; i < boot_info.cpus; i++) {
        mark->copied += cpu_at(i)->words_copied * 8 >> PAGE_SHIFT;
        mark->zeroed += cpu_at(i)->words_zeroed * 8 >> PAGE_SHIFT;
    }
}

void stat_start(struct domain *domain)
{
    struct stat_mark now;
    if (domain->vcpu[0]->hvm.regs.rip != domain->start_at) {
        domain->starts = 0;
        return;
    }
    stat_mark(&now);
    domain->start.tsc = now.tsc - domain->asked.tsc;
    domain->start.copied = now.copied - domain->asked.copied;
    domain->start.zeroed = now.zeroed - domain->asked.zeroed;
    if (domain->entry.tsc == 0) {
        domain->entry = domain->start;
    }
}

/* The machine's counters are read before anything else: while the walk is stopped other vcpus run,
 * and whoever asks before and after an operation of its own wants to know about that alone. */
static void begin_walk(struct stat_walk *walk, const struct domain *domain)
{
    *walk = (struct stat_walk){.domain = domain->id};
    for (unsigned i = 0; i < boot_info.cpus; i++) {
        walk->copied += cpu_at(i)->words_copied * 8;
        walk->zeroed += cpu_at(i)->words_zeroed * 8;
    }
}

static void put_mark(const struct stat_mark *mark, uint32_t *ticks, uint16_t *copied,
                     uint16_t *zeroed)
{
    *ticks = mark->tsc < UINT32_MAX ? (uint32_t)mark->tsc : UINT32_MAX;
    *copied = mark->copied < UINT16_MAX ? (uint16_t)mark->copied : UINT16_MAX;
    *zeroed = mark->zeroed < UINT16_MAX ? (uint16_t)mark->zeroed : UINT16_MAX;
}

enum cleave_status stat_domain(struct mm_ctx *ctx, struct domain *domain, struct stat_walk *walk,
                               struct cleave_stat *stat)
{
    struct space *space = domain->space;
    struct pool *pool = domain->pool;

    *stat = (struct cleave_stat){.domain = domain->id,
                                 .state = stat_state(domain),
                                 .parent = domain->parent != NULL ? domain->parent->id : 0,
                                 .vcpus = domain->vcpu_count};
    __builtin_memcpy(stat->name, domain->name, sizeof(stat->name));
    stat->pool_free = pool->free << PAGE_SHIFT;
    stat->pool_reserved = pool->reserved << PAGE_SHIFT;
    stat->pool_size = pool->frames << PAGE_SHIFT;
    for (unsigned i = 0; i < 32; i++) {
        stat->fork_ns[i] = fork_ns[i];
        stat->fault_ns[i] = fault_ns[i];
        stat->still_ns[i] = still_ns[i];
    }
    if (walk->domain != domain->id) {
        begin_walk(walk, domain);
    }
    stat->hv_copied = walk->copied;
    stat->hv_zeroed = walk->zeroed;
    put_mark(&domain->start, &stat->start_ticks, &stat->start_copied, &stat->start_zeroed);
    put_mark(&domain->entry, &stat->entry_ticks, &stat->entry_copied, &stat->entry_zeroed);
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        stat->exits += domain->vcpu[i]->exits;
        stat->hypercalls += domain->vcpu[i]->hypercalls;
    }
    if (space == NULL || space->state == SPACE_DYING || space->state == SPACE_DEAD) {
        walk->domain = 0;
        return CLEAVE_OK;
    }
    enum cleave_status status = space_usage(ctx, space, &walk->at, &walk->usage);
    if (status == CLEAVE_AGAIN) {
        return status;
    }
    struct space_usage usage = walk->usage;
    walk->domain = 0;
    if (status != CLEAVE_OK) {
        return status;
    }
    stat->charged = account_of(pool, space->payer.account)->charged << PAGE_SHIFT;
    stat->exclusive = usage.exclusive;
    stat->shared = usage.shared;
    for (unsigned i = 0; i < LEAF_ORDERS; i++) {
        stat->mapped[i] = usage.mapped[i];
    }
    stat->faults = space->stats.faults;
    stat->copied = (space->stats.pages_copied << PAGE_SHIFT) +
                   (space->stats.blocks_copied << (PAGE_SHIFT + LEVEL_BITS));
    stat->zeroed = space->stats.zeroed << PAGE_SHIFT;
    stat->tables_copied = space->stats.tables_copied;
    stat->blocks_split = space->stats.blocks_split + space->stats.gigas_split;
    stat->reused = space->stats.reused;
    stat->collapsed = space->stats.collapsed;
    stat->stood_still = space->stats.stood_still;
    return CLEAVE_OK;
}
