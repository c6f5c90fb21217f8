/* SPDX-License-Identifier: BSD-2-Clause */
/* The state of a Linux that stands still is read, written and read again; what is wrong changes
 * nothing. */
#include "xc.h"

#include <stddef.h>

#define SIZE_MAX_HERE (64u << 10)
#define SWAPGS "\x0f\x01\xf8"

static uint8_t before[SIZE_MAX_HERE], after[SIZE_MAX_HERE], wrong[SIZE_MAX_HERE];
static uint32_t size, child;
static bool clock_goes_on;

/* The descriptor of the record, in a context; NULL: there is none. */
static struct hvm_save_descriptor *find(uint8_t *context, unsigned type, unsigned instance)
{
    for (uint32_t at = 0; at < size;) {
        struct hvm_save_descriptor *descriptor = (void *)(context + at);
        if (descriptor->typecode == type && descriptor->instance == instance) {
            return descriptor;
        }
        if (descriptor->typecode == HVM_SAVE_CODE(END)) {
            break;
        }
        at += (uint32_t)sizeof(*descriptor) + descriptor->length;
    }
    return NULL;
}

/* What a record holds; zeros when there is none. */
static void *body(uint8_t *context, unsigned type)
{
    static uint8_t nothing[SIZE_MAX_HERE];
    struct hvm_save_descriptor *descriptor = find(context, type, 0);
    CHECK(descriptor != NULL);
    return descriptor != NULL ? (void *)(descriptor + 1) : nothing;
}

/* Whether the context is what it was; else it is written again. Where the clock of what stands
 * still goes on, the TSC does not count. */
static bool same_as_before(void)
{
    uint32_t at = 0;
    memset(after, 0xee, sizeof(after));
    if (xc_domain_hvm_getcontext(xc, child, after, sizeof(after)) == (int)size) {
        if (clock_goes_on) {
            memcpy(&((struct hvm_hw_cpu *)body(after, HVM_SAVE_CODE(CPU)))->tsc,
                   &((struct hvm_hw_cpu *)body(before, HVM_SAVE_CODE(CPU)))->tsc, 8);
        }
        while (at < size && before[at] == after[at]) {
            at++;
        }
    }
    if (at < size) {
        printf("they differ at %u: %02x, %02x\n", at, before[at], after[at]);
        CHECK_EQ(xc_domain_hvm_setcontext(xc, child, before, size), 0);
    }
    return at == size;
}

static void all_of_it(void)
{
    int needed = xc_domain_hvm_getcontext(xc, child, NULL, 0);
    ANSWER_EQ(needed > 0 && needed < (int)SIZE_MAX_HERE, 1);
    int got = xc_domain_hvm_getcontext(xc, child, before, sizeof(before));
    ANSWER_EQ(got == needed, 1);
    size = (uint32_t)got;
    (void)xc_domain_hvm_getcontext(xc, child, after, sizeof(after));
    ANSWER_EQ(memcmp(before, after, size) == 0, 1);
    clock_goes_on = memcmp(before, after, size) != 0;
    ANSWER_EQ(same_as_before(), 1);
    static const uint16_t types[] = {
        HVM_SAVE_CODE(HEADER), HVM_SAVE_CODE(CPU), HVM_SAVE_CODE(LAPIC), HVM_SAVE_CODE(LAPIC_REGS),
        HVM_SAVE_CODE(MTRR),   CPU_XSAVE_CODE,     HVM_SAVE_CODE(END)};
    for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        CHECK(find(before, types[i], 0) != NULL);
    }
    for (uint32_t at = 0; at < size;) {
        const struct hvm_save_descriptor *record = (const void *)(before + at);
        at += (uint32_t)sizeof(*record) + record->length;
        if (record->typecode == CPU_XSAVE_CODE) { /* as large as the CPU's */
            says("record %u of %u", record->typecode, record->instance);
        } else {
            says("record %u of %u: %u bytes", record->typecode, record->instance, record->length);
        }
    }
    ANSWER_EQ(xc_domain_hvm_setcontext(xc, child, before, size), 0);
    ANSWER_EQ(same_as_before(), 1);
    CHECK_ERRNO(xc_domain_hvm_getcontext(xc, child, after, size - 1), ENOSPC);
    CHECK_ERRNO(xc_domain_hvm_getcontext(xc, 99, after, size), ESRCH);
    CHECK_ERRNO(xc_domain_hvm_getcontext(xc, 0, after, size), EINVAL);
}

static void parts_of_it(void)
{
    HVM_SAVE_TYPE(CPU) cpu;
    HVM_SAVE_TYPE(MTRR) mtrr;
    struct cpu_only one = cpu_context(child, 0);
    struct mtrr_only other = mtrr_context(child, 0);
    CHECK_EQ(xc_domain_hvm_getcontext_partial(xc, child, HVM_SAVE_CODE(CPU), 0, &cpu, sizeof(cpu)),
             0);
    ANSWER_EQ(memcmp(&cpu, body(before, HVM_SAVE_CODE(CPU)), sizeof(cpu)) == 0, 1);
    CHECK_EQ(
        xc_domain_hvm_getcontext_partial(xc, child, HVM_SAVE_CODE(MTRR), 0, &mtrr, sizeof(mtrr)),
        0);
    ANSWER_EQ(memcmp(&mtrr, body(before, HVM_SAVE_CODE(MTRR)), sizeof(mtrr)) == 0, 1);
    static const struct {
        unsigned type, instance, size;
        int error;
    } calls[] = {{HVM_SAVE_CODE(CPU), 0, sizeof(cpu) - 1, ENOBUFS},
                 {HVM_SAVE_CODE(CPU), 1, sizeof(cpu), ENOENT},
                 {CPU_MSR_CODE, 0, sizeof(cpu), ENODATA}, /* there are none */
                 {HVM_SAVE_CODE(PIT), 0, sizeof(cpu), EINVAL},
                 {HVM_SAVE_CODE(HEADER), 0, sizeof(cpu), EINVAL},
                 {HVM_SAVE_CODE(END), 0, sizeof(cpu), EINVAL},
                 {1000, 0, sizeof(cpu), EINVAL}};
    for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        errno = 0;
        int result = xc_domain_hvm_getcontext_partial(
            xc, child, (uint16_t)calls[i].type, (uint16_t)calls[i].instance, wrong, calls[i].size);
        says("record %u of %u into %u bytes: %s", calls[i].type, calls[i].instance, calls[i].size,
             result == 0 ? "0" : strerrorname_np(errno));
        CHECK(result != 0 && errno == calls[i].error);
    }

    one.cpu = cpu;
    other.mtrr = mtrr;
    ANSWER_EQ(xc_domain_hvm_setcontext(xc, child, (void *)&one, sizeof(one)), 0);
    ANSWER_EQ(same_as_before(), 1);
    ANSWER_EQ(xc_domain_hvm_setcontext(xc, child, (void *)&other, sizeof(other)), 0);
    ANSWER_EQ(same_as_before(), 1);

    struct cpu_only bad = one;
    memset(bad.cpu.fpu_regs + 24, 0xff, 4); /* MXCSR */
    CHECK_ERRNO(xc_domain_hvm_setcontext(xc, child, (void *)&bad, sizeof(bad)), EINVAL);
    ANSWER_EQ(same_as_before(), 1);

    /* A part is changed, and nothing else. */
    one.cpu.r15 += 7;
    other.mtrr.msr_mtrr_var[2] = 0x80000006;
    ANSWER_EQ(xc_domain_hvm_setcontext(xc, child, (void *)&one, sizeof(one)), 0);
    ANSWER_EQ(xc_domain_hvm_setcontext(xc, child, (void *)&other, sizeof(other)), 0);
    (void)same_as_before();
    ANSWER_EQ(((struct hvm_hw_cpu *)body(after, HVM_SAVE_CODE(CPU)))->r15 == cpu.r15 + 7, 1);
    ANSWER_EQ(((struct hvm_hw_mtrr *)body(after, HVM_SAVE_CODE(MTRR)))->msr_mtrr_var[2],
              0x80000006);
    ((struct hvm_hw_cpu *)body(after, HVM_SAVE_CODE(CPU)))->r15 -= 7;
    ((struct hvm_hw_mtrr *)body(after, HVM_SAVE_CODE(MTRR)))->msr_mtrr_var[2] =
        mtrr.msr_mtrr_var[2];
    ANSWER_EQ(memcmp(after, before, size) == 0, 1);
    ANSWER_EQ(same_as_before(), 1);
}

/* --- What is refused -------------------------------------------------------------------------- */

/* Writes what is wrong there; returns how that was answered. */
static const char *refusal(const char *what, uint32_t length)
{
    errno = 0;
    bool taken = xc_domain_hvm_setcontext(xc, child, wrong, length) == 0;
    const char *answer = taken ? "taken" : strerrorname_np(errno);
    if (taken || errno != EINVAL) {
        printf("not refused: %s (errno %d)\n", what, errno);
        failed++;
    }
    if (!same_as_before()) {
        printf("changed: %s\n", what);
        failed++;
    }
    memcpy(wrong, before, size);
    return answer;
}

static void refused(const char *what, uint32_t length)
{
    says("%s: %s", what, refusal(what, length));
}

/* Puts another value of `width` bytes into a record, which is then refused. */
static void refused_value(const char *what, unsigned type, size_t offset, uint64_t value,
                          unsigned width)
{
    if (find(wrong, type, 0) == NULL) {
        says("%s: no such record", what);
        failed++;
        return;
    }
    uint8_t *record = body(wrong, type);
    memcpy(record + offset, &value, width);
    refused(what, size);
}

#define VALUE(type, structure, field, value)                                                       \
    refused_value(#type "." #field " = " #value, HVM_SAVE_CODE(type),                              \
                  offsetof(struct structure, field), value,                                        \
                  sizeof(((struct structure *)0)->field))
#define CPU_VALUE(field, value) VALUE(CPU, hvm_hw_cpu, field, value)

static void bad_registers(void)
{
    CPU_VALUE(cr0, UINT64_C(0x80000010));  /* paging, and no protection */
    CPU_VALUE(cr0, UINT64_C(0x1800500b3)); /* beyond 32 bits */
    CPU_VALUE(cr0, UINT64_C(0xa0050033));  /* NW without CD */
    CPU_VALUE(cr3, UINT64_C(1) << 52);
    CPU_VALUE(cr4, UINT64_C(0x20) | 1 << 13); /* VMXE */
    CPU_VALUE(cr4, UINT64_C(0));              /* long mode without PAE */
    CPU_VALUE(cr4, UINT64_C(0x20) | UINT64_C(1) << 40);
    CPU_VALUE(msr_efer, UINT64_C(0x1d01)); /* SVME */
    CPU_VALUE(msr_efer, UINT64_C(0x401));  /* LMA without LME */
    CPU_VALUE(msr_efer, UINT64_C(0x101));  /* LME without LMA, paging */
    CPU_VALUE(rip, UINT64_C(1) << 47);
    CPU_VALUE(rflags, UINT64_C(1) << 22);
    CPU_VALUE(dr6, UINT64_C(1) << 32);
    CPU_VALUE(dr7, UINT64_C(1) << 32);
    CPU_VALUE(msr_lstar, UINT64_C(1) << 47);
    CPU_VALUE(msr_cstar, UINT64_C(1) << 63);
    CPU_VALUE(shadow_gs, UINT64_C(1) << 47);
    CPU_VALUE(fs_base, UINT64_C(1) << 47);
    CPU_VALUE(gs_base, UINT64_C(1) << 63);
    CPU_VALUE(tr_base, UINT64_C(1) << 47);
    CPU_VALUE(gdtr_base, UINT64_C(1) << 47);
    CPU_VALUE(cs_base, UINT64_C(1) << 32);
    CPU_VALUE(gdtr_limit, 0x10000);
    CPU_VALUE(cs_sel, 0x10000);
    CPU_VALUE(cs_arbytes, 0x1a9b);
    CPU_VALUE(sysenter_eip, UINT64_C(1) << 47);
    CPU_VALUE(msr_syscall_mask, UINT64_C(1) << 32);
    CPU_VALUE(msr_tsc_aux, UINT64_C(1) << 32);
    CPU_VALUE(flags, 0x11);
    CPU_VALUE(pad0, 1);
    CPU_VALUE(pending_event, 0x80001000); /* reserved */
    CPU_VALUE(pending_event, 0x80000402); /* a software interrupt */
    CPU_VALUE(pending_event, 0x80000320); /* there is no exception 32 */
    CPU_VALUE(pending_event, 0x80000203); /* an NMI is 2 */
    CPU_VALUE(pending_event, 0x80000b06); /* #UD has no error code */
}

static void bad_others(void)
{
    const unsigned area = offsetof(struct hvm_hw_cpu_xsave, save_area);
    VALUE(LAPIC, hvm_hw_lapic, apic_base_msr, 0xfee00900); /* not x2APIC mode */
    VALUE(LAPIC, hvm_hw_lapic, disabled, 1);
    VALUE(LAPIC, hvm_hw_lapic, tdt_msr, 1);
    VALUE(LAPIC, hvm_hw_lapic, timer_divisor, 3);
    refused_value("LAPIC id", HVM_SAVE_CODE(LAPIC_REGS), 0x20, 5, 4);
    refused_value("LAPIC TPR", HVM_SAVE_CODE(LAPIC_REGS), 0x80, 0x100, 4);
    refused_value("LAPIC SVR", HVM_SAVE_CODE(LAPIC_REGS), 0xf0, 0x3ff, 4);
    refused_value("LAPIC ISR", HVM_SAVE_CODE(LAPIC_REGS), 0x100, 4, 4);
    refused_value("LAPIC TMR", HVM_SAVE_CODE(LAPIC_REGS), 0x190, 4, 4);
    refused_value("LAPIC ICR", HVM_SAVE_CODE(LAPIC_REGS), 0x300, 0x1000, 4);
    refused_value("LAPIC LVT", HVM_SAVE_CODE(LAPIC_REGS), 0x370, 0x10400, 4);
    refused_value("LAPIC TDCR", HVM_SAVE_CODE(LAPIC_REGS), 0x3e0, 0x4, 4);
    refused_value("LAPIC gap", HVM_SAVE_CODE(LAPIC_REGS), 0x324, 1, 4);
    VALUE(MTRR, hvm_hw_mtrr, msr_pat_cr, 0x0007040600070402);
    VALUE(MTRR, hvm_hw_mtrr, msr_mtrr_cap, 0);
    VALUE(MTRR, hvm_hw_mtrr, msr_mtrr_def_type, 0x802);
    refused_value("MTRR base", HVM_SAVE_CODE(MTRR), 8, 0x103, 8);
    refused_value("MTRR fixed", HVM_SAVE_CODE(MTRR), offsetof(struct hvm_hw_mtrr, msr_mtrr_fixed),
                  2, 8);
    refused_value("XCR0 without x87", CPU_XSAVE_CODE, 8, 2, 8);
    refused_value("XCR0 beyond", CPU_XSAVE_CODE, 8, UINT64_C(1) << 62 | 3, 8);
    refused_value("XCR0 accumulated", CPU_XSAVE_CODE, 16, UINT64_C(1) << 62 | 3, 8);
    refused_value("XSTATE_BV", CPU_XSAVE_CODE, area + 512, UINT64_C(1) << 62, 8);
    refused_value("XCOMP_BV", CPU_XSAVE_CODE, area + 520, UINT64_C(1) << 63 | 3, 8);
    refused_value("XSAVE reserved", CPU_XSAVE_CODE, area + 528, 1, 8);
    refused_value("XSAVE MXCSR", CPU_XSAVE_CODE, area + 24, 0xffffffff, 4);
}

static void bad_structure(void)
{
    struct hvm_save_descriptor *cpu = find(wrong, HVM_SAVE_CODE(CPU), 0);
    const char *always = refusal("truncated", 0);
    for (uint32_t length = 1; length < size; length += length < 100 ? 1 : 61) {
        if (strcmp(refusal("truncated", length), always) != 0) {
            always = "differently";
        }
    }
    says("truncated: %s", always);
    VALUE(HEADER, hvm_save_header, magic, 1);
    VALUE(HEADER, hvm_save_header, version, 2);
    cpu->length--;
    refused("a record that is too short", size);
    cpu->length = UINT32_MAX;
    refused("a record that is too long", size);
    cpu->instance = 1;
    refused("a vcpu that is not there", size);
    cpu->typecode = HVM_SAVE_CODE(PIT);
    refused("a record that is not known", size);
    cpu->typecode = 0xffff;
    refused("a record that nobody knows", size);
    cpu->typecode = HVM_SAVE_CODE(HEADER);
    refused("a second header", size);
    find(wrong, HVM_SAVE_CODE(LAPIC), 0)->length = 16;
    refused("a short LAPIC", size);
    struct hvm_save_descriptor *xsave = find(wrong, CPU_XSAVE_CODE, 0);
    if (xsave != NULL) {
        xsave->length = 600;
        refused("a short XSAVE", size);
    }
    find(wrong, HVM_SAVE_CODE(END), 0)->length = 1;
    refused("an end with a length", size);
    memmove(wrong, cpu, size - (uint32_t)((uint8_t *)cpu - wrong));
    refused("no header", size - (uint32_t)((uint8_t *)cpu - wrong));
    uint32_t whole = (uint32_t)sizeof(*cpu) + cpu->length;
    uint32_t head = (uint32_t)((uint8_t *)cpu - wrong);
    memmove((uint8_t *)cpu + whole, before + head, size - head);
    refused("a record twice", size + whole);
}

/* --- Other readers ---------------------------------------------------------------------------- */

static void registers(void)
{
    static vcpu_guest_context_any_t any;
    const struct hvm_hw_cpu *cpu = body(before, HVM_SAVE_CODE(CPU));
    unsigned width;
    ANSWER_EQ(xc_vcpu_getcontext(xc, child, 0, &any), 0);
    ANSWER_EQ(any.x64.user_regs.rip == cpu->rip, 1);
    ANSWER_EQ(any.x64.user_regs.rsp == cpu->rsp, 1);
    ANSWER_EQ(any.x64.user_regs.r12 == cpu->r12, 1);
    ANSWER_EQ(any.x64.user_regs.rflags == cpu->rflags, 1);
    ANSWER_EQ(any.x64.user_regs.cs == cpu->cs_sel, 1);
    ANSWER_EQ(any.x64.ctrlreg[0] == cpu->cr0, 1);
    ANSWER_EQ(any.x64.ctrlreg[3] == cpu->cr3, 1);
    ANSWER_EQ(any.x64.ctrlreg[4] == cpu->cr4, 1);
    CHECK_ERRNO(xc_vcpu_getcontext(xc, child, 1, &any), EINVAL);
    ANSWER_EQ(xc_domain_get_guest_width(xc, child, &width), 1); /* -EOPNOTSUPP, as libxc has it */
}

/* A kernel's address by the child's own page tables. Linux lies where it was loaded. */
static void translation(void)
{
    if (!forks_here("translation of a kernel's address")) {
        return;
    }
    const struct hvm_hw_cpu *cpu = body(before, HVM_SAVE_CODE(CPU));
    unsigned long frame = xc_translate_foreign_address(xc, child, 0, cpu->msr_lstar);
    CHECK_EQ(frame, (cpu->msr_lstar - UINT64_C(0xffffffff80000000)) / PAGE);
    uint8_t *page = xc_map_foreign_range(xc, child, PAGE, PROT_READ, frame);
    CHECK(page != NULL);
    if (page != NULL) { /* where SYSCALL enters */
        CHECK(memmem(page + cpu->msr_lstar % PAGE, 16, SWAPGS, 3) != NULL);
        munmap(page, PAGE);
    }
    CHECK_EQ(xc_translate_foreign_address(xc, child, 0, 0xffff000000000000), 0);
}

/* Reading needs no pause; writing does. */
static void running(void)
{
    ANSWER_EQ(xc_domain_hvm_getcontext(xc, TEMPLATE, after, sizeof(after)) > 0, 1);
    CHECK_ERRNO(xc_domain_hvm_setcontext(xc, TEMPLATE, after, size), EBUSY);
    CHECK_ERRNO(xc_domain_hvm_setcontext(xc, 99, before, size), ESRCH);
    CHECK_ERRNO(xc_domain_hvm_setcontext(xc, 0, before, size), EINVAL);
}

void test(void)
{
    child = fork_template(0);
    all_of_it();
    parts_of_it();
    memcpy(wrong, before, size);
    bad_registers();
    bad_others();
    bad_structure();
    registers();
    translation();
    running();
    ANSWER_EQ(xc_domain_unpause(xc, child), 0); /* it goes on as if nothing had been */
    sleep(2);
    ANSWER_EQ(info_of(child).cpu_time > 0 && !info_of(child).shutdown, 1);
    uint64_t ran = info_of(child).cpu_time;
    sleep(1);
    ANSWER_EQ(info_of(child).cpu_time > ran, 1);
    destroy(child);
}
