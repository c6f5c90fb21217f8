/* SPDX-License-Identifier: BSD-2-Clause */
#include "xc.h"

#include <stdarg.h>

#define MEMORY (128u << 20) /* of domains 1 and 2, and their forks */
#define BATCH 32u           /* pages mapped at a time */
#define XMM1_AT 176u        /* in the FXSAVE area */

xc_interface *xc;
xencall_handle *raw;
unsigned failed;
static bool forks;

/* --- Answers ---------------------------------------------------------------------------------- */

void says(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    printf("answer %s: ", program_invocation_short_name);
    vprintf(format, list);
    putchar('\n');
    va_end(list);
}

static const char *error_name(int error) { return error != 0 ? strerrorname_np(error) : "failed"; }

void answer_result(const char *file, int line, const char *call, long long result,
                   long long expected)
{
    int error = errno;
    if (result < 0) {
        says("%s: %s", call, error_name(error));
    } else {
        says("%s: %lld", call, result);
    }
    if (result != expected) {
        printf("FAILED %s:%d: %s (%lld, %lld; errno %d)\n", file, line, call, result, expected,
               error);
        failed++;
    }
}

void answer_error(const char *file, int line, const char *call, long long result, int expected)
{
    int error = errno;
    says("%s: %s", call, result < 0 ? error_name(error) : "done");
    if (result >= 0 || error != expected) {
        printf("FAILED %s:%d: %s (%lld, errno %d)\n", file, line, call, result, error);
        failed++;
    }
}

bool forks_here(const char *part)
{
    says("%s: %s", part, forks ? "forks" : "no forks");
    return forks;
}

/* --- Domains ---------------------------------------------------------------------------------- */

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

struct xen_domctl_createdomain config_of(unsigned vcpus)
{
    return (struct xen_domctl_createdomain){.flags = XEN_DOMCTL_CDF_hvm | XEN_DOMCTL_CDF_hap,
                                            .max_vcpus = vcpus,
                                            .max_evtchn_port = 1023,
                                            .max_grant_frames = 32,
                                            .max_maptrack_frames = 32,
                                            .grant_opts = XEN_DOMCTL_GRANT_version(1),
                                            .arch = {.emulation_flags = XEN_X86_EMU_LAPIC}};
}

static uint32_t create_only(uint32_t domid, unsigned vcpus)
{
    struct xen_domctl_createdomain config = config_of(vcpus);
    uint32_t id = domid;
    CHECK_EQ(xc_domain_create(xc, &id, &config), 0);
    CHECK(domid == 0 || id == domid);
    return id;
}

uint32_t create(uint32_t domid, unsigned vcpus)
{
    uint32_t id = create_only(domid, vcpus);
    CHECK_EQ(xc_domain_max_vcpus(xc, id, vcpus), 0);
    return id;
}

uint32_t loop_create(uint32_t domid, uint32_t bytes)
{
    static xen_pfn_t list[LOOP_MAX >> 21];
    uint32_t id = create(domid, 1);
    CHECK_EQ(xc_domain_setmaxmem(xc, id, bytes >> 10), 0);
    for (unsigned i = 0; i < bytes >> 21; i++) {
        list[i] = (xen_pfn_t)i << 9;
    }
    CHECK_EQ(xc_domain_populate_physmap_exact(xc, id, bytes >> 21, 9, 0, list), 0);
    loop_load(id);
    loop_start(id, 0, 0xa9b);
    return id;
}

uint32_t fork_template(uint32_t domid)
{
    if (!forks) {
        return loop_create(domid, MEMORY);
    }
    uint32_t id = create(domid, 1);
    CHECK_EQ(xc_memshr_fork(xc, TEMPLATE, id, true, false), 0);
    return id;
}

void destroy(uint32_t domid)
{
    CHECK_EQ(xc_domain_destroy(xc, domid), 0);
    CHECK_EQ(info_of(domid).domid, DOMID_INVALID);
}

/* --- The loop --------------------------------------------------------------------------------- */

/* inc %rax; mov %rax, DATA; mov %r15, DATA + 8; movq %xmm1, DATA + 16; again */
static const uint8_t loop[] = {0x48, 0xff, 0xc0, 0x48, 0x89, 0x04, 0x25, 0x00, 0x50, 0x00,
                               0x00, 0x4c, 0x89, 0x3c, 0x25, 0x08, 0x50, 0x00, 0x00, 0x66,
                               0x0f, 0xd6, 0x0c, 0x25, 0x10, 0x50, 0x00, 0x00, 0xeb, 0xe2};

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

void loop_load(uint32_t domid)
{
    uint8_t *memory = map_pages(domid, 0, BATCH, PROT_READ | PROT_WRITE);
    uint64_t *table[] = {(void *)(memory + LOOP_TOP * PAGE), (void *)(memory + LOOP_MIDDLE * PAGE),
                         (void *)(memory + LOOP_BOTTOM * PAGE)};
    table[0][0] = LOOP_MIDDLE * PAGE | 7;
    table[1][0] = LOOP_BOTTOM * PAGE | 7;
    table[2][0] = 0x87;
    memcpy(memory + LOOP_CODE * PAGE, loop, sizeof(loop));
    munmap(memory, BATCH * PAGE);
}

/* --- Contexts --------------------------------------------------------------------------------- */

static struct hvm_save_header header_of(uint32_t domid)
{
    static uint8_t context[64 << 10];
    struct hvm_save_header header;
    CHECK(xc_domain_hvm_getcontext(xc, domid, context, sizeof(context)) > 0);
    memcpy(&header, context + sizeof(struct hvm_save_descriptor), sizeof(header));
    return header;
}

struct cpu_only cpu_context(uint32_t domid, uint16_t vcpu)
{
    return (struct cpu_only){.header_is = {HVM_SAVE_CODE(HEADER), 0, HVM_SAVE_LENGTH(HEADER)},
                             .header = header_of(domid),
                             .cpu_is = {HVM_SAVE_CODE(CPU), vcpu, HVM_SAVE_LENGTH(CPU)}};
}

struct mtrr_only mtrr_context(uint32_t domid, uint16_t vcpu)
{
    return (struct mtrr_only){.header_is = {HVM_SAVE_CODE(HEADER), 0, HVM_SAVE_LENGTH(HEADER)},
                              .header = header_of(domid),
                              .mtrr_is = {HVM_SAVE_CODE(MTRR), vcpu, HVM_SAVE_LENGTH(MTRR)}};
}

/* 64-bit code in ring 0, with nothing else. */
void loop_start(uint32_t domid, uint16_t vcpu, uint32_t code_attributes)
{
    static const uint32_t mxcsr = 0x1f80;
    static const uint64_t xmm1 = LOOP_XMM1;
    struct cpu_only state = cpu_context(domid, vcpu);
    state.cpu = (struct hvm_hw_cpu){.rip = LOOP_CODE * PAGE,
                                    .rflags = 2,
                                    .r15 = LOOP_R15,
                                    .cr0 = 0x80000011,
                                    .cr3 = LOOP_TOP * PAGE,
                                    .cr4 = 0x220, /* PAE, OSFXSR */
                                    .dr6 = 0xffff0ff0,
                                    .dr7 = 0x400,
                                    .cs_sel = 8,
                                    .cs_limit = UINT32_MAX,
                                    .cs_arbytes = code_attributes,
                                    .ss_sel = 16,
                                    .ss_limit = UINT32_MAX,
                                    .ss_arbytes = 0xc93,
                                    .tr_limit = 0x67,
                                    .tr_arbytes = 0x8b,
                                    .msr_efer = 0x500,
                                    .flags = XEN_X86_FPU_INITIALISED};
    memcpy(state.cpu.fpu_regs + 24, &mxcsr, sizeof(mxcsr));
    memcpy(state.cpu.fpu_regs + XMM1_AT, &xmm1, sizeof(xmm1));
    CHECK_EQ(xc_domain_hvm_setcontext(xc, domid, (void *)&state, sizeof(state)), 0);
}

/* Its tables and its code lie where the loop's do. */
void tiny_start(uint32_t domid) { loop_start(domid, 0, 0xa9b); }

/* ---------------------------------------------------------------------------------------------- */

/* Another hypervisor than Cleave has neither forks nor domains 1 and 2 when it has booted. */
static void prepare(void)
{
    forks =
        xc_memshr_fork(xc, DOMID_FIRST_RESERVED - 1, DOMID_FIRST_RESERVED - 1, false, false) == 0 ||
        errno != ENOSYS;
    for (uint32_t id = TEMPLATE; !forks && id <= TEMPLATE + 1; id++) {
        if (info_of(id).domid == DOMID_INVALID) {
            CHECK_EQ(xc_domain_unpause(xc, loop_create(id, MEMORY)), 0);
        }
    }
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    xc = xc_interface_open(NULL, NULL, 0);
    raw = xencall_open(NULL, 0);
    CHECK(xc != NULL && raw != NULL);
    if (xc != NULL && raw != NULL) {
        prepare();
        test();
        xencall_close(raw);
        xc_interface_close(xc);
    }
    return failed != 0;
}
