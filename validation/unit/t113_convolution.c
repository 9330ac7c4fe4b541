// Convolutions of the cpu backend at sizes that choose each of its ways (direct, 1x1, Winograd, gradients of bf16 in f32) against
// sums in double at random places.
// test: timeout=120
#include "hirl/backend.h"

#include "test.h"

static hirl_backend_t *be;

typedef struct conv_case {
    int n, h, w, in, out, kernel, stride, pad;
    hirl_dtype_t dtype;
} conv_case_t;

/// Values of bf16 in either case, so that inputs are the same numbers for both dtypes.
static hirl_tensor_t tensor(hirl_shape_t shape, hirl_dtype_t dtype, float scale, uint64_t stream) {
    hirl_tensor_t wide = {0}, half = {0}, x = {0};
    NEED_OK(hirl_backend_tensor(be, shape, HIRL_F32, &wide));
    test_fill_normal(hirl_tensor_f32(&wide), hirl_shape_count(&shape), stream);
    NEED_OK(hirl_op_axpby(be, 0, &wide, scale, &wide));
    NEED_OK(hirl_op_cast(be, &wide, HIRL_BF16, &half));
    hirl_tensor_reset(&wide);
    if (dtype == HIRL_BF16) return half;
    NEED_OK(hirl_op_cast(be, &half, dtype, &x));
    hirl_tensor_reset(&half);
    return x;
}

static float *values(const hirl_tensor_t *x, hirl_tensor_t *plain) {
    NEED_OK(hirl_op_to_plain(be, x, HIRL_F32, plain));
    return hirl_tensor_f32(plain);
}

typedef struct operands {
    conv_case_t c;
    int oh, ow;
    const float *x, *w, *y;
} operands_t;

static double x_at(const operands_t *o, int n, int h, int w, int i) {
    if (h < 0 || h >= o->c.h || w < 0 || w >= o->c.w) return 0;
    return (double)o->x[(((int64_t)n * o->c.h + h) * o->c.w + w) * o->c.in + i];
}

static double w_at(const operands_t *o, int out, int in, int a, int b) {
    return (double)o->w[(((int64_t)out * o->c.in + in) * o->c.kernel + a) * o->c.kernel + b];
}

static double y_at(const operands_t *o, int n, int h, int w, int out) {
    return (double)o->y[(((int64_t)n * o->oh + h) * o->ow + w) * o->c.out + out];
}

static double forward_at(const operands_t *o, int64_t at) {
    const conv_case_t *c = &o->c;
    const int out = (int)(at % c->out), w = (int)(at / c->out % o->ow),
              h = (int)(at / c->out / o->ow % o->oh), n = (int)(at / c->out / o->ow / o->oh);
    double sum = 0;
    for (int a = 0; a < c->kernel; a++)
        for (int b = 0; b < c->kernel; b++)
            for (int i = 0; i < c->in; i++)
                sum += x_at(o, n, h * c->stride + a - c->pad, w * c->stride + b - c->pad, i) *
                       w_at(o, out, i, a, b);
    return sum;
}

static double data_at(const operands_t *o, int64_t at) {
    const conv_case_t *c = &o->c;
    const int in = (int)(at % c->in), w = (int)(at / c->in % c->w),
              h = (int)(at / c->in / c->w % c->h), n = (int)(at / c->in / c->w / c->h);
    double sum = 0;
    for (int a = 0; a < c->kernel; a++) {
        for (int b = 0; b < c->kernel; b++) {
            const int hs = h + c->pad - a, ws = w + c->pad - b;
            if (hs < 0 || ws < 0 || hs % c->stride || ws % c->stride || hs / c->stride >= o->oh ||
                ws / c->stride >= o->ow)
                continue;
            for (int out = 0; out < c->out; out++)
                sum += y_at(o, n, hs / c->stride, ws / c->stride, out) * w_at(o, out, in, a, b);
        }
    }
    return sum;
}

static double weights_at(const operands_t *o, int64_t at) {
    const conv_case_t *c = &o->c;
    const int b = (int)(at % c->kernel), a = (int)(at / c->kernel % c->kernel),
              in = (int)(at / c->kernel / c->kernel % c->in),
              out = (int)(at / c->kernel / c->kernel / c->in);
    double sum = 0;
    for (int n = 0; n < c->n; n++)
        for (int h = 0; h < o->oh; h++)
            for (int w = 0; w < o->ow; w++)
                sum += x_at(o, n, h * c->stride + a - c->pad, w * c->stride + b - c->pad, in) *
                       y_at(o, n, h, w, out);
    return sum;
}

/// The worst of `n_probes` places, as a part of the root mean square of the true values.
static double worst(const operands_t *o, double (*truth)(const operands_t *, int64_t),
                    const float *got, int64_t count, int n_probes) {
    hirl_rng_t rng = test_rng(77);
    double square = 0, most = 0;
    for (int k = 0; k < n_probes; k++) {
        const int64_t at = hirl_rng_below(&rng, count);
        const double want = truth(o, at), error = fabs((double)got[at] - want);
        square += want * want;
        if (!(error <= most)) most = error;
    }
    return most / sqrt(square / n_probes);
}

static void check_case(const conv_case_t *c) {
    const hirl_conv_param_t p = {c->stride, c->stride, c->pad, c->pad};
    hirl_tensor_t x = tensor(hirl_shape_4(c->n, c->h, c->w, c->in), c->dtype, 1, 1);
    hirl_tensor_t w = tensor(hirl_shape_4(c->out, c->in, c->kernel, c->kernel), HIRL_F32, 1, 2);
    hirl_tensor_t y = {0}, dx = {0}, dw = {0}, db = {0}, again = {0},
                  bias = tensor(hirl_shape_1(c->out), HIRL_F32, 1, 4), biased = {0};
    NEED_OK(hirl_op_conv2d(be, &p, &x, &w, NULL, &y));
    const hirl_shape_t y_shape = y.shape;
    hirl_tensor_t dy = tensor(y_shape, c->dtype, 1, 3), px = {0}, pw = {0}, py = {0}, pdy = {0},
                  pdx = {0}, pb = {0};
    NEED_OK(hirl_op_conv2d_backward_data(be, &p, &dy, &w, &x.shape, &dx));
    NEED_OK(hirl_backend_tensor(be, w.shape, HIRL_F32, &dw));
    NEED_OK(hirl_op_fill(be, 1, &dw));
    NEED_OK(hirl_op_conv2d_backward_weights(be, &p, &x, &dy, true, &dw, NULL)); // 1 + dw
    NEED_OK(hirl_backend_tensor(be, w.shape, HIRL_F32, &again));
    NEED_OK(hirl_op_conv2d_backward_weights(be, &p, &x, &dy, false, &again, &db));
    NEED_OK(hirl_op_conv2d(be, &p, &x, &w, &bias, &biased));
    operands_t o = {*c,
                    (int)y_shape.dim[1],
                    (int)y_shape.dim[2],
                    values(&x, &px),
                    values(&w, &pw),
                    values(&dy, &pdy)};
    // f32: Winograd's transforms multiply rounding errors of 6e-8 sqrt(products) by 5 or so; bf16: results are rounded to 2^-9.
    const bool is_bf16 = c->dtype == HIRL_BF16;
    const double bound = is_bf16 ? 1.2e-2 : 2e-5;
    const char *name = is_bf16 ? "bf16" : "f32";
    const double e1 = worst(&o, forward_at, values(&y, &py), hirl_tensor_count(&y), 200);
    const double e2 = worst(&o, data_at, values(&dx, &pdx), hirl_tensor_count(&x), 200);
    const double e3 = worst(&o, weights_at, hirl_tensor_f32(&again), hirl_tensor_count(&w), 60);
    CHECK_MSG(e1 < bound, "%s %dx%d %d>%d k%d s%d forward: %.3g, want %.3g", name, c->h, c->w,
              c->in, c->out, c->kernel, c->stride, e1, bound);
    CHECK_MSG(e2 < bound, "%s %dx%d %d>%d k%d s%d data: %.3g, want %.3g", name, c->h, c->w, c->in,
              c->out, c->kernel, c->stride, e2, bound);
    // Weights' gradients are summed and given out in f32 in either case.
    CHECK_MSG(e3 < 5e-5, "%s %dx%d %d>%d k%d s%d weights: %.3g", name, c->h, c->w, c->in, c->out,
              c->kernel, c->stride, e3);
    double scale = 0, bias_error = 0;
    for (int64_t i = 0; i < hirl_tensor_count(&w); i++)
        scale = fmax(scale, fabs((double)hirl_tensor_f32(&again)[i]));
    int64_t n_bad = 0;
    for (int64_t i = 0; i < hirl_tensor_count(&w); i++)
        n_bad += fabs((double)hirl_tensor_f32(&dw)[i] - (1 + (double)hirl_tensor_f32(&again)[i])) >
                 1e-6 * (1 + scale);
    CHECK_EQ_I(n_bad, 0);
    for (int out = 0; out < c->out; out++) {
        double sum = 0, magnitude = 0;
        for (int64_t i = out; i < hirl_tensor_count(&dy); i += c->out)
            sum += (double)o.y[i], magnitude += fabs((double)o.y[i]);
        bias_error = fmax(bias_error, fabs((double)hirl_tensor_f32(&db)[out] - sum) / magnitude);
    }
    CHECK_MSG(bias_error < 1e-6, "bias: %.3g", bias_error);
    const float *with = values(&biased, &pb), *without = hirl_tensor_f32(&py),
                *b = hirl_tensor_f32(&bias);
    n_bad = 0;
    for (int64_t i = 0; i < hirl_tensor_count(&y); i++) {
        const double want = (double)without[i] + (double)b[i % c->out];
        n_bad += fabs((double)with[i] - want) >
                 (is_bf16 ? 2e-2 : 1e-5) * (1 + fabs(want) + fabs((double)without[i]));
    }
    CHECK_EQ_I(n_bad, 0);
    hirl_tensor_t *const all[] = {&x,      &w,  &y,  &dx, &dw, &db,  &again, &bias,
                                  &biased, &dy, &px, &pw, &py, &pdy, &pdx,   &pb};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) hirl_tensor_reset(all[i]);
}

TEST_MAIN {
    const conv_case_t cases[] = {
        {12, 16, 12, 64, 64, 3, 1, 1, HIRL_F32}, // Winograd
        {16, 12, 13, 32, 48, 3, 1, 1, HIRL_F32}, // Winograd, cut tiles
        {96, 4, 4, 64, 96, 3, 1, 1, HIRL_F32},   // Winograd, one tile an image
        {2, 12, 12, 64, 64, 3, 1, 1, HIRL_F32},  // too few tiles
        {2, 9, 11, 20, 36, 3, 2, 1, HIRL_F32},   // channels that do not fill blocks
        {2, 15, 14, 3, 24, 7, 2, 3, HIRL_F32},   // first layer
        {3, 8, 8, 1, 16, 3, 1, 1, HIRL_F32},     // one channel
        {2, 9, 9, 32, 64, 1, 2, 0, HIRL_F32},    // shortcut
        {2, 8, 8, 48, 32, 1, 1, 0, HIRL_F32},
        {2, 12, 12, 3, 40, 4, 4, 0, HIRL_F32}, // patches
        {12, 16, 12, 64, 64, 3, 1, 1, HIRL_BF16},
        {4, 7, 7, 32, 64, 3, 1, 1, HIRL_BF16},   // weights' gradient by f32
        {4, 14, 14, 32, 64, 3, 2, 1, HIRL_BF16}, // data's too
        {2, 15, 14, 3, 24, 7, 2, 3, HIRL_BF16},
        {2, 9, 11, 20, 36, 3, 2, 1, HIRL_BF16},
        {2, 8, 8, 48, 32, 1, 1, 0, HIRL_BF16},
    };
    NEED_OK(hirl_backend_create("cpu", 2, &be));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_case(&cases[i]);
    CHECK_EQ_I(hirl_backend_memory_used(be), 0);
    hirl_backend_destroy(&be);
}
