/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest's linear addresses: each paging mode, page size and right, what is refused, and copies
 * over the edges of pages. The expected addresses stand in the rows; nothing is computed as the
 * walker does it.
 */
#include "../../hv/kernel/guest_walk.h"

#include <string.h>

#include "pager.h"
#include "scene.h"

#define CR0_PAGED UINT64_C(0x80000001) /* PE, PG */
#define CR0_PAGED_WP UINT64_C(0x80010001)
#define CR4_4M UINT64_C(0x10)   /* PSE */
#define CR4_8 UINT64_C(0x20)    /* PAE */
#define CR4_57 UINT64_C(0x1000) /* LA57 */
#define EFER_LONG UINT64_C(0x500)
#define EFER_LONG_NX UINT64_C(0xd00)
#define EFER_NX UINT64_C(0x800)
#define NX (UINT64_C(1) << 63)

#define ROOT UINT64_C(0x10000)
#define FAULT UINT64_MAX /* instead of an address */

/* A table of each level, at ROOT, ROOT + 0x1000 and so on: which of them an entry points to. */
#define TO(n) (ROOT + (n)*UINT64_C(0x1000) + 3)

static const struct walk_case {
    const char *label;
    uint64_t cr0, cr4, efer;
    uint64_t linear;
    struct {
        unsigned slot;
        uint64_t value;
    } entry[4];           /* in the table of each level, from the top */
    uint64_t read, write; /* where they go */
} walks[] = {
    /* No paging: linear is physical, also in real mode (PE clear). */
    {"flat", 1, 0, 0, 0x345678, {{0, 0}}, 0x345678, 0x345678},
    {"flat-real", 0, 0, 0, 0xfffff, {{0, 0}}, 0xfffff, 0xfffff},
    {"flat-last", 1, 0, 0, 0xffffffff, {{0, 0}}, 0xffffffff, 0xffffffff},
    {"flat-past-4g", 1, 0, 0, 0x100000000, {{0, 0}}, FAULT, FAULT},

#define LONG CR0_PAGED_WP, CR4_8, EFER_LONG_NX
#define LONG_LINEAR UINT64_C(0xffff8143c3205678) /* slots 258, 271, 25, 5 */
    {"4k",
     LONG,
     LONG_LINEAR,
     {{258, TO(1)}, {271, TO(2)}, {25, TO(3)}, {5, 0x300003}},
     0x300678,
     0x300678},
    {"4k-low-half",
     LONG,
     0x7fffffffffff,
     {{255, TO(1)}, {511, TO(2)}, {511, TO(3)}, {511, 0x300003}},
     0x300fff,
     0x300fff},
    {"2m", LONG, LONG_LINEAR, {{258, TO(1)}, {271, TO(2)}, {25, 0x600083}}, 0x605678, 0x605678},
    {"2m-pat", LONG, LONG_LINEAR, {{258, TO(1)}, {271, TO(2)}, {25, 0x601083}}, 0x605678, 0x605678},
    {"1g", LONG, LONG_LINEAR, {{258, TO(1)}, {271, 0x40000083}}, 0x43205678, 0x43205678},
    {"4k-high-address",
     LONG,
     LONG_LINEAR,
     {{258, TO(1)}, {271, TO(2)}, {25, TO(3)}, {5, 0x7f00000300003}},
     0x7f00000300678,
     0x7f00000300678},
    {"ignored-bits",
     LONG,
     LONG_LINEAR,
     {{258, TO(1) | 0x7ff0000000000e78},
      {271, TO(2) | 0x7ff0000000000e78},
      {25, TO(3) | 0x7ff0000000000e78},
      {5, 0x300003 | 0x7ff0000000000ef8}},
     0x300678,
     0x300678},

    {"absent-4",
     LONG,
     LONG_LINEAR,
     {{258, TO(1) - 1}, {271, TO(2)}, {25, TO(3)}, {5, 0x300003}},
     FAULT,
     FAULT},
    {"absent-3",
     LONG,
     LONG_LINEAR,
     {{258, TO(1)}, {271, TO(2) - 1}, {25, TO(3)}, {5, 0x300003}},
     FAULT,
     FAULT},
    {"absent-2",
     LONG,
     LONG_LINEAR,
     {{258, TO(1)}, {271, TO(2)}, {25, TO(3) - 1}, {5, 0x300003}},
     FAULT,
     FAULT},
    {"absent-1",
     LONG,
     LONG_LINEAR,
     {{258, TO(1)}, {271, TO(2)}, {25, TO(3)}, {5, 0x300002}},
     FAULT,
     FAULT},
    {"absent-2m", LONG, LONG_LINEAR, {{258, TO(1)}, {271, TO(2)}, {25, 0x600082}}, FAULT, FAULT},
    {"absent-1g", LONG, LONG_LINEAR, {{258, TO(1)}, {271, 0x40000082}}, FAULT, FAULT},
    {"table-outside", LONG, LONG_LINEAR, {{258, TO(1)}, {271, 0xffff00000003}}, FAULT, FAULT},

    {"read-only-4",
     LONG,
     LONG_LINEAR,
     {{258, TO(1) - 2}, {271, TO(2)}, {25, TO(3)}, {5, 0x300003}},
     0x300678,
     FAULT},
    {"read-only-3",
     LONG,
     LONG_LINEAR,
     {{258, TO(1)}, {271, TO(2) - 2}, {25, TO(3)}, {5, 0x300003}},
     0x300678,
     FAULT},
    {"read-only-2",
     LONG,
     LONG_LINEAR,
     {{258, TO(1)}, {271, TO(2)}, {25, TO(3) - 2}, {5, 0x300003}},
     0x300678,
     FAULT},
    {"read-only-1",
     LONG,
     LONG_LINEAR,
     {{258, TO(1)}, {271, TO(2)}, {25, TO(3)}, {5, 0x300001}},
     0x300678,
     FAULT},
    {"read-only-2m",
     LONG,
     LONG_LINEAR,
     {{258, TO(1)}, {271, TO(2)}, {25, 0x600081}},
     0x605678,
     FAULT},
    {"read-only-1g", LONG, LONG_LINEAR, {{258, TO(1)}, {271, 0x40000081}}, 0x43205678, FAULT},
    {"read-only-without-wp",
     CR0_PAGED,
     CR4_8,
     EFER_LONG,
     LONG_LINEAR,
     {{258, TO(1) - 2}, {271, TO(2) - 2}, {25, TO(3) - 2}, {5, 0x300001}},
     0x300678,
     0x300678},
    /* Hypercalls come from ring 0: pages of users are theirs, SMAP and SMEP (CR4) are not looked
     * at, and what may not be executed is data all the same. */
    {"user",
     LONG,
     LONG_LINEAR,
     {{258, TO(1) + 4}, {271, TO(2) + 4}, {25, TO(3) + 4}, {5, 0x300007}},
     0x300678,
     0x300678},
    {"user-smap-smep",
     CR0_PAGED_WP,
     CR4_8 | 0x300000,
     EFER_LONG,
     LONG_LINEAR,
     {{258, TO(1) + 4}, {271, TO(2) + 4}, {25, TO(3) + 4}, {5, 0x300007}},
     0x300678,
     0x300678},
    {"nx",
     LONG,
     LONG_LINEAR,
     {{258, TO(1) | NX}, {271, TO(2) | NX}, {25, TO(3) | NX}, {5, 0x300003 | NX}},
     0x300678,
     0x300678},
    {"nx-off-4",
     CR0_PAGED_WP,
     CR4_8,
     EFER_LONG,
     LONG_LINEAR,
     {{258, TO(1) | NX}, {271, TO(2)}, {25, TO(3)}, {5, 0x300003}},
     FAULT,
     FAULT},
    {"nx-off-1",
     CR0_PAGED_WP,
     CR4_8,
     EFER_LONG,
     LONG_LINEAR,
     {{258, TO(1)}, {271, TO(2)}, {25, TO(3)}, {5, 0x300003 | NX}},
     FAULT,
     FAULT},

    {"reserved-large-4",
     LONG,
     LONG_LINEAR,
     {{258, TO(1) | 0x80}, {271, TO(2)}, {25, TO(3)}, {5, 0x300003}},
     FAULT,
     FAULT},
    {"reserved-1g-low", LONG, LONG_LINEAR, {{258, TO(1)}, {271, 0x40002083}}, FAULT, FAULT},
    {"reserved-1g-high", LONG, LONG_LINEAR, {{258, TO(1)}, {271, 0x60000083}}, FAULT, FAULT},
    {"reserved-2m-low",
     LONG,
     LONG_LINEAR,
     {{258, TO(1)}, {271, TO(2)}, {25, 0x602083}},
     FAULT,
     FAULT},
    {"reserved-2m-high",
     LONG,
     LONG_LINEAR,
     {{258, TO(1)}, {271, TO(2)}, {25, 0x700083}},
     FAULT,
     FAULT},

    /* Where bits 63:48 do not repeat bit 47; the walk without them would find a page. */
    {"hole-low",
     LONG,
     0x800000000000,
     {{256, TO(1)}, {0, TO(2)}, {0, TO(3)}, {0, 0x300003}},
     FAULT,
     FAULT},
    {"hole-high",
     LONG,
     0xffff7fffffffffff,
     {{255, TO(1)}, {511, TO(2)}, {511, TO(3)}, {511, 0x300003}},
     FAULT,
     FAULT},
    {"hole-bit-63",
     LONG,
     0x8000000000000678,
     {{0, TO(1)}, {0, TO(2)}, {0, TO(3)}, {0, 0x300003}},
     FAULT,
     FAULT},

#define PAE CR0_PAGED_WP, CR4_8, EFER_NX
#define PAE_LINEAR UINT64_C(0xc3205678) /* slots 3, 25, 5 */
    {"pae-4k", PAE, PAE_LINEAR, {{3, TO(1) - 2}, {25, TO(2)}, {5, 0x300003}}, 0x300678, 0x300678},
    {"pae-2m", PAE, PAE_LINEAR, {{3, TO(1) - 2}, {25, 0x600083}}, 0x605678, 0x605678},
    {"pae-past-4g",
     PAE,
     PAE_LINEAR,
     {{3, TO(1) - 2}, {25, TO(2)}, {5, 0x200300003}},
     0x200300678,
     0x200300678},
    {"pae-linear-past-4g",
     PAE,
     PAE_LINEAR + (UINT64_C(1) << 32),
     {{3, TO(1) - 2}, {25, TO(2)}, {5, 0x300003}},
     FAULT,
     FAULT},
    {"pae-absent-3", PAE, PAE_LINEAR, {{3, TO(1) - 3}, {25, TO(2)}, {5, 0x300003}}, FAULT, FAULT},
    {"pae-absent-2",
     PAE,
     PAE_LINEAR,
     {{3, TO(1) - 2}, {25, TO(2) - 1}, {5, 0x300003}},
     FAULT,
     FAULT},
    {"pae-absent-1", PAE, PAE_LINEAR, {{3, TO(1) - 2}, {25, TO(2)}, {5, 0x300002}}, FAULT, FAULT},
    {"pae-read-only-2",
     PAE,
     PAE_LINEAR,
     {{3, TO(1) - 2}, {25, TO(2) - 2}, {5, 0x300003}},
     0x300678,
     FAULT},
    {"pae-read-only-1",
     PAE,
     PAE_LINEAR,
     {{3, TO(1) - 2}, {25, TO(2)}, {5, 0x300001}},
     0x300678,
     FAULT},
    {"pae-read-only-without-wp",
     CR0_PAGED,
     CR4_8,
     0,
     PAE_LINEAR,
     {{3, TO(1) - 2}, {25, TO(2) - 2}, {5, 0x300001}},
     0x300678,
     0x300678},
    {"pae-reserved-write-3",
     PAE,
     PAE_LINEAR,
     {{3, TO(1)}, {25, TO(2)}, {5, 0x300003}},
     FAULT,
     FAULT},
    {"pae-reserved-large-3",
     PAE,
     PAE_LINEAR,
     {{3, 0x40000081}, {25, TO(2)}, {5, 0x300003}},
     FAULT,
     FAULT},
    {"pae-reserved-2m", PAE, PAE_LINEAR, {{3, TO(1) - 2}, {25, 0x602083}}, FAULT, FAULT},
    {"pae-reserved-high",
     PAE,
     PAE_LINEAR,
     {{3, TO(1) - 2}, {25, TO(2)}, {5, 0x300003 | UINT64_C(1) << 62}},
     FAULT,
     FAULT},
    {"pae-nx",
     PAE,
     PAE_LINEAR,
     {{3, TO(1) - 2}, {25, TO(2) | NX}, {5, 0x300003 | NX}},
     0x300678,
     0x300678},
    {"pae-nx-off",
     CR0_PAGED_WP,
     CR4_8,
     0,
     PAE_LINEAR,
     {{3, TO(1) - 2}, {25, TO(2)}, {5, 0x300003 | NX}},
     FAULT,
     FAULT},

#define OLD CR0_PAGED_WP, CR4_4M, 0
#define OLD_LINEAR UINT64_C(0xc3205678) /* slots 780, 517 */
    {"32-4k", OLD, OLD_LINEAR, {{780, TO(1)}, {517, 0x300003}}, 0x300678, 0x300678},
    {"32-4m", OLD, OLD_LINEAR, {{780, 0x800083}}, 0xa05678, 0xa05678},
    {"32-4m-past-4g", OLD, OLD_LINEAR, {{780, 0x804083}}, 0x200a05678, 0x200a05678},
    {"32-4m-reserved", OLD, OLD_LINEAR, {{780, 0xa00083}}, FAULT, FAULT},
    {"32-without-pse",
     CR0_PAGED_WP,
     0,
     0,
     OLD_LINEAR,
     {{780, TO(1) | 0x80}, {517, 0x300003}},
     0x300678,
     0x300678},
    {"32-high-bits", OLD, OLD_LINEAR, {{780, TO(1)}, {517, 0xf0300003}}, 0xf0300678, 0xf0300678},
    {"32-linear-past-4g",
     OLD,
     OLD_LINEAR + (UINT64_C(1) << 32),
     {{780, TO(1)}, {517, 0x300003}},
     FAULT,
     FAULT},
    {"32-absent-2", OLD, OLD_LINEAR, {{780, TO(1) - 1}, {517, 0x300003}}, FAULT, FAULT},
    {"32-absent-1", OLD, OLD_LINEAR, {{780, TO(1)}, {517, 0x300002}}, FAULT, FAULT},
    {"32-read-only-2", OLD, OLD_LINEAR, {{780, TO(1) - 2}, {517, 0x300003}}, 0x300678, FAULT},
    {"32-read-only-1", OLD, OLD_LINEAR, {{780, TO(1)}, {517, 0x300001}}, 0x300678, FAULT},
    {"32-read-only-4m", OLD, OLD_LINEAR, {{780, 0x800081}}, 0xa05678, FAULT},
    {"32-read-only-without-wp",
     CR0_PAGED,
     0,
     0,
     OLD_LINEAR,
     {{780, TO(1) - 2}, {517, 0x300001}},
     0x300678,
     0x300678},
};

static struct space *space;
static struct guest_paging paging;

/* Memory up to 16 GiB, of which only what is touched is there. */
static void start(void)
{
    scene_start(0);
    space = scene_space();
    scene_region(space, 0, UINT64_C(16) << (30 - PAGE_SHIFT), REGION_PRIVATE, RIGHT_ALL, 0);
}

static void put(uint64_t at, const void *bytes, uint64_t size)
{
    uint64_t done;
    REQUIRE_OK(space_write(scene.ctx, space, gpa(at), bytes, size, NULL, &done));
}

static void put_entry(unsigned table, unsigned slot, uint64_t value, uint64_t size)
{
    put(ROOT + table * UINT64_C(0x1000) + slot * size, &value, size);
}

/* The way of one access, and how a refusal names it. */
static void check_way(uint64_t linear, bool write, uint64_t wanted)
{
    gpa_t at = gpa(0);
    struct space_reader reader = {.space = space};
    enum cleave_status status =
        guest_translate(scene.ctx, &reader, &paging, linear, write, "buffer", NULL, &at);
    space_reader_end(scene.ctx, &reader);
    if (wanted != FAULT) {
        CHECK_STATUS(status, CLEAVE_OK);
        CHECK_EQ(at.v, wanted);
        return;
    }
    CHECK_STATUS(status, CLEAVE_FAULT);
    CHECK_EQ(scene.ctx->error.value, linear);
    CHECK_EQ(strcmp(scene.ctx->error.argument, "buffer"), 0);
}

/* CR3's other bits (PCD, PWT, PCID) are no address. */
TEST_TABLE(walk, walks)
{
    const uint64_t size = row->cr4 & CR4_8 ? 8 : 4;
    start();
    REQUIRE_OK(guest_paging_decode(scene.ctx, row->cr0, ROOT | 0x18, row->cr4, row->efer, &paging));
    if (size == 8 && !(row->efer & 0x100)) {
        paging.root &= ~UINT64_C(0x18); /* there they are not */
    }
    for (unsigned i = 0; i < 4; i++) {
        if (row->entry[i].value != 0) {
            put_entry(i, row->entry[i].slot, row->entry[i].value, size);
        }
    }
    check_way(row->linear, false, row->read);
    check_way(row->linear, true, row->write);
    scene_end();
}

static const struct decode_case {
    const char *label;
    uint64_t cr0, cr3, cr4, efer;
    enum guest_mode mode;
    uint64_t root;
} decodes[] = {
    {"flat", 1, 0x5000, CR4_8, EFER_NX, GUEST_FLAT, 0},
    {"flat-lme", 1, 0x5000, CR4_8, 0x100, GUEST_FLAT, 0},
    {"32", CR0_PAGED, 0x500005fff, CR4_4M, 0, GUEST_PAGING_32, 0x5000},
    {"pae", CR0_PAGED, 0x500005fff, CR4_8, 0, GUEST_PAGING_PAE, 0x5fe0},
    {"4", CR0_PAGED, 0xfff00005fff, CR4_8, EFER_LONG, GUEST_PAGING_4_LEVEL, 0xfff00005000},
    {"4-pcid", CR0_PAGED, 0x8000000000005123, CR4_8 | 0x20000, EFER_LONG, GUEST_PAGING_4_LEVEL,
     0x5000},
};
TEST_TABLE(decode, decodes)
{
    start();
    REQUIRE_OK(guest_paging_decode(scene.ctx, row->cr0, row->cr3, row->cr4, row->efer, &paging));
    CHECK_EQ(paging.mode, row->mode);
    CHECK_EQ(paging.root, row->root);
    CHECK_EQ(paging.large, (row->cr4 & CR4_4M) != 0);
    CHECK_EQ(paging.no_execute, (row->efer & EFER_NX) != 0);
    CHECK(!paging.write_protect);
}

TEST(five_levels_are_refused)
{
    start();
    CHECK_STATUS(guest_paging_decode(scene.ctx, CR0_PAGED, 0, CR4_8 | CR4_57, EFER_LONG, &paging),
                 CLEAVE_INVALID);
    CHECK_EQ(strcmp(scene.ctx->error.argument, "paging"), 0);
    CHECK_EQ(scene.ctx->error.value, CR4_8 | CR4_57);
    /* The bit means nothing while paging is off. */
    CHECK_STATUS(guest_paging_decode(scene.ctx, 1, 0, CR4_8 | CR4_57, 0, &paging), CLEAVE_OK);
}

/* --- Copies ----------------------------------------------------------------------------------- */

enum { BYTES_MAX = 3 * 4096 };
static unsigned char bytes[BYTES_MAX], got[BYTES_MAX];

/* 4-level paging; at linear 0x200000: a page at 0x300000, one at 0x500000, none, and one that is
 * read-only. Before them a page of 2 MiB at 0x600000. */
static void start_copies(void)
{
    start();
    REQUIRE_OK(guest_paging_decode(scene.ctx, CR0_PAGED_WP, ROOT, CR4_8, EFER_LONG, &paging));
    put_entry(0, 0, TO(1), 8);
    put_entry(1, 0, TO(2), 8);
    put_entry(2, 0, 0x600083, 8);
    put_entry(2, 1, TO(3), 8);
    put_entry(3, 0, 0x300003, 8);
    put_entry(3, 1, 0x500003, 8);
    put_entry(3, 3, 0x700001, 8);
    for (unsigned i = 0; i < BYTES_MAX; i++) {
        bytes[i] = (unsigned char)(i * 7 + i / 251 + 1);
    }
    memset(got, 0, sizeof(got));
}

static void check_bytes_at(uint64_t at, const unsigned char *wanted, uint64_t size)
{
    unsigned char there[BYTES_MAX];
    REQUIRE_OK(space_read(scene.ctx, space, gpa(at), there, size, NULL));
    CHECK_BYTES(there, wanted, size);
}

static const struct copy_case {
    const char *label;
    uint64_t linear, size;
    struct {
        uint64_t at, size;
    } part[3];
} copies[] = {
    {"nothing", 0x200000, 0, {{0, 0}}},
    {"a-byte", 0x200fff, 1, {{0x300fff, 1}}},
    {"a-page", 0x201000, 4096, {{0x500000, 4096}}},
    {"two-pages", 0x200ffd, 7, {{0x300ffd, 3}, {0x500000, 4}}},
    {"up-to-a-hole", 0x200123, 8192 - 0x123, {{0x300123, 4096 - 0x123}, {0x500000, 4096}}},
    {"into-a-smaller-page", 0x1fffff, 3, {{0x7fffff, 1}, {0x300000, 2}}},
    {"of-a-large-page", 0x1ff000 - 5, 4096 + 5, {{0x7feffb, 5}, {0x7ff000, 4096}}},
};
TEST_TABLE(copy, copies)
{
    start_copies();
    REQUIRE_OK(guest_copy_out(scene.ctx, space, &paging, row->linear, bytes, row->size, "b", NULL));
    uint64_t done = 0;
    for (unsigned i = 0; i < 3; i++) {
        if (row->part[i].size != 0) {
            check_bytes_at(row->part[i].at, bytes + done, row->part[i].size);
        }
        done += row->part[i].size;
    }
    CHECK_EQ(done, row->size);
    REQUIRE_OK(guest_copy_in(scene.ctx, space, &paging, row->linear, got, row->size, "b", NULL));
    CHECK_BYTES(got, bytes, BYTES_MAX < row->size ? BYTES_MAX : row->size);
    CHECK_EQ(got[row->size], 0);
    scene_end();
}

/* The first byte that cannot be had is told, and what lies before it was copied. */
TEST(copies_stop_at_the_first_page_that_is_not_there)
{
    start_copies();
    put(0x500000, bytes, 4096);
    CHECK_STATUS(guest_copy_in(scene.ctx, space, &paging, 0x201ff0, got, 32, "text", NULL),
                 CLEAVE_FAULT);
    CHECK_EQ(scene.ctx->error.value, 0x202000);
    CHECK_EQ(strcmp(scene.ctx->error.argument, "text"), 0);
    CHECK_BYTES(got, bytes + 0xff0, 16);
    CHECK_STATUS(guest_copy_out(scene.ctx, space, &paging, 0x201ff0, bytes, 32, "text", NULL),
                 CLEAVE_FAULT);
    check_bytes_at(0x500ff0, bytes, 16);
    CHECK_STATUS(guest_copy_out(scene.ctx, space, &paging, 0x203800, bytes, 1, "text", NULL),
                 CLEAVE_FAULT);
    CHECK_EQ(scene.ctx->error.value, 0x203800);
    CHECK_STATUS(guest_copy_in(scene.ctx, space, &paging, 0x203800, got, 1, "text", NULL),
                 CLEAVE_OK);
    scene_end();
}

TEST(copies_stop_at_ends)
{
    start_copies();
    put_entry(0, 255, TO(1), 8);
    put_entry(1, 511, TO(2), 8);
    put_entry(2, 511, TO(3), 8);
    put_entry(3, 511, 0x300003, 8);
    /* From the lower half into the hole. */
    CHECK_STATUS(guest_copy_in(scene.ctx, space, &paging, 0x7fffffffffff, got, 2, "b", NULL),
                 CLEAVE_FAULT);
    CHECK_EQ(scene.ctx->error.value, UINT64_C(0x800000000000));
    /* Up to the last byte but one, and not over the end. */
    put_entry(0, 511, TO(1), 8);
    CHECK_STATUS(guest_copy_in(scene.ctx, space, &paging, UINT64_MAX - 4, got, 4, "b", NULL),
                 CLEAVE_OK);
    CHECK_STATUS(guest_copy_in(scene.ctx, space, &paging, UINT64_MAX - 4, got, 8, "b", NULL),
                 CLEAVE_WRAP);
    CHECK_STATUS(guest_copy_in(scene.ctx, space, &paging, 0x200000, got, UINT64_MAX, "b", NULL),
                 CLEAVE_WRAP);
    /* Without paging, memory ends at 4 GiB. */
    REQUIRE_OK(guest_paging_decode(scene.ctx, 1, 0, 0, 0, &paging));
    CHECK_STATUS(guest_copy_out(scene.ctx, space, &paging, 0xffffffff, bytes, 2, "b", NULL),
                 CLEAVE_FAULT);
    CHECK_EQ(scene.ctx->error.value, UINT64_C(0x100000000));
    check_bytes_at(0xffffffff, bytes, 1);
    scene_end();
}

/* Linear addresses that are mapped to guest-physical ones where nothing is. */
TEST(copies_name_physical_addresses_that_are_not_there)
{
    start_copies();
    put_entry(3, 2, (UINT64_C(16) << 30) | 3, 8);
    CHECK_STATUS(guest_copy_out(scene.ctx, space, &paging, 0x202010, bytes, 4, "b", NULL),
                 CLEAVE_FAULT);
    CHECK_EQ(strcmp(scene.ctx->error.argument, "at"), 0);
    CHECK_EQ(scene.ctx->error.value / 4096, (UINT64_C(16) << 30) / 4096);
    scene_end();
}

/* What a copy may have to wait for: memory under the bytes, and a table that is still to come. */
TEST(copies_wait)
{
    struct vcpu_wait wait = {.space = NULL};
    struct pager *pager;
    start_copies();
    wait.space = space;
    REQUIRE_OK(pager_create(scene.ctx, scene.pool, scene_space(), gpa(level_size(2)), &pager));
    const struct region region = {.policy = REGION_PAGED, .rights = RIGHT_ALL};
    const uint64_t paged = UINT64_C(20) << 30;
    REQUIRE_OK(space_map_paged(scene.ctx, space, gpa(paged), PAGE_SIZE, pager, 0, 1, 0, &region));
    put_entry(1, 1, paged | 3, 8);
    CHECK_STATUS(guest_copy_in(scene.ctx, space, &paging, 0x40000000, got, 1, "b", &wait),
                 CLEAVE_WAIT);
    CHECK_EQ(wait.kind, WAIT_LOAD);
    pager_cancel_wait(scene.ctx, &wait);
    scene_drain(0);
    CHECK_STATUS(guest_copy_out(scene.ctx, space, &paging, 0x200000, bytes, 1, "b", &wait),
                 CLEAVE_WAIT);
    CHECK_EQ(wait.kind, WAIT_MEMORY);
    pool_cancel_wait(scene.ctx, scene.pool, &wait);
}
