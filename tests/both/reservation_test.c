/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a reservation promises: however a fork writes, reads, is notified of or shared again, its
 * writes do not run out of memory. Whatever is nobody's is taken by others meanwhile.
 */
#include "scene.h"

/* --- What a reservation covers
 * ------------------------------------------------------------------------------ */

/* A snapshot shares everything again: what the space may have to copy is reserved once more. */
TEST(a_snapshot_renews_it)
{
    const struct fork_options options = {.limit = UINT64_MAX, .reserve = true, .vcpus = 1};
    struct space *child = NULL, *snapshot = NULL;
    scene_start(0);
    struct space *space = scene_space();
    scene_memory(space, 0, 8, 0);
    REQUIRE_OK(space_fork(scene.ctx, space, 1, &options, &child));
    uint64_t goal = child->payer.reserved;
    for (unsigned i = 0; i < 8; i++) {
        scene_write(child, i, 1);
    }
    scene_drain(6);
    struct scene_state before = scene_state();
    CHECK_STATUS(space_snapshot(scene.ctx, child, UINT64_MAX, &snapshot), CLEAVE_RESERVE);
    SCENE_CHECK_SAME_VIEW(before, scene_state());
    CHECK_EQ(scene_state().charged, before.charged);
    scene_give_back(UINT64_MAX);
    REQUIRE_OK(space_snapshot(scene.ctx, child, UINT64_MAX, &snapshot));
    CHECK_EQ(child->payer.reserved, goal);
    scene_drain(0);
    for (unsigned i = 0; i < 8; i++) {
        CHECK_OK(scene_access(child, i, ACCESS_WRITE));
    }
    scene_give_back(UINT64_MAX);
    scene_end();
}
