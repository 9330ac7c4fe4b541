/// Kernels that the emulated device's own test runs: right ones, and ones that break a rule each.
#ifndef HIRL_EMU_TEST_KERNELS_H
#define HIRL_EMU_TEST_KERNELS_H

#include "cuda_runtime_api.h"

#ifdef __cplusplus
extern "C" {
#endif

// What is right.
void emu_fill(cudaStream_t stream, int *y, int n, int value);
void emu_index(cudaStream_t stream, dim3 grid, dim3 block, unsigned *y); // [threads, 6]
void emu_order(cudaStream_t stream, int n_threads, int *counter, int *y);
void emu_reverse(cudaStream_t stream, int n_threads, const float *x, float *y);
void emu_block_sums(cudaStream_t stream, int n_blocks, int n_threads, const float *x, float *y);
void emu_shuffles(cudaStream_t stream, int width, int amount, const int *x, int *y); // [4, 32]
void emu_shuffle_double(cudaStream_t stream, const double *x, double *y);
void emu_votes(cudaStream_t stream, const int *x, unsigned *y); // ballot, any, all of odd lanes
void emu_half_warps(cudaStream_t stream, const int *x, int *y);
void emu_atomics(cudaStream_t stream, int n_blocks, int n_threads, int *y); // [6]
void emu_bf16(cudaStream_t stream, int n, const float *x, unsigned short *y, float *back);
void emu_arithmetic(cudaStream_t stream, int n, const float *x, int *y); // [n, 4]
/// y [16, 16] = 2 (a b^T + c): a, b bf16 [16, 24], of which 16 columns count; c [16, 16]; y column-major if asked.
void emu_product(cudaStream_t stream, const unsigned short *a, const unsigned short *b,
                 const float *c, int is_column_major, float *y);
void emu_missing_barrier(cudaStream_t stream, int n_threads, int *y);
cudaError_t emu_allow_shared(int bytes);
void emu_shared(cudaStream_t stream, size_t bytes, int last, unsigned char *y);
void emu_stale(cudaStream_t stream, int n_blocks, int *y);

// What breaks a rule.
void emu_bad_static_shared(cudaStream_t stream);
void emu_bad_barrier_end(cudaStream_t stream);
void emu_bad_barrier_line(cudaStream_t stream);
void emu_bad_shuffle_ended(cudaStream_t stream);
void emu_bad_shuffle_barrier(cudaStream_t stream);
void emu_bad_shuffle_caller(cudaStream_t stream);
void emu_bad_shuffle_partial(cudaStream_t stream);
void emu_bad_shuffle_source(cudaStream_t stream);
void emu_bad_shuffle_mixed(cudaStream_t stream);
void emu_bad_shuffle_width(cudaStream_t stream);
void emu_bad_product_lane(cudaStream_t stream);
void emu_bad_product_place(cudaStream_t stream);
void emu_launch_sizes(cudaStream_t stream, dim3 grid, dim3 block);
void emu_store(cudaStream_t stream, size_t address, int value); // the address passes unchecked
void emu_recurse(cudaStream_t stream, int depth, int *y);

#ifdef __cplusplus
}
#endif
#endif
