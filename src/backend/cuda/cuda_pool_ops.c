/// Pooling of plain images. The workspace of the maximum is i32, as large as y: where in its image and channel the winner was.
#include "cuda_impl.h"

#include "kernels/pool.h"

static hirl_status_t describe(const hirl_pool_param_t *p, const hirl_shape_t *x,
                              const hirl_shape_t *y, hirl_k_pool_t *pool_p) {
    HIRL_REQUIRE(x->dim[1] * x->dim[2] <= INT32_MAX, HIRL_ERR_UNSUPPORTED,
                 "max_pool: images of %lld x %lld pixels; want at most 2^31-1",
                 (long long)x->dim[1], (long long)x->dim[2]);
    *pool_p = (hirl_k_pool_t){.n = x->dim[0],
                              .h = (int)x->dim[1],
                              .w = (int)x->dim[2],
                              .c = (int)x->dim[3],
                              .h_out = (int)y->dim[1],
                              .w_out = (int)y->dim[2],
                              .kernel = p->kernel,
                              .stride = p->stride,
                              .pad = p->pad};
    return HIRL_OK;
}

hirl_status_t hirl_max_pool_cuda(hirl_backend_t *be, const hirl_pool_param_t *p,
                                 const hirl_tensor_t *x, hirl_tensor_t *y,
                                 hirl_tensor_t *workspace) {
    hirl_k_pool_t pool;
    HIRL_TRY(describe(p, &x->shape, &y->shape, &pool));
    HIRL_TRY_CUDA(hirl_k_max_pool(cuda_ctx(be)->stream, &pool, hirl_tensor_data(x), cuda_dtype(x),
                                  hirl_tensor_data(y),
                                  workspace ? hirl_tensor_data(workspace) : NULL));
    return HIRL_OK;
}

hirl_status_t hirl_max_pool_backward_cuda(hirl_backend_t *be, const hirl_pool_param_t *p,
                                          const hirl_tensor_t *dy, const hirl_tensor_t *workspace,
                                          const hirl_shape_t *x_shape, hirl_tensor_t *dx) {
    hirl_k_pool_t pool;
    HIRL_REQUIRE(workspace->dtype == HIRL_I32 && hirl_shape_equal(&workspace->shape, &dy->shape),
                 HIRL_ERR_ARG, "max_pool_backward: the workspace belongs to another pooling");
    HIRL_TRY(describe(p, x_shape, &dy->shape, &pool));
    HIRL_TRY_CUDA(hirl_k_max_pool_backward(cuda_ctx(be)->stream, &pool, hirl_tensor_data(dy),
                                           cuda_dtype(dy), hirl_tensor_data(workspace),
                                           hirl_tensor_data(dx)));
    return HIRL_OK;
}

hirl_status_t hirl_global_avg_pool_cuda(hirl_backend_t *be, const hirl_tensor_t *x,
                                        hirl_tensor_t *y) {
    const int64_t *dim = x->shape.dim;
    HIRL_TRY_CUDA(hirl_k_global_avg_pool(cuda_ctx(be)->stream, hirl_tensor_data(x), cuda_dtype(x),
                                         dim[0], dim[1] * dim[2], dim[3], hirl_tensor_f32(y)));
    return HIRL_OK;
}

hirl_status_t hirl_global_avg_pool_backward_cuda(hirl_backend_t *be, const hirl_tensor_t *dy,
                                                 const hirl_tensor_t *like, hirl_tensor_t *dx) {
    const int64_t *dim = like->shape.dim;
    HIRL_TRY_CUDA(hirl_k_global_avg_pool_backward(cuda_ctx(be)->stream, hirl_tensor_f32(dy), dim[0],
                                                  dim[1] * dim[2], dim[3], hirl_tensor_data(dx),
                                                  cuda_dtype(dx)));
    return HIRL_OK;
}
