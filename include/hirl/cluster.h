/// @file cluster.h
/// Distributed hierarchical K-means and weighted KNN, after FAISS and with it. Works on host f32
/// rows; each rank keeps the rows of its own contiguous part of the data, in global order (rank 0's
/// rows first; a rank may have none). All functions are collective over `world` unless they say
/// otherwise, all ranks give the same settings, and a failure is the same on all ranks.
#ifndef HIRL_CLUSTER_H
#define HIRL_CLUSTER_H

#include "hirl/backend.h"
#include "hirl/deck.h"
#include "hirl/par.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HIRL_MAX_LEVELS = 8 };

/// What finds nearest rows. Zero is the default.
typedef enum hirl_cluster_engine {
    // Own matrix products with the comparison fused in: equal bits for all numbers of ranks and
    // threads.
    HIRL_CLUSTER_FUSED,
    // IndexFlat of FAISS's C API: slower, kept as the reference. Its rounding may change with the
    // number of rows on a rank. On the processor alone: the C API has FAISS's indexes for GPUs only
    // where FAISS itself was built with CUDA, and Debian's was not.
    HIRL_CLUSTER_FAISS
} hirl_cluster_engine_t;

/// Where the fused engine computes: on the backend that is given (HIRL_BORROW), or where that is
/// NULL on the processor, with the same bits. The rows go to its memory once in a call, or in
/// pieces for each pass where that has no room for all (a warning says so). This gives `be` if it
/// computes on a device, and NULL if the processor's own engine is the faster. Not collective.
hirl_backend_t *hirl_cluster_device_of(hirl_backend_t *be);

/// K-means settings, named as FAISS's.
typedef struct hirl_kmeans_cfg {
    int64_t k;
    int n_iter;   // Lloyd iterations of a restart
    int n_redo;   // restarts; the one with the lowest objective is kept
    int64_t seed; // as FAISS's ClusteringParameters::seed
    // More points: a random subset is used, the one that FAISS takes. 0: no limit.
    int64_t max_points_per_centroid;
    int64_t min_points_per_centroid; // fewer: a warning
    bool is_verbose;                 // log the objective per iteration and progress with ETA
    hirl_cluster_engine_t engine;
    hirl_backend_t *backend; // where the fused engine computes; NULL: the processor
} hirl_kmeans_cfg_t;

typedef struct hirl_kmeans_result {
    double objective; // sum of squared distances at the last assignment of the best restart
    int best_redo;
    int64_t n_splits; // empty clusters split in the best restart
} hirl_kmeans_result_t;

/// K-means of the rows x [n_local, d] of all ranks. centroids [k, d] are means (not unit norm), the
/// same bits on all ranks and for any number of ranks and threads: sums are fixed-point. Follows
/// faiss_Clustering_train (initial rows, subset, empty-cluster split, restart rule) to the rounding
/// of its single-precision sums and distances.
/// Errors: HIRL_ERR_ARG (k > n, k < 1), HIRL_ERR_NUMERIC (NaN, Inf or norms beyond 2^62: global row
/// and column).
hirl_status_t hirl_kmeans_train(hirl_world_t *world, const float *x, int64_t n_local, int d,
                                const hirl_kmeans_cfg_t *cfg, float *centroids,
                                hirl_kmeans_result_t *result_p);

/// Nearest centroid (squared L2; lowest index on ties) of each local row; the centroids are the
/// same on all ranks. be: as cfg.backend of train. distance: [n_local] squared distances, or NULL.
/// Errors: as train.
hirl_status_t hirl_kmeans_assign(hirl_world_t *world, hirl_backend_t *be, const float *x,
                                 int64_t n_local, int d, const float *centroids, int64_t k,
                                 int32_t *assign, float *distance);

/// A hierarchical clustering of the N rows of all ranks, on every rank; assignments sit once per
/// node in shared memory.
typedef struct hirl_hierarchy {
    int n_levels;
    int d;
    int64_t n; // rows of all ranks
    int64_t k[HIRL_MAX_LEVELS];
    float *centroid[HIRL_MAX_LEVELS];       // C_l [k_l, d], unit norm
    const int32_t *assign[HIRL_MAX_LEVELS]; // a_l [n]: cluster of every row
    int32_t *parent[HIRL_MAX_LEVELS];       // p_l [k_l], l < n_levels - 1
    float *density[HIRL_MAX_LEVELS]; // phi_l [k_l] (concentration), when asked for, else NULL
    double objective[HIRL_MAX_LEVELS];
    hirl_par_shared_t *shared; // owns assign
} hirl_hierarchy_t;

typedef struct hirl_hierarchy_cfg {
    int n_levels;
    int64_t k[HIRL_MAX_LEVELS];
    int n_iter, n_redo;
    int64_t max_points_per_centroid, min_points_per_centroid;
    double density_temperature; // > 0: density is computed with this T
    bool is_verbose;
    hirl_cluster_engine_t engine;
    hirl_backend_t *backend; // where the fused engine computes; NULL: the processor
} hirl_hierarchy_cfg_t;

/// L2-normalises x in place ([n_local, d]) and clusters it as HIRL does (Xu et al. 2022, section
/// 3): level 0 on the rows, level l on the unit-norm centroids of level l-1, seed = l; rows are
/// assigned by their distance to the centroids before those are normalised. Memory needed is logged
/// before it is allocated. Progress is logged.
/// Errors: HIRL_ERR_NUMERIC (NaN, Inf, zero norm: which row), HIRL_ERR_ARG (k_l > points of that
/// level).
hirl_status_t hirl_hierarchy_create(hirl_world_t *world, float *x, int64_t n_local, int d,
                                    const hirl_hierarchy_cfg_t *cfg,
                                    hirl_hierarchy_t **hierarchy_p);

/// An empty hierarchy of these sizes (assign writable through hirl_hierarchy_assign_of on node rank
/// 0), for restarts and the probe.
hirl_status_t hirl_hierarchy_create_empty(hirl_world_t *world, int n_levels, const int64_t *k,
                                          int d, int64_t n, hirl_hierarchy_t **hierarchy_p);

/// Writable assignments of level l, to be filled on node rank 0 only and followed by
/// hirl_par_shared_sync(hierarchy->shared). Not collective.
int32_t *hirl_hierarchy_assign_of(hirl_hierarchy_t *hierarchy, int level);
void hirl_hierarchy_destroy(hirl_hierarchy_t **hierarchy);

// --------------------------------------------------------------------------------------------- KNN

/// &knn
typedef struct hirl_knn_cfg {
    int64_t k[HIRL_DECK_LIST_MAX]; // neighbours
    int n_k;
    double temperature;              // 0.07
    double every_epochs;             // online evaluation during pre-training; 0: off
    int64_t query_chunk;             // queries (of all ranks together) sent round at once
    char engine[HIRL_DECK_TEXT_MAX]; // 'fused' (also ""), 'faiss'
} hirl_knn_cfg_t;
extern const hirl_group_t hirl_knn_group;

/// Exact top-k by inner product: bank rows of all ranks against the local queries. Each rank
/// searches its part of the bank, on `be` or, where that is NULL, on the processor; queries go round
/// all ranks, query_chunk of them at once; lists are merged.
/// score, index: [n_query_local, k], best first, index = global bank row (lower index first on
/// ties): the same bits for any number of ranks and threads.
/// Errors: HIRL_ERR_ARG (k > bank rows), HIRL_ERR_NUMERIC.
hirl_status_t hirl_knn_search(hirl_world_t *world, hirl_backend_t *be, const float *bank,
                              int64_t n_bank_local, const float *query, int64_t n_query_local,
                              int d, int k, int64_t query_chunk, float *score, int64_t *index);

/// Weighted KNN classification (Wu et al. 2018, section 3.4): rows are L2-normalised copies; votes
/// exp(s / temperature). A query's classes are ordered by votes, then number; it is a top-5 hit if
/// its own is among the first min(5, k) and has a vote.
/// be: as for the search; cfg.engine 'faiss' does without it.
/// top1, top5: [n_k] percentages over all queries, the same on all ranks.
/// Errors: as search; HIRL_ERR_NUMERIC (zero norm); HIRL_ERR_ARG (k larger than the bank, labels
/// missing or outside 0..n_classes-1).
hirl_status_t hirl_knn_classify(hirl_world_t *world, hirl_backend_t *be, const float *bank,
                                const int32_t *bank_label, int64_t n_bank_local, const float *query,
                                const int32_t *query_label, int64_t n_query_local, int d,
                                int n_classes, const hirl_knn_cfg_t *cfg, double *top1,
                                double *top5);

#ifdef __cplusplus
}
#endif
#endif
