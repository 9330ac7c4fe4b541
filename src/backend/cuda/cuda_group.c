/// Statistics of batch-norm groups: a group from its parts, running statistics from the groups.
#include "cuda_impl.h"

#include "kernels/group.h"

hirl_status_t hirl_bn_combine_cuda(hirl_backend_t *be, const hirl_tensor_t *parts,
                                   hirl_tensor_t *mean, hirl_tensor_t *var) {
    HIRL_TRY_CUDA(hirl_k_bn_combine(cuda_ctx(be)->stream, hirl_tensor_f32(parts),
                                    parts->shape.dim[0], parts->shape.dim[2], hirl_tensor_f32(mean),
                                    hirl_tensor_f32(var)));
    return HIRL_OK;
}

hirl_status_t hirl_fold_rows_cuda(hirl_backend_t *be, float scale, const hirl_tensor_t *x,
                                  float keep, hirl_tensor_t *y) {
    HIRL_TRY_CUDA(hirl_k_fold_rows(cuda_ctx(be)->stream, scale, hirl_tensor_f32(x), x->shape.dim[0],
                                   x->shape.dim[1], keep, hirl_tensor_f32(y)));
    return HIRL_OK;
}
