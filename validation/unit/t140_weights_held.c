// Parameters that are held: the same results as without, from forms that are made once; of what is no parameter, and after the end, the
// present values count. That a form is used again is seen by changing a parameter against the contract.
// test: backends=cuda timeout=60
#include "hirl/backend.h"
#include "test.h"

enum { N = 4, SIDE = 5, IN = 16, OUT = 24, ROWS = 20, N_WEIGHTS = OUT * IN * 9 };

static hirl_backend_t *be;
static hirl_tensor_t slab, image, dimage, matrix;

static hirl_tensor_t drawn(hirl_shape_t shape, hirl_dtype_t dtype, uint64_t stream) {
    hirl_tensor_t x = {0}, y = {0};
    const int64_t n = hirl_shape_count(&shape);
    float *host = malloc((size_t)n * sizeof *host);
    NEED(host != NULL);
    hirl_rng_t rng = test_rng(stream);
    for (int64_t i = 0; i < n; ++i) host[i] = (float)hirl_rng_range(&rng, -1, 1);
    NEED_OK(hirl_backend_tensor(be, shape, HIRL_F32, &x));
    NEED_OK(hirl_backend_upload(be, host, &x));
    free(host);
    if (dtype == HIRL_F32) return x;
    NEED_OK(hirl_op_cast(be, &x, dtype, &y));
    hirl_tensor_reset(&x);
    return y;
}

// The parameter that begins at `first` of the slab.
static hirl_tensor_t parameter(int64_t first, hirl_shape_t shape) {
    hirl_tensor_t rows = {0}, view = {0};
    NEED_OK(hirl_tensor_rows(&slab, first, hirl_shape_count(&shape), &rows));
    NEED_OK(hirl_tensor_reshape(&rows, shape, &view));
    hirl_tensor_reset(&rows);
    return view;
}

static float *values_of(hirl_tensor_t *x, int64_t *n_p) {
    hirl_tensor_t plain = {0};
    *n_p = hirl_tensor_count(x);
    float *host = malloc((size_t)*n_p * sizeof *host);
    NEED(host != NULL);
    NEED_OK(hirl_op_to_plain(be, x, HIRL_F32, &plain));
    NEED_OK(hirl_backend_download(be, &plain, host));
    hirl_tensor_reset(&plain);
    hirl_tensor_reset(x);
    return host;
}

typedef enum use { LINEAR, LINEAR_BACKWARD, CONV, CONV_BACKWARD, N_USES } use_t;
static const char *const use_name[] = {"linear", "linear backward", "conv2d", "conv2d backward"};

// What an operation makes of weights `w` [OUT, IN] or [OUT, IN, side, side], and a bias.
static float *result_of(use_t use, const hirl_tensor_t *w, const hirl_tensor_t *bias,
                        int64_t *n_p) {
    const int pad = use >= CONV ? (int)w->shape.dim[2] / 2 : 0;
    const hirl_conv_param_t p = {1, 1, pad, pad};
    hirl_tensor_t y = {0};
    if (use == LINEAR)
        NEED_OK(hirl_op_linear(be, &matrix, w, bias, HIRL_ACT_NONE, &y, NULL));
    else if (use == LINEAR_BACKWARD)
        NEED_OK(hirl_op_linear_backward(be, &dimage, NULL, w, false, &y, NULL, NULL));
    else if (use == CONV)
        NEED_OK(hirl_op_conv2d(be, &p, &image, w, NULL, &y));
    else
        NEED_OK(hirl_op_conv2d_backward_data(be, &p, &dimage, w, &image.shape, &y));
    return values_of(&y, n_p);
}

static bool is_same(const float *a, const float *b, int64_t n) {
    return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

// Whether a form of these weights is kept while they are held.
static void check_use(use_t use, hirl_dtype_t dtype, int side, bool is_kept) {
    const hirl_shape_t shape =
        use >= CONV ? hirl_shape_4(OUT, IN, side, side) : hirl_shape_2(OUT, IN);
    hirl_tensor_t w = parameter(8, shape), bias = parameter(0, hirl_shape_1(OUT));
    const hirl_tensor_t *slabs[] = {&slab};
    int64_t n;
    float *before = result_of(use, &w, &bias, &n);
    NEED_OK(hirl_backend_weights_begin(be, slabs, 1));
    float *first = result_of(use, &w, &bias, &n), *second = result_of(use, &w, &bias, &n);
    NEED_OK(hirl_op_axpby(be, 0.5f, &slab, 0, &slab));
    float *held = result_of(use, &w, &bias, &n);
    hirl_backend_weights_end(be);
    float *after = result_of(use, &w, &bias, &n);
    NEED_OK(hirl_op_axpby(be, 2, &slab, 0, &slab));
    const char *name = use_name[use];
    CHECK_MSG(is_same(first, before, n) && is_same(second, before, n), "%s, %s: held differs", name,
              hirl_dtype_name(dtype));
    CHECK_MSG(is_same(held, before, n) == is_kept, "%s, %s, side %d: %s", name,
              hirl_dtype_name(dtype), side, is_kept ? "not kept" : "kept");
    CHECK_MSG(!is_same(after, before, n), "%s, %s: stale after the end", name,
              hirl_dtype_name(dtype));
    for (int64_t i = 0; i < n; ++i) // halves: exact in every precision
        CHECK_CLOSE(after[i], before[i] / 2, 0, 0);
    free(before), free(first), free(second), free(held), free(after);
    hirl_tensor_reset(&w);
    hirl_tensor_reset(&bias);
}

static void test_uses(void) {
    static const hirl_dtype_t dtypes[] = {HIRL_F32, HIRL_BF16, HIRL_F16};
    for (int d = 0; d < 3; ++d) {
        const hirl_dtype_t dtype = dtypes[d];
        matrix = drawn(hirl_shape_2(ROWS, IN), dtype, 1);
        dimage = drawn(hirl_shape_2(ROWS, OUT), dtype, 2);
        check_use(LINEAR, dtype, 1, dtype != HIRL_F32);
        check_use(LINEAR_BACKWARD, dtype, 1, dtype != HIRL_F32);
        hirl_tensor_reset(&dimage);
        image = drawn(hirl_shape_4(N, SIDE, SIDE, IN), dtype, 3);
        dimage = drawn(hirl_shape_4(N, SIDE, SIDE, OUT), dtype, 4);
        // The f32 weights of one pixel serve as they are.
        for (int side = 1; side <= 3; side += 2) {
            check_use(CONV, dtype, side, dtype != HIRL_F32 || side > 1);
            check_use(CONV_BACKWARD, dtype, side, dtype != HIRL_F32 || side > 1);
        }
        hirl_tensor_reset(&image);
        hirl_tensor_reset(&dimage);
        hirl_tensor_reset(&matrix);
    }
}

// Weights that an operation made may lie where others lay a moment ago.
static void test_no_parameter(void) {
    const hirl_tensor_t *slabs[] = {&slab};
    hirl_tensor_t w = drawn(hirl_shape_2(OUT, IN), HIRL_F32, 5);
    int64_t n;
    matrix = drawn(hirl_shape_2(ROWS, IN), HIRL_BF16, 6);
    NEED_OK(hirl_backend_weights_begin(be, slabs, 1));
    float *before = result_of(LINEAR, &w, NULL, &n);
    NEED_OK(hirl_op_axpby(be, 0.5f, &w, 0, &w));
    float *after = result_of(LINEAR, &w, NULL, &n);
    hirl_backend_weights_end(be);
    for (int64_t i = 0; i < n; ++i) CHECK_CLOSE(after[i], before[i] / 2, 0, 0);
    free(before), free(after);
    hirl_tensor_reset(&w);
    hirl_tensor_reset(&matrix);
}

static void test_errors(void) {
    const hirl_tensor_t none = {0}, *slabs[17], *unset[] = {&none};
    for (int i = 0; i < 17; ++i) slabs[i] = &slab;
    CHECK_FAILS(hirl_backend_weights_begin(be, slabs, 17), HIRL_ERR_ARG, "17 slabs");
    CHECK_FAILS(hirl_backend_weights_begin(be, unset, 1), HIRL_ERR_ARG, "no f32 storage");
    NEED_OK(hirl_backend_weights_begin(be, slabs, 1));
    CHECK_FAILS(hirl_backend_weights_begin(be, slabs, 1), HIRL_ERR_ARG, "twice");
    hirl_backend_weights_end(be);
    hirl_backend_weights_end(be);
    NEED_OK(hirl_backend_weights_begin(be, slabs, 1));
    hirl_backend_weights_end(be);
}

TEST_MAIN {
    const hirl_backend_options_t options = {.n_threads = 1, .is_deterministic = true};
    NEED_OK(hirl_backend_open(test_backend(), &options, &be));
    slab = drawn(hirl_shape_1(8 + N_WEIGHTS), HIRL_F32, 0);
    RUN(test_uses);
    RUN(test_no_parameter);
    RUN(test_errors);
    CHECK(hirl_backend_memory_used(be) <= (size_t)(8 + N_WEIGHTS) * sizeof(float) + 256);
    hirl_tensor_reset(&slab);
    hirl_backend_destroy(&be);
}
