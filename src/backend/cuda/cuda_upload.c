/// From host memory to the device, in the order of the operations or beside them, and marks between operations.
/// What is small and in order goes through pinned memory of the backend's own, in two halves that fill by turns, so that the host
/// neither waits for the stream nor has to keep its copy; a half is written again when what was in it has been read.
#include "cuda_impl.h"

#include <string.h>

enum { N_HALVES = 2, ALIGN = 64 };
static const size_t HALF_LEAST = (size_t)1 << 20;
static const size_t STAGED_MOST = (size_t)16
                                  << 20; // beyond this a second copy costs more than it saves

struct cuda_staging {
    char *memory[N_HALVES];
    size_t bytes[N_HALVES], used; // used of the half in turn
    cudaEvent_t is_read[N_HALVES];
    int turn;
};

hirl_status_t hirl_cuda_staging_create(cuda_staging_t **staging_p) {
    cuda_staging_t *staging = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &staging));
    for (int i = 0; i < N_HALVES; ++i)
        HIRL_TRY_CUDA_GOTO(cudaEventCreateWithFlags(&staging->is_read[i], cudaEventDisableTiming),
                           status, err);
    *staging_p = staging;
    return HIRL_OK;
err:
    hirl_cuda_staging_destroy(&staging);
    return status;
}

void hirl_cuda_staging_destroy(cuda_staging_t **staging) {
    cuda_staging_t *s = *staging;
    if (!s) return;
    *staging = NULL;
    for (int i = 0; i < N_HALVES; ++i) {
        if (s->memory[i]) (void)cudaFreeHost(s->memory[i]);
        if (s->is_read[i]) (void)cudaEventDestroy(s->is_read[i]);
    }
    hirl_mem_free(s);
}

/// Room for `bytes` in the half in turn, after a wait only if the device is two halves behind.
static hirl_status_t staging_reserve(cuda_ctx_t *ctx, size_t bytes, char **memory_p) {
    cuda_staging_t *s = ctx->staging;
    if (s->used + bytes > s->bytes[s->turn]) {
        if (s->used > 0) HIRL_TRY_CUDA(cudaEventRecord(s->is_read[s->turn], ctx->stream));
        s->turn = (s->turn + 1) % N_HALVES;
        s->used = 0;
        HIRL_TRY_CUDA(cudaEventSynchronize(s->is_read[s->turn]));
        if (bytes > s->bytes[s->turn]) {
            if (s->memory[s->turn]) HIRL_TRY_CUDA(cudaFreeHost(s->memory[s->turn]));
            s->memory[s->turn] = NULL;
            s->bytes[s->turn] = 0;
            const size_t size = bytes > HALF_LEAST ? bytes + bytes / 4 : HALF_LEAST;
            HIRL_TRY_CUDA(cudaMallocHost((void **)&s->memory[s->turn], size));
            s->bytes[s->turn] = size;
        }
    }
    *memory_p = s->memory[s->turn] + s->used;
    s->used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return HIRL_OK;
}

static bool is_pinned(const void *host) {
    struct cudaPointerAttributes facts;
    if (cudaPointerGetAttributes(&facts, host) == cudaSuccess)
        return facts.type == cudaMemoryTypeHost;
    (void)cudaGetLastError();
    return false;
}

hirl_status_t hirl_cuda_copy_in(cuda_ctx_t *ctx, void *to, const void *host, size_t bytes) {
    char *staged = NULL;
    HIRL_TRY(hirl_cuda_capture_refuse(ctx, "a copy from host memory"));
    if (bytes == 0) return HIRL_OK;
    if (bytes <= STAGED_MOST && !is_pinned(host)) {
        HIRL_TRY(staging_reserve(ctx, bytes, &staged));
        memcpy(staged, host, bytes);
        host = staged;
    }
    HIRL_TRY_CUDA(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, ctx->stream));
    return HIRL_OK;
}

/// The source is free again on return (what is large and pageable the runtime stages), unless it is pinned (hirl_backend_host_allocator_view).
hirl_status_t hirl_upload_cuda(hirl_backend_t *be, const void *host, const hirl_tensor_t *tensor) {
    return hirl_cuda_copy_in(cuda_ctx(be), hirl_tensor_data(tensor), host,
                             (size_t)hirl_tensor_count(tensor) * hirl_dtype_size(tensor->dtype));
}

// ---------------------------------------------------------------------------------------------- beside the operations

/// The copy stream waits for is_free, the operations for is_done.
typedef struct upload {
    cudaEvent_t is_free, is_done;
} upload_t;

void hirl_upload_destroy_cuda(hirl_backend_t *be, void *state) {
    upload_t *upload = state;
    (void)be;
    if (!upload) return;
    if (upload->is_done) (void)cudaEventSynchronize(upload->is_done);
    if (upload->is_free) (void)cudaEventDestroy(upload->is_free);
    if (upload->is_done) (void)cudaEventDestroy(upload->is_done);
    hirl_mem_free(upload);
}

hirl_status_t hirl_upload_create_cuda(hirl_backend_t *be, void **state_p) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    upload_t *upload = NULL;
    hirl_status_t status = HIRL_OK;
    if (!ctx->copy_stream)
        HIRL_TRY_CUDA(cudaStreamCreateWithFlags(&ctx->copy_stream, cudaStreamNonBlocking));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &upload));
    HIRL_TRY_CUDA_GOTO(cudaEventCreateWithFlags(&upload->is_free, cudaEventDisableTiming), status,
                       err);
    HIRL_TRY_CUDA_GOTO(cudaEventCreateWithFlags(&upload->is_done, cudaEventDisableTiming), status,
                       err);
    *state_p = upload;
    return HIRL_OK;
err:
    hirl_upload_destroy_cuda(be, upload);
    return status;
}

hirl_status_t hirl_upload_begin_cuda(hirl_backend_t *be, void *state, const void *host,
                                     const hirl_tensor_t *tensor) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    upload_t *upload = state;
    const size_t bytes = (size_t)hirl_tensor_count(tensor) * hirl_dtype_size(tensor->dtype);
    HIRL_TRY_CUDA(cudaStreamWaitEvent(ctx->copy_stream, upload->is_free, 0));
    if (bytes > 0)
        HIRL_TRY_CUDA(cudaMemcpyAsync(hirl_tensor_data(tensor), host, bytes, cudaMemcpyHostToDevice,
                                      ctx->copy_stream));
    HIRL_TRY_CUDA(cudaEventRecord(upload->is_done, ctx->copy_stream));
    return HIRL_OK;
}

hirl_status_t hirl_upload_end_cuda(hirl_backend_t *be, void *state) {
    upload_t *upload = state;
    HIRL_TRY_CUDA(cudaStreamWaitEvent(cuda_ctx(be)->stream, upload->is_done, 0));
    return HIRL_OK;
}

hirl_status_t hirl_upload_release_cuda(hirl_backend_t *be, void *state) {
    upload_t *upload = state;
    HIRL_TRY_CUDA(cudaEventRecord(upload->is_free, cuda_ctx(be)->stream));
    return HIRL_OK;
}

hirl_status_t hirl_mark_cuda(hirl_backend_t *be, int mark) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    if (!ctx->mark[mark]) HIRL_TRY_CUDA(cudaEventCreate(&ctx->mark[mark]));
    HIRL_TRY_CUDA(cudaEventRecord(ctx->mark[mark], ctx->stream));
    return HIRL_OK;
}

hirl_status_t hirl_mark_seconds_cuda(hirl_backend_t *be, int from, int to, double *seconds_p) {
    const cuda_ctx_t *ctx = cuda_ctx(be);
    float milliseconds = 0;
    HIRL_REQUIRE(ctx->mark[from] && ctx->mark[to], HIRL_ERR_ARG, "marks %d and %d were not set",
                 from, to);
    hirl_beat_enter("cudaEventSynchronize");
    const cudaError_t code = cudaEventSynchronize(ctx->mark[to]);
    hirl_beat_leave();
    HIRL_TRY_CUDA(code);
    HIRL_TRY_CUDA(cudaEventElapsedTime(&milliseconds, ctx->mark[from], ctx->mark[to]));
    *seconds_p = 1e-3 * (double)milliseconds;
    return HIRL_OK;
}
