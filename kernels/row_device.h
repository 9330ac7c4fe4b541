/// @file row_device.h
/// For .cu files whose kernels give each row to one warp or to one block: access to several neighbouring elements, rows that stay
/// in registers, and sums along a row.
///
/// A thread holds the same elements of a row, and so sums are taken in the same order, whether they move in one access of 16 bytes
/// or, where an array's address does not allow that, one by one.
#ifndef HIRL_KERNELS_ROW_DEVICE_H
#define HIRL_KERNELS_ROW_DEVICE_H

#include "device.h"

namespace hirl_k {

/// N neighbours of up to 16 bytes in all, kept as they lie in memory: bf16 takes half the registers until it is used.
/// `IS_PACKED`: the address is a multiple of their size.
template <typename T, int N, bool IS_PACKED> struct neighbours {
    pack<T, N> raw;

    __device__ __forceinline__ void fetch(const T *x) {
        if constexpr (IS_PACKED) {
            raw = *reinterpret_cast<const pack<T, N> *>(x);
        } else {
#pragma unroll
            for (int i = 0; i < N; ++i) raw.item[i] = x[i];
        }
    }
    /// Zeros where there is nothing to fetch.
    __device__ __forceinline__ void fetch_if(bool is_there, const T *x) {
        if (is_there) {
            fetch(x);
        } else {
#pragma unroll
            for (int i = 0; i < N; ++i) store(&raw.item[i], 0);
        }
    }
    __device__ __forceinline__ float operator[](int i) const { return load(&raw.item[i]); }
};

/// N neighbours as floats; `IS_PACKED`: the address is a multiple of 16 bytes, or of N elements if these are fewer.
template <int N, bool IS_PACKED, typename T>
static __device__ __forceinline__ void load_items(const T *x, float (&v)[N]) {
    constexpr int n = N < pack_items<T>() ? N : pack_items<T>();
#pragma unroll
    for (int i = 0; i < N; i += n) {
        neighbours<T, n, IS_PACKED> some;
        some.fetch(x + i);
#pragma unroll
        for (int j = 0; j < n; ++j) v[i + j] = some[j];
    }
}

template <int N, bool IS_PACKED, typename T>
static __device__ __forceinline__ void store_items(T *y, const float (&v)[N]) {
    if constexpr (IS_PACKED) {
        constexpr int n = N < pack_items<T>() ? N : pack_items<T>();
#pragma unroll
        for (int i = 0; i < N; i += n) {
            pack<T, n> p;
#pragma unroll
            for (int j = 0; j < n; ++j) store(&p.item[j], v[i + j]);
            *reinterpret_cast<pack<T, n> *>(y + i) = p;
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) store(y + i, v[i]);
    }
}

// ---------------------------------------------------------------------------------------------- rows

/// Threads of a block whose warps take a row each.
enum { ROW_BLOCK = 256 };

/// Calls f(p, column) for this thread's groups of V columns below n. THREADS share a row; KEPT columns of it belong to a
/// thread, p numbers its groups and is known to the compiler; KEPT 0: any number of columns, p is 0.
template <int THREADS, int V, int KEPT, typename F>
static __device__ __forceinline__ void each_pack(int n, F f) {
    const int lane = (int)threadIdx.x % THREADS;
    if constexpr (KEPT > 0) {
#pragma unroll
        for (int p = 0; p < KEPT / V; ++p)
            if ((p * THREADS + lane) * V < n) f(p, (p * THREADS + lane) * V);
    } else {
#pragma unroll 4
        for (int column = lane * V; column < n; column += THREADS * V) f(0, column);
    }
}

/// This thread's part of a row: in registers, or (KEPT 0) read again each time.
template <typename T, int THREADS, int V, bool IS_PACKED, int KEPT> struct row_part {
    const T *data;
    float value[KEPT > 0 ? KEPT / V : 1][V];

    __device__ __forceinline__ row_part(const T *row, int n) : data(row) {
        if constexpr (KEPT > 0)
            each_pack<THREADS, V, KEPT>(
                n, [&](int p, int column) { load_items<V, IS_PACKED>(data + column, value[p]); });
    }
    __device__ __forceinline__ float (&at(int p, int column))[V] {
        if constexpr (KEPT == 0) load_items<V, IS_PACKED>(data + column, value[0]);
        return value[p];
    }
};

/// The row of this warp or block; -1: none (then the whole warp has none, and leaves).
template <int THREADS> static __device__ __forceinline__ int64_t own_row(int64_t n_rows) {
    const int64_t row = THREADS == 32
                            ? (int64_t)blockIdx.x * (ROW_BLOCK / 32) + (int)threadIdx.x / 32
                            : (int64_t)blockIdx.x;
    return row < n_rows ? row : -1;
}

template <int THREADS, typename T>
static __device__ __forceinline__ T row_sum(T value, T *scratch) {
    if constexpr (THREADS == 32)
        return warp_sum(value);
    else
        return block_sum(value, scratch);
}
template <int THREADS>
static __device__ __forceinline__ float row_max(float value, float *scratch) {
    if constexpr (THREADS == 32)
        return warp_max(value);
    else
        return block_max(value, scratch);
}

/// The largest of scaled values and the sum of their exponentials relative to it, as values come.
struct running_sum {
    float top = -INFINITY, sum = 0;

    /// -inf - -inf is no number: where all is -inf so far, exponentials are of 0.
    static __device__ __forceinline__ float base(float top) { return top == -INFINITY ? 0 : top; }
    template <int V> __device__ __forceinline__ void add(const float (&x)[V], float scale) {
        float most = top;
#pragma unroll
        for (int k = 0; k < V; ++k) most = fmaxf(most, scale * x[k]);
        if (most > top) {
            sum *= expf(top - most);
            top = most;
        }
#pragma unroll
        for (int k = 0; k < V; ++k) sum += expf(fmaf(scale, x[k], -base(top)));
    }
    /// Of the whole row, in all its threads.
    template <int ROW> __device__ __forceinline__ void merge(float *scratch) {
        const float most = row_max<ROW>(top, scratch);
        sum = row_sum<ROW>(top == -INFINITY ? sum : sum * expf(top - most), scratch);
        top = most;
    }
};

// ---------------------------------------------------------------------------------------------- launches

/// As a grid's size; 0, which no launch accepts, if there are too many.
static inline unsigned grid_size(int64_t n) { return n < (int64_t)1 << 31 ? (unsigned)n : 0u; }
static constexpr int row_block(int threads) { return threads == 32 ? (int)ROW_BLOCK : threads; }
static inline unsigned row_grid(int64_t n_rows, int threads) {
    return grid_size(threads == 32 ? (n_rows + ROW_BLOCK / 32 - 1) / (ROW_BLOCK / 32) : n_rows);
}

/// Neighbours that one thread takes of rows of n columns.
template <typename T> static inline int row_items(int64_t n) {
    return n % pack_items<T>() == 0 ? pack_items<T>() : 1;
}

} // namespace hirl_k

/// DO(T, V, IS_PACKED) for V = `items` (1, or those of 16 bytes).
#define HIRL_BY_ACCESS(T, items, is_packed, DO)      \
    do {                                             \
        if ((items) == 1)                            \
            DO(T, 1, false);                         \
        else if (is_packed)                          \
            DO(T, (hirl_k::pack_items<T>()), true);  \
        else                                         \
            DO(T, (hirl_k::pack_items<T>()), false); \
    } while (0)

/// DO(THREADS, KEPT) for rows of n columns: a warp as far as its registers hold the row, then a block, then a large block that
/// reads the row again.
#define HIRL_BY_WIDTH(n, DO)  \
    do {                      \
        if ((n) <= 256)       \
            DO(32, 8);        \
        else if ((n) <= 1024) \
            DO(32, 32);       \
        else if ((n) <= 8192) \
            DO(256, 32);      \
        else                  \
            DO(1024, 0);      \
    } while (0)

#endif
