// A chain of layers, forward and backward, over and over: from the second round on nothing is allocated, and all rounds have the
// same bits. Convolutions, pooling, norms, linear layers, in both dtypes.
// test: timeout=120
#include "hirl/backend.h"

#include "test.h"

enum { N = 16, SIZE = 16, C = 64, CLASSES = 10, N_SUMS = 6 };

static hirl_backend_t *be;

static hirl_tensor_t tensor(hirl_shape_t shape, float scale, uint64_t stream) {
    hirl_tensor_t x = {0};
    NEED_OK(hirl_backend_tensor(be, shape, HIRL_F32, &x));
    test_fill_normal(hirl_tensor_f32(&x), hirl_shape_count(&shape), stream);
    NEED_OK(hirl_op_axpby(be, 0, &x, scale, &x));
    return x;
}

typedef struct net {
    hirl_dtype_t dtype;
    hirl_tensor_t image, target, w1, w2, w3, w4, bias, dw1, dw2, dw3, dw4, dbias;
} net_t;

static net_t make_net(hirl_dtype_t dtype) {
    net_t net = {.dtype = dtype};
    net.image = tensor(hirl_shape_4(N, SIZE, SIZE, 3), 1, 1);
    net.w1 = tensor(hirl_shape_4(C, 3, 3, 3), 0.2f, 2);
    net.w2 = tensor(hirl_shape_4(C, C, 3, 3), 0.06f, 3); // Winograd in f32
    net.w3 = tensor(hirl_shape_4(2 * C, C, 1, 1), 0.1f, 4);
    net.w4 = tensor(hirl_shape_2(CLASSES, 2 * C), 0.1f, 5);
    net.bias = tensor(hirl_shape_1(CLASSES), 0.1f, 6);
    NEED_OK(hirl_backend_tensor(be, hirl_shape_1(N), HIRL_I32, &net.target));
    for (int i = 0; i < N; i++) ((int32_t *)hirl_tensor_data(&net.target))[i] = i % CLASSES;
    NEED_OK(hirl_backend_tensor(be, net.w1.shape, HIRL_F32, &net.dw1));
    NEED_OK(hirl_backend_tensor(be, net.w2.shape, HIRL_F32, &net.dw2));
    NEED_OK(hirl_backend_tensor(be, net.w3.shape, HIRL_F32, &net.dw3));
    NEED_OK(hirl_backend_tensor(be, net.w4.shape, HIRL_F32, &net.dw4));
    NEED_OK(hirl_backend_tensor(be, net.bias.shape, HIRL_F32, &net.dbias));
    return net;
}

static void free_net(net_t *net) {
    hirl_tensor_t *const all[] = {&net->image, &net->target, &net->w1,   &net->w2,
                                  &net->w3,    &net->w4,     &net->bias, &net->dw1,
                                  &net->dw2,   &net->dw3,    &net->dw4,  &net->dbias};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) hirl_tensor_reset(all[i]);
}

static void round_trip(net_t *net, double sums[N_SUMS]) {
    const hirl_conv_param_t same = {1, 1, 1, 1}, half = {2, 2, 0, 0};
    const hirl_pool_param_t pool = {3, 2, 1};
    hirl_tensor_t x0 = {0}, c1 = {0}, m1 = {0}, v1 = {0}, y1 = {0}, p1 = {0}, ws = {0}, c2 = {0},
                  m2 = {0}, v2 = {0}, y2 = {0}, c3 = {0};
    hirl_tensor_t pooled = {0}, logits = {0}, loss = {0}, lse = {0}, dlogits = {0}, dpooled = {0},
                  d3 = {0}, d2 = {0}, s1 = {0}, s2 = {0};
    hirl_tensor_t dc2 = {0}, dr = {0}, dp1 = {0}, dy1 = {0}, dc1 = {0};
    NEED_OK(hirl_op_cast(be, &net->image, net->dtype, &x0));
    NEED_OK(hirl_op_conv2d(be, &same, &x0, &net->w1, NULL, &c1));
    NEED_OK(hirl_op_bn_stats(be, &c1, 2, &m1, &v1));
    NEED_OK(hirl_op_bn_apply(be, &c1, 2, &m1, &v1, 1e-5f, NULL, NULL, NULL, true, &y1));
    NEED_OK(hirl_op_max_pool(be, &pool, &y1, &p1, &ws));
    NEED_OK(hirl_op_conv2d(be, &same, &p1, &net->w2, NULL, &c2));
    NEED_OK(hirl_op_bn_stats(be, &c2, 1, &m2, &v2));
    NEED_OK(hirl_op_bn_apply(be, &c2, 1, &m2, &v2, 1e-5f, NULL, NULL, &p1, true, &y2));
    NEED_OK(hirl_op_conv2d(be, &half, &y2, &net->w3, NULL, &c3));
    NEED_OK(hirl_op_global_avg_pool(be, &c3, &pooled));
    NEED_OK(hirl_op_linear(be, &pooled, &net->w4, &net->bias, HIRL_ACT_NONE, &logits, NULL));
    NEED_OK(hirl_op_cross_entropy(be, &logits, 1, &net->target, &loss, &lse, NULL));
    NEED_OK(hirl_op_cross_entropy_backward(be, &logits, 1, &net->target, &lse, &loss, &dlogits));
    NEED_OK(hirl_op_linear_backward(be, &dlogits, &pooled, &net->w4, false, &dpooled, &net->dw4,
                                    &net->dbias));
    NEED_OK(hirl_op_global_avg_pool_backward(be, &dpooled, &c3, &d3));
    NEED_OK(hirl_op_conv2d_backward_weights(be, &half, &y2, &d3, false, &net->dw3, NULL));
    NEED_OK(hirl_op_conv2d_backward_data(be, &half, &d3, &net->w3, &y2.shape, &d2));
    NEED_OK(hirl_op_bn_backward_sums(be, &d2, &y2, &c2, 1, &m2, &v2, 1e-5f, &s1, &s2));
    NEED_OK(hirl_op_bn_backward_apply(be, &d2, &y2, &c2, 1, &m2, &v2, 1e-5f, NULL, &s1, &s2, &dc2,
                                      &dr));
    NEED_OK(hirl_op_conv2d_backward_weights(be, &same, &p1, &dc2, false, &net->dw2, NULL));
    NEED_OK(hirl_op_conv2d_backward_weights(be, &same, &p1, &dc2, true, &net->dw2, NULL));
    NEED_OK(hirl_op_conv2d_backward_data(be, &same, &dc2, &net->w2, &p1.shape, &dp1));
    NEED_OK(hirl_op_axpby(be, 1, &dr, 1, &dp1));
    NEED_OK(hirl_op_max_pool_backward(be, &pool, &dp1, &ws, &y1.shape, &dy1));
    dc1 = hirl_tensor_retain(&dy1);
    NEED_OK(hirl_op_bn_backward_apply(be, &dy1, &y1, &c1, 2, &m1, &v1, 1e-5f, NULL, NULL, NULL,
                                      &dc1, NULL));
    NEED_OK(hirl_op_conv2d_backward_weights(be, &same, &x0, &dc1, false, &net->dw1, NULL));
    const hirl_tensor_t *const gradients[N_SUMS] = {&net->dw1, &net->dw2,   &net->dw3,
                                                    &net->dw4, &net->dbias, &loss};
    for (int i = 0; i < N_SUMS; i++) NEED_OK(hirl_op_sum_squares(be, gradients[i], &sums[i]));
    hirl_tensor_t *const all[] = {&x0, &c1, &m1, &v1,     &y1,     &p1,   &ws,  &c2,      &m2,
                                  &v2, &y2, &c3, &pooled, &logits, &loss, &lse, &dlogits, &dpooled,
                                  &d3, &d2, &s1, &s2,     &dc2,    &dr,   &dp1, &dy1,     &dc1};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) hirl_tensor_reset(all[i]);
}

static void test_rounds(hirl_dtype_t dtype) {
    enum { ROUNDS = 4 };
    NEED_OK(hirl_backend_create("cpu", 2, &be));
    net_t net = make_net(dtype);
    double first[N_SUMS] = {0}, sums[N_SUMS];
    size_t used = hirl_backend_memory_used(be), held = 0, peak = 0, general_peak = 0;
    for (int round = 0; round < ROUNDS; round++) {
        round_trip(&net, sums);
        if (round == 0) {
            memcpy(first, sums, sizeof first);
            // From here on: no more memory of any kind, not even for a moment.
            hirl_mem_reset_peak();
            held = hirl_mem_held(HIRL_MEM_KIND_COUNT);
            general_peak = hirl_mem_held(HIRL_MEM_GENERAL);
            peak = hirl_backend_memory_peak(be);
        }
        CHECK_BITS(sums, first, sizeof first);
        CHECK_EQ_I(hirl_backend_memory_used(be), used);
        CHECK_EQ_I(hirl_mem_held(HIRL_MEM_KIND_COUNT), held);
    }
    CHECK_EQ_I(hirl_mem_peak(HIRL_MEM_KIND_COUNT), held);
    CHECK_EQ_I(hirl_mem_peak(HIRL_MEM_GENERAL), general_peak);
    CHECK_EQ_I(hirl_backend_memory_peak(be), peak);
    for (int i = 0; i < N_SUMS; i++) CHECK(isfinite(sums[i]) && sums[i] > 0);
    free_net(&net);
    CHECK_EQ_I(hirl_backend_memory_used(be), 0);
    hirl_backend_destroy(&be);
}

static void test_f32(void) { test_rounds(HIRL_F32); }
static void test_bf16(void) { test_rounds(HIRL_BF16); }

TEST_MAIN {
    RUN(test_f32);
    RUN(test_bf16);
}
