/* SPDX-License-Identifier: BSD-2-Clause */
/* Rings of what domains write, and who is in front; see terminal.h. */
#include "terminal.h"

#include "calls.h"

#define PART 256u /* bytes that go to the line at a time */
#define PARTS 8u  /* in one poll */
#define TURN 32u  /* parts in a row of one terminal while others wait */

struct terminal {
    struct terminal *next; /* in `waiting`: under its lock */
    struct domain *domain;
    struct klock lock; /* of what follows */
    uint8_t queued;
    uint32_t start, size; /* what waits */
    uint32_t filled;      /* bytes ever written, as far as the ring holds them */
    uint32_t dropped;
    uint64_t written; /* bytes ever written */
    char bytes[TERMINAL_SIZE];
};
_Static_assert(sizeof(struct terminal) <= PAGE_SIZE, "one frame");

/* Terminals with something to show, first come first served. Order of locks: this, a terminal's. */
static struct {
    struct klock lock;
    struct terminal *first, *last;
    uint32_t turn; /* parts that the first has had in a row */
} waiting;

static uint32_t shown = 0;     /* CPU 0's: id, or TERMINAL_ALL */
static uint32_t front = 0;     /* CPU 0's: whom typed characters are for; 0: the debug console */
static uint32_t last_line = 0; /* CPU 0's: whose line is not ended; 0: none is */
static unsigned keys;

static struct terminal *terminal_of(struct mm_ctx *ctx, struct domain *domain)
{
    pfn_t frame;
    struct terminal *none = NULL, *made;
    if (domain->terminal != NULL || object_alloc(ctx, &domain->space->payer, &frame) != CLEAVE_OK) {
        return domain->terminal;
    }
    made = frame_address(frame);
    made->domain = domain;
    if (!__atomic_compare_exchange_n(&domain->terminal, &none, made, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        object_free(ctx, frame);
    }
    return domain->terminal;
}

static void append(struct terminal *t)
{
    t->next = NULL;
    *(waiting.first != NULL ? &waiting.last->next : &waiting.first) = t;
    waiting.last = t;
}

void terminal_write(struct mm_ctx *ctx, struct domain *domain, const char *text, uint32_t size)
{
    struct terminal *t = terminal_of(ctx, domain);
    if (t == NULL) {
        return;
    }
    klock_take(&waiting.lock);
    klock_take(&t->lock);
    for (uint32_t i = 0; i < size; i++) {
        if (t->size == TERMINAL_SIZE) {
            t->start = (t->start + 1) % TERMINAL_SIZE;
            t->size--;
            t->dropped++;
        }
        t->bytes[(t->start + t->size++) % TERMINAL_SIZE] = text[i];
        t->filled += t->filled < TERMINAL_SIZE;
        t->written++;
    }
    if (!t->queued) {
        t->queued = 1;
        append(t);
    }
    klock_release(&t->lock);
    klock_release(&waiting.lock);
}

void terminal_free(struct mm_ctx *ctx, struct domain *domain)
{
    struct terminal *t = domain->terminal, *before = NULL;
    if (t == NULL) {
        return;
    }
    klock_take(&waiting.lock);
    for (struct terminal *at = waiting.first; at != NULL && t->queued; at = at->next) {
        if (at == t) {
            *(before != NULL ? &before->next : &waiting.first) = t->next;
            waiting.last = waiting.last == t ? before : waiting.last;
            break;
        }
        before = at;
    }
    domain->terminal = NULL;
    klock_release(&waiting.lock);
    object_free(ctx, object_frame(t));
}

uint32_t terminal_read(struct domain *domain, char *to, uint32_t room, uint32_t *dropped)
{
    struct terminal *t = domain->terminal;
    *dropped = 0;
    if (t == NULL) {
        return 0;
    }
    klock_take(&t->lock);
    uint32_t end = t->start + t->size, count = t->filled < room ? t->filled : room;
    for (uint32_t i = 0; i < count; i++) {
        to[i] = t->bytes[(end + TERMINAL_SIZE - count + i) % TERMINAL_SIZE];
    }
    *dropped = t->dropped;
    klock_release(&t->lock);
    return count;
}

uint64_t terminal_written(struct domain *domain)
{
    struct terminal *t = domain->terminal;
    if (t == NULL) {
        return 0;
    }
    klock_take(&t->lock);
    uint64_t written = t->written;
    klock_release(&t->lock);
    return written;
}

uint32_t terminal_read_from(struct domain *domain, uint64_t *from, char *to, uint32_t room)
{
    struct terminal *t = domain->terminal;
    if (t == NULL) {
        return 0;
    }
    klock_take(&t->lock);
    uint64_t oldest = t->written - t->filled;
    *from = *from < oldest ? oldest : *from;
    uint32_t left = (uint32_t)(t->written - *from), count = left < room ? left : room;
    uint32_t end = t->start + t->size;
    for (uint32_t i = 0; i < count; i++) {
        to[i] = t->bytes[(end + TERMINAL_SIZE - left + i) % TERMINAL_SIZE];
    }
    klock_release(&t->lock);
    return count;
}

/* Where all are shown, a line that is begun waits for its end, which terminal_write() queues again:
 * else another's would come in between. A part without an end is as good as a line. */
static bool is_begun(const struct terminal *t)
{
    for (uint32_t i = 0; i < t->size && i < PART; i++) {
        if (t->bytes[(t->start + i) % TERMINAL_SIZE] == '\n') {
            return false;
        }
    }
    return shown == TERMINAL_ALL && t->size < PART;
}

/* Takes a part of what the first terminal that waits has: a line at most when all are shown. False
 * when none waits. */
static bool take_part(char part[PART], uint32_t *size, char name[CLEAVE_NAME_SIZE], uint32_t *id)
{
    klock_take(&waiting.lock);
    struct terminal *t = waiting.first;
    if (t == NULL) {
        klock_release(&waiting.lock);
        return false;
    }
    waiting.first = t->next;
    waiting.last = waiting.first == NULL ? NULL : waiting.last;
    klock_take(&t->lock);
    *size = 0;
    while (t->size != 0 && *size < PART && (*size != 0 || !is_begun(t))) {
        char c = t->bytes[t->start];
        t->start = (t->start + 1) % TERMINAL_SIZE;
        t->size--;
        part[(*size)++] = c;
        if (c == '\n' && shown == TERMINAL_ALL) {
            break;
        }
    }
    __builtin_memcpy(name, t->domain->name, CLEAVE_NAME_SIZE);
    *id = t->domain->id;
    t->queued = t->size != 0 && !is_begun(t);
    waiting.turn = t->queued && waiting.turn + 1 < TURN ? waiting.turn + 1 : 0;
    if (waiting.turn != 0) { /* again, at the front: lines of one guest stay together */
        t->next = waiting.first;
        waiting.first = t;
        waiting.last = waiting.last == NULL ? t : waiting.last;
    } else if (t->queued) {
        append(t);
    }
    klock_release(&t->lock);
    klock_release(&waiting.lock);
    return true;
}

static void show_part(const char *part, uint32_t size, const char *name, uint32_t id)
{
    if (size == 0) {
        return;
    }
    if (shown == TERMINAL_ALL && last_line != id) {
        char head[CLEAVE_NAME_SIZE + 4]; /* not by print(): it is no message of the hypervisor's */
        int length = format_text(head, sizeof(head), "%s%s: ", last_line != 0 ? "\n" : "", name);
        console_write(head, (uint64_t)length);
    }
    console_write(part, size);
    last_line = size != 0 && part[size - 1] == '\n' ? 0 : id;
}

bool terminal_poll(void)
{
    char part[PART], name[CLEAVE_NAME_SIZE];
    uint32_t size, id;
    unsigned i = 0;
    for (; i < PARTS && take_part(part, &size, name, &id); i++) {
        if (shown == TERMINAL_ALL || shown == id) {
            show_part(part, size, name, id);
        }
    }
    return i == PARTS;
}

void terminal_show(uint32_t id)
{
    shown = id;
    last_line = 0;
}

void terminal_listen(uint32_t id) { front = id; }

void terminal_end_line(void)
{
    if (last_line != 0) {
        console_write("\n", 1);
        last_line = 0;
    }
}

/* A line that is begun did not wait for its end in vain. */
static void show_begun(struct domain *domain)
{
    klock_take(&waiting.lock);
    struct terminal *t = domain->terminal;
    if (t != NULL && !t->queued && t->size != 0) {
        t->queued = 1;
        append(t);
    }
    klock_release(&waiting.lock);
}

/* The debug console, then each domain in turn. */
static void change_front(struct mm_ctx *ctx)
{
    struct domain *domain = domain_next(front);
    front = domain != NULL ? domain->id : 0;
    print("\n--- typed characters go to %s%s\n", front != 0 ? "domain " : "the debug console",
          front != 0 ? domain->name : "");
    if (domain != NULL) {
        terminal_show(front);
        show_begun(domain);
        domain_put(ctx, domain);
    }
}

bool terminal_typed(struct mm_ctx *ctx, char c)
{
    keys = c == TERMINAL_KEY ? keys + 1 : 0;
    if (keys == 3) {
        keys = 0;
        change_front(ctx);
        return false;
    }
    if (front == 0) {
        return c != TERMINAL_KEY;
    }
    struct domain *domain = domain_get(front);
    if (domain == NULL || domain_use(domain) == NULL) {
        domain_put(ctx, domain);
        front = 0;
        return true;
    }
    (void)xen_type(domain, &c, 1);
    domain_unuse(domain);
    domain_put(ctx, domain);
    return false;
}
