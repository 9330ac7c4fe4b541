/// Dropout and drop path on plain tensors. A sample's elements are cut into pieces, which threads share; the numbers of a piece are
/// made in vectors and not kept beyond it.
#include "cpu_impl.h"
#include "cpu_vector_impl.h"

#include <math.h>

enum { PIECE = 1 << 12, LEAST_PARALLEL = 1 << 13 };

static hirl_rng_t stream_of(const hirl_drop_t *drop, int64_t sample) {
    const int64_t *counter = hirl_tensor_data(drop->counter);
    const int64_t *index = hirl_tensor_data(drop->index);
    return hirl_rng_make((uint64_t)counter[0], HIRL_RNG_DROPOUT, (uint64_t)counter[1],
                         (uint64_t)index[sample], drop->site);
}

CPU_INLINE void mask_piece(const uint32_t *word, uint32_t threshold, float scale, int64_t count,
                           const void *x, int64_t at, bool is_bf16, void *y) {
    for (int64_t i = 0; i < count; i += CPU_VECTOR) {
        const int lanes = count - i < CPU_VECTOR ? (int)(count - i) : CPU_VECTOR;
        vu_t number;
        memcpy(&number, word + i,
               sizeof number); // the last vector reads beyond the piece's numbers
        const vf_t kept = vf_load(x, at + i, is_bf16, lanes) * scale;
        vf_store(y, at + i, is_bf16, lanes, vf_where((vi_t)(number >= threshold), kept));
    }
}

hirl_status_t hirl_dropout_cpu(hirl_backend_t *be, const hirl_drop_t *drop, const hirl_tensor_t *x,
                               hirl_tensor_t *y) {
    const cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t n = drop->index->shape.dim[0], size = hirl_tensor_count(x) / n;
    const int64_t n_pieces = (size + PIECE - 1) / PIECE;
    const uint32_t threshold = hirl_drop_threshold(drop->p);
    const float scale = hirl_drop_scale(drop->p);
    const void *from = hirl_tensor_data(x);
    void *to = hirl_tensor_data(y);
#pragma omp parallel for num_threads(ctx->n_threads) if (n * size > LEAST_PARALLEL)
    for (int64_t p = 0; p < n * n_pieces; ++p) {
        const int64_t sample = p / n_pieces, first = p % n_pieces * PIECE;
        const int64_t count = size - first < PIECE ? size - first : PIECE;
        const hirl_rng_t rng = stream_of(drop, sample);
        uint32_t word[PIECE + CPU_VECTOR];
        hirl_rng_words(&rng, first, count, word);
        memset(word + count, 0, CPU_VECTOR * sizeof *word);
        if (x->dtype == HIRL_BF16)
            mask_piece(word, threshold, scale, count, from, sample * size + first, true, to);
        else
            mask_piece(word, threshold, scale, count, from, sample * size + first, false, to);
    }
    return HIRL_OK;
}

/// y = scale x + rest, in one rounding before that to bf16; rest 0 where `residual` is NULL.
CPU_INLINE void add_piece(float scale, int64_t count, const void *x, const void *residual,
                          int64_t at, bool is_bf16, void *y) {
    for (int64_t i = 0; i < count; i += CPU_VECTOR) {
        const int lanes = count - i < CPU_VECTOR ? (int)(count - i) : CPU_VECTOR;
        const vf_t branch = vf_load(x, at + i, is_bf16, lanes);
        const vf_t rest = residual ? vf_load(residual, at + i, is_bf16, lanes) : (vf_t){0};
        // Arrays, as this compiler makes one instruction of the loop over them, and sixteen of one over a vector's elements.
        float a[CPU_VECTOR], b[CPU_VECTOR];
        memcpy(a, &branch, sizeof a);
        memcpy(b, &rest, sizeof b);
#pragma omp simd
        for (int l = 0; l < CPU_VECTOR; ++l) b[l] = fmaf(scale, a[l], b[l]);
        vf_t sum;
        memcpy(&sum, b, sizeof sum);
        vf_store(y, at + i, is_bf16, lanes, sum);
    }
}

static void skip_piece(int64_t count, const void *residual, int64_t at, size_t item, void *y) {
    char *to = (char *)y + (size_t)at * item;
    if (!residual)
        memset(to, 0, (size_t)count * item);
    else if (residual != y)
        memcpy(to, (const char *)residual + (size_t)at * item, (size_t)count * item);
}

hirl_status_t hirl_drop_path_cpu(hirl_backend_t *be, const hirl_drop_t *drop,
                                 const hirl_tensor_t *x, const hirl_tensor_t *residual,
                                 hirl_tensor_t *y) {
    const cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t n = drop->index->shape.dim[0], size = hirl_tensor_count(x) / n;
    const int64_t n_pieces = (size + PIECE - 1) / PIECE;
    const uint32_t threshold = hirl_drop_threshold(drop->p);
    const float scale = hirl_drop_scale(drop->p);
    const bool is_bf16 = x->dtype == HIRL_BF16;
    const void *from = hirl_tensor_data(x), *rest = residual ? hirl_tensor_data(residual) : NULL;
    void *to = hirl_tensor_data(y);
#pragma omp parallel for num_threads(ctx->n_threads) if (n * size > LEAST_PARALLEL)
    for (int64_t p = 0; p < n * n_pieces; ++p) {
        const int64_t sample = p / n_pieces, first = p % n_pieces * PIECE;
        const int64_t count = size - first < PIECE ? size - first : PIECE;
        const int64_t at = sample * size + first;
        hirl_rng_t rng = stream_of(drop, sample);
        if (hirl_rng_u32(&rng) < threshold)
            skip_piece(count, rest, at, hirl_dtype_size(x->dtype), to);
        else if (is_bf16)
            add_piece(scale, count, from, rest, at, true, to);
        else
            add_piece(scale, count, from, rest, at, false, to);
    }
    return HIRL_OK;
}
