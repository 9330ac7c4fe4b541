// Batch norm and layer norm. Images are plain: a group's samples and pixels are its rows.

#include "cuda_impl.h"

#include "kernels/norm.h"

static int64_t channels_of(const hirl_tensor_t *x) { return x->shape.dim[x->shape.n_axes - 1]; }

static int64_t rows_of(const hirl_tensor_t *x, int64_t n_groups) {
    return hirl_tensor_count(x) / channels_of(x) / n_groups;
}

static const float *f32_or_null(const hirl_tensor_t *x) { return x ? hirl_tensor_f32(x) : NULL; }

static void *data_or_null(const hirl_tensor_t *x) { return x ? hirl_tensor_data(x) : NULL; }

hirl_status_t hirl_bn_stats_cuda(hirl_backend_t *be, const hirl_tensor_t *x, int64_t n_groups,
                                 hirl_tensor_t *mean, hirl_tensor_t *var) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    const int64_t n_channels = channels_of(x), n_rows = rows_of(x, n_groups);
    const size_t bytes = hirl_k_bn_scratch(cuda_dtype(x), n_groups, n_rows, n_channels);
    hirl_status_t status = HIRL_OK;
    void *scratch = NULL;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, &scratch));
    HIRL_TRY_CUDA_GOTO(hirl_k_bn_stats(ctx->stream, cuda_dtype(x), hirl_tensor_data(x), n_groups,
                                       n_rows, n_channels, scratch, hirl_tensor_f32(mean),
                                       hirl_tensor_f32(var)),
                       status, done);
done:
    hirl_cuda_scratch_free(ctx, bytes, scratch);
    return status;
}

hirl_status_t hirl_bn_apply_cuda(hirl_backend_t *be, const hirl_tensor_t *x, int64_t n_groups,
                                 const hirl_tensor_t *mean, const hirl_tensor_t *var, float eps,
                                 const hirl_tensor_t *gamma, const hirl_tensor_t *beta,
                                 const hirl_tensor_t *residual, bool has_relu, hirl_tensor_t *y) {
    HIRL_TRY_CUDA(hirl_k_bn_apply(
        cuda_ctx(be)->stream, cuda_dtype(x), hirl_tensor_data(x), n_groups, rows_of(x, n_groups),
        channels_of(x), hirl_tensor_f32(mean), hirl_tensor_f32(var), eps, f32_or_null(gamma),
        f32_or_null(beta), data_or_null(residual), has_relu, hirl_tensor_data(y)));
    return HIRL_OK;
}

hirl_status_t hirl_bn_backward_sums_cuda(hirl_backend_t *be, const hirl_tensor_t *dy,
                                         const hirl_tensor_t *y, const hirl_tensor_t *x,
                                         int64_t n_groups, const hirl_tensor_t *mean,
                                         const hirl_tensor_t *var, float eps, hirl_tensor_t *sum_dz,
                                         hirl_tensor_t *sum_dz_xhat) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    const int64_t n_channels = channels_of(x), n_rows = rows_of(x, n_groups);
    const size_t bytes = hirl_k_bn_scratch(cuda_dtype(x), n_groups, n_rows, n_channels);
    hirl_status_t status = HIRL_OK;
    void *scratch = NULL;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, &scratch));
    HIRL_TRY_CUDA_GOTO(
        hirl_k_bn_backward_sums(ctx->stream, cuda_dtype(x), hirl_tensor_data(dy), data_or_null(y),
                                hirl_tensor_data(x), n_groups, n_rows, n_channels,
                                hirl_tensor_f32(mean), hirl_tensor_f32(var), eps, scratch,
                                hirl_tensor_f32(sum_dz), hirl_tensor_f32(sum_dz_xhat)),
        status, done);
done:
    hirl_cuda_scratch_free(ctx, bytes, scratch);
    return status;
}

hirl_status_t hirl_bn_backward_apply_cuda(hirl_backend_t *be, const hirl_tensor_t *dy,
                                          const hirl_tensor_t *y, const hirl_tensor_t *x,
                                          int64_t n_groups, const hirl_tensor_t *mean,
                                          const hirl_tensor_t *var, float eps,
                                          const hirl_tensor_t *gamma, const hirl_tensor_t *mean_dz,
                                          const hirl_tensor_t *mean_dz_xhat, hirl_tensor_t *dx,
                                          hirl_tensor_t *dresidual) {
    HIRL_TRY_CUDA(hirl_k_bn_backward_apply(
        cuda_ctx(be)->stream, cuda_dtype(x), hirl_tensor_data(dy), data_or_null(y),
        hirl_tensor_data(x), n_groups, rows_of(x, n_groups), channels_of(x), hirl_tensor_f32(mean),
        hirl_tensor_f32(var), eps, f32_or_null(gamma), f32_or_null(mean_dz),
        f32_or_null(mean_dz_xhat), hirl_tensor_data(dx), data_or_null(dresidual)));
    return HIRL_OK;
}

hirl_status_t hirl_layer_norm_cuda(hirl_backend_t *be, const hirl_tensor_t *x,
                                   const hirl_tensor_t *gamma, const hirl_tensor_t *beta, float eps,
                                   hirl_tensor_t *y, hirl_tensor_t *mean, hirl_tensor_t *rstd) {
    HIRL_TRY_CUDA(hirl_k_layer_norm(cuda_ctx(be)->stream, cuda_dtype(x), hirl_tensor_data(x),
                                    x->shape.dim[0], x->shape.dim[1], hirl_tensor_f32(gamma),
                                    hirl_tensor_f32(beta), eps, hirl_tensor_data(y),
                                    hirl_tensor_f32(mean), hirl_tensor_f32(rstd)));
    return HIRL_OK;
}

hirl_status_t hirl_layer_norm_backward_cuda(hirl_backend_t *be, const hirl_tensor_t *dy,
                                            const hirl_tensor_t *x, const hirl_tensor_t *gamma,
                                            const hirl_tensor_t *mean, const hirl_tensor_t *rstd,
                                            bool accumulate, hirl_tensor_t *dx,
                                            hirl_tensor_t *dgamma, hirl_tensor_t *dbeta) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    const int64_t n_rows = x->shape.dim[0], n_columns = x->shape.dim[1];
    const size_t bytes = hirl_k_layer_norm_scratch(cuda_dtype(x), n_rows, n_columns);
    hirl_status_t status = HIRL_OK;
    void *scratch = NULL;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, &scratch));
    HIRL_TRY_CUDA_GOTO(hirl_k_layer_norm_backward(
                           ctx->stream, cuda_dtype(x), hirl_tensor_data(dy), hirl_tensor_data(x),
                           n_rows, n_columns, hirl_tensor_f32(gamma), hirl_tensor_f32(mean),
                           hirl_tensor_f32(rstd), accumulate, scratch, hirl_tensor_data(dx),
                           hirl_tensor_f32(dgamma), hirl_tensor_f32(dbeta)),
                       status, done);
done:
    hirl_cuda_scratch_free(ctx, bytes, scratch);
    return status;
}
