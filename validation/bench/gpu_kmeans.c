/// @file gpu_kmeans.c
/// Times clustering and search on a backend: gpu_kmeans BACKEND n d k n_iter n_queries n_neighbours [ROWS]. The rows are a mixture
/// made here (ROWS: where to write them, f32 [n + n_queries, d], for a peer). validation/bench/gpu_kmeans.py compares.
///     kmeans_seconds = ...      hirl_kmeans_train: upload, n_iter iterations, one restart
///     iteration_seconds = ...   of these, by a second training with one iteration
///     objective = ...
///     nearest_seconds = ...     hirl_op_nearest_rows alone, all n rows on the device
///     product_seconds = ...     hirl_op_gemm: the same products by cuBLAS in pieces, each written and not looked at
///     knn_seconds = ...         hirl_knn_search: upload of the bank, lists, download
///     same_bits = yes           K-means and lists of n / 50 rows are those of the processor's engine
#include "hirl/cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CENTRES = 3000, ROUNDS = 3 };

typedef struct bench {
    hirl_world_t *world;
    hirl_backend_t *be;
    int64_t n, k, n_queries;
    int d, n_iter, n_neighbours;
    float *x; // [n + n_queries, d]
} bench_t;

static hirl_status_t make_rows(bench_t *b) {
    const int64_t n = b->n + b->n_queries, d = b->d;
    float *centre = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n * d, &b->x));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, CENTRES * d, &centre));
    const hirl_rng_t first = hirl_rng_make(1, HIRL_RNG_TEST, 0, 0, 0);
    hirl_rng_normals(&first, 0, CENTRES * d, 1, centre);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const hirl_rng_t noise = hirl_rng_make(1, HIRL_RNG_TEST, 1, (uint64_t)i, 0);
        hirl_rng_t rng = hirl_rng_make(1, HIRL_RNG_TEST, 2, (uint64_t)i, 0);
        const float *c = centre + hirl_rng_below(&rng, CENTRES) * d;
        hirl_rng_normals(&noise, 0, d, 0.8, b->x + i * d);
        for (int64_t j = 0; j < d; j++) b->x[i * d + j] += c[j];
    }
    hirl_mem_free(centre);
    return HIRL_OK;
}

static hirl_status_t time_kmeans(bench_t *b) {
    float *centroids = NULL;
    hirl_kmeans_result_t result;
    hirl_kmeans_cfg_t cfg = {.k = b->k, .n_redo = 1, .seed = 1234, .backend = b->be};
    double seconds[2];
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, b->k * b->d, &centroids));
    for (int i = 0; i < 2; i++) {
        cfg.n_iter = i == 0 ? 1 : b->n_iter + 1;
        const double start = hirl_time_now();
        HIRL_TRY(hirl_kmeans_train(b->world, b->x, b->n, b->d, &cfg, centroids, &result));
        seconds[i] = hirl_time_now() - start;
    }
    const double iteration = (seconds[1] - seconds[0]) / b->n_iter;
    printf("kmeans_seconds = %.4f\niteration_seconds = %.5f\nobjective = %.9g\n",
           seconds[1] - iteration, iteration, result.objective);
    hirl_mem_free(centroids);
    return HIRL_OK;
}

// The same products twice: with the comparison in the kernel, and by the library into a block of 256 MiB.
static hirl_status_t time_products(bench_t *b) {
    hirl_tensor_t x = {0}, c = {0}, half = {0}, index = {0}, block = {0};
    float *zeros = NULL;
    double best[2] = {1e30, 1e30};
    int64_t piece = ((int64_t)64 << 20) / b->k;
    if (piece > b->n) piece = b->n;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, b->k, &zeros));
    HIRL_TRY(hirl_backend_tensor(b->be, hirl_shape_2(b->n, b->d), HIRL_F32, &x));
    HIRL_TRY(hirl_backend_tensor(b->be, hirl_shape_2(b->k, b->d), HIRL_F32, &c));
    HIRL_TRY(hirl_backend_tensor(b->be, hirl_shape_1(b->k), HIRL_F32, &half));
    HIRL_TRY(hirl_backend_tensor(b->be, hirl_shape_1(b->n), HIRL_I32, &index));
    HIRL_TRY(hirl_backend_tensor(b->be, hirl_shape_2(piece, b->k), HIRL_F32, &block));
    HIRL_TRY(hirl_backend_upload(b->be, b->x, &x));
    HIRL_TRY(hirl_backend_upload(b->be, b->x, &c));
    HIRL_TRY(hirl_backend_upload(b->be, zeros, &half));
    for (int round = 0; round < ROUNDS; round++) {
        HIRL_TRY(hirl_backend_synchronize(b->be));
        double start = hirl_time_now();
        HIRL_TRY(hirl_op_nearest_rows(b->be, &x, &c, &half, &index, NULL));
        HIRL_TRY(hirl_backend_synchronize(b->be));
        double spent = hirl_time_now() - start;
        if (spent < best[0]) best[0] = spent;
        start = hirl_time_now();
        for (int64_t i = 0; i < b->n; i += piece) {
            const int64_t n = b->n - i < piece ? b->n - i : piece;
            hirl_tensor_t rows = {0}, products = {0};
            HIRL_TRY(hirl_tensor_rows(&x, i, n, &rows));
            HIRL_TRY(hirl_tensor_rows(&block, 0, n, &products));
            HIRL_TRY(hirl_op_gemm(b->be, false, true, 1, &rows, &c, 0, &products));
            hirl_tensor_reset(&rows);
            hirl_tensor_reset(&products);
        }
        HIRL_TRY(hirl_backend_synchronize(b->be));
        spent = hirl_time_now() - start;
        if (spent < best[1]) best[1] = spent;
    }
    printf("nearest_seconds = %.5f\nproduct_seconds = %.5f\n", best[0], best[1]);
    hirl_tensor_t *const all[] = {&x, &c, &half, &index, &block};
    for (int i = 0; i < 5; i++) hirl_tensor_reset(all[i]);
    hirl_mem_free(zeros);
    return HIRL_OK;
}

static hirl_status_t search(bench_t *b, hirl_backend_t *be, int64_t n, int64_t n_queries,
                            float *score, int64_t *index) {
    return hirl_knn_search(b->world, be, b->x, n, b->x + b->n * b->d, n_queries, b->d,
                           b->n_neighbours, 4096, score, index);
}

static hirl_status_t time_knn(bench_t *b) {
    float *score = NULL;
    int64_t *index = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, b->n_queries * b->n_neighbours, &score));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, b->n_queries * b->n_neighbours, &index));
    double best = 1e30;
    for (int round = 0; round < 2; round++) {
        const double start = hirl_time_now();
        HIRL_TRY(search(b, b->be, b->n, b->n_queries, score, index));
        const double spent = hirl_time_now() - start;
        if (spent < best) best = spent;
    }
    printf("knn_seconds = %.4f\n", best);
    hirl_mem_free(index);
    hirl_mem_free(score);
    return HIRL_OK;
}

// Small enough for the processor.
static hirl_status_t compare(bench_t *b) {
    const int64_t n = b->n / 50 > b->n_neighbours ? b->n / 50 : b->n_neighbours;
    const int64_t k = b->k < n / 10 ? b->k : n / 10 > 0 ? n / 10 : 1;
    const int64_t n_queries = b->n_queries < 500 ? b->n_queries : 500;
    const int64_t n_items = n_queries * b->n_neighbours;
    float *centroids[2] = {NULL, NULL}, *score[2] = {NULL, NULL};
    int64_t *index[2] = {NULL, NULL};
    hirl_kmeans_result_t result[2];
    for (int i = 0; i < 2; i++) {
        const hirl_kmeans_cfg_t cfg = {
            .k = k, .n_iter = 3, .n_redo = 1, .seed = 1, .backend = i ? b->be : NULL};
        HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, k * b->d, &centroids[i]));
        HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n_items, &score[i]));
        HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n_items, &index[i]));
        HIRL_TRY(hirl_kmeans_train(b->world, b->x, n, b->d, &cfg, centroids[i], &result[i]));
        HIRL_TRY(search(b, cfg.backend, n, n_queries, score[i], index[i]));
    }
    const bool is_same = !memcmp(centroids[0], centroids[1], (size_t)(k * b->d) * sizeof(float)) &&
                         !memcmp(score[0], score[1], (size_t)n_items * sizeof(float)) &&
                         !memcmp(index[0], index[1], (size_t)n_items * sizeof(int64_t)) &&
                         !memcmp(&result[0].objective, &result[1].objective, sizeof(double));
    printf("same_bits = %s\n", is_same ? "yes" : "no");
    for (int i = 0; i < 2; i++) {
        hirl_mem_free(index[i]);
        hirl_mem_free(score[i]);
        hirl_mem_free(centroids[i]);
    }
    return HIRL_OK;
}

static hirl_status_t run(bench_t *b, char **argv, const char *rows_path) {
    b->n = atoll(argv[2]);
    b->d = atoi(argv[3]);
    b->k = atoll(argv[4]);
    b->n_iter = atoi(argv[5]);
    b->n_queries = atoll(argv[6]);
    b->n_neighbours = atoi(argv[7]);
    HIRL_REQUIRE(b->n >= 1 && b->d >= 1 && b->k >= 1 && b->k <= b->n && b->n_iter >= 1 &&
                     b->n_queries >= 1 && b->n_neighbours >= 1 && b->n_neighbours <= b->n,
                 HIRL_ERR_ARG, "sizes must be at least 1, and k and n_neighbours at most n");
    HIRL_TRY(hirl_world_create(NULL, NULL, &b->world));
    HIRL_TRY(hirl_backend_create(argv[1], 0, &b->be));
    printf("device = %s\n", hirl_backend_info_view(b->be));
    HIRL_TRY(make_rows(b));
    if (rows_path)
        HIRL_TRY(hirl_path_write_whole(rows_path, b->x,
                                       (size_t)((b->n + b->n_queries) * b->d) * sizeof(float)));
    HIRL_TRY(compare(b));
    HIRL_TRY(time_kmeans(b));
    HIRL_TRY(time_products(b));
    return time_knn(b);
}

int main(int argc, char **argv) {
    bench_t b = {0};
    const hirl_status_t status =
        argc == 8 || argc == 9
            ? run(&b, argv, argc == 9 ? argv[8] : NULL)
            : HIRL_FAIL(HIRL_ERR_ARG,
                        "want BACKEND n d k n_iter n_queries n_neighbours [ROWS], got %d words",
                        argc - 1);
    if (status != HIRL_OK) fprintf(stderr, "gpu_kmeans: %s\n", hirl_error_text_view());
    hirl_mem_free(b.x);
    // After a failure some tensors may still live, and the process ends anyhow.
    if (status == HIRL_OK) hirl_backend_destroy(&b.be);
    hirl_world_destroy(&b.world);
    return status != HIRL_OK;
}
