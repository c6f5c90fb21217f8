/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Log-dirty, held against all bytes of a domain: a small one that writes the pages of a list, by
 * stores of its own and by calls of the hypervisor's that write for it, while others are written
 * from here through foreign maps. Whatever is written here changes bytes, so that what differs is
 * what was written; what is written over with the same bytes is looked at by itself. A
 * CPU may go through page tables by what counts as writes (AMD APM 2, 15.25.5): these may be told.
 */
#include "xc.h"

#include <sys/wait.h>

#define BLOCK 512u
#define PAGES (13u * BLOCK)
#define BITS (PAGES + 300u) /* asked for, more than there are */
#define BYTES ((BITS + 7) / 8)
#define ROUNDS 24u
#define TIMES 100u
enum { GO = TINY_FREE, LIST, DONE, FIRST }; /* pages */
#define CALLED (PAGES - ROUNDS * 8)         /* from here on: written by hypercalls, once */
#define BY_CALL 1u                          /* in a list: the hypervisor is to write there */

/* Waits for another number in GO, then goes through LIST up to a zero: increments the word there,
 * or has Xen's extraversion written to the place; and puts the number into DONE. */
static const uint8_t writer[] = {
    0x45, 0x31, 0xc0, 0x31, 0xc0, 0x0f, 0xa2, 0x89, 0xdd, 0xf3, 0x90, 0x48, 0x8b, 0x04, 0x25, 0x00,
    0x50, 0x00, 0x00, 0x4c, 0x39, 0xc0, 0x74, 0xf1, 0x49, 0x89, 0xc0, 0xbe, 0x00, 0x60, 0x00, 0x00,
    0x48, 0x8b, 0x06, 0x48, 0x83, 0xc6, 0x08, 0x48, 0x85, 0xc0, 0x74, 0x34, 0x48, 0x0f, 0xba, 0xf0,
    0x00, 0x72, 0x05, 0x48, 0xff, 0x00, 0xeb, 0xe8, 0x49, 0x89, 0xf1, 0x48, 0x89, 0xc6, 0xbf, 0x01,
    0x00, 0x00, 0x00, 0xb8, 0x11, 0x00, 0x00, 0x00, 0x81, 0xfd, 0x47, 0x65, 0x6e, 0x75, 0x74, 0x08,
    0x0f, 0x01, 0xd9, 0x4c, 0x89, 0xce, 0xeb, 0xc8, 0x0f, 0x01, 0xc1, 0x4c, 0x89, 0xce, 0xeb, 0xc0,
    0x4c, 0x89, 0x04, 0x25, 0x00, 0x70, 0x00, 0x00, 0xeb, 0x9f};

static uint32_t id;
static const uint8_t *now;           /* all of its memory, mapped to be read */
static uint8_t before[PAGES * PAGE]; /* as it was at the last CLEAN */
static uint8_t written[PAGES];       /* what is to be told */
static uint8_t by_domain[PAGES];     /* what the domain was to write since the last CLEAN */
static volatile uint64_t *go, *list; /* mapped to be written */
static uint64_t state = 4713;
static DECLARE_HYPERCALL_BUFFER(uint8_t, bitmap);

static unsigned random_below(unsigned end)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(state >> 33) % end;
}

static void find_written(void)
{
    for (unsigned i = 0; i < PAGES; i++) {
        written[i] = memcmp(now + (size_t)i * PAGE, before + (size_t)i * PAGE, PAGE) != 0;
    }
}

static void keep(void)
{
    memcpy(before, now, sizeof(before));
    memset(by_domain, 0, sizeof(by_domain));
}

/* Puts a place into the domain's list. */
static void order(unsigned at, uint64_t place)
{
    list[at] = place;
    by_domain[place / PAGE] = 1;
}

/* Asks, and compares with `written`. What lies behind the bits that are asked for stays. */
static void told(unsigned operation, unsigned bits)
{
    xc_shadow_op_stats_t stats = {7, 7};
    unsigned wrong[3] = {0}, count = 0, tables = 0; /* not told: the domain's, from here; told */
    memset(bitmap, 0xa5, BYTES + 1);
    ANSWER_EQ(xc_logdirty_control(xc, id, operation, HYPERCALL_BUFFER(bitmap), bits, 0, &stats),
              bits);
    for (unsigned i = 0; i < PAGES; i++) {
        count += written[i];
    }
    for (unsigned i = 0; i < (bits + 7) / 8 * 8; i++) {
        bool set = bitmap[i / 8] >> i % 8 & 1, is = i < PAGES && i < bits && written[i];
        if (i >= TINY_TOP && i <= TINY_BOTTOM) {
            tables += set;
        } else if (set != is && wrong[set ? 2 : by_domain[i] ? 0 : 1]++ < 4) {
            printf("page %u: %s\n", i, set ? "was not written" : "was written");
        }
    }
    says("written by the domain, not told: %u", wrong[0]);
    says("written from here, not told: %u", wrong[1]);
    says("told, not written: %u", wrong[2]);
    says("count, tables apart: %s", stats.dirty_count == count + tables ? "right" : "wrong");
    CHECK(wrong[0] == 0 && wrong[1] == 0 && wrong[2] == 0);
    CHECK_EQ(stats.dirty_count, count + tables);
    CHECK_EQ(bitmap[(bits + 7) / 8], 0xa5);
}

static void nothing_written(void)
{
    memset(written, 0, sizeof(written));
    memset(by_domain, 0, sizeof(by_domain));
}

/* The list is gone through. */
static void run(unsigned count)
{
    list[count] = 0;
    uint64_t turn = ++*go;
    for (unsigned i = 0; i < 5000 && *(volatile uint64_t *)(now + DONE * PAGE) != turn; i++) {
        usleep(1000);
    }
    CHECK_EQ(*(volatile uint64_t *)(now + DONE * PAGE), turn);
}

static unsigned some_page(void) { return FIRST + random_below(CALLED - FIRST); }

static uint64_t some_word(unsigned page) { return (uint64_t)page * PAGE + 8 * random_below(512); }

/* As many pages as fit the list, here and there or in one block; some are written by the
 * hypervisor, some from here. */
static void round_of_writes(unsigned number)
{
    unsigned count = 0, in = 1 + random_below(PAGES / BLOCK - 2);
    unsigned stores = number % 3 == 0 ? 400 : random_below(300);
    for (; count < stores; count++) {
        unsigned page = number % 3 == 0 ? in * BLOCK + count : some_page();
        order(count, some_word(page));
    }
    for (unsigned i = 0; i < number % 8; i++) {
        order(count++, (uint64_t)(CALLED + number * 8 + i) * PAGE + 64 * i + BY_CALL);
    }
    run(count);
    for (unsigned i = 0; i < number % 5; i++) {
        uint8_t *page = map_pages(id, some_page(), 1, PROT_READ | PROT_WRITE);
        if (i != 3) { /* one that could be written, and is only read */
            page[random_below(PAGE)] ^= 1;
        }
        munmap(page, PAGE);
    }
}

static void rounds(void)
{
    nothing_written();
    told(XEN_DOMCTL_SHADOW_OP_PEEK, BITS);
    for (unsigned i = 0; i < ROUNDS; i++) {
        round_of_writes(i);
        find_written();
        told(XEN_DOMCTL_SHADOW_OP_PEEK, BITS);
        if (i % 4 == 1) { /* what comes now is added to it */
            continue;
        }
        if (i % 2 == 0) {
            CHECK_EQ(xc_domain_pause(xc, id), 0);
            CHECK_EQ(xc_domain_unpause(xc, id), 0);
        }
        told(XEN_DOMCTL_SHADOW_OP_CLEAN, BITS);
        keep();
        nothing_written();
        told(i % 2 == 0 ? XEN_DOMCTL_SHADOW_OP_CLEAN : XEN_DOMCTL_SHADOW_OP_PEEK, BITS);
    }
}

/* The same bytes again are written all the same. */
static void same_bytes(void)
{
    volatile uint8_t *page = map_pages(id, FIRST + 9, 1, PROT_READ | PROT_WRITE);
    page[5] = page[5];
    nothing_written();
    written[FIRST + 9] = 1;
    told(XEN_DOMCTL_SHADOW_OP_CLEAN, BITS);
    nothing_written();
    told(XEN_DOMCTL_SHADOW_OP_CLEAN, BITS);
    page[5] = page[5]; /* by the same map, which has to ask again */
    written[FIRST + 9] = 1;
    told(XEN_DOMCTL_SHADOW_OP_CLEAN, BITS);
    munmap((void *)page, PAGE);
    nothing_written();
    told(XEN_DOMCTL_SHADOW_OP_PEEK, BITS);
}

/* All of it is written, twice, and its quota does not stop it. */
static void all_of_it(void)
{
    for (unsigned times = 0; times < 2; times++) {
        for (unsigned first = FIRST; first < PAGES; first += 500) {
            unsigned count = PAGES - first < 500 ? PAGES - first : 500;
            for (unsigned i = 0; i < count; i++) {
                order(i, some_word(first + i));
            }
            run(count);
        }
        find_written();
        told(XEN_DOMCTL_SHADOW_OP_CLEAN, BITS);
        keep();
    }
}

/* Only the count, or a part of the bits. */
static void parts(void)
{
    xc_shadow_op_stats_t stats;
    order(0, some_word(FIRST + 3));
    order(1, some_word(BLOCK + 3));
    run(2);
    find_written();
    told(XEN_DOMCTL_SHADOW_OP_PEEK, BLOCK + 3);
    told(XEN_DOMCTL_SHADOW_OP_PEEK, BLOCK + 4);
    told(XEN_DOMCTL_SHADOW_OP_PEEK, FIRST);
    ANSWER_EQ(xc_logdirty_control(xc, id, XEN_DOMCTL_SHADOW_OP_PEEK, NULL, 0, 0, &stats), 0);
    /* What it is told by, tables. */
    ANSWER_EQ(stats.dirty_count >= 5 && stats.dirty_count <= 8, 1);
    ANSWER_EQ(xc_logdirty_control(xc, id, XEN_DOMCTL_SHADOW_OP_CLEAN, NULL, 0, 0, &stats), 0);
    ANSWER_EQ(stats.dirty_count >= 5 && stats.dirty_count <= 8, 1);
    keep();
    nothing_written();
    told(XEN_DOMCTL_SHADOW_OP_PEEK, BITS);
}

/* What is taken away, and what comes, is other memory. */
static void memory_comes_and_goes(void)
{
    xen_pfn_t page = CALLED - 1;
    ANSWER_EQ(xc_domain_decrease_reservation_exact(xc, id, 1, 0, &page), 0);
    nothing_written();
    written[page] = 1;
    told(XEN_DOMCTL_SHADOW_OP_CLEAN, BITS);
    ANSWER_EQ(xc_domain_populate_physmap_exact(xc, id, 1, 0, 0, &page), 0);
    told(XEN_DOMCTL_SHADOW_OP_CLEAN, BITS);
    nothing_written();
    told(XEN_DOMCTL_SHADOW_OP_PEEK, BITS);
}

static int control(uint32_t domid, unsigned operation, unsigned mode)
{
    return (int)xc_logdirty_control(xc, domid, operation, HYPERCALL_BUFFER(bitmap), BITS, mode,
                                    NULL);
}

static void refusals(void)
{
    unsigned mb = 0;
    CHECK_ERRNO(xc_shadow_control(xc, id, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, NULL, 0), EINVAL);
    CHECK_ERRNO(control(id, XEN_DOMCTL_SHADOW_OP_CLEAN, 2), EINVAL);
    CHECK_ERRNO(control(id, XEN_DOMCTL_SHADOW_OP_PEEK, 2), EINVAL);
    ANSWER_EQ(control(id, XEN_DOMCTL_SHADOW_OP_PEEK, XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL), BITS);
    CHECK_ERRNO(xc_shadow_control(xc, id, XEN_DOMCTL_SHADOW_OP_ENABLE, NULL, 0), EINVAL);
    CHECK_ERRNO(xc_shadow_control(xc, id, XEN_DOMCTL_SHADOW_OP_ENABLE_TEST, NULL, 0), EINVAL);
    CHECK_ERRNO(xc_shadow_control(xc, id, XEN_DOMCTL_SHADOW_OP_GET_ALLOCATION, &mb, 0), EINVAL);
    CHECK_ERRNO(xc_shadow_control(xc, id, 99, NULL, 0), EINVAL);
    CHECK_ERRNO(control(99, XEN_DOMCTL_SHADOW_OP_CLEAN, 0), ESRCH);
    CHECK_ERRNO(xc_shadow_control(xc, 0, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, NULL, 0), EINVAL);
    ANSWER_EQ(xc_shadow_control(xc, id, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0), 0);
    ANSWER_EQ(xc_shadow_control(xc, id, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0), 0);
    CHECK_ERRNO(control(id, XEN_DOMCTL_SHADOW_OP_CLEAN, 0), EINVAL);
    CHECK_ERRNO(control(id, XEN_DOMCTL_SHADOW_OP_PEEK, 0), EINVAL);
}

/* Two ask and clean at the same time: each is told, or that the other asks. */
static void two_at_once(void)
{
    unsigned busy = 0;
    pid_t child = fork();
    failed = child == 0 ? 0 : failed;
    xc_interface *own = child == 0 ? xc_interface_open(NULL, NULL, 0) : xc;
    for (unsigned i = 0; i < (child != 0 ? TIMES : TIMES * 10); i++) {
        for (unsigned k = 0; child != 0 && k < PAGES / BLOCK; k++) { /* so that it is cut */
            list[k] = some_word(k * BLOCK + FIRST);
        }
        if (child != 0) {
            run(PAGES / BLOCK);
        }
        errno = 0;
        long long result =
            xc_logdirty_control(own, id, XEN_DOMCTL_SHADOW_OP_CLEAN, NULL, 0, 0, NULL);
        busy += result == -1 && errno == EBUSY;
        CHECK(result == 0 || (result == -1 && errno == EBUSY));
    }
    if (child == 0) {
        _exit(failed != 0);
    }
    int status = 1;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    printf("%u times, %u times busy\n", TIMES, busy);
    keep();
    nothing_written();
    told(XEN_DOMCTL_SHADOW_OP_PEEK, BITS);
}

/* As a migration does at last: what has shut down is asked once more. */
static void ended_domain(void)
{
    order(0, some_word(FIRST + 11));
    run(1);
    ANSWER_EQ(xc_domain_shutdown(xc, id, SHUTDOWN_suspend), 0);
    ANSWER_EQ(info_of(id).shutdown, 1);
    find_written();
    told(XEN_DOMCTL_SHADOW_OP_PEEK, BITS);
    told(XEN_DOMCTL_SHADOW_OP_CLEAN, BITS);
    keep();
    nothing_written();
    told(XEN_DOMCTL_SHADOW_OP_CLEAN, BITS);
}

static void small_domain(void)
{
    id = tiny_make(PAGES, writer, sizeof(writer));
    now = map_pages(id, 0, PAGES, PROT_READ);
    go = (uint64_t *)map_pages(id, GO, 1, PROT_READ | PROT_WRITE);
    list = (uint64_t *)map_pages(id, LIST, 1, PROT_READ | PROT_WRITE);
    tiny_start(id);
    CHECK_EQ(xc_domain_unpause(xc, id), 0);
    run(0); /* it is there */
    ANSWER_EQ(xc_shadow_control(xc, id, XEN_DOMCTL_SHADOW_OP_ENABLE, NULL,
                                XEN_DOMCTL_SHADOW_ENABLE_LOG_DIRTY),
              0);
    keep();
    rounds();
    same_bytes();
    keep();
    all_of_it();
    parts();
    memory_comes_and_goes();
    refusals();
    ANSWER_EQ(xc_shadow_control(xc, id, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, NULL, 0), 0);
    ANSWER_EQ(info_of(id).shutdown, 0);
    two_at_once();
    ended_domain();
    munmap((void *)(uintptr_t)go, PAGE);
    munmap((void *)(uintptr_t)list, PAGE);
    munmap((void *)(uintptr_t)now, PAGES * PAGE);
    destroy(id); /* with all that was kept */
}

/* A Linux that runs: no page that changed is missing. And a reset takes back what was written. */
static void linux_domain(void)
{
    if (!forks_here("log-dirty of Linux")) {
        return;
    }
    xen_pfn_t last;
    unsigned first = 0x2000, changed = 0, missing = 0;
    id = fork_template(0);
    CHECK_EQ(xc_domain_maximum_gpfn(xc, id, &last), 0);
    now = map_pages(id, first, PAGES, PROT_READ);
    keep();
    CHECK_EQ(xc_shadow_control(xc, id, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, NULL, 0), 0);
    CHECK_EQ(xc_domain_unpause(xc, id), 0);
    sleep(1);
    CHECK_EQ(xc_domain_pause(xc, id), 0);
    find_written();
    memset(bitmap, 0, 4 * PAGE);
    CHECK_EQ(xc_logdirty_control(xc, id, XEN_DOMCTL_SHADOW_OP_PEEK, HYPERCALL_BUFFER(bitmap),
                                 first + PAGES, 0, NULL),
             first + PAGES);
    for (unsigned i = 0; i < PAGES; i++) {
        bool set = bitmap[(first + i) / 8] >> (first + i) % 8 & 1;
        changed += written[i];
        missing += written[i] && !set;
    }
    CHECK(changed > 0);
    CHECK_EQ(missing, 0);
    printf("Linux wrote %u of %u pages\n", changed, PAGES);
    munmap((void *)(uintptr_t)now, PAGES * PAGE);
    CHECK_EQ(xc_memshr_fork_reset(xc, id, false, true), 0);
    xc_shadow_op_stats_t stats = {7, 7};
    CHECK_EQ(xc_logdirty_control(xc, id, XEN_DOMCTL_SHADOW_OP_CLEAN, NULL, 0, 0, &stats), 0);
    CHECK_EQ(stats.dirty_count, 0);
    CHECK_EQ(xc_shadow_control(xc, id, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0), 0);
    destroy(id);
}

/* All that is kept goes with the domain, in the middle of it, too. */
static void nothing_is_left(void)
{
    xc_physinfo_t first, last;
    for (unsigned i = 0; i < 4; i++) {
        if (i == 1) { /* the records of maps are there, and what Linux takes for them */
            CHECK_EQ(xc_physinfo(xc, &first), 0);
        }
        id = tiny_make(PAGES, writer, sizeof(writer));
        CHECK_EQ(xc_shadow_control(xc, id, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, NULL, 0), 0);
        for (unsigned page = FIRST; page < PAGES - 100; page += 256) {
            uint8_t *at = map_pages(id, page, 100, PROT_READ | PROT_WRITE);
            for (unsigned k = 0; k < 100; k++) {
                at[k * PAGE] = 1;
            }
            munmap(at, 100 * PAGE);
        }
        destroy(id);
    }
    CHECK_EQ(xc_physinfo(xc, &last), 0);
    printf("%ld pages less\n", (long)(first.free_pages - last.free_pages));
    CHECK(last.free_pages + 300 > first.free_pages); /* domain 1 runs on */
}

void test(void)
{
    bitmap = xc_hypercall_buffer_alloc_pages(xc, bitmap, 4);
    CHECK(bitmap != NULL);
    small_domain();
    linux_domain();
    nothing_is_left();
    xc_hypercall_buffer_free_pages(xc, bitmap, 4);
}
