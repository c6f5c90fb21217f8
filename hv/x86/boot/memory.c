/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * boot_info's ranges and modules, made from what the boot loader said, and boot_take(). Used by the
 * boot CPU alone, until all that is left becomes untyped memory.
 */
#include "boot.h"
#include "ranges.h"

enum { TAKES_MAX = 128 };
#define LOW_END UINT64_C(0x100000)    /* trampoline, BIOS data: never handed out */
#define RAM_LIMIT (UINT64_C(1) << 44) /* the core's frame numbers have 32 bits */

struct boot_info boot_info;

/* What became of RAM that is not free, in the order in which it was taken. */
static struct {
    struct boot_range range;
    const char *what;
} taken[TAKES_MAX];
static unsigned taken_count;

static uint64_t page_down(uint64_t address) { return address & ~(PAGE_SIZE - 1); }
static uint64_t page_up(uint64_t address) { return page_down(address + PAGE_SIZE - 1); }

static void take_note(uint64_t start, uint64_t end, const char *what)
{
    if (taken_count > 0 && taken[taken_count - 1].range.end == start &&
        taken[taken_count - 1].what == what) {
        taken[taken_count - 1].range.end = end;
        return;
    }
    if (taken_count == TAKES_MAX) {
        crash("too many calls of boot_take(), the last for %s", what);
    }
    taken[taken_count].range = (struct boot_range){start, end};
    taken[taken_count++].what = what;
}

/* What the CPU can address, and the core. */
static uint64_t ram_limit(void)
{
    unsigned bits = cpuid(0x80000000, 0).eax >= 0x80000008 ? cpuid(0x80000008, 0).eax & 0xff : 36;
    uint64_t limit = UINT64_C(1) << (bits < 44 ? bits : 44);
    return limit < RAM_LIMIT ? limit : RAM_LIMIT;
}

/* RAM is what some entry calls RAM and none calls anything else. */
static void find_ram(const struct multiboot *multiboot)
{
    struct ranges ram = {boot_info.ram, &boot_info.ram_count, 0};
    uint64_t limit = ram_limit();

    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < multiboot->entries; i++) {
            uint64_t start = multiboot->entry[i].start, bytes = multiboot->entry[i].bytes;
            bool usable = multiboot->entry[i].type == MULTIBOOT_RAM;
            if (start >= limit) {
                continue;
            }
            uint64_t end = start + (bytes < limit - start ? bytes : limit - start);
            if (usable && pass == 0) {
                ranges_add(&ram, page_up(start), page_down(end));
            } else if (!usable && pass == 1) {
                ranges_remove(&ram, page_down(start), page_up(end));
            }
        }
    }
    if (boot_info.ram_count == 0) {
        crash("the boot loader reports no RAM");
    }
    boot_info.memory_end = boot_info.ram[boot_info.ram_count - 1].end;
    if (ram.lost || multiboot->entries_lost) {
        print("memory: %lu bytes and %u entries of the map left out: too many ranges\n",
              (unsigned long)ram.lost, multiboot->entries_lost);
    }
}

/* The first word without folders, cut to its room. */
static void module_name(char name[BOOT_NAME_MAX], const char *text)
{
    unsigned length = 0;
    while (*text == ' ') {
        text++;
    }
    for (; *text && *text != ' '; text++) {
        if (*text == '/') {
            length = 0;
        } else if (length < BOOT_NAME_MAX - 1) {
            name[length++] = *text;
        }
    }
    name[length] = 0;
}

static bool overlap(uint64_t start, uint64_t end, struct boot_range with)
{
    return start < with.end && with.start < end;
}

static bool overlaps_module(uint64_t start, uint64_t end)
{
    for (unsigned i = 0; i < boot_info.module_count; i++) {
        struct boot_range other = {page_down(boot_info.module[i].start),
                                   page_up(boot_info.module[i].end)};
        if (overlap(start, end, other)) {
            return true;
        }
    }
    return false;
}

static void find_modules(const struct multiboot *multiboot)
{
    unsigned refused = multiboot->modules_lost;
    for (unsigned i = 0; i < multiboot->modules; i++) {
        uint64_t start = multiboot->module[i].start, end = multiboot->module[i].end;
        struct boot_module *module = &boot_info.module[boot_info.module_count];
        if (boot_info.module_count == BOOT_MODULES_MAX ||
            !ranges_hold(boot_info.ram, boot_info.ram_count, start, end) ||
            overlap(start, end, boot_info.image) || overlaps_module(start, end)) {
            print("memory: module %u at %lx to %lx refused\n", i, (unsigned long)start,
                  (unsigned long)end);
            refused++;
            continue;
        }
        module->start = start;
        module->end = end;
        module_name(module->name, multiboot->module[i].text);
        boot_info.module_count++;
    }
    if (refused) {
        print("memory: %u modules refused\n", refused);
    }
}

void memory_init(const struct multiboot *multiboot)
{
    struct ranges free = {boot_info.free, &boot_info.free_count, 0};

    boot_info.loader = multiboot->loader;
    __builtin_memcpy(boot_info.command_line, multiboot->command_line,
                     sizeof(boot_info.command_line));
    boot_info.image = (struct boot_range){image_physical(image_start), image_physical(image_end)};
    find_ram(multiboot);
    if (!ranges_hold(boot_info.ram, boot_info.ram_count, boot_info.image.start,
                     boot_info.image.end)) {
        crash("the hypervisor's image does not lie in RAM");
    }
    find_modules(multiboot);

    for (unsigned i = 0; i < boot_info.ram_count; i++) {
        ranges_add(&free, boot_info.ram[i].start, boot_info.ram[i].end);
    }
    ranges_remove(&free, 0, LOW_END);
    ranges_remove(&free, boot_info.image.start, boot_info.image.end);
    for (unsigned i = 0; i < boot_info.module_count; i++) {
        ranges_remove(&free, page_down(boot_info.module[i].start),
                      page_up(boot_info.module[i].end));
    }
    if (free.lost) {
        print("memory: %lu bytes left out: too many ranges\n", (unsigned long)free.lost);
    }
}

/* Lowest place in `range` for `bytes` at `align`; false when there is none. */
static bool fits(struct boot_range range, uint64_t bytes, uint64_t align, uint64_t *start)
{
    *start = (range.start + align - 1) & ~(align - 1);
    return *start >= range.start && *start < range.end && bytes <= range.end - *start &&
           *start + bytes <= direct_map_end;
}

uint64_t boot_take(uint64_t bytes, uint64_t align, const char *what)
{
    struct ranges free = {boot_info.free, &boot_info.free_count, 0};
    uint64_t start;

    bytes = page_up(bytes);
    for (unsigned i = 0; bytes != 0 && i < boot_info.free_count; i++) {
        /* A range cut in two needs room for another. */
        if (fits(boot_info.free[i], bytes, align, &start) &&
            (boot_info.free_count < BOOT_RANGES_MAX || start == boot_info.free[i].start)) {
            ranges_remove(&free, start, start + bytes);
            take_note(start, start + bytes, what);
            __builtin_memset(host_pointer(start), 0, bytes);
            return start;
        }
    }
    crash("no %lu bytes of RAM for %s", (unsigned long)bytes, what);
}

bool boot_option(const char *word)
{
    const char *at = boot_info.command_line;
    while (*at) {
        unsigned n = 0;
        while (word[n] && at[n] == word[n]) {
            n++;
        }
        if (!word[n] && (at[n] == 0 || at[n] == ' ')) {
            return true;
        }
        while (*at && *at != ' ') {
            at++;
        }
        while (*at == ' ') {
            at++;
        }
    }
    return false;
}

static void print_range(uint64_t start, uint64_t end, const char *what, const char *name)
{
    print("  %012lx - %012lx %9lu KiB  %s%s\n", (unsigned long)start, (unsigned long)end,
          (unsigned long)(end - start) / 1024, what, name);
}

/* First module that begins in [at, end), or null. */
static const struct boot_module *next_module(uint64_t at, uint64_t end)
{
    const struct boot_module *first = NULL;
    for (unsigned i = 0; i < boot_info.module_count; i++) {
        const struct boot_module *m = &boot_info.module[i];
        if (page_down(m->start) >= at && page_down(m->start) < end &&
            (first == NULL || m->start < first->start)) {
            first = m;
        }
    }
    return first;
}

/* Prints the module, what was kept or taken, the image or the free range that begins at `at`, in a
 * range of RAM that ends at `ram_end`. Returns where that ends, or `at`. */
static uint64_t print_at(uint64_t at, uint64_t ram_end)
{
    const struct boot_module *module = next_module(at, ram_end);
    if (module && page_down(module->start) == at) {
        print_range(at, page_up(module->end), "module ", module->name);
        return page_up(module->end);
    }
    if (at < LOW_END) {
        uint64_t end = ram_end < LOW_END ? ram_end : LOW_END;
        end = module && page_down(module->start) < end ? page_down(module->start) : end;
        print_range(at, end, "kept: below 1 MiB", "");
        return end;
    }
    if (at == boot_info.image.start) {
        print_range(at, boot_info.image.end, "hypervisor image", "");
        return boot_info.image.end;
    }
    for (unsigned i = 0; i < taken_count; i++) {
        if (at == taken[i].range.start) {
            print_range(at, taken[i].range.end, taken[i].what, "");
            return taken[i].range.end;
        }
    }
    for (unsigned i = 0; i < boot_info.free_count; i++) {
        if (at == boot_info.free[i].start) {
            print_range(at, boot_info.free[i].end, "free", "");
            return boot_info.free[i].end;
        }
    }
    return at;
}

void boot_print_map(void)
{
    uint64_t ram = ranges_bytes(boot_info.ram, boot_info.ram_count);
    uint64_t free = ranges_bytes(boot_info.free, boot_info.free_count);

    print("memory: %lu KiB of RAM from %s\n", (unsigned long)ram / 1024, boot_info.loader);
    for (unsigned i = 0; i < boot_info.ram_count; i++) {
        uint64_t at = boot_info.ram[i].start, end = boot_info.ram[i].end;
        while (at < end) {
            uint64_t next = print_at(at, end);
            if (next <= at) {
                /* Left out when there were too many ranges: up to the next page that is not. */
                print_range(at, at + PAGE_SIZE, "left out", "");
                next = at + PAGE_SIZE;
            }
            at = next;
        }
    }
    print("memory: %lu KiB used, %lu KiB free\n", (unsigned long)(ram - free) / 1024,
          (unsigned long)free / 1024);
}
