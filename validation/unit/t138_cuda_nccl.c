// The emulated NCCL: collectives of device memory against sums by hand, on the ranks of the world and of its parts, late like other work of a stream.
// test: ranks=1,2,3 backends=cuda timeout=60
#include <cuda_runtime_api.h>

#include "test.h"

#ifndef HIRL_CUDA_EMULATED

TEST_MAIN { SKIP("this build has no emulated device"); }

#else

#include <nccl.h>

#define NEED_CUDA(call) NEED((call) == cudaSuccess)
#define NEED_NCCL(call) NEED((call) == ncclSuccess)

enum { N = 1000 };

static cudaStream_t stream;
static float value(int rank, int i) { return (float)(rank * 100 + i % 17); } // sums are exact

static void *upload(const void *from, size_t bytes) {
    void *data = NULL;
    NEED_CUDA(cudaMalloc(&data, bytes));
    NEED_CUDA(cudaMemcpy(data, from, bytes, cudaMemcpyHostToDevice));
    return data;
}
static void download_free(void *to, void *from, size_t bytes) {
    NEED_CUDA(cudaStreamSynchronize(stream));
    NEED_CUDA(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
    NEED_CUDA(cudaFree(from));
}

static void check_reductions(ncclComm_t comm, int rank, int size, int first) {
    float x[N];
    for (int i = 0; i < N; ++i) x[i] = value(first + rank, i);
    for (int op = 0; op < 3; ++op) {
        const ncclRedOp_t ops[] = {ncclSum, ncclMax, ncclMin};
        float y[N], *d = upload(x, sizeof x);
        NEED_NCCL(ncclAllReduce(d, d, N, ncclFloat32, ops[op], comm, stream));
        download_free(y, d, sizeof y);
        int n_bad = 0;
        for (int i = 0; i < N; ++i) {
            float want = value(first, i);
            for (int r = 1; r < size; ++r) {
                const float other = value(first + r, i);
                want = op == 0 ? want + other : op == 1 ? fmaxf(want, other) : fminf(want, other);
            }
            n_bad += y[i] != want;
        }
        CHECK_EQ_I(n_bad, 0);
    }
    int32_t count[3] = {rank + 1, 7, -rank}, *d_count = upload(count, sizeof count);
    NEED_NCCL(ncclAllReduce(d_count, d_count, 3, ncclInt32, ncclSum, comm, stream));
    download_free(count, d_count, sizeof count);
    CHECK_EQ_I(count[0], size * (size + 1) / 2);
    CHECK_EQ_I(count[1], 7 * size);
    double wide = 1.0 / (rank + 1), sum = 0, *d_wide = upload(&wide, sizeof wide);
    NEED_NCCL(ncclAllReduce(d_wide, d_wide, 1, ncclFloat64, ncclSum, comm, stream));
    download_free(&wide, d_wide, sizeof wide);
    for (int r = 0; r < size; ++r) sum += 1.0 / (r + 1); // in the order of ranks
    CHECK(wide == sum);
    // bf16: 1 + 2^-8 is a tie, which goes to 1; three ranks sum up to 1 + 2^-7.
    uint16_t half = rank == 0 ? 0x3f80 : 0x3b80, *d_half = upload(&half, sizeof half);
    NEED_NCCL(ncclAllReduce(d_half, d_half, 1, ncclBfloat16, ncclSum, comm, stream));
    download_free(&half, d_half, sizeof half);
    CHECK_EQ_I(half, size < 3 ? 0x3f80 : 0x3f81);
}

static void check_moves(ncclComm_t comm, int rank, int size, int first) {
    float *x = calloc((size_t)size, N * sizeof *x), *y = calloc((size_t)size, N * sizeof *y);
    const size_t one = N * sizeof *x, all = (size_t)size * one;
    for (int i = 0; i < size * N; ++i) x[i] = value(first + rank, i) + (float)(i / N);
    // All-gather; reduce-scatter; broadcast from the last rank; a ring of messages.
    float *dx = upload(x, all), *dy = upload(x, all);
    NEED_NCCL(ncclAllGather(dx, dy, N, ncclFloat32, comm, stream));
    download_free(y, dy, all);
    int n_bad = 0;
    for (int i = 0; i < size * N; ++i) n_bad += y[i] != value(first + i / N, i % N);
    CHECK_EQ_I(n_bad, 0);
    dy = upload(x, one);
    NEED_NCCL(ncclReduceScatter(dx, dy, N, ncclFloat32, ncclSum, comm, stream));
    download_free(y, dy, one);
    n_bad = 0;
    for (int i = 0; i < N; ++i) {
        float want = 0;
        for (int r = 0; r < size; ++r) want += value(first + r, rank * N + i) + (float)rank;
        n_bad += y[i] != want;
    }
    CHECK_EQ_I(n_bad, 0);
    dy = upload(x, one);
    NEED_NCCL(ncclBroadcast(dx, dy, N, ncclFloat32, size - 1, comm, stream));
    download_free(y, dy, one);
    n_bad = 0;
    for (int i = 0; i < N; ++i) n_bad += y[i] != value(first + size - 1, i);
    CHECK_EQ_I(n_bad, 0);
    dy = upload(x, one);
    NEED_NCCL(ncclGroupStart());
    NEED_NCCL(ncclSend(dx, N, ncclFloat32, (rank + 1) % size, comm, stream));
    NEED_NCCL(ncclRecv(dy, N, ncclFloat32, (rank + size - 1) % size, comm, stream));
    NEED_NCCL(ncclGroupEnd());
    download_free(y, dy, one);
    n_bad = 0;
    for (int i = 0; i < N; ++i) n_bad += y[i] != value(first + (rank + size - 1) % size, i);
    CHECK_EQ_I(n_bad, 0);
    NEED_CUDA(cudaFree(dx));
    free(x), free(y);
}

/// A communicator that must not block: every request is in progress until it was asked about twice.
static void check_states(ncclUniqueId id, int rank, int size) {
    ncclComm_t comm = NULL;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclResult_t state = ncclSuccess;
    config.blocking = 0;
    CHECK_EQ_I(ncclCommInitRankConfig(&comm, size, id, rank, &config), ncclInProgress);
    float x = 1, y = 0, *d = upload(&x, sizeof x);
    CHECK_EQ_I(ncclAllReduce(d, d, 1, ncclFloat32, ncclSum, comm, stream), ncclInvalidUsage);
    CHECK_HAS(ncclGetLastError(comm), "in progress");
    NEED_NCCL(ncclCommGetAsyncError(comm, &state));
    CHECK_EQ_I(state, ncclInProgress);
    NEED_NCCL(ncclCommGetAsyncError(comm, &state));
    CHECK_EQ_I(state, ncclSuccess);
    CHECK_EQ_I(ncclAllReduce(d, d, 1, ncclFloat32, ncclSum, comm, stream), ncclInProgress);
    NEED_NCCL(ncclCommGetAsyncError(comm, &state));
    // Late: what a stream beside it sees is the old value.
    cudaStream_t other = NULL;
    NEED_CUDA(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    NEED_CUDA(cudaMemcpyAsync(&y, d, sizeof y, cudaMemcpyDeviceToHost, other));
    CHECK(y == 1);
    NEED_CUDA(cudaStreamSynchronize(stream));
    NEED_CUDA(cudaMemcpyAsync(&y, d, sizeof y, cudaMemcpyDeviceToHost, other));
    CHECK(y == (float)size);
    NEED_CUDA(cudaStreamDestroy(other));
    NEED_CUDA(cudaFree(d));
    NEED_NCCL(ncclCommAbort(comm));
    CHECK_EQ_I(ncclCommGetAsyncError(comm, &state), ncclInvalidArgument);
}

TEST_MAIN {
    const int rank = test_rank(), size = test_size();
    ncclComm_t comm = NULL, part = NULL;
    ncclUniqueId id;
    int version = 0, n = 0;
    memset(&id, 0, sizeof id);
    NEED_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    NEED_NCCL(ncclGetVersion(&version));
    CHECK_EQ_I(version, NCCL_VERSION_CODE);
    if (rank == 0) NEED_NCCL(ncclGetUniqueId(&id));
    if (size > 1) MPI_Bcast(&id, (int)sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
    NEED_NCCL(ncclCommInitRank(&comm, size, id, rank));
    NEED_NCCL(ncclCommCount(comm, &n));
    CHECK_EQ_I(n, size);
    check_reductions(comm, rank, size, 0);
    check_moves(comm, rank, size, 0);
    // The first rank alone, the others together.
    NEED_NCCL(ncclCommSplit(comm, rank == 0 ? 0 : 1, rank, &part, NULL));
    NEED_NCCL(ncclCommUserRank(part, &n));
    CHECK_EQ_I(n, rank == 0 ? 0 : rank - 1);
    check_reductions(part, n, rank == 0 ? 1 : size - 1, rank == 0 ? 0 : 1);
    check_moves(part, n, rank == 0 ? 1 : size - 1, rank == 0 ? 0 : 1);
    NEED_NCCL(ncclCommDestroy(part));
    NEED_NCCL(ncclCommSplit(comm, NCCL_SPLIT_NOCOLOR, 0, &part, NULL));
    CHECK(part == NULL);
    NEED_NCCL(ncclCommDestroy(comm));
    check_states(id, rank, size);
    NEED_CUDA(cudaStreamDestroy(stream));
}

#endif
