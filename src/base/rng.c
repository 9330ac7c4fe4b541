// Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", 2011). A stream's Philox key is the first half of Philox(key = seed, counter =
// {purpose, view, epoch}); its counters are {block, block's high bits | purpose, index}. Purpose
// and index are thus part of every counter: two streams that differ in one of them never share an
// input of Philox, whatever their keys. These rules are part of the answers.
#include "hirl/base.h"
#include "hirl/base_exact.h"

#include <math.h>

#include <Random123/philox.h>

enum { PURPOSE_BITS = 8, N_FEISTEL_ROUNDS = 8, N_NORMALS = 256, N_LANES = 16 };

static philox4x32_ctr_t philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0,
                               uint32_t k1) {
    philox4x32_ctr_t counter = {{c0, c1, c2, c3}};
    philox4x32_key_t key = {{k0, k1}};
    return philox4x32_R(10, counter, key);
}

hirl_rng_t hirl_rng_make(uint64_t seed, hirl_rng_purpose_t purpose, uint64_t epoch, uint64_t index,
                         uint32_t view) {
    HIRL_ASSERT((unsigned)purpose < 1u << PURPOSE_BITS);
    philox4x32_ctr_t derived =
        philox((uint32_t)purpose, view, (uint32_t)epoch, (uint32_t)(epoch >> 32), (uint32_t)seed,
               (uint32_t)(seed >> 32));
    hirl_rng_t rng = {
        .key = {derived.v[0], derived.v[1]},
        .counter = {0, (uint32_t)purpose, (uint32_t)index, (uint32_t)(index >> 32)},
    };
    return rng;
}

hirl_rng_t hirl_rng_part(const hirl_rng_t *rng, uint32_t part) {
    HIRL_ASSERT(part < 1u << (32 - PURPOSE_BITS));
    hirl_rng_t other = *rng;
    other.counter[0] = 0;
    other.counter[1] = (rng->counter[1] & ((1u << PURPOSE_BITS) - 1)) | part << PURPOSE_BITS;
    other.n_left = 0;
    return other;
}

uint32_t hirl_rng_u32(hirl_rng_t *rng) {
    if (rng->n_left == 0) {
        philox4x32_ctr_t out = philox(rng->counter[0], rng->counter[1], rng->counter[2],
                                      rng->counter[3], rng->key[0], rng->key[1]);
        for (int i = 0; i < 4; i++) rng->out[i] = out.v[i];
        rng->n_left = 4;
        if (++rng->counter[0] == 0) rng->counter[1] += 1u << PURPOSE_BITS;
    }
    return rng->out[4 - rng->n_left--];
}

uint64_t hirl_rng_u64(hirl_rng_t *rng) {
    uint64_t low = hirl_rng_u32(rng);
    return low | (uint64_t)hirl_rng_u32(rng) << 32;
}

double hirl_rng_uniform(hirl_rng_t *rng) { return (double)(hirl_rng_u64(rng) >> 11) * 0x1p-53; }

double hirl_rng_range(hirl_rng_t *rng, double low, double high) {
    double value = low + (high - low) * hirl_rng_uniform(rng);
    // The sum may round up to the open end.
    return value >= high && low < high ? nextafter(high, low) : value;
}

int64_t hirl_rng_below(hirl_rng_t *rng, int64_t n) {
    HIRL_ASSERT(n > 0);
    if (n <= 1) return 0;
    // 2^64 mod n values at the bottom are rejected; the rest is a whole number of periods of n.
    uint64_t period = (uint64_t)n, first = (UINT64_C(0) - period) % period, value;
    do {
        value = hirl_rng_u64(rng);
    } while (value < first);
    return (int64_t)(value % period);
}

double hirl_rng_normal(hirl_rng_t *rng) {
    double radius = sqrt(
        -2.0 * log(1.0 - hirl_rng_uniform(rng))); // 1 - u is in (0, 1]: the logarithm is finite
    return radius * cos(6.283185307179586476925 * hirl_rng_uniform(rng));
}

// Blocks first .. first + N_LANES - 1 of a stream. The rounds are written out here because of this loop: over the library's structures it takes
// twice the time (1.6 ns a number instead of 3.2, AVX-512).
static void philox_lanes(uint32_t first, const hirl_rng_t *rng, uint32_t *x) {
    uint32_t v[4][N_LANES];
    const uint32_t *counter = rng->counter, *key = rng->key;
    const uint32_t c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
#pragma omp simd
    for (int i = 0; i < N_LANES; ++i) {
        uint32_t a0 = first + (uint32_t)i, a1 = c1, a2 = c2, a3 = c3, key0 = k0, key1 = k1;
        for (int round = 0; round < 10; ++round) {
            const uint64_t low = (uint64_t)a0 * 0xD2511F53u, high = (uint64_t)a2 * 0xCD9E8D57u;
            a0 = (uint32_t)(high >> 32) ^ a1 ^ key0;
            a1 = (uint32_t)high;
            a2 = (uint32_t)(low >> 32) ^ a3 ^ key1;
            a3 = (uint32_t)low;
            key0 += 0x9E3779B9u;
            key1 += 0xBB67AE85u;
        }
        v[0][i] = a0;
        v[1][i] = a1;
        v[2][i] = a2;
        v[3][i] = a3;
    }
    for (int i = 0; i < N_LANES; ++i)
        for (int k = 0; k < 4; ++k) x[4 * i + k] = v[k][i];
}

void hirl_rng_words(const hirl_rng_t *rng, int64_t first, int64_t n, uint32_t *x) {
    HIRL_ASSERT(rng->counter[0] == 0 && rng->n_left == 0 && first >= 0 && n >= 0 &&
                first + n <= INT64_C(4) << 32);
    int64_t i = 0;
    while (i < n) {
        const int64_t at = first + i;
        if (at % 4 == 0 && n - i >= 4 * N_LANES) {
            philox_lanes((uint32_t)(at / 4), rng, x + i);
            i += 4 * N_LANES;
            continue;
        }
        const philox4x32_ctr_t out = philox((uint32_t)(at / 4), rng->counter[1], rng->counter[2],
                                            rng->counter[3], rng->key[0], rng->key[1]);
        for (int64_t k = at % 4; k < 4 && i < n; ++k) x[i++] = out.v[k];
    }
}

// Whole groups of N_NORMALS, whatever part of them is asked for: a number must not depend on whether it
// was computed in the vector loop or in its remainder.
void hirl_rng_normals(const hirl_rng_t *rng, int64_t first, int64_t n, double scale, float *x) {
    HIRL_ASSERT(rng->counter[0] == 0 && rng->n_left == 0 && first >= 0 && n >= 0 &&
                first + n <= UINT32_MAX);
    const uint32_t c1 = rng->counter[1], c2 = rng->counter[2], c3 = rng->counter[3];
    const uint32_t k0 = rng->key[0], k1 = rng->key[1];
    double u[N_NORMALS], v[N_NORMALS];
    for (int64_t group = first / N_NORMALS * N_NORMALS; group < first + n; group += N_NORMALS) {
#pragma omp simd
        for (int j = 0; j < N_NORMALS; ++j) {
            philox4x32_ctr_t out = philox((uint32_t)group + (uint32_t)j, c1, c2, c3, k0, k1);
            u[j] = (double)((out.v[0] | (uint64_t)out.v[1] << 32) >> 11) * 0x1p-53;
            v[j] = (double)((out.v[2] | (uint64_t)out.v[3] << 32) >> 11) * 0x1p-53;
        }
#pragma omp simd
        for (int j = 0; j < N_NORMALS; ++j)
            u[j] = sqrt(-2.0 * hirl_exact_log(1.0 - u[j])) * -hirl_exact_sin_pi(2.0 * v[j] - 0.5);
        const int64_t low = group > first ? group : first;
        const int64_t high = group + N_NORMALS < first + n ? group + N_NORMALS : first + n;
        for (int64_t i = low; i < high; ++i) x[i - first] = (float)(scale * u[i - group]);
    }
}

hirl_permutation_t hirl_permutation_make(uint64_t seed, hirl_rng_purpose_t purpose, uint64_t epoch,
                                         int64_t n) {
    HIRL_ASSERT(n >= 0);
    hirl_rng_t rng = hirl_rng_make(seed, purpose, epoch, (uint64_t)n, UINT32_MAX);
    // Feistel networks on two halves of two bits generate no more than an affine group (Even and
    // Goldreich, "DES-like functions can generate the alternating group", 1983): orders of 5 or
    // more items would not be equally likely.
    hirl_permutation_t permutation = {.n = (uint64_t)n, .half_bits = 3};
    permutation.key[0] = hirl_rng_u64(&rng);
    permutation.key[1] = hirl_rng_u64(&rng);
    while (permutation.half_bits < 32 && UINT64_C(1) << 2 * permutation.half_bits < permutation.n) {
        permutation.half_bits++;
    }
    return permutation;
}

// A 64-bit finaliser (two xor-shift-multiply steps): every input bit reaches every output bit.
static uint64_t mix(uint64_t x) {
    x ^= x >> 32;
    x *= UINT64_C(0xd6e8feb86659fd93);
    x ^= x >> 32;
    x *= UINT64_C(0xd6e8feb86659fd93);
    x ^= x >> 32;
    return x;
}

int64_t hirl_permutation_at(const hirl_permutation_t *permutation, int64_t i) {
    HIRL_ASSERT(i >= 0 && (uint64_t)i < permutation->n);
    const int half_bits = permutation->half_bits;
    const uint64_t half_mask = (UINT64_C(1) << half_bits) - 1;
    uint64_t at = (uint64_t)i;
    // The network permutes 0..4^half_bits-1; following a cycle until it is back below n restricts
    // it to 0..n-1.
    do {
        uint64_t left = at >> half_bits, right = at & half_mask;
        for (uint64_t round = 0; round < N_FEISTEL_ROUNDS; round++) {
            uint64_t key = permutation->key[round & 1] + round * UINT64_C(0x9e3779b97f4a7c15);
            uint64_t next = left ^ (mix(right + key) & half_mask);
            left = right;
            right = next;
        }
        at = left << half_bits | right;
    } while (at >= permutation->n);
    return (int64_t)at;
}
