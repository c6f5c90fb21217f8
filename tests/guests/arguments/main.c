/* SPDX-License-Identifier: BSD-2-Clause */
/* Every operation with wrong arguments: its own status, the argument named, and nothing changed. */
#include "guest.h"

const char guest_name[] = "arguments";

static bool same(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* The last call was refused for this argument. */
static void named(uint64_t status, enum cleave_status expected, const char *argument)
{
    struct cleave_error error;
    CHECK_EQ(status, expected);
    error = last_error();
    CHECK_EQ(error.status, expected);
    if (!same(error.argument, argument)) {
        say("argument %s, not %s", error.argument, argument);
        leave(1);
    }
}

static void addresses(void)
{
    static char buffer[2048];
    for (unsigned op = 0; op < CLEAVE_OPS; op++) {
        if (op == CLEAVE_OP_YIELD) {
            continue;
        }
        named(cleave((enum cleave_op)op, buffer, 4), CLEAVE_COUNT, "size");
        named(cleave((enum cleave_op)op, buffer, UINT64_MAX), CLEAVE_COUNT, "size");
    }
    named(cleave((enum cleave_op)CLEAVE_OPS, buffer, 0), CLEAVE_INVALID, "operation");
    named(cleave((enum cleave_op)0xffffffff, buffer, 0), CLEAVE_INVALID, "operation");
    const uint64_t bad[] = {UINT64_C(1) << 47, UINT64_MAX - 4, UINT64_C(0xffff800000000000),
                            8 * GIB, UINT64_MAX - 63};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t status = cleave(CLEAVE_OP_CREATE, (void *)bad[i], sizeof(struct cleave_create));
        CHECK(status == CLEAVE_FAULT || status == CLEAVE_WRAP);
        named(status, (enum cleave_status)status, "arguments");
    }
}

static void put_name(char name[CLEAVE_NAME_SIZE], const char *text)
{
    unsigned i = 0;
    for (; text[i] != '\0'; i++) {
        name[i] = text[i];
    }
    name[i] = '\0';
}

static void domains(void)
{
    struct cleave_create create = {.name = "x", .limit = UINT64_MAX, .vcpus = 1};
    struct cleave_start start = {.vcpu = 9};
    struct cleave_domain domain = {.domain = 77};
    struct cleave_wait wait = {.domain = 0};

    create.vcpus = 0;
    named(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_COUNT, "vcpus");
    create.vcpus = CLEAVE_VCPUS_MAX + 1;
    named(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_COUNT, "vcpus");
    create.vcpus = 1;
    create.name[0] = '\n';
    named(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_INVALID, "name");
    put_name(create.name, "domain-77");
    named(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_INVALID, "name");
    for (unsigned i = 0; i < CLEAVE_NAME_SIZE; i++) {
        create.name[i] = 'a';
    }
    named(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_INVALID, "name");
    create.name[1] = '\0';
    create.limit = 0;
    CHECK_EQ(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_QUOTA);
    create.limit = UINT64_MAX;
    CHECK_EQ(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_OK);
    named(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_EXISTS, "name");
    wait.flags = 2 * CLEAVE_WAIT_NOT;
    named(CLEAVE(CLEAVE_OP_WAIT, &wait), CLEAVE_INVALID, "flags");
    wait.flags = CLEAVE_WAIT_NOT;
    named(CLEAVE(CLEAVE_OP_WAIT, &wait), CLEAVE_BUSY, "domain");
    wait.flags = 0;
    start.domain = create.domain;
    named(CLEAVE(CLEAVE_OP_START, &start), CLEAVE_RANGE, "vcpu");
    start.domain = CLEAVE_DOMAIN_SELF;
    start.vcpu = 0;
    named(CLEAVE(CLEAVE_OP_START, &start), CLEAVE_EXISTS, "vcpu");
    domain.domain = create.domain;
    CHECK_EQ(CLEAVE(CLEAVE_OP_DESTROY, &domain), CLEAVE_OK);
    named(CLEAVE(CLEAVE_OP_DESTROY, &domain), CLEAVE_NO_CAP, "domain");
    named(CLEAVE(CLEAVE_OP_WAIT, &wait), CLEAVE_NO_CAP, "domain"); /* it has no children */
}

static void memory(uint32_t other)
{
    const uint32_t self = CLEAVE_DOMAIN_SELF;
    struct cleave_copy copy = {.domain = other, .at = 0, .buffer = 0x200000, .size = 8};
    struct cleave_collapse collapse = {.domain = self, .order = 3};

    named(map(self, 128 * MIB + 1, PAGE, PRIVATE, RW, 0), CLEAVE_ALIGN, "at");
    named(map(self, 128 * MIB, 100, PRIVATE, RW, 0), CLEAVE_ALIGN, "size");
    named(map(self, 128 * MIB, 0, PRIVATE, RW, 0), CLEAVE_COUNT, "size");
    named(map(self, UINT64_MAX - PAGE + 1, 2 * PAGE, PRIVATE, RW, 0), CLEAVE_WRAP, "size");
    named(map(self, UINT64_C(1) << 52, PAGE, PRIVATE, RW, 0), CLEAVE_RANGE, "at");
    named(map(self, 128 * MIB, PAGE, 9, RW, 0), CLEAVE_POLICY, "region.policy");
    named(map(self, 128 * MIB, PAGE, PRIVATE, 2, 0), CLEAVE_RIGHTS, "region.rights");
    named(map(self, 128 * MIB, PAGE, PRIVATE, RW, 3), CLEAVE_ORDER, "region.order");
    named(map(4711, 128 * MIB, PAGE, PRIVATE, RW, 0), CLEAVE_NO_CAP, "domain");
    copy.size = 0;
    named(CLEAVE(CLEAVE_OP_COPY, &copy), CLEAVE_COUNT, "size");
    copy.size = CLEAVE_COPY_MAX + 1;
    named(CLEAVE(CLEAVE_OP_COPY, &copy), CLEAVE_COUNT, "size");
    copy.size = 8;
    copy.at = UINT64_MAX - 3;
    named(CLEAVE(CLEAVE_OP_COPY, &copy), CLEAVE_WRAP, "at");
    copy.at = 64 * GIB;
    CHECK_EQ(CLEAVE(CLEAVE_OP_COPY, &copy), CLEAVE_FAULT);
    CHECK(CLEAVE(CLEAVE_OP_COLLAPSE, &collapse) >= CLEAVE_ERROR_FIRST);
}

static void forks(void)
{
    struct cleave_fork fork = {.domain = CLEAVE_DOMAIN_SELF, .limit = UINT64_MAX};
    struct cleave_snapshot snapshot = {.domain = CLEAVE_DOMAIN_SELF, .name = "bad name"};
    struct cleave_domain self = {.domain = CLEAVE_DOMAIN_SELF};

    named(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_COUNT, "count");
    fork.count = CLEAVE_FORKS_MAX + 1;
    named(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_COUNT, "count");
    fork.count = UINT32_MAX;
    named(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_COUNT, "count");
    fork.count = 1;
    fork.flags = 64;
    named(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_INVALID, "flags");
    fork.flags = 0;
    fork.reserve = PAGE;
    named(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_COUNT, "reserve");
    fork.flags = CLEAVE_FORK_RESERVE;
    fork.reserve = UINT64_MAX - PAGE + 1;
    named(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_COUNT, "reserve");
    fork.reserve = PAGE - 1;
    named(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_ALIGN, "reserve");
    fork.flags = 0;
    fork.reserve = 0;
    fork.first = 2;
    named(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_COUNT, "first");
    fork.of = CLEAVE_FORK_OF_MAX;
    fork.first = CLEAVE_FORK_OF_MAX + 1;
    named(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_COUNT, "first");
    fork.first = 0;
    fork.of = CLEAVE_FORK_OF_MAX + 1;
    named(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_COUNT, "of");
    fork.count = 2;
    fork.of = 1;
    named(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_COUNT, "of");
    fork.count = 1;
    fork.of = 0;
    fork.domains = UINT64_C(1) << 50;
    named(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_FAULT, "domains");
    fork.domains = 0;
    fork.limit = 0;
    CHECK_EQ(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_QUOTA);
    named(CLEAVE(CLEAVE_OP_SNAPSHOT, &snapshot), CLEAVE_INVALID, "name");
    put_name(snapshot.name, "domain-1");
    named(CLEAVE(CLEAVE_OP_SNAPSHOT, &snapshot), CLEAVE_INVALID, "name");
    put_name(snapshot.name, "");
    named(CLEAVE(CLEAVE_OP_SNAPSHOT, &snapshot), CLEAVE_INVALID, "name");
    named(CLEAVE(CLEAVE_OP_RESET, &self), CLEAVE_INVALID, "domain");
    named(CLEAVE(CLEAVE_OP_DESTROY, &self), CLEAVE_INVALID, "domain");
    named(CLEAVE(CLEAVE_OP_UNPAUSE, &self), CLEAVE_INVALID, "domain");
}

static void snapshots(void)
{
    struct cleave_snapshot snapshot = {.domain = CLEAVE_DOMAIN_SELF, .name = "frozen"};
    CHECK_EQ(CLEAVE(CLEAVE_OP_SNAPSHOT, &snapshot), CLEAVE_OK);
    struct cleave_domain frozen = {.domain = snapshot.snapshot};
    named(CLEAVE(CLEAVE_OP_PAUSE, &frozen), CLEAVE_FROZEN, "domain");
    named(CLEAVE(CLEAVE_OP_UNPAUSE, &frozen), CLEAVE_FROZEN, "domain");
    destroy(frozen.domain);
}

/* Each operation with a reserved field, with that field alone wrong. */
static void reserved(void)
{
    static const struct {
        enum cleave_op op;
        uint16_t size, at, bytes;
    } fields[] = {
#define FIELD(op, type)                                                                            \
    {CLEAVE_OP_##op, sizeof(struct cleave_##type), offsetof(struct cleave_##type, reserved),       \
     sizeof(((struct cleave_##type *)0)->reserved)}
        FIELD(CONSOLE, console), FIELD(MAP, map),        FIELD(UNMAP, map),
        FIELD(PROTECT, map),     FIELD(PAUSE, domain),   FIELD(UNPAUSE, domain),
        FIELD(RESET, domain),    FIELD(DESTROY, domain), FIELD(VERDICT, verdict),
        FIELD(RENAME, rename),   FIELD(GRANT, grant),    FIELD(TERMINAL, terminal),
        FIELD(WINDOW, window),
    };
    static unsigned char bytes[sizeof(struct cleave_stat)];
    for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        const unsigned ends[] = {fields[i].at, fields[i].at + fields[i].bytes - 1u};
        for (unsigned e = 0; e < 2; e++) {
            bytes[ends[e]] = 0x80;
            named(cleave(fields[i].op, bytes, fields[i].size), CLEAVE_INVALID, "reserved");
            CHECK_EQ(last_error().value, UINT64_C(0x80) << 8 * (ends[e] - ends[0]));
            bytes[ends[e]] = 0;
        }
    }
}

/* The domain of this name among those that may be commanded; 0: none has it. */
static uint32_t find(const char *name, struct cleave_list *list)
{
    *list = (struct cleave_list){.domain = 0};
    do {
        CHECK_EQ(CLEAVE(CLEAVE_OP_LIST, list), CLEAVE_OK);
    } while (list->domain != 0 && (list->state == 0 || !same(list->name, name)));
    return list->domain;
}

static void terminals(void)
{
    static char text[CLEAVE_TEXT_MAX];
    const uint32_t self = CLEAVE_DOMAIN_SELF;
    struct cleave_terminal terminal = {
        .domain = self, .buffer = (uint64_t)text, .size = sizeof(text)};
    struct cleave_snapshot snapshot = {.domain = self, .name = "silent"};
    struct cleave_create create = {.name = "mute", .limit = UINT64_MAX, .vcpus = 1};

    CHECK_EQ(CLEAVE(CLEAVE_OP_TERMINAL, &terminal), CLEAVE_OK); /* it printed nothing there */
    CHECK(terminal.size == 0 && terminal.cursor == 0 && terminal.lost == 0);
    named(CLEAVE(CLEAVE_OP_TERMINAL, &terminal), CLEAVE_COUNT, "size");
    terminal.size = CLEAVE_TEXT_MAX + 1;
    named(CLEAVE(CLEAVE_OP_TERMINAL, &terminal), CLEAVE_COUNT, "size");
    CHECK_EQ(last_error().high, CLEAVE_TEXT_MAX);
    terminal.size = 1;
    terminal.flags = 2;
    named(CLEAVE(CLEAVE_OP_TERMINAL, &terminal), CLEAVE_INVALID, "flags");
    terminal.flags = 0;
    terminal.cursor = 1;
    named(CLEAVE(CLEAVE_OP_TERMINAL, &terminal), CLEAVE_RANGE, "cursor");
    terminal.domain = 4711;
    named(CLEAVE(CLEAVE_OP_TERMINAL, &terminal), CLEAVE_NO_CAP, "domain");
    terminal.flags = CLEAVE_TERMINAL_TYPE;
    CHECK_EQ(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_OK);
    terminal.domain = create.domain; /* which has no window */
    named(CLEAVE(CLEAVE_OP_TERMINAL, &terminal), CLEAVE_NOT_MAPPED, "domain");
    destroy(create.domain);
    terminal.domain = self;
    terminal.buffer = 8 * GIB;
    named(CLEAVE(CLEAVE_OP_TERMINAL, &terminal), CLEAVE_FAULT, "buffer");
    CHECK_EQ(CLEAVE(CLEAVE_OP_SNAPSHOT, &snapshot), CLEAVE_OK);
    terminal.domain = snapshot.snapshot;
    named(CLEAVE(CLEAVE_OP_TERMINAL, &terminal), CLEAVE_FROZEN, "domain");
    destroy(snapshot.snapshot);
}

static void windows(void)
{
    struct cleave_create create = {.name = "window", .limit = UINT64_MAX, .vcpus = 1};
    struct cleave_window window = {.domain = CLEAVE_DOMAIN_SELF, .memory = 2 * MIB};
    struct cleave_snapshot snapshot = {.name = "glass"};

    named(CLEAVE(CLEAVE_OP_WINDOW, &window), CLEAVE_EXISTS, "domain"); /* it runs */
    window.memory++;
    named(CLEAVE(CLEAVE_OP_WINDOW, &window), CLEAVE_ALIGN, "memory");
    window.memory = 2 * MIB;
    window.domain = 4711;
    named(CLEAVE(CLEAVE_OP_WINDOW, &window), CLEAVE_NO_CAP, "domain");
    CHECK_EQ(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_OK);
    snapshot.domain = create.domain;
    CHECK_EQ(CLEAVE(CLEAVE_OP_SNAPSHOT, &snapshot), CLEAVE_OK);
    window.domain = snapshot.snapshot;
    named(CLEAVE(CLEAVE_OP_WINDOW, &window), CLEAVE_FROZEN, "domain");
    window.domain = create.domain;
    CHECK_EQ(map(create.domain, 0xfeff8000, PAGE, SHARED, RW, 0), CLEAVE_OK);
    named(CLEAVE(CLEAVE_OP_WINDOW, &window), CLEAVE_EXISTS, "at"); /* a mixture */
    struct cleave_map unmap = {.domain = create.domain, .at = 0xfeff8000, .size = PAGE};
    CHECK_EQ(CLEAVE(CLEAVE_OP_UNMAP, &unmap), CLEAVE_OK);
    CHECK_EQ(CLEAVE(CLEAVE_OP_WINDOW, &window), CLEAVE_OK);
    named(CLEAVE(CLEAVE_OP_WINDOW, &window), CLEAVE_EXISTS, "domain"); /* it has one */
    destroy(snapshot.snapshot);
    destroy(create.domain);
}

/* Without a name they get one of their number, which nobody can have taken. */
static void unnamed(void)
{
    struct cleave_create create[2];
    struct cleave_list list;
    for (unsigned i = 0; i < 2; i++) {
        create[i] = (struct cleave_create){.limit = UINT64_MAX, .vcpus = 1};
        CHECK_EQ(CLEAVE(CLEAVE_OP_CREATE, &create[i]), CLEAVE_OK);
        char name[CLEAVE_NAME_SIZE] = "domain-0";
        CHECK(create[i].domain > 0 && create[i].domain < 10);
        name[7] = (char)('0' + create[i].domain);
        CHECK_EQ(find(name, &list), create[i].domain);
    }
    struct cleave_rename rename = {.domain = create[0].domain};
    put_name(rename.name, "chosen");
    CHECK_EQ(CLEAVE(CLEAVE_OP_RENAME, &rename), CLEAVE_OK);
    CHECK_EQ(find("chosen", &list), create[0].domain);
    destroy(create[0].domain);
    destroy(create[1].domain);
}

static void lists(void)
{
    struct cleave_create create = {.name = "listed", .limit = UINT64_MAX, .vcpus = 2};
    struct cleave_list list = {.domain = CLEAVE_DOMAIN_CONTROL + 1};
    named(CLEAVE(CLEAVE_OP_LIST, &list), CLEAVE_RANGE, "domain");
    CHECK_EQ(last_error().high, CLEAVE_DOMAIN_CONTROL);
    list.domain = UINT32_MAX;
    named(CLEAVE(CLEAVE_OP_LIST, &list), CLEAVE_RANGE, "domain");
    list.domain = CLEAVE_DOMAIN_CONTROL;
    CHECK_EQ(CLEAVE(CLEAVE_OP_LIST, &list), CLEAVE_OK);
    CHECK_EQ(list.domain, 0);
    uint32_t self = find("arguments", &list);
    CHECK(self != 0 && list.state == CLEAVE_STATE_RUNNING && list.parent == 0 && list.flags == 0);
    CHECK_EQ(find("listed", &list), 0);
    CHECK_EQ(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_OK);
    CHECK_EQ(find("listed", &list), create.domain);
    CHECK(list.parent == self && list.origin == 0 && list.vcpus == 2 && list.pauses == 0);
    on_domain(CLEAVE_OP_PAUSE, create.domain);
    CHECK_EQ(find("listed", &list), create.domain);
    CHECK(list.state == CLEAVE_STATE_PAUSED && list.pauses == 1);

    struct cleave_rename rename = {.domain = create.domain};
    named(CLEAVE(CLEAVE_OP_RENAME, &rename), CLEAVE_INVALID, "name");
    put_name(rename.name, "two words");
    named(CLEAVE(CLEAVE_OP_RENAME, &rename), CLEAVE_INVALID, "name");
    put_name(rename.name, "fork-1");
    named(CLEAVE(CLEAVE_OP_RENAME, &rename), CLEAVE_INVALID, "name");
    put_name(rename.name, "domain-");
    named(CLEAVE(CLEAVE_OP_RENAME, &rename), CLEAVE_INVALID, "name");
    put_name(rename.name, "domain"); /* is none of those */
    CHECK_EQ(CLEAVE(CLEAVE_OP_RENAME, &rename), CLEAVE_OK);
    put_name(rename.name, "arguments");
    named(CLEAVE(CLEAVE_OP_RENAME, &rename), CLEAVE_EXISTS, "name");
    rename.domain = 4711;
    named(CLEAVE(CLEAVE_OP_RENAME, &rename), CLEAVE_NO_CAP, "domain");
    rename.domain = create.domain;
    put_name(rename.name, "listed");
    CHECK_EQ(CLEAVE(CLEAVE_OP_RENAME, &rename), CLEAVE_OK); /* its own */
    put_name(rename.name, "renamed");
    CHECK_EQ(CLEAVE(CLEAVE_OP_RENAME, &rename), CLEAVE_OK);
    CHECK_EQ(find("listed", &list), 0);
    CHECK_EQ(find("renamed", &list), create.domain);
    put_name(create.name, "renamed");
    named(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_EXISTS, "name");
    put_name(create.name, "listed"); /* which is free now */
    uint32_t first = create.domain;
    CHECK_EQ(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_OK);
    destroy(create.domain);
    destroy(first);
    CHECK_EQ(find("renamed", &list), 0);

    struct cleave_snapshot snapshot = {.domain = CLEAVE_DOMAIN_SELF, .name = "kept"};
    CHECK_EQ(CLEAVE(CLEAVE_OP_SNAPSHOT, &snapshot), CLEAVE_OK);
    CHECK_EQ(find("kept", &list), snapshot.snapshot);
    CHECK(list.flags == CLEAVE_LIST_SNAPSHOT && list.state == CLEAVE_STATE_FROZEN);
    CHECK(list.origin == self && list.parent == self);
    destroy(snapshot.snapshot);
    uint32_t id, index = fork_self(1, CLEAVE_FORK_BASE, &id);
    if (index != 0) {
        CHECK_EQ(find("arguments", &list), 0); /* its parent's maker is not its to command */
        leave(5);
    }
    wait_for(id, 5);
    CHECK(find("arguments", &list) == self && list.state == CLEAVE_STATE_RUNNING);
    list.domain = id - 1;
    CHECK_EQ(CLEAVE(CLEAVE_OP_LIST, &list), CLEAVE_OK);
    CHECK(list.domain == id && list.state == CLEAVE_STATE_ENDED && list.origin == self);
    CHECK(list.reason == CLEAVE_EXITED && list.code == 5 && list.flags == CLEAVE_LIST_BASE);
    destroy(id);
}

/* What one may be charged for bounds what one may give to others. */
static void limits(void)
{
    struct cleave_create create = {.name = "x", .limit = 2 * MIB, .vcpus = 1};
    struct cleave_fork fork = {.domain = CLEAVE_DOMAIN_SELF, .count = 1, .limit = 2 * MIB};
    uint32_t id;
    fork.domains = (uint64_t)&id;
    uint64_t index;
    uint64_t status = hypercall_fork(&fork, &index);
    CHECK_EQ(status, CLEAVE_OK);
    if (index == 0) {
        wait_for(id, 4);
        destroy(id);
        return;
    }
    create.limit = 2 * MIB + PAGE;
    named(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_QUOTA, "limit");
    CHECK_EQ(last_error().high, 2 * MIB);
    fork.limit = UINT64_MAX - 1;
    named(CLEAVE(CLEAVE_OP_FORK, &fork), CLEAVE_QUOTA, "limit");
    create.limit = 2 * MIB;
    CHECK_EQ(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_OK);
    destroy(create.domain);
    create.limit = UINT64_MAX; /* as much as its maker */
    CHECK_EQ(CLEAVE(CLEAVE_OP_CREATE, &create), CLEAVE_OK);
    CHECK_EQ(map(create.domain, 0, 4 * MIB, PRIVATE, RW, 0), CLEAVE_OK);
    struct cleave_map fill = {.domain = create.domain,
                              .policy = PRIVATE,
                              .rights = RW,
                              .size = 4 * MIB,
                              .flags = CLEAVE_MAP_POPULATE};
    CHECK_EQ(CLEAVE(CLEAVE_OP_MAP, &fill), CLEAVE_QUOTA);
    destroy(create.domain);
    leave(4);
}

void guest_story(void)
{
    struct cleave_stat before = *stat_of(CLEAVE_DOMAIN_SELF);
    addresses();
    reserved();
    forks();
    memory(CLEAVE_DOMAIN_SELF);
    struct cleave_stat after = *stat_of(CLEAVE_DOMAIN_SELF);
    CHECK_EQ(before.charged, after.charged);
    CHECK_EQ(before.mapped[0] + before.mapped[1], after.mapped[0] + after.mapped[1]);
    domains();
    snapshots();
    unnamed();
    lists();
    terminals();
    windows();
    limits();
    audit_clean();
}
