/// Dense arithmetic behind the emulated libraries: f32, bf16 and f16 arrays, and a blocked product in f32.
#ifndef HIRL_EMU_MATH_H
#define HIRL_EMU_MATH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "emu_half.h"

namespace hirl_emu {

inline float from_bf16(uint16_t bits) {
    const uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, sizeof x);
    return x;
}
inline uint16_t to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
/// Ten bits of mantissa, to nearest.
inline float to_tf32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7f800000u) == 0x7f800000u) return x;
    bits = (bits + 0x1000u) & ~0x1fffu;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/// How an array's elements lie in memory.
enum class format { f32, bf16, f16 };
inline int64_t item_bytes(format as) { return as == format::f32 ? 4 : 2; }

inline float load(const void *array, format as, int64_t i) {
    switch (as) {
        case format::bf16: return from_bf16(((const uint16_t *)array)[i]);
        case format::f16: return from_f16(((const uint16_t *)array)[i]);
        default: return ((const float *)array)[i];
    }
}
inline void store(void *array, format as, int64_t i, float x) {
    switch (as) {
        case format::bf16: ((uint16_t *)array)[i] = to_bf16(x); break;
        case format::f16: ((uint16_t *)array)[i] = to_f16(x); break;
        default: ((float *)array)[i] = x;
    }
}

/// Row-major c [m, n] = a b (+ c), one thread. Element (i, k) of a is at a[i * a_row + k * a_column]; rows of b and c are
/// contiguous. Each element is a sum in ascending k, in parts of 128 that are added up one by one.
void multiply(int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_column,
              const float *b, int64_t ldb, float *c, int64_t ldc, bool is_adding);
/// The same by all OpenMP threads.
void multiply_parallel(int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row,
                       int64_t a_column, const float *b, int64_t ldb, float *c, int64_t ldc,
                       bool is_adding);

} // namespace hirl_emu
#endif
