/* SPDX-License-Identifier: BSD-2-Clause */
/* The conversions of print() and format_text(). No data of its own. */
#include "format.h"

#include "platform.h"

struct conversion {
    unsigned width;
    bool left, zero;
    unsigned longs;
};

struct output {
    void (*put)(void *to, char c);
    void *to;
    int count;
};

static void put(struct output *out, char c)
{
    out->put(out->to, c);
    out->count++;
}

static void put_repeated(struct output *out, char c, unsigned from, unsigned to)
{
    for (; from < to; from++) {
        put(out, c);
    }
}

/* Puts a sign or prefix and `length` characters, filled up to the width. */
static void put_field(struct output *out, const struct conversion *how, const char *prefix,
                      const char *text, unsigned length)
{
    unsigned all = length;
    for (const char *p = prefix; *p; p++) {
        all++;
    }
    if (!how->left && !how->zero) {
        put_repeated(out, ' ', all, how->width);
    }
    for (; *prefix; prefix++) {
        put(out, *prefix);
    }
    if (!how->left && how->zero) {
        put_repeated(out, '0', all, how->width);
    }
    for (unsigned i = 0; i < length; i++) {
        put(out, text[i]);
    }
    if (how->left) {
        put_repeated(out, ' ', all, how->width);
    }
}

static void put_number(struct output *out, const struct conversion *how, const char *prefix,
                       uint64_t value, unsigned base)
{
    char digits[24];
    unsigned at = sizeof(digits);
    do {
        digits[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    put_field(out, how, prefix, digits + at, (unsigned)sizeof(digits) - at);
}

static void put_string(struct output *out, struct conversion *how, const char *text)
{
    unsigned length = 0;
    if (text == NULL) {
        text = "(null)";
    }
    while (text[length]) {
        length++;
    }
    how->zero = false;
    put_field(out, how, "", text, length);
}

static void put_signed(struct output *out, const struct conversion *how, int64_t value)
{
    if (value < 0) {
        put_number(out, how, "-", 0 - (uint64_t)value, 10);
    } else {
        put_number(out, how, "", (uint64_t)value, 10);
    }
}

/* Reads flags, width and length of a conversion; returns where its letter is. */
static const char *read_conversion(const char *at, struct conversion *how)
{
    *how = (struct conversion){0};
    for (; *at == '0' || *at == '-'; at++) {
        how->zero |= *at == '0';
        how->left |= *at == '-';
    }
    for (; *at >= '0' && *at <= '9'; at++) {
        how->width = how->width * 10 + (unsigned)(*at - '0');
    }
    for (; *at == 'l'; at++) {
        how->longs++;
    }
    return at;
}

int format_to(void (*put_char)(void *to, char c), void *to, const char *format, va_list arguments)
{
    struct output out = {put_char, to, 0};
    struct conversion how;
    char c;

    for (const char *at = format; *at; at++) {
        if (*at != '%') {
            put(&out, *at);
            continue;
        }
        at = read_conversion(at + 1, &how);
        switch (*at) {
        case 's':
            put_string(&out, &how, va_arg(arguments, const char *));
            break;
        case 'c':
            c = (char)va_arg(arguments, int);
            how.zero = false;
            put_field(&out, &how, "", &c, 1);
            break;
        case 'd':
            put_signed(&out, &how, how.longs ? va_arg(arguments, long) : va_arg(arguments, int));
            break;
        case 'u':
        case 'x':
            put_number(&out, &how, "",
                       how.longs ? va_arg(arguments, unsigned long)
                                 : va_arg(arguments, unsigned int),
                       *at == 'u' ? 10 : 16);
            break;
        case 'p':
            put_number(&out, &how, "0x", (uintptr_t)va_arg(arguments, void *), 16);
            break;
        case '%':
            put(&out, '%');
            break;
        default:
            /* Nothing can be said of the arguments that follow. */
            put(&out, '%');
            for (; *at; at++) {
                put(&out, *at);
            }
            return out.count;
        }
    }
    return out.count;
}

struct room {
    char *to;
    uint64_t left;
};

static void put_in_room(void *to, char c)
{
    struct room *room = to;
    if (room->left > 1) {
        *room->to++ = c;
        room->left--;
    }
}

int format_text_list(char *to, uint64_t room, const char *format, va_list arguments)
{
    struct room where = {to, room};
    int count = format_to(put_in_room, &where, format, arguments);
    if (room > 0) {
        *where.to = 0;
    }
    return count;
}

int format_text(char *to, uint64_t room, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int count = format_text_list(to, room, format, arguments);
    va_end(arguments);
    return count;
}
