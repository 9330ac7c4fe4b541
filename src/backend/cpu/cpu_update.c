/// Parameter updates on plain f32 slabs: elementwise loops, bound by memory traffic, and sums of squares in a fixed order.
#include "cpu_impl.h"

#include <math.h>

enum { LEAST_PARALLEL = 1 << 15 }; // elements from which a second thread pays

// ---------------------------------------------------------------------------------------------- sums of squares

enum { SPAN = 1 << 14, LANES = 8 };

/// What is squared: value, or with `other` scale value + decay other, in double.
typedef struct terms {
    const float *value, *other;
    double scale, decay;
} terms_t;

static double sum_of_span(const terms_t *t, int64_t first, int64_t end) {
    const float *value = t->value, *other = t->other;
    double lane[LANES] = {0};
    int64_t i = first;
    if (other) {
        const double scale = t->scale, decay = t->decay;
        for (; i + LANES <= end; i += LANES)
            for (int l = 0; l < LANES; ++l) {
                const double x = scale * (double)value[i + l] + decay * (double)other[i + l];
                lane[l] += x * x;
            }
        for (; i < end; ++i) {
            const double x = scale * (double)value[i] + decay * (double)other[i];
            lane[0] += x * x;
        }
    } else {
        for (; i + LANES <= end; i += LANES)
            for (int l = 0; l < LANES; ++l) lane[l] += (double)value[i + l] * (double)value[i + l];
        for (; i < end; ++i) lane[0] += (double)value[i] * (double)value[i];
    }
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static hirl_status_t sum_of(cpu_ctx_t *ctx, const terms_t *terms, int64_t count, double *sum_p) {
    const int64_t n_spans = (count + SPAN - 1) / SPAN;
    double *parts = NULL;
    const size_t bytes = (size_t)n_spans * sizeof *parts;
    HIRL_TRY(hirl_cpu_scratch(ctx, bytes, (void **)&parts));
#pragma omp parallel for num_threads(ctx->n_threads) schedule(static) if (n_spans > 2)
    for (int64_t s = 0; s < n_spans; ++s)
        parts[s] = sum_of_span(terms, s * SPAN, (s + 1) * SPAN < count ? (s + 1) * SPAN : count);
    double sum = 0;
    for (int64_t s = 0; s < n_spans; ++s) sum += parts[s];
    hirl_cpu_scratch_free(ctx, bytes, parts);
    *sum_p = sum;
    return HIRL_OK;
}

hirl_status_t hirl_sum_squares_of_cpu(hirl_backend_t *be, int n,
                                      const hirl_segments_t *const *segments,
                                      const hirl_tensor_t *const *x, double *sum_p) {
    double total = 0;
    for (int k = 0; k < n; ++k)
        for (int64_t j = 0; segments[k] && j < segments[k]->n; ++j) {
            const hirl_segment_t *s = &segments[k]->segment[j];
            const terms_t terms = {.value = hirl_tensor_f32(x[k]) + s->first};
            double sum;
            HIRL_TRY(sum_of(cpu_ctx(be), &terms, s->count, &sum));
            total += sum;
        }
    *sum_p = total;
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- updates

/// inner = 1 and outer = lr is SGD, bit for bit: products by 1 are exact.
static void momentum_loop(int n_threads, const hirl_update_t *u, const hirl_rates_t *rates,
                          int64_t count, const float *g, float *v, float *p) {
    const float scale = u->grad_scale, decay = (float)rates->weight_decay, momentum = u->momentum;
    const float inner = (float)rates->inner, outer = (float)rates->outer;
    if (u->is_nesterov) {
#pragma omp parallel for simd num_threads(n_threads) if (count > LEAST_PARALLEL)
        for (int64_t i = 0; i < count; ++i) {
            const float d = inner * (scale * g[i] + decay * p[i]);
            v[i] = momentum * v[i] + d;
            p[i] -= outer * (d + momentum * v[i]);
        }
    } else {
#pragma omp parallel for simd num_threads(n_threads) if (count > LEAST_PARALLEL)
        for (int64_t i = 0; i < count; ++i) {
            const float d = inner * (scale * g[i] + decay * p[i]);
            v[i] = momentum * v[i] + d;
            p[i] -= outer * v[i];
        }
    }
}

static hirl_status_t update_by_momentum(cpu_ctx_t *ctx, const hirl_update_t *u,
                                        const hirl_segment_t *s, const float *g, float *v,
                                        float *p) {
    double p2 = 0, g2 = 0;
    if (u->rule != HIRL_RULE_SGD && s->is_adapted) {
        const bool is_joint = u->rule == HIRL_RULE_LARS_JOINT;
        const double scale = (double)u->grad_scale;
        const terms_t of_p = {.value = p};
        const terms_t of_g = {.value = g,
                              .other = is_joint ? p : NULL,
                              .scale = scale,
                              .decay = (double)s->weight_decay};
        HIRL_TRY(sum_of(ctx, &of_p, s->count, &p2));
        HIRL_TRY(sum_of(ctx, &of_g, s->count, &g2));
        if (!is_joint) g2 *= scale * scale;
    }
    const hirl_rates_t rates = hirl_update_rates(u, s, sqrt(p2), sqrt(g2));
    momentum_loop(ctx->n_threads, u, &rates, s->count, g, v, p);
    return HIRL_OK;
}

static void update_by_adamw(int n_threads, const hirl_update_t *u, const hirl_segment_t *s,
                            const float *g, float *v, float *w, float *p) {
    const double lr = (double)u->lr, step = (double)(u->step - s->lag);
    const float beta1 = u->beta1, beta2 = u->beta2, eps = u->eps, scale = u->grad_scale;
    const float keep = (float)(1 - lr * (double)s->weight_decay);
    const float rate = (float)(lr / (1 - pow((double)beta1, step)));
    const float root = (float)sqrt(1 - pow((double)beta2, step));
    const float rest1 = (float)(1 - (double)beta1), rest2 = (float)(1 - (double)beta2);
    const int64_t count = s->count;
#pragma omp parallel for simd num_threads(n_threads) if (count > LEAST_PARALLEL)
    for (int64_t i = 0; i < count; ++i) {
        const float d = scale * g[i];
        v[i] = beta1 * v[i] + rest1 * d;
        w[i] = beta2 * w[i] + rest2 * d * d;
        p[i] = keep * p[i] - rate * v[i] / (sqrtf(w[i]) / root + eps);
    }
}

hirl_status_t hirl_update_cpu(hirl_backend_t *be, const hirl_update_t *update,
                              const hirl_segments_t *segments, const hirl_tensor_t *g,
                              hirl_tensor_t *v, hirl_tensor_t *w, hirl_tensor_t *p) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    for (int64_t i = 0; i < segments->n; ++i) {
        const hirl_segment_t *s = &segments->segment[i];
        const float *gradient = hirl_tensor_f32(g) + s->first;
        float *first = hirl_tensor_f32(v) + s->first, *value = hirl_tensor_f32(p) + s->first;
        if (update->rule == HIRL_RULE_ADAMW)
            update_by_adamw(ctx->n_threads, update, s, gradient, first,
                            hirl_tensor_f32(w) + s->first, value);
        else
            HIRL_TRY(update_by_momentum(ctx, update, s, gradient, first, value));
    }
    return HIRL_OK;
}

hirl_status_t hirl_ema_cpu(hirl_backend_t *be, float m, const hirl_tensor_t *x, hirl_tensor_t *y) {
    const cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t count = hirl_tensor_count(y);
    const float *student = hirl_tensor_f32(x), rest = (float)(1 - (double)m);
    float *teacher = hirl_tensor_f32(y);
#pragma omp parallel for simd num_threads(ctx->n_threads) if (count > LEAST_PARALLEL)
    for (int64_t i = 0; i < count; ++i) teacher[i] = m * teacher[i] + rest * student[i];
    return HIRL_OK;
}
