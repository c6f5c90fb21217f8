/* SPDX-License-Identifier: BSD-2-Clause */
/* See cap_rig.h. */
#include "cap_rig.h"

#include "host.h"
#include "test.h"

void rig_start(struct cap_rig *rig)
{
    uint64_t pages = RIG_BLOCKS * level_pages(1) + 4;

    host_start(&(struct host_options){.frames = (RIG_BLOCKS + 4) * level_pages(1)});
    rig->ctx = host_ctx(0);
    rig->start = host_take(pages, 1);
    rig->frames = pages - 4;
    struct pfn_range range = {rig->start, pfn_add(rig->start, pages)};
    REQUIRE_OK(cap_boot(rig->ctx, &range, 1, 4, &rig->root));
    REQUIRE_OK(cap_at(rig->ctx, rig->root, 0, &rig->untyped));
}

cap_t rig_retype(const struct cap_rig *rig, cap_t source, enum cap_type type, uint64_t frames)
{
    cap_t made;
    REQUIRE_OK(untyped_retype(rig->ctx, rig->root, source, type, frames, 1, CAP_SELF, &made));
    return made;
}

cap_t rig_node(const struct cap_rig *rig, uint64_t frames)
{
    return rig_retype(rig, rig->untyped, CAP_CNODE, frames);
}

cap_t rig_pool(const struct cap_rig *rig, uint64_t blocks)
{
    return rig_retype(rig, rig->untyped, CAP_POOL, blocks * level_pages(1));
}

cap_t rig_space(const struct cap_rig *rig, cap_t pool)
{
    cap_t made;
    REQUIRE_OK(cap_create_space(rig->ctx, rig->root, pool, UINT64_MAX, CAP_SELF, &made));
    return made;
}

cap_t rig_fork(const struct cap_rig *rig, cap_t space, cap_t to)
{
    struct fork_options options = {.limit = UINT64_MAX};
    cap_t made;
    REQUIRE_OK(cap_fork(rig->ctx, rig->root, space, 1, &options, to, &made));
    return made;
}

cap_t rig_copy(const struct cap_rig *rig, cap_t source, unsigned rights, cap_t to)
{
    cap_t made;
    REQUIRE_OK(cap_copy(rig->ctx, rig->root, source, rights, to, &made));
    return made;
}

struct cap_info rig_look(const struct cap_rig *rig, cap_t source)
{
    struct cap_info info;
    REQUIRE_OK(cap_look(rig->ctx, rig->root, source, &info));
    return info;
}

void *rig_object(const struct cap_rig *rig, cap_t source)
{
    struct cap_use use;
    REQUIRE_OK(cap_use(rig->ctx, rig->root, source, CAP_ANY_TYPE, 0, &use));
    void *object = use.object;
    cap_end(rig->ctx, &use);
    return object;
}

enum cleave_status rig_status(const struct cap_rig *rig, struct cnode *node, cap_t handle)
{
    struct cap_info info;
    return cap_look(rig->ctx, node, handle, &info);
}

uint64_t rig_audit(const struct cap_rig *rig)
{
    struct cap_report report;
    REQUIRE_OK(cap_audit(rig->ctx, &report));
    if (report.what != NULL) {
        test_case("%s: handle %llx type %d, expected %llx, found %llx", report.what,
                  (unsigned long long)report.handle, report.type,
                  (unsigned long long)report.expected, (unsigned long long)report.found);
    }
    REQUIRE(report.what == NULL);
    return report.caps;
}

void rig_check_empty(const struct cap_rig *rig)
{
    CHECK_EQ(rig_look(rig, rig->untyped).unused, rig->frames);
    for (uint64_t i = 0; i < rig->frames; i++) {
        if (pool_of(pfn_add(rig->start, i)) != NULL) {
            CHECK(pool_of(pfn_add(rig->start, i)) == NULL);
            return;
        }
    }
}

static uint64_t mix(uint64_t state, uint64_t value)
{
    state = (state ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return state ^ state >> 29;
}

static uint64_t mix_node(uint64_t state, struct cnode *node)
{
    state = mix(state, (uint64_t)node->dying << 32 | node->holders);
    return mix(state, node->used);
}

uint64_t rig_state(void)
{
    const struct cap_link *head = &cap_tree.head.link;
    uint64_t state = mix_node(1, cap_tree.root);

    for (const struct cap_link *link = head->next; link != head; link = link->next) {
        state = mix(state, (uintptr_t)link);
        if (link_is_marker(link)) {
            continue;
        }
        const struct cap *slot = (const struct cap *)(const void *)link;
        state = mix(state, (uintptr_t)slot->object);
        state = mix(state, (uint64_t)slot->mark << 32 | slot->users);
        state = mix(state, (uint64_t)slot->generation << 32 | slot->level);
        state = mix(state, (uint64_t)slot->type << 24 | (uint64_t)slot->rights << 16 |
                               (uint64_t)slot->flags << 8 | slot->depth);
        if (slot->type == CAP_CNODE && (slot->flags & CAP_FIRST)) {
            state = mix_node(state, slot->object);
        }
        if (slot->type == CAP_POOL && (slot->flags & CAP_FIRST)) {
            const struct pool *pool = slot->object;
            state = mix(state, (uintptr_t)pool->spaces ^ pool->dying);
        }
    }
    return state;
}

typedef enum cleave_status call_t(struct mm_ctx *ctx, struct cnode *root, cap_t source);

static enum cleave_status run(const struct cap_rig *rig, struct cnode *node, cap_t source,
                              uint64_t every, call_t *call)
{
    enum cleave_status status;
    uint64_t calls = 0;

    do {
        rig->ctx->budget = every;
        status = call(rig->ctx, node, source);
        (void)rig_audit(rig);
        calls++;
        REQUIRE(calls < 1000000);
    } while (status == CLEAVE_AGAIN);
    rig->ctx->budget = UINT64_MAX;
    return status;
}

enum cleave_status rig_revoke(const struct cap_rig *rig, struct cnode *node, cap_t source,
                              uint64_t every)
{
    return run(rig, node, source, every, cap_revoke);
}

enum cleave_status rig_delete(const struct cap_rig *rig, struct cnode *node, cap_t source,
                              uint64_t every)
{
    return run(rig, node, source, every, cap_delete);
}
