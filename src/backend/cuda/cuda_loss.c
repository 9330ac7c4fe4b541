// Cross entropy, and the semantic path discrimination loss. Targets and paths are checked in the kernels.

#include "cuda_impl.h"

#include "kernels/loss.h"

_Static_assert((int)HIRL_K_PATH_LEVELS == (int)HIRL_PATH_MAX_LEVELS, "as many levels everywhere");

hirl_status_t hirl_cross_entropy_cuda(hirl_backend_t *be, const hirl_tensor_t *logits, float scale,
                                      const hirl_tensor_t *target, hirl_tensor_t *loss,
                                      hirl_tensor_t *lse, hirl_tensor_t *correct) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    const int64_t n_rows = logits->shape.dim[0];
    const size_t bytes = hirl_k_cross_entropy_scratch(n_rows);
    hirl_status_t status = HIRL_OK;
    void *scratch = NULL;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, &scratch));
    HIRL_TRY_CUDA_GOTO(hirl_k_cross_entropy(ctx->stream, hirl_tensor_f32(logits), scale,
                                            hirl_tensor_data(target), n_rows, logits->shape.dim[1],
                                            scratch, hirl_tensor_f32(loss), hirl_tensor_f32(lse),
                                            correct ? hirl_tensor_f32(correct) : NULL, ctx->fault),
                       status, done);
done:
    hirl_cuda_scratch_free(ctx, bytes, scratch);
    return status;
}

hirl_status_t hirl_cross_entropy_backward_cuda(hirl_backend_t *be, const hirl_tensor_t *logits,
                                               float scale, const hirl_tensor_t *target,
                                               const hirl_tensor_t *lse, const hirl_tensor_t *dloss,
                                               hirl_tensor_t *dlogits) {
    const cuda_ctx_t *ctx = cuda_ctx(be);
    HIRL_TRY_CUDA(hirl_k_cross_entropy_backward(
        ctx->stream, hirl_tensor_f32(logits), scale, hirl_tensor_data(target), hirl_tensor_f32(lse),
        hirl_tensor_f32(dloss), logits->shape.dim[0], logits->shape.dim[1],
        hirl_tensor_f32(dlogits), ctx->fault));
    return HIRL_OK;
}

static hirl_k_paths_t paths_of(int n_levels, const hirl_tensor_t *const *similarity,
                               const hirl_tensor_t *positive, const hirl_tensor_t *negative) {
    hirl_k_paths_t paths = {.n_levels = n_levels,
                            .n_samples = positive->shape.dim[0],
                            .n_negatives = negative->shape.dim[1],
                            .positive = hirl_tensor_data(positive),
                            .negative = hirl_tensor_data(negative)};
    for (int l = 0; l < n_levels; ++l) {
        paths.similarity[l] = hirl_tensor_f32(similarity[l]);
        paths.n_nodes[l] = similarity[l]->shape.dim[1];
    }
    return paths;
}

hirl_status_t hirl_path_loss_cuda(hirl_backend_t *be, int n_levels,
                                  const hirl_tensor_t *const *similarity,
                                  const hirl_tensor_t *positive, const hirl_tensor_t *negative,
                                  hirl_tensor_t *loss, hirl_tensor_t *terms) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    const hirl_k_paths_t paths = paths_of(n_levels, similarity, positive, negative);
    const size_t bytes = hirl_k_path_loss_scratch(paths.n_samples);
    hirl_status_t status = HIRL_OK;
    void *scratch = NULL;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, &scratch));
    HIRL_TRY_CUDA_GOTO(hirl_k_path_loss(ctx->stream, &paths, scratch, hirl_tensor_f32(loss),
                                        terms ? hirl_tensor_f32(terms) : NULL, ctx->fault),
                       status, done);
done:
    hirl_cuda_scratch_free(ctx, bytes, scratch);
    return status;
}

hirl_status_t hirl_path_loss_backward_cuda(hirl_backend_t *be, int n_levels,
                                           const hirl_tensor_t *const *similarity,
                                           const hirl_tensor_t *positive,
                                           const hirl_tensor_t *negative,
                                           const hirl_tensor_t *dloss,
                                           hirl_tensor_t *const *dsimilarity) {
    const cuda_ctx_t *ctx = cuda_ctx(be);
    const hirl_k_paths_t paths = paths_of(n_levels, similarity, positive, negative);
    float *rows[HIRL_PATH_MAX_LEVELS];
    for (int l = 0; l < n_levels; ++l) rows[l] = hirl_tensor_f32(dsimilarity[l]);
    HIRL_TRY_CUDA(
        hirl_k_path_loss_backward(ctx->stream, &paths, hirl_tensor_f32(dloss), rows, ctx->fault));
    return HIRL_OK;
}
