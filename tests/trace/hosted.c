/* SPDX-License-Identifier: BSD-2-Clause */
/* The trace in a Linux process, on the hosted port. The model TLB checks, but accesses go by the
 * tables as they are, since no emulator keeps a translation over an entry. */
#include <stdio.h>
#include <stdlib.h>

#include "trace.h"

static void on_wake(struct vcpu_wait *wait, void *arg) { spec_woken(arg, wait); }

void spec_start_machine(struct world *w, uint64_t blocks)
{
    host_start(&(struct host_options){.frames = 4 * level_pages(2),
                                      .cpus = SPEC_VCPUS,
                                      .format = w->shard->npt ? &npt_format : &ept_format});
    host_seed(w->seed);
    host_enable_tlb(true);
    host_tlb_mode(HOST_TLB_FRESH);
    host_log_enable(false);
    host_on_wake(on_wake, w);
    w->ctx = host_ctx(0);
    w->device = host_take(level_pages(1), 1);
    (void)host_take(TRACE_POOL_BLOCKS * level_pages(1), 2);
    w->pool = host_pool(blocks * level_size(1));
}

void spec_stop_machine(void) { host_stop(); }

void spec_check_machine(void)
{
    host_tlb_check();
    host_check_locks();
}

void trace_count(struct trace_counts *counts)
{
    struct host_counters c = host_counters();
    counts->accesses += c.accesses;
    counts->faults += c.faults;
    counts->copied += c.bytes_copied;
    counts->zeroed += c.bytes_zeroed;
}

void spec_stop(int kind) { exit(kind); }

int main(int count, char **words)
{
    struct trace trace;

    if (count != 2 || !trace_parse(words[1], &trace)) {
        printf("usage: hosted \"npt|ept seed=N steps=N every=N\"\n");
        return 2;
    }
    trace_run(&trace);
    return 0;
}
