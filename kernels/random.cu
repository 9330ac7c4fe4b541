/// Dropout and drop path. Floors in bytes per element, f32 | bf16: dropout 8 | 4; drop_path 12 | 6, of a dropped sample 8 | 4 (x is not
/// read). Dropout makes a number of 32 bits for every element, ten rounds of two products for four of them; the stream's key, which
/// all elements share, is made once a block. Blocks lie within samples.
#include "random.h"

#include "map.h"
#include "philox.h"

using namespace hirl_k;

namespace {

enum { THREADS = 256 };

/// Elements whose numbers are made together: 16 bytes of them.
template <typename T> __host__ __device__ constexpr int group_size() { return pack_items<T>(); }
/// Groups of a thread: 16 elements.
template <typename T> __host__ __device__ constexpr int under_way() { return 16 / group_size<T>(); }
enum { BLOCK_ELEMENTS = 16 * THREADS };

__device__ __forceinline__ rng_stream stream_of(const hirl_k_drop_t &drop, int64_t sample) {
    return rng_stream((uint64_t)drop.counter[0], drop.purpose, (uint64_t)drop.counter[1],
                      (uint64_t)drop.index[sample], drop.site);
}

/// Elements [at, at + N) of a sample that ends before `size`; packs where `is_packed_`, else those that there are.
template <bool is_packed_, int N, typename T>
__device__ __forceinline__ void read(const T *x, int64_t at, int64_t size, float (&v)[N]) {
    if (is_packed_) {
        load_items(x + at, v);
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) v[i] = at + i < size ? load(x + at + i) : 0.0f;
    }
}
template <bool is_packed_, int N, typename T>
__device__ __forceinline__ void write(T *y, int64_t at, int64_t size, const float (&v)[N]) {
    if (is_packed_) {
        store_items(y + at, v);
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (at + i < size) store(y + at + i, v[i]);
    }
}

template <typename T, bool is_packed_>
__global__ void dropout(hirl_k_drop_t drop, const T *x, unsigned n_blocks, int64_t size, T *y) {
    constexpr int N = group_size<T>(), U = under_way<T>();
    __shared__ uint32_t shared_key[2];
    const int64_t sample = blockIdx.x / n_blocks;
    const int64_t first = (int64_t)(blockIdx.x % n_blocks) * BLOCK_ELEMENTS + N * (int)threadIdx.x;
    x += sample * size;
    y += sample * size;
    float v[U][N];
#pragma unroll
    for (int k = 0; k < U; ++k) {
        const int64_t at = first + (int64_t)k * THREADS * N;
        if (at < size) read<is_packed_>(x, at, size, v[k]);
    }
    if (threadIdx.x == 0) {
        const rng_stream own = stream_of(drop, sample);
        shared_key[0] = own.key[0];
        shared_key[1] = own.key[1];
    }
    __syncthreads();
    const uint64_t index = (uint64_t)drop.index[sample];
    const uint32_t key[2] = {shared_key[0], shared_key[1]};
#pragma unroll
    for (int k = 0; k < U; ++k) {
        const int64_t at = first + (int64_t)k * THREADS * N;
        if (at >= size) continue;
#pragma unroll
        for (int j = 0; j < N; j += 4) {
            const words w = philox((uint32_t)((at + j) / 4), drop.purpose, (uint32_t)index,
                                   (uint32_t)(index >> 32), key[0], key[1]);
#pragma unroll
            for (int i = 0; i < 4; ++i)
                v[k][j + i] = w.v[i] >= drop.threshold ? drop.scale * v[k][j + i] : 0.0f;
        }
        write<is_packed_>(y, at, size, v[k]);
    }
}

template <typename T, bool is_packed_>
__global__ void drop_path(hirl_k_drop_t drop, const T *x, const T *residual, unsigned n_blocks,
                          int64_t size, T *y) {
    constexpr int N = group_size<T>(), U = under_way<T>();
    __shared__ bool shared_kept;
    const int64_t sample = blockIdx.x / n_blocks;
    const int64_t first = (int64_t)(blockIdx.x % n_blocks) * BLOCK_ELEMENTS + N * (int)threadIdx.x;
    if (threadIdx.x == 0) shared_kept = stream_of(drop, sample).block(0).v[0] >= drop.threshold;
    __syncthreads();
    const bool is_kept = shared_kept;
    x += sample * size;
    y += sample * size;
    if (residual) residual += sample * size;
    float v[U][N], rest[U][N];
#pragma unroll
    for (int k = 0; k < U; ++k) {
        const int64_t at = first + (int64_t)k * THREADS * N;
        if (at >= size) continue;
#pragma unroll
        for (int i = 0; i < N; ++i) rest[k][i] = 0.0f;
        if (residual) read<is_packed_>(residual, at, size, rest[k]);
        if (is_kept) read<is_packed_>(x, at, size, v[k]);
    }
#pragma unroll
    for (int k = 0; k < U; ++k) {
        const int64_t at = first + (int64_t)k * THREADS * N;
        if (at >= size) continue;
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (is_kept) rest[k][i] = fmaf(drop.scale, v[k][i], rest[k][i]);
        write<is_packed_>(y, at, size, rest[k]);
    }
}

/// Blocks of a sample; false if all of them are more than a grid may have.
bool blocks_of(int64_t n_samples, int64_t size, unsigned *n_blocks) {
    *n_blocks = hirl_k_blocks(size, BLOCK_ELEMENTS, INT32_MAX);
    return n_samples <= INT32_MAX / (int64_t)*n_blocks;
}

template <typename T> bool is_packed_all(int64_t size, const T *x, const T *residual, const T *y) {
    return size % group_size<T>() == 0 && is_packed(x) && is_packed(residual) && is_packed(y);
}

} // namespace

cudaError_t hirl_k_dropout(cudaStream_t stream, const hirl_k_drop_t *drop, const void *x, int dtype,
                           int64_t n_samples, int64_t size, void *y) {
    return with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        unsigned n_blocks;
        if (!blocks_of(n_samples, size, &n_blocks)) return cudaErrorInvalidValue;
        const unsigned grid = (unsigned)n_samples * n_blocks;
        const T *from = (const T *)x;
        T *to = (T *)y;
        if (is_packed_all<T>(size, from, NULL, to))
            HIRL_LAUNCH((dropout<T, true>), grid, THREADS, 0, stream, *drop, from, n_blocks, size,
                        to);
        else
            HIRL_LAUNCH((dropout<T, false>), grid, THREADS, 0, stream, *drop, from, n_blocks, size,
                        to);
        return hirl_k_end(stream);
    });
}

cudaError_t hirl_k_drop_path(cudaStream_t stream, const hirl_k_drop_t *drop, const void *x,
                             const void *residual, int dtype, int64_t n_samples, int64_t size,
                             void *y) {
    return with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        unsigned n_blocks;
        if (!blocks_of(n_samples, size, &n_blocks)) return cudaErrorInvalidValue;
        const unsigned grid = (unsigned)n_samples * n_blocks;
        const T *from = (const T *)x, *rest = (const T *)residual;
        T *to = (T *)y;
        if (is_packed_all<T>(size, from, rest, to))
            HIRL_LAUNCH((drop_path<T, true>), grid, THREADS, 0, stream, *drop, from, rest, n_blocks,
                        size, to);
        else
            HIRL_LAUNCH((drop_path<T, false>), grid, THREADS, 0, stream, *drop, from, rest,
                        n_blocks, size, to);
        return hirl_k_end(stream);
    });
}
