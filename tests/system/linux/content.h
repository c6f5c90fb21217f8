/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the data set of the workload holds at each instant: a function of the number of writes
 * alone, so that a fork can prove that it sees the whole of one instant without having been told
 * what was there.
 *
 * The set has a number of records of RECORD_SIZE bytes, version 0 at first. Write number w, counted
 * from 1, puts version w into the record that content_target() says. Each domain that writes has
 * its salt, and what it writes depends on it; the state, one more value of the set, says how many
 * writes there were and which salt they had. A write changes its record and the state in one step.
 */
#ifndef CONTENT_H
#define CONTENT_H

#include "sha1.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECORD_SIZE 4064u /* with redis's header, a 4 KiB block of its allocator */
#define CONTENT_SALTS 16u
#define CONTENT_TEXT 1024u /* more than CONTENT_SALTS of the longest numbers take */
#define CONTENT_KEY 16u

struct content {
    uint32_t records;
    uint64_t writes;
    unsigned salts;
    struct {
        uint32_t salt;
        uint64_t first; /* the first write with this salt; those before have the salt before */
    } salt[CONTENT_SALTS];
};

/* The state of `records` records never written: salt 0, no writes. */
void content_start(struct content *content, uint32_t records);

/* Later writes have this salt. Returns false when the state has had CONTENT_SALTS salts. */
bool content_use_salt(struct content *content, uint32_t salt);

/* The state as the set holds it, a string, and back. Parsing returns false when it is no such
 * string. */
void content_print(const struct content *content, char text[CONTENT_TEXT]);
bool content_parse(struct content *content, const char *text);

/* Which record write number `version`, at least 1, changes. */
uint32_t content_target(const struct content *content, uint64_t version);

/* A record's key, a string, and what it holds in a version up to content->writes. */
void content_key(uint32_t record, char key[CONTENT_KEY]);
void content_record(const struct content *content, uint32_t record, uint64_t version,
                    uint8_t bytes[RECORD_SIZE]);

/* The version of each record, content->records numbers, to be freed by the caller. */
uint64_t *content_versions(const struct content *content);

/* What redis must answer to DEBUG DIGEST. */
void content_digest(const struct content *content, uint8_t digest[SHA1_SIZE]);

/* A number that looks random, the same for the same value. */
uint64_t content_mix(uint64_t value);

#define CONTENT_STATE "state" /* the state's key */

#endif
