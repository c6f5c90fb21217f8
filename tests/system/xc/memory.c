/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory for domains, up to what they may have; and their pages, mapped here. */
#include "xc.h"

#include <setjmp.h>
#include <signal.h>

#define PAGES 2048u
#define MANY 4096u

static void quotas(void)
{
    static xen_pfn_t list[PAGES];
    xen_pfn_t last = 0;
    uint32_t id = create(0, 1);
    ANSWER_EQ(xc_domain_setmaxmem(xc, id, PAGES * 4), 0);
    for (unsigned i = 0; i < PAGES; i++) {
        list[i] = i;
    }
    ANSWER_EQ(xc_domain_populate_physmap_exact(xc, id, PAGES, 0, 0, list), 0);
    ANSWER_EQ(info_of(id).nr_pages, PAGES);
    ANSWER_EQ(xc_domain_maximum_gpfn(xc, id, &last), 0);
    ANSWER_EQ(last, PAGES - 1);
    list[0] = 5000;
    ANSWER_EQ(xc_domain_populate_physmap_exact(xc, id, 1, 0, 0, list) != 0, 1);
    ANSWER_EQ(xc_domain_populate_physmap(xc, id, 1, 0, 0, list), 0); /* none of them */
    ANSWER_EQ(xc_domain_decrease_reservation_exact(xc, id, 1, 0, list + 1), 0);
    ANSWER_EQ(info_of(id).nr_pages, PAGES - 1);
    ANSWER_EQ(xc_domain_populate_physmap_exact(xc, id, 1, 0, 0, list), 0);
    ANSWER_EQ(xc_domain_maximum_gpfn(xc, id, &last), 0);
    ANSWER_EQ(last, 5000);
    ANSWER_EQ(info_of(id).nr_pages, PAGES);
    ANSWER_EQ(xc_domain_populate_physmap_exact(xc, id, 1, 0, 0, list), 0); /* it is there */
    ANSWER_EQ(info_of(id).nr_pages, PAGES);
    ANSWER_EQ(xc_domain_decrease_reservation_exact(xc, id, 1, 0, list), 0);
    ANSWER_EQ(xc_domain_decrease_reservation(xc, id, 1, 0, list), 1); /* nothing is */
    ANSWER_EQ(info_of(id).nr_pages, PAGES - 1);
    destroy(id);

    id = create(0, 1);
    ANSWER_EQ(xc_domain_setmaxmem(xc, id, 64 << 10), 0);
    list[0] = 0;
    list[1] = 512;
    ANSWER_EQ(xc_domain_populate_physmap_exact(xc, id, 2, 9, 0, list), 0);
    ANSWER_EQ(info_of(id).nr_pages, 1024);
    list[0] = 1025; /* not on a boundary */
    ANSWER_EQ(xc_domain_populate_physmap_exact(xc, id, 1, 9, 0, list) != 0, 1);
    destroy(id);
}

/* The child's page, as it is; writing there changes the child alone. */
static void foreign_pages(void)
{
    uint32_t child = fork_template(0);
    volatile uint8_t *own = xc_map_foreign_range(xc, child, PAGE, PROT_READ | PROT_WRITE, 0x1000);
    volatile uint8_t *parents = xc_map_foreign_range(xc, TEMPLATE, PAGE, PROT_READ, 0x1000);
    CHECK(own != NULL && parents != NULL);
    if (own != NULL && parents != NULL) {
        ANSWER_EQ(memcmp((const void *)own, (const void *)parents, PAGE) == 0, 1);
        uint8_t before = own[100];
        uint8_t other = before ^ 0xff;
        own[100] = other;
        ANSWER_EQ(own[100] == other, 1);
        ANSWER_EQ(parents[100] == before, 1);
        munmap((void *)own, PAGE);
        munmap((void *)parents, PAGE);
    }
    ANSWER_EQ(xc_map_foreign_range(xc, child, PAGE, PROT_READ, 0x9000) == NULL, 1); /* a hole */
    ANSWER_EQ(xc_map_foreign_range(xc, 99, PAGE, PROT_READ, 0x1000) == NULL, 1);
    destroy(child);
}

/* Much of a child at once, and of its parent: all is the same, and reading takes no memory but for
 * the records of the maps. */
static void many_foreign_pages(void)
{
    static xen_pfn_t list[MANY];
    static int errors[2][MANY];
    xc_physinfo_t before, after;
    uint32_t child = fork_template(0);
    for (unsigned i = 0; i < MANY; i++) {
        list[i] = 0x1000 + i;
    }
    CHECK_EQ(xc_physinfo(xc, &before), 0);
    char *own = xc_map_foreign_bulk(xc, child, PROT_READ, list, errors[0], MANY);
    char *parents = xc_map_foreign_bulk(xc, TEMPLATE, PROT_READ, list, errors[1], MANY);
    CHECK(own != NULL && parents != NULL);
    if (own != NULL && parents != NULL) {
        unsigned different = 0, wrong = 0;
        for (unsigned i = 0; i < MANY; i++) {
            wrong += errors[0][i] != 0 || errors[1][i] != 0;
            different += memcmp(own + (size_t)i * PAGE, parents + (size_t)i * PAGE, PAGE) != 0;
        }
        ANSWER_EQ(wrong, 0);
        CHECK(!forks_here("pages of a fork") || different < MANY / 10); /* the parent goes on */
        CHECK_EQ(xc_physinfo(xc, &after), 0);
        ANSWER_EQ(before.free_pages - after.free_pages < MANY / 8, 1);
        munmap(own, (size_t)MANY * PAGE);
        munmap(parents, (size_t)MANY * PAGE);
    }
    destroy(child);
}

static sigjmp_buf unreadable;

static void faulted(int signal)
{
    (void)signal;
    siglongjmp(unreadable, 1);
}

static bool readable(const volatile uint8_t *page)
{
    struct sigaction action = {.sa_handler = faulted}, before[2];
    bool is = false;
    sigaction(SIGSEGV, &action, &before[0]);
    sigaction(SIGBUS, &action, &before[1]);
    if (sigsetjmp(unreadable, 1) == 0) {
        (void)page[0];
        is = true;
    }
    sigaction(SIGSEGV, &before[0], NULL);
    sigaction(SIGBUS, &before[1], NULL);
    return is;
}

/* A domain goes while its page is mapped here: the map goes with it, and nothing else does. */
static void destroyed_while_mapped(void)
{
    uint32_t child = fork_template(0);
    volatile uint8_t *page = xc_map_foreign_range(xc, child, PAGE, PROT_READ, 0x1000);
    CHECK(page != NULL);
    if (page != NULL) {
        ANSWER_EQ(xc_domain_destroy(xc, child), 0);
        ANSWER_EQ(readable(page), 0);
        munmap((void *)page, PAGE);
    }
    ANSWER_EQ(info_of(child).domid == DOMID_INVALID, 1);
}

void test(void)
{
    quotas();
    foreign_pages();
    many_foreign_pages();
    destroyed_while_mapped();
}
