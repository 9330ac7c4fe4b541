// Batch norm of the cpu backend against double: means far larger than the spread, constant channels, an outlier in front; and
// sums that keep their bits whatever the number of threads.
// test: timeout=120
#include "hirl/backend.h"

#include "test.h"

typedef struct data {
    int64_t n, pixels, channels;
    float *x;
} data_t;

static data_t make(int64_t n, int64_t h, int64_t w, int64_t channels, double offset,
                   double spread) {
    data_t d = {n, h * w, channels, NULL};
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n * h * w * channels, &d.x));
    hirl_rng_t rng = test_rng(1);
    for (int64_t i = 0; i < n * h * w * channels; i++)
        d.x[i] = (float)(offset * (double)(i % channels + 1) + spread * hirl_rng_normal(&rng));
    return d;
}

/// Mean and variance of what the floats are, by two passes in double.
static void truth(const data_t *d, int64_t group, int64_t n_groups, int64_t c, double *mean_p,
                  double *var_p) {
    const int64_t rows = d->n / n_groups * d->pixels;
    const float *x = d->x + group * rows * d->channels + c;
    double mean = 0, var = 0;
    for (int64_t r = 0; r < rows; r++) mean += (double)x[r * d->channels];
    mean /= (double)rows;
    for (int64_t r = 0; r < rows; r++)
        var += ((double)x[r * d->channels] - mean) * ((double)x[r * d->channels] - mean);
    *mean_p = mean;
    *var_p = var / (double)rows;
}

static void check_stats(const data_t *d, int64_t h, int64_t w, int64_t n_groups, bool is_blocked,
                        double var_bound) {
    hirl_backend_t *be = NULL;
    NEED_OK(hirl_backend_create("cpu", 2, &be));
    hirl_tensor_t x = {0}, blocked = {0}, mean = {0}, var = {0};
    const hirl_shape_t shape =
        h ? hirl_shape_4(d->n, h, w, d->channels) : hirl_shape_2(d->n, d->channels);
    NEED_OK(hirl_backend_tensor(be, shape, HIRL_F32, &x));
    NEED_OK(hirl_backend_upload(be, d->x, &x));
    if (is_blocked) {
        NEED_OK(hirl_op_to_blocked(be, &x, &blocked));
        hirl_tensor_reset(&x);
        x = blocked;
    }
    NEED_OK(hirl_op_bn_stats(be, &x, n_groups, &mean, &var));
    double mean_error = 0, var_error = 0;
    for (int64_t g = 0; g < n_groups; g++) {
        for (int64_t c = 0; c < d->channels; c++) {
            double m, v;
            truth(d, g, n_groups, c, &m, &v);
            const double got_m = (double)hirl_tensor_f32(&mean)[g * d->channels + c],
                         got_v = (double)hirl_tensor_f32(&var)[g * d->channels + c];
            mean_error = fmax(mean_error, fabs(got_m - m) / (fabs(m) + sqrt(v)));
            var_error = fmax(var_error, v > 0 ? fabs(got_v - v) / v : got_v);
        }
    }
    // The mean is a float: 6e-8 of it, and as much again from sums of 256.
    CHECK_MSG(mean_error < 3e-7, "mean: %.3g", mean_error);
    CHECK_MSG(var_error <= var_bound, "variance: %.3g, want %.3g", var_error, var_bound);
    hirl_tensor_reset(&x);
    hirl_tensor_reset(&mean);
    hirl_tensor_reset(&var);
    hirl_backend_destroy(&be);
}

static void test_statistics(void) {
    for (int is_blocked = 0; is_blocked < 2; is_blocked++) {
        const struct {
            double offset, spread, bound;
        } cases[] = {{0, 1, 1e-6}, {1, 1e-1, 1e-6}, {100, 1e-2, 1e-6}, {1e-3, 1e3, 1e-6}};
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            data_t d = make(12, 18, 17, 20, cases[i].offset, cases[i].spread);
            check_stats(&d, 18, 17, 1, is_blocked, cases[i].bound);
            check_stats(&d, 18, 17, 4, is_blocked, cases[i].bound);
            hirl_mem_free(d.x);
        }
        // An outlier in front of everything, 1e4 times the spread: a sum shifted by the first value would cancel.
        data_t d = make(16, 8, 8, 32, 0, 1);
        for (int64_t c = 0; c < 32; c++) d.x[c] = 1e4f;
        check_stats(&d, 8, 8, 1, is_blocked, 1e-6);
        // Constant channels have variance 0, exactly.
        for (int64_t i = 0; i < 16 * 64 * 32; i++) d.x[i] = 0.1f * (float)(i % 32);
        check_stats(&d, 8, 8, 1, is_blocked, 0);
        hirl_mem_free(d.x);
    }
    data_t d = make(96, 1, 1, 70, 10, 1e-2); // matrices
    check_stats(&d, 0, 0, 1, false, 1e-6);
    check_stats(&d, 0, 0, 3, false, 1e-6);
    hirl_mem_free(d.x);
}

enum { N = 8, H = 9, W = 7, C = 40, COUNT = N * H * W * C };

typedef struct results {
    float mean[2 * C], var[2 * C], sum[2 * C], sum_xhat[2 * C], bias[C], y[COUNT], dx[COUNT];
    double squares;
} results_t;

static void run_all(int n_threads, bool is_blocked, hirl_dtype_t dtype, results_t *r) {
    hirl_backend_t *be = NULL;
    NEED_OK(hirl_backend_create("cpu", n_threads, &be));
    hirl_tensor_t plain = {0}, half = {0}, x = {0}, y = {0}, mean = {0}, var = {0}, s1 = {0},
                  s2 = {0}, dx = {0}, out = {0}, bias = {0};
    NEED_OK(hirl_backend_tensor(be, hirl_shape_4(N, H, W, C), HIRL_F32, &plain));
    test_fill_normal(hirl_tensor_f32(&plain), COUNT, 5);
    NEED_OK(hirl_op_sum_squares(be, &plain, &r->squares));
    NEED_OK(hirl_op_cast(be, &plain, dtype, &half));
    if (is_blocked)
        NEED_OK(hirl_op_to_blocked(be, &half, &x));
    else
        x = hirl_tensor_retain(&half);
    NEED_OK(hirl_op_bn_stats(be, &x, 2, &mean, &var));
    NEED_OK(hirl_op_bn_apply(be, &x, 2, &mean, &var, 1e-5f, NULL, NULL, &x, true, &y));
    NEED_OK(hirl_op_bn_backward_sums(be, &x, &y, &x, 2, &mean, &var, 1e-5f, &s1, &s2));
    NEED_OK(hirl_op_bn_backward_apply(be, &x, &y, &x, 2, &mean, &var, 1e-5f, NULL, &mean, &var, &dx,
                                      NULL));
    // The sums of a bias are those of the same kernel.
    hirl_tensor_t rows = {0}, w = {0}, dw = {0};
    NEED_OK(hirl_tensor_reshape(&plain, hirl_shape_2(N * H * W, C), &rows));
    NEED_OK(hirl_op_linear_backward(be, &rows, NULL, NULL, false, NULL, NULL, &bias));
    memcpy(r->bias, hirl_tensor_f32(&bias), sizeof r->bias);
    memcpy(r->mean, hirl_tensor_f32(&mean), sizeof r->mean);
    memcpy(r->var, hirl_tensor_f32(&var), sizeof r->var);
    memcpy(r->sum, hirl_tensor_f32(&s1), sizeof r->sum);
    memcpy(r->sum_xhat, hirl_tensor_f32(&s2), sizeof r->sum_xhat);
    NEED_OK(hirl_op_to_plain(be, &y, HIRL_F32, &out));
    memcpy(r->y, hirl_tensor_f32(&out), sizeof r->y);
    hirl_tensor_reset(&out);
    NEED_OK(hirl_op_to_plain(be, &dx, HIRL_F32, &out));
    memcpy(r->dx, hirl_tensor_f32(&out), sizeof r->dx);
    hirl_tensor_t *const all[] = {&plain, &half, &x,   &y,    &mean, &var, &s1,
                                  &s2,    &dx,   &out, &bias, &rows, &w,   &dw};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) hirl_tensor_reset(all[i]);
    hirl_backend_destroy(&be);
}

static void test_threads(void) {
    results_t *one = NULL, *many = NULL;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &one));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &many));
    for (int form = 0; form < 4; form++) {
        const hirl_dtype_t dtype = form & 2 ? HIRL_BF16 : HIRL_F32;
        memset(one, 0, sizeof *one);
        run_all(1, form & 1, dtype, one);
        for (int n_threads = 2; n_threads <= 5; n_threads++) {
            memset(many, 0, sizeof *many);
            run_all(n_threads, form & 1, dtype, many);
            CHECK_BITS(many, one, sizeof *one);
        }
    }
    hirl_mem_free(one);
    hirl_mem_free(many);
}

TEST_MAIN {
    RUN(test_statistics);
    RUN(test_threads);
}
