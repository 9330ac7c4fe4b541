/// Kernels for the test of the emulated device itself. Each is as short as it can be, and some are wrong on purpose.
#include "emu_test_kernels.h"

#include "device.h"

#include <cuda_bf16.h>
#include <mma.h>

static __global__ void fill(int *y, int n, int value) {
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) y[i] = value;
}
void emu_fill(cudaStream_t stream, int *y, int n, int value) {
    HIRL_LAUNCH(fill, hirl_k_blocks(n, 64, 1 << 20), 64, 0, stream, y, n, value);
}

static __global__ void index(unsigned *y) {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    unsigned *at = y + 6 * (block * blockDim.x * blockDim.y * blockDim.z + thread);
    at[0] = blockIdx.x, at[1] = blockIdx.y, at[2] = blockIdx.z;
    at[3] = threadIdx.x, at[4] = threadIdx.y, at[5] = threadIdx.z;
}
void emu_index(cudaStream_t stream, dim3 grid, dim3 block, unsigned *y) {
    HIRL_LAUNCH(index, grid, block, 0, stream, y);
}

static __global__ void order(int *counter, int *y) { y[threadIdx.x] = atomicAdd(counter, 1); }
void emu_order(cudaStream_t stream, int n_threads, int *counter, int *y) {
    HIRL_LAUNCH(order, 1, (unsigned)n_threads, 0, stream, counter, y);
}

static __global__ void reverse(const float *x, float *y) {
    HIRL_DYNAMIC_SHARED(float, line);
    line[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = line[blockDim.x - 1 - threadIdx.x];
}
void emu_reverse(cudaStream_t stream, int n_threads, const float *x, float *y) {
    HIRL_LAUNCH(reverse, 1, (unsigned)n_threads, (size_t)n_threads * sizeof(float), stream, x, y);
}

template <typename T, int N> static __global__ void block_sums(const T *x, T *y) {
    __shared__ T scratch[33];
    const T sum = hirl_k::block_sum(x[blockIdx.x * blockDim.x + threadIdx.x] * N, scratch);
    if (threadIdx.x == 0) y[blockIdx.x] = sum;
}
void emu_block_sums(cudaStream_t stream, int n_blocks, int n_threads, const float *x, float *y) {
    HIRL_LAUNCH((block_sums<float, 2>), (unsigned)n_blocks, (unsigned)n_threads, 0, stream, x, y);
}

static __global__ void shuffles(int width, int amount, const int *x, int *y) {
    const int lane = (int)threadIdx.x;
    y[lane] = __shfl_sync(0xffffffffu, x[lane], amount, width);
    y[32 + lane] = __shfl_up_sync(0xffffffffu, x[lane], (unsigned)amount, width);
    y[64 + lane] = __shfl_down_sync(0xffffffffu, x[lane], (unsigned)amount, width);
    y[96 + lane] = __shfl_xor_sync(0xffffffffu, x[lane], amount, width);
}
void emu_shuffles(cudaStream_t stream, int width, int amount, const int *x, int *y) {
    HIRL_LAUNCH(shuffles, 1, 32, 0, stream, width, amount, x, y);
}

static __global__ void shuffle_double(const double *x, double *y) {
    y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 5);
}
void emu_shuffle_double(cudaStream_t stream, const double *x, double *y) {
    HIRL_LAUNCH(shuffle_double, 1, 32, 0, stream, x, y);
}

static __global__ void votes(const int *x, unsigned *y) {
    const int lane = (int)threadIdx.x & 31;
    const unsigned all = __ballot_sync(0xffffffffu, x[threadIdx.x]);
    __syncwarp();
    if (lane % 2 == 1) {
        const int any = __any_sync(0xaaaaaaaau, x[threadIdx.x]);
        const int every = __all_sync(0xaaaaaaaau, x[threadIdx.x]);
        const unsigned odd = __ballot_sync(0xaaaaaaaau, x[threadIdx.x]);
        if (lane == 1) y[0] = all, y[1] = odd, y[2] = (unsigned)any, y[3] = (unsigned)every;
    }
}
void emu_votes(cudaStream_t stream, const int *x, unsigned *y) {
    HIRL_LAUNCH(votes, 1, 32, 0, stream, x, y);
}

/// Two halves of a warp that do different things, and meet again.
static __global__ void half_warps(const int *x, int *y) {
    const int lane = (int)threadIdx.x;
    int value = x[lane];
    if (lane < 16)
        for (int offset = 8; offset > 0; offset >>= 1)
            value += __shfl_xor_sync(0x0000ffffu, value, offset);
    else
        value = __shfl_sync(0xffff0000u, value, 20);
    __syncthreads();
    y[lane] = value + __shfl_xor_sync(0xffffffffu, value, 16);
}
void emu_half_warps(cudaStream_t stream, const int *x, int *y) {
    HIRL_LAUNCH(half_warps, 1, 32, 0, stream, x, y);
}

static __global__ void atomics(int *y) {
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    atomicAdd(&y[0], i);
    atomicAdd((unsigned *)&y[1], 2u);
    atomicAdd((float *)&y[2], 0.5f);
    atomicMax(&y[3], i ^ 5);
    if (atomicCAS(&y[4], -1, i) == -1) atomicAdd(&y[5], 1);
}
void emu_atomics(cudaStream_t stream, int n_blocks, int n_threads, int *y) {
    HIRL_LAUNCH(atomics, (unsigned)n_blocks, (unsigned)n_threads, 0, stream, y);
}

static __global__ void bf16(int n, const float *x, unsigned short *y, float *back) {
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < n;
         i += (int)(gridDim.x * blockDim.x)) {
        const __nv_bfloat16 value = __float2bfloat16_rn(x[i]);
        y[i] = __bfloat16_as_ushort(value);
        back[i] = __bfloat162float(value);
    }
}
void emu_bf16(cudaStream_t stream, int n, const float *x, unsigned short *y, float *back) {
    HIRL_LAUNCH(bf16, 4, 128, 0, stream, n, x, y, back);
}

static __global__ void arithmetic(int n, const float *x, int *y) {
    const int i = (int)threadIdx.x;
    if (i >= n) return;
    y[4 * i] = __float2int_rn(x[i]);
    y[4 * i + 1] = __popc((unsigned)__float_as_int(x[i]));
    y[4 * i + 2] = __ffs(__float_as_int(x[i]));
    y[4 * i + 3] = __float_as_int(__int_as_float(__float_as_int(x[i])));
}
void emu_arithmetic(cudaStream_t stream, int n, const float *x, int *y) {
    HIRL_LAUNCH(arithmetic, 1, 64, 0, stream, n, x, y);
}

/// Right only if thread 0 runs first.
static __global__ void missing_barrier(int *y) {
    __shared__ int value;
    if (threadIdx.x == 0) value = 7;
    y[threadIdx.x] = value;
    __syncthreads();
    value = 0;
}
void emu_missing_barrier(cudaStream_t stream, int n_threads, int *y) {
    HIRL_LAUNCH(missing_barrier, 1, (unsigned)n_threads, 0, stream, y);
}

static __global__ void shared(int last, unsigned char *y) {
    HIRL_DYNAMIC_SHARED(unsigned char, bytes);
    y[0] = bytes[last];
}
cudaError_t emu_allow_shared(int bytes) {
    return cudaFuncSetAttribute(shared, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}
void emu_shared(cudaStream_t stream, size_t bytes, int last, unsigned char *y) {
    HIRL_LAUNCH(shared, 1, 1, bytes, stream, last, y);
}

/// What a block finds in its static shared memory.
template <typename T> static __global__ void stale(T *y) {
    __shared__ T value[4];
    y[blockIdx.x] = value[1];
    __syncthreads();
    value[1] = 5;
}
void emu_stale(cudaStream_t stream, int n_blocks, int *y) {
    HIRL_LAUNCH(stale<int>, (unsigned)n_blocks, 1, 0, stream, y);
}

// ---------------------------------------------------------------------------------------------- what breaks a rule

static __global__ void too_much_shared(char *y) {
    __shared__ char first[32768];
    __shared__ char second[16385];
    first[threadIdx.x] = second[threadIdx.x] = 1;
    y[0] = (char)(first[0] + second[0]);
}
void emu_bad_static_shared(cudaStream_t stream) {
    HIRL_LAUNCH(too_much_shared, 1, 1, 0, stream, (char *)nullptr);
}

static __global__ void barrier_end() {
    if (threadIdx.x == 40) return;
    __syncthreads();
}
void emu_bad_barrier_end(cudaStream_t stream) { HIRL_LAUNCH(barrier_end, 1, 64, 0, stream); }

static __global__ void barrier_line() {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}
void emu_bad_barrier_line(cudaStream_t stream) { HIRL_LAUNCH(barrier_line, 3, 64, 0, stream); }

static __global__ void shuffle_ended() {
    if (threadIdx.x == 9) return;
    __shfl_xor_sync(0xffffffffu, 1, 1);
}
void emu_bad_shuffle_ended(cudaStream_t stream) { HIRL_LAUNCH(shuffle_ended, 1, 32, 0, stream); }

static __global__ void shuffle_barrier() {
    if (threadIdx.x == 9) __syncthreads();
    __shfl_xor_sync(0xffffffffu, 1, 1);
    if (threadIdx.x != 9) __syncthreads();
}
void emu_bad_shuffle_barrier(cudaStream_t stream) {
    HIRL_LAUNCH(shuffle_barrier, 1, 32, 0, stream);
}

static __global__ void shuffle_caller() { __shfl_xor_sync(0xfffffffeu, 1, 1); }
void emu_bad_shuffle_caller(cudaStream_t stream) { HIRL_LAUNCH(shuffle_caller, 1, 32, 0, stream); }

static __global__ void shuffle_partial() { __shfl_xor_sync(0xffffffffu, 1, 1); }
void emu_bad_shuffle_partial(cudaStream_t stream) {
    HIRL_LAUNCH(shuffle_partial, 1, 40, 0, stream);
}

static __global__ void shuffle_source() {
    if (threadIdx.x < 16) __shfl_sync(0x0000ffffu, 1, 16);
}
void emu_bad_shuffle_source(cudaStream_t stream) { HIRL_LAUNCH(shuffle_source, 1, 32, 0, stream); }

static __global__ void shuffle_mixed() {
    if (threadIdx.x < 16)
        __ballot_sync(0xffffffffu, 1);
    else
        __shfl_xor_sync(0xffffffffu, 1, 1);
}
void emu_bad_shuffle_mixed(cudaStream_t stream) { HIRL_LAUNCH(shuffle_mixed, 1, 32, 0, stream); }

static __global__ void shuffle_width() { __shfl_xor_sync(0xffffffffu, 1, 1, 12); }
void emu_bad_shuffle_width(cudaStream_t stream) { HIRL_LAUNCH(shuffle_width, 1, 32, 0, stream); }

namespace wmma = nvcuda::wmma;
typedef wmma::fragment<wmma::matrix_a, 16, 16, 16, __nv_bfloat16, wmma::row_major> left;
typedef wmma::fragment<wmma::matrix_b, 16, 16, 16, __nv_bfloat16, wmma::col_major> right;
typedef wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums;

static __global__ void product(const __nv_bfloat16 *a, const __nv_bfloat16 *b, const float *c,
                               int is_column_major, float *y) {
    left x;
    right z;
    sums s, factor;
    wmma::load_matrix_sync(x, a, 24);
    wmma::load_matrix_sync(z, b, 24);
    wmma::load_matrix_sync(s, c, 16, wmma::mem_row_major);
    wmma::mma_sync(s, x, z, s);
    wmma::fill_fragment(factor, 2.0f);
    for (int i = 0; i < s.num_elements; ++i) s.x[i] *= factor.x[i];
    wmma::store_matrix_sync(y, s, 16, is_column_major ? wmma::mem_col_major : wmma::mem_row_major);
}
void emu_product(cudaStream_t stream, const unsigned short *a, const unsigned short *b,
                 const float *c, int is_column_major, float *y) {
    HIRL_LAUNCH(product, 1, 32, 0, stream, (const __nv_bfloat16 *)a, (const __nv_bfloat16 *)b, c,
                is_column_major, y);
}

static __global__ void product_lane() {
    left x;
    right z;
    sums s;
    wmma::fill_fragment(x, __float2bfloat16_rn(1.0f));
    wmma::fill_fragment(z, __float2bfloat16_rn(1.0f));
    wmma::fill_fragment(s, 0.0f);
    if (threadIdx.x != 9) wmma::mma_sync(s, x, z, s);
}
void emu_bad_product_lane(cudaStream_t stream) { HIRL_LAUNCH(product_lane, 1, 32, 0, stream); }

static __global__ void product_place() {
    HIRL_DYNAMIC_SHARED(__nv_bfloat16, tile);
    left x;
    wmma::load_matrix_sync(x, tile + 8, 16);
}
void emu_bad_product_place(cudaStream_t stream) { HIRL_LAUNCH(product_place, 1, 32, 1024, stream); }

static __global__ void nothing() {}
void emu_launch_sizes(cudaStream_t stream, dim3 grid, dim3 block) {
    HIRL_LAUNCH(nothing, grid, block, 0, stream);
}

static __global__ void store_one(size_t address, int value) {
    if (threadIdx.x == 3) *(char *)address = (char)value;
}
void emu_store(cudaStream_t stream, size_t address, int value) {
    HIRL_LAUNCH(store_one, 2, 4, 0, stream, address, value);
}

static __device__ int depth_of(int depth, volatile int *kept) {
    volatile int local[64];
    for (int i = 0; i < 64; ++i) local[i] = depth + kept[0];
    return depth == 0 ? 0 : depth_of(depth - 1, local) + (local[depth & 63] != 0);
}
static __global__ void recurse(int depth, int *y) {
    int zero = 0;
    y[threadIdx.x] = depth_of(depth, &zero);
}
void emu_recurse(cudaStream_t stream, int depth, int *y) {
    HIRL_LAUNCH(recurse, 1, 2, 0, stream, depth, y);
}
