/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Maps of domains that go, and of a mapper that goes. At the end a process is left that holds maps
 * of domain 1, one of them written through, until this whole Linux ends (tests/control.sh starts it
 * again, and then this).
 */
#include "xc.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/wait.h>

#define PAGES 1024u
#define HELD 256u
#define LIFE 5u /* seconds that a process has which maps, where nothing else ends it */

static const uint8_t nothing[] = {0xf3, 0x90, 0xeb, 0xfc}; /* pause; again */

static sigjmp_buf back;

static void caught(int number) { siglongjmp(back, number); }

/* The signal that a load, or a store, ends in; 0: none. */
static int signal_of(volatile uint8_t *at, bool store)
{
    int number = sigsetjmp(back, 1);
    if (number == 0 && store) {
        *at = 1;
    } else if (number == 0) {
        (void)*at;
    }
    return number;
}

/* Its pages go from their maps with the domain: what reaches for them then gets a signal, or EFAULT
 * from this kernel, which lives on. The place can be unmapped, and taken for others. */
static void destroyed_while_mapped(void)
{
    int ends[2];
    uint32_t id = tiny_make(PAGES, nothing, sizeof(nothing));
    uint8_t *read_only = map_pages(id, 100, 1, PROT_READ);
    uint8_t *written = map_pages(id, 600, 300, PROT_READ | PROT_WRITE);
    written[5] = 77;
    CHECK_EQ(read_only[7], 0);
    ANSWER_EQ(xc_domain_destroy(xc, id), 0);
    ANSWER_EQ(info_of(id).domid == DOMID_INVALID, 1);
    ANSWER_EQ(signal_of(read_only, false), SIGSEGV);
    ANSWER_EQ(signal_of(written + 5, false), SIGSEGV);
    ANSWER_EQ(signal_of(written + 299 * PAGE, true), SIGSEGV);
    CHECK_EQ(pipe(ends), 0);
    CHECK_ERRNO(write(ends[1], written, 100), EFAULT);
    close(ends[0]);
    close(ends[1]);
    munmap(read_only, PAGE);
    munmap(written, 300 * PAGE);
    ANSWER_EQ(info_of(id).domid == DOMID_INVALID, 1);
    id = tiny_make(PAGES, nothing, sizeof(nothing));
    written = map_pages(id, 600, 300, PROT_READ | PROT_WRITE);
    ANSWER_EQ(written[5], 0);
    written[5] = 78;
    ANSWER_EQ(written[5], 78);
    munmap(written, 300 * PAGE);
    destroy(id);
}

/* A process that maps pages of a domain and then goes on so, without end. */
static pid_t start_mapper(uint32_t id, unsigned first, unsigned pages,
                          void (*goes_on)(volatile uint8_t *at, size_t size))
{
    int ends[2];
    char told = 0;
    CHECK_EQ(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        xc_interface *own = xc_interface_open(NULL, NULL, 0);
        volatile uint8_t *at =
            xc_map_foreign_range(own, id, (int)(pages * PAGE), PROT_READ | PROT_WRITE, first);
        signal(SIGSEGV, SIG_DFL);
        alarm(LIFE);
        if (at == NULL) {
            _exit(1);
        }
        at[7 * PAGE] ^= 1;
        (void)!write(ends[1], "x", 1);
        goes_on(at, pages * PAGE);
    }
    close(ends[1]);
    CHECK_EQ(read(ends[0], &told, 1), 1);
    close(ends[0]);
    return child;
}

static void writes(volatile uint8_t *at, size_t size)
{
    for (size_t i = 0;; i++) {
        at[i % size] = (uint8_t)i;
    }
}

static void waits(volatile uint8_t *at, size_t size)
{
    (void)at;
    (void)size;
    for (;;) {
        pause();
    }
}

/* While one process maps and writes, the domain goes under its hands. */
static void destroyed_while_it_is_used(void)
{
    uint32_t id = tiny_make(PAGES, nothing, sizeof(nothing));
    pid_t child = start_mapper(id, 512, 500, writes);
    usleep(100000);
    ANSWER_EQ(xc_domain_destroy(xc, id), 0);
    int status = 0;
    CHECK_EQ(waitpid(child, &status, 0), child);
    ANSWER_EQ(WIFSIGNALED(status) ? WTERMSIG(status) : 0, SIGSEGV);
    ANSWER_EQ(info_of(id).domid == DOMID_INVALID, 1);
}

/* A process that is killed takes its maps with it: its domain can be reset then. */
static void mapper_is_killed(void)
{
    if (!forks_here("reset of what is mapped")) {
        return;
    }
    uint32_t id = fork_template(0);
    pid_t child = start_mapper(id, 0x1000, HELD, waits);
    CHECK_FAILS(xc_memshr_fork_reset(xc, id, true, true), EBUSY);
    CHECK_EQ(kill(child, SIGKILL), 0);
    CHECK_EQ(waitpid(child, NULL, 0), child);
    CHECK_EQ(xc_memshr_fork_reset(xc, id, true, true), 0);
    destroy(id);
}

/* Domain 1 has the page as it was left here, whoever maps it and ends. */
static void left_behind(void)
{
    uint8_t *at = map_pages(TEMPLATE, 0x1000, HELD, PROT_READ | PROT_WRITE);
    uint8_t first = at[9 * PAGE + 1];
    at[9 * PAGE + 1] = (uint8_t)~first;
    at[9 * PAGE + 1] = first;
    pid_t child = fork();
    if (child == 0) {
        xc_interface *own = xc_interface_open(NULL, NULL, 0);
        volatile uint8_t *held =
            xc_map_foreign_range(own, TEMPLATE, (int)(HELD * PAGE), PROT_READ | PROT_WRITE, 0x1000);
        setsid();
        held[9 * PAGE + 1] = first;
        for (;;) {
            pause();
        }
    }
    CHECK(child > 0);
    usleep(200000);
    ANSWER_EQ(at[9 * PAGE + 1] == first, 1);
    munmap(at, HELD * PAGE);
}

void test(void)
{
    signal(SIGSEGV, caught);
    signal(SIGBUS, caught);
    destroyed_while_mapped();
    destroyed_while_it_is_used();
    mapper_is_killed();
    left_behind();
}
