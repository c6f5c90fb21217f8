/* SPDX-License-Identifier: BSD-2-Clause */
#include "causes.h"

#include "hypercall.h"

#include <cleave/identity.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGES (UINT64_C(1) << 20) /* looked at: the first 4 GiB */
#define PAGE 4096u
#define ENTRIES 512u
#define WINDOW 8u /* pages from the identity page on that are the hypervisor's */

/* What a page is; the first that fits. */
enum cause { OTHERS, PV, TABLE, STACK, IMAGE, SLAB, USER, FREE, CAUSES };
static const char *const names[CAUSES] = {
    [OTHERS] = "kernel_other", [PV] = "pv",     [TABLE] = "page_tables", [STACK] = "stacks",
    [IMAGE] = "kernel_image",  [SLAB] = "slab", [USER] = "user",         [FREE] = "free"};

static uint64_t own[PAGES / 64];
static uint8_t cause[PAGES]; /* enum cause; OTHERS: not known yet */

static bool is_own(uint64_t page) { return page < PAGES && (own[page / 64] >> page % 64 & 1) != 0; }

static void is(uint64_t page, enum cause what)
{
    if (page < PAGES && cause[page] == OTHERS) {
        cause[page] = (uint8_t)what;
    }
}

static FILE *book(const char *path)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        fail("%s: %s", path, strerror(errno));
    }
    return file;
}

/* --- Which pages are its own ------------------------------------------------------------------ */

static void note_range(uint64_t page, uint64_t end)
{
    while (page < end && page < PAGES) {
        struct cleave_lookup *lookup = shared_memory();
        *lookup = (struct cleave_lookup){.domain = CLEAVE_DOMAIN_SELF, .at = page * PAGE};
        must(CLEAVE_OP_LOOKUP, lookup, sizeof(*lookup));
        uint64_t size = UINT64_C(1) << 9 * lookup->order;
        if (lookup->order == 0 && lookup->exclusive && (lookup->rights & 2) != 0) {
            own[page / 64] |= UINT64_C(1) << page % 64;
        }
        page = (page | (size - 1)) + 1;
    }
}

void causes_note(void)
{
    FILE *file = book("/proc/iomem");
    char line[256];
    uint64_t start, last;
    while (fgets(line, sizeof(line), file) != NULL) {
        if (line[0] != ' ' && strstr(line, ": System RAM") != NULL &&
            sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &last) == 2) {
            note_range(start / PAGE, (last + 1) / PAGE);
        }
    }
    fclose(file);
    note_range(CLEAVE_IDENTITY_GPA / PAGE, CLEAVE_IDENTITY_GPA / PAGE + WINDOW);
}

/* --- The kernel's memory (/proc/kcore, an ELF core) ------------------------------------------- */

static int kcore = -1;
static Elf64_Phdr parts[64];
static unsigned part_count;

static void open_kcore(void)
{
    Elf64_Ehdr head;
    kcore = open("/proc/kcore", O_RDONLY | O_CLOEXEC);
    if (kcore < 0 || pread(kcore, &head, sizeof(head), 0) != sizeof(head) ||
        head.e_phnum > sizeof(parts) / sizeof(parts[0]) ||
        pread(kcore, parts, head.e_phnum * sizeof(parts[0]), (off_t)head.e_phoff) !=
            (ssize_t)(head.e_phnum * sizeof(parts[0]))) {
        fail("/proc/kcore: %s", strerror(errno));
    }
    part_count = head.e_phnum;
}

/* At a linear address or, in what is mapped linearly, a physical one. */
static bool read_kernel(uint64_t at, bool physical, void *to, size_t size)
{
    for (unsigned i = 0; i < part_count; i++) {
        uint64_t start = physical ? parts[i].p_paddr : parts[i].p_vaddr;
        if (parts[i].p_type == PT_LOAD && start != UINT64_MAX && at >= start &&
            at - start + size <= parts[i].p_memsz) {
            off_t offset = (off_t)(parts[i].p_offset + (at - start));
            return pread(kcore, to, size, offset) == (ssize_t)size;
        }
    }
    return false;
}

static uint64_t symbol(const char *name)
{
    FILE *file = book("/proc/kallsyms");
    char line[512], found[256];
    uint64_t at = 0, value;
    while (at == 0 && fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "%" SCNx64 " %*c %255s", &value, found) == 2 && strcmp(found, name) == 0) {
            at = value;
        }
    }
    fclose(file);
    if (at == 0) {
        fail("/proc/kallsyms: no %s", name);
    }
    return at;
}

/* --- Page tables (SDM 3A 4.5) ----------------------------------------------------------------- */

#define PRESENT 1u
#define LARGE 0x80u
#define ADDRESS UINT64_C(0x000ffffffffff000)

static uint64_t top[ENTRIES]; /* init_top_pgt */

static bool read_table(uint64_t page, uint64_t *entries)
{
    return read_kernel(page * PAGE, true, entries, PAGE);
}

/* Marks the tables of `level` (3: 512 GiB an entry) and below that the entries from `first` on lead
 * to. */
static void mark_tables(const uint64_t *entries, unsigned first, unsigned level)
{
    uint64_t below[ENTRIES];
    for (unsigned i = first; level > 0 && i < ENTRIES; i++) {
        uint64_t page = (entries[i] & ADDRESS) / PAGE;
        if ((entries[i] & PRESENT) == 0 || (level < 3 && (entries[i] & LARGE) != 0) ||
            page >= PAGES || cause[page] == TABLE || !read_table(page, below)) {
            continue;
        }
        cause[page] = TABLE;
        mark_tables(below, 0, level - 1);
    }
}

/* The physical page of a linear address of the kernel's, UINT64_MAX: none. */
static uint64_t page_of(uint64_t linear)
{
    uint64_t entries[ENTRIES], entry = top[linear >> 39 & 511];
    for (unsigned level = 3; (entry & PRESENT) != 0; level--) {
        uint64_t page = (entry & ADDRESS) / PAGE;
        if (level == 0) {
            return page;
        }
        if (level < 3 && (entry & LARGE) != 0) {
            uint64_t size = UINT64_C(1) << 9 * level;
            return (page & ~(size - 1)) + (linear / PAGE & (size - 1));
        }
        if (!read_table(page, entries)) {
            break;
        }
        entry = entries[linear >> (12 + 9 * (level - 1)) & 511];
    }
    return UINT64_MAX;
}

/* A process's top table has the kernel's half of init_top_pgt. */
static void find_tables(uint64_t top_page)
{
    uint64_t entries[ENTRIES];
    is(top_page, TABLE);
    mark_tables(top, 0, 3);
    for (uint64_t page = 0; page < PAGES; page++) {
        if (is_own(page) && cause[page] == OTHERS && read_table(page, entries) &&
            memcmp(entries + ENTRIES / 2, top + ENTRIES / 2, PAGE / 2) == 0) {
            cause[page] = TABLE;
            mark_tables(entries, 0, 3);
        }
    }
}

/* --- Stacks, and all else --------------------------------------------------------------------- */

static void find_stacks(void)
{
    FILE *file = book("/proc/vmallocinfo");
    char line[512];
    uint64_t start, end, at = symbol("init_stack");
    for (unsigned i = 0; i < 4; i++) {
        is(page_of(at + i * PAGE), STACK);
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        if ((strstr(line, "dup_task_struct") != NULL || strstr(line, "copy_process") != NULL ||
             strstr(line, "kernel_clone") != NULL || strstr(line, "irqstack") != NULL) &&
            sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &end) == 2) {
            for (at = start; at < end; at += PAGE) {
                is(page_of(at), STACK);
            }
        }
    }
    fclose(file);
}

/* This process's stack: the only one that runs. */
static void find_own_stack(void)
{
    FILE *file = book("/proc/self/maps");
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    char line[512];
    uint64_t start, end, entry;
    while (fgets(line, sizeof(line), file) != NULL) {
        if (strstr(line, "[stack]") != NULL &&
            sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &end) == 2) {
            for (uint64_t at = start / PAGE; at < end / PAGE; at++) {
                if (pread(pagemap, &entry, sizeof(entry), (off_t)(at * sizeof(entry))) ==
                        sizeof(entry) &&
                    entry >> 63 != 0) { /* present; bits 54:0 are the page's number */
                    is(entry & ((UINT64_C(1) << 55) - 1), STACK);
                }
            }
        }
    }
    close(pagemap);
    fclose(file);
}

static void find_image(void)
{
    FILE *file = book("/proc/iomem");
    char line[256];
    uint64_t start, last;
    while (fgets(line, sizeof(line), file) != NULL) {
        if (strstr(line, ": Kernel ") != NULL &&
            sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &last) == 2) {
            for (uint64_t page = start / PAGE; page <= last / PAGE; page++) {
                is(page, IMAGE);
            }
        }
    }
    fclose(file);
}

/* The kernel's Documentation/admin-guide/mm/pagemap.rst */
enum { KPF_LRU = 5, KPF_SLAB = 7, KPF_BUDDY = 10, KPF_MMAP = 11, KPF_ANON = 12, KPF_PGTABLE = 26 };

static void find_by_flags(void)
{
    int file = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
    uint64_t flags;
    for (uint64_t page = 0; page < PAGES; page++) {
        if (!is_own(page) ||
            pread(file, &flags, sizeof(flags), (off_t)(page * sizeof(flags))) != sizeof(flags)) {
            continue;
        }
        if ((flags >> KPF_PGTABLE & 1) != 0) {
            is(page, TABLE);
        } else if ((flags >> KPF_SLAB & 1) != 0) {
            is(page, SLAB);
        } else if ((flags >> KPF_BUDDY & 1) != 0) {
            is(page, FREE);
        } else if ((flags & (1u << KPF_LRU | 1u << KPF_MMAP | 1u << KPF_ANON)) != 0) {
            is(page, USER);
        }
    }
    close(file);
}

void causes_print(void)
{
    unsigned counts[CAUSES] = {0};
    uint64_t shared_info;
    uint64_t at = symbol("init_top_pgt");

    open_kcore();
    if (!read_kernel(at, false, top, sizeof(top)) ||
        !read_kernel(symbol("HYPERVISOR_shared_info"), false, &shared_info, sizeof(shared_info))) {
        fail("/proc/kcore: %s", strerror(errno));
    }
    is(page_of(shared_info), PV);
    for (unsigned i = 0; i < WINDOW; i++) {
        is(CLEAVE_IDENTITY_GPA / PAGE + i, PV);
    }
    find_tables(page_of(at));
    find_own_stack();
    find_stacks();
    find_by_flags();
    find_image();
    for (uint64_t page = 0; page < PAGES; page++) {
        counts[cause[page]] += is_own(page);
    }
    for (unsigned i = 0; i < CAUSES; i++) {
        printf("causes.%s %u\n", names[i], counts[i]);
    }
}
