// test: backends=ref,cpu,cuda timeout=30
// Optimisers against PyTorch (validation/reference/optim/steps.txt, float64), a parameter without a gradient in step 3 included; LARS in its forms
// against NumPy (lars.txt), with norms that are 0, scaled gradients and a learning rate that changes; schedules against their formulas.
// Bounds: 2e-6 of five f32 updates of values of order one, 5e-6 of six at rates up to 0.6.
#include "hirl/optim.h"
#include "test.h"

static hirl_world_t *world;

static hirl_optim_cfg_t config(const char *rule) {
    hirl_optim_cfg_t cfg = {.momentum = 0.9,
                            .weight_decay = 0.01,
                            .beta1 = 0.9,
                            .beta2 = 0.99,
                            .eps = 1e-8,
                            .trust = 0.02,
                            .lars_form = "lars",
                            .decay_1d = true,
                            .batch = 256,
                            .lr = 0.1};
    snprintf(cfg.name, sizeof cfg.name, "%s", strcmp(rule, "nesterov") == 0 ? "sgd" : rule);
    cfg.nesterov = strcmp(rule, "nesterov") == 0;
    return cfg;
}

// loss = sum of gradient * parameter, through the tape, so that leaves know of their gradients
static void set_gradient(hirl_tape_t *tape, hirl_param_t *param, int t, int first) {
    float g[36];
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

static void check_rule(hirl_backend_t *be, const char *rule) {
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
    static const char *const rules[] = {"sgd", "nesterov", "adamw"};
    hirl_backend_t *be = NULL;
    NEED_OK(hirl_backend_create(test_backend(), 1, &be));
    for (int i = 0; i < 3; ++i) check_rule(be, rules[i]);
    hirl_backend_destroy(&be);
}

// ------------------------------------------------------------------------------------ LARS

enum { N_LARS = 5 };

typedef struct lars_net {
    hirl_tape_t *tape;
    hirl_registry_t *registry;
    hirl_param_t *param[N_LARS];
    int first[N_LARS];
    hirl_optimizer_t *optimizer;
} lars_net_t;

static lars_net_t lars_begin(hirl_backend_t *be, const hirl_optim_cfg_t *cfg) {
    const hirl_shape_t shape[N_LARS] = {hirl_shape_2(3, 4), hirl_shape_2(2, 3), hirl_shape_1(5),
                                        hirl_shape_4(2, 2, 3, 3), hirl_shape_1(7)};
    lars_net_t net = {0};
    NEED_OK(hirl_tape_create(be, world, &net.tape));
    NEED_OK(hirl_registry_create(net.tape, &net.registry));
    for (int k = 0, first = 0; k < N_LARS; ++k) {
        NEED_OK(hirl_registry_add(net.registry, "", (char[]){(char)('a' + k), 0}, shape[k],
                                  HIRL_INIT_ZERO, 0, false, &net.param[k]));
        net.first[k] = first;
        first += (int)net.param[k]->count;
    }
    NEED_OK(hirl_registry_finalize(net.registry, 0, true));
    for (int k = 0; k < N_LARS; ++k) {
        float start[36];
        for (int i = 0; i < net.param[k]->count; ++i)
            start[i] = k == 1 ? 0 : (float)sin(net.first[k] + i + 1);
        NEED_OK(hirl_backend_upload(be, start, &net.param[k]->value));
    }
    NEED_OK(hirl_optimizer_create(cfg, be, &net.registry, 1, &net.optimizer));
    return net;
}

static void lars_end(lars_net_t *net) {
    hirl_optimizer_destroy(&net->optimizer);
    hirl_registry_destroy(&net->registry);
    hirl_tape_destroy(&net->tape);
}

static void lars_step(hirl_backend_t *be, lars_net_t *net, int t) {
    hirl_registry_clear_grads(net->registry);
    for (int k = 0; k < N_LARS; ++k) {
        if (k == 2 && t == 3) continue;
        set_gradient(net->tape, net->param[k], t, net->first[k]);
        if (k == 3 && t == 2) NEED_OK(hirl_op_fill(be, 0, &net->param[k]->grad));
    }
    NEED_OK(hirl_optimizer_step(net->optimizer, 0.1 * t, t == 4 ? 0.5 : 1.0));
}

static void lars_check(hirl_backend_t *be, const lars_net_t *net, const char *text, int skip) {
    float got[36];
    char *end;
    const char *at = text + skip;
    for (int k = 0; k < N_LARS; ++k) {
        NEED_OK(hirl_backend_download(be, &net->param[k]->value, got));
        for (int i = 0; i < net->param[k]->count; ++i, at = end) {
            const double want = strtod(at, &end);
            NEED(end != at);
            CHECK_MSG(fabs(got[i] - want) <= 5e-6,
                      "%.20s: element %d of parameter %c is %.9g, "
                      "want %.9g",
                      text, i, 'a' + k, (double)got[i], want);
        }
    }
}

static void test_lars(void) {
    static char text[4096];
    hirl_backend_t *be = NULL;
    lars_net_t net = {0};
    int n_lines = 0, last = 0;
    FILE *file = fopen("validation/reference/optim/lars.txt", "r");
    NEED(file != NULL);
    NEED_OK(hirl_backend_create(test_backend(), 1, &be));
    while (fgets(text, sizeof text, file)) {
        int nesterov, adapt_1d, decay_1d, step, skip;
        char form[16];
        if (sscanf(text, "%15s %d %d %d %d%n", form, &nesterov, &adapt_1d, &decay_1d, &step,
                   &skip) != 5)
            continue;
        hirl_optim_cfg_t cfg = config("lars");
        snprintf(cfg.lars_form, sizeof cfg.lars_form, "%s", form);
        cfg.nesterov = nesterov, cfg.adapt_1d = adapt_1d, cfg.decay_1d = decay_1d;
        cfg.eps = 0.01;
        if (step == 3) net = lars_begin(be, &cfg);
        for (int t = step - 2; t <= step; ++t) lars_step(be, &net, t);
        lars_check(be, &net, text, skip);
        if (step == 6) lars_end(&net);
        last = step;
        ++n_lines;
    }
    CHECK_EQ_I(n_lines, 48);
    CHECK_EQ_I(last, 6);
    fclose(file);
    hirl_backend_destroy(&be);
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
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    RUN(test_rules);
    RUN(test_lars);
    RUN(test_schedules);
    hirl_world_destroy(&world);
}
