/// Multi-head attention by own kernels: slices of packed matrices become pointers and strides.
#include "cuda_impl.h"

#include "kernels/attention.h"

/// Column `column` of row 0; NULL stays.
static void *at_column(const hirl_tensor_t *x, int64_t column) {
    return x ? (char *)hirl_tensor_data(x) + (size_t)column * hirl_dtype_size(x->dtype) : NULL;
}

/// The kernels read 16 bytes at once. Columns are multiples of 8 elements, so only where a tensor begins can be odd.
static hirl_status_t check_place(const char *name, const hirl_tensor_t *x) {
    HIRL_REQUIRE(!x || ((uintptr_t)hirl_tensor_data(x) & 15) == 0, HIRL_ERR_ARG,
                 "attention: %s begins %zu bytes into its storage, want a multiple of 16", name,
                 x->offset);
    return HIRL_OK;
}

static hirl_status_t describe(const hirl_attention_param_t *p, const hirl_tensor_t *q,
                              const hirl_tensor_t *k, const hirl_tensor_t *v,
                              const hirl_tensor_t *bias, const hirl_tensor_t *mask,
                              hirl_k_attention_t *out) {
    HIRL_TRY(check_place("q", q));
    HIRL_TRY(check_place("k", k));
    HIRL_TRY(check_place("v", v));
    *out = (hirl_k_attention_t){.dtype = cuda_dtype(q),
                                .n_batch = p->n_batch,
                                .n_mask = mask ? mask->shape.dim[0] : 1,
                                .n_heads = (int)p->n_heads,
                                .head_size = (int)p->head_size,
                                .n_query = (int)(q->shape.dim[0] / p->n_batch),
                                .n_key = (int)(k->shape.dim[0] / p->n_batch),
                                .scale = p->scale,
                                .q = at_column(q, p->q_column),
                                .k = at_column(k, p->k_column),
                                .v = at_column(v, p->v_column),
                                .q_row = q->shape.dim[1],
                                .k_row = k->shape.dim[1],
                                .v_row = v->shape.dim[1],
                                .bias = bias ? hirl_tensor_f32(bias) : NULL,
                                .mask = mask ? hirl_tensor_f32(mask) : NULL};
    return HIRL_OK;
}

hirl_status_t hirl_attention_cuda(hirl_backend_t *be, const hirl_attention_param_t *p,
                                  const hirl_tensor_t *q, const hirl_tensor_t *k,
                                  const hirl_tensor_t *v, const hirl_tensor_t *bias,
                                  const hirl_tensor_t *mask, hirl_tensor_t *y, hirl_tensor_t *lse) {
    hirl_k_attention_t at;
    HIRL_TRY(describe(p, q, k, v, bias, mask, &at));
    HIRL_TRY(check_place("y", y));
    HIRL_TRY_CUDA(hirl_k_attention(cuda_ctx(be)->stream, &at, hirl_tensor_data(y),
                                   lse ? hirl_tensor_f32(lse) : NULL));
    return HIRL_OK;
}

hirl_status_t hirl_attention_backward_cuda(hirl_backend_t *be, const hirl_attention_param_t *p,
                                           const hirl_tensor_t *q, const hirl_tensor_t *k,
                                           const hirl_tensor_t *v, const hirl_tensor_t *bias,
                                           const hirl_tensor_t *mask, const hirl_tensor_t *y,
                                           const hirl_tensor_t *lse, const hirl_tensor_t *dy,
                                           hirl_tensor_t *dq, hirl_tensor_t *dk, hirl_tensor_t *dv,
                                           hirl_tensor_t *dbias) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    hirl_k_attention_t at;
    HIRL_TRY(describe(p, q, k, v, bias, mask, &at));
    HIRL_TRY(check_place("y", y));
    HIRL_TRY(check_place("dy", dy));
    HIRL_TRY(check_place("dq", dq));
    HIRL_TRY(check_place("dk", dk));
    HIRL_TRY(check_place("dv", dv));
    const size_t bytes = hirl_k_attention_scratch(&at, dbias != NULL);
    hirl_status_t status = HIRL_OK;
    void *scratch = NULL;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, &scratch));
    HIRL_TRY_CUDA_GOTO(
        hirl_k_attention_backward(ctx->stream, &at, hirl_tensor_data(y), hirl_tensor_f32(lse),
                                  hirl_tensor_data(dy), scratch, at_column(dq, p->q_column),
                                  at_column(dk, p->k_column), at_column(dv, p->v_column),
                                  dbias ? hirl_tensor_f32(dbias) : NULL),
        status, done);
done:
    hirl_cuda_scratch_free(ctx, bytes, scratch);
    return status;
}
