/// Attention: threads share the heads of all problems, and each takes one in blocks of queries whose scores stay in its cache, with oneDNN's
/// sgemm for the products. A head's sums have one order whatever the number of threads; dbias is summed over fixed ranges of
/// problems. bf16 matrices are widened a head at a time, so that all arithmetic and the probabilities are f32.
#include "cpu_impl.h"
#include "cpu_vector_impl.h"

#include <omp.h>

#include <math.h>
#include <string.h>

enum { BLOCK_FLOATS = 1 << 16, LEAST_BLOCK_ROWS = 16, LEAST_TASKS = 64 };

/// BODY for i = first element of each vector of a row, with constant `lanes` but for the last one.
#define FOR_VECTORS(n, BODY)                             \
    do {                                                 \
        int64_t i = 0;                                   \
        for (; i + CPU_VECTOR <= (n); i += CPU_VECTOR) { \
            const int lanes = CPU_VECTOR;                \
            BODY;                                        \
        }                                                \
        if (i < (n)) {                                   \
            const int lanes = (int)((n)-i);              \
            BODY;                                        \
        }                                                \
    } while (0)

/// One operation's tensors and sizes.
typedef struct work {
    const hirl_attention_param_t *p;
    const hirl_tensor_t *q, *k, *v, *bias, *mask, *dy;
    hirl_tensor_t *y, *lse, *dq, *dk, *dv;
    const float *lse_in;
    float *dbias; // [n_parts, H, n_query, n_key]
    int64_t n_query, n_key, n_parts;
    int64_t block_rows, score_row; // queries taken at once, floats from one's scores to the next's
    bool is_bf16;
} work_t;

/// Rows of f32 columns, somewhere.
typedef struct panel {
    float *data;
    int64_t row;
} panel_t;

/// A thread's working memory, taken piece by piece.
static float *piece(float **memory, int64_t n_floats) {
    float *at = *memory;
    *memory += (n_floats + CPU_VECTOR - 1) / CPU_VECTOR * CPU_VECTOR;
    return at;
}

CPU_INLINE void convert_rows(const void *x, int64_t x_row, bool x_bf16, void *y, int64_t y_row,
                             bool y_bf16, int64_t n_rows, int64_t n_columns) {
    for (int64_t r = 0; r < n_rows; ++r)
        FOR_VECTORS(n_columns, vf_store(y, r * y_row + i, y_bf16, lanes,
                                        vf_load(x, r * x_row + i, x_bf16, lanes)));
}

/// Rows [first, first + n) of x from `column` on: where they are, or widened in `buffer`.
static panel_t input_panel(const hirl_tensor_t *x, int64_t first, int64_t n, int64_t column,
                           int64_t size, float *buffer) {
    const int64_t row = x->shape.dim[1], at = first * row + column;
    if (x->dtype == HIRL_F32) return (panel_t){(float *)hirl_tensor_data(x) + at, row};
    convert_rows((const uint16_t *)hirl_tensor_data(x) + at, row, true, buffer, size, false, n,
                 size);
    return (panel_t){buffer, size};
}

/// Where a result is computed; output_end rounds it to where it belongs, where that is another place.
static panel_t output_panel(const hirl_tensor_t *x, int64_t first, int64_t column, int64_t size,
                            float *buffer) {
    if (x->dtype != HIRL_F32) return (panel_t){buffer, size};
    const int64_t row = x->shape.dim[1];
    return (panel_t){(float *)hirl_tensor_data(x) + first * row + column, row};
}

static void output_end(const hirl_tensor_t *x, int64_t first, int64_t n, int64_t column,
                       int64_t size, const float *buffer) {
    if (x->dtype == HIRL_F32) return;
    const int64_t row = x->shape.dim[1];
    convert_rows(buffer, size, false, (uint16_t *)hirl_tensor_data(x) + first * row + column, row,
                 true, n, size);
}

/// bias and mask of a query, which may be NULL.
typedef struct extra {
    const float *bias, *mask;
} extra_t;

static extra_t extra_of(const work_t *w, int64_t b, int64_t h, int64_t i) {
    extra_t e = {NULL, NULL};
    if (w->bias) e.bias = hirl_tensor_f32(w->bias) + (h * w->n_query + i) * w->n_key;
    if (w->mask)
        e.mask = hirl_tensor_f32(w->mask) + (b % w->mask->shape.dim[0] * w->n_query + i) * w->n_key;
    return e;
}

CPU_INLINE vf_t add_extra(vf_t x, extra_t e, int64_t i, int lanes) {
    if (e.bias) x += vf_load(e.bias, i, false, lanes);
    if (e.mask) x += vf_load(e.mask, i, false, lanes);
    return x;
}

/// s [n] becomes exp(s - their largest), whose sum is returned, and *lse_p. All masked: 0 and +inf.
static float soften(float *s, int64_t n, extra_t e, float *lse_p) {
    vf_t most = vf_set(-INFINITY), sum = {0};
    FOR_VECTORS(n, {
        vf_t x = add_extra(vf_load(s, i, false, lanes), e, i, lanes);
        vf_store(s, i, false, lanes, x);
        for (int l = lanes; l < CPU_VECTOR; ++l) x[l] = -INFINITY;
        most = vf_select(x > most, x, most);
    });
    float top = -INFINITY;
    for (int l = 0; l < CPU_VECTOR; ++l) top = most[l] > top ? most[l] : top;
    if (top == -INFINITY) top = 0;
    FOR_VECTORS(n, {
        vf_t x = vf_exp(vf_load(s, i, false, lanes) - top);
        vf_store(s, i, false, lanes, x);
        for (int l = lanes; l < CPU_VECTOR; ++l) x[l] = 0;
        sum += x;
    });
    const double total = vf_sum(sum);
    *lse_p = total == 0 ? INFINITY : (float)((double)top + log(total));
    return (float)total;
}

static hirl_status_t forward_head(const work_t *w, int64_t b, int64_t h, float *memory) {
    const int64_t size = w->p->head_size, column = h * size;
    float *score = piece(&memory, w->block_rows * w->score_row), *wide[4] = {NULL};
    if (w->is_bf16) {
        for (int i = 0; i < 2; ++i) wide[i] = piece(&memory, w->n_key * size);
        for (int i = 2; i < 4; ++i) wide[i] = piece(&memory, w->block_rows * size);
    }
    const panel_t k = input_panel(w->k, b * w->n_key, w->n_key, w->p->k_column + column, size,
                                  wide[0]),
                  v = input_panel(w->v, b * w->n_key, w->n_key, w->p->v_column + column, size,
                                  wide[1]);
    float *lse = w->lse ? hirl_tensor_f32(w->lse) + (b * w->p->n_heads + h) * w->n_query : NULL;
    for (int64_t first = 0; first < w->n_query; first += w->block_rows) {
        const int64_t left = w->n_query - first, n = left < w->block_rows ? left : w->block_rows;
        const int64_t row = b * w->n_query + first;
        const panel_t q = input_panel(w->q, row, n, w->p->q_column + column, size, wide[2]),
                      y = output_panel(w->y, row, column, size, wide[3]);
        float sum[BLOCK_FLOATS / CPU_VECTOR];
        HIRL_TRY(hirl_cpu_sgemm_rows(false, true, n, w->n_key, size, w->p->scale, q.data, q.row,
                                     k.data, k.row, 0, score, w->score_row));
        for (int64_t r = 0; r < n; ++r) {
            float row_lse;
            sum[r] =
                soften(score + r * w->score_row, w->n_key, extra_of(w, b, h, first + r), &row_lse);
            if (lse) lse[first + r] = row_lse;
        }
        HIRL_TRY(hirl_cpu_sgemm_rows(false, false, n, size, w->n_key, 1, score, w->score_row,
                                     v.data, v.row, 0, y.data, y.row));
        for (int64_t r = 0; r < n; ++r) {
            const float inverse = sum[r] == 0 ? 0 : 1 / sum[r];
            FOR_VECTORS(size, vf_store(y.data + r * y.row, i, false, lanes,
                                       vf_load(y.data + r * y.row, i, false, lanes) * inverse));
        }
        output_end(w->y, row, n, column, size, wide[3]);
    }
    return HIRL_OK;
}

/// From scores and dP = dy v^T: the probabilities P = exp(s - lse) replace the scores, dS = P (dP - sum of P dP) replaces dP.
static void backward_row(float *s, float *d, int64_t n, extra_t e, float lse, float *dbias) {
    vf_t sum = {0};
    FOR_VECTORS(n, {
        vf_t x = vf_exp(add_extra(vf_load(s, i, false, lanes), e, i, lanes) - lse);
        vf_store(s, i, false, lanes, x);
        for (int l = lanes; l < CPU_VECTOR; ++l) x[l] = 0;
        sum += x * vf_load(d, i, false, lanes);
    });
    const float mean = (float)vf_sum(sum);
    FOR_VECTORS(n, {
        const vf_t x = vf_load(s, i, false, lanes) * (vf_load(d, i, false, lanes) - mean);
        vf_store(d, i, false, lanes, x);
        if (dbias) vf_store(dbias, i, false, lanes, vf_load(dbias, i, false, lanes) + x);
    });
}

/// dq = scale dS k; dk = scale dS^T q and dv = P^T dy, summed over the blocks of queries in their order. dbias += dS.
static hirl_status_t backward_head(const work_t *w, int64_t b, int64_t h, float *dbias,
                                   float *memory) {
    const int64_t size = w->p->head_size, column = h * size;
    float *score = piece(&memory, w->block_rows * w->score_row),
          *slope = piece(&memory, w->block_rows * w->score_row), *wide[7] = {NULL};
    if (w->is_bf16) {
        for (int i = 0; i < 4; ++i) wide[i] = piece(&memory, w->n_key * size);
        for (int i = 4; i < 7; ++i) wide[i] = piece(&memory, w->block_rows * size);
    }
    const int64_t q_at = w->p->q_column + column, k_at = w->p->k_column + column,
                  v_at = w->p->v_column + column, first_key = b * w->n_key;
    const panel_t k = input_panel(w->k, first_key, w->n_key, k_at, size, wide[0]),
                  v = input_panel(w->v, first_key, w->n_key, v_at, size, wide[1]);
    panel_t dk = {NULL, 0}, dv = {NULL, 0};
    if (w->dk) dk = output_panel(w->dk, first_key, k_at, size, wide[2]);
    if (w->dv) dv = output_panel(w->dv, first_key, v_at, size, wide[3]);
    const float *lse = w->lse_in + (b * w->p->n_heads + h) * w->n_query;
    for (int64_t first = 0; first < w->n_query; first += w->block_rows) {
        const int64_t left = w->n_query - first, n = left < w->block_rows ? left : w->block_rows;
        const int64_t row = b * w->n_query + first;
        const float keep = first > 0 ? 1.0f : 0.0f;
        const panel_t q = input_panel(w->q, row, n, q_at, size, wide[4]),
                      dy = input_panel(w->dy, row, n, column, size, wide[5]);
        HIRL_TRY(hirl_cpu_sgemm_rows(false, true, n, w->n_key, size, w->p->scale, q.data, q.row,
                                     k.data, k.row, 0, score, w->score_row));
        HIRL_TRY(hirl_cpu_sgemm_rows(false, true, n, w->n_key, size, 1, dy.data, dy.row, v.data,
                                     v.row, 0, slope, w->score_row));
        for (int64_t r = 0; r < n; ++r)
            backward_row(score + r * w->score_row, slope + r * w->score_row, w->n_key,
                         extra_of(w, b, h, first + r), lse[first + r],
                         dbias ? dbias + (first + r) * w->n_key : NULL);
        if (w->dv)
            HIRL_TRY(hirl_cpu_sgemm_rows(true, false, w->n_key, size, n, 1, score, w->score_row,
                                         dy.data, dy.row, keep, dv.data, dv.row));
        if (w->dk)
            HIRL_TRY(hirl_cpu_sgemm_rows(true, false, w->n_key, size, n, w->p->scale, slope,
                                         w->score_row, q.data, q.row, keep, dk.data, dk.row));
        if (w->dq) {
            const panel_t dq = output_panel(w->dq, row, q_at, size, wide[6]);
            HIRL_TRY(hirl_cpu_sgemm_rows(false, false, n, size, w->n_key, w->p->scale, slope,
                                         w->score_row, k.data, k.row, 0, dq.data, dq.row));
            output_end(w->dq, row, n, q_at, size, wide[6]);
        }
    }
    if (w->dk) output_end(w->dk, first_key, w->n_key, k_at, size, wide[2]);
    if (w->dv) output_end(w->dv, first_key, w->n_key, v_at, size, wide[3]);
    return HIRL_OK;
}

/// Sizes of blocks; every problem is a range of its own.
static void work_plan(work_t *w) {
    const int64_t n_batch = w->p->n_batch;
    w->n_query = w->q->shape.dim[0] / n_batch;
    w->n_key = w->k->shape.dim[0] / n_batch;
    w->is_bf16 = w->q->dtype == HIRL_BF16;
    w->score_row = (w->n_key + CPU_VECTOR - 1) / CPU_VECTOR * CPU_VECTOR;
    int64_t n = BLOCK_FLOATS / w->score_row;
    if (n < LEAST_BLOCK_ROWS) n = LEAST_BLOCK_ROWS;
    const int64_t n_blocks = (w->n_query + n - 1) / n;
    w->block_rows = (w->n_query + n_blocks - 1) / n_blocks;
    w->n_parts = n_batch;
}

/// All heads of all problems, range by range.
static hirl_status_t work_run(cpu_ctx_t *ctx, const work_t *w, bool is_backward) {
    const int64_t n_batch = w->p->n_batch, n_heads = w->p->n_heads, n_tasks = w->n_parts * n_heads;
    const int64_t size = w->p->head_size, square = w->n_query * w->n_key;
    // Also where some have nothing to do: among several threads oneDNN gives each product one, and with it one order of sums.
    const int n_threads = ctx->n_threads;
    const int64_t pad = CPU_VECTOR;
    int64_t each = (is_backward ? 2 : 1) * (w->block_rows * w->score_row + pad);
    if (w->is_bf16)
        each += (is_backward ? 4 : 2) * (w->n_key * size + pad) +
                (is_backward ? 3 : 2) * (w->block_rows * size + pad);
    const size_t bytes = (size_t)(n_threads * each) * sizeof(float);
    float *memory = NULL;
    int n_failed = 0;
    HIRL_TRY(hirl_cpu_scratch(ctx, bytes, (void **)&memory));
#pragma omp parallel for num_threads(n_threads) schedule(static) reduction(+ : n_failed)
    for (int64_t t = 0; t < n_tasks; ++t) {
        const int64_t part = t / n_heads, h = t % n_heads;
        float *mine = memory + omp_get_thread_num() * each;
        float *dbias = w->dbias ? w->dbias + t * square : NULL;
        if (dbias) memset(dbias, 0, (size_t)square * sizeof *dbias);
        for (int64_t b = part * n_batch / w->n_parts; b < (part + 1) * n_batch / w->n_parts; ++b)
            if ((is_backward ? backward_head(w, b, h, dbias, mine) : forward_head(w, b, h, mine)) !=
                HIRL_OK)
                ++n_failed;
    }
    hirl_cpu_scratch_free(ctx, bytes, memory);
    // What a thread recorded is that thread's own.
    HIRL_REQUIRE(
        n_failed == 0, HIRL_ERR_DNNL,
        "attention: oneDNN declined matrix products of %d heads of %lld queries, %lld keys "
        "and %lld columns",
        n_failed, (long long)w->n_query, (long long)w->n_key, (long long)size);
    return HIRL_OK;
}

hirl_status_t hirl_attention_cpu(hirl_backend_t *be, const hirl_attention_param_t *p,
                                 const hirl_tensor_t *q, const hirl_tensor_t *k,
                                 const hirl_tensor_t *v, const hirl_tensor_t *bias,
                                 const hirl_tensor_t *mask, hirl_tensor_t *y, hirl_tensor_t *lse) {
    work_t w = {.p = p, .q = q, .k = k, .v = v, .bias = bias, .mask = mask, .y = y, .lse = lse};
    work_plan(&w);
    return work_run(cpu_ctx(be), &w, false);
}

/// dbias [H, n_query, n_key] = the sum of the ranges, in their order.
static void fold_parts(const cpu_ctx_t *ctx, const float *parts, int64_t n_parts, int64_t n,
                       float *sum) {
    enum { STRIP = 1 << 12 };
    const int64_t n_strips = (n + STRIP - 1) / STRIP;
#pragma omp parallel for num_threads(ctx->n_threads) schedule(static)
    for (int64_t s = 0; s < n_strips; ++s) {
        const int64_t first = s * STRIP, left = n - first, count = left < STRIP ? left : STRIP;
        FOR_VECTORS(count, {
            vf_t x = {0};
            for (int64_t part = 0; part < n_parts; ++part)
                x += vf_load(parts, part * n + first + i, false, lanes);
            vf_store(sum, first + i, false, lanes, x);
        });
    }
}

hirl_status_t hirl_attention_backward_cpu(hirl_backend_t *be, const hirl_attention_param_t *p,
                                          const hirl_tensor_t *q, const hirl_tensor_t *k,
                                          const hirl_tensor_t *v, const hirl_tensor_t *bias,
                                          const hirl_tensor_t *mask, const hirl_tensor_t *y,
                                          const hirl_tensor_t *lse, const hirl_tensor_t *dy,
                                          hirl_tensor_t *dq, hirl_tensor_t *dk, hirl_tensor_t *dv,
                                          hirl_tensor_t *dbias) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    work_t w = {.p = p,
                .q = q,
                .k = k,
                .v = v,
                .bias = bias,
                .mask = mask,
                .dy = dy,
                .dq = dq,
                .dk = dk,
                .dv = dv,
                .lse_in = hirl_tensor_f32(lse)};
    (void)y; // sum_j P dP says the same as <y, dy>, without y's rounding
    work_plan(&w);
    if (!dbias) return work_run(ctx, &w, true);
    const int64_t n = hirl_tensor_count(dbias),
                  wanted = (LEAST_TASKS + p->n_heads - 1) / p->n_heads;
    if (w.n_parts > wanted) w.n_parts = wanted;
    const size_t bytes = (size_t)(w.n_parts * n) * sizeof(float);
    HIRL_TRY(hirl_cpu_scratch(ctx, bytes, (void **)&w.dbias));
    const hirl_status_t status = work_run(ctx, &w, true);
    if (status == HIRL_OK) fold_parts(ctx, w.dbias, w.n_parts, n, hirl_tensor_f32(dbias));
    hirl_cpu_scratch_free(ctx, bytes, w.dbias);
    return status;
}
