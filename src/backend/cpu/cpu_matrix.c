/// Matrix products: f32 by oneDNN's sgemm, bf16 by its matmul (one operation per set of sizes, kept). Bias and activation follow in
/// one pass over the output, which is then still in the cache for all but the largest layers.
#include "cpu_impl.h"
#include "cpu_vector_impl.h"

#include <string.h>

/// count values from one dtype to the other.
CPU_INLINE void convert(const cpu_ctx_t *ctx, int64_t count, const void *x, bool x_bf16, void *y,
                        bool y_bf16) {
    const int64_t n_full = count / CPU_VECTOR;
#pragma omp parallel for num_threads(ctx->n_threads) schedule(static) if (count > 1 << 15)
    for (int64_t v = 0; v < n_full; ++v)
        vf_store(y, v * CPU_VECTOR, y_bf16, CPU_VECTOR,
                 vf_load(x, v * CPU_VECTOR, x_bf16, CPU_VECTOR));
    const int rest = (int)(count % CPU_VECTOR);
    if (rest)
        vf_store(y, n_full * CPU_VECTOR, y_bf16, rest,
                 vf_load(x, n_full * CPU_VECTOR, x_bf16, rest));
}

/// c = op(a) op(b) of bf16 matrices; by way of f32 where oneDNN does not multiply bf16.
static hirl_status_t product_bf16(cpu_ctx_t *ctx, bool trans_a, bool trans_b, int64_t m, int64_t n,
                                  int64_t k, const void *a, const void *b, hirl_dtype_t c_dtype,
                                  void *c) {
    if (hirl_cpu_has_bf16(ctx))
        return hirl_cpu_matmul_bf16(ctx, trans_a, trans_b, m, n, k, a, b, c_dtype, c);
    const size_t bytes = (size_t)(m * k + k * n + m * n) * sizeof(float);
    void *memory = NULL;
    HIRL_TRY(hirl_cpu_scratch(ctx, bytes, &memory));
    float *wide_a = memory, *wide_b = wide_a + m * k, *wide_c = wide_b + k * n;
    convert(ctx, m * k, a, true, wide_a, false);
    convert(ctx, k * n, b, true, wide_b, false);
    const hirl_status_t status =
        hirl_cpu_sgemm(trans_a, trans_b, m, n, k, 1, wide_a, wide_b, 0, wide_c);
    if (status == HIRL_OK && c_dtype == HIRL_BF16)
        convert(ctx, m * n, wide_c, false, c, true);
    else if (status == HIRL_OK)
        memcpy(c, wide_c, (size_t)(m * n) * sizeof(float));
    hirl_cpu_scratch_free(ctx, bytes, memory);
    return status;
}

/// c (+)= product by way of f32: what oneDNN's bf16 matmul has no form for.
static hirl_status_t gemm_bf16(cpu_ctx_t *ctx, bool trans_a, bool trans_b, int64_t m, int64_t n,
                               int64_t k, float alpha, const void *a, const void *b, float beta,
                               hirl_dtype_t c_dtype, void *c) {
    if (alpha == 1 && beta == 0)
        return product_bf16(ctx, trans_a, trans_b, m, n, k, a, b, c_dtype, c);
    const size_t bytes = (size_t)(m * n) * sizeof(float);
    float *product = NULL;
    HIRL_TRY(hirl_cpu_scratch(ctx, bytes, (void **)&product));
    const hirl_status_t status =
        product_bf16(ctx, trans_a, trans_b, m, n, k, a, b, HIRL_F32, product);
    if (status == HIRL_OK) {
        const bool is_bf16 = c_dtype == HIRL_BF16;
        const int64_t count = m * n;
#pragma omp parallel for num_threads(ctx->n_threads) schedule(static) if (count > 1 << 15)
        for (int64_t i = 0; i < count; i += CPU_VECTOR) {
            const int lanes = count - i < CPU_VECTOR ? (int)(count - i) : CPU_VECTOR;
            vf_t x = vf_load(product, i, false, lanes) * alpha;
            if (beta != 0) x += vf_load(c, i, is_bf16, lanes) * beta;
            vf_store(c, i, is_bf16, lanes, x);
        }
    }
    hirl_cpu_scratch_free(ctx, bytes, product);
    return status;
}

hirl_status_t hirl_gemm_cpu(hirl_backend_t *be, bool trans_a, bool trans_b, float alpha,
                            const hirl_tensor_t *a, const hirl_tensor_t *b, float beta,
                            hirl_tensor_t *c) {
    const int64_t m = c->shape.dim[0], n = c->shape.dim[1], k = a->shape.dim[trans_a ? 0 : 1];
    if (a->dtype == HIRL_F32)
        return hirl_cpu_sgemm(trans_a, trans_b, m, n, k, alpha, hirl_tensor_f32(a),
                              hirl_tensor_f32(b), beta, hirl_tensor_f32(c));
    return gemm_bf16(cpu_ctx(be), trans_a, trans_b, m, n, k, alpha, hirl_tensor_data(a),
                     hirl_tensor_data(b), beta, c->dtype, hirl_tensor_data(c));
}

/// Weights as bf16, in scratch memory.
static hirl_status_t narrow_weights(cpu_ctx_t *ctx, const hirl_tensor_t *w, void **data_p,
                                    size_t *bytes_p) {
    const int64_t count = hirl_tensor_count(w);
    *bytes_p = (size_t)count * 2;
    void *data = NULL;
    HIRL_TRY(hirl_cpu_scratch(ctx, *bytes_p, &data));
    convert(ctx, count, hirl_tensor_f32(w), false, data, true);
    *data_p = data;
    return HIRL_OK;
}

/// y = act(y + bias), pre = y + bias.
CPU_INLINE void finish_rows(const cpu_ctx_t *ctx, int64_t n_rows, int64_t n_columns,
                            const float *bias, hirl_act_t act, void *y, void *pre, bool is_bf16) {
#pragma omp parallel for num_threads(ctx->n_threads) \
    schedule(static) if (n_rows * n_columns > 1 << 15)
    for (int64_t r = 0; r < n_rows; ++r) {
        for (int64_t c = 0; c < n_columns; c += CPU_VECTOR) {
            const int lanes = n_columns - c < CPU_VECTOR ? (int)(n_columns - c) : CPU_VECTOR;
            const int64_t i = r * n_columns + c;
            vf_t x = vf_load(y, i, is_bf16, lanes);
            if (bias) x += vf_load(bias, c, false, lanes);
            if (pre) vf_store(pre, i, is_bf16, lanes, x);
            if (act == HIRL_ACT_RELU) x = vf_relu(x);
            if (act == HIRL_ACT_GELU) {
                // The slope is taken later at the rounded value that `pre` keeps; so is the value here.
                if (pre && is_bf16) x = vf_load(pre, i, true, lanes);
                x = vf_gelu(x);
            }
            vf_store(y, i, is_bf16, lanes, x);
        }
    }
}

hirl_status_t hirl_linear_cpu(hirl_backend_t *be, const hirl_tensor_t *x, const hirl_tensor_t *w,
                              const hirl_tensor_t *bias, hirl_act_t act, hirl_tensor_t *y,
                              hirl_tensor_t *pre) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t n = x->shape.dim[0], n_in = x->shape.dim[1], n_out = w->shape.dim[0];
    const bool is_bf16 = x->dtype == HIRL_BF16;
    if (is_bf16) {
        void *weights = NULL;
        size_t bytes = 0;
        HIRL_TRY(narrow_weights(ctx, w, &weights, &bytes));
        const hirl_status_t status =
            product_bf16(ctx, false, true, n, n_out, n_in, hirl_tensor_data(x), weights, HIRL_BF16,
                         hirl_tensor_data(y));
        hirl_cpu_scratch_free(ctx, bytes, weights);
        HIRL_TRY(status);
    } else {
        HIRL_TRY(hirl_cpu_sgemm(false, true, n, n_out, n_in, 1, hirl_tensor_f32(x),
                                hirl_tensor_f32(w), 0, hirl_tensor_f32(y)));
    }
    if (!bias && act == HIRL_ACT_NONE && !pre) return HIRL_OK;
    const float *b = bias ? hirl_tensor_f32(bias) : NULL;
    void *out = hirl_tensor_data(y), *before = pre ? hirl_tensor_data(pre) : NULL;
    if (is_bf16)
        finish_rows(ctx, n, n_out, b, act, out, before, true);
    else
        finish_rows(ctx, n, n_out, b, act, out, before, false);
    return HIRL_OK;
}

hirl_status_t hirl_linear_backward_cpu(hirl_backend_t *be, const hirl_tensor_t *dy,
                                       const hirl_tensor_t *x, const hirl_tensor_t *w,
                                       bool accumulate, hirl_tensor_t *dx, hirl_tensor_t *dw,
                                       hirl_tensor_t *dbias) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t n = dy->shape.dim[0], n_out = dy->shape.dim[1];
    const bool is_bf16 = dy->dtype == HIRL_BF16;
    const float beta = accumulate ? 1.0f : 0.0f;
    if (dx) {
        const int64_t n_in = w->shape.dim[1];
        if (is_bf16) {
            void *weights = NULL;
            size_t bytes = 0;
            HIRL_TRY(narrow_weights(ctx, w, &weights, &bytes));
            const hirl_status_t status =
                product_bf16(ctx, false, false, n, n_in, n_out, hirl_tensor_data(dy), weights,
                             HIRL_BF16, hirl_tensor_data(dx));
            hirl_cpu_scratch_free(ctx, bytes, weights);
            HIRL_TRY(status);
        } else {
            HIRL_TRY(hirl_cpu_sgemm(false, false, n, n_in, n_out, 1, hirl_tensor_f32(dy),
                                    hirl_tensor_f32(w), 0, hirl_tensor_f32(dx)));
        }
    }
    if (dw) {
        const int64_t n_in = x->shape.dim[1];
        if (is_bf16)
            HIRL_TRY(gemm_bf16(ctx, true, false, n_out, n_in, n, 1, hirl_tensor_data(dy),
                               hirl_tensor_data(x), beta, HIRL_F32, hirl_tensor_data(dw)));
        else
            HIRL_TRY(hirl_cpu_sgemm(true, false, n_out, n_in, n, 1, hirl_tensor_f32(dy),
                                    hirl_tensor_f32(x), beta, hirl_tensor_f32(dw)));
    }
    return dbias ? hirl_cpu_channel_sums(ctx, dy, accumulate, hirl_tensor_f32(dbias)) : HIRL_OK;
}
