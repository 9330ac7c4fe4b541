/// @file loss.h
/// Cross entropy, and the semantic path discrimination loss of HIRL (Xu et al. 2022, eq. 3-5); all f32. Indices are checked in the
/// kernels: what lies outside is recorded in `fault` and contributes nothing.
#ifndef HIRL_KERNELS_LOSS_H
#define HIRL_KERNELS_LOSS_H

#include "kernels.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Bytes of working memory that cross_entropy wants.
size_t hirl_k_cross_entropy_scratch(int64_t n_rows);

/// logits [n_rows, n_classes], target [n_rows]: loss [1], the mean over rows; lse [n_rows] of scale * logits; correct [1], may be NULL:
/// the fraction of rows whose largest logit, alone, is the target's.
cudaError_t hirl_k_cross_entropy(cudaStream_t stream, const float *logits, float scale,
                                 const int32_t *target, int64_t n_rows, int64_t n_classes,
                                 void *scratch, float *loss, float *lse, float *correct,
                                 hirl_k_fault_t *fault);

/// dlogits = dloss[0] scale / n_rows (softmax - onehot). dlogits may be logits.
cudaError_t hirl_k_cross_entropy_backward(cudaStream_t stream, const float *logits, float scale,
                                          const int32_t *target, const float *lse,
                                          const float *dloss, int64_t n_rows, int64_t n_classes,
                                          float *dlogits, hirl_k_fault_t *fault);

enum { HIRL_K_PATH_LEVELS = 8 };

/// similarity[l] [n_samples, n_nodes[l]]; positive [n_samples, n_levels]; negative [n_samples, n_negatives, n_levels].
typedef struct hirl_k_paths {
    int n_levels;
    int64_t n_samples, n_negatives;
    const float *similarity[HIRL_K_PATH_LEVELS];
    int64_t n_nodes[HIRL_K_PATH_LEVELS];
    const int32_t *positive, *negative;
} hirl_k_paths_t;

/// Bytes of working memory that path_loss wants.
size_t hirl_k_path_loss_scratch(int64_t n_samples);

/// loss [1]; terms [2], may be NULL: the positive and the negative half before the factor 1/2.
cudaError_t hirl_k_path_loss(cudaStream_t stream, const hirl_k_paths_t *paths, void *scratch,
                             float *loss, float *terms, hirl_k_fault_t *fault);

/// dsimilarity[l] = dloss[0] d loss / d similarity[l], all of it written.
cudaError_t hirl_k_path_loss_backward(cudaStream_t stream, const hirl_k_paths_t *paths,
                                      const float *dloss, float *const *dsimilarity,
                                      hirl_k_fault_t *fault);

#ifdef __cplusplus
}
#endif
#endif
