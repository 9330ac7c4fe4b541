/// Pooling of images [n, h, w, c]: a thread takes N neighbouring channels of one pixel of the result. Floors, if what windows
/// share comes from the caches, in bytes per element of x, f32 | bf16, with windows 3 x 3 and stride 2:
///     max_pool 6 | 3.5;  max_pool_backward 6 | 3.5;  global averages 4 | 2
/// The backward is a gather: each x looks which of the windows around it it won, so that nothing is added by atomics and dx is
/// written once.
#include "pool.h"

#include "columns.h"

using namespace hirl_k;

namespace {

enum { THREADS = 256 };

/// N winners, in accesses of 16 bytes.
template <int N> __device__ __forceinline__ void load_winners(const int32_t *from, int (&v)[N]) {
    constexpr int M = N < 4 ? N : 4;
#pragma unroll
    for (int i = 0; i < N; i += M) {
        const pack<int32_t, M> p = *reinterpret_cast<const pack<int32_t, M> *>(from + i);
#pragma unroll
        for (int j = 0; j < M; ++j) v[i + j] = p.item[j];
    }
}

template <int N> __device__ __forceinline__ void store_winners(int32_t *to, const int (&v)[N]) {
    constexpr int M = N < 4 ? N : 4;
#pragma unroll
    for (int i = 0; i < N; i += M) {
        pack<int32_t, M> p;
#pragma unroll
        for (int j = 0; j < M; ++j) p.item[j] = v[i + j];
        *reinterpret_cast<pack<int32_t, M> *>(to + i) = p;
    }
}

__device__ __forceinline__ int clamped(int at, int size) {
    return at < 0 ? 0 : at < size ? at : size - 1;
}

/// A pixel and the first of N channels, from the number of the group. I: an unsigned type that holds the number of groups.
struct pixel {
    int64_t n;
    int row, column, c;
    template <typename I> __device__ pixel(I group, int h, int w, int n_channels, int N) {
        const I n_groups = (I)(n_channels / N);
        const I at = group / n_groups;
        c = (int)(group - at * n_groups) * N;
        const I line = at / (I)w;
        column = (int)(at - line * (I)w);
        n = (int64_t)(line / (I)h);
        row = (int)(line - (I)n * (I)h);
    }
};

/// KERNEL 0: as p says, one cell of the window after another; else its loads need not wait for one another. Cells in the
/// padding are read as the nearest inside, which lies in the window as well, because the padding is at most half of it: it
/// comes no earlier and counts no more for being read twice.
template <int N, int KERNEL, typename I, typename T>
__global__ void max_pool(hirl_k_pool_t p, I n_groups, const T *x, T *y, int32_t *winner) {
    constexpr int AT_ONCE = KERNEL ? KERNEL * KERNEL : 1;
    const I group = (I)blockIdx.x * THREADS + threadIdx.x;
    if (group >= n_groups) return;
    const pixel out(group, p.h_out, p.w_out, p.c, N);
    const int kernel = KERNEL ? KERNEL : p.kernel;
    const int top = out.row * p.stride - p.pad, left = out.column * p.stride - p.pad;
    const T *image = x + out.n * p.h * p.w * p.c + out.c;
    float best[N];
    int place[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
        best[i] = -INFINITY;
        place[i] = -1;
    }
    for (int cell = 0, a = 0, b = 0; cell < kernel * kernel; cell += AT_ONCE) {
        pack<T, N> value[AT_ONCE];
        int at[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
            at[k] = clamped(top + a, p.h) * p.w + clamped(left + b, p.w);
            value[k] = *reinterpret_cast<const pack<T, N> *>(image + (int64_t)at[k] * p.c);
            if (++b == kernel) {
                b = 0;
                ++a;
            }
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const float v = load(&value[k].item[i]);
                if (place[i] < 0 || v > best[i]) {
                    best[i] = v;
                    place[i] = at[k];
                }
            }
        }
    }
    const int64_t at = (int64_t)group * N;
    store_items(y + at, best);
    if (winner) store_winners(winner + at, place);
}

template <int N, typename I, typename T>
__global__ void max_pool_backward(hirl_k_pool_t p, I n_groups, const T *dy, const int32_t *winner,
                                  T *dx) {
    const I group = (I)blockIdx.x * THREADS + threadIdx.x;
    if (group >= n_groups) return;
    const pixel in(group, p.h, p.w, p.c, N);
    // Windows a with a * stride - pad <= row < a * stride - pad + kernel.
    const int down = in.row + p.pad, right = in.column + p.pad;
    const int a_first = down < p.kernel ? 0 : (down - p.kernel) / p.stride + 1;
    const int b_first = right < p.kernel ? 0 : (right - p.kernel) / p.stride + 1;
    const int a_end = down / p.stride < p.h_out ? down / p.stride + 1 : p.h_out;
    const int b_end = right / p.stride < p.w_out ? right / p.stride + 1 : p.w_out;
    const int own = in.row * p.w + in.column;
    float sum[N];
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] = 0;
    for (int a = a_first; a < a_end; ++a) {
#pragma unroll 2
        for (int b = b_first; b < b_end; ++b) {
            const int64_t at = ((in.n * p.h_out + a) * p.w_out + b) * p.c + in.c;
            int place[N];
            float v[N];
            load_winners(winner + at, place);
            load_items(dy + at, v);
#pragma unroll
            for (int i = 0; i < N; ++i) sum[i] += place[i] == own ? v[i] : 0.0f;
        }
    }
    store_items(dx + (int64_t)group * N, sum);
}

template <typename T> struct spread_op {
    enum { n_inputs = 1 };
    const float *dy;
    T *dx;
    int64_t n_pixels, c;
    template <int N> __device__ void read(int64_t at, float (&v)[1][N]) const {
        const int64_t line = at / c;
        load_items(dy + line / n_pixels * c + (at - line * c), v[0]);
    }
    template <int N> __device__ void write(int64_t at, const float (&v)[1][N]) const {
        float out[N];
#pragma unroll
        for (int i = 0; i < N; ++i) out[i] = v[0][i] / (float)n_pixels;
        store_items(dx + at, out);
    }
};

/// Groups are counted in 32 bits where these do: divisions are cheaper there.
template <int N, typename T>
cudaError_t launch_max_pool(cudaStream_t stream, const hirl_k_pool_t &p, const T *x, T *y,
                            int32_t *winner) {
    const int64_t n_groups = p.n * p.h_out * p.w_out * (p.c / N);
    const unsigned n_blocks = hirl_k_blocks(n_groups, THREADS, INT32_MAX);
    if (n_groups > INT32_MAX)
        HIRL_LAUNCH((max_pool<N, 0, uint64_t, T>), n_blocks, THREADS, 0, stream, p,
                    (uint64_t)n_groups, x, y, winner);
    else if (p.kernel == 3)
        HIRL_LAUNCH((max_pool<N, 3, uint32_t, T>), n_blocks, THREADS, 0, stream, p,
                    (uint32_t)n_groups, x, y, winner);
    else
        HIRL_LAUNCH((max_pool<N, 0, uint32_t, T>), n_blocks, THREADS, 0, stream, p,
                    (uint32_t)n_groups, x, y, winner);
    return hirl_k_end(stream);
}

template <int N, typename T>
cudaError_t launch_max_pool_backward(cudaStream_t stream, const hirl_k_pool_t &p, const T *dy,
                                     const int32_t *winner, T *dx) {
    const int64_t n_groups = p.n * p.h * p.w * (p.c / N);
    const unsigned n_blocks = hirl_k_blocks(n_groups, THREADS, INT32_MAX);
    if (n_groups > INT32_MAX)
        HIRL_LAUNCH((max_pool_backward<N, uint64_t, T>), n_blocks, THREADS, 0, stream, p,
                    (uint64_t)n_groups, dy, winner, dx);
    else
        HIRL_LAUNCH((max_pool_backward<N, uint32_t, T>), n_blocks, THREADS, 0, stream, p,
                    (uint32_t)n_groups, dy, winner, dx);
    return hirl_k_end(stream);
}

/// Places in an image are 32 bits.
bool is_too_large(const hirl_k_pool_t &p) { return (int64_t)p.h * p.w > INT32_MAX; }

} // namespace

cudaError_t hirl_k_max_pool(cudaStream_t stream, const hirl_k_pool_t *pool, const void *x,
                            int dtype, void *y, int32_t *winner) {
    if (is_too_large(*pool)) return cudaErrorInvalidValue;
    return with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        constexpr int N = group_items<T>();
        const T *from = (const T *)x;
        T *to = (T *)y;
        if (pool->c % N == 0 && is_packed(x) && is_packed(y) && is_packed(winner))
            return launch_max_pool<N>(stream, *pool, from, to, winner);
        return launch_max_pool<1>(stream, *pool, from, to, winner);
    });
}

cudaError_t hirl_k_max_pool_backward(cudaStream_t stream, const hirl_k_pool_t *pool, const void *dy,
                                     int dtype, const int32_t *winner, void *dx) {
    if (is_too_large(*pool)) return cudaErrorInvalidValue;
    return with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        constexpr int N = group_items<T>();
        const T *from = (const T *)dy;
        T *to = (T *)dx;
        if (pool->c % N == 0 && is_packed(dy) && is_packed(dx) && is_packed(winner))
            return launch_max_pool_backward<N>(stream, *pool, from, winner, to);
        return launch_max_pool_backward<1>(stream, *pool, from, winner, to);
    });
}

cudaError_t hirl_k_global_avg_pool(cudaStream_t stream, const void *x, int dtype, int64_t n,
                                   int64_t n_pixels, int64_t c, float *y) {
    return with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        const column_plan p = plan_columns(n_pixels, c, column_group<T>(c), false);
        launch_sum_columns<T>(stream, (const T *)x, n, p, (float)n_pixels, false, y);
        return hirl_k_end(stream);
    });
}

cudaError_t hirl_k_global_avg_pool_backward(cudaStream_t stream, const float *dy, int64_t n,
                                            int64_t n_pixels, int64_t c, void *dx, int dtype) {
    return with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        constexpr int N = group_items<T>();
        const spread_op<T> f = {dy, (T *)dx, n_pixels, c};
        return map<N>(stream, f, n * n_pixels * c, c % N == 0 && is_packed(dy), f.dx);
    });
}
