/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Xen's ABI on the hosted core: what needs two CPUs at one exact moment, a limit, or another clock.
 * Two vcpus are records; guest memory is a real space. tests/guests/xen does the rest.
 */
#define __XEN_INTERFACE_VERSION__ 0x00040e00

#include "../../hv/xen/calls.h"
#include "../../hv/xen/control.h"

#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <xen/event_channel.h>
#include <xen/io/console.h>
#include <xen/sched.h>
#include <xen/xen.h>

#include "../../hv/kernel/guest.h"
#include "../../hv/kernel/sched.h"
#include "../../hv/kernel/terminal.h"
#include "scene.h"

#define VCPUS 2u
#define INFO_AT UINT64_C(0x10000)
#define ARGUMENT UINT64_C(0x20000) /* where a call's structure lies */
#define RING(field) (XEN_CONSOLE_PAGE + offsetof(struct xencons_interface, field))
#define PORT 2u

static struct domain domain;
static struct vcpu vcpu[VCPUS];
static struct xen_domain *xen;
static uint64_t tsc_offset;
static unsigned attended[VCPUS];
static uint64_t timer_at;
static char written[1 << 16];
static uint32_t written_size;
static void (*in_write)(void);

/* --- What hv/xen/ calls ----------------------------------------------------------------------- */

uint64_t tsc_per_second = 2299893000;

uint64_t ns_to_tsc(uint64_t ns)
{
    uint64_t factor =
        (tsc_per_second / 1000000000 << 32) + (tsc_per_second % 1000000000 << 32) / 1000000000;
    return (uint64_t)((unsigned __int128)ns * factor >> 32);
}
uint64_t wall_clock_ns(void) { return UINT64_C(1790000000000000000); }

static uint64_t get_field(struct hvm_vcpu *which, enum hvm_field field)
{
    (void)which;
    return field == HVM_FIELD_TSC_OFFSET ? tsc_offset : 0;
}
static const struct hvm_ops ops = {.get = get_field};
const struct hvm_ops *hvm = &ops;
const struct hvm_ops svm_ops;

void vcpu_attend(struct vcpu *which)
{
    __atomic_store_n(&which->attention, 1, __ATOMIC_SEQ_CST);
    attended[which - vcpu]++;
}
void vcpu_sleep(struct vcpu *which, enum vcpu_sleep sleep) { which->sleep = (uint8_t)sleep; }
void vcpu_timer(struct vcpu *which, uint64_t at) { timer_at = which->timer.at = at; }
void sched_expect(struct vcpu *which) { which->woken = 0; }

void terminal_write(struct mm_ctx *ctx, struct domain *which, const char *text, uint32_t size)
{
    (void)ctx;
    (void)which;
    REQUIRE(written_size + size < sizeof(written));
    memcpy(written + written_size, text, size);
    written_size += size;
    if (in_write != NULL) {
        in_write();
    }
}

enum cleave_status object_alloc(struct mm_ctx *ctx, struct payer *payer, pfn_t *out)
{
    enum cleave_status status = pool_alloc(ctx, payer, 0, FRAME_OBJECT, out);
    if (status == CLEAVE_OK) {
        port_zero_pages(frame_address(*out), 1);
    }
    return status;
}
void object_free(struct mm_ctx *ctx, pfn_t f)
{
    if (f.v != 0) {
        CHECK(node_put(ctx, f));
        pool_free(ctx, f, 0);
    }
}
pfn_t object_frame(const void *object)
{
    return pfn((uint32_t)(((const unsigned char *)object - machine.direct_map) >> PAGE_SHIFT));
}

/* Guests here have no paging. */
enum cleave_status guest_read(struct mm_ctx *ctx, struct vcpu *which, uint64_t linear, void *to,
                              uint64_t size, const char *name)
{
    (void)name;
    return space_read(ctx, which->domain->space, gpa(linear), to, size, &which->wait);
}
enum cleave_status guest_write(struct mm_ctx *ctx, struct vcpu *which, uint64_t linear,
                               const void *from, uint64_t size, const char *name)
{
    uint64_t done;
    (void)name;
    return space_write(ctx, which->domain->space, gpa(linear), from, size, &which->wait, &done);
}

/* What only a control domain gets done. */
int64_t xen_physmap_op(struct xen_call *which) { return xen_unknown(which); }
int64_t xen_sysctl(struct xen_call *which) { return xen_unknown(which); }
int64_t xen_domctl(struct xen_call *which) { return xen_unknown(which); }
int64_t xen_domctl_again(struct xen_call *which) { return xen_unknown(which); }
int64_t xen_memory_map(struct xen_call *which) { return xen_unknown(which); }
int64_t xen_machine_map(struct xen_call *which) { return xen_unknown(which); }
int64_t xen_set_memory_map(struct xen_call *which) { return xen_unknown(which); }
struct domain *xen_target(struct xen_call *which, uint32_t domid, int64_t *result)
{
    (void)domid;
    *result = xen_unknown(which);
    return NULL;
}
void xen_target_put(struct xen_call *which, struct domain *target)
{
    (void)which;
    (void)target;
    CHECK(false);
}
void domain_end(struct mm_ctx *ctx, struct domain *which, struct vcpu *self, uint32_t reason,
                uint32_t code)
{
    (void)ctx;
    (void)which;
    (void)self;
    CHECK(reason + code == 0);
}

/* --- A domain --------------------------------------------------------------------------------- */

static void put(uint64_t at, const void *from, uint64_t size)
{
    uint64_t done;
    REQUIRE_OK(space_write(scene.ctx, domain.space, gpa(at), from, size, NULL, &done));
}
static void put32(uint64_t at, uint32_t value) { put(at, &value, sizeof(value)); }
static uint64_t get(uint64_t at, unsigned size)
{
    uint64_t value = 0;
    REQUIRE_OK(space_read(scene.ctx, domain.space, gpa(at), &value, size, NULL));
    return value;
}

/* A call of vcpu `i`; true when it is done, with its result. */
static bool call(unsigned i, uint64_t number, uint64_t command, const void *argument, uint64_t size,
                 int64_t *result)
{
    put(ARGUMENT, argument, size);
    vcpu[i].hvm.regs.rdi = command;
    vcpu[i].hvm.regs.rsi = ARGUMENT;
    bool done = xen_hypercall(host_ctx(i), &vcpu[i], number);
    *result = (int64_t)vcpu[i].hvm.regs.rax;
    return done;
}
static int64_t on_port(unsigned i, uint64_t command, uint32_t port)
{
    int64_t result;
    REQUIRE(call(i, __HYPERVISOR_event_channel_op, command, &port, sizeof(port), &result));
    return result;
}

/* Two vcpus with shared_info, a console, and an IPI port to the first. */
static void setup(void)
{
    scene_start(0);
    struct space *space = scene_space();
    scene_region(space, 0, 64, REGION_PRIVATE, RIGHT_ALL, 0);
    scene_region(space, XEN_WINDOW >> PAGE_SHIFT, XEN_WINDOW_SIZE >> PAGE_SHIFT, REGION_PRIVATE,
                 RIGHT_READ | RIGHT_WRITE, 0);
    domain = (struct domain){.space = space, .has_window = 1, .vcpu_count = VCPUS};
    for (unsigned i = 0; i < VCPUS; i++) {
        memset(&vcpu[i], 0, sizeof(vcpu[i]));
        vcpu[i].domain = &domain;
        vcpu[i].number = i;
        vcpu[i].wait.space = space;
        domain.vcpu[i] = &vcpu[i];
        xen_vcpu_init(&vcpu[i]);
    }
    tsc_offset = 0;
    struct {
        uint16_t domid, size;
        uint32_t space;
        uint64_t idx, gpfn;
    } add = {DOMID_SELF, 0, 0, 0, INFO_AT >> PAGE_SHIFT};
    struct evtchn_bind_ipi bind = {.vcpu = 0};
    int64_t result;
    REQUIRE(call(0, __HYPERVISOR_memory_op, 7, &add, sizeof(add), &result));
    REQUIRE_EQ(result, 0);
    REQUIRE(
        call(0, __HYPERVISOR_event_channel_op, EVTCHNOP_bind_ipi, &bind, sizeof(bind), &result));
    REQUIRE_EQ(result, 0);
    REQUIRE_EQ(get(ARGUMENT + 4, 4), PORT);
    xen = domain.xen;
    REQUIRE_OK(xen_attend(scene.ctx, &vcpu[0]));
}

static void finish(void)
{
    xen_free(scene.ctx, &domain);
    scene_end();
}

/* --- Limits ----------------------------------------------------------------------------------- */

static void set_limit(uint64_t limit)
{
    REQUIRE_OK(account_set_limit(scene.ctx, scene.pool, domain.space->payer.account, limit));
}

/* An event that cannot be stored because the copy of the page has no frame stays raised; calls that
 * write are executed again, as a store of the guest's own would be. */
TEST(limits_lose_no_event)
{
    int64_t result;
    uint32_t port = PORT;
    setup();
    struct space *fork = scene_fork(domain.space);
    put32(ARGUMENT, PORT); /* that page is its own again */
    set_limit(0);
    REQUIRE_EQ(on_port(1, EVTCHNOP_send, PORT), 0);
    CHECK_STATUS(xen_attend(scene.ctx, &vcpu[0]), CLEAVE_QUOTA);
    CHECK_EQ(vcpu[0].xen.raised[0], 1u << PORT);
    xen_refresh(&domain);
    CHECK_STATUS(xen_attend(scene.ctx, &vcpu[0]), CLEAVE_QUOTA);
    CHECK_EQ(xen->refresh, 1);
    vcpu[0].hvm.regs.rdi = EVTCHNOP_unmask;
    vcpu[0].hvm.regs.rsi = ARGUMENT;
    CHECK(!xen_hypercall(scene.ctx, &vcpu[0], __HYPERVISOR_event_channel_op));
    CHECK_EQ(vcpu[0].sleep, SLEEP_QUOTA);
    CHECK_EQ(xen->lost, 0);

    set_limit(UINT64_MAX);
    vcpu[0].sleep = SLEEP_NONE;
    CHECK_OK(xen_attend(scene.ctx, &vcpu[0]));
    CHECK_EQ(get(INFO_AT + offsetof(struct shared_info, evtchn_pending), 8), 1u << PORT);
    CHECK_EQ(vcpu[0].xen.raised[0], 0);
    CHECK_EQ(xen->refresh, 0);
    CHECK(call(0, __HYPERVISOR_event_channel_op, EVTCHNOP_unmask, &port, sizeof(port), &result));
    CHECK_EQ(result, 0);
    scene_destroy(fork);
    finish();
}

/* --- Ports ---------------------------------------------------------------------------------- */

/* What was still stored for a port after it was closed tells nothing to whom it is bound next. */
TEST(a_port_is_bound_without_a_past)
{
    struct evtchn_bind_ipi bind = {.vcpu = 1};
    const uint64_t pending = INFO_AT + offsetof(struct shared_info, evtchn_pending);
    const uint64_t stale = 1u << PORT | 1u << 7;
    int64_t result;
    setup();
    CHECK_EQ(on_port(0, EVTCHNOP_close, PORT), 0);
    put(pending, &stale, sizeof(stale));
    REQUIRE(
        call(0, __HYPERVISOR_event_channel_op, EVTCHNOP_bind_ipi, &bind, sizeof(bind), &result));
    CHECK_EQ(result, 0);
    CHECK_EQ(get(ARGUMENT + 4, 4), PORT);
    CHECK_EQ(get(pending, 8), 1u << 7);
    finish();
}

/* The vcpu to which the console goes looks at what is already typed. */
TEST(the_console_goes_to_another_vcpu)
{
    struct evtchn_bind_vcpu bind = {.port = XEN_CONSOLE_PORT, .vcpu = 1};
    int64_t result;
    setup();
    put32(RING(in_prod), 1024);
    CHECK_EQ(xen_type(&domain, "typed", 5), 5);
    CHECK_OK(xen_attend(scene.ctx, &vcpu[0]));
    CHECK_EQ(xen->input_size, 5);
    attended[1] = 0;
    CHECK(call(0, __HYPERVISOR_event_channel_op, EVTCHNOP_bind_vcpu, &bind, sizeof(bind), &result));
    CHECK_EQ(result, 0);
    CHECK_EQ(attended[1], 1);
    put32(RING(in_cons), 1024);
    CHECK_OK(xen_attend(host_ctx(1), &vcpu[1]));
    CHECK_EQ(get(RING(in_prod), 4), 1029);
    finish();
}

/* After INIT neither the timer nor a poll of what ran before goes on; ports stay bound. */
TEST(a_vcpu_that_starts_anew_waits_for_nothing)
{
    setup();
    vcpu[0].xen.polling = vcpu[0].xen.upcall = 1;
    vcpu[0].xen.deadline = vcpu[0].xen.poll_until = 1;
    vcpu[0].timer.at = timer_at = 1;
    vcpu[0].xen.virq[VIRQ_TIMER] = 9;
    xen_vcpu_restart(&vcpu[0]);
    CHECK_EQ(vcpu[0].xen.polling, 0);
    CHECK_EQ(vcpu[0].xen.upcall, 1);
    CHECK_EQ(vcpu[0].xen.deadline, 0);
    CHECK_EQ(vcpu[0].xen.poll_until, 0);
    CHECK_EQ(vcpu[0].xen.virq[VIRQ_TIMER], 9);
    CHECK_EQ(timer_at, 0);
    finish();
}

/* The page is emptied once, whatever the call waits for behind that. */
TEST(events_stored_while_shared_info_is_placed_stay)
{
    const uint64_t pending = 2 * INFO_AT + offsetof(struct shared_info, evtchn_pending);
    struct {
        uint16_t domid, size;
        uint32_t space;
        uint64_t idx, gpfn;
    } add = {DOMID_SELF, 0, 0, 0, 2 * INFO_AT >> PAGE_SHIFT};
    int64_t result;
    setup();
    REQUIRE(call(1, __HYPERVISOR_memory_op, 7, &add, sizeof(add), &result));
    REQUIRE_EQ(result, 0);
    /* The wall clock is written on the way out, where that may wait. */
    CHECK_EQ(xen->refresh, 1);
    CHECK_EQ(get(2 * INFO_AT + offsetof(struct shared_info, wc_sec), 4), 0);
    CHECK_EQ(on_port(1, EVTCHNOP_send, PORT), 0);
    CHECK_OK(xen_attend(scene.ctx, &vcpu[0]));
    CHECK_EQ(get(pending, 8), 1u << PORT);
    CHECK(get(2 * INFO_AT + offsetof(struct shared_info, wc_sec), 4) != 0);
    finish();
}

/* --- The console's ring ----------------------------------------------------------------------- */

static uint32_t taken; /* out_cons, never to go back */

static void drain_meanwhile(void)
{
    uint32_t now = (uint32_t)get(RING(out_cons), 4);
    CHECK_LE(taken, now);
    taken = now;
    in_write = NULL;
    vcpu[1].hvm.regs.rdi = EVTCHNOP_send;
    vcpu[1].hvm.regs.rsi = ARGUMENT;
    CHECK(!xen_hypercall(host_ctx(1), &vcpu[1], __HYPERVISOR_event_channel_op));
    CHECK_EQ(vcpu[1].sleep, SLEEP_NONE);
}

/* Another vcpu tells of the same bytes while they are taken: it does so again when they are. */
TEST(one_vcpu_at_a_time_drains)
{
    char text[2000];
    setup();
    for (unsigned i = 0; i < sizeof(text); i++) {
        text[i] = (char)('a' + i % 23);
    }
    put(RING(out), text, sizeof(text));
    put32(RING(out_prod), sizeof(text));
    in_write = drain_meanwhile;
    CHECK_EQ(on_port(0, EVTCHNOP_send, XEN_CONSOLE_PORT), 0);
    CHECK_EQ(written_size, sizeof(text));
    CHECK_BYTES(written, text, sizeof(text));
    CHECK_EQ(get(RING(out_cons), 4), sizeof(text));
    CHECK_EQ(on_port(1, EVTCHNOP_send, XEN_CONSOLE_PORT), 0);
    CHECK_EQ(written_size, sizeof(text));
    finish();
}

/* The port was given to another vcpu while one types: that one waits, and nothing is typed twice.
 */
TEST(one_vcpu_at_a_time_types)
{
    setup();
    attended[0] = 0;
    CHECK_EQ(xen_type(&domain, "typed", 5), 5);
    CHECK_EQ(attended[0], 1);
    xen->port[XEN_CONSOLE_PORT].vcpu = 1;
    CHECK(klock_try(&xen->ring));
    vcpu[1].attention = 0;
    CHECK_OK(xen_attend(host_ctx(1), &vcpu[1]));
    CHECK_EQ(vcpu[1].attention, 1);
    CHECK_EQ(xen->input_size, 5);
    CHECK_EQ(get(RING(in_prod), 4), 0);
    klock_release(&xen->ring);
    CHECK_OK(xen_attend(host_ctx(1), &vcpu[1]));
    CHECK_EQ(xen->input_size, 0);
    CHECK_EQ(get(RING(in_prod), 4), 5);
    CHECK_EQ(get(RING(in), 4), 't' | 'y' << 8 | 'p' << 16 | 'e' << 24);
    finish();
}

/* A full ring: the rest comes when the guest says that it has read. */
TEST(typing_goes_on_when_there_is_room)
{
    setup();
    put32(RING(in_prod), 1022);
    CHECK_EQ(xen_type(&domain, "typed", 5), 5);
    CHECK_OK(xen_attend(scene.ctx, &vcpu[0]));
    CHECK_EQ(get(RING(in_prod), 4), 1024);
    CHECK_EQ(xen->input_size, 3);
    CHECK_OK(xen_attend(scene.ctx, &vcpu[0]));
    put32(RING(in_cons), 1024);
    attended[0] = 0;
    CHECK_EQ(on_port(1, EVTCHNOP_send, XEN_CONSOLE_PORT), 0);
    CHECK_EQ(attended[0], 1);
    CHECK_OK(xen_attend(scene.ctx, &vcpu[0]));
    CHECK_EQ(get(RING(in_prod), 4), 1027);
    CHECK_EQ(get(RING(in), 2), 'p' | 'e' << 8);
    /* Indices that cannot be: nothing is stored outside the ring, and what is typed is bounded. */
    put32(RING(in_cons), 5000);
    for (unsigned i = 0; i < 300; i++) {
        (void)xen_type(&domain, "x", 1);
        CHECK_OK(xen_attend(scene.ctx, &vcpu[0]));
    }
    CHECK_EQ(xen->input_size, XEN_INPUT_SIZE);
    CHECK_EQ(get(RING(in_cons), 4), 5000);
    CHECK_EQ(get(RING(in_prod), 4), 1027);
    finish();
}

static uint32_t reset_done;

static void *reset(void *unused)
{
    (void)unused;
    xen_reset(&domain);
    __atomic_store_n(&reset_done, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

/* A reset puts the state back only when nobody types into it. */
TEST(reset_waits_for_who_types)
{
    setup();
    for (unsigned base = 0; base < 2; base++) {
        pthread_t thread;
        test_case(base != 0 ? "with a state to go back to" : "without");
        domain.xen->vector = 5;
        if (base != 0) {
            REQUIRE_OK(xen_keep(scene.ctx, &domain));
        }
        domain.xen->vector = 6;
        CHECK_EQ(xen_type(&domain, "typed", 5), 5);
        reset_done = 0;
        klock_take(&domain.xen->lock);
        REQUIRE_EQ(pthread_create(&thread, NULL, reset, NULL), 0);
        usleep(50000);
        CHECK_EQ(__atomic_load_n(&reset_done, __ATOMIC_SEQ_CST), 0);
        klock_release(&domain.xen->lock);
        REQUIRE_EQ(pthread_join(thread, NULL), 0);
        CHECK_EQ(reset_done, 1);
        CHECK_EQ(domain.xen->vector, base != 0 ? 5 : 0);
        CHECK_EQ(domain.xen->input_size, 0);
    }
    domain.snapshot = 1;
    attended[0] = 0;
    CHECK_EQ(xen_type(&domain, "typed", 5), 0); /* its vcpus are records */
    CHECK_EQ(attended[0], 0);
    finish();
}

/* What console_io wrote is not written again when the rest of it has to wait. */
TEST(console_io_goes_on_where_it_was)
{
    static char text[10000];
    uint64_t calls = 0;
    setup();
    for (unsigned i = 0; i < sizeof(text); i++) {
        text[i] = (char)('a' + i % 23);
    }
    put(INFO_AT + PAGE_SIZE, text, sizeof(text));
    struct hvm_registers *regs = &vcpu[0].hvm.regs;
    regs->rdi = CONSOLEIO_write;
    regs->rsi = sizeof(text);
    regs->rdx = INFO_AT + PAGE_SIZE;
    while (!xen_hypercall(scene.ctx, &vcpu[0], __HYPERVISOR_console_io) && calls < 100) {
        calls++;
        CHECK_EQ(regs->rdx - (INFO_AT + PAGE_SIZE), written_size);
        CHECK_EQ(regs->rsi, sizeof(text) - written_size);
    }
    CHECK_EQ(calls, 2);
    CHECK_EQ(regs->rax, 0);
    CHECK_EQ(written_size, sizeof(text));
    CHECK_BYTES(written, text, sizeof(text));
    finish();
}

/* --- Clocks ----------------------------------------------------------------------------------- */

static const struct clock_case {
    const char *label;
    uint64_t hz;
} clocks[] = {{"4MHz", 4000000},
              {"50MHz", 50000000},
              {"999MHz", 999999999},
              {"1GHz", 1000000000},
              {"2GHz", 2000000000},
              {"2.3GHz", 2299893000},
              {"3GHz", UINT64_C(3000000000)},
              {"5.7GHz", UINT64_C(5700000001)}};

static uint64_t read_host_tsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

/* The clock is TSC / Hz within a hundred-millionth, and a time that never comes is far ahead. */
TEST_TABLE(clock, clocks)
{
    static const uint64_t seconds[] = {1, 3600, 86400, 30 * 86400};
    setup();
    tsc_per_second = row->hz;
    for (unsigned i = 0; i < sizeof(seconds) / sizeof(seconds[0]); i++) {
        uint64_t wanted = seconds[i] * 1000000000;
        tsc_offset = seconds[i] * row->hz - read_host_tsc();
        uint64_t now = xen_now(&vcpu[0]), margin = wanted / 100000000 + 1000000000;
        CHECK_LE(wanted - wanted / 100000000, now);
        CHECK_LE(now, wanted + margin);
        static const uint64_t far[] = {UINT64_MAX, UINT64_MAX / 2, UINT64_C(1) << 62,
                                       UINT64_C(1) << 56};
        for (unsigned j = 0; j < sizeof(far) / sizeof(far[0]); j++) {
            uint64_t host = read_host_tsc(), at = xen_tsc_at(&vcpu[0], far[j]);
            CHECK_LE(host + 300 * 86400 * row->hz, at);
        }
        uint64_t past = xen_tsc_at(&vcpu[0], 1);
        CHECK_LE(past, read_host_tsc());
    }
    finish();
}

/* The end of a poll is told once, wherever the vcpu is by then. */
TEST(end_of_a_poll)
{
    setup();
    tsc_offset = tsc_per_second * 10 - read_host_tsc();
    vcpu[0].xen.polling = 1;
    vcpu[0].xen.poll_until = UINT64_C(3600000000000);
    xen_run_timer(&vcpu[0]);
    CHECK_LE(read_host_tsc() + 3000 * tsc_per_second, timer_at);
    vcpu[0].xen.poll_until = 5000000000;
    vcpu[0].attention = 0;
    xen_run_timer(&vcpu[0]);
    CHECK_EQ(vcpu[0].attention, 1);
    vcpu[0].attention = 0;
    xen_run_timer(&vcpu[0]);
    CHECK_EQ(vcpu[0].attention, 0);
    CHECK_EQ(timer_at, 0);
    finish();
}
