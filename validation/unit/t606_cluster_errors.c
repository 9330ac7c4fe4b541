// Bad data and bad arguments of clustering and KNN: all ranks fail alike, and the text names the
// global row and column.
// test: ranks=1,3 timeout=60
#include "hirl/cluster.h"

#include "test.h"

static hirl_world_t *world;
static int rank, size;

enum { N = 30, D = 4, K = 3 }; // N rows on each rank

static float x[N * D], centroids[N * D];
static int32_t label[N], assign[N];

static void reset(void) {
    test_fill_normal(x, N * D, 1);
    for (int i = 0; i < N; i++) label[i] = i % 5;
}

static char text[256];
static const char *format(const char *pattern, int number) {
    snprintf(text, sizeof(text), pattern, number);
    return text;
}

static hirl_status_t train(int64_t n, hirl_kmeans_cfg_t cfg) {
    hirl_kmeans_result_t result;
    return hirl_kmeans_train(world, x, n, D, &cfg, centroids, &result);
}

// The last rank's row 7: the only bad one.
static void test_bad_values(void) {
    const int last = rank == size - 1, row = (size - 1) * N + 7;
    const hirl_kmeans_cfg_t kmeans = {.k = K, .n_iter = 2, .n_redo = 1};
    const hirl_hierarchy_cfg_t tree = {.n_levels = 1, .k = {K}, .n_iter = 2, .n_redo = 1};
    const hirl_knn_cfg_t knn = {.k = {2}, .n_k = 1, .temperature = 0.07, .query_chunk = 64};
    hirl_hierarchy_t *h = NULL;
    float score[2 * N], good[N * D];
    int64_t index[2 * N];
    double top1, top5;
    test_fill_normal(good, N * D, 2);
    for (int kind = 0; kind < 3; kind++) {
        reset();
        if (last) x[7 * D + 2] = kind == 0 ? NAN : kind == 1 ? -INFINITY : 1e30f;
        format(kind == 0   ? "row %d, column 2: NaN"
               : kind == 1 ? "row %d, column 2: infinite"
                           : "row %d: norm 1e+30, want at most 6.52e+18",
               row);
        const char *query_text = strdup(text);
        const char *want = query_text;
        CHECK_FAILS(train(N, kmeans), HIRL_ERR_NUMERIC, want);
        CHECK_FAILS(hirl_kmeans_assign(world, NULL, x, N, D, good, K, assign, NULL),
                    HIRL_ERR_NUMERIC, want);
        CHECK_FAILS(hirl_hierarchy_create(world, x, N, D, &tree, &h), HIRL_ERR_NUMERIC, want);
        CHECK_FAILS(hirl_knn_search(world, NULL, x, N, good, N, D, 2, 64, score, index),
                    HIRL_ERR_NUMERIC, want);
        CHECK_FAILS(hirl_knn_search(world, NULL, good, N, x, N, D, 2, 64, score, index),
                    HIRL_ERR_NUMERIC, strchr(want, ' '));
        CHECK_FAILS(
            hirl_knn_classify(world, NULL, good, label, N, x, label, N, D, 5, &knn, &top1, &top5),
            HIRL_ERR_NUMERIC, strchr(want, ' '));
        free((void *)query_text);
    }
    reset();
    if (last) memset(x + 7 * D, 0, D * sizeof(*x));
    format("row %d: all 4 columns are zero", row);
    CHECK_FAILS(hirl_hierarchy_create(world, x, N, D, &tree, &h), HIRL_ERR_NUMERIC, text);
    CHECK_FAILS(
        hirl_knn_classify(world, NULL, x, label, N, good, label, N, D, 5, &knn, &top1, &top5),
        HIRL_ERR_NUMERIC, text);
    CHECK_OK(train(N, kmeans)); // a zero row is a point like others there
    CHECK(h == NULL);
}

static void test_kmeans_arguments(void) {
    reset();
    const hirl_kmeans_cfg_t good = {.k = K, .n_iter = 2, .n_redo = 1};
    hirl_kmeans_cfg_t cfg = good;
    cfg.k = N * size + 1;
    CHECK_FAILS(train(N, cfg), HIRL_ERR_ARG, format("%d rows into", N * size));
    cfg.k = 0;
    CHECK_FAILS(train(N, cfg), HIRL_ERR_ARG, "0 clusters");
    cfg = good;
    cfg.n_iter = 0;
    CHECK_FAILS(train(N, cfg), HIRL_ERR_ARG, "0 iterations");
    cfg = good;
    cfg.n_redo = 0;
    CHECK_FAILS(train(N, cfg), HIRL_ERR_ARG, "0 restarts");
    cfg = good;
    cfg.max_points_per_centroid = -1;
    CHECK_FAILS(train(N, cfg), HIRL_ERR_ARG, "points per centroid");
    cfg = good;
    cfg.engine = (hirl_cluster_engine_t)7;
    CHECK_FAILS(train(N, cfg), HIRL_ERR_ARG, "engine 7");
    CHECK_FAILS(train(-1, good), HIRL_ERR_ARG, "-1 rows");
    CHECK_FAILS(hirl_kmeans_train(world, x, N, D, &good, NULL, NULL), HIRL_ERR_ARG, "NULL");
    CHECK_FAILS(train(0, good), HIRL_ERR_ARG, "0 rows into 3 clusters"); // no rank has any
    CHECK_FAILS(hirl_kmeans_assign(world, NULL, x, N, D, x, 0, assign, NULL), HIRL_ERR_ARG,
                "0 centroids");
    if (size > 1) {
        cfg = good;
        cfg.k = K + rank;
        CHECK_FAILS(train(N, cfg), HIRL_ERR_ARG, "clusters differs between ranks (3 to 5)");
        CHECK_FAILS(train(rank == 1 ? -1 : N, good), HIRL_ERR_ARG,
                    "-1 rows");                   // one rank's own mistake
        CHECK_OK(train(rank == 1 ? 0 : N, good)); // no rows on one rank is none
    }
}

static void test_hierarchy_arguments(void) {
    reset();
    hirl_hierarchy_t *h = NULL;
    hirl_hierarchy_cfg_t cfg = {.n_levels = 2, .k = {4, 5}, .n_iter = 2, .n_redo = 1};
    CHECK_FAILS(hirl_hierarchy_create(world, x, N, D, &cfg, &h), HIRL_ERR_ARG,
                "level 1: 5 clusters of 4 centroids");
    cfg.k[0] = N * size + 1;
    CHECK_FAILS(hirl_hierarchy_create(world, x, N, D, &cfg, &h), HIRL_ERR_ARG, "level 0:");
    cfg.n_levels = 0;
    CHECK_FAILS(hirl_hierarchy_create(world, x, N, D, &cfg, &h), HIRL_ERR_ARG, "0 levels");
    cfg = (hirl_hierarchy_cfg_t){
        .n_levels = 1, .k = {4}, .n_iter = 2, .n_redo = 1, .density_temperature = -1};
    CHECK_FAILS(hirl_hierarchy_create(world, x, N, D, &cfg, &h), HIRL_ERR_ARG,
                "density temperature");
    CHECK(h == NULL);
}

static void test_knn_arguments(void) {
    reset();
    float score[N * 4];
    int64_t index[N * 4];
    double top1[2], top5[2];
    const hirl_knn_cfg_t good = {.k = {2, 4}, .n_k = 2, .temperature = 0.07, .query_chunk = 64};
    hirl_knn_cfg_t cfg = good;
    CHECK_FAILS(hirl_knn_search(world, NULL, x, 1, x, N, D, size + 1, 64, score, index),
                HIRL_ERR_ARG, format("of a bank of %d rows", size));
    CHECK_FAILS(hirl_knn_search(world, NULL, x, N, x, N, D, 0, 64, score, index), HIRL_ERR_ARG,
                "0 neighbours");
    CHECK_FAILS(hirl_knn_search(world, NULL, x, N, x, N, D, 2, 0, score, index), HIRL_ERR_ARG,
                "query_chunk = 0");
    CHECK_OK(hirl_knn_search(world, NULL, x, N, x, rank == 0 ? 0 : N, D, 2, 64, score, index));
    CHECK_OK(hirl_knn_search(world, NULL, x, rank == 0 ? N : 0, x, N, D, 4, 64, score, index));
#define CLASSIFY(cfg_p) \
    hirl_knn_classify(world, NULL, x, label, N, x, label, N, D, 5, (cfg_p), top1, top5)
    CHECK_OK(CLASSIFY(&good));
    cfg.k[1] = N * size + 1;
    CHECK_FAILS(CLASSIFY(&cfg), HIRL_ERR_ARG, format("the bank has %d rows", N * size));
    cfg.k[1] = 0;
    CHECK_FAILS(CLASSIFY(&cfg), HIRL_ERR_ARG, "knn%k has 0");
    cfg = good;
    cfg.n_k = 0;
    CHECK_FAILS(CLASSIFY(&cfg), HIRL_ERR_ARG, "0 items");
    cfg = good;
    cfg.temperature = 0;
    CHECK_FAILS(CLASSIFY(&cfg), HIRL_ERR_ARG, "temperature");
    cfg = good;
    strcpy(cfg.engine, "annoy");
    CHECK_FAILS(CLASSIFY(&cfg), HIRL_ERR_ARG, "'annoy', want 'fused' or 'faiss'");
    if (rank == size - 1) label[3] = -1;
    CHECK_FAILS(CLASSIFY(&good), HIRL_ERR_ARG,
                format("row %d: label -1, want 0 to 4", (size - 1) * N + 3));
    if (rank == size - 1) label[3] = 5;
    CHECK_FAILS(CLASSIFY(&good), HIRL_ERR_ARG,
                format("row %d: label 5, want 0 to 4", (size - 1) * N + 3));
    reset();
    CHECK_FAILS(hirl_knn_classify(world, NULL, x, NULL, N, x, label, N, D, 5, &good, top1, top5),
                HIRL_ERR_ARG, "have no labels");
    CHECK_FAILS(hirl_knn_classify(world, NULL, x, label, N, x, label, 0, D, 5, &good, top1, top5),
                HIRL_ERR_ARG, "no queries");
#undef CLASSIFY
}

// The group's defaults are those of the published protocol.
static void test_group(void) {
    CHECK_EQ_S(hirl_knn_group.name, "knn");
    CHECK_EQ_I(hirl_knn_group.struct_size, sizeof(hirl_knn_cfg_t));
    const char *const want[][2] = {{"k", "10,20,100,200"},
                                   {"temperature", "0.07"},
                                   {"every_epochs", "0"},
                                   {"query_chunk", "4096"}};
    for (size_t i = 0; i < sizeof(want) / sizeof(*want); i++) {
        const hirl_key_t *found = NULL;
        for (int j = 0; j < hirl_knn_group.n_keys; j++)
            if (!strcmp(hirl_knn_group.keys[j].name, want[i][0])) found = &hirl_knn_group.keys[j];
        if (CHECK_MSG(found != NULL, "knn%%%s is missing", want[i][0]))
            CHECK_EQ_S(found->default_text, want[i][1]);
    }
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    hirl_log_setup(HIRL_LOG_WARN, hirl_world_rank(world));
    rank = hirl_world_rank(world);
    size = hirl_world_size(world);
    RUN(test_bad_values);
    RUN(test_kmeans_arguments);
    RUN(test_hierarchy_arguments);
    RUN(test_knn_arguments);
    RUN(test_group);
    hirl_world_destroy(&world);
}
