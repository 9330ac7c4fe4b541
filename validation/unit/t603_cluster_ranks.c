// K-means, assignments, the hierarchy and KNN give the same bits on 1, 2 and 4 ranks and with 1, 2
// and 3 threads: each rank computes everything alone and compares it with what all of them compute
// together, for even and uneven shares.
// test: ranks=1,2,4 timeout=120
#include "hirl/cluster.h"

#include "test.h"

#include <omp.h>

static hirl_world_t *world, *self;

// Which rows are this rank's: even shares, or shares that grow with the rank and leave the second
// rank without rows.
static void share_of(int64_t n, bool is_even, int64_t *first_p, int64_t *n_local_p) {
    const int size = hirl_world_size(world), rank = hirl_world_rank(world);
    int64_t weight_before = 0, weight_all = 0, weight = 0;
    for (int r = 0; r < size; r++) {
        const int64_t w = is_even ? 1 : r == 1 ? 0 : 1 + 3 * r;
        weight_before += r < rank ? w : 0;
        weight = r == rank ? w : weight;
        weight_all += w;
    }
    *first_p = n * weight_before / weight_all;
    *n_local_p = n * (weight_before + weight) / weight_all - *first_p;
}

static float *make_rows(int64_t n, int d, uint64_t index) {
    float *x = NULL;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n * d, &x));
    test_fill_normal(x, n * d, index);
    // Two thirds of the rows near 40 others; a tenth of all, exact copies.
    for (int64_t i = 40; i < n; i++)
        if (i % 3)
            for (int j = 0; j < d; j++)
                x[i * d + j] = x[i % 40 * d + j] + (i % 10 ? 0.3f * x[i * d + j] : 0);
    return x;
}

static void check_kmeans(const hirl_kmeans_cfg_t *cfg, int64_t n, int d) {
    float *x = make_rows(n, d, 1), *want = NULL, *got = NULL, *want_distance = NULL,
          *got_distance = NULL;
    int32_t *want_assign = NULL, *got_assign = NULL;
    hirl_kmeans_result_t want_result, result;
    const int n_threads = omp_get_max_threads();
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, cfg->k * d, &want));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, cfg->k * d, &got));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &want_assign));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &got_assign));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &want_distance));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &got_distance));
    omp_set_num_threads(1);
    NEED_OK(hirl_kmeans_train(self, x, n, d, cfg, want, &want_result));
    NEED_OK(hirl_kmeans_assign(self, NULL, x, n, d, want, cfg->k, want_assign, want_distance));
    for (int threads = 1; threads <= 3; threads++) {
        for (int is_even = 0; is_even < 2; is_even++) {
            int64_t first, n_local;
            share_of(n, is_even, &first, &n_local);
            omp_set_num_threads(threads);
            NEED_OK(hirl_kmeans_train(world, x + first * d, n_local, d, cfg, got, &result));
            CHECK_BITS(got, want, (size_t)(cfg->k * d) * sizeof(*got));
            CHECK_BITS(&result.objective, &want_result.objective, sizeof(double));
            CHECK_EQ_I(result.best_redo, want_result.best_redo);
            CHECK_EQ_I(result.n_splits, want_result.n_splits);
            NEED_OK(hirl_kmeans_assign(world, NULL, x + first * d, n_local, d, got, cfg->k,
                                       got_assign, got_distance));
            CHECK_BITS(got_assign, want_assign + first, (size_t)n_local * sizeof(*got_assign));
            CHECK_BITS(got_distance, want_distance + first,
                       (size_t)n_local * sizeof(*got_distance));
        }
    }
    omp_set_num_threads(n_threads);
    hirl_mem_free(got_distance);
    hirl_mem_free(want_distance);
    hirl_mem_free(got_assign);
    hirl_mem_free(want_assign);
    hirl_mem_free(got);
    hirl_mem_free(want);
    hirl_mem_free(x);
}

static void test_kmeans(void) {
    check_kmeans(&(hirl_kmeans_cfg_t){.k = 70, .n_iter = 8, .n_redo = 3, .seed = 4}, 1999, 27);
    // A subset; empty clusters (40 rows in ten and their copies); verbose, which adds the objective
    // to each iteration.
    check_kmeans(
        &(hirl_kmeans_cfg_t){
            .k = 33, .n_iter = 5, .n_redo = 1, .seed = 5, .max_points_per_centroid = 17},
        1000, 16);
    check_kmeans(&(hirl_kmeans_cfg_t){.k = 380, .n_iter = 5, .n_redo = 2, .is_verbose = true}, 400,
                 5);
    check_kmeans(&(hirl_kmeans_cfg_t){.k = 50, .n_iter = 3, .n_redo = 1}, 50, 9); // n = k
    check_kmeans(&(hirl_kmeans_cfg_t){.k = 1, .n_iter = 3, .n_redo = 1}, 500,
                 9); // one cluster over all threads
}

static void test_hierarchy(void) {
    enum { N = 1500, D = 20, L = 3 };
    const hirl_hierarchy_cfg_t cfg = {.n_levels = L,
                                      .k = {200, 60, 7},
                                      .n_iter = 8,
                                      .n_redo = 2,
                                      .max_points_per_centroid = 1000,
                                      .density_temperature = 0.2};
    float *x = make_rows(N, D, 7), *y = make_rows(N, D, 7);
    hirl_hierarchy_t *want = NULL, *got = NULL;
    NEED_OK(hirl_hierarchy_create(self, x, N, D, &cfg, &want));
    for (int is_even = 0; is_even < 2; is_even++) {
        int64_t first, n_local;
        share_of(N, is_even, &first, &n_local);
        memcpy(y, x, sizeof(float) * N * D);
        NEED_OK(hirl_hierarchy_create(world, y + first * D, n_local, D, &cfg, &got));
        CHECK_EQ_I(got->n, N);
        for (int l = 0; l < L; l++) {
            const size_t k = (size_t)cfg.k[l];
            CHECK_BITS(got->centroid[l], want->centroid[l], k * D * sizeof(float));
            CHECK_BITS(got->assign[l], want->assign[l], N * sizeof(int32_t));
            CHECK_BITS(got->density[l], want->density[l], k * sizeof(float));
            CHECK_BITS(&got->objective[l], &want->objective[l], sizeof(double));
            if (l + 1 < L) CHECK_BITS(got->parent[l], want->parent[l], k * sizeof(int32_t));
        }
        hirl_hierarchy_destroy(&got);
    }
    hirl_hierarchy_destroy(&want);
    hirl_mem_free(y);
    hirl_mem_free(x);
}

static void test_knn(void) {
    enum { N = 900, Q = 333, D = 13, K = 70, N_K = 3, CLASSES = 8 };
    const hirl_knn_cfg_t cfg = {
        .k = {70, 1, 20}, .n_k = N_K, .temperature = 0.07, .query_chunk = 100};
    float *bank = make_rows(N, D, 9), *query = make_rows(Q, D, 10);
    static int32_t bank_label[N], query_label[Q];
    static float want_score[Q * K], score[Q * K];
    static int64_t want_index[Q * K], index[Q * K];
    double want_top1[N_K], want_top5[N_K], top1[N_K], top5[N_K];
    const int n_threads = omp_get_max_threads();
    for (int i = 0; i < N; i++) bank_label[i] = i % 40 % CLASSES;
    for (int i = 0; i < Q; i++) query_label[i] = i % 7;
    omp_set_num_threads(1);
    NEED_OK(hirl_knn_search(self, NULL, bank, N, query, Q, D, K, 4096, want_score, want_index));
    NEED_OK(hirl_knn_classify(self, NULL, bank, bank_label, N, query, query_label, Q, D, CLASSES,
                              &cfg, want_top1, want_top5));
    const int64_t chunks[] = {1, 60, 4096};
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        for (int c = 0; c < 6; c++) {
            int64_t first, n_local, first_query, n_query;
            share_of(N, c % 2, &first, &n_local);
            share_of(Q, c % 2 == 0, &first_query, &n_query);
            NEED_OK(hirl_knn_search(world, NULL, bank + first * D, n_local, query + first_query * D,
                                    n_query, D, K, chunks[c / 2], score, index));
            CHECK_BITS(score, want_score + first_query * K, (size_t)(n_query * K) * sizeof(*score));
            CHECK_BITS(index, want_index + first_query * K, (size_t)(n_query * K) * sizeof(*index));
            if (c < 4) continue;
            NEED_OK(hirl_knn_classify(world, NULL, bank + first * D, bank_label + first, n_local,
                                      query + first_query * D, query_label + first_query, n_query,
                                      D, CLASSES, &cfg, top1, top5));
            CHECK_BITS(top1, want_top1, sizeof(top1));
            CHECK_BITS(top5, want_top5, sizeof(top5));
        }
    }
    omp_set_num_threads(n_threads);
    hirl_mem_free(query);
    hirl_mem_free(bank);
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    NEED_OK(hirl_world_create_self(&self));
    hirl_log_setup(HIRL_LOG_WARN, hirl_world_rank(world));
    RUN(test_kmeans);
    RUN(test_hierarchy);
    RUN(test_knn);
    hirl_world_destroy(&self);
    hirl_world_destroy(&world);
}
