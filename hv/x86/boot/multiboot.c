/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reader of what multiboot 1 (0.6.96, section 3.3) and multiboot 2 (2.0, section 3.6) loaders
 * leave. Each size and address in it is checked before it is used.
 */
#include "multiboot.h"

enum { MB1_MAGIC = 0x2badb002, MB2_MAGIC = 0x36d76289 };
enum { MB1_COMMAND_LINE = 1 << 2, MB1_MODULES = 1 << 3, MB1_MAP = 1 << 6, MB1_LOADER = 1 << 9 };
enum {
    TAG_END = 0,
    TAG_COMMAND_LINE = 1,
    TAG_MODULE = 3,
    TAG_MAP = 6,
    TAG_RSDP = 14,
    TAG_XSDP = 15
};

/* Bytes that may be read. */
struct view {
    const unsigned char *at;
    uint64_t bytes;
};

static bool view_sub(struct view of, uint64_t start, uint64_t bytes, struct view *out)
{
    if (start > of.bytes || bytes > of.bytes - start) {
        return false;
    }
    *out = (struct view){of.at + start, bytes};
    return true;
}

/* Little-endian number at `offset`, which the caller knows to be inside. */
static uint64_t number(struct view view, uint64_t offset, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++) {
        value |= (uint64_t)view.at[offset + i] << (8 * i);
    }
    return value;
}
static uint32_t get32(struct view view, uint64_t offset)
{
    return (uint32_t)number(view, offset, 4);
}

/* Copies a string that ends with its zero, the view or the room. */
static void copy_text(char to[MULTIBOOT_TEXT_MAX], struct view from, uint64_t offset)
{
    unsigned length = 0;
    while (length < MULTIBOOT_TEXT_MAX - 1 && offset + length < from.bytes &&
           from.at[offset + length] != 0) {
        to[length] = (char)from.at[offset + length];
        length++;
    }
    to[length] = 0;
}

static void add_entry(struct multiboot *out, struct view view, uint64_t offset)
{
    if (out->entries == MULTIBOOT_ENTRIES_MAX) {
        out->entries_lost++;
        return;
    }
    out->entry[out->entries].start = number(view, offset, 8);
    out->entry[out->entries].bytes = number(view, offset + 8, 8);
    out->entry[out->entries].type = get32(view, offset + 16);
    out->entries++;
}

static void add_module(struct multiboot *out, uint64_t start, uint64_t end, struct view text,
                       uint64_t offset)
{
    if (out->modules == MULTIBOOT_MODULES_MAX) {
        out->modules_lost++;
        return;
    }
    out->module[out->modules].start = start;
    out->module[out->modules].end = end;
    copy_text(out->module[out->modules].text, text, offset);
    out->modules++;
}

/* --- Multiboot 1 ------------------------------------------------------------------------------ */

/* An entry's first field is its size without that field; it may be longer than we know. */
static const char *mb1_map(struct view memory, uint64_t start, uint64_t bytes,
                           struct multiboot *out)
{
    struct view map;
    if (!view_sub(memory, start, bytes, &map)) {
        return "memory map lies out of reach";
    }
    for (uint64_t at = 0; at < map.bytes;) {
        if (map.bytes - at < 24 || get32(map, at) < 20 || get32(map, at) > map.bytes - at - 4) {
            return "memory map has an entry of a wrong size";
        }
        add_entry(out, map, at + 4);
        at += get32(map, at) + UINT64_C(4);
    }
    return NULL;
}

static const char *mb1_modules(struct view memory, uint64_t start, uint64_t count,
                               struct multiboot *out)
{
    struct view list;
    if (!view_sub(memory, start, count * 16, &list)) {
        return "list of modules lies out of reach";
    }
    for (uint64_t i = 0; i < count; i++) {
        add_module(out, get32(list, i * 16), get32(list, i * 16 + 4), memory,
                   get32(list, i * 16 + 8));
    }
    return NULL;
}

/* QEMU puts the image's file name in front of the command line; GRUB 2 does not. */
static void drop_file_name(char *text)
{
    char *from = text;
    while (*from && *from != ' ') {
        from++;
    }
    while (*from == ' ') {
        from++;
    }
    while ((*text++ = *from++) != 0) {
    }
}

static const char *mb1_parse(struct view memory, uint64_t info, struct multiboot *out)
{
    const char *wrong = NULL;
    struct view view;

    out->loader = "multiboot1";
    if (!view_sub(memory, info, 88, &view)) {
        return "information lies out of reach";
    }
    uint32_t flags = get32(view, 0);
    if (flags & MB1_COMMAND_LINE) {
        char loader[MULTIBOOT_TEXT_MAX] = "";
        if (flags & MB1_LOADER) {
            copy_text(loader, memory, get32(view, 64));
        }
        copy_text(out->command_line, memory, get32(view, 16));
        if (loader[0] == 'q' && loader[1] == 'e' && loader[2] == 'm' && loader[3] == 'u') {
            drop_file_name(out->command_line);
        }
    }
    if (flags & MB1_MODULES) {
        wrong = mb1_modules(memory, get32(view, 24), get32(view, 20), out);
    }
    if (wrong == NULL && !(flags & MB1_MAP)) {
        return "there is no memory map";
    }
    return wrong ? wrong : mb1_map(memory, get32(view, 48), get32(view, 44), out);
}

/* --- Multiboot 2 ------------------------------------------------------------------------------ */

static const char *mb2_map(struct view tag, struct multiboot *out)
{
    uint64_t size = tag.bytes < 16 ? 0 : get32(tag, 8);
    if (size < 24) {
        return "memory map has entries of a wrong size";
    }
    for (uint64_t at = 16; size <= tag.bytes - at; at += size) {
        add_entry(out, tag, at);
    }
    return NULL;
}

static const char *mb2_tag(struct view tag, uint32_t type, struct multiboot *out)
{
    switch (type) {
    case TAG_COMMAND_LINE:
        copy_text(out->command_line, tag, 8);
        return NULL;
    case TAG_MODULE:
        if (tag.bytes < 16) {
            return "a module's tag is too short";
        }
        add_module(out, get32(tag, 8), get32(tag, 12), tag, 16);
        return NULL;
    case TAG_MAP:
        return mb2_map(tag, out);
    case TAG_RSDP:
    case TAG_XSDP:
        /* The new one, of 36 bytes, holds all that is in the old one, of 20. */
        if (type == TAG_XSDP || out->rsdp[0] == 0) {
            for (uint64_t i = 0; i < sizeof(out->rsdp); i++) {
                out->rsdp[i] = 8 + i < tag.bytes ? tag.at[8 + i] : 0;
            }
        }
        return NULL;
    default:
        return NULL;
    }
}

static const char *mb2_parse(struct view memory, uint64_t info, struct multiboot *out)
{
    struct view view, tag;

    out->loader = "multiboot2";
    if (!view_sub(memory, info, 8, &view) || !view_sub(memory, info, get32(view, 0), &view) ||
        view.bytes < 8) {
        return "information lies out of reach";
    }
    for (uint64_t at = 8;;) {
        if (!view_sub(view, at, 8, &tag)) {
            return "tags do not end";
        }
        uint32_t type = get32(tag, 0), size = get32(tag, 4);
        if (type == TAG_END) {
            return out->entries != 0 ? NULL : "there is no memory map";
        }
        if (size < 8 || !view_sub(view, at, size, &tag)) {
            return "a tag has a wrong size";
        }
        const char *wrong = mb2_tag(tag, type, out);
        if (wrong) {
            return wrong;
        }
        at += (size + UINT64_C(7)) & ~UINT64_C(7);
    }
}

const char *multiboot_parse(const unsigned char *memory, uint64_t limit, uint32_t magic,
                            uint64_t info, struct multiboot *out)
{
    struct view all = {memory, limit};
    *out = (struct multiboot){.loader = "none"};
    if (magic == MB1_MAGIC) {
        return mb1_parse(all, info, out);
    }
    return magic == MB2_MAGIC ? mb2_parse(all, info, out) : "this is no multiboot loader";
}
