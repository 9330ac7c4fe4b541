// test: ranks=1,2,4 backends=ref timeout=30
// The bucketed reducer: sums over ranks are exact for small integers whatever the bucket size; parameters nobody used count as zero where a neighbour was used, and stay
// absent; earlier micro-batches only accumulate.
#include "hirl/optim.h"
#include "test.h"

enum { N_PARAMS = 7 };

static void contribute(hirl_tape_t *tape, hirl_param_t *param, float value) {
    hirl_backend_t *be = hirl_tape_backend_view(tape);
    hirl_tensor_t t = {0};
    hirl_var_t *one = NULL, *y = NULL;
    NEED_OK(hirl_backend_tensor(be, param->shape, HIRL_F32, &t));
    NEED_OK(hirl_op_fill(be, 1, &t));
    NEED_OK(hirl_var_create(tape, &t, &one));
    NEED_OK(hirl_tape_mul(tape, param->var, one, &y));
    NEED_OK(hirl_op_fill(be, value, &t));
    // `one` shares t's storage: its value no longer matters, dy and dx do
    hirl_tensor_t dy = {0};
    NEED_OK(hirl_backend_tensor(be, param->shape, HIRL_F32, &dy));
    NEED_OK(hirl_op_fill(be, 1, &dy));
    NEED_OK(hirl_tape_backward_from(tape, y, &dy));
    hirl_tensor_reset(&dy);
    hirl_tensor_reset(&t);
    hirl_var_release(&one);
    hirl_var_release(&y);
}

static void check_buckets(hirl_world_t *world, hirl_backend_t *be, double bucket_mib) {
    hirl_tape_t *tape = NULL;
    hirl_registry_t *registry = NULL;
    hirl_reducer_t *reducer = NULL;
    hirl_param_t *param[N_PARAMS], *buffer;
    int size = hirl_world_size(world), rank = hirl_world_rank(world);
    NEED_OK(hirl_tape_create(be, world, &tape));
    NEED_OK(hirl_registry_create(tape, &registry));
    for (int i = 0; i < N_PARAMS; ++i) {
        char name[16];
        snprintf(name, sizeof name, "p%d", i);
        NEED_OK(hirl_registry_add(registry, "", name, hirl_shape_1(50 + 13 * i), HIRL_INIT_ONE, 0,
                                  false, &param[i]));
        NEED_OK(hirl_registry_add(registry, "b", name, hirl_shape_1(3), HIRL_INIT_ONE, 0, true,
                                  &buffer));
    }
    NEED_OK(hirl_registry_finalize(registry, 0, true));
    NEED_OK(hirl_reducer_create(world, tape, bucket_mib, &registry, 1, &reducer));
    hirl_registry_clear_grads(registry);
    for (int i = 0; i < N_PARAMS; ++i) // a first micro-batch: nothing is reduced yet
        if (i != 3) contribute(tape, param[i], (float)(rank + 1));
    NEED_OK(hirl_reducer_begin(reducer));
    for (int i = N_PARAMS - 1; i >= 0; --i)
        if (i != 3) contribute(tape, param[i], (float)(10 * (i + 1)));
    NEED_OK(hirl_reducer_end(reducer));
    for (int i = 0; i < N_PARAMS; ++i) {
        const float *g = hirl_tensor_f32(&param[i]->grad);
        double want = size * (size + 1) / 2 + 10.0 * (i + 1) * size;
        CHECK_EQ_I(hirl_var_has_grad(param[i]->var), i != 3);
        for (int64_t j = 0; i != 3 && j < param[i]->count; ++j)
            if (!CHECK_MSG(g[j] == want, "p%d[%lld] = %g, expected %g", i, (long long)j, g[j],
                           want))
                break;
    }
    hirl_reducer_destroy(&reducer);
    hirl_registry_destroy(&registry);
    hirl_tape_destroy(&tape);
}

static void test_buckets(void) {
    hirl_world_t *world = NULL;
    hirl_backend_t *be = NULL;
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    NEED_OK(hirl_backend_create(test_backend(), 1, &be));
    check_buckets(world, be, 1e-6); // every parameter alone
    check_buckets(world, be, 8e-4); // about 200 elements
    check_buckets(world, be, 4);    // all together
    hirl_backend_destroy(&be);
    hirl_world_destroy(&world);
}

TEST_MAIN { RUN(test_buckets); }
