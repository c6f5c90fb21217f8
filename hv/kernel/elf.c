/* SPDX-License-Identifier: BSD-2-Clause */
/* Headers of ELF kernels (System V ABI, chapters 4 and 5); see elf.h. */
#include "elf.h"

#include <stddef.h>

#define NOTE_PHYS32_ENTRY 18u
#define MACHINE_X86_64 62u
#define TYPE_LOAD 1u
#define TYPE_NOTE 4u

struct header {
    unsigned char ident[16];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, program_offset, section_offset;
    uint32_t flags;
    uint16_t size, program_size, programs, section_size, sections, names;
};
struct program {
    uint32_t type, flags;
    uint64_t offset, linear, physical, file_size, memory_size, align;
};
_Static_assert(sizeof(struct header) == 64 && sizeof(struct program) == 56, "as the ABI says");

struct file {
    const unsigned char *bytes;
    uint64_t size;
};

static bool inside(const struct file *file, uint64_t offset, uint64_t size)
{
    return offset <= file->size && size <= file->size - offset;
}

static uint32_t word_at(const struct file *file, uint64_t offset)
{
    uint32_t value;
    __builtin_memcpy(&value, file->bytes + offset, sizeof(value));
    return value;
}

/* Looks for the entry among the notes of one segment, which lies in the file. */
static bool find_entry(const struct file *file, uint64_t at, uint64_t size, uint32_t *entry)
{
    uint64_t end = at + size;
    while (end - at >= 12) {
        uint64_t name = word_at(file, at), description = word_at(file, at + 4);
        uint32_t type = word_at(file, at + 8);
        uint64_t padded = (name + 3) & ~UINT64_C(3);
        uint64_t whole = 12 + padded + ((description + 3) & ~UINT64_C(3));
        if (whole > end - at) {
            return false;
        }
        if (type == NOTE_PHYS32_ENTRY && name == 4 && word_at(file, at + 12) == 0x006e6558 &&
            (description == 4 || description == 8)) { /* "Xen" */
            *entry = word_at(file, at + 12 + padded);
            return description == 4 || word_at(file, at + 12 + padded + 4) == 0;
        }
        at += whole;
    }
    return false;
}

static const char *add_segment(const struct file *file, const struct program *program,
                               uint64_t memory, struct elf_kernel *kernel)
{
    if (program->memory_size == 0) {
        return NULL;
    }
    if (!inside(file, program->offset, program->file_size) ||
        program->file_size > program->memory_size) {
        return "a segment lies outside of the file";
    }
    if (program->physical > memory || program->memory_size > memory - program->physical) {
        return "a segment lies outside of the guest's memory";
    }
    for (unsigned i = 0; i < kernel->segments; i++) {
        const struct elf_segment *other = &kernel->segment[i];
        if (program->physical < other->at + other->memory_size &&
            other->at < program->physical + program->memory_size) {
            return "two segments overlap";
        }
    }
    if (kernel->segments == ELF_SEGMENTS_MAX) {
        return "too many segments";
    }
    kernel->segment[kernel->segments++] = (struct elf_segment){
        program->physical, program->offset, program->file_size, program->memory_size};
    return NULL;
}

const char *elf_read(const void *bytes, uint64_t size, uint64_t memory, struct elf_kernel *kernel)
{
    static const unsigned char ident[6] = {0x7f, 'E', 'L', 'F', 2, 1};
    struct file file = {bytes, size};
    struct header header;
    bool entry = false, covered = false;
    const char *wrong = NULL;

    kernel->segments = kernel->entry = 0;
    if (size < sizeof(header)) {
        return "too small for an ELF file";
    }
    __builtin_memcpy(&header, bytes, sizeof(header));
    for (unsigned i = 0; i < sizeof(ident); i++) {
        if (header.ident[i] != ident[i]) {
            return "not a 64-bit little-endian ELF file";
        }
    }
    if (header.machine != MACHINE_X86_64 || header.program_size != sizeof(struct program)) {
        return "not an ELF file for x86-64";
    }
    if (!inside(&file, header.program_offset, (uint64_t)header.programs * sizeof(struct program))) {
        return "its program headers lie outside of the file";
    }
    for (unsigned i = 0; i < header.programs && wrong == NULL; i++) {
        struct program program;
        __builtin_memcpy(&program, file.bytes + header.program_offset + i * sizeof(program),
                         sizeof(program));
        if (program.type == TYPE_LOAD) {
            wrong = add_segment(&file, &program, memory, kernel);
        } else if (program.type == TYPE_NOTE && !entry) {
            if (!inside(&file, program.offset, program.file_size)) {
                return "its notes lie outside of the file";
            }
            entry = find_entry(&file, program.offset, program.file_size, &kernel->entry);
        }
    }
    for (unsigned i = 0; i < kernel->segments; i++) {
        const struct elf_segment *segment = &kernel->segment[i];
        covered |=
            kernel->entry >= segment->at && kernel->entry - segment->at < segment->memory_size;
    }
    if (wrong == NULL && !entry) {
        wrong = "no PVH entry (note Xen, type 18)";
    }
    return wrong == NULL && !covered ? "its entry lies in no segment" : wrong;
}
