/* SPDX-License-Identifier: BSD-2-Clause */
#include "xc.h"

xc_interface *xc;
unsigned failed;

xc_dominfo_t info_of(uint32_t domid)
{
    xc_dominfo_t info;
    if (xc_domain_getinfo(xc, domid, 1, &info) != 1 || info.domid != domid) {
        memset(&info, 0, sizeof(info));
        info.domid = DOMID_INVALID;
    }
    return info;
}

uint32_t create(uint32_t domid, unsigned vcpus)
{
    struct xen_domctl_createdomain config = {
        .flags = XEN_DOMCTL_CDF_hvm | XEN_DOMCTL_CDF_hap,
        .max_vcpus = vcpus,
        .max_evtchn_port = 1023,
        .max_grant_frames = 32,
        .max_maptrack_frames = 32,
        .arch = {.emulation_flags = XEN_X86_EMU_ALL & ~XEN_X86_EMU_VPCI}};
    uint32_t id = domid;
    CHECK_EQ(xc_domain_create(xc, &id, &config), 0);
    CHECK(domid == 0 || id == domid);
    return id;
}

uint32_t fork_template(uint32_t domid)
{
    uint32_t id = create(domid, 1);
    CHECK_EQ(xc_memshr_fork(xc, TEMPLATE, id, true, false), 0);
    return id;
}

void destroy(uint32_t domid)
{
    CHECK_EQ(xc_domain_destroy(xc, domid), 0);
    CHECK_EQ(info_of(domid).domid, DOMID_INVALID);
}

int main(void)
{
    xc = xc_interface_open(NULL, NULL, 0);
    CHECK(xc != NULL);
    if (xc != NULL) {
        test();
        xc_interface_close(xc);
    }
    return failed != 0;
}
