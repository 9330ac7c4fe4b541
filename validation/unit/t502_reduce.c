// Floating-point reductions: the value against MPI's own in double precision, and the promise that
// bits depend on the ranks' inputs alone (not on length, place, buckets, or the order of progress
// and end).
// test: ranks=1,2,4 timeout=90
#include "hirl/par.h"

#include "test.h"

static hirl_world_t *world;
static int rank, size;

// What rank r contributes to item i of array a: a hash, spread over 2^-13..2^14, so that the order
// of a sum matters.
static float item_of(int r, int a, int64_t i) {
    uint64_t x = test_seed() + (uint64_t)i * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)(8 * a + r);
    x ^= x >> 31;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 29;
    const double fraction = (double)(int64_t)x * 0x1p-63;
    return (float)(fraction * ((double)(UINT64_C(1) << (x & 27)) * 0x1p-13));
}

static float *array_of(int a, int64_t n) {
    float *x = NULL;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &x));
    for (int64_t i = 0; i < n; i++) x[i] = item_of(rank, a, i);
    return x;
}

// The promised bits: a sum in rank order in double precision, rounded once.
static float *sum_of(int a, int64_t n) {
    float *x = NULL;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &x));
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int r = 0; r < size; r++) sum += (double)item_of(r, a, i);
        x[i] = (float)sum;
    }
    return x;
}

static void test_lengths(void) {
    // Around the change from gathering to segments (32 KiB over all ranks), and fewer items than
    // ranks.
    const int64_t lengths[] = {0, 1, 3, 5, 2047, 2048, 2049, 4096, 4097, 8193, 100003};
    for (int k = 0; k < (int)(sizeof lengths / sizeof lengths[0]); k++) {
        const int64_t n = lengths[k];
        float *x = array_of(1, n), *want = sum_of(1, n);
        CHECK_OK(hirl_par_all_reduce(world, x, n, HIRL_PAR_F32, HIRL_PAR_SUM));
        CHECK_BITS(x, want, (size_t)n * sizeof *x);
        hirl_mem_free(x);
        hirl_mem_free(want);
    }
}

// An independent sum: MPI's, in double precision. Bound: one rounding to 24 bits, and that of
// `size` sums in 53 bits.
static void test_against_mpi(void) {
    enum { N = 50000 };
    float *x = array_of(2, N);
    double *y = NULL, *scale = NULL;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, N, &y));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, N, &scale));
    for (int i = 0; i < N; i++) {
        y[i] = (double)x[i];
        scale[i] = fabs(y[i]);
    }
    MPI_Allreduce(MPI_IN_PLACE, y, N, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    MPI_Allreduce(MPI_IN_PLACE, scale, N, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    CHECK_OK(hirl_par_all_reduce(world, x, N, HIRL_PAR_F32, HIRL_PAR_SUM));
    int n_bad = 0;
    for (int i = 0; i < N; i++) {
        n_bad +=
            !(fabs((double)x[i] - y[i]) <= 0x1p-24 * fabs(y[i]) + 2 * size * 0x1p-53 * scale[i]);
    }
    CHECK_EQ_I(n_bad, 0);
    hirl_mem_free(x);
    hirl_mem_free(y);
    hirl_mem_free(scale);
}

static void test_doubles(void) {
    enum { N = 40000 };
    double *x = NULL, *low = NULL;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, N, &x));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, N, &low));
    for (int i = 0; i < N; i++) low[i] = x[i] = (double)item_of(rank, 3, i) / 3;
    CHECK_OK(hirl_par_all_reduce(world, x, N, HIRL_PAR_F64, HIRL_PAR_SUM));
    CHECK_OK(hirl_par_all_reduce(world, low, N, HIRL_PAR_F64, HIRL_PAR_MIN));
    int n_bad = 0;
    for (int i = 0; i < N; i++) {
        double sum = (double)item_of(0, 3, i) / 3, min = sum;
        for (int r = 1; r < size; r++) {
            sum += (double)item_of(r, 3, i) / 3;
            min = fmin(min, (double)item_of(r, 3, i) / 3);
        }
        n_bad += sum != x[i] || min != low[i];
    }
    CHECK_EQ_I(n_bad, 0);
    hirl_mem_free(x);
    hirl_mem_free(low);
}

// A NaN of one rank must reach all, in every operation and in both ways of reducing.
static void test_not_finite(void) {
    const int64_t lengths[] = {8, 100000};
    for (int k = 0; k < 2; k++) {
        for (int op = HIRL_PAR_SUM; op <= HIRL_PAR_MAX; op++) {
            for (int owner = 0; owner < size; owner++) {
                const int64_t n = lengths[k];
                float *x = array_of(4, n);
                for (int64_t i = 0; i < 4; i++) x[i] = 1 + (float)rank;
                if (rank == owner) x[1] = NAN, x[2] = INFINITY, x[3] = -INFINITY;
                CHECK_OK(hirl_par_all_reduce(world, x, n, HIRL_PAR_F32, (hirl_par_op_t)op));
                CHECK(isnan(x[1]));
                const float finite = owner == 0 && size > 1 ? 2 : 1; // the least of the others
                const float most = owner == size - 1 ? (float)size - 1 : (float)size;
                if (op == HIRL_PAR_SUM) CHECK(x[2] == INFINITY && x[3] == -INFINITY);
                if (op == HIRL_PAR_MAX) CHECK(x[0] == (float)size && x[2] == INFINITY);
                if (op == HIRL_PAR_MAX && size > 1) CHECK(x[3] == most);
                if (op == HIRL_PAR_MIN) CHECK(x[0] == 1 && x[3] == -INFINITY);
                if (op == HIRL_PAR_MIN && size > 1) CHECK(x[2] == finite);
                hirl_mem_free(x);
            }
        }
    }
}

enum { N_BUCKETS = 6 };
static const int64_t BUCKET[N_BUCKETS] = {70001,   1,   0,
                                          3000000, 257, 2097152}; // some need several pieces

// Several reductions under way; ranks make progress and end them in different orders.
static void test_under_way(void) {
    float *x[N_BUCKETS], *want[N_BUCKETS];
    hirl_par_request_t *request[N_BUCKETS] = {0};
    size_t held = 0;
    for (int a = 0; a < N_BUCKETS; a++) want[a] = sum_of(a, BUCKET[a]);
    for (int round = 0; round < 2; round++) {
        for (int a = 0; a < N_BUCKETS; a++) x[a] = array_of(a, BUCKET[a]);
        for (int a = 0; a < N_BUCKETS; a++) {
            CHECK_OK(hirl_par_all_reduce_begin(world, x[a], BUCKET[a], &request[a]));
            for (int i = 0; i < 3 * rank; i++) CHECK_OK(hirl_par_progress(world));
        }
        // A blocking one in between must not meet their messages.
        double one = 1;
        CHECK_OK(hirl_par_all_reduce(world, &one, 1, HIRL_PAR_F64, HIRL_PAR_SUM));
        CHECK(one == size);
        for (int i = 0; i < N_BUCKETS; i++) {
            const int a = rank % 2 ? N_BUCKETS - 1 - i : i;
            CHECK_OK(hirl_par_all_reduce_end(world, &request[a]));
            CHECK(request[a] == NULL);
            CHECK_BITS(x[a], want[a], (size_t)BUCKET[a] * sizeof(float));
        }
        for (int a = 0; a < N_BUCKETS; a++) hirl_mem_free(x[a]);
        if (round == 0) held = hirl_mem_held(HIRL_MEM_WORKSPACE);
    }
    // Buffers serve again: rounds after the first take no memory.
    CHECK_EQ_I(hirl_mem_held(HIRL_MEM_WORKSPACE), held);
    for (int a = 0; a < N_BUCKETS; a++) hirl_mem_free(want[a]);
    CHECK_FAILS(hirl_par_all_reduce_end(world, &request[0]), HIRL_ERR_ARG, "no request");
    CHECK_OK(hirl_par_progress(world));
}

// One array reduced whole and in unequal buckets.
static void test_buckets(void) {
    const int64_t n = 300000, cut[] = {0, 1, 1000, 100001, 250000, 300000};
    float *whole = array_of(7, n), *parts = array_of(7, n);
    CHECK_OK(hirl_par_all_reduce(world, whole, n, HIRL_PAR_F32, HIRL_PAR_SUM));
    for (int k = 0; k < 5; k++) {
        CHECK_OK(hirl_par_all_reduce(world, parts + cut[k], cut[k + 1] - cut[k], HIRL_PAR_F32,
                                     HIRL_PAR_SUM));
    }
    CHECK_BITS(whole, parts, (size_t)n * sizeof *whole);
    hirl_mem_free(whole);
    hirl_mem_free(parts);
}

// A world that is destroyed while a reduction is under way finishes it.
static void test_destroyed_early(void) {
    hirl_world_t *group = NULL;
    hirl_par_request_t *request = NULL;
    NEED_OK(hirl_world_split(world, size, &group));
    float *x = array_of(8, 50000), *want = sum_of(8, 50000);
    CHECK_OK(hirl_par_all_reduce_begin(group, x, 50000, &request));
    hirl_world_destroy(&group);
    CHECK_BITS(x, want, 50000 * sizeof *x);
    hirl_mem_free(x);
    hirl_mem_free(want);
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    rank = hirl_world_rank(world);
    size = hirl_world_size(world);
    RUN(test_lengths);
    RUN(test_against_mpi);
    RUN(test_doubles);
    RUN(test_not_finite);
    RUN(test_under_way);
    RUN(test_buckets);
    RUN(test_destroyed_early);
    hirl_world_destroy(&world);
}
