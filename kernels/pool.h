/// @file pool.h
/// Launchers of pooling. Images are [n, h, w, c]; sizes of axes are below 2^31, and so is h * w.
#ifndef HIRL_KERNELS_POOL_H
#define HIRL_KERNELS_POOL_H

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Windows of `kernel` squared, at most half of it padding; x [n, h, w, c], y [n, h_out, w_out, c].
typedef struct hirl_k_pool {
    int64_t n;
    int h, w, c, h_out, w_out;
    int kernel, stride, pad;
} hirl_k_pool_t;

/// y = maximum of each window; padding never wins. winner [n, h_out, w_out, c], if not NULL: where in its image it was, row * w +
/// column: the first among equals, and a NaN only if it comes first.
cudaError_t hirl_k_max_pool(cudaStream_t stream, const hirl_k_pool_t *pool, const void *x,
                            int dtype, void *y, int32_t *winner);
/// dx = sum of dy over the windows that x won, in their order.
cudaError_t hirl_k_max_pool_backward(cudaStream_t stream, const hirl_k_pool_t *pool, const void *dy,
                                     int dtype, const int32_t *winner, void *dx);
/// y [n, c] = mean over the pixels of x [n, n_pixels, c].
cudaError_t hirl_k_global_avg_pool(cudaStream_t stream, const void *x, int dtype, int64_t n,
                                   int64_t n_pixels, int64_t c, float *y);
/// dx [n, n_pixels, c] = dy [n, c] / n_pixels.
cudaError_t hirl_k_global_avg_pool_backward(cudaStream_t stream, const float *dy, int64_t n,
                                            int64_t n_pixels, int64_t c, void *dx, int dtype);

#ifdef __cplusplus
}
#endif
#endif
