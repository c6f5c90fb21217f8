/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Untyped memory and pools; see tenant.h. `lock` is of the table, held for a few instructions;
 * `busy`, which is only ever tried, is held by who makes, resizes or deletes a pool, or makes a
 * space in one that it names.
 */
#include "tenant.h"

#include "hvm.h"
#include "klock.h"
#include "notify.h"
#include "platform.h"
#include "table.h"

#define ROOT_NODE_FRAMES 16u

static struct tenant {
    char name[TENANT_NAME_SIZE];
    struct pool *pool; /* null: no tenant */
    cap_t cap;
    cap_t piece; /* the untyped memory that it was made of, of its size */
    uint64_t frames;
    uint64_t free;  /* frames that are free or the pool's own while nothing is in it */
    uint32_t users; /* who looks into it without a space there; it does not close meanwhile */
    bool closing;   /* it is being deleted */
    bool gone;      /* and there is no pool any more */
} tenants[TENANTS_MAX];
static struct klock lock, busy;

static struct cnode *root;
static void *scratch;
static uint64_t scratch_bytes;
#define NAME_ROUNDS 6u
static uint64_t secret[NAME_ROUNDS];

/* Room to audit a pool that is as large as all memory: 4 bytes for each descriptor and account. */
static uint64_t scratch_for(uint64_t frames) { return frames * 5 + (UINT64_C(1) << 20); }

void tenants_start(struct mm_ctx *ctx)
{
    uint64_t frames = boot_info.memory_end >> PAGE_SHIFT;
    struct pfn_range ranges[CAP_BOOT_RANGES];
    unsigned count = 0;

    uint64_t descriptors = boot_take(machine_descriptor_bytes(frames), PAGE_SIZE, "descriptors");
    scratch_bytes = scratch_for(frames);
    scratch = host_pointer(boot_take(scratch_bytes, PAGE_SIZE, "audit"));
    for (unsigned i = 0; i < NAME_ROUNDS; i++) {
        secret[i] = port_random();
    }
    enum cleave_status status =
        machine_init(ctx, host_pointer(0), frames, host_pointer(descriptors), hvm->format,
                     boot_info.cpus, hvm_huge_exec);
    for (unsigned i = 0; i < boot_info.free_count && count < CAP_BOOT_RANGES; i++) {
        uint64_t first = boot_info.free[i].start >> PAGE_SHIFT;
        uint64_t end = boot_info.free[i].end >> PAGE_SHIFT;
        first = first == 0 ? 1 : first;
        if (first < end) {
            ranges[count++] = (struct pfn_range){pfn((uint32_t)first), pfn((uint32_t)end)};
        }
    }
    if (status == CLEAVE_OK) {
        status = cap_boot(ctx, ranges, count, ROOT_NODE_FRAMES, &root);
    }
    if (status != CLEAVE_OK) {
        print("memory: %s = %lx: status %u\n", ctx->error.argument, ctx->error.value, status);
        machine_stop(2);
    }
}

static bool same(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

static struct tenant *find(const char *name)
{
    for (unsigned i = 0; i < TENANTS_MAX; i++) {
        if (tenants[i].pool != NULL && same(tenants[i].name, name)) {
            return &tenants[i];
        }
    }
    return NULL;
}

struct pool *tenant_pool(const char *name)
{
    const struct tenant *tenant = find(name);
    return tenant != NULL ? tenant->pool : NULL;
}

uint32_t tenant_number(const struct pool *pool)
{
    uint32_t index = 0;
    while (index < TENANTS_MAX && tenants[index].pool != pool) {
        index++;
    }
    return index + 1;
}

bool tenant_look(unsigned index, struct tenant_info *info)
{
    const struct tenant *tenant = &tenants[index];
    klock_take(&lock);
    bool there = tenant->pool != NULL;
    if (there) {
        *info = (struct tenant_info){.frames = tenant->frames, .closing = tenant->closing};
        __builtin_memcpy(info->name, tenant->name, sizeof(info->name));
    }
    if (there && !tenant->closing) {
        info->free = tenant->pool->free;
        info->reserved = tenant->pool->reserved;
        info->spaces = tenant->pool->account_used;
    }
    klock_release(&lock);
    return there;
}

static bool tenant_hold(struct tenant *tenant)
{
    klock_take(&lock);
    bool there = tenant->pool != NULL && !tenant->closing;
    tenant->users += there ? 1 : 0;
    klock_release(&lock);
    return there;
}

static void tenant_release(struct tenant *tenant)
{
    klock_take(&lock);
    tenant->users--;
    klock_release(&lock);
}

/* Nobody waits in a pool that is closing, or is still being woken there: it has no channel. */
void tenants_cancel_wait(struct mm_ctx *ctx, struct vcpu_wait *wait)
{
    for (unsigned i = 0; i < TENANTS_MAX; i++) {
        if (tenants[i].pool != NULL && tenant_hold(&tenants[i])) {
            channel_cancel_wait(ctx, tenants[i].pool, wait);
            tenant_release(&tenants[i]);
        }
    }
}

static bool begin_change(void)
{
    if (klock_try(&busy)) {
        return true;
    }
    this_cpu()->resched = 1;
    return false;
}

/* --- Untyped memory --------------------------------------------------------------------------- */

/* The untyped capability in slot `index` of the first node; false where there is none. */
static bool untyped_at(struct mm_ctx *ctx, uint32_t index, cap_t *handle, struct cap_info *info)
{
    return cap_at(ctx, root, index, handle) == CLEAVE_OK &&
           cap_look(ctx, root, *handle, info) == CLEAVE_OK && info->type == CAP_UNTYPED;
}

/* First frame in `range` at which a pool of so many frames can begin: a pool of whole 1 GiB blocks
 * at such a block where it fits. */
static uint64_t pool_start(struct pfn_range range, uint64_t frames)
{
    uint64_t start = 0;
    for (unsigned order = 2; order > 0; order--) {
        uint64_t pages = level_pages(order);
        start = (range.start.v + pages - 1) / pages * pages;
        if (frames % pages == 0 && start <= range.end.v && frames <= range.end.v - start) {
            break;
        }
    }
    return start;
}

/* Frames of the largest pool that there is room for. */
static uint64_t room_in(struct pfn_range range)
{
    uint64_t start = pool_start(range, level_pages(1)), end = range.end.v;
    return start < end ? (end - start) & ~(level_pages(1) - 1) : 0;
}

/* Was nothing made of it? */
static bool is_whole(const struct cap_info *info)
{
    return info->unused == (uint64_t)info->range.end.v - info->range.start.v;
}

/* The smallest piece of which nothing was made and which has room for so many frames. */
static bool find_room(struct mm_ctx *ctx, uint64_t frames, cap_t *piece, struct cap_info *found)
{
    cap_t handle;
    struct cap_info info;
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < cnode_slots(root); i++) {
        if (untyped_at(ctx, i, &handle, &info) && is_whole(&info) &&
            room_in(info.range) >= frames && room_in(info.range) < least) {
            *piece = handle;
            *found = info;
            least = room_in(info.range);
        }
    }
    return least != UINT64_MAX;
}

uint64_t tenant_room(struct mm_ctx *ctx)
{
    uint64_t most = 0;
    cap_t handle;
    struct cap_info info;
    for (uint32_t i = 0; i < cnode_slots(root); i++) {
        if (untyped_at(ctx, i, &handle, &info) && is_whole(&info) && room_in(info.range) > most) {
            most = room_in(info.range);
        }
    }
    return most;
}

/* The piece of which nothing was made that begins at a frame, or `ends` there. */
static bool piece_at(struct mm_ctx *ctx, pfn_t at, bool ends, cap_t *piece, struct cap_info *info)
{
    for (uint32_t i = 0; i < cnode_slots(root); i++) {
        if (untyped_at(ctx, i, piece, info) && is_whole(info) &&
            (ends ? info->range.end.v : info->range.start.v) == at.v) {
            return true;
        }
    }
    return false;
}

/* A piece of which nothing is made any more becomes one with those beside it. */
static enum cleave_status join_pieces(struct mm_ctx *ctx, cap_t piece)
{
    cap_t other;
    struct cap_info info, beside;
    enum cleave_status status = cap_look(ctx, root, piece, &info);
    if (status == CLEAVE_OK && piece_at(ctx, info.range.end, false, &other, &beside)) {
        status = untyped_join(ctx, root, piece, other);
    }
    if (status == CLEAVE_OK && piece_at(ctx, info.range.start, true, &other, &beside)) {
        status = untyped_join(ctx, root, other, piece);
    }
    return status;
}

/* Untyped memory of exactly so many frames, of which nothing was made, where a pool can begin. On
 * an error the pieces are as they were, or lie side by side until one of them is joined. */
static enum cleave_status take_piece(struct mm_ctx *ctx, uint64_t frames, cap_t *piece)
{
    cap_t rest;
    struct cap_info info;
    enum cleave_status status = CLEAVE_OK;
    if (!find_room(ctx, frames, piece, &info)) {
        return mm_fail(ctx, CLEAVE_NO_MEMORY, "size", frames << PAGE_SHIFT,
                       level_pages(1) << PAGE_SHIFT, tenant_room(ctx) << PAGE_SHIFT);
    }
    uint64_t start = pool_start(info.range, frames);
    if (start > info.range.start.v) {
        status = untyped_cut(ctx, root, *piece, start - info.range.start.v, CAP_SELF, &rest);
        *piece = status == CLEAVE_OK ? rest : *piece;
    }
    if (status == CLEAVE_OK && info.range.end.v - start > frames) {
        status = untyped_cut(ctx, root, *piece, frames, CAP_SELF, &rest);
    }
    return status;
}

/* What the pool's piece has behind the pool becomes a piece of its own, one with what lies behind.
 * When the node is full it stays where it is, until the pool is resized again or deleted. */
static void trim_piece(struct mm_ctx *ctx, const struct tenant *tenant)
{
    cap_t rest;
    struct cap_info info;
    enum cleave_status status = cap_look(ctx, root, tenant->piece, &info);
    if (status == CLEAVE_OK && info.range.end.v > tenant->pool->end.v) {
        status = untyped_cut(ctx, root, tenant->piece, tenant->pool->frames, CAP_SELF, &rest);
        status = status == CLEAVE_OK ? join_pieces(ctx, rest) : status;
    }
    (void)status;
}

/* --- Making and deleting ---------------------------------------------------------------------- */

static enum cleave_status make_pool(struct mm_ctx *ctx, struct tenant *tenant, const char *name,
                                    uint64_t frames)
{
    struct cap_use use;
    cap_t piece = CAP_SELF, made;
    enum cleave_status status = take_piece(ctx, frames, &piece);
    if (status == CLEAVE_OK) {
        status = untyped_retype(ctx, root, piece, CAP_POOL, frames, 1, CAP_SELF, &made);
    }
    if (status == CLEAVE_OK) {
        status = cap_use(ctx, root, made, CAP_BIT(CAP_POOL), CAP_MAY_WRITE, &use);
    }
    if (status != CLEAVE_OK) {
        struct mm_error error = ctx->error;
        enum cleave_status joined = join_pieces(ctx, piece);
        (void)joined; /* what is not joined now is when a pool beside it is deleted */
        ctx->error = error;
        return status;
    }
    klock_take(&lock);
    *tenant = (struct tenant){.pool = use.pool,
                              .cap = made,
                              .piece = piece,
                              .frames = frames,
                              .free = use.pool->free + use.pool->own.charged};
    for (unsigned i = 0; i < TENANT_NAME_SIZE - 1 && name[i] != '\0'; i++) {
        tenant->name[i] = name[i];
    }
    klock_release(&lock);
    cap_end(ctx, &use);
    return CLEAVE_OK;
}

enum cleave_status tenant_make(struct mm_ctx *ctx, const char *name, uint64_t *bytes)
{
    uint64_t block = level_pages(1), frames = *bytes >> PAGE_SHIFT;
    unsigned index = 0;
    enum cleave_status status;
    if (!begin_change()) {
        return CLEAVE_AGAIN;
    }
    while (index < TENANTS_MAX && tenants[index].pool != NULL) {
        index++;
    }
    if (frames == 0 && *bytes == 0) {
        frames = tenant_room(ctx);
    }
    frames -= frames % block;
    if (find(name) != NULL) {
        status = mm_fail(ctx, CLEAVE_EXISTS, "name", index, 1, 0);
    } else if (index == TENANTS_MAX) {
        status = mm_fail(ctx, CLEAVE_COUNT, "pools", TENANTS_MAX + 1, 0, TENANTS_MAX);
    } else if (frames == 0) {
        status = mm_fail(ctx, CLEAVE_COUNT, "size", *bytes, block << PAGE_SHIFT, UINT64_MAX);
    } else {
        status = make_pool(ctx, &tenants[index], name, frames);
        *bytes = frames << PAGE_SHIFT;
    }
    klock_release(&busy);
    return status;
}

/* Its memory goes through the capabilities; `busy` is held. */
static enum cleave_status delete_pool(struct mm_ctx *ctx, struct tenant *tenant)
{
    enum cleave_status status = CLEAVE_OK;
    if (!tenant->closing) {
        if (!table_reap(ctx, tenant->pool)) {
            return CLEAVE_AGAIN;
        }
        uint32_t used = tenant->pool->account_used;
        if (used != 0 || tenant->pool->spaces != NULL) {
            return mm_fail(ctx, CLEAVE_BUSY, "spaces", used, 0, 0);
        }
        uint64_t held = tenant->free - tenant->pool->free - tenant->pool->own.charged;
        if (held != 0) { /* the object of a domain that is gone, while a call still uses it */
            return mm_fail(ctx, CLEAVE_BUSY, "frames", held, 0, 0);
        }
        klock_take(&lock);
        tenant->closing = tenant->users == 0;
        klock_release(&lock);
        if (!tenant->closing) {
            this_cpu()->resched = 1;
            return CLEAVE_AGAIN;
        }
    }
    if (!tenant->gone) {
        status = cap_delete(ctx, root, tenant->cap);
        tenant->gone = status == CLEAVE_OK;
    }
    if (status == CLEAVE_OK) {
        status = join_pieces(ctx, tenant->piece);
    }
    if (status == CLEAVE_OK) {
        klock_take(&lock);
        *tenant = (struct tenant){.pool = NULL};
        klock_release(&lock);
    }
    return status;
}

enum cleave_status tenant_delete(struct mm_ctx *ctx, const char *name)
{
    if (!begin_change()) {
        return CLEAVE_AGAIN;
    }
    struct tenant *tenant = find(name);
    enum cleave_status status = tenant != NULL ? delete_pool(ctx, tenant)
                                               : mm_fail(ctx, CLEAVE_NOT_MAPPED, "name", 0, 1, 0);
    klock_release(&busy);
    return status;
}

/* Has its piece of memory reach up to there, as far as nothing was made of what lies behind. */
static enum cleave_status grow_piece(struct mm_ctx *ctx, const struct tenant *tenant,
                                     uint64_t frames)
{
    cap_t behind;
    struct cap_info info, next;
    enum cleave_status status = cap_look(ctx, root, tenant->piece, &info);
    if (status != CLEAVE_OK) {
        return status;
    }
    bool more = piece_at(ctx, info.range.end, false, &behind, &next);
    uint64_t end = more ? next.range.end.v : info.range.end.v;
    uint64_t most = (end - tenant->pool->start.v) & ~(level_pages(1) - 1);
    if (frames > most) {
        return mm_fail(ctx, CLEAVE_NO_MEMORY, "size", frames << PAGE_SHIFT,
                       level_pages(1) << PAGE_SHIFT, most << PAGE_SHIFT);
    }
    return more ? untyped_join(ctx, root, tenant->piece, behind) : CLEAVE_OK;
}

/* Moves the end of a tenant's pool; `busy` is held. */
static enum cleave_status resize_pool(struct mm_ctx *ctx, struct tenant *tenant, uint64_t frames)
{
    enum cleave_status status = CLEAVE_OK;
    if (frames > tenant->frames) {
        status = grow_piece(ctx, tenant, frames);
    } else if (!table_reap(ctx, tenant->pool)) { /* what the dead hold is free soon */
        return CLEAVE_AGAIN;
    }
    if (status == CLEAVE_OK) {
        status = untyped_resize_pool(ctx, root, tenant->piece, tenant->cap, frames);
    }
    if (status == CLEAVE_OK) {
        klock_take(&lock);
        tenant->free += frames - tenant->frames;
        tenant->frames = frames;
        klock_release(&lock);
    } else if (status == CLEAVE_BUSY) {
        status = mm_fail(ctx, CLEAVE_BUSY, "size", frames << PAGE_SHIFT,
                         ctx->error.low << PAGE_SHIFT, tenant->frames << PAGE_SHIFT);
    }
    struct mm_error error = ctx->error;
    trim_piece(ctx, tenant);
    ctx->error = error;
    return status;
}

enum cleave_status tenant_resize(struct mm_ctx *ctx, const char *name, uint64_t *bytes)
{
    uint64_t block = level_pages(1), frames = (*bytes >> PAGE_SHIFT) & ~(block - 1);
    enum cleave_status status = CLEAVE_OK;
    if (!begin_change()) {
        return CLEAVE_AGAIN;
    }
    struct tenant *tenant = find(name);
    if (tenant == NULL) {
        status = mm_fail(ctx, CLEAVE_NOT_MAPPED, "name", 0, 1, 0);
    } else if (tenant->closing) {
        status = mm_fail(ctx, CLEAVE_DYING, "name", 0, 1, 0);
    } else if (frames == 0) {
        status = mm_fail(ctx, CLEAVE_COUNT, "size", *bytes, block << PAGE_SHIFT, UINT64_MAX);
    } else if (frames != tenant->frames) {
        status = resize_pool(ctx, tenant, frames);
    }
    klock_release(&busy);
    if (status == CLEAVE_OK) {
        *bytes = frames << PAGE_SHIFT;
    }
    return status;
}

enum cleave_status tenant_create_space(struct mm_ctx *ctx, unsigned index, uint64_t limit,
                                       struct space **space)
{
    if (!begin_change()) {
        return CLEAVE_AGAIN;
    }
    bool there = index < TENANTS_MAX && tenants[index].pool != NULL && !tenants[index].closing;
    enum cleave_status status = there ? space_create(ctx, tenants[index].pool, limit, space)
                                      : mm_fail(ctx, CLEAVE_NOT_MAPPED, "pool", index + 1ul, 1, 0);
    klock_release(&busy);
    return status;
}

/* --- Audit ------------------------------------------------------------------------------------ */

enum cleave_status tenant_audit(struct mm_ctx *ctx, struct pool *pool, struct audit_report *report)
{
    uint64_t bytes = audit_scratch_bytes(pool);
    if (bytes > scratch_bytes) {
        return mm_fail(ctx, CLEAVE_COUNT, "pool", bytes, 0, scratch_bytes);
    }
    port_zero_pages(scratch, (bytes + PAGE_SIZE - 1) >> PAGE_SHIFT);
    return pool_audit(ctx, pool, scratch, bytes, report);
}

bool tenants_audit(struct mm_ctx *ctx)
{
    struct cap_report caps;
    bool clean = true;

    for (unsigned i = 0; i < TENANTS_MAX; i++) {
        struct audit_report report = {.what = "no room to audit it"};
        if (tenants[i].pool == NULL || tenants[i].gone) {
            continue;
        }
        if (tenant_audit(ctx, tenants[i].pool, &report) != CLEAVE_OK || report.invariant != 0) {
            print("audit: pool %s: I%u %s: space %u, page %lx, level %u, entry %lx, expected %lx, "
                  "found %lx\n",
                  tenants[i].name, report.invariant, report.what, report.space, report.at.v,
                  report.level, report.entry, report.expected, report.found);
            clean = false;
        } else {
            print("audit: pool %s: clean, %lu entries, %lu of %lu frames free\n", tenants[i].name,
                  report.entries_visited, tenants[i].pool->free, tenants[i].pool->frames);
        }
    }
    if (cap_audit(ctx, &caps) != CLEAVE_OK || caps.what != NULL) {
        print("audit: capabilities: %s\n", caps.what != NULL ? caps.what : "?");
        clean = false;
    }
    return clean;
}

bool tenants_empty(void)
{
    bool empty = true;
    for (unsigned i = 0; i < TENANTS_MAX; i++) {
        const struct pool *pool = tenants[i].pool;
        if (pool == NULL || tenants[i].gone) {
            continue;
        }
        uint64_t free = pool->free + pool->own.charged; /* pages of accounts stay with the pool */
        if (free != tenants[i].free || pool->reserved != 0) {
            print("pool %s: %lu frames of %lu, %lu reserved\n", tenants[i].name, free,
                  tenants[i].free, pool->reserved);
            empty = false;
        }
    }
    return empty;
}

/* The finalizer of SplitMix64. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* A Feistel network: one to one, and neither the frame nor how far two are apart can be told from
 * names without the keys. */
uint64_t tenant_frame_name(pfn_t frame)
{
    uint32_t left = frame.v, right = 0;
    for (unsigned i = 0; i < NAME_ROUNDS; i++) {
        uint32_t next = left ^ (uint32_t)mix(right ^ secret[i]);
        left = right;
        right = next;
    }
    return frame.v == 0 ? 0 : (uint64_t)left << 32 | right;
}
