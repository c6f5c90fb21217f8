/* SPDX-License-Identifier: BSD-2-Clause */
/* Domains are made, paused, forked, reset and destroyed, while domain 1 runs. */
#include "xc.h"

static void pauses_nest(void)
{
    CHECK_EQ(xc_domain_pause(xc, TEMPLATE), 0);
    CHECK_EQ(xc_domain_pause(xc, TEMPLATE), 0);
    CHECK(info_of(TEMPLATE).paused);
    uint64_t stood = info_of(TEMPLATE).cpu_time;
    CHECK_EQ(xc_domain_unpause(xc, TEMPLATE), 0);
    CHECK(info_of(TEMPLATE).paused);
    sleep(1);
    CHECK_EQ(info_of(TEMPLATE).cpu_time, stood);
    CHECK_EQ(xc_domain_unpause(xc, TEMPLATE), 0);
    CHECK(!info_of(TEMPLATE).paused);
    CHECK_ERRNO(xc_domain_unpause(xc, TEMPLATE), EINVAL);
    sleep(1);
    CHECK(info_of(TEMPLATE).cpu_time > stood);
}

static void forks(void)
{
    xc_physinfo_t before, after;
    CHECK_EQ(xc_physinfo(xc, &before), 0);
    uint32_t child = fork_template(7);
    xc_dominfo_t info = info_of(child);
    CHECK(info.paused && info.cpu_time == 0);
    CHECK_EQ(info.nr_pages, info_of(TEMPLATE).nr_pages);
    CHECK_EQ(info.nr_online_vcpus, 1);
    CHECK_EQ(xc_domain_unpause(xc, child), 0);
    sleep(1);
    CHECK(info_of(child).cpu_time > 0);
    CHECK(!info_of(child).shutdown);
    CHECK_EQ(xc_memshr_fork_reset(xc, child, true, true), 0);
    sleep(1);
    CHECK(!info_of(child).shutdown);
    uint32_t grandchild = create(0, 1);
    CHECK_EQ(xc_memshr_fork(xc, child, grandchild, true, false), 0);
    CHECK_EQ(xc_domain_unpause(xc, grandchild), 0);
    sleep(1);
    CHECK(info_of(grandchild).cpu_time > 0);
    destroy(child);
    CHECK(!info_of(grandchild).shutdown);
    destroy(grandchild);
    CHECK_EQ(xc_physinfo(xc, &after), 0);
    CHECK(after.free_pages + 512 > before.free_pages); /* domain 1 has written since */
}

static void refusals(void)
{
    struct xen_domctl_createdomain config = {.flags = XEN_DOMCTL_CDF_hvm, .max_vcpus = 1};
    uint32_t id = 0;
    CHECK_ERRNO(xc_domain_create(xc, &id, &config), EINVAL); /* without HAP */
    config.flags |= XEN_DOMCTL_CDF_hap;
    config.max_vcpus = 9;
    CHECK_ERRNO(xc_domain_create(xc, &id, &config), EINVAL);
    config.max_vcpus = 1;
    id = TEMPLATE;
    CHECK_ERRNO(xc_domain_create(xc, &id, &config), EEXIST);
    CHECK_ERRNO(xc_domain_pause(xc, 99), ESRCH);
    CHECK_ERRNO(xc_domain_destroy(xc, 99), ESRCH);
    CHECK_ERRNO(xc_domain_pause(xc, 0), EINVAL); /* it would not come back */
    CHECK_ERRNO(xc_domain_destroy(xc, 0), EINVAL);
    CHECK_ERRNO(xc_memshr_fork_reset(xc, TEMPLATE, true, true), EINVAL); /* no fork */
    id = create(0, 1);
    CHECK_ERRNO(xc_memshr_fork(xc, 99, id, true, false), ESRCH);
    CHECK_ERRNO(xc_memshr_fork(xc, TEMPLATE, 99, true, false), ESRCH);
    CHECK_ERRNO(xc_memshr_fork(xc, id, id, true, false), EINVAL);
    CHECK_ERRNO(xc_memshr_fork(xc, 0, id, true, false), EINVAL);
    CHECK_EQ(xc_domain_max_vcpus(xc, id, 1), 0);
    CHECK_ERRNO(xc_domain_max_vcpus(xc, id, 2), EINVAL);
    CHECK_EQ(xc_memshr_fork(xc, TEMPLATE, id, true, false), 0);
    CHECK_ERRNO(xc_memshr_fork(xc, TEMPLATE, id, true, false), EINVAL); /* it is one */
    destroy(id);
    id = create(0, 2);
    CHECK_ERRNO(xc_memshr_fork(xc, TEMPLATE, id, true, false), EINVAL); /* other vcpus */
    destroy(id);
}

void test(void)
{
    pauses_nest();
    forks();
    refusals();
}
