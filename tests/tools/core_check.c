/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Cores (tools/cleave/core.c) of domains that this program makes up: pages that were touched, never
 * touched, and are not there, in random order, more pieces than a core can have; and page tables of
 * a kernel. Every page is looked up in what is written.
 */
#include "core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/procfs.h>
#include <xen/hvm/save.h>

#define PAGE UINT64_C(4096)
#define PAGES 30000u
#define FILE_MAX (2 * PAGES * PAGE)
#define KERNEL UINT64_C(0xffffffff80000000)
#define RIP UINT64_C(0xffffffff81000123)

enum kind { NOTHING, UNTOUCHED, TOUCHED };
static unsigned char kind[PAGES];
static uint64_t tables[4][512]; /* of the first four pages */
static unsigned char buffer[CLEAVE_COPY_MAX];
static bool large; /* what has no touched page is one entry of 2 MiB */
static unsigned wrong;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition) && wrong++ < 10) {                                                        \
            printf("FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition);                          \
        }                                                                                          \
    } while (0)

static uint64_t word_of(uint64_t page) { return page * UINT64_C(0x9e3779b97f4a7c15) + 1; }

/* --- The domain ------------------------------------------------------------------------------- */

static enum kind kind_of(uint64_t page) { return page < PAGES ? (enum kind)kind[page] : NOTHING; }

static void fill(uint64_t page, unsigned char *to)
{
    uint64_t word = word_of(page);
    memset(to, 0, PAGE);
    if (page < 4) {
        memcpy(to, tables[page], PAGE);
    } else if (kind_of(page) == TOUCHED) {
        memcpy(to, &word, sizeof(word));
    }
}

static bool is_empty(uint64_t page)
{
    unsigned i = 0;
    while (i < 512 && kind_of(page + i) != TOUCHED) {
        i++;
    }
    return page % 512 == 0 && i == 512;
}

int cleave_lookup(struct cleave_handle *cleave, uint32_t domain, uint64_t at,
                  struct cleave_lookup *out)
{
    (void)cleave;
    *out = (struct cleave_lookup){.domain = domain, .at = at};
    out->kind = kind_of(at / PAGE) == TOUCHED ? 2 : 0;
    out->order = large && is_empty(at / PAGE) ? 1 : 0;
    while (at / PAGE >= PAGES && out->order < 3 && at % (PAGE << 9 * (out->order + 1)) == 0) {
        out->order++;
    }
    return 0;
}

int cleave_read(struct cleave_handle *cleave, uint32_t domain, uint64_t at, void *to, size_t size)
{
    unsigned char page[PAGE];
    (void)cleave;
    (void)domain;
    for (size_t done = 0, part; done < size; done += part) {
        uint64_t offset = (at + done) % PAGE;
        part = PAGE - offset < size - done ? PAGE - offset : size - done;
        if (kind_of((at + done) / PAGE) == NOTHING) {
            return CLEAVE_FAULT;
        }
        fill((at + done) / PAGE, page);
        memcpy((unsigned char *)to + done, page + offset, part);
    }
    return 0;
}

void *cleave_buffer(struct cleave_handle *cleave)
{
    (void)cleave;
    return buffer;
}

int cleave_call(struct cleave_handle *cleave, enum cleave_op op, void *arguments, size_t size)
{
    const struct cleave_copy *copy = arguments;
    CHECK(op == CLEAVE_OP_COPY && size == sizeof(*copy) && copy->size <= CLEAVE_COPY_MAX);
    return cleave_read(cleave, copy->domain, copy->at, (void *)(uintptr_t)copy->buffer, copy->size);
}

int xc_domain_hvm_getcontext(xc_interface *xc, uint32_t domid, uint8_t *to, uint32_t size)
{
    static struct {
        struct hvm_save_descriptor head;
        struct hvm_hw_cpu cpu;
        struct hvm_save_descriptor end;
    } context = {.head = {.typecode = HVM_SAVE_CODE(CPU), .length = sizeof(struct hvm_hw_cpu)},
                 .cpu = {.rip = RIP, .cr0 = 0x80000001, .cr4 = 0x20, .msr_efer = 0x500}};
    (void)xc;
    (void)domid;
    memcpy(to != NULL ? to : (uint8_t *)&context, &context, to != NULL ? size : 0);
    return sizeof(context);
}

/* --- What is written -------------------------------------------------------------------------- */

static unsigned char *file;
static size_t file_size;

static bool sink(void *to, const void *bytes, size_t size)
{
    (void)to;
    CHECK(file_size + size <= FILE_MAX);
    memcpy(file + file_size, bytes, file_size + size <= FILE_MAX ? size : 0);
    file_size += size;
    return true;
}

static const Elf64_Phdr *segment_at(uint64_t virtual)
{
    const Elf64_Ehdr *head = (const void *)file;
    const Elf64_Phdr *all = (const void *)(file + head->e_phoff), *found = NULL;
    for (unsigned i = 0; i < head->e_phnum; i++) {
        if (all[i].p_type == PT_LOAD && virtual - all[i].p_vaddr < all[i].p_memsz) {
            CHECK(found == NULL); /* once */
            found = &all[i];
        }
    }
    return found;
}

/* The bytes at an address are those of `page`; `filled`: gaps are zeros. */
static void check_page(uint64_t virtual, uint64_t page, bool filled)
{
    unsigned char expected[PAGE];
    const Elf64_Phdr *p = segment_at(virtual);
    uint64_t offset = p != NULL ? virtual - p->p_vaddr : 0;
    if (kind_of(page) == NOTHING) {
        CHECK(p == NULL || (filled && offset < p->p_filesz));
    } else {
        CHECK(p != NULL);
    }
    if (p == NULL) {
        return;
    }
    CHECK(p->p_paddr + offset == page * PAGE && p->p_offset % PAGE == 0);
    CHECK(kind_of(page) != TOUCHED || offset < p->p_filesz);
    fill(page, expected);
    if (offset < p->p_filesz) {
        CHECK(p->p_offset + offset + PAGE <= file_size);
        CHECK(memcmp(file + p->p_offset + offset, expected, PAGE) == 0);
    }
}

static void check_notes(void)
{
    const Elf64_Phdr *notes = (const void *)(file + sizeof(Elf64_Ehdr));
    const unsigned char *at = file + notes->p_offset, *end = at + notes->p_filesz;
    unsigned found = 0;
    CHECK(notes->p_type == PT_NOTE && notes->p_offset + notes->p_filesz <= file_size);
    while (at < end) {
        const Elf64_Nhdr *note = (const void *)at;
        const struct elf_prstatus *status = (const void *)(at + sizeof(*note) + 8);
        if (note->n_type == NT_PRSTATUS) {
            const struct user_regs_struct *regs = (const void *)&status->pr_reg;
            CHECK(regs->rip == RIP && status->pr_pid == 1);
            found++;
        }
        at += sizeof(*note) + 8 + note->n_descsz;
    }
    CHECK(at == end && found == 1);
}

static void check_core(bool filled)
{
    static struct core core;
    char why[CLEAVE_MESSAGE_SIZE];
    memset(&core, 0, sizeof(core));
    file_size = 0;
    CHECK(core_plan(&core, NULL, 5, "made-up", NULL, why) == 0);
    CHECK(core_write(&core, sink, NULL) == 0);
    CHECK(file_size == core.size && (core.slack != 0) == filled);
    printf("%u pieces, %u views, %zu bytes\n", core.pieces, core.views, file_size);
    for (uint64_t page = 0; page < PAGES + 2; page++) {
        check_page(page * PAGE, page, filled);
    }
    for (uint64_t page = 0; page < 512; page++) { /* a large page, and small ones in reverse */
        check_page(KERNEL + (16 << 20) + page * PAGE, 512 + page, filled);
        check_page(KERNEL + (18 << 20) + page * PAGE, 2000 - page, filled);
    }
    CHECK(segment_at(KERNEL) == NULL && segment_at(KERNEL + (20 << 20)) == NULL);
    check_notes();
    core_free(&core);
}

/* --- Cases ------------------------------------------------------------------------------------ */

/* Runs of pages alike, of 1 to `longest`. */
static void make_pages(unsigned longest)
{
    for (unsigned page = 0; page < PAGES;) {
        unsigned run = 1 + (unsigned)rand() % longest, what = (unsigned)rand() % 3;
        for (; run > 0 && page < PAGES; run--) {
            kind[page++] = (unsigned char)what;
        }
    }
    memset(kind, TOUCHED, 4);
    tables[0][511] = 1 * PAGE | 1;
    tables[1][510] = 2 * PAGE | 1;
    tables[2][8] = (2 << 20) | 0x81;
    tables[2][9] = 3 * PAGE | 1;
    for (uint64_t i = 0; i < 512; i++) {
        tables[3][i] = (2000 - i) * PAGE | 1;
    }
}

int main(void)
{
    srand(1);
    file = malloc(FILE_MAX);
    make_pages(200);
    check_core(false);
    make_pages(2); /* more than 4096 pieces */
    check_core(true);
    large = true; /* memory begins and ends within an entry */
    for (unsigned page = 4; page < PAGES; page++) {
        kind[page] = page < 3000 || page > 7777 ? UNTOUCHED : NOTHING;
    }
    check_core(false);
    free(file);
    return wrong != 0;
}
