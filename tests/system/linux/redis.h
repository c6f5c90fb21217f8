/* SPDX-License-Identifier: BSD-2-Clause */
/* A client of redis on a unix socket (RESP, version 2). What goes wrong ends the program with a
 * message. */
#ifndef REDIS_H
#define REDIS_H

#include <stddef.h>

struct redis {
    int fd;
    size_t start, end; /* what of `in` is read, but not yet taken */
    size_t used;       /* what of `out` is to be sent */
    char in[1 << 16], out[1 << 16];
};

struct redis_word {
    const void *bytes;
    size_t size;
};
/* A word that is a string. */
#define REDIS_WORD(text) ((struct redis_word){(text), strlen(text)})

/* Connects to the socket at `path`; waits up to 10 seconds for a server that is starting. */
void redis_open(struct redis *redis, const char *path);

/* Queues a command of `count` words. It is sent when the buffer is full, or a reply is asked for.
 */
void redis_send(struct redis *redis, const struct redis_word *words, unsigned count);

/*
 * Takes the next reply: a string, status or integer goes to `to`, up to `size` bytes, and its
 * length is returned (of a reply that is NULL, 0). Of an array, the length is its count; its parts
 * are the next replies.
 */
size_t redis_reply(struct redis *redis, void *to, size_t size);

/* Prints a message and ends the program with status 3. */
void redis_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
