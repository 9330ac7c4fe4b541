/// Parameter updates. Floors in bytes per parameter: sgd 20 (reads g, v, p; writes v, p), adamw 28 (reads g, m, v, p; writes m, v, p),
/// ema 12, sum of squares 4. All state is f32, and a parameter's update is a few fused multiply-adds, a root and a division.
#include "optim.h"

#include "map.h"

using namespace hirl_k;

namespace {

struct sgd_op {
    enum { n_inputs = 3 };
    float lr, momentum, weight_decay;
    bool is_nesterov;
    const float *g;
    float *v, *p;
    template <int N> __device__ void read(int64_t at, float (&in)[3][N]) const {
        load_items(g + at, in[0]);
        load_items(v + at, in[1]);
        load_items(p + at, in[2]);
    }
    template <int N> __device__ void write(int64_t at, const float (&in)[3][N]) const {
        float speed[N], out[N];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const float slope = in[0][i] + weight_decay * in[2][i];
            speed[i] = momentum * in[1][i] + slope;
            out[i] = in[2][i] - lr * (is_nesterov ? slope + momentum * speed[i] : speed[i]);
        }
        store_items(v + at, speed);
        store_items(p + at, out);
    }
};

struct adamw_op {
    enum { n_inputs = 4 };
    hirl_k_adamw_t c;
    const float *g;
    float *m, *v, *p;
    template <int N> __device__ void read(int64_t at, float (&in)[4][N]) const {
        load_items(g + at, in[0]);
        load_items(m + at, in[1]);
        load_items(v + at, in[2]);
        load_items(p + at, in[3]);
    }
    template <int N> __device__ void write(int64_t at, const float (&in)[4][N]) const {
        float first[N], second[N], out[N];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            first[i] = c.beta1 * in[1][i] + c.rest1 * in[0][i];
            second[i] = c.beta2 * in[2][i] + c.rest2 * (in[0][i] * in[0][i]);
            // p - decay p in one rounding: 1 - decay would keep few bits of a small decay.
            out[i] = fmaf(-c.decay, in[3][i], in[3][i]) -
                     c.rate * first[i] / (sqrtf(second[i]) * c.root + c.eps);
        }
        store_items(m + at, first);
        store_items(v + at, second);
        store_items(p + at, out);
    }
};

struct ema_op {
    enum { n_inputs = 2 };
    float keep, rest;
    const float *x;
    float *y;
    template <int N> __device__ void read(int64_t at, float (&v)[2][N]) const {
        load_items(x + at, v[0]);
        load_items(y + at, v[1]);
    }
    template <int N> __device__ void write(int64_t at, const float (&v)[2][N]) const {
        float out[N];
#pragma unroll
        // With x = y this is y again: keep + rest is 1, and what rounding rest x leaves is far below half a unit.
        for (int i = 0; i < N; ++i) out[i] = fmaf(keep, v[1][i], rest * v[0][i]);
        store_items(y + at, out);
    }
};

// ---------------------------------------------------------------------------------------------- sum of squares

enum { THREADS = 256, MOST_PARTS = 1024, TURN = 4 * 4 * THREADS };

/// Depends on n alone, so the sum does not depend on the card.
int64_t n_parts(int64_t n) {
    const int64_t parts = (n + TURN - 1) / TURN, most = MOST_PARTS;
    return parts < 1 ? 1 : parts < most ? parts : most;
}

/// A thread takes the same elements in the same order whether they come in packs or one by one.
template <bool is_packed_> __global__ void sum_parts(const float *x, int64_t n, double *part) {
    __shared__ double scratch[33];
    double sum[4] = {0, 0, 0, 0};
    const int64_t n_groups = n / 4, stride = (int64_t)gridDim.x * THREADS;
#pragma unroll 4
    for (int64_t u = (int64_t)blockIdx.x * THREADS + threadIdx.x; u < n_groups; u += stride) {
        float v[4];
        if (is_packed_) {
            load_items(x + 4 * u, v);
        } else {
            for (int j = 0; j < 4; ++j) v[j] = x[4 * u + j];
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[j] += (double)v[j] * (double)v[j];
    }
    if (blockIdx.x == 0 && 4 * n_groups + threadIdx.x < n) {
        const double v = (double)x[4 * n_groups + threadIdx.x];
        sum[0] += v * v;
    }
    const double total = block_sum((sum[0] + sum[1]) + (sum[2] + sum[3]), scratch);
    if (threadIdx.x == 0) part[blockIdx.x] = total;
}

__global__ void sum_of_parts(const double *part, int n, double *sum) {
    __shared__ double scratch[33];
    double mine = 0;
    for (int i = (int)threadIdx.x; i < n; i += THREADS) mine += part[i];
    mine = block_sum(mine, scratch);
    if (threadIdx.x == 0) *sum = mine;
}

} // namespace

cudaError_t hirl_k_sgd(cudaStream_t stream, float lr, float momentum, float weight_decay,
                       bool is_nesterov, const float *g, int64_t n, float *v, float *p) {
    const sgd_op f = {lr, momentum, weight_decay, is_nesterov, g, v, p};
    return map<4>(stream, f, n, true, g, v, p);
}

cudaError_t hirl_k_adamw(cudaStream_t stream, const hirl_k_adamw_t *param, const float *g,
                         int64_t n, float *m, float *v, float *p) {
    const adamw_op f = {*param, g, m, v, p};
    return map<4>(stream, f, n, true, g, m, v, p);
}

cudaError_t hirl_k_ema(cudaStream_t stream, float keep, float rest, const float *x, int64_t n,
                       float *y) {
    const ema_op f = {keep, rest, x, y};
    return map<4>(stream, f, n, true, x, y);
}

size_t hirl_k_sum_squares_scratch(int64_t n) { return (size_t)n_parts(n) * sizeof(double); }

cudaError_t hirl_k_sum_squares(cudaStream_t stream, const float *x, int64_t n, void *scratch,
                               double *sum) {
    const int64_t parts = n_parts(n);
    double *part = (double *)scratch;
    if (is_packed(x))
        HIRL_LAUNCH((sum_parts<true>), (unsigned)parts, THREADS, 0, stream, x, n, part);
    else
        HIRL_LAUNCH((sum_parts<false>), (unsigned)parts, THREADS, 0, stream, x, n, part);
    HIRL_LAUNCH(sum_of_parts, 1, THREADS, 0, stream, (const double *)part, (int)parts, sum);
    return hirl_k_end(stream);
}
