/// Half precision (IEEE 754 binary16) as CUDA's header gives it, for the emulated device: rounding to nearest even, beyond 65504 to
/// infinity, below 2^-14 to multiples of 2^-24; every NaN becomes 0x7fff.
#ifndef HIRL_EMU_CUDA_FP16_H
#define HIRL_EMU_CUDA_FP16_H

#include "cuda_runtime.h"

#ifdef __cplusplus

#include "emu_half.h"

struct __attribute__((aligned(2))) __half {
    unsigned short __x;
};
typedef __half half;

inline unsigned short __half_as_ushort(__half x) { return x.__x; }
inline __half __ushort_as_half(unsigned short bits) {
    __half x;
    x.__x = bits;
    return x;
}
inline __half __float2half_rn(float x) { return __ushort_as_half(hirl_emu::to_f16(x)); }
inline __half __float2half(float x) { return __float2half_rn(x); }
inline float __half2float(__half x) { return hirl_emu::from_f16(x.__x); }

#else

typedef struct {
    unsigned short __x;
} __half;

#endif
#endif
