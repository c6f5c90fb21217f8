/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Cores (tools/cleave/core.c) of domains that this program makes up: pages that were touched, never
 * touched, and are not there, in random order, more pieces than a core can have; page tables of a
 * kernel, and its VMCOREINFO among what only looks like it. Every page is looked up in what is
 * written.
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
#define IDT UINT64_C(0xfffffe0000000000)
#define GS UINT64_C(0xffff88800b800000)
#define RIP UINT64_C(0xffffffff81000123)

#define DIRECT UINT64_C(0xffff888000000000) /* all memory */
#define POINTERS 1999u                      /* of the kernel's image */
#define INFO 6000u                          /* and INFO + 1 */
#define DECOYS 6010u
#define INFO_SIZE 4096u

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

/* What stands at `offset` behind the head of a VMCOREINFO. */
static unsigned char text_of(size_t offset)
{
    static const char text[] = "OSRELEASE=6.1.0-made-up\nPAGESIZE=4096\n";
    return (unsigned char)text[offset % (sizeof(text) - 1)];
}

/* `before`: bytes of it that lie in the page before. */
static void fill_info(unsigned char *to, uint32_t type, const char *name, uint32_t size,
                      size_t before)
{
    const Elf64_Nhdr head = {11, size, type};
    size_t at = 0;
    if (before == 0) {
        memcpy(to, &head, sizeof(head));
        memcpy(to + sizeof(head), name, head.n_namesz);
        at = before = sizeof(head) + 12;
    }
    for (; at < PAGE; at++, before++) {
        to[at] = text_of(before - sizeof(head) - 12);
    }
}

static void fill(uint64_t page, unsigned char *to)
{
    static const uint64_t pointers[] = {DIRECT + PAGES * PAGE,        DIRECT + (DECOYS << 12),
                                        DIRECT + (DECOYS + 1) * PAGE, DIRECT + (DECOYS + 2) * PAGE,
                                        UINT64_C(0xffffa00000000000), DIRECT + INFO * PAGE + 8,
                                        DIRECT + INFO * PAGE};
    uint64_t word = word_of(page);
    memset(to, 0, PAGE);
    if (page < 4) {
        memcpy(to, tables[page], PAGE);
    } else if (kind_of(page) == TOUCHED && page == POINTERS) {
        memcpy(to + 4000, pointers, sizeof(pointers));
    } else if (kind_of(page) == TOUCHED && (page == INFO || page == INFO + 1)) {
        fill_info(to, 0, "VMCOREINFO", INFO_SIZE, (page - INFO) * PAGE);
    } else if (kind_of(page) == TOUCHED && page == DECOYS) {
        fill_info(to, 1, "VMCOREINFO", INFO_SIZE, 0);
    } else if (kind_of(page) == TOUCHED && page == DECOYS + 1) {
        fill_info(to, 0, "VMCOREINFO", INFO_SIZE + 1, 0);
    } else if (kind_of(page) == TOUCHED && page == DECOYS + 2) {
        fill_info(to, 0, "VMCOREINFX", INFO_SIZE, 0);
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
                 .cpu = {.rip = RIP,
                         .cr0 = 0x80000001,
                         .cr4 = 0x20,
                         .msr_efer = 0x500,
                         .cs_sel = 0x10,
                         .cs_arbytes = 0xa9b,
                         .idtr_base = IDT,
                         .shadow_gs = GS}};
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
    CHECK(p->p_paddr + offset == page * PAGE && p->p_offset % PAGE == 0 && p->p_align == 0);
    CHECK(kind_of(page) != TOUCHED || offset < p->p_filesz);
    fill(page, expected);
    if (offset < p->p_filesz) {
        CHECK(p->p_offset + offset + PAGE <= file_size);
        CHECK(memcmp(file + p->p_offset + offset, expected, PAGE) == 0);
    }
}

static void check_info(const unsigned char *text, size_t size)
{
    CHECK(size == INFO_SIZE);
    for (size_t i = 0; i < size; i++) {
        CHECK(text[i] == text_of(i));
    }
}

/* Of QEMU's record: its head, RIP, the code segment, the interrupt table, CR0, CR4, the other GS.
 */
static void check_qemu(const unsigned char *record, size_t size)
{
    const struct {
        unsigned at;
        uint64_t word;
    } expected[] = {{0, UINT64_C(440) << 32 | 1},
                    {136, RIP},
                    {152, 0x10},
                    {160, 0xa09b00},
                    {384, IDT},
                    {392, 0x80000001},
                    {424, 0x20},
                    {432, GS}};
    uint64_t word;
    CHECK(size == 440);
    for (unsigned i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        memcpy(&word, record + expected[i].at, sizeof(word));
        CHECK(word == expected[i].word);
    }
}

static void check_notes(void)
{
    const Elf64_Phdr *notes = (const void *)(file + sizeof(Elf64_Ehdr));
    const unsigned char *at = file + notes->p_offset, *end = at + notes->p_filesz;
    unsigned found = 0, infos = 0, records = 0;
    CHECK(notes->p_type == PT_NOTE && notes->p_offset + notes->p_filesz <= file_size);
    while (at < end) {
        const Elf64_Nhdr *note = (const void *)at;
        const char *name = (const char *)(at + sizeof(*note));
        const unsigned char *body = at + sizeof(*note) + (note->n_namesz + 3) / 4 * 4;
        CHECK(strlen(name) + 1 == note->n_namesz);
        if (strcmp(name, "CORE") == 0 && note->n_type == NT_PRSTATUS) {
            const struct elf_prstatus *status = (const void *)body;
            const struct user_regs_struct *regs = (const void *)&status->pr_reg;
            CHECK(regs->rip == RIP && status->pr_pid == 1);
            found++;
        }
        if (strcmp(name, "QEMU") == 0) {
            check_qemu(body, note->n_descsz);
            records++;
        }
        if (strcmp(name, "VMCOREINFO") == 0) {
            check_info(body, note->n_descsz);
            infos++;
        }
        at = body + (note->n_descsz + 3) / 4 * 4;
    }
    CHECK(at == end && found == 1 && records == 1);
    CHECK(infos == (kind[POINTERS] == TOUCHED ? 1 : 0));
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
    kind[POINTERS] = kind[INFO] = kind[INFO + 1] = TOUCHED;
    memset(kind + DECOYS, TOUCHED, 3);
    tables[0][511] = 1 * PAGE | 1;
    tables[0][DIRECT >> 39 & 511] = 1 * PAGE | 1;
    tables[1][0] = 0x1081; /* 1 GiB; bit 12 is none of the address */
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
