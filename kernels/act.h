/// @file act.h
/// For .cu files: activation functions and their slopes.
#ifndef HIRL_KERNELS_ACT_H
#define HIRL_KERNELS_ACT_H

#include "device.h"
#include "elementwise.h"

#include <type_traits>

namespace hirl_k {

/// ACT is a hirl_k_act_t. A NaN stays NaN: a run that has diverged must show.
template <int ACT> static __device__ __forceinline__ float activate(float x) {
    if (ACT == HIRL_K_ACT_RELU) return x <= 0.0f ? 0.0f : x;
    if (ACT == HIRL_K_ACT_GELU) return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    return x;
}

/// The slope at y of a ReLU, at x of a GELU: its distribution function plus x times its density.
template <int ACT> static __device__ __forceinline__ float act_slope(float saved) {
    if (ACT == HIRL_K_ACT_RELU) return saved > 0.0f ? 1.0f : 0.0f;
    if (ACT == HIRL_K_ACT_GELU)
        return 0.5f * (1.0f + erff(saved * 0.70710678f)) +
               saved * expf(-0.5f * saved * saved) * 0.39894228f;
    return 1.0f;
}

/// Calls f with std::integral_constant<int, ACT>.
template <typename F> static cudaError_t with_act(int act, const F &f) {
    if (act == HIRL_K_ACT_RELU) return f(std::integral_constant<int, HIRL_K_ACT_RELU>());
    if (act == HIRL_K_ACT_GELU) return f(std::integral_constant<int, HIRL_K_ACT_GELU>());
    return f(std::integral_constant<int, HIRL_K_ACT_NONE>());
}

} // namespace hirl_k
#endif
