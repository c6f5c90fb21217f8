/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A tiny kernel to write stories in: memory one to one, hypercalls, text, checks, exceptions. A
 * story is one main.c with guest_story(); it passes when that returns.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cleave/abi.h"

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define PAGE 4096u

/* The story; its name. */
extern const char guest_name[];
void guest_story(void);

/* What the boot configuration gave: bytes of memory, and the command line. */
extern uint64_t guest_memory;
extern const char *guest_command;
extern bool guest_amd;
/* First address past the guest's own image and stacks: memory that a story may use. */
extern char guest_end[];

void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void leave(uint32_t code);
/* Fails the story (or the child) with a line. */
_Noreturn void fail(const char *file, int line, const char *what, uint64_t a, uint64_t b);
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fail(__FILE__, __LINE__, #condition, 0, 0);                                            \
        }                                                                                          \
    } while (0)
#define CHECK_EQ(a, b)                                                                             \
    do {                                                                                           \
        uint64_t check_a = (uint64_t)(a), check_b = (uint64_t)(b);                                 \
        if (check_a != check_b) {                                                                  \
            fail(__FILE__, __LINE__, #a " == " #b, check_a, check_b);                              \
        }                                                                                          \
    } while (0)

/* One hypercall with its arguments; the status. */
uint64_t cleave(enum cleave_op op, void *arguments, uint64_t size);
#define CLEAVE(op, arguments) cleave((op), (arguments), sizeof(*(arguments)))
/* The same with any number in RAX and any operands. */
uint64_t hypercall(uint64_t number, uint64_t a, uint64_t b, uint64_t c);
struct cleave_error last_error(void);

/* FORK as it is; `*index` is RDX afterwards. */
uint64_t hypercall_fork(struct cleave_fork *fork, uint64_t *index);
/* Forks this domain: 0 in the parent, 1..count in the children; `ids` may be null. */
uint32_t fork_self(uint32_t count, uint32_t flags, uint32_t *ids);
/* Waits for the end of child `id` (0: any) and checks that it exited with `code`; its id. */
uint32_t wait_for(uint32_t id, uint32_t code);
void destroy(uint32_t id);
void yield(void);
/* Runs one operation on a domain that must succeed. */
void on_domain(enum cleave_op op, uint32_t id);
/* Changes how [at, at + size) of this domain is mapped; the status. */
uint64_t map(uint32_t domain, uint64_t at, uint64_t size, unsigned policy, unsigned rights,
             unsigned order);
struct cleave_stat *stat_of(uint32_t id); /* in a static buffer */
struct cleave_lookup lookup(uint64_t at);
struct cleave_lookup lookup_in(uint32_t domain, uint64_t at);
void audit_clean(void);

enum { PRIVATE = 1, READ_ONLY, SHARED, WIPE, ABSENT };
enum { R = 1, RW = 3, RX = 5, RWX = 7 };

/* A second stack and a function for another vcpu of this domain. */
struct guest_vcpu {
    uint64_t stack_top, function, argument;
};
extern char guest_vcpu_entry[];
void start_vcpu(uint32_t vcpu, void (*function)(uint64_t argument), uint64_t argument);

/* A load or store that may be refused: false when it raised an exception. */
bool try_load(const volatile void *at, uint8_t *value);
bool try_store(volatile void *at, uint8_t value);

/* Vector 28, for a callback of Xen's ABI: fails the story where it has none of its own. */
void guest_upcall(void);

uint64_t cycles(void);
uint64_t random_next(uint64_t *seed);
static inline volatile uint64_t *word(uint64_t at) { return (volatile uint64_t *)at; }
static inline void relax(void) { __asm__ volatile("pause" : : : "memory"); }

#endif
