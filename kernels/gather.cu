/// Rows and columns of f32 matrices. Floors, per element of the result: gather, concat, split 8 bytes (and 4 bytes of index per row);
/// gather's backward 4 bytes of dy and 4 of dx (8 where it accumulates).
///
/// The backward adds in order of i without atomics: it sorts the pairs (index, i), whose order is total, and then writes each row of dx
/// once, from its run of pairs. The sort takes tiles in shared memory and merges them by binary search, 8 bytes a pair and pass, at
/// most 16 passes for a hundred million pairs: for rows of 128 columns and more the sort moves little beside the rows.
#include "gather.h"

#include "map.h"

using namespace hirl_k;

namespace {

struct gather_op {
    enum { n_inputs = 1 };
    const float *x;
    const int32_t *index;
    hirl_k_fault_t *fault;
    float *y;
    int64_t n_rows, n_columns;
    template <int N> __device__ void read(int64_t at, float (&v)[1][N]) const {
        const int64_t i = at / n_columns, column = at - i * n_columns, row = index[i];
        if (in_range(row, n_rows, HIRL_K_FAULT_GATHER, i, fault)) {
            load_items(x + row * n_columns + column, v[0]);
        } else {
#pragma unroll
            for (int j = 0; j < N; ++j) v[0][j] = 0;
        }
    }
    template <int N> __device__ void write(int64_t at, const float (&v)[1][N]) const {
        store_items(y + at, v[0]);
    }
};

/// Between [n_rows, n_first + n_second] and its two parts.
struct columns_op {
    int64_t n_first, n_second;
    template <typename T> __device__ T *place(T *first, T *second, int64_t at) const {
        const int64_t width = n_first + n_second, row = at / width, column = at - row * width;
        if (column < n_first) return first ? first + row * n_first + column : nullptr;
        return second ? second + row * n_second + (column - n_first) : nullptr;
    }
};

struct concat_op : columns_op {
    enum { n_inputs = 1 };
    const float *x1, *x2;
    float *y;
    template <int N> __device__ void read(int64_t at, float (&v)[1][N]) const {
        load_items(place(x1, x2, at), v[0]);
    }
    template <int N> __device__ void write(int64_t at, const float (&v)[1][N]) const {
        store_items(y + at, v[0]);
    }
};

struct split_op : columns_op {
    enum { n_inputs = 1 };
    const float *y;
    float *x1, *x2;
    template <int N> __device__ void read(int64_t at, float (&v)[1][N]) const {
        if (place(x1, x2, at)) load_items(y + at, v[0]);
    }
    template <int N> __device__ void write(int64_t at, const float (&v)[1][N]) const {
        float *to = place(x1, x2, at);
        if (to) store_items(to, v[0]);
    }
};

// ---------------------------------------------------------------------------------------------- rows added in order

enum { TILE = 2048, THREADS = 256, MOST_ROWS = 64 };

/// Pairs as numbers: the row above, the place below. Rows out of range come last, under a row that no matrix has.
__device__ __forceinline__ uint64_t pair_of(uint32_t row, int64_t i) {
    return (uint64_t)row << 32 | (uint64_t)i;
}

/// How many of the n sorted pairs are below `limit`.
__device__ __forceinline__ int64_t count_below(const uint64_t *pairs, int64_t n, uint64_t limit) {
    int64_t low = 0;
    while (n > 0) {
        const int64_t half = n >> 1;
        if (pairs[low + half] < limit) {
            low += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return low;
}

/// A tile (a power of two, twice the threads) of pairs per block, sorted by a bitonic network.
__global__ void sort_tiles(const int32_t *index, int64_t n, int64_t n_rows, int tile,
                           hirl_k_fault_t *fault, uint64_t *pairs) {
    __shared__ uint64_t item[TILE];
    const int64_t first = (int64_t)blockIdx.x * tile;
    for (int t = (int)threadIdx.x; t < tile; t += (int)blockDim.x) {
        const int64_t i = first + t;
        uint64_t pair = UINT64_MAX;
        if (i < n) {
            const int32_t row = index[i];
            const bool is_good = in_range(row, n_rows, HIRL_K_FAULT_SCATTER, i, fault);
            pair = pair_of(is_good ? (uint32_t)row : UINT32_MAX, i);
        }
        item[t] = pair;
    }
    const int t = (int)threadIdx.x;
    for (int size = 2; size <= tile; size <<= 1) {
        for (int step = size >> 1; step > 0; step >>= 1) {
            __syncthreads();
            const int low = 2 * t - (t & (step - 1)), high = low + step;
            const uint64_t a = item[low], b = item[high];
            if ((a > b) == ((low & size) == 0)) {
                item[low] = b;
                item[high] = a;
            }
        }
    }
    __syncthreads();
    for (int s = t; s < tile; s += (int)blockDim.x)
        if (first + s < n) pairs[first + s] = item[s];
}

/// Sorted runs of `run` pairs become runs of twice the length: a pair's place is its place in its own run plus the number of
/// lesser pairs in the other.
__global__ void merge_runs(const uint64_t *pairs, int64_t n, int64_t run, uint64_t *merged) {
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    const int64_t own = i / run * run, base = i / (2 * run) * (2 * run);
    const int64_t other = own == base ? base + run : base;
    const int64_t n_other = other >= n ? 0 : n - other < run ? n - other : run;
    const uint64_t pair = pairs[i];
    merged[base + (i - own) + count_below(pairs + other, n_other, pair)] = pair;
}

/// `rows_per_block` rows of dx per blockIdx.x, their groups of N columns spread over threads and blockIdx.y.
template <int N>
__global__ void add_rows(const float *dy, const uint64_t *pairs, int64_t n, int64_t n_rows,
                         int64_t n_columns, int rows_per_block, bool accumulate, float *dx) {
    __shared__ int64_t start[MOST_ROWS + 1];
    const int64_t first = (int64_t)blockIdx.x * rows_per_block;
    const int n_here = (int)(n_rows - first < rows_per_block ? n_rows - first : rows_per_block);
    if ((int)threadIdx.x <= n_here)
        start[threadIdx.x] = count_below(pairs, n, (uint64_t)(first + threadIdx.x) << 32);
    __syncthreads();
    const int64_t n_groups = n_columns / N;
    for (int64_t u = (int64_t)blockIdx.y * THREADS + threadIdx.x; u < n_here * n_groups;
         u += (int64_t)gridDim.y * THREADS) {
        const int row = (int)(u / n_groups);
        const int64_t column = (u - row * n_groups) * N, end = start[row + 1];
        float *to = dx + (first + row) * n_columns + column;
        float sum[N];
        if (accumulate) {
            if (start[row] == end) continue;
            load_items(to, sum);
        } else {
#pragma unroll
            for (int j = 0; j < N; ++j) sum[j] = 0;
        }
#pragma unroll 4
        for (int64_t q = start[row]; q < end; ++q) {
            float v[N];
            load_items(dy + (int64_t)(uint32_t)pairs[q] * n_columns + column, v);
#pragma unroll
            for (int j = 0; j < N; ++j) sum[j] += v[j];
        }
        store_items(to, sum);
    }
}

/// Enough blocks for a full card where there are enough rows, and no more binary searches than that takes.
void add_rows_grid(int64_t n_rows, int64_t n_groups, int *rows_per_block_p, dim3 *grid_p) {
    const int64_t most = MOST_ROWS, share = n_rows / 1024;
    const int64_t rows = share < 1 ? 1 : share < most ? share : most;
    const int64_t turns = (rows * n_groups + 4 * THREADS - 1) / (4 * THREADS);
    *rows_per_block_p = (int)rows;
    *grid_p = dim3((unsigned)((n_rows + rows - 1) / rows), (unsigned)(turns < 64 ? turns : 64), 1);
}

} // namespace

cudaError_t hirl_k_gather_rows(cudaStream_t stream, const float *x, int64_t n_rows,
                               int64_t n_columns, const int32_t *index, int64_t n,
                               hirl_k_fault_t *fault, float *y) {
    const gather_op f = {x, index, fault, y, n_rows, n_columns};
    return map<4>(stream, f, n * n_columns, n_columns % 4 == 0, x, y);
}

size_t hirl_k_gather_rows_backward_scratch(int64_t n) {
    return (n > TILE ? 2 : 1) * (size_t)n * sizeof(uint64_t);
}

cudaError_t hirl_k_gather_rows_backward(cudaStream_t stream, const float *dy, int64_t n,
                                        int64_t n_columns, const int32_t *index, int64_t n_rows,
                                        bool accumulate, void *scratch, hirl_k_fault_t *fault,
                                        float *dx) {
    if (n > INT32_MAX || n_rows > INT32_MAX) return cudaErrorInvalidValue;
    uint64_t *pairs = (uint64_t *)scratch, *other = pairs + n;
    int tile = 64;
    while (tile < TILE && tile < n) tile *= 2;
    HIRL_LAUNCH(sort_tiles, hirl_k_blocks(n, tile, INT32_MAX), tile / 2, 0, stream, index, n,
                n_rows, tile, fault, pairs);
    for (int64_t run = tile; run < n; run *= 2) {
        HIRL_LAUNCH(merge_runs, hirl_k_blocks(n, THREADS, INT32_MAX), THREADS, 0, stream,
                    (const uint64_t *)pairs, n, run, other);
        uint64_t *merged = other;
        other = pairs;
        pairs = merged;
    }
    int rows_per_block = 0;
    dim3 grid;
    if (n_columns % 4 == 0 && is_aligned<4>(dy) && is_aligned<4>(dx)) {
        add_rows_grid(n_rows, n_columns / 4, &rows_per_block, &grid);
        HIRL_LAUNCH((add_rows<4>), grid, THREADS, 0, stream, dy, (const uint64_t *)pairs, n, n_rows,
                    n_columns, rows_per_block, accumulate, dx);
    } else {
        add_rows_grid(n_rows, n_columns, &rows_per_block, &grid);
        HIRL_LAUNCH((add_rows<1>), grid, THREADS, 0, stream, dy, (const uint64_t *)pairs, n, n_rows,
                    n_columns, rows_per_block, accumulate, dx);
    }
    return hirl_k_end(stream);
}

cudaError_t hirl_k_concat_columns(cudaStream_t stream, const float *x1, int64_t n_first,
                                  const float *x2, int64_t n_second, int64_t n_rows, float *y) {
    concat_op f;
    f.n_first = n_first;
    f.n_second = n_second;
    f.x1 = x1;
    f.x2 = x2;
    f.y = y;
    return map<4>(stream, f, n_rows * (n_first + n_second), n_first % 4 == 0 && n_second % 4 == 0,
                  x1, x2, y);
}

cudaError_t hirl_k_split_columns(cudaStream_t stream, const float *y, int64_t n_rows,
                                 int64_t n_first, int64_t n_second, float *x1, float *x2) {
    split_op f;
    f.n_first = n_first;
    f.n_second = n_second;
    f.y = y;
    f.x1 = x1;
    f.x2 = x2;
    return map<4>(stream, f, n_rows * (n_first + n_second), n_first % 4 == 0 && n_second % 4 == 0,
                  y, (const float *)x1, (const float *)x2);
}
