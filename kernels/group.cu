/// Statistics of batch-norm groups, a thread per channel: at most some hundred rows of some thousand channels, so that the launch costs
/// more than the bytes.
#include "group.h"

#include "device.h"

enum { THREADS = 128 };

static __global__ void bn_combine(const float *parts, int64_t n_parts, int64_t n_channels,
                                  float *mean, float *var) {
    const int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= n_channels) return;
    double m = 0, v = 0;
    for (int64_t p = 0; p < n_parts; ++p) m += parts[2 * p * n_channels + c];
    m /= (double)n_parts;
    for (int64_t p = 0; p < n_parts; ++p) {
        const double d = parts[2 * p * n_channels + c] - m;
        v += parts[(2 * p + 1) * n_channels + c] + d * d;
    }
    mean[c] = (float)m;
    var[c] = (float)(v / (double)n_parts);
}

static __global__ void fold_rows(float scale, const float *x, int64_t n_rows, int64_t n_columns,
                                 float keep, float *y) {
    const int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= n_columns) return;
    float sum = keep != 0 ? keep * y[c] : 0;
    for (int64_t r = 0; r < n_rows; ++r) sum += scale * x[r * n_columns + c];
    y[c] = sum;
}

cudaError_t hirl_k_bn_combine(cudaStream_t stream, const float *parts, int64_t n_parts,
                              int64_t n_channels, float *mean, float *var) {
    HIRL_LAUNCH(bn_combine, hirl_k_blocks(n_channels, THREADS, INT32_MAX), THREADS, 0, stream,
                parts, n_parts, n_channels, mean, var);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_fold_rows(cudaStream_t stream, float scale, const float *x, int64_t n_rows,
                             int64_t n_columns, float keep, float *y) {
    HIRL_LAUNCH(fold_rows, hirl_k_blocks(n_columns, THREADS, INT32_MAX), THREADS, 0, stream, scale,
                x, n_rows, n_columns, keep, y);
    return hirl_k_end(stream);
}
