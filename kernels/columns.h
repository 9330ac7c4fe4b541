/// @file columns.h
/// For .cu files: sums down the columns of matrices, in an order that depends on their shapes alone.
///
/// A block of 256 threads takes up to 32 groups of N columns and a span of rows: thread (x, y) sums rows y, y + n_y, ... of group x in
/// f32, and the threads of a column are then added as a tree. Long matrices are cut into spans, whose sums are the rows
/// of a matrix that goes the same way.
#ifndef HIRL_KERNELS_COLUMNS_H
#define HIRL_KERNELS_COLUMNS_H

#include "map.h"

namespace hirl_k {

enum { COLUMN_THREADS = 256, COLUMN_BLOCKS = 512 };

/// How one or several matrices [n_rows, n_columns] are cut.
struct column_plan {
    int64_t n_rows, n_columns, span; // span: rows of a block
    int n_spans, log2_x;             // threads next to one another: 2^log2_x
    int64_t n_across;                // blocks next to one another
};

static inline column_plan plan_columns(int64_t n_rows, int64_t n_columns, int group,
                                       bool may_be_cut) {
    column_plan p = {n_rows, n_columns, n_rows, 1, 0, 0};
    const int64_t n_groups = (n_columns + group - 1) / group;
    while (p.log2_x < 5 && 1 << p.log2_x < n_groups) ++p.log2_x;
    p.n_across = (n_groups + (1 << p.log2_x) - 1) >> p.log2_x;
    if (!may_be_cut) return p;
    // A thread has 16 rows at least, and together there are enough blocks for a large card.
    const int64_t least = 16 * (COLUMN_THREADS >> p.log2_x), most = (n_rows + least - 1) / least;
    const int64_t wanted = (COLUMN_BLOCKS + p.n_across - 1) / p.n_across;
    const int64_t n_spans = most < wanted ? most : wanted;
    p.span = (n_rows + n_spans - 1) / n_spans;
    p.n_spans = (int)((n_rows + p.span - 1) / p.span);
    return p;
}

/// sums [matrices, n_spans, n_columns] (+)= sums over spans of x [matrices, n_rows, n_columns], over `divisor`. N divides n_columns.
template <int N, bool is_packed_, typename T>
__global__ void sum_columns(const T *x, column_plan p, float divisor, bool accumulate,
                            float *sums) {
    __shared__ float part[N * COLUMN_THREADS];
    const int t = (int)threadIdx.x, n_x = 1 << p.log2_x, n_y = COLUMN_THREADS >> p.log2_x;
    const int t_x = t & (n_x - 1), t_y = t >> p.log2_x;
    const int64_t across = blockIdx.x % p.n_across, down = blockIdx.x / p.n_across;
    const int64_t matrix = down / p.n_spans, first = down % p.n_spans * p.span;
    const int64_t end = first + p.span < p.n_rows ? first + p.span : p.n_rows;
    const int64_t column = (across * n_x + t_x) * N;
    float sum[N];
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] = 0;
    if (column < p.n_columns) {
        const T *at = x + matrix * p.n_rows * p.n_columns + column;
#pragma unroll 4
        for (int64_t row = first + t_y; row < end; row += n_y) {
            float v[N];
            if (is_packed_) {
                load_items(at + row * p.n_columns, v);
            } else {
#pragma unroll
                for (int j = 0; j < N; ++j) v[j] = load(at + row * p.n_columns + j);
            }
#pragma unroll
            for (int j = 0; j < N; ++j) sum[j] += v[j];
        }
    }
#pragma unroll
    for (int j = 0; j < N; ++j) part[j * COLUMN_THREADS + t] = sum[j];
    for (int half = n_y >> 1; half > 0; half >>= 1) {
        __syncthreads();
        if (t_y < half) {
#pragma unroll
            for (int j = 0; j < N; ++j)
                part[j * COLUMN_THREADS + t] += part[j * COLUMN_THREADS + t + half * n_x];
        }
    }
    if (t_y == 0 && column < p.n_columns) {
        float *to = sums + down * p.n_columns + column;
#pragma unroll
        for (int j = 0; j < N; ++j) {
            const float value = part[j * COLUMN_THREADS + t] / divisor;
            to[j] = accumulate ? to[j] + value : value;
        }
    }
}

/// Columns that a thread takes: what is aligned does not matter to it, so the order of sums does not depend on that either.
template <typename T> static inline int column_group(int64_t n_columns) {
    return n_columns % group_items<T>() == 0 ? group_items<T>() : 1;
}

template <typename T>
static void launch_sum_columns(cudaStream_t stream, const T *x, int64_t n_matrices,
                               const column_plan &p, float divisor, bool accumulate, float *sums) {
    constexpr int N = group_items<T>();
    const unsigned n_blocks = (unsigned)(n_matrices * p.n_spans * p.n_across);
    if (p.n_columns % N != 0)
        HIRL_LAUNCH((sum_columns<1, true, T>), n_blocks, COLUMN_THREADS, 0, stream, x, p, divisor,
                    accumulate, sums);
    else if (is_packed(x))
        HIRL_LAUNCH((sum_columns<N, true, T>), n_blocks, COLUMN_THREADS, 0, stream, x, p, divisor,
                    accumulate, sums);
    else
        HIRL_LAUNCH((sum_columns<N, false, T>), n_blocks, COLUMN_THREADS, 0, stream, x, p, divisor,
                    accumulate, sums);
}

} // namespace hirl_k
#endif
