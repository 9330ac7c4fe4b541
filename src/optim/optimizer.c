// SGD, AdamW and LARS over the slabs of trainable registries. Updates run over the longest runs of neighbouring parameters that share decay and
// step count, so that a usual step is one pass per slab. Parameters without a gradient are skipped, as PyTorch does.

#include "hirl/optim.h"

#include <math.h>
#include <string.h>

typedef enum rule { RULE_SGD, RULE_ADAMW, RULE_LARS } rule_t;

typedef struct part {
    hirl_registry_t *registry;
    hirl_tensor_t first, second; // momentum; or first and second moments: slabs like the values
    int64_t *n_steps;            // per parameter of the registry, a view into the optimiser's array
} part_t;

struct hirl_optimizer {
    hirl_optim_cfg_t cfg;
    rule_t rule;
    hirl_backend_t *backend;
    part_t *parts;
    int n_parts;
    int64_t *n_steps;
    int64_t n_counts;
};

// One update call: values [first, first + count) of a slab.
typedef struct run {
    int64_t first, count;
    double weight_decay;
    int64_t step;
} run_t;

hirl_status_t hirl_optimizer_create(const hirl_optim_cfg_t *cfg, hirl_backend_t *backend,
                                    hirl_registry_t *const *registries, int n,
                                    hirl_optimizer_t **optimizer_p) {
    hirl_optimizer_t *o = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_PARAM, 1, &o));
    o->cfg = *cfg;
    o->backend = backend;
    o->n_parts = n;
    o->rule = strcmp(cfg->name, "adamw") == 0  ? RULE_ADAMW
              : strcmp(cfg->name, "lars") == 0 ? RULE_LARS
                                               : RULE_SGD;
    for (int i = 0; i < n; ++i) o->n_counts += hirl_registry_n_params(registries[i]);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_PARAM, n, &o->parts), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_PARAM, o->n_counts, &o->n_steps), status, err);
    int64_t *n_steps = o->n_steps;
    for (int i = 0; i < n; ++i) {
        part_t *part = &o->parts[i];
        hirl_shape_t shape = hirl_registry_values_view(registries[i])->shape;
        part->registry = registries[i];
        part->n_steps = n_steps;
        n_steps += hirl_registry_n_params(registries[i]);
        HIRL_TRY_GOTO(hirl_backend_tensor(backend, shape, HIRL_F32, &part->first), status, err);
        HIRL_TRY_GOTO(hirl_op_fill(backend, 0, &part->first), status, err);
        if (o->rule != RULE_ADAMW) continue;
        HIRL_TRY_GOTO(hirl_backend_tensor(backend, shape, HIRL_F32, &part->second), status, err);
        HIRL_TRY_GOTO(hirl_op_fill(backend, 0, &part->second), status, err);
    }
    *optimizer_p = o;
    return HIRL_OK;
err:
    hirl_optimizer_destroy(&o);
    return status;
}

void hirl_optimizer_destroy(hirl_optimizer_t **optimizer) {
    if (!optimizer || !*optimizer) return;
    hirl_optimizer_t *o = *optimizer;
    for (int i = 0; o->parts && i < o->n_parts; ++i) {
        hirl_tensor_reset(&o->parts[i].first);
        hirl_tensor_reset(&o->parts[i].second);
    }
    hirl_mem_free(o->parts);
    hirl_mem_free(o->n_steps);
    hirl_mem_free(o);
    *optimizer = NULL;
}

// ---------------------------------------------------------------------------------------------- runs

static bool is_updated(const hirl_param_t *param) {
    return hirl_tensor_is_set(&param->grad) && hirl_var_has_grad(param->var);
}

// The next run at or after parameter *at; count 0 when there is none. Padding between neighbours belongs to the run. LARS wants one tensor a run.
static run_t next_run(const hirl_optimizer_t *o, const part_t *part, int *at) {
    int n = hirl_registry_n_params(part->registry);
    run_t run = {0};
    for (; *at < n; ++*at) {
        const hirl_param_t *param = hirl_registry_param(part->registry, *at);
        if (param->is_buffer) continue;
        double decay = o->cfg.decay_1d || param->shape.n_axes > 1 ? o->cfg.weight_decay : 0.0;
        bool fits = run.count > 0 && decay == run.weight_decay && part->n_steps[*at] == run.step &&
                    o->rule != RULE_LARS;
        if (run.count > 0 && (!is_updated(param) || !fits)) break;
        if (!is_updated(param)) continue;
        if (run.count == 0)
            run =
                (run_t){.first = param->offset, .weight_decay = decay, .step = part->n_steps[*at]};
        run.count = param->offset + param->count - run.first;
    }
    return run;
}

static hirl_status_t run_views(const part_t *part, const run_t *run, hirl_tensor_t view[4]) {
    const hirl_tensor_t *slab[4] = {hirl_registry_values_view(part->registry),
                                    hirl_registry_grads_view(part->registry), &part->first,
                                    &part->second};
    for (int i = 0; i < 4; ++i)
        if (hirl_tensor_is_set(slab[i]))
            HIRL_TRY(hirl_tensor_rows(slab[i], run->first, run->count, &view[i]));
    return HIRL_OK;
}

hirl_status_t hirl_optimizer_grad_norm(hirl_optimizer_t *o, double *norm_p) {
    double total = 0;
    for (int i = 0; i < o->n_parts; ++i) {
        int at = 0;
        for (run_t run = next_run(o, &o->parts[i], &at); run.count > 0;
             run = next_run(o, &o->parts[i], &at)) {
            hirl_tensor_t g = {0};
            double sum;
            HIRL_TRY(hirl_tensor_rows(hirl_registry_grads_view(o->parts[i].registry), run.first,
                                      run.count, &g));
            hirl_status_t status = hirl_op_sum_squares(o->backend, &g, &sum);
            hirl_tensor_reset(&g);
            HIRL_TRY(status);
            total += sum;
        }
    }
    *norm_p = sqrt(total);
    return HIRL_OK;
}

// LARS (You et al. 2017): tensors with more than one axis are scaled by trust |p| / |g + wd p|.
static hirl_status_t lars_scale(const hirl_optimizer_t *o, const run_t *run,
                                hirl_tensor_t view[4]) {
    double p2, g2;
    HIRL_TRY(hirl_op_axpby(o->backend, (float)run->weight_decay, &view[0], 1.0f, &view[1]));
    HIRL_TRY(hirl_op_sum_squares(o->backend, &view[0], &p2));
    HIRL_TRY(hirl_op_sum_squares(o->backend, &view[1], &g2));
    float scale = p2 > 0 && g2 > 0 ? (float)(o->cfg.trust * sqrt(p2 / g2)) : 1.0f;
    return hirl_op_axpby(o->backend, scale, &view[1], 0.0f, &view[1]);
}

static hirl_status_t run_update(const hirl_optimizer_t *o, const run_t *run, double lr,
                                hirl_tensor_t view[4]) {
    const hirl_optim_cfg_t *c = &o->cfg;
    float decay = (float)run->weight_decay;
    if (o->rule == RULE_ADAMW)
        return hirl_op_adamw(o->backend, (float)lr, (float)c->beta1, (float)c->beta2, (float)c->eps,
                             decay, run->step + 1, &view[1], &view[2], &view[3], &view[0]);
    if (o->rule == RULE_LARS) {
        HIRL_TRY(lars_scale(o, run, view));
        decay = 0;
    }
    return hirl_op_sgd(o->backend, (float)lr, (float)c->momentum, decay, c->nesterov, &view[1],
                       &view[2], &view[0]);
}

hirl_status_t hirl_optimizer_step(hirl_optimizer_t *o, double lr, double grad_scale) {
    for (int i = 0; i < o->n_parts; ++i) {
        part_t *part = &o->parts[i];
        int at = 0;
        for (run_t run = next_run(o, part, &at); run.count > 0; run = next_run(o, part, &at)) {
            hirl_tensor_t view[4] = {{0}};
            hirl_status_t status = run_views(part, &run, view);
            if (status == HIRL_OK && grad_scale != 1.0)
                status = hirl_op_axpby(o->backend, (float)grad_scale, &view[1], 0.0f, &view[1]);
            if (status == HIRL_OK) status = run_update(o, &run, lr, view);
            for (int j = 0; j < 4; ++j) hirl_tensor_reset(&view[j]);
            HIRL_TRY(status);
        }
        for (int j = 0; j < hirl_registry_n_params(part->registry); ++j)
            if (is_updated(hirl_registry_param(part->registry, j))) ++part->n_steps[j];
    }
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- state

static hirl_status_t visit_slab(const hirl_optimizer_t *o, const part_t *part,
                                const hirl_tensor_t *slab, const char *kind,
                                hirl_state_visit_t visit, void *ctx) {
    (void)o;
    for (int i = 0; i < hirl_registry_n_params(part->registry); ++i) {
        const hirl_param_t *param = hirl_registry_param(part->registry, i);
        hirl_tensor_t rows = {0}, view = {0};
        char name[2 * HIRL_NAME_MAX];
        if (param->is_buffer) continue;
        HIRL_TRY(hirl_text_format(name, sizeof name, "/optimizer/%s/%s", kind, param->name));
        HIRL_TRY(hirl_tensor_rows(slab, param->offset, param->count, &rows));
        hirl_status_t status = hirl_tensor_reshape(&rows, param->shape, &view);
        if (status == HIRL_OK) status = visit(ctx, name, &view);
        hirl_tensor_reset(&view);
        hirl_tensor_reset(&rows);
        HIRL_TRY(status);
    }
    return HIRL_OK;
}

hirl_status_t hirl_optimizer_visit(hirl_optimizer_t *o, hirl_state_visit_t visit, void *ctx) {
    for (int i = 0; i < o->n_parts; ++i) {
        const part_t *part = &o->parts[i];
        HIRL_TRY(visit_slab(o, part, &part->first, o->rule == RULE_ADAMW ? "exp_avg" : "momentum",
                            visit, ctx));
        if (o->rule == RULE_ADAMW)
            HIRL_TRY(visit_slab(o, part, &part->second, "exp_avg_sq", visit, ctx));
    }
    return HIRL_OK;
}

int64_t *hirl_optimizer_step_counts(hirl_optimizer_t *o, int64_t *n_p) {
    *n_p = o->n_counts;
    return o->n_steps;
}

// ---------------------------------------------------------------------------------------------- deck

static const hirl_key_t optim_keys[] = {
    HIRL_ROW_TEXT(hirl_optim_cfg_t, name, "'sgd'", "sgd|adamw|lars", "Update rule."),
    HIRL_ROW_REAL(hirl_optim_cfg_t, lr, "0.03", 0, 1e6, "",
                  "Base learning rate; lr_rule says how the batch size scales it."),
    HIRL_ROW_TEXT(hirl_optim_cfg_t, lr_rule, "'linear'", "none|linear|sqrt",
                  "Learning rate = lr, lr batch / 256, or lr sqrt(batch / 256)."),
    HIRL_ROW_REAL(hirl_optim_cfg_t, momentum, "0.9", 0, 1, "", "Momentum of SGD and LARS."),
    HIRL_ROW_REAL(hirl_optim_cfg_t, weight_decay, "1e-4", 0, 1e3, "",
                  "L2 penalty (SGD, LARS) or decoupled decay (AdamW)."),
    HIRL_ROW_REAL(hirl_optim_cfg_t, beta1, "0.9", 0, 1, "", "AdamW: decay of the first moment."),
    HIRL_ROW_REAL(hirl_optim_cfg_t, beta2, "0.999", 0, 1, "", "AdamW: decay of the second moment."),
    HIRL_ROW_REAL(hirl_optim_cfg_t, eps, "1e-8", 0, 1, "",
                  "AdamW: added to the root of the second moment."),
    HIRL_ROW_REAL(hirl_optim_cfg_t, trust, "0.001", 0, 1e3, "", "LARS: trust coefficient."),
    HIRL_ROW_BOOL(hirl_optim_cfg_t, nesterov, ".false.", "SGD: Nesterov's momentum."),
    HIRL_ROW_BOOL(hirl_optim_cfg_t, decay_1d, ".true.",
                  "Weight decay also on biases and norm parameters, as the published MoCo v2."),
    HIRL_ROW_REAL(hirl_optim_cfg_t, clip_grad, "0", 0, 1e9, "",
                  "Largest global L2 norm of the gradient; 0: no clipping."),
    HIRL_ROW_INT(hirl_optim_cfg_t, batch, "256", 1, 1 << 24, "samples",
                 "Global batch size, over all ranks and micro-batches."),
    HIRL_ROW_INT(hirl_optim_cfg_t, accumulate, "1", 1, 65536, "micro-batches",
                 "Micro-batches a step is split into, to save memory."),
    HIRL_ROW_REAL(
        hirl_optim_cfg_t, bucket_mib, "4", 0.001, 4096, "MiB",
        "Size of a gradient bucket; a full one is reduced while the backward pass goes on."),
};

const hirl_group_t hirl_optim_group = {"optim", "The optimiser and the batch.", optim_keys,
                                       sizeof optim_keys / sizeof *optim_keys,
                                       sizeof(hirl_optim_cfg_t)};
