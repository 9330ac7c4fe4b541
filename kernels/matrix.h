/// @file matrix.h
/// Launchers around matrix products and convolutions: weights to the product's dtype and layout and back, biases, epilogues.
#ifndef HIRL_KERNELS_MATRIX_H
#define HIRL_KERNELS_MATRIX_H

#include "elementwise.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/// w f32 [n_out, n_in, n_taps] -> packed [n_out, n_taps, n_in] of `dtype`; n_taps = kH kW.
cudaError_t hirl_k_conv_weights_pack(cudaStream_t stream, const float *w, int64_t n_out,
                                     int64_t n_in, int64_t n_taps, void *packed, int dtype);
/// dw (+)= packed, the other way. Both serve images too: n_out of them, n_in channels, n_taps pixels.
cudaError_t hirl_k_conv_weights_unpack(cudaStream_t stream, const void *packed, int dtype,
                                       int64_t n_out, int64_t n_in, int64_t n_taps, bool accumulate,
                                       float *dw);
/// y [n_rows, n_columns] += bias [n_columns], in place.
cudaError_t hirl_k_bias_add(cudaStream_t stream, const float *bias, int64_t n_rows,
                            int64_t n_columns, void *y, int dtype);
/// y = act(x + bias), act of hirl_k_act_t, all [n_rows, n_columns] of `dtype`; bias may be NULL; `pre`, if not NULL, receives
/// x + bias. y or pre may be x.
cudaError_t hirl_k_linear_epilogue(cudaStream_t stream, const void *x, const float *bias, int act,
                                   int dtype, int64_t n_rows, int64_t n_columns, void *y,
                                   void *pre);
/// sums [n_columns] (+)= sums over the rows of x [n_rows, n_columns]. `scratch`: that many bytes, aligned to 16.
size_t hirl_k_column_sums_scratch(int64_t n_rows, int64_t n_columns);
cudaError_t hirl_k_column_sums(cudaStream_t stream, const void *x, int dtype, int64_t n_rows,
                               int64_t n_columns, void *scratch, bool accumulate, float *sums);

#ifdef __cplusplus
}
#endif
#endif
