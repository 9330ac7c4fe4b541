/// @file cluster.h
/// Distributed hierarchical K-means and weighted KNN on FAISS's C API. Works on host f32 rows; each rank keeps the rows of its own
/// contiguous part of the data, in global order (rank 0's rows first). All functions are collective over `world`.
#ifndef HIRL_CLUSTER_H
#define HIRL_CLUSTER_H

#include "hirl/deck.h"
#include "hirl/par.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HIRL_MAX_LEVELS = 8 };

/// K-means settings; the defaults of spec are FAISS's.
typedef struct hirl_kmeans_cfg {
    int64_t k;
    int n_iter;    // Lloyd iterations of a restart
    int n_redo;    // restarts; the one with the lowest objective is kept
    int64_t seed;  // as FAISS's ClusteringParameters::seed
    int64_t max_points_per_centroid; // more points: a random subset is used, FAISS's choice; 0: no limit
    int64_t min_points_per_centroid; // fewer: a warning
    bool is_verbose; // log the objective per iteration and progress with ETA
} hirl_kmeans_cfg_t;

typedef struct hirl_kmeans_result {
    double objective;     // sum of squared distances at the last assignment of the best restart
    int best_redo;
    int64_t n_splits;     // empty clusters split in the best restart
} hirl_kmeans_result_t;

/// K-means of the rows x [n_local, d] of all ranks. centroids [k, d] are means (not unit norm), the same bits on all ranks and for any number of ranks:
/// sums are fixed-point. One rank reproduces faiss_Clustering_train (initialisation, empty-cluster split, restart rule).
/// Errors: HIRL_ERR_ARG (k > n, k < 1), HIRL_ERR_NUMERIC (NaN or Inf: global row and column).
hirl_status_t hirl_kmeans_train(hirl_world_t *world, const float *x, int64_t n_local, int d, const hirl_kmeans_cfg_t *cfg,
                                float *centroids, hirl_kmeans_result_t *result_p);

/// Nearest centroid (squared L2; lowest index on ties) of each local row. distance may be NULL.
hirl_status_t hirl_kmeans_assign(hirl_world_t *world, const float *x, int64_t n_local, int d, const float *centroids, int64_t k,
                                 int32_t *assign, float *distance);

/// A hierarchical clustering of the N rows of all ranks, on every rank; assignments sit once per node in shared memory.
typedef struct hirl_hierarchy {
    int n_levels;
    int d;
    int64_t n;                           // rows of all ranks
    int64_t k[HIRL_MAX_LEVELS];
    float *centroid[HIRL_MAX_LEVELS];    // C_l [k_l, d], unit norm
    const int32_t *assign[HIRL_MAX_LEVELS]; // a_l [n]: cluster of every row
    int32_t *parent[HIRL_MAX_LEVELS];    // p_l [k_l], l < n_levels - 1
    float *density[HIRL_MAX_LEVELS];     // phi_l [k_l] (spec/hirl.md 3.3), computed when asked for, else NULL
    double objective[HIRL_MAX_LEVELS];
    hirl_par_shared_t *shared;           // owns assign
} hirl_hierarchy_t;

typedef struct hirl_hierarchy_cfg {
    int n_levels;
    int64_t k[HIRL_MAX_LEVELS];
    int n_iter, n_redo;
    int64_t max_points_per_centroid, min_points_per_centroid;
    double density_temperature; // > 0: density is computed with this T
    bool is_verbose;
} hirl_hierarchy_cfg_t;

/// L2-normalises x in place ([n_local, d]) and clusters it as HIRL does (HIRL paper, section 3; spec/hirl.md 3): level 0 on the rows, level l on the
/// unit-norm centroids of level l-1, seed = l. Memory needed is logged before it is allocated. Progress is logged.
/// Errors: HIRL_ERR_NUMERIC (NaN, Inf, zero norm: which row), HIRL_ERR_ARG (k_l > points of that level).
hirl_status_t hirl_hierarchy_create(hirl_world_t *world, float *x, int64_t n_local, int d, const hirl_hierarchy_cfg_t *cfg,
                                    hirl_hierarchy_t **hierarchy_p);
/// An empty hierarchy of these sizes (assign writable through hirl_hierarchy_assign_of on node rank 0), for restarts and the probe.
hirl_status_t hirl_hierarchy_create_empty(hirl_world_t *world, int n_levels, const int64_t *k, int d, int64_t n, hirl_hierarchy_t **hierarchy_p);
/// Writable assignments of level l, to be filled on node rank 0 only and followed by hirl_par_shared_sync(hierarchy->shared).
int32_t *hirl_hierarchy_assign_of(hirl_hierarchy_t *hierarchy, int level);
void hirl_hierarchy_destroy(hirl_hierarchy_t **hierarchy);

// ---------------------------------------------------------------------------------------------- KNN

/// &knn
typedef struct hirl_knn_cfg {
    int64_t k[HIRL_DECK_LIST_MAX]; // neighbours
    int n_k;
    double temperature;    // 0.07
    double every_epochs;   // online evaluation during pre-training; 0: off
    int64_t query_chunk;   // queries sent round at once
} hirl_knn_cfg_t;
extern const hirl_group_t hirl_knn_group;

/// Exact top-k by inner product: bank rows of all ranks against the local queries. Each rank indexes its bank part; queries stream through all; lists are merged.
/// score, index: [n_query_local, k], best first, index = global bank row (lower index first on ties).
/// Errors: HIRL_ERR_ARG (k > bank rows), HIRL_ERR_NUMERIC.
hirl_status_t hirl_knn_search(hirl_world_t *world, const float *bank, int64_t n_bank_local, const float *query, int64_t n_query_local, int d,
                              int k, int64_t query_chunk, float *score, int64_t *index);

/// Weighted KNN classification (Wu et al. 2018; spec/hirl.md 13): rows are L2-normalised copies; votes exp(s / temperature).
/// top1, top5: [n_k] percentages over all queries, the same on all ranks. Labels < 0 are an error.
/// Errors: as search; HIRL_ERR_ARG (k larger than the bank, labels missing).
hirl_status_t hirl_knn_classify(hirl_world_t *world, const float *bank, const int32_t *bank_label, int64_t n_bank_local, const float *query,
                                const int32_t *query_label, int64_t n_query_local, int d, int n_classes, const hirl_knn_cfg_t *cfg,
                                double *top1, double *top5);

#ifdef __cplusplus
}
#endif
#endif
