// test: backends=ref,cpu,cuda timeout=30
// Optimisers against PyTorch (validation/reference/optim/steps.txt, float64), a parameter without a gradient in step 3 included; schedules against their formulas.
// Bound 2e-6: five f32 updates of values of order one.
#include "hirl/optim.h"
#include "test.h"

static hirl_optim_cfg_t config(const char *rule) {
    hirl_optim_cfg_t cfg = {.momentum = 0.9,
                            .weight_decay = 0.01,
                            .beta1 = 0.9,
                            .beta2 = 0.99,
                            .eps = 1e-8,
                            .trust = 0.02,
                            .decay_1d = true,
                            .batch = 256,
                            .lr = 0.1};
    snprintf(cfg.name, sizeof cfg.name, "%s", strcmp(rule, "nesterov") == 0 ? "sgd" : rule);
    cfg.nesterov = strcmp(rule, "nesterov") == 0;
    return cfg;
}

// loss = sum of gradient * parameter, through the tape, so that leaves know of their gradients
static void set_gradient(hirl_tape_t *tape, hirl_param_t *param, int t, int first) {
    float g[4];
    hirl_tensor_t dy = {0};
    hirl_var_t *y = NULL, *one = NULL;
    hirl_tensor_t ones = {0};
    for (int i = 0; i < param->count; ++i) g[i] = (float)cos(first + i + t);
    NEED_OK(hirl_backend_tensor(hirl_tape_backend_view(tape), param->shape, HIRL_F32, &dy));
    NEED_OK(hirl_backend_upload(hirl_tape_backend_view(tape), g, &dy));
    NEED_OK(hirl_backend_tensor(hirl_tape_backend_view(tape), param->shape, HIRL_F32, &ones));
    NEED_OK(hirl_op_fill(hirl_tape_backend_view(tape), 1, &ones));
    NEED_OK(hirl_var_create(tape, &ones, &one));
    NEED_OK(hirl_tape_mul(tape, param->var, one, &y));
    NEED_OK(hirl_tape_backward_from(tape, y, &dy));
    hirl_var_release(&y);
    hirl_var_release(&one);
    hirl_tensor_reset(&ones);
    hirl_tensor_reset(&dy);
}

static void check_rule(hirl_world_t *world, hirl_backend_t *be, const char *rule) {
    hirl_tape_t *tape = NULL;
    hirl_registry_t *registry = NULL;
    hirl_param_t *a, *b;
    hirl_optimizer_t *optimizer = NULL;
    hirl_optim_cfg_t cfg = config(rule);
    char text[512], name[32];
    int step, n_lines = 0;
    double want[6], start[6];
    float values[6], as_f32[6];
    FILE *file = fopen("validation/reference/optim/steps.txt", "r");
    NEED(file != NULL);
    NEED_OK(hirl_tape_create(be, world, &tape));
    NEED_OK(hirl_registry_create(tape, &registry));
    NEED_OK(hirl_registry_add(registry, "", "a", hirl_shape_2(2, 2), HIRL_INIT_ZERO, 0, false, &a));
    NEED_OK(hirl_registry_add(registry, "", "b", hirl_shape_1(2), HIRL_INIT_ZERO, 0, false, &b));
    NEED_OK(hirl_registry_finalize(registry, 0, true));
    for (int i = 0; i < 6; ++i) start[i] = sin(i + 1.0), as_f32[i] = (float)start[i];
    NEED_OK(hirl_backend_upload(be, as_f32, &a->value));
    NEED_OK(hirl_backend_upload(be, as_f32 + 4, &b->value));
    NEED_OK(hirl_optimizer_create(&cfg, be, &registry, 1, &optimizer));
    while (fgets(text, sizeof text, file)) {
        if (sscanf(text, "%31s %d %lf %lf %lf %lf %lf %lf", name, &step, &want[0], &want[1],
                   &want[2], &want[3], &want[4], &want[5]) != 8 ||
            strcmp(name, rule) != 0)
            continue;
        hirl_registry_clear_grads(registry);
        set_gradient(tape, a, step, 0);
        if (step != 3) set_gradient(tape, b, step, 4);
        if (step == 1) {
            double norm, sum = 0;
            for (int i = 0; i < 6; ++i) sum += cos(i + 1.0) * cos(i + 1.0);
            NEED_OK(hirl_optimizer_grad_norm(optimizer, &norm));
            CHECK_CLOSE(norm, sqrt(sum), 1e-6, 0);
        }
        NEED_OK(hirl_optimizer_step(optimizer, 0.1, 1.0));
        NEED_OK(hirl_backend_download(be, &a->value, values));
        NEED_OK(hirl_backend_download(be, &b->value, values + 4));
        for (int i = 0; i < 6; ++i) CHECK_CLOSE(values[i], want[i], 2e-6, 2e-6);
        ++n_lines;
    }
    CHECK_EQ_I(n_lines, 5);
    fclose(file);
    hirl_optimizer_destroy(&optimizer);
    hirl_registry_destroy(&registry);
    hirl_tape_destroy(&tape);
}

static void test_rules(void) {
    static const char *const rules[] = {"sgd", "nesterov", "adamw", "lars"};
    hirl_world_t *world = NULL;
    hirl_backend_t *be = NULL;
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    NEED_OK(hirl_backend_create(test_backend(), 1, &be));
    for (int i = 0; i < 4; ++i) check_rule(world, be, rules[i]);
    hirl_backend_destroy(&be);
    hirl_world_destroy(&world);
}

static void test_schedules(void) {
    hirl_schedule_cfg_t s = {.epochs = 200, .shape = "cosine"};
    hirl_optim_cfg_t o = {.lr = 0.03, .batch = 512, .lr_rule = "linear"};
    CHECK_CLOSE(hirl_optim_scaled_lr(&o), 0.06, 1e-12, 0);
    snprintf(o.lr_rule, sizeof o.lr_rule, "sqrt");
    CHECK_CLOSE(hirl_optim_scaled_lr(&o), 0.03 * sqrt(2), 1e-12, 0);
    CHECK_CLOSE(hirl_schedule_lr(&s, 0.03, 0), 0.03, 1e-12, 0);
    CHECK_CLOSE(hirl_schedule_lr(&s, 0.03, 100), 0.015, 1e-12, 0);
    CHECK_CLOSE(hirl_schedule_lr(&s, 0.03, 200), 0, 0, 1e-12);
    CHECK_CLOSE(hirl_schedule_lr(&s, 0.03, 50.5), 0.015 * (1 + cos(acos(-1) * 50.5 / 200)), 1e-12,
                0);
    s.per_epoch = true;
    CHECK_CLOSE(hirl_schedule_lr(&s, 0.03, 50.9), 0.015 * (1 + cos(acos(-1) * 50 / 200.0)), 1e-12,
                0);
    s.per_epoch = false, s.warmup_epochs = 10, s.warmup_lr = 0.001, s.min_lr = 0.002;
    CHECK_CLOSE(hirl_schedule_lr(&s, 0.03, 5), 0.0155, 1e-12, 0);
    CHECK_CLOSE(hirl_schedule_lr(&s, 0.03, 105), 0.016, 1e-12, 0);
    snprintf(s.shape, sizeof s.shape, "step");
    s.step_epochs[0] = 60, s.step_epochs[1] = 80, s.n_step_epochs = 2, s.step_factor = 0.1;
    CHECK_CLOSE(hirl_schedule_lr(&s, 30, 59.9), 30, 1e-12, 0);
    CHECK_CLOSE(hirl_schedule_lr(&s, 30, 60), 3, 1e-12, 0);
    CHECK_CLOSE(hirl_schedule_lr(&s, 30, 99), 0.3, 1e-12, 0);
}

TEST_MAIN {
    RUN(test_rules);
    RUN(test_schedules);
}
