// Nearest centroid against brute force in double precision, for shapes that do and do not fill
// tiles and panels; ties; and that a row's result does not depend on the rows beside it or on the
// number of threads.
// test: ranks=1 timeout=120
#include "../../src/cluster/cluster_impl.h"

#include "test.h"

#include <omp.h>

static hirl_world_t *world;

static float *make(int64_t n, uint64_t index) {
    float *x = NULL;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &x));
    test_fill_normal(x, n, index);
    return x;
}

static double distance_sq(const float *x, const float *c, int d) {
    double s = 0;
    for (int j = 0; j < d; j++) s += ((double)x[j] - (double)c[j]) * ((double)x[j] - (double)c[j]);
    return s;
}

static double norm_sq(const float *x, int d) {
    double s = 0;
    for (int j = 0; j < d; j++) s += (double)x[j] * (double)x[j];
    return s;
}

static void check_shape(int64_t n, int d, int64_t k) {
    float *x = make(n * d, 1), *c = make(k * d, 2), *distance = make(n, 3);
    int32_t *assign = NULL;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &assign));
    NEED_OK(hirl_kmeans_assign(world, NULL, x, n, d, c, k, assign, distance));
    int64_t n_bad = 0;
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double best = INFINITY, max_c = 0;
        for (int64_t j = 0; j < k; j++) {
            best = fmin(best, distance_sq(x + i * d, c + j * d, d));
            max_c = fmax(max_c, norm_sq(c + j * d, d));
        }
        // x.c is a chain of d roundings of 2^-24 |x| |c| at most, and |c|^2 / 2 has one; twice for
        // two candidates, doubled for |x - c|^2 = |x|^2 + 2 (|c|^2 / 2 - x.c).
        const double bound = 4 * 0x1p-24 * (d * sqrt(norm_sq(x + i * d, d) * max_c) + max_c / 2);
        const bool is_in = assign[i] >= 0 && assign[i] < k;
        const double mine = is_in ? distance_sq(x + i * d, c + assign[i] * d, d) : INFINITY;
        worst = fmax(worst, mine - best);
        n_bad += !(mine - best <= bound);
        n_bad += !test_is_close(distance[i], mine, 1e-6, 1e-12); // summed in double, rounded once
    }
    CHECK_MSG(n_bad == 0, "n %lld d %d k %lld: %lld rows wrong, worst excess %g", (long long)n, d,
              (long long)k, (long long)n_bad, worst);
    hirl_mem_free(assign);
    hirl_mem_free(distance);
    hirl_mem_free(c);
    hirl_mem_free(x);
}

static void test_shapes(void) {
    const int64_t ns[] = {1, 2, 13, 14, 15, 29, 337}, ks[] = {1, 16, 31, 33, 65, 700};
    const int ds[] = {1, 7, 33};
    for (size_t i = 0; i < sizeof(ns) / sizeof(*ns); i++)
        for (size_t j = 0; j < sizeof(ks) / sizeof(*ks); j++)
            for (size_t m = 0; m < sizeof(ds) / sizeof(*ds); m++)
                if (ns[i] * ks[j] < 100000) check_shape(ns[i], ds[m], ks[j]);
    check_shape(50, 2048, 40); // several blocks of panels
    check_shape(20, 9000, 40); // a panel above the size of a block
    check_shape(400, 128, 300);
}

// Equal centroids: the lowest index, wherever the copies are.
static void test_ties(void) {
    enum { N = 100, D = 5, K = 150 };
    float *x = make(N * D, 4), *c = make(K * D, 5);
    int32_t assign[N];
    for (int64_t j = 50; j < K; j++) memcpy(c + j * D, c + (j % 50) * D, D * sizeof(*c));
    for (int64_t i = 0; i < N; i++) memcpy(x + i * D, c + (i % 50) * D, D * sizeof(*x));
    NEED_OK(hirl_kmeans_assign(world, NULL, x, N, D, c, K, assign, NULL));
    for (int i = 0; i < N; i++) CHECK_EQ_I(assign[i], i % 50);
    hirl_mem_free(c);
    hirl_mem_free(x);
}

// The same rows in calls of other sizes and with other numbers of threads: the same bits. The data
// has many near ties: coordinates are thirds of small integers, so many distances are equal but for
// rounding.
static void test_invariance(void) {
    enum { N = 2000, D = 19, K = 333 };
    float *x = make(N * D, 6), *c = make(K * D, 7);
    int32_t want[N], got[N];
    for (int64_t i = 0; i < N * D; i++) x[i] = roundf(x[i]) / 3;
    for (int64_t i = 0; i < K * D; i++) c[i] = roundf(c[i]) / 3;
    const int n_threads = omp_get_max_threads();
    omp_set_num_threads(1);
    NEED_OK(hirl_kmeans_assign(world, NULL, x, N, D, c, K, want, NULL));
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        const int steps[] = {1, 5, 14, 17, 350, N};
        for (size_t s = 0; s < sizeof(steps) / sizeof(*steps); s++) {
            for (int i = 0; i < N; i += steps[s]) {
                const int n = i + steps[s] <= N ? steps[s] : N - i;
                NEED_OK(hirl_kmeans_assign(world, NULL, x + i * D, n, D, c, K, got + i, NULL));
            }
            CHECK_BITS(got, want, sizeof(want));
        }
    }
    omp_set_num_threads(n_threads);
    hirl_mem_free(c);
    hirl_mem_free(x);
}

// Sums in fixed point keep within 62 bits at the promised resolution.
static void test_scale(void) {
    const int64_t ns[] = {1, 2, 3, 1000, 1281167, INT64_C(1) << 31};
    const double bounds[] = {1e-30, 0.75, 1, 1.5, 3e9};
    for (size_t i = 0; i < sizeof(ns) / sizeof(*ns); i++) {
        for (size_t j = 0; j < sizeof(bounds) / sizeof(*bounds); j++) {
            const double scale = hirl_fixed_scale(ns[i], bounds[j]);
            CHECK(bounds[j] * scale * (double)ns[i] <= 0x1p62);
            CHECK(bounds[j] * scale <= 0x1p51);
            CHECK(1 / scale <= bounds[j] * exp2(fmax(ceil(log2((double)ns[i])) - 61, -50)));
        }
    }
    CHECK_CLOSE(hirl_fixed_scale(10, 0), 1, 0, 0);
    const double xs[] = {
        0,      -0.0,    0.5,          1.5,           -0.5,          -1.5,  2.4999999999,
        0x1p51, -0x1p51, 1e15 + 0.625, -1e15 - 0.375, 0x1p50 - 0.75, 1e-300};
    for (size_t i = 0; i < sizeof(xs) / sizeof(*xs); i++)
        CHECK_EQ_I(hirl_fixed_round(xs[i]), llrint(xs[i]));
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    hirl_log_setup(HIRL_LOG_WARN, hirl_world_rank(world));
    RUN(test_shapes);
    RUN(test_ties);
    RUN(test_invariance);
    RUN(test_scale);
    hirl_world_destroy(&world);
}
