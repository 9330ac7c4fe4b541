/// @file kmeans.c
/// Distributed K-means: Lloyd's iteration as faiss::Clustering does it (initial rows, subsets,
/// splits of empty clusters, choice of the restart), with each rank working on its own rows. Sums,
/// counts and the objective are integers in fixed point, and a row's nearest centroid does not
/// depend on the rows beside it: so centroids, assignments and objective have the same bits for any
/// number of ranks and threads.

#include "cluster_impl.h"

#include <math.h>
#include <omp.h>
#include <string.h>

// FAISS: the seed step between restarts, the seed of the splits, and by how much the halves of a
// split differ.
enum { REDO_SEED_STEP = 15486557, SPLIT_SEED = 1234 };
#define SPLIT_EPSILON (1 / 1024.f)

// One training under way.
typedef struct lloyd {
    hirl_world_t *world;
    const hirl_kmeans_cfg_t *cfg;
    int d;
    int64_t k;
    hirl_rows_info_t all; // all rows given
    const float *x_all;   // [n_all_local, d] this rank's part of them; borrowed
    int64_t n_all_local;
    int64_t n, n_local; // rows to train on: of all ranks, and here
    const float *x;     // [n_local, d] those here: x_all, or subset
    float *subset;
    int32_t *subset_row; // [all.n] training row i is global row subset_row[i]; NULL: all rows train
    int32_t *permutation; // [n] scratch for the initial rows
    double scale;         // of the fixed-point sums
    hirl_panels_t panels;
    hirl_faiss_index_t *index;   // instead of panels with FAISS as engine
    hirl_device_lloyd_t *device; // instead of panels and all that sorts and adds rows, on a backend
    int32_t *assign;             // [n_local]
    int32_t *order;              // [n_local] rows in the order of their clusters
    int64_t *start;              // [k + 1] where in `order` each cluster begins
    int64_t *sum;                // [k, d] sums, then [k] counts, then the objective
    int64_t *edge;               // [threads, d] part of a cluster that two threads share
    int n_threads;
    float *centroid; // [k, d]
    float *best;     // [k, d] of the best restart so far; NULL with one restart
    float *size;     // [k] sizes as the splits see them
    double start_time;
} lloyd_t;

static void lloyd_reset(lloyd_t *t) {
    hirl_panels_reset(&t->panels);
    hirl_faiss_destroy(&t->index);
    hirl_device_lloyd_destroy(&t->device);
    hirl_mem_free(t->subset);
    hirl_mem_free(t->subset_row);
    hirl_mem_free(t->permutation);
    hirl_mem_free(t->assign);
    hirl_mem_free(t->order);
    hirl_mem_free(t->start);
    hirl_mem_free(t->sum);
    hirl_mem_free(t->edge);
    hirl_mem_free(t->centroid);
    hirl_mem_free(t->best);
    hirl_mem_free(t->size);
}

// Row i of those to train on, if it is on this rank; else NULL.
static const float *training_row(const lloyd_t *t, int64_t i) {
    const int64_t local = (t->subset_row ? t->subset_row[i] : i) - t->all.first;
    return local >= 0 && local < t->n_all_local ? t->x_all + local * t->d : NULL;
}

// ------------------------------------------------------------------------------------ preparation

// FAISS: above k * max_points_per_centroid rows, the first so many of a random permutation.
static hirl_status_t take_subset(lloyd_t *t) {
    const int64_t max = t->cfg->max_points_per_centroid;
    t->n = t->all.n;
    t->n_local = t->n_all_local;
    t->x = t->x_all;
    if (max == 0 || max > (t->all.n - 1) / t->k) return HIRL_OK;
    t->n = t->k * max;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, t->all.n, &t->subset_row));
    hirl_twister_permute(t->subset_row, t->all.n, t->n, t->cfg->seed);
    t->n_local = 0;
    for (int64_t i = 0; i < t->n; i++) t->n_local += training_row(t, i) != NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, t->n_local * t->d, &t->subset));
    int64_t at = 0;
    for (int64_t i = 0; i < t->n; i++) {
        const float *row = training_row(t, i);
        if (row) memcpy(t->subset + t->d * at++, row, (size_t)t->d * sizeof(*row));
    }
    t->x = t->subset;
    return HIRL_OK;
}

static void log_memory(const lloyd_t *t) {
    const double kd = (double)t->k * t->d,
                 subset = t->subset_row ? (double)t->n_local * t->d * 4 : 0;
    const double rows =
        (double)t->n_local * 8 + ((t->subset_row ? (double)t->all.n : 0) + (double)t->n) * 4;
    const double bytes = kd * 8 + kd * 4 * (t->best || t->cfg->n_redo > 1 ? 2 : 1) +
                         hirl_panels_bytes(t->k, t->d) + rows + subset;
    char text[32];
    hirl_log_root(t->cfg->is_verbose ? HIRL_LOG_INFO : HIRL_LOG_DEBUG,
                  "kmeans points = %lld columns = %d clusters = %lld memory_per_rank = %s",
                  (long long)t->n, t->d, (long long)t->k, hirl_text_bytes(text, bytes));
}

static hirl_status_t lloyd_init(lloyd_t *t) {
    const int64_t kd = t->k * t->d;
    t->n_threads = omp_get_max_threads();
    HIRL_TRY(take_subset(t));
    log_memory(t);
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, kd, &t->centroid));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, t->n, &t->permutation));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, kd + t->k + 1, &t->sum));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, t->k, &t->size));
    if (t->cfg->n_redo > 1) HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, kd, &t->best));
    t->scale = hirl_fixed_scale(t->n, t->all.max_abs);
    if (t->n == t->k) return HIRL_OK; // nothing to search for
    if (t->cfg->engine == HIRL_CLUSTER_FUSED && t->cfg->backend)
        return hirl_device_lloyd_create(t->cfg->backend, t->x, t->n_local, t->d, t->k, &t->device);
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, t->n_local, &t->assign));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, t->n_local, &t->order));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, t->k + 1, &t->start));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, (int64_t)t->n_threads * t->d, &t->edge));
    if (t->cfg->engine == HIRL_CLUSTER_FAISS) return hirl_faiss_create(t->d, false, &t->index);
    return hirl_panels_init(&t->panels, t->k, t->d, true, true);
}

// Centroid i becomes training row rows[i] (NULL: row i). One rank has it and the others add zero
// bits, as integers: a sum of floats could turn -0 into +0.
static hirl_status_t copy_rows(lloyd_t *t, const int32_t *rows) {
    memset(t->centroid, 0, (size_t)(t->k * t->d) * sizeof(float));
    for (int64_t i = 0; i < t->k; i++) {
        const float *row = training_row(t, rows ? rows[i] : i);
        if (row) memcpy(t->centroid + i * t->d, row, (size_t)t->d * sizeof(float));
    }
    return hirl_par_all_reduce(t->world, t->centroid, t->k * t->d, HIRL_PAR_I32, HIRL_PAR_SUM);
}

// ----------------------------------------------------------------------------------- one iteration

static hirl_status_t assign_rows(lloyd_t *t) {
    if (!t->index) {
        hirl_panels_pack(&t->panels, t->centroid, t->k);
        hirl_panels_nearest(&t->panels, t->x, t->n_local, t->assign);
        return HIRL_OK;
    }
    hirl_status_t mine = hirl_faiss_load(t->index, t->centroid, t->k);
    if (mine == HIRL_OK) mine = hirl_faiss_nearest(t->index, t->x, t->n_local, t->assign);
    return hirl_par_agree(t->world, mine);
}

// Counting sort of the rows by their clusters.
static void sort_rows(lloyd_t *t) {
    int64_t *start = t->start;
    memset(start, 0, (size_t)(t->k + 1) * sizeof(*start));
    for (int64_t i = 0; i < t->n_local; i++) start[t->assign[i] + 1]++;
    for (int64_t c = 0; c < t->k; c++) start[c + 1] += start[c];
    // Placing moves each start on to the next cluster's, so one shift restores them.
    for (int64_t i = 0; i < t->n_local; i++) t->order[start[t->assign[i]]++] = (int32_t)i;
    memmove(start + 1, start, (size_t)t->k * sizeof(*start));
    start[0] = 0;
}

// The cluster whose rows include position i of the order.
static int64_t cluster_at(const lloyd_t *t, int64_t i) {
    int64_t low = 0, high = t->k; // start[low] <= i < start[high]
    while (high - low > 1) {
        const int64_t mid = low + (high - low) / 2;
        if (t->start[mid] <= i)
            low = mid;
        else
            high = mid;
    }
    return low;
}

static void add_row(int64_t *HIRL_RESTRICT sum, const float *HIRL_RESTRICT x, int d, double scale) {
    for (int j = 0; j < d; j++) sum[j] += hirl_fixed_round((double)x[j] * scale);
}

// Rows come in the order of their clusters, that is from anywhere: ask for one some time before its
// turn.
static void prefetch_row(const lloyd_t *t, int64_t i) {
    enum { AHEAD = 6, LINE_ITEMS = 16 };
    if (i + AHEAD >= t->n_local) return;
    const float *x = t->x + (int64_t)t->order[i + AHEAD] * t->d;
    for (int j = 0; j < t->d; j += LINE_ITEMS) __builtin_prefetch(x + j);
}

// Sums of this rank's rows by cluster, and with a scale the sum of their squared distances. Each
// thread takes the same share of the sorted rows; a cluster that reaches beyond a share is added up
// by the threads in turn, in any order.
static int64_t add_rows(lloyd_t *t, double objective_scale) {
    const int d = t->d;
    int64_t objective = 0;
    memset(t->sum, 0, (size_t)(t->k * d) * sizeof(*t->sum));
#pragma omp parallel num_threads(t->n_threads) reduction(+ : objective)
    {
        const int thread = omp_get_thread_num(), n_threads = omp_get_num_threads();
        const int64_t end = t->n_local * (thread + 1) / n_threads;
        int64_t i = t->n_local * thread / n_threads;
        int64_t c = i < end ? cluster_at(t, i) : 0;
        for (; i < end; c++) {
            const int64_t run_end = t->start[c + 1] < end ? t->start[c + 1] : end;
            if (run_end <= i) continue; // an empty cluster
            const bool is_whole = i == t->start[c] && run_end == t->start[c + 1];
            int64_t *sum = is_whole ? t->sum + c * d : t->edge + (int64_t)thread * d;
            if (!is_whole) memset(sum, 0, (size_t)d * sizeof(*sum));
            for (; i < run_end; i++) {
                const float *x = t->x + (int64_t)t->order[i] * d;
                prefetch_row(t, i);
                add_row(sum, x, d, t->scale);
                if (objective_scale > 0)
                    objective += hirl_fixed_round(hirl_row_distance_sq(x, t->centroid + c * d, d) *
                                                  objective_scale);
            }
            if (!is_whole) {
#pragma omp critical(hirl_kmeans_edge)
                for (int j = 0; j < d; j++) t->sum[c * d + j] += sum[j];
            }
        }
    }
    return objective;
}

// Sums, counts and the objective of this rank's rows at the nearest of the present centroids.
static hirl_status_t sum_clusters(lloyd_t *t, double objective_scale) {
    if (t->device)
        return hirl_par_agree(t->world, hirl_device_lloyd_run(t->device, t->centroid, t->scale,
                                                              objective_scale, t->sum));
    int64_t *const count = t->sum + t->k * t->d;
    HIRL_TRY(assign_rows(t));
    sort_rows(t);
    count[t->k] = add_rows(t, objective_scale);
    for (int64_t c = 0; c < t->k; c++) count[c] = t->start[c + 1] - t->start[c];
    return HIRL_OK;
}

static void average(lloyd_t *t) {
    const int64_t *count = t->sum + t->k * t->d;
#pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < t->k; c++) {
        const double unit = 1 / t->scale;
        for (int j = 0; j < t->d; j++)
            t->centroid[c * t->d + j] =
                count[c] ? (float)((double)t->sum[c * t->d + j] * unit / (double)count[c]) : 0;
    }
}

// FAISS's rule for clusters without rows: a donor is drawn with a chance that grows with its size,
// and the two share its rows and differ a little in every coordinate. Ends because some cluster has
// more than one row: n > k.
static int64_t split_clusters(lloyd_t *t) {
    const int64_t *count = t->sum + t->k * t->d;
    const int d = t->d;
    const float n_spare = (float)(t->n - t->k);
    int64_t n_splits = 0;
    hirl_twister_t twister;
    hirl_twister_init(&twister, SPLIT_SEED);
    for (int64_t c = 0; c < t->k; c++) t->size[c] = (float)count[c];
    for (int64_t c = 0; c < t->k; c++) {
        if (t->size[c] != 0) continue;
        int64_t donor = 0;
        while (!(hirl_twister_uniform(&twister) < (float)(((double)t->size[donor] - 1) / n_spare)))
            donor = (donor + 1) % t->k;
        float *to = t->centroid + c * d, *from = t->centroid + donor * d;
        for (int j = 0; j < d; j++) {
            const float sign = j % 2 == 0 ? 1 : -1, x = from[j];
            to[j] = x * (1 + sign * SPLIT_EPSILON);
            from[j] = x * (1 - sign * SPLIT_EPSILON);
        }
        t->size[c] = t->size[donor] / 2;
        t->size[donor] -= t->size[c];
        n_splits++;
    }
    return n_splits;
}

// Scale of the squared distances' sum: none exceeds the square of the largest norms' sum.
static double objective_scale_of(const lloyd_t *t) {
    double max_norm_sq = 0;
    for (int64_t c = 0; c < t->k; c++) {
        const double norm_sq = hirl_row_norm_sq(t->centroid + c * t->d, t->d);
        if (norm_sq > max_norm_sq) max_norm_sq = norm_sq;
    }
    const double reach = sqrt(max_norm_sq) + sqrt(t->all.max_norm_sq);
    return hirl_fixed_scale(t->n, reach * reach);
}

static void log_iteration(const lloyd_t *t, int redo, int iter, double objective,
                          int64_t n_splits) {
    const double spent = hirl_time_now() - t->start_time;
    const double done = (double)redo * t->cfg->n_iter + iter + 1;
    const double all = (double)t->cfg->n_redo * t->cfg->n_iter;
    char text[128], left[32];
    hirl_log_root(
        HIRL_LOG_INFO,
        "kmeans restart = %d/%d iteration = %d/%d objective = %.9g splits = %lld seconds = %.2f",
        redo + 1, t->cfg->n_redo, iter + 1, t->cfg->n_iter, objective, (long long)n_splits, spent);
    (void)hirl_text_format(text, sizeof(text), "kmeans %.0f/%.0f iterations, %s left", done, all,
                           hirl_text_duration(left, spent / done * (all - done)));
    hirl_log_progress(done < all ? text : NULL);
}

// One restart: its objective at the last assignment, and its splits.
static hirl_status_t run_restart(lloyd_t *t, int redo, double *objective_p, int64_t *n_splits_p) {
    const int64_t *const objective = t->sum + t->k * t->d + t->k;
    hirl_twister_permute(t->permutation, t->n, t->k,
                         t->cfg->seed + 1 + (int64_t)redo * REDO_SEED_STEP);
    HIRL_TRY(copy_rows(t, t->permutation));
    *n_splits_p = 0;
    for (int iter = 0; iter < t->cfg->n_iter; iter++) {
        hirl_fault_kill("cluster");
        const bool is_wanted = iter + 1 == t->cfg->n_iter || t->cfg->is_verbose;
        const double objective_scale = is_wanted ? objective_scale_of(t) : 0;
        HIRL_TRY(sum_clusters(t, objective_scale));
        HIRL_TRY(hirl_par_all_reduce(t->world, t->sum, t->k * t->d + t->k + 1, HIRL_PAR_I64,
                                     HIRL_PAR_SUM));
        average(t);
        const int64_t n_splits = split_clusters(t);
        *n_splits_p += n_splits;
        if (is_wanted) *objective_p = (double)*objective / objective_scale;
        if (t->cfg->is_verbose) log_iteration(t, redo, iter, *objective_p, n_splits);
    }
    return HIRL_OK;
}

static hirl_status_t run_restarts(lloyd_t *t, hirl_kmeans_result_t *result_p) {
    hirl_kmeans_result_t best = {.objective = INFINITY};
    for (int redo = 0; redo < t->cfg->n_redo; redo++) {
        hirl_kmeans_result_t r = {.best_redo = redo};
        HIRL_TRY(run_restart(t, redo, &r.objective, &r.n_splits));
        if (!(r.objective < best.objective)) continue;
        best = r;
        if (t->best) memcpy(t->best, t->centroid, (size_t)(t->k * t->d) * sizeof(float));
    }
    *result_p = best;
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------ entry points

static hirl_status_t check_rows_args(const float *x, int64_t n_local, int d, const char *what) {
    HIRL_REQUIRE(n_local >= 0 && n_local < INT32_MAX, HIRL_ERR_ARG,
                 "%lld %ss on this rank, want 0 to %d", (long long)n_local, what, INT32_MAX - 1);
    HIRL_REQUIRE(d >= 1, HIRL_ERR_ARG, "%ss of %d columns, want at least 1", what, d);
    HIRL_REQUIRE(x || n_local == 0, HIRL_ERR_ARG, "%lld %ss but no memory with them",
                 (long long)n_local, what);
    return HIRL_OK;
}

static hirl_status_t check_train_args(const float *x, int64_t n_local, int d,
                                      const hirl_kmeans_cfg_t *cfg, const float *centroids,
                                      const hirl_kmeans_result_t *result) {
    HIRL_REQUIRE(cfg && centroids && result, HIRL_ERR_ARG,
                 "cfg, centroids and result_p must not be NULL");
    HIRL_TRY(check_rows_args(x, n_local, d, "row"));
    HIRL_REQUIRE(cfg->k >= 1 && cfg->k < INT32_MAX, HIRL_ERR_ARG, "%lld clusters, want 1 to %d",
                 (long long)cfg->k, INT32_MAX - 1);
    HIRL_REQUIRE(cfg->n_iter >= 1, HIRL_ERR_ARG, "%d iterations of K-means, want at least 1",
                 cfg->n_iter);
    HIRL_REQUIRE(cfg->n_redo >= 1, HIRL_ERR_ARG, "%d restarts of K-means, want at least 1",
                 cfg->n_redo);
    HIRL_REQUIRE(cfg->max_points_per_centroid >= 0 && cfg->min_points_per_centroid >= 0,
                 HIRL_ERR_ARG,
                 "points per centroid: at most %lld, at least %lld; want numbers >= 0",
                 (long long)cfg->max_points_per_centroid, (long long)cfg->min_points_per_centroid);
    HIRL_REQUIRE(cfg->engine == HIRL_CLUSTER_FUSED || cfg->engine == HIRL_CLUSTER_FAISS,
                 HIRL_ERR_ARG, "engine %d of K-means is unknown", (int)cfg->engine);
    return HIRL_OK;
}

hirl_status_t hirl_kmeans_train(hirl_world_t *world, const float *x, int64_t n_local, int d,
                                const hirl_kmeans_cfg_t *cfg, float *centroids,
                                hirl_kmeans_result_t *result_p) {
    HIRL_REQUIRE(world, HIRL_ERR_ARG, "there is no world");
    lloyd_t t = {.world = world, .cfg = cfg, .d = d, .x_all = x, .n_all_local = n_local};
    hirl_status_t status = check_train_args(x, n_local, d, cfg, centroids, result_p);
    HIRL_TRY(hirl_rows_check(world, status, "row", x, n_local, d, false, &t.all));
    static const char *const names[] = {"columns",  "clusters",  "iterations",
                                        "restarts", "seed",      "max_points_per_centroid",
                                        "engine",   "is_verbose"};
    const int64_t values[] = {d,           cfg->k,         cfg->n_iter,
                              cfg->n_redo, cfg->seed,      cfg->max_points_per_centroid,
                              cfg->engine, cfg->is_verbose};
    HIRL_TRY(hirl_same_on_all_ranks(world, sizeof(values) / sizeof(*values), names, values));
    t.k = cfg->k;
    HIRL_REQUIRE(t.all.n >= t.k, HIRL_ERR_ARG,
                 "K-means of %lld rows into %lld clusters: want at least as many rows as clusters",
                 (long long)t.all.n, (long long)t.k);
    HIRL_REQUIRE(t.all.n < INT32_MAX, HIRL_ERR_UNSUPPORTED,
                 "K-means of %lld rows, want fewer than %d", (long long)t.all.n, INT32_MAX);
    HIRL_REQUIRE(t.k <= INT64_MAX / 16 / d, HIRL_ERR_ARG,
                 "%lld clusters of %d columns are too large", (long long)t.k, d);

    hirl_kmeans_result_t result = {0};
    t.start_time = hirl_time_now();
    HIRL_TRY_GOTO(hirl_par_agree(world, lloyd_init(&t)), status, end);
    if (cfg->min_points_per_centroid > t.n / t.k)
        hirl_log_root(HIRL_LOG_WARN,
                      "K-means of %lld points into %lld clusters: want at least %lld points each",
                      (long long)t.n, (long long)t.k, (long long)cfg->min_points_per_centroid);
    if (t.n == t.k) {
        // FAISS: as many points as clusters are the centroids, in the order given, subset or not.
        hirl_mem_free(t.subset_row);
        t.subset_row = NULL;
        HIRL_TRY_GOTO(copy_rows(&t, NULL), status, end);
    } else {
        HIRL_TRY_GOTO(run_restarts(&t, &result), status, end);
    }
    memcpy(centroids, t.best && t.n > t.k ? t.best : t.centroid, (size_t)(t.k * d) * sizeof(float));
    *result_p = result;
end:
    lloyd_reset(&t);
    return status;
}

hirl_status_t hirl_kmeans_assign(hirl_world_t *world, hirl_backend_t *be, const float *x,
                                 int64_t n_local, int d, const float *centroids, int64_t k,
                                 int32_t *assign, float *distance) {
    HIRL_REQUIRE(world, HIRL_ERR_ARG, "there is no world");
    hirl_rows_info_t info;
    hirl_panels_t panels = {0};
    hirl_status_t status = check_rows_args(x, n_local, d, "row");
    if (status == HIRL_OK && !(centroids && k >= 1 && k < INT32_MAX && (assign || n_local == 0)))
        status =
            HIRL_FAIL(HIRL_ERR_ARG, "assignment to %lld centroids (want 1 to %d) or NULL arguments",
                      (long long)k, INT32_MAX - 1);
    if (status == HIRL_OK) status = hirl_rows_check_same("centroid", centroids, k, d);
    HIRL_TRY(hirl_rows_check(world, status, "row", x, n_local, d, false, &info));
    HIRL_TRY(hirl_par_agree(world, be ? hirl_device_assign(be, x, n_local, d, centroids, k, assign)
                                      : hirl_panels_init(&panels, k, d, true, true)));
    if (!be) {
        hirl_panels_pack(&panels, centroids, k);
        hirl_panels_nearest(&panels, x, n_local, assign);
        hirl_panels_reset(&panels);
    }
    if (distance) {
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < n_local; i++)
            distance[i] =
                (float)hirl_row_distance_sq(x + i * d, centroids + (int64_t)assign[i] * d, d);
    }
    return HIRL_OK;
}
