/// Nearest rows, best rows and sums by cluster. FAISS's own indexes for GPUs are not used: its C API has them only where FAISS was built with
/// CUDA, which Debian's is not (no c_api/gpu among its headers); and their order of additions is not ours, so that answers would
/// depend on the device.
#include "cuda_impl.h"

#include "kernels/cluster.h"

hirl_status_t hirl_nearest_rows_cuda(hirl_backend_t *be, const hirl_tensor_t *x,
                                     const hirl_tensor_t *c, const hirl_tensor_t *half_norm,
                                     hirl_tensor_t *index, hirl_tensor_t *value) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    const int64_t n = x->shape.dim[0], k = c->shape.dim[0];
    const size_t bytes = hirl_k_nearest_rows_scratch(n, k);
    void *scratch = NULL;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, &scratch));
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_CUDA_GOTO(hirl_k_nearest_rows(ctx->stream, hirl_tensor_data(x), n, hirl_tensor_data(c),
                                           hirl_tensor_data(half_norm), k, x->shape.dim[1], scratch,
                                           hirl_tensor_data(index),
                                           value ? hirl_tensor_data(value) : NULL),
                       status, done);
done:
    hirl_cuda_scratch_free(ctx, bytes, scratch);
    return status;
}

// ---------------------------------------------------------------------------------------------- best rows

enum { ROWS = 128, LEAST_PIECE = 4096, MOST_PIECE = 32768, MOST_QUERIES = 65535 * ROWS };
static const int64_t WORKING_BYTES = (int64_t)256 << 20;

/// The working memory of `n_queries` queries at once: the lists twice, the candidates of a piece, and two numbers.
static size_t top_bytes(int64_t n_queries, int64_t k, int64_t piece) {
    return (size_t)n_queries * ((size_t)(2 * k + piece) * sizeof(uint64_t) + 2 * sizeof(float));
}

/// Rows of the bank at a time, and queries at a time: whatever these are, the answer is the same.
static void cut_search(int64_t n_queries, int64_t n, int64_t k, int64_t *piece_p,
                       int64_t *group_p) {
    int64_t piece = *piece_p;
    if (piece == 0) {
        // Few queries: longer pieces, so that a pass over them keeps the device busy.
        piece = WORKING_BYTES / (int64_t)sizeof(uint64_t) / n_queries - 2 * k;
        piece = piece < LEAST_PIECE ? LEAST_PIECE : piece > MOST_PIECE ? MOST_PIECE : piece;
        piece = piece / ROWS * ROWS;
    }
    *piece_p = piece < n ? piece : n;
    int64_t group = WORKING_BYTES / (int64_t)top_bytes(1, k, *piece_p) / ROWS * ROWS;
    if (group < ROWS) group = ROWS;
    if (group > MOST_QUERIES) group = MOST_QUERIES;
    *group_p = group < n_queries ? group : n_queries;
}

static hirl_status_t search(cuda_ctx_t *ctx, const float *query, const float *bank, int64_t n,
                            int64_t d, hirl_k_top_t *top, float *score, int32_t *index) {
    for (int64_t first = 0; first < n; first += top->piece) {
        const int64_t count = n - first < top->piece ? n - first : top->piece;
        HIRL_TRY_CUDA(hirl_k_top_scan(ctx->stream, top, query, bank, d, first, count, first == 0));
        HIRL_TRY_CUDA(hirl_k_top_select(ctx->stream, top, first + count, count));
        uint64_t *const held = top->held_after;
        top->held_after = top->held;
        top->held = held;
    }
    HIRL_TRY_CUDA(hirl_k_top_sort(ctx->stream, top, score, index));
    return HIRL_OK;
}

hirl_status_t hirl_top_rows_cuda(hirl_backend_t *be, const hirl_tensor_t *query,
                                 const hirl_tensor_t *bank, int64_t k, int64_t piece,
                                 hirl_tensor_t *score, hirl_tensor_t *index) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    const int64_t n_queries = query->shape.dim[0], n = bank->shape.dim[0], d = bank->shape.dim[1];
    int64_t group = 0;
    cut_search(n_queries, n, k, &piece, &group);
    const size_t bytes = top_bytes(group, k, piece);
    void *scratch = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, &scratch));
    for (int64_t first = 0; first < n_queries; first += group) {
        hirl_k_top_t top = {.n_queries = n_queries - first < group ? n_queries - first : group,
                            .k = k,
                            .piece = piece,
                            .held = scratch};
        top.held_after = top.held + group * k;
        top.fresh = top.held_after + group * k;
        top.threshold = (float *)(top.fresh + group * piece);
        top.n_fresh = (unsigned *)(top.threshold + group);
        HIRL_TRY_GOTO(search(ctx, (const float *)hirl_tensor_data(query) + first * d,
                             hirl_tensor_data(bank), n, d, &top,
                             (float *)hirl_tensor_data(score) + first * k,
                             (int32_t *)hirl_tensor_data(index) + first * k),
                      status, done);
    }
done:
    hirl_cuda_scratch_free(ctx, bytes, scratch);
    return status;
}

// ---------------------------------------------------------------------------------------------- sums

static hirl_status_t clear(cuda_ctx_t *ctx, hirl_tensor_t *x) {
    HIRL_TRY_CUDA(cudaMemsetAsync(hirl_tensor_data(x), 0,
                                  (size_t)hirl_tensor_count(x) * hirl_dtype_size(x->dtype),
                                  ctx->stream));
    return HIRL_OK;
}

hirl_status_t hirl_sum_rows_cuda(hirl_backend_t *be, const hirl_tensor_t *x,
                                 const hirl_tensor_t *index, double scale, bool accumulate,
                                 hirl_tensor_t *sum, hirl_tensor_t *count) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    if (!accumulate) HIRL_TRY(clear(ctx, sum));
    if (!accumulate) HIRL_TRY(clear(ctx, count));
    HIRL_TRY_CUDA(hirl_k_sum_rows(ctx->stream, hirl_tensor_data(x), hirl_tensor_data(index),
                                  x->shape.dim[0], sum->shape.dim[0], x->shape.dim[1], scale,
                                  hirl_tensor_data(sum), hirl_tensor_data(count), ctx->fault));
    return HIRL_OK;
}

hirl_status_t hirl_sum_distances_cuda(hirl_backend_t *be, const hirl_tensor_t *x,
                                      const hirl_tensor_t *index, const hirl_tensor_t *c,
                                      double scale, bool accumulate, hirl_tensor_t *total) {
    cuda_ctx_t *ctx = cuda_ctx(be);
    if (!accumulate) HIRL_TRY(clear(ctx, total));
    HIRL_TRY_CUDA(hirl_k_sum_distances(ctx->stream, hirl_tensor_data(x), hirl_tensor_data(index),
                                       x->shape.dim[0], hirl_tensor_data(c), c->shape.dim[0],
                                       x->shape.dim[1], scale, hirl_tensor_data(total),
                                       ctx->fault));
    return HIRL_OK;
}
