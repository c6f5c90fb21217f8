/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What boot loaders leave, well-formed and not, and the sets of ranges made from it. Memory is a
 * buffer of exactly its size, so that the sanitizer sees each byte read past it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../hv/x86/boot/multiboot.h"
#include "../../hv/x86/boot/ranges.h"
#include "test.h"

enum { SIZE = 1024, MB1 = 0x2badb002, MB2 = 0x36d76289 };

/* Bytes being written one after the other. */
static unsigned char *memory;
static size_t at;

static void begin(size_t start)
{
    memory = calloc(1, SIZE);
    at = start;
}
static void put(uint64_t value, unsigned bytes)
{
    memcpy(memory + at, &value, bytes);
    at += bytes;
}
static void put_words(const uint32_t *words, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        put(words[i], 4);
    }
}
#define PUT(...)                                                                                   \
    put_words((const uint32_t[]){__VA_ARGS__},                                                     \
              sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))
static void put_text(const char *text)
{
    size_t bytes = strlen(text) + 1;
    memcpy(memory + at, text, bytes);
    at += bytes;
}

/* At 0: flags for command line, modules, map and loader name. */
static void make_mb1(const char *loader)
{
    begin(0);
    PUT(1 << 2 | 1 << 3 | 1 << 6 | 1 << 9, 0, 0, 0, 300, 1, 400, 0, 0, 0, 0, 48, 200, 0, 0, 0, 500);
    at = 200;
    PUT(20, 0, 0, 0x9f000, 0, 1);
    PUT(20, 0x100000, 0, 0x700000, 2, 7);
    at = 300;
    put_text("/a/image some words");
    at = 400;
    PUT(0x200000, 0x200123, 416, 0);
    put_text("/b/init one two");
    at = 500;
    put_text(loader);
}

/* At 8, with `map_entry` bytes for an entry of the map. */
static void make_mb2(uint32_t map_entry)
{
    begin(8);
    PUT(0, 0);
    PUT(1, 8 + 11);
    put_text("some words");
    at = (at + 7) & ~(size_t)7;
    PUT(3, 16 + 9, 0x200000, 0x200123);
    put_text("init one");
    at = (at + 7) & ~(size_t)7;
    PUT(14, 8 + 20);
    put_text("RSD PTR old");
    at = (at - 12 + 20 + 7) & ~(size_t)7;
    PUT(6, 16 + 2 * map_entry, map_entry, 0);
    for (uint32_t i = 0; i < 2; i++) {
        size_t start = at;
        put(i * 0x100000, 8), put(0x9f000, 8), put(i + 1, 8);
        at = start + map_entry;
    }
    at = (at + 7) & ~(size_t)7;
    PUT(0, 8);
    uint32_t total = (uint32_t)at - 8;
    memcpy(memory + 8, &total, 4);
}

static struct multiboot out;

static const char *parse(uint32_t magic, uint64_t info)
{
    const char *wrong = multiboot_parse(memory, SIZE, magic, info, &out);
    return wrong ? wrong : "";
}

static void check_text(const char *is, const char *wanted)
{
    if (strcmp(is, wanted) != 0) {
        printf("\"%s\" instead of \"%s\"\n", is, wanted);
    }
    CHECK_EQ(strcmp(is, wanted), 0);
}

TEST(reads_multiboot1)
{
    make_mb1("qemu");
    check_text(parse(MB1, 0), "");
    check_text(out.loader, "multiboot1");
    check_text(out.command_line, "some words"); /* QEMU puts the file's name in front */
    CHECK_EQ(out.entries, 2);
    CHECK_EQ(out.entry[0].start, 0);
    CHECK_EQ(out.entry[0].bytes, 0x9f000);
    CHECK_EQ(out.entry[0].type, 1);
    CHECK_EQ(out.entry[1].start, 0x100000);
    CHECK_EQ(out.entry[1].bytes, UINT64_C(0x200700000));
    CHECK_EQ(out.entry[1].type, 7);
    CHECK_EQ(out.modules, 1);
    CHECK_EQ(out.module[0].start, 0x200000);
    CHECK_EQ(out.module[0].end, 0x200123);
    check_text(out.module[0].text, "/b/init one two");
    free(memory);
    make_mb1("GRUB 2.06");
    check_text(parse(MB1, 0), "");
    check_text(out.command_line, "/a/image some words");
    free(memory);
}

TEST(reads_multiboot2)
{
    for (uint32_t entry = 24; entry <= 40; entry += 8) {
        make_mb2(entry);
        check_text(parse(MB2, 8), "");
        check_text(out.loader, "multiboot2");
        check_text(out.command_line, "some words");
        CHECK_EQ(out.entries, 2);
        CHECK_EQ(out.entry[1].start, 0x100000);
        CHECK_EQ(out.entry[1].bytes, 0x9f000);
        CHECK_EQ(out.entry[1].type, 2);
        CHECK_EQ(out.modules, 1);
        CHECK_EQ(out.module[0].end, 0x200123);
        check_text(out.module[0].text, "init one");
        CHECK_EQ(memcmp(out.rsdp, "RSD PTR old", 11), 0);
        free(memory);
    }
}

static const struct wrong_case {
    const char *label;
    uint32_t magic;
    uint64_t offset; /* a 32-bit word of the information is changed to `value` */
    uint32_t value;
    const char *says;
} wrong[] = {
    {"loader", 0x1badb002, 0, 0, "this is no multiboot loader"},
    {"mb1-no-map", MB1, 0, 0, "there is no memory map"},
    {"mb1-map-address", MB1, 48, SIZE - 47, "memory map lies out of reach"},
    {"mb1-map-wraps", MB1, 48, UINT32_MAX, "memory map lies out of reach"},
    {"mb1-map-length", MB1, 44, UINT32_MAX, "memory map lies out of reach"},
    {"mb1-map-cut", MB1, 44, 47, "memory map has an entry of a wrong size"},
    {"mb1-entry-short", MB1, 200, 19, "memory map has an entry of a wrong size"},
    {"mb1-entry-zero", MB1, 200, 0, "memory map has an entry of a wrong size"},
    {"mb1-entry-long", MB1, 200, UINT32_MAX, "memory map has an entry of a wrong size"},
    {"mb1-modules", MB1, 20, UINT32_MAX, "list of modules lies out of reach"},
    {"mb1-module-address", MB1, 24, SIZE - 15, "list of modules lies out of reach"},
    {"mb1-text-address", MB1, 408, UINT32_MAX, ""},
    {"mb2-total-long", MB2, 8, SIZE, "information lies out of reach"},
    {"mb2-total-zero", MB2, 8, 0, "information lies out of reach"},
    {"mb2-no-tags", MB2, 8, 8, "tags do not end"},
    {"mb2-cut", MB2, 8, 50, "a tag has a wrong size"},
    {"mb2-tag-zero", MB2, 20, 0, "a tag has a wrong size"},
    {"mb2-tag-long", MB2, 20, UINT32_MAX, "a tag has a wrong size"},
    {"mb2-module-short", MB2, 44, 15, "a module's tag is too short"},
    {"mb2-map-short", MB2, 108, 15, "memory map has entries of a wrong size"},
    {"mb2-entry-zero", MB2, 112, 0, "memory map has entries of a wrong size"},
    {"mb2-entry-short", MB2, 112, 23, "memory map has entries of a wrong size"},
    {"mb2-entry-long", MB2, 112, UINT32_MAX, "there is no memory map"},
};

TEST_TABLE(refuses, wrong)
{
    if (row->magic == MB2) {
        make_mb2(24);
    } else {
        make_mb1("qemu");
    }
    memcpy(memory + row->offset, &row->value, 4);
    check_text(parse(row->magic, row->magic == MB2 ? 8 : 0), row->says);
    free(memory);
}

TEST(information_at_the_end_of_memory)
{
    make_mb1("qemu");
    check_text(parse(MB1, SIZE - 87), "information lies out of reach");
    check_text(parse(MB1, UINT64_MAX), "information lies out of reach");
    check_text(parse(MB2, SIZE - 7), "information lies out of reach");
    check_text(parse(MB2, SIZE), "information lies out of reach");
    memset(memory, 'x', SIZE); /* a text without an end */
    uint32_t flags = 1 << 2 | 1 << 6, text = SIZE - 100, length = 0;
    memcpy(memory, &flags, 4), memcpy(memory + 16, &text, 4), memcpy(memory + 44, &length, 4);
    memset(memory + 48, 0, 4);
    check_text(parse(MB1, 0), "");
    CHECK_EQ(strlen(out.command_line), 100);
    free(memory);
}

/* Whatever it reads, it reads inside and comes to an end, and its counts are within its arrays. */
TEST(random_bytes)
{
    uint64_t seed = test_seed();
    for (uint64_t i = 0; i < test_steps(20000); i++) {
        bool second = test_random(&seed) % 2;
        if (second) {
            make_mb2(24);
        } else {
            make_mb1("qemu");
        }
        for (uint64_t n = test_random(&seed) % 8; n > 0; n--) {
            memory[test_random(&seed) % 256 + (test_random(&seed) % 2 ? 0 : 256)] =
                (unsigned char)(test_random(&seed) % 3 ? test_random(&seed) % 32
                                                       : test_random(&seed));
        }
        parse(second ? MB2 : MB1, second ? 8 : 0);
        CHECK(out.entries <= MULTIBOOT_ENTRIES_MAX && out.modules <= MULTIBOOT_MODULES_MAX);
        CHECK(memchr(out.command_line, 0, sizeof(out.command_line)) != NULL);
        free(memory);
    }
}

/* --- Ranges ----------------------------------------------------------------------------------- */

enum { BYTES = 512 };

/* The same set as one flag per byte. */
static void check_ranges(const struct ranges *set, const bool *in)
{
    uint64_t next = 0, count = 0;
    for (unsigned i = 0; i < *set->count; i++) {
        CHECK(set->range[i].start < set->range[i].end);
        CHECK(i == 0 || set->range[i - 1].end < set->range[i].start);
        for (; next < set->range[i].start; next++) {
            CHECK(!in[next]);
        }
        for (; next < set->range[i].end; next++, count++) {
            CHECK(in[next]);
        }
    }
    for (; next < BYTES; next++) {
        CHECK(!in[next]);
    }
    CHECK_EQ(ranges_bytes(set->range, *set->count), count);
}

TEST(ranges_beside_flags)
{
    uint64_t seed = test_seed();
    for (uint64_t round = 0; round < test_steps(50); round++) {
        struct boot_range range[BOOT_RANGES_MAX];
        unsigned count = 0;
        struct ranges set = {range, &count, 0};
        bool in[BYTES] = {false};
        for (unsigned step = 0; step < 100 && count < BOOT_RANGES_MAX; step++) {
            uint64_t start = test_random(&seed) % BYTES, bytes = test_random(&seed) % 24;
            uint64_t end = start + bytes < BYTES ? start + bytes : BYTES;
            bool add = test_random(&seed) % 2;
            if (add) {
                ranges_add(&set, start, end);
            } else {
                ranges_remove(&set, start, end);
            }
            memset(in + start, add, end - start);
            check_ranges(&set, in);
            CHECK_EQ(set.lost, 0);
        }
    }
}

TEST(ranges_without_room)
{
    struct boot_range range[BOOT_RANGES_MAX];
    unsigned count = 0;
    struct ranges set = {range, &count, 0};
    for (uint64_t i = 0; i < BOOT_RANGES_MAX; i++) {
        ranges_add(&set, i * 100, i * 100 + 50);
    }
    ranges_add(&set, 60, 70);
    CHECK_EQ(set.lost, 10);
    CHECK_EQ(count, BOOT_RANGES_MAX);
    /* What is taken out goes, and the smaller half with it. */
    ranges_remove(&set, 110, 120);
    CHECK_EQ(range[1].start, 120);
    CHECK_EQ(range[1].end, 150);
    ranges_remove(&set, 230, 240);
    CHECK_EQ(range[2].start, 200);
    CHECK_EQ(range[2].end, 230);
    CHECK_EQ(set.lost, 30);
    CHECK(ranges_hold(range, count, 200, 230));
    CHECK(!ranges_hold(range, count, 200, 231));
    CHECK(!ranges_hold(range, count, 200, 200));
    ranges_add(&set, 0, 100 * BOOT_RANGES_MAX);
    CHECK_EQ(count, 1);
    CHECK_EQ(range[0].end, 100 * BOOT_RANGES_MAX);
}
