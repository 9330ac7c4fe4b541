// Agreement: all succeed or all fail alike, with the text and place of the lowest rank that failed.
// test: ranks=1,2,4 timeout=60
#include "hirl/par.h"

#include "test.h"

TEST_MAIN {
    hirl_world_t *world = NULL;
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    const int rank = hirl_world_rank(world), size = hirl_world_size(world);
    CHECK_OK(hirl_par_agree(world, HIRL_OK));

    for (int failing = 0; failing < size; failing++) {
        hirl_error_reset();
        hirl_status_t mine = HIRL_OK, got;
        // Ranks from `failing` on fail, each with a text and a status of its own.
        if (rank == failing) mine = HIRL_FAIL(HIRL_ERR_FORMAT, "shard %d is cut short", rank);
        if (rank > failing) mine = HIRL_FAIL(HIRL_ERR_IO, "cannot read on rank %d", rank);
        got = hirl_par_agree(world, mine);
        CHECK_EQ_I(got, HIRL_ERR_FORMAT);
        char want[64];
        char prefix[32] = "";
        if (size > 1) snprintf(prefix, sizeof prefix, "rank %d: ", failing);
        snprintf(want, sizeof want, "%sshard %d is cut short", prefix, failing);
        CHECK_EQ_S(hirl_error_text_view(), want);
        CHECK_EQ_I(hirl_error_status(), HIRL_ERR_FORMAT);
        CHECK_HAS(hirl_error_place_view(), "t504_agree.c:");
        CHECK_HAS(hirl_error_place_view(), " test_body");
    }

    // The same failure everywhere needs no rank's name.
    CHECK_EQ_I(hirl_par_agree(world, HIRL_FAIL(HIRL_ERR_DECK, "a.nml:3:1: unknown key")),
               HIRL_ERR_DECK);
    CHECK_EQ_S(hirl_error_text_view(), "a.nml:3:1: unknown key");

    // A status without a record of its own: an older failure's text must not pass for its cause.
    (void)HIRL_FAIL(HIRL_ERR_DECK, "something old");
    CHECK_EQ_I(hirl_par_agree(world, HIRL_ERR_MEMORY), HIRL_ERR_MEMORY);
    CHECK_EQ_S(hirl_error_text_view(), hirl_status_text(HIRL_ERR_MEMORY));
    // ... nor disturb an agreement that all is well.
    CHECK_OK(hirl_par_agree(world, HIRL_OK));
    CHECK_OK(hirl_par_barrier(world));
    hirl_world_destroy(&world);
}
