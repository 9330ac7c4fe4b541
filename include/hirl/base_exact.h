/// @file base_exact.h
/// A sine and a logarithm made of sums, products and one quotient in a fixed order: the same bits on every processor, instruction set
/// and C library (compilers without contraction), also in kernels/exact.h, which repeats them number by number. The sine errs by less
/// than 4e-16, the logarithm by less than 2 units in the last place (Taylor's series, and that of atanh); loops over them become vectors.
#ifndef HIRL_BASE_EXACT_H
#define HIRL_BASE_EXACT_H

#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/// sin(pi x) for |x| < 2^50.
static inline double hirl_exact_sin_pi(double x) {
    const double shift = 6755399441055744.0; // 1.5 * 2^52: adding it rounds to whole numbers
    const double whole = (x + shift) - shift, part = x - whole;
    const double half = (whole * 0.5 + shift) - shift, odd = whole - 2.0 * half; // -1, 0 or 1
    const double z = part * part;
    double sum = 5.39266466260812895e-10;
    sum = sum * z + -2.29484289972698730e-08;
    sum = sum * z + 7.95205400147551261e-07;
    sum = sum * z + -2.19153534478302173e-05;
    sum = sum * z + 4.66302805767612554e-04;
    sum = sum * z + -7.37043094571435044e-03;
    sum = sum * z + 8.21458866111282326e-02;
    sum = sum * z + -5.99264529320792105e-01;
    sum = sum * z + 2.55016403987734552e+00;
    sum = sum * z + -5.16771278004997026e+00;
    sum = sum * z + 3.14159265358979312e+00;
    return (1.0 - 2.0 * odd * odd) * (part * sum);
}

/// Natural logarithm of a normal positive number: 2^exponent * m with m in [sqrt(1/2), sqrt(2)), log m = 2 atanh((m - 1) / (m + 1)).
static inline double hirl_exact_log(double x) {
    const uint64_t root = UINT64_C(0x3fe6a09e667f3bcd), bias = UINT64_C(1023) << 52;
    const double two52 = 4503599627370496.0;
    uint64_t bits, word;
    double m, biased;
    memcpy(&bits, &x, sizeof bits);
    const uint64_t k = (bits + (bias - root)) >> 52; // the exponent + 1023
    bits -= (k << 52) - bias;
    word = k | UINT64_C(0x4330000000000000);
    memcpy(&m, &bits, sizeof m);
    memcpy(&biased, &word, sizeof biased);
    const double exponent = (biased - two52) - 1023.0;
    const double s = (m - 1.0) / (m + 1.0), z = s * s;
    double sum = 2.0 / 21.0;
    sum = sum * z + 2.0 / 19.0;
    sum = sum * z + 2.0 / 17.0;
    sum = sum * z + 2.0 / 15.0;
    sum = sum * z + 2.0 / 13.0;
    sum = sum * z + 2.0 / 11.0;
    sum = sum * z + 2.0 / 9.0;
    sum = sum * z + 2.0 / 7.0;
    sum = sum * z + 2.0 / 5.0;
    sum = sum * z + 2.0 / 3.0;
    // The logarithm of 2 in two parts, of which products with exponents are exact in the first.
    const double low = exponent * 1.90821492927058770002e-10 + s * (z * sum);
    return exponent * 6.93147180369123816490e-01 + (2.0 * s + low);
}

#ifdef __cplusplus
}
#endif
#endif
