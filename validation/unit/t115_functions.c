// Exponential, GELU, soft-max, cross entropy, norms of the backends against the C library in double, far into their tails; and
// infinities and NaNs, which must show.
// test: backends=ref,cpu,cuda timeout=60
#include "hirl/backend.h"

#include "test.h"

static hirl_backend_t *be;

static hirl_tensor_t matrix(const float *data, int64_t rows, int64_t columns) {
    hirl_tensor_t x = {0};
    NEED_OK(hirl_backend_tensor(be, hirl_shape_2(rows, columns), HIRL_F32, &x));
    if (data) NEED_OK(hirl_backend_upload(be, data, &x));
    return x;
}

// A copy of the elements in host memory; valid to the end of the test.
static const void *copied(const hirl_tensor_t *x) {
    enum { MAX_COPIES = 64 };
    static void *copy[MAX_COPIES];
    static int n;
    if (!x) {
        while (n > 0) hirl_mem_free(copy[--n]);
        return NULL;
    }
    NEED(n < MAX_COPIES);
    NEED_OK(hirl_mem_alloc(HIRL_MEM_WORKSPACE,
                           (size_t)hirl_tensor_count(x) * hirl_dtype_size(x->dtype), &copy[n]));
    NEED_OK(hirl_backend_download(be, x, copy[n]));
    return copy[n++];
}
static const float *f32(const hirl_tensor_t *x) { return copied(x); }

static void test_gelu(void) {
    enum { COUNT = 40001 };
    static float v[COUNT];
    for (int i = 0; i < COUNT; i++) v[i] = (float)(-20 + 0.001 * i);
    hirl_tensor_t x = matrix(v, 1, COUNT), one = matrix(NULL, 1, COUNT), y = {0}, dx = {0};
    NEED_OK(hirl_op_fill(be, 1, &one));
    NEED_OK(hirl_op_act(be, HIRL_ACT_GELU, &x, &y));
    NEED_OK(hirl_op_act_backward(be, HIRL_ACT_GELU, &x, &one, &dx));
    const float *got = f32(&y), *slope = f32(&dx);
    double error = 0, slope_error = 0;
    for (int i = 0; i < COUNT; i++) {
        const double a = (double)v[i], cdf = 0.5 * erfc(-a / sqrt(2)),
                     density = exp(-a * a / 2) / sqrt(2 * acos(-1.0));
        error = fmax(error, fabs((double)got[i] - a * cdf) / (1 + fabs(a)));
        slope_error = fmax(slope_error, fabs((double)slope[i] - (cdf + a * density)));
    }
    // A few roundings of 6e-8.
    CHECK_MSG(error < 3e-7, "gelu: %.3g", error);
    CHECK_MSG(slope_error < 5e-7, "its slope: %.3g", slope_error);
    const float odd[4] = {NAN, INFINITY, -100, 0};
    hirl_tensor_t z = matrix(odd, 1, 4), out = {0};
    NEED_OK(hirl_op_act(be, HIRL_ACT_GELU, &z, &out));
    CHECK(isnan(f32(&out)[0]));
    CHECK(f32(&out)[1] == INFINITY);
    CHECK(f32(&out)[2] == 0 && f32(&out)[3] == 0);
    NEED_OK(hirl_op_act(be, HIRL_ACT_RELU, &z, &out));
    // The reference keeps no NaN here; where one trains, a diverged run must show.
    if (strcmp(test_backend(), "ref") != 0) CHECK(isnan(f32(&out)[0]));
    CHECK(f32(&out)[1] == INFINITY && f32(&out)[2] == 0);
    hirl_tensor_t *const all[] = {&x, &one, &y, &dx, &z, &out};
    for (int i = 0; i < 6; i++) hirl_tensor_reset(all[i]);
}

// The soft-max of (0, -a): e^-a / (1 + e^-a), small as it may be.
static void test_exponential(void) {
    enum { COUNT = 86900 }; // beyond it exponentials may vanish
    static float v[2 * COUNT];
    for (int i = 0; i < COUNT; i++) v[2 * i + 1] = (float)(-0.001 * i);
    hirl_tensor_t x = matrix(v, COUNT, 2), y = {0};
    NEED_OK(hirl_op_softmax(be, &x, 1, &y));
    const float *got = f32(&y);
    double error = 0;
    for (int i = 0; i < COUNT; i++) {
        const double e = exp((double)v[2 * i + 1]), want = e / (1 + e);
        error = fmax(error, fabs((double)got[2 * i + 1] - want) / want);
    }
    CHECK_MSG(error < 4e-7, "relative error %.3g",
              error); // exponential 1.2e-7, sum and quotient as much
    const float rows[4 * 3] = {-INFINITY, 0, 0, 1e30f, 0, -1e30f, NAN, 0, 0, -200, -200, -320};
    hirl_tensor_t z = matrix(rows, 4, 3), p = {0};
    NEED_OK(hirl_op_softmax(be, &z, 1, &p));
    const float *q = f32(&p);
    CHECK(q[0] == 0 && q[1] == 0.5f && q[2] == 0.5f);
    CHECK(q[3] == 1 && q[4] == 0 && q[5] == 0);
    CHECK(isnan(q[6]) && isnan(q[7]) && isnan(q[8]));
    CHECK(q[9] == 0.5f && q[11] < 1e-38f);
    hirl_tensor_t *const all[] = {&x, &y, &z, &p};
    for (int i = 0; i < 4; i++) hirl_tensor_reset(all[i]);
}

static void test_cross_entropy(void) {
    enum { ROWS = 3, K = 5003 };
    static float v[ROWS * K];
    test_fill_uniform(v, ROWS * K, -1, 1, 3);
    hirl_tensor_t target = {0}, loss = {0}, lse = {0}, correct = {0}, dx = {0};
    NEED_OK(hirl_backend_tensor(be, hirl_shape_1(ROWS), HIRL_I32, &target));
    const int32_t t[ROWS] = {0, K - 1, 77};
    NEED_OK(hirl_backend_upload(be, t, &target));
    v[0] = 1.5f;                    // the largest of its row
    v[K + K - 1] = v[K + 5] = 1.5f; // a tie: counts as wrong
    v[2 * K + 77] = 0;
    hirl_tensor_t x = matrix(v, ROWS, K);
    const float scale = 20; // a temperature of 0.05
    NEED_OK(hirl_op_cross_entropy(be, &x, scale, &target, &loss, &lse, &correct));
    double want = 0;
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int k = 0; k < K; k++) sum += exp((double)(v[r * K + k] * scale));
        CHECK_CLOSE(f32(&lse)[r], log(sum), 2e-7, 0);
        want += (log(sum) - (double)(v[r * K + t[r]] * scale)) / ROWS;
    }
    CHECK_CLOSE(f32(&loss)[0], want, 3e-7, 0);
    CHECK_CLOSE(f32(&correct)[0], 1.0 / 3, 1e-7, 0);
    NEED_OK(hirl_op_fill(be, 3, &loss)); // dloss
    NEED_OK(hirl_op_cross_entropy_backward(be, &x, scale, &target, &lse, &loss, &dx));
    const float *slope = f32(&dx);
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int k = 0; k < K; k++) sum += (double)slope[r * K + k];
        // Probabilities sum to 1, so the gradient of a row sums to 0: lse, at 28, is rounded to 1e-6.
        CHECK_MSG(fabs(sum) < 2e-6 * 3 * 20, "row %d sums to %.3g", r, sum);
    }
    // Logits of 1e4 neither overflow nor lose the answer.
    NEED_OK(hirl_op_cross_entropy(be, &x, 1e4f, &target, &loss, &lse, &correct));
    CHECK(isfinite(f32(&loss)[0]));
    v[5] = NAN;
    NEED_OK(hirl_backend_upload(be, v, &x));
    NEED_OK(hirl_op_cross_entropy(be, &x, scale, &target, &loss, &lse, &correct));
    CHECK(isnan(f32(&loss)[0]));
    hirl_tensor_t *const all[] = {&x, &target, &loss, &lse, &correct, &dx};
    for (int i = 0; i < 6; i++) hirl_tensor_reset(all[i]);
}

static void test_normalise(void) {
    const float rows[5 * 3] = {3, 0, 4, 0, 0, 0, 1e-20f, 0, 0, 3e-30f, 4e-30f, 0, 1e25f, 0, 0};
    hirl_tensor_t x = matrix(rows, 5, 3), y = {0}, norm = {0}, dx = {0};
    NEED_OK(hirl_op_l2_normalize(be, &x, &y, &norm));
    CHECK_CLOSE(f32(&norm)[0], 5, 1e-7, 0);
    CHECK_CLOSE(f32(&y)[2], 0.8, 1e-7, 0);
    for (int r = 1; r < 4; r++) CHECK_CLOSE(f32(&norm)[r], 1e-12, 1e-6, 0); // clamped
    CHECK_CLOSE(f32(&y)[6], 1e-8, 1e-6, 0);
    CHECK_CLOSE(f32(&norm)[4], 1e25, 1e-6, 0); // its square is no float
    CHECK_CLOSE(f32(&y)[12], 1, 1e-6, 0);
    NEED_OK(hirl_op_l2_normalize_backward(be, &y, &norm, &y, &dx));
    CHECK_CLOSE(f32(&dx)[0], 0, 0, 1e-7);   // along y nothing changes
    CHECK_CLOSE(f32(&dx)[6], 1e4, 1e-6, 0); // where the norm is a constant it does
    hirl_tensor_t *const all[] = {&x, &y, &norm, &dx};
    for (int i = 0; i < 4; i++) hirl_tensor_reset(all[i]);
}

// Rounding to bf16: nearest, ties to even, NaN stays.
static void test_bf16(void) {
    const float values[8] = {1,   1.00390625f, 1.01171875f, 1.0039064f, -1.00390625f,
                             NAN, INFINITY,    3.4e38f};
    const uint16_t want[8] = {0x3f80, 0x3f80, 0x3f82, 0x3f81, 0xbf80, 0, 0x7f80, 0x7f80};
    hirl_tensor_t x = matrix(values, 1, 8), y = {0}, back = {0};
    NEED_OK(hirl_op_cast(be, &x, HIRL_BF16, &y));
    const uint16_t *rounded = copied(&y);
    for (int i = 0; i < 8; i++)
        if (i != 5) CHECK_EQ_I(rounded[i], want[i]);
    NEED_OK(hirl_op_cast(be, &y, HIRL_F32, &back));
    CHECK(isnan(f32(&back)[5]));
    CHECK(f32(&back)[2] == 1.015625f);
    hirl_tensor_reset(&x);
    hirl_tensor_reset(&y);
    hirl_tensor_reset(&back);
}

// Rounding to f16 and back, against the compiler's own: every finite f16, the point half way to the next (a tie, which goes to the even one) and its
// neighbours in f32, both signs; then what is too large, and NaN. `cpu` has none and says so.
static void test_f16(void) {
#ifdef __FLT16_MAX__
    __extension__ typedef _Float16 half_t;
    enum { N_FINITE = 0x7c00, COUNT = 4 * N_FINITE };
    static float v[2 * COUNT];
    hirl_tensor_t y = {0}, back = {0};
    for (int i = 0; i < N_FINITE; i++) {
        const double unit = ldexp(1, (i < 1024 ? 1 : i >> 10) - 25);
        const double at = i < 1024 ? i * unit : ((i & 1023) + 1024) * unit;
        const float tie = (float)(at + unit / 2);
        const float four[4] = {(float)at, nextafterf(tie, 0), tie, nextafterf(tie, INFINITY)};
        for (int j = 0; j < 4; j++) {
            v[4 * i + j] = four[j];
            v[COUNT + 4 * i + j] = -four[j];
        }
    }
    v[0] = NAN;
    v[1] = INFINITY;
    v[COUNT] = -3e38f;
    v[COUNT + 1] = 1e-30f;
    hirl_tensor_t x = matrix(v, 2, COUNT);
    if (!hirl_backend_has_dtype(be, HIRL_F16)) {
        CHECK_EQ_I(hirl_op_cast(be, &x, HIRL_F16, &y), HIRL_ERR_ARG);
        CHECK(strstr(hirl_error_text_view(), "cannot convert to f16, want f32 or bf16"));
        hirl_error_reset();
        hirl_tensor_reset(&x);
        return;
    }
    NEED_OK(hirl_op_cast(be, &x, HIRL_F16, &y));
    NEED_OK(hirl_op_cast(be, &y, HIRL_F32, &back));
    const uint16_t *rounded = copied(&y);
    const float *again = f32(&back);
    long n_wrong = 0, n_wrong_back = 0;
    for (int i = 0; i < 2 * COUNT; i++) {
        const half_t want = (half_t)v[i];
        uint16_t bits;
        memcpy(&bits, &want, sizeof bits);
        if (isnan(v[i])) {
            CHECK((rounded[i] & 0x7fff) > 0x7c00 && isnan(again[i]));
            continue;
        }
        n_wrong += rounded[i] != bits;
        n_wrong_back += again[i] != (float)want || signbit(again[i]) != signbit(v[i]);
    }
    CHECK_EQ_I(n_wrong, 0);
    CHECK_EQ_I(n_wrong_back, 0);
    hirl_tensor_reset(&x);
    hirl_tensor_reset(&y);
    hirl_tensor_reset(&back);
#endif
}

TEST_MAIN {
    NEED_OK(hirl_backend_create(test_backend(), 2, &be));
    RUN(test_gelu);
    RUN(test_exponential);
    RUN(test_cross_entropy);
    RUN(test_normalise);
    RUN(test_bf16);
    RUN(test_f16);
    copied(NULL);
    CHECK_EQ_I(hirl_backend_memory_used(be), 0);
    hirl_backend_destroy(&be);
}
