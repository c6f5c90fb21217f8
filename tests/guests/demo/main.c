/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What `make run` shows: a guest full of data forks, the children write at different rates, one is
 * reset again and again, others are destroyed and forked anew, and a table tells each second what
 * every domain has of its own. At the end parent and children check every word.
 *
 * Words of the command line: size=MIB of data (default 256), seconds=N (20), "short" (2 seconds),
 * "terminal" (the table is drawn over the last one).
 */
#include "guest.h"

const char guest_name[] = "demo";

#define BASE GIB            /* where the data lies */
#define SHARED_AT (3 * GIB) /* what parent and children share: a region of its own */
#define CHILDREN 6u
#define RESET_CHILD 5u    /* reset each second */
#define REPLACED_CHILD 6u /* destroyed each second, and forked anew */
#define PAGES_MOST 4096u

static uint32_t ids[CHILDREN + 1]; /* from 1 */
static uint64_t fork_ns[CHILDREN + 1];
static uint64_t data_size, seconds, per_second, began;
static bool terminal;
static uint64_t pages_written; /* by this domain */
static uint64_t resets, forks;

static volatile uint64_t *stop_flag(void) { return word(SHARED_AT); }

/* --- Command line ----------------------------------------------------------------------------- */

/* What stands behind `key` on the command line; null when it is not there. */
static const char *option(const char *key)
{
    for (const char *at = guest_command; *at != '\0'; at++) {
        unsigned i = 0;
        while (key[i] != '\0' && at[i] == key[i]) {
            i++;
        }
        if (key[i] == '\0' && (at == guest_command || at[-1] == ' ')) {
            return at + i;
        }
    }
    return NULL;
}

static uint64_t number(const char *key, uint64_t otherwise)
{
    const char *at = option(key);
    uint64_t value = 0;
    while (at != NULL && *at >= '0' && *at <= '9') {
        value = value * 10 + (uint64_t)(*at++ - '0');
    }
    return value != 0 ? value : otherwise;
}

/* --- Text ------------------------------------------------------------------------------------- */

static char screen[CLEAVE_TEXT_MAX];
static uint32_t used;

static void put(const char *text)
{
    while (*text != '\0' && used < sizeof(screen)) {
        screen[used++] = *text++;
    }
}

/* `value`, with `unit` behind it, at the right of `width` columns. */
static void put_number(uint64_t value, unsigned width, const char *unit)
{
    char digits[24];
    unsigned n = 0, length = 0;
    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while (unit[length] != '\0') {
        length++;
    }
    for (unsigned i = n + length; i < width; i++) {
        put(" ");
    }
    while (n > 0) {
        put((char[2]){digits[--n], '\0'});
    }
    put(unit);
}

static void put_name(const char *name, unsigned width)
{
    unsigned n = 0;
    put(name);
    while (name[n] != '\0') {
        n++;
    }
    for (; n < width; n++) {
        put(" ");
    }
}

static void flush_screen(void)
{
    struct cleave_console console = {.text = (uint64_t)screen, .size = used};
    CHECK_EQ(CLEAVE(CLEAVE_OP_CONSOLE, &console), CLEAVE_OK);
    used = 0;
}

/* --- Data ------------------------------------------------------------------------------------- */

static uint64_t pages(void) { return data_size / PAGE; }

/* The i-th page that child `number` writes: scattered, each once. */
static uint64_t page_at(unsigned number, uint64_t i)
{
    uint64_t count = pages(); /* a power of two: an odd factor hits each page once */
    return BASE + (i * (2 * number + 40503) + number * 97) % count * PAGE;
}

static void write_page(unsigned number)
{
    if (pages_written < pages() && pages_written < PAGES_MOST) {
        uint64_t at = page_at(number, pages_written);
        CHECK_EQ(*word(at), at);
        *word(at) = at + number;
        pages_written++;
    }
}

/* Every page holds what this domain wrote, and what was there before it was forked. */
static void check_data(unsigned number)
{
    for (uint64_t i = 0; i < pages(); i++) {
        uint64_t at = page_at(number, i);
        CHECK_EQ(*word(at), at + (i < pages_written ? number : 0));
        CHECK_EQ(*word(at + PAGE - 8), at + PAGE - 8);
    }
}

/* --- Children --------------------------------------------------------------------------------- */

static void pause_for(uint64_t ticks)
{
    uint64_t start = cycles();
    while (cycles() - start < ticks && *stop_flag() == 0) {
        yield();
    }
}

/* Child n writes 4^n pages a second, at most 256. Where it began is where a reset takes it. */
_Noreturn static void child(unsigned number)
{
    unsigned rate = 1u << 2 * (number < 4 ? number : 4);
    unsigned at_once = rate > 16 ? rate / 16 : 1;
    while (*stop_flag() == 0) {
        for (unsigned i = 0; i < at_once; i++) {
            write_page(number);
        }
        pause_for(per_second * at_once / rate);
    }
    check_data(number);
    leave(0);
}

static void make_child(unsigned number)
{
    if (fork_self(1, number == RESET_CHILD ? CLEAVE_FORK_BASE : 0, &ids[number]) != 0) {
        child(number);
    }
    fork_ns[number] = stat_of(CLEAVE_DOMAIN_SELF)->stood_still;
    forks++;
}

/* --- Table ------------------------------------------------------------------------------------ */

#define TABLE_LINES (CHILDREN + 4u)

static void end_line(void) { put(terminal ? "\033[K\n" : "\n"); }

static void put_row(uint32_t id, const char *role, uint64_t ns)
{
    static const char *const states[] = {"?", "runs", "paused", "starved", "frozen", "ended"};
    const struct cleave_stat *stat = stat_of(id);
    uint64_t all = stat->mapped[0] + stat->mapped[1] + stat->mapped[2];

    put_number(stat->domain, 6, "");
    put("  ");
    put_name(role, 22);
    put_name(states[stat->state <= CLEAVE_STATE_ENDED ? stat->state : 0], 8);
    put_number(stat->faults, 7, "");
    put_number(stat->copied / KIB, 11, "");
    put_number(stat->exclusive / KIB, 11, "");
    put_number(stat->shared / MIB, 11, "");
    put_number(all == 0 ? 0 : (all - stat->mapped[0]) * 100 / all, 8, "%");
    if (ns != 0) {
        put_number(ns / 1000, 8, " us");
    }
    end_line();
}

static void draw(bool first)
{
    static const char *const roles[CHILDREN + 1] = {
        "parent",      "4 pages/s",        "16 pages/s",      "64 pages/s",
        "256 pages/s", "256, reset again", "256, forked anew"};

    if (terminal && !first) {
        put("\033[");
        put_number(TABLE_LINES, 1, "A");
    }
    put_number((cycles() - began) / per_second, 1, " s: ");
    put_number(forks, 1, " forks of ");
    put_number(data_size / MIB, 1, " MiB, ");
    put_number(resets, 1, " resets");
    end_line();
    put("domain  what it writes        state    faults KiB copied  KiB alone MiB shared   2 MiB    "
        " "
        "fork");
    end_line();
    put_row(CLEAVE_DOMAIN_SELF, roles[0], 0);
    for (unsigned i = 1; i <= CHILDREN; i++) {
        put_row(ids[i], roles[i], fork_ns[i]);
    }
    end_line();
    flush_screen();
}

/* --- The story -------------------------------------------------------------------------------- */

static void prepare(void)
{
    struct cleave_version version;
    struct cleave_map data = {.domain = CLEAVE_DOMAIN_SELF,
                              .policy = PRIVATE,
                              .rights = RW,
                              .order = 1,
                              .at = BASE,
                              .flags = CLEAVE_MAP_POPULATE};

    CHECK_EQ(CLEAVE(CLEAVE_OP_VERSION, &version), CLEAVE_OK);
    per_second = version.tsc_per_second;
    data_size = number("size=", 256) * MIB;
    seconds = number("seconds=", option("short") != NULL ? 2 : 20);
    terminal = option("terminal") != NULL;
    data.size = data_size;
    CHECK((data_size & (data_size - 1)) == 0);
    CHECK_EQ(CLEAVE(CLEAVE_OP_MAP, &data), CLEAVE_OK);
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, SHARED_AT, PAGE, SHARED, RW, 0), CLEAVE_OK);
    for (uint64_t at = BASE; at < BASE + data_size; at += 8) {
        *word(at) = at;
    }
    *stop_flag() = 0;
    say("%s, %lu MiB of data under 2 MiB leaves, %lu seconds", version.machine, data_size / MIB,
        seconds);
}

void guest_story(void)
{
    prepare();
    for (unsigned i = 1; i <= CHILDREN; i++) {
        make_child(i);
    }
    began = cycles();
    draw(true);
    for (uint64_t second = 1; second <= seconds; second++) {
        while (cycles() - began < second * per_second) {
            yield();
        }
        draw(false);
        on_domain(CLEAVE_OP_RESET, ids[RESET_CHILD]);
        resets++;
        destroy(ids[REPLACED_CHILD]);
        make_child(REPLACED_CHILD);
    }
    *stop_flag() = 1;
    for (unsigned i = 1; i <= CHILDREN; i++) {
        CHECK_EQ(wait_for(ids[i], 0), ids[i]);
    }
    draw(false);
    check_data(0);
    audit_clean();
    for (unsigned i = 1; i <= CHILDREN; i++) {
        destroy(ids[i]);
    }
    audit_clean();
    say("parent and children read what they should, and every audit was clean");
}
