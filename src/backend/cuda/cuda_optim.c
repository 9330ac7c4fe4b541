/// Parameter updates on f32 slabs, by tables of what their segments are, and sums of squares, which wait for their result.
#include "cuda_impl.h"

#include "kernels/optim.h"

_Static_assert((int)HIRL_K_RULE_SGD == (int)HIRL_RULE_SGD &&
                   (int)HIRL_K_RULE_LARS == (int)HIRL_RULE_LARS &&
                   (int)HIRL_K_RULE_LARC == (int)HIRL_RULE_LARC &&
                   (int)HIRL_K_RULE_LARS_JOINT == (int)HIRL_RULE_LARS_JOINT,
               "rules have the same numbers in kernels and outside");

// ---------------------------------------------------------------------------------------------- segments
// Packed: the segments, then their pieces; both have items of a multiple of 8 bytes.

static hirl_k_table_t table_of(const hirl_segments_t *segments) {
    char *data = hirl_tensor_data(&segments->packed);
    hirl_k_table_t table = {
        .segment = (const hirl_k_segment_t *)(void *)data,
        .piece =
            (const hirl_k_piece_t *)(void *)(data + (size_t)segments->n * sizeof(hirl_k_segment_t)),
        .n_pieces = (int32_t)segments->n_pieces,
        .is_aligned = true};
    for (int64_t i = 0; i < segments->n; ++i)
        if (segments->segment[i].first % 4 != 0) table.is_aligned = false;
    return table;
}

static void fill_table(const hirl_segments_t *segments, hirl_k_segment_t *to,
                       hirl_k_piece_t *piece) {
    int32_t n = 0;
    for (int64_t i = 0; i < segments->n; ++i) {
        const hirl_segment_t *s = &segments->segment[i];
        to[i] = (hirl_k_segment_t){.lag = s->lag,
                                   .weight_decay = s->weight_decay,
                                   .is_adapted = s->is_adapted,
                                   .first_piece = n};
        for (int64_t at = 0; at < s->count; at += HIRL_K_PIECE) {
            const int64_t rest = s->count - at;
            piece[n++] =
                (hirl_k_piece_t){.first = s->first + at,
                                 .count = (int32_t)(rest < HIRL_K_PIECE ? rest : HIRL_K_PIECE),
                                 .segment = (int32_t)i};
        }
        to[i].n_pieces = n - to[i].first_piece;
    }
}

hirl_status_t hirl_pack_segments_cuda(hirl_backend_t *be, hirl_segments_t *segments) {
    int64_t n_pieces = 0;
    for (int64_t i = 0; i < segments->n; ++i)
        n_pieces += (segments->segment[i].count - 1) / HIRL_K_PIECE + 1;
    HIRL_REQUIRE(n_pieces <= INT32_MAX, HIRL_ERR_UNSUPPORTED,
                 "segments: %lld pieces of %d elements, want at most 2^31-1", (long long)n_pieces,
                 (int)HIRL_K_PIECE);
    const size_t head = (size_t)segments->n * sizeof(hirl_k_segment_t);
    const int64_t bytes = (int64_t)(head + (size_t)n_pieces * sizeof(hirl_k_piece_t));
    char *host = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_WORKSPACE, bytes, &host));
    fill_table(segments, (hirl_k_segment_t *)(void *)host, (hirl_k_piece_t *)(void *)(host + head));
    segments->n_pieces = n_pieces;
    HIRL_TRY_GOTO(hirl_backend_tensor(be, hirl_shape_1(bytes), HIRL_U8, &segments->packed), status,
                  done);
    status = hirl_upload_cuda(be, host, &segments->packed);
done:
    hirl_mem_free(host);
    return status;
}

// ---------------------------------------------------------------------------------------------- updates

static hirl_status_t update_by_momentum(cuda_ctx_t *ctx, const hirl_update_t *u,
                                        const hirl_k_table_t *table, const float *g, float *v,
                                        float *p) {
    const hirl_k_momentum_t param = {.rule = (int32_t)u->rule,
                                     .lr = u->lr,
                                     .grad_scale = u->grad_scale,
                                     .momentum = u->momentum,
                                     .trust = u->trust,
                                     .eps = u->eps,
                                     .is_nesterov = u->is_nesterov};
    const size_t bytes =
        u->rule == HIRL_RULE_SGD ? 0 : (size_t)table->n_pieces * 2 * sizeof(double);
    double *norms = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, (void **)&norms));
    if (norms)
        HIRL_TRY_CUDA_GOTO(hirl_k_piece_norms(ctx->stream, &param, table, g, p, norms), status,
                           done);
    HIRL_TRY_CUDA_GOTO(hirl_k_momentum(ctx->stream, &param, table, norms, g, v, p), status, done);
done:
    hirl_cuda_scratch_free(ctx, bytes, norms);
    return status;
}

hirl_status_t hirl_update_cuda(hirl_backend_t *be, const hirl_update_t *update,
                               const hirl_segments_t *segments, const hirl_tensor_t *g,
                               hirl_tensor_t *v, hirl_tensor_t *w, hirl_tensor_t *p) {
    const hirl_k_table_t table = table_of(segments);
    if (update->rule != HIRL_RULE_ADAMW)
        return update_by_momentum(cuda_ctx(be), update, &table, hirl_tensor_f32(g),
                                  hirl_tensor_f32(v), hirl_tensor_f32(p));
    const hirl_k_adamw_t param = {.lr = update->lr,
                                  .grad_scale = update->grad_scale,
                                  .beta1 = update->beta1,
                                  .beta2 = update->beta2,
                                  .eps = update->eps,
                                  .step = update->step};
    HIRL_TRY_CUDA(hirl_k_adamw(cuda_ctx(be)->stream, &param, &table, hirl_tensor_f32(g),
                               hirl_tensor_f32(v), hirl_tensor_f32(w), hirl_tensor_f32(p)));
    return HIRL_OK;
}

hirl_status_t hirl_ema_cuda(hirl_backend_t *be, float m, const hirl_tensor_t *x, hirl_tensor_t *y) {
    HIRL_TRY_CUDA(hirl_k_ema(cuda_ctx(be)->stream, m, (float)(1 - (double)m), hirl_tensor_f32(x),
                             hirl_tensor_count(y), hirl_tensor_f32(y)));
    return HIRL_OK;
}

/// Copies a device's double, in scratch, to the host and waits.
static hirl_status_t take_sum(cuda_ctx_t *ctx, const double *d_sum, double *sum_p) {
    double sum = 0;
    HIRL_TRY(hirl_cuda_capture_refuse(ctx, "a sum for the host"));
    HIRL_TRY_CUDA(cudaMemcpyAsync(&sum, d_sum, sizeof sum, cudaMemcpyDeviceToHost, ctx->stream));
    HIRL_TRY(hirl_cuda_wait(ctx));
    *sum_p = sum;
    return HIRL_OK;
}

hirl_status_t hirl_sum_squares_of_cuda(hirl_backend_t *be, int n,
                                       const hirl_segments_t *const *segments,
                                       const hirl_tensor_t *const *x, double *sum_p) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    int64_t n_parts = 0;
    for (int i = 0; i < n; ++i) n_parts += segments[i] ? segments[i]->n_pieces : 0;
    const size_t bytes = (size_t)(n_parts + 1) * sizeof(double);
    double *part = NULL; // and the sum behind them
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, (void **)&part));
    int64_t at = 0;
    for (int i = 0; i < n; ++i) {
        if (!segments[i]) continue;
        const hirl_k_table_t table = table_of(segments[i]);
        HIRL_TRY_CUDA_GOTO(
            hirl_k_piece_squares(ctx->stream, &table, hirl_tensor_f32(x[i]), part + at), status,
            done);
        at += segments[i]->n_pieces;
    }
    HIRL_TRY_CUDA_GOTO(hirl_k_sum_parts(ctx->stream, part, n_parts, part + n_parts), status, done);
    status = take_sum(ctx, part + n_parts, sum_p);
done:
    hirl_cuda_scratch_free(ctx, bytes, part);
    return status;
}
