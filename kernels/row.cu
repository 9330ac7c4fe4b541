/// Operations along rows. Memory-bound; bytes per element of x: l2_normalize 8, its backward 12, row_dot 8, row_scale 2e (+ e to add;
/// e = 4 for f32, 2 for bf16), softmax 8, its backward 12. Rows of up to 8192 columns stay in the registers of a warp or of a
/// block; longer ones are read again, softmax once (its maximum and its sum are found together), the others once too.
#include "row.h"
#include "row_device.h"

namespace hirl_k {

enum { SCALE_BLOCK = 256 };

static bool is_size(int64_t n_columns) { return n_columns > 0 && n_columns < (int64_t)1 << 30; }

// ---------------------------------------------------------------------------------------------- L2 normalisation

#define SMALLEST_NORM 1e-12f

template <int V, bool IS_PACKED, int ROW, int KEPT>
static __global__ void __launch_bounds__(row_block(ROW))
    l2_normalize_rows(const float *x, int64_t n_rows, int n, float *y, float *norm) {
    __shared__ float scratch[33];
    __shared__ double wide_scratch[33];
    const int64_t row = own_row<ROW>(n_rows);
    if (row < 0) return;
    row_part<float, ROW, V, IS_PACKED, KEPT> in(x + row * n, n);
    float sum = 0;
    each_pack<ROW, V, KEPT>(n, [&](int p, int column) {
        const float(&v)[V] = in.at(p, column);
#pragma unroll
        for (int k = 0; k < V; ++k) sum = fmaf(v[k], v[k], sum);
    });
    sum = row_sum<ROW>(sum, scratch);
    float root = sqrtf(sum);
    if (!(sum < INFINITY)) { // squares that are no floats: once more, in double
        double wide = 0;
        each_pack<ROW, V, 0>(n, [&](int, int column) {
            for (int k = 0; k < V; ++k) {
                const double v = x[row * n + column + k];
                wide += v * v;
            }
        });
        root = (float)sqrt(row_sum<ROW>(wide, wide_scratch));
    }
    const float length = root < SMALLEST_NORM ? SMALLEST_NORM : root; // NaN stays
    const float inv = 1.0f / length;
    each_pack<ROW, V, KEPT>(n, [&](int p, int column) {
        const float(&v)[V] = in.at(p, column);
        float out[V];
#pragma unroll
        for (int k = 0; k < V; ++k) out[k] = v[k] * inv;
        store_items<V, IS_PACKED>(y + row * n + column, out);
    });
    if (threadIdx.x % ROW == 0) norm[row] = length;
}

template <int V, bool IS_PACKED, int ROW, int KEPT>
static __global__ void __launch_bounds__(row_block(ROW))
    l2_backward_rows(const float *y, const float *norm, const float *dy, int64_t n_rows, int n,
                     float *dx) {
    __shared__ float scratch[33];
    const int64_t row = own_row<ROW>(n_rows);
    if (row < 0) return;
    row_part<float, ROW, V, IS_PACKED, KEPT> out(y + row * n, n), grad(dy + row * n, n);
    const float length = norm[row], inv = 1.0f / length;
    float dot = 0;
    each_pack<ROW, V, KEPT>(n, [&](int p, int column) {
        const float(&a)[V] = out.at(p, column), (&g)[V] = grad.at(p, column);
#pragma unroll
        for (int k = 0; k < V; ++k) dot = fmaf(a[k], g[k], dot);
    });
    dot = row_sum<ROW>(dot, scratch);
    if (length == SMALLEST_NORM) dot = 0; // the norm was a constant
    each_pack<ROW, V, KEPT>(n, [&](int p, int column) {
        const float(&a)[V] = out.at(p, column), (&g)[V] = grad.at(p, column);
        float d[V];
#pragma unroll
        for (int k = 0; k < V; ++k) d[k] = (g[k] - a[k] * dot) * inv;
        store_items<V, IS_PACKED>(dx + row * n + column, d);
    });
}

// ---------------------------------------------------------------------------------------------- products

/// Nothing is kept: each element is read once.
template <int V, bool IS_PACKED, int ROW>
static __global__ void __launch_bounds__(row_block(ROW))
    row_dot_rows(const float *x1, const float *x2, int64_t n_rows, int n, float *y) {
    __shared__ float scratch[33];
    const int64_t row = own_row<ROW>(n_rows);
    if (row < 0) return;
    float sum = 0;
    each_pack<ROW, V, 0>(n, [&](int, int column) {
        float a[V], b[V];
        load_items<V, IS_PACKED>(x1 + row * n + column, a);
        load_items<V, IS_PACKED>(x2 + row * n + column, b);
#pragma unroll
        for (int k = 0; k < V; ++k) sum = fmaf(a[k], b[k], sum);
    });
    sum = row_sum<ROW>(sum, scratch);
    if (threadIdx.x % ROW == 0) y[row] = sum;
}

template <typename T, int V, bool IS_PACKED>
static __global__ void __launch_bounds__(SCALE_BLOCK)
    row_scale_packs(const float *s, const T *x, int64_t n_packs, int packs_per_row, int accumulate,
                    T *y) {
    const int64_t i = (int64_t)blockIdx.x * SCALE_BLOCK + (int)threadIdx.x;
    if (i >= n_packs) return;
    const float factor =
        s[i < (int64_t)1 << 31 ? (unsigned)i / (unsigned)packs_per_row : i / packs_per_row];
    float v[V], old[V];
    load_items<V, IS_PACKED>(x + i * V, v);
    if (accumulate) load_items<V, IS_PACKED>(y + i * V, old);
#pragma unroll
    for (int k = 0; k < V; ++k) v[k] = accumulate ? fmaf(factor, v[k], old[k]) : factor * v[k];
    store_items<V, IS_PACKED>(y + i * V, v);
}

// ---------------------------------------------------------------------------------------------- softmax

template <int V, bool IS_PACKED, int ROW, int KEPT>
static __global__ void __launch_bounds__(row_block(ROW))
    softmax_rows(const float *x, float scale, int64_t n_rows, int n, float *y) {
    __shared__ float scratch[33];
    const int64_t row = own_row<ROW>(n_rows);
    if (row < 0) return;
    row_part<float, ROW, V, IS_PACKED, KEPT> in(x + row * n, n);
    float top = -INFINITY, sum = 0;
    if constexpr (KEPT > 0) { // an exponential each: the values give way to theirs
        each_pack<ROW, V, KEPT>(n, [&](int p, int) {
#pragma unroll
            for (int k = 0; k < V; ++k) top = fmaxf(top, scale * in.value[p][k]);
        });
        top = row_max<ROW>(top, scratch);
        each_pack<ROW, V, KEPT>(n, [&](int p, int) {
#pragma unroll
            for (int k = 0; k < V; ++k)
                sum += in.value[p][k] = expf(fmaf(scale, in.value[p][k], -top));
        });
        sum = row_sum<ROW>(sum, scratch);
    } else {
        running_sum s;
        each_pack<ROW, V, KEPT>(n, [&](int p, int column) { s.add<V>(in.at(p, column), scale); });
        s.merge<ROW>(scratch);
        top = s.top;
        sum = s.sum;
    }
    each_pack<ROW, V, KEPT>(n, [&](int p, int column) {
        const float(&v)[V] = in.at(p, column);
        float out[V];
#pragma unroll
        for (int k = 0; k < V; ++k)
            out[k] = (KEPT > 0 ? v[k] : expf(fmaf(scale, v[k], -top))) / sum;
        store_items<V, IS_PACKED>(y + row * n + column, out);
    });
}

template <int V, bool IS_PACKED, int ROW, int KEPT>
static __global__ void __launch_bounds__(row_block(ROW))
    softmax_backward_rows(const float *y, const float *dy, float scale, int64_t n_rows, int n,
                          float *dx) {
    __shared__ float scratch[33];
    const int64_t row = own_row<ROW>(n_rows);
    if (row < 0) return;
    row_part<float, ROW, V, IS_PACKED, KEPT> out(y + row * n, n), grad(dy + row * n, n);
    float dot = 0;
    each_pack<ROW, V, KEPT>(n, [&](int p, int column) {
        const float(&a)[V] = out.at(p, column), (&g)[V] = grad.at(p, column);
#pragma unroll
        for (int k = 0; k < V; ++k) dot = fmaf(a[k], g[k], dot);
    });
    dot = row_sum<ROW>(dot, scratch);
    each_pack<ROW, V, KEPT>(n, [&](int p, int column) {
        const float(&a)[V] = out.at(p, column), (&g)[V] = grad.at(p, column);
        float d[V];
#pragma unroll
        for (int k = 0; k < V; ++k) d[k] = scale * a[k] * (g[k] - dot);
        store_items<V, IS_PACKED>(dx + row * n + column, d);
    });
}

} // namespace hirl_k

using namespace hirl_k;

// ---------------------------------------------------------------------------------------------- launchers

/// One launch of KERNEL<V, IS_PACKED, ROW, KEPT> for the access V, IS_PACKED and the width n.
#define LAUNCH_ROWS(KERNEL, V, IS_PACKED, ROW, KEPT, ...)                                    \
    HIRL_LAUNCH((KERNEL<V, IS_PACKED, ROW, KEPT>), row_grid(n_rows, ROW), row_block(ROW), 0, \
                stream, __VA_ARGS__)

template <int V, bool IS_PACKED>
static void l2_normalize_launch(cudaStream_t stream, const float *x, int64_t n_rows, int n,
                                float *y, float *norm) {
#define DO(ROW, KEPT) LAUNCH_ROWS(l2_normalize_rows, V, IS_PACKED, ROW, KEPT, x, n_rows, n, y, norm)
    HIRL_BY_WIDTH(n, DO);
#undef DO
}

cudaError_t hirl_k_l2_normalize(cudaStream_t stream, const float *x, int64_t n_rows,
                                int64_t n_columns, float *y, float *norm) {
    if (!is_size(n_columns)) return cudaErrorInvalidValue;
    const int n = (int)n_columns;
#define DO(T, V, IS_PACKED) l2_normalize_launch<V, IS_PACKED>(stream, x, n_rows, n, y, norm)
    HIRL_BY_ACCESS(float, row_items<float>(n), is_packed(x) && is_packed(y), DO);
#undef DO
    return hirl_k_end(stream);
}

template <int V, bool IS_PACKED>
static void l2_backward_launch(cudaStream_t stream, const float *y, const float *norm,
                               const float *dy, int64_t n_rows, int n, float *dx) {
#define DO(ROW, KEPT) \
    LAUNCH_ROWS(l2_backward_rows, V, IS_PACKED, ROW, KEPT, y, norm, dy, n_rows, n, dx)
    HIRL_BY_WIDTH(n, DO);
#undef DO
}

cudaError_t hirl_k_l2_normalize_backward(cudaStream_t stream, const float *y, const float *norm,
                                         const float *dy, int64_t n_rows, int64_t n_columns,
                                         float *dx) {
    if (!is_size(n_columns)) return cudaErrorInvalidValue;
    const int n = (int)n_columns;
    const bool can_pack = is_packed(y) && is_packed(dy) && is_packed(dx);
#define DO(T, V, IS_PACKED) l2_backward_launch<V, IS_PACKED>(stream, y, norm, dy, n_rows, n, dx)
    HIRL_BY_ACCESS(float, row_items<float>(n), can_pack, DO);
#undef DO
    return hirl_k_end(stream);
}

template <int V, bool IS_PACKED>
static void row_dot_launch(cudaStream_t stream, const float *x1, const float *x2, int64_t n_rows,
                           int n, float *y) {
    if (n <= 1024)
        HIRL_LAUNCH((row_dot_rows<V, IS_PACKED, 32>), row_grid(n_rows, 32), row_block(32), 0,
                    stream, x1, x2, n_rows, n, y);
    else
        HIRL_LAUNCH((row_dot_rows<V, IS_PACKED, 256>), row_grid(n_rows, 256), row_block(256), 0,
                    stream, x1, x2, n_rows, n, y);
}

cudaError_t hirl_k_row_dot(cudaStream_t stream, const float *x1, const float *x2, int64_t n_rows,
                           int64_t n_columns, float *y) {
    if (!is_size(n_columns)) return cudaErrorInvalidValue;
    const int n = (int)n_columns;
#define DO(T, V, IS_PACKED) row_dot_launch<V, IS_PACKED>(stream, x1, x2, n_rows, n, y)
    HIRL_BY_ACCESS(float, row_items<float>(n), is_packed(x1) && is_packed(x2), DO);
#undef DO
    return hirl_k_end(stream);
}

cudaError_t hirl_k_row_scale(cudaStream_t stream, int dtype, const float *s, const void *x,
                             int64_t n_rows, int64_t n_columns, int accumulate, void *y) {
    if (!is_size(n_columns)) return cudaErrorInvalidValue;
#define DO(T, V, IS_PACKED)                                                            \
    HIRL_LAUNCH((row_scale_packs<T, V, IS_PACKED>),                                    \
                grid_size((n_rows * (n_columns / V) + SCALE_BLOCK - 1) / SCALE_BLOCK), \
                SCALE_BLOCK, 0, stream, s, (const T *)x, n_rows *(n_columns / V),      \
                (int)(n_columns / V), accumulate, (T *)y)
    const bool can_pack = is_packed(x) && is_packed(y);
    const cudaError_t code = with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        HIRL_BY_ACCESS(T, row_items<T>(n_columns), can_pack, DO);
        return cudaSuccess;
    });
#undef DO
    if (code != cudaSuccess) return code;
    return hirl_k_end(stream);
}

template <int V, bool IS_PACKED>
static void softmax_launch(cudaStream_t stream, const float *x, float scale, int64_t n_rows, int n,
                           float *y) {
#define DO(ROW, KEPT) LAUNCH_ROWS(softmax_rows, V, IS_PACKED, ROW, KEPT, x, scale, n_rows, n, y)
    HIRL_BY_WIDTH(n, DO);
#undef DO
}

cudaError_t hirl_k_softmax(cudaStream_t stream, const float *x, float scale, int64_t n_rows,
                           int64_t n_columns, float *y) {
    if (!is_size(n_columns)) return cudaErrorInvalidValue;
    const int n = (int)n_columns;
#define DO(T, V, IS_PACKED) softmax_launch<V, IS_PACKED>(stream, x, scale, n_rows, n, y)
    HIRL_BY_ACCESS(float, row_items<float>(n), is_packed(x) && is_packed(y), DO);
#undef DO
    return hirl_k_end(stream);
}

template <int V, bool IS_PACKED>
static void softmax_backward_launch(cudaStream_t stream, const float *y, const float *dy,
                                    float scale, int64_t n_rows, int n, float *dx) {
#define DO(ROW, KEPT) \
    LAUNCH_ROWS(softmax_backward_rows, V, IS_PACKED, ROW, KEPT, y, dy, scale, n_rows, n, dx)
    HIRL_BY_WIDTH(n, DO);
#undef DO
}

cudaError_t hirl_k_softmax_backward(cudaStream_t stream, const float *y, const float *dy,
                                    float scale, int64_t n_rows, int64_t n_columns, float *dx) {
    if (!is_size(n_columns)) return cudaErrorInvalidValue;
    const int n = (int)n_columns;
    const bool can_pack = is_packed(y) && is_packed(dy) && is_packed(dx);
#define DO(T, V, IS_PACKED) \
    softmax_backward_launch<V, IS_PACKED>(stream, y, dy, scale, n_rows, n, dx)
    HIRL_BY_ACCESS(float, row_items<float>(n), can_pack, DO);
#undef DO
    return hirl_k_end(stream);
}
