/* SPDX-License-Identifier: BSD-2-Clause */
/* Version, the machine, and lists of domains. */
#include "xc.h"

static void machine(void)
{
    xc_physinfo_t info;
    xen_extraversion_t extra;
    xen_capabilities_info_t capabilities;
    ANSWER_EQ(xc_version(xc, XENVER_version, NULL), 4 << 16 | 17);
    ANSWER_EQ(xc_version(xc, XENVER_extraversion, &extra), 0);
    ANSWER_EQ(strcmp(extra, "-cleave"), 0);
    ANSWER_EQ(xc_version(xc, XENVER_capabilities, &capabilities), 0);
    ANSWER_EQ(strstr(capabilities, "hvm-3.0-x86_64") != NULL, 1);
    ANSWER_EQ(xc_physinfo(xc, &info), 0);
    ANSWER_EQ(info.nr_cpus >= 1 && info.max_cpu_id + 1 == info.nr_cpus, 1);
    ANSWER_EQ(info.cpu_khz > 1000, 1);
    ANSWER_EQ(info.free_pages < info.total_pages, 1);
    ANSWER_EQ(info.capabilities, XEN_SYSCTL_PHYSCAP_hvm | XEN_SYSCTL_PHYSCAP_hap);
    printf("%u CPUs of %u kHz, %lu MiB, %lu MiB free\n", info.nr_cpus, info.cpu_khz,
           (unsigned long)(info.total_pages >> 8), (unsigned long)(info.free_pages >> 8));
}

static int listed(uint32_t first, unsigned room, xc_domaininfo_t *all)
{
    char text[64] = "";
    int count = xc_domain_getinfolist(xc, first, room, all);
    for (int i = 0; i < count; i++) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof(text) - used, " %u", all[i].domain);
    }
    says("list of %u from %u:%s", room, first, text);
    return count;
}

/* With 0, 1, 2, 3 and 7 alive these are listed, from wherever one begins. */
static void lists(void)
{
    xc_domaininfo_t all[8];
    xc_dominfo_t some[8];
    create(7, 2);
    create(3, 1);
    CHECK_EQ(listed(0, 8, all), 5);
    CHECK(all[0].domain == 0 && all[1].domain == 1 && all[2].domain == 2);
    CHECK(all[3].domain == 3 && all[4].domain == 7);
    CHECK_EQ(listed(3, 8, all), 2);
    CHECK(all[0].domain == 3 && all[1].domain == 7);
    CHECK_EQ(listed(0, 2, all), 2);
    CHECK_EQ(listed(8, 8, all), 0);
    ANSWER_EQ(xc_domain_getinfo(xc, 0, 8, some), 5);
    CHECK(some[0].domid == 0 && some[1].domid == 1 && some[2].domid == 2);
    CHECK(some[3].domid == 3 && some[4].domid == 7);
    ANSWER_EQ(xc_domain_getinfo(xc, 4, 8, some), 1);
    ANSWER_EQ(some[0].domid, 7);
    ANSWER_EQ(some[0].hvm && some[0].hap && some[0].paused, 1);
    ANSWER_EQ(some[0].dying || some[0].shutdown, 0);
    ANSWER_EQ(some[0].max_vcpu_id, 1);
    ANSWER_EQ(some[0].nr_online_vcpus, 0);
    ANSWER_EQ(some[0].nr_pages, 0);
    CHECK_ERRNO(xc_domain_getinfo(xc, 8, 8, some), ESRCH);
    destroy(3);
    destroy(7);
}

static void vcpus(void)
{
    xc_vcpuinfo_t vcpu;
    xc_dominfo_t own = info_of(0), other = info_of(TEMPLATE);
    ANSWER_EQ(own.running && own.nr_pages > 0 && own.cpu_time > 0, 1);
    ANSWER_EQ(other.cpu_time > 0, 1);
    ANSWER_EQ(other.nr_pages, (128 << 20) / PAGE);
    ANSWER_EQ(xc_vcpu_getinfo(xc, TEMPLATE, 0, &vcpu), 0);
    ANSWER_EQ(vcpu.online && vcpu.cpu_time > 0, 1);
    CHECK_ERRNO(xc_vcpu_getinfo(xc, TEMPLATE, 1, &vcpu), EINVAL);
    CHECK_ERRNO(xc_vcpu_getinfo(xc, 99, 0, &vcpu), ESRCH);
}

void test(void)
{
    machine();
    lists();
    vcpus();
}
