/// The emulated CUDA device, for tests: kernels (.cu compiled as C++17 by the host's compiler) and the host code around them
/// run without a GPU, with checks that a GPU does not make. Never part of the program.
///
/// How it runs. Blocks of a launch run one after another on one host thread; each thread of a block is a fiber that runs until
/// a barrier, a warp function or its end. Threads and blocks go in ascending order in some phases and in descending order
/// in others, so that a result that depends on the order differs. Streams are queues: work runs only when something waits
/// for it (HIRL_EMU_ORDER=late, the default; early: at once; random or random:SEED: some of it at any call).
///
/// What it catches, with a message that names kernel, block and thread, and an abort: barriers that not all threads reach, or
/// reach at different lines; shuffles and votes whose mask names lanes that ended, wait elsewhere or do not exist, or leaves
/// out the caller; wrong launch sizes; static shared memory above 48 KiB,
/// dynamic above that without cudaFuncSetAttribute or above 227 KiB; host
/// pointers given to kernels and libraries; accesses beyond allocations and dynamic shared memory (guard pages behind,
/// red zones at free), of freed memory, of device memory by host code; copies of the wrong kind or length; overflown stacks.
/// New memory and each block's shared memory hold NaN, so reading what was never written shows; missing waits and missing dependencies between streams show
/// as old data.
///
/// What it cannot catch: data races that hide in the few orders it runs, memory order between blocks and missing fences
/// (all accesses are in order here), reads between an allocation's end and the next multiple of 256 bytes, accesses inside one
/// allocation that a pool has divided, misaligned vector accesses, host pointers hidden in structs, anything about time or
/// registers, and how the real cuBLAS, cuDNN and NCCL choose, round or refuse.
///
/// Environment: HIRL_EMU_DEVICES (1), HIRL_EMU_OWNER (a number in the device's UUID; the process's id, so that ranks have a device
/// each; the same number for all makes it one that they share), HIRL_EMU_MEMORY (bytes of device memory), HIRL_EMU_MULTIPROCESSORS (4),
/// HIRL_EMU_ORDER, HIRL_EMU_PARANOID=1 (red zones are looked at after each piece of work), HIRL_EMU_PROTECT=pages (do not use
/// memory protection keys), HIRL_EMU_TRACE=1 (each piece of work on stderr as it runs), HIRL_EMU_FAIL=NAME:N[,NAME:N...]:
/// the N-th call of NAME fails with its usual code ("NAME:N+": that and all later ones); NAME is a function of this
/// interface, `launch` (a launch is refused) or `kernel` (a kernel faults as it runs: every later call fails).
/// HIRL_EMU_BLAS_EPILOGUES=0, HIRL_EMU_DNN_ENGINES=NUMBERS and HIRL_EMU_FASTEST=N: what the libraries offer and how long it takes
/// (emu_blas.cc, emu_dnn.cc, emu.h).
#ifndef HIRL_EMU_CUDA_RUNTIME_H
#define HIRL_EMU_CUDA_RUNTIME_H

#include "cuda_runtime_api.h"

#ifdef __cplusplus

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__
// The tag tells emu_shared.cc which variables these are.
#define __shared__ static __attribute__((abi_tag("hirl_shared")))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __grid_constant__

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// ---------------------------------------------------------------------------------------------- launches

namespace hirl_emu {

/// One launch: the kernel and copies of its arguments.
struct call {
    virtual ~call() {}
    virtual void run() = 0;
};

template <typename... P> struct call_of final : call {
    void (*kernel)(P...);
    std::tuple<std::decay_t<P>...> arguments;
    template <typename... A>
    explicit call_of(void (*kernel_)(P...), A &&...a)
        : kernel(kernel_), arguments(std::forward<A>(a)...) {}
    void run() override { std::apply(kernel, arguments); }
};

void launch(const char *name, const char *file, int line, const void *func, dim3 grid, dim3 block,
            size_t shared, cudaStream_t stream, call *work);
/// Aborts if a pointer argument does not lie in memory that kernels may touch. `position` counts from 1.
void check_argument(const char *name, const char *file, int line, int position, const void *ptr);
void *dynamic_shared();

template <typename T>
inline void check_one(const char *name, const char *file, int line, int position, const T &value) {
    if constexpr (std::is_pointer_v<T>) {
        if constexpr (!std::is_function_v<std::remove_pointer_t<T>>)
            check_argument(name, file, line, position, (const void *)value);
    }
    (void)name, (void)file, (void)line, (void)position, (void)value;
}

template <typename... P, typename... A>
inline void launch_call(const char *name, const char *file, int line, void (*kernel)(P...),
                        dim3 grid, dim3 block, size_t shared, cudaStream_t stream, A &&...a) {
    static_assert(sizeof...(P) == sizeof...(A), "the kernel takes another number of arguments");
    static_assert((std::is_trivially_copyable_v<std::decay_t<P>> && ...),
                  "arguments of kernels are copied as bytes");
    auto *work = new call_of<P...>(kernel, static_cast<P>(std::forward<A>(a))...);
    int position = 0;
    std::apply([&](const auto &...v) { (check_one(name, file, line, ++position, v), ...); },
               work->arguments);
    launch(name, file, line, (const void *)kernel, grid, block, shared, stream, work);
}

} // namespace hirl_emu

#define HIRL_LAUNCH(kernel, ...) \
    ::hirl_emu::launch_call(#kernel, __FILE__, __LINE__, kernel, __VA_ARGS__)
#define HIRL_DYNAMIC_SHARED(type, name) \
    type *name = reinterpret_cast<type *>(::hirl_emu::dynamic_shared())

// ---------------------------------------------------------------------------------------------- barriers, warps

namespace hirl_emu {

enum class warp_op { sync, ballot, any, all, shfl, shfl_up, shfl_down, shfl_xor };

void barrier(const char *file, int line);
/// Meets the lanes of `mask`. `value` (size bytes, at most 16) is replaced by what lane `source` brought; returns
/// which lanes of the mask brought a true `predicate`.
unsigned meet(warp_op op, unsigned mask, int source, bool predicate, void *value, size_t size,
              const char *file, int line);
int lane();
[[noreturn]] void fail_width(int width, const char *file, int line);

template <typename T>
inline T shuffle(warp_op op, unsigned mask, T value, int source, const char *file, int line) {
    static_assert(sizeof(T) <= 16 && std::is_trivially_copyable_v<T>, "a shuffle of this type");
    meet(op, mask, source, false, &value, sizeof(T), file, line);
    return value;
}
inline void check_width(int width, const char *file, int line) {
    if (width < 1 || width > 32 || (width & (width - 1)) != 0) fail_width(width, file, line);
}

} // namespace hirl_emu

#define HIRL_EMU_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(HIRL_EMU_HERE) { hirl_emu::barrier(file, line); }
inline void __syncwarp(unsigned mask = 0xffffffffu, HIRL_EMU_HERE) {
    hirl_emu::meet(hirl_emu::warp_op::sync, mask, 0, false, nullptr, 0, file, line);
}
template <typename T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, HIRL_EMU_HERE) {
    hirl_emu::check_width(width, file, line);
    const int first = hirl_emu::lane() & ~(width - 1);
    return hirl_emu::shuffle(hirl_emu::warp_op::shfl, mask, value, first + (source & (width - 1)),
                             file, line);
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, HIRL_EMU_HERE) {
    hirl_emu::check_width(width, file, line);
    const int lane = hirl_emu::lane(), inside = lane & (width - 1);
    return hirl_emu::shuffle(hirl_emu::warp_op::shfl_up, mask, value,
                             (unsigned)inside < delta ? lane : lane - (int)delta, file, line);
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, HIRL_EMU_HERE) {
    hirl_emu::check_width(width, file, line);
    const int lane = hirl_emu::lane(), inside = lane & (width - 1);
    return hirl_emu::shuffle(hirl_emu::warp_op::shfl_down, mask, value,
                             delta >= (unsigned)(width - inside) ? lane : lane + (int)delta, file,
                             line);
}
/// A lane beyond the own part of `width` lanes may be read only in an earlier part; else the own value comes back.
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, HIRL_EMU_HERE) {
    hirl_emu::check_width(width, file, line);
    const int lane = hirl_emu::lane(), source = lane ^ bits, last = lane | (width - 1);
    return hirl_emu::shuffle(hirl_emu::warp_op::shfl_xor, mask, value,
                             source > last ? lane : source, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, HIRL_EMU_HERE) {
    return hirl_emu::meet(hirl_emu::warp_op::ballot, mask, 0, predicate != 0, nullptr, 0, file,
                          line);
}
inline int __any_sync(unsigned mask, int predicate, HIRL_EMU_HERE) {
    return hirl_emu::meet(hirl_emu::warp_op::any, mask, 0, predicate != 0, nullptr, 0, file,
                          line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, HIRL_EMU_HERE) {
    return hirl_emu::meet(hirl_emu::warp_op::all, mask, 0, predicate != 0, nullptr, 0, file,
                          line) == mask;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
[[noreturn]] void __trap();

// ---------------------------------------------------------------------------------------------- atomics
// Each fiber runs alone, so plain accesses do.

template <typename T> inline T hirl_emu_exchange(T *at, T value) {
    T old = *at;
    *at = value;
    return old;
}
inline int atomicAdd(int *at, int v) {
    return hirl_emu_exchange(at, (int)((unsigned)*at + (unsigned)v));
}
inline unsigned atomicAdd(unsigned *at, unsigned v) { return hirl_emu_exchange(at, *at + v); }
inline unsigned long long atomicAdd(unsigned long long *at, unsigned long long v) {
    return hirl_emu_exchange(at, *at + v);
}
inline float atomicAdd(float *at, float v) { return hirl_emu_exchange(at, *at + v); }
inline double atomicAdd(double *at, double v) { return hirl_emu_exchange(at, *at + v); }
inline int atomicSub(int *at, int v) {
    return hirl_emu_exchange(at, (int)((unsigned)*at - (unsigned)v));
}
inline unsigned atomicSub(unsigned *at, unsigned v) { return hirl_emu_exchange(at, *at - v); }
#define HIRL_EMU_ATOMIC_INTEGER(T)                                                      \
    inline T atomicMax(T *at, T v) { return hirl_emu_exchange(at, *at < v ? v : *at); } \
    inline T atomicMin(T *at, T v) { return hirl_emu_exchange(at, v < *at ? v : *at); } \
    inline T atomicExch(T *at, T v) { return hirl_emu_exchange(at, v); }                \
    inline T atomicAnd(T *at, T v) { return hirl_emu_exchange(at, (T)(*at & v)); }      \
    inline T atomicOr(T *at, T v) { return hirl_emu_exchange(at, (T)(*at | v)); }       \
    inline T atomicXor(T *at, T v) { return hirl_emu_exchange(at, (T)(*at ^ v)); }      \
    inline T atomicCAS(T *at, T compare, T v) {                                         \
        return hirl_emu_exchange(at, *at == compare ? v : *at);                         \
    }
HIRL_EMU_ATOMIC_INTEGER(int)
HIRL_EMU_ATOMIC_INTEGER(unsigned)
HIRL_EMU_ATOMIC_INTEGER(unsigned long long)
inline float atomicExch(float *at, float v) { return hirl_emu_exchange(at, v); }

// ---------------------------------------------------------------------------------------------- arithmetic

template <typename T> inline T __ldg(const T *ptr) { return *ptr; }
template <typename T> inline T __ldcs(const T *ptr) { return *ptr; }
template <typename T> inline T __ldcg(const T *ptr) { return *ptr; }
template <typename T> inline void __stcs(T *ptr, T value) { *ptr = value; }
template <typename T> inline void __stcg(T *ptr, T value) { *ptr = value; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz((unsigned)x); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll((unsigned long long)x); }
inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; ++i) y |= (x >> i & 1u) << (31 - i);
    return y;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((unsigned long long)a * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    __extension__ typedef unsigned __int128 wide;
    return (unsigned long long)((wide)a * b >> 64);
}

template <typename T, typename F> inline T hirl_emu_bits(F value) {
    static_assert(sizeof(T) == sizeof(F), "the same size");
    T bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline int __float_as_int(float x) { return hirl_emu_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return hirl_emu_bits<unsigned>(x); }
inline float __int_as_float(int x) { return hirl_emu_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return hirl_emu_bits<float>(x); }
inline long long __double_as_longlong(double x) { return hirl_emu_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return hirl_emu_bits<double>(x); }

/// To integers the hardware saturates, and NaN becomes 0.
inline int hirl_emu_to_int(float x) {
    if (x != x) return 0;
    if (x >= 2147483648.0f) return 2147483647;
    if (x < -2147483648.0f) return -2147483647 - 1;
    return (int)x;
}
inline int __float2int_rn(float x) { return hirl_emu_to_int(rintf(x)); }
inline int __float2int_rz(float x) { return hirl_emu_to_int(truncf(x)); }
inline int __float2int_rd(float x) { return hirl_emu_to_int(floorf(x)); }
inline int __float2int_ru(float x) { return hirl_emu_to_int(ceilf(x)); }
inline float __int2float_rn(int x) { return (float)x; }
inline float __uint2float_rn(unsigned x) { return (float)x; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }

#define HIRL_EMU_MIN_MAX(T)                          \
    inline T min(T a, T b) { return b < a ? b : a; } \
    inline T max(T a, T b) { return a < b ? b : a; }
HIRL_EMU_MIN_MAX(int)
HIRL_EMU_MIN_MAX(unsigned)
HIRL_EMU_MIN_MAX(long)
HIRL_EMU_MIN_MAX(unsigned long)
HIRL_EMU_MIN_MAX(long long)
HIRL_EMU_MIN_MAX(unsigned long long)
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

#define HIRL_EMU_MAKE2(type, name) \
    inline name make_##name(type x, type y) { return name{x, y}; }
#define HIRL_EMU_MAKE3(type, name) \
    inline name make_##name(type x, type y, type z) { return name{x, y, z}; }
#define HIRL_EMU_MAKE4(type, name) \
    inline name make_##name(type x, type y, type z, type w) { return name{x, y, z, w}; }
HIRL_EMU_MAKE2(char, char2)
HIRL_EMU_MAKE4(char, char4)
HIRL_EMU_MAKE2(unsigned char, uchar2)
HIRL_EMU_MAKE4(unsigned char, uchar4)
HIRL_EMU_MAKE2(short, short2)
HIRL_EMU_MAKE4(short, short4)
HIRL_EMU_MAKE2(unsigned short, ushort2)
HIRL_EMU_MAKE4(unsigned short, ushort4)
HIRL_EMU_MAKE2(int, int2)
HIRL_EMU_MAKE3(int, int3)
HIRL_EMU_MAKE4(int, int4)
HIRL_EMU_MAKE2(unsigned, uint2)
HIRL_EMU_MAKE3(unsigned, uint3)
HIRL_EMU_MAKE4(unsigned, uint4)
HIRL_EMU_MAKE2(long long, longlong2)
HIRL_EMU_MAKE2(unsigned long long, ulonglong2)
HIRL_EMU_MAKE2(float, float2)
HIRL_EMU_MAKE3(float, float3)
HIRL_EMU_MAKE4(float, float4)
HIRL_EMU_MAKE2(double, double2)

// ---------------------------------------------------------------------------------------------- typed calls

template <typename T> inline cudaError_t cudaMalloc(T **ptr, size_t bytes) {
    return ::cudaMalloc((void **)(void *)ptr, bytes);
}
template <typename T> inline cudaError_t cudaMallocHost(T **ptr, size_t bytes) {
    return ::cudaMallocHost((void **)(void *)ptr, bytes);
}
template <typename T> inline cudaError_t cudaHostAlloc(T **ptr, size_t bytes, unsigned flags) {
    return ::cudaHostAlloc((void **)(void *)ptr, bytes, flags);
}
template <typename... P>
inline cudaError_t cudaFuncSetAttribute(void (*func)(P...), enum cudaFuncAttribute attr,
                                        int value) {
    return ::cudaFuncSetAttribute((const void *)func, attr, value);
}
template <typename... P>
inline cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes,
                                         void (*func)(P...)) {
    return ::cudaFuncGetAttributes(attributes, (const void *)func);
}
template <typename... P>
inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n_blocks, void (*func)(P...),
                                                                 int block_size,
                                                                 size_t dynamic_shared) {
    return ::cudaOccupancyMaxActiveBlocksPerMultiprocessor(n_blocks, (const void *)func, block_size,
                                                           dynamic_shared);
}

#endif
#endif
