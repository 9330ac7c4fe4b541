/// @file norm.h
/// Batch norm and layer norm. x, y, dy, dx, residual: `dtype`; parameters, statistics and sums: f32.
/// Batch norm: x is [n_groups, n_rows, n_channels], a row being one pixel of one sample; statistics [n_groups, n_channels].
#ifndef HIRL_KERNELS_NORM_H
#define HIRL_KERNELS_NORM_H

#include "kernels.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Bytes of working memory that bn_stats and bn_backward_sums want.
size_t hirl_k_bn_scratch(int dtype, int64_t n_groups, int64_t n_rows, int64_t n_channels);

/// Mean and biased variance; reads x once.
cudaError_t hirl_k_bn_stats(cudaStream_t stream, int dtype, const void *x, int64_t n_groups,
                            int64_t n_rows, int64_t n_channels, void *scratch, float *mean,
                            float *var);

/// y = act( (x - mean) / sqrt(var + eps) * gamma + beta (+ residual) ). gamma, beta, residual may be NULL.
cudaError_t hirl_k_bn_apply(cudaStream_t stream, int dtype, const void *x, int64_t n_groups,
                            int64_t n_rows, int64_t n_channels, const float *mean, const float *var,
                            float eps, const float *gamma, const float *beta, const void *residual,
                            int has_relu, void *y);

/// Sums over rows of dz and of dz xhat; dz = dy where y > 0, or dy if y is NULL.
cudaError_t hirl_k_bn_backward_sums(cudaStream_t stream, int dtype, const void *dy, const void *y,
                                    const void *x, int64_t n_groups, int64_t n_rows,
                                    int64_t n_channels, const float *mean, const float *var,
                                    float eps, void *scratch, float *sum_dz, float *sum_dz_xhat);

/// dx = gamma / sqrt(var + eps) (dz - mean_dz - xhat mean_dz_xhat); dresidual = dz. gamma, dresidual, and mean_dz with mean_dz_xhat may
/// be NULL; dx may be dy.
cudaError_t hirl_k_bn_backward_apply(cudaStream_t stream, int dtype, const void *dy, const void *y,
                                     const void *x, int64_t n_groups, int64_t n_rows,
                                     int64_t n_channels, const float *mean, const float *var,
                                     float eps, const float *gamma, const float *mean_dz,
                                     const float *mean_dz_xhat, void *dx, void *dresidual);

/// Rows of n_columns: y = (x - mean) rstd gamma + beta; mean and rstd [n_rows] are outputs.
cudaError_t hirl_k_layer_norm(cudaStream_t stream, int dtype, const void *x, int64_t n_rows,
                              int64_t n_columns, const float *gamma, const float *beta, float eps,
                              void *y, float *mean, float *rstd);

/// Bytes of working memory that layer_norm_backward wants.
size_t hirl_k_layer_norm_scratch(int dtype, int64_t n_rows, int64_t n_columns);

/// `accumulate`: dgamma and dbeta are added to.
cudaError_t hirl_k_layer_norm_backward(cudaStream_t stream, int dtype, const void *dy,
                                       const void *x, int64_t n_rows, int64_t n_columns,
                                       const float *gamma, const float *mean, const float *rstd,
                                       int accumulate, void *scratch, void *dx, float *dgamma,
                                       float *dbeta);

#ifdef __cplusplus
}
#endif
#endif
