// Operations along the rows of matrices.

#include "cuda_impl.h"

#include "kernels/row.h"

hirl_status_t hirl_l2_normalize_cuda(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y,
                                     hirl_tensor_t *norm) {
    HIRL_TRY_CUDA(hirl_k_l2_normalize(cuda_ctx(be)->stream, hirl_tensor_f32(x), x->shape.dim[0],
                                      x->shape.dim[1], hirl_tensor_f32(y), hirl_tensor_f32(norm)));
    return HIRL_OK;
}

hirl_status_t hirl_l2_normalize_backward_cuda(hirl_backend_t *be, const hirl_tensor_t *y,
                                              const hirl_tensor_t *norm, const hirl_tensor_t *dy,
                                              hirl_tensor_t *dx) {
    HIRL_TRY_CUDA(hirl_k_l2_normalize_backward(
        cuda_ctx(be)->stream, hirl_tensor_f32(y), hirl_tensor_f32(norm), hirl_tensor_f32(dy),
        y->shape.dim[0], y->shape.dim[1], hirl_tensor_f32(dx)));
    return HIRL_OK;
}

hirl_status_t hirl_row_dot_cuda(hirl_backend_t *be, const hirl_tensor_t *x1,
                                const hirl_tensor_t *x2, hirl_tensor_t *y) {
    HIRL_TRY_CUDA(hirl_k_row_dot(cuda_ctx(be)->stream, hirl_tensor_f32(x1), hirl_tensor_f32(x2),
                                 x1->shape.dim[0], x1->shape.dim[1], hirl_tensor_f32(y)));
    return HIRL_OK;
}

hirl_status_t hirl_row_scale_cuda(hirl_backend_t *be, const hirl_tensor_t *s,
                                  const hirl_tensor_t *x, bool accumulate, hirl_tensor_t *y) {
    HIRL_TRY_CUDA(hirl_k_row_scale(cuda_ctx(be)->stream, cuda_dtype(x), hirl_tensor_f32(s),
                                   hirl_tensor_data(x), x->shape.dim[0], x->shape.dim[1],
                                   accumulate, hirl_tensor_data(y)));
    return HIRL_OK;
}

hirl_status_t hirl_softmax_cuda(hirl_backend_t *be, const hirl_tensor_t *x, float scale,
                                hirl_tensor_t *y) {
    HIRL_TRY_CUDA(hirl_k_softmax(cuda_ctx(be)->stream, hirl_tensor_f32(x), scale, x->shape.dim[0],
                                 x->shape.dim[1], hirl_tensor_f32(y)));
    return HIRL_OK;
}

hirl_status_t hirl_softmax_backward_cuda(hirl_backend_t *be, const hirl_tensor_t *y,
                                         const hirl_tensor_t *dy, float scale, hirl_tensor_t *dx) {
    HIRL_TRY_CUDA(hirl_k_softmax_backward(cuda_ctx(be)->stream, hirl_tensor_f32(y),
                                          hirl_tensor_f32(dy), scale, y->shape.dim[0],
                                          y->shape.dim[1], hirl_tensor_f32(dx)));
    return HIRL_OK;
}
