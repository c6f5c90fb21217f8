/* SPDX-License-Identifier: BSD-2-Clause */
/* Untyped memory and pools; see tenant.h. Made at boot by one CPU, constant afterwards. */
#include "tenant.h"

#include "hvm.h"
#include "platform.h"

#define ROOT_NODE_FRAMES 16u

static struct {
    char name[TENANT_NAME_SIZE];
    struct pool *pool;
    uint64_t free; /* frames that were free or the pool's own when it was made */
} tenants[TENANTS_MAX];
static unsigned tenant_count;

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

struct pool *tenant_pool(const char *name)
{
    for (unsigned i = 0; i < tenant_count; i++) {
        if (same(tenants[i].name, name)) {
            return tenants[i].pool;
        }
    }
    return NULL;
}

const char *tenant_at(unsigned index, struct pool **pool)
{
    if (index >= tenant_count) {
        return NULL;
    }
    *pool = tenants[index].pool;
    return tenants[index].name;
}

/* The untyped capability with the most memory unused. */
static cap_t largest_untyped(struct mm_ctx *ctx, uint64_t *unused)
{
    cap_t best = CAP_SELF;
    *unused = 0;
    for (uint32_t i = 0; i < cnode_slots(root); i++) {
        cap_t handle;
        struct cap_info info;
        if (cap_at(ctx, root, i, &handle) == CLEAVE_OK &&
            cap_look(ctx, root, handle, &info) == CLEAVE_OK && info.type == CAP_UNTYPED &&
            info.unused > *unused) {
            *unused = info.unused;
            best = handle;
        }
    }
    return best;
}

enum cleave_status tenant_make(struct mm_ctx *ctx, const char *name, uint64_t bytes)
{
    uint64_t unused, block = level_pages(1);
    struct cap_use use;
    cap_t made;

    if (tenant_pool(name) != NULL) {
        return mm_fail(ctx, CLEAVE_EXISTS, "name", tenant_count, 1, 0);
    }
    if (tenant_count == TENANTS_MAX) {
        return mm_fail(ctx, CLEAVE_COUNT, "pools", tenant_count + 1, 0, TENANTS_MAX);
    }
    cap_t source = largest_untyped(ctx, &unused);
    uint64_t frames = bytes >> PAGE_SHIFT;
    if (frames == 0) { /* what alignment may skip is left out */
        frames = unused > 2 * block ? unused - 2 * block : 0;
    }
    frames -= frames % block;
    enum cleave_status status =
        untyped_retype(ctx, root, source, CAP_POOL, frames, 1, CAP_SELF, &made);
    if (status == CLEAVE_OK) {
        status = cap_use(ctx, root, made, CAP_BIT(CAP_POOL), CAP_MAY_WRITE, &use);
    }
    if (status != CLEAVE_OK) {
        return status;
    }
    for (unsigned i = 0; i < TENANT_NAME_SIZE - 1 && name[i] != '\0'; i++) {
        tenants[tenant_count].name[i] = name[i];
    }
    tenants[tenant_count].pool = use.pool;
    tenants[tenant_count].free = use.pool->free + use.pool->own.charged;
    tenant_count++;
    cap_end(ctx, &use);
    return CLEAVE_OK;
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

    for (unsigned i = 0; i < tenant_count; i++) {
        struct audit_report report = {.what = "no room to audit it"};
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
    for (unsigned i = 0; i < tenant_count; i++) {
        const struct pool *pool = tenants[i].pool;
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
