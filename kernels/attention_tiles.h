/// @file attention_tiles.h
/// For attention.cu: products of tiles in shared memory by one warp, which owns 16 rows. tiles<float> multiplies by fused multiply-adds,
/// those of bf16 and f16 by tensor cores (wmma). Both give a thread the same kind of share of the 16 x COLUMNS scores: N_ROWS x N_COLUMNS of them, whose rows
/// and columns it knows, N_LANES neighbouring lanes having the same rows. All 32 lanes call every function.
#ifndef HIRL_KERNELS_ATTENTION_TILES_H
#define HIRL_KERNELS_ATTENTION_TILES_H

#include "device.h"

#include <mma.h>

namespace hirl_k {

enum { TILE_ROWS = 16 }; // of a warp

static __device__ __forceinline__ int own_lane() { return (int)threadIdx.x & 31; }

// ---------------------------------------------------------------------------------------------- bf16, f16
// The fragments of wmma keep to themselves which lane has what, so scores go to their thread by way of the warp's `buffer`: lane l has row l / 2
// and, of every eight columns, four. The same room then takes the probabilities, in 16 bits.

/// SIZE: room for columns of q, k and v; COLUMNS: of a tile of scores.
template <typename T, int SIZE, int COLUMNS> struct tiles {
    enum {
        ROW = SIZE + 8,
        SCORE_ROW = COLUMNS + 8,
        N_ROWS = 1,
        N_COLUMNS = COLUMNS / 2,
        N_LANES = 2,
        GROUP = 16
    };
    typedef nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, T, nvcuda::wmma::row_major>
        left;
    typedef nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, T, nvcuda::wmma::col_major>
        right_transposed;
    typedef nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, T, nvcuda::wmma::row_major>
        right;
    typedef nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> accumulator;

    static __device__ __forceinline__ int row(int) { return own_lane() / 2; }
    static __device__ __forceinline__ int column(int j) {
        return j / 4 * 8 + own_lane() % 2 * 4 + j % 4;
    }

    /// s = a b^T over `size` columns; a: the warp's 16 rows, b: n_columns rows. Columns beyond are 0 or those of rows of zeros.
    static __device__ __forceinline__ void scores(const T *a, const T *b, int size, int n_columns,
                                                  float *buffer, float (&s)[N_ROWS][N_COLUMNS]) {
        accumulator sums[COLUMNS / 16];
#pragma unroll
        for (int f = 0; f < COLUMNS / 16; ++f) nvcuda::wmma::fill_fragment(sums[f], 0.0f);
#pragma unroll
        for (int d = 0; d < SIZE; d += 16) {
            if (d >= size) break;
            left x;
            nvcuda::wmma::load_matrix_sync(x, a + d, ROW);
#pragma unroll
            for (int f = 0; f < COLUMNS / 16; ++f) {
                if (16 * f >= n_columns) break;
                right_transposed y;
                nvcuda::wmma::load_matrix_sync(y, b + 16 * f * ROW + d, ROW);
                nvcuda::wmma::mma_sync(sums[f], x, y, sums[f]);
            }
        }
        __syncwarp(); // an earlier product may still read there
#pragma unroll
        for (int f = 0; f < COLUMNS / 16; ++f)
            nvcuda::wmma::store_matrix_sync(buffer + 16 * f, sums[f], SCORE_ROW,
                                            nvcuda::wmma::mem_row_major);
        __syncwarp();
#pragma unroll
        for (int j = 0; j < N_COLUMNS; j += 4) {
            const pack<float, 4> x =
                *(const pack<float, 4> *)(buffer + row(0) * SCORE_ROW + column(j));
#pragma unroll
            for (int i = 0; i < 4; ++i) s[0][j + i] = x.item[i];
        }
    }

    /// The warp's scores to `buffer`, for sum::add.
    static __device__ __forceinline__ void put(const float (&s)[N_ROWS][N_COLUMNS], float *buffer) {
        T *to = (T *)buffer + row(0) * 2 * SCORE_ROW;
        __syncwarp();
#pragma unroll
        for (int j = 0; j < N_COLUMNS; j += 4) {
            pack<T, 4> x;
#pragma unroll
            for (int i = 0; i < 4; ++i) store(&x.item[i], s[0][j + i]);
            *(pack<T, 4> *)(to + column(j)) = x;
        }
        __syncwarp();
    }

    /// 16 x SIZE sums in registers.
    struct sum {
        accumulator item[SIZE / GROUP];

        __device__ __forceinline__ void clear() {
#pragma unroll
            for (int c = 0; c < SIZE / GROUP; ++c) nvcuda::wmma::fill_fragment(item[c], 0.0f);
        }
        /// Rows times factors, one for each of the thread's rows, by way of a fragment that holds each row's factor in all its columns:
        /// fragments of one type agree on who has what.
        __device__ __forceinline__ void scale(const float (&factor)[N_ROWS], float *buffer) {
            pack<float, 4> same;
#pragma unroll
            for (int i = 0; i < 4; ++i) same.item[i] = factor[0];
            __syncwarp();
            for (int c = own_lane() % 2 * 4; c < 16; c += 8)
                *(pack<float, 4> *)(buffer + row(0) * SCORE_ROW + c) = same;
            __syncwarp();
            accumulator factors;
            nvcuda::wmma::load_matrix_sync(factors, buffer, SCORE_ROW, nvcuda::wmma::mem_row_major);
#pragma unroll
            for (int c = 0; c < SIZE / GROUP; ++c)
#pragma unroll
                for (int i = 0; i < accumulator::num_elements; ++i) item[c].x[i] *= factors.x[i];
        }
        /// += p b: p the scores put to `buffer`, b: n_columns rows (more, up to a multiple of 16, are finite) of `size` columns.
        __device__ __forceinline__ void add(const float *buffer, const T *b, int n_columns,
                                            int size) {
#pragma unroll
            for (int k = 0; k < COLUMNS; k += 16) {
                if (k >= n_columns) break;
                left p;
                nvcuda::wmma::load_matrix_sync(p, (const T *)buffer + k, 2 * SCORE_ROW);
#pragma unroll
                for (int c = 0; c < SIZE / GROUP; ++c) {
                    if (GROUP * c >= size) break;
                    right x;
                    nvcuda::wmma::load_matrix_sync(x, b + k * ROW + GROUP * c, ROW);
                    nvcuda::wmma::mma_sync(item[c], p, x, item[c]);
                }
            }
        }
        /// Rows [0, n_rows) times their factors to y, whose rows are `stride` apart.
        __device__ __forceinline__ void write(const float (&factor)[N_ROWS], float *buffer, T *y,
                                              int64_t stride, int n_rows, int size) const {
#pragma unroll
            for (int first = 0; first < SIZE; first += 32) {
                if (first >= size) break;
                __syncwarp();
#pragma unroll
                for (int c = 0; c < 2; ++c)
                    nvcuda::wmma::store_matrix_sync(buffer + 16 * c, item[first / 16 + c],
                                                    SCORE_ROW, nvcuda::wmma::mem_row_major);
                __syncwarp();
#pragma unroll
                for (int c = own_lane() % 2 * 8; c < 32; c += 16) {
                    if (row(0) >= n_rows || first + c >= size) continue;
                    const pack<float, 4> *from =
                        (const pack<float, 4> *)(buffer + row(0) * SCORE_ROW + c);
                    pack<T, 8> out;
#pragma unroll
                    for (int i = 0; i < 8; ++i)
                        store(&out.item[i], from[i / 4].item[i % 4] * factor[0]);
                    *(pack<T, 8> *)(y + row(0) * stride + first + c) = out;
                }
            }
        }
    };
};

// ---------------------------------------------------------------------------------------------- f32
// Lane l: rows 4 (l / 8) + 0..3, columns l % 8 + 8 j. Rows of tiles are 4 floats longer than a multiple of 32, so that eight lanes that read 16 bytes of
// neighbouring rows meet no bank twice. `buffer` serves put and add alone.

template <int SIZE, int COLUMNS> struct tiles<float, SIZE, COLUMNS> {
    enum {
        ROW = SIZE + 4,          // elements of a tile's row
        SCORE_ROW = COLUMNS + 4, // floats of a row of scores
        N_ROWS = 4,
        N_COLUMNS = COLUMNS / 8,
        N_LANES = 8,
        GROUP = 32 // columns of an output that are computed together
    };
    typedef pack<float, 4> four;
    static __device__ __forceinline__ int row(int r) { return own_lane() / 8 * 4 + r; }
    static __device__ __forceinline__ int column(int j) { return own_lane() % 8 + 8 * j; }

    static __device__ __forceinline__ void scores(const float *a, const float *b, int size,
                                                  int n_columns, float *,
                                                  float (&s)[N_ROWS][N_COLUMNS]) {
#pragma unroll
        for (int r = 0; r < N_ROWS; ++r)
#pragma unroll
            for (int j = 0; j < N_COLUMNS; ++j) s[r][j] = 0;
        a += row(0) * ROW;
        b += column(0) * ROW;
        for (int d = 0; d < size; d += 4) {
            four x[N_ROWS];
#pragma unroll
            for (int r = 0; r < N_ROWS; ++r) x[r] = *(const four *)(a + r * ROW + d);
#pragma unroll
            for (int j = 0; j < N_COLUMNS; ++j) {
                if (8 * j >= n_columns) break;
                const four y = *(const four *)(b + 8 * j * ROW + d);
#pragma unroll
                for (int r = 0; r < N_ROWS; ++r)
#pragma unroll
                    for (int i = 0; i < 4; ++i) s[r][j] = fmaf(x[r].item[i], y.item[i], s[r][j]);
            }
        }
    }

    static __device__ __forceinline__ void put(const float (&s)[N_ROWS][N_COLUMNS], float *buffer) {
        __syncwarp(); // an earlier product may still read there
#pragma unroll
        for (int r = 0; r < N_ROWS; ++r)
#pragma unroll
            for (int j = 0; j < N_COLUMNS; ++j) buffer[row(r) * SCORE_ROW + column(j)] = s[r][j];
        __syncwarp();
    }

    /// Lane l has columns 32 c + 4 (l % 8) + 0..3 of its rows.
    struct sum {
        float item[N_ROWS][SIZE / GROUP][4];

        __device__ __forceinline__ void clear() {
#pragma unroll
            for (int r = 0; r < N_ROWS; ++r)
#pragma unroll
                for (int c = 0; c < SIZE / GROUP; ++c)
#pragma unroll
                    for (int i = 0; i < 4; ++i) item[r][c][i] = 0;
        }
        __device__ __forceinline__ void scale(const float (&factor)[N_ROWS], float *) {
#pragma unroll
            for (int r = 0; r < N_ROWS; ++r)
#pragma unroll
                for (int c = 0; c < SIZE / GROUP; ++c)
#pragma unroll
                    for (int i = 0; i < 4; ++i) item[r][c][i] *= factor[r];
        }
        __device__ __forceinline__ void add(const float *buffer, const float *b, int n_columns,
                                            int size) {
            buffer += row(0) * SCORE_ROW;
            b += own_lane() % 8 * 4;
            for (int k = 0; k < n_columns; k += 4) {
                four p[N_ROWS];
#pragma unroll
                for (int r = 0; r < N_ROWS; ++r) p[r] = *(const four *)(buffer + r * SCORE_ROW + k);
#pragma unroll
                for (int c = 0; c < SIZE / GROUP; ++c) {
                    if (GROUP * c >= size) break;
#pragma unroll
                    for (int l = 0; l < 4; ++l) {
                        const four x = *(const four *)(b + (k + l) * ROW + GROUP * c);
#pragma unroll
                        for (int r = 0; r < N_ROWS; ++r)
#pragma unroll
                            for (int i = 0; i < 4; ++i)
                                item[r][c][i] = fmaf(p[r].item[l], x.item[i], item[r][c][i]);
                    }
                }
            }
        }
        __device__ __forceinline__ void write(const float (&factor)[N_ROWS], float *, float *y,
                                              int64_t stride, int n_rows, int size) const {
#pragma unroll
            for (int r = 0; r < N_ROWS; ++r) {
                if (row(r) >= n_rows) continue;
#pragma unroll
                for (int c = 0; c < SIZE / GROUP; ++c) {
                    const int at = GROUP * c + own_lane() % 8 * 4;
                    if (at >= size) continue;
                    four out;
#pragma unroll
                    for (int i = 0; i < 4; ++i) out.item[i] = item[r][c][i] * factor[r];
                    *(four *)(y + row(r) * stride + at) = out;
                }
            }
        }
    };
};

} // namespace hirl_k
#endif
