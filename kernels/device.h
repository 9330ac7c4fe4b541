/// @file device.h
/// For .cu files: the one launch macro, element access, and sums over warps and blocks. The order of every sum is fixed by its shape.
#ifndef HIRL_KERNELS_DEVICE_H
#define HIRL_KERNELS_DEVICE_H

#include "kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

/// HIRL_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...); put a kernel whose name holds a comma in parentheses.
/// HIRL_DYNAMIC_SHARED(type, name): the launch's shared memory as an array. Both may be defined before, by a harness that runs
/// kernels elsewhere.
#ifndef HIRL_LAUNCH
#define HIRL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)               \
    do {                                                                          \
        auto hirl_kernel_ = kernel;                                               \
        hirl_kernel_<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__); \
    } while (0)
#define HIRL_DYNAMIC_SHARED(type, name)                       \
    extern __shared__ __align__(128) unsigned char name##_[]; \
    type *name = reinterpret_cast<type *>(name##_)
#endif

/// The end of every launcher: what the launches said; debug builds wait, so that a fault is told where it happened (nothing runs while
/// a graph is recorded).
static inline cudaError_t hirl_k_end(cudaStream_t stream) {
    cudaError_t code = cudaGetLastError();
#ifdef HIRL_DEBUG
    cudaStreamCaptureStatus state = cudaStreamCaptureStatusNone;
    if (code == cudaSuccess) code = cudaStreamIsCapturing(stream, &state);
    if (code == cudaSuccess && state == cudaStreamCaptureStatusNone)
        code = cudaStreamSynchronize(stream);
#endif
    (void)stream;
    return code;
}

/// Blocks of `block` threads for n items, at most `most` (kernels stride over the rest).
static inline unsigned hirl_k_blocks(int64_t n, int block, int64_t most) {
    int64_t blocks = (n + block - 1) / block;
    return (unsigned)(blocks < 1 ? 1 : blocks > most ? most : blocks);
}

namespace hirl_k {

typedef __nv_bfloat16 bf16;
typedef __half f16;

static __device__ __forceinline__ float load(const float *x) { return *x; }
static __device__ __forceinline__ float load(const bf16 *x) { return __bfloat162float(*x); }
static __device__ __forceinline__ float load(const f16 *x) { return __half2float(*x); }
static __device__ __forceinline__ void store(float *y, float value) { *y = value; }
static __device__ __forceinline__ void store(bf16 *y, float value) {
    *y = __float2bfloat16_rn(value);
}
static __device__ __forceinline__ void store(f16 *y, float value) { *y = __float2half_rn(value); }

/// Calls f with a value of the type that `dtype` (hirl_k_dtype_t) names; the value says nothing else.
template <typename F> static cudaError_t with_dtype(int dtype, const F &f) {
    switch (dtype) {
        case HIRL_K_F32: return f(float());
        case HIRL_K_BF16: return f(bf16());
        case HIRL_K_F16: return f(f16());
        default: return cudaErrorInvalidValue;
    }
}

/// N elements that move in one access of up to 16 bytes; the address must be a multiple of N elements.
template <typename T, int N> struct alignas(sizeof(T) * N) pack { T item[N]; };
template <typename T> __host__ __device__ constexpr int pack_items() { return 16 / (int)sizeof(T); }
/// True if `ptr` may be accessed in packs of 16 bytes.
static inline bool is_packed(const void *ptr) { return ((uintptr_t)ptr & 15) == 0; }

/// Sum over the lanes of a warp, the same bits in every lane. All 32 lanes take part.
template <typename T> static __device__ __forceinline__ T warp_sum(T value) {
    for (int offset = 16; offset > 0; offset >>= 1)
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}
static __device__ __forceinline__ float warp_max(float value) {
    for (int offset = 16; offset > 0; offset >>= 1)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
    return value;
}

/// Sum over the block, given to all its threads. `scratch`: 33 items of shared memory; blockDim.x is a multiple of 32, the block
/// one-dimensional. All threads take part.
template <typename T> static __device__ __forceinline__ T block_sum(T value, T *scratch) {
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    const int n_warps = (int)blockDim.x >> 5;
    value = warp_sum(value);
    __syncthreads(); // scratch may still be read from an earlier sum
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    if (warp == 0) {
        T total = warp_sum(lane < n_warps ? scratch[lane] : T(0));
        if (lane == 0) scratch[32] = total;
    }
    __syncthreads();
    return scratch[32];
}
static __device__ __forceinline__ float block_max(float value, float *scratch) {
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    const int n_warps = (int)blockDim.x >> 5;
    value = warp_max(value);
    __syncthreads();
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    if (warp == 0) {
        float most = warp_max(lane < n_warps ? scratch[lane] : -INFINITY);
        if (lane == 0) scratch[32] = most;
    }
    __syncthreads();
    return scratch[32];
}

/// Records an index out of range; false then.
static __device__ __forceinline__ bool in_range(int64_t value, int64_t limit, int op,
                                                int64_t position, hirl_k_fault_t *fault) {
    if (value >= 0 && value < limit) return true;
    if (atomicCAS(&fault->is_set, 0, 1) == 0) {
        fault->op = op;
        fault->position = position;
        fault->value = value;
        fault->limit = limit;
    }
    return false;
}

} // namespace hirl_k
#endif
