/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What calls of libxenctrl cost, for the emulator's plugin (count.c): each is executed several
 * times between marks. Runs in the control domain of Cleave, and in Xen's domain 0, where there are
 * no forks. Lines "measures FIGURE NAME" say what the numbers in the marks mean.
 */
#include "figures.h"

#include "cleave/abi.h"

#include <stdarg.h>
#include <sys/syscall.h>
#include <xencall.h>

#define ROUNDS 9u
#define LARGE_ROUNDS 4u /* that fit into memory at once */
#define REST_MAX 16u    /* of that size are more than the machine has */
#define LARGE (256u << 20)
#define PAGES 1000u
#define NO_CALL 54 /* __HYPERVISOR_arch_6 of public/xen.h: nobody has it */

static xencall_handle *calls;
static void *buffer;

/* In place of the C library's: all hypercalls go through here. */
int ioctl(int file, unsigned long request, ...)
{
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    long result;
    MARK_HERE(MARK_ENTER, 0);
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"((long)SYS_ioctl), "D"((long)file), "S"(request), "d"(argument)
                     : "rcx", "r11", "memory");
    MARK_HERE(MARK_RETURN, 0);
    if (result < 0) {
        errno = (int)-result;
        return -1;
    }
    return (int)result;
}

/* The CPU is for another domain. */
static void yield(void) { (void)xencall2(calls, __HYPERVISOR_sched_op, SCHEDOP_yield, 0); }

/* A paused domain whose first instruction is a mark, and which ends then. */
static uint32_t marked_domain(void)
{
    static const uint8_t code[] = {0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0, 0xfa, 0xf4, 0xeb, 0xfd};
    const uint32_t mark = MARK(MARK_FIRST, 0);
    uint32_t id = loop_create(0, LARGE);
    uint8_t *page = map_pages(id, LOOP_CODE, 1, PROT_READ | PROT_WRITE);
    memcpy(page, code, sizeof(code));
    memcpy(page + 4, &mark, sizeof(mark));
    munmap(page, PAGE);
    return id;
}

static void wait_for_end(uint32_t id)
{
    for (unsigned i = 0; i < 1000 && !info_of(id).shutdown; i++) {
        usleep(1000);
    }
    CHECK(info_of(id).shutdown);
}

/* The marks want constants. */
#define MAP_MANY(id, map, unmap)                                                                   \
    do {                                                                                           \
        static xen_pfn_t list[PAGES];                                                              \
        static int errors[PAGES];                                                                  \
        void *at = NULL;                                                                           \
        for (unsigned i = 0; i < PAGES; i++) {                                                     \
            list[i] = 0x1000 + i;                                                                  \
        }                                                                                          \
        for (unsigned round = 0; round < ROUNDS; round++) {                                        \
            MEASURE(map, at = xc_map_foreign_bulk(xc, id, PROT_READ | PROT_WRITE, list, errors,    \
                                                  PAGES));                                         \
            CHECK(at != NULL && errors[0] == 0 && errors[PAGES - 1] == 0);                         \
            MEASURE(unmap, munmap(at, (size_t)PAGES *PAGE));                                       \
        }                                                                                          \
    } while (0)

static xen_pfn_t extents[LARGE >> 21];

static uint32_t without_memory(void)
{
    uint32_t id = create(0, 1);
    CHECK_EQ(xc_domain_setmaxmem(xc, id, LARGE >> 10), 0);
    return id;
}

static int fill(uint32_t id)
{
    return xc_domain_populate_physmap_exact(xc, id, LARGE >> 21, 9, 0, extents);
}

/* Memory that nobody had since the machine was started; then memory that others had, which is all
 * that is left. */
static void populate(void)
{
    uint32_t id[LARGE_ROUNDS], rest[REST_MAX];
    unsigned rests = 0;
    int result = 0;
    for (unsigned i = 0; i < LARGE >> 21; i++) {
        extents[i] = (xen_pfn_t)i << 9;
    }
    for (unsigned round = 0; round < LARGE_ROUNDS; round++) {
        id[round] = without_memory();
        MEASURE(POPULATE, result = fill(id[round]));
        CHECK_EQ(result, 0);
    }
    do {
        rest[rests] = without_memory();
        result = fill(rest[rests++]);
    } while (result == 0 && rests < REST_MAX);
    CHECK(result != 0);
    for (unsigned round = 0; round < LARGE_ROUNDS; round++) {
        CHECK_EQ(xc_domain_destroy(xc, id[round]), 0);
    }
    for (unsigned round = 0; round < LARGE_ROUNDS; round++) {
        id[round] = without_memory();
        MEASURE(POPULATE_USED, result = fill(id[round]));
        CHECK_EQ(result, 0);
    }
    for (unsigned round = 0; round < LARGE_ROUNDS; round++) {
        CHECK_EQ(xc_domain_destroy(xc, id[round]), 0);
    }
    while (rests > 0) {
        CHECK_EQ(xc_domain_destroy(xc, rest[--rests]), 0);
    }
}

static void small_calls(void)
{
    xc_dominfo_t info;
    uint32_t id = create(0, 1);
    for (unsigned round = 0; round < ROUNDS; round++) {
        MEASURE(NULL_CALL, (void)xencall0(calls, NO_CALL));
        MEASURE(INFO, (void)xc_domain_getinfo(xc, id, 1, &info));
        MEASURE(PAUSE, (void)xc_domain_pause(xc, id));
        MEASURE(UNPAUSE, (void)xc_domain_unpause(xc, id));
    }
    CHECK_EQ(info.domid, id);
    CHECK_EQ(xc_domain_destroy(xc, id), 0);
}

static void create_and_destroy(void)
{
    struct xen_domctl_createdomain config = config_of(1);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t id = 0;
        MEASURE(CREATE, {
            (void)xc_domain_create(xc, &id, &config);
            (void)xc_domain_max_vcpus(xc, id, 1);
        });
        CHECK(id != 0);
        MEASURE(DESTROY, (void)xc_domain_destroy(xc, id));
        usleep(20000); /* what is left of it */
    }
}

static void runs(void)
{
    for (unsigned round = 0; round < 3; round++) {
        uint32_t id = marked_domain();
        MEASURE(RUN, {
            (void)xc_domain_unpause(xc, id);
            yield();
        });
        wait_for_end(id);
        CHECK_EQ(xc_domain_destroy(xc, id), 0);
    }
}

static void forks(void)
{
    struct cleave_fork *op = buffer;
    uint32_t *children = (uint32_t *)(op + 1);
    uint32_t parent = marked_domain(), child;
    for (unsigned round = 0; round < ROUNDS; round++) {
        child = create(0, 1);
        MEASURE(FORK, (void)xc_memshr_fork(xc, parent, child, true, false));
        MEASURE(RUN_FORK, {
            (void)xc_domain_unpause(xc, child);
            yield();
        });
        wait_for_end(child);
        CHECK_EQ(xc_domain_destroy(xc, child), 0);
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        long status = 0;
        *children = 0;
        *op = (struct cleave_fork){.domain = parent,
                                   .count = 1,
                                   .flags = CLEAVE_FORK_BASE,
                                   .limit = UINT64_MAX,
                                   .domains = (uintptr_t)children};
        MEASURE(CLEAVE_FORK, {
            status = xencall3(calls, CLEAVE_HYPERCALL, CLEAVE_OP_FORK, (uintptr_t)op, sizeof(*op));
            yield();
        });
        CHECK_EQ(status, 0);
        wait_for_end(*children);
        CHECK_EQ(xc_domain_destroy(xc, *children), 0);
    }
    child = create(0, 1);
    CHECK_EQ(xc_memshr_fork(xc, parent, child, true, false), 0);
    MAP_MANY(child, MAP_FORK, UNMAP_FORK);
    CHECK_EQ(xc_domain_destroy(xc, child), 0);
    CHECK_EQ(xc_domain_destroy(xc, parent), 0);
}

/* Xen's own symbols, which it has for its domain 0. */
static void print_symbols(void)
{
    char line[512] = "";
    FILE *words = fopen("/proc/cmdline", "re"), *symbols = fopen("/proc/xen/xensyms", "re");
    if (words != NULL && symbols != NULL && fgets(line, sizeof(line), words) != NULL &&
        strstr(line, "symbols") != NULL) {
        while (fgets(line, sizeof(line), symbols) != NULL) {
            fputs(line, stdout);
        }
    }
}

void test(void)
{
    static const struct {
        enum figure figure;
        const char *name;
    } names[] = {{NULL_CALL, "null_hypercall"},
                 {INFO, "info"},
                 {PAUSE, "pause"},
                 {UNPAUSE, "unpause"},
                 {MAP, "map_1000"},
                 {UNMAP, "unmap_1000"},
                 {MAP_FORK, "map_1000_of_fork"},
                 {UNMAP_FORK, "unmap_1000_of_fork"},
                 {POPULATE, "populate_256m"},
                 {POPULATE_USED, "populate_256m_used"},
                 {CREATE, "create"},
                 {DESTROY, "destroy"},
                 {RUN, "unpause_to_first"},
                 {FORK, "memshr_fork"},
                 {RUN_FORK, "unpause_fork_to_first"},
                 {CLEAVE_FORK, "cleave_fork_to_first"},
                 {BUILD, "build_linux"},
                 {BOOT, "boot_linux"}};
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        printf("measures %u %s\n", names[i].figure, names[i].name);
    }
    print_symbols();
    for (uint32_t id = TEMPLATE; id <= TEMPLATE + 1; id++) { /* they would take the CPU */
        CHECK(info_of(id).domid == DOMID_INVALID || xc_domain_destroy(xc, id) == 0);
    }
    calls = xencall_open(NULL, 0);
    buffer = calls != NULL ? xencall_alloc_buffer_pages(calls, 1) : NULL;
    CHECK(buffer != NULL);
    if (buffer == NULL) {
        return;
    }
    populate();
    uint32_t fresh = loop_create(0, LARGE);
    MAP_MANY(fresh, MAP, UNMAP);
    CHECK_EQ(xc_domain_destroy(xc, fresh), 0);
    small_calls();
    create_and_destroy();
    runs();
    boots();
    if (forks_here("forks")) {
        forks();
    }
}
