// Memory shared by the ranks of a node: zeroed, the same for all, ordered by sync.
// test: ranks=1,2,4 timeout=60
#include "hirl/par.h"

#include "test.h"

TEST_MAIN {
    hirl_world_t *world = NULL;
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    const int rank = hirl_world_rank(world), size = hirl_world_size(world);
    enum { N = 100000 };
    for (int round = 0; round < 3; round++) { // a window's memory may be that of one before
        hirl_par_shared_t *shared = NULL;
        int32_t *x = NULL;
        NEED_OK(hirl_par_shared_create(world, N * sizeof *x, &shared, (void **)&x));
        CHECK_EQ_I((uintptr_t)x % 64, 0);
        int n_not_zero = 0;
        for (int i = 0; i < N; i++) n_not_zero += x[i] != 0;
        CHECK_EQ_I(n_not_zero, 0);
        NEED_OK(hirl_par_shared_sync(shared));
        for (int step = 1; step <= 5; step++) {
            // Each rank writes every size-th item, then reads them all.
            for (int i = rank; i < N; i += size) x[i] = 1000 * step + i % size;
            NEED_OK(hirl_par_shared_sync(shared));
            int n_bad = 0;
            for (int i = 0; i < N; i++) n_bad += x[i] != 1000 * step + i % size;
            CHECK_EQ_I(n_bad, 0);
            NEED_OK(hirl_par_shared_sync(shared));
        }
        hirl_par_shared_destroy(&shared);
        CHECK(shared == NULL);
    }
    hirl_par_shared_t *none = NULL;
    void *ptr = NULL;
    if (size > 1) {
        CHECK_FAILS(hirl_par_shared_create(world, (size_t)(8 + rank), &none, &ptr), HIRL_ERR_ARG,
                    "different sizes, from 8 to");
    }
    CHECK_FAILS(hirl_par_shared_create(world, SIZE_MAX, &none, &ptr), HIRL_ERR_ARG, "too many");
    CHECK(none == NULL && ptr == NULL);
    NEED_OK(hirl_par_shared_create(world, 0, &none, &ptr)); // nothing to share is no failure
    hirl_par_shared_destroy(&none);
    hirl_par_shared_destroy(&none);

    // A world of one rank shares with nobody, and nobody else need call.
    hirl_world_t *self = NULL;
    NEED_OK(hirl_world_create_self(&self));
    if (rank == 0) {
        NEED_OK(hirl_par_shared_create(self, 100, &none, &ptr));
        CHECK_OK(hirl_par_shared_sync(none));
        hirl_par_shared_destroy(&none);
    }
    hirl_world_destroy(&self);
    hirl_world_destroy(&world);
}
