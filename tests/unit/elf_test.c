/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Headers of ELF kernels, well-formed and not. A file is a buffer of exactly its size, so that the
 * sanitizer sees each byte read past it.
 */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../hv/kernel/elf.h"
#include "test.h"

/* A kernel of two segments and a note, with this layout of the file. */
enum {
    PROGRAMS = 64,
    NOTES = PROGRAMS + 3 * 56,
    BYTES = NOTES + 48,
    SIZE = BYTES + 32,
    MEMORY = 1 << 24,
    ENTRY = 0x200010
};
static union {
    struct {
        Elf64_Ehdr header;
        Elf64_Phdr program[3];
        uint32_t note[12];
        unsigned char bytes[32];
    };
    unsigned char all[SIZE];
} good;
_Static_assert(sizeof(good) == SIZE, "without padding");

static struct elf_kernel kernel;

static void make_good(void)
{
    memset(&good, 0, sizeof(good));
    memcpy(good.header.e_ident,
           "\x7f"
           "ELF\x02\x01\x01",
           7);
    good.header.e_type = ET_EXEC;
    good.header.e_machine = EM_X86_64;
    good.header.e_phoff = PROGRAMS;
    good.header.e_phentsize = 56;
    good.header.e_phnum = 3;
    good.program[0] = (Elf64_Phdr){.p_type = PT_LOAD,
                                   .p_offset = BYTES,
                                   .p_vaddr = 0xffffffff80200000,
                                   .p_paddr = 0x200000,
                                   .p_filesz = 32,
                                   .p_memsz = 0x1000};
    good.program[1] = (Elf64_Phdr){.p_type = PT_LOAD,
                                   .p_offset = BYTES + 8,
                                   .p_paddr = 0x201000,
                                   .p_filesz = 0,
                                   .p_memsz = 0x2000};
    good.program[2] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = NOTES, .p_filesz = 48};
    /* One that is another's, with a name and a description to be padded; then the entry. */
    const uint32_t note[12] = {3, 2, 18, 0x006e6558, 0xbeef, 4, 8, 18, 0x006e6558, ENTRY, 0, 0};
    memcpy(good.note, note, sizeof(note));
    good.program[2].p_filesz = 44;
}

static const char *read_bytes(const void *bytes, size_t size, uint64_t memory)
{
    void *copy = malloc(size);
    memcpy(copy, bytes, size);
    memset(&kernel, 0xa5, sizeof(kernel));
    const char *says = elf_read(copy, size, memory, &kernel);
    free(copy);
    return says ? says : "";
}
static const char *read_good(void) { return read_bytes(&good, SIZE, MEMORY); }

static void check_text(const char *is, const char *wanted)
{
    if (strcmp(is, wanted) != 0) {
        printf("\"%s\" instead of \"%s\"\n", is, wanted);
    }
    CHECK_EQ(strcmp(is, wanted), 0);
}

TEST(reads_every_field)
{
    make_good();
    check_text(read_good(), "");
    CHECK_EQ(kernel.entry, ENTRY);
    REQUIRE_EQ(kernel.segments, 2);
    CHECK_EQ(kernel.segment[0].at, 0x200000);
    CHECK_EQ(kernel.segment[0].offset, BYTES);
    CHECK_EQ(kernel.segment[0].file_size, 32);
    CHECK_EQ(kernel.segment[0].memory_size, 0x1000);
    CHECK_EQ(kernel.segment[1].at, 0x201000);
    CHECK_EQ(kernel.segment[1].file_size, 0);
    CHECK_EQ(kernel.segment[1].memory_size, 0x2000);
}

/* The word of `bytes` bytes at `offset` is changed to `value`. */
static const struct change_case {
    const char *label;
    uint64_t offset, value;
    unsigned bytes;
    const char *says;
} changes[] = {
#define HEADER(field) offsetof(Elf64_Ehdr, field)
#define PROGRAM(n, field) (PROGRAMS + 56 * (n) + offsetof(Elf64_Phdr, field))
#define NOTE(n) (NOTES + 4 * (n))
    {"magic", 0, 0x7e, 1, "not a 64-bit little-endian ELF file"},
    {"magic-end", 3, 'f', 1, "not a 64-bit little-endian ELF file"},
    {"32-bit", EI_CLASS, ELFCLASS32, 1, "not a 64-bit little-endian ELF file"},
    {"big-endian", EI_DATA, ELFDATA2MSB, 1, "not a 64-bit little-endian ELF file"},
    {"machine", HEADER(e_machine), EM_AARCH64, 2, "not an ELF file for x86-64"},
    {"program-size", HEADER(e_phentsize), 64, 2, "not an ELF file for x86-64"},
    {"programs-offset", HEADER(e_phoff), SIZE - 3 * 56 + 1, 8,
     "its program headers lie outside of the file"},
    {"programs-wrap", HEADER(e_phoff), UINT64_MAX, 8,
     "its program headers lie outside of the file"},
    {"programs-wrap-in", HEADER(e_phoff), -(uint64_t)56, 8,
     "its program headers lie outside of the file"},
    {"programs-many", HEADER(e_phnum), 65535, 2, "its program headers lie outside of the file"},
    {"programs-none", HEADER(e_phnum), 0, 2, "no PVH entry (note Xen, type 18)"},
    {"load-offset", PROGRAM(0, p_offset), BYTES + 1, 8, "a segment lies outside of the file"},
    {"load-offset-wraps", PROGRAM(0, p_offset), -(uint64_t)16, 8,
     "a segment lies outside of the file"},
    {"load-file-size", PROGRAM(0, p_filesz), 33, 8, "a segment lies outside of the file"},
    {"load-file-size-2-64", PROGRAM(0, p_filesz), UINT64_MAX, 8,
     "a segment lies outside of the file"},
    {"load-file-above-memory", PROGRAM(0, p_memsz), 31, 8, "a segment lies outside of the file"},
    {"load-file-as-memory", PROGRAM(0, p_memsz), 32, 8, ""},
    {"load-empty", PROGRAM(0, p_memsz), 0, 8, "its entry lies in no segment"},
    {"load-memory-size", PROGRAM(1, p_memsz), MEMORY - 0x201000 + 1, 8,
     "a segment lies outside of the guest's memory"},
    {"load-memory-all", PROGRAM(1, p_memsz), MEMORY - 0x201000, 8, ""},
    {"load-memory-2-64", PROGRAM(1, p_memsz), UINT64_MAX, 8,
     "a segment lies outside of the guest's memory"},
    {"load-memory-wraps", PROGRAM(1, p_memsz), -(uint64_t)0x201000, 8,
     "a segment lies outside of the guest's memory"},
    {"load-address", PROGRAM(1, p_paddr), MEMORY + 1, 8,
     "a segment lies outside of the guest's memory"},
    {"load-address-end", PROGRAM(1, p_paddr), MEMORY, 8,
     "a segment lies outside of the guest's memory"},
    {"load-address-2-64", PROGRAM(1, p_paddr), UINT64_MAX, 8,
     "a segment lies outside of the guest's memory"},
    {"load-address-wraps", PROGRAM(1, p_paddr), -(uint64_t)0x2000, 8,
     "a segment lies outside of the guest's memory"},
    {"overlap-end", PROGRAM(1, p_paddr), 0x200fff, 8, "two segments overlap"},
    {"overlap-start", PROGRAM(1, p_paddr), 0x1fe001, 8, "two segments overlap"},
    {"overlap-none-before", PROGRAM(1, p_paddr), 0x1fe000, 8, ""},
    {"overlap-same", PROGRAM(1, p_paddr), 0x200000, 8, "two segments overlap"},
    {"overlap-inside", PROGRAM(0, p_memsz), 0x100000, 8, "two segments overlap"},
    {"notes-offset", PROGRAM(2, p_offset), SIZE - 43, 8, "its notes lie outside of the file"},
    {"notes-offset-2-64", PROGRAM(2, p_offset), UINT64_MAX, 8, "its notes lie outside of the file"},
    {"notes-size-2-64", PROGRAM(2, p_filesz), UINT64_MAX, 8, "its notes lie outside of the file"},
    {"notes-none", PROGRAM(2, p_type), PT_NULL, 4, "no PVH entry (note Xen, type 18)"},
    {"notes-empty", PROGRAM(2, p_filesz), 0, 8, "no PVH entry (note Xen, type 18)"},
    {"notes-cut", PROGRAM(2, p_filesz), 43, 8, "no PVH entry (note Xen, type 18)"},
    {"notes-cut-head", PROGRAM(2, p_filesz), 31, 8, "no PVH entry (note Xen, type 18)"},
    {"other-name-long", NOTE(0), UINT32_MAX, 4, "no PVH entry (note Xen, type 18)"},
    {"other-name-longer", NOTE(0), UINT32_MAX - 3, 4, "no PVH entry (note Xen, type 18)"},
    {"other-description", NOTE(1), UINT32_MAX, 4, "no PVH entry (note Xen, type 18)"},
    {"other-description-longer", NOTE(1), 6, 4, "no PVH entry (note Xen, type 18)"},
    {"name-size", NOTE(5), 3, 4, "no PVH entry (note Xen, type 18)"},
    {"name-longer", NOTE(5), 5, 4, "no PVH entry (note Xen, type 18)"},
    {"name", NOTE(8), 0x006e6559, 4, "no PVH entry (note Xen, type 18)"},
    {"name-end", NOTE(8), 0x016e6558, 4, "no PVH entry (note Xen, type 18)"},
    {"type", NOTE(7), 17, 4, "no PVH entry (note Xen, type 18)"},
    {"description-4", NOTE(6), 4, 4, ""},
    {"description-0", NOTE(6), 0, 4, "no PVH entry (note Xen, type 18)"},
    {"description-7", NOTE(6), 7, 4, "no PVH entry (note Xen, type 18)"},
    {"description-16", NOTE(6), 16, 4, "no PVH entry (note Xen, type 18)"},
    {"entry-above-4g", NOTE(10), 1, 4, "no PVH entry (note Xen, type 18)"},
    {"entry-before", NOTE(9), 0x1fffff, 4, "its entry lies in no segment"},
    {"entry-first", NOTE(9), 0x200000, 4, ""},
    {"entry-last", NOTE(9), 0x202fff, 4, ""},
    {"entry-behind", NOTE(9), 0x203000, 4, "its entry lies in no segment"},
    {"entry-4g", NOTE(9), UINT32_MAX, 4, "its entry lies in no segment"},
};

TEST_TABLE(with_one_change, changes)
{
    make_good();
    memcpy(good.all + row->offset, &row->value, row->bytes);
    check_text(read_good(), row->says);
}

TEST(segments_up_to_the_limit)
{
    for (unsigned count = ELF_SEGMENTS_MAX; count <= ELF_SEGMENTS_MAX + 1; count++) {
        size_t size = SIZE + count * 56;
        unsigned char *file = calloc(1, size);
        make_good();
        good.header.e_phoff = SIZE;
        good.header.e_phnum = (uint16_t)count;
        good.program[0].p_filesz = good.program[0].p_offset = 0;
        memcpy(file, &good, SIZE);
        for (unsigned i = 0; i < count; i++) { /* the last first, the note behind */
            Elf64_Phdr program = good.program[0];
            program.p_paddr += 0x1000 * (uint64_t)(count - i - 1);
            memcpy(file + SIZE + i * sizeof(program), &program, sizeof(program));
        }
        check_text(read_bytes(file, size, MEMORY), count == ELF_SEGMENTS_MAX
                                                       ? "no PVH entry (note Xen, type 18)"
                                                       : "too many segments");
        CHECK_EQ(kernel.segments, ELF_SEGMENTS_MAX);
        free(file);
    }
}

/* The first entry counts, also of another note segment; segments without memory are no segments. */
TEST(several_notes_and_empty_segments)
{
    make_good();
    good.program[1] = good.program[2];
    good.program[2].p_offset = UINT64_MAX;
    check_text(read_good(), "");
    CHECK_EQ(kernel.entry, ENTRY);
    CHECK_EQ(kernel.segments, 1);
    make_good();
    good.program[1] = (Elf64_Phdr){.p_type = PT_LOAD, .p_offset = UINT64_MAX, .p_paddr = MEMORY};
    check_text(read_good(), "");
    CHECK_EQ(kernel.segments, 1);
}

TEST(guests_of_any_memory)
{
    make_good();
    check_text(read_bytes(&good, SIZE, 0x203000), "");
    check_text(read_bytes(&good, SIZE, 0x202fff), "a segment lies outside of the guest's memory");
    check_text(read_bytes(&good, SIZE, 0), "a segment lies outside of the guest's memory");
    good.program[1].p_paddr = UINT64_MAX - 0x2000;
    check_text(read_bytes(&good, SIZE, UINT64_MAX), "");
    CHECK_EQ(kernel.segment[1].at, UINT64_MAX - 0x2000);
    good.program[1].p_paddr = UINT64_MAX - 0x1fff;
    check_text(read_bytes(&good, SIZE, UINT64_MAX), "a segment lies outside of the guest's memory");
}

/* What a kernel says, the file and the guest's memory have; whatever was read. */
static void check_sound(const char *says, uint64_t size)
{
    CHECK_LE(kernel.segments, ELF_SEGMENTS_MAX);
    bool covered = false;
    for (unsigned i = 0; says[0] == '\0' && i < kernel.segments; i++) {
        const struct elf_segment *s = &kernel.segment[i];
        CHECK(s->offset <= size && s->file_size <= size - s->offset);
        CHECK(s->at <= MEMORY && s->memory_size <= MEMORY - s->at);
        CHECK_LE(s->file_size, s->memory_size);
        covered |= kernel.entry >= s->at && kernel.entry - s->at < s->memory_size;
        for (unsigned j = 0; j < i; j++) {
            const struct elf_segment *t = &kernel.segment[j];
            CHECK(s->at + s->memory_size <= t->at || t->at + t->memory_size <= s->at);
        }
    }
    CHECK(says[0] != '\0' || covered);
}

/* The last byte of the first segment is the file's: no shorter file is good. */
TEST(cut_at_every_byte)
{
    make_good();
    for (size_t size = 0; size < SIZE; size++) {
        test_case("%zu bytes", size);
        const char *says = read_bytes(&good, size, MEMORY);
        check_text(says, size < 64      ? "too small for an ELF file"
                         : size < NOTES ? "its program headers lie outside of the file"
                                        : "a segment lies outside of the file");
    }
    good.program[0].p_filesz = 0;
    good.program[1].p_offset = good.program[0].p_offset = 0;
    for (size_t size = 0; size <= SIZE; size++) {
        test_case("%zu bytes, segments without bytes", size);
        const char *says = read_bytes(&good, size, MEMORY);
        CHECK_EQ(says[0] == '\0', size >= NOTES + 44);
        if (size >= NOTES && size < NOTES + 44) {
            check_text(says, "its notes lie outside of the file");
        }
    }
}

TEST(random_bytes)
{
    uint64_t seed = test_seed();
    unsigned taken = 0;
    for (uint64_t i = 0; i < test_steps(50000); i++) {
        make_good();
        for (uint64_t n = test_random(&seed) % 5; n > 0; n--) {
            uint64_t at = 16 + test_random(&seed) % (BYTES - 24), bits = test_random(&seed) % 64;
            uint64_t value = test_random(&seed) >> bits;
            memcpy(good.all + at, &value, 1 + test_random(&seed) % 8);
        }
        uint64_t size = test_random(&seed) % 4 ? SIZE : test_random(&seed) % (SIZE + 1);
        const char *says = read_bytes(&good, size, MEMORY);
        check_sound(says, size);
        taken += says[0] == '\0';
    }
    CHECK(taken > 0);
}
