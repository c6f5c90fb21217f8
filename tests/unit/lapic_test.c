/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vcpu's local APIC and memory type registers: what each MSR takes, gives and refuses, the order
 * of priorities, and whom each message reaches. The vcpus are records; waking one is counted.
 */
#include <string.h>

#include "../../hv/kernel/sched.h"
#include "test.h"

#define VCPUS 3u
#define TSC_OFFSET UINT64_C(0x123456789abc)
#define VECTOR_WORD(vector) ((vector) >> 5)
#define VECTOR_BIT(vector) (1u << ((vector)&31))

enum { ID = 0x802, VERSION, PRIORITY = 0x808, PPR = 0x80a, EOI, LOGICAL = 0x80d };
enum { SPURIOUS = 0x80f, ISR = 0x810, TMR = 0x818, IRR = 0x820, ERROR = 0x828, COMMAND = 0x830 };
enum { LVT_TIMER = 0x832, LVT_LINT0 = 0x835, LVT_ERROR = 0x837, INITIAL, CURRENT };
enum { DIVIDE = 0x83e, SELF };

static struct domain domain;
static struct vcpu vcpu[VCPUS];
static unsigned attended[VCPUS];

void vcpu_attend(struct vcpu *which) { attended[which - vcpu]++; }

static uint64_t get_field(struct hvm_vcpu *which, enum hvm_field field)
{
    (void)which;
    return field == HVM_FIELD_TSC_OFFSET ? TSC_OFFSET : 0;
}
static const struct hvm_ops ops = {.get = get_field};
const struct hvm_ops *hvm = &ops;

static bool write_as(unsigned i, uint32_t msr, uint64_t value)
{
    return lapic_wrmsr(&vcpu[i], msr, value);
}
static bool write(uint32_t msr, uint64_t value) { return write_as(0, msr, value); }

/* What is read, or all ones for #GP. */
static uint64_t read(uint32_t msr)
{
    uint64_t value = 0;
    return lapic_rdmsr(&vcpu[0], msr, &value) ? value : UINT64_MAX;
}

static void setup(void)
{
    memset(&domain, 0, sizeof(domain));
    memset(vcpu, 0, sizeof(vcpu));
    memset(attended, 0, sizeof(attended));
    domain.vcpu_count = VCPUS;
    for (unsigned i = 0; i < VCPUS; i++) {
        domain.vcpu[i] = &vcpu[i];
        vcpu[i].domain = &domain;
        vcpu[i].number = i;
        lapic_init(&vcpu[i].lapic, 2 * i, i == 0);
        CHECK(write_as(i, SPURIOUS, 0x1ff));
        vcpu[i].attention = 0;
    }
}

/* --- Registers -------------------------------------------------------------------------------- */

TEST(state_after_power_up)
{
    struct lapic *lapic = &vcpu[0].lapic;
    setup();
    lapic_init(lapic, 0, true);
    CHECK_EQ(read(0x1b), 0xfee00d00);
    CHECK_EQ(read(ID), 0);
    CHECK_EQ(read(VERSION), 0x50014);
    CHECK_EQ(read(SPURIOUS), 0xff);
    CHECK_EQ(read(LVT_TIMER), 0x10000);
    CHECK_EQ(read(PPR), 0);
    CHECK_EQ(lapic->activity, LAPIC_ACTIVE);
    lapic_init(lapic, 6, false);
    CHECK_EQ(read(0x1b), 0xfee00c00);
    CHECK_EQ(read(ID), 6);
    CHECK_EQ(read(LOGICAL), 1u << 6);
    CHECK_EQ(lapic->activity, LAPIC_WAIT_SIPI);
    lapic_init(lapic, 0x25, false);
    CHECK_EQ(read(LOGICAL), 2u << 16 | 1u << 5);
}

static const struct register_access {
    const char *label;
    uint32_t msr;
    uint64_t write;
    bool taken;
    bool refuses_reads;
    uint64_t reads; /* afterwards */
} accesses[] = {
    {"base/same", 0x1b, 0xfee00d00, true, false, 0xfee00d00},
    {"base/off", 0x1b, 0xfee00100, false, false, 0xfee00d00},
    {"base/xapic", 0x1b, 0xfee00900, false, false, 0xfee00d00},
    {"base/moved", 0x1b, 0xfef00d00, false, false, 0xfee00d00},
    {"id", ID, 0, false, false, 0},
    {"version", VERSION, 0x50014, false, false, 0x50014},
    {"priority", PRIORITY, 0x47, true, false, 0x47},
    {"priority/reserved", PRIORITY, 0x100, false, false, 0},
    {"arbitration", 0x809, 0, false, true, 0},
    {"ppr", PPR, 0, false, false, 0},
    {"eoi", EOI, 0, true, true, 0},
    {"eoi/value", EOI, 1, false, true, 0},
    {"remote-read", 0x80c, 0, false, true, 0},
    {"ldr", LOGICAL, 0, false, false, 1},
    {"dfr", 0x80e, 0, false, true, 0},
    {"spurious", SPURIOUS, 0x1f0, true, false, 0x1f0},
    {"spurious/suppression", SPURIOUS, 0x11ff, false, false, 0x1ff},
    {"isr", ISR, 0, false, false, 0},
    {"isr/7", ISR + 7, 0, false, false, 0},
    {"tmr", TMR + 3, 0, false, false, 0},
    {"irr", IRR, 0, false, false, 0},
    {"esr", ERROR, 0, true, false, 0},
    {"esr/value", ERROR, 1, false, false, 0},
    {"reserved/829", 0x829, 0, false, true, 0},
    {"cmci", 0x82f, 0x10000, false, true, 0},
    {"command-high", 0x831, 0, false, true, 0},
    {"timer", LVT_TIMER, 0x200ec, true, false, 0x200ec},
    {"timer/status", LVT_TIMER, 0x10ec, true, false, 0xec},
    {"timer/deadline", LVT_TIMER, 0x400ec, false, false, 0x10000},
    {"timer/high", LVT_TIMER, UINT64_C(1) << 32, false, false, 0x10000},
    {"lint0", LVT_LINT0, 0xf700, true, false, 0xa700},
    {"lint0/reserved", LVT_LINT0, 0x800, false, false, 0x10000},
    {"error", LVT_ERROR, 0xfe, true, false, 0xfe},
    {"error/mode", LVT_ERROR, 0x1fe, false, false, 0x10000},
    {"initial", INITIAL, 0xffffffff, true, false, 0xffffffff},
    {"initial/high", INITIAL, UINT64_C(1) << 32, false, false, 0},
    {"current", CURRENT, 0, false, false, 0},
    {"divide", DIVIDE, 0xb, true, false, 0xb},
    {"divide/reserved", DIVIDE, 0x4, false, false, 0},
    {"self/read", SELF, 0x40, true, true, 0},
    {"self/reserved", SELF, 0x140, false, true, 0},
    {"beyond", 0x840, 0, false, true, 0},
    {"before", 0x801, 0, false, true, 0},
    {"last", 0x8ff, 0, false, true, 0},
};

/* Where a write is refused, the register is as before. */
TEST_TABLE(access, accesses)
{
    setup();
    CHECK(lapic_has(row->msr));
    CHECK_EQ(write(row->msr, row->write), row->taken);
    uint64_t value;
    CHECK_EQ(lapic_rdmsr(&vcpu[0], row->msr, &value), !row->refuses_reads);
    if (!row->refuses_reads) {
        CHECK_EQ(value, row->reads);
    }
}

/* What answers #GP changes nothing (SDM 3A 10.12.1.2). */
TEST(a_refused_write_leaves_all)
{
    struct lapic *lapic = &vcpu[0].lapic;
    setup();
    CHECK(write(SPURIOUS, 0x1ff));
    lapic_post(&vcpu[0], 0x51);
    lapic_take(lapic, lapic_pending(lapic));
    CHECK(!write(EOI, 1));
    CHECK_EQ(read(ISR + 2), 1u << 0x11);
    CHECK(write(SELF, 5)); /* an illegal vector */
    CHECK(!write(ERROR, 1));
    CHECK_EQ(read(ERROR), 0);
    CHECK(write(ERROR, 0));
    CHECK_EQ(read(ERROR), 0x20);
    CHECK(write(INITIAL, 7));
    CHECK(!write(INITIAL, UINT64_C(1) << 32 | 8));
    CHECK_EQ(read(INITIAL), 7);
    CHECK(write(DIVIDE, 0xb));
    CHECK(!write(DIVIDE, 0x1a));
    CHECK_EQ(read(DIVIDE), 0xb);
}

TEST(other_msrs_are_not_its)
{
    CHECK(!lapic_has(0x10));
    CHECK(!lapic_has(0x7ff));
    CHECK(!lapic_has(0x900));
}

/* 10.4.7.2: no interrupts come in, and no LVT can be unmasked. */
TEST(disabled_by_software)
{
    setup();
    CHECK(write(LVT_TIMER, 0xec));
    CHECK(write(SPURIOUS, 0xff));
    CHECK_EQ(read(LVT_TIMER), 0x100ec);
    CHECK(write(LVT_TIMER, 0xed));
    CHECK_EQ(read(LVT_TIMER), 0x100ed);
    lapic_post(&vcpu[0], 0x40);
    CHECK_EQ(lapic_pending(&vcpu[0].lapic), -1);
    CHECK_EQ(attended[0], 0);
    CHECK(write_as(1, COMMAND, 0xc500));
    CHECK_EQ(vcpu[0].lapic.request, LAPIC_REQUEST_INIT);
}

/* --- Priorities ------------------------------------------------------------------------------- */

TEST(highest_first_and_nested)
{
    struct lapic *lapic = &vcpu[0].lapic;
    setup();
    lapic_post(&vcpu[0], 0x31);
    lapic_post(&vcpu[0], 0x3f);
    lapic_post(&vcpu[0], 0xff);
    lapic_post(&vcpu[0], 0x10);
    CHECK_EQ(attended[0], 4);
    CHECK_EQ(lapic_pending(lapic), 0xff);
    lapic_take(lapic, 0xff);
    CHECK_EQ(read(ISR + 7), 1u << 31);
    CHECK_EQ(read(IRR + 7), 0);
    CHECK_EQ(read(PPR), 0xf0);
    CHECK_EQ(lapic_pending(lapic), -1);
    CHECK(!lapic_masked(lapic));
    vcpu[0].attention = 0;
    CHECK(write(EOI, 0));
    CHECK_EQ(vcpu[0].attention, 1);
    CHECK_EQ(lapic_pending(lapic), 0x3f);
    lapic_take(lapic, 0x3f);
    CHECK_EQ(lapic_pending(lapic), -1); /* 0x31 is of the same class */
    lapic_post(&vcpu[0], 0x40);
    CHECK_EQ(lapic_pending(lapic), 0x40);
    lapic_take(lapic, 0x40);
    CHECK(write(EOI, 0));
    CHECK_EQ(read(ISR + 2), 0); /* the higher one ended */
    CHECK_EQ(read(PPR), 0x30);
    CHECK(write(EOI, 0));
    CHECK_EQ(lapic_pending(lapic), 0x31);
    CHECK(write(EOI, 0)); /* none is in service */
    CHECK_EQ(lapic_pending(lapic), 0x31);
    lapic_take(lapic, 0x31);
    lapic_post(&vcpu[0], 0x45);
    lapic_take(lapic, 0x45);
    lapic_post(&vcpu[0], 0x55);
    lapic_take(lapic, 0x55);
    CHECK(write(EOI, 0));
    CHECK_EQ(read(ISR + 2), 1u << 5); /* 0x45 still is */
    CHECK_EQ(read(ISR + 1), 1u << 17);
}

/* TPR and CR8 are one register; TPR holds back its own class and those below. */
TEST(task_priority_is_cr8)
{
    struct lapic *lapic = &vcpu[0].lapic;
    setup();
    lapic_post(&vcpu[0], 0x4f);
    CHECK(write(PRIORITY, 0x4a));
    CHECK_EQ(vcpu[0].hvm.cr8, 4);
    CHECK_EQ(read(PRIORITY), 0x4a);
    CHECK_EQ(read(PPR), 0x4a);
    CHECK_EQ(lapic_pending(lapic), -1);
    CHECK(lapic_masked(lapic));
    lapic_set_cr8(lapic, 4); /* as it was */
    CHECK_EQ(read(PRIORITY), 0x4a);
    vcpu[0].hvm.cr8 = 3;
    CHECK_EQ(read(PRIORITY), 0x30);
    CHECK_EQ(lapic_pending(lapic), 0x4f);
    CHECK(!lapic_masked(lapic));
    lapic_take(lapic, 0x4f);
    CHECK_EQ(read(PPR), 0x40); /* of what is in service, when that is more */
    vcpu[0].hvm.cr8 = 4;
    CHECK_EQ(read(PPR), 0x40);
    CHECK(write(PRIORITY, 0x41));
    CHECK_EQ(read(PPR), 0x41); /* and TPR's lower bits when the classes are the same */
}

/* --- Messages --------------------------------------------------------------------------------- */

#define PHYSICAL(id) ((uint64_t)(id) << 32)
#define LOGICALLY(ldr) ((uint64_t)(ldr) << 32 | 0x800)
#define SHORTHAND(n) ((uint64_t)(n) << 18)

static const struct message {
    const char *label;
    uint64_t command; /* from vcpu 1, whose id is 2 */
    unsigned reaches; /* bit i: vcpu i */
} messages[] = {
    {"physical/other", PHYSICAL(4), 4},
    {"physical/self", PHYSICAL(2), 2},
    {"physical/none", PHYSICAL(1), 0},
    {"physical/low-bits", PHYSICAL(0x104), 0},
    {"physical/all", PHYSICAL(UINT32_MAX), 7},
    {"logical/one", LOGICALLY(1u << 4), 4},
    {"logical/two", LOGICALLY(1u << 4 | 1), 5},
    {"logical/cluster", LOGICALLY(1u << 16 | 1u << 4), 0},
    {"logical/all", LOGICALLY(UINT32_MAX), 7},
    {"self", SHORTHAND(1) | PHYSICAL(4), 2},
    {"everyone", SHORTHAND(2) | PHYSICAL(4), 7},
    {"others", SHORTHAND(3) | PHYSICAL(2), 5},
    {"lowest", SHORTHAND(2) | 0x100, 1},
};

TEST_TABLE(message, messages)
{
    setup();
    CHECK(write_as(1, COMMAND, row->command | 0x4045));
    for (unsigned i = 0; i < VCPUS; i++) {
        bool reached = row->reaches >> i & 1;
        CHECK_EQ(vcpu[i].lapic.irr[2], reached ? 1u << 5 : 0);
        CHECK_EQ(attended[i], reached);
    }
    uint64_t value;
    CHECK(lapic_rdmsr(&vcpu[1], COMMAND, &value));
    CHECK_EQ(value, row->command | 0x4045);
}

static const struct refused {
    const char *label;
    uint64_t command;
} refusals[] = {
    {"bit-12", 0x1045},   {"bit-13", 0x2045},     {"bit-16", 0x10045}, {"bit-17", 0x20045},
    {"bit-20", 0x100045}, {"bit-31", 0x80000045}, {"mode-3", 0x345},   {"mode-7", 0x745},
};

TEST_TABLE(command_refused, refusals)
{
    setup();
    CHECK(!write(COMMAND, row->command | SHORTHAND(2)));
    CHECK_EQ(read(COMMAND), 0);
    for (unsigned i = 0; i < VCPUS; i++) {
        CHECK_EQ(vcpu[i].lapic.irr[2], 0);
        CHECK_EQ(vcpu[i].lapic.request, 0);
    }
}

/* Vectors below 16 go nowhere; ESR says so once it is written, and its LVT is raised. */
TEST(illegal_vector)
{
    setup();
    CHECK(write(LVT_ERROR, 0xfe));
    CHECK(write(COMMAND, SHORTHAND(2) | 0xf));
    CHECK(write(SELF, 0));
    CHECK_EQ(vcpu[1].lapic.irr[0], 0);
    CHECK_EQ(attended[1], 0);
    CHECK_EQ(read(ERROR), 0);
    CHECK_EQ(lapic_pending(&vcpu[0].lapic), 0xfe);
    CHECK(write(ERROR, 0));
    CHECK_EQ(read(ERROR), 0x20);
    CHECK(write(ERROR, 0));
    CHECK_EQ(read(ERROR), 0);
    CHECK(write(SELF, 16));
    CHECK_EQ(vcpu[0].lapic.irr[0], 1u << 16);
    setup();
    CHECK(write(LVT_ERROR, 0x100fe)); /* masked */
    CHECK(write(SELF, 0));
    CHECK_EQ(lapic_pending(&vcpu[0].lapic), -1);
}

/* --- INIT, start-up, NMI ---------------------------------------------------------------------- */

#define TO_2 PHYSICAL(4)
#define NMI (TO_2 | 0x4400)
#define INIT (TO_2 | 0xc500)
#define INIT_END (TO_2 | 0x8500)
#define SIPI(vector) (TO_2 | 0x4600 | (vector))

static const struct request {
    const char *label;
    uint64_t commands[4];
    uint32_t leaves;
} requests[] = {
    {"nmi", {NMI}, LAPIC_REQUEST_NMI},
    {"smi", {TO_2 | 0x4200}, 0},
    {"init", {INIT}, LAPIC_REQUEST_INIT},
    {"init-edge", {TO_2 | 0x500}, LAPIC_REQUEST_INIT},
    {"de-assert", {INIT_END}, 0},
    {"sipi", {SIPI(0)}, LAPIC_REQUEST_SIPI},
    {"as-linux",
     {INIT, INIT_END, SIPI(0x99), SIPI(0x99)},
     LAPIC_REQUEST_INIT | LAPIC_REQUEST_SIPI | 0x99},
    {"first-sipi", {INIT, SIPI(8), SIPI(7)}, LAPIC_REQUEST_INIT | LAPIC_REQUEST_SIPI | 8},
    {"init-again", {INIT, SIPI(8), INIT}, LAPIC_REQUEST_INIT},
    {"init-after-nmi", {NMI, SIPI(8), INIT}, LAPIC_REQUEST_INIT},
    {"all", {INIT, NMI, SIPI(8)}, 0x700 | 8},
};

TEST_TABLE(request, requests)
{
    setup();
    for (unsigned i = 0; i < 4 && row->commands[i] != 0; i++) {
        CHECK(write(COMMAND, row->commands[i]));
    }
    CHECK_EQ(vcpu[2].lapic.request, row->leaves);
    CHECK_EQ(attended[2] != 0, row->leaves != 0);
    CHECK_EQ(vcpu[1].lapic.request, 0);
    bool starts = (row->leaves & LAPIC_REQUEST_SIPI) != 0;
    if (starts) {
        CHECK_EQ(vcpu[2].lapic.sipi_tsc_offset, TSC_OFFSET);
    }
    CHECK_EQ(lapic_wakes(&vcpu[2].lapic), starts); /* it waits for that alone */
    vcpu[2].lapic.activity = LAPIC_HLT;
    CHECK_EQ(lapic_wakes(&vcpu[2].lapic), row->leaves != 0);
}

TEST(init_keeps_id_and_requests)
{
    struct lapic *lapic = &vcpu[1].lapic;
    setup();
    lapic_post(&vcpu[1], 0x40);
    lapic_take(lapic, 0x40);
    lapic_post(&vcpu[1], 0x41);
    CHECK(write_as(1, PRIORITY, 0x20));
    CHECK(write_as(1, LVT_TIMER, 0xec));
    CHECK(write(COMMAND, PHYSICAL(2) | 0x4608));
    lapic->nmi = 1;
    lapic_reset(lapic);
    struct lapic fresh;
    memset(&fresh, 0, sizeof(fresh));
    lapic_init(&fresh, 2, false);
    fresh.request = LAPIC_REQUEST_SIPI | 8;
    fresh.sipi_tsc_offset = TSC_OFFSET;
    CHECK_EQ(memcmp(lapic, &fresh, sizeof(fresh)), 0);
}

/* --- As a page -------------------------------------------------------------------------------- */

static void fill(void)
{
    setup();
    CHECK(write(PRIORITY, 0x35) && write(LVT_TIMER, 0x300ec) && write(LVT_ERROR, 0xfe));
    CHECK(write(INITIAL, 12345) && write(DIVIDE, 0xa));
    CHECK(write(COMMAND, UINT64_C(0x200000041)));
    lapic_post(&vcpu[0], 0x51);
    lapic_post(&vcpu[0], 0xe3);
    lapic_take(&vcpu[0].lapic, 0xe3);
}

TEST(page_holds_all_registers)
{
    uint32_t page[LAPIC_PAGE_WORDS], again[LAPIC_PAGE_WORDS];
    struct lapic fresh;
    fill();
    lapic_to_page(&vcpu[0].lapic, page);
    CHECK_EQ(page[0x20 / 4], 0);
    CHECK_EQ(page[0x80 / 4], 0x35);
    CHECK_EQ(page[0xa0 / 4], 0xe0); /* PPR */
    CHECK_EQ(page[0xf0 / 4], 0x1ff);
    CHECK_EQ(page[0x100 / 4 + 7 * 4], VECTOR_BIT(0xe3));
    CHECK_EQ(page[0x200 / 4 + 2 * 4], VECTOR_BIT(0x51));
    CHECK_EQ(page[0x300 / 4], 0x41);
    CHECK_EQ(page[0x310 / 4], 2);
    CHECK_EQ(page[0x320 / 4], 0x300ec);
    CHECK_EQ(page[0x380 / 4], 12345);
    CHECK_EQ(page[0x3e0 / 4], 0xa);
    CHECK_EQ(lapic_timer_divisor(&vcpu[0].lapic), 128);
    lapic_init(&fresh, 0, true);
    CHECK(lapic_from_page(&fresh, page));
    lapic_to_page(&fresh, again);
    CHECK(memcmp(page, again, sizeof(page)) == 0);
    CHECK(memcmp(&fresh, &vcpu[0].lapic, sizeof(fresh)) == 0);
}

/* Any bit that no register has, and those that follow from others. */
TEST(page_refused_whole)
{
    uint32_t page[LAPIC_PAGE_WORDS];
    unsigned refused = 0;
    fill();
    const struct lapic before = vcpu[0].lapic;
    lapic_to_page(&before, page);
    for (unsigned bit = 0; bit < LAPIC_PAGE_WORDS * 32; bit++) {
        struct lapic into = before;
        page[bit / 32] ^= 1u << bit % 32;
        if (!lapic_from_page(&into, page)) {
            CHECK(memcmp(&into, &before, sizeof(into)) == 0);
            refused++;
        }
        page[bit / 32] ^= 1u << bit % 32;
    }
    CHECK(refused > LAPIC_PAGE_WORDS * 32 / 2);
    static const unsigned offsets[] = {0x20, 0x30, 0xa0, 0xd0, 0xf4, 0x180, 0x390, 0x3f0};
    for (unsigned i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        struct lapic into = before;
        page[offsets[i] / 4] ^= 1;
        CHECK(!lapic_from_page(&into, page));
        page[offsets[i] / 4] ^= 1;
    }
}

/* --- Memory types ----------------------------------------------------------------------------- */

static const struct mtrr_access {
    const char *label;
    uint32_t msr;
    uint64_t write;
    bool taken;
    uint64_t reads; /* before, and where it is refused after */
} mtrr_accesses[] = {
    {"capability", 0xfe, 0x508, false, 0x508},
    {"def-type", 0x2ff, 0xc00, true, 0x806},
    {"def-type/type", 0x2ff, 0x802, false, 0x806},
    {"def-type/reserved", 0x2ff, 0x1006, false, 0x806},
    {"def-type/high", 0x2ff, UINT64_C(1) << 32, false, 0x806},
    {"fixed/64k", 0x250, 0, true, UINT64_C(0x0606060606060606)},
    {"fixed/16k", 0x259, UINT64_C(0x0504010006050401), true, UINT64_C(0x0606060606060606)},
    {"fixed/4k", 0x26f, UINT64_C(0x0706060606060606), false, UINT64_C(0x0606060606060606)},
    {"fixed/4k-low", 0x268, 3, false, UINT64_C(0x0606060606060606)},
    {"base", 0x200, UINT64_C(0xc0000001), true, 0},
    {"base/type", 0x20e, 7, false, 0},
    {"base/reserved", 0x202, 0x106, false, 0},
    {"base/high", 0x202, UINT64_C(1) << 48, false, 0},
    {"mask", 0x20f, UINT64_C(0xfffff0000800), true, 0},
    {"mask/reserved", 0x201, 0x400, false, 0},
    {"mask/high", 0x201, UINT64_C(1) << 63, false, 0},
};

TEST_TABLE(mtrr, mtrr_accesses)
{
    struct mtrr mtrr;
    mtrr_init(&mtrr);
    REQUIRE(mtrr_has(row->msr));
    CHECK_EQ(mtrr_read(&mtrr, row->msr), row->reads);
    CHECK_EQ(mtrr_write(&mtrr, row->msr, row->write), row->taken);
    CHECK_EQ(mtrr_read(&mtrr, row->msr), row->taken ? row->write : row->reads);
}

TEST(mtrrs_are_apart)
{
    struct mtrr mtrr;
    unsigned count = 0;
    mtrr_init(&mtrr);
    for (uint32_t msr = 0; msr < 0x1000; msr++) {
        if (mtrr_has(msr) && msr != 0xfe) {
            CHECK_EQ(mtrr_read(&mtrr, msr) >> 40 == 0 || msr >= 0x250, true);
            CHECK(mtrr_write(&mtrr, msr, msr & 1 && msr < 0x250 ? 0x1800 : 1));
            count++;
        }
    }
    CHECK_EQ(count, 28);
    for (unsigned i = 0; i < 16; i++) {
        CHECK_EQ(mtrr.variable[i], i & 1 ? 0x1800 : 1);
    }
    for (unsigned i = 0; i < MTRR_FIXED; i++) {
        CHECK_EQ(mtrr.fixed[i], 1);
    }
    CHECK_EQ(mtrr.def_type, 1);
}
