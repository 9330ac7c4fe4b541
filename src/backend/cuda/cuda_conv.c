/// Convolutions by cuDNN's graph API: one operation a graph, images in [N, H, W, C] order, weights packed to [O, kH, kW, I] in the
/// images' dtype before each use. The engine is the first of cuDNN's heuristic list that accepts the shapes, and that repeats its
/// bits where this was asked for. f32 takes no engine of tensor cores unless TF32 was allowed. Sums are f32; bf16
/// weight gradients are rounded to bf16 once, as in mixed-precision training elsewhere, and added up in f32.
#include "cuda_impl.h"

#include "kernels/matrix.h"

#include <string.h>

// cuDNN 9 renames how plans are tied to a handle; the old names serve all of its versions.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

typedef enum conv_kind { FORWARD, BACKWARD_DATA, BACKWARD_WEIGHTS } conv_kind_t;

enum { UID_X = 1, UID_W, UID_Y, N_TENSORS = 3, N_ENGINES = 16, N_NOTES = 16, ALIGNMENT = 16 };
static const int64_t WORKSPACE_LIMIT = INT64_C(2) << 30;

typedef struct conv_key {
    int64_t x[4], w[4], y[4]; // [N, C, H, W], [O, I, kH, kW], [N, O, OH, OW]
    int32_t stride[2], pad[2];
    int32_t kind, dtype;
    char what[8];
} conv_key_t;

typedef struct conv_plan {
    cudnnBackendDescriptor_t plan;
    int64_t workspace_bytes;
} conv_plan_t;

// ---------------------------------------------------------------------------------------------- descriptors

typedef cudnnBackendDescriptor_t desc_t;

static void desc_destroy(desc_t *desc) {
    if (*desc) (void)cudnnBackendDestroyDescriptor(*desc);
    *desc = NULL;
}

static hirl_status_t set(desc_t desc, cudnnBackendAttributeName_t name,
                         cudnnBackendAttributeType_t type, int64_t count, const void *values) {
    HIRL_TRY_CUDNN(cudnnBackendSetAttribute(desc, name, type, count, values));
    return HIRL_OK;
}

/// A packed tensor in the order [outer, spatial, channels]: dim is [N, C, H, W].
static hirl_status_t tensor_make(int64_t uid, const int64_t dim[4], cudnnDataType_t type,
                                 desc_t *desc_p) {
    const int64_t stride[4] = {dim[1] * dim[2] * dim[3], 1, dim[3] * dim[1], dim[1]};
    const int64_t alignment = ALIGNMENT;
    HIRL_TRY_CUDNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_TENSOR_DESCRIPTOR, desc_p));
    HIRL_TRY(set(*desc_p, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid));
    HIRL_TRY(set(*desc_p, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type));
    HIRL_TRY(set(*desc_p, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dim));
    HIRL_TRY(set(*desc_p, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride));
    HIRL_TRY(set(*desc_p, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment));
    HIRL_TRY_CUDNN(cudnnBackendFinalize(*desc_p));
    return HIRL_OK;
}

static hirl_status_t convolution_make(const conv_key_t *key, desc_t *desc_p) {
    const int64_t n = 2, dilation[2] = {1, 1};
    const int64_t stride[2] = {key->stride[0], key->stride[1]};
    const int64_t pad[2] = {key->pad[0], key->pad[1]};
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    HIRL_TRY_CUDNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, desc_p));
    HIRL_TRY(set(*desc_p, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &n));
    HIRL_TRY(set(*desc_p, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute));
    HIRL_TRY(set(*desc_p, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode));
    HIRL_TRY(set(*desc_p, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pad));
    HIRL_TRY(set(*desc_p, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pad));
    HIRL_TRY(set(*desc_p, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation));
    HIRL_TRY(set(*desc_p, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, stride));
    HIRL_TRY_CUDNN(cudnnBackendFinalize(*desc_p));
    return HIRL_OK;
}

/// What cuDNN calls the parts of each of the three operations.
static const struct operation_names {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t conv, alpha, beta, x, w, y;
} NAMES[] = {
    [FORWARD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                 CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                 CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                 CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
                 CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                 CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                 CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y},
    [BACKWARD_DATA] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY},
    [BACKWARD_WEIGHTS] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY},
};

/// What a graph is made of, from the inside out.
typedef struct graph {
    desc_t tensor[N_TENSORS], convolution, operation, graph;
} graph_t;

static void graph_reset(graph_t *g) {
    desc_destroy(&g->graph);
    desc_destroy(&g->operation);
    desc_destroy(&g->convolution);
    for (int i = 0; i < N_TENSORS; ++i) desc_destroy(&g->tensor[i]);
}

static hirl_status_t graph_make(cuda_ctx_t *ctx, const conv_key_t *key, graph_t *g) {
    const cudnnDataType_t type = key->dtype == HIRL_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
    const struct operation_names *names = &NAMES[key->kind];
    const float alpha = 1, beta = 0;
    HIRL_TRY(tensor_make(UID_X, key->x, type, &g->tensor[0]));
    HIRL_TRY(tensor_make(UID_W, key->w, type, &g->tensor[1]));
    HIRL_TRY(tensor_make(UID_Y, key->y, type, &g->tensor[2]));
    HIRL_TRY(convolution_make(key, &g->convolution));
    HIRL_TRY_CUDNN(cudnnBackendCreateDescriptor(names->type, &g->operation));
    HIRL_TRY(set(g->operation, names->conv, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->convolution));
    HIRL_TRY(set(g->operation, names->x, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->tensor[0]));
    HIRL_TRY(set(g->operation, names->w, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->tensor[1]));
    HIRL_TRY(set(g->operation, names->y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->tensor[2]));
    HIRL_TRY(set(g->operation, names->alpha, CUDNN_TYPE_FLOAT, 1, &alpha));
    HIRL_TRY(set(g->operation, names->beta, CUDNN_TYPE_FLOAT, 1, &beta));
    HIRL_TRY_CUDNN(cudnnBackendFinalize(g->operation));
    HIRL_TRY_CUDNN(
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, &g->graph));
    HIRL_TRY(set(g->graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                 &g->operation));
    HIRL_TRY(set(g->graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &ctx->dnn));
    HIRL_TRY_CUDNN(cudnnBackendFinalize(g->graph));
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- choosing an engine

/// Whether this rank may use the engine of `config`.
static bool is_allowed(const cuda_ctx_t *ctx, const conv_key_t *key, desc_t config) {
    desc_t engine = NULL;
    cudnnBackendNumericalNote_t note[N_NOTES];
    int64_t n = 0, n_notes = 0;
    bool is_good =
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) ==
            CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                 1, &n, &engine) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                 CUDNN_TYPE_NUMERICAL_NOTE, N_NOTES, &n_notes,
                                 note) == CUDNN_STATUS_SUCCESS;
    for (int64_t i = 0; is_good && i < n_notes && i < N_NOTES; ++i) {
        const bool is_tf32 = note[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE && key->dtype == HIRL_F32;
        if (is_tf32 && !ctx->has_tf32) is_good = false;
        if (note[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC && ctx->is_deterministic)
            is_good = false;
        // Sums in reduced precision are nobody's wish.
        if (note[i] == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION) is_good = false;
    }
    desc_destroy(&engine);
    return is_good;
}

/// A plan of this engine; *plan_p stays NULL if the engine does not take these shapes.
static void try_engine(cuda_ctx_t *ctx, desc_t config, conv_plan_t *plan) {
    desc_t desc = NULL;
    int64_t n = 0, bytes = 0;
    const bool is_good =
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &desc) ==
            CUDNN_STATUS_SUCCESS &&
        cudnnBackendSetAttribute(desc, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                                 &ctx->dnn) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendSetAttribute(desc, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                 &config) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendFinalize(desc) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(desc, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
                                 1, &n, &bytes) == CUDNN_STATUS_SUCCESS &&
        bytes <= WORKSPACE_LIMIT;
    if (is_good) {
        plan->plan = desc;
        plan->workspace_bytes = bytes;
    } else {
        desc_destroy(&desc);
    }
}

/// Tries the engines that one heuristic names, best first.
static hirl_status_t try_heuristic(cuda_ctx_t *ctx, const conv_key_t *key, desc_t graph,
                                   cudnnBackendHeurMode_t mode, conv_plan_t *plan) {
    desc_t heuristic = NULL, config[N_ENGINES] = {NULL};
    int64_t n = 0;
    hirl_status_t status = HIRL_OK;
    cudnnStatus_t code =
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristic);
    if (code == CUDNN_STATUS_SUCCESS)
        code = cudnnBackendSetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph);
    if (code == CUDNN_STATUS_SUCCESS)
        code = cudnnBackendSetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE,
                                        1, &mode);
    if (code == CUDNN_STATUS_SUCCESS) code = cudnnBackendFinalize(heuristic);
    for (int i = 0; code == CUDNN_STATUS_SUCCESS && i < N_ENGINES; ++i)
        code = cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &config[i]);
    if (code == CUDNN_STATUS_SUCCESS)
        code = cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, N_ENGINES, &n, config);
    // A heuristic without an answer is no failure: the next one may have one.
    if (code == CUDNN_STATUS_ALLOC_FAILED)
        status = hirl_cuda_fail_dnn(code, "choosing an engine", __FILE__, __LINE__, __func__);
    for (int64_t i = 0;
         status == HIRL_OK && code == CUDNN_STATUS_SUCCESS && !plan->plan && i < n && i < N_ENGINES;
         ++i)
        if (is_allowed(ctx, key, config[i])) try_engine(ctx, config[i], plan);
    for (int i = 0; i < N_ENGINES; ++i) desc_destroy(&config[i]);
    desc_destroy(&heuristic);
    return status;
}

static void plan_destroy(void *self) {
    conv_plan_t *plan = self;
    desc_destroy(&plan->plan);
    hirl_mem_free(plan);
}

static hirl_status_t plan_make(cuda_ctx_t *ctx, const conv_key_t *key, conv_plan_t **plan_p) {
    static const char *const kind[] = {"forward", "backward data", "backward weights"};
    static const cudnnBackendHeurMode_t mode[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    conv_plan_t *plan = NULL;
    graph_t graph = {0};
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &plan));
    hirl_status_t status = graph_make(ctx, key, &graph);
    for (int i = 0; i < 2 && status == HIRL_OK && !plan->plan; ++i)
        status = try_heuristic(ctx, key, graph.graph, mode[i], plan);
    graph_reset(&graph);
    if (status == HIRL_OK && !plan->plan)
        status = HIRL_FAIL(
            HIRL_ERR_UNSUPPORTED,
            "cuDNN has no %s engine for a convolution of x [%lld, %lld, %lld, %lld] with w [%lld, "
            "%lld, %lld, %lld] "
            "in %s%s",
            kind[key->kind], (long long)key->x[0], (long long)key->x[2], (long long)key->x[3],
            (long long)key->x[1], (long long)key->w[0], (long long)key->w[1], (long long)key->w[2],
            (long long)key->w[3], hirl_dtype_name((hirl_dtype_t)key->dtype),
            ctx->is_deterministic ? " that repeats its bits (run%deterministic)" : "");
    if (status != HIRL_OK) {
        plan_destroy(plan);
        return status;
    }
    *plan_p = plan;
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- running

static conv_key_t key_of(conv_kind_t kind, const hirl_conv_param_t *p, const hirl_shape_t *x,
                         const hirl_shape_t *w, const hirl_shape_t *y, hirl_dtype_t dtype) {
    conv_key_t key;
    memset(&key, 0, sizeof key);
    const int from[4] = {0, 3, 1, 2}; // [N, C, H, W] out of [N, H, W, C]
    for (int i = 0; i < 4; ++i) {
        key.x[i] = x->dim[from[i]];
        key.y[i] = y->dim[from[i]];
        key.w[i] = w->dim[i];
    }
    key.stride[0] = p->stride_h;
    key.stride[1] = p->stride_w;
    key.pad[0] = p->pad_h;
    key.pad[1] = p->pad_w;
    key.kind = kind;
    key.dtype = (int32_t)dtype;
    memcpy(key.what, "conv2d", 6);
    return key;
}

static hirl_status_t execute(cuda_ctx_t *ctx, const conv_plan_t *plan, void *x, void *w, void *y) {
    void *pointers[N_TENSORS] = {x, w, y}, *workspace = NULL;
    const int64_t uids[N_TENSORS] = {UID_X, UID_W, UID_Y};
    desc_t pack = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_cuda_scratch(ctx, (size_t)plan->workspace_bytes, &workspace));
    cudnnStatus_t code = cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (code == CUDNN_STATUS_SUCCESS)
        code = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64,
                                        N_TENSORS, uids);
    if (code == CUDNN_STATUS_SUCCESS)
        code = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                                        CUDNN_TYPE_VOID_PTR, N_TENSORS, pointers);
    if (code == CUDNN_STATUS_SUCCESS)
        code = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
                                        CUDNN_TYPE_VOID_PTR, 1, &workspace);
    if (code == CUDNN_STATUS_SUCCESS) code = cudnnBackendFinalize(pack);
    if (code == CUDNN_STATUS_SUCCESS) code = cudnnBackendExecute(ctx->dnn, plan->plan, pack);
    if (code != CUDNN_STATUS_SUCCESS)
        status = hirl_cuda_fail_dnn(code, "a convolution", __FILE__, __LINE__, __func__);
    desc_destroy(&pack);
    hirl_cuda_scratch_free(ctx, (size_t)plan->workspace_bytes, workspace);
    return status;
}

/// x, w and y point to packed arrays of the key's dtype; the output is written. Arrays that do not begin at a multiple of 16 bytes (views of
/// few channels) are not cuDNN's to read: they are copied.
static hirl_status_t convolve(cuda_ctx_t *ctx, const conv_key_t *key, void *x, void *w, void *y) {
    conv_plan_t *plan = hirl_cuda_plans_find(ctx->plans, key, sizeof *key);
    if (!plan) {
        HIRL_TRY(plan_make(ctx, key, &plan));
        HIRL_TRY(hirl_cuda_plans_keep(ctx->plans, key, sizeof *key, plan, plan_destroy));
    }
    const int64_t *dim[2] = {key->x, key->y};
    void *image[2] = {x, y}, *copy[2] = {NULL, NULL};
    size_t bytes[2] = {0, 0};
    hirl_status_t status = HIRL_OK;
    for (int i = 0; i < 2; ++i) {
        if ((uintptr_t)image[i] % ALIGNMENT == 0) continue;
        bytes[i] = (size_t)(dim[i][0] * dim[i][1] * dim[i][2] * dim[i][3]) *
                   hirl_dtype_size((hirl_dtype_t)key->dtype);
        HIRL_TRY_GOTO(hirl_cuda_scratch(ctx, bytes[i], &copy[i]), status, done);
        HIRL_TRY_CUDA_GOTO(
            cudaMemcpyAsync(copy[i], image[i], bytes[i], cudaMemcpyDeviceToDevice, ctx->stream),
            status, done);
    }
    HIRL_TRY_GOTO(execute(ctx, plan, copy[0] ? copy[0] : x, w, copy[1] ? copy[1] : y), status,
                  done);
    const int output = key->kind == FORWARD ? 1 : key->kind == BACKWARD_DATA ? 0 : -1;
    if (output >= 0 && copy[output])
        HIRL_TRY_CUDA_GOTO(cudaMemcpyAsync(image[output], copy[output], bytes[output],
                                           cudaMemcpyDeviceToDevice, ctx->stream),
                           status, done);
done:
    for (int i = 0; i < 2; ++i) hirl_cuda_scratch_free(ctx, bytes[i], copy[i]);
    return status;
}

/// Weights [O, I, kH, kW] f32 as [O, kH, kW, I] of `dtype`, in scratch memory.
static hirl_status_t weights_pack(cuda_ctx_t *ctx, const hirl_tensor_t *w, hirl_dtype_t dtype,
                                  size_t *bytes_p, void **packed_p) {
    const int64_t *d = w->shape.dim;
    const size_t bytes = (size_t)hirl_tensor_count(w) * hirl_dtype_size(dtype);
    void *packed = NULL;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, &packed));
    const cudaError_t code =
        hirl_k_conv_weights_pack(ctx->stream, hirl_tensor_data(w), d[0], d[1], d[2] * d[3], packed,
                                 dtype == HIRL_BF16 ? HIRL_K_BF16 : HIRL_K_F32);
    if (code != cudaSuccess) hirl_cuda_scratch_free(ctx, bytes, packed);
    HIRL_TRY_CUDA(code);
    *bytes_p = bytes;
    *packed_p = packed;
    return HIRL_OK;
}

hirl_status_t hirl_conv2d_cuda(hirl_backend_t *be, const hirl_conv_param_t *p,
                               const hirl_tensor_t *x, const hirl_tensor_t *w,
                               const hirl_tensor_t *bias, hirl_tensor_t *y) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    const conv_key_t key = key_of(FORWARD, p, &x->shape, &w->shape, &y->shape, x->dtype);
    void *packed = NULL;
    size_t bytes = 0;
    HIRL_TRY(weights_pack(ctx, w, x->dtype, &bytes, &packed));
    const hirl_status_t status =
        convolve(ctx, &key, hirl_tensor_data(x), packed, hirl_tensor_data(y));
    hirl_cuda_scratch_free(ctx, bytes, packed);
    HIRL_TRY(status);
    if (bias)
        HIRL_TRY_CUDA(hirl_k_bias_add(ctx->stream, hirl_tensor_data(bias),
                                      hirl_tensor_count(y) / w->shape.dim[0], w->shape.dim[0],
                                      hirl_tensor_data(y), cuda_dtype(y)));
    return HIRL_OK;
}

hirl_status_t hirl_conv2d_backward_data_cuda(hirl_backend_t *be, const hirl_conv_param_t *p,
                                             const hirl_tensor_t *dy, const hirl_tensor_t *w,
                                             const hirl_shape_t *x_shape, hirl_tensor_t *dx) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    const conv_key_t key = key_of(BACKWARD_DATA, p, x_shape, &w->shape, &dy->shape, dy->dtype);
    void *packed = NULL;
    size_t bytes = 0;
    HIRL_TRY(weights_pack(ctx, w, dy->dtype, &bytes, &packed));
    const hirl_status_t status =
        convolve(ctx, &key, hirl_tensor_data(dx), packed, hirl_tensor_data(dy));
    hirl_cuda_scratch_free(ctx, bytes, packed);
    return status;
}

hirl_status_t hirl_conv2d_backward_weights_cuda(hirl_backend_t *be, const hirl_conv_param_t *p,
                                                const hirl_tensor_t *x, const hirl_tensor_t *dy,
                                                bool accumulate, hirl_tensor_t *dw,
                                                hirl_tensor_t *dbias) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    const conv_key_t key = key_of(BACKWARD_WEIGHTS, p, &x->shape, &dw->shape, &dy->shape, x->dtype);
    const int64_t *d = dw->shape.dim;
    const size_t bytes = (size_t)hirl_tensor_count(dw) * hirl_dtype_size(x->dtype);
    void *packed = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, &packed));
    HIRL_TRY_GOTO(convolve(ctx, &key, hirl_tensor_data(x), packed, hirl_tensor_data(dy)), status,
                  done);
    HIRL_TRY_CUDA_GOTO(hirl_k_conv_weights_unpack(ctx->stream, packed, cuda_dtype(x), d[0], d[1],
                                                  d[2] * d[3], accumulate, hirl_tensor_data(dw)),
                       status, done);
    if (dbias)
        status =
            hirl_cuda_column_sums(ctx, dy, hirl_tensor_count(dy) / d[0], d[0], accumulate, dbias);
done:
    hirl_cuda_scratch_free(ctx, bytes, packed);
    return status;
}
