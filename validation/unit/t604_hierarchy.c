// The hierarchy against one that FAISS and NumPy built, and its own consistency: unit norms,
// parents, assignments that follow the parents, nearest centroids, densities with mean T;
// degenerate data; the empty hierarchy.
// test: ranks=1,2 timeout=60
#include "hirl/cluster.h"

#include "test.h"

#include "../reference/cluster/reference.h"

static hirl_world_t *world;

static void share_of(int64_t n, int64_t *first_p, int64_t *n_local_p) {
    *first_p = n * hirl_world_rank(world) / hirl_world_size(world);
    *n_local_p = n * (hirl_world_rank(world) + 1) / hirl_world_size(world) - *first_p;
}

static int64_t count_wrong(const int32_t *a, const int32_t *b, int64_t n) {
    int64_t n_wrong = 0;
    for (int64_t i = 0; i < n; i++) n_wrong += a[i] != b[i];
    return n_wrong;
}

static void *read_level(int level, const char *what, int64_t n) {
    char name[64];
    snprintf(name, sizeof(name), "level%d_%s", level, what);
    return reference_read(name, n, 4);
}

static void test_reference(void) {
    const hirl_hierarchy_cfg_t cfg = {.n_levels = REF_LEVELS,
                                      .k = {120, 40, 8},
                                      .n_iter = 20,
                                      .n_redo = 5,
                                      .max_points_per_centroid = 1000,
                                      .min_points_per_centroid = 1,
                                      .density_temperature = 0.2};
    float *x = reference_read("x.f32", REF_N * REF_D, 4);
    int64_t first, n_local;
    hirl_hierarchy_t *h = NULL;
    share_of(REF_N, &first, &n_local);
    // Scaled rows: the hierarchy normalises them.
    for (int64_t i = first; i < first + n_local; i++)
        for (int j = 0; j < REF_D; j++) x[i * REF_D + j] *= (float)(1 + i % 5);
    NEED_OK(hirl_hierarchy_create(world, x + first * REF_D, n_local, REF_D, &cfg, &h));
    CHECK_EQ_I(h->n_levels, REF_LEVELS);
    CHECK_EQ_I(h->n, REF_N);
    CHECK_EQ_I(h->d, REF_D);
    for (int64_t i = first; i < first + n_local; i++) {
        double norm_sq = 0;
        for (int j = 0; j < REF_D; j++)
            norm_sq += (double)x[i * REF_D + j] * (double)x[i * REF_D + j];
        CHECK_CLOSE(norm_sq, 1, 0, 4e-7); // REF_D roundings that partly cancel
    }
    for (int l = 0; l < REF_LEVELS; l++) {
        const int64_t k = cfg.k[l];
        float *centroid = read_level(l, "centroid.f32", k * REF_D),
              *density = read_level(l, "density.f32", k);
        int32_t *assign = read_level(l, "assign.i32", REF_N);
        // FAISS's sums are in single precision; no tie of this data is near enough to flip.
        CHECK_CLOSE_F32(h->centroid[l], centroid, k * REF_D, 0, 2e-6);
        CHECK_EQ_I(count_wrong(h->assign[l], assign, REF_N), 0);
        CHECK_CLOSE_F32(h->density[l], density, k, 1e-5, 0);
        if (l + 1 < REF_LEVELS) {
            int32_t *parent = read_level(l, "parent.i32", k);
            CHECK_EQ_I(count_wrong(h->parent[l], parent, k), 0);
            hirl_mem_free(parent);
        } else {
            CHECK(h->parent[l] == NULL);
        }
        hirl_mem_free(assign);
        hirl_mem_free(density);
        hirl_mem_free(centroid);
    }
    hirl_hierarchy_destroy(&h);
    hirl_mem_free(x);
}

// Each row sits in the cluster of its nearest raw centroid; unit centroids point the same way, so
// what can be seen from outside is: paths are functions of the leaf, ids are in range, norms are
// one, densities average to T.
static void test_consistency(void) {
    enum { N = 800, D = 17, L = 4 };
    const hirl_hierarchy_cfg_t cfg = {.n_levels = L,
                                      .k = {150, 150, 20, 1},
                                      .n_iter = 5,
                                      .n_redo = 2,
                                      .density_temperature = 0.5,
                                      .is_verbose = false};
    static float x[N * D];
    int64_t first, n_local;
    hirl_hierarchy_t *h = NULL;
    share_of(N, &first, &n_local);
    test_fill_normal(x, N * D, 3);
    NEED_OK(hirl_hierarchy_create(world, x + first * D, n_local, D, &cfg, &h));
    for (int l = 0; l < L; l++) {
        double sum = 0;
        for (int64_t c = 0; c < cfg.k[l]; c++) {
            double norm_sq = 0;
            for (int j = 0; j < D; j++)
                norm_sq += (double)h->centroid[l][c * D + j] * (double)h->centroid[l][c * D + j];
            CHECK_CLOSE(norm_sq, 1, 0, 4e-7);
            CHECK(h->density[l][c] > 0);
            sum += h->density[l][c];
            if (l + 1 < L) CHECK(h->parent[l][c] >= 0 && h->parent[l][c] < cfg.k[l + 1]);
        }
        CHECK_CLOSE(sum / (double)cfg.k[l], 0.5, 1e-6, 0);
        int64_t n_wrong = 0;
        for (int64_t i = 0; i < N; i++)
            n_wrong += l == 0 ? h->assign[0][i] < 0 || h->assign[0][i] >= cfg.k[0]
                              : h->assign[l][i] != h->parent[l - 1][h->assign[l - 1][i]];
        CHECK_EQ_I(n_wrong, 0);
    }
    // As many clusters as points: level 1 is level 0, and each of its clusters is its own parent.
    CHECK_CLOSE(h->objective[1], 0, 0, 0);
    for (int c = 0; c < 150; c++) CHECK_EQ_I(h->parent[0][c], c);
    hirl_hierarchy_destroy(&h);
}

// Rows that are all alike: nothing to tell apart, but no division by zero either.
static void test_equal_rows(void) {
    enum { N = 40, D = 4 };
    const hirl_hierarchy_cfg_t cfg = {
        .n_levels = 2, .k = {6, 2}, .n_iter = 3, .n_redo = 1, .density_temperature = 0.2};
    float x[N * D];
    int64_t first, n_local;
    hirl_hierarchy_t *h = NULL;
    share_of(N, &first, &n_local);
    for (int i = 0; i < N * D; i++) x[i] = 3;
    NEED_OK(hirl_hierarchy_create(world, x + first * D, n_local, D, &cfg, &h));
    for (int l = 0; l < 2; l++) {
        for (int c = 0; c < cfg.k[l]; c++) {
            CHECK(isfinite(h->density[l][c]));
            for (int j = 0; j < D; j++)
                CHECK_CLOSE(h->centroid[l][c * D + j], 0.5, 0, 0.01); // splits move it by 1/1024
        }
    }
    hirl_hierarchy_destroy(&h);
}

static void test_empty(void) {
    enum { N = 30, D = 3, L = 2 };
    const int64_t k[L] = {5, 2};
    hirl_hierarchy_t *h = NULL;
    NEED_OK(hirl_hierarchy_create_empty(world, L, k, D, N, &h));
    if (hirl_world_node_rank(world) == 0)
        for (int l = 0; l < L; l++)
            for (int i = 0; i < N; i++) hirl_hierarchy_assign_of(h, l)[i] = 100 * l + i;
    NEED_OK(hirl_par_shared_sync(h->shared));
    for (int l = 0; l < L; l++)
        for (int i = 0; i < N; i++) CHECK_EQ_I(h->assign[l][i], 100 * l + i);
    CHECK(h->parent[0] && !h->parent[1] && !h->density[0] && h->centroid[1]);
    hirl_hierarchy_destroy(&h);
    CHECK(h == NULL);
    hirl_hierarchy_destroy(&h);
    CHECK_FAILS(hirl_hierarchy_create_empty(world, L, (const int64_t[]){5, 6}, D, N, &h),
                HIRL_ERR_ARG, "level 1: 6 clusters of 5 centroids");
    CHECK_FAILS(hirl_hierarchy_create_empty(world, 9, k, D, N, &h), HIRL_ERR_ARG, "9 levels");
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    hirl_log_setup(HIRL_LOG_WARN, hirl_world_rank(world));
    RUN(test_reference);
    RUN(test_consistency);
    RUN(test_equal_rows);
    RUN(test_empty);
    hirl_world_destroy(&world);
}
