// SGD, AdamW and LARS over the slabs of trainable registries. A registry's segments are the longest runs of neighbouring parameters that are
// treated alike; one operation updates them all. They are made again only when they change, which is when a parameter gets its first gradient
// or goes without. Parameters without a gradient are skipped, as PyTorch does.

#include "hirl/optim.h"

#include <math.h>
#include <string.h>

typedef struct part {
    hirl_registry_t *registry;
    hirl_tensor_t first, second; // momentum; or first and second moments: slabs like the values
    int64_t *n_steps;            // per parameter of the registry, a view into the optimiser's array
    hirl_segment_t *segment, *fresh; // [n_params]: of `segments`, and what they should be
    int64_t n_segments;
    hirl_segments_t *segments; // NULL: none
    int64_t step;              // of segments without lag: the largest count of steps so far, and 1
} part_t;

struct hirl_optimizer {
    hirl_optim_cfg_t cfg;
    hirl_rule_t rule;
    hirl_backend_t *backend;
    part_t *parts;
    int n_parts;
    int64_t *n_steps;
    int64_t n_counts;
    const hirl_segments_t **segments; // [n_parts], working memory of the norm
    const hirl_tensor_t **grads;      // likewise
};

static hirl_rule_t rule_of(const hirl_optim_cfg_t *cfg) {
    if (strcmp(cfg->name, "adamw") == 0) return HIRL_RULE_ADAMW;
    if (strcmp(cfg->name, "lars") != 0) return HIRL_RULE_SGD;
    return strcmp(cfg->lars_form, "larc") == 0    ? HIRL_RULE_LARC
           : strcmp(cfg->lars_form, "joint") == 0 ? HIRL_RULE_LARS_JOINT
                                                  : HIRL_RULE_LARS;
}

hirl_status_t hirl_optimizer_create(const hirl_optim_cfg_t *cfg, hirl_backend_t *backend,
                                    hirl_registry_t *const *registries, int n,
                                    hirl_optimizer_t **optimizer_p) {
    hirl_optimizer_t *o = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_PARAM, 1, &o));
    o->cfg = *cfg;
    o->backend = backend;
    o->n_parts = n;
    o->rule = rule_of(cfg);
    for (int i = 0; i < n; ++i) o->n_counts += hirl_registry_n_params(registries[i]);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_PARAM, n, &o->parts), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_PARAM, n, &o->segments), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_PARAM, n, &o->grads), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_PARAM, o->n_counts, &o->n_steps), status, err);
    int64_t *n_steps = o->n_steps;
    for (int i = 0; i < n; ++i) {
        part_t *part = &o->parts[i];
        hirl_shape_t shape = hirl_registry_values_view(registries[i])->shape;
        part->registry = registries[i];
        part->n_steps = n_steps;
        const int n_params = hirl_registry_n_params(registries[i]);
        n_steps += n_params;
        HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_PARAM, n_params, &part->segment), status, err);
        HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_PARAM, n_params, &part->fresh), status, err);
        HIRL_TRY_GOTO(hirl_backend_tensor(backend, shape, HIRL_F32, &part->first), status, err);
        HIRL_TRY_GOTO(hirl_op_fill(backend, 0, &part->first), status, err);
        if (o->rule != HIRL_RULE_ADAMW) continue;
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
        hirl_segments_destroy(&o->parts[i].segments);
        hirl_mem_free(o->parts[i].segment);
        hirl_mem_free(o->parts[i].fresh);
    }
    hirl_mem_free(o->segments);
    hirl_mem_free(o->grads);
    hirl_mem_free(o->parts);
    hirl_mem_free(o->n_steps);
    hirl_mem_free(o);
    *optimizer = NULL;
}

// ---------------------------------------------------------------------------------------------- segments

static bool is_updated(const hirl_param_t *param) {
    return !param->is_buffer && hirl_tensor_is_set(&param->grad) && hirl_var_has_grad(param->var);
}

static bool is_alike(const hirl_segment_t *a, const hirl_segment_t *b) {
    return a->lag == b->lag && a->weight_decay == b->weight_decay && a->is_adapted == b->is_adapted;
}

// What an update has to do now: part->fresh and its length. Padding between neighbours belongs to a segment; norms are of one parameter.
static int64_t find_segments(const hirl_optimizer_t *o, part_t *part) {
    const int n_params = hirl_registry_n_params(part->registry);
    const bool is_lars = o->rule != HIRL_RULE_SGD && o->rule != HIRL_RULE_ADAMW;
    int64_t n = 0, most_steps = 0;
    bool is_open = false; // the last segment may grow
    for (int i = 0; i < n_params; ++i)
        if (part->n_steps[i] > most_steps) most_steps = part->n_steps[i];
    part->step = most_steps + 1;
    for (int i = 0; i < n_params; ++i) {
        const hirl_param_t *param = hirl_registry_param(part->registry, i);
        if (param->is_buffer) continue; // in another slab
        if (!is_updated(param)) {
            is_open = false;
            continue;
        }
        const bool is_1d = param->shape.n_axes <= 1;
        const hirl_segment_t own = {
            .first = param->offset,
            .count = param->count,
            .lag = o->rule == HIRL_RULE_ADAMW ? most_steps - part->n_steps[i] : 0,
            .weight_decay = is_1d && !o->cfg.decay_1d ? 0.0f : (float)o->cfg.weight_decay,
            .is_adapted = is_lars && (!is_1d || o->cfg.adapt_1d)};
        hirl_segment_t *last = n > 0 ? &part->fresh[n - 1] : NULL;
        if (is_open && is_alike(last, &own) && !own.is_adapted)
            last->count = own.first + own.count - last->first;
        else
            part->fresh[n++] = own;
        is_open = true;
    }
    return n;
}

static hirl_status_t refresh_segments(const hirl_optimizer_t *o, part_t *part) {
    const int64_t n = find_segments(o, part);
    bool is_same = n == part->n_segments;
    for (int64_t i = 0; is_same && i < n; ++i)
        is_same = part->fresh[i].first == part->segment[i].first &&
                  part->fresh[i].count == part->segment[i].count &&
                  is_alike(&part->fresh[i], &part->segment[i]);
    if (is_same) return HIRL_OK;
    hirl_segments_destroy(&part->segments);
    part->n_segments = 0;
    if (n == 0) return HIRL_OK;
    HIRL_TRY(hirl_segments_create(o->backend, part->fresh, n, &part->segments));
    memcpy(part->segment, part->fresh, (size_t)n * sizeof *part->segment);
    part->n_segments = n;
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- norm and update

hirl_status_t hirl_optimizer_grad_norm(hirl_optimizer_t *o, double *norm_p) {
    double sum = 0;
    for (int i = 0; i < o->n_parts; ++i) {
        HIRL_TRY(refresh_segments(o, &o->parts[i]));
        o->segments[i] = o->parts[i].segments;
        o->grads[i] = hirl_registry_grads_view(o->parts[i].registry);
    }
    HIRL_TRY(hirl_op_sum_squares_of(o->backend, o->n_parts, o->segments, o->grads, &sum));
    *norm_p = sqrt(sum);
    return HIRL_OK;
}

hirl_status_t hirl_optimizer_step(hirl_optimizer_t *o, double lr, double grad_scale) {
    const hirl_optim_cfg_t *c = &o->cfg;
    hirl_update_t update = {.rule = o->rule,
                            .lr = (float)lr,
                            .grad_scale = (float)grad_scale,
                            .momentum = (float)c->momentum,
                            .trust = (float)c->trust,
                            .beta1 = (float)c->beta1,
                            .beta2 = (float)c->beta2,
                            .eps = (float)c->eps,
                            .is_nesterov = c->nesterov};
    for (int i = 0; i < o->n_parts; ++i) {
        part_t *part = &o->parts[i];
        hirl_tensor_t values = {0};
        HIRL_TRY(refresh_segments(o, part));
        if (!part->segments) continue;
        update.step = part->step;
        values = hirl_tensor_retain(hirl_registry_values_view(part->registry));
        const hirl_status_t status = hirl_op_update(
            o->backend, &update, part->segments, hirl_registry_grads_view(part->registry),
            &part->first, o->rule == HIRL_RULE_ADAMW ? &part->second : NULL, &values);
        hirl_tensor_reset(&values);
        HIRL_TRY(status);
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
        HIRL_TRY(visit_slab(o, part, &part->first,
                            o->rule == HIRL_RULE_ADAMW ? "exp_avg" : "momentum", visit, ctx));
        if (o->rule == HIRL_RULE_ADAMW)
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
                  "AdamW: added to the root of the second moment; LARS: to the sum of norms."),
    HIRL_ROW_REAL(hirl_optim_cfg_t, trust, "0.001", 0, 1e3, "", "LARS: trust coefficient."),
    HIRL_ROW_TEXT(hirl_optim_cfg_t, lars_form, "'lars'", "lars|larc|joint",
                  "LARS: 'lars': each parameter p with gradient g has the rate trust |p| / (|g| + "
                  "weight_decay |p| + eps), and momentum sums lr rate (g + weight_decay p) (You et "
                  "al. 2017, MMSelfSup); 'larc': the same rate, lr outside of the momentum "
                  "(SwAV); 'joint': rate trust |p| / |g + weight_decay p|, lr outside (MoCo v3, "
                  "MAE's linear probe)."),
    HIRL_ROW_BOOL(hirl_optim_cfg_t, adapt_1d, ".false.",
                  "LARS: rates also for biases and norm parameters (SwAV); without, theirs is 1."),
    HIRL_ROW_BOOL(hirl_optim_cfg_t, nesterov, ".false.", "SGD and LARS: Nesterov's momentum."),
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
