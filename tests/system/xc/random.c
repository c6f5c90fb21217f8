/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ten thousand domctl, sysctl and memory_op calls of the control domain, and some others between
 * them, half plausible and half not, aimed at three domains that may be lost. Each succeeds or
 * fails with an error that docs/xen-compat.md lists, and domains that nobody named have the same
 * bytes and the same state as before. What a call may write lies in the buffer, or nowhere at all:
 * the hypervisor would write to all else of this Linux as well.
 */
#include "xc.h"

#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/memory.h>
#include <xen/sched.h>

#define CALLS 10000u
#define BUFFER_PAGES 16u
#define PLACES 64u /* pages of this domain, where it has no memory, to map at */
#define FIRST_PLACE UINT64_C(0x2000000)
#define NAMED 3u

/* inc %rax; mov %rax, 0x5000; again */
static const uint8_t counter[] = {0x48, 0xff, 0xc0, 0x48, 0x89, 0x04, 0x25,
                                  0x00, 0x50, 0x00, 0x00, 0xeb, 0xf3};

static uint64_t state;
static uint32_t named[NAMED];
static uint8_t *buffer;
static unsigned count_of[128], refused;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static uint64_t below(uint64_t end) { return next() % end; }

/* --- Those that are not named ----------------------------------------------------------------- */

#define TINY_PAGES 1024u
#define LINUX_PAGES (128u << 8) /* all it has */
#define MAPPED 4096u            /* pages at a time */

struct bystander {
    uint32_t id;
    unsigned first, pages;
    int size;
    uint8_t context[16 << 10];
    uint64_t sum;
    xc_dominfo_t info;
};

static uint64_t sum_of(uint32_t id, unsigned first, unsigned pages)
{
    uint64_t sum = 0;
    for (unsigned done = 0, part; done < pages; done += part) {
        part = pages - done < MAPPED ? pages - done : MAPPED;
        uint64_t *memory = (uint64_t *)map_pages(id, first + done, part, PROT_READ);
        for (size_t i = 0; i < (size_t)part * PAGE / 8; i++) {
            sum = (sum << 7 | sum >> 57) + memory[i];
        }
        munmap(memory, (size_t)part * PAGE);
    }
    return sum;
}

static void look(struct bystander *b)
{
    b->sum = sum_of(b->id, b->first, b->pages);
    b->size = xc_domain_hvm_getcontext(xc, b->id, b->context, sizeof(b->context));
    CHECK(b->size > 0);
    b->info = info_of(b->id);
}

static void same(const struct bystander *was)
{
    static struct bystander is;
    is = *was;
    look(&is);
    CHECK_EQ(is.sum, was->sum);
    CHECK_EQ(is.size, was->size);
    CHECK_EQ(memcmp(is.context, was->context, (size_t)was->size), 0);
    CHECK(is.info.paused == was->info.paused && !is.info.shutdown && !is.info.dying);
    CHECK_EQ(is.info.nr_pages, was->info.nr_pages);
    CHECK_EQ(is.info.cpu_time, was->info.cpu_time);
}

/* --- Numbers, places, names ------------------------------------------------------------------- */

/* Near to something, and if it is a place then one where there is nothing. */
static uint64_t number(void)
{
    uint64_t r = next();
    switch (r % 6) {
    case 0:
        return r >> 32 & 3;
    case 1:
        return r >> 32 & 0xff;
    case 2:
        return (r >> 32 & 0x7f) * PAGE;
    case 3:
        return UINT64_MAX - (r >> 52);
    case 4:
        return UINT64_C(1) << (48 + (r >> 32) % 16);
    default:
        return r | UINT64_C(1) << 60;
    }
}

/* In the buffer, where 12 pages follow; or nowhere. */
static void *place(void)
{
    if (below(16) == 0) {
        return (void *)(uintptr_t)number();
    }
    return buffer + PAGE * below(3) + 8 * below(512);
}

static uint16_t name(void)
{
    static const uint16_t nobody[] = {99, 32000, 0x7ff1, 0x7ff2, 0x7ff4, 0x7fff, 0xffff};
    return (uint16_t)(below(12) != 0 ? named[below(NAMED)] : nobody[below(7)]);
}

static uint64_t page(void) { return below(8) != 0 ? below(1200) : number(); }

static void fill(void *at, size_t size)
{
    for (size_t i = 0; i < size; i += 8) {
        uint64_t value = number();
        memcpy((uint8_t *)at + i, &value, size - i < 8 ? size - i : 8);
    }
}

/* Lists of pages, records, numbers: what a call may find in the buffer. */
static void fill_buffer(void)
{
    uint64_t *word = (void *)buffer;
    for (unsigned i = 0; i < BUFFER_PAGES * PAGE / 8; i += 1 + (unsigned)below(4)) {
        word[i] = page();
    }
    if (below(2) == 0) {
        int size = xc_domain_hvm_getcontext(xc, named[below(NAMED)], buffer, 4 * PAGE);
        for (unsigned i = 0; size > 0 && i < below(4); i++) {
            buffer[below((uint64_t)size)] ^= (uint8_t)(1u << below(8));
        }
    }
}

/* --- Calls ------------------------------------------------------------------------------------ */

static void likely_domctl(struct xen_domctl *op)
{
    switch (op->cmd) {
    case XEN_DOMCTL_createdomain:
        op->domain = 0;
        op->u.createdomain =
            (struct xen_domctl_createdomain){.flags = 3, .max_vcpus = (uint32_t)below(10)};
        break;
    case XEN_DOMCTL_max_mem:
        op->u.max_mem.max_memkb = below(8192);
        break;
    case XEN_DOMCTL_max_vcpus:
        op->u.max_vcpus.max = (uint32_t)below(3);
        break;
    case XEN_DOMCTL_getvcpuinfo:
        op->u.getvcpuinfo.vcpu = (uint32_t)below(3);
        break;
    case XEN_DOMCTL_gethvmcontext:
    case XEN_DOMCTL_sethvmcontext:
        op->u.hvmcontext.size = (uint32_t)below(4 * PAGE);
        op->u.hvmcontext.buffer.p = below(4) != 0 ? buffer : place();
        break;
    case XEN_DOMCTL_gethvmcontext_partial:
        op->u.hvmcontext_partial.type = (uint32_t)below(24);
        op->u.hvmcontext_partial.instance = (uint32_t)below(3);
        op->u.hvmcontext_partial.bufsz = below(4096);
        op->u.hvmcontext_partial.buffer.p = place();
        break;
    case XEN_DOMCTL_getvcpucontext:
        op->u.vcpucontext.vcpu = (uint32_t)below(3);
        op->u.vcpucontext.ctxt.p = place();
        break;
    case XEN_DOMCTL_mem_sharing_op:
        op->u.mem_sharing_op.op = (uint8_t)below(3);
        break;
    default:
        break;
    }
}

/* Whatever stands there, a list is not longer than the buffer. */
static void bounded_domctl(struct xen_domctl *op)
{
    static const uint32_t kinds[] = {0, 1, 2, 11, 12, 11, 12, 30, 31, 32};
    if (op->cmd == XEN_DOMCTL_shadow_op) {
        op->u.shadow_op.op = below(8) != 0 ? kinds[below(10)] : (uint32_t)below(64);
        op->u.shadow_op.mode = below(4) != 0 ? 0 : (uint32_t)below(8);
        op->u.shadow_op.mode |= op->u.shadow_op.op == 32 && below(2) ? 4 : 0;
        op->u.shadow_op.dirty_bitmap.p = place();
        op->u.shadow_op.pages = below(12 * PAGE * 8);
    } else if (op->cmd == XEN_DOMCTL_getpageframeinfo3) {
        op->u.getpageframeinfo3.num = below(1200);
        op->u.getpageframeinfo3.array.p = place();
    }
}

static struct xen_domctl some_domctl(void)
{
    static const uint8_t known[] = {1,  3,  4,  3,  4,  5,  10, 10, 10, 11, 13, 14,
                                    15, 33, 34, 34, 36, 55, 57, 60, 61, 86, 2};
    struct xen_domctl op;
    fill(&op, sizeof(op));
    op.cmd = below(8) != 0 ? known[below(sizeof(known))] : (uint32_t)below(100);
    if (op.cmd == XEN_DOMCTL_destroydomain && below(8) != 0) {
        op.cmd = XEN_DOMCTL_pausedomain;
    }
    op.interface_version = below(50) != 0 ? XEN_DOMCTL_INTERFACE_VERSION : (uint32_t)next();
    op.domain = name();
    if (below(4) != 0) {
        likely_domctl(&op);
    }
    bounded_domctl(&op);
    return op;
}

static int random_domctl(void)
{
    struct xen_domctl op = some_domctl();
    if (below(50) == 0) {
        return xencall1(raw, __HYPERVISOR_domctl, number());
    }
    int result = raw_domctl(&op);
    if (result == 0 && op.cmd == XEN_DOMCTL_createdomain) {
        CHECK_EQ(xc_domain_destroy(xc, op.domain), 0);
    }
    return result;
}

static int random_sysctl(void)
{
    struct xen_sysctl op;
    fill(&op, sizeof(op));
    op.cmd = below(3) == 0 ? (uint32_t)below(40) : below(2) ? 3 : 6;
    op.interface_version = below(50) != 0 ? XEN_SYSCTL_INTERFACE_VERSION : (uint32_t)next();
    op.u.getdomaininfolist.max_domains = (uint32_t)below(400);
    op.u.getdomaininfolist.buffer.p = place();
    return below(50) != 0 ? raw_sysctl(&op) : xencall1(raw, __HYPERVISOR_sysctl, number());
}

static int memory_op(unsigned command, const void *argument, size_t size)
{
    uint8_t *at = buffer + (BUFFER_PAGES - 1) * PAGE;
    memcpy(at, argument, size);
    return xencall2(raw, __HYPERVISOR_memory_op, command,
                    below(50) != 0 ? (uint64_t)(uintptr_t)at : number());
}

static int random_reservation(unsigned command)
{
    struct xen_memory_reservation list;
    fill(&list, sizeof(list));
    list.extent_start.p = place();
    list.extent_order = (unsigned)(below(6) != 0 ? 0 : below(12));
    list.nr_extents = below(8) != 0 ? below(64) : number();
    list.domid = name();
    return memory_op(command, &list, sizeof(list));
}

static int random_maps(void)
{
    struct xen_add_to_physmap_batch batch;
    uint64_t *to = (void *)(buffer + 8 * PAGE);
    fill(&batch, sizeof(batch));
    batch.domid = below(16) != 0 ? DOMID_SELF : name();
    batch.space = (uint16_t)(below(16) != 0 ? XENMAPSPACE_gmfn_foreign : below(8));
    batch.size = (uint16_t)below(64);
    batch.u.foreign_domid = name();
    batch.idxs.p = place();
    batch.errs.p = place();
    batch.gpfns.p = to;
    for (unsigned i = 0; i < 64; i++) {
        to[i] = FIRST_PLACE + below(PLACES);
    }
    return memory_op(XENMEM_add_to_physmap_batch, &batch, sizeof(batch));
}

static int random_removal(void)
{
    struct xen_remove_from_physmap remove = {.domid = name(), .gpfn = page()};
    if (below(2) == 0) {
        remove = (struct xen_remove_from_physmap){DOMID_SELF, FIRST_PLACE + below(PLACES)};
    }
    return memory_op(XENMEM_remove_from_physmap, &remove, sizeof(remove));
}

static int random_sharing(void)
{
    struct xen_mem_sharing_op op;
    fill(&op, sizeof(op));
    op.op = (uint8_t)(below(8) != 0 ? 9 + below(2) : below(16));
    op.domain = name();
    if (below(8) != 0) {
        op.u.fork.pad = 0;
        op.u.fork.flags = (uint16_t)(op.op == 9 ? below(4) : below(5) * 4);
    }
    op.u.fork.parent_domain = name();
    return memory_op(XENMEM_sharing_op, &op, sizeof(op));
}

static int random_memory_op(void)
{
    struct xen_foreign_memory_map map = {.domid = name(), .map = {.nr_entries = below(70)}};
    uint16_t id = name();
    switch (below(9)) {
    case 0:
    case 1:
        return random_reservation(XENMEM_populate_physmap);
    case 2:
        return random_reservation(XENMEM_decrease_reservation);
    case 3:
        return random_maps();
    case 4:
        return random_removal();
    case 5:
        return random_sharing();
    case 6:
        map.map.buffer.p = place();
        return memory_op(XENMEM_set_memory_map, &map, sizeof(map));
    case 7:
        return memory_op(XENMEM_maximum_gpfn, &id, sizeof(id));
    default:
        return memory_op(below(2) != 0 ? XENMEM_machine_memory_map : 32 + (unsigned)below(32),
                         &(struct xen_memory_map){(unsigned)below(40), {place()}},
                         sizeof(struct xen_memory_map));
    }
}

static int random_other(void)
{
    struct xen_hvm_param param = {name(), 0, (uint32_t)below(45), number()};
    struct sched_remote_shutdown end = {name(), (unsigned)below(8)};
    uint8_t *at = buffer + (BUFFER_PAGES - 1) * PAGE;
    if (below(16) == 0) { /* nothing is under way that it could go on with */
        struct xen_domctl op = some_domctl();
        memcpy(buffer, &op, sizeof(op));
        return xencall2(raw, __HYPERVISOR_arch_1, (uint64_t)(uintptr_t)buffer, number());
    }
    if (below(8) == 0) {
        memcpy(at, &end, sizeof(end));
        return xencall2(raw, __HYPERVISOR_sched_op, SCHEDOP_remote_shutdown,
                        (uint64_t)(uintptr_t)at);
    }
    memcpy(at, &param, sizeof(param));
    return xencall2(raw, __HYPERVISOR_hvm_op, below(2), (uint64_t)(uintptr_t)at);
}

/* --- Lives ------------------------------------------------------------------------------------ */

/* A Linux, a domain of its own memory, and one that is empty take the places of those that ended.
 */
static void renew(void)
{
    for (unsigned i = 0; i < NAMED; i++) {
        xc_dominfo_t info = info_of(named[i]);
        bool there = named[i] != 0 && info.domid == named[i];
        if (there && !info.shutdown && !info.crashed) {
            if (!info.paused && below(4) == 0) {
                CHECK_EQ(xc_domain_pause(xc, named[i]), 0); /* whatever runs there takes time */
            }
            continue;
        }
        if (there && below(8) != 0) {
            continue; /* an end is something to be called with, too */
        }
        if (there) {
            destroy(named[i]);
        }
        if (i == 0) {
            named[i] = fork_template(0);
        } else if (i == 1) {
            named[i] = tiny_make(TINY_PAGES, counter, sizeof(counter));
            tiny_start(named[i]);
        } else {
            named[i] = create(0, 1);
        }
    }
}

/* Whether it was one of those that are counted. */
static bool make_call(void)
{
    static int (*const calls[])(void) = {random_domctl,    random_domctl,    random_domctl,
                                         random_memory_op, random_memory_op, random_sysctl,
                                         random_other};
    unsigned kind = (unsigned)below(sizeof(calls) / sizeof(calls[0]));
    errno = 0;
    int result = calls[kind](), error = errno;
    if (result >= 0 || error == 0) { /* a page's number may have more bits than a result */
        count_of[0]++;
    } else {
        refused++;
        CHECK(result == -1 && error > 0 && error < 128);
        count_of[error % 128]++;
    }
    return calls[kind] != random_other;
}

/* As docs/xen-compat.md has them. */
static void errors_are_listed(void)
{
    static const uint8_t listed[] = {0,      EPERM,   ENOENT,     ESRCH,  E2BIG,  ENOMEM,
                                     EACCES, EFAULT,  EBUSY,      EEXIST, EINVAL, ENOSPC,
                                     ENOSYS, ENOBUFS, EOPNOTSUPP, ENODATA};
    for (unsigned error = 0; error < 128; error++) {
        if (count_of[error] != 0) {
            printf("%u times %s\n", count_of[error], error != 0 ? strerror((int)error) : "done");
            CHECK(memchr(listed, (int)error, sizeof(listed)) != NULL);
        }
    }
    CHECK(count_of[0] > CALLS / 10 && refused > CALLS / 10);
}

void test(void)
{
    static struct bystander linux_domain, tiny;
    xc_dominfo_t all[32];
    const char *given = getenv("SEED");
    state = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)getpid() * 7919 + 12345;
    printf("SEED=%llu\n", (unsigned long long)state);
    state |= 1;
    buffer = raw_buffer(BUFFER_PAGES);
    linux_domain = (struct bystander){.id = fork_template(0), .first = 0, .pages = LINUX_PAGES};
    tiny = (struct bystander){.id = tiny_make(TINY_PAGES, counter, sizeof(counter)),
                              .pages = TINY_PAGES};
    tiny_start(tiny.id);
    CHECK_EQ(xc_domain_unpause(xc, tiny.id), 0);
    usleep(50000);
    CHECK_EQ(xc_domain_pause(xc, tiny.id), 0);
    look(&linux_domain);
    look(&tiny);
    int before = xc_domain_getinfo(xc, 0, 32, all);
    for (unsigned i = 0, counted = 0; counted < CALLS && failed == 0; i++) {
        if (i % 16 == 0) {
            renew();
        }
        if (i % 8 == 0) {
            fill_buffer();
        }
        counted += make_call();
    }
    errors_are_listed();
    for (uint64_t i = 0; i < PLACES; i++) {
        struct xen_remove_from_physmap remove = {DOMID_SELF, FIRST_PLACE + i};
        memcpy(buffer, &remove, sizeof(remove));
        (void)xencall2(raw, __HYPERVISOR_memory_op, XENMEM_remove_from_physmap,
                       (uint64_t)(uintptr_t)buffer);
    }
    same(&linux_domain);
    same(&tiny);
    for (unsigned i = 0; i < NAMED; i++) {
        (void)xc_domain_destroy(xc, named[i]);
    }
    CHECK_EQ(xc_domain_getinfo(xc, 0, 32, all), before);
    CHECK_EQ(xc_domain_unpause(xc, linux_domain.id), 0);
    sleep(1);
    CHECK(info_of(linux_domain.id).cpu_time > 0 && !info_of(linux_domain.id).shutdown);
    destroy(linux_domain.id);
    destroy(tiny.id);
    CHECK_EQ(system("cleave audit"), 0);
}
