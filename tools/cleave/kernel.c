/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files of guests: read whole; a bzImage (Linux's Documentation/arch/x86/boot.rst) is unpacked to
 * the ELF kernel in it. Every offset and size in the file is checked before it is used.
 */
#include "kernel.h"

#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define SIZE_MAX_FILE ((size_t)2 << 30)
#define SIZE_MAX_KERNEL ((size_t)1 << 30)

const char *file_read(const char *path, struct bytes *out)
{
    struct bytes file = {.at = NULL};
    size_t room = 0;
    FILE *from = fopen(path, "rb");
    if (from == NULL) {
        return strerror(errno);
    }
    const char *wrong = NULL;
    while (wrong == NULL && !feof(from)) {
        if (file.size == room) {
            room = 2 * room + ((size_t)1 << 20);
            unsigned char *more = room <= SIZE_MAX_FILE ? realloc(file.at, room) : NULL;
            if (more == NULL) {
                wrong = "too large for this domain's memory";
                break;
            }
            file.at = more;
        }
        file.size += fread(file.at + file.size, 1, room - file.size, from);
        wrong = ferror(from) ? strerror(errno) : NULL;
    }
    fclose(from);
    if (wrong == NULL && file.size == 0) {
        wrong = "it is empty";
    }
    if (wrong != NULL) {
        free(file.at);
        return wrong;
    }
    *out = file;
    return NULL;
}

static uint32_t word_at(const struct bytes *file, size_t offset)
{
    const unsigned char *at = file->at + offset;
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* --- Streams: true when they give exactly out->size bytes --------------------------------------
 */

#define LZ4_MAGIC 0x184c2102u /* of the legacy format: blocks of 8 MiB, each with its length */
#define LZ4_BLOCK ((size_t)8 << 20)

static bool unpack_lz4(const struct bytes *in, struct bytes *out)
{
    size_t at = 4, done = 0;
    while (at + 4 <= in->size) {
        uint32_t length = word_at(in, at);
        at += 4;
        if (length == LZ4_MAGIC) {
            continue; /* another frame */
        }
        size_t room = out->size - done < LZ4_BLOCK ? out->size - done : LZ4_BLOCK;
        if (length > in->size - at || length > LZ4_COMPRESSBOUND(LZ4_BLOCK)) {
            return false;
        }
        int size = LZ4_decompress_safe((const char *)in->at + at, (char *)out->at + done,
                                       (int)length, (int)room);
        if (size < 0) {
            return false;
        }
        at += length;
        done += (size_t)size;
    }
    return at == in->size && done == out->size;
}

static bool unpack_xz(const struct bytes *in, struct bytes *out)
{
    uint64_t limit = UINT64_C(256) << 20;
    size_t at = 0, done = 0;
    return lzma_stream_buffer_decode(&limit, 0, NULL, in->at, &at, in->size, out->at, &done,
                                     out->size) == LZMA_OK &&
           done == out->size;
}

static bool unpack_gzip(const struct bytes *in, struct bytes *out)
{
    z_stream stream = {.next_in = in->at,
                       .avail_in = (uInt)in->size,
                       .next_out = out->at,
                       .avail_out = (uInt)out->size};
    if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) {
        return false;
    }
    bool good = inflate(&stream, Z_FINISH) == Z_STREAM_END && stream.avail_out == 0;
    inflateEnd(&stream);
    return good;
}

/* --- The image ---------------------------------------------------------------------------------
 */

/* Offsets of the setup header. */
enum { SETUP_SECTORS = 0x1f1, MAGIC = 0x202, VERSION = 0x206, PAYLOAD = 0x248, LENGTH = 0x24c };
enum { HEADER_END = 0x250, VERSION_PAYLOAD = 0x208 };

/* Finds the compressed stream. Behind it stands the size of what it holds; of gzip that is its own
 * last field. */
static const char *find_payload(const struct bytes *file, struct bytes *payload)
{
    if ((word_at(file, VERSION) & 0xffff) < VERSION_PAYLOAD) {
        return "its boot protocol is older than 2.08 and says not where the kernel is";
    }
    size_t sectors = file->at[SETUP_SECTORS] != 0 ? file->at[SETUP_SECTORS] : 4;
    size_t start = (sectors + 1) * 512 + word_at(file, PAYLOAD);
    payload->size = word_at(file, LENGTH);
    if (start > file->size || payload->size > file->size - start || payload->size < 8) {
        return "a bzImage that is cut short";
    }
    payload->at = file->at + start;
    return NULL;
}

static const char *unpack(const struct bytes *payload, struct bytes *kernel)
{
    static const struct {
        uint32_t magic, mask;
        bool (*unpack)(const struct bytes *in, struct bytes *out);
        size_t behind; /* the stream: bytes of the payload */
    } formats[] = {{LZ4_MAGIC, UINT32_MAX, unpack_lz4, 4},
                   {0x587a37fd, UINT32_MAX, unpack_xz, 4},
                   {0x8b1f, 0xffff, unpack_gzip, 0}};

    kernel->size = word_at(payload, payload->size - 4);
    if (kernel->size == 0 || kernel->size > SIZE_MAX_KERNEL) {
        return "a bzImage whose kernel has no size, or more than 1 GiB";
    }
    for (unsigned i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        if ((word_at(payload, 0) & formats[i].mask) == formats[i].magic) {
            struct bytes stream = {payload->at, payload->size - formats[i].behind};
            kernel->at = malloc(kernel->size);
            if (kernel->at == NULL) {
                return "no memory to unpack it";
            }
            if (formats[i].unpack(&stream, kernel)) {
                return NULL;
            }
            free(kernel->at);
            return "a bzImage that cannot be unpacked: it is damaged";
        }
    }
    return "a bzImage that is compressed by none of gzip, xz and lz4";
}

const char *kernel_unpack(struct bytes *file)
{
    struct bytes payload, kernel;
    if (file->size < HEADER_END || memcmp(file->at + MAGIC, "HdrS", 4) != 0) {
        return file->size < 4 || memcmp(file->at, "\177ELF", 4) != 0
                   ? "neither an ELF kernel nor a bzImage"
                   : NULL;
    }
    const char *wrong = find_payload(file, &payload);
    if (wrong == NULL) {
        wrong = unpack(&payload, &kernel);
    }
    if (wrong == NULL) {
        free(file->at);
        *file = kernel;
    }
    return wrong;
}
