// Attention against PyTorch in float64 (validation/reference/attention), and what the table of operations cannot show: slices and separate matrices,
// repetitions and numbers of threads give the same bits; rows and first tiles that are masked throughout; scores far from 0; columns that
// are nobody's; no memory for scores on the device; what is refused.
// test: backends=ref,cpu,cuda timeout=60
#include "hirl/backend.h"

#include "test.h"

enum { B = 4, H = 2, D = 24, NQ = 5, NK = 7, W = 2, WIDTH = H * D, MOST = 1 << 20 };

static hirl_backend_t *be;

static hirl_tensor_t made(const float *data, hirl_shape_t shape, hirl_dtype_t dtype) {
    hirl_tensor_t plain = {0}, x = {0};
    NEED_OK(hirl_backend_tensor(be, shape, HIRL_F32, &plain));
    if (data)
        NEED_OK(hirl_backend_upload(be, data, &plain));
    else
        NEED_OK(hirl_op_fill(be, NAN, &plain));
    if (dtype == HIRL_F32) return plain;
    NEED_OK(hirl_op_to_plain(be, &plain, dtype, &x));
    hirl_tensor_reset(&plain);
    return x;
}

static hirl_tensor_t drawn(hirl_shape_t shape, hirl_dtype_t dtype, uint64_t id, double spread) {
    static float data[MOST];
    NEED(hirl_shape_count(&shape) <= MOST);
    test_fill_uniform(data, hirl_shape_count(&shape), -spread, spread, id);
    return made(data, shape, dtype);
}

// f32 values in memory of its own, freed by the caller.
static float *fetched(const hirl_tensor_t *x) {
    hirl_tensor_t plain = {0};
    float *host = malloc((size_t)hirl_tensor_count(x) * sizeof *host);
    NEED(host != NULL);
    NEED_OK(hirl_op_to_plain(be, x, HIRL_F32, &plain));
    NEED_OK(hirl_backend_download(be, &plain, host));
    hirl_tensor_reset(&plain);
    return host;
}

static void reset_all(hirl_tensor_t *const *x, int n) {
    for (int i = 0; i < n; ++i) hirl_tensor_reset(x[i]);
}
#define RESET(...)                                   \
    reset_all((hirl_tensor_t *const[]){__VA_ARGS__}, \
              (int)(sizeof((hirl_tensor_t *const[]){__VA_ARGS__}) / sizeof(hirl_tensor_t *)))

// ------------------------------------------------------------------------------------ PyTorch

static void check_close(const hirl_tensor_t *got, const double *want, double bound,
                        const char *name) {
    float *x = fetched(got);
    double worst = 0, most = 0;
    for (int64_t i = 0; i < hirl_tensor_count(got); ++i) {
        worst = fabs((double)x[i] - want[i]) <= worst ? worst : fabs((double)x[i] - want[i]);
        most = fmax(most, fabs(want[i]));
    }
    CHECK_MSG(worst <= bound * most, "%s differs from PyTorch's by %.2e of its largest, bound %.0e",
              name, worst / most, bound);
    free(x);
}

// q alone; k and v slices of one matrix [B NK, 2 WIDTH].
static void check_reference(const double *all, hirl_dtype_t dtype) {
    enum { Q = B * NQ * WIDTH, K = B * NK * WIDTH, SQUARE = NQ * NK };
    const double *q = all, *k = q + Q, *v = k + K, *bias = v + K, *mask = bias + H * SQUARE,
                 *dy = mask + W * SQUARE, *y = dy + Q, *lse = y + Q, *dq = lse + B * H * NQ,
                 *dk = dq + Q, *dv = dk + K, *dbias = dv + K;
    static float narrow[2 * K];
    static double both[2 * K];
    hirl_tensor_t in[5] = {{0}}, out[6] = {{0}};
    const hirl_attention_param_t p = {B, H, D, 0, 0, WIDTH, 0.3f};
    const hirl_shape_t kv_shape = hirl_shape_2(B * NK, 2 * WIDTH),
                       q_shape = hirl_shape_2(B * NQ, WIDTH);
#define NARROW(from, n) \
    for (int i_ = 0; i_ < (n); ++i_) narrow[i_] = (float)(from)[i_]
    NARROW(q, Q);
    in[0] = made(narrow, q_shape, dtype);
    for (int i = 0; i < 2 * K; ++i) {
        const int at = i / (2 * WIDTH) * WIDTH + i % WIDTH, is_v = i % (2 * WIDTH) >= WIDTH;
        narrow[i] = (float)(is_v ? v : k)[at];
        both[i] = (is_v ? dv : dk)[at];
    }
    in[1] = made(narrow, kv_shape, dtype);
    NARROW(bias, H * SQUARE);
    in[2] = made(narrow, hirl_shape_3(H, NQ, NK), HIRL_F32);
    NARROW(mask, W * SQUARE);
    in[3] = made(narrow, hirl_shape_3(W, NQ, NK), HIRL_F32);
    NARROW(dy, Q);
    in[4] = made(narrow, q_shape, dtype);
    NEED_OK(hirl_op_attention(be, &p, &in[0], &in[1], &in[1], &in[2], &in[3], &out[0], &out[1]));
    NEED_OK(hirl_op_attention_backward(be, &p, &in[0], &in[1], &in[1], &in[2], &in[3], &out[0],
                                       &out[1], &in[4], &out[2], &out[3], &out[3], &out[4]));
    // f32: sums of up to 24 products and the scale 0.3 itself round to 6e-8 each. 16 bits: a few of their last places (2^-9, 2^-12).
    const double bound = dtype == HIRL_BF16 ? 1e-2 : dtype == HIRL_F16 ? 1.25e-3 : 2e-6;
    check_close(&out[0], y, bound, "y");
    check_close(&out[1], lse, 2e-6, "lse");
    check_close(&out[2], dq, bound, "dq");
    check_close(&out[3], both, bound, "dk | dv");
    check_close(&out[4], dbias, bound, "dbias");
    for (int i = 0; i < 5; ++i) hirl_tensor_reset(&in[i]);
    for (int i = 0; i < 6; ++i) hirl_tensor_reset(&out[i]);
}

static void test_reference(void) {
    enum { COUNT = 4 * B * NQ * WIDTH + 4 * B * NK * WIDTH + (2 * H + W) * NQ * NK + B * H * NQ };
    static double all[COUNT];
    FILE *file = fopen("validation/reference/attention/case.f64", "rb");
    NEED(file);
    NEED(fread(all, sizeof *all, COUNT, file) == COUNT && fgetc(file) == EOF);
    fclose(file);
    check_reference(all, HIRL_F32);
    check_reference(all, HIRL_BF16);
    if (hirl_backend_has_dtype(be, HIRL_F16)) check_reference(all, HIRL_F16);
}

// ------------------------------------------------------------------------------------ the same bits

// Forward and backward of self-attention from three matrices or from one; y, the packed gradient, and dbias.
typedef struct run {
    float *y, *dx, *dbias;
} run_t;

static run_t self_attention(hirl_dtype_t dtype, bool is_packed, int n, int size) {
    const int width = H * size;
    const hirl_shape_t shape = hirl_shape_2(B * n, width);
    hirl_attention_param_t p = {B, H, size, 0, 0, 0, 0.2f};
    hirl_tensor_t x[3] = {{0}}, dx[3] = {{0}}, packed = {0}, y = {0}, lse = {0}, dbias = {0};
    hirl_tensor_t bias = drawn(hirl_shape_3(H, n, n), HIRL_F32, 8, 1),
                  mask = drawn(hirl_shape_3(W, n, n), HIRL_F32, 9, 1),
                  dy = drawn(shape, dtype, 7, 1);
    float *part[3], *all = malloc((size_t)(3 * B * n * width) * sizeof *all);
    run_t r;
    NEED(all != NULL);
    for (int i = 0; i < 3; ++i) {
        x[i] = drawn(shape, dtype, 10 + (uint64_t)i, 1);
        part[i] = fetched(&x[i]);
    }
    for (int i = 0; i < 3 * B * n * width; ++i)
        all[i] = part[i / width % 3][i / (3 * width) * width + i % width];
    for (int i = 0; i < 3; ++i) free(part[i]);
    if (is_packed) {
        packed = made(all, hirl_shape_2(B * n, 3 * width), dtype);
        p.k_column = width;
        p.v_column = 2 * width;
    }
    const hirl_tensor_t *q = is_packed ? &packed : &x[0], *k = is_packed ? &packed : &x[1],
                        *v = is_packed ? &packed : &x[2];
    NEED_OK(hirl_op_attention(be, &p, q, k, v, &bias, &mask, &y, &lse));
    NEED_OK(hirl_op_attention_backward(be, &p, q, k, v, &bias, &mask, &y, &lse, &dy, &dx[0],
                                       &dx[is_packed ? 0 : 1], &dx[is_packed ? 0 : 2], &dbias));
    r.y = fetched(&y);
    r.dbias = fetched(&dbias);
    if (is_packed) {
        r.dx = fetched(&dx[0]);
    } else {
        for (int i = 0; i < 3; ++i) part[i] = fetched(&dx[i]);
        for (int i = 0; i < 3 * B * n * width; ++i)
            all[i] = part[i / width % 3][i / (3 * width) * width + i % width];
        for (int i = 0; i < 3; ++i) free(part[i]);
        r.dx = malloc((size_t)(3 * B * n * width) * sizeof *r.dx);
        NEED(r.dx != NULL);
        memcpy(r.dx, all, (size_t)(3 * B * n * width) * sizeof *all);
    }
    free(all);
    RESET(&x[0], &x[1], &x[2], &dx[0], &dx[1], &dx[2], &packed, &y, &lse, &dbias, &bias, &mask,
          &dy);
    return r;
}

static void check_same(const run_t *a, run_t *b, int n, int size) {
    const size_t count = (size_t)(B * n * H * size) * sizeof(float);
    CHECK_BITS(a->y, b->y, count);
    CHECK_BITS(a->dx, b->dx, 3 * count);
    CHECK_BITS(a->dbias, b->dbias, (size_t)(H * n * n) * sizeof(float));
    free(b->y);
    free(b->dx);
    free(b->dbias);
}

static void test_same_bits(void) {
    for (int dtype = HIRL_F32; dtype <= HIRL_BF16; ++dtype) {
        // Beyond a tile of 64; ref has none, and is slow.
        const int n = strcmp(test_backend(), "ref") == 0 ? 19 : 67,
                  size = dtype == HIRL_F32 ? 40 : 72;
        run_t first = self_attention((hirl_dtype_t)dtype, true, n, size), again;
        again = self_attention((hirl_dtype_t)dtype, true, n, size);
        check_same(&first, &again, n, size);
        again = self_attention((hirl_dtype_t)dtype, false, n, size);
        check_same(&first, &again, n, size);
        hirl_backend_t *keep = be;
        NEED_OK(hirl_backend_create(test_backend(), 1, &be)); // the other has two threads
        again = self_attention((hirl_dtype_t)dtype, true, n, size);
        check_same(&first, &again, n, size);
        hirl_backend_destroy(&be);
        be = keep;
        free(first.y);
        free(first.dx);
        free(first.dbias);
    }
}

// One head of one problem leaves all threads but one without work of their own: they must not share its products in another order.
static void test_one_head(void) {
    enum { N_QUERY = 4000, N_KEY = 16, SIZE = 16 };
    const hirl_attention_param_t p = {1, 1, SIZE, 0, 0, SIZE, 1};
    float *data[2][3];
    if (strcmp(test_backend(), "cpu") != 0) return; // the others know no threads
    hirl_backend_t *keep = be;
    for (int i = 0; i < 2; ++i) {
        NEED_OK(hirl_backend_create(test_backend(), 1 + i, &be));
        hirl_tensor_t q = drawn(hirl_shape_2(N_QUERY, SIZE), HIRL_F32, 70, 1), y = {0}, lse = {0},
                      kv = drawn(hirl_shape_2(N_KEY, 2 * SIZE), HIRL_F32, 71, 1), dq = {0},
                      dkv = {0}, dy = drawn(hirl_shape_2(N_QUERY, SIZE), HIRL_F32, 72, 1);
        NEED_OK(hirl_op_attention(be, &p, &q, &kv, &kv, NULL, NULL, &y, &lse));
        NEED_OK(hirl_op_attention_backward(be, &p, &q, &kv, &kv, NULL, NULL, &y, &lse, &dy, &dq,
                                           &dkv, &dkv, NULL));
        data[i][0] = fetched(&y);
        data[i][1] = fetched(&dq);
        data[i][2] = fetched(&dkv);
        RESET(&q, &kv, &y, &lse, &dy, &dq, &dkv);
        hirl_backend_destroy(&be);
    }
    be = keep;
    CHECK_BITS(data[0][0], data[1][0], sizeof(float) * N_QUERY * SIZE);
    CHECK_BITS(data[0][1], data[1][1], sizeof(float) * N_QUERY * SIZE);
    CHECK_BITS(data[0][2], data[1][2], sizeof(float) * N_KEY * 2 * SIZE);
    for (int i = 0; i < 6; ++i) free(data[i / 3][i % 3]);
}

// ------------------------------------------------------------------------------------ masks, large scores

// Query 1 sees nothing; query 2 only keys from 70 on, so that no tile before has one; the others everything.
static void check_masked(hirl_dtype_t dtype) {
    enum { N = 150, QUERIES = 3, SIZE = 16, FROM = 70 };
    static float mask_data[QUERIES * N];
    const hirl_attention_param_t p = {1, 1, SIZE, 0, 0, 0, 1};
    for (int j = 0; j < N; ++j) {
        mask_data[N + j] = -INFINITY;
        mask_data[2 * N + j] = j < FROM ? -INFINITY : 0;
    }
    hirl_tensor_t q = drawn(hirl_shape_2(QUERIES, SIZE), dtype, 20, 1),
                  k = drawn(hirl_shape_2(N, SIZE), dtype, 21, 1),
                  v = drawn(hirl_shape_2(N, SIZE), dtype, 22, 1),
                  dy = drawn(hirl_shape_2(QUERIES, SIZE), dtype, 23, 1),
                  mask = made(mask_data, hirl_shape_3(1, QUERIES, N), HIRL_F32), few_q = {0},
                  few_k = {0}, few_v = {0}, y = {0}, few_y = {0}, lse = {0}, dq = {0}, dk = {0},
                  dv = {0};
    NEED_OK(hirl_op_attention(be, &p, &q, &k, &v, NULL, &mask, &y, &lse));
    NEED_OK(hirl_op_attention_backward(be, &p, &q, &k, &v, NULL, &mask, &y, &lse, &dy, &dq, &dk,
                                       &dv, NULL));
    NEED_OK(hirl_tensor_rows(&q, 2, 1, &few_q));
    NEED_OK(hirl_tensor_rows(&k, FROM, N - FROM, &few_k));
    NEED_OK(hirl_tensor_rows(&v, FROM, N - FROM, &few_v));
    NEED_OK(hirl_op_attention(be, &p, &few_q, &few_k, &few_v, NULL, NULL, &few_y, NULL));
    float *y_data = fetched(&y), *few_data = fetched(&few_y), *lse_data = fetched(&lse),
          *dq_data = fetched(&dq), *dk_data = fetched(&dk), *dv_data = fetched(&dv);
    CHECK(lse_data[1] == INFINITY && isfinite(lse_data[0]) && isfinite(lse_data[2]));
    for (int d = 0; d < SIZE; ++d) CHECK(y_data[SIZE + d] == 0 && dq_data[SIZE + d] == 0);
    CHECK_CLOSE_F32(y_data + 2 * SIZE, few_data, SIZE, 0, dtype == HIRL_BF16 ? 4e-3 : 1e-6);
    int n_odd = 0;
    for (int i = 0; i < N * SIZE; ++i) n_odd += !isfinite(dk_data[i]) || !isfinite(dv_data[i]);
    for (int i = 0; i < QUERIES * SIZE; ++i) n_odd += !isfinite(dq_data[i]);
    CHECK_EQ_I(n_odd, 0);
    float *const all[] = {y_data, few_data, lse_data, dq_data, dk_data, dv_data};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i) free(all[i]);
    RESET(&q, &k, &v, &dy, &mask, &few_q, &few_k, &few_v, &y, &few_y, &lse, &dq, &dk, &dv);
}

static void test_masked(void) {
    check_masked(HIRL_F32);
    check_masked(HIRL_BF16);
}

// Scores of thousands: the largest takes all, and exp of none overflows. A NaN shows in its query's row and in no other.
static void test_large_and_nan(void) {
    enum { N = 70, SIZE = 16 };
    static float k_data[N * SIZE], q_data[2 * SIZE];
    const hirl_attention_param_t p = {1, 1, SIZE, 0, 0, 0, 100};
    for (int i = 0; i < 2 * SIZE; ++i) q_data[i] = 1;
    for (int j = 0; j < N; ++j)
        for (int d = 0; d < SIZE; ++d) k_data[j * SIZE + d] = (float)(j == 66 ? 4 : j % 3 - 2);
    hirl_tensor_t q = made(q_data, hirl_shape_2(2, SIZE), HIRL_F32), odd = {0},
                  k = made(k_data, hirl_shape_2(N, SIZE), HIRL_F32),
                  v = drawn(hirl_shape_2(N, SIZE), HIRL_F32, 30, 1), y = {0}, lse = {0};
    NEED_OK(hirl_op_attention(be, &p, &q, &k, &v, NULL, NULL, &y, &lse));
    float *y_data = fetched(&y), *v_data = fetched(&v), *lse_data = fetched(&lse);
    for (int i = 0; i < 2; ++i) {
        CHECK_CLOSE_F32(y_data + i * SIZE, v_data + 66 * SIZE, SIZE, 0, 1e-6);
        CHECK_CLOSE(lse_data[i], 6400.0, 1e-6, 0);
    }
    free(y_data);
    q_data[3] = NAN;
    odd = made(q_data, hirl_shape_2(2, SIZE), HIRL_F32);
    NEED_OK(hirl_op_attention(be, &p, &odd, &k, &v, NULL, NULL, &y, &lse));
    y_data = fetched(&y);
    for (int d = 0; d < SIZE; ++d) CHECK(isnan(y_data[d]) && isfinite(y_data[SIZE + d]));
    free(y_data);
    free(v_data);
    free(lse_data);
    RESET(&q, &odd, &k, &v, &y, &lse);
}

// ------------------------------------------------------------------------------------ columns, memory, refusals

// A given gradient keeps what lies outside the slices; a new one is 0 there. Gradients that nobody wants are left out.
static void test_columns(void) {
    enum { N = 3, SIZE = 16, COLUMNS = 4 * SIZE };
    const hirl_attention_param_t p = {1, 1, SIZE, 8, 24, 40, 1};
    hirl_tensor_t x = drawn(hirl_shape_2(N, COLUMNS), HIRL_F32, 40, 1),
                  dy = drawn(hirl_shape_2(N, SIZE), HIRL_F32, 41, 1), y = {0}, lse = {0},
                  given = made(NULL, x.shape, HIRL_F32), fresh = {0}, only = {0};
    NEED_OK(hirl_op_fill(be, 7, &given));
    NEED_OK(hirl_op_attention(be, &p, &x, &x, &x, NULL, NULL, &y, &lse));
    NEED_OK(hirl_op_attention_backward(be, &p, &x, &x, &x, NULL, NULL, &y, &lse, &dy, &given,
                                       &given, &given, NULL));
    NEED_OK(hirl_op_attention_backward(be, &p, &x, &x, &x, NULL, NULL, &y, &lse, &dy, &fresh,
                                       &fresh, &fresh, NULL));
    NEED_OK(hirl_op_attention_backward(be, &p, &x, &x, &x, NULL, NULL, &y, &lse, &dy, NULL, &only,
                                       NULL, NULL));
    float *a = fetched(&given), *b = fetched(&fresh), *c = fetched(&only);
    for (int i = 0; i < N * COLUMNS; ++i) {
        const int column = i % COLUMNS;
        if (column < 8 || column >= 56)
            CHECK_MSG(a[i] == 7 && b[i] == 0, "column %d: %g, %g", column, (double)a[i],
                      (double)b[i]);
        else
            CHECK_MSG(a[i] == b[i] && a[i] != 7, "column %d: %g, %g", column, (double)a[i],
                      (double)b[i]);
        CHECK(c[i] == (column >= 24 && column < 40 ? a[i] : 0));
    }
    free(a);
    free(b);
    free(c);
    RESET(&x, &dy, &y, &lse, &given, &fresh, &only);
}

// All scores of one head would take N * N * 4 bytes.
static void test_memory(void) {
    enum { N = 520, SIZE = 16 };
    if (strcmp(test_backend(), "cuda") != 0) return;
    const hirl_attention_param_t p = {1, 1, SIZE, 0, SIZE, 2 * SIZE, 0.25f};
    hirl_backend_t *keep = be;
    NEED_OK(hirl_backend_create(test_backend(), 1, &be)); // with a peak of its own
    hirl_tensor_t x = drawn(hirl_shape_2(N, 3 * SIZE), HIRL_F32, 50, 1), y = {0}, lse = {0},
                  dx = {0};
    NEED_OK(hirl_op_attention(be, &p, &x, &x, &x, NULL, NULL, &y, &lse));
    NEED_OK(hirl_op_attention_backward(be, &p, &x, &x, &x, NULL, NULL, &y, &lse, &y, &dx, &dx, &dx,
                                       NULL));
    const size_t peak = hirl_backend_memory_peak(be);
    CHECK_MSG(peak < (size_t)N * N * 4 / 2, "%zu bytes at most, %d for the scores of a head", peak,
              N * N * 4);
    RESET(&x, &y, &lse, &dx);
    hirl_backend_destroy(&be);
    be = keep;
}

static void test_refused(void) {
    const hirl_attention_param_t good = {2, 1, 16, 0, 16, 32, 1};
    hirl_attention_param_t p = good;
    hirl_tensor_t x = drawn(hirl_shape_2(6, 48), HIRL_F32, 60, 1), y = {0}, lse = {0}, dx = {0},
                  bias = drawn(hirl_shape_3(1, 3, 4), HIRL_F32, 61, 1),
                  mask = drawn(hirl_shape_3(3, 3, 3), HIRL_F32, 62, 1), dbias = {0},
                  half = drawn(hirl_shape_2(6, 48), HIRL_BF16, 63, 1),
                  thin = drawn(hirl_shape_2(6, 20), HIRL_F32, 64, 1);
#define REFUSED(k, b, m, text) \
    CHECK_FAILS(hirl_op_attention(be, &p, &x, (k), &x, (b), (m), &y, &lse), HIRL_ERR_ARG, text)
    p.head_size = 20;
    REFUSED(&x, NULL, NULL, "heads of 20 columns, want a multiple of 8 in 16..128");
    p.head_size = 136;
    REFUSED(&x, NULL, NULL, "heads of 136 columns");
    p.head_size = 8;
    REFUSED(&x, NULL, NULL, "heads of 8 columns");
    p = good;
    p.n_batch = 4;
    REFUSED(&x, NULL, NULL, "whose rows are not those of 4 problems");
    p = good;
    p.v_column = 40;
    REFUSED(&x, NULL, NULL, "want room for 1 heads of 16 columns from column 40 on");
    p.v_column = 12;
    REFUSED(&x, NULL, NULL, "and multiples of 8");
    p = good;
    p.scale = NAN;
    REFUSED(&x, NULL, NULL, "scale is nan");
    p = good;
    REFUSED(&half, NULL, NULL, "k is [6, 48] bf16");
    REFUSED(&x, &bias, NULL, "bias is [1, 3, 4] f32, want [1, 3, 3]");
    REFUSED(&x, NULL, &mask, "mask is [3, 3, 3] f32, want [W, 3, 3], W a divisor of 2");
    p.k_column = 0;
    REFUSED(&thin, NULL, NULL, "k is [6, 20] f32");
    p = good;
    CHECK(!hirl_tensor_is_set(&y) && !hirl_tensor_is_set(&lse));
    NEED_OK(hirl_op_attention(be, &p, &x, &x, &x, NULL, NULL, &y, &lse));
    CHECK_FAILS(hirl_op_attention_backward(be, &p, &x, &x, &x, NULL, NULL, &y, &lse, &y, &dx, &dx,
                                           &dx, &dbias),
                HIRL_ERR_ARG, "dbias without bias");
    p.k_column = 8;
    CHECK_FAILS(hirl_op_attention_backward(be, &p, &x, &x, &x, NULL, NULL, &y, &lse, &y, &dx, &dx,
                                           &dx, NULL),
                HIRL_ERR_ARG, "dq and dk share a tensor, but columns 0.. and 8.. of 16 overlap");
    CHECK(!hirl_tensor_is_set(&dx));
    RESET(&x, &y, &lse, &dx, &bias, &mask, &dbias, &half, &thin);
}

TEST_MAIN {
    NEED_OK(hirl_backend_create(test_backend(), 2, &be));
    RUN(test_reference);
    RUN(test_same_bits);
    RUN(test_one_head);
    RUN(test_masked);
    RUN(test_large_and_nan);
    RUN(test_columns);
    RUN(test_memory);
    RUN(test_refused);
    CHECK_EQ_I(hirl_backend_memory_used(be), 0);
    hirl_backend_destroy(&be);
}
