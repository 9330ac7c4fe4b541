// Parameter updates, segment by segment.

#include "ref_impl.h"

// |p|, and |g'| or, for a rule with one norm of both, |g' + wd p|.
static void norms_of(const hirl_update_t *u, const hirl_segment_t *s, const hirl_tensor_t *g,
                     const hirl_tensor_t *p, double *norm_p, double *norm_g) {
    const double decay = u->rule == HIRL_RULE_LARS_JOINT ? (double)s->weight_decay : 0.0;
    double p2 = 0, g2 = 0;
    for (int64_t i = s->first; i < s->first + s->count; ++i) {
        const double slope = (double)u->grad_scale * get(g, i) + decay * get(p, i);
        p2 += get(p, i) * get(p, i);
        g2 += slope * slope;
    }
    *norm_p = sqrt(p2);
    *norm_g = sqrt(g2);
}

static void update_by_momentum(const hirl_update_t *u, const hirl_segment_t *s,
                               const hirl_tensor_t *g, hirl_tensor_t *v, hirl_tensor_t *p) {
    double norm_p, norm_g;
    norms_of(u, s, g, p, &norm_p, &norm_g);
    const hirl_rates_t rates = hirl_update_rates(u, s, norm_p, norm_g);
    for (int64_t i = s->first; i < s->first + s->count; ++i) {
        const double slope =
            rates.inner * ((double)u->grad_scale * get(g, i) + rates.weight_decay * get(p, i));
        const double speed = (double)u->momentum * get(v, i) + slope;
        set(v, i, speed);
        set(p, i,
            get(p, i) -
                rates.outer * (u->is_nesterov ? slope + (double)u->momentum * speed : speed));
    }
}

static void update_by_adamw(const hirl_update_t *u, const hirl_segment_t *s, const hirl_tensor_t *g,
                            hirl_tensor_t *v, hirl_tensor_t *w, hirl_tensor_t *p) {
    const double step = (double)(u->step - s->lag), lr = u->lr;
    const double c1 = 1.0 - pow((double)u->beta1, step), c2 = 1.0 - pow((double)u->beta2, step);
    for (int64_t i = s->first; i < s->first + s->count; ++i) {
        const double slope = (double)u->grad_scale * get(g, i);
        const double value = get(p, i) * (1.0 - lr * (double)s->weight_decay);
        const double first = (double)u->beta1 * get(v, i) + (1.0 - (double)u->beta1) * slope;
        const double second =
            (double)u->beta2 * get(w, i) + (1.0 - (double)u->beta2) * slope * slope;
        set(v, i, first);
        set(w, i, second);
        set(p, i, value - lr * (first / c1) / (sqrt(second / c2) + (double)u->eps));
    }
}

hirl_status_t ref_update(hirl_backend_t *be, const hirl_update_t *update,
                         const hirl_segments_t *segments, const hirl_tensor_t *g, hirl_tensor_t *v,
                         hirl_tensor_t *w, hirl_tensor_t *p) {
    (void)be;
    for (int64_t i = 0; i < segments->n; ++i) {
        if (update->rule == HIRL_RULE_ADAMW)
            update_by_adamw(update, &segments->segment[i], g, v, w, p);
        else
            update_by_momentum(update, &segments->segment[i], g, v, p);
    }
    return HIRL_OK;
}

hirl_status_t ref_ema(hirl_backend_t *be, float m, const hirl_tensor_t *x, hirl_tensor_t *y) {
    (void)be;
    for (int64_t i = 0; i < hirl_tensor_count(x); ++i)
        set(y, i, (double)m * get(y, i) + (1.0 - (double)m) * get(x, i));
    return HIRL_OK;
}

hirl_status_t ref_sum_squares_of(hirl_backend_t *be, int n, const hirl_segments_t *const *segments,
                                 const hirl_tensor_t *const *x, double *sum_p) {
    double sum = 0;
    (void)be;
    for (int k = 0; k < n; ++k)
        for (int64_t j = 0; segments[k] && j < segments[k]->n; ++j) {
            const hirl_segment_t *s = &segments[k]->segment[j];
            for (int64_t i = s->first; i < s->first + s->count; ++i)
                sum += get(x[k], i) * get(x[k], i);
        }
    *sum_p = sum;
    return HIRL_OK;
}
