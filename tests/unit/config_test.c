/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The boot configuration: what each word becomes, and each thing that is wrong with its line and
 * text. The text is a buffer of exactly its size, so that the sanitizer sees each byte read past
 * it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../hv/kernel/config.h"
#include "cleave/abi.h"
#include "test.h"

static struct config config;
static struct config_error error;

static bool parse_bytes(const char *text, size_t size)
{
    char *copy = malloc(size);
    memcpy(copy, text, size);
    memset(&config, 0xa5, sizeof(config));
    memset(&error, 0xa5, sizeof(error));
    bool good = config_parse(copy, size, &config, &error);
    free(copy);
    return good;
}
static bool parse(const char *text) { return parse_bytes(text, strlen(text)); }

static void check_text(const char *is, const char *wanted)
{
    if (strcmp(is, wanted) != 0) {
        printf("\"%s\" instead of \"%s\"\n", is, wanted);
    }
    CHECK_EQ(strcmp(is, wanted), 0);
}

static const char full[] =
    "pool p1 size=4K\npool p2 size=3G\n"
    "domain b paused pool=p2 kernel=k2 memory=1048576K order=2 vcpus=8 limit=8192 "
    "command=\"one two # three\"  # comment\n"
    "domain c command=x\"y z\"w pool=p1 kernel=k3 memory=140737488355328\n";

TEST(reads_options)
{
    REQUIRE(parse("option stop console=all\noption script=lines"));
    CHECK(config.stop);
    check_text(config.console, "all");
    check_text(config.script, "lines");
    REQUIRE(parse("# nothing"));
    CHECK(!config.stop);
    check_text(config.console, "");
    check_text(config.script, "");
}

TEST(reads_every_field)
{
    REQUIRE(parse(full));
    CHECK_EQ(config.pools, 2);
    check_text(config.pool[0].name, "p1");
    CHECK_EQ(config.pool[0].size, 4096);
    check_text(config.pool[1].name, "p2");
    CHECK_EQ(config.pool[1].size, UINT64_C(3) << 30);
    REQUIRE(config.domains == 2);
    const struct config_domain *d = &config.domain[0];
    check_text(d->name, "b");
    check_text(d->pool, "p2");
    check_text(d->kernel, "k2");
    check_text(d->command, "one two # three");
    CHECK_EQ(d->memory, UINT64_C(1) << 30);
    CHECK_EQ(d->limit, 8192);
    CHECK_EQ(d->order, 2);
    CHECK_EQ(d->vcpus, 8);
    CHECK(d->paused);
    d = &config.domain[1];
    check_text(d->pool, "p1");
    check_text(d->command, "xy zw");
    CHECK_EQ(d->memory, UINT64_C(1) << 47);
    CHECK_EQ(d->limit, UINT64_MAX);
    CHECK_EQ(d->order, 1);
    CHECK_EQ(d->vcpus, 1);
    CHECK(!d->paused);
    CHECK(!config.stop);
    CHECK_LE(CONFIG_NAME_SIZE, CLEAVE_NAME_SIZE);
}

TEST(comments_blanks_and_ends)
{
    REQUIRE(parse("# two tenants\n\n   \t \npool main size=256M   # a quarter\r\n"
                  "\tpool  rest\tsize=all#x\n  option stop\n#"));
    CHECK_EQ(config.pools, 2);
    check_text(config.pool[1].name, "rest");
    CHECK_EQ(config.pool[1].size, 0);
    CHECK_EQ(config.domains, 0);
    CHECK(config.stop);
    /* A text ends with its size, or with a zero byte. */
    CHECK(parse_bytes("pool a size=4K\0?", 16));
    CHECK_EQ(config.pools, 1);
    CHECK(parse_bytes("", 0));
    CHECK_EQ(config.pools + config.domains + config.stop, 0);
    CHECK(parse("option"));
    CHECK(!config.stop);
}

TEST(options)
{
    REQUIRE(parse("option top=3600 stop input=b\noption terminal console=all\n"));
    CHECK_EQ(config.top, 3600);
    CHECK(config.stop && config.terminal);
    check_text(config.console, "all");
    check_text(config.input, "b");
    REQUIRE(parse("option top=1"));
    CHECK_EQ(config.top, 1);
    CHECK(!config.stop && !config.terminal);
    check_text(config.console, "");
    check_text(config.input, "");
    REQUIRE(parse(""));
    CHECK_EQ(config.top, 0);
}

#define P "pool p size=1M\n"
#define D "domain d pool=p kernel=k memory=2M "
#define X10 "xxxxxxxxxx"
#define X31 X10 X10 X10 "x"
#define X100 X10 X10 X10 X10 X10 X10 X10 X10 X10 X10
#define X255 X100 X100 X10 X10 X10 X10 X10 "xxxxx"

static const struct wrong_case {
    const char *label, *text;
    unsigned line;
    const char *says;
} wrong[] = {
    {"kind", P "\nswap s", 3, "a line begins with pool, domain or option, not: swap"},
    {"kind-case", "Pool p", 1, "a line begins with pool, domain or option, not: Pool"},
    {"kind-long", "\n" X31 "x", 2, "too long: " X31},
    {"kind-longest", X31, 1, "a line begins with pool, domain or option, not: " X31},
    {"kind-empty", "\"\" x", 1, "a line begins with pool, domain or option, not"},
    {"unprintable", P "pool \x01", 2, "not a printable character after"},
    {"unprintable-inside", "pool a\x1f", 1, "not a printable character after: a"},
    {"tab-in-quote", P D "command=\"a\tb\"", 2, "not a printable character after: a"},
    {"high-bit", "pool a\xff", 1, "not a printable character after: a"},
    {"quote", P D "command=\"a b\n", 2, "a quote that does not end: a b"},
    {"quote-key", P D "\"paused", 2, "a quote that does not end: paused"},
    {"pool-no-name", P "pool", 2, "a name is missing"},
    {"pool-no-name-comment", "pool # size=1M", 1, "a name is missing"},
    {"pool-name-empty", "pool \"\" size=1M", 1, "a name is missing"},
    {"pool-name-long", "pool " X31 "x size=1M", 1, "too long: " X31 "x"},
    {"pool-name-longer", "pool " X255 "x size=1M", 1,
     "too long: " X10 X10 X10 X10 X10 X10 X10 X10 "xxxxx"},
    {"pool-twice", P P, 2, "this pool is there already: p"},
    {"pool-no-size", P "pool q", 2, "a pool needs size=: q"},
    {"pool-size-empty", "pool q size=", 1, "not a number"},
    {"pool-size-word", "pool q size=much", 1, "not a number: much"},
    {"pool-size-all", "pool q size=all!", 1, "not a number: all!"},
    {"pool-size-sign", "pool q size=-4096", 1, "not a number: -4096"},
    {"pool-size-lower", "pool q size=4k", 1, "not a number: 4k"},
    {"pool-size-suffix", "pool q size=4T", 1, "a size ends in K, M or G: 4T"},
    {"pool-size-after", "pool q size=4KB", 1, "a size ends in K, M or G: 4KB"},
    {"pool-size-only-suffix", "pool q size=K", 1, "not a number: K"},
    {"pool-size-small", "pool q size=4095", 1, "out of its range: 4095"},
    {"pool-size-zero", "pool q size=0", 1, "out of its range: 0"},
    {"pool-size-large", "pool q size=140737488359424", 1, "out of its range: 140737488359424"},
    {"pool-size-pages", "pool q size=4097", 1, "not a multiple of 4K: 4097"},
    {"pool-size-2-64", "pool q size=18446744073709551616", 1,
     "a number that is too large: 18446744073709551616"},
    {"pool-size-2-64-less", "pool q size=18446744073709551615", 1,
     "out of its range: 18446744073709551615"},
    {"pool-size-digits", "pool q size=100000000000000000000000", 1,
     "a number that is too large: 100000000000000000000000"},
    {"pool-size-shifts", "pool q size=18014398509481984K", 1,
     "a number that is too large: 18014398509481984K"},
    {"pool-size-shifts-less", "pool q size=17179869183G", 1, "out of its range: 17179869183G"},
    {"pool-size-g", "pool q size=17179869184G", 1, "a number that is too large: 17179869184G"},
    {"pool-word", "pool q size=4K big", 1, "unknown word for a pool: big"},
    {"pool-word-empty", "pool q size=4K =x", 1, "unknown word for a pool"},
    {"pool-blank", "pool q size =4K", 1, "not a number"},
    {"domain-no-name", P "domain", 2, "a name is missing"},
    {"domain-name-long", P "domain " X31 "x", 2, "too long: " X31 "x"},
    {"domain-twice", P D "\n" D, 3, "this domain is there already: d"},
    {"domain-no-pool", P "domain d kernel=k memory=2M", 2,
     "a domain needs pool= of a pool above it"},
    {"domain-other-pool", P "domain d pool=q kernel=k memory=2M", 2,
     "a domain needs pool= of a pool above it: q"},
    {"domain-pool-below", "domain d pool=p kernel=k memory=2M\n" P, 1,
     "a domain needs pool= of a pool above it: p"},
    {"domain-pool-empty", P "domain d pool= kernel=k memory=2M", 2, "a name is missing"},
    {"domain-no-kernel", P "domain d pool=p memory=2M", 2, "a domain needs kernel= and memory=: d"},
    {"domain-no-memory", P "domain d pool=p kernel=k", 2, "a domain needs kernel= and memory=: d"},
    {"domain-kernel-empty", P D "kernel=", 2, "a name is missing"},
    {"domain-kernel-long", P D "kernel=" X31 "x", 2, "too long: " X31 "x"},
    {"domain-pool-long", P D "pool=" X31 "x", 2, "too long: " X31 "x"},
    {"domain-memory", P D "memory=1", 2, "out of its range: 1"},
    {"domain-limit", P D "limit=all", 2, "not a number: all"},
    {"domain-order", P D "order=3", 2, "out of its range: 3"},
    {"domain-order-word", P D "order=x", 2, "not a number: x"},
    {"domain-vcpus-none", P D "vcpus=0", 2, "out of its range: 0"},
    {"domain-vcpus-many", P D "vcpus=9", 2, "out of its range: 9"},
    {"domain-vcpus-2-32", P D "vcpus=4294967297", 2, "out of its range: 4294967297"},
    {"domain-paused", P D "paused=yes", 2, "paused has no value: yes"},
    {"domain-command-long", P D "command=" X255 "x", 2,
     "too long: " X10 X10 X10 X10 X10 X10 X10 X10 "xxxxx"},
    {"domain-word", P D "color=red", 2, "unknown word for a domain: color"},
    {"domain-word-long", P D X31 "x=1", 2, "too long: " X31},
    {"pool-size-twice", "\npool q size=4K size=4K", 2, "given twice: size"},
    {"domain-pool-twice", P D "pool=p", 2, "given twice: pool"},
    {"domain-control-value", P D "control=yes", 2, "control has no value: yes"},
    {"domain-control-twice", P D "control control", 2, "given twice: control"},
    {"two-controls", P D "control\ndomain e pool=p kernel=k memory=2M control", 3,
     "there is a control domain already: d"},
    {"domain-initrd-twice", P D "initrd=a initrd=b", 2, "given twice: initrd"},
    {"domain-kernel-twice", P D "kernel=k", 2, "given twice: kernel"},
    {"domain-memory-twice", P D "memory=2M", 2, "given twice: memory"},
    {"domain-limit-twice", P D "limit=2M limit=2M", 2, "given twice: limit"},
    {"domain-order-twice", P D "order=1 order=1", 2, "given twice: order"},
    {"domain-vcpus-twice", P D "vcpus=1 vcpus=2", 2, "given twice: vcpus"},
    {"domain-paused-twice", P D "paused paused", 2, "given twice: paused"},
    {"domain-command-twice", P D "command= command=x", 2, "given twice: command"},
    {"option-twice", P "option stop stop", 2, "given twice: stop"},
    {"option-twice-in-lines", "option stop\n" P "option stop", 3, "given twice: stop"},
    {"option", P "option go", 2, "unknown option: go"},
    {"option-console-twice", "option console=all\noption console=x", 2, "given twice: console"},
    {"option-input-twice", "option input=a input=b", 1, "given twice: input"},
    {"option-script-twice", "option script=a script=b", 1, "given twice: script"},
    {"option-script-name", "option script=", 1, "a name is missing"},
    {"option-value", "option stop=1", 1, "unknown option: stop"},
    {"option-top-zero", "option top=0", 1, "out of its range: 0"},
    {"option-top-high", "option top=3601", 1, "out of its range: 3601"},
    {"option-top-empty", "option top", 1, "not a number"},
    {"option-top-twice", "option top=2 top=2", 1, "given twice: top"},
    {"option-terminal-twice", "option terminal\noption terminal", 2, "given twice: terminal"},
    {"option-terminal-value", "option terminal=1", 1, "unknown option: terminal"},
    {"option-console-twice", "option console=a console=a", 1, "given twice: console"},
    {"option-second", "option stop halt", 1, "unknown option: halt"},
    {"option-quote", "option \"stop", 1, "a quote that does not end: stop"},
};

TEST_TABLE(refuses, wrong)
{
    CHECK(!parse(row->text));
    CHECK_EQ(error.line, row->line);
    check_text(error.what, row->says);
}

TEST(longest_texts)
{
    REQUIRE(parse("pool " X31 " size=4K\ndomain " X31 " pool=" X31 " kernel=" X31
                  " memory=4K command=" X255));
    check_text(config.pool[0].name, X31);
    check_text(config.domain[0].name, X31);
    check_text(config.domain[0].pool, X31);
    check_text(config.domain[0].kernel, X31);
    check_text(config.domain[0].command, X255);
}

/* `objects` lines; one more than there may be is refused in its line. */
static void check_limit(const char *before, const char *format, unsigned limit, const char *says)
{
    char text[8192];
    for (unsigned count = limit; count <= limit + 1; count++) {
        int length = snprintf(text, sizeof(text), "%s", before);
        for (unsigned i = 0; i < count; i++) {
            length += snprintf(text + length, sizeof(text) - (size_t)length, format, i);
        }
        CHECK_EQ(parse(text), count == limit);
        if (count > limit) {
            CHECK_EQ(error.line, limit + 1 + (before[0] != '\0'));
            check_text(error.what, says);
        }
    }
}

TEST(limits)
{
    check_limit("", "pool p%u size=4K\n", CONFIG_POOLS_MAX, "more pools than there may be");
    check_limit(P, "domain d%u pool=p kernel=k memory=4K\n", CONFIG_DOMAINS_MAX,
                "more domains than there may be");
    for (unsigned vcpus = 1; vcpus <= CLEAVE_VCPUS_MAX; vcpus++) {
        char text[128];
        (void)snprintf(text, sizeof(text), P D "vcpus=%u", vcpus);
        REQUIRE(parse(text));
        CHECK_EQ(config.domain[0].vcpus, vcpus);
    }
}

static bool ends(const char *text, unsigned room) { return memchr(text, 0, room) != NULL; }

/* Whatever was read: counts and texts within their arrays, values within their ranges. */
static void check_sound(bool good)
{
    CHECK(config.pools <= CONFIG_POOLS_MAX && config.domains <= CONFIG_DOMAINS_MAX);
    CHECK(ends(error.what, sizeof(error.what)));
    CHECK_EQ(error.what[0] == '\0', good);
    for (unsigned i = 0; good && i < config.pools; i++) {
        CHECK(ends(config.pool[i].name, CONFIG_NAME_SIZE) && config.pool[i].name[0] != '\0');
        CHECK_EQ(config.pool[i].size % 4096, 0);
    }
    for (unsigned i = 0; good && i < config.domains; i++) {
        const struct config_domain *d = &config.domain[i];
        CHECK(ends(d->name, CONFIG_NAME_SIZE) && d->name[0] != '\0');
        CHECK(ends(d->kernel, CONFIG_NAME_SIZE) && d->kernel[0] != '\0');
        CHECK(ends(d->command, CONFIG_TEXT_SIZE));
        CHECK(d->memory >= 4096 && d->order <= 2 && d->vcpus >= 1);
        CHECK_LE(d->vcpus, CLEAVE_VCPUS_MAX);
    }
}

/* With every byte cut off at the end, and at the beginning. */
TEST(cut_at_every_byte)
{
    for (size_t size = 0; size < sizeof(full); size++) {
        test_case("%zu bytes", size);
        check_sound(parse_bytes(full, size));
        check_sound(parse_bytes(full + size, sizeof(full) - 1 - size));
    }
    /* What was whole before the cut is there. */
    const char *second = strchr(full, '\n') + 1;
    CHECK(parse_bytes(full, (size_t)(second - full)));
    CHECK_EQ(config.pools, 1);
}

TEST(random_bytes)
{
    static const char letters[] = "pool domain size=1M\n\"#KMG kernel=memory=\t\r";
    uint64_t seed = test_seed();
    for (uint64_t i = 0; i < test_steps(20000); i++) {
        char text[sizeof(full)];
        memcpy(text, full, sizeof(full));
        for (uint64_t n = test_random(&seed) % 6; n > 0; n--) {
            unsigned char byte = (unsigned char)test_random(&seed);
            bool letter = byte % 4 != 0;
            memcpy(text + test_random(&seed) % (sizeof(full) - 1),
                   letter ? letters + byte % (sizeof(letters) - 1) : (char *)&byte, 1);
        }
        check_sound(parse_bytes(text, sizeof(full) - 1));
    }
}
