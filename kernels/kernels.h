/// @file kernels.h
/// What all kernel launchers share. The launchers themselves are declared in one header per op family (elementwise.h, norm.h, ...).
///
/// Every launcher is `extern "C" cudaError_t hirl_k_<op>(cudaStream_t stream, ...)`: pointers to device memory, plain row-major arrays,
/// `int dtype` (hirl_k_dtype_t) for arrays declared `void *`. It asks for work on `stream`, waits for nothing, allocates
/// nothing, and returns what the launch said. Sums are taken in an order that depends on shapes alone: the same
/// inputs give the same bits. Counts are int64_t and may exceed 2^31. Readable as C and as C++.
#ifndef HIRL_KERNELS_H
#define HIRL_KERNELS_H

#include <cuda_runtime_api.h>

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum hirl_k_dtype { HIRL_K_F32 = 0, HIRL_K_BF16 = 1, HIRL_K_F16 = 2 } hirl_k_dtype_t;

/// What a kernel found wrong with its input (an index out of range). One record in device memory, zero while all is well; the
/// first finder fills it and the kernel leaves out the access. The host looks at it whenever it waits anyhow.
typedef struct hirl_k_fault {
    int32_t is_set;
    int32_t op;       // hirl_k_fault_op_t
    int64_t position; // element of the index array
    int64_t value;    // what it held
    int64_t limit;    // want 0..limit-1
} hirl_k_fault_t;

typedef enum hirl_k_fault_op {
    HIRL_K_FAULT_GATHER,
    HIRL_K_FAULT_SCATTER,
    HIRL_K_FAULT_TARGET,
    HIRL_K_FAULT_POSITIVE,
    HIRL_K_FAULT_NEGATIVE,
    HIRL_K_FAULT_SUM
} hirl_k_fault_op_t;

#ifdef __cplusplus
}
#endif
#endif
