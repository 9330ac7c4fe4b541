// K-means on one rank against faiss_Clustering_train of FAISS's C API in the same process, and
// against numbers that FAISS's Python module gave: initial rows, averages, splits of empty
// clusters, subsets, restarts, n = k.
// test: ranks=1 timeout=180
#include "hirl/cluster.h"

#include <faiss/c_api/Clustering_c.h>
#include <faiss/c_api/IndexFlat_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>

#include "test.h"

#include "../reference/cluster/reference.h"

static hirl_world_t *world;

// Normal rows around n_centres centres; with n_distinct < n, rows repeat.
static float *make_rows(int64_t n, int d, int n_centres, double noise, int64_t n_distinct,
                        uint64_t index) {
    float *x = NULL, *centre = NULL;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n * d, &x));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, (int64_t)n_centres * d, &centre));
    test_fill_normal(centre, (int64_t)n_centres * d, 2 * index);
    hirl_rng_t rng = test_rng(2 * index + 1);
    for (int64_t i = 0; i < n_distinct; i++) {
        const int64_t c = hirl_rng_below(&rng, n_centres);
        for (int j = 0; j < d; j++)
            x[i * d + j] = (float)(centre[c * d + j] + noise * hirl_rng_normal(&rng));
    }
    for (int64_t i = n_distinct; i < n; i++)
        memcpy(x + i * d, x + i % n_distinct * d, (size_t)d * sizeof(*x));
    hirl_mem_free(centre);
    return x;
}

// What FAISS computes with these settings; splits are those of the kept restart.
static double run_faiss(const float *x, int64_t n, int d, const hirl_kmeans_cfg_t *cfg,
                        float *centroids, int64_t *n_splits_p) {
    FaissClusteringParameters p;
    FaissClustering *clustering = NULL;
    FaissClusteringIterationStats *stats = NULL;
    FaissIndexFlatL2 *index = NULL;
    float *c = NULL;
    size_t size = 0;
    faiss_ClusteringParameters_init(&p);
    p.niter = cfg->n_iter;
    p.nredo = cfg->n_redo;
    p.seed = (int)cfg->seed;
    p.max_points_per_centroid =
        cfg->max_points_per_centroid ? (int)cfg->max_points_per_centroid : 1000000;
    p.min_points_per_centroid = 1;
    NEED(faiss_Clustering_new_with_params(&clustering, d, (int)cfg->k, &p) == 0);
    NEED(faiss_IndexFlatL2_new_with(&index, d) == 0);
    if (!CHECK_MSG(faiss_Clustering_train(clustering, n, x, (FaissIndex *)index) == 0, "%s",
                   faiss_get_last_error()))
        test_give_up();
    faiss_Clustering_centroids(clustering, &c, &size);
    NEED(size == (size_t)(cfg->k * d));
    memcpy(centroids, c, size * sizeof(*c));
    faiss_Clustering_iteration_stats(clustering, &stats, &size);
    *n_splits_p = 0;
    // The kept statistics end with the kept restart. The C structure is opaque, so item i is
    // reached by its size.
    const size_t stride = 4 + 4 + 8 * 3 + 4 + 4; // float, padding, three doubles, int, padding
    const char *item = (const char *)stats;
    double objective = 0;
    for (size_t i = size > (size_t)cfg->n_iter ? size - (size_t)cfg->n_iter : 0; i < size; i++) {
        FaissClusteringIterationStats *s = (FaissClusteringIterationStats *)(item + i * stride);
        objective = faiss_ClusteringIterationStats_obj(s);
        *n_splits_p += faiss_ClusteringIterationStats_nsplit(s);
    }
    faiss_Index_free((FaissIndex *)index);
    faiss_Clustering_free(clustering);
    return objective;
}

typedef struct problem {
    int64_t n;
    int d, n_centres;
    double noise;
    int64_t n_distinct, k;
    int n_iter, n_redo;
    int64_t seed, max_points;
} problem_t;

// One iteration: the same initial rows, the same assignments but for ties, averages that differ by
// FAISS's rounding of single-precision sums of at most n / k * 10 terms. Many iterations: a flipped
// tie may move a centroid, but hardly the objective: 1e-4 of it.
static void check_problem(const problem_t *p, hirl_cluster_engine_t engine, double objective_rel) {
    const hirl_kmeans_cfg_t cfg = {.k = p->k,
                                   .n_iter = p->n_iter,
                                   .n_redo = p->n_redo,
                                   .seed = p->seed,
                                   .max_points_per_centroid = p->max_points,
                                   .engine = engine};
    float *x = make_rows(p->n, p->d, p->n_centres, p->noise, p->n_distinct, 10), *want = NULL,
          *got = NULL;
    hirl_kmeans_result_t result;
    int64_t n_splits;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, p->k * p->d, &want));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, p->k * p->d, &got));
    const double objective = run_faiss(x, p->n, p->d, &cfg, want, &n_splits);
    NEED_OK(hirl_kmeans_train(world, x, p->n, p->d, &cfg, got, &result));
    printf("n %lld d %d k %lld iterations %d restarts %d: objective %.9g, FAISS %.9g, apart %.2g; "
           "splits %lld, FAISS "
           "%lld\n",
           (long long)p->n, p->d, (long long)p->k, p->n_iter, p->n_redo, result.objective,
           objective, fabs(result.objective / objective - 1), (long long)result.n_splits,
           (long long)n_splits);
    // FAISS's |x|^2 + |c|^2 - 2 x.c leaves some 1e-6 per row where ours is zero.
    CHECK_CLOSE(result.objective, objective, objective_rel, 1e-6 * (double)p->n);
    if (p->n_iter == 1) {
        CHECK_CLOSE_F32(got, want, p->k * p->d, 2e-6, 2e-6);
        CHECK_EQ_I(result.n_splits, n_splits);
    }
    hirl_mem_free(got);
    hirl_mem_free(want);
    hirl_mem_free(x);
}

static void test_problems(void) {
    static const problem_t problems[] = {
        {2000, 16, 30, 0.5, 2000, 40, 1, 1, 1234, 0}, // initial rows and averages
        {2000, 16, 30, 0.5, 2000, 40, 1, 1, 0, 13},   // a subset
        {600, 9, 600, 0.5, 60, 200, 1, 1, 3, 0},      // splits: 60 different rows for 200 clusters
        {5000, 33, 50, 0.4, 5000, 60, 20, 1, 0, 0},   // many iterations
        {5000, 33, 50, 0.4, 5000, 60, 20, 5, 1, 0},   // and restarts
        {10000, 20, 400, 0.3, 10000, 200, 12, 1, 2, 0},
        {3000, 8, 3000, 1, 3000, 2000, 10, 1, 7,
         1000}, // hardly more rows than clusters, as in upper levels
        {3000, 24, 60, 0.2, 3000, 100, 20, 1, 5, 0}, // clusters that become empty on the way
        {3000, 24, 60, 0.2, 3000, 100, 20, 5, 6, 0},
        {4000, 12, 40, 0.5, 4000, 25, 20, 2, -5, 60}, // a subset, restarts, a negative seed
        {500, 3, 5, 0.2, 500, 1, 3, 2, 0, 0},         // one cluster
    };
    for (size_t i = 0; i < sizeof(problems) / sizeof(*problems); i++) {
        check_problem(&problems[i], HIRL_CLUSTER_FUSED, problems[i].n_iter == 1 ? 1e-5 : 1e-4);
        if (i < 5)
            check_problem(&problems[i], HIRL_CLUSTER_FAISS, problems[i].n_iter == 1 ? 1e-5 : 1e-4);
    }
}

// Rows that are there six times: many clusters stay empty in every iteration. The halves of a split
// are equally far from equal rows, so rounding decides where those go and the runs part; what both
// reach must be alike (15 %: FAISS's own objectives have a standard deviation of 5 % over seeds).
static void test_repeated_rows(void) {
    enum { N = 3000, D = 8, K = 450 };
    static float want[K * D], got[K * D];
    const hirl_kmeans_cfg_t cfg = {.k = K, .n_iter = 20, .n_redo = 5, .seed = 11};
    float *x = make_rows(N, D, 40, 0.2, 500, 10);
    hirl_kmeans_result_t result;
    int64_t n_splits;
    const double objective = run_faiss(x, N, D, &cfg, want, &n_splits);
    NEED_OK(hirl_kmeans_train(world, x, N, D, &cfg, got, &result));
    CHECK_CLOSE(result.objective, objective, 0.15, 0);
    CHECK(n_splits > 100 && result.n_splits > 100);
    hirl_mem_free(x);
}

// As many rows as clusters: the rows themselves, and with a subset of k the first k, as FAISS does
// it.
static void test_all_rows(void) {
    enum { N = 70, D = 6 };
    float *x = make_rows(N, D, N, 1, N, 20), want[N * D], got[N * D];
    x[5] = -0.0f;
    hirl_kmeans_result_t result;
    int64_t n_splits;
    hirl_kmeans_cfg_t cfg = {.k = N, .n_iter = 3, .n_redo = 2};
    NEED_OK(hirl_kmeans_train(world, x, N, D, &cfg, got, &result));
    CHECK_BITS(got, x, sizeof(got));
    CHECK_CLOSE(result.objective, 0, 0, 0);
    cfg.k = 20;
    cfg.max_points_per_centroid = 1;
    run_faiss(x, N, D, &cfg, want, &n_splits);
    NEED_OK(hirl_kmeans_train(world, x, N, D, &cfg, got, &result));
    CHECK_BITS(got, want, 20 * D * sizeof(float));
    hirl_mem_free(x);
}

static void test_reference(void) {
    float *x = reference_read("x.f32", REF_N * REF_D, 4),
          *want_centroid = reference_read("centroid.f32", REF_K * REF_D, 4);
    double *want = reference_read("kmeans.f64", 6, 8);
    static float got[100 * REF_D];
    hirl_kmeans_result_t r;
    hirl_kmeans_cfg_t cfg = {
        .k = REF_K, .n_iter = 20, .n_redo = 1, .seed = 3, .max_points_per_centroid = 1000};
    NEED_OK(hirl_kmeans_train(world, x, REF_N, REF_D, &cfg, got, &r));
    // No tie is near enough to flip here: the centroids agree to FAISS's rounding of sums.
    CHECK_CLOSE(r.objective, want[0], 1e-5, 0);
    CHECK_CLOSE_F32(got, want_centroid, REF_K * REF_D, 0, 2e-6);
    cfg.n_redo = 5;
    NEED_OK(hirl_kmeans_train(world, x, REF_N, REF_D, &cfg, got, &r));
    CHECK_CLOSE(r.objective, want[1], 1e-5, 0);
    cfg.n_redo = 1;
    cfg.max_points_per_centroid = 20;
    NEED_OK(hirl_kmeans_train(world, x, REF_N, REF_D, &cfg, got, &r));
    CHECK_CLOSE(r.objective, want[2], 1e-5, 0);

    float *y = reference_read("y.f32", REF_N * REF_D, 4);
    cfg = (hirl_kmeans_cfg_t){
        .k = 100, .n_iter = 20, .n_redo = 1, .seed = 5, .max_points_per_centroid = 1000};
    NEED_OK(hirl_kmeans_train(world, y, REF_N, REF_D, &cfg, got, &r));
    CHECK_CLOSE(r.objective, want[3], 1e-5, 0);
    CHECK_EQ_I(r.n_splits, want[5]);
    CHECK(r.n_splits > 0);
    cfg.n_redo = 5;
    NEED_OK(hirl_kmeans_train(world, y, REF_N, REF_D, &cfg, got, &r));
    CHECK_CLOSE(r.objective, want[4], 1e-5, 0);
    hirl_mem_free(y);
    hirl_mem_free(want);
    hirl_mem_free(want_centroid);
    hirl_mem_free(x);
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    hirl_log_setup(HIRL_LOG_WARN, hirl_world_rank(world));
    RUN(test_problems);
    RUN(test_repeated_rows);
    RUN(test_all_rows);
    RUN(test_reference);
    hirl_world_destroy(&world);
}
