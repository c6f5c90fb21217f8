/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * carry out <FILE >PAGES: makes pages of a file, each with its number and how many there are.
 * carry in RAM >FILE: the file again, of the pages that lie anywhere in a machine's memory, which
 *                     its emulator keeps in the file RAM. Each must be there.
 * So a file leaves a machine whose guests have no device. Written pages stay in the file system of
 * a domain that has its files in memory.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MARK "carried by Cleave"
#define PAGE 4096u

struct page {
    char mark[24];
    uint64_t sum, number, size; /* of what follows; of this page; of the file */
    unsigned char bytes[PAGE - 48];
};
_Static_assert(sizeof(struct page) == PAGE, "a page");

/* FNV-1a of 64 bits, by words. */
static uint64_t sum_of(const struct page *page)
{
    const uint64_t *word = &page->number;
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < (PAGE - offsetof(struct page, number)) / 8; i++) {
        sum = (sum ^ word[i]) * UINT64_C(0x100000001b3);
    }
    return sum;
}

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static int carry_out(void)
{
    struct page page = {.mark = MARK};
    struct stat about;
    if (fstat(STDIN_FILENO, &about) != 0 || !S_ISREG(about.st_mode)) {
        return fail("carry: standard input is no file");
    }
    page.size = (uint64_t)about.st_size;
    for (uint64_t done = 0; done < page.size; done += sizeof(page.bytes)) {
        memset(page.bytes, 0, sizeof(page.bytes));
        bool got = fread(page.bytes, 1, sizeof(page.bytes), stdin) != 0;
        page.sum = sum_of(&page);
        if (!got || fwrite(&page, sizeof(page), 1, stdout) != 1) {
            return fail("carry");
        }
        page.number++;
    }
    return fflush(stdout) == 0 ? 0 : fail("carry");
}

/* Pages may be there several times, in buffers on their way, and parts of them. */
static int carry_in(const struct page *ram, uint64_t pages)
{
    uint64_t *found = NULL; /* by the page's number: its place, from 1 on */
    uint64_t size = 0, count = 0;
    for (uint64_t i = 0; i < pages; i++) {
        if (strncmp(ram[i].mark, MARK, sizeof(ram[i].mark)) != 0 || ram[i].sum != sum_of(&ram[i])) {
            continue;
        }
        if (found == NULL) {
            size = ram[i].size;
            count = (size + sizeof(ram->bytes) - 1) / sizeof(ram->bytes);
            found = count <= pages ? calloc(count, sizeof(*found)) : NULL;
        }
        if (found == NULL || ram[i].size != size || ram[i].number >= count) {
            fprintf(stderr, "carry: a page that is none of this file\n");
            return 1;
        }
        found[ram[i].number] = i + 1;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t part = size - i * sizeof(ram->bytes);
        part = part < sizeof(ram->bytes) ? part : sizeof(ram->bytes);
        if (found[i] == 0) {
            fprintf(stderr, "carry: page %llu of %llu is not there\n", (unsigned long long)i,
                    (unsigned long long)count);
            return 1;
        }
        if (fwrite(ram[found[i] - 1].bytes, 1, part, stdout) != part) {
            return fail("carry");
        }
    }
    free(found);
    return count != 0 && fflush(stdout) == 0 ? 0 : fail("carry: nothing");
}

int main(int argc, char **argv)
{
    struct stat about;
    if (argc == 2 && strcmp(argv[1], "out") == 0) {
        return carry_out();
    }
    if (argc != 3 || strcmp(argv[1], "in") != 0) {
        fprintf(stderr, "carry out | carry in RAM\n");
        return 2;
    }
    int fd = open(argv[2], O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &about) != 0) {
        return fail(argv[2]);
    }
    size_t size = (size_t)about.st_size;
    const void *ram = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    return ram != MAP_FAILED ? carry_in(ram, size / PAGE) : fail(argv[2]);
}
