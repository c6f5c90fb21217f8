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
    for (unsigned i = 0; i < 2000 && !info_of(id).crashed && !info_of(id).shutdown; i++) {
        usleep(1000);
    }
    ANSWER_EQ(info_of(id).shutdown_reason, SHUTDOWN_crash);
    return id;
}

void test(void)
{
    char line[64];
    uint32_t index = 0, end, again;
    uint32_t count = read_log(false, false, &index);
    bool here = forks_here("the hypervisor's own lines");
    ANSWER_EQ(count > 500 && count <= 16384, 1);
    CHECK(!here || strstr(text, "machine: ") != NULL);
    CHECK(!here || strstr(text, "domain 32751 control: ") != NULL);
    ANSWER_EQ(strstr(text, "control domain: ") == NULL, 1); /* which a domain has printed */
    end = index;
    ANSWER_EQ(read_log(false, true, &index), 0);
    ANSWER_EQ(index == end, 1);

    uint32_t id = crash_one();
    snprintf(line, sizeof(line), "domain %u vcpu 0: triple fault: ", id);
    ANSWER_EQ(read_log(false, true, &index) != 0, 1);
    CHECK(!here || strncmp(text, line, strlen(line)) == 0);
    memcpy(line, text, sizeof(line));
    destroy(id);

    again = end; /* from the middle of it, in small parts */
    unsigned small = 9;
    ANSWER_EQ(xc_readconsolering(xc, text, &small, 0, 1, &again), 0);
    ANSWER_EQ(small, 9);
    ANSWER_EQ(again == end + 9, 1);
    ANSWER_EQ(memcmp(text, line, 9) == 0, 1);

    ANSWER_EQ(read_log(true, false, &index) >= count, 1);
    ANSWER_EQ(read_log(false, false, &index), 0);
}
