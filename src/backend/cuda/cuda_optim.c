/// Parameter updates on f32 slabs, and the sum of squares, which waits for its result.
#include "cuda_impl.h"

#include "kernels/optim.h"

#include <math.h>

hirl_status_t hirl_sgd_cuda(hirl_backend_t *be, float lr, float momentum, float weight_decay,
                            bool is_nesterov, const hirl_tensor_t *g, hirl_tensor_t *v,
                            hirl_tensor_t *p) {
    HIRL_TRY_CUDA(hirl_k_sgd(cuda_ctx(be)->stream, lr, momentum, weight_decay, is_nesterov,
                             hirl_tensor_f32(g), hirl_tensor_count(p), hirl_tensor_f32(v),
                             hirl_tensor_f32(p)));
    return HIRL_OK;
}

hirl_status_t hirl_adamw_cuda(hirl_backend_t *be, float lr, float beta1, float beta2, float eps,
                              float weight_decay, int64_t step, const hirl_tensor_t *g,
                              hirl_tensor_t *m, hirl_tensor_t *v, hirl_tensor_t *p) {
    const hirl_k_adamw_t param = {.beta1 = beta1,
                                  .rest1 = (float)(1 - (double)beta1),
                                  .beta2 = beta2,
                                  .rest2 = (float)(1 - (double)beta2),
                                  .decay = (float)((double)lr * (double)weight_decay),
                                  .rate =
                                      (float)((double)lr / (1 - pow((double)beta1, (double)step))),
                                  .root = (float)(1 / sqrt(1 - pow((double)beta2, (double)step))),
                                  .eps = eps};
    HIRL_TRY_CUDA(hirl_k_adamw(cuda_ctx(be)->stream, &param, hirl_tensor_f32(g),
                               hirl_tensor_count(p), hirl_tensor_f32(m), hirl_tensor_f32(v),
                               hirl_tensor_f32(p)));
    return HIRL_OK;
}

hirl_status_t hirl_ema_cuda(hirl_backend_t *be, float m, const hirl_tensor_t *x, hirl_tensor_t *y) {
    HIRL_TRY_CUDA(hirl_k_ema(cuda_ctx(be)->stream, m, (float)(1 - (double)m), hirl_tensor_f32(x),
                             hirl_tensor_count(y), hirl_tensor_f32(y)));
    return HIRL_OK;
}

hirl_status_t hirl_sum_squares_cuda(hirl_backend_t *be, const hirl_tensor_t *x, double *sum_p) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    const int64_t count = hirl_tensor_count(x);
    const size_t parts = hirl_k_sum_squares_scratch(count), bytes = parts + sizeof(double);
    char *scratch = NULL;
    double sum = 0;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, (void **)&scratch));
    double *d_sum = (double *)(scratch + parts);
    HIRL_TRY_CUDA_GOTO(hirl_k_sum_squares(ctx->stream, hirl_tensor_f32(x), count, scratch, d_sum),
                       status, done);
    HIRL_TRY_CUDA_GOTO(
        cudaMemcpyAsync(&sum, d_sum, sizeof sum, cudaMemcpyDeviceToHost, ctx->stream), status,
        done);
    HIRL_TRY_GOTO(hirl_cuda_wait(ctx), status, done);
    *sum_p = sum;
done:
    hirl_cuda_scratch_free(ctx, bytes, scratch);
    return status;
}
