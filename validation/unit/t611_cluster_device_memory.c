// A device without room for all rows: clustering and search take them in pieces, with the same bits, and where not even
// the centroids fit, say so. The emulated device has 6 MiB here.
// test: backends=cuda timeout=240 env=HIRL_EMU_MEMORY=6291456
#include "../../src/cluster/cluster_impl.h"

#include "test.h"

enum { N = 3000, BANK = 11000, D = 128 };

static hirl_world_t *world;
static hirl_backend_t *be;

static float *make(int64_t n, uint64_t index) {
    float *x = NULL;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n * D, &x));
    test_fill_normal(x, n * D, index);
    return x;
}

static void test_pieces(void) {
    float *x = make(BANK, 1);
    hirl_device_rows_t rows;
    NEED_OK(hirl_device_rows_init(&rows, be, "rows", x, BANK, D, 0));
    CHECK(rows.piece < BANK && rows.piece >= 1024);
    hirl_tensor_t view = {0};
    int64_t n = 0;
    for (int64_t first = 0; first < BANK; first += rows.piece) {
        float *got = NULL;
        NEED_OK(hirl_device_rows_take(&rows, first, &view));
        NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, hirl_tensor_count(&view), &got));
        NEED_OK(hirl_backend_download(be, &view, got));
        CHECK_BITS(got, x + first * D, (size_t)hirl_tensor_count(&view) * sizeof(float));
        n += view.shape.dim[0];
        hirl_mem_free(got);
        hirl_tensor_reset(&view);
    }
    CHECK_EQ_I(n, BANK);
    hirl_device_rows_reset(&rows);
    hirl_mem_free(x);
}

static void test_kmeans(void) {
    enum { K = 20 };
    float *x = make(N, 2);
    static float centroids[2][K * D], distance[2][N];
    static int32_t assign[2][N];
    hirl_kmeans_result_t result[2];
    for (int device = 0; device < 2; device++) {
        const hirl_kmeans_cfg_t cfg = {
            .k = K, .n_iter = 2, .n_redo = 1, .backend = device ? be : NULL};
        NEED_OK(hirl_kmeans_train(world, x, N, D, &cfg, centroids[device], &result[device]));
        NEED_OK(hirl_kmeans_assign(world, cfg.backend, x, N, D, centroids[0], K, assign[device],
                                   distance[device]));
    }
    CHECK_BITS(centroids[1], centroids[0], sizeof(centroids[0]));
    CHECK_BITS(assign[1], assign[0], sizeof(assign[0]));
    CHECK_BITS(distance[1], distance[0], sizeof(distance[0]));
    CHECK_BITS(&result[1].objective, &result[0].objective, sizeof(double));
    hirl_mem_free(x);
}

// Lists that are longer than a piece's share of the neighbours, and rows of one score in several pieces.
static void test_knn(void) {
    enum { Q = 20, K = 30 };
    float *bank = make(BANK, 3), *query = make(Q, 4);
    static float score[2][Q * K];
    static int64_t index[2][Q * K];
    for (int i = 0; i < 40; i++)
        memcpy(bank + (270 * (int64_t)i + 5) * D, query, D * sizeof(*query));
    for (int device = 0; device < 2; device++)
        NEED_OK(hirl_knn_search(world, device ? be : NULL, bank, BANK, query, Q, D, K, 4096,
                                score[device], index[device]));
    for (int i = 0; i < K; i++) CHECK_EQ_I(index[1][i], 270 * i + 5);
    CHECK_BITS(score[1], score[0], sizeof(score[0]));
    CHECK_BITS(index[1], index[0], sizeof(index[0]));
    hirl_mem_free(query);
    hirl_mem_free(bank);
}

static void test_no_room(void) {
    enum { WIDE = 1000000, FEW = 4 };
    float *x = NULL, *centroids = NULL;
    hirl_kmeans_result_t result;
    const hirl_kmeans_cfg_t cfg = {.k = 2, .n_iter = 1, .n_redo = 1, .backend = be};
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, FEW * WIDE, &x));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, 2 * WIDE, &centroids));
    for (int i = 0; i < FEW; i++) x[i * WIDE] = (float)(i + 1);
    CHECK_FAILS(hirl_kmeans_train(world, x, FEW, WIDE, &cfg, centroids, &result), HIRL_ERR_MEMORY,
                "cannot allocate 7.63 MiB on CUDA device 0");
    hirl_mem_free(centroids);
    hirl_mem_free(x);
}

TEST_MAIN {
#ifndef __FMA__
    SKIP("this processor has no fused multiply-add: bits are those of a device only with it");
#endif
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    hirl_log_setup(HIRL_LOG_ERROR, 0);
    NEED_OK(hirl_backend_create(test_backend(), 0, &be));
    if (!strstr(hirl_backend_info_view(be), "emulated")) {
        hirl_backend_destroy(&be);
        hirl_world_destroy(&world);
        SKIP("a real device has room for these rows");
    }
    RUN(test_pieces);
    RUN(test_kmeans);
    RUN(test_knn);
    RUN(test_no_room);
    hirl_backend_destroy(&be);
    hirl_world_destroy(&world);
}
