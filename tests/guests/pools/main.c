/* SPDX-License-Identifier: BSD-2-Clause */
/* The control domain makes pools of untyped memory, resizes them, has domains in them, and gives
 * all of it back. */
#include "guest.h"

const char guest_name[] = "pools";

#define BLOCK (2 * MIB)

static bool same(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

static void put_name(char *to, const char *name, unsigned room)
{
    for (unsigned i = 0; i < room; i++) {
        to[i] = '\0';
    }
    for (unsigned i = 0; i < room && name[i] != '\0'; i++) {
        to[i] = name[i];
    }
}

static void named(uint64_t status, enum cleave_status expected, const char *argument)
{
    CHECK_EQ(status, expected);
    CHECK(same(last_error().argument, argument));
}

static uint64_t make(const char *name, uint64_t size)
{
    struct cleave_pool_create create = {.size = size};
    put_name(create.name, name, sizeof(create.name));
    uint64_t status = CLEAVE(CLEAVE_OP_POOL_CREATE, &create);
    CHECK(status != CLEAVE_OK || create.size == size / BLOCK * BLOCK);
    return status;
}

static uint64_t remove_pool(const char *name)
{
    struct cleave_pool_delete remove;
    put_name(remove.name, name, sizeof(remove.name));
    return CLEAVE(CLEAVE_OP_POOL_DELETE, &remove);
}

static uint64_t resize(const char *name, uint64_t size)
{
    struct cleave_pool_resize change = {.size = size};
    put_name(change.name, name, sizeof(change.name));
    uint64_t status = CLEAVE(CLEAVE_OP_POOL_RESIZE, &change);
    CHECK(change.size == (status == CLEAVE_OK ? size / BLOCK * BLOCK : size));
    return status;
}

/* What LIST says of it; number 0: there is none. */
static struct cleave_pool_list look(const char *name)
{
    struct cleave_pool_list list = {.number = 0};
    do {
        CHECK_EQ(CLEAVE(CLEAVE_OP_POOL_LIST, &list), CLEAVE_OK);
    } while (list.number != 0 && !same(list.name, name));
    return list;
}

static uint64_t create_in(uint32_t pool, const char *name, uint64_t limit, uint32_t *id)
{
    struct cleave_create_in create = {.limit = limit, .vcpus = 1, .pool = pool};
    put_name(create.name, name, sizeof(create.name));
    uint64_t status = CLEAVE(CLEAVE_OP_CREATE_IN, &create);
    *id = create.domain;
    return status;
}

static uint64_t copy(uint32_t domain, bool write, uint64_t at, void *buffer, uint64_t size)
{
    struct cleave_copy copy = {
        .domain = domain, .write = write, .at = at, .buffer = (uint64_t)buffer, .size = size};
    return CLEAVE(CLEAVE_OP_COPY, &copy);
}

/* --- Wrong arguments -------------------------------------------------------------------------- */

static void arguments(uint64_t left)
{
    struct cleave_pool_list list = {.number = 17};
    struct cleave_create_in create = {.name = "x", .limit = UINT64_MAX, .vcpus = 1, .pool = 1};
    static char page[2 * PAGE] __attribute__((aligned(PAGE)));
    uint32_t id;
    named(make("", BLOCK), CLEAVE_INVALID, "name");
    named(make("two words", BLOCK), CLEAVE_INVALID, "name");
    named(make("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", BLOCK), CLEAVE_INVALID, "name"); /* no end */
    named(make("main", BLOCK), CLEAVE_EXISTS, "name");
    named(make("p", 0), CLEAVE_COUNT, "size");
    named(make("p", BLOCK - 1), CLEAVE_COUNT, "size");
    named(make("p", left + BLOCK), CLEAVE_NO_MEMORY, "size");
    named(make("p", UINT64_MAX), CLEAVE_NO_MEMORY, "size");
    CHECK_EQ(last_error().high, left);
    named(remove_pool("nobody"), CLEAVE_NOT_MAPPED, "name");
    named(remove_pool(""), CLEAVE_INVALID, "name");
    named(remove_pool("main"), CLEAVE_BUSY, "spaces");
    named(resize("nobody", BLOCK), CLEAVE_NOT_MAPPED, "name");
    named(resize("", BLOCK), CLEAVE_INVALID, "name");
    named(resize("main", 0), CLEAVE_COUNT, "size");
    named(resize("main", BLOCK - 1), CLEAVE_COUNT, "size");
    named(resize("main", UINT64_MAX), CLEAVE_NO_MEMORY, "size");
    named(resize("main", BLOCK), CLEAVE_BUSY, "size");
    CHECK(last_error().low > BLOCK && last_error().low <= 96 * MIB);
    CHECK_EQ(last_error().high, 96 * MIB);
    CHECK_EQ(resize("main", 96 * MIB + 1), CLEAVE_OK); /* as it is */
    named(CLEAVE(CLEAVE_OP_POOL_LIST, &list), CLEAVE_RANGE, "number");
    list = (struct cleave_pool_list){.reserved = 1};
    named(CLEAVE(CLEAVE_OP_POOL_LIST, &list), CLEAVE_INVALID, "reserved");
    named(create_in(0, "x", UINT64_MAX, &id), CLEAVE_RANGE, "pool");
    named(create_in(17, "x", UINT64_MAX, &id), CLEAVE_RANGE, "pool");
    named(create_in(16, "x", UINT64_MAX, &id), CLEAVE_NOT_MAPPED, "pool");
    named(create_in(1, "fork-1", UINT64_MAX, &id), CLEAVE_INVALID, "name");
    named(create_in(1, "other", UINT64_MAX, &id), CLEAVE_EXISTS, "name");
    create.vcpus = 9;
    named(CLEAVE(CLEAVE_OP_CREATE_IN, &create), CLEAVE_COUNT, "vcpus");
    create.vcpus = 1;
    create.reserved = 1;
    named(CLEAVE(CLEAVE_OP_CREATE_IN, &create), CLEAVE_INVALID, "reserved");
    /* A structure that cannot be written back: nothing is begun. */
    put_name(page, "p", CLEAVE_POOL_NAME_SIZE);
    *(uint64_t *)(void *)(page + CLEAVE_POOL_NAME_SIZE) = BLOCK;
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, (uint64_t)page, PAGE, READ_ONLY, R, 0), CLEAVE_OK);
    named(cleave(CLEAVE_OP_POOL_CREATE, page, sizeof(struct cleave_pool_create)), CLEAVE_FAULT,
          "at");
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, (uint64_t)page, PAGE, PRIVATE, RW, 0), CLEAVE_OK);
    put_name(page, "main", CLEAVE_POOL_NAME_SIZE);
    *(uint64_t *)(void *)(page + CLEAVE_POOL_NAME_SIZE) = 98 * MIB;
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, (uint64_t)page, PAGE, READ_ONLY, R, 0), CLEAVE_OK);
    named(cleave(CLEAVE_OP_POOL_RESIZE, page, sizeof(struct cleave_pool_resize)), CLEAVE_FAULT,
          "at");
    CHECK_EQ(map(CLEAVE_DOMAIN_SELF, (uint64_t)page, PAGE, PRIVATE, RW, 0), CLEAVE_OK);
    CHECK_EQ(look("main").size, 96 * MIB);
    CHECK_EQ(look("p").left, left);
}

/* What is not the control domain's. */
static void stranger(void)
{
    struct cleave_pool_list list = {.number = 0};
    uint32_t id;
    named(make("mine", BLOCK), CLEAVE_DENIED, "caller");
    named(remove_pool("main"), CLEAVE_DENIED, "caller");
    named(resize("main", 96 * MIB), CLEAVE_DENIED, "caller");
    named(CLEAVE(CLEAVE_OP_POOL_LIST, &list), CLEAVE_DENIED, "caller");
    named(create_in(1, "x", UINT64_MAX, &id), CLEAVE_DENIED, "caller");
}

/* --- Use -------------------------------------------------------------------------------------- */

/* Memory of a domain in another pool comes from there, and is as good as any. */
static void domain_in(const char *pool)
{
    static uint64_t words[512], again[512];
    uint32_t id, second;
    struct cleave_pool_list before = look(pool);
    uint64_t own = stat_of(CLEAVE_DOMAIN_SELF)->pool_free;
    CHECK_EQ(before.spaces, 0);
    CHECK_EQ(create_in(before.number, "inside", UINT64_MAX, &id), CLEAVE_OK);
    CHECK_EQ(map(id, 0, 16 * MIB, PRIVATE, RW, 1), CLEAVE_OK);
    for (uint64_t i = 0; i < 512; i++) {
        words[i] = i * UINT64_C(0x9e3779b97f4a7c15);
    }
    CHECK_EQ(copy(id, true, 8 * MIB - 100, words, sizeof(words)), CLEAVE_OK);
    CHECK_EQ(copy(id, false, 8 * MIB - 100, again, sizeof(again)), CLEAVE_OK);
    for (unsigned i = 0; i < 512; i++) {
        CHECK_EQ(again[i], words[i]);
    }
    CHECK(before.free - look(pool).free >= 2 * BLOCK);
    CHECK_EQ(look(pool).spaces, 1);
    CHECK_EQ(stat_of(CLEAVE_DOMAIN_SELF)->pool_free, own);
    named(remove_pool(pool), CLEAVE_BUSY, "spaces");
    CHECK_EQ(look(pool).flags, 0);
    /* What it was refused for is not lost: it can still be used. */
    CHECK_EQ(create_in(before.number, "second", BLOCK, &second), CLEAVE_OK);
    destroy(second);
    /* Past what it has, nobody waits. */
    CHECK_EQ(map(id, GIB, GIB, PRIVATE, RW, 1), CLEAVE_OK);
    uint64_t status = CLEAVE_OK;
    for (uint64_t at = GIB; at < 2 * GIB && status == CLEAVE_OK; at += BLOCK) {
        status = copy(id, true, at, words, 8);
    }
    CHECK_EQ(status, CLEAVE_NO_MEMORY);
    destroy(id);
    CHECK_EQ(look(pool).spaces, 0);
}

/* A pool alone, to all the sizes that it can have, and one with another right behind it. */
static void sizes(uint64_t left)
{
    CHECK_EQ(make("a", 32 * MIB), CLEAVE_OK);
    uint64_t empty = 32 * MIB - look("a").free;
    for (uint64_t size = BLOCK; size <= 64 * MIB; size += 2 * BLOCK) {
        CHECK_EQ(resize("a", size), CLEAVE_OK);
        CHECK_EQ(look("a").size, size);
        CHECK_EQ(look("a").free, size - empty);
        CHECK_EQ(look("").left, left - size);
        CHECK_EQ(resize("a", 32 * MIB), CLEAVE_OK);
    }
    CHECK_EQ(resize("a", BLOCK), CLEAVE_OK);
    named(resize("a", GIB), CLEAVE_NO_MEMORY, "size");
    uint64_t most = last_error().high;
    CHECK_EQ(most, left);
    CHECK_EQ(resize("a", most), CLEAVE_OK);
    CHECK(look("").left < left);
    named(resize("a", most + BLOCK), CLEAVE_NO_MEMORY, "size");
    CHECK_EQ(last_error().high, most);
    audit_clean();
    CHECK_EQ(resize("a", 32 * MIB), CLEAVE_OK);
    CHECK_EQ(make("b", 16 * MIB), CLEAVE_OK);
    named(resize("a", 34 * MIB), CLEAVE_NO_MEMORY, "size");
    CHECK_EQ(last_error().high, 32 * MIB);
    CHECK_EQ(resize("b", 32 * MIB), CLEAVE_OK);
    CHECK_EQ(resize("a", 16 * MIB), CLEAVE_OK); /* what lies between is had by either side */
    CHECK_EQ(make("c", 16 * MIB), CLEAVE_OK);
    named(resize("a", 18 * MIB), CLEAVE_NO_MEMORY, "size");
    CHECK_EQ(remove_pool("c"), CLEAVE_OK);
    CHECK_EQ(resize("a", 32 * MIB), CLEAVE_OK);
    CHECK_EQ(remove_pool("b"), CLEAVE_OK);
    CHECK_EQ(resize("a", 34 * MIB), CLEAVE_OK);
    CHECK_EQ(remove_pool("a"), CLEAVE_OK);
    CHECK_EQ(look("").left, left);
}

/* A number for each block of a domain's memory from GIB on, until there is not even a page. */
static uint64_t fill(uint32_t id, uint64_t from)
{
    uint64_t status = CLEAVE_OK;
    for (; status == CLEAVE_OK; from += status == CLEAVE_OK ? BLOCK : 0) {
        status = copy(id, true, GIB + from, &from, sizeof(from));
    }
    CHECK_EQ(status, CLEAVE_NO_MEMORY);
    return from;
}

/* A domain has what its pool gains, and keeps it from being given up. */
static void domain_grows(uint64_t left)
{
    uint64_t found;
    uint32_t id;
    CHECK_EQ(make("a", 32 * MIB), CLEAVE_OK);
    CHECK_EQ(create_in(look("a").number, "inside", UINT64_MAX, &id), CLEAVE_OK);
    CHECK_EQ(map(id, GIB, 8 * GIB, PRIVATE, RW, 1), CLEAVE_OK);
    uint64_t before = fill(id, 0);
    CHECK(before >= 24 * MIB);
    CHECK_EQ(resize("a", 64 * MIB), CLEAVE_OK);
    uint64_t after = fill(id, before);
    CHECK(after >= before + 32 * MIB);
    named(resize("a", 32 * MIB), CLEAVE_BUSY, "size");
    uint64_t least = last_error().low;
    CHECK(least > 32 * MIB && least <= 64 * MIB);
    CHECK_EQ(look("a").size, 64 * MIB);
    CHECK_EQ(resize("a", least), CLEAVE_OK);
    CHECK_EQ(resize("a", 96 * MIB), CLEAVE_OK);
    for (uint64_t at = 0; at < after; at += BLOCK) {
        CHECK_EQ(copy(id, false, GIB + at, &found, sizeof(found)), CLEAVE_OK);
        CHECK_EQ(found, at);
    }
    CHECK_EQ(look("a").spaces, 1);
    destroy(id);
    CHECK_EQ(resize("a", BLOCK), CLEAVE_OK);
    CHECK_EQ(resize("a", 48 * MIB), CLEAVE_OK);
    domain_in("a");
    CHECK_EQ(remove_pool("a"), CLEAVE_OK);
    CHECK_EQ(look("").left, left);
}

void guest_story(void)
{
    if (same(guest_command, "other")) {
        stranger();
        return;
    }
    const uint64_t left = look("").left;
    say("%lu MiB are left", left / MIB);
    CHECK(left >= 128 * MIB);
    CHECK_EQ(look("main").number, 1);
    CHECK_EQ(look("main").size, 96 * MIB);
    arguments(left);
    CHECK_EQ(make("first", 64 * MIB), CLEAVE_OK); /* parts of it, beside what stays */
    CHECK_EQ(make("second", BLOCK), CLEAVE_OK);
    CHECK_EQ(look("").left, left - 66 * MIB);
    CHECK_EQ(remove_pool("first"), CLEAVE_OK);
    CHECK_EQ(remove_pool("second"), CLEAVE_OK);
    CHECK_EQ(look("").left, left);
    for (unsigned turn = 0; turn < 20; turn++) { /* all that is left, each time */
        CHECK_EQ(make("all", left), CLEAVE_OK);
        CHECK(look("").left < left);
        CHECK_EQ(remove_pool("all"), CLEAVE_OK);
        CHECK_EQ(look("").left, left);
    }
    CHECK_EQ(make("a", 32 * MIB + 1), CLEAVE_OK);
    CHECK_EQ(make("b", 48 * MIB), CLEAVE_OK);
    CHECK_EQ(make("c", 16 * MIB), CLEAVE_OK);
    named(make("b", BLOCK), CLEAVE_EXISTS, "name");
    domain_in("b");
    domain_in("a");
    CHECK_EQ(remove_pool("b"), CLEAVE_OK);
    CHECK_EQ(look("b").number, 0);
    CHECK_EQ(make("d", 48 * MIB), CLEAVE_OK); /* in its place */
    CHECK_EQ(remove_pool("a"), CLEAVE_OK);
    CHECK_EQ(remove_pool("c"), CLEAVE_OK);
    domain_in("d");
    audit_clean();
    CHECK_EQ(remove_pool("d"), CLEAVE_OK);
    CHECK_EQ(look("").left, left);
    for (unsigned i = 1; i < 16; i++) { /* as many as there can be */
        CHECK_EQ(make((char[]){'p', (char)('a' + i), '\0'}, BLOCK), CLEAVE_OK);
    }
    named(make("q", BLOCK), CLEAVE_COUNT, "pools");
    for (unsigned i = 1; i < 16; i += 2) {
        CHECK_EQ(remove_pool((char[]){'p', (char)('a' + i), '\0'}), CLEAVE_OK);
    }
    for (unsigned i = 2; i < 16; i += 2) {
        CHECK_EQ(remove_pool((char[]){'p', (char)('a' + i), '\0'}), CLEAVE_OK);
    }
    CHECK_EQ(look("").left, left);
    sizes(left);
    domain_grows(left);
    CHECK_EQ(make("kept", left), CLEAVE_OK); /* it is audited at the end, and so is this domain's */
    CHECK_EQ(resize("kept", left - 10 * BLOCK), CLEAVE_OK);
    if (resize("main", 98 * MIB) == CLEAVE_OK) {
        uint64_t status = resize("main", 96 * MIB);
        CHECK(status == CLEAVE_OK || status == CLEAVE_BUSY);
    }
}
