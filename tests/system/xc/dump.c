/* SPDX-License-Identifier: BSD-2-Clause */
/* What `cleave dump` writes: read by gdb, held against libxenctrl, and what writing it costs. */
#include "xc.h"

#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define FOLDER "/tmp/dump"
#define CORE FOLDER "/core"
#define ERRORS "/tmp/errors" /* what the commands say beside their results */
#define KERNEL UINT64_C(0xffffffff80000000)
#define LARGE (512u << 20)
#define BLOCK (2u << 20)

/* The first number that a command prints, in the base of its prefix; UINT64_MAX where none. */
static uint64_t number(const char *format, ...) __attribute__((format(printf, 1, 2)));
static uint64_t number(const char *format, ...)
{
    char command[512], line[256] = "", *end;
    va_list list;
    va_start(list, format);
    vsnprintf(command, sizeof(command), format, list);
    va_end(list);
    FILE *from = popen(command, "r");
    bool got = from != NULL && fgets(line, sizeof(line), from) != NULL;
    while (from != NULL && fgetc(from) != EOF) {
    }
    int status = from != NULL ? pclose(from) : -1;
    uint64_t found = strtoull(line, &end, 0);
    if (!got || status != 0 || end == line) {
        printf("FAILED %s: status %d, said %s\n", command, status, line);
        failed++;
        system("cat " ERRORS);
        return UINT64_MAX;
    }
    return found;
}

static uint64_t gdb(const char *what)
{
    return number("gdb -batch -nx -c " CORE
                  " -ex 'output/x (unsigned long)(%s)' -ex 'echo \\n' 2>" ERRORS " | tail -n 1",
                  what);
}

/* The 8 bytes there, by the tables of vcpu 0, through a map of this domain's own. */
static uint64_t word_at(uint32_t domid, uint64_t virtual)
{
    uint64_t word = 0;
    unsigned long frame = xc_translate_foreign_address(xc, domid, 0, virtual);
    uint8_t *page = xc_map_foreign_range(xc, domid, PAGE, PROT_READ, frame);
    CHECK(frame != 0 && page != NULL);
    if (page != NULL) {
        memcpy(&word, page + virtual % PAGE / 8 * 8, sizeof(word));
        munmap(page, PAGE);
    }
    return word;
}

static vcpu_guest_context_t registers_of(uint32_t domid)
{
    static vcpu_guest_context_any_t any;
    memset(&any, 0, sizeof(any));
    CHECK_EQ(xc_vcpu_getcontext(xc, domid, 0, &any), 0);
    return any.c;
}

/* A fork that stands in its kernel: a program's pages are no part of what gdb is told. */
static uint32_t fork_in_kernel(void)
{
    uint32_t id = fork_template(0);
    for (unsigned i = 0; i < 20 && registers_of(id).user_regs.rip < KERNEL; i++) {
        destroy(id);
        id = fork_template(0);
    }
    return id;
}

static void read_by_gdb(void)
{
    uint32_t id = fork_in_kernel();
    vcpu_guest_context_t c = registers_of(id);
    uint64_t code = c.user_regs.rip / 8 * 8;
    CHECK(c.user_regs.rip >= KERNEL);
    number("cleave dump -o " CORE " %u 2>" ERRORS, id);
    CHECK_EQ(gdb("$rip"), c.user_regs.rip);
    CHECK_EQ(gdb("$rsp"), c.user_regs.rsp);
    CHECK_EQ(gdb("$rbx"), c.user_regs.rbx);
    CHECK_EQ(gdb("$cs"), c.user_regs.cs);
    CHECK_EQ(gdb("*(unsigned *)0xf0000"), 0x336ec578); /* of the start information: docs/abi.md */
    char command[64];
    snprintf(command, sizeof(command), "*(unsigned long *)%#lx", (unsigned long)code);
    CHECK_EQ(gdb(command), word_at(id, code));
    CHECK(word_at(id, code) != 0);
    destroy(id);
    unlink(CORE);
}

/* --- A domain of 512 MiB ---------------------------------------------------------------------- */

static uint64_t mark_of(unsigned block) { return UINT64_C(0x9e3779b97f4a7c15) * (block + 1); }

static uint32_t make_large(void)
{
    static xen_pfn_t list[LARGE / BLOCK];
    uint32_t id = create(0, 1);
    CHECK_EQ(xc_domain_setmaxmem(xc, id, LARGE / 1024), 0);
    for (unsigned i = 0; i < LARGE / BLOCK; i++) {
        list[i] = (xen_pfn_t)i * (BLOCK / PAGE);
    }
    CHECK_EQ(xc_domain_populate_physmap_exact(xc, id, LARGE / BLOCK, 9, 0, list), 0);
    for (unsigned i = 0; i < LARGE / BLOCK; i++) {
        uint64_t *page = xc_map_foreign_range(xc, id, PAGE, PROT_READ | PROT_WRITE, list[i] + 7);
        CHECK(page != NULL);
        if (page != NULL) {
            page[i % 512] = mark_of(i);
            munmap(page, PAGE);
        }
    }
    return id;
}

static bool take(FILE *from, uint64_t *at, void *to, size_t size)
{
    *at += size;
    return fread(to, 1, size, from) == size;
}

/* Reads the core as it comes: its headers, then all memory. */
static void check_stream(FILE *from)
{
    static Elf64_Phdr all[600];
    static uint64_t page[512];
    static unsigned char skipped[PAGE];
    Elf64_Ehdr head;
    uint64_t at = 0, memory = 0, wrong = 0;
    CHECK(take(from, &at, &head, sizeof(head)));
    CHECK(memcmp(head.e_ident, ELFMAG, SELFMAG) == 0 && head.e_type == ET_CORE);
    CHECK(head.e_phnum >= 2 && head.e_phnum <= 600);
    CHECK(take(from, &at, all, head.e_phnum % 601 * sizeof(all[0])));
    CHECK_EQ(all[0].p_type, PT_NOTE);
    for (unsigned i = 1; i < head.e_phnum && wrong == 0; i++) {
        const Elf64_Phdr *p = &all[i];
        CHECK(p->p_vaddr == p->p_paddr && p->p_filesz <= p->p_memsz && p->p_offset >= at);
        while (at < p->p_offset && p->p_filesz != 0) {
            size_t part = p->p_offset - at < PAGE ? p->p_offset - at : PAGE;
            CHECK(take(from, &at, skipped, part));
        }
        for (uint64_t done = 0; done < p->p_filesz && wrong == 0; done += PAGE) {
            uint64_t gpa = p->p_paddr + done, block = gpa / BLOCK;
            bool got = take(from, &at, page, PAGE);
            bool marked = gpa % BLOCK == 7 * PAGE;
            for (unsigned j = 0; j < 512; j++) {
                wrong += page[j] != (marked && j == block % 512 ? mark_of((unsigned)block) : 0);
            }
            wrong += !got;
            memory += PAGE;
        }
    }
    CHECK_EQ(wrong, 0);
    CHECK_EQ(memory, LARGE);
    CHECK_EQ(fgetc(from), EOF);
}

/* It shares all with its parent, and does so afterwards: nothing was copied to be read. */
static void copies_nothing(void)
{
    uint32_t parent = make_large();
    uint32_t child =
        (uint32_t)number("cleave fork --paused --json %u | check-json domains.0.id", parent);
    uint64_t alone = number("cleave stat --json %u | check-json domains.0.exclusive_bytes", child);
    char command[64];
    snprintf(command, sizeof(command), "cleave dump -o - %u 2>" ERRORS, child);
    FILE *from = popen(command, "r");
    CHECK(from != NULL);
    if (from != NULL) {
        check_stream(from);
        CHECK_EQ(pclose(from), 0);
    }
    CHECK_EQ(number("cleave stat --json %u | check-json domains.0.copied_bytes", child), 0);
    CHECK_EQ(number("cleave stat --json %u | check-json domains.0.exclusive_bytes", child), alone);
    CHECK_EQ(number("cleave stat --json %u | check-json domains.0.shared_bytes", child), LARGE);
    CHECK_EQ(number("cleave stat --json %u | check-json domains.0.copied_bytes", parent), 0);
    snprintf(command, sizeof(command), "cleave destroy %u %u >/tmp/out", child, parent);
    CHECK_EQ(system(command), 0);
}

/* --- Dumps that fail -------------------------------------------------------------------------- */

/* How many files there are, and how large they are together. */
static unsigned files(off_t *size)
{
    DIR *folder = opendir(FOLDER);
    struct dirent *entry;
    struct stat about;
    unsigned count = 0;
    *size = 0;
    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        if (fstatat(dirfd(folder), entry->d_name, &about, 0) == 0 && S_ISREG(about.st_mode)) {
            count++;
            *size += about.st_size;
        }
    }
    CHECK(folder != NULL && closedir(folder) == 0);
    return count;
}

/* A dump of the running template that was stopped while it writes. */
static pid_t begin_dump(const char *option)
{
    off_t size;
    pid_t pid = fork();
    if (pid == 0) {
        freopen(ERRORS, "w", stderr);
        execl("/bin/cleave", "cleave", "dump", "-o", CORE, "id=1", option, NULL);
        _exit(99);
    }
    for (unsigned i = 0; i < 20000 && (files(&size) == 0 || size == 0); i++) {
        usleep(1000);
    }
    CHECK_EQ(kill(pid, SIGSTOP), 0);
    CHECK_EQ(files(&size), 1);
    CHECK(size != 0);
    return pid;
}

static void end_dump(pid_t pid, int expected, unsigned left)
{
    int status;
    off_t size;
    CHECK_EQ(kill(pid, SIGCONT), 0);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), expected);
    CHECK_EQ(files(&size), left);
    CHECK(!info_of(TEMPLATE).paused);
}

static void fails_in_the_middle(void)
{
    const struct rlimit small = {1, 1};
    pid_t pid = begin_dump(NULL);
    CHECK(info_of(TEMPLATE).paused);
    CHECK_EQ(kill(pid, SIGTERM), 0);
    end_dump(pid, 1, 0);

    pid = begin_dump(NULL);
    CHECK(info_of(TEMPLATE).paused);
    CHECK_EQ(prlimit(pid, RLIMIT_FSIZE, &small, NULL), 0);
    end_dump(pid, 1, 0);

    pid = begin_dump("--live");
    CHECK(!info_of(TEMPLATE).paused);
    end_dump(pid, 0, 1);
    CHECK_EQ(gdb("*(unsigned *)0xf0000"), 0x336ec578);
    unlink(CORE);
}

void test(void)
{
    CHECK_EQ(mkdir(FOLDER, 0700), 0);
    CHECK_EQ(mount("none", FOLDER, "tmpfs", 0, "size=200M"), 0);
    read_by_gdb();
    copies_nothing();
    fails_in_the_middle();
    CHECK_EQ(umount(FOLDER), 0);
}
