// Communication of device memory by NCCL: its id travels by MPI, its work runs on a stream beside the backend's. An event of the backend's
// stream starts each collective, an event of this stream ends them all, so that no host thread waits.
// A non-blocking communicator: a rank that never comes, or dies, shows in ncclCommGetAsyncError or to the watchdog, not as a hang inside NCCL.
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <string.h>
#include <unistd.h>

#include "par_impl.h"

struct hirl_par_device {
    hirl_world_t *world; // HIRL_BORROW
    ncclComm_t comm;
    cudaStream_t compute, stream; // HIRL_BORROW; own, or that of the device it was split from
    cudaEvent_t is_ready, is_done;
    bool is_under_way, is_split;
};

static hirl_status_t fail_cuda(cudaError_t code, const char *what) {
    return HIRL_FAIL(HIRL_ERR_CUDA, "CUDA: %s (%s), from %.*s", cudaGetErrorString(code),
                     cudaGetErrorName(code), (int)strcspn(what, "("), what);
}

static hirl_status_t fail_nccl(const hirl_par_device_t *device, ncclResult_t code,
                               const char *what) {
    const char *more = device && device->comm ? ncclGetLastError(device->comm) : NULL;
    return HIRL_FAIL(HIRL_ERR_CUDA,
                     "NCCL: %s%s%s, from %.*s; NCCL_DEBUG=INFO in the environment tells more",
                     ncclGetErrorString(code), more && more[0] ? ": " : "", more ? more : "",
                     (int)strcspn(what, "("), what);
}

#define TRY_CUDA(call)                                                      \
    do {                                                                    \
        const cudaError_t cuda_code_ = (call);                              \
        if (cuda_code_ != cudaSuccess) return fail_cuda(cuda_code_, #call); \
    } while (0)
#define TRY_NCCL(device, call)                                         \
    do {                                                               \
        const ncclResult_t nccl_code_ = (call);                        \
        if (nccl_code_ != ncclSuccess && nccl_code_ != ncclInProgress) \
            return fail_nccl((device), nccl_code_, #call);             \
    } while (0)

/// Waits until the communicator has done what it was asked for by the host; kernels may still run.
static hirl_status_t settle(hirl_par_device_t *device, const char *what) {
    ncclResult_t state = ncclInProgress;
    hirl_beat_enter(what);
    hirl_status_t status = HIRL_OK;
    for (int i = 0; status == HIRL_OK && state == ncclInProgress; ++i) {
        const ncclResult_t code = ncclCommGetAsyncError(device->comm, &state);
        if (code != ncclSuccess) status = fail_nccl(device, code, what);
        if (status == HIRL_OK && state == ncclInProgress && i > 100) usleep(100);
    }
    hirl_beat_leave();
    if (status == HIRL_OK && state != ncclSuccess) status = fail_nccl(device, state, what);
    return status;
}

static hirl_status_t connect(hirl_par_device_t *device) {
    ncclUniqueId id;
    ncclResult_t code = ncclSuccess;
    if (device->world->rank == 0) code = ncclGetUniqueId(&id);
    // All ranks learn of a failure, or they would wait for an id that never comes.
    HIRL_TRY(hirl_par_agree(
        device->world, code == ncclSuccess ? HIRL_OK : fail_nccl(NULL, code, "ncclGetUniqueId")));
    HIRL_TRY(hirl_par_broadcast(device->world, &id, sizeof id, HIRL_PAR_U8, 0));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    TRY_NCCL(device, ncclCommInitRankConfig(&device->comm, device->world->size, id,
                                            device->world->rank, &config));
    return settle(device, "ncclCommInitRankConfig");
}

static hirl_status_t events_make(hirl_par_device_t *device) {
    TRY_CUDA(cudaEventCreateWithFlags(&device->is_ready, cudaEventDisableTiming));
    TRY_CUDA(cudaEventCreateWithFlags(&device->is_done, cudaEventDisableTiming));
    return HIRL_OK;
}

hirl_status_t hirl_par_device_create(hirl_world_t *world, void *stream,
                                     hirl_par_device_t **device_p) {
    hirl_par_device_t *device = NULL;
    HIRL_REQUIRE(stream, HIRL_ERR_ARG, "NCCL: the backend has no stream");
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &device));
    device->world = world;
    device->compute = stream;
    int least = 0, greatest = 0;
    cudaError_t code = cudaDeviceGetStreamPriorityRange(&least, &greatest);
    // Before kernels of the backward pass: the last bucket's sum is what the step waits for.
    if (code == cudaSuccess)
        code = cudaStreamCreateWithPriority(&device->stream, cudaStreamNonBlocking, greatest);
    hirl_status_t status = code == cudaSuccess ? HIRL_OK : fail_cuda(code, "a stream for NCCL");
    if (status == HIRL_OK) status = events_make(device);
    if (status == HIRL_OK) status = connect(device);
    if (status != HIRL_OK) {
        hirl_par_device_destroy(&device);
        return status;
    }
    *device_p = device;
    return HIRL_OK;
}

void hirl_par_device_destroy(hirl_par_device_t **device_p) {
    hirl_par_device_t *device = device_p ? *device_p : NULL;
    if (!device) return;
    *device_p = NULL;
    // Not finalised: after a failure that would wait for ranks that are gone.
    if (device->comm) (void)ncclCommAbort(device->comm);
    if (device->is_ready) (void)cudaEventDestroy(device->is_ready);
    if (device->is_done) (void)cudaEventDestroy(device->is_done);
    if (device->stream && !device->is_split) (void)cudaStreamDestroy(device->stream);
    hirl_mem_free(device);
}

hirl_status_t hirl_par_device_split(hirl_par_device_t *device, hirl_world_t *group,
                                    hirl_par_device_t **group_p) {
    hirl_par_device_t *split = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &split));
    split->world = group;
    split->compute = device->compute;
    split->stream = device->stream;
    split->is_split = true;
    const int color = device->world->rank / group->size;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    hirl_status_t status = events_make(split);
    if (status == HIRL_OK) {
        const ncclResult_t code =
            ncclCommSplit(device->comm, color, device->world->rank, &split->comm, &config);
        if (code != ncclSuccess && code != ncclInProgress)
            status = fail_nccl(device, code, "ncclCommSplit");
    }
    // The new communicator exists when the old one has done its part.
    if (status == HIRL_OK) status = settle(device, "ncclCommSplit");
    if (status == HIRL_OK) status = settle(split, "ncclCommSplit");
    if (status != HIRL_OK) {
        hirl_par_device_destroy(&split);
        return status;
    }
    *group_p = split;
    return HIRL_OK;
}

/// What is asked for next on the own stream comes after all that is now on the backend's.
static hirl_status_t follow_backend(hirl_par_device_t *device) {
    TRY_CUDA(cudaEventRecord(device->is_ready, device->compute));
    TRY_CUDA(cudaStreamWaitEvent(device->stream, device->is_ready, 0));
    return HIRL_OK;
}

static hirl_status_t backend_follows(hirl_par_device_t *device) {
    TRY_CUDA(cudaEventRecord(device->is_done, device->stream));
    TRY_CUDA(cudaStreamWaitEvent(device->compute, device->is_done, 0));
    return HIRL_OK;
}

hirl_status_t hirl_par_device_all_reduce_begin(hirl_par_device_t *device, float *d_data,
                                               int64_t n) {
    HIRL_REQUIRE(device && d_data && n >= 0, HIRL_ERR_ARG, "NCCL all-reduce: %s of %lld items",
                 d_data ? "a sum" : "no memory", (long long)n);
    HIRL_TRY(follow_backend(device));
    TRY_NCCL(device, ncclAllReduce(d_data, d_data, (size_t)n, ncclFloat32, ncclSum, device->comm,
                                   device->stream));
    device->is_under_way = true;
    return settle(device, "ncclAllReduce");
}

hirl_status_t hirl_par_device_all_reduce_end(hirl_par_device_t *device) {
    if (!device->is_under_way) return settle(device, "ncclAllReduce");
    device->is_under_way = false;
    HIRL_TRY(backend_follows(device));
    return settle(device, "ncclAllReduce");
}

hirl_status_t hirl_par_device_all_reduce(hirl_par_device_t *device, float *d_data, int64_t n) {
    HIRL_TRY(hirl_par_device_all_reduce_begin(device, d_data, n));
    return hirl_par_device_all_reduce_end(device);
}

hirl_status_t hirl_par_device_all_gather(hirl_par_device_t *device, const float *d_in, int64_t n,
                                         float *d_out) {
    HIRL_REQUIRE(device && d_in && d_out && n >= 0, HIRL_ERR_ARG,
                 "NCCL all-gather: no memory, or %lld items", (long long)n);
    HIRL_TRY(follow_backend(device));
    TRY_NCCL(device,
             ncclAllGather(d_in, d_out, (size_t)n, ncclFloat32, device->comm, device->stream));
    HIRL_TRY(settle(device, "ncclAllGather"));
    return backend_follows(device);
}

static hirl_status_t exchange(hirl_par_device_t *device, const float *d_in,
                              const int64_t *send_counts, float *d_out,
                              const int64_t *recv_counts) {
    for (int r = 0; r < device->world->size; ++r) {
        if (send_counts[r] > 0)
            TRY_NCCL(device, ncclSend(d_in, (size_t)send_counts[r], ncclFloat32, r, device->comm,
                                      device->stream));
        if (recv_counts[r] > 0)
            TRY_NCCL(device, ncclRecv(d_out, (size_t)recv_counts[r], ncclFloat32, r, device->comm,
                                      device->stream));
        d_in += send_counts[r];
        d_out += recv_counts[r];
    }
    return HIRL_OK;
}

hirl_status_t hirl_par_device_all_to_all_v(hirl_par_device_t *device, const float *d_in,
                                           const int64_t *send_counts, float *d_out,
                                           const int64_t *recv_counts) {
    HIRL_REQUIRE(device && d_in && d_out, HIRL_ERR_ARG, "NCCL all-to-all: no memory");
    for (int r = 0; r < device->world->size; ++r)
        HIRL_REQUIRE(send_counts[r] >= 0 && recv_counts[r] >= 0, HIRL_ERR_ARG,
                     "NCCL all-to-all: %lld items to rank %d, %lld from it",
                     (long long)send_counts[r], r, (long long)recv_counts[r]);
    HIRL_TRY(follow_backend(device));
    TRY_NCCL(device, ncclGroupStart());
    const hirl_status_t status = exchange(device, d_in, send_counts, d_out, recv_counts);
    const ncclResult_t code = ncclGroupEnd(); // the group is closed after a failure too
    HIRL_TRY(status);
    TRY_NCCL(device, code);
    HIRL_TRY(settle(device, "ncclGroupEnd"));
    return backend_follows(device);
}
