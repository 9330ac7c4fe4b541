/// @file philox.h
/// For .cu files: Philox 4x32-10 (Salmon et al. 2011) and the streams that hirl/base.h defines, number by number.
#ifndef HIRL_KERNELS_PHILOX_H
#define HIRL_KERNELS_PHILOX_H

#include "device.h"

namespace hirl_k {

struct words {
    uint32_t v[4];
};

static __device__ __forceinline__ words philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3,
                                               uint32_t k0, uint32_t k1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = (uint64_t)c0 * 0xD2511F53u, b = (uint64_t)c2 * 0xCD9E8D57u;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

/// The stream of (seed, purpose, step, index, site).
struct rng_stream {
    uint32_t key[2], purpose, index[2];
    __device__ __forceinline__ rng_stream(uint64_t seed, uint32_t purpose_, uint64_t step,
                                          uint64_t index_, uint32_t site)
        : purpose(purpose_), index{(uint32_t)index_, (uint32_t)(index_ >> 32)} {
        const words derived = philox(purpose_, site, (uint32_t)step, (uint32_t)(step >> 32),
                                     (uint32_t)seed, (uint32_t)(seed >> 32));
        key[0] = derived.v[0];
        key[1] = derived.v[1];
    }
    /// Numbers 4 block .. 4 block + 3.
    __device__ __forceinline__ words block(uint32_t at) const {
        return philox(at, purpose, index[0], index[1], key[0], key[1]);
    }
};

} // namespace hirl_k
#endif
