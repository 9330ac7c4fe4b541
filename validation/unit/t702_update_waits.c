// What an update asks of a device: one launch a registry, two for LARS, however many parameters there are, none of which the host waits for;
// the gradient's norm takes a launch a registry, one more, and one transfer. The emulated device tells what it runs, as late as
// it may.
// test: backends=cuda timeout=30
#include <cuda_runtime_api.h>

#include "hirl/optim.h"
#include "test.h"

#ifndef HIRL_CUDA_EMULATED

TEST_MAIN { SKIP("this build has no emulated device"); }

#else

#include <unistd.h>

enum { N_PARAMS = 7, N_REGISTRIES = 2, TEXT = 1 << 14 };

static hirl_world_t *world;
static hirl_backend_t *be;
static hirl_tape_t *tape;
static hirl_registry_t *registry[N_REGISTRIES];

// ------------------------------------------------------------------------------------ what the device ran

static char told[TEXT];
static FILE *listener;
static int old_stderr;

static void listen_begin(void) {
    NEED_OK(hirl_backend_synchronize(be));
    listener = tmpfile();
    NEED(listener != NULL);
    fflush(stderr);
    old_stderr = dup(2);
    NEED(old_stderr >= 0 && dup2(fileno(listener), 2) == 2);
}

// Pieces of work so far.
static int n_done(void) {
    int n = 0;
    fflush(stderr);
    told[pread(fileno(listener), told, sizeof told - 1, 0)] = '\0';
    for (const char *at = told; (at = strstr(at, "emulated device: ")); ++at) ++n;
    return n;
}

static int listen_end(void) {
    NEED_OK(hirl_backend_synchronize(be));
    const int n = n_done();
    dup2(old_stderr, 2);
    close(old_stderr);
    fclose(listener);
    return n;
}

// ------------------------------------------------------------------------------------ parameters

static void make_registry(int k) {
    hirl_param_t *param;
    NEED_OK(hirl_registry_create(tape, &registry[k]));
    for (int i = 0; i < N_PARAMS; ++i) {
        const hirl_shape_t shape =
            i % 2 ? hirl_shape_1(50 + i) : hirl_shape_2(1 + 100 * i, 130); // beyond a piece, too
        NEED_OK(hirl_registry_add(registry[k], "", (char[]){(char)('a' + i), 0}, shape,
                                  HIRL_INIT_ONE, 0, false, &param));
    }
    NEED_OK(hirl_registry_finalize(registry[k], 0, true));
}

// 2 of each element's gradient.
static void set_gradients(void) {
    for (int k = 0; k < N_REGISTRIES; ++k) {
        hirl_registry_clear_grads(registry[k]);
        for (int i = 0; i < N_PARAMS; ++i) {
            hirl_param_t *param = hirl_registry_param(registry[k], i);
            hirl_var_t *y = NULL;
            hirl_tensor_t ones = {0};
            NEED_OK(hirl_backend_tensor(be, param->shape, HIRL_F32, &ones));
            NEED_OK(hirl_op_fill(be, 1, &ones));
            NEED_OK(hirl_tape_add(tape, param->var, param->var, &y));
            NEED_OK(hirl_tape_backward_from(tape, y, &ones));
            hirl_var_release(&y);
            hirl_tensor_reset(&ones);
        }
    }
}

static void check_rule(const char *rule, const char *form, int n_launches) {
    hirl_optim_cfg_t cfg = {
        .momentum = 0.9, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .trust = 0.001};
    hirl_optimizer_t *optimizer = NULL;
    snprintf(cfg.name, sizeof cfg.name, "%s", rule);
    snprintf(cfg.lars_form, sizeof cfg.lars_form, "%s", form);
    cfg.weight_decay = 0.01; // of every other parameter: no two neighbours are alike
    NEED_OK(hirl_optimizer_create(&cfg, be, registry, N_REGISTRIES, &optimizer));
    set_gradients();
    NEED_OK(hirl_optimizer_step(optimizer, 1e-6, 1)); // tables are uploaded
    listen_begin();
    const hirl_status_t status = hirl_optimizer_step(optimizer, 1e-6, 0.5);
    const int n_before = n_done(), n_after = listen_end();
    NEED_OK(status);
    CHECK_MSG(n_before == 0, "%s: the host waited for %d pieces of work", rule, n_before);
    CHECK_MSG(n_after == N_REGISTRIES * n_launches, "%s, %s: %d pieces of work, want %d:\n%s", rule,
              form, n_after, N_REGISTRIES * n_launches, told);
    hirl_optimizer_destroy(&optimizer);
}

static void test_update(void) {
    check_rule("sgd", "lars", 1);
    check_rule("adamw", "lars", 1);
    check_rule("lars", "lars", 2);
    check_rule("lars", "larc", 2);
    check_rule("lars", "joint", 2);
}

static void test_norm(void) {
    const hirl_optim_cfg_t cfg = {.name = "sgd"};
    hirl_optimizer_t *optimizer = NULL;
    double norm = 0, count = 0;
    NEED_OK(hirl_optimizer_create(&cfg, be, registry, N_REGISTRIES, &optimizer));
    set_gradients();
    NEED_OK(hirl_optimizer_grad_norm(optimizer, &norm));
    listen_begin();
    const hirl_status_t status = hirl_optimizer_grad_norm(optimizer, &norm);
    const int n = listen_end();
    NEED_OK(status);
    CHECK_MSG(n == N_REGISTRIES + 2, "norm: %d pieces of work, want %d:\n%s", n, N_REGISTRIES + 2,
              told);
    for (int i = 0; i < N_PARAMS; ++i)
        count += N_REGISTRIES * (double)hirl_registry_param(registry[0], i)->count;
    CHECK_CLOSE(norm, 2 * sqrt(count), 1e-14, 0); // gradients are 2: their squares' sum is exact
    hirl_optimizer_destroy(&optimizer);
}

TEST_MAIN {
    setenv("HIRL_EMU_TRACE", "1", 1);
    setenv("HIRL_EMU_ORDER", "late", 1);
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    NEED(freopen("/dev/null", "w", stderr) != NULL); // all of the trace but what is listened to
    NEED_OK(hirl_backend_create(test_backend(), 1, &be));
    NEED_OK(hirl_tape_create(be, world, &tape));
    for (int k = 0; k < N_REGISTRIES; ++k) make_registry(k);
    RUN(test_update);
    RUN(test_norm);
    for (int k = 0; k < N_REGISTRIES; ++k) hirl_registry_destroy(&registry[k]);
    hirl_tape_destroy(&tape);
    hirl_backend_destroy(&be);
    hirl_world_destroy(&world);
}

#endif
