/// Matrix products by cuBLASLt. Row-major C = op(A) op(B) is column-major C^T = op(B)^T op(A)^T, so the operands swap and their
/// transpositions stay. 16-bit products and TF32 (only where asked) accumulate in f32.
///
/// What rides on a product, and what does not. Bytes are per element of the output, f32 | 16-bit:
/// - the bias, as BIAS: saves a pass over y (8 | 4). cuBLASLt wants it in the output's type, so 16-bit layers take it rounded,
///   and round their sum once instead of twice;
/// - the bias' gradient, as BGRADB of the weights' gradient: saves reading dy again (4 | 2);
/// - GELU does not: cuBLASLt's is the approximation by tanh, which differs from the exact one (erf, as everywhere in this program) by up
///   to 5e-4, and DGELU is the approximation's slope. The product writes the value before it to where the backward wants it, and
///   a kernel reads that and writes y: 12 | 6 in all, where the epilogue would have 8 | 4;
/// - ReLU does not: cuBLASLt's is max(x, 0), which makes 0 of NaN and so hides a run that has diverged. Only heads
///   without batch norm have it, [images, thousands]. RELU_AUX would serve nobody, for the backward reads y, which the next layer keeps anyhow.
/// Where cuBLASLt has no algorithm with an epilogue, own kernels do the same.
///
/// Choice: cuBLASLt's heuristic gives its candidates in the order of their expected times. Where bits shall repeat the first is taken: for the
/// same library and card it is the same, and cuBLAS gives the same bits for the same algorithm and workspace. Else the first
/// few are timed once a shape. Partial sums of a split inner length are kept and added in f32 (COMPUTE_TYPE), in an order of their
/// own; INPLACE and OUTPUT_TYPE would round them to the output's 16 bits, and are allowed for f32 outputs where bits need
/// not repeat.
#include "cuda_impl.h"

#include "kernels/matrix.h"

#include <math.h>
#include <string.h>

/// Vectors of epilogues begin at multiples of this, which the widest of cuBLASLt's accesses need.
enum { VECTOR_ALIGNMENT = 16 };

/// A matrix in memory: rows of `ld` elements, used transposed or not.
typedef struct operand {
    const void *data;
    int64_t ld;
    bool is_transposed;
} operand_t;

/// Row-major c [m, n] = alpha op(a) op(b) + beta c, then the epilogue.
typedef struct product {
    int64_t m, n, k;
    float alpha, beta;
    operand_t a, b;
    hirl_dtype_t dtype_in, dtype_out;
    void *c;
    cublasLtEpilogue_t epilogue;
    void *
        vector; // of dtype_out. BIAS: [n], added to each row. BGRADB: [m], written, the sums of op(a) over k
} product_t;

/// What a plan depends on. Alignments are of the pointers, in bytes, at most 256.
typedef struct product_key {
    int64_t m, n, k;
    int64_t lda, ldb, ldc; // row strides
    int32_t trans_a, trans_b, dtype_in, dtype_out;
    int32_t epilogue, align_a, align_b, align_c;
    char what[8]; // "product", apart from convolutions
} product_key_t;

typedef struct product_plan {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c; // of the swapped, column-major product
    cublasLtMatmulAlgo_t algo;
    size_t workspace_bytes;
    bool is_possible; // false: remembered, so that the heuristic is asked once
} product_plan_t;

static void plan_destroy(void *self) {
    product_plan_t *plan = self;
    if (plan->desc) (void)cublasLtMatmulDescDestroy(plan->desc);
    if (plan->a) (void)cublasLtMatrixLayoutDestroy(plan->a);
    if (plan->b) (void)cublasLtMatrixLayoutDestroy(plan->b);
    if (plan->c) (void)cublasLtMatrixLayoutDestroy(plan->c);
    hirl_mem_free(plan);
}

static cudaDataType_t data_type(int dtype) {
    return dtype == HIRL_BF16 ? CUDA_R_16BF : dtype == HIRL_F16 ? CUDA_R_16F : CUDA_R_32F;
}

static int32_t alignment(const void *ptr) {
    const uintptr_t address = (uintptr_t)ptr;
    return address
               ? (int32_t)(address & (~address + 1) & 255 ? address & (~address + 1) & 255 : 256)
               : 256;
}

static hirl_status_t set_up(const cuda_ctx_t *ctx, const product_key_t *key, const void *vector,
                            product_plan_t *plan, cublasLtMatmulPreference_t preference) {
    const cublasComputeType_t compute = key->dtype_in == HIRL_F32 && ctx->has_tf32
                                            ? CUBLAS_COMPUTE_32F_FAST_TF32
                                            : CUBLAS_COMPUTE_32F;
    const cublasOperation_t trans[2] = {key->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                                        key->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N};
    const cublasLtEpilogue_t epilogue = (cublasLtEpilogue_t)key->epilogue;
    HIRL_TRY_CUBLAS(cublasLtMatmulDescCreate(&plan->desc, compute, CUDA_R_32F));
    HIRL_TRY_CUBLAS(cublasLtMatmulDescSetAttribute(plan->desc, CUBLASLT_MATMUL_DESC_TRANSA,
                                                   &trans[0], sizeof trans[0]));
    HIRL_TRY_CUBLAS(cublasLtMatmulDescSetAttribute(plan->desc, CUBLASLT_MATMUL_DESC_TRANSB,
                                                   &trans[1], sizeof trans[1]));
    HIRL_TRY_CUBLAS(cublasLtMatmulDescSetAttribute(plan->desc, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                                   &epilogue, sizeof epilogue));
    // The heuristic looks at the pointer's alignment.
    if (vector)
        HIRL_TRY_CUBLAS(cublasLtMatmulDescSetAttribute(
            plan->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &vector, sizeof vector));
    // Column-major: the stored row length is the number of rows.
    HIRL_TRY_CUBLAS(cublasLtMatrixLayoutCreate(
        &plan->a, data_type(key->dtype_in), (uint64_t)(key->trans_b ? key->k : key->n),
        (uint64_t)(key->trans_b ? key->n : key->k), key->ldb));
    HIRL_TRY_CUBLAS(cublasLtMatrixLayoutCreate(
        &plan->b, data_type(key->dtype_in), (uint64_t)(key->trans_a ? key->m : key->k),
        (uint64_t)(key->trans_a ? key->k : key->m), key->lda));
    HIRL_TRY_CUBLAS(cublasLtMatrixLayoutCreate(&plan->c, data_type(key->dtype_out),
                                               (uint64_t)key->n, (uint64_t)key->m, key->ldc));
    const uint32_t align[3] = {(uint32_t)key->align_b, (uint32_t)key->align_a,
                               (uint32_t)key->align_c};
    const uint64_t workspace = HIRL_CUDA_BLAS_WORKSPACE;
    const bool is_free = !ctx->is_deterministic && key->dtype_out == HIRL_F32;
    const uint32_t reductions =
        is_free ? CUBLASLT_REDUCTION_SCHEME_MASK : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    HIRL_TRY_CUBLAS(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
    HIRL_TRY_CUBLAS(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions));
    HIRL_TRY_CUBLAS(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &align[0], sizeof align[0]));
    HIRL_TRY_CUBLAS(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &align[1], sizeof align[1]));
    HIRL_TRY_CUBLAS(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &align[2], sizeof align[2]));
    HIRL_TRY_CUBLAS(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &align[2], sizeof align[2]));
    return HIRL_OK;
}

/// A plan without an algorithm, and the heuristic's candidates; none: cuBLASLt does not do this epilogue with these types.
static hirl_status_t plan_make(cuda_ctx_t *ctx, const product_key_t *key, const void *vector,
                               product_plan_t **plan_p,
                               cublasLtMatmulHeuristicResult_t result[HIRL_CUDA_N_TIMED],
                               int *n_results_p) {
    product_plan_t *plan = NULL;
    cublasLtMatmulPreference_t preference = NULL;
    int n_results = 0;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &plan));
    hirl_status_t status = HIRL_OK;
    if (cublasLtMatmulPreferenceCreate(&preference) != CUBLAS_STATUS_SUCCESS)
        status = HIRL_FAIL(HIRL_ERR_MEMORY, "cuBLAS: no memory for a matrix product's preferences");
    if (status == HIRL_OK) status = set_up(ctx, key, vector, plan, preference);
    if (status == HIRL_OK) {
        const cublasStatus_t code = cublasLtMatmulAlgoGetHeuristic(
            ctx->blas, plan->desc, plan->a, plan->b, plan->c, plan->c, preference,
            hirl_cuda_may_time(ctx) ? HIRL_CUDA_N_TIMED : 1, result, &n_results);
        if (code != CUBLAS_STATUS_SUCCESS && code != CUBLAS_STATUS_NOT_SUPPORTED)
            status = hirl_cuda_fail_blas(code, "cublasLtMatmulAlgoGetHeuristic", __FILE__, __LINE__,
                                         __func__);
        if (code != CUBLAS_STATUS_SUCCESS) n_results = 0;
    }
    if (preference) (void)cublasLtMatmulPreferenceDestroy(preference);
    if (status != HIRL_OK) {
        plan_destroy(plan);
        return status;
    }
    *plan_p = plan;
    *n_results_p = n_results;
    return HIRL_OK;
}

/// One product by one algorithm; `d` takes the result, which is c but in trials.
typedef struct call {
    cuda_ctx_t *ctx;
    const product_plan_t *plan;
    const product_t *p;
    const cublasLtMatmulAlgo_t *algo;
    size_t workspace_bytes;
    void *workspace, *d;
} call_t;

static cublasStatus_t run(const call_t *call) {
    const product_plan_t *plan = call->plan;
    const product_t *p = call->p;
    return cublasLtMatmul(call->ctx->blas, plan->desc, &p->alpha, p->b.data, plan->a, p->a.data,
                          plan->b, &p->beta, p->c, plan->c, call->d, plan->c, call->algo,
                          call->workspace, call->workspace_bytes, call->ctx->stream);
}

static bool run_trial(void *call) { return run(call) == CUBLAS_STATUS_SUCCESS; }

/// Puts the fastest of several candidates into plan->algo, or the first that cuBLASLt calls possible. A product that adds to c is tried
/// into memory of its own. Where that lacks, as much as where a trial fails, the order of the heuristic stands.
static hirl_status_t choose(cuda_ctx_t *ctx, const product_t *p, product_plan_t *plan,
                            const cublasLtMatmulHeuristicResult_t *result, int n_results) {
    const size_t bytes = p->beta == 0 ? 0 : (size_t)(p->m * p->n) * hirl_dtype_size(p->dtype_out);
    float least = INFINITY;
    int best = 0;
    void *d = NULL;
    if (n_results > 1 && hirl_cuda_scratch(ctx, bytes, &d) != HIRL_OK) {
        hirl_error_reset();
    } else if (n_results > 1) {
        hirl_status_t status = HIRL_OK;
        for (int i = 0; i < n_results && status == HIRL_OK; ++i) {
            float ms = INFINITY;
            call_t call = {ctx,  plan,        p, &result[i].algo, result[i].workspaceSize,
                           NULL, d ? d : p->c};
            if (result[i].state != CUBLAS_STATUS_SUCCESS) continue;
            if (hirl_cuda_scratch(ctx, call.workspace_bytes, &call.workspace) != HIRL_OK) {
                hirl_error_reset();
                continue;
            }
            status = hirl_cuda_time(ctx, run_trial, &call, &ms);
            hirl_cuda_scratch_free(ctx, call.workspace_bytes, call.workspace);
            if (ms >= least) continue;
            least = ms;
            best = i;
        }
        hirl_cuda_scratch_free(ctx, bytes, d);
        HIRL_TRY(status);
        hirl_log_rank(HIRL_LOG_DEBUG,
                      "product [%lld, %lld] x [%lld, %lld] of %s to %s, epilogue %d: algorithm %d "
                      "of %d, %.4f ms",
                      (long long)p->m, (long long)p->k, (long long)p->k, (long long)p->n,
                      hirl_dtype_name(p->dtype_in), hirl_dtype_name(p->dtype_out), (int)p->epilogue,
                      best + 1, n_results, (double)least);
    }
    plan->algo = result[best].algo;
    plan->workspace_bytes = result[best].workspaceSize;
    return HIRL_OK;
}

static product_key_t key_of(const product_t *p) {
    product_key_t key;
    memset(&key, 0, sizeof key);
    key.m = p->m;
    key.n = p->n;
    key.k = p->k;
    key.lda = p->a.ld;
    key.ldb = p->b.ld;
    key.ldc = p->n;
    key.trans_a = p->a.is_transposed;
    key.trans_b = p->b.is_transposed;
    key.dtype_in = (int32_t)p->dtype_in;
    key.dtype_out = (int32_t)p->dtype_out;
    key.epilogue = (int32_t)p->epilogue;
    key.align_a = alignment(p->a.data);
    key.align_b = alignment(p->b.data);
    key.align_c = alignment(p->c);
    memcpy(key.what, "product", sizeof key.what);
    return key;
}

/// *is_done_p false: nothing was done, for cuBLASLt lacks the epilogue.
static hirl_status_t try_product(cuda_ctx_t *ctx, const product_t *p, bool *is_done_p) {
    const product_key_t key = key_of(p);
    product_plan_t *plan = hirl_cuda_plans_find(ctx->plans, &key, sizeof key);
    *is_done_p = false;
    if (!plan) {
        cublasLtMatmulHeuristicResult_t result[HIRL_CUDA_N_TIMED];
        int n_results = 0;
        HIRL_TRY(plan_make(ctx, &key, p->vector, &plan, result, &n_results));
        plan->is_possible = n_results > 0;
        const hirl_status_t status =
            n_results > 0 ? choose(ctx, p, plan, result, n_results) : HIRL_OK;
        if (status != HIRL_OK) plan_destroy(plan);
        HIRL_TRY(status);
        HIRL_TRY(hirl_cuda_plans_keep(ctx->plans, &key, sizeof key, plan, plan_destroy));
    }
    if (!plan->is_possible) return HIRL_OK;
    if (p->vector)
        HIRL_TRY_CUBLAS(cublasLtMatmulDescSetAttribute(
            plan->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->vector, sizeof p->vector));
    call_t call = {ctx, plan, p, &plan->algo, plan->workspace_bytes, NULL, p->c};
    HIRL_TRY(hirl_cuda_scratch(ctx, call.workspace_bytes, &call.workspace));
    const cublasStatus_t code = run(&call);
    hirl_cuda_scratch_free(ctx, call.workspace_bytes, call.workspace);
    if (code != CUBLAS_STATUS_SUCCESS)
        return hirl_cuda_fail_blas(code, "cublasLtMatmul", __FILE__, __LINE__, __func__);
    *is_done_p = true;
    return HIRL_OK;
}

/// The same without an epilogue, which must exist.
static hirl_status_t plain_product(cuda_ctx_t *ctx, const product_t *given) {
    product_t p = *given;
    bool is_done = false;
    p.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    p.vector = NULL;
    HIRL_TRY(try_product(ctx, &p, &is_done));
    HIRL_REQUIRE(is_done, HIRL_ERR_UNSUPPORTED,
                 "cuBLAS has no algorithm for a product [%lld, %lld]%s x [%lld, %lld]%s of %s to "
                 "%s, at addresses that are multiples of %d, %d and %d bytes; try another "
                 "run%%precision, or run%%device = 'cpu'",
                 (long long)p.m, (long long)p.k, p.a.is_transposed ? " (transposed)" : "",
                 (long long)p.k, (long long)p.n, p.b.is_transposed ? " (transposed)" : "",
                 hirl_dtype_name(p.dtype_in), hirl_dtype_name(p.dtype_out),
                 (int)alignment(p.a.data), (int)alignment(p.b.data), (int)alignment(p.c));
    return HIRL_OK;
}

static operand_t operand(const hirl_tensor_t *x, bool is_transposed) {
    return (operand_t){
        .data = hirl_tensor_data(x), .ld = x->shape.dim[1], .is_transposed = is_transposed};
}

hirl_status_t hirl_gemm_cuda(hirl_backend_t *be, bool trans_a, bool trans_b, float alpha,
                             const hirl_tensor_t *a, const hirl_tensor_t *b, float beta,
                             hirl_tensor_t *c) {
    const product_t p = {.m = c->shape.dim[0],
                         .n = c->shape.dim[1],
                         .k = a->shape.dim[trans_a ? 0 : 1],
                         .alpha = alpha,
                         .beta = beta,
                         .a = operand(a, trans_a),
                         .b = operand(b, trans_b),
                         .dtype_in = a->dtype,
                         .dtype_out = c->dtype,
                         .c = hirl_tensor_data(c)};
    return plain_product(cuda_ctx(be), &p);
}

// ---------------------------------------------------------------------------------------------- linear layers

/// A bias (f32 parameter) as the epilogue takes it: of `dtype`, at an address that accesses of cuBLASLt are aligned to.
static hirl_status_t bias_take(cuda_ctx_t *ctx, const hirl_tensor_t *bias, hirl_dtype_t dtype,
                               cuda_lent_t *lent_p) {
    HIRL_TRY(hirl_cuda_weights_take(ctx, bias, dtype, false, lent_p));
    if ((uintptr_t)lent_p->data % VECTOR_ALIGNMENT == 0) return HIRL_OK;
    const size_t bytes = (size_t)hirl_tensor_count(bias) * sizeof(float);
    void *copy = NULL;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, &copy));
    const cudaError_t code =
        cudaMemcpyAsync(copy, lent_p->data, bytes, cudaMemcpyDeviceToDevice, ctx->stream);
    if (code != cudaSuccess) hirl_cuda_scratch_free(ctx, bytes, copy);
    HIRL_TRY_CUDA(code);
    *lent_p = (cuda_lent_t){.data = copy, .bytes = bytes};
    return HIRL_OK;
}

hirl_status_t hirl_linear_cuda(hirl_backend_t *be, const hirl_tensor_t *x, const hirl_tensor_t *w,
                               const hirl_tensor_t *bias, hirl_act_t act, hirl_tensor_t *y,
                               hirl_tensor_t *pre) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    const int64_t n = x->shape.dim[0], n_in = x->shape.dim[1], n_out = w->shape.dim[0];
    void *sum = hirl_tensor_data(pre ? pre : y); // x w^T + bias
    cuda_lent_t weights, bias_lent = {0};
    bool is_done = false;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_cuda_weights_take(ctx, w, x->dtype, false, &weights));
    product_t p = {.m = n,
                   .n = n_out,
                   .k = n_in,
                   .alpha = 1,
                   .a = operand(x, false),
                   .b = {.data = weights.data, .ld = n_in, .is_transposed = true},
                   .dtype_in = x->dtype,
                   .dtype_out = y->dtype,
                   .c = sum,
                   .epilogue = CUBLASLT_EPILOGUE_BIAS};
    if (bias) {
        HIRL_TRY_GOTO(bias_take(ctx, bias, y->dtype, &bias_lent), status, done);
        p.vector = bias_lent.data;
        HIRL_TRY_GOTO(try_product(ctx, &p, &is_done), status, done);
    }
    const float *missing = bias && !is_done ? hirl_tensor_data(bias) : NULL;
    if (!is_done) HIRL_TRY_GOTO(plain_product(ctx, &p), status, done);
    if (missing)
        HIRL_TRY_CUDA_GOTO(hirl_k_linear_epilogue(ctx->stream, sum, missing, (int)act,
                                                  cuda_dtype(y), n, n_out, hirl_tensor_data(y),
                                                  pre ? sum : NULL),
                           status, done);
    else if (act != HIRL_ACT_NONE)
        HIRL_TRY_CUDA_GOTO(
            hirl_k_act(ctx->stream, (int)act, sum, cuda_dtype(y), n * n_out, hirl_tensor_data(y)),
            status, done);
done:
    hirl_cuda_weights_give(ctx, &bias_lent);
    hirl_cuda_weights_give(ctx, &weights);
    return status;
}

/// dw (+)= dy^T x and dbias (+)= column sums of dy in one product. *is_done_p false: nothing was done. What is added to, or lies where
/// cuBLASLt's accesses are not aligned, gets its sums by way of scratch memory.
static hirl_status_t weights_and_bias(cuda_ctx_t *ctx, const product_t *given, hirl_tensor_t *dbias,
                                      bool accumulate, bool *is_done_p) {
    product_t p = *given;
    float *sums = hirl_tensor_data(dbias);
    const bool is_apart = accumulate || (uintptr_t)sums % VECTOR_ALIGNMENT != 0;
    const size_t bytes = is_apart ? (size_t)p.m * sizeof(float) : 0;
    void *scratch = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, &scratch));
    p.epilogue = CUBLASLT_EPILOGUE_BGRADB;
    p.vector = is_apart ? scratch : sums;
    HIRL_TRY_GOTO(try_product(ctx, &p, is_done_p), status, done);
    if (*is_done_p && is_apart)
        HIRL_TRY_CUDA_GOTO(hirl_k_axpby(ctx->stream, 1, scratch, HIRL_K_F32, accumulate ? 1 : 0,
                                        sums, HIRL_K_F32, p.m),
                           status, done);
done:
    hirl_cuda_scratch_free(ctx, bytes, scratch);
    return status;
}

hirl_status_t hirl_linear_backward_cuda(hirl_backend_t *be, const hirl_tensor_t *dy,
                                        const hirl_tensor_t *x, const hirl_tensor_t *w,
                                        bool accumulate, hirl_tensor_t *dx, hirl_tensor_t *dw,
                                        hirl_tensor_t *dbias) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    const int64_t n = dy->shape.dim[0], n_out = dy->shape.dim[1];
    bool is_done = false;
    if (dx) {
        const int64_t n_in = w->shape.dim[1];
        cuda_lent_t weights;
        HIRL_TRY(hirl_cuda_weights_take(ctx, w, dy->dtype, false, &weights));
        const product_t p = {.m = n,
                             .n = n_in,
                             .k = n_out,
                             .alpha = 1,
                             .a = operand(dy, false),
                             .b = {.data = weights.data, .ld = n_in, .is_transposed = false},
                             .dtype_in = dy->dtype,
                             .dtype_out = dx->dtype,
                             .c = hirl_tensor_data(dx)};
        const hirl_status_t status = plain_product(ctx, &p);
        hirl_cuda_weights_give(ctx, &weights);
        HIRL_TRY(status);
    }
    if (dw) {
        const product_t p = {.m = n_out,
                             .n = x->shape.dim[1],
                             .k = n,
                             .alpha = 1,
                             .beta = accumulate ? 1 : 0,
                             .a = operand(dy, true),
                             .b = operand(x, false),
                             .dtype_in = dy->dtype,
                             .dtype_out = HIRL_F32,
                             .c = hirl_tensor_data(dw)};
        if (dbias) HIRL_TRY(weights_and_bias(ctx, &p, dbias, accumulate, &is_done));
        if (!is_done) HIRL_TRY(plain_product(ctx, &p));
    }
    if (dbias && !is_done) return hirl_cuda_column_sums(ctx, dy, n, n_out, accumulate, dbias);
    return HIRL_OK;
}

hirl_status_t hirl_cuda_column_sums(cuda_ctx_t *ctx, const hirl_tensor_t *x, int64_t n_rows,
                                    int64_t n_columns, bool accumulate, hirl_tensor_t *sums) {
    const size_t bytes = hirl_k_column_sums_scratch(n_rows, n_columns);
    void *scratch = NULL;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, &scratch));
    const cudaError_t code =
        hirl_k_column_sums(ctx->stream, hirl_tensor_data(x), cuda_dtype(x), n_rows, n_columns,
                           scratch, accumulate, hirl_tensor_data(sums));
    hirl_cuda_scratch_free(ctx, bytes, scratch);
    HIRL_TRY_CUDA(code);
    return HIRL_OK;
}
