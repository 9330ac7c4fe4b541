/// @file row.h
/// Operations along the rows of f32 matrices [n_rows, n_columns]: L2 normalisation, dot products, scaling, softmax.
#ifndef HIRL_KERNELS_ROW_H
#define HIRL_KERNELS_ROW_H

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/// norm = max(|x|, 1e-12); y = x / norm.
cudaError_t hirl_k_l2_normalize(cudaStream_t stream, const float *x, int64_t n_rows,
                                int64_t n_columns, float *y, float *norm);
/// dx = (dy - y <y, dy>) / norm, without the second term where the norm was clamped. dx may be dy.
cudaError_t hirl_k_l2_normalize_backward(cudaStream_t stream, const float *y, const float *norm,
                                         const float *dy, int64_t n_rows, int64_t n_columns,
                                         float *dx);

/// y [n_rows] = <x1, x2>.
cudaError_t hirl_k_row_dot(cudaStream_t stream, const float *x1, const float *x2, int64_t n_rows,
                           int64_t n_columns, float *y);

/// y = s [n_rows] x (+ y); x and y of `dtype`. y may be x.
cudaError_t hirl_k_row_scale(cudaStream_t stream, int dtype, const float *s, const void *x,
                             int64_t n_rows, int64_t n_columns, int accumulate, void *y);

/// y = softmax(scale x). y may be x.
cudaError_t hirl_k_softmax(cudaStream_t stream, const float *x, float scale, int64_t n_rows,
                           int64_t n_columns, float *y);
/// dx = scale y (dy - <y, dy>). dx may be dy.
cudaError_t hirl_k_softmax_backward(cudaStream_t stream, const float *y, const float *dy,
                                    float scale, int64_t n_rows, int64_t n_columns, float *dx);

#ifdef __cplusplus
}
#endif
#endif
