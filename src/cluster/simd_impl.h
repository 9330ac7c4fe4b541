/// @file simd_impl.h
/// Vectors of the processor's own width and the one loop that all of src/cluster is fast through:
/// the products of a tile of rows with a panel of packed rows. Each product is one chain of fused
/// multiply-adds over the columns, in their order, whatever tile, block, thread or rank it is
/// computed in: so equal rows give equal bits everywhere. (Without fused multiply-add in hardware
/// the chain is of multiplications and additions; then bits differ between processors, but never
/// between decompositions.)
#ifndef HIRL_CLUSTER_SIMD_IMPL_H
#define HIRL_CLUSTER_SIMD_IMPL_H

#include <stddef.h>
#include <stdint.h>

// The tile: HIRL_TILE_ROWS x 2 accumulators, 2 panel vectors and 1 broadcast value fill the
// register file (32 or 16 registers).
#if defined(__AVX512F__)
#include <immintrin.h>
enum { HIRL_LANES = 16, HIRL_TILE_ROWS = 14 };
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
enum { HIRL_LANES = 8, HIRL_TILE_ROWS = 6 };
#else
enum { HIRL_LANES = 4, HIRL_TILE_ROWS = 6 };
#endif
enum { HIRL_TILE_COLS = 2 * HIRL_LANES, HIRL_PREFETCH = 12 };

typedef float hirl_vf_t __attribute__((vector_size(HIRL_LANES * 4)));
typedef int32_t hirl_vi_t __attribute__((vector_size(HIRL_LANES * 4)));

#define HIRL_INLINE static inline __attribute__((always_inline))

HIRL_INLINE hirl_vf_t hirl_vf_load(const float *aligned) { return *(const hirl_vf_t *)aligned; }

#if defined(__AVX512F__)

HIRL_INLINE hirl_vf_t hirl_vf_set(float x) { return (hirl_vf_t)_mm512_set1_ps(x); }

HIRL_INLINE hirl_vf_t hirl_vf_fma(hirl_vf_t a, hirl_vf_t b, hirl_vf_t c) {
    return (hirl_vf_t)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}

HIRL_INLINE hirl_vf_t hirl_vf_max(hirl_vf_t a, hirl_vf_t b) {
    return (hirl_vf_t)_mm512_max_ps((__m512)a, (__m512)b);
}

/// Bit i is set where a[i] > b[i].
HIRL_INLINE uint32_t hirl_vf_greater(hirl_vf_t a, hirl_vf_t b) {
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ);
}

/// Where value < *best, replaces *best and *best_index.
HIRL_INLINE void hirl_vf_keep_less(hirl_vf_t value, hirl_vi_t index, hirl_vf_t *best,
                                   hirl_vi_t *best_index) {
    const __mmask16 less = _mm512_cmp_ps_mask((__m512)value, (__m512)*best, _CMP_LT_OQ);
    *best = (hirl_vf_t)_mm512_min_ps((__m512)value, (__m512)*best);
    *best_index = (hirl_vi_t)_mm512_mask_mov_epi32((__m512i)*best_index, less, (__m512i)index);
}

#elif defined(__AVX2__) && defined(__FMA__)

HIRL_INLINE hirl_vf_t hirl_vf_set(float x) { return (hirl_vf_t)_mm256_set1_ps(x); }

HIRL_INLINE hirl_vf_t hirl_vf_fma(hirl_vf_t a, hirl_vf_t b, hirl_vf_t c) {
    return (hirl_vf_t)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}

HIRL_INLINE hirl_vf_t hirl_vf_max(hirl_vf_t a, hirl_vf_t b) {
    return (hirl_vf_t)_mm256_max_ps((__m256)a, (__m256)b);
}

HIRL_INLINE uint32_t hirl_vf_greater(hirl_vf_t a, hirl_vf_t b) {
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_GT_OQ));
}

HIRL_INLINE void hirl_vf_keep_less(hirl_vf_t value, hirl_vi_t index, hirl_vf_t *best,
                                   hirl_vi_t *best_index) {
    const __m256 less = _mm256_cmp_ps((__m256)value, (__m256)*best, _CMP_LT_OQ);
    *best = (hirl_vf_t)_mm256_min_ps((__m256)value, (__m256)*best);
    *best_index = (hirl_vi_t)_mm256_blendv_ps((__m256)*best_index, (__m256)index, less);
}

#else

HIRL_INLINE hirl_vf_t hirl_vf_set(float x) { return (hirl_vf_t){0} + x; }

HIRL_INLINE hirl_vf_t hirl_vf_fma(hirl_vf_t a, hirl_vf_t b, hirl_vf_t c) { return a * b + c; }

HIRL_INLINE hirl_vf_t hirl_vf_max(hirl_vf_t a, hirl_vf_t b) {
    const hirl_vi_t more = a > b;
    return (hirl_vf_t)((more & (hirl_vi_t)a) | (~more & (hirl_vi_t)b));
}

HIRL_INLINE uint32_t hirl_vf_greater(hirl_vf_t a, hirl_vf_t b) {
    uint32_t mask = 0;
    for (int i = 0; i < HIRL_LANES; i++) mask |= (uint32_t)(a[i] > b[i]) << i;
    return mask;
}

HIRL_INLINE void hirl_vf_keep_less(hirl_vf_t value, hirl_vi_t index, hirl_vf_t *best,
                                   hirl_vi_t *best_index) {
    const hirl_vi_t less = value < *best;
    *best = (hirl_vf_t)((less & (hirl_vi_t)value) | (~less & (hirl_vi_t)*best));
    *best_index = (less & index) | (~less & *best_index);
}

#endif

/// product[r][c / LANES][c % LANES] = row r . column c of the panel. Rows are `stride` floats apart
/// (0: all the same); panel: [d, HIRL_TILE_COLS], aligned.
HIRL_INLINE void hirl_tile_multiply(const float *rows, size_t stride, const float *panel, int d,
                                    hirl_vf_t product[HIRL_TILE_ROWS][2]) {
#pragma GCC unroll 16
    for (int r = 0; r < HIRL_TILE_ROWS; r++) product[r][0] = product[r][1] = (hirl_vf_t){0};
    for (int p = 0; p < d; p++) {
        // The panel comes from the second-level cache, so fast that its own prefetcher lags.
        __builtin_prefetch(panel + (size_t)(p + HIRL_PREFETCH) * HIRL_TILE_COLS);
        __builtin_prefetch(panel + (size_t)(p + HIRL_PREFETCH) * HIRL_TILE_COLS + HIRL_LANES);
        const hirl_vf_t low = hirl_vf_load(panel + (size_t)p * HIRL_TILE_COLS);
        const hirl_vf_t high = hirl_vf_load(panel + (size_t)p * HIRL_TILE_COLS + HIRL_LANES);
#pragma GCC unroll 16
        for (int r = 0; r < HIRL_TILE_ROWS; r++) {
            const hirl_vf_t x = hirl_vf_set(rows[(size_t)r * stride + (size_t)p]);
            product[r][0] = hirl_vf_fma(x, low, product[r][0]);
            product[r][1] = hirl_vf_fma(x, high, product[r][1]);
        }
    }
}

#endif
