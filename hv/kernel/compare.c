/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Compares a domain with the base that a reset takes it back to, and digests its memory: commands
 * `diff` and `digest`. The domain stands still meanwhile, so that no lock is needed for its bytes.
 */
#include "calls.h"
#include "commands.h"
#include "hypercall.h"
#include "sched.h"

#define ROOM 64u
#define WORDS (PAGE_SIZE / sizeof(uint64_t))
#define FNV_PRIME UINT64_C(0x100000001b3)
#define FNV_START UINT64_C(0xcbf29ce484222325)

/* Makes the domain stand still and keeps others from changing or ending it. Null: cannot now. */
static struct space *hold(struct command *command, struct domain *domain)
{
    struct space *space = domain_use(domain);
    if (space == NULL) {
        print("domain %u is going\n", domain->id);
        return NULL;
    }
    domain_hold(command->ctx, domain);
    domain_stop(command->ctx, domain, NULL);
    return space;
}

static void let_go(struct domain *domain)
{
    domain_resume(domain);
    klock_release(&domain->busy);
    domain_unuse(domain);
}

/* --- Against the base ------------------------------------------------------------------------- */

/* What of a vcpu is not as it was kept; null: nothing. Its clock may have gone on. */
static const char *vcpu_difference(struct vcpu *vcpu)
{
    struct hvm_state state;
    bool started = vcpu->saved_xsave.v != 0;
    if (vcpu->started != started) {
        return "whether it is started";
    }
    if (__builtin_memcmp(&vcpu->lapic, &vcpu->saved_lapic, sizeof(vcpu->lapic)) != 0) {
        return "local APIC";
    }
    if (__builtin_memcmp(&vcpu->mtrr, &vcpu->saved_mtrr, sizeof(vcpu->mtrr)) != 0) {
        return "MTRRs";
    }
    if (!started) {
        return NULL;
    }
    hvm->vcpu_save(&vcpu->hvm, &state);
    state.tsc_offset = vcpu->saved.tsc_offset;
    if (__builtin_memcmp(&state, &vcpu->saved, sizeof(state)) != 0) {
        return "registers";
    }
    if (__builtin_memcmp(vcpu->hvm.xsave, frame_address(vcpu->saved_xsave), PAGE_SIZE) != 0) {
        return "XSAVE area";
    }
    return __builtin_memcmp(&vcpu->xen, &vcpu->saved_xen, sizeof(vcpu->xen)) != 0 ? "event state"
                                                                                  : NULL;
}

static void print_records(struct domain *domain)
{
    for (unsigned i = 0; i < domain->vcpu_count; i++) {
        const char *different = vcpu_difference(domain->vcpu[i]);
        if (different != NULL) {
            print("records differ: vcpu %u, %s\n", i, different);
            return;
        }
    }
    print("records %s\n", xen_as_kept(domain) ? "equal" : "differ: event channels");
}

static bool diff_turn(struct command *command, struct domain *domain)
{
    struct gfn_range found[ROOM];
    struct diff diff = {.end = gfn(GUEST_PAGES), .exact = true, .found = found, .room = ROOM};
    uint64_t pages = 0, ranges = 0;
    struct space *space = hold(command, domain);
    enum cleave_status status;

    if (space == NULL) {
        return true;
    }
    if (space->base == NULL || !domain->has_base) {
        print("diff %u: it has no base\n", domain->id);
        let_go(domain);
        return true;
    }
    do {
        status = space_diff(command->ctx, space, space->base, &diff);
        for (unsigned i = 0; i < diff.count; i++) {
            pages += found[i].end.v - found[i].start.v;
        }
        ranges += diff.count;
    } while (status == CLEAVE_AGAIN);
    if (status == CLEAVE_OK) {
        print("diff %u: %lu pages in %lu ranges, ", domain->id, pages, ranges);
        print_records(domain);
    } else {
        command_refused(command, "diff", domain->id, status);
    }
    let_go(domain);
    return true;
}

enum command_result command_diff(struct command *command)
{
    return command_each(command, diff_turn);
}

/* --- All memory ------------------------------------------------------------------------------- */

/* FNV-1a by words; false for a page of zeros, which is as good as none. */
static bool digest_page(const uint64_t *words, uint64_t *digest)
{
    uint64_t hash = *digest, any = 0;
    for (uint64_t i = 0; i < WORDS; i++) {
        any |= words[i];
        hash = (hash ^ words[i]) * FNV_PRIME;
    }
    *digest = any != 0 ? hash : *digest;
    return any != 0;
}

static bool digest_turn(struct command *command, struct domain *domain)
{
    uint64_t digest = FNV_START, pages = 0, before;
    struct mapping mapping;
    struct space *space = hold(command, domain);
    if (space == NULL) {
        return true;
    }
    for (uint64_t at = 0, end; at < GUEST_PAGES; at = end) {
        enum cleave_status status =
            space_lookup(command->ctx, space, gpa(at << PAGE_SHIFT), &mapping);
        if (status != CLEAVE_OK) {
            command_refused(command, "digest", domain->id, status);
            break;
        }
        end = level_align(gfn(at), mapping.level).v + level_pages(mapping.level);
        for (uint64_t i = at; i < end && mapping.kind == PTE_KIND_LEAF; i++) {
            before = digest;
            digest = (digest ^ i) * FNV_PRIME;
            if (digest_page(frame_address(pfn_add(mapping.frame, i - at)), &digest)) {
                pages++;
            } else {
                digest = before;
            }
        }
    }
    print("digest %u: %016lx of %lu pages\n", domain->id, digest, pages);
    let_go(domain);
    return true;
}

enum command_result command_digest(struct command *command)
{
    return command_each(command, digest_turn);
}
