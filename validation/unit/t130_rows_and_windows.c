// What the table of operations cannot show: rows added back in order over many tiles, hot rows and bad indices; maxima among
// equals and NaNs; column sums of tall matrices; copies and updates that must not depend on how an array is aligned.
// test: backends=cpu,cuda timeout=120
#include "hirl/backend.h"

#include "test.h"

static hirl_backend_t *be, *ref;

// `count` elements of host data that begin `skip` elements into a storage, as views of slabs do.
static hirl_tensor_t placed(hirl_backend_t *backend, const float *data, hirl_shape_t shape,
                            int64_t skip) {
    const int64_t count = hirl_shape_count(&shape);
    hirl_tensor_t base = {0}, part = {0}, x = {0};
    NEED_OK(hirl_backend_tensor(backend, hirl_shape_1(count + skip), HIRL_F32, &base));
    NEED_OK(hirl_tensor_rows(&base, skip, count, &part));
    NEED_OK(hirl_tensor_reshape(&part, shape, &x));
    hirl_tensor_reset(&base);
    hirl_tensor_reset(&part);
    if (data)
        NEED_OK(hirl_backend_upload(backend, data, &x));
    else
        NEED_OK(hirl_op_fill(backend, NAN, &x));
    return x;
}

static hirl_tensor_t indices(hirl_backend_t *backend, const int32_t *data, int64_t n) {
    hirl_tensor_t x = {0};
    NEED_OK(hirl_backend_tensor(backend, hirl_shape_1(n), HIRL_I32, &x));
    NEED_OK(hirl_backend_upload(backend, data, &x));
    return x;
}

static float *drawn(int64_t n, uint64_t id) {
    float *x = malloc((size_t)n * sizeof *x);
    NEED(x != NULL);
    test_fill_uniform(x, n, -1, 1, id);
    return x;
}

// The elements, as f32 whatever the tensor's dtype; then the tensor is given back.
static float *taken(hirl_backend_t *backend, hirl_tensor_t *x) {
    const int64_t count = hirl_tensor_count(x);
    float *host = malloc((size_t)count * sizeof *host);
    hirl_tensor_t plain = {0};
    NEED(host != NULL);
    NEED_OK(hirl_op_to_plain(backend, x, HIRL_F32, &plain));
    NEED_OK(hirl_backend_download(backend, &plain, host));
    hirl_tensor_reset(&plain);
    hirl_tensor_reset(x);
    return host;
}

// ------------------------------------------------------------------------------------ rows

typedef struct row_case {
    int64_t n_rows, n_columns, n, hot; // hot: every index is below it
} row_case_t;

// Bit for bit: the reference adds in f32, one row after another.
static void check_rows(const row_case_t *c, int64_t skip, bool accumulate) {
    const hirl_shape_t wide = hirl_shape_2(c->n_rows, c->n_columns),
                       tall = hirl_shape_2(c->n, c->n_columns);
    float *start = drawn(c->n_rows * c->n_columns, 1), *dy = drawn(c->n * c->n_columns, 2), *out[2],
          *picked[2];
    int32_t *index = malloc((size_t)c->n * sizeof *index);
    hirl_rng_t rng = test_rng(3);
    for (int64_t i = 0; i < c->n; i++) index[i] = (int32_t)hirl_rng_below(&rng, c->hot);
    for (int k = 0; k < 2; k++) {
        hirl_backend_t *backend = k ? ref : be;
        hirl_tensor_t x = placed(backend, start, wide, skip),
                      d = placed(backend, dy, tall, 2 * skip),
                      y = placed(backend, NULL, tall, skip), at = indices(backend, index, c->n);
        NEED_OK(hirl_op_gather_rows(backend, &x, &at, &y));
        picked[k] = taken(backend, &y);
        NEED_OK(hirl_op_gather_rows_backward(backend, &d, &at, accumulate, &x));
        out[k] = taken(backend, &x);
        hirl_tensor_reset(&d);
        hirl_tensor_reset(&at);
    }
    CHECK_BITS(picked[0], picked[1], (size_t)(c->n * c->n_columns) * sizeof(float));
    if (!CHECK_BITS(out[0], out[1], (size_t)(c->n_rows * c->n_columns) * sizeof(float)))
        printf("rows %lld, columns %lld, n %lld, skip %lld, accumulate %d\n", (long long)c->n_rows,
               (long long)c->n_columns, (long long)c->n, (long long)skip, accumulate);
    for (int k = 0; k < 2; k++) free(out[k]), free(picked[k]);
    free(start), free(dy), free(index);
}

static void test_rows(void) {
    static const row_case_t cases[] = {
        {1, 1, 1, 1},      {5, 6, 9, 5},          {7, 3, 100, 7},  {300, 8, 5000, 300},
        {50, 4, 2048, 50}, {50, 4, 2049, 50},     {1, 5, 3000, 1}, {3000, 4, 9000, 3000},
        {64, 128, 64, 1},  {70000, 2, 40, 70000}, {3, 1100, 7, 3}, {2000, 12, 5000, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int skip = 0; skip < 2; skip++)
            for (int accumulate = 0; accumulate < 2; accumulate++)
                check_rows(&cases[i], skip, accumulate);
}

// The rows of good indices arrive all the same; those of bad ones are zero, or add nothing.
static void test_bad_rows(void) {
    if (strcmp(test_backend(), "cuda") != 0) return; // others refuse before they begin
    enum { ROWS = 3, COLUMNS = 4, N = 5 };
    const int32_t bad[N] = {1, -1, 2, 7, 2};
    float *x_host = drawn(ROWS * COLUMNS, 5), *dy_host = drawn(N * COLUMNS, 6);
    float gathered[N * COLUMNS] = {0}, sum[ROWS * COLUMNS] = {0}, got[N * COLUMNS];
    for (int i = 0; i < N * COLUMNS; i++) {
        const int32_t row = bad[i / COLUMNS];
        if (row < 0 || row >= ROWS) continue;
        gathered[i] = x_host[row * COLUMNS + i % COLUMNS];
        sum[row * COLUMNS + i % COLUMNS] += dy_host[i];
    }
    hirl_tensor_t x = placed(be, x_host, hirl_shape_2(ROWS, COLUMNS), 0), y = {0},
                  dy = placed(be, dy_host, hirl_shape_2(N, COLUMNS), 0), at = indices(be, bad, N);
    NEED_OK(hirl_op_gather_rows(be, &x, &at, &y));
    CHECK_FAILS(hirl_backend_synchronize(be), HIRL_ERR_ARG, "want 0..2");
    CHECK_OK(hirl_backend_download(be, &y, got));
    CHECK_BITS(got, gathered, sizeof got);
    NEED_OK(hirl_op_gather_rows_backward(be, &dy, &at, false, &x));
    CHECK_FAILS(hirl_backend_synchronize(be), HIRL_ERR_ARG, "gather_rows_backward: element");
    CHECK_OK(hirl_backend_download(be, &x, got));
    CHECK_BITS(got, sum, sizeof sum);
    hirl_tensor_t *const all[] = {&x, &y, &dy, &at};
    for (int i = 0; i < 4; i++) hirl_tensor_reset(all[i]);
    free(x_host), free(dy_host);
}

static void test_columns(void) {
    static const int64_t widths[][2] = {{3, 5}, {4, 8}, {128, 20}, {1, 4}};
    enum { ROWS = 67 };
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        const int64_t a = widths[i][0], b = widths[i][1];
        for (int skip = 0; skip < 2; skip++) {
            float *first = drawn(ROWS * a, 7), *second = drawn(ROWS * b, 8), *out;
            hirl_tensor_t x1 = placed(be, first, hirl_shape_2(ROWS, a), skip),
                          x2 = placed(be, second, hirl_shape_2(ROWS, b), 0), y = {0},
                          only = placed(be, NULL, hirl_shape_2(ROWS, b), skip), part = {0};
            NEED_OK(hirl_op_concat_columns(be, &x1, &x2, &y));
            NEED_OK(hirl_op_split_columns(be, &y, a, NULL, &only));
            NEED_OK(hirl_op_split_columns(be, &y, a, &part, NULL));
            CHECK_BITS(out = taken(be, &only), second, (size_t)(ROWS * b) * sizeof(float));
            free(out);
            CHECK_BITS(out = taken(be, &part), first, (size_t)(ROWS * a) * sizeof(float));
            free(out);
            out = taken(be, &y);
            for (int64_t r = 0; r < ROWS; r++) {
                CHECK_BITS(out + r * (a + b), first + r * a, (size_t)a * sizeof(float));
                CHECK_BITS(out + r * (a + b) + a, second + r * b, (size_t)b * sizeof(float));
            }
            hirl_tensor_reset(&x1);
            hirl_tensor_reset(&x2);
            free(out), free(first), free(second);
        }
    }
}

// ------------------------------------------------------------------------------------ alignment

enum { SLAB = 12007, N_STATE = 4 };

// Updates and elementwise operations on slabs that begin `skip` floats into their storage.
static void run_slabs(const float *const *start, int64_t skip, float **out, double *sum) {
    hirl_tensor_t t[N_STATE], half = {0}, y = {0};
    for (int i = 0; i < N_STATE; i++) t[i] = placed(be, start[i], hirl_shape_1(SLAB), skip);
    // A segment that no pack of four begins, and one that does.
    const hirl_segment_t segment[] = {{0, 9002, 0, 0.01f, true}, {9004, 3001, 1, 0, true}};
    hirl_segments_t *segments = NULL;
    hirl_update_t update = {.lr = 0.1f,
                            .grad_scale = 0.5f,
                            .momentum = 0.9f,
                            .trust = 0.02f,
                            .beta1 = 0.9f,
                            .beta2 = 0.999f,
                            .eps = 1e-8f,
                            .step = 3,
                            .is_nesterov = true};
    NEED_OK(hirl_segments_create(be, segment, 2, &segments));
    NEED_OK(hirl_op_mul(be, &t[3], &t[3], &t[3])); // second moments are not negative
    for (int rule = HIRL_RULE_SGD; rule <= HIRL_RULE_LARS_JOINT; rule++) {
        update.rule = (hirl_rule_t)rule;
        NEED_OK(hirl_op_update(be, &update, segments, &t[0], &t[1], &t[3], &t[2]));
    }
    NEED_OK(hirl_op_sum_squares_of(be, 1, (const hirl_segments_t *[]){segments},
                                   (const hirl_tensor_t *[]){&t[1]}, &sum[1]));
    hirl_segments_destroy(&segments);
    NEED_OK(hirl_op_ema(be, 0.99f, &t[2], &t[1]));
    NEED_OK(hirl_op_axpby(be, 0.5f, &t[0], -2, &t[3]));
    NEED_OK(hirl_op_sum_squares(be, &t[2], sum));
    NEED_OK(hirl_op_cast(be, &t[0], HIRL_BF16, &half));
    NEED_OK(hirl_op_act(be, HIRL_ACT_GELU, &half, &y));
    NEED_OK(hirl_op_axpby(be, 1, &y, 1, &t[0])); // bf16 onto f32
    hirl_tensor_reset(&half);
    hirl_tensor_reset(&y);
    for (int i = 0; i < N_STATE; i++) out[i] = taken(be, &t[i]);
}

static void test_alignment(void) {
    float *start[N_STATE], *aligned[N_STATE], *shifted[N_STATE];
    double sums[2], shifted_sums[2], want = 0;
    for (int i = 0; i < N_STATE; i++) start[i] = drawn(SLAB, 20 + (uint64_t)i);
    run_slabs((const float *const *)start, 0, aligned, sums);
    for (int64_t i = 0; i < SLAB; i++) want += (double)aligned[2][i] * (double)aligned[2][i];
    CHECK_CLOSE(sums[0], want, 1e-13, 0); // sums in double of 12007 terms
    for (int64_t skip = 1; skip < 4; skip++) {
        run_slabs((const float *const *)start, skip, shifted, shifted_sums);
        CHECK_BITS(shifted_sums, sums, sizeof sums);
        for (int i = 0; i < N_STATE; i++) {
            CHECK_BITS(shifted[i], aligned[i], SLAB * sizeof(float));
            free(shifted[i]);
        }
    }
    for (int i = 0; i < N_STATE; i++) free(start[i]), free(aligned[i]);
}

// ------------------------------------------------------------------------------------ sums

// Bias gradients: columns of tall, narrow and wide matrices, in f32 and bf16, twice onto the same sums.
static void test_column_sums(void) {
    static const int64_t shapes[][2] = {{1, 1},     {5, 3},     {1000, 8},   {4097, 3},
                                        {30000, 4}, {3000, 64}, {333, 1000}, {700, 24}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int64_t n = shapes[i][0], c = shapes[i][1];
        for (int is_bf16 = 0; is_bf16 < 2; is_bf16++) {
            float *x = drawn(n * c, 30), *got;
            hirl_tensor_t dy = placed(be, x, hirl_shape_2(n, c), 0), half = {0}, sums = {0};
            if (is_bf16) {
                NEED_OK(hirl_op_cast(be, &dy, HIRL_BF16, &half));
                hirl_tensor_reset(&dy);
                dy = half;
                half = hirl_tensor_retain(&dy);
                free(x);
                x = taken(be, &half);
            }
            for (int turn = 0; turn < 2; turn++)
                NEED_OK(hirl_op_linear_backward(be, &dy, NULL, NULL, turn, NULL, NULL, &sums));
            got = taken(be, &sums);
            double worst = 0;
            for (int64_t k = 0; k < c; k++) {
                double want = 0;
                for (int64_t r = 0; r < n; r++) want += 2.0 * (double)x[r * c + k];
                worst = fmax(worst, fabs((double)got[k] - want));
            }
            // Sums of up to 2 sqrt(n) in magnitude, and some eight additions of that size at 6e-8 each.
            const double bound = 1e-6 * sqrt((double)n) + 1e-6;
            CHECK_MSG(worst <= bound, "[%lld, %lld]: off by %.2e, bound %.1e", (long long)n,
                      (long long)c, worst, bound);
            hirl_tensor_reset(&dy);
            free(x), free(got);
        }
    }
}

// ------------------------------------------------------------------------------------ windows

// Among equals the first wins, a NaN only if it comes first, and the gradient follows: as the reference says.
static void test_windows(void) {
    if (strcmp(test_backend(), "cuda") != 0) return; // oneDNN has rules of its own
    static const int shapes[][7] = {                 // n h w c, kernel stride pad
                                    {2, 9, 8, 5, 3, 2, 1},  {2, 8, 8, 16, 3, 2, 1},
                                    {1, 7, 5, 8, 3, 1, 1},  {1, 6, 6, 20, 2, 2, 0},
                                    {1, 10, 9, 4, 5, 2, 2}, {1, 7, 7, 4, 2, 3, 0},
                                    {1, 2, 2, 8, 3, 2, 1},  {1, 1, 1, 3, 1, 1, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int *s = shapes[i];
        const hirl_shape_t shape = hirl_shape_4(s[0], s[1], s[2], s[3]);
        const hirl_pool_param_t p = {s[4], s[5], s[6]};
        const int64_t count = hirl_shape_count(&shape);
        float *x = drawn(count, 40), *y[2], *dx[2];
        hirl_rng_t rng = test_rng(41);
        for (int64_t j = 0; j < count; j++) {
            const int64_t kind = hirl_rng_below(&rng, 10);
            x[j] = kind == 0 ? NAN : kind == 1 ? -INFINITY : kind < 6 ? 0.5f : x[j];
        }
        int64_t n_out = 0;
        for (int k = 0; k < 2; k++) {
            hirl_backend_t *backend = k ? ref : be;
            hirl_tensor_t in = placed(backend, x, shape, 0), out = {0}, work = {0}, d = {0};
            NEED_OK(hirl_op_max_pool(backend, &p, &in, &out, &work));
            n_out = hirl_tensor_count(&out);
            float *dy = drawn(n_out, 42);
            hirl_tensor_t slope = placed(backend, dy, out.shape, 0);
            NEED_OK(hirl_op_max_pool_backward(backend, &p, &slope, &work, &shape, &d));
            y[k] = taken(backend, &out);
            dx[k] = taken(backend, &d);
            hirl_tensor_t *const all[] = {&in, &work, &slope};
            for (int a = 0; a < 3; a++) hirl_tensor_reset(all[a]);
            free(dy);
        }
        for (int64_t j = 0; j < n_out; j++)
            if (isnan(y[0][j]) && isnan(y[1][j])) y[0][j] = y[1][j] = 0;
        CHECK_BITS(y[0], y[1], (size_t)n_out * sizeof(float));
        CHECK_BITS(dx[0], dx[1], (size_t)count * sizeof(float)); // f32 sums in the same order
        for (int k = 0; k < 2; k++) free(y[k]), free(dx[k]);
        free(x);
    }
}

TEST_MAIN {
    NEED_OK(hirl_backend_create(test_backend(), 2, &be));
    NEED_OK(hirl_backend_create("ref", 1, &ref));
    RUN(test_rows);
    RUN(test_bad_rows);
    RUN(test_columns);
    RUN(test_alignment);
    RUN(test_column_sums);
    RUN(test_windows);
    CHECK(hirl_backend_memory_used(be) == 0);
    hirl_backend_destroy(&be);
    hirl_backend_destroy(&ref);
}
