/// @file exact.h
/// For .cu files: the sine and the logarithm of hirl/base_exact.h, number by number, and products that are rounded before they go into a
/// sum; the compiler would fuse them.
#ifndef HIRL_KERNELS_EXACT_H
#define HIRL_KERNELS_EXACT_H

#include "device.h"

#include <string.h>

namespace hirl_k {

static __device__ __forceinline__ float times(float a, float b) {
#ifdef __CUDACC__
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}
static __device__ __forceinline__ double times(double a, double b) {
#ifdef __CUDACC__
    return __dmul_rn(a, b);
#else
    return a * b;
#endif
}

static __device__ __forceinline__ double exact_sin_pi(double x) {
    const double shift = 6755399441055744.0;
    const double whole = (x + shift) - shift, part = x - whole;
    const double half = (times(whole, 0.5) + shift) - shift, odd = whole - times(2.0, half);
    const double z = times(part, part);
    double sum = 5.39266466260812895e-10;
    sum = times(sum, z) + -2.29484289972698730e-08;
    sum = times(sum, z) + 7.95205400147551261e-07;
    sum = times(sum, z) + -2.19153534478302173e-05;
    sum = times(sum, z) + 4.66302805767612554e-04;
    sum = times(sum, z) + -7.37043094571435044e-03;
    sum = times(sum, z) + 8.21458866111282326e-02;
    sum = times(sum, z) + -5.99264529320792105e-01;
    sum = times(sum, z) + 2.55016403987734552e+00;
    sum = times(sum, z) + -5.16771278004997026e+00;
    sum = times(sum, z) + 3.14159265358979312e+00;
    return times(1.0 - times(times(2.0, odd), odd), times(part, sum));
}

static __device__ __forceinline__ double exact_log(double x) {
    const uint64_t root = 0x3fe6a09e667f3bcdull, bias = 1023ull << 52;
    uint64_t bits;
    double m;
    memcpy(&bits, &x, sizeof bits);
    const uint64_t k = (bits + (bias - root)) >> 52;
    bits -= (k << 52) - bias;
    memcpy(&m, &bits, sizeof m);
    const double exponent = (double)k - 1023.0;
    const double s = (m - 1.0) / (m + 1.0), z = times(s, s);
    double sum = 2.0 / 21.0;
    sum = times(sum, z) + 2.0 / 19.0;
    sum = times(sum, z) + 2.0 / 17.0;
    sum = times(sum, z) + 2.0 / 15.0;
    sum = times(sum, z) + 2.0 / 13.0;
    sum = times(sum, z) + 2.0 / 11.0;
    sum = times(sum, z) + 2.0 / 9.0;
    sum = times(sum, z) + 2.0 / 7.0;
    sum = times(sum, z) + 2.0 / 5.0;
    sum = times(sum, z) + 2.0 / 3.0;
    const double low = times(exponent, 1.90821492927058770002e-10) + times(s, times(z, sum));
    return times(exponent, 6.93147180369123816490e-01) + (times(2.0, s) + low);
}

} // namespace hirl_k
#endif
