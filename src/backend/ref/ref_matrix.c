// Matrix products, row operations, softmax.

#include "ref_impl.h"

hirl_status_t ref_gemm(hirl_backend_t *be, bool trans_a, bool trans_b, float alpha,
                       const hirl_tensor_t *a, const hirl_tensor_t *b, float beta,
                       hirl_tensor_t *c) {
    int64_t m = c->shape.dim[0], n = c->shape.dim[1], k = a->shape.dim[trans_a ? 0 : 1];
    (void)be;
    for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
            double sum = 0;
            for (int64_t l = 0; l < k; ++l)
                sum += get(a, trans_a ? l * m + i : i * k + l) *
                       get(b, trans_b ? j * k + l : l * n + j);
            set(c, i * n + j,
                (double)alpha * sum + (beta != 0 ? (double)beta * get(c, i * n + j) : 0.0));
        }
    return HIRL_OK;
}

hirl_status_t ref_linear(hirl_backend_t *be, const hirl_tensor_t *x, const hirl_tensor_t *w,
                         const hirl_tensor_t *bias, hirl_act_t act, hirl_tensor_t *y,
                         hirl_tensor_t *pre) {
    int64_t n = x->shape.dim[0], in = x->shape.dim[1], out = w->shape.dim[0];
    (void)be;
    for (int64_t r = 0; r < n; ++r)
        for (int64_t o = 0; o < out; ++o) {
            double sum = bias ? get(bias, o) : 0;
            for (int64_t i = 0; i < in; ++i)
                sum += get(x, r * in + i) * get_weight(w, o * in + i, x);
            if (pre) set(pre, r * out + o, sum);
            set(y, r * out + o, activate(act, sum));
        }
    return HIRL_OK;
}

hirl_status_t ref_linear_backward(hirl_backend_t *be, const hirl_tensor_t *dy,
                                  const hirl_tensor_t *x, const hirl_tensor_t *w, bool accumulate,
                                  hirl_tensor_t *dx, hirl_tensor_t *dw, hirl_tensor_t *dbias) {
    int64_t n = x->shape.dim[0], in = x->shape.dim[1], out = w->shape.dim[0];
    (void)be;
    for (int64_t at = 0; dx && at < n * in; ++at) {
        double sum = 0;
        for (int64_t o = 0; o < out; ++o)
            sum += get(dy, at / in * out + o) * get_weight(w, o * in + at % in, dy);
        set(dx, at, sum);
    }
    for (int64_t at = 0; dw && at < out * in; ++at) {
        double sum = 0;
        for (int64_t r = 0; r < n; ++r)
            sum += get(dy, r * out + at / in) * get(x, r * in + at % in);
        put(dw, at, accumulate, sum);
    }
    for (int64_t o = 0; dbias && o < out; ++o) {
        double sum = 0;
        for (int64_t r = 0; r < n; ++r) sum += get(dy, r * out + o);
        put(dbias, o, accumulate, sum);
    }
    return HIRL_OK;
}

hirl_status_t ref_row_dot(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                          hirl_tensor_t *y) {
    int64_t d = last_axis(x1);
    (void)be;
    for (int64_t r = 0; r < x1->shape.dim[0]; ++r) {
        double sum = 0;
        for (int64_t k = 0; k < d; ++k) sum += get(x1, r * d + k) * get(x2, r * d + k);
        set(y, r, sum);
    }
    return HIRL_OK;
}

hirl_status_t ref_row_scale(hirl_backend_t *be, const hirl_tensor_t *s, const hirl_tensor_t *x,
                            bool accumulate, hirl_tensor_t *y) {
    int64_t d = last_axis(x);
    (void)be;
    for (int64_t at = 0; at < hirl_tensor_count(x); ++at)
        put(y, at, accumulate, get(s, at / d) * get(x, at));
    return HIRL_OK;
}

hirl_status_t ref_softmax(hirl_backend_t *be, const hirl_tensor_t *x, float scale,
                          hirl_tensor_t *y) {
    int64_t k = last_axis(x);
    (void)be;
    for (int64_t r = 0; r < hirl_tensor_count(x) / k; ++r) {
        double top = -INFINITY, sum = 0;
        for (int64_t i = 0; i < k; ++i) top = fmax(top, (double)scale * get(x, r * k + i));
        for (int64_t i = 0; i < k; ++i) sum += exp((double)scale * get(x, r * k + i) - top);
        for (int64_t i = 0; i < k; ++i)
            set(y, r * k + i, exp((double)scale * get(x, r * k + i) - top) / sum);
    }
    return HIRL_OK;
}

hirl_status_t ref_softmax_backward(hirl_backend_t *be, const hirl_tensor_t *y,
                                   const hirl_tensor_t *dy, float scale, hirl_tensor_t *dx) {
    int64_t k = last_axis(y);
    (void)be;
    for (int64_t r = 0; r < hirl_tensor_count(y) / k; ++r) {
        double dot = 0;
        for (int64_t i = 0; i < k; ++i) dot += get(y, r * k + i) * get(dy, r * k + i);
        for (int64_t i = 0; i < k; ++i)
            set(dx, r * k + i, (double)scale * get(y, r * k + i) * (get(dy, r * k + i) - dot));
    }
    return HIRL_OK;
}
