/* SPDX-License-Identifier: BSD-2-Clause */
/* Every hypercall of Xen's ABI with right and wrong arguments; events, timers, clocks and the
 * console; then forks and resets while events are pending, a timer is armed and a vcpu polls. */
#include "xen.h"

#include "cleave/identity.h"

const char guest_name[] = "xen";

#define VCPUS 3u
#define VECTOR 0xf3u
#define PORTS 256u
#define CONSOLE_PORT 1u
#define MS UINT64_C(1000000)
#define RESETS 3u

#define INFO_AT (16 * MIB)        /* shared_info at first, */
#define MOVED_AT (INFO_AT + PAGE) /* and later */
#define VCPU_AT (INFO_AT + 2 * PAGE)
#define CALLS_AT (INFO_AT + 3 * PAGE)
#define READ_AT (20 * MIB)    /* a page that is read only */
#define SHARED_AT (64 * MIB)  /* all forks share it */
#define NO_MEMORY_AT GIB      /* mapped by the guest's tables, but no memory */
#define UNMAPPED_AT (8 * GIB) /* not mapped by them */
#define NOT_CANONICAL (UINT64_C(1) << 63)

/* --- Upcalls ---------------------------------------------------------------------------------- */

struct gate {
    uint16_t low, selector, flags, middle;
    uint32_t high, reserved;
};
extern struct gate guest_idt[32];
static struct gate idt[256];

static volatile struct shared_info *shared = (void *)INFO_AT;
static volatile struct vcpu_info *info[VCPUS];
static volatile uint64_t fired[PORTS], upcalls[VCPUS];
static void (*volatile in_upcall)(void); /* done once, by the next upcall */

static unsigned self(void)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(0x802));
    return low / 2;
}

/* As a kernel does it: the flag first, then the words that the selector names. */
__attribute__((used)) static void on_upcall(void)
{
    unsigned vcpu = self();
    void (*also)(void) = in_upcall;
    upcalls[vcpu]++;
    in_upcall = NULL;
    if (also != NULL) {
        also();
    }
    info[vcpu]->evtchn_upcall_pending = 0;
    uint64_t words = __atomic_exchange_n(&info[vcpu]->evtchn_pending_sel, 0, __ATOMIC_SEQ_CST);
    for (; words != 0; words &= words - 1) {
        unsigned word = (unsigned)__builtin_ctzll(words);
        uint64_t bits = shared->evtchn_pending[word] & ~shared->evtchn_mask[word];
        __atomic_fetch_and(&shared->evtchn_pending[word], ~bits, __ATOMIC_SEQ_CST);
        for (; bits != 0 && word < PORTS / 64; bits &= bits - 1) {
            fired[word * 64 + (unsigned)__builtin_ctzll(bits)]++;
        }
    }
}

extern const char upcall_entry[];
__asm__("upcall_entry:\n"
        "push %rax; push %rcx; push %rdx; push %rsi; push %rdi\n"
        "push %r8; push %r9; push %r10; push %r11\n"
        "cld; call on_upcall\n"
        "pop %r11; pop %r10; pop %r9; pop %r8\n"
        "pop %rdi; pop %rsi; pop %rdx; pop %rcx; pop %rax\n"
        "iretq\n");

static void load_idt(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof(idt) - 1, (uint64_t)idt};
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

static void prepare(void)
{
    uint64_t at = (uint64_t)upcall_entry;
    __builtin_memcpy(idt, guest_idt, sizeof(guest_idt));
    idt[VECTOR] = (struct gate){.low = (uint16_t)at,
                                .selector = 8,
                                .flags = 0x8e00,
                                .middle = (uint16_t)(at >> 16),
                                .high = (uint32_t)(at >> 32)};
    load_idt();
}

static void interrupts_on(void) { __asm__ volatile("sti; nop" : : : "memory"); }
static void interrupts_off(void) { __asm__ volatile("cli" : : : "memory"); }
static void sleep_once(void) { __asm__ volatile("sti; hlt; cli" : : : "memory"); }
static void window(void)
{
    interrupts_on();
    interrupts_off();
}

static bool pending(uint32_t port) { return shared->evtchn_pending[port / 64] >> port % 64 & 1; }
static void mask(uint32_t port)
{
    __atomic_fetch_or(&shared->evtchn_mask[port / 64], UINT64_C(1) << port % 64, __ATOMIC_SEQ_CST);
}
static void close_port(uint32_t port)
{
    CHECK_EQ(on_port(EVTCHNOP_close, port), 0);
    __atomic_fetch_and(&shared->evtchn_mask[port / 64], ~(UINT64_C(1) << port % 64),
                       __ATOMIC_SEQ_CST);
}
static uint64_t now(void) { return ns_at(info[0], cycles()); }

static void spin_until(uint64_t ns)
{
    while (now() < ns) {
        relax();
    }
}

/* Sleeps until the port has fired `count` times. */
static void sleep_for(uint32_t port, uint64_t count)
{
    while (fired[port] < count) {
        sleep_once();
    }
}

static bool same(const volatile void *a, const volatile void *b, size_t size)
{
    const volatile uint8_t *x = a, *y = b;
    while (size > 0 && *x == *y) {
        x++;
        y++;
        size--;
    }
    return size == 0;
}

static uint64_t exits(void) { return stat_of(CLEAVE_DOMAIN_SELF)->exits; }

/* --- Another vcpu ----------------------------------------------------------------------------- */

enum task { NAP = 1, SPIN, POLL, FILL, REST };
static volatile uint64_t task[VCPUS], done[VCPUS];
static volatile uint32_t poll_on;
static volatile int64_t polled;
static void fill(uint64_t lines);

static void worker(uint64_t number)
{
    load_idt();
    for (;;) {
        uint64_t what = __atomic_exchange_n(&task[number], 0, __ATOMIC_SEQ_CST);
        uint64_t before = upcalls[number];
        uint32_t port = poll_on;
        switch (what) {
        case NAP:
            while (upcalls[number] == before) {
                sleep_once();
            }
            break;
        case SPIN: /* interrupts off, until the next task */
            while (task[number] == 0) {
                relax();
            }
            break;
        case POLL:
            polled = poll_ports(&port, 1, 0);
            break;
        case FILL:
            fill(500);
            break;
        case REST:
            break;
        default:
            relax();
            continue;
        }
        done[number]++;
    }
}

static void give(unsigned vcpu, enum task what) { task[vcpu] = what; }

static void wait_done(unsigned vcpu, uint64_t before)
{
    while (done[vcpu] == before) {
        relax();
    }
}

/* Long enough for it to have gone to sleep. */
static void let_sleep(void)
{
    for (uint64_t end = cycles() + 20000000; cycles() < end;) {
        relax();
    }
}

/* --- Arguments -------------------------------------------------------------------------------- */

/* Addresses that cannot be read; the last can, but not written. */
static const uint64_t bad[] = {NO_MEMORY_AT,    UNMAPPED_AT, NOT_CANONICAL,    UINT64_MAX - 3,
                               UNMAPPED_AT - 2, 0,           UINT64_C(1) << 47};
enum { BAD = sizeof(bad) / sizeof(bad[0]) };

static uint64_t bad_address(unsigned i) { return bad[i] != 0 ? bad[i] : guest_memory - 2; }

static void bad_pointers(void)
{
    static const struct {
        unsigned number, command;
    } first[] = {{__HYPERVISOR_memory_op, XENMEM_add_to_physmap},
                 {__HYPERVISOR_xen_version, XENVER_extraversion},
                 {__HYPERVISOR_xen_version, XENVER_capabilities},
                 {__HYPERVISOR_xen_version, XENVER_changeset},
                 {__HYPERVISOR_xen_version, XENVER_get_features},
                 {__HYPERVISOR_sched_op, SCHEDOP_poll},
                 {__HYPERVISOR_sched_op, SCHEDOP_shutdown},
                 {__HYPERVISOR_event_channel_op, EVTCHNOP_bind_virq},
                 {__HYPERVISOR_event_channel_op, EVTCHNOP_bind_ipi},
                 {__HYPERVISOR_event_channel_op, EVTCHNOP_bind_vcpu},
                 {__HYPERVISOR_event_channel_op, EVTCHNOP_send},
                 {__HYPERVISOR_event_channel_op, EVTCHNOP_close},
                 {__HYPERVISOR_event_channel_op, EVTCHNOP_unmask},
                 {__HYPERVISOR_event_channel_op, EVTCHNOP_status},
                 {__HYPERVISOR_hvm_op, HVMOP_set_param},
                 {__HYPERVISOR_hvm_op, HVMOP_get_param}};
    for (unsigned i = 0; i < BAD; i++) {
        uint64_t at = bad_address(i);
        for (unsigned j = 0; j < sizeof(first) / sizeof(first[0]); j++) {
            if (xen_call(first[j].number, first[j].command, at, 0) != -XEN_EFAULT) {
                fail(__FILE__, __LINE__, "no -EFAULT", at, first[j].number << 8 | first[j].command);
            }
        }
        CHECK_EQ(vcpu_op(VCPUOP_set_singleshot_timer, 0, (void *)at), -XEN_EFAULT);
        CHECK_EQ(vcpu_op(VCPUOP_register_vcpu_info, 0, (void *)at), -XEN_EFAULT);
        CHECK_EQ(xen_call(__HYPERVISOR_console_io, CONSOLEIO_write, 8, at), -XEN_EFAULT);
    }
}

/* Where results go: a page that can be read only. And structures that cross pages are none of the
 * wrong ones. */
static void places_for_results(void)
{
    struct evtchn_status *across = (void *)(INFO_AT + 5 * PAGE - 4);
    *across = (struct evtchn_status){.dom = DOMID_SELF, .port = CONSOLE_PORT};
    CHECK_EQ(event_op(EVTCHNOP_status, across), 0);
    CHECK_EQ(across->status, EVTCHNSTAT_interdomain);
    across = (void *)(INFO_AT + 5 * PAGE + 1);
    *across = (struct evtchn_status){.dom = DOMID_SELF, .port = 2};
    CHECK_EQ(event_op(EVTCHNOP_status, across), 0);
    CHECK_EQ(across->status, EVTCHNSTAT_closed);

    struct evtchn_status *readable = (void *)READ_AT;
    *readable = (struct evtchn_status){.dom = DOMID_SELF, .port = CONSOLE_PORT};
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, READ_AT, PAGE, READ_ONLY, R, 0), CLEAVE_OK);
    CHECK_EQ(event_op(EVTCHNOP_status, readable), -XEN_EFAULT);
    CHECK_EQ(event_op(EVTCHNOP_bind_ipi, readable), -XEN_ENOENT); /* .vcpu: DOMID_SELF */
    CHECK_EQ(event_op(EVTCHNOP_bind_ipi, (void *)(READ_AT + 64)), -XEN_EFAULT);
    CHECK_EQ(event_op(EVTCHNOP_bind_virq, (void *)(READ_AT + 64)), -XEN_EFAULT);
    CHECK_EQ(xen_call(__HYPERVISOR_xen_version, XENVER_capabilities, READ_AT, 0), -XEN_EFAULT);
    CHECK_EQ(xen_call(__HYPERVISOR_hvm_op, HVMOP_get_param, READ_AT + 64, 0), -XEN_ESRCH);
    CHECK_EQ(place_vcpu_info(0, READ_AT), -XEN_EFAULT);
    CHECK_EQ(place_shared_info(READ_AT), -XEN_EFAULT);
    CHECK_EQ(xen_call(__HYPERVISOR_hvm_op, HVMOP_get_param, READ_AT + PAGE - 4, 0), -XEN_ESRCH);
    /* What was bound and could not be told is free again. */
    CHECK_EQ(on_port(EVTCHNOP_close, 2), -XEN_EINVAL);
}

static void unknown_calls(void)
{
    static const uint64_t commands[] = {1u << 20, UINT32_MAX, UINT64_MAX, UINT64_C(1) << 32};
    static const uint8_t known[] = {__HYPERVISOR_memory_op,  __HYPERVISOR_xen_version,
                                    __HYPERVISOR_console_io, __HYPERVISOR_vcpu_op,
                                    __HYPERVISOR_sched_op,   __HYPERVISOR_event_channel_op,
                                    __HYPERVISOR_hvm_op};
    for (uint64_t number = 0; number < 80; number++) {
        bool is_known = number == CLEAVE_HYPERCALL || /* and those of guests/multicall */
                        number == __HYPERVISOR_multicall || number == __HYPERVISOR_platform_op ||
                        number == __HYPERVISOR_sysctl || number == __HYPERVISOR_domctl ||
                        number == __HYPERVISOR_arch_1;
        for (unsigned i = 0; i < sizeof(known); i++) {
            is_known |= number == known[i];
        }
        if (!is_known) {
            CHECK_EQ(xen_call(number, 0, 0, 0), -XEN_ENOSYS);
        }
    }
    CHECK_EQ(xen_call(UINT64_MAX, 0, 0, 0), -XEN_ENOSYS);
    CHECK_EQ(xen_call(UINT64_C(1) << 32 | CLEAVE_HYPERCALL, 0, 0, 0), -XEN_ENOSYS);
    for (unsigned i = 0; i < sizeof(known); i++) {
        for (unsigned j = 0; j < sizeof(commands) / sizeof(commands[0]); j++) {
            CHECK_EQ(xen_call(known[i], commands[j], 0, 0), -XEN_ENOSYS);
        }
    }
    CHECK_EQ(event_op(EVTCHNOP_init_control, NULL), -XEN_ENOSYS); /* so a guest uses two levels */
    CHECK_EQ(xen_call(__HYPERVISOR_memory_op, XENMEM_memory_map, 0, 0), -XEN_ENOSYS);
}

static void wrong_numbers(void)
{
    struct xen_add_to_physmap add = {.domid = 1, .space = XENMAPSPACE_shared_info};
    struct evtchn_status status = {.dom = 1};
    struct xen_hvm_param param = {.domid = 1};
    struct sched_shutdown shutdown = {.reason = 5};
    uint32_t port[65] = {PORTS};

    CHECK_EQ(xen_call(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, (uint64_t)&add, 0),
             -XEN_ESRCH);
    add = (struct xen_add_to_physmap){.domid = DOMID_SELF, .space = XENMAPSPACE_grant_table};
    CHECK_EQ(xen_call(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, (uint64_t)&add, 0),
             -XEN_ENOSYS);
    add = (struct xen_add_to_physmap){.domid = DOMID_SELF, .idx = 1};
    CHECK_EQ(xen_call(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, (uint64_t)&add, 0),
             -XEN_EINVAL);
    CHECK_EQ(place_shared_info(UINT64_MAX & ~UINT64_C(4095)), -XEN_EINVAL);
    CHECK_EQ(place_shared_info(NO_MEMORY_AT), -XEN_EFAULT);

    CHECK_EQ(event_op(EVTCHNOP_status, &status), -XEN_ESRCH);
    status = (struct evtchn_status){.dom = DOMID_SELF, .port = PORTS};
    CHECK_EQ(event_op(EVTCHNOP_status, &status), -XEN_EINVAL);
    for (unsigned i = 0; i < 4; i++) {
        static const uint8_t commands[] = {EVTCHNOP_send, EVTCHNOP_close, EVTCHNOP_unmask,
                                           EVTCHNOP_bind_vcpu};
        struct evtchn_bind_vcpu bind = {.port = 0};
        CHECK_EQ(event_op(commands[i], &bind), -XEN_EINVAL);
        bind.port = PORTS;
        CHECK_EQ(event_op(commands[i], &bind), -XEN_EINVAL);
        bind.port = UINT32_MAX;
        CHECK_EQ(event_op(commands[i], &bind), -XEN_EINVAL);
    }
    CHECK_EQ(bind_ipi(VCPUS), -XEN_ENOENT);
    CHECK_EQ(bind_ipi(UINT32_MAX), -XEN_ENOENT);
    CHECK_EQ(bind_virq(VIRQ_TIMER, VCPUS), -XEN_ENOENT);
    CHECK_EQ(bind_virq(VIRQ_CONSOLE, 0), -XEN_EINVAL);
    CHECK_EQ(bind_virq(UINT32_MAX, 0), -XEN_EINVAL);
    CHECK_EQ(vcpu_op(VCPUOP_is_up, VCPUS, NULL), -XEN_ENOENT);
    CHECK_EQ(vcpu_op(VCPUOP_is_up, UINT64_MAX, NULL), -XEN_ENOENT);
    CHECK_EQ(vcpu_op(VCPUOP_stop_singleshot_timer, 1, NULL), -XEN_EINVAL);
    CHECK_EQ(vcpu_op(VCPUOP_set_singleshot_timer, 1, port), -XEN_EINVAL);
    CHECK_EQ(xen_call(__HYPERVISOR_hvm_op, HVMOP_get_param, (uint64_t)&param, 0), -XEN_ESRCH);
    param = (struct xen_hvm_param){.domid = DOMID_SELF, .index = HVM_NR_PARAMS};
    CHECK_EQ(xen_call(__HYPERVISOR_hvm_op, HVMOP_get_param, (uint64_t)&param, 0), -XEN_EINVAL);
    CHECK_EQ(set_param(UINT32_MAX, 0), -XEN_EINVAL);
    CHECK_EQ(xen_call(__HYPERVISOR_sched_op, SCHEDOP_shutdown, (uint64_t)&shutdown, 0),
             -XEN_EINVAL);
    shutdown.reason = UINT32_MAX;
    CHECK_EQ(xen_call(__HYPERVISOR_sched_op, SCHEDOP_shutdown, (uint64_t)&shutdown, 0),
             -XEN_EINVAL);
    CHECK_EQ(poll_ports(port, 65, 0), -XEN_EINVAL);
    CHECK_EQ(poll_ports(port, UINT32_MAX, 0), -XEN_EINVAL);
    CHECK_EQ(poll_ports(port, 1, 0), -XEN_EINVAL);
    CHECK_EQ(poll_ports((uint32_t *)NO_MEMORY_AT, 1, 0), -XEN_EFAULT);
    CHECK_EQ(poll_ports((uint32_t *)NOT_CANONICAL, 1, 0), -XEN_EFAULT);
    CHECK_EQ(xen_call(__HYPERVISOR_sched_op, SCHEDOP_yield, 0, 0), 0);
}

/* Before there is a shared_info: nothing to poll or unmask. Ports can be bound already. */
static void without_shared_info(void)
{
    uint32_t port = CONSOLE_PORT;
    CHECK_EQ(poll_ports(&port, 1, 1), -XEN_EINVAL);
    CHECK_EQ(on_port(EVTCHNOP_unmask, CONSOLE_PORT), -XEN_EINVAL);
    CHECK_EQ(bind_ipi(0), 2);
    CHECK_EQ(on_port(EVTCHNOP_send, 2), 0); /* comes when there is a place for it */
}

/* --- What a guest is told --------------------------------------------------------------------- */

static void versions(void)
{
    char text[1024];
    struct xen_feature_info features = {.submap_idx = 0};
    uint32_t a = 0x40000000, b, c, d;

    CHECK_EQ(xen_call(__HYPERVISOR_xen_version, XENVER_version, 0, 0), 4 << 16 | 17);
    CHECK_EQ(xen_call(__HYPERVISOR_xen_version, XENVER_pagesize, 0, 0), PAGE);
    CHECK_EQ(xen_call(__HYPERVISOR_xen_version, XENVER_capabilities, (uint64_t)text, 0), 0);
    CHECK(same(text, "hvm-3.0-x86_64", 15));
    CHECK_EQ(text[1023], 0);
    CHECK_EQ(xen_call(__HYPERVISOR_xen_version, XENVER_get_features, (uint64_t)&features, 0), 0);
    CHECK_EQ(features.submap & 0x305, 0x305); /* translated, callback vector, clock */
    features.submap_idx = 1;
    CHECK_EQ(xen_call(__HYPERVISOR_xen_version, XENVER_get_features, (uint64_t)&features, 0), 0);
    CHECK_EQ(features.submap, 0);
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
    CHECK_EQ(b, 0x566e6558); /* "XenV" */
    a = 0x40000004;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
    CHECK_EQ(a, 1u << 3 | 1u << 4);
    CHECK_EQ(b, self());
    CHECK_EQ(vcpu_op(VCPUOP_is_up, 0, NULL), 1);
    CHECK_EQ(vcpu_op(VCPUOP_is_up, 1, NULL), 0);
    CHECK_EQ(vcpu_op(VCPUOP_register_runstate_memory_area, 0, NULL), 0);
    CHECK_EQ(vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL), 0);
}

static void params(void)
{
    struct xen_hvm_param param = {.domid = DOMID_SELF, .index = HVM_PARAM_CONSOLE_PFN};
    CHECK_EQ(xen_call(__HYPERVISOR_hvm_op, HVMOP_get_param, (uint64_t)&param, 0), 0);
    CHECK_EQ(param.value, (uint64_t)CONSOLE_RING / PAGE);
    param.index = HVM_PARAM_CONSOLE_EVTCHN;
    CHECK_EQ(xen_call(__HYPERVISOR_hvm_op, HVMOP_get_param, (uint64_t)&param, 0), 0);
    CHECK_EQ(param.value, CONSOLE_PORT);
    param.index = HVM_PARAM_STORE_EVTCHN;
    CHECK_EQ(xen_call(__HYPERVISOR_hvm_op, HVMOP_get_param, (uint64_t)&param, 0), 0);
    CHECK_EQ(param.value, 0);
    CHECK_EQ(set_param(HVM_PARAM_CONSOLE_PFN, 5), -XEN_EPERM);
    CHECK_EQ(set_param(HVM_PARAM_CALLBACK_IRQ, CALLBACK_VECTOR(0x0f)), -XEN_EINVAL);
    CHECK_EQ(set_param(HVM_PARAM_CALLBACK_IRQ, CALLBACK_VECTOR(0x1f3)), -XEN_EINVAL);
    CHECK_EQ(set_param(HVM_PARAM_CALLBACK_IRQ, VECTOR), -XEN_EINVAL);
    CHECK_EQ(set_param(HVM_PARAM_CALLBACK_IRQ, UINT64_C(1) << 56 | VECTOR), -XEN_EINVAL);
}

static void clocks(void)
{
    const volatile struct vcpu_time_info *time = &shared->vcpu_info[0].time;
    uint64_t last = 0;
    CHECK(time->tsc_to_system_mul >= 1u << 31);
    CHECK_EQ(time->version % 2, 0);
    CHECK_EQ(shared->wc_version % 2, 0);
    uint64_t seconds = (uint64_t)shared->wc_sec_hi << 32 | shared->wc_sec;
    CHECK(seconds > UINT64_C(1700000000) && seconds < UINT64_C(5000000000));
    CHECK(shared->wc_nsec < 1000000000);
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t ns = ns_at(&shared->vcpu_info[i % VCPUS], cycles());
        CHECK(ns >= last);
        last = ns;
    }
    struct cleave_version version = {0};
    CHECK_EQ(CLEAVE(CLEAVE_OP_VERSION, &version), CLEAVE_OK);
    uint64_t second = ns_at(&shared->vcpu_info[0], version.tsc_per_second);
    CHECK(second > 999999 * 1000 && second < 1000001 * 1000); /* a millionth */
}

/* shared_info moves: emptied, and what tells of events is there from then on. */
static void shared_infos(void)
{
    *word(INFO_AT + 64) = 1; /* what lay there before */
    CHECK_EQ(place_shared_info(INFO_AT), 0);
    CHECK_EQ(*word(INFO_AT + 64), 0);
    clocks();
    info[0] = &shared->vcpu_info[0];
    CHECK(pending(2)); /* sent before */
    CHECK_EQ(info[0]->evtchn_upcall_pending, 1);
    CHECK_EQ(info[0]->evtchn_pending_sel, 1);
    CHECK_EQ(place_shared_info(MOVED_AT), 0);
    *word(INFO_AT) = 0x1111;
    shared = (void *)MOVED_AT;
    info[0] = &shared->vcpu_info[0];
    clocks();
    CHECK(!pending(2));
    CHECK_EQ(on_port(EVTCHNOP_send, 2), 0);
    CHECK(pending(2));
    CHECK_EQ(info[0]->evtchn_upcall_pending, 1);
    CHECK_EQ(*word(INFO_AT), 0x1111);
    CHECK_EQ(on_port(EVTCHNOP_close, 2), 0);
}

static void vcpu_infos(void)
{
    CHECK_EQ(place_vcpu_info(0, VCPU_AT + PAGE - 56), -XEN_EINVAL);
    CHECK_EQ(place_vcpu_info(0, VCPU_AT + 4), -XEN_EINVAL);
    CHECK_EQ(place_vcpu_info(0, NO_MEMORY_AT), -XEN_EFAULT);
    CHECK_EQ(place_vcpu_info(0, UINT64_C(1) << 60), -XEN_EINVAL);
    CHECK_EQ(place_vcpu_info(VCPUS, VCPU_AT), -XEN_ENOENT);
    for (unsigned i = 0; i < VCPUS; i++) {
        uint64_t at = VCPU_AT + PAGE - 64 * (i + 1);
        info[i] = (void *)at;
        CHECK_EQ(place_vcpu_info(i, at), 0);
        CHECK_EQ(info[i]->evtchn_upcall_pending, 1);
        CHECK_EQ(info[i]->evtchn_pending_sel, UINT64_MAX);
        CHECK_EQ(info[i]->time.tsc_to_system_mul, shared->vcpu_info[0].time.tsc_to_system_mul);
        CHECK_EQ(place_vcpu_info(i, VCPU_AT), -XEN_EINVAL); /* once */
    }
}

/* --- Events ----------------------------------------------------------------------------------- */

/* What is pending is told when there is a vector at last, to vcpus that sleep as well. */
static void first_upcall(void)
{
    uint64_t before = done[1];
    start_vcpu(1, worker, 1);
    give(1, NAP);
    let_sleep();
    window();
    CHECK_EQ(upcalls[0] + upcalls[1], 0);
    CHECK_EQ(set_param(HVM_PARAM_CALLBACK_IRQ, CALLBACK_VECTOR(VECTOR)), 0);
    window();
    CHECK_EQ(upcalls[0], 1);
    wait_done(1, before);
    CHECK_EQ(upcalls[1], 1);
}

static void events(void)
{
    uint32_t port = (uint32_t)bind_ipi(0);
    uint64_t told = upcalls[0];
    CHECK_EQ(port, 2);

    /* Held back while interrupts are off; one upcall for two. */
    CHECK_EQ(on_port(EVTCHNOP_send, port), 0);
    CHECK_EQ(on_port(EVTCHNOP_send, port), 0);
    CHECK(pending(port) && info[0]->evtchn_upcall_pending == 1);
    CHECK_EQ(upcalls[0], told);
    window();
    CHECK_EQ(upcalls[0], told + 1);
    CHECK_EQ(fired[port], 1);

    /* At once while they are on. */
    interrupts_on();
    CHECK_EQ(on_port(EVTCHNOP_send, port), 0);
    CHECK_EQ(fired[port], 2);
    interrupts_off();

    /* Found by the guest itself: no upcall any more. */
    CHECK_EQ(on_port(EVTCHNOP_send, port), 0);
    told = upcalls[0];
    on_upcall();
    window();
    CHECK_EQ(upcalls[0], told + 1);
    CHECK_EQ(fired[port], 3);

    /* Masked: pending, and told when the mask goes. */
    mask(port);
    told = upcalls[0];
    CHECK_EQ(on_port(EVTCHNOP_send, port), 0);
    CHECK(pending(port) && info[0]->evtchn_upcall_pending == 0);
    window();
    CHECK_EQ(upcalls[0], told);
    CHECK_EQ(on_port(EVTCHNOP_unmask, port), 0);
    window();
    CHECK_EQ(fired[port], 4);
    CHECK_EQ(upcalls[0], told + 1);
    CHECK_EQ(on_port(EVTCHNOP_unmask, port), 0);
    window();
    CHECK_EQ(upcalls[0], told + 1);

    /* It ends HLT, also when it came before. */
    CHECK_EQ(on_port(EVTCHNOP_send, port), 0);
    sleep_once();
    CHECK_EQ(fired[port], 5);

    /* A port that is closed and bound again has nothing pending. */
    mask(port);
    CHECK_EQ(on_port(EVTCHNOP_send, port), 0);
    CHECK_EQ(on_port(EVTCHNOP_close, port), 0);
    CHECK_EQ(on_port(EVTCHNOP_close, port), -XEN_EINVAL);
    CHECK_EQ(on_port(EVTCHNOP_send, port), -XEN_EINVAL);
    CHECK_EQ(on_port(EVTCHNOP_unmask, port), 0);
    CHECK_EQ(bind_ipi(0), port);
    CHECK(!pending(port));
    window();
    CHECK_EQ(fired[port], 5);
    CHECK_EQ(on_port(EVTCHNOP_close, port), 0);
}

static void states_of_ports(void)
{
    struct evtchn_status status = {.dom = DOMID_SELF};
    struct evtchn_bind_vcpu bind = {.port = CONSOLE_PORT, .vcpu = 1};
    uint32_t ipi = (uint32_t)bind_ipi(1), virq = (uint32_t)bind_virq(VIRQ_DEBUG, 1);

    CHECK_EQ(ipi, 2);
    CHECK_EQ(virq, 3);
    CHECK_EQ(bind_virq(VIRQ_DEBUG, 1), -XEN_EEXIST);
    status.port = ipi;
    CHECK_EQ(event_op(EVTCHNOP_status, &status), 0);
    CHECK(status.status == EVTCHNSTAT_ipi && status.vcpu == 1);
    status.port = virq;
    CHECK_EQ(event_op(EVTCHNOP_status, &status), 0);
    CHECK(status.status == EVTCHNSTAT_virq && status.vcpu == 1 && status.u.virq == VIRQ_DEBUG);
    CHECK_EQ(on_port(EVTCHNOP_send, virq), -XEN_EINVAL);
    CHECK_EQ(event_op(EVTCHNOP_bind_vcpu, &bind), 0);
    status.port = CONSOLE_PORT;
    CHECK_EQ(event_op(EVTCHNOP_status, &status), 0);
    CHECK_EQ(status.vcpu, 1);
    bind.vcpu = VCPUS;
    CHECK_EQ(event_op(EVTCHNOP_bind_vcpu, &bind), -XEN_ENOENT);
    bind.vcpu = 0;
    CHECK_EQ(event_op(EVTCHNOP_bind_vcpu, &bind), 0);
    bind.port = ipi;
    CHECK_EQ(event_op(EVTCHNOP_bind_vcpu, &bind), -XEN_EINVAL);
    CHECK_EQ(on_port(EVTCHNOP_close, CONSOLE_PORT), -XEN_EINVAL);

    /* All of them, each pending: every word of the selector. */
    unsigned bound = 0;
    while (bind_ipi(0) > 0) {
        bound++;
    }
    CHECK_EQ(bind_ipi(0), -XEN_ENOSPC);
    CHECK_EQ(bind_virq(VIRQ_TIMER, 0), -XEN_ENOSPC);
    CHECK_EQ(bound, PORTS - 4);
    uint64_t last = fired[PORTS - 1];
    for (uint32_t i = 4; i < PORTS; i++) {
        CHECK_EQ(on_port(EVTCHNOP_send, i), 0);
    }
    CHECK_EQ(info[0]->evtchn_pending_sel, 0xf);
    window();
    CHECK_EQ(fired[PORTS - 1], last + 1);
    for (uint32_t i = 2; i < PORTS; i++) {
        CHECK_EQ(on_port(EVTCHNOP_close, i), 0);
    }
    CHECK_EQ(bind_virq(VIRQ_DEBUG, 1), 2);
    CHECK_EQ(on_port(EVTCHNOP_close, 2), 0);
}

/* Two vcpus and a port to each. */
static void across_vcpus(void)
{
    uint32_t port = (uint32_t)bind_ipi(1);
    for (unsigned i = 0; i < 50; i++) {
        uint64_t before = done[1], count = fired[port];
        give(1, NAP);
        if (i % 2 != 0) {
            let_sleep();
        }
        CHECK_EQ(on_port(EVTCHNOP_send, port), 0);
        wait_done(1, before);
        /* What came before it slept may have been taken by the nap before. */
        CHECK(fired[port] >= count && fired[port] <= count + 1);
    }
    /* A poll ends when its port is pending, masked or not; not by another port. */
    uint32_t other = (uint32_t)bind_ipi(1);
    uint64_t before = done[1];
    mask(port);
    mask(other);
    poll_on = port;
    give(1, POLL);
    let_sleep();
    CHECK_EQ(on_port(EVTCHNOP_send, other), 0);
    let_sleep();
    CHECK_EQ(done[1], before);
    CHECK_EQ(on_port(EVTCHNOP_send, port), 0);
    wait_done(1, before);
    CHECK_EQ(polled, 0);
    CHECK(pending(port));
    before = done[1];
    give(1, POLL); /* is pending still */
    wait_done(1, before);
    close_port(port);
    close_port(other);
}

/* --- Timers ----------------------------------------------------------------------------------- */

static uint32_t timer;

static void timers(void)
{
    CHECK_EQ(set_timer(1, 0), 0); /* nobody is told */
    window();
    timer = (uint32_t)bind_virq(VIRQ_TIMER, 0);
    uint64_t count = fired[timer], at;

    CHECK_EQ(set_timer(now() - 1, 0), 0); /* past */
    window();
    CHECK_EQ(fired[timer], count + 1);
    CHECK_EQ(set_timer(0, 0), 0);
    window();
    CHECK_EQ(fired[timer], count + 2);
    CHECK_EQ(set_timer(now() - 1, VCPU_SSHOTTMR_future), -XEN_ETIME);
    window();
    CHECK_EQ(fired[timer], count + 2);

    at = now() + 100 * MS; /* an emulator may stand still in between */
    CHECK_EQ(set_timer(at, VCPU_SSHOTTMR_future), 0);
    sleep_for(timer, count + 3);
    CHECK(now() >= at);

    at = now() + 3 * MS; /* while it runs */
    CHECK_EQ(set_timer(at, 0), 0);
    interrupts_on();
    while (fired[timer] < count + 4) {
        relax();
    }
    interrupts_off();
    CHECK(now() >= at);

    CHECK_EQ(set_timer(now() + 60000 * MS, 0), 0); /* moved */
    CHECK_EQ(set_timer(now() + 2 * MS, 0), 0);
    sleep_for(timer, count + 5);

    CHECK_EQ(set_timer(now() + 5 * MS, 0), 0); /* stopped */
    CHECK_EQ(vcpu_op(VCPUOP_stop_singleshot_timer, 0, NULL), 0);
    interrupts_on();
    spin_until(now() + 10 * MS);
    interrupts_off();
    CHECK_EQ(fired[timer], count + 5);

    CHECK_EQ(set_timer(UINT64_MAX, 0), 0); /* in centuries */
    interrupts_on();
    spin_until(now() + 10 * MS);
    interrupts_off();
    CHECK_EQ(fired[timer], count + 5);

    give(1, SPIN); /* while another vcpu has the other CPU for itself */
    CHECK_EQ(set_timer(now() + 3 * MS, 0), 0);
    sleep_for(timer, count + 6);
    uint64_t before = done[1];
    give(1, REST);
    wait_done(1, before);
}

static uint64_t lingered; /* exits meanwhile */

static void linger(void)
{
    uint64_t before = exits();
    spin_until(now() + 30 * MS);
    lingered = exits() - before;
}

static void polls(void)
{
    uint32_t port[2] = {(uint32_t)bind_ipi(0), 0};
    uint64_t at = now() + 3 * MS;

    mask(port[0]);
    CHECK_EQ(poll_ports(port, 1, 1), 0); /* is over */
    CHECK_EQ(poll_ports(port, 1, at), 0);
    CHECK(now() >= at);
    CHECK_EQ(on_port(EVTCHNOP_send, port[0]), 0);
    CHECK_EQ(poll_ports(port, 1, 0), 0);
    CHECK_EQ(poll_ports(port, 2, 0), 0);
    CHECK_EQ(poll_ports(port, 0, 1), 0);

    /* An upcall in the midst of a poll takes longer than the poll: its time passes quietly. */
    close_port(port[0]);
    port[0] = (uint32_t)bind_ipi(0);
    in_upcall = linger;
    at = now() + 8 * MS;
    CHECK_EQ(set_timer(now() + 4 * MS, 0), 0);
    interrupts_on();
    CHECK_EQ(poll_ports(port, 1, at), 0);
    interrupts_off();
    CHECK(now() >= at + 20 * MS);
    CHECK(lingered < 100);
    close_port(port[0]);
}

/* --- Consoles --------------------------------------------------------------------------------- */

static volatile uint32_t ring_lock, ring_broken;

/* Lines of 7 bytes, written under a lock and told without, as a kernel does it. */
static void fill(uint64_t lines)
{
    volatile struct xencons_interface *ring = CONSOLE_RING;
    uint32_t last = 0;
    for (uint64_t i = 0; i < lines; i++) {
        while (__atomic_exchange_n(&ring_lock, 1, __ATOMIC_SEQ_CST) != 0) {
            relax();
        }
        uint32_t taken = ring->out_cons, at = ring->out_prod;
        ring_broken |= at - taken > sizeof(ring->out) || (i != 0 && (int32_t)(taken - last) < 0);
        last = taken;
        if (at - taken <= sizeof(ring->out) - 7) {
            for (unsigned j = 0; j < 7; j++) {
                ring->out[(at + j) % sizeof(ring->out)] = "filled\n"[j];
            }
            ring->out_prod = at + 7;
        }
        __atomic_store_n(&ring_lock, 0, __ATOMIC_SEQ_CST);
        CHECK_EQ(on_port(EVTCHNOP_send, CONSOLE_PORT), 0);
    }
}

static void consoles(void)
{
    static const uint32_t hostile[][2] = {
        /* out_cons, out_prod */
        {0, 5000}, {5000, 0},       {0, 2049},      {UINT32_MAX - 5, 10},
        {1, 0},    {0x80000000, 0}, {0, UINT32_MAX}};
    volatile struct xencons_interface *ring = CONSOLE_RING;
    static char text[10000];
    uint64_t end = guest_memory - 100;

    for (unsigned i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
        ring->out_cons = hostile[i][0];
        ring->out_prod = hostile[i][1];
        CHECK_EQ(on_port(EVTCHNOP_send, CONSOLE_PORT), 0);
        CHECK_EQ(ring->out_cons, ring->out_prod);
        CHECK_EQ(ring->out_prod, hostile[i][1]);
    }
    ring->out_cons = ring->out_prod = UINT32_MAX - 100; /* wraps */
    fill(100);
    uint64_t before = done[1];
    give(1, FILL);
    fill(500);
    wait_done(1, before);
    CHECK_EQ(ring_broken, 0);
    CHECK_EQ(ring->out_cons, ring->out_prod);

    __builtin_memset(text, 'x', sizeof(text));
    CHECK_EQ(xen_call(__HYPERVISOR_console_io, CONSOLEIO_write, sizeof(text), (uint64_t)text), 0);
    CHECK_EQ(xen_call(__HYPERVISOR_console_io, CONSOLEIO_write, 0, NOT_CANONICAL), 0);
    CHECK_EQ(xen_call(__HYPERVISOR_console_io, CONSOLEIO_write, 101, end), -XEN_EFAULT);
    CHECK_EQ(xen_call(__HYPERVISOR_console_io, CONSOLEIO_write, UINT32_MAX, guest_memory - 8192),
             -XEN_EFAULT);
    CHECK_EQ(xen_call(__HYPERVISOR_console_io, CONSOLEIO_read, 10, NOT_CANONICAL), 0);
}

/* What it printed, read as from outside, and what is typed for it. */
static void terminals(void)
{
    static char text[CLEAVE_TEXT_MAX], printed[10000];
    volatile struct xencons_interface *ring = CONSOLE_RING;
    struct cleave_terminal terminal = {
        .domain = CLEAVE_DOMAIN_SELF, .buffer = (uint64_t)text, .size = sizeof(text)};

    for (unsigned i = 0; i < sizeof(printed); i++) {
        printed[i] = (char)('a' + i % 26);
    }
    CHECK_EQ(xen_call(__HYPERVISOR_console_io, CONSOLEIO_write, sizeof(printed), (uint64_t)printed),
             0);
    CHECK_EQ(CLEAVE(CLEAVE_OP_TERMINAL, &terminal), CLEAVE_OK);
    uint64_t end = terminal.cursor;
    CHECK_EQ(terminal.size, CLEAVE_TERMINAL_KEPT);
    CHECK_EQ(terminal.lost, end - CLEAVE_TERMINAL_KEPT);
    CHECK(same(text, printed + sizeof(printed) - CLEAVE_TERMINAL_KEPT, CLEAVE_TERMINAL_KEPT));
    terminal.size = 1;
    CHECK_EQ(CLEAVE(CLEAVE_OP_TERMINAL, &terminal), CLEAVE_OK);
    CHECK(terminal.size == 0 && terminal.cursor == end && terminal.lost == 0);
    CHECK_EQ(xen_call(__HYPERVISOR_console_io, CONSOLEIO_write, 3, (uint64_t) "123"), 0);
    terminal.size = 2;
    terminal.cursor = end - 1;
    CHECK_EQ(CLEAVE(CLEAVE_OP_TERMINAL, &terminal), CLEAVE_OK);
    CHECK(terminal.size == 2 && terminal.cursor == end + 1 && terminal.lost == 0);
    CHECK(text[0] == printed[sizeof(printed) - 1] && text[1] == '1');
    terminal.size = 10;
    CHECK_EQ(CLEAVE(CLEAVE_OP_TERMINAL, &terminal), CLEAVE_OK);
    CHECK(terminal.size == 2 && terminal.cursor == end + 3 && same(text, "23", 2));

    mask(CONSOLE_PORT);
    uint32_t before = ring->in_prod;
    ring->in_cons = before;
    terminal = (struct cleave_terminal){.domain = CLEAVE_DOMAIN_SELF,
                                        .flags = CLEAVE_TERMINAL_TYPE,
                                        .buffer = (uint64_t)printed,
                                        .size = CLEAVE_TEXT_MAX};
    CHECK_EQ(CLEAVE(CLEAVE_OP_TERMINAL, &terminal), CLEAVE_OK);
    CHECK(terminal.size >= 64 && terminal.size < CLEAVE_TEXT_MAX); /* as many as it takes */
    while (!pending(CONSOLE_PORT)) {
        relax();
    }
    CHECK_EQ(ring->in_prod - before, terminal.size);
    for (uint32_t i = 0; i < terminal.size; i++) {
        CHECK_EQ(ring->in[(before + i) % sizeof(ring->in)], printed[i]);
    }
    ring->in_cons = ring->in_prod;
    __atomic_fetch_and(&shared->evtchn_pending[0], ~(UINT64_C(1) << CONSOLE_PORT),
                       __ATOMIC_SEQ_CST);
    __atomic_fetch_and(&shared->evtchn_mask[0], ~(UINT64_C(1) << CONSOLE_PORT), __ATOMIC_SEQ_CST);
}

/* --- Ways to call ----------------------------------------------------------------------------- */

extern const char user_entry[];
uint64_t guest_call_32(uint64_t number), guest_call_user(uint64_t number);

/* 32-bit code by a far return; ring 3 by SYSRET, and back by SYSCALL. */
__asm__(".data\n"
        ".align 8\n"
        "call_gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff\n"
        "    .quad 0x00cffb000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff\n"
        "call_gdt_pointer: .word 55\n"
        "    .quad call_gdt\n"
        "guest_user_stack: .quad 0\n"
        ".text\n"
        "guest_call_32:\n"
        "    push %rbx\n"
        "    lgdt call_gdt_pointer\n"
        "    mov %rdi, %rax\n"
        "    xor %ebx, %ebx\n"
        "    xor %ecx, %ecx\n"
        "    xor %edx, %edx\n"
        "    cmpb $0, guest_amd\n"
        "    push $0x18\n"
        "    pushq $1f\n"
        "    lretq\n"
        ".code32\n"
        "1:  je 2f\n"
        "    vmmcall\n"
        "    jmp 3f\n"
        "2:  vmcall\n"
        "3:  ljmpl $8, $4f\n"
        ".code64\n"
        "4:  pop %rbx\n"
        "    mov %eax, %eax\n"
        "    ret\n"
        "guest_call_user:\n"
        "    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "    lgdt call_gdt_pointer\n"
        "    mov %rsp, guest_user_stack\n"
        "    mov %rdi, %rax\n"
        "    xor %edi, %edi\n"
        "    xor %esi, %esi\n"
        "    xor %edx, %edx\n"
        "    mov $1f, %ecx\n"
        "    mov $2, %r11d\n"
        "    cmpb $0, guest_amd\n"
        "    sete %bl\n"
        "    sysretq\n"
        "1:  test %bl, %bl\n"
        "    jne 2f\n"
        "    vmmcall\n"
        "    syscall\n"
        "2:  vmcall\n"
        "    syscall\n"
        "user_entry:\n"
        "    mov guest_user_stack, %rsp\n"
        "    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "    ret\n");

static void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr"
                     :
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
}

static void ways_to_call(void)
{
    extern uint64_t guest_pd[];
    CHECK_EQ((int32_t)guest_call_32(__HYPERVISOR_xen_version), -XEN_ENOSYS);
    CHECK_EQ((int32_t)guest_call_32(__HYPERVISOR_sched_op), -XEN_ENOSYS);

    for (uint64_t at = (uint64_t)user_entry / (2 * MIB); at <= (uint64_t)guest_end / (2 * MIB);
         at++) {
        guest_pd[at] |= 4; /* ring 3 fetches there */
    }
    wrmsr(0xc0000081, UINT64_C(0x20) << 48 | UINT64_C(8) << 32); /* STAR */
    wrmsr(0xc0000082, (uint64_t)user_entry);                     /* LSTAR */
    wrmsr(0xc0000084, 0x200);
    CHECK_EQ(guest_call_user(__HYPERVISOR_xen_version), -XEN_EPERM);
    CHECK_EQ(guest_call_user(__HYPERVISOR_sched_op), -XEN_EPERM);
    CHECK_EQ(guest_call_user(UINT32_MAX), -XEN_EPERM);
    CHECK_EQ(guest_call_user(CLEAVE_HYPERCALL), CLEAVE_DENIED);

    wrmsr(0x40000000, CALLS_AT);
    int64_t (*call)(uint64_t) = (void *)(CALLS_AT + 32 * __HYPERVISOR_xen_version);
    CHECK_EQ(call(XENVER_version), 4 << 16 | 17);
    call = (void *)(CALLS_AT + 32 * 127);
    CHECK_EQ(call(0), -XEN_ENOSYS);
    uint32_t a = 0x40000002, b, c, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
    CHECK_EQ(b, 0x40000000);
}

/* --- Ends ------------------------------------------------------------------------------------- */

static void ends(void)
{
    static const uint8_t wanted[] = {[SHUTDOWN_poweroff] = CLEAVE_POWERED_OFF,
                                     [SHUTDOWN_reboot] = CLEAVE_REBOOTED,
                                     [SHUTDOWN_suspend] = CLEAVE_SUSPENDED,
                                     [SHUTDOWN_crash] = CLEAVE_GUEST_CRASHED,
                                     [SHUTDOWN_watchdog] = CLEAVE_GUEST_CRASHED};
    for (unsigned i = 0; i < sizeof(wanted); i++) {
        uint32_t id;
        if (fork_self(1, 0, &id) == 1) {
            struct sched_shutdown shutdown = {.reason = i};
            (void)xen_call(__HYPERVISOR_sched_op, SCHEDOP_shutdown, (uint64_t)&shutdown, 0);
            leave(3);
        }
        struct cleave_wait wait = {.domain = id};
        CHECK_EQ(CLEAVE(CLEAVE_OP_WAIT, &wait), CLEAVE_OK);
        CHECK_EQ(wait.reason, wanted[i]);
        CHECK_EQ(wait.code, 0);
        destroy(id);
    }
}

/* --- Forks ------------------------------------------------------------------------------------ */

static const char data[] = "what the children are told";
static uint32_t held, wake, late; /* ports: pending and masked; what vcpu 1 polls; of vcpu 2 */
static uint32_t before_cons, before_prod;
static uint64_t before_fired, before_done;
static uint8_t generation[16];

static const volatile struct cleave_identity *identity(void) { return (void *)CLEAVE_IDENTITY_GPA; }

static uint32_t own_id(void)
{
    struct cleave_version version = {0};
    CHECK_EQ(CLEAVE(CLEAVE_OP_VERSION, &version), CLEAVE_OK);
    return version.domain;
}

/* An event is pending, a timer is armed, a vcpu polls, another was never started, and the console's
 * ring is half full. */
static void make_busy(void)
{
    volatile struct xencons_interface *ring = CONSOLE_RING;
    held = (uint32_t)bind_ipi(0);
    wake = (uint32_t)bind_ipi(1);
    late = (uint32_t)bind_ipi(2);
    mask(held);
    mask(wake);
    CHECK_EQ(on_port(EVTCHNOP_send, held), 0);
    poll_on = wake;
    before_done = done[1];
    give(1, POLL);
    let_sleep();
    ring->out_prod = ring->out_prod + 100;
    before_cons = ring->out_cons;
    before_prod = ring->out_prod;
    before_fired = fired[timer];
    CHECK_EQ(set_timer(now() + 50 * MS, 0), 0);
}

/* All of that goes on in whoever calls this, and is its own. */
static void check_busy(void)
{
    volatile struct xencons_interface *ring = CONSOLE_RING;
    uint64_t count = fired[held], calls = upcalls[2], wakes = done[2];

    CHECK_EQ(before_cons, ring->out_cons);
    CHECK_EQ(before_prod, ring->out_prod);
    CHECK_EQ(on_port(EVTCHNOP_send, CONSOLE_PORT), 0);
    CHECK_EQ(ring->out_cons, before_prod);
    CHECK(pending(held));
    CHECK_EQ(on_port(EVTCHNOP_unmask, held), 0);
    window();
    CHECK_EQ(fired[held], count + 1);
    sleep_for(timer, before_fired + 1);
    CHECK_EQ(fired[timer], before_fired + 1);
    CHECK_EQ(done[1], before_done);
    CHECK_EQ(on_port(EVTCHNOP_send, wake), 0);
    wait_done(1, before_done);
    CHECK_EQ(polled, 0);

    CHECK_EQ(upcalls[2], 0);
    start_vcpu(2, worker, 2);
    give(2, NAP);
    wait_done(2, wakes); /* its vcpu_info began with something pending */
    CHECK_EQ(upcalls[2], calls + 1);
    count = fired[late];
    give(2, NAP);
    let_sleep();
    CHECK_EQ(on_port(EVTCHNOP_send, late), 0);
    wait_done(2, wakes + 1);
    CHECK_EQ(fired[late], count + 1);
}

static void check_identity(uint32_t index, uint32_t count)
{
    const volatile struct cleave_identity *me = identity();
    CHECK(same(me->magic, CLEAVE_IDENTITY_MAGIC, 8));
    CHECK_EQ(me->revision, CLEAVE_IDENTITY_REVISION);
    CHECK_EQ(me->index, index);
    CHECK_EQ(me->count, count);
    CHECK_EQ(me->domain, own_id());
    CHECK_EQ(me->data_size, sizeof(data));
    CHECK(!same(me->generation, generation, sizeof(generation)));
    CHECK(same((void *)CLEAVE_IDENTITY_DATA_GPA, data, sizeof(data)));
    CHECK_EQ(*(const volatile char *)(CLEAVE_IDENTITY_DATA_GPA + sizeof(data)), 0);
}

/* The last `count` of `of` children. */
static uint64_t fork_busy(uint32_t count, uint32_t of, uint32_t flags, uint32_t *ids)
{
    struct cleave_fork fork = {.domain = CLEAVE_DOMAIN_SELF,
                               .first = of - count + 1,
                               .of = of,
                               .count = count,
                               .flags = flags,
                               .data_size = sizeof(data),
                               .limit = UINT64_MAX,
                               .domains = (uint64_t)ids,
                               .data = (uint64_t)data};
    uint64_t index;
    __builtin_memcpy(generation, (const void *)identity()->generation, sizeof(generation));
    CHECK_EQ(hypercall_fork(&fork, &index), CLEAVE_OK);
    return index;
}

/* Everything of the calls so far is undone. */
static void tidy(void)
{
    for (uint32_t i = 2; i < PORTS; i++) {
        int64_t result = on_port(EVTCHNOP_close, i);
        CHECK(result == 0 || result == -XEN_EINVAL);
    }
    for (uint32_t i = 0; i < PORTS / 64; i++) {
        shared->evtchn_mask[i] = 0;
    }
    timer = (uint32_t)bind_virq(VIRQ_TIMER, 0);
    CHECK_EQ(timer, 2);
}

static void forks(void)
{
    uint32_t ids[3];
    CHECK(same(identity()->magic, CLEAVE_IDENTITY_MAGIC, 8));
    CHECK_EQ(identity()->index, 0);
    tidy();
    make_busy();
    uint64_t index = fork_busy(3, 7, 0, ids);
    if (index != 0) {
        check_identity((uint32_t)index, 7);
        check_busy();
        leave(40 + (uint32_t)index);
    }
    CHECK_EQ(identity()->index, 0);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(wait_for(ids[i], 45 + i), ids[i]);
        destroy(ids[i]);
    }
    /* The children changed nothing here. */
    CHECK_EQ(done[1], before_done);
    CHECK_EQ(on_port(EVTCHNOP_send, wake), 0);
    wait_done(1, before_done);
    CHECK(pending(held));
    sleep_for(timer, before_fired + 1);
}

/* What a reset puts back is there each time. */
static void resets(void)
{
    uint32_t id;
    tidy();
    make_busy();
    if (fork_busy(1, 1, CLEAVE_FORK_BASE, &id) == 1) {
        check_identity(1, 1);
        check_busy();
        CHECK_EQ(bind_ipi(0), 6);
        CHECK_EQ(on_port(EVTCHNOP_close, held), 0);
        mask(timer);
        CHECK_EQ(set_timer(now() + 20 * MS, 0), 0);
        CHECK_EQ(set_param(HVM_PARAM_CALLBACK_IRQ, 0), 0);
        __builtin_memcpy((void *)(SHARED_AT + 64), (const void *)identity()->generation, 16);
        *word(SHARED_AT) += 1;
        for (;;) {
            yield();
        }
    }
    uint64_t last[2] = {0, 0};
    for (uint64_t n = 1; n <= RESETS; n++) {
        while (*word(SHARED_AT) < n) {
            CHECK_EQ(stat_of(id)->state, CLEAVE_STATE_RUNNING);
            yield();
        }
        CHECK_EQ(*word(SHARED_AT), n);
        CHECK(*word(SHARED_AT + 64) != last[0] || *word(SHARED_AT + 72) != last[1]);
        last[0] = *word(SHARED_AT + 64);
        last[1] = *word(SHARED_AT + 72);
        on_domain(CLEAVE_OP_RESET, id);
    }
    destroy(id);
}

void guest_story(void)
{
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, SHARED_AT, 2 * MIB, SHARED, RW, 0), CLEAVE_OK);
    prepare();
    bad_pointers();
    places_for_results();
    unknown_calls();
    wrong_numbers();
    versions();
    params();
    without_shared_info();
    shared_infos();
    vcpu_infos();
    first_upcall();
    events();
    states_of_ports();
    across_vcpus();
    timers();
    polls();
    consoles();
    terminals();
    ways_to_call();
    audit_clean();
    ends();
    forks();
    audit_clean();
    resets();
    audit_clean();
}
