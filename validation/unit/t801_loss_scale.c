// Dynamic loss scaling: when the scale rises and falls, what a checkpoint keeps of it and refuses, and that a backward pass takes it from where
// the device reads it. Compared with the rules of PyTorch's GradScaler (growth 2, backoff 0.5), written out by hand.
// test: backends=ref,cuda timeout=60
#include "hirl/train.h"

#include "test.h"

static hirl_backend_t *be;

static double on_device(const hirl_loss_scale_t *l) {
    float value = NAN;
    NEED_OK(hirl_backend_download(be, &l->factor, &value));
    return (double)value;
}

static void test_rules(void) {
    // finite or not, and the scale afterwards, with growth after three steps
    static const struct {
        bool is_finite;
        double scale;
    } step[] = {{true, 8},  {true, 8},  {true, 16}, {true, 16}, {true, 16}, {false, 8}, {true, 8},
                {true, 8},  {false, 4}, {true, 4},  {true, 4},  {true, 8},  {false, 4}, {false, 2},
                {false, 1}, {false, 1}, {true, 1},  {true, 1},  {true, 2}};
    hirl_loss_scale_t l = {0};
    CHECK(hirl_loss_scale_now(&l) == 1 && !hirl_loss_scale_can_fall(&l)); // off
    NEED_OK(hirl_loss_scale_note(&l, be, false));
    CHECK(hirl_loss_scale_now(&l) == 1);
    NEED_OK(hirl_loss_scale_begin(&l, be, 8, 3));
    for (size_t i = 0; i < sizeof step / sizeof *step; ++i) {
        NEED_OK(hirl_loss_scale_note(&l, be, step[i].is_finite));
        CHECK_MSG(hirl_loss_scale_now(&l) == step[i].scale && on_device(&l) == step[i].scale,
                  "step %zu: %g, on the device %g, want %g", i, hirl_loss_scale_now(&l),
                  on_device(&l), step[i].scale);
        CHECK(hirl_loss_scale_can_fall(&l) == (step[i].scale > 1));
    }
    hirl_loss_scale_reset(&l);
    NEED_OK(hirl_loss_scale_begin(&l, be, HIRL_LOSS_SCALE_MOST, 1));
    NEED_OK(hirl_loss_scale_note(&l, be, true));
    CHECK(hirl_loss_scale_now(&l) == HIRL_LOSS_SCALE_MOST);
    hirl_loss_scale_reset(&l);
    CHECK(hirl_loss_scale_now(&l) == 1);
}

// -------------------------------------------------------------------------------------- state

static double kept[2];
static bool is_loading;

static hirl_status_t visit(void *ctx, const char *name, hirl_ckpt_type_t type, int n_axes,
                           const int64_t *shape, void *data) {
    (void)ctx;
    CHECK(strcmp(name, "/loss_scale") == 0 && type == HIRL_CKPT_F64 && n_axes == 1 &&
          shape[0] == 2);
    memcpy(is_loading ? data : kept, is_loading ? kept : data, sizeof kept);
    return HIRL_OK;
}

static hirl_status_t state_of(hirl_loss_scale_t *l, bool loads) {
    hirl_state_t state = {.is_loading = loads, .visit = visit};
    is_loading = loads;
    return hirl_loss_scale_state(l, be, &state);
}

static void test_state(void) {
    hirl_loss_scale_t a = {0}, b = {0};
    NEED_OK(hirl_loss_scale_begin(&a, be, 64, 3));
    NEED_OK(hirl_loss_scale_begin(&b, be, 65536, 3));
    NEED_OK(hirl_loss_scale_note(&a, be, false));
    NEED_OK(hirl_loss_scale_note(&a, be, true));
    NEED_OK(hirl_loss_scale_note(&a, be, true));
    NEED_OK(state_of(&a, false));
    NEED_OK(state_of(&b, true));
    CHECK(hirl_loss_scale_now(&b) == 32 && on_device(&b) == 32);
    NEED_OK(hirl_loss_scale_note(&b, be, true)); // the third: n_good came along
    CHECK(hirl_loss_scale_now(&b) == 64);
    static const double bad[][2] = {{0.5, 0}, {NAN, 0}, {3e7, 0}, {INFINITY, 0}, {1.1, 0},
                                    {2, -1},  {2, 0.5}, {2, NAN}, {2, 1e16}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
        memcpy(kept, bad[i], sizeof kept);
        CHECK_EQ_I(state_of(&b, true), HIRL_ERR_FORMAT);
        CHECK(hirl_loss_scale_now(&b) == 64 && on_device(&b) == 64);
        hirl_error_reset();
    }
    hirl_loss_scale_reset(&a);
    kept[0] = 77;
    NEED_OK(state_of(&a, false)); // off: nothing is visited
    CHECK(kept[0] == 77);
    hirl_loss_scale_reset(&b);
}

// -------------------------------------------------------------------------------------- backward

static void test_backward(void) {
    const float x[2] = {3, -4};
    float got[2];
    hirl_world_t *world = NULL;
    hirl_tape_t *tape = NULL;
    hirl_tensor_t value = {0}, grad = {0};
    hirl_var_t *leaf = NULL;
    hirl_loss_scale_t l = {0};
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    NEED_OK(hirl_tape_create(be, world, &tape));
    NEED_OK(hirl_backend_tensor(be, hirl_shape_2(1, 2), HIRL_F32, &value));
    NEED_OK(hirl_backend_tensor(be, hirl_shape_2(1, 2), HIRL_F32, &grad));
    NEED_OK(hirl_backend_upload(be, x, &value));
    NEED_OK(hirl_var_create_leaf(tape, &value, &grad, &leaf));
    NEED_OK(hirl_loss_scale_begin(&l, be, 1024, 1));
    for (int i = 0; i < 3; ++i) {
        hirl_var_t *dot = NULL;
        const float weight = 0.5f;
        if (i > 0) hirl_tape_set_loss_factor(tape, &l.factor);
        if (i == 2) NEED_OK(hirl_loss_scale_note(&l, be, true)); // the same tape, another factor
        hirl_var_clear_grad(leaf);
        NEED_OK(hirl_tape_row_dot(tape, leaf, leaf, &dot)); // |x|^2, [1, 1]
        NEED_OK(hirl_tape_backward(tape, &dot, &weight, 1));
        NEED_OK(hirl_backend_download(be, &grad, got));
        const float scale = i == 0 ? 1 : i == 1 ? 1024 : 2048;
        CHECK_MSG(got[0] == x[0] * scale && got[1] == x[1] * scale, "pass %d: %g %g", i,
                  (double)got[0], (double)got[1]);
        hirl_var_release(&dot);
    }
    hirl_tape_set_loss_factor(tape, NULL);
    hirl_loss_scale_reset(&l);
    hirl_var_release(&leaf);
    hirl_tensor_reset(&value);
    hirl_tensor_reset(&grad);
    hirl_tape_destroy(&tape);
    hirl_world_destroy(&world);
}

TEST_MAIN {
    NEED_OK(hirl_backend_create(test_backend(), 1, &be));
    RUN(test_rules);
    RUN(test_state);
    RUN(test_backward);
    CHECK_EQ_I(hirl_backend_memory_used(be), 0);
    hirl_backend_destroy(&be);
}
