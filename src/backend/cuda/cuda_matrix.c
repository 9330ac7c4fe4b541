/// Matrix products by cuBLASLt. Row-major C = op(A) op(B) is column-major C^T = op(B)^T op(A)^T, so the operands swap and their
/// transpositions stay. A bias alone rides on the product where cuBLASLt takes an f32 one; with an activation it is a kernel of its
/// own, because cuBLASLt's ReLU turns NaN into 0, which would hide a diverged run, and its GELU is the tanh approximation.
/// bf16 products and TF32 (only where asked) accumulate in f32.
#include "cuda_impl.h"

#include "kernels/matrix.h"

#include <string.h>

static const size_t WORKSPACE_LIMIT = (size_t)32 << 20;

/// What a plan depends on. Alignments are of the pointers, in bytes, at most 256.
typedef struct product_key {
    int64_t m, n, k;       // row-major C [m, n], inner length k
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
} product_plan_t;

static void plan_destroy(void *self) {
    product_plan_t *plan = self;
    if (plan->desc) (void)cublasLtMatmulDescDestroy(plan->desc);
    if (plan->a) (void)cublasLtMatrixLayoutDestroy(plan->a);
    if (plan->b) (void)cublasLtMatrixLayoutDestroy(plan->b);
    if (plan->c) (void)cublasLtMatrixLayoutDestroy(plan->c);
    hirl_mem_free(plan);
}

static cudaDataType_t data_type(int dtype) { return dtype == HIRL_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

static int32_t alignment(const void *ptr) {
    const uintptr_t address = (uintptr_t)ptr;
    return address
               ? (int32_t)(address & (~address + 1) & 255 ? address & (~address + 1) & 255 : 256)
               : 256;
}

static hirl_status_t set_up(const cuda_ctx_t *ctx, const product_key_t *key, product_plan_t *plan,
                            cublasLtMatmulPreference_t preference) {
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
    if (epilogue != CUBLASLT_EPILOGUE_DEFAULT) {
        const cudaDataType_t bias_type = CUDA_R_32F;
        HIRL_TRY_CUBLAS(cublasLtMatmulDescSetAttribute(
            plan->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type, sizeof bias_type));
    }
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
    HIRL_TRY_CUBLAS(cublasLtMatmulPreferenceSetAttribute(preference,
                                                         CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                         &WORKSPACE_LIMIT, sizeof WORKSPACE_LIMIT));
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

/// *plan_p NULL: cuBLASLt has no algorithm for this epilogue and these types.
static hirl_status_t plan_make(cuda_ctx_t *ctx, const product_key_t *key, product_plan_t **plan_p) {
    product_plan_t *plan = NULL;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    int n_results = 0;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &plan));
    hirl_status_t status = HIRL_OK;
    if (cublasLtMatmulPreferenceCreate(&preference) != CUBLAS_STATUS_SUCCESS)
        status = HIRL_FAIL(HIRL_ERR_MEMORY, "cuBLAS: no memory for a matrix product's preferences");
    if (status == HIRL_OK) status = set_up(ctx, key, plan, preference);
    if (status == HIRL_OK) {
        const cublasStatus_t code =
            cublasLtMatmulAlgoGetHeuristic(ctx->blas, plan->desc, plan->a, plan->b, plan->c,
                                           plan->c, preference, 1, &result, &n_results);
        if (code != CUBLAS_STATUS_SUCCESS && code != CUBLAS_STATUS_NOT_SUPPORTED)
            status = hirl_cuda_fail_blas(code, "cublasLtMatmulAlgoGetHeuristic", __FILE__, __LINE__,
                                         __func__);
        if (code != CUBLAS_STATUS_SUCCESS) n_results = 0;
    }
    if (preference) (void)cublasLtMatmulPreferenceDestroy(preference);
    if (status == HIRL_OK && n_results > 0) {
        plan->algo = result.algo;
        plan->workspace_bytes = result.workspaceSize;
        *plan_p = plan;
        return HIRL_OK;
    }
    plan_destroy(plan);
    *plan_p = NULL;
    return status;
}

/// A matrix in memory: rows of `ld` elements, used transposed or not.
typedef struct operand {
    const void *data;
    int64_t ld;
    bool is_transposed;
} operand_t;

/// Row-major c [m, n] = alpha op(a) op(b) + beta c, then the epilogue with bias [n]. *is_done_p false: nothing was done, as
/// cuBLASLt lacks the epilogue.
static hirl_status_t product(cuda_ctx_t *ctx, int64_t m, int64_t n, int64_t k, float alpha,
                             operand_t a, operand_t b, hirl_dtype_t dtype_in, float beta, void *c,
                             hirl_dtype_t dtype_out, cublasLtEpilogue_t epilogue, const float *bias,
                             bool *is_done_p) {
    product_key_t key;
    memset(&key, 0, sizeof key);
    key.m = m;
    key.n = n;
    key.k = k;
    key.lda = a.ld;
    key.ldb = b.ld;
    key.ldc = n;
    key.trans_a = a.is_transposed;
    key.trans_b = b.is_transposed;
    key.dtype_in = dtype_in;
    key.dtype_out = dtype_out;
    key.epilogue = epilogue;
    key.align_a = alignment(a.data);
    key.align_b = alignment(b.data);
    key.align_c = alignment(c);
    memcpy(key.what, "product", sizeof key.what);
    product_plan_t *plan = hirl_cuda_plans_find(ctx->plans, &key, sizeof key);
    if (!plan) {
        HIRL_TRY(plan_make(ctx, &key, &plan));
        if (plan) HIRL_TRY(hirl_cuda_plans_keep(ctx->plans, &key, sizeof key, plan, plan_destroy));
    }
    *is_done_p = plan != NULL;
    if (!plan) return HIRL_OK;
    if (bias)
        HIRL_TRY_CUBLAS(cublasLtMatmulDescSetAttribute(
            plan->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
    void *workspace = NULL;
    HIRL_TRY(hirl_cuda_scratch(ctx, plan->workspace_bytes, &workspace));
    const cublasStatus_t code = cublasLtMatmul(
        ctx->blas, plan->desc, &alpha, b.data, plan->a, a.data, plan->b, &beta, c, plan->c, c,
        plan->c, &plan->algo, workspace, plan->workspace_bytes, ctx->stream);
    hirl_cuda_scratch_free(ctx, plan->workspace_bytes, workspace);
    HIRL_TRY_CUBLAS(code);
    return HIRL_OK;
}

/// The same without an epilogue, which must exist.
static hirl_status_t plain_product(cuda_ctx_t *ctx, int64_t m, int64_t n, int64_t k, float alpha,
                                   operand_t a, operand_t b, hirl_dtype_t dtype_in, float beta,
                                   void *c, hirl_dtype_t dtype_out) {
    bool is_done = false;
    HIRL_TRY(product(ctx, m, n, k, alpha, a, b, dtype_in, beta, c, dtype_out,
                     CUBLASLT_EPILOGUE_DEFAULT, NULL, &is_done));
    HIRL_REQUIRE(is_done, HIRL_ERR_UNSUPPORTED,
                 "cuBLAS has no algorithm for a product [%lld, %lld] x [%lld, %lld] of %s",
                 (long long)m, (long long)k, (long long)k, (long long)n, hirl_dtype_name(dtype_in));
    return HIRL_OK;
}

static operand_t operand(const hirl_tensor_t *x, bool is_transposed) {
    return (operand_t){
        .data = hirl_tensor_data(x), .ld = x->shape.dim[1], .is_transposed = is_transposed};
}

hirl_status_t hirl_gemm_cuda(hirl_backend_t *be, bool trans_a, bool trans_b, float alpha,
                             const hirl_tensor_t *a, const hirl_tensor_t *b, float beta,
                             hirl_tensor_t *c) {
    return plain_product(cuda_ctx(be), c->shape.dim[0], c->shape.dim[1],
                         a->shape.dim[trans_a ? 0 : 1], alpha, operand(a, trans_a),
                         operand(b, trans_b), a->dtype, beta, hirl_tensor_data(c), c->dtype);
}

// ---------------------------------------------------------------------------------------------- linear layers

/// Weights (f32 parameters) as the product with `dtype` takes them: themselves, or a bf16 copy in *scratch_p.
static hirl_status_t weights_begin(cuda_ctx_t *ctx, const hirl_tensor_t *w, hirl_dtype_t dtype,
                                   const void **data_p, size_t *bytes_p, void **scratch_p) {
    *data_p = hirl_tensor_data(w);
    *bytes_p = 0;
    *scratch_p = NULL;
    if (dtype == HIRL_F32) return HIRL_OK;
    const size_t bytes = (size_t)hirl_tensor_count(w) * sizeof(uint16_t);
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, scratch_p));
    *bytes_p = bytes;
    *data_p = *scratch_p;
    const cudaError_t code = hirl_k_cast(ctx->stream, hirl_tensor_data(w), HIRL_K_F32, *scratch_p,
                                         HIRL_K_BF16, hirl_tensor_count(w));
    if (code == cudaSuccess) return HIRL_OK;
    hirl_cuda_scratch_free(ctx, bytes, *scratch_p);
    return hirl_cuda_fail(code, "hirl_k_cast", __FILE__, __LINE__, __func__);
}

hirl_status_t hirl_linear_cuda(hirl_backend_t *be, const hirl_tensor_t *x, const hirl_tensor_t *w,
                               const hirl_tensor_t *bias, hirl_act_t act, hirl_tensor_t *y,
                               hirl_tensor_t *pre) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    const int64_t n = x->shape.dim[0], n_in = x->shape.dim[1], n_out = w->shape.dim[0];
    const float *bias_data = bias ? hirl_tensor_data(bias) : NULL;
    const void *weights = NULL;
    void *scratch = NULL;
    size_t bytes = 0;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(weights_begin(ctx, w, x->dtype, &weights, &bytes, &scratch));
    const operand_t a = operand(x, false);
    const operand_t b = {.data = weights, .ld = n_in, .is_transposed = true};
    bool is_done = false;
    if (act == HIRL_ACT_NONE && bias)
        HIRL_TRY_GOTO(product(ctx, n, n_out, n_in, 1, a, b, x->dtype, 0, hirl_tensor_data(y),
                              y->dtype, CUBLASLT_EPILOGUE_BIAS, bias_data, &is_done),
                      status, done);
    if (!is_done) {
        HIRL_TRY_GOTO(
            plain_product(ctx, n, n_out, n_in, 1, a, b, x->dtype, 0, hirl_tensor_data(y), y->dtype),
            status, done);
        if (bias || act != HIRL_ACT_NONE)
            HIRL_TRY_CUDA_GOTO(hirl_k_linear_epilogue(ctx->stream, hirl_tensor_data(y), bias_data,
                                                      (int)act, cuda_dtype(y), n, n_out,
                                                      hirl_tensor_data(y),
                                                      pre ? hirl_tensor_data(pre) : NULL),
                               status, done);
    }
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
    const float keep = accumulate ? 1 : 0;
    if (dx) {
        const int64_t n_in = w->shape.dim[1];
        const void *weights = NULL;
        void *scratch = NULL;
        size_t bytes = 0;
        HIRL_TRY(weights_begin(ctx, w, dy->dtype, &weights, &bytes, &scratch));
        const operand_t b = {.data = weights, .ld = n_in, .is_transposed = false};
        const hirl_status_t status = plain_product(ctx, n, n_in, n_out, 1, operand(dy, false), b,
                                                   dy->dtype, 0, hirl_tensor_data(dx), dx->dtype);
        hirl_cuda_scratch_free(ctx, bytes, scratch);
        HIRL_TRY(status);
    }
    if (dw)
        HIRL_TRY(plain_product(ctx, n_out, x->shape.dim[1], n, 1, operand(dy, true),
                               operand(x, false), dy->dtype, keep, hirl_tensor_data(dw), HIRL_F32));
    if (dbias) return hirl_cuda_column_sums(ctx, dy, n, n_out, accumulate, dbias);
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
