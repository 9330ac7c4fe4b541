// Clustering and search on a backend against the processor's own engine, bit for bit: nearest rows, top-k
// lists and fixed-point sums of every odd size, with ties, equal rows and a bank in pieces; K-means with
// subsets, restarts and empty clusters; hierarchies; KNN; what is refused.
// test: ranks=1,2 backends=ref,cuda timeout=240
#include "../../src/cluster/cluster_impl.h"

#include "test.h"

static hirl_world_t *world;
static hirl_backend_t *be;

// Normal rows; small integers, so that most products are equal to others; seven rows again and again; numbers
// so small that all products are +0 or -0.
typedef enum kind { NORMAL, INTEGERS, REPEATED, TINY, N_KINDS } kind_t;
static const char *const kind_names[] = {"normal", "integers", "repeated", "tiny"};

static float *make(kind_t kind, int64_t n, int d, uint64_t index) {
    float *x = NULL;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n * d, &x));
    test_fill_normal(x, n * d, 10 * (uint64_t)kind + index);
    for (int64_t i = 0; i < n * d; i++) {
        if (kind == INTEGERS) x[i] = roundf(x[i]);
        if (kind == REPEATED) x[i] = x[i % (7 * d)];
        if (kind == TINY) x[i] *= 1e-25f;
    }
    return x;
}

static bool is_all_on_last; // the other ranks have no rows

static void share_of(int64_t n, int64_t *first_p, int64_t *n_local_p) {
    if (is_all_on_last) {
        const bool is_last = hirl_world_rank(world) == hirl_world_size(world) - 1;
        *first_p = 0;
        *n_local_p = is_last ? n : 0;
        return;
    }
    *first_p = n * hirl_world_rank(world) / hirl_world_size(world);
    *n_local_p = n * (hirl_world_rank(world) + 1) / hirl_world_size(world) - *first_p;
}

static hirl_tensor_t sent(const void *data, hirl_shape_t shape, hirl_dtype_t dtype) {
    hirl_tensor_t x = {0};
    NEED_OK(hirl_backend_tensor(be, shape, dtype, &x));
    NEED_OK(hirl_backend_upload(be, data, &x));
    return x;
}

// ------------------------------------------------------------------------------------ operations

static void check_nearest(kind_t kind, int64_t n, int d, int64_t k) {
    float *x = make(kind, n, d, 1), *c = make(kind, k, d, 2), *half = NULL, *value = NULL;
    int32_t *want = NULL, *got = NULL;
    hirl_panels_t panels;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &want));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &got));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, k, &half));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &value));
    NEED_OK(hirl_panels_init(&panels, k, d, true, false));
    hirl_panels_pack(&panels, c, k);
    hirl_panels_nearest(&panels, x, n, want);
    for (int64_t i = 0; i < k; i++) half[i] = (float)(hirl_row_norm_sq(c + i * d, d) / 2);
    hirl_tensor_t t_x = sent(x, hirl_shape_2(n, d), HIRL_F32),
                  t_c = sent(c, hirl_shape_2(k, d), HIRL_F32);
    hirl_tensor_t t_half = sent(half, hirl_shape_1(k), HIRL_F32), index = {0}, t_value = {0};
    NEED_OK(hirl_op_nearest_rows(be, &t_x, &t_c, &t_half, &index, &t_value));
    NEED_OK(hirl_backend_download(be, &index, got));
    NEED_OK(hirl_backend_download(be, &t_value, value));
    int64_t n_wrong = 0;
    for (int64_t i = 0; i < n; i++) {
        float product = 0;
        for (int j = 0; j < d; j++) product = fmaf(x[i * d + j], c[want[i] * d + j], product);
        n_wrong += got[i] != want[i] || value[i] != half[want[i]] - product;
    }
    CHECK_MSG(n_wrong == 0, "nearest, %s, n %lld d %d k %lld: %lld rows differ", kind_names[kind],
              (long long)n, d, (long long)k, (long long)n_wrong);
    hirl_tensor_t *const all[] = {&t_x, &t_c, &t_half, &index, &t_value};
    for (int i = 0; i < 5; i++) hirl_tensor_reset(all[i]);
    hirl_panels_reset(&panels);
    hirl_mem_free(value);
    hirl_mem_free(half);
    hirl_mem_free(got);
    hirl_mem_free(want);
    hirl_mem_free(c);
    hirl_mem_free(x);
}

// piece: rows of the bank at a time; 0: all of so few.
static void check_top(kind_t kind, int64_t n_query, int64_t n, int d, int64_t k, int64_t piece) {
    float *bank = make(kind, n, d, 3), *query = make(kind, n_query, d, 4), *score = NULL;
    int32_t *index = NULL;
    uint64_t *want = NULL;
    hirl_panels_t panels;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n_query * k, &want));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n_query * k, &score));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n_query * k, &index));
    NEED_OK(hirl_panels_init(&panels, n_query, d, false, false));
    hirl_panels_pack(&panels, query, n_query);
    NEED_OK(hirl_topk_search(&panels, bank, n, NULL, 0, k, want));
    hirl_tensor_t t_query = sent(query, hirl_shape_2(n_query, d), HIRL_F32), t_score = {0};
    hirl_tensor_t t_bank = sent(bank, hirl_shape_2(n, d), HIRL_F32), t_index = {0};
    NEED_OK(hirl_op_top_rows(be, &t_query, &t_bank, k, piece, &t_score, &t_index));
    NEED_OK(hirl_backend_download(be, &t_score, score));
    NEED_OK(hirl_backend_download(be, &t_index, index));
    int64_t n_wrong = 0;
    for (int64_t i = 0; i < n_query * k; i++)
        n_wrong += want[i] != hirl_key_make(score[i], (uint32_t)index[i]);
    CHECK_MSG(n_wrong == 0, "top-k, %s, queries %lld n %lld d %d k %lld piece %lld: %lld differ",
              kind_names[kind], (long long)n_query, (long long)n, d, (long long)k, (long long)piece,
              (long long)n_wrong);
    hirl_tensor_t *const all[] = {&t_query, &t_bank, &t_score, &t_index};
    for (int i = 0; i < 4; i++) hirl_tensor_reset(all[i]);
    hirl_panels_reset(&panels);
    hirl_mem_free(index);
    hirl_mem_free(score);
    hirl_mem_free(want);
    hirl_mem_free(query);
    hirl_mem_free(bank);
}

static void check_sums(int64_t n, int d, int64_t k) {
    float *x = make(NORMAL, n, d, 5), *c = make(NORMAL, k, d, 6);
    int32_t *index = NULL;
    int64_t *want = NULL, *got = NULL, total = 0, want_total = 0;
    const double scale = hirl_fixed_scale(2 * n, 8), distance_scale = hirl_fixed_scale(n, 1e4);
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &index));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, k * d + k, &want));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, k * d + k, &got));
    hirl_rng_t rng = test_rng(7);
    for (int64_t i = 0; i < n; i++) {
        index[i] = (int32_t)hirl_rng_below(&rng, (uint32_t)k);
        want[k * d + index[i]] += 2; // all rows go in twice
        for (int j = 0; j < d; j++)
            want[index[i] * d + j] += 2 * hirl_fixed_round((double)x[i * d + j] * scale);
        want_total +=
            hirl_fixed_round(hirl_row_distance_sq(x + i * d, c + index[i] * d, d) * distance_scale);
    }
    hirl_tensor_t t_x = sent(x, hirl_shape_2(n, d), HIRL_F32),
                  t_c = sent(c, hirl_shape_2(k, d), HIRL_F32),
                  t_index = sent(index, hirl_shape_1(n), HIRL_I32);
    // What the outputs held does not matter.
    hirl_tensor_t sum = sent(want, hirl_shape_2(k, d), HIRL_I64),
                  count = sent(want, hirl_shape_1(k), HIRL_I64),
                  t_total = sent(want, hirl_shape_1(1), HIRL_I64);
    NEED_OK(hirl_op_sum_rows(be, &t_x, &t_index, scale, false, &sum, &count));
    NEED_OK(hirl_op_sum_rows(be, &t_x, &t_index, scale, true, &sum, &count));
    NEED_OK(hirl_op_sum_distances(be, &t_x, &t_index, &t_c, distance_scale, false, &t_total));
    NEED_OK(hirl_backend_download(be, &sum, got));
    NEED_OK(hirl_backend_download(be, &count, got + k * d));
    NEED_OK(hirl_backend_download(be, &t_total, &total));
    CHECK_BITS(got, want, (size_t)(k * d + k) * sizeof(*got));
    CHECK_EQ_I(total, want_total);
    hirl_tensor_t *const all[] = {&t_x, &t_c, &t_index, &sum, &count, &t_total};
    for (int i = 0; i < 6; i++) hirl_tensor_reset(all[i]);
    hirl_mem_free(got);
    hirl_mem_free(want);
    hirl_mem_free(index);
    hirl_mem_free(c);
    hirl_mem_free(x);
}

static void test_nearest(void) {
    for (kind_t kind = 0; kind < N_KINDS; kind++) {
        check_nearest(kind, 1, 5, 1);
        check_nearest(kind, 130, 5, 7);
        check_nearest(kind, 300, 128, 300); // three tiles of centroids, a range of blocks each
        check_nearest(kind, 129, 33, 129);
        check_nearest(kind, 1000, 12, 300);
    }
}

static void test_top(void) {
    for (kind_t kind = 0; kind < N_KINDS; kind++) {
        check_top(kind, 1, 1, 5, 1, 0);
        check_top(kind, 7, 300, 5, 300, 0);
        check_top(kind, 130, 1000, 36, 20, 0);
        check_top(kind, 5, 1000, 128, 300, 130); // the first pieces are shorter than a list
        check_top(kind, 33, 700, 3, 10, 100);
        check_top(kind, 2, 260, 1, 257, 64);
        check_top(kind, 33, 3000, 3, 50,
                  128); // scores so near to one another that a loose threshold shows
    }
}

static void test_sums(void) {
    check_sums(1, 5, 1);
    check_sums(1000, 5, 7);
    check_sums(333, 128, 300);
    check_sums(40, 1, 2);
}

static hirl_status_t settled(hirl_status_t status) {
    return status == HIRL_OK ? hirl_backend_synchronize(be) : status;
}

static void test_refusals(void) {
    const float zeros[64] = {0};
    const int32_t bad[4] = {0, 1, 3, 2};
    hirl_tensor_t x = sent(zeros, hirl_shape_2(4, 5), HIRL_F32),
                  c = sent(zeros, hirl_shape_2(3, 4), HIRL_F32);
    hirl_tensor_t half = sent(zeros, hirl_shape_1(3), HIRL_F32), y = {0}, z = {0};
    hirl_tensor_t index = sent(bad, hirl_shape_1(4), HIRL_I32),
                  sum = sent(zeros, hirl_shape_2(3, 5), HIRL_I64),
                  count = sent(zeros, hirl_shape_1(2), HIRL_I64);
    CHECK_FAILS(hirl_op_nearest_rows(be, &x, &c, &half, &y, NULL), HIRL_ERR_ARG,
                "nearest_rows: c is [3, 4] f32 but x is [4, 5] f32");
    CHECK_FAILS(hirl_op_nearest_rows(be, &x, &x, &half, &y, NULL), HIRL_ERR_ARG,
                "half_norm is [3] f32, want [4]");
    CHECK_FAILS(hirl_op_top_rows(be, &x, &x, 5, 0, &y, &z), HIRL_ERR_ARG, "5 rows of bank");
    CHECK_FAILS(hirl_op_top_rows(be, &x, &x, 2, -1, &y, &z), HIRL_ERR_ARG, "-1 rows at once");
    CHECK_FAILS(hirl_op_sum_rows(be, &x, &index, 1, false, &sum, &count), HIRL_ERR_ARG,
                "count is [2] i64 but sum is [3, 5] i64");
    CHECK_FAILS(hirl_op_sum_rows(be, &x, &index, INFINITY, false, &sum, &count), HIRL_ERR_ARG,
                "scale is inf");
    CHECK_FAILS(hirl_op_sum_distances(be, &x, &index, &x, 1, false, &count), HIRL_ERR_ARG,
                "total is [2] i64, want [1]");
    hirl_tensor_reset(&count);
    count = sent(zeros, hirl_shape_1(3), HIRL_I64);
    CHECK_FAILS(settled(hirl_op_sum_rows(be, &x, &index, 1, false, &sum, &count)), HIRL_ERR_ARG,
                "element 2 of index is 3, want 0..2");
    CHECK(!hirl_tensor_is_set(&y) && !hirl_tensor_is_set(&z));
    hirl_tensor_t *const all[] = {&x, &c, &half, &index, &sum, &count};
    for (int i = 0; i < 6; i++) hirl_tensor_reset(all[i]);
}

// ------------------------------------------------------------------------------------ clusterings, KNN

static void check_kmeans(kind_t kind, int64_t n, int d, hirl_kmeans_cfg_t cfg) {
    float *x = make(kind, n, d, 8), *centroids[2], *distance[2];
    int32_t *assign[2];
    hirl_kmeans_result_t result[2];
    int64_t first, n_local;
    share_of(n, &first, &n_local);
    for (int device = 0; device < 2; device++) {
        cfg.backend = device ? be : NULL;
        NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, cfg.k * d, &centroids[device]));
        NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &assign[device]));
        NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &distance[device]));
        NEED_OK(hirl_kmeans_train(world, x + first * d, n_local, d, &cfg, centroids[device],
                                  &result[device]));
        NEED_OK(hirl_kmeans_assign(world, cfg.backend, x + first * d, n_local, d, centroids[device],
                                   cfg.k, assign[device], distance[device]));
    }
    CHECK_BITS(centroids[1], centroids[0], (size_t)(cfg.k * d) * sizeof(float));
    CHECK_BITS(assign[1], assign[0], (size_t)n_local * sizeof(int32_t));
    CHECK_BITS(distance[1], distance[0], (size_t)n_local * sizeof(float));
    CHECK_BITS(&result[1].objective, &result[0].objective, sizeof(double));
    CHECK_EQ_I(result[1].best_redo, result[0].best_redo);
    CHECK_EQ_I(result[1].n_splits, result[0].n_splits);
    if (kind == REPEATED && cfg.k > 7) CHECK(result[1].n_splits > 0);
    for (int i = 0; i < 2; i++) {
        hirl_mem_free(distance[i]);
        hirl_mem_free(assign[i]);
        hirl_mem_free(centroids[i]);
    }
    hirl_mem_free(x);
}

static void test_kmeans(void) {
    for (kind_t kind = 0; kind < N_KINDS; kind++) {
        check_kmeans(kind, 1000, 5, (hirl_kmeans_cfg_t){.k = 7, .n_iter = 5, .n_redo = 2});
        check_kmeans(kind, 700, 24, (hirl_kmeans_cfg_t){.k = 150, .n_iter = 3, .n_redo = 1});
    }
    check_kmeans(NORMAL, 400, 9,
                 (hirl_kmeans_cfg_t){.k = 10,
                                     .n_iter = 3,
                                     .n_redo = 2,
                                     .seed = 3,
                                     .max_points_per_centroid = 20,
                                     .is_verbose = false});
    check_kmeans(NORMAL, 30, 4, (hirl_kmeans_cfg_t){.k = 30, .n_iter = 2, .n_redo = 1});
    check_kmeans(NORMAL, 3, 4, (hirl_kmeans_cfg_t){.k = 1, .n_iter = 2, .n_redo = 1});
    // FAISS's engine does without the backend.
    check_kmeans(
        NORMAL, 200, 8,
        (hirl_kmeans_cfg_t){.k = 5, .n_iter = 2, .n_redo = 1, .engine = HIRL_CLUSTER_FAISS});
}

static void test_hierarchy(void) {
    enum { N = 900, D = 17, L = 3 };
    hirl_hierarchy_cfg_t cfg = {
        .n_levels = L, .k = {140, 20, 1}, .n_iter = 4, .n_redo = 2, .density_temperature = 0.2};
    hirl_hierarchy_t *h[2] = {NULL, NULL};
    int64_t first, n_local;
    share_of(N, &first, &n_local);
    for (int device = 0; device < 2; device++) {
        float *x = make(NORMAL, N, D, 9);
        cfg.backend = device ? be : NULL;
        NEED_OK(hirl_hierarchy_create(world, x + first * D, n_local, D, &cfg, &h[device]));
        hirl_mem_free(x);
    }
    for (int l = 0; l < L; l++) {
        const size_t k = (size_t)cfg.k[l];
        CHECK_BITS(h[1]->centroid[l], h[0]->centroid[l], k * D * sizeof(float));
        CHECK_BITS(h[1]->assign[l], h[0]->assign[l], N * sizeof(int32_t));
        CHECK_BITS(h[1]->density[l], h[0]->density[l], k * sizeof(float));
        CHECK_BITS(&h[1]->objective[l], &h[0]->objective[l], sizeof(double));
        if (l + 1 < L) CHECK_BITS(h[1]->parent[l], h[0]->parent[l], k * sizeof(int32_t));
    }
    hirl_hierarchy_destroy(&h[0]);
    hirl_hierarchy_destroy(&h[1]);
}

static void check_knn(kind_t kind, int64_t n, int64_t n_query, int d, int k, int64_t chunk) {
    enum { CLASSES = 6 };
    float *bank = make(kind, n, d, 10), *query = make(kind, n_query, d, 11), *score[2];
    int64_t *index[2], first, n_local, first_query, n_query_local;
    int32_t *label = NULL;
    double top1[2][2], top5[2][2];
    hirl_knn_cfg_t cfg = {
        .k = {1, k}, .n_k = 2, .temperature = 0.07, .query_chunk = chunk, .engine = "fused"};
    share_of(n, &first, &n_local);
    share_of(n_query, &first_query, &n_query_local);
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n + n_query, &label));
    for (int64_t i = 0; i < n + n_query; i++) label[i] = (int32_t)(i % CLASSES);
    // No row is zero, as those have no direction.
    for (int64_t i = 0; i < n; i++) bank[i * d] += kind == INTEGERS ? 10 : 0;
    for (int64_t i = 0; i < n_query; i++) query[i * d] += kind == INTEGERS ? 10 : 0;
    for (int device = 0; device < 2; device++) {
        hirl_backend_t *where = device ? be : NULL;
        NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n_query * k, &score[device]));
        NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n_query * k, &index[device]));
        NEED_OK(hirl_knn_search(world, where, bank + first * d, n_local, query + first_query * d,
                                n_query_local, d, k, chunk, score[device], index[device]));
        NEED_OK(hirl_knn_classify(world, where, bank + first * d, label + first, n_local,
                                  query + first_query * d, label + n + first_query, n_query_local,
                                  d, CLASSES, &cfg, top1[device], top5[device]));
    }
    CHECK_BITS(score[1], score[0], (size_t)(n_query_local * k) * sizeof(float));
    CHECK_BITS(index[1], index[0], (size_t)(n_query_local * k) * sizeof(int64_t));
    CHECK_BITS(top1[1], top1[0], sizeof(top1[0]));
    CHECK_BITS(top5[1], top5[0], sizeof(top5[0]));
    for (int i = 0; i < 2; i++) {
        hirl_mem_free(index[i]);
        hirl_mem_free(score[i]);
    }
    hirl_mem_free(label);
    hirl_mem_free(query);
    hirl_mem_free(bank);
}

static void test_knn(void) {
    for (kind_t kind = 0; kind < N_KINDS; kind++) {
        check_knn(kind, 600, 70, 20, 15, 40);
        check_knn(kind, 300, 9, 7, 300, 4096); // all of the bank, of which a rank has a part only
    }
    check_knn(NORMAL, 2, 3, 3, 1, 4096);
}

static void test_empty_ranks(void) {
    is_all_on_last = true;
    check_kmeans(NORMAL, 60, 6, (hirl_kmeans_cfg_t){.k = 4, .n_iter = 3, .n_redo = 1});
    check_knn(NORMAL, 50, 8, 6, 9, 4096);
    is_all_on_last = false;
}

// Bad rows are refused before anything is sent; the text is that of the processor's engine.
static void test_bad_rows(void) {
    enum { N = 20, D = 3 };
    float *x = make(NORMAL, N, D, 12), centroids[2 * D] = {0}, score[N];
    int64_t index[N];
    int32_t assign[N];
    hirl_kmeans_result_t result;
    const hirl_kmeans_cfg_t cfg = {.k = 2, .n_iter = 1, .n_redo = 1, .backend = be};
    x[7 * D + 1] = NAN;
    CHECK_FAILS(hirl_kmeans_train(world, x, N, D, &cfg, centroids, &result), HIRL_ERR_NUMERIC,
                "row 7, column 1: NaN");
    CHECK_FAILS(hirl_kmeans_assign(world, be, x, N, D, centroids, 2, assign, NULL),
                HIRL_ERR_NUMERIC, "row 7, column 1: NaN");
    CHECK_FAILS(hirl_knn_search(world, be, x, N, x, N, D, 1, 64, score, index), HIRL_ERR_NUMERIC,
                "bank row 7, column 1: NaN");
    hirl_mem_free(x);
}

TEST_MAIN {
#ifndef __FMA__
    SKIP("this processor has no fused multiply-add: bits are those of a device only with it");
#endif
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    hirl_log_setup(HIRL_LOG_WARN, hirl_world_rank(world));
    NEED_OK(hirl_backend_create(test_backend(), 0, &be));
    CHECK(hirl_cluster_device_of(be) == (strcmp(test_backend(), "ref") ? be : NULL));
    CHECK(hirl_cluster_device_of(NULL) == NULL);
    if (test_rank() == 0) {
        RUN(test_nearest);
        RUN(test_top);
        RUN(test_sums);
        RUN(test_refusals);
    }
    RUN(test_kmeans);
    RUN(test_hierarchy);
    RUN(test_knn);
    RUN(test_empty_ranks);
    RUN(test_bad_rows);
    hirl_backend_destroy(&be);
    hirl_world_destroy(&world);
}
