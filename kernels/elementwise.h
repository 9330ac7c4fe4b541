/// @file elementwise.h
/// Launchers of operations that do the same to each element. x1, x2, y ... hold n elements; an output may be one of the inputs.
#ifndef HIRL_KERNELS_ELEMENTWISE_H
#define HIRL_KERNELS_ELEMENTWISE_H

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum hirl_k_act {
    HIRL_K_ACT_NONE = 0,
    HIRL_K_ACT_RELU = 1,
    HIRL_K_ACT_GELU = 2
} hirl_k_act_t;

/// x[:] = value.
cudaError_t hirl_k_fill(cudaStream_t stream, float value, int64_t n, void *x, int dtype);
/// y = x, rounded to y's dtype.
cudaError_t hirl_k_cast(cudaStream_t stream, const void *x, int x_dtype, void *y, int y_dtype,
                        int64_t n);
/// y = a x + b y. b = 0 overwrites y, whatever it held.
cudaError_t hirl_k_axpby(cudaStream_t stream, float a, const void *x, int x_dtype, float b, void *y,
                         int y_dtype, int64_t n);
cudaError_t hirl_k_add(cudaStream_t stream, const void *x1, const void *x2, int dtype, int64_t n,
                       void *y);
cudaError_t hirl_k_mul(cudaStream_t stream, const void *x1, const void *x2, int dtype, int64_t n,
                       void *y);
/// y = act(x), act of hirl_k_act_t. ReLU keeps NaN. GELU with erf.
cudaError_t hirl_k_act(cudaStream_t stream, int act, const void *x, int dtype, int64_t n, void *y);
/// dx = act' dy, and 0 where act' is 0, whatever dy holds. `saved`: y of a ReLU, x of a GELU, else not read.
cudaError_t hirl_k_act_backward(cudaStream_t stream, int act, const void *saved, const void *dy,
                                int dtype, int64_t n, void *dx);

#ifdef __cplusplus
}
#endif
#endif
