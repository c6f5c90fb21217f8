/* SPDX-License-Identifier: BSD-2-Clause */
/* What a domain's maker says of it: parameters, a memory map, its end; and which pages it has. */
#include "xc.h"

#include <xen/hvm/params.h>
#include <xen/memory.h>

/* Numbers that mean nothing any more, and features that there are not. */
static bool is_gone(uint32_t index)
{
    return index == 4 || index == 13 || (index >= 20 && index <= 26) || index == 30;
}

static bool is_missing(uint32_t index)
{
    return index == HVM_PARAM_VIRIDIAN || index == HVM_PARAM_ALTP2M || index == HVM_PARAM_MCA_CAP;
}

/* Sets it to a value that is none of its own, and reads it again. */
static void set_any(uint32_t id, uint32_t index)
{
    const bool refused = is_gone(index) || is_missing(index);
    const uint64_t any = UINT64_C(0x123456789a00) + index;
    uint64_t value = 0;
    errno = 0;
    int result = xc_hvm_param_set(xc, id, index, any);
    says("set parameter %u: %s", index, result == 0 ? "done" : strerrorname_np(errno));
    CHECK(refused ? result != 0 && errno == EINVAL : result == 0);
    errno = 0;
    result = xc_hvm_param_get(xc, id, index, &value);
    says("get parameter %u: %s", index, result == 0 ? "done" : strerrorname_np(errno));
    says("parameter %u is what was set: %d", index, value == any);
    CHECK(is_gone(index) ? result != 0 && errno == EINVAL
                         : result == 0 && value == (refused ? 0 : any));
}

static void parameters(void)
{
    uint64_t value;
    uint32_t id = create(0, 1);
    ANSWER_EQ(xc_hvm_param_get(xc, id, HVM_PARAM_STORE_PFN, &value), 0);
    ANSWER_EQ(value, 0);
    for (uint32_t i = 1; i < HVM_NR_PARAMS; i++) {
        set_any(id, i);
    }
    ANSWER_EQ(xc_hvm_param_set(xc, id, HVM_PARAM_CALLBACK_IRQ, UINT64_C(2) << 56 | 0xf3), 0);
    ANSWER_EQ(xc_hvm_param_get(xc, id, HVM_PARAM_CALLBACK_IRQ, &value), 0);
    ANSWER_EQ(value == (UINT64_C(2) << 56 | 0xf3), 1);
    CHECK_ERRNO(xc_hvm_param_set(xc, id, HVM_PARAM_CALLBACK_IRQ, 5), EINVAL);
    CHECK_ERRNO(xc_hvm_param_set(xc, id, HVM_NR_PARAMS, 5), EINVAL);
    CHECK_ERRNO(xc_hvm_param_get(xc, id, HVM_NR_PARAMS, &value), EINVAL);
    CHECK_ERRNO(xc_hvm_param_get(xc, 99, HVM_PARAM_STORE_PFN, &value), ESRCH);
    CHECK_ERRNO(xc_hvm_param_set(xc, 99, HVM_PARAM_STORE_PFN, 1), ESRCH);
    destroy(id);
    id = fork_template(0);
    ANSWER_EQ(xc_hvm_param_set(xc, id, HVM_PARAM_STORE_PFN, 77), 0);
    ANSWER_EQ(xc_hvm_param_get(xc, id, HVM_PARAM_STORE_PFN, &value), 0);
    ANSWER_EQ(value, 77);
    ANSWER_EQ(xc_hvm_param_get(xc, TEMPLATE, HVM_PARAM_STORE_PFN, &value), 0);
    ANSWER_EQ(value, 0);
    destroy(id);
}

/* The console of a domain that the hypervisor has made is the hypervisor's. */
static void console_parameters(void)
{
    uint64_t value;
    if (!forks_here("console of the hypervisor")) {
        return;
    }
    CHECK_EQ(xc_hvm_param_get(xc, TEMPLATE, HVM_PARAM_CONSOLE_EVTCHN, &value), 0);
    CHECK_EQ(value, 1);
    CHECK_EQ(xc_hvm_param_get(xc, TEMPLATE, HVM_PARAM_CONSOLE_PFN, &value), 0);
    CHECK_EQ(value, 0xfefff);
    CHECK_FAILS(xc_hvm_param_set(xc, TEMPLATE, HVM_PARAM_CONSOLE_PFN, 1), EPERM);
}

/* What a domain is told of its own map, here this one, in as many entries as it has room for. */
static void own_map(struct e820entry *map)
{
    struct e820entry *told = raw_buffer(1);
    struct xen_memory_map *list = raw_buffer(1);
    list->nr_entries = 8;
    list->buffer.p = told;
    uint64_t at = (uint64_t)(uintptr_t)list;
    CHECK_ERRNO(xencall2(raw, __HYPERVISOR_memory_op, XENMEM_memory_map, at), ENOSYS);
    ANSWER_EQ(xc_domain_set_memory_map(xc, 0, map, 5), 0);
    ANSWER_EQ(xencall2(raw, __HYPERVISOR_memory_op, XENMEM_memory_map, at), 0);
    ANSWER_EQ(list->nr_entries, 5);
    ANSWER_EQ(memcmp(told, map, 5 * sizeof(*map)) == 0, 1);
    memset(told, 0, PAGE);
    list->nr_entries = 3;
    ANSWER_EQ(xencall2(raw, __HYPERVISOR_memory_op, XENMEM_memory_map, at), 0);
    ANSWER_EQ(list->nr_entries, 3);
    ANSWER_EQ(memcmp(told, map, 3 * sizeof(*map)) == 0, 1);
    ANSWER_EQ(told[3].size, 0);
    list->buffer.p = NULL;
    CHECK_ERRNO(xencall2(raw, __HYPERVISOR_memory_op, XENMEM_memory_map, at), EFAULT);
    ANSWER_EQ(xc_domain_set_memory_map(xc, 0, map, 0), 0);
    CHECK_ERRNO(xencall2(raw, __HYPERVISOR_memory_op, XENMEM_memory_map, at), ENOSYS);
    xencall_free_buffer_pages(raw, told, 1);
    xencall_free_buffer_pages(raw, list, 1);
}

static void memory_maps(void)
{
    static struct e820entry map[65], machine[128];
    xc_physinfo_t info;
    uint64_t ram = 0;
    uint32_t id = create(0, 1);
    for (unsigned i = 0; i < 65; i++) {
        map[i] = (struct e820entry){.addr = (uint64_t)i << 20, .size = 1 << 20, .type = 1};
    }
    ANSWER_EQ(xc_domain_set_memory_map(xc, id, map, 64), 0);
    CHECK_ERRNO(xc_domain_set_memory_map(xc, id, map, 65), EINVAL);
    ANSWER_EQ(xc_domain_set_memory_map(xc, id, map, 1), 0);
    CHECK_ERRNO(xc_domain_set_memory_map(xc, 99, map, 1), ESRCH);
    own_map(map);
    destroy(id);
    int count = xc_get_machine_memory_map(xc, machine, 128), others = 0;
    says("machine's memory map: %s", count > 0 ? "given" : strerrorname_np(errno));
    CHECK(count > 0 && count < 128);
    if (count <= 0) {
        return;
    }
    for (int i = 0; i < count; i++) {
        others += machine[i].type != 1;
        CHECK(i == 0 || machine[i].addr >= machine[i - 1].addr + machine[i - 1].size);
        ram += machine[i].type == 1 ? machine[i].size : 0;
    }
    CHECK_EQ(others, 0);
    CHECK_EQ(xc_physinfo(xc, &info), 0);
    CHECK(ram >= info.total_pages * PAGE && ram <= UINT64_C(3) << 30);
    CHECK_EQ(xc_get_machine_memory_map(xc, machine, 2), count < 2 ? count : 2);
}

/* Reasons are told as they were given; a domain that has ended keeps its own. */
static void ends(void)
{
    static const uint8_t reasons[] = {SHUTDOWN_poweroff, SHUTDOWN_reboot, SHUTDOWN_suspend,
                                      SHUTDOWN_crash};
    for (unsigned i = 0; i < sizeof(reasons); i++) {
        uint32_t id = fork_template(0);
        CHECK_EQ(xc_domain_unpause(xc, id), 0);
        ANSWER_EQ(info_of(id).shutdown, 0);
        ANSWER_EQ(xc_domain_shutdown(xc, id, reasons[i]), 0);
        xc_dominfo_t info = info_of(id);
        ANSWER_EQ(reasons[i] == SHUTDOWN_crash ? info.crashed : info.shutdown, 1);
        ANSWER_EQ(info.dying || info.running, 0);
        ANSWER_EQ(info.shutdown_reason, reasons[i]);
        ANSWER_EQ(xc_domain_shutdown(xc, id, SHUTDOWN_reboot), 0);
        ANSWER_EQ(info_of(id).shutdown_reason, reasons[i]);
        destroy(id);
    }
    uint32_t id = fork_template(0);
    CHECK_ERRNO(xc_domain_shutdown(xc, id, 77), EINVAL);
    ANSWER_EQ(info_of(id).shutdown, 0);
    destroy(id);
    CHECK_ERRNO(xc_domain_shutdown(xc, 99, SHUTDOWN_poweroff), ESRCH);
    if (forks_here("shutdown of the control domain")) { /* Xen does it */
        CHECK_FAILS(xc_domain_shutdown(xc, 0, SHUTDOWN_poweroff), EINVAL);
    }
}

static int types_of(uint32_t id, uint64_t *list, uint64_t count)
{
    struct xen_domctl op = {.cmd = XEN_DOMCTL_getpageframeinfo3,
                            .interface_version = XEN_DOMCTL_INTERFACE_VERSION,
                            .domain = (domid_t)id,
                            .u.getpageframeinfo3.num = count};
    op.u.getpageframeinfo3.array.p = list;
    return raw_domctl(&op);
}

static void page_types(void)
{
    uint64_t *list = raw_buffer(3), there[4];
    uint32_t id = create(0, 1);
    CHECK_EQ(xc_domain_setmaxmem(xc, id, 16 << 10), 0);
    for (unsigned i = 0; i < 4; i++) {
        there[i] = 8 + i;
    }
    CHECK_EQ(xc_domain_populate_physmap_exact(xc, id, 4, 0, 0, there), 0);
    for (unsigned i = 0; i < 1025; i++) {
        list[i] = i;
    }
    list[1000] = UINT64_MAX;
    list[1001] = UINT64_C(1) << 40;
    ANSWER_EQ(types_of(id, list, 1024), 0);
    unsigned wrong = 0;
    for (unsigned i = 0; i < 1024; i++) {
        wrong += list[i] != (i >= 8 && i < 12 ? XEN_DOMCTL_PFINFO_NOTAB : XEN_DOMCTL_PFINFO_XTAB);
    }
    ANSWER_EQ(wrong, 0);
    ANSWER_EQ(list[1024], 1024);
    CHECK_ERRNO(types_of(id, list, 1025), E2BIG);
    ANSWER_EQ(types_of(id, list, 0), 0);
    CHECK_ERRNO(types_of(id, NULL, 1), EFAULT);
    destroy(id);
    CHECK_ERRNO(types_of(id, list, 1), ESRCH);
    xencall_free_buffer_pages(raw, list, 3);
}

void test(void)
{
    parameters();
    console_parameters();
    memory_maps();
    ends();
    page_types();
}
