/* SPDX-License-Identifier: BSD-2-Clause */
/* What the hypervisor printed, by libxenctrl: all of it, what came since, and not what was cleared.
 */
#include "xc.h"

static char text[20000];

/* As text; the number of bytes in `*count` first. */
static uint32_t read_log(bool clear, bool further, uint32_t *index)
{
    unsigned count = sizeof(text) - 1;
    CHECK_EQ(xc_readconsolering(xc, text, &count, clear, further, index), 0);
    CHECK(count < sizeof(text));
    text[count] = '\0';
    return count;
}

/* A fork ends by a triple fault, of which the hypervisor says a line. */
static uint32_t crash_one(void)
{
    static uint8_t context[1 << 16];
    struct hvm_save_descriptor record;
    uint32_t id = fork_template(0);
    int size = xc_domain_hvm_getcontext(xc, id, context, sizeof(context));
    CHECK(size > 0);
    for (int at = 0; at < size; at += (int)(sizeof(record) + record.length)) {
        memcpy(&record, context + at, sizeof(record));
        if (record.typecode == HVM_SAVE_CODE(CPU)) {
            struct hvm_hw_cpu *cpu = (void *)(context + at + sizeof(record));
            cpu->rip = 0; /* nothing is mapped there, and no handler either */
            cpu->idtr_limit = 0;
        }
    }
    CHECK_EQ(xc_domain_hvm_setcontext(xc, id, context, (uint32_t)size), 0);
    CHECK_EQ(xc_domain_unpause(xc, id), 0);
    for (unsigned i = 0; i < 2000 && !info_of(id).crashed; i++) {
        usleep(1000);
    }
    CHECK(info_of(id).crashed);
    return id;
}

void test(void)
{
    char line[64];
    uint32_t index = 0, end, again;
    uint32_t count = read_log(false, false, &index);
    CHECK(count > 500 && count <= 16384);
    CHECK(strstr(text, "machine: ") != NULL && strstr(text, "domain 32751 control: ") != NULL);
    CHECK(strstr(text, "control domain: ") == NULL); /* which a domain has printed */
    end = index;
    CHECK_EQ(read_log(false, true, &index), 0);
    CHECK_EQ(index, end);

    uint32_t id = crash_one();
    snprintf(line, sizeof(line), "domain %u vcpu 0: triple fault: ", id);
    CHECK(read_log(false, true, &index) != 0);
    CHECK(strncmp(text, line, strlen(line)) == 0);
    destroy(id);

    again = end; /* from the middle of it, in small parts */
    unsigned small = 9;
    CHECK_EQ(xc_readconsolering(xc, text, &small, 0, 1, &again), 0);
    CHECK(small == 9 && again == end + 9 && memcmp(text, line, 9) == 0);

    CHECK(read_log(true, false, &index) >= count);
    CHECK_EQ(read_log(false, false, &index), 0);
}
