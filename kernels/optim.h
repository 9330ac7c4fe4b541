/// @file optim.h
/// Launchers of parameter updates, in place, on f32 slabs of n elements, and of the sum of squares.
#ifndef HIRL_KERNELS_OPTIM_H
#define HIRL_KERNELS_OPTIM_H

#include "kernels.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/// g' = g + weight_decay p; v = momentum v + g'; p -= lr (is_nesterov ? g' + momentum v : v).
cudaError_t hirl_k_sgd(cudaStream_t stream, float lr, float momentum, float weight_decay,
                       bool is_nesterov, const float *g, int64_t n, float *v, float *p);
/// m = beta1 m + rest1 g; v = beta2 v + rest2 g^2; p = p - decay p - rate m / (sqrt(v) * root + eps). The caller makes, in double
/// and then rounded, rest = 1 - beta, decay = lr * weight decay, rate = lr / (1 - beta1^step), root = 1 / sqrt(1 - beta2^step).
typedef struct hirl_k_adamw {
    float beta1, rest1, beta2, rest2, decay, rate, root, eps;
} hirl_k_adamw_t;
cudaError_t hirl_k_adamw(cudaStream_t stream, const hirl_k_adamw_t *param, const float *g,
                         int64_t n, float *m, float *v, float *p);
/// y = keep y + rest x.
cudaError_t hirl_k_ema(cudaStream_t stream, float keep, float rest, const float *x, int64_t n,
                       float *y);
/// *sum = sum of x[i]^2, in double. `scratch`: that many bytes, aligned to 8.
size_t hirl_k_sum_squares_scratch(int64_t n);
cudaError_t hirl_k_sum_squares(cudaStream_t stream, const float *x, int64_t n, void *scratch,
                               double *sum);

#ifdef __cplusplus
}
#endif
#endif
