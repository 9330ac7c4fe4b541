// Which algorithms of cuBLASLt and cuDNN the backend takes: the first that may be used, or the fastest where bits need not repeat; what it does where
// they refuse; what rides on a product as an epilogue. The emulated libraries offer good and bad ones, and refuse when asked
// to (HIRL_EMU_*), with a clock of their own. Numbers are compared with double; bounds: products of 40 terms of size 1 in f32.
// test: backends=cuda timeout=60
#include <cuda_runtime_api.h>

#include "hirl/backend.h"
#include "test.h"

#ifndef HIRL_CUDA_EMULATED

TEST_MAIN { SKIP("this build has no emulated device"); }

#else

#include <unistd.h>

enum { N = 9, I = 40, O = 12, SIDE = 6, C = 5, F = 7, TEXT = 1 << 16 };
static hirl_backend_t *be;
static char told
    [TEXT]; // what the last piece of work wrote to stderr: log lines and the trace of the device

static void open_backend(bool is_deterministic, bool has_tf32) {
    const hirl_backend_options_t options = {.is_deterministic = is_deterministic,
                                            .has_tf32 = has_tf32};
    NEED_OK(hirl_backend_open("cuda", &options, &be));
}

static FILE *listener;
static int old_stderr;
static void listen_begin(void) {
    listener = tmpfile();
    NEED(listener);
    fflush(stderr);
    old_stderr = dup(2);
    NEED(old_stderr >= 0 && dup2(fileno(listener), 2) == 2);
}
static void listen_end(void) {
    NEED_OK(hirl_backend_synchronize(be));
    fflush(stderr);
    dup2(old_stderr, 2);
    close(old_stderr);
    rewind(listener);
    told[fread(told, 1, sizeof told - 1, listener)] = '\0';
    fclose(listener);
}
static int times(const char *text) {
    int n = 0;
    for (const char *at = told; (at = strstr(at, text)); at += strlen(text)) ++n;
    return n;
}

static hirl_tensor_t filled(hirl_shape_t shape, uint64_t id, float *host) {
    hirl_tensor_t x = {0};
    hirl_rng_t rng = hirl_rng_make(3, HIRL_RNG_TEST, 1, id, 0);
    for (int64_t i = 0; i < hirl_shape_count(&shape); ++i)
        host[i] = (float)hirl_rng_range(&rng, -1, 1);
    NEED_OK(hirl_backend_tensor(be, shape, HIRL_F32, &x));
    NEED_OK(hirl_backend_upload(be, host, &x));
    return x;
}

// -------------------------------------------------------------------------------------- products

static float x_host[N * I], w_host[O * I], bias_host[O + 1], dy_host[N * O];

/// y, then dw and dbias twice (the second time added to), and their distance from double.
static void layer(bool is_offset, double *worst_p) {
    hirl_tensor_t x = filled(hirl_shape_2(N, I), 1, x_host),
                  w = filled(hirl_shape_2(O, I), 2, w_host),
                  biases = filled(hirl_shape_1(O + 1), 3, bias_host),
                  dy = filled(hirl_shape_2(N, O), 4, dy_host), dw = {0}, dbiases = {0}, bias, dbias,
                  y = {0};
    float y_host[N * O], dw_host[O * I], dbias_host[O];
    NEED_OK(hirl_backend_tensor(be, hirl_shape_2(O, I), HIRL_F32, &dw));
    NEED_OK(hirl_backend_tensor(be, hirl_shape_1(O + 1), HIRL_F32, &dbiases));
    NEED_OK(hirl_tensor_rows(&biases, is_offset, O, &bias));
    NEED_OK(hirl_tensor_rows(&dbiases, is_offset, O, &dbias));
    NEED_OK(hirl_op_linear(be, &x, &w, &bias, HIRL_ACT_NONE, &y, NULL));
    for (int i = 0; i < 2; ++i)
        NEED_OK(hirl_op_linear_backward(be, &dy, &x, &w, i == 1, NULL, &dw, &dbias));
    NEED_OK(hirl_backend_download(be, &y, y_host));
    NEED_OK(hirl_backend_download(be, &dw, dw_host));
    NEED_OK(hirl_backend_download(be, &dbias, dbias_host));
    double worst = 0;
    for (int o = 0; o < O; ++o) {
        double db = 0;
        for (int n = 0; n < N; ++n) {
            double sum = (double)bias_host[o + is_offset];
            for (int i = 0; i < I; ++i)
                sum += (double)x_host[n * I + i] * (double)w_host[o * I + i];
            worst = fmax(worst, fabs(sum - (double)y_host[n * O + o]));
            db += 2 * (double)dy_host[n * O + o];
        }
        worst = fmax(worst, fabs(db - (double)dbias_host[o]));
        for (int i = 0; i < I; ++i) {
            double sum = 0;
            for (int n = 0; n < N; ++n)
                sum += 2 * (double)dy_host[n * O + o] * (double)x_host[n * I + i];
            worst = fmax(worst, fabs(sum - (double)dw_host[o * I + i]));
        }
    }
    *worst_p = worst;
    hirl_tensor_t *all[] = {&x, &w, &biases, &dy, &dw, &dbiases, &bias, &dbias, &y};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i) hirl_tensor_reset(all[i]);
}

static void test_products(void) {
    for (int epilogues = 0; epilogues < 2; ++epilogues)
        for (int is_offset = 0; is_offset < 2; ++is_offset)
            for (int is_free = 0; is_free < 2; ++is_free) {
                double worst = INFINITY;
                if (!epilogues) setenv("HIRL_EMU_BLAS_EPILOGUES", "0", 1);
                if (is_free) setenv("HIRL_EMU_FASTEST", "2", 1);
                open_backend(!is_free, false);
                listen_begin();
                layer(is_offset, &worst);
                listen_end();
                CHECK_MSG(worst < 1e-5, "epilogues %d, offset %d, free %d: %.3g", epilogues,
                          is_offset, is_free, worst);
                // Two plans, of y and of dw: whether dw is added to does not matter to its plan.
                CHECK_EQ_I(times("algorithm 2 of 2"), is_free ? 2 : 0);
                CHECK_EQ_I(times("algorithm 1 of 2"), 0);
                // A bias and its gradient cost no pass of their own; unaligned ones are copied, and sums that are added up cost one
                // over a vector.
                CHECK_EQ_I(times("sum_columns") > 0, !epilogues);
                CHECK_EQ_I(times("map_groups"), is_offset ? 1 + epilogues : 1);
                if (!is_free) CHECK_EQ_I(times("emulated device: cublasLtMatmul\n"), 3);
                hirl_backend_destroy(&be);
                unsetenv("HIRL_EMU_BLAS_EPILOGUES");
                unsetenv("HIRL_EMU_FASTEST");
            }
}

/// Trials of a product that adds to its output leave that alone.
static void test_trial_adds(void) {
    static float c_host[N * O], got[N * O];
    setenv("HIRL_EMU_FASTEST", "2", 1);
    open_backend(false, false);
    listen_begin();
    hirl_tensor_t x = filled(hirl_shape_2(N, I), 1, x_host),
                  w = filled(hirl_shape_2(O, I), 2, w_host),
                  c = filled(hirl_shape_2(N, O), 8, c_host);
    NEED_OK(hirl_op_gemm(be, false, true, 1, &x, &w, 1, &c));
    NEED_OK(hirl_backend_download(be, &c, got));
    listen_end();
    CHECK_EQ_I(times("algorithm 2 of 2"), 1);
    double worst = 0;
    for (int n = 0; n < N; ++n)
        for (int o = 0; o < O; ++o) {
            double sum = (double)c_host[n * O + o];
            for (int i = 0; i < I; ++i)
                sum += (double)x_host[n * I + i] * (double)w_host[o * I + i];
            worst = fmax(worst, fabs(sum - (double)got[n * O + o]));
        }
    CHECK_MSG(worst < 1e-5, "%.3g", worst);
    hirl_tensor_reset(&x);
    hirl_tensor_reset(&w);
    hirl_tensor_reset(&c);
    hirl_backend_destroy(&be);
    unsetenv("HIRL_EMU_FASTEST");
}

/// What is not a number stays so through a layer with an activation, and GELU is the exact one.
static void test_activations(void) {
    static const hirl_act_t act[] = {HIRL_ACT_RELU, HIRL_ACT_GELU};
    open_backend(true, false);
    listen_begin();
    for (int i = 0; i < 2; ++i) {
        const float in[2] = {1, NAN}, zero = 0, one = 1;
        float out[2], kept[2];
        hirl_tensor_t x = {0}, w = {0}, b = {0}, y = {0}, pre = {0};
        NEED_OK(hirl_backend_tensor(be, hirl_shape_2(2, 1), HIRL_F32, &x));
        NEED_OK(hirl_backend_tensor(be, hirl_shape_2(1, 1), HIRL_F32, &w));
        NEED_OK(hirl_backend_tensor(be, hirl_shape_1(1), HIRL_F32, &b));
        NEED_OK(hirl_backend_upload(be, in, &x));
        NEED_OK(hirl_backend_upload(be, &one, &w));
        NEED_OK(hirl_backend_upload(be, &zero, &b));
        NEED_OK(hirl_op_linear(be, &x, &w, &b, act[i], &y, i == 1 ? &pre : NULL));
        NEED_OK(hirl_backend_download(be, &y, out));
        const double want = i == 0 ? 1 : 0.5 * erfc(-1 / sqrt(2)); // by tanh: 2e-4 less
        CHECK_MSG(fabs((double)out[0] - want) < 1e-6, "act %d of 1: %.9g", i, (double)out[0]);
        CHECK(isnan(out[1]));
        if (i == 1) {
            NEED_OK(hirl_backend_download(be, &pre, kept));
            CHECK(kept[0] == 1 && isnan(kept[1]));
        }
        hirl_tensor_t *all[] = {&x, &w, &b, &y, &pre};
        for (size_t j = 0; j < sizeof all / sizeof *all; ++j) hirl_tensor_reset(all[j]);
    }
    listen_end();
    hirl_backend_destroy(&be);
}

// -------------------------------------------------------------------------------------- convolutions

enum { N_Y = 2 * SIDE * SIDE * F, N_DX = 2 * SIDE * SIDE * C, N_DW = F * C * 9 };

typedef struct convolved {
    float y[N_Y], dx[N_DX], dw[N_DW];
} convolved_t;

static hirl_status_t convolve(const char *engines, bool is_deterministic, bool has_tf32,
                              hirl_dtype_t dtype, convolved_t *out) {
    static float host[N_Y];
    const hirl_conv_param_t p = {1, 1, 1, 1};
    const hirl_shape_t x_shape = hirl_shape_4(2, SIDE, SIDE, C);
    hirl_tensor_t x, w, dy, xt = {0}, dyt = {0}, y = {0}, dx = {0}, dw = {0}, plain = {0};
    hirl_status_t status = HIRL_OK;
    if (engines) setenv("HIRL_EMU_DNN_ENGINES", engines, 1);
    open_backend(is_deterministic, has_tf32);
    listen_begin();
    x = filled(x_shape, 5, host);
    w = filled(hirl_shape_4(F, C, 3, 3), 6, host);
    dy = filled(hirl_shape_4(2, SIDE, SIDE, F), 7, host);
    NEED_OK(hirl_op_to_plain(be, &x, dtype, &xt));
    NEED_OK(hirl_op_to_plain(be, &dy, dtype, &dyt));
    NEED_OK(hirl_backend_tensor(be, hirl_shape_4(F, C, 3, 3), HIRL_F32, &dw));
    HIRL_TRY_GOTO(hirl_op_conv2d(be, &p, &xt, &w, NULL, &y), status, done);
    HIRL_TRY_GOTO(hirl_op_conv2d_backward_data(be, &p, &dyt, &w, &x_shape, &dx), status, done);
    HIRL_TRY_GOTO(hirl_op_conv2d_backward_weights(be, &p, &xt, &dyt, false, &dw, NULL), status,
                  done);
    NEED_OK(hirl_op_to_plain(be, &y, HIRL_F32, &plain));
    NEED_OK(hirl_backend_download(be, &plain, out->y));
    hirl_tensor_reset(&plain);
    NEED_OK(hirl_op_to_plain(be, &dx, HIRL_F32, &plain));
    NEED_OK(hirl_backend_download(be, &plain, out->dx));
    NEED_OK(hirl_backend_download(be, &dw, out->dw));
done:
    listen_end();
    hirl_tensor_t *all[] = {&x, &w, &dy, &xt, &dyt, &y, &dx, &dw, &plain};
    for (size_t j = 0; j < sizeof all / sizeof *all; ++j) hirl_tensor_reset(all[j]);
    hirl_backend_destroy(&be);
    unsetenv("HIRL_EMU_DNN_ENGINES");
    return status;
}

static double apart(const float *a, const float *b, int n) {
    double worst = 0, most = 0;
    for (int i = 0; i < n; ++i) {
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
        most = fmax(most, fabs((double)b[i]));
    }
    return worst / most;
}

static convolved_t plain, other;

static void test_engines(void) {
    // Bits repeat: the first that may be used, which needs no timing.
    NEED_OK(convolve(NULL, true, false, HIRL_F32, &plain));
    CHECK_EQ_I(times("debug: rank 0: convolution"), 0);
    CHECK_EQ_I(times("emulated device: a convolution\n"), 3);
    // They need not: the fastest of those that may be used (4, and of the fallback 5; 6 wants another order), once a shape.
    for (int fastest = 4; fastest <= 5; ++fastest) {
        char text[2] = {(char)('0' + fastest), 0}, want[64];
        setenv("HIRL_EMU_FASTEST", text, 1);
        snprintf(want, sizeof want, "engine %d, %d of 2", fastest, fastest - 3);
        NEED_OK(convolve(NULL, false, false, HIRL_F32, &other));
        CHECK_MSG(times(want) == 3, "want '%s' three times: %s", want, told);
        CHECK(apart(other.y, plain.y, N_Y) < 1e-6 && apart(other.dx, plain.dx, N_DX) < 1e-6 &&
              apart(other.dw, plain.dw, N_DW) < 1e-6);
    }
    unsetenv("HIRL_EMU_FASTEST");
    // The clock tells no difference: the heuristic's order stands, and engine 1 leads it once its TF32 may be used.
    NEED_OK(convolve(NULL, false, true, HIRL_F32, &other));
    CHECK_MSG(times("engine 1, 1 of 3") == 3, "%s", told);
}

static void test_order_of_images(void) {
    static const hirl_dtype_t dtype[] = {HIRL_F32, HIRL_BF16};
    for (int i = 0; i < 2; ++i) {
        NEED_OK(convolve("5", true, false, dtype[i], &plain));
        CHECK_EQ_I(times("NCHW"), 0);
        NEED_OK(convolve("678", true, false, dtype[i], &other));
        CHECK_MSG(times("transposed to f32 in NCHW order") == 3, "%s", told);
        // The same values in another order; bf16 results are rounded once from f32 either way.
        CHECK_MSG(apart(other.y, plain.y, N_Y) < (i ? 8e-3 : 1e-6), "%.3g",
                  apart(other.y, plain.y, N_Y));
        CHECK_MSG(apart(other.dx, plain.dx, N_DX) < (i ? 8e-3 : 1e-6), "%.3g",
                  apart(other.dx, plain.dx, N_DX));
        CHECK_MSG(apart(other.dw, plain.dw, N_DW) < (i ? 8e-3 : 1e-6), "%.3g",
                  apart(other.dw, plain.dw, N_DW));
    }
}

static void check_refusal(const char *engines, bool is_deterministic, bool has_tf32, const char *a,
                          const char *b) {
    const hirl_status_t status = convolve(engines, is_deterministic, has_tf32, HIRL_F32, &other);
    const char *text = hirl_error_text_view();
    CHECK_EQ_I(status, HIRL_ERR_UNSUPPORTED);
    CHECK_MSG(strstr(text, a) && strstr(text, b), "engines %s: want '%s' and '%s', got: %s",
              engines, a, b, text);
    CHECK(strstr(text, "no forward engine for a convolution of x [2, 6, 6, 5] f32 with w "
                       "[7, 5, 3, 3], stride 1 1, pad 1 1"));
    hirl_error_reset();
}

static void test_refusals(void) {
    check_refusal("0", true, false, "of 0 engines: none was named", "run%device = 'cpu'");
    check_refusal("2", true, false, "of 2 engines: 2 round to TF32", "try run%tf32 = .true.");
    check_refusal("1", true, true, "2 do not repeat their bits", "run%deterministic = .false.");
    check_refusal("2378", true, true, "of 8 engines: 2 refuse the shape, 4 round inputs or sums",
                  "2 want more workspace than 2.00 GiB");
}

TEST_MAIN {
    setenv("HIRL_EMU_TRACE", "1", 1);
    hirl_log_setup(HIRL_LOG_DEBUG, 0);
    RUN(test_products);
    RUN(test_trial_adds);
    RUN(test_activations);
    RUN(test_engines);
    RUN(test_order_of_images);
    RUN(test_refusals);
}

#endif
