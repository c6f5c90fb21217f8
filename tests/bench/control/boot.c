/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Debian's cloud kernel as a PVH guest that powers itself off with its first process. It is built
 * by calls of libxenctrl alone, the same on both hypervisors: where everything lies, and the tables
 * that say so, are the hypervisor's own source (hv/kernel/pvh.c, elf.c, guest_acpi.c). It gets
 * neither a console nor a xenstore.
 */
#include "figures.h"

#include "guest_acpi.h"
#include "pvh.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <xenevtchn.h>

#define BOOTS 3u
#define MEMORY (128u << 20)
#define BATCH 1024u       /* pages mapped at a time */
#define NATIVE_TSC 2u     /* TSC_MODE_NEVER_EMULATE: Xen would intercept RDTSC here */
#define MTRR_TYPES 0x806u /* on, what no range names is write-back */
#define WAIT_MS 600000    /* for its end; of the guest's own time it is some seconds */

struct file {
    const void *at;
    size_t size;
};

static struct file kernel, initrd;
static struct pvh_guest guest;
static xenevtchn_handle *events;
static int port;

/* All of it is in memory. */
static struct file file_of(const char *path)
{
    struct file file = {.at = MAP_FAILED};
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &about) == 0) {
        file.size = (size_t)about.st_size;
        file.at = mmap(NULL, file.size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    }
    CHECK(file.at != MAP_FAILED);
    return file;
}

static void load(uint32_t id, uint64_t at, const void *bytes, size_t size)
{
    for (size_t done = 0, part; done < size; done += part, at += part) {
        size_t room = BATCH * PAGE - at % PAGE;
        part = size - done < room ? size - done : room;
        unsigned pages = (unsigned)((at % PAGE + part + PAGE - 1) / PAGE);
        uint8_t *memory = map_pages(id, (unsigned)(at / PAGE), pages, PROT_READ | PROT_WRITE);
        memcpy(memory + at % PAGE, (const uint8_t *)bytes + done, part);
        munmap(memory, (size_t)pages * PAGE);
    }
}

/* As the boot protocol says (Xen's docs/misc/pvh.pandoc). */
static void set_vcpu(uint32_t id)
{
    struct mtrr_only types = mtrr_context(id, 0);
    struct cpu_only state = cpu_context(id, 0);
    (void)xc_domain_hvm_getcontext_partial(xc, id, HVM_SAVE_CODE(MTRR), 0, &types.mtrr,
                                           sizeof(types.mtrr));
    types.mtrr.msr_mtrr_def_type = MTRR_TYPES;
    (void)xc_domain_hvm_setcontext(xc, id, (void *)&types, sizeof(types));
    state.cpu = (struct hvm_hw_cpu){.rip = guest.kernel.entry,
                                    .rflags = 2,
                                    .rbx = PVH_START_INFO,
                                    .cr0 = 0x11,
                                    .dr6 = 0xffff0ff0,
                                    .dr7 = 0x400,
                                    .cs_limit = UINT32_MAX,
                                    .cs_arbytes = 0xc9b,
                                    .ds_limit = UINT32_MAX,
                                    .ds_arbytes = 0xc93,
                                    .es_limit = UINT32_MAX,
                                    .es_arbytes = 0xc93,
                                    .ss_limit = UINT32_MAX,
                                    .ss_arbytes = 0xc93,
                                    .tr_limit = 0x67,
                                    .tr_arbytes = 0x8b};
    CHECK_EQ(xc_domain_hvm_setcontext(xc, id, (void *)&state, sizeof(state)), 0);
}

static uint32_t build(void)
{
    static xen_pfn_t extents[MEMORY >> 21];
    static uint8_t page[PAGE];
    uint32_t id = create(0, 1);
    (void)xc_domain_set_tsc_info(xc, id, NATIVE_TSC, 0, 0, 0);
    CHECK_EQ(xc_domain_setmaxmem(xc, id, MEMORY >> 10), 0);
    for (unsigned i = 0; i < MEMORY >> 21; i++) {
        extents[i] = (xen_pfn_t)i << 9;
    }
    CHECK_EQ(xc_domain_populate_physmap_exact(xc, id, MEMORY >> 21, 9, 0, extents), 0);
    pvh_start_page(page, &guest, "", false);
    load(id, PVH_START_INFO, page, PAGE);
    guest_acpi(page, (uint32_t)PVH_ACPI_TABLES, 1);
    load(id, PVH_ACPI_TABLES, page, GUEST_ACPI_SIZE);
    for (unsigned i = 0; i < guest.kernel.segments; i++) {
        const struct elf_segment *s = &guest.kernel.segment[i];
        load(id, s->at, (const uint8_t *)kernel.at + s->offset, s->file_size);
    }
    load(id, guest.initrd, initrd.at, initrd.size);
    set_vcpu(id);
    return id;
}

/* Told by VIRQ_DOM_EXC, so that nothing else runs here meanwhile. */
static xc_dominfo_t end_of(uint32_t id)
{
    struct pollfd file = {.fd = xenevtchn_fd(events), .events = POLLIN};
    xc_dominfo_t info = info_of(id);
    while (!info.shutdown && !info.crashed && poll(&file, 1, WAIT_MS) == 1) {
        (void)xenevtchn_unmask(events, (evtchn_port_t)xenevtchn_pending(events));
        info = info_of(id);
    }
    return info;
}

static void build_and_boot(void)
{
    uint32_t id = 0;
    xc_dominfo_t info;
    MEASURE(BUILD, id = build());
    MEASURE(BOOT, {
        (void)xc_domain_unpause(xc, id);
        info = end_of(id);
    });
    CHECK(info.shutdown && info.shutdown_reason == SHUTDOWN_poweroff);
    destroy(id);
}

void boots(void)
{
    kernel = file_of("/guest/vmlinux");
    initrd = file_of("/guest/initrd");
    events = xenevtchn_open(NULL, 0);
    port = events != NULL ? (int)xenevtchn_bind_virq(events, VIRQ_DOM_EXC) : -1;
    CHECK(port > 0);
    if (kernel.at == MAP_FAILED || initrd.at == MAP_FAILED || port <= 0) {
        return;
    }
    const char *wrong = pvh_plan(kernel.at, kernel.size, initrd.size, MEMORY, &guest);
    if (wrong != NULL) {
        printf("FAILED %s\n", wrong);
        failed++;
        return;
    }
    for (unsigned i = 0; i < BOOTS; i++) {
        build_and_boot();
    }
    xenevtchn_close(events);
}
