/// Operations on the rows of plain matrices: gather, concatenate, normalise, softmax. One thread has whole rows, so a row's sums
/// have one order whatever the number of threads; sums over rows collect fixed ranges in double.
#include "cpu_impl.h"
#include "cpu_vector_impl.h"

#include <math.h>
#include <string.h>

enum { LEAST_PARALLEL = 1 << 14 }; // elements from which a second thread pays

/// BODY for each row r of [n_rows, n_columns], in parallel.
#define FOR_ROWS(ctx, n_rows, n_columns, BODY)                             \
    do {                                                                   \
        const int threads_ = (ctx)->n_threads;                             \
        const bool is_parallel_ = (n_rows) * (n_columns) > LEAST_PARALLEL; \
        CPU_PARALLEL                                                       \
        for (int64_t r = 0; r < (n_rows); ++r) {                           \
            BODY;                                                          \
        }                                                                  \
    } while (0)

/// BODY for i = first element of each vector of a row, with constant `lanes` but for the last one.
#define FOR_COLUMNS(n_columns, BODY)                             \
    do {                                                         \
        int64_t i = 0;                                           \
        for (; i + CPU_VECTOR <= (n_columns); i += CPU_VECTOR) { \
            const int lanes = CPU_VECTOR;                        \
            BODY;                                                \
        }                                                        \
        if (i < (n_columns)) {                                   \
            const int lanes = (int)((n_columns)-i);              \
            BODY;                                                \
        }                                                        \
    } while (0)

// ---------------------------------------------------------------------------------------------- gather, concatenate

hirl_status_t hirl_gather_rows_cpu(hirl_backend_t *be, const hirl_tensor_t *x,
                                   const hirl_tensor_t *index, hirl_tensor_t *y) {
    const cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t n = index->shape.dim[0], width = hirl_tensor_count(y) / n;
    const int32_t *from = hirl_tensor_data(index);
    const float *source = hirl_tensor_f32(x);
    float *target = hirl_tensor_f32(y);
    FOR_ROWS(ctx, n, width,
             memcpy(target + r * width, source + from[r] * width, (size_t)width * sizeof(float)));
    return HIRL_OK;
}

hirl_status_t hirl_gather_rows_backward_cpu(hirl_backend_t *be, const hirl_tensor_t *dy,
                                            const hirl_tensor_t *index, bool accumulate,
                                            hirl_tensor_t *dx) {
    const cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t n = index->shape.dim[0], width = hirl_tensor_count(dy) / n,
                  n_rows = hirl_tensor_count(dx) / width;
    const int32_t *to = hirl_tensor_data(index);
    const float *source = hirl_tensor_f32(dy);
    float *target = hirl_tensor_f32(dx);
    // Threads share the columns, not the rows: indices may repeat, and the order of their sums is that of i.
    const int64_t n_strips = (width + 63) / 64;
    if (!accumulate)
        FOR_ROWS(ctx, n_rows, width, memset(target + r * width, 0, (size_t)width * sizeof(float)));
#pragma omp parallel for num_threads(ctx->n_threads) \
    schedule(static) if (n * width > LEAST_PARALLEL)
    for (int64_t strip = 0; strip < n_strips; ++strip) {
        const int64_t first = strip * 64, end = first + 64 < width ? first + 64 : width;
        for (int64_t i = 0; i < n; ++i) {
            float *row = target + to[i] * width;
            for (int64_t c = first; c < end; ++c) row[c] += source[i * width + c];
        }
    }
    return HIRL_OK;
}

hirl_status_t hirl_concat_columns_cpu(hirl_backend_t *be, const hirl_tensor_t *x1,
                                      const hirl_tensor_t *x2, hirl_tensor_t *y) {
    const cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t n = x1->shape.dim[0], first = x1->shape.dim[1], second = x2->shape.dim[1],
                  width = first + second;
    const float *a = hirl_tensor_f32(x1), *b = hirl_tensor_f32(x2);
    float *out = hirl_tensor_f32(y);
    FOR_ROWS(ctx, n, width, {
        memcpy(out + r * width, a + r * first, (size_t)first * sizeof(float));
        memcpy(out + r * width + first, b + r * second, (size_t)second * sizeof(float));
    });
    return HIRL_OK;
}

hirl_status_t hirl_split_columns_cpu(hirl_backend_t *be, const hirl_tensor_t *y, int64_t n_first,
                                     hirl_tensor_t *x1, hirl_tensor_t *x2) {
    const cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t n = y->shape.dim[0], width = y->shape.dim[1], n_second = width - n_first;
    const float *in = hirl_tensor_f32(y);
    float *a = x1 ? hirl_tensor_f32(x1) : NULL, *b = x2 ? hirl_tensor_f32(x2) : NULL;
    FOR_ROWS(ctx, n, width, {
        if (a) memcpy(a + r * n_first, in + r * width, (size_t)n_first * sizeof(float));
        if (b) memcpy(b + r * n_second, in + r * width + n_first, (size_t)n_second * sizeof(float));
    });
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- products of rows

/// <a, b> over n elements: f32 in 16 lanes over at most 4096 elements, collected in double.
static double dot(const float *a, const float *b, int64_t n) {
    enum { SPAN = 4096 };
    double total = 0;
    for (int64_t first = 0; first < n; first += SPAN) {
        const int64_t length = n - first < SPAN ? n - first : SPAN;
        const float *p = a + first, *q = b + first;
        vf_t s0 = {0}, s1 = {0};
        int64_t i = 0;
        for (; i + 2 * CPU_VECTOR <= length; i += 2 * CPU_VECTOR) {
            s0 += vf_load(p, i, false, CPU_VECTOR) * vf_load(q, i, false, CPU_VECTOR);
            s1 += vf_load(p, i + CPU_VECTOR, false, CPU_VECTOR) *
                  vf_load(q, i + CPU_VECTOR, false, CPU_VECTOR);
        }
        for (; i < length; i += CPU_VECTOR) {
            const int lanes = length - i < CPU_VECTOR ? (int)(length - i) : CPU_VECTOR;
            s0 += vf_load(p, i, false, lanes) * vf_load(q, i, false, lanes);
        }
        total += vf_sum(s0 + s1);
    }
    return total;
}

/// max_i row[i] * scale; NaNs are passed over (they show in what follows). -INFINITY if nothing is larger.
static float row_max(const float *row, int64_t width, float scale) {
    vf_t largest = vf_set(-INFINITY);
    int64_t i = 0;
    for (; i + CPU_VECTOR <= width; i += CPU_VECTOR) {
        const vf_t x = vf_load(row, i, false, CPU_VECTOR) * scale;
        largest = vf_select(x > largest, x, largest);
    }
    float most = -INFINITY;
    for (int l = 0; l < CPU_VECTOR; ++l) most = largest[l] > most ? largest[l] : most;
    for (; i < width; ++i) most = row[i] * scale > most ? row[i] * scale : most;
    return most;
}

static const float LEAST_NORM = 1e-12f;

hirl_status_t hirl_l2_normalize_cpu(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y,
                                    hirl_tensor_t *norm) {
    const cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t n = x->shape.dim[0], width = x->shape.dim[1];
    const float *in = hirl_tensor_f32(x);
    float *out = hirl_tensor_f32(y), *length = hirl_tensor_f32(norm);
    FOR_ROWS(ctx, n, width, {
        const float *row = in + r * width;
        double square = dot(row, row, width);
        if (!(square > 1e-20 && square < 1e30)) {
            // Squares of such elements vanish or overflow in f32.
            square = 0;
            for (int64_t i = 0; i < width; ++i) square += (double)row[i] * (double)row[i];
        }
        const float l = (float)sqrt(square);
        // A NaN is not below the least norm and stays.
        length[r] = l < LEAST_NORM ? LEAST_NORM : l;
        const vf_t divisor = vf_set(length[r]);
        FOR_COLUMNS(width, vf_store(out, r * width + i, false, lanes,
                                    vf_load(row, i, false, lanes) / divisor));
    });
    return HIRL_OK;
}

hirl_status_t hirl_l2_normalize_backward_cpu(hirl_backend_t *be, const hirl_tensor_t *y,
                                             const hirl_tensor_t *norm, const hirl_tensor_t *dy,
                                             hirl_tensor_t *dx) {
    const cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t n = y->shape.dim[0], width = y->shape.dim[1];
    const float *out = hirl_tensor_f32(y), *length = hirl_tensor_f32(norm),
                *gradient = hirl_tensor_f32(dy);
    float *to = hirl_tensor_f32(dx);
    FOR_ROWS(ctx, n, width, {
        const float *a = out + r * width;
        const float *g = gradient + r * width;
        // Where the norm was clamped it is a constant.
        const float along = length[r] > LEAST_NORM ? (float)dot(a, g, width) : 0.0f;
        const vf_t divisor = vf_set(length[r]);
        FOR_COLUMNS(width,
                    vf_store(to, r * width + i, false, lanes,
                             (vf_load(g, i, false, lanes) - vf_load(a, i, false, lanes) * along) /
                                 divisor));
    });
    return HIRL_OK;
}

hirl_status_t hirl_row_dot_cpu(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                               hirl_tensor_t *y) {
    const cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t n = x1->shape.dim[0], width = x1->shape.dim[1];
    const float *a = hirl_tensor_f32(x1), *b = hirl_tensor_f32(x2);
    float *out = hirl_tensor_f32(y);
    FOR_ROWS(ctx, n, width, out[r] = (float)dot(a + r * width, b + r * width, width));
    return HIRL_OK;
}

CPU_INLINE void scale_rows(const cpu_ctx_t *ctx, int64_t n, int64_t width, const float *s,
                           const void *x, bool accumulate, void *y, bool is_bf16) {
    FOR_ROWS(ctx, n, width, {
        FOR_COLUMNS(width, {
            vf_t v = vf_load(x, r * width + i, is_bf16, lanes) * s[r];
            if (accumulate) v += vf_load(y, r * width + i, is_bf16, lanes);
            vf_store(y, r * width + i, is_bf16, lanes, v);
        });
    });
}

hirl_status_t hirl_row_scale_cpu(hirl_backend_t *be, const hirl_tensor_t *s, const hirl_tensor_t *x,
                                 bool accumulate, hirl_tensor_t *y) {
    const int64_t n = x->shape.dim[0], width = x->shape.dim[1];
    if (x->dtype == HIRL_BF16)
        scale_rows(cpu_ctx(be), n, width, hirl_tensor_f32(s), hirl_tensor_data(x), accumulate,
                   hirl_tensor_data(y), true);
    else
        scale_rows(cpu_ctx(be), n, width, hirl_tensor_f32(s), hirl_tensor_data(x), accumulate,
                   hirl_tensor_data(y), false);
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- layer norm

/// Sum of a row, or of its squared differences from `mean`, in double.
CPU_INLINE double row_sum(const void *x, int64_t at, int64_t width, bool is_bf16, bool has_square,
                          float mean) {
    vf_t s0 = {0};
    double total = 0;
    // A flush every 64 vectors keeps the f32 sums short.
    int64_t n_since = 0;
    FOR_COLUMNS(width, {
        vf_t v = vf_load(x, at + i, is_bf16, lanes);
        if (has_square) {
            v -= mean;
            if (lanes < CPU_VECTOR)
                for (int l = lanes; l < CPU_VECTOR; ++l) v[l] = 0;
            v *= v;
        }
        s0 += v;
        if (++n_since == 64) {
            total += vf_sum(s0);
            s0 = (vf_t){0};
            n_since = 0;
        }
    });
    return total + vf_sum(s0);
}

CPU_INLINE void layer_norm_rows(const cpu_ctx_t *ctx, int64_t n, int64_t width, const void *x,
                                const float *gamma, const float *beta, float eps, void *y,
                                float *mean, float *rstd, bool is_bf16) {
    FOR_ROWS(ctx, n, width, {
        const float m = (float)(row_sum(x, r * width, width, is_bf16, false, 0) / (double)width);
        const double variance = row_sum(x, r * width, width, is_bf16, true, m) / (double)width;
        const float s = (float)(1 / sqrt(variance + (double)eps));
        mean[r] = m;
        rstd[r] = s;
        FOR_COLUMNS(width, vf_store(y, r * width + i, is_bf16, lanes,
                                    (vf_load(x, r * width + i, is_bf16, lanes) - m) * s *
                                            vf_load(gamma, i, false, lanes) +
                                        vf_load(beta, i, false, lanes)));
    });
}

hirl_status_t hirl_layer_norm_cpu(hirl_backend_t *be, const hirl_tensor_t *x,
                                  const hirl_tensor_t *gamma, const hirl_tensor_t *beta, float eps,
                                  hirl_tensor_t *y, hirl_tensor_t *mean, hirl_tensor_t *rstd) {
    const int64_t n = x->shape.dim[0], width = x->shape.dim[1];
    if (x->dtype == HIRL_BF16)
        layer_norm_rows(cpu_ctx(be), n, width, hirl_tensor_data(x), hirl_tensor_f32(gamma),
                        hirl_tensor_f32(beta), eps, hirl_tensor_data(y), hirl_tensor_f32(mean),
                        hirl_tensor_f32(rstd), true);
    else
        layer_norm_rows(cpu_ctx(be), n, width, hirl_tensor_data(x), hirl_tensor_f32(gamma),
                        hirl_tensor_f32(beta), eps, hirl_tensor_data(y), hirl_tensor_f32(mean),
                        hirl_tensor_f32(rstd), false);
    return HIRL_OK;
}

/// With g = dy gamma: dx = rstd (g - mean(g) - xhat mean(g xhat)). The sums over rows of dy and dy xhat go to part[2][padded].
CPU_INLINE void layer_norm_backward_rows(int64_t first, int64_t end, int64_t width, int64_t padded,
                                         const void *dy, const void *x, const float *gamma,
                                         const float *mean, const float *rstd, void *dx,
                                         double *part, bool is_bf16) {
    memset(part, 0, (size_t)(2 * padded) * sizeof *part);
    for (int64_t r = first; r < end; ++r) {
        const float m = mean[r], s = rstd[r];
        vf_t sum_g = {0}, sum_gx = {0};
        double total_g = 0, total_gx = 0;
        int64_t n_since = 0;
        FOR_COLUMNS(width, {
            const vf_t d = vf_load(dy, r * width + i, is_bf16, lanes);
            const vf_t xhat = (vf_load(x, r * width + i, is_bf16, lanes) - m) * s;
            const vf_t g = d * vf_load(gamma, i, false, lanes);
            sum_g += g;
            sum_gx += g * xhat;
            vf_add_wide(part + i, d * xhat);
            vf_add_wide(part + padded + i, d);
            if (++n_since == 64) {
                total_g += vf_sum(sum_g);
                total_gx += vf_sum(sum_gx);
                sum_g = sum_gx = (vf_t){0};
                n_since = 0;
            }
        });
        const float mean_g = (float)((total_g + vf_sum(sum_g)) / (double)width);
        const float mean_gx = (float)((total_gx + vf_sum(sum_gx)) / (double)width);
        FOR_COLUMNS(width, {
            const vf_t xhat = (vf_load(x, r * width + i, is_bf16, lanes) - m) * s;
            const vf_t g =
                vf_load(dy, r * width + i, is_bf16, lanes) * vf_load(gamma, i, false, lanes);
            vf_store(dx, r * width + i, is_bf16, lanes, (g - mean_g - xhat * mean_gx) * s);
        });
    }
}

hirl_status_t hirl_layer_norm_backward_cpu(hirl_backend_t *be, const hirl_tensor_t *dy,
                                           const hirl_tensor_t *x, const hirl_tensor_t *gamma,
                                           const hirl_tensor_t *mean, const hirl_tensor_t *rstd,
                                           bool accumulate, hirl_tensor_t *dx,
                                           hirl_tensor_t *dgamma, hirl_tensor_t *dbeta) {
    enum { MOST_PARTS = 64, LEAST_ROWS = 16 };
    cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t n = x->shape.dim[0], width = x->shape.dim[1];
    int64_t n_parts = (n + LEAST_ROWS - 1) / LEAST_ROWS;
    if (n_parts > MOST_PARTS) n_parts = MOST_PARTS;
    const int64_t padded = (width + CPU_VECTOR - 1) / CPU_VECTOR * CPU_VECTOR;
    const size_t bytes = (size_t)(n_parts * 2 * padded) * sizeof(double);
    double *parts = NULL;
    HIRL_TRY(hirl_cpu_scratch(ctx, bytes, (void **)&parts));
    const bool is_bf16 = x->dtype == HIRL_BF16;
#pragma omp parallel for num_threads(ctx->n_threads) \
    schedule(static) if (n * width > LEAST_PARALLEL)
    for (int64_t p = 0; p < n_parts; ++p) {
        const int64_t first = p * n / n_parts, end = (p + 1) * n / n_parts;
        if (is_bf16)
            layer_norm_backward_rows(first, end, width, padded, hirl_tensor_data(dy),
                                     hirl_tensor_data(x), hirl_tensor_f32(gamma),
                                     hirl_tensor_f32(mean), hirl_tensor_f32(rstd),
                                     hirl_tensor_data(dx), parts + p * 2 * padded, true);
        else
            layer_norm_backward_rows(first, end, width, padded, hirl_tensor_data(dy),
                                     hirl_tensor_data(x), hirl_tensor_f32(gamma),
                                     hirl_tensor_f32(mean), hirl_tensor_f32(rstd),
                                     hirl_tensor_data(dx), parts + p * 2 * padded, false);
    }
    float *to_gamma = hirl_tensor_f32(dgamma), *to_beta = hirl_tensor_f32(dbeta);
    for (int64_t c = 0; c < width; ++c) {
        double g = accumulate ? (double)to_gamma[c] : 0, b = accumulate ? (double)to_beta[c] : 0;
        for (int64_t p = 0; p < n_parts; ++p) {
            g += parts[p * 2 * padded + c];
            b += parts[p * 2 * padded + padded + c];
        }
        to_gamma[c] = (float)g;
        to_beta[c] = (float)b;
    }
    hirl_cpu_scratch_free(ctx, bytes, parts);
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- softmax

hirl_status_t hirl_softmax_cpu(hirl_backend_t *be, const hirl_tensor_t *x, float scale,
                               hirl_tensor_t *y) {
    const cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t n = x->shape.dim[0], width = x->shape.dim[1];
    const float *in = hirl_tensor_f32(x);
    float *out = hirl_tensor_f32(y);
    FOR_ROWS(ctx, n, width, {
        const float *row = in + r * width;
        const float largest = row_max(row, width, scale);
        const float shift = largest == -INFINITY ? 0 : largest;
        FOR_COLUMNS(width, vf_store(out, r * width + i, false, lanes,
                                    vf_exp(vf_load(row, i, false, lanes) * scale - shift)));
        const float sum = (float)row_sum(out, r * width, width, false, false, 0);
        FOR_COLUMNS(width, vf_store(out, r * width + i, false, lanes,
                                    vf_load(out, r * width + i, false, lanes) / sum));
    });
    return HIRL_OK;
}

hirl_status_t hirl_softmax_backward_cpu(hirl_backend_t *be, const hirl_tensor_t *y,
                                        const hirl_tensor_t *dy, float scale, hirl_tensor_t *dx) {
    const cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t n = y->shape.dim[0], width = y->shape.dim[1];
    const float *p = hirl_tensor_f32(y), *g = hirl_tensor_f32(dy);
    float *to = hirl_tensor_f32(dx);
    FOR_ROWS(ctx, n, width, {
        const float mean = (float)dot(p + r * width, g + r * width, width);
        FOR_COLUMNS(width, vf_store(to, r * width + i, false, lanes,
                                    vf_load(p, r * width + i, false, lanes) *
                                        (vf_load(g, r * width + i, false, lanes) - mean) * scale));
    });
    return HIRL_OK;
}
