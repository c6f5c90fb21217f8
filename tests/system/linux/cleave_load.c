/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cleave-load: fills a redis server with the data set of content.h, writes to it without end, and
 * checks it, whole or in part, against what it must hold. The status is 0 when all was as it must
 * be, 1 when the data are wrong, 2 for a call that cannot be understood, 3 when redis could not be
 * asked.
 */
#include "content.h"
#include "identity.h"
#include "redis.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "cleave-load SOCKET fill MIB            fills the server anew with MIB MiB of records\n"
    "cleave-load SOCKET write [COUNT SALT]  writes COUNT times; or until the first of SIGTERM and "
    "a fork of this domain\n"
    "cleave-load SOCKET writes              prints how many writes there were\n"
    "cleave-load SOCKET digest              compares redis's digest (SHA-1) of the whole set\n"
    "cleave-load SOCKET scan                reads and compares the whole set, which nobody may "
    "write to meanwhile\n"
    "cleave-load SOCKET sample NUMBER       compares a random MiB, another for each NUMBER\n"
    "cleave-load SOCKET job [SALT]          writes once, with the domain's id if no salt is said, "
    "and compares 64 KiB that begin with that "
    "record\n"
    "cleave-load SOCKET flip RECORD BYTE    flips a bit of that byte of that record\n";

#define MIB (UINT64_C(1) << 20)
#define FILL_BATCH 64u /* records on their way at once */

static struct redis redis;
static volatile sig_atomic_t stop;

static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

/* Sends a command of one to three words that are strings. */
static void send_text(const char *a, const char *b, const char *c)
{
    struct redis_word words[] = {REDIS_WORD(a), {0}, {0}};
    unsigned count = 1;
    if (b != NULL) {
        words[count++] = REDIS_WORD(b);
    }
    if (c != NULL) {
        words[count++] = REDIS_WORD(c);
    }
    redis_send(&redis, words, count);
}

/* Takes a reply that is a short string. */
static void take_text(char *text, size_t size)
{
    size_t length = redis_reply(&redis, text, size - 1);
    text[length < size - 1 ? length : size - 1] = '\0';
}

static void take_state(struct content *content)
{
    char text[CONTENT_TEXT];
    take_text(text, sizeof(text));
    if (!content_parse(content, text)) {
        printf("the state is wrong: \"%s\"\n", text);
        exit(1);
    }
}

static void read_state(struct content *content)
{
    send_text("GET", CONTENT_STATE, NULL);
    take_state(content);
}

/* Ends a transaction, so that its replies are next. */
static void execute(unsigned commands)
{
    char ignored[16];
    send_text("EXEC", NULL, NULL);
    for (unsigned i = 0; i <= commands; i++) { /* "OK" to MULTI, "QUEUED" to each */
        take_text(ignored, sizeof(ignored));
    }
    if (redis_reply(&redis, ignored, sizeof(ignored)) != commands) {
        redis_fail("redis lost a transaction");
    }
}

static int fill_server(uint64_t mib)
{
    struct content content;
    char ignored[16], text[CONTENT_TEXT];
    content_start(&content, (uint32_t)((mib * MIB + RECORD_SIZE - 1) / RECORD_SIZE));
    send_text("FLUSHALL", NULL, NULL);
    redis_reply(&redis, ignored, sizeof(ignored));
    for (uint32_t i = 0; i < content.records; i++) {
        uint8_t bytes[RECORD_SIZE];
        char key[CONTENT_KEY];
        content_key(i, key);
        content_record(&content, i, 0, bytes);
        redis_send(
            &redis,
            (struct redis_word[]){REDIS_WORD("SET"), REDIS_WORD(key), {bytes, sizeof(bytes)}}, 3);
        if (i % FILL_BATCH == FILL_BATCH - 1 || i == content.records - 1) {
            for (uint32_t j = i - i % FILL_BATCH; j <= i; j++) {
                redis_reply(&redis, ignored, sizeof(ignored));
            }
        }
    }
    content_print(&content, text);
    send_text("SET", CONTENT_STATE, text);
    redis_reply(&redis, ignored, sizeof(ignored));
    printf("%" PRIu32 " records of %u bytes\n", content.records, RECORD_SIZE);
    return 0;
}

/* One write: the record and the state in one command. */
static void write_once(struct content *content)
{
    uint8_t bytes[RECORD_SIZE];
    char key[CONTENT_KEY], text[CONTENT_TEXT], ignored[16];
    uint64_t version = ++content->writes;
    uint32_t record = content_target(content, version);
    content_key(record, key);
    content_record(content, record, version, bytes);
    content_print(content, text);
    redis_send(&redis,
               (struct redis_word[]){REDIS_WORD("MSET"),
                                     REDIS_WORD(key),
                                     {bytes, sizeof(bytes)},
                                     REDIS_WORD(CONTENT_STATE),
                                     REDIS_WORD(text)},
               5);
    redis_reply(&redis, ignored, sizeof(ignored));
}

/* The state, with this salt for the writes that come now. */
static void start_writing(struct content *content, uint32_t salt)
{
    read_state(content);
    if (!content_use_salt(content, salt)) {
        redis_fail("the set has been written to with %u salts", CONTENT_SALTS);
    }
}

/* Whether this is the same domain as that with this generation. */
static bool same_domain(const volatile struct cleave_identity *identity, const uint8_t *generation)
{
    return identity == NULL || memcmp(generation, (const void *)identity->generation,
                                      sizeof(identity->generation)) == 0;
}

/* Writes `count` times, at least once, or until it is told to stop or finds itself in a fork. */
static int write_records(uint64_t count, uint32_t salt)
{
    const volatile struct cleave_identity *identity = identity_map();
    uint8_t generation[sizeof(identity->generation)] = {0};
    if (identity != NULL) {
        memcpy(generation, (const void *)identity->generation, sizeof(generation));
    }
    struct content content;
    start_writing(&content, salt);
    uint64_t first = content.writes;
    do {
        write_once(&content);
    } while (!stop && content.writes - first < count && same_domain(identity, generation));
    printf("%" PRIu64 " writes, %" PRIu64 " in all\n", content.writes - first, content.writes);
    return 0;
}

static int print_writes(void)
{
    struct content content;
    read_state(&content);
    printf("%" PRIu64 "\n", content.writes);
    return 0;
}

static int compare_digest(void)
{
    struct content content;
    uint8_t digest[SHA1_SIZE];
    char found[2 * SHA1_SIZE + 1], expected[2 * SHA1_SIZE + 1];
    send_text("MULTI", NULL, NULL);
    send_text("GET", CONTENT_STATE, NULL);
    send_text("DEBUG", "DIGEST", NULL);
    execute(2);
    take_state(&content);
    take_text(found, sizeof(found));
    content_digest(&content, digest);
    for (unsigned i = 0; i < SHA1_SIZE; i++) {
        snprintf(expected + 2 * (size_t)i, 3, "%02x", digest[i]);
    }
    bool right = strcmp(found, expected) == 0;
    printf("digest %s after %" PRIu64 " writes: %s\n", found, content.writes,
           right ? "right" : "WRONG");
    return !right;
}

static void ask_records(uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        char key[CONTENT_KEY];
        content_key(i, key);
        send_text("GET", key, NULL);
    }
}

/* Takes the records that were asked for. Returns how many are not as they must be. */
static uint32_t compare_records(const struct content *content, const uint64_t *version,
                                uint32_t first, uint32_t count)
{
    uint32_t wrong = 0;
    for (uint32_t i = first; i < first + count; i++) {
        uint8_t expected[RECORD_SIZE], found[RECORD_SIZE];
        content_record(content, i, version[i], expected);
        wrong += redis_reply(&redis, found, sizeof(found)) != sizeof(found) ||
                 memcmp(found, expected, sizeof(found)) != 0;
    }
    return wrong;
}

static int tell_wrong(const struct content *content, uint32_t wrong)
{
    printf("after %" PRIu64 " writes: ", content->writes);
    if (wrong == 0) {
        printf("right\n");
    } else {
        printf("%" PRIu32 " WRONG\n", wrong);
    }
    return wrong != 0;
}

static int compare_all(void)
{
    struct content content, after;
    read_state(&content);
    uint64_t *version = content_versions(&content);
    uint32_t wrong = 0;
    for (uint32_t i = 0, part = 16; i < content.records; i += part) {
        part = content.records - i < part ? content.records - i : part;
        ask_records(i, part);
        wrong += compare_records(&content, version, i, part);
    }
    free(version);
    read_state(&after);
    if (after.writes != content.writes) {
        redis_fail("the set was written to while it was read");
    }
    printf("scan of %" PRIu32 " records ", content.records);
    return tell_wrong(&content, wrong);
}

/* Compares `count` records from `first` on, or as many as there are, at one instant. */
static int compare_part(uint32_t first, uint32_t count)
{
    struct content content;
    send_text("MULTI", NULL, NULL);
    send_text("GET", CONTENT_STATE, NULL);
    ask_records(first, count);
    execute(count + 1);
    take_state(&content);
    uint64_t *version = content_versions(&content);
    uint32_t wrong = compare_records(&content, version, first, count);
    free(version);
    printf("records %" PRIu32 " to %" PRIu32 " ", first, first + count - 1);
    return tell_wrong(&content, wrong);
}

static uint32_t records_of(uint64_t bytes)
{
    return (uint32_t)((bytes + RECORD_SIZE - 1) / RECORD_SIZE);
}

static int compare_sample(uint64_t number)
{
    struct content content;
    read_state(&content);
    uint32_t count = records_of(MIB);
    if (count > content.records) {
        count = content.records;
    }
    printf("sample %" PRIu64 ", ", number);
    return compare_part((uint32_t)(content_mix(~number) % (content.records - count + 1)), count);
}

static int do_job(uint32_t salt)
{
    struct content content;
    start_writing(&content, salt);
    write_once(&content);
    uint32_t first = content_target(&content, content.writes), count = records_of(64 << 10);
    printf("job with salt %" PRIu32 ", ", salt);
    return compare_part(first, count < content.records - first ? count : content.records - first);
}

static int flip_bit(uint32_t record, uint32_t byte)
{
    char key[CONTENT_KEY], at[16], value[1], ignored[16];
    content_key(record, key);
    snprintf(at, sizeof(at), "%" PRIu32, byte);
    redis_send(&redis,
               (struct redis_word[]){REDIS_WORD("GETRANGE"), REDIS_WORD(key), REDIS_WORD(at),
                                     REDIS_WORD(at)},
               4);
    if (redis_reply(&redis, value, sizeof(value)) != sizeof(value)) {
        redis_fail("record %" PRIu32 " has no byte %" PRIu32, record, byte);
    }
    value[0] ^= 1;
    redis_send(&redis,
               (struct redis_word[]){
                   REDIS_WORD("SETRANGE"), REDIS_WORD(key), REDIS_WORD(at), {value, sizeof(value)}},
               4);
    redis_reply(&redis, ignored, sizeof(ignored));
    return 0;
}

/* A number from `low` to UINT32_MAX; anything else ends the program. */
static uint32_t number(const char *text, uint32_t low)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 0);
    if (errno != 0 || end == text || *end != '\0' || value < low || value > UINT32_MAX) {
        fputs(usage, stderr);
        exit(2);
    }
    return (uint32_t)value;
}

/* --- Commands: what follows a command's name, as numbers ----------------------------------------
 */

static int run_fill(const uint32_t *word) { return fill_server(word[0]); }

static int run_write_on(const uint32_t *word)
{
    (void)word;
    return write_records(UINT64_MAX, 0);
}

static int run_write(const uint32_t *word) { return write_records(word[0], word[1]); }

static int run_writes(const uint32_t *word)
{
    (void)word;
    return print_writes();
}

static int run_digest(const uint32_t *word)
{
    (void)word;
    return compare_digest();
}

static int run_scan(const uint32_t *word)
{
    (void)word;
    return compare_all();
}

static int run_sample(const uint32_t *word) { return compare_sample(word[0]); }

static int run_job(const uint32_t *word) { return do_job(word[0]); }

static int run_own_job(const uint32_t *word)
{
    (void)word;
    const volatile struct cleave_identity *identity = identity_map();
    if (identity == NULL) {
        redis_fail("there is no identity page");
    }
    return do_job(identity->domain);
}

static int run_flip(const uint32_t *word) { return flip_bit(word[0], word[1]); }

struct command {
    const char *name;
    int words;
    uint32_t low; /* what the first word must be at least */
    int (*run)(const uint32_t *word);
};
static const struct command commands[] = {
    {"fill", 1, 1, run_fill},     {"write", 0, 0, run_write_on}, {"write", 2, 1, run_write},
    {"writes", 0, 0, run_writes}, {"digest", 0, 0, run_digest},  {"scan", 0, 0, run_scan},
    {"sample", 1, 0, run_sample}, {"job", 1, 0, run_job},        {"flip", 2, 0, run_flip},
    {"job", 0, 0, run_own_job},
};

int main(int argc, char **argv)
{
    const struct command *command = commands,
                         *end = commands + sizeof(commands) / sizeof(commands[0]);
    while (command < end && (argc != 3 + command->words || strcmp(argv[2], command->name) != 0)) {
        command++;
    }
    if (command == end) {
        fputs(usage, stderr);
        return 2;
    }
    uint32_t word[2] = {0};
    for (int i = 0; i < command->words; i++) {
        word[i] = number(argv[3 + i], i == 0 ? command->low : 0);
    }
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    redis_open(&redis, argv[1]);
    return command->run(word);
}
