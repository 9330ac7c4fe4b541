// run%task = 'probe': one training step on a given batch with given weights, every number of it written to a file, so that any implementation can be compared with this one.
// Input: /views/<v> f32 [B, C, H, W], /index i64 [B], optional /hierarchy/{centroid,assign,parent}/<l>, /draw/shuffle i64 [B], /draw/negative_path i32 [B, M, L];
// weights and method state from checkpoint%init_from. Output: /loss/<term>, /loss/total, /embedding/<name>, /grad/<parameter>, /after/<parameter, buffer or state>.

#include <stdio.h>
#include <string.h>

#include "app_impl.h"

enum { MAX_ARRAYS = 4096 };

typedef struct probe_cfg {
    char input[HIRL_DECK_TEXT_MAX], output[HIRL_DECK_TEXT_MAX];
    int64_t n_samples;
} probe_cfg_t;

typedef struct probe {
    hirl_world_t *world;
    hirl_session_t *session;
    const probe_cfg_t *cfg;
    hirl_ckpt_t *input; // every rank reads the file
    hirl_batch_t batch;
    int64_t *index;
    float *view[HIRL_MAX_VIEWS];
    hirl_draws_t draws;
    int64_t *shuffle;
    int32_t *negative;
    // output, collected on every rank, written by rank 0
    hirl_ckpt_array_t array[MAX_ARRAYS];
    int n_arrays;
} probe_t;

// ---------------------------------------------------------------------------------------------- output

static hirl_status_t output_add(probe_t *p, const char *name, hirl_ckpt_type_t type, int n_axes,
                                const int64_t *shape, const void *data, size_t bytes) {
    char *name_copy = NULL;
    void *data_copy = NULL;
    HIRL_REQUIRE(p->n_arrays < MAX_ARRAYS, HIRL_ERR_INTERNAL, "probe: more than %d arrays",
                 MAX_ARRAYS);
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_GENERAL, strlen(name) + 1, (void **)&name_copy));
    memcpy(name_copy, name, strlen(name) + 1);
    hirl_ckpt_array_t *array = &p->array[p->n_arrays];
    *array = (hirl_ckpt_array_t){.name = name_copy, .type = type, .n_axes = n_axes};
    ++p->n_arrays;
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_GENERAL, bytes, &data_copy));
    memcpy(data_copy, data, bytes);
    array->data = data_copy;
    if (n_axes > 0) memcpy(array->shape, shape, (size_t)n_axes * sizeof *shape);
    return HIRL_OK;
}

static hirl_status_t output_scalar(probe_t *p, const char *group, const char *name, double value) {
    char path[HIRL_NAME_MAX + 32];
    float f = (float)value;
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s/%s", group, name));
    return output_add(p, path, HIRL_CKPT_F32, 0, NULL, &f, sizeof f);
}

static hirl_status_t output_tensor(probe_t *p, const char *group, const char *name,
                                   const hirl_tensor_t *tensor) {
    char path[HIRL_NAME_MAX + 32];
    size_t bytes = (size_t)hirl_tensor_count(tensor) * sizeof(float);
    float *host = NULL;
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s/%s", group, name));
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_WORKSPACE, bytes, (void **)&host));
    hirl_status_t status = hirl_backend_download(p->session->backend, tensor, host);
    if (status == HIRL_OK)
        status = output_add(p, path, HIRL_CKPT_F32, tensor->shape.n_axes, tensor->shape.dim, host,
                            bytes);
    hirl_mem_free(host);
    return status;
}

// Rows of all ranks, in order of the global batch.
static hirl_status_t output_rows(probe_t *p, const char *name, const hirl_tensor_t *tensor) {
    char path[HIRL_NAME_MAX + 32];
    int size = hirl_world_size(p->world);
    int64_t n = hirl_tensor_count(tensor),
            shape[2] = {tensor->shape.dim[0] * size, tensor->shape.dim[1]};
    float *mine = NULL, *all = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_text_format(path, sizeof path, "/embedding/%s", name));
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_WORKSPACE, n, &mine), status, done);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_WORKSPACE, n * size, &all), status, done);
    HIRL_TRY_GOTO(hirl_backend_download(p->session->backend, tensor, mine), status, done);
    HIRL_TRY_GOTO(hirl_par_all_gather(p->world, mine, n, HIRL_PAR_F32, all), status, done);
    status = output_add(p, path, HIRL_CKPT_F32, 2, shape, all, (size_t)(n * size) * sizeof(float));
done:
    hirl_mem_free(mine);
    hirl_mem_free(all);
    return status;
}

static hirl_status_t after_forward(void *ctx, const hirl_terms_t *terms, int micro) {
    probe_t *p = ctx;
    if (micro > 0) return HIRL_OK;
    for (int i = 0; i < terms->n_embeddings; ++i)
        HIRL_TRY(
            output_rows(p, terms->embedding_name[i], hirl_var_value_view(terms->embedding[i])));
    return HIRL_OK;
}

static hirl_status_t after_backward(void *ctx, const hirl_terms_t *terms, int micro) {
    probe_t *p = ctx;
    (void)terms;
    (void)micro;
    for (int r = 0; r < p->session->n_trainable; ++r) {
        for (int i = 0; i < hirl_registry_n_params(p->session->registry[r]); ++i) {
            const hirl_param_t *param = hirl_registry_param(p->session->registry[r], i);
            if (!param->is_buffer && hirl_var_has_grad(param->var))
                HIRL_TRY(output_tensor(p, "/grad", param->name, &param->grad));
        }
    }
    return HIRL_OK;
}

static hirl_status_t state_visit(void *ctx, const char *name, hirl_ckpt_type_t type, int n_axes,
                                 const int64_t *shape, void *data) {
    static const size_t size[] = {[HIRL_CKPT_F32] = 4,
                                  [HIRL_CKPT_F64] = 8,
                                  [HIRL_CKPT_I32] = 4,
                                  [HIRL_CKPT_I64] = 8,
                                  [HIRL_CKPT_U8] = 1};
    char path[HIRL_NAME_MAX + 32];
    size_t count = 1;
    const char *last = strncmp(name, "/method/", 8) == 0 ? name + 8 : NULL;
    if (!last) return HIRL_OK; // the clustering is an input
    for (int i = 0; i < n_axes; ++i) count *= (size_t)shape[i];
    HIRL_TRY(hirl_text_format(path, sizeof path, "/after/%s", last));
    return output_add(ctx, path, type, n_axes, shape, data, count * size[type]);
}

static hirl_status_t state_visit_tensor(void *ctx, const char *name, const hirl_tensor_t *tensor) {
    if (strncmp(name, "/method/", 8) != 0) return HIRL_OK;
    return output_tensor(ctx, "/after", name + 8, tensor);
}

static hirl_status_t output_after(probe_t *p) {
    hirl_session_t *s = p->session;
    hirl_state_t state = {
        .is_loading = false, .ctx = p, .visit = state_visit, .visit_tensor = state_visit_tensor};
    for (int r = 0; r < s->n_registries; ++r) {
        for (int i = 0; i < hirl_registry_n_params(s->registry[r]); ++i) {
            const hirl_param_t *param = hirl_registry_param(s->registry[r], i);
            HIRL_TRY(output_tensor(p, "/after", param->name, &param->value));
        }
    }
    return s->method.ops->state ? s->method.ops->state(s->method.self, &state) : HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- input

static hirl_status_t find(const probe_t *p, const char *name, int n_axes,
                          const hirl_ckpt_array_t **array_p) {
    const hirl_ckpt_array_t *array = hirl_ckpt_find_view(p->input, name);
    HIRL_REQUIRE(array, HIRL_ERR_FORMAT, "%s: no %s in it", p->cfg->input, name);
    HIRL_REQUIRE(array->n_axes == n_axes, HIRL_ERR_FORMAT, "%s: %s has %d axes, expected %d",
                 p->cfg->input, name, array->n_axes, n_axes);
    *array_p = array;
    return HIRL_OK;
}

// This rank's rows of a view, [B, C, H, W] to [n, H, W, C].
static hirl_status_t read_view(probe_t *p, int v, const char *name,
                               const hirl_ckpt_array_t *array) {
    int64_t total = array->shape[0], c = array->shape[1], h = array->shape[2], w = array->shape[3];
    int64_t n = total / hirl_world_size(p->world), first = n * hirl_world_rank(p->world);
    float *all = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, total * c * h * w, &all));
    hirl_status_t status = hirl_ckpt_read(p->input, name, HIRL_CKPT_F32, 4, array->shape, all);
    if (status == HIRL_OK) status = HIRL_ALLOC(HIRL_MEM_DATA, n * c * h * w, &p->view[v]);
    for (int64_t i = 0; status == HIRL_OK && i < n; ++i)
        for (int64_t y = 0; y < h; ++y)
            for (int64_t x = 0; x < w; ++x)
                for (int64_t k = 0; k < c; ++k)
                    p->view[v][((i * h + y) * w + x) * c + k] =
                        all[(((first + i) * c + k) * h + y) * w + x];
    hirl_mem_free(all);
    HIRL_TRY(status);
    p->batch.n = n;
    p->batch.channels = (int)c;
    p->batch.size[v] = (int)h;
    p->batch.width[v] = (int)w;
    p->batch.view[v] = p->view[v];
    return HIRL_OK;
}

static hirl_status_t read_hierarchy(probe_t *p, int64_t n_samples) {
    hirl_hierarchy_t *tree = NULL;
    const hirl_ckpt_array_t *array = NULL;
    char name[64];
    int64_t k[HIRL_MAX_LEVELS];
    int n_levels = 0;
    hirl_status_t status = HIRL_OK;
    for (; n_levels < HIRL_MAX_LEVELS; ++n_levels) {
        snprintf(name, sizeof name, "/hierarchy/centroid/%d", n_levels);
        if (!hirl_ckpt_find_view(p->input, name)) break;
        HIRL_TRY(find(p, name, 2, &array));
        k[n_levels] = array->shape[0];
    }
    if (n_levels == 0) return HIRL_OK;
    HIRL_TRY(find(p, "/hierarchy/centroid/0", 2, &array));
    HIRL_TRY(
        hirl_hierarchy_create_empty(p->world, n_levels, k, (int)array->shape[1], n_samples, &tree));
    for (int l = 0; l < n_levels; ++l) {
        int64_t shape[2] = {k[l], tree->d};
        snprintf(name, sizeof name, "/hierarchy/centroid/%d", l);
        HIRL_TRY_GOTO(hirl_ckpt_read(p->input, name, HIRL_CKPT_F32, 2, shape, tree->centroid[l]),
                      status, err);
        snprintf(name, sizeof name, "/hierarchy/assign/%d", l);
        if (hirl_world_node_rank(p->world) == 0)
            HIRL_TRY_GOTO(hirl_ckpt_read(p->input, name, HIRL_CKPT_I32, 1, &n_samples,
                                         hirl_hierarchy_assign_of(tree, l)),
                          status, err);
        if (l == n_levels - 1) continue;
        snprintf(name, sizeof name, "/hierarchy/parent/%d", l);
        HIRL_TRY_GOTO(hirl_ckpt_read(p->input, name, HIRL_CKPT_I32, 1, &k[l], tree->parent[l]),
                      status, err);
    }
    HIRL_TRY_GOTO(hirl_par_shared_sync(tree->shared), status, err);
    return hirl_method_set_hierarchy(&p->session->method, tree);
err:
    hirl_hierarchy_destroy(&tree);
    return status;
}

static hirl_status_t read_draws(probe_t *p) {
    const hirl_ckpt_array_t *array = NULL;
    if (hirl_ckpt_find_view(p->input, "/draw/shuffle")) {
        HIRL_TRY(find(p, "/draw/shuffle", 1, &array));
        HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, array->shape[0], &p->shuffle));
        HIRL_TRY(
            hirl_ckpt_read(p->input, "/draw/shuffle", HIRL_CKPT_I64, 1, array->shape, p->shuffle));
        int64_t total = p->batch.n * hirl_world_size(p->world);
        HIRL_REQUIRE(array->shape[0] == total, HIRL_ERR_FORMAT,
                     "%s: /draw/shuffle has %lld items, expected %lld", p->cfg->input,
                     (long long)array->shape[0], (long long)total);
        for (int64_t i = 0; i < total; ++i)
            HIRL_REQUIRE(p->shuffle[i] >= 0 && p->shuffle[i] < total, HIRL_ERR_FORMAT,
                         "%s: /draw/shuffle[%lld] = %lld: expected 0 to %lld", p->cfg->input,
                         (long long)i, (long long)p->shuffle[i], (long long)total - 1);
        p->draws.shuffle = p->shuffle;
    }
    if (hirl_ckpt_find_view(p->input, "/draw/negative_path")) {
        HIRL_TRY(find(p, "/draw/negative_path", 3, &array));
        HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, array->shape[0] * array->shape[1] * array->shape[2],
                            &p->negative));
        HIRL_TRY(hirl_ckpt_read(p->input, "/draw/negative_path", HIRL_CKPT_I32, 3, array->shape,
                                p->negative));
        p->draws.negative = p->negative;
        p->draws.n_negative = array->shape[1];
    }
    return HIRL_OK;
}

static hirl_status_t read_batch(probe_t *p) {
    const hirl_ckpt_array_t *array = NULL;
    int64_t total = p->session->optim->batch;
    for (int v = 0; v < p->session->n_views; ++v) {
        char name[32];
        snprintf(name, sizeof name, "/views/%d", v);
        HIRL_TRY(find(p, name, 4, &array));
        HIRL_REQUIRE(array->shape[0] == total, HIRL_ERR_FORMAT,
                     "%s: %s holds %lld samples, optim%%batch is %lld", p->cfg->input, name,
                     (long long)array->shape[0], (long long)total);
        HIRL_TRY(read_view(p, v, name, array));
    }
    p->batch.n_views = p->session->n_views;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, total, &p->index));
    HIRL_TRY(hirl_ckpt_read(p->input, "/index", HIRL_CKPT_I64, 1, &total, p->index));
    for (int64_t i = 0; i < total; ++i)
        HIRL_REQUIRE(p->index[i] >= 0 && p->index[i] < p->cfg->n_samples, HIRL_ERR_FORMAT,
                     "%s: /index[%lld] = %lld: expected 0 to %lld", p->cfg->input, (long long)i,
                     (long long)p->index[i], (long long)p->cfg->n_samples - 1);
    p->batch.index = p->index + p->batch.n * hirl_world_rank(p->world);
    return read_draws(p);
}

// ---------------------------------------------------------------------------------------------- task

static hirl_status_t probe_step(probe_t *p) {
    hirl_session_t *s = p->session;
    hirl_reducer_t *reducer = NULL;
    hirl_step_result_t result;
    hirl_step_request_t request = {
        .batch = &p->batch,
        .lr = hirl_schedule_lr(s->schedule, hirl_optim_scaled_lr(s->optim), 0),
        .draws = &p->draws,
        .after_forward = after_forward,
        .after_backward = after_backward,
        .watch_ctx = p};
    HIRL_TRY(hirl_reducer_create(p->world, s->tape, s->optim->bucket_mib, s->registry,
                                 s->n_trainable, &reducer));
    hirl_status_t status = hirl_session_step(s, reducer, &request, &result);
    hirl_reducer_destroy(&reducer);
    HIRL_TRY(status);
    double loss[HIRL_MAX_TERMS + 1];
    memcpy(loss, result.loss, sizeof result.loss);
    loss[HIRL_MAX_TERMS] = result.total;
    HIRL_TRY(hirl_par_all_reduce(p->world, loss, HIRL_MAX_TERMS + 1, HIRL_PAR_F64, HIRL_PAR_SUM));
    double inv = 1.0 / hirl_world_size(p->world);
    for (int i = 0; i < result.n_losses; ++i) {
        HIRL_TRY(output_scalar(p, "/loss", result.loss_name[i], loss[i] * inv));
        hirl_log_root(HIRL_LOG_INFO, "probe: loss_%s = %.8g", result.loss_name[i], loss[i] * inv);
    }
    hirl_log_root(HIRL_LOG_INFO, "probe: loss = %.8g grad_norm = %.8g", loss[HIRL_MAX_TERMS] * inv,
                  result.grad_norm);
    HIRL_TRY(output_scalar(p, "/loss", "total", loss[HIRL_MAX_TERMS] * inv));
    return output_after(p);
}

static hirl_status_t probe_run(probe_t *p, const hirl_deck_t *deck) {
    const hirl_ckpt_array_t *array = NULL;
    HIRL_TRY(hirl_par_agree(p->world, hirl_arrays_open(p->cfg->input, &p->input)));
    HIRL_TRY(find(p, "/views/0", 4, &array));
    HIRL_TRY(
        hirl_session_create(p->world, deck, (int)array->shape[1], p->cfg->n_samples, &p->session));
    if (p->session->ckpt->init_from[0])
        HIRL_TRY(hirl_session_load_model(p->session, p->session->ckpt->init_from, true));
    HIRL_TRY(hirl_par_agree(p->world, read_batch(p)));
    HIRL_TRY(read_hierarchy(p, p->cfg->n_samples));
    HIRL_TRY(probe_step(p));
    return hirl_par_agree(p->world, hirl_world_rank(p->world) == 0
                                        ? hirl_arrays_write(p->cfg->output, p->array, p->n_arrays)
                                        : HIRL_OK);
}

static hirl_status_t run(hirl_world_t *world, const hirl_deck_t *deck, int *exit_code_p) {
    probe_t *p = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &p));
    p->world = world;
    p->cfg = hirl_deck_group_view(deck, "probe");
    hirl_status_t status = probe_run(p, deck);
    app_settle(world, status);
    for (int i = 0; i < p->n_arrays; ++i) {
        hirl_mem_free((void *)(uintptr_t)p->array[i].name);
        hirl_mem_free((void *)(uintptr_t)p->array[i].data);
    }
    for (int v = 0; v < HIRL_MAX_VIEWS; ++v) hirl_mem_free(p->view[v]);
    hirl_mem_free(p->index);
    hirl_mem_free(p->shuffle);
    hirl_mem_free(p->negative);
    hirl_ckpt_close(&p->input);
    hirl_session_destroy(&p->session);
    hirl_mem_free(p);
    *exit_code_p = APP_EXIT_OK;
    return status;
}

static const hirl_key_t keys[] = {
    HIRL_ROW_TEXT(probe_cfg_t, input, NULL, NULL,
                  "HDF5 file with views, indices, and what a step would draw."),
    HIRL_ROW_TEXT(probe_cfg_t, output, NULL, NULL,
                  "HDF5 file the step's losses, embeddings, gradients and updated state go to."),
    HIRL_ROW_INT(probe_cfg_t, n_samples, "1", 1, 1e12, "samples",
                 "Samples of the training set that /index and /hierarchy/assign refer to."),
};
const hirl_group_t app_probe_group = {
    "probe", "One step on a given batch, for comparison with other implementations.", keys,
    sizeof keys / sizeof *keys, sizeof(probe_cfg_t)};

static const char *const groups[] = {"run", "probe", "model", "optim", NULL};
const app_task_t app_task_probe = {
    "probe",
    "one training step on a given batch; writes losses, embeddings, gradients, updated state",
    groups, hirl_session_check, run};
