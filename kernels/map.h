/// @file map.h
/// For .cu files: kernels that do the same to each element, N neighbours at a time in accesses of up to 16 bytes.
///
/// An operation is a struct of pointers and scalars with
///     enum { n_inputs = ... };
///     template <int N> __device__ void read(int64_t at, float (&v)[n_inputs][N]) const;
///     template <int N> __device__ void write(int64_t at, const float (&v)[n_inputs][N]) const;
/// for the elements [at, at + N). A thread reads a few such groups before it writes the first, so that enough bytes are under
/// way. It writes only where it has read, so an output may be one of the inputs. Where arrays are not aligned the same is
/// done element by element.
#ifndef HIRL_KERNELS_MAP_H
#define HIRL_KERNELS_MAP_H

#include "device.h"

namespace hirl_k {

/// Neighbours that go together where arrays of these types are read or written: 16 bytes of the widest.
template <typename... T> constexpr int group_items() {
    const size_t sizes[] = {sizeof(T)...};
    size_t widest = 1;
    for (size_t size : sizes) widest = size > widest ? size : widest;
    return 16 / (int)widest;
}

/// True if groups of N items may be accessed as packs; NULL may.
template <int N, typename T> static inline bool is_aligned(const T *x) {
    const size_t bytes = N * sizeof(T) < 16 ? N * sizeof(T) : 16;
    return (uintptr_t)x % bytes == 0;
}

template <int N, typename T>
static __device__ __forceinline__ void load_items(const T *x, float (&v)[N]) {
    constexpr int M = N < pack_items<T>() ? N : pack_items<T>();
#pragma unroll
    for (int i = 0; i < N; i += M) {
        const pack<T, M> p = *reinterpret_cast<const pack<T, M> *>(x + i);
#pragma unroll
        for (int j = 0; j < M; ++j) v[i + j] = load(&p.item[j]);
    }
}

template <int N, typename T>
static __device__ __forceinline__ void store_items(T *y, const float (&v)[N]) {
    constexpr int M = N < pack_items<T>() ? N : pack_items<T>();
#pragma unroll
    for (int i = 0; i < N; i += M) {
        pack<T, M> p;
#pragma unroll
        for (int j = 0; j < M; ++j) store(&p.item[j], v[i + j]);
        *reinterpret_cast<pack<T, M> *>(y + i) = p;
    }
}

enum { MAP_THREADS = 256 };

/// Groups that a thread has under way: 32 values at most.
template <int N, int n_inputs> __host__ __device__ constexpr int groups_under_way() {
    constexpr int n = 32 / (N * n_inputs);
    return n < 1 ? 1 : n > 4 ? 4 : n;
}

template <int N, typename F> __global__ void map_groups(F f, int64_t n) {
    constexpr int U = groups_under_way<N, F::n_inputs>();
    const int64_t n_groups = n / N;
    const int64_t first = (int64_t)blockIdx.x * (MAP_THREADS * U) + threadIdx.x;
    float v[U][F::n_inputs][N];
#pragma unroll
    for (int k = 0; k < U; ++k) {
        const int64_t group = first + k * MAP_THREADS;
        if (group < n_groups) f.template read<N>(group * N, v[k]);
    }
#pragma unroll
    for (int k = 0; k < U; ++k) {
        const int64_t group = first + k * MAP_THREADS;
        if (group < n_groups) f.template write<N>(group * N, v[k]);
    }
    if (N > 1 && blockIdx.x == 0 && n_groups * N + threadIdx.x < n) { // what is left of a group
        float rest[F::n_inputs][1];
        f.template read<1>(n_groups * N + threadIdx.x, rest);
        f.template write<1>(n_groups * N + threadIdx.x, rest);
    }
}

/// Does f to n elements, in groups of N if `fits` says that none straddles a boundary of f's and all arrays are aligned.
template <int N, typename F, typename... T>
static cudaError_t map(cudaStream_t stream, const F &f, int64_t n, bool fits, const T *...array) {
    if (n <= 0) return cudaSuccess;
    if (fits && (is_aligned<N>(array) && ...)) {
        const int64_t in_block = (int64_t)MAP_THREADS * N * groups_under_way<N, F::n_inputs>();
        const unsigned n_blocks = hirl_k_blocks(n, (int)in_block, INT32_MAX);
        HIRL_LAUNCH((map_groups<N, F>), n_blocks, MAP_THREADS, 0, stream, f, n);
    } else {
        const int64_t in_block = (int64_t)MAP_THREADS * groups_under_way<1, F::n_inputs>();
        const unsigned n_blocks = hirl_k_blocks(n, (int)in_block, INT32_MAX);
        HIRL_LAUNCH((map_groups<1, F>), n_blocks, MAP_THREADS, 0, stream, f, n);
    }
    return hirl_k_end(stream);
}

} // namespace hirl_k
#endif
