// KNN search against brute force in double precision and FAISS's flat index, ties, small and large
// k; classification against NumPy on reference data and against a plain vote.
// test: ranks=1,2,3 timeout=120
#include "../../src/cluster/cluster_impl.h"

#include "test.h"

#include "../reference/cluster/reference.h"

static hirl_world_t *world;

static void share_of(int64_t n, int64_t *first_p, int64_t *n_local_p) {
    *first_p = n * hirl_world_rank(world) / hirl_world_size(world);
    *n_local_p = n * (hirl_world_rank(world) + 1) / hirl_world_size(world) - *first_p;
}

static float *make(int64_t n, uint64_t index) {
    float *x = NULL;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &x));
    test_fill_normal(x, n, index);
    return x;
}

static double dot(const float *x, const float *y, int d) {
    double s = 0;
    for (int j = 0; j < d; j++) s += (double)x[j] * (double)y[j];
    return s;
}

static int compare_rising(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static void check_search(int64_t n, int64_t n_query, int d, int k, int64_t chunk) {
    float *bank = make(n * d, 1), *query = make(n_query * d, 2), *score = make(n_query * k, 3);
    int64_t *index = NULL, first, n_local, first_query, n_query_local, n_bad = 0;
    double *all = NULL;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n_query * k, &index));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &all));
    share_of(n, &first, &n_local);
    share_of(n_query, &first_query, &n_query_local);
    NEED_OK(hirl_knn_search(world, NULL, bank + first * d, n_local, query + first_query * d,
                            n_query_local, d, k, chunk, score, index));
    for (int64_t q = 0; q < n_query_local; q++) {
        const float *x = query + (first_query + q) * d;
        for (int64_t i = 0; i < n; i++) all[i] = dot(x, bank + i * d, d);
        double max_sq = 0;
        for (int64_t i = 0; i < n; i++) max_sq = fmax(max_sq, dot(bank + i * d, bank + i * d, d));
        // d roundings of at most 2^-24 |x| |y| each
        const double bound = 0x1p-24 * (d + 1) * sqrt(max_sq * dot(x, x, d));
        for (int m = 0; m < k; m++) {
            const int64_t i = index[q * k + m];
            n_bad += i < 0 || i >= n || !(fabs(score[q * k + m] - all[i]) <= bound);
            n_bad +=
                m > 0 && !(score[q * k + m] < score[q * k + m - 1] ||
                           (score[q * k + m] == score[q * k + m - 1] && i > index[q * k + m - 1]));
        }
        qsort(all, (size_t)n, sizeof(*all), compare_rising);
        for (int m = 0; m < k; m++) n_bad += !(fabs(score[q * k + m] - all[m]) <= bound);
    }
    CHECK_MSG(n_bad == 0, "n %lld queries %lld d %d k %d chunk %lld: %lld wrong", (long long)n,
              (long long)n_query, d, k, (long long)chunk, (long long)n_bad);
    hirl_mem_free(all);
    hirl_mem_free(index);
    hirl_mem_free(score);
    hirl_mem_free(query);
    hirl_mem_free(bank);
}

static void test_shapes(void) {
    check_search(1, 1, 1, 1, 1);
    check_search(5, 3, 7, 5, 4096); // fewer rows than a tile has; k = n
    check_search(13, 40, 3, 2, 7);
    check_search(14, 33, 16, 14, 4096);
    check_search(100, 65, 20, 100, 50);
    check_search(3000, 70, 24, 10, 64);
    check_search(3000, 37, 33, 500, 4096);
    check_search(40000, 20, 8, 100,
                 4096); // few queries, many rows: the bank is cut for the threads
    check_search(200, 300, 1000, 20, 4096);
}

// Small integers: most scores are equal to others. The list is the lowest rows among the equal.
static void test_ties(void) {
    enum { N = 2000, Q = 50, D = 4, K = 60 };
    float *bank = make(N * D, 4), *query = make(Q * D, 5), *score = make(Q * K, 6);
    static int64_t index[Q * K];
    int64_t first, n_local;
    for (int i = 0; i < N * D; i++) bank[i] = roundf(bank[i]);
    for (int i = 0; i < Q * D; i++) query[i] = roundf(query[i]);
    query[0] = query[1] = query[2] = query[3] = 0; // scores of +0 and -0: all are equal
    share_of(N, &first, &n_local);
    NEED_OK(hirl_knn_search(world, NULL, bank + first * D, n_local, query, Q, D, K, 4096, score,
                            index));
    for (int q = 0; q < Q; q++) {
        static bool is_taken[N];
        memset(is_taken, 0, sizeof(is_taken));
        for (int m = 0; m < K; m++) {
            int best = -1;
            for (int i = 0; i < N; i++)
                if (!is_taken[i] && (best < 0 || dot(query + q * D, bank + i * D, D) >
                                                     dot(query + q * D, bank + best * D, D)))
                    best = i;
            is_taken[best] = true;
            CHECK_EQ_I(index[q * K + m], best);
            CHECK_CLOSE(score[q * K + m], dot(query + q * D, bank + best * D, D), 0, 0);
        }
    }
    hirl_mem_free(score);
    hirl_mem_free(query);
    hirl_mem_free(bank);
}

static void test_keys(void) {
    const float scores[] = {-INFINITY, -3e38f, -1, -1e-45f, 0, 1e-45f, 0.5f, 1, 3e38f, INFINITY};
    for (size_t i = 0; i < sizeof(scores) / sizeof(*scores); i++) {
        CHECK_CLOSE(hirl_key_score(hirl_key_make(scores[i], 77)), scores[i], 0, 0);
        CHECK_EQ_I(hirl_key_index(hirl_key_make(scores[i], 4000000000u)), 4000000000u);
        CHECK(hirl_key_make(scores[i], 5) > hirl_key_make(scores[i], 6));
        if (i > 0) CHECK(hirl_key_make(scores[i], 4000000000u) > hirl_key_make(scores[i - 1], 0));
    }
    CHECK(hirl_key_make(-0.0f, 3) == hirl_key_make(0.0f, 3));
    // The selection behind the lists, on all short lengths.
    hirl_rng_t rng = test_rng(9);
    for (int n = 1; n < 40; n++) {
        for (int k = 1; k <= n; k++) {
            uint64_t keys[40], scratch[40], want[40];
            for (int i = 0; i < n; i++) keys[i] = want[i] = hirl_rng_u64(&rng) >> (n % 3 * 28);
            for (int i = 0; i < n; i++)
                keys[i] = want[i] = keys[i] * 64 + (uint64_t)i; // all different
            for (int i = 1; i < n; i++)
                for (int j = i; j > 0 && want[j] > want[j - 1]; j--) {
                    const uint64_t t = want[j];
                    want[j] = want[j - 1];
                    want[j - 1] = t;
                }
            hirl_topk_sort(keys, n, k, scratch);
            CHECK_BITS(keys, want, (size_t)k * sizeof(*keys));
        }
    }
}

static void test_reference(void) {
    enum { N = REF_N - REF_QUERIES, N_K = 4 };
    hirl_knn_cfg_t cfg = {
        .k = {20, 5, 50, 10}, .n_k = N_K, .temperature = 0.07, .query_chunk = 128};
    const int place[N_K] = {2, 0, 3, 1}; // in the reference, which has rising k
    float *x = reference_read("x.f32", REF_N * REF_D, 4);
    int32_t *label = reference_read("label.i32", REF_N, 4);
    int64_t *want_index = reference_read("knn_index.i64", REF_QUERIES * REF_LIST, 8);
    double *want_score = reference_read("knn_score.f64", REF_QUERIES * REF_LIST, 8);
    double *accuracy = reference_read("knn_accuracy.f64", 2 * N_K, 8), top1[N_K], top5[N_K];
    static float score[REF_QUERIES * REF_LIST];
    static int64_t index[REF_QUERIES * REF_LIST];
    int64_t first, n_local, first_query, n_query, n_other = 0;
    share_of(N, &first, &n_local);
    share_of(REF_QUERIES, &first_query, &n_query);
    const float *bank = x + (REF_QUERIES + first) * REF_D, *query = x + first_query * REF_D;
    NEED_OK(hirl_knn_search(world, NULL, bank, n_local, query, n_query, REF_D, REF_LIST, 4096,
                            score, index));
    for (int64_t i = 0; i < n_query * REF_LIST; i++) {
        // The rows are unit to 2^-24; a product of REF_D terms is off by at most (REF_D + 2) 2^-24.
        CHECK_CLOSE(score[i], want_score[first_query * REF_LIST + i], 0, (REF_D + 2) * 0x1p-24);
        n_other += index[i] != want_index[first_query * REF_LIST + i];
    }
    CHECK_MSG(n_other <= n_query * REF_LIST / 1000,
              "%lld neighbours differ, want at most one in 1000 (near ties)", (long long)n_other);
    for (int engine = 0; engine < 2; engine++) {
        strcpy(cfg.engine, engine ? "faiss" : "fused");
        NEED_OK(hirl_knn_classify(world, NULL, bank, label + REF_QUERIES + first, n_local, query,
                                  label + first_query, n_query, REF_D, REF_CLASSES, &cfg, top1,
                                  top5));
        for (int i = 0; i < N_K; i++) {
            CHECK_CLOSE(top1[i], accuracy[place[i]], 0,
                        1e-9); // multiples of 0.2 %; no query is so near a tie
            CHECK_CLOSE(top5[i], accuracy[N_K + place[i]], 0, 1e-9);
        }
    }
    hirl_mem_free(accuracy);
    hirl_mem_free(want_score);
    hirl_mem_free(want_index);
    hirl_mem_free(label);
    hirl_mem_free(x);
}

// By hand: one query at angle 0; neighbours at known cosines.
static void test_votes(void) {
    const float bank[] = {2,  0, 0.8f, 0.6f, 0.8f, -0.6f, 0.6f,  0.8f,
                          -1, 0, 0,    3,    0,    -3,    -0.6f, -0.8f};
    const int32_t bank_label[] = {0, 1, 1, 2, 3, 4, 5, 6};
    const float query[] = {5, 0};
    double top1[2], top5[2];
    int64_t first, n_local, first_query, n_query;
    share_of(8, &first, &n_local);
    share_of(1, &first_query, &n_query);
    hirl_knn_cfg_t cfg = {.k = {1, 8}, .n_k = 2, .query_chunk = 10};
    // T = 1: e^1 < 2 e^0.8: class 1 wins with all 8, class 0 with the nearest alone. With T = 0.1,
    // e^10 > 2 e^8.
    const struct {
        double temperature;
        int32_t label;
        double top1[2], top5[2];
    } cases[] =
        {{1, 0, {100, 0}, {100, 100}},
         {1, 1, {0, 100}, {0, 100}},
         {0.1, 0, {100, 100}, {100, 100}},
         {0.1, 1, {0, 0}, {0, 100}},
         {1, 4, {0, 0}, {0, 100}}, // ranks: 1 (2 e^.8), 0, 2 (e^.6), 4 (e^0, row 5), 5 (e^0, row 6)
         {1, 5, {0, 0}, {0, 100}}, // equal votes, the higher class is fifth
         {1, 6, {0, 0}, {0, 0}},
         {1e-4, 3, {0, 0}, {0, 100}}, // e^-20000 counts least; equals by class: 2, 3, 4
         {1, 7, {0, 0}, {0, 0}}};     // a class without any row
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        cfg.temperature = cases[i].temperature;
        NEED_OK(hirl_knn_classify(world, NULL, bank + 2 * first, bank_label + first, n_local, query,
                                  &cases[i].label, n_query, 2, 8, &cfg, top1, top5));
        for (int j = 0; j < 2; j++) {
            CHECK_CLOSE(top1[j], cases[i].top1[j], 0, 0);
            CHECK_CLOSE(top5[j], cases[i].top5[j], 0, 0);
        }
    }
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    hirl_log_setup(HIRL_LOG_WARN, hirl_world_rank(world));
    RUN(test_keys);
    RUN(test_shapes);
    RUN(test_ties);
    RUN(test_reference);
    RUN(test_votes);
    hirl_world_destroy(&world);
}
