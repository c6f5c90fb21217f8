/* SPDX-License-Identifier: BSD-2-Clause */
/* Domains from boot modules, by the PVH boot protocol (Xen's public/arch-x86/hvm/start_info.h). */
#include "build.h"

#include "elf.h"
#include "guest_acpi.h"
#include "guest_clock.h"
#include "identity.h"
#include "sched.h"
#include "script.h"
#include "selftest.h"
#include "tenant.h"
#include "terminal.h"

/* Below 1 MiB (docs/guests.md). RAM is one piece from 0 on, the rest from 4 GiB on. */
#define LOW_END UINT64_C(0xa0000)
#define ACPI_TABLES UINT64_C(0xe0000)
#define START_INFO UINT64_C(0xf0000)
#define COMMAND_LINE (START_INFO + 0x400)
#define MEMORY_MAP (START_INFO + 0x800)
#define MODULES (START_INFO + 0xc00)
#define HIGH_START UINT64_C(0x100000)
#define LOW_MEMORY_MAX UINT64_C(0xc0000000)
#define FAR_START UINT64_C(0x100000000)
#define INITRD_ALIGN UINT64_C(0x200000)
#define START_MAGIC 0x336ec578u
#define START_CONTROL 3u /* SIF_PRIVILEGED, SIF_INITDOMAIN */
enum { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3 };

struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line, rsdp, memory_map;
    uint32_t memory_entries, reserved;
};
_Static_assert(sizeof(struct start_info) == 56, "as the boot protocol says");
struct memory_entry {
    uint64_t at, size;
    uint32_t type, reserved;
};
_Static_assert(sizeof(struct memory_entry) == 24, "as the boot protocol says");

static bool same(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

static const struct boot_module *module_named(const char *name)
{
    for (unsigned i = 0; i < boot_info.module_count; i++) {
        if (same(name, boot_info.module[i].name)) {
            return &boot_info.module[i];
        }
    }
    return NULL;
}

static enum cleave_status put(struct mm_ctx *ctx, struct space *space, uint64_t at,
                              const void *bytes, uint64_t size)
{
    enum cleave_status status = CLEAVE_OK;
    for (uint64_t done = 0, part = 0; done < size && status == CLEAVE_OK; done += part) {
        uint64_t left = size - done < SPACE_ACCESS_MAX ? size - done : SPACE_ACCESS_MAX;
        status =
            space_write(ctx, space, gpa(at + done), (const char *)bytes + done, left, NULL, &part);
    }
    return status;
}

/* What a guest is loaded from, and where its parts lie. */
struct image {
    const struct config_domain *config;
    const struct boot_module *kernel_file, *initrd_file; /* the second may be null */
    struct elf_kernel kernel;
    uint64_t low, far; /* bytes of RAM from 0 and from 4 GiB on */
    uint64_t initrd;   /* guest-physical; 0: none */
};

static enum cleave_status put_map(struct mm_ctx *ctx, struct space *space,
                                  const struct image *image, uint32_t *entries)
{
    const struct memory_entry map[] = {{0, LOW_END, E820_RAM, 0},
                                       {ACPI_TABLES, PAGE_SIZE, E820_ACPI, 0},
                                       {START_INFO, HIGH_START - START_INFO, E820_RESERVED, 0},
                                       {HIGH_START, image->low - HIGH_START, E820_RAM, 0},
                                       {XEN_WINDOW, XEN_WINDOW_SIZE, E820_RESERVED, 0},
                                       {FAR_START, image->far, E820_RAM, 0}};
    *entries = sizeof(map) / sizeof(map[0]) - (image->far == 0);
    return put(ctx, space, MEMORY_MAP, map, *entries * sizeof(map[0]));
}

static enum cleave_status put_start_info(struct mm_ctx *ctx, struct space *space,
                                         const struct image *image)
{
    uint8_t acpi[GUEST_ACPI_SIZE];
    uint64_t initrd[4] = {image->initrd, 0, 0, 0}; /* address, size, command line, reserved */
    struct start_info info = {.magic = START_MAGIC,
                              .version = 1,
                              .flags = image->config->control ? START_CONTROL : 0,
                              .command_line = COMMAND_LINE,
                              .rsdp = ACPI_TABLES,
                              .memory_map = MEMORY_MAP};
    enum cleave_status status = put_map(ctx, space, image, &info.memory_entries);
    if (status == CLEAVE_OK && image->initrd != 0) {
        initrd[1] = image->initrd_file->end - image->initrd_file->start;
        info.modules = 1;
        info.module_list = MODULES;
        status = put(ctx, space, MODULES, initrd, sizeof(initrd));
    }
    if (status == CLEAVE_OK) {
        guest_acpi(acpi, (uint32_t)ACPI_TABLES, image->config->vcpus);
        status = put(ctx, space, ACPI_TABLES, acpi, sizeof(acpi));
    }
    if (status == CLEAVE_OK) {
        status =
            put(ctx, space, COMMAND_LINE, image->config->command, sizeof(image->config->command));
    }
    return status == CLEAVE_OK ? put(ctx, space, START_INFO, &info, sizeof(info)) : status;
}

/* Kernel, initial RAM disk, start information and tables into the guest's memory. */
static enum cleave_status load(struct mm_ctx *ctx, struct space *space, const struct image *image)
{
    const unsigned char *file = host_pointer(image->kernel_file->start);
    enum cleave_status status = put_start_info(ctx, space, image);

    for (unsigned i = 0; i < image->kernel.segments && status == CLEAVE_OK; i++) {
        const struct elf_segment *s = &image->kernel.segment[i];
        status = put(ctx, space, s->at, file + s->offset, s->file_size);
    }
    if (status == CLEAVE_OK && image->initrd != 0) {
        status = put(ctx, space, image->initrd, host_pointer(image->initrd_file->start),
                     image->initrd_file->end - image->initrd_file->start);
    }
    return status; /* what lies beyond file_size was zeroed on first touch */
}

static bool complain(struct mm_ctx *ctx, const char *name, const char *what)
{
    print("boot: domain %s: %s (%s %lu, from %lu to %lu)\n", name, what,
          ctx->error.argument != NULL ? ctx->error.argument : "", ctx->error.value, ctx->error.low,
          ctx->error.high);
    return false;
}

/* Finds the files and places everything. Null, or what is wrong. */
static const char *plan(const struct config_domain *d, struct image *image)
{
    *image = (struct image){.config = d, .kernel_file = module_named(d->kernel)};
    if (image->kernel_file == NULL) {
        return "no module has the name of its kernel";
    }
    if (d->memory < 2 * HIGH_START) {
        return "memory is below 2M";
    }
    image->low = d->memory < LOW_MEMORY_MAX ? d->memory : LOW_MEMORY_MAX;
    image->far = d->memory - image->low;
    const struct boot_module *file = image->kernel_file;
    const char *wrong =
        elf_read(host_pointer(file->start), file->end - file->start, image->low, &image->kernel);
    uint64_t end = HIGH_START;
    for (unsigned i = 0; i < image->kernel.segments && wrong == NULL; i++) {
        const struct elf_segment *s = &image->kernel.segment[i];
        if (s->at < HIGH_START && s->at + s->memory_size > LOW_END) {
            return "its kernel lies where start information and no RAM are";
        }
        end = s->at + s->memory_size > end ? s->at + s->memory_size : end;
    }
    if (wrong != NULL || d->initrd[0] == '\0') {
        return wrong;
    }
    file = image->initrd_file = module_named(d->initrd);
    if (file == NULL) {
        return "no module has the name of its initrd";
    }
    image->initrd = (end + INITRD_ALIGN - 1) & ~(INITRD_ALIGN - 1);
    if (image->initrd > image->low || file->end - file->start > image->low - image->initrd) {
        return "its initrd does not fit behind its kernel";
    }
    return NULL;
}

/* RAM from `at`, a multiple of 1 GiB, on. First touch fills 2 MiB at most, so that leaves of 1 GiB
 * are made now: wherever the pool has such a block. */
static enum cleave_status add_ram(struct mm_ctx *ctx, struct space *space, uint64_t at,
                                  uint64_t size, const struct region *ram)
{
    uint64_t whole = level_size(2);
    enum cleave_status status = CLEAVE_OK;
    while (ram->order == 2 && size >= whole && status == CLEAVE_OK) {
        status = space_map(ctx, space, gpa(at), 2, ram);
        if (status == CLEAVE_OK) {
            at += whole;
            size -= whole;
        }
    }
    if (pool_lacks(status)) {
        print("boot: no block of 1 GiB for the last %lu MiB\n", size >> 20);
        status = CLEAVE_OK;
    }
    return status == CLEAVE_OK && size != 0 ? space_set_region(ctx, space, gpa(at), size, ram)
                                            : status;
}

static enum cleave_status set_memory(struct mm_ctx *ctx, struct space *space,
                                     const struct image *image)
{
    struct region ram = {
        .policy = REGION_PRIVATE, .rights = RIGHT_ALL, .order = (uint8_t)image->config->order};
    enum cleave_status status = add_ram(ctx, space, 0, image->low, &ram);
    if (status == CLEAVE_OK) {
        status = add_ram(ctx, space, FAR_START, image->far, &ram);
    }
    ram.order = 0;
    ram.rights = RIGHT_READ | RIGHT_WRITE;
    return status == CLEAVE_OK
               ? space_set_region(ctx, space, gpa(XEN_WINDOW), XEN_WINDOW_SIZE, &ram)
               : status;
}

static const struct config *built; /* what the machine was booted with */

static bool build_domain(struct mm_ctx *ctx, const struct config_domain *d)
{
    struct image image;
    struct space *space;
    struct domain *domain;
    struct hvm_state state;

    ctx->error = (struct mm_error){.low = 1};
    const char *wrong = plan(d, &image);
    if (wrong != NULL) {
        return complain(ctx, d->name, wrong);
    }
    uint32_t id = !d->control                             ? domain_ids_take(1)
                  : domain_id_take(CLEAVE_DOMAIN_CONTROL) ? CLEAVE_DOMAIN_CONTROL
                                                          : 0;
    uint64_t limit = d->limit == UINT64_MAX ? UINT64_MAX : d->limit >> PAGE_SHIFT;
    if (id == 0 || space_create(ctx, tenant_pool(d->pool), limit, &space) != CLEAVE_OK) {
        domain_ids_drop(id, 1);
        return complain(ctx, d->name, "no space");
    }
    if (set_memory(ctx, space, &image) != CLEAVE_OK || load(ctx, space, &image) != CLEAVE_OK) {
        (void)complain(ctx, d->name, "its kernel cannot be loaded");
        space_discard(ctx, space);
        domain_ids_drop(id, 1);
        return false;
    }
    if (domain_make(ctx, id, d->name, NULL, space, d->vcpus, false, &domain) != CLEAVE_OK) {
        domain_ids_drop(id, 1);
        return complain(ctx, d->name, "not made");
    }
    if (!domain_enter(domain, true)) {
        domain_discard(ctx, domain);
        domain_ids_drop(id, 1);
        return complain(ctx, d->name, "another domain has its name");
    }
    domain->has_window = 1;
    domain->at_boot = 1;
    domain->control = d->control;
    domain->pages = domain->pages_max = d->memory >> PAGE_SHIFT;
    identity_make(domain);
    hvm_state_start(&state, image.kernel.entry, (uint32_t)START_INFO);
    state.tsc_offset = domain->tsc_offset;
    hvm->vcpu_init(&domain->vcpu[0]->hvm, &state);
    domain->vcpu[0]->started = 1;
    print("boot: domain %u %s: %lu MiB, %u vcpus, kernel %s\n", id, d->name, d->memory >> 20,
          d->vcpus, d->kernel);
    if (d->paused) {
        domain->asked_pauses = 1;
        clock_stop(domain);
        sched_pause(domain);
    }
    sched_resume(domain->vcpu[0]);
    return true;
}

/* Whose terminal is shown. */
static bool show_console(const char *name)
{
    struct domain *domain = domain_next(0);
    uint32_t id = same(name, "all") ? TERMINAL_ALL : 0;
    while (domain != NULL) {
        uint32_t next = domain->id;
        id = same(name, domain->name) ? next : id;
        domain_put(&this_cpu()->ctx, domain);
        domain = domain_next(next);
    }
    terminal_show(id);
    if (id == 0 && name[0] != '\0') {
        print("boot: console=%s: no such domain\n", name);
        return false;
    }
    return true;
}

static bool start_script(const char *name)
{
    const struct boot_module *module = module_named(name);
    if (name[0] == '\0') {
        return true;
    }
    if (module == NULL) {
        print("boot: script=%s: no such module\n", name);
        return false;
    }
    script_start(module);
    return true;
}

bool build_control(struct mm_ctx *ctx)
{
    for (unsigned i = 0; built != NULL && i < built->domains; i++) {
        if (built->domain[i].control) {
            return build_domain(ctx, &built->domain[i]);
        }
    }
    print("the boot configuration has no control domain\n");
    return false;
}

bool build_all(struct mm_ctx *ctx, struct config *config)
{
    const struct boot_module *module = module_named("boot.conf");
    struct config_error error;

    if (module == NULL) {
        print("boot: no module boot.conf: nothing to run\n");
        return false;
    }
    if (!config_parse(host_pointer(module->start), module->end - module->start, config, &error)) {
        print("boot.conf:%u: %s\n", error.line, error.what);
        return false;
    }
    for (unsigned i = 0; i < config->pools; i++) {
        uint64_t size = config->pool[i].size;
        if (tenant_make(ctx, config->pool[i].name, &size) != CLEAVE_OK) {
            print("boot: pool %s of %lu bytes: %s %lu, from %lu to %lu\n", config->pool[i].name,
                  config->pool[i].size, ctx->error.argument, ctx->error.value, ctx->error.low,
                  ctx->error.high);
            return false;
        }
    }
    struct pool *pool = config->pools != 0 ? tenant_pool(config->pool[0].name) : NULL;
    bool test = boot_option("selftest") || !hvm_ept_dirty_bits;
    if (test && pool != NULL && !selftest_run(ctx, pool)) {
        return false;
    }
    built = config;
    for (unsigned i = 0; i < config->domains; i++) {
        if (!build_domain(ctx, &config->domain[i])) {
            return false;
        }
    }
    return show_console(config->console) && start_script(config->script);
}
