/// @file cluster.c
/// Our half of cluster.py: times K-means and KNN on the rows of a file and prints `<seconds>
/// <objective>` or `<seconds>`.
///     cluster kmeans FILE n d k n_iter ENGINE          ENGINE: 0 fused, 1 FAISS
///     cluster knn    FILE n d k n_queries LISTS        the queries are the file's rows after the
///     first n; LISTS: where
///                                                      to write the neighbours, i64 [n_queries, k]
#include "hirl/cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static hirl_status_t read_rows(const char *path, int64_t n_items, float **x_p) {
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n_items, x_p));
    FILE *file = fopen(path, "rb");
    HIRL_REQUIRE(file, HIRL_ERR_IO, "cannot open %s", path);
    const size_t got = fread(*x_p, sizeof(float), (size_t)n_items, file);
    fclose(file);
    HIRL_REQUIRE(got == (size_t)n_items, HIRL_ERR_IO, "%s has %zu numbers, want %lld", path, got,
                 (long long)n_items);
    return HIRL_OK;
}

static hirl_status_t time_kmeans(hirl_world_t *world, char **args) {
    const int64_t n = atoll(args[1]), k = atoll(args[3]);
    const int d = atoi(args[2]);
    const hirl_kmeans_cfg_t cfg = {.k = k,
                                   .n_iter = atoi(args[4]),
                                   .n_redo = 1,
                                   .seed = 1234,
                                   .engine = (hirl_cluster_engine_t)atoi(args[5])};
    float *x, *centroids;
    hirl_kmeans_result_t result;
    HIRL_TRY(read_rows(args[0], n * d, &x));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, k * d, &centroids));
    const double start = hirl_time_now();
    HIRL_TRY(hirl_kmeans_train(world, x, n, d, &cfg, centroids, &result));
    printf("%.4f %.9g\n", hirl_time_now() - start, result.objective);
    hirl_mem_free(centroids);
    hirl_mem_free(x);
    return HIRL_OK;
}

static hirl_status_t time_knn(hirl_world_t *world, char **args) {
    const int64_t n = atoll(args[1]), n_queries = atoll(args[4]);
    const int d = atoi(args[2]), k = atoi(args[3]);
    float *x, *score;
    int64_t *index;
    HIRL_TRY(read_rows(args[0], (n + n_queries) * d, &x));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n_queries * k, &score));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n_queries * k, &index));
    const double start = hirl_time_now();
    HIRL_TRY(hirl_knn_search(world, NULL, x, n, x + n * d, n_queries, d, k, 4096, score, index));
    printf("%.4f\n", hirl_time_now() - start);
    HIRL_TRY(hirl_path_write_whole(args[5], index, (size_t)(n_queries * k) * sizeof(*index)));
    hirl_mem_free(index);
    hirl_mem_free(score);
    hirl_mem_free(x);
    return HIRL_OK;
}

int main(int argc, char **argv) {
    hirl_world_t *world = NULL;
    hirl_status_t status = argc == 8 ? hirl_world_create(NULL, NULL, &world)
                                     : HIRL_FAIL(HIRL_ERR_ARG, "%d arguments, want 7", argc - 1);
    if (status == HIRL_OK)
        status = strcmp(argv[1], "knn") ? time_kmeans(world, argv + 2) : time_knn(world, argv + 2);
    if (status != HIRL_OK) fprintf(stderr, "cluster: %s\n", hirl_error_text_view());
    hirl_world_destroy(&world);
    return status != HIRL_OK;
}
