/* SPDX-License-Identifier: BSD-2-Clause */
/* The data set as a function of its writes; see content.h. */
#include "content.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The finalizer of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).
 */
uint64_t content_mix(uint64_t value)
{
    uint64_t z = value + UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void content_start(struct content *content, uint32_t records)
{
    *content = (struct content){.records = records, .salts = 1};
}

bool content_use_salt(struct content *content, uint32_t salt)
{
    unsigned last = content->salts - 1;
    if (content->salt[last].salt == salt) {
        return true;
    }
    if (content->salts == CONTENT_SALTS) {
        return false;
    }
    content->salt[last + 1].salt = salt;
    content->salt[last + 1].first = content->writes + 1;
    content->salts++;
    return true;
}

void content_print(const struct content *content, char text[CONTENT_TEXT])
{
    int used = snprintf(text, CONTENT_TEXT, "records %" PRIu32 " writes %" PRIu64, content->records,
                        content->writes);
    for (unsigned i = 0; i < content->salts; i++) {
        used +=
            snprintf(text + used, CONTENT_TEXT - (size_t)used, " salt %" PRIu32 " from %" PRIu64,
                     content->salt[i].salt, content->salt[i].first);
    }
}

bool content_parse(struct content *content, const char *text)
{
    int used = 0;
    *content = (struct content){0};
    if (sscanf(text, "records %" SCNu32 " writes %" SCNu64 "%n", &content->records,
               &content->writes, &used) != 2 ||
        content->records == 0) {
        return false;
    }
    while (text[used] != '\0' && content->salts < CONTENT_SALTS) {
        int more = 0;
        unsigned i = content->salts++;
        if (sscanf(text + used, " salt %" SCNu32 " from %" SCNu64 "%n", &content->salt[i].salt,
                   &content->salt[i].first, &more) != 2) {
            return false;
        }
        used += more;
    }
    return text[used] == '\0' && content->salts > 0;
}

uint32_t content_target(const struct content *content, uint64_t version)
{
    return (uint32_t)(content_mix(version) % content->records);
}

void content_key(uint32_t record, char key[CONTENT_KEY])
{
    snprintf(key, CONTENT_KEY, "r:%08" PRIx32, record);
}

static uint32_t salt_of(const struct content *content, uint64_t version)
{
    uint32_t salt = content->salt[0].salt;
    for (unsigned i = 1; i < content->salts && content->salt[i].first <= version; i++) {
        salt = content->salt[i].salt;
    }
    return salt;
}

void content_record(const struct content *content, uint32_t record, uint64_t version,
                    uint8_t bytes[RECORD_SIZE])
{
    _Static_assert(RECORD_SIZE % sizeof(uint64_t) == 0, "records are whole words");
    uint64_t word[3] = {record, version, salt_of(content, version)};
    uint64_t seed = content_mix(word[0] ^ content_mix(word[1] ^ content_mix(word[2])));
    memcpy(bytes, word, sizeof(word));
    for (size_t at = sizeof(word); at < RECORD_SIZE; at += sizeof(seed)) {
        seed ^= seed << 13; /* xorshift64 (Marsaglia: Xorshift RNGs) */
        seed ^= seed >> 7;
        seed ^= seed << 17;
        memcpy(bytes + at, &seed, sizeof(seed));
    }
}

uint64_t *content_versions(const struct content *content)
{
    uint64_t *version = calloc(content->records, sizeof(*version));
    if (version == NULL) {
        fputs("out of memory\n", stderr);
        exit(3);
    }
    for (uint64_t w = 1; w <= content->writes; w++) {
        version[content_target(content, w)] = w;
    }
    return version;
}

/* --- The digest of redis 7.0, as its documentation of DEBUG DIGEST and its answers show ---------
 */

static void xor_hash(uint8_t digest[SHA1_SIZE], const void *bytes, size_t size)
{
    uint8_t hash[SHA1_SIZE];
    sha1(bytes, size, hash);
    for (unsigned i = 0; i < SHA1_SIZE; i++) {
        digest[i] ^= hash[i];
    }
}

/* Unlike xor_hash(), the order counts. */
static void mix_hash(uint8_t digest[SHA1_SIZE], const void *bytes, size_t size)
{
    xor_hash(digest, bytes, size);
    uint8_t mixed[SHA1_SIZE];
    sha1(digest, SHA1_SIZE, mixed);
    memcpy(digest, mixed, SHA1_SIZE);
}

/* Adds one key and its value, a string. */
static void add_pair(uint8_t total[SHA1_SIZE], const char *key, const void *value, size_t size)
{
    static const uint8_t type_string[4] = {0};
    uint8_t digest[SHA1_SIZE] = {0};
    mix_hash(digest, key, strlen(key));
    mix_hash(digest, type_string, sizeof(type_string));
    mix_hash(digest, value, size);
    xor_hash(total, digest, SHA1_SIZE);
}

void content_digest(const struct content *content, uint8_t digest[SHA1_SIZE])
{
    static const uint8_t database[4] = {0}; /* its number, big-endian */
    uint64_t *version = content_versions(content);
    memset(digest, 0, SHA1_SIZE);
    mix_hash(digest, database, sizeof(database));
    for (uint32_t i = 0; i < content->records; i++) {
        uint8_t bytes[RECORD_SIZE];
        char key[CONTENT_KEY];
        content_key(i, key);
        content_record(content, i, version[i], bytes);
        add_pair(digest, key, bytes, sizeof(bytes));
    }
    char text[CONTENT_TEXT];
    content_print(content, text);
    add_pair(digest, CONTENT_STATE, text, strlen(text));
    free(version);
}
