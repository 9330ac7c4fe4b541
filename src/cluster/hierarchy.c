/// @file hierarchy.c
/// Hierarchical K-means (HIRL, Xu et al. 2022, section 3; HCSC, Guo et al. 2022, section 3): level
/// 0 clusters the rows, level l the unit-norm centroids of level l - 1. Every level is distributed
/// over the ranks: the few points of the upper levels are on all ranks, and each works on its share
/// of them. Since K-means gives the same bits for any distribution, so does this.

#include "cluster_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static hirl_status_t check_sizes(int n_levels, const int64_t *k, int d, int64_t n) {
    HIRL_REQUIRE(n_levels >= 1 && n_levels <= HIRL_MAX_LEVELS, HIRL_ERR_ARG,
                 "%d levels of clusters, want 1 to %d", n_levels, HIRL_MAX_LEVELS);
    HIRL_REQUIRE(d >= 1, HIRL_ERR_ARG, "rows of %d columns, want at least 1", d);
    for (int l = 0; l < n_levels; l++) {
        const int64_t n_points = l == 0 ? n : k[l - 1];
        HIRL_REQUIRE(k[l] >= 1 && k[l] <= n_points, HIRL_ERR_ARG,
                     "level %d: %lld clusters of %lld %s, want 1 to %lld", l, (long long)k[l],
                     (long long)n_points, l == 0 ? "rows" : "centroids of the level below",
                     (long long)n_points);
    }
    return HIRL_OK;
}

// Bytes on every rank, and of the part that the ranks of a node share.
static hirl_status_t hierarchy_alloc(int n_levels, const int64_t *k, int d, int64_t n,
                                     bool has_density, hirl_hierarchy_t **hierarchy_p) {
    hirl_hierarchy_t *h;
    hirl_status_t status;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, 1, &h));
    h->n_levels = n_levels;
    h->d = d;
    h->n = n;
    for (int l = 0; l < n_levels; l++) {
        h->k[l] = k[l];
        HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, k[l] * d, &h->centroid[l]), status, err);
        if (l + 1 < n_levels)
            HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, k[l], &h->parent[l]), status, err);
        if (has_density)
            HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, k[l], &h->density[l]), status, err);
    }
    *hierarchy_p = h;
    return HIRL_OK;
err:
    hirl_hierarchy_destroy(&h);
    return status;
}

static hirl_status_t create_empty(hirl_world_t *world, int n_levels, const int64_t *k, int d,
                                  int64_t n, bool has_density, hirl_hierarchy_t **hierarchy_p) {
    hirl_hierarchy_t *h = NULL;
    hirl_status_t status;
    void *assign = NULL;
    const size_t bytes = (size_t)n * (size_t)n_levels * sizeof(int32_t);
    HIRL_TRY_GOTO(hirl_par_agree(world, hierarchy_alloc(n_levels, k, d, n, has_density, &h)),
                  status, err);
    HIRL_TRY_GOTO(hirl_par_agree(world, hirl_par_shared_create(world, bytes, &h->shared, &assign)),
                  status, err);
    for (int l = 0; l < n_levels; l++) h->assign[l] = (const int32_t *)assign + (int64_t)l * n;
    *hierarchy_p = h;
    return HIRL_OK;
err:
    hirl_hierarchy_destroy(&h);
    return status;
}

hirl_status_t hirl_hierarchy_create_empty(hirl_world_t *world, int n_levels, const int64_t *k,
                                          int d, int64_t n, hirl_hierarchy_t **hierarchy_p) {
    HIRL_REQUIRE(world, HIRL_ERR_ARG, "there is no world");
    hirl_status_t status = HIRL_OK;
    if (!k || !hierarchy_p || n < 1)
        status =
            HIRL_FAIL(HIRL_ERR_ARG, "a hierarchy of %lld rows (want at least 1) or NULL arguments",
                      (long long)n);
    else
        status = check_sizes(n_levels, k, d, n);
    HIRL_TRY(hirl_par_agree(world, status));
    return create_empty(world, n_levels, k, d, n, false, hierarchy_p);
}

int32_t *hirl_hierarchy_assign_of(hirl_hierarchy_t *hierarchy, int level) {
    return (int32_t *)hierarchy->assign[level];
}

void hirl_hierarchy_destroy(hirl_hierarchy_t **hierarchy) {
    if (!hierarchy || !*hierarchy) return;
    for (int l = 0; l < HIRL_MAX_LEVELS; l++) {
        hirl_mem_free((*hierarchy)->centroid[l]);
        hirl_mem_free((*hierarchy)->parent[l]);
        hirl_mem_free((*hierarchy)->density[l]);
    }
    hirl_par_shared_destroy(&(*hierarchy)->shared);
    hirl_mem_free(*hierarchy);
    *hierarchy = NULL;
}

// ------------------------------------------------------------------------------------ density

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Percentile with linear interpolation between the two nearest of n sorted values.
static double percentile(const double *sorted, int64_t n, double percent) {
    const double at = percent / 100 * (double)(n - 1);
    const int64_t low = (int64_t)at, high = low + 1 < n ? low + 1 : low;
    return sorted[low] + (at - (double)low) * (sorted[high] - sorted[low]);
}

// From sums of distances and sizes to concentrations (PCL, Li et al. 2021, "concentration
// estimation", as its authors compute it): mean distance over ln(size + 10); clusters of at most
// one member take the largest; clipped to the 10th to 90th percentile; scaled to the mean T.
// scratch [2 k].
static void finish_density(const double *distance, const int64_t *size, int64_t k,
                           double temperature, double *scratch, float *density) {
    double *phi = scratch, *sorted = scratch + k, max = 0, sum = 0;
    for (int64_t c = 0; c < k; c++) {
        phi[c] = size[c] > 1 ? distance[c] / (double)size[c] / log((double)size[c] + 10) : 0;
        max = fmax(max, phi[c]);
    }
    for (int64_t c = 0; c < k; c++) phi[c] = size[c] > 1 ? phi[c] : max;
    memcpy(sorted, phi, (size_t)k * sizeof(*phi));
    qsort(sorted, (size_t)k, sizeof(*sorted), compare_doubles);
    const double low = percentile(sorted, k, 10), high = percentile(sorted, k, 90);
    for (int64_t c = 0; c < k; c++) {
        phi[c] = fmin(fmax(phi[c], low), high);
        sum += phi[c];
    }
    const double mean = sum / (double)k;
    // All distances zero: all clusters are alike, as a mean of one value would make them.
    for (int64_t c = 0; c < k; c++)
        density[c] = (float)(temperature * (mean > 0 ? phi[c] / mean : 1));
}

// Rows are of unit norm and centroids means of such, but for splits; 4 bounds their distances with
// room to spare.
static const double MAX_DISTANCE = 4;

static hirl_status_t find_density(hirl_world_t *world, const int32_t *assign,
                                  const float *distance_sq, int64_t n_local, int64_t n, int64_t k,
                                  double temperature, float *density) {
    int64_t *sum = NULL; // [k] distances in fixed point, then [k] sizes
    double *work = NULL; // [k] distances, then scratch
    const double scale = hirl_fixed_scale(n, MAX_DISTANCE);
    hirl_status_t status = HIRL_ALLOC(HIRL_MEM_CLUSTER, 2 * k, &sum);
    if (status == HIRL_OK) status = HIRL_ALLOC(HIRL_MEM_CLUSTER, 3 * k, &work);
    HIRL_TRY_GOTO(hirl_par_agree(world, status), status, end);
    for (int64_t i = 0; i < n_local; i++) {
        sum[assign[i]] +=
            hirl_fixed_round(fmin(sqrt((double)distance_sq[i]), MAX_DISTANCE) * scale);
        sum[k + assign[i]]++;
    }
    HIRL_TRY_GOTO(hirl_par_all_reduce(world, sum, 2 * k, HIRL_PAR_I64, HIRL_PAR_SUM), status, end);
    for (int64_t c = 0; c < k; c++) work[c] = (double)sum[c] / scale;
    finish_density(work, sum + k, k, temperature, work + k, density);
end:
    hirl_mem_free(work);
    hirl_mem_free(sum);
    return status;
}

// ------------------------------------------------------------------------------------ levels

// Clusters the points x [n_local, d] (n of all ranks) into level l: raw centroids, objective,
// assignment of the local points, density, then unit-norm centroids.
static hirl_status_t cluster_level(hirl_world_t *world, const hirl_hierarchy_cfg_t *cfg, int l,
                                   const float *x, int64_t n_local, int64_t n, hirl_hierarchy_t *h,
                                   int32_t *assign) {
    const int64_t k = cfg->k[l];
    const hirl_kmeans_cfg_t kmeans = {.k = k,
                                      .n_iter = cfg->n_iter,
                                      .n_redo = cfg->n_redo,
                                      .seed = l,
                                      .max_points_per_centroid = cfg->max_points_per_centroid,
                                      .min_points_per_centroid = cfg->min_points_per_centroid,
                                      .is_verbose = cfg->is_verbose,
                                      .engine = cfg->engine,
                                      .backend = cfg->backend};
    const double start = hirl_time_now();
    hirl_kmeans_result_t result;
    float *distance = NULL;
    hirl_status_t status;
    HIRL_TRY_GOTO(hirl_kmeans_train(world, x, n_local, h->d, &kmeans, h->centroid[l], &result),
                  status, end);
    HIRL_TRY_GOTO(hirl_par_agree(world, HIRL_ALLOC(HIRL_MEM_CLUSTER, n_local, &distance)), status,
                  end);
    HIRL_TRY_GOTO(hirl_kmeans_assign(world, cfg->backend, x, n_local, h->d, h->centroid[l], k,
                                     assign, distance),
                  status, end);
    if (h->density[l])
        HIRL_TRY_GOTO(find_density(world, assign, distance, n_local, n, k, cfg->density_temperature,
                                   h->density[l]),
                      status, end);
    hirl_rows_normalise(h->centroid[l], k, h->d, h->centroid[l]);
    h->objective[l] = result.objective;
    hirl_log_root(
        HIRL_LOG_INFO,
        "cluster level = %d points = %lld clusters = %lld objective = %.9g restart = %d/%d "
        "splits = %lld seconds = %.2f",
        l, (long long)n, (long long)k, result.objective, result.best_redo + 1, cfg->n_redo,
        (long long)result.n_splits, hirl_time_now() - start);
end:
    hirl_mem_free(distance);
    return status;
}

// Level l > 0: this rank's share of the centroids below; their clusters become the parents on all
// ranks.
static hirl_status_t cluster_upper_level(hirl_world_t *world, const hirl_hierarchy_cfg_t *cfg,
                                         int l, hirl_hierarchy_t *h) {
    const int size = hirl_world_size(world), rank = hirl_world_rank(world);
    const int64_t n = h->k[l - 1];
    int64_t *counts = NULL;
    int32_t *mine = NULL;
    hirl_status_t status = HIRL_ALLOC(HIRL_MEM_CLUSTER, size, &counts);
    if (status == HIRL_OK) status = HIRL_ALLOC(HIRL_MEM_CLUSTER, n / size + 1, &mine);
    HIRL_TRY_GOTO(hirl_par_agree(world, status), status, end);
    for (int r = 0; r < size; r++) counts[r] = n * (r + 1) / size - n * r / size;
    const float *x = h->centroid[l - 1] + n * rank / size * h->d;
    HIRL_TRY_GOTO(cluster_level(world, cfg, l, x, counts[rank], n, h, mine), status, end);
    HIRL_TRY_GOTO(hirl_par_all_gather_v(world, mine, counts, HIRL_PAR_I32, h->parent[l - 1]),
                  status, end);
end:
    hirl_mem_free(mine);
    hirl_mem_free(counts);
    return status;
}

static void log_memory(hirl_world_t *world, const hirl_hierarchy_cfg_t *cfg, int d, int64_t n) {
    double rank_bytes = 0;
    char rank_text[32], node_text[32], rows_text[32];
    for (int l = 0; l < cfg->n_levels; l++) rank_bytes += (double)cfg->k[l] * (4.0 * d + 8);
    hirl_log_root(HIRL_LOG_INFO,
                  "hierarchy levels = %d points = %lld columns = %d rows_of_all_ranks = %s "
                  "centroids_per_rank = %s assignments_per_node = %s nodes = %d",
                  cfg->n_levels, (long long)n, d, hirl_text_bytes(rows_text, 4.0 * (double)n * d),
                  hirl_text_bytes(rank_text, rank_bytes),
                  hirl_text_bytes(node_text, 4.0 * (double)n * cfg->n_levels),
                  hirl_world_n_nodes(world));
}

static hirl_status_t check_args(const float *x, int64_t n_local, int d,
                                const hirl_hierarchy_cfg_t *cfg,
                                hirl_hierarchy_t *const *hierarchy_p) {
    HIRL_REQUIRE(cfg && hierarchy_p, HIRL_ERR_ARG, "cfg and hierarchy_p must not be NULL");
    HIRL_REQUIRE(n_local >= 0 && (x || n_local == 0), HIRL_ERR_ARG,
                 "%lld rows on this rank, memory at %p", (long long)n_local, (const void *)x);
    HIRL_REQUIRE(d >= 1, HIRL_ERR_ARG, "rows of %d columns, want at least 1", d);
    HIRL_REQUIRE(cfg->n_levels >= 1 && cfg->n_levels <= HIRL_MAX_LEVELS, HIRL_ERR_ARG,
                 "%d levels of clusters, want 1 to %d", cfg->n_levels, HIRL_MAX_LEVELS);
    HIRL_REQUIRE(cfg->density_temperature >= 0 && isfinite(cfg->density_temperature), HIRL_ERR_ARG,
                 "density temperature %g, want a finite number >= 0", cfg->density_temperature);
    return HIRL_OK;
}

hirl_status_t hirl_hierarchy_create(hirl_world_t *world, float *x, int64_t n_local, int d,
                                    const hirl_hierarchy_cfg_t *cfg,
                                    hirl_hierarchy_t **hierarchy_p) {
    HIRL_REQUIRE(world, HIRL_ERR_ARG, "there is no world");
    hirl_rows_info_t info;
    hirl_hierarchy_t *h = NULL;
    int32_t *assign = NULL;
    hirl_status_t status = check_args(x, n_local, d, cfg, hierarchy_p);
    HIRL_TRY(hirl_rows_check(world, status, "row", x, n_local, d, true, &info));
    const char *names[4 + HIRL_MAX_LEVELS] = {"columns", "levels", "density_temperature", "engine"};
    int64_t values[4 + HIRL_MAX_LEVELS] = {d, cfg->n_levels, cfg->density_temperature > 0,
                                           cfg->engine};
    for (int l = 0; l < cfg->n_levels; l++) {
        names[4 + l] = "number of clusters of a level";
        values[4 + l] = cfg->k[l];
    }
    HIRL_TRY(hirl_same_on_all_ranks(world, 2, names, values));
    HIRL_TRY(hirl_same_on_all_ranks(world, 2 + cfg->n_levels, names + 2, values + 2));
    HIRL_TRY(check_sizes(cfg->n_levels, cfg->k, d, info.n));

    log_memory(world, cfg, d, info.n);
    hirl_rows_normalise(x, n_local, d, x);
    HIRL_TRY_GOTO(
        create_empty(world, cfg->n_levels, cfg->k, d, info.n, cfg->density_temperature > 0, &h),
        status, err);
    HIRL_TRY_GOTO(hirl_par_agree(world, HIRL_ALLOC(HIRL_MEM_CLUSTER, n_local, &assign)), status,
                  err);
    HIRL_TRY_GOTO(cluster_level(world, cfg, 0, x, n_local, info.n, h, assign), status, err);
    HIRL_TRY_GOTO(hirl_gather_on_nodes(world, assign, n_local, hirl_hierarchy_assign_of(h, 0)),
                  status, err);
    for (int l = 1; l < cfg->n_levels; l++)
        HIRL_TRY_GOTO(cluster_upper_level(world, cfg, l, h), status, err);
    if (hirl_world_node_rank(world) == 0) {
        for (int l = 1; l < cfg->n_levels; l++) {
            int32_t *upper = hirl_hierarchy_assign_of(h, l);
#pragma omp parallel for schedule(static)
            for (int64_t i = 0; i < info.n; i++) upper[i] = h->parent[l - 1][h->assign[l - 1][i]];
        }
    }
    HIRL_TRY_GOTO(hirl_par_shared_sync(h->shared), status, err);
    hirl_mem_free(assign);
    *hierarchy_p = h;
    return HIRL_OK;
err:
    hirl_mem_free(assign);
    hirl_hierarchy_destroy(&h);
    return status;
}
