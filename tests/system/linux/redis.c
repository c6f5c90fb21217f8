/* SPDX-License-Identifier: BSD-2-Clause */
/* RESP over a unix socket; see redis.h. */
#include "redis.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

void redis_fail(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(3);
}

void redis_open(struct redis *redis, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        redis_fail("the socket's name is too long: %s", path);
    }
    memcpy(address.sun_path, path, strlen(path));
    *redis = (struct redis){.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    unsigned tries = 0;
    while (connect(redis->fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        if (++tries == 100) {
            redis_fail("%s: %s", path, strerror(errno));
        }
        nanosleep(&(struct timespec){.tv_nsec = 100 * 1000 * 1000}, NULL);
    }
}

static void flush(struct redis *redis)
{
    for (size_t sent = 0; sent < redis->used;) {
        ssize_t size = write(redis->fd, redis->out + sent, redis->used - sent);
        if (size < 0 && errno != EINTR) {
            redis_fail("redis is gone: %s", strerror(errno));
        }
        sent += size > 0 ? (size_t)size : 0;
    }
    redis->used = 0;
}

static void put(struct redis *redis, const void *bytes, size_t size)
{
    if (size > sizeof(redis->out) - redis->used) {
        flush(redis);
    }
    if (size > sizeof(redis->out)) {
        redis_fail("a word of %zu bytes", size);
    }
    memcpy(redis->out + redis->used, bytes, size);
    redis->used += size;
}

static void put_head(struct redis *redis, char type, size_t count)
{
    char head[32];
    int size = snprintf(head, sizeof(head), "%c%zu\r\n", type, count);
    put(redis, head, (size_t)size);
}

void redis_send(struct redis *redis, const struct redis_word *words, unsigned count)
{
    put_head(redis, '*', count);
    for (unsigned i = 0; i < count; i++) {
        put_head(redis, '$', words[i].size);
        put(redis, words[i].bytes, words[i].size);
        put(redis, "\r\n", 2);
    }
}

/* Reads until at least one byte is there that was not taken. */
static void fill(struct redis *redis)
{
    if (redis->used > 0) {
        flush(redis);
    }
    while (redis->start == redis->end) {
        ssize_t size = read(redis->fd, redis->in, sizeof(redis->in));
        if (size == 0 || (size < 0 && errno != EINTR)) {
            redis_fail("redis is gone: %s", size == 0 ? "it closed its socket" : strerror(errno));
        }
        redis->start = 0;
        redis->end = size > 0 ? (size_t)size : 0;
    }
}

/* Takes `size` bytes, of which the first `room` go to `to`. */
static void take(struct redis *redis, char *to, size_t room, size_t size)
{
    for (size_t done = 0; done < size;) {
        fill(redis);
        size_t part = redis->end - redis->start;
        if (part > size - done) {
            part = size - done;
        }
        if (done < room) {
            memcpy(to + done, redis->in + redis->start, part < room - done ? part : room - done);
        }
        redis->start += part;
        done += part;
    }
}

/* Takes a line without its end. */
static size_t take_line(struct redis *redis, char *line, size_t size)
{
    for (size_t used = 0; used < size; used++) {
        take(redis, line + used, 1, 1);
        if (line[used] == '\n' && used > 0) {
            line[used - 1] = '\0';
            return used - 1;
        }
    }
    redis_fail("redis sent a line of more than %zu bytes", size);
}

size_t redis_reply(struct redis *redis, void *to, size_t size)
{
    char line[512], end[2];
    size_t length = take_line(redis, line, sizeof(line));
    long count = strtol(line + 1, NULL, 10);
    switch (line[0]) {
    case '$':
        if (count < 0) {
            return 0;
        }
        take(redis, to, size, (size_t)count);
        take(redis, end, sizeof(end), sizeof(end));
        return (size_t)count;
    case '*':
        return count > 0 ? (size_t)count : 0;
    case '+':
    case ':':
        memcpy(to, line + 1, length - 1 < size ? length - 1 : size);
        return length - 1;
    default:
        redis_fail("redis refused: %s", line + 1);
    }
}
