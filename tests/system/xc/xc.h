/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Small programs that ask the hypervisor through libxenctrl, in the control domain. Domain 1 is a
 * Linux that is forked and does nothing, domain 2 one that nobody here touches (tests/control.sh).
 * A program's status is 0 when all its checks held; it leaves these two as they were, and no other.
 *
 * Lines "answer PROGRAM: ..." are what another hypervisor was asked, too: reference/ has Xen's
 * answers. There the same programs run without domains 1 and 2, in whose places they make loops
 * that count, and without forks, for which a loop stands in.
 */
#ifndef XC_H
#define XC_H

#define _GNU_SOURCE 1
#define XC_WANT_COMPAT_MAP_FOREIGN_API 1
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xencall.h>
#include <xenctrl.h>

#include <xen/hvm/save.h> /* wants what xenctrl.h has defined */

#define PAGE 4096u
#define TEMPLATE 1u

extern xc_interface *xc;
extern unsigned failed;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("FAILED %s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);        \
            failed++;                                                                              \
        }                                                                                          \
    } while (0)
#define CHECK_EQ(a, b)                                                                             \
    do {                                                                                           \
        long long check_a = (long long)(a), check_b = (long long)(b);                              \
        if (check_a != check_b) {                                                                  \
            printf("FAILED %s:%d: %s == %s (%lld, %lld; errno %d)\n", __FILE__, __LINE__, #a, #b,  \
                   check_a, check_b, errno);                                                       \
            failed++;                                                                              \
        }                                                                                          \
    } while (0)
/* The call's answer is printed, its result or the name of its error, and is the expected one. */
#define ANSWER_EQ(call, value)                                                                     \
    answer_result(__FILE__, __LINE__, #call, (errno = 0, (long long)(call)), (long long)(value))
/* The call fails with that errno. */
#define CHECK_ERRNO(call, number)                                                                  \
    answer_error(__FILE__, __LINE__, #call, (errno = 0, (long long)(call)), number)
/* The same, of what only Cleave can be asked: it is no answer. */
#define CHECK_FAILS(call, number)                                                                  \
    do {                                                                                           \
        errno = 0;                                                                                 \
        CHECK((call) < 0);                                                                         \
        CHECK_EQ(errno, number);                                                                   \
    } while (0)

/* For calls that libxenctrl has no name for, or would not make so. raw_domctl() gives the version
 * that `op` names; what it was told is in `op` then. */
extern xencall_handle *raw;
int raw_domctl(struct xen_domctl *op);
int raw_sysctl(struct xen_sysctl *op);
/* `pages` pages that hypercalls may name; it ends where there are none. */
void *raw_buffer(size_t pages);

/* What the program does. */
void test(void);

void answer_result(const char *file, int line, const char *call, long long result,
                   long long expected);
void answer_error(const char *file, int line, const char *call, long long result, int expected);
/* Prints an answer in words. */
void says(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Whether there are forks here, which is an answer of that name. */
bool forks_here(const char *part);

/* getdomaininfo of exactly that domain; domain DOMID_INVALID: there is none. */
xc_dominfo_t info_of(uint32_t domid);
/* What xc_domain_create() is told of a domain as all here are. */
struct xen_domctl_createdomain config_of(unsigned vcpus);
/* An empty domain, with the number that is asked for (0: any). */
uint32_t create(uint32_t domid, unsigned vcpus);
/* A paused fork of domain 1, whose number may be asked for; where there are no forks, a loop. */
uint32_t fork_template(uint32_t domid);
void destroy(uint32_t domid);

/* Contexts of one record: of a vcpu's registers, and of its memory types. */
struct cpu_only {
    struct hvm_save_descriptor header_is;
    struct hvm_save_header header;
    struct hvm_save_descriptor cpu_is;
    struct hvm_hw_cpu cpu;
    struct hvm_save_descriptor end_is;
};
struct mtrr_only {
    struct hvm_save_descriptor header_is;
    struct hvm_save_header header;
    struct hvm_save_descriptor mtrr_is;
    struct hvm_hw_mtrr mtrr;
    struct hvm_save_descriptor end_is;
};
/* For that vcpu, with the domain's own header; what the record says is the caller's to fill in. */
struct cpu_only cpu_context(uint32_t domid, uint16_t vcpu);
struct mtrr_only mtrr_context(uint32_t domid, uint16_t vcpu);

/* A domain of one vcpu with `pages` pages from 0 on, as many as it may have: the first 512 small
 * ones, the others in blocks of 2 MiB. Code that is put at TINY_CODE sees the first 1 GiB as it is.
 * tiny_start() lets it begin there, when it is unpaused. */
enum { TINY_TOP = 1, TINY_MIDDLE, TINY_BOTTOM, TINY_CODE, TINY_FREE }; /* pages, as of the loop */
uint32_t tiny_make(unsigned pages, const void *code, size_t size);
void tiny_start(uint32_t domid);
/* Pages of a domain, mapped here; munmap() takes them away. It ends where that fails. */
uint8_t *map_pages(uint32_t domid, unsigned first, unsigned count, int protection);
/*
 * A domain of nothing but memory and a CPU record: in 64-bit mode it counts in RAX, for ever, and
 * stores RAX, R15 and the low half of XMM1 at LOOP_DATA. Its page tables map 2 MiB, identically.
 */
enum { LOOP_TOP = 1, LOOP_MIDDLE, LOOP_BOTTOM, LOOP_CODE, LOOP_DATA }; /* pages */
#define LOOP_R15 UINT64_C(0x123456789abcdef0)
#define LOOP_XMM1 UINT64_C(0xfedcba9876543210)
#define LOOP_MAX (256u << 20)
/* Such a domain of so much memory in leaves of 2 MiB, paused, with a number that may be asked for.
 */
uint32_t loop_create(uint32_t domid, uint32_t bytes);
/* Page tables and code; the domain has memory there. */
void loop_load(uint32_t domid);
/* The vcpu begins the loop once the domain is unpaused. A code segment has the attributes 0xa9b. */
void loop_start(uint32_t domid, uint16_t vcpu, uint32_t code_attributes);

#endif
