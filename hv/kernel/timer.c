/* SPDX-License-Identifier: BSD-2-Clause */
/* A leftist heap of vcpus (C. A. Crane, 1972): the right path of n nodes is at most log2(n + 1)
 * long, and only right paths are walked. See timer.h. */
#include "timer.h"

#include "sched.h"

static struct {
    struct klock lock;
    struct vcpu *first;
} timers;

static uint32_t rank(const struct vcpu *vcpu) { return vcpu != NULL ? vcpu->timer.rank : 0; }

/* What hangs beneath `node` is in order but for the two ranks; true when its own rank changed. */
static bool settle(struct vcpu *node)
{
    struct timer *t = &node->timer;
    uint32_t before = t->rank;
    if (rank(t->left) < rank(t->right)) {
        struct vcpu *left = t->left;
        t->left = t->right;
        t->right = left;
    }
    t->rank = rank(t->right) + 1;
    return t->rank != before;
}

/* One heap of two. Down the right paths, then up again to settle the ranks. */
static struct vcpu *merge(struct vcpu *a, struct vcpu *b)
{
    struct vcpu *root = NULL, *last = NULL;
    while (a != NULL && b != NULL) {
        if (b->timer.at < a->timer.at) {
            struct vcpu *swap = a;
            a = b;
            b = swap;
        }
        a->timer.parent = last;
        if (last != NULL) {
            last->timer.right = a;
        } else {
            root = a;
        }
        last = a;
        a = a->timer.right;
    }
    struct vcpu *rest = a != NULL ? a : b;
    if (last == NULL) {
        root = rest;
    } else {
        last->timer.right = rest;
    }
    if (rest != NULL) {
        rest->timer.parent = last;
    }
    for (; last != NULL; last = last->timer.parent) {
        (void)settle(last);
    }
    return root;
}

static void take_out(struct vcpu *vcpu)
{
    struct timer *t = &vcpu->timer;
    struct vcpu *parent = t->parent, *below = merge(t->left, t->right);
    if (below != NULL) {
        below->timer.parent = parent;
    }
    if (parent == NULL) {
        timers.first = below;
    } else if (parent->timer.left == vcpu) {
        parent->timer.left = below;
    } else {
        parent->timer.right = below;
    }
    while (parent != NULL && settle(parent)) {
        parent = parent->timer.parent;
    }
    *t = (struct timer){.at = 0};
}

void vcpu_timer(struct vcpu *vcpu, uint64_t at)
{
    struct percpu *cpu = this_cpu();
    if (at != 0 && vcpu->timer.at == at) {
        return;
    }
    /* With 0 the vcpu may be freed afterwards: whoever takes it out now is to be done with it. */
    klock_take(&timers.lock);
    if (vcpu->timer.at != 0) {
        take_out(vcpu);
    }
    if (at != 0) {
        vcpu->timer = (struct timer){.at = at, .rank = 1};
        timers.first = merge(timers.first, vcpu);
    }
    klock_release(&timers.lock);
    if (at != 0 && cpu->deadline != 0 && at < cpu->deadline) {
        timer_arm(at);
    }
}

void timers_expire(void)
{
    uint64_t now = read_tsc();
    klock_take(&timers.lock);
    while (timers.first != NULL && timers.first->timer.at <= now) {
        struct vcpu *vcpu = timers.first;
        take_out(vcpu);
        vcpu_attend(vcpu); /* under the lock: so it cannot be freed meanwhile */
    }
    klock_release(&timers.lock);
}

uint64_t timers_next(uint64_t limit)
{
    klock_take(&timers.lock);
    uint64_t first = timers.first != NULL ? timers.first->timer.at : UINT64_MAX;
    klock_release(&timers.lock);
    return first < limit ? first : limit;
}
