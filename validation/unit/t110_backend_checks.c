// What the operations refuse, for every backend alike: wrong shapes, dtypes, indices, scalars, foreign layouts; what they say, and
// that outputs stay as they were.
// test: backends=ref,cpu,cuda timeout=60
#include "hirl/backend.h"

#include "test.h"

static hirl_backend_t *be;

static hirl_tensor_t tensor(hirl_shape_t shape, hirl_dtype_t dtype) {
    hirl_tensor_t x = {0};
    NEED_OK(hirl_backend_tensor(be, shape, dtype, &x));
    void *zeros = NULL;
    const size_t bytes = (size_t)hirl_shape_count(&shape) * hirl_dtype_size(dtype);
    NEED_OK(hirl_mem_alloc(HIRL_MEM_WORKSPACE, bytes, &zeros));
    memset(zeros, 0, bytes);
    NEED_OK(hirl_backend_upload(be, zeros, &x));
    hirl_mem_free(zeros);
    return x;
}

static void test_names(void) {
    int n = 0;
    const char *const *names = hirl_backend_names(&n);
    CHECK(n >= 2);
    bool has_it = false;
    for (int i = 0; i < n; i++) has_it |= strcmp(names[i], test_backend()) == 0;
    CHECK(has_it);
    hirl_backend_t *none = NULL;
    CHECK_FAILS(hirl_backend_create("cpo", 1, &none), HIRL_ERR_ARG, "did you mean 'cpu'?");
    CHECK_FAILS(hirl_backend_create("cpu", -1, &none), HIRL_ERR_ARG, "-1 threads");
    CHECK(none == NULL);
    NEED_OK(hirl_backend_create("auto", 1, &none));
    CHECK_EQ_S(hirl_backend_name(none), names[0]);
    hirl_backend_destroy(&none);
    CHECK_EQ_S(hirl_backend_name(be), test_backend());
    CHECK(strlen(hirl_backend_info_view(be)) > 3);
}

static void test_arguments(void) {
    hirl_tensor_t a = tensor(hirl_shape_2(3, 4), HIRL_F32),
                  b = tensor(hirl_shape_2(4, 3), HIRL_F32), y = {0};
    hirl_tensor_t half = tensor(hirl_shape_2(3, 4), HIRL_BF16),
                  index = tensor(hirl_shape_1(3), HIRL_I32);
    CHECK_FAILS(hirl_op_add(NULL, &a, &a, &y), HIRL_ERR_ARG, "no backend");
    CHECK_FAILS(hirl_op_add(be, &a, &b, &y), HIRL_ERR_ARG,
                "add: x1 is [3, 4] f32 but x2 is [4, 3] f32");
    CHECK_FAILS(hirl_op_add(be, &a, &half, &y), HIRL_ERR_ARG, "[3, 4] bf16");
    CHECK_FAILS(hirl_op_add(be, &a, &y, &y), HIRL_ERR_ARG, "x2 is no tensor");
    CHECK_FAILS(hirl_op_add(be, &index, &index, &y), HIRL_ERR_ARG, "x1 is [3] i32");
    CHECK_FAILS(hirl_op_add(be, &a, &a, NULL), HIRL_ERR_ARG, "no output y");
    CHECK_FAILS(hirl_op_add(be, &a, &a, &b), HIRL_ERR_ARG,
                "output y is [4, 3] f32, want [3, 4] f32");
    CHECK_FAILS(hirl_op_axpby(be, NAN, &a, 1, &a), HIRL_ERR_ARG, "a is nan");
    CHECK_FAILS(hirl_op_axpby(be, 1, &a, INFINITY, &a), HIRL_ERR_ARG, "b is inf");
    CHECK_FAILS(hirl_op_cast(be, &a, HIRL_I64, &y), HIRL_ERR_ARG, "i64");
    CHECK_FAILS(hirl_op_gemm(be, false, false, 1, &a, &a, 0, &y), HIRL_ERR_ARG, "do not multiply");
    CHECK_FAILS(hirl_op_gemm(be, false, false, 1, &a, &b, 1, &y), HIRL_ERR_ARG,
                "accumulates into c");
    CHECK_FAILS(hirl_op_linear(be, &a, &b, NULL, HIRL_ACT_NONE, &y, NULL), HIRL_ERR_ARG,
                "w is [4, 3] f32 [O, I]");
    CHECK_FAILS(hirl_op_act(be, (hirl_act_t)9, &a, &y), HIRL_ERR_ARG, "activation 9");
    CHECK_FAILS(hirl_op_l2_normalize(be, &half, &y, &y), HIRL_ERR_ARG, "bf16");
    CHECK_FAILS(hirl_op_row_scale(be, &a, &a, false, &y), HIRL_ERR_ARG, "want 1 axes");
    CHECK(!hirl_tensor_is_set(&y));
    // A tensor that claims more than its storage has.
    hirl_tensor_t liar = a;
    liar.shape = hirl_shape_2(30, 4);
    CHECK_FAILS(hirl_op_add(be, &liar, &liar, &y), HIRL_ERR_ARG, "storage of only 48 bytes");
    hirl_tensor_t *const all[] = {&a, &b, &half, &index};
    for (int i = 0; i < 4; i++) hirl_tensor_reset(all[i]);
}

// Devices find a bad index while they work, and tell it at the next wait.
static hirl_status_t settled(hirl_status_t status, hirl_tensor_t *y, hirl_tensor_t *other) {
    if (status != HIRL_OK) return status;
    status = hirl_backend_synchronize(be);
    hirl_tensor_reset(y);
    if (other) hirl_tensor_reset(other);
    CHECK_OK(hirl_backend_synchronize(be)); // told once
    return status;
}

static void test_indices(void) {
    hirl_tensor_t x = tensor(hirl_shape_2(3, 4), HIRL_F32),
                  index = tensor(hirl_shape_1(2), HIRL_I32), y = {0}, lse = {0};
    const int32_t bad[2] = {0, 3};
    NEED_OK(hirl_backend_upload(be, bad, &index));
    CHECK_FAILS(settled(hirl_op_gather_rows(be, &x, &index, &y), &y, NULL), HIRL_ERR_ARG,
                "element 1 of index is 3, want 0..2");
    CHECK_FAILS(hirl_op_gather_rows_backward(be, &x, &index, false, &y), HIRL_ERR_ARG,
                "dx must be given");
    CHECK_FAILS(hirl_op_cross_entropy(be, &x, 1, &index, &y, &lse, NULL), HIRL_ERR_ARG,
                "target is [2] i32");
    hirl_tensor_t target = tensor(hirl_shape_1(3), HIRL_I32);
    const int32_t negative[3] = {0, -1, 2};
    NEED_OK(hirl_backend_upload(be, negative, &target));
    CHECK_FAILS(settled(hirl_op_cross_entropy(be, &x, 1, &target, &y, &lse, NULL), &y, &lse),
                HIRL_ERR_ARG, "element 1 of target is -1, want 0..3");
    hirl_tensor_t positive = tensor(hirl_shape_2(3, 1), HIRL_I32),
                  paths = tensor(hirl_shape_3(3, 2, 1), HIRL_I32);
    const int32_t far[6] = {0, 1, 2, 3, 4, 0};
    NEED_OK(hirl_backend_upload(be, far, &paths));
    const hirl_tensor_t *similarity[1] = {&x};
    CHECK_FAILS(
        settled(hirl_op_path_loss(be, 1, similarity, &positive, &paths, &y, NULL), &y, NULL),
        HIRL_ERR_ARG, "element 4 of negative is 4");
    CHECK_FAILS(hirl_op_path_loss(be, 2, similarity, &positive, &paths, &y, NULL), HIRL_ERR_ARG,
                "[B, 2]");
    CHECK_FAILS(hirl_op_path_loss(be, 9, similarity, &positive, &paths, &y, NULL), HIRL_ERR_ARG,
                "9 levels");
    CHECK(!hirl_tensor_is_set(&y) && !hirl_tensor_is_set(&lse));
    hirl_tensor_t *const all[] = {&x, &index, &target, &positive, &paths};
    for (int i = 0; i < 5; i++) hirl_tensor_reset(all[i]);
}

static void test_images(void) {
    hirl_tensor_t x = tensor(hirl_shape_4(2, 5, 6, 3), HIRL_F32),
                  w = tensor(hirl_shape_4(4, 3, 3, 3), HIRL_F32), y = {0}, ws = {0};
    hirl_tensor_t wrong = tensor(hirl_shape_4(4, 2, 3, 3), HIRL_F32),
                  large = tensor(hirl_shape_4(4, 3, 9, 9), HIRL_F32);
    hirl_conv_param_t p = {1, 1, 1, 1};
    CHECK_FAILS(hirl_op_conv2d(be, &p, &x, &wrong, NULL, &y), HIRL_ERR_ARG, "wants 2 channels");
    CHECK_FAILS(hirl_op_conv2d(be, &p, &x, &large, NULL, &y), HIRL_ERR_ARG, "larger than x");
    CHECK_FAILS(hirl_op_conv2d(be, NULL, &x, &w, NULL, &y), HIRL_ERR_ARG, "no parameters");
    CHECK_FAILS(hirl_op_conv2d(be, &p, &w, &x, NULL, &y), HIRL_ERR_ARG, "");
    p.stride_w = 0;
    CHECK_FAILS(hirl_op_conv2d(be, &p, &x, &w, NULL, &y), HIRL_ERR_ARG, "stride 1 x 0");
    p.stride_w = 1;
    const hirl_shape_t other = hirl_shape_4(2, 6, 6, 3);
    NEED_OK(hirl_op_conv2d(be, &p, &x, &w, NULL, &y));
    hirl_tensor_t dx = {0};
    CHECK_FAILS(hirl_op_conv2d_backward_data(be, &p, &y, &w, &other, &dx), HIRL_ERR_ARG,
                "dy is [2, 5, 6, 4] f32");
    CHECK_FAILS(hirl_op_conv2d_backward_weights(be, &p, &x, &y, false, &dx, NULL), HIRL_ERR_ARG,
                "dw is no tensor");
    const hirl_pool_param_t all_padding = {2, 1, 2};
    CHECK_FAILS(hirl_op_max_pool(be, &all_padding, &x, &dx, &ws), HIRL_ERR_ARG, "padding 2");
    hirl_tensor_t mean = {0}, var = {0};
    CHECK_FAILS(hirl_op_bn_stats(be, &x, 3, &mean, &var), HIRL_ERR_ARG, "not 3 equal groups");
    NEED_OK(hirl_op_bn_stats(be, &x, 2, &mean, &var));
    CHECK_FAILS(hirl_op_bn_apply(be, &x, 1, &mean, &var, 1e-5f, NULL, NULL, NULL, false, &dx),
                HIRL_ERR_ARG, "want [1, 3]");
    CHECK_FAILS(hirl_op_bn_apply(be, &x, 2, &mean, &var, NAN, NULL, NULL, NULL, false, &dx),
                HIRL_ERR_ARG, "eps is nan");
    CHECK_FAILS(hirl_op_bn_apply(be, &x, 2, &mean, &var, 1e-5f, NULL, NULL, &y, false, &dx),
                HIRL_ERR_ARG, "residual is [2, 5, 6, 4]");
    CHECK_FAILS(hirl_op_bn_backward_apply(be, &x, NULL, &x, 2, &mean, &var, 1e-5f, NULL, &mean,
                                          NULL, &dx, NULL),
                HIRL_ERR_ARG, "go together");
    CHECK(!hirl_tensor_is_set(&dx) && !hirl_tensor_is_set(&ws));
    hirl_tensor_t *const all[] = {&x, &w, &y, &wrong, &large, &mean, &var};
    for (int i = 0; i < 7; i++) hirl_tensor_reset(all[i]);
}

static void test_foreign_layout(void) {
    hirl_backend_t *other = NULL;
    NEED_OK(hirl_backend_create("cpu", 1, &other));
    hirl_tensor_t plain = {0}, blocked = {0}, y = {0};
    NEED_OK(hirl_backend_tensor(other, hirl_shape_4(1, 2, 2, 5), HIRL_F32, &plain));
    NEED_OK(hirl_op_fill(other, 1, &plain));
    NEED_OK(hirl_op_to_blocked(other, &plain, &blocked));
    CHECK(!hirl_tensor_is_plain(&blocked));
    CHECK_FAILS(hirl_op_act(be, HIRL_ACT_RELU, &blocked, &y), HIRL_ERR_ARG,
                hirl_backend_stream_view(be) ? "lies in host memory" : "of another backend");
    float host[20];
    CHECK_FAILS(hirl_backend_download(be, &blocked, host), HIRL_ERR_ARG, "opaque layout");
    hirl_tensor_t view = {0};
    CHECK_FAILS(hirl_tensor_rows(&blocked, 0, 1, &view), HIRL_ERR_ARG, "opaque layout");
    CHECK_FAILS(hirl_tensor_reshape(&blocked, hirl_shape_1(20), &view), HIRL_ERR_ARG,
                "opaque layout");
    hirl_tensor_reset(&plain);
    hirl_tensor_reset(&blocked);
    hirl_backend_destroy(&other);
}

static void test_updates(void) {
    hirl_tensor_t p = tensor(hirl_shape_1(8), HIRL_F32), g = tensor(hirl_shape_1(7), HIRL_F32),
                  v = tensor(hirl_shape_1(8), HIRL_F32);
    const hirl_segment_t some[] = {{2, 3, 0, 0, false}, {5, 3, 2, 0, false}};
    hirl_segments_t *s = NULL, *t = NULL;
    hirl_update_t u = {.lr = 0.1f, .beta1 = 0.9f, .beta2 = 1};
    CHECK_FAILS(hirl_segments_create(be, some, 0, &s), HIRL_ERR_ARG, "one segment at least");
    CHECK_FAILS(hirl_segments_create(be, (hirl_segment_t[]){some[1], some[0]}, 2, &s), HIRL_ERR_ARG,
                "number 1 has 3 elements from 2 on, want 1 at least from 8 on");
    CHECK_FAILS(hirl_segments_create(be, &(hirl_segment_t){0}, 1, &s), HIRL_ERR_ARG,
                "number 0 has 0 elements");
    CHECK_FAILS(hirl_segments_create(be, &(hirl_segment_t){0, 1, 0, INFINITY, false}, 1, &s),
                HIRL_ERR_ARG, "weight decay inf");
    NEED_OK(hirl_segments_create(be, some, 2, &s));
    NEED_OK(hirl_segments_create(be, &(hirl_segment_t){8, 1, 0, 0, false}, 1, &t));
    CHECK_FAILS(hirl_op_update(be, &u, s, &g, &v, NULL, &p), HIRL_ERR_ARG,
                "g is [7] f32, want 8 elements");
    CHECK_FAILS(hirl_op_update(be, &u, t, &v, &v, NULL, &p), HIRL_ERR_ARG, "reach element 9");
    CHECK_FAILS(hirl_op_update(be, &u, NULL, &v, &v, NULL, &p), HIRL_ERR_ARG, "no segments given");
    CHECK_FAILS(hirl_op_sum_squares_of(be, 1, (const hirl_segments_t *[]){t},
                                       (const hirl_tensor_t *[]){&p}, &(double){0}),
                HIRL_ERR_ARG, "reach element 9");
    u.lr = NAN;
    CHECK_FAILS(hirl_op_update(be, &u, s, &v, &v, NULL, &p), HIRL_ERR_ARG, "lr is nan");
    u = (hirl_update_t){.rule = HIRL_RULE_ADAMW, .beta1 = 0.9f, .beta2 = 1, .step = 2};
    CHECK_FAILS(hirl_op_update(be, &u, s, &v, &v, &v, &p), HIRL_ERR_ARG, "betas 0.9 and 1");
    u.beta2 = 0.9f;
    CHECK_FAILS(hirl_op_update(be, &u, s, &v, &v, &v, &p), HIRL_ERR_ARG, "step 0 of segment 1");
    CHECK_FAILS(hirl_op_update(be, &u, s, &v, &v, NULL, &p), HIRL_ERR_ARG, "w is no tensor");
    hirl_segments_destroy(&s);
    hirl_segments_destroy(&t);
    CHECK_FAILS(hirl_op_sum_squares(be, &p, NULL), HIRL_ERR_ARG, "no output");
    hirl_tensor_reset(&p);
    hirl_tensor_reset(&g);
    hirl_tensor_reset(&v);
}

TEST_MAIN {
    NEED_OK(hirl_backend_create(test_backend(), 2, &be));
    RUN(test_names);
    RUN(test_arguments);
    RUN(test_indices);
    RUN(test_images);
    RUN(test_foreign_layout);
    RUN(test_updates);
    CHECK_EQ_I(hirl_backend_memory_used(be), 0);
    CHECK(hirl_backend_memory_peak(be) > 0);
    hirl_backend_destroy(&be);
}
