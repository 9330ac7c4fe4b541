// Parameter registry: declaration, slabs, initialisation, copies and moving averages. Values, gradients and buffers are one slab each; every
// parameter starts at a multiple of 16 elements, and the padding stays zero so that slab-wise updates may run over it.

#include "hirl/nn.h"

#include <math.h>
#include <string.h>

enum { ALIGN_ELEMENTS = 16 };

struct hirl_registry {
    hirl_tape_t *tape;
    hirl_param_t **params;
    int n_params, capacity;
    int64_t n_values, n_buffers; // slab lengths
    hirl_tensor_t values, grads, buffers;
    hirl_tensor_t kept; // copy of the buffers, once asked for
    bool is_finalized, is_trainable, is_optional;
};

hirl_status_t hirl_registry_create(hirl_tape_t *tape, hirl_registry_t **registry_p) {
    hirl_registry_t *registry = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_PARAM, 1, &registry));
    registry->tape = tape;
    *registry_p = registry;
    return HIRL_OK;
}

void hirl_registry_destroy(hirl_registry_t **registry) {
    if (!registry || !*registry) return;
    hirl_registry_t *r = *registry;
    for (int i = 0; i < r->n_params; ++i) {
        hirl_param_t *p = r->params[i];
        hirl_var_release(&p->var);
        hirl_tensor_reset(&p->value);
        hirl_tensor_reset(&p->grad);
        hirl_mem_free(p);
    }
    hirl_tensor_reset(&r->values);
    hirl_tensor_reset(&r->grads);
    hirl_tensor_reset(&r->buffers);
    hirl_tensor_reset(&r->kept);
    hirl_mem_free(r->params);
    hirl_mem_free(r);
    *registry = NULL;
}

hirl_status_t hirl_registry_add(hirl_registry_t *registry, const char *prefix, const char *suffix,
                                hirl_shape_t shape, hirl_init_t init, double scale, bool is_buffer,
                                hirl_param_t **param_p) {
    hirl_param_t *param = NULL;
    char name[HIRL_NAME_MAX];
    HIRL_REQUIRE(!registry->is_finalized, HIRL_ERR_ARG, "registry: %s%s declared after finalize",
                 prefix, suffix);
    HIRL_TRY(hirl_text_format(name, sizeof name, "%s%s", prefix, suffix));
    HIRL_REQUIRE(!hirl_registry_find(registry, name), HIRL_ERR_ARG, "registry: %s declared twice",
                 name);
    if (registry->n_params == registry->capacity) {
        int capacity = registry->capacity ? 2 * registry->capacity : 64;
        HIRL_TRY(hirl_mem_realloc(HIRL_MEM_PARAM, (size_t)capacity * sizeof *registry->params,
                                  (void **)&registry->params));
        registry->capacity = capacity;
    }
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_PARAM, 1, &param));
    memcpy(param->name, name, sizeof name);
    param->shape = shape;
    param->count = hirl_shape_count(&shape);
    param->init = init;
    param->scale = scale;
    param->is_buffer = is_buffer;
    int64_t *end = is_buffer ? &registry->n_buffers : &registry->n_values;
    param->offset = *end;
    *end += (param->count + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
    registry->params[registry->n_params++] = param;
    *param_p = param;
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- slabs

static hirl_status_t slab_create(hirl_backend_t *be, int64_t n, hirl_tensor_t *slab) {
    HIRL_TRY(hirl_backend_tensor(be, hirl_shape_1(n > 0 ? n : ALIGN_ELEMENTS), HIRL_F32, slab));
    return hirl_op_fill(be, 0.0f, slab);
}

static hirl_status_t slab_view(const hirl_tensor_t *slab, const hirl_param_t *param,
                               hirl_tensor_t *view) {
    hirl_tensor_t rows = {0};
    HIRL_TRY(hirl_tensor_rows(slab, param->offset, param->count, &rows));
    hirl_status_t status = hirl_tensor_reshape(&rows, param->shape, view);
    hirl_tensor_reset(&rows);
    return status;
}

// Counter-based numbers: the threads share the range and get the same values as one would.
static void draw_normals(const hirl_rng_t *rng, double scale, int64_t n, float *x) {
    const int64_t chunk = 1 << 14;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i += chunk)
        hirl_rng_normals(rng, i, n - i < chunk ? n - i : chunk, scale, x + i);
}

static hirl_status_t param_draw(hirl_backend_t *be, const hirl_param_t *param, uint64_t seed) {
    float *host = NULL;
    hirl_rng_t rng =
        hirl_rng_make(seed, HIRL_RNG_INIT, hirl_hash64(param->name, strlen(param->name)), 0, 0);
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_WORKSPACE, param->count, &host));
    const int64_t *d = param->shape.dim;
    switch (param->init) {
        case HIRL_INIT_ZERO: break;
        case HIRL_INIT_ONE:
            for (int64_t i = 0; i < param->count; ++i) host[i] = 1.0f;
            break;
        case HIRL_INIT_KAIMING_NORMAL_FAN_OUT: {
            double std = sqrt(2.0 / (double)(d[0] * d[2] * d[3]));
            draw_normals(&rng, std, param->count, host);
            break;
        }
        case HIRL_INIT_UNIFORM_FAN_IN: {
            double bound = 1.0 / sqrt(param->scale);
            for (int64_t i = 0; i < param->count; ++i)
                host[i] = (float)hirl_rng_range(&rng, -bound, bound);
            break;
        }
        case HIRL_INIT_NORMAL: draw_normals(&rng, param->scale, param->count, host); break;
    }
    hirl_status_t status = hirl_backend_upload(be, host, &param->value);
    hirl_mem_free(host);
    return status;
}

// With a seed the values are drawn, without they are left to the caller.
static hirl_status_t finalize(hirl_registry_t *registry, const uint64_t *seed, bool is_trainable) {
    hirl_backend_t *be = hirl_tape_backend_view(registry->tape);
    HIRL_REQUIRE(!registry->is_finalized, HIRL_ERR_ARG, "registry: finalized twice");
    HIRL_TRY(slab_create(be, registry->n_values, &registry->values));
    HIRL_TRY(slab_create(be, registry->n_buffers, &registry->buffers));
    if (is_trainable) HIRL_TRY(slab_create(be, registry->n_values, &registry->grads));
    for (int i = 0; i < registry->n_params; ++i) {
        hirl_param_t *p = registry->params[i];
        HIRL_TRY(slab_view(p->is_buffer ? &registry->buffers : &registry->values, p, &p->value));
        if (seed) HIRL_TRY(param_draw(be, p, *seed));
        if (is_trainable && !p->is_buffer) {
            HIRL_TRY(slab_view(&registry->grads, p, &p->grad));
            HIRL_TRY(hirl_var_create_leaf(registry->tape, &p->value, &p->grad, &p->var));
        } else {
            HIRL_TRY(hirl_var_create(registry->tape, &p->value, &p->var));
        }
    }
    registry->is_finalized = true;
    registry->is_trainable = is_trainable;
    return HIRL_OK;
}

hirl_status_t hirl_registry_finalize(hirl_registry_t *registry, uint64_t seed, bool is_trainable) {
    return finalize(registry, &seed, is_trainable);
}

hirl_status_t hirl_registry_finalize_copy(hirl_registry_t *registry, const hirl_registry_t *from) {
    HIRL_TRY(finalize(registry, NULL, false));
    return hirl_registry_copy(from, registry);
}

// ---------------------------------------------------------------------------------------------- access

int hirl_registry_n_params(const hirl_registry_t *registry) { return registry->n_params; }
hirl_param_t *hirl_registry_param(hirl_registry_t *registry, int i) { return registry->params[i]; }
const hirl_tensor_t *hirl_registry_values_view(const hirl_registry_t *registry) {
    return &registry->values;
}
const hirl_tensor_t *hirl_registry_grads_view(const hirl_registry_t *registry) {
    return &registry->grads;
}
const hirl_tensor_t *hirl_registry_buffers_view(const hirl_registry_t *registry) {
    return &registry->buffers;
}
bool hirl_registry_is_trainable(const hirl_registry_t *registry) { return registry->is_trainable; }

void hirl_registry_set_optional(hirl_registry_t *registry) { registry->is_optional = true; }
bool hirl_registry_is_optional(const hirl_registry_t *registry) { return registry->is_optional; }

hirl_param_t *hirl_registry_find(hirl_registry_t *registry, const char *name) {
    for (int i = 0; i < registry->n_params; ++i)
        if (strcmp(registry->params[i]->name, name) == 0) return registry->params[i];
    return NULL;
}

hirl_status_t hirl_registry_keep_buffers(hirl_registry_t *registry) {
    hirl_backend_t *be = hirl_tape_backend_view(registry->tape);
    if (!hirl_tensor_is_set(&registry->kept))
        HIRL_TRY(slab_create(be, registry->n_buffers, &registry->kept));
    return hirl_op_axpby(be, 1.0f, &registry->buffers, 0.0f, &registry->kept);
}

hirl_status_t hirl_registry_restore_buffers(hirl_registry_t *registry) {
    HIRL_REQUIRE(hirl_tensor_is_set(&registry->kept), HIRL_ERR_ARG,
                 "registry: no buffers were kept");
    return hirl_op_axpby(hirl_tape_backend_view(registry->tape), 1.0f, &registry->kept, 0.0f,
                         &registry->buffers);
}

void hirl_registry_clear_grads(hirl_registry_t *registry) {
    for (int i = 0; i < registry->n_params; ++i)
        if (hirl_tensor_is_set(&registry->params[i]->grad))
            hirl_var_clear_grad(registry->params[i]->var);
}

static hirl_status_t require_same(const hirl_registry_t *a, const hirl_registry_t *b) {
    bool is_same =
        a->n_params == b->n_params && a->n_values == b->n_values && a->n_buffers == b->n_buffers;
    for (int i = 0; is_same && i < a->n_params; ++i)
        is_same = hirl_shape_equal(&a->params[i]->shape, &b->params[i]->shape) &&
                  a->params[i]->offset == b->params[i]->offset;
    HIRL_REQUIRE(is_same, HIRL_ERR_ARG,
                 "registry: the two registries declare different parameters");
    return HIRL_OK;
}

hirl_status_t hirl_registry_copy(const hirl_registry_t *from, hirl_registry_t *to) {
    hirl_backend_t *be = hirl_tape_backend_view(from->tape);
    HIRL_TRY(require_same(from, to));
    HIRL_TRY(hirl_op_axpby(be, 1.0f, &from->values, 0.0f, &to->values));
    return hirl_op_axpby(be, 1.0f, &from->buffers, 0.0f, &to->buffers);
}

hirl_status_t hirl_registry_ema(const hirl_registry_t *from, float m, hirl_registry_t *to) {
    HIRL_TRY(require_same(from, to));
    return hirl_op_ema(hirl_tape_backend_view(from->tape), m, &from->values, &to->values);
}

hirl_status_t hirl_registries_hold(hirl_backend_t *backend, hirl_registry_t *const *registries,
                                   int n) {
    enum { MOST = 16 };
    const hirl_tensor_t *slab[MOST];
    int n_slabs = 0;
    HIRL_REQUIRE(n <= MOST, HIRL_ERR_ARG, "%d registries, at most %d", n, (int)MOST);
    for (int i = 0; i < n; ++i)
        if (hirl_tensor_is_set(&registries[i]->values)) slab[n_slabs++] = &registries[i]->values;
    return hirl_backend_weights_begin(backend, slab, n_slabs);
}

hirl_status_t hirl_registry_average_buffers(hirl_registry_t *registry, hirl_world_t *world) {
    hirl_backend_t *be = hirl_tape_backend_view(registry->tape);
    hirl_par_device_t *device = hirl_tape_device_view(registry->tape);
    int size = hirl_world_size(world);
    float *host = NULL;
    hirl_status_t status = HIRL_OK;
    if (size == 1 || registry->n_buffers == 0) return HIRL_OK;
    if (device) {
        HIRL_TRY(hirl_par_device_all_reduce(device, hirl_tensor_f32(&registry->buffers),
                                            registry->n_buffers));
        return hirl_op_axpby(be, 1.0f / (float)size, &registry->buffers, 0.0f, &registry->buffers);
    }
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_WORKSPACE, registry->n_buffers, &host));
    HIRL_TRY_GOTO(hirl_backend_download(be, &registry->buffers, host), status, done);
    HIRL_TRY_GOTO(hirl_par_all_reduce(world, host, registry->n_buffers, HIRL_PAR_F32, HIRL_PAR_SUM),
                  status, done);
    for (int64_t i = 0; i < registry->n_buffers; ++i) host[i] /= (float)size;
    HIRL_TRY_GOTO(hirl_backend_upload(be, host, &registry->buffers), status, done);
done:
    hirl_mem_free(host);
    return status;
}
