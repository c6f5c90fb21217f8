/* SPDX-License-Identifier: BSD-2-Clause */
/* Operations on pools, for the control domain: made of untyped memory, listed, resized, deleted;
 * and a domain in one of them. */
#include "hypercall.h"
#include "tenant.h"

_Static_assert(CLEAVE_POOL_NAME_SIZE == TENANT_NAME_SIZE, "names of pools are those of tenants");

static enum cleave_status check_control(struct call *call)
{
    return call->caller->control
               ? CLEAVE_OK
               : mm_fail(call->ctx, CLEAVE_DENIED, "caller", call->caller->id, 1, 0);
}

/* As those of domains, and shorter. */
static enum cleave_status check_name(struct call *call, const char name[CLEAVE_POOL_NAME_SIZE])
{
    char whole[CLEAVE_NAME_SIZE] = "";
    __builtin_memcpy(whole, name, CLEAVE_POOL_NAME_SIZE);
    return name[CLEAVE_POOL_NAME_SIZE - 1] == '\0' && domain_name_legal(whole)
               ? CLEAVE_OK
               : mm_fail(call->ctx, CLEAVE_INVALID, "name", 0, 1, 0);
}

enum cleave_status op_pool_create(struct call *call)
{
    struct cleave_pool_create *create = &call->args.pool_create;
    enum cleave_status status = check_control(call);
    if (status == CLEAVE_OK) {
        status = check_name(call, create->name);
    }
    if (status == CLEAVE_OK && create->size == 0) { /* "all" is for the boot configuration */
        status =
            mm_fail(call->ctx, CLEAVE_COUNT, "size", 0, level_pages(1) << PAGE_SHIFT, UINT64_MAX);
    }
    return status == CLEAVE_OK ? tenant_make(call->ctx, create->name, &create->size) : status;
}

enum cleave_status op_pool_list(struct call *call)
{
    struct cleave_pool_list *list = &call->args.pool_list;
    struct tenant_info info;
    enum cleave_status status = check_control(call);
    if (status != CLEAVE_OK) {
        return status;
    }
    if (list->number > TENANTS_MAX) {
        return mm_fail(call->ctx, CLEAVE_RANGE, "number", list->number, 0, TENANTS_MAX);
    }
    uint32_t index = list->number;
    while (index < TENANTS_MAX && !tenant_look(index, &info)) {
        index++;
    }
    *list = (struct cleave_pool_list){.left = tenant_room(call->ctx) << PAGE_SHIFT};
    if (index < TENANTS_MAX) {
        list->number = index + 1;
        list->spaces = info.spaces;
        list->size = info.frames << PAGE_SHIFT;
        list->free = info.free << PAGE_SHIFT;
        list->promised = info.reserved << PAGE_SHIFT;
        list->flags = info.closing ? CLEAVE_POOL_CLOSING : 0;
        __builtin_memcpy(list->name, info.name, sizeof(list->name));
    }
    return CLEAVE_OK;
}

enum cleave_status op_pool_resize(struct call *call)
{
    struct cleave_pool_resize *resize = &call->args.pool_resize;
    enum cleave_status status = check_control(call);
    if (status == CLEAVE_OK) {
        status = check_name(call, resize->name);
    }
    return status == CLEAVE_OK ? tenant_resize(call->ctx, resize->name, &resize->size) : status;
}

enum cleave_status op_pool_delete(struct call *call)
{
    const struct cleave_pool_delete *remove = &call->args.pool_delete;
    enum cleave_status status = check_control(call);
    if (status == CLEAVE_OK) {
        status = check_name(call, remove->name);
    }
    return status == CLEAVE_OK ? tenant_delete(call->ctx, remove->name) : status;
}
