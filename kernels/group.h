/// @file group.h
/// Launchers for statistics of batch-norm groups: some kB each, of which the launch is the cost.
#ifndef HIRL_KERNELS_GROUP_H
#define HIRL_KERNELS_GROUP_H

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/// parts [n_parts, 2, n_channels]: means and variances of equal parts; mean, var [n_channels] of the whole.
cudaError_t hirl_k_bn_combine(cudaStream_t stream, const float *parts, int64_t n_parts,
                              int64_t n_channels, float *mean, float *var);
/// y [n_columns] = keep y + scale * sums over the rows of x, in their order; keep = 0 overwrites y.
cudaError_t hirl_k_fold_rows(cudaStream_t stream, float scale, const float *x, int64_t n_rows,
                             int64_t n_columns, float keep, float *y);

#ifdef __cplusplus
}
#endif
#endif
