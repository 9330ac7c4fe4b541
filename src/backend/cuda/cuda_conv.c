/// Convolutions by cuDNN's graph API: one operation a graph, images in [N, H, W, C] order, weights packed to [O, kH, kW, I] in the
/// images' dtype (cuda_weights.c). Sums are f32; 16-bit weight gradients are rounded to 16 bits once, as in mixed-precision training
/// elsewhere, and added up in f32.
///
/// Choice of the engine: cuDNN's heuristic A, then its fallback, each in its own order. Left out are engines that break what the run asks for
/// (by their numerical notes): f32 on tensor cores unless TF32 was allowed, inputs or sums of less precision always, bits
/// that do not repeat where they shall; and those that want too much workspace or refuse the shapes. Of what is left the first is
/// taken where bits shall repeat, for the heuristic gives the same list again; else the first few are timed once a shape.
/// If nothing is left, the same is asked for f32 images in [N, C, H, W] order, whose engines without tensor cores are
/// older and take more shapes: images are then transposed before and after (read and written once more each), which is told.
#include "cuda_impl.h"

#include "kernels/matrix.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// cuDNN 9 renames how plans are tied to a handle; the old names serve all of its versions.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

typedef enum conv_kind { FORWARD, BACKWARD_DATA, BACKWARD_WEIGHTS } conv_kind_t;

enum { UID_X = 1, UID_W, UID_Y, N_TENSORS = 3, N_ENGINES = 16, N_NOTES = 16, ALIGNMENT = 16 };
typedef struct conv_key {
    int64_t x[4], w[4], y[4]; // [N, C, H, W], [O, I, kH, kW], [N, O, OH, OW]
    int32_t stride[2], pad[2];
    int32_t kind, dtype;
    char what[8];
} conv_key_t;

typedef struct conv_plan {
    cudnnBackendDescriptor_t plan;
    int64_t workspace_bytes, engine; // engine: cuDNN's number of it
    bool is_nchw;                    // f32 in [N, C, H, W] order, whatever the key says
} conv_plan_t;

/// Engines that may be used, in the order of the heuristics, and why others may not.
typedef struct candidates {
    conv_plan_t *plan[HIRL_CUDA_N_TIMED];
    int n, n_wanted;
    int n_seen, n_tf32, n_imprecise, n_unrepeatable, n_large, n_refused;
} candidates_t;

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

/// A packed tensor in the order [outer, spatial, channels], or [outer, channels, spatial] (NCHW): dim is [N, C, H, W].
static hirl_status_t tensor_make(int64_t uid, const int64_t dim[4], cudnnDataType_t type,
                                 bool is_nchw, desc_t *desc_p) {
    const int64_t outer = dim[1] * dim[2] * dim[3];
    const int64_t strides[2][4] = {{outer, 1, dim[3] * dim[1], dim[1]},
                                   {outer, dim[2] * dim[3], dim[3], 1}};
    const int64_t *stride = strides[is_nchw];
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

static hirl_status_t graph_make(cuda_ctx_t *ctx, const conv_key_t *key, bool is_nchw, graph_t *g) {
    const hirl_dtype_t dtype = is_nchw ? HIRL_F32 : (hirl_dtype_t)key->dtype;
    const cudnnDataType_t type = dtype == HIRL_BF16  ? CUDNN_DATA_BFLOAT16
                                 : dtype == HIRL_F16 ? CUDNN_DATA_HALF
                                                     : CUDNN_DATA_FLOAT;
    const struct operation_names *names = &NAMES[key->kind];
    const float alpha = 1, beta = 0;
    HIRL_TRY(tensor_make(UID_X, key->x, type, is_nchw, &g->tensor[0]));
    HIRL_TRY(tensor_make(UID_W, key->w, type, is_nchw, &g->tensor[1]));
    HIRL_TRY(tensor_make(UID_Y, key->y, type, is_nchw, &g->tensor[2]));
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

static void plan_destroy(void *self) {
    conv_plan_t *plan = self;
    if (!plan) return;
    desc_destroy(&plan->plan);
    hirl_mem_free(plan);
}

/// Whether this rank may use the engine of `config` for images of this dtype; counts why not. *engine_p: cuDNN's number of it.
static bool is_allowed(const cuda_ctx_t *ctx, hirl_dtype_t dtype, desc_t config, candidates_t *c,
                       int64_t *engine_p) {
    desc_t engine = NULL;
    cudnnBackendNumericalNote_t note[N_NOTES];
    int64_t n = 0, n_notes = 0;
    bool is_tf32 = false, is_imprecise = false, is_unrepeatable = false;
    const bool is_known =
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) ==
            CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                 1, &n, &engine) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                 CUDNN_TYPE_NUMERICAL_NOTE, N_NOTES, &n_notes,
                                 note) == CUDNN_STATUS_SUCCESS;
    for (int64_t i = 0; is_known && i < n_notes && i < N_NOTES; ++i) {
        if (note[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE && dtype == HIRL_F32 && !ctx->has_tf32)
            is_tf32 = true;
        if (note[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC && ctx->is_deterministic)
            is_unrepeatable = true;
        if (note[i] == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION ||
            note[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS)
            is_imprecise = true;
    }
    if (!is_known ||
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &n,
                                 engine_p) != CUDNN_STATUS_SUCCESS)
        *engine_p = -1;
    desc_destroy(&engine);
    ++c->n_seen;
    if (!is_known)
        ++c->n_refused;
    else if (is_imprecise)
        ++c->n_imprecise;
    else if (is_tf32)
        ++c->n_tf32;
    else if (is_unrepeatable)
        ++c->n_unrepeatable;
    return is_known && !is_imprecise && !is_tf32 && !is_unrepeatable;
}

/// Adds the plan of an engine if that takes these shapes.
static hirl_status_t try_engine(cuda_ctx_t *ctx, desc_t config, int64_t engine, bool is_nchw,
                                candidates_t *c) {
    desc_t desc = NULL;
    int64_t n = 0, bytes = 0;
    const bool is_possible =
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &desc) ==
            CUDNN_STATUS_SUCCESS &&
        cudnnBackendSetAttribute(desc, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                                 &ctx->dnn) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendSetAttribute(desc, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                 &config) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendFinalize(desc) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(desc, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
                                 1, &n, &bytes) == CUDNN_STATUS_SUCCESS;
    const bool is_small = bytes <= (int64_t)HIRL_CUDA_DNN_WORKSPACE;
    if (!is_possible) ++c->n_refused;
    if (is_possible && !is_small) ++c->n_large;
    conv_plan_t *plan = NULL;
    hirl_status_t status = HIRL_OK;
    if (is_possible && is_small) status = HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &plan);
    if (!plan) {
        desc_destroy(&desc);
        return status;
    }
    *plan =
        (conv_plan_t){.plan = desc, .workspace_bytes = bytes, .engine = engine, .is_nchw = is_nchw};
    c->plan[c->n++] = plan;
    return HIRL_OK;
}

/// Tries the engines that one heuristic names, best first, until enough are found.
static hirl_status_t try_heuristic(cuda_ctx_t *ctx, hirl_dtype_t dtype, desc_t graph,
                                   cudnnBackendHeurMode_t mode, bool is_nchw, candidates_t *c) {
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
    if (code != CUDNN_STATUS_SUCCESS) n = 0;
    for (int64_t i = 0; status == HIRL_OK && c->n < c->n_wanted && i < n && i < N_ENGINES; ++i) {
        int64_t engine = -1;
        if (is_allowed(ctx, dtype, config[i], c, &engine))
            status = try_engine(ctx, config[i], engine, is_nchw, c);
    }
    for (int i = 0; i < N_ENGINES; ++i) desc_destroy(&config[i]);
    desc_destroy(&heuristic);
    return status;
}

static void candidates_reset(candidates_t *c) {
    for (int i = 0; i < c->n; ++i) plan_destroy(c->plan[i]);
    c->n = 0;
}

/// "x [32, 56, 56, 64] f32 with w [64, 64, 3, 3], stride 1 1, pad 1 1", x as [N, H, W, C].
enum { KEY_TEXT = 224 };
static const char *key_text(const conv_key_t *key, char text[KEY_TEXT]) {
    const int64_t *x = key->x, *w = key->w;
    snprintf(text, KEY_TEXT,
             "x [%lld, %lld, %lld, %lld] %s with w [%lld, %lld, %lld, %lld], stride %d %d, pad %d "
             "%d",
             (long long)x[0], (long long)x[2], (long long)x[3], (long long)x[1],
             hirl_dtype_name((hirl_dtype_t)key->dtype), (long long)w[0], (long long)w[1],
             (long long)w[2], (long long)w[3], (int)key->stride[0], (int)key->stride[1],
             (int)key->pad[0], (int)key->pad[1]);
    return text;
}

static const char *const KIND[] = {"forward", "backward data", "backward weights"};

/// Adds a part like ", 2 use TF32 (run%tf32)" if there are any.
static void add_reason(char *text, size_t size, int n, const char *reason) {
    const size_t used = strlen(text);
    if (n > 0 && used < size)
        snprintf(text + used, size - used, "%s%d %s", used ? ", " : "", n, reason);
}

static hirl_status_t fail_without_engine(const cuda_ctx_t *ctx, const conv_key_t *key,
                                         const candidates_t *c) {
    char text[KEY_TEXT], why[400] = "", large[64], limit[32];
    add_reason(why, sizeof why, c->n_refused, "refuse the shape");
    add_reason(why, sizeof why, c->n_tf32, "round to TF32 (run%tf32 = .true. allows them)");
    add_reason(why, sizeof why, c->n_unrepeatable,
               "do not repeat their bits (run%deterministic = .false. allows them)");
    add_reason(why, sizeof why, c->n_imprecise, "round inputs or sums");
    snprintf(large, sizeof large, "want more workspace than %s",
             hirl_text_bytes(limit, (double)HIRL_CUDA_DNN_WORKSPACE));
    add_reason(why, sizeof why, c->n_large, large);
    return HIRL_FAIL(
        HIRL_ERR_UNSUPPORTED,
        "cuDNN has no %s engine for a convolution of %s, neither in NHWC order nor in f32 in NCHW "
        "order; of %d engines: %s; try %sanother image size or batch, or run%%device = 'cpu'",
        KIND[key->kind], key_text(key, text), c->n_seen, why[0] ? why : "none was named",
        key->dtype == HIRL_F32 && !ctx->has_tf32
            ? "run%tf32 = .true., run%precision = 'bf16' (tensor cores), "
            : "");
}

/// One engine at least, all of one order of images.
static hirl_status_t candidates_find(cuda_ctx_t *ctx, const conv_key_t *key, candidates_t *c) {
    static const cudnnBackendHeurMode_t mode[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    hirl_status_t status = HIRL_OK;
    memset(c, 0, sizeof *c);
    c->n_wanted = hirl_cuda_may_time(ctx) ? HIRL_CUDA_N_TIMED : 1;
    for (int order = 0; order < 2 && status == HIRL_OK && c->n == 0; ++order) {
        const bool is_nchw = order == 1;
        graph_t graph = {0};
        status = graph_make(ctx, key, is_nchw, &graph);
        for (int i = 0; i < 2 && status == HIRL_OK && c->n < c->n_wanted; ++i)
            status = try_heuristic(ctx, is_nchw ? HIRL_F32 : (hirl_dtype_t)key->dtype, graph.graph,
                                   mode[i], is_nchw, c);
        graph_reset(&graph);
    }
    if (status == HIRL_OK && c->n == 0) status = fail_without_engine(ctx, key, c);
    if (status != HIRL_OK) candidates_reset(c);
    HIRL_TRY(status);
    if (c->plan[0]->is_nchw) {
        char text[KEY_TEXT];
        hirl_log_rank(HIRL_LOG_WARN,
                      "no cuDNN engine takes a %s convolution of %s in NHWC order: images are "
                      "transposed to f32 in NCHW order for it, which costs time and memory",
                      KIND[key->kind], key_text(key, text));
    }
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

/// Runs a plan on the arrays x, w and y. The caller says what failed.
static cudnnStatus_t execute(cuda_ctx_t *ctx, const conv_plan_t *plan, void *const array[N_TENSORS],
                             void *workspace) {
    const int64_t uids[N_TENSORS] = {UID_X, UID_W, UID_Y};
    desc_t pack = NULL;
    cudnnStatus_t code = cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (code == CUDNN_STATUS_SUCCESS)
        code = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64,
                                        N_TENSORS, uids);
    if (code == CUDNN_STATUS_SUCCESS)
        code = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                                        CUDNN_TYPE_VOID_PTR, N_TENSORS, array);
    if (code == CUDNN_STATUS_SUCCESS)
        code = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
                                        CUDNN_TYPE_VOID_PTR, 1, &workspace);
    if (code == CUDNN_STATUS_SUCCESS) code = cudnnBackendFinalize(pack);
    if (code == CUDNN_STATUS_SUCCESS) code = cudnnBackendExecute(ctx->dnn, plan->plan, pack);
    desc_destroy(&pack);
    return code;
}

typedef struct trial {
    cuda_ctx_t *ctx;
    const conv_plan_t *plan;
    void *const *array;
    void *workspace;
} trial_t;

static bool run_trial(void *self) {
    const trial_t *t = self;
    return execute(t->ctx, t->plan, t->array, t->workspace) == CUDNN_STATUS_SUCCESS;
}

/// Which of several engines is the fastest on these arrays (the output is overwritten each time); the first where none can be timed.
static hirl_status_t choose(cuda_ctx_t *ctx, const conv_key_t *key, const candidates_t *c,
                            void *const array[N_TENSORS], int *best_p) {
    float least = INFINITY;
    *best_p = 0;
    if (c->n < 2) return HIRL_OK;
    for (int i = 0; i < c->n; ++i) {
        const size_t bytes = (size_t)c->plan[i]->workspace_bytes;
        trial_t trial = {ctx, c->plan[i], array, NULL};
        float ms = INFINITY;
        if (hirl_cuda_scratch(ctx, bytes, &trial.workspace) != HIRL_OK) {
            hirl_error_reset();
            continue;
        }
        const hirl_status_t status = hirl_cuda_time(ctx, run_trial, &trial, &ms);
        hirl_cuda_scratch_free(ctx, bytes, trial.workspace);
        HIRL_TRY(status);
        if (ms >= least) continue;
        least = ms;
        *best_p = i;
    }
    char text[KEY_TEXT];
    hirl_log_rank(HIRL_LOG_DEBUG, "convolution %s of %s: engine %lld, %d of %d, %.4f ms",
                  KIND[key->kind], key_text(key, text), (long long)c->plan[*best_p]->engine,
                  *best_p + 1, c->n, (double)least);
    return HIRL_OK;
}

/// The arrays that an engine works on: the given ones, or copies in its order or at an address that it can read.
typedef struct arrays {
    void *given[N_TENSORS], *used[N_TENSORS];
    size_t bytes[N_TENSORS]; // of copies
    int64_t outer[N_TENSORS], channels[N_TENSORS], taps[N_TENSORS];
    int output;
} arrays_t;

static hirl_status_t arrays_begin(cuda_ctx_t *ctx, const conv_key_t *key, bool is_nchw,
                                  arrays_t *a) {
    const int64_t *dims[N_TENSORS] = {key->x, key->w, key->y};
    const int dtype = cuda_dtype_of((hirl_dtype_t)key->dtype);
    a->output = key->kind == FORWARD ? 2 : key->kind == BACKWARD_DATA ? 0 : 1;
    for (int i = 0; i < N_TENSORS; ++i) {
        a->outer[i] = dims[i][0];
        a->channels[i] = dims[i][1];
        a->taps[i] = dims[i][2] * dims[i][3];
        a->used[i] = a->given[i];
        if (!is_nchw && (uintptr_t)a->given[i] % ALIGNMENT == 0) continue;
        const int64_t count = a->outer[i] * a->channels[i] * a->taps[i];
        const size_t bytes =
            (size_t)count * hirl_dtype_size(is_nchw ? HIRL_F32 : (hirl_dtype_t)key->dtype);
        void *copy = NULL;
        HIRL_TRY(hirl_cuda_scratch(ctx, bytes, &copy));
        a->used[i] = copy;
        a->bytes[i] = bytes;
        if (i == a->output) continue;
        if (is_nchw)
            HIRL_TRY_CUDA(hirl_k_conv_weights_unpack(ctx->stream, a->given[i], dtype, a->outer[i],
                                                     a->channels[i], a->taps[i], false, copy));
        else
            HIRL_TRY_CUDA(
                cudaMemcpyAsync(copy, a->given[i], bytes, cudaMemcpyDeviceToDevice, ctx->stream));
    }
    return HIRL_OK;
}

/// Brings the result home.
static hirl_status_t arrays_finish(cuda_ctx_t *ctx, const conv_key_t *key, bool is_nchw,
                                   const arrays_t *a) {
    const int i = a->output;
    if (a->used[i] == a->given[i]) return HIRL_OK;
    if (is_nchw)
        HIRL_TRY_CUDA(hirl_k_conv_weights_pack(ctx->stream, a->used[i], a->outer[i], a->channels[i],
                                               a->taps[i], a->given[i],
                                               cuda_dtype_of((hirl_dtype_t)key->dtype)));
    else
        HIRL_TRY_CUDA(cudaMemcpyAsync(a->given[i], a->used[i], a->bytes[i],
                                      cudaMemcpyDeviceToDevice, ctx->stream));
    return HIRL_OK;
}

static void arrays_end(cuda_ctx_t *ctx, arrays_t *a) {
    for (int i = 0; i < N_TENSORS; ++i)
        if (a->bytes[i]) hirl_cuda_scratch_free(ctx, a->bytes[i], a->used[i]);
}

/// x, w and y point to packed arrays of the key's dtype; the output is written. Arrays that do not begin at a multiple of 16 bytes (views of
/// few channels) are not cuDNN's to read: they are copied.
static hirl_status_t convolve(cuda_ctx_t *ctx, const conv_key_t *key, void *x, void *w, void *y) {
    conv_plan_t *plan = hirl_cuda_plans_find(ctx->plans, key, sizeof *key);
    arrays_t a = {.given = {x, w, y}};
    candidates_t c = {.n = 0};
    hirl_status_t status = HIRL_OK;
    if (!plan) HIRL_TRY(candidates_find(ctx, key, &c));
    const bool is_nchw = plan ? plan->is_nchw : c.plan[0]->is_nchw;
    HIRL_TRY_GOTO(arrays_begin(ctx, key, is_nchw, &a), status, done);
    if (!plan) {
        int best = 0;
        HIRL_TRY_GOTO(choose(ctx, key, &c, a.used, &best), status, done);
        plan = c.plan[best];
        c.plan[best] = NULL;
        HIRL_TRY_GOTO(hirl_cuda_plans_keep(ctx->plans, key, sizeof *key, plan, plan_destroy),
                      status, done);
    }
    void *workspace = NULL;
    HIRL_TRY_GOTO(hirl_cuda_scratch(ctx, (size_t)plan->workspace_bytes, &workspace), status, done);
    const cudnnStatus_t code = execute(ctx, plan, a.used, workspace);
    hirl_cuda_scratch_free(ctx, (size_t)plan->workspace_bytes, workspace);
    if (code != CUDNN_STATUS_SUCCESS)
        status = hirl_cuda_fail_dnn(code, "a convolution", __FILE__, __LINE__, __func__);
    else
        status = arrays_finish(ctx, key, is_nchw, &a);
done:
    arrays_end(ctx, &a);
    candidates_reset(&c);
    return status;
}

hirl_status_t hirl_conv2d_cuda(hirl_backend_t *be, const hirl_conv_param_t *p,
                               const hirl_tensor_t *x, const hirl_tensor_t *w,
                               const hirl_tensor_t *bias, hirl_tensor_t *y) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    const conv_key_t key = key_of(FORWARD, p, &x->shape, &w->shape, &y->shape, x->dtype);
    cuda_lent_t weights;
    HIRL_TRY(hirl_cuda_weights_take(ctx, w, x->dtype, true, &weights));
    const hirl_status_t status =
        convolve(ctx, &key, hirl_tensor_data(x), weights.data, hirl_tensor_data(y));
    hirl_cuda_weights_give(ctx, &weights);
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
    cuda_lent_t weights;
    HIRL_TRY(hirl_cuda_weights_take(ctx, w, dy->dtype, true, &weights));
    const hirl_status_t status =
        convolve(ctx, &key, hirl_tensor_data(dx), weights.data, hirl_tensor_data(dy));
    hirl_cuda_weights_give(ctx, &weights);
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
