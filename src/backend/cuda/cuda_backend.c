/// The cuda backend: opening a device, its table, working memory, and moving data.
#include "cuda_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GRANULE = 256, LEAST_CAPABILITY = 8 };

// ---------------------------------------------------------------------------------------------- errors

/// Of the call "f(x, y)" the "f".
static int name_length(const char *what) { return (int)strcspn(what, "("); }

hirl_status_t hirl_cuda_fail(cudaError_t code, const char *what, const char *file, int line,
                             const char *func) {
    const hirl_status_t status =
        code == cudaErrorMemoryAllocation ? HIRL_ERR_MEMORY : HIRL_ERR_CUDA;
    return hirl_error_record(status, file, line, func, "CUDA: %s (%s), from %.*s",
                             cudaGetErrorString(code), cudaGetErrorName(code), name_length(what),
                             what);
}

hirl_status_t hirl_cuda_fail_blas(cublasStatus_t code, const char *what, const char *file, int line,
                                  const char *func) {
    return hirl_error_record(HIRL_ERR_CUDA, file, line, func, "cuBLAS: %s, from %.*s",
                             cublasLtGetStatusString(code), name_length(what), what);
}

hirl_status_t hirl_cuda_fail_dnn(cudnnStatus_t code, const char *what, const char *file, int line,
                                 const char *func) {
    char text[200] = "";
    cudnnGetLastErrorString(text, sizeof text);
    return hirl_error_record(HIRL_ERR_CUDA, file, line, func, "cuDNN: %s%s%s, from %.*s",
                             cudnnGetErrorString(code), text[0] ? ": " : "", text,
                             name_length(what), what);
}

// ---------------------------------------------------------------------------------------------- memory

/// What graphs work in is theirs between their runs, too.
static size_t graph_memory(const cuda_ctx_t *ctx) {
    return ctx->n_graphs > 0 ? hirl_pool_held(ctx->graph_pool) : 0;
}

static hirl_status_t device_take(void *state, size_t bytes, void **memory_p) {
    cuda_ctx_t *ctx = state;
    // A recording, too, may make the pool grow: that is no work of the stream.
    enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    HIRL_TRY_CUDA(cudaThreadExchangeStreamCaptureMode(&mode));
    const cudaError_t code = cudaMalloc(memory_p, bytes);
    HIRL_TRY_CUDA(cudaThreadExchangeStreamCaptureMode(&mode));
    if (code == cudaSuccess) {
        char more[32], held[32];
        hirl_log_rank(HIRL_LOG_DEBUG, "device memory: %s more than %s",
                      hirl_text_bytes(more, (double)bytes),
                      hirl_text_bytes(held, (double)hirl_pool_held(ctx->pool)));
        return HIRL_OK;
    }
    (void)cudaGetLastError(); // the refusal is told here, not by the next launch
    if (code != cudaErrorMemoryAllocation)
        return hirl_cuda_fail(code, "cudaMalloc", __FILE__, __LINE__, __func__);
    size_t n_free = 0, n_total = 0;
    char asked[32], held[32], used[32], free_text[32], total[32], other[32];
    (void)cudaMemGetInfo(&n_free, &n_total);
    const size_t own = hirl_pool_held(ctx->pool) + graph_memory(ctx);
    return HIRL_FAIL(
        HIRL_ERR_MEMORY,
        "cannot allocate %s on CUDA device %d: this rank holds %s of it (%s in use), others hold "
        "%s, %s of %s is "
        "free; use a smaller batch or model, optim%%accumulate, or more ranks%s",
        hirl_text_bytes(asked, (double)bytes), ctx->device, hirl_text_bytes(held, (double)own),
        hirl_text_bytes(used, (double)hirl_pool_used(ctx->pool)),
        hirl_text_bytes(other, n_total > n_free + own ? (double)(n_total - n_free - own) : 0.0),
        hirl_text_bytes(free_text, (double)n_free), hirl_text_bytes(total, (double)n_total),
        graph_memory(ctx) > 0 ? ", or set run%graph = .false." : "");
}

static void device_give(void *state, void *memory, size_t bytes) {
    (void)state;
    (void)bytes;
    (void)cudaFree(memory); // waits for work that still uses it
}

hirl_status_t hirl_cuda_pool_create(cuda_ctx_t *ctx, hirl_pool_t **pool_p) {
    const hirl_pool_source_t source = {.space = HIRL_SPACE_DEVICE,
                                       .granule = GRANULE,
                                       .ctx = ctx,
                                       .take = device_take,
                                       .give = device_give};
    return hirl_pool_create(&source, pool_p);
}

hirl_status_t hirl_cuda_scratch(cuda_ctx_t *ctx, size_t bytes, void **data_p) {
    *data_p = NULL;
    return bytes ? ctx->allocator->alloc(ctx->allocator->ctx, bytes, data_p) : HIRL_OK;
}

/// Threads other than the one that opened the device have to name it: memory would be of the first.
static hirl_status_t host_alloc(void *state, size_t bytes, void **data_p) {
    const cuda_ctx_t *ctx = state;
    HIRL_TRY_CUDA(cudaSetDevice(ctx->device));
    const cudaError_t code = cudaMallocHost(data_p, bytes);
    if (code == cudaSuccess) return HIRL_OK;
    (void)cudaGetLastError();
    char text[32];
    return HIRL_FAIL(HIRL_ERR_MEMORY, "cannot allocate %s of pinned host memory: %s",
                     hirl_text_bytes(text, (double)bytes), cudaGetErrorString(code));
}

static void host_free(void *state, void *data, size_t bytes) {
    const cuda_ctx_t *ctx = state;
    (void)bytes;
    if (!data) return;
    (void)cudaSetDevice(ctx->device);
    (void)cudaFreeHost(data);
}

void hirl_cuda_scratch_free(cuda_ctx_t *ctx, size_t bytes, void *data) {
    if (data) ctx->allocator->free(ctx->allocator->ctx, data, bytes);
}

// ---------------------------------------------------------------------------------------------- moving data

static hirl_status_t tell_fault(cuda_ctx_t *ctx) {
    static const char *const text[] = {
        [HIRL_K_FAULT_GATHER] = "gather_rows: element %lld of index",
        [HIRL_K_FAULT_SCATTER] = "gather_rows_backward: element %lld of index",
        [HIRL_K_FAULT_TARGET] = "cross_entropy: element %lld of target",
        [HIRL_K_FAULT_POSITIVE] = "path_loss: element %lld of positive",
        [HIRL_K_FAULT_NEGATIVE] = "path_loss: element %lld of negative",
        [HIRL_K_FAULT_SUM] = "sum_rows: element %lld of index"};
    const hirl_k_fault_t fault = *ctx->fault;
    if (!fault.is_set) return HIRL_OK;
    memset(ctx->fault, 0, sizeof *ctx->fault);
    char place[96];
    snprintf(place, sizeof place,
             text[fault.op >= 0 && fault.op <= HIRL_K_FAULT_SUM ? fault.op : 0],
             (long long)fault.position);
    return HIRL_FAIL(HIRL_ERR_ARG, "%s is %lld, want 0..%lld", place, (long long)fault.value,
                     (long long)(fault.limit - 1));
}

hirl_status_t hirl_cuda_wait(cuda_ctx_t *ctx) {
    HIRL_TRY(hirl_cuda_capture_refuse(ctx, "a wait for the device"));
    // Kernels, and whatever the stream was told to wait for: the watchdog names this when another rank is late.
    hirl_beat_enter("cudaStreamSynchronize");
    const cudaError_t code = cudaStreamSynchronize(ctx->stream);
    hirl_beat_leave();
    HIRL_TRY_CUDA(code);
    return tell_fault(ctx);
}

static size_t bytes_of(const hirl_tensor_t *x) {
    return (size_t)hirl_tensor_count(x) * hirl_dtype_size(x->dtype);
}

hirl_status_t hirl_download_cuda(hirl_backend_t *be, const hirl_tensor_t *tensor, void *host) {
    HIRL_TRY(hirl_cuda_capture_refuse(cuda_ctx(be), "a download"));
    if (bytes_of(tensor) > 0)
        HIRL_TRY_CUDA(cudaMemcpyAsync(host, hirl_tensor_data(tensor), bytes_of(tensor),
                                      cudaMemcpyDeviceToHost, cuda_ctx(be)->stream));
    return hirl_cuda_wait(cuda_ctx(be));
}

hirl_status_t hirl_synchronize_cuda(hirl_backend_t *be) { return hirl_cuda_wait(cuda_ctx(be)); }

// ---------------------------------------------------------------------------------------------- the device

/// Chooses the device and says why there is none.
static hirl_status_t choose_device(cuda_ctx_t *ctx, int wanted) {
    int n = 0, driver = 0, runtime = 0;
    const cudaError_t code = cudaGetDeviceCount(&n);
    (void)cudaGetLastError();
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    HIRL_REQUIRE(driver > 0 || code == cudaSuccess, HIRL_ERR_CUDA,
                 "no CUDA driver on this machine; start on a node with GPUs, or set run%%device = "
                 "'cpu'");
    HIRL_REQUIRE(code != cudaErrorInsufficientDriver, HIRL_ERR_CUDA,
                 "the CUDA driver serves version %d.%d at most, but this program was built with "
                 "%d.%d; install a newer driver, or build with an older CUDA (make CUDA=1 "
                 "CUDA_HOME=...)",
                 driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    HIRL_REQUIRE(code == cudaSuccess && n > 0, HIRL_ERR_CUDA,
                 "no CUDA device (%s); CUDA_VISIBLE_DEVICES is %s; ask the batch system for one "
                 "(--gpus-per-node), "
                 "see nvidia-smi, or set run%%device = 'cpu'",
                 code == cudaSuccess ? "the driver lists none" : cudaGetErrorString(code),
                 visible ? visible : "not set");
    HIRL_REQUIRE(wanted >= 0 && wanted < n, HIRL_ERR_ARG,
                 "CUDA device %d of %d (CUDA_VISIBLE_DEVICES is %s)", wanted, n,
                 visible ? visible : "not set");
    struct cudaDeviceProp facts;
    HIRL_TRY_CUDA(cudaSetDevice(wanted));
    HIRL_TRY_CUDA(cudaGetDeviceProperties(&facts, wanted));
    HIRL_REQUIRE(facts.major >= LEAST_CAPABILITY, HIRL_ERR_UNSUPPORTED,
                 "CUDA device %d (%s) has compute capability %d.%d, want %d.0 or later", wanted,
                 facts.name, facts.major, facts.minor, (int)LEAST_CAPABILITY);
    ctx->device = wanted;
    ctx->n_multiprocessors = facts.multiProcessorCount;
    for (int i = 0; i < 16; ++i)
        snprintf(ctx->device_id + 2 * i, 3, "%02x", (unsigned char)facts.uuid.bytes[i]);
    const size_t dnn = cudnnGetVersion();
    char total[32];
    snprintf(ctx->info, sizeof ctx->info,
             "cuda: device %d, %.80s, sm_%d%d, %d multiprocessors, %s, driver %d.%d, runtime "
             "%d.%d, cuDNN %zu.%zu.%zu",
             wanted, facts.name, facts.major, facts.minor, facts.multiProcessorCount,
             hirl_text_bytes(total, (double)facts.totalGlobalMem), driver / 1000,
             driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10, dnn / 10000,
             dnn % 10000 / 100, dnn % 100);
    return HIRL_OK;
}

int hirl_cuda_n_devices(void) {
    int n = 0;
    const cudaError_t code = cudaGetDeviceCount(&n);
    (void)cudaGetLastError();
    return code == cudaSuccess ? n : 0;
}

static void cuda_close(void *state) {
    cuda_ctx_t *ctx = state;
    if (!ctx) return;
    if (ctx->copy_stream) (void)cudaStreamSynchronize(ctx->copy_stream);
    if (ctx->stream) (void)cudaStreamSynchronize(ctx->stream);
    hirl_cuda_staging_destroy(&ctx->staging);
    hirl_cuda_weights_destroy(ctx);
    hirl_cuda_plans_destroy(&ctx->plans);
    if (ctx->dnn) (void)cudnnDestroy(ctx->dnn);
    if (ctx->blas) (void)cublasLtDestroy(ctx->blas);
    hirl_pool_destroy(&ctx->graph_pool);
    hirl_pool_destroy(&ctx->pool);
    if (ctx->fault) (void)cudaFreeHost(ctx->fault);
    for (int i = 0; i < HIRL_N_MARKS; ++i)
        if (ctx->mark[i]) (void)cudaEventDestroy(ctx->mark[i]);
    if (ctx->copy_stream) (void)cudaStreamDestroy(ctx->copy_stream);
    if (ctx->stream) (void)cudaStreamDestroy(ctx->stream);
    hirl_mem_free(ctx);
}

static hirl_status_t cuda_open(const hirl_backend_options_t *options, void **ctx_p,
                               const hirl_allocator_t **allocator_p) {
    cuda_ctx_t *ctx = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &ctx));
    ctx->is_deterministic = options->is_deterministic;
    ctx->has_tf32 = options->has_tf32;
    HIRL_TRY_GOTO(choose_device(ctx, options->device), status, err_close);
    HIRL_TRY_CUDA_GOTO(cudaStreamCreateWithFlags(&ctx->stream, cudaStreamNonBlocking), status,
                       err_close);
    HIRL_TRY_GOTO(hirl_cuda_pool_create(ctx, &ctx->pool), status, err_close);
    ctx->allocator = hirl_pool_allocator_view(ctx->pool);
    ctx->host = (hirl_allocator_t){
        .space = HIRL_SPACE_PINNED, .ctx = ctx, .alloc = host_alloc, .free = host_free};
    // Host memory that kernels write to by the same address: looking at it costs the host no transfer.
    HIRL_TRY_CUDA_GOTO(cudaMallocHost((void **)&ctx->fault, sizeof *ctx->fault), status, err_close);
    memset(ctx->fault, 0, sizeof *ctx->fault);
    HIRL_TRY_GOTO(hirl_cuda_staging_create(&ctx->staging), status, err_close);
    HIRL_TRY_GOTO(hirl_cuda_weights_create(&ctx->weights), status, err_close);
    HIRL_TRY_GOTO(hirl_cuda_plans_create(ctx, &ctx->plans), status, err_close);
    *ctx_p = ctx;
    *allocator_p = ctx->allocator;
    return HIRL_OK;
err_close:
    cuda_close(ctx);
    return status;
}

static const char *cuda_info_view(const void *ctx) { return ((const cuda_ctx_t *)ctx)->info; }
static const char *cuda_device_id_view(const void *ctx) {
    return ((const cuda_ctx_t *)ctx)->device_id;
}
static void *cuda_stream_view(const void *ctx) { return ((const cuda_ctx_t *)ctx)->stream; }
static const hirl_allocator_t *cuda_host_allocator_view(const void *ctx) {
    return &((const cuda_ctx_t *)ctx)->host;
}
static size_t cuda_memory_used(const void *state) {
    const cuda_ctx_t *ctx = state;
    return hirl_pool_used(ctx->pool) + graph_memory(ctx);
}
/// With graphs, the larger of the highest use without them, and of what they and the rest take now.
static size_t cuda_memory_peak(const void *state) {
    const cuda_ctx_t *ctx = state;
    const size_t peak = hirl_pool_peak(ctx->pool), now = cuda_memory_used(state);
    return peak > now ? peak : now;
}

const hirl_backend_ops_t hirl_backend_ops_cuda = {
    .name = "cuda",
    .is_host = false,
    .has_layouts = false,
    .has_f16 = true,
    .open = cuda_open,
    .close = cuda_close,
    .info_view = cuda_info_view,
    .memory_used = cuda_memory_used,
    .memory_peak = cuda_memory_peak,
    .n_devices = hirl_cuda_n_devices,
    .device_id_view = cuda_device_id_view,
    .stream_view = cuda_stream_view,
    .host_allocator_view = cuda_host_allocator_view,
    .upload = hirl_upload_cuda,
    .download = hirl_download_cuda,
    .synchronize = hirl_synchronize_cuda,
    .upload_create = hirl_upload_create_cuda,
    .upload_destroy = hirl_upload_destroy_cuda,
    .upload_begin = hirl_upload_begin_cuda,
    .upload_end = hirl_upload_end_cuda,
    .upload_release = hirl_upload_release_cuda,
    .weights_begin = hirl_weights_begin_cuda,
    .weights_end = hirl_weights_end_cuda,
    .capture_begin = hirl_capture_begin_cuda,
    .capture_end = hirl_capture_end_cuda,
    .graph_launch = hirl_graph_launch_cuda,
    .graph_destroy = hirl_graph_destroy_cuda,
    .mark = hirl_mark_cuda,
    .mark_seconds = hirl_mark_seconds_cuda,
    .to_plain = hirl_to_plain_cuda,
    .cast = hirl_cast_cuda,
    .to_layout_of = hirl_to_layout_of_cuda,
    .to_blocked = hirl_to_blocked_cuda,
    .fill = hirl_fill_cuda,
    .axpby = hirl_axpby_cuda,
    .add = hirl_add_cuda,
    .mul = hirl_mul_cuda,
    .gather_rows = hirl_gather_rows_cuda,
    .gather_rows_backward = hirl_gather_rows_backward_cuda,
    .concat_columns = hirl_concat_columns_cuda,
    .split_columns = hirl_split_columns_cuda,
    .conv2d = hirl_conv2d_cuda,
    .conv2d_backward_data = hirl_conv2d_backward_data_cuda,
    .conv2d_backward_weights = hirl_conv2d_backward_weights_cuda,
    .max_pool = hirl_max_pool_cuda,
    .max_pool_backward = hirl_max_pool_backward_cuda,
    .global_avg_pool = hirl_global_avg_pool_cuda,
    .global_avg_pool_backward = hirl_global_avg_pool_backward_cuda,
    .bn_stats = hirl_bn_stats_cuda,
    .bn_apply = hirl_bn_apply_cuda,
    .bn_backward_sums = hirl_bn_backward_sums_cuda,
    .bn_backward_apply = hirl_bn_backward_apply_cuda,
    .bn_combine = hirl_bn_combine_cuda,
    .fold_rows = hirl_fold_rows_cuda,
    .gemm = hirl_gemm_cuda,
    .linear = hirl_linear_cuda,
    .linear_backward = hirl_linear_backward_cuda,
    .act = hirl_act_cuda,
    .act_backward = hirl_act_backward_cuda,
    .l2_normalize = hirl_l2_normalize_cuda,
    .l2_normalize_backward = hirl_l2_normalize_backward_cuda,
    .row_dot = hirl_row_dot_cuda,
    .row_scale = hirl_row_scale_cuda,
    .layer_norm = hirl_layer_norm_cuda,
    .layer_norm_backward = hirl_layer_norm_backward_cuda,
    .softmax = hirl_softmax_cuda,
    .softmax_backward = hirl_softmax_backward_cuda,
    .dropout = hirl_dropout_cuda,
    .drop_path = hirl_drop_path_cuda,
    .attention = hirl_attention_cuda,
    .attention_backward = hirl_attention_backward_cuda,
    .cross_entropy = hirl_cross_entropy_cuda,
    .cross_entropy_backward = hirl_cross_entropy_backward_cuda,
    .path_loss = hirl_path_loss_cuda,
    .path_loss_backward = hirl_path_loss_backward_cuda,
    .make_views = hirl_make_views_cuda,
    .pack_segments = hirl_pack_segments_cuda,
    .update = hirl_update_cuda,
    .ema = hirl_ema_cuda,
    .sum_squares_of = hirl_sum_squares_of_cuda,
    .nearest_rows = hirl_nearest_rows_cuda,
    .top_rows = hirl_top_rows_cuda,
    .sum_rows = hirl_sum_rows_cuda,
    .sum_distances = hirl_sum_distances_cuda,
};
