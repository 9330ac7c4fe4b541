/// Conversions between f32 and half precision, by their definition.
#ifndef HIRL_EMU_HALF_H
#define HIRL_EMU_HALF_H

#include <math.h>
#include <stdint.h>

namespace hirl_emu {

inline float from_f16(uint16_t bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const float size = exponent == 31  ? mantissa != 0 ? NAN : INFINITY
                       : exponent == 0 ? ldexpf((float)mantissa, -24)
                                       : ldexpf((float)(mantissa + 1024), exponent - 25);
    return bits & 0x8000 ? -size : size;
}
inline uint16_t to_f16(float x) {
    if (isnan(x)) return 0x7fff;
    const uint16_t sign = signbit(x) ? 0x8000 : 0;
    const float size = fabsf(x);
    if (size >= 65520.0f) return (uint16_t)(sign | 0x7c00); // half way to the next power of two
    int exponent = -14;
    if (size >= 0x1p-14f) exponent = ilogbf(size);
    // In units of the last place, of which a power of two has 1024; rounding up to 2048 moves on to the next by itself.
    const int units = (int)nearbyintf(ldexpf(size, 10 - exponent));
    return (uint16_t)(sign | ((exponent + 14) * 1024 + units));
}

} // namespace hirl_emu
#endif
