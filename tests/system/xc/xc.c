/* SPDX-License-Identifier: BSD-2-Clause */
#include "xc.h"

#include <xen/hvm/save.h>

xc_interface *xc;
xencall_handle *raw;
unsigned failed;

void *raw_buffer(size_t pages)
{
    void *at = xencall_alloc_buffer_pages(raw, pages);
    CHECK(at != NULL);
    if (at == NULL) {
        exit(1);
    }
    memset(at, 0, pages * PAGE);
    return at;
}

/* The one argument of a call, in a place of its own and back. */
static int with_argument(unsigned number, void *argument, size_t size)
{
    static void *buffer;
    if (buffer == NULL) {
        buffer = raw_buffer(1);
    }
    memcpy(buffer, argument, size);
    int result = xencall1(raw, number, (uint64_t)(uintptr_t)buffer);
    memcpy(argument, buffer, size);
    return result;
}

int raw_domctl(struct xen_domctl *op)
{
    return with_argument(__HYPERVISOR_domctl, op, sizeof(*op));
}

int raw_sysctl(struct xen_sysctl *op)
{
    return with_argument(__HYPERVISOR_sysctl, op, sizeof(*op));
}

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

uint8_t *map_pages(uint32_t domid, unsigned first, unsigned count, int protection)
{
    uint8_t *at = xc_map_foreign_range(xc, domid, (int)(count * PAGE), protection, first);
    CHECK(at != NULL);
    if (at == NULL) {
        exit(1);
    }
    return at;
}

uint32_t tiny_make(unsigned pages, const void *code, size_t size)
{
    static xen_pfn_t list[512];
    uint32_t id = create(0, 1);
    unsigned blocks = 0;
    CHECK_EQ(xc_domain_setmaxmem(xc, id, pages * 4), 0);
    for (unsigned i = 0; i < 512; i++) {
        list[i] = i;
    }
    CHECK_EQ(xc_domain_populate_physmap_exact(xc, id, pages < 512 ? pages : 512, 0, 0, list), 0);
    for (unsigned i = 512; i < pages; i += 512) {
        list[blocks++] = i;
    }
    CHECK_EQ(xc_domain_populate_physmap_exact(xc, id, blocks, 9, 0, list), 0);

    /* Nothing is left for the CPU to set in the tables. */
    uint8_t *memory = map_pages(id, 0, TINY_CODE + 1, PROT_READ | PROT_WRITE);
    uint64_t *bottom = (void *)(memory + TINY_BOTTOM * PAGE);
    *(uint64_t *)(memory + TINY_TOP * PAGE) = TINY_MIDDLE * PAGE | 0x27;
    *(uint64_t *)(memory + TINY_MIDDLE * PAGE) = TINY_BOTTOM * PAGE | 0x27;
    for (unsigned i = 0; i < 512; i++) {
        bottom[i] = (uint64_t)i << 21 | 0xe7;
    }
    memcpy(memory + TINY_CODE * PAGE, code, size);
    munmap(memory, (TINY_CODE + 1) * PAGE);
    return id;
}

/* 64-bit code in ring 0. */
void tiny_start(uint32_t domid)
{
    static uint8_t context[64 << 10];
    static const uint32_t mxcsr = 0x1f80;
    struct {
        struct hvm_save_descriptor header_is;
        struct hvm_save_header header;
        struct hvm_save_descriptor cpu_is;
        struct hvm_hw_cpu cpu;
        struct hvm_save_descriptor end_is;
    } state = {.header_is = {HVM_SAVE_CODE(HEADER), 0, HVM_SAVE_LENGTH(HEADER)},
               .cpu_is = {HVM_SAVE_CODE(CPU), 0, HVM_SAVE_LENGTH(CPU)},
               .cpu = {.rip = TINY_CODE * PAGE,
                       .rflags = 2,
                       .cr0 = 0x80000011,
                       .cr3 = TINY_TOP * PAGE,
                       .cr4 = 0x220, /* PAE, OSFXSR */
                       .dr6 = 0xffff0ff0,
                       .dr7 = 0x400,
                       .cs_sel = 8,
                       .cs_limit = UINT32_MAX,
                       .cs_arbytes = 0xa9b,
                       .ss_sel = 16,
                       .ss_limit = UINT32_MAX,
                       .ss_arbytes = 0xc93,
                       .tr_limit = 0x67,
                       .tr_arbytes = 0x8b,
                       .msr_efer = 0x500,
                       .flags = XEN_X86_FPU_INITIALISED}};
    memcpy(state.cpu.fpu_regs + 24, &mxcsr, sizeof(mxcsr));
    CHECK(xc_domain_hvm_getcontext(xc, domid, context, sizeof(context)) > 0);
    memcpy(&state.header, context + sizeof(struct hvm_save_descriptor), sizeof(state.header));
    CHECK_EQ(xc_domain_hvm_setcontext(xc, domid, (void *)&state, sizeof(state)), 0);
}

int main(void)
{
    xc = xc_interface_open(NULL, NULL, 0);
    raw = xencall_open(NULL, 0);
    CHECK(xc != NULL && raw != NULL);
    if (xc != NULL && raw != NULL) {
        test();
        xencall_close(raw);
        xc_interface_close(xc);
    }
    return failed != 0;
}
