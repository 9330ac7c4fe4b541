// Ranks that reduce different lengths: the job ends with MPI's own text (in debug builds with what
// each rank called), not with a hang or with wrong numbers.
// test: ranks=2 timeout=60 expect="the mismatch is named" sanitize=no
#include "hirl/par.h"

#include "test.h"

TEST_MAIN {
    hirl_world_t *world = NULL;
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    static float x[100000];
    const int64_t n = hirl_world_rank(world) == 0 ? 100000 : 50000;
    // Rank 0 may wait for what never comes; rank 1 receives more than it has room for.
    if (hirl_par_all_reduce(world, x, n, HIRL_PAR_F32, HIRL_PAR_SUM) != HIRL_OK) {
        const char *text = hirl_error_text_view();
        const bool is_named = strstr(text, "MPI_ERR_TRUNCATE") || strstr(text, "ranks disagree");
        printf("%s: %s\n", is_named ? "the mismatch is named" : "the mismatch is not named", text);
        fflush(stdout);
        // A broken world refuses further work rather than wait for ever.
        if (strstr(text, "TRUNCATE")) {
            CHECK_FAILS(hirl_par_all_reduce(world, x, n, HIRL_PAR_F32, HIRL_PAR_SUM), HIRL_ERR_MPI,
                        "cannot go on");
        }
        hirl_world_abort(world, 3);
    }
    hirl_world_destroy(&world);
}
