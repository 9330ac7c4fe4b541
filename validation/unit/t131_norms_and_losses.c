// What the table of operations cannot show of norms, row operations and losses: few and many channels, groups, rows beyond one block and
// beyond registers; means far larger than the spread; arrays that begin anywhere, whose bits must not depend on it; negatives
// that share a node, over several tiles.
//
// Bounds. f32: 2e-5 of the largest magnitude, as in the table. bf16: 8e-3 of it, a unit of the last place: both round once.
// test: backends=cpu,cuda timeout=240
#include "hirl/backend.h"

#include "test.h"

static hirl_backend_t *be, *ref;

static const double f32_bound = 2e-5, bf16_bound = 8e-3;

static double bound_of(hirl_dtype_t dtype) { return dtype == HIRL_BF16 ? bf16_bound : f32_bound; }

// ------------------------------------------------------------------------------------ arrays

static float *drawn(int64_t n, uint64_t id, double center, double spread) {
    float *x = malloc((size_t)n * sizeof *x);
    NEED(x != NULL);
    test_fill_uniform(x, n, center - spread, center + spread, id);
    return x;
}

// `data`, or NaN without it, in storage of which the first `skip` elements are left out.
static hirl_tensor_t placed(hirl_backend_t *backend, const float *data, hirl_shape_t shape,
                            hirl_dtype_t dtype, int64_t skip) {
    const int64_t count = hirl_shape_count(&shape);
    hirl_tensor_t base = {0}, part = {0}, x = {0}, wide = {0};
    NEED_OK(hirl_backend_tensor(backend, hirl_shape_1(count + skip), dtype, &base));
    NEED_OK(hirl_tensor_rows(&base, skip, count, &part));
    NEED_OK(hirl_tensor_reshape(&part, shape, &x));
    hirl_tensor_reset(&base);
    hirl_tensor_reset(&part);
    if (!data) {
        NEED_OK(hirl_op_fill(backend, NAN, &x));
    } else if (dtype == HIRL_F32) {
        NEED_OK(hirl_backend_upload(backend, data, &x));
    } else {
        NEED_OK(hirl_backend_tensor(backend, shape, HIRL_F32, &wide));
        NEED_OK(hirl_backend_upload(backend, data, &wide));
        NEED_OK(hirl_op_to_plain(backend, &wide, dtype, &x));
        hirl_tensor_reset(&wide);
    }
    return x;
}

static hirl_tensor_t indices(hirl_backend_t *backend, const int32_t *data, hirl_shape_t shape) {
    hirl_tensor_t x = {0};
    NEED_OK(hirl_backend_tensor(backend, shape, HIRL_I32, &x));
    NEED_OK(hirl_backend_upload(backend, data, &x));
    return x;
}

// The elements as f32.
static float *copied(hirl_backend_t *backend, const hirl_tensor_t *x) {
    float *host = malloc((size_t)hirl_tensor_count(x) * sizeof *host);
    hirl_tensor_t plain = {0};
    NEED(host != NULL);
    NEED_OK(hirl_op_to_plain(backend, x, HIRL_F32, &plain));
    NEED_OK(hirl_backend_download(backend, &plain, host));
    hirl_tensor_reset(&plain);
    return host;
}

static void compare(const hirl_tensor_t *x, const hirl_tensor_t *y, double bound, const char *what,
                    const char *of) {
    const int64_t n = hirl_tensor_count(x);
    float *got = copied(be, x), *want = copied(ref, y);
    double worst = 0, scale = 1e-6;
    for (int64_t i = 0; i < n; i++) {
        const double d = fabs((double)got[i] - (double)want[i]);
        if (!(d <= worst)) worst = d; // NaN stays
        scale = fmax(scale, fabs((double)want[i]));
    }
    CHECK_MSG(worst <= bound * scale, "%s: %s differs from ref by %.2e of its largest, bound %.0e",
              of, what, worst / scale, bound);
    free(got);
    free(want);
}

static void check_same_bits(const hirl_tensor_t *x, const hirl_tensor_t *y, const char *what,
                            const char *of) {
    float *a = copied(be, x), *b = copied(be, y);
    CHECK_MSG(memcmp(a, b, (size_t)hirl_tensor_count(x) * sizeof *a) == 0,
              "%s: %s changes with the address", of, what);
    free(a);
    free(b);
}

// ------------------------------------------------------------------------------------ batch norm

typedef struct bn_case {
    int64_t n, h, w, c, n_groups;
    hirl_dtype_t dtype;
    bool has_affine, has_residual, has_relu, is_in_place;
} bn_case_t;

enum { BN_MEAN, BN_VAR, BN_Y, BN_SUM, BN_SUM_XHAT, BN_DX, BN_DRESIDUAL, BN_N };
static const char *const bn_names[] = {"mean", "var", "y", "sum", "sum xhat", "dx", "dresidual"};

static void bn_run(hirl_backend_t *backend, const bn_case_t *c, const float *x_data,
                   const float *dy_data, int64_t skip, hirl_tensor_t out[BN_N]) {
    const hirl_shape_t shape =
        c->h ? hirl_shape_4(c->n, c->h, c->w, c->c) : hirl_shape_2(c->n, c->c);
    const hirl_shape_t stats = hirl_shape_2(c->n_groups, c->c), channels = hirl_shape_1(c->c);
    const int64_t count = hirl_shape_count(&shape);
    float *gamma_data = drawn(c->c, 21, 1, 0.3), *beta_data = drawn(c->c, 22, 0, 0.3),
          *residual_data = drawn(count, 23, 0, 1);
    hirl_tensor_t x = placed(backend, x_data, shape, c->dtype, skip),
                  dy = placed(backend, dy_data, shape, c->dtype, skip),
                  residual = placed(backend, residual_data, shape, c->dtype, skip),
                  gamma = placed(backend, gamma_data, channels, HIRL_F32, skip),
                  beta = placed(backend, beta_data, channels, HIRL_F32, skip);
    hirl_tensor_t *g = c->has_affine ? &gamma : NULL, *b = c->has_affine ? &beta : NULL;
    hirl_tensor_t mean = {0}, var = {0}, d_mean = {0}, d_mean_xhat = {0};
    const hirl_tensor_t *y = c->has_relu ? &out[BN_Y] : NULL;
    const float share = (float)c->n_groups * (float)c->c / (float)count;
    for (int i = 0; i < BN_N; i++) out[i] = (hirl_tensor_t){0};
    NEED_OK(hirl_op_bn_stats(backend, &x, c->n_groups, &out[BN_MEAN], &out[BN_VAR]));
    // Not those, which are the backend's own: what follows is compared by itself.
    float *m = drawn(c->n_groups * c->c, 24, 0.3, 0.1),
          *v = drawn(c->n_groups * c->c, 25, 0.35, 0.1);
    mean = placed(backend, m, stats, HIRL_F32, skip);
    var = placed(backend, v, stats, HIRL_F32, skip);
    out[BN_Y] = placed(backend, NULL, shape, c->dtype, skip);
    NEED_OK(hirl_op_bn_apply(backend, &x, c->n_groups, &mean, &var, 1e-5f, g, b,
                             c->has_residual ? &residual : NULL, c->has_relu, &out[BN_Y]));
    NEED_OK(hirl_op_bn_backward_sums(backend, &dy, y, &x, c->n_groups, &mean, &var, 1e-5f,
                                     &out[BN_SUM], &out[BN_SUM_XHAT]));
    d_mean = placed(backend, NULL, stats, HIRL_F32, skip);
    d_mean_xhat = placed(backend, NULL, stats, HIRL_F32, skip);
    NEED_OK(hirl_op_axpby(backend, share, &out[BN_SUM], 0, &d_mean));
    NEED_OK(hirl_op_axpby(backend, share, &out[BN_SUM_XHAT], 0, &d_mean_xhat));
    if (c->has_residual) out[BN_DRESIDUAL] = placed(backend, NULL, shape, c->dtype, skip);
    out[BN_DX] =
        c->is_in_place ? hirl_tensor_retain(&dy) : placed(backend, NULL, shape, c->dtype, skip);
    NEED_OK(hirl_op_bn_backward_apply(backend, &dy, y, &x, c->n_groups, &mean, &var, 1e-5f, g,
                                      c->has_affine ? &d_mean : NULL,
                                      c->has_affine ? &d_mean_xhat : NULL, &out[BN_DX],
                                      c->has_residual ? &out[BN_DRESIDUAL] : NULL));
    hirl_tensor_t *const all[] = {&x,    &dy,  &residual, &gamma,      &beta,
                                  &mean, &var, &d_mean,   &d_mean_xhat};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) hirl_tensor_reset(all[i]);
    free(gamma_data);
    free(beta_data);
    free(residual_data);
    free(m);
    free(v);
}

static void check_bn(const bn_case_t *c) {
    char of[96];
    const int64_t count = c->n * (c->h ? c->h * c->w : 1) * c->c;
    float *x = drawn(count, 11, 0.3, 1), *dy = drawn(count, 12, 0, 1);
    hirl_tensor_t mine[BN_N], moved[BN_N], theirs[BN_N];
    snprintf(of, sizeof of, "batch norm [%d, %d, %d, %d], %d groups, %s", (int)c->n, (int)c->h,
             (int)c->w, (int)c->c, (int)c->n_groups, hirl_dtype_name(c->dtype));
    bn_run(be, c, x, dy, 0, mine);
    bn_run(be, c, x, dy, 1, moved);
    bn_run(ref, c, x, dy, 0, theirs);
    for (int i = 0; i < BN_N; i++) {
        if (!hirl_tensor_is_set(&mine[i])) continue;
        compare(&mine[i], &theirs[i], bound_of(mine[i].dtype), bn_names[i], of);
        check_same_bits(&mine[i], &moved[i], bn_names[i], of);
        hirl_tensor_reset(&mine[i]);
        hirl_tensor_reset(&moved[i]);
        hirl_tensor_reset(&theirs[i]);
    }
    free(x);
    free(dy);
}

static void test_batch_norm(void) {
    static const bn_case_t cases[] = {
        {2, 0, 0, 3, 1, HIRL_F32, true, false, false, false},
        {7, 0, 0, 5, 1, HIRL_F32, true, true, true, true},
        {4, 20, 41, 3, 2, HIRL_F32, true, false, true, false}, // 1640 rows a group: taken by four
        {3, 7, 9, 3, 1, HIRL_F32, false, true, false, false},  // 189 rows: one by one
        {4, 13, 25, 24, 1, HIRL_F32, true, true, true, true},
        {6, 9, 9, 64, 3, HIRL_F32, true, true, true, false},
        {1000, 0, 0, 100, 1, HIRL_F32, true, false, true, false},
        {40, 0, 0, 2048, 2, HIRL_F32, true, false, true, true},
        {3, 2, 2, 2052, 1, HIRL_F32, true, true, false, false}, // 513 packs: unequal tiles
        {64, 3, 3, 132, 64, HIRL_F32, false, false, true, false},
        {2, 150, 151, 4, 1, HIRL_F32, true, false, false, false},
        {4, 20, 41, 3, 2, HIRL_BF16, true, false, true, false},
        {4, 13, 25, 24, 1, HIRL_BF16, true, true, true, true},
        {6, 9, 9, 64, 3, HIRL_BF16, true, true, true, false},
        {50, 4, 5, 100, 1, HIRL_BF16, false, false, true, false}, // two rows are twenty-five packs
        {40, 0, 0, 2048, 2, HIRL_BF16, true, false, true, true},
        {5, 3, 7, 20, 5, HIRL_BF16, true, true, false, false}, // an odd number of rows
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_bn(&cases[i]);
}

/// Against two passes in double over what the floats are. Sums of up to 256 differences in f32 carry 1e-6 or so.
static void check_moments(const char *of, int64_t rows, int64_t c, const float *x, double bound) {
    hirl_tensor_t t = placed(be, x, hirl_shape_2(rows, c), HIRL_F32, 0), mean = {0}, var = {0};
    NEED_OK(hirl_op_bn_stats(be, &t, 1, &mean, &var));
    float *m = copied(be, &mean), *v = copied(be, &var);
    for (int64_t k = 0; k < c; k++) {
        double want = 0, square = 0;
        for (int64_t i = 0; i < rows; i++) want += (double)x[i * c + k];
        want /= (double)rows;
        for (int64_t i = 0; i < rows; i++)
            square += ((double)x[i * c + k] - want) * ((double)x[i * c + k] - want);
        square /= (double)rows;
        CHECK_MSG(fabs((double)m[k] - want) <= 2e-7 * (fabs(want) + sqrt(square)),
                  "%s: channel %d: mean %.9g, want %.9g", of, (int)k, (double)m[k], want);
        CHECK_MSG(fabs((double)v[k] - square) <= bound * square + 1e-13 * want * want,
                  "%s: channel %d: variance %.9g, want %.9g", of, (int)k, (double)v[k], square);
    }
    hirl_tensor_reset(&t);
    hirl_tensor_reset(&mean);
    hirl_tensor_reset(&var);
    free(m);
    free(v);
}

static void test_large_means(void) {
    enum { ROWS = 7000, C = 8 };
    static float x[ROWS * C];
    hirl_rng_t rng = test_rng(5);
    for (int i = 0; i < ROWS * C; i++) x[i] = (float)(1e5 * (i % C) + 0.3 * hirl_rng_normal(&rng));
    check_moments("means of up to 7e5", ROWS, C, x, 1e-5);
    for (int k = 0; k < C; k++) x[k] = (float)(-1e3 * k); // the first row lies far off
    check_moments("the first row far off", ROWS, C, x, 1e-5);
    for (int i = 0; i < ROWS * C; i++) x[i] = i / C == 3000 + i % C ? 50.0f : 0.1f * (float)(i % C);
    check_moments("one row that differs", ROWS, C, x, 1e-5);
    for (int i = 0; i < ROWS * C; i++) x[i] = 0.7f * (float)(i % C);
    check_moments("constant channels", ROWS, C, x, 1e-5);
}

// ------------------------------------------------------------------------------------ layer norm

enum { LN_Y, LN_MEAN, LN_RSTD, LN_DX, LN_DGAMMA, LN_DBETA, LN_N };
static const char *const ln_names[] = {"y", "mean", "rstd", "dx", "dgamma", "dbeta"};

static void ln_run(hirl_backend_t *backend, int64_t rows, int64_t columns, hirl_dtype_t dtype,
                   double center, int64_t skip, hirl_tensor_t out[LN_N]) {
    const hirl_shape_t shape = hirl_shape_2(rows, columns), one = hirl_shape_1(columns);
    float *x_data = drawn(rows * columns, 31, center, 1),
          *dy_data = drawn(rows * columns, 32, 0, 1), *gamma_data = drawn(columns, 33, 1, 0.3),
          *beta_data = drawn(columns, 34, 0, 0.3);
    hirl_tensor_t x = placed(backend, x_data, shape, dtype, skip),
                  dy = placed(backend, dy_data, shape, dtype, skip),
                  gamma = placed(backend, gamma_data, one, HIRL_F32, skip),
                  beta = placed(backend, beta_data, one, HIRL_F32, skip);
    out[LN_Y] = placed(backend, NULL, shape, dtype, skip);
    out[LN_DX] = placed(backend, NULL, shape, dtype, skip);
    out[LN_MEAN] = placed(backend, NULL, hirl_shape_1(rows), HIRL_F32, skip);
    out[LN_RSTD] = placed(backend, NULL, hirl_shape_1(rows), HIRL_F32, skip);
    out[LN_DGAMMA] = placed(backend, beta_data, one, HIRL_F32, skip);
    out[LN_DBETA] = placed(backend, gamma_data, one, HIRL_F32, skip);
    NEED_OK(hirl_op_layer_norm(backend, &x, &gamma, &beta, 1e-6f, &out[LN_Y], &out[LN_MEAN],
                               &out[LN_RSTD]));
    NEED_OK(hirl_op_layer_norm_backward(backend, &dy, &x, &gamma, &out[LN_MEAN], &out[LN_RSTD],
                                        rows % 2 == 0, &out[LN_DX], &out[LN_DGAMMA],
                                        &out[LN_DBETA]));
    hirl_tensor_t *const all[] = {&x, &dy, &gamma, &beta};
    for (int i = 0; i < 4; i++) hirl_tensor_reset(all[i]);
    free(x_data);
    free(dy_data);
    free(gamma_data);
    free(beta_data);
}

static void test_layer_norm(void) {
    static const struct {
        int64_t rows, columns;
        hirl_dtype_t dtype;
        double center;
    } cases[] = {
        {2, 5, HIRL_F32, 0.5},     {9, 33, HIRL_F32, 0.5},    {300, 64, HIRL_F32, 0.5},
        {11, 100, HIRL_F32, 100},  {8, 257, HIRL_F32, 0.5},   {10, 384, HIRL_F32, 0.5},
        {7, 1023, HIRL_F32, 0.5},  {6, 1024, HIRL_F32, 0.5},  {3, 2051, HIRL_F32, 0.5},
        {4, 8192, HIRL_F32, 1000}, {3, 8196, HIRL_F32, 0.5},  {2, 9001, HIRL_F32, 0.5},
        {9, 33, HIRL_BF16, 0.5},   {300, 64, HIRL_BF16, 0.5}, {10, 768, HIRL_BF16, 0.5},
        {5, 1028, HIRL_BF16, 0.5}, {3, 4096, HIRL_BF16, 0.5}, {2, 8200, HIRL_BF16, 0.5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char of[96];
        hirl_tensor_t mine[LN_N] = {{0}}, moved[LN_N] = {{0}}, theirs[LN_N] = {{0}};
        const hirl_dtype_t dtype = cases[i].dtype;
        snprintf(of, sizeof of, "layer norm [%d, %d] %s", (int)cases[i].rows, (int)cases[i].columns,
                 hirl_dtype_name(dtype));
        ln_run(be, cases[i].rows, cases[i].columns, dtype, cases[i].center, 0, mine);
        ln_run(be, cases[i].rows, cases[i].columns, dtype, cases[i].center, 1, moved);
        ln_run(ref, cases[i].rows, cases[i].columns, dtype, cases[i].center, 0, theirs);
        for (int k = 0; k < LN_N; k++) {
            // Where the mean is a thousand its last place is 3e-5 deviations. The backward takes it rounded, and so do the
            // differences that the cpu backend forms; ref and a device do not.
            const bool is_rounded = k >= LN_DX || strcmp(test_backend(), "cpu") == 0;
            const double rounding = is_rounded ? 2e-7 * cases[i].center : 0;
            compare(&mine[k], &theirs[k], bound_of(mine[k].dtype) + rounding, ln_names[k], of);
            check_same_bits(&mine[k], &moved[k], ln_names[k], of);
            hirl_tensor_reset(&mine[k]);
            hirl_tensor_reset(&moved[k]);
            hirl_tensor_reset(&theirs[k]);
        }
    }
}

// ------------------------------------------------------------------------------------ rows

enum { ROW_L2, ROW_NORM, ROW_DL2, ROW_DOT, ROW_SCALE, ROW_SOFTMAX, ROW_DSOFTMAX, ROW_N };
static const char *const row_names[] = {"l2_normalize", "norm",    "its backward", "row_dot",
                                        "row_scale",    "softmax", "its backward"};

static void row_run(hirl_backend_t *backend, int64_t rows, int64_t columns, int64_t skip,
                    hirl_tensor_t out[ROW_N]) {
    const hirl_shape_t shape = hirl_shape_2(rows, columns), one = hirl_shape_1(rows);
    float *x_data = drawn(rows * columns, 41, 0.1, 1), *dy_data = drawn(rows * columns, 42, 0, 1);
    for (int64_t i = 0; i < columns; i++) x_data[i] *= 1e-15f; // a row whose norm is clamped
    hirl_tensor_t x = placed(backend, x_data, shape, HIRL_F32, skip),
                  dy = placed(backend, dy_data, shape, HIRL_F32, skip);
    for (int i = 0; i < ROW_N; i++)
        out[i] = placed(backend, i == ROW_SCALE ? dy_data : NULL,
                        i == ROW_NORM || i == ROW_DOT ? one : shape, HIRL_F32, skip);
    NEED_OK(hirl_op_l2_normalize(backend, &x, &out[ROW_L2], &out[ROW_NORM]));
    NEED_OK(
        hirl_op_l2_normalize_backward(backend, &out[ROW_L2], &out[ROW_NORM], &dy, &out[ROW_DL2]));
    NEED_OK(hirl_op_row_dot(backend, &x, &dy, &out[ROW_DOT]));
    NEED_OK(hirl_op_row_scale(backend, &out[ROW_NORM], &x, rows % 2 == 0, &out[ROW_SCALE]));
    NEED_OK(hirl_op_softmax(backend, &x, 7, &out[ROW_SOFTMAX]));
    NEED_OK(hirl_op_softmax_backward(backend, &out[ROW_SOFTMAX], &dy, 7, &out[ROW_DSOFTMAX]));
    hirl_tensor_reset(&x);
    hirl_tensor_reset(&dy);
    free(x_data);
    free(dy_data);
}

static void test_rows(void) {
    static const int64_t cases[][2] = {{1, 1},    {5, 3},    {300, 128}, {9, 255},  {8, 256},
                                       {7, 1000}, {4, 1027}, {3, 8192},  {2, 8195}, {3, 9004}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char of[64];
        hirl_tensor_t mine[ROW_N], moved[ROW_N], theirs[ROW_N];
        snprintf(of, sizeof of, "[%d, %d]", (int)cases[i][0], (int)cases[i][1]);
        row_run(be, cases[i][0], cases[i][1], 0, mine);
        row_run(be, cases[i][0], cases[i][1], 1, moved);
        row_run(ref, cases[i][0], cases[i][1], 0, theirs);
        for (int k = 0; k < ROW_N; k++) {
            compare(&mine[k], &theirs[k], f32_bound, row_names[k], of);
            check_same_bits(&mine[k], &moved[k], row_names[k], of);
            hirl_tensor_reset(&mine[k]);
            hirl_tensor_reset(&moved[k]);
            hirl_tensor_reset(&theirs[k]);
        }
    }
}

static void test_scaled_bf16(void) {
    static const int64_t cases[][2] = {{5, 3}, {300, 128}, {7, 1004}};
    for (size_t i = 0; i < 3; i++)
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            const hirl_shape_t shape = hirl_shape_2(cases[i][0], cases[i][1]);
            float *x_data = drawn(hirl_shape_count(&shape), 43, 0, 1),
                  *s_data = drawn(cases[i][0], 44, 0, 2);
            hirl_tensor_t y[2];
            for (int k = 0; k < 2; k++) {
                hirl_backend_t *backend = k ? ref : be;
                hirl_tensor_t x = placed(backend, x_data, shape, HIRL_BF16, 0),
                              s = placed(backend, s_data, hirl_shape_1(cases[i][0]), HIRL_F32, 0);
                y[k] = placed(backend, accumulate ? x_data : NULL, shape, HIRL_BF16, 0);
                NEED_OK(hirl_op_row_scale(backend, &s, &x, accumulate, &y[k]));
                hirl_tensor_reset(&x);
                hirl_tensor_reset(&s);
            }
            compare(&y[0], &y[1], bf16_bound, "row_scale", "bf16");
            hirl_tensor_reset(&y[0]);
            hirl_tensor_reset(&y[1]);
            free(x_data);
            free(s_data);
        }
}

// ------------------------------------------------------------------------------------ cross entropy

enum { CE_LOSS, CE_LSE, CE_CORRECT, CE_DX, CE_N };
static const char *const ce_names[] = {"loss", "lse", "correct", "its backward"};

static void ce_run(hirl_backend_t *backend, int64_t rows, int64_t k, float scale, int64_t skip,
                   hirl_tensor_t out[CE_N]) {
    const hirl_shape_t shape = hirl_shape_2(rows, k);
    float *x_data = drawn(rows * k, 51, 0, 1), slope = 3;
    int32_t *t_data = malloc((size_t)rows * sizeof *t_data);
    hirl_rng_t rng = test_rng(52);
    NEED(t_data != NULL);
    for (int64_t r = 0; r < rows; r++) {
        t_data[r] = (int32_t)hirl_rng_below(&rng, k);
        if (r % 3 != 2) x_data[r * k + t_data[r]] = 2;              // right
        if (r % 3 == 1) x_data[r * k + (t_data[r] + 1) % k] = 2;    // or a tie, and wrong
        if (k > 4) x_data[r * k + (t_data[r] + 3) % k] = -INFINITY; // a column that was masked
    }
    hirl_tensor_t x = placed(backend, x_data, shape, HIRL_F32, skip),
                  t = indices(backend, t_data, hirl_shape_1(rows)),
                  dloss = placed(backend, &slope, hirl_shape_1(1), HIRL_F32, 0);
    for (int i = 0; i < CE_DX; i++) out[i] = (hirl_tensor_t){0};
    out[CE_DX] = placed(backend, NULL, shape, HIRL_F32, skip);
    NEED_OK(hirl_op_cross_entropy(backend, &x, scale, &t, &out[CE_LOSS], &out[CE_LSE],
                                  &out[CE_CORRECT]));
    NEED_OK(
        hirl_op_cross_entropy_backward(backend, &x, scale, &t, &out[CE_LSE], &dloss, &out[CE_DX]));
    hirl_tensor_reset(&x);
    hirl_tensor_reset(&t);
    hirl_tensor_reset(&dloss);
    free(x_data);
    free(t_data);
}

static void test_cross_entropy(void) {
    static const struct {
        int64_t rows, k;
        float scale;
    } cases[] = {{1, 1, 1},    {7, 3, -2},    {300, 11, 5},  {1000, 2, 1}, {9, 1000, 5},
                 {8, 1024, 5}, {5, 1025, 14}, {3, 8192, 14}, {4, 8196, 5}, {3, 65537, 5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char of[64];
        hirl_tensor_t mine[CE_N], moved[CE_N], theirs[CE_N];
        snprintf(of, sizeof of, "cross entropy [%d, %d]", (int)cases[i].rows, (int)cases[i].k);
        ce_run(be, cases[i].rows, cases[i].k, cases[i].scale, 0, mine);
        ce_run(be, cases[i].rows, cases[i].k, cases[i].scale, 1, moved);
        ce_run(ref, cases[i].rows, cases[i].k, cases[i].scale, 0, theirs);
        for (int k = 0; k < CE_N; k++) {
            compare(&mine[k], &theirs[k], k == CE_CORRECT ? 0 : f32_bound, ce_names[k], of);
            check_same_bits(&mine[k], &moved[k], ce_names[k], of);
            hirl_tensor_reset(&mine[k]);
            hirl_tensor_reset(&moved[k]);
            hirl_tensor_reset(&theirs[k]);
        }
    }
}

// ------------------------------------------------------------------------------------ paths

typedef struct path_case {
    int n_levels;
    int64_t b, m, k[HIRL_PATH_MAX_LEVELS];
    double center, spread; // of the similarities
} path_case_t;

enum { PATH_LOSS, PATH_TERMS, PATH_DU, PATH_N = PATH_DU + HIRL_PATH_MAX_LEVELS };

static void path_run(hirl_backend_t *backend, const path_case_t *c, const int32_t *positive_data,
                     const int32_t *negative_data, hirl_tensor_t out[PATH_N]) {
    hirl_tensor_t u[HIRL_PATH_MAX_LEVELS];
    const hirl_tensor_t *views[HIRL_PATH_MAX_LEVELS];
    hirl_tensor_t *slopes[HIRL_PATH_MAX_LEVELS];
    const float slope = 3;
    hirl_tensor_t positive = indices(backend, positive_data, hirl_shape_2(c->b, c->n_levels)),
                  negative = indices(backend, negative_data, hirl_shape_3(c->b, c->m, c->n_levels)),
                  dloss = placed(backend, &slope, hirl_shape_1(1), HIRL_F32, 0);
    out[PATH_LOSS] = out[PATH_TERMS] = (hirl_tensor_t){0};
    for (int l = 0; l < c->n_levels; l++) {
        const hirl_shape_t shape = hirl_shape_2(c->b, c->k[l]);
        float *data = drawn(c->b * c->k[l], 60 + (uint64_t)l, c->center, c->spread);
        u[l] = placed(backend, data, shape, HIRL_F32, 0);
        out[PATH_DU + l] = placed(backend, NULL, shape, HIRL_F32, l % 2);
        views[l] = &u[l];
        slopes[l] = &out[PATH_DU + l];
        free(data);
    }
    NEED_OK(hirl_op_path_loss(backend, c->n_levels, views, &positive, &negative, &out[PATH_LOSS],
                              &out[PATH_TERMS]));
    NEED_OK(hirl_op_path_loss_backward(backend, c->n_levels, views, &positive, &negative, &dloss,
                                       slopes));
    for (int l = 0; l < c->n_levels; l++) hirl_tensor_reset(&u[l]);
    hirl_tensor_reset(&positive);
    hirl_tensor_reset(&negative);
    hirl_tensor_reset(&dloss);
}

static void check_paths(const path_case_t *c) {
    char of[64];
    hirl_tensor_t mine[PATH_N], theirs[PATH_N];
    hirl_rng_t rng = test_rng(70);
    int32_t *positive = malloc((size_t)(c->b * c->n_levels) * sizeof *positive),
            *negative = malloc((size_t)(c->b * c->m * c->n_levels) * sizeof *negative);
    NEED(positive != NULL && negative != NULL);
    for (int64_t n = 0; n < c->b; n++)
        for (int l = 0; l < c->n_levels; l++) {
            positive[n * c->n_levels + l] = (int32_t)hirl_rng_below(&rng, c->k[l]);
            // The first sample has no negative that counts; a few of the others' are their positive.
            for (int64_t j = 0; j < c->m; j++)
                negative[(n * c->m + j) * c->n_levels + l] =
                    n == 0 || j % 17 == 5 ? positive[n * c->n_levels + l]
                                          : (int32_t)hirl_rng_below(&rng, c->k[l]);
        }
    snprintf(of, sizeof of, "path loss, %d levels, [%d, %d]", c->n_levels, (int)c->b, (int)c->m);
    path_run(be, c, positive, negative, mine);
    path_run(ref, c, positive, negative, theirs);
    for (int i = 0; i < PATH_DU + c->n_levels; i++) {
        compare(&mine[i], &theirs[i], f32_bound,
                i == PATH_LOSS    ? "loss"
                : i == PATH_TERMS ? "terms"
                                  : "its backward",
                of);
        hirl_tensor_reset(&mine[i]);
        hirl_tensor_reset(&theirs[i]);
    }
    free(positive);
    free(negative);
}

static void test_paths(void) {
    static const path_case_t cases[] = {
        {1, 3, 1, {5}, 0, 0.9},
        {3, 4, 300, {300, 30, 3}, 0, 0.9},
        {3, 3, 1000, {3000, 1000, 300}, 0, 0.9},
        {2, 2, 2500, {1, 7}, 0.5, 0.4}, // three tiles, and every node is shared
        {8, 2, 70, {9, 8, 7, 6, 5, 4, 3, 2}, 0.9, 0.1},
        {3, 5, 64, {40, 20, 10}, 0.99999, 1e-5}, // negatives whose probability is almost 1
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_paths(&cases[i]);
}

// ------------------------------------------------------------------------------------ bad indices

/// Told by the operation, or by the next wait; and the operations after it are well again.
static void test_bad_indices(void) {
    enum { N = 40, K = 33 };
    float *x_data = drawn(N * K, 80, 0, 1);
    int32_t t_data[N] = {0};
    hirl_tensor_t x = placed(be, x_data, hirl_shape_2(N, K), HIRL_F32, 0), loss = {0}, lse = {0};
    const hirl_tensor_t *u = &x;
    for (int bad = 0; bad < 4; bad++) {
        t_data[17] = bad == 0 ? K : bad == 1 ? -1 : bad == 2 ? INT32_MAX : 3;
        hirl_tensor_t t = indices(be, t_data, hirl_shape_1(N)),
                      positive = indices(be, t_data, hirl_shape_2(N, 1)),
                      negative = indices(be, t_data, hirl_shape_3(1, N, 1)), first = {0};
        hirl_status_t status = hirl_op_cross_entropy(be, &x, 5, &t, &loss, &lse, NULL);
        if (status == HIRL_OK) status = hirl_backend_synchronize(be);
        CHECK_MSG((status == HIRL_OK) == (bad == 3), "target %d: status %d", (int)t_data[17],
                  (int)status);
        NEED_OK(hirl_tensor_reshape(&negative, hirl_shape_3(N, 1, 1), &first));
        status = hirl_op_path_loss(be, 1, &u, &positive, &first, &loss, NULL);
        if (status == HIRL_OK) status = hirl_backend_synchronize(be);
        CHECK_MSG((status == HIRL_OK) == (bad == 3), "path %d: status %d", (int)t_data[17],
                  (int)status);
        hirl_tensor_t *const all[] = {&t, &positive, &negative, &first, &loss, &lse};
        for (int i = 0; i < 6; i++) hirl_tensor_reset(all[i]);
    }
    hirl_tensor_reset(&x);
    free(x_data);
}

TEST_MAIN {
    NEED_OK(hirl_backend_create(test_backend(), 2, &be));
    NEED_OK(hirl_backend_create("ref", 1, &ref));
    RUN(test_batch_norm);
    RUN(test_large_means);
    RUN(test_layer_norm);
    RUN(test_rows);
    RUN(test_scaled_bf16);
    RUN(test_cross_entropy);
    RUN(test_paths);
    RUN(test_bad_indices);
    CHECK_EQ_I(hirl_backend_memory_used(be), 0);
    CHECK_EQ_I(hirl_backend_memory_used(ref), 0);
    hirl_backend_destroy(&be);
    hirl_backend_destroy(&ref);
}
