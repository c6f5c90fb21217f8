/* SPDX-License-Identifier: BSD-2-Clause */
/* Several of Xen's calls in one: each in its turn, with its own result, wherever the list is cut.
 * What only a control domain may ask is refused to others, in a list too. */
#include "guest.h"
#include "xen.h"

const char guest_name[] = "multicall";

#define MANY 100u
#define NO_MEMORY_AT (UINT64_C(3) << 30)
#define TEXT_AT (8 * MIB)
#define TEXT_SIZE (64 * KIB)

static struct multicall_entry entry[MANY];

static int64_t multicall(const void *list, uint64_t count)
{
    return xen_call(__HYPERVISOR_multicall, (uint64_t)list, count, 0);
}

static void each_in_its_turn(void)
{
    for (unsigned i = 0; i < MANY; i++) {
        entry[i] = (struct multicall_entry){
            .op = __HYPERVISOR_xen_version, .result = 77, .args = {XENVER_version}};
    }
    entry[1].args[0] = XENVER_pagesize;
    entry[2].op = __HYPERVISOR_xen_version + 4711;
    entry[3].op = __HYPERVISOR_multicall;
    entry[4].op = __HYPERVISOR_domctl;
    entry[MANY - 1].args[0] = XENVER_pagesize;
    CHECK_EQ(multicall(entry, MANY - 1), 0);
    CHECK_EQ(entry[0].result, 4 << 16 | 17);
    CHECK_EQ(entry[1].result, PAGE);
    CHECK_EQ((int64_t)entry[2].result, -XEN_ENOSYS);
    CHECK_EQ((int64_t)entry[3].result, -XEN_EINVAL);
    CHECK_EQ((int64_t)entry[4].result, -XEN_EPERM);
    for (unsigned i = 5; i < MANY - 1; i++) {
        CHECK_EQ(entry[i].result, 4 << 16 | 17);
    }
    CHECK_EQ(entry[MANY - 1].result, 77);
    CHECK_EQ(multicall(NULL, 0), 0);
    /* The second argument is a number of 32 bits. */
    CHECK_EQ(multicall(entry, UINT64_C(1) << 32), 0);
}

/* Entries before one that cannot be read are done. */
static void lists_that_end_in_nothing(void)
{
    struct multicall_entry *last = (struct multicall_entry *)(guest_memory - sizeof(*last));
    *last = (struct multicall_entry){.op = __HYPERVISOR_xen_version, .args = {XENVER_pagesize}};
    CHECK_EQ(multicall(last, 2), -XEN_EFAULT);
    CHECK_EQ(last->result, PAGE);
    CHECK_EQ(multicall((void *)NO_MEMORY_AT, 1), -XEN_EFAULT);
    CHECK_EQ(multicall((void *)(UINT64_C(1) << 50), 1), -XEN_EFAULT);
}

/* A call that takes long goes on where it was, and is done once. */
static void one_that_is_cut(void)
{
    char *text = (char *)TEXT_AT;
    for (unsigned i = 0; i < TEXT_SIZE; i++) {
        text[i] = i % 64 == 63 ? '\n' : '.';
    }
    entry[0] = (struct multicall_entry){.op = __HYPERVISOR_console_io,
                                        .args = {CONSOLEIO_write, TEXT_SIZE, TEXT_AT}};
    entry[1] = (struct multicall_entry){.op = __HYPERVISOR_xen_version, .args = {XENVER_pagesize}};
    CHECK_EQ(multicall(entry, 2), 0);
    CHECK_EQ(entry[0].result, 0);
    CHECK_EQ(entry[1].result, PAGE);
    CHECK_EQ(entry[0].args[1], PAGE); /* what was left when it was begun last */
}

static void not_for_everybody(void)
{
    static uint8_t zeros[256];
    CHECK_EQ(xen_call(__HYPERVISOR_sysctl, (uint64_t)zeros, 0, 0), -XEN_EPERM);
    CHECK_EQ(xen_call(__HYPERVISOR_domctl, (uint64_t)zeros, 0, 0), -XEN_EPERM);
    CHECK_EQ(xen_call(__HYPERVISOR_platform_op, (uint64_t)zeros, 0, 0), -XEN_EPERM);
    CHECK_EQ(xen_call(__HYPERVISOR_domctl, NO_MEMORY_AT, 0, 0), -XEN_EPERM);
    for (unsigned command = 0; command < 64; command++) {
        int64_t result = xen_call(__HYPERVISOR_memory_op, command, NO_MEMORY_AT, 0);
        CHECK(result == -XEN_ENOSYS || (command == XENMEM_add_to_physmap && result == -XEN_EFAULT));
    }
}

void guest_story(void)
{
    each_in_its_turn();
    lists_that_end_in_nothing();
    one_that_is_cut();
    not_for_everybody();
    audit_clean();
}
