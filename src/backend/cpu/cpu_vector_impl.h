/// Vectors of 16 floats in GCC's portable form (any instruction set; one register with AVX-512): loads and stores of f32 and
/// bf16, exponential, normal distribution.
/// Everything is inlined with constant `is_bf16` and `lanes`, so the branches on them vanish.
#ifndef HIRL_CPU_VECTOR_H
#define HIRL_CPU_VECTOR_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX__)
#include <immintrin.h>
#endif

// Vectors pass between functions only on paper: all of them are inlined.
#pragma GCC diagnostic ignored "-Wpsabi"

#define CPU_INLINE static inline __attribute__((always_inline))

enum { CPU_VECTOR = 16 };

/// Head of a parallel loop in a macro that has defined threads_ and is_parallel_.
#define CPU_PARALLEL _Pragma("omp parallel for num_threads(threads_) if (is_parallel_)")

typedef float vf_t __attribute__((vector_size(64)));
typedef int32_t vi_t __attribute__((vector_size(64)));
typedef uint32_t vu_t __attribute__((vector_size(64)));
typedef uint16_t vh_t __attribute__((vector_size(32)));
typedef float vf8_t __attribute__((vector_size(32)));
typedef double vd_t __attribute__((vector_size(64)));

CPU_INLINE vf_t vf_set(float x) { return (vf_t){0} + x; }

/// Elements [at, at + lanes) of an f32 or bf16 array; the other lanes are 0.
CPU_INLINE vf_t vf_load(const void *base, int64_t at, bool is_bf16, int lanes) {
    if (is_bf16) {
        vh_t half = {0};
        memcpy(&half, (const uint16_t *)base + at, (size_t)lanes * 2);
        return (vf_t)(__builtin_convertvector(half, vu_t) << 16);
    }
    vf_t x = {0};
    memcpy(&x, (const float *)base + at, (size_t)lanes * 4);
    return x;
}

/// Round to nearest even; a NaN stays one.
CPU_INLINE vh_t vf_to_bf16(vf_t x) {
    const vu_t bits = (vu_t)x;
    const vu_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const vu_t is_nan = (vu_t)(x != x);
    return __builtin_convertvector((rounded & ~is_nan) | (((bits >> 16) | 0x40) & is_nan), vh_t);
}

CPU_INLINE void vf_store(void *base, int64_t at, bool is_bf16, int lanes, vf_t x) {
    if (is_bf16) {
        const vh_t half = vf_to_bf16(x);
        memcpy((uint16_t *)base + at, &half, (size_t)lanes * 2);
    } else {
        memcpy((float *)base + at, &x, (size_t)lanes * 4);
    }
}

/// Whole vectors past the caches, for outputs that do not fit there anyway: memory is not read before it is written. The place
/// must be aligned to the vector's bytes, and vf_fence must follow before another thread reads.
CPU_INLINE void vf_stream(void *base, int64_t at, bool is_bf16, vf_t x) {
#if defined(__AVX512F__)
    if (is_bf16)
        _mm256_stream_si256((__m256i *)(void *)((uint16_t *)base + at), (__m256i)vf_to_bf16(x));
    else
        _mm512_stream_ps((float *)base + at, (__m512)x);
#elif defined(__AVX__)
    if (is_bf16) {
        _mm256_stream_si256((__m256i *)(void *)((uint16_t *)base + at), (__m256i)vf_to_bf16(x));
    } else {
        __m256 half[2];
        memcpy(half, &x, sizeof half);
        _mm256_stream_ps((float *)base + at, half[0]);
        _mm256_stream_ps((float *)base + at + 8, half[1]);
    }
#else
    vf_store(base, at, is_bf16, CPU_VECTOR, x);
#endif
}

CPU_INLINE void vf_fence(void) {
#if defined(__AVX__)
    _mm_sfence();
#endif
}

/// x where mask (all bits or none per lane), else 0.
CPU_INLINE vf_t vf_where(vi_t mask, vf_t x) { return (vf_t)((vi_t)x & mask); }
CPU_INLINE vf_t vf_select(vi_t mask, vf_t x, vf_t y) {
    return (vf_t)(((vi_t)x & mask) | ((vi_t)y & ~mask));
}
/// max(x, 0); NaN stays NaN, so that a diverged run shows.
CPU_INLINE vf_t vf_relu(vf_t x) { return (vf_t)((vi_t)x & ~(x < 0)); }

CPU_INLINE float bf16_to_f32(uint16_t x) {
    const uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, 4);
    return y;
}

/// Sum of the lanes in a fixed order, in double.
CPU_INLINE double vf_sum(vf_t x) {
    double lane[8];
    for (int i = 0; i < 8; ++i) lane[i] = (double)x[i] + (double)x[i + 8];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

typedef struct vd_pair {
    vd_t low, high;
} vd_pair_t;
CPU_INLINE vd_pair_t vf_widen(vf_t x) {
    const vf8_t low = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7);
    const vf8_t high = __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
    return (vd_pair_t){__builtin_convertvector(low, vd_t), __builtin_convertvector(high, vd_t)};
}
/// sum[0..16) += x.
CPU_INLINE void vf_add_wide(double *sum, vf_t x) {
    const vd_pair_t wide = vf_widen(x);
    vd_t low, high;
    memcpy(&low, sum, sizeof low);
    memcpy(&high, sum + 8, sizeof high);
    low += wide.low;
    high += wide.high;
    memcpy(sum, &low, sizeof low);
    memcpy(sum + 8, &high, sizeof high);
}

/// e^x within 2 units in the last place; 0 below -86.9, infinity above 88.7; NaN stays NaN.
/// e^x = 2^n e^r with |r| <= ln(2)/2; the polynomial is a minimax fit of relative error 3e-9.
CPU_INLINE vf_t vf_exp(vf_t x) {
    x = vf_select(x < -87.5f, vf_set(-87.5f), x);
    x = vf_select(x > 89.0f, vf_set(89.0f), x);
    const float magic =
        12582912.0f; // 1.5 * 2^23: adding it rounds to an integer, which is then in the low bits
    const vf_t t = x * 1.44269504f + magic;
    const vf_t n = t - magic;
    const vf_t r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    vf_t q = r * 1.3814466741e-03f + 8.3687804291e-03f;
    q = q * r + 4.1668394217e-02f;
    q = q * r + 1.6666520108e-01f;
    q = q * r + 4.9999993412e-01f;
    const vf_t p = (r * r) * q + r + 1.0f;
    // 2^(n - 1), then twice that: n reaches 128. n = -126 gives 0, so that results below the normal range vanish.
    const vi_t bits = ((vi_t)t - 0x4b400000 + 126) << 23;
    return p * (vf_t)bits * 2.0f;
}

/// Normal distribution: *cdf_p = P(X <= x) with small relative error also far below 0; returns exp(-x^2 / 2).
/// For a = |x|: P(X <= -a) = exp(-a^2 / 2) t P(t), t = 1 / (1 + 0.3 a); the polynomial is a minimax fit of relative error 4e-9.
CPU_INLINE vf_t vf_normal(vf_t x, vf_t *cdf_p) {
    const vf_t a = (vf_t)((vi_t)x & 0x7fffffff);
    const vf_t e = vf_exp(a * a * -0.5f);
    const vf_t t = 1.0f / (a * 0.3f + 1.0f);
    vf_t p = t * -2.0612096726e-02f + 1.1237189202e-01f;
    p = p * t + -2.2805857169e-01f;
    p = p * t + 1.9157000140e-01f;
    p = p * t + -7.9237781056e-02f;
    p = p * t + 9.6052774231e-02f;
    p = p * t + 7.8427305239e-02f;
    p = p * t + 1.1022695824e-01f;
    p = p * t + 1.1957288474e-01f;
    p = p * t + 1.1968663188e-01f;
    const vf_t tail = e * t * p;
    *cdf_p = vf_select(x < 0, tail, 1.0f - tail);
    return e;
}

/// x P(X <= x): GELU (Hendrycks and Gimpel 2016), and its derivative.
CPU_INLINE vf_t vf_gelu(vf_t x) {
    vf_t cdf;
    (void)vf_normal(x, &cdf);
    return x * cdf;
}
CPU_INLINE vf_t vf_gelu_slope(vf_t x) {
    vf_t cdf;
    const vf_t e = vf_normal(x, &cdf);
    return cdf + x * (e * 0.398942280f);
}

#endif
