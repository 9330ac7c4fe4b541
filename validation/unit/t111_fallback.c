// A host backend without some operations: the reference ones serve, also where images come in a layout they do not know; a
// device backend without them says so.
// test: timeout=60
#include "hirl/backend_ops.h"

#include "../../src/backend/backend_impl.h"
#include "test.h"

static hirl_tensor_t image(hirl_backend_t *be, hirl_shape_t shape, uint64_t stream) {
    hirl_tensor_t plain = {0}, blocked = {0};
    NEED_OK(hirl_backend_tensor(be, shape, HIRL_F32, &plain));
    test_fill_normal(hirl_tensor_f32(&plain), hirl_shape_count(&shape), stream);
    NEED_OK(hirl_op_to_blocked(be, &plain, &blocked));
    hirl_tensor_reset(&plain);
    return blocked;
}

static void run_ops(hirl_backend_t *be, float *out) {
    hirl_tensor_t x = image(be, hirl_shape_4(2, 6, 5, 20), 1),
                  r = image(be, hirl_shape_4(2, 6, 5, 20), 2), y = {0}, sum = {0};
    hirl_tensor_t mean = {0}, var = {0}, pooled = {0}, ws = {0}, average = {0}, dx = {0},
                  plain = {0};
    const hirl_pool_param_t p = {3, 2, 1};
    NEED_OK(hirl_op_bn_stats(be, &x, 1, &mean, &var));
    NEED_OK(hirl_op_bn_apply(be, &x, 1, &mean, &var, 1e-5f, NULL, NULL, &r, true, &y));
    NEED_OK(hirl_op_add(be, &y, &r, &sum));
    NEED_OK(hirl_op_max_pool(be, &p, &sum, &pooled, &ws));
    NEED_OK(hirl_op_max_pool_backward(be, &p, &pooled, &ws, &sum.shape, &dx));
    NEED_OK(hirl_op_global_avg_pool(be, &dx, &average));
    NEED_OK(hirl_op_to_plain(be, &average, HIRL_F32, &plain));
    memcpy(out, hirl_tensor_f32(&plain), 40 * sizeof *out);
    hirl_tensor_t *const all[] = {&x,      &r,  &y,       &sum, &mean, &var,
                                  &pooled, &ws, &average, &dx,  &plain};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) hirl_tensor_reset(all[i]);
}

TEST_MAIN {
    hirl_backend_t *be = NULL;
    float want[40], got[40];
    hirl_log_setup(HIRL_LOG_ERROR, 0); // the fallback warns
    NEED_OK(hirl_backend_create("cpu", 2, &be));
    run_ops(be, want);
    hirl_backend_ops_t poor = *be->ops;
    poor.bn_stats = NULL;
    poor.bn_apply = NULL;
    poor.add = NULL;
    poor.max_pool = NULL;
    poor.max_pool_backward = NULL;
    poor.global_avg_pool = NULL;
    const hirl_backend_ops_t *rich = be->ops;
    be->ops = &poor;
    run_ops(be, got);
    // Sums of 60 values in another order.
    CHECK_CLOSE_F32(got, want, 40, 1e-5, 1e-6);
    CHECK(be->is_fallback_logged[offsetof(hirl_backend_ops_t, add) / sizeof(void *)]);
    CHECK(!be->is_fallback_logged[offsetof(hirl_backend_ops_t, mul) / sizeof(void *)]);
    poor.is_host = false;
    hirl_tensor_t y = {0};
    CHECK_FAILS(hirl_op_add(be, &y, &y, &y), HIRL_ERR_UNSUPPORTED,
                "backend 'cpu' has no operation 'add'");
    be->ops = rich;
    CHECK_EQ_I(hirl_backend_memory_used(be), 0);
    hirl_backend_destroy(&be);
}
