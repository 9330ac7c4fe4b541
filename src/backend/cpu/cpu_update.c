/// Parameter updates on plain f32 slabs: elementwise loops, bound by memory traffic, and the sum of squares in a fixed order.
#include "cpu_impl.h"

#include <math.h>

enum { LEAST_PARALLEL = 1 << 15 }; // elements from which a second thread pays

hirl_status_t hirl_sgd_cpu(hirl_backend_t *be, float lr, float momentum, float weight_decay,
                           bool is_nesterov, const hirl_tensor_t *g, hirl_tensor_t *v,
                           hirl_tensor_t *p) {
    const cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t count = hirl_tensor_count(p);
    const float *gradient = hirl_tensor_f32(g);
    float *velocity = hirl_tensor_f32(v), *parameter = hirl_tensor_f32(p);
    if (is_nesterov) {
#pragma omp parallel for simd num_threads(ctx->n_threads) if (count > LEAST_PARALLEL)
        for (int64_t i = 0; i < count; ++i) {
            const float d = gradient[i] + weight_decay * parameter[i];
            velocity[i] = momentum * velocity[i] + d;
            parameter[i] -= lr * (d + momentum * velocity[i]);
        }
    } else {
#pragma omp parallel for simd num_threads(ctx->n_threads) if (count > LEAST_PARALLEL)
        for (int64_t i = 0; i < count; ++i) {
            const float d = gradient[i] + weight_decay * parameter[i];
            velocity[i] = momentum * velocity[i] + d;
            parameter[i] -= lr * velocity[i];
        }
    }
    return HIRL_OK;
}

hirl_status_t hirl_adamw_cpu(hirl_backend_t *be, float lr, float beta1, float beta2, float eps,
                             float weight_decay, int64_t step, const hirl_tensor_t *g,
                             hirl_tensor_t *m, hirl_tensor_t *v, hirl_tensor_t *p) {
    const cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t count = hirl_tensor_count(p);
    const float *gradient = hirl_tensor_f32(g);
    float *first = hirl_tensor_f32(m), *second = hirl_tensor_f32(v),
          *parameter = hirl_tensor_f32(p);
    const float keep = (float)(1 - (double)lr * (double)weight_decay);
    const float rate = (float)((double)lr / (1 - pow((double)beta1, (double)step)));
    const float root = (float)sqrt(1 - pow((double)beta2, (double)step));
    const float rest1 = (float)(1 - (double)beta1), rest2 = (float)(1 - (double)beta2);
#pragma omp parallel for simd num_threads(ctx->n_threads) if (count > LEAST_PARALLEL)
    for (int64_t i = 0; i < count; ++i) {
        first[i] = beta1 * first[i] + rest1 * gradient[i];
        second[i] = beta2 * second[i] + rest2 * gradient[i] * gradient[i];
        parameter[i] = keep * parameter[i] - rate * first[i] / (sqrtf(second[i]) / root + eps);
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

hirl_status_t hirl_sum_squares_cpu(hirl_backend_t *be, const hirl_tensor_t *x, double *sum_p) {
    enum { SPAN = 1 << 14, LANES = 8 };
    cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t count = hirl_tensor_count(x), n_spans = (count + SPAN - 1) / SPAN;
    const float *value = hirl_tensor_f32(x);
    double *parts = NULL;
    const size_t bytes = (size_t)n_spans * sizeof *parts;
    HIRL_TRY(hirl_cpu_scratch(ctx, bytes, (void **)&parts));
#pragma omp parallel for num_threads(ctx->n_threads) schedule(static) if (n_spans > 2)
    for (int64_t s = 0; s < n_spans; ++s) {
        const int64_t first = s * SPAN, end = first + SPAN < count ? first + SPAN : count;
        double lane[LANES] = {0};
        int64_t i = first;
        for (; i + LANES <= end; i += LANES)
            for (int l = 0; l < LANES; ++l) lane[l] += (double)value[i + l] * (double)value[i + l];
        for (; i < end; ++i) lane[0] += (double)value[i] * (double)value[i];
        parts[s] = ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
                   ((lane[1] + lane[5]) + (lane[3] + lane[7]));
    }
    double sum = 0;
    for (int64_t s = 0; s < n_spans; ++s) sum += parts[s];
    hirl_cpu_scratch_free(ctx, bytes, parts);
    *sum_p = sum;
    return HIRL_OK;
}
