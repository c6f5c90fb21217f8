/* SPDX-License-Identifier: BSD-2-Clause */
/* Domains that the command cleave makes, as libxenctrl sees them. */
#include "xc.h"

#define MEMORY (64u << 20)

static uint32_t make(const char *options)
{
    char command[256], line[64] = "";
    snprintf(command, sizeof(command), "cleave create --kernel=/guest/hello --memory=64M %s",
             options);
    FILE *said = popen(command, "r");
    CHECK(said != NULL && fgets(line, sizeof(line), said) != NULL);
    CHECK_EQ(said != NULL ? pclose(said) : -1, 0);
    return (uint32_t)strtoul(line, NULL, 10);
}

/* It can be built on: its memory is counted, and its vcpu stands at the entry. */
static void paused(void)
{
    struct hvm_hw_cpu cpu;
    uint32_t id = make("--paused --vcpus=2");
    xc_dominfo_t info = info_of(id);
    xen_pfn_t page = MEMORY / PAGE;

    CHECK_EQ(info.nr_pages, MEMORY / PAGE);
    CHECK(info.paused && !info.shutdown && info.hvm && info.max_vcpu_id == 1);
    CHECK_EQ(info.nr_online_vcpus, 1);
    CHECK_EQ(xc_domain_hvm_getcontext_partial(xc, id, HVM_SAVE_CODE(CPU), 0, &cpu, sizeof(cpu)), 0);
    CHECK_EQ(cpu.rbx, 0xf0000);
    CHECK(cpu.cr0 == 0x11 && cpu.cr3 == 0 && cpu.rip >= 0x100000 && cpu.rip < MEMORY);
    CHECK_EQ(xc_domain_populate_physmap(xc, id, 1, 0, 0, &page), 0); /* beyond what it may have */
    CHECK_EQ(xc_domain_setmaxmem(xc, id, MEMORY / 1024 + 4), 0);
    CHECK_EQ(xc_domain_populate_physmap(xc, id, 1, 0, 0, &page), 1);
    CHECK_EQ(info_of(id).nr_pages, MEMORY / PAGE + 1);
    uint8_t *start = xc_map_foreign_range(xc, id, PAGE, PROT_READ, 0xf0);
    CHECK(start != NULL);
    if (start != NULL) {
        CHECK(memcmp(start, "\x78\xc5\x6e\x33", 4) == 0);
        munmap(start, PAGE);
    }
    destroy(id);
}

static void forked(void)
{
    uint32_t id = make("--paused"), child = create(0, 1);
    CHECK_EQ(xc_memshr_fork(xc, id, child, true, false), 0);
    CHECK_EQ(info_of(child).nr_pages, MEMORY / PAGE);
    CHECK_EQ(xc_domain_unpause(xc, child), 0);
    for (unsigned i = 0; i < 50 && !info_of(child).shutdown; i++) {
        usleep(100000);
    }
    CHECK(info_of(child).shutdown && !info_of(id).shutdown);
    destroy(child);
    destroy(id);
}

void test(void)
{
    paused();
    forked();
}
