/* SPDX-License-Identifier: BSD-2-Clause */
/* The processor writes accessed and dirty bits into the guest's page tables: after a fork those are
 * copied like any other page, not shared. And each call sees the page tables of its moment. */
#include "guest.h"

const char guest_name[] = "walker";

#define VIEW (4 * GIB + 2 * MIB) /* linear */
#define DATA (16 * MIB)
#define PTE_P_W 3u
#define PTE_A 0x20u
#define PTE_D 0x40u

extern uint64_t guest_pml4[];
static uint64_t pd_page[512] __attribute__((aligned(4096)));
static uint64_t pt_page[512] __attribute__((aligned(4096)));

static void flush(void)
{
    uint64_t cr3;
    __asm__ volatile("mov %%cr3, %0; mov %0, %%cr3" : "=r"(cr3) : : "memory");
}

static void maps(uint64_t entry)
{
    pt_page[0] = entry;
    flush();
}

/* Arguments at one address, in one page, then in another, then in one that is not to be written. */
static void calls_see_changes(void)
{
    struct cleave_version *version = (void *)VIEW;
    struct cleave_console text = {.text = VIEW, .size = 5};
    *word(DATA) = *word(DATA + PAGE) = 0;
    maps(DATA | PTE_P_W);
    CHECK_EQ(cleave(CLEAVE_OP_VERSION, version, sizeof(*version)), CLEAVE_OK);
    CHECK(*word(DATA) != 0 && *word(DATA + PAGE) == 0);
    *word(DATA) = 0;
    maps((DATA + PAGE) | PTE_P_W);
    CHECK_EQ(cleave(CLEAVE_OP_VERSION, version, sizeof(*version)), CLEAVE_OK);
    CHECK(*word(DATA) == 0 && *word(DATA + PAGE) != 0);
    maps(DATA | 1);
    CHECK_EQ(cleave(CLEAVE_OP_VERSION, version, sizeof(*version)), CLEAVE_FAULT);
    CHECK_EQ(*word(DATA), 0);
    *word(DATA) = UINT64_C(0x0a64616572); /* "read" */
    CHECK_EQ(cleave(CLEAVE_OP_CONSOLE, &text, sizeof(text)), CLEAVE_OK);
    maps(0);
    CHECK_EQ(cleave(CLEAVE_OP_CONSOLE, &text, sizeof(text)), CLEAVE_FAULT);
    maps(DATA | PTE_P_W);
    *word(DATA) = 0;
    *word(DATA + PAGE) = 1;
}

void guest_story(void)
{
    uint32_t id;
    uint64_t *pdpt = (uint64_t *)(guest_pml4[0] & ~UINT64_C(0xfff));
    pdpt[4] = (uint64_t)pd_page | PTE_P_W;
    pd_page[1] = (uint64_t)pt_page | PTE_P_W;
    for (unsigned i = 0; i < 512; i++) {
        pt_page[i] = (DATA + i * PAGE) | PTE_P_W;
    }
    for (unsigned i = 0; i < 512; i++) {
        *word(DATA + i * PAGE) = i;
    }
    flush();
    calls_see_changes();
    if (fork_self(1, 0, &id) == 1) {
        for (unsigned i = 0; i < 512; i += 3) {
            CHECK_EQ(*word(VIEW + i * PAGE), i);
            CHECK((pt_page[i] & PTE_A) != 0);
            CHECK((pt_page[i] & PTE_D) == 0);
        }
        for (unsigned i = 0; i < 512; i += 6) {
            *word(VIEW + i * PAGE) = i + 1;
            CHECK((pt_page[i] & PTE_D) != 0);
        }
        leave(2);
    }
    CHECK_EQ(wait_for(id, 2), id);
    for (unsigned i = 0; i < 512; i++) {
        CHECK_EQ(pt_page[i], (DATA + i * PAGE) | PTE_P_W);
    }
    for (unsigned i = 1; i < 512; i += 3) {
        CHECK_EQ(*word(VIEW + i * PAGE), i);
        CHECK((pt_page[i] & PTE_A) != 0);
    }
    destroy(id);
    audit_clean();
}
