/// @file random.h
/// Launchers of dropout and drop path. Both draw the numbers that hirl/base.h defines, from what lies on the device.
#ifndef HIRL_KERNELS_RANDOM_H
#define HIRL_KERNELS_RANDOM_H

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hirl_k_drop {
    uint32_t threshold; // numbers below are dropped
    uint32_t site, purpose;
    float scale;            // of what is kept
    const int64_t *counter; // [2]: seed, step
    const int64_t *index;   // [n_samples]
} hirl_k_drop_t;

/// x, y [n_samples, size]. y = scale x where number i of the sample's stream keeps element i, else 0. y may be x. size <= 2^34.
cudaError_t hirl_k_dropout(cudaStream_t stream, const hirl_k_drop_t *drop, const void *x, int dtype,
                           int64_t n_samples, int64_t size, void *y);
/// y = scale x + residual (fused) for samples that number 0 of their stream keeps, else residual; residual NULL: 0. y may be either.
cudaError_t hirl_k_drop_path(cudaStream_t stream, const hirl_k_drop_t *drop, const void *x,
                             const void *residual, int dtype, int64_t n_samples, int64_t size,
                             void *y);

#ifdef __cplusplus
}
#endif
#endif
