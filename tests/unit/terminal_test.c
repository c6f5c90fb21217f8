/* SPDX-License-Identifier: BSD-2-Clause */
/* Rings of terminals: what is kept, what is dropped, whose turn the line is. */
#include "../../hv/kernel/terminal.h"

#include <stdio.h>
#include <string.h>

#include "host.h"
#include "test.h"

#define DOMAINS 4u

static struct domain domain[DOMAINS];
static struct space space;
static struct mm_ctx *ctx;
static bool refuse; /* frames for rings */
static unsigned rings;
static char line[1 << 16]; /* what was shown */
static uint32_t shown;

enum cleave_status object_alloc(struct mm_ctx *c, struct payer *payer, pfn_t *out)
{
    (void)c;
    (void)payer;
    if (refuse) {
        return CLEAVE_NO_MEMORY;
    }
    *out = host_take(1, 0);
    memset(frame_address(*out), 0, PAGE_SIZE);
    rings++;
    return CLEAVE_OK;
}
void object_free(struct mm_ctx *c, pfn_t f)
{
    (void)c;
    memset(frame_address(f), 0xd5, PAGE_SIZE);
    rings--;
}
pfn_t object_frame(const void *object)
{
    return pfn((uint32_t)(((const unsigned char *)object - machine.direct_map) >> PAGE_SHIFT));
}

static void show(const char *text, size_t size)
{
    REQUIRE(shown + size < sizeof(line));
    memcpy(line + shown, text, size);
    shown += (uint32_t)size;
    line[shown] = '\0';
}
void console_write(const char *text, size_t size) { show(text, size); }
void print(const char *format, ...)
{
    va_list arguments;
    char text[256];
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    show(text, (size_t)size);
}
int format_text(char *to, uint64_t room, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(to, room, format, arguments);
    va_end(arguments);
    return size;
}

struct domain *domain_next(uint32_t id) { return id < DOMAINS ? &domain[id] : NULL; }
struct domain *domain_get(uint32_t id) { return &domain[id - 1]; }
void domain_put(struct mm_ctx *c, struct domain *which)
{
    (void)c;
    (void)which;
}
struct space *domain_use(struct domain *which)
{
    (void)which;
    return &space;
}
void domain_unuse(struct domain *which) { (void)which; }
uint32_t xen_type(struct domain *which, const char *bytes, uint32_t count)
{
    (void)which;
    (void)bytes;
    return count;
}

static void setup(void)
{
    host_start(NULL);
    ctx = host_ctx(0);
    for (unsigned i = 0; i < DOMAINS; i++) {
        domain[i] = (struct domain){.id = i + 1, .space = &space};
        snprintf(domain[i].name, sizeof(domain[i].name), "d%u", i + 1);
    }
}

static void write(unsigned i, const char *text)
{
    terminal_write(ctx, &domain[i], text, (uint32_t)strlen(text));
}

TEST(keeps_the_newest_and_counts_the_rest)
{
    static char all[3 * TERMINAL_SIZE], kept[2 * TERMINAL_SIZE];
    uint64_t seed = test_seed();
    uint32_t size = 0, dropped;
    setup();
    CHECK_EQ(terminal_read(&domain[0], kept, sizeof(kept), &dropped), 0);
    while (size < sizeof(all) - 300) {
        uint32_t part = (uint32_t)(test_random(&seed) % 300);
        for (uint32_t i = 0; i < part; i++) {
            all[size + i] = (char)test_random(&seed);
        }
        terminal_write(ctx, &domain[0], all + size, part);
        size += part;
        uint32_t want = size < TERMINAL_SIZE ? size : TERMINAL_SIZE;
        REQUIRE_EQ(terminal_read(&domain[0], kept, sizeof(kept), &dropped), want);
        REQUIRE_EQ(dropped, size - want);
        REQUIRE(memcmp(kept, all + size - want, want) == 0);
        want = want < 100 ? want : 100;
        REQUIRE_EQ(terminal_read(&domain[0], kept, 100, &dropped), want);
        REQUIRE(memcmp(kept, all + size - want, want) == 0);
    }
    terminal_free(ctx, &domain[0]);
    CHECK_EQ(rings, 0);
    CHECK_EQ(terminal_read(&domain[0], kept, sizeof(kept), &dropped), 0);
}

/* Others read what they want of it, and take nothing from the line. */
TEST(is_read_from_any_byte_on)
{
    static char all[4 * TERMINAL_SIZE], part[TERMINAL_SIZE];
    uint64_t seed = test_seed(), from = 0;
    uint32_t size = 0;
    setup();
    CHECK(terminal_written(&domain[0]) == 0 &&
          terminal_read_from(&domain[0], &from, part, sizeof(part)) == 0 && from == 0);
    terminal_show(1);
    while (size < sizeof(all) - 300) {
        uint32_t count = (uint32_t)(test_random(&seed) % 300);
        for (uint32_t i = 0; i < count; i++) {
            all[size + i] = (char)('a' + test_random(&seed) % 26);
        }
        terminal_write(ctx, &domain[0], all + size, count);
        size += count;
        if (test_random(&seed) % 4 == 0) {
            (void)terminal_poll();
        }
        REQUIRE_EQ(terminal_written(&domain[0]), size);
        uint64_t wanted = test_random(&seed) % (size + 1);
        uint64_t oldest = size < TERMINAL_SIZE ? 0 : size - TERMINAL_SIZE;
        uint32_t room = (uint32_t)(test_random(&seed) % sizeof(part));
        from = wanted;
        uint32_t given = terminal_read_from(&domain[0], &from, part, room);
        REQUIRE_EQ(from, wanted < oldest ? oldest : wanted);
        REQUIRE_EQ(given, room < size - from ? room : size - from);
        REQUIRE(memcmp(part, all + from, given) == 0);
    }
    terminal_free(ctx, &domain[0]);
    CHECK_EQ(rings, 0);
}

TEST(lines_carry_names_when_all_are_shown)
{
    setup();
    terminal_show(TERMINAL_ALL);
    write(0, "one\ntwo\n");
    write(1, "three\nfo");
    while (terminal_poll()) {
    }
    CHECK(strstr(line, "d1: one\n") != NULL);
    CHECK(strstr(line, "d1: two\n") != NULL);
    CHECK(strstr(line, "d2: three\n") != NULL);
    write(0, "five\n");
    write(1, "ur\n");
    while (terminal_poll()) {
    }
    CHECK(strstr(line, "d1: five\nd2: four\n") != NULL);
}

TEST(only_the_one_in_front_is_shown)
{
    setup();
    terminal_show(2);
    write(0, "hidden\n");
    write(1, "shown\nas it is");
    while (terminal_poll()) {
    }
    CHECK_EQ(strcmp(line, "shown\nas it is"), 0);
}

/* A prompt, whose line does not end, is there for who is put in front of it. */
TEST(a_line_that_is_begun_is_shown_in_front)
{
    setup();
    terminal_show(TERMINAL_ALL);
    write(1, "login: ");
    while (terminal_poll()) {
    }
    CHECK(strstr(line, "login") == NULL);
    for (unsigned i = 0; i < 2 * 3; i++) { /* the first domain, the second */
        CHECK(!terminal_typed(ctx, TERMINAL_KEY) || i % 3 != 2);
    }
    while (terminal_poll()) {
    }
    CHECK(strstr(line, "login: ") != NULL);
    terminal_free(ctx, &domain[1]);
    CHECK_EQ(rings, 0);
}

/* A terminal that always has more does not keep the line for itself. */
TEST(everyone_has_a_turn)
{
    static const struct {
        const char *label, *text;
    } endless[] = {{"lines", "a line\n"}, {"no lines", "no end of a line "}};
    for (unsigned i = 0; i < 2; i++) {
        unsigned polls = 0;
        test_case("%s", endless[i].label);
        setup();
        shown = 0;
        terminal_show(TERMINAL_ALL);
        for (unsigned n = 0; n < 100; n++) {
            write(0, endless[i].text);
        }
        write(1, "and I\n");
        while (strstr(line, "d2: and I\n") == NULL && polls++ < 100) {
            for (unsigned n = 0; n < 100; n++) {
                write(0, endless[i].text);
            }
            (void)terminal_poll();
            shown = strstr(line, "and I") != NULL ? shown : 0;
        }
        CHECK_LE(polls, 50);
        terminal_free(ctx, &domain[0]);
        terminal_free(ctx, &domain[1]);
        CHECK_EQ(rings, 0);
        host_stop();
    }
}

/* The ring of a domain that ends leaves the line wherever it stands in the row. */
TEST(ends_anywhere_in_the_row)
{
    for (unsigned end = 0; end < 3; end++) {
        test_case("domain %u", end + 1);
        setup();
        shown = 0;
        terminal_show(TERMINAL_ALL);
        write(0, "a\n");
        write(1, "b\n");
        write(2, "c\n");
        terminal_free(ctx, &domain[end]);
        write(3, "last\n");
        while (terminal_poll()) {
        }
        CHECK_EQ(strstr(line, "a\n") != NULL, end != 0);
        CHECK_EQ(strstr(line, "b\n") != NULL, end != 1);
        CHECK_EQ(strstr(line, "c\n") != NULL, end != 2);
        CHECK(strstr(line, "last\n") != NULL);
        for (unsigned i = 0; i < DOMAINS; i++) {
            terminal_free(ctx, &domain[i]);
        }
        CHECK_EQ(rings, 0);
        host_stop();
    }
}

/* What finds no memory for a ring is lost, and nothing else. */
TEST(no_memory_for_a_ring)
{
    char kept[8];
    uint32_t dropped;
    setup();
    refuse = true;
    write(0, "lost");
    CHECK_EQ(terminal_read(&domain[0], kept, sizeof(kept), &dropped), 0);
    refuse = false;
    write(0, "kept");
    CHECK_EQ(terminal_read(&domain[0], kept, sizeof(kept), &dropped), 4);
    CHECK_BYTES(kept, "kept", 4);
    terminal_free(ctx, &domain[0]);
}
