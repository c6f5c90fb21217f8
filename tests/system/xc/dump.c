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
#define DUMP_KIB 8192u /* of addresses; it needs 2.5 MiB of them, whatever it dumps */

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

/* Each block has one word that is not 0. */
static uint64_t mark_of(uint64_t block) { return UINT64_C(0x9e3779b97f4a7c15) * (block + 1); }

static uint64_t mark_at(uint64_t block) { return block * BLOCK + 7 * PAGE + block % 512 * 8; }

/* What is written after the fork: by both to one page, and by each to a page of its own. */
struct written {
    uint64_t at, value;
};
#define OWN (UINT64_C(30) * BLOCK + 9 * PAGE + 24)
#define WRITES 2u
static struct written by_child[WRITES], by_parent[WRITES];

static void put(uint32_t id, struct written word)
{
    uint8_t *page = map_pages(id, (unsigned)(word.at / PAGE), 1, PROT_READ | PROT_WRITE);
    memcpy(page + word.at % PAGE, &word.value, sizeof(word.value));
    munmap(page, PAGE);
}

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
        put(id, (struct written){mark_at(i), mark_of(i)});
    }
    return id;
}

static bool take(FILE *from, uint64_t *at, void *to, size_t size)
{
    *at += size;
    return fread(to, 1, size, from) == size;
}

/* The child's page there. */
static void expect_page(uint64_t gpa, uint64_t *page)
{
    uint64_t mark = mark_at(gpa / BLOCK);
    memset(page, 0, PAGE);
    if (mark / PAGE == gpa / PAGE) {
        page[mark % PAGE / 8] = mark_of(gpa / BLOCK);
    }
    for (unsigned i = 0; i < WRITES; i++) {
        if (by_child[i].at / PAGE == gpa / PAGE) {
            page[by_child[i].at % PAGE / 8] = by_child[i].value;
        }
    }
}

/* Reads the core as it comes: its headers, then all memory. */
static void check_stream(FILE *from)
{
    static Elf64_Phdr all[600];
    static uint64_t page[512], expected[512];
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
            wrong += !take(from, &at, page, PAGE);
            expect_page(p->p_paddr + done, expected);
            if (memcmp(page, expected, PAGE) != 0) {
                printf("not as expected: the page at %#lx\n", p->p_paddr + done);
                wrong++;
            }
            memory += PAGE;
        }
    }
    CHECK_EQ(wrong, 0);
    CHECK_EQ(memory, LARGE);
    CHECK_EQ(fgetc(from), EOF);
}

static uint64_t stat_of(uint32_t id, const char *what)
{
    return number("cleave stat --json %u | check-json domains.0.%s", id, what);
}

/* Streamed in far less memory than it has, and nothing is copied to be read. */
static void dump_child(uint32_t id)
{
    uint64_t copied = stat_of(id, "copied_bytes"), alone = stat_of(id, "exclusive_bytes");
    uint64_t shared = stat_of(id, "shared_bytes");
    char command[96];
    snprintf(command, sizeof(command), "ulimit -v %u && exec cleave dump -o - %u 2>" ERRORS,
             DUMP_KIB, id);
    FILE *from = popen(command, "r");
    CHECK(from != NULL);
    if (from != NULL) {
        check_stream(from);
        CHECK_EQ(pclose(from), 0);
    }
    CHECK_EQ(stat_of(id, "copied_bytes"), copied);
    CHECK_EQ(stat_of(id, "exclusive_bytes"), alone);
    CHECK_EQ(stat_of(id, "shared_bytes"), shared);
}

/* The child's writes are in its core, its parent's are not. */
static void dump_large(void)
{
    uint32_t parent = make_large();
    uint32_t child =
        (uint32_t)number("cleave fork --paused --json %u | check-json domains.0.id", parent);
    CHECK_EQ(stat_of(child, "copied_bytes"), 0);
    CHECK_EQ(stat_of(child, "shared_bytes"), LARGE);
    by_child[0] = (struct written){mark_at(10), 0xc0};
    by_parent[0] = (struct written){mark_at(10), 0xa0};
    by_child[1] = (struct written){OWN, 0xc1};
    by_parent[1] = (struct written){mark_at(20), 0xa1};
    for (unsigned i = 0; i < WRITES; i++) {
        put(child, by_child[i]);
        put(parent, by_parent[i]);
    }
    uint64_t copied = stat_of(parent, "copied_bytes");
    dump_child(child);
    CHECK_EQ(stat_of(parent, "copied_bytes"), copied);
    char command[64];
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
    dump_large();
    fails_in_the_middle();
    CHECK_EQ(umount(FOLDER), 0);
}
