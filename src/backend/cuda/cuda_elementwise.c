/// Conversions, elementwise operations, rows and columns. Every tensor is plain here, so a change of layout is a copy.
#include "cuda_impl.h"

#include "kernels/elementwise.h"
#include "kernels/gather.h"

_Static_assert((int)HIRL_K_ACT_NONE == (int)HIRL_ACT_NONE &&
                   (int)HIRL_K_ACT_RELU == (int)HIRL_ACT_RELU &&
                   (int)HIRL_K_ACT_GELU == (int)HIRL_ACT_GELU,
               "activations have the same numbers in kernels and outside");

/// y = x, bit for bit if they have one dtype.
static hirl_status_t copy(cuda_ctx_t *ctx, const hirl_tensor_t *x, hirl_tensor_t *y) {
    const int64_t count = hirl_tensor_count(x);
    const void *from = hirl_tensor_data(x);
    void *to = hirl_tensor_data(y);
    if (from == to) return HIRL_OK;
    if (x->dtype == y->dtype)
        HIRL_TRY_CUDA(cudaMemcpyAsync(to, from, (size_t)count * hirl_dtype_size(x->dtype),
                                      cudaMemcpyDeviceToDevice, ctx->stream));
    else
        HIRL_TRY_CUDA(hirl_k_cast(ctx->stream, from, cuda_dtype(x), to, cuda_dtype(y), count));
    return HIRL_OK;
}

hirl_status_t hirl_to_plain_cuda(hirl_backend_t *be, const hirl_tensor_t *x, hirl_dtype_t dtype,
                                 hirl_tensor_t *y) {
    (void)dtype; // y's
    return copy(cuda_ctx(be), x, y);
}

hirl_status_t hirl_cast_cuda(hirl_backend_t *be, const hirl_tensor_t *x, hirl_dtype_t dtype,
                             hirl_tensor_t *y) {
    (void)dtype;
    return copy(cuda_ctx(be), x, y);
}

hirl_status_t hirl_to_layout_of_cuda(hirl_backend_t *be, const hirl_tensor_t *x,
                                     const hirl_tensor_t *like, hirl_tensor_t *y) {
    (void)like;
    return copy(cuda_ctx(be), x, y);
}

hirl_status_t hirl_to_blocked_cuda(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y) {
    return copy(cuda_ctx(be), x, y);
}

hirl_status_t hirl_fill_cuda(hirl_backend_t *be, float value, hirl_tensor_t *x) {
    HIRL_TRY_CUDA(hirl_k_fill(cuda_ctx(be)->stream, value, hirl_tensor_count(x),
                              hirl_tensor_data(x), cuda_dtype(x)));
    return HIRL_OK;
}

hirl_status_t hirl_axpby_cuda(hirl_backend_t *be, float a, const hirl_tensor_t *x, float b,
                              hirl_tensor_t *y) {
    HIRL_TRY_CUDA(hirl_k_axpby(cuda_ctx(be)->stream, a, hirl_tensor_data(x), cuda_dtype(x), b,
                               hirl_tensor_data(y), cuda_dtype(y), hirl_tensor_count(x)));
    return HIRL_OK;
}

hirl_status_t hirl_add_cuda(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                            hirl_tensor_t *y) {
    HIRL_TRY_CUDA(hirl_k_add(cuda_ctx(be)->stream, hirl_tensor_data(x1), hirl_tensor_data(x2),
                             cuda_dtype(y), hirl_tensor_count(y), hirl_tensor_data(y)));
    return HIRL_OK;
}

hirl_status_t hirl_mul_cuda(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                            hirl_tensor_t *y) {
    HIRL_TRY_CUDA(hirl_k_mul(cuda_ctx(be)->stream, hirl_tensor_data(x1), hirl_tensor_data(x2),
                             cuda_dtype(y), hirl_tensor_count(y), hirl_tensor_data(y)));
    return HIRL_OK;
}

hirl_status_t hirl_act_cuda(hirl_backend_t *be, hirl_act_t act, const hirl_tensor_t *x,
                            hirl_tensor_t *y) {
    if (act == HIRL_ACT_NONE) return copy(cuda_ctx(be), x, y);
    HIRL_TRY_CUDA(hirl_k_act(cuda_ctx(be)->stream, (int)act, hirl_tensor_data(x), cuda_dtype(x),
                             hirl_tensor_count(x), hirl_tensor_data(y)));
    return HIRL_OK;
}

hirl_status_t hirl_act_backward_cuda(hirl_backend_t *be, hirl_act_t act, const hirl_tensor_t *saved,
                                     const hirl_tensor_t *dy, hirl_tensor_t *dx) {
    if (act == HIRL_ACT_NONE) return copy(cuda_ctx(be), dy, dx);
    HIRL_TRY_CUDA(hirl_k_act_backward(cuda_ctx(be)->stream, (int)act, hirl_tensor_data(saved),
                                      hirl_tensor_data(dy), cuda_dtype(dy), hirl_tensor_count(dy),
                                      hirl_tensor_data(dx)));
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- rows and columns

static int64_t row_size(const hirl_tensor_t *x) { return hirl_tensor_count(x) / x->shape.dim[0]; }

hirl_status_t hirl_gather_rows_cuda(hirl_backend_t *be, const hirl_tensor_t *x,
                                    const hirl_tensor_t *index, hirl_tensor_t *y) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    HIRL_TRY_CUDA(hirl_k_gather_rows(ctx->stream, hirl_tensor_f32(x), x->shape.dim[0], row_size(x),
                                     hirl_tensor_data(index), index->shape.dim[0], ctx->fault,
                                     hirl_tensor_f32(y)));
    return HIRL_OK;
}

hirl_status_t hirl_gather_rows_backward_cuda(hirl_backend_t *be, const hirl_tensor_t *dy,
                                             const hirl_tensor_t *index, bool accumulate,
                                             hirl_tensor_t *dx) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    const int64_t n = dy->shape.dim[0], n_rows = dx->shape.dim[0];
    HIRL_REQUIRE(n <= INT32_MAX && n_rows <= INT32_MAX, HIRL_ERR_UNSUPPORTED,
                 "gather_rows_backward: %lld rows onto %lld; want at most 2^31-1 of each",
                 (long long)n, (long long)n_rows);
    const size_t bytes = hirl_k_gather_rows_backward_scratch(n);
    void *scratch = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, &scratch));
    HIRL_TRY_CUDA_GOTO(hirl_k_gather_rows_backward(ctx->stream, hirl_tensor_f32(dy), n,
                                                   row_size(dy), hirl_tensor_data(index), n_rows,
                                                   accumulate, scratch, ctx->fault,
                                                   hirl_tensor_f32(dx)),
                       status, done);
done:
    hirl_cuda_scratch_free(ctx, bytes, scratch);
    return status;
}

hirl_status_t hirl_concat_columns_cuda(hirl_backend_t *be, const hirl_tensor_t *x1,
                                       const hirl_tensor_t *x2, hirl_tensor_t *y) {
    HIRL_TRY_CUDA(hirl_k_concat_columns(cuda_ctx(be)->stream, hirl_tensor_f32(x1), x1->shape.dim[1],
                                        hirl_tensor_f32(x2), x2->shape.dim[1], y->shape.dim[0],
                                        hirl_tensor_f32(y)));
    return HIRL_OK;
}

hirl_status_t hirl_split_columns_cuda(hirl_backend_t *be, const hirl_tensor_t *y, int64_t n_first,
                                      hirl_tensor_t *x1, hirl_tensor_t *x2) {
    HIRL_TRY_CUDA(hirl_k_split_columns(cuda_ctx(be)->stream, hirl_tensor_f32(y), y->shape.dim[0],
                                       n_first, y->shape.dim[1] - n_first,
                                       x1 ? hirl_tensor_f32(x1) : NULL,
                                       x2 ? hirl_tensor_f32(x2) : NULL));
    return HIRL_OK;
}
