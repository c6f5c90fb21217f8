/* SPDX-License-Identifier: BSD-2-Clause */
/* Domains from boot modules, by the PVH boot protocol (Xen's public/arch-x86/hvm/start_info.h). */
#include "build.h"

#include "elf.h"
#include "guest_acpi.h"
#include "guest_clock.h"
#include "identity.h"
#include "pvh.h"
#include "sched.h"
#include "script.h"
#include "selftest.h"
#include "tenant.h"
#include "terminal.h"

_Static_assert(XEN_WINDOW == 0xfeff8000 && XEN_WINDOW_SIZE == 0x8000, "as pvh.c tells guests");

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
    struct pvh_guest guest;
};

static enum cleave_status put_start_info(struct mm_ctx *ctx, struct space *space,
                                         const struct image *image)
{
    static uint8_t page[PVH_PAGE_SIZE]; /* CPU 0's */

    pvh_start_page(page, &image->guest, image->config->command, image->config->control);
    enum cleave_status status = put(ctx, space, PVH_START_INFO, page, sizeof(page));
    if (status == CLEAVE_OK) {
        guest_acpi(page, (uint32_t)PVH_ACPI_TABLES, image->config->vcpus);
        status = put(ctx, space, PVH_ACPI_TABLES, page, GUEST_ACPI_SIZE);
    }
    return status;
}

/* Kernel, initial RAM disk, start information and tables into the guest's memory. */
static enum cleave_status load(struct mm_ctx *ctx, struct space *space, const struct image *image)
{
    const unsigned char *file = host_pointer(image->kernel_file->start);
    enum cleave_status status = put_start_info(ctx, space, image);

    for (unsigned i = 0; i < image->guest.kernel.segments && status == CLEAVE_OK; i++) {
        const struct elf_segment *s = &image->guest.kernel.segment[i];
        status = put(ctx, space, s->at, file + s->offset, s->file_size);
    }
    if (status == CLEAVE_OK && image->guest.initrd != 0) {
        status = put(ctx, space, image->guest.initrd, host_pointer(image->initrd_file->start),
                     image->guest.initrd_size);
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
    if (!domain_name_legal(d->name)) {
        return "not letters, digits, '-', '_' and '.' alone, or \"fork-\" or \"domain-\" in front";
    }
    if (image->kernel_file == NULL) {
        return "no module has the name of its kernel";
    }
    uint64_t initrd_size = 0;
    if (d->initrd[0] != '\0') {
        image->initrd_file = module_named(d->initrd);
        if (image->initrd_file == NULL) {
            return "no module has the name of its initrd";
        }
        initrd_size = image->initrd_file->end - image->initrd_file->start;
    }
    const struct boot_module *file = image->kernel_file;
    return pvh_plan(host_pointer(file->start), file->end - file->start, initrd_size, d->memory,
                    &image->guest);
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
    enum cleave_status status = add_ram(ctx, space, 0, image->guest.low, &ram);
    if (status == CLEAVE_OK) {
        status = add_ram(ctx, space, PVH_FAR_START, image->guest.far, &ram);
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
    hvm_state_start(&state, image.guest.kernel.entry, (uint32_t)PVH_START_INFO);
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

/* The id of the domain of this name; 0 where there is none. */
static uint32_t id_named(const char *name)
{
    struct domain *domain = domain_next(0);
    uint32_t found = 0;
    while (domain != NULL) {
        uint32_t id = domain->id;
        found = same(name, domain->name) ? id : found;
        domain_put(&this_cpu()->ctx, domain);
        domain = domain_next(id);
    }
    return found;
}

/* Whose terminal is shown, and who gets what is typed. */
static bool place_terminals(const struct config *config)
{
    uint32_t shown = same(config->console, "all") ? TERMINAL_ALL : id_named(config->console);
    uint32_t listening = id_named(config->input);
    if (shown == 0 && config->console[0] != '\0') {
        print("boot: console=%s: no such domain\n", config->console);
        return false;
    }
    if (listening == 0 && config->input[0] != '\0') {
        print("boot: input=%s: no such domain\n", config->input);
        return false;
    }
    terminal_show(shown);
    terminal_listen(listening);
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
    return place_terminals(config) && start_script(config->script);
}
