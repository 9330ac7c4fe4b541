/// Recording of operations as a CUDA graph. A graph keeps addresses: what was taken while it was recorded comes from a pool of its own,
/// whose memory no other operation gets as long as a graph lives. Graphs run one after the other, so that they share this pool: all that
/// one leaves for others must lie in memory from before the recording. Memory from before must outlive it, which is checked as far as can be.
#include "cuda_impl.h"

hirl_status_t hirl_cuda_capture_refuse(const cuda_ctx_t *ctx, const char *what) {
    HIRL_REQUIRE(!ctx->is_capturing, HIRL_ERR_UNSUPPORTED,
                 "%s cannot be recorded: it needs the host", what);
    return HIRL_OK;
}

hirl_status_t hirl_capture_begin_cuda(hirl_backend_t *be, const hirl_allocator_t **allocator_p) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    HIRL_TRY(hirl_cuda_capture_refuse(ctx, "a recording within a recording"));
    if (!ctx->graph_pool) HIRL_TRY(hirl_cuda_pool_create(ctx, &ctx->graph_pool));
    // The same operations took as much from the other pool when they were not recorded.
    HIRL_TRY(hirl_cuda_wait(ctx));
    hirl_pool_trim(ctx->pool);
    // Other threads (the loader's, NCCL's) may go on with their calls.
    const cudaError_t code = cudaStreamBeginCapture(ctx->stream, cudaStreamCaptureModeThreadLocal);
    (void)cudaGetLastError(); // told here, not by the next launch
    if (code != cudaSuccess)
        return hirl_cuda_fail(code, "cudaStreamBeginCapture", __FILE__, __LINE__, __func__);
    hirl_pool_set_kept(ctx->graph_pool, true);
    ctx->n_given_before = hirl_pool_n_given(ctx->pool);
    ctx->allocator = *allocator_p = hirl_pool_allocator_view(ctx->graph_pool);
    ctx->is_capturing = true;
    return HIRL_OK;
}

static hirl_status_t check_memory(const cuda_ctx_t *ctx) {
    HIRL_REQUIRE(hirl_pool_n_given(ctx->pool) == ctx->n_given_before, HIRL_ERR_UNSUPPORTED,
                 "memory from before the recording was given back in it");
    HIRL_REQUIRE(hirl_pool_used(ctx->graph_pool) == 0, HIRL_ERR_UNSUPPORTED,
                 "%zu bytes that were taken in the recording are still held after it",
                 hirl_pool_used(ctx->graph_pool));
    return HIRL_OK;
}

/// The last graph's memory may go.
static void give_memory(cuda_ctx_t *ctx) {
    if (ctx->n_graphs > 0) return;
    hirl_pool_set_kept(ctx->graph_pool, false);
    hirl_pool_trim(ctx->graph_pool);
}

hirl_status_t hirl_capture_end_cuda(hirl_backend_t *be, const hirl_allocator_t **allocator_p,
                                    void **graph_p) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    const cudaError_t code = cudaStreamEndCapture(ctx->stream, &graph);
    hirl_status_t status = HIRL_OK;
    ctx->is_capturing = false;
    ctx->allocator = *allocator_p = hirl_pool_allocator_view(ctx->pool);
    if (graph_p) {
        if (code != cudaSuccess)
            status = hirl_cuda_fail(code, "cudaStreamEndCapture", __FILE__, __LINE__, __func__);
        if (status == HIRL_OK) status = check_memory(ctx);
        if (status == HIRL_OK)
            HIRL_TRY_CUDA_GOTO(cudaGraphInstantiate(&exec, graph, 0), status, done);
    }
done:
    if (graph) (void)cudaGraphDestroy(graph);
    (void)
        cudaGetLastError(); // refusals are told here and by the calls that met them, not by the next launch
    if (exec) {
        ++ctx->n_graphs;
        *graph_p = exec;
    }
    give_memory(ctx);
    return status;
}

hirl_status_t hirl_graph_launch_cuda(hirl_backend_t *be, void *graph) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    HIRL_TRY(hirl_cuda_capture_refuse(ctx, "a graph"));
    HIRL_TRY_CUDA(cudaGraphLaunch(graph, ctx->stream));
    return HIRL_OK;
}

void hirl_graph_destroy_cuda(hirl_backend_t *be, void *graph) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    (void)cudaStreamSynchronize(ctx->stream);
    (void)cudaGraphExecDestroy(graph);
    --ctx->n_graphs;
    give_memory(ctx);
}
