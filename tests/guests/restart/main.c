/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control domain ends while it maps pages of others: first by a triple fault, then because the
 * debug console destroys it, the third time by itself. The script starts it again. Each life finds
 * the guests by name, commands them, sees that they went on, and that nothing of them is mapped.
 */
#include "guest.h"
#include "xen.h"

const char guest_name[] = "restart";

#define BOARD (6 * MIB)   /* a page of "counter" */
#define WRITTEN (7 * MIB) /* a page of "kept" */
#define WINDOW (64 * MIB) /* where the control domain maps these two */
#define MEANWHILE 100     /* what a guest counts at least while there is no control domain */

/* Words of BOARD. Each guest counts; the rest is the control domain's. */
enum { COUNT, END, LIFE, COUNT_BEFORE, KEPT_BEFORE };

static uint64_t at_word(unsigned number) { return BOARD + number * UINT64_C(8); }

static void count(void)
{
    while (*word(at_word(END)) == 0) {
        *word(at_word(COUNT)) += 1;
        yield();
    }
}

/* --- The control domain ----------------------------------------------------------------------- */

static uint64_t access_word(uint32_t domain, uint64_t at, bool write, uint64_t value)
{
    struct cleave_copy copy = {
        .domain = domain, .write = write, .at = at, .buffer = (uint64_t)&value, .size = 8};
    CHECK_EQ(CLEAVE(CLEAVE_OP_COPY, &copy), CLEAVE_OK);
    return value;
}

static uint64_t read_word(uint32_t domain, uint64_t at)
{
    return access_word(domain, at, false, 0);
}

static uint64_t counted(uint32_t domain) { return read_word(domain, at_word(COUNT)); }

static bool same(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* The domain of that name; 0: none. */
static uint32_t find(const char *name)
{
    struct cleave_list list = {.domain = 0};
    do {
        CHECK_EQ(CLEAVE(CLEAVE_OP_LIST, &list), CLEAVE_OK);
    } while (list.domain != 0 && (list.state == 0 || !same(list.name, name)));
    return list.domain;
}

static void await_count(uint32_t domain, uint64_t above)
{
    while (counted(domain) <= above) {
        yield();
    }
}

/* What the control domain alone may, and that over any guest. */
static void commands(uint32_t guest)
{
    struct cleave_pool_create pool = {.name = "tenant", .size = 4 * MIB};
    struct cleave_pool_delete gone = {.name = "tenant"};
    CHECK_EQ(CLEAVE(CLEAVE_OP_POOL_CREATE, &pool), CLEAVE_OK);
    CHECK_EQ(CLEAVE(CLEAVE_OP_POOL_DELETE, &gone), CLEAVE_OK);
    on_domain(CLEAVE_OP_PAUSE, guest);
    CHECK_EQ(stat_of(guest)->state, CLEAVE_STATE_PAUSED);
    uint64_t still = counted(guest);
    for (unsigned i = 0; i < 50; i++) {
        yield();
    }
    CHECK_EQ(counted(guest), still);
    on_domain(CLEAVE_OP_UNPAUSE, guest);
    await_count(guest, still);
}

static void make_kept(uint32_t counter)
{
    uint32_t id;
    struct cleave_rename rename = {.name = "kept"};
    struct cleave_fork fork = {.domain = counter,
                               .count = 1,
                               .flags = CLEAVE_FORK_BASE,
                               .limit = UINT64_MAX,
                               .domains = (uint64_t)&id};
    CHECK_EQ(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_OK);
    rename.domain = id;
    CHECK_EQ(CLEAVE(CLEAVE_OP_RENAME, &rename), CLEAVE_OK);
}

static uint64_t reset(uint32_t domain)
{
    struct cleave_domain arguments = {.domain = domain};
    return CLEAVE(CLEAVE_OP_RESET, &arguments);
}

/* What the life before has left. A page that is mapped would make the reset BUSY. */
static void find_left(uint32_t counter, uint32_t kept, uint64_t life)
{
    CHECK(counted(counter) > read_word(counter, at_word(COUNT_BEFORE)) + MEANWHILE);
    CHECK(counted(kept) > read_word(counter, at_word(KEPT_BEFORE)) + MEANWHILE);
    CHECK_EQ(read_word(kept, WRITTEN), life);
    CHECK_EQ(reset(kept), CLEAVE_OK);
    CHECK_EQ(read_word(kept, WRITTEN), 0);
}

/* Maps a page of both, and writes through the maps; ends with them. */
static void hold(uint32_t counter, uint32_t kept, uint64_t life)
{
    volatile uint64_t *board = word(WINDOW);
    CHECK_EQ(reset(kept), CLEAVE_OK);
    map_foreign(counter, BOARD / PAGE, WINDOW);
    map_foreign(kept, WRITTEN / PAGE, WINDOW + PAGE);
    CHECK_EQ(reset(kept), CLEAVE_BUSY);
    *word(WINDOW + PAGE) = life;
    board[LIFE] = life;
    CHECK_EQ(read_word(counter, at_word(LIFE)), life);
    board[KEPT_BEFORE] = counted(kept);
    board[COUNT_BEFORE] = board[COUNT];
}

static _Noreturn void triple_fault(void)
{
    static const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) none = {0, 0};
    __asm__ volatile("lidt %0; ud2" : : "m"(none));
    for (;;) {
    }
}

static _Noreturn void await_end(void)
{
    static const char text[] = "holds\n";
    CHECK_EQ(xen_call(__HYPERVISOR_console_io, CONSOLEIO_write, sizeof(text) - 1, (uint64_t)text),
             0);
    for (;;) {
        yield();
    }
}

static void live(void)
{
    uint32_t counter = find("counter"), other = find("other");
    CHECK(counter != 0 && other != 0);
    await_count(counter, 0);
    uint64_t life = read_word(counter, at_word(LIFE));
    say("%lu before this one", life);
    if (life == 0) {
        CHECK_EQ(find("kept"), 0);
        make_kept(counter);
    } else {
        find_left(counter, find("kept"), life);
    }
    commands(counter);
    commands(other);
    if (life < 2) {
        hold(counter, find("kept"), life + 1);
    }
    if (life == 0) {
        triple_fault();
    } else if (life == 1) {
        await_end();
    }
    destroy(find("kept"));
    audit_clean();
    (void)access_word(counter, at_word(END), true, 1);
    (void)access_word(other, at_word(END), true, 1);
}

void guest_story(void)
{
    if (guest_command[0] == 'c') {
        count();
    } else {
        live();
    }
}
