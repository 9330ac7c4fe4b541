/// @file gather.h
/// Launchers that move rows and columns of f32 matrices.
#ifndef HIRL_KERNELS_GATHER_H
#define HIRL_KERNELS_GATHER_H

#include "kernels.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/// y [n, n_columns] = rows index[0..n) of x [n_rows, n_columns]. Of an index out of range: zeros, and HIRL_K_FAULT_GATHER.
cudaError_t hirl_k_gather_rows(cudaStream_t stream, const float *x, int64_t n_rows,
                               int64_t n_columns, const int32_t *index, int64_t n,
                               hirl_k_fault_t *fault, float *y);
/// dx [n_rows, n_columns] (+)= dy [n, n_columns] by rows: dx[index[i]] += dy[i] in order of i, with the roundings of doing so one
/// by one. An index out of range adds nothing: HIRL_K_FAULT_SCATTER. n is below 2^31. `scratch`: that many bytes, aligned to 8.
size_t hirl_k_gather_rows_backward_scratch(int64_t n);
cudaError_t hirl_k_gather_rows_backward(cudaStream_t stream, const float *dy, int64_t n,
                                        int64_t n_columns, const int32_t *index, int64_t n_rows,
                                        bool accumulate, void *scratch, hirl_k_fault_t *fault,
                                        float *dx);
/// y [n_rows, n_first + n_second] = [x1 | x2].
cudaError_t hirl_k_concat_columns(cudaStream_t stream, const float *x1, int64_t n_first,
                                  const float *x2, int64_t n_second, int64_t n_rows, float *y);
/// The inverse; x1 or x2 may be NULL.
cudaError_t hirl_k_split_columns(cudaStream_t stream, const float *y, int64_t n_rows,
                                 int64_t n_first, int64_t n_second, float *x1, float *x2);

#ifdef __cplusplus
}
#endif
#endif
