// Layouts of the cpu backend: equal ones are the same record, conversions lose nothing, padded channels stay zero through every
// operation that keeps a layout, and mixed layouts give what plain tensors give.
// test: timeout=60
#include "hirl/backend.h"

#include "test.h"

static hirl_backend_t *be;
enum { N = 3, H = 5, W = 4, C = 20, COUNT = N * H * W * C, PADDED = N * H * W * 32 };

static hirl_tensor_t plain_image(hirl_dtype_t dtype, uint64_t stream) {
    hirl_tensor_t x = {0}, y = {0};
    NEED_OK(hirl_backend_tensor(be, hirl_shape_4(N, H, W, C), HIRL_F32, &x));
    test_fill_normal(hirl_tensor_f32(&x), COUNT, stream);
    if (dtype == HIRL_F32) return x;
    NEED_OK(hirl_op_cast(be, &x, dtype, &y));
    hirl_tensor_reset(&x);
    return y;
}

static hirl_tensor_t blocked_image(hirl_dtype_t dtype, uint64_t stream) {
    hirl_tensor_t x = plain_image(dtype, stream), y = {0};
    NEED_OK(hirl_op_to_blocked(be, &x, &y));
    hirl_tensor_reset(&x);
    return y;
}

/// Zeros beyond the channels that exist: 20 of 32 with blocks of 16, 20 of 24 with blocks of 8.
static int64_t padding_not_zero(const hirl_tensor_t *x) {
    const size_t element = hirl_dtype_size(x->dtype);
    const int64_t stored = (int64_t)(hirl_storage_bytes(x->storage) / element),
                  per_sample = stored / N / H / W;
    const int64_t lanes = per_sample == 32 ? 16 : 8;
    int64_t n_bad = 0;
    for (int64_t i = 0; i < stored; i++) {
        const int64_t lane = i % lanes, block = i / (lanes * H * W) % (per_sample / lanes);
        if (block * lanes + lane < C) continue;
        const unsigned char *byte =
            (const unsigned char *)hirl_tensor_data(x) + (size_t)i * element;
        for (size_t k = 0; k < element; k++) n_bad += byte[k] != 0;
    }
    return n_bad;
}

static void check_plain_equal(const hirl_tensor_t *x, const hirl_tensor_t *want) {
    hirl_tensor_t a = {0}, b = {0};
    NEED_OK(hirl_op_to_plain(be, x, x->dtype, &a));
    NEED_OK(hirl_op_to_plain(be, want, want->dtype, &b));
    CHECK_BITS(hirl_tensor_data(&a), hirl_tensor_data(&b), COUNT * hirl_dtype_size(x->dtype));
    hirl_tensor_reset(&a);
    hirl_tensor_reset(&b);
}

static void test_identity(void) {
    hirl_tensor_t a = blocked_image(HIRL_F32, 1), b = blocked_image(HIRL_F32, 2),
                  c = blocked_image(HIRL_BF16, 1), d = {0}, e = {0};
    CHECK(a.layout && a.layout == b.layout);
    CHECK(c.layout && c.layout != a.layout);
    NEED_OK(hirl_op_cast(be, &c, HIRL_F32, &d)); // keeps the arrangement
    CHECK(d.layout == a.layout);
    NEED_OK(hirl_op_cast(be, &d, HIRL_BF16, &e));
    CHECK(e.layout == c.layout);
    check_plain_equal(&e, &c); // there and back is exact for values of bf16
    hirl_tensor_t one = {0}, none = {0};
    NEED_OK(hirl_backend_tensor(be, hirl_shape_4(N - 1, H, W, C), HIRL_F32, &one));
    NEED_OK(hirl_op_fill(be, 0, &one));
    NEED_OK(hirl_op_to_blocked(be, &one, &none));
    CHECK(none.layout != a.layout); // another batch is another layout
    hirl_tensor_t *const all[] = {&a, &b, &c, &d, &e, &one, &none};
    for (int i = 0; i < 7; i++) hirl_tensor_reset(all[i]);
}

static void test_round_trip(void) {
    for (int dtype = HIRL_F32; dtype <= HIRL_BF16; dtype++) {
        hirl_tensor_t x = plain_image((hirl_dtype_t)dtype, 3), blocked = {0}, back = {0},
                      like = {0};
        NEED_OK(hirl_op_to_blocked(be, &x, &blocked));
        CHECK(!hirl_tensor_is_plain(&blocked));
        CHECK_EQ_I(padding_not_zero(&blocked), 0);
        check_plain_equal(&blocked, &x);
        NEED_OK(hirl_op_to_layout_of(be, &blocked, &x, &back));
        CHECK(hirl_tensor_is_plain(&back));
        check_plain_equal(&back, &x);
        NEED_OK(hirl_op_to_layout_of(be, &x, &blocked, &like));
        CHECK(like.layout == blocked.layout && like.storage != x.storage);
        check_plain_equal(&like, &x);
        hirl_tensor_t *const all[] = {&x, &blocked, &back, &like};
        for (int i = 0; i < 4; i++) hirl_tensor_reset(all[i]);
    }
}

// Every operation that keeps a layout, on all four mixtures of layouts, against the same on plain tensors.
static void test_mixtures(void) {
    const hirl_pool_param_t p = {3, 2, 1};
    for (int dtype = HIRL_F32; dtype <= HIRL_BF16; dtype++) {
        const hirl_dtype_t t = (hirl_dtype_t)dtype;
        for (int mixture = 0; mixture < 4; mixture++) {
            hirl_tensor_t pa = plain_image(t, 4), pb = plain_image(t, 5);
            hirl_tensor_t a = mixture & 1 ? blocked_image(t, 4) : hirl_tensor_retain(&pa);
            hirl_tensor_t b = mixture & 2 ? blocked_image(t, 5) : hirl_tensor_retain(&pb);
            hirl_tensor_t mean = {0}, var = {0}, y[2] = {{0}}, given = {0};
            NEED_OK(hirl_op_bn_stats(be, &pa, 1, &mean, &var));
            for (int op = 0; op < 9; op++) {
                for (int k = 0; k < 2; k++) {
                    const hirl_tensor_t *u = k ? &a : &pa, *v = k ? &b : &pb;
                    hirl_tensor_t average = {0};
                    if (op == 0) NEED_OK(hirl_op_add(be, u, v, &y[k]));
                    if (op == 1) NEED_OK(hirl_op_mul(be, u, v, &y[k]));
                    if (op == 2) NEED_OK(hirl_op_act(be, HIRL_ACT_GELU, u, &y[k]));
                    if (op == 3) NEED_OK(hirl_op_act_backward(be, HIRL_ACT_RELU, u, v, &y[k]));
                    if (op == 4)
                        NEED_OK(hirl_op_bn_apply(be, u, 1, &mean, &var, 1e-5f, NULL, NULL, v, true,
                                                 &y[k]));
                    if (op == 5)
                        NEED_OK(hirl_op_bn_backward_apply(be, u, v, u, 1, &mean, &var, 1e-5f, NULL,
                                                          &mean, &var, &y[k], NULL));
                    if (op == 6) {
                        NEED_OK(hirl_op_to_layout_of(be, v, v, &y[k]));
                        NEED_OK(hirl_op_axpby(be, 0.5f, u, -2, &y[k]));
                    }
                    if (op == 7) {
                        NEED_OK(hirl_op_to_layout_of(be, u, u, &y[k]));
                        NEED_OK(hirl_op_fill(be, 3, &y[k]));
                    }
                    if (op == 8) {
                        NEED_OK(hirl_op_global_avg_pool(be, &pa, &average));
                        NEED_OK(hirl_op_global_avg_pool_backward(be, &average, u, &y[k]));
                        CHECK(y[k].layout == u->layout);
                        hirl_tensor_reset(&average);
                    }
                }
                // Elementwise arithmetic is the same in every layout, bit for bit.
                check_plain_equal(&y[1], &y[0]);
                if (y[1].layout) CHECK_EQ_I(padding_not_zero(&y[1]), 0);
                if (mixture && op < 4)
                    CHECK(y[1].layout || (op == 2 && !a.layout)); // an opaque layout leads
                hirl_tensor_reset(&y[0]);
                hirl_tensor_reset(&y[1]);
            }
            // An output that is given is plain and filled, whatever the inputs.
            NEED_OK(hirl_backend_tensor(be, pa.shape, t, &given));
            NEED_OK(hirl_op_add(be, &a, &b, &given));
            NEED_OK(hirl_op_add(be, &pa, &pb, &y[0]));
            check_plain_equal(&given, &y[0]);
            hirl_tensor_reset(&y[0]);
            // Pooling and its backward.
            hirl_tensor_t ws[2] = {{0}}, pooled[2] = {{0}}, dx[2] = {{0}};
            for (int k = 0; k < 2; k++) {
                NEED_OK(hirl_op_max_pool(be, &p, k ? &a : &pa, &pooled[k], &ws[k]));
                NEED_OK(hirl_op_max_pool_backward(be, &p, &pooled[0], &ws[k], &pa.shape, &dx[k]));
            }
            check_plain_equal(&dx[1], &dx[0]);
            hirl_tensor_t *const all[] = {&pa,        &pb,    &a,     &b,     &mean,
                                          &var,       &given, &ws[0], &ws[1], &pooled[0],
                                          &pooled[1], &dx[0], &dx[1]};
            for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) hirl_tensor_reset(all[i]);
        }
    }
}

// A gradient that arrives in another layout than the image is written back in place in its own.
static void test_in_place(void) {
    for (int mixture = 0; mixture < 4; mixture++) {
        hirl_tensor_t x = mixture & 1 ? blocked_image(HIRL_F32, 6) : plain_image(HIRL_F32, 6);
        hirl_tensor_t dy = mixture & 2 ? blocked_image(HIRL_F32, 7) : plain_image(HIRL_F32, 7),
                      mean = {0}, var = {0}, want = {0};
        NEED_OK(hirl_op_bn_stats(be, &x, 1, &mean, &var));
        NEED_OK(hirl_op_bn_backward_apply(be, &dy, NULL, &x, 1, &mean, &var, 1e-5f, NULL, &mean,
                                          &var, &want, NULL));
        hirl_tensor_t dx = hirl_tensor_retain(&dy);
        NEED_OK(hirl_op_bn_backward_apply(be, &dy, NULL, &x, 1, &mean, &var, 1e-5f, NULL, &mean,
                                          &var, &dx, NULL));
        CHECK(dx.storage == dy.storage && dx.layout == dy.layout);
        check_plain_equal(&dy, &want);
        hirl_tensor_t *const all[] = {&x, &dy, &dx, &mean, &var, &want};
        for (int i = 0; i < 6; i++) hirl_tensor_reset(all[i]);
    }
}

TEST_MAIN {
    NEED_OK(hirl_backend_create("cpu", 2, &be));
    RUN(test_identity);
    RUN(test_round_trip);
    RUN(test_mixtures);
    RUN(test_in_place);
    CHECK_EQ_I(hirl_backend_memory_used(be), 0);
    hirl_backend_destroy(&be);
}
