/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of domains, making and ending them; see domain.h. */
#include "domain.h"

#include "calls.h"
#include "grant.h"
#include "identity.h"
#include "pager.h"
#include "sched.h"
#include "stat.h"
#include "tenant.h"
#include "terminal.h"

/* An id that is held for a domain about to be made. */
#define HELD ((struct domain *)1)

#define NAME_BUCKETS 4096u

static struct {
    struct klock lock;
    struct ids ids;
    struct domain *domain[DOMAIN_ID_MAX + 1];
    struct domain *named[NAME_BUCKETS]; /* by bucket_of(name), linked by next_named */
} table;

/* --- Objects ---------------------------------------------------------------------------------- */

enum cleave_status object_alloc(struct mm_ctx *ctx, struct payer *payer, pfn_t *out)
{
    enum cleave_status status = pool_alloc(ctx, payer, 0, FRAME_OBJECT, out);
    if (status == CLEAVE_OK) {
        port_zero_pages(frame_address(*out), 1);
    }
    return status;
}

void object_free(struct mm_ctx *ctx, pfn_t f)
{
    if (f.v != 0) {
        bool last = node_put(ctx, f);
        MM_CHECK(last);
        pool_free(ctx, f, 0);
    }
}

pfn_t object_frame(const void *object)
{
    return pfn((uint32_t)(((const unsigned char *)object - machine.direct_map) >> PAGE_SHIFT));
}

/* --- Table ------------------------------------------------------------------------------------ */

static void forget_id(uint32_t id)
{
    table.domain[id] = NULL;
    ids_drop(&table.ids, id);
}

static bool is_domain(const struct domain *entry) { return entry != NULL && entry != HELD; }

struct domain *domain_get(uint32_t id)
{
    struct domain *domain = NULL;
    if (id == 0 || id > DOMAIN_ID_MAX) {
        return NULL;
    }
    klock_take(&table.lock);
    if (is_domain(table.domain[id])) {
        domain = table.domain[id];
        domain->references++;
    }
    klock_release(&table.lock);
    return domain;
}

struct domain *domain_next(uint32_t id)
{
    struct domain *domain = NULL;
    klock_take(&table.lock);
    while (domain == NULL && (id = ids_next(&table.ids, id)) != 0) {
        if (is_domain(table.domain[id])) {
            domain = table.domain[id];
            domain->references++;
        }
    }
    klock_release(&table.lock);
    return domain;
}

struct space *domain_use(struct domain *domain)
{
    klock_take(&table.lock);
    struct space *space = domain->going ? NULL : domain->space;
    domain->users += space != NULL;
    klock_release(&table.lock);
    return space;
}

void domain_unuse(struct domain *domain)
{
    klock_take(&table.lock);
    domain->users--;
    klock_release(&table.lock);
}

bool domain_close(struct domain *domain)
{
    klock_take(&table.lock);
    domain->going = 1;
    bool unused = domain->users == 0;
    klock_release(&table.lock);
    return unused;
}

void domain_reopen(struct domain *domain)
{
    klock_take(&table.lock);
    domain->going = 0;
    klock_release(&table.lock);
}

void domain_put(struct mm_ctx *ctx, struct domain *domain)
{
    while (domain != NULL) {
        klock_take(&table.lock);
        bool last = --domain->references == 0;
        klock_release(&table.lock);
        if (!last) {
            return;
        }
        struct domain *parent = domain->parent;
        object_free(ctx, object_frame(domain));
        domain = parent; /* which its child held */
    }
}

bool domain_commands(const struct domain *caller, const struct domain *domain)
{
    if (caller->control) {
        return true;
    }
    while (domain != NULL && domain != caller && domain->depth > caller->depth) {
        domain = domain->parent;
    }
    return domain == caller;
}

static bool name_character(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

static bool begins(const char *name, const char *with)
{
    while (*with != '\0' && *name == *with) {
        name++;
        with++;
    }
    return *with == '\0';
}

bool domain_name_legal(const char *name)
{
    unsigned length = 0;
    while (length < CLEAVE_NAME_SIZE && name[length] != '\0') {
        if (!name_character(name[length])) {
            return false;
        }
        length++;
    }
    return length > 0 && length < CLEAVE_NAME_SIZE && !begins(name, "fork-") &&
           !begins(name, "domain-");
}

static bool same_name(const char *a, const char *b)
{
    unsigned i = 0;
    while (i < CLEAVE_NAME_SIZE && a[i] == b[i] && a[i] != '\0') {
        i++;
    }
    return i == CLEAVE_NAME_SIZE || a[i] == b[i];
}

uint32_t domain_ids_take(uint32_t count)
{
    klock_take(&table.lock);
    uint32_t first = ids_take(&table.ids, count);
    for (uint32_t i = first; first != 0 && i < first + count; i++) {
        table.domain[i] = HELD;
    }
    klock_release(&table.lock);
    return first;
}

bool domain_id_take(uint32_t id)
{
    klock_take(&table.lock);
    bool taken = id != 0 && id <= DOMAIN_ID_MAX && ids_take_one(&table.ids, id);
    if (taken) {
        table.domain[id] = HELD;
    }
    klock_release(&table.lock);
    return taken;
}

void domain_ids_drop(uint32_t first, uint32_t count)
{
    klock_take(&table.lock);
    for (uint32_t i = first; i < first + count; i++) {
        if (table.domain[i] == HELD) {
            forget_id(i);
        }
    }
    klock_release(&table.lock);
}

static struct domain **bucket_of(const char *name)
{
    uint32_t hash = 0;
    for (unsigned i = 0; i < CLEAVE_NAME_SIZE && name[i] != '\0'; i++) {
        hash = (hash ^ (unsigned char)name[i]) * 0x9e3779b1u;
    }
    return &table.named[hash >> 20];
}
_Static_assert(NAME_BUCKETS == 1u << (32 - 20), "as many buckets as bits are taken");

static void put_in_table(struct domain *domain)
{
    struct domain **bucket = bucket_of(domain->name);
    table.domain[domain->id] = domain;
    domain->next_named = *bucket;
    *bucket = domain;
    if (domain->parent != NULL) {
        domain->parent->references++;
    }
}

/* No other domain of its pool has the name; nor, `everywhere`, one of another pool. */
static bool name_free(const struct domain *domain, const char *name, bool everywhere)
{
    const struct domain *at = *bucket_of(name);
    while (at != NULL && (at == domain || !(everywhere || at->pool == domain->pool) ||
                          !same_name(at->name, name))) {
        at = at->next_named;
    }
    return at == NULL;
}

/* Who sees the domains of all pools learns nothing by a name that is refused. */
static bool sees_all(const struct domain *namer) { return namer == NULL || namer->control; }

bool domain_enter(struct domain *domain, bool chosen)
{
    klock_take(&table.lock);
    bool free = !chosen || name_free(domain, domain->name, sees_all(domain->parent));
    if (free) {
        MM_CHECK(table.domain[domain->id] == HELD);
        put_in_table(domain);
    }
    klock_release(&table.lock);
    return free;
}

static void unlink_name(struct domain *domain)
{
    struct domain **at = bucket_of(domain->name);
    while (*at != domain) {
        at = &(*at)->next_named;
    }
    *at = domain->next_named;
}

bool domain_rename(struct domain *domain, const char *name, const struct domain *namer)
{
    klock_take(&table.lock);
    bool free = name_free(domain, name, sees_all(namer));
    if (free && table.domain[domain->id] == domain) {
        struct domain **bucket = bucket_of(name);
        unlink_name(domain);
        __builtin_memcpy(domain->name, name, CLEAVE_NAME_SIZE);
        domain->name[CLEAVE_NAME_SIZE - 1] = '\0';
        domain->next_named = *bucket;
        *bucket = domain;
    }
    klock_release(&table.lock);
    return free;
}

/* --- Making ----------------------------------------------------------------------------------- */

static void vcpu_free(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    vcpu_timer(vcpu, 0);
    if (vcpu->hvm.control != 0) {
        object_free(ctx, pfn((uint32_t)(vcpu->hvm.control >> PAGE_SHIFT)));
    }
    if (vcpu->hvm.xsave != NULL) {
        object_free(ctx, object_frame(vcpu->hvm.xsave));
    }
    object_free(ctx, vcpu->saved_xsave);
    object_free(ctx, object_frame(vcpu));
}

static enum cleave_status vcpu_make(struct mm_ctx *ctx, struct domain *domain, uint32_t number,
                                    uint32_t vcpus, bool record)
{
    struct payer *payer = &domain->space->payer;
    pfn_t object, control, xsave;
    enum cleave_status status = object_alloc(ctx, payer, &object);
    if (status != CLEAVE_OK) {
        return status;
    }
    struct vcpu *vcpu = frame_address(object);
    vcpu->domain = domain;
    vcpu->number = number;
    vcpu->wait.space = domain->space;
    vcpu->wait.vcpu = number;
    vcpu->hvm.apic_id = 2 * number;
    xen_vcpu_init(vcpu);
    vcpu->hvm.cpus = vcpus;
    lapic_init(&vcpu->lapic, vcpu->hvm.apic_id, number == 0);
    mtrr_init(&vcpu->mtrr);
    vcpu->hvm.loaded_on = -1;
    vcpu->hvm.root = (uint64_t)domain->space->root.v << PAGE_SHIFT;
    domain->vcpu[number] = vcpu;
    domain->vcpu_count = number + 1;
    if (record) {
        return object_alloc(ctx, payer, &vcpu->saved_xsave);
    }
    status = object_alloc(ctx, payer, &control);
    if (status == CLEAVE_OK) {
        vcpu->hvm.control = (uint64_t)control.v << PAGE_SHIFT;
        status = object_alloc(ctx, payer, &xsave);
    }
    if (status == CLEAVE_OK) {
        vcpu->hvm.xsave = frame_address(xsave);
    }
    return status;
}

enum cleave_status vcpu_keep(struct mm_ctx *ctx, struct vcpu *vcpu, const struct hvm_state *state,
                             const void *xsave)
{
    if (vcpu->saved_xsave.v == 0) {
        enum cleave_status status =
            object_alloc(ctx, &vcpu->domain->space->payer, &vcpu->saved_xsave);
        if (status != CLEAVE_OK) {
            return status;
        }
    }
    vcpu->saved = *state;
    vcpu->saved_halted = vcpu->halted;
    vcpu->saved_result_size = (uint8_t)vcpu->result_size;
    __builtin_memcpy(vcpu->saved_result, &vcpu->result, RESULT_KEPT);
    port_copy_pages(frame_address(vcpu->saved_xsave), xsave, 1);
    return CLEAVE_OK;
}

static void vcpus_free(struct mm_ctx *ctx, struct domain *domain)
{
    uint32_t count = sched_forget(domain);
    for (uint32_t i = 0; i < count; i++) {
        vcpu_free(ctx, domain->vcpu[i]);
    }
}

/* What it keeps in frames of its own, but for its vcpus. */
static void frames_free(struct mm_ctx *ctx, struct domain *domain)
{
    xen_free(ctx, domain);
    terminal_free(ctx, domain);
    grants_free(ctx, domain);
    identity_free(ctx, domain);
    if (domain->result != NULL) {
        object_free(ctx, object_frame(domain->result));
        domain->result = NULL;
        domain->result_size = 0;
    }
}

enum cleave_status domain_make(struct mm_ctx *ctx, uint32_t id, const char *name,
                               struct domain *parent, struct space *space, uint32_t vcpus,
                               bool records, struct domain **out)
{
    pfn_t object;
    enum cleave_status status = object_alloc(ctx, &space->payer, &object);
    if (status != CLEAVE_OK) {
        struct mm_error error = ctx->error;
        space_discard(ctx, space);
        ctx->error = error;
        return status;
    }
    struct domain *domain = frame_address(object);
    domain->id = id;
    domain->references = 1;
    domain->parent = parent;
    domain->depth = parent != NULL ? parent->depth + 1 : 0;
    domain->pool = space->payer.pool;
    domain->space = space;
    domain->space_id = space->id;
    domain->state = records ? CLEAVE_STATE_FROZEN : CLEAVE_STATE_RUNNING;
    domain->snapshot = records;
    domain->created = read_tsc();
    domain->tsc_offset = -domain->created;
    for (unsigned i = 0; i < CLEAVE_NAME_SIZE - 1 && name[i] != '\0'; i++) {
        domain->name[i] = name[i];
    }
    for (uint32_t i = 0; i < vcpus && status == CLEAVE_OK; i++) {
        status = vcpu_make(ctx, domain, i, vcpus, records);
    }
    if (status != CLEAVE_OK) {
        domain_discard(ctx, domain);
        return status;
    }
    *out = domain;
    return CLEAVE_OK;
}

void domain_discard(struct mm_ctx *ctx, struct domain *domain)
{
    struct mm_error error = ctx->error;
    struct space *space = domain->space;
    vcpus_free(ctx, domain);
    frames_free(ctx, domain);
    object_free(ctx, object_frame(domain));
    space_discard(ctx, space);
    ctx->error = error;
}

void domain_replace(struct mm_ctx *ctx, struct domain *domain, struct domain *old)
{
    struct space *space = old->space;
    klock_take(&table.lock);
    MM_CHECK(table.domain[old->id] == old && domain->id == old->id);
    unlink_name(old);
    put_in_table(domain);
    klock_release(&table.lock);
    vcpus_free(ctx, old);
    frames_free(ctx, old);
    old->space = NULL;
    space_discard(ctx, space);
    domain_put(ctx, old);
}

/* Takes it out of the table and drops the table's reference; a name and a place in the chain of
 * parents remain while a child or a call holds it. */
static void leave(struct mm_ctx *ctx, struct domain *domain)
{
    klock_take(&table.lock);
    bool there = table.domain[domain->id] == domain;
    if (there) {
        unlink_name(domain);
        forget_id(domain->id);
    }
    klock_release(&table.lock);
    if (there) {
        domain_put(ctx, domain);
    }
}

/* --- Stopping and ending ---------------------------------------------------------------------- */

void domain_stop(struct mm_ctx *ctx, struct domain *domain, struct vcpu *self)
{
    sched_pause(domain);
    while (sched_runs(domain, self)) {
        world_rest(ctx);
        port_relax(ctx);
    }
}

void domain_resume(struct domain *domain) { sched_unpause(domain); }

void vcpu_cancel_waits(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    tenants_cancel_wait(ctx, &vcpu->wait);
    pager_cancel_wait(ctx, &vcpu->wait);
    pool_cancel_wait(ctx, vcpu->domain->pool, &vcpu->wait);
}

void vcpu_abandon(struct mm_ctx *ctx, struct vcpu *vcpu)
{
    struct domain *domain = vcpu->stopped_in;
    struct mm_error error = ctx->error;

    vcpu->stopped_in = NULL;
    struct space *space = domain != NULL ? domain_use(domain) : NULL;
    if (space != NULL) {
        /* CLEAVE_BUSY: what took effect already; whoever is shut out by it goes on with it. */
        enum cleave_status status = space_give_up(ctx, space);
        (void)status;
        domain_unuse(domain);
    }
    domain_put(ctx, domain);
    ctx->error = error;
}

/* A domain has ended, or is gone: whoever waits in the control domain looks, by either ABI. */
static void tell_control(struct mm_ctx *ctx, const struct domain *domain)
{
    struct domain *control = domain_get(CLEAVE_DOMAIN_CONTROL);
    if (control != NULL && control != domain && domain_use(control) != NULL) {
        sched_wake_sleepers(control, SLEEP_CHILD);
        xen_tell_end(control);
        domain_unuse(control);
    }
    domain_put(ctx, control);
}

void domain_end(struct mm_ctx *ctx, struct domain *domain, struct vcpu *self, uint32_t reason,
                uint32_t code)
{
    if (domain->state == CLEAVE_STATE_ENDED) {
        return;
    }
    domain_stop(ctx, domain, self);
    domain->reason = reason;
    domain->code = code;
    __atomic_store_n(&domain->state, CLEAVE_STATE_ENDED, __ATOMIC_RELEASE);
    sched_off(domain);
    for (unsigned i = 0; i < domain->vcpu_count && !domain->snapshot; i++) {
        vcpu_cancel_waits(ctx, domain->vcpu[i]);
        vcpu_abandon(ctx, domain->vcpu[i]);
    }
    domain_resume(domain);
    if (domain->parent != NULL) {
        sched_wake_sleepers(domain->parent, SLEEP_CHILD);
    }
    tell_control(ctx, domain);
    stat_ended(domain);
}

void domain_hold(struct mm_ctx *ctx, struct domain *domain)
{
    while (!klock_claim(&domain->busy)) {
        world_rest(ctx);
        port_relax(ctx);
    }
}

void domain_rest(struct mm_ctx *ctx, struct domain *domain)
{
    world_rest(ctx);
    port_relax(ctx);
    domain_hold(ctx, domain);
    klock_release(&domain->busy);
}

enum cleave_status domain_destroy(struct mm_ctx *ctx, struct domain *domain, struct vcpu *self)
{
    if (!klock_try(&domain->busy)) {
        return CLEAVE_AGAIN;
    }
    domain_end(ctx, domain, self, CLEAVE_DESTROYED, 0);
    enum cleave_status status = CLEAVE_OK;
    if (sched_runs(domain, NULL) || !domain_close(domain)) {
        status =
            CLEAVE_AGAIN; /* a vcpu that ended it has not left its CPU yet, or a call is in it */
    }
    if (status == CLEAVE_OK && domain->channel != NULL) {
        channel_destroy(ctx, domain->channel);
        domain->channel = NULL;
    }
    if (status == CLEAVE_OK) {
        status = xen_log_end(ctx, domain);
    }
    if (status == CLEAVE_OK && domain->space != NULL) {
        vcpus_free(ctx, domain);
        frames_free(ctx, domain);
        status = space_destroy(ctx, domain->space);
        if (status == CLEAVE_OK) {
            domain->space = NULL;
        }
    }
    klock_release(&domain->busy);
    if (status == CLEAVE_OK) {
        leave(ctx, domain);
        tell_control(ctx, domain);
    }
    return status;
}
