/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory for domains, up to what they may have; and their pages, mapped here. */
#include "xc.h"

#define PAGES 2048u
#define MANY 4096u

static void quotas(void)
{
    static xen_pfn_t list[PAGES];
    xen_pfn_t last = 0;
    uint32_t id = create(0, 1);
    CHECK_EQ(xc_domain_setmaxmem(xc, id, PAGES * 4), 0);
    for (unsigned i = 0; i < PAGES; i++) {
        list[i] = i;
    }
    CHECK_EQ(xc_domain_populate_physmap_exact(xc, id, PAGES, 0, 0, list), 0);
    CHECK_EQ(info_of(id).nr_pages, PAGES);
    CHECK_EQ(xc_domain_maximum_gpfn(xc, id, &last), 0);
    CHECK_EQ(last, PAGES - 1);
    list[0] = 5000;
    CHECK(xc_domain_populate_physmap_exact(xc, id, 1, 0, 0, list) != 0);
    CHECK_EQ(xc_domain_populate_physmap(xc, id, 1, 0, 0, list), 0); /* none of them */
    CHECK_EQ(xc_domain_decrease_reservation_exact(xc, id, 1, 0, list + 1), 0);
    CHECK_EQ(info_of(id).nr_pages, PAGES - 1);
    CHECK_EQ(xc_domain_populate_physmap_exact(xc, id, 1, 0, 0, list), 0);
    CHECK_EQ(xc_domain_maximum_gpfn(xc, id, &last), 0);
    CHECK_EQ(last, 5000);
    CHECK_EQ(info_of(id).nr_pages, PAGES);
    CHECK_EQ(xc_domain_populate_physmap_exact(xc, id, 1, 0, 0, list), 0); /* it is there */
    CHECK_EQ(info_of(id).nr_pages, PAGES);
    CHECK_EQ(xc_domain_decrease_reservation_exact(xc, id, 1, 0, list), 0);
    CHECK_EQ(xc_domain_decrease_reservation(xc, id, 1, 0, list), 1); /* nothing is */
    CHECK_EQ(info_of(id).nr_pages, PAGES - 1);
    destroy(id);

    id = create(0, 1);
    CHECK_EQ(xc_domain_setmaxmem(xc, id, 64 << 10), 0);
    list[0] = 0;
    list[1] = 512;
    CHECK_EQ(xc_domain_populate_physmap_exact(xc, id, 2, 9, 0, list), 0);
    CHECK_EQ(info_of(id).nr_pages, 1024);
    list[0] = 1025; /* not on a boundary */
    CHECK(xc_domain_populate_physmap_exact(xc, id, 1, 9, 0, list) != 0);
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
        CHECK_EQ(memcmp((const void *)own, (const void *)parents, PAGE), 0);
        uint8_t before = own[100];
        own[100] = (uint8_t)~before;
        CHECK_EQ(own[100], (uint8_t)~before);
        CHECK_EQ(parents[100], before);
        munmap((void *)own, PAGE);
        munmap((void *)parents, PAGE);
    }
    CHECK(xc_map_foreign_range(xc, child, PAGE, PROT_READ, 0x9000) == NULL); /* behind its memory */
    CHECK(xc_map_foreign_range(xc, 99, PAGE, PROT_READ, 0x1000) == NULL);
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
        unsigned different = 0;
        for (unsigned i = 0; i < MANY; i++) {
            CHECK(errors[0][i] == 0 && errors[1][i] == 0);
            different += memcmp(own + (size_t)i * PAGE, parents + (size_t)i * PAGE, PAGE) != 0;
        }
        CHECK(different < MANY / 10); /* the parent goes on */
        CHECK_EQ(xc_physinfo(xc, &after), 0);
        CHECK(before.free_pages - after.free_pages < MANY / 8);
        munmap(own, (size_t)MANY * PAGE);
        munmap(parents, (size_t)MANY * PAGE);
    }
    destroy(child);
}

/* A domain goes while its page is mapped here; the map keeps what it shows. */
static void destroyed_while_mapped(void)
{
    uint32_t child = fork_template(0);
    volatile uint8_t *page = xc_map_foreign_range(xc, child, PAGE, PROT_READ, 0x1000);
    CHECK(page != NULL);
    if (page != NULL) {
        CHECK_EQ(xc_domain_destroy(xc, child), 0);
        munmap((void *)page, PAGE);
    }
    CHECK_EQ(info_of(child).domid, DOMID_INVALID);
}

void test(void)
{
    quotas();
    foreign_pages();
    many_foreign_pages();
    destroyed_while_mapped();
}
