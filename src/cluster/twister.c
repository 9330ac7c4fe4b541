/// @file twister.c
/// The random numbers of FAISS's clustering: std::mt19937, its permutation and its uniform number,
/// so that one seed chooses the same rows here and there. (Everything else in this program draws
/// from hirl_rng_t.)

#include "cluster_impl.h"

enum { STATE_SIZE = 624, SHIFT = 397 };

void hirl_twister_init(hirl_twister_t *twister, uint32_t seed) {
    uint32_t *s = twister->state;
    s[0] = seed;
    for (uint32_t i = 1; i < STATE_SIZE; i++)
        s[i] = 1812433253u * (s[i - 1] ^ (s[i - 1] >> 30)) + i;
    twister->next = STATE_SIZE;
}

static void advance(uint32_t *s) {
    for (int i = 0; i < STATE_SIZE; i++) {
        const uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % STATE_SIZE] & 0x7fffffffu);
        s[i] = s[(i + SHIFT) % STATE_SIZE] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
    }
}

uint32_t hirl_twister_u32(hirl_twister_t *twister) {
    if (twister->next == STATE_SIZE) {
        advance(twister->state);
        twister->next = 0;
    }
    uint32_t y = twister->state[twister->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

float hirl_twister_uniform(hirl_twister_t *twister) {
    return (float)hirl_twister_u32(twister) / (float)UINT32_MAX;
}

void hirl_twister_permute(int32_t *permutation, int64_t n, int64_t n_wanted, int64_t seed) {
    hirl_twister_t twister;
    hirl_twister_init(&twister, (uint32_t)seed);
    for (int64_t i = 0; i < n; i++) permutation[i] = (int32_t)i;
    // Item i is settled by its own swap: later ones do not touch it.
    for (int64_t i = 0; i + 1 < n && i < n_wanted; i++) {
        const int64_t j = i + hirl_twister_u32(&twister) % (uint32_t)(n - i);
        const int32_t item = permutation[i];
        permutation[i] = permutation[j];
        permutation[j] = item;
    }
}
