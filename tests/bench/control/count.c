/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * count.so: a plugin for QEMU that counts the instructions of a machine with one CPU, in four sums:
 * outside and inside of the hypervisor's addresses, iterations of REP string instructions apart;
 * and those outside that hypervisors intercept and whose length they have to know. Whenever the
 * machine executes a mark (marks.h), the sums go to the file as a line
 * "mark HOW FIGURE OUTSIDE INSIDE REP-OUTSIDE REP-INSIDE INTERCEPTED".
 *
 * Arguments: out=FILE, low=ADDRESS and high=ADDRESS of the hypervisor's image, and profile=FIGURE:
 * at the end, lines "at ADDRESS COUNT", of what was executed between that figure's begin and end.
 *
 * The declarations are those of QEMU's plugin interface, version 1 (docs/devel/tcg-plugins.rst).
 */
#include "marks.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info;

EXPORTED int qemu_plugin_version = 1;
EXPORTED int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv);

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id,
                                           void (*translated)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_atexit_cb(plugin_id id, void (*ends)(plugin_id, void *), void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t i);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
                                            void (*executed)(unsigned, void *), int registers,
                                            void *data);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn, int operation,
                                                void *sum, uint64_t addend);
#define NO_REGISTERS 0
#define ADD_U64 0

/* What is executed at an address; kept for a profile only. */
struct site {
    struct site *next;
    uint64_t at, count, base, total;
};

#define BUCKETS (1u << 20)
static uint64_t sums[4]; /* bit 0: inside; bit 1: REP */
static uint64_t intercepted;
static uint64_t low, high;
static uint32_t profiled;
static FILE *out;
static struct site **sites;

/* F2 or F3, perhaps behind other prefixes, before a string instruction. */
static bool is_rep(const uint8_t *code, size_t size)
{
    bool rep = false;
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = code[i];
        if (byte == 0xf2 || byte == 0xf3) {
            rep = true;
        } else if (byte >= 0xa4 && byte <= 0xaf && byte != 0xa8 && byte != 0xa9) {
            return rep;
        } else if (byte != 0x66 && byte != 0x67 && (byte & 0xf0) != 0x40) {
            return false;
        }
    }
    return false;
}

/* VMMCALL, VMCALL; WRMSR, RDMSR, CPUID; HLT. Of MSRs, some are not intercepted. */
static bool is_intercepted(const uint8_t *code, size_t size)
{
    switch (size) {
    case 1:
        return code[0] == 0xf4;
    case 2:
        return code[0] == 0x0f && (code[1] == 0x30 || code[1] == 0x32 || code[1] == 0xa2);
    case 3:
        return code[0] == 0x0f && code[1] == 0x01 && (code[2] == 0xd9 || code[2] == 0xc1);
    default:
        return false;
    }
}

static struct site *site_at(uint64_t at)
{
    struct site **bucket = &sites[(at ^ at >> 20) & (BUCKETS - 1)], *site = *bucket;
    while (site != NULL && site->at != at) {
        site = site->next;
    }
    if (site == NULL && (site = calloc(1, sizeof(*site))) != NULL) {
        site->at = at;
        site->next = *bucket;
        *bucket = site;
    }
    return site;
}

static void each_site(void (*act)(struct site *))
{
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (struct site *site = sites[i]; site != NULL; site = site->next) {
            act(site);
        }
    }
}

static void begins(struct site *site) { site->base = site->count; }
static void ends(struct site *site) { site->total += site->count - site->base; }
static void prints(struct site *site)
{
    if (site->total != 0) {
        fprintf(out, "at %016" PRIx64 " %" PRIu64 "\n", site->at, site->total);
    }
}

static void marked(unsigned cpu, void *data)
{
    static const char *const how[] = {"begin", "enter", "return", "end", "first"};
    uint32_t mark = (uint32_t)(uintptr_t)data, kind = MARK_HOW(mark);
    (void)cpu;
    fprintf(out, "mark %s %u %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
            kind < sizeof(how) / sizeof(how[0]) ? how[kind] : "unknown", MARK_FIGURE(mark), sums[0],
            sums[1], sums[2], sums[3], intercepted);
    if (sites != NULL && MARK_FIGURE(mark) == profiled && kind == MARK_BEGIN) {
        each_site(begins);
    } else if (sites != NULL && MARK_FIGURE(mark) == profiled && kind == MARK_END) {
        each_site(ends);
    }
}

static void translated(plugin_id id, struct qemu_plugin_tb *tb)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        const uint8_t *code = qemu_plugin_insn_data(insn);
        size_t size = qemu_plugin_insn_size(insn);
        uint64_t at = qemu_plugin_insn_vaddr(insn);
        unsigned kind = (at >= low && at < high) | (unsigned)is_rep(code, size) << 1;
        uint32_t mark = size == MARK_SIZE ? mark_of(code) : 0;
        if (mark != 0) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, NO_REGISTERS,
                                                   (void *)(uintptr_t)mark);
        }
        qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD_U64, &sums[kind], 1);
        if ((kind & 1) == 0 && is_intercepted(code, size)) {
            qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD_U64, &intercepted, 1);
        }
        if (sites != NULL && (kind & 2) == 0) {
            struct site *site = site_at(at);
            if (site != NULL) {
                qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD_U64, &site->count, 1);
            }
        }
    }
}

static void finish(plugin_id id, void *data)
{
    (void)id;
    (void)data;
    if (sites != NULL) {
        each_site(prints);
    }
    fclose(out);
}

int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        const char *value = strchr(argv[i], '=');
        value = value != NULL ? value + 1 : "";
        if (strncmp(argv[i], "out=", 4) == 0) {
            out = fopen(value, "we");
        } else if (strncmp(argv[i], "low=", 4) == 0) {
            low = strtoull(value, NULL, 16);
        } else if (strncmp(argv[i], "high=", 5) == 0) {
            high = strtoull(value, NULL, 16);
        } else if (strncmp(argv[i], "profile=", 8) == 0) {
            profiled = (uint32_t)strtoul(value, NULL, 10);
            sites = calloc(BUCKETS, sizeof(struct site *));
        }
    }
    if (out == NULL) {
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finish, NULL);
    return 0;
}
