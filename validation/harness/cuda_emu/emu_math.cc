/// The product behind the emulated libraries. A block of rows and columns stays in registers for a part of the inner
/// length; the parts' sums meet in memory, which also keeps rounding errors small.
#include "emu_math.h"

#include <algorithm>

namespace hirl_emu {
namespace {

constexpr int block_rows = 4, block_columns = 32;
constexpr int64_t part = 128;

template <int M>
inline void block(int64_t n_inner, const float *a, int64_t a_row, int64_t a_column, const float *b,
                  int64_t ldb, float *c, int64_t ldc, int n, bool is_adding) {
    float sum[M][block_columns] = {};
    if (n == block_columns) {
        for (int64_t k = 0; k < n_inner; ++k, b += ldb)
            for (int i = 0; i < M; ++i) {
                const float x = a[i * a_row + k * a_column];
                for (int j = 0; j < block_columns; ++j) sum[i][j] += x * b[j];
            }
    } else {
        for (int64_t k = 0; k < n_inner; ++k, b += ldb)
            for (int i = 0; i < M; ++i) {
                const float x = a[i * a_row + k * a_column];
                for (int j = 0; j < n; ++j) sum[i][j] += x * b[j];
            }
    }
    for (int i = 0; i < M; ++i)
        for (int j = 0; j < n; ++j)
            c[i * ldc + j] = (is_adding ? c[i * ldc + j] : 0.0f) + sum[i][j];
}

} // namespace

void multiply(int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_column,
              const float *b, int64_t ldb, float *c, int64_t ldc, bool is_adding) {
    for (int64_t k0 = 0; k0 < k || k0 == 0; k0 += part) {
        const int64_t n_inner = std::min(part, k - k0);
        const bool is_later = is_adding || k0 > 0;
        for (int64_t j = 0; j < n; j += block_columns) {
            const int columns = (int)std::min((int64_t)block_columns, n - j);
            const float *bj = b + k0 * ldb + j;
            int64_t i = 0;
            for (; i + block_rows <= m; i += block_rows)
                block<block_rows>(n_inner, a + i * a_row + k0 * a_column, a_row, a_column, bj, ldb,
                                  c + i * ldc + j, ldc, columns, is_later);
            for (; i < m; ++i)
                block<1>(n_inner, a + i * a_row + k0 * a_column, a_row, a_column, bj, ldb,
                         c + i * ldc + j, ldc, columns, is_later);
        }
    }
}

void multiply_parallel(int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row,
                       int64_t a_column, const float *b, int64_t ldb, float *c, int64_t ldc,
                       bool is_adding) {
    constexpr int64_t rows = 32, columns = 128;
    const int64_t n_i = (m + rows - 1) / rows, n_j = (n + columns - 1) / columns;
    if (m * n * k < 1 << 15) {
        multiply(m, n, k, a, a_row, a_column, b, ldb, c, ldc, is_adding);
        return;
    }
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < n_i * n_j; ++t) {
        const int64_t i = t / n_j * rows, j = t % n_j * columns;
        multiply(std::min(rows, m - i), std::min(columns, n - j), k, a + i * a_row, a_row, a_column,
                 b + j, ldb, c + i * ldc + j, ldc, is_adding);
    }
}

} // namespace hirl_emu
