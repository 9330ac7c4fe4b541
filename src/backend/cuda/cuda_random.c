/// Dropout and drop path, whose masks kernels draw themselves.
#include "cuda_impl.h"

#include "kernels/random.h"

static hirl_k_drop_t draw_of(const hirl_drop_t *drop) {
    return (hirl_k_drop_t){.threshold = hirl_drop_threshold(drop->p),
                           .site = drop->site,
                           .purpose = HIRL_RNG_DROPOUT,
                           .scale = hirl_drop_scale(drop->p),
                           .counter = hirl_tensor_data(drop->counter),
                           .index = hirl_tensor_data(drop->index)};
}

hirl_status_t hirl_dropout_cuda(hirl_backend_t *be, const hirl_drop_t *drop, const hirl_tensor_t *x,
                                hirl_tensor_t *y) {
    const hirl_k_drop_t draw = draw_of(drop);
    const int64_t n = drop->index->shape.dim[0];
    HIRL_TRY_CUDA(hirl_k_dropout(cuda_ctx(be)->stream, &draw, hirl_tensor_data(x), cuda_dtype(x), n,
                                 hirl_tensor_count(x) / n, hirl_tensor_data(y)));
    return HIRL_OK;
}

hirl_status_t hirl_drop_path_cuda(hirl_backend_t *be, const hirl_drop_t *drop,
                                  const hirl_tensor_t *x, const hirl_tensor_t *residual,
                                  hirl_tensor_t *y) {
    const hirl_k_drop_t draw = draw_of(drop);
    const int64_t n = drop->index->shape.dim[0];
    HIRL_TRY_CUDA(hirl_k_drop_path(cuda_ctx(be)->stream, &draw, hirl_tensor_data(x),
                                   residual ? hirl_tensor_data(residual) : NULL, cuda_dtype(x), n,
                                   hirl_tensor_count(x) / n, hirl_tensor_data(y)));
    return HIRL_OK;
}
