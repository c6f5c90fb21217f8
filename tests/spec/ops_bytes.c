/* SPDX-License-Identifier: BSD-2-Clause */
/* Random reads and writes of memory: the hypervisor's own, and guests' through the model TLB. */
#include "ops.h"

#include <inttypes.h>
#include <string.h>

#include "test.h"

#define BYTES_MOST (3 * PAGE_SIZE)

/* A place and size of an access; in the real geometry one that meets the bytes that are kept. */
static struct spec_range pick_bytes(struct world *w, unsigned s)
{
    struct spec_range range = {spec_pick_page(w, s) << PAGE_SHIFT, 0};
    uint64_t kept = w->ref->page_bytes;

    range.at += spec_below(w, kept);
    switch (spec_below(w, 4)) {
    case 0:
        range.size = 1 + spec_below(w, 2 * PAGE_SIZE);
        break;
    case 1:
        range.at &= ~(PAGE_SIZE - 1);
        range.size = PAGE_SIZE;
        break;
    default:
        range.size = 1 + spec_below(w, 8);
        break;
    }
    uint64_t left = (w->ref->pages << PAGE_SHIFT) - range.at;
    range.size = range.size < left ? range.size : left;
    return range;
}

static void fill(struct world *w, unsigned char *bytes, uint64_t size)
{
    uint64_t tag = test_random(&w->random) | 1;
    for (uint64_t i = 0; i < size; i++) {
        bytes[i] = (unsigned char)(tag >> (i % 8 * 8)) ^ (unsigned char)(i >> 3);
    }
}

/* What was read, against what the reference keeps of it. */
static void check_bytes(struct world *w, unsigned s, struct spec_range range, uint64_t done,
                        const unsigned char *bytes)
{
    for (uint64_t i = 0; i < done;) {
        uint64_t offset = (range.at + i) & (PAGE_SIZE - 1);
        uint64_t step = PAGE_SIZE - offset < done - i ? PAGE_SIZE - offset : done - i;
        struct ref_page page = ref_page(w->ref, s, (range.at + i) >> PAGE_SHIFT);
        if (offset < w->ref->page_bytes && page.policy != REF_DEVICE) {
            uint64_t kept = w->ref->page_bytes - offset;
            kept = kept < step ? kept : step;
            if (memcmp(bytes + i, ref_bytes(w->ref, &page) + offset, kept) != 0) {
                spec_fail(w, "space %u reads other bytes at 0x%" PRIx64, s, range.at + i);
            }
        }
        i += step;
    }
}

bool ops_any_paged(struct world *w, unsigned s, struct spec_range range)
{
    uint64_t end = (range.at + range.size + PAGE_SIZE - 1) >> PAGE_SHIFT;
    for (uint64_t page = range.at >> PAGE_SHIFT; page < end; page++) {
        if (ref_page(w->ref, s, page).policy == REF_PAGED && abs_walk(w->space[s], page).paged) {
            return true;
        }
    }
    return false;
}

struct spec_range ops_cut_where_asked(struct world *w, unsigned s, struct spec_range range)
{
    uint64_t end = (range.at + range.size + PAGE_SIZE - 1) >> PAGE_SHIFT;
    for (uint64_t page = range.at >> PAGE_SHIFT; page < end; page++) {
        struct ref_page found = ref_page(w->ref, s, page);
        uint64_t first = PAGE_SIZE - (range.at & (PAGE_SIZE - 1));
        if ((ref_armed(w->ref, &found) || found.policy == REF_PAGED ||
             found.policy == REF_FOREIGN) &&
            range.size > first) {
            range.size = first;
        }
    }
    return range;
}

/* Writing to a device's page is refused only once the way to it is made. */
static bool any_device(struct world *w, unsigned s, struct spec_range range)
{
    uint64_t end = (range.at + range.size + PAGE_SIZE - 1) >> PAGE_SHIFT;
    for (uint64_t page = range.at >> PAGE_SHIFT; page < end; page++) {
        if (ref_page(w->ref, s, page).policy == REF_DEVICE) {
            return true;
        }
    }
    return false;
}

/* A call that began (ops_before()) writes to this page. */
static void writes(struct world *w, unsigned s, uint64_t page)
{
    const struct ref_map *map = ref_map_at(w->ref, s, page);
    bool copies = map && !map->detached && w->ref->space[map->owner].life == REF_ALIVE;
    w->owner = copies ? w->space[map->owner] : NULL;
}

static void op_read(struct world *w)
{
    unsigned char bytes[BYTES_MOST];
    unsigned s = spec_pick_space(w, SPEC_ANY);
    if (s == REF_SPACES) {
        return;
    }
    struct spec_range range = ops_cut_where_asked(w, s, pick_bytes(w, s));
    uint64_t done;
    spec_say(w, "read %u 0x%" PRIx64 "+0x%" PRIx64, s, range.at, range.size);
    enum cleave_status expected = ref_read(w->ref, s, range.at, range.size, &done);
    ops_before(w);
    enum cleave_status got =
        space_read(w->ctx, w->space[s], gpa(range.at), bytes, range.size, NULL);
    if (got == CLEAVE_WAIT && ops_any_paged(w, s, range)) {
        return;
    }
    if (spec_agree(w, got, expected, w->space[s], 60 + level_pages(1))) {
        check_bytes(w, s, range, range.size, bytes);
    }
}

static void op_write(struct world *w)
{
    unsigned char bytes[BYTES_MOST];
    unsigned s = spec_pick_space(w, SPEC_ANY);
    if (s == REF_SPACES) {
        return;
    }
    struct spec_range range = ops_cut_where_asked(w, s, pick_bytes(w, s));
    uint64_t page = range.at >> PAGE_SHIFT;
    uint64_t expected_done, done = 0;
    spec_say(w, "write %u 0x%" PRIx64 "+0x%" PRIx64, s, range.at, range.size);
    fill(w, bytes, range.size);
    w->ref->commit = false;
    enum cleave_status expected = ref_write(w->ref, s, range.at, bytes, range.size, &expected_done);
    if (expected == CLEAVE_WAIT && ops_foresee_notice(w, s, page) == CLEAVE_OK) {
        expected = CLEAVE_OK;
        expected_done = range.size;
    }
    bool paged = ops_any_paged(w, s, range);
    ops_before(w);
    writes(w, s, page);
    enum cleave_status got =
        space_write(w->ctx, w->space[s], gpa(range.at), bytes, range.size, NULL, &done);
    ops_notice(w, s, page, got);
    if (done > expected_done || (got == expected && done != expected_done)) {
        spec_fail(w, "%" PRIu64 " bytes written, not %" PRIu64, done, expected_done);
    }
    if ((done < expected_done || any_device(w, s, range)) &&
        (got == CLEAVE_NO_MEMORY || got == CLEAVE_QUOTA)) {
        expected = CLEAVE_OK; /* it would have got further */
    }
    if (!(got == CLEAVE_WAIT && paged)) {
        (void)spec_agree(w, got, expected, w->space[s], 60 + level_pages(1));
    }
    w->ref->commit = true;
    (void)ref_write(w->ref, s, range.at, bytes, done, &expected_done);
    range.size += PAGE_SIZE;
    ops_touch(w, &range);
}

/* Puts a CPU into some space. False when it cannot run it, as foreseen. */
static bool enter(struct world *w, unsigned cpu)
{
    static const enum cleave_status entered[] = {CLEAVE_DYING, CLEAVE_OK, CLEAVE_FROZEN,
                                                 CLEAVE_DYING};
    unsigned s = spec_pick_space(w, SPEC_ANY);

    if (s == REF_SPACES) {
        return false;
    }
    spec_say(w, "cpu %u enters %u", cpu, s);
    host_cpu_stop(cpu);
    w->vcpu[cpu].space = REF_SPACES;
    enum cleave_status status = host_cpu_run(cpu, w->space[s]);
    if (!spec_agree(w, status, entered[w->ref->space[s].life], NULL, 0)) {
        return false;
    }
    w->vcpu[cpu].space = s;
    return true;
}

/* The access has to wait: for a subscriber, a load or memory. False when there is no reason to. */
static bool may_wait(struct world *w, struct spec_vcpu *vcpu, enum cleave_status expected,
                     bool paged, uint64_t need)
{
    vcpu->waiting = vcpu->wait.kind != WAIT_NONE;
    vcpu->pending = true;
    switch (vcpu->wait.kind) {
    case WAIT_NONE: /* it had nothing to wait with, or was woken at once */
        return expected == CLEAVE_WAIT || paged || spec_injected(w) || w->free_before < need;
    case WAIT_MEMORY:
        w->exhausted++;
        if (spec_chance(w, 2)) {
            ops_cancel_wait(w, vcpu);
        }
        return spec_injected(w) ||
               (w->free_before < need && !spec_is_promised(w, vcpu->space, need));
    case WAIT_VERDICT:
    case WAIT_RING:
        return expected == CLEAVE_WAIT;
    case WAIT_LOAD:
        return paged;
    case WAIT_EVENT: /* nobody reads by waiting here */
        break;
    }
    return false;
}

/* Accesses one page. True when it went through. */
static bool access_page(struct world *w, unsigned cpu, struct spec_range range, enum access access)
{
    unsigned char bytes[PAGE_SIZE];
    struct spec_vcpu *vcpu = &w->vcpu[cpu];
    unsigned s = vcpu->space;
    uint64_t page = range.at >> PAGE_SHIFT;
    uint64_t need = 60 + level_pages(1);
    enum wait_outcome outcome = vcpu->wait.outcome;
    enum cleave_status expected = ref_access(w->ref, s, page, (enum ref_access)access);
    uint64_t written;

    if (expected == CLEAVE_WAIT) {
        expected = ops_foresee_notice(w, s, page);
    }
    bool paged = expected == CLEAVE_OK && ops_any_paged(w, s, range);
    fill(w, bytes, range.size);
    struct vcpu_wait *wait = vcpu->pending || spec_chance(w, 2) ? &vcpu->wait : NULL;
    host_cpu_set_wait(cpu, wait);
    vcpu->pending = false;
    vcpu->at = range.at;
    vcpu->access = access;
    ops_before(w);
    if (access == ACCESS_WRITE) {
        writes(w, s, page);
    }
    enum cleave_status got = host_cpu_access(cpu, gpa(range.at), access, bytes, range.size);
    spec_touch(w, page & ~UINT64_C(15), (page | 15) + 1);
    if (access == ACCESS_WRITE) {
        bool verdict = !wait || wait->kind == WAIT_VERDICT || wait->kind == WAIT_RING;
        ops_notice(w, s, page, got == CLEAVE_WAIT && !verdict ? CLEAVE_NO_MEMORY : got);
    }
    if ((got == CLEAVE_DENIED && outcome == WAIT_DENIED) ||
        (got == CLEAVE_IO && outcome == WAIT_FAILED)) {
        w->refused++;
        return false;
    }
    if (got == CLEAVE_WAIT && may_wait(w, vcpu, expected, paged, need)) {
        return false;
    }
    if (!vcpu->waiting && vcpu->wait.grant.reserved > 0) {
        ops_cancel_wait(w, vcpu); /* it went on without */
    }
    if (!spec_agree(w, got, expected, w->space[s], need)) {
        return false;
    }
    if (access == ACCESS_WRITE) {
        w->ref->commit = true;
        (void)ref_write(w->ref, s, range.at, bytes, range.size, &written);
    } else {
        check_bytes(w, s, range, range.size, bytes);
    }
    return true;
}

/* A guest's access, page by page, through the model TLB of one of the CPUs that run it. A vcpu that
 * was woken makes its access again. */
static void op_access(struct world *w)
{
    unsigned cpu = 1 + (unsigned)spec_below(w, SPEC_VCPUS - 1);
    struct spec_vcpu *vcpu = &w->vcpu[cpu];
    enum access access = (enum access)spec_below(w, 3);

    if (vcpu->waiting || (vcpu->space < REF_SPACES && w->changing[vcpu->space])) {
        return;
    }
    if (!vcpu->pending && (vcpu->space == REF_SPACES || spec_chance(w, 12)) && !enter(w, cpu)) {
        return;
    }
    struct spec_range range = pick_bytes(w, vcpu->space);
    bool again = vcpu->pending;
    if (again) {
        range = (struct spec_range){vcpu->at, 1};
        access = vcpu->access;
    }
    spec_say(w, "cpu %u in %u %s 0x%" PRIx64 "+0x%" PRIx64 "%s", cpu, vcpu->space,
             (const char *[]){"reads", "writes", "fetches"}[access], range.at, range.size,
             again ? " again" : "");
    for (uint64_t done = 0; done < range.size;) {
        uint64_t at = range.at + done;
        uint64_t step = PAGE_SIZE - (at & (PAGE_SIZE - 1));
        step = step < range.size - done ? step : range.size - done;
        if (!access_page(w, cpu, (struct spec_range){at, step}, access)) {
            return;
        }
        done += step;
    }
}

static void op_make_exclusive(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ALIVE);
    if (s == REF_SPACES) {
        return;
    }
    struct spec_range range = {spec_pick_page(w, s) << PAGE_SHIFT, PAGE_SIZE};
    uint64_t left = (w->ref->pages << PAGE_SHIFT) - range.at;
    range.size *= 1 + spec_below(w, 4);
    range.size = range.size < left ? range.size : left;
    range = ops_cut_where_asked(w, s, range);
    uint64_t page = range.at >> PAGE_SHIFT;
    uint64_t end = (range.at + range.size) >> PAGE_SHIFT;
    spec_say(w, "make_exclusive %u [0x%" PRIx64 ", 0x%" PRIx64 ")", s, page, end);
    w->ref->commit = false;
    enum cleave_status expected = ref_make_exclusive(w->ref, s, page, end);
    expected = expected == CLEAVE_WAIT ? ops_foresee_notice(w, s, page) : expected;
    bool paged = ops_any_paged(w, s, range);
    ops_before(w);
    writes(w, s, page);
    enum cleave_status got =
        space_make_exclusive(w->ctx, w->space[s], (struct gfn_range){gfn(page), gfn(end)}, NULL);
    ops_notice(w, s, page, got);
    ops_touch(w, &range);
    if ((end > page + 1 || any_device(w, s, range)) &&
        (got == CLEAVE_NO_MEMORY || got == CLEAVE_QUOTA)) {
        expected = CLEAVE_OK; /* it would have got further */
    }
    if (!(got == CLEAVE_WAIT && paged) &&
        spec_agree(w, got, expected, w->space[s], 60 + 5 * level_pages(1))) {
        w->ref->commit = true;
        (void)ref_make_exclusive(w->ref, s, page, end);
    }
}

static void op_collapse(struct world *w)
{
    unsigned s = spec_pick_space(w, SPEC_ALIVE);
    if (s == REF_SPACES) {
        return;
    }
    unsigned level = 1 + (unsigned)spec_chance(w, 4);
    uint64_t page = spec_pick_page(w, s) & ~(level_pages(level) - 1);
    spec_say(w, "collapse %u page 0x%" PRIx64 " level %u", s, page, level);
    enum cleave_status got;
    unsigned calls = 0;
    ops_before(w);
    do {
        ops_budget(w);
        got = space_collapse(w->ctx, w->space[s], gpa(page << PAGE_SHIFT), level);
    } while (ops_again(w, got, s, &calls));
    spec_touch(w, page, page + level_pages(level));
    if (got != CLEAVE_OK && got != CLEAVE_NOT_MAPPED && got != CLEAVE_BUSY &&
        got != CLEAVE_NO_MEMORY && got != CLEAVE_QUOTA) {
        spec_fail(w, "status %u of a collapse", got);
    }
    *(got ? &w->refused : &w->applied) += 1;
}

const struct spec_op ops_bytes[] = {
    {"read", 4, true, op_read},         {"write", 14, true, op_write},
    {"access", 30, true, op_access},    {"make_exclusive", 2, true, op_make_exclusive},
    {"collapse", 4, true, op_collapse},
};
const unsigned ops_bytes_count = sizeof(ops_bytes) / sizeof(ops_bytes[0]);
