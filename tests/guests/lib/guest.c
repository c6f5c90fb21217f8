/* SPDX-License-Identifier: BSD-2-Clause */
/* The runtime of guest.h. */
#include "guest.h"

#include <stdarg.h>

uint64_t guest_memory;
const char *guest_command = "";
bool guest_amd;

void *memset(void *to, int value, size_t size)
{
    unsigned char *at = to;
    while (size-- > 0) {
        *at++ = (unsigned char)value;
    }
    return to;
}

void *memcpy(void *to, const void *from, size_t size)
{
    unsigned char *at = to;
    const unsigned char *source = from;
    while (size-- > 0) {
        *at++ = *source++;
    }
    return to;
}

/* --- Hypercalls ------------------------------------------------------------------------------- */

static uint64_t call(uint64_t number, uint64_t a, uint64_t b, uint64_t *c)
{
    uint64_t result;
    if (guest_amd) {
        __asm__ volatile("vmmcall"
                         : "=a"(result), "+d"(*c)
                         : "a"(number), "D"(a), "S"(b)
                         : "memory");
    } else {
        __asm__ volatile("vmcall"
                         : "=a"(result), "+d"(*c)
                         : "a"(number), "D"(a), "S"(b)
                         : "memory");
    }
    return result;
}

uint64_t hypercall(uint64_t number, uint64_t a, uint64_t b, uint64_t c)
{
    return call(number, a, b, &c);
}

uint64_t cleave(enum cleave_op op, void *arguments, uint64_t size)
{
    return hypercall(CLEAVE_HYPERCALL, op, (uint64_t)arguments, size);
}

struct cleave_error last_error(void)
{
    struct cleave_error error = {0};
    CHECK_EQ(CLEAVE(CLEAVE_OP_ERROR, &error), CLEAVE_OK);
    return error;
}

/* --- Text ------------------------------------------------------------------------------------- */

struct text {
    char bytes[512];
    unsigned used;
};

static void put(struct text *text, char c)
{
    if (text->used < sizeof(text->bytes)) {
        text->bytes[text->used++] = c;
    }
}

static void put_number(struct text *text, uint64_t value, unsigned base)
{
    char digits[24];
    unsigned n = 0;
    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    while (n > 0) {
        put(text, digits[--n]);
    }
}

static void put_text(struct text *text, const char *from)
{
    while (*from != '\0') {
        put(text, *from++);
    }
}

/* Knows %s, %u, %x, %lu, %lx. */
static void put_format(struct text *text, const char *format, va_list arguments)
{
    for (; *format != '\0'; format++) {
        if (*format != '%') {
            put(text, *format);
            continue;
        }
        bool wide = *++format == 'l';
        format += wide;
        if (*format == 's') {
            put_text(text, va_arg(arguments, const char *));
        } else {
            uint64_t value = wide ? va_arg(arguments, uint64_t) : va_arg(arguments, unsigned);
            put_number(text, value, *format == 'x' ? 16 : 10);
        }
    }
}

static void send(struct text *text)
{
    struct cleave_console console = {.text = (uint64_t)text->bytes, .size = text->used};
    (void)CLEAVE(CLEAVE_OP_CONSOLE, &console);
}

void say(const char *format, ...)
{
    struct text text = {.used = 0};
    va_list arguments;
    va_start(arguments, format);
    put_text(&text, guest_name);
    put_text(&text, ": ");
    put_format(&text, format, arguments);
    va_end(arguments);
    put(&text, '\n');
    send(&text);
}

void leave(uint32_t code)
{
    struct cleave_exit exit = {.code = code};
    for (;;) {
        (void)CLEAVE(CLEAVE_OP_EXIT, &exit);
    }
}

void fail(const char *file, int line, const char *what, uint64_t a, uint64_t b)
{
    say("FAILED %s:%u: %s (%lx, %lx)", file, (unsigned)line, what, a, b);
    leave(1);
}

/* --- Domains ---------------------------------------------------------------------------------- */

uint64_t hypercall_fork(struct cleave_fork *fork, uint64_t *index)
{
    *index = sizeof(*fork);
    return call(CLEAVE_HYPERCALL, CLEAVE_OP_FORK, (uint64_t)fork, index);
}

uint32_t fork_self(uint32_t count, uint32_t flags, uint32_t *ids)
{
    struct cleave_fork fork = {.domain = CLEAVE_DOMAIN_SELF,
                               .count = count,
                               .flags = flags,
                               .limit = UINT64_MAX,
                               .domains = (uint64_t)ids};
    uint64_t index;
    uint64_t status = hypercall_fork(&fork, &index);
    CHECK_EQ(status, CLEAVE_OK);
    return (uint32_t)index;
}

uint32_t wait_for(uint32_t id, uint32_t code)
{
    struct cleave_wait wait = {.domain = id};
    CHECK_EQ(CLEAVE(CLEAVE_OP_WAIT, &wait), CLEAVE_OK);
    CHECK_EQ(wait.reason, CLEAVE_EXITED);
    CHECK_EQ(wait.code, code);
    return wait.which;
}

void on_domain(enum cleave_op op, uint32_t id)
{
    struct cleave_domain domain = {.domain = id};
    CHECK_EQ(CLEAVE(op, &domain), CLEAVE_OK);
}

void destroy(uint32_t id) { on_domain(CLEAVE_OP_DESTROY, id); }

void yield(void) { CHECK_EQ(cleave(CLEAVE_OP_YIELD, NULL, 0), CLEAVE_OK); }

uint64_t map(uint32_t domain, uint64_t at, uint64_t size, unsigned policy, unsigned rights,
             unsigned order)
{
    struct cleave_map arguments = {.domain = domain,
                                   .policy = (uint16_t)policy,
                                   .rights = (uint8_t)rights,
                                   .order = (uint8_t)order,
                                   .at = at,
                                   .size = size};
    return CLEAVE(CLEAVE_OP_MAP, &arguments);
}

struct cleave_stat *stat_of(uint32_t id)
{
    static struct cleave_stat stat;
    stat.domain = id;
    CHECK_EQ(CLEAVE(CLEAVE_OP_STAT, &stat), CLEAVE_OK);
    return &stat;
}

struct cleave_lookup lookup_in(uint32_t domain, uint64_t at)
{
    struct cleave_lookup lookup = {.domain = domain, .at = at & ~UINT64_C(4095)};
    CHECK_EQ(CLEAVE(CLEAVE_OP_LOOKUP, &lookup), CLEAVE_OK);
    return lookup;
}

struct cleave_lookup lookup(uint64_t at) { return lookup_in(CLEAVE_DOMAIN_SELF, at); }

void audit_clean(void)
{
    struct cleave_audit audit = {0};
    CHECK_EQ(CLEAVE(CLEAVE_OP_AUDIT, &audit), CLEAVE_OK);
    if (audit.invariant != 0) {
        say("audit: I%u %s at %lx: expected %lx, found %lx", audit.invariant, audit.what, audit.at,
            audit.expected, audit.found);
        leave(1);
    }
}

void start_vcpu(uint32_t vcpu, void (*function)(uint64_t argument), uint64_t argument)
{
    static struct guest_vcpu record[CLEAVE_VCPUS_MAX];
    static char stack[CLEAVE_VCPUS_MAX][8192] __attribute__((aligned(16)));
    struct cleave_start start = {.domain = CLEAVE_DOMAIN_SELF,
                                 .vcpu = vcpu,
                                 .entry = (uint32_t)(uint64_t)guest_vcpu_entry,
                                 .argument = (uint32_t)(uint64_t)&record[vcpu]};
    record[vcpu] = (struct guest_vcpu){(uint64_t)stack[vcpu + 1], (uint64_t)function, argument};
    CHECK_EQ(CLEAVE(CLEAVE_OP_START, &start), CLEAVE_OK);
}

/* --- Exceptions ------------------------------------------------------------------------------- */

struct gate {
    uint16_t low, selector, flags, middle;
    uint32_t high, reserved;
};
struct gate guest_idt[32];
extern char guest_exceptions[];
extern char try_load_fault[], try_store_fault[], try_end[];

__attribute__((weak)) void guest_upcall(void)
{
    say("an upcall");
    leave(2);
}

void guest_exception(uint64_t number, uint64_t error, uint64_t *frame);
void guest_exception(uint64_t number, uint64_t error, uint64_t *frame)
{
    if (number == 28) {
        guest_upcall();
        return;
    }
    if (frame[0] == (uint64_t)try_load_fault || frame[0] == (uint64_t)try_store_fault) {
        frame[0] = (uint64_t)try_end;
        return;
    }
    say("exception %lu, error %lx at %lx", number, error, frame[0]);
    leave(2);
}

static void set_gates(void)
{
    for (unsigned i = 0; i < 32; i++) {
        uint64_t at = (uint64_t)guest_exceptions + i * 16;
        guest_idt[i] = (struct gate){.low = (uint16_t)at,
                                     .selector = 8,
                                     .flags = 0x8e00,
                                     .middle = (uint16_t)(at >> 16),
                                     .high = (uint32_t)(at >> 32)};
    }
}

/* --- Start ------------------------------------------------------------------------------------ */

struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line, rsdp, memory_map;
    uint32_t memory_entries, reserved;
};
struct memory_entry {
    uint64_t at, size;
    uint32_t type, reserved;
};

void guest_main(const struct start_info *info);
void guest_main(const struct start_info *info)
{
    uint32_t a = 0, b, c, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
    guest_amd = b == 0x68747541; /* "Auth" */
    set_gates();
    CHECK_EQ(info->magic, 0x336ec578);
    guest_command = (const char *)info->command_line;
    const struct memory_entry *map = (const struct memory_entry *)info->memory_map;
    for (uint32_t i = 0; i < info->memory_entries; i++) {
        if (map[i].type == 1 && map[i].at + map[i].size > guest_memory) {
            guest_memory = map[i].at + map[i].size;
        }
    }
    guest_story();
    say("pass");
    leave(0);
}

uint64_t cycles(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

uint64_t random_next(uint64_t *seed)
{
    uint64_t z = *seed += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}
