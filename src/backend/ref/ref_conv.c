// Convolution and pooling, straight from their definitions. Images [N, H, W, C], weights [O, I, kH, kW].

#include "ref_impl.h"

typedef struct conv_dims {
    int64_t n, h, w, i, o, kh, kw, ho, wo;
} conv_dims_t;

static conv_dims_t conv_dims(const hirl_conv_param_t *p, const hirl_shape_t *x,
                             const hirl_shape_t *w) {
    conv_dims_t d = {.n = x->dim[0],
                     .h = x->dim[1],
                     .w = x->dim[2],
                     .i = x->dim[3],
                     .o = w->dim[0],
                     .kh = w->dim[2],
                     .kw = w->dim[3]};
    d.ho = hirl_window_output(d.h, (int)d.kh, p->stride_h, p->pad_h);
    d.wo = hirl_window_output(d.w, (int)d.kw, p->stride_w, p->pad_w);
    return d;
}

// Index of the input pixel under tap (r, s) of output pixel (n, a, b), channel i; -1 in the padding.
static int64_t input_at(const conv_dims_t *d, const hirl_conv_param_t *p, int64_t n, int64_t a,
                        int64_t b, int64_t r, int64_t s, int64_t i) {
    int64_t y = a * p->stride_h + r - p->pad_h, x = b * p->stride_w + s - p->pad_w;
    if (y < 0 || y >= d->h || x < 0 || x >= d->w) return -1;
    return ((n * d->h + y) * d->w + x) * d->i + i;
}

static int64_t weight_at(const conv_dims_t *d, int64_t o, int64_t i, int64_t r, int64_t s) {
    return ((o * d->i + i) * d->kh + r) * d->kw + s;
}
static int64_t output_at(const conv_dims_t *d, int64_t n, int64_t a, int64_t b, int64_t o) {
    return ((n * d->ho + a) * d->wo + b) * d->o + o;
}

hirl_status_t ref_conv2d(hirl_backend_t *be, const hirl_conv_param_t *p, const hirl_tensor_t *x,
                         const hirl_tensor_t *w, const hirl_tensor_t *bias, hirl_tensor_t *y) {
    conv_dims_t d = conv_dims(p, &x->shape, &w->shape);
    (void)be;
    for (int64_t n = 0; n < d.n; ++n)
        for (int64_t a = 0; a < d.ho; ++a)
            for (int64_t b = 0; b < d.wo; ++b)
                for (int64_t o = 0; o < d.o; ++o) {
                    double sum = bias ? get(bias, o) : 0;
                    for (int64_t r = 0; r < d.kh; ++r)
                        for (int64_t s = 0; s < d.kw; ++s)
                            for (int64_t i = 0; i < d.i; ++i) {
                                int64_t at = input_at(&d, p, n, a, b, r, s, i);
                                if (at >= 0)
                                    sum += get(x, at) * get_weight(w, weight_at(&d, o, i, r, s), x);
                            }
                    set(y, output_at(&d, n, a, b, o), sum);
                }
    return HIRL_OK;
}

hirl_status_t ref_conv2d_backward_data(hirl_backend_t *be, const hirl_conv_param_t *p,
                                       const hirl_tensor_t *dy, const hirl_tensor_t *w,
                                       const hirl_shape_t *x_shape, hirl_tensor_t *dx) {
    conv_dims_t d = conv_dims(p, x_shape, &w->shape);
    int64_t count = hirl_shape_count(x_shape);
    double *sum = NULL;
    (void)be;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_WORKSPACE, count, &sum));
    for (int64_t n = 0; n < d.n; ++n)
        for (int64_t a = 0; a < d.ho; ++a)
            for (int64_t b = 0; b < d.wo; ++b)
                for (int64_t o = 0; o < d.o; ++o) {
                    double g = get(dy, output_at(&d, n, a, b, o));
                    for (int64_t r = 0; r < d.kh; ++r)
                        for (int64_t s = 0; s < d.kw; ++s)
                            for (int64_t i = 0; i < d.i; ++i) {
                                int64_t at = input_at(&d, p, n, a, b, r, s, i);
                                if (at >= 0)
                                    sum[at] += g * get_weight(w, weight_at(&d, o, i, r, s), dy);
                            }
                }
    for (int64_t i = 0; i < count; ++i) set(dx, i, sum[i]);
    hirl_mem_free(sum);
    return HIRL_OK;
}

hirl_status_t ref_conv2d_backward_weights(hirl_backend_t *be, const hirl_conv_param_t *p,
                                          const hirl_tensor_t *x, const hirl_tensor_t *dy,
                                          bool accumulate, hirl_tensor_t *dw,
                                          hirl_tensor_t *dbias) {
    conv_dims_t d = conv_dims(p, &x->shape, &dw->shape);
    (void)be;
    for (int64_t o = 0; o < d.o; ++o) {
        for (int64_t i = 0; i < d.i; ++i)
            for (int64_t r = 0; r < d.kh; ++r)
                for (int64_t s = 0; s < d.kw; ++s) {
                    double sum = 0;
                    for (int64_t n = 0; n < d.n; ++n)
                        for (int64_t a = 0; a < d.ho; ++a)
                            for (int64_t b = 0; b < d.wo; ++b) {
                                int64_t at = input_at(&d, p, n, a, b, r, s, i);
                                if (at >= 0) sum += get(x, at) * get(dy, output_at(&d, n, a, b, o));
                            }
                    put(dw, weight_at(&d, o, i, r, s), accumulate, sum);
                }
        if (!dbias) continue;
        double sum = 0;
        for (int64_t at = o; at < hirl_tensor_count(dy); at += d.o) sum += get(dy, at);
        put(dbias, o, accumulate, sum);
    }
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- pooling

// workspace i32, shape of y: the winner's place in its input image and channel, y * W + x.
hirl_status_t ref_max_pool(hirl_backend_t *be, const hirl_pool_param_t *p, const hirl_tensor_t *x,
                           hirl_tensor_t *y, hirl_tensor_t *workspace) {
    const int64_t *in = x->shape.dim, *out = y->shape.dim;
    (void)be;
    for (int64_t at = 0; at < hirl_tensor_count(y); ++at) {
        int64_t c = at % out[3], b = at / out[3] % out[2], a = at / out[3] / out[2] % out[1],
                n = at / out[3] / out[2] / out[1];
        double best = -INFINITY;
        int64_t winner = -1;
        for (int64_t i = a * p->stride - p->pad; i < a * p->stride - p->pad + p->kernel; ++i)
            for (int64_t j = b * p->stride - p->pad; j < b * p->stride - p->pad + p->kernel; ++j) {
                if (i < 0 || i >= in[1] || j < 0 || j >= in[2]) continue;
                double value = get(x, ((n * in[1] + i) * in[2] + j) * in[3] + c);
                if (winner < 0 || value > best) {
                    best = value;
                    winner = i * in[2] + j;
                }
            }
        set(y, at, best);
        if (workspace) ((int32_t *)hirl_tensor_data(workspace))[at] = (int32_t)winner;
    }
    return HIRL_OK;
}

hirl_status_t ref_max_pool_backward(hirl_backend_t *be, const hirl_pool_param_t *p,
                                    const hirl_tensor_t *dy, const hirl_tensor_t *workspace,
                                    const hirl_shape_t *x_shape, hirl_tensor_t *dx) {
    const int64_t *in = x_shape->dim, *out = dy->shape.dim;
    (void)be;
    (void)p;
    for (int64_t i = 0; i < hirl_tensor_count(dx); ++i) set(dx, i, 0);
    for (int64_t at = 0; at < hirl_tensor_count(dy); ++at) {
        int64_t c = at % out[3], n = at / out[3] / out[2] / out[1];
        put(dx, (n * in[1] * in[2] + get_i32(workspace)[at]) * in[3] + c, true, get(dy, at));
    }
    return HIRL_OK;
}

hirl_status_t ref_global_avg_pool(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y) {
    int64_t c = x->shape.dim[3], pixels = x->shape.dim[1] * x->shape.dim[2];
    (void)be;
    for (int64_t n = 0; n < x->shape.dim[0]; ++n)
        for (int64_t k = 0; k < c; ++k) {
            double sum = 0;
            for (int64_t i = 0; i < pixels; ++i) sum += get(x, (n * pixels + i) * c + k);
            set(y, n * c + k, sum / (double)pixels);
        }
    return HIRL_OK;
}

hirl_status_t ref_global_avg_pool_backward(hirl_backend_t *be, const hirl_tensor_t *dy,
                                           const hirl_tensor_t *like, hirl_tensor_t *dx) {
    int64_t c = like->shape.dim[3], pixels = like->shape.dim[1] * like->shape.dim[2];
    (void)be;
    for (int64_t at = 0; at < hirl_tensor_count(dx); ++at)
        set(dx, at, get(dy, at / c / pixels * c + at % c) / (double)pixels);
    return HIRL_OK;
}
