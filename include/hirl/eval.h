/// @file eval.h
/// Feature extraction over a data set and the evaluation protocols that use it. Collective over the tape's world.
#ifndef HIRL_EVAL_H
#define HIRL_EVAL_H

#include "hirl/ssl.h"

#ifdef __cplusplus
extern "C" {
#endif

/// What extraction needs beside the data set (all HIRL_BORROW).
typedef struct hirl_eval_ctx {
    hirl_world_t *world;
    hirl_tape_t *tape;
    const hirl_method_t *method;
    const hirl_data_cfg_t *data;
    const hirl_views_cfg_t *views;
    hirl_clip_spec_t clip; // n_frames = 0: images
    int64_t batch;         // images or clips per rank and forward pass
} hirl_eval_ctx_t;

/// Embeddings and labels of this rank's contiguous part of the set, in order: x f32 [n_local, d], label i32 [n_local] (label_p may be NULL).
/// The caller frees both with hirl_mem_free. Progress is shown as `what`.
hirl_status_t hirl_eval_extract(const hirl_eval_ctx_t *ctx, const hirl_shard_set_t *set,
                                hirl_embed_kind_t kind, const char *what, float **x_p,
                                int32_t **label_p, int64_t *n_local_p, int *d_p);

typedef struct hirl_knn_result {
    int n_k;
    int64_t k[HIRL_DECK_LIST_MAX];
    double top1[HIRL_DECK_LIST_MAX], top5[HIRL_DECK_LIST_MAX]; // percent
    double extract_seconds, search_seconds;
    int64_t n_bank, n_query;
    int d;
} hirl_knn_result_t;

/// Weighted KNN of the queries' features in the bank's (Wu et al. 2018). The same result on all ranks.
hirl_status_t hirl_eval_knn(const hirl_eval_ctx_t *ctx, const hirl_shard_set_t *bank,
                            const hirl_shard_set_t *query, const hirl_knn_cfg_t *cfg,
                            hirl_knn_result_t *result_p);

/// The same on raw pixels: evaluation transform, scaled to [0, 1], not normalised, flattened.
hirl_status_t hirl_eval_knn_pixels(const hirl_eval_ctx_t *ctx, const hirl_shard_set_t *bank,
                                   const hirl_shard_set_t *query, const hirl_knn_cfg_t *cfg,
                                   hirl_knn_result_t *result_p);

#ifdef __cplusplus
}
#endif
#endif
