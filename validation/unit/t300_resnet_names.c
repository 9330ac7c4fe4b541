// test: timeout=60
// ResNets declare torchvision's names and shapes, in torchvision's order, and start as torchvision does; the cifar stem and width change shapes only.
#include "hirl/nn.h"
#include "test.h"

typedef struct fixture {
    hirl_world_t *world;
    hirl_backend_t *be;
    hirl_tape_t *tape;
} fixture_t;

static fixture_t open_fixture(hirl_world_t *world) {
    fixture_t f = {.world = world};
    NEED_OK(hirl_backend_create("ref", 1, &f.be));
    NEED_OK(hirl_tape_create(f.be, f.world, &f.tape));
    return f;
}

static void close_fixture(fixture_t *f) {
    hirl_tape_destroy(&f->tape);
    hirl_backend_destroy(&f->be);
}

static hirl_model_cfg_t model(const char *backbone, const char *stem, int64_t width) {
    hirl_model_cfg_t cfg = {.width = width, .stages = 4};
    snprintf(cfg.backbone, sizeof cfg.backbone, "%s", backbone);
    snprintf(cfg.stem, sizeof cfg.stem, "%s", stem);
    return cfg;
}

static void shape_text(const hirl_shape_t *shape, char text[64]) {
    int at = 0;
    for (int i = 0; i < shape->n_axes; ++i)
        at +=
            snprintf(text + at, 64 - (size_t)at, "%s%lld", i ? "x" : "", (long long)shape->dim[i]);
}

// One variant against its lines of the list.
static void check_variant(fixture_t *f, const char *variant) {
    hirl_model_cfg_t cfg = model(variant, "imagenet", 64);
    hirl_registry_t *registry = NULL;
    hirl_resnet_t *resnet = NULL;
    char text[256], name[3][128], shape[64];
    int at = 0;
    FILE *file = fopen("validation/reference/resnet/names.txt", "r");
    NEED(file != NULL);
    NEED_OK(hirl_registry_create(f->tape, &registry));
    NEED_OK(hirl_resnet_create(registry, "", &cfg, 3, &resnet));
    while (fgets(text, sizeof text, file)) {
        if (sscanf(text, "%127s %127s %127s", name[0], name[1], name[2]) != 3 ||
            strcmp(name[0], variant) != 0)
            continue;
        NEED(at < hirl_registry_n_params(registry));
        const hirl_param_t *param = hirl_registry_param(registry, at++);
        shape_text(&param->shape, shape);
        CHECK_EQ_S(param->name, name[1]);
        CHECK_EQ_S(shape, name[2]);
    }
    CHECK_EQ_I(at, hirl_registry_n_params(registry));
    CHECK(at > 50);
    fclose(file);
    hirl_resnet_destroy(&resnet);
    hirl_registry_destroy(&registry);
}

static hirl_world_t *world; // one per process

static void test_names(void) {
    static const char *const variants[] = {"resnet18", "resnet34", "resnet50", "resnet101",
                                           "resnet152"};
    fixture_t f = open_fixture(world);
    for (int i = 0; i < 5; ++i) check_variant(&f, variants[i]);
    close_fixture(&f);
}

// Sample deviation of n normal draws is within 5 / sqrt(2 n) of the true one, but once in a million.
static void test_initial_values(void) {
    fixture_t f = open_fixture(world);
    hirl_model_cfg_t cfg = model("resnet18", "cifar", 16);
    hirl_registry_t *registry = NULL;
    hirl_resnet_t *resnet = NULL;
    NEED_OK(hirl_registry_create(f.tape, &registry));
    NEED_OK(hirl_resnet_create(registry, "q.", &cfg, 1, &resnet));
    NEED_OK(hirl_registry_finalize(registry, 3, true));
    CHECK_EQ_I(hirl_resnet_feature_dim(resnet), 128);
    for (int i = 0; i < hirl_registry_n_params(registry); ++i) {
        const hirl_param_t *p = hirl_registry_param(registry, i);
        const float *v = hirl_tensor_f32(&p->value);
        double sum = 0, squares = 0;
        for (int64_t j = 0; j < p->count; ++j) sum += v[j], squares += (double)v[j] * v[j];
        if (p->shape.n_axes == 4) {
            double want = sqrt(2.0 / (double)(p->shape.dim[0] * p->shape.dim[2] * p->shape.dim[3])),
                   n = (double)p->count;
            CHECK_MSG(fabs(sqrt(squares / n) / want - 1) < 5 / sqrt(2 * n),
                      "%s: deviation %g, expected %g", p->name, sqrt(squares / n), want);
            CHECK_MSG(fabs(sum / n) < 5 * want / sqrt(n), "%s: mean %g", p->name, sum / n);
        } else {
            bool is_one = strstr(p->name, "running_var") ||
                          (strstr(p->name, "weight") && p->shape.n_axes == 1);
            CHECK_MSG(sum == (is_one ? (double)p->count : 0.0) && squares == sum,
                      "%s does not start at %d", p->name, is_one);
        }
    }
    CHECK_EQ_I(hirl_registry_find(registry, "q.conv1.weight")->shape.dim[2], 3);
    CHECK(hirl_registry_find(registry, "q.conv2.weight") == NULL);
    hirl_resnet_destroy(&resnet);
    hirl_registry_destroy(&registry);
    close_fixture(&f);
}

static void test_errors(void) {
    fixture_t f = open_fixture(world);
    hirl_model_cfg_t cfg = model("resnet19", "cifar", 16);
    hirl_registry_t *registry = NULL;
    hirl_resnet_t *resnet = NULL;
    hirl_param_t *param;
    NEED_OK(hirl_registry_create(f.tape, &registry));
    CHECK_FAILS(hirl_resnet_create(registry, "", &cfg, 3, &resnet), HIRL_ERR_DECK, "resnet19");
    NEED_OK(
        hirl_registry_add(registry, "a.", "b", hirl_shape_1(3), HIRL_INIT_ONE, 0, false, &param));
    CHECK_FAILS(
        hirl_registry_add(registry, "a.", "b", hirl_shape_1(3), HIRL_INIT_ONE, 0, false, &param),
        HIRL_ERR_ARG, "twice");
    NEED_OK(hirl_registry_finalize(registry, 0, false));
    CHECK_FAILS(
        hirl_registry_add(registry, "a.", "c", hirl_shape_1(3), HIRL_INIT_ONE, 0, false, &param),
        HIRL_ERR_ARG, "after finalize");
    hirl_registry_destroy(&registry);
    close_fixture(&f);
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    RUN(test_names);
    RUN(test_initial_values);
    RUN(test_errors);
    hirl_world_destroy(&world);
}
